"""Which ground truth does a reference box answer for.

Similarities, mostly the IoU of `boxes.iou`, are (B, N, A) for N objects and A reference
boxes (anchors, proposals). A pair that isn't similar at all, 0 or less or NaN, is never
matched: rows of zeros are padding, or stand for no object.

Codes of the matches, int32: 0 to N - 1 the object of that row, -1 the background, -2 neither
(ignored).
"""

from keras import ops

BACKGROUND = -1
IGNORED = -2


def arg_max_matching(
    similarity, positive_threshold=0.5, background_range=(0.0, 0.5), force_match=False
):
    """Each reference box takes the object it is most similar to, if that is enough.

    A box is positive from `positive_threshold` on, background within `background_range`, and
    ignored otherwise:

    - Region proposal networks (Ren et al. 2015, section 3.1.2): 0.7, (0.0, 0.3), forced.
    - RetinaNet (Lin et al. 2017, section 4, "Anchors"): 0.5, (0.0, 0.4).
    - Fast R-CNN (Girshick 2015, section 2.3, "Mini-batch sampling"): 0.5, (0.1, 0.5).

    Args:
        similarity: (B, N, A) float.
        positive_threshold: similarity from which on a box is positive.
        background_range: (low, high); a box whose best similarity s is low <= s < high is
            background.
        force_match: whether the boxes to which an object is most similar are positive in any
            case, all of them if they tie to within 1e-6 of the similarity. Such a box still
            takes the object that itself is most similar to, as in the authors' code.

    Returns:
        (B, A) int32. Of equally similar objects the first is taken.

    Raises:
        ValueError: similarity of another rank, or without reference boxes; thresholds
            outside [0, 1] or out of order.
    """
    low, high = background_range
    if not 0.0 <= low <= high <= positive_threshold <= 1.0:
        raise ValueError(
            "background_range and positive_threshold must be "
            "0 <= low <= high <= positive_threshold <= 1; "
            f"received: {background_range} and {positive_threshold}"
        )
    similarity = _check_similarity(similarity)
    best = ops.max(similarity, axis=1, initial=0.0)
    positive = best >= positive_threshold
    if force_match:
        best_of_object = ops.max(similarity, axis=2, keepdims=True, initial=0.0)
        # Compilers may compute a similarity anew, and round it otherwise, for each of its uses:
        # without a tolerance an object could miss its own maximum.
        forced = similarity >= best_of_object * (1.0 - 1e-6)
        forced = ops.logical_and(forced, similarity > 0.0)
        positive = ops.logical_or(positive, ops.any(forced, axis=1))
    positive = ops.logical_and(positive, best > 0.0)
    background = ops.logical_and(best >= low, best < high)
    rest = ops.where(background, BACKGROUND, IGNORED)
    return ops.where(positive, ops.cast(ops.argmax(similarity, axis=1), "int32"), rest)


def bipartite_matching(similarity):
    """Greedy one-to-one matching: the best pair first, then the best of what is left, ….

    Args:
        similarity: (B, N, A) float.

    Returns:
        (B, A) int32: the object matched to each reference box, or -1. Of equal pairs the one
        of the lower row, then of the lower column wins.

    Raises:
        ValueError: similarity of another rank, or without reference boxes.
    """
    return _greedy_matching(_check_similarity(similarity))


def match_default_boxes(iou, threshold=0.5):
    """SSD's matching strategy (Liu et al. 2016, section 2.2, "Matching strategy").

    Each object takes the default box with which its IoU is largest, then every
    default box left takes the object it overlaps most, if by more than `threshold`.

    Args:
        iou: (B, N, A) of N objects and A default boxes.
        threshold: IoU in [0, 1].

    Returns:
        (B, A) int32: the object matched to each default box, -1 = background.

    Raises:
        ValueError: iou of another rank, or without default boxes; a threshold outside
            [0, 1].
    """
    if not 0.0 <= threshold <= 1.0:
        raise ValueError(f"threshold must be in [0, 1]; received: {threshold}")
    iou = _check_similarity(iou, "iou")
    best_object = ops.cast(ops.argmax(iou, axis=1), "int32")
    by_threshold = ops.where(ops.max(iou, axis=1, initial=0.0) > threshold, best_object, BACKGROUND)
    forced = _greedy_matching(iou)
    return ops.where(forced >= 0, forced, by_threshold)


def _greedy_matching(similarity):
    """`bipartite_matching` of similarities that `_check_similarity` has passed."""
    num_rows, num_columns = similarity.shape[1:]
    rows = ops.expand_dims(ops.arange(num_rows, dtype="int32"), 0)
    columns = ops.expand_dims(ops.arange(num_columns, dtype="int32"), 0)

    # A pair that is the best of its row and of its column stays so until it is taken.
    # Taking all such pairs at once gives the greedy result in a few rounds.
    def take_mutual_best(free, matched):
        best_column = ops.cast(ops.argmax(free, axis=2), "int32")
        best_row = ops.cast(ops.argmax(free, axis=1), "int32")
        row_is_taken = ops.take_along_axis(best_row, best_column, axis=1) == rows
        column_is_taken = ops.take_along_axis(best_column, best_row, axis=1) == columns
        column_is_taken = ops.logical_and(column_is_taken, ops.max(free, axis=1) > 0.0)
        matched = ops.where(column_is_taken, best_row, matched)
        taken = ops.logical_or(
            ops.expand_dims(row_is_taken, 2), ops.expand_dims(column_is_taken, 1)
        )
        return ops.where(taken, 0.0, free), matched

    matched = ops.full_like(similarity[:, 0, :], BACKGROUND, dtype="int32")
    _, matched = ops.while_loop(
        lambda free, matched: ops.any(free > 0.0), take_mutual_best, (similarity, matched)
    )
    return matched


def _check_similarity(similarity, name="similarity"):
    """float32 similarities without NaN, of at least one row."""
    similarity = ops.convert_to_tensor(similarity)
    shape = tuple(similarity.shape)
    if len(shape) != 3 or shape[2] == 0:
        raise ValueError(f"{name} must have shape (B, N, A), A above 0; received: {shape}")
    similarity = ops.cast(similarity, "float32")
    if shape[1] == 0:
        # No object at all is as good as one that resembles nothing.
        return ops.pad(similarity, [(0, 0), (0, 1), (0, 0)])
    return ops.where(similarity > 0.0, similarity, 0.0)
