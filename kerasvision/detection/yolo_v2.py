"""YOLOv2 and YOLO9000 (Redmon & Farhadi 2017, "YOLO9000: Better, Faster, Stronger").

One map, which a passthrough from the finer one before it enriches, carries five priors at each
cell. YOLO9000 has a tree of classes, and learns many of them from images that have no boxes.
"""

import keras
from keras import layers, ops

from kerasvision.backbones.darknet import MOMENTUM, convolution, darknet19
from kerasvision.backbones.mobilenet_v2 import mobilenet_v2
from kerasvision.detection.word_tree import WordTree
from kerasvision.detection.yolo import YOLOWithPriors, check_sides, map_for_priors
from kerasvision.layers import SpaceToDepth
from kerasvision.ops import boxes as box_ops
from kerasvision.ops.anchors import YOLOV2_PRIORS

# (height, width) in pixels, of the authors' yolo9000.cfg.
YOLO9000_PRIORS = tuple(
    (32 * height, 32 * width)
    for height, width in ((1.14074, 0.77871), (4.31277, 3.00525), (9.61974, 9.22725))
)
# Section 4, "Joint classification and detection": what the best box of an image without boxes
# is assumed to overlap its object by.
ASSUMED_IOU = 0.3

# --- The networks ------------------------------------------------------------------------


def yolo_v2_darknet19(
    num_classes,
    image_shape=(416, 416, 3),
    backbone_weights=None,
    class_names=None,
    priors=YOLOV2_PRIORS,
    parents=None,
    passthrough="space_to_depth",
    batch_norm_momentum=MOMENTUM,
):
    """YOLOv2: 50,655,389 trainable parameters with 20 classes.

    Sections 2 and 3, and the authors' yolo-voc.cfg. `darknet_weights.load_darknet_weights(
    model.network, …)` loads the authors' file, for which `passthrough` must be "darknet".

    Args:
        num_classes: C.
        image_shape: (height, width, 3), multiples of 32.
        backbone_weights: as the `weights` of `kerasvision.backbones.darknet.darknet19`.
        class_names: names of the classes, for drawings and exports.
        priors: (height, width) of each prior in pixels; those of VOC.
        parents: as in `YOLOv2`.
        passthrough: as in `yolo_v2`.
        batch_norm_momentum: of the moving averages; short trainings want less, such as 0.97.

    Returns:
        `YOLOv2`.
    """
    backbone = darknet19(
        image_shape,
        include_top=False,
        weights=backbone_weights,
        batch_norm_momentum=batch_norm_momentum,
    )
    return yolo_v2(
        backbone,
        num_classes,
        class_names,
        priors,
        parents,
        passthrough=passthrough,
        batch_norm_momentum=batch_norm_momentum,
    )


def yolo_v2_mobilenet_v2(
    num_classes,
    image_shape=(320, 320, 3),
    backbone_weights=None,
    class_names=None,
    priors=YOLOV2_PRIORS,
    parents=None,
    filters=256,
    batch_norm_momentum=0.97,
):
    """YOLOv2 on MobileNetV2, for phones and CPUs.

    Arguments and return value as in `yolo_v2_darknet19`, and

    Args:
        backbone_weights: as the `weights` of `kerasvision.backbones.mobilenet_v2`.
        filters: as in `yolo_v2`.
    """
    backbone = mobilenet_v2(
        image_shape,
        include_top=False,
        weights=backbone_weights,
        batch_norm_momentum=batch_norm_momentum,
    )
    return yolo_v2(
        backbone,
        num_classes,
        class_names,
        priors,
        parents,
        filters,
        batch_norm_momentum=batch_norm_momentum,
    )


def yolo_v2(
    backbone,
    num_classes,
    class_names=None,
    priors=YOLOV2_PRIORS,
    parents=None,
    filters=1024,
    passthrough="space_to_depth",
    batch_norm_momentum=MOMENTUM,
):
    """YOLOv2 on any backbone.

    Args:
        backbone: functional `keras.Model` from images of known size, multiples of 32, with
            `feature_taps` of strides 16 and 32.
        num_classes: C.
        class_names: names of the classes, for drawings and exports.
        priors: (height, width) of each prior in pixels.
        parents: as in `YOLOv2`.
        filters: of the three 3x3 convolutions of the head ("Training for detection").
        passthrough: how the finer map's blocks of 2 x 2 pixels become channels ("Fine-Grained
            Features"): "space_to_depth", or "darknet", as `DarknetReorg`, for the authors' files.
        batch_norm_momentum: of the head's moving averages.

    Returns:
        `YOLOv2`.

    Raises:
        ValueError: another passthrough, or a backbone of other images.
    """
    if passthrough not in ("space_to_depth", "darknet"):
        raise ValueError(
            f"passthrough must be 'space_to_depth' or 'darknet'; received: {passthrough!r}"
        )

    check_sides(backbone)

    def numbered_convolution(x, filters, kernel_size, number):
        return convolution(
            x, filters, kernel_size, f"head_conv{number}", momentum=batch_norm_momentum
        )

    x = numbered_convolution(backbone.feature_taps["stride32"], filters, 3, 0)
    x = numbered_convolution(x, filters, 3, 1)
    fine = numbered_convolution(backbone.feature_taps["stride16"], 64, 1, 2)
    reorganize = SpaceToDepth if passthrough == "space_to_depth" else DarknetReorg
    fine = reorganize(name="passthrough")(fine)
    x = layers.Concatenate(name="merge")([fine, x])
    x = numbered_convolution(x, filters, 3, 3)
    return _with_output(backbone, x, "head_conv4", num_classes, class_names, priors, parents)


