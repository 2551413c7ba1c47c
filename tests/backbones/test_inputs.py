import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.backbones.inputs import (
    image_input,
    minus_one_to_one,
    standardize,
    subtract_mean,
)

# A picture of two pixels: RGB, 0 to 255.
PIXELS = np.array([[[[0, 51, 255], [123.68, 116.779, 103.939]]]], "float32")


@pytest.mark.parametrize(
    "normalize, expected",
    [
        (subtract_mean, [[-123.68, -65.779, 151.061], [0, 0, 0]]),
        (
            standardize,
            [
                [-0.485 / 0.229, (0.2 - 0.456) / 0.224, (1 - 0.406) / 0.225],
                [
                    (123.68 / 255 - 0.485) / 0.229,
                    (116.779 / 255 - 0.456) / 0.224,
                    (103.939 / 255 - 0.406) / 0.225,
                ],
            ],
        ),
        (minus_one_to_one, [[-1, -0.6, 1], [-0.029961, -0.084086, -0.184792]]),
    ],
)
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_normalisations(normalize, expected, policy):
    keras.mixed_precision.set_global_policy(policy)
    try:
        images = image_input((1, 2, 3))
        model = keras.Model(images, normalize(images))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    np.testing.assert_allclose(ops.convert_to_numpy(model(PIXELS))[0, 0], expected, atol=2e-5)


@pytest.mark.parametrize("normalize", [subtract_mean, standardize])
def test_colours_are_not_normalised_in_grey_pictures(normalize):
    with pytest.raises(ValueError, match=r"by colour; received: \(32, 32, 1\)"):
        normalize(image_input((32, 32, 1)))


def test_unknown_sides_and_grey_pictures_are_allowed():
    assert image_input([None, 40, 3], min_side=40).shape == (None, None, 40, 3)
    assert image_input((28, 28, 1), any_size=False).shape == (None, 28, 28, 1)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (((32, 32),), r"image_shape must be \(height, width, 3\).*received: \(32, 32\)"),
        ((224,), r"image_shape must be \(height, width, 3\).*received: 224"),
        (((32, 32, 4),), r"or 1 for grey pictures; received: \(32, 32, 4\)"),
        (((32, None, 3), 1, False), r"fully connected layers follow; received: \(32, None, 3\)"),
        (((None, 31, 3), 32), r"at least 32 x 32 for this network; received: \(None, 31, 3\)"),
        (((0, 5, 3),), r"at least 1 x 1 for this network; received: \(0, 5, 3\)"),
    ],
)
def test_clear_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        image_input(*arguments)
