"""Detectors as TensorFlow SavedModels."""

import pathlib

import numpy as np
import tensorflow as tf

# TensorFlow Serving's place for files that go with a model but are not part of its graph.
_LABELS_FILE = pathlib.Path("assets.extra", "labels.txt")


def export_saved_model(model, path):
    """Writes a detector as a SavedModel with decoding and non-maximum suppression inside.

    Its signature `serve` takes uint8 images (B, H, W, 3), RGB, any B, and returns the detections:
    "boxes" (B, K, 4) rel_yxyx, "scores" (B, K), "labels" (B, K) int32, -1 = padding, and "count"
    (B,) int32. The class names are in `assets.extra/labels.txt`, one a line.

    Args:
        model: detector with `detector`, `image_shape` and `class_names`, such as
            `kerasvision.detection.SSD`.
        path: folder to write.

    Raises:
        RuntimeError: the SavedModel computes something else than the model.
    """
    path = pathlib.Path(path)
    model.detector.export(
        path,
        verbose=False,
        input_signature=[tf.TensorSpec((None, *model.image_shape), tf.uint8, name="images")],
    )
    labels = path / _LABELS_FILE
    labels.parent.mkdir(exist_ok=True)
    labels.write_text("".join(f"{name}\n" for name in model.class_names), encoding="utf-8")

    images = np.random.default_rng(0).integers(0, 256, (1, *model.image_shape), "uint8")
    expected = model.detector.predict_on_batch(images)
    received = SavedModelDetector(path).predict(images)
    difference = np.abs(expected["scores"] - received["scores"]).max()
    if not difference < 1e-3:
        raise RuntimeError(
            f"{path}: its scores must be those of the model; received: scores that differ by "
            f"{difference:.3g}"
        )


class SavedModelDetector:
    """A detector that `export_saved_model` wrote.

    Args:
        path: folder of the SavedModel.

    Attributes:
        class_names: list of C names.
        image_shape: (H, W, 3) of the images.

    Raises:
        ValueError: the folder holds no such detector.
    """

    def __init__(self, path):
        path = pathlib.Path(path)
        try:
            self._model = tf.saved_model.load(str(path))
            signature = self._model.signatures["serve"]
            labels = (path / _LABELS_FILE).read_text(encoding="utf-8")
        except (OSError, KeyError) as error:
            raise ValueError(
                f"{path}: must be a SavedModel that export_saved_model wrote; received: {error}"
            ) from None
        self.class_names = labels.split("\n")[:-1]
        (images,) = signature.structured_input_signature[1].values()
        self.image_shape = tuple(images.shape[1:])

    def predict(self, images):
        """Detections of images.

        Args:
            images: (B, H, W, 3), RGB, 0 to 255, uint8 or float.

        Returns:
            dict of arrays: "boxes" (B, K, 4) rel_yxyx, "scores" (B, K), "labels" (B, K) int32,
            -1 = padding, "count" (B,) int32.
        """
        images = np.clip(np.round(images), 0, 255).astype("uint8")
        return {name: value.numpy() for name, value in self._model.serve(images).items()}

    def predict_on_batch(self, images):
        """As `predict`."""
        return self.predict(images)
