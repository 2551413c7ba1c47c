"""Files of Darknet, the authors' framework: weights (`.weights`) and networks (`.cfg`).

A weight file has a header and then nothing but float32 values, layer after layer: which network
they belong to is not in it. Its `.cfg` file says so.
"""

import dataclasses
import pathlib
import re

import keras
import numpy as np

# Names of layers in the order of a file: of the trunk, of a detector's head, of a classifier.
PREFIXES = ("conv", "head_conv", "predictions")
# Sections of a .cfg without weights, and the layers that stand for those that must agree.
LAYERS = {
    "maxpool": keras.layers.MaxPooling2D,
    "shortcut": keras.layers.Add,
    "upsample": keras.layers.UpSampling2D,
}
WITHOUT_WEIGHTS = {*LAYERS, *"avgpool cost crop dropout region reorg route softmax yolo".split()}


# --- Weights -----------------------------------------------------------------------------


def load_darknet_weights(network, path, config=None, may_go_on=False):
    """Gives the convolutions of a network the values of a Darknet weight file.

    The file has three int32, its version, and the number of pictures seen, int64 (int32 before
    version 0.2); then for each convolution, float32, its biases, or beta, gamma, mean and variance
    of its batch normalisation, and its kernel, (outputs, inputs, height, width).

    Args:
        network: functional `keras.Model` of a Darknet network, its layers called conv0, conv1, …,
            then head_conv0, …, then predictions.
        path: of the `.weights` file.
        config: `DarknetConfig` of the file, which is compared with the network first.
        may_go_on: whether the file may have more layers than the network, as that of a detector
            has more than its trunk.

    Raises:
        ValueError: the file is unreadable, shorter or longer than the network, or of another
            one: a variance is negative, or `config` disagrees. No layer is changed then.
    """
    if config is not None:
        config.check(network, may_go_on)
    values = _read_values(path)
    sizes = {
        layer.name: sum(int(np.prod(variable.shape)) for variable in _variables(network, layer))
        for layer in _convolutions(network)
    }
    arrays, position = [], 0
    for layer in _convolutions(network):
        if position + sizes[layer.name] > len(values):
            raise ValueError(
                f"{path}: too short for {network.name}, which has {sum(sizes.values())} values, "
                f"{sizes[layer.name]} of them from {position} on in layer {layer.name}; "
                f"received: {len(values)}"
            )
        for variable in _variables(network, layer):
            size = int(np.prod(variable.shape))
            array = _from_darknet(values[position : position + size], variable.shape)
            lowest = 0.0 if variable.name == "moving_variance" else -np.inf
            if not (np.isfinite(array) & (array >= lowest)).all():
                raise ValueError(
                    f"{path}: of another network than {network.name}: {variable.name} of layer "
                    f"{layer.name} must be finite{' and not negative' if lowest == 0 else ''}; "
                    f"received: {array.min():g} to {array.max():g}"
                )
            arrays.append((variable, array))
            position += size
    if position < len(values) and not may_go_on:
        raise ValueError(
            f"{path}: too long for {network.name}, which has {position} values, the last of them "
            f"in layer {layer.name}; received: {len(values)}"
        )
    for variable, array in arrays:
        variable.assign(array)


def _read_values(path):
    try:
        content = pathlib.Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: not a readable weight file; received: {error}") from None
    major, minor = np.frombuffer(content[:8].ljust(8, b"\0"), "<i4")
    # From version 1000 on there are fully connected layers, transposed, and the old counter.
    header = 20 if 2 <= 10 * major + minor and major < 1000 and minor < 1000 else 16
    if len(content) < header or (len(content) - header) % 4:
        raise ValueError(
            f"{path}: must have a header of {header} bytes and float32 values; "
            f"received: {len(content)} bytes"
        )
    return np.frombuffer(content, "<f4", offset=header)


def _convolutions(network):
    """The layers of a network that have kernels, in Darknet's order."""
    found = {}
    for layer in network.layers:
        match = re.fullmatch(r"([a-z_]+?)(\d*)", layer.name)
        if match and match[1] in PREFIXES:
            found[PREFIXES.index(match[1]), int(match[2] or 0)] = layer
        elif layer.weights and not layer.name.endswith("_bn"):
            raise ValueError(
                f"Darknet's files fit networks of layers called conv0, conv1, …; "
                f"received: {network.name} with layer {layer.name}"
            )
    return [found[key] for key in sorted(found)]


def _variables(network, layer):
    """The variables of a convolution and its batch normalisation, in Darknet's order."""
    if layer.use_bias:
        return [layer.bias, layer.kernel]
    norm = network.get_layer(f"{layer.name}_bn")
    return [norm.beta, norm.gamma, norm.moving_mean, norm.moving_variance, layer.kernel]


def _from_darknet(values, shape):
    if len(shape) == 4:
        height, width, inputs, outputs = shape
        return values.reshape(outputs, inputs, height, width).transpose(2, 3, 1, 0)
    return values.reshape(shape[::-1]).T  # of a vector, or of a classifier without maps


# --- Configurations ----------------------------------------------------------------------


