"""Weights of pixels that make U-Net learn the thin borders between cells that touch."""

import math

import cv2
import numpy as np


def border_weights(labels, cell, w0=10.0, sigma=5.0, class_weights=None):
    """Weights the pixels of one picture: w(x) = w_c(x) + w0 exp(-(d1(x) + d2(x))^2 / (2 sigma^2)).

    d1 and d2 are the distances, between the centres of pixels, to the nearest and the second
    nearest cell, a component of the class of cells whose pixels are 4-connected. The second term
    counts outside of cells only, and where there are two cells. w_c balances the classes.

    Args:
        labels: (H, W) integers, classes from 0, -1 = void.
        cell: int, the class of the cells.
        w0, sigma: height, and width in pixels, of the second term.
        class_weights: (C,) w_c of each class; None: the inverse of its share of this picture,
            which is scaled so that the mean of w_c over the pixels that are not void is 1.

    Returns:
        (H, W) float32, 0 where the label is void.

    Reference: Ronneberger et al., "U-Net" (arXiv:1505.04597), section 3, equation 2.
    """
    labels = np.asarray(labels)
    known = labels >= 0
    if class_weights is None:
        class_weights = inverse_frequencies(np.bincount(labels[known]))
    # The zero at the end is what -1 takes.
    weights = np.append(class_weights, 0.0).astype(np.float32)[labels]
    nearest, second = _two_nearest(labels == cell, reach=math.ceil(5 * sigma))
    border = w0 * np.exp(-((nearest + second) ** 2) / (2 * sigma**2))
    return weights + np.where(known & (labels != cell), border, 0.0).astype(np.float32)


def inverse_frequencies(counts):
    """Weights (C,) float64 of classes with so many pixels (C,), of mean 1 over all of these.

    A class without pixels has the weight 0.
    """
    counts = np.asarray(counts, np.float64)
    present = counts > 0
    shares = np.sum(counts) / max(1, np.sum(present))
    return np.where(present, shares / np.maximum(counts, 1.0), 0.0)


def _two_nearest(cells, reach):
    """Distances (H, W) float32 to the two nearest components of a mask; infinite beyond `reach`."""
    nearest = np.full(cells.shape, np.inf, np.float32)
    second = nearest.copy()
    count, components, boxes, _ = cv2.connectedComponentsWithStats(
        cells.astype(np.uint8), connectivity=4
    )
    for number in range(1, count):
        left, top, width, height, _ = boxes[number]
        # Further away the term is below w0 exp(-12.5), so a cell's surroundings are enough.
        around = (
            slice(max(0, top - reach), top + height + reach),
            slice(max(0, left - reach), left + width + reach),
        )
        outside = (components[around] != number).astype(np.uint8)
        distance = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        farther = np.maximum(nearest[around], distance)
        second[around] = np.minimum(second[around], farther)
        nearest[around] = np.minimum(nearest[around], distance)
    return nearest, second
