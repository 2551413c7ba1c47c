"""Mask R-CNN (He et al. 2017): Faster R-CNN, and inside of each box the object's own pixels.

Beside the head that tells the class there is a small convolutional network, which gives a mask of
28x28 cells for each class; and another one, if wanted, which gives a map of places for each
keypoint. What makes masks fit is that features are sampled where the region really is: RoIAlign.
"""

import math

import keras
import numpy as np
from keras import layers, ops

from kerasvision.backbones.mobilenet_v2 import mobilenet_v2
from kerasvision.backbones.resnet import headless_resnet50
from kerasvision.backbones.weights import freeze_batch_norms
from kerasvision.detection.fast_rcnn import fast_rcnn_head
from kerasvision.detection.faster_rcnn import FasterRCNN, pyramid_network, pyramid_scales
from kerasvision.detection.region_detector import POSITIVE_FRACTION
from kerasvision.ops import roi
from kerasvision.training.strategy import replica_sum

# --- The networks ------------------------------------------------------------------------


def mask_rcnn_resnet50(
    num_classes,
    image_shape=(512, 512, 3),
    backbone_weights=None,
    class_names=None,
    freeze_batch_norm=False,
):
    """Mask R-CNN on ResNet-50 with a feature pyramid: 44,401,393 parameters with 90 classes.

    He et al. 2017, section 3 and figure 4 right. Arguments, return value and what is counted are
    those of `faster_rcnn_resnet50`.
    """
    backbone = headless_resnet50(image_shape, backbone_weights)
    return mask_rcnn(backbone, num_classes, class_names, freeze_batch_norm=freeze_batch_norm)


def keypoint_rcnn_resnet50(
    num_classes=1,
    num_keypoints=17,
    image_shape=(512, 512, 3),
    backbone_weights=None,
    class_names=None,
    freeze_batch_norm=False,
):
    """Mask R-CNN with keypoints instead of masks: 59,137,258 parameters for COCO's persons.

    He et al. 2017, section 5. Arguments, return value and what is counted are those of
    `faster_rcnn_resnet50`, and

    Args:
        num_keypoints: of an object.
    """
    return mask_rcnn(
        headless_resnet50(image_shape, backbone_weights),
        num_classes,
        class_names,
        masks=False,
        num_keypoints=num_keypoints,
        freeze_batch_norm=freeze_batch_norm,
    )


def mask_rcnn_mobilenet_v2(
    num_classes,
    image_shape=(320, 320, 3),
    backbone_weights=None,
    class_names=None,
    freeze_batch_norm=False,
    roi_pooling="align",
    strides=(4, 8, 16, 32),
    anchor_scale=8.0,
):
    """Mask R-CNN on MobileNetV2 with a thin feature pyramid, for small machines.

    Arguments and return value as in `mask_rcnn_resnet50`, and

    Args:
        backbone_weights: as the `weights` of `kerasvision.backbones.mobilenet_v2`.
        roi_pooling: as in `MaskRCNN`.
        strides, anchor_scale: as in `mask_rcnn`. One coarse map, without finer ones, shows best
            what RoIAlign gains (section 4.2, table 2 c and d).
    """
    backbone = mobilenet_v2(image_shape, include_top=False, weights=backbone_weights)
    return mask_rcnn(
        backbone,
        num_classes,
        class_names,
        strides=strides,
        anchor_scale=anchor_scale,
        filters=128,
        head_units=512,
        head_filters=128,
        roi_pooling=roi_pooling,
        num_samples=64,
        num_proposals=(500, 200),
        freeze_batch_norm=freeze_batch_norm,
    )


