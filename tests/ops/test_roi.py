import functools
import pathlib
import subprocess

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from kerasvision.ops import roi, roi_pooling

BATCH, SIZE, NUMBER = 2, (6, 9), 14  # pictures, height and width of maps, RoIs of a picture
TORCHVISION_PYTHON = pathlib.Path("/usr/bin/python3")  # Debian's python3-torchvision

OPERATORS = [
    roi.roi_align,
    roi.position_sensitive_roi_align,
    roi_pooling.roi_max_pooling,
    roi_pooling.position_sensitive_roi_pooling,
]


# --- References, loop by loop --------------------------------------------------------------


def corners(rois, size, b, r):
    """Rows and columns of the corners in cells, in the precision of the rois."""
    ymin, xmin, ymax, xmax = rois[b, r] * np.array([*size, *size], rois.dtype)
    return (ymin, ymax), (xmin, xmax)


def sample(plane, y, x):
    """Bilinear sample of a map (H, W)."""
    height, width = plane.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = (min(max(v, 0), side - 1) for v, side in ((y, height), (x, width)))
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down, across = y - top, x - left
    upper = plane[top, left] * (1 - across) + plane[top, right] * across
    lower = plane[bottom, left] * (1 - across) + plane[bottom, right] * across
    return upper * (1 - down) + lower * down


def reference_align(features, rois, size, ratio=2, aligned=True, position_sensitive=False):
    """Sample by sample; positions in the precision of the rois, as torchvision has them."""
    real = rois.dtype.type
    bins, cells = size[0] * size[1], features.shape[1:3]
    channels = features.shape[3] // bins if position_sensitive else features.shape[3]
    result = np.zeros((*rois.shape[:2], *size, channels))
    for b, r in np.ndindex(rois.shape[:2]):
        if not np.isfinite(rois[b, r]).all():
            continue
        positions = []
        for (start, end), count in zip(corners(rois, cells, b, r), size):
            start, end = (v - real(0.5 if aligned else 0) for v in (start, end))
            length = end - start if aligned else max(end - start, real(1))
            length = length / real(count)
            samples = ratio or max(int(np.ceil(length)), 0)
            positions.append(
                [
                    [start + p * length + real(s + 0.5) * length / samples for s in range(samples)]
                    for p in map(real, range(count))
                ]
            )
        for i, j, c in np.ndindex(*size, channels):
            channel = (c * size[0] + i) * size[1] + j if position_sensitive else c
            plane = features[b, :, :, channel]
            values = [sample(plane, y, x) for y in positions[0][i] for x in positions[1][j]]
            result[b, r, i, j, c] = sum(values) / max(len(values), 1)
    return result


def c_round(x):
    return int(np.sign(x) * np.floor(np.abs(np.float64(x)) + 0.5))


def whole_bins(start, end, count, inclusive, limit):
    """[first, behind) of each bin, in the float32 arithmetic of Caffe."""
    start, end = c_round(start), c_round(end)
    length = np.float32(max(end - start + inclusive, 1)) / np.float32(count)
    return [
        tuple(
            min(max(start + int(edge), 0), limit)
            for edge in (np.floor(np.float32(p) * length), np.ceil(np.float32(p + 1) * length))
        )
        for p in range(count)
    ]


def reference_pooling(features, rois, size, position_sensitive=False, slopes=None):
    """Bin by bin: maxima, or averages of channels of their own; of maxima with the slopes of a
    sum of results also those in the features.
    """
    bins, cells = size[0] * size[1], features.shape[1:3]
    channels = features.shape[3] // bins if position_sensitive else features.shape[3]
    result = np.zeros((*rois.shape[:2], *size, channels), features.dtype)
    gradient = np.zeros(features.shape)
    for b, r in np.ndindex(rois.shape[:2]):
        if not np.isfinite(rois[b, r]).all():
            continue
        rows, columns = (
            whole_bins(*side, n, not position_sensitive, length - position_sensitive)
            for side, n, length in zip(corners(rois, cells, b, r), size, cells)
        )
        for i, j, c in np.ndindex(*size, channels):
            channel = (c * size[0] + i) * size[1] + j if position_sensitive else c
            (top, bottom), (left, right) = rows[i], columns[j]
            cut = features[b, top:bottom, left:right, channel]
            if cut.size == 0:
                continue
            result[b, r, i, j, c] = cut.mean() if position_sensitive else cut.max()
            if slopes is not None:
                y, x = np.unravel_index(np.argmax(cut), cut.shape)  # the first one
                gradient[b, top + y, left + x, c] += slopes[b, r, i, j, c]
    return result if slopes is None else (result, gradient)


