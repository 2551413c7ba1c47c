"""Reference boxes that detectors place over their feature maps.

They are constants of a model: NumPy float32 (A, 4) in center form (cy, cx, height, width),
divided by the picture's height and width, map by map, row by row, cell by cell. Anchors and
priors of row i on a map of stride s are centred at (i + 0.5) * s pixels, whether or not the
picture's height is a multiple of the stride. They may reach beyond the picture.
"""

import math

import numpy as np

# (height, width) in pixels, of the authors' yolo-voc.cfg (there by cells of 32 pixels) and
# yolov3.cfg (three for each of the maps of stride 8, 16 and 32).
YOLOV2_PRIORS = tuple(
    (32 * height, 32 * width)
    for height, width in (
        (1.73145, 1.3221),
        (4.00944, 3.19275),
        (8.09892, 5.05587),
        (4.84053, 9.47112),
        (10.0071, 11.2364),
    )
)
YOLOV3_PRIORS = (
    ((13, 10), (30, 16), (23, 33)),
    ((61, 30), (45, 62), (119, 59)),
    ((90, 116), (198, 156), (326, 373)),
)


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
        NumPy float32 (A, 4) center form, the boxes of a cell in the order given above.

    Raises:
        ValueError: lists that don't have an entry for each map; a number that isn't
            positive.
    """
    if steps is None:
        steps = [(1 / rows, 1 / columns) for rows, columns in feature_shapes]
    if len(scales) != len(feature_shapes) + 1:
        raise ValueError(
            f"scales must have one entry more than the {len(feature_shapes)} feature_shapes; "
            f"received: {scales}"
        )
    _check_levels(feature_shapes, aspect_ratios=aspect_ratios, steps=steps)
    _check_positive(feature_shapes=feature_shapes, scales=scales, steps=steps)
    boxes = []
    for k, (feature_shape, step) in enumerate(zip(feature_shapes, steps)):
        scale, next_scale = (np.broadcast_to(s, 2).astype("float64") for s in scales[k : k + 2])
        sizes = [scale, np.sqrt(scale * next_scale)]
        for ratio in aspect_ratios[k]:
            root = math.sqrt(ratio)
            sizes += [scale * (1 / root, root), scale * (root, 1 / root)]
        boxes.append(_tile(feature_shape, np.broadcast_to(step, 2), sizes))
    return np.concatenate(boxes)


def rpn_anchors(feature_shapes, strides, image_size, scales, aspect_ratios=(0.5, 1.0, 2.0)):
    """Anchors of a region proposal network (Ren et al. 2015, section 3.1.1).

    At every cell stands, for each ratio r = height / width and each scale s of the map, a box
    of height s * sqrt(r) and width s / sqrt(r). Faster R-CNN has one map of stride 16, with
    the scales (128, 256, 512); a feature pyramid five, of stride 4 to 64, with one scale
    each, 32 to 512 (Lin et al. 2017a, section 4.1).

    The centres are those of the authors' code. That rounds the sides of its boxes: at scale
    128 they are 8 * (12, 23), 8 * (16, 16) and 8 * (22, 11) instead of 8 * (11.3, 22.6),
    8 * (16, 16) and 8 * (22.6, 11.3).

    Args:
        feature_shapes: list of (height, width) of the maps.
        strides: for each map the distance of two cells in pixels, a number or a pair
            (height, width).
        image_size: (height, width) of the picture in pixels.
        scales: for each map the square roots of the boxes' areas in pixels, a number or a
            sequence of numbers.
        aspect_ratios: height / width of the boxes.

    Returns:
        NumPy float32 (A, 4) center form; in a cell ratio by ratio, each scale by scale.

    Raises:
        ValueError: lists that don't have an entry for each map; a number that isn't
            positive.
    """
    _check_levels(feature_shapes, scales=scales)
    _check_positive(scales=scales, aspect_ratios=aspect_ratios)
    sizes = []
    for scales_of_map in scales:
        roots = np.sqrt(np.asarray(aspect_ratios, "float64"))[:, None]
        sides = np.atleast_1d(scales_of_map)[None]
        sizes.append(np.stack([sides * roots, sides / roots], axis=-1).reshape(-1, 2))
    return _anchors_in_pixels(feature_shapes, strides, image_size, sizes)


def retinanet_anchors(
    feature_shapes,
    strides,
    image_size,
    scales=(32, 64, 128, 256, 512),
    octave_scales=(1.0, 2 ** (1 / 3), 2 ** (2 / 3)),
    aspect_ratios=(0.5, 1.0, 2.0),
):
    """RetinaNet's nine anchors a cell (Lin et al. 2017b, section 4, "Anchors").

    Args:
        feature_shapes, strides, image_size: as in `rpn_anchors`; the paper's maps P3 to P7
            have the strides 8, 16, 32, 64 and 128.
        scales: for each map the square root of the area of its smallest boxes, in pixels.
        octave_scales: factors on these.
        aspect_ratios: height / width of the boxes.

    Returns:
        NumPy float32 (A, 4) center form; in a cell ratio by ratio, each scale by scale.

    Raises:
        ValueError: as in `rpn_anchors`.
    """
    scales = [[scale * factor for factor in octave_scales] for scale in scales]
    return rpn_anchors(feature_shapes, strides, image_size, scales, aspect_ratios)


def yolo_priors(feature_shapes, strides, image_size, sizes):
    """Priors of YOLOv2 and YOLOv3 (Redmon & Farhadi 2017, "Dimension Clusters").

    Args:
        feature_shapes, strides, image_size: as in `rpn_anchors`.
        sizes: for each map the (height, width) of its priors in pixels: `[YOLOV2_PRIORS]`
            for YOLOv2's map of stride 32, `YOLOV3_PRIORS` for YOLOv3's of 8, 16 and 32.

    Returns:
        NumPy float32 (A, 4) center form, the references of `boxes.encode_yolo`; the cells of
        a map are strides / image_size large.

    Raises:
        ValueError: lists that don't have an entry for each map; a number that isn't
            positive.
    """
    _check_levels(feature_shapes, sizes=sizes)
    _check_positive(sizes=sizes)
    return _anchors_in_pixels(feature_shapes, strides, image_size, sizes)


def _anchors_in_pixels(feature_shapes, strides, image_size, sizes):
    """Anchors from strides and sizes (height, width) in pixels."""
    _check_levels(feature_shapes, strides=strides)
    _check_positive(feature_shapes=feature_shapes, strides=strides, image_size=image_size)
    if len(image_size) != 2:
        raise ValueError(f"image_size must be (height, width); received: {image_size}")
    boxes = []
    for feature_shape, stride, sizes_of_map in zip(feature_shapes, strides, sizes):
        step = np.broadcast_to(stride, 2) / np.asarray(image_size)
        boxes.append(_tile(feature_shape, step, sizes_of_map / np.asarray(image_size)))
    return np.concatenate(boxes)


def _tile(feature_shape, step, sizes):
    """float32 (rows * columns * K, 4): boxes of K sizes (height, width) centred in every cell."""
    rows, columns = feature_shape
    cy, cx = np.meshgrid(
        (np.arange(rows) + 0.5) * step[0], (np.arange(columns) + 0.5) * step[1], indexing="ij"
    )
    centers = np.stack([cy, cx], axis=-1)[:, :, None, :]
    centers, sizes = np.broadcast_arrays(centers, np.asarray(sizes)[None, None])
    return np.concatenate([centers, sizes], axis=-1).reshape(-1, 4).astype("float32")


def _check_levels(feature_shapes, **lists):
    for name, values in lists.items():
        if len(values) != len(feature_shapes):
            raise ValueError(
                f"{name} must have one entry for each of the {len(feature_shapes)} "
                f"feature_shapes; received: {values}"
            )


def _check_positive(**settings):
    for name, values in settings.items():
        for value in values:
            if not np.all(np.asarray(value) > 0):
                raise ValueError(f"{name} must be positive; received: {values}")
