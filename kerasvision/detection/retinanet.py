"""RetinaNet (Lin et al. 2017, "Focal Loss for Dense Object Detection").

A feature pyramid carries nine anchors at each of its cells. One small network, the same on all
levels, tells their classes, another one where their objects are. Nearly all anchors are
background, and easy: the focal loss takes their weight away, so that all of them can train.
"""

import math

import keras
import numpy as np
from keras import layers, ops

from kerasvision.backbones.feature_pyramid import feature_pyramid
from kerasvision.backbones.mobilenet_v2 import mobilenet_v2
from kerasvision.backbones.resnet import headless_resnet50
from kerasvision.backbones.weights import freeze_batch_norms
from kerasvision.detection.single_stage import SingleStageDetector
from kerasvision.ops import anchors, matching
from kerasvision.ops import boxes as box_ops
from kerasvision.training.strategy import replica_sum

STRIDES = (8, 16, 32, 64, 128)  # of P3 to P7

# --- The networks ------------------------------------------------------------------------


def retinanet_resnet50(
    num_classes,
    image_shape=(512, 512, 3),
    backbone_weights=None,
    class_names=None,
    freeze_batch_norm=False,
):
    """RetinaNet on ResNet-50: 34,014,999 parameters with 91 classes, batch norm left out.

    Lin et al. 2017, section 4, with P6 computed from P5 as torchvision has it. The count is of the
    trainable parameters if the batch normalisation is frozen, as in torchvision, and the backbone
    has no biases, that is, with a state dict as `backbone_weights` or none. Trained, it adds
    53,120.

    Args:
        num_classes: without the background.
        image_shape: (height, width, 3); any size from 64 pixels.
        backbone_weights: as the `weights` of `kerasvision.backbones.resnet.resnet50`.
        class_names: names of the classes, for drawings and exports.
        freeze_batch_norm: keeps the backbone's statistics, factors and offsets as loaded; best
            for batches of few pictures, and faster.

    Returns:
        `RetinaNet`.
    """
    backbone = headless_resnet50(image_shape, backbone_weights)
    return retinanet(backbone, num_classes, class_names, freeze_batch_norm=freeze_batch_norm)


def retinanet_mobilenet_v2(
    num_classes,
    image_shape=(320, 320, 3),
    backbone_weights=None,
    class_names=None,
    freeze_batch_norm=False,
    filters=128,
    head_depth=2,
    anchor_scale=4.0,
):
    """RetinaNet on MobileNetV2, for phones and CPUs.

    Arguments and return value as in `retinanet_resnet50`, and

    Args:
        backbone_weights: as the `weights` of `kerasvision.backbones.mobilenet_v2`.
        filters, head_depth, anchor_scale: as in `retinanet`.
    """
    backbone = mobilenet_v2(image_shape, include_top=False, weights=backbone_weights)
    return retinanet(
        backbone,
        num_classes,
        class_names,
        filters=filters,
        head_depth=head_depth,
        anchor_scale=anchor_scale,
        freeze_batch_norm=freeze_batch_norm,
    )


def retinanet(
    backbone,
    num_classes,
    class_names=None,
    filters=256,
    head_depth=4,
    anchor_scale=4.0,
    freeze_batch_norm=False,
    pyramid_from="P",
):
    """RetinaNet on any backbone.

    Args:
        backbone: functional `keras.Model` from images of known size, with `feature_taps` of
            strides 8, 16 and 32.
        num_classes: C, without the background.
        class_names: names of the classes, for drawings and exports.
        filters: of the pyramid and the two subnets.
        head_depth: hidden convolutions of a subnet.
        anchor_scale: side of a level's smallest square anchor, divided by the level's stride.
        freeze_batch_norm: keeps the backbone's batch normalisation as it is.
        pyramid_from: what P6 is computed from: "P", P5; or "C", C5, as in the paper.

    Returns:
        `RetinaNet`.
    """
    if freeze_batch_norm:
        freeze_batch_norms(backbone)
    taps = {f"stride{s}": backbone.feature_taps[f"stride{s}"] for s in STRIDES[:3]}
    pyramid = feature_pyramid(taps, filters, coarser=pyramid_from)
    maps = [pyramid[f"stride{s}"] for s in STRIDES]
    image_size = backbone.input_shape[1:3]
    anchor_boxes = anchors.retinanet_anchors(
        [tuple(x.shape[1:3]) for x in maps],
        STRIDES,
        image_size,
        scales=[anchor_scale * stride for stride in STRIDES],
    )
    # At the start every anchor is background with probability 0.99 (section 4.1).
    prior = keras.initializers.Constant(-math.log((1 - 0.01) / 0.01))
    logits = _subnet(maps, filters, head_depth, 9, num_classes, "logits", prior)
    offsets = _subnet(maps, filters, head_depth, 9, 4, "offsets", "zeros")
    network = keras.Model(backbone.input, {"logits": logits, "offsets": offsets}, name="network")
    return RetinaNet(network, num_classes, anchor_boxes, class_names=class_names, name="retinanet")


