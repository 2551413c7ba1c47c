"""The losses of embeddings against loops over pairs and triplets, and their gradients."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.embedding import losses

RNG = np.random.default_rng(0)
F = RNG.normal(size=(3, 6, 4)).astype("float32")
SAME = np.array([1, 0, 1, 0, 0, 1])


def value(x):
    return ops.convert_to_numpy(x)


def length(x):
    return np.sqrt(np.sum(np.float64(x) ** 2))


def gradients(function, *arrays):
    """Of a scalar function, by TensorFlow."""
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the tape is TensorFlow's")
    tensors = [tf.constant(x) for x in arrays]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        loss = function(*tensors)
    return [g.numpy() for g in tape.gradient(loss, tensors, unconnected_gradients="zero")]


def assert_gradients(function, *arrays, step=1e-3):
    """By differences from both sides."""
    for number, gradient in enumerate(gradients(function, *arrays)):
        for place in np.ndindex(arrays[number].shape):
            sides = []
            for sign in (1, -1):
                moved = [x.copy() for x in arrays]
                moved[number][place] += sign * step
                sides.append(float(function(*moved)))
            expected = (sides[0] - sides[1]) / (2 * step)
            assert gradient[place] == pytest.approx(expected, abs=2e-3), (number, place)


def test_contrastive_losses_are_those_of_the_papers():
    d = np.float32([0.0, 0.3, 2.0, 1.5, 0.9, 0.1])
    linear = [0.0, 1.2 - 0.3, 2.0, 0.0, 1.2 - 0.9, 0.1]
    squared = [0.0, 0.9**2 / 2, 2.0, 0.0, 0.3**2 / 2, 0.01 / 2]
    assert float(losses.contrastive_loss(d, SAME, 1.2)) == pytest.approx(np.mean(linear))
    assert float(losses.squared_contrastive_loss(d, SAME, 1.2)) == pytest.approx(np.mean(squared))
    same = SAME.astype(bool)
    assert float(losses.contrastive_loss(d, same, 1.2)) == pytest.approx(np.mean(linear))


@pytest.mark.parametrize("loss", [losses.contrastive_loss, losses.squared_contrastive_loss])
def test_contrastive_gradients(loss):
    def of_embeddings(a, b):
        return loss(losses.distance(a, b), SAME, 2.5)

    assert_gradients(of_embeddings, F[0], F[1])


def test_triplet_loss_is_that_of_a_loop():
    expected = [max(0.0, length(a - p) ** 2 - length(a - n) ** 2 + 0.7) for a, p, n in zip(*F)]
    assert 0.0 in expected and max(expected) > 0.0
    assert float(losses.triplet_loss(*F, alpha=0.7)) == pytest.approx(np.mean(expected), rel=1e-5)
    assert_gradients(lambda *f: losses.triplet_loss(*f, alpha=0.7), *F)


def ratio_loss(i, j, k):
    return losses.ratio_triplet_loss(losses.distance(i, j), losses.distance(i, k))


def pair_loss(a, b):
    return losses.pair_loss(losses.squared_distance(a, b))


def test_ratio_triplet_loss_is_that_of_a_loop():
    expected = [max(0.0, 1 - length(a - k) / (length(a - j) + 0.01)) for a, j, k in zip(*F)]
    assert 0.0 in expected and max(expected) > 0.0
    assert float(ratio_loss(*F)) == pytest.approx(np.mean(expected), rel=1e-5)
    assert_gradients(ratio_loss, *F)


def test_pair_loss_is_that_of_a_loop():
    expected = np.mean([length(a - b) ** 2 for a, b in zip(F[0], F[1])])
    assert float(pair_loss(F[0], F[1])) == pytest.approx(expected, rel=1e-5)
    assert_gradients(pair_loss, F[0], F[1])


def test_weighted_means():
    w = np.float32([0.5, 0, 0, 0.2, 0.3, 0])
    near, far = (value(losses.distance(F[0], x)) for x in F[1:])
    for function, arrays in [
        (losses.contrastive_loss, (near, SAME)),
        (losses.squared_contrastive_loss, (near, SAME)),
        (losses.ratio_triplet_loss, (near, far)),
        (losses.pair_loss, (near,)),
    ]:
        one_by_one = [float(function(*(x[i : i + 1] for x in arrays))) for i in range(6)]
        found = float(function(*arrays, weights=w))
        assert found == pytest.approx(np.dot(w, one_by_one), rel=1e-5)


def test_golden_triplets():
    a, p, n = np.float32([[[0, 0]], [[0.6, 0]], [[0, 0.8]]])
    # 0.36 - 0.64 + 0.5; 1 - 0.8 / 0.61 is below 0, the other way round 1 - 0.6 / 0.81.
    assert float(losses.triplet_loss(a, p, n, 0.5)) == pytest.approx(0.22)
    assert float(losses.triplet_loss(a, p, n, 0.2)) == 0.0
    assert float(ratio_loss(a, p, n)) == 0.0
    assert float(ratio_loss(a, n, p)) == pytest.approx(1 - 0.6 / 0.81)


@pytest.mark.parametrize(
    "function",
    [
        lambda *f: losses.contrastive_loss(losses.distance(f[0], f[1]), SAME),
        lambda *f: losses.squared_contrastive_loss(losses.distance(f[0], f[1]), SAME),
        losses.triplet_loss,
        ratio_loss,
        lambda *f: pair_loss(f[0], f[1]),
        lambda *f: (
            ops.sum(losses.safe_sqrt(losses.pairwise_squared_distances(f[0])))
            + 0.0 * ops.sum(f[1] + f[2])
        ),
    ],
)
def test_coinciding_points_have_finite_gradients(function):
    for gradient in gradients(function, *np.repeat(F[:1], 3, axis=0)):
        assert np.isfinite(gradient).all()


def test_pairwise_distances_are_those_of_a_loop():
    f = F.reshape(-1, 4)
    expected = [[length(a - b) ** 2 for b in f] for a in f]
    found = value(losses.pairwise_squared_distances(f))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert (np.diag(found) == 0).all() and (found >= 0).all()
    # Far from the origin the product rounds away, but never below zero.
    assert (value(losses.pairwise_squared_distances(f * 1e-4 + 100)) >= 0).all()


def test_half_precision_is_computed_in_float32():
    halves = [ops.cast(x, "bfloat16") for x in F]
    floats = [ops.cast(x, "float32") for x in halves]
    found = losses.triplet_loss(*halves, alpha=0.7)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    assert float(found) == float(losses.triplet_loss(*floats, alpha=0.7))
