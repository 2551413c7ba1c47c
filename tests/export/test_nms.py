"""Suppression by LiteRT's kernel decides what the training path's operators decide."""

import keras
import numpy as np

from kerasvision.export import nms as export_nms
from kerasvision.ops import nms

SETTINGS = {"iou_threshold": 0.5, "score_threshold": 0.1, "max_detections": 12}
NUM_BOXES, NUM_CLASSES = 40, 5


def random_boxes(rng):
    corner = rng.uniform(0, 0.8, (1, NUM_BOXES, 2))
    size = rng.uniform(0.02, 0.5, (1, NUM_BOXES, 2))
    return np.concatenate([corner, np.minimum(corner + size, 1)], axis=-1).astype("float32")


def grid_boxes(rng):
    """Any two corners on a grid of eighths: duplicates, degenerate and inverted boxes, IoUs of
    exactly 1/2.
    """
    corners = rng.integers(0, 9, (1, NUM_BOXES, 2, 2)) / 8
    return corners.reshape(1, NUM_BOXES, 4).astype("float32")


def scores_of(rng, *shape):
    """Half of them distinct, half of them ties, some at the threshold exactly."""
    coarse = rng.choice(np.array([0.0, 0.1, 0.25, 0.5, 1.0], "float32"), shape)
    fine = rng.uniform(0, 1, shape).astype("float32")
    return np.where(rng.uniform(size=shape) < 0.5, coarse, fine)


def inputs_of(seed):
    rng = np.random.default_rng(seed)
    return rng, (grid_boxes if seed % 3 == 0 else random_boxes)(rng)


def assert_detections_equal(found, expected):
    assert set(found) == set(expected) == {"boxes", "scores", "labels", "count"}
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], keras.ops.convert_to_numpy(value), err_msg=name)


def test_batched(in_litert):
    def function(boxes, scores):
        return export_nms.batched_non_max_suppression(boxes, scores, candidates=100, **SETTINGS)

    rng = np.random.default_rng(0)
    litert_nms = in_litert(function, random_boxes(rng), scores_of(rng, 1, NUM_BOXES, NUM_CLASSES))
    for seed in range(240):
        rng, boxes = inputs_of(seed)
        scores = scores_of(rng, 1, NUM_BOXES, NUM_CLASSES)
        if seed % 40 == 0:
            scores *= np.float32(0.1)  # no box
        expected = nms.batched_non_max_suppression(boxes, scores, candidates=100, **SETTINGS)
        assert_detections_equal(litert_nms(boxes, scores), expected)


def test_labelled(in_litert):
    def function(boxes, scores, labels):
        return export_nms.labelled_non_max_suppression(boxes, scores, labels, **SETTINGS)

    def inputs(seed):
        rng, boxes = inputs_of(seed)
        # Some padding; the highest class is another one from time to time.
        labels = rng.integers(-1, 1 + seed % 17, (1, NUM_BOXES)).astype("int32")
        return boxes, scores_of(rng, 1, NUM_BOXES) * np.float32(seed % 40 > 0), labels

    litert_nms = in_litert(function, *inputs(0))
    for seed in range(240):
        expected = nms.labelled_non_max_suppression(*inputs(seed), **SETTINGS)
        assert_detections_equal(litert_nms(*inputs(seed)), expected)


def test_boxes_that_a_kernel_trips_over(in_litert):
    """Without area, LiteRT's own kernel picks a box until the detections are full."""
    boxes = np.array(
        [
            [0.2, 0.2, 0.2, 0.9],  # no height
            [0.2, 0.2, 0.2, 0.9],
            [0.5, 0.5, 0.5, 0.5],  # a point
            [0.1, 0.1, 0.4, 0.4],
            [0.1, 0.1, 0.4, 0.4],  # the same again: goes
            [np.nan, 0.1, 0.4, 0.4],  # not finite: goes
            [0.1, 0.1, np.inf, 0.4],
        ],
        "float32",
    )[None]
    scores = np.linspace(0.9, 0.3, 7, dtype="float32").reshape(1, 7, 1)

    def function(boxes, scores):
        return export_nms.batched_non_max_suppression(boxes, scores, max_detections=6)

    found = in_litert(function, boxes, scores)(boxes, scores)
    assert found["count"] == [4]
    np.testing.assert_array_equal(found["boxes"][0, :4], boxes[0, :4])
    np.testing.assert_array_equal(found["labels"][0], [0, 0, 0, 0, -1, -1])
    expected = nms.batched_non_max_suppression(boxes, scores, max_detections=6)
    assert_detections_equal(found, expected)


def test_threshold_of_one_keeps_duplicates(in_litert):
    boxes = np.tile(np.array([0.1, 0.1, 0.4, 0.4], "float32"), (1, 3, 1))
    scores = np.array([[[0.3], [0.9], [0.5]]], "float32")

    def function(boxes, scores):
        return export_nms.batched_non_max_suppression(
            boxes, scores, iou_threshold=1.0, max_detections=3
        )

    found = in_litert(function, boxes, scores)(boxes, scores)
    np.testing.assert_array_equal(found["scores"], np.array([[0.9, 0.5, 0.3]], "float32"))
