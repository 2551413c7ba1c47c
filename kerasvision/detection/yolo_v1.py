"""YOLO (Redmon et al. 2016, "You Only Look Once: Unified, Real-Time Object Detection").

The image is an S x S grid. From the whole of it fully connected layers predict, for each cell, a
few boxes with their confidences, and which class an object has whose centre is in the cell.
"""

import math

import keras
import numpy as np
from keras import layers, ops

from kerasvision.backbones.darknet import convolution
from kerasvision.backbones.inputs import image_input, minus_one_to_one
from kerasvision.backbones.mobilenet_v2 import mobilenet_v2
from kerasvision.detection.yolo import YOLO, cell_of, first_objects
from kerasvision.ops import boxes as box_ops

# Figure 3: filters, kernel size and stride of the convolutions between two poolings.
FULL = [
    [(64, 7, 2)],
    [(192, 3, 1)],
    [(128, 1, 1), (256, 3, 1), (256, 1, 1), (512, 3, 1)],
    [(256, 1, 1), (512, 3, 1)] * 4 + [(512, 1, 1), (1024, 3, 1)],
    [(512, 1, 1), (1024, 3, 1)] * 2 + [(1024, 3, 1), (1024, 3, 2)] + [(1024, 3, 1)] * 2,
]
# The authors' yolo-tiny.cfg.
FAST = [[(filters, 3, 1)] for filters in (16, 32, 64, 128, 256, 512)] + [[(1024, 3, 1)] * 3]

# --- The networks ------------------------------------------------------------------------


def yolo_v1_full(num_classes, image_shape=(448, 448, 3), class_names=None, grid=7):
    """YOLO: 24 convolutions, 271,703,550 parameters with 20 classes at 448 pixels.

    Redmon et al. 2016, section 2.1 and figure 3; without batch normalisation.

    Args:
        num_classes: C.
        image_shape: (height, width, 3), any size from 64 pixels.
        class_names: names of the classes, for drawings and exports.
        grid: S.

    Returns:
        `YOLOv1`.
    """
    trunk = _plain_trunk("yolo_v1_trunk", image_shape, FULL)
    return yolo_v1(trunk, num_classes, class_names, grid)


def yolo_v1_fast(num_classes, image_shape=(448, 448, 3), class_names=None, grid=7):
    """Fast YOLO: 9 convolutions, 45,089,374 parameters with 20 classes at 448 pixels.

    Section 2.1, and for what the paper doesn't tell, the authors' yolo-tiny.cfg. Arguments and
    return value as in `yolo_v1_full`.
    """
    trunk = _plain_trunk("fast_yolo_v1_trunk", image_shape, FAST)
    return yolo_v1(trunk, num_classes, class_names, grid, hidden_units=(256, 4096))


def yolo_v1_mobilenet_v2(
    num_classes,
    image_shape=(320, 320, 3),
    backbone_weights=None,
    class_names=None,
    grid=10,
    filters=256,
    hidden_units=(512,),
    dropout_rate=0.5,
    batch_norm_momentum=0.97,
):
    """YOLO's head on MobileNetV2, for CPUs.

    Arguments and return value as in `yolo_v1_full`, and

    Args:
        backbone_weights: as the `weights` of `kerasvision.backbones.mobilenet_v2`.
        filters: of a 3x3 convolution behind it.
        hidden_units, dropout_rate: as in `yolo_v1`.
        batch_norm_momentum: of the moving averages.
    """
    backbone = mobilenet_v2(
        image_shape,
        include_top=False,
        weights=backbone_weights,
        batch_norm_momentum=batch_norm_momentum,
    )
    x = convolution(backbone.output, filters, 3, "head_conv0", momentum=batch_norm_momentum)
    trunk = keras.Model(backbone.input, x)
    return yolo_v1(
        trunk,
        num_classes,
        class_names,
        grid,
        hidden_units=hidden_units,
        dropout_rate=dropout_rate,
    )


