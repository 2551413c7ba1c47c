"""How well pixels are classified, and how well the boundaries between their classes are found.

Shares of pixels and intersection over union as Long et al. 2015, Fully Convolutional Networks for
Semantic Segmentation, section 5, https://arxiv.org/abs/1411.4038, define them; boundaries by
Csurka et al. 2013, What is a good evaluation measure for semantic segmentation?; the errors of
membranes between cells by Arganda-Carreras et al. 2015, Crowdsourcing the creation of image
segmentation algorithms for connectomics, https://doi.org/10.3389/fnana.2015.00142.
"""

import collections

import cv2
import numpy as np

from kerasvision.metrics.confusion import confusion_matrix

PIXEL_THRESHOLD = 0.5
RAND_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
WARPING_THRESHOLDS = (0.3, 0.5, 0.7)

# The eight neighbours of a pixel as (y, x), counter-clockwise; the opposite of number k has
# number (k + 4) % 8.
NEIGHBOURS = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))
_RING = (np.arange(256)[:, None] >> (np.arange(9) % 8)) & 1
# Whether a pixel can change sides without joining, parting, making or closing any piece: by its
# neighbours, of which bit k says whether number k is foreground (4-connected; the background is
# 8-connected). Yokoi et al. 1975, Analysis of topological properties of digitized binary
# pictures: the number of pieces of foreground that meet at the pixel must be 1.
IS_SIMPLE = sum(_RING[:, k] * (1 - _RING[:, k + 1] * _RING[:, k + 2]) for k in (0, 2, 4, 6)) == 1


class SegmentationScores:
    """Scores of predicted class maps, over pictures of any size.

    Args:
        class_names: C names.
        boundaries: whether boundaries are scored, which takes longer than all else.

    Attributes:
        confusion: (C, C) int64 pixels, a row a true class; void is in none.
        boundary_f1: list of the `boundary_f1` of each picture, or None; empty without boundaries.
    """

    def __init__(self, class_names, boundaries=True):
        self.class_names = list(class_names)
        self.boundaries = boundaries
        self.confusion = np.zeros((len(self.class_names), len(self.class_names)), "int64")
        self.boundary_f1 = []

    def update(self, labels, predictions):
        """Adds a picture.

        Args:
            labels: (H, W) integers from 0 to C - 1, or -1 = void, which is ignored.
            predictions: (H, W) integers from 0 to C - 1.

        Raises:
            ValueError: the maps are not of one size or have values that are no class.
        """
        num_classes = len(self.class_names)
        labels, predictions = _class_maps(labels, predictions, num_classes)
        known = labels >= 0
        self.confusion += confusion_matrix(labels[known], predictions[known], num_classes)
        if self.boundaries:
            self.boundary_f1.append(boundary_f1(labels, predictions, num_classes))

    def result(self):
        """The scores so far.

        Returns:
            dict: "pixel_accuracy", over all pixels of all pictures; "mean_class_accuracy", over
            the classes that have pixels; "mean_iou", over the classes that have or were given
            pixels; "boundary_f1", over the pictures that have one; "per_class", a list of dicts
            with "name", "pixels", "accuracy", None without pixels, and "iou", None if the class
            wasn't predicted either. Numbers without anything to measure are None.
        """
        right, pixels = self.confusion.diagonal(), self.confusion.sum(axis=1)
        union = pixels + self.confusion.sum(axis=0) - right
        per_class = [
            {
                "name": name,
                "pixels": int(n),
                "accuracy": float(hits / n) if n else None,
                "iou": float(hits / either) if either else None,
            }
            for name, n, hits, either in zip(self.class_names, pixels, right, union)
        ]
        return {
            "pixel_accuracy": float(right.sum() / pixels.sum()) if pixels.any() else None,
            "mean_class_accuracy": _mean(row["accuracy"] for row in per_class),
            "mean_iou": _mean(row["iou"] for row in per_class),
            "boundary_f1": _mean(self.boundary_f1),
            "per_class": per_class,
        }


