"""Fast style transfer (Johnson, Alahi and Fei-Fei 2016, "Perceptual Losses for Real-Time Style
Transfer and Super-Resolution").

What Gatys et al. descend for each picture, a network learns to give at once: it is trained with
the same loss, on many pictures, for one style.
"""

import keras
import tensorflow as tf
from keras import layers, ops

from kerasvision.backbones.inputs import minus_one_to_one
from kerasvision.generative.dcgan import zero_to_255
from kerasvision.generative.pix2pix import instance_norm
from kerasvision.layers import ReflectionPadding2D

# Section 4.1: relu3_3; and relu1_2, relu2_2, relu3_3 and relu4_3.
CONTENT_LAYERS = ("block3_conv3",)
STYLE_LAYERS = ("block1_conv2", "block2_conv2", "block3_conv3", "block4_conv3")
MARGIN = 40  # pixels that are mirrored at the border, and used up by the residual blocks
LEAST_SIDE = MARGIN + 1
PIXEL_SCALE = 0.03  # of what tanh gets


@keras.saving.register_keras_serializable("kerasvision")
class FastStyle(keras.Model):
    """A network f_W that paints pictures in the manner of one other, and how it learns.

    `fit` takes batch dictionaries with "images" (B, H, W, 3), RGB, 0 to 255, and minimises the
    `StyleLoss` of f_W(x), whose content is x. Calling the model gives f_W(x) (B, H, W, 3)
    float32, 0 to 255. The loss's network is no part of it, and isn't saved with it.

    Args:
        network: `keras.Model` from pictures to pictures of the same size, sides of which 4 is a
            divisor; as from `transformer`.
    """

    def __init__(self, network, **kwargs):
        super().__init__(**kwargs)
        self.network = network
        self.means = [keras.metrics.Mean(name) for name in ("loss", "content", "style", "tv")]
        self.built = True

    def compile(self, optimizer, style_loss, style, style_warmup=0, **kwargs):
        """As of Keras.

        Args:
            optimizer: Adam with a learning rate of 1e-3 in the paper.
            style_loss: `kerasvision.synthesis.StyleLoss`.
            style: picture (h, w, 3), 0 to 255.
            style_warmup: steps in which the style's weight rises from 0 to its own, in a straight
                line. A network that gets it at once learns to paint the manner over the content.
                What is reported has the whole weight.
        """
        super().compile(optimizer=optimizer, **kwargs)
        self.style_loss, self.style_warmup = style_loss, style_warmup
        self.style_targets = style_loss.style_targets(style)

    def get_compile_config(self):
        """None: a model that was loaded paints; to train it on, it is compiled again."""

    def call(self, inputs, training=None):
        images = inputs["images"] if isinstance(inputs, dict) else inputs
        return self.network(images, training=training)

    def train_step(self, data):
        batch, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        images = ops.cast(batch["images"], "float32")
        contents = self.style_loss.content_targets(images)
        steps = ops.cast(self.optimizer.iterations, "float32")
        share = ops.minimum(steps / self.style_warmup, 1.0) if self.style_warmup else 1.0
        with tf.GradientTape() as tape:
            painted = self(images, training=True)
            terms = self.style_loss(painted, contents, [(1.0, self.style_targets, None)])
            loss = self.optimizer.scale_loss(terms["loss"] - (1.0 - share) * terms["style"])
        variables = self.network.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
        for mean in self.means:
            mean.update_state(terms[mean.name])
        return {mean.name: mean.result() for mean in self.means}

    @property
    def metrics(self):
        return self.means

    def paint(self, image):
        """Paints one picture of any size from 41 x 41 pixels.

        Args:
            image: (H, W, 3), RGB, 0 to 255.

        Returns:
            (H, W, 3) float32, 0 to 255.

        Raises:
            ValueError: it is smaller than the mirrored border.
        """
        height, width = image.shape[:2]
        if min(height, width) < LEAST_SIDE:
            raise ValueError(
                f"image: must have {LEAST_SIDE} x {LEAST_SIDE} pixels or more; received: {width} x "
                f"{height}"
            )
        fill = [(0, -height % 4), (0, -width % 4), (0, 0)]
        x = ops.pad(ops.convert_to_tensor(image, "float32"), fill, mode="reflect")
        return self.predict_on_batch(x[None])[0, :height, :width]

    def get_config(self):
        return {"network": keras.saving.serialize_keras_object(self.network), "name": self.name}

    @classmethod
    def from_config(cls, config):
        network = keras.saving.deserialize_keras_object(config["network"])
        return cls(**{**config, "network": network})


