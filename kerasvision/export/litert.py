"""LiteRT (TensorFlow Lite), for phones: what the exports of all systems share.

A file is made of two graphs that are converted apart and joined: the network, which may be
quantised, and what follows it (suppression, softmax), whose numbers are always float32. Class
numbers and suppression come out wrong inside a quantised graph, and small probabilities come out
as 0.
"""

import contextlib
import math
import os
import pathlib

import flatbuffers
import keras
import numpy as np
import tensorflow as tf
from keras import layers, tree
from tensorflow.lite.python import schema_py_generated as schema

from kerasvision.export import mediapipe_metadata
from kerasvision.training.quiet import quiet
from kerasvision.training.run_folder import RunError

PRECISIONS = ("float32", "float16", "int8")
# Largest deviation of an output from Keras's, both as root mean squares. Of int8 a tenth is
# usual: what is refused is a network that the quantiser broke.
TOLERANCES = {"float32": 1e-3, "float16": 0.1, "int8": 0.5}


class ExportError(RunError, RuntimeError):
    """A converted file does not compute what the model does; nothing is written."""


class ImageModel:
    """A .tflite file from one image to named outputs; takes images one after the other.

    Args:
        path: of the file.
        outputs: names of the outputs it must have.
        num_threads: of the interpreter; None: its own choice.
        optional: names of outputs that it may have.

    Attributes:
        image_shape: (height, width, 3) of the images.
        output_shapes: dict of the outputs' shapes, by their names.

    Raises:
        ValueError: the file is damaged, or of another kind.
    """

    def __init__(self, path, outputs, num_threads=None, optional=()):
        try:
            self._interpreter = interpreter(pathlib.Path(path).read_bytes(), num_threads)
        except (ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(f"{path}: expected a .tflite file; received: {reason}") from None
        image = self._interpreter.get_input_details()[0]
        details = self._interpreter.get_output_details()
        received = {detail["name"]: detail["index"] for detail in details}
        if set(received) - set(optional) != set(outputs) or image["dtype"] != np.uint8:
            raise ValueError(
                f"{path}: expected a uint8 image to {', '.join(outputs)}; "
                f"received: {image['dtype'].__name__} to {', '.join(sorted(received))}"
            )
        self._input = image["index"]
        self._outputs = received
        self.image_shape = tuple(image["shape"][1:].tolist())
        self.output_shapes = {d["name"]: tuple(d["shape"].tolist()) for d in details}

    def __call__(self, images):
        """The outputs, as a dict of NumPy arrays, of images (B, H, W, 3), uint8 or float."""
        rows = []
        for image in to_pixels(images):
            self._interpreter.set_tensor(self._input, image[None])
            self._interpreter.invoke()
            rows.append([self._interpreter.get_tensor(i) for i in self._outputs.values()])
        return dict(zip(self._outputs, map(np.concatenate, zip(*rows))))


def interpreter(content, num_threads=None):
    """LiteRT's interpreter of a .tflite file's bytes."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:  # The package is optional; TensorFlow has an older copy.
        Interpreter = tf.lite.Interpreter
    with quiet():
        loaded = Interpreter(model_content=content, num_threads=num_threads)
        loaded.allocate_tensors()
    return loaded


def to_pixels(images):
    """Images, uint8 or float 0 to 255, as uint8."""
    return np.clip(np.rint(images), 0, 255).astype("uint8")


# --- Conversion --------------------------------------------------------------------------


def prepare_images(precision, calibration_images, image_shape):
    """Images, uint8, on which int8 is calibrated and the export compared with Keras.

    Without `calibration_images` it is one image of noise.

    Raises:
        ValueError: an unknown precision, int8 without images, or a side that is None.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}; received: {precision}")
    if None in image_shape:
        raise ValueError(
            f"image_shape must have a height and a width for LiteRT; received: {image_shape}"
        )
    if calibration_images is None or len(calibration_images) == 0:
        if precision == "int8":
            raise ValueError("int8 needs calibration_images (P, H, W, 3); received: none")
        calibration_images = np.random.default_rng(0).integers(0, 256, (1, *image_shape))
    return to_pixels(calibration_images)


def in_float32(model):
    """The model itself, or a copy in float32 of one that computes in lower precision."""
    parts = networks_of(model)
    if all(x.compute_dtype == "float32" for part in parts.values() for x in part.layers):
        return model
    return with_networks(model, {n: network_in_float32(part) for n, part in parts.items()})


def network_in_float32(network):
    """A copy in float32 of a functional model."""
    copy = keras.models.clone_model(
        network,
        clone_function=lambda x: x.from_config({**x.get_config(), "dtype": "float32"}),
    )
    copy.set_weights(network.get_weights())
    return copy


