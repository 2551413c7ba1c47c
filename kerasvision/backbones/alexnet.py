"""AlexNet (Krizhevsky et al. 2012), and its single tower (Krizhevsky 2014)."""

import keras
from keras import layers

from kerasvision.backbones.inputs import image_input, standardize, subtract_mean
from kerasvision.backbones.weights import assign, from_state_dict, is_state_dict, read_h5
from kerasvision.layers import GroupedConv2D, LocalResponseNormalization

# torchvision's names of the layers of the single tower.
TORCHVISION = {
    "conv1": "features.0",
    "conv2": "features.3",
    "conv3": "features.6",
    "conv4": "features.8",
    "conv5": "features.10",
    "fc6": "classifier.1",
    "fc7": "classifier.4",
    "predictions": "classifier.6",
}


def alexnet(
    image_shape=(227, 227, 3),
    num_classes=1000,
    include_top=True,
    weights=None,
    classifier_activation="softmax",
):
    """AlexNet, two towers: 60,965,224 parameters, 2,334,080 without the classifier.

    Krizhevsky et al. 2012, section 3.5. The second, fourth and fifth convolution see half of the
    maps each, those of their own GPU. Response normalisation (section 3.3), overlapping pooling
    (3.4), dropout (4.2), initial weights and biases (section 5) are the paper's. The paper
    speaks of 224x224 pixels, its numbers of neurons are those of 227x227. Images go in as RGB,
    0 to 255; the mean colour is subtracted inside.

    Args:
        image_shape: (height, width, 3), any size from 67 pixels; without the classifier a side
            may be None. The classifier's first layer sees 6x6 cells at 227 pixels, and has
            other weights at sizes with another number of cells.
        num_classes: of the classifier.
        include_top: False: without the fully connected layers.
        weights: None, or the path of an `.h5` file that this network was saved to.
        classifier_activation: of the classifier; None: logits.

    Returns:
        A functional `keras.Model`; output (B, num_classes), or without the classifier the fifth
        layer's pooled maps, (B, 6, 6, 256) at 227 pixels. Its attribute `feature_taps` holds the
        last tensor of strides "stride4" to "stride32": norm1, norm2, conv5, pool5.

    Raises:
        ValueError: an argument out of range, or a weight file that isn't of this network.
    """
    images = image_input(image_shape, min_side=67, any_size=not include_top)
    taps = {}
    x = _convolution(subtract_mean(images), 96, 11, "conv1", strides=4, padding="valid")
    taps["stride4"] = x = LocalResponseNormalization(name="norm1")(x)
    x = layers.MaxPooling2D(3, 2, name="pool1")(x)
    x = _convolution(x, 256, 5, "conv2", groups=2, bias=1.0)
    taps["stride8"] = x = LocalResponseNormalization(name="norm2")(x)
    x = layers.MaxPooling2D(3, 2, name="pool2")(x)
    x = _convolution(x, 384, 3, "conv3")
    x = _convolution(x, 384, 3, "conv4", groups=2, bias=1.0)
    taps["stride16"] = x = _convolution(x, 256, 3, "conv5", groups=2, bias=1.0)
    taps["stride32"] = x = layers.MaxPooling2D(3, 2, name="pool5")(x)
    if include_top:
        x = _classifier(x, num_classes, classifier_activation)
    model = keras.Model(images, x, name="alexnet")
    model.feature_taps = taps
    if weights is not None:
        assign(model, read_h5(weights), weights)
    return model


def alexnet_one_tower(
    image_shape=(224, 224, 3),
    num_classes=1000,
    include_top=True,
    weights=None,
    classifier_activation="softmax",
):
    """AlexNet in one tower: 61,100,840 parameters, 2,469,696 without the classifier.

    The network of "One weird trick" (Krizhevsky 2014, section 5) for one GPU, as torchvision's
    `alexnet`: 64, 192, 384, 256 and 256 filters that see all maps, and no response
    normalisation. The rest is as in `alexnet`.

    Args:
        image_shape: (height, width, 3), any size from 63 pixels; without the classifier a side
            may be None. The classifier's first layer sees 6x6 cells at 224 pixels, and has
            other weights at sizes with another number of cells.
        num_classes: of the classifier.
        include_top: False: without the fully connected layers.
        weights: None; or the path of an `.h5` file that this network was saved to; or of a state
            dict (`.npz`, `.safetensors`) with the parameter names of torchvision's `alexnet`,
            which brings its own normalisation.
        classifier_activation: of the classifier; None: logits.

    Returns:
        A functional `keras.Model`; output (B, num_classes), or without the classifier the fifth
        layer's pooled maps, (B, 6, 6, 256) at 224 pixels. Its attribute `feature_taps` holds the
        last tensor of strides "stride4" to "stride32": conv1, conv2, conv5, pool5.

    Raises:
        ValueError: an argument out of range, or a weight file that isn't of this network.
    """
    images = image_input(image_shape, min_side=63, any_size=not include_top)
    taps = {}
    x = standardize(images) if is_state_dict(weights) else subtract_mean(images)
    x = layers.ZeroPadding2D(2, name="conv1_pad")(x)
    taps["stride4"] = x = _convolution(x, 64, 11, "conv1", strides=4, padding="valid")
    x = layers.MaxPooling2D(3, 2, name="pool1")(x)
    taps["stride8"] = x = _convolution(x, 192, 5, "conv2", bias=1.0)
    x = layers.MaxPooling2D(3, 2, name="pool2")(x)
    x = _convolution(x, 384, 3, "conv3")
    x = _convolution(x, 256, 3, "conv4", bias=1.0)
    taps["stride16"] = x = _convolution(x, 256, 3, "conv5", bias=1.0)
    taps["stride32"] = x = layers.MaxPooling2D(3, 2, name="pool5")(x)
    if include_top:
        x = _classifier(x, num_classes, classifier_activation)
    model = keras.Model(images, x, name="alexnet_one_tower")
    model.feature_taps = taps
    if is_state_dict(weights):
        flattened = {"fc6": taps["stride32"].shape[1:]} if include_top else None
        assign(model, from_state_dict(model, weights, TORCHVISION.get, flattened), weights)
    elif weights is not None:
        assign(model, read_h5(weights), weights)
    return model


def _convolution(x, filters, kernel_size, name, strides=1, padding="same", groups=1, bias=0.0):
    # A bias of one has the ReLUs start with positive inputs (section 5).
    convolution = layers.Conv2D if groups == 1 else GroupedConv2D
    return convolution(
        filters,
        kernel_size,
        strides,
        padding,
        groups=groups,
        activation="relu",
        kernel_initializer=_normal(),
        bias_initializer=keras.initializers.Constant(bias),
        name=name,
    )(x)


def _classifier(x, num_classes, activation):
    x = layers.Flatten(name="flatten")(x)
    for name in ("fc6", "fc7"):
        x = layers.Dense(
            4096,
            activation="relu",
            kernel_initializer=_normal(),
            bias_initializer="ones",
            name=name,
        )(x)
        x = layers.Dropout(0.5, name=f"{name}_dropout")(x)
    return layers.Dense(
        num_classes,
        activation=activation,
        kernel_initializer=_normal(),
        dtype="float32",
        name="predictions",
    )(x)


def _normal():
    # A new one for each layer: one initializer gives equal kernels to equal layers.
    return keras.initializers.RandomNormal(stddev=0.01)
