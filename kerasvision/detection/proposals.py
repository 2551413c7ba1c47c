"""Where might objects be? Three answers from the time before networks gave one.

Selective search looks at the picture: what has like colours and textures belongs together.
Sliding windows and clusters of boxes don't: they are the same for every picture.
"""

import cv2
import numpy as np
from sklearn.cluster import KMeans

MODES = ("single", "fast", "quality")


def selective_search(image, mode="fast", max_proposals=2000, seed=0):
    """Boxes around segments of a picture, and around what they grow to when merged.

    Uijlings et al. 2013, "Selective search for object recognition": a graph segmentation cuts the
    picture up, and again and again the two most alike neighbours are merged (section 3.1), by
    several measures of likeness in several colour spaces (section 3.2). Every segment that ever
    was gives a box. R-CNN uses the "fast" mode (Girshick et al. 2014, section 2.2).

    OpenCV ranks the boxes by C's random numbers; here they come in an order of their own, so that
    the same picture gives the same boxes.

    Args:
        image: (H, W, 3) RGB uint8.
        mode: "single" strategy, "fast" or "quality", with more strategies each.
        max_proposals: of more boxes so many are drawn.
        seed: of the order, and so of the draw.

    Returns:
        (N, 4) float32 (ymin, xmin, ymax, xmax) divided by the picture's height and width, all
        different; N may be 0 in a picture of few pixels.

    Raises:
        ValueError: another image or mode.
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8:
        raise ValueError(
            f"image must be (height, width, 3) uint8; received: {image.shape}, {image.dtype}"
        )
    if mode not in MODES:
        raise ValueError(f"mode must be {', '.join(MODES)}; received: {mode!r}")
    height, width = image.shape[:2]
    if min(height, width) < 2:
        return np.zeros((0, 4), "float32")
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(image[:, :, ::-1]))
    if mode == "single":
        search.switchToSingleStrategy()
    elif mode == "fast":
        search.switchToSelectiveSearchFast()
    else:
        search.switchToSelectiveSearchQuality()
    left, top, right, bottom = np.unique(search.process().reshape(-1, 4), axis=0).T
    right, bottom = left + right, top + bottom  # OpenCV gives widths and heights
    boxes = np.stack([top / height, left / width, bottom / height, right / width], axis=1)
    order = np.random.default_rng(seed).permutation(len(boxes))
    return boxes[order[:max_proposals]].astype("float32")


def sliding_windows(scales=(0.2, 0.3, 0.45, 0.65, 0.9), aspect_ratios=(0.5, 1.0, 2.0), step=0.25):
    """Windows of several sizes and shapes all over the picture, the same for each picture.

    They are spread evenly from border to border. With the defaults there are 1,418.

    Args:
        scales: square roots of the windows' areas, of a picture with area 1.
        aspect_ratios: height / width. Windows that are larger than the picture are left out.
        step: from window to window, at most, divided by the window's side.

    Returns:
        (N, 4) float32 (ymin, xmin, ymax, xmax), relative.

    Raises:
        ValueError: scales, ratios or a step that aren't positive, or no window that fits.
    """
    if min(*scales, *aspect_ratios, step) <= 0:
        raise ValueError(
            "scales, aspect_ratios and step must be above 0; "
            f"received: {scales}, {aspect_ratios} and {step}"
        )
    windows = []
    for scale in scales:
        for ratio in aspect_ratios:
            sides = np.array([scale * ratio**0.5, scale / ratio**0.5])
            if sides.max() > 1.0:
                continue
            counts = np.ceil((1.0 - sides) / (step * sides)).astype(int) + 1
            starts = [np.linspace(0.0, 1.0 - side, n) for side, n in zip(sides, counts)]
            corner = np.stack(np.meshgrid(*starts, indexing="ij"), axis=-1).reshape(-1, 2)
            windows.append(np.concatenate([corner, corner + sides], axis=1))
    if not windows:
        raise ValueError(
            "scales and aspect_ratios must give a window inside the picture; "
            f"received: {scales} and {aspect_ratios}"
        )
    return np.clip(np.concatenate(windows), 0.0, 1.0).astype("float32")


def cluster_boxes(boxes, number, seed=0):
    """The centres of a k-means of training boxes: where objects are, whatever the picture.

    Lenc & Vedaldi 2015, "R-CNN minus R": such proposals do nearly as well as those that were
    searched for, as a box regressor sees in the features how to move them.

    Args:
        boxes: (N, 4) (ymin, xmin, ymax, xmax), relative, of the training pictures' objects.
        number: K of clusters; as many boxes, at least, must be different.
        seed: of the start.

    Returns:
        (K, 4) float32, the largest first.

    Raises:
        ValueError: too few different boxes.
    """
    boxes = np.asarray(boxes, "float64").reshape(-1, 4)
    different = len(np.unique(boxes, axis=0))
    if not 1 <= number <= different:
        raise ValueError(
            f"number must be 1 to {different}, the number of different training boxes; "
            f"received: {number}"
        )
    centres = KMeans(number, n_init=1, random_state=seed).fit(boxes).cluster_centers_
    area = np.prod(centres[:, 2:] - centres[:, :2], axis=1)
    return centres[np.argsort(-area, kind="stable")].astype("float32")


def padded(proposals, number):
    """The first `number` of proposals (N, 4), filled up with boxes of zeros: (number, 4)."""
    kept = np.asarray(proposals, "float32").reshape(-1, 4)[:number]
    return np.pad(kept, [(0, number - len(kept)), (0, 0)])
