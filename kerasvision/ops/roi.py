"""RoIAlign: bilinear samples of feature maps, averaged in the bins of regions of interest.

The bins of a RoI read cells whose rows depend on the bin's row only, and whose columns on its
column. Every operator here finds these two lists and their weights, both by `_sampled_taps`;
`kerasvision.ops.taps` adds up the cells and knows the gradients.

Positions are computed in the very order and rounding of torchvision, since a sample one
rounding beyond the border would count nothing.
"""

import dataclasses

import numpy as np
from keras import ops

from kerasvision.ops.boxes import check_boxes
from kerasvision.ops.taps import Taps, weighted_sums

# Coordinates in cells beyond this count as this.
_LARGEST_COORDINATE = 2.0**28
# Sides of relative float32 boxes are no more exact than this.
_COORDINATE_STEP = 2.0**-22


def roi_align(features, rois, output_size, sampling_ratio=2, aligned=True, max_sampling_ratio=16):
    """RoIAlign: the average of bilinear samples in each bin of each RoI.

    He et al. 2017 (Mask R-CNN), section 3; equal to `torchvision.ops.roi_align`. Samples more
    than a cell outside the map are 0, others outside take the value at the border.
    Differentiable in features and rois.

    Args:
        features: (B, H, W, C) float.
        rois: (B, R, 4) boxes of the picture, (ymin, xmin, ymax, xmax) relative to its height
            and width; a box times the map's size is in cells. RoIs with NaN or infinity give
            zeros and have zero gradients.
        output_size: height and width of the bins' grid: a number or a pair (h, w).
        sampling_ratio: samples along each side of a bin; None: as many as the bin has cells,
            rounded up, for each RoI and side by itself (torchvision's -1).
        aligned: True: cell centres lie at half numbers, and boxes keep their size; False: the
            first RoIAlign, half a cell off, RoIs at least one cell wide.
        max_sampling_ratio: with sampling_ratio None, the most samples along a side of a bin.
            The definition is met exactly as long as no bin is longer than that in cells.

    Returns:
        (B, R, h, w, C) in the dtype of the features, computed in float32.

    Raises:
        ValueError: features or rois of another shape or without static sizes, or of different
            batches; a setting out of range.
    """
    return _align([features], rois, None, output_size, sampling_ratio, aligned, max_sampling_ratio)


def multilevel_roi_align(
    features,
    rois,
    output_size,
    image_size,
    sampling_ratio=2,
    aligned=True,
    min_level=2,
    max_level=5,
    canonical_size=224,
    canonical_level=4,
    max_sampling_ratio=16,
):
    """RoIAlign on a feature pyramid: each RoI reads the level that fits its size.

    Lin et al. 2017 (Feature Pyramid Networks), section 4.2. All arguments are those of
    `roi_align` and `fpn_levels` but the first.

    Args:
        features: maps (B, H, W, C) of the levels min_level to max_level, finest first, alike
            in all but height and width: a list, or a dict with keys "P2", "P3", ... which may
            hold further levels.
        rois: (B, R, 4) relative corner form.
        output_size, sampling_ratio, aligned, max_sampling_ratio: see `roi_align`.
        image_size, min_level, max_level, canonical_size, canonical_level: see `fpn_levels`.

    Returns:
        (B, R, h, w, C) in the dtype of the features.

    Raises:
        ValueError: as in `roi_align` and `fpn_levels`; maps that aren't those of the levels.
    """
    rois = check_boxes(rois, "rois")
    features = pyramid_maps(features, min_level, max_level)
    levels = fpn_levels(rois, image_size, min_level, max_level, canonical_size, canonical_level)
    return _align(
        features,
        rois,
        levels - min_level,
        output_size,
        sampling_ratio,
        aligned,
        max_sampling_ratio,
    )


def position_sensitive_roi_align(
    features, rois, output_size, sampling_ratio=2, max_sampling_ratio=16
):
    """Position-sensitive RoIAlign: as `roi_align`, but each bin reads channels of its own.

    Dai et al. 2016 (R-FCN), section 2, with the sampling of Mask R-CNN; equal to
    `torchvision.ops.ps_roi_align`. Differentiable in features and rois.

    Args:
        features: (B, H, W, C * h * w) float; class c is read by bin (i, j) from channel
            (c * h + i) * w + j.
        rois, sampling_ratio, max_sampling_ratio: as in `roi_align`.
        output_size: as in `roi_align`.

    Returns:
        (B, R, h, w, C) in the dtype of the features.

    Raises:
        ValueError: as in `roi_align`; channels that aren't a multiple of h * w.
    """
    features, rois = check_features(features), check_rois(rois)
    check_batches([features], rois)
    size = check_size(output_size)
    rows, columns = (
        _sampled_taps(*sides, bins, length, sampling_ratio, True, max_sampling_ratio)
        for sides, bins, length in zip(roi_sides(rois), size, features.shape[1:3])
    )
    return position_sensitive_sums(features, rows, columns)