def _subnet(maps, filters, depth, anchors_per_cell, outputs, name, bias_initializer):
    """One fully convolutional network, applied to each level; (B, A, outputs) of all levels."""
    normal = keras.initializers.RandomNormal(stddev=0.01)
    hidden = [
        layers.Conv2D(
            filters,
            3,
            padding="same",
            activation="relu",
            kernel_initializer=normal,
            name=f"{name}_conv{i}",
        )
        for i in range(depth)
    ]
    last = layers.Conv2D(
        anchors_per_cell * outputs,
        3,
        padding="same",
        kernel_initializer=normal,
        bias_initializer=bias_initializer,
        name=f"{name}_conv{depth}",
    )
    rows = []
    for x in maps:
        for layer in hidden:
            x = layer(x)
        # Losses and box arithmetic want full precision whatever the convolutions run in.
        rows.append(layers.Reshape((-1, outputs), dtype="float32")(last(x)))
    return layers.Concatenate(axis=1, name=name, dtype="float32")(rows)


# --- Targets, loss, decoding -------------------------------------------------------------


def focal_loss(targets, logits, alpha=0.25, gamma=2.0):
    """-alpha_t (1 - p_t)^gamma log p_t of each logit (equation 5).

    p_t is the probability given to what is right, alpha_t is alpha for objects and 1 - alpha for
    background. Written in logits, it neither overflows nor loses small probabilities.

    Args:
        targets: (…) 0 or 1.
        logits: (…) float.
        alpha: weight of the objects.
        gamma: focusing parameter; 0: weighted cross-entropy.

    Returns:
        (…) float32.
    """
    targets, logits = ops.cast(targets, "float32"), ops.cast(logits, "float32")
    # The logit of what is right, and that of what is wrong.
    signed = logits * (2.0 * targets - 1.0)
    weight = targets * alpha + (1.0 - targets) * (1.0 - alpha)
    return weight * ops.power(ops.sigmoid(-signed), gamma) * ops.softplus(-signed)


