import keras
import numpy as np
import pytest
from keras import layers

from kerasvision.classification.dense import to_dense
from kerasvision.classification.multi_crop import (
    center_crop,
    picture_predictor,
    resize_shorter_side,
    ten_crops,
)

RNG = np.random.default_rng(0)


def picture(height, width):
    return RNG.integers(0, 256, (height, width, 3), "uint8")


def network():
    """Logits of crops of 8 x 8 pixels, one score a cell of 2 x 2; no padding anywhere."""
    images = keras.Input((8, 8, 3), name="images")
    x = layers.Rescaling(1 / 128, -1.0)(images)
    x = layers.Conv2D(4, 2, 2, activation="relu")(x)
    x = layers.Flatten()(x)
    x = layers.Dense(5, activation="relu")(x)
    model = keras.Model(images, layers.Dense(3, name="predictions")(x))
    for weight in model.weights:
        weight.assign(RNG.normal(size=tuple(weight.shape)) * 0.4)
    return model


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def test_shorter_side():
    assert resize_shorter_side(picture(40, 60), 20).shape == (20, 30, 3)
    assert resize_shorter_side(picture(61, 40), 20).shape == (30, 20, 3)
    assert resize_shorter_side(picture(3, 1000), 20).shape == (20, 6667, 3)
    same = picture(20, 30)
    np.testing.assert_array_equal(resize_shorter_side(same, 20), same)
    # Half the size: each pixel is a weighted mean around it, a plane stays a plane.
    plane = np.full((40, 60, 3), 77, "uint8")
    np.testing.assert_allclose(resize_shorter_side(plane, 20), np.full((20, 30, 3), 77), atol=1e-3)


def test_center_crop():
    image = np.arange(7 * 6).reshape(7, 6, 1)
    np.testing.assert_array_equal(center_crop(image, 3, 2), image[2:5, 2:4])
    np.testing.assert_array_equal(center_crop(image, 7, 6), image)


def test_ten_crops():
    image = np.arange(4 * 5).reshape(4, 5, 1)
    crops = ten_crops(image, 2, 3)[..., 0]
    np.testing.assert_array_equal(
        crops[:5],
        [
            [[0, 1, 2], [5, 6, 7]],
            [[2, 3, 4], [7, 8, 9]],
            [[10, 11, 12], [15, 16, 17]],
            [[12, 13, 14], [17, 18, 19]],
            [[6, 7, 8], [11, 12, 13]],
        ],
    )
    np.testing.assert_array_equal(crops[5:], crops[:5, :, ::-1])


def test_single_crop_is_the_middle():
    model, image = network(), picture(12, 16)
    received = picture_predictor(model, "single", [12])(image)
    expected = softmax(model.predict_on_batch(image[None, 2:10, 4:12].astype("float32")))[0]
    np.testing.assert_allclose(received, expected, rtol=1e-4)
    # Of a picture of the network's size all.
    received = picture_predictor(model, sides=[8])(image[:8, :8])
    expected = softmax(model.predict_on_batch(image[None, :8, :8].astype("float32")))[0]
    np.testing.assert_allclose(received, expected, rtol=1e-4)


def test_ten_crops_of_the_central_square():
    model, image = network(), picture(12, 16)
    received = picture_predictor(model, "ten_crop", [12])(image)
    square = image[:, 2:14].astype("float32")
    windows = [square[y : y + 8, x : x + 8] for y, x in [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2)]]
    views = np.stack(windows + [window[:, ::-1] for window in windows])
    expected = softmax(model.predict_on_batch(views)).mean(axis=0)
    np.testing.assert_allclose(received, expected, rtol=1e-4)


def test_dense_is_every_place_of_picture_and_mirror_image():
    model, image = network(), picture(10, 14)
    received = picture_predictor(model, "dense", [10])(image)
    views = []
    for view in (image, image[:, ::-1]):
        for y in (0, 2):
            for x in (0, 2, 4, 6):
                views.append(view[y : y + 8, x : x + 8])
    expected = softmax(model.predict_on_batch(np.stack(views).astype("float32"))).mean(axis=0)
    np.testing.assert_allclose(received, expected, rtol=1e-4)


@pytest.mark.parametrize("mode", ["single", "ten_crop", "dense"])
def test_sides_are_averaged(mode):
    model, image = network(), picture(20, 15)
    received = picture_predictor(model, mode, [8, 11])(image)
    each = [picture_predictor(model, mode, [side])(image) for side in (8, 11)]
    np.testing.assert_allclose(received, np.mean(each, axis=0), rtol=1e-5)
    assert received.sum() == pytest.approx(1, abs=1e-5)
    assert np.abs(each[0] - each[1]).max() > 1e-3


def test_mirror_image_changes_nothing_but_in_a_single_crop():
    model, image = network(), picture(12, 12)
    for mode, same in [("single", False), ("ten_crop", True), ("dense", True)]:
        predict = picture_predictor(model, mode, [12])
        difference = np.abs(predict(image) - predict(image[:, ::-1])).max()
        assert (difference < 1e-5) == same, mode


def test_auxiliary_heads_do_not_count():
    model = network()
    features = model.layers[2].output
    other = layers.Dense(3)(layers.Flatten()(features))
    heads = keras.Model(model.input, {"predictions": model.output, "auxiliary1": other})
    image = picture(12, 12)
    for mode in ("single", "dense"):
        np.testing.assert_allclose(
            picture_predictor(heads, mode)(image), picture_predictor(model, mode)(image), rtol=1e-5
        )


def test_default_side():
    """256 for crops of 224, so 9 for crops of 8."""
    model, image = network(), picture(30, 20)
    np.testing.assert_array_equal(
        picture_predictor(model)(image), picture_predictor(model, sides=[9])(image)
    )


def test_vgg_as_in_the_paper():
    """The one place of a crop of the training size, and the layers that became convolutions."""
    from kerasvision.backbones.vgg import vgg16

    model = vgg16((64, 64, 3), num_classes=3, classifier_activation=None)
    dense = to_dense(model)
    assert dense.get_layer("fc1").kernel.shape == (2, 2, 512, 4096)
    assert dense.get_layer("fc2").kernel.shape == (1, 1, 4096, 4096)
    images = picture(64, 64)[None].astype("float32")
    np.testing.assert_allclose(
        dense.predict_on_batch(images)[:, 0, 0],
        model.predict_on_batch(images),
        rtol=1e-3,
        atol=1e-4,
    )
    assert dense.compute_output_shape((1, 128, 96, 3)) == (1, 3, 2, 3)


def test_arguments_are_checked():
    model = network()
    with pytest.raises(ValueError, match="mode must be one of single, .*; received: twelve"):
        picture_predictor(model, "twelve")
    with pytest.raises(ValueError, match=r"at least 8 pixels, .* received: \[12, 7\]"):
        picture_predictor(model, sides=[12, 7])
    images = keras.Input((None, None, 3))
    x = layers.Dense(2)(layers.GlobalAveragePooling2D()(images))
    with pytest.raises(ValueError, match="must have images of known size"):
        picture_predictor(keras.Model(images, x))
