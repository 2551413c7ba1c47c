"""Siamese networks: heads and losses against loops over pairs."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.backbones import cifar_resnet
from kerasvision.embedding import ChiSquared, Siamese, WeightedL1, embedding_network, load_embedding
from kerasvision.embedding.siamese import CONTRASTIVE

RNG = np.random.default_rng(0)
F = RNG.uniform(0, 1, (2, 6, 5)).astype("float32")
W, B = RNG.normal(size=5).astype("float32"), np.float32(0.3)
LABELS = np.array([4, 1, 4, 4, 2, 1])


def head_with_weights(head):
    layer = head()
    layer.build((None, 5), (None, 5))
    assert layer.count_params() == 6
    np.testing.assert_allclose(layer.get_weights()[0], -2.0)
    assert layer.get_weights()[1] == 1.0
    layer.set_weights([W, B])
    return layer


def logit(kind, a, b):
    """The lecture's sums, number by number."""
    total = float(B)
    for w, x, y in zip(W, a, b):
        if kind is WeightedL1:
            total += w * abs(x - y)
        elif x + y > 0:
            total += w * (x - y) ** 2 / (x + y)
    return total


@pytest.mark.parametrize("head", [WeightedL1, ChiSquared])
def test_heads_are_weighted_sums(head):
    a, b = F.copy()
    a[0, 2] = b[0, 2] = 0.0  # chi^2 would be 0 / 0
    b[1] = a[1]
    layer = head_with_weights(head)
    expected = [logit(head, *pair) for pair in zip(a, b)]
    np.testing.assert_allclose(ops.convert_to_numpy(layer(a, b)), expected, rtol=1e-5)
    assert expected[1] == pytest.approx(B)
    # All pairs at once.
    grid = ops.convert_to_numpy(layer(a[:, None], b[None]))
    np.testing.assert_allclose(np.diag(grid), expected, rtol=1e-5)
    assert grid.shape == (6, 6)


@pytest.mark.parametrize("head", [WeightedL1, ChiSquared])
def test_gradients_of_heads(head):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the tape is TensorFlow's")
    import tensorflow as tf

    layer = head_with_weights(head)
    a, b = F.copy()
    a[0] = b[0] = 0.0
    b[1] = a[1]
    x = tf.constant(a)
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(layer(x, b))
    gradient = tape.gradient(total, x).numpy()
    assert np.isfinite(gradient).all() and (gradient[0] == 0).all()
    for i, j in np.ndindex(4, 5):
        i += 2  # |x| has no gradient at 0
        sides = []
        for sign in (1, -1):
            moved = np.float64(a[i])
            moved[j] += sign * 1e-4
            sides.append(logit(head, moved, b[i]))
        assert gradient[i, j] == pytest.approx((sides[0] - sides[1]) / 2e-4, abs=1e-3)


def siamese(loss, **settings):
    keras.utils.set_random_seed(0)
    backbone = cifar_resnet((16, 16, 3), include_top=False, depth=8, width=4)
    ending = "sigmoid" if loss in ("l1", "chi2") else "unit_length"
    return Siamese(embedding_network(backbone, 5, ending=ending), loss, **settings)


def pair_loss(name, d, same, margin):
    if name in ("l1", "chi2"):  # -log of the probability of the truth
        probability = 1 / (1 + np.exp(d))
        return -np.log(probability if same else 1 - probability)
    if name == "contrastive":
        return d if same else max(0, margin - d)
    return d**2 / 2 if same else max(0, margin - d) ** 2 / 2


