"""LiteRT (TensorFlow Lite): detectors of built-in operators only, for phones.

The network and the decoding behind it are converted apart and joined into one file. The quantiser
then sees the network alone; class numbers and suppression inside a quantised graph come out wrong.
"""

import math
import os
import pathlib

import flatbuffers
import keras
import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from kerasvision.export import mediapipe_metadata, nms
from kerasvision.training.quiet import quiet

PRECISIONS = ("float32", "float16", "int8")
OUTPUTS = ("location", "category", "score", "number of detections")


def export_litert(model, path, precision="float32", calibration_images=None):
    """Writes a detector as a .tflite file that MediaPipe's ObjectDetector loads as it is.

    Input: one RGB image (1, H, W, 3) uint8. Outputs, all float32: "location" (1, K, 4), boxes
    (ymin, xmin, ymax, xmax) in [0, 1]; "category" (1, K), class numbers from 0; "score" (1, K),
    sorted; "number of detections" (1,), behind which all is 0. Suppression is per class, as in
    `model.detector`. The class names are in the file.

    Args:
        model: `kerasvision.detection.SSD`.
        path: of the file.
        precision: "float32"; "float16" (weights of half the size); or "int8" (weights and
            activations of a quarter, integer arithmetic).
        calibration_images: (P, H, W, 3), 0 to 255, a hundred or so like those of the training;
            int8 learns the range of every tensor from them.

    Raises:
        ValueError: an unknown precision, or int8 without images.
        RuntimeError: the file has operators that are not built in, or computes other numbers
            than the model.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}; received: {precision}")
    if calibration_images is None or len(calibration_images) == 0:
        if precision == "int8":
            raise ValueError("int8 needs calibration_images (P, H, W, 3); received: none")
        calibration_images = np.random.default_rng(0).integers(0, 256, (1, *model.image_shape))
    calibration_images = np.clip(np.rint(calibration_images), 0, 255).astype("uint8")
    path = pathlib.Path(path)
    model = _in_float32(model)
    with quiet():
        network = _convert_network(model.network, precision, calibration_images)
        decoding = _convert_decoding(model)
    images = calibration_images[:4]
    _check_network(path, network, model.network, precision, images)
    content = _join(network, decoding, model.name)
    check_operators(path, content)
    # A file that fails the last check must not look like an export.
    unchecked = path.with_name(f".{path.name}.new")
    unchecked.write_bytes(content + mediapipe_metadata.labels_archive(model.class_names))
    try:
        _check_detections(path, LiteRTDetector(unchecked), model, precision, images)
        os.replace(unchecked, path)
    finally:
        unchecked.unlink(missing_ok=True)


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
        try:
            self._interpreter = _interpreter(pathlib.Path(path).read_bytes(), num_threads)
        except (ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(f"{path}: expected a .tflite file; received: {reason}") from None
        image = self._interpreter.get_input_details()[0]
        outputs = {d["name"]: d["index"] for d in self._interpreter.get_output_details()}
        if set(outputs) != set(OUTPUTS) or image["dtype"] != np.uint8:
            raise ValueError(
                f"{path}: expected a uint8 image to {', '.join(OUTPUTS)}; "
                f"received: {image['dtype'].__name__} to {', '.join(sorted(outputs))}"
            )
        self._input = image["index"]
        self._outputs = [outputs[name] for name in OUTPUTS]
        self.image_shape = tuple(int(size) for size in image["shape"][1:])

    def predict_on_batch(self, images):
        """Detections, as NumPy arrays, of images (B, H, W, 3), uint8 or float 0 to 255."""
        rows = []
        for image in np.clip(np.rint(images), 0, 255).astype("uint8"):
            self._interpreter.set_tensor(self._input, image[None])
            self._interpreter.invoke()
            rows.append([self._interpreter.get_tensor(index) for index in self._outputs])
        boxes, labels, scores, count = (np.concatenate(column) for column in zip(*rows))
        filled = np.arange(scores.shape[1]) < count[:, None]
        return {
            "boxes": boxes,
            "scores": scores,
            "labels": np.where(filled, labels, -1).astype("int32"),
            "count": count.astype("int32"),
        }


def _interpreter(content, num_threads=None):
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:  # The package is optional; TensorFlow has an older copy.
        Interpreter = tf.lite.Interpreter
    with quiet():
        interpreter = Interpreter(model_content=content, num_threads=num_threads)
        interpreter.allocate_tensors()
    return interpreter


# --- Conversion --------------------------------------------------------------------------


def _convert_network(network, precision, calibration_images):
    """The .tflite bytes from "images" (1, H, W, 3) uint8 to two outputs `_in_order`: offsets
    (1, A, 4) and logits (1, A, C + 1), both float32.
    """

    @tf.function(autograph=False)
    def function(images):
        raw = network(tf.cast(images, tf.float32), training=False)
        return raw["offsets"], raw["logits"]

    # The int8 converter wants a float input and makes it uint8 by itself.
    dtype = tf.float32 if precision == "int8" else tf.uint8
    converter = _converter(
        function, tf.TensorSpec((1, *network.input_shape[1:]), dtype, name="images")
    )
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    elif precision == "int8":
        converter.representative_dataset = lambda: _calibration(calibration_images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.uint8
    return converter.convert()


def _converter(function, *specs):
    # Freezes the variables of Keras layers, which `tf.Module` does not know: given a trackable,
    # the converter would leave them without values.
    return tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function(*specs)])


def _in_float32(model):
    """The model itself, or a copy in float32 of one that computes in lower precision."""
    if all(layer.compute_dtype == "float32" for layer in model.network.layers):
        return model
    network = keras.models.clone_model(
        model.network,
        clone_function=lambda layer: layer.from_config({**layer.get_config(), "dtype": "float32"}),
    )
    network.set_weights(model.network.get_weights())
    return type(model)(**{**model.get_config(), "network": network})


def _calibration(images):
    for image in images.astype("float32"):
        # The input's range must be exactly 0 to 255, for its integers to be the pixels.
        image[0, 0], image[-1, -1] = 0.0, 255.0
        yield [image[None]]


def _convert_decoding(model):
    """The .tflite bytes of what `model.detector` does behind the network, in float32.

    Inputs "offsets" and "logits"; outputs, `_in_order`, as in `export_litert`.
    """
    num_boxes, num_classes = len(model.default_boxes), model.num_classes

    @tf.function(autograph=False)
    def decode(offsets, logits):
        boxes, scores = model.decode({"offsets": offsets, "logits": logits})
        found = nms.batched_non_max_suppression(
            boxes,
            scores,
            iou_threshold=model.iou_threshold,
            score_threshold=model.score_threshold,
            max_detections=model.max_detections,
            candidates=model.pre_nms_candidates,
        )
        # MediaPipe takes class numbers and the count as floats, and knows no -1.
        labels = tf.cast(tf.maximum(found["labels"], 0), tf.float32)
        return found["boxes"], labels, found["scores"], tf.cast(found["count"], tf.float32)

    return _converter(
        decode,
        tf.TensorSpec((1, num_boxes, 4), tf.float32, name="offsets"),
        tf.TensorSpec((1, num_boxes, num_classes + 1), tf.float32, name="logits"),
    ).convert()


# --- Joining -----------------------------------------------------------------------------


def _join(network, decoding, name):
    """The .tflite bytes of the network with its outputs fed to the decoding, and metadata.

    Args:
        network, decoding: .tflite bytes from `_convert_network` and `_convert_decoding`.
        name: of the model.
    """
    joined = schema.ModelT.InitFromPackedBuf(network)
    tail = schema.ModelT.InitFromPackedBuf(decoding)
    graph, tail_graph = joined.subgraphs[0], tail.subgraphs[0]

    # From the tail's tensors to those of the joined graph; -1 is an optional input left out.
    position = {-1: -1}
    raw = dict(zip((b"offsets", b"logits"), _in_order(graph)))
    for index in tail_graph.inputs:
        position[index] = raw[tail_graph.tensors[index].name]
    for index, tensor in enumerate(tail_graph.tensors):
        if index not in position:
            position[index] = len(graph.tensors)
            tensor.buffer += len(joined.buffers)
            graph.tensors.append(tensor)
    for operator in tail_graph.operators:
        operator.opcodeIndex += len(joined.operatorCodes)
        operator.inputs = [position[index] for index in operator.inputs]
        operator.outputs = [position[index] for index in operator.outputs]
        graph.operators.append(operator)
    joined.operatorCodes += tail.operatorCodes
    joined.buffers += tail.buffers

    graph.outputs = [position[index] for index in _in_order(tail_graph)]
    for index, output in zip(graph.outputs, OUTPUTS):
        graph.tensors[index].name = output
    joined.signatureDefs = [
        schema.SignatureDefT(
            inputs=[schema.TensorMapT("images", graph.inputs[0])],
            outputs=[schema.TensorMapT(*pair) for pair in zip(OUTPUTS, graph.outputs)],
            signatureKey="serving_default",
        )
    ]
    metadata = np.frombuffer(mediapipe_metadata.detector_metadata(name), "uint8")
    joined.metadata = [schema.MetadataT(mediapipe_metadata.BUFFER_NAME, len(joined.buffers))]
    joined.buffers.append(schema.BufferT(metadata))
    builder = _Builder(1024)
    builder.Finish(joined.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _in_order(graph):
    """Indices of a graph's output tensors in the order in which the function returned them."""
    # The converter shuffles them, but names them Identity, Identity_1, Identity_2, ….
    return sorted(graph.outputs, key=lambda index: graph.tensors[index].name)


