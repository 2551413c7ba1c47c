import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from kerasvision import backbones
from kerasvision.classification import Classifier
from kerasvision.synthesis import features, network_of
from kerasvision.synthesis.features import (
    adam,
    check_image_size,
    jitter,
    tile_grid,
    tiled_gradients,
    total_variation,
)


def pictures(*shape, seed=0):
    return np.random.default_rng(seed).uniform(0, 255, shape).astype("float32")


def small_network(image_shape=(16, 16, 3)):
    images = keras.Input(image_shape)
    x = layers.Rescaling(1 / 255, name="normalize")(images)
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv1")(x)
    x = layers.MaxPooling2D(2, name="pool1")(x)
    x = layers.Conv2D(5, 3, padding="same", name="conv2")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(3, activation="softmax", name="predictions")(x)
    return keras.Model(images, x, name="small")


def slow_total_variation(image, beta):
    height, width, channels = image.shape
    total = 0.0
    for i in range(height):
        for j in range(width):
            for c in range(channels):
                right = image[i, j + 1, c] - image[i, j, c] if j + 1 < width else 0.0
                down = image[i + 1, j, c] - image[i, j, c] if i + 1 < height else 0.0
                total += (right**2 + down**2) ** (beta / 2)
    return total


def test_features_are_the_layers_outputs():
    network, images = small_network(), pictures(2, 16, 16, 3)
    phi = features(network, ["conv2", "conv1"])
    maps = phi(images)
    assert list(maps) == ["conv2", "conv1"]
    for name in maps:
        layer = keras.Model(network.input, network.get_layer(name).output)
        np.testing.assert_array_equal(maps[name], layer(images))
    # The weights are the network's own.
    kernel = network.get_layer("conv1").kernel
    kernel.assign(2 * kernel)
    assert not np.allclose(phi(images)["conv1"], maps["conv1"])


@pytest.mark.parametrize("size", [(16, 16), (9, 31), (1, 2)])
def test_features_of_any_size(size):
    """Where the network's own size is fixed, maps of other sizes are those of a free one."""
    network = small_network()
    phi = features(network, "conv1")
    image = pictures(1, *size, 3)
    x = layers.Conv2D(4, 3, padding="same", activation="relu")
    x.build((None, None, None, 3))
    x.set_weights(network.get_layer("conv1").get_weights())
    np.testing.assert_allclose(phi(image)["conv1"], x(image / 255), rtol=1e-5, atol=1e-6)
    assert network.input_shape == (None, 16, 16, 3)
    with pytest.raises(ValueError, match="incompatible"):
        network(pictures(1, 20, 20, 3))


@pytest.mark.parametrize("size", [(8, 8), (16, 20)])
def test_fully_connected_layers_want_the_networks_size(size):
    phi = features(small_network(), ["conv1", "predictions"])
    check_image_size(phi, (16, 16))
    with pytest.raises(
        ValueError, match=f"{size[0]} x {size[1]} .* conv1, predictions; .* 16 x 16"
    ):
        check_image_size(phi, size)


def test_pictures_too_small_for_a_layer():
    phi = features(small_network(), "conv2")
    check_image_size(phi, (2, 2))
    with pytest.raises(ValueError, match="1 x 9 pixels don't go through the layers to conv2"):
        check_image_size(phi, (1, 9))


def test_suites_networks_and_models():
    network = backbones.squeezenet((64, 64, 3), num_classes=3, classifier_activation=None)
    assert network_of(network) is network
    model = Classifier(network)
    assert network_of(model) is network
    tap = network.feature_taps["stride8"]
    name = tap._keras_history.operation.name
    expected = keras.Model(network.input, tap)(pictures(1, 64, 64, 3))
    np.testing.assert_array_equal(features(model, name)(pictures(1, 64, 64, 3))[name], expected)


def test_sequential():
    model = keras.Sequential([layers.Conv2D(2, 3, name="a"), layers.Conv2D(3, 3, name="b")])
    with pytest.raises(ValueError, match=r"model: must be built, begin it with keras.Input"):
        features(model, "a")
    x = pictures(1, 8, 8, 3)
    b = model(x)
    np.testing.assert_array_equal(features(model, "b")(x)["b"], b)


def test_subclassed_models_are_refused():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.convolution = layers.Conv2D(2, 3)

        def call(self, x):
            return self.convolution(x)

    model = Subclassed()
    model(pictures(1, 8, 8, 3))
    with pytest.raises(ValueError, match="must be a functional or Sequential.* a Subclassed"):
        features(model, "convolution")


def test_models_without_pictures_are_refused():
    with pytest.raises(ValueError, match=r"one batch of pictures .* \[\(None, 7\)\]"):
        features(keras.Sequential([keras.Input((7,)), layers.Dense(2)]), "dense")


@pytest.mark.parametrize(
    "names, message",
    [
        (["conv1", "conv3"], "small has no layer conv3; near it are conv2, conv1"),
        ("Pool1", "no layer Pool1; near it are pool1"),
        ("zzz", "no layer zzz; it has .*normalize, conv1, pool1, conv2, …"),
        ([], "layer_names: must be one name or more; received: none"),
    ],
)
def test_unknown_layers(names, message):
    with pytest.raises(ValueError, match=message) as error:
        features(small_network(), names)
    assert "\n" not in str(error.value)


def test_layer_of_a_network_in_the_network():
    images = keras.Input((16, 16, 3))
    outer = keras.Model(images, small_network()(images))
    with pytest.raises(ValueError, match=r"its part small has it: pass that, get_layer\('small'\)"):
        features(outer, "conv1")


