import csv

import keras
import numpy as np
import pytest

from kerasvision.classification import Classifier, evaluation
from kerasvision.metrics.confusion import confusion_matrix

NAMES = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu"]


class Fixed:
    """A classifier that knows the probabilities of each picture by its first pixel."""

    def __init__(self, probabilities, class_names=NAMES):
        self.probabilities = np.asarray(probabilities, "float32")
        self.class_names = class_names

    def predict_on_batch(self, images):
        return self.probabilities[images[:, 0, 0, 0].astype(int)]


def numbered(count):
    images = np.zeros((count, 4, 5, 3), "uint8")
    images[:, 0, 0, 0] = np.arange(count)
    return images


def batches_of(labels, batch_size=4):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(
        {"images": numbered(len(labels)), "labels": np.asarray(labels, "int32")}
    ).batch(batch_size)


def reference(probabilities, labels, num_classes):
    """Picture by picture; of equal scores the first class wins."""
    top1 = top5 = 0
    loss = 0.0
    per_class = [[] for _ in range(num_classes)]
    matrix = np.zeros((num_classes, num_classes), int)
    for row, label in zip(probabilities, labels):
        order = sorted(range(num_classes), key=lambda k: (-row[k], k))
        top1 += order[0] == label
        top5 += label in order[:5]
        loss -= np.log(max(row[label], 1e-7))
        per_class[label].append(order[0] == label)
        matrix[label, order[0]] += 1
    count = len(labels)
    means = [np.mean(hits) if hits else None for hits in per_class]
    mean_class = np.mean([mean for mean in means if mean is not None])
    return top1 / count, top5 / count, mean_class, loss / count, means, matrix


@pytest.mark.parametrize("num_classes", [2, 5, 7])
def test_metrics_equal_reference(num_classes):
    rng = np.random.default_rng(num_classes)
    # Few different values, as of a quantised model: many ties, and zeros.
    probabilities = rng.integers(0, 4, (60, num_classes)) / 8
    labels = rng.integers(0, num_classes - 1, 60)  # the last class has no picture
    names = NAMES[:num_classes]
    found = evaluation.classification_metrics(probabilities, labels, names)
    top1, top5, mean_class, loss, means, matrix = reference(probabilities, labels, num_classes)
    assert found["accuracy"] == pytest.approx(top1)
    assert found["top5"] == pytest.approx(top5)
    assert found["mean_class_accuracy"] == pytest.approx(mean_class)
    assert found["loss"] == pytest.approx(loss)
    assert [row["name"] for row in found["per_class"]] == names
    assert [row["pictures"] for row in found["per_class"]] == matrix.sum(axis=1).tolist()
    for row, mean in zip(found["per_class"], means):
        assert row["accuracy"] == (None if mean is None else pytest.approx(mean))
    predictions = [
        sorted(range(num_classes), key=lambda k: (-row[k], k))[0] for row in probabilities
    ]
    np.testing.assert_array_equal(confusion_matrix(labels, predictions, num_classes), matrix)


def test_no_picture():
    found = evaluation.classification_metrics(np.zeros((0, 3)), [], NAMES[:3])
    assert (
        found["accuracy"] is found["top5"] is found["mean_class_accuracy"] is found["loss"] is None
    )
    assert [row["accuracy"] for row in found["per_class"]] == [None] * 3
    assert "-" in evaluation.format_table(found)
    probabilities, labels, mistakes = evaluation.classify_batches(Fixed(np.eye(7)), [])
    assert probabilities.shape == (0, 7) and labels.shape == (0,) and mistakes == []


@pytest.mark.parametrize("labels", [[0, 3], [-1, 0]])
def test_labels_that_are_no_classes(labels):
    with pytest.raises(ValueError, match="labels must be from 0 to 2; received: "):
        evaluation.classification_metrics(np.eye(3)[:2], labels, NAMES[:3])


def test_mistakes_are_the_surest_ones():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(7), 30)
    labels = rng.integers(0, 7, 30)
    found, truth, mistakes = evaluation.classify_batches(
        Fixed(probabilities), batches_of(labels), max_mistakes=5
    )
    np.testing.assert_allclose(found, probabilities, atol=1e-6)
    np.testing.assert_array_equal(truth, labels)
    scores = probabilities.max(axis=-1)
    wrong = np.flatnonzero(probabilities.argmax(axis=-1) != labels)
    expected = wrong[np.argsort(-scores[wrong])][:5]
    assert [mistake.image[0, 0, 0] for mistake in mistakes] == expected.tolist()
    for mistake, i in zip(mistakes, expected):
        assert (mistake.label, mistake.prediction) == (labels[i], probabilities[i].argmax())
        assert mistake.score == pytest.approx(scores[i], rel=1e-6)


def test_evaluate_draws_and_writes(tmp_path):
    probabilities = np.random.default_rng(0).dirichlet(np.ones(7), 10)
    labels = np.arange(10) % 7
    metrics = evaluation.evaluate(Fixed(probabilities), batches_of(labels), tmp_path)
    assert metrics["accuracy"] == np.mean(probabilities.argmax(axis=-1) == labels)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"confusion.csv", "confusion.png", "most_confused.png", "samples.png"}
    with open(tmp_path / "confusion.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["truth \\ prediction", *NAMES] and [row[0] for row in rows] == NAMES
    matrix = np.array([row[1:] for row in rows], int)
    np.testing.assert_array_equal(
        matrix, confusion_matrix(labels, probabilities.argmax(axis=-1), 7)
    )


def test_callback_adds_to_the_logs_of_its_epochs():
    keras.utils.set_random_seed(0)
    images = keras.Input((4, 5, 3))
    x = keras.layers.Flatten()(images)
    model = Classifier(keras.Model(images, keras.layers.Dense(7, name="predictions")(x)), NAMES)
    model.compile(keras.optimizers.SGD(1e-4))
    batches = batches_of(np.arange(10) % 7)
    callback = evaluation.ClassificationEvaluation(batches, every=2, epochs=3)
    history = model.fit(batches, epochs=3, verbose=0, callbacks=[callback]).history
    assert len(history["loss"]) == 3 and len(history["val_accuracy"]) == 2  # epochs 2 and 3
    expected = model.evaluate(batches, verbose=0, return_dict=True)
    assert history["val_loss"][-1] == pytest.approx(expected["loss"], rel=1e-4)
    assert history["val_accuracy"][-1] == pytest.approx(expected["accuracy"])


def test_table_shows_the_worst_of_many_classes():
    labels = np.arange(40)
    predictions = np.where(labels == 17, 3, labels)
    names = [f"class {i}" for i in range(40)]
    metrics = evaluation.classification_metrics(np.eye(40)[predictions], labels, names)
    table = evaluation.format_table(metrics, max_classes=5).splitlines()
    assert table[0].split() == ["top-1", "accuracy", "0.975"]
    assert table[5] == "accuracy of the 5 worst of 40 classes"
    assert table[6].split() == ["class", "17", "0.000", "of", "1"] and len(table) == 11