def keypoint_rcnn_mobilenet_v2(
    num_classes,
    num_keypoints,
    image_shape=(320, 320, 3),
    backbone_weights=None,
    class_names=None,
    freeze_batch_norm=False,
):
    """Mask R-CNN with keypoints instead of masks on MobileNetV2, for small machines.

    Arguments and return value as in `keypoint_rcnn_resnet50`, and

    Args:
        backbone_weights: as the `weights` of `kerasvision.backbones.mobilenet_v2`.
    """
    backbone = mobilenet_v2(image_shape, include_top=False, weights=backbone_weights)
    return mask_rcnn(
        backbone,
        num_classes,
        class_names,
        masks=False,
        num_keypoints=num_keypoints,
        filters=128,
        head_units=512,
        head_filters=64,
        num_samples=64,
        num_proposals=(500, 200),
        freeze_batch_norm=freeze_batch_norm,
    )


def mask_rcnn(
    backbone,
    num_classes,
    class_names=None,
    masks=True,
    num_keypoints=0,
    strides=(4, 8, 16, 32),
    filters=256,
    head_units=1024,
    head_filters=256,
    anchor_scale=8.0,
    canonical_size=224,
    roi_pooling="align",
    num_samples=512,
    num_proposals=(1000, 1000),
    freeze_batch_norm=False,
):
    """Mask R-CNN with a feature pyramid on any backbone.

    Args:
        masks: whether there is a mask head.
        num_keypoints: P of an object; 0: no keypoint head.
        head_filters: of the mask head, and half of the keypoint head's.
        All others as in `kerasvision.detection.faster_rcnn`.

    Returns:
        `MaskRCNN`.
    """
    if freeze_batch_norm:
        freeze_batch_norms(backbone)
    roi_shape = (14, 14, filters)
    return MaskRCNN(
        pyramid_network(backbone, strides, filters),
        fast_rcnn_head((7, 7, filters), (head_units, head_units), num_classes),
        num_classes,
        anchor_scales=pyramid_scales(strides, anchor_scale),
        mask_network=mask_head(roi_shape, num_classes, head_filters) if masks else None,
        keypoint_network=(
            keypoint_head(roi_shape, num_keypoints, 2 * head_filters) if num_keypoints else None
        ),
        class_names=class_names,
        roi_pooling=roi_pooling,
        canonical_size=canonical_size,
        num_samples=num_samples,
        num_proposals=num_proposals,
        name="mask_rcnn",
    )


def mask_head(roi_shape, num_classes, filters=256):
    """A mask of twice the region's cells for each class (figure 4 right).

    Four 3x3 convolutions, a deconvolution that doubles the sides, and a 1x1 convolution. With 256
    channels and 90 classes 2,646,107 parameters. The mask of the background, the first, isn't
    used, as in `fast_rcnn_head`.

    Args:
        roi_shape: (h, w, D) of a region's features.
        num_classes: C.
        filters: of the convolutions.

    Returns:
        functional `keras.Model` from (B, h, w, D) to logits (B, 2 h, 2 w, C + 1), float32.
    """
    features = keras.Input(roi_shape, name="features")
    x = features
    for i in range(1, 5):
        x = _convolution(filters, f"mask_conv{i}")(x)
    x = layers.Conv2DTranspose(
        filters, 2, 2, activation="relu", kernel_initializer="he_normal", name="mask_deconv"
    )(x)
    logits = layers.Conv2D(
        num_classes + 1, 1, kernel_initializer="he_normal", dtype="float32", name="mask_logits"
    )(x)
    return keras.Model(features, logits, name="mask_network")


def keypoint_head(roi_shape, num_keypoints, filters=512):
    """A map of four times the region's cells for each keypoint (section 5).

    Eight 3x3 convolutions, a deconvolution that doubles the sides, and bilinear upscaling that
    doubles them again. With 256 channels, 512 filters and 17 keypoints 17,838,097 parameters.

    Args:
        roi_shape: (h, w, D) of a region's features.
        num_keypoints: P.
        filters: of the convolutions.

    Returns:
        functional `keras.Model` from (B, h, w, D) to logits (B, 4 h, 4 w, P), float32.
    """
    features = keras.Input(roi_shape, name="features")
    x = features
    for i in range(1, 9):
        x = _convolution(filters, f"keypoint_conv{i}")(x)
    x = layers.Conv2DTranspose(
        num_keypoints,
        4,
        2,
        padding="same",
        kernel_initializer="he_normal",
        dtype="float32",
        name="keypoint_deconv",
    )(x)
    x = layers.UpSampling2D(2, interpolation="bilinear", dtype="float32", name="keypoint_logits")(x)
    return keras.Model(features, x, name="keypoint_network")