def format_table(result):
    """The numbers of `SegmentationScores.result` as lines to read; "-" stands for None.

    Those of `membrane_scores` follow the first ones if they are there, as "membranes".
    """

    def number(value):
        return "    -" if value is None else f"{value:.3f}"

    rows = result["per_class"]
    width = max(map(len, ["class", *(row["name"] for row in rows)]))
    pixels = max(sum(row["pixels"] for row in rows), 1)
    lines = [
        f"pixel accuracy       {number(result['pixel_accuracy'])}",
        f"mean class accuracy  {number(result['mean_class_accuracy'])}",
        f"mean IoU             {number(result['mean_iou'])}",
        f"boundary F1          {number(result['boundary_f1'])}",
    ]
    if "membranes" in result:
        errors = result["membranes"]
        lines += [
            f"pixel error          {errors['pixel_error']:.4f}",
            f"Rand error           {errors['rand_error']:.4f}",
            f"warping error        {errors['warping_error']:.6f}",
        ]
    lines += ["", f"{'class':<{width}}    IoU  accuracy  share of pixels"]
    lines += [
        f"{row['name']:<{width}}  {number(row['iou'])}  {number(row['accuracy']):>8}"
        f"  {row['pixels'] / pixels:>15.3f}"
        for row in rows
    ]
    return "\n".join(lines)


def boundary_f1(labels, predictions, num_classes, tolerance=0.0075):
    """How well the boundaries of the classes of one picture are found.

    A pixel is on the boundary of its class if one of its four neighbours in the picture has
    another class. For each class, precision is the share of the predicted boundary pixels that
    have a true one within the tolerance, recall the share of the true ones that have a predicted
    one; F1 is their harmonic mean. The score is its mean over the classes of the true map.

    What lies in void is neither right nor wrong: edges of the prediction in or against void don't
    count in precision. Void pixels within the tolerance of a labelled one take, in the true map,
    the class of the nearest, of equally near ones that with the lower number: so a contour left
    void, as around the objects of Pascal VOC, becomes a boundary in its middle. An edge against
    the rest of void is no boundary.

    A class without boundary in both maps, as one that fills the picture, is left out of the mean;
    if no predicted boundary pixel counts, precision is 1.

    Csurka et al. 2013, section 3; over the classes of a picture and then over pictures as in
    Badrinarayanan et al. 2017, SegNet, section 4.1, https://arxiv.org/abs/1511.00561.

    Args:
        labels: (H, W) integers from 0 to C - 1, or -1 = void.
        predictions: (H, W) integers from 0 to C - 1.
        num_classes: C.
        tolerance: distance between centres of pixels, divided by the diagonal of the picture;
            in pixels it is rounded, halves up, and at least 1.

    Returns:
        float from 0 to 1, or None if there is no boundary to measure.

    Raises:
        ValueError: as in `SegmentationScores.update`.
    """
    labels, predictions = _class_maps(labels, predictions, num_classes)
    radius = max(1, int(tolerance * np.hypot(*labels.shape) + 0.5))
    classes = np.unique(labels[labels >= 0])
    truth, distance = labels.copy(), np.full(labels.shape, np.inf)
    if (labels < 0).any():
        for k in classes:
            to_class = _distance_to(labels == k)
            nearer = (labels < 0) & (to_class <= radius) & (to_class < distance)
            truth[nearer], distance[nearer] = k, to_class[nearer]
    true_edges, edges = _edges(truth), _edges(predictions)
    counted = _edges(np.where(labels < 0, -1, predictions))
    scores = []
    for k in classes:
        true_boundary = true_edges & (truth == k)
        boundary = edges & (predictions == k)
        counted_boundary = counted & boundary
        if not true_boundary.any():
            scores += [0.0] if counted_boundary.any() else []
            continue
        near_truth = (_distance_to(true_boundary) <= radius)[counted_boundary]
        precision = near_truth.mean() if near_truth.size else 1.0
        recall = (_distance_to(boundary) <= radius)[true_boundary].mean()
        scores.append(2 * precision * recall / (precision + recall) if recall else 0.0)
    return _mean(scores)


