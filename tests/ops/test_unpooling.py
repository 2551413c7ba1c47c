import functools

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from kerasvision.ops import unpooling

# Size of the map, windows, strides, padding: apart, overlapping, with gaps, with remainders.
CASES = [
    ((4, 6), 2, None, "valid"),
    ((5, 7), 2, None, "valid"),
    ((5, 7), 2, None, "same"),
    ((7, 6), 3, 2, "valid"),
    ((7, 6), 3, 2, "same"),
    ((4, 5), 3, 1, "same"),
    ((6, 7), (2, 3), (3, 1), "valid"),
    ((7, 5), (1, 4), (2, 2), "same"),
    ((7, 5), 2, 3, "same"),
    ((1, 2), 3, 3, "same"),
]


def geometry(size, pool_size, strides, padding):
    """Windows, strides, counts of windows and padding before them, for rows and columns."""
    window = np.broadcast_to(pool_size, 2)
    step = window if strides is None else np.broadcast_to(strides, 2)
    if padding == "valid":
        return window, step, (np.array(size) - window) // step + 1, (0, 0)
    count = -(-np.array(size) // step)
    missing = np.maximum((count - 1) * step + window - size, 0)
    return window, step, count, missing // 2


def reference_pooling(x, pool_size, strides, padding):
    """Window by window, cell by cell."""
    window, step, count, before = geometry(x.shape[1:3], pool_size, strides, padding)
    maxima = np.zeros((len(x), *count, x.shape[3]), x.dtype)
    indices = np.zeros(maxima.shape, int)
    for b, row, column, c in np.ndindex(maxima.shape):
        best = None
        for i, j in np.ndindex(*window):
            y, z = row * step[0] - before[0] + i, column * step[1] - before[1] + j
            if 0 <= y < x.shape[1] and 0 <= z < x.shape[2]:
                if best is None or x[b, y, z, c] > best:
                    best = x[b, y, z, c]
                    indices[b, row, column, c] = i * window[1] + j
        maxima[b, row, column, c] = best
    return maxima, indices


def reference_unpooling(values, indices, size, pool_size, strides, padding):
    """Value by value in row-major order, each written over what was there."""
    window, step, _, before = geometry(size, pool_size, strides, padding)
    x = np.zeros((len(values), *size, values.shape[3]), values.dtype)
    for b, row, column, c in np.ndindex(values.shape):
        index = indices[b, row, column, c]
        if 0 <= index < window[0] * window[1]:
            y = row * step[0] - before[0] + index // window[1]
            z = column * step[1] - before[1] + index % window[1]
            if 0 <= y < size[0] and 0 <= z < size[1]:
                x[b, y, z, c] = values[b, row, column, c]
    return x


def gradient(function):
    """The gradient of a function of one tensor whose value is a number."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.grad(function)
    import tensorflow as tf

    def tape_gradient(x):
        x = tf.convert_to_tensor(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x)
        return tape.gradient(value, x)

    return tape_gradient


def central_differences(function, x, step=1e-3):
    slopes = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        ahead, behind = x.copy(), x.copy()
        ahead[place] += step
        behind[place] -= step
        slopes[place] = (function(ahead) - function(behind)) / (2 * step)
    return slopes


def adversarial(size):
    """Maps of one channel each that tempt a comparison to take the wrong cell."""
    height, width = size
    row, column = np.mgrid[:height, :width]
    corner = np.zeros(size)
    corner[0, 0] = 1
    spike = np.full(size, -np.inf)
    spike[-1, -1] = -3e38
    maps = [
        *(np.full(size, value) for value in (0.0, -1.0, 5.0, np.inf, -np.inf, -3e38, 3e38)),
        *(row, -row, column, -column, row + column, -row - column, row - column),
        *((row + column) % 2, -((row + column) % 2), row % 2, column % 2, row // 2 + column // 2),
        *(corner, corner[::-1], corner[:, ::-1], corner[::-1, ::-1], -corner, -corner[::-1]),
        *(spike, np.where(row % 2, 0.0, -0.0), np.where(column % 2, -0.0, 0.0), -1.0 - corner),
    ]
    return np.stack(maps, axis=-1)[None].astype("float32")


@pytest.mark.parametrize("case", CASES)
def test_equals_reference(compiled, case):
    size, *setting = case
    names = ("pool_size", "strides", "padding")
    pool = compiled(
        functools.partial(unpooling.max_pooling_with_indices, **dict(zip(names, setting)))
    )
    unpool = compiled(
        functools.partial(unpooling.max_unpooling, **dict(zip(names, setting)), output_size=size)
    )

    def check(x, rng):
        maxima, indices = (ops.convert_to_numpy(y) for y in pool(x))
        expected_maxima, expected_indices = reference_pooling(x, *setting)
        np.testing.assert_array_equal(maxima, expected_maxima)
        np.testing.assert_array_equal(indices, expected_indices)
        assert indices.dtype == np.int32
        # Other values than the maxima, as behind a decoder's convolutions; other indices too.
        values = rng.normal(size=maxima.shape).astype("float32")
        stray = rng.integers(-2, 12, indices.shape).astype("int32")
        for places in (indices, stray):
            np.testing.assert_array_equal(
                ops.convert_to_numpy(unpool(values, places)),
                reference_unpooling(values, places, size, *setting),
            )

    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(seed=st.integers(0, 10**6), levels=st.sampled_from([1, 2, 3, 10, 10**6]))
    def check_random(seed, levels):
        # Few levels make many ties.
        rng = np.random.default_rng(seed)
        x = rng.integers(-levels, levels, (2, *size, 2)).astype("float32") / levels
        check(x, rng)

    check_random()
    check(adversarial(size), np.random.default_rng(0))


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_the_reference(compiled, case):
    size, *setting = case
    rng = np.random.default_rng(0)
    # Neighbouring values lie far apart in comparison with the step of the differences.
    x = rng.permutation(np.prod(size) * 4).reshape(2, *size, 2) / 10.0
    maxima, indices = reference_pooling(x, *setting)
    weights = rng.normal(size=maxima.shape)
    found = compiled(
        gradient(lambda x: ops.sum(unpooling.max_pooling_with_indices(x, *setting)[0] * weights))
    )(x.astype("float32"))
    expected = central_differences(lambda x: np.sum(reference_pooling(x, *setting)[0] * weights), x)
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, atol=1e-4)

    values, weights = rng.normal(size=maxima.shape), rng.normal(size=x.shape)
    stray = rng.integers(-1, 10, indices.shape)
    for places in (indices, stray):
        found = compiled(
            gradient(
                lambda v: ops.sum(
                    unpooling.max_unpooling(v, places, *setting, output_size=size) * weights
                )
            )
        )(values.astype("float32"))
        expected = central_differences(
            lambda v: np.sum(reference_unpooling(v, places, size, *setting) * weights), values
        )
        np.testing.assert_allclose(ops.convert_to_numpy(found), expected, atol=1e-4)


def test_golden(compiled):
    # The first of equal values is taken, row by row; the last column belongs to no window.
    x = np.array(
        [
            [1, 2, 7, 7, 9],
            [4, 3, 7, 7, 9],
            [5, 5, -2, -1, 9],
            [5, 6, -1, -3, 9],
        ],
        "float32",
    )[None, :, :, None]
    maxima, indices = compiled(unpooling.max_pooling_with_indices)(x)
    np.testing.assert_array_equal(maxima[0, :, :, 0], [[4, 7], [6, -1]])
    np.testing.assert_array_equal(indices[0, :, :, 0], [[2, 0], [3, 1]])
    values = np.array([[10, 20], [30, 40]], "float32")[None, :, :, None]
    y = compiled(unpooling.max_unpooling)(values, indices, output_size=(4, 5))
    np.testing.assert_array_equal(
        y[0, :, :, 0],
        [
            [0, 0, 20, 0, 0],
            [10, 0, 0, 0, 0],
            [0, 0, 0, 40, 0],
            [0, 30, 0, 0, 0],
        ],
    )


def test_overlapping_golden(compiled):
    # Four windows of 3x3 share the middle: the last value stays, and alone has a gradient.
    x = np.zeros((1, 5, 5, 1), "float32")
    x[0, 2, 2] = 1
    maxima, indices = unpooling.max_pooling_with_indices(x, 3, 2)
    np.testing.assert_array_equal(ops.convert_to_numpy(indices)[0, :, :, 0], [[8, 6], [2, 0]])
    values = np.array([[1, 2], [3, 4]], "float32")[None, :, :, None]
    y = compiled(unpooling.max_unpooling)(values, indices, pool_size=3, strides=2)
    np.testing.assert_array_equal(y, 4 * x)
    slopes = gradient(lambda v: ops.sum(unpooling.max_unpooling(v, indices, 3, 2)))(values)
    np.testing.assert_array_equal(ops.convert_to_numpy(slopes)[0, :, :, 0], [[0, 0], [0, 1]])
    # All four maxima are this one value, so that its gradient is their sum.
    slopes = gradient(lambda x: ops.sum(unpooling.max_pooling_with_indices(x, 3, 2)[0]))(x)
    np.testing.assert_array_equal(ops.convert_to_numpy(slopes), 4 * x)


@pytest.mark.parametrize("case", CASES)
def test_equals_tensorflow(case):
    tf = pytest.importorskip("tensorflow")
    (height, width), *setting = case
    window, step, count, before = geometry((height, width), *setting)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        channels = 3
        x = rng.integers(-4, 4, (2, height, width, channels)).astype("float32")
        if seed % 4 == 0:
            x[x < 0] = -np.inf
        expected, argmax = tf.nn.max_pool_with_argmax(
            x, window.tolist(), step.tolist(), setting[-1].upper(), include_batch_in_index=True
        )
        maxima, indices = unpooling.max_pooling_with_indices(x, *setting)
        np.testing.assert_array_equal(ops.convert_to_numpy(maxima), expected)
        indices = ops.convert_to_numpy(indices)
        b, row, column, c = np.indices(indices.shape)
        y = row * step[0] - before[0] + indices // window[1]
        z = column * step[1] - before[1] + indices % window[1]
        flat = ((b * height + y) * width + z) * channels + c
        np.testing.assert_array_equal(flat, argmax)

        # Of values that belong to one place TensorFlow promises no order but in this one.
        if (window <= step).all():
            scattered = tf.scatter_nd(
                tf.reshape(argmax, (-1, 1)), tf.reshape(expected, (-1,)), (x.size,)
            )
            found = unpooling.max_unpooling(maxima, indices, *setting, output_size=(height, width))
            np.testing.assert_array_equal(
                ops.convert_to_numpy(found), tf.reshape(scattered, x.shape)
            )


@pytest.mark.parametrize("case", CASES)
def test_equals_in_litert(in_litert, case):
    size, *setting = case

    def pool_and_unpool(x, values):
        maxima, indices = unpooling.max_pooling_with_indices(x, *setting)
        back = unpooling.max_unpooling(values, indices, *setting, output_size=size)
        return maxima, indices, back

    rng = np.random.default_rng(0)
    x = rng.integers(-3, 3, (2, *size, 3)).astype("float32")
    values = rng.normal(size=(2, *unpooling.pooled_size(size, *setting), 3)).astype("float32")
    found = in_litert(pool_and_unpool, x, values)(x, values)
    maxima, indices = reference_pooling(x, *setting)
    back = reference_unpooling(values, indices, size, *setting)
    for value, expected in zip(found, (maxima, indices, back)):
        np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize("name", ["bed_of_nails_unpooling", "nearest_unpooling"])
def test_unpoolings_without_indices_equal_in_litert(in_litert, name):
    unpool = functools.partial(getattr(unpooling, name), size=(2, 3))
    x = np.random.default_rng(0).normal(size=(1, 3, 4, 2)).astype("float32")
    np.testing.assert_array_equal(in_litert(unpool, x)(x), unpool(x))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_dtype_is_kept(dtype):
    x = ops.cast(np.arange(32, dtype="float32").reshape(1, 4, 4, 2), dtype)
    maxima, indices = unpooling.max_pooling_with_indices(x, 3, 1, "same")
    y = unpooling.max_unpooling(maxima, indices, 3, 1, "same")
    for value in (maxima, y, unpooling.bed_of_nails_unpooling(x), unpooling.nearest_unpooling(x)):
        assert keras.backend.standardize_dtype(value.dtype) == dtype
    np.testing.assert_array_equal(
        ops.convert_to_numpy(ops.cast(maxima, "float32"))[0, 0, :, 0], [10, 12, 14, 14]
    )


def test_no_pictures(compiled):
    x = np.zeros((0, 4, 6, 2), "float32")
    maxima, indices = compiled(unpooling.max_pooling_with_indices)(x)
    assert tuple(maxima.shape) == tuple(indices.shape) == (0, 2, 3, 2)
    assert tuple(compiled(unpooling.max_unpooling)(maxima, indices).shape) == x.shape


def test_lists_are_tensors():
    maxima, indices = unpooling.max_pooling_with_indices([[[[1.0], [2.0]], [[4.0], [3.0]]]])
    assert (float(maxima[0, 0, 0, 0]), int(indices[0, 0, 0, 0])) == (4.0, 2)
    y = unpooling.max_unpooling([[[[5.0]]]], [[[[1]]]])
    np.testing.assert_array_equal(ops.convert_to_numpy(y)[0, :, :, 0], [[0, 5], [0, 0]])


@pytest.mark.parametrize("size", [1, 2, (3, 2), (1, 4)])
def test_bed_of_nails_and_nearest(compiled, size):
    rows, columns = np.broadcast_to(size, 2)
    by_nails = compiled(functools.partial(unpooling.bed_of_nails_unpooling, size=size))
    by_nearest = compiled(functools.partial(unpooling.nearest_unpooling, size=size))

    def check(x):
        batch, height, width, channels = x.shape
        nails = np.zeros((batch, height * rows, width * columns, channels), "float32")
        nearest = nails.copy()
        for b, y, z, c in np.ndindex(nails.shape):
            nearest[b, y, z, c] = x[b, y // rows, z // columns, c]
            if y % rows == z % columns == 0:
                nails[b, y, z, c] = x[b, y // rows, z // columns, c]
        np.testing.assert_array_equal(by_nails(x), nails)
        np.testing.assert_array_equal(by_nearest(x), nearest)

    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(seed=st.integers(0, 10**6))
    def check_random(seed):
        check(np.random.default_rng(seed).normal(size=(2, 3, 4, 2)).astype("float32"))

    check_random()
    check(adversarial((3, 4)))


@pytest.mark.parametrize("name", ["bed_of_nails_unpooling", "nearest_unpooling"])
def test_gradients_of_the_unpoolings_without_indices(compiled, name):
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(2, 6, 6, 2))
    x = rng.normal(size=(2, 3, 2, 2)).astype("float32")
    unpool = getattr(unpooling, name)
    found = compiled(gradient(lambda x: ops.sum(unpool(x, (2, 3)) * weights)))(x)
    blocks = weights.reshape(2, 3, 2, 2, 3, 2)
    expected = {
        "bed_of_nails_unpooling": blocks[:, :, 0, :, 0],
        "nearest_unpooling": blocks.sum((2, 4)),
    }[name]
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_sizes(case):
    size, *setting = case
    count = unpooling.pooled_size(size, *setting)
    assert count == tuple(geometry(size, *setting)[2])
    back = unpooling.unpooled_size(count, *setting)
    assert unpooling.pooled_size(back, *setting) == count
    assert unpooling.unpooled_size(count, *setting, output_size=size) == size
    # Under "valid" the smallest map of all that pool to this size, under "same" the largest.
    beside = tuple(side - 1 if setting[-1] == "valid" else side + 1 for side in back)
    if min(beside) >= np.max(setting[0]) or setting[-1] == "same":
        assert unpooling.pooled_size(beside, *setting) != count


X = np.zeros((1, 4, 4, 2), "float32")
INDICES = np.zeros((1, 2, 2, 2), "int32")


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: unpooling.max_pooling_with_indices(X[0]), r"inputs must have .*\(4, 4, 2\)"),
        (lambda: unpooling.max_pooling_with_indices(X, 0), "pool_size must .*received: 0"),
        (lambda: unpooling.max_pooling_with_indices(X, (2, 2, 2)), r"pool_size must .*\(2, 2, 2\)"),
        (lambda: unpooling.max_pooling_with_indices(X, 2.5), "pool_size must .*received: 2.5"),
        (lambda: unpooling.max_pooling_with_indices(X, 2, (1, -1)), r"strides must .*\(1, -1\)"),
        (lambda: unpooling.max_pooling_with_indices(X, padding="full"), "padding must .*'full'"),
        (lambda: unpooling.max_pooling_with_indices(X, 5), r"pool_size must .*\(4, 4\).*\(5, 5\)"),
        (lambda: unpooling.max_unpooling(X, INDICES), r"indices must have .*\(1, 2, 2, 2\) for"),
        (lambda: unpooling.max_unpooling(X, X), "indices must be integers; .*float32"),
        (lambda: unpooling.max_unpooling(X[0], INDICES), "inputs must have"),
        (
            lambda: unpooling.max_unpooling(X, ops.cast(X, "int32"), output_size=(8, 10)),
            r"output_size must .*\(4, 4\); received: \(8, 10\)",
        ),
        (lambda: unpooling.bed_of_nails_unpooling(X, -1), "size must .*received: -1"),
        (lambda: unpooling.nearest_unpooling(X[0]), "inputs must have"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
