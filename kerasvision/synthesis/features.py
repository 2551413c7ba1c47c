"""What systems that optimise a picture share: maps of layers, priors, gradients by tiles."""

import difflib
import math

import keras
import tensorflow as tf
from keras import ops

# Squared differences of neighbours below it count as none: for beta < 2 the slope has no end at 0.
FLAT = 1e-8
# Layers of keras.layers and operations of keras.ops that are nothing but an activation with flat
# parts. Leaky ones have a slope everywhere.
ACTIVATIONS = ("Activation", "Softmax", "Sigmoid", "ReLU", "Relu", "Relu6")


def network_of(model):
    """The functional network from pictures to maps that a model is, or has as `network`.

    Args:
        model: functional `keras.Model`, built `keras.Sequential`, or one of the suite's models
            with such a `network`.

    Returns:
        The network; it is the model's own, not a copy.

    Raises:
        ValueError: there is none, or it takes something else than one batch of pictures.
    """
    network = getattr(model, "network", model)
    name = getattr(network, "name", type(network).__name__)
    if isinstance(network, keras.Sequential) and not network.built:
        raise ValueError(
            f"model: must be built, begin it with keras.Input(shape); received: {name}, a "
            "Sequential without one"
        )
    inputs = getattr(network, "inputs", None)
    if not inputs:
        raise ValueError(
            "model: must be a functional or Sequential keras.Model, whose layers' outputs can be "
            f"read; received: {name}, a {type(network).__name__}"
        )
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        raise ValueError(
            "model: must take one batch of pictures (B, H, W, C); received: inputs "
            f"{[tuple(tensor.shape) for tensor in inputs]}"
        )
    return network


def features(model, layer_names):
    """A model from pictures to the outputs of some layers, Φ of the papers.

    It takes pictures of any size, also where the model's own size is fixed, as long as the layers
    up to those can: fully connected ones behind flattened maps can't (see `check_image_size`).

    Args:
        model: functional `keras.Model`, or as of `network_of`; it stays as it is.
        layer_names: names of its layers, or one name.

    Returns:
        A functional `keras.Model`, which shares the model's weights, from images (B, H, W, C),
        0 to 255, RGB or as the model takes them, to a dict of each name to the layer's output.

    Raises:
        ValueError: no name, one without a layer, or a model whose layers can't be read.
    """
    network = network_of(model)
    layer_names = [layer_names] if isinstance(layer_names, str) else list(layer_names)
    if not layer_names:
        raise ValueError("layer_names: must be one name or more; received: none")
    layers = {layer.name: layer for layer in network.layers}
    for name in layer_names:
        if name in layers:
            continue
        near = difflib.get_close_matches(name, layers, n=3, cutoff=0.5)
        hint = f"near it are {', '.join(near)}" if near else f"it has {', '.join(list(layers)[:5])}"
        hint += "" if near or len(layers) <= 5 else ", …"
        for layer in network.layers:
            if any(name == inner.name for inner in getattr(layer, "layers", ())):
                hint = f"its part {layer.name} has it: pass that, get_layer({layer.name!r})"
        raise ValueError(f"{network.name} has no layer {name}; {hint}")
    outputs = {name: layers[name].output for name in layer_names}
    phi = keras.Model(network.inputs[0], outputs, name=f"{network.name}_features")
    # Keras would refuse other sizes than the model's, which convolutions don't mind.
    phi.input_spec = keras.InputSpec(shape=(None, None, None, network.inputs[0].shape[-1]))
    return phi


def before_activation(tensor):
    """What goes into the activation that a tensor of a functional model comes from.

    Args:
        tensor: an output of a layer.

    Returns:
        Tensor of the same shape; it is `tensor` where there is no activation. Of a layer with an
        activation of its own it is that of a copy without, weights and all.
    """
    operation, node, _ = tensor._keras_history
    if isinstance(operation, keras.layers.InputLayer):
        return tensor
    before = operation._inbound_nodes[node].input_tensors[0]
    if isinstance(operation, keras.Model):  # a network in a network
        inner = before_activation(operation.outputs[0])
        return keras.Model(operation.inputs[0], inner, name=f"{operation.name}_linear")(before)
    activation = getattr(operation, "activation", keras.activations.linear)
    if type(operation).__name__ in ACTIVATIONS:
        # One that is linear does nothing but cast to float32.
        is_cast = hasattr(operation, "activation") and activation is keras.activations.linear
        return before_activation(before) if is_cast else before
    if activation is keras.activations.linear:
        return tensor
    linear = type(operation).from_config(operation.get_config() | {"activation": "linear"})
    output = linear(before)
    linear.set_weights(operation.get_weights())
    return output


def logits_of(model):
    """A classifier up to its logits: without the softmax or sigmoid that makes them probabilities.

    A probability near 1 has no slope left, and grows as well when all other classes become
    unlikely (Simonyan et al. 2014, section 2).

    Args:
        model: as of `kerasvision.synthesis.network_of`, with classes (B, C); of several outputs
            it is the one named "predictions". It stays as it is.

    Returns:
        A functional `keras.Model` from images to logits (B, C). Of a last layer that has the
        softmax for its activation the weights are a copy; all others are shared.

    Raises:
        ValueError: it gives no classes.
    """
    network = network_of(model)
    output = network.outputs[0]
    if isinstance(getattr(network, "output", None), dict):
        output = network.output.get("predictions")
    if len(getattr(output, "shape", ())) != 2:
        received = [tuple(tensor.shape) for tensor in network.outputs]
        raise ValueError(
            "model: must give classes (B, C), or have them as its output predictions; received: "
            f"{network.name} with {received}"
        )
    logits = before_activation(output)
    return keras.Model(network.inputs[0], logits, name=f"{network.name}_logits")


