"""Max pooling that remembers places, and the unpoolings that go back to them.

All of them look at cell (i, j) of all windows at once. Cut the map into strides[0] * strides[1]
phases, phase (i, j) holding every strides[0]-th row from row i and every strides[1]-th column
from column j: a cell of all windows is then a plain slice of one phase, and pooling and
unpooling are a few comparisons of whole maps, without gathering or scattering.

`take` and `place` of `_Windows` are each other's transposes: the gradient of pooling places,
and that of unpooling takes.
"""

import dataclasses

import keras
import numpy as np
from keras import ops


def max_pooling_with_indices(inputs, pool_size=2, strides=None, padding="valid"):
    """Max pooling that also returns where in its window each maximum was.

    SegNet (Badrinarayanan et al. 2017), section 3; DeconvNet (Noh et al. 2015), section
    3.2.1. Of equal maxima the first in row-major order counts, as in
    `tf.nn.max_pool_with_argmax`, and receives the gradient.

    Args:
        inputs: (B, H, W, C) float.
        pool_size: height and width of the windows: a number or a pair.
        strides: steps from window to window: a number, a pair, or None for `pool_size`.
        padding: "valid": only whole windows; "same": ceil(H / stride) rows of windows, whose
            cells outside the map don't count.

    Returns:
        Maxima (B, H', W', C) in the dtype of the inputs, and indices (B, H', W', C) int32:
        the cell of the window, row by row, 0 to pool_size[0] * pool_size[1] - 1. They don't
        depend on the picture's size nor on its place in the batch; two bits hold those of
        windows of 2x2.

    Raises:
        ValueError: inputs of another rank or without static height, width and channels;
            a setting out of range; a window larger than the map under "valid".
    """
    inputs = ops.convert_to_tensor(inputs)
    _check_map(inputs)
    windows = _Windows.over(inputs.shape[1:3], pool_size, strides, padding)

    @ops.custom_gradient
    def pool(x):
        maxima, indices = windows.maxima(x)

        def gradient(*upstream):
            # TensorFlow passes one gradient for each output, JAX one tuple of them.
            return windows.place(keras.tree.flatten(upstream)[0], indices)

        return (maxima, indices), gradient

    return pool(inputs)


def max_unpooling(inputs, indices, pool_size=2, strides=None, padding="valid", output_size=None):
    """Puts values back where max pooling took its maxima from; all other places are zero.

    SegNet (Badrinarayanan et al. 2017), section 3; DeconvNet (Noh et al. 2015), section
    3.2.1. Where windows overlap, several values can belong to one place: as in both papers'
    Caffe layers (and in PyTorch's on CPUs) the last one in row-major order is written over
    the others, which then receive no gradient.

    Args:
        inputs: (B, H', W', C) float.
        indices: (B, H', W', C) integers from `max_pooling_with_indices`; a value whose index
            is no cell of the window, or outside the map, is dropped.
        pool_size, strides, padding: those of the pooling.
        output_size: (H, W) of the map that was pooled; None: the smallest under "valid", the
            largest under "same" that pools to (H', W').

    Returns:
        (B, H, W, C) in the dtype of the inputs.

    Raises:
        ValueError: shapes that differ, a rank other than 4 or without static height, width
            and channels; indices that are no integers; a setting out of range; an output
            size that doesn't pool to (H', W').
    """
    inputs, indices = ops.convert_to_tensor(inputs), ops.convert_to_tensor(indices)
    _check_map(inputs)
    if tuple(indices.shape[1:]) != tuple(inputs.shape[1:]) or len(indices.shape) != 4:
        raise ValueError(
            "indices must have the shape of inputs; "
            f"received: {tuple(indices.shape)} for {tuple(inputs.shape)}"
        )
    if "int" not in str(indices.dtype):
        raise ValueError(f"indices must be integers; received: {indices.dtype}")
    size = unpooled_size(inputs.shape[1:3], pool_size, strides, padding, output_size)
    windows = _Windows.over(size, pool_size, strides, padding)
    indices = windows.without_overwritten(ops.cast(indices, "int32"))

    @ops.custom_gradient
    def unpool(values, indices):
        def gradient(upstream):
            return windows.take(upstream, indices), None

        return windows.place(values, indices), gradient

    return unpool(inputs, indices)


