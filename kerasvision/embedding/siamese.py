"""Siamese networks: the same network looks at two pictures, and a head says whether they match.

Bromley et al. 1993; DeepFace (Taigman, Yang, Ranzato and Wolf 2014, "DeepFace: Closing the Gap to
Human-Level Performance in Face Verification"), section 4; Koch, Zemel and Salakhutdinov 2015
("Siamese Neural Networks for One-shot Image Recognition").
"""

import keras
import numpy as np
from keras import layers, ops

from kerasvision.embedding.facenet import images_of
from kerasvision.embedding.losses import (
    contrastive_loss,
    pairwise_squared_distances,
    safe_sqrt,
    squared_contrastive_loss,
)
from kerasvision.training.strategy import replica_sum


@keras.saving.register_keras_serializable("kerasvision")
class WeightedL1(layers.Layer):
    """sum_i w_i |f1_i - f2_i| + b, the logit of "these two match": D + 1 parameters.

    DeepFace, section 4.2, where it stands on top of the siamese network.

    Input: two tensors (..., D). Output: (...), float32. It starts undecided where features differ
    by a tenth: the weights at -10 / D, the bias at 1.
    """

    def build(self, first_shape, second_shape=None):
        self.w, self.b = _weights(self, first_shape[-1])

    def call(self, first, second):
        difference = ops.abs(ops.cast(first, "float32") - ops.cast(second, "float32"))
        return _weighted_sum(difference, self.w, self.b)

    def compute_output_shape(self, first_shape, second_shape=None):
        return tuple(first_shape[:-1])

    def compute_output_spec(self, first, second):
        return keras.KerasTensor(first.shape[:-1], "float32")


@keras.saving.register_keras_serializable("kerasvision")
class ChiSquared(layers.Layer):
    """sum_i w_i (f1_i - f2_i)^2 / (f1_i + f2_i) + b, the logit of "these two match".

    DeepFace, section 4.1, with its weights learnt by a linear SVM there, and b its threshold:
    D + 1 parameters. Features must not be negative; DeepFace's are from 0 to 1. Where both are 0
    they do not differ.

    Input: two tensors (..., D). Output: (...), float32. The weights start at -10 / D, the bias
    at 1.
    """

    def build(self, first_shape, second_shape=None):
        self.w, self.b = _weights(self, first_shape[-1])

    def call(self, first, second):
        first, second = ops.cast(first, "float32"), ops.cast(second, "float32")
        total = first + second
        positive = total > 0.0
        total = ops.where(positive, total, 1.0)
        difference = ops.where(positive, ops.square(first - second) / total, 0.0)
        return _weighted_sum(difference, self.w, self.b)

    def compute_output_shape(self, first_shape, second_shape=None):
        return tuple(first_shape[:-1])

    def compute_output_spec(self, first, second):
        return keras.KerasTensor(first.shape[:-1], "float32")


def _weights(head, size):
    start = keras.initializers.Constant(-10.0 / size)
    w = head.add_weight(name="w", shape=(size,), initializer=start)
    return w, head.add_weight(name="b", shape=(), initializer="ones")


def _weighted_sum(difference, w, b):
    return ops.sum(difference * ops.cast(w, "float32"), axis=-1) + ops.cast(b, "float32")


HEADS = {"l1": WeightedL1, "chi2": ChiSquared}
CONTRASTIVE = {"contrastive": contrastive_loss, "squared_contrastive": squared_contrastive_loss}


