"""What every classification network must do, over one list of all of them."""

import inspect

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision import backbones
from kerasvision.classification import Classifier

# Name: (its smaller arguments, the least side of its pictures, whether its files take long).
# What stands behind a colon tells variants of one function apart.
NETWORKS = {
    "lenet5": ({}, 32, False),
    "lenet5: dense": ({"connections": "dense"}, 32, False),
    "alexnet": ({}, 67, True),
    "alexnet_one_tower": ({}, 63, True),
    "vgg11": ({}, 32, True),
    "vgg13": ({}, 32, True),
    "vgg16": ({}, 32, True),
    "vgg19": ({}, 32, True),
    "network_in_network": ({}, 32, False),
    "googlenet": ({}, 32, True),
    "inception_v3": ({}, 75, True),
    "inception_resnet_v2": ({}, 75, True),
    "resnet18": ({"width": 8}, 32, False),
    "resnet34": ({"width": 8}, 32, True),
    "resnet50": ({"width": 8}, 32, True),
    "resnet101": ({"width": 8}, 32, True),
    "resnet152": ({"width": 8}, 32, True),
    "cifar_resnet": ({"depth": 8, "shortcuts": "A"}, 32, False),
    "cifar_resnet: option B": ({"depth": 8, "shortcuts": "B"}, 32, False),
    "cifar_resnet: plain": ({"depth": 8, "shortcuts": None}, 32, False),
    "densenet121": ({}, 32, True),
    "densenet169": ({}, 32, True),
    "densenet201": ({}, 32, True),
    "cifar_densenet": ({"depth": 10}, 32, False),
    "cifar_densenet: BC": (
        {"depth": 16, "growth_rate": 6, "bottleneck": True, "compression": 0.5},
        32,
        False,
    ),
    "darknet19": ({}, 32, True),
    "darknet53": ({}, 32, True),
    "darknet_tiny": ({}, 32, True),
    "mobilenet_v2": ({"width_multiplier": 0.35}, 32, True),
    "squeezenet": ({}, 32, False),
}


def slow_but(*quick):
    """Names of networks, of which these take part in every run of the tests."""
    return [pytest.param(n, marks=[] if n in quick else pytest.mark.slow) for n in NETWORKS]


ALL = slow_but(*(name for name, (_, _, long) in NETWORKS.items() if not long))
# XLA takes its time to compile: a plain, a residual and a dense network.
COMPILED = slow_but("lenet5", "cifar_resnet", "cifar_densenet")


def build(name, side=None, **arguments):
    """A small network of random weights, `side` wide and 7 classes."""
    small, least_side, _ = NETWORKS[name]
    side = side or least_side
    keras.utils.set_random_seed(0)
    function = getattr(backbones, name.partition(":")[0])
    return function((side, side, 3), num_classes=7, **small, **arguments)


def pictures(name, count=2):
    side = NETWORKS[name][1]
    return np.random.default_rng(0).uniform(0, 255, (count, side, side, 3)).astype("float32")


def test_the_list_is_complete():
    public = {name for name, value in vars(backbones).items() if inspect.isfunction(value)}
    assert public == {name.partition(":")[0] for name in NETWORKS}


@pytest.mark.parametrize("name", ALL)
def test_tells_classes_apart(name):
    """Whole, without its activation and headless it is the same network."""
    logits = build(name, classifier_activation=None)
    images = pictures(name)
    expected = ops.convert_to_numpy(ops.softmax(logits(images)))
    whole = build(name)
    whole.set_weights(logits.get_weights())
    received = ops.convert_to_numpy(whole(images))
    assert received.shape == (2, 7) and received.dtype == np.float32
    np.testing.assert_allclose(received, expected, atol=1e-6)
    assert logits.name == name.partition(":")[0]
    classifier = Classifier(logits)
    received = ops.convert_to_numpy(classifier.predictor(images))
    np.testing.assert_allclose(received, expected, atol=1e-6)
    assert len(classifier.embedder.output.shape) == 2
    headless = build(name, include_top=False)
    assert len(headless.output.shape) == 4
    names = {layer.name for layer in headless.layers}
    assert "predictions" not in names and names < {layer.name for layer in whole.layers}


@pytest.mark.parametrize("name", ALL)
def test_taps_have_the_strides_of_their_names(name):
    """A picture larger by k times the stride makes a map larger by k cells."""
    small = build(name, NETWORKS[name][1], include_top=False)
    large = build(name, NETWORKS[name][1] + 64, include_top=False)
    assert small.feature_taps
    for tap, tensor in small.feature_taps.items():
        stride = int(tap.removeprefix("stride"))
        growth = [b - a for a, b in zip(tensor.shape[1:3], large.feature_taps[tap].shape[1:3])]
        assert growth == [64 // stride] * 2, tap
    assert small.feature_taps.keys() == build(name).feature_taps.keys()
    # The deepest tap is what the headless network puts out.
    deepest = max(small.feature_taps, key=lambda tap: int(tap.removeprefix("stride")))
    assert small.feature_taps[deepest] is small.output


@pytest.mark.parametrize("name", ALL)
def test_survives_files(name, tmp_path, in_litert):
    import tensorflow as tf

    model = build(name)
    images = pictures(name)
    expected = model.predict(images, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(images, verbose=0), expected, atol=1e-6)
    model.export(tmp_path / "saved_model", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "saved_model"))
    np.testing.assert_allclose(served.serve(images), expected, atol=1e-5)
    received = in_litert(lambda x: model(x, training=False), images[:1])(images[:1])
    np.testing.assert_allclose(received, expected[:1], atol=1e-5)


@pytest.mark.parametrize("name", COMPILED)
def test_learns_and_computes_the_same_under_xla(name):
    import tensorflow as tf

    model = build(name, classifier_activation=None)
    images = pictures(name, 4)
    compiled = tf.function(lambda x: model(x, training=False), jit_compile=True)
    expected = ops.convert_to_numpy(model(images, training=False))
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(compiled(images), expected, atol=1e-4 * scale)
    # Batch normalisation of four pictures is rough going, networks without it need small steps.
    normalized = any(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers)
    model.compile(
        keras.optimizers.Adam(1e-3 if normalized else 1e-4),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    labels = np.array([0, 1, 2, 3])
    losses = [model.train_on_batch(images, labels) for _ in range(10)]
    assert min(losses[5:]) < losses[0]


@pytest.mark.parametrize("name", ALL)
def test_mixed_precision_gives_float32_scores(name):
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = build(name)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    scores = model(pictures(name))
    assert keras.backend.standardize_dtype(scores.dtype) == "float32"
    np.testing.assert_allclose(ops.sum(scores, axis=-1), 1.0, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_pictures_it_cannot_take_are_refused(name):
    function = getattr(backbones, name.partition(":")[0])
    with pytest.raises(ValueError, match=r"image_shape must be at least \d+ x \d+.*\(0, 0, 3\)"):
        function((0, 0, 3))
    with pytest.raises(ValueError, match=r"image_shape must be .*received: \(224, 224, 5\)"):
        function((224, 224, 5))
