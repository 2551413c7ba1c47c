"""One way to load a detector, whatever form it was saved in."""

import pathlib

import keras

# Registers the classes that .keras files name.
from kerasvision.detection import ssd  # noqa: F401


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
    file = path / "best.keras" if path.is_dir() else path
    if file.suffix != ".keras" or not file.is_file():
        raise ValueError(
            f"{path}: expected a run folder (with best.keras), a .keras file, a SavedModel folder "
            f"or a .tflite file; received: {'nothing there' if not path.exists() else 'no such'}"
        )
    try:
        model = keras.models.load_model(file, compile=False)
    except (OSError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{file}: can't be loaded as a detector; received: {reason}") from None
    return model
