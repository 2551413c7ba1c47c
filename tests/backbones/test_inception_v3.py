import keras
import numpy as np
import pytest
from keras import layers, ops

from kerasvision.backbones.inception_v3 import inception_v3

# torchvision's modules in the order in which it defines and computes them.
A = "branch1x1 branch5x5_1 branch5x5_2 branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3 branch_pool"
B = "branch3x3 branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3"
C = (
    "branch1x1 branch7x7_1 branch7x7_2 branch7x7_3 branch7x7dbl_1 branch7x7dbl_2 branch7x7dbl_3 "
    "branch7x7dbl_4 branch7x7dbl_5 branch_pool"
)
D = "branch3x3_1 branch3x3_2 branch7x7x3_1 branch7x7x3_2 branch7x7x3_3 branch7x7x3_4"
E = (
    "branch1x1 branch3x3_1 branch3x3_2a branch3x3_2b branch3x3dbl_1 branch3x3dbl_2 "
    "branch3x3dbl_3a branch3x3dbl_3b branch_pool"
)
TORCHVISION = ["Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3"]
for module, branches in [
    *[(f"Mixed_5{letter}", A) for letter in "bcd"],
    ("Mixed_6a", B),
    *[(f"Mixed_6{letter}", C) for letter in "bcde"],
    ("Mixed_7a", D),
    *[(f"Mixed_7{letter}", E) for letter in "bc"],
]:
    TORCHVISION += [f"{module}.{branch}" for branch in branches.split()]


def he_normal(rng, shape):
    return rng.normal(size=shape, scale=np.sqrt(2 / np.prod(shape[:-1]))).astype("float32")


def randomize(model, rng):
    """Weights that keep the values of one size through the network, and random statistics."""
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(
                [
                    he_normal(rng, w.shape)
                    if w.name == "kernel"
                    else rng.uniform(0.7, 1.3, w.shape)
                    if w.name == "moving_variance"
                    else rng.normal(0, 0.1, w.shape)
                    for w in layer.weights
                ]
            )


def pictures(height, width):
    """Two that differ in brightness too, as means of noise alone are much the same."""
    noise = np.random.default_rng(1).uniform(0, 255, (2, height, width, 3))
    return (noise * [[[[1.0]]], [[[0.2]]]]).astype("float32")


def assert_close(received, expected):
    received, expected = ops.convert_to_numpy(received), ops.convert_to_numpy(expected)
    scale = np.abs(expected).max()
    assert np.abs(expected[0] - expected[-1]).max() > 0.01 * scale  # the picture matters
    np.testing.assert_allclose(received, expected, atol=1e-4 * scale)


@pytest.fixture(scope="module")
def peer():
    """keras.applications' network with random weights, for logits of 1000 classes."""
    model = keras.applications.InceptionV3(
        weights=None, input_shape=(139, 139, 3), classifier_activation=None
    )
    randomize(model, np.random.default_rng(0))
    return model


def test_loads_the_files_of_keras_applications(tmp_path, peer):
    peer.save(tmp_path / "peer.h5")
    ours = inception_v3((139, 139, 3), weights=tmp_path / "peer.h5", classifier_activation=None)
    assert ours.count_params() == peer.count_params() == 23_851_784
    assert sum(int(np.prod(w.shape)) for w in ours.trainable_weights) == 23_817_352
    images = pictures(139, 139)
    assert_close(ours(images, training=False), peer(images / 127.5 - 1, training=False))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(75, 75), (None, None)])
def test_loads_the_files_without_the_top(tmp_path, peer, shape):
    headless = keras.Model(peer.input, peer.get_layer("mixed10").output)
    headless.save(tmp_path / "notop.h5")
    ours = inception_v3((*shape, 3), include_top=False, weights=tmp_path / "notop.h5")
    assert ours.count_params() == headless.count_params() == 21_802_784
    sides = [side or 90 for side in shape]
    images = pictures(*sides)
    theirs = keras.applications.InceptionV3(
        include_top=False, weights=None, input_shape=(*sides, 3)
    )
    theirs.set_weights(headless.get_weights())
    assert_close(ours(images, training=False), theirs(images / 127.5 - 1, training=False))


