"""Network in Network (Lin et al. 2014)."""

import keras
from keras import layers

from kerasvision.backbones.inputs import image_input, standardize
from kerasvision.backbones.weights import assign, read_h5

# Channels and kernel sizes of the mlpconv blocks: a convolution, and the perceptron of two more
# layers that slides along behind it. The last layer of the last block has a channel a class.
BLOCKS = [
    [(192, 5), (160, 1), (96, 1)],
    [(192, 5), (192, 1), (192, 1)],
    [(192, 3), (192, 1)],
]


def network_in_network(
    image_shape=(32, 32, 3),
    num_classes=10,
    include_top=True,
    weights=None,
    dropout_rate=0.5,
    classifier_activation="softmax",
):
    """Network in Network for CIFAR-10: 966,986 parameters, 965,056 without the classifier.

    Lin et al. 2014, sections 3.1 to 3.3 and figure 2, with the sizes, the initial weights and
    the pooling (maximum, then average) of the authors' Caffe model. There are no fully
    connected layers: the last maps, one a class, are averaged. The authors whiten the pictures;
    here RGB, 0 to 255, goes in, and is standardised by channel inside.

    Args:
        image_shape: (height, width, 3), any size from 4 pixels; a side may be None.
        num_classes: of the classifier; 100 for CIFAR-100, 10 for SVHN and MNIST.
        include_top: False: without the last layer of the third block and the average pooling.
        weights: None, or the path of an `.h5` file that this network was saved to.
        dropout_rate: behind both poolings.
        classifier_activation: behind the average pooling; None: logits, which are positive.

    Returns:
        A functional `keras.Model`; output (B, num_classes), or without the classifier
        (B, H/4, W/4, 192), sides rounded up. Its attribute `feature_taps` holds the last tensor
        of each block but for the classifier: "stride1", "stride2" and "stride4".

    Raises:
        ValueError: an argument out of range, or a weight file that isn't of this network.
    """

    def convolution(x, filters, kernel_size, name, dtype=None):
        return layers.Conv2D(
            filters,
            kernel_size,
            padding="same",
            activation="relu",
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.05),
            dtype=dtype,
            name=name,
        )(x)

    images = image_input(image_shape, min_side=4)
    x = standardize(images)
    taps = {}
    for block, block_layers in enumerate(BLOCKS, start=1):
        if block > 1:
            pooling = layers.MaxPooling2D if block == 2 else layers.AveragePooling2D
            x = pooling(3, 2, padding="same", name=f"pool{block - 1}")(x)
            x = layers.Dropout(dropout_rate, name=f"dropout{block - 1}")(x)
        for i, (filters, kernel_size) in enumerate(block_layers, start=1):
            x = convolution(x, filters, kernel_size, f"mlpconv{block}_{i}")
        taps[f"stride{2 ** (block - 1)}"] = x
    if include_top:
        x = convolution(x, num_classes, 1, "predictions", dtype="float32")
        x = layers.GlobalAveragePooling2D(dtype="float32", name="avg_pool")(x)
        x = layers.Activation(classifier_activation, dtype="float32", name="activation")(x)
    model = keras.Model(images, x, name="network_in_network")
    model.feature_taps = taps
    if weights is not None:
        assign(model, read_h5(weights), weights)
    return model
