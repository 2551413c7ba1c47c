"""Where objects are, learned from what is in the picture alone (Oquab et al. 2015).

Training knows only which classes a picture shows. A fully convolutional network gives every
class a map of scores, and the score of the picture is the maximum of its map: to raise it for a
class that is there, training must find the object, to lower it for one that is not, it must look
at every place. The place of the maximum is the prediction. With the mean instead of the maximum
the maps are class activation maps (Zhou et al. 2016).
"""

import keras
import numpy as np
from keras import layers, ops

from kerasvision.training.strategy import replica_sum

# --- The network -------------------------------------------------------------------------


def weak_localizer(
    backbone, num_classes, pooling="max", adaptation_filters=(256,), class_names=None
):
    """A backbone, adaptation layers, a map of scores for each class, and global pooling.

    Oquab et al. 2015, figure 2: adaptation convolutions, K score maps, global max pooling.
    Zhou et al. 2016, section 3: one 3x3 convolution of 1,024 channels, global average pooling and
    a fully connected layer, which is the same as scores at every place and then their mean. Each
    adaptation layer is a 3x3 convolution with batch normalisation and ReLU, so that the network
    trains from nothing. With a backbone of D channels and one adaptation layer of F channels
    there are 9 D F + 4 F + F C + C parameters on top of the backbone's.

    Args:
        backbone: functional `keras.Model` from images to a map of features (B, h, w, D). Its sides
            may be None, which training at several scales needs.
        num_classes: C.
        pooling: "max" (Oquab et al.) or "average" (Zhou et al.).
        adaptation_filters: channels of the adaptation layers.
        class_names: C names; None: "0", "1", ….

    Returns:
        `WeakLocalizer`.

    Raises:
        ValueError: another pooling, or a backbone whose output is not a map.
    """
    pooling_layers = {
        "max": layers.GlobalMaxPooling2D(dtype="float32", name="max_pool"),
        "average": layers.GlobalAveragePooling2D(dtype="float32", name="avg_pool"),
    }
    if pooling not in pooling_layers:
        raise ValueError(f"pooling must be max or average; received: {pooling}")
    x = backbone.output
    if len(x.shape) != 4:
        raise ValueError(
            "backbone must end in a map of features (B, h, w, D): build it with "
            f"include_top=False; received an output of shape {tuple(x.shape)}"
        )
    for i, filters in enumerate(adaptation_filters, start=1):
        x = layers.Conv2D(
            filters,
            3,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            name=f"adaptation{i}_conv",
        )(x)
        x = layers.BatchNormalization(momentum=0.9, name=f"adaptation{i}_bn")(x)
        x = layers.ReLU(name=f"adaptation{i}_relu")(x)
    maps = layers.Conv2D(num_classes, 1, dtype="float32", name="predictions")(x)
    logits = pooling_layers[pooling](maps)
    network = keras.Model(backbone.input, {"maps": maps, "logits": logits}, name="network")
    return WeakLocalizer(network, class_names)


