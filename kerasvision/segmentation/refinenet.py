"""RefineNet (Lin, Milan, Shen and Reid 2017, "RefineNet: Multi-Path Refinement Networks for
High-Resolution Semantic Segmentation").

Four blocks go from the coarsest map of a ResNet to the finest: each refines its maps by residual
units, fuses them with what the block before it found, and pools context in a chain.
"""

import keras
from keras import layers

from kerasvision.backbones.mobilenet_v2 import mobilenet_v2
from kerasvision.backbones.resnet import headless_resnet50, resnet101
from kerasvision.segmentation.segmenter import Segmenter


def refinenet_resnet50(
    num_classes,
    image_shape=(480, 480, 3),
    backbone_weights=None,
    class_names=None,
    class_weights=None,
):
    """RefineNet on ResNet-50.

    Args:
        num_classes: C.
        image_shape: (height, width, 3), multiples of 32.
        backbone_weights: as the `weights` of `kerasvision.backbones.resnet50`.
        class_names, class_weights: as in `Segmenter`.

    Returns:
        `Segmenter`.

    Raises:
        ValueError: other sides, or a weight file of another network.
    """
    backbone = headless_resnet50(image_shape, backbone_weights)
    return refinenet(backbone, num_classes, class_names, class_weights)


def refinenet_resnet101(
    num_classes,
    image_shape=(480, 480, 3),
    backbone_weights=None,
    class_names=None,
    class_weights=None,
):
    """RefineNet on ResNet-101, as in most of the paper's tables.

    Arguments, return value and errors as of `refinenet_resnet50`.
    """
    backbone = resnet101(image_shape, include_top=False, weights=backbone_weights)
    return refinenet(backbone, num_classes, class_names, class_weights)


def refinenet_mobilenet_v2(
    num_classes,
    image_shape=(480, 480, 3),
    backbone_weights=None,
    class_names=None,
    class_weights=None,
    filters=64,
    batch_norm_momentum=0.97,
):
    """RefineNet on MobileNetV2, for phones and CPUs.

    Arguments, return value and errors as of `refinenet_resnet50`, and

    Args:
        filters: as in `refinenet`.
        batch_norm_momentum: of the backbone's moving averages.
    """
    backbone = mobilenet_v2(
        image_shape,
        include_top=False,
        weights=backbone_weights,
        batch_norm_momentum=batch_norm_momentum,
    )
    return refinenet(backbone, num_classes, class_names, class_weights, filters)


def refinenet(backbone, num_classes, class_names=None, class_weights=None, filters=256):
    """4-cascaded RefineNet on any backbone.

    Section 3 and figures 2 and 3 of the paper.

    Args:
        backbone: functional `keras.Model` from images of known size, multiples of 32, with
            `feature_taps` of strides 4, 8, 16 and 32.
        num_classes: C.
        class_names, class_weights: as in `Segmenter`.
        filters: channels of the blocks; the first, RefineNet-4, has twice as many.

    Returns:
        `Segmenter`, whose logits are upsampled bilinearly from stride 4.

    Raises:
        ValueError: sides that aren't multiples of 32.
    """
    height, width = backbone.input_shape[1:3]
    if height is None or width is None or height % 32 or width % 32:
        raise ValueError(
            "image_shape must have sides that are multiples of 32; "
            f"received: {backbone.input_shape[1:]}"
        )
    x = None
    for block, stride in zip((4, 3, 2, 1), (32, 16, 8, 4)):
        channels = 2 * filters if block == 4 else filters
        name = f"refine{block}"
        paths = [convolution(backbone.feature_taps[f"stride{stride}"], channels, f"{name}_adapt")]
        if x is not None:
            paths.append(x)
        x = refine(paths, channels, name)
    # The blocks are three residual units apart; so are the last one and the scores.
    for i in (1, 2):
        x = residual_unit(x, f"scores_unit{i}")
    x = layers.Dropout(0.5, name="dropout")(x)
    x = convolution(x, num_classes, "scores", keras.initializers.RandomNormal(stddev=0.01))
    x = layers.Resizing(height, width, interpolation="bilinear", dtype="float32", name="logits")(x)
    network = keras.Model(backbone.input, x, name="network")
    return Segmenter(network, class_names, class_weights, name="refinenet")


def refine(paths, filters, name):
    """One RefineNet block (figure 3a).

    Args:
        paths: maps of one or two scales, the finest first.
        filters: channels of what it returns.
        name: in front of its layers' names.

    Returns:
        A map of the finest scale.
    """
    refined = []
    for place, x in enumerate(paths, start=1):
        for i in (1, 2):
            x = residual_unit(x, f"{name}_path{place}_unit{i}")
        refined.append(x)
    x = chained_residual_pooling(fuse(refined, filters, name), name)
    return residual_unit(x, f"{name}_output_unit")


def residual_unit(x, name):
    """Residual convolution unit: of ResNet's, without batch normalisation (figure 3b).

    At first it changes nothing: left random, the twenty of them make the maps of a MobileNetV2
    seven times as large, and the first loss 110.
    """
    y = layers.ReLU(name=f"{name}_relu1")(x)
    y = convolution(y, x.shape[-1], f"{name}_conv1")
    y = layers.ReLU(name=f"{name}_relu2")(y)
    y = convolution(y, x.shape[-1], f"{name}_conv2", "zeros")
    return layers.Add(name=f"{name}_add")([x, y])


def fuse(maps, filters, name):
    """Multi-resolution fusion: all at the finest scale, added (figure 3c)."""
    if len(maps) == 1:
        return maps[0]
    size = maps[0].shape[1:3]
    fused = []
    for place, x in enumerate(maps, start=1):
        x = convolution(x, filters, f"{name}_fuse{place}")
        if x.shape[1:3] != size:
            x = layers.Resizing(*size, interpolation="bilinear", name=f"{name}_upsample{place}")(x)
        fused.append(x)
    return layers.Add(name=f"{name}_fused")(fused)


def chained_residual_pooling(x, name):
    """Context from a chain of poolings, each learning how much of it to add (figure 3d)."""
    x = layers.ReLU(name=f"{name}_pooling_relu")(x)
    pooled = x
    for i in (1, 2):
        pooled = layers.MaxPooling2D(5, 1, padding="same", name=f"{name}_pooling{i}")(pooled)
        pooled = convolution(pooled, x.shape[-1], f"{name}_pooling{i}_conv")
        x = layers.Add(name=f"{name}_pooling{i}_add")([x, pooled])
    return x


def convolution(x, filters, name, kernel_initializer="glorot_uniform"):
    """3x3 convolution that keeps the size."""
    return layers.Conv2D(
        filters, 3, padding="same", kernel_initializer=kernel_initializer, name=name
    )(x)
