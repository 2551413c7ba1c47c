"""Non-maximum suppression.

Boxes are (ymin, xmin, ymax, xmax); as in TensorFlow any two opposite corners will do. Greedy
suppression takes boxes in the order of their scores, equal scores in that of their indices,
and keeps each unless its IoU with a kept one exceeds the threshold. A box without area has IoU
0 with every box. Boxes with a coordinate or a score that isn't finite are never kept. Which
boxes are kept has no gradient; the boxes and scores returned have.
"""

import math

import keras
from keras import ops

from kerasvision.ops.boxes import check_boxes

_LARGEST_FLOAT = 3.4028235e38


# --- Greedy ------------------------------------------------------------------------------


def non_max_suppression(
    boxes, scores, iou_threshold=0.5, score_threshold=-math.inf, max_detections=100
):
    """Greedy non-maximum suppression without regard to classes.

    The kept indices equal those of `tf.image.non_max_suppression`, as long as the sum of two
    areas is finite in float32.

    Args:
        boxes: (N, 4) of a picture, or (B, N, 4) of a batch.
        scores: (N,) or (B, N) float.
        iou_threshold: in [0, 1]; a box is suppressed by an IoU above it.
        score_threshold: boxes must score above it.
        max_detections: K, at most N; any number if N is 0.

    Returns:
        indices (K,) or (B, K) int32 of the kept boxes, best first, padded with -1, and their
        count () or (B,) int32.

    Raises:
        ValueError: shapes or settings other than these.
    """
    boxes, scores = _boxes_and_scores(boxes, scores, ranks=(2, 3))
    check_settings(iou_threshold, score_threshold, max_detections)
    _check_number(max_detections, scores.shape[-1])
    single = len(boxes.shape) == 2
    if single:
        boxes, scores = boxes[None], scores[None]
    kept, count = _greedy(
        boxes, scores[:, :, None], None, iou_threshold, score_threshold, max_detections
    )
    return (kept[0], count[0]) if single else (kept, count)