@keras.saving.register_keras_serializable("kerasvision")
class WeakLocalizer(keras.Model):
    """A network of score maps, trained on which classes are present, asked where they are.

    `weak_localizer` builds it. `fit` and `evaluate` take batch dictionaries:

        "images" (B, H, W, 3), RGB, 0 to 255;
        "bounding_boxes": {"labels" (B, N)}, where -1 is padding. Of the objects only the set of
        their classes is used, and "boxes" not at all.

    Calling the model gives {"maps" (B, h, w, C), "logits" (B, C)}. `predict` gives NumPy arrays:
    "scores" (B, C), the probabilities that a class is present; "points" (B, C, 2), (y, x) divided
    by the image's height and width, the middle of the map's cell with the highest score; "maps".

    Args:
        network: functional `keras.Model` from images to maps and logits.
        class_names: C names; None: "0", "1", ….

    Raises:
        ValueError: not as many names as classes.
    """

    def __init__(self, network, class_names=None, **kwargs):
        super().__init__(**kwargs)
        self.network = network
        self.num_classes = network.output["logits"].shape[-1]
        if class_names is None:
            class_names = [str(i) for i in range(self.num_classes)]
        if len(class_names) != self.num_classes:
            raise ValueError(
                f"class_names must be {self.num_classes} names; received {len(class_names)}"
            )
        self.class_names = list(class_names)
        self.built = True

    @property
    def image_shape(self):
        """(height, width, 3) of the images; a side may be None."""
        return tuple(self.network.input_shape[1:])

    def call(self, inputs, training=None):
        images = inputs["images"] if isinstance(inputs, dict) else inputs
        return self.network(images, training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The mean over the batch of the sum of C binary logistic losses (equation 1)."""
        labels = x["bounding_boxes"]["labels"]
        logits = y_pred["logits"]
        # log(1 + exp(-y f)) with y = 1 for classes that are there, -1 for the others.
        losses = ops.softplus(ops.where(presence(labels, self.num_classes), -logits, logits))
        # The optimizer adds up the gradients of the replicas of a strategy.
        pictures = replica_sum(ops.cast(ops.shape(labels)[0], "float32"))
        loss = ops.sum(losses) / pictures
        for penalty in self.losses:
            loss = loss + penalty / replica_sum(1.0)
        return loss

    def predict(self, x, **kwargs):
        """Scores, points and maps of images or batch dictionaries; arguments as in Keras."""
        if isinstance(x, dict):
            x = x["images"]
        elif hasattr(x, "map"):  # a tf.data.Dataset of batches
            x = x.map(lambda batch: batch["images"] if isinstance(batch, dict) else batch)
        return self._decode(self.network.predict(x, **kwargs))

    def predict_on_batch(self, x):
        """Scores, points and maps of one batch of images (B, H, W, 3), as NumPy arrays."""
        return self._decode(self.network.predict_on_batch(x))

    def _decode(self, raw):
        scores = ops.convert_to_numpy(ops.sigmoid(raw["logits"]))
        return {"scores": scores, "points": peaks(raw["maps"]), "maps": raw["maps"]}

    def get_config(self):
        return {
            "network": keras.saving.serialize_keras_object(self.network),
            "class_names": list(self.class_names),
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        config["network"] = keras.saving.deserialize_keras_object(config["network"])
        return cls(**config)


def presence(labels, num_classes):
    """Which classes a picture shows: labels (B, N), -1 = padding, to (B, C) bool."""
    classes = ops.arange(num_classes, dtype="int32")
    return ops.any(ops.equal(ops.expand_dims(ops.cast(labels, "int32"), -1), classes), axis=1)


def peaks(maps):
    """Places of the maxima of NumPy maps (B, h, w, C): (B, C, 2) (y, x), middles of cells, 0 to 1.

    Of equal values the first in reading order counts.
    """
    batch, height, width, classes = maps.shape
    best = np.argmax(maps.reshape(batch, height * width, classes), axis=1)
    points = np.stack(np.unravel_index(best, (height, width)), axis=-1)
    return ((points + 0.5) / (height, width)).astype("float32")


# --- Metrics, in NumPy -------------------------------------------------------------------


def point_hits(points, boxes, labels, tolerance=0.0):
    """Whether the point of a class lies in a box of that class.

    Args:
        points: (P, C, 2) (y, x) divided by height and width, one a picture and class.
        boxes: (P, N, 4) rel_yxyx.
        labels: (P, N), -1 = padding.
        tolerance: by how much a point may miss a box, divided by height and width.

    Returns:
        (P, C) bool.
    """
    points, boxes = np.asarray(points)[:, :, None], np.asarray(boxes)[:, None]
    near = (points >= boxes[..., :2] - tolerance) & (points <= boxes[..., 2:] + tolerance)
    classes = np.arange(points.shape[1])
    same_class = np.asarray(labels)[:, None] == classes[:, None]
    return np.any(np.all(near, axis=-1) & same_class, axis=-1)


def pointing_game(points, boxes, labels, tolerance=0.0):
    """How often the point of a class that is in the picture hits it (Zhang et al. 2016, 4.1).

    Args:
        points, boxes, labels, tolerance: as in `point_hits`.

    Returns:
        dict: "pointing_accuracy", the share of hits among all pairs of a picture and a class in
        it; "pairs", their number; "per_class", the C shares, None for a class in no picture; and
        what needs no network: "centre", the share that the middle of the picture hits, and
        "chance", the share that a random point does, the area of the union of a class's boxes.

    Raises:
        ValueError: no picture shows any class.
    """
    points, boxes, labels = np.asarray(points), np.asarray(boxes), np.asarray(labels)
    present = np.any(labels[..., None] == np.arange(points.shape[1]), axis=1)
    if not present.any():
        raise ValueError("labels must name an object in at least one picture; received: none")
    hits = point_hits(points, boxes, labels, tolerance)
    # Random points, the same in all pictures: the middles of a grid of cells.
    middles = (np.arange(32) + 0.5) / 32
    random_hits = [
        point_hits(np.broadcast_to((y, x), points.shape), boxes, labels, tolerance)[present].mean()
        for y in middles
        for x in middles
    ]
    middle_hits = point_hits(np.full(points.shape, 0.5), boxes, labels, tolerance)
    return {
        "pointing_accuracy": float(hits[present].mean()),
        "pairs": int(present.sum()),
        "per_class": [
            float(hits[present[:, label], label].mean()) if present[:, label].any() else None
            for label in range(points.shape[1])
        ],
        "centre": float(middle_hits[present].mean()),
        "chance": float(np.mean(random_hits)),
    }


def point_average_precision(scores, points, boxes, labels, tolerance=18 / 500):
    """Average precision of "this class is here", over pictures (Oquab et al. 2015, section 4.2).

    Of each class the pictures are sorted by its score. A picture is right if it shows the class
    and the point lies in one of its boxes, or up to 18 pixels beside it in a picture of 500.
    Recall counts the pictures that show the class. As in Pascal VOC 2012, precision at a recall
    is the highest at this or a larger one, and the average precision the area under that curve.

    Args:
        scores: (P, C), of any scale.
        points, boxes, labels, tolerance: as in `point_hits`.

    Returns:
        (C,) average precisions; NaN for a class in no picture.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    hits = point_hits(points, boxes, labels, tolerance)
    present = np.any(labels[..., None] == np.arange(scores.shape[1]), axis=1)
    averages = np.full(scores.shape[1], np.nan)
    for label in np.flatnonzero(present.any(axis=0)):
        right = hits[np.argsort(-scores[:, label], kind="stable"), label]
        precision = np.cumsum(right) / np.arange(1, len(right) + 1)
        highest = np.maximum.accumulate(precision[::-1])[::-1]
        averages[label] = highest[right].sum() / present[:, label].sum()
    return averages


def evaluate(model, batches, tolerance=0.0):
    """The pointing game and the point localisation of a model on batches.

    Args:
        model: has `predict_on_batch` from images to "scores" (P, C) and "points" (P, C, 2), and
            `class_names`.
        batches: iterable of batch dictionaries with "images" and "bounding_boxes".
        tolerance: of the pointing game.

    Returns:
        dict of `pointing_game`, "per_class" by name, and "point_AP", the mean over the classes of
        `point_average_precision` at the paper's tolerance.
    """
    columns = {"scores": [], "points": [], "boxes": [], "labels": []}
    for batch in batches:
        found = model.predict_on_batch(np.asarray(batch["images"]))
        for name in ("scores", "points"):
            columns[name].append(found[name])
        for name in ("boxes", "labels"):
            columns[name].append(np.asarray(batch["bounding_boxes"][name]))
    columns = {name: np.concatenate(values) for name, values in columns.items()}
    truth = columns["boxes"], columns["labels"]
    metrics = pointing_game(columns["points"], *truth, tolerance)
    metrics["per_class"] = dict(zip(model.class_names, metrics["per_class"]))
    averages = point_average_precision(columns["scores"], columns["points"], *truth)
    metrics["point_AP"] = float(np.nanmean(averages))
    return metrics
