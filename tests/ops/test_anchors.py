import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasvision.ops import anchors

# --- Default boxes -----------------------------------------------------------------------


def test_one_cell_golden():
    boxes = anchors.default_boxes([(1, 1)], [0.5, 0.8], [[4]])
    expected = [
        [0.5, 0.5, 0.5, 0.5],
        [0.5, 0.5, math.sqrt(0.4), math.sqrt(0.4)],
        [0.5, 0.5, 0.25, 1.0],  # ratio 4: twice as wide, half as high
        [0.5, 0.5, 1.0, 0.25],
    ]
    np.testing.assert_allclose(boxes, expected, rtol=1e-6)
    assert boxes.dtype == np.float32


def test_cells_go_row_by_row_and_map_by_map():
    boxes = anchors.default_boxes([(2, 3), (1, 1)], [0.2, 0.4, 0.9], [[], []])
    centers = [[y, x] for y in (1 / 4, 3 / 4) for x in (1 / 6, 3 / 6, 5 / 6) for _ in range(2)]
    np.testing.assert_allclose(boxes[:-2, :2], centers, rtol=1e-6)
    np.testing.assert_allclose(
        boxes[-2:], [[0.5] * 2 + [0.4] * 2, [0.5] * 2 + [0.6] * 2], rtol=1e-6
    )


def test_steps_move_the_centers():
    boxes = anchors.default_boxes([(2, 2)], [0.1, 0.2], [[]], steps=[(0.5, 0.25)])
    np.testing.assert_allclose(
        boxes[::2, :2], [[0.25, 0.125], [0.25, 0.375], [0.75, 0.125], [0.75, 0.375]]
    )


def test_scales_by_side_for_oblong_images():
    boxes = anchors.default_boxes([(1, 1)], [(0.2, 0.1), (0.2, 0.1)], [[4]])
    np.testing.assert_allclose(
        boxes[:, 2:], [[0.2, 0.1], [0.2, 0.1], [0.1, 0.2], [0.4, 0.05]], rtol=1e-6
    )


@pytest.mark.parametrize(
    "sides, two_ratios, number",
    [((38, 19, 10, 5, 3, 1), 3, 8732), ((64, 32, 16, 8, 4, 2, 1), 4, 24564)],
)
def test_numbers_of_the_papers_default_boxes(sides, two_ratios, number):
    ratios = [[2], *[[2, 3]] * two_ratios, [2], [2]]
    scales = np.linspace(0.1, 1, len(sides) + 1)
    boxes = anchors.default_boxes([(side, side) for side in sides], scales, ratios)
    assert boxes.shape == (number, 4)


maps = st.lists(
    st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=3
)  # one map and one cell, rows and columns


@settings(max_examples=250, deadline=None, derandomize=True)
@given(
    feature_shapes=maps,
    seed=st.integers(0, 10**6),
    with_steps=st.booleans(),
    num_ratios=st.integers(0, 3),
)
def test_default_boxes_equal_reference(feature_shapes, seed, with_steps, num_ratios):
    rng = np.random.default_rng(seed)
    # Scales may grow, stay, or fall.
    scales = rng.choice([0.05, 0.2, 0.2, 0.9, 1.05], len(feature_shapes) + 1)
    ratios = rng.uniform(1.1, 5, (len(feature_shapes), num_ratios))
    steps = rng.uniform(0.01, 0.5, (len(feature_shapes), 2))
    expected = []
    for k, (rows, columns) in enumerate(feature_shapes):
        for i in range(rows):
            for j in range(columns):
                cy, cx = (i + 0.5) / rows, (j + 0.5) / columns
                if with_steps:
                    cy, cx = (i + 0.5) * steps[k, 0], (j + 0.5) * steps[k, 1]
                between = math.sqrt(scales[k] * scales[k + 1])
                expected += [(cy, cx, scales[k], scales[k]), (cy, cx, between, between)]
                for ratio in ratios[k]:
                    short, long = scales[k] / math.sqrt(ratio), scales[k] * math.sqrt(ratio)
                    expected += [(cy, cx, short, long), (cy, cx, long, short)]
    boxes = anchors.default_boxes(feature_shapes, scales, ratios, steps if with_steps else None)
    np.testing.assert_allclose(boxes, expected, rtol=1e-6)