@keras.saving.register_keras_serializable("kerasvision")
class Siamese(keras.Model):
    """A network that is asked about two pictures at a time, whether they show the same.

    `fit` takes batch dictionaries of several pictures of several classes, as of
    `kerasvision.data.identity_batches`: "images" (B, H, W, 3), RGB, 0 to 255; "labels" (B,)
    integers. All pairs of a batch are learnt from; those that match and those that don't count
    half each, however many they are. Memory grows as B^2 D.

    Calling the model gives the embeddings (B, D) float32; `distances` compares them.

    Args:
        network: `keras.Model` from images to embeddings (B, D); for "chi2" not negative, see
            `embedding_network`.
        loss: "l1" or "chi2": the cross-entropy of a head, `WeightedL1` or `ChiSquared`;
            "contrastive" (Simo-Serra et al. 2015) or "squared_contrastive" (Hadsell et al.
            2006): by Euclidean distances, without a head.
        margin: of the contrastive losses.
        hardest: share of the pairs of either kind that are learnt from, those furthest from
            what they should be (Simo-Serra et al. 2015, section 3.3); 1: all of them.

    Raises:
        ValueError: another loss, no share, or a network that doesn't give embeddings.
    """

    def __init__(self, network, loss="l1", margin=1.0, hardest=1.0, **kwargs):
        super().__init__(**kwargs)
        if loss not in {**HEADS, **CONTRASTIVE}:
            names = ", ".join({**HEADS, **CONTRASTIVE})
            raise ValueError(f"loss must be one of {names}; received: {loss}")
        if not 0.0 < hardest <= 1.0:
            raise ValueError(f"hardest must be above 0, up to 1; received: {hardest}")
        if len(network.output_shape) != 2:
            raise ValueError(
                f"network must give embeddings (B, D); received: {network.output_shape}"
            )
        self.network, self.pair_loss = network, loss
        self.margin, self.hardest = margin, hardest
        self.head = None
        if loss in HEADS:
            self.head = HEADS[loss](dtype="float32", name="head")
            self.head.build(network.output_shape, network.output_shape)
        self.accuracy = keras.metrics.Mean(name="accuracy")
        self.built = True

    def call(self, inputs, training=None):
        return self.network(images_of(inputs), training=training)

    def distances(self, first, second):
        """How different two embeddings are (...), of (..., D) each: -logit, or Euclidean."""
        if self.head is not None:
            return -self.head(first, second)
        return safe_sqrt(ops.sum(ops.square(first - second), axis=-1))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The mean over the pairs that match and that over those that don't, halved and added."""
        d = self._pair_distances(y_pred)
        same, weights = _pairs(x["labels"], d, self.hardest)
        if self.head is not None:
            loss = ops.sum(weights * ops.softplus(ops.where(same, d, -d)))
        else:
            loss = CONTRASTIVE[self.pair_loss](d, same, self.margin, weights)
        # The optimizer adds up the gradients of the replicas of a strategy.
        return (loss + sum(self.losses)) / replica_sum(1.0)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """How many pairs are told right, at probability 1 / 2 or half of the margin."""
        d = self._pair_distances(y_pred)
        same, weights = _pairs(x["labels"], d)
        threshold = 0.0 if self.head is not None else 0.5 * self.margin
        right = ops.equal(d < threshold, same)
        self.accuracy.update_state(ops.sum(weights * ops.cast(right, "float32")))
        return self.get_metrics_result()

    def _pair_distances(self, f):
        if self.head is not None:
            return self.distances(f[:, None], f[None])
        return safe_sqrt(pairwise_squared_distances(f))

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
            "loss": self.pair_loss,
            "margin": self.margin,
            "hardest": self.hardest,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config):
        network = keras.saving.deserialize_keras_object(config["network"])
        return cls(**{**config, "network": network})


def _pairs(labels, distances, hardest=1.0):
    """Which pairs (B, B) match, and weights of sum 1, half of it for either kind; 0 for itself.

    Of the `distances` (B, B) of either kind only the `hardest` share have a weight.
    """
    labels = ops.reshape(labels, (-1,))
    same = ops.equal(labels[:, None], labels[None, :])
    weights = 0.0
    for kind, hardness in (
        (ops.logical_xor(same, ops.eye(ops.shape(labels)[0], dtype="bool")), distances),
        (ops.logical_not(same), -distances),
    ):
        if hardest < 1.0:
            ranked = ops.sort(ops.reshape(ops.where(kind, hardness, -np.inf), (-1,)))
            count = ops.ceil(hardest * ops.sum(ops.cast(kind, "float32")))
            last = ops.shape(ranked)[0] - ops.maximum(ops.cast(count, "int32"), 1)
            kind = ops.logical_and(kind, hardness >= ranked[last])
        kind = ops.cast(kind, "float32")
        weights = weights + 0.5 * kind / ops.maximum(ops.sum(kind), 1.0)
    return same, ops.stop_gradient(weights)
