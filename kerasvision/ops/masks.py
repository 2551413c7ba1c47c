"""Masks on grids over boxes, as masks of the picture. NumPy: it follows the network."""

import numpy as np


def paste_mask(mask, box, image_size, threshold=0.5):
    """The pixels of a picture that a mask over a box covers.

    A pixel belongs to an object if its centre is in the box, and the mask, interpolated between
    the centres of its cells, is at least the threshold there. Half a cell at the border keeps the
    value of the outermost centres.

    He et al. 2017, Mask R-CNN, section 3.1, "Inference", https://arxiv.org/abs/1703.06870.

    Args:
        mask: NumPy (h, w) probabilities.
        box: (ymin, xmin, ymax, xmax) divided by the picture's height and width.
        image_size: (height, width) of the picture in pixels, of any size.
        threshold: 0 to 1.

    Returns:
        (rows, columns), slices of the pixels whose centres are in the box; and NumPy
        (len(rows), len(columns)) bool: which of these pixels are the object's.
    """
    window, places = [], []
    for start, end, pixels, cells in zip(box[:2], box[2:], image_size, mask.shape):
        centres = (np.arange(pixels) + 0.5) / pixels
        inside = np.flatnonzero((centres > start) & (centres < end))
        window.append(slice(inside[0], inside[-1] + 1) if len(inside) else slice(0, 0))
        place = (centres[inside] - start) / max(end - start, 1e-12) * cells - 0.5
        places.append(np.clip(place, 0, cells - 1))
    # Along the rows first, while there are few of them.
    values = _interpolate(np.asarray(mask, "float64").T, places[1]).T
    return tuple(window), _interpolate(values, places[0]) >= threshold


def _interpolate(values, places):
    """Rows at fractional places (R,), in range, between those of the values (n, m): (R, m)."""
    # Not a product of matrices: its threads would wait for each other longer than it takes.
    first = places.astype(int)
    second = np.minimum(first + 1, len(values) - 1)
    return values[first] + (places - first)[:, None] * (values[second] - values[first])


def paste_masks(masks, boxes, image_size, threshold=0.5):
    """Masks over boxes as masks of the whole picture; arguments as in `paste_mask`, and

    Args:
        masks: NumPy (K, h, w).
        boxes: NumPy (K, 4).

    Returns:
        NumPy (K, height, width) bool.
    """
    pasted = np.zeros((len(masks), *image_size), bool)
    for picture, mask, box in zip(pasted, masks, np.asarray(boxes, "float64")):
        window, covered = paste_mask(mask, box, image_size, threshold)
        picture[window] = covered
    return pasted
