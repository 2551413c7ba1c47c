import keras
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from kerasvision.backbones import vgg11, vgg13, vgg16, vgg19
from kerasvision.backbones.vgg import read_fully_connected


def pictures(*shape):
    return np.random.default_rng(0).uniform(0, 255, shape).astype("float32")


def test_parameters_are_the_papers():
    with keras.StatelessScope(initialize_variables=False):  # counts without 2 GB
        assert vgg11().count_params() == 132_863_336
        assert vgg13().count_params() == 133_047_848
        assert vgg16().count_params() == 138_357_544
        assert vgg19().count_params() == 143_667_240
        assert vgg16(include_top=False).count_params() == 14_714_688
        assert vgg16(include_top=False, output_stride=8).count_params() == 14_714_688


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """VGG-16 and VGG-19 of keras.applications with random weights: {name: (network, file)}."""
    rng = np.random.default_rng(0)
    networks = {}
    for name, include_top in [("VGG16", True), ("VGG19", False)]:
        peer = getattr(keras.applications, name)(
            include_top, weights=None, input_shape=(64, 32, 3), classes=5
        )
        for layer in peer.layers:
            if layer.weights:
                kernel, bias = layer.get_weights()
                layer.set_weights([1.3 * kernel, rng.normal(0, 0.1, bias.shape)])
        path = tmp_path_factory.mktemp(name) / f"{name.lower()}.h5"
        peer.save(path)
        networks[name.lower()] = peer, path
    return networks


def test_loads_the_file_of_keras_applications(published):
    peer, path = published["vgg16"]
    images = pictures(2, 64, 32, 3)
    normalized = keras.applications.vgg16.preprocess_input(images.copy())
    ours = vgg16((64, 32, 3), num_classes=5, weights=path)
    np.testing.assert_allclose(np.asarray(ours(images)), np.asarray(peer(normalized)), atol=1e-4)
    # The headless network takes the file with the classifier.
    features = keras.Model(peer.input, peer.get_layer("block5_pool").output)
    expected = np.asarray(features(normalized))
    headless = vgg16((64, 32, 3), include_top=False, weights=path)
    received = np.asarray(headless(images))
    np.testing.assert_allclose(received, expected, atol=1e-4 * expected.max())
    with pytest.raises(ValueError, match="vgg16.h5: layer predictions .* pass num_classes=5"):
        vgg16((64, 32, 3), num_classes=3, weights=path)
    with pytest.raises(ValueError, match="vgg16.h5: .*block3_conv4"):
        vgg19((64, 32, 3), include_top=False, weights=path)


def test_imagenet_is_the_file_of_keras_applications(published, monkeypatch):
    peer, path = published["vgg19"]
    asked = []

    def get_file(name, url, **settings):
        asked.append((name, url))
        return path

    monkeypatch.setattr(keras.utils, "get_file", get_file)
    ours = vgg19((64, 32, 3), include_top=False, weights="imagenet")
    file = "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5"
    url = "https://storage.googleapis.com/tensorflow/keras-applications/vgg19/"
    assert asked == [(file, url + file)]
    images = pictures(2, 64, 32, 3)
    expected = np.asarray(peer(keras.applications.vgg19.preprocess_input(images.copy())))
    np.testing.assert_allclose(np.asarray(ours(images)), expected, atol=1e-4 * expected.max())
    with pytest.raises(ValueError, match="weights='imagenet' exist for vgg16 and vgg19.*vgg11"):
        vgg11(include_top=False, weights="imagenet")
    with pytest.raises(ValueError, match="imagenet.*1000 classes.*num_classes=5"):
        vgg16((64, 32, 3), num_classes=5, weights="imagenet")


