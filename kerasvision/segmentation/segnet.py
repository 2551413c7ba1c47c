"""SegNet (Badrinarayanan, Kendall and Cipolla 2017, "SegNet: A Deep Convolutional
Encoder-Decoder Architecture for Image Segmentation").

The encoder is VGG-16. Its poolings remember where each maximum was, two bits a value, and each
pooling has an unpooling in the decoder that puts values back to these places: boundaries stay
sharp, without the encoder's maps being kept or learnt upsampling.
"""

import keras
from keras import layers

from kerasvision.backbones.inputs import image_input, standardize
from kerasvision.backbones.vgg import CHANNELS, DEPTHS
from kerasvision.layers import (
    LocalResponseNormalization,
    MaxPoolingWithIndices2D,
    MaxUnpooling2D,
)
from kerasvision.segmentation.segmenter import Segmenter, in_float32
from kerasvision.segmentation.vgg_encoder import (
    BATCH_NORM_EPSILON,
    convolution,
    encode,
    load_vgg16,
    normalize,
)


def segnet(
    num_classes,
    image_shape=(360, 480, 3),
    backbone_weights=None,
    class_names=None,
    class_weights=None,
    upsampling="indices",
    batch_norm_momentum=0.9,
):
    """SegNet: 29,449,355 trainable parameters with 11 classes, the encoder 14,723,136 of them.

    Section 3 and figure 2 of the paper.

    Args:
        num_classes: C.
        image_shape: (height, width, 3), any size from 32 pixels.
        backbone_weights: as the `weights` of `kerasvision.backbones.vgg16`, for the encoder; see
            `fit_batch_norm`.
        class_names, class_weights: as in `Segmenter`.
        upsampling: "indices": unpooling to where the maxima were; or "bilinear", with as many
            parameters, to compare it with.
        batch_norm_momentum: of the moving averages.

    Returns:
        `Segmenter`.

    Raises:
        ValueError: another upsampling, images too small, or a weight file of another network.
    """
    _check(upsampling)
    images = image_input(image_shape, min_side=32, any_size=False)
    maps, indices, sizes = encode(normalize(images, backbone_weights), batch_norm_momentum)
    x = maps[-1]
    for block in range(5, 0, -1):
        x = _upsample(x, indices[block - 1], sizes[block - 1], upsampling, f"unpool{block}")
        # As many convolutions as the encoder's block, the last one with the next block's channels.
        depth, channels = DEPTHS["vgg16"][block - 1], CHANNELS[block - 1]
        for i in range(depth, 1, -1):
            x = convolution(x, channels, 3, f"decoder{block}_conv{i}", batch_norm_momentum)
        if block > 1:
            channels = CHANNELS[block - 2]
            x = convolution(x, channels, 3, f"decoder{block}_conv1", batch_norm_momentum)
    logits = layers.Conv2D(
        num_classes, 3, padding="same", kernel_initializer="he_normal", name="decoder1_conv1"
    )(x)
    network = keras.Model(images, in_float32(logits), name="network")
    load_vgg16(network, backbone_weights)
    return Segmenter(network, class_names, class_weights, name="segnet")


def segnet_basic(
    num_classes,
    image_shape=(360, 480, 3),
    class_names=None,
    class_weights=None,
    upsampling="indices",
    batch_norm_momentum=0.9,
):
    """SegNet-Basic: 1,416,587 trainable parameters with 11 classes.

    Section 3.1: four encoders and four decoders of one 7x7 convolution of 64 channels each, for
    "a wide context". No ReLU in the decoders. The normalisation of local contrast that the
    authors' code does to its input is the one of local responses.

    Args:
        num_classes, class_names, class_weights, upsampling, batch_norm_momentum: as in `segnet`.
        image_shape: (height, width, 3), any size from 16 pixels.

    Returns:
        `Segmenter`.

    Raises:
        ValueError: another upsampling, or images too small.
    """
    _check(upsampling)
    images = image_input(image_shape, min_side=16, any_size=False)
    x = standardize(images)
    x = LocalResponseNormalization(5, alpha=1e-4, beta=0.75, name="norm")(x)
    indices, sizes = [], []
    for block in range(1, 5):
        x = convolution(x, 64, 7, f"encoder{block}_conv", batch_norm_momentum)
        sizes.append(tuple(x.shape[1:3]))
        x, places = MaxPoolingWithIndices2D(2, padding="same", name=f"encoder{block}_pool")(x)
        indices.append(places)
    for block in range(4, 0, -1):
        x = _upsample(x, indices[block - 1], sizes[block - 1], upsampling, f"unpool{block}")
        x = layers.Conv2D(
            64, 7, padding="same", kernel_initializer="he_normal", name=f"decoder{block}_conv"
        )(x)
        x = layers.BatchNormalization(
            momentum=batch_norm_momentum,
            epsilon=BATCH_NORM_EPSILON,
            name=f"decoder{block}_conv_bn",
        )(x)
    logits = layers.Conv2D(num_classes, 1, kernel_initializer="he_normal", name="classifier")(x)
    network = keras.Model(images, in_float32(logits), name="network")
    return Segmenter(network, class_names, class_weights, name="segnet_basic")


def _check(upsampling):
    if upsampling not in ("indices", "bilinear"):
        raise ValueError(f"upsampling must be 'indices' or 'bilinear'; received: {upsampling!r}")


def _upsample(x, indices, size, upsampling, name):
    """The map (B, h, w, C) at the size (H, W) of what was pooled to it."""
    if upsampling == "indices":
        return MaxUnpooling2D(2, padding="same", output_size=size, name=name)(x, indices)
    return layers.Resizing(*size, interpolation="bilinear", name=name)(x)
