import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.layers.unpooling import (
    BedOfNailsUnpooling2D,
    MaxPoolingWithIndices2D,
    MaxUnpooling2D,
)


def small_segnet(size=(6, 7), pool_size=2, strides=None, padding="valid"):
    """Pooling, a decoder's scaling of the values, unpooling to where they came from."""
    inputs = keras.Input((*size, 2))
    maxima, indices = MaxPoolingWithIndices2D(pool_size, strides, padding)(inputs)
    values = keras.layers.Rescaling(2.0)(maxima)
    unpool = MaxUnpooling2D(pool_size, strides, padding, output_size=size)
    return keras.Model(inputs, [indices, unpool(values, indices)])


def random_map(size):
    """No two values are equal, and all are positive."""
    count = 2 * np.prod(size) * 2
    values = np.random.default_rng(0).permutation(count) + 1
    return values.reshape(2, *size, 2).astype("float32")


@pytest.mark.parametrize(
    "size, pool_size, strides, padding",
    [
        ((6, 7), 2, None, "valid"),
        ((5, 7), 2, None, "same"),
        ((7, 7), 3, 2, "valid"),
        ((6, 5), (2, 3), (1, 2), "same"),
    ],
)
def test_maxima_return_doubled_and_all_else_is_zero(size, pool_size, strides, padding):
    x = random_map(size)
    model = small_segnet(size, pool_size, strides, padding)
    indices, y = model.predict(x, verbose=0)
    window = np.broadcast_to(pool_size, 2)
    assert indices.dtype == np.int32 and indices.min() >= 0 and indices.max() < window.prod()
    pooled = keras.layers.MaxPooling2D(pool_size, strides, padding)(x)
    is_maximum = np.isin(x, ops.convert_to_numpy(pooled))
    np.testing.assert_array_equal(y, np.where(is_maximum, 2 * x, 0))


def test_golden(compiled):
    x = np.array([[1, 2, 7, 7], [4, 3, 7, 7]], "float32")[None, :, :, None]
    pool, unpool = MaxPoolingWithIndices2D(), MaxUnpooling2D()
    maxima, indices = compiled(lambda x: pool(x))(x)
    np.testing.assert_array_equal(maxima[0, :, :, 0], [[4, 7]])
    np.testing.assert_array_equal(indices[0, :, :, 0], [[2, 0]])
    y = compiled(lambda x, i: unpool(x, i))(maxima, indices)
    np.testing.assert_array_equal(y[0, :, :, 0], [[0, 0, 7, 0], [4, 0, 0, 0]])
    y = compiled(lambda x: BedOfNailsUnpooling2D((1, 2))(x))(x)
    np.testing.assert_array_equal(
        y[0, :, :, 0], [[1, 0, 2, 0, 7, 0, 7, 0], [4, 0, 3, 0, 7, 0, 7, 0]]
    )


@pytest.mark.parametrize(
    "layer, shapes",
    [
        (MaxPoolingWithIndices2D(3, 2, "same"), [(2, 5, 7, 3)]),
        (MaxPoolingWithIndices2D((2, 3)), [(2, 5, 7, 3)]),
        (MaxUnpooling2D(3, 2), [(2, 2, 3, 1)] * 2),
        (MaxUnpooling2D(2, padding="same", output_size=(3, 6)), [(2, 2, 3, 1)] * 2),
        (BedOfNailsUnpooling2D((3, 2)), [(2, 2, 3, 1)]),
    ],
)
def test_promised_shapes_and_dtypes_are_kept(layer, shapes):
    inputs = [np.zeros(shape, dtype) for shape, dtype in zip(shapes, ("float32", "int32"))]
    symbols = [keras.KerasTensor(x.shape, x.dtype.name) for x in inputs]
    found, promised = (keras.tree.flatten(layer(*x)) for x in (inputs, symbols))
    for value, promise in zip(found, promised, strict=True):
        assert tuple(value.shape) == promise.shape
        assert keras.backend.standardize_dtype(value.dtype) == promise.dtype
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()


def test_mixed_precision():
    x = random_map((4, 4)) / 8
    pool = MaxPoolingWithIndices2D(dtype="mixed_float16")
    unpool = MaxUnpooling2D(dtype="mixed_float16")
    maxima, indices = pool(x)
    y = unpool(maxima, indices)
    dtypes = [keras.backend.standardize_dtype(value.dtype) for value in (maxima, indices, y)]
    assert dtypes == ["float16", "int32", "float16"]
    expected = MaxUnpooling2D()(*MaxPoolingWithIndices2D()(x))
    np.testing.assert_array_equal(ops.convert_to_numpy(y), ops.convert_to_numpy(expected))


def test_survives_a_file(tmp_path):
    model, x = small_segnet((7, 7), 3, 2, "same"), random_map((7, 7))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for found, expected in zip(loaded.predict(x, verbose=0), model.predict(x, verbose=0)):
        np.testing.assert_array_equal(found, expected)


def test_equals_in_litert(in_litert):
    model, x = small_segnet(), random_map((6, 7))
    found = in_litert(lambda x: model(x), x)(x)
    for value, expected in zip(found, model(x)):
        np.testing.assert_array_equal(value, expected)


def test_trains_between_convolutions():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    maxima, indices = MaxPoolingWithIndices2D()(keras.layers.Conv2D(4, 3, padding="same")(inputs))
    x = keras.layers.Conv2D(4, 3, padding="same")(maxima)
    outputs = keras.layers.Conv2D(1, 3, padding="same")(MaxUnpooling2D()(x, indices))
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.Adam(0.03), "mse")
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype("float32")
    losses = [model.train_on_batch(x, x) for _ in range(60)]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: MaxPoolingWithIndices2D(0), "pool_size must .*received: 0"),
        (lambda: MaxPoolingWithIndices2D(padding="full"), "padding must .*'full'"),
        (lambda: MaxUnpooling2D(2, (1, 0)), r"strides must .*\(1, 0\)"),
        (lambda: BedOfNailsUnpooling2D(1.5), "size must .*received: 1.5"),
        (lambda: MaxPoolingWithIndices2D(3)(np.zeros((1, 2, 4, 1), "f4")), r"at most .*\(2, 4\)"),
        (
            lambda: MaxPoolingWithIndices2D()(keras.Input((None, 4, 1))),
            r"size of the map .*\(None, 4\)",
        ),
        (lambda: BedOfNailsUnpooling2D()(keras.Input((None, 4, 1))), r"size of the map .*None"),
        (
            lambda: MaxUnpooling2D(output_size=(9, 9))(
                keras.Input((2, 2, 1)), keras.Input((2, 2, 1))
            ),
            r"output_size must .*\(2, 2\); received: \(9, 9\)",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
