"""FaceNet (Schroff, Kalenichenko and Philbin 2015, "FaceNet: A Unified Embedding for Face
Recognition and Clustering").

A network f puts pictures on a sphere. It learns from triplets of an anchor, a positive of the
same person and a negative of another one, that ||f_a - f_p||^2 + alpha < ||f_a - f_n||^2.
Whether two pictures are of one person is then told by the distance of their two points.
"""

import keras
import tensorflow as tf
from keras import layers

from kerasvision.backbones.inputs import image_input, subtract_mean
from kerasvision.embedding.mining import MINERS
from kerasvision.layers import L2Pooling2D, LocalResponseNormalization
from kerasvision.training.strategy import replica_sum

# Table 2 of the paper: filters of the 1x1, "3x3 reduce", 3x3, "5x5 reduce" and 5x5 convolutions,
# the pooling, and the filters of the projection behind it; 0: there is none.
NN2 = {
    "3a": (64, 96, 128, 16, 32, "max", 32),
    "3b": (64, 96, 128, 32, 64, "L2", 64),
    "3c": (0, 128, 256, 32, 64, "max", 0),  # stride 2
    "4a": (256, 96, 192, 32, 64, "L2", 128),
    "4b": (224, 112, 224, 32, 64, "L2", 128),
    "4c": (192, 128, 256, 32, 64, "L2", 128),
    "4d": (160, 144, 288, 32, 64, "L2", 128),
    "4e": (0, 160, 256, 64, 128, "max", 0),  # stride 2
    "5a": (384, 192, 384, 48, 128, "L2", 128),
    "5b": (384, 192, 384, 48, 128, "max", 128),
}


@keras.saving.register_keras_serializable("kerasvision")
class FaceNet(keras.Model):
    """An embedding that learns from the triplets of its own batches.

    `fit` takes batch dictionaries of several pictures of several persons, as of
    `kerasvision.data.identity_batches`: "images" (B, H, W, 3), RGB, 0 to 255; "labels" (B,)
    integers, a person each. Minimised is equation 3 over the triplets that `loss` mines.

    Calling the model gives the embeddings (B, D) float32, at unit length.

    Args:
        network: `keras.Model` from images to embeddings.
        loss: which triplets: "semi_hard" (the paper's), "batch_hard", "batch_all" or "random";
            see `kerasvision.embedding.mining`.
        alpha: margin between squared distances; of the paper's 0.2 to 4 that there are.
        seed: int, of the random triplets.

    Raises:
        ValueError: another loss, or a network that doesn't give embeddings.
    """

    def __init__(self, network, loss="semi_hard", alpha=0.2, seed=0, **kwargs):
        super().__init__(**kwargs)
        if loss not in MINERS:
            raise ValueError(f"loss must be one of {', '.join(MINERS)}; received: {loss}")
        if len(network.output_shape) != 2:
            raise ValueError(
                f"network must give embeddings (B, D); received: {network.output_shape}"
            )
        self.network, self.mined_loss, self.alpha, self.seed = network, loss, alpha, seed
        self.random = keras.random.SeedGenerator(seed)
        self.means = [keras.metrics.Mean(name=name) for name in ("loss", "active")]
        self.built = True

    def train_step(self, data):
        batch, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            f = self.network(batch["images"], training=True)
            loss, active = self.mine(f, batch["labels"])
            # The optimizer adds up the gradients of the replicas of a strategy.
            scaled = self.optimizer.scale_loss((loss + sum(self.losses)) / replica_sum(1.0))
        gradients = tape.gradient(scaled, self.network.trainable_variables)
        self.optimizer.apply(gradients, self.network.trainable_variables)
        return self.report(loss, active)

    def test_step(self, data):
        batch, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        return self.report(*self.mine(self.network(batch["images"]), batch["labels"]))

    def mine(self, embeddings, labels):
        """The loss of the triplets of a batch, and the share of them that have one."""
        return MINERS[self.mined_loss](embeddings, labels, self.alpha, self.random)

    def report(self, *values):
        """The means so far, with the values of a step added."""
        for mean, value in zip(self.means, values, strict=True):
            mean.update_state(value)
        return {mean.name: mean.result() for mean in self.means}

    @property
    def metrics(self):
        return self.means

    def call(self, inputs, training=None):
        return self.network(images_of(inputs), training=training)

    @property
    def image_shape(self):
        """(height, width, channels) of the images."""
        return tuple(self.network.input_shape[1:])

    @property
    def embedder(self):
        """Functional `keras.Model` from images to embeddings (B, D), float32."""
        return self.network

    def get_config(self):
        return {
            "network": keras.saving.serialize_keras_object(self.network),
            "loss": self.mined_loss,
            "alpha": self.alpha,
            "seed": self.seed,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config):
        network = keras.saving.deserialize_keras_object(config["network"])
        return cls(**{**config, "network": network})