def _convolution(filters, name):
    return layers.Conv2D(
        filters,
        3,
        padding="same",
        activation="relu",
        kernel_initializer="he_normal",
        name=name,
    )


# --- Targets, losses, decoding -----------------------------------------------------------


@keras.saving.register_keras_serializable("kerasvision")
class MaskRCNN(FasterRCNN):
    """Faster R-CNN with a mask head, a keypoint head, or both.

    `mask_rcnn` and its sisters build it. Batches have, beside what `Detector` says,

        "segmentation_masks" (B, N, M, M), for the mask head: of each object the part of its box
        that it covers, on a grid of M x M cells over the box, whatever its shape: 0 or 1, or the
        share of each cell. M = 56 is twice as fine as the targets, and takes 300 times less
        memory than masks of 800 x 1,216 pixels;

        "keypoints" (B, N, P, 3), for the keypoint head: (y, x) divided by the image's height and
        width, and COCO's visibility: 0 not labelled, 1 hidden, 2 visible.

    Detections have "masks" (B, K, 28, 28), probabilities on a grid over the box, see
    `kerasvision.ops.masks.paste_masks`; and "keypoints" (B, K, P, 3), (y, x, probability). Both
    are 0 for padding.

    Args:
        mask_network: functional `keras.Model` from a region's features to logits, as from
            `mask_head`; or None.
        keypoint_network: alike, as from `keypoint_head`; or None.
        All others as of `FasterRCNN`.

    Raises:
        ValueError: neither network is given; and as `FasterRCNN`.
    """

    def __init__(
        self,
        network,
        head,
        num_classes,
        anchor_scales,
        mask_network=None,
        keypoint_network=None,
        **kwargs,
    ):
        super().__init__(network, head, num_classes, anchor_scales, **kwargs)
        if mask_network is None and keypoint_network is None:
            raise ValueError("mask_network or keypoint_network must be given; received: None")
        self.mask_network = mask_network
        self.keypoint_network = keypoint_network
        for name, part in (("mask_loss", mask_network), ("keypoint_loss", keypoint_network)):
            if part is not None:
                self.loss_trackers[name] = keras.metrics.Mean(name=name)

    def training_outputs(self, raw, regions, training):
        # Only positive regions train these heads, and they stand first.
        outputs = self.region_outputs(raw, regions, training)
        positive = regions[:, : max(int(regions.shape[1] * POSITIVE_FRACTION), 1)]
        if self.mask_network is not None:
            masks = self.apply_head(self.mask_network, raw, positive, training)
            outputs["mask_logits"] = masks
        if self.keypoint_network is not None:
            keypoints = self.apply_head(self.keypoint_network, raw, positive, training)
            outputs["keypoint_logits"] = keypoints
        return outputs

    def separate_losses(self, batch, outputs, training):
        """Dict of the losses of `FasterRCNN`, and of "mask_loss" and "keypoint_loss".

        Raises:
            ValueError: a batch without masks or keypoints.
        """
        losses = super().separate_losses(batch, outputs, training)
        boxes = ops.cast(batch["bounding_boxes"]["boxes"], "float32")
        labels = ops.cast(batch["bounding_boxes"]["labels"], "int32")
        logits = outputs.get("mask_logits", outputs.get("keypoint_logits"))
        matches = outputs["matches"][:, : logits.shape[1]]
        regions = outputs["regions"][:, : logits.shape[1]]
        row = ops.expand_dims(ops.maximum(matches, 0), -1)
        positive = matches >= 0
        boxes = ops.take_along_axis(boxes, row, axis=1)
        if self.mask_network is not None:
            masks = _of_objects(batch, "segmentation_masks", row)
            classes = ops.take_along_axis(labels, row[..., 0], axis=1) + 1
            losses["mask_loss"] = mask_loss(
                of_class(outputs["mask_logits"], classes),
                mask_targets(masks, boxes, regions, outputs["mask_logits"].shape[2:4]),
                positive,
            )
        if self.keypoint_network is not None:
            keypoints = _of_objects(batch, "keypoints", row)
            size = outputs["keypoint_logits"].shape[2:4]
            places, visible = keypoint_targets(keypoints, regions, size)
            visible = ops.logical_and(visible, ops.expand_dims(positive, -1))
            losses["keypoint_loss"] = keypoint_loss(outputs["keypoint_logits"], places, visible)
        return losses

    def detect(self, raw, proposals, valid):
        # As in section 3.1, "Inference": masks are computed for the detected boxes only.
        detections = super().detect(raw, proposals, valid)
        boxes, labels = detections["boxes"], detections["labels"]
        real = ops.expand_dims(ops.expand_dims(labels >= 0, -1), -1)
        if self.mask_network is not None:
            logits = self.apply_head(self.mask_network, raw, boxes, training=False)
            masks = ops.sigmoid(of_class(logits, labels + 1))
            detections["masks"] = ops.where(real, masks, 0.0)
        if self.keypoint_network is not None:
            logits = self.apply_head(self.keypoint_network, raw, boxes, training=False)
            detections["keypoints"] = ops.where(real, decode_keypoints(logits, boxes), 0.0)
        return detections

    def get_config(self):
        return {
            **super().get_config(),
            "mask_network": keras.saving.serialize_keras_object(self.mask_network),
            "keypoint_network": keras.saving.serialize_keras_object(self.keypoint_network),
        }


