import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from kerasvision.backbones import network_in_network


def test_parameters_by_arithmetic():
    first = (5 * 5 * 3 + 1) * 192 + (192 + 1) * 160 + (160 + 1) * 96
    second = (5 * 5 * 96 + 1) * 192 + 2 * (192 + 1) * 192
    third = (3 * 3 * 192 + 1) * 192 + (192 + 1) * 192
    assert network_in_network().count_params() == first + second + third + (192 + 1) * 10 == 966_986
    assert network_in_network(include_top=False).count_params() == first + second + third == 965_056


def test_taps():
    taps = network_in_network((None, None, 3)).feature_taps
    assert [tap.shape[-1] for tap in taps.values()] == [96, 192, 192]
    taps = network_in_network((32, 32, 3)).feature_taps
    assert {name: tuple(tap.shape[1:3]) for name, tap in taps.items()} == {
        "stride1": (32, 32),
        "stride2": (16, 16),
        "stride4": (8, 8),
    }


def test_network_is_the_authors():
    """Their Caffe model in NumPy: pooling rounds up, and averages over the cells that exist."""
    rng = np.random.default_rng(0)
    model = network_in_network((16, 16, 3), num_classes=4, classifier_activation=None)
    model.set_weights([w + rng.normal(0, 0.04, w.shape) for w in model.get_weights()])

    def convolution(x, name):
        kernel, bias = model.get_layer(name).get_weights()
        margin = len(kernel) // 2
        x = np.pad(x, ((margin, margin), (margin, margin), (0, 0)))
        windows = sliding_window_view(x, kernel.shape[:2], axis=(0, 1))
        return np.maximum(np.tensordot(windows, kernel, ([3, 4, 2], [0, 1, 2])) + bias, 0)

    def pooling(x, reduce):
        cells = range(-(-(len(x) - 3) // 2) + 1)
        return np.array(
            [
                [reduce(x[2 * i : 2 * i + 3, 2 * j : 2 * j + 3], axis=(0, 1)) for j in cells]
                for i in cells
            ]
        )

    image = rng.uniform(0, 255, (16, 16, 3)).astype("float32")
    x = (image / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    for i in (1, 2, 3):
        x = convolution(x, f"mlpconv1_{i}")
    x = pooling(x, np.max)
    for i in (1, 2, 3):
        x = convolution(x, f"mlpconv2_{i}")
    x = pooling(x, np.mean)
    for name in ("mlpconv3_1", "mlpconv3_2", "predictions"):
        x = convolution(x, name)
    expected = x.mean((0, 1))
    received = model.predict(image[None], verbose=0)[0]
    assert expected.max() > 0.01
    np.testing.assert_allclose(received, expected, atol=1e-4 * expected.max())


def test_weights_start_as_the_authors():
    for layer in network_in_network().layers:
        if layer.weights:
            kernel, bias = layer.get_weights()
            assert abs(kernel.std() - 0.05) < 2e-3 and not bias.any()


def test_own_file_loads(tmp_path):
    model = network_in_network((8, 8, 3), num_classes=3)
    model.save(tmp_path / "nin.h5")
    images = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype("float32")
    loaded = network_in_network((8, 8, 3), num_classes=3, weights=tmp_path / "nin.h5")
    expected = model.predict(images, verbose=0)
    np.testing.assert_allclose(loaded.predict(images, verbose=0), expected, atol=1e-6)
    with pytest.raises(ValueError, match="nin.h5: layer predictions .* pass num_classes=3"):
        network_in_network((8, 8, 3), num_classes=4, weights=tmp_path / "nin.h5")
    with pytest.raises(ValueError, match="image_shape must be at least 4 x 4"):
        network_in_network((3, 8, 3))
