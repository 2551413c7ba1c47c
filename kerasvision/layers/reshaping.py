"""Layers that move pixels."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("kerasvision")
class SpaceToDepth(keras.layers.Layer):
    """Stacks each block of pixels into the channels of one.

    YOLOv2's passthrough (Redmon & Farhadi 2017, "Fine-Grained Features"). Channel c of the
    block's pixel (i, j) becomes channel (i * block_size + j) * channels + c, as in
    `tf.nn.space_to_depth`. (Darknet's own "reorg" moves rows between cells as well; for its
    weights there is `kerasvision.detection.yolo_v2.DarknetReorg`.)

    Args:
        block_size: side of the blocks.

    Input (B, H, W, C), output (B, H / block_size, W / block_size, C * block_size^2).

    Raises:
        ValueError: a block size below 1; height or width that isn't a multiple of it.
    """

    def __init__(self, block_size=2, **kwargs):
        super().__init__(**kwargs)
        _check_block_size(block_size)
        self.block_size = block_size

    def call(self, inputs):
        depth = self.compute_output_shape(inputs.shape)[-1]
        size, (_, height, width, channels) = self.block_size, ops.shape(inputs)
        rows, columns = height // size, width // size
        x = ops.reshape(inputs, (-1, rows, size, columns, size * channels))
        return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4)), (-1, rows, columns, depth))

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        size = self.block_size
        if any(side is not None and side % size for side in (height, width)):
            raise ValueError(
                f"inputs must have a height and width that {size} divides; "
                f"received: {tuple(input_shape)}"
            )
        rows, columns = (side and side // size for side in (height, width))
        return batch, rows, columns, channels * size**2

    def get_config(self):
        return {**super().get_config(), "block_size": self.block_size}


@keras.saving.register_keras_serializable("kerasvision")
class DepthToSpace(keras.layers.Layer):
    """Spreads the channels of each pixel over a block of pixels; undoes `SpaceToDepth`.

    The sub-pixel convolution of ESPCN (Shi et al. 2016, section 3.2) and SRGAN is a
    convolution followed by it. Equal to `tf.nn.depth_to_space`.

    Args:
        block_size: side of the blocks.

    Input (B, H, W, C), output (B, H * block_size, W * block_size, C / block_size^2).

    Raises:
        ValueError: a block size below 1; channels that aren't a multiple of its square.
    """

    def __init__(self, block_size=2, **kwargs):
        super().__init__(**kwargs)
        _check_block_size(block_size)
        self.block_size = block_size

    def call(self, inputs):
        channels = self.compute_output_shape(inputs.shape)[-1]
        size, (_, height, width, _) = self.block_size, ops.shape(inputs)
        x = ops.reshape(inputs, (-1, height, width, size, size * channels))
        x = ops.transpose(x, (0, 1, 3, 2, 4))
        return ops.reshape(x, (-1, height * size, width * size, channels))

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        size = self.block_size
        if channels % size**2:
            raise ValueError(
                f"inputs must have a multiple of {size**2} channels; received: {tuple(input_shape)}"
            )
        rows, columns = (side and side * size for side in (height, width))
        return batch, rows, columns, channels // size**2

    def get_config(self):
        return {**super().get_config(), "block_size": self.block_size}


@keras.saving.register_keras_serializable("kerasvision")
class ReflectionPadding2D(keras.layers.Layer):
    """Pads pictures with their own mirror image, without the border pixels twice.

    What fast style transfer (Johnson et al. 2016, supplementary material) and CycleGAN pad
    with.

    Args:
        padding: pixels at each side: a number; a pair for (rows, columns); or
            ((top, bottom), (left, right)).

    Input (B, H, W, C), output (B, top + H + bottom, left + W + right, C).

    Raises:
        ValueError: another or a negative padding; one not smaller than the picture.
    """

    def __init__(self, padding=1, **kwargs):
        super().__init__(**kwargs)
        rows, columns = (padding, padding) if isinstance(padding, int) else padding
        self.padding = tuple((p, p) if isinstance(p, int) else tuple(p) for p in (rows, columns))
        if not all(len(p) == 2 and min(p) >= 0 for p in self.padding):
            raise ValueError(f"padding must be whole numbers from 0; received: {padding}")

    def call(self, inputs):
        for side, name, margins in zip(inputs.shape[1:3], ("height", "width"), self.padding):
            if side is not None and max(margins) >= side:
                raise ValueError(
                    f"padding must be smaller than the {name} of {side}; received: {margins}"
                )
        return ops.pad(inputs, [(0, 0), *self.padding, (0, 0)], mode="reflect")

    def compute_output_shape(self, input_shape):
        batch, *sides, channels = input_shape
        sides = [s if s is None else s + sum(p) for s, p in zip(sides, self.padding)]
        return (batch, *sides, channels)

    def get_config(self):
        return {**super().get_config(), "padding": self.padding}


def _check_block_size(block_size):
    if not (isinstance(block_size, int) and block_size >= 1):
        raise ValueError(f"block_size must be a positive integer; received: {block_size}")