class _Builder(flatbuffers.Builder):
    """Writes equal vectors once, above all int8's zero points, a tenth of the file; and weights at
    multiples of 16 bytes, which the schema asks for but the generated code forgets.
    """

    def __init__(self, size):
        super().__init__(size)
        self.vectors = {}

    def CreateNumpyVector(self, x):
        key = (x.dtype, x.tobytes())
        if key not in self.vectors:
            if x.dtype == np.uint8:
                self.Prep(16, len(x))
            self.vectors[key] = super().CreateNumpyVector(x)
        return self.vectors[key]


# --- Checks ------------------------------------------------------------------------------


def check_operators(path, content):
    """Raises RuntimeError unless all operators of a .tflite file's bytes are built in.

    Operators on variables are refused as well: some ways of conversion lose their values.
    """
    names = {number: name for name, number in vars(schema.BuiltinOperator).items()}
    for code in schema.ModelT.InitFromPackedBuf(content).operatorCodes:
        name = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        if name in ("CUSTOM", "READ_VARIABLE", "VAR_HANDLE"):
            custom = (code.customCode or b"").decode()
            raise RuntimeError(
                f"{path}: operators must be built in and without variables; "
                f"received: {' '.join([name, custom]).strip()}"
            )


def _check_network(path, content, network, precision, images):
    """Raises RuntimeError if the converted network's numbers are not those of Keras."""
    # Of int8 a tenth is usual: what is refused is a network that the quantiser broke.
    tolerance = {"float32": 1e-3, "float16": 0.1, "int8": 0.5}[precision]
    interpreter = _interpreter(content)
    details = sorted(interpreter.get_output_details(), key=lambda output: output["name"])
    expected_outputs = network.predict_on_batch(images.astype("float32"))
    found_outputs = {"offsets": [], "logits": []}
    for image in images:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
        interpreter.invoke()
        for name, output in zip(found_outputs, details):
            found_outputs[name].append(interpreter.get_tensor(output["index"])[0])
    for name, found in found_outputs.items():
        expected = expected_outputs[name]
        error = np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2))
        # Written so that NaN is refused.
        if not error < tolerance:
            raise RuntimeError(
                f"{path}: {name} must be the model's within {tolerance:.1%}; received: {error:.2%}"
            )


def _check_detections(path, detector, model, precision, images):
    """Raises RuntimeError if the file's detections are not those of `model.detector`."""
    tolerance = {"float32": 1e-3, "float16": 0.05, "int8": math.inf}[precision]
    found = detector.predict_on_batch(images)
    # The sorted scores, as rounding lets boxes of nearly equal scores change places.
    error = np.abs(found["scores"] - model.predict_on_batch(images)["scores"]).max()
    if not error < tolerance or not np.isfinite(found["boxes"]).all():
        raise RuntimeError(
            f"{path}: scores must be the model's within {tolerance}; received: {error:.4f} off"
        )
