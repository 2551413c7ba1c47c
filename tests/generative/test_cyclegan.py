"""CycleGAN: its networks, its pool of pictures, its step."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasvision.generative import CycleGAN, cyclegan
from kerasvision.generative.cyclegan import ImagePool, resnet_generator
from kerasvision.generative.pix2pix import patch_discriminator

SHAPE = (32, 32, 3)


def compiled(optimizer=None, **settings):
    keras.utils.set_random_seed(0)
    model = cyclegan(SHAPE, blocks=1, filters=4, **settings)
    optimizers = [keras.optimizers.Adam(2e-3, 0.5) for _ in range(2)]
    if optimizer is not None:
        optimizers = [optimizer(), optimizer()]
    model.compile(*optimizers)
    return model


def batch(number, seed=0):
    """Smooth pictures x; y of the same kind, but of other pictures, in the negative."""
    coarse = np.random.default_rng(seed).integers(0, 256, (2 * number, 4, 4, 3)).astype("uint8")
    pictures = coarse.repeat(8, axis=1).repeat(8, axis=2)
    return {"x": pictures[:number], "y": 255 - pictures[number:]}


def test_parameters_of_the_paper():
    model = cyclegan()
    assert model.G.count_params() == model.F.count_params() == 11_378_179
    assert model.D_X.count_params() == model.D_Y.count_params() == 2_764_737
    assert model.D_Y.output_shape == (None, 30, 30, 1)
    # A residual block has 1,180,160.
    assert resnet_generator(SHAPE, 6, 64, "G").count_params() == 11_378_179 - 3 * 1_180_160


def test_bad_settings():
    with pytest.raises(ValueError, match="sides from 32 that 4 divides; received: \\(34, 32, 3\\)"):
        cyclegan((34, 32, 3))
    G, F = (resnet_generator(SHAPE, 1, 4, name) for name in "GF")
    D_X, D_Y = (patch_discriminator((36, 36, 3), 4) for _ in range(2))
    with pytest.raises(ValueError, match="G must go from \\(None, 36, 36, 3\\)"):
        CycleGAN(G, F, D_X, D_Y)


@pytest.mark.parametrize("identity_weight", [0.5, 0.0])
def test_losses_are_those_of_the_paper(identity_weight):
    model = compiled(
        lambda: keras.optimizers.SGD(0.0), cycle_weight=3.0, identity_weight=identity_weight
    )
    data = batch(2)
    logs = {name: float(value) for name, value in model.train_step(data).items()}
    x, y = (data[name].astype("float32") for name in "xy")
    G, F, D_X, D_Y = (
        lambda images, network=network: network(images).numpy()
        for network in (model.G, model.F, model.D_X, model.D_Y)
    )

    def distance(a, b):
        return np.abs(a - b).mean() / 127.5

    cycle = distance(F(G(x)), x) + distance(G(F(y)), y)
    identity = distance(G(y), y) + distance(F(x), x)
    adversarial = np.mean((D_Y(G(x)) - 1) ** 2) + np.mean((D_X(F(y)) - 1) ** 2)
    loss = adversarial + 3 * (cycle + identity_weight * identity)
    assert logs["generator_loss"] == pytest.approx(loss, rel=1e-4)
    assert logs["cycle"] == pytest.approx(cycle, rel=1e-4)
    assert logs["identity"] == pytest.approx(identity if identity_weight else 0.0, rel=1e-4)
    # The pools are empty: they give the new pictures back.
    for name, D, real, made in (("x", D_X, x, F(y)), ("y", D_Y, y, G(x))):
        expected = (np.mean((D(real) - 1) ** 2) + np.mean(D(made) ** 2)) / 2
        assert logs[f"discriminator_{name}"] == pytest.approx(expected, rel=1e-4)


def numbered(first, count):
    return tf.reshape(tf.range(first, first + count, dtype="float32"), (count, 1, 1, 1))


def test_pool_keeps_old_pictures():
    """Pictures are numbers: none is shown before it was made, and about half are old ones."""
    pool = ImagePool(10, (1, 1, 1))
    shown = []
    for step in range(200):
        exchanged = pool.exchange(numbered(2 * step, 2), tf.constant([0, step]))
        shown += exchanged.numpy().ravel().tolist()
    assert shown[:10] == list(range(10))
    assert all(number <= made for made, number in enumerate(shown))
    old = [made - number for made, number in enumerate(shown) if number != made]
    assert 0.4 < len(old) / 390 < 0.6
    # A place is given up with a chance of 1 / 20 for each new picture.
    assert 12 < np.mean(old) < 28
    assert len(set(shown[10:])) == len(shown) - 10
    kept = set(pool.images.numpy().ravel().tolist())
    assert len(kept) == 10 and not kept & set(shown[10:])


def test_no_pool():
    pool = ImagePool(0, (1, 1, 1))
    np.testing.assert_array_equal(pool.exchange(numbered(3, 2), [0, 0]), numbered(3, 2))


def test_batches_of_unknown_size_are_refused():
    data = tf.data.Dataset.from_tensor_slices(batch(2)).batch(2)
    with pytest.raises(ValueError, match="drop_remainder=True"):
        compiled().fit(data, verbose=0)


def test_night_can_be_learnt_without_pairs_and_survives_a_file(tmp_path):
    """Bright pictures become dark, dark ones bright, and what comes back is what went there."""
    model = compiled(identity_weight=0.0)
    x, y = batch(16).values()
    x, y = 128 + x // 2, y // 2
    data = tf.data.Dataset.from_tensor_slices({"x": x, "y": y})
    data = data.batch(2, drop_remainder=True).repeat()
    history = model.fit(data, epochs=8, steps_per_epoch=8, verbose=0).history
    assert history["cycle"][-1] < 0.8 * history["cycle"][0]
    assert model.G.predict(x, verbose=0).mean() < 100
    assert model.F.predict(y, verbose=0).mean() > 150
    assert int(model.pool_x.count) == 50
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for a, b in zip(model.get_weights(), loaded.get_weights()):
        np.testing.assert_array_equal(a, b)
    x = batch(2, seed=1)["x"]
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))


@pytest.mark.slow
def test_a_step_is_the_same_under_xla():
    losses = []
    for jit_compile in (False, True):
        keras.utils.set_random_seed(0)
        model = cyclegan(SHAPE, 1, 4, pool_size=2)
        rates = keras.optimizers.SGD(0.01), keras.optimizers.SGD(0.01)
        model.compile(*rates, jit_compile=jit_compile)
        losses.append(model.train_on_batch(batch(2), return_dict=True))
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
