"""Geometry of axis-aligned boxes.

Unless a docstring says otherwise a box is (ymin, xmin, ymax, xmax) divided by the
picture's height and width, in the last axis of a float32 tensor. A box whose ymax does
not exceed its ymin, or xmax its xmin, is degenerate: its area is 0, and so is its IoU
with every box.

Keras itself converts to pixels and to the orders of COCO ("xywh") and VOC ("xyxy"):
`keras.utils.bounding_boxes.convert_format`, where boxes of this suite are "rel_yxyx".
"""

import math

from keras import ops

# Offsets of sizes are cut off here: no box grows beyond 1000 times its reference.
_LARGEST_SIZE_OFFSET = math.log(1000.0)
# The share of a cell that YOLO's centres keep from its border, where logits are infinite.
_CELL_BORDER = 1e-6
# Below this, areas count as 0: quotients by them, and their gradients, would overflow.
_SMALLEST_AREA = 1e-18
# Coordinates beyond this count as not finite, for the same reason.
_LARGEST_COORDINATE = 1e9


def check_boxes(boxes, name="boxes"):
    """Raises ValueError unless `boxes`, called `name` in the message, has shape (..., 4).

    Args:
        boxes: a tensor, or a list or an array of numbers.
        name: the argument's name in the caller's signature.

    Returns:
        `boxes` as a float32 tensor.
    """
    boxes = ops.convert_to_tensor(boxes)
    if len(boxes.shape) == 0 or boxes.shape[-1] != 4:
        raise ValueError(f"{name} must have shape (..., 4); received: {tuple(boxes.shape)}")
    return ops.cast(boxes, "float32")


# --- Areas and overlaps ------------------------------------------------------------------


def area(boxes):
    """Areas of boxes.

    Args:
        boxes: (..., 4) corner form.

    Returns:
        (...) float32; degenerate boxes have area 0.

    Raises:
        ValueError: boxes of another shape.
    """
    return _area(*_columns(check_boxes(boxes)))


def iou(boxes_1, boxes_2, pairwise=True):
    """Intersection over union.

    Coordinates that aren't finite, or beyond 1e9, make a box count as the empty one at the
    origin; areas below 1e-18 count as 0. Values and gradients are finite for every input.

    Args:
        boxes_1: (..., N, 4) corner form; (..., 4) if not pairwise.
        boxes_2: (..., M, 4); leading axes broadcast against those of `boxes_1`.
        pairwise: every box of one set with every box of the other, as in matching; False:
            each box with the one at its own place, as in losses.

    Returns:
        (..., N, M) float32 in [0, 1]; (...) if not pairwise.

    Raises:
        ValueError: boxes of another shape; pairwise ones of rank 1.
    """
    return _quotient(*_overlap(*_columns_of_pairs(boxes_1, boxes_2, pairwise)))


def giou(boxes_1, boxes_2, pairwise=True):
    """Generalised intersection over union (Rezatofighi et al. 2019, algorithm 1).

    GIoU = IoU - |C minus union| / |C|, with C the smallest box around both. It falls with
    the distance of boxes that don't overlap. The loss is 1 - GIoU.

    Args:
        boxes_1, boxes_2, pairwise: as in `iou`.

    Returns:
        (..., N, M) float32 in [-1, 1]; (...) if not pairwise.

    Raises:
        ValueError: as in `iou`.
    """
    boxes_1, boxes_2 = _columns_of_pairs(boxes_1, boxes_2, pairwise)
    intersection, union = _overlap(boxes_1, boxes_2)
    height, width = _hull(boxes_1, boxes_2)
    hull = height * width
    return _quotient(intersection, union) - _quotient(hull - union, hull)


def diou(boxes_1, boxes_2, pairwise=True):
    """Distance-IoU (Zheng et al. 2020, equation 6).

    DIoU = IoU - rho^2 / c^2, with rho the distance of the two centres and c the diagonal of
    the smallest box around both. The loss is 1 - DIoU.

    Args:
        boxes_1, boxes_2, pairwise: as in `iou`.

    Returns:
        (..., N, M) float32 in [-1, 1]; (...) if not pairwise.

    Raises:
        ValueError: as in `iou`.
    """
    return _diou(*_columns_of_pairs(boxes_1, boxes_2, pairwise))[0]


