"""What the YOLOs share: cells, the objects that they answer for, and five terms of a loss.

From YOLOv2 on, each cell of a map predicts one box for each of a few priors, box sizes that are
frequent in the data. The cell that holds an object's centre and the prior most alike in shape
answer for it.
"""

import typing

import keras
import numpy as np
from keras import layers, ops

from kerasvision.detection.single_stage import SingleStageDetector
from kerasvision.ops import boxes as box_ops
from kerasvision.training.strategy import replica_sum


class YOLO(SingleStageDetector):
    """A `SingleStageDetector` whose loss has five terms, which are reported separately."""

    TERMS = ("center_loss", "size_loss", "object_loss", "no_object_loss", "class_loss")

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.loss_terms = [keras.metrics.Mean(name=name) for name in self.TERMS]

    def total_loss(self, images, *terms):
        """The sum of the `TERMS`, each divided by the number of images in the batch."""
        images = replica_sum(ops.cast(images, "float32"))
        for metric, term in zip(self.loss_terms, terms):
            metric.update_state(replica_sum(term / images))
        loss = sum(terms) / images
        for penalty in self.losses:
            loss = loss + penalty / replica_sum(1.0)
        return loss


def cell_of(center, count):
    """Which of `count` cells, from 0, holds a coordinate in [0, 1] of a centre."""
    cell = ops.cast(ops.floor(center * ops.cast(count, "float32")), "int32")
    return ops.clip(cell, 0, count - 1)


def first_objects(index, count, boxes, labels):
    """The first object that each prediction answers for.

    Args:
        index: (B, N) int32, the prediction that is responsible for each object.
        count: A, of predictions.
        boxes: (B, N, 4). Boxes without an area are no objects.
        labels: (B, N), -1 = padding.

    Returns:
        (B, A) int32: a row of `boxes`, or -1.
    """
    valid = ops.logical_and(labels >= 0, box_ops.area(boxes) > 0.0)
    index = ops.where(valid, index, -1)
    hits = ops.cast(ops.equal(index[..., None], ops.arange(count, dtype="int32")), "int32")
    row = ops.cast(ops.argmax(hits, axis=1), "int32")
    return ops.where(ops.max(hits, axis=1) > 0, row, -1)


# --- Priors and direct location prediction -----------------------------------------------


def check_sides(backbone):
    """Raises ValueError unless a backbone's images have sides that are multiples of 32."""
    sides = backbone.input_shape[1:3]
    if any(side is None or side % 32 for side in sides):
        raise ValueError(
            "the backbone must take images whose height and width are multiples of 32; "
            f"received: {sides}"
        )


def map_for_priors(x, num_priors, num_classes, stride, name):
    """The predictions of `YOLOWithPriors` from maps x: a convolution `name` and their float32."""
    x = layers.Conv2D(num_priors * (5 + num_classes), 1, name=name)(x)
    # Losses and box arithmetic want full precision whatever the convolutions run in.
    return layers.Activation("linear", dtype="float32", name=f"stride{stride}")(x)


class Predictions(typing.NamedTuple):
    """The maps of a network, prediction by prediction: map by map, row by row, cell by cell.

    Attributes:
        offsets: (B, A, 4), t_y, t_x, t_h and t_w; see `boxes.decode_yolo`.
        objectness: (B, A) logits.
        logits: (B, A, C), of the classes.
        references: (A, 4) center form: the cell's centre, the prior's size.
        cell_size: (A, 2) height and width of the cell as fractions of the image.
    """

    offsets: object
    objectness: object
    logits: object
    references: object
    cell_size: object

    @property
    def boxes(self):
        """(B, A, 4) rel_yxyx, which may reach beyond the image."""
        return box_ops.decode_yolo(self.offsets, self.references, self.cell_size)


