"""Published weight files, as arrays by layer name."""

import h5py
import numpy as np


def read_h5(path):
    """Weights of a legacy Keras file (`.h5`, as published by keras.applications).

    Returns:
        dict: layer name to the list of its arrays, float32, in the order of the file.

    Raises:
        ValueError: the file is no such file.
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
            arrays = [
                np.asarray(group[name][w], "float32") for w in group[name].attrs["weight_names"]
            ]
            if arrays:
                weights[name if isinstance(name, str) else name.decode()] = arrays
        return weights


def assign(model, weights, path):
    """Gives the layers of `model` named in `weights` their arrays; returns how many were set.

    Raises:
        ValueError: an array does not fit its layer, or no layer has a name of the file.
    """
    layers = {layer.name: layer for layer in model.layers if layer.weights}
    names = [name for name in layers if name in weights]
    if not names:
        raise ValueError(
            f"{path}: no layer of this model is in the file; expected names like "
            f"{list(layers)[:3]}, received: {list(weights)[:3]}"
        )
    for name in names:
        expected = [tuple(weight.shape) for weight in layers[name].weights]
        received = [array.shape for array in weights[name]]
        if expected != received:
            raise ValueError(
                f"{path}: layer {name} expects arrays of shapes {expected}; received: {received}"
            )
        layers[name].set_weights(weights[name])
    missing = sorted(set(layers) - set(names))
    if missing:
        raise ValueError(f"{path}: the file lacks layers of the model; received no {missing[:5]}")
    return len(names)