# --- Inputs --------------------------------------------------------------------------------


def random_rois(rng):
    """RoIs inside, across and outside the picture, one in four with corners on half cells."""
    ends = rng.uniform(-0.3, 1.3, (BATCH, NUMBER, 2, 2))
    rois = np.sort(ends, axis=2).reshape(BATCH, NUMBER, 4)
    halves = np.round(rois * np.tile(SIZE, 2) * 2) / 2 / np.tile(SIZE, 2)
    return np.where(rng.uniform(size=(BATCH, NUMBER, 1)) < 0.25, halves, rois).astype("float32")


def adversarial_rois():
    """28 RoIs: degenerate, inverted, huge, tiny, on borders, outside, not finite."""
    nan, inf, (h, w) = np.nan, np.inf, SIZE
    rois = [
        [0, 0, 1, 1],  # the picture
        [0, 0, 0, 0],
        [1, 1, 1, 1],
        [0.5, 0.5, 0.5, 0.5],
        [0.3, 0, 0.3, 1],  # a line
        [0, 0.7, 1, 0.7],
        [1, 1, 0, 0],  # inverted
        [0.9, 0.1, 0.2, 0.8],
        [0.2, 0.8, 0.9, 0.1],
        [-5, -5, 6, 6],  # far larger than the picture
        [-1e3, 0.2, 1e3, 0.4],
        [-3, -3, -2, -2],  # outside
        [2, 2, 3, 3],
        [0, 1, 1, 2],  # beside
        [-1 / h, -1 / w, 0, 0],  # one cell outside, where samples begin to count
        [1, 1, 1 + 1 / h, 1 + 1 / w],
        [-0.5 / h, -0.5 / w, 1 + 0.5 / h, 1 + 0.5 / w],
        [0.5 / h, 0.5 / w, 1.5 / h, 1.5 / w],  # corners in the middle of cells
        [1.5 / h, 2.5 / w, 3.5 / h, 6.5 / w],
        [-0.5 / h, -1.5 / w, 2.5 / h, 4.5 / w],
        [0.4, 0.4, 0.4 + 1e-6, 0.4 + 1e-6],  # tiny
        [1e-30, 1e-30, 2e-30, 2e-30],
        [nan, 0, 1, 1],
        [0, 0, 1, nan],
        [0, -inf, 1, 1],
        [0, 0, inf, inf],
        [nan, nan, nan, nan],
        [-inf, -inf, inf, inf],
    ]
    return np.array(rois, "float32").reshape(BATCH, NUMBER, 4)


def check_random_and_adversarial(call, reference, channels, check):
    """Compares call(features, rois) on 8 * 28 random RoIs and on the adversarial ones."""

    def compare(features, rois):
        check(ops.convert_to_numpy(call(features, rois)), reference(features, rois))

    @settings(max_examples=8, deadline=None, derandomize=True)
    @given(seed=st.integers(0, 10**6), levels=st.sampled_from([1, 4, 10**6]))
    def compare_random(seed, levels):
        rng = np.random.default_rng(seed)
        features = rng.integers(-levels, levels + 1, (BATCH, *SIZE, channels)) / levels
        compare(features.astype("float32"), random_rois(rng))

    compare_random()
    features = np.random.default_rng(0).normal(size=(BATCH, *SIZE, channels)).astype("float32")
    compare(features, adversarial_rois())
    compare(np.full_like(features, -2.0), adversarial_rois())