def fpn_levels(rois, image_size, min_level, max_level, canonical_size=224, canonical_level=4):
    """Level of a feature pyramid for each RoI: Lin et al. 2017, equation 1.

    k = floor(canonical_level + log2(sqrt(width * height) / canonical_size)), limited to the
    levels there are. A RoI whose sides round to a boundary belongs to the upper level:
    2^-22 of the picture is added to its sides, which is what relative float32 coordinates
    lose. (Torchvision adds 1e-6 to the logarithm, to the same end.)

    Args:
        rois: (..., 4) relative corner form; degenerate and non-finite ones get min_level.
        image_size: height and width of the picture in pixels.
        min_level, max_level: integers; level k has a stride of 2^k pixels.
        canonical_size: side of the square, in pixels, that belongs to canonical_level.
        canonical_level: an integer.

    Returns:
        (...) int32, min_level to max_level.

    Raises:
        ValueError: rois of another shape; a setting out of range.
    """
    ymin, xmin, ymax, xmax = ops.unstack(finite_rois(check_boxes(rois, "rois"))[0], 4, axis=-1)
    height, width = _pair(image_size, "image_size")
    check_level_range(min_level, max_level)
    if not canonical_size > 0:
        raise ValueError(f"canonical_size must be positive; received: {canonical_size}")
    area = _lengthened(ymax - ymin) * height * (_lengthened(xmax - xmin) * width)
    levels = ops.full_like(area, min_level, dtype="int32")
    # Comparisons of areas, because logarithms and roots would round.
    for level in range(min_level + 1, max_level + 1):
        smallest = (canonical_size * 2.0 ** (level - canonical_level)) ** 2
        levels = levels + ops.cast(area >= smallest, "int32")
    return levels


def _lengthened(side):
    return ops.where(side > 0.0, side + _COORDINATE_STEP, 0.0)


def pyramid_maps(features, min_level, max_level):
    """The maps of the levels as a list.

    Args:
        features: a list of the maps, finest first, or a dict of them by "P2", "P3", ...
        min_level, max_level: integers.

    Raises:
        ValueError: maps that aren't those of the levels.
    """
    check_level_range(min_level, max_level)
    names = [f"P{level}" for level in range(min_level, max_level + 1)]
    if isinstance(features, dict):
        if not set(names) <= set(features):
            raise ValueError(f"features must have the keys {names}; received: {list(features)}")
        return [features[name] for name in names]
    if not isinstance(features, (list, tuple)) or len(features) != len(names):
        received = len(features) if isinstance(features, (list, tuple)) else type(features)
        raise ValueError(
            f"features must be a list of the maps of levels {min_level} to {max_level}, "
            f"{len(names)} of them; received: {received}"
        )
    return list(features)


# --- Arguments ---------------------------------------------------------------------------


def check_level_range(min_level, max_level):
    """Raises ValueError unless both are integers, the first not above the second."""
    if not (isinstance(min_level, int) and isinstance(max_level, int) and min_level <= max_level):
        raise ValueError(
            "min_level must be an integer not above max_level; "
            f"received: {min_level} and {max_level}"
        )


def check_features(features):
    """Raises ValueError unless features have shape (B, H, W, C), static but for B."""
    features = ops.convert_to_tensor(features)
    shape = tuple(features.shape)
    if len(shape) != 4 or None in shape[1:] or 0 in shape[1:]:
        raise ValueError(
            "features must have shape (batch, height, width, channels), "
            f"static but for the batch and not empty; received: {shape}"
        )
    if "float" not in str(features.dtype):
        return ops.cast(features, "float32")
    return features


def check_rois(rois):
    """Raises ValueError unless rois have shape (B, R, 4) with a static R."""
    rois = check_boxes(rois, "rois")
    if len(rois.shape) != 3 or rois.shape[1] is None:
        raise ValueError(
            "rois must have shape (batch, number, 4), static but for the batch; "
            f"received: {tuple(rois.shape)}"
        )
    return rois


