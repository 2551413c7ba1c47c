"""Normalisation layers that Keras lacks.

Instance normalisation (Ulyanov et al. 2016) is `keras.layers.GroupNormalization(groups=-1)`.
"""

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
        _check_positive(epsilon=epsilon)
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

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "scale": self.scale, "epsilon": self.epsilon}


@keras.saving.register_keras_serializable("kerasvision")
class LocalResponseNormalization(keras.layers.Layer):
    """Divides each activation by what its neighbouring channels amount to at the same place.

    AlexNet (Krizhevsky et al. 2012), section 3.3:
    b_i = a_i / (k + alpha * sum over j of a_j^2) ^ beta, j from i - n/2 to i + n/2, as far as
    there are channels. Caffe and PyTorch divide alpha by n first: theirs of 1e-4 is 2e-5 here.

    Args:
        n: number of neighbouring channels, itself included; odd.
        k, alpha, beta: constants of the formula.

    Input and output: (..., channels).

    Raises:
        ValueError: an n that isn't odd and positive; a k that isn't positive.
    """

    def __init__(self, n=5, k=2.0, alpha=1e-4, beta=0.75, **kwargs):
        super().__init__(**kwargs)
        if not (isinstance(n, int) and n > 0 and n % 2):
            raise ValueError(f"n must be an odd positive integer; received: {n}")
        _check_positive(k=k)
        self.n = n
        self.k = k
        self.alpha = alpha
        self.beta = beta

    def call(self, inputs):
        channels, reach = inputs.shape[-1], self.n // 2
        margins = [(0, 0)] * (len(inputs.shape) - 1) + [(reach, reach)]

        def sum_of_neighbours(x):
            x = ops.pad(x, margins)
            return sum(x[..., i : i + channels] for i in range(self.n))

        # Written out, the gradient is several times faster: i is j's neighbour as j is i's.
        @ops.custom_gradient
        def normalize(x):
            base = self.k + self.alpha * sum_of_neighbours(ops.square(x))
            factor = ops.exp(-self.beta * ops.log(base))  # a power, but faster
            y = x * factor

            def gradient(upstream):
                shared = sum_of_neighbours(upstream * y / base)
                return upstream * factor - 2 * self.alpha * self.beta * x * shared

            return y, gradient

        return ops.cast(normalize(ops.cast(inputs, "float32")), self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        config = {"n": self.n, "k": self.k, "alpha": self.alpha, "beta": self.beta}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable("kerasvision")
class PixelNormalization(keras.layers.Layer):
    """Divides the channels at each place by their root mean square.

    ProGAN (Karras et al. 2018), section 4.2. No parameters.

    Args:
        epsilon: added to the mean square.

    Input and output: (..., channels).
    """

    def __init__(self, epsilon=1e-8, **kwargs):
        super().__init__(**kwargs)
        _check_positive(epsilon=epsilon)
        self.epsilon = epsilon

    def call(self, inputs):
        x = ops.cast(inputs, "float32")
        mean_square = ops.mean(ops.square(x), axis=-1, keepdims=True)
        return ops.cast(x * ops.rsqrt(mean_square + self.epsilon), self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon}


@keras.saving.register_keras_serializable("kerasvision")
class MinibatchStandardDeviation(keras.layers.Layer):
    """Appends a channel that tells how much the pictures of a group differ.

    ProGAN (Karras et al. 2018), section 3: the standard deviation over the group at each
    place and channel, averaged over all of them, is a number a group, and fills the channel.
    Of a batch of B pictures, i and j are of one group if they are equal modulo M = ceil(B / G),
    as in the authors' code, which wants M * G pictures. Here any number will do, as the last
    batch of an epoch may bring: some of the M groups are then smaller.

    Args:
        group_size: G, the most pictures a group.
        epsilon: added to the variance.

    Input (B, height, width, channels), output (B, height, width, channels + 1).

    Raises:
        ValueError: a group size below 1; inputs of another rank.
    """

    def __init__(self, group_size=4, epsilon=1e-8, **kwargs):
        super().__init__(**kwargs)
        if not (isinstance(group_size, int) and group_size >= 1):
            raise ValueError(f"group_size must be a positive integer; received: {group_size}")
        _check_positive(epsilon=epsilon)
        self.group_size = group_size
        self.epsilon = epsilon

    def call(self, inputs):
        if len(inputs.shape) != 4:
            raise ValueError(
                "inputs must have shape (batch, height, width, channels); "
                f"received: {tuple(inputs.shape)}"
            )
        batch = ops.shape(inputs)[0]
        group = ops.arange(batch) % ((batch + self.group_size - 1) // self.group_size)
        together = ops.cast(ops.equal(group[:, None], group), "float32")
        pictures = ops.sum(together, axis=1)[:, None, None, None]

        def group_mean(x):
            return ops.einsum("ij,jhwc->ihwc", together, x) / pictures

        x = ops.cast(inputs, "float32")
        variance = group_mean(ops.square(x - group_mean(x)))
        deviation = ops.mean(ops.sqrt(variance + self.epsilon), axis=(1, 2, 3), keepdims=True)
        channel = ops.ones_like(x[..., :1]) * deviation
        return ops.concatenate([inputs, ops.cast(channel, inputs.dtype)], axis=-1)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], input_shape[-1] + 1)

    def get_config(self):
        config = {"group_size": self.group_size, "epsilon": self.epsilon}
        return {**super().get_config(), **config}


def _check_positive(**settings):
    for name, value in settings.items():
        if not value > 0:
            raise ValueError(f"{name} must be positive; received: {value}")