close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=2e-5)


def gradients(function, *tensors):
    """Gradients of a function whose value is a number."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.grad(function, argnums=tuple(range(len(tensors))))(*tensors)
    import tensorflow as tf

    tensors = [tf.convert_to_tensor(x) for x in tensors]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        value = function(*tensors)
    return tape.gradient(value, tensors)


def central_differences(function, x, step=1e-4):
    slopes = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        ahead, behind = x.copy(), x.copy()
        ahead[place] += step
        behind[place] -= step
        slopes[place] = (function(ahead) - function(behind)) / (2 * step)
    return slopes


def check_slopes_of_linear(found, function, shape):
    """A linear function's difference along any x is x times its gradient."""
    rng = np.random.default_rng(7)
    directions = rng.normal(size=(20, *shape))
    expected = [function(x) for x in directions]
    found = np.tensordot(directions, ops.convert_to_numpy(found).astype(float), len(shape))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


# --- RoIAlign ------------------------------------------------------------------------------


@pytest.mark.parametrize("aligned", [True, False])
def test_align_golden(compiled, aligned):
    #   0  1  2  3  4     The box covers the cells from 1 to 3, borders as lines between cells
    #   5  6  7  8  9     if aligned, else taken for the cells' centres, and is cut into
    #  10 11 12 13 14     4 x 4 bins of half a cell.
    #  15 16 17 18 19
    #  20 21 22 23 24
    features = np.arange(25, dtype="float32").reshape(1, 5, 5, 1)
    rois = np.array([[[1, 1, 3, 3]]], "float32") / 5
    found = compiled(functools.partial(roi.roi_align, output_size=4, aligned=aligned))(
        features, rois
    )
    expected = np.array(
        [[4.5, 5, 5.5, 6], [7, 7.5, 8, 8.5], [9.5, 10, 10.5, 11], [12, 12.5, 13, 13.5]]
    )
    close(ops.convert_to_numpy(found)[0, 0, :, :, 0], expected + (0 if aligned else 3))


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio, size", [(1, (2, 3)), (2, (3, 2)), (3, (2, 2)), (None, (3, 4))])
def test_align_equals_reference(compiled, ratio, size, aligned):
    call = compiled(
        functools.partial(
            roi.roi_align,
            output_size=size,
            sampling_ratio=ratio,
            aligned=aligned,
            max_sampling_ratio=32,
        )
    )

    # More samples than anybody asks for: the reference needs minutes for them.
    def moderate(rois):
        return np.clip(rois, -2, 2) if ratio is None else rois

    check_random_and_adversarial(
        lambda f, r: call(f, moderate(r)),
        lambda f, r: reference_align(f, moderate(r), size, ratio, aligned),
        channels=2,
        check=close,
    )


@pytest.mark.parametrize("ratio", [2, None])
def test_position_sensitive_align_equals_reference(compiled, ratio):
    size = (2, 3)
    call = compiled(
        functools.partial(
            roi.position_sensitive_roi_align,
            output_size=size,
            sampling_ratio=ratio,
            max_sampling_ratio=32,
        )
    )
    check_random_and_adversarial(
        lambda f, r: call(f, np.clip(r, -2, 2)),
        lambda f, r: reference_align(f, np.clip(r, -2, 2), size, ratio, position_sensitive=True),
        channels=12,
        check=close,
    )


