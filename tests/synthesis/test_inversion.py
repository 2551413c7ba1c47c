import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kerasvision.data.pictures import as_input, read_files
from kerasvision.synthesis import Inversion, features, load_network, reconstruction_errors
from kerasvision.synthesis.inversion import tv_weight_of


def picture(height=16, width=20):
    coarse = np.random.default_rng(1).uniform(30, 220, (1, 4, 5, 3)).astype("float32")
    return tf.image.resize(coarse, (height, width)).numpy()


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    images = keras.Input((None, None, 3))
    x = layers.Rescaling(1 / 127.5, -1.0, name="normalize")(images)
    x = layers.Conv2D(12, 3, padding="same", activation="relu", name="conv1")(x)
    x = layers.MaxPooling2D(2, name="pool1")(x)
    x = layers.Conv2D(16, 3, padding="same", activation="relu", name="conv2")(x)
    x = layers.MaxPooling2D(2, name="pool2")(x)
    x = layers.Conv2D(16, 3, padding="same", activation="relu", name="conv3")(x)
    return keras.Model(images, x, name="small")


def test_energy_is_the_papers(network):
    """At the paper's size its constants: σ = 27108, λ_α = 2.16e8 on (x / σ)⁶, λ_V on (x / σ)²."""
    inversion = Inversion(network, "conv2", tv_weight=5.0)
    x = np.random.default_rng(0).normal(0, 60, (1, 227, 227, 3)).astype("float32")
    image = picture(227, 227)
    energy, error = inversion.energy(tf.constant(x), inversion.code(image))
    phi = features(network, "conv2")
    phi_0, code = (phi(p)["conv2"].numpy().astype("float64") for p in (image, x + 127.5))
    expected_error = ((code - phi_0) ** 2).sum() / (phi_0**2).sum()
    sigma = 69.0 * (227 * 227 * 3) ** 0.5
    scaled = x.astype("float64") / sigma
    down = np.diff(scaled, axis=1, append=scaled[:, -1:])
    right = np.diff(scaled, axis=2, append=scaled[:, :, -1:])
    variation = (down**2 + right**2).sum()
    expected = expected_error + 2.16e8 * (scaled**6).sum() + 5.0 * variation
    np.testing.assert_allclose(error, [expected_error], rtol=1e-3)
    np.testing.assert_allclose(energy, [expected], rtol=0.01)


@pytest.mark.parametrize("optimizer", ["adam", "momentum"])
def test_reconstruction_of_a_shallow_layer(network, optimizer):
    image, energies = picture(), []
    inversion = Inversion(network, "conv1", steps=150, optimizer=optimizer)
    made = inversion(image, on_step=lambda s, make, energy, error: energies.append(energy[0]))
    assert made.shape == image.shape and made.min() >= 0 and made.max() <= 255
    assert energies[-1] < 0.1 * energies[0]
    errors = reconstruction_errors(inversion.phi, image, made)
    assert errors["conv1"][0] < 0.25
    assert errors["pixels"][0] < 0.5
    assert np.corrcoef(made.ravel(), image.ravel())[0, 1] > 0.9


