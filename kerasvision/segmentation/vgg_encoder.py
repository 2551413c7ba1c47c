"""The thirteen convolutions of VGG-16, which FCN, SegNet and DeconvNet all start from."""

import keras
import numpy as np
from keras import layers

from kerasvision.backbones.inputs import standardize, subtract_mean
from kerasvision.backbones.vgg import CHANNELS, DEPTHS, vgg16
from kerasvision.backbones.weights import is_state_dict
from kerasvision.layers import MaxPoolingWithIndices2D

BATCH_NORM_EPSILON = 1e-5


def normalize(images, weights):
    """Images, RGB, 0 to 255, as the filters of a weight file (or None) expect them."""
    return standardize(images) if is_state_dict(weights) else subtract_mean(images)


def convolution(x, filters, kernel_size, name, batch_norm_momentum, padding="same"):
    """Convolution, batch normalisation and ReLU; without a momentum no batch normalisation."""
    x = layers.Conv2D(
        filters, kernel_size, padding=padding, kernel_initializer="he_normal", name=name
    )(x)
    return normalized_relu(x, name, batch_norm_momentum)


def normalized_relu(x, name, batch_norm_momentum):
    """Batch normalisation, where there is a momentum, and ReLU behind the layer `name`."""
    if batch_norm_momentum is not None:
        x = layers.BatchNormalization(
            momentum=batch_norm_momentum, epsilon=BATCH_NORM_EPSILON, name=f"{name}_bn"
        )(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def encode(x, batch_norm_momentum=None):
    """The five blocks of VGG-16 (Simonyan and Zisserman 2014, table 1, configuration D).

    Args:
        x: (B, H, W, 3), normalised images of known size.
        batch_norm_momentum: of the batch normalisation behind each convolution; None: none.

    Returns:
        maps: the five blocks' poolings, the last (B, H/32, W/32, 512); odd sides are rounded up.
        indices: where in their windows of 2x2 the maxima of each were.
        sizes: (height, width) of what each pooled.
    """
    maps, indices, sizes = [], [], []
    for block, (depth, channels) in enumerate(zip(DEPTHS["vgg16"], CHANNELS), start=1):
        for i in range(1, depth + 1):
            x = convolution(x, channels, 3, f"block{block}_conv{i}", batch_norm_momentum)
        sizes.append(tuple(x.shape[1:3]))
        x, places = MaxPoolingWithIndices2D(2, padding="same", name=f"block{block}_pool")(x)
        maps.append(x)
        indices.append(places)
    return maps, indices, sizes


def load_vgg16(model, weights):
    """Gives the convolutions of `encode` in a model the filters of a VGG-16 file.

    Args:
        model: functional `keras.Model`.
        weights: as of `kerasvision.backbones.vgg16`; None: they stay as they are.

    Raises:
        ValueError: the file isn't one of VGG-16.
    """
    if weights is None:
        return
    for layer in vgg16((32, 32, 3), include_top=False, weights=weights).layers:
        if layer.weights:
            model.get_layer(layer.name).set_weights(layer.get_weights())


def fit_batch_norm(network, images):
    """Lets an encoder with batch normalisation start with the maps of VGG-16, but for their scale.

    VGG-16 learnt without batch normalisation. Put behind its convolutions, that takes from each
    channel the mean and the deviation that the next filters count on. Here each channel gets its
    own back, as offset and gain.

    Args:
        network: of a fresh `segnet` or `deconvnet`, with weights of VGG-16.
        images: (B, H, W, 3), RGB, 0 to 255, to measure means and deviations on. In training, the
            maps of just these are VGG-16's.
    """
    convolutions = [
        network.get_layer(f"block{block}_conv{i}")
        for block, depth in enumerate(DEPTHS["vgg16"], start=1)
        for i in range(1, depth + 1)
    ]
    # Fresh batch normalisation passes on what it gets while it doesn't train.
    maps = keras.Model(network.input, [layer.output for layer in convolutions]).predict(
        images, verbose=0
    )
    below = 1.0  # what the maps were divided by before the convolution
    for layer, values in zip(convolutions, maps):
        values = values.astype("float32")
        mean, deviation = values.mean((0, 1, 2)), values.std((0, 1, 2))
        # Maps of deviation 1 on average: gains and offsets of hundreds would hardly learn.
        scale = max(np.sqrt(np.mean(deviation**2)), keras.config.epsilon())
        bias = np.asarray(layer.bias)
        network.get_layer(f"{layer.name}_bn").set_weights(
            [
                deviation / scale,
                mean / scale,
                (mean - bias) / below + bias,
                (deviation / below) ** 2,
            ]
        )
        below = scale
