"""pix2pix (Isola, Zhu, Zhou and Efros 2017, "Image-to-Image Translation with Conditional
Adversarial Networks").

G translates a picture x into one of another kind, y; D looks at patches of 70 x 70 pixels of both
and tells y from G(x). The L1 distance gets the large right, the adversary what is small.
"""

import keras
import tensorflow as tf
from keras import layers, ops

from kerasvision.backbones.inputs import minus_one_to_one
from kerasvision.generative.adversarial import AdversarialModel
from kerasvision.generative.dcgan import normal, zero_to_255
from kerasvision.generative.losses import (
    cross_entropy_discriminator_loss,
    non_saturating_generator_loss,
)

MOST_STEPS = 8  # down to one pixel of 256
MOST_FILTERS = 8  # times those of the first layer
DROPOUTS = 3  # layers of the decoder with dropout, those of the smallest maps


@keras.saving.register_keras_serializable("kerasvision")
class Pix2Pix(AdversarialModel):
    """A translator G of pictures, and a discriminator D of what it makes.

    `fit` takes batch dictionaries:

        "x" (B, H, W, channels), 0 to 255;
        "y" (B, H, W, channels), what x is to become, 0 to 255.

    G minimises `adversarial_weight` times its adversarial loss, plus `l1_weight` times the mean
    of |y - G(x)| of pixels from -1 to 1: equation 4. D's loss is halved: section 3.3.

    Calling the model gives G(x) (B, H, W, channels) float32, 0 to 255.

    Args:
        generator: `keras.Model` from x to y.
        discriminator: `keras.Model` to the logits of patches (B, h, w, 1); it takes x and y,
            channel by channel, or y alone.
        l1_weight: lambda.
        adversarial_weight: 0 leaves L1 alone, and D as it is.
        seed: int, of what is random in training.

    Raises:
        ValueError: networks that don't fit each other.
    """

    def __init__(
        self,
        generator,
        discriminator,
        l1_weight=100.0,
        adversarial_weight=1.0,
        seed=0,
        **kwargs,
    ):
        means = ("generator_loss", "l1", "discriminator_loss", "real_score", "fake_score")
        super().__init__([generator], [discriminator], means, seed, **kwargs)
        source, target = generator.input_shape[-1], generator.output_shape[-1]
        seen = discriminator.input_shape[-1]
        if seen not in (target, source + target):
            raise ValueError(
                f"discriminator must take y, of {target} channels, or x and y, "
                f"{source + target}; received: {seen}"
            )
        self.G, self.D = generator, discriminator
        self.conditional = seen == source + target
        self.l1_weight, self.adversarial_weight = float(l1_weight), float(adversarial_weight)

    def train_step(self, data):
        pairs, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        x, y = (ops.cast(pairs[name], "float32") for name in "xy")
        with tf.GradientTape() as tape:
            fake = self.G(x, training=True)
            with tape.stop_recording():
                discriminator_values = self.train_discriminator(x, y, fake)
            l1 = ops.mean(ops.abs(y - fake)) / 127.5
            loss = self.l1_weight * l1
            if self.adversarial_weight:
                adversarial = non_saturating_generator_loss(self.judge(x, fake))
                loss = loss + self.adversarial_weight * adversarial
        self.descend(self.optimizer, tape, loss, self.G.trainable_variables)
        return self.report(loss, l1, *discriminator_values)

    def train_discriminator(self, x, y, fake):
        """Takes D's step; returns its loss and the means of D(x, y) and D(x, G(x))."""
        if not self.adversarial_weight:
            return 0.0, 0.0, 0.0
        with tf.GradientTape() as tape:
            real_logits, fake_logits = self.judge(x, y), self.judge(x, fake)
            loss = 0.5 * cross_entropy_discriminator_loss(real_logits, fake_logits)
        self.descend(self.discriminator_optimizer, tape, loss, self.D.trainable_variables)
        return loss, ops.mean(ops.sigmoid(real_logits)), ops.mean(ops.sigmoid(fake_logits))

    def judge(self, x, y):
        """D(x, y), or D(y) if D is not conditional, in training."""
        return self.D(ops.concatenate([x, y], axis=-1) if self.conditional else y, training=True)

    def call(self, inputs, training=None):
        return self.G(inputs["x"] if isinstance(inputs, dict) else inputs, training=training)

    def export(self, filepath, format="tf_saved_model", **kwargs):
        """Writes G, from uint8 pictures x to y; arguments as in Keras."""
        x = keras.InputSpec(dtype="uint8", shape=self.G.input_shape)
        kwargs.setdefault("input_signature", [x])
        return self.G.export(filepath, format=format, **kwargs)

    def get_config(self):
        return {
            "generator": keras.saving.serialize_keras_object(self.G),
            "discriminator": keras.saving.serialize_keras_object(self.D),
            "l1_weight": self.l1_weight,
            "adversarial_weight": self.adversarial_weight,
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


def pix2pix(
    image_shape=(256, 256, 3),
    target_channels=3,
    filters=64,
    conditional=True,
    strided_layers=3,
    l1_weight=100.0,
    adversarial_weight=1.0,
    seed=0,
):
    """pix2pix: G 54,413,955 and D 2,768,705 trainable parameters for 256 x 256 colour pictures.

    Section 3.2 and the appendix. The paper trains with Adam of learning rate 2e-4, beta 0.5 and
    0.999, one picture at a time.

    Args:
        image_shape: (height, width, channels) of x; sides of which 16 is a divisor.
        target_channels: of y.
        filters: of the first layers.
        conditional: whether D sees x beside y.
        strided_layers: of D; 3: patches of 70 x 70 pixels, 1: 16 x 16, 5: 286 x 286.
        l1_weight, adversarial_weight, seed: as of `Pix2Pix`.

    Returns:
        `Pix2Pix`.

    Raises:
        ValueError: another size.
    """
    generator = unet_generator(image_shape, target_channels, filters)
    channels = target_channels + image_shape[-1] * conditional
    discriminator = patch_discriminator((*image_shape[:2], channels), filters, strided_layers)
    return Pix2Pix(generator, discriminator, l1_weight, adversarial_weight, seed, name="pix2pix")


def unet_generator(image_shape=(256, 256, 3), target_channels=3, filters=64):
    """G: an encoder down to the smallest map, and a decoder that sees each of its maps.

    Normalised picture by picture, which batch normalisation is for batches of one: then it is
    the same in training and in use (section 3.4).
    """
    sides = image_shape[:2]
    steps = 0
    while steps < MOST_STEPS and all(side % (2 << steps) == 0 for side in sides):
        steps += 1
    if steps < 4:
        raise ValueError(f"image_shape must have sides that 16 divides; received: {image_shape}")

    def channels(step):
        return filters * min(1 << step, MOST_FILTERS)

    images = keras.Input(image_shape, name="images")
    x = minus_one_to_one(images)
    encoded = []
    for step in range(steps):
        if step > 0:
            x = layers.LeakyReLU(0.2, name=f"down{step}_relu")(x)
        x = _convolution(layers.Conv2D, x, channels(step), f"down{step}", use_bias=False)
        # The first sees colours; the last may be a single pixel, whose norm would leave nothing.
        if 0 < step < steps - 1:
            x = instance_norm(x, f"down{step}_norm")
        encoded.append(x)
    for step in reversed(range(1, steps)):
        x = layers.ReLU(name=f"up{step}_relu")(x)
        x = _convolution(layers.Conv2DTranspose, x, channels(step - 1), f"up{step}", use_bias=False)
        x = instance_norm(x, f"up{step}_norm")
        if step >= steps - DROPOUTS:
            x = layers.Dropout(0.5, name=f"up{step}_dropout")(x)
        x = layers.Concatenate(name=f"up{step}_concat")([x, encoded[step - 1]])
    x = layers.ReLU(name="up0_relu")(x)
    x = _convolution(layers.Conv2DTranspose, x, target_channels, "pixels")
    return keras.Model(images, zero_to_255(x), name="generator")


def patch_discriminator(
    image_shape, filters=64, strided_layers=3, affine=True, name="discriminator"
):
    """D: pictures, 0 to 255, to logits of overlapping patches, 70 x 70 with three strided layers.

    Args:
        image_shape: (height, width, channels) of all that it sees.
        filters: of the first layer.
        strided_layers: number of convolutions with stride 2.
        affine: whether the normalisations scale and shift, the convolutions then have no bias.
    """

    def convolution(x, filters, strides, name, use_bias=True):
        x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
        return layers.Conv2D(
            filters, 4, strides, use_bias=use_bias, kernel_initializer=normal(), name=name
        )(x)

    images = keras.Input(image_shape, name="images")
    x = convolution(minus_one_to_one(images), filters, 2, "conv0")
    x = layers.LeakyReLU(0.2, name="conv0_relu")(x)
    for step in range(1, strided_layers + 1):
        strides = 2 if step < strided_layers else 1
        name = f"conv{step}"
        x = convolution(x, filters * min(1 << step, MOST_FILTERS), strides, name, not affine)
        x = instance_norm(x, f"{name}_norm", affine)
        x = layers.LeakyReLU(0.2, name=f"{name}_relu")(x)
    x = convolution(x, 1, 1, "score")
    logits = layers.Activation("linear", dtype="float32", name="logits")(x)
    return keras.Model(images, logits, name=name)


def instance_norm(x, name, affine=True, scale="ones"):
    """Each map of each picture with mean 0 and deviation 1, or `scale` at first (Ulyanov 2016)."""
    return layers.GroupNormalization(
        groups=-1, epsilon=1e-5, center=affine, scale=affine, gamma_initializer=scale, name=name
    )(x)


def _convolution(layer, x, filters, name, use_bias=True):
    return layer(
        filters,
        4,
        strides=2,
        padding="same",
        use_bias=use_bias,
        kernel_initializer=normal(),
        name=name,
    )(x)
