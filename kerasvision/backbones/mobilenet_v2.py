"""MobileNetV2 (Sandler et al. 2018)."""

import keras
from keras import layers

from kerasvision.backbones.inputs import image_input, minus_one_to_one, standardize
from kerasvision.backbones.weights import (
    assign,
    fetch_imagenet,
    from_state_dict,
    is_state_dict,
    read_h5,
    read_state_dict,
)

URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/"
    "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{width}_224{top}.h5"
)
WIDTHS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)  # those with published weights

# Table 2 of the paper: expansion factor t, channels c, repeats n, stride s.
BOTTLENECKS = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
]


def round_channels(channels):
    """The multiple of 8 nearest to `channels`, at least 8 and at least 90 % of it."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def mobilenet_v2(
    image_shape=(224, 224, 3),
    num_classes=1000,
    include_top=True,
    weights=None,
    width_multiplier=1.0,
    dropout_rate=0.2,
    batch_norm_momentum=0.9,
    classifier_activation="softmax",
):
    """MobileNetV2: 3,538,984 parameters, 2,257,984 without the classifier, at width 1.

    Sandler et al. 2018, table 2. Images go in as RGB, 0 to 255; they are normalised inside.

    Args:
        image_shape: (height, width, 3), any size from 32 pixels; a side may be None.
        num_classes: of the classifier.
        include_top: False: without the average pooling and the classifier.
        weights: None; or "imagenet", the file of keras.applications, fetched by Keras; or the
            path of such a file (`.h5`); or of a state dict (`.npz`, `.safetensors`) with the
            parameter names of torchvision's `mobilenet_v2` or timm's `mobilenetv2_100`. A state
            dict brings its own normalisation, padding (one pixel on all sides before a stride,
            where Keras's files want it below and to the right) and batch norm epsilon (1e-5,
            not 1e-3).
        width_multiplier: factor on the number of channels.
        dropout_rate: before the classifier, as the authors' code and torchvision have it; the
            paper names none, and keras.applications has none.
        batch_norm_momentum: of the moving averages.
        classifier_activation: of the classifier; None: logits.

    Returns:
        A functional `keras.Model`; output (B, num_classes), or without the classifier
        (B, H/32, W/32, 1280) at widths up to 1, sides rounded up. Its attribute `feature_taps`
        holds the last tensor of strides "stride2" to "stride32"; of strides 2 to 16 it is the
        expansion of the next bottleneck, six times as wide as its input: what SSDLite reads
        (section 6.2).

    Raises:
        ValueError: an argument out of range, or a weight file that isn't of this network.
    """
    if weights == "imagenet" and width_multiplier not in WIDTHS:
        raise ValueError(
            f"weights='imagenet' exist for width_multiplier in {WIDTHS}; "
            f"received: {width_multiplier}"
        )
    torch = is_state_dict(weights)

    def batch_norm_relu6(x, name, activate=True):
        x = layers.BatchNormalization(
            momentum=batch_norm_momentum, epsilon=1e-5 if torch else 1e-3, name=name
        )(x)
        return layers.ReLU(6.0, name=f"{name}_relu")(x) if activate else x

    def convolution(x, filters, kernel_size, name, bn_name, stride=1, activate=True):
        x, padding = pad(x, stride, name)
        x = layers.Conv2D(
            filters,
            kernel_size,
            stride,
            padding=padding,
            use_bias=False,
            kernel_initializer="he_normal",
            name=name,
        )(x)
        return batch_norm_relu6(x, bn_name, activate)

    def depthwise_convolution(x, name, stride):
        x, padding = pad(x, stride, name)
        x = layers.DepthwiseConv2D(
            3,
            stride,
            padding=padding,
            use_bias=False,
            depthwise_initializer="he_normal",
            name=name,
        )(x)
        return batch_norm_relu6(x, f"{name}_BN")

    def pad(x, stride, name):
        if torch and stride == 2:
            return layers.ZeroPadding2D(1, name=f"{name}_pad")(x), "valid"
        return x, "same"

    images = image_input(image_shape, min_side=32)
    x = standardize(images) if torch else minus_one_to_one(images)
    x = convolution(x, round_channels(32 * width_multiplier), 3, "Conv1", "bn_Conv1", stride=2)
    taps, total_stride, block = {}, 2, 0
    for t, c, n, s in BOTTLENECKS:
        filters = round_channels(c * width_multiplier)
        for repeat in range(n):
            # The names of keras.applications, so that its files load by name.
            name = f"block_{block}" if block else "expanded_conv"
            stride = s if repeat == 0 else 1
            shortcut = x
            if t > 1:
                x = convolution(x, x.shape[-1] * t, 1, f"{name}_expand", f"{name}_expand_BN")
            if stride == 2:
                taps[f"stride{total_stride}"] = x
                total_stride *= 2
            x = depthwise_convolution(x, f"{name}_depthwise", stride)
            # The bottleneck is linear (section 3.2).
            x = convolution(x, filters, 1, f"{name}_project", f"{name}_project_BN", activate=False)
            if stride == 1 and shortcut.shape[-1] == filters:
                x = layers.Add(name=f"{name}_add")([shortcut, x])
            block += 1
    # Narrow networks keep the width of the last layer.
    x = convolution(x, round_channels(1280 * max(1.0, width_multiplier)), 1, "Conv_1", "Conv_1_bn")
    taps["stride32"] = x

    if include_top:
        x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
        x = layers.Dropout(dropout_rate, name="dropout")(x)
        x = layers.Dense(
            num_classes, activation=classifier_activation, dtype="float32", name="predictions"
        )(x)
    model = keras.Model(images, x, name="mobilenet_v2")
    model.feature_taps = taps

    if torch:
        assign(model, from_state_dict(model, weights, _modules(weights).get), weights)
    elif weights is not None:
        path = weights
        if weights == "imagenet":
            url = URL.format(width=float(width_multiplier), top="" if include_top else "_no_top")
            path = fetch_imagenet(url, include_top, num_classes)
        assign(model, read_h5(path), path)
    return model


def _modules(path):
    """The module behind each layer, as torchvision names it, or timm where the file has its names.

    Returns:
        dict: layer name to module name.
    """
    timm = "conv_stem.weight" in read_state_dict(path)
    ends = (
        ["conv_stem", "bn1", "conv_head", "bn2", "classifier"]
        if timm
        else ["features.0.0", "features.0.1", "features.18.0", "features.18.1", "classifier.1"]
    )
    modules = dict(zip(["Conv1", "bn_Conv1", "Conv_1", "Conv_1_bn", "predictions"], ends))
    places = [(stage, i) for stage, (_, _, n, _) in enumerate(BOTTLENECKS) for i in range(n)]
    for block, (stage, repeat) in enumerate(places):
        # torchvision numbers the bottlenecks through, timm stage by stage.
        name = f"block_{block}" if block else "expanded_conv"
        source = f"blocks.{stage}.{repeat}" if timm else f"features.{block + 1}.conv"
        if timm:
            convolutions = ["conv_pw", "conv_dw", "conv_pwl"] if block else ["conv_dw", "conv_pw"]
            norms = ["bn1", "bn2", "bn3"]
        else:
            convolutions = ["0.0", "1.0", "2"] if block else ["0.0", "1"]
            norms = ["0.1", "1.1", "3"] if block else ["0.1", "2"]
        # The first bottleneck has nothing to expand.
        parts = ["expand", "depthwise", "project"] if block else ["depthwise", "project"]
        for part, convolution, norm in zip(parts, convolutions, norms):
            modules[f"{name}_{part}"] = f"{source}.{convolution}"
            modules[f"{name}_{part}_BN"] = f"{source}.{norm}"
    return modules
