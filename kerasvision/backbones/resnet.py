"""Residual networks of basic blocks (He et al. 2015)."""

import keras
from keras import layers


def resnet18(image_shape=(None, None, 3), width=64, depths=(2, 2, 2, 2), batch_norm_momentum=0.97):
    """ResNet-18 without its classifier, for training from scratch on small images.

    He et al. 2015, table 1 and figure 5 left, shortcuts of option B; 11,173,962 parameters less
    the classifier at the paper's width. As in ScratchDet (Zhu et al. 2019, section 3.3) one
    3x3 convolution takes the place of the 7x7 one at the start, which loses too much of a small
    image. Images go in as RGB, 0 to 255; they are normalised inside.

    Args:
        image_shape: (height, width, 3); a side may be None.
        width: channels of the first stage, doubled at each of the next three.
        depths: residual blocks of the four stages.
        batch_norm_momentum: of the moving averages.

    Returns:
        A functional `keras.Model`; output (B, H/32, W/32, 8 * width), sides rounded up. Its
        attribute `feature_taps` holds the last tensor of each stage: "stride4" to "stride32".
    """

    def convolution(x, filters, kernel_size, stride, name):
        x = layers.Conv2D(
            filters,
            kernel_size,
            stride,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            name=f"{name}_conv",
        )(x)
        return layers.BatchNormalization(momentum=batch_norm_momentum, name=f"{name}_bn")(x)

    images = keras.Input(image_shape, name="images")
    x = layers.Rescaling(1 / 64, -2.0, name="normalize")(images)
    x = layers.ReLU(name="conv1_relu")(convolution(x, width, 3, 2, "conv1"))
    x = layers.MaxPooling2D(3, 2, padding="same", name="pool1")(x)
    taps = {}
    for stage, depth in enumerate(depths):
        filters = width * 2**stage
        for block in range(depth):
            name = f"conv{stage + 2}_{block + 1}"
            stride = 2 if stage > 0 and block == 0 else 1
            residual = convolution(x, filters, 3, stride, f"{name}_1")
            residual = layers.ReLU(name=f"{name}_1_relu")(residual)
            residual = convolution(residual, filters, 3, 1, f"{name}_2")
            if stride != 1 or x.shape[-1] != filters:
                x = convolution(x, filters, 1, stride, f"{name}_shortcut")
            x = layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([x, residual]))
        taps[f"stride{4 * 2**stage}"] = x
    model = keras.Model(images, x, name="resnet18")
    model.feature_taps = taps
    return model
