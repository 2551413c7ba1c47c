"""VGG: very deep networks of small filters (Simonyan and Zisserman 2014)."""

import keras
from keras import layers

from kerasvision.backbones.inputs import image_input, standardize, subtract_mean
from kerasvision.backbones.weights import (
    assign,
    fetch_imagenet,
    from_state_dict,
    is_state_dict,
    read_h5,
    read_state_dict,
)

URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/"
    "{name}/{name}_weights_tf_dim_ordering_tf_kernels{top}.h5"
)

# Table 1 of the paper: 3x3 convolutions a block, columns A, B, D and E; and their channels.
DEPTHS = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
CHANNELS = (64, 128, 256, 512, 512)


def vgg11(
    image_shape=(224, 224, 3),
    num_classes=1000,
    include_top=True,
    weights=None,
    output_stride=32,
    classifier_activation="softmax",
):
    """VGG-11, configuration A: 132,863,336 parameters, 9,220,480 without the classifier.

    Simonyan and Zisserman 2014, table 1. Arguments, return value and errors as of `vgg16`; there
    are no "imagenet" weights.
    """
    return _vgg(
        "vgg11",
        image_shape,
        num_classes,
        include_top,
        weights,
        output_stride,
        classifier_activation,
    )


def vgg13(
    image_shape=(224, 224, 3),
    num_classes=1000,
    include_top=True,
    weights=None,
    output_stride=32,
    classifier_activation="softmax",
):
    """VGG-13, configuration B: 133,047,848 parameters, 9,404,992 without the classifier.

    Simonyan and Zisserman 2014, table 1. Arguments, return value and errors as of `vgg16`; there
    are no "imagenet" weights.
    """
    return _vgg(
        "vgg13",
        image_shape,
        num_classes,
        include_top,
        weights,
        output_stride,
        classifier_activation,
    )


def vgg16(
    image_shape=(224, 224, 3),
    num_classes=1000,
    include_top=True,
    weights=None,
    output_stride=32,
    classifier_activation="softmax",
):
    """VGG-16, configuration D: 138,357,544 parameters, 14,714,688 without the classifier.

    Simonyan and Zisserman 2014, table 1. Images go in as RGB, 0 to 255; the mean colour is
    subtracted inside. Filters start as Glorot and Bengio (2010) say, section 3.1 of the paper.

    Args:
        image_shape: (height, width, 3), any size from 32 pixels; without the classifier a side
            may be None. The classifier's first layer sees 7x7 cells at 224 pixels, and has
            other weights at sizes with another number of cells.
        num_classes: of the classifier.
        include_top: False: without the fully connected layers.
        weights: None; or "imagenet", the file of keras.applications, fetched by Keras; or the
            path of a file of that layout (`.h5`), with or without the classifier; or of a state
            dict (`.npz`, `.safetensors`) with the parameter names of torchvision's network,
            which brings its own normalisation.
        output_stride: 32; or 16 or 8, without the classifier: the fifth, or the fourth and the
            fifth pooling don't stride, and the convolutions behind them are dilated instead
            (DeepLab, Chen et al. 2015, section 3.1). The weights are the same.
        classifier_activation: of the classifier; None: logits.

    Returns:
        A functional `keras.Model`; output (B, num_classes), or without the classifier the fifth
        pooling's (B, H/32, W/32, 512). Odd sides are rounded up, where keras.applications and
        torchvision round down: maps of both are equal if the sides are multiples of 32. Its
        attribute `feature_taps` holds the last tensor of strides "stride1" to "stride32":
        block1_conv2, …, block5_conv3, block5_pool.

    Raises:
        ValueError: an argument out of range, or a weight file that isn't of this network.
    """
    return _vgg(
        "vgg16",
        image_shape,
        num_classes,
        include_top,
        weights,
        output_stride,
        classifier_activation,
    )


def vgg19(
    image_shape=(224, 224, 3),
    num_classes=1000,
    include_top=True,
    weights=None,
    output_stride=32,
    classifier_activation="softmax",
):
    """VGG-19, configuration E: 143,667,240 parameters, 20,024,384 without the classifier.

    Simonyan and Zisserman 2014, table 1. Arguments, return value and errors as of `vgg16`.
    """
    return _vgg(
        "vgg19",
        image_shape,
        num_classes,
        include_top,
        weights,
        output_stride,
        classifier_activation,
    )


