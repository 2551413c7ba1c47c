import cv2
import numpy as np
import pytest

from kerasvision.detection.proposals import (
    cluster_boxes,
    padded,
    selective_search,
    sliding_windows,
)


def picture_of_squares():
    """A blue and a yellow square on grey, at [0.125, 0.25, 0.5, 0.625] and [0.5, 0.75, 1, 1]."""
    image = np.random.default_rng(0).integers(90, 100, (64, 64, 3)).astype("uint8")
    image[8:32, 16:40] = (20, 30, 220)
    image[32:64, 48:64] = (230, 220, 10)
    return image


def iou(a, b):
    height = min(a[2], b[2]) - max(a[0], b[0])
    width = min(a[3], b[3]) - max(a[1], b[1])
    if height <= 0 or width <= 0:
        return 0.0
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return height * width / (area - height * width)


def test_selective_search_finds_the_squares():
    boxes = selective_search(picture_of_squares())
    assert boxes.dtype == np.float32 and boxes.shape[1] == 4
    assert (boxes >= 0).all() and (boxes <= 1).all() and (boxes[:, 2:] > boxes[:, :2]).all()
    for square in ([0.125, 0.25, 0.5, 0.625], [0.5, 0.75, 1.0, 1.0]):
        assert max(iou(box, square) for box in boxes) > 0.9
    # All of it, once merged.
    assert max(iou(box, [0, 0, 1, 1]) for box in boxes) == 1


def test_selective_search_is_reproducible():
    image = cv2.resize(picture_of_squares(), (90, 70), interpolation=cv2.INTER_CUBIC)
    first = selective_search(image)
    for _ in range(3):
        np.testing.assert_array_equal(selective_search(image), first)
    assert len(np.unique(first, axis=0)) == len(first)
    np.testing.assert_array_equal(selective_search(image, max_proposals=3), first[:3])
    other = selective_search(image, seed=1)
    assert (other != first).any()
    np.testing.assert_array_equal(np.unique(other, axis=0), np.unique(first, axis=0))


def test_selective_search_of_few_pixels_and_no_picture():
    assert selective_search(np.zeros((1, 5, 3), "uint8")).shape == (0, 4)
    assert selective_search(np.zeros((2, 2, 3), "uint8")).shape[1] == 4
    with pytest.raises(ValueError, match=r"image must be .* uint8; received: \(4, 4, 3\), float64"):
        selective_search(np.zeros((4, 4, 3)))
    with pytest.raises(ValueError, match="mode must be single, fast, quality; received: 'slow'"):
        selective_search(np.zeros((4, 4, 3), "uint8"), "slow")


def test_windows_equal_reference():
    """Loop by loop: sizes, even steps, borders."""
    expected = []
    for scale in (0.4, 0.8):
        for ratio in (0.5, 1.0, 2.0):
            height, width = scale * ratio**0.5, scale / ratio**0.5
            if height > 1 or width > 1:
                continue
            rows = int(np.ceil((1 - height) / (0.5 * height))) + 1
            columns = int(np.ceil((1 - width) / (0.5 * width))) + 1
            for i in range(rows):
                for j in range(columns):
                    top = (1 - height) * i / max(rows - 1, 1)
                    left = (1 - width) * j / max(columns - 1, 1)
                    expected.append([top, left, top + height, left + width])
    found = sliding_windows((0.4, 0.8), step=0.5)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert len(sliding_windows()) == 1418


def test_window_settings_are_checked():
    with pytest.raises(ValueError, match="must be above 0"):
        sliding_windows((0.0, 0.5))
    with pytest.raises(ValueError, match="must give a window inside the picture"):
        sliding_windows((2.0,))
    np.testing.assert_array_equal(sliding_windows((1.0,), (1.0,)), [[0, 0, 1, 1]])


def test_clusters_are_the_means_of_groups():
    rng = np.random.default_rng(0)
    large, small = np.array([0.1, 0.1, 0.9, 0.8]), np.array([0.6, 0.2, 0.8, 0.4])
    boxes = np.concatenate(
        [large + rng.normal(0, 0.01, (30, 4)), small + rng.normal(0, 0.01, (20, 4))]
    )
    found = cluster_boxes(boxes, 2)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [boxes[:30].mean(0), boxes[30:].mean(0)], atol=1e-6)


def test_clusters_equal_lloyds_algorithm():
    """At the end of a k-means every centre is the mean of the boxes that are nearest to it."""
    corner = np.random.default_rng(1).uniform(0, 0.5, (60, 2))
    boxes = np.concatenate([corner, corner + 0.3], axis=1)
    found = cluster_boxes(boxes, 5, seed=3)
    groups = [[] for _ in found]
    for box in boxes:
        distances = [sum((a - b) ** 2 for a, b in zip(box, centre)) for centre in found]
        groups[int(np.argmin(distances))].append(box)
    np.testing.assert_allclose(found, [np.mean(group, axis=0) for group in groups], atol=1e-5)
    np.testing.assert_array_equal(found, cluster_boxes(boxes, 5, seed=3))


def test_clusters_must_be_fewer_than_boxes():
    with pytest.raises(ValueError, match="number must be 1 to 2, .* received: 3"):
        cluster_boxes([[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0.5, 1]], 3)


def test_padding():
    np.testing.assert_array_equal(padded(np.ones((1, 4)), 2), [[1] * 4, [0] * 4])
    np.testing.assert_array_equal(padded(np.ones((3, 4)), 2), np.ones((2, 4)))
    np.testing.assert_array_equal(padded(np.zeros((0, 4)), 1), np.zeros((1, 4)))
