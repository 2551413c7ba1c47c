"""Generative adversarial networks (Goodfellow et al. 2014, "Generative Adversarial Nets").

A generator G makes pictures of noise, a discriminator D tells them from real ones; each learns
from the other. The players of the paper are fully connected; other networks play the same game,
see `dcgan`.
"""

import math

import keras
import tensorflow as tf
from keras import layers, ops

from kerasvision.backbones.inputs import minus_one_to_one
from kerasvision.generative.adversarial import AdversarialModel
from kerasvision.generative.losses import ADVERSARIAL_LOSSES

MAXOUT_PIECES = 5


@keras.saving.register_keras_serializable("kerasvision")
class GAN(AdversarialModel):
    """A generator G and a discriminator D that train each other.

    `fit` takes real pictures (B, H, W, channels), 0 to 255, or batch dictionaries that have them
    as "images". A step is algorithm 1 of the paper with k = 1: D, then G, on the same G(z).

    Calling the model makes pictures (B, H, W, channels) float32, 0 to 255, of noise (B, Z) as
    from `latent`.

    Args:
        generator: `keras.Model` from noise (B, Z) to pictures, 0 to 255.
        discriminator: `keras.Model` from pictures, 0 to 255, to logits (B, 1).
        loss: name of `kerasvision.generative.losses.ADVERSARIAL_LOSSES`.
        seed: int, of the noise in training.

    Raises:
        ValueError: an unknown loss, or networks that don't fit each other.
    """

    def __init__(self, generator, discriminator, loss="non_saturating", seed=0, **kwargs):
        means = ("generator_loss", "discriminator_loss", "real_score", "fake_score")
        super().__init__([generator], [discriminator], means, seed, **kwargs)
        check_players(generator, discriminator)
        if loss not in ADVERSARIAL_LOSSES:
            raise ValueError(
                f"loss must be one of {', '.join(ADVERSARIAL_LOSSES)}; received: {loss}"
            )
        self.G, self.D, self.loss = generator, discriminator, loss
        self.discriminator_loss, self.generator_loss = ADVERSARIAL_LOSSES[loss]

    def train_step(self, data):
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        x = x["images"] if isinstance(x, dict) else x
        with tf.GradientTape() as tape:
            fake = self.G(self.noise(tf.shape(x)[0]), training=True)
            with tape.stop_recording():
                discriminator_loss, *scores = self.train_discriminator(x, fake)
            generator_loss = self.generator_loss(self.D(fake, training=True))
        self.descend(self.optimizer, tape, generator_loss, self.G.trainable_variables)
        return self.report(generator_loss, discriminator_loss, *scores)

    def noise(self, count):
        """New noise z (count, Z) from N(0, 1), for training."""
        return tf.random.stateless_normal([count, self.latent_size], self.new_seed())

    def train_discriminator(self, x, fake):
        """Takes D's step; returns its loss and the means of D(x) and D(G(z))."""
        with tf.GradientTape() as tape:
            real_logits, fake_logits = self.D(x, training=True), self.D(fake, training=True)
            loss = self.discriminator_loss(real_logits, fake_logits)
        self.descend(self.discriminator_optimizer, tape, loss, self.D.trainable_variables)
        return loss, ops.mean(ops.sigmoid(real_logits)), ops.mean(ops.sigmoid(fake_logits))

    def call(self, inputs, training=None):
        return self.G(inputs, training=training)

    @property
    def latent_size(self):
        """Z."""
        return self.G.input_shape[-1]

    @property
    def image_shape(self):
        """(height, width, channels) of the pictures."""
        return tuple(self.G.output_shape[1:])

    def latent(self, count, seed=0):
        """Noise (count, Z) from N(0, 1), the same for the same seed, as an array."""
        return ops.convert_to_numpy(keras.random.normal((count, self.latent_size), seed=seed))

    def export(self, filepath, format="tf_saved_model", **kwargs):
        """Writes G, from noise (B, Z) to pictures; arguments as in Keras."""
        return self.G.export(filepath, format=format, **kwargs)

    def get_config(self):
        return {
            "generator": keras.saving.serialize_keras_object(self.G),
            "discriminator": keras.saving.serialize_keras_object(self.D),
            "loss": self.loss,
            "seed": self.seed,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config):
        networks = {
            name: keras.saving.deserialize_keras_object(config[name])
            for name in ("generator", "discriminator")
        }
        return cls(**{**config, **networks})


def gan(image_shape=(28, 28, 1), latent_size=100, units=1200, loss="non_saturating", seed=0):
    """The paper's fully connected networks: 2,503,984 and 1,231,441 parameters for 28 x 28 grey.

    Section 5: rectifiers and a sigmoid generate, maxout and dropout discriminate.

    Args:
        image_shape: (height, width, channels) of the pictures, 1 or 3 channels.
        latent_size: Z, length of the noise.
        units: of each hidden layer; a fifth of them, the largest of five, go on in D.
        loss, seed: as of `GAN`.

    Returns:
        `GAN`.

    Raises:
        ValueError: units that five does not divide, or an unknown loss.
    """
    if units % MAXOUT_PIECES:
        raise ValueError(f"units must be a multiple of {MAXOUT_PIECES}; received: {units}")
    noise = keras.Input((latent_size,), name="noise")
    x = layers.Dense(units, "relu", name="hidden1")(noise)
    x = layers.Dense(units, "relu", name="hidden2")(x)
    x = layers.Dense(math.prod(image_shape), name="pixels")(x)
    x = layers.Activation("sigmoid", dtype="float32", name="sigmoid")(x)
    x = layers.Rescaling(255.0, dtype="float32", name="denormalize")(x)
    x = layers.Reshape(image_shape, dtype="float32")(x)
    generator = keras.Model(noise, x, name="generator")

    images = keras.Input(image_shape, name="images")
    x = layers.Flatten()(minus_one_to_one(images))
    x = layers.Dropout(0.2, name="dropout0")(x)
    for number in (1, 2):
        x = layers.Dense(units, name=f"hidden{number}")(x)
        x = layers.Reshape((units // MAXOUT_PIECES, MAXOUT_PIECES))(x)
        x = ops.max(x, axis=-1)
        x = layers.Dropout(0.5, name=f"dropout{number}")(x)
    logits = layers.Dense(1, name="logits")(x)
    discriminator = keras.Model(images, logits, name="discriminator")
    return GAN(generator, discriminator, loss, seed, name="gan")


def check_players(generator, discriminator):
    """Raises a ValueError if `discriminator` does not take what `generator` makes."""
    if tuple(generator.output_shape) != tuple(discriminator.input_shape):
        raise ValueError(
            "discriminator must take what generator makes; received: "
            f"{discriminator.input_shape} and {generator.output_shape}"
        )