def _vgg(
    name, image_shape, num_classes, include_top, weights, output_stride, classifier_activation
):
    if output_stride not in (8, 16, 32):
        raise ValueError(f"output_stride must be 8, 16 or 32; received: {output_stride}")
    if include_top and output_stride != 32:
        raise ValueError(
            "output_stride must be 32 with the classifier, pass include_top=False; "
            f"received: {output_stride}"
        )
    images = image_input(image_shape, min_side=32, any_size=not include_top)
    x = standardize(images) if is_state_dict(weights) else subtract_mean(images)
    taps, stride, dilation = {}, 1, 1
    for block, (depth, channels) in enumerate(zip(DEPTHS[name], CHANNELS), start=1):
        for i in range(1, depth + 1):
            x = layers.Conv2D(
                channels,
                3,
                dilation_rate=dilation,
                padding="same",
                activation="relu",
                name=f"block{block}_conv{i}",
            )(x)
        taps[f"stride{stride}"] = x
        pool_stride = 2 if stride < output_stride else 1
        # "same" pooling of an odd side rounds up, as Caffe does: 75 becomes 38 in SSD300.
        x = layers.MaxPooling2D(2, pool_stride, padding="same", name=f"block{block}_pool")(x)
        stride *= pool_stride
        dilation *= 2 // pool_stride
        taps[f"stride{stride}"] = x
    if include_top:
        x = layers.Flatten(name="flatten")(x)
        for i in (1, 2):
            x = layers.Dense(4096, activation="relu", name=f"fc{i}")(x)
            x = layers.Dropout(0.5, name=f"dropout{i}")(x)
        x = layers.Dense(
            num_classes, activation=classifier_activation, dtype="float32", name="predictions"
        )(x)
    model = keras.Model(images, x, name=name)
    model.feature_taps = taps
    if weights is not None:
        _load(model, weights, include_top, num_classes)
    return model


def _load(model, weights, include_top, num_classes):
    if is_state_dict(weights):
        # torchvision counts every layer of a part, activations, pooling and dropout included.
        modules = {"fc1": "classifier.0", "fc2": "classifier.3", "predictions": "classifier.6"}
        position = 0
        for block, depth in enumerate(DEPTHS[model.name], start=1):
            for i in range(1, depth + 1):
                modules[f"block{block}_conv{i}"] = f"features.{position}"
                position += 2
            position += 1
        maps = model.feature_taps["stride32"].shape[1:] if include_top else None
        arrays = from_state_dict(model, weights, modules.get, {"fc1": maps})
    else:
        if weights == "imagenet":
            if model.name not in ("vgg16", "vgg19"):
                raise ValueError(
                    f"weights='imagenet' exist for vgg16 and vgg19; received: {model.name}"
                )
            url = URL.format(name=model.name, top="" if include_top else "_notop")
            weights = fetch_imagenet(url, include_top, num_classes)
        arrays = read_h5(weights)
        if "block1_conv1" in arrays:
            # The published filters see BGR pictures: turning those of the first layer round
            # costs nothing, turning every picture round does.
            kernel, bias = arrays["block1_conv1"]
            arrays["block1_conv1"] = [kernel[:, :, ::-1], bias]
    assign(model, arrays, weights)


def read_fully_connected(path):
    """The first two fully connected layers of a VGG file, as convolutions over 7x7 maps.

    Long et al. 2015, section 3.1: sliding over larger maps they compute what they compute for
    every window of 224x224 pixels.

    Args:
        path: of a weight file, as of `vgg16`.

    Returns:
        dict: "fc1" to [kernel (7, 7, 512, 4096), bias (4096,)] and "fc2" to
        [kernel (1, 1, 4096, 4096), bias (4096,)]; empty if the file has no classifier.
    """
    if is_state_dict(path):
        arrays = read_state_dict(path)
        if "classifier.0.weight" not in arrays:
            return {}
        # PyTorch flattens the channels first, and has the outputs first.
        fc1 = arrays["classifier.0.weight"].reshape(-1, 512, 7, 7).transpose(2, 3, 1, 0)
        fc2 = arrays["classifier.3.weight"].T
        biases = arrays["classifier.0.bias"], arrays["classifier.3.bias"]
    else:
        arrays = read_h5(path)
        if "fc1" not in arrays:
            return {}
        fc1, fc2 = arrays["fc1"][0].reshape(7, 7, 512, -1), arrays["fc2"][0]
        biases = arrays["fc1"][1], arrays["fc2"][1]
    return {"fc1": [fc1, biases[0]], "fc2": [fc2[None, None], biases[1]]}