def _of_objects(batch, name, row):
    """The batch's values (B, N, …) of the objects at rows (B, R, 1): (B, R, …) float32."""
    if name not in batch:
        raise ValueError(f"batches must have {name!r}; received: {', '.join(batch)}")
    shape = batch[name].shape[1:]
    values = ops.reshape(ops.cast(batch[name], "float32"), (-1, shape[0], math.prod(shape[1:])))
    return ops.reshape(ops.take_along_axis(values, row, axis=1), (-1, row.shape[1], *shape[1:]))


def of_class(logits, classes):
    """Of logits (B, R, h, w, C + 1) those of classes (B, R): (B, R, h, w)."""
    count, height, width, channels = logits.shape[1:]
    logits = ops.reshape(logits, (-1, count, height * width, channels))
    index = ops.repeat(classes[:, :, None, None], height * width, axis=2)
    return ops.reshape(ops.take_along_axis(logits, index, axis=3), (-1, count, height, width))


def mask_targets(masks, boxes, regions, size):
    """Objects' masks, cut out where their regions are (section 3.1, "Training").

    A cell of a target is 1 if the object covers at least half of it, by RoIAlign's samples.
    Outside its box an object covers nothing.

    Args:
        masks: (B, R, M, M) float: of each region's object, on a grid over its box.
        boxes: (B, R, 4) of the objects.
        regions: (B, R, 4).
        size: (h, w) of the targets.

    Returns:
        (B, R, h, w) float32, 0 or 1.
    """
    count, rows, columns = masks.shape[1:]
    # A ring of empty cells is what a sample outside the box falls on.
    masks = ops.pad(masks, [(0, 0), (0, 0), (1, 1), (1, 1)])
    masks = ops.reshape(masks, (-1, rows + 2, columns + 2, 1))
    corner = ops.concatenate([boxes[..., :2], boxes[..., :2]], axis=-1)
    sides = ops.maximum(boxes[..., 2:] - boxes[..., :2], 1e-6)
    sides = ops.concatenate([sides, sides], axis=-1)
    cells = np.float32([rows, columns, rows, columns])
    windows = ((regions - corner) / sides * cells + 1.0) / (cells + 2.0)
    covered = roi.roi_align(masks, ops.reshape(windows, (-1, 1, 4)), size)
    covered = ops.reshape(covered, (-1, count, *size))
    return ops.stop_gradient(ops.cast(covered >= 0.5, "float32"))


