import keras
import numpy as np
import pytest

from kerasvision.segmentation import deconvnet


def trainable(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


@pytest.mark.slow  # 252 million weights are drawn
def test_parameters_are_those_of_the_paper():
    assert trainable(deconvnet(21)) == 251_805_653


def test_parameters_without_the_fully_connected_layers():
    model = deconvnet(21, (224, 224, 3), units=2)
    fully_connected = 49 * 512 * 2 + 2 + 2 * 2 + 2 + 49 * 2 * 512 + 512 + 2 * (2 + 2 + 512)
    paper = 49 * 512 * 4096 * 2 + 4096 + 4096**2 + 4096 + 512 + 2 * (2 * 4096 + 512)
    assert trainable(model) == 251_805_653 - paper + fully_connected


def test_it_goes_down_to_one_vector_and_back():
    model = deconvnet(3, (45, 64, 3), units=4).network
    assert model.get_layer("fc7").output.shape == (None, 1, 1, 4)
    assert model.get_layer("fc6_deconv").output.shape == (None, 2, 2, 512)
    sizes = [model.get_layer(f"unpool{i}").output.shape[1:3] for i in (5, 4, 3, 2, 1)]
    assert sizes == [(3, 4), (6, 8), (12, 16), (23, 32), (45, 64)]
    assert model.output.shape == (None, 45, 64, 3)


@pytest.mark.slow  # 29 million weights learn
def test_training_lowers_the_loss():
    keras.utils.set_random_seed(0)
    model = deconvnet(2, (32, 32, 3), units=8)
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    batch = {"images": images, "segmentation_masks": np.zeros((2, 32, 32), "int32")}
    batch["segmentation_masks"][:, :, 16:] = 1
    model.compile(keras.optimizers.Adam(1e-3))
    losses = model.fit(batch, epochs=6, verbose=0).history["loss"]
    assert losses[-1] < 0.8 * losses[0]