@pytest.mark.parametrize("name", ["l1", "chi2", "contrastive", "squared_contrastive"])
@pytest.mark.parametrize("hardest", [1.0, 0.3])
def test_loss_and_accuracy_are_those_of_loops(name, hardest, compiled):
    model = siamese(name, margin=1.3, hardest=hardest)
    if model.head is not None:
        model.head.set_weights([W, B])
    f = F[0]
    losses, right = {True: [], False: []}, {True: [], False: []}
    for i, j in np.ndindex(6, 6):
        if i != j:
            same = bool(LABELS[i] == LABELS[j])
            if model.head is not None:
                d = -logit(type(model.head), f[i], f[j])
            else:
                d = float(np.linalg.norm(np.float64(f[i]) - f[j]))
            # Far apart is hard for two that match, near for two that don't.
            losses[same].append((d if same else -d, pair_loss(name, d, same, 1.3)))
            right[same].append((d < (0.0 if model.head is not None else 0.65)) == same)
    expected = 0.0
    for kind in losses.values():  # of each two are equal, (i, j) and (j, i)
        kind.sort(reverse=True)
        count = 2 * int(np.ceil(np.ceil(hardest * len(kind)) / 2))
        assert count == (len(kind) if hardest == 1.0 else {8: 4, 22: 8}[len(kind)])
        expected += np.mean([loss for _, loss in kind[:count]]) / 2
    loss = compiled(lambda f, labels: model.compute_loss({"labels": labels}, y_pred=f))(f, LABELS)
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    found = model.compute_metrics({"labels": LABELS}, None, f)
    balanced = (np.mean(right[True]) + np.mean(right[False])) / 2
    assert float(found["accuracy"]) == pytest.approx(balanced)
    first = ops.convert_to_numpy(model.distances(f[:1], f[1:2]))
    d = -logit(type(model.head), *f[:2]) if model.head else np.linalg.norm(f[0] - f[1])
    assert first == pytest.approx(d, rel=1e-4)


@pytest.mark.parametrize("name", ["l1", "chi2", "contrastive", "squared_contrastive"])
@pytest.mark.parametrize("labels", [[0, 1, 2, 3, 4, 5], [0] * 6])
@pytest.mark.parametrize("hardest", [1.0, 0.1])
def test_a_batch_with_one_kind_of_pairs_is_finite(name, labels, hardest):
    model = siamese(name, hardest=hardest)
    loss = float(model.compute_loss({"labels": np.array(labels)}, y_pred=F[0]))
    assert np.isfinite(loss) and loss >= 0.0


@pytest.mark.parametrize(
    "name",
    ["l1", *(pytest.param(n, marks=pytest.mark.slow) for n in ("chi2", *CONTRASTIVE))],
)
def test_siamese_learns_a_batch(name):
    labels = np.repeat(np.arange(4), 3)
    colors = np.random.default_rng(1).uniform(60, 195, (4, 1, 1, 3))[labels]
    images = colors + RNG.normal(0, 20, (12, 16, 16, 3))
    data = {"images": images.astype("float32"), "labels": labels}
    model = siamese(name)
    model.compile(keras.optimizers.Adam(0.02))
    history = [model.train_on_batch(data, return_dict=True) for _ in range(20)]
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]
    assert history[-1]["accuracy"] > 0.75


def test_siamese_survives_a_file(tmp_path):
    model = siamese("chi2", hardest=0.5)
    model.head.set_weights([W, B])
    model.save(tmp_path / "model.keras")
    loaded = load_embedding(tmp_path / "model.keras")
    images = RNG.uniform(0, 255, (2, 16, 16, 3)).astype("float32")
    f = model.predict(images, verbose=0)
    np.testing.assert_allclose(loaded.predict(images, verbose=0), f)
    np.testing.assert_allclose(loaded.distances(*f), model.distances(*f))
    assert loaded.pair_loss == "chi2" and loaded.hardest == 0.5
    assert loaded.image_shape == (16, 16, 3)


def test_mistakes_are_told():
    with pytest.raises(ValueError, match="loss must be one of l1, chi2, contrastive"):
        siamese("l2")
    for share in (0.0, 1.1):
        with pytest.raises(ValueError, match=f"hardest must be above 0.*received: {share}"):
            siamese("l1", hardest=share)
    with pytest.raises(ValueError, match="must give embeddings"):
        Siamese(cifar_resnet((16, 16, 3), include_top=False, depth=8))
