"""Pooling of whole cells in the bins of regions of interest.

Corners are rounded to cells, and bins take every cell that they touch. Both happen in float32
exactly as in Caffe and torchvision, where one rounding more or less moves a bin by a cell.
"""

import numpy as np
from keras import ops

from kerasvision.ops.roi import (
    check_batches,
    check_features,
    check_rois,
    check_size,
    position_sensitive_sums,
    quotient,
    roi_sides,
    rounded,
)
from kerasvision.ops.taps import Taps


def roi_max_pooling(features, rois, output_size):
    """RoI max pooling: the maximum in each bin of each RoI.

    Girshick 2015 (Fast R-CNN), section 2.1; equal to Caffe's layer and to
    `torchvision.ops.roi_pool`. Corners are rounded to the nearest cell, halves away from zero;
    the cells of both corners belong to the RoI, which is at least one cell wide. Bins begin at
    rounded down and end at rounded up fractions of it; those outside the map are 0.
    Differentiable in features: of equal maxima the first in row-major order gets the gradient.

    Args:
        features: (B, H, W, C) float.
        rois: (B, R, 4) boxes of the picture, (ymin, xmin, ymax, xmax) relative to its height
            and width; a box times the map's size is in cells. RoIs with NaN or infinity give
            zeros.
        output_size: height and width of the bins' grid: a number or a pair (h, w).

    Returns:
        (B, R, h, w, C) in the dtype of the features.

    Raises:
        ValueError: features or rois of another shape or without static sizes, or of different
            batches; an output size that isn't positive.
    """
    features, rois = check_features(features), check_rois(rois)
    check_batches([features], rois)
    size, lengths = check_size(output_size), features.shape[1:3]
    if 0 in rois.shape[:2]:
        shape = (ops.shape(rois)[0], rois.shape[1], *size, features.shape[-1])
        return ops.reshape(features[:0], shape)
    rows, columns = (
        _bins(*side, bins, end_cell=1, limit=length)
        for side, bins, length in zip(roi_sides(rois), size, lengths)
    )
    occupied = _lengths(rows)[..., :, None] * _lengths(columns)[..., None, :] > 0
    occupied = occupied[..., None]
    # No bin of a RoI inside the picture is longer.
    usual = [min(-(-(length + 1) // bins) + 1, length) for length, bins in zip(lengths, size)]

    def over_bins(maps, combine):
        def looked_up(longest):
            return _over_ranges(maps, combine, rows, columns, longest)

        fits = ops.logical_and(
            ops.all(_lengths(rows) <= usual[0]), ops.all(_lengths(columns) <= usual[1])
        )
        return ops.cond(fits, lambda: looked_up(usual), lambda: looked_up(lengths))

    @ops.custom_gradient
    def pool(x):
        def gradient(*upstream):
            shape = ops.shape(x)
            numbers = ops.cumsum(ops.ones_like(ops.reshape(x, (-1,)), dtype="int32")) - 1
            _, places = over_bins((x, ops.reshape(numbers, shape)), _first_maximum)
            change = ops.where(occupied, ops.cast(upstream[0], "float32"), 0.0)
            places, change = ops.reshape(places, (-1, 1)), ops.reshape(change, (-1,))
            total = ops.scatter(places, change, ops.shape(numbers))
            return ops.cast(ops.reshape(total, shape), x.dtype)

        (maxima,) = over_bins((x,), lambda a, b: (ops.maximum(a[0], b[0]),))
        return ops.where(occupied, maxima, 0), gradient

    return pool(features)


def position_sensitive_roi_pooling(features, rois, output_size):
    """Position-sensitive RoI pooling: the average in each bin, of channels of its own.

    Dai et al. 2016 (R-FCN), equation 1; equal to `torchvision.ops.ps_roi_pool`. Corners are
    rounded to the nearest cell, halves away from zero; the cell of the second corner doesn't
    belong to the RoI, which is at least one cell wide, and neither do the last row and column
    of the map. Bins begin at rounded down and end at rounded up fractions of it; those outside
    the map are 0. Differentiable in features.

    Args:
        features: (B, H, W, C * h * w) float; class c is read by bin (i, j) from channel
            (c * h + i) * w + j.
        rois, output_size: as in `roi_max_pooling`.

    Returns:
        (B, R, h, w, C) in the dtype of the features, computed in float32.

    Raises:
        ValueError: as in `roi_max_pooling`; channels that aren't a multiple of h * w.
    """
    features, rois = check_features(features), check_rois(rois)
    check_batches([features], rois)
    rows, columns = (
        _bins(*side, bins, end_cell=0, limit=length - 1)
        for side, bins, length in zip(roi_sides(rois), check_size(output_size), features.shape[1:3])
    )
    taps = (_averages(*x) for x in zip((rows, columns), features.shape[1:3]))
    return position_sensitive_sums(features, *taps)


def spatial_pyramid_pooling(features, levels=(4, 2, 1), rois=None):
    """Spatial pyramid pooling: maxima in ever coarser grids, a vector of fixed length.

    He et al. 2014 (SPP-net), sections 2.2 and 2.3. Of a map of H rows, bin i of n begins at
    floor(i * H / n) and ends before ceil((i + 1) * H / n), alike for columns. Windows are
    pooled by `roi_max_pooling`, with its rounding.

    Args:
        features: (B, H, W, C) float.
        levels: bins along each side of each grid; M, the sum of their squares, is the number
            of all bins.
        rois: None, to pool the whole map, or windows (B, R, 4) as in `roi_max_pooling`.

    Returns:
        (B, M * C), or (B, R, M * C) with rois, in the dtype of the features: one grid after
        another, its bins row by row, the channels of each bin together. Whole maps share the
        gradient among equal maxima.

    Raises:
        ValueError: as in `roi_max_pooling`; levels that aren't positive integers.
    """
    features = check_features(features)
    check_levels(levels)
    if rois is not None:
        rois = check_rois(rois)
        pooled = [roi_max_pooling(features, rois, bins) for bins in levels]
        shape = (ops.shape(rois)[0], rois.shape[1])
        return ops.concatenate(
            [ops.reshape(x, (*shape, np.prod(x.shape[2:]))) for x in pooled], axis=-1
        )
    height, width = features.shape[1:3]
    maxima = []
    for bins in levels:
        for top, bottom in _fractions(height, bins):
            strip = ops.max(features[:, top:bottom], axis=1)
            maxima += [
                ops.max(strip[:, left:right], axis=1) for left, right in _fractions(width, bins)
            ]
    return ops.concatenate(maxima, axis=-1)


def check_levels(levels):
    """Raises ValueError unless levels are positive integers, at least one."""
    whole = all(isinstance(bins, (int, np.integer)) and bins >= 1 for bins in levels)
    if len(levels) == 0 or not whole:
        raise ValueError(f"levels must be positive integers; received: {levels}")


def _fractions(length, bins):
    return [(i * length // bins, -(-(i + 1) * length // bins)) for i in range(bins)]


# --- Bins of whole cells -----------------------------------------------------------------


def _bins(start, end, finite, bins, end_cell, limit):
    """First cells of the bins of RoIs, and those behind their last, (B, R, P) int32 each.

    Args:
        start, end: (B, R) relative coordinates along one side.
        finite: (B, R) bool; the bins of others are empty.
        bins: P.
        end_cell: 1, if the cell of `end` belongs to the RoI, or 0.
        limit: bins end there at the latest.
    """
    length = limit + 1 - end_cell
    start, end = (_nearest(rounded(x * float(length))) for x in (start, end))
    extent = ops.cast(ops.maximum(end - start + end_cell, 1), "float32")
    bin_length = quotient(extent, bins)[..., None]
    index = np.arange(bins, dtype="float32")
    first = ops.cast(ops.floor(rounded(bin_length * index)), "int32")
    behind = ops.cast(ops.ceil(rounded(bin_length * (index + 1.0))), "int32")
    first, behind = (_limited(start[..., None] + x, limit) for x in (first, behind))
    return first, ops.where(finite[..., None], behind, first)


def _nearest(x):
    """Nearest integers, halves away from zero, int32: `round` of C."""
    # The integer part of 2 |x| is exact, unlike |x| + 0.5.
    halves = ops.cast(ops.floor(2.0 * ops.abs(x)), "int32")
    return ops.where(x < 0.0, -1, 1) * ((halves + 1) // 2)


def _lengths(bins):
    first, behind = bins
    return ops.maximum(behind - first, 0)


def _averages(bins, length):
    """`Taps` that average the cells of each bin, of a side of that length."""
    number, lengths = np.arange(length, dtype="int32"), _lengths(bins)
    inside = number < lengths[..., None]
    weights = 1.0 / ops.cast(ops.maximum(lengths, 1), "float32")[..., None]
    return Taps(
        ops.where(inside, bins[0][..., None] + number, 0),
        ops.where(inside, weights, 0.0),
        ops.max(lengths, initial=0),
    )


# --- Maxima of ranges --------------------------------------------------------------------


def _over_ranges(maps, combine, rows, columns, longest):
    """Combines maps over ranges of rows and columns, by a table of all powers of two.

    A range is the union of two that are as long as the largest power of two below it and may
    overlap (Bender & Farach-Colton 2000, section 3), in both dimensions.

    Args:
        maps: tuple of maps (B, H, W, C).
        combine: takes two such tuples and returns one; associative, commutative, idempotent.
        rows, columns: (first, behind) of (B, R, P) ranges; if empty, the result is any.
        longest: pair of the lengths of the longest range of rows and of columns.

    Returns:
        Tuple of (B, R, h, w, C).
    """
    batch, (height, width, channels) = ops.shape(maps[0])[0], maps[0].shape[1:]
    steps = [_level_of(length) + 1 for length in longest]
    tables, strips = [], maps
    for i in range(steps[0]):
        strips = _doubled(strips, combine, axis=1, step=i)
        squares = strips
        for j in range(steps[1]):
            squares = _doubled(squares, combine, axis=2, step=j)
            tables.append(squares)
    tables = [ops.reshape(ops.stack(x), (-1, channels)) for x in zip(*tables)]

    level_down, *rows = _two_ranges(rows, steps[0], height)
    level_across, *columns = _two_ranges(columns, steps[1], width)
    level = level_down[..., :, None] * steps[1] + level_across[..., None, :]
    picture = ops.arange(batch, dtype="int32")[:, None, None, None]
    first = (level * batch + picture) * (height * width)
    result = None
    for row in rows:
        for column in columns:
            place = first + row[..., :, None] * width + column[..., None, :]
            found = tuple(ops.take(table, place, axis=0) for table in tables)
            result = found if result is None else combine(result, found)
    return result


def _doubled(maps, combine, axis, step):
    """From combinations of 2^(step - 1) cells along an axis those of 2^step; of 1 as they are."""
    if step == 0:
        return maps
    shift, before = 2 ** (step - 1), (slice(None),) * axis

    def shifted(x):
        # Ranges beyond the border are never asked for: any cells may stand there.
        last = slice(x.shape[axis] - shift, None)
        return ops.concatenate([x[(*before, slice(shift, None))], x[(*before, last)]], axis=axis)

    return combine(maps, tuple(shifted(x) for x in maps))


def _two_ranges(ranges, steps, length):
    """Level of the power of two, and the first cells of the two ranges that make up each."""
    first, behind = ranges
    level = ops.zeros_like(first)
    size = ops.ones_like(first)
    for step in range(1, steps):
        reached = behind - first >= 2**step
        level = ops.where(reached, step, level)
        size = ops.where(reached, 2**step, size)
    return level, *(_limited(x, length - 1) for x in (first, behind - size))


def _limited(cells, highest):
    # LiteRT's converter takes `clip` from 0 to 6 for a ReLU6, which has no integers.
    return ops.minimum(ops.maximum(cells, 0), highest)


def _level_of(length):
    return int(length).bit_length() - 1


def _first_maximum(a, b):
    """Of two (values, places) the greater value; of equal ones that of the smaller place."""
    earlier = ops.logical_and(a[0] == b[0], a[1] < b[1])
    wins = ops.logical_or(a[0] > b[0], earlier)
    return tuple(ops.where(wins, x, y) for x, y in zip(a, b))
