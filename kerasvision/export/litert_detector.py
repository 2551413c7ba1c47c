"""Detectors in LiteRT (TensorFlow Lite) files."""

import os

import numpy as np

from kerasvision.export.mediapipe_metadata import read_labels


def make_interpreter(**kwargs):
    """The LiteRT interpreter: the one of `ai_edge_litert`, or else TensorFlow's."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        from tensorflow.lite import Interpreter
    return Interpreter(**kwargs)


class LiteRTDetector:
    """A detector that `export_litert` wrote.

    Args:
        path: .tflite file.
        num_threads: to compute with; None: one for each processor core.

    Attributes:
        class_names: list of C names, from the file.
        image_shape: (H, W, 3) of the images.

    Raises:
        ValueError: the file holds no such detector.
    """

    def __init__(self, path, num_threads=None):
        self.class_names = read_labels(path)
        self._interpreter = make_interpreter(
            model_path=str(path), num_threads=num_threads or os.cpu_count()
        )
        self._run = self._interpreter.get_signature_runner()
        (self._input,) = self._run.get_input_details()
        self.image_shape = tuple(int(n) for n in self._run.get_input_details()[self._input]["shape"][1:])

    def predict(self, images):
        """Detections of images, one image after the other.

        Args:
            images: (B, H, W, 3), RGB, 0 to 255, uint8 or float.

        Returns:
            dict of arrays: "boxes" (B, K, 4) rel_yxyx, "scores" (B, K), "labels" (B, K) int32,
            -1 = padding, "count" (B,) int32.
        """
        images = np.clip(np.round(images), 0, 255).astype("uint8")
        outputs = [self._run(images=image[None]) for image in images]
        boxes, labels, scores, count = (
            np.concatenate([output[name] for output in outputs])
            for name in ("location", "category", "score", "number of detections")
        )
        padding = np.arange(boxes.shape[1]) >= count[:, None]
        return {
            "boxes": boxes,
            "scores": scores,
            "labels": np.where(padding, -1, labels).astype("int32"),
            "count": count.astype("int32"),
        }

    def predict_on_batch(self, images):
        """As `predict`."""
        return self.predict(images)
