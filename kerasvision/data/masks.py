"""Masks of objects: read from COCO's formats, and laid on a grid over each object's box."""

import math

import numpy as np
from faster_coco_eval.core import mask as rle_lib

# Rows and columns of a grid: twice as fine as the masks that Mask R-CNN learns.
SIDE = 56
# IoU that the bounds of a mask must have with the object's box.
MIN_BOUNDS_IOU = 0.5
# Points further outside (pixels) are no points of a picture; drawing them would take gigabytes.
MAX_COORDINATE = 1e5


def read_mask(segmentation, size, report):
    """Reads a mask in one of COCO's formats.

    Args:
        segmentation: list of polygons [x1, y1, x2, y2, …] in pixels, whose union is the object;
            or run lengths {"size": [height, width], "counts": list, str or bytes}.
        size: (height, width) of the picture in pixels.
        report: callable of a rule and what was received; called if the mask breaks a rule.

    Returns:
        The mask as compressed run lengths, as they are evaluated; None if it can't be used.
    """
    height, width = size
    if isinstance(segmentation, dict):
        try:
            counts = segmentation["counts"]
            if list(segmentation["size"]) != [height, width]:
                raise ValueError(f"size {segmentation['size']} for {height} x {width} pixels")
            if isinstance(counts, list):
                segmentation = rle_lib.frPyObjects(segmentation, height, width)
            rle_lib.decode(segmentation)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            received = str(error).splitlines()[0][:80]
            report("run lengths must cover the picture, object ignored", received)
            return None
        counts = segmentation["counts"]
        counts = counts.encode() if isinstance(counts, str) else counts
        return {"size": [height, width], "counts": counts}

    if not isinstance(segmentation, list) or not segmentation:
        rule = "an object must have a mask, polygons or run lengths, object ignored"
        report(rule, str(segmentation)[:40])
        return None
    polygons = [polygon for polygon in segmentation if _is_polygon(polygon)]
    if len(polygons) < len(segmentation):
        bad = next(polygon for polygon in segmentation if not _is_polygon(polygon))
        rest = "left out" if polygons else "object ignored"
        report(f"a polygon must have three points or more, {rest}", str(bad)[:60])
    if not polygons:
        return None
    return rle_lib.merge(rle_lib.frPyObjects(polygons, height, width))


def _is_polygon(points):
    return (
        isinstance(points, list)
        and len(points) >= 6
        and len(points) % 2 == 0
        and all(isinstance(value, (int, float)) and math.isfinite(value) for value in points)
        and max(map(abs, points)) <= MAX_COORDINATE
    )


def encode_instances(instances, count):
    """Run lengths of `count` objects in a map (H, W) of their numbers from 1; 0: background."""
    masks = instances[..., None] == np.arange(1, count + 1, dtype=instances.dtype)
    return rle_lib.encode(np.asfortranarray(masks, "uint8"))


def bounds_iou(mask, box):
    """IoU of the bounds of a mask with a box (ymin, xmin, ymax, xmax) in pixels."""
    left, top, width, height = rle_lib.toBbox(mask)
    overlap = np.minimum([top + height, left + width], box[2:]) - np.maximum([top, left], box[:2])
    intersection = np.prod(np.maximum(overlap, 0.0))
    union = width * height + np.prod(box[2:] - box[:2]) - intersection
    return float(intersection / union)


def grid_over_box(mask, box):
    """What an object covers of its box: the mask in the middle of each of 56 x 56 cells.

    Args:
        mask: run lengths.
        box: (ymin, xmin, ymax, xmax) in pixels, inside of the picture.

    Returns:
        (56, 56) bool.
    """
    pixels = rle_lib.decode(mask)
    middles = (np.arange(SIDE) + 0.5) / SIDE
    rows, columns = (
        np.minimum((start + middles * (end - start)).astype(int), side - 1)
        for start, end, side in zip(box[:2], box[2:], pixels.shape)
    )
    return pixels[np.ix_(rows, columns)].astype(bool)


def mirrored(names):
    """Which keypoint each one becomes in a mirror: left_eye is then where right_eye was.

    Args:
        names: of the keypoints.

    Returns:
        list of their indices; a keypoint without a counterpart stays itself.
    """
    counterparts = [
        "right".join(part.replace("right", "left") for part in name.split("left")) for name in names
    ]
    return [
        names.index(other) if other in names else index for index, other in enumerate(counterparts)
    ]