@pytest.mark.parametrize("operator", ["roi_align", "position_sensitive_roi_align"])
@pytest.mark.parametrize("ratio", [2, 3, None])
def test_align_gradients_equal_differences_of_the_reference(compiled, operator, ratio):
    rng = np.random.default_rng(3)
    size, sensitive = (2, 2), operator != "roi_align"
    features = rng.normal(size=(2, 4, 5, 4))
    rois = np.sort(rng.uniform(0.05, 0.95, (2, 5, 2, 2)), axis=2).reshape(2, 5, 4)
    rois[0, 1] = [-0.42, 0.31, 0.6, 1.52]  # parts of it don't count, others are clamped
    rois[1, 2] = [2, 2, 3, 3]
    slopes = rng.normal(size=(2, 5, *size, 1 if sensitive else 4))

    def loss(features, rois):
        pooled = getattr(roi, operator)(features, rois, size, ratio)
        return ops.sum(pooled * slopes.astype("float32"))

    found = compiled(functools.partial(gradients, loss))(
        features.astype("float32"), rois.astype("float32")
    )

    def reference(features, rois):
        return np.sum(reference_align(features, rois, size, ratio, True, sensitive) * slopes)

    check_slopes_of_linear(found[0], lambda x: reference(x, rois), features.shape)
    expected = central_differences(lambda x: reference(features, x), rois, step=1e-7)
    np.testing.assert_allclose(ops.convert_to_numpy(found[1]), expected, rtol=1e-3, atol=1e-3)


def test_not_finite_rois_give_zeros_and_zero_gradients(compiled):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(1, 4, 4, 4)).astype("float32")
    bad = np.array([[[np.nan, 0, 1, 1], [0, 0, np.inf, 1], [0, -np.inf, 1, np.nan]]], "float32")

    def pool(features, rois):
        pooled = [operator(features, rois, 2) for operator in OPERATORS]
        return ops.concatenate([ops.reshape(x, (-1,)) for x in pooled], axis=0)

    def slopes_and_values(features, rois):
        return *gradients(lambda f, r: ops.sum(pool(f, r)), features, rois), pool(features, rois)

    for found in compiled(slopes_and_values)(features, bad):
        np.testing.assert_array_equal(ops.convert_to_numpy(found), 0)


# --- Pyramids ------------------------------------------------------------------------------


@pytest.mark.parametrize("image_size", [(800, 1216), (1333, 640), (4000, 3000)])
def test_fpn_levels_at_the_boundaries(compiled, image_size):
    # A square of 224 pixels belongs to level 4, one of half the side to level 3; a hundredth
    # of a pixel less belongs to the level below.
    rng = np.random.default_rng(0)
    sides = 224 * 2.0 ** np.repeat([-2, -1, 0, 1], 50)
    expected = np.repeat([2, 3, 4, 5], 50)
    place = rng.integers(0, 100, (200, 2))
    for shorter in (0.0, 0.01):
        pixels = np.concatenate([place, place + (sides - shorter)[:, None]], axis=1)
        rois = (pixels / np.tile(image_size, 2)).astype("float32")
        found = compiled(
            functools.partial(roi.fpn_levels, image_size=image_size, min_level=1, max_level=6)
        )(rois)
        np.testing.assert_array_equal(ops.convert_to_numpy(found), expected - (shorter > 0))


def test_fpn_levels_equal_the_formula(compiled):
    image_size = (800, 1216)

    @settings(max_examples=20, deadline=None, derandomize=True)
    @given(seed=st.integers(0, 10**6))
    def check(seed):
        rng = np.random.default_rng(seed)
        sides = np.exp(rng.uniform(np.log(1), np.log(900), (200, 2)))
        pixels = rng.uniform(0, 1000, (200, 2))
        rois = np.concatenate([pixels, pixels + sides], axis=1) / np.tile(image_size, 2)
        # Torchvision: 1e-6 against rounding.
        exact = 4 + np.log2(np.sqrt(sides.prod(axis=1)) / 224) + 1e-6
        found = ops.convert_to_numpy(levels(rois.astype("float32")))
        clear = np.abs(exact - np.round(exact)) > 1e-5
        np.testing.assert_array_equal(found[clear], np.clip(np.floor(exact), 2, 5)[clear])

    levels = compiled(
        functools.partial(roi.fpn_levels, image_size=image_size, min_level=2, max_level=5)
    )
    check()
    odd = np.array(
        [[0, 0, 0, 0], [1, 1, 0, 0], [0, 0, np.nan, 1], [0, 0, np.inf, 1], [-9, -9, 9, 9]]
    )
    np.testing.assert_array_equal(
        ops.convert_to_numpy(roi.fpn_levels(odd, 800, 2, 5)), [2] * 4 + [5]
    )


