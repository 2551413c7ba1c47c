"""What the players of an adversarial game minimise.

Logits are the discriminator's before the sigmoid, of any shape: one a picture or one a patch.
D(x) = sigmoid(logit) is the probability that x is real. All losses are float32 scalars, means
over the logits.
"""

from keras import ops


def cross_entropy_discriminator_loss(real_logits, fake_logits):
    """-E[log D(x)] - E[log(1 - D(G(z)))]: GAN (Goodfellow et al. 2014), equation 1."""
    real_logits, fake_logits = _in_float32(real_logits, fake_logits)
    return ops.mean(ops.softplus(-real_logits)) + ops.mean(ops.softplus(fake_logits))


def minimax_generator_loss(fake_logits):
    """E[log(1 - D(G(z)))]: GAN, equation 1; it vanishes where the discriminator is sure."""
    (fake_logits,) = _in_float32(fake_logits)
    return -ops.mean(ops.softplus(fake_logits))


def non_saturating_generator_loss(fake_logits):
    """-E[log D(G(z))]: GAN, section 3; it is largest where the discriminator is sure."""
    (fake_logits,) = _in_float32(fake_logits)
    return ops.mean(ops.softplus(-fake_logits))


def least_squares_discriminator_loss(real_logits, fake_logits):
    """E[(D(x) - 1)^2] / 2 + E[D(G(z))^2] / 2, D the logit: LSGAN (Mao et al. 2017), equation 9."""
    real_logits, fake_logits = _in_float32(real_logits, fake_logits)
    return 0.5 * ops.mean(ops.square(real_logits - 1.0)) + 0.5 * ops.mean(ops.square(fake_logits))


def least_squares_generator_loss(fake_logits):
    """E[(D(G(z)) - 1)^2] / 2, D the logit: LSGAN, equation 9."""
    (fake_logits,) = _in_float32(fake_logits)
    return 0.5 * ops.mean(ops.square(fake_logits - 1.0))


def wasserstein_discriminator_loss(real_logits, fake_logits):
    """E[D(G(z))] - E[D(x)], D the logit: WGAN (Arjovsky et al. 2017), equation 2.

    D must be 1-Lipschitz, see `kerasvision.generative.wgan_gp`.
    """
    real_logits, fake_logits = _in_float32(real_logits, fake_logits)
    return ops.mean(fake_logits) - ops.mean(real_logits)


def wasserstein_generator_loss(fake_logits):
    """-E[D(G(z))], D the logit: WGAN, theorem 3."""
    (fake_logits,) = _in_float32(fake_logits)
    return -ops.mean(fake_logits)


# Name: the discriminator's loss, the generator's.
ADVERSARIAL_LOSSES = {
    "minimax": (cross_entropy_discriminator_loss, minimax_generator_loss),
    "non_saturating": (cross_entropy_discriminator_loss, non_saturating_generator_loss),
    "least_squares": (least_squares_discriminator_loss, least_squares_generator_loss),
    "wasserstein": (wasserstein_discriminator_loss, wasserstein_generator_loss),
}


def _in_float32(*logits):
    return [ops.cast(values, "float32") for values in logits]