def test_first_step_with_momentum(network):
    inversion = Inversion(network, "conv2", optimizer="momentum", learning_rate=0.002)
    image = picture()
    x = tf.constant(np.random.default_rng(0).normal(0, 30, image.shape).astype("float32"))
    phi_0 = inversion.code(image)
    with tf.GradientTape() as tape:
        tape.watch(x)
        energy, _ = inversion.energy(x, phi_0)
    g = tape.gradient(energy, x).numpy()
    velocity = np.random.default_rng(1).normal(size=image.shape).astype("float32")
    stepped, moments, *_ = inversion.step(
        x, phi_0, (tf.constant(velocity), tf.zeros_like(x)), tf.constant(1)
    )
    sigma = 69.0 * image[0].size ** 0.5
    expected = 0.9 * velocity - 0.002 * sigma**2 * g
    np.testing.assert_allclose(moments[0], expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(stepped, x + expected, rtol=1e-3, atol=1e-2)


def test_pictures_of_a_batch_do_not_meet(network):
    """Each has the energy it has alone."""
    inversion = Inversion(network, "conv2", steps=3)
    images = np.concatenate([picture(), picture()[:, ::-1]])
    x = tf.constant(np.random.default_rng(0).normal(0, 30, images.shape).astype("float32"))
    both, _ = inversion.energy(x, inversion.code(images))
    alone = [inversion.energy(x[i : i + 1], inversion.code(images[i : i + 1]))[0] for i in (0, 1)]
    np.testing.assert_allclose(both, np.concatenate(alone), rtol=1e-4)


def test_errors(network):
    phi, image = features(network, ["conv1", "conv3"]), picture()
    exact = reconstruction_errors(phi, image, image)
    assert all(value == 0 for value in exact.values())
    plain = np.broadcast_to(image.mean((1, 2), keepdims=True), image.shape)
    errors = reconstruction_errors(phi, image, plain)
    np.testing.assert_allclose(errors["pixels"], [1.0], rtol=1e-5)
    given, made = phi(image)["conv1"].numpy(), phi(plain)["conv1"].numpy()
    expected = ((made - given) ** 2).sum() ** 0.5 / (given**2).sum() ** 0.5
    np.testing.assert_allclose(errors["conv1"], [expected], rtol=1e-4)
    np.testing.assert_allclose(errors["mean"], (errors["conv1"] + errors["conv3"]) / 2, rtol=1e-5)
    flat = np.full((1, 8, 8, 3), 9.0)
    assert reconstruction_errors(phi, flat, flat + 1)["pixels"] == 0


def test_weights_of_the_prior_grow_with_depth(network):
    layer_names = ["conv1", "conv2", "conv3"]
    assert [tv_weight_of(network, name) for name in layer_names] == [0.5, 5.0, 50.0]
    assert Inversion(network, "conv3").tv_weight == 50.0
    assert Inversion(network, "conv3", tv_weight=0.0).tv_weight == 0.0


def test_seeds(network):
    inversion = Inversion(network, "conv1", steps=2)
    image = picture()
    np.testing.assert_array_equal(inversion(image, seed=2), inversion(image, seed=2))
    assert np.abs(inversion(image, seed=2) - inversion(image, seed=3)).max() > 1


def test_mistakes(network):
    with pytest.raises(ValueError, match="adam or momentum; received: sgd"):
        Inversion(network, "conv1", optimizer="sgd")
    with pytest.raises(ValueError, match="steps: must be 1 or more; received: 0"):
        Inversion(network, "conv1", steps=0)
    with pytest.raises(ValueError, match="small has no layer conv4"):
        Inversion(network, "conv4")
    with pytest.raises(ValueError, match="1 x 1 pixels don't go through the layers to conv2"):
        Inversion(network, "conv2")(np.zeros((1, 1, 1, 3)))


@pytest.mark.slow
def test_deeper_layers_of_vgg16_keep_less(development_weights):
    """Over the blocks, what is lost anywhere in the network grows."""
    art = development_weights.parent / "data" / "art" / "tuebingen.jpg"
    if not art.is_file():
        pytest.skip("the development pictures are not here")
    ((_, image),) = read_files([art], [])
    image = as_input(image, 64)[None]
    network, _ = load_network("vgg16", str(development_weights / "vgg16_hed_notop.h5"))
    blocks = ["block1_conv2", "block2_conv2", "block3_conv3", "block4_conv3", "block5_conv3"]
    phi, means = features(network, blocks), []
    for name, tv_weight in zip(blocks, (0.5, 0.5, 5.0, 5.0, 50.0)):
        made = Inversion(network, name, tv_weight, steps=60)(image)
        means.append(float(reconstruction_errors(phi, image, made)["mean"][0]))
    assert all(a < b for a, b in itertools.pairwise(means)), means
