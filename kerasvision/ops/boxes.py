"""Geometry of axis-aligned boxes.

Unless a docstring says otherwise a box is (ymin, xmin, ymax, xmax) divided by the
picture's height and width, in the last axis of a float32 tensor. A box whose ymax does
not exceed its ymin, or xmax its xmin, is degenerate: its area is 0, and so is its IoU
with every box.
"""

from keras import ops


def _coordinates(boxes):
    """The four columns of boxes (..., 4), each (...)."""
    return ops.unstack(ops.convert_to_tensor(boxes), 4, axis=-1)


def area(boxes):
    """Areas of boxes (..., 4) as a tensor (...); degenerate boxes have area 0."""
    ymin, xmin, ymax, xmax = _coordinates(boxes)
    return ops.maximum(ymax - ymin, 0.0) * ops.maximum(xmax - xmin, 0.0)


def iou(boxes_1, boxes_2):
    """Intersection over union of every pair of two sets of boxes.

    Args:
        boxes_1: (..., N, 4).
        boxes_2: (..., M, 4); leading axes broadcast against those of `boxes_1`.

    Returns:
        (..., N, M) float32 in [0, 1].
    """
    boxes_1 = ops.expand_dims(ops.cast(boxes_1, "float32"), -2)
    boxes_2 = ops.expand_dims(ops.cast(boxes_2, "float32"), -3)
    ymin_1, xmin_1, ymax_1, xmax_1 = _coordinates(boxes_1)
    ymin_2, xmin_2, ymax_2, xmax_2 = _coordinates(boxes_2)
    height = ops.minimum(ymax_1, ymax_2) - ops.maximum(ymin_1, ymin_2)
    width = ops.minimum(xmax_1, xmax_2) - ops.maximum(xmin_1, xmin_2)
    intersection = ops.maximum(height, 0.0) * ops.maximum(width, 0.0)
    area_1, area_2 = area(boxes_1), area(boxes_2)
    union = area_1 + area_2 - intersection
    # An inverted box can still overlap another in this arithmetic; its area of 0 tells.
    valid = ops.logical_and(area_1 > 0.0, area_2 > 0.0)
    return ops.where(valid, intersection / ops.where(valid, union, 1.0), 0.0)


def to_center_form(boxes):
    """(ymin, xmin, ymax, xmax) to (cy, cx, height, width), both (..., 4)."""
    ymin, xmin, ymax, xmax = _coordinates(boxes)
    return ops.stack([(ymin + ymax) / 2.0, (xmin + xmax) / 2.0, ymax - ymin, xmax - xmin], axis=-1)


def to_corner_form(boxes):
    """(cy, cx, height, width) to (ymin, xmin, ymax, xmax), both (..., 4)."""
    cy, cx, height, width = _coordinates(boxes)
    return ops.stack(
        [cy - height / 2.0, cx - width / 2.0, cy + height / 2.0, cx + width / 2.0], axis=-1
    )


def encode(boxes, references, variances=(0.1, 0.2)):
    """Offsets that take reference boxes to boxes: SSD, section 2.2, equation 2.

    t_cy = (cy - d_cy) / d_h / variances[0]    t_h = log(h / d_h) / variances[1]
    and alike for cx and w. Fast(er) R-CNN's offsets are those with variances (1, 1).

    Args:
        boxes: (..., 4) corner form. Sides below 1e-6 count as 1e-6, so that degenerate
            boxes give finite offsets.
        references: (..., 4) center form (cy, cx, height, width), sides positive.
        variances: standard deviations of the centre and the size offsets.

    Returns:
        (..., 4) offsets (t_cy, t_cx, t_h, t_w).
    """
    cy, cx, height, width = _coordinates(to_center_form(boxes))
    d_cy, d_cx, d_height, d_width = _coordinates(references)
    return ops.stack(
        [
            (cy - d_cy) / d_height / variances[0],
            (cx - d_cx) / d_width / variances[0],
            ops.log(ops.maximum(height, 1e-6) / d_height) / variances[1],
            ops.log(ops.maximum(width, 1e-6) / d_width) / variances[1],
        ],
        axis=-1,
    )


def decode(offsets, references, variances=(0.1, 0.2)):
    """The inverse of `encode`: offsets (..., 4) and references (..., 4) to corner form (..., 4).

    Size offsets are limited so that no box grows beyond 1000 times its reference: an
    untrained network then gives huge boxes instead of infinite ones.
    """
    t_cy, t_cx, t_height, t_width = _coordinates(offsets)
    d_cy, d_cx, d_height, d_width = _coordinates(references)
    limit = 6.907755  # log(1000)
    # Offsets stand first: they may be symbolic, which the arrays of JAX refuse to their right.
    return to_corner_form(
        ops.stack(
            [
                t_cy * variances[0] * d_height + d_cy,
                t_cx * variances[0] * d_width + d_cx,
                ops.exp(ops.minimum(t_height * variances[1], limit)) * d_height,
                ops.exp(ops.minimum(t_width * variances[1], limit)) * d_width,
            ],
            axis=-1,
        )
    )


def clip(boxes):
    """Boxes (..., 4) cut off at the picture's border."""
    return ops.clip(boxes, 0.0, 1.0)
