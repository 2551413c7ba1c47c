"""Darknet-19 (Redmon & Farhadi 2017), Darknet-53 (Redmon & Farhadi 2018) and the tiny Darknet.

The trunks of YOLOv2, YOLOv3 and YOLOv3-tiny. Layers are called conv0, conv1, … in the order of
Darknet's own files, which `darknet_weights` reads.
"""

import pathlib

import keras
from keras import layers

from kerasvision.backbones.darknet_weights import load_darknet_weights
from kerasvision.backbones.inputs import image_input
from kerasvision.backbones.weights import assign, read_h5

MOMENTUM = 0.99  # of the authors' moving averages

# Table 6 of YOLO9000: filters of the convolutions between two poolings, 3x3 and 1x1 in turn.
DARKNET19 = [
    [32],
    [64],
    [128, 64, 128],
    [256, 128, 256],
    [512, 256, 512, 256, 512],
    [1024, 512, 1024, 512, 1024],
]
# Table 1 of YOLOv3: filters and residual blocks of the stages behind the first convolution.
DARKNET53 = [(64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)]
TINY = [16, 32, 64, 128, 256, 512]


def darknet19(
    image_shape=(224, 224, 3),
    num_classes=1000,
    include_top=True,
    weights=None,
    batch_norm_momentum=MOMENTUM,
    classifier_activation="softmax",
):
    """Darknet-19: 20,842,376 trainable parameters, 19,817,376 without the classifier.

    Redmon & Farhadi 2017, table 6. Images go in as RGB, 0 to 255; they are normalised inside.

    Args:
        image_shape: (height, width, 3), any size from 32 pixels; a side may be None.
        num_classes: of the classifier.
        include_top: False: without the classifier and the average pooling.
        weights: None; or the path of a Darknet file (`.weights`), which without the classifier
            may go on behind the last layer; or of one with the parameters of this network (`.h5`).
        batch_norm_momentum: of the moving averages.
        classifier_activation: of the classifier; None: logits.

    Returns:
        A functional `keras.Model`; output (B, num_classes), or else (B, H/32, W/32, 1024), sides
        rounded up. Its attribute `feature_taps` holds the last maps of each stride, "stride2" to
        "stride32".

    Raises:
        ValueError: an argument out of range, or weights of another network.
    """
    images, x = _normalized(image_shape)
    taps, number = {}, 0
    for stage, stage_filters in enumerate(DARKNET19):
        if stage > 0:
            x = layers.MaxPooling2D(2, padding="same", name=f"pool{stage}")(x)
        for i, filters in enumerate(stage_filters):
            x = convolution(
                x, filters, (3, 1)[i % 2], f"conv{number}", momentum=batch_norm_momentum
            )
            number += 1
        if stage > 0:
            taps[f"stride{2**stage}"] = x
    if include_top:
        x = layers.Conv2D(num_classes, 1, dtype="float32", name="predictions")(x)
        x = layers.GlobalAveragePooling2D(dtype="float32", name="avg_pool")(x)
        x = layers.Activation(classifier_activation, dtype="float32", name="probabilities")(x)
    return _finish(keras.Model(images, x, name="darknet19"), taps, weights, include_top)


