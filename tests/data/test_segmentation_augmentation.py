"""Tests of the segmentation augmentation: picture and labels move together, and how far."""

import cv2
import numpy as np
import pytest
import tensorflow as tf

from kerasvision import data
from kerasvision.data import warping

SHAPE = (64, 80, 3)


def _painted(size=(90, 70), seed=0):
    """Two classes: labels of a few rectangles, and a picture and weights that show them."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(size, np.int32)
    for _ in range(3):
        top, left = rng.integers(0, size[0] - 20), rng.integers(0, size[1] - 20)
        height, width = rng.integers(15, 40, 2)
        labels[top : top + height, left : left + width] = 1
    image = np.repeat(200 * labels[..., None], 3, axis=-1).astype(np.uint8)
    return {"images": image, "segmentation_masks": labels, "pixel_weights": labels / np.float32(4)}


def _in_graph(augmentation):
    """The augmentation as a function of an example and a seed, traced once."""
    function = tf.function(lambda e, s: augmentation(e, seed=s), autograph=False)

    def augment(example, seed):
        example = {name: tf.constant(values) for name, values in example.items()}
        result = function(example, tf.constant(seed, tf.int64))
        return {name: values.numpy() for name, values in result.items()}

    return augment


CHANGES = {
    "none": {},
    "flip": {"vertical_flip": True},
    "larger": {"min_scale": 1.5, "max_scale": 2.5},
    "smaller": {"min_scale": 0.4, "max_scale": 0.8},
    "rotation": {"rotation": 45.0},
    "elastic": {"elastic": 6.0},
    "crops": {"crops": True},
    "all": {"min_scale": 0.5, "max_scale": 2.0, "rotation": 90.0, "elastic": 4.0},
    "tiles": {"crops": True, "min_scale": 0.7, "max_scale": 1.5, "rotation": 180.0, "elastic": 5.0},
}


@pytest.mark.parametrize("name", CHANGES)
def test_labels_and_weights_stay_on_the_picture(name):
    augment = _in_graph(data.SegmentationAugmentation(SHAPE, **CHANGES[name]))
    seen = []
    for seed in range(6):
        result = augment(_painted(seed=seed), (seed, 5))
        labels, image = result["segmentation_masks"], result["images"]
        assert image.shape == SHAPE and image.dtype == np.uint8
        assert labels.shape == SHAPE[:2] and labels.dtype == np.int32
        np.testing.assert_array_equal(result["pixel_weights"], labels / np.float32(4))
        # Edges are where the picture, however blurred, is half-way.
        assert np.mean((image[..., 0] > 100) == (labels == 1)) >= 0.99
        seen.append(labels)
    if name != "none":
        assert len({labels.tobytes() for labels in seen}) > 1


@pytest.mark.parametrize("size", [(64, 80), (128, 160), (37, 53), (1, 1), (3, 200)])
def test_without_changes_it_is_the_resized_picture(size):
    rng = np.random.default_rng(1)
    example = {
        "images": rng.integers(0, 256, (*size, 3), np.uint8),
        "segmentation_masks": rng.integers(-1, 5, size, np.int32),
    }
    augment = _in_graph(data.SegmentationAugmentation(SHAPE, flip=False))
    result = augment(example, (0, 1))
    expected = data.resize_labelled(example, SHAPE[:2])
    assert result.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(result[name], expected[name], name)


@pytest.mark.parametrize("size", [(64, 80), (128, 160), (37, 53), (1, 1), (3, 200)])
def test_the_map_of_no_change_is_the_identity(size):
    """Changes too small to see, through all of the sampling."""
    rng = np.random.default_rng(1)
    image = cv2.GaussianBlur(rng.integers(0, 256, (*size, 3), np.uint8), (0, 0), 2)
    labels = rng.integers(-1, 5, size, np.int32)
    example = {"images": image.reshape(*size, 3), "segmentation_masks": labels}
    augment = _in_graph(data.SegmentationAugmentation(SHAPE, flip=False, elastic=1e-5))
    result = augment(example, (0, 1))
    expected = data.resize_labelled(example, SHAPE[:2])
    difference = result["images"].astype(int) - expected["images"].numpy()
    assert np.abs(difference).max() <= 1
    # Where labels change exactly in the middle of a pixel either is right.
    rows, columns = ((np.arange(n) + 0.5) * m / n % 1 for n, m in zip(SHAPE, size))
    clear = np.minimum.outer(np.minimum(rows, 1 - rows), np.minimum(columns, 1 - columns)) > 1e-3
    agreement = result["segmentation_masks"] == expected["segmentation_masks"].numpy()
    assert np.all(agreement[clear])


def test_flips_are_those_of_the_resized_picture():
    example = _painted()
    plain = data.resize_labelled(example, SHAPE[:2])
    augment = _in_graph(data.SegmentationAugmentation(SHAPE, vertical_flip=True))
    found = set()
    for seed in range(20):
        result = augment(example, (seed, 0))
        flips = [
            axes
            for axes in ((), (0,), (1,), (0, 1))
            if all(np.array_equal(result[n], np.flip(plain[n].numpy(), axes)) for n in plain)
        ]
        assert len(flips) == 1
        found.add(flips[0])
    assert found == {(), (0,), (1,), (0, 1)}


def test_crops_are_windows_of_the_picture():
    example = _painted((100, 120))
    example["images"] = np.random.default_rng(0).integers(0, 256, (100, 120, 3), np.uint8)
    augment = _in_graph(data.SegmentationAugmentation(SHAPE, flip=False, crops=True))
    windows = np.lib.stride_tricks.sliding_window_view(example["images"], SHAPE)[:, :, 0]
    origins = []
    for seed in range(60):
        result = augment(example, (seed, 0))
        origin = np.argwhere(
            np.all(windows[:, :, ::21, ::21] == result["images"][::21, ::21], (2, 3, 4))
        )
        ((top, left),) = origin
        np.testing.assert_array_equal(result["images"], windows[top, left])
        labels = example["segmentation_masks"][top : top + 64, left : left + 80]
        np.testing.assert_array_equal(result["segmentation_masks"], labels)
        origins.append((top, left))
    origins = np.array(origins)
    assert np.all(origins.min(0) <= 5) and np.all(origins.max(0) >= [31, 35])


def test_beyond_the_picture_is_its_mirror_image():
    """The window is 9 x 3 times as large: the edge is not repeated, and mirrors see mirrors."""
    labels = np.array([[0, 1, 2], [3, 4, 5]], np.int32)
    image = np.repeat(30 * labels[..., None], 3, -1).astype(np.uint8)
    augment = _in_graph(data.SegmentationAugmentation((3, 9, 3), flip=False, crops=True))
    tops, lefts = set(), set()
    for seed in range(60):
        example = {"images": image, "segmentation_masks": labels}
        result = augment(example, (seed, 0))
        np.testing.assert_array_equal(result["images"][..., 0], 30 * result["segmentation_masks"])
        matches = []
        for top in range(2):
            for left in range(7):
                rows = np.pad(np.arange(2), (top, 1 - top), "reflect")
                columns = np.pad(np.arange(3), (left, 6 - left), "reflect")
                if np.array_equal(result["segmentation_masks"], labels[np.ix_(rows, columns)]):
                    matches.append((top, left % 4))
        assert matches
        tops.add(matches[0][0])
        lefts.add(matches[0][1])
    assert tops == {0, 1} and lefts == {0, 1, 2, 3}


def test_mirror_of_one_pixel():
    places = np.array([[[-3.5, 0.0, 7.2]], [[-1.0, 0.5, 2.25]]], np.float32)
    mirrored = warping.mirror(places, (1, 2)).numpy()
    np.testing.assert_array_equal(mirrored, [[[0, 0, 0]], [[1, 0.5, 0.25]]])
    image = np.random.default_rng(0).integers(0, 256, (1, 1, 3), np.uint8)
    example = {"images": image, "segmentation_masks": np.array([[2]], np.int32)}
    changes = data.SegmentationAugmentation(SHAPE, crops=True, rotation=90.0, elastic=9.0)
    augment = _in_graph(changes)
    result = augment(example, (0, 0))
    np.testing.assert_array_equal(result["images"], np.broadcast_to(image, SHAPE))
    np.testing.assert_array_equal(result["segmentation_masks"], np.full(SHAPE[:2], 2))


def test_bilinear_equals_the_slow_one():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (7, 5, 3), np.uint8)
    places = rng.uniform(0, 1, (2, 4, 6)).astype(np.float32) * np.float32([6, 4])[:, None, None]
    places[:, 0, 0], places[:, 0, 1] = (6, 4), (0, 0)
    sampled = warping.sample_bilinear(tf.constant(image), tf.constant(places)).numpy()
    for row, column in np.ndindex(4, 6):
        y, x = places[:, row, column].astype(float)
        total = np.zeros(3)
        for i, j in np.ndindex(7, 5):
            total += image[i, j] * max(0, 1 - abs(y - i)) * max(0, 1 - abs(x - j))
        np.testing.assert_allclose(sampled[row, column], total, atol=1e-3)


def test_rotation_turns_about_the_middle():
    """By up to 90 degrees, found back from where the moments of a bar point."""
    labels = np.zeros((101, 101), np.int32)
    labels[49:52, 20:81] = 1
    image = np.repeat(200 * labels[..., None], 3, -1).astype(np.uint8)
    example = {"images": image, "segmentation_masks": labels}
    augment = _in_graph(data.SegmentationAugmentation((101, 101, 3), flip=False, rotation=80.0))
    angles = []
    for seed in range(40):
        rows, columns = np.nonzero(augment(example, (seed, 0))["segmentation_masks"])
        assert abs(rows.mean() - 50) < 0.5 and abs(columns.mean() - 50) < 0.5
        assert 150 <= len(rows) <= 215
        covariance = np.cov(rows, columns)
        angle = np.arctan2(2 * covariance[0, 1], covariance[1, 1] - covariance[0, 0]) / 2
        angles.append(np.degrees(angle))
    assert -81 <= min(angles) < -50 and 50 < max(angles) <= 81


def test_scale_is_that_of_the_window():
    """The square of 20 x 20 has the size that the scale gives it, of 0.5 to 2."""
    labels = np.zeros((60, 60), np.int32)
    labels[20:40, 20:40] = 1
    image = np.repeat(100 * labels[..., None], 3, -1).astype(np.uint8)
    example = {"images": image, "segmentation_masks": labels}
    changes = {"flip": False, "min_scale": 0.5, "max_scale": 0.9}
    augment = _in_graph(data.SegmentationAugmentation((240, 240, 3), **changes))
    for seed in range(10):
        result = augment(example, (seed, 0))["segmentation_masks"]
        count, _, boxes, _ = cv2.connectedComponentsWithStats(result.astype(np.uint8))
        whole = [
            b
            for b in boxes[1:]
            if b[0] > 0 and b[1] > 0 and b[0] + b[2] < 240 and b[1] + b[3] < 240
        ]
        # 80 pixels in a window of scale 1.
        assert any(39 <= b[2] <= 73 and abs(b[2] - b[3]) <= 1 for b in whole)
    changes = {"flip": False, "min_scale": 2.0, "max_scale": 2.0}
    augment_closer = _in_graph(data.SegmentationAugmentation((60, 60, 3), **changes))
    shares = [augment_closer(example, (s, 0))["segmentation_masks"].mean() for s in range(20)]
    # A square of 40 x 40 in a window of 60 x 60 out of 120 x 120.
    assert max(shares) <= 1600 / 3600 + 1e-6 and max(shares) > 0.4


def test_displacements_have_the_deviation_asked_for():
    draws = [
        warping.elastic_displacements((60, 90), (seed, 0), 10.0).numpy() for seed in range(200)
    ]
    draws = np.stack(draws)
    assert draws.shape == (200, 2, 60, 90)
    # In the middles of the grid's cells it is that of the vectors, between them a little less.
    at_vectors = draws[:, :, [9, 10, 29, 30, 49, 50]][..., [14, 15, 44, 45, 74, 75]]
    assert 9.3 < at_vectors.std() < 10.5
    assert 8.0 < draws.std() < 10.5
    assert abs(draws.mean()) < 0.5
    # Smooth: the bicubic curve between vectors 20 and 30 pixels apart.
    assert np.abs(np.diff(draws, axis=2)).mean() < 1.0
    assert np.abs(np.diff(draws, axis=3)).mean() < 0.7
    finer = warping.elastic_displacements((60, 90), (0, 0), 10.0, 8).numpy()
    assert np.abs(np.diff(finer, axis=1)).mean() > 1.0


def test_color_changes_leave_the_labels():
    example = _painted()
    example["images"] = np.random.default_rng(0).integers(60, 160, (90, 70, 3), np.uint8)
    plain = data.resize_labelled(example, SHAPE[:2])
    augment = _in_graph(data.SegmentationAugmentation(SHAPE, flip=False, color=0.3))
    means, deviations, spreads = [], [], []
    for seed in range(40):
        result = augment(example, (seed, 0))
        np.testing.assert_array_equal(result["segmentation_masks"], plain["segmentation_masks"])
        assert result["images"].dtype == np.uint8
        pixels = result["images"].astype(float)
        grey = pixels @ [0.2989, 0.587, 0.114]
        means.append(grey.mean())
        deviations.append(grey.std() / grey.mean())
        spreads.append(pixels.std(-1).mean() / grey.std())
    pixels = plain["images"].numpy().astype(float)
    grey = pixels @ [0.2989, 0.587, 0.114]
    for found, expected in (
        (means, grey.mean()),
        (deviations, grey.std() / grey.mean()),
        (spreads, pixels.std(-1).mean() / grey.std()),
    ):
        factors = np.array(found) / expected
        assert 0.68 < factors.min() < 0.8 and 1.2 < factors.max() < 1.32


def test_the_seed_decides():
    augment = _in_graph(data.SegmentationAugmentation(SHAPE, **CHANGES["tiles"], color=0.3))
    example = _painted()
    first, again, other = (augment(example, (seed, 9)) for seed in (1, 1, 2))
    for name in first:
        np.testing.assert_array_equal(first[name], again[name], name)
    assert np.any(first["images"] != other["images"])


def test_a_large_picture_is_antialiased_where_it_shrinks():
    stripes = np.zeros((256, 320, 3), np.uint8)
    stripes[:, ::2] = 255
    example = {"images": stripes, "segmentation_masks": np.zeros((256, 320), np.int32)}
    for options in ({"rotation": 30.0}, {"crops": True, "min_scale": 0.25, "max_scale": 0.25}):
        augment = _in_graph(data.SegmentationAugmentation(SHAPE, **options))
        image = augment(example, (0, 0))["images"]
        assert np.abs(image[4:-4, 4:-4].astype(int) - 128).max() < 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_shape": (8, 8)}, r"image_shape must be .*; received: \(8, 8\)$"),
        ({"min_scale": 0.0}, "received: min_scale=0.0, max_scale=1.0$"),
        ({"min_scale": 1.5}, "not above max_scale; received: min_scale=1.5, max_scale=1.0$"),
        ({"rotation": -1.0}, r"rotation must be within \[0, 180\] degrees; received: -1.0$"),
        ({"elastic": -2.0}, "elastic must not be negative; received: -2.0$"),
        ({"elastic_grid": 1}, "elastic_grid must be at least 2; received: 1$"),
        ({"color": 1.5}, r"color must be within \[0, 1\]; received: 1.5$"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        data.SegmentationAugmentation(**{"image_shape": SHAPE, **options})
