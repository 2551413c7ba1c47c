"""Descriptors of objects and their poses (Wohlhart and Lepetit 2015, "Learning Descriptors for
Object Recognition and 3D Pose Estimation").

A picture becomes a point. Points of different objects lie far apart; those of one object lie as
its poses do, like ones near each other, whatever light and ground are. The nearest of known views
then tells both: which object it is, and how it is turned.
"""

import keras
from keras import layers, ops

from kerasvision.backbones.inputs import image_input, minus_one_to_one
from kerasvision.embedding.facenet import images_of
from kerasvision.embedding.losses import (
    pair_loss,
    pairwise_squared_distances,
    ratio_triplet_loss,
    safe_sqrt,
)
from kerasvision.training.strategy import replica_sum

SAME_POSE = 3.0 - 1e-3  # trace of R_a^T R_b, of less than 2 degrees
FAR = 1e30


@keras.saving.register_keras_serializable("kerasvision")
class PoseDescriptor(keras.Model):
    """A descriptor that learns from all triplets and pairs of its batches, equation 2.

    `fit` takes batch dictionaries, as of `kerasvision.data.pose_batches`: "images" (B, H, W, 3),
    RGB, 0 to 255; "labels" (B,), the objects; "turns" (B, 3, 3), rotation matrices. For each
    anchor i, the puller j is the picture of its object in the pose most like its own, but not the
    same; pushers k are all pictures of other objects, and those of its own in poses less like its
    than that of j. Pairs are of one object in one pose.

    Calling the model gives the descriptors (B, D) float32.

    Args:
        network: `keras.Model` from images to descriptors (B, D), of any length.
        margin: m of equation 3.
        pair_weight: of the pairs' loss beside that of the triplets.

    Raises:
        ValueError: a network that doesn't give descriptors.
    """

    def __init__(self, network, margin=0.01, pair_weight=1.0, **kwargs):
        super().__init__(**kwargs)
        if len(network.output_shape) != 2:
            raise ValueError(
                f"network must give descriptors (B, D); received: {network.output_shape}"
            )
        self.network, self.margin, self.pair_weight = network, margin, pair_weight
        self.built = True

    def call(self, inputs, training=None):
        return self.network(images_of(inputs), training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The triplets' loss and the pairs', means over each."""
        labels, turns = ops.reshape(x["labels"], (-1,)), ops.cast(x["turns"], "float32")
        squared = pairwise_squared_distances(y_pred)
        d = safe_sqrt(squared)
        turns = ops.reshape(turns, (-1, 9))
        likeness = ops.matmul(turns, ops.transpose(turns))
        same_object = ops.equal(labels[:, None], labels[None, :])
        itself = ops.eye(ops.shape(labels)[0], dtype="bool")
        same_pose = ops.logical_and(same_object, likeness >= SAME_POSE)
        pairs = ops.logical_xor(same_pose, ops.logical_and(same_pose, itself))
        pulls = ops.logical_and(same_object, likeness < SAME_POSE)

        candidates = ops.where(pulls, likeness, -FAR)
        j = ops.argmax(candidates, axis=1)[:, None]
        best = ops.take_along_axis(candidates, j, axis=1)
        pushes = ops.logical_or(ops.logical_not(same_object), likeness < best)
        pushes = ops.logical_and(pushes, ops.any(pulls, axis=1, keepdims=True))
        nearer = ops.take_along_axis(d, j, axis=1)
        triplets = ratio_triplet_loss(nearer, d, self.margin, _mean_of(pushes))
        loss = triplets + self.pair_weight * pair_loss(squared, _mean_of(pairs))
        # The optimizer adds up the gradients of the replicas of a strategy.
        return (loss + sum(self.losses)) / replica_sum(1.0)

    @property
    def image_shape(self):
        """(height, width, channels) of the images."""
        return tuple(self.network.input_shape[1:])

    @property
    def embedder(self):
        """Functional `keras.Model` from images to descriptors (B, D), float32."""
        return self.network

    def get_config(self):
        return {
            "network": keras.saving.serialize_keras_object(self.network),
            "margin": self.margin,
            "pair_weight": self.pair_weight,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config):
        network = keras.saving.deserialize_keras_object(config["network"])
        return cls(**{**config, "network": network})


def _mean_of(mask):
    """Weights that make a sum the mean over a mask, or 0 where it is empty."""
    mask = ops.cast(mask, "float32")
    return mask / ops.maximum(ops.sum(mask), 1.0)


def descriptor_network(image_shape=(64, 64, 3), descriptor_size=32):
    """The paper's network, section 3.3: 272,423 parameters.

    Convolutions of 16 filters 8 x 8 and 7 filters 5 x 5, each with a ReLU and a pooling by 2, a
    layer of 256 and the descriptor. The paper has depth beside colour, we have colour alone.

    Args:
        image_shape: (height, width, 3), sides from 28.
        descriptor_size: D.

    Returns:
        A functional `keras.Model` from images to descriptors (B, D), float32.

    Raises:
        ValueError: an image shape that the network can't take.
    """
    images = image_input(image_shape, 28, any_size=False)
    x = minus_one_to_one(images)
    for number, (filters, size) in enumerate([(16, 8), (7, 5)], start=1):
        x = layers.Conv2D(
            filters, size, activation="relu", kernel_initializer="he_normal", name=f"conv{number}"
        )(x)
        x = layers.MaxPooling2D(2, name=f"pool{number}")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(256, activation="relu", kernel_initializer="he_normal", name="hidden")(x)
    x = layers.Dense(descriptor_size, dtype="float32", name="descriptor")(x)
    return keras.Model(images, x, name="descriptor_network")
