"""SSD: Single Shot MultiBox Detector (Liu et al. 2016), and SSDLite (Sandler et al. 2018).

An image goes through a backbone and a few more convolutions that shrink it step by step. On
every one of these maps a small convolution predicts, for each default box of each cell, four
offsets and a score for each class. Training matches the default boxes to the ground truth;
decoding adds the offsets to the default boxes and keeps the best of those that overlap.
"""

import keras
import numpy as np
from keras import layers, ops

from kerasvision.backbones.mobilenet_v2 import mobilenet_v2, round_channels
from kerasvision.backbones.resnet import resnet18
from kerasvision.backbones.vgg import URL as VGG_URL
from kerasvision.backbones.vgg import read_fully_connected, vgg16
from kerasvision.backbones.weights import fetch_imagenet
from kerasvision.detection.single_stage import SingleStageDetector
from kerasvision.layers import L2Normalization
from kerasvision.ops import anchors, matching, sampling
from kerasvision.ops import boxes as box_ops
from kerasvision.training.strategy import replica_sum

# --- The three networks ------------------------------------------------------------------


def ssd300(num_classes, backbone_weights=None, class_names=None):
    """SSD300: 300x300 images, 8,732 default boxes, 26,285,486 parameters with 20 classes.

    Liu et al. 2016, figure 2. Aspect ratios and scales are those of the authors' VOC model.

    Args:
        num_classes: without the background.
        backbone_weights: as the `weights` of `kerasvision.backbones.vgg.vgg16`. A file with
            the classifier also starts fc6 and fc7, subsampled as in the paper, section 3.
        class_names: names of the classes, for drawings and exports.

    Returns:
        `SSD`.
    """
    maps = _vgg16_maps((300, 300, 3), backbone_weights)
    x = maps[-1]
    for i, (squeeze, filters, stride) in enumerate(
        [(256, 512, 2), (128, 256, 2), (128, 256, 1), (128, 256, 1)], start=8
    ):
        x = _extra_maps(x, f"conv{i}", squeeze, filters, stride)
        maps.append(x)
    # Sides in pixels of the smallest box of each map, and one more.
    sides = [30, 60, 111, 162, 213, 264, 315]
    return _ssd_on_vgg16(
        maps,
        num_classes,
        class_names,
        image_side=300,
        sides=sides,
        steps=[8, 16, 32, 64, 100, 300],
        aspect_ratios=[[2], [2, 3], [2, 3], [2, 3], [2], [2]],
    )


def ssd512(num_classes, backbone_weights=None, class_names=None):
    """SSD512: 512x512 images, 24,564 default boxes, 27,188,676 parameters with 20 classes.

    Liu et al. 2016, section 3.2: one more map than SSD300, and smaller smallest boxes.
    Arguments and return value as in `ssd300`.
    """
    maps = _vgg16_maps((512, 512, 3), backbone_weights)
    x = maps[-1]
    for i, (squeeze, filters) in enumerate(
        [(256, 512), (128, 256), (128, 256), (128, 256)], start=8
    ):
        x = _extra_maps(x, f"conv{i}", squeeze, filters, stride=2)
        maps.append(x)
    x = layers.Conv2D(128, 1, activation="relu", name="conv12_1")(x)
    x = layers.ZeroPadding2D(1, name="conv12_2_pad")(x)
    maps.append(layers.Conv2D(256, 4, activation="relu", name="conv12_2")(x))
    return _ssd_on_vgg16(
        maps,
        num_classes,
        class_names,
        image_side=512,
        sides=[35.84, 76.8, 153.6, 230.4, 307.2, 384.0, 460.8, 537.6],
        steps=[8, 16, 32, 64, 128, 256, 512],
        aspect_ratios=[[2], [2, 3], [2, 3], [2, 3], [2, 3], [2], [2]],
    )


