"""Detectors as LiteRT (TensorFlow Lite) files, for phones and other small devices.

The network is converted in the precision asked for, the post-processing always in float32, and
the two are joined into one file. So the quantiser, which ruins class numbers and box coordinates
that share a tensor with others, never sees the post-processing.
"""

import json
import pathlib
import tempfile

import keras
import numpy as np
import tensorflow as tf

from kerasvision.export import flatbuffer, mediapipe_metadata
from kerasvision.export.litert_detector import LiteRTDetector, make_interpreter
from kerasvision.export.postprocessing import detection_postprocessing
from kerasvision.ops import boxes as box_ops

# To the share of the model's detections that a file in this precision must find as well.
PRECISIONS = {"float32": 0.95, "float16": 0.9, "int8": 0.5}


def export_litert(model, path, precision="float32", calibration_images=None):
    """Writes a detector as a .tflite file of built-in operators, from image to detections.

    The file takes one uint8 RGB image (1, H, W, 3) and returns "location" (1, K, 4), boxes
    (ymin, xmin, ymax, xmax) in [0, 1]; "category" (1, K), labels; "score" (1, K), sorted; and
    "number of detections" (1,), all float32, 0 after the last detection. It carries the metadata
    and labels with which MediaPipe's ObjectDetector loads it as it is.

    Args:
        model: `kerasvision.detection.SSD`, or a model with its `network`, `detector`,
            `image_shape`, `class_names` and settings of decoding.
        path: file to write.
        precision: "float32"; "float16": weights in half precision; "int8": weights and
            activations in 8 bits.
        calibration_images: real images (N, H, W, 3), RGB, 0 to 255, on which the file is
            compared with the model. int8 needs them, 100 or more, to learn the range of every
            tensor.

    Returns:
        dict: "bytes" of the file; "detections", of the model on at most 32 of the images with
        scores from 0.5; "agreement", the share of them that the file finds with the same label,
        an IoU of at least 0.9, and a score within 0.05, or None without detections.

    Raises:
        ValueError: unknown precision, or int8 without images.
        RuntimeError: the file has operators that LiteRT lacks, or disagrees with the model.
    """
    path = pathlib.Path(path)
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {list(PRECISIONS)}; received: {precision}")
    if calibration_images is None or not len(calibration_images):
        if precision == "int8":
            raise ValueError(f"{path}: int8 needs calibration_images; received: none")
        shape = (4, *model.image_shape)
        calibration_images = np.random.default_rng(0).integers(0, 256, shape)
    images = np.clip(np.round(calibration_images), 0, 255).astype("uint8")
    if images.shape[1:] != model.image_shape:
        raise ValueError(
            f"{path}: calibration_images must be {model.image_shape} each; received: "
            f"{images.shape[1:]}"
        )
    model = _in_float32(model)

    network = _convert_network(model, precision, images)
    if precision == "float32":
        _check_network(network, model, images[:4], path)
    joined = flatbuffer.join(
        flatbuffer.read(network), flatbuffer.read(_convert_postprocessing(model))
    )
    flatbuffer.check_operators(joined, path)
    flatbuffer.order_outputs(joined, ["location", "category", "score", "number of detections"])
    mediapipe_metadata.add_metadata(
        joined,
        mediapipe_metadata.detector_metadata(
            model.name, f"Detects {', '.join(model.class_names)} ({precision})."
        ),
    )
    content = mediapipe_metadata.append_labels(flatbuffer.write(joined), model.class_names)
    with tempfile.TemporaryDirectory() as folder:
        checked = pathlib.Path(folder, path.name)
        checked.write_bytes(content)
        received = LiteRTDetector(checked).predict(images[:32])
    expected = model.detector.predict_on_batch(images[:32])
    detections, agreement = detection_agreement(expected, received)
    # A few detections may differ for good reasons: a score at the threshold, a near tie.
    if detections >= 10 and agreement < PRECISIONS[precision]:
        raise RuntimeError(
            f"{path}: must find {PRECISIONS[precision]:.0%} of what the model finds; received: "
            f"{agreement:.0%} of {detections} detections"
        )
    path.write_bytes(content)
    return {"bytes": len(content), "detections": detections, "agreement": agreement}


def detection_agreement(expected, received, min_score=0.5):
    """How many of the detections that score `min_score` others find too.

    Args:
        expected, received: detection dicts of arrays of the same pictures.

    Returns:
        Number of detections in `expected`, and the share of them with another one in `received`
        of the same label, at an IoU of at least 0.9 and a score within 0.05; None without any.
    """
    overlaps = keras.ops.convert_to_numpy(box_ops.iou(expected["boxes"], received["boxes"]))
    found = (
        (overlaps >= 0.9)
        & (expected["labels"][:, :, None] == received["labels"][:, None, :])
        & (np.abs(expected["scores"][:, :, None] - received["scores"][:, None, :]) <= 0.05)
    ).any(axis=2)
    counted = (expected["labels"] >= 0) & (expected["scores"] >= min_score)
    count = int(counted.sum())
    return count, float(found[counted].mean()) if count else None


def _in_float32(model):
    """The model itself, or a copy of one with layers in mixed precision."""
    policies = {layer.dtype_policy.name for layer in model.network.layers}
    mixed = [name for name in policies if name.startswith("mixed_")]
    if not mixed:
        return model
    config = json.dumps(model.get_config())
    for name in mixed:
        config = config.replace(f'"{name}"', '"float32"')
    copy = type(model).from_config(json.loads(config))
    copy.set_weights(model.get_weights())
    return copy


def _convert_network(model, precision, images):
    """`model.network` from one uint8 image to float32 "offsets" and "logits", as .tflite bytes."""
    network = model.network
    archive = keras.export.ExportArchive()
    # Without this the converter finds no weights, and says nothing.
    archive.track(network)
    archive.add_endpoint(
        "serve",
        lambda images: network(tf.cast(images, tf.float32), training=False),
        input_signature=[tf.TensorSpec((1, *model.image_shape), tf.uint8, name="images")],
    )
    with tempfile.TemporaryDirectory() as folder:
        archive.write_out(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if precision != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if precision == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if precision == "int8":
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.representative_dataset = lambda: ([image[None]] for image in images)
        return converter.convert()


def _convert_postprocessing(model):
    """`detection_postprocessing` as .tflite bytes."""
    module = tf.Module()
    module.postprocess = detection_postprocessing(model)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures=module.postprocess)
        return tf.lite.TFLiteConverter.from_saved_model(folder).convert()


def _check_network(content, model, images, path):
    """Raises RuntimeError unless the raw outputs of .tflite bytes equal the network's."""
    run = make_interpreter(model_content=content).get_signature_runner()
    for image in images:
        expected = model.network.predict_on_batch(image[None])
        for name, received in run(images=image[None]).items():
            scale = max(1.0, np.abs(expected[name]).max())
            difference = np.abs(expected[name] - received).max() / scale
            if not difference <= 1e-4:  # also if it is not a number
                raise RuntimeError(
                    f"{path}: its {name} must equal the model's to 1e-4; received: a difference "
                    f"of {difference:.3g}"
                )