def check_batches(features, rois):
    """Raises ValueError if maps and rois are known to be of different batches."""
    sizes = [x.shape[0] for x in (*features, rois) if x.shape[0] is not None]
    if len(set(sizes)) > 1:
        raise ValueError(f"features and rois must be of the same batch; received: {sizes}")


def check_size(output_size):
    """(h, w) of an output size that is a number or a pair of positive integers."""
    return _pair(output_size, "output_size")


def check_sampling(sampling_ratio, max_sampling_ratio):
    """Raises ValueError unless both settings are positive integers, or the first is None."""
    for value, name in (
        (sampling_ratio, "sampling_ratio"),
        (max_sampling_ratio, "max_sampling_ratio"),
    ):
        optional = value is None and name == "sampling_ratio"
        if not optional and not (isinstance(value, (int, np.integer)) and value >= 1):
            raise ValueError(f"{name} must be a positive integer; received: {value}")


def finite_rois(rois):
    """RoIs with zeros for those that aren't finite, and which of them are, (..., 1) bool."""
    finite = ops.all(ops.isfinite(rois), axis=-1, keepdims=True)
    return ops.where(finite, rois, 0.0), finite


def roi_sides(rois):
    """(starts, ends, finite) of the RoIs' rows and of their columns, each (B, R)."""
    rois, finite = finite_rois(rois)
    ymin, xmin, ymax, xmax = ops.unstack(rois, 4, axis=-1)
    return (ymin, ymax, finite[..., 0]), (xmin, xmax, finite[..., 0])


def _pair(value, name):
    pair = (value, value) if np.ndim(value) == 0 else tuple(value)
    if len(pair) != 2 or not all(isinstance(v, (int, np.integer)) and v >= 1 for v in pair):
        raise ValueError(f"{name} must be one or two positive integers; received: {value}")
    return pair


# --- Arithmetic that no compiler rounds otherwise ----------------------------------------


def rounded(x):
    """x as it is, up to a limit which keeps compilers from merging the steps before and after.

    XLA would fuse multiplications and additions, TensorFlow's graphs add in another order.
    """
    return ops.clip(x, -_LARGEST_COORDINATE, _LARGEST_COORDINATE)


def quotient(a, number):
    """a / number for a number that XLA can't see: it would multiply by its rounded inverse."""
    return a / ops.where(ops.isfinite(a), float(number), 1.0)


# --- Position-sensitive channels ----------------------------------------------------------


def position_sensitive_sums(features, rows, columns):
    """`weighted_sums` of taps (B, R, h, K) and (B, R, w, K), each bin of its own channels.

    Args:
        features: (B, H, W, C * h * w); class c of bin (i, j) is channel (c * h + i) * w + j.
        rows, columns: `Taps` on these maps.

    Returns:
        (B, R, h, w, C) in the dtype of the features.

    Raises:
        ValueError: channels that aren't a multiple of h * w.
    """
    height, width, channels = features.shape[1:]
    bins_down, bins_across = rows.cells.shape[2], columns.cells.shape[2]
    bins, classes = bins_down * bins_across, num_classes(channels, bins_down, bins_across)
    # In the table stands for each cell a row for each bin.
    table = ops.reshape(features, (-1, height * width, classes, bins))
    table = ops.reshape(ops.transpose(table, (0, 1, 3, 2)), (-1, classes))
    picture = ops.arange(ops.shape(features)[0], dtype="int32")[:, None, None, None]
    first = np.arange(bins_down, dtype="int32")[:, None] * bins_across
    down = (rows.cells + picture * height) * (width * bins) + first
    across = columns.cells * bins + np.arange(bins_across, dtype="int32")[:, None]
    return weighted_sums(
        table,
        dataclasses.replace(rows, cells=down),
        dataclasses.replace(columns, cells=across),
    )


def num_classes(channels, bins_down, bins_across):
    """Classes that share the channels of position-sensitive maps.

    Raises:
        ValueError: channels that aren't a multiple of the bins.
    """
    if channels % (bins_down * bins_across):
        raise ValueError(
            f"features must have a multiple of {bins_down} * {bins_across} channels; "
            f"received: {channels}"
        )
    return channels // (bins_down * bins_across)


# --- Sampling ----------------------------------------------------------------------------


