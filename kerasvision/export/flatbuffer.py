"""LiteRT files as flatbuffers: reading, joining, checking and writing them.

A .tflite file is a flatbuffer of tensors, buffers with their constants, and operators that name
their tensors by number; `schema_py_generated` has a class for each table of its schema.
"""

import hashlib

import flatbuffers
from tensorflow.lite.python import schema_py_generated as schema

_OPERATOR_NAMES = {
    code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)
}


def read(content):
    """The `ModelT` of the bytes of a .tflite file."""
    return schema.ModelT.InitFromPackedBuf(content)


def write(model):
    """The bytes of a `ModelT`."""
    builder = _Builder(2**20)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


class _Builder(flatbuffers.Builder):
    """Aligns constants to 16 bytes, as the schema asks, and stores equal vectors once.

    The zero points of an int8 file, all of them 0, are otherwise a sixth of it.
    """

    def __init__(self, initial_size):
        super().__init__(initial_size)
        self.vectors = {}

    def CreateNumpyVector(self, x):
        key = (x.dtype.str, hashlib.sha256(x.tobytes()).digest())
        if key not in self.vectors:
            self.vectors[key] = super().CreateNumpyVector(x)
        return self.vectors[key]

    def StartVector(self, elemSize, numElems, alignment):
        # Only the constants are vectors of single bytes.
        return super().StartVector(elemSize, numElems, 16 if elemSize == 1 else alignment)


def operator_names(model):
    """Names of the operators of a `ModelT`, in the order in which they run."""
    return [
        _OPERATOR_NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)]
        if code.customCode is None
        else code.customCode.decode()
        for subgraph in model.subgraphs
        for code in (model.operatorCodes[operator.opcodeIndex] for operator in subgraph.operators)
    ]


def check_operators(model, path):
    """Raises RuntimeError if a runtime without extensions could not run the `ModelT`.

    Variables are refused as well: a converter that did not find their values leaves them
    without any, and the file then computes on garbage.
    """
    refused = {
        name
        for name in operator_names(model)
        if name not in vars(schema.BuiltinOperator)
        or name in ("CUSTOM", "READ_VARIABLE", "ASSIGN_VARIABLE", "VAR_HANDLE")
    }
    if refused:
        raise RuntimeError(
            f"{path}: must have built-in operators without variables only; received: "
            f"{', '.join(sorted(refused))}"
        )


def tensor_numbers(model):
    """Numbers of the inputs and outputs of a `ModelT`: two dicts by their names."""
    (signature,) = model.signatureDefs
    return tuple(
        {tensor.name.decode(): tensor.tensorIndex for tensor in tensors}
        for tensors in (signature.inputs, signature.outputs)
    )


def order_outputs(model, names):
    """Gives the outputs of a `ModelT` this order, and their tensors the names they have."""
    _, numbers = tensor_numbers(model)
    (subgraph,), (signature,) = model.subgraphs, model.signatureDefs
    subgraph.outputs = [numbers[name] for name in names]
    signature.outputs.sort(key=lambda tensor: names.index(tensor.name.decode()))
    for name in names:
        subgraph.tensors[numbers[name]].name = name


def join(head, tail):
    """One `ModelT` that runs `tail` on the outputs of `head`.

    Args:
        head, tail: `ModelT` of one subgraph and one signature each; the inputs of the tail have
            the names, shapes and types of the outputs of the head. Both are used up.

    Returns:
        A `ModelT` with the inputs of the head and the outputs of the tail.
    """
    (first,), (second,) = head.subgraphs, tail.subgraphs
    _, sources = tensor_numbers(head)
    targets, _ = tensor_numbers(tail)
    number = {}
    for name, target in targets.items():
        source, tensor = first.tensors[sources[name]], second.tensors[target]
        if source.type != tensor.type or list(source.shape) != list(tensor.shape):
            raise ValueError(
                f"{name} must be of type {tensor.type} and shape {list(tensor.shape)}; received: "
                f"{source.type}, {list(source.shape)}"
            )
        number[target] = sources[name]
    for i, tensor in enumerate(second.tensors):
        if i not in number:
            number[i] = len(first.tensors)
            tensor.buffer += len(head.buffers)
            first.tensors.append(tensor)
    number[-1] = -1  # an optional input that is left out

    for operator in second.operators:
        operator.opcodeIndex += len(head.operatorCodes)
        operator.inputs = [number[i] for i in operator.inputs]
        operator.outputs = [number[i] for i in operator.outputs]
        first.operators.append(operator)
    head.operatorCodes += tail.operatorCodes
    head.buffers += tail.buffers
    first.outputs = [number[i] for i in second.outputs]
    (signature,), (tail_signature,) = head.signatureDefs, tail.signatureDefs
    for tensor in tail_signature.outputs:
        tensor.tensorIndex = number[tensor.tensorIndex]
    signature.outputs = tail_signature.outputs
    return head
