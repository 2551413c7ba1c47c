"""What a classifier gets right and wrong, after and during training."""

import dataclasses
import pathlib

import keras
import numpy as np

from kerasvision import drawing
from kerasvision.metrics.confusion import confusion_matrix, write_confusion

CACHE_BYTES = 500e6
MIN_PROBABILITY = 1e-7  # a quantised model gives 0, whose logarithm is not finite


@dataclasses.dataclass
class Mistake:
    """A picture (H, W, 3) uint8, the label it has, the label it was given, and with what score."""

    image: np.ndarray
    label: int
    prediction: int
    score: float


def classify_batches(classifier, batches, max_mistakes=0, progress=False):
    """Predictions for all pictures of some batches.

    Args:
        classifier: anything with `predict_on_batch` from images to probabilities (B, C): a model
            or an export of one, as from `kerasvision.classification.load_classifier`.
        batches: iterable of batch dictionaries with "images" and "labels" (B,) integers.
        max_mistakes: so many of the mistakes made with the highest score are kept.
        progress: whether to show a progress bar.

    Returns:
        probabilities (P, C) float32, labels (P,) int64, and a list of `Mistake`, the highest
        score first.
    """
    bar = keras.utils.Progbar(len(batches)) if progress else None
    probabilities, labels, mistakes = [np.zeros((0, len(classifier.class_names)), "f4")], [[]], []
    for batch in batches:
        images = np.asarray(batch["images"])
        probabilities.append(np.asarray(classifier.predict_on_batch(images), "float32"))
        labels.append(np.asarray(batch["labels"]))
        if max_mistakes:
            predictions = probabilities[-1].argmax(axis=-1)
            scores = probabilities[-1].max(axis=-1)
            for i in np.flatnonzero(predictions != labels[-1]):
                image = np.clip(np.rint(images[i]), 0, 255).astype("uint8")
                mistakes.append(
                    Mistake(image, int(labels[-1][i]), int(predictions[i]), float(scores[i]))
                )
            mistakes = sorted(mistakes, key=lambda mistake: -mistake.score)[:max_mistakes]
        if bar is not None:
            bar.add(1)
    return np.concatenate(probabilities), np.concatenate(labels).astype("int64"), mistakes


def classification_metrics(probabilities, labels, class_names):
    """Accuracy in several forms, and the cross-entropy.

    Of equal scores that of the class with the lower number comes first.

    Args:
        probabilities: (P, C).
        labels: (P,) integers from 0 to C - 1.
        class_names: C names.

    Returns:
        dict: "accuracy" (top-1); "top5", how often the truth is among the best five, or all
        where there are fewer; "mean_class_accuracy", over the classes that have pictures;
        "loss", the mean cross-entropy; "per_class", a list of dicts with "name", "pictures" and
        "accuracy", None without pictures. Without any picture all numbers are None.

    Raises:
        ValueError: a label that is no class.
    """
    probabilities, labels = np.asarray(probabilities, "float64"), np.asarray(labels, "int64")
    num_classes = len(class_names)
    matrix = confusion_matrix(labels, probabilities.argmax(axis=-1), num_classes)
    pictures = matrix.sum(axis=1)
    per_class = [
        {"name": name, "pictures": int(n), "accuracy": float(right / n) if n else None}
        for name, n, right in zip(class_names, pictures, matrix.diagonal())
    ]
    if not len(labels):
        numbers = dict.fromkeys(("accuracy", "top5", "mean_class_accuracy", "loss"))
        return {**numbers, "per_class": per_class}
    truth = np.take_along_axis(probabilities, labels[:, None], axis=1)
    is_before = np.arange(num_classes) < labels[:, None]
    rank = ((probabilities > truth) | ((probabilities == truth) & is_before)).sum(axis=1)
    return {
        "accuracy": float((rank < 1).mean()),
        "top5": float((rank < 5).mean()),
        "mean_class_accuracy": float(
            np.mean(matrix.diagonal()[pictures > 0] / pictures[pictures > 0])
        ),
        "loss": float(-np.log(np.maximum(truth, MIN_PROBABILITY)).mean()),
        "per_class": per_class,
    }