# --- Anchors -----------------------------------------------------------------------------


def corners_in_pixels(boxes, image_size):
    """(ymin, xmin, ymax, xmax)"""
    cy, cx, height, width = (boxes.astype("float64") * np.tile(image_size, 2)).T
    return np.stack([cy - height / 2, cx - width / 2, cy + height / 2, cx + width / 2], axis=1)


def test_rpn_anchors_golden():
    # One cell of 8 x 16 pixels in a picture of 20 x 40; ratio 4: twice as high as wide... and
    # an area of 16: 8 high and 2 wide.
    boxes = anchors.rpn_anchors([(1, 1)], [(8, 16)], (20, 40), [[4, 8]], [1, 4])
    np.testing.assert_allclose(
        corners_in_pixels(boxes, (20, 40)),
        [
            [2, 6, 6, 10],
            [0, 4, 8, 12],
            [0, 7, 8, 9],
            [-4, 6, 12, 10],
        ],
        atol=1e-5,
    )
    assert boxes.dtype == np.float32


def test_rpn_anchors_are_those_of_the_authors():
    """The table in py-faster-rcnn's generate_anchors.py, up to how that rounds the sides."""
    # Of Matlab: (x1, y1, x2, y2), pixels count from 1, and the last one is inside.
    table = np.array(
        [
            [-83, -39, 100, 56],
            [-175, -87, 192, 104],
            [-359, -183, 376, 200],
            [-55, -55, 72, 72],
            [-119, -119, 136, 136],
            [-247, -247, 264, 264],
            [-35, -79, 52, 96],
            [-79, -167, 96, 184],
            [-167, -343, 184, 360],
        ]
    )
    expected = np.stack([table[:, 1] - 1, table[:, 0] - 1, table[:, 3], table[:, 2]], axis=1)
    boxes = anchors.rpn_anchors([(1, 1)], [16], (600, 800), [(128, 256, 512)])
    boxes = corners_in_pixels(boxes, (600, 800))
    # The same centres, (8, 8), in the same order; squares are the same altogether.
    np.testing.assert_allclose(boxes[:, :2] + boxes[:, 2:], np.full((9, 2), 16), atol=1e-4)
    np.testing.assert_array_equal(expected[:, :2] + expected[:, 2:], np.full((9, 2), 16))
    np.testing.assert_allclose(boxes[3:6], expected[3:6], atol=1e-4)
    # The width of a box of 16 x 16 pixels is rounded, then the height that goes with it.
    sides = boxes[:, 2:] - boxes[:, :2]
    scales, ratios = np.tile([8, 16, 32], 3), np.repeat([0.5, 1, 2], 3)
    width = np.round(sides[:, 1] / scales)
    rounded = np.stack([np.round(width * ratios), width], axis=1) * scales[:, None]
    np.testing.assert_array_equal(expected[:, 2:] - expected[:, :2], rounded)


def test_centers_keep_to_the_stride_where_it_does_not_divide_the_picture():
    # 100 x 50 pixels at stride 32: the last of four rows is centred beyond the border.
    boxes = anchors.rpn_anchors([(4, 2)], [32], (100, 50), [64], [1.0])
    centers = [[y / 100, x / 50] for y in (16, 48, 80, 112) for x in (16, 48)]
    np.testing.assert_allclose(boxes[:, :2], centers, rtol=1e-6)
    np.testing.assert_allclose(boxes[:, 2:], np.tile([0.64, 1.28], (8, 1)), rtol=1e-6)


