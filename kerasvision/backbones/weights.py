"""Published weight files, as arrays by layer name."""

import pathlib
import re
import zipfile
import zlib

import h5py
import keras
import numpy as np
import safetensors
import safetensors.numpy

STATE_DICTS = (".npz", ".safetensors")
# Layers that a file may have beyond those of a network: the classifier, auxiliary heads.
CLASSIFIERS = re.compile("predictions|fc|classif|head|linear|logits|aux", re.IGNORECASE)


def is_state_dict(weights):
    """Whether `weights` names a file with PyTorch's parameters."""
    return weights is not None and pathlib.Path(weights).suffix in STATE_DICTS


def fetch_imagenet(url, include_top, num_classes):
    """Path of a file of keras.applications, which Keras fetches once.

    Raises:
        ValueError: the classifier is wanted, but for other than its 1000 classes.
    """
    if include_top and num_classes != 1000:
        raise ValueError(
            "weights='imagenet' tell 1000 classes apart, pass include_top=False for a classifier "
            f"of your own; received: num_classes={num_classes}"
        )
    return keras.utils.get_file(url.rsplit("/", 1)[1], url, cache_subdir="models")


def read_h5(path):
    """Weights of a legacy Keras file (`.h5`, as published by keras.applications).

    Returns:
        dict: layer name to the list of its arrays, float32, in the order of the file.

    Raises:
        ValueError: the file is no such file, or is damaged.
    """
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path}: not a readable HDF5 weight file; received: {error}") from None
    with file:
        group = file["model_weights"] if "model_weights" in file else file
        if "layer_names" not in group.attrs:
            raise ValueError(
                f"{path}: not a legacy Keras weight file (attribute `layer_names` is missing); "
                f"received groups: {sorted(group)[:5]}"
            )
        weights = {}
        for name in group.attrs["layer_names"]:
            name = name if isinstance(name, str) else name.decode()
            try:
                arrays = [
                    np.asarray(group[name][w][()], "float32")
                    for w in group[name].attrs["weight_names"]
                ]
            except (OSError, KeyError, TypeError, ValueError) as error:
                raise ValueError(
                    f"{path}: damaged, the weights of layer {name} can't be read; "
                    f"received: {_one_line(error)}"
                ) from None
            if arrays:
                weights[name] = arrays
        return weights


def read_state_dict(path):
    """Parameters of a PyTorch model, from a NumPy archive (`.npz`) or a `.safetensors` file.

    Returns:
        dict: PyTorch's parameter name, such as "layer1.0.conv1.weight", to its array.

    Raises:
        ValueError: the file is no such file, or is damaged.
    """
    suffix = pathlib.Path(path).suffix
    try:
        if suffix == ".safetensors":
            return safetensors.numpy.load_file(path)
        with zipfile.ZipFile(path), np.load(path) as archive:
            return dict(archive)
    except (
        OSError,
        EOFError,
        KeyError,
        TypeError,
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
        safetensors.SafetensorError,
    ) as error:
        raise ValueError(
            f"{path}: not a readable {suffix} file; received: {_one_line(error)}"
        ) from None


def _one_line(error):
    return " ".join(str(error).split()) or type(error).__name__