def bed_of_nails_unpooling(inputs, size=2):
    """Puts every value into the upper left cell of its own window, and zeros into the others.

    Args:
        inputs: (B, H, W, C).
        size: height and width of the windows: a number or a pair.

    Returns:
        (B, H * size[0], W * size[1], C) in the dtype of the inputs.

    Raises:
        ValueError: inputs of another rank or without static height, width and channels; a
            size that isn't positive.
    """
    inputs = ops.convert_to_tensor(inputs)
    _check_map(inputs)
    rows, columns = _pair(size, "size")
    phases = [[ops.zeros_like(inputs)] * columns for _ in range(rows)]
    phases[0][0] = inputs
    return _interleave(phases)


def nearest_unpooling(inputs, size=2):
    """Fills the whole window of every value with that value.

    Args:
        inputs: (B, H, W, C).
        size: height and width of the windows: a number or a pair.

    Returns:
        (B, H * size[0], W * size[1], C) in the dtype of the inputs.

    Raises:
        ValueError: inputs of another rank or without static height, width and channels; a
            size that isn't positive.
    """
    inputs = ops.convert_to_tensor(inputs)
    _check_map(inputs)
    rows, columns = _pair(size, "size")
    return _interleave([[inputs] * columns] * rows)


def pooled_size(size, pool_size=2, strides=None, padding="valid"):
    """Height and width that pooling makes of a map.

    Args:
        size: (H, W) of the map.
        pool_size, strides, padding: as in `max_pooling_with_indices`.

    Returns:
        (H', W').

    Raises:
        ValueError: a setting out of range; a window larger than the map under "valid".
    """
    return _Windows.over(size, pool_size, strides, padding).counts


def unpooled_size(size, pool_size=2, strides=None, padding="valid", output_size=None):
    """Height and width that unpooling makes of a pooled map.

    Args:
        size: (H', W') of the pooled map.
        pool_size, strides, padding, output_size: as in `max_unpooling`.

    Returns:
        (H, W): `output_size`, if it is given.

    Raises:
        ValueError: a setting out of range; an output size that doesn't pool to (H', W').
    """
    size, window = _pair(size, "size of the map"), _pair(pool_size, "pool_size")
    steps = window if strides is None else _pair(strides, "strides")
    if output_size is None:
        if padding == "same":
            output_size = (size[0] * steps[0], size[1] * steps[1])
        else:
            output_size = tuple((size[a] - 1) * steps[a] + window[a] for a in (0, 1))
    output_size = _pair(output_size, "output_size")
    if pooled_size(output_size, window, steps, padding) != size:
        raise ValueError(
            f"output_size must be that of a map which pools to {size}; received: {output_size}"
        )
    return output_size


