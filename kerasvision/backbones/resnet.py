"""Residual networks (He et al. 2015)."""

import re

import keras
from keras import layers

from kerasvision.backbones.inputs import image_input, standardize, subtract_mean
from kerasvision.backbones.weights import (
    assign,
    fetch_imagenet,
    from_state_dict,
    is_state_dict,
    read_h5,
)

URL = "https://storage.googleapis.com/tensorflow/keras-applications/resnet/"


def resnet18(
    image_shape=(224, 224, 3),
    num_classes=1000,
    include_top=True,
    weights=None,
    width=64,
    depths=(2, 2, 2, 2),
    output_stride=32,
    batch_norm_momentum=0.9,
    classifier_activation="softmax",
    stem_kernel_size=7,
):
    """ResNet-18: 11,689,512 trainable parameters.

    He et al. 2015, table 1, its blocks as in figure 5 left, shortcuts of option B. Images go in
    as RGB, 0 to 255; they are normalised inside.

    Args:
        image_shape: (height, width, 3), at least 32; a side may be None.
        num_classes: outputs of the classifier.
        include_top: False: without global average pooling and classifier.
        weights: None; or the path of a file with the parameters of torchvision's `resnet18`
            (`.npz`, `.safetensors`), or with those of this network (`.h5`).
        width: channels of the first stage, doubled at each of the next three.
        depths: residual blocks of the four stages.
        output_stride: 32; or 16 or 8: the last stage or the last two dilate their filters
            instead of striding, as DeepLab (Chen et al. 2017, section 3.1) does. Parameters
            stay the same, and every second pixel (fourth, in both directions) is what the
            network of stride 32 gives.
        batch_norm_momentum: of the moving averages.
        classifier_activation: of the classifier; None: logits.
        stem_kernel_size: side of the first convolution's filters. ScratchDet (Zhu et al. 2019,
            section 3.3): those of 7 pixels lose too much of a small picture, 3 are better.

    Returns:
        A functional `keras.Model`; output (B, num_classes), or else (B, H/32, W/32, 8 * width),
        sides rounded up. Its attribute `feature_taps` holds the first convolution's maps,
        "stride2", and the last maps of each stride up to `output_stride`: "stride4", ….

    Raises:
        ValueError: a stride other than these, or weights of another network.
    """
    return _resnet(
        "resnet18",
        image_shape,
        num_classes,
        include_top,
        weights,
        width,
        depths,
        output_stride,
        batch_norm_momentum,
        classifier_activation,
        stem_kernel_size=stem_kernel_size,
    )


def resnet34(
    image_shape=(224, 224, 3),
    num_classes=1000,
    include_top=True,
    weights=None,
    width=64,
    depths=(3, 4, 6, 3),
    output_stride=32,
    batch_norm_momentum=0.9,
    classifier_activation="softmax",
):
    """ResNet-34: 21,797,672 trainable parameters; all else as in `resnet18`."""
    return _resnet(
        "resnet34",
        image_shape,
        num_classes,
        include_top,
        weights,
        width,
        depths,
        output_stride,
        batch_norm_momentum,
        classifier_activation,
    )


def resnet50(
    image_shape=(224, 224, 3),
    num_classes=1000,
    include_top=True,
    weights=None,
    width=64,
    depths=(3, 4, 6, 3),
    output_stride=32,
    stride_in_1x1=None,
    use_bias=None,
    batch_norm_momentum=0.9,
    classifier_activation="softmax",
):
    """ResNet-50: 25,636,712 parameters, 25,557,032 trainable ones without the biases.

    He et al. 2015, table 1, its bottlenecks as in figure 5 right, shortcuts of option B. There
    are two of this name: the paper's and keras.applications' strides in the first convolution of
    a bottleneck, 1x1, and torchvision's, also known as v1.5, in the second, 3x3. Only
    keras.applications' has biases in front of its batch normalisations.

    Args:
        weights: None; "imagenet", the file of keras.applications, fetched by Keras; the path
            of such a file (`.h5`); or of one with the parameters of torchvision's `resnet50`
            (`.npz`, `.safetensors`), which brings its own normalisation of the images.
        stride_in_1x1: whether the 1x1 or the 3x3 convolution strides. None: as the weights
            want it; without weights, the 1x1.
        use_bias: whether convolutions have biases. None: as the weights want it; without
            weights, they have.
        All others as in `resnet18`.

    Returns:
        As `resnet18`, four times as wide.

    Raises:
        ValueError: an argument contradicts the weights; and as `resnet18`.
    """
    return _resnet(
        "resnet50",
        image_shape,
        num_classes,
        include_top,
        weights,
        width,
        depths,
        output_stride,
        batch_norm_momentum,
        classifier_activation,
        bottleneck=True,
        stride_in_1x1=stride_in_1x1,
        use_bias=use_bias,
    )


