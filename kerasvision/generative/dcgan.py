"""DCGAN (Radford, Metz and Chintala 2016, "Unsupervised Representation Learning with Deep
Convolutional Generative Adversarial Networks").

Strided convolutions instead of pooling, batch normalisation, no fully connected layers.
"""

import keras
from keras import layers

from kerasvision.backbones.inputs import minus_one_to_one
from kerasvision.generative.gan import GAN

SMALLEST = 4  # pixels of the first map of the generator, and of the last of the discriminator


def dcgan(image_shape=(64, 64, 3), latent_size=100, filters=64, loss="non_saturating", seed=0):
    """DCGAN: G 3,576,704 and D 2,765,568 trainable parameters for 64 x 64 colour pictures.

    Section 3 and figure 1 of the paper, with half its channels, as in the authors' code.

    Args:
        image_shape: (side, side, channels), a side of 16, 32, 64 or any higher power of 2.
        latent_size: Z, length of the noise.
        filters: channels of the largest maps; each halving of the map doubles them.
        loss, seed: as of `GAN`.

    Returns:
        `GAN`.

    Raises:
        ValueError: another side, or an unknown loss.
    """
    generator = dcgan_generator(image_shape, latent_size, filters)
    discriminator = dcgan_discriminator(image_shape, filters, batch_norm)
    return GAN(generator, discriminator, loss, seed, name="dcgan")


def dcgan_generator(image_shape, latent_size, filters):
    """G: noise (B, Z) to pictures (B, side, side, channels), 0 to 255; see `dcgan`."""
    noise = keras.Input((latent_size,), name="noise")
    x = layers.Reshape((1, 1, latent_size))(noise)
    for step in reversed(range(_halvings(image_shape))):
        first = x.shape[1] == 1
        x = layers.Conv2DTranspose(
            filters << step,
            4,
            strides=1 if first else 2,
            padding="valid" if first else "same",
            use_bias=False,
            kernel_initializer=normal(),
            name=f"up{step}",
        )(x)
        x = layers.ReLU(name=f"up{step}_relu")(batch_norm(x, f"up{step}_bn"))
    x = layers.Conv2DTranspose(
        image_shape[-1],
        4,
        strides=2,
        padding="same",
        use_bias=False,
        kernel_initializer=normal(),
        name="pixels",
    )(x)
    return keras.Model(noise, zero_to_255(x), name="generator")


def dcgan_discriminator(image_shape, filters, normalize):
    """D: pictures, 0 to 255, to logits (B, 1); `normalize`: (x, name) to x, as `batch_norm`."""
    images = keras.Input(image_shape, name="images")
    x = minus_one_to_one(images)
    for step in range(_halvings(image_shape)):
        x = layers.Conv2D(
            filters << step,
            4,
            strides=2,
            padding="same",
            use_bias=False,
            kernel_initializer=normal(),
            name=f"down{step}",
        )(x)
        if step > 0:
            x = normalize(x, f"down{step}_norm")
        x = layers.LeakyReLU(0.2, name=f"down{step}_relu")(x)
    x = layers.Conv2D(1, SMALLEST, use_bias=False, kernel_initializer=normal(), name="score")(x)
    logits = layers.Flatten(name="logits")(x)
    return keras.Model(images, logits, name="discriminator")


def batch_norm(x, name):
    """Batch normalisation with the paper's start."""
    gamma = keras.initializers.RandomNormal(1.0, 0.02)
    return layers.BatchNormalization(
        momentum=0.9, epsilon=1e-5, gamma_initializer=gamma, name=name
    )(x)


def normal():
    """The paper's initializer; a new one for each layer, as one gives equal kernels."""
    return keras.initializers.RandomNormal(0.0, 0.02)


def zero_to_255(x):
    """Pictures in float32, 0 to 255, of a last layer's maps."""
    x = layers.Activation("tanh", dtype="float32", name="tanh")(x)
    return layers.Rescaling(127.5, 127.5, dtype="float32", name="denormalize")(x)


def _halvings(image_shape):
    side, steps = image_shape[0], image_shape[0].bit_length() - SMALLEST.bit_length()
    if image_shape[0] != image_shape[1] or side != SMALLEST << steps or steps < 2:
        raise ValueError(
            f"image_shape must be square with a side of 16, 32, 64, 128, …; received: {image_shape}"
        )
    return steps