def pixel_error(labels, predictions):
    """The share of the pixels that differ.

    Args:
        labels: (H, W) bool, or integers 0 and 1: whether a pixel is of the inside of a cell, the
            truth.
        predictions: (H, W) likewise.

    Raises:
        ValueError: the maps have no pixel, differ in size or have other values.
    """
    labels, predictions = _cell_maps(labels, predictions)
    return float((labels != predictions).mean())


def rand_error(labels, predictions):
    """How often two pixels are wrongly put into one cell, or into two.

    Cells are the 4-connected pieces. Of all pairs of pixels that are in cells in truth, precision
    is the share truly in one cell among those predicted in one cell, recall the reverse; the
    error is 1 - their harmonic mean. A pixel that is predicted to be membrane is in no cell, so
    that wide membranes cost recall: the "foreground-restricted Rand error" of the challenge of
    2012, without the thinning of membranes of Arganda-Carreras et al. 2015.

    Args, raises: as in `pixel_error`.

    Returns:
        float from 0 to 1; 0 if neither map has a pair of pixels in one cell.
    """
    labels, predictions = _cell_maps(labels, predictions)
    cells = _components(labels)[labels]
    found = _components(predictions)[labels]
    in_cell = found > 0
    pairs_in_truth = _pairs(np.bincount(cells))
    pairs_found = _pairs(np.bincount(found[in_cell]))
    both = cells[in_cell] * (found.max(initial=0) + 1) + found[in_cell]
    pairs_in_both = _pairs(np.unique(both, return_counts=True)[1])
    if not pairs_in_truth + pairs_found:
        return 0.0
    return 1 - 2 * pairs_in_both / (pairs_in_truth + pairs_found)


def warping_error(labels, predictions):
    """The share of pixels that stay wrong when boundaries may be shifted but nothing else.

    The true map becomes the prediction, pixel by pixel, as far as it can without a cell, or
    4-connected piece, or an 8-connected piece of membrane being split, joined, made or lost. What
    still differs is counted: the pixels of gaps in membranes, of membranes through cells, of cells
    missed. Around the picture is membrane.

    Which pixels remain, and in tangled places how many, depends on the order: here a queue that
    starts row by row and takes up a pixel again when a neighbour of it has changed. There is no
    limit to how far a boundary is shifted.

    Jain et al. 2010, Boundary learning by optimization with topological constraints, section 3.

    Args, raises: as in `pixel_error`.
    """
    labels, predictions = _cell_maps(labels, predictions)
    height, width = labels.shape
    cells = np.pad(labels, 1)
    codes = np.zeros(cells.shape, "uint8")
    for k, (y, x) in enumerate(NEIGHBOURS):
        codes[1:-1, 1:-1] |= cells[1 + y : 1 + y + height, 1 + x : 1 + x + width] * np.uint8(1 << k)
    # One by one, Python's own sequences are faster than NumPy's.
    codes, wrong = bytearray(codes), bytearray(np.pad(labels != predictions, 1))
    is_simple = IS_SIMPLE.tolist()
    steps = [(y * (width + 2) + x, 1 << (k + 4) % 8) for k, (y, x) in enumerate(NEIGHBOURS)]
    queue = collections.deque(np.flatnonzero(wrong).tolist())
    while queue:
        pixel = queue.popleft()
        if wrong[pixel] and is_simple[codes[pixel]]:
            wrong[pixel] = False
            for step, bit in steps:
                codes[pixel + step] ^= bit
                if wrong[pixel + step]:
                    queue.append(pixel + step)
    return sum(wrong) / labels.size