@pytest.mark.parametrize("as_dict", [False, True])
def test_multilevel_align_reads_the_level_of_each_roi(compiled, as_dict):
    rng = np.random.default_rng(0)
    image_size = (128, 192)
    maps = [rng.normal(size=(2, 128 >> k, 192 >> k, 3)).astype("float32") for k in (2, 3, 4)]
    side = np.exp(rng.uniform(np.log(8), np.log(150), (2, 20, 2)))
    start = rng.uniform(-20, 140, (2, 20, 2))
    rois = (np.concatenate([start, start + side], axis=2) / np.tile(image_size, 2)).astype(
        "float32"
    )
    setting = {"min_level": 2, "max_level": 4, "canonical_size": 48, "canonical_level": 3}

    def call(a, b, c, rois):
        features = {"P4": c, "P2": a, "P3": b, "P6": c} if as_dict else [a, b, c]
        return roi.multilevel_roi_align(features, rois, (2, 3), image_size, **setting)

    found = ops.convert_to_numpy(compiled(call)(*maps, rois))
    levels = ops.convert_to_numpy(roi.fpn_levels(rois, image_size, **setting))
    assert set(levels.ravel()) == {2, 3, 4}
    for k, features in enumerate(maps):
        expected = reference_align(features, rois, (2, 3))
        close(found[levels == k + 2], expected[levels == k + 2])

    slopes = rng.normal(size=found.shape).astype("float32")
    found = compiled(
        functools.partial(gradients, lambda a, b, c: ops.sum(call(a, b, c, rois) * slopes))
    )(*maps)
    for k, features in enumerate(maps):
        # Linear: <slopes, pooling of x> is <gradient, x> for any x.
        x = rng.normal(size=features.shape)
        pooled = reference_align(x, rois.astype("float64"), (2, 3))
        expected = np.sum((pooled * slopes)[levels == k + 2])
        np.testing.assert_allclose(np.sum(ops.convert_to_numpy(found[k]) * x), expected, rtol=1e-3)


# --- Pooling of whole cells ------------------------------------------------------------------


def test_max_pooling_golden(compiled):
    #   0  1  2  3  4  5     The RoI, from (0.5, 1.5) to (3, 4), takes the rows 1 to 3 and the
    #   6 [7  8  9 10] 11    columns 2 to 4, ends included. Two bins of 3 cells share one.
    #  12 ...
    features = np.arange(30, dtype="float32").reshape(1, 5, 6, 1)
    rois = np.array([[[0.5 / 5, 1.5 / 6, 3 / 5, 4 / 6]]], "float32")
    found = compiled(functools.partial(roi_pooling.roi_max_pooling, output_size=2))(features, rois)
    np.testing.assert_array_equal(ops.convert_to_numpy(found)[0, 0, :, :, 0], [[15, 16], [21, 22]])


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 14)])
def test_max_pooling_equals_reference(compiled, size):
    call = compiled(functools.partial(roi_pooling.roi_max_pooling, output_size=size))
    check_random_and_adversarial(
        call,
        functools.partial(reference_pooling, size=size),
        channels=2,
        check=np.testing.assert_array_equal,
    )


@pytest.mark.parametrize("bins", [3, 6, 7, 14])
def test_borders_of_bins_are_those_of_float32(compiled, bins):
    # A division by 7 that becomes a product with 1/7 moves some of these borders by a cell.
    length = 400
    ends = np.arange(1, length + 1) - 1
    rois = np.stack([0 * ends, 0 * ends, 0 * ends + 1, ends / length], axis=1)[None]
    features = np.arange(length, dtype="float32").reshape(1, 1, length, 1)
    call = compiled(functools.partial(roi_pooling.roi_max_pooling, output_size=(1, bins)))
    found = ops.convert_to_numpy(call(features, rois.astype("float32")))[0, :, 0, :, 0]
    for end, values in zip(ends, found):
        exact = c_round(np.float32(end / length) * np.float32(length))
        expected = [behind - 1 for _, behind in whole_bins(0, exact, bins, True, length)]
        np.testing.assert_array_equal(values, expected)


