import h5py
import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.backbones import vgg16
from kerasvision.segmentation import segnet, segnet_basic


def trainable(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def test_parameters_are_those_of_the_papers():
    model = segnet(11, (32, 32, 3))
    assert trainable(model) == 29_449_355
    encoder = [layer for layer in model.network.layers if layer.name.startswith("block")]
    assert sum(trainable(layer) for layer in encoder) == 14_723_136
    assert trainable(segnet(11, (32, 32, 3), upsampling="bilinear")) == 29_449_355
    assert trainable(segnet_basic(11, (16, 16, 3))) == 1_416_587


@pytest.mark.parametrize("size", [(32, 48), (45, 61)])
def test_unpooled_values_lie_where_the_encoder_had_its_maxima(size):
    model = segnet_basic(3, (*size, 3)).network
    taps = [(f"encoder{i}_conv_relu", f"encoder{i}_pool", f"unpool{i}") for i in (1, 2, 3, 4)]
    outputs = [
        [
            model.get_layer(before).output,
            model.get_layer(pool).output[0],
            model.get_layer(up).output,
        ]
        for before, pool, up in taps
    ]
    images = np.random.default_rng(0).uniform(0, 255, (1, *size, 3)).astype("float32")
    for before, pooled, unpooled in keras.Model(model.input, outputs).predict(images, verbose=0):
        rows, columns = pooled.shape[1:3]
        assert unpooled.shape == before.shape
        assert np.count_nonzero(unpooled) > 0.5 * pooled.size
        for y, x in np.ndindex(rows, columns):
            window = np.s_[0, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
            for channel in range(0, 64, 16):
                cells, values = before[window][..., channel], unpooled[window][..., channel]
                elsewhere = cells.ravel().argmax() != np.arange(cells.size)
                assert (values.ravel()[elsewhere] == 0).all()


def test_the_encoder_starts_as_vgg16(tmp_path):
    backbone = vgg16((32, 32, 3), include_top=False)
    layers = {layer.name: layer for layer in backbone.layers if layer.weights}
    with h5py.File(tmp_path / "vgg16.h5", "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in layers]
        for name, layer in layers.items():
            kernel, bias = layer.get_weights()
            group = file.create_group(name)
            group.attrs["weight_names"] = [b"kernel", b"bias"]
            group["kernel"], group["bias"] = kernel, bias
    model = segnet(2, (32, 32, 3), tmp_path / "vgg16.h5")
    for name, layer in layers.items():
        kernel, bias = layer.get_weights()
        if name == "block1_conv1":  # the file's filters see BGR
            kernel = kernel[:, :, ::-1]
        np.testing.assert_array_equal(model.network.get_layer(name).kernel, kernel)
        np.testing.assert_array_equal(model.network.get_layer(name).bias, bias)


@pytest.mark.slow
def test_training_lowers_the_loss():
    keras.utils.set_random_seed(0)
    model = segnet_basic(2, (32, 32, 3))
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    masks = ops.cast(images[..., 0] > 127, "int32")
    model.compile(keras.optimizers.Adam(0.01))
    batch = {"images": images, "segmentation_masks": masks}
    losses = model.fit(batch, epochs=12, verbose=0).history["loss"]
    assert losses[-1] < 0.6 * losses[0]


def test_errors():
    with pytest.raises(
        ValueError, match="upsampling must be 'indices' or 'bilinear'; received: 'no'"
    ):
        segnet(2, (32, 32, 3), upsampling="no")
    with pytest.raises(ValueError, match="at least 32 x 32"):
        segnet(2, (31, 40, 3))
