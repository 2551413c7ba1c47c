import keras
import numpy as np
import pytest

from kerasvision.backbones import resnet18
from kerasvision.segmentation import refinenet, refinenet_mobilenet_v2
from kerasvision.segmentation.refinenet import chained_residual_pooling, residual_unit


def small(num_classes=2):
    return refinenet(resnet18((64, 32, 3), include_top=False, width=4), num_classes, filters=4)


def test_parameters_of_the_blocks():
    # By hand: 3x3 convolutions with biases, of 256 channels and, in the coarsest block, 512.
    def convolution(channels, filters):
        return 9 * channels * filters + filters

    backbone = resnet18((32, 32, 3), include_top=False)
    model = refinenet(backbone, 21)
    unit = [2 * convolution(c, c) for c in (256, 512)]
    pooling = [2 * convolution(c, c) for c in (256, 512)]
    expected = convolution(512, 512) + 2 * unit[1] + pooling[1] + unit[1]
    for channels, below in ((256, 512), (128, 256), (64, 256)):
        expected += convolution(channels, 256) + 2 * unit[0]
        expected += 2 * (unit[0] if below == 256 else unit[1])
        expected += convolution(256, 256) + convolution(below, 256)
        expected += pooling[0] + unit[0]
    expected += 2 * unit[0] + convolution(256, 21)
    assert model.count_params() - backbone.count_params() == expected


def test_pooling_in_a_chain_by_hand():
    x = keras.Input((7, 7, 1))
    model = keras.Model(x, chained_residual_pooling(x, "a"))
    kernel = np.zeros((3, 3, 1, 1), "float32")
    kernel[1, 1] = 0.5
    for i in (1, 2):
        model.get_layer(f"a_pooling{i}_conv").set_weights([kernel, np.zeros(1, "float32")])
    image = np.full((1, 7, 7, 1), -1, "float32")
    image[0, 0, 0] = 8
    found = np.asarray(model(image))[0, ..., 0]
    expected = np.zeros((7, 7))
    expected[:5, :5] = 2  # two poolings reach four pixels far
    expected[:3, :3] = 4 + 2
    expected[0, 0] = 8 + 4 + 2
    np.testing.assert_allclose(found, expected)


def test_a_residual_unit_starts_as_the_identity_and_adds_what_it_learns():
    x = keras.Input((4, 4, 2))
    model = keras.Model(x, residual_unit(x, "a"))
    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, 4, 4, 2)).astype("float32")
    np.testing.assert_array_equal(np.asarray(model(image)), image)

    # Kernels of their middle alone mix the channels of each pixel.
    middles = rng.normal(size=(2, 2, 2)).astype("float32")
    for name, middle in zip(("a_conv1", "a_conv2"), middles):
        kernel = np.zeros((3, 3, 2, 2), "float32")
        kernel[1, 1] = middle
        model.get_layer(name).set_weights([kernel, np.zeros(2, "float32")])
    added = np.maximum(np.maximum(image, 0) @ middles[0], 0) @ middles[1]
    np.testing.assert_allclose(np.asarray(model(image)), image + added, atol=1e-6)


def test_each_block_doubles_the_resolution():
    network = small().network
    sizes = [network.get_layer(f"refine{i}_output_unit_add").output.shape[1:] for i in (4, 3, 2, 1)]
    assert sizes == [(2, 1, 8), (4, 2, 4), (8, 4, 4), (16, 8, 4)]
    assert network.output.shape == (None, 64, 32, 2)


@pytest.mark.slow
def test_training_lowers_the_loss():
    keras.utils.set_random_seed(0)
    model = small()
    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 32, 3)).astype("float32")
    batch = {"images": images, "segmentation_masks": np.zeros((2, 64, 32), "int32")}
    batch["segmentation_masks"][:, 32:] = 1
    model.compile(keras.optimizers.Adam(3e-3))
    losses = model.fit(batch, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < 0.9 * losses[0]


def test_errors():
    with pytest.raises(ValueError, match=r"multiples of 32; received: \(48, 64, 3\)"):
        refinenet_mobilenet_v2(2, (48, 64, 3))