def resnet101(
    image_shape=(224, 224, 3),
    num_classes=1000,
    include_top=True,
    weights=None,
    width=64,
    depths=(3, 4, 23, 3),
    output_stride=32,
    stride_in_1x1=None,
    use_bias=None,
    batch_norm_momentum=0.9,
    classifier_activation="softmax",
):
    """ResNet-101: 44,707,176 parameters, 44,549,160 trainable ones without the biases.

    All else as in `resnet50`.
    """
    return _resnet(
        "resnet101",
        image_shape,
        num_classes,
        include_top,
        weights,
        width,
        depths,
        output_stride,
        batch_norm_momentum,
        classifier_activation,
        bottleneck=True,
        stride_in_1x1=stride_in_1x1,
        use_bias=use_bias,
    )


def resnet152(
    image_shape=(224, 224, 3),
    num_classes=1000,
    include_top=True,
    weights=None,
    width=64,
    depths=(3, 8, 36, 3),
    output_stride=32,
    stride_in_1x1=None,
    use_bias=None,
    batch_norm_momentum=0.9,
    classifier_activation="softmax",
):
    """ResNet-152: 60,419,944 parameters, 60,192,808 trainable ones without the biases.

    All else as in `resnet50`.
    """
    return _resnet(
        "resnet152",
        image_shape,
        num_classes,
        include_top,
        weights,
        width,
        depths,
        output_stride,
        batch_norm_momentum,
        classifier_activation,
        bottleneck=True,
        stride_in_1x1=stride_in_1x1,
        use_bias=use_bias,
    )


def headless_resnet50(image_shape, weights):
    """ResNet-50 as detectors want it; without weights it is built as torchvision's.

    Args:
        image_shape, weights: as of `resnet50`.

    Returns:
        as `resnet50` without the classifier.
    """
    if weights is None:
        return resnet50(image_shape, include_top=False, stride_in_1x1=False, use_bias=False)
    return resnet50(image_shape, include_top=False, weights=weights)


