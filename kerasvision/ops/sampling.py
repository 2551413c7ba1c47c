"""Which of the many reference boxes count in a training step."""

import keras
import numpy as np
from keras import ops

from kerasvision.ops.matching import BACKGROUND


def balanced_sampling(matches, num_samples, positive_fraction, seed):
    """Draws a fixed number of reference boxes of each picture, some positive, some not.

    At most floor(num_samples * positive_fraction) positives are drawn, as many as there are;
    background fills the rest. Region proposal networks draw 256 at 0.5 (Ren et al. 2015,
    section 3.1.3), Fast R-CNN 512, or 128 from one picture, at 0.25 (Girshick 2015, section
    2.3). Both need places, the first to gather predictions, the second to pool proposals.

    Args:
        matches: (B, A) integers, codes of `matching`: 0 and above are positive, -1 is
            background, others are not drawn.
        num_samples: K, 1 to A.
        positive_fraction: in [0, 1].
        seed: an integer in [0, 2^32), for the same draw in each call, or a
            `keras.random.SeedGenerator`. Equal seeds draw equal samples on every backend,
            compiled or not.

    Returns:
        indices (B, K) int32 of the boxes, without repetition, positives first; and counted
        (B, K) bool: False where a picture has too few boxes, and the index is 0.

    Raises:
        ValueError: matches of another rank, or not integers; num_samples or
            positive_fraction out of range; a seed of another kind.
    """
    matches = ops.convert_to_tensor(matches)
    if len(matches.shape) != 2 or "int" not in str(matches.dtype):
        raise ValueError(
            "matches must be integers of shape (B, A); "
            f"received: {tuple(matches.shape)}, {matches.dtype}"
        )
    if not 1 <= num_samples <= matches.shape[1]:
        raise ValueError(
            f"num_samples must be 1 to the number of boxes, {matches.shape[1]}; "
            f"received: {num_samples}"
        )
    if not 0.0 <= positive_fraction <= 1.0:
        raise ValueError(f"positive_fraction must be in [0, 1]; received: {positive_fraction}")
    priority = _random_numbers(matches, seed)
    # One slot at least keeps top_k in shape; the quota decides how many are used.
    quota = int(num_samples * positive_fraction)
    slots = max(quota, 1)
    positive, is_positive = _best(ops.where(matches >= 0, priority, -1.0), slots)
    background, is_background = _best(ops.where(matches == BACKGROUND, priority, -1.0), num_samples)

    drawn = ops.sum(ops.cast(is_positive, "int32"), axis=1, keepdims=True)
    drawn = ops.minimum(drawn, quota)
    place = ops.expand_dims(ops.arange(num_samples, dtype="int32"), 0)
    place = ops.where(place < drawn, place, place - drawn + slots)
    indices = ops.take_along_axis(ops.concatenate([positive, background], 1), place, axis=1)
    counted = ops.concatenate([is_positive, is_background], 1)
    counted = ops.take_along_axis(counted, place, axis=1)
    return ops.where(counted, indices, 0), counted


def hard_negative_mining(losses, positive, ratio=3.0):
    """The negatives with the highest losses, at most `ratio` per positive of the picture.

    Liu et al. 2016, section 2.2, "Hard negative mining".

    Args:
        losses: (B, A) confidence loss of each box; NaN counts as the lowest.
        positive: (B, A) bool.
        ratio: negatives for each positive, 0 or more.

    Returns:
        (B, A) bool: the negatives that count. Of equal losses the first ones are taken.

    Raises:
        ValueError: losses of another rank, positive of another shape than losses; a negative
            ratio.
    """
    losses, positive = ops.convert_to_tensor(losses), ops.convert_to_tensor(positive)
    if len(losses.shape) != 2 or len(positive.shape) != 2 or losses.shape[1] != positive.shape[1]:
        raise ValueError(
            "losses and positive must have the same shape (B, A); "
            f"received: {tuple(losses.shape)} and {tuple(positive.shape)}"
        )
    if not ratio >= 0.0:
        raise ValueError(f"ratio must be 0 or more; received: {ratio}")
    lowest = float(np.finfo("float32").min)
    losses = ops.nan_to_num(ops.cast(losses, "float32"), nan=lowest)
    losses = ops.where(positive, -float("inf"), losses)
    # Rank by sorting twice: static shapes, and never more than the quota when losses tie.
    order = ops.argsort(-losses, axis=1)
    rank = ops.argsort(order, axis=1)
    quota = ratio * ops.sum(ops.cast(positive, "float32"), axis=1, keepdims=True)
    return ops.logical_and(ops.cast(rank, "float32") < quota, ops.logical_not(positive))


def _best(priority, count):
    """Columns of the `count` highest priorities, int32, and whether these aren't negative."""
    values, columns = ops.top_k(priority, count)
    return ops.cast(columns, "int32"), values >= 0.0


def _random_numbers(like, seed):
    """float32 whole numbers from 0 to 2^24 - 1 in the shape (B, A) of `like`.

    A hash of the place and the seed: the generators of `keras.random` draw other numbers
    under XLA than without it.
    """
    if isinstance(seed, keras.random.SeedGenerator):
        seed = ops.cast(seed.next(), "uint32")
    elif isinstance(seed, (int, np.integer)) and 0 <= seed < 2**32:
        seed = ops.convert_to_tensor([seed, 0], dtype="uint32")
    else:
        raise ValueError(
            f"seed must be an integer in [0, 2^32) or a keras.random.SeedGenerator; "
            f"received: {seed}"
        )
    rows = ops.cumsum(ops.ones_like(like[:, :1], dtype="uint32"), axis=0)
    columns = ops.cast(ops.arange(like.shape[1], dtype="int32"), "uint32")
    place = rows * like.shape[1] + columns
    for number in (seed[0], seed[1]):
        place = _mixed(ops.bitwise_xor(_mixed(place), number))
    return ops.cast(_right_shift(place, 8), "float32")


def _mixed(bits):
    """A permutation of uint32 that looks random, by C. Wellons ("lowbias32", 2018)."""
    bits = ops.bitwise_xor(bits, _right_shift(bits, 16)) * ops.cast(0x7FEB352D, "uint32")
    bits = ops.bitwise_xor(bits, _right_shift(bits, 15)) * ops.cast(0x846CA68B, "uint32")
    return ops.bitwise_xor(bits, _right_shift(bits, 16))


def _right_shift(bits, count):
    return ops.right_shift(bits, ops.cast(count, "uint32"))
