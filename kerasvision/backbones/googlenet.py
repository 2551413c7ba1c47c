"""GoogLeNet (Szegedy et al. 2014), the first network of Inception modules."""

import keras
from keras import layers

from kerasvision.backbones.inputs import image_input, subtract_mean
from kerasvision.backbones.weights import assign, read_h5
from kerasvision.layers import LocalResponseNormalization

# Table 1 of the paper: filters of the 1x1, "3x3 reduce", 3x3, "5x5 reduce" and 5x5
# convolutions, and of the projection behind the pooling.
INCEPTION = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def googlenet(
    image_shape=(224, 224, 3),
    num_classes=1000,
    include_top=True,
    weights=None,
    auxiliary_heads=False,
    classifier_activation="softmax",
):
    """GoogLeNet: 6,998,552 parameters, or 13,378,280 with the auxiliary heads.

    Szegedy et al. 2014, table 1 and figure 3. Images go in as RGB, 0 to 255; the mean colour
    is subtracted inside. There is no batch normalisation. What the paper leaves open is as
    elsewhere: local response normalisation has the constants of AlexNet, and weights start as in
    Caffe's GoogLeNet, smaller than He's: with pixels this large those diverge under SGD.

    Args:
        image_shape: (height, width, 3), at least 1 x 1; a side may be None. With auxiliary
            heads, which have fully connected layers, both sides are known and at least 65.
        num_classes: width of the classifiers.
        include_top: whether the classifier follows: global average pooling, dropout of 40 %.
        weights: None; or path of a `.h5` file of this network, as `model.save` writes it.
        auxiliary_heads: adds the classifiers behind 4a and 4d (section 5), for training; the
            paper adds 0.3 times the loss of each to that of the network.
        classifier_activation: of all classifiers; None for logits.

    Returns:
        A functional `keras.Model`; output (B, num_classes) float32; with auxiliary heads a dict
        of three such, "predictions", "auxiliary1" and "auxiliary2"; without the top
        (B, H/32, W/32, 1024), sides rounded up. Its attribute `feature_taps` holds the last
        tensor of strides "stride2" to "stride32".

    Raises:
        ValueError: an image shape that the network can't take; auxiliary heads without the top;
            a file of other weights.
    """
    if auxiliary_heads and not include_top:
        raise ValueError("auxiliary_heads=True needs include_top=True; received: False")

    def convolution(x, filters, kernel_size, name, strides=1):
        return layers.Conv2D(
            filters,
            kernel_size,
            strides,
            padding="same",
            activation="relu",
            kernel_initializer="lecun_uniform",
            bias_initializer=keras.initializers.Constant(0.2),
            name=name,
        )(x)

    def inception(x, module):
        name = f"inception_{module}"
        one, three_reduce, three, five_reduce, five, projection = INCEPTION[module]
        branch3x3 = convolution(x, three_reduce, 1, f"{name}_3x3_reduce")
        branch5x5 = convolution(x, five_reduce, 1, f"{name}_5x5_reduce")
        pooled = layers.MaxPooling2D(3, 1, padding="same", name=f"{name}_pool")(x)
        branches = [
            convolution(x, one, 1, f"{name}_1x1"),
            convolution(branch3x3, three, 3, f"{name}_3x3"),
            convolution(branch5x5, five, 5, f"{name}_5x5"),
            convolution(pooled, projection, 1, f"{name}_pool_projection"),
        ]
        return layers.Concatenate(name=name)(branches)

    def classifier(x, name):
        return layers.Dense(
            num_classes, activation=classifier_activation, dtype="float32", name=name
        )(x)

    def auxiliary_head(x, name):
        x = layers.AveragePooling2D(5, 3, name=f"{name}_pool")(x)
        x = layers.Flatten(name=f"{name}_flatten")(convolution(x, 128, 1, f"{name}_reduce"))
        x = layers.Dense(
            1024,
            activation="relu",
            kernel_initializer="lecun_uniform",
            bias_initializer=keras.initializers.Constant(0.2),
            name=f"{name}_dense",
        )(x)
        return classifier(layers.Dropout(0.7, name=f"{name}_dropout")(x), name)

    # The 5x5 pooling of the auxiliary heads wants maps of stride 16 with five cells a side.
    images = image_input(image_shape, 65 if auxiliary_heads else 1, any_size=not auxiliary_heads)
    taps = {}
    x = convolution(subtract_mean(images), 64, 7, "conv1", strides=2)
    taps["stride2"] = x
    x = layers.MaxPooling2D(3, 2, padding="same", name="pool1")(x)
    x = LocalResponseNormalization(name="norm1")(x)
    x = convolution(x, 64, 1, "conv2_reduce")
    x = convolution(x, 192, 3, "conv2")
    x = LocalResponseNormalization(name="norm2")(x)
    taps["stride4"] = x
    x = layers.MaxPooling2D(3, 2, padding="same", name="pool2")(x)
    x = inception(x, "3a")
    x = inception(x, "3b")
    taps["stride8"] = x
    x = layers.MaxPooling2D(3, 2, padding="same", name="pool3")(x)
    x = after_4a = inception(x, "4a")
    x = inception(x, "4b")
    x = inception(x, "4c")
    x = after_4d = inception(x, "4d")
    x = inception(x, "4e")
    taps["stride16"] = x
    x = layers.MaxPooling2D(3, 2, padding="same", name="pool4")(x)
    x = inception(x, "5a")
    x = inception(x, "5b")
    taps["stride32"] = x

    if include_top:
        x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
        x = classifier(layers.Dropout(0.4, name="dropout")(x), "predictions")
    outputs = x
    if auxiliary_heads:
        outputs = {
            "predictions": x,
            "auxiliary1": auxiliary_head(after_4a, "auxiliary1"),
            "auxiliary2": auxiliary_head(after_4d, "auxiliary2"),
        }
    model = keras.Model(images, outputs, name="googlenet")
    model.feature_taps = taps
    if weights is not None:
        assign(model, read_h5(weights), weights)
    return model