def test_max_pooling_gradients_go_to_the_first_maximum(compiled):
    def loss(features, rois, slopes):
        return ops.sum(roi_pooling.roi_max_pooling(features, rois, (2, 3)) * slopes)

    slopes_of = compiled(lambda f, r, s: gradients(lambda f: loss(f, r, s), f))
    rng = np.random.default_rng(0)
    for levels in (1, 2, 10**6):  # with many ties and with none
        features = (rng.integers(-levels, levels + 1, (BATCH, *SIZE, 3)) / levels).astype("float32")
        for rois in (random_rois(rng), adversarial_rois()):
            slopes = rng.integers(-8, 8, (BATCH, NUMBER, 2, 3, 3)).astype("float32")
            found = slopes_of(features, rois, slopes)
            _, expected = reference_pooling(features, rois, (2, 3), slopes=slopes)
            np.testing.assert_array_equal(ops.convert_to_numpy(found[0]), expected)


@pytest.mark.parametrize("size", [(2, 3), (1, 1)])
def test_position_sensitive_pooling_equals_reference(compiled, size):
    pool = functools.partial(roi_pooling.position_sensitive_roi_pooling, output_size=size)
    check_random_and_adversarial(
        compiled(pool),
        functools.partial(reference_pooling, size=size, position_sensitive=True),
        channels=2 * size[0] * size[1],
        check=close,
    )
    rng = np.random.default_rng(0)
    rois, x = random_rois(rng), rng.normal(size=(BATCH, *SIZE, 2 * size[0] * size[1]))
    slopes = rng.normal(size=(BATCH, NUMBER, *size, 2)).astype("float32")
    found = compiled(functools.partial(gradients, lambda f: ops.sum(pool(f, rois) * slopes)))(
        x.astype("float32")
    )
    check_slopes_of_linear(
        found[0], lambda f: np.sum(reference_pooling(f, rois, size, True) * slopes), x.shape
    )


@pytest.mark.parametrize("size", [(4, 4), (13, 10), (3, 7), (1, 1)])
def test_spatial_pyramid_pooling_equals_reference(compiled, size):
    rng = np.random.default_rng(0)
    pool = compiled(functools.partial(roi_pooling.spatial_pyramid_pooling, levels=(4, 3, 1)))
    for _ in range(20):
        features = rng.normal(size=(2, *size, 3)).astype("float32")
        expected = []
        for n in (4, 3, 1):
            for i, j in np.ndindex(n, n):
                top, left = (int(np.floor(k * side / n)) for k, side in zip((i, j), size))
                bottom, right = (int(np.ceil((k + 1) * side / n)) for k, side in zip((i, j), size))
                expected.append(features[:, top:bottom, left:right].max(axis=(1, 2)))
        np.testing.assert_array_equal(
            ops.convert_to_numpy(pool(features)), np.concatenate(expected, axis=1)
        )


def test_spatial_pyramid_pooling_of_windows(compiled):
    rng = np.random.default_rng(0)
    features, rois = rng.normal(size=(BATCH, *SIZE, 3)).astype("float32"), random_rois(rng)
    found = compiled(lambda f, r: roi_pooling.spatial_pyramid_pooling(f, levels=(2, 1), rois=r))(
        features, rois
    )
    expected = [
        reference_pooling(features, rois, (n, n)).reshape(BATCH, NUMBER, -1) for n in (2, 1)
    ]
    np.testing.assert_array_equal(ops.convert_to_numpy(found), np.concatenate(expected, axis=2))


# --- Every operator --------------------------------------------------------------------------


