"""GAN, DCGAN and WGAN-GP: their networks, their steps, their files."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasvision.generative import GAN, WGANGP, dcgan, gan, losses, wgan_gp
from kerasvision.training import callbacks

SHAPE = (16, 16, 1)
BUILDERS = {
    "gan": lambda **settings: gan(SHAPE, 5, units=20, **settings),
    "dcgan": lambda **settings: dcgan(SHAPE, 5, 4, **settings),
    "wgan_gp": lambda **settings: wgan_gp(SHAPE, 5, 4, critic_steps=2, **settings),
}


def count(network):
    return sum(int(np.prod(v.shape)) for v in network.trainable_variables)


def pictures(number, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (number, *SHAPE), dtype="uint8")


def compiled(name, **settings):
    keras.utils.set_random_seed(0)
    model = BUILDERS[name](**settings)
    model.compile(keras.optimizers.Adam(1e-3, 0.5), keras.optimizers.Adam(2e-3, 0.5))
    return model


def test_parameters_of_the_papers():
    model = dcgan()
    assert (count(model.G), count(model.D)) == (3_576_704, 2_765_568)
    model = gan()
    assert (count(model.G), count(model.D)) == (2_503_984, 1_231_441)
    assert count(wgan_gp().G) == 3_576_704


@pytest.mark.parametrize("side", [16, 32, 128])
def test_dcgan_of_other_sizes(side):
    model = dcgan((side, side, 3), 7, 2)
    made = model.predict(model.latent(2), verbose=0)
    assert made.shape == (2, side, side, 3)
    assert model.D(made).shape == (2, 1)
    assert model.G.get_layer("up0").output.shape == (None, side // 2, side // 2, 2)


@pytest.mark.parametrize("shape", [(64, 32, 3), (48, 48, 3), (8, 8, 3)])
def test_dcgan_refuses_other_sizes(shape):
    with pytest.raises(ValueError, match="square with a side of 16, 32, 64"):
        dcgan(shape)


def test_bad_settings():
    with pytest.raises(ValueError, match="loss must be one of minimax, .*; received: hinge"):
        gan(SHAPE, loss="hinge")
    with pytest.raises(ValueError, match="units must be a multiple of 5; received: 12"):
        gan(SHAPE, units=12)
    with pytest.raises(ValueError, match="discriminator must take what generator makes"):
        GAN(gan(SHAPE, units=5).G, gan((8, 8, 1), units=5).D)


def test_pictures_go_from_0_to_255_and_noise_repeats():
    for build in BUILDERS.values():
        model = build()
        made = model.predict(100 * model.latent(50, seed=3), verbose=0)
        assert made.min() >= 0 and made.max() <= 255
        assert made.max() - made.min() > 20
    np.testing.assert_array_equal(model.latent(4, seed=1), model.latent(4, seed=1))
    assert np.abs(model.latent(4, seed=1) - model.latent(4, seed=2)).max() > 0.1


@pytest.mark.parametrize("name", ["minimax", "non_saturating", "least_squares"])
def test_a_step_is_a_step_of_each_player_on_the_same_pictures(name):
    """With SGD: D's new weights, then G's, by the losses written out."""
    model = BUILDERS["dcgan"](loss=name)
    model.compile(keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.2))
    twin = keras.models.clone_model(model.G), keras.models.clone_model(model.D)
    for network, original in zip(twin, (model.G, model.D)):
        network.set_weights(original.get_weights())
    x = tf.cast(pictures(6), "float32")
    model.random.state.assign([0, 7])
    z = model.noise(6)
    model.random.state.assign([0, 7])
    model.train_step(x)

    G, D = twin
    loss_D, loss_G = losses.ADVERSARIAL_LOSSES[name]
    fake = G(z, training=True)
    for network, rate, loss in (
        (D, 0.2, lambda: loss_D(D(x, training=True), D(fake, training=True))),
        (G, 0.1, lambda: loss_G(D(G(z, training=True), training=True))),
    ):
        with tf.GradientTape() as tape:
            value = loss()
        for v, slope in zip(
            network.trainable_variables, tape.gradient(value, network.trainable_variables)
        ):
            v.assign_sub(rate * slope)
    for network, original in zip(twin, (model.G, model.D)):
        for a, b in zip(network.trainable_variables, original.trainable_variables):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-6)


def test_gradient_penalty_is_zero_at_unit_slope_and_grows_with_its_square():
    """A critic that is linear in its picture has one slope everywhere."""
    images = keras.Input(SHAPE)
    flat = keras.layers.Flatten()(keras.layers.Rescaling(1 / 127.5, -1.0)(images))
    critic = keras.Model(images, keras.layers.Dense(1, use_bias=False)(flat))
    direction = np.random.default_rng(0).normal(size=(256, 1))
    direction /= np.linalg.norm(direction)
    x = tf.cast(pictures(4), "float32")
    model = WGANGP(BUILDERS["wgan_gp"]().G, critic)
    model.compile(keras.optimizers.SGD(0.0), keras.optimizers.SGD(0.0))
    for length in (1.0, 3.0):
        critic.layers[-1].set_weights([length * direction])
        fake = tf.cast(pictures(4, seed=1), "float32")
        loss, real, made = model.train_discriminator(x, fake)
        penalty = float(loss) - (float(made) - float(real))
        assert penalty == pytest.approx(10 * (length - 1) ** 2, abs=1e-3)


@pytest.mark.parametrize("name", list(BUILDERS))
def test_resumed_run_equals_uninterrupted_one(name, tmp_path):
    def train(folder, epochs):
        folder.mkdir(exist_ok=True)
        model = compiled(name)
        checkpoint = callbacks.Checkpoint(folder, 2, "val_nothing")
        done = checkpoint.restore(model)
        model.fit(
            pictures(16),
            batch_size=8,
            initial_epoch=done,
            epochs=epochs,
            shuffle=False,
            verbose=0,
            callbacks=[checkpoint],
        )
        return model, done

    whole, _ = train(tmp_path / "whole", 3)
    train(tmp_path / "parts", 1)
    resumed, done = train(tmp_path / "parts", 3)
    assert done == 1
    for a, b in zip(whole.get_weights(), resumed.get_weights()):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", list(BUILDERS))
def test_model_survives_a_file(name, tmp_path):
    model = compiled(name, seed=5)
    model.fit(pictures(8), batch_size=4, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model)
    networks = ("generator", "discriminator")
    settings = [
        {name: value for name, value in each.get_config().items() if name not in networks}
        for each in (model, loaded)
    ]
    assert settings[0] == settings[1] and settings[0]["seed"] == 5
    z = model.latent(3)
    np.testing.assert_array_equal(loaded.predict(z, verbose=0), model.predict(z, verbose=0))
    expected, found = model.discriminator_optimizer.variables, loaded.discriminator_optimizer
    for a, b in zip(expected, found.variables):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_float16_scales_both_losses():
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = compiled("dcgan")
        before = [w.copy() for w in model.get_weights()]
        model.fit(pictures(8), batch_size=4, epochs=2, verbose=0)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    for optimizer in (model.optimizer, model.discriminator_optimizer):
        assert isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        # A step whose gradients overflow halves the scale instead.
        halvings = 15 - np.log2(float(optimizer.dynamic_scale))
        assert 0 < int(optimizer.inner_optimizer.iterations) == 4 - halvings
    assert all(np.isfinite(w).all() for w in model.get_weights())
    assert any(np.abs(a - b).max() > 1e-4 for a, b in zip(before, model.get_weights()))


def test_gan_learns_where_pictures_are_bright():
    """Pictures with a bright left half: what is made has one too."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 40, (512, *SHAPE)).astype("float32")
    x[:, :, :8] += 200
    model = compiled("dcgan")
    model.fit(x, batch_size=32, epochs=15, verbose=0)
    made = model.predict(model.latent(64), verbose=0)
    assert made[:, :, :8].mean() - made[:, :, 8:].mean() > 80
