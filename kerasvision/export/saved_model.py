"""SavedModel: for TensorFlow Serving, and for programs without Keras."""

import pathlib

import numpy as np
import tensorflow as tf

# The folder that SavedModel keeps for files of the user.
LABELS = pathlib.Path("assets.extra", "labels.txt")
OUTPUTS = ("boxes", "scores", "labels", "count")


def export_saved_model(model, path):
    """Writes a detector as a SavedModel, with the class names in assets.extra/labels.txt.

    Its signature `serve` takes images (B, H, W, 3) uint8, RGB, and returns a detection dict:
    "boxes" (B, K, 4), "scores" (B, K), "labels" (B, K) int32 and "count" (B,) int32.

    Args:
        model: `kerasvision.detection.SSD`.
        path: of the folder.
    """
    model.export(path, verbose=False)
    labels = pathlib.Path(path) / LABELS
    labels.parent.mkdir(exist_ok=True)
    labels.write_text("\n".join(model.class_names) + "\n", encoding="utf-8")


class SavedModelDetector:
    """A detector from a folder that `export_saved_model` wrote.

    Args:
        path: of the folder.

    Attributes:
        class_names: list of str.
        image_shape: (height, width, 3) of the images.

    Raises:
        ValueError: the folder has no SavedModel, a damaged one, or one of another kind.
    """

    def __init__(self, path):
        labels = pathlib.Path(path) / LABELS
        if not labels.is_file():
            raise ValueError(f"{path}: expected the class names in {LABELS}; received: no file")
        self.class_names = labels.read_text(encoding="utf-8").rstrip("\n").split("\n")
        try:
            # The model is kept: a signature alone does not keep its variables.
            self._model = tf.saved_model.load(str(path))
            self._serve = self._model.signatures["serve"]
        except (OSError, ValueError, KeyError, RuntimeError, tf.errors.OpError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ValueError(f"{path}: expected a SavedModel; received: {reason}") from None
        (images,) = self._serve.structured_input_signature[1].values()
        outputs = self._serve.structured_outputs
        if set(outputs) != set(OUTPUTS) or images.dtype != tf.uint8:
            raise ValueError(
                f"{path}: expected uint8 images to {', '.join(OUTPUTS)}; "
                f"received: {images.dtype.name} to {', '.join(sorted(outputs))}"
            )
        self.image_shape = tuple(images.shape[1:])
        self._input_name = images.name

    def predict_on_batch(self, images):
        """Detections, as NumPy arrays, of images (B, H, W, 3), uint8 or float 0 to 255."""
        images = np.clip(np.rint(images), 0, 255).astype("uint8")
        found = self._serve(**{self._input_name: tf.constant(images)})
        return {name: value.numpy() for name, value in found.items()}
