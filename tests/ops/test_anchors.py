import math

import numpy as np

from kerasvision.ops import anchors


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
