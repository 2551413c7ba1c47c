"""VGG-16 (Simonyan and Zisserman 2014, configuration D), its convolutions."""

import keras
from keras import layers

from kerasvision.backbones.weights import assign, read_h5

URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/vgg16/"
    "vgg16_weights_tf_dim_ordering_tf_kernels.h5"
)
# Mean colour of ImageNet, RGB.
MEAN = (123.68, 116.779, 103.939)


def vgg16(image_shape=(None, None, 3), weights=None):
    """The 13 convolutions of VGG-16, before the fifth pooling: 14,714,688 parameters.

    Simonyan and Zisserman 2014, table 1, column D. Images go in as RGB, 0 to 255; the mean
    colour is subtracted inside.

    Args:
        image_shape: (height, width, 3); a side may be None.
        weights: None; or "imagenet", the file of keras.applications, fetched by Keras (the
            one with the classifier, 553 MB); or the path of a file of that layout (`.h5`),
            with or without the classifier.

    Returns:
        A functional `keras.Model`; output (B, H/16, W/16, 512), odd sides rounded up.
        Its attribute `feature_taps` holds the last tensor of each block by stride: "stride1",
        "stride2", …, "stride16". The layers are named block1_conv1 to block5_conv3.
    """
    images = keras.Input(image_shape, name="images")
    x = layers.Rescaling(1.0, offset=[-m for m in MEAN], name="subtract_mean")(images)
    taps = {}
    for block, (depth, filters) in enumerate(
        [(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)], start=1
    ):
        if block > 1:
            # "same" pooling of an odd side rounds up, as Caffe does: 75 becomes 38 in SSD300.
            x = layers.MaxPooling2D(2, 2, padding="same", name=f"block{block - 1}_pool")(x)
        for i in range(1, depth + 1):
            x = layers.Conv2D(
                filters, 3, padding="same", activation="relu", name=f"block{block}_conv{i}"
            )(x)
        taps[f"stride{2 ** (block - 1)}"] = x
    model = keras.Model(images, x, name="vgg16")
    model.feature_taps = taps
    if weights is not None:
        assign(model, read_vgg16(weights), weights)
    return model


def read_vgg16(weights):
    """Arrays by layer name for RGB input; `weights` as in `vgg16`.

    The published filters see BGR pictures: turning those of the first layer round costs
    nothing, turning every picture round does.
    """
    path = (
        keras.utils.get_file(
            "vgg16_imagenet.h5",
            URL,
            cache_subdir="models",
            file_hash="64373286793e3c8b2b4e3219cbf3544b",
        )
        if weights == "imagenet"
        else weights
    )
    arrays = read_h5(path)
    if "block1_conv1" not in arrays:
        raise ValueError(f"{path}: not a VGG-16 file; received layers: {list(arrays)[:3]}")
    kernel, bias = arrays["block1_conv1"]
    arrays["block1_conv1"] = [kernel[:, :, ::-1, :], bias]
    return arrays
