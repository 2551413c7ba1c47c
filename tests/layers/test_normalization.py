import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from kerasvision import layers

SEEDS = st.integers(0, 2**31)


def compile_once(make, compiled, shape):
    """The layer built for a shape, and the compiled function of it."""
    layer = make()
    layer.build(shape)
    return compiled(lambda x: layer(x))


def random_map(seed, shape=(2, 3, 2, 8)):
    """Values of all magnitudes; a third of the seeds give zeros, ties and huge values."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape) * 10.0 ** rng.integers(-3, 3, (shape[0], 1, 1, 1))
    if seed % 3 == 0:
        x = rng.choice([0.0, 0.0, 1.0, -1.0, 1e-6, 3e4, -3e4], shape)
    return x.astype("float32")


def l2_reference(x, scale=10.0, epsilon=1e-10):
    y = np.zeros(x.shape)
    for place in np.ndindex(x.shape[:-1]):
        length = 0.0
        for value in x[place].astype("float64"):
            length += value * value
        for c, value in enumerate(x[place]):
            y[(*place, c)] = scale * value / np.sqrt(max(length, epsilon))
    return y


def local_response_reference(x, n=5, k=2.0, alpha=1e-4, beta=0.75):
    y = np.zeros(x.shape)
    for *place, i in np.ndindex(x.shape):
        total = 0.0
        for j in range(max(0, i - n // 2), min(x.shape[-1] - 1, i + n // 2) + 1):
            total += float(x[(*place, j)]) ** 2
        y[(*place, i)] = x[(*place, i)] / (k + alpha * total) ** beta
    return y


def pixel_reference(x, epsilon=1e-8):
    y = np.zeros(x.shape)
    for place in np.ndindex(x.shape[:-1]):
        mean = sum(float(value) ** 2 for value in x[place]) / x.shape[-1]
        for c, value in enumerate(x[place]):
            y[(*place, c)] = value / np.sqrt(mean + epsilon)
    return y


def minibatch_reference(x, group_size=2, epsilon=1e-8):
    batch, height, width, channels = x.shape
    groups = -(-batch // group_size)
    y = np.zeros((batch, height, width, channels + 1))
    y[..., :-1] = x
    for b in range(batch):
        members = [x[i].astype("float64") for i in range(batch) if i % groups == b % groups]
        total = 0.0
        for cell in np.ndindex(x.shape[1:]):
            values = [member[cell] for member in members]
            mean = sum(values) / len(values)
            variance = sum((value - mean) ** 2 for value in values) / len(values)
            total += np.sqrt(variance + epsilon)
        y[b, ..., -1] = total / (height * width * channels)
    return y


CASES = {
    "l2": (lambda: layers.L2Normalization(10.0), l2_reference),
    "local_response": (lambda: layers.LocalResponseNormalization(), local_response_reference),
    "local_response_alone": (
        lambda: layers.LocalResponseNormalization(1, k=1.0, alpha=0.5, beta=0.5),
        lambda x: local_response_reference(x, 1, 1.0, 0.5, 0.5),
    ),
    "local_response_wide": (
        lambda: layers.LocalResponseNormalization(n=9, alpha=1.0),
        lambda x: local_response_reference(x, 9, alpha=1.0),
    ),
    "pixel": (lambda: layers.PixelNormalization(), pixel_reference),
    "minibatch": (lambda: layers.MinibatchStandardDeviation(2), minibatch_reference),
}


@pytest.mark.parametrize("name", CASES)
def test_equals_reference(name, compiled):
    make, reference = CASES[name]
    layer = compile_once(make, compiled, (4, 3, 2, 8))

    @settings(max_examples=100, deadline=None, derandomize=True)
    @given(SEEDS)
    def check(seed):
        x = random_map(seed, (4, 3, 2, 8))
        np.testing.assert_allclose(layer(x), reference(x), rtol=2e-5, atol=1e-6)

    check()


@pytest.mark.parametrize("name", CASES)
def test_gradient(name, compiled):
    make, reference = CASES[name]
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(2, 4, 2, 1, 5)).astype("float32")
    slots = (4, 2, 1, 6) if name == "minibatch" else x.shape
    weights = rng.normal(size=slots)
    layer = make()
    layer.build(x.shape)

    def loss(x):
        return ops.sum(layer(x) * ops.convert_to_tensor(weights.astype("float32")))

    if keras.backend.backend() == "jax":
        import jax

        gradient = compiled(jax.grad(loss))
    else:
        import tensorflow as tf

        def gradient_of_loss(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                total = loss(x)
            return tape.gradient(total, x)

        gradient = compiled(gradient_of_loss)
    found = ops.convert_to_numpy(gradient(ops.convert_to_tensor(x)))

    expected, step = np.zeros(x.shape), 1e-4
    for cell in np.ndindex(x.shape):
        ends = []
        for sign in (1, -1):
            moved = x.astype("float64")
            moved[cell] += sign * step
            ends.append(np.sum(reference(moved) * weights))
        expected[cell] = (ends[0] - ends[1]) / (2 * step)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-4)


def test_l2_golden(compiled):
    layer = compile_once(lambda: layers.L2Normalization(scale=10.0), compiled, (None, 1, 2, 2))
    x = np.array([[[[3.0, 4.0], [0.0, 0.0]]]], "float32")
    np.testing.assert_allclose(layer(x), [[[[6.0, 8.0], [0.0, 0.0]]]], rtol=1e-6)


def test_local_response_golden(compiled):
    layer = compile_once(
        lambda: layers.LocalResponseNormalization(n=3, k=1.0, alpha=1.0, beta=1.0), compiled, (1, 3)
    )
    # 1 / (1 + 1 + 4), 2 / (1 + 1 + 4 + 9), 3 / (1 + 4 + 9)
    np.testing.assert_allclose(
        layer(np.array([[1.0, 2.0, 3.0]], "float32")), [[1 / 6, 2 / 15, 3 / 14]], rtol=1e-6
    )


def test_local_response_equals_tensorflow():
    tf = pytest.importorskip("tensorflow")
    x = random_map(1, (2, 5, 4, 96))
    expected = tf.nn.local_response_normalization(x, depth_radius=2, bias=2, alpha=1e-4, beta=0.75)
    found = layers.LocalResponseNormalization()(x)
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, rtol=1e-5, atol=1e-6)


def test_minibatch_golden(compiled):
    # Pictures 0 and 2 are a group, and differ by 2 everywhere; 1 and 3 do not differ.
    x = np.array([0.0, 5.0, 2.0, 5.0], "float32").reshape(4, 1, 1, 1) * np.ones((1, 2, 2, 3), "f")
    layer = compile_once(lambda: layers.MinibatchStandardDeviation(2), compiled, x.shape)
    y = ops.convert_to_numpy(layer(x))
    np.testing.assert_array_equal(y[..., :3], x)
    for picture, deviation in enumerate((1.0, 1e-4, 1.0, 1e-4)):
        np.testing.assert_allclose(y[picture, ..., 3], deviation, rtol=1e-5)


@pytest.mark.parametrize("batch", range(1, 10))
def test_minibatch_of_any_size(compiled, batch):
    # 3 pictures are one group, 7 are groups of 4 and 3, 9 are three of 3.
    layer = compile_once(lambda: layers.MinibatchStandardDeviation(4), compiled, (batch, 2, 2, 4))
    for seed in (1, 2, 4):
        x = random_map(seed, (batch, 2, 2, 4))
        np.testing.assert_allclose(layer(x), minibatch_reference(x, 4), rtol=1e-5)


def test_minibatch_of_unknown_size():
    inputs = keras.Input((2, 2, 4))
    model = keras.Model(inputs, layers.MinibatchStandardDeviation(2)(inputs))
    assert model.output_shape == (None, 2, 2, 5)
    for batch in (1, 2, 5, 6):
        x = random_map(1, (batch, 2, 2, 4))
        found = model.predict(x, verbose=0)
        np.testing.assert_allclose(found, minibatch_reference(x, 2), rtol=1e-5)


@pytest.mark.parametrize("make", [case[0] for case in CASES.values()])
def test_half_precision_does_not_overflow(make):
    x = np.full((4, 1, 1, 512), 200.0, "float16")
    x[1] = -200.0
    layer = type(make()).from_config({**make().get_config(), "dtype": "mixed_float16"})
    y = ops.convert_to_numpy(layer(x))
    assert y.dtype == np.float16
    exact = ops.convert_to_numpy(make()(x.astype("float32")))
    np.testing.assert_allclose(y.astype("float32"), exact, rtol=2e-3)


def test_instance_normalization_of_keras():
    x = random_map(1, (2, 8, 6, 3)).astype("float64")
    mean, variance = x.mean((1, 2), keepdims=True), x.var((1, 2), keepdims=True)
    found = keras.layers.GroupNormalization(groups=-1, epsilon=1e-5)(x.astype("float32"))
    expected = (x - mean) / np.sqrt(variance + 1e-5)
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: layers.LocalResponseNormalization(n=4), "n must be an odd .*received: 4"),
        (lambda: layers.LocalResponseNormalization(k=0.0), "k must be positive; received: 0.0"),
        (lambda: layers.PixelNormalization(epsilon=0.0), "epsilon must be positive"),
        (lambda: layers.L2Normalization(epsilon=-1.0), "epsilon must be positive"),
        (lambda: layers.MinibatchStandardDeviation(0), "group_size must be .*received: 0"),
        (
            lambda: layers.MinibatchStandardDeviation(4)(np.zeros((6, 1, 1), "float32")),
            r"inputs must have shape .*received: \(6, 1, 1\)",
        ),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
