"""Mined triplets against loops over all triplets of a batch."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.embedding import mining
from kerasvision.embedding.losses import pairwise_squared_distances

RNG = np.random.default_rng(0)
LABELS = np.array([3, 1, 3, 7, 1, 1, 7, 3, 9])  # 9 has one picture
ALPHA = 0.3


def unit(*shape):
    f = RNG.normal(size=shape)
    return (f / np.linalg.norm(f, axis=-1, keepdims=True)).astype("float32")


def triplets(f, labels):
    """{(a, p): [(n, d_ap, d_an), ...]} of all there are, in float64."""
    d = ((np.float64(f)[:, None] - f[None]) ** 2).sum(-1)
    count = range(len(labels))
    return {
        (a, p): [(n, d[a, p], d[a, n]) for n in count if labels[n] != labels[a]]
        for a in count
        for p in count
        if a != p and labels[a] == labels[p]
    }


def reference(name, f, labels, alpha):
    """(loss, active) by loops."""
    losses = []
    pairs = triplets(f, labels)
    for (a, p), found in pairs.items():
        d_ap = found[0][1] if found else None
        if not found:
            continue
        if name == "batch_all":
            losses += [max(0.0, d_ap - d_an + alpha) for _, _, d_an in found]
        elif name == "semi_hard":
            farther = [d_an for _, _, d_an in found if d_an > d_ap]
            d_an = min(farther) if farther else max(d_an for _, _, d_an in found)
            losses.append(max(0.0, d_ap - d_an + alpha))
    if name == "batch_hard":
        for a in range(len(labels)):
            mine = [found for (anchor, _), found in pairs.items() if anchor == a and found]
            if mine:
                d_ap = max(found[0][1] for found in mine)
                losses.append(max(0.0, d_ap - min(n[2] for n in mine[0]) + alpha))
    active = [loss for loss in losses if loss > 0.0]
    mean = np.mean(active if name == "batch_all" else losses) if active else 0.0
    return mean, len(active) / max(1, len(losses))


@pytest.mark.parametrize("name", ["batch_all", "batch_hard", "semi_hard"])
@pytest.mark.parametrize("dimensions, alpha", [(2, ALPHA), (5, ALPHA), (5, 0.0), (5, 3.0)])
def test_miners_find_what_loops_find(name, dimensions, alpha, compiled):
    f = unit(len(LABELS), dimensions)
    expected = reference(name, f, LABELS, alpha)
    miner = compiled(lambda f, labels: mining.MINERS[name](f, labels, alpha))
    found = [float(x) for x in miner(f, LABELS)]
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_golden_batch():
    """On a line: a at 0, p at 1, n at 0.5, 2 and 5; squared 1; 0.25, 4, 25."""
    f = np.float32([[0], [1], [0.5], [2], [5]])
    labels = np.array([0, 0, 1, 2, 3])
    # From a: 1 - 0.25, 1 - 4, 1 - 25; from p: 1 - 0.25, 1 - 1, 1 - 16; alpha 0.5.
    assert [float(x) for x in mining.batch_all(f, labels, 0.5)] == pytest.approx(
        [(1.25 + 1.25 + 0.5) / 3, 3 / 6]
    )
    assert [float(x) for x in mining.batch_hard(f, labels, 0.5)] == pytest.approx([1.25, 1.0])
    # Farther than 1 are 4 from a; from p 16, as 1 is not.
    f[3] = 2.01
    assert [float(x) for x in mining.semi_hard(f, labels, 0.5)] == pytest.approx(
        [(0 + 1.5 - 1.01**2) / 2, 0.5], rel=1e-4
    )


def test_semi_hard_falls_back_to_the_farthest_negative():
    f = np.float32([[0], [3], [1], [2]])
    labels = np.array([0, 0, 1, 2])
    # d_ap = 9; from a: 1, 4; from p: 4, 1.
    loss, active = mining.semi_hard(f, labels, 0.5)
    assert (float(loss), float(active)) == pytest.approx((9 - 4 + 0.5, 1.0))


def test_random_triplets_are_uniform_and_seeded():
    """One-hot negatives at different distances tell which one was drawn."""
    labels = np.array([2, 2, 0, 1, 3, 5])
    f = np.float32([[0], [0], [1], [2], [3], [4]])
    found = [float(mining.random(f, labels, 20.0, seed)[0]) for seed in range(80)]
    # The two pairs' losses are 20 - n^2, n from 1 to 4, each as often.
    sums = np.round([2 * (20 - x) for x in found]).astype(int)
    possible = sorted({a * a + b * b for a in range(1, 5) for b in range(1, 5)})
    assert sorted(set(sums)) == possible
    assert np.mean(sums) == pytest.approx(2 * 7.5, abs=2.0)
    assert [float(x) for x in mining.random(f, labels, 20.0, 3)] == [found[3], 1.0]


def test_random_takes_negatives_only():
    """Negatives are all farther than alpha behind the positives: a positive would have a loss."""
    labels = np.repeat(np.arange(4), 3)
    f = np.eye(4, dtype="float32")[labels] * 5
    for seed in range(20):
        assert [float(x) for x in mining.random(f, labels, 0.2, seed)] == [0.0, 0.0]


@pytest.mark.parametrize("name", mining.MINERS)
@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [0, 0, 0, 0], [5]])
def test_a_batch_without_triplets_has_no_loss(name, labels):
    f = unit(len(labels), 3)
    loss, active, gradient = with_gradient(name, f, np.array(labels))
    assert (loss, active) == (0.0, 0.0)
    np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize("name", mining.MINERS)
def test_a_collapsed_batch_costs_alpha(name):
    f = np.repeat(unit(1, 3), len(LABELS), axis=0)
    loss, active, gradient = with_gradient(name, f, LABELS)
    assert (loss, active) == pytest.approx((ALPHA, 1.0), abs=1e-5)
    assert np.isfinite(gradient).all()


def with_gradient(name, f, labels, alpha=ALPHA):
    """loss, active, and the gradient of the loss, in TensorFlow's graph."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the tape is TensorFlow's")
    import tensorflow as tf

    f = tf.constant(f)
    with tf.GradientTape() as tape:
        tape.watch(f)
        loss, active = mining.MINERS[name](f, labels, alpha, seed=0)
    return float(loss), float(active), tape.gradient(loss, f).numpy()


