"""Localisation by regression: one object, its class and its box (OverFeat, VGG).

Beside the scores of the classes a network predicts a box for each class. Applied at several
places and sizes of a picture it gives many boxes; those that agree are merged, and the one with
the most votes answers (Sermanet et al. 2014, section 4; Simonyan and Zisserman 2014, appendix A).
"""

import keras
import numpy as np
from keras import layers, ops

from kerasvision.classification.multi_crop import resize_shorter_side
from kerasvision.ops import boxes as box_ops
from kerasvision.training.strategy import replica_sum

# --- The network -------------------------------------------------------------------------


def box_regressor(
    backbone, num_classes, per_class=True, hidden_units=256, box_weight=20.0, class_names=None
):
    """A backbone, a classifier, and a regressor of boxes.

    The classifier is global average pooling and one fully connected layer. The regressor, as in
    OverFeat (section 4.2), has a fully connected layer on the whole map, since the mean of a map
    no longer knows where things are, and the layer of the boxes: 4 C numbers, a box for each class
    (VGG's per-class regression, PCR), or 4 (single-class regression, SCR). With a backbone of h x w
    cells and D channels, M numbers for the boxes and F hidden units there are
    D C + C + (h w D + 1) F + (F + 1) M parameters on top of the backbone's.

    Args:
        backbone: functional `keras.Model` from images to a map of features (B, h, w, D).
        num_classes: C.
        per_class: PCR or SCR.
        hidden_units: of the regressor's fully connected layer.
        box_weight: factor on the regression's loss.
        class_names: C names; None: "0", "1", ….

    Returns:
        `BoxRegressor`.

    Raises:
        ValueError: a backbone whose output is not a map of known size.
    """
    features = backbone.output
    if len(features.shape) != 4 or None in features.shape[1:]:
        raise ValueError(
            "backbone must end in a map of features (B, h, w, D) of known size; "
            f"received an output of shape {tuple(features.shape)}"
        )
    float32 = {"dtype": "float32"}
    x = layers.GlobalAveragePooling2D(name="avg_pool")(features)
    logits = layers.Dense(num_classes, name="predictions", **float32)(x)
    x = layers.Flatten(name="flatten")(features)
    x = layers.Dense(
        hidden_units, activation="relu", kernel_initializer="he_normal", name="box_fc"
    )(x)
    count = num_classes if per_class else 1
    # Training starts from a box in the middle, half as high and wide as the image.
    middle = keras.initializers.Constant(0.5)
    x = layers.Dense(4 * count, bias_initializer=middle, name="box_predictions", **float32)(x)
    boxes = layers.Reshape((count, 4), name="boxes", **float32)(x)
    network = keras.Model(backbone.input, {"logits": logits, "boxes": boxes}, name="network")
    return BoxRegressor(network, box_weight, class_names)