def ssdlite(
    num_classes,
    image_shape=(320, 320, 3),
    backbone_weights=None,
    class_names=None,
    width_multiplier=1.0,
    first_stride=16,
    min_scale=0.2,
    max_scale=0.95,
    batch_norm_momentum=0.97,
):
    """SSDLite: SSD on MobileNetV2, all its convolutions separable (Sandler et al. 2018, 6.2).

    The first map is the expansion of the bottleneck at stride 16, the second the last of the
    backbone, at stride 32; four more follow, each half as large as the one before.

    Args:
        num_classes: without the background.
        image_shape: (height, width, 3); any size from 64 pixels.
        backbone_weights: as the `weights` of `kerasvision.backbones.mobilenet_v2`.
        class_names: names of the classes, for drawings and exports.
        width_multiplier: factor on the number of channels.
        first_stride: 16, or 8 for one more map for small objects.
        min_scale, max_scale: sides of the smallest and the largest default boxes as fractions
            of the image's; those of the maps between are spaced evenly (SSD, equation 4).
        batch_norm_momentum: of the moving averages.

    Returns:
        `SSD`.
    """
    if first_stride not in (8, 16):
        raise ValueError(f"first_stride must be 8 or 16; received: {first_stride}")
    backbone = mobilenet_v2(
        image_shape,
        include_top=False,
        weights=backbone_weights,
        width_multiplier=width_multiplier,
        batch_norm_momentum=batch_norm_momentum,
    )
    maps = [backbone.feature_taps[f"stride{s}"] for s in (8, 16, 32) if s >= first_stride]

    def batch_norm_relu(x, name):
        x = layers.BatchNormalization(
            momentum=batch_norm_momentum, epsilon=1e-3, name=f"{name}_bn"
        )(x)
        return layers.ReLU(6.0, name=f"{name}_relu")(x)

    def depthwise(x, name, stride=1):
        x = layers.DepthwiseConv2D(
            3, stride, padding="same", use_bias=False, name=f"{name}_depthwise"
        )(x)
        return batch_norm_relu(x, f"{name}_depthwise")

    x = maps[-1]
    for i, channels in enumerate([512, 256, 256, 128]):
        channels = round_channels(channels * width_multiplier)
        x = layers.Conv2D(channels // 2, 1, use_bias=False, name=f"extra{i}_squeeze")(x)
        x = batch_norm_relu(x, f"extra{i}_squeeze")
        # A map of one cell can't shrink; in bfloat16 a stride there has NaN gradients on CPUs.
        x = depthwise(x, f"extra{i}", stride=2 if max(x.shape[1:3]) > 1 else 1)
        x = layers.Conv2D(channels, 1, use_bias=False, name=f"extra{i}_project")(x)
        x = batch_norm_relu(x, f"extra{i}_project")
        maps.append(x)

    offsets, logits = [], []
    for i, x in enumerate(maps):
        for name, outputs, collected in [
            ("offsets", 6 * 4, offsets),
            ("logits", 6 * (num_classes + 1), logits),
        ]:
            y = depthwise(x, f"{name}{i}")
            collected.append(
                layers.Conv2D(
                    outputs,
                    1,
                    kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.03),
                    name=f"{name}{i}",
                )(y)
            )
    return _evenly_scaled_ssd(
        backbone.input,
        maps,
        offsets,
        logits,
        num_classes,
        class_names,
        min_scale,
        max_scale,
        name="ssdlite",
    )


def ssd_resnet18(
    num_classes,
    image_shape=(128, 128, 3),
    class_names=None,
    width=64,
    depths=(2, 2, 2, 2),
    min_scale=0.2,
    max_scale=0.8,
):
    """SSD on ResNet-18 with batch normalisation throughout, for training from scratch.

    ScratchDet (Zhu et al. 2019, section 3): with batch normalisation in backbone and extra maps,
    and filters of 3 pixels at the start, SSD needs no ImageNet weights. The maps are those of
    strides 8, 16 and 32 and two more. On a CPU its dense convolutions train several times faster
    than separable ones of equal accuracy.

    Args:
        num_classes: without the background.
        image_shape: (height, width, 3); any size from 64 pixels.
        class_names: names of the classes, for drawings and exports.
        width: channels of the first stage, doubled at each of the next three.
        depths: residual blocks of the four stages.
        min_scale, max_scale: as in `ssdlite`.

    Returns:
        `SSD`.
    """
    backbone = resnet18(
        image_shape,
        include_top=False,
        width=width,
        depths=depths,
        batch_norm_momentum=0.97,
        stem_kernel_size=3,
    )
    maps = [backbone.feature_taps[f"stride{s}"] for s in (8, 16, 32)]
    x = maps[-1]
    for i in range(2):
        x = layers.Conv2D(
            4 * width,
            3,
            2,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            name=f"extra{i}",
        )(x)
        x = layers.BatchNormalization(momentum=0.97, name=f"extra{i}_bn")(x)
        x = layers.ReLU(name=f"extra{i}_relu")(x)
        maps.append(x)
    offsets, logits = [], []
    for i, x in enumerate(maps):
        offsets.append(layers.Conv2D(6 * 4, 3, padding="same", name=f"offsets{i}")(x))
        logits.append(layers.Conv2D(6 * (num_classes + 1), 3, padding="same", name=f"logits{i}")(x))
    return _evenly_scaled_ssd(
        backbone.input,
        maps,
        offsets,
        logits,
        num_classes,
        class_names,
        min_scale,
        max_scale,
        name="ssd_resnet18",
    )