@pytest.mark.parametrize("beta", [1.0, 2.0, 3.0])
def test_total_variation(beta):
    x = pictures(2, 4, 5, 3) / 100
    expected = [slow_total_variation(image, beta) for image in x]
    np.testing.assert_allclose(total_variation(x, beta), expected, rtol=1e-5)


def test_total_variation_by_hand():
    # 0 0     differences: right 0, 3; down 4, 1
    # 4 1     right of the last column and below the last row there are none
    x = np.array([[0.0, 0.0], [4.0, 1.0]], "float32")[None, :, :, None]
    np.testing.assert_allclose(total_variation(x, 2.0), [0 + 16 + 1 + 9])
    np.testing.assert_allclose(total_variation(x, 1.0), [4 + 1 + 3])


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_gradient_of_total_variation(beta):
    x = pictures(1, 3, 4, 1) / 50
    tensor = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        value = total_variation(tensor, beta)
    gradient = tape.gradient(value, tensor).numpy()
    step = 1e-3
    for place in np.ndindex(x.shape):
        up, down = x.astype("float64"), x.astype("float64")
        up[place] += step
        down[place] -= step
        slope = slow_total_variation(up[0], beta) - slow_total_variation(down[0], beta)
        np.testing.assert_allclose(gradient[place], slope / (2 * step), rtol=1e-3, atol=1e-3)


def test_flat_pictures_have_no_variation_and_no_slope():
    x = tf.fill((1, 4, 4, 3), 9.0)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = total_variation(x, 1.0)
    assert value.numpy() == 0
    np.testing.assert_array_equal(tape.gradient(value, x), np.zeros((1, 4, 4, 3)))


def test_jitter():
    x = pictures(1, 4, 5, 3)
    moved = jitter(x, tf.constant([1, -2]))
    np.testing.assert_array_equal(moved, np.roll(x, (1, -2), axis=(1, 2)))
    np.testing.assert_array_equal(jitter(moved, tf.constant([-1, 2])), x)


@pytest.mark.parametrize(
    "size, expected",
    [
        ((8, 8), (1, 1, 8, 8)),
        ((9, 8), (2, 1, 5, 8)),
        ((20, 17), (3, 3, 7, 6)),
        ((1, 1), (1, 1, 1, 1)),
    ],
)
def test_tile_grid(size, expected):
    assert tile_grid(size, 8) == expected


def squares(images):
    """What knows no neighbours: tiles can't change its gradient but for their number."""
    return ops.mean(images**2)


@pytest.mark.parametrize("tile_size", [64, 8, 5, 1])
@pytest.mark.parametrize("shift", [(0, 0), (3, -4)])
def test_tiled_gradients_without_neighbours(tile_size, shift):
    x = pictures(2, 10, 15, 3) / 255
    value, gradients = tiled_gradients(squares, tf.constant(x), tile_size, tf.constant(shift))
    rows, columns, height, width = tile_grid((10, 15), tile_size)
    # Each tile's mean is over its own pixels.
    pixels = rows * columns * 2 * height * width * 3
    np.testing.assert_allclose(gradients, 2 * x / pixels, rtol=1e-5)
    if (10 % height, 15 % width) == (0, 0):
        np.testing.assert_allclose(value, (x**2).mean(), rtol=1e-5)


def test_tiled_gradients_are_those_of_the_tiles():
    """Tiles of 4 x 4 of a moved picture, one by one, under total variation."""
    x = pictures(1, 8, 8, 1) / 255
    shift = (1, 2)
    moved, expected = np.roll(x, shift, (1, 2)), np.zeros_like(x)
    for top in (0, 4):
        for left in (0, 4):
            tile = tf.constant(moved[:, top : top + 4, left : left + 4])
            with tf.GradientTape() as tape:
                tape.watch(tile)
                value = ops.sum(total_variation(tile))
            expected[:, top : top + 4, left : left + 4] = tape.gradient(value, tile) / 4
    expected = np.roll(expected, (-1, -2), (1, 2))
    _, received = tiled_gradients(
        lambda t: ops.sum(total_variation(t)), tf.constant(x), 4, tf.constant(shift)
    )
    np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-6)


def test_one_tile_is_the_whole_picture():
    x = tf.constant(pictures(1, 6, 7, 3) / 255)
    phi = features(small_network(), "conv1")

    def objective(images):
        return ops.mean(phi(images)["conv1"] ** 2)

    with tf.GradientTape() as tape:
        tape.watch(x)
        value = objective(x)
    received = tiled_gradients(objective, x, 7, tf.constant([0, 0]))
    np.testing.assert_allclose(received[0], value, rtol=1e-6)
    np.testing.assert_allclose(received[1], tape.gradient(value, x), rtol=1e-4, atol=1e-9)


def test_adam_is_kerass():
    rng = np.random.default_rng(0)
    variable = keras.Variable(rng.normal(size=(3, 4)).astype("float32"))
    optimizer = keras.optimizers.Adam(0.1, epsilon=1e-8)
    x, moments = tf.constant(variable.numpy()), (tf.zeros((3, 4)), tf.zeros((3, 4)))
    for step in range(1, 6):
        gradients = tf.constant(rng.normal(size=(3, 4)).astype("float32"))
        optimizer.apply([gradients], [variable])
        x, moments = adam(x, gradients, moments, tf.constant(step), 0.1)
        np.testing.assert_allclose(x, variable, rtol=1e-4, atol=1e-5)
