"""The dense network is the cropped one at every place, by value."""

import keras
import numpy as np
import pytest
from keras import layers

from kerasvision.classification.dense import to_dense

RNG = np.random.default_rng(0)


def pictures(height, width, count=1):
    return RNG.uniform(0, 255, (count, height, width, 3)).astype("float32")


def randomize(model):
    """Weights of which none is zero, statistics included; activations of order one."""
    for weight in model.weights:
        shape = tuple(weight.shape)
        if "variance" in weight.path or "gamma" in weight.path:
            weight.assign(RNG.uniform(0.5, 1.5, shape))
        else:
            fan_in = np.prod(shape[:-1]) if len(shape) > 1 else 10
            weight.assign(RNG.normal(size=shape) * (2 / fan_in) ** 0.5)
    return model


def flatten_network(padding="valid", activation="softmax"):
    """Stride 4, crops of 20 x 24 pixels; with "valid" padding a map of 3 x 4 cells."""
    images = keras.Input((20, 24, 3), name="images")
    x = layers.Rescaling(1 / 128, -1.0)(images)
    x = layers.Conv2D(6, 3, padding=padding, activation="relu")(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(8, 3, padding=padding, activation="relu")(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dropout(0.5)(x)
    x = layers.Dense(16, activation="relu", name="fc1")(x)
    x = layers.Dropout(0.5)(x)
    x = layers.Dense(16, name="fc2")(x)
    x = layers.ReLU()(x)
    x = layers.Dense(5, activation=activation, name="predictions")(x)
    return randomize(keras.Model(images, x, name="tiny"))


def average_network(padding="valid"):
    """Stride 2, crops of 21 x 17 pixels, a residual block, global average pooling."""
    images = keras.Input((21, 17, 3), name="images")
    x = layers.Rescaling(1 / 128, -1.0)(images)
    x = layers.Conv2D(6, 3, 2, padding=padding, use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    shortcut = x = layers.ReLU()(x)
    x = layers.Conv2D(6, 1, activation="relu")(x)
    x = layers.Add()([x, shortcut])
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    x = layers.Dense(5, name="predictions")(x)
    return randomize(keras.Model(images, x, name="tiny"))


def convolutional_network():
    """The last weights in front of the pooling, as in Network in Network."""
    images = keras.Input((9, 9, 3), name="images")
    x = layers.Rescaling(1 / 128, -1.0)(images)
    x = layers.Conv2D(4, 2, activation="relu")(x)
    x = layers.Conv2D(5, 1, name="predictions")(x)
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    x = layers.Activation("softmax")(x)
    return randomize(keras.Model(images, x, name="tiny"))


NETWORKS = {
    # Name: the network, its stride.
    "flatten": (flatten_network, 4),
    "average": (average_network, 2),
    "convolutional": (convolutional_network, 1),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_each_cell_is_the_network_on_its_crop(name):
    """Without padding, everywhere."""
    make, stride = NETWORKS[name]
    network = make()
    dense = to_dense(network)
    height, width = network.input_shape[1:3]
    picture = pictures(height + 3 * stride, width + 2 * stride)
    received = dense.predict_on_batch(picture)
    assert received.shape == (1, 4, 3, 5)
    crops = np.concatenate(
        [
            picture[:, y * stride : y * stride + height, x * stride : x * stride + width]
            for y in range(4)
            for x in range(3)
        ]
    )
    expected = network.predict_on_batch(crops).reshape(1, 4, 3, 5)
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5)
    assert np.ptp(expected, axis=(1, 2)).min() > 1e-3  # the places do differ


@pytest.mark.parametrize("make", [flatten_network, average_network])
def test_padded_network_on_a_picture_of_its_size(make):
    """With padding the one place of the crop's size is the network's answer."""
    network = make(padding="same")
    picture = pictures(*network.input_shape[1:3], count=2)
    np.testing.assert_allclose(
        to_dense(network).predict_on_batch(picture)[:, 0, 0],
        network.predict_on_batch(picture),
        rtol=1e-4,
        atol=1e-5,
    )


def test_padded_network_in_the_middle_of_a_picture():
    """Zeros stand where the dense network sees the neighbours; where both see the same, they agree.

    A crop whose rim is what the padding stands for, the colour that becomes 0, inside of a
    picture of this colour: then the crop's padding and the picture's pixels are equal for the
    first convolution, and the second one sees equal values where the first has no bias.
    """
    network = flatten_network(padding="same")
    for layer in network.layers:
        if isinstance(layer, layers.Conv2D):
            layer.bias.assign(np.zeros(layer.filters))
    picture = np.full((1, 36, 48, 3), 128.0, "float32")
    picture[:, 10:26, 14:34] = pictures(16, 20)  # two pixels inside of the crop at (8, 12)
    cell = to_dense(network).predict_on_batch(picture)[0, 2, 3]
    expected = network.predict_on_batch(picture[:, 8:28, 12:36])[0]
    np.testing.assert_allclose(cell, expected, rtol=1e-4, atol=1e-5)


def test_padded_features_agree_inside():
    """Cells whose field of view lies in the crop are the same in crop and picture."""
    network = flatten_network(padding="same")
    maps = keras.Model(network.input, network.get_layer("flatten").input)
    dense = to_dense(network)
    dense_maps = keras.Model(dense.input, dense.get_layer("fc1").input)
    picture = pictures(36, 40)
    whole = dense_maps.predict_on_batch(picture)[:, 2 : 2 + 5, 2 : 2 + 6]
    crop = maps.predict_on_batch(picture[:, 8:28, 8:32])
    np.testing.assert_allclose(whole[:, 1:-1, 1:-1], crop[:, 1:-1, 1:-1], rtol=1e-4, atol=1e-5)
    assert np.abs(whole - crop).max() > 1e-2  # and not at the border, which sees the padding


def test_fully_connected_layer_in_numpy():
    """The first fully connected layer at each place, loop by loop."""
    images = keras.Input((3, 2, 3))
    network = randomize(keras.Model(images, layers.Dense(4)(layers.Flatten()(images))))
    kernel, bias = network.layers[-1].get_weights()
    picture = pictures(5, 4)
    received = to_dense(network).predict_on_batch(picture)
    assert received.shape == (1, 3, 3, 4)
    for y in range(3):
        for x in range(3):
            expected = picture[0, y : y + 3, x : x + 2].reshape(-1) @ kernel + bias
            np.testing.assert_allclose(received[0, y, x], expected, rtol=1e-4)


def test_convolutions_are_shared_and_full_layers_copied():
    network = flatten_network()
    before = [weight.numpy().copy() for weight in network.weights]
    dense = to_dense(network)
    to_dense(network)  # and again
    assert dense.count_params() == network.count_params()
    assert dense.layers[2] is network.layers[2]
    assert dense.get_layer("fc1").kernel.shape == (3, 4, 8, 16)
    assert dense.get_layer("fc2").kernel.shape == (1, 1, 16, 16)
    for weight, value in zip(network.weights, before):
        np.testing.assert_array_equal(weight.numpy(), value)


def test_main_head_of_a_dict_of_heads():
    network = average_network()
    features = network.get_layer("avg_pool").input
    pooled = layers.GlobalAveragePooling2D()(features)
    heads = {"predictions": network.output, "auxiliary1": layers.Dense(5)(pooled)}
    dense = to_dense(keras.Model(network.input, heads))
    picture = pictures(21, 17)
    np.testing.assert_allclose(
        dense.predict_on_batch(picture)[:, 0, 0], network.predict_on_batch(picture), rtol=1e-4
    )


def test_dense_network_survives_a_file(tmp_path):
    dense = to_dense(flatten_network())
    dense.save(tmp_path / "dense.keras")
    picture = pictures(31, 37)
    np.testing.assert_allclose(
        keras.models.load_model(tmp_path / "dense.keras").predict_on_batch(picture),
        dense.predict_on_batch(picture),
        rtol=1e-5,
    )


def test_networks_of_another_form():
    images = keras.Input((8, 8, 3))
    with pytest.raises(ValueError, match="must have a Flatten or GlobalAveragePooling2D"):
        to_dense(keras.Model(images, layers.Conv2D(2, 3)(images)))
    x = layers.Reshape((1, 3))(layers.GlobalAveragePooling2D()(images))
    with pytest.raises(ValueError, match="only Dense, Dropout and activations .* Reshape"):
        to_dense(keras.Model(images, x))
    flat = layers.Flatten()(images)
    x = layers.Add()([layers.Dense(2)(flat), layers.Dense(2)(flat)])
    with pytest.raises(ValueError, match="must have one chain of layers"):
        to_dense(keras.Model(images, x))
    images = keras.Input((None, None, 3))
    x = layers.Dense(2)(layers.GlobalAveragePooling2D()(images))
    with pytest.raises(ValueError, match=r"known size.* received: image_shape=\(None, None, 3\)"):
        to_dense(keras.Model(images, x))
