"""YOLOv3 (Redmon & Farhadi 2018, "YOLOv3: An Incremental Improvement"), and YOLOv3-tiny.

Three maps, the finer ones built from the coarser ones and the trunk's, carry three priors at each
cell. A prediction says where its object is, whether there is one, and, class by class, what it is.
"""

import math

import keras
import numpy as np
from keras import layers, ops

from kerasvision.backbones.darknet import MOMENTUM, convolution, darknet53, darknet_tiny
from kerasvision.backbones.mobilenet_v2 import mobilenet_v2
from kerasvision.detection.yolo import YOLOWithPriors, check_sides, map_for_priors
from kerasvision.ops import boxes as box_ops
from kerasvision.ops.anchors import YOLOV3_PRIORS

# (height, width) in pixels, of the authors' yolov3-tiny.cfg: maps of stride 16 and 32.
TINY_PRIORS = (((14, 10), (27, 23), (58, 37)), ((82, 81), (169, 135), (319, 344)))

# --- The networks ------------------------------------------------------------------------


def yolo_v3_darknet53(
    num_classes,
    image_shape=(416, 416, 3),
    backbone_weights=None,
    class_names=None,
    priors=YOLOV3_PRIORS,
    batch_norm_momentum=MOMENTUM,
):
    """YOLOv3: 61,949,149 trainable parameters with 80 classes.

    Redmon & Farhadi 2018, section 2.3. `darknet_weights.load_darknet_weights(model.network, …)`
    loads the authors' file.

    Args:
        num_classes: C.
        image_shape: (height, width, 3), multiples of 32.
        backbone_weights: as the `weights` of `kerasvision.backbones.darknet.darknet53`.
        class_names: names of the classes, for drawings and exports.
        priors: as in `yolo_v3`; those of COCO.
        batch_norm_momentum: of the moving averages; short trainings want less, such as 0.97.

    Returns:
        `YOLOv3`.
    """
    backbone = darknet53(
        image_shape,
        include_top=False,
        weights=backbone_weights,
        batch_norm_momentum=batch_norm_momentum,
    )
    return yolo_v3(
        backbone, num_classes, class_names, priors, batch_norm_momentum=batch_norm_momentum
    )


def yolo_v3_mobilenet_v2(
    num_classes,
    image_shape=(320, 320, 3),
    backbone_weights=None,
    class_names=None,
    priors=YOLOV3_PRIORS,
    batch_norm_momentum=0.97,
    filters=256,
    head_depth=1,
):
    """YOLOv3 on MobileNetV2, for phones and CPUs.

    Arguments and return value as in `yolo_v3_darknet53`, and

    Args:
        backbone_weights: as the `weights` of `kerasvision.backbones.mobilenet_v2`.
        filters, head_depth: as in `yolo_v3`.
    """
    backbone = mobilenet_v2(
        image_shape,
        include_top=False,
        weights=backbone_weights,
        batch_norm_momentum=batch_norm_momentum,
    )
    return yolo_v3(
        backbone, num_classes, class_names, priors, filters, head_depth, batch_norm_momentum
    )