def networks_of(model):
    """Dict of the networks that a model is made of, by the names of its arguments."""
    parts = {name: getattr(model, name, None) for name in model.get_config()}
    return {name: part for name, part in parts.items() if isinstance(part, keras.Model)}


def with_networks(model, networks):
    """A model like another one, of networks as from `networks_of`."""
    return type(model)(**{**model.get_config(), **networks})


def convert_network(network, precision, calibration_images):
    """The .tflite bytes of a network.

    Args:
        network: functional `keras.Model` from images to a dict of float32 tensors.
        precision: one of `PRECISIONS`.
        calibration_images: from `prepare_images`.

    Returns:
        bytes; input "images" (1, H, W, 3) uint8; outputs float32, in the order of their names.
    """
    network = fold_normalization(network)

    @tf.function(autograph=False)
    def function(images):
        return network(tf.cast(images, tf.float32), training=False)

    # The int8 converter wants a float input and makes it uint8 by itself.
    dtype = tf.float32 if precision == "int8" else tf.uint8
    images = tf.TensorSpec((1, *network.input_shape[1:]), dtype, name="images")
    converter = _converter(function, images)
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    elif precision == "int8":
        converter.representative_dataset = lambda: _calibration(calibration_images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.uint8
    with quiet():
        return converter.convert()


def fold_normalization(network):
    """A copy in which the first convolution does the multiplication of the normalisation.

    Where one convolution alone reads the normalised pixels s x + o, with or without zeros padded
    around them, the copy computes x + o / s and has a kernel s times as large: one pass over the
    picture less. Any other network is returned as it is.
    """

    def only_reader(tensor):
        readers = [
            layer
            for layer in network.layers
            if any(read is tensor for read in tree.flatten(layer.input))
        ]
        return readers[0] if len(readers) == 1 else None

    normalize = only_reader(network.input)
    if type(normalize) is not layers.Rescaling:
        return network
    convolution = only_reader(normalize.output)
    if type(convolution) is layers.ZeroPadding2D:
        convolution = only_reader(convolution.output)
    if type(convolution) is not layers.Conv2D or convolution.groups > 1:
        return network

    scale, offset = np.asarray(normalize.scale), np.asarray(normalize.offset)

    def clone(layer):
        config = layer.get_config()
        if layer is normalize:
            config.update(scale=1.0, offset=(offset / scale).tolist())
        return layer.from_config(config)

    folded = keras.models.clone_model(network, clone_function=clone)
    folded.set_weights(network.get_weights())
    kernel = folded.get_layer(convolution.name).kernel
    kernel.assign(kernel * scale.astype("float32").reshape(-1, 1))
    return folded


def convert(function, *specs, precision="float32"):
    """The .tflite bytes of a `tf.function` of tensors like the `tf.TensorSpec`s.

    In all precisions numbers come and go in float32. float16 halves the weights of layers, and
    int8 quarters them; their inputs it quantises from case to case.
    """
    converter = _converter(function, *specs)
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    with quiet():
        return converter.convert()


def _converter(function, *specs):
    # Freezes the variables of Keras layers, which `tf.Module` does not know: given a trackable,
    # the converter would leave them without values.
    return tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function(*specs)])


def _calibration(images):
    for image in images.astype("float32"):
        # The input's range must be exactly 0 to 255, for its integers to be the pixels.
        image[0, 0], image[-1, -1] = 0.0, 255.0
        yield [image[None]]


# --- Joining and packing -----------------------------------------------------------------


