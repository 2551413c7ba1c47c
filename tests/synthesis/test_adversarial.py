import keras
import numpy as np
import pytest
from keras import layers

from kerasvision.classification import AdversarialClassifier, Classifier, robust_accuracy
from kerasvision.synthesis.adversarial import Adversary, judge, least_likely, to_pixels

WEIGHTS = np.random.default_rng(0).normal(size=(4 * 4 * 3, 3)).astype("float32") / 100
BIAS = np.array([0.1, 0.0, -0.1]) - 125 * WEIGHTS.sum(axis=0)  # of grey, no class is sure


def affine(activation="softmax"):
    """Three classes, logits W'x + b, with the softmax inside the last layer."""
    inputs = keras.Input((4, 4, 3))
    dense = layers.Dense(3, activation=activation)
    model = keras.Model(inputs, dense(layers.Flatten()(inputs)))
    dense.set_weights([WEIGHTS, BIAS])
    return model


@pytest.fixture
def pictures():
    images = np.random.default_rng(1).integers(90, 160, (5, 4, 4, 3)).astype("float32")
    return images, affine().predict(images, verbose=0).argmax(-1)


def gradient_of_loss(images, label):
    """dJ/dx of the cross-entropy of one picture, written out."""
    z = images.reshape(-1).astype("float64") @ WEIGHTS + BIAS
    p = np.exp(z) / np.exp(z).sum()
    return (WEIGHTS @ (p - np.eye(3)[label])).reshape(4, 4, 3)


@pytest.mark.parametrize("activation", ["softmax", None])
def test_fgsm_goes_along_the_sign(pictures, activation):
    images, labels = pictures
    changed = Adversary(affine(activation)).fgsm(images, labels, 4.0)
    for x, image, label in zip(changed, images, labels):
        np.testing.assert_array_equal(x, image + 4 * np.sign(gradient_of_loss(image, label)))


def test_targeted_fgsm_goes_the_other_way(pictures):
    images, labels = pictures
    targets = (labels + 1) % 3
    changed = Adversary(affine()).fgsm(images, targets, 4.0, targeted=True)
    for x, image, target in zip(changed, images, targets):
        np.testing.assert_array_equal(x, image - 4 * np.sign(gradient_of_loss(image, target)))


def test_deepfool_is_the_projection_on_the_nearest_border(pictures):
    images, labels = pictures
    changed = Adversary(affine()).deepfool(images, labels, overshoot=0.02)
    logits = affine(None).predict(images, verbose=0)
    for x, image, label, z in zip(changed, images, labels, logits):
        ways = []
        for k in range(3):
            if k != label:
                w = WEIGHTS[:, k] - WEIGHTS[:, label]
                ways.append((z[label] - z[k]) / (w @ w) * w)
        way = min(ways, key=np.linalg.norm).reshape(4, 4, 3)
        np.testing.assert_allclose(x - image, 1.02 * way, rtol=1e-3, atol=1e-3)


def test_lbfgs_finds_nearly_the_least_change(pictures):
    images, labels = pictures[0][:1], pictures[1][:1]
    adversary = Adversary(affine())
    least = np.linalg.norm(adversary.deepfool(images, labels, overshoot=0.0) - images)
    changed = adversary.lbfgs(images, labels)
    assert affine().predict(changed, verbose=0).argmax() != labels[0]
    assert least <= np.linalg.norm(changed - images) < 1.3 * least


@pytest.mark.parametrize("norm, epsilon", [("linf", 3.0), ("l2", 12.0)])
def test_pgd_stays_in_the_ball_and_on_the_scale(norm, epsilon):
    images = np.random.default_rng(2).integers(0, 256, (5, 4, 4, 3)).astype("float32")
    labels = affine().predict(images, verbose=0).argmax(-1)
    changed = Adversary(affine()).pgd(images, labels, epsilon, 10, restarts=2, norm=norm)
    change = (changed.astype("float64") - images).reshape(5, -1)
    lengths = np.abs(change).max(1) if norm == "linf" else np.linalg.norm(change, axis=1)
    assert (lengths <= epsilon).all() and (lengths > 0.8 * epsilon).all()
    assert changed.min() >= 0 and changed.max() <= 255
    whole = to_pixels(changed, images, epsilon, norm)
    change = (whole.astype("float64") - images).reshape(5, -1)
    lengths = np.abs(change).max(1) if norm == "linf" else np.linalg.norm(change, axis=1)
    assert (lengths <= epsilon).all()