def ciou(boxes_1, boxes_2, pairwise=True):
    """Complete IoU (Zheng et al. 2020, equations 8 to 11).

    CIoU = DIoU - alpha * v, where v = 4 / pi^2 * (atan(w_1 / h_1) - atan(w_2 / h_2))^2
    compares the shapes and alpha = v / (1 - IoU + v) is a weight without gradient. Sides
    below 1e-9 count as 1e-9 in v. The loss is 1 - CIoU.

    Args:
        boxes_1, boxes_2, pairwise: as in `iou`.

    Returns:
        (..., N, M) float32 in [-2, 1]; (...) if not pairwise.

    Raises:
        ValueError: as in `iou`.
    """
    boxes_1, boxes_2 = _columns_of_pairs(boxes_1, boxes_2, pairwise)
    distance_iou, overlap = _diou(boxes_1, boxes_2)
    v = 4.0 / math.pi**2 * ops.square(_shape_angle(*boxes_1) - _shape_angle(*boxes_2))
    alpha = ops.stop_gradient(_quotient(v, 1.0 - overlap + v))
    return distance_iou - alpha * v


def clip(boxes):
    """Boxes (..., 4) cut off at the picture's border."""
    return ops.clip(check_boxes(boxes), 0.0, 1.0)


def _columns(boxes):
    """The four columns of boxes (..., 4), each (...)."""
    return ops.unstack(boxes, 4, axis=-1)


def _columns_of_pairs(boxes_1, boxes_2, pairwise):
    """The columns of both, of shapes that broadcast to that of the pairs; all finite."""
    columns = []
    for boxes, name, axis in ((boxes_1, "boxes_1", -2), (boxes_2, "boxes_2", -3)):
        boxes = check_boxes(boxes, name)
        if pairwise:
            if len(boxes.shape) < 2:
                raise ValueError(
                    f"{name} must have shape (..., number, 4) if pairwise is True; "
                    f"received: {tuple(boxes.shape)}"
                )
            boxes = ops.expand_dims(boxes, axis)
        # The comparison is false for NaN.
        finite = ops.all(ops.abs(boxes) <= _LARGEST_COORDINATE, axis=-1, keepdims=True)
        columns.append(_columns(ops.where(finite, boxes, 0.0)))
    return columns


def _area(ymin, xmin, ymax, xmax):
    return ops.maximum(ymax - ymin, 0.0) * ops.maximum(xmax - xmin, 0.0)


def _overlap(boxes_1, boxes_2):
    """Areas of intersection and union."""
    ymin_1, xmin_1, ymax_1, xmax_1 = boxes_1
    ymin_2, xmin_2, ymax_2, xmax_2 = boxes_2
    intersection = _area(
        ops.maximum(ymin_1, ymin_2),
        ops.maximum(xmin_1, xmin_2),
        ops.minimum(ymax_1, ymax_2),
        ops.minimum(xmax_1, xmax_2),
    )
    return intersection, _area(*boxes_1) + _area(*boxes_2) - intersection


def _hull(boxes_1, boxes_2):
    """Height and width of the smallest box around both, inverted ones as well."""
    sides = []
    for low in (0, 1):
        ends_1, ends_2 = boxes_1[low::2], boxes_2[low::2]
        first = ops.minimum(ops.minimum(*ends_1), ops.minimum(*ends_2))
        sides.append(ops.maximum(ops.maximum(*ends_1), ops.maximum(*ends_2)) - first)
    return sides