def _vgg16_maps(image_shape, weights):
    """conv4_3, L2-normalised, and fc7: the two maps that SSD takes from VGG-16."""
    if weights == "imagenet":
        # With the classifier, which starts fc6 and fc7.
        weights = fetch_imagenet(VGG_URL.format(name="vgg16", top=""), False, None)
    backbone = vgg16(image_shape, include_top=False, weights=weights)
    conv4_3 = L2Normalization(20.0, name="conv4_3_norm")(backbone.feature_taps["stride8"])
    x = layers.MaxPooling2D(3, 1, padding="same", name="pool5")(backbone.feature_taps["stride16"])
    # The fully connected layers as convolutions, "à trous" because pool5 no longer strides.
    fc6 = layers.Conv2D(1024, 3, dilation_rate=6, padding="same", activation="relu", name="fc6")
    fc7 = layers.Conv2D(1024, 1, activation="relu", name="fc7")
    x = fc7(fc6(x))
    classifier = {} if weights is None else read_fully_connected(weights)
    if classifier:
        kernel, bias = classifier["fc1"]
        fc6.set_weights([kernel[::3, ::3, :, ::4], bias[::4]])
        kernel, bias = classifier["fc2"]
        fc7.set_weights([kernel[:, :, ::4, ::4], bias[::4]])
    return [backbone.input, conv4_3, x]


def _extra_maps(x, name, squeeze, filters, stride):
    """conv8_x to conv11_x of figure 2: 1x1, then 3x3 with stride 2 or without padding."""
    x = layers.Conv2D(squeeze, 1, activation="relu", name=f"{name}_1")(x)
    if stride == 2:
        x = layers.ZeroPadding2D(1, name=f"{name}_2_pad")(x)
    return layers.Conv2D(filters, 3, stride, activation="relu", name=f"{name}_2")(x)


def _ssd_on_vgg16(maps, num_classes, class_names, image_side, sides, steps, aspect_ratios):
    images, *maps = maps
    offsets, logits = [], []
    for i, (x, ratios) in enumerate(zip(maps, aspect_ratios)):
        per_cell = 2 + 2 * len(ratios)
        offsets.append(layers.Conv2D(per_cell * 4, 3, padding="same", name=f"offsets{i}")(x))
        logits.append(
            layers.Conv2D(per_cell * (num_classes + 1), 3, padding="same", name=f"logits{i}")(x)
        )
    default_boxes = anchors.default_boxes(
        [tuple(x.shape[1:3]) for x in maps],
        [side / image_side for side in sides],
        aspect_ratios,
        steps=[step / image_side for step in steps],
    )
    return SSD(
        _network(images, offsets, logits, num_classes),
        num_classes,
        default_boxes,
        class_names=class_names,
        name=f"ssd{image_side}",
    )


def _evenly_scaled_ssd(
    images, maps, offsets, logits, num_classes, class_names, min_scale, max_scale, name
):
    """Six default boxes a cell, their scales evenly spaced over the maps (equation 4)."""
    last = len(maps) - 1
    scales = [min_scale + (max_scale - min_scale) * k / last for k in range(last + 1)]
    return SSD(
        _network(images, offsets, logits, num_classes),
        num_classes,
        anchors.default_boxes(
            [tuple(x.shape[1:3]) for x in maps], [*scales, 1.0], [[2, 3]] * len(maps)
        ),
        class_names=class_names,
        name=name,
    )


def _network(images, offsets, logits, num_classes):
    """From one prediction a map to one list over all default boxes, in their order."""
    # Losses and box arithmetic want full precision whatever the convolutions run in.
    float32 = {"dtype": "float32"}
    offsets = [layers.Reshape((-1, 4), **float32)(x) for x in offsets]
    logits = [layers.Reshape((-1, num_classes + 1), **float32)(x) for x in logits]
    return keras.Model(
        images,
        {
            "offsets": layers.Concatenate(axis=1, name="offsets", **float32)(offsets),
            "logits": layers.Concatenate(axis=1, name="logits", **float32)(logits),
        },
        name="network",
    )


# --- Targets, loss, decoding -------------------------------------------------------------


