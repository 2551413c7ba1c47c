"""Which ground truth does a reference box answer for, and which negatives count."""

from keras import ops


def bipartite_matching(similarity):
    """Greedy one-to-one matching: the best pair first, then the best of what is left, ….

    Args:
        similarity: (B, N, A) float; a pair with a similarity of 0 or less is never matched.

    Returns:
        (B, A) int32: the index of the row matched to each column, or -1. Of equal pairs
        the one of the lower row, then of the lower column wins.
    """
    num_rows, num_columns = similarity.shape[1:]
    rows = ops.reshape(ops.arange(num_rows, dtype="int32"), (1, num_rows, 1))
    columns = ops.reshape(ops.arange(num_columns, dtype="int32"), (1, 1, num_columns))

    # A pair that is the best of its row and of its column stays so until it is taken.
    # Taking all such pairs at once gives the greedy result in a few rounds.
    def take_mutual_best(free, matched):
        best_column = ops.expand_dims(ops.argmax(free, axis=2), 2)
        best_row = ops.expand_dims(ops.argmax(free, axis=1), 1)
        mutual = (free > 0) & (columns == ops.cast(best_column, "int32"))
        mutual = mutual & (rows == ops.cast(best_row, "int32"))
        matched = ops.maximum(matched, ops.max(ops.where(mutual, rows, -1), axis=1))
        taken = ops.any(mutual, axis=2, keepdims=True) | ops.any(mutual, axis=1, keepdims=True)
        return ops.where(taken, 0.0, free), matched

    free = ops.cast(similarity, "float32")
    matched = ops.full_like(free[:, 0, :], -1, dtype="int32")
    _, matched = ops.while_loop(
        lambda free, matched: ops.any(free > 0), take_mutual_best, (free, matched)
    )
    return matched


def match_default_boxes(iou, threshold=0.5):
    """SSD's matching strategy (Liu et al. 2016, section 2.2, "Matching strategy").

    Each object takes the default box with which its IoU is largest, then every
    default box left takes the object it overlaps most, if by more than `threshold`.

    Args:
        iou: (B, N, A) of N objects (padding rows are 0 throughout) and A default boxes.
        threshold: IoU.

    Returns:
        (B, A) int32: the index of the object matched to each default box, -1 = background.
    """
    best_object = ops.cast(ops.argmax(iou, axis=1), "int32")
    by_threshold = ops.where(ops.max(iou, axis=1) > threshold, best_object, -1)
    forced = bipartite_matching(iou)
    return ops.where(forced >= 0, forced, by_threshold)


def hard_negative_mining(losses, positive, ratio=3.0):
    """The negatives with the highest losses, at most `ratio` per positive of the picture.

    Liu et al. 2016, section 2.2, "Hard negative mining".

    Args:
        losses: (B, A) confidence loss of each box.
        positive: (B, A) bool.
        ratio: negatives for each positive.

    Returns:
        (B, A) bool: the negatives that count. Of equal losses the first ones are taken.
    """
    losses = ops.where(positive, -1.0, ops.cast(losses, "float32"))
    # Rank by sorting twice: static shapes, and never more than the quota when losses tie.
    order = ops.argsort(-losses, axis=1)
    rank = ops.argsort(order, axis=1)
    quota = ratio * ops.sum(ops.cast(positive, "float32"), axis=1, keepdims=True)
    return ops.logical_and(ops.cast(rank, "float32") < quota, ops.logical_not(positive))