def mask_loss(logits, targets, positive):
    """Average binary cross-entropy of the positive regions' masks, each of its own class.

    Classes don't compete: the other masks of a region have no loss (section 3, "Mask
    Representation").

    Args:
        logits, targets: (B, R, h, w).
        positive: (B, R) bool.
    """
    cross_entropy = ops.mean(ops.softplus(logits) - logits * targets, axis=(2, 3))
    number = ops.maximum(replica_sum(ops.sum(ops.cast(positive, "float32"))), 1.0)
    return ops.sum(ops.where(positive, cross_entropy, 0.0)) / number


def keypoint_targets(keypoints, regions, size):
    """The one cell of each keypoint's map, and which keypoints count.

    Args:
        keypoints: (B, R, P, 3) of each region's object, (y, x, visibility).
        regions: (B, R, 4).
        size: (h, w) of the maps.

    Returns:
        cells (B, R, P) int32, numbered row by row; and (B, R, P) bool: labelled, and in the
        region.
    """
    ymin, xmin, ymax, xmax = ops.unstack(ops.expand_dims(regions, 2), 4, axis=-1)
    y = (keypoints[..., 0] - ymin) / (ymax - ymin)
    x = (keypoints[..., 1] - xmin) / (xmax - xmin)
    inside = (y >= 0.0) & (y <= 1.0) & (x >= 0.0) & (x <= 1.0)
    # A keypoint on the far border belongs to the last cell.
    row, column = (
        ops.cast(ops.clip(ops.floor(share * cells), 0.0, cells - 1.0), "int32")
        for share, cells in ((y, size[0]), (x, size[1]))
    )
    return row * size[1] + column, inside & (keypoints[..., 2] > 0.0)


def keypoint_loss(logits, places, visible):
    """Average cross-entropy of the softmax over all cells of a keypoint's map (section 5).

    Args:
        logits: (B, R, h, w, P).
        places: (B, R, P) int32, as from `keypoint_targets`.
        visible: (B, R, P) bool: which keypoints count.
    """
    log_probabilities = ops.log_softmax(_by_keypoint(logits), axis=-1)
    own = ops.take_along_axis(log_probabilities, ops.expand_dims(places, -1), axis=-1)[..., 0]
    number = ops.maximum(replica_sum(ops.sum(ops.cast(visible, "float32"))), 1.0)
    return -ops.sum(ops.where(visible, own, 0.0)) / number


def decode_keypoints(logits, boxes):
    """Each keypoint in the middle of its most probable cell: (B, R, P, 3), (y, x, probability).

    Args:
        logits: (B, R, h, w, P).
        boxes: (B, R, 4).
    """
    height, width = logits.shape[2:4]
    probabilities = ops.softmax(_by_keypoint(logits), axis=-1)
    # LiteRT has the best of a list, which Keras's argmax isn't made of.
    best, place = ops.top_k(probabilities, 1)
    best, place = best[..., 0], ops.cast(place[..., 0], "int32")
    ymin, xmin, ymax, xmax = ops.unstack(ops.expand_dims(boxes, 2), 4, axis=-1)
    y = (ops.cast(place // width, "float32") + 0.5) / height
    x = (ops.cast(place % width, "float32") + 0.5) / width
    keypoints = [ymin + y * (ymax - ymin), xmin + x * (xmax - xmin), best]
    return ops.stack(keypoints, axis=-1)


def _by_keypoint(logits):
    """(B, R, h, w, P) as (B, R, P, h * w)."""
    count, height, width, keypoints = logits.shape[1:]
    logits = ops.reshape(logits, (-1, count, height * width, keypoints))
    return ops.transpose(logits, (0, 1, 3, 2))
