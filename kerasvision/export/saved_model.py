"""Detectors as SavedModels."""

import pathlib

import numpy as np
import tensorflow as tf

LABELS = "assets.extra/labels.txt"


def export_saved_model(model, path):
    """Writes a SavedModel whose signature `serve` takes uint8 pictures (B, H, W, 3), RGB.

    It returns boxes (B, K, 4), scores (B, K), labels (B, K) and count (B,) of the detections.
    The class names stand beside it in assets.extra/labels.txt.
    """
    model.export(str(path), verbose=False)
    labels = pathlib.Path(path) / LABELS
    labels.parent.mkdir(exist_ok=True)
    labels.write_text("\n".join(model.class_names) + "\n")


class SavedModelDetector:
    """Runs a SavedModel written by `export_saved_model`.

    Attributes: `class_names`, and `image_shape` (H, W, 3).

    Raises:
        ValueError: the folder is another kind of model.
    """

    def __init__(self, path):
        labels = pathlib.Path(path) / LABELS
        if not labels.is_file():
            raise ValueError(f"{path}: not a detector's SavedModel: {LABELS} is missing")
        self.class_names = labels.read_text().splitlines()
        self._model = tf.saved_model.load(str(path))
        (signature,) = self._model.signatures["serve"].structured_input_signature[1].values()
        self.image_shape = tuple(signature.shape[1:])

    def predict_on_batch(self, images):
        """Detections of images (B, H, W, 3), RGB, 0 to 255."""
        images = np.clip(np.round(images), 0, 255).astype(np.uint8)
        return {name: value.numpy() for name, value in self._model.serve(images).items()}