def yolo_9000(backbone, num_classes, class_names=None, priors=YOLO9000_PRIORS, parents=None):
    """YOLO9000: YOLOv2 with three priors, and nothing between backbone and predictions.

    Section 4, and the authors' yolo9000.cfg: on Darknet-19 with 9,418 classes it has 48,793,101
    trainable parameters.

    Args:
        backbone: as in `yolo_v2`, with maps of stride 32.
        num_classes, class_names, priors, parents: as in `yolo_v2`; of a `WordTree` t they are
            len(t.names), t.names, and t.parents.

    Returns:
        `YOLOv2`.
    """
    check_sides(backbone)
    x = backbone.feature_taps["stride32"]
    return _with_output(backbone, x, "head_conv0", num_classes, class_names, priors, parents)


def _with_output(backbone, x, name, num_classes, class_names, priors, parents):
    x = map_for_priors(x, len(priors), num_classes, 32, name)
    network = keras.Model(backbone.input, {"stride32": x}, name="network")
    return YOLOv2(network, num_classes, [priors], class_names, parents, name="yolo_v2")


@keras.saving.register_keras_serializable("kerasvision")
class DarknetReorg(keras.layers.Layer):
    """Darknet's "reorg" of stride 2, which the authors' weights were trained with.

    It is meant to be `SpaceToDepth`, and has its channels in that order, but takes the maps
    (C, H, W) for (C / 4, 2 H, 2 W): half of the cells get rows of their neighbours.

    Input (B, H, W, C), output (B, H / 2, W / 2, 4 C).

    Raises:
        ValueError: an odd height or width, or channels that aren't a multiple of 4.
    """

    def call(self, inputs):
        self.compute_output_shape(inputs.shape)
        _, height, width, channels = ops.shape(inputs)
        x = ops.transpose(inputs, (0, 3, 1, 2))
        x = ops.reshape(x, (-1, channels // 4, height, 2, width, 2))
        x = ops.transpose(x, (0, 3, 5, 1, 2, 4))
        x = ops.reshape(x, (-1, 4 * channels, height // 2, width // 2))
        return ops.transpose(x, (0, 2, 3, 1))

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        if any(side is not None and side % 2 for side in (height, width)) or channels % 4:
            raise ValueError(
                "inputs must have an even height and width and a multiple of 4 channels; "
                f"received: {tuple(input_shape)}"
            )
        return batch, height and height // 2, width and width // 2, 4 * channels


# --- Loss, decoding ----------------------------------------------------------------------


@keras.saving.register_keras_serializable("kerasvision")
class YOLOv2(YOLOWithPriors):
    """A network of one map for priors with YOLOv2's loss and decoding, and YOLO9000's.

    `yolo_v2` and its sisters build it. Batches, detections and raw outputs are those of
    `YOLOWithPriors`. Objectness is logistic, the classes share a softmax, or one for each group of
    siblings of a word tree.

    A batch may have a further entry, "has_boxes" (B,) bool. Where it is False the image has labels
    but no boxes (those in the batch are not read): it teaches only what such a thing looks like
    (section 4, "Joint classification and detection"). In a word tree a label may be any class: what
    is below it learns nothing.

    Args:
        network: functional `keras.Model` from images to {"stride32": map}.
        num_classes: C.
        priors: a list of one list, the (height, width) of the map's priors in pixels.
        class_names: C names; None: "0", "1", ….
        parents: the `parents` of a `WordTree` of the classes; None: no tree.
        tree_threshold: probability down to which a detection descends the tree.
        label_objectness: in an image without boxes a class is learnt from the prediction that
            finds it most probable of those whose objectness is at least this share of the
            image's highest. 0: of all, as in the paper; but then a class may settle on the
            background, of which no image with boxes says what it is not.
        ignore_threshold: a prediction that no object has for its own isn't punished for its
            objectness if it overlaps one by more than this IoU.
        object_scale, no_object_scale, coord_scale, class_scale: weights of the terms, as in the
            authors' yolo-voc.cfg.
        iou_threshold, score_threshold, max_detections, pre_nms_candidates: of decoding; see
            `kerasvision.layers.NonMaxSuppression`.
    """

    def __init__(
        self,
        network,
        num_classes,
        priors,
        class_names=None,
        parents=None,
        tree_threshold=0.5,
        label_objectness=0.5,
        ignore_threshold=0.6,
        object_scale=5.0,
        no_object_scale=1.0,
        coord_scale=1.0,
        class_scale=1.0,
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
        self.parents = None if parents is None else list(parents)
        self.word_tree = None if parents is None else WordTree(self.class_names, parents)
        self.tree_threshold = tree_threshold
        self.label_objectness = label_objectness
        self.ignore_threshold = ignore_threshold
        self.object_scale = object_scale
        self.no_object_scale = no_object_scale
        self.coord_scale = coord_scale
        self.class_scale = class_scale

    def log_probabilities(self, logits):
        """log Pr(class | object) of logits, both (…, C)."""
        if self.word_tree is None:
            return ops.log_softmax(logits, axis=-1)
        return self.word_tree.log_probabilities(self.word_tree.log_conditionals(logits))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Of centre, size, object, no object and classes, of each image.

        As in the authors' code, half the squared errors of the logistic of t_x and t_y, of t_w and
        t_h, and of the logistic objectness, which should be the IoU of box and object, or 0; and
        -log Pr of the class, which in a word tree is that of all classes on its path.
        """
        ground_truth = x["bounding_boxes"] if y is None else y
        boxes = ops.cast(ground_truth["boxes"], "float32")
        labels = ops.cast(ground_truth["labels"], "int32")
        images = ops.shape(labels)[0]
        has_boxes = ops.ones((images,))
        if isinstance(x, dict) and "has_boxes" in x:
            has_boxes = ops.cast(x["has_boxes"], "float32")
        predicted = self.predictions(y_pred)
        log_probabilities = self.log_probabilities(predicted.logits)
        objectness = ops.sigmoid(predicted.objectness)

        # Images with boxes.
        matched = self.match(boxes, labels, y_pred)
        responsible = ops.cast(matched >= 0, "float32") * has_boxes[:, None]
        row = ops.maximum(matched, 0)
        boxes_here = ops.take_along_axis(boxes, ops.expand_dims(row, -1), axis=1)
        classes = ops.one_hot(
            ops.take_along_axis(labels, row, axis=1), self.num_classes, dtype="float32"
        )
        offsets = box_ops.encode_yolo(boxes_here, predicted.references, predicted.cell_size)
        centers = ops.sigmoid(predicted.offsets[..., :2]) - ops.sigmoid(offsets[..., :2])
        sizes = predicted.offsets[..., 2:] - offsets[..., 2:]
        center = ops.sum(responsible[..., None] * ops.square(centers)) / 2.0
        size = ops.sum(responsible[..., None] * ops.square(sizes)) / 2.0

        iou = ops.stop_gradient(box_ops.iou(predicted.boxes, boxes_here, pairwise=False))
        is_object = ops.sum(responsible * ops.square(objectness - iou)) / 2.0
        overlap = self.best_overlap(predicted.boxes, boxes, labels)
        empty = (1.0 - responsible) * ops.cast(overlap <= self.ignore_threshold, "float32")
        is_none = ops.sum(empty * has_boxes[:, None] * ops.square(objectness)) / 2.0
        of_class = -ops.sum(responsible * ops.sum(classes * log_probabilities, axis=-1))

        # Images without: "we simply find the bounding box that predicts the highest probability
        # for that class", and believe that there is an object, if it doesn't.
        one_hot = ops.one_hot(labels, self.num_classes, dtype="float32")
        present = ops.max(one_hot, axis=1) * (1.0 - has_boxes[:, None])
        scores = log_probabilities + ops.log_sigmoid(predicted.objectness)[..., None]
        least = self.label_objectness * ops.max(objectness, axis=1, keepdims=True)
        scores = ops.where((objectness >= least)[..., None], scores, -float("inf"))
        best = ops.argmax(ops.stop_gradient(scores), axis=1)
        best_of_class = ops.take_along_axis(log_probabilities, best[:, None], axis=1)[:, 0]
        of_class -= ops.sum(present * best_of_class)
        best_objectness = ops.take_along_axis(objectness, best, axis=1)
        missing = ops.maximum(ASSUMED_IOU - best_objectness, 0.0)
        is_object += ops.sum(present * ops.square(missing)) / 2.0

        return self.total_loss(
            images,
            self.coord_scale * center,
            self.coord_scale * size,
            self.object_scale * is_object,
            self.no_object_scale * is_none,
            self.class_scale * of_class,
        )

    def decode(self, raw):
        """Boxes (B, A, 4), cut off at the image's border, and scores (B, A, C) of raw outputs.

        In a word tree a box has one class only, that at which it stops to descend.
        """
        predicted = self.predictions(raw)
        scores = ops.exp(self.log_probabilities(predicted.logits))
        if self.word_tree is not None:
            conditionals = self.word_tree.log_conditionals(predicted.logits)
            reached = self.word_tree.descend(conditionals, self.tree_threshold)
            scores = scores * ops.one_hot(reached, self.num_classes, dtype="float32")
        scores = scores * ops.sigmoid(predicted.objectness)[..., None]
        return box_ops.clip(predicted.boxes), scores

    def get_config(self):
        return {
            **super().get_config(),
            "parents": self.parents,
            "tree_threshold": self.tree_threshold,
            "label_objectness": self.label_objectness,
            "ignore_threshold": self.ignore_threshold,
            "object_scale": self.object_scale,
            "no_object_scale": self.no_object_scale,
            "coord_scale": self.coord_scale,
            "class_scale": self.class_scale,
        }