def assemble(network, tail, outputs, metadata):
    """The .tflite bytes of a network and the graph that follows it, with names and metadata.

    Args:
        network: .tflite bytes from `convert_network`.
        tail: .tflite bytes from `convert`, whose inputs have the names of the network's outputs;
            None: the network's outputs are those of the file.
        outputs: names of the outputs, in the order in which the function returned them.
        metadata: bytes from `mediapipe_metadata`.
    """
    model = schema.ModelT.InitFromPackedBuf(network)
    if tail is not None:
        _append(model, schema.ModelT.InitFromPackedBuf(tail))
    graph = model.subgraphs[0]
    graph.outputs = _in_order(graph, graph.outputs)
    for index, output in zip(graph.outputs, outputs):
        graph.tensors[index].name = output
    model.signatureDefs = [
        schema.SignatureDefT(
            inputs=[schema.TensorMapT("images", graph.inputs[0])],
            outputs=[schema.TensorMapT(*pair) for pair in zip(outputs, graph.outputs)],
            signatureKey="serving_default",
        )
    ]
    metadata = np.frombuffer(metadata, "uint8")
    model.metadata = [schema.MetadataT(mediapipe_metadata.BUFFER_NAME, len(model.buffers))]
    model.buffers.append(schema.BufferT(metadata))
    builder = _Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _append(model, tail):
    """Feeds the outputs of a `ModelT` to another one, whose outputs become those of the model."""
    graph, tail_graph = model.subgraphs[0], tail.subgraphs[0]
    # From the tail's tensors to those of the joined graph; -1 is an optional input left out.
    position = {-1: -1}
    position.update(
        zip(_in_order(tail_graph, tail_graph.inputs), _in_order(graph, graph.outputs), strict=True)
    )
    for subgraph in tail.subgraphs:
        for tensor in subgraph.tensors:
            tensor.buffer += len(model.buffers)
        for operator in subgraph.operators:
            operator.opcodeIndex += len(model.operatorCodes)
    for index, tensor in enumerate(tail_graph.tensors):
        if index not in position:
            position[index] = len(graph.tensors)
            graph.tensors.append(tensor)
    for operator in tail_graph.operators:
        operator.inputs = [position[index] for index in operator.inputs]
        operator.outputs = [position[index] for index in operator.outputs]
        graph.operators.append(operator)
    # Branches and loops keep their numbers, as the network has none.
    model.subgraphs += tail.subgraphs[1:]
    model.operatorCodes += tail.operatorCodes
    model.buffers += tail.buffers
    graph.outputs = [position[index] for index in tail_graph.outputs]


def _in_order(graph, indices):
    """Indices of a graph's tensors in the order of their names."""
    # The converter shuffles a function's outputs, but names them Identity, Identity_1, …, in the
    # order in which it returned them. A dict is returned in the order of its keys.
    return sorted(indices, key=lambda index: graph.tensors[index].name)


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


@contextlib.contextmanager
def checked_file(path, content):
    """Path of a file of these bytes that gets its name when the block ends without an error."""
    # A file that fails its check must not look like an export.
    unchecked = path.with_name(f".{path.name}.new")
    unchecked.write_bytes(content)
    try:
        yield unchecked
        os.replace(unchecked, path)
    finally:
        unchecked.unlink(missing_ok=True)


# --- Checks ------------------------------------------------------------------------------


def check_operators(path, content):
    """Raises ExportError unless all operators of a .tflite file's bytes are built in.

    Operators on variables are refused as well: some ways of conversion lose their values.
    """
    names = {number: name for name, number in vars(schema.BuiltinOperator).items()}
    for code in schema.ModelT.InitFromPackedBuf(content).operatorCodes:
        name = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        if name in ("CUSTOM", "READ_VARIABLE", "VAR_HANDLE"):
            custom = (code.customCode or b"").decode()
            raise ExportError(
                f"{path}: operators must be built in and without variables; "
                f"received: {' '.join([name, custom]).strip()}"
            )


def check_network(path, content, network, precision, images, tolerances=TOLERANCES):
    """Raises ExportError if the converted network's numbers are not those of Keras."""
    tolerance = tolerances[precision]
    converted = interpreter(content)
    details = sorted(converted.get_output_details(), key=lambda output: output["name"])
    expected_outputs = network.predict_on_batch(images.astype("float32"))
    found_outputs = {name: [] for name in sorted(expected_outputs)}
    for image in images:
        converted.set_tensor(converted.get_input_details()[0]["index"], image[None])
        converted.invoke()
        for name, output in zip(found_outputs, details):
            found_outputs[name].append(converted.get_tensor(output["index"])[0])
    for name, found in found_outputs.items():
        expected = expected_outputs[name]
        error = np.sqrt(np.mean((found - expected) ** 2))
        size = np.sqrt(np.mean(expected**2))
        # Written so that NaN is refused, and nothing but zeros taken, as untrained networks give.
        if not error <= tolerance * size:
            advice = "; a network that has learned little can't be quantised"
            raise ExportError(
                f"{path}: {name} must be the model's within {tolerance:.1%}; received: "
                f"{error / size:.2%}{advice if precision == 'int8' else ''}"
            )


def check_scores(path, found, expected, precision):
    """Raises ExportError if scores from the finished file are not those of Keras.

    In float16 by their average, as rounding may keep one box or another of two that overlap.
    """
    tolerance = {"float32": 1e-3, "float16": 0.05, "int8": math.inf}[precision]
    error = np.abs(found - expected)
    if precision == "float16":
        error = error.sum() / max(np.count_nonzero(found + expected), 1)
    else:
        error = error.max()
    if not error < tolerance:
        raise ExportError(
            f"{path}: scores must be the model's within {tolerance}; received: {error:.4f} off"
        )