@pytest.mark.parametrize("operator", OPERATORS)
def test_nothing_in(compiled, operator):
    pool = compiled(functools.partial(operator, output_size=2))
    for batch, number in ((0, 3), (2, 0)):
        found = pool(np.zeros((batch, 4, 4, 4), "float32"), np.zeros((batch, number, 4), "float32"))
        assert tuple(found.shape)[:4] == (batch, number, 2, 2)


@pytest.mark.parametrize("operator", OPERATORS)
def test_half_precision_is_computed_in_float32(operator):
    rng = np.random.default_rng(0)
    features = ops.cast(rng.normal(size=(BATCH, *SIZE, 4)), "float16")
    rois = random_rois(rng)
    found = operator(features, rois, 2)
    assert keras.backend.standardize_dtype(found.dtype) == "float16"
    expected = operator(ops.cast(features, "float32"), rois, 2)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(found), ops.convert_to_numpy(ops.cast(expected, "float16"))
    )
    (slopes,) = gradients(lambda x: ops.sum(ops.cast(operator(x, rois, 2), "float32")), features)
    (expected,) = gradients(lambda x: ops.sum(operator(x, rois, 2)), ops.cast(features, "float32"))
    np.testing.assert_allclose(
        ops.convert_to_numpy(ops.cast(slopes, "float32")),
        ops.convert_to_numpy(expected),
        rtol=2e-3,
        atol=2e-3,
    )


def test_results_do_not_change_from_call_to_call():
    rng = np.random.default_rng(0)
    features, rois = rng.normal(size=(BATCH, *SIZE, 8)).astype("float32"), random_rois(rng)
    for operator in OPERATORS:
        first, second = (
            gradients(lambda x: ops.sum(operator(x, rois, 2) ** 2), features)[0] for _ in range(2)
        )
        np.testing.assert_array_equal(ops.convert_to_numpy(first), ops.convert_to_numpy(second))


