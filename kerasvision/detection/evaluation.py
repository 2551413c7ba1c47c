"""COCO's metrics of a detector, after and during training."""

import cv2
import keras
import numpy as np

from kerasvision import drawing
from kerasvision.metrics.coco import ENTRIES, PARTS, coco_metrics, coco_results

CACHE_BYTES = 500e6


def evaluate(detector, batches, ground_truth, progress=False):
    """COCO metrics of a detector on batches: of boxes, and of masks and keypoints if there.

    Args:
        detector: a model or an export of one, as from `kerasvision.detection.load_detector`.
        batches: iterable of batch dictionaries with "images" and "image_ids".
        ground_truth: COCO-format dict of the pictures of the batches; others count as missed.
        progress: whether to show a progress bar.

    Returns:
        dict of `kerasvision.metrics.coco.coco_metrics` for boxes; and in it "masks" and
        "keypoints", such dicts, if the detections and the ground truth have them.

    Raises:
        ValueError: a picture comes twice; and as `coco_results`.
    """
    bar = keras.utils.Progbar(len(batches)) if progress else None
    results, image_ids, names = [], set(), set()
    for batch in batches:
        detections = detector.predict_on_batch(np.asarray(batch["images"]))
        names.update(detections)
        ids = np.asarray(batch["image_ids"])
        repeated = image_ids.intersection(ids.tolist())
        if repeated:
            raise ValueError(
                f"image id {min(repeated)}: must come once; received: a second batch with it"
            )
        image_ids.update(ids.tolist())
        # Rows batch by batch, as masks on grids would fill the memory.
        results += coco_results(detections, ids, ground_truth)
        if bar is not None:
            bar.add(1)
    metrics = coco_metrics(ground_truth, results)
    for iou_type, part in PARTS.items():
        objects = ground_truth["annotations"]
        if part in names and any(row.get(ENTRIES[iou_type]) for row in objects):
            metrics[part] = coco_metrics(ground_truth, results, iou_type)
    return metrics


class COCOEvaluation(keras.callbacks.Callback):
    """Adds val_AP and val_AP50 to the logs of every `every`-th and of the last epoch.

    Also val_mask_AP, val_mask_AP50 and val_keypoint_AP, if `evaluate` gives them. The decoded
    pictures stay in memory if they take less than `CACHE_BYTES`.
    """

    def __init__(self, batches, ground_truth, every, epochs):
        super().__init__()
        shape = batches.element_spec["images"].shape[1:]
        small = len(ground_truth["images"]) * shape.num_elements() < CACHE_BYTES
        # The truth about the pictures, masks above all, isn't needed.
        batches = batches.map(lambda batch: {name: batch[name] for name in ("images", "image_ids")})
        self.batches = batches.cache() if small else batches
        self.ground_truth = ground_truth
        self.every = every
        self.epochs = epochs

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self.every == 0 or epoch + 1 == self.epochs:
            metrics = evaluate(self.model, self.batches, self.ground_truth)
            logged = {"val_AP": metrics["AP"], "val_AP50": metrics["AP50"]}
            if "masks" in metrics:
                logged["val_mask_AP"] = metrics["masks"]["AP"]
                logged["val_mask_AP50"] = metrics["masks"]["AP50"]
            if "keypoints" in metrics:
                logged["val_keypoint_AP"] = metrics["keypoints"]["AP"]
            # A validation set without any object has no AP: the epoch counts as 0.
            logs.update({name: value or 0.0 for name, value in logged.items()})


def draw_samples(detector, batches, path, count=12, min_score=None):
    """Saves a sheet of the first pictures: ground truth beside predictions above `min_score`.

    By default that is 0.4, or less if fewer predictions than objects would be drawn: detectors
    whose scores are products, as YOLO's, are rarely that sure.
    """
    pictures, pairs = [], []
    for batch in batches.unbatch().take(count).batch(1):
        image = batch["images"].numpy()
        # Small inputs are drawn larger, or the names would cover the objects.
        scale = max(1.0, 400 / max(image.shape[1:3]))
        pictures.append(
            cv2.resize(image[0], None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        )
        truth = dict(batch["bounding_boxes"])
        for name, part in (("segmentation_masks", "masks"), ("keypoints", "keypoints")):
            if name in batch:
                truth[part] = batch[name]
        found = detector.predict_on_batch(image)
        del found["count"]
        pairs.append(
            [
                {name: np.asarray(values)[0] for name, values in objects.items()}
                for objects in (truth, found)
            ]
        )
    if min_score is None:
        objects = sum(int((truth["labels"] >= 0).sum()) for truth, _ in pairs)
        scores = np.sort(np.concatenate([x["scores"][x["labels"] >= 0] for _, x in pairs]))[::-1]
        min_score = min([0.4, *scores[:objects][-1:]])
    rows = []
    for picture, (truth, found) in zip(pictures, pairs):
        drawn = [
            drawing.draw_boxes(
                picture,
                class_names=detector.class_names,
                **{name: values[shown] for name, values in objects.items()},
            )
            for objects, shown in (
                (truth, truth["labels"] >= 0),
                (found, (found["scores"] >= min_score) & (found["labels"] >= 0)),
            )
        ]
        rows.append(drawn)
    drawing.contact_sheet(rows, path, titles=("ground truth", f"predictions from {min_score:.2f}"))