class YOLOWithPriors(YOLO):
    """A network of maps for priors; `YOLOv2` and `YOLOv3` add loss and scores.

    Batches and detections are those of `SingleStageDetector`. Calling the model gives the raw
    maps: {"stride8" (B, H/8, W/8, K * (5 + C)), …}, for each of a cell's K priors t_x, t_y, t_w,
    t_h, the logit of its objectness and those of the classes, in the order of Darknet's files.
    `fit` also takes images of other sizes than `image_shape`, multiples of the largest stride, and
    of sizes that change from batch to batch; `predict` and `export` are of `image_shape`.

    Args:
        network: functional `keras.Model` from images of known size to the maps.
        num_classes: C.
        priors: for each map, finest first, the (height, width) of its priors in pixels.
        class_names, iou_threshold, score_threshold, max_detections, pre_nms_candidates: as in
            `SingleStageDetector`.

    Raises:
        ValueError: maps that don't fit priors and classes.
    """

    def __init__(
        self,
        network,
        num_classes,
        priors,
        class_names,
        iou_threshold,
        score_threshold,
        max_detections,
        pre_nms_candidates,
        **kwargs,
    ):
        strides = sorted(int(name.removeprefix("stride")) for name in network.output)
        maps = [network.output[f"stride{stride}"].shape[1:] for stride in strides]
        expected = [len(sizes) * (5 + num_classes) for sizes in priors]
        received = [channels for _, _, channels in maps]
        if expected != received:
            raise ValueError(
                f"the network's maps must have {expected} channels, 5 + {num_classes} for each "
                f"prior; received: {received}"
            )
        predictions = sum(
            rows * columns * len(sizes) for (rows, columns, _), sizes in zip(maps, priors)
        )
        super().__init__(
            network,
            num_classes,
            class_names,
            iou_threshold,
            score_threshold,
            min(max_detections, predictions * num_classes),
            pre_nms_candidates,
            **kwargs,
        )
        self.strides = strides
        self.priors = [[tuple(size) for size in sizes] for sizes in priors]

    def call(self, inputs, training=None):
        images = inputs["images"] if isinstance(inputs, dict) else inputs
        if tuple(images.shape[1:]) == self.image_shape:
            return self.network(images, training=training)
        return self._network_of_any_size(images, training=training)

    @property
    def _network_of_any_size(self):
        """The same layers, not tied to a size: for multi-scale training."""
        if "_any_size" not in self.__dict__:
            network = keras.models.clone_model(
                self.network,
                input_tensors=keras.Input((None, None, 3), name="images"),
                clone_function=lambda layer: layer,
            )
            # Past Keras's tracking: it would save the shared weights a second time.
            object.__setattr__(self, "_any_size", network)
        return self._any_size

    def predictions(self, raw):
        """The raw maps of a call as `Predictions`."""
        parts = []
        for stride, sizes in zip(self.strides, self.priors):
            x = ops.cast(raw[f"stride{stride}"], "float32")
            rows, columns = ops.shape(x)[1:3]
            x = ops.reshape(x, (-1, rows * columns * len(sizes), 5 + self.num_classes))
            # `anchors.yolo_priors`, of images whose size may not be known before they come.
            shape = (rows, columns, len(sizes), 2)
            cells = ops.stack([ops.cast(side, "float32") for side in (rows, columns)])
            middles = [
                ops.cast(ops.arange(side, dtype="int32"), "float32") + 0.5
                for side in (rows, columns)
            ]
            centers = ops.stack(ops.meshgrid(*middles, indexing="ij"), axis=-1)
            centers = ops.broadcast_to(centers[:, :, None], shape) / cells
            sizes = ops.broadcast_to(np.asarray(sizes, "float32") / stride, shape) / cells
            references = ops.reshape(ops.concatenate([centers, sizes], axis=-1), (-1, 4))
            parts.append(
                Predictions(
                    offsets=ops.take(x, np.array([1, 0, 3, 2]), axis=-1),
                    objectness=x[..., 4],
                    logits=x[..., 5:],
                    references=references,
                    cell_size=ops.ones_like(references[:, :2]) / cells,
                )
            )
        offsets, objectness, logits, references, cell_size = zip(*parts)
        return Predictions(
            ops.concatenate(offsets, axis=1),
            ops.concatenate(objectness, axis=1),
            ops.concatenate(logits, axis=1),
            ops.concatenate(references, axis=0),
            ops.concatenate(cell_size, axis=0),
        )

    def match(self, boxes, labels, raw):
        """Which object each prediction answers for, the first one if there are several.

        Of all maps' priors the one most alike in shape is responsible for an object, in the cell
        of the object's centre.

        Args:
            boxes: (B, N, 4).
            labels: (B, N), -1 = padding. Boxes without an area match nothing.
            raw: the maps, which give the numbers of cells.

        Returns:
            (B, A) int32: a row of `boxes`, or -1.
        """
        grids = [ops.shape(raw[f"stride{stride}"])[1:3] for stride in self.strides]
        cy, cx, height, width = ops.unstack(box_ops.to_center_form(boxes), 4, axis=-1)
        # In pixels, as the priors.
        sides = [ops.cast(side, "float32") * self.strides[0] for side in grids[0]]
        height, width = (x[..., None] * side for x, side in zip((height, width), sides))
        sizes = np.concatenate([np.asarray(sizes, "float32") for sizes in self.priors])
        intersection = ops.minimum(height, sizes[:, 0]) * ops.minimum(width, sizes[:, 1])
        union = height * width + sizes[:, 0] * sizes[:, 1] - intersection
        best_prior = ops.cast(ops.argmax(intersection / union, axis=-1), "int32")

        index, first, first_prior = ops.zeros_like(best_prior), 0, 0
        for (rows, columns), priors in zip(grids, self.priors):
            cell = cell_of(cy, rows) * columns + cell_of(cx, columns)
            prior = best_prior - first_prior
            # If the prior is of a later map, that one overwrites it.
            index = ops.where(prior >= 0, first + cell * len(priors) + prior, index)
            first += rows * columns * len(priors)
            first_prior += len(priors)
        return first_objects(index, first, boxes, labels)

    def best_overlap(self, predicted, boxes, labels):
        """The IoU (B, A) of each predicted box with the object that it overlaps most."""
        iou = box_ops.iou(ops.stop_gradient(predicted), boxes)
        return ops.max(ops.where(ops.expand_dims(labels, 1) >= 0, iou, 0.0), axis=-1)

    def get_config(self):
        return {**super().get_config(), "priors": self.priors}
