"""Detectors as LiteRT (TensorFlow Lite) files that phones and MediaPipe take as they are.

A file holds two graphs joined into one: the network, converted with the precision asked for, and
behind it the decoding and non-maximum suppression, always in float32. The quantiser never sees
the second part, where it would corrupt boxes and class numbers. Only built-in operators are used.
"""

import pathlib
import tempfile

import flatbuffers
import keras
import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from kerasvision.export import mediapipe_metadata

PRECISIONS = ("float32", "float16", "int8")
OUTPUTS = ("location", "category", "score", "number of detections")


def export_litert(model, path, precision="float32", calibration_images=None):
    """Writes a detector as a .tflite file with metadata and labels.

    The input is one picture (1, H, W, 3) uint8, RGB. The outputs are location (1, K, 4) float32,
    (ymin, xmin, ymax, xmax) in [0, 1]; category (1, K) float32, index of the class; score (1, K);
    and number of detections (1,). Entries beyond that number are 0.

    Args:
        model: `kerasvision.detection.SSD`.
        path: of the file.
        precision: "float32"; "float16", weights in half precision; or "int8", weights and
            activations of the network in 8 bits.
        calibration_images: (N, H, W, 3) in 0..255, pictures like those to come; for int8.

    Raises:
        ValueError: unknown precision, or int8 without pictures.
        RuntimeError: the converter's result has operators that LiteRT lacks, or its numbers
            differ from the model's.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {PRECISIONS}; received: {precision}")
    if precision == "int8" and (calibration_images is None or len(calibration_images) == 0):
        raise ValueError("int8 needs calibration_images; received: none")
    network = _convert_network(model.network, precision, calibration_images)
    joined = _join(network, _convert_decoding(model))
    _add_metadata(
        joined,
        mediapipe_metadata.detector_metadata(model.name, "Object detector, " + precision),
    )
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(joined.Pack(builder), b"TFL3")
    path = pathlib.Path(path)
    path.write_bytes(bytes(builder.Output()))
    mediapipe_metadata.append_labels(path, model.class_names)
    check_operators(path)
    _compare(model, path, precision, calibration_images)


def _convert_network(network, precision, calibration_images):
    """The network as a flatbuffer object, batch 1, uint8 in, float32 out."""
    shape = (1, *network.input_shape[1:])
    # The integer converter wants a float input, which it replaces by its own.
    dtype = tf.float32 if precision == "int8" else tf.uint8
    archive = keras.export.ExportArchive()
    archive.track(network)
    archive.add_endpoint(
        name="serve",
        fn=lambda images: network(tf.cast(images, tf.float32), training=False),
        input_signature=[tf.TensorSpec(shape, dtype, name="images")],
    )
    with tempfile.TemporaryDirectory() as folder:
        archive.write_out(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if precision == "float16":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [tf.float16]
        elif precision == "int8":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = tf.uint8
            converter.representative_dataset = lambda: _calibration(calibration_images)
        return schema.ModelT.InitFromPackedBuf(converter.convert(), 0)


def _calibration(images):
    # Black and white: the input then has a scale of exactly 1, and no picture is clipped.
    for value in (0.0, 255.0):
        yield [np.full((1, *images.shape[1:]), value, np.float32)]
    for image in images:
        yield [image[None].astype(np.float32)]


def _convert_decoding(model):
    """Decoding and suppression of `model.detector` as a flatbuffer object of built-in operators."""
    num_boxes, num_classes = len(model.default_boxes), model.num_classes
    candidates = min(model.pre_nms_candidates, num_boxes * num_classes)
    max_detections = min(model.max_detections, candidates)

    @tf.function(
        input_signature=[
            tf.TensorSpec((1, num_boxes, 4), name="offsets"),
            tf.TensorSpec((1, num_boxes, num_classes + 1), name="logits"),
        ]
    )
    def decode(offsets, logits):
        boxes, scores = model.decode({"offsets": offsets, "logits": logits})
        scores, index = tf.math.top_k(tf.reshape(scores, (-1,)), candidates)
        labels = tf.cast(index % num_classes, tf.float32)
        boxes = tf.gather(tf.reshape(boxes, (-1, 4)), index // num_classes)
        # Each class on a plane of its own: boxes of different classes never overlap.
        kept, count = tf.raw_ops.NonMaxSuppressionV4(
            boxes=boxes + 2.0 * labels[:, None],
            scores=scores,
            max_output_size=max_detections,
            iou_threshold=model.iou_threshold,
            score_threshold=model.score_threshold,
            pad_to_max_output_size=True,
        )
        filled = tf.cast(tf.range(max_detections) < count, tf.float32)
        return {
            "location": (tf.gather(boxes, kept) * filled[:, None])[None],
            "category": (tf.gather(labels, kept) * filled)[None],
            "score": (tf.gather(scores, kept) * filled)[None],
            "number of detections": tf.cast(count, tf.float32)[None],
        }

    module = tf.Module()
    module.decode = decode
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={"serve": decode})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        return schema.ModelT.InitFromPackedBuf(converter.convert(), 0)


def _join(network, tail):
    """Appends the graph of `tail` to that of `network`, wired by the names of their signatures."""
    graph, tail_graph = network.subgraphs[0], tail.subgraphs[0]
    signature, tail_signature = network.signatureDefs[0], tail.signatureDefs[0]
    wires = {tensor.name: tensor.tensorIndex for tensor in signature.outputs}
    position = {tensor.tensorIndex: wires[tensor.name] for tensor in tail_signature.inputs}
    for i, tensor in enumerate(tail_graph.tensors):
        if i not in position:
            position[i] = len(graph.tensors)
            tensor.buffer += len(network.buffers)
            tensor.name = b"decoding/" + tensor.name
            graph.tensors.append(tensor)
    for operator in tail_graph.operators:
        operator.opcodeIndex += len(network.operatorCodes)
        # -1 stands for an input left out.
        operator.inputs = [position.get(i, -1) for i in operator.inputs]
        operator.outputs = [position[i] for i in operator.outputs]
        graph.operators.append(operator)
    network.buffers += tail.buffers
    network.operatorCodes += tail.operatorCodes

    outputs = {tensor.name.decode(): tensor for tensor in tail_signature.outputs}
    signature.outputs = [outputs[name] for name in OUTPUTS]
    for tensor in signature.outputs:
        tensor.tensorIndex = position[tensor.tensorIndex]
        graph.tensors[tensor.tensorIndex].name = tensor.name
    graph.outputs = [tensor.tensorIndex for tensor in signature.outputs]
    return network


def _add_metadata(model, data):
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(data, np.uint8)
    entry = schema.MetadataT()
    entry.name = mediapipe_metadata.NAME
    entry.buffer = len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]


def operators(path):
    """Names of the operators of a .tflite file, custom ones as CUSTOM:name."""
    model = schema.ModelT.InitFromPackedBuf(pathlib.Path(path).read_bytes(), 0)
    names = {
        number: name for name, number in vars(schema.BuiltinOperator).items() if name.isupper()
    }
    found = set()
    for code in model.operatorCodes:
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        custom = code.customCode
        found.add(f"CUSTOM:{custom.decode()}" if custom else names[number])
    return sorted(found)


def check_operators(path):
    """Refuses a file that LiteRT can't run, or that holds variables instead of weights.

    Raises:
        RuntimeError: it has custom operators or reads variables.
    """
    wrong = [
        name
        for name in operators(path)
        if name.startswith("CUSTOM") or name in ("READ_VARIABLE", "VAR_HANDLE", "ASSIGN_VARIABLE")
    ]
    if wrong:
        raise RuntimeError(f"{path}: has operators that LiteRT does not run; received: {wrong}")


def _compare(model, path, precision, images):
    """Raises RuntimeError if the file sees other things than the model on a few pictures."""
    if images is None:
        shape = (2, *model.image_shape)
        images = np.random.default_rng(0).integers(0, 256, shape)
    images = np.asarray(images[:4]).astype(np.uint8)
    detector = LiteRTDetector(path)
    expected = model.predict_on_batch(images.astype(np.float32))
    received = detector.predict_on_batch(images)
    if not all(np.isfinite(values).all() for values in received.values()):
        raise RuntimeError(f"{path}: gives numbers that are not finite")
    if precision == "int8":
        return  # its loss is measured in AP, not number by number
    # Where scores nearly tie, order may differ; the sorted scores may not.
    tolerance = {"float32": 1e-3, "float16": 3e-2}[precision]
    difference = float(np.abs(expected["scores"] - received["scores"]).max())
    if difference > tolerance:
        raise RuntimeError(
            f"{path}: scores differ from the model's by {difference:.4f}, more than {tolerance}"
        )


class LiteRTDetector:
    """Runs a .tflite file written by `export_litert`.

    Args:
        path: of the file.
        num_threads: of the interpreter.

    Attributes: `class_names`, and `image_shape` (H, W, 3).

    Raises:
        ValueError: the file can't be read, or is another kind of model.
    """

    def __init__(self, path, num_threads=None):
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:  # an optional package; TensorFlow has an older copy of the same
            Interpreter = tf.lite.Interpreter
        self.class_names = mediapipe_metadata.read_labels(path)
        try:
            self._interpreter = Interpreter(str(path), num_threads=num_threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{path}: not a model that LiteRT can run: {reason}") from None
        self._input = self._interpreter.get_input_details()[0]
        self._outputs = {d["name"]: d["index"] for d in self._interpreter.get_output_details()}
        if set(self._outputs) != set(OUTPUTS):
            raise ValueError(
                f"{path}: a detector has the outputs {OUTPUTS}; received: {sorted(self._outputs)}"
            )
        self.image_shape = tuple(int(side) for side in self._input["shape"][1:])

    def predict_on_batch(self, images):
        """Detections of images (B, H, W, 3), RGB, 0 to 255."""
        found = {"boxes": [], "scores": [], "labels": [], "count": []}
        for image in np.clip(np.round(images), 0, 255).astype(np.uint8):
            self._interpreter.set_tensor(self._input["index"], image[None])
            self._interpreter.invoke()
            boxes, labels, scores, count = (
                self._interpreter.get_tensor(self._outputs[name])[0] for name in OUTPUTS
            )
            filled = np.arange(len(scores)) < count
            found["boxes"].append(boxes)
            found["scores"].append(scores)
            found["labels"].append(np.where(filled, labels, -1).astype(np.int32))
            found["count"].append(np.int32(count))
        return {name: np.stack(values) for name, values in found.items()}
