import keras
import numpy as np
import pytest
from keras import layers

from kerasvision.synthesis import FastStyle, StyleLoss, transformer


@pytest.fixture(scope="module")
def style_loss():
    keras.utils.set_random_seed(0)
    images = keras.Input((None, None, 3))
    x = layers.Rescaling(1 / 255)(images)
    conv = {"padding": "same", "activation": "relu"}
    x = layers.Conv2D(6, 3, **conv, name="first")(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(8, 3, **conv, name="deep")(x)
    return StyleLoss(keras.Model(images, x), ["deep"], ["first", "deep"], tv_weight=0.1)


def pictures(count, side=44, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3)).astype("uint8")


def test_parameters_and_shapes():
    network = transformer()
    # Convolutions with biases, and two numbers for each normalised map.
    sizes = [(81, 3, 32), (9, 32, 64), (9, 64, 128), *[(9, 128, 128)] * 10, (9, 128, 64)]
    sizes += [(9, 64, 32), (81, 32, 3)]
    convolutions = sum(k * a * b + b for k, a, b in sizes)
    norms = 2 * (32 + 64 + 128 + 10 * 128 + 64 + 32)
    assert network.count_params() == convolutions + norms == 1_679_235
    for size in ((44, 44), (48, 64)):
        x = np.random.default_rng(0).uniform(0, 255, (2, *size, 3))
        y = network.predict(x, verbose=0)
        assert y.shape == x.shape and y.min() >= 0 and y.max() <= 255
    # What a pixel becomes is told by its surroundings, wherever they are.
    maps = keras.Model(network.input, network.get_layer("block5_add").output)
    assert maps(x).shape == (2, 12, 16, 128)


def test_pictures_of_any_size():
    model = FastStyle(transformer(filters=4))
    image = np.random.default_rng(0).uniform(0, 255, (43, 50, 3)).astype("float32")
    painted = model.paint(image)
    assert painted.shape == image.shape
    filled = np.pad(image, [(0, 1), (0, 2), (0, 0)], mode="reflect")
    np.testing.assert_allclose(painted, model(filled[None])[0, :43, :50], atol=1e-3)
    with pytest.raises(ValueError, match="41 x 41 pixels or more; received: 50 x 40"):
        model.paint(image[:40])


def test_training(style_loss):
    """What it reports is the loss of what it paints; only its network learns, and well."""
    keras.utils.set_random_seed(0)
    model = FastStyle(transformer(filters=4, blocks=1))
    style, x = pictures(1, seed=1)[0], pictures(2)
    model.compile(keras.optimizers.Adam(1e-2), style_loss, style)
    before = [w.copy() for w in style_loss.phi.get_weights()]
    painted = model.predict_on_batch(x)
    contents = style_loss.content_targets(x.astype("float32"))
    expected = style_loss(painted, contents, [(1.0, style_loss.style_targets(style), None)])
    first = model.train_on_batch({"images": x}, return_dict=True)
    for name, value in first.items():
        assert float(value) == pytest.approx(float(expected[name]), rel=1e-3), name
    for _ in range(80):
        model.reset_metrics()
        last = model.train_on_batch({"images": x}, return_dict=True)
    assert float(last["loss"]) < 0.7 * float(first["loss"])
    for old, new in zip(before, style_loss.phi.get_weights()):
        np.testing.assert_array_equal(old, new)


def test_a_step_moves_values_by_some_grey_levels(style_loss):
    keras.utils.set_random_seed(0)
    model = FastStyle(transformer(blocks=1))
    model.compile(keras.optimizers.Adam(1e-3), style_loss, pictures(1, seed=1)[0])
    x = pictures(1)
    before = model.predict_on_batch(x)
    assert np.abs(before - 127.5).max() < 60  # far from the ends of tanh
    model.train_on_batch({"images": x})
    moved = np.abs(model.predict_on_batch(x) - before)
    assert 0.1 < moved.mean() and moved.max() < 60


def test_style_gains_its_weight_step_by_step(style_loss):
    style, x = pictures(1, seed=1)[0], pictures(2)
    loss_at = []
    for weight, warmup in ((0.0, 0), (1.0, 4), (1.0, 0)):
        keras.utils.set_random_seed(0)
        model = FastStyle(transformer(filters=4, blocks=1))
        own = StyleLoss(style_loss.phi, ["deep"], ["first", "deep"], style_weight=weight)
        model.compile(keras.optimizers.SGD(1e-2), own, style, style_warmup=warmup)
        told, weights = [], []
        for _ in range(6):
            model.reset_metrics()
            told.append(model.train_on_batch({"images": x}, return_dict=True))
            weights.append(np.concatenate([w.ravel() for w in model.get_weights()]))
        loss_at.append((told, weights))
    (_, without), (rising, warm), (whole, at_once) = loss_at
    # The first step has none of it, and tells of all of it; the second has a quarter.
    np.testing.assert_array_equal(warm[0], without[0])
    assert float(rising[0]["style"]) == float(whole[0]["style"]) > 0
    steps = [np.abs(w[1] - w[0] - (without[1] - without[0])).max() for w in (warm, at_once)]
    assert 0 < steps[0] < steps[1]
    # Once it is whole, a step is what it is without a rise.
    model.set_weights(_split(warm[4], model.get_weights()))
    model.train_on_batch({"images": x})
    now = np.concatenate([w.ravel() for w in model.get_weights()])
    np.testing.assert_allclose(now, warm[5], atol=1e-6)


def _split(flat, like):
    ends = np.cumsum([w.size for w in like])
    return [part.reshape(w.shape) for part, w in zip(np.split(flat, ends[:-1]), like)]


def test_save_and_load(style_loss, tmp_path):
    model = FastStyle(transformer(filters=4, blocks=2))
    model.compile(keras.optimizers.Adam(1e-3), style_loss, pictures(1)[0])
    model.train_on_batch({"images": pictures(2)})
    model.save(tmp_path / "fast.keras")
    loaded = keras.saving.load_model(tmp_path / "fast.keras")
    np.testing.assert_array_equal(
        loaded.predict_on_batch(pictures(1)), model.predict_on_batch(pictures(1))
    )
    assert loaded.count_params() == model.count_params() < 30_000  # without the loss's network


@pytest.mark.parametrize("shape", [(42, 44, 3), (44, 40, 3)])
def test_sides_that_dont_fit(shape):
    with pytest.raises(ValueError, match="sides from 41 that 4 divides"):
        transformer(shape)
