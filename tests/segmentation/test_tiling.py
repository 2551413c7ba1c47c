import keras
import numpy as np
import pytest

from kerasvision.segmentation import unet
from kerasvision.segmentation.tiling import predict_tiles, predict_turned


class Recorder:
    """Predicts the colour of the middle of what it sees, in three classes."""

    def __init__(self, side, predicted):
        self.image_shape, self.output_size = (side, side, 3), (predicted, predicted)
        self.tiles = 0

    def predict_on_batch(self, images):
        self.tiles += len(images)
        margin = (self.image_shape[0] - self.output_size[0]) // 2
        end = margin + self.output_size[0]
        return images[:, margin:end, margin:end].astype("float32")


@pytest.mark.parametrize("size", [(1, 1), (5, 70), (40, 33), (100, 64), (129, 200)])
@pytest.mark.parametrize(
    "side, predicted, margin", [(40, 20, 0), (32, 32, 8), (10, 6, 1), (36, 36, None)]
)
def test_every_pixel_is_predicted_once_and_in_its_place(size, side, predicted, margin):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype("uint8")
    found = predict_tiles(Recorder(side, predicted), image, margin)
    np.testing.assert_array_equal(found, image)


def test_turned_pictures_are_turned_back():
    image = np.random.default_rng(0).integers(0, 256, (21, 34, 3)).astype("uint8")
    found = predict_turned(Recorder(32, 32), image, 8)
    np.testing.assert_allclose(found, image, rtol=1e-6)


def test_turned_predictions_are_averaged():
    class Upright(Recorder):
        """Predicts how far down a pixel is in its tile, which all of a picture's turns average."""

        def predict_on_batch(self, images):
            rows = np.arange(16, dtype="float32")[:, None, None]
            return np.broadcast_to(rows, (len(images), 16, 16, 1))

    found = predict_turned(Upright(16, 16), np.zeros((16, 16, 3), "uint8"), 0)
    np.testing.assert_allclose(found, 7.5)
    once = predict_tiles(Upright(16, 16), np.zeros((16, 16, 3), "uint8"), 0)
    np.testing.assert_allclose(once[:, 0, 0], np.arange(16))


def test_number_of_tiles():
    recorder = Recorder(40, 20)  # steps of 16
    predict_tiles(recorder, np.zeros((36, 37, 3)))
    assert recorder.tiles == 2 * 3


def test_beyond_the_border_is_the_mirror_image():
    seen = []

    class Watcher(Recorder):
        def predict_on_batch(self, images):
            seen.append(images)
            return super().predict_on_batch(images)

    image = np.arange(20 * 20 * 3).reshape(20, 20, 3)
    predict_tiles(Watcher(24, 20), image)
    tile = seen[0][0]
    np.testing.assert_array_equal(tile[2:22, 2:22], image)
    np.testing.assert_array_equal(tile[:2, 2:22], image[[2, 1]])
    np.testing.assert_array_equal(tile[2:22, 22:], image[:, [18, 17]])


def test_tiles_of_a_network_without_padding_equal_the_whole():
    keras.utils.set_random_seed(0)
    whole = unet(2, (252, 268, 3), filters=2)
    tiled = unet(2, (204, 204, 3), filters=2)
    tiled.set_weights(whole.get_weights())
    image = np.random.default_rng(0).integers(0, 256, (68, 84, 3)).astype("uint8")
    mirrored = np.pad(image, [(92, 92), (92, 92), (0, 0)], mode="reflect")
    expected = whole.predict_on_batch(mirrored[None])[0]
    assert expected.std() > 1e-3
    np.testing.assert_allclose(predict_tiles(tiled, image), expected, atol=1e-5)


def test_errors():
    with pytest.raises(ValueError, match="leave some of 20 x 20 predicted pixels; received: 10"):
        predict_tiles(Recorder(40, 20), np.zeros((9, 9, 3)), margin=10)
