"""One way to load a segmenter, whatever form it was saved in."""

import pathlib

# Registers the classes that .keras files name.
from kerasvision import layers  # noqa: F401
from kerasvision.segmentation.segmenter import Segmenter
from kerasvision.training import run_folder


def load_segmenter(path):
    """Loads a segmenter from a run folder, a .keras file, a SavedModel or a .tflite file.

    Returns:
        An object with `predict_on_batch` (images (B, H, W, 3), RGB, 0 to 255, to probabilities
        (B, h, w, C), an array), `class_names`, `image_shape` (H, W, 3) and `output_size` (h, w).
        From a run folder or a .keras file it is the `Segmenter` itself.

    Raises:
        ValueError: there is no segmenter at the path.
    """
    path = pathlib.Path(path)
    if path.suffix == ".tflite" and path.is_file():
        from kerasvision.export import LiteRTSegmenter

        return LiteRTSegmenter(path)
    if (path / "saved_model.pb").is_file():
        from kerasvision.export import SavedModelSegmenter

        return SavedModelSegmenter(path)
    model = run_folder.load_model(path)
    if not isinstance(model, Segmenter):
        raise ValueError(f"{path}: must hold a Segmenter; received: {type(model).__name__}")
    return model
