import keras
import numpy as np
import pytest
from keras import ops

from kerasvision import layers
from kerasvision.layers.convolution import GroupedConv2D


def upsampling(factor, channels, **settings):
    return keras.layers.Conv2DTranspose(
        channels,
        2 * factor - factor % 2,
        strides=factor,
        padding="same",
        use_bias=False,
        kernel_initializer=layers.BilinearInitializer(),
        **settings,
    )


def test_bilinear_golden():
    kernel = layers.BilinearInitializer()((4, 4, 1, 1))
    row = np.array([0.25, 0.75, 0.75, 0.25])
    np.testing.assert_allclose(ops.convert_to_numpy(kernel)[:, :, 0, 0], np.outer(row, row))
    kernel = layers.BilinearInitializer()((3, 5, 2, 2))
    expected = np.outer([0.5, 1.0, 0.5], [1 / 3, 2 / 3, 1.0, 2 / 3, 1 / 3])
    for i, j in np.ndindex(2, 2):
        np.testing.assert_allclose(
            ops.convert_to_numpy(kernel)[:, :, i, j], expected * (i == j), rtol=1e-6
        )


@pytest.mark.parametrize("factor", [2, 4, 8, 16])
def test_bilinear_equals_upsampling_inside(factor):
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 3)).astype("float32")
    found = ops.convert_to_numpy(upsampling(factor, 3)(x))
    expected = keras.layers.UpSampling2D(factor, interpolation="bilinear")(x)
    inside = slice(factor, -factor)
    np.testing.assert_allclose(
        found[:, inside, inside], ops.convert_to_numpy(expected)[:, inside, inside], atol=1e-5
    )


@pytest.mark.parametrize("factor", [2, 3, 4, 5])
def test_bilinear_continues_a_ramp(factor):
    rows, columns = np.meshgrid(np.arange(6.0), np.arange(7.0), indexing="ij")
    x = (2 * rows - 3 * columns + 1).astype("float32").reshape(1, 6, 7, 1)
    found = ops.convert_to_numpy(upsampling(factor, 1)(x))[0, :, :, 0]
    shift = (factor - 1) / 2
    y = (np.arange(6 * factor)[:, None] - shift) / factor
    z = (np.arange(7 * factor)[None] - shift) / factor
    inside = slice(factor, -factor)
    np.testing.assert_allclose(
        found[inside, inside], (2 * y - 3 * z + 1)[inside, inside], rtol=1e-4, atol=1e-4
    )


def test_bilinear_survives_a_file(tmp_path):
    model = keras.Sequential([keras.Input((4, 4, 2)), upsampling(2, 2, trainable=False)])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.layers[0].kernel_initializer, layers.BilinearInitializer)
    assert loaded.trainable_weights == []
    with pytest.raises(ValueError, match=r"shape must be .*\(4, 4, 2, 3\)"):
        layers.BilinearInitializer()((4, 4, 2, 3))


