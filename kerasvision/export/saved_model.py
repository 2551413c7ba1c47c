"""SavedModel: for TensorFlow Serving, and for programs without Keras."""

import pathlib

import numpy as np
import tensorflow as tf

# The folder that SavedModel keeps for files of the user.
LABELS = pathlib.Path("assets.extra", "labels.txt")
DETECTIONS = ("boxes", "scores", "labels", "count")
PARTS = ("masks", "keypoints")  # of the objects, from detectors that have them
PROBABILITIES = "output_0"  # Keras's name for a lone output


def export_saved_model(model, path):
    """Writes a model as a SavedModel, with the class names in assets.extra/labels.txt.

    Its signature `serve` takes images (B, H, W, 3) uint8, RGB. A detector returns "boxes"
    (B, K, 4), "scores" (B, K), "labels" (B, K) int32 and "count" (B,) int32, and "masks" or
    "keypoints" if it finds any; a classifier "output_0", probabilities (B, C), and a segmenter
    "output_0", probabilities (B, h, w, C).

    Args:
        model: a `kerasvision.detection.Detector`, a `Classifier` or a `Segmenter`.
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
        self.class_names = _read_labels(path)
        self._model = _ImageModel(path, DETECTIONS, PARTS)
        self.image_shape = self._model.image_shape

    def predict_on_batch(self, images):
        """Detections, as NumPy arrays, of images (B, H, W, 3), uint8 or float 0 to 255."""
        return self._model(images)


class SavedModelClassifier:
    """A classifier from a folder that `export_saved_model` wrote.

    Args:
        path: of the folder.

    Attributes:
        class_names: list of str.
        image_shape: (height, width, 3) of the images.

    Raises:
        ValueError: the folder has no SavedModel, a damaged one, or one of another kind.
    """

    def __init__(self, path):
        self.class_names = _read_labels(path)
        self._model = _ImageModel(path, [PROBABILITIES])
        shape = self._model.output_shapes[PROBABILITIES]
        if len(shape) != 2:
            raise ValueError(f"{path}: expected probabilities (B, C); received: {shape}")
        self.image_shape = self._model.image_shape

    def predict_on_batch(self, images):
        """Probabilities (B, C) of images (B, H, W, 3), uint8 or float 0 to 255."""
        return self._model(images)[PROBABILITIES]


class SavedModelSegmenter:
    """A segmenter from a folder that `export_saved_model` wrote.

    Args:
        path: of the folder.

    Attributes:
        class_names: list of str.
        image_shape: (height, width, 3) of the images.
        output_size: (height, width) of the probabilities: the middle of the images.

    Raises:
        ValueError: the folder has no SavedModel, a damaged one, or one of another kind.
    """

    def __init__(self, path):
        self.class_names = _read_labels(path)
        self._model = _ImageModel(path, [PROBABILITIES])
        shape = self._model.output_shapes[PROBABILITIES]
        if len(shape) != 4:
            raise ValueError(f"{path}: expected probabilities (B, h, w, C); received: {shape}")
        self.image_shape = self._model.image_shape
        self.output_size = shape[1:3]

    def predict_on_batch(self, images):
        """Probabilities (B, h, w, C) of images (B, H, W, 3), uint8 or float 0 to 255."""
        return self._model(images)[PROBABILITIES]


def _read_labels(path):
    labels = pathlib.Path(path) / LABELS
    if not labels.is_file():
        raise ValueError(f"{path}: expected the class names in {LABELS}; received: no file")
    return labels.read_text(encoding="utf-8").rstrip("\n").split("\n")


class _ImageModel:
    """A SavedModel from uint8 images to named outputs, and optional ones."""

    def __init__(self, path, outputs, optional=()):
        try:
            # The model is kept: a signature alone does not keep its variables.
            self._model = tf.saved_model.load(str(path))
            self._serve = self._model.signatures["serve"]
        except (OSError, ValueError, KeyError, RuntimeError, tf.errors.OpError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ValueError(f"{path}: expected a SavedModel; received: {reason}") from None
        inputs = list(self._serve.structured_input_signature[1].values())
        types = [x.dtype.name for x in inputs]
        received = self._serve.structured_outputs
        if set(received) - set(optional) != set(outputs) or types != ["uint8"]:
            raise ValueError(
                f"{path}: expected uint8 images to {', '.join(outputs)}; "
                f"received: {', '.join(types)} to {', '.join(sorted(received))}"
            )
        self.image_shape = tuple(inputs[0].shape[1:])
        self.output_shapes = {name: tuple(spec.shape) for name, spec in received.items()}
        self._input_name = inputs[0].name

    def __call__(self, images):
        """The outputs, as a dict of NumPy arrays, of images (B, H, W, 3), uint8 or float."""
        images = np.clip(np.rint(images), 0, 255).astype("uint8")
        found = self._serve(**{self._input_name: tf.constant(images)})
        return {name: value.numpy() for name, value in found.items()}
