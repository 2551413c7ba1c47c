"""Detectors for serving and for phones: SavedModel and LiteRT (.tflite)."""

import pathlib

import numpy as np

from kerasvision import data
from kerasvision.export.litert import PRECISIONS, LiteRTDetector, export_litert
from kerasvision.export.saved_model import SavedModelDetector, export_saved_model

CALIBRATION_IMAGES = 128


def export_all(model, workdir, formats, dataset=None):
    """Exports a detector as `workdir`/saved_model and `workdir`/model_{precision}.tflite.

    Args:
        model: `kerasvision.detection.SSD`.
        workdir: folder for the exports.
        formats: list out of "saved_model", "float32", "float16" and "int8".
        dataset: `kerasvision.data.DetectionDataset`, on whose first 128 pictures int8 is
            calibrated; None: no int8.

    Raises:
        ValueError: an unknown format, or int8 without pictures.
        RuntimeError: an export does not compute what the model does.
    """
    workdir = pathlib.Path(workdir)
    known = ("saved_model", *PRECISIONS)
    for name in formats:
        if name not in known:
            raise ValueError(f"formats must be out of {', '.join(known)}; received: {name}")
    calibration_images = None
    if "int8" in formats:
        if dataset is None:
            raise ValueError("int8 needs a dataset to calibrate on; received: None")
        batches = data.batches(dataset, model.image_shape, 16).take(CALIBRATION_IMAGES // 16)
        calibration_images = np.concatenate([np.asarray(batch["images"]) for batch in batches])
    for name in formats:
        if name == "saved_model":
            export_saved_model(model, workdir / name)
        else:
            export_litert(model, workdir / f"model_{name}.tflite", name, calibration_images)
