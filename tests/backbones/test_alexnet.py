import keras
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from kerasvision.backbones import alexnet, alexnet_one_tower


def convolution(x, weight, bias, stride=1, margin=0):
    """With ReLU, channels first, and filters as PyTorch has them."""
    x = np.pad(x, ((0, 0), (margin, margin), (margin, margin)))
    windows = sliding_window_view(x, weight.shape[2:], axis=(1, 2))[:, ::stride, ::stride]
    x = np.tensordot(weight, windows, ([1, 2, 3], [0, 3, 4]))
    return np.maximum(x + bias[:, None, None], 0)


def pooling(x):
    return sliding_window_view(x, (3, 3), axis=(1, 2))[:, ::2, ::2].max((3, 4))


def test_parameters_are_the_papers():
    with keras.StatelessScope(initialize_variables=False):  # counts without 500 MB
        assert alexnet().count_params() == 60_965_224
        assert alexnet_one_tower().count_params() == 61_100_840


def test_maps_are_the_papers():
    taps = alexnet((227, 227, 3), include_top=False).feature_taps
    assert {name: tuple(tap.shape[1:]) for name, tap in taps.items()} == {
        "stride4": (55, 55, 96),
        "stride8": (27, 27, 256),
        "stride16": (13, 13, 256),
        "stride32": (6, 6, 256),
    }
    taps = alexnet_one_tower((224, 224, 3), include_top=False).feature_taps
    assert {name: tuple(tap.shape[1:]) for name, tap in taps.items()} == {
        "stride4": (55, 55, 64),
        "stride8": (27, 27, 192),
        "stride16": (13, 13, 256),
        "stride32": (6, 6, 256),
    }


def test_two_towers_are_the_papers():
    """Each tower by itself in NumPy; they meet at the third convolution only."""
    rng = np.random.default_rng(0)
    model = alexnet((99, 67, 3), include_top=False)
    # Larger than they start, as responses must be for the normalisation to matter.
    model.set_weights([w * 2 + rng.normal(0, 0.01, w.shape) for w in model.get_weights()])

    def weights(name, tower):
        kernel, bias = model.get_layer(name).get_weights()
        half = slice(tower * len(bias) // 2, (tower + 1) * len(bias) // 2)
        return kernel[..., half].transpose(3, 2, 0, 1), bias[half]

    def normalize(x):
        squares = np.square(x)
        total = np.array([squares[max(i - 2, 0) : i + 3].sum(0) for i in range(len(x))])
        return x / (2 + 1e-4 * total) ** 0.75

    image = rng.uniform(0, 255, (99, 67, 3)).astype("float32")
    x = (image - [123.68, 116.779, 103.939]).transpose(2, 0, 1)
    x = normalize(np.concatenate([convolution(x, *weights("conv1", t), stride=4) for t in (0, 1)]))
    towers = np.split(pooling(x), 2)
    towers = [convolution(towers[t], *weights("conv2", t), margin=2) for t in (0, 1)]
    x = pooling(normalize(np.concatenate(towers)))
    towers = [convolution(x, *weights("conv3", t), margin=1) for t in (0, 1)]
    towers = [convolution(towers[t], *weights("conv4", t), margin=1) for t in (0, 1)]
    towers = [convolution(towers[t], *weights("conv5", t), margin=1) for t in (0, 1)]
    expected = pooling(np.concatenate(towers)).transpose(1, 2, 0)
    received = np.asarray(model(image[None]))[0]
    assert received.shape == expected.shape == (2, 1, 256) and expected.max() > 0.1
    np.testing.assert_allclose(received, expected, atol=1e-4 * expected.max())


def test_weights_start_as_in_section_5():
    model = alexnet((67, 67, 3), num_classes=3)
    biases = {}
    for layer in model.layers:
        if layer.weights:
            kernel, bias = layer.get_weights()
            assert abs(kernel.std() - 0.01) < 1e-3
            biases[layer.name] = set(bias.tolist())
    assert biases == {
        "conv1": {0.0},
        "conv2": {1.0},
        "conv3": {0.0},
        "conv4": {1.0},
        "conv5": {1.0},
        "fc6": {1.0},
        "fc7": {1.0},
        "predictions": {0.0},
    }
    assert [layer.rate for layer in model.layers if "dropout" in layer.name] == [0.5, 0.5]


def test_one_tower_loads_torchvisions_parameters(tmp_path):
    rng = np.random.default_rng(0)
    # Maps of 2x1 cells: the order in which they are flattened matters.
    shapes = {
        "features.0": (64, 3, 11, 11),
        "features.3": (192, 64, 5, 5),
        "features.6": (384, 192, 3, 3),
        "features.8": (256, 384, 3, 3),
        "features.10": (256, 256, 3, 3),
        "classifier.1": (4096, 256 * 2 * 1),
        "classifier.4": (4096, 4096),
        "classifier.6": (5, 4096),
    }
    parameters = {}
    for name, shape in shapes.items():
        scale = np.float32((2 / np.prod(shape[1:])) ** 0.5)
        parameters[f"{name}.weight"] = scale * rng.standard_normal(shape, "float32")
        parameters[f"{name}.bias"] = np.float32(0.1) * rng.standard_normal(shape[0], "float32")

    def layer(x, name, **placement):
        weight, bias = parameters[f"{name}.weight"], parameters[f"{name}.bias"]
        return convolution(x, weight, bias, **placement) if x.ndim == 3 else weight @ x + bias

    image = rng.uniform(0, 255, (95, 63, 3)).astype("float32")
    x = (image / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    x = pooling(layer(x.transpose(2, 0, 1), "features.0", stride=4, margin=2))
    x = pooling(layer(x, "features.3", margin=2))
    for name in ("features.6", "features.8", "features.10"):
        x = layer(x, name, margin=1)
    features = pooling(x)
    assert features.shape == (256, 2, 1)
    x = np.maximum(layer(features.ravel(), "classifier.1"), 0)
    expected = layer(np.maximum(layer(x, "classifier.4"), 0), "classifier.6")

    path = tmp_path / "alexnet.npz"
    np.savez(path, **parameters)
    model = alexnet_one_tower((95, 63, 3), 5, weights=path, classifier_activation=None)
    received = np.asarray(model(image[None]))[0]
    np.testing.assert_allclose(received, expected, atol=1e-4 * np.abs(expected).max())
    headless = alexnet_one_tower((95, 63, 3), include_top=False, weights=path)
    received = np.asarray(headless(image[None]))[0].transpose(2, 0, 1)
    np.testing.assert_allclose(received, features, atol=1e-4 * features.max())
    with pytest.raises(ValueError, match="pass num_classes=5"):
        alexnet_one_tower((95, 63, 3), 4, weights=path)
    with pytest.raises(ValueError, match=r"alexnet.npz: layer fc6 .*\(256, 4096\).*\(512, 4096\)"):
        # One cell where the file has two.
        alexnet_one_tower((63, 63, 3), 5, weights=path)


def test_clear_errors():
    with pytest.raises(ValueError, match="image_shape must be at least 67 x 67"):
        alexnet((66, 227, 3))
    with pytest.raises(ValueError, match="image_shape must be at least 63 x 63"):
        alexnet_one_tower((62, 62, 3), include_top=False)
    with pytest.raises(ValueError, match="image_shape must have a height and a width"):
        alexnet((None, None, 3))
    assert alexnet((None, None, 3), include_top=False).output_shape == (None, None, None, 256)