def test_loads_torchvisions_parameters(tmp_path):
    """Against torchvision's VGG-11 in NumPy, channels first, on maps of 2x1 cells."""
    rng = np.random.default_rng(0)
    layout = [64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool", 512, 512, "pool"]
    parameters = {}

    def add(name, *shape):
        scale = np.float32((2 / np.prod(shape[1:])) ** 0.5)
        parameters[f"{name}.weight"] = scale * rng.standard_normal(shape, "float32")
        parameters[f"{name}.bias"] = np.float32(0.1) * rng.standard_normal(shape[0], "float32")
        return parameters[f"{name}.weight"], parameters[f"{name}.bias"]

    image = pictures(64, 32, 3)
    x = (image / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    x, position = x.transpose(2, 0, 1), 0
    for channels in layout:
        if channels == "pool":
            x = x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2).max((2, 4))
            position += 1
            continue
        weight, bias = add(f"features.{position}", channels, len(x), 3, 3)
        windows = sliding_window_view(np.pad(x, ((0, 0), (1, 1), (1, 1))), (3, 3), axis=(1, 2))
        x = np.tensordot(weight, windows, ([1, 2, 3], [0, 3, 4])) + bias[:, None, None]
        x = np.maximum(x, 0)
        position += 2  # ReLU is a layer of its own
    features = x.transpose(1, 2, 0)
    x = x.ravel()
    for name, units in [("classifier.0", 4096), ("classifier.3", 4096), ("classifier.6", 5)]:
        weight, bias = add(name, units, len(x))
        x = weight @ x + bias
        logits, x = x, np.maximum(x, 0)
    path = tmp_path / "vgg11.npz"
    np.savez(path, **parameters)

    model = vgg11((64, 32, 3), num_classes=5, weights=path, classifier_activation=None)
    received = np.asarray(model(image[None]))[0]
    np.testing.assert_allclose(received, logits, atol=1e-4 * np.abs(logits).max())
    headless = keras.Model(model.input, model.feature_taps["stride32"])
    received = np.asarray(headless(image[None]))[0]
    np.testing.assert_allclose(received, features, atol=1e-4 * features.max())


def test_reads_fully_connected_layers_of_torchvision(tmp_path):
    rng = np.random.default_rng(0)
    # Two units where VGG has 4096.
    fc1, fc2 = rng.normal(size=(2, 512 * 49)), rng.normal(size=(2, 2))
    np.savez(
        tmp_path / "vgg.npz",
        **{"classifier.0.weight": fc1, "classifier.0.bias": [1, 2]},
        **{"classifier.3.weight": fc2, "classifier.3.bias": [3, 4]},
    )
    arrays = read_fully_connected(tmp_path / "vgg.npz")
    kernel, bias = arrays["fc1"]
    assert kernel.shape == (7, 7, 512, 2) and bias.tolist() == [1, 2]
    # Row 3, column 6 of map 20.
    np.testing.assert_array_equal(kernel[3, 6, 20], fc1[:, 20 * 49 + 3 * 7 + 6])
    kernel, bias = arrays["fc2"]
    np.testing.assert_array_equal(kernel[0, 0], fc2.T)
    assert bias.tolist() == [3, 4]


def test_taps_round_odd_sides_up():
    taps = vgg16((300, 300, 3), include_top=False).feature_taps
    assert {name: tuple(tap.shape[1:]) for name, tap in taps.items()} == {
        "stride1": (300, 300, 64),
        "stride2": (150, 150, 128),
        "stride4": (75, 75, 256),
        "stride8": (38, 38, 512),
        "stride16": (19, 19, 512),
        "stride32": (10, 10, 512),
    }


def test_dilated_maps_hold_the_strided_ones():
    """Of each row and column of cells, the ones that pooling with a stride keeps."""
    images = pictures(1, 96, 64, 3)
    networks = {s: vgg11((None, None, 3), include_top=False, output_stride=s) for s in (32, 16, 8)}
    for network in networks.values():
        network.set_weights(networks[32].get_weights())
    strided, sixteen, eight = (
        {k: np.asarray(v) for k, v in keras.Model(n.input, n.feature_taps)(images).items()}
        for n in networks.values()
    )
    assert strided["stride32"].shape == (1, 3, 2, 512)
    assert set(sixteen) == {"stride1", "stride2", "stride4", "stride8", "stride16"}
    assert sixteen["stride16"].shape == (1, 6, 4, 512)
    assert eight["stride8"].shape == (1, 12, 8, 512)
    scale = strided["stride32"].max()
    np.testing.assert_allclose(
        sixteen["stride16"][:, ::2, ::2], strided["stride32"], atol=1e-5 * scale
    )
    # Without the fourth pooling's stride too, the fifth block is dilated. The pooling behind it
    # isn't, so that it is the block itself that is compared.
    dilated = networks[8].get_layer("block5_conv2")
    assert dilated.dilation_rate == (2, 2)
    dilated = np.asarray(keras.Model(networks[8].input, dilated.output)(images))
    scale = strided["stride16"].max()
    np.testing.assert_allclose(dilated[:, ::2, ::2], strided["stride16"], atol=1e-5 * scale)


def test_development_weights_load(development_weights):
    path = development_weights / "vgg16_hed_notop.h5"
    model = vgg16((64, 64, 3), include_top=False, weights=path)
    assert float(np.abs(model.get_layer("block5_conv3").get_weights()[0]).max()) > 0
    assert read_fully_connected(path) == {}


def test_clear_errors(tmp_path):
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(tmp_path / "dense.h5")
    with pytest.raises(ValueError, match="dense.h5: no layer of vgg16 is in the file"):
        vgg16((64, 64, 3), include_top=False, weights=tmp_path / "dense.h5")
    with pytest.raises(ValueError, match="output_stride must be 8, 16 or 32; received: 4"):
        vgg16(include_top=False, output_stride=4)
    with pytest.raises(ValueError, match="output_stride must be 32 with the classifier"):
        vgg16(output_stride=8)
    with pytest.raises(ValueError, match="image_shape must be at least 32 x 32"):
        vgg19((31, 64, 3), include_top=False)
