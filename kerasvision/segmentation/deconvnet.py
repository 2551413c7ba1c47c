"""DeconvNet (Noh, Hong and Han 2015, "Learning Deconvolution Network for Semantic Segmentation").

VGG-16 down to a single vector of the whole picture, and its mirror image back: unpoolings that go
back to where the maxima were, each followed by transposed convolutions ("deconvolutions").
"""

import keras
from keras import layers

from kerasvision.backbones.inputs import image_input
from kerasvision.backbones.vgg import CHANNELS, DEPTHS
from kerasvision.layers import MaxUnpooling2D
from kerasvision.segmentation.segmenter import Segmenter, in_float32
from kerasvision.segmentation.vgg_encoder import (
    convolution,
    encode,
    load_vgg16,
    normalize,
    normalized_relu,
)


def deconvnet(
    num_classes,
    image_shape=(224, 224, 3),
    backbone_weights=None,
    class_names=None,
    class_weights=None,
    units=4096,
    batch_norm_momentum=0.9,
):
    """DeconvNet: 251,805,653 trainable parameters with 21 classes, of 224x224 pixels.

    Section 3 and the table of its supplement ("Configuration"). 251,772,245 of them are not of
    batch normalisations.

    Args:
        num_classes: C.
        image_shape: (height, width, 3), any size from 32 pixels. "fc6" sees the whole last map,
            7x7 cells in the paper: another size has another number of parameters.
        backbone_weights: as the `weights` of `kerasvision.backbones.vgg16`, for the convolutions
            of the encoder; see `fit_batch_norm`.
        class_names, class_weights: as in `Segmenter`.
        units: channels of "fc6" and "fc7".
        batch_norm_momentum: of the moving averages.

    Returns:
        `Segmenter`.

    Raises:
        ValueError: images too small, or a weight file of another network.
    """
    images = image_input(image_shape, min_side=32, any_size=False)
    maps, indices, sizes = encode(normalize(images, backbone_weights), batch_norm_momentum)
    x = maps[-1]
    whole = tuple(x.shape[1:3])
    x = convolution(x, units, whole, "fc6", batch_norm_momentum, padding="valid")
    x = convolution(x, units, 1, "fc7", batch_norm_momentum)
    x = deconvolution(x, CHANNELS[-1], whole, "fc6_deconv", batch_norm_momentum, padding="valid")
    for block in range(5, 0, -1):
        x = MaxUnpooling2D(2, padding="same", output_size=sizes[block - 1], name=f"unpool{block}")(
            x, indices[block - 1]
        )
        depth, channels = DEPTHS["vgg16"][block - 1], CHANNELS[block - 1]
        for i in range(1, depth + 1):
            if i == depth and block > 1:
                channels = CHANNELS[block - 2]
            x = deconvolution(x, channels, 3, f"deconv{block}_{i}", batch_norm_momentum)
    logits = layers.Conv2D(num_classes, 1, kernel_initializer="he_normal", name="scores")(x)
    network = keras.Model(images, in_float32(logits), name="network")
    load_vgg16(network, backbone_weights)
    return Segmenter(network, class_names, class_weights, name="deconvnet")


def deconvolution(x, filters, kernel_size, name, batch_norm_momentum, padding="same"):
    """Transposed convolution of stride 1, batch normalisation and ReLU (section 3.2.2)."""
    x = layers.Conv2DTranspose(
        filters, kernel_size, padding=padding, kernel_initializer="he_normal", name=name
    )(x)
    return normalized_relu(x, name, batch_norm_momentum)
