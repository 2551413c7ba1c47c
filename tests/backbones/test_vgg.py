import keras
import numpy as np
import pytest

from kerasvision.backbones.vgg import vgg16


def test_loads_the_files_of_keras_applications(tmp_path):
    rng = np.random.default_rng(0)
    peer = keras.applications.VGG16(include_top=False, weights=None, input_shape=(64, 64, 3))
    for layer in peer.layers:
        if layer.weights:
            layer.set_weights([w * 1.2 + rng.normal(0, 0.01, w.shape) for w in layer.get_weights()])
    peer.save(tmp_path / "peer.h5")
    ours = vgg16((64, 64, 3), tmp_path / "peer.h5")
    assert ours.count_params() == 14_714_688
    images = rng.uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    expected = keras.Model(peer.input, peer.get_layer("block5_conv3").output).predict(
        keras.applications.vgg16.preprocess_input(images.copy()), verbose=0
    )
    np.testing.assert_allclose(
        ours.predict(images, verbose=0), expected, atol=1e-4 * np.abs(expected).max()
    )


def test_taps_round_odd_sides_up():
    taps = vgg16((300, 300, 3)).feature_taps
    assert {name: tuple(tap.shape[1:]) for name, tap in taps.items()} == {
        "stride1": (300, 300, 64),
        "stride2": (150, 150, 128),
        "stride4": (75, 75, 256),
        "stride8": (38, 38, 512),
        "stride16": (19, 19, 512),
    }


def test_development_weights_load(development_weights):
    model = vgg16((64, 64, 3), development_weights / "vgg16_hed_notop.h5")
    assert float(np.abs(model.get_layer("block5_conv3").get_weights()[0]).max()) > 0


def test_foreign_file_is_refused(tmp_path):
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(tmp_path / "dense.h5")
    with pytest.raises(ValueError, match="dense.h5: not a VGG-16 file"):
        vgg16((64, 64, 3), tmp_path / "dense.h5")