def yolo_v1(
    backbone,
    num_classes,
    class_names=None,
    grid=7,
    boxes_per_cell=2,
    hidden_units=(4096,),
    dropout_rate=0.5,
):
    """YOLO on any backbone.

    Args:
        backbone: functional `keras.Model` from images of known size to maps, whatever their size.
        num_classes: C.
        class_names: names of the classes, for drawings and exports.
        grid: S.
        boxes_per_cell: B of the paper.
        hidden_units: of the fully connected layers; those before the last are linear. None at
            all, (): each cell is predicted from its own pixel of maps that must be S x S, which
            asks for far fewer training pictures than the paper's view of the whole image.
        dropout_rate: in front of the predictions.

    Returns:
        `YOLOv1`.

    Raises:
        ValueError: no hidden units, and maps of another size than S x S.
    """
    x, shape = backbone.output, (grid, grid, boxes_per_cell * 5 + num_classes)
    if hidden_units:
        x = layers.Flatten(name="flatten")(x)
        for i, units in enumerate(hidden_units):
            x = layers.Dense(units, kernel_initializer="he_normal", name=f"hidden{i}")(x)
        x = layers.LeakyReLU(0.1, name="hidden_leaky")(x)
    elif tuple(x.shape[1:3]) != (grid, grid):
        raise ValueError(
            f"grid must be as the backbone's maps, {tuple(x.shape[1:3])}, without hidden_units; "
            f"received: {grid}"
        )
    x = layers.Dropout(dropout_rate, name="dropout")(x)
    outputs = math.prod(shape) if hidden_units else shape[-1]
    x = layers.Dense(outputs, name="predictions")(x)  # of all cells, or of each one
    # Losses and box arithmetic want full precision whatever the convolutions run in.
    x = layers.Reshape(shape, dtype="float32", name="cells")(x)
    network = keras.Model(backbone.input, {"cells": x}, name="network")
    return YOLOv1(network, num_classes, boxes_per_cell, class_names, name="yolo_v1")


