import keras
import numpy as np
import pytest
from keras import layers

from kerasvision.classification import box_regression
from kerasvision.classification.box_regression import (
    BoxRegressor,
    box_regressor,
    largest_object,
    localization_metrics,
    localize,
    merge_boxes,
)

RNG = np.random.default_rng(0)
NAMES = ["red", "green", "blue"]


def backbone(side=16):
    images = keras.Input((side, side, 3), name="images")
    x = layers.Rescaling(1 / 64, -2.0)(images)
    x = layers.Conv2D(8, 3, 2, padding="same", activation="relu")(x)
    return keras.Model(images, layers.Conv2D(8, 3, 2, padding="same", activation="relu")(x))


def batch(count=32, side=16):
    """Grey pictures with one red, green or blue rectangle each, and its box."""
    images = np.full((count, side, side, 3), 100, "float32")
    boxes, labels = np.zeros((count, 2, 4), "float32"), np.full((count, 2), -1)
    for i in range(count):
        height, width = RNG.integers(5, 11, 2)
        y, x = RNG.integers(0, side - height + 1), RNG.integers(0, side - width + 1)
        images[i, y : y + height, x : x + width] = 255 * np.eye(3)[i % 3]
        boxes[i, 0] = np.array([y, x, y + height, x + width]) / side
        labels[i, 0] = i % 3
    return {"images": images, "bounding_boxes": {"boxes": boxes, "labels": labels}}


@pytest.mark.parametrize("per_class", [True, False])
def test_parameters_and_outputs(per_class):
    model = box_regressor(backbone(), 3, per_class, hidden_units=10, class_names=NAMES)
    numbers = 12 if per_class else 4
    head = (8 * 3 + 3) + (4 * 4 * 8 + 1) * 10 + (10 + 1) * numbers
    assert model.count_params() == backbone().count_params() + head
    images = batch(2)["images"]
    raw = model.network.predict_on_batch(images)
    assert raw["boxes"].shape == (2, 3 if per_class else 1, 4)
    found = model.predict_on_batch(images)
    logits = raw["logits"].astype("float64")
    softmax = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(found["scores"], softmax, rtol=1e-4)
    for picture, label in np.ndindex(2, 3):
        cy, cx, height, width = raw["boxes"][picture, label if per_class else 0]
        corners = [cy - height / 2, cx - width / 2, cy + height / 2, cx + width / 2]
        expected = np.clip(corners, 0, 1)
        np.testing.assert_allclose(found["boxes"][picture, label], expected, atol=1e-5)


@pytest.mark.parametrize("per_class", [True, False])
def test_loss_in_numpy(per_class):
    model = box_regressor(backbone(), 3, per_class, box_weight=2.5)
    data = batch(6)
    truth = data["bounding_boxes"]
    truth["labels"][4] = -1  # nothing there
    truth["boxes"][5, 1], truth["labels"][5, 1] = [0, 0, 1, 0.9], 1  # larger than the first
    raw = model.network.predict_on_batch(data["images"])
    total = 0.0
    for i in (0, 1, 2, 3, 5):
        box, label = truth["boxes"][i, int(i == 5)], truth["labels"][i, int(i == 5)]
        logits = raw["logits"][i].astype("float64")
        total += np.log(np.exp(logits).sum()) - logits[label]
        center = [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box[2] - box[0], box[3] - box[1]]
        distance = raw["boxes"][i, label if per_class else 0] - center
        total += 2.5 * 0.5 * np.sum(distance**2)
    loss = model.compute_loss(x=data, y_pred=model(data, training=False))
    assert float(loss) == pytest.approx(total / 5, rel=1e-4)


