"""CycleGAN (Zhu, Park, Isola and Efros 2017, "Unpaired Image-to-Image Translation using
Cycle-Consistent Adversarial Networks").

G translates pictures of X into Y, F those of Y into X. Nobody knows what x should become; but
G(x) has to pass for one of Y, and F has to find the way back from it.
"""

import keras
import tensorflow as tf
from keras import layers, ops

from kerasvision.backbones.inputs import minus_one_to_one
from kerasvision.generative.adversarial import AdversarialModel
from kerasvision.generative.dcgan import normal, zero_to_255
from kerasvision.generative.losses import (
    least_squares_discriminator_loss,
    least_squares_generator_loss,
)
from kerasvision.generative.pix2pix import instance_norm, patch_discriminator
from kerasvision.layers import ReflectionPadding2D


@keras.saving.register_keras_serializable("kerasvision")
class CycleGAN(AdversarialModel):
    """Two translators, G: X to Y and F: Y to X, and the discriminators D_X and D_Y.

    `fit` takes batch dictionaries of pictures that have nothing to do with each other:

        "x" (B, H, W, channels) of X, 0 to 255;
        "y" (B, H, W, channels) of Y, 0 to 255.

    Equation 3, with least squares for the adversarial losses, section 4: G and F minimise
    (D_Y(G(x)) - 1)^2 + (D_X(F(y)) - 1)^2
    + lambda (|F(G(x)) - x| + |G(F(y)) - y|)
    + lambda times `identity_weight` (|G(y) - y| + |F(x) - x|), section 5.2;
    D_X and D_Y half of (D(real) - 1)^2 + D(made)^2, over pictures out of the last `pool_size`.
    Means over pixels from -1 to 1.

    Calling the model gives G(x) (B, H, W, channels) float32, 0 to 255; that of F is `F`.

    Args:
        G, F: `keras.Model` from pictures to pictures.
        D_X, D_Y: `keras.Model` from pictures to the scores of patches (B, h, w, 1).
        cycle_weight: lambda.
        identity_weight: share of lambda; 0: colours may change.
        pool_size: pictures that are kept of what G and F made; 0: none.
        seed: int, of what is random in training.

    Raises:
        ValueError: networks that don't fit each other.
    """

    def __init__(
        self,
        G,
        F,
        D_X,
        D_Y,
        cycle_weight=10.0,
        identity_weight=0.5,
        pool_size=50,
        seed=0,
        **kwargs,
    ):
        means = ("generator_loss", "cycle", "identity", "discriminator_x", "discriminator_y")
        super().__init__([G, F], [D_X, D_Y], means, seed, **kwargs)
        X, Y = D_X.input_shape, D_Y.input_shape
        shapes = (G.input_shape, F.output_shape, F.input_shape, G.output_shape)
        if shapes != (X, X, Y, Y):
            raise ValueError(
                f"G must go from {X} to {Y} and F back, as D_X and D_Y; received: G from "
                f"{shapes[0]} to {shapes[3]}, F from {shapes[2]} to {shapes[1]}"
            )
        self.G, self.F, self.D_X, self.D_Y = G, F, D_X, D_Y
        self.cycle_weight, self.identity_weight = float(cycle_weight), float(identity_weight)
        self.pool_size = pool_size
        self.pool_x = ImagePool(pool_size, X[1:], name="pool_x")
        self.pool_y = ImagePool(pool_size, Y[1:], name="pool_y")

    def train_step(self, data):
        G, F, D_X, D_Y = self.G, self.F, self.D_X, self.D_Y
        pictures, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        x, y = (ops.cast(pictures[name], "float32") for name in "xy")
        with tf.GradientTape() as tape:
            # Pictures are normalised one by one: what a network does to two batches, it can do
            # to both at once.
            if self.identity_weight:
                (fake_y, same_y), (fake_x, same_x) = _both(G, x, y), _both(F, y, x)
                identity = _distance(same_y, y) + _distance(same_x, x)
            else:
                fake_y, fake_x, identity = G(x, training=True), F(y, training=True), 0.0
            cycle = _distance(F(fake_y, training=True), x) + _distance(G(fake_x, training=True), y)
            # Without the half of LSGAN.
            adversarial = 2.0 * (
                least_squares_generator_loss(D_Y(fake_y, training=True))
                + least_squares_generator_loss(D_X(fake_x, training=True))
            )
            loss = adversarial + self.cycle_weight * (cycle + self.identity_weight * identity)
        self.descend(self.optimizer, tape, loss, self.generator_variables)

        made_x = self.pool_x.exchange(fake_x, self.new_seed())
        made_y = self.pool_y.exchange(fake_y, self.new_seed())
        with tf.GradientTape() as tape:
            loss_X = least_squares_discriminator_loss(*_both(D_X, x, made_x))
            loss_Y = least_squares_discriminator_loss(*_both(D_Y, y, made_y))
            discriminator_loss = loss_X + loss_Y
        self.descend(
            self.discriminator_optimizer, tape, discriminator_loss, self.discriminator_variables
        )
        return self.report(loss, cycle, identity, loss_X, loss_Y)

    def call(self, inputs, training=None):
        return self.G(inputs["x"] if isinstance(inputs, dict) else inputs, training=training)

    def get_config(self):
        networks = {name: getattr(self, name) for name in ("G", "F", "D_X", "D_Y")}
        return {
            **{n: keras.saving.serialize_keras_object(value) for n, value in networks.items()},
            "cycle_weight": self.cycle_weight,
            "identity_weight": self.identity_weight,
            "pool_size": self.pool_size,
            "seed": self.seed,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config):
        names = ("G", "F", "D_X", "D_Y")
        networks = {n: keras.saving.deserialize_keras_object(config[n]) for n in names}
        return cls(**{**config, **networks})