@keras.saving.register_keras_serializable("test_inception_v3")
class CountingZeros(layers.Layer):
    """PyTorch's average of 3 x 3, with the zeros around the map."""

    def call(self, x):
        x = ops.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
        return ops.average_pool(x, 3, 1, "valid")


@pytest.mark.slow
def test_loads_state_dicts_of_torchvision(tmp_path, peer):
    rng = np.random.default_rng(2)
    theirs = keras.models.clone_model(
        keras.applications.InceptionV3(
            weights=None, input_shape=(299, 299, 3), classifier_activation=None
        ),
        clone_function=lambda layer: (
            CountingZeros(name=layer.name)
            if isinstance(layer, layers.AveragePooling2D)
            else layer.__class__.from_config(layer.get_config())
        ),
    )
    theirs.set_weights(peer.get_weights())

    def number(layer):
        suffix = layer.name.rsplit("_", 1)[-1]
        return int(suffix) if suffix.isdigit() else 0

    def in_order_of_creation(kind):
        return sorted((layer for layer in theirs.layers if type(layer) is kind), key=number)

    convolutions = in_order_of_creation(layers.Conv2D)
    normalizations = in_order_of_creation(layers.BatchNormalization)
    assert len(TORCHVISION) == len(convolutions) == len(normalizations) == 94
    state_dict = {}
    for name, convolution, normalization in zip(TORCHVISION, convolutions, normalizations):
        kernel = convolution.get_weights()[0]
        beta, mean, variance = normalization.get_weights()
        gamma = rng.uniform(0.7, 1.3, beta.shape).astype("float32")
        state_dict[f"{name}.conv.weight"] = kernel.transpose(3, 2, 0, 1)
        state_dict[f"{name}.bn.weight"] = gamma
        state_dict[f"{name}.bn.bias"] = beta
        state_dict[f"{name}.bn.running_mean"] = mean
        state_dict[f"{name}.bn.running_var"] = variance
        state_dict[f"{name}.bn.num_batches_tracked"] = np.array(1)
        # Without a scale the oracle has it in the kernel.
        convolution.set_weights([kernel * gamma])
        normalization.set_weights([beta, mean * gamma, variance])
    kernel, bias = theirs.get_layer("predictions").get_weights()
    state_dict.update({"fc.weight": kernel.T, "fc.bias": bias})

    images = pictures(299, 299)
    maps = keras.Model(theirs.input, theirs.get_layer("mixed7").output)(images / 127.5 - 1)
    x = ops.average_pool(maps, 5, 3, "valid")
    for name, shape in [("conv0", (1, 1, 768, 128)), ("conv1", (5, 5, 128, 768))]:
        kernel = he_normal(rng, shape)
        gamma, variance = rng.uniform(0.7, 1.3, (2, shape[-1])).astype("float32")
        beta, mean = rng.normal(0, 0.1, (2, shape[-1])).astype("float32")
        x = (ops.conv(x, kernel, 1, "valid") - mean) / np.sqrt(variance + 1e-3) * gamma + beta
        x = ops.relu(x)
        state_dict[f"AuxLogits.{name}.conv.weight"] = kernel.transpose(3, 2, 0, 1)
        for part, array in zip(
            ("weight", "bias", "running_mean", "running_var"), (gamma, beta, mean, variance)
        ):
            state_dict[f"AuxLogits.{name}.bn.{part}"] = array
    kernel, bias = he_normal(rng, (768, 1000)), rng.normal(0, 0.1, 1000).astype("float32")
    state_dict.update({"AuxLogits.fc.weight": kernel.T, "AuxLogits.fc.bias": bias})
    auxiliary = ops.mean(x, (1, 2)) @ kernel + bias

    path = tmp_path / "torchvision.npz"
    np.savez(path, **state_dict)
    ours = inception_v3(weights=path, auxiliary_heads=True, classifier_activation=None)
    # The number of torchvision's own count.
    assert sum(int(np.prod(w.shape)) for w in ours.trainable_weights) == 27_161_264
    received = ours(images, training=False)
    expected = theirs(images / 127.5 - 1, training=False)
    assert_close(received["predictions"], expected)
    assert_close(received["auxiliary1"], auxiliary)
    plain = inception_v3(weights=path, classifier_activation=None)
    assert_close(plain(images, training=False), expected)

    del state_dict["Mixed_6a.branch3x3.bn.weight"]
    np.savez(path, **state_dict)
    with pytest.raises(ValueError, match="expected Mixed_6a.branch3x3.bn.weight for layer mixed3"):
        inception_v3(weights=path)


