"""U-Net (Ronneberger, Fischer and Brox 2015, "U-Net: Convolutional Networks for Biomedical Image
Segmentation").

A contracting path that sees context, and an expanding one that gets, at each scale, the maps that
the other had there. Its convolutions are not padded: what it predicts, it has seen all around.
"""

import keras
from keras import layers

from kerasvision.backbones.inputs import image_input, minus_one_to_one
from kerasvision.segmentation.segmenter import Segmenter, in_float32

STEPS = 4  # poolings, and upsamplings


def unet(
    num_classes,
    image_shape=(572, 572, 3),
    class_names=None,
    class_weights=None,
    filters=64,
    padding="valid",
    upsampling="transposed",
    batch_norm_momentum=None,
    dropout_rate=0.5,
):
    """U-Net: 31,031,810 parameters with 2 classes of colour pictures, 31,030,658 of grey ones.

    Section 2 and figure 1.

    Args:
        num_classes: C.
        image_shape: (height, width, 3), or 1 for grey pictures; see `padding`.
        class_names, class_weights: as in `Segmenter`.
        filters: of the first convolutions; each step down doubles them.
        padding: "valid": as in the paper, 572 pixels see 388, and the maps of the contracting path
            are cropped to the others'. Sides s must leave even maps to pool and something in the
            end: 188 + 16 n. "same": each pixel is predicted, sides are multiples of 16.
        upsampling: "transposed": 2x2 transposed convolutions, as in the paper, whose kernel its
            stride divides, so that they leave no checkerboard; "bilinear": upsampling, then a 2x2
            convolution, with as many parameters.
        batch_norm_momentum: of batch normalisation behind each 3x3 convolution, which the paper
            does without; None: none.
        dropout_rate: "at the end of the contracting path".

    Returns:
        `Segmenter`; with "valid" its masks are cropped to the middle that it predicts.

    Raises:
        ValueError: a size or a setting out of range.
    """
    if padding not in ("valid", "same"):
        raise ValueError(f"padding must be 'valid' or 'same'; received: {padding!r}")
    if upsampling not in ("transposed", "bilinear"):
        raise ValueError(f"upsampling must be 'transposed' or 'bilinear'; received: {upsampling!r}")
    sides, smallest = image_shape[:2], {"valid": 188, "same": 16}[padding]
    if any(side < smallest or (side - smallest) % 16 for side in sides):
        raise ValueError(
            f"image_shape must have sides {smallest}, {smallest + 16}, {smallest + 32}, … with "
            f"padding={padding!r}; received: {tuple(image_shape)}"
        )

    def convolution(x, filters, name):
        x = layers.Conv2D(filters, 3, padding=padding, kernel_initializer="he_normal", name=name)(x)
        if batch_norm_momentum is not None:
            x = layers.BatchNormalization(momentum=batch_norm_momentum, name=f"{name}_bn")(x)
        return layers.ReLU(name=f"{name}_relu")(x)

    def upsample(x, filters, name):
        settings = {"kernel_initializer": "he_normal", "name": name}
        if upsampling == "transposed":
            return layers.Conv2DTranspose(filters, 2, strides=2, **settings)(x)
        x = layers.UpSampling2D(2, interpolation="bilinear", name=f"{name}_bilinear")(x)
        return layers.Conv2D(filters, 2, padding="same", **settings)(x)

    images = image_input(image_shape, any_size=False)
    x = minus_one_to_one(images)
    contracting = []
    for step in range(STEPS):
        x = convolution(x, filters << step, f"down{step}_conv1")
        x = convolution(x, filters << step, f"down{step}_conv2")
        if step == STEPS - 1:
            x = layers.Dropout(dropout_rate, name=f"down{step}_dropout")(x)
        contracting.append(x)
        x = layers.MaxPooling2D(2, name=f"down{step}_pool")(x)
    x = convolution(x, filters << STEPS, "bottom_conv1")
    x = convolution(x, filters << STEPS, "bottom_conv2")
    x = layers.Dropout(dropout_rate, name="bottom_dropout")(x)
    for step in reversed(range(STEPS)):
        x = upsample(x, filters << step, f"up{step}_upsample")
        x = layers.Concatenate(name=f"up{step}_concat")(
            [_middle(contracting[step], x.shape[1:3], f"up{step}_crop"), x]
        )
        x = convolution(x, filters << step, f"up{step}_conv1")
        x = convolution(x, filters << step, f"up{step}_conv2")
    logits = layers.Conv2D(num_classes, 1, kernel_initializer="he_normal", name="scores")(x)
    network = keras.Model(images, in_float32(logits), name="network")
    return Segmenter(network, class_names, class_weights, name="unet")


def _middle(x, size, name):
    """The middle (height, width) of a map; the map itself if that is all of it."""
    margins = [(have - want) // 2 for have, want in zip(x.shape[1:3], size)]
    return layers.Cropping2D(margins, name=name)(x) if any(margins) else x