@pytest.mark.slow
def test_training_finds_the_boxes():
    keras.utils.set_random_seed(0)
    model = box_regressor(backbone(), 3, hidden_units=64, box_weight=50.0, class_names=NAMES)
    model.compile(keras.optimizers.Adam(0.01), jit_compile=False)
    data = batch(96)
    before = box_regression.evaluate(model, [data])
    history = model.fit(data, epochs=20, batch_size=16, verbose=0).history
    assert history["regression_loss"][-1] < 0.5 * history["regression_loss"][0]
    after = box_regression.evaluate(model, [data])
    assert after["localization_accuracy"] > 0.7 > before["localization_accuracy"] + 0.3
    assert after["pictures"] == 96
    # Windows as large as the picture change nothing.
    windows = box_regression.evaluate(model, [data], sides=[16])
    assert windows == pytest.approx(after, abs=1e-3)


def test_model_survives_a_file(tmp_path):
    model = box_regressor(backbone(), 3, box_weight=3.0, class_names=NAMES)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded, BoxRegressor)
    assert (loaded.box_weight, loaded.class_names) == (3.0, NAMES)
    images = batch(3)["images"]
    expected, received = model.predict(images, verbose=0), loaded.predict(images, verbose=0)
    for name in ("scores", "boxes"):
        np.testing.assert_allclose(received[name], expected[name], rtol=1e-5)


def test_arguments_are_checked():
    images = keras.Input((None, None, 3))
    with pytest.raises(ValueError, match=r"of known size; received .* \(None, None, None, 2\)"):
        box_regressor(keras.Model(images, layers.Conv2D(2, 3)(images)), 3)
    with pytest.raises(ValueError, match="class_names must be 2 names; received 3"):
        box_regressor(backbone(), 2, class_names=NAMES)


def test_largest_object():
    boxes = np.array(
        [
            [[0, 0, 0.5, 0.5], [0, 0, 0.9, 0.9], [0, 0, 1, 1]],
            [[0, 0, 0.2, 0.2], [0, 0, 0.1, 0.1], [0, 0, 0, 0]],
            [[0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]],
        ],
        "float32",
    )
    labels, largest = largest_object(boxes, np.array([[2, 1, -1], [0, 3, -1], [-1, -1, -1]]))
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(labels), [1, 0, -1])
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(largest)[:2], [[0, 0, 0.9, 0.9], [0, 0, 0.2, 0.2]]
    )


# Merging


def test_boxes_that_agree_become_their_mean():
    near = [[0.1, 0.1, 0.5, 0.5], [0.12, 0.1, 0.5, 0.52], [0.08, 0.1, 0.5, 0.48]]
    far = [[0.6, 0.6, 0.9, 0.9]]
    boxes, scores = merge_boxes(near + far, [0.2, 0.3, 0.1, 0.5])
    np.testing.assert_allclose(boxes, [np.mean(near, axis=0), far[0]], rtol=1e-6)
    np.testing.assert_allclose(scores, [0.6, 0.5], rtol=1e-6)


def test_boxes_apart_stay_and_are_sorted():
    boxes = [[0, 0, 0.3, 0.3], [0.5, 0.5, 1, 1], [0, 0.6, 0.3, 1]]
    merged, scores = merge_boxes(boxes, [0.2, 0.9, 0.5])
    np.testing.assert_allclose(merged, np.array(boxes)[[1, 2, 0]])
    np.testing.assert_allclose(scores, [0.9, 0.5, 0.2])


@pytest.mark.parametrize("boxes", [[[0.1, 0.2, 0.3, 0.4]], [[0.5, 0.5, 0.5, 0.5]] * 2])
def test_merging_little(boxes):
    merged, scores = merge_boxes(boxes, [0.5] * len(boxes))
    assert scores.sum() == pytest.approx(0.5 * len(boxes))
    np.testing.assert_allclose(merged[0], boxes[0])