def _align(maps, rois, levels, output_size, sampling_ratio, aligned, max_sampling_ratio):
    """RoIAlign; `levels` (B, R) int32 says which of the maps a RoI reads, None: the only one."""
    maps, rois = [check_features(x) for x in maps], check_rois(rois)
    check_batches(maps, rois)
    if len({(x.shape[-1], str(x.dtype)) for x in maps}) > 1:
        raise ValueError(
            "features must be maps of equal channels and dtype; "
            f"received: {[(tuple(x.shape), str(x.dtype)) for x in maps]}"
        )
    size = check_size(output_size)
    batch, sizes = ops.shape(rois)[0], np.array([x.shape[1:3] for x in maps], "int32")
    areas = sizes[:, 0] * sizes[:, 1]
    picture = ops.expand_dims(ops.arange(batch, dtype="int32"), 1)
    if levels is None:
        heights, widths, area, before = *sizes[0], areas[0], 0
    else:
        heights, widths, area, before = (
            ops.take(values.astype("int32"), levels)
            for values in (sizes[:, 0], sizes[:, 1], areas, np.cumsum(areas) - areas)
        )
    rows, columns = (
        _sampled_taps(*sides, bins, length, sampling_ratio, aligned, max_sampling_ratio)
        for sides, bins, length in zip(roi_sides(rois), size, (heights, widths))
    )
    # In the table stand the maps one after another, of each the pictures one after another.
    first = picture * area + before * batch
    stride = widths if levels is None else widths[..., None, None]
    places = rows.cells * stride + first[..., None, None]
    channels = maps[0].shape[-1]
    table = [ops.reshape(x, (-1, channels)) for x in maps]
    table = table[0] if len(table) == 1 else ops.concatenate(table, axis=0)
    rows = dataclasses.replace(rows, cells=places)
    return weighted_sums(table, rows, columns)


def _sampled_taps(start, end, finite, bins, length, sampling_ratio, aligned, max_sampling_ratio):
    """Taps of bilinear samples along one side.

    Args:
        start, end: (B, R) relative coordinates.
        finite: (B, R) bool: others count nothing.
        bins: P, a number.
        length: of the map in cells, a number or (B, R) int32.
        sampling_ratio, aligned, max_sampling_ratio: as in `roi_align`.
    """
    check_sampling(sampling_ratio, max_sampling_ratio)
    if isinstance(length, (int, np.integer)):
        length = ops.full_like(start, length)
    length = ops.cast(length, "float32")
    offset = 0.5 if aligned else 0.0
    start, end = (rounded(x * length) - offset for x in (start, end))
    extent = end - start if aligned else ops.maximum(end - start, 1.0)
    bin_length = quotient(extent, bins)
    if sampling_ratio is None:
        samples = max_sampling_ratio
        ratio = ops.stop_gradient(ops.clip(ops.ceil(bin_length), 0.0, float(samples)))
        used = 2 * ops.cast(ops.max(ratio, initial=0.0), "int32")
        ratio = ops.expand_dims(ratio, (-2, -1))
    else:
        samples, used = sampling_ratio, 2 * sampling_ratio
        ratio = float(samples)
    start, bin_length, length, finite = (
        ops.expand_dims(x, (-2, -1)) for x in (start, bin_length, length, finite)
    )
    bin_index = np.arange(bins, dtype="float32")[:, None]
    sample = np.arange(samples, dtype="float32")
    start = rounded(start + rounded(bin_length * bin_index))
    step = rounded(bin_length * (sample + 0.5))
    if sampling_ratio is None:
        position = start + step / ops.maximum(ratio, 1.0)
        counts = ops.logical_and(finite, sample < ratio)
    else:
        position = start + quotient(step, ratio)
        counts = finite
    inside = ops.logical_and(position >= -1.0, position <= length)
    counts = ops.logical_and(counts, inside)
    position = ops.minimum(ops.maximum(position, 0.0), length - 1.0)
    low = ops.stop_gradient(ops.floor(position))
    high = ops.minimum(low + 1.0, length - 1.0)
    share = position - low
    weight = ops.where(counts, 1.0 / ops.maximum(ratio, 1.0), 0.0)
    shape = (ops.shape(start)[0], start.shape[1], bins, 2 * samples)
    return Taps(
        ops.reshape(ops.cast(ops.stack([low, high], axis=-1), "int32"), shape),
        ops.reshape(ops.stack([(1.0 - share) * weight, share * weight], axis=-1), shape),
        used,
    )