def yolo_v3(
    backbone,
    num_classes,
    class_names=None,
    priors=YOLOV3_PRIORS,
    filters=512,
    head_depth=3,
    batch_norm_momentum=MOMENTUM,
):
    """YOLOv3 on any backbone.

    Args:
        backbone: functional `keras.Model` from images of known size, multiples of 32, with
            `feature_taps`.
        num_classes: C.
        class_names: names of the classes, for drawings and exports.
        priors: for each map, finest first, the (height, width) of its priors in pixels. The
            coarsest map has stride 32, each finer one half of it.
        filters: of the 1x1 convolutions at stride 32, halved with the stride; twice as many for
            the 3x3.
        head_depth: pairs of them on each map.
        batch_norm_momentum: of the head's moving averages.

    Returns:
        `YOLOv3`.
    """
    check_sides(backbone)
    count, maps = 0, {}

    def numbered_convolution(x, filters, kernel_size):
        nonlocal count
        count += 1
        return convolution(
            x, filters, kernel_size, f"head_conv{count - 1}", momentum=batch_norm_momentum
        )

    stride, x = 32, backbone.feature_taps["stride32"]
    for sizes in reversed(priors):
        if stride < 32:
            # "[We] upsample it by 2x […] and merge it with our upsampled features".
            x = numbered_convolution(x, filters, 1)
            x = layers.UpSampling2D(2, name=f"up_stride{stride}")(x)
            tap = backbone.feature_taps[f"stride{stride}"]
            x = layers.Concatenate(name=f"merge_stride{stride}")([x, tap])
        for _ in range(head_depth - 1):
            x = numbered_convolution(x, filters, 1)
            x = numbered_convolution(x, 2 * filters, 3)
        x = numbered_convolution(x, filters, 1)
        y = numbered_convolution(x, 2 * filters, 3)
        maps[f"stride{stride}"] = map_for_priors(
            y, len(sizes), num_classes, stride, f"head_conv{count}"
        )
        count += 1
        stride //= 2
        filters //= 2
    network = keras.Model(backbone.input, maps, name="network")
    return _with_rare_objects(YOLOv3(network, num_classes, priors, class_names, name="yolo_v3"))


def yolo_v3_tiny(
    num_classes,
    image_shape=(416, 416, 3),
    backbone_weights=None,
    class_names=None,
    priors=TINY_PRIORS,
    batch_norm_momentum=MOMENTUM,
):
    """YOLOv3-tiny: 8,852,366 trainable parameters with 80 classes.

    The authors' yolov3-tiny.cfg. Arguments and return value as in `yolo_v3_darknet53`, and

    Args:
        backbone_weights: as the `weights` of `kerasvision.backbones.darknet.darknet_tiny`.
        priors: of the maps of stride 16 and 32; those of COCO.
    """
    backbone = darknet_tiny(
        image_shape,
        include_top=False,
        weights=backbone_weights,
        batch_norm_momentum=batch_norm_momentum,
    )
    check_sides(backbone)

    def numbered_convolution(x, filters, kernel_size, number):
        return convolution(
            x, filters, kernel_size, f"head_conv{number}", momentum=batch_norm_momentum
        )

    x = numbered_convolution(backbone.output, 256, 1, 0)
    coarse = numbered_convolution(x, 512, 3, 1)
    coarse = map_for_priors(coarse, len(priors[1]), num_classes, 32, "head_conv2")
    x = layers.UpSampling2D(2, name="up_stride16")(numbered_convolution(x, 128, 1, 3))
    x = layers.Concatenate(name="merge_stride16")([x, backbone.feature_taps["stride16"]])
    fine = numbered_convolution(x, 256, 3, 4)
    fine = map_for_priors(fine, len(priors[0]), num_classes, 16, "head_conv5")
    network = keras.Model(backbone.input, {"stride16": fine, "stride32": coarse}, name="network")
    model = YOLOv3(network, num_classes, priors, class_names, name="yolo_v3_tiny")
    return _with_rare_objects(model)


