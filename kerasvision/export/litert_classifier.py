"""LiteRT (TensorFlow Lite): classifiers and embedders of built-in operators only, for phones."""

import pathlib

import keras
import tensorflow as tf

from kerasvision.export import litert, mediapipe_metadata

PROBABILITIES = "probabilities"
EMBEDDING = "embedding"


def export_litert_classifier(model, path, precision="float32", calibration_images=None):
    """Writes a classifier as a .tflite file that MediaPipe's ImageClassifier loads as it is.

    Input: one RGB image (1, H, W, 3) uint8. Output: "probabilities" (1, C) float32. The class
    names are in the file; auxiliary heads are not.

    Args:
        model: `kerasvision.classification.Classifier`.
        path, precision, calibration_images: as of `export_litert`.

    Raises:
        ValueError, ExportError: as of `export_litert`.
    """
    images = litert.prepare_images(precision, calibration_images, model.image_shape)
    path = pathlib.Path(path)
    model = litert.in_float32(model)
    logits = model.network.output
    if isinstance(logits, dict):
        logits = logits["predictions"]
    network = keras.Model(model.network.input, {"logits": logits})
    converted = litert.convert_network(network, precision, images)
    images = images[:4]
    litert.check_network(path, converted, network, precision, images)
    softmax = litert.convert(
        tf.function(tf.nn.softmax), tf.TensorSpec((1, model.num_classes), name="logits")
    )
    metadata = mediapipe_metadata.classifier_metadata(model.name)
    content = litert.assemble(converted, softmax, [PROBABILITIES], metadata)
    litert.check_operators(path, content)
    content += mediapipe_metadata.labels_archive(model.class_names)
    with litert.checked_file(path, content) as unchecked:
        found = LiteRTClassifier(unchecked).predict_on_batch(images)
        litert.check_scores(path, found, model.predict_on_batch(images), precision)


class LiteRTClassifier:
    """A classifier from a file that `export_litert_classifier` wrote.

    Args:
        path: of the .tflite file.
        num_threads: of the interpreter; None: its own choice.

    Attributes:
        class_names: list of str.
        image_shape: (height, width, 3) of the images.

    Raises:
        ValueError: the file is damaged, or of another kind.
    """

    def __init__(self, path, num_threads=None):
        self.class_names = mediapipe_metadata.read_labels(path)
        self._model = litert.ImageModel(path, [PROBABILITIES], num_threads)
        shape = self._model.output_shapes[PROBABILITIES]
        if len(shape) != 2:
            raise ValueError(f"{path}: expected probabilities (1, C); received: {shape}")
        self.image_shape = self._model.image_shape

    def predict_on_batch(self, images):
        """Probabilities (B, C) of images (B, H, W, 3), uint8 or float 0 to 255."""
        return self._model(images)[PROBABILITIES]


def export_litert_embedder(model, path, precision="float32", calibration_images=None):
    """Writes an embedding, or a classifier's features, for MediaPipe's ImageEmbedder.

    Input: one RGB image (1, H, W, 3) uint8. Output: "embedding" (1, D) float32, what
    `model.embedder` computes: of a `FaceNet` at unit length; of others MediaPipe normalises the
    length where it is asked to.

    Args:
        model: `FaceNet`, `Siamese`, `PoseDescriptor` or `Classifier`.
        path, precision, calibration_images: as of `export_litert`.

    Raises:
        ValueError, ExportError: as of `export_litert`.
    """
    images = litert.prepare_images(precision, calibration_images, model.image_shape)
    path = pathlib.Path(path)
    embedder = litert.in_float32(model).embedder
    network = keras.Model(embedder.input, {EMBEDDING: embedder.output})
    converted = litert.convert_network(network, precision, images)
    metadata = mediapipe_metadata.embedder_metadata(model.name)
    content = litert.assemble(converted, None, [EMBEDDING], metadata)
    litert.check_operators(path, content)
    litert.check_network(path, content, network, precision, images[:4])
    with litert.checked_file(path, content) as unchecked:
        LiteRTEmbedder(unchecked)


class LiteRTEmbedder:
    """An embedder from a file that `export_litert_embedder` wrote.

    Args:
        path: of the .tflite file.
        num_threads: of the interpreter; None: its own choice.

    Attributes:
        image_shape: (height, width, 3) of the images.

    Raises:
        ValueError: the file is damaged, or of another kind.
    """

    def __init__(self, path, num_threads=None):
        self._model = litert.ImageModel(path, [EMBEDDING], num_threads)
        self.image_shape = self._model.image_shape

    def predict_on_batch(self, images):
        """Embeddings (B, D) of images (B, H, W, 3), uint8 or float 0 to 255."""
        return self._model(images)[EMBEDDING]