@pytest.mark.parametrize("gain", [2**0.5, 1.0])
@pytest.mark.parametrize("groups", [1, 2])
def test_equalized_convolution_is_one_with_scaled_weights(gain, groups):
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 4)).astype("float32")
    layer = layers.EqualizedConv2D(6, (3, 2), gain=gain, strides=2, padding="same", groups=groups)
    found = layer(x)
    layer.bias.assign(np.arange(6.0))
    plain = keras.layers.Conv2D(6, (3, 2), strides=2, padding="same", groups=groups)
    plain.build(x.shape)
    scale = gain / np.sqrt(3 * 2 * 4 / groups)
    plain.set_weights([ops.convert_to_numpy(layer.kernel) * scale, np.arange(6.0)])
    found, expected = (ops.convert_to_numpy(one(x)) for one in (layer, plain))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_equalized_convolution_learns_its_weights_at_his_pace(compiled):
    """Their slopes are those of the scaled weights times the scale."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 4, 4, 3)).astype("float32")
    upstream = rng.normal(size=(1, 2, 2, 2)).astype("float32")
    layer = layers.EqualizedConv2D(2, 3, use_bias=False)
    layer.build(x.shape)
    expected = np.zeros(layer.kernel.shape)
    for i, j in np.ndindex(2, 2):
        cells = x[0, i : i + 3, j : j + 3, :, None]
        expected += (2 / 27) ** 0.5 * cells * upstream[0, i, j]

    if keras.backend.backend() == "jax":
        import jax

        def loss(kernel):
            return ops.sum(layer.stateless_call([kernel], [], x)[0] * upstream)

        found = compiled(jax.grad(loss))(layer.kernel.value)
    else:
        import tensorflow as tf

        def slopes(x):
            with tf.GradientTape() as tape:
                loss = ops.sum(layer(x) * upstream)
            return tape.gradient(loss, layer.kernel.value)

        found = compiled(slopes)(x)
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, rtol=1e-4, atol=1e-5)


def test_equalized_dense_is_one_with_scaled_weights():
    x = np.random.default_rng(0).normal(size=(3, 8)).astype("float32")
    layer = layers.EqualizedDense(5, gain=1.0, activation="relu")
    layer(x)
    layer.bias.assign(np.arange(5.0))
    expected = x @ (ops.convert_to_numpy(layer.kernel) / np.sqrt(8)) + np.arange(5.0)
    found = ops.convert_to_numpy(layer(x))
    np.testing.assert_allclose(found, np.maximum(expected, 0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "make", [lambda: layers.EqualizedConv2D(64, 3), lambda: layers.EqualizedDense(256)]
)
def test_equalized_layers_start_from_a_standard_normal_and_keep_the_variance(make):
    keras.utils.set_random_seed(0)
    layer = make()
    x = np.random.default_rng(0).normal(size=(4, 12, 12, 64)).astype("float32")
    y = ops.convert_to_numpy(layer(x))
    kernel = ops.convert_to_numpy(layer.kernel)
    assert abs(kernel.std() - 1.0) < 0.02 and abs(kernel.mean()) < 0.02
    # Standard normal inputs come out with the variance gain^2; at the border zeros come in.
    assert abs(y[:, 2:-2, 2:-2].var() - 2.0) < 0.15
    other = make()
    other(x)
    assert np.abs(ops.convert_to_numpy(other.kernel) - kernel).max() > 1.0


@pytest.mark.parametrize("base", [keras.layers.Conv2D, GroupedConv2D])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_grouped_convolution_trains(jit_compile, base):
    """AlexNet's two towers."""
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(4, 6, 6, 4)).astype("float32")
    layer = base(6, 3, padding="same", groups=2)
    model = keras.Sequential([keras.Input((6, 6, 4)), layer])
    towers = [keras.layers.Conv2D(3, 3, padding="same") for _ in range(2)]
    kernel, bias = layer.get_weights()
    for i, tower in enumerate(towers):
        tower.build((None, 6, 6, 2))
        tower.set_weights([kernel[..., 3 * i : 3 * i + 3], bias[3 * i : 3 * i + 3]])
    expected = ops.concatenate([t(x[..., 2 * i : 2 * i + 2]) for i, t in enumerate(towers)], -1)
    np.testing.assert_allclose(
        ops.convert_to_numpy(layer(x)), ops.convert_to_numpy(expected), rtol=1e-4, atol=1e-5
    )
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=jit_compile)
    losses = [model.train_on_batch(x, np.ones((4, 6, 6, 6), "float32")) for _ in range(10)]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_grouped_convolution_equals_that_of_keras(compiled, groups):
    settings = {"strides": 2, "padding": "same", "groups": groups, "activation": "relu"}
    plain = keras.layers.Conv2D(6, (3, 2), **settings)
    layer = GroupedConv2D(6, (3, 2), **settings)
    for one in (plain, layer):
        one.build((None, 7, 6, 12))
    rng = np.random.default_rng(0)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.weights])
    plain.set_weights(layer.get_weights())
    call = compiled(lambda x: layer(x))
    for seed in range(20):
        x = np.random.default_rng(seed).normal(size=(2, 7, 6, 12)).astype("float32")
        expected = ops.convert_to_numpy(plain(x))
        np.testing.assert_allclose(call(x), expected, rtol=1e-4, atol=1e-4)
    assert layer.compute_output_shape(x.shape) == expected.shape


def test_grouped_convolution_equals_in_litert(in_litert):
    x = np.random.default_rng(0).normal(size=(1, 7, 6, 4)).astype("float32")
    layer = GroupedConv2D(6, 3, groups=2)
    layer.build(x.shape)
    np.testing.assert_allclose(in_litert(lambda x: layer(x), x)(x), layer(x), atol=1e-5)


def test_equalized_layers_take_another_initializer_and_no_gain_by_place():
    layer = layers.EqualizedDense(3, kernel_initializer="zeros")
    again = layers.EqualizedDense.from_config(layer.get_config())
    np.testing.assert_array_equal(ops.convert_to_numpy(again(np.ones((1, 4), "f4"))), 0)
    with pytest.raises(TypeError):
        layers.EqualizedConv2D(3, 3, 2)  # in Keras, that are strides