def cyclegan(
    image_shape=(256, 256, 3),
    blocks=9,
    filters=64,
    cycle_weight=10.0,
    identity_weight=0.5,
    pool_size=50,
    seed=0,
):
    """CycleGAN: G and F 11,378,179 parameters each, D_X and D_Y 2,764,737.

    Section 4 and the appendix. The paper trains with Adam of learning rate 2e-4, beta 0.5 and
    0.999, one picture at a time, and lets the rate fall to 0 over the second half.

    Args:
        image_shape: (height, width, channels); sides of which 4 is a divisor, 32 or more.
        blocks: residual blocks; 9 for 256 x 256 pixels and more, 6 for 128 x 128.
        filters: of the first layers.
        cycle_weight, identity_weight, pool_size, seed: as of `CycleGAN`.

    Returns:
        `CycleGAN`.

    Raises:
        ValueError: another size.
    """
    if any(side % 4 or side < 32 for side in image_shape[:2]):
        raise ValueError(
            f"image_shape must have sides from 32 that 4 divides; received: {image_shape}"
        )
    return CycleGAN(
        resnet_generator(image_shape, blocks, filters, "G"),
        resnet_generator(image_shape, blocks, filters, "F"),
        patch_discriminator(image_shape, filters, affine=False, name="D_X"),
        patch_discriminator(image_shape, filters, affine=False, name="D_Y"),
        cycle_weight,
        identity_weight,
        pool_size,
        seed,
        name="cyclegan",
    )


def resnet_generator(image_shape, blocks, filters, name):
    """G or F: two halvings, residual blocks, two doublings (Johnson et al. 2016)."""

    def normalized(x, layer, filters, size, name, **settings):
        x = layer(filters, size, kernel_initializer=normal(), name=name, **settings)(x)
        return instance_norm(x, f"{name}_norm", affine=False)

    def relu(x, name):
        return layers.ReLU(name=f"{name}_relu")(x)

    images = keras.Input(image_shape, name="images")
    x = ReflectionPadding2D(3, name="first_pad")(minus_one_to_one(images))
    x = relu(normalized(x, layers.Conv2D, filters, 7, "first"), "first")
    for step in (1, 2):
        name_ = f"down{step}"
        x = layers.ZeroPadding2D(1, name=f"{name_}_pad")(x)
        x = relu(normalized(x, layers.Conv2D, filters << step, 3, name_, strides=2), name_)
    for block in range(blocks):
        shortcut, name_ = x, f"block{block}"
        x = ReflectionPadding2D(1, name=f"{name_}_pad1")(x)
        x = relu(normalized(x, layers.Conv2D, filters << 2, 3, f"{name_}_conv1"), f"{name_}_conv1")
        x = ReflectionPadding2D(1, name=f"{name_}_pad2")(x)
        x = normalized(x, layers.Conv2D, filters << 2, 3, f"{name_}_conv2")
        x = layers.Add(name=f"{name_}_add")([shortcut, x])
    for step in (1, 0):
        name_, settings = f"up{step}", {"strides": 2, "padding": "same"}
        x = normalized(x, layers.Conv2DTranspose, filters << step, 3, name_, **settings)
        x = relu(x, name_)
    x = ReflectionPadding2D(3, name="pixels_pad")(x)
    x = layers.Conv2D(image_shape[-1], 7, kernel_initializer=normal(), name="pixels")(x)
    return keras.Model(images, zero_to_255(x), name=name)


@keras.saving.register_keras_serializable("kerasvision")
class ImagePool(layers.Layer):
    """The last pictures that a generator made, as section 4 shows them to a discriminator.

    As long as it is not full it keeps each picture and gives it back. Then, half of the time, it
    gives an old one, in whose place it puts the new one.

    Args:
        size: most pictures; 0: it gives back all of them at once.
        image_shape: (height, width, channels).
    """

    def __init__(self, size, image_shape, **kwargs):
        super().__init__(**kwargs)
        self.size = size
        self.image_shape = tuple(image_shape)
        shape = (size, *self.image_shape)
        if size:
            self.images = self.add_weight(shape=shape, initializer="zeros", trainable=False)
        self.count = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False)
        self.built = True

    def exchange(self, images, seed):
        """Pictures (B, height, width, channels) for as many new ones.

        Args:
            images: the new ones, float32, a batch of known size.
            seed: (2,) integers.

        Raises:
            ValueError: the batch is of unknown size.
        """
        if not self.size:
            return images
        batch = images.shape[0]
        if batch is None:
            raise ValueError(
                "images must be a batch of known size, as of tf.data's batch(drop_remainder=True); "
                f"received: {images.shape}"
            )
        chances, places = tf.unstack(tf.random.stateless_uniform([2, batch], seed))
        shown = []
        for image, chance, place in zip(*map(tf.unstack, (images, chances, places))):
            full = self.count >= self.size
            old = tf.logical_and(full, chance > 0.5)
            index = tf.where(full, tf.cast(place * self.size, "int32"), self.count)
            index = tf.minimum(index, self.size - 1)
            kept = self.images[index]
            shown.append(tf.where(old, kept, image))
            new = tf.where(tf.logical_or(old, tf.logical_not(full)), image, kept)
            self.images.value.scatter_nd_update([[index]], new[None])
            self.count.assign(tf.minimum(self.count + 1, self.size))
        return tf.stack(shown)


def _both(network, a, b):
    """What a network makes of two batches, in one call."""
    return tf.split(network(tf.concat([a, b], axis=0), training=True), 2)


def _distance(a, b):
    """Mean of |a - b|, pixels from -1 to 1."""
    return ops.mean(ops.abs(a - b)) / 127.5