@keras.saving.register_keras_serializable("kerasvision")
class SSD(SingleStageDetector):
    """A network of offsets and logits with SSD's targets, loss and decoding.

    `ssd300`, `ssd512`, `ssdlite` and `ssd_resnet18` build it. Batches and detections are those of
    `SingleStageDetector`. Calling the model gives the raw {"offsets" (B, A, 4), "logits"
    (B, A, C + 1)}, class 0 of the logits being the background.

    Args:
        network: functional `keras.Model` from images to offsets and logits.
        num_classes: C, without the background.
        default_boxes: (A, 4) center form (cy, cx, height, width).
        variances: of the centre and the size offsets.
        class_names: C names; None: "0", "1", ….
        matching_threshold: IoU above which a default box answers for an object.
        negatives_per_positive: of hard negative mining.
        iou_threshold, score_threshold, max_detections, pre_nms_candidates: of decoding; see
            `kerasvision.layers.NonMaxSuppression`. The paper (section 2.2, "Inference") has
            0.45, 0.01 and 200; COCO's metrics look at 100.
    """

    def __init__(
        self,
        network,
        num_classes,
        default_boxes,
        variances=(0.1, 0.2),
        class_names=None,
        matching_threshold=0.5,
        negatives_per_positive=3.0,
        iou_threshold=0.45,
        score_threshold=0.01,
        max_detections=100,
        pre_nms_candidates=400,
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
        default_boxes = np.asarray(default_boxes, "float32")
        offsets_shape = tuple(network.output["offsets"].shape[1:])
        if offsets_shape != default_boxes.shape:
            raise ValueError(
                "the network's offsets and the default boxes must have the same shape (A, 4); "
                f"received: {offsets_shape} and {default_boxes.shape}"
            )
        if max_detections > len(default_boxes) * num_classes:
            raise ValueError(
                "max_detections must be at most the number of default boxes times that of classes; "
                f"received: {max_detections} of {len(default_boxes)} x {num_classes}"
            )
        self.default_boxes = default_boxes
        self.variances = tuple(variances)
        self.matching_threshold = matching_threshold
        self.negatives_per_positive = negatives_per_positive
        self.localization_loss = keras.metrics.Mean(name="localization_loss")
        self.confidence_loss = keras.metrics.Mean(name="confidence_loss")

    def encode_targets(self, boxes, labels):
        """What each default box should predict (section 2.2, "Matching strategy").

        Args:
            boxes: (B, N, 4).
            labels: (B, N), -1 = padding. Degenerate boxes match nothing.

        Returns:
            offsets (B, A, 4), and classes (B, A) int32 with 0 = background.
        """
        corners = box_ops.to_corner_form(ops.convert_to_tensor(self.default_boxes))
        boxes, labels = ops.cast(boxes, "float32"), ops.cast(labels, "int32")
        iou = box_ops.iou(boxes, ops.expand_dims(corners, 0))
        iou = ops.where(ops.expand_dims(labels, -1) >= 0, iou, 0.0)
        matched = matching.match_default_boxes(iou, self.matching_threshold)
        row = ops.maximum(matched, 0)
        classes = ops.where(matched >= 0, ops.take_along_axis(labels, row, axis=1) + 1, 0)
        matched_boxes = ops.take_along_axis(boxes, ops.expand_dims(row, -1), axis=1)
        return box_ops.encode(matched_boxes, self.default_boxes, self.variances), classes

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Equation 1: (confidence loss + localisation loss) / number of matched boxes."""
        ground_truth = x["bounding_boxes"] if y is None else y
        offsets, classes = self.encode_targets(ground_truth["boxes"], ground_truth["labels"])
        positive = classes > 0
        # A batch without any matched box has loss 0.
        matched = ops.maximum(replica_sum(ops.sum(ops.cast(positive, "float32"))), 1.0)

        # Smooth L1 (equation 2).
        distances = ops.sum(box_ops.smooth_l1(y_pred["offsets"] - offsets), axis=-1)
        localization = ops.sum(ops.where(positive, distances, 0.0)) / matched

        # Softmax loss over the classes (equation 3), of positives and the hardest negatives.
        losses = ops.sparse_categorical_crossentropy(classes, y_pred["logits"], from_logits=True)
        negative = sampling.hard_negative_mining(
            ops.stop_gradient(losses), positive, self.negatives_per_positive
        )
        counted = ops.logical_or(positive, negative)
        confidence = ops.sum(ops.where(counted, losses, 0.0)) / matched

        self.localization_loss.update_state(replica_sum(localization))
        self.confidence_loss.update_state(replica_sum(confidence))
        loss = localization + confidence
        for penalty in self.losses:
            loss = loss + penalty / replica_sum(1.0)
        return loss

    def decode(self, raw):
        """Boxes (B, A, 4), cut off at the image's border, and scores (B, A, C) of raw outputs."""
        scores = ops.softmax(ops.cast(raw["logits"], "float32"), axis=-1)[:, :, 1:]
        offsets = ops.cast(raw["offsets"], "float32")
        boxes = box_ops.decode(offsets, self.default_boxes, self.variances)
        return box_ops.clip(boxes), scores

    def get_config(self):
        return {
            **super().get_config(),
            "default_boxes": self.default_boxes.tolist(),
            "variances": list(self.variances),
            "matching_threshold": self.matching_threshold,
            "negatives_per_positive": self.negatives_per_positive,
        }
