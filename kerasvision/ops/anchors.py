"""Reference boxes that detectors place over their feature maps."""

import math

import numpy as np


def default_boxes(feature_shapes, scales, aspect_ratios, steps=None):
    """SSD's default boxes (Liu et al. 2016, section 2.2, "Choosing scales and aspect ratios").

    At every cell of the k-th map stand a square of scale s_k, a square of scale
    sqrt(s_k * s_{k+1}), and for each aspect ratio r one box of width s_k * sqrt(r) and
    height s_k / sqrt(r) and one with r inverted.

    Args:
        feature_shapes: list of (height, width) of the maps, finest first.
        scales: scales s_k as fractions of the picture, one more than there are maps: a
            number (the picture's side, or both sides alike) or a pair (height, width).
        aspect_ratios: for each map the ratios beside 1, each above 1, e.g. (2, 3).
        steps: for each map the distance of two cells as a fraction of the picture, a number
            or a pair (height, width); None: the cells tile the picture exactly.

    Returns:
        NumPy float32 (A, 4) center form (cy, cx, height, width): map by map, row by row,
        cell by cell, the boxes of a cell in the order given above.
    """
    boxes = []
    for k, (rows, columns) in enumerate(feature_shapes):
        scale, next_scale = (np.broadcast_to(s, 2).astype("float64") for s in scales[k : k + 2])
        sizes = [scale, np.sqrt(scale * next_scale)]
        for ratio in aspect_ratios[k]:
            root = math.sqrt(ratio)
            sizes += [scale * (1 / root, root), scale * (root, 1 / root)]
        step = (1 / rows, 1 / columns) if steps is None else np.broadcast_to(steps[k], 2)
        cy, cx = np.meshgrid(
            (np.arange(rows) + 0.5) * step[0], (np.arange(columns) + 0.5) * step[1], indexing="ij"
        )
        centers = np.stack([cy, cx], axis=-1)[:, :, None, :]
        centers, sizes = np.broadcast_arrays(centers, np.asarray(sizes)[None, None])
        boxes.append(np.concatenate([centers, sizes], axis=-1).reshape(-1, 4))
    return np.concatenate(boxes).astype("float32")