def darknet53(
    image_shape=(256, 256, 3),
    num_classes=1000,
    include_top=True,
    weights=None,
    batch_norm_momentum=MOMENTUM,
    classifier_activation="softmax",
):
    """Darknet-53: 41,609,928 trainable parameters, 40,584,928 without the classifier.

    Redmon & Farhadi 2018, table 1. Arguments, taps and errors as in `darknet19`.
    """

    def numbered_convolution(x, filters, kernel_size, stride=1):
        name = f"conv{next(numbers)}"
        return convolution(x, filters, kernel_size, name, stride, batch_norm_momentum)

    numbers = iter(range(52))
    images, x = _normalized(image_shape)
    x = numbered_convolution(x, 32, 3)
    taps = {}
    for stage, (filters, blocks) in enumerate(DARKNET53, start=1):
        x = numbered_convolution(x, filters, 3, stride=2)
        for block in range(blocks):
            shortcut = x
            x = numbered_convolution(x, filters // 2, 1)
            x = numbered_convolution(x, filters, 3)
            x = layers.Add(name=f"stage{stage}_add{block}")([shortcut, x])
        taps[f"stride{2**stage}"] = x
    if include_top:
        x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
        x = layers.Dense(
            num_classes, activation=classifier_activation, dtype="float32", name="predictions"
        )(x)
    return _finish(keras.Model(images, x, name="darknet53"), taps, weights, include_top)


def darknet_tiny(
    image_shape=(224, 224, 3),
    num_classes=1000,
    include_top=True,
    weights=None,
    batch_norm_momentum=MOMENTUM,
    classifier_activation="softmax",
):
    """The trunk of YOLOv3-tiny: 7,319,416 trainable parameters, 6,294,416 without classifier.

    Darknet's reference network (darknet.cfg of the authors). As a classifier it halves the maps a
    sixth time, as a trunk its last pooling strides no more (yolov3-tiny.cfg). Arguments, taps and
    errors as in `darknet19`.
    """
    images, x = _normalized(image_shape)
    taps = {}
    for number, filters in enumerate(TINY):
        x = convolution(x, filters, 3, f"conv{number}", momentum=batch_norm_momentum)
        if number > 0:
            taps[f"stride{2**number}"] = x
        stride = 1 if number == 5 and not include_top else 2
        x = layers.MaxPooling2D(2, stride, padding="same", name=f"pool{number + 1}")(x)
    x = convolution(x, 1024, 3, "conv6", momentum=batch_norm_momentum)
    if include_top:
        x = layers.Conv2D(num_classes, 1, dtype="float32", name="predictions")(x)
        x = layers.LeakyReLU(0.1, dtype="float32", name="predictions_leaky")(x)
        x = layers.GlobalAveragePooling2D(dtype="float32", name="avg_pool")(x)
        x = layers.Activation(classifier_activation, dtype="float32", name="probabilities")(x)
    else:
        taps["stride32"] = x
    return _finish(keras.Model(images, x, name="darknet_tiny"), taps, weights, include_top)


def convolution(x, filters, kernel_size, name, stride=1, momentum=MOMENTUM):
    """Convolution, batch normalisation and leaky ReLU: Darknet's unit, in its networks and heads.

    Args:
        x: (B, H, W, D).
        filters: number of channels of the result.
        kernel_size: side of the filters, odd; maps are padded by half of it on all sides.
        name: of the convolution; "_bn" and "_leaky" are appended for the others.
        stride: 1 or 2.
        momentum: of the moving averages.

    Returns:
        (B, H / stride, W / stride, filters), sides rounded up.
    """
    if stride == 2:
        # "same" would pad one pixel less above and to the left.
        x = layers.ZeroPadding2D(kernel_size // 2, name=f"{name}_pad")(x)
    x = layers.Conv2D(
        filters,
        kernel_size,
        stride,
        padding="same" if stride == 1 else "valid",
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )(x)
    x = layers.BatchNormalization(momentum=momentum, epsilon=1e-5, name=f"{name}_bn")(x)
    return layers.LeakyReLU(0.1, name=f"{name}_leaky")(x)


def _normalized(image_shape):
    """The input, and its pixels from 0 to 1."""
    images = image_input(image_shape, min_side=32)
    return images, layers.Rescaling(1 / 255, dtype="float32", name="normalize")(images)


def _finish(model, taps, weights, include_top):
    model.feature_taps = taps
    if weights is not None and pathlib.Path(weights).suffix == ".weights":
        load_darknet_weights(model, weights, may_go_on=not include_top)
    elif weights is not None:
        assign(model, read_h5(weights), weights)
    return model