@keras.saving.register_keras_serializable("kerasvision")
class RetinaNet(SingleStageDetector):
    """A network of offsets and logits with RetinaNet's targets, losses and decoding.

    `retinanet` and its sisters build it. Batches and detections are those of
    `SingleStageDetector`. Calling the model gives the raw {"offsets" (B, A, 4), "logits"
    (B, A, C)}; there is no background class, each class has a logistic output of its own.

    Args:
        network: functional `keras.Model` from images to offsets and logits.
        num_classes: C.
        anchors: (A, 4) center form (cy, cx, height, width).
        class_names: C names; None: "0", "1", ….
        positive_threshold, background_threshold: IoU from which on an anchor answers for an
            object, and below which it is background; between them it is ignored (section 4,
            "Anchors").
        force_match: whether the anchors that overlap an object most answer for it in any case,
            which helps objects smaller than any anchor. The paper doesn't, its authors' code does.
        alpha, gamma: of the focal loss.
        beta: distance up to which the regression loss is quadratic (smooth L1).
        iou_threshold, score_threshold, max_detections, pre_nms_candidates: of decoding. The paper
            (section 4.1, "Inference") has 0.5 and 0.05, and takes 1,000 candidates of each level,
            where this takes the best of all levels together.
    """

    def __init__(
        self,
        network,
        num_classes,
        anchors,
        class_names=None,
        positive_threshold=0.5,
        background_threshold=0.4,
        force_match=True,
        alpha=0.25,
        gamma=2.0,
        beta=1 / 9,
        iou_threshold=0.5,
        score_threshold=0.05,
        max_detections=100,
        pre_nms_candidates=1000,
        **kwargs,
    ):
        super().__init__(
            network,
            num_classes,
            class_names,
            iou_threshold,
            score_threshold,
            max_detections,
            pre_nms_candidates,
            **kwargs,
        )
        self.anchors = np.asarray(anchors, "float32")
        offsets_shape = tuple(network.output["offsets"].shape[1:])
        if offsets_shape != self.anchors.shape:
            raise ValueError(
                "the network's offsets and the anchors must have the same shape (A, 4); "
                f"received: {offsets_shape} and {self.anchors.shape}"
            )
        self.positive_threshold = positive_threshold
        self.background_threshold = background_threshold
        self.force_match = force_match
        self.alpha = alpha
        self.gamma = gamma
        self.beta = beta
        self.classification_loss = keras.metrics.Mean(name="classification_loss")
        self.regression_loss = keras.metrics.Mean(name="regression_loss")

    def encode_targets(self, boxes, labels):
        """What each anchor should predict.

        Args:
            boxes: (B, N, 4).
            labels: (B, N), -1 = padding. Degenerate boxes match nothing.

        Returns:
            offsets (B, A, 4); and classes (B, A) int32, `matching.BACKGROUND` or
            `matching.IGNORED` where there is no object.
        """
        boxes, labels = ops.cast(boxes, "float32"), ops.cast(labels, "int32")
        corners = box_ops.to_corner_form(ops.convert_to_tensor(self.anchors))
        iou = box_ops.iou(boxes, ops.expand_dims(corners, 0))
        iou = ops.where(ops.expand_dims(labels, -1) >= 0, iou, 0.0)
        matched = matching.arg_max_matching(
            iou, self.positive_threshold, (0.0, self.background_threshold), self.force_match
        )
        row = ops.maximum(matched, 0)
        classes = ops.where(matched >= 0, ops.take_along_axis(labels, row, axis=1), matched)
        matched_boxes = ops.take_along_axis(boxes, ops.expand_dims(row, -1), axis=1)
        return box_ops.encode(matched_boxes, self.anchors, (1.0, 1.0)), classes

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Focal loss and smooth L1, both divided by the number of anchors that have an object."""
        ground_truth = x["bounding_boxes"] if y is None else y
        offsets, classes = self.encode_targets(ground_truth["boxes"], ground_truth["labels"])
        positive = classes >= 0
        matched = ops.maximum(replica_sum(ops.sum(ops.cast(positive, "float32"))), 1.0)

        one_hot = ops.one_hot(classes, self.num_classes, dtype="float32")  # none of -1 and -2
        losses = ops.sum(focal_loss(one_hot, y_pred["logits"], self.alpha, self.gamma), axis=-1)
        counted = ops.not_equal(classes, matching.IGNORED)
        classification = ops.sum(ops.where(counted, losses, 0.0)) / matched

        distances = ops.sum(box_ops.smooth_l1(y_pred["offsets"] - offsets, self.beta), axis=-1)
        regression = ops.sum(ops.where(positive, distances, 0.0)) / matched

        self.classification_loss.update_state(replica_sum(classification))
        self.regression_loss.update_state(replica_sum(regression))
        loss = classification + regression
        for penalty in self.losses:
            loss = loss + penalty / replica_sum(1.0)
        return loss

    def decode(self, raw):
        """Boxes (B, A, 4), cut off at the image's border, and scores (B, A, C) of raw outputs."""
        scores = ops.sigmoid(ops.cast(raw["logits"], "float32"))
        offsets = ops.cast(raw["offsets"], "float32")
        return box_ops.clip(box_ops.decode(offsets, self.anchors, (1.0, 1.0))), scores

    def get_config(self):
        return {
            **super().get_config(),
            "anchors": self.anchors.tolist(),
            "positive_threshold": self.positive_threshold,
            "background_threshold": self.background_threshold,
            "force_match": self.force_match,
            "alpha": self.alpha,
            "gamma": self.gamma,
            "beta": self.beta,
        }