@pytest.mark.parametrize("name", mining.MINERS)
def test_gradients_are_differences(name):
    f, step = unit(len(LABELS), 3), 1e-3
    *_, gradient = with_gradient(name, f, LABELS)
    for place in np.ndindex(f.shape):
        sides = []
        for sign in (1, -1):
            moved = f.copy()
            moved[place] += sign * step
            sides.append(float(mining.MINERS[name](moved, LABELS, ALPHA, seed=0)[0]))
        # The mean over active ones jumps where one more becomes active.
        expected = (sides[0] - sides[1]) / (2 * step)
        assert gradient[place] == pytest.approx(expected, abs=5e-3), place


def test_half_precision_is_mined_in_float32():
    halves = ops.cast(unit(len(LABELS), 4), "bfloat16")
    for miner in mining.MINERS.values():
        expected = miner(ops.cast(halves, "float32"), LABELS, ALPHA, 0)
        assert [float(x) for x in miner(halves, LABELS, ALPHA, 0)] == [float(x) for x in expected]


def test_faces_of_a_whole_batch_fit():
    """1,800 embeddings, as of FaceNet, have 230 million triplets."""
    labels = np.repeat(np.arange(45), 40)
    f = unit(1800, 16)
    found = {name: mining.MINERS[name](f, labels, ALPHA, 0) for name in mining.MINERS}
    hard, semi, chance = (float(found[n][0]) for n in ("batch_hard", "semi_hard", "random"))
    assert hard > semi and hard > chance > 0.0
    d = ops.convert_to_numpy(pairwise_squared_distances(f))
    same = labels[:, None] == labels
    farthest = np.where(same, d, -1).max(1)
    nearest = np.where(same, 9, d).min(1)
    assert hard == pytest.approx(np.maximum(0, farthest - nearest + ALPHA).mean(), rel=1e-4)
    # Of a thousand anchors' triplets, drawn, as many are active.
    rng = np.random.default_rng(1)
    a, p = np.nonzero(same & ~np.eye(1800, dtype=bool))
    n = rng.integers(0, 1800, len(a))
    kept = labels[n] != labels[a]
    active = d[a, p][kept] - d[a, n][kept] + ALPHA > 0
    assert float(found["batch_all"][1]) == pytest.approx(active.mean(), abs=0.01)
    assert float(found["random"][1]) == pytest.approx(active.mean(), abs=0.01)