def _diou(boxes_1, boxes_2):
    """DIoU and IoU."""
    ymin_1, xmin_1, ymax_1, xmax_1 = boxes_1
    ymin_2, xmin_2, ymax_2, xmax_2 = boxes_2
    height, width = _hull(boxes_1, boxes_2)
    # Differences first: those of near numbers have no rounding, their sums would have.
    dy = ((ymin_1 - ymin_2) + (ymax_1 - ymax_2)) / 2.0
    dx = ((xmin_1 - xmin_2) + (xmax_1 - xmax_2)) / 2.0
    overlap = _quotient(*_overlap(boxes_1, boxes_2))
    distance = _quotient(ops.square(dy) + ops.square(dx), ops.square(height) + ops.square(width))
    return overlap - distance, overlap


def _shape_angle(ymin, xmin, ymax, xmax):
    """atan(width / height)."""
    return ops.arctan2(ops.maximum(xmax - xmin, 1e-9), ops.maximum(ymax - ymin, 1e-9))


def _quotient(part, whole):
    """part / whole, and 0 where the whole is nothing; gradients are finite there as well."""
    something = whole > _SMALLEST_AREA
    return ops.where(something, part / ops.where(something, whole, 1.0), 0.0)


# --- Center form -------------------------------------------------------------------------


def to_center_form(boxes):
    """(ymin, xmin, ymax, xmax) to (cy, cx, height, width), both (..., 4)."""
    ymin, xmin, ymax, xmax = _columns(check_boxes(boxes))
    return ops.stack([(ymin + ymax) / 2.0, (xmin + xmax) / 2.0, ymax - ymin, xmax - xmin], axis=-1)


def to_corner_form(boxes):
    """(cy, cx, height, width) to (ymin, xmin, ymax, xmax), both (..., 4)."""
    cy, cx, height, width = _columns(check_boxes(boxes))
    return ops.stack(
        [cy - height / 2.0, cx - width / 2.0, cy + height / 2.0, cx + width / 2.0], axis=-1
    )


# --- Offsets from reference boxes --------------------------------------------------------


def encode(boxes, references, variances=(0.1, 0.2)):
    """Offsets that take reference boxes to boxes: SSD, section 2.2, equation 2.

    t_cy = (cy - d_cy) / d_h / variances[0]    t_h = log(h / d_h) / variances[1]
    and alike for cx and w. Fast(er) R-CNN's offsets (Ren et al. 2015, equation 2) are those
    with variances (1, 1).

    Args:
        boxes: (..., 4) corner form. Sides below 1e-6 count as 1e-6, so that degenerate
            boxes give finite offsets.
        references: (..., 4) center form (cy, cx, height, width), sides positive.
        variances: standard deviations of the centre and the size offsets.

    Returns:
        (..., 4) offsets (t_cy, t_cx, t_h, t_w).

    Raises:
        ValueError: boxes or references of another shape; variances that aren't two positive
            numbers.
    """
    _check_variances(variances)
    cy, cx, height, width = _columns(to_center_form(boxes))
    d_cy, d_cx, d_height, d_width = _columns(check_boxes(references, "references"))
    return ops.stack(
        [
            (cy - d_cy) / d_height / variances[0],
            (cx - d_cx) / d_width / variances[0],
            _size_offset(height, d_height) / variances[1],
            _size_offset(width, d_width) / variances[1],
        ],
        axis=-1,
    )


def decode(offsets, references, variances=(0.1, 0.2)):
    """Boxes from offsets, the inverse of `encode`.

    Size offsets are limited so that no box grows beyond 1000 times its reference: an
    untrained network then gives huge boxes instead of infinite ones.

    Args:
        offsets: (..., 4), as `encode` returns them.
        references, variances: those of `encode`.

    Returns:
        (..., 4) corner form.

    Raises:
        ValueError: as in `encode`.
    """
    _check_variances(variances)
    t_cy, t_cx, t_height, t_width = _columns(check_boxes(offsets, "offsets"))
    d_cy, d_cx, d_height, d_width = _columns(check_boxes(references, "references"))
    # Offsets stand first: they may be symbolic, which the arrays of JAX refuse to their right.
    return to_corner_form(
        ops.stack(
            [
                t_cy * variances[0] * d_height + d_cy,
                t_cx * variances[0] * d_width + d_cx,
                _resized(t_height * variances[1], d_height),
                _resized(t_width * variances[1], d_width),
            ],
            axis=-1,
        )
    )


