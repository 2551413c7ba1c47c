"""Non-maximum suppression."""

from keras import ops

from kerasvision.ops import boxes as box_ops


def batched_non_max_suppression(
    boxes, scores, iou_threshold=0.5, score_threshold=0.0, max_detections=100, candidates=1000
):
    """Greedy non-maximum suppression, each class by itself, over a batch of pictures.

    The (box, class) pairs of a picture that score highest are the candidates. In the
    order of their scores each is kept unless it overlaps a kept one of its own class.

    Args:
        boxes: (B, A, 4) corner form.
        scores: (B, A, C) float.
        iou_threshold: a candidate is suppressed by an IoU above it.
        score_threshold: pairs must score above it.
        max_detections: K, at most A * C.
        candidates: how many pairs of a picture are looked at.

    Returns:
        dict of "boxes" (B, K, 4), "scores" (B, K), "labels" (B, K) int32 and "count" (B,)
        int32, sorted by score. Padding: boxes 0, scores 0, labels -1.
    """
    boxes, scores = ops.cast(boxes, "float32"), ops.cast(scores, "float32")
    num_boxes, num_classes = scores.shape[1:]
    candidates = min(candidates, num_boxes * num_classes)
    max_detections = min(max_detections, candidates)

    flat_scores = ops.reshape(scores, (-1, num_boxes * num_classes))
    top_scores, top_index = ops.top_k(flat_scores, candidates)
    top_labels = ops.cast(top_index % num_classes, "int32")
    top_boxes = ops.take_along_axis(boxes, ops.expand_dims(top_index // num_classes, -1), axis=1)
    valid = top_scores > score_threshold

    same_class = ops.expand_dims(top_labels, 1) == ops.expand_dims(top_labels, 2)
    ranks = ops.arange(candidates)
    earlier = ops.expand_dims(ranks, 1) < ops.expand_dims(ranks, 0)
    overlaps = box_ops.iou(top_boxes, top_boxes) > iou_threshold
    # suppresses[b, i, j]: i, if it is kept, removes j.
    suppresses = ops.cast(overlaps & same_class & earlier, "float32")

    # Greedy suppression is the fixed point of "kept = valid and not suppressed by a kept
    # one", reached after as many rounds as the longest chain of suppressions, mostly 2 to 6.
    def one_round(kept, _):
        suppressed = ops.einsum("bi,bij->bj", ops.cast(kept, "float32"), suppresses) > 0
        return ops.logical_and(valid, ops.logical_not(suppressed)), kept

    kept, _ = ops.while_loop(
        lambda kept, previous: ops.any(kept != previous),
        one_round,
        one_round(valid, valid),
    )

    count = ops.minimum(ops.sum(ops.cast(kept, "int32"), axis=1), max_detections)
    # The candidates are sorted already: the kept ones come first in a stable order.
    order = ops.where(kept, ranks, ranks + candidates)
    _, first = ops.top_k(-order, max_detections)
    filled = ops.expand_dims(ops.arange(max_detections), 0) < ops.expand_dims(count, 1)
    return {
        "boxes": ops.where(
            ops.expand_dims(filled, -1),
            ops.take_along_axis(top_boxes, ops.expand_dims(first, -1), axis=1),
            0.0,
        ),
        "scores": ops.where(filled, ops.take_along_axis(top_scores, first, axis=1), 0.0),
        "labels": ops.where(filled, ops.take_along_axis(top_labels, first, axis=1), -1),
        "count": count,
    }
