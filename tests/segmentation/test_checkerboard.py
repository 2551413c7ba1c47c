"""Upsampling leaves no pattern that isn't in the maps (Odena et al. 2016, "Deconvolution and
Checkerboard Artifacts")."""

import keras
import numpy as np
import pytest
from keras import layers

from kerasvision.segmentation import fcn8s, fcn16s, fcn32s, unet

SMALL = {"units": 2, "padding": 0}


def pattern(kernel_size, strides, padding="same"):
    """What a kernel of ones makes of a constant map, away from its borders."""
    x = keras.Input((12, 12, 1))
    layer = layers.Conv2DTranspose(
        1, kernel_size, strides, padding, use_bias=False, kernel_initializer="ones"
    )
    found = np.asarray(keras.Model(x, layer(x))(np.ones((1, 12, 12, 1))))[0, ..., 0]
    margin = max(layer.kernel_size)
    return found[margin:-margin, margin:-margin]


def test_kernels_that_the_stride_does_not_divide_leave_a_checkerboard():
    # Ones overlap once or twice in each direction.
    assert set(pattern(3, 2).ravel()) == {1.0, 2.0, 4.0}
    assert set(pattern(4, 2).ravel()) == {4.0}


@pytest.mark.parametrize(
    "make",
    [
        lambda: unet(2, (188, 188, 3), filters=2),
        lambda: unet(2, (32, 32, 3), filters=2, padding="same"),
        lambda: fcn32s(2, (32, 32, 3), **SMALL),
        lambda: fcn16s(2, (32, 32, 3), **SMALL),
        lambda: fcn8s(2, (32, 32, 3), **SMALL),
    ],
)
def test_the_upsamplings_of_all_networks_leave_none(make):
    found = [
        layer
        for layer in make().network.layers
        if isinstance(layer, layers.Conv2DTranspose) and max(layer.strides) > 1
    ]
    assert found
    for layer in found:
        stride, kernel = layer.strides[0], layer.kernel_size[0]
        assert pattern(min(kernel, 4 * stride), stride, layer.padding).std() == 0, layer.name
        assert kernel % stride == 0, layer.name
