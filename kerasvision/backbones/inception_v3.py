"""Inception-v3 (Szegedy et al. 2015)."""

import keras
from keras import layers

from kerasvision.backbones.inputs import image_input, minus_one_to_one
from kerasvision.backbones.weights import (
    assign,
    assign_in_order,
    fetch_imagenet,
    from_state_dict,
    is_state_dict,
    read_h5,
)

URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/inception_v3/"
    "inception_v3_weights_tf_dim_ordering_tf_kernels"
)
# What torchvision calls the modules mixed0 to mixed10.
TORCHVISION_MODULES = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")


def inception_v3(
    image_shape=(299, 299, 3),
    num_classes=1000,
    include_top=True,
    weights=None,
    auxiliary_heads=False,
    batch_norm_momentum=0.9,
    classifier_activation="softmax",
):
    """Inception-v3: 23,851,784 parameters, or 27,179,376 with the auxiliary head.

    Szegedy et al. 2015, table 1, in the details as in the authors' code: the second pooling
    takes the place of a stride, and the modules at 35 x 35 keep a 5x5 convolution. Images go
    in as RGB, 0 to 255; they are normalised inside. Batch normalisation has no scale, as the
    next convolution has one.

    Args:
        image_shape: (height, width, 3), at least 75 x 75, with the auxiliary head at least
            299 x 299; a side may be None.
        num_classes: width of the classifiers.
        include_top: whether the classifier follows.
        weights: None; or "imagenet", the file of keras.applications, fetched by Keras; or
            the path of such a file (`.h5`), or of a state dict of torchvision's or timm's
            `inception_v3` (`.npz`, `.safetensors`). A state dict brings a scale of its batch
            normalisations (17,216 parameters more), and average pooling that counts the zeros
            around the map. Keras's files have no auxiliary head: it stays as initialised.
        auxiliary_heads: adds the classifier on the last map of stride 16 (section 4, figure
            8), for training.
        batch_norm_momentum: of the moving averages.
        classifier_activation: of all classifiers; None for logits.

    Returns:
        A functional `keras.Model`; output (B, num_classes) float32; with the auxiliary head a
        dict of two such, "predictions" and "auxiliary1"; without the top a map of stride 32
        with 2048 channels, 8 x 8 for 299 x 299. Its attribute `feature_taps` holds the last
        tensor of strides "stride2" to "stride32". The modules are named mixed0 to mixed10.

    Raises:
        ValueError: an image shape that the network can't take; the auxiliary head without the
            top; a file of other weights.
    """
    if auxiliary_heads and not include_top:
        raise ValueError("auxiliary_heads=True needs include_top=True; received: False")
    torchvision = is_state_dict(weights)

    def convolution(x, filters, kernel_size, name, strides=1, padding="same"):
        x = layers.Conv2D(
            filters,
            kernel_size,
            strides,
            padding=padding,
            use_bias=False,
            kernel_initializer="he_normal",
            name=f"{name}_conv",
        )(x)
        x = layers.BatchNormalization(
            momentum=batch_norm_momentum, scale=torchvision, name=f"{name}_bn"
        )(x)
        return layers.ReLU(name=f"{name}_relu")(x)

    def branch(x, name, *steps, reduce=False):
        """Convolutions in a row, of (filters, kernel size); the last may halve the map."""
        for i, (filters, kernel_size) in enumerate(steps, start=1):
            step = name if len(steps) == 1 else f"{name}_{i}"
            if reduce and i == len(steps):
                x = convolution(x, filters, kernel_size, step, strides=2, padding="valid")
            else:
                x = convolution(x, filters, kernel_size, step)
        return x

    def pooling_branch(x, filters, name):
        if torchvision:
            x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
        padding = "valid" if torchvision else "same"
        x = layers.AveragePooling2D(3, 1, padding=padding, name=f"{name}_pool")(x)
        return branch(x, f"{name}_branch_pool", (filters, 1))

    def fork(x, name):
        parts = [convolution(x, 384, (1, 3), f"{name}a"), convolution(x, 384, (3, 1), f"{name}b")]
        return layers.Concatenate(name=name)(parts)

    def classifier(x, name):
        return layers.Dense(
            num_classes, activation=classifier_activation, dtype="float32", name=name
        )(x)

    images = image_input(image_shape, min_side=299 if auxiliary_heads else 75)
    taps = {}
    x = minus_one_to_one(images)
    x = convolution(x, 32, 3, "Conv2d_1a_3x3", strides=2, padding="valid")
    x = convolution(x, 32, 3, "Conv2d_2a_3x3", padding="valid")
    x = convolution(x, 64, 3, "Conv2d_2b_3x3")
    taps["stride2"] = x
    x = layers.MaxPooling2D(3, 2, name="pool1")(x)
    x = convolution(x, 80, 1, "Conv2d_3b_1x1")
    x = convolution(x, 192, 3, "Conv2d_4a_3x3", padding="valid")
    taps["stride4"] = x
    x = layers.MaxPooling2D(3, 2, name="pool2")(x)

    # 35 x 35 cells of 299 x 299 pixels: two 3x3 convolutions for a second 5x5 (figure 5).
    for name, filters in [("mixed0", 32), ("mixed1", 64), ("mixed2", 64)]:
        branches = [
            branch(x, f"{name}_branch1x1", (64, 1)),
            branch(x, f"{name}_branch5x5", (48, 1), (64, 5)),
            branch(x, f"{name}_branch3x3dbl", (64, 1), (96, 3), (96, 3)),
            pooling_branch(x, filters, name),
        ]
        x = layers.Concatenate(name=name)(branches)
    taps["stride8"] = x

    # Halves the map without a bottleneck (figure 10).
    branches = [
        branch(x, "mixed3_branch3x3", (384, 3), reduce=True),
        branch(x, "mixed3_branch3x3dbl", (64, 1), (96, 3), (96, 3), reduce=True),
        layers.MaxPooling2D(3, 2, name="mixed3_pool")(x),
    ]
    x = layers.Concatenate(name="mixed3")(branches)

    # 17 x 17: 7x7 convolutions in two factors, 1x7 and 7x1 (figure 6).
    for name, filters in [("mixed4", 128), ("mixed5", 160), ("mixed6", 160), ("mixed7", 192)]:
        row, column = (1, 7), (7, 1)
        branches = [
            branch(x, f"{name}_branch1x1", (192, 1)),
            branch(x, f"{name}_branch7x7", (filters, 1), (filters, row), (192, column)),
            branch(
                x,
                f"{name}_branch7x7dbl",
                (filters, 1),
                (filters, column),
                (filters, row),
                (filters, column),
                (192, row),
            ),
            pooling_branch(x, 192, name),
        ]
        x = layers.Concatenate(name=name)(branches)
    taps["stride16"] = x

    branches = [
        branch(x, "mixed8_branch3x3", (192, 1), (320, 3), reduce=True),
        branch(x, "mixed8_branch7x7x3", (192, 1), (192, row), (192, column), (192, 3), reduce=True),
        layers.MaxPooling2D(3, 2, name="mixed8_pool")(x),
    ]
    x = layers.Concatenate(name="mixed8")(branches)

    # 8 x 8: wide, with 1x3 and 3x1 convolutions side by side (figure 7).
    for name in ("mixed9", "mixed10"):
        once = convolution(x, 384, 1, f"{name}_branch3x3_1")
        twice = branch(x, f"{name}_branch3x3dbl", (448, 1), (384, 3))
        branches = [
            branch(x, f"{name}_branch1x1", (320, 1)),
            fork(once, f"{name}_branch3x3_2"),
            fork(twice, f"{name}_branch3x3dbl_3"),
            pooling_branch(x, 192, name),
        ]
        x = layers.Concatenate(name=name)(branches)
    taps["stride32"] = x

    if include_top:
        x = classifier(layers.GlobalAveragePooling2D(name="avg_pool")(x), "predictions")
    model = keras.Model(images, x, name="inception_v3")
    if weights is not None and not torchvision:
        path = weights
        if weights == "imagenet":
            file = f"{URL}.h5" if include_top else f"{URL}_notop.h5"
            path = fetch_imagenet(file, include_top, num_classes)
        # The names of these files are automatic ones. As Keras itself does, go by the order of
        # the layers, which is that of the graph, and the same here.
        assign_in_order(model, read_h5(path), path)

    if auxiliary_heads:
        a = layers.AveragePooling2D(5, 3, name="auxiliary1_pool")(taps["stride16"])
        a = convolution(a, 128, 1, "auxiliary1_1x1")
        a = convolution(a, 768, 5, "auxiliary1_5x5", padding="valid")
        a = layers.GlobalAveragePooling2D(name="auxiliary1_avg_pool")(a)
        outputs = {"predictions": x, "auxiliary1": classifier(a, "auxiliary1")}
        model = keras.Model(images, outputs, name="inception_v3")
    if torchvision:
        assign(model, from_state_dict(model, weights, _torchvision_module), weights)
    model.feature_taps = taps
    return model


def _torchvision_module(layer_name):
    """What torchvision calls a layer: "mixed3_branch3x3_conv" is "Mixed_6a.branch3x3.conv"."""
    names = {"predictions": "fc", "auxiliary1": "AuxLogits.fc"}
    if layer_name in names:
        return names[layer_name]
    block, part = layer_name.rsplit("_", 1)
    if block.startswith("mixed"):
        mixed, branch = block.split("_", 1)
        block = f"Mixed_{TORCHVISION_MODULES[int(mixed.removeprefix('mixed'))]}.{branch}"
    block = {"auxiliary1_1x1": "AuxLogits.conv0", "auxiliary1_5x5": "AuxLogits.conv1"}.get(
        block, block
    )
    return f"{block}.{part}"
