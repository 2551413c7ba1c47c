"""Adversarial losses against NumPy, term by term."""

import keras
import numpy as np
import pytest

from kerasvision.generative import losses

REAL = np.array([[2.0], [-1.0], [0.0], [40.0]], "float32")
FAKE = np.array([[-3.0], [0.5], [1.0], [-40.0]], "float32")


def sigmoid(x):
    return 1 / (1 + np.exp(-x.astype("float64")))


def test_cross_entropy_is_that_of_the_probabilities():
    expected = -np.mean(np.log(sigmoid(REAL))) - np.mean(np.log(1 - sigmoid(FAKE[:3]))) * 3 / 4
    found = losses.cross_entropy_discriminator_loss(REAL, FAKE)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    assert float(losses.minimax_generator_loss(FAKE[:3])) == pytest.approx(
        np.mean(np.log(1 - sigmoid(FAKE[:3]))), rel=1e-5
    )
    assert float(losses.non_saturating_generator_loss(FAKE)) == pytest.approx(
        -np.mean(np.log(sigmoid(FAKE))), rel=1e-5
    )


def test_least_squares_and_wasserstein():
    assert float(losses.least_squares_discriminator_loss(REAL, FAKE)) == pytest.approx(
        np.mean((REAL - 1) ** 2) / 2 + np.mean(FAKE**2) / 2
    )
    assert float(losses.least_squares_generator_loss(FAKE)) == pytest.approx(
        np.mean((FAKE - 1) ** 2) / 2
    )
    assert float(losses.wasserstein_discriminator_loss(REAL, FAKE)) == pytest.approx(
        FAKE.mean() - REAL.mean()
    )
    assert float(losses.wasserstein_generator_loss(FAKE)) == pytest.approx(-FAKE.mean())


def test_only_the_saturating_loss_vanishes_where_the_discriminator_is_sure():
    """The two have the same direction; their slopes at a logit are -sigmoid and sigmoid - 1."""

    def slope(loss, logit, step=0.5):
        low, high = (np.array([[logit + d]], "float32") for d in (-step, step))
        return (float(loss(high)) - float(loss(low))) / (2 * step)

    assert -1e-3 < slope(losses.minimax_generator_loss, -9.0) < 0
    assert slope(losses.non_saturating_generator_loss, -9.0) == pytest.approx(-1.0, abs=1e-3)


def test_half_precision_is_summed_in_float32():
    real = keras.ops.cast(np.full((4096, 1), 2.0), "bfloat16")
    loss = losses.least_squares_discriminator_loss(real, real)
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"
    assert float(loss) == pytest.approx(2.5)
