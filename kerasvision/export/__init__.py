"""Trained models in the forms that servers and phones run."""

import pathlib

import numpy as np

from kerasvision import data
from kerasvision.export.litert import PRECISIONS, LiteRTDetector, export_litert
from kerasvision.export.saved_model import SavedModelDetector, export_saved_model

CALIBRATION_IMAGES = 128


def export_all(model, folder, formats, dataset=None):
    """Writes `folder`/saved_model and `folder`/model_PRECISION.tflite.

    Args:
        model: `kerasvision.detection.SSD`.
        folder: that exists.
        formats: list of "saved_model", "float32", "float16", "int8".
        dataset: `kerasvision.data.DetectionDataset`, whose first pictures int8 is calibrated on.

    Raises:
        ValueError: unknown format, or int8 without a data set.
    """
    unknown = sorted(set(formats) - {"saved_model", *PRECISIONS})
    if unknown:
        raise ValueError(f"export must be of saved_model, {', '.join(PRECISIONS)}; received: {unknown}")
    images = None
    if dataset is not None:
        batches = data.batches(dataset, model.image_shape, 16).take(CALIBRATION_IMAGES // 16)
        images = np.concatenate([batch["images"] for batch in batches])
    for name in formats:
        if name == "saved_model":
            export_saved_model(model, pathlib.Path(folder) / name)
        else:
            export_litert(model, pathlib.Path(folder) / f"model_{name}.tflite", name, images)