F, R = np.zeros((1, 4, 4, 4), "float32"), np.zeros((1, 3, 4), "float32")


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: roi.roi_align(F[0], R, 2), r"features must have .*\(4, 4, 4\)"),
        (lambda: roi.roi_align(F, R[0], 2), r"rois must have .*\(3, 4\)"),
        (lambda: roi.roi_align(F, R[..., :3], 2), r"rois must have .*\(1, 3, 3\)"),
        (lambda: roi.roi_align(np.concatenate([F, F]), R, 2), r"same batch; received: \[2, 1\]"),
        (lambda: roi.roi_align(F, R, 0), "output_size must .*received: 0"),
        (lambda: roi.roi_align(F, R, (2, 2, 2)), r"output_size must .*\(2, 2, 2\)"),
        (lambda: roi.roi_align(F, R, 2, sampling_ratio=0), "sampling_ratio must .*received: 0"),
        (lambda: roi.roi_align(F, R, 2, max_sampling_ratio=None), "max_sampling_ratio must .*None"),
        (lambda: roi.multilevel_roi_align([F], R, 2, 64), "levels 2 to 5, 4 of them; received: 1"),
        (lambda: roi.multilevel_roi_align(F, R, 2, 64), "features must be a list of the maps"),
        (
            lambda: roi.multilevel_roi_align({"P2": F}, R, 2, 64, max_level=3),
            r"keys \['P2', 'P3'\]; received: \['P2'\]",
        ),
        (
            lambda: roi.multilevel_roi_align([F, F[..., :2]], R, 2, 64, max_level=3),
            "equal channels and dtype",
        ),
        (lambda: roi.multilevel_roi_align([F] * 4, R, 2, None), "image_size must .*None"),
        (lambda: roi.fpn_levels(R, 64, 5, 2), "min_level must .*received: 5 and 2"),
        (lambda: roi.fpn_levels(R, 64, 2, 5, canonical_size=0), "canonical_size must .*: 0"),
        (lambda: roi.position_sensitive_roi_align(F, R, 3), r"multiple of 3 \* 3 .*: 4"),
        (lambda: roi_pooling.position_sensitive_roi_pooling(F, R, 3), r"multiple of 3 \* 3 .*: 4"),
        (lambda: roi_pooling.roi_max_pooling(F, R, -1), "output_size must .*received: -1"),
        (lambda: roi_pooling.roi_max_pooling(F[0], R, 2), "features must have"),
        (lambda: roi_pooling.spatial_pyramid_pooling(F, (2, 0)), r"levels must .*\(2, 0\)"),
        (lambda: roi_pooling.spatial_pyramid_pooling(F, ()), r"levels must .*\(\)"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- torchvision -----------------------------------------------------------------------------

TORCHVISION = """
import sys
import numpy, torch, torchvision.ops as tv
inputs = numpy.load(sys.argv[1])
features, rois = torch.from_numpy(inputs["features"]), torch.from_numpy(inputs["rois"])
outputs = {"roi_pool": tv.roi_pool(features, rois, (7, 7))}
outputs["ps_roi_pool"] = tv.ps_roi_pool(features, rois, (7, 7))
for ratio in (1, 2, 3, -1):
    for aligned in (True, False):
        name = f"roi_align {ratio} {aligned}"
        outputs[name] = tv.roi_align(features, rois, (7, 7), 1.0, ratio, aligned)
    outputs[f"ps_roi_align {ratio}"] = tv.ps_roi_align(features, rois, (7, 7), 1.0, ratio)
numpy.savez(sys.argv[2], **{name: x.numpy() for name, x in outputs.items()})
"""


@pytest.mark.slow
def test_equals_torchvision(compiled, tmp_path):
    probe = [TORCHVISION_PYTHON, "-c", "import torchvision"]
    if not TORCHVISION_PYTHON.exists() or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("python3-torchvision is not here")
    rng = np.random.default_rng(0)
    size, channels, number = (38, 50), 2 * 49, 300
    features = rng.normal(size=(2, *size, channels)).astype("float32")
    ends = rng.uniform(-0.2, 1.2, (2, number, 2, 2))
    rois = np.sort(ends, axis=2).reshape(2, number, 4)
    halves = np.round(rois * np.tile(size, 2) * 2) / 2 / np.tile(size, 2)
    rois = np.where(np.arange(number)[:, None] < 100, halves, rois).astype("float32")
    cells = (rois * np.tile(size, 2).astype("float32"))[..., [1, 0, 3, 2]].reshape(-1, 4)
    pictures = np.repeat(np.arange(2, dtype="float32"), number)[:, None]
    np.savez(
        tmp_path / "inputs.npz",
        features=np.ascontiguousarray(features.transpose(0, 3, 1, 2)),
        rois=np.concatenate([pictures, cells], axis=1),
    )
    paths = [tmp_path / "inputs.npz", tmp_path / "outputs.npz"]
    subprocess.run([TORCHVISION_PYTHON, "-c", TORCHVISION, *paths], check=True)
    expected = np.load(paths[1])

    def check(name, operator, check, **setting):
        call = compiled(functools.partial(operator, output_size=7, **setting))
        found = ops.convert_to_numpy(call(features, rois))
        found = found.reshape(2 * number, 7, 7, -1).transpose(0, 3, 1, 2)
        # Torchvision divides by the number of samples of empty RoIs, 0, where it is adaptive.
        check(found, np.nan_to_num(expected[name]), err_msg=name)

    exact = np.testing.assert_array_equal
    near = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5)
    check("roi_pool", roi_pooling.roi_max_pooling, exact)
    check("ps_roi_pool", roi_pooling.position_sensitive_roi_pooling, near)
    for ratio in (1, 2, 3, -1):
        setting = {"sampling_ratio": None if ratio < 0 else ratio}
        for aligned in (True, False):
            check(f"roi_align {ratio} {aligned}", roi.roi_align, near, aligned=aligned, **setting)
        check(f"ps_roi_align {ratio}", roi.position_sensitive_roi_align, near, **setting)
