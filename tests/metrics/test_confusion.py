import csv

import numpy as np
import pytest

from kerasvision.metrics.confusion import confusion_matrix, write_confusion


def test_golden_confusion():
    matrix = confusion_matrix([0, 0, 0, 2, 2], [0, 1, 0, 2, 0], 3)
    np.testing.assert_array_equal(matrix, [[2, 1, 0], [0, 0, 0], [1, 0, 1]])
    assert matrix.dtype == np.int64


@pytest.mark.parametrize("count", [0, 1, 200])
def test_equals_reference(count):
    rng = np.random.default_rng(count)
    labels = rng.integers(0, 5, count).astype("uint8")  # products of uint8 would overflow
    predictions = rng.integers(0, 60, count).astype("uint8")
    expected = np.zeros((60, 60), int)
    for label, prediction in zip(labels, predictions):
        expected[label, prediction] += 1
    np.testing.assert_array_equal(confusion_matrix(labels, predictions, 60), expected)


@pytest.mark.parametrize("wrong", [[0, 3], [-1, 0]])
def test_values_that_are_no_classes(wrong):
    received = f"received: {min(wrong)} to {max(wrong)}"
    with pytest.raises(ValueError, match=f"labels must be from 0 to 2; {received}"):
        confusion_matrix(wrong, [0, 0], 3)
    with pytest.raises(ValueError, match=f"predictions must be from 0 to 2; {received}"):
        confusion_matrix([0, 0], wrong, 3)


def test_csv(tmp_path):
    path = tmp_path / "confusion.csv"
    write_confusion(np.array([[5, 1], [0, 12]]), ["ant", 'bee, "honey"'], path)
    with open(path, newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["truth \\ prediction", "ant", 'bee, "honey"'],
        ["ant", "5", "1"],
        ['bee, "honey"', "0", "12"],
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["confusion.csv"]
