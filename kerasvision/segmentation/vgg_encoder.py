"""The thirteen convolutions of VGG-16, which FCN, SegNet and DeconvNet all start from."""

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
