"""Densely connected networks (Huang et al. 2017)."""

import re

import keras
from keras import layers

from kerasvision.backbones.inputs import image_input, standardize
from kerasvision.backbones.weights import (
    assign,
    fetch_imagenet,
    from_state_dict,
    is_state_dict,
    read_h5,
)

URL = "https://storage.googleapis.com/tensorflow/keras-applications/densenet/"


def densenet121(
    image_shape=(224, 224, 3),
    num_classes=1000,
    include_top=True,
    weights=None,
    growth_rate=32,
    depths=(6, 12, 24, 16),
    batch_norm_momentum=0.9,
    classifier_activation="softmax",
):
    """DenseNet-121: 8,062,504 parameters.

    Huang et al. 2017, table 1 (DenseNet-BC with compression 0.5). Images go in as RGB, 0 to
    255; they are normalised inside.

    Args:
        image_shape: (height, width, 3), at least 29; a side may be None.
        num_classes: outputs of the classifier.
        include_top: False: without global average pooling and classifier.
        weights: None; "imagenet", the file of keras.applications, fetched by Keras; the path
            of such a file (`.h5`); or of one with the parameters of torchvision's or timm's
            `densenet121` (`.npz`, `.safetensors`).
        growth_rate: maps that each layer adds.
        depths: layers of the four dense blocks.
        batch_norm_momentum: of the moving averages.
        classifier_activation: of the classifier; None: logits.

    Returns:
        A functional `keras.Model`; output (B, num_classes), or else (B, H/32, W/32, 1024).
        Its attribute `feature_taps` holds the first convolution's maps, "stride2", and all maps
        of each dense block, normalised, through ReLU: "stride4" to "stride32". Sides are
        rounded up to stride 4, and down from there on.

    Raises:
        ValueError: weights of another network.
    """
    return _densenet(
        "densenet121",
        image_shape,
        num_classes,
        include_top,
        weights,
        growth_rate,
        depths,
        batch_norm_momentum,
        classifier_activation,
    )


def densenet169(
    image_shape=(224, 224, 3),
    num_classes=1000,
    include_top=True,
    weights=None,
    growth_rate=32,
    depths=(6, 12, 32, 32),
    batch_norm_momentum=0.9,
    classifier_activation="softmax",
):
    """DenseNet-169: 14,307,880 parameters; all else as in `densenet121`, but 1,664 last maps."""
    return _densenet(
        "densenet169",
        image_shape,
        num_classes,
        include_top,
        weights,
        growth_rate,
        depths,
        batch_norm_momentum,
        classifier_activation,
    )


def densenet201(
    image_shape=(224, 224, 3),
    num_classes=1000,
    include_top=True,
    weights=None,
    growth_rate=32,
    depths=(6, 12, 48, 32),
    batch_norm_momentum=0.9,
    classifier_activation="softmax",
):
    """DenseNet-201: 20,242,984 parameters; all else as in `densenet121`, but 1,920 last maps."""
    return _densenet(
        "densenet201",
        image_shape,
        num_classes,
        include_top,
        weights,
        growth_rate,
        depths,
        batch_norm_momentum,
        classifier_activation,
    )


def cifar_densenet(
    image_shape=(32, 32, 3),
    num_classes=10,
    include_top=True,
    weights=None,
    depth=40,
    growth_rate=12,
    bottleneck=False,
    compression=1.0,
    dropout_rate=0.0,
    batch_norm_momentum=0.9,
    classifier_activation="softmax",
):
    """DenseNet-40 for small pictures, and deeper ones: 1,019,722 trainable parameters.

    Huang et al. 2017, section 3, "Implementation Details": three dense blocks of equal depth.
    DenseNet-BC (bottleneck, compression=0.5) has 769,162 trainable parameters with depth 100
    and growth rate 12, and 15,324,406 with 250 and 24. Images go in as RGB, 0 to 255; they are
    normalised inside.

    Args:
        image_shape: (height, width, 3), at least 4; a side may be None.
        num_classes: outputs of the classifier.
        include_top: False: without global average pooling and classifier.
        weights: None, or the path of a file with the parameters of this network (`.h5`).
        depth: layers with weights, 3n + 4, or 6n + 4 with bottlenecks.
        growth_rate: maps that each layer adds.
        bottleneck: whether a 1x1 convolution to 4 * growth_rate maps precedes each 3x3.
        compression: share of the maps that a transition leaves, from 0 to 1.
        dropout_rate: behind each convolution but the first; the paper has 0.2 where pictures
            aren't augmented.
        batch_norm_momentum: of the moving averages.
        classifier_activation: of the classifier; None: logits.

    Returns:
        A functional `keras.Model`; output (B, num_classes), or else (B, H/4, W/4, channels),
        sides rounded down. Its attribute `feature_taps` holds all maps of each dense block,
        normalised, through ReLU: "stride1", "stride2", "stride4".

    Raises:
        ValueError: a depth or compression other than these, or weights of another network.
    """
    convolutions = 2 if bottleneck else 1
    layers_per_block, rest = divmod(depth - 4, 3 * convolutions)
    if layers_per_block < 1 or rest:
        raise ValueError(
            f"depth must be {3 * convolutions}n + 4 with bottleneck={bottleneck}; received: {depth}"
        )
    if not 0 < compression <= 1:
        raise ValueError(f"compression must be in (0, 1]; received: {compression}")
    images = image_input(image_shape, min_side=4)
    x = layers.Conv2D(
        2 * growth_rate if bottleneck else 16,
        3,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name="conv1_conv",
    )(standardize(images))
    model = _dense_network(
        "cifar_densenet",
        images,
        x,
        1,
        [layers_per_block] * 3,
        growth_rate,
        bottleneck,
        compression,
        dropout_rate,
        batch_norm_momentum,
        epsilon=1e-5,
        num_classes=num_classes,
        include_top=include_top,
        classifier_activation=classifier_activation,
    )
    if weights is not None:
        assign(model, read_h5(weights), weights)
    return model