@keras.saving.register_keras_serializable("kerasvision")
class BoxRegressor(keras.Model):
    """A network of logits and boxes with the losses and the answers of localisation.

    `box_regressor` builds it. `fit` and `evaluate` take batch dictionaries:

        "images" (B, H, W, 3), RGB, 0 to 255;
        "bounding_boxes": {"boxes" (B, N, 4) rel_yxyx, "labels" (B, N)}, -1 = padding. The picture's
        one object is the largest; a picture without any counts for nothing.

    Calling the model gives {"logits" (B, C), "boxes" (B, C or 1, 4)}, boxes in center form (cy,
    cx, height, width) divided by the image's height and width. `predict` gives NumPy arrays:
    "scores" (B, C), probabilities, and "boxes" (B, C, 4), rel_yxyx, cut off at the image's border,
    the same for all classes where the network regresses only one.

    Args:
        network: functional `keras.Model` from images to logits and boxes.
        box_weight: factor on the regression's loss.
        class_names: C names; None: "0", "1", ….

    Raises:
        ValueError: not as many names as classes.
    """

    def __init__(self, network, box_weight=20.0, class_names=None, **kwargs):
        super().__init__(**kwargs)
        self.network = network
        self.box_weight = box_weight
        self.num_classes = network.output["logits"].shape[-1]
        if class_names is None:
            class_names = [str(i) for i in range(self.num_classes)]
        if len(class_names) != self.num_classes:
            raise ValueError(
                f"class_names must be {self.num_classes} names; received {len(class_names)}"
            )
        self.class_names = list(class_names)
        self.classification_loss = keras.metrics.Mean(name="classification_loss")
        self.regression_loss = keras.metrics.Mean(name="regression_loss")
        self.built = True

    @property
    def image_shape(self):
        """(height, width, 3) of the images."""
        return tuple(self.network.input_shape[1:])

    def call(self, inputs, training=None):
        images = inputs["images"] if isinstance(inputs, dict) else inputs
        return self.network(images, training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Cross-entropy, plus half the squared Euclidean distance of the true class's box.

        VGG trains one network for each of the two, here they share the backbone.
        """
        truth = x["bounding_boxes"]
        labels, boxes = largest_object(truth["boxes"], truth["labels"])
        counted = ops.cast(labels >= 0, "float32")
        pictures = ops.maximum(replica_sum(ops.sum(counted)), 1.0)
        labels = ops.maximum(labels, 0)

        losses = ops.sparse_categorical_crossentropy(labels, y_pred["logits"], from_logits=True)
        classification = ops.sum(losses * counted) / pictures

        per_class = y_pred["boxes"].shape[1] > 1
        row = labels if per_class else ops.zeros_like(labels)
        received = ops.take_along_axis(y_pred["boxes"], row[:, None, None], axis=1)[:, 0]
        expected = box_ops.to_center_form(boxes)
        distance = 0.5 * ops.sum(ops.square(received - expected), axis=-1)
        regression = ops.sum(distance * counted) / pictures

        self.classification_loss.update_state(replica_sum(classification))
        self.regression_loss.update_state(replica_sum(regression))
        loss = classification + self.box_weight * regression
        for penalty in self.losses:
            loss = loss + penalty / replica_sum(1.0)
        return loss

    def predict(self, x, **kwargs):
        """Scores and boxes of images or batch dictionaries; arguments as in Keras."""
        if isinstance(x, dict):
            x = x["images"]
        elif hasattr(x, "map"):  # a tf.data.Dataset of batches
            x = x.map(lambda batch: batch["images"] if isinstance(batch, dict) else batch)
        return self._decode(self.network.predict(x, **kwargs))

    def predict_on_batch(self, x):
        """Scores and boxes of one batch of images (B, H, W, 3), as NumPy arrays."""
        return self._decode(self.network.predict_on_batch(x))

    def _decode(self, raw):
        boxes = ops.convert_to_numpy(box_ops.clip(box_ops.to_corner_form(raw["boxes"])))
        return {
            "scores": ops.convert_to_numpy(ops.softmax(raw["logits"], axis=-1)),
            "boxes": np.broadcast_to(boxes, (len(boxes), self.num_classes, 4)),
        }

    def get_config(self):
        return {
            "network": keras.saving.serialize_keras_object(self.network),
            "box_weight": self.box_weight,
            "class_names": list(self.class_names),
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        config["network"] = keras.saving.deserialize_keras_object(config["network"])
        return cls(**config)


def largest_object(boxes, labels):
    """Of boxes (B, N, 4) and labels (B, N) the labels (B,) and boxes (B, 4) of the largest area.

    Label -1 where there is no object.
    """
    areas = ops.where(labels >= 0, box_ops.area(boxes), -1.0)
    row = ops.expand_dims(ops.argmax(areas, axis=1), 1)
    label = ops.take_along_axis(ops.cast(labels, "int32"), row, axis=1)[:, 0]
    return label, ops.take_along_axis(boxes, ops.expand_dims(row, -1), axis=1)[:, 0]


# --- Several places and sizes, in NumPy --------------------------------------------------


def merge_boxes(boxes, scores, threshold=1.0):
    """Merges boxes that agree, greedily (Sermanet et al. 2014, section 4.3).

    The two boxes that match best become one, again and again, until no two match well enough.
    How badly two boxes match is the distance of their centres, in units of the root of their mean
    area, plus 1 - IoU. (The paper adds the area of the intersection to the distance and takes the
    smallest sum; but boxes that agree share more.) The merged box is the mean of all that went
    into it, and its score the sum of theirs.

    Args:
        boxes: (N, 4) rel_yxyx.
        scores: (N,), how sure the network is of the class at each place.
        threshold: boxes that match worse stay apart.

    Returns:
        (M, 4) boxes and (M,) scores, M <= N, sorted by score.
    """
    boxes, scores = np.array(boxes, "float64"), np.array(scores, "float64")
    votes = np.ones(len(boxes))
    while len(boxes) > 1:
        mismatch = _mismatch(boxes)
        first, second = np.unravel_index(np.argmin(mismatch), mismatch.shape)
        if mismatch[first, second] > threshold:
            break
        pair = [first, second]
        boxes[first] = np.average(boxes[pair], axis=0, weights=votes[pair])
        scores[first], votes[first] = scores[pair].sum(), votes[pair].sum()
        boxes, scores, votes = (np.delete(x, second, axis=0) for x in (boxes, scores, votes))
    order = np.argsort(-scores, kind="stable")
    return boxes[order].astype("float32"), scores[order].astype("float32")


def _mismatch(boxes):
    """(N, N) float64 of boxes (N, 4); infinite on the diagonal."""
    starts, ends = boxes[:, :2], boxes[:, 2:]
    overlap = np.minimum(ends[:, None], ends) - np.maximum(starts[:, None], starts)
    intersection = np.maximum(overlap, 0).prod(axis=-1)
    areas = (ends - starts).prod(axis=-1)
    total = np.maximum(areas[:, None] + areas, 1e-12)
    distance = np.linalg.norm((starts + ends)[:, None] - (starts + ends), axis=-1) / 2
    mismatch = distance / np.sqrt(total / 2) + 1 - intersection / (total - intersection)
    np.fill_diagonal(mismatch, np.inf)
    return mismatch


def localize(model, picture, sides):
    """The scores of a picture and its boxes, from windows at several places and sizes.

    The picture is resized so that its shorter side has each of the `sides` in turn. Its corners
    and its middle are windows of the size that the network takes. Scores are averaged over all
    windows. The boxes of a class, one a window, are merged, and that of the highest sum of scores
    is the answer.

    Args:
        model: `BoxRegressor`.
        picture: (H, W, 3), 0 to 255.
        sides: list of ints, in pixels, not smaller than the network's images.

    Returns:
        dict: "scores" (C,) and "boxes" (C, 4), rel_yxyx of the picture.
    """
    height, width, _ = model.image_shape
    scores, boxes = [], []
    for side in sides:
        resized = resize_shorter_side(picture, side)
        bottom, right = resized.shape[0] - height, resized.shape[1] - width
        places = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
        places = np.unique(places, axis=0)  # one window, if the picture is no larger
        found = model.predict_on_batch(
            np.stack([resized[y : y + height, x : x + width] for y, x in places])
        )
        in_pixels = found["boxes"] * [height, width, height, width] + np.tile(places, 2)[:, None]
        boxes.append(in_pixels / np.tile(resized.shape[:2], 2))
        scores.append(found["scores"])
    scores, boxes = np.concatenate(scores), np.concatenate(boxes)
    best = [merge_boxes(boxes[:, c], scores[:, c])[0][0] for c in range(scores.shape[1])]
    return {"scores": scores.mean(axis=0), "boxes": np.stack(best)}


# --- Metrics, in NumPy -------------------------------------------------------------------


def localization_metrics(scores, predicted_boxes, boxes, labels, iou_threshold=0.5):
    """Share of pictures whose class and box are right (ILSVRC, Russakovsky et al. 2015, 4.2).

    Args:
        scores: (P, C).
        predicted_boxes: (P, C, 4) rel_yxyx, a box for each class.
        boxes: (P, N, 4) rel_yxyx.
        labels: (P, N), -1 = padding. The picture's class is that of its largest object; pictures
            without any do not count.
        iou_threshold: a box is right if its IoU with an object of the class is above.

    Returns:
        dict: "localization_accuracy", class and box right; "classification_accuracy", the class;
        "box_accuracy", the box for the true class; "mean_iou" of that box; "pictures".

    Raises:
        ValueError: no picture shows an object.
    """
    truth = ops.convert_to_numpy(
        largest_object(np.asarray(boxes, "float32"), np.asarray(labels))[0]
    )
    counted = np.flatnonzero(truth >= 0)
    if not len(counted):
        raise ValueError("labels must name an object in at least one picture; received: none")
    best_class = np.argmax(scores, axis=-1)
    ious = np.zeros(len(truth))
    for i in counted:
        objects = np.asarray(boxes)[i][np.asarray(labels)[i] == truth[i]]
        found = np.asarray(predicted_boxes)[i, truth[i]][None]
        ious[i] = ops.convert_to_numpy(box_ops.iou(found, objects)).max()
    class_right = (best_class == truth)[counted]
    box_right = ious[counted] > iou_threshold
    return {
        "localization_accuracy": float(np.mean(class_right & box_right)),
        "classification_accuracy": float(np.mean(class_right)),
        "box_accuracy": float(np.mean(box_right)),
        "mean_iou": float(ious[counted].mean()),
        "pictures": len(counted),
    }


def evaluate(model, batches, sides=None):
    """`localization_metrics` of a `BoxRegressor` on batches.

    Args:
        model: `BoxRegressor`.
        batches: iterable of batch dictionaries with "images" and "bounding_boxes".
        sides: None: each image is one window. A list: as in `localize`, several windows.
    """
    columns = {"scores": [], "found": [], "boxes": [], "labels": []}
    for batch in batches:
        images = np.asarray(batch["images"])
        if sides is None:
            found = model.predict_on_batch(images)
        else:
            answers = [localize(model, image, sides) for image in images]
            found = {name: np.stack([a[name] for a in answers]) for name in ("scores", "boxes")}
        columns["scores"].append(found["scores"])
        columns["found"].append(found["boxes"])
        for name in ("boxes", "labels"):
            columns[name].append(np.asarray(batch["bounding_boxes"][name]))
    return localization_metrics(*(np.concatenate(values) for values in columns.values()))
