"""SqueezeNet 1.1 (Iandola et al. 2016)."""

import keras
from keras import layers

from kerasvision.backbones.inputs import image_input, standardize, subtract_mean
from kerasvision.backbones.weights import assign, from_state_dict, is_state_dict, read_h5

# Channels that a fire module squeezes to and expands to; None: a pooling. Version 1.1 of the
# authors' repository does with 2.4 times fewer operations what table 1 of the paper does.
MODULES = [
    None,
    (16, 64),
    (16, 64),
    None,
    (32, 128),
    (32, 128),
    None,
    (48, 192),
    (48, 192),
    (64, 256),
    (64, 256),
]


def squeezenet(
    image_shape=(224, 224, 3),
    num_classes=1000,
    include_top=True,
    weights=None,
    classifier_activation="softmax",
):
    """SqueezeNet 1.1: 1,235,496 parameters, 722,496 without the classifier.

    Iandola et al. 2016, sections 3.2 and 3.3; version 1.1 as the authors published it. Images
    go in as RGB, 0 to 255; they are normalised inside.

    Args:
        image_shape: (height, width, 3), any size from 17 pixels; a side may be None.
        num_classes: of the classifier.
        include_top: False: without dropout, classifier and average pooling.
        weights: None; or the path of a state dict (`.npz`, `.safetensors`) with the parameter
            names of torchvision's `squeezenet1_1`; or of a Keras file (`.h5`) with the authors'
            Caffe weights, layers named "conv1", "fire2/squeeze1x1", … (with the classifier:
            "conv10"). Such files want the mean colour subtracted instead of torchvision's
            normalisation.
        classifier_activation: behind the average pooling; None: logits, which are positive.

    Returns:
        A functional `keras.Model`; output (B, num_classes), or without the classifier
        (B, H/16, W/16, 512). Its attribute `feature_taps` holds the last tensor of strides
        "stride2" to "stride16".

    Raises:
        ValueError: an argument out of range, or a weight file that isn't of this network.
    """

    def convolution(x, filters, kernel_size, name, **placement):
        return layers.Conv2D(
            filters,
            kernel_size,
            activation="relu",
            kernel_initializer="he_uniform",
            name=name,
            **placement,
        )(x)

    images = image_input(image_shape, min_side=17)
    caffe = weights is not None and not is_state_dict(weights)
    x = subtract_mean(images) if caffe else standardize(images)
    x = convolution(x, 64, 3, "conv1", strides=2)
    taps, stride, module = {"stride2": x}, 2, 1
    for channels in MODULES:
        if channels is None:
            # Windows that reach over the border count, as in Caffe. Nothing is below zero.
            x = layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"pool{module}_pad")(x)
            x = layers.MaxPooling2D(3, 2, name=f"pool{module}")(x)
            stride *= 2
        else:
            module += 1
            squeeze, expand = channels
            x = convolution(x, squeeze, 1, f"fire{module}_squeeze1x1")
            x = layers.Concatenate(name=f"fire{module}_concat")(
                [
                    convolution(x, expand, 1, f"fire{module}_expand1x1"),
                    convolution(x, expand, 3, f"fire{module}_expand3x3", padding="same"),
                ]
            )
        taps[f"stride{stride}"] = x
    if include_top:
        x = layers.Dropout(0.5, name="drop9")(x)
        x = layers.Conv2D(
            num_classes,
            1,
            activation="relu",
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
            dtype="float32",
            name="predictions",
        )(x)
        x = layers.GlobalAveragePooling2D(dtype="float32", name="avg_pool")(x)
        x = layers.Activation(classifier_activation, dtype="float32", name="activation")(x)
    model = keras.Model(images, x, name="squeezenet")
    model.feature_taps = taps

    if is_state_dict(weights):
        assign(model, from_state_dict(model, weights, _torchvision_module), weights)
    elif weights is not None:
        # Layer names of Keras 3 are without slashes.
        arrays = {name.replace("/", "_"): value for name, value in read_h5(weights).items()}
        if "conv10" in arrays:
            arrays["predictions"] = arrays.pop("conv10")
        if "conv1" in arrays:
            # For BGR pictures: turning the first filters round costs nothing.
            kernel, bias = arrays["conv1"]
            arrays["conv1"] = [kernel[:, :, ::-1], bias]
        assign(model, arrays, weights)
    return model


def _torchvision_module(name):
    """torchvision's name of a layer: it counts every layer, activations and pooling included."""
    if name == "conv1":
        return "features.0"
    if name == "predictions":
        return "classifier.1"
    module, part = name.removeprefix("fire").split("_")
    # Those of MODULES stand behind conv1 and its ReLU; the first fire module is fire2.
    positions = [i for i, channels in enumerate(MODULES, start=2) if channels]
    part = part.replace("squeeze1x1", "squeeze")
    return f"features.{positions[int(module) - 2]}.{part}"
