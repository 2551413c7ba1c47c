"""COCO's metrics of a detector, after and during training."""

import cv2
import keras
import numpy as np

from kerasvision import drawing
from kerasvision.metrics.coco import coco_metrics, coco_results

CACHE_BYTES = 500e6


def detect_batches(detector, batches, progress=False):
    """Detections of all pictures of some batches.

    Args:
        detector: a model or an export of one, as from `kerasvision.detection.load_detector`.
        batches: iterable of batch dictionaries with "images" and "image_ids".
        progress: whether to show a progress bar.

    Returns:
        detection dict of arrays (P, K, …), and the ids (P,) of the pictures.
    """
    bar = keras.utils.Progbar(len(batches)) if progress else None
    detections, image_ids = [], []
    for batch in batches:
        detections.append(detector.predict_on_batch(np.asarray(batch["images"])))
        image_ids.append(np.asarray(batch["image_ids"]))
        if bar is not None:
            bar.add(1)
    return (
        {name: np.concatenate([d[name] for d in detections]) for name in detections[0]},
        np.concatenate(image_ids),
    )


def evaluate(detector, batches, ground_truth, progress=False):
    """COCO metrics of a detector on batches; arguments as in `detect_batches`, and

    Args:
        ground_truth: COCO-format dict of the pictures of the batches; others count as missed.

    Returns:
        dict of `kerasvision.metrics.coco.coco_metrics`.
    """
    detections, image_ids = detect_batches(detector, batches, progress)
    return coco_metrics(ground_truth, coco_results(detections, image_ids, ground_truth))


class COCOEvaluation(keras.callbacks.Callback):
    """Adds val_AP and val_AP50 to the logs of every `every`-th and of the last epoch.

    The decoded pictures stay in memory if they take less than `CACHE_BYTES`.
    """

    def __init__(self, batches, ground_truth, every, epochs):
        super().__init__()
        shape = batches.element_spec["images"].shape[1:]
        small = len(ground_truth["images"]) * shape.num_elements() < CACHE_BYTES
        self.batches = batches.cache() if small else batches
        self.ground_truth = ground_truth
        self.every = every
        self.epochs = epochs

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self.every == 0 or epoch + 1 == self.epochs:
            metrics = evaluate(self.model, self.batches, self.ground_truth)
            for name in ("AP", "AP50"):
                # A validation set without any box has no AP: the epoch counts as 0.
                logs[f"val_{name}"] = metrics[name] or 0.0


def draw_samples(detector, batches, path, count=12, min_score=0.4):
    """Saves a sheet of the first pictures: ground truth beside predictions above `min_score`."""
    rows = []
    for batch in batches.unbatch().take(count).batch(1):
        image = batch["images"].numpy()
        # Small inputs are drawn larger, or the names would cover the objects.
        scale = max(1.0, 400 / max(image.shape[1:3]))
        picture = cv2.resize(image[0], None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        truth = {name: boxes.numpy()[0] for name, boxes in batch["bounding_boxes"].items()}
        found = {name: values[0] for name, values in detector.predict_on_batch(image).items()}
        real, shown = truth["labels"] >= 0, found["scores"] >= min_score
        rows.append(
            (
                drawing.draw_boxes(
                    picture, truth["boxes"][real], truth["labels"][real], detector.class_names
                ),
                drawing.draw_boxes(
                    picture,
                    found["boxes"][shown],
                    found["labels"][shown],
                    detector.class_names,
                    scores=found["scores"][shown],
                ),
            )
        )
    drawing.contact_sheet(rows, path, titles=("ground truth", "prediction"))
