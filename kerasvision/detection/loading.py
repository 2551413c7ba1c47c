"""One way to load a detector, whatever form it was saved in."""

import pathlib

from kerasvision.detection.detector import Detector
from kerasvision.training import run_folder


def load_detector(path):
    """Loads a detector from a run folder, a .keras file, a SavedModel or a .tflite file.

    Returns:
        An object with `predict_on_batch` (images (B, H, W, 3), RGB, 0 to 255, to a detection
        dict of arrays), `class_names` and `image_shape` (H, W, 3). From a run folder or a
        .keras file it is the model itself.

    Raises:
        ValueError: there is no detector at the path.
    """
    path = pathlib.Path(path)
    if path.suffix == ".tflite" and path.is_file():
        from kerasvision.export import LiteRTDetector

        return LiteRTDetector(path)
    if (path / "saved_model.pb").is_file():
        from kerasvision.export import SavedModelDetector

        return SavedModelDetector(path)
    model = run_folder.load_model(path)
    if not isinstance(model, Detector):
        raise ValueError(f"{path}: must hold a detector; received: {type(model).__name__}")
    return model
