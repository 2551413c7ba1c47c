"""All exports of a detector at once."""

import pathlib

import numpy as np

from kerasvision import data
from kerasvision.export.litert import PRECISIONS, export_litert
from kerasvision.export.saved_model import export_saved_model

# Enough pictures for the ranges of int8; more make no difference but take time.
_CALIBRATION_PICTURES = 128


def export_all(model, folder, exports, dataset=None):
    """Writes a detector in several forms: `saved_model/` and `model_<precision>.tflite`.

    Args:
        model: `kerasvision.detection.SSD`.
        folder: existing folder.
        exports: names among "saved_model", "float32", "float16" and "int8".
        dataset: `kerasvision.data.DetectionDataset` to calibrate on and compare with; int8
            needs one.

    Returns:
        dict: name of each .tflite file to what `export_litert` returns.

    Raises:
        ValueError: unknown name, or int8 without a data set.
        RuntimeError: an export computes something else than the model.
    """
    unknown = set(exports) - {"saved_model", *PRECISIONS}
    if unknown:
        raise ValueError(
            f"exports must be among saved_model, {', '.join(PRECISIONS)}; received: "
            f"{', '.join(sorted(unknown))}"
        )
    folder = pathlib.Path(folder)
    images = None
    if dataset is not None and set(exports) & set(PRECISIONS):
        shuffled = data.batches(dataset, model.image_shape, batch_size=1, shuffle=True)
        taken = shuffled.take(_CALIBRATION_PICTURES).as_numpy_iterator()
        images = np.concatenate([batch["images"] for batch in taken])
    if "saved_model" in exports:
        export_saved_model(model, folder / "saved_model")
    reports = {}
    for precision in PRECISIONS:
        if precision in exports:
            path = folder / f"model_{precision}.tflite"
            reports[path.name] = export_litert(model, path, precision, images)
    return reports
