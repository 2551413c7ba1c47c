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
    scores = _candidate_scores(boxes, scores, score_threshold)[:, :, None]
    kept, count = _greedy(boxes, scores, None, iou_threshold, max_detections)
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
    scores = _candidate_scores(boxes[:, :, None], scores, score_threshold)
    labels = None
    if class_agnostic:
        labels = ops.cast(ops.argmax(scores, axis=2), "int32")
        scores = ops.max(scores, axis=2, keepdims=True)
    num_boxes, num_classes = scores.shape[1:]

    if candidates is not None and candidates < num_boxes * num_classes:
        scores, pairs = _top_pairs(scores, candidates)
        scores = scores[:, :, None]
        boxes = _take_rows(boxes, pairs // num_classes)
        if class_agnostic:
            labels = ops.take_along_axis(labels, pairs, axis=1)
        else:
            labels = pairs % num_classes
    if candidates is not None:
        max_detections = min(max_detections, candidates)
    apart = None if class_agnostic else labels
    kept, count = _greedy(boxes, scores, apart, iou_threshold, max_detections)
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
    scores = _candidate_scores(boxes, scores, score_threshold, labels)
    scores = scores[:, :, None]
    kept, count = _greedy(boxes, scores, labels, iou_threshold, max_detections)
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


def _greedy(boxes, scores, labels, iou_threshold, max_detections, block_size=None):
    """Greedy suppression of (box, class) pairs.

    Args:
        boxes: (B, N, 4).
        scores: (B, N, C), -inf for pairs that aren't candidates.
        labels: (B, N) int32; None: the classes are the columns of `scores`.
        iou_threshold, max_detections: as above.
        block_size: how many pairs are resolved among themselves in one step.

    Returns:
        kept pairs (B, K) int32, numbered along (N, C) and padded with -1; count (B,) int32.
    """
    block_size = _default_block_size() if block_size is None else block_size
    num_classes = scores.shape[2]
    # Where few boxes overlap, a quarter more than what is wanted is enough.
    chunk_size = _round_up(max_detections + max_detections // 4, block_size)
    capacity = _round_up(max_detections, block_size)
    missing = max(_round_up(chunk_size, num_classes) // num_classes - scores.shape[1], 0)
    scores = ops.pad(
        ops.stop_gradient(scores), ((0, 0), (0, missing), (0, 0)), constant_values=-math.inf
    )
    columns = ops.pad(_columns(ops.stop_gradient(boxes), labels), ((0, 0), (0, 0), (0, missing)))
    num_boxes = scores.shape[1]
    scores = ops.reshape(scores, (-1, num_boxes * num_classes))
    order = ops.arange(num_boxes * num_classes)
    slots = ops.arange(capacity)

    def unfinished(scores, worst, kept, kept_columns, count, tested):
        return ops.any((count < max_detections) & (worst > -math.inf))

    def one_chunk(scores, worst, kept, kept_columns, count, tested):
        if num_classes == 1:
            # What the kept boxes suppress needn't be sorted.
            scores = _suppress(
                scores, columns, kept_columns, tested, count, iou_threshold, block_size
            )
        top_scores, top = _top_pairs(ops.reshape(scores, (-1, num_boxes, num_classes)), chunk_size)
        # A minimum instead of the last element: XLA would sort everything for a slice of top_k.
        worst = ops.min(top_scores, axis=1, keepdims=True)
        last = ops.max(ops.where(top_scores == worst, top, -1), axis=1, keepdims=True)
        left = (scores < worst) | ((scores == worst) & (order > last))

        top_columns = ops.take_along_axis(columns, (top // num_classes)[None], axis=2)
        if num_classes > 1:
            top_labels = ops.cast(top % num_classes, "float32")
            top_columns = ops.concatenate([top_columns, top_labels[None]])
            top_scores = _suppress(
                *(top_scores, top_columns, kept_columns, tested * 0, count),
                *(iou_threshold, block_size),
            )
        chosen = _resolve(top_columns, top_scores > -math.inf, iou_threshold, block_size)

        # The chosen ones, in their order, go behind the kept ones.
        total = ops.sum(ops.cast(chosen, "int32"), axis=1)
        slot = slots - count[:, None]
        new = (slot >= 0) & (slot < total[:, None])
        source = _places(chosen, ops.where(new, slot, 0), block_size)
        kept = ops.where(new, ops.take_along_axis(top, source, axis=1), kept)
        kept_columns = ops.where(
            new, ops.take_along_axis(top_columns, source[None], axis=2), kept_columns
        )
        scores = ops.where(left, scores, -math.inf)
        return scores, worst[:, 0], kept, kept_columns, count + total, count

    batch = ops.shape(scores)[0]
    nothing = ops.zeros((batch,), "int32")
    num_columns = columns.shape[0] + (num_classes > 1)
    _, _, kept, _, count, _ = ops.while_loop(
        unfinished,
        one_chunk,
        (
            scores,
            ops.full((batch,), math.inf),
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


def _top_pairs(scores, number):
    """The best of scores (B, N, C), and their places along (N, C), both (B, number)."""
    num_boxes, num_classes = scores.shape[1:]
    if num_classes == 1 or num_boxes <= number:
        return ops.top_k(ops.reshape(scores, (-1, num_boxes * num_classes)), number)
    # The best pairs are among the boxes that are best by their maxima, and fewer are quicker
    # to sort. These boxes stay in their order, for pairs that score alike.
    _, box = ops.top_k(ops.max(scores, axis=2), number)
    box = ops.sort(box, axis=1)
    few = ops.reshape(_take_rows(scores, box), (-1, number * num_classes))
    top_scores, place = ops.top_k(few, number)
    box = ops.take_along_axis(box, place // num_classes, axis=1)
    return top_scores, box * num_classes + place % num_classes


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


def _suppress(scores, columns, kept_columns, first, end, iou_threshold, block_size):
    """Scores (B, N), -inf for boxes that overlap the kept ones number `first` to `end` - 1."""
    blocks = _blocks(kept_columns, block_size)
    first = ops.min(first) // block_size
    end = ops.minimum(ops.max(end), kept_columns.shape[2])

    def one_block(step, block, scores):
        suppressed = ops.any(_overlap(block, columns, iou_threshold), axis=1)
        step = step + 1
        block = ops.take(blocks, ops.minimum(step, blocks.shape[0] - 1), axis=0)
        return step, block, ops.where(suppressed, -math.inf, scores)

    _, _, scores = ops.while_loop(
        lambda step, block, scores: step * block_size < end,
        one_block,
        (first, ops.take(blocks, ops.minimum(first, blocks.shape[0] - 1), axis=0), scores),
    )
    return scores


def _resolve(columns, candidates, iou_threshold, block_size):
    """Which of the candidates (B, N) greedy suppression keeps; boxes come best first."""
    number = columns.shape[2]
    blocks = _blocks(columns, block_size)
    candidate_blocks = _blocks(candidates[None], block_size)
    earlier = ops.arange(block_size)[:, None] < ops.arange(block_size)

    def one_block(step, block, candidates, kept):
        by_earlier_blocks = _overlap(columns, block, iou_threshold) & kept[:, :, None]
        candidates = candidates[0] & ~ops.any(by_earlier_blocks, axis=1)
        suppresses = _overlap(block, block, iou_threshold) & earlier

        # Greedy suppression is the fixed point of "kept = candidate and not suppressed by a
        # kept one", reached after as many rounds as the longest chain of suppressions, mostly
        # 2 to 6.
        def one_round(chosen, _):
            suppressed = ops.any(chosen[:, :, None] & suppresses, axis=1)
            return candidates & ~suppressed, chosen

        chosen, _ = ops.while_loop(
            lambda chosen, previous: ops.any(chosen != previous),
            one_round,
            one_round(candidates, candidates),
        )
        place = ops.arange(number) // block_size == step
        kept = ops.where(place, ops.tile(chosen, (1, number // block_size)), kept)
        step = step + 1
        following = ops.minimum(step, blocks.shape[0] - 1)
        block = ops.take(blocks, following, axis=0)
        return step, block, ops.take(candidate_blocks, following, axis=0), kept

    *_, kept = ops.while_loop(
        lambda step, block, candidates, kept: (step < blocks.shape[0]) & ops.any(candidates),
        one_block,
        (0, blocks[0], candidate_blocks[0], ops.zeros_like(candidates)),
    )
    return kept


def _places(chosen, number, block_size):
    """Places (B, K) of the chosen ones of (B, N) that have these numbers (B, K), from 0.

    Sorting the chosen ones to the front says the same, and takes XLA longer on CPUs.
    """
    chosen = ops.reshape(ops.cast(chosen, "int32"), (-1, chosen.shape[1] // block_size, block_size))
    number_in_block = ops.cumsum(chosen, axis=2)
    place_in_block = ops.sum(
        ops.cast(number_in_block[:, :, :, None] <= ops.arange(block_size), "int32"), axis=2
    )
    total = ops.sum(chosen, axis=2)
    end = ops.cumsum(total, axis=1)
    block = ops.sum(ops.cast(end[:, :, None] <= number[:, None, :], "int32"), axis=1)
    block = ops.minimum(block, chosen.shape[1] - 1)
    first = block * block_size
    entry = first + number - ops.take_along_axis(end - total, block, axis=1)
    # Where a block has no such number its place would be outside.
    place_in_block = ops.minimum(place_in_block, block_size - 1)
    place_in_block = ops.reshape(place_in_block, (-1, chosen.shape[1] * block_size))
    return first + ops.take_along_axis(place_in_block, entry, axis=1)


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
    scores = _candidate_scores(boxes, scores, score_threshold, labels)
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
    scores = _candidate_scores(boxes[:, :, None], scores, score_threshold)
    top_scores, pairs = _top_pairs(scores, number)
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


def _candidate_scores(boxes, scores, score_threshold, labels=None):
    """Scores, -inf for what can't be kept. boxes (..., 4) broadcast against scores (...)."""
    finite = ops.all(ops.abs(boxes) <= _LARGEST_FLOAT, axis=-1)
    # Comparisons with NaN are false, and nothing is below -inf.
    candidate = finite & (scores <= _LARGEST_FLOAT) & (scores > score_threshold)
    if labels is not None:
        candidate = candidate & (labels >= 0)
    # Sorting would put -0 behind 0, though they are equal.
    scores = ops.where(scores == 0.0, 0.0, scores)
    return ops.where(candidate, scores, -math.inf)