@dataclasses.dataclass(frozen=True)
class _Windows:
    """The windows of a pooling over a map; all fields are pairs for height and width."""

    size: tuple  # of the map
    shape: tuple  # of a window
    strides: tuple
    counts: tuple  # of windows
    before: tuple  # padding above and to the left of the map

    @classmethod
    def over(cls, size, pool_size, strides, padding):
        """Windows over a map, from the settings of a pooling."""
        size, shape = _pair(size, "size of the map"), _pair(pool_size, "pool_size")
        strides = shape if strides is None else _pair(strides, "strides")
        if padding == "valid":
            if size[0] < shape[0] or size[1] < shape[1]:
                raise ValueError(
                    f"pool_size must be at most the size of the map, {size}, "
                    f"if padding is 'valid'; received: {shape}"
                )
            counts = tuple((size[a] - shape[a]) // strides[a] + 1 for a in (0, 1))
            return cls(size, shape, strides, counts, (0, 0))
        if padding != "same":
            raise ValueError(f"padding must be 'valid' or 'same'; received: {padding!r}")
        counts = tuple(-(-size[a] // strides[a]) for a in (0, 1))
        missing = ((counts[a] - 1) * strides[a] + shape[a] - size[a] for a in (0, 1))
        return cls(size, shape, strides, counts, tuple(max(m, 0) // 2 for m in missing))

    @property
    def phase_size(self):
        """Rows and columns of a phase: the windows' first cells in it, and those beyond."""
        return tuple(self.counts[a] + (self.shape[a] - 1) // self.strides[a] for a in (0, 1))

    def maxima(self, x):
        """(B, H', W', C) maximum of every window, and the index of its cell, int32."""
        # Nothing exceeds minus infinity: where that is all there is, this cell stays.
        rows, columns = (
            np.maximum(self.before[a] - np.arange(self.counts[a]) * self.strides[a], 0)
            for a in (0, 1)
        )
        first = (rows[:, None, None] * self.shape[1] + columns[:, None]).astype("int32")
        maxima, *others = self._cells(x, -np.inf)
        indices = ops.zeros_like(maxima, dtype="int32") + first
        for index, values in enumerate(others, start=1):
            indices = ops.where(ops.greater(values, maxima), index, indices)
            maxima = ops.maximum(values, maxima)
        return maxima, indices

    def take(self, x, indices):
        """(B, H', W', C) the cell of that index of every window of x (B, H, W, C), or zero."""
        taken = ops.zeros_like(indices, dtype=x.dtype)
        for index, values in enumerate(self._cells(x, 0)):
            taken = ops.where(ops.equal(indices, index), values, taken)
        return taken

    def place(self, values, indices, combine=ops.add):
        """(B, H, W, C) with every value in the cell of that index of its window, else zeros.

        `combine` makes one value of two that belong to one place; zero must not change it.
        """
        phases = {}
        for index, cell in enumerate(np.ndindex(self.shape)):
            phase = tuple(cell[a] % self.strides[a] for a in (0, 1))
            shift = [cell[a] // self.strides[a] for a in (0, 1)]
            margins = [(shift[a], self.phase_size[a] - self.counts[a] - shift[a]) for a in (0, 1)]
            here = ops.equal(_pad(indices, margins, -1), index)
            placed = ops.where(here, _pad(values, margins, 0), 0)
            phases[phase] = combine(phases[phase], placed) if phase in phases else placed
        # Strides longer than the windows leave phases that nothing is put into.
        empty = ops.zeros_like(phases[0, 0])
        rows, columns = (range(stride) for stride in self.strides)
        x = _interleave([[phases.get((i, j), empty) for j in columns] for i in rows])
        (top, left), (height, width) = self.before, self.size
        x = x[:, top : top + height, left : left + width]
        return _pad(x, [(0, height - x.shape[1]), (0, width - x.shape[2])], 0)

    def without_overwritten(self, indices):
        """The indices, those of values that a later one is written over set to -1."""
        if self.shape[0] <= self.strides[0] and self.shape[1] <= self.strides[1]:
            return indices
        # Of windows that share a place, the later has it in a cell of smaller index.
        order = indices - self.shape[0] * self.shape[1]
        last = self.place(order, indices, ops.minimum)
        return ops.where(ops.equal(self.take(last, indices), order), indices, -1)

    def _cells(self, x, outside):
        """For every cell of the windows, row by row: its value in all windows."""
        (top, left), channels = self.before, x.shape[-1]
        (rows, columns), (row_step, column_step) = self.phase_size, self.strides
        height, width = rows * row_step, columns * column_step
        x = x[:, : height - top, : width - left]
        margins = [(top, height - top - x.shape[1]), (left, width - left - x.shape[2])]
        # Slices with steps are slow in a graph. Columns stay together with channels: five
        # dimensions are all that LiteRT slices.
        x = _pad(x, margins, outside)
        x = ops.reshape(x, (-1, rows, row_step, columns, column_step * channels))
        cells = []
        for i, j in np.ndindex(self.shape):
            (row, i), (column, j) = divmod(i, row_step), divmod(j, column_step)
            cells.append(
                x[
                    :,
                    row : row + self.counts[0],
                    i,
                    column : column + self.counts[1],
                    j * channels : (j + 1) * channels,
                ]
            )
        return cells


def _interleave(phases):
    """The map (B, H * rows, W * columns, C) of phases[row][column] (B, H, W, C)."""
    height, width, channels = phases[0][0].shape[1:]
    shape = (-1, height, width * len(phases[0]), channels)
    rows = [ops.reshape(ops.stack(row, axis=3), shape) for row in phases]
    return ops.reshape(ops.stack(rows, axis=2), (-1, height * len(rows), *shape[2:]))


def _pad(x, margins, value):
    """Pads rows and columns; a copy that adds nothing costs as much as any outside of XLA."""
    if all(margin == (0, 0) for margin in margins):
        return x
    return ops.pad(x, [(0, 0), *margins, (0, 0)], constant_values=value)


def _pair(value, name):
    pair = (value, value) if np.ndim(value) == 0 else tuple(value)
    if len(pair) != 2 or not all(isinstance(v, (int, np.integer)) and v >= 1 for v in pair):
        raise ValueError(f"{name} must be one or two positive integers; received: {value}")
    return pair


def _check_map(inputs):
    shape = tuple(inputs.shape)
    if len(shape) != 4 or None in shape[1:]:
        raise ValueError(
            "inputs must have shape (batch, height, width, channels), "
            f"static but for the batch; received: {shape}"
        )