def test_fpn_anchors():
    image_size, strides = (640, 800), (4, 8, 16, 32, 64)
    shapes = [(-(-640 // s), -(-800 // s)) for s in strides]
    boxes = anchors.rpn_anchors(shapes, strides, image_size, (32, 64, 128, 256, 512))
    cells = [rows * columns for rows, columns in shapes]
    assert len(boxes) == 3 * sum(cells)
    areas = boxes[:, 2] * boxes[:, 3] * 640 * 800
    expected = np.repeat([32, 64, 128, 256, 512], [3 * number for number in cells])
    np.testing.assert_allclose(np.sqrt(areas), expected, rtol=1e-5)
    np.testing.assert_allclose(
        boxes[:, 2] * 640 / (boxes[:, 3] * 800), np.tile([0.5, 1, 2], sum(cells)), rtol=1e-5
    )


@pytest.mark.parametrize("side, number", [(640, 76725), (512, 49104)])
def test_retinanet_anchors(side, number):
    strides = (8, 16, 32, 64, 128)
    shapes = [(side // s, side // s) for s in strides]
    boxes = anchors.retinanet_anchors(shapes, strides, (side, side))
    assert boxes.shape == (number, 4)
    # The first cell's: 32, 40.3 and 50.8 pixels, at height / width of 1/2, 1 and 2.
    scales = [32, 32 * 2 ** (1 / 3), 32 * 2 ** (2 / 3)]
    expected = [(s * math.sqrt(r), s / math.sqrt(r)) for r in (0.5, 1, 2) for s in scales]
    np.testing.assert_allclose(boxes[:9, 2:] * side, expected, rtol=1e-5)
    np.testing.assert_allclose(boxes[:9, :2] * side, np.full((9, 2), 4), rtol=1e-6)
    np.testing.assert_allclose(boxes[-9:, 2:] * side, 16 * np.array(expected), rtol=1e-5)


@settings(max_examples=250, deadline=None, derandomize=True)
@given(
    feature_shapes=maps,
    seed=st.integers(0, 10**6),
    num_scales=st.integers(1, 3),
    num_ratios=st.integers(1, 3),
    image_size=st.tuples(st.integers(1, 900), st.integers(1, 900)),
)
def test_anchors_equal_reference(feature_shapes, seed, num_scales, num_ratios, image_size):
    rng = np.random.default_rng(seed)
    strides = rng.integers(1, 65, (len(feature_shapes), 2))
    scales = rng.uniform(1, 1000, (len(feature_shapes), num_scales))
    ratios = rng.uniform(0.1, 10, num_ratios)
    expected, retinanet = [], []
    for k, (rows, columns) in enumerate(feature_shapes):
        for i in range(rows):
            for j in range(columns):
                cy = (i + 0.5) * strides[k, 0] / image_size[0]
                cx = (j + 0.5) * strides[k, 1] / image_size[1]
                for ratio in ratios:
                    for scale in scales[k]:
                        height, width = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
                        expected.append((cy, cx, height / image_size[0], width / image_size[1]))
                    for octave in (1.0, 1.5):
                        height = scales[k, 0] * octave * math.sqrt(ratio)
                        width = scales[k, 0] * octave / math.sqrt(ratio)
                        retinanet.append((cy, cx, height / image_size[0], width / image_size[1]))
    boxes = anchors.rpn_anchors(feature_shapes, strides, image_size, scales, ratios)
    np.testing.assert_allclose(boxes, expected, rtol=1e-6)
    boxes = anchors.retinanet_anchors(
        feature_shapes, strides, image_size, scales[:, 0], (1.0, 1.5), ratios
    )
    np.testing.assert_allclose(boxes, retinanet, rtol=1e-6)


# --- Priors ------------------------------------------------------------------------------


def test_yolo_priors_golden():
    # 2 x 3 cells of 32 pixels; the second prior of YOLOv2 spans (4.00944, 3.19275) cells.
    boxes = anchors.yolo_priors([(2, 3)], [32], (64, 96), [anchors.YOLOV2_PRIORS])
    assert boxes.shape == (2 * 3 * 5, 4)
    centers = [[y, x] for y in (1 / 4, 3 / 4) for x in (1 / 6, 3 / 6, 5 / 6) for _ in range(5)]
    np.testing.assert_allclose(boxes[:, :2], centers, rtol=1e-6)
    np.testing.assert_allclose(boxes[1::5, 2:], np.tile([4.00944 / 2, 3.19275 / 3], (6, 1)))


def test_yolov3_priors():
    shapes, strides = [(52, 52), (26, 26), (13, 13)], (8, 16, 32)
    boxes = anchors.yolo_priors(shapes, strides, (416, 416), anchors.YOLOV3_PRIORS)
    assert boxes.shape == (10647, 4)
    np.testing.assert_allclose(boxes[0] * 416, [4, 4, 13, 10], rtol=1e-6)
    np.testing.assert_allclose(boxes[-1] * 416, [400, 400, 326, 373], rtol=1e-6)


@settings(max_examples=250, deadline=None, derandomize=True)
@given(
    feature_shapes=maps,
    seed=st.integers(0, 10**6),
    number=st.integers(1, 4),
    image_size=st.tuples(st.integers(1, 900), st.integers(1, 900)),
)
def test_priors_equal_reference(feature_shapes, seed, number, image_size):
    rng = np.random.default_rng(seed)
    strides = rng.integers(1, 65, len(feature_shapes))
    sizes = rng.uniform(1, 500, (len(feature_shapes), number, 2))
    expected = []
    for k, (rows, columns) in enumerate(feature_shapes):
        for i in range(rows):
            for j in range(columns):
                for height, width in sizes[k]:
                    expected.append(
                        (
                            (i + 0.5) * strides[k] / image_size[0],
                            (j + 0.5) * strides[k] / image_size[1],
                            height / image_size[0],
                            width / image_size[1],
                        )
                    )
    boxes = anchors.yolo_priors(feature_shapes, strides, image_size, sizes)
    np.testing.assert_allclose(boxes, expected, rtol=1e-6)


# --- Messages ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: anchors.default_boxes([(2, 2)], [0.1], [[2]]),
            r"scales must have one entry more than the 1 feature_shapes; received: \[0.1\]",
        ),
        (
            lambda: anchors.default_boxes([(2, 2)], [0.1, 0.2], [[2], [2]]),
            r"aspect_ratios must have one entry for each of the 1 .*received: \[\[2\], \[2\]\]",
        ),
        (
            lambda: anchors.default_boxes([(2, 2)], [0.1, -0.2], [[2]]),
            r"scales must be positive; received: \[0.1, -0.2\]",
        ),
        (
            lambda: anchors.rpn_anchors([(2, 2)], [16, 32], (64, 64), [32]),
            r"strides must have one entry for each of the 1 feature_shapes; received: \[16, 32\]",
        ),
        (
            lambda: anchors.rpn_anchors([(2, 2)], [16], (64, 64), [32, 64]),
            r"scales must have one entry for each",
        ),
        (
            lambda: anchors.rpn_anchors([(2, 2)], [0], (64, 64), [32]),
            r"strides must be positive; received: \[0\]",
        ),
        (
            lambda: anchors.rpn_anchors([(2, 2)], [16], (64, 64), [32], [1, float("nan")]),
            r"aspect_ratios must be positive; received: \[1, nan\]",
        ),
        (
            lambda: anchors.rpn_anchors([(2, 2)], [16], (64, 64, 3), [32]),
            r"image_size must be \(height, width\); received: \(64, 64, 3\)",
        ),
        (
            lambda: anchors.retinanet_anchors([(2, 2)], [16], (64, 64)),
            r"scales must have one entry for each of the 1 feature_shapes",
        ),
        (
            lambda: anchors.yolo_priors([(2, 2)], [16], (64, 64), anchors.YOLOV3_PRIORS),
            r"sizes must have one entry for each of the 1 feature_shapes",
        ),
        (
            lambda: anchors.yolo_priors([(2, 0)], [16], (64, 64), [anchors.YOLOV2_PRIORS]),
            r"feature_shapes must be positive; received: \[\(2, 0\)\]",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