def membrane_scores(labels, probabilities):
    """The three errors of the challenge of ISBI 2012, the latter two at their best threshold.

    A pixel is predicted to be in a cell if its probability is at least the threshold. The errors
    of several pictures are averaged before the threshold is chosen.

    Arganda-Carreras et al. 2015, section 2.

    Args:
        labels: (H, W), or (P, H, W) for P pictures: bool, or integers 0 and 1, whether a pixel is
            of the inside of a cell, the truth.
        probabilities: likewise from 0 to 1, of the inside of cells.

    Returns:
        dict: "pixel_error" at `PIXEL_THRESHOLD`; "rand_error", the least of `RAND_THRESHOLDS`,
        and "rand_threshold"; "warping_error", of `WARPING_THRESHOLDS`, and "warping_threshold".
        Of thresholds with the same error it is the lowest.

    Raises:
        ValueError: as in `pixel_error`, or a probability that is none.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    if labels.shape != probabilities.shape or labels.ndim not in (2, 3) or not labels.size:
        raise ValueError(
            f"labels and probabilities: must be of one shape (H, W) or (P, H, W), with pixels; "
            f"received: {labels.shape} and {probabilities.shape}"
        )
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ValueError(
            f"probabilities: must be from 0 to 1; "
            f"received: {probabilities.min()} to {probabilities.max()}"
        )
    pictures = list(
        zip(*(values.reshape(-1, *values.shape[-2:]) for values in (labels, probabilities)))
    )

    def errors(measure, thresholds):
        return {
            threshold: float(np.mean([measure(truth, p >= threshold) for truth, p in pictures]))
            for threshold in thresholds
        }

    rand = errors(rand_error, RAND_THRESHOLDS)
    warping = errors(warping_error, WARPING_THRESHOLDS)
    return {
        "pixel_error": errors(pixel_error, [PIXEL_THRESHOLD])[PIXEL_THRESHOLD],
        "rand_error": min(rand.values()),
        "rand_threshold": min(rand, key=rand.get),
        "warping_error": min(warping.values()),
        "warping_threshold": min(warping, key=warping.get),
    }


def _mean(values):
    """The mean of those that are not None; None if all are."""
    values = [value for value in values if value is not None]
    return float(np.mean(values)) if values else None


def _class_maps(labels, predictions, num_classes):
    """Both maps as int64, if they are fit to be compared."""
    maps = np.asarray(labels), np.asarray(predictions)
    if maps[0].ndim != 2 or maps[0].shape != maps[1].shape:
        raise ValueError(
            f"labels and predictions: must be of one shape (H, W); "
            f"received: {maps[0].shape} and {maps[1].shape}"
        )
    for name, values, lowest in zip(("labels", "predictions"), maps, (-1, 0)):
        if not np.issubdtype(values.dtype, np.integer):
            raise ValueError(f"{name}: must be integers; received: {values.dtype}")
        if values.size and (values.min() < lowest or values.max() >= num_classes):
            raise ValueError(
                f"{name}: must be from {lowest} to {num_classes - 1}; "
                f"received: {values.min()} to {values.max()}"
            )
    return maps[0].astype("int64"), maps[1].astype("int64")


def _cell_maps(labels, predictions):
    """Both maps as bool, if they are fit to be compared."""
    maps = np.asarray(labels), np.asarray(predictions)
    if maps[0].ndim != 2 or maps[0].shape != maps[1].shape or not maps[0].size:
        raise ValueError(
            f"labels and predictions: must be of one shape (H, W), with pixels; "
            f"received: {maps[0].shape} and {maps[1].shape}"
        )
    for name, values in zip(("labels", "predictions"), maps):
        other = values[(values != 0) & (values != 1)]
        if other.size:
            raise ValueError(f"{name}: must be True or False, 1 or 0; received: {other[0]}")
    return maps[0].astype(bool), maps[1].astype(bool)


def _edges(classes):
    """(H, W) bool: which pixels have a neighbour of another class; none to or from void."""
    edges = np.zeros(classes.shape, bool)
    for values, on_edge in ((classes, edges), (classes.T, edges.T)):
        above, below = values[:-1], values[1:]
        differ = (above != below) & (above >= 0) & (below >= 0)
        on_edge[:-1] |= differ
        on_edge[1:] |= differ
    return edges


def _distance_to(mask):
    """(H, W) float32 pixels to the nearest pixel of a mask; infinite if it has none."""
    if not mask.any():
        return np.full(mask.shape, np.inf, "float32")
    return cv2.distanceTransform((~mask).astype("uint8"), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def _components(cells):
    """(H, W) int64: the number of the 4-connected piece of each pixel, 0 where there is none."""
    return cv2.connectedComponents(cells.astype("uint8"), connectivity=4)[1].astype("int64")


def _pairs(counts):
    """How many pairs there are within groups of so many."""
    counts = counts.astype("int64")
    return int((counts * (counts - 1) // 2).sum())
