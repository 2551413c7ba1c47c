"""LiteRT (TensorFlow Lite): segmenters of built-in operators only, for phones."""

import pathlib

import keras
import numpy as np
import tensorflow as tf

from kerasvision.export import litert, mediapipe_metadata

PROBABILITIES = "probabilities"
# Where the picture is flat, the values of a pooling's window are equal but for rounding, and
# unpooling puts them here or there.
TOLERANCES = {"float32": 0.02, "float16": 0.2, "int8": 0.5}
# The same of probabilities, on average over the pixels.
PROBABILITY_TOLERANCES = {"float32": 1e-3, "float16": 0.02, "int8": 0.2}


def export_litert_segmenter(model, path, precision="float32", calibration_images=None):
    """Writes a segmenter as a .tflite file that MediaPipe's ImageSegmenter loads as it is.

    Input: one RGB image (1, H, W, 3) uint8. Output: "probabilities" (1, h, w, C) float32. The
    class names are in the file.

    MediaPipe enlarges the probabilities to the size of its picture, as if they were of the whole
    of it. Those of a network of unpadded convolutions, smaller than its images, are of the middle.

    Args:
        model: `kerasvision.segmentation.Segmenter`.
        path, precision, calibration_images: as of `export_litert`.

    Raises:
        ValueError, ExportError: as of `export_litert`.
    """
    images = litert.prepare_images(precision, calibration_images, model.image_shape)
    path = pathlib.Path(path)
    model = litert.in_float32(model)
    network = keras.Model(model.network.input, {"logits": model.network.output})
    converted = litert.convert_network(network, precision, images)
    images = images[:4]
    litert.check_network(path, converted, network, precision, images, TOLERANCES)
    softmax = litert.convert(
        tf.function(tf.nn.softmax),
        tf.TensorSpec((1, *model.output_size, model.num_classes), name="logits"),
    )
    metadata = mediapipe_metadata.segmenter_metadata(model.name)
    content = litert.assemble(converted, softmax, [PROBABILITIES], metadata)
    litert.check_operators(path, content)
    content += mediapipe_metadata.labels_archive(model.class_names)
    with litert.checked_file(path, content) as unchecked:
        found = LiteRTSegmenter(unchecked).predict_on_batch(images)
        error = np.abs(found - model.predict_on_batch(images)).mean()
        tolerance = PROBABILITY_TOLERANCES[precision]
        # Written so that NaN is refused.
        if not error < tolerance:
            raise litert.ExportError(
                f"{path}: probabilities must be the model's within {tolerance} on average; "
                f"received: {error:.4f} off"
            )


class LiteRTSegmenter:
    """A segmenter from a file that `export_litert_segmenter` wrote.

    Args:
        path: of the .tflite file.
        num_threads: of the interpreter; None: its own choice.

    Attributes:
        class_names: list of str.
        image_shape: (height, width, 3) of the images.
        output_size: (height, width) of the probabilities: the middle of the images.

    Raises:
        ValueError: the file is damaged, or of another kind.
    """

    def __init__(self, path, num_threads=None):
        self.class_names = mediapipe_metadata.read_labels(path)
        self._model = litert.ImageModel(path, [PROBABILITIES], num_threads)
        shape = self._model.output_shapes[PROBABILITIES]
        if len(shape) != 4:
            raise ValueError(f"{path}: expected probabilities (1, h, w, C); received: {shape}")
        self.image_shape = self._model.image_shape
        self.output_size = shape[1:3]

    def predict_on_batch(self, images):
        """Probabilities (B, h, w, C) of images (B, H, W, 3), uint8 or float 0 to 255."""
        return self._model(images)[PROBABILITIES]