def test_strides_of_the_taps():
    small, large = (
        inception_v3((side, side, 3), include_top=False).feature_taps for side in (75, 299)
    )
    assert {name: tuple(tap.shape[1:]) for name, tap in large.items()} == {
        "stride2": (147, 147, 64),
        "stride4": (71, 71, 192),
        "stride8": (35, 35, 288),
        "stride16": (17, 17, 768),
        "stride32": (8, 8, 2048),
    }
    for name, tap in large.items():
        assert tap.shape[1] - small[name].shape[1] == (299 - 75) // int(name.removeprefix("stride"))
    assert small["stride32"].shape[1] == 1


@pytest.mark.slow
def test_auxiliary_head_trains_and_leaves_the_predictions(tmp_path, peer):
    peer.save(tmp_path / "peer.h5")
    keras.utils.set_random_seed(0)
    arguments = {"weights": tmp_path / "peer.h5", "classifier_activation": None}
    model = inception_v3(auxiliary_heads=True, **arguments)
    # 1x1 to 128, 5x5 to 768, 768 to 1000, with three numbers a channel of normalisation.
    head = 768 * 128 + 3 * 128 + 25 * 128 * 768 + 3 * 768 + 769_000
    assert model.count_params() == 23_851_784 + head == 27_179_376
    images = pictures(299, 299)
    expected = inception_v3(**arguments)(images, training=False)
    assert_close(model(images, training=False)["predictions"], expected)

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        keras.optimizers.SGD(1e-3),
        loss={"predictions": loss, "auxiliary1": loss},
        loss_weights={"predictions": 1.0, "auxiliary1": 0.3},
        run_eagerly=True,
    )
    targets = dict.fromkeys(("predictions", "auxiliary1"), np.arange(2))
    losses = []
    for _ in range(2):
        losses.append(model.train_on_batch(images, targets, return_dict=True)["loss"])
        model.reset_metrics()
    assert losses[1] < losses[0]


def test_clear_errors(tmp_path):
    with pytest.raises(ValueError, match="at least 75 x 75.*74"):
        inception_v3((74, 80, 3))
    with pytest.raises(ValueError, match="at least 299 x 299.*298"):
        inception_v3((298, 299, 3), auxiliary_heads=True)
    with pytest.raises(ValueError, match="auxiliary_heads=True needs include_top=True"):
        inception_v3(include_top=False, auxiliary_heads=True)
    with pytest.raises(ValueError, match="1000 classes.*num_classes=10"):
        inception_v3(num_classes=10, weights="imagenet")
    keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 5)]).save(tmp_path / "other.h5")
    with pytest.raises(
        ValueError, match=r"layer Conv2d_1a_3x3_conv.*\(3, 3, 3, 32\).*\(5, 5, 3, 4\)"
    ):
        inception_v3((75, 75, 3), weights=tmp_path / "other.h5")


@pytest.mark.slow
def test_survives_keras_saved_model_and_litert(tmp_path, in_litert):
    import tensorflow as tf

    model = inception_v3((75, 75, 3), 5, classifier_activation=None)
    randomize(model, np.random.default_rng(0))
    images = np.random.default_rng(0).uniform(0, 255, (2, 75, 75, 3)).astype("float32")
    expected = keras.tree.map_structure(ops.convert_to_numpy, model(images, training=False))

    def assert_equal(received):
        for a, b in zip(keras.tree.flatten(received), keras.tree.flatten(expected), strict=True):
            np.testing.assert_allclose(ops.convert_to_numpy(a), b, atol=1e-4 * np.abs(b).max())

    model.save(tmp_path / "model.keras")
    assert_equal(keras.models.load_model(tmp_path / "model.keras")(images, training=False))
    model.export(tmp_path / "saved_model", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "saved_model"))
    assert_equal(served.serve(tf.constant(images)))
    assert_equal(in_litert(lambda x: model(x, training=False), images)(images))
