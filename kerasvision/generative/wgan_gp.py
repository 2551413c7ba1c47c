"""WGAN-GP (Gulrajani et al. 2017, "Improved Training of Wasserstein GANs").

The critic's scores estimate how far the pictures made are from the real ones; a penalty keeps
its gradients near unit length, which that needs.
"""

import keras
import tensorflow as tf
from keras import layers, ops

from kerasvision.generative.dcgan import dcgan_discriminator, dcgan_generator
from kerasvision.generative.gan import GAN


@keras.saving.register_keras_serializable("kerasvision")
class WGANGP(GAN):
    """A generator and a critic, which takes several steps for each of the generator's.

    Algorithm 1 of the paper. `fit` takes batches of real pictures as `GAN`; each is divided among
    the critic's steps: the batch has to be a multiple of `critic_steps`.

    Args:
        generator, discriminator, seed: as of `GAN`; no batch normalisation in the critic, whose
            gradient must be each picture's own.
        critic_steps: n_critic.
        penalty_weight: lambda.

    Raises:
        ValueError: networks that don't fit each other.
    """

    def __init__(
        self, generator, discriminator, seed=0, critic_steps=5, penalty_weight=10.0, **kwargs
    ):
        super().__init__(generator, discriminator, "wasserstein", seed, **kwargs)
        self.critic_steps = critic_steps
        self.penalty_weight = penalty_weight

    def train_step(self, data):
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        x = x["images"] if isinstance(x, dict) else x
        *parts, last = tf.split(x, self.critic_steps)
        for part in parts:
            fake = self.G(self.noise(tf.shape(part)[0]), training=True)
            self.train_discriminator(part, fake)
        return super().train_step(last)

    def train_discriminator(self, x, fake):
        """Takes a step of the critic; returns its loss and the means of D(x) and D(G(z))."""
        x = tf.cast(x, fake.dtype)
        share = tf.random.stateless_uniform([tf.shape(x)[0], 1, 1, 1], self.new_seed())
        between = share * x + (1.0 - share) * fake
        with tf.GradientTape() as tape:
            real, made = self.D(x, training=True), self.D(fake, training=True)
            with tf.GradientTape() as inner:
                inner.watch(between)
                score = self.D(between, training=True)
            # Of pictures from -1 to 1, as D sees them.
            slopes = 127.5 * inner.gradient(score, between)
            lengths = tf.sqrt(tf.reduce_sum(slopes**2, axis=(1, 2, 3)) + 1e-12)
            penalty = self.penalty_weight * tf.reduce_mean((lengths - 1.0) ** 2)
            loss = self.discriminator_loss(real, made) + penalty
        self.descend(self.discriminator_optimizer, tape, loss, self.D.trainable_variables)
        return loss, ops.mean(real), ops.mean(made)

    def get_config(self):
        config = super().get_config()
        del config["loss"]
        return {
            **config,
            "critic_steps": self.critic_steps,
            "penalty_weight": self.penalty_weight,
        }


def wgan_gp(
    image_shape=(64, 64, 3),
    latent_size=100,
    filters=64,
    seed=0,
    critic_steps=5,
    penalty_weight=10.0,
):
    """WGAN-GP with the networks of DCGAN, layer instead of batch normalisation in the critic.

    Section 4, "No critic batch normalization"; G has 3,576,704 trainable parameters for 64 x 64
    colour pictures. The paper trains with Adam of learning rate 1e-4, beta 0 and 0.9.

    Args:
        image_shape, latent_size, filters, seed: as of `dcgan`.
        critic_steps, penalty_weight: as of `WGANGP`.

    Returns:
        `WGANGP`.

    Raises:
        ValueError: a side that is no power of 2 from 16.
    """

    def normalize(x, name):
        return layers.GroupNormalization(groups=1, epsilon=1e-5, name=name)(x)

    generator = dcgan_generator(image_shape, latent_size, filters)
    critic = dcgan_discriminator(image_shape, filters, normalize)
    return WGANGP(generator, critic, seed, critic_steps, penalty_weight, name="wgan_gp")
