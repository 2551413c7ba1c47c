import keras
import numpy as np
import pytest

from kerasvision.backbones.mobilenet_v2 import mobilenet_v2, round_channels


def randomize(model, rng):
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(
                [
                    rng.uniform(0.5, 1.5, w.shape)
                    if w.name in ("gamma", "moving_variance")
                    else rng.normal(0, 0.1, w.shape)
                    for w in layer.weights
                ]
            )


@pytest.mark.parametrize("size", [96, 75])  # odd sides pad otherwise
@pytest.mark.parametrize("width", [0.35, 1.0, 1.4])
def test_loads_the_files_of_keras_applications(tmp_path, width, size):
    rng = np.random.default_rng(0)
    peer = keras.applications.MobileNetV2(
        (size, size, 3), alpha=width, include_top=False, weights=None
    )
    randomize(peer, rng)
    peer.save(tmp_path / "peer.h5")
    ours = mobilenet_v2((size, size, 3), width, tmp_path / "peer.h5")
    assert ours.count_params() == peer.count_params()
    images = rng.uniform(0, 255, (2, size, size, 3)).astype("float32")
    expected = peer.predict(images / 127.5 - 1, verbose=0)
    assert expected.max() > 0.1
    np.testing.assert_allclose(ours.predict(images, verbose=0), expected, atol=1e-4)


def test_parameters_and_taps():
    model = mobilenet_v2((224, 224, 3))
    assert model.count_params() == 2_257_984
    # With the classifier of the paper: the 3,538,984 of keras.applications.
    assert model.count_params() + 1280 * 1000 + 1000 == 3_538_984
    assert {name: tuple(tap.shape[1:]) for name, tap in model.feature_taps.items()} == {
        "stride2": (112, 112, 96),
        "stride4": (56, 56, 144),
        "stride8": (28, 28, 192),
        "stride16": (14, 14, 576),
        "stride32": (7, 7, 1280),
    }


@pytest.mark.parametrize("channels, rounded", [(32 * 0.35, 16), (24 * 1.4, 32), (16 * 0.35, 8)])
def test_round_channels(channels, rounded):
    assert round_channels(channels) == rounded


def test_torchvision_weights_classify(development_weights, detection_data):
    import cv2

    path = development_weights / "mobilenet_v2_imagenet_torchvision.npz"
    model = mobilenet_v2((224, 224, 3), weights=path)
    archive = np.load(path)
    pictures = sorted((detection_data.parent / "classification/imagenet_sample").iterdir())[:60]
    correct = 0
    for picture in pictures:
        image = cv2.imread(str(picture))[:, :, ::-1]
        scale = 256 / min(image.shape[:2])
        image = cv2.resize(image, None, fx=scale, fy=scale)
        top, left = (image.shape[0] - 224) // 2, (image.shape[1] - 224) // 2
        image = image[top : top + 224, left : left + 224]
        features = model(image[None].astype("float32"), training=False).numpy().mean((1, 2))
        logits = features @ archive["classifier.1.weight"].T + archive["classifier.1.bias"]
        correct += int(logits.argmax() == int(picture.name.split("_")[0]))
    assert correct / len(pictures) >= 0.75


def test_clear_errors(tmp_path):
    with pytest.raises(ValueError, match="width_multiplier.*0.6"):
        mobilenet_v2((96, 96, 3), 0.6, "imagenet")
    (tmp_path / "broken.h5").write_bytes(b"no")
    with pytest.raises(ValueError, match="broken.h5: not a readable HDF5"):
        mobilenet_v2((96, 96, 3), weights=tmp_path / "broken.h5")
    np.savez(tmp_path / "other.npz", a=np.zeros(1))
    with pytest.raises(ValueError, match="other.npz: not a MobileNetV2.*received arrays"):
        mobilenet_v2((96, 96, 3), weights=tmp_path / "other.npz")
    peer = keras.applications.MobileNetV2((96, 96, 3), alpha=0.5, include_top=False, weights=None)
    peer.save(tmp_path / "half.h5")
    with pytest.raises(ValueError, match="half.h5: layer Conv1 expects"):
        mobilenet_v2((96, 96, 3), weights=tmp_path / "half.h5")
