"""How often each class was taken for each."""

import csv
import io

import numpy as np

from kerasvision.training import run_folder


def confusion_matrix(labels, predictions, num_classes):
    """How often each class was taken for each: (C, C) int64, a row a true class.

    Args:
        labels: (P,) integers from 0 to C - 1, the truth.
        predictions: (P,) likewise.
        num_classes: C.

    Raises:
        ValueError: a label or a prediction that is no class.
    """
    labels, predictions = np.asarray(labels, "int64"), np.asarray(predictions, "int64")
    for name, values in (("labels", labels), ("predictions", predictions)):
        if values.size and (values.min() < 0 or values.max() >= num_classes):
            raise ValueError(
                f"{name} must be from 0 to {num_classes - 1}; "
                f"received: {values.min()} to {values.max()}"
            )
    counts = np.bincount(labels * num_classes + predictions, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def write_confusion(matrix, class_names, path):
    """Writes a confusion matrix as CSV, with the classes' names above and beside it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["truth \\ prediction", *class_names])
    writer.writerows([name, *row] for name, row in zip(class_names, matrix.tolist()))
    run_folder.write_atomically(path, text.getvalue())