def images_of(inputs):
    """The images of a batch dictionary, or of images alone."""
    return inputs["images"] if isinstance(inputs, dict) else inputs


def embedding_network(backbone, embedding_size=128, pooling="average", ending="unit_length"):
    """Makes a backbone say of a picture where it belongs, in `embedding_size` numbers.

    Global average pooling, which forgets where things are, or all cells of the maps side by
    side, which suits pictures that are aligned as faces are; then a linear layer, and the length
    made 1 (section 3.1 of the paper; 128 numbers: section 5.4).

    Args:
        backbone: functional `keras.Model` from images to maps (B, h, w, C) or to vectors (B, C).
        embedding_size: D.
        pooling: "average" or "flatten", of maps.
        ending: "unit_length"; "sigmoid": numbers from 0 to 1, which `ChiSquared` wants; "linear".

    Returns:
        A functional `keras.Model` from images to embeddings (B, D), float32.

    Raises:
        ValueError: another pooling or ending, or maps of unknown size to flatten.
    """
    if pooling not in ("average", "flatten"):
        raise ValueError(f"pooling must be average or flatten; received: {pooling}")
    x = backbone.output
    if len(x.shape) == 4 and pooling == "average":
        x = layers.GlobalAveragePooling2D(name="embedding_pool")(x)
    elif len(x.shape) == 4:
        if None in x.shape[1:]:
            raise ValueError(
                f"pooling must be average for maps of any size; received: {pooling}, {x.shape}"
            )
        x = layers.Flatten(name="embedding_pool")(x)
    return keras.Model(backbone.input, _project(x, embedding_size, ending), name="embedder")


def _project(x, embedding_size, ending="unit_length"):
    """The linear layer and what bounds it, float32."""
    x = layers.Dense(embedding_size, dtype="float32", name="embedding")(x)
    if ending == "unit_length":
        return layers.UnitNormalization(dtype="float32", name="unit_length")(x)
    if ending == "sigmoid":
        return layers.Activation("sigmoid", dtype="float32", name="sigmoid")(x)
    if ending == "linear":
        return x
    raise ValueError(f"ending must be unit_length, sigmoid or linear; received: {ending}")


def facenet_nn2(image_shape=(224, 224, 3), embedding_size=128):
    """NN2, the Inception network of table 2: 7,456,304 parameters.

    What the table leaves open is as in `kerasvision.backbones.googlenet`, whose widths it varies:
    local response normalisation behind the first poolings, a ReLU behind every convolution, none
    behind the last layer. Pictures come in as RGB, 0 to 255; the mean colour is subtracted
    inside.

    Args:
        image_shape: (height, width, 3), at least 1 x 1; a side may be None.
        embedding_size: D.

    Returns:
        A functional `keras.Model` from images to embeddings (B, D) at unit length, float32.

    Raises:
        ValueError: an image shape that the network can't take.
    """

    def convolution(x, filters, kernel_size, name, strides=1):
        return layers.Conv2D(
            filters,
            kernel_size,
            strides,
            padding="same",
            activation="relu",
            kernel_initializer="he_normal",
            name=name,
        )(x)

    def inception(x, module):
        name = f"inception_{module}"
        one, three_reduce, three, five_reduce, five, pool, projection = NN2[module]
        strides = 1 if projection else 2
        branches = [convolution(x, one, 1, f"{name}_1x1")] if one else []
        branch = convolution(x, three_reduce, 1, f"{name}_3x3_reduce")
        branches.append(convolution(branch, three, 3, f"{name}_3x3", strides))
        branch = convolution(x, five_reduce, 1, f"{name}_5x5_reduce")
        branches.append(convolution(branch, five, 5, f"{name}_5x5", strides))
        pooling = layers.MaxPooling2D if pool == "max" else L2Pooling2D
        branch = pooling(3, strides, padding="same", name=f"{name}_pool")(x)
        if projection:
            branch = convolution(branch, projection, 1, f"{name}_pool_projection")
        return layers.Concatenate(name=name)([*branches, branch])

    images = image_input(image_shape)
    x = convolution(subtract_mean(images), 64, 7, "conv1", strides=2)
    x = layers.MaxPooling2D(3, 2, padding="same", name="pool1")(x)
    x = LocalResponseNormalization(name="norm1")(x)
    x = convolution(x, 64, 1, "inception_2_reduce")
    x = convolution(x, 192, 3, "inception_2")
    x = LocalResponseNormalization(name="norm2")(x)
    x = layers.MaxPooling2D(3, 2, padding="same", name="pool2")(x)
    for module in NN2:
        x = inception(x, module)
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    return keras.Model(images, _project(x, embedding_size), name="facenet_nn2")
