"""Descriptors with poses: loss against loops, network, and that it learns to tell poses."""

import keras
import numpy as np
import pytest

from kerasvision.data.solids import rotation
from kerasvision.embedding import PoseDescriptor, descriptor_network, load_embedding

RNG = np.random.default_rng(0)
# Object 0 at 0, 0, 20, 50 and 200 degrees, object 1 at 0, 90 and 90, object 2 once.
LABELS = np.array([0, 1, 0, 0, 1, 0, 1, 2, 0])
ANGLES = np.array([0, 0, 0, 20, 90, 50, 90, 10, 200])
TURNS = np.stack([rotation(2, angle) @ rotation(0, 30) for angle in ANGLES]).astype("float32")


def tiny():
    keras.utils.set_random_seed(0)
    return descriptor_network((28, 28, 3), 4)


def reference(f, margin, pair_weight):
    """By loops over anchors, pullers and pushers."""
    d = np.sqrt(((np.float64(f)[:, None] - f[None]) ** 2).sum(-1))
    apart = np.abs(ANGLES[:, None] - ANGLES[None])
    apart = np.minimum(apart, 360 - apart)
    triplets, pairs = [], []
    for i in range(len(f)):
        own = [j for j in range(len(f)) if LABELS[j] == LABELS[i] and j != i]
        pairs += [d[i, j] ** 2 for j in own if apart[i, j] == 0]
        own = [j for j in own if apart[i, j] > 0]
        if own:
            j = min(own, key=lambda j: (apart[i, j], j))
            for k in range(len(f)):
                if LABELS[k] != LABELS[i] or apart[i, k] > apart[i, j]:
                    triplets.append(max(0, 1 - d[i, k] / (d[i, j] + margin)))
    return np.mean(triplets) + pair_weight * np.mean(pairs)


@pytest.mark.parametrize("margin, pair_weight", [(0.01, 1.0), (0.3, 0.2)])
def test_loss_is_that_of_loops(margin, pair_weight, compiled):
    model = PoseDescriptor(tiny(), margin, pair_weight)
    f = RNG.normal(size=(len(LABELS), 3)).astype("float32")
    loss = compiled(
        lambda f, labels, turns: model.compute_loss({"labels": labels, "turns": turns}, y_pred=f)
    )
    found = float(loss(f, LABELS, TURNS))
    assert found == pytest.approx(reference(f, margin, pair_weight), rel=1e-4)


@pytest.mark.parametrize("case", ["one object, one pose", "strangers", "coinciding"])
def test_degenerate_batches_are_finite(case):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the tape is TensorFlow's")
    import tensorflow as tf

    labels = np.arange(9) if case == "strangers" else np.zeros(9, int)
    turns = np.repeat(TURNS[:1], 9, axis=0) if case == "one object, one pose" else TURNS
    f = RNG.normal(size=(9, 3)).astype("float32")
    f = tf.constant(np.repeat(f[:1], 9, axis=0) if case == "coinciding" else f)
    model = PoseDescriptor(tiny())
    with tf.GradientTape() as tape:
        tape.watch(f)
        loss = model.compute_loss({"labels": labels, "turns": turns}, y_pred=f)
    gradient = tape.gradient(loss, f).numpy()
    assert np.isfinite(gradient).all()
    if case == "strangers":
        assert float(loss) == 0.0 and not gradient.any()


def test_the_papers_network():
    model = descriptor_network()
    assert model.count_params() == 272_423
    assert model.output_shape == (None, 32)
    with pytest.raises(ValueError, match="at least 28 x 28"):
        descriptor_network((27, 64, 3))


def bars(labels, angles):
    """A thick or a thin bar, turned, on a noisy ground."""
    y, x = np.mgrid[:28, :28] - 13.5
    pictures = []
    for label, angle in zip(labels, np.radians(angles)):
        along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        bar = (along > -3) & (along < 12) & (np.abs(across) < (2 + 4 * label))
        pictures.append(np.where(bar, RNG.uniform(150, 250), RNG.uniform(0, 90, bar.shape)))
    return np.repeat(np.stack(pictures)[..., None], 3, axis=-1).astype("float32")


def test_it_learns_objects_and_poses():
    keras.utils.set_random_seed(0)
    model = PoseDescriptor(tiny())
    model.compile(keras.optimizers.Adam(0.002))

    def batch(count):
        labels, angles = RNG.integers(0, 2, count), RNG.uniform(0, 360, count)
        labels, angles = np.tile(labels, 2), np.tile(angles, 2)
        turns = np.stack([rotation(2, angle) for angle in angles]).astype("float32")
        return {"images": bars(labels, angles), "labels": labels, "turns": turns}, angles

    losses = [model.train_on_batch(batch(24)[0]) for _ in range(80)]
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:5])
    (gallery, known), (queries, truth) = batch(100), batch(30)
    f, q = (model.predict(x["images"], verbose=0) for x in (gallery, queries))
    nearest = ((q[:, None] - f[None]) ** 2).sum(-1).argmin(1)
    right = gallery["labels"][nearest] == queries["labels"]
    apart = np.abs(known[nearest] - truth)
    assert right.mean() > 0.9
    assert np.median(np.minimum(apart, 360 - apart)) < 15


def test_it_survives_a_file(tmp_path):
    model = PoseDescriptor(tiny(), 0.02, 0.5)
    model.save(tmp_path / "model.keras")
    loaded = load_embedding(tmp_path / "model.keras")
    assert (loaded.margin, loaded.pair_weight) == (0.02, 0.5)
    images = bars([0, 1], [10, 70])
    np.testing.assert_allclose(loaded.predict(images, verbose=0), model.predict(images, verbose=0))
    with pytest.raises(ValueError, match="must give descriptors"):
        PoseDescriptor(keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 1)]))
