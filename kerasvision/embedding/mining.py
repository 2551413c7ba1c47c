"""Online mining: the triplets of a batch that are worth learning from (FaceNet, section 3.2).

A batch holds P persons with K pictures each; more generally N embeddings with N labels. An
anchor a and a positive p, another picture of the same label, make a pair; with a negative n of
another label it is a triplet, and its loss is max(0, d_ap - d_an + alpha), d the squared
distance. Of the N K N triplets that there are,

    batch_all    takes all, and averages those that have a loss;
    batch_hard   takes one for each anchor: the farthest positive, the nearest negative;
    semi_hard    takes one for each pair: the nearest negative that is farther than the positive;
    random       takes one for each pair: any negative.

All of it is done on the (N, N) distances of the batch, by sorting their rows instead of writing
the triplets down: memory grows as N^2. Each function returns

    loss      () float32, the mean over the triplets, 0 if there are none;
    active    () float32, the share of the triplets whose loss is not 0.
"""

import keras
from keras import ops

from kerasvision.embedding.losses import pairwise_squared_distances

FAR = 1e30  # farther than any embedding


def batch_all(embeddings, labels, alpha=0.2, seed=None):
    """All triplets; the loss is the mean over the active ones, which soon are few.

    Hermans, Beyer and Leibe 2017 ("In Defense of the Triplet Loss for Person
    Re-Identification"), equation 6, the mean as in their section 4.2.

    Args:
        embeddings: (N, D), at unit length if `alpha` is to mean anything.
        labels: (N,) integers.
        alpha: the margin, of squared distances.
        seed: passed over; nothing is random.

    Returns:
        (loss, active), see above.
    """
    del seed
    distances, positive, negative = _pairs(embeddings, labels)
    # In a row sorted by d_ap + alpha and d_an, those before a positive are the negatives that its
    # triplets are active with.
    d = ops.where(positive, distances + alpha, distances)
    d, positive, negative = _sorted_rows(d, positive, negative)
    count_before = ops.cumsum(negative, axis=1)
    sum_before = ops.cumsum(negative * d, axis=1)
    actives = ops.sum(positive * count_before)
    total = ops.sum(positive * (count_before * d - sum_before))
    triplets = ops.sum(ops.sum(positive, axis=1) * ops.sum(negative, axis=1))
    return total / ops.maximum(actives, 1.0), actives / ops.maximum(triplets, 1.0)


def batch_hard(embeddings, labels, alpha=0.2, seed=None):
    """For each anchor the farthest positive and the nearest negative of the batch.

    Hermans et al. 2017, equation 5. FaceNet found that it can collapse early on: all embeddings
    at one point have a loss of alpha, which no small step improves.

    Args, returns: as of `batch_all`.
    """
    del seed
    distances, positive, negative = _pairs(embeddings, labels)
    farthest = ops.max(ops.where(positive, distances, -1.0), axis=1)
    nearest = ops.min(ops.where(negative, distances, FAR), axis=1)
    valid = ops.logical_and(ops.any(positive, axis=1), ops.any(negative, axis=1))
    return _mean_loss(farthest, nearest, valid, alpha)


def semi_hard(embeddings, labels, alpha=0.2, seed=None):
    """For each pair (a, p) the nearest negative that is farther from a than p is.

    FaceNet, section 3.2: hard, for it may lie within the margin, but not as hard as a mistake.
    Where all negatives are nearer than the positive it is the farthest of them, so that the pair
    is not passed over.

    Args, returns: as of `batch_all`.
    """
    del seed
    distances, positive, negative = _pairs(embeddings, labels)
    d_an = ops.where(negative, distances, FAR)
    d_an = ops.take_along_axis(d_an, ops.argsort(ops.stop_gradient(d_an), axis=1), axis=1)
    negatives = ops.sum(ops.cast(negative, "int32"), axis=1, keepdims=True)
    d_ap, positive, negative = _sorted_rows(distances, positive, negative)
    nearer = ops.cast(ops.cumsum(negative, axis=1), "int32")
    chosen = ops.maximum(ops.minimum(nearer, negatives - 1), 0)
    d_an = ops.take_along_axis(d_an, chosen, axis=1)
    return _mean_loss(d_ap, d_an, ops.logical_and(positive > 0.0, negatives > 0), alpha)


def random(embeddings, labels, alpha=0.2, seed=None):
    """For each pair (a, p) a negative drawn uniformly: what mining is to be better than.

    Args:
        embeddings, labels, alpha: as of `batch_all`.
        seed: integer or `keras.random.SeedGenerator`.

    Returns:
        (loss, active), see above.
    """
    distances, positive, negative = _pairs(embeddings, labels)
    # Sorted by label, the batch is the negatives before the anchor's own, these, and those behind.
    labels = ops.reshape(labels, (-1,))
    order = ops.argsort(labels)
    first = ops.sum(ops.cast(labels[None, :] < labels[:, None], "int32"), axis=1, keepdims=True)
    negatives = ops.sum(ops.cast(negative, "int32"), axis=1, keepdims=True)
    own = ops.shape(distances)[0] - negatives
    draws = keras.random.uniform(ops.shape(distances), seed=seed)
    draws = ops.floor(draws * ops.cast(negatives, "float32"))
    place = ops.maximum(ops.minimum(ops.cast(draws, "int32"), negatives - 1), 0)
    place = ops.where(place < first, place, place + own)
    # Where there is no negative, any place will do.
    chosen = ops.take(order, ops.minimum(place, ops.shape(distances)[0] - 1))
    d_an = ops.take_along_axis(distances, chosen, axis=1)
    return _mean_loss(distances, d_an, ops.logical_and(positive, negatives > 0), alpha)


# What --loss of the apps chooses among.
MINERS = {
    "semi_hard": semi_hard,
    "batch_hard": batch_hard,
    "batch_all": batch_all,
    "random": random,
}


def _pairs(embeddings, labels):
    """Squared distances (N, N), and which pairs (N, N) are of one person and of two."""
    distances = pairwise_squared_distances(embeddings)
    labels = ops.reshape(labels, (-1,))
    same = ops.equal(labels[:, None], labels[None, :])
    itself = ops.eye(ops.shape(labels)[0], dtype="bool")
    return distances, ops.logical_and(same, ops.logical_not(itself)), ops.logical_not(same)


def _sorted_rows(d, positive, negative):
    """Rows (N, N) sorted by `d`, with the masks as float32 beside them, the anchors last."""
    keys = ops.stop_gradient(ops.where(ops.logical_or(positive, negative), d, FAR))
    order = ops.argsort(keys, axis=1)
    rows = (d, ops.cast(positive, "float32"), ops.cast(negative, "float32"))
    return [ops.take_along_axis(row, order, axis=1) for row in rows]


def _mean_loss(d_ap, d_an, valid, alpha):
    """Mean of max(0, d_ap - d_an + alpha) and share of those above 0, of valid triplets."""
    # Not by a product: invalid ones may be as far as FAR.
    losses = ops.where(valid, ops.maximum(0.0, d_ap - d_an + alpha), 0.0)
    count = ops.maximum(ops.sum(ops.cast(valid, "float32")), 1.0)
    return ops.sum(losses) / count, ops.sum(ops.cast(losses > 0.0, "float32")) / count
