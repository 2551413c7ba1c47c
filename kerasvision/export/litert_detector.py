"""LiteRT (TensorFlow Lite): detectors of built-in operators only, for phones."""

import pathlib

import keras
import numpy as np
import tensorflow as tf

from kerasvision.export import litert, mediapipe_metadata, nms
from kerasvision.export.saved_model import PARTS

OUTPUTS = ("location", "category", "score", "number of detections")


def export_litert(model, path, precision="float32", calibration_images=None):
    """Writes a detector as a .tflite file that MediaPipe's ObjectDetector loads as it is.

    Input: one RGB image (1, H, W, 3) uint8. Outputs, all float32: "location" (1, K, 4), boxes
    (ymin, xmin, ymax, xmax) in [0, 1]; "category" (1, K), class numbers from 0; "score" (1, K),
    sorted; "number of detections" (1,), behind which all is 0. Suppression is per class, as in
    `model.detector`. The class names are in the file.

    A detector of masks or keypoints has further outputs, "masks" or "keypoints", as in
    `model.detector`; MediaPipe's ObjectDetector takes four outputs only.

    Args:
        model: a `kerasvision.detection.Detector`.
        path: of the file.
        precision: "float32"; "float16" (weights of half the size); or "int8" (weights and
            activations of a quarter, integer arithmetic). In int8 the heads of a detector with
            two stages have weights of a quarter, and quantise what they read from case to case.
        calibration_images: (P, H, W, 3), 0 to 255, a hundred or so like those of the training;
            int8 learns the range of every tensor from them.

    Raises:
        ValueError: an unknown precision, int8 without images, or a detector that needs
            proposals besides its images.
        ExportError: the file has operators that are not built in, or computes other numbers
            than the model.
    """
    images = litert.prepare_images(precision, calibration_images, model.image_shape)
    path = pathlib.Path(path)
    if not (_has_two_stages(model) or hasattr(model, "pre_nms_candidates")):
        raise ValueError(
            f"{path}: the detector must find its proposals by itself; "
            f"received: {type(model).__name__}"
        )
    model = litert.in_float32(model)
    network = _named_outputs(model.network)
    converted = litert.convert_network(network, precision, images)
    images = images[:4]
    litert.check_network(path, converted, network, precision, images)
    parts = [name for name in PARTS if name in model.detector.output]
    metadata = mediapipe_metadata.detector_metadata(model.name, parts)
    decoding = _convert_decoding(model, parts, precision)
    content = litert.assemble(converted, decoding, [*OUTPUTS, *parts], metadata)
    litert.check_operators(path, content)
    content += mediapipe_metadata.labels_archive(model.class_names)
    with litert.checked_file(path, content) as unchecked:
        found = LiteRTDetector(unchecked).predict_on_batch(images)
        # The sorted scores, as rounding lets boxes of nearly equal scores change places.
        expected = model.predict_on_batch(images)["scores"]
        litert.check_scores(path, found["scores"], expected, precision)


class LiteRTDetector:
    """A detector from a file that `export_litert` wrote; takes its images one after the other.

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
        self._model = litert.ImageModel(path, OUTPUTS, num_threads, PARTS)
        self.image_shape = self._model.image_shape

    def predict_on_batch(self, images):
        """Detections, as NumPy arrays, of images (B, H, W, 3), uint8 or float 0 to 255."""
        found = self._model(images)
        boxes, labels, scores, count = (found[name] for name in OUTPUTS)
        filled = np.arange(scores.shape[1]) < count[:, None]
        return {
            **{name: found[name] for name in PARTS if name in found},
            "boxes": boxes,
            "scores": scores,
            "labels": np.where(filled, labels, -1).astype("int32"),
            "count": count.astype("int32"),
        }


def _convert_decoding(model, parts=(), precision="float32"):
    """The .tflite bytes of what `model.detector` does behind the network.

    Inputs are the network's outputs, by name; outputs as in `export_litert`. The precision is that
    of the heads' weights; without heads there are only boxes, which want float32.
    """
    outputs = _named_outputs(model.network).output
    names = sorted(outputs)
    detections = _detections_of(model)
    precision = precision if _has_two_stages(model) else "float32"

    @tf.function(autograph=False)
    def decode(*raw):
        found = detections(dict(zip(names, raw)))
        # MediaPipe takes class numbers and the count as floats, and knows no -1.
        labels = tf.cast(tf.maximum(found["labels"], 0), tf.float32)
        count = tf.cast(found["count"], tf.float32)
        return found["boxes"], labels, found["scores"], count, *(found[name] for name in parts)

    shapes = [outputs[name].shape[1:] for name in names]
    specs = [tf.TensorSpec((1, *shape), name=name) for name, shape in zip(names, shapes)]
    return litert.convert(decode, *specs, precision=precision)


def _detections_of(model):
    """Function from the network's outputs to detections, with LiteRT's own suppression."""
    if _has_two_stages(model):  # each with a suppression of its own
        model = litert.with_networks(model, litert.networks_of(model))
        model.suppression = nms.labelled_non_max_suppression
        return model.detections

    def detections(raw):
        boxes, scores = model.decode(raw)
        return nms.batched_non_max_suppression(
            boxes,
            scores,
            iou_threshold=model.iou_threshold,
            score_threshold=model.score_threshold,
            max_detections=model.max_detections,
            candidates=model.pre_nms_candidates,
        )

    return detections


def _has_two_stages(model):
    """Whether heads look at regions that the network, or the model itself, proposes."""
    return hasattr(model, "detections") and getattr(model, "fixed_proposals", ()) is not None


def _named_outputs(network):
    """The network, with a dict of outputs: its lone one is "maps"."""
    if isinstance(network.output, dict):
        return network
    return keras.Model(network.input, {"maps": network.output})
