"""Convolutions of the old papers that Keras lacks, and how to get those that it has."""

import math

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable("kerasvision")
class BilinearInitializer(keras.initializers.Initializer):
    """Makes a transposed convolution start as bilinear upsampling, channel by channel.

    FCN (Long et al. 2015), section 3.3. For upsampling by f:
    `keras.layers.Conv2DTranspose(channels, 2 * f - f % 2, strides=f, padding="same",
    kernel_initializer=BilinearInitializer(), use_bias=False)`, whose inner pixels are those of
    `keras.layers.UpSampling2D(f, interpolation="bilinear")`, for even f. Outside of the map it
    sees zeros. With `trainable=False` it stays so.

    Called with the shape (height, width, channels, channels) of a kernel.

    Raises:
        ValueError: another shape.
    """

    def __call__(self, shape, dtype=None):
        if len(shape) != 4 or shape[2] != shape[3]:
            raise ValueError(
                "shape must be (height, width, channels, channels), as many channels out as in; "
                f"received: {tuple(shape)}"
            )
        rows, columns = (_triangle(side) for side in shape[:2])
        kernel = np.zeros(shape)
        channel = np.arange(shape[2])
        kernel[:, :, channel, channel] = np.outer(rows, columns)[:, :, None]
        return ops.convert_to_tensor(kernel, dtype=dtype or keras.config.floatx())

    def get_config(self):
        return {}


def _triangle(side):
    """Weights that fall linearly from the middle of `side` cells, to zero just beyond them."""
    factor = (side + 1) // 2
    middle = (side - 1) / 2
    return 1.0 - np.abs(np.arange(side) - middle) / factor


@keras.saving.register_keras_serializable("kerasvision")
class GroupedConv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D` whose groups are convolved one by one, as AlexNet's two towers.

    AlexNet (Krizhevsky et al. 2012), section 3.2. Arguments, weights and values are those of
    `keras.layers.Conv2D`. That leaves groups to XLA where TensorFlow runs on a CPU, since
    TensorFlow's own kernel has no gradient there, and trains many times slower; on a GPU it
    is the better one.

    Input and output as of `keras.layers.Conv2D`.
    """

    def convolution_op(self, inputs, kernel):
        convolve = super().convolution_op
        axis = -1 if self.data_format == "channels_last" else 1
        towers = zip(
            ops.split(inputs, self.groups, axis=axis), ops.split(kernel, self.groups, axis=-1)
        )
        return ops.concatenate([convolve(x, weights) for x, weights in towers], axis=axis)


@keras.saving.register_keras_serializable("kerasvision")
class EqualizedConv2D(keras.layers.Conv2D):
    """Convolution with an equalised learning rate: ProGAN (Karras et al. 2018), section 4.1.

    Weights start from N(0, 1), and are multiplied at run time by He's constant
    gain / sqrt(height * width * input channels / groups): optimisers that scale each weight's
    step, such as Adam, then learn all layers at the same pace.

    Args:
        gain: sqrt(2) before (leaky) ReLU, 1 in last layers.
        All others are those of `keras.layers.Conv2D`.

    Input (B, height, width, channels), output as from `keras.layers.Conv2D`.
    """

    def __init__(self, filters, kernel_size, *, gain=math.sqrt(2.0), **kwargs):
        super().__init__(filters, kernel_size, **{"kernel_initializer": _normal(), **kwargs})
        self.gain = gain

    def convolution_op(self, inputs, kernel):
        return super().convolution_op(inputs, kernel * _he(self.gain, self.kernel.shape))

    def get_config(self):
        return {**super().get_config(), "gain": self.gain}


@keras.saving.register_keras_serializable("kerasvision")
class EqualizedDense(keras.layers.Dense):
    """Dense layer with an equalised learning rate, as in `EqualizedConv2D`.

    Args:
        gain: as in `EqualizedConv2D`.
        All others are those of `keras.layers.Dense`.

    Input (..., features), output (..., units).
    """

    def __init__(self, units, *, gain=math.sqrt(2.0), **kwargs):
        super().__init__(units, **{"kernel_initializer": _normal(), **kwargs})
        self.gain = gain

    def call(self, inputs, training=None):
        # Linear in the inputs as in the kernel, and the bias isn't scaled.
        return super().call(inputs * _he(self.gain, self.kernel.shape), training=training)

    def get_config(self):
        return {**super().get_config(), "gain": self.gain}


def _normal():
    # A new one for each layer: one initializer gives equal kernels to equal layers.
    return keras.initializers.RandomNormal(stddev=1.0)


def _he(gain, kernel_shape):
    return gain / math.sqrt(math.prod(kernel_shape[:-1]))
