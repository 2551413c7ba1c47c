import functools
import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from keras import ops

from kerasvision.ops import boxes as box_ops

MEASURES = ["iou", "giou", "diou", "ciou"]
NAN, INF = math.nan, math.inf
ADVERSARIAL = np.array(
    [
        [0.2, 0.2, 0.6, 0.8],
        [0.2, 0.2, 0.6, 0.8],  # the same again
        [0.3, 0.3, 0.5, 0.6],  # inside
        [0.2, 0.8, 0.6, 1.0],  # touches a side
        [0.6, 0.8, 0.9, 0.9],  # touches a corner
        [0.7, 0.1, 0.9, 0.15],  # apart
        [0.0, 0.0, 1.0, 1.0],
        [-3.0, -2.0, 4.0, 5.0],  # around the picture
        [0.4, 0.4, 0.4, 0.4],  # a point, inside
        [0.9, 0.9, 0.9, 0.9],  # a point, outside
        [0.0, 0.0, 0.0, 0.0],
        [0.3, 0.2, 0.3, 0.8],  # without height
        [0.2, 0.4, 0.6, 0.4],  # without width
        [0.6, 0.2, 0.2, 0.8],  # top and bottom inverted
        [0.2, 0.8, 0.6, 0.2],  # left and right inverted
        [0.6, 0.8, 0.2, 0.2],  # both inverted
        [0.95, 0.9, 0.3, 0.1],
        [0.5, 0.5, 0.5000001, 0.5000001],
        [0.0, 0.0, 1e-6, 1e-6],
        [0.0, 0.0, 1e-12, 1e-12],
        [0.0, 0.0, 1e-30, 1e-30],
        [0.0, 0.0, 1e-12, 1.0],  # a hair
        [-1e8, -1e8, 1e8, 1e8],
        [0.0, 0.0, 1e20, 1e20],
        [-3e38, -3e38, 3e38, 3e38],
        [-INF, -INF, INF, INF],
        [0.2, 0.2, INF, 0.8],
        [INF, INF, INF, INF],
        [NAN, 0.2, 0.6, 0.8],
        [NAN, NAN, NAN, NAN],
    ],
    "float32",
)


# --- References --------------------------------------------------------------------------


def reference_measures(p, q):
    """IoU, GIoU, DIoU, CIoU and alpha of two boxes, in float64."""
    p, q = ([float(x) for x in box] for box in (p, q))
    p, q = (box if all(abs(x) <= 1e9 for x in box) else [0.0] * 4 for box in (p, q))

    def box_area(ymin, xmin, ymax, xmax):
        return max(ymax - ymin, 0.0) * max(xmax - xmin, 0.0)

    def quotient(part, whole):
        return part / whole if whole > 1e-18 else 0.0

    low = [max(p[0], q[0]), max(p[1], q[1])]
    high = [min(p[2], q[2]), min(p[3], q[3])]
    intersection = box_area(*low, *high)
    union = box_area(*p) + box_area(*q) - intersection
    iou = quotient(intersection, union)

    height = max(p[0], p[2], q[0], q[2]) - min(p[0], p[2], q[0], q[2])
    width = max(p[1], p[3], q[1], q[3]) - min(p[1], p[3], q[1], q[3])
    giou = iou - quotient(height * width - union, height * width)

    dy, dx = (p[0] + p[2] - q[0] - q[2]) / 2, (p[1] + p[3] - q[1] - q[3]) / 2
    diou = iou - quotient(dy**2 + dx**2, height**2 + width**2)

    angles = [math.atan(max(b[3] - b[1], 1e-9) / max(b[2] - b[0], 1e-9)) for b in (p, q)]
    v = 4 / math.pi**2 * (angles[0] - angles[1]) ** 2
    alpha = quotient(v, 1 - iou + v)
    return {"iou": iou, "giou": giou, "diou": diou, "ciou": diou - alpha * v, "v": v, "a": alpha}


def reference(measure, boxes_1, boxes_2):
    return np.array([[reference_measures(p, q)[measure] for q in boxes_2] for p in boxes_1])


