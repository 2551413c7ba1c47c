"""Normalisation layers that Keras lacks."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("kerasvision")
class L2Normalization(keras.layers.Layer):
    """Scales the channels at each place to unit length times a learnt factor a channel.

    ParseNet (Liu et al. 2015), section 3.3; SSD applies it to conv4_3, whose values are
    larger than those of the later maps. One parameter a channel.

    Args:
        scale: first value of the factors; 20 in SSD.
        epsilon: lower limit of the squared length, for places that are zero throughout.

    Input and output: (..., channels).
    """

    def __init__(self, scale=20.0, epsilon=1e-10, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale
        self.epsilon = epsilon

    def build(self, input_shape):
        self.gamma = self.add_weight(
            name="gamma",
            shape=(input_shape[-1],),
            initializer=keras.initializers.Constant(self.scale),
        )

    def call(self, inputs):
        # The sum of squares of 512 half-precision activations can overflow.
        x = ops.cast(inputs, "float32")
        squared_length = ops.sum(ops.square(x), axis=-1, keepdims=True)
        x = x * ops.rsqrt(ops.maximum(squared_length, self.epsilon))
        return ops.cast(x * ops.cast(self.gamma, "float32"), self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "scale": self.scale, "epsilon": self.epsilon}