@dataclasses.dataclass
class DarknetConfig:
    """What a `.cfg` file says about its network.

    Attributes:
        path: of the file.
        image_shape: (height, width, channels).
        convolutions: list of dicts of ints "line" (of the section, from 1), "filters", "size",
            "stride", "batch_normalize" and the str "activation".
        counts: dict of the other sections' names to their numbers.
        priors: for each map that detects, finest first, its (height, width) in pixels; none for
            a classifier.
        num_classes: of the detector; None for a classifier.
    """

    path: str
    image_shape: tuple
    convolutions: list
    counts: dict
    priors: tuple
    num_classes: int | None

    def check(self, network, may_go_on=False):
        """Raises ValueError unless a network is the one that the file describes.

        Args:
            network: functional `keras.Model`, as `load_darknet_weights` takes it.
            may_go_on: whether the file may describe more layers than the network has.
        """
        convolutions = _convolutions(network)
        for layer, section in zip(convolutions, self.convolutions):
            dense = isinstance(layer, keras.layers.Dense)
            leaky = any(other.name == f"{layer.name}_leaky" for other in network.layers)
            described = {
                "filters": layer.kernel.shape[-1],
                "size": 1 if dense else layer.kernel.shape[0],
                "stride": 1 if dense else layer.strides[0],
                "batch_normalize": int(not layer.use_bias),
                "activation": "leaky" if leaky else "linear",
            }
            for name, value in described.items():
                if section[name] != value:
                    raise ValueError(
                        f"{self.path}: line {section['line']}: {name} of this [convolutional] must "
                        f"be {value}, as of layer {layer.name} of {network.name}; "
                        f"received: {section[name]}"
                    )
        numbers = [("convolutional", len(convolutions), len(self.convolutions))]
        for name, kind in LAYERS.items():
            here = sum(isinstance(layer, kind) for layer in network.layers)
            numbers.append((name, here, self.counts.get(name, 0)))
        for name, here, there in numbers:
            if here > there or here < there and not may_go_on:
                raise ValueError(
                    f"{self.path}: {network.name} has {here} sections [{name}]; received: {there}"
                )


def read_darknet_cfg(path):
    """Reads a Darknet `.cfg` file.

    Returns:
        `DarknetConfig`.

    Raises:
        ValueError: the file is unreadable, has a line that is neither section nor option, a
            section with weights other than [convolutional], or an option that isn't a number.
    """
    sections = _read_sections(path)
    (first, _, net), *others = sections or [("", 0, {})]
    if first not in ("net", "network"):
        raise ValueError(f"{path}: must begin with the section [net]; received: [{first}]")

    def number(options, line, name, default=None, kind=int):
        try:
            return kind(options.get(name, default))
        except (TypeError, ValueError):
            raise ValueError(
                f"{path}: line {line}: {name} of this section must be a number; "
                f"received: {options.get(name, 'nothing')}"
            ) from None

    def numbers(options, line, name):
        texts = options.get(name, "").replace(" ", "").strip(",").split(",")
        return [number({name: text}, line, name, kind=float) for text in texts]

    convolutions, counts, priors, num_classes = [], {}, [], None
    for kind, line, options in others:
        if kind == "convolutional":
            convolutions.append(
                {
                    "line": line,
                    "filters": number(options, line, "filters", 1),
                    "size": number(options, line, "size", 1),
                    "stride": number(options, line, "stride", 1),
                    "batch_normalize": number(options, line, "batch_normalize", 0),
                    "activation": options.get("activation", "logistic"),
                }
            )
            continue
        if kind not in WITHOUT_WEIGHTS:
            raise ValueError(
                f"{path}: line {line}: sections with weights must be [convolutional]; "
                f"received: [{kind}]"
            )
        counts[kind] = counts.get(kind, 0) + 1
        if kind in ("yolo", "region"):
            sides = numbers(options, line, "anchors")
            if kind == "region":
                sides = [32 * side for side in sides]  # there they count cells
            sizes = list(zip(sides[1::2], sides[::2]))
            chosen = numbers(options, line, "mask") if "mask" in options else range(len(sizes))
            if any(not 0 <= i < len(sizes) for i in chosen):
                raise ValueError(
                    f"{path}: line {line}: mask must number the {len(sizes)} anchors from 0; "
                    f"received: {options['mask']}"
                )
            priors.append(tuple(sizes[int(i)] for i in chosen))
            num_classes = number(options, line, "classes")
    image_shape = tuple(
        number(net, 1, name, default)
        for name, default in [("height", 0), ("width", 0), ("channels", 3)]
    )
    # The coarsest map comes first in the file.
    return DarknetConfig(
        str(path), image_shape, convolutions, counts, tuple(priors[::-1]), num_classes
    )


def _read_sections(path):
    """[(name, number of its line, dict of its options)]"""
    try:
        lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a readable .cfg file; received: {error}") from None
    sections = []
    for number, line in enumerate(lines, start=1):
        line = line.strip()
        if not line or line[0] in "#;":
            continue
        if line[0] == "[" and line[-1] == "]":
            sections.append((line[1:-1].strip(), number, {}))
        elif "=" in line and sections:
            name, value = line.split("=", 1)
            sections[-1][2][name.strip()] = value.strip()
        else:
            raise ValueError(
                f"{path}: line {number}: must be [section] or option=value; received: {line[:60]}"
            )
    return sections