def merge_slowly(boxes, scores, threshold):
    """Pair by pair, every merged box with the members it is the mean of."""
    groups = [([np.array(box)], [score]) for box, score in zip(boxes, scores)]

    def mean(group):
        return np.mean(group[0], axis=0)

    def mismatch(a, b):
        overlap = [max(0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1)]
        areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
        intersection = overlap[0] * overlap[1]
        centers = [np.array([box[0] + box[2], box[1] + box[3]]) / 2 for box in (a, b)]
        distance = np.linalg.norm(centers[0] - centers[1])
        return distance / (sum(areas) / 2) ** 0.5 + 1 - intersection / (sum(areas) - intersection)

    while len(groups) > 1:
        pairs = [
            (mismatch(mean(groups[i]), mean(groups[j])), i, j)
            for i in range(len(groups))
            for j in range(i + 1, len(groups))
        ]
        worst, i, j = min(pairs)
        if worst > threshold:
            break
        groups[i] = (groups[i][0] + groups[j][0], groups[i][1] + groups[j][1])
        del groups[j]
    groups.sort(key=lambda group: -sum(group[1]))
    return np.array([mean(group) for group in groups]), [sum(group[1]) for group in groups]


@pytest.mark.parametrize("threshold", [0.4, 1.0, 1.5])
def test_merging_random_boxes_slowly(threshold):
    # Four objects, three boxes near each.
    corners = np.repeat(RNG.uniform(0, 0.6, (4, 2)), 3, axis=0)
    boxes = np.concatenate([corners, corners + 0.3], axis=-1) + RNG.normal(0, 0.02, (12, 4))
    scores = RNG.uniform(size=12)
    received = merge_boxes(boxes, scores, threshold)
    expected = merge_slowly(boxes, scores, threshold)
    assert 1 < len(received[0]) < 12
    np.testing.assert_allclose(received[0], expected[0], rtol=1e-5)
    np.testing.assert_allclose(received[1], expected[1], rtol=1e-5)


class Oracle:
    """Finds the bright rectangle of a window and calls it class 1."""

    image_shape = (20, 20, 3)

    def predict_on_batch(self, images):
        boxes = []
        for image in images:
            rows, columns = np.nonzero(image[:, :, 0] > 128)
            box = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
            boxes.append([np.zeros(4), np.array(box) / 20])
        return {"scores": np.tile([0.25, 0.75], (len(images), 1)), "boxes": np.array(boxes)}


def test_windows_are_put_back_into_the_picture():
    picture = np.zeros((40, 60, 3), "uint8")
    picture[16:24, 28:32] = 255  # seen whole only by the middle window of side 40
    found = localize(Oracle(), np.pad(picture, 0), sides=[20])
    # One size: 20 x 30 pixels, windows at the left, in the middle and at the right.
    np.testing.assert_allclose(
        found["boxes"][1], np.array([16, 28, 24, 32]) / [40, 60, 40, 60], atol=0.03
    )
    np.testing.assert_allclose(found["scores"], [0.25, 0.75])


# Metrics


def test_localization_by_hand():
    boxes = np.zeros((5, 2, 4))
    boxes[:, 0] = [0, 0, 0.5, 0.5]
    labels = np.array([[1, -1], [1, -1], [1, -1], [1, 1], [-1, -1]])
    boxes[3, 1] = [0.5, 0.5, 1, 0.9]  # the smaller one of the same class
    scores = np.eye(2)[[1, 0, 1, 1, 1]]
    found = np.zeros((5, 2, 4))
    # Right; right box of a wrong class; IoU 0.5 is not above 0.5; the other object; not counted.
    found[:, 1] = [
        [0, 0, 0.5, 0.5],
        [0, 0, 0.5, 0.5],
        [0, 0, 0.25, 0.5],
        [0.5, 0.5, 1, 0.9],
        [0] * 4,
    ]
    metrics = localization_metrics(scores, found, boxes, labels)
    assert metrics == {
        "localization_accuracy": 0.5,
        "classification_accuracy": 0.75,
        "box_accuracy": 0.75,
        "mean_iou": pytest.approx(3.5 / 4),
        "pictures": 4,
    }
    with pytest.raises(ValueError, match="in at least one picture; received: none"):
        localization_metrics(scores, found, boxes, np.full((5, 2), -1))
