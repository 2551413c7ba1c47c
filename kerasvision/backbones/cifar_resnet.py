"""Residual networks for CIFAR's small pictures, and their plain twins (He et al. 2015)."""

import keras
from keras import layers, ops

from kerasvision.backbones.inputs import image_input, standardize
from kerasvision.backbones.resnet import torchvision_module
from kerasvision.backbones.weights import assign, from_state_dict, is_state_dict, read_h5


def cifar_resnet(
    image_shape=(32, 32, 3),
    num_classes=10,
    include_top=True,
    weights=None,
    depth=20,
    shortcuts="A",
    width=16,
    batch_norm_momentum=0.9,
    classifier_activation="softmax",
):
    """ResNet-20 for small pictures, and deeper ones: 269,722 trainable parameters.

    He et al. 2015, section 4.2: three stages of depth // 6 residual blocks each. ResNet-32 has
    464,154, ResNet-44 658,586, ResNet-56 853,018 and ResNet-110 1,727,962 trainable parameters;
    a plain network has as many. Images go in as RGB, 0 to 255; they are normalised inside.

    Args:
        image_shape: (height, width, 3), at least 4; a side may be None.
        num_classes: outputs of the classifier.
        include_top: False: without global average pooling and classifier.
        weights: None; or the path of a file with PyTorch's parameters under the names of
            torchvision's basic blocks, the classifier being "linear" (`.npz`, `.safetensors`);
            or with those of this network (`.h5`).
        depth: layers with weights, 6n + 2.
        shortcuts: where a stage begins, "A": every second pixel, channels filled up with zeros,
            no parameters (the paper's choice for CIFAR); "B": 1x1 convolutions. None: none
            anywhere, the plain network.
        width: channels of the first stage, doubled at each of the next two.
        batch_norm_momentum: of the moving averages.
        classifier_activation: of the classifier; None: logits.

    Returns:
        A functional `keras.Model`; output (B, num_classes), or else (B, H/4, W/4, 4 * width),
        sides rounded up. Its attribute `feature_taps` holds the last maps of each stage:
        "stride1", "stride2", "stride4".

    Raises:
        ValueError: a depth or shortcuts other than these, or weights of another network.
    """
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(f"depth must be 6n + 2, as 20, 32, 44, 56 or 110; received: {depth}")
    if shortcuts not in ("A", "B", None):
        raise ValueError(f"shortcuts must be 'A', 'B' or None; received: {shortcuts!r}")

    def convolution(x, filters, kernel_size, name, stride=1, activate=True):
        if stride == 2 and kernel_size > 1:
            # "same" would pad below and to the right only.
            x = layers.ZeroPadding2D(kernel_size // 2, name=f"{name}_pad")(x)
        x = layers.Conv2D(
            filters,
            kernel_size,
            stride,
            padding="same" if stride == 1 else "valid",
            use_bias=False,
            kernel_initializer="he_normal",
            name=f"{name}_conv",
        )(x)
        x = layers.BatchNormalization(
            momentum=batch_norm_momentum, epsilon=1e-5, name=f"{name}_bn"
        )(x)
        return layers.ReLU(name=f"{name}_relu")(x) if activate else x

    def shortcut(x, filters, stride, name):
        if x.shape[-1] == filters:
            return x
        if shortcuts == "B":
            return convolution(x, filters, 1, f"{name}_0", stride, activate=False)
        zeros = filters - x.shape[-1]
        # Every second pixel: this has a quicker gradient than a slice.
        x = layers.MaxPooling2D(1, stride, name=f"{name}_subsample")(x)
        return ops.pad(x, [(0, 0), (0, 0), (0, 0), (zeros // 2, zeros - zeros // 2)])

    images = image_input(image_shape, min_side=4)
    x = convolution(standardize(images), width, 3, "conv1")
    taps = {}
    for stage in range(3):
        filters = width * 2**stage
        for block in range(depth // 6):
            name = f"conv{stage + 2}_block{block + 1}"
            stride = 2 if stage > 0 and block == 0 else 1
            residual = convolution(x, filters, 3, f"{name}_1", stride)
            residual = convolution(residual, filters, 3, f"{name}_2", activate=False)
            if shortcuts is None:
                x = residual
            else:
                x = layers.Add(name=f"{name}_add")([shortcut(x, filters, stride, name), residual])
            x = layers.ReLU(name=f"{name}_out")(x)
        taps[f"stride{2**stage}"] = x
    if include_top:
        x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
        x = layers.Dense(
            num_classes,
            activation=classifier_activation,
            kernel_initializer="he_normal",
            dtype="float32",
            name="predictions",
        )(x)
    model = keras.Model(images, x, name="cifar_resnet")
    model.feature_taps = taps
    if is_state_dict(weights):
        assign(model, from_state_dict(model, weights, _pytorch_module), weights)
    elif weights is not None:
        assign(model, read_h5(weights), weights)
    return model


def _pytorch_module(name):
    """PyTorch's name for the module that is layer `name` here."""
    if name == "predictions":
        return "linear"
    return torchvision_module(name).replace("downsample", "shortcut")
