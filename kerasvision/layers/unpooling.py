"""Max pooling that remembers places, and the unpoolings that go back to them, as layers."""

import keras

from kerasvision.ops import unpooling


@keras.saving.register_keras_serializable("kerasvision")
class MaxPoolingWithIndices2D(keras.layers.Layer):
    """Max pooling that also returns where in its window each maximum was.

    SegNet (Badrinarayanan et al. 2017), section 3; DeconvNet (Noh et al. 2015), section
    3.2.1.

    Args:
        pool_size: height and width of the windows: a number or a pair.
        strides: steps from window to window: a number, a pair, or None for `pool_size`.
        padding: "valid" or "same".

    Call with (B, H, W, C); returns maxima (B, H', W', C) and indices (B, H', W', C) int32,
    the cell of the window, row by row, for `MaxUnpooling2D`. Height, width and channels must
    be known. See `kerasvision.ops.unpooling.max_pooling_with_indices`.

    Raises:
        ValueError: a setting out of range; a window larger than the map under "valid".
    """

    def __init__(self, pool_size=2, strides=None, padding="valid", **kwargs):
        super().__init__(**kwargs)
        unpooling.unpooled_size((1, 1), pool_size, strides, padding)  # checks the settings
        self.pool_size = pool_size
        self.strides = strides
        self.padding = padding

    def call(self, inputs):
        return unpooling.max_pooling_with_indices(
            inputs, self.pool_size, self.strides, self.padding
        )

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        size = unpooling.pooled_size((height, width), self.pool_size, self.strides, self.padding)
        shape = (batch, *size, channels)
        return shape, shape

    def compute_output_spec(self, inputs):
        maxima, indices = self.compute_output_shape(inputs.shape)
        return (
            keras.KerasTensor(maxima, dtype=self.compute_dtype),
            keras.KerasTensor(indices, dtype="int32"),
        )

    def get_config(self):
        return {
            **super().get_config(),
            "pool_size": self.pool_size,
            "strides": self.strides,
            "padding": self.padding,
        }


@keras.saving.register_keras_serializable("kerasvision")
class MaxUnpooling2D(keras.layers.Layer):
    """Puts values back where max pooling took its maxima from; all other places are zero.

    SegNet (Badrinarayanan et al. 2017), section 3; DeconvNet (Noh et al. 2015), section
    3.2.1. Of values that belong to one place the last in row-major order stays.

    Args:
        pool_size, strides, padding: those of the `MaxPoolingWithIndices2D`.
        output_size: height and width of the map that was pooled; None: the smallest under
            "valid", the largest under "same" that pools to the size of the inputs. It must
            be given where pooling left a remainder, as behind maps of odd height or width.

    Call with inputs (B, H', W', C) and indices (B, H', W', C) int32; returns (B, H, W, C).
    Height, width and channels must be known. See `kerasvision.ops.unpooling.max_unpooling`.

    Raises:
        ValueError: a setting out of range; an output size that doesn't pool to (H', W').
    """

    def __init__(self, pool_size=2, strides=None, padding="valid", output_size=None, **kwargs):
        super().__init__(**kwargs)
        unpooling.unpooled_size((1, 1), pool_size, strides, padding)  # checks the settings
        self.pool_size = pool_size
        self.strides = strides
        self.padding = padding
        self.output_size = output_size

    def call(self, inputs, indices):
        return unpooling.max_unpooling(
            inputs, indices, self.pool_size, self.strides, self.padding, self.output_size
        )

    def compute_output_shape(self, inputs_shape, indices_shape):
        batch, height, width, channels = inputs_shape
        size = unpooling.unpooled_size(
            (height, width), self.pool_size, self.strides, self.padding, self.output_size
        )
        return (batch, *size, channels)

    def get_config(self):
        return {
            **super().get_config(),
            "pool_size": self.pool_size,
            "strides": self.strides,
            "padding": self.padding,
            "output_size": self.output_size,
        }


@keras.saving.register_keras_serializable("kerasvision")
class BedOfNailsUnpooling2D(keras.layers.Layer):
    """Puts every value into the upper left cell of its own window, and zeros into the others.

    The unpooling that fills the window instead is `keras.layers.UpSampling2D`.

    Args:
        size: height and width of the windows: a number or a pair.

    Call with (B, H, W, C); returns (B, H * size[0], W * size[1], C).

    Raises:
        ValueError: a size that isn't positive; unknown height, width or channels.
    """

    def __init__(self, size=2, **kwargs):
        super().__init__(**kwargs)
        unpooling.unpooled_size((1, 1), size)  # checks the setting
        self.size = size

    def call(self, inputs):
        return unpooling.bed_of_nails_unpooling(inputs, self.size)

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        return (batch, *unpooling.unpooled_size((height, width), self.size), channels)

    def get_config(self):
        return {**super().get_config(), "size": self.size}