def test_pgd_is_no_worse_than_one_step(pictures):
    images, labels = pictures
    adversary = Adversary(affine())
    logits = [
        affine(None).predict(x, verbose=0)
        for x in (adversary.fgsm(images, labels, 3.0), adversary.pgd(images, labels, 3.0, 20))
    ]
    lead = [z[range(5), labels] - np.sort(z, -1)[:, -1] for z in logits]
    assert (lead[1] <= lead[0] + 1e-2).all()


def test_targets_are_reached(pictures):
    images, _ = pictures
    probabilities = affine().predict(images, verbose=0)
    targets = least_likely(probabilities)
    np.testing.assert_array_equal(targets, probabilities.argmin(-1))
    model = affine()
    before = model.get_weights()
    changed = Adversary(model).pgd(images, targets, 60.0, 20, targeted=True)
    np.testing.assert_array_equal(model.predict(changed, verbose=0).argmax(-1), targets)
    for old, new in zip(before, model.get_weights()):
        np.testing.assert_array_equal(old, new)


def test_judgement_by_hand():
    images = np.zeros((2, 2, 2, 3))
    x = images.copy()
    x[0, 0, 0] = [3, 0, 4]
    found = judge([[0.2, 0.8], [0.9, 0.1]], x, images, np.array([0, 0]))
    np.testing.assert_array_equal(found.success, [True, False])
    np.testing.assert_array_equal(found.l2, [5, 0])
    np.testing.assert_array_equal(found.linf, [4, 0])
    np.testing.assert_array_equal(found.l0, [1, 0])
    np.testing.assert_allclose(found.scores, [0.8, 0.9])


@pytest.mark.parametrize(
    "labels, epsilon, message",
    [
        ([3], 1.0, "labels must be from 0 to 2; received: 3 to 3"),
        ([0, 1], 1.0, "labels must be 1 integers"),
        ([0], -1.0, "epsilon must not be negative; received: -1.0"),
    ],
)
def test_bad_input(labels, epsilon, message):
    with pytest.raises(ValueError, match=message):
        Adversary(affine()).fgsm(np.zeros((1, 4, 4, 3)), np.array(labels), epsilon)


def blobs(count, seed):
    """A feature that is large and easily changed, and one that is not: both tell the class."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, count)
    images = np.full((count, 4, 4, 3), 128.0, "float32") + random.normal(0, 1, (count, 4, 4, 3))
    images[:, :2] += np.where(labels, 6.0, -6.0)[:, None, None, None]  # small
    images[:, 2, 0] += np.where(labels, 60.0, -60.0)[:, None]  # large, on a single pixel
    return images.astype("float32"), labels


def test_adversarial_training_withstands_more():
    images, labels = blobs(64, 0)
    test_images, test_labels = blobs(64, 1)
    batches = [{"images": test_images, "labels": test_labels}]
    shares = []
    for kind, settings in ((Classifier, {}), (AdversarialClassifier, {"epsilon": 12.0})):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((4, 4, 3))
        x = layers.Rescaling(1 / 64, -2.0)(inputs)
        network = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
        model = kind(network, ["dark", "bright"], **settings)
        model.compile(keras.optimizers.Adam(0.05))
        model.fit(images, labels, batch_size=32, epochs=20, verbose=0)
        shares.append(robust_accuracy(model, batches, 12.0))
    assert shares[1]["pgd"] > 0.9 > shares[0]["pgd"] + 0.2
    assert shares[0]["epsilon"] == 12.0 and shares[0]["steps"] == 20