def _resnet(
    name,
    image_shape,
    num_classes,
    include_top,
    weights,
    width,
    depths,
    output_stride,
    batch_norm_momentum,
    classifier_activation,
    bottleneck=False,
    stride_in_1x1=False,
    use_bias=False,
    stem_kernel_size=7,
):
    if output_stride not in (8, 16, 32):
        raise ValueError(f"output_stride must be 8, 16 or 32; received: {output_stride}")
    # Basic blocks come from torchvision only, bottlenecks from there or from keras.applications.
    torchvision = not bottleneck or is_state_dict(weights)
    for argument, value in [("stride_in_1x1", stride_in_1x1), ("use_bias", use_bias)]:
        if weights is not None and value not in (None, not torchvision):
            raise ValueError(
                f"{argument} must be {not torchvision} or None with weights={str(weights)!r}; "
                f"received: {value}"
            )
    stride_in_1x1 = not torchvision if stride_in_1x1 is None else stride_in_1x1
    use_bias = not torchvision if use_bias is None else use_bias

    def convolution(x, filters, kernel_size, name, stride=1, dilation=1, activate=True):
        if stride == 2 and kernel_size > 1:
            # "same" would pad one pixel less above and to the left.
            x = layers.ZeroPadding2D(kernel_size // 2, name=f"{name}_pad")(x)
        x = layers.Conv2D(
            filters,
            kernel_size,
            stride,
            padding="same" if stride == 1 else "valid",
            dilation_rate=dilation,
            use_bias=use_bias,
            kernel_initializer="he_normal",
            name=f"{name}_conv",
        )(x)
        x = layers.BatchNormalization(
            momentum=batch_norm_momentum,
            epsilon=1e-5 if torchvision else 1.001e-5,
            name=f"{name}_bn",
        )(x)
        return layers.ReLU(name=f"{name}_relu")(x) if activate else x

    def residual_block(x, filters, name, stride, first_dilation, dilation):
        shortcut = x
        outputs = 4 * filters if bottleneck else filters
        if x.shape[-1] != outputs:
            shortcut = convolution(x, outputs, 1, f"{name}_0", stride, activate=False)
        if not bottleneck:
            x = convolution(x, filters, 3, f"{name}_1", stride, first_dilation)
            x = convolution(x, filters, 3, f"{name}_2", 1, dilation, activate=False)
        else:
            if stride_in_1x1:
                x = convolution(x, filters, 1, f"{name}_1", stride)
                x = convolution(x, filters, 3, f"{name}_2", 1, dilation)
            else:
                x = convolution(x, filters, 1, f"{name}_1")
                x = convolution(x, filters, 3, f"{name}_2", stride, first_dilation)
            x = convolution(x, outputs, 1, f"{name}_3", activate=False)
        x = layers.Add(name=f"{name}_add")([shortcut, x])
        return layers.ReLU(name=f"{name}_out")(x)

    images = image_input(image_shape, min_side=32)
    x = standardize(images) if torchvision else subtract_mean(images)
    x = convolution(x, width, stem_kernel_size, "conv1", 2)
    taps = {"stride2": x}
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    x = layers.MaxPooling2D(3, 2, name="pool1_pool")(x)
    stride, dilation = 4, 1
    for stage, depth in enumerate(depths):
        block_stride, first_dilation = 1, dilation
        if stage > 0 and stride < output_stride:
            block_stride = 2
            stride *= 2
        elif stage > 0:
            # What would have strided still sees its input's pixels as they are; what follows
            # must look twice as far for the pixels that a stride would have left it.
            dilation *= 2
        for block in range(depth):
            x = residual_block(
                x,
                width * 2**stage,
                f"conv{stage + 2}_block{block + 1}",
                block_stride if block == 0 else 1,
                first_dilation if block == 0 else dilation,
                dilation,
            )
        taps[f"stride{stride}"] = x
    if include_top:
        x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
        x = layers.Dense(
            num_classes, activation=classifier_activation, dtype="float32", name="predictions"
        )(x)
    model = keras.Model(images, x, name=name)
    model.feature_taps = taps

    if is_state_dict(weights):
        assign(model, from_state_dict(model, weights, torchvision_module), weights)
    elif bottleneck and weights is not None:
        path = weights
        if weights == "imagenet":
            file = f"{name}_weights_tf_dim_ordering_tf_kernels{'' if include_top else '_notop'}.h5"
            path = fetch_imagenet(URL + file, include_top, num_classes)
        arrays = read_h5(path)
        if "conv1_conv" in arrays:
            # Its filters see BGR: turning them round costs nothing, turning pictures does.
            arrays["conv1_conv"][0] = arrays["conv1_conv"][0][:, :, ::-1]
        assign(model, arrays, path)
    elif weights == "imagenet":
        raise ValueError(
            "weights='imagenet' exist for resnet50, resnet101 and resnet152; "
            f"received them for {name}"
        )
    elif weights is not None:
        assign(model, read_h5(weights), weights)
    return model


def torchvision_module(name):
    """torchvision's name for the module that is layer `name` here."""
    if name == "predictions":
        return "fc"
    if name.startswith("conv1_"):
        return {"conv1_conv": "conv1", "conv1_bn": "bn1"}[name]
    stage, block, i, kind = re.fullmatch(r"conv(\d)_block(\d+)_(\d)_(conv|bn)", name).groups()
    module = f"{kind}{i}" if i != "0" else f"downsample.{0 if kind == 'conv' else 1}"
    return f"layer{int(stage) - 1}.{int(block) - 1}.{module}"