def smooth_l1(difference, beta=1.0):
    """Quadratic near 0, linear beyond (Girshick 2015, "Fast R-CNN", equation 3, with beta 1).

    Args:
        difference: (…) of predicted and expected offsets.
        beta: distance up to which it is quadratic, above 0.

    Returns:
        (…) 0.5 difference^2 / beta below beta, |difference| - 0.5 beta from there on.
    """
    distance = ops.abs(difference)
    return ops.where(distance < beta, 0.5 * ops.square(distance) / beta, distance - 0.5 * beta)


def encode_yolo(boxes, references, cell_size):
    """Offsets of YOLOv2 and YOLOv3: Redmon & Farhadi 2017, "Direct location prediction".

    b_x = sigmoid(t_x) + c_x and b_w = p_w exp(t_w), in cells, solved for t; alike for y and
    h. c is the upper left corner of the reference's cell, p the reference's size.

    Args:
        boxes: (..., 4) corner form, their centres in the cell of their reference. Centres
            outside, or closer to its border than 1e-6 of the cell, count as that close;
            sides below 1e-6 count as 1e-6.
        references: (..., 4) center form (cy, cx, height, width) from `anchors.yolo_priors`:
            the cell's centre, and positive sides.
        cell_size: height and width of a cell as fractions of the picture: a pair, or
            (..., 2) for cells that differ.

    Returns:
        (..., 4) offsets (t_y, t_x, t_h, t_w).

    Raises:
        ValueError: boxes, references or cell_size of another shape.
    """
    cell_height, cell_width = _cell_sides(cell_size)
    cy, cx, height, width = _columns(to_center_form(boxes))
    p_cy, p_cx, p_height, p_width = _columns(check_boxes(references, "references"))
    return ops.stack(
        [
            _logit((cy - p_cy) / cell_height + 0.5),
            _logit((cx - p_cx) / cell_width + 0.5),
            _size_offset(height, p_height),
            _size_offset(width, p_width),
        ],
        axis=-1,
    )


def decode_yolo(offsets, references, cell_size):
    """Boxes from offsets, the inverse of `encode_yolo`.

    Size offsets are limited as in `decode`; centres never leave the cell.

    Args:
        offsets: (..., 4), as `encode_yolo` returns them.
        references, cell_size: those of `encode_yolo`.

    Returns:
        (..., 4) corner form.

    Raises:
        ValueError: as in `encode_yolo`.
    """
    cell_height, cell_width = _cell_sides(cell_size)
    t_y, t_x, t_height, t_width = _columns(check_boxes(offsets, "offsets"))
    p_cy, p_cx, p_height, p_width = _columns(check_boxes(references, "references"))
    return to_corner_form(
        ops.stack(
            [
                (ops.sigmoid(t_y) - 0.5) * cell_height + p_cy,
                (ops.sigmoid(t_x) - 0.5) * cell_width + p_cx,
                _resized(t_height, p_height),
                _resized(t_width, p_width),
            ],
            axis=-1,
        )
    )


def _size_offset(side, reference):
    return ops.log(ops.maximum(side, 1e-6) / reference)


def _resized(offset, reference):
    return ops.exp(ops.minimum(offset, _LARGEST_SIZE_OFFSET)) * reference


def _logit(share):
    share = ops.clip(share, _CELL_BORDER, 1.0 - _CELL_BORDER)
    return ops.log(share / (1.0 - share))


def _cell_sides(cell_size):
    cell_size = ops.cast(ops.convert_to_tensor(cell_size), "float32")
    if len(cell_size.shape) == 0 or cell_size.shape[-1] != 2:
        raise ValueError(f"cell_size must have shape (..., 2); received: {tuple(cell_size.shape)}")
    return ops.unstack(cell_size, 2, axis=-1)


def _check_variances(variances):
    if len(variances) != 2 or not all(v > 0 for v in variances):
        raise ValueError(f"variances must be two positive numbers; received: {variances}")