def transformer(image_shape=(None, None, 3), filters=32, blocks=5, name="transformer"):
    """The image transformation network, 1,679,235 parameters.

    Table 1 of the paper's supplement: the picture is mirrored by 40 pixels at its border, halved
    twice, goes through residual blocks of unpadded convolutions, which use that border up, and is
    doubled twice. Each convolution but the last is followed by a normalisation and a ReLU; here of
    single pictures (Ulyanov et al. 2016, "Instance Normalization"), as its authors came to prefer.
    Where the paper doubles by transposed convolutions, cells are copied and then convolved, by as
    many weights: transposed ones draw checkerboards (Odena et al. 2016, "Deconvolution and
    Checkerboard Artifacts"), and take long to unlearn them.

    Args:
        image_shape: (height, width, 3), of which 4 is a divisor; from 41 pixels.
        filters: of the first layer.
        blocks: residual blocks; each needs 8 pixels of border.
        name: of the model.

    Returns:
        `keras.Model` from images (B, H, W, 3), 0 to 255, to the same.

    Raises:
        ValueError: sides that don't fit.
    """
    sides = [side for side in image_shape[:2] if side is not None]
    if any(side % 4 or side < LEAST_SIDE for side in sides):
        raise ValueError(
            f"image_shape must have sides from {LEAST_SIDE} that 4 divides; received: {image_shape}"
        )
    margin = 8 * blocks

    def normalized(x, filters, size, name, scale="ones", **settings):
        x = layers.Conv2D(filters, size, name=name, **settings)(x)
        return instance_norm(x, f"{name}_norm", scale=scale)

    def relu(x, name):
        return layers.ReLU(name=f"{name}_relu")(x)

    same = {"padding": "same"}
    images = keras.Input(image_shape, name="images")
    x = ReflectionPadding2D(margin, name="mirror")(minus_one_to_one(images))
    x = relu(normalized(x, filters, 9, "conv1", **same), "conv1")
    for step in (1, 2):
        name_ = f"conv{step + 1}"
        x = normalized(x, filters << step, 3, name_, strides=2, **same)
        x = relu(x, name_)
    for block in range(blocks):
        name_ = f"block{block + 1}"
        shortcut = layers.Cropping2D(2, name=f"{name_}_crop")(x)
        x = relu(normalized(x, filters << 2, 3, f"{name_}_conv1"), f"{name_}_conv1")
        # At first the blocks let through what they get (Goyal et al. 2017, section 5.1).
        x = normalized(x, filters << 2, 3, f"{name_}_conv2", scale="zeros")
        x = layers.Add(name=f"{name_}_add")([shortcut, x])
    for step in (1, 0):
        name_ = f"up{2 - step}"
        x = layers.UpSampling2D(2, name=f"{name_}_double")(x)
        x = relu(normalized(x, filters << step, 3, name_, **same), name_)
    # Zeros beyond the border would darken it.
    x = ReflectionPadding2D(4, name="pixels_pad")(x)
    x = layers.Conv2D(image_shape[-1], 9, name="pixels")(x)
    # Each value is a sum of 2,592: unscaled, one step of Adam moves it across all grey levels, and
    # into the ends of tanh, where there is no slope that would bring it back.
    x = layers.Rescaling(PIXEL_SCALE, name="pixels_scale")(x)
    return keras.Model(images, zero_to_255(x), name=name)