def format_table(metrics, max_classes=30):
    """The numbers of `classification_metrics` as lines to read; the worst classes of many."""

    def percent(value):
        return "    -" if value is None else f"{value:.3f}"

    lines = [
        f"top-1 accuracy       {percent(metrics['accuracy'])}",
        f"top-5 accuracy       {percent(metrics['top5'])}",
        f"mean class accuracy  {percent(metrics['mean_class_accuracy'])}",
        f"cross-entropy        {percent(metrics['loss'])}",
    ]
    robust = metrics.get("robust_accuracy")
    if robust is not None:
        lines += [
            f"robust accuracy      {percent(robust[name])} by {name}, epsilon {robust['epsilon']:g}"
            for name in ("fgsm", "pgd")
        ]
    rows = [row for row in metrics["per_class"] if row["pictures"]]
    title = "accuracy by class"
    if len(rows) > max_classes:
        rows = sorted(rows, key=lambda row: row["accuracy"])[:max_classes]
        title = f"accuracy of the {max_classes} worst of {len(metrics['per_class'])} classes"
    width = max((len(row["name"]) for row in rows), default=0)
    lines += ["", title]
    lines += [
        f"  {row['name']:<{width}}  {row['accuracy']:.3f}  of {row['pictures']}" for row in rows
    ]
    return "\n".join(lines)


class ClassificationEvaluation(keras.callbacks.Callback):
    """Adds val_accuracy and val_loss to the logs of every `every`-th and of the last epoch.

    The decoded pictures stay in memory if they take less than `CACHE_BYTES`.

    Args:
        batches: `tf.data.Dataset` of batch dictionaries, the same ones each time.
        every: epochs from one evaluation to the next.
        epochs: of `fit`.
    """

    def __init__(self, batches, every, epochs):
        super().__init__()
        batch_bytes = next(iter(batches))["images"].numpy().nbytes
        self.batches = batches.cache() if len(batches) * batch_bytes < CACHE_BYTES else batches
        self.every = every
        self.epochs = epochs

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self.every == 0 or epoch + 1 == self.epochs:
            probabilities, labels, _ = classify_batches(self.model, self.batches)
            metrics = classification_metrics(probabilities, labels, self.model.class_names)
            logs["val_accuracy"] = metrics["accuracy"]
            logs["val_loss"] = metrics["loss"]


def evaluate(classifier, batches, workdir, progress=False):
    """Metrics of a classifier, and what it mistakes, drawn.

    Args:
        classifier, progress: as in `classify_batches`.
        batches: iterable of batch dictionaries, the same ones each time.
        workdir: folder for confusion.png, confusion.csv, most_confused.png and samples.png.

    Returns:
        dict of `classification_metrics`.
    """
    workdir, names = pathlib.Path(workdir), classifier.class_names
    probabilities, labels, mistakes = classify_batches(classifier, batches, 20, progress)
    matrix = confusion_matrix(labels, probabilities.argmax(axis=-1), len(names))
    write_confusion(matrix, names, workdir / "confusion.csv")
    drawing.plot_confusion(matrix, names, workdir / "confusion.png")
    draw_mistakes(mistakes, names, workdir / "most_confused.png")
    draw_samples(classifier, batches, workdir / "samples.png")
    return classification_metrics(probabilities, labels, names)


def draw_mistakes(mistakes, class_names, path):
    """Saves a sheet of mistakes, as of `classify_batches`: truth → prediction (score)."""
    captions = [
        [
            (class_names[mistake.label], drawing.BLACK),
            (
                f"→ {drawing.shortened(class_names[mistake.prediction])} ({mistake.score:.2f})",
                drawing.WRONG,
            ),
        ]
        for mistake in mistakes
    ]
    drawing.captioned_sheet(
        [mistake.image for mistake in mistakes],
        captions,
        path,
        title="mistakes with the highest scores" if mistakes else "no mistakes",
    )


def draw_samples(classifier, batches, path, count=20, best=3):
    """Saves a sheet of the first pictures, each with its class and the `best` predictions."""
    names = classifier.class_names
    images, captions = [], []
    for batch in batches:
        images += list(np.asarray(batch["images"]))
        rows = classifier.predict_on_batch(np.asarray(batch["images"]))
        for label, row in zip(np.asarray(batch["labels"]), rows):
            caption = [(names[label], drawing.BLACK)]
            for place, i in enumerate(np.argsort(-row, kind="stable")[:best]):
                wrong = drawing.WRONG if place == 0 else drawing.BLACK
                color = drawing.RIGHT if i == label else wrong
                caption.append((f"{row[i]:.2f} {names[i]}", color))
            captions.append(caption)
        if len(images) >= count:
            break
    drawing.captioned_sheet(
        images[:count], captions[:count], path, title="truth, and the best predictions"
    )
