import keras
import numpy as np
import pytest

from kerasvision.segmentation import unet


def test_parameters_are_those_of_the_paper():
    assert unet(2, (188, 188, 1)).count_params() == 31_030_658
    assert unet(1, (188, 188, 1)).count_params() == 31_030_593
    assert unet(1, (188, 188, 3)).count_params() == 31_031_745
    assert unet(1, (188, 188, 3), upsampling="bilinear").count_params() == 31_031_745


def test_572_pixels_see_388():
    model = unet(2, (572, 572, 3), filters=2)
    assert model.output_size == (388, 388)
    model = model.network
    sides = [model.get_layer(f"down{i}_conv2").output.shape[1] for i in range(4)]
    assert sides == [568, 280, 136, 64]  # figure 1
    assert model.get_layer("bottom_conv2").output.shape[1] == 28
    sides = [model.get_layer(f"up{i}_conv2").output.shape[1] for i in (3, 2, 1, 0)]
    assert sides == [52, 100, 196, 388]


def test_each_pixel_is_predicted_from_what_surrounds_it_alone():
    # Gradients reach 92 pixels far: (188 - 4) / 2.
    model = unet(2, (204, 204, 3), filters=2)
    assert model.output_size == (20, 20)
    model.network.get_layer("scores").set_weights(
        [np.ones((1, 1, 2, 2), "float32"), np.zeros(2, "float32")]
    )
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 255, (1, 204, 204, 3)).astype("float32")
    other = image.copy()
    other[:, 188:] = rng.uniform(0, 255, (1, 16, 204, 3))
    logits = [np.asarray(model(x)) for x in (image, other)]
    np.testing.assert_array_equal(logits[0][:, :4], logits[1][:, :4])
    assert np.abs(logits[0] - logits[1])[:, 4:].max() > 0


@pytest.mark.parametrize(
    "upsampling", ["transposed", pytest.param("bilinear", marks=pytest.mark.slow)]
)
def test_the_same_variant_predicts_each_pixel(upsampling):
    keras.utils.set_random_seed(0)
    model = unet(
        2, (32, 48, 3), filters=4, padding="same", upsampling=upsampling, batch_norm_momentum=0.9
    )
    assert model.output_size == (32, 48)
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 48, 3)).astype("float32")
    batch = {"images": images, "segmentation_masks": (images[..., 1] > 127).astype("int32")}
    model.compile(keras.optimizers.Adam(0.01))
    losses = model.fit(batch, epochs=15, verbose=0).history["loss"]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.slow
def test_the_valid_variant_learns_two_halves():
    keras.utils.set_random_seed(0)
    model = unet(2, (188, 188, 3), filters=4)
    images = np.zeros((2, 188, 188, 3), "float32")
    images[:, 94:] = 255
    batch = {"images": images, "segmentation_masks": (images[..., 0] > 0).astype("int32")}
    model.compile(keras.optimizers.Adam(0.003))
    losses = model.fit(batch, epochs=15, verbose=0).history["loss"]
    assert losses[-1] < 0.8 * losses[0]


def test_errors():
    with pytest.raises(ValueError, match=r"sides 188, 204, 220, .* received: \(572, 570, 3\)"):
        unet(2, (572, 570, 3))
    with pytest.raises(ValueError, match=r"sides 16, 32, 48, .* received: \(40, 32, 3\)"):
        unet(2, (40, 32, 3), padding="same")
    with pytest.raises(ValueError, match="padding must be 'valid' or 'same'; received: 'full'"):
        unet(2, padding="full")
    with pytest.raises(ValueError, match="upsampling must be .* received: 'nearest'"):
        unet(2, upsampling="nearest")
