import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from kerasvision import backbones
from kerasvision.classification import Classifier
from kerasvision.synthesis import ActivationMaximization, logits_of
from kerasvision.synthesis.activation_maximization import COLOUR_ROOT
from kerasvision.synthesis.features import before_activation, total_variation


def pictures(*shape):
    return np.random.default_rng(0).uniform(0, 255, shape).astype("float32")


def colours(activation="softmax", last=None):
    """A classifier of red, green and blue pictures."""
    images = keras.Input((12, 12, 3))
    x = layers.Rescaling(1 / 255)(images)
    x = layers.Conv2D(3, 1, activation="relu", name="conv")(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(3, activation=activation, name="predictions")(x)
    if last is not None:
        x = last(x)
    model = keras.Model(images, x, name="colours")
    model.get_layer("conv").set_weights([np.eye(3)[None, None], np.full(3, 0.1)])
    model.get_layer("predictions").set_weights([3 * np.eye(3) - 1.0, np.zeros(3)])
    return model


@pytest.mark.parametrize(
    "activation, last",
    [
        ("softmax", None),
        ("sigmoid", None),
        (None, layers.Softmax()),
        (None, layers.Activation("softmax")),
        (None, ops.softmax),
        (None, None),
    ],
)
def test_logits(activation, last):
    model, images = colours(activation, last), pictures(4, 12, 12, 3)
    before = model(images).numpy()
    logits = logits_of(model)
    means = images.mean((1, 2)) / 255 + 0.1
    np.testing.assert_allclose(logits(images), means @ (3 * np.eye(3) - 1.0), rtol=1e-4)
    # The model is as it was.
    np.testing.assert_array_equal(model(images), before)
    expected = keras.activations.get(activation)
    assert model.get_layer("predictions").activation is expected


def test_logits_of_networks_in_networks_and_of_the_suites():
    inner, images = colours(), keras.Input((12, 12, 3))
    outer = keras.Model(images, inner(images))
    x = pictures(2, 12, 12, 3)
    np.testing.assert_allclose(logits_of(outer)(x), logits_of(inner)(x), rtol=1e-5)
    network = backbones.lenet5((32, 32, 3), num_classes=4, classifier_activation=None)
    x = pictures(2, 32, 32, 3)
    np.testing.assert_allclose(logits_of(Classifier(network))(x), network(x), rtol=1e-5)


def test_logits_are_the_predictions_among_several_outputs():
    images = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(images)
    heads = {n: layers.Dense(2, activation="softmax", name=n)(x) for n in ("aux", "predictions")}
    model = keras.Model(images, heads)
    kernel, bias = model.get_layer("predictions").get_weights()
    x = pictures(2, 8, 8, 3)
    np.testing.assert_allclose(
        logits_of(model)(x), x.mean((1, 2)) @ kernel + bias, rtol=1e-3, atol=1e-3
    )


def test_models_without_classes_are_refused():
    images = keras.Input((8, 8, 3))
    model = keras.Model(images, layers.Conv2D(2, 3)(images), name="maps")
    with pytest.raises(ValueError, match=r"must give classes .* maps with \[\(None, 6, 6, 2\)"):
        logits_of(model)


def test_before_activation():
    images = keras.Input((8, 8, 3))
    fused = layers.Conv2D(2, 3, activation="relu")(images)
    x = pictures(1, 8, 8, 3) - 128
    linear = keras.Model(images, before_activation(fused))(x)
    assert linear.numpy().min() < 0
    np.testing.assert_allclose(np.maximum(linear, 0), keras.Model(images, fused)(x), atol=1e-4)
    plain = layers.Conv2D(2, 3)(images)
    assert before_activation(plain) is plain
    assert before_activation(layers.ReLU(6.0)(plain)) is plain


@pytest.mark.parametrize("parametrization", ["fourier", "pixels"])
def test_colours_of_classes(parametrization):
    model = colours()
    maximization = ActivationMaximization(
        model, parametrization=parametrization, steps=60, learning_rate=0.1
    )
    images, responses = maximization([0, 1, 2])
    assert images.shape == (3, 12, 12, 3) and images.min() >= 0 and images.max() <= 255
    means = images.mean((1, 2))
    assert means.argmax(axis=1).tolist() == [0, 1, 2]
    others = (means.sum(axis=1) - means.max(axis=1)) / 2
    # Natural pictures have hardly a colour: frequencies go less far.
    assert (means.max(axis=1) - others > (35 if parametrization == "fourier" else 100)).all()
    np.testing.assert_allclose(responses, np.diag(logits_of(model)(images)), rtol=1e-4)


def test_channel_of_a_layer_is_the_mean_before_the_relu():
    maximization = ActivationMaximization(colours(), "conv", steps=1)
    images = pictures(2, 12, 12, 3)
    found = maximization.responses(images, tf.constant([2, 0]))
    np.testing.assert_allclose(
        found, np.array([images[0, ..., 2].mean(), images[1, ..., 0].mean()]) / 255 + 0.1, rtol=1e-4
    )


def test_silent_channels_have_a_slope():
    model = colours()
    model.get_layer("conv").set_weights([np.eye(3)[None, None], np.full(3, -5.0)])
    maximization = ActivationMaximization(model, "conv", parametrization="pixels", steps=3)
    seen = []
    maximization([0], on_step=lambda step, make, responses: seen.append(responses[0]))
    assert seen[0] < seen[1] < seen[2]


def test_a_step_goes_down_the_loss_as_it_is_written():
    """Adam's first step is as long as the learning rate, against the sign of the slope."""
    maximization = ActivationMaximization(
        colours(), parametrization="pixels", tv_weight=30.0, l2_weight=20.0, jitter=0
    )
    z = maximization.start(1, seed=0)
    zeros = (tf.zeros_like(z), tf.zeros_like(z))
    stepped, _, responses = maximization.step(
        z, zeros, tf.constant(1), tf.constant([0, 0]), tf.constant([1])
    )
    logits = logits_of(colours())
    with tf.GradientTape() as tape:
        tape.watch(z)
        response = logits(255 * z)[0, 1]
        priors = 30.0 * total_variation(z)[0] + 20.0 * tf.reduce_sum((z - 0.5) ** 2)
        objective = response - priors / 144
    slope = tape.gradient(objective, z).numpy()
    np.testing.assert_allclose(responses, [response], rtol=1e-5)
    steep = np.abs(slope) > 1e-4
    np.testing.assert_allclose((stepped - z)[steep], 0.02 * np.sign(slope)[steep], atol=2e-5)


def test_fourier_pictures():
    """One frequency gives its wave; colours are turned by the root of their covariance."""
    maximization = ActivationMaximization(colours(), image_size=(12, 12), steps=1)
    z = np.zeros((2, 1, 3, 12, 7), "float32")
    z[0, 0, 0, 0, 2] = 1.0  # the cosine of two waves along x, of the grey plane
    found = maximization.images(tf.constant(z)).numpy()[0]
    scale = 12 / (2 / 12)
    wave = 2 * scale * np.cos(2 * np.pi * 2 * np.arange(12) / 12) / 144 / 4
    root = COLOUR_ROOT / np.sqrt((COLOUR_ROOT**2).sum(axis=0)).max()
    expected = 1 / (1 + np.exp(-wave[:, None] * root[:, 0]))
    np.testing.assert_allclose(found, np.broadcast_to(expected, (12, 12, 3)), rtol=1e-4)


@pytest.mark.parametrize("name, weight", [("tv_weight", 300.0), ("l2_weight", 300.0)])
def test_priors_calm_pictures(name, weight):
    arguments = {"parametrization": "pixels", "steps": 25}
    (free,), _ = ActivationMaximization(colours(), **arguments)([0])
    (held,), _ = ActivationMaximization(colours(), **arguments, **{name: weight})([0])
    measure = {
        "tv_weight": lambda x: float(total_variation(x[None])[0]),
        "l2_weight": lambda x: float(((x - 127.5) ** 2).sum()),
    }[name]
    assert measure(held) < 0.5 * measure(free)


def test_blur_calms_pictures():
    arguments = {"parametrization": "pixels", "steps": 8}
    variations = [
        float(total_variation(ActivationMaximization(colours(), blur=b, **arguments)([0])[0])[0])
        for b in (0.0, 1.0)
    ]
    assert variations[1] < 0.7 * variations[0]


def test_seeds():
    maximization = ActivationMaximization(colours(), steps=2)
    np.testing.assert_array_equal(maximization([1], seed=5)[0], maximization([1], seed=5)[0])
    assert np.abs(maximization([1], seed=5)[0] - maximization([1], seed=6)[0]).max() > 0.1


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"layer_name": "convolution"}, "colours has no layer convolution; near it are conv"),
        ({"parametrization": "wavelets"}, "must be pixels or fourier; received: wavelets"),
        ({"blur": 1.0}, "blur: is for parametrization pixels; received: 1.0 with fourier"),
        ({"steps": 0}, "steps: must be 1 or more; received: 0"),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(ValueError, match=message):
        ActivationMaximization(colours(), **arguments)


def test_image_size_of_fully_connected_networks():
    network = backbones.lenet5((32, 32, 3), num_classes=4)
    with pytest.raises(ValueError, match="40 x 40 pixels .* made for 32 x 32"):
        ActivationMaximization(network, image_size=(40, 40))


def test_unknown_channels():
    with pytest.raises(ValueError, match=r"from 0 to 2, those of logits; received: \[3\]"):
        ActivationMaximization(colours())([3])


def test_logits_behind_a_cast_and_of_sequential_networks():
    sequential = keras.Sequential(
        [keras.Input((4, 4, 3)), layers.Flatten(), layers.Dense(3, activation="softmax")]
    )
    images = keras.Input((4, 4, 3))
    cast = layers.Activation("linear", dtype="float32")(sequential(images))
    x = pictures(2, 4, 4, 3)
    kernel, bias = sequential.layers[-1].get_weights()
    for model in (sequential, keras.Model(images, cast)):
        expected = x.reshape(2, -1) @ kernel + bias
        np.testing.assert_allclose(logits_of(model)(x), expected, rtol=1e-3, atol=1e-2)