def _plain_trunk(name, image_shape, stages):
    images = image_input(image_shape, min_side=64, any_size=False)
    x = minus_one_to_one(images)
    number = 0
    for stage, convolutions in enumerate(stages):
        if stage > 0:
            x = layers.MaxPooling2D(2, padding="same", name=f"pool{stage}")(x)
        for filters, kernel_size, stride in convolutions:
            if stride == 2:
                # "same" would pad one pixel less above and to the left.
                x = layers.ZeroPadding2D(kernel_size // 2, name=f"conv{number}_pad")(x)
            x = layers.Conv2D(
                filters,
                kernel_size,
                stride,
                padding="same" if stride == 1 else "valid",
                kernel_initializer="he_normal",
                name=f"conv{number}",
            )(x)
            x = layers.LeakyReLU(0.1, name=f"conv{number}_leaky")(x)  # equation 2
            number += 1
    return keras.Model(images, x, name=name)


# --- Loss, decoding ----------------------------------------------------------------------


@keras.saving.register_keras_serializable("kerasvision")
class YOLOv1(YOLO):
    """A network of cells with YOLO's loss and decoding.

    `yolo_v1` and its sisters build it. Batches and detections are those of `SingleStageDetector`.
    Calling the model gives the raw {"cells" (B, S, S, K * 5 + C)}: for each of a cell's K boxes
    the centre x and y from the cell's upper left corner, in cells; the square roots of width and
    height as fractions of the image; and the confidence. Behind them are the C classes. All of
    it is linear.

    Args:
        network: functional `keras.Model` from images to the cells.
        num_classes: C.
        boxes_per_cell: K, the paper's B.
        class_names: C names; None: "0", "1", ….
        lambda_coord, lambda_noobj: of the loss, equation 3.
        iou_threshold, score_threshold, max_detections, pre_nms_candidates: of decoding; see
            `kerasvision.layers.NonMaxSuppression`. There are 98 boxes in the paper, so that of
            few classes there may be fewer detections than asked for.

    Raises:
        ValueError: cells that don't fit boxes and classes.
    """

    def __init__(
        self,
        network,
        num_classes,
        boxes_per_cell=2,
        class_names=None,
        lambda_coord=5.0,
        lambda_noobj=0.5,
        iou_threshold=0.5,
        score_threshold=0.01,
        max_detections=100,
        pre_nms_candidates=1000,
        **kwargs,
    ):
        rows, columns, channels = network.output["cells"].shape[1:]
        if rows != columns or channels != boxes_per_cell * 5 + num_classes:
            raise ValueError(
                f"the network's cells must be (S, S, {boxes_per_cell} * 5 + {num_classes}); "
                f"received: {(rows, columns, channels)}"
            )
        super().__init__(
            network,
            num_classes,
            class_names,
            iou_threshold,
            score_threshold,
            min(max_detections, rows * columns * boxes_per_cell * num_classes),
            pre_nms_candidates,
            **kwargs,
        )
        self.grid = rows
        # Upper left corners of the cells (y, x) in cells, row by row.
        self.corners = np.stack(np.indices((rows, rows)), -1).reshape(-1, 1, 2).astype("float32")
        self.boxes_per_cell = boxes_per_cell
        self.lambda_coord = lambda_coord
        self.lambda_noobj = lambda_noobj

    def predictions(self, raw):
        """What the cells say, row by row.

        Returns:
            centers (B, S * S, K, 2), y and x in cells from the cell's corner; roots
            (B, S * S, K, 2) of height and width; confidences (B, S * S, K); classes
            (B, S * S, C); and boxes (B, S * S, K, 4) rel_yxyx.
        """
        side, count = self.grid, self.boxes_per_cell
        x = ops.reshape(
            ops.cast(raw["cells"], "float32"), (-1, side * side, 5 * count + self.num_classes)
        )
        per_box = ops.reshape(x[..., : 5 * count], (-1, side * side, count, 5))
        centers = ops.stack([per_box[..., 1], per_box[..., 0]], axis=-1)
        roots = ops.stack([per_box[..., 3], per_box[..., 2]], axis=-1)
        middles = (centers + self.corners) / side
        boxes = box_ops.to_corner_form(ops.concatenate([middles, ops.square(roots)], axis=-1))
        return centers, roots, per_box[..., 4], x[..., 5 * count :], boxes

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Equation 3, of each image: centre, size, object, no object and classes.

        An object is its centre's cell's; of several the first. Of the cell's boxes the one that
        overlaps it most is responsible, its confidence should be that IoU.
        """
        ground_truth = x["bounding_boxes"] if y is None else y
        boxes = ops.cast(ground_truth["boxes"], "float32")
        labels = ops.cast(ground_truth["labels"], "int32")
        centers, roots, confidences, classes, predicted = self.predictions(y_pred)

        cy, cx, _, _ = ops.unstack(box_ops.to_center_form(boxes), 4, axis=-1)
        cell = cell_of(cy, self.grid) * self.grid + cell_of(cx, self.grid)
        matched = first_objects(cell, self.grid**2, boxes, labels)
        has_object = ops.cast(matched >= 0, "float32")
        row = ops.maximum(matched, 0)
        boxes = ops.take_along_axis(boxes, ops.expand_dims(row, -1), axis=1)
        labels = ops.take_along_axis(labels, row, axis=1)

        iou = ops.stop_gradient(box_ops.iou(predicted, boxes[:, :, None], pairwise=False))
        responsible = ops.one_hot(ops.argmax(iou, axis=-1), self.boxes_per_cell, dtype="float32")
        responsible = responsible * has_object[..., None]

        cy, cx, height, width = ops.unstack(box_ops.to_center_form(boxes), 4, axis=-1)
        in_cell = ops.expand_dims(ops.stack([cy, cx], axis=-1), 2) * self.grid - self.corners
        sides = ops.expand_dims(ops.stack([height, width], axis=-1), 2)
        sides = ops.sqrt(ops.maximum(sides, 0.0))
        center = ops.sum(responsible[..., None] * ops.square(centers - in_cell))
        size = ops.sum(responsible[..., None] * ops.square(roots - sides))
        is_object = ops.sum(responsible * ops.square(confidences - iou))
        is_none = ops.sum((1.0 - responsible) * ops.square(confidences))
        of_class = ops.square(classes - ops.one_hot(labels, self.num_classes, dtype="float32"))
        of_class = ops.sum(has_object[..., None] * of_class)
        return self.total_loss(
            ops.shape(labels)[0],
            self.lambda_coord * center,
            self.lambda_coord * size,
            is_object,
            self.lambda_noobj * is_none,
            of_class,
        )

    def decode(self, raw):
        """Boxes (B, S * S * K, 4), cut off at the image's border, and scores (…, C).

        A score is the box's confidence times the cell's probability of the class (equation 1),
        both limited to [0, 1].
        """
        _, _, confidences, classes, boxes = self.predictions(raw)
        scores = (
            ops.clip(confidences, 0.0, 1.0)[..., None] * ops.clip(classes, 0.0, 1.0)[:, :, None]
        )
        count = self.grid**2 * self.boxes_per_cell
        boxes = ops.reshape(box_ops.clip(boxes), (-1, count, 4))
        return boxes, ops.reshape(scores, (-1, count, self.num_classes))

    def get_config(self):
        return {
            **super().get_config(),
            "boxes_per_cell": self.boxes_per_cell,
            "lambda_coord": self.lambda_coord,
            "lambda_noobj": self.lambda_noobj,
        }