def _densenet(
    name,
    image_shape,
    num_classes,
    include_top,
    weights,
    growth_rate,
    depths,
    batch_norm_momentum,
    classifier_activation,
):
    epsilon = 1e-5 if is_state_dict(weights) else 1.001e-5  # as the weights were trained
    images = image_input(image_shape, min_side=29)
    x = layers.ZeroPadding2D(3, name="conv1_pad")(standardize(images))
    x = layers.Conv2D(
        2 * growth_rate,
        7,
        2,
        use_bias=False,
        kernel_initializer="he_normal",
        name="conv1_conv",
    )(x)
    x = stride2 = _batch_norm_relu(x, batch_norm_momentum, epsilon, "conv1_")
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    x = layers.MaxPooling2D(3, 2, name="pool1")(x)
    model = _dense_network(
        name,
        images,
        x,
        4,
        depths,
        growth_rate,
        bottleneck=True,
        compression=0.5,
        dropout_rate=0.0,
        batch_norm_momentum=batch_norm_momentum,
        epsilon=epsilon,
        num_classes=num_classes,
        include_top=include_top,
        classifier_activation=classifier_activation,
    )
    model.feature_taps = {"stride2": stride2, **model.feature_taps}
    if is_state_dict(weights):
        assign(model, from_state_dict(model, weights, _torchvision_module), weights)
    elif weights is not None:
        path = weights
        if weights == "imagenet":
            file = f"{name}_weights_tf_dim_ordering_tf_kernels{'' if include_top else '_notop'}.h5"
            path = fetch_imagenet(URL + file, include_top, num_classes)
        assign(model, read_h5(path), path)
    return model


def _dense_network(
    name,
    images,
    x,
    stride,
    depths,
    growth_rate,
    bottleneck,
    compression,
    dropout_rate,
    batch_norm_momentum,
    epsilon,
    num_classes,
    include_top,
    classifier_activation,
):
    """The model from the first maps on, `x` of `stride`: dense blocks, transitions, classifier."""

    def convolution(x, filters, kernel_size, name):
        x = layers.Conv2D(
            filters,
            kernel_size,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            name=f"{name}_conv",
        )(x)
        return layers.Dropout(dropout_rate, name=f"{name}_dropout")(x) if dropout_rate else x

    def batch_norm_relu(x, prefix):
        return _batch_norm_relu(x, batch_norm_momentum, epsilon, prefix)

    taps = {}
    for block, depth in enumerate(depths, start=2):
        for i in range(1, depth + 1):
            layer = f"conv{block}_block{i}"
            new = batch_norm_relu(x, f"{layer}_0_")
            if bottleneck:
                new = convolution(new, 4 * growth_rate, 1, f"{layer}_1")
                new = batch_norm_relu(new, f"{layer}_1_")
            new = convolution(new, growth_rate, 3, f"{layer}_{2 if bottleneck else 1}")
            x = layers.Concatenate(name=f"{layer}_concat")([x, new])
        last = block == len(depths) + 1
        x = batch_norm_relu(x, "" if last else f"pool{block}_")
        taps[f"stride{stride}"] = x
        if not last:
            x = convolution(x, int(x.shape[-1] * compression), 1, f"pool{block}")
            x = layers.AveragePooling2D(2, 2, name=f"pool{block}_pool")(x)
            stride *= 2
    if include_top:
        x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
        x = layers.Dense(
            num_classes, activation=classifier_activation, dtype="float32", name="predictions"
        )(x)
    model = keras.Model(images, x, name=name)
    model.feature_taps = taps
    return model


def _batch_norm_relu(x, momentum, epsilon, prefix):
    x = layers.BatchNormalization(momentum=momentum, epsilon=epsilon, name=f"{prefix}bn")(x)
    return layers.ReLU(name=f"{prefix}relu")(x)


def _torchvision_module(name):
    """torchvision's name for the module that is layer `name` here."""
    whole = {
        "conv1_conv": "features.conv0",
        "conv1_bn": "features.norm0",
        "bn": "features.norm5",
        "predictions": "classifier",
    }
    if name in whole:
        return whole[name]
    kinds = {"conv": "conv", "bn": "norm"}
    transition = re.fullmatch(r"pool(\d)_(conv|bn)", name)
    if transition:
        block, kind = transition.groups()
        return f"features.transition{int(block) - 1}.{kinds[kind]}"
    block, layer, i, kind = re.fullmatch(r"conv(\d)_block(\d+)_(\d)_(conv|bn)", name).groups()
    # torchvision counts normalisations from 1, keras.applications from 0.
    number = int(i) + (kind == "bn")
    return f"features.denseblock{int(block) - 1}.denselayer{layer}.{kinds[kind]}{number}"
