"""What is minimised when pictures become points: near where they belong together, else far.

Embeddings are float tensors (B, D), a row a picture; all losses are float32. Distances are
Euclidean. The gradient of a distance is 0 where two points coincide, instead of not a number.
"""

from keras import ops


def squared_distance(a, b):
    """||a - b||^2 (B,) float32 of the rows of (B, D) and (B, D)."""
    return ops.sum(ops.square(ops.cast(a, "float32") - ops.cast(b, "float32")), axis=-1)


def distance(a, b):
    """||a - b|| (B,) float32 of the rows of (B, D) and (B, D)."""
    return safe_sqrt(squared_distance(a, b))


def pairwise_squared_distances(embeddings):
    """||f_i - f_j||^2 (N, N) float32 of all pairs of the rows of (N, D); 0 on the diagonal.

    By |f_i|^2 + |f_j|^2 - 2 f_i f_j, in memory of N^2: at unit length the rounding is about 1e-6.
    """
    f = ops.cast(embeddings, "float32")
    squares = ops.sum(ops.square(f), axis=-1)
    distances = squares[:, None] + squares[None, :] - 2.0 * ops.matmul(f, ops.transpose(f))
    return ops.maximum(distances, 0.0) * (1.0 - ops.eye(ops.shape(f)[0], dtype="float32"))


def safe_sqrt(x):
    """The square root; its gradient is 0 at 0."""
    positive = x > 0.0
    return ops.where(positive, ops.sqrt(ops.where(positive, x, 1.0)), 0.0)


def contrastive_loss(distances, same, margin=1.0, weights=None):
    """d of pairs that match, max(0, C - d) of those that don't; the mean over the pairs.

    Simo-Serra et al. 2015 ("Discriminative Learning of Deep Convolutional Feature Point
    Descriptors"), equation 1: its pull does not fade as two points come near each other.

    Args:
        distances: d, of any shape.
        same: bool or 0 and 1 of this shape, whether the two match.
        margin: C, the distance from which on two that don't match are left alone.
        weights: of the pairs, float32 of sum 1 and of this shape; None: equal ones.
    """
    d, same = ops.cast(distances, "float32"), ops.cast(same, "float32")
    losses = same * d + (1.0 - same) * ops.maximum(0.0, margin - d)
    return ops.mean(losses) if weights is None else ops.sum(weights * losses)


def squared_contrastive_loss(distances, same, margin=1.0, weights=None):
    """d^2 / 2 of pairs that match, max(0, m - d)^2 / 2 of the others; the mean over the pairs.

    Hadsell, Chopra and LeCun 2006 ("Dimensionality Reduction by Learning an Invariant Mapping"),
    equation 4.

    Args:
        distances, same, weights: as of `contrastive_loss`.
        margin: m.
    """
    d, same = ops.cast(distances, "float32"), ops.cast(same, "float32")
    apart = ops.square(ops.maximum(0.0, margin - d))
    losses = 0.5 * (same * ops.square(d) + (1.0 - same) * apart)
    return ops.mean(losses) if weights is None else ops.sum(weights * losses)


def triplet_loss(anchors, positives, negatives, alpha=0.2):
    """max(0, ||f_a - f_p||^2 - ||f_a - f_n||^2 + alpha), the mean over the triplets.

    FaceNet (Schroff, Kalenichenko and Philbin 2015), equation 3, where the sum is meant to stop
    at 0. Which triplets there are to learn from, `kerasvision.embedding.mining` tells.

    Args:
        anchors, positives, negatives: (B, D); those of a row are of one person, the same one and
            another one.
        alpha: the margin.
    """
    near, far = squared_distance(anchors, positives), squared_distance(anchors, negatives)
    return ops.mean(ops.maximum(0.0, near - far + alpha))


def ratio_triplet_loss(nearer, farther, margin=0.01, weights=None):
    """max(0, 1 - ||f_i - f_k|| / (||f_i - f_j|| + m)), the mean over the triplets.

    Wohlhart and Lepetit 2015 ("Learning Descriptors for Object Recognition and 3D Pose
    Estimation"), equation 3: a ratio, so that descriptors don't shrink, nor grow, to fulfil it.

    Args:
        nearer: ||f_i - f_j||, of any shape: f_j is of the same object as f_i in a pose like its.
        farther: ||f_i - f_k|| of this shape: f_k is of another object, or of the same in a pose
            less like that of f_i.
        margin: m; it keeps the quotient finite.
        weights: as of `contrastive_loss`.
    """
    nearer, farther = ops.cast(nearer, "float32"), ops.cast(farther, "float32")
    losses = ops.maximum(0.0, 1.0 - farther / (nearer + margin))
    return ops.mean(losses) if weights is None else ops.sum(weights * losses)


def pair_loss(squared_distances, weights=None):
    """||f_i - f_j||^2, the mean over the pairs.

    Wohlhart and Lepetit 2015, equation 4: the two show one object in one pose, under another
    light and on another ground.

    Args:
        squared_distances: of any shape.
        weights: as of `contrastive_loss`.
    """
    d = ops.cast(squared_distances, "float32")
    return ops.mean(d) if weights is None else ops.sum(weights * d)
