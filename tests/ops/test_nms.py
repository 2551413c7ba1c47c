import numpy as np
import pytest
from keras import ops

from kerasvision.ops import nms


def reference(boxes, scores, iou_threshold, score_threshold, max_detections):
    """One class after the other, box after box; then the best of all classes."""
    found = []
    for label in range(scores.shape[1]):
        kept = []
        for i in np.argsort(-scores[:, label], kind="stable"):
            if scores[i, label] <= score_threshold:
                break
            if all(iou(boxes[i], boxes[k]) <= iou_threshold for k in kept):
                kept.append(i)
        found += [(scores[i, label], i, label) for i in kept]
    found.sort(key=lambda f: (-f[0], f[1] * scores.shape[1] + f[2]))
    return found[:max_detections]


def iou(p, q):
    height = max(0.0, min(p[2], q[2]) - max(p[0], q[0]))
    width = max(0.0, min(p[3], q[3]) - max(p[1], q[1]))
    union = (p[2] - p[0]) * (p[3] - p[1]) + (q[2] - q[0]) * (q[3] - q[1]) - height * width
    return height * width / union if union > 0 else 0.0


def clustered_boxes(rng, count):
    centers = rng.uniform(0.2, 0.8, (6, 2))[rng.integers(0, 6, count)]
    size = rng.uniform(0.1, 0.3, (count, 2))
    corner = centers + rng.normal(0, 0.02, (count, 2)) - size / 2
    return np.concatenate([corner, corner + size], -1).astype("f4")


@pytest.mark.parametrize("seed", range(4))
def test_equals_reference(compiled, seed):
    rng = np.random.default_rng(seed)
    boxes = np.stack([clustered_boxes(rng, 60) for _ in range(3)])
    scores = rng.uniform(0, 1, (3, 60, 4)).astype("f4")
    scores[1] = 0.0  # a picture without anything
    scores[2, 5:] = 0.0  # a picture with little
    found = compiled(nms.batched_non_max_suppression)(
        boxes, scores, iou_threshold=0.45, score_threshold=0.1, max_detections=25, candidates=240
    )
    found = {name: ops.convert_to_numpy(value) for name, value in found.items()}
    for b in range(3):
        expected = reference(boxes[b], scores[b], 0.45, 0.1, 25)
        count = len(expected)
        assert found["count"][b] == count
        np.testing.assert_array_equal(found["labels"][b, :count], [e[2] for e in expected])
        np.testing.assert_array_equal(found["scores"][b, :count], [e[0] for e in expected])
        if count:
            np.testing.assert_array_equal(
                found["boxes"][b, :count], boxes[b][[e[1] for e in expected]]
            )
        assert (found["labels"][b, count:] == -1).all()
        assert (found["scores"][b, count:] == 0).all()
        assert (found["boxes"][b, count:] == 0).all()


def test_chain_golden(compiled):
    # Each box overlaps the next: the first suppresses the second, which then can't suppress the
    # third, which suppresses the fourth.
    boxes = np.array([[[0, 0.3 * i, 1, 0.3 * i + 1] for i in range(4)]], "f4")
    scores = np.array([[[0.9], [0.8], [0.7], [0.6]]], "f4")
    found = compiled(nms.batched_non_max_suppression)(boxes, scores, iou_threshold=0.3)
    np.testing.assert_array_equal(found["count"], [2])
    np.testing.assert_allclose(found["scores"][0, :2], [0.9, 0.7])


def test_classes_do_not_suppress_each_other():
    boxes = np.array([[[0, 0, 1, 1], [0, 0, 1, 1]]], "f4")
    scores = np.array([[[0.9, 0.0], [0.0, 0.8]]], "f4")
    found = nms.batched_non_max_suppression(boxes, scores, score_threshold=0.1)
    np.testing.assert_array_equal(ops.convert_to_numpy(found["labels"])[0, :3], [0, 1, -1])


def test_one_class_equals_tensorflow():
    tf = pytest.importorskip("tensorflow")
    rng = np.random.default_rng(5)
    for _ in range(20):
        boxes = clustered_boxes(rng, 100)
        boxes[:3, 2:] = boxes[:3, :2]  # points
        scores = rng.integers(1, 20, 100).astype("f4") / 20  # many ties
        kept = tf.image.non_max_suppression(boxes, scores, 30, 0.5).numpy()
        found = nms.batched_non_max_suppression(
            boxes[None], scores[None, :, None], 0.5, max_detections=30
        )
        count = int(found["count"][0])
        np.testing.assert_array_equal(
            ops.convert_to_numpy(found["scores"])[0, :count], scores[kept]
        )
        np.testing.assert_array_equal(ops.convert_to_numpy(found["boxes"])[0, :count], boxes[kept])
