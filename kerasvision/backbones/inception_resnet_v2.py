"""Inception-ResNet-v2 (Szegedy et al. 2016)."""

import functools

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
    "https://storage.googleapis.com/tensorflow/keras-applications/inception_resnet_v2/"
    "inception_resnet_v2_weights_tf_dim_ordering_tf_kernels"
)


def inception_resnet_v2(
    image_shape=(299, 299, 3),
    num_classes=1000,
    include_top=True,
    weights=None,
    depths=(10, 20, 10),
    batch_norm_momentum=0.9,
    classifier_activation="softmax",
):
    """Inception-ResNet-v2: 55,873,736 parameters.

    Szegedy et al. 2016, figure 15, in the details as in the authors' code, which published the
    weights: the stem is that of Inception-v3, there are twice as many blocks as in the figure,
    and the last one has neither scaling nor ReLU. Images go in as RGB, 0 to 255; they are
    normalised inside. Batch normalisation has no scale.

    Args:
        image_shape: (height, width, 3), at least 75 x 75; a side may be None.
        num_classes: width of the classifier.
        include_top: whether the classifier follows: global average pooling, dropout of 20 %.
        weights: None; or "imagenet", the file of keras.applications, fetched by Keras; or
            the path of such a file (`.h5`), or of a state dict of timm's
            `inception_resnet_v2` (`.npz`, `.safetensors`). A state dict brings a scale of its
            batch normalisations (30,272 parameters more).
        depths: residual blocks of strides 8, 16 and 32; weight files have the default.
        batch_norm_momentum: of the moving averages.
        classifier_activation: None for logits.

    Returns:
        A functional `keras.Model`; output (B, num_classes) float32; without the top a map of
        stride 32 with 1536 channels, 8 x 8 for 299 x 299. Its attribute `feature_taps` holds
        the last tensor of strides "stride2" to "stride32".

    Raises:
        ValueError: an image shape that the network can't take; a file of other weights.
    """
    timm = is_state_dict(weights)

    def normalize(x, name):
        return layers.BatchNormalization(momentum=batch_norm_momentum, scale=timm, name=name)(x)

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
        return layers.ReLU(name=f"{name}_relu")(normalize(x, f"{name}_bn"))

    def branch(x, name, *steps, reduce=False):
        """Convolutions in a row, of (filters, kernel size); the last may halve the map."""
        for i, (filters, kernel_size) in enumerate(steps):
            step = name if len(steps) == 1 else f"{name}_{i}"
            if reduce and i == len(steps) - 1:
                x = convolution(x, filters, kernel_size, step, strides=2, padding="valid")
            else:
                x = convolution(x, filters, kernel_size, step)
        return x

    def residual_block(x, name, scale, *branches, activate=True):
        """Adds the projected branches, scaled down to keep the training stable (section 3.3)."""
        residual = layers.Concatenate(name=f"{name}_mixed")(branches)
        residual = layers.Conv2D(
            x.shape[-1], 1, kernel_initializer="he_normal", name=f"{name}_conv"
        )(residual)
        x = x + scale * residual
        return layers.ReLU(name=f"{name}_relu")(x) if activate else x

    images = image_input(image_shape, min_side=75)
    taps = {}
    x = minus_one_to_one(images)
    x = convolution(x, 32, 3, "conv2d_1a", strides=2, padding="valid")
    x = convolution(x, 32, 3, "conv2d_2a", padding="valid")
    x = convolution(x, 64, 3, "conv2d_2b")
    taps["stride2"] = x
    x = layers.MaxPooling2D(3, 2, name="maxpool_3a")(x)
    x = convolution(x, 80, 1, "conv2d_3b")
    x = convolution(x, 192, 3, "conv2d_4a", padding="valid")
    taps["stride4"] = x
    x = layers.MaxPooling2D(3, 2, name="maxpool_5a")(x)

    pooled = layers.AveragePooling2D(3, 1, padding="same", name="mixed_5b_branch3_0")(x)
    branches = [
        branch(x, "mixed_5b_branch0", (96, 1)),
        branch(x, "mixed_5b_branch1", (48, 1), (64, 5)),
        branch(x, "mixed_5b_branch2", (64, 1), (96, 3), (96, 3)),
        branch(pooled, "mixed_5b_branch3_1", (64, 1)),
    ]
    x = layers.Concatenate(name="mixed_5b")(branches)
    # Inception-ResNet-A (figure 16), 35 x 35 cells of 299 x 299 pixels.
    for i in range(1, depths[0] + 1):
        name = f"block35_{i}"
        x = residual_block(
            x,
            name,
            0.17,
            branch(x, f"{name}_branch0", (32, 1)),
            branch(x, f"{name}_branch1", (32, 1), (32, 3)),
            branch(x, f"{name}_branch2", (32, 1), (48, 3), (64, 3)),
        )
    taps["stride8"] = x

    # Reduction-A (figure 7).
    branches = [
        branch(x, "mixed_6a_branch0", (384, 3), reduce=True),
        branch(x, "mixed_6a_branch1", (256, 1), (256, 3), (384, 3), reduce=True),
        layers.MaxPooling2D(3, 2, name="mixed_6a_branch2")(x),
    ]
    x = layers.Concatenate(name="mixed_6a")(branches)
    # Inception-ResNet-B (figure 17), 17 x 17.
    for i in range(1, depths[1] + 1):
        name = f"block17_{i}"
        x = residual_block(
            x,
            name,
            0.10,
            branch(x, f"{name}_branch0", (192, 1)),
            branch(x, f"{name}_branch1", (128, 1), (160, (1, 7)), (192, (7, 1))),
        )
    taps["stride16"] = x

    # Reduction-B (figure 18).
    branches = [
        branch(x, "mixed_7a_branch0", (256, 1), (384, 3), reduce=True),
        branch(x, "mixed_7a_branch1", (256, 1), (288, 3), reduce=True),
        branch(x, "mixed_7a_branch2", (256, 1), (288, 3), (320, 3), reduce=True),
        layers.MaxPooling2D(3, 2, name="mixed_7a_branch3")(x),
    ]
    x = layers.Concatenate(name="mixed_7a")(branches)
    # Inception-ResNet-C (figure 19), 8 x 8.
    for i in range(1, depths[2] + 1):
        name, last = f"block8_{i}", i == depths[2]
        x = residual_block(
            x,
            name,
            1.0 if last else 0.20,
            branch(x, f"{name}_branch0", (192, 1)),
            branch(x, f"{name}_branch1", (192, 1), (224, (1, 3)), (256, (3, 1))),
            activate=not last,
        )
    x = convolution(x, 1536, 1, "conv2d_7b")
    taps["stride32"] = x

    if include_top:
        x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
        x = layers.Dropout(0.2, name="dropout")(x)
        x = layers.Dense(
            num_classes, activation=classifier_activation, dtype="float32", name="predictions"
        )(x)
    model = keras.Model(images, x, name="inception_resnet_v2")
    model.feature_taps = taps

    if timm:
        module_of = functools.partial(_timm_module, last_block=f"block8_{depths[2]}")
        assign(model, from_state_dict(model, weights, module_of), weights)
    elif weights is not None:
        path = weights
        if weights == "imagenet":
            file = f"{URL}.h5" if include_top else f"{URL}_notop.h5"
            path = fetch_imagenet(file, include_top, num_classes)
        # Most names in these files are automatic ones. As Keras itself does, go by the order of
        # the layers, which is that of the graph, and the same here.
        assign_in_order(model, read_h5(path), path)
    return model


def _timm_module(layer_name, last_block):
    """timm's name of a layer: "block35_1_branch1_0_bn" is "repeat.0.branch1.0.bn"."""
    if layer_name == "predictions":
        return "classif"
    if not layer_name.startswith(("block", "mixed")):
        block, part = layer_name.rsplit("_", 1)
        return f"{block}.{part}"
    kind, index, *path = layer_name.split("_")
    if path == ["conv"]:
        path = ["conv2d"]
    if kind == "mixed":
        module = f"mixed_{index}"
    elif f"{kind}_{index}" == last_block:  # stands alone there
        module = "block8"
    else:
        repeat = {"block35": "repeat", "block17": "repeat_1", "block8": "repeat_2"}[kind]
        module = f"{repeat}.{int(index) - 1}"
    return ".".join([module, *path])
