import numpy as np
import pytest
from keras import backend, ops

from kerasvision.ops import boxes as box_ops


def reference_iou(a, b):
    result = np.zeros((len(a), len(b)))
    for i, p in enumerate(a):
        for j, q in enumerate(b):
            if min(p[2] - p[0], p[3] - p[1], q[2] - q[0], q[3] - q[1]) <= 0:
                continue
            height = max(0.0, min(p[2], q[2]) - max(p[0], q[0]))
            width = max(0.0, min(p[3], q[3]) - max(p[1], q[1]))
            areas = (p[2] - p[0]) * (p[3] - p[1]) + (q[2] - q[0]) * (q[3] - q[1])
            result[i, j] = height * width / (areas - height * width)
    return result


def random_boxes(rng, *shape):
    corner = rng.uniform(-0.2, 0.9, (*shape, 2))
    return np.concatenate([corner, corner + rng.uniform(0.01, 0.6, (*shape, 2))], -1).astype("f4")


def test_iou_golden(compiled):
    # 2x2 cells; the second box covers the right half, the third a quarter, the fourth is apart.
    boxes = np.array([[0, 0, 2, 2], [0, 1, 2, 2], [1, 1, 2, 2], [2, 2, 3, 3]], dtype="float32")
    np.testing.assert_allclose(
        ops.convert_to_numpy(compiled(box_ops.iou)(boxes, boxes)),
        [[1, 0.5, 0.25, 0], [0.5, 1, 0.5, 0], [0.25, 0.5, 1, 0], [0, 0, 0, 1]],
        rtol=1e-6,
    )


def test_iou_equals_reference(compiled):
    rng = np.random.default_rng(0)
    a, b = random_boxes(rng, 3, 7), random_boxes(rng, 3, 5)
    a[0, 0] = [0.5, 0.5, 0.5, 0.7]  # without height
    b[1, 2] = [0.7, 0.2, 0.3, 0.4]  # inverted
    b[2, 1] = a[2, 3]
    expected = [reference_iou(p, q) for p, q in zip(a, b)]
    np.testing.assert_allclose(compiled(box_ops.iou)(a, b), expected, atol=1e-6)


def test_inverted_boxes_overlap_nothing():
    # Both sides inverted: the signed area is positive, the box is still none.
    inverted = np.array([[0.8, 0.8, 0.2, 0.2]], "float32")
    assert ops.convert_to_numpy(box_ops.iou(inverted, inverted)).item() == 0.0
    assert ops.convert_to_numpy(box_ops.area(inverted)).item() == 0.0


def test_iou_of_no_boxes():
    assert ops.convert_to_numpy(
        box_ops.iou(np.zeros((0, 4), "f4"), np.ones((3, 4), "f4"))
    ).shape == (
        0,
        3,
    )


def test_center_and_corner_form_are_inverse():
    boxes = random_boxes(np.random.default_rng(1), 50)
    center = ops.convert_to_numpy(box_ops.to_center_form(boxes))
    np.testing.assert_allclose(center[:, 2], boxes[:, 2] - boxes[:, 0], atol=1e-6)
    np.testing.assert_allclose(box_ops.to_corner_form(center), boxes, atol=1e-6)


def test_encode_golden():
    # Default box: centre (0.5, 0.5), 0.2 high, 0.4 wide. Box: centre (0.6, 0.5), twice as high.
    offsets = box_ops.encode([[0.4, 0.3, 0.8, 0.7]], np.array([[0.5, 0.5, 0.2, 0.4]], "f4"))
    np.testing.assert_allclose(
        ops.convert_to_numpy(offsets), [[0.1 / 0.2 / 0.1, 0.0, np.log(2) / 0.2, 0.0]], atol=1e-5
    )


def test_decode_inverts_encode(compiled):
    rng = np.random.default_rng(2)
    boxes, references = random_boxes(rng, 4, 30), random_boxes(rng, 4, 30)
    references = ops.convert_to_numpy(box_ops.to_center_form(references))
    offsets = compiled(box_ops.encode)(boxes, references)
    np.testing.assert_allclose(compiled(box_ops.decode)(offsets, references), boxes, atol=1e-5)


@pytest.mark.parametrize("box", [[0.3, 0.3, 0.3, 0.3], [0.6, 0.6, 0.2, 0.2], [-9, -9, 9, 9]])
def test_encode_is_finite_for_odd_boxes(box):
    offsets = box_ops.encode(np.array([box], "f4"), np.array([[0.5, 0.5, 0.1, 0.1]], "f4"))
    assert np.isfinite(ops.convert_to_numpy(offsets)).all()


def test_decode_is_finite_for_wild_offsets():
    boxes = box_ops.decode(np.full((1, 4), 1e4, "f4"), np.array([[0.5, 0.5, 0.1, 0.1]], "f4"))
    assert np.isfinite(ops.convert_to_numpy(boxes)).all()


def test_clip():
    np.testing.assert_array_equal(
        box_ops.clip(np.array([[-0.5, 0.25, 1.5, 0.75]], "f4")), [[0, 0.25, 1, 0.75]]
    )


def test_iou_equals_keras_cv():
    if backend.backend() != "tensorflow":
        pytest.skip("keras-cv runs on TensorFlow here")
    keras_cv = pytest.importorskip("keras_cv")
    rng = np.random.default_rng(3)
    a, b = random_boxes(rng, 40), random_boxes(rng, 30)
    expected = keras_cv.bounding_box.compute_iou(a, b, "yxyx")
    np.testing.assert_allclose(box_ops.iou(a, b), expected, atol=1e-5)