def from_state_dict(model, path, module_of, flattened=None):
    """Parameters of a PyTorch model under the names and in the layouts of our layers.

    Args:
        model: the network that will get them.
        path: of the file.
        module_of: function from a layer's name to PyTorch's name of the module.
        flattened: dict from the name of a dense layer behind maps to their (height, width,
            channels): PyTorch flattens the channels first.

    Returns:
        dict: layer name to the list of its arrays. Parameters of no layer follow, each under
        PyTorch's name of it.

    Raises:
        ValueError: the file is unreadable or lacks a parameter.
    """
    state_dict = read_state_dict(path)
    arrays, further = {}, dict(state_dict)
    for layer in model.layers:
        if not layer.weights:
            continue
        module = module_of(layer.name)
        names = [f"{module}.weight"]
        if isinstance(layer, keras.layers.BatchNormalization):
            names += [f"{module}.{part}" for part in ("bias", "running_mean", "running_var")]
        elif layer.use_bias:
            names += [f"{module}.bias"]
        missing = [name for name in names if name not in state_dict]
        if missing:
            raise ValueError(
                f"{path}: expected {missing[0]} for layer {layer.name} of {model.name}; "
                f"received parameters: {list(state_dict)[:3]}{_headless_hint([module])}"
            )
        weight, *others = (np.asarray(further.pop(name), "float32") for name in names)
        # A weight of another number of axes is left as it is, for `assign` to refuse.
        if isinstance(layer, keras.layers.DepthwiseConv2D) and weight.ndim == 4:
            weight = weight.transpose(2, 3, 0, 1)  # from (channels, 1, height, width)
        elif isinstance(layer, keras.layers.Conv2D):
            if weight.ndim == 2:  # a fully connected layer, as a convolution
                weight = weight[:, :, None, None]
            if weight.ndim == 4:
                weight = weight.transpose(2, 3, 1, 0)  # from OIHW
        elif isinstance(layer, keras.layers.Dense) and weight.ndim == 2:
            if flattened and layer.name in flattened:
                height, width, channels = flattened[layer.name]
                if weight.shape[1] == height * width * channels:
                    weight = weight.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
                    weight = weight.reshape(len(weight), -1)
            weight = weight.T
        arrays[layer.name] = [weight, *others]
    counters = "num_batches_tracked"  # of batch normalisation, which Keras doesn't count
    arrays |= {name: [x] for name, x in further.items() if not name.endswith(counters)}
    return arrays


def assign(model, weights, path):
    """Gives the layers of `model` their arrays; those of a classifier it lacks are left.

    Args:
        model: `keras.Model`.
        weights: dict of layer name to the list of its arrays.
        path: of the file, for errors.

    Raises:
        ValueError: an array does not fit its layer, a layer has none, or arrays belong to no
            layer: the file is of another network. No layer is changed then.
    """
    layers = {layer.name: layer for layer in model.layers if layer.weights}
    if not layers.keys() & weights.keys():
        raise ValueError(
            f"{path}: no layer of {model.name} is in the file; expected names like "
            f"{list(layers)[:3]}, received: {list(weights)[:3]}"
        )
    for name, layer in layers.items():
        expected = [tuple(weight.shape) for weight in layer.weights]
        received = [array.shape for array in weights.get(name, layer.weights)]
        if expected != received:
            hint = ""
            if name == "predictions" and expected[0][:-1] == received[0][:-1]:
                classes = received[0][-1]
                hint = f" (a classifier of {classes} classes: pass num_classes={classes}, or "
                hint += "include_top=False for one of your own)"
            raise ValueError(
                f"{path}: layer {name} of {model.name} expects arrays of shapes {expected}; "
                f"received: {received}{hint}"
            )
    missing = [name for name in layers if name not in weights]
    if missing:
        raise ValueError(
            f"{path}: the file must have all layers of {model.name}; "
            f"received no {missing[:5]}{_headless_hint(missing)}"
        )
    further = [name for name in weights if name not in layers and not CLASSIFIERS.match(name)]
    if further:
        raise ValueError(
            f"{path}: the file must have no more layers than {model.name} and a classifier; "
            f"received also {further[:5]}"
        )
    for name, layer in layers.items():
        layer.set_weights(weights[name])


def _headless_hint(missing):
    if all(CLASSIFIERS.match(name) for name in missing):
        return " (a file without the classifier: pass include_top=False)"
    return ""


def assign_in_order(model, arrays, path):
    """`assign` of a file whose layers have numbers for names: the order tells which is which.

    Keras loads such files so too. Further layers of the file keep their names.
    """
    names = [layer.name for layer in model.layers if layer.weights]
    names += list(arrays)[len(names) :]  # of the classifier, if this network has none
    assign(model, dict(zip(names, arrays.values())), path)


def freeze_batch_norms(network):
    """Keeps statistics, factors and offsets of a network's batch normalisations as they are."""
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
