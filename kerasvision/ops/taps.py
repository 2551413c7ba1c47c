"""Weighted sums of the cells of maps, in bins that read rows and columns independently.

The piece that RoIAlign and its kin share. What wins on CPUs: one kernel that gathers and adds
up sixteen cells at a time, and a gradient that scatters few RoIs at a time in place, so that
no list of all cells is ever in memory.
"""

import dataclasses
import inspect
import operator

import keras
import numpy as np
from keras import ops

# Cells along each side that one kernel adds up; more of them take a loop.
_CELLS_AT_ONCE = 4
# Numbers that one scatter of the gradient adds: on a CPU what its caches hold; accelerators
# want few and wide steps, and so does Keras before 3.15, which can't add in place.
_NUMBERS_AT_ONCE = 2**21
_NUMBERS_AT_ONCE_IN_WIDE_STEPS = 2**28
_ADDS_IN_PLACE = "reduction" in inspect.signature(ops.scatter_update).parameters


@dataclasses.dataclass(frozen=True)
class Taps:
    """What the bins of RoIs read along one side of a map.

    cells and weights are (B, R, P, K), int32 and float32: K cells of each of P bins. Of the K
    only the first `used` have weights in any bin: a Python number, or a scalar tensor.
    """

    cells: object
    weights: object
    used: object


def weighted_sums(table, rows, columns):
    """Sums over i and j of row weight i * column weight j * table[row cell i + column cell j].

    Differentiable in the table and in the weights.

    Args:
        table: (N, C) float.
        rows: `Taps` of h bins.
        columns: `Taps` of w bins of the same RoIs.

    Returns:
        (B, R, h, w, C) in the dtype of the table, summed in float32.
    """
    batch, number = ops.shape(rows.cells)[0], rows.cells.shape[1]
    shape = (batch, number, rows.cells.shape[2], columns.cells.shape[2], table.shape[-1])
    if 0 in rows.cells.shape[:2]:
        return ops.reshape(table[:0], shape)
    row_cells, row_weights = _blocks(rows.cells), _blocks(rows.weights)
    column_cells, column_weights = _blocks(columns.cells), _blocks(columns.weights)

    def for_each_block(body, state):
        """body(state, row block, column block) over all blocks that have weights."""
        across = _ceil_divide(columns.used, column_cells.shape[-1])
        down = _ceil_divide(rows.used, row_cells.shape[-1])
        if row_cells.shape[0] == column_cells.shape[0] == 1:
            return body(state, 0, 0)
        return ops.fori_loop(0, down * across, lambda n, s: body(s, n // across, n % across), state)

    @ops.custom_gradient
    def sums(table, row_weights, column_weights):
        def pairs(i, j):
            """Cells and weights of every pair of the block, (b * b, rois, h, w)."""
            return (
                _outer(operator.add, _take(row_cells, i), _take(column_cells, j)),
                _outer(operator.mul, _take(row_weights, i), _take(column_weights, j)),
            )

        def read(cells):
            return ops.cast(ops.take(table, cells, axis=0), "float32")

        def add(total, i, j):
            for cells, weights in zip(*pairs(i, j)):
                total = total + read(cells) * weights[..., None]
            return total

        def gradient(*upstream):
            slopes = ops.cast(ops.reshape(upstream[0], (-1, *shape[2:])), "float32")

            def scatter(total, i, j):
                cells, weights = (ops.stack(x, axis=-1) for x in pairs(i, j))
                return _scatter_add(total, cells, weights, slopes, fewest=number)

            def add_products(totals, i, j):
                b = row_cells.shape[-1]
                products = [ops.sum(read(cells) * slopes, axis=-1) for cells in pairs(i, j)[0]]
                products = ops.stack(products, axis=-1)
                products = ops.reshape(products, (*ops.shape(products)[:3], b, -1))
                by_row = ops.einsum("rhwij,rwj->rhi", products, _take(column_weights, j))
                by_column = ops.einsum("rhwij,rhi->rwj", products, _take(row_weights, i))
                return (_add_to_block(totals[0], i, by_row), _add_to_block(totals[1], j, by_column))

            of_table = for_each_block(scatter, ops.zeros(ops.shape(table), dtype="float32"))
            of_weights = for_each_block(
                add_products, (ops.zeros_like(row_weights), ops.zeros_like(column_weights))
            )
            return (ops.cast(of_table, table.dtype), *of_weights)

        start = ops.zeros((batch * number, *shape[2:]), dtype="float32")
        return ops.cast(for_each_block(add, start), table.dtype), gradient

    return ops.reshape(sums(table, row_weights, column_weights), shape)


def _scatter_add(total, cells, weights, values, fewest):
    """Adds weights * values to the rows `cells` of total, a few RoIs at a time.

    Args:
        total: (N, C).
        cells, weights: (rois, h, w, b).
        values: (rois, h, w, C).
        fewest: static number of RoIs, if there are any.
    """
    rois, (height, width, taps), channels = ops.shape(cells)[0], cells.shape[1:], total.shape[-1]
    on_cpu = all(name.startswith("cpu") for name in keras.distribution.list_devices())
    narrow = on_cpu and _ADDS_IN_PLACE
    numbers = _NUMBERS_AT_ONCE if narrow else _NUMBERS_AT_ONCE_IN_WIDE_STEPS
    step = min(max(numbers // (height * width * taps * channels), 1), fewest)

    # RoIs that read the same cells one after another find them in the caches.
    order = ops.argsort(cells[:, 0, 0, 0])
    cells, weights = (ops.take(x, order, axis=0) for x in (cells, weights))

    def add_some(n, total):
        # The last step begins earlier, to be whole, and leaves out what is done already.
        first = ops.minimum(n * step, rois - step)
        fresh = ops.arange(step, dtype="int32") >= n * step - first
        here, shares = (
            ops.slice(x, (first, 0, 0, 0), (step, height, width, taps)) for x in (cells, weights)
        )
        shares = ops.where(fresh[:, None, None, None], shares, 0.0)
        change = ops.take(values, ops.slice(order, (first,), (step,)), axis=0)
        change = change[:, :, :, None] * shares[..., None]
        here, change = ops.reshape(here, (-1, 1)), ops.reshape(change, (-1, channels))
        if _ADDS_IN_PLACE:
            return ops.scatter_update(total, here, change, reduction="add")
        return total + ops.scatter(here, change, ops.shape(total))

    return ops.fori_loop(0, _ceil_divide(rois, step), add_some, total)


def _blocks(taps):
    """(blocks, rois, P, b) of taps (B, R, P, K), with b cells of a bin in each block."""
    bins, count = taps.shape[2:]
    size = min(count, _CELLS_AT_ONCE)
    blocks = _ceil_divide(count, size)
    taps = ops.pad(taps, [(0, 0)] * 3 + [(0, blocks * size - count)])
    return ops.transpose(ops.reshape(taps, (-1, bins, blocks, size)), (2, 0, 1, 3))


def _outer(combine, rows, columns):
    """List of combine(rows[..., i], columns[..., j]), (rois, h, w), for each i and j."""
    return [
        combine(rows[:, :, None, i], columns[:, None, :, j])
        for i, j in np.ndindex(rows.shape[-1], columns.shape[-1])
    ]


def _add_to_block(blocks, index, change):
    here = ops.reshape(ops.arange(blocks.shape[0]) == index, (-1, 1, 1, 1))
    return ops.where(here, blocks + change, blocks)


def _take(blocks, index):
    return blocks[index] if isinstance(index, int) else ops.take(blocks, index, axis=0)


def _ceil_divide(a, b):
    return -(-a // b)