def _with_rare_objects(model):
    """The model, which now believes in an object with probability 0.01 at each prediction.

    As RetinaNet (Lin et al. 2017, section 4.1): thousands of predictions without an object would
    make up the first losses otherwise.
    """
    for layer in model.network.layers:
        if isinstance(layer, layers.Conv2D) and layer.use_bias:
            if layer.name.startswith("head_conv"):
                bias = np.zeros((layer.filters // (5 + model.num_classes), 5 + model.num_classes))
                bias[:, 4] = -math.log((1 - 0.01) / 0.01)
                layer.bias.assign(bias.reshape(-1))
    return model


# --- Loss, decoding ----------------------------------------------------------------------


@keras.saving.register_keras_serializable("kerasvision")
class YOLOv3(YOLOWithPriors):
    """A network of maps for priors with YOLOv3's loss and decoding.

    `yolo_v3` and its sisters build it. Batches, detections and raw outputs are those of
    `YOLOWithPriors`. Objectness and classes are logistic, each for itself.

    Args:
        network: functional `keras.Model` from images to the maps.
        num_classes: C.
        priors: for each map, finest first, the (height, width) of its priors in pixels.
        class_names: C names; None: "0", "1", ….
        ignore_threshold: a prediction that no object has for its own isn't punished for its
            objectness if it overlaps one by more than this IoU (section 2.1).
        iou_threshold, score_threshold, max_detections, pre_nms_candidates: of decoding; see
            `kerasvision.layers.NonMaxSuppression`. The authors' code has 0.45 and, to measure
            AP, 0.005.
    """

    def __init__(
        self,
        network,
        num_classes,
        priors,
        class_names=None,
        ignore_threshold=0.5,
        iou_threshold=0.45,
        score_threshold=0.01,
        max_detections=100,
        pre_nms_candidates=1000,
        **kwargs,
    ):
        super().__init__(
            network,
            num_classes,
            priors,
            class_names,
            iou_threshold,
            score_threshold,
            max_detections,
            pre_nms_candidates,
            **kwargs,
        )
        self.ignore_threshold = ignore_threshold

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Of centre, size, object, no object and classes (sections 2.1 and 2.2), of each image.

        In the authors' code the gradient of each of t_x and t_y, of the objectness and of the
        classes is the logistic of the output minus the truth: that of the cross-entropy, which for
        a centre, a truth between 0 and 1, stays above 0 at its best. Of t_h and t_w it is the
        difference to the truth: that of half its square. Both weigh more for small boxes,
        2 - height * width.
        """
        ground_truth = x["bounding_boxes"] if y is None else y
        boxes = ops.cast(ground_truth["boxes"], "float32")
        labels = ops.cast(ground_truth["labels"], "int32")
        predicted = self.predictions(y_pred)

        matched = self.match(boxes, labels, y_pred)
        responsible = ops.cast(matched >= 0, "float32")
        row = ops.maximum(matched, 0)
        boxes_here = ops.take_along_axis(boxes, ops.expand_dims(row, -1), axis=1)
        classes = ops.one_hot(
            ops.take_along_axis(labels, row, axis=1), self.num_classes, dtype="float32"
        )

        offsets = box_ops.encode_yolo(boxes_here, predicted.references, predicted.cell_size)
        centers = cross_entropy(ops.sigmoid(offsets[..., :2]), predicted.offsets[..., :2])
        sizes = 0.5 * ops.square(predicted.offsets[..., 2:] - offsets[..., 2:])
        weight = responsible * (2.0 - box_ops.area(boxes_here))
        center = ops.sum(weight * ops.sum(centers, axis=-1))
        size = ops.sum(weight * ops.sum(sizes, axis=-1))

        overlap = self.best_overlap(predicted.boxes, boxes, labels)
        empty = (1.0 - responsible) * ops.cast(overlap <= self.ignore_threshold, "float32")
        is_object = ops.sum(responsible * cross_entropy(1.0, predicted.objectness))
        is_none = ops.sum(empty * cross_entropy(0.0, predicted.objectness))

        of_class = ops.sum(cross_entropy(classes, predicted.logits), axis=-1)
        of_class = ops.sum(responsible * of_class)
        return self.total_loss(ops.shape(labels)[0], center, size, is_object, is_none, of_class)

    def decode(self, raw):
        """Boxes (B, A, 4), cut off at the image's border, and scores (B, A, C) of raw outputs."""
        predicted = self.predictions(raw)
        scores = ops.sigmoid(predicted.objectness)[..., None] * ops.sigmoid(predicted.logits)
        return box_ops.clip(predicted.boxes), scores

    def get_config(self):
        return {**super().get_config(), "ignore_threshold": self.ignore_threshold}


def cross_entropy(targets, logits):
    """-t log p - (1 - t) log(1 - p) for p the logistic of the logits, elementwise."""
    return ops.softplus(logits) - targets * logits