def random_boxes(rng, *shape):
    corner = rng.uniform(-0.2, 0.9, (*shape, 2))
    return np.concatenate([corner, corner + rng.uniform(0.01, 0.6, (*shape, 2))], -1).astype("f4")


def gradient(function):
    """The gradients of a function of two tensors whose value is a number."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.grad(function, (0, 1))
    import tensorflow as tf

    def tape_gradient(*tensors):
        tensors = [tf.convert_to_tensor(x) for x in tensors]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            value = function(*tensors)
        return tape.gradient(value, tensors)

    return tape_gradient


# --- Areas and overlaps ------------------------------------------------------------------

COORDINATES = st.one_of(
    st.floats(-1, 2, width=32),
    st.floats(0, 1, width=32),
    st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]),
)
ODD = st.sampled_from([NAN, INF, -INF, 0.0, 0.5, 1.0, 1e-12, -1e8, 1e8, 1e20, 3e38, -3e38])


@pytest.mark.parametrize("measure", MEASURES)
def test_equals_reference(compiled, measure):
    pairwise = compiled(getattr(box_ops, measure))
    single = compiled(functools.partial(getattr(box_ops, measure), pairwise=False))

    def check(boxes_1, boxes_2):
        """(B, 6, 4) and (B, 5, 4)."""
        expected = np.stack([reference(measure, *sets) for sets in zip(boxes_1, boxes_2)])
        found = ops.convert_to_numpy(pairwise(boxes_1, boxes_2))
        np.testing.assert_allclose(found, expected, atol=1e-5)
        found = ops.convert_to_numpy(single(boxes_1[:, :5], boxes_2))
        np.testing.assert_allclose(found, expected[:, range(5), range(5)], atol=1e-5)

    @settings(max_examples=15, deadline=None, derandomize=True)
    @given(seed=st.integers(0, 10**6))
    def check_random(seed):
        rng = np.random.default_rng(seed)
        check(random_boxes(rng, 2, 6), random_boxes(rng, 2, 5))

    @settings(max_examples=15, deadline=None, derandomize=True)
    @given(
        arrays("float32", (2, 6, 4), elements=COORDINATES),
        arrays("float32", (2, 5, 4), elements=st.one_of(COORDINATES, ODD)),
    )
    def check_drawn(boxes_1, boxes_2):
        check(boxes_1, boxes_2)

    check_random()
    check_drawn()
    expected = reference(measure, ADVERSARIAL, ADVERSARIAL)
    found = ops.convert_to_numpy(pairwise(ADVERSARIAL, ADVERSARIAL))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.dtype == np.float32


def test_area_equals_reference(compiled):
    areas = compiled(box_ops.area)

    def check(boxes):
        expected = [
            max(ymax - ymin, 0.0) * max(xmax - xmin, 0.0)
            for ymin, xmin, ymax, xmax in boxes.astype("float64")
        ]
        np.testing.assert_allclose(areas(boxes), expected, rtol=1e-6, atol=1e-35)

    @settings(max_examples=30, deadline=None, derandomize=True)
    @given(arrays("float32", (10, 4), elements=COORDINATES))
    def check_drawn(boxes):
        check(boxes)

    check_drawn()
    check(ADVERSARIAL[:23])


def test_golden(compiled):
    # A square of 2x2 cells; its right half; a square of 2x2 one row below and two columns on.
    #   a b . .        a: [0, 0, 2, 2]   b: [0, 1, 2, 2]   c: [1, 2, 3, 4]
    #   a b c c
    #   . . c c
    a, b, c = np.array([[0, 0, 2, 2], [0, 1, 2, 2], [1, 2, 3, 4]], "float32")[:, None]
    single = {
        name: compiled(functools.partial(getattr(box_ops, name), pairwise=False))
        for name in MEASURES
    }
    # a and b: half in common, centres half a cell apart, the hull is a of diagonal sqrt(8).
    v = 4 / math.pi**2 * (math.pi / 4 - math.atan(0.5)) ** 2
    expected = {"iou": 0.5, "giou": 0.5, "diou": 0.5 - 0.25 / 8}
    expected["ciou"] = expected["diou"] - v**2 / (0.5 + v)
    for name in MEASURES:
        np.testing.assert_allclose(single[name](a, b), [expected[name]], rtol=1e-6)
    # a and c: nothing in common, a hull of 3x4 of which 8 cells are covered, of diagonal 5.
    for name, value in {"iou": 0, "giou": -4 / 12, "diou": -5 / 25, "ciou": -5 / 25}.items():
        np.testing.assert_allclose(single[name](a, c), [value], rtol=1e-6)
    for name in MEASURES:
        np.testing.assert_array_equal(single[name](c, c), [1.0])
    np.testing.assert_array_equal(compiled(box_ops.area)(np.stack([a, b, c])), [[4], [2], [4]])


@pytest.mark.parametrize("measure", MEASURES)
def test_gradients_are_those_of_the_reference(compiled, measure):
    rng = np.random.default_rng(0)
    boxes_1, boxes_2 = random_boxes(rng, 40), random_boxes(rng, 40)
    boxes_2[:10, :2], boxes_2[:10, 2:] = boxes_1[:10, :2] + 0.05, boxes_1[:10, 2:] + 0.07
    weights = rng.normal(size=40)
    overlaps = reference("iou", boxes_1, boxes_2).diagonal()
    assert (overlaps > 0).sum() > 10 and (overlaps == 0).sum() > 10
    measured = getattr(box_ops, measure)
    found = compiled(
        gradient(lambda a, b: ops.sum(measured(a, b, pairwise=False) * weights.astype("f4")))
    )(boxes_1, boxes_2)
    for side in (0, 1):
        expected = np.zeros((40, 4))
        for i, place in np.ndindex(40, 4):
            alpha, values = reference_measures(boxes_1[i], boxes_2[i])["a"], []
            for step in (1e-6, -1e-6):
                pair = [boxes_1[i].astype("float64"), boxes_2[i].astype("float64")]
                pair[side][place] += step
                result = reference_measures(*pair)
                # CIoU's alpha is a constant.
                result["ciou"] = result["diou"] - alpha * result["v"]
                values.append(result[measure])
            expected[i, place] = weights[i] * (values[0] - values[1]) / 2e-6
        np.testing.assert_allclose(
            ops.convert_to_numpy(found[side]), expected, rtol=1e-3, atol=1e-3
        )


@pytest.mark.parametrize("measure", MEASURES)
def test_gradients_are_finite_everywhere(compiled, measure):
    measured = getattr(box_ops, measure)
    # Each pair by itself: in a sum one gradient could hide another.
    boxes_1 = np.repeat(ADVERSARIAL, len(ADVERSARIAL), axis=0)
    boxes_2 = np.tile(ADVERSARIAL, (len(ADVERSARIAL), 1))
    found = compiled(gradient(lambda a, b: ops.sum(measured(a, b, pairwise=False))))(
        boxes_1, boxes_2
    )
    for slopes, boxes in zip(found, (boxes_1, boxes_2)):
        slopes = ops.convert_to_numpy(slopes)
        assert np.isfinite(slopes).all()
        assert (slopes[~np.isfinite(boxes).all(1)] == 0).all()


def test_ious_of_no_boxes(compiled):
    none, three = np.zeros((0, 4), "f4"), np.ones((3, 4), "f4")
    assert tuple(compiled(box_ops.iou)(none, three).shape) == (0, 3)
    assert tuple(compiled(box_ops.ciou)(three, none).shape) == (3, 0)


def test_iou_broadcasts_and_takes_lists():
    boxes = random_boxes(np.random.default_rng(0), 3, 4)
    found = ops.convert_to_numpy(box_ops.iou(boxes, [[0.0, 0.0, 1.0, 1.0]]))
    expected = [reference("iou", b, np.array([[0, 0, 1, 1]])) for b in boxes]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert float(box_ops.giou([0, 0, 1, 1], [0, 0, 1, 2], pairwise=False)) == 0.5


def test_half_precision_is_computed_in_float32():
    # As a float16 an area of 300 x 300 is infinite.
    boxes = ops.cast([[0.0, 0.0, 300.0, 300.0]], "float16")
    assert ops.convert_to_numpy(box_ops.iou(boxes, boxes)).tolist() == [[1.0]]
    assert ops.convert_to_numpy(box_ops.area(boxes)).tolist() == [9e4]


def test_iou_equals_keras_cv():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("keras-cv runs on TensorFlow here")
    keras_cv = pytest.importorskip("keras_cv")
    rng = np.random.default_rng(3)
    a, b = random_boxes(rng, 40), random_boxes(rng, 30)
    expected = keras_cv.bounding_box.compute_iou(a, b, "yxyx")
    np.testing.assert_allclose(box_ops.iou(a, b), expected, atol=1e-5)


def test_ciou_equals_keras():
    rng = np.random.default_rng(4)
    a, b = random_boxes(rng, 200), random_boxes(rng, 200)
    expected = keras.utils.bounding_boxes.compute_ciou(a, b, "yxyx")
    found = box_ops.ciou(a, b, pairwise=False)
    # Keras adds 1e-7 to each denominator, and to one side in the hull.
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_clip_equals_reference(compiled):
    clip = compiled(box_ops.clip)

    def check(boxes):
        expected = [[min(max(float(x), 0.0), 1.0) for x in box] for box in boxes]
        # Numbers that float32 holds with few bits only may become 0.
        np.testing.assert_allclose(clip(boxes), expected, rtol=1e-7, atol=1e-37)

    @settings(max_examples=30, deadline=None, derandomize=True)
    @given(arrays("float32", (10, 4), elements=st.floats(-2, 3, width=32)))
    def check_drawn(boxes):
        check(boxes)

    check_drawn()
    check(ADVERSARIAL[:28])


# --- Conversions -------------------------------------------------------------------------


def test_center_form_golden(compiled):
    corner, center = [[0.25, 0.5, 0.75, 1.5]], [[0.5, 1.0, 0.5, 1.0]]
    np.testing.assert_array_equal(compiled(box_ops.to_center_form)(np.array(corner)), center)
    np.testing.assert_array_equal(compiled(box_ops.to_corner_form)(np.array(center)), corner)


def test_center_form_equals_reference_and_inverts(compiled):
    to_center, to_corner = compiled(box_ops.to_center_form), compiled(box_ops.to_corner_form)

    def check(boxes):
        ymin, xmin, ymax, xmax = boxes.astype("float64").T
        expected = np.stack([(ymin + ymax) / 2, (xmin + xmax) / 2, ymax - ymin, xmax - xmin], 1)
        center = ops.convert_to_numpy(to_center(boxes))
        np.testing.assert_allclose(center, expected, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(to_corner(center), boxes, rtol=1e-6, atol=1e-6)

    @settings(max_examples=30, deadline=None, derandomize=True)
    @given(arrays("float32", (10, 4), elements=COORDINATES))
    def check_drawn(boxes):
        check(boxes)

    check_drawn()
    check(ADVERSARIAL[:24])


@pytest.mark.parametrize("box_format", ["yxyx", "xyxy", "xywh", "rel_xyxy", "center_yxhw"])
def test_keras_converts_our_boxes(compiled, box_format):
    convert = functools.partial(keras.utils.bounding_boxes.convert_format, height=50, width=200)
    boxes = np.array([[[0.1, 0.2, 0.5, 0.6]], [[0.0, 0.0, 1.0, 1.0]]], "float32")
    expected = {
        "yxyx": [[[5, 40, 25, 120]], [[0, 0, 50, 200]]],
        "xyxy": [[[40, 5, 120, 25]], [[0, 0, 200, 50]]],
        "xywh": [[[40, 5, 80, 20]], [[0, 0, 200, 50]]],
        "rel_xyxy": [[[0.2, 0.1, 0.6, 0.5]], [[0, 0, 1, 1]]],
        "center_yxhw": [[[15, 80, 20, 80]], [[25, 100, 50, 200]]],
    }[box_format]
    found = compiled(lambda boxes: convert(boxes, "rel_yxyx", box_format))(boxes)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    back = compiled(lambda boxes: convert(boxes, box_format, "rel_yxyx"))(found)
    np.testing.assert_allclose(back, boxes, rtol=1e-6)


# --- Offsets -----------------------------------------------------------------------------


def reference_encode(boxes, references, variances):
    offsets = []
    for box, (d_cy, d_cx, d_h, d_w) in zip(boxes.astype("f8"), references.astype("f8")):
        ymin, xmin, ymax, xmax = box
        offsets.append(
            [
                ((ymin + ymax) / 2 - d_cy) / d_h / variances[0],
                ((xmin + xmax) / 2 - d_cx) / d_w / variances[0],
                math.log(max(ymax - ymin, 1e-6) / d_h) / variances[1],
                math.log(max(xmax - xmin, 1e-6) / d_w) / variances[1],
            ]
        )
    return np.array(offsets)


def reference_encode_yolo(boxes, references, cell_size):
    offsets = []
    for box, (p_cy, p_cx, p_h, p_w) in zip(boxes.astype("f8"), references.astype("f8")):
        ymin, xmin, ymax, xmax = box
        row, column = p_cy / cell_size[0] - 0.5, p_cx / cell_size[1] - 0.5
        shares = (ymin + ymax) / 2 / cell_size[0] - row, (xmin + xmax) / 2 / cell_size[1] - column
        shares = [min(max(share, 1e-6), 1 - 1e-6) for share in shares]
        offsets.append(
            [
                *(-math.log(1 / share - 1) for share in shares),
                math.log(max(ymax - ymin, 1e-6) / p_h),
                math.log(max(xmax - xmin, 1e-6) / p_w),
            ]
        )
    return np.array(offsets)


def test_encode_golden(compiled):
    # A reference of 0.2 x 0.4 at the centre; the box is shifted by half its height and doubled.
    box, reference_box = [[0.4, 0.3, 0.8, 0.7]], np.array([[0.5, 0.5, 0.2, 0.4]], "f4")
    offsets = compiled(box_ops.encode)(np.array(box, "f4"), reference_box)
    np.testing.assert_allclose(offsets, [[5, 0, math.log(2) / 0.2, 0]], atol=1e-5)
    offsets = compiled(box_ops.encode)(np.array(box, "f4"), reference_box, variances=(1, 1))
    np.testing.assert_allclose(offsets, [[0.5, 0, math.log(2), 0]], atol=1e-6)
    decoded = compiled(box_ops.decode)(np.zeros((1, 4), "f4"), reference_box)
    np.testing.assert_allclose(decoded, [[0.4, 0.3, 0.6, 0.7]], rtol=1e-6)


def test_yolo_golden(compiled):
    # The cell in row 1, column 2 of a map of 4 x 5, and a prior of 0.4 x 0.3.
    prior, cell_size = np.array([[0.375, 0.5, 0.4, 0.3]], "f4"), (0.25, 0.2)
    offsets = np.array([[0, math.log(3), 0, math.log(2)]], "f4")
    # The centre three quarters into the cell from its left border at 0.4; twice as wide.
    box = [[0.375 - 0.2, 0.55 - 0.3, 0.375 + 0.2, 0.55 + 0.3]]
    decode = compiled(functools.partial(box_ops.decode_yolo, cell_size=cell_size))
    encode = compiled(functools.partial(box_ops.encode_yolo, cell_size=cell_size))
    np.testing.assert_allclose(decode(offsets, prior), box, rtol=1e-6)
    np.testing.assert_allclose(encode(np.array(box, "f4"), prior), offsets, atol=1e-5)


@pytest.mark.parametrize("variances", [(0.1, 0.2), (1.0, 1.0)])
def test_encode_equals_reference_and_inverts(compiled, variances):
    encode = compiled(functools.partial(box_ops.encode, variances=variances))
    decode = compiled(functools.partial(box_ops.decode, variances=variances))

    def check(boxes, references):
        offsets = ops.convert_to_numpy(encode(boxes, references))
        expected = reference_encode(boxes, references, variances)
        np.testing.assert_allclose(offsets, expected, rtol=1e-5, atol=1e-4)
        # Round-off of coordinates, and of the logarithm of at most 1000.
        size = np.abs(boxes).max() + np.abs(references).max()
        np.testing.assert_allclose(decode(offsets, references), boxes, atol=2e-6 * size)

    @settings(max_examples=30, deadline=None, derandomize=True)
    @given(seed=st.integers(0, 10**6), size=st.sampled_from([1e-3, 0.1, 1.0, 30.0]))
    def check_random(seed, size):
        rng = np.random.default_rng(seed)
        references = np.concatenate(
            [rng.uniform(0, 1, (12, 2)), rng.uniform(0.01, 1, (12, 2))], axis=1
        )
        corner = rng.uniform(-0.2, 1, (12, 2))
        boxes = np.concatenate([corner, corner + size * rng.uniform(0.1, 1, (12, 2))], axis=1)
        check(boxes.astype("f4"), references.astype("f4"))

    check_random()


def test_encode_of_odd_boxes(compiled):
    """Degenerate, inverted, tiny and huge boxes, with references of all sizes."""
    boxes = np.repeat(ADVERSARIAL[:23], 4, axis=0)
    references = np.array(
        [[0.5, 0.5, 0.1, 0.1], [0, 0, 1, 1], [0.9, 0.1, 1e-3, 2.0], [0.5, 0.5, 3.0, 1e-3]], "f4"
    )
    references = np.tile(references, (23, 1))
    found = ops.convert_to_numpy(compiled(box_ops.encode)(boxes, references))
    expected = reference_encode(boxes, references, (0.1, 0.2))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-3)
    cell_size = (0.1, 0.25)
    found = compiled(functools.partial(box_ops.encode_yolo, cell_size=cell_size))(boxes, references)
    found = ops.convert_to_numpy(found)
    assert np.isfinite(found).all()
    expected = reference_encode_yolo(boxes, references, cell_size)
    # At the cell's border logits magnify the round-off; there they only have to be as large.
    inner = np.abs(expected) < 9
    np.testing.assert_allclose(found[inner], expected[inner], rtol=1e-4, atol=5e-3)
    assert (np.abs(found[:, :2][~inner[:, :2]]) > 8).all()


def test_decode_is_limited_for_wild_offsets(compiled):
    references = np.array([[0.5, 0.5, 0.1, 0.2]], "f4")
    wild = np.full((1, 4), 1e4, "f4")
    boxes = ops.convert_to_numpy(compiled(box_ops.decode)(wild, references))
    np.testing.assert_allclose(boxes[0, 2:] - boxes[0, :2], [100, 200], rtol=1e-3)
    decode_yolo = compiled(functools.partial(box_ops.decode_yolo, cell_size=(0.1, 0.1)))
    boxes = ops.convert_to_numpy(decode_yolo(wild, references))
    np.testing.assert_allclose(boxes, [[0.55 - 50, 0.55 - 100, 0.55 + 50, 0.55 + 100]], rtol=1e-5)
    boxes = ops.convert_to_numpy(decode_yolo(-wild, references))
    np.testing.assert_allclose(boxes, [[0.45, 0.45, 0.45, 0.45]], rtol=1e-6)


def test_decode_equals_reference(compiled):
    """Of offsets at random, none, large, and beyond the limit of the sizes."""
    rng = np.random.default_rng(0)
    odd = [[t, u, v, v] for t in (0, 1, -9, 40) for u in (0, -40) for v in (0, -99, 6.9, 7, 50)]
    offsets = np.concatenate([rng.normal(size=(240, 4)), odd])
    references = np.concatenate(
        [rng.uniform(0, 1, (280, 2)), rng.uniform(0.01, 1, (280, 2))], axis=1
    )
    offsets, references = offsets.astype("f4"), references.astype("f4")
    expected, expected_yolo = [], []
    for t, (cy, cx, height, width) in zip(offsets.astype("f8"), references.astype("f8")):
        h, w = (side * math.exp(min(x, math.log(1000))) for side, x in zip((height, width), t[2:]))
        y, x = cy + t[0] * height, cx + t[1] * width
        expected.append([y - h / 2, x - w / 2, y + h / 2, x + w / 2])
        y = cy - 0.1 / 2 + 0.1 / (1 + math.exp(-t[0]))
        x = cx - 0.2 / 2 + 0.2 / (1 + math.exp(-t[1]))
        expected_yolo.append([y - h / 2, x - w / 2, y + h / 2, x + w / 2])
    decode = compiled(functools.partial(box_ops.decode, variances=(1, 1)))
    decode_yolo = compiled(functools.partial(box_ops.decode_yolo, cell_size=(0.1, 0.2)))
    np.testing.assert_allclose(decode(offsets, references), expected, rtol=1e-5, atol=1e-5)
    found = decode_yolo(offsets, references)
    np.testing.assert_allclose(found, expected_yolo, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cells", [(13, 13), (3, 7), (80, 60)])
def test_yolo_equals_reference_and_inverts(compiled, cells):
    cell_size = (1 / cells[0], 1 / cells[1])
    encode = compiled(functools.partial(box_ops.encode_yolo, cell_size=cell_size))
    decode = compiled(functools.partial(box_ops.decode_yolo, cell_size=cell_size))

    @settings(max_examples=30, deadline=None, derandomize=True)
    @given(
        seed=st.integers(0, 10**6),
        shares=arrays(
            "float64",
            (12, 2),
            elements=st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1.0, 0.5, 1e-7, 1e-4])),
        ),
    )
    def check(seed, shares):
        rng = np.random.default_rng(seed)
        place = rng.integers(0, cells, (12, 2))
        priors = np.concatenate(
            [(place + 0.5) * cell_size, rng.uniform(0.02, 1, (12, 2))], axis=1
        ).astype("f4")
        center, size = (place + shares) * cell_size, rng.uniform(0.01, 2, (12, 2))
        boxes = np.concatenate([center - size / 2, center + size / 2], axis=1).astype("f4")
        offsets = ops.convert_to_numpy(encode(boxes, priors))
        expected = reference_encode_yolo(boxes, priors, cell_size)
        # Compared as places in the cell: near its border logits magnify the round-off.
        np.testing.assert_allclose(
            1 / (1 + np.exp(-offsets[:, :2].astype("f8"))),
            1 / (1 + np.exp(-expected[:, :2])),
            atol=1e-6 * max(cells),
        )
        np.testing.assert_allclose(offsets[:, 2:], expected[:, 2:], atol=1e-4)
        np.testing.assert_allclose(decode(offsets, priors), boxes, atol=4e-6)
        again = ops.convert_to_numpy(encode(ops.convert_to_numpy(decode(offsets, priors)), priors))
        inner = (np.minimum(shares, 1 - shares) > 0.05).all(1)
        np.testing.assert_allclose(again[inner], offsets[inner], atol=5e-3)

    check()


def test_yolo_cells_may_differ(compiled):
    priors = np.array([[0.25, 0.25, 0.3, 0.3], [0.125, 0.125, 0.1, 0.1]], "f4")
    cell_size = np.array([[0.5, 0.5], [0.25, 0.25]], "f4")
    offsets = np.full((2, 4), -20, "f4")
    boxes = ops.convert_to_numpy(compiled(box_ops.decode_yolo)(offsets, priors, cell_size))
    np.testing.assert_allclose(boxes, np.zeros((2, 4)), atol=1e-7)


def test_offsets_have_finite_gradients(compiled):
    boxes = np.repeat(ADVERSARIAL[:23], 2, axis=0)
    references = np.tile(np.array([[0.5, 0.5, 0.1, 0.1], [0.0, 0.0, 1.0, 1.0]], "f4"), (23, 1))
    encode_yolo = functools.partial(box_ops.encode_yolo, cell_size=(0.1, 0.1))
    decode_yolo = functools.partial(box_ops.decode_yolo, cell_size=(0.1, 0.1))
    for function in (box_ops.encode, box_ops.decode, encode_yolo, decode_yolo):
        slopes = compiled(gradient(lambda a, b: ops.sum(function(a, b))))(boxes, references)
        for slope in slopes:
            assert np.isfinite(ops.convert_to_numpy(slope)).all()


def test_gradients_of_offsets(compiled):
    rng = np.random.default_rng(0)
    boxes = random_boxes(rng, 20)
    references = ops.convert_to_numpy(box_ops.to_center_form(random_boxes(rng, 20)))
    weights = rng.normal(size=(20, 4))
    slopes = compiled(gradient(lambda a, b: ops.sum(box_ops.encode(a, b) * weights.astype("f4"))))
    found = [ops.convert_to_numpy(slope) for slope in slopes(boxes, references)]
    for side in (0, 1):
        expected = np.zeros((20, 4))
        for i, place in np.ndindex(20, 4):
            values = []
            for step in (1e-6, -1e-6):
                pair = [boxes.astype("f8"), references.astype("f8")]
                pair[side][i, place] += step
                values.append(np.sum(reference_encode(*pair, (0.1, 0.2)) * weights))
            expected[i, place] = (values[0] - values[1]) / 2e-6
        np.testing.assert_allclose(found[side], expected, rtol=1e-3, atol=1e-3)


# --- Smooth L1 ---------------------------------------------------------------------------


def test_smooth_l1_golden(compiled):
    found = compiled(box_ops.smooth_l1)(np.array([0.0, 0.5, -1.0, 3.0], "f4"))
    np.testing.assert_allclose(ops.convert_to_numpy(found), [0, 0.125, 0.5, 2.5])
    narrow = functools.partial(box_ops.smooth_l1, beta=0.2)
    found = compiled(narrow)(np.array([0.1, -0.5], "f4"))
    np.testing.assert_allclose(ops.convert_to_numpy(found), [0.025, 0.4], rtol=1e-6)


@pytest.mark.parametrize("beta", [1.0, 1 / 9])
def test_smooth_l1_and_its_gradient_equal_reference(compiled, beta):
    differences = np.random.default_rng(0).normal(size=(5, 7, 4)).astype("f4")
    values, slopes = np.zeros((2, 5, 7, 4))
    for place in np.ndindex(differences.shape):
        x = float(differences[place])
        if abs(x) < beta:
            values[place], slopes[place] = x * x / (2 * beta), x / beta
        else:
            values[place], slopes[place] = abs(x) - beta / 2, math.copysign(1.0, x)
    smooth_l1 = functools.partial(box_ops.smooth_l1, beta=beta)
    found = ops.convert_to_numpy(compiled(smooth_l1)(differences))
    np.testing.assert_allclose(found, values, rtol=1e-5, atol=1e-7)
    both = compiled(gradient(lambda a, b: ops.sum(smooth_l1(a - b))))
    found = both(differences, np.zeros_like(differences))
    np.testing.assert_allclose(ops.convert_to_numpy(found[0]), slopes, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ops.convert_to_numpy(found[1]), -slopes, rtol=1e-5, atol=1e-6)


# --- Messages ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: box_ops.area(np.zeros((3, 5))), r"boxes must have shape .* \(3, 5\)"),
        (lambda: box_ops.area(1.0), r"boxes must have shape \(\.\.\., 4\); received: \(\)"),
        (lambda: box_ops.clip([0.0]), r"boxes must have shape \(\.\.\., 4\); received: \(1,\)"),
        (lambda: box_ops.iou(np.zeros((3, 4)), np.zeros((3, 3))), r"boxes_2 must .* \(3, 3\)"),
        (lambda: box_ops.ciou(np.zeros(4), np.zeros((3, 4))), r"boxes_1 must .* \(4,\)"),
        (lambda: box_ops.to_corner_form(np.zeros(3)), r"boxes must .* \(3,\)"),
        (lambda: box_ops.encode(np.zeros((2, 4)), np.ones((2, 2))), r"references must .* \(2, 2\)"),
        (lambda: box_ops.decode(np.zeros((2, 3)), np.ones((2, 4))), r"offsets must .* \(2, 3\)"),
        (
            lambda: box_ops.encode(np.zeros((2, 4)), np.ones((2, 4)), (0.1, 0.1, 0.2, 0.2)),
            r"variances must be two positive numbers; received: \(0.1, 0.1, 0.2, 0.2\)",
        ),
        (
            lambda: box_ops.decode(np.zeros((2, 4)), np.ones((2, 4)), (0, 1)),
            r"variances must be two positive numbers; received: \(0, 1\)",
        ),
        (
            lambda: box_ops.decode_yolo(np.zeros((2, 4)), np.ones((2, 4)), 0.1),
            r"cell_size must have shape \(\.\.\., 2\); received: \(\)",
        ),
        (
            lambda: box_ops.encode_yolo(np.zeros((2, 4)), np.ones((2, 4)), (1, 2, 3)),
            r"cell_size must have shape \(\.\.\., 2\); received: \(3,\)",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
