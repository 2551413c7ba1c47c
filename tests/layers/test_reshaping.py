import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from kerasvision import layers


def space_to_depth_reference(x, size):
    batch, height, width, channels = x.shape
    y = np.zeros((batch, height // size, width // size, channels * size**2), x.dtype)
    for b, i, j, c in np.ndindex(x.shape):
        place = (i % size * size + j % size) * channels + c
        y[b, i // size, j // size, place] = x[b, i, j, c]
    return y


def depth_to_space_reference(x, size):
    batch, height, width, channels = x.shape
    y = np.zeros((batch, height * size, width * size, channels // size**2), x.dtype)
    for b, i, j, c in np.ndindex(y.shape):
        place = (i % size * size + j % size) * y.shape[-1] + c
        y[b, i, j, c] = x[b, i // size, j // size, place]
    return y


def mirrored(index, side):
    index = abs(index)
    return index if index < side else 2 * (side - 1) - index


def reflection_reference(x, padding):
    (top, bottom), (left, right) = padding
    batch, height, width, channels = x.shape
    y = np.zeros((batch, top + height + bottom, left + width + right, channels), x.dtype)
    for b, i, j, c in np.ndindex(y.shape):
        y[b, i, j, c] = x[b, mirrored(i - top, height), mirrored(j - left, width), c]
    return y


def random_map(seed, shape):
    """A third of the seeds give ties, and values that aren't numbers: they move as any other."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape)
    if seed % 3 == 0:
        x = rng.choice([0.0, 1.0, np.nan, np.inf, -np.inf, 1e38], shape)
    return x.astype("float32")


CASES = {
    "to depth 2": (layers.SpaceToDepth(2), lambda x: space_to_depth_reference(x, 2), (2, 4, 6, 3)),
    "to depth 3": (layers.SpaceToDepth(3), lambda x: space_to_depth_reference(x, 3), (1, 6, 3, 2)),
    "to space 2": (layers.DepthToSpace(2), lambda x: depth_to_space_reference(x, 2), (2, 3, 2, 8)),
    "to space 3": (layers.DepthToSpace(3), lambda x: depth_to_space_reference(x, 3), (1, 1, 2, 9)),
    "to space 1": (layers.DepthToSpace(1), lambda x: x, (1, 1, 2, 3)),
    "reflection": (
        layers.ReflectionPadding2D(2),
        lambda x: reflection_reference(x, ((2, 2), (2, 2))),
        (2, 4, 3, 2),
    ),
    "uneven reflection": (
        layers.ReflectionPadding2D(((0, 3), (1, 2))),
        lambda x: reflection_reference(x, ((0, 3), (1, 2))),
        (1, 4, 3, 2),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_equals_reference(name, compiled):
    layer, reference, shape = CASES[name]
    function = compiled(lambda x: layer(x))

    @settings(max_examples=80, deadline=None, derandomize=True)
    @given(st.integers(0, 2**31))
    def check(seed):
        x = random_map(seed, shape)
        np.testing.assert_array_equal(function(x), reference(x))

    check()
    assert tuple(layer.compute_output_shape(shape)) == reference(np.zeros(shape)).shape


@pytest.mark.parametrize("name", CASES)
def test_gradient(name):
    """They are linear: the slope of sum(weights * layer(x)) is the same everywhere."""
    layer, reference, shape = CASES[name]
    size = int(np.prod(shape))
    columns = np.stack([reference(unit.reshape(shape)).ravel() for unit in np.eye(size)])
    weights = np.random.default_rng(0).normal(size=columns.shape[1])
    expected = (columns @ weights).reshape(shape)
    upstream = weights.reshape(reference(np.zeros(shape)).shape).astype("float32")
    x = np.zeros(shape, "float32")
    if keras.backend.backend() == "jax":
        import jax

        found = jax.grad(lambda x: ops.sum(layer(x) * upstream))(x)
    else:
        import tensorflow as tf

        x = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = ops.sum(layer(x) * upstream)
        found = tape.gradient(loss, x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_space_to_depth_golden():
    x = np.array([[0, 1], [2, 3]], "float32").reshape(1, 2, 2, 1) + np.array([0.0, 0.5], "float32")
    found = layers.SpaceToDepth()(x)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(found)[0, 0, 0], [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5]
    )
    np.testing.assert_array_equal(ops.convert_to_numpy(layers.DepthToSpace()(found)), x)


def test_equal_to_tensorflow():
    tf = pytest.importorskip("tensorflow")
    x = random_map(1, (2, 6, 4, 12))
    for layer, expected in (
        (layers.SpaceToDepth(2), tf.nn.space_to_depth(x, 2)),
        (layers.DepthToSpace(2), tf.nn.depth_to_space(x, 2)),
        (
            layers.ReflectionPadding2D((3, 1)),
            tf.pad(x, [(0, 0), (3, 3), (1, 1), (0, 0)], mode="REFLECT"),
        ),
    ):
        np.testing.assert_array_equal(ops.convert_to_numpy(layer(x)), expected)


@pytest.mark.parametrize("name", ["to depth 2", "to space 2"])
def test_blocks_of_pictures_of_unknown_size(name):
    layer, reference, shape = CASES[name]
    inputs = keras.Input((None, None, shape[-1]))
    model = keras.Model(inputs, layer(inputs))
    assert model.output_shape[1:3] == (None, None)
    for sides in ((2, 6), (4, 2)):
        x = random_map(1, (3, *sides, shape[-1]))
        np.testing.assert_array_equal(model.predict(x, verbose=0), reference(x))


def test_reflection_of_pictures_of_unknown_size():
    inputs = keras.Input((None, None, 1))
    model = keras.Model(inputs, layers.ReflectionPadding2D(1)(inputs))
    assert model.output_shape == (None, None, None, 1)
    x = np.arange(6, dtype="float32").reshape(1, 2, 3, 1)
    expected = [[4, 3, 4, 5, 4], [1, 0, 1, 2, 1], [4, 3, 4, 5, 4], [1, 0, 1, 2, 1]]
    np.testing.assert_array_equal(model.predict(x, verbose=0)[0, :, :, 0], expected)


X = np.zeros((1, 3, 4, 6), "float32")


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: layers.SpaceToDepth(0), "block_size must .*received: 0"),
        (lambda: layers.SpaceToDepth(2)(X), r"height and width that 2 .*\(1, 3, 4, 6\)"),
        (lambda: layers.DepthToSpace(2)(X), r"multiple of 4 channels; .*\(1, 3, 4, 6\)"),
        (lambda: layers.ReflectionPadding2D(-1), "padding must .*received: -1"),
        (lambda: layers.ReflectionPadding2D((1, (1, 2, 3))), "padding must .*received"),
        (lambda: layers.ReflectionPadding2D(3)(X), r"the height of 3; received: \(3, 3\)"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