def check_image_size(phi, size):
    """Refuses pictures that can't go through a network.

    Args:
        phi: as from `features`.
        size: (height, width) of the pictures.

    Raises:
        ValueError: a layer wants another size, or would have no cell.
    """
    channels = phi.inputs[0].shape[-1]
    try:
        shapes = tf.function(phi).get_concrete_function(tf.TensorSpec((1, *size, channels)))
        shapes = tf.nest.flatten(shapes.output_shapes)
        fits = all(0 not in shape for shape in shapes)
    except (ValueError, TypeError, tf.errors.OpError):
        fits = False
    if not fits:
        height, width = phi.inputs[0].shape[1:3]
        own = "larger ones" if None in (height, width) else f"{height} x {width}"
        raise ValueError(
            f"pictures of {size[0]} x {size[1]} pixels don't go through the layers to "
            f"{', '.join(phi.output)}; the network was made for {own}"
        )


def total_variation(images, beta=2.0):
    """R_V^β of Mahendran and Vedaldi 2015, section 2.2, of each picture.

    The sum over pixels and channels of ((x[i, j+1] - x[i, j])² + (x[i+1, j] - x[i, j])²)^(β/2);
    there are no differences across the last row and column.

    Args:
        images: (B, H, W, C) float.
        beta: β; 1 is the total variation, 2 punishes single sharp pixels more.

    Returns:
        (B,) float.
    """
    right = ops.pad(images[:, :, 1:] - images[:, :, :-1], [(0, 0), (0, 0), (0, 1), (0, 0)])
    down = ops.pad(images[:, 1:] - images[:, :-1], [(0, 0), (0, 1), (0, 0), (0, 0)])
    squares = right**2 + down**2
    if beta != 2:
        powers = ops.maximum(squares, FLAT) ** (beta / 2)
        squares = ops.where(squares > FLAT, powers, 0.0)
    return ops.sum(squares, axis=(1, 2, 3))


def jitter(images, shift):
    """Pictures (B, H, W, C) moved by `shift`, (2,) int32: down and right, and round the border."""
    return ops.roll(images, shift, axis=(1, 2))


def tile_grid(size, tile_size):
    """How `tiled_gradients` cuts a picture: rows and columns of tiles, a tile's height and width.

    Args:
        size: (height, width) in pixels.
        tile_size: largest side of a tile.
    """
    rows, columns = (math.ceil(side / tile_size) for side in size)
    return rows, columns, math.ceil(size[0] / rows), math.ceil(size[1] / columns)


def tiled_gradients(objective, images, tile_size, shift):
    """Mean of an objective over the tiles of pictures, and its gradient by the pictures.

    One tile is computed after another, so that memory is bounded however large the picture. The
    tiles lie on the picture moved by `shift` (and round its border): with another shift at each
    step no seam stays in place. A picture of one tile gets its exact gradient.

    Args:
        objective: function of images (B, h, w, C) to a scalar, the same of all tiles.
        images: (B, H, W, C) float32, of static shape.
        tile_size: largest side of a tile, in pixels.
        shift: (2,) int32, down and right, in pixels.

    Returns:
        value: () float32.
        gradients: (B, H, W, C) float32.
    """
    batch, height, width, channels = images.shape
    rows, columns, tile_height, tile_width = tile_grid((height, width), tile_size)

    def gradients_of(tile):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(tile)
            value = objective(tile)
        return value, tape.gradient(value, tile)

    x = jitter(images, shift)
    if rows == columns == 1:
        value, gradients = gradients_of(x)
        return value, jitter(gradients, -shift)
    # All tiles have one size: the last ones go on at the other border.
    x = ops.concatenate([x, x[:, : rows * tile_height - height]], axis=1)
    x = ops.concatenate([x, x[:, :, : columns * tile_width - width]], axis=2)
    x = ops.reshape(x, (batch, rows, tile_height, columns, tile_width, channels))
    x = ops.transpose(x, (1, 3, 0, 2, 4, 5))
    tiles = ops.reshape(x, (rows * columns, batch, tile_height, tile_width, channels))
    values, gradients = tf.map_fn(
        gradients_of,
        tiles,
        parallel_iterations=1,
        fn_output_signature=(tf.float32, tf.float32),
    )
    x = ops.reshape(gradients, (rows, columns, batch, tile_height, tile_width, channels))
    x = ops.transpose(x, (2, 0, 3, 1, 4, 5))
    x = ops.reshape(x, (batch, rows * tile_height, columns * tile_width, channels))
    count = rows * columns
    return ops.sum(values) / count, jitter(x[:, :height, :width] / count, -shift)


def adam(x, gradients, moments, step, learning_rate):
    """One step of Adam down the gradient (Kingma and Ba 2015, algorithm 1), without variables.

    A step that keeps nothing takes any picture next.

    Args:
        x, gradients: tensors of one shape.
        moments: pair of tensors of that shape, zeros at first.
        step: t, 1 at first.
        learning_rate: α.

    Returns:
        The new x, and the new moments.
    """
    beta_1, beta_2, epsilon = 0.9, 0.999, 1e-8
    t = ops.cast(step, "float32")
    m = beta_1 * moments[0] + (1 - beta_1) * gradients
    v = beta_2 * moments[1] + (1 - beta_2) * gradients**2
    m_hat, v_hat = m / (1 - beta_1**t), v / (1 - beta_2**t)
    return x - learning_rate * m_hat / (ops.sqrt(v_hat) + epsilon), (m, v)