def batched_non_max_suppression(
    boxes,
    scores,
    iou_threshold=0.5,
    score_threshold=0.0,
    max_detections=100,
    candidates=None,
    class_agnostic=False,
):
    """Greedy non-maximum suppression, each class by itself, over a batch of pictures.

    The (box, class) pairs of a picture are taken in the order of their scores; each is kept
    unless its box overlaps a kept one of its class. The result is that of suppression class
    by class of which the K best are returned.

    Args:
        boxes: (B, A, 4).
        scores: (B, A, C) float.
        iou_threshold: in [0, 1]; a pair is suppressed by an IoU above it.
        score_threshold: pairs must score above it.
        max_detections: K, at most the number of pairs; any number if that is 0.
        candidates: how many pairs of a picture are looked at, best first; None: as many as
            there are. With fewer than K, K is their number.
        class_agnostic: each box is one pair, with its best class, and boxes of all classes
            suppress each other.

    Returns:
        dict of "boxes" (B, K, 4), "scores" (B, K), "labels" (B, K) int32, 0 to C - 1, and
        "count" (B,) int32, sorted by score. Padding: boxes 0, scores 0, labels -1.

    Raises:
        ValueError: shapes or settings other than these.
    """
    boxes, scores = _boxes_and_pair_scores(boxes, scores)
    check_settings(iou_threshold, score_threshold, max_detections, candidates)
    _check_number(max_detections, scores.shape[1] * (1 if class_agnostic else scores.shape[2]))
    boxes, scores = _with_a_row(boxes), _with_a_row(scores, -math.inf)
    labels = None
    if class_agnostic:
        scores = ops.where(scores < math.inf, scores, -math.inf)
        labels = ops.cast(ops.argmax(scores, axis=2), "int32")
        scores = ops.max(scores, axis=2, keepdims=True)
    num_boxes, num_classes = scores.shape[1:]

    if candidates is not None and candidates < num_boxes * num_classes:
        scores, pairs = _top_pairs(scores, _usable(boxes), score_threshold, candidates)
        scores = scores[:, :, None]
        boxes = _take_rows(boxes, pairs // num_classes)
        if class_agnostic:
            labels = ops.take_along_axis(labels, pairs, axis=1)
        else:
            labels = pairs % num_classes
    if candidates is not None:
        max_detections = min(max_detections, candidates)
    apart = None if class_agnostic else labels
    kept, count = _greedy(boxes, scores, apart, iou_threshold, score_threshold, max_detections)
    return _detections(boxes, scores, labels, kept, count)


def labelled_non_max_suppression(
    boxes, scores, labels, iou_threshold=0.5, score_threshold=0.0, max_detections=100
):
    """Greedy non-maximum suppression of boxes with one class each, over a batch of pictures.

    Args:
        boxes: (B, N, 4).
        scores: (B, N) float.
        labels: (B, N) int, the class of each box, below 2^24; a negative one is padding and
            never kept.
        iou_threshold: in [0, 1]; a box is suppressed by an IoU above it with a better one of
            its class.
        score_threshold: boxes must score above it.
        max_detections: K, at most N; any number if N is 0.

    Returns:
        dict as from `batched_non_max_suppression`.

    Raises:
        ValueError: shapes or settings other than these.
    """
    boxes, scores = _boxes_and_scores(boxes, scores, ranks=(3,))
    check_settings(iou_threshold, score_threshold, max_detections)
    _check_number(max_detections, scores.shape[-1])
    labels = _with_a_row(_labels_like(labels, scores))
    boxes, scores = _with_a_row(boxes), _with_a_row(scores, -math.inf)
    scores = scores[:, :, None]
    kept, count = _greedy(boxes, scores, labels, iou_threshold, score_threshold, max_detections)
    return _detections(boxes, scores, labels, kept, count)


def _detections(boxes, scores, labels, kept, count):
    """The dict of detections for the pairs `kept` (B, K) of scores (B, N, C)."""
    num_boxes, num_classes = scores.shape[1:]
    filled, pair = kept >= 0, ops.maximum(kept, 0)
    box = pair // num_classes
    labels = pair % num_classes if labels is None else ops.take_along_axis(labels, box, axis=1)
    scores = ops.reshape(scores, (-1, num_boxes * num_classes))
    return {
        "boxes": ops.where(ops.expand_dims(filled, -1), _take_rows(boxes, box), 0.0),
        "scores": ops.where(filled, ops.take_along_axis(scores, pair, axis=1), 0.0),
        "labels": ops.where(filled, labels, -1),
        "count": count,
    }


# All greedy functions share one loop over (box, class) pairs in the order of their scores. It
# takes them in chunks, of which the first will mostly do, and resolves a chunk block by block.
# Classes are told apart in the test of two boxes, which is exact, unlike moving the boxes of
# each class to a place of their own.


def _greedy(boxes, scores, labels, iou_threshold, score_threshold, max_detections, block_size=None):
    """Greedy suppression of (box, class) pairs.

    Args:
        boxes: (B, N, 4).
        scores: (B, N, C).
        labels: (B, N) int32; None: the classes are the columns of `scores`.
        iou_threshold, score_threshold, max_detections: as above.
        block_size: how many pairs are resolved among themselves in one step.

    Returns:
        kept pairs (B, K) int32, numbered along (N, C) and padded with -1; count (B,) int32.
    """
    block_size = _default_block_size() if block_size is None else block_size
    num_boxes, num_classes = scores.shape[1:]
    # Where few boxes overlap, a quarter more than what is wanted is enough. The pairs of several
    # classes overlap more, and to go over all of them once more takes longer than a larger chunk.
    chunk_size = max_detections * 5 // 4 if num_classes == 1 else max_detections * 5
    chunk_size = _round_up(chunk_size, block_size)
    missing = max(_round_up(chunk_size, num_classes) // num_classes - num_boxes, 0)
    rows = ((0, 0), (0, missing))
    boxes = ops.pad(ops.stop_gradient(boxes), (*rows, (0, 0)))
    scores = ops.pad(ops.stop_gradient(scores), (*rows, (0, 0)), constant_values=-math.inf)
    labels = None if labels is None else ops.pad(labels, rows)

    def unfinished(usable, worst, last, kept, kept_columns, count, tested):
        return ops.any((count < max_detections) & (worst > -math.inf))

    def one_chunk(usable, worst, last, kept, kept_columns, count, tested):
        if num_classes == 1:
            # What the kept boxes suppress needn't be sorted.
            usable = ops.cond(
                ops.any(tested < count),
                lambda: _suppress(
                    *(usable, _columns(boxes, labels), kept_columns, tested, count),
                    *(iou_threshold, block_size),
                ),
                lambda: usable,
            )
        top_scores, top = _top_pairs(scores, usable, score_threshold, chunk_size, worst, last)
        # A minimum instead of the last element: XLA would sort everything for a slice of top_k.
        worst = ops.min(top_scores, axis=1)
        last = ops.max(ops.where(top_scores == worst[:, None], top, -1), axis=1)

        top_box, top_labels = top // num_classes, None
        if num_classes > 1:
            top_labels = top % num_classes
        elif labels is not None:
            top_labels = ops.take_along_axis(labels, top_box, axis=1)
        top_columns = _columns(_take_rows(boxes, top_box), top_labels)
        state = _resolve(
            *(top, top_columns, top_scores > -math.inf, kept, kept_columns, count),
            *(iou_threshold, max_detections, block_size),
        )
        return usable, worst, last, *state, count

    batch = ops.shape(scores)[0]
    capacity = _round_up(max_detections, block_size)
    nothing = ops.zeros((batch,), "int32")
    num_columns = 5 if labels is None and num_classes == 1 else 6
    _, _, _, kept, _, count, _ = ops.while_loop(
        unfinished,
        one_chunk,
        (
            _usable(boxes, labels),
            ops.full((batch,), math.inf),
            nothing,
            ops.full((batch, capacity), -1, dtype="int32"),
            ops.zeros((num_columns, batch, capacity)),
            nothing,
            nothing,
        ),
    )
    return kept[:, :max_detections], ops.minimum(count, max_detections)


def _default_block_size():
    """A CPU pays for pairs, a GPU for steps."""
    devices = keras.distribution.list_devices()
    return 128 if all(device.startswith("cpu") for device in devices) else 1280


def _top_pairs(scores, usable, score_threshold, number, worst=None, last=None):
    """The best of scores (B, N, C), and their places along (N, C), both (B, number).

    What is looked at are finite scores above the threshold, of boxes that are usable (B, N), and
    behind the pair that scores `worst` (B,) at place `last` (B,). Too few are filled up with -inf.
    """
    num_boxes, num_classes = scores.shape[1:]
    if worst is None:
        worst, last = math.inf, 0
    else:
        worst, last = worst[:, None, None], last[:, None, None]

    def left(scores, place):
        # NaN and infinity aren't below infinity.
        behind = (scores < worst) | ((scores == worst) & (place > last) & (worst < math.inf))
        return ops.where(behind, scores, -math.inf)

    def candidates(scores, usable):
        # Sorting would put -0 behind 0, though they are equal.
        scores = ops.where(scores == 0.0, 0.0, scores)
        return ops.where(usable & (scores > score_threshold), scores, -math.inf)

    place = ops.reshape(ops.arange(num_boxes * num_classes), (num_boxes, num_classes))
    if num_classes == 1:
        return ops.top_k(candidates(left(scores, place)[:, :, 0], usable), number)
    if num_boxes > number:
        # The best pairs are among the boxes that are best by their maxima, and fewer are quicker
        # to sort. In the first chunk nothing has to be left out, and to see that is quicker than
        # to do it.
        best = ops.max(scores, axis=2, keepdims=True)
        best = ops.cond(
            ops.all(best < worst),
            lambda: best,
            lambda: ops.max(left(scores, place), axis=2, keepdims=True),
        )
        best, box = ops.top_k(candidates(best[:, :, 0], usable), number)
        # In their old order, for pairs that score alike.
        box = ops.sort(box, axis=1)
        scores = _take_rows(scores, box)
        # The best pairs are none below the worst of the maxima, and equal ones are quick to sort.
        scores = ops.where(scores < ops.min(best, axis=1)[:, None, None], -math.inf, scores)
        usable = ops.take_along_axis(usable, box, axis=1)
        place = box[:, :, None] * num_classes + ops.arange(num_classes)
    scores = candidates(left(scores, place), usable[:, :, None])
    top_scores, top = ops.top_k(ops.reshape(scores, (-1, scores.shape[1] * num_classes)), number)
    if num_boxes > number:
        box = ops.take_along_axis(box, top // num_classes, axis=1)
        top = box * num_classes + top % num_classes
    return top_scores, top


def _columns(boxes, labels):
    """(5, B, N) ymin, xmin, ymax, xmax, area of boxes (B, N, 4); (6, B, N) with labels."""
    y1, x1, y2, x2 = ops.unstack(boxes, 4, axis=-1)
    ymin, ymax = ops.minimum(y1, y2), ops.maximum(y1, y2)
    xmin, xmax = ops.minimum(x1, x2), ops.maximum(x1, x2)
    columns = [ymin, xmin, ymax, xmax, ops.maximum((ymax - ymin) * (xmax - xmin), 0.0)]
    if labels is not None:
        columns.append(ops.cast(labels, "float32"))
    return ops.stack(columns)


def _overlap(columns_1, columns_2, iou_threshold):
    """(B, N, M): whether IoUs exceed the threshold, within a class if there are classes."""
    intersection, union = _intersection_and_union(columns_1, columns_2)
    overlap = intersection / union > iou_threshold  # 0 / 0 exceeds nothing
    if columns_1.shape[0] == 6:
        overlap = overlap & (columns_1[5][:, :, None] == columns_2[5][:, None, :])
    return overlap


def _intersection_and_union(columns_1, columns_2):
    """Areas (B, N, M).

    Compilers may round a product and the sum it goes into at once, and the quotient would
    differ from TensorFlow's in its last bit. The maxima between areas and their sums, here
    and in `_columns`, leave them nothing to fuse.
    """
    ymin_1, xmin_1, ymax_1, xmax_1, area_1 = ops.unstack(columns_1[:5, :, :, None])
    ymin_2, xmin_2, ymax_2, xmax_2, area_2 = ops.unstack(columns_2[:5, :, None, :])
    height = ops.minimum(ymax_1, ymax_2) - ops.maximum(ymin_1, ymin_2)
    width = ops.minimum(xmax_1, xmax_2) - ops.maximum(xmin_1, xmin_2)
    intersection = ops.maximum(ops.maximum(height, 0.0) * width, 0.0)
    return intersection, area_1 + area_2 - intersection


def _quotient(part, whole):
    """part / whole, 0 where there is nothing."""
    something = whole > 0.0
    return ops.where(something, part / ops.where(something, whole, 1.0), 0.0)


def _blocks(columns, block_size):
    """(columns, B, N) to (N / block_size, columns, B, block_size)."""
    number, _, length = columns.shape
    blocks = ops.reshape(columns, (number, -1, length // block_size, block_size))
    return ops.transpose(blocks, (2, 0, 1, 3))


# A block is handed from turn to turn of a loop, instead of being taken where it is used: XLA
# would take each of its numbers anew for each pair.


def _suppress(usable, columns, kept_columns, first, end, iou_threshold, block_size):
    """Usable boxes (B, N) less those that overlap the kept ones number `first` to `end` - 1."""
    blocks = _blocks(kept_columns, block_size)
    first = ops.min(first) // block_size
    end = ops.minimum(ops.max(end), kept_columns.shape[2])

    def one_block(step, block, usable):
        suppressed = ops.any(_overlap(block, columns, iou_threshold), axis=1)
        step = step + 1
        block = ops.take(blocks, ops.minimum(step, blocks.shape[0] - 1), axis=0)
        return step, block, usable & ~suppressed

    _, _, usable = ops.while_loop(
        lambda step, block, usable: step * block_size < end,
        one_block,
        (first, ops.take(blocks, ops.minimum(first, blocks.shape[0] - 1), axis=0), usable),
    )
    return usable


def _resolve(
    top, columns, candidates, kept, kept_columns, count, iou_threshold, max_detections, block_size
):
    """Adds to what is kept those of a chunk, best first, that greedy suppression keeps.

    Args:
        top: (B, N) places of the pairs, and columns: (5 or 6, B, N) of their boxes.
        candidates: (B, N) bool, False for what only fills the chunk up.
        kept: (B, capacity) int32, of which the first `count` (B,) are taken, and
            kept_columns: (5 or 6, B, capacity), of boxes without area behind these.

    Returns:
        kept, kept_columns and count, with the new ones.
    """
    blocks = _blocks(columns, block_size)
    candidate_blocks = _blocks(candidates[None], block_size)
    top_blocks = _blocks(top[None], block_size)
    earlier = ops.arange(block_size)[:, None] < ops.arange(block_size)
    slots = ops.arange(kept.shape[1])
    last = blocks.shape[0] - 1

    def unfinished(step, block, candidates, kept, kept_columns, count):
        left = ops.any(candidates, axis=(0, 2)) & (count < max_detections)
        return (step <= last) & ops.any(left)

    def one_block(step, block, candidates, kept, kept_columns, count):
        # For the first block nothing is kept yet, and often there is but one.
        suppressed = ops.cond(
            ops.any(count > 0),
            lambda: ops.any(_overlap(kept_columns, block, iou_threshold), axis=1),
            lambda: ops.zeros_like(candidates[0]),
        )
        left = candidates[0] & ~suppressed
        suppresses = _overlap(block, block, iou_threshold) & earlier

        # Greedy suppression is the fixed point of "kept = candidate and not suppressed by a
        # kept one", reached after as many rounds as the longest chain of suppressions, mostly
        # 2 to 6.
        def one_round(chosen, _):
            suppressed = ops.any(chosen[:, :, None] & suppresses, axis=1)
            return left & ~suppressed, chosen

        chosen, _ = ops.while_loop(
            lambda chosen, previous: ops.any(chosen != previous), one_round, one_round(left, left)
        )

        # The chosen ones, in their order, go behind the kept ones.
        number = ops.cumsum(ops.cast(chosen, "int32"), axis=1)
        place = ops.sum(ops.cast(number[:, :, None] <= ops.arange(block_size), "int32"), axis=1)
        slot = slots - count[:, None]
        new = (slot >= 0) & (slot < number[:, -1:])
        place = ops.take_along_axis(place, ops.where(new, slot, 0), axis=1)
        place = ops.minimum(place, block_size - 1)
        top_block = ops.take(top_blocks, step, axis=0)[0]
        kept = ops.where(new, ops.take_along_axis(top_block, place, axis=1), kept)
        kept_columns = ops.where(new, ops.take_along_axis(block, place[None], axis=2), kept_columns)
        count = count + number[:, -1]
        step = step + 1
        following = ops.minimum(step, last)
        block = ops.take(blocks, following, axis=0)
        return step, block, ops.take(candidate_blocks, following, axis=0), kept, kept_columns, count

    *_, kept, kept_columns, count = ops.while_loop(
        unfinished, one_block, (0, blocks[0], candidate_blocks[0], kept, kept_columns, count)
    )
    return kept, kept_columns, count


def _take_rows(rows, index):
    """rows (B, N, C) at index (B, K): (B, K, C)."""
    return ops.take_along_axis(rows, index[:, :, None], axis=1)


def _with_a_row(tensor, value=0):
    """A tensor (B, N, ...), with one row of `value` if N is 0: there must be something to take."""
    if tensor.shape[1] > 0:
        return tensor
    others = [(0, 0)] * (len(tensor.shape) - 2)
    return ops.pad(tensor, [(0, 0), (0, 1), *others], constant_values=value)


def _round_up(number, multiple):
    return -(-number // multiple) * multiple


# --- Soft --------------------------------------------------------------------------------


def soft_non_max_suppression(
    boxes,
    scores,
    labels=None,
    method="gaussian",
    sigma=0.5,
    iou_threshold=0.3,
    score_threshold=0.001,
    max_detections=100,
):
    """Soft-NMS: overlaps lower scores instead of removing boxes (Bodla et al. 2017, figure 2).

    Again and again the best box is taken, and the scores of those left are multiplied by
    exp(-IoU^2 / sigma) (equation 3), or by 1 - IoU where the IoU exceeds a threshold
    (equation 2). `tf.image.non_max_suppression_with_scores` calls sigma / 2 its sigma.

    Args:
        boxes: (N, 4) of a picture, or (B, N, 4) of a batch.
        scores: (N,) or (B, N) float, not negative.
        labels: (N,) or (B, N) int, below 2^24: boxes lower only scores of their own class,
            and negative labels are padding; None: classes don't matter.
        method: "gaussian" or "linear".
        sigma: of the Gaussian, positive.
        iou_threshold: of the linear method, in [0, 1].
        score_threshold: lowered scores must be above it.
        max_detections: K, at most N; any number if N is 0.

    Returns:
        indices (K,) or (B, K) int32 in the order in which they were taken, padded with -1;
        their lowered scores (K,) or (B, K), padded with 0; and their count () or (B,) int32.

    Raises:
        ValueError: shapes or settings other than these.
    """
    boxes, scores = _boxes_and_scores(boxes, scores, ranks=(2, 3))
    check_settings(iou_threshold, score_threshold, max_detections)
    _check_number(max_detections, scores.shape[-1])
    check_method(method, sigma)
    labels = None if labels is None else _labels_like(labels, scores)
    single = len(boxes.shape) == 2
    if single:
        boxes, scores = boxes[None], scores[None]
        labels = None if labels is None else labels[None]
    boxes, scores = _with_a_row(boxes), _with_a_row(scores, -math.inf)
    labels = None if labels is None else _with_a_row(labels)
    usable = _usable(boxes, labels) & (scores <= _LARGEST_FLOAT) & (scores > score_threshold)
    scores = ops.where(usable, scores, -math.inf)
    results = _soft(
        boxes, scores, labels, method, sigma, iou_threshold, score_threshold, max_detections
    )
    return tuple(x[0] for x in results) if single else results


def _soft(boxes, scores, labels, method, sigma, iou_threshold, score_threshold, max_detections):
    """Soft-NMS of a batch; scores are -inf for what is no candidate."""
    columns = _columns(ops.stop_gradient(boxes), labels)
    scores = ops.stop_gradient(scores)
    order, slots = ops.arange(scores.shape[1]), ops.arange(max_detections)

    def one_box(step, scores, kept, kept_scores):
        best = ops.argmax(scores, axis=1)[:, None]
        best_score = ops.max(scores, axis=1)[:, None]
        found = best_score > score_threshold
        here = found & (slots == step)
        kept = ops.where(here, ops.cast(best, "int32"), kept)
        kept_scores = ops.where(here, best_score, kept_scores)

        best_columns = ops.take_along_axis(columns, best[None], axis=2)
        intersection, union = _intersection_and_union(best_columns, columns)
        iou = _quotient(intersection, union)[:, 0]
        if method == "gaussian":
            weight = ops.exp(-ops.square(iou) / sigma)
        else:
            weight = ops.where(iou > iou_threshold, 1.0 - iou, 1.0)
        if labels is not None:
            weight = ops.where(best_columns[5] == columns[5], weight, 1.0)
        left = (order != best) & (scores > score_threshold)
        scores = ops.where(left, scores * weight, -math.inf)
        return step + 1, scores, kept, kept_scores

    batch = ops.shape(scores)[0]
    _, _, kept, kept_scores = ops.while_loop(
        lambda step, scores, *_: (step < max_detections) & ops.any(scores > score_threshold),
        one_box,
        (
            0,
            scores,
            ops.full((batch, max_detections), -1, dtype="int32"),
            ops.zeros((batch, max_detections)),
        ),
    )
    count = ops.sum(ops.cast(kept >= 0, "int32"), axis=1)
    return kept, kept_scores, count


def batched_soft_non_max_suppression(
    boxes,
    scores,
    method="gaussian",
    sigma=0.5,
    iou_threshold=0.3,
    score_threshold=0.001,
    max_detections=100,
    candidates=1000,
):
    """Soft-NMS, each class by itself, over a batch of pictures.

    Args:
        boxes: (B, A, 4).
        scores: (B, A, C) float, not negative.
        method, sigma, iou_threshold, score_threshold: as in `soft_non_max_suppression`.
        max_detections: K, at most A * C; any number if that is 0.
        candidates: how many pairs of a picture are looked at, best first, at least K;
            None: as many as there are.

    Returns:
        dict as from `batched_non_max_suppression`, with lowered scores.

    Raises:
        ValueError: shapes or settings other than these.
    """
    boxes, scores = _boxes_and_pair_scores(boxes, scores)
    check_settings(iou_threshold, score_threshold, max_detections, candidates)
    check_method(method, sigma)
    _check_number(max_detections, scores.shape[1] * scores.shape[2])
    boxes, scores = _with_a_row(boxes), _with_a_row(scores, -math.inf)
    num_boxes, num_classes = scores.shape[1:]
    number = num_boxes * num_classes
    if candidates is not None:
        number, max_detections = min(candidates, number), min(candidates, max_detections)
    top_scores, pairs = _top_pairs(scores, _usable(boxes), score_threshold, number)
    boxes, labels = _take_rows(boxes, pairs // num_classes), pairs % num_classes
    kept, kept_scores, count = _soft(
        boxes, top_scores, labels, method, sigma, iou_threshold, score_threshold, max_detections
    )
    detections = _detections(boxes, top_scores[:, :, None], labels, kept, count)
    return {**detections, "scores": kept_scores}


# --- Matrix ------------------------------------------------------------------------------


def mask_iou(masks):
    """Intersection over union of every mask with every other.

    Args:
        masks: (..., N, H, W) bool, or numbers of which those above 0.5 are inside.

    Returns:
        (..., N, N) float32; 0 where both masks are empty.

    Raises:
        ValueError: masks of a rank below 3.
    """
    masks = ops.convert_to_tensor(masks)
    if len(masks.shape) < 3:
        raise ValueError(f"masks must have shape (..., N, H, W); received: {tuple(masks.shape)}")
    if keras.backend.standardize_dtype(masks.dtype) != "bool":
        masks = masks > 0.5
    *leading, number, height, width = ops.shape(masks)
    pixels = ops.cast(ops.reshape(masks, (*leading, number, height * width)), "float32")
    # Sums of zeros and ones: exact up to 2^24 pixels.
    intersection = ops.matmul(pixels, ops.swapaxes(pixels, -1, -2))
    area = ops.sum(pixels, axis=-1)
    return _quotient(intersection, area[..., :, None] + area[..., None, :] - intersection)


def matrix_non_max_suppression(
    iou,
    scores,
    labels=None,
    method="gaussian",
    sigma=2.0,
    score_threshold=0.05,
    max_detections=100,
):
    """Matrix NMS: every score is lowered once, by all at once (Wang et al. 2020, SOLOv2).

    The score of j is multiplied by min over i of f(IoU_ij) / f(max over k of IoU_ki)
    (section 3.3, equation 5), where i goes over those better than j, and k over those better
    than i; f is exp(-sigma IoU^2) or 1 - IoU. An i that duplicates a k lowers nothing in the
    linear method.

    Args:
        iou: (N, N) or (B, N, N) float in [0, 1]: from `mask_iou`, or `boxes.iou`.
        scores: (N,) or (B, N) float, not negative.
        labels: (N,) or (B, N) int: only those of the same class count, and negative labels
            are padding; None: classes don't matter.
        method: "gaussian" or "linear".
        sigma: of the Gaussian, positive.
        score_threshold: lowered scores must be above it.
        max_detections: K, at most N; any number if N is 0.

    Returns:
        indices (K,) or (B, K) int32, best lowered score first, padded with -1; the lowered
        scores (K,) or (B, K), padded with 0; and their count () or (B,) int32.

    Raises:
        ValueError: shapes or settings other than these.
    """
    iou = ops.cast(ops.convert_to_tensor(iou), "float32")
    scores = ops.cast(ops.convert_to_tensor(scores), "float32")
    if (
        len(iou.shape) not in (2, 3)
        or not _same_shape(iou.shape[:-1], scores.shape)
        or iou.shape[-1] != iou.shape[-2]
    ):
        raise ValueError(
            "iou must have shape (N, N) or (batch, N, N) and scores (N,) or (batch, N); "
            f"received: {tuple(iou.shape)} and {tuple(scores.shape)}"
        )
    number = scores.shape[-1]
    check_settings(0.0, score_threshold, max_detections)
    _check_number(max_detections, number)
    check_method(method, sigma)
    labels = None if labels is None else _labels_like(labels, scores)

    finite = ops.abs(scores) <= _LARGEST_FLOAT
    candidate = finite if labels is None else finite & (labels >= 0)
    scores = ops.where(candidate, scores, -math.inf)
    place = ops.arange(number)
    higher = scores[..., :, None] > scores[..., None, :]
    equal = scores[..., :, None] == scores[..., None, :]
    better = higher | (equal & (place[:, None] < place))
    if labels is not None:
        better = better & (labels[..., :, None] == labels[..., None, :])
    better = better & candidate[..., :, None]
    # [..., i, j]: IoU of j with an i better than itself.
    iou = ops.where(better, iou, 0.0)
    compensation = ops.max(iou, axis=-2) if number else scores
    if method == "gaussian":
        ratio = ops.exp(-sigma * (ops.square(iou) - ops.square(compensation)[..., :, None]))
    else:
        left = 1.0 - compensation[..., :, None]
        ratio = ops.where(left > 0.0, (1.0 - iou) / ops.where(left > 0.0, left, 1.0), 1.0)
    ratio = ops.where(better, ratio, 1.0)
    lowered = scores * ops.min(ratio, axis=-2) if number else scores

    # Zero masks are ordinary input, and K slots are filled in any case.
    missing = max(max_detections - number, 0)
    leading = [(0, 0)] * (len(scores.shape) - 1)
    lowered = ops.pad(lowered, (*leading, (0, missing)), constant_values=-math.inf)
    kept_scores, kept = ops.top_k(lowered, max_detections)
    filled = kept_scores > score_threshold
    count = ops.sum(ops.cast(filled, "int32"), axis=-1)
    return ops.where(filled, kept, -1), ops.where(filled, kept_scores, 0.0), count


# --- Arguments ---------------------------------------------------------------------------


def _boxes_and_scores(boxes, scores, ranks):
    """Both as float32 tensors, of shapes (..., N, 4) and (..., N)."""
    boxes = check_boxes(boxes)
    scores = ops.cast(ops.convert_to_tensor(scores), "float32")
    if len(boxes.shape) not in ranks or not _same_shape(boxes.shape[:-1], scores.shape):
        raise ValueError(
            f"boxes must have shape {'(N, 4) or ' if 2 in ranks else ''}(batch, N, 4) and scores "
            "the same without the 4; "
            f"received: {tuple(boxes.shape)} and {tuple(scores.shape)}"
        )
    return boxes, scores


def _boxes_and_pair_scores(boxes, scores):
    """Both as float32 tensors, of shapes (B, A, 4) and (B, A, C)."""
    boxes = check_boxes(boxes)
    scores = ops.cast(ops.convert_to_tensor(scores), "float32")
    if (
        len(scores.shape) != 3
        or not _same_shape(boxes.shape[:-1], scores.shape[:-1])
        or scores.shape[2] == 0
    ):
        raise ValueError(
            "boxes and scores must have shapes (batch, number, 4) and (batch, number, classes); "
            f"received: {tuple(boxes.shape)} and {tuple(scores.shape)}"
        )
    return boxes, scores


def _same_shape(shape_1, shape_2):
    """Whether shapes agree where both are known."""
    return len(shape_1) == len(shape_2) and all(
        a == b or a is None or b is None for a, b in zip(shape_1, shape_2)
    )


def _labels_like(labels, scores):
    labels = ops.cast(ops.convert_to_tensor(labels), "int32")
    if not _same_shape(labels.shape, scores.shape):
        raise ValueError(
            "labels must have the shape of the scores; "
            f"received: {tuple(labels.shape)} and {tuple(scores.shape)}"
        )
    return labels


def check_settings(iou_threshold, score_threshold, max_detections, candidates=None):
    """Raises ValueError for settings that no number of boxes would allow."""
    if not 0.0 <= iou_threshold <= 1.0:
        raise ValueError(f"iou_threshold must be in [0, 1]; received: {iou_threshold}")
    if math.isnan(score_threshold):
        raise ValueError(f"score_threshold must be a number; received: {score_threshold}")
    if max_detections < 1:
        raise ValueError(f"max_detections must be positive; received: {max_detections}")
    if candidates is not None and candidates < 1:
        raise ValueError(f"candidates must be positive or None; received: {candidates}")


def check_method(method, sigma):
    """Raises ValueError for a method or a sigma that soft and matrix NMS don't know."""
    if method not in ("gaussian", "linear"):
        raise ValueError(f'method must be "gaussian" or "linear"; received: {method}')
    if not 0.0 < sigma < math.inf:
        raise ValueError(f"sigma must be a positive number; received: {sigma}")


def _check_number(max_detections, number):
    """There must be as many boxes as are asked for, or none at all."""
    if 0 < number < max_detections:
        raise ValueError(
            "max_detections must be at most the number of boxes (or pairs of box and class); "
            f"received: {max_detections} of {number}"
        )


def _usable(boxes, labels=None):
    """Which boxes (B, N, 4) can be kept at all: (B, N) bool."""
    usable = ops.all(ops.abs(boxes) <= _LARGEST_FLOAT, axis=-1)
    return usable if labels is None else usable & (labels >= 0)
