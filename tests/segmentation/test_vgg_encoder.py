"""The encoder that FCN, SegNet and DeconvNet share."""

import keras
import numpy as np
import pytest

from kerasvision.segmentation import fit_batch_norm, segnet


@pytest.mark.parametrize("training", [False, True])
def test_fitted_batch_norm_leaves_the_maps_as_they_were_but_for_their_scale(training):
    """Fresh batch normalisation, not training, is none: so the encoder is a VGG-16."""
    keras.utils.set_random_seed(0)
    network = segnet(2, (32, 48, 3)).network
    rng = np.random.default_rng(0)
    for layer in network.layers:
        if layer.name.startswith("block") and layer.name[-5:-1] == "conv":
            layer.bias.assign(rng.normal(0, 3, layer.bias.shape))
    images = rng.uniform(0, 255, (3, 32, 48, 3)).astype("float32")
    names = ["block1_conv1_relu", "block2_conv2_relu", "block4_conv1_relu", "block5_conv3_relu"]
    encoder = keras.Model(network.input, [network.get_layer(name).output for name in names])
    expected = [np.asarray(maps) for maps in encoder(images)]
    fresh = network.get_weights()
    changed = [np.asarray(maps) for maps in encoder(images, training=True)]
    network.set_weights(fresh)  # without the moving averages of these pictures

    fit_batch_norm(network, images)
    received = [np.asarray(maps) for maps in encoder(images, training=training)]
    for name, before, maps in zip(names, expected, received):
        scale = np.vdot(maps, before) / np.vdot(maps, maps)
        np.testing.assert_allclose(scale * maps, before, atol=1e-3 * before.max(), err_msg=name)
        assert 0.1 < maps.std() < 2
    # Without it, the last maps are others.
    assert np.corrcoef(changed[-1].ravel(), expected[-1].ravel())[0, 1] < 0.9


def test_pictures_of_mean_colour_have_no_deviation():
    network = segnet(2, (32, 32, 3)).network
    fit_batch_norm(network, np.full((1, 32, 32, 3), (123.68, 116.779, 103.939), "float32"))
    assert all(np.isfinite(weight).all() for weight in network.get_weights())
