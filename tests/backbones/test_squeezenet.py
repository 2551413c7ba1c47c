import keras
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from kerasvision.backbones import squeezenet
from kerasvision.backbones.weights import read_h5

# Fire modules of torchvision's squeezenet1_1 by their position: squeezed and expanded channels.
FIRES = {
    3: (16, 64),
    4: (16, 64),
    6: (32, 128),
    7: (32, 128),
    9: (48, 192),
    10: (48, 192),
    11: (64, 256),
    12: (64, 256),
}


def state_dict(num_classes, rng):
    """Random parameters under torchvision's names."""
    shapes, channels = {"features.0": (64, 3, 3, 3)}, 64
    for i, (squeeze, expand) in FIRES.items():
        shapes[f"features.{i}.squeeze"] = (squeeze, channels, 1, 1)
        shapes[f"features.{i}.expand1x1"] = (expand, squeeze, 1, 1)
        shapes[f"features.{i}.expand3x3"] = (expand, squeeze, 3, 3)
        channels = 2 * expand
    shapes["classifier.1"] = (num_classes, channels, 1, 1)
    parameters = {}
    for name, shape in shapes.items():
        scale = (2 / np.prod(shape[1:])) ** 0.5
        parameters[f"{name}.weight"] = rng.normal(0, scale, shape).astype("float32")
        parameters[f"{name}.bias"] = rng.normal(0, 0.1, shape[0]).astype("float32")
    return parameters


def reference(parameters, image):
    """torchvision's network in NumPy, channels first: its features and its averaged scores."""

    def convolution(x, name, stride=1, margin=0):
        weight, bias = parameters[f"{name}.weight"], parameters[f"{name}.bias"]
        x = np.pad(x, ((0, 0), (margin, margin), (margin, margin)))
        windows = sliding_window_view(x, weight.shape[2:], axis=(1, 2))[:, ::stride, ::stride]
        x = np.tensordot(weight, windows, ([1, 2, 3], [0, 3, 4]))
        return np.maximum(x + bias[:, None, None], 0)

    def pooling(x):  # windows of 3x3, also those that reach over the border
        rows, columns = (range(0, side - 1, 2) for side in x.shape[1:])
        cells = [[x[:, i : i + 3, j : j + 3].max((1, 2)) for j in columns] for i in rows]
        return np.array(cells).transpose(2, 0, 1)

    x = (image / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    x = convolution(x.transpose(2, 0, 1), "features.0", stride=2)
    for i in range(2, 13):
        if i not in FIRES:
            x = pooling(x)
            continue
        x = convolution(x, f"features.{i}.squeeze")
        x = np.concatenate(
            [
                convolution(x, f"features.{i}.expand1x1"),
                convolution(x, f"features.{i}.expand3x3", margin=1),
            ]
        )
    return x.transpose(1, 2, 0), convolution(x, "classifier.1").mean((1, 2))


def test_parameters_are_torchvisions():
    assert squeezenet().count_params() == 1_235_496
    assert squeezenet(include_top=False).count_params() == 1_235_496 - 513_000


@pytest.mark.parametrize("size", [(66, 47), (17, 17)])  # windows over the border, and none
def test_loads_torchvisions_parameters(tmp_path, size):
    rng = np.random.default_rng(0)
    parameters = state_dict(5, rng)
    np.savez(tmp_path / "squeezenet.npz", **parameters)
    image = rng.uniform(0, 255, (*size, 3)).astype("float32")
    features, logits = reference(parameters, image)
    network = squeezenet(
        (None, None, 3), 5, weights=tmp_path / "squeezenet.npz", classifier_activation=None
    )
    headless = keras.Model(network.input, network.feature_taps["stride16"])
    received = np.asarray(headless(image[None]))[0]
    assert received.shape == features.shape
    np.testing.assert_allclose(received, features, atol=1e-4 * features.max())
    received = np.asarray(network(image[None]))[0]
    np.testing.assert_allclose(received, logits, atol=1e-4 * logits.max())


def test_authors_weights_load(development_weights):
    path = development_weights / "squeezenet1_1_imagenet_notop.h5"
    model = squeezenet((64, 64, 3), include_top=False, weights=path)
    arrays = read_h5(path)
    for layer in model.layers:
        if layer.weights:
            kernel, bias = arrays[layer.name.replace("_", "/")]
            # The file is for BGR pictures.
            kernel = kernel[:, :, ::-1] if layer.name == "conv1" else kernel
            np.testing.assert_array_equal(layer.get_weights()[0], kernel)
            np.testing.assert_array_equal(layer.get_weights()[1], bias)
    # Mean colour in, biases out.
    mean = np.broadcast_to(np.array([123.68, 116.779, 103.939], "float32"), (1, 64, 64, 3))
    received = np.asarray(keras.Model(model.input, model.feature_taps["stride2"])(mean))
    bias = model.get_layer("conv1").get_weights()[1]
    np.testing.assert_allclose(received[0, 0, 0], np.maximum(bias, 0), atol=1e-4)


def test_clear_errors(tmp_path):
    parameters = state_dict(5, np.random.default_rng(0))
    del parameters["features.9.squeeze.bias"]
    np.savez(tmp_path / "incomplete.npz", **parameters)
    with pytest.raises(ValueError, match="features.9.squeeze.bias for layer fire6_squeeze1x1"):
        squeezenet(weights=tmp_path / "incomplete.npz")
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(tmp_path / "dense.h5")
    with pytest.raises(ValueError, match="dense.h5: no layer of squeezenet"):
        squeezenet(weights=tmp_path / "dense.h5")
    with pytest.raises(ValueError, match="image_shape must be at least 17 x 17"):
        squeezenet((16, 32, 3))
