"""Pooling layers that Keras lacks."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("kerasvision")
class L2Pooling2D(keras.layers.Layer):
    """The root mean square of each channel over a window.

    Sermanet, Chintala and LeCun 2012 ("Convolutional Neural Networks Applied to House Numbers
    Digit Classification"), equation 1, with P = 2 and equal weights of sum 1; FaceNet's NN2 has
    it in its Inception modules. The gradient of a window of zeros is 0.

    Args:
        pool_size: of the window, one number or (height, width).
        strides: one number or two; None: the window's size.
        padding: "valid" or "same"; padded cells don't count.

    Input and output: (B, H, W, channels), output sides as of `keras.layers.AveragePooling2D`.
    """

    def __init__(self, pool_size=2, strides=None, padding="valid", **kwargs):
        super().__init__(**kwargs)
        self.pool_size = pool_size
        self.strides = strides
        self.padding = padding

    def call(self, inputs):
        # Squares of half-precision activations can overflow.
        squares = ops.square(ops.cast(inputs, "float32"))
        means = ops.average_pool(squares, self.pool_size, self.strides, self.padding)
        positive = means > 0.0
        roots = ops.where(positive, ops.sqrt(ops.where(positive, means, 1.0)), 0.0)
        return ops.cast(roots, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return ops.average_pool(
            keras.KerasTensor(input_shape), self.pool_size, self.strides, self.padding
        ).shape

    def get_config(self):
        return {
            **super().get_config(),
            "pool_size": self.pool_size,
            "strides": self.strides,
            "padding": self.padding,
        }
