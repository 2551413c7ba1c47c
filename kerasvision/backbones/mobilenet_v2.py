"""MobileNetV2 (Sandler et al. 2018)."""

import keras
import numpy as np
from keras import layers

from kerasvision.backbones.weights import assign, read_h5

URL = "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/"
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
    image_shape=(None, None, 3), width_multiplier=1.0, weights=None, batch_norm_momentum=0.99
):
    """MobileNetV2 without its classifier: 2,257,984 parameters at width 1.

    Sandler et al. 2018, table 2. Images go in as RGB, 0 to 255; they are normalised inside.

    Args:
        image_shape: (height, width, 3); a side may be None.
        width_multiplier: factor on the number of channels.
        weights: None; or "imagenet", the file of keras.applications, fetched by Keras; or
            the path of such a file (`.h5`), or of a NumPy archive (`.npz`) with the
            parameters of torchvision's `mobilenet_v2`. An archive brings its own
            normalisation, padding (one pixel on all sides before a stride, where Keras's
            files want it below and to the right) and batch norm epsilon (1e-5, not 1e-3).
        batch_norm_momentum: of the moving averages.

    Returns:
        A functional `keras.Model`; output (B, H/32, W/32, 1280) at width 1, sides rounded up.
        Its attribute `feature_taps` holds the last tensor of strides "stride2" to "stride32";
        of strides 4, 8 and 16 it is the expansion of the next bottleneck, six times as wide
        as its input: what SSDLite reads (section 6.2).
    """
    torchvision = weights is not None and str(weights).endswith(".npz")

    def convolution(x, filters, kernel_size, name, bn_name, stride=1, activate=True):
        if stride == 2:
            size = ((1, 1), (1, 1)) if torchvision else _pad_below_right(x)
            x = layers.ZeroPadding2D(size, name=f"{name}_pad")(x)
        padding = "valid" if stride == 2 else "same"
        if filters is None:
            x = layers.DepthwiseConv2D(
                kernel_size,
                stride,
                padding=padding,
                use_bias=False,
                name=name,
                depthwise_initializer="he_normal",
            )(x)
        else:
            x = layers.Conv2D(
                filters,
                kernel_size,
                stride,
                padding=padding,
                use_bias=False,
                name=name,
                kernel_initializer="he_normal",
            )(x)
        x = layers.BatchNormalization(
            momentum=batch_norm_momentum, epsilon=1e-5 if torchvision else 1e-3, name=bn_name
        )(x)
        return layers.ReLU(6.0, name=f"{bn_name}_relu")(x) if activate else x

    images = keras.Input(image_shape, name="images")
    if torchvision:
        mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
        x = layers.Rescaling((1 / (255 * std)).tolist(), (-mean / std).tolist(), name="normalize")(
            images
        )
    else:
        x = layers.Rescaling(1 / 127.5, -1.0, name="normalize")(images)

    x = convolution(x, round_channels(32 * width_multiplier), 3, "Conv1", "bn_Conv1", stride=2)
    taps, stride, block = {}, 2, 0
    for t, c, n, s in BOTTLENECKS:
        for repeat in range(n):
            # The names of keras.applications, so that its files load by name.
            name = f"block_{block}" if block else "expanded_conv"
            filters = round_channels(c * width_multiplier)
            block_stride = s if repeat == 0 else 1
            shortcut = x
            if t > 1:
                x = convolution(x, x.shape[-1] * t, 1, f"{name}_expand", f"{name}_expand_BN")
            if block_stride == 2:
                taps[f"stride{stride}"] = x
                stride *= 2
            x = convolution(
                x, None, 3, f"{name}_depthwise", f"{name}_depthwise_BN", stride=block_stride
            )
            x = convolution(x, filters, 1, f"{name}_project", f"{name}_project_BN", activate=False)
            if block_stride == 1 and shortcut.shape[-1] == filters:
                x = layers.Add(name=f"{name}_add")([shortcut, x])
            block += 1
    x = convolution(
        x,
        round_channels(1280 * width_multiplier) if width_multiplier > 1 else 1280,
        1,
        "Conv_1",
        "Conv_1_bn",
    )
    taps["stride32"] = x
    model = keras.Model(images, x, name="mobilenet_v2")
    model.feature_taps = taps

    if torchvision:
        assign(model, _from_torchvision(weights), weights)
    elif weights is not None:
        path = weights
        if weights == "imagenet":
            if width_multiplier not in WIDTHS:
                raise ValueError(
                    f"weights='imagenet' exist for width_multiplier in {WIDTHS}; "
                    f"received: {width_multiplier}"
                )
            file = (
                "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_"
                f"{float(width_multiplier)}_224_no_top.h5"
            )
            path = keras.utils.get_file(file, URL + file, cache_subdir="models")
        assign(model, read_h5(path), path)
    return model


def _pad_below_right(x):
    """What keras.applications pads before a stride of 2: odd sides get one more pixel above."""
    return tuple((0 if side is None or side % 2 == 0 else 1, 1) for side in x.shape[1:3])


def _from_torchvision(path):
    """The arrays of torchvision's state dict under the layer names used here."""
    try:
        archive = np.load(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not a readable NumPy archive; received: {error}") from None
    if "features.0.0.weight" not in archive:
        raise ValueError(
            f"{path}: not a MobileNetV2 state dict of torchvision; "
            f"received arrays: {list(archive)[:3]}"
        )

    weights = {}

    def take(source, name, source_bn, bn_name):
        kernel = archive[f"{source}.weight"]
        # OIHW to HWIO; a depthwise kernel is (channels, 1, h, w), in Keras (h, w, channels, 1).
        axes = (2, 3, 0, 1) if kernel.shape[1] == 1 and kernel.shape[2] == 3 else (2, 3, 1, 0)
        weights[name] = [kernel.transpose(axes)]
        weights[bn_name] = [
            archive[f"{source_bn}.{part}"]
            for part in ("weight", "bias", "running_mean", "running_var")
        ]

    take("features.0.0", "Conv1", "features.0.1", "bn_Conv1")
    for block in range(17):
        name = f"block_{block}" if block else "expanded_conv"
        source = f"features.{block + 1}.conv"
        first = 0
        if block:
            take(f"{source}.0.0", f"{name}_expand", f"{source}.0.1", f"{name}_expand_BN")
            first = 1
        take(
            f"{source}.{first}.0",
            f"{name}_depthwise",
            f"{source}.{first}.1",
            f"{name}_depthwise_BN",
        )
        take(
            f"{source}.{first + 1}",
            f"{name}_project",
            f"{source}.{first + 2}",
            f"{name}_project_BN",
        )
    take("features.18.0", "Conv_1", "features.18.1", "Conv_1_bn")
    return weights
