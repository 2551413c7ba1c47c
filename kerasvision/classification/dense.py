"""From a classifier of crops to a network that slides over a picture of any size.

A fully connected layer on a map of H x W cells is a convolution with a kernel of H x W, one on
a vector a convolution with a kernel of 1 x 1. Written so, a network that was trained on crops
takes a larger picture and gives a map of class scores, one for each place of the crop, without
computing what neighbouring crops share a second time (Sermanet et al. 2014, OverFeat, section
3.5; Simonyan and Zisserman 2014, section 3.2).
"""

import keras
from keras import layers

# Layers of a classifier's head that do the same to every cell of a map.
ELEMENTWISE = (layers.Dropout, layers.Activation, layers.ReLU, layers.Softmax)


def features_and_head(network):
    """Cuts a classifier where its maps become vectors.

    Args:
        network: as in `to_dense`.

    Returns:
        The symbolic tensor of the last feature maps (B, h, w, D), and the list of layers from the
        `Flatten` or `GlobalAveragePooling2D` behind them to the end.

    Raises:
        ValueError: a network of another form.
    """
    outputs = network.output
    if isinstance(outputs, dict):
        network = keras.Model(network.input, outputs["predictions"], name=network.name)
    ends = [
        i
        for i, layer in enumerate(network.layers)
        if isinstance(layer, (layers.Flatten, layers.GlobalAveragePooling2D))
    ]
    if not ends:
        raise ValueError(
            "network must have a Flatten or GlobalAveragePooling2D layer in front of its "
            f"classifier; received: {network.name} without one"
        )
    head = network.layers[ends[-1] :]
    for before, layer in zip(head, head[1:]):
        if layer.input is not before.output:
            raise ValueError(
                f"network must have one chain of layers behind {head[0].name}; "
                f"received: {layer.name}, which does not follow {before.name}"
            )
        if not isinstance(layer, (layers.Dense, *ELEMENTWISE)):
            raise ValueError(
                f"network must have only Dense, Dropout and activations behind {head[0].name}; "
                f"received: {layer.name}, a {type(layer).__name__}"
            )
    return head[0].input, head


def to_dense(network):
    """Turns a classifier into a fully convolutional network: a score map for any picture.

    `Flatten` and the fully connected layer behind it become a convolution as large as the map that
    was flattened; further fully connected layers become 1x1 convolutions. Global average pooling
    becomes average pooling over a window as large as the map, at every place. The convolutions
    below are shared with `network`; the weights of the fully connected layers are copied.

    A cell of the score map is what the network says of one crop, if the network sees no more than
    the crop. Where it pads a crop with zeros, the dense network sees the picture's next pixels,
    and cells differ from crops: Simonyan and Zisserman (section 3.2) count this as a gain, since
    the network sees more of the picture.

    Args:
        network: functional `keras.Model` from images of known size to (B, C), or to a dict with
            such "predictions". Behind its last `Flatten` or `GlobalAveragePooling2D` only `Dense`,
            `Dropout` and activation layers follow, one after the other.

    Returns:
        A functional `keras.Model` from images (B, H, W, channels), from the network's own size up,
        to (B, h, w, C), with the network's last activation. Neighbours in the score map are as far
        apart in the picture as those in the last feature maps. An image of the network's own size
        gives h = w = 1.

    Raises:
        ValueError: a network of another form.
    """
    maps, head = features_and_head(network)
    window = tuple(maps.shape[1:3])
    if None in window:
        raise ValueError(
            "network must have images of known size, that of the crops; "
            f"received: image_shape={tuple(network.input_shape[1:])}"
        )
    images = keras.Input((None, None, network.input_shape[-1]), name="images")
    # The same layers, called on pictures of any size.
    body = keras.models.clone_model(
        keras.Model(network.input, maps), input_tensors=images, clone_function=lambda layer: layer
    )
    x = body.output
    if isinstance(head[0], layers.GlobalAveragePooling2D):
        pool = layers.AveragePooling2D(window, 1, dtype=head[0].dtype_policy, name=head[0].name)
        x = pool(x)
        window = (1, 1)
    for layer in head[1:]:
        if isinstance(layer, layers.Dense):
            kernel, *bias = layer.get_weights()
            kernel = kernel.reshape(*window, x.shape[-1], layer.units)
            convolution = layers.Conv2D(
                layer.units,
                window,
                activation=layer.activation,
                use_bias=layer.use_bias,
                kernel_initializer="zeros",  # random ones of VGG's size would take seconds
                dtype=layer.dtype_policy,
                name=layer.name,
            )
            x = convolution(x)
            convolution.set_weights([kernel, *bias])
            window = (1, 1)
        else:
            x = type(layer).from_config(layer.get_config())(x)
    return keras.Model(images, x, name=f"{network.name}_dense")
