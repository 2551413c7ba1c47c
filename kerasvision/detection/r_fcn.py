"""R-FCN (Dai et al. 2016, "Object Detection via Region-based Fully Convolutional Networks").

Faster R-CNN computes a head anew for each region. Here all layers are convolutions over the whole
picture, and regions only look at their results: maps for the upper left part of an object, maps
for its upper middle part, …. Each part of a region votes by what its own maps show there.
"""

import keras
from keras import layers, ops

from kerasvision.backbones.mobilenet_v2 import mobilenet_v2
from kerasvision.backbones.resnet import resnet50, resnet101
from kerasvision.backbones.weights import freeze_batch_norms
from kerasvision.detection.faster_rcnn import FasterRCNN
from kerasvision.detection.region_proposals import region_proposal_network
from kerasvision.ops.roi_pooling import position_sensitive_roi_pooling

# --- The networks ------------------------------------------------------------------------


def r_fcn_resnet50(
    num_classes,
    image_shape=(608, 800, 3),
    backbone_weights=None,
    class_names=None,
    bins=3,
    num_hard_examples=None,
    freeze_batch_norm=False,
):
    """R-FCN on ResNet-50: 30,525,902 trainable parameters with 20 classes and 3x3 bins.

    Dai et al. 2016, section 2. The stride is 16: the last stage dilates its filters instead
    ("the hole algorithm"). The count is without batch normalisation and the backbone's biases, as
    of `faster_rcnn_resnet50`.

    Args:
        num_classes: without the background.
        image_shape: (height, width, 3), multiples of 16 pixels.
        backbone_weights: as the `weights` of `kerasvision.backbones.resnet.resnet50`.
        class_names: names of the classes, for drawings and exports.
        bins, num_hard_examples: as in `RFCN`.
        freeze_batch_norm: keeps the backbone's statistics, factors and offsets as loaded; best
            for batches of few pictures, and faster.

    Returns:
        `RFCN`.
    """
    return _of_resnet(
        resnet50,
        num_classes,
        image_shape,
        backbone_weights,
        class_names,
        bins,
        num_hard_examples,
        freeze_batch_norm,
    )


def r_fcn_resnet101(
    num_classes,
    image_shape=(608, 800, 3),
    backbone_weights=None,
    class_names=None,
    bins=3,
    num_hard_examples=None,
    freeze_batch_norm=False,
):
    """R-FCN on ResNet-101, as in the paper: 49,465,806 trainable parameters.

    All else as in `r_fcn_resnet50`.
    """
    return _of_resnet(
        resnet101,
        num_classes,
        image_shape,
        backbone_weights,
        class_names,
        bins,
        num_hard_examples,
        freeze_batch_norm,
    )


def r_fcn_mobilenet_v2(
    num_classes,
    image_shape=(320, 320, 3),
    backbone_weights=None,
    class_names=None,
    bins=3,
    num_hard_examples=None,
    freeze_batch_norm=False,
):
    """R-FCN on MobileNetV2, for small machines: smaller anchors, fewer filters.

    All else as in `r_fcn_resnet50`, and

    Args:
        backbone_weights: as the `weights` of `kerasvision.backbones.mobilenet_v2`.
    """
    return r_fcn(
        mobilenet_v2(image_shape, include_top=False, weights=backbone_weights),
        num_classes,
        class_names,
        bins=bins,
        filters=256,
        proposal_filters=256,
        anchor_scales=(32, 64, 128),
        num_hard_examples=num_hard_examples,
        freeze_batch_norm=freeze_batch_norm,
    )


def _of_resnet(
    resnet,
    num_classes,
    image_shape,
    backbone_weights,
    class_names,
    bins,
    num_hard_examples,
    freeze_batch_norm,
):
    backbone = resnet(
        image_shape,
        include_top=False,
        weights=backbone_weights,
        output_stride=16,
        **({"stride_in_1x1": False, "use_bias": False} if backbone_weights is None else {}),
    )
    return r_fcn(
        backbone,
        num_classes,
        class_names,
        bins=bins,
        num_hard_examples=num_hard_examples,
        freeze_batch_norm=freeze_batch_norm,
    )


def r_fcn(
    backbone,
    num_classes,
    class_names=None,
    bins=3,
    filters=1024,
    proposal_filters=512,
    anchor_scales=(128, 256, 512),
    num_hard_examples=None,
    freeze_batch_norm=False,
):
    """R-FCN on any backbone.

    Args:
        backbone: functional `keras.Model` from images of known size, with a `feature_taps` of
            stride 16.
        num_classes: C, without the background.
        class_names: names of the classes, for drawings and exports.
        bins, num_hard_examples: as in `RFCN`.
        filters: of the convolution between the backbone and the maps ("Backbone architecture").
        proposal_filters: of the region proposal network.
        anchor_scales: square roots of the anchors' areas, in pixels.
        freeze_batch_norm: keeps the backbone's batch normalisation as it is.

    Returns:
        `RFCN`.
    """
    if freeze_batch_norm:
        freeze_batch_norms(backbone)
    normal = keras.initializers.RandomNormal(stddev=0.01)

    def convolution(filters, name, **settings):
        return layers.Conv2D(filters, 1, kernel_initializer=normal, name=name, **settings)

    x = convolution(filters, "reduce", activation="relu")(backbone.feature_taps["stride16"])
    network = region_proposal_network(
        backbone.input, {"stride16": x}, 3 * len(anchor_scales), proposal_filters
    )
    outputs = {
        **network.output,
        "class_maps": convolution(bins**2 * (num_classes + 1), "class_maps", dtype="float32")(x),
        "box_maps": convolution(bins**2 * 4, "box_maps", dtype="float32")(x),
    }
    return RFCN(
        keras.Model(backbone.input, outputs, name="network"),
        num_classes,
        [anchor_scales],
        class_names=class_names,
        bins=bins,
        num_hard_examples=num_hard_examples,
        name="r_fcn",
    )


# --- Votes, hard examples ----------------------------------------------------------------


@keras.saving.register_keras_serializable("kerasvision")
class RFCN(FasterRCNN):
    """Faster R-CNN with position-sensitive votes instead of a head.

    `r_fcn` and its sisters build it.

    Args:
        network: as of `FasterRCNN`, with further maps "class_maps" (B, H, W, (C + 1) k^2) and
            "box_maps" (B, H, W, 4 k^2): class c of bin (i, j) is channel (c k + i) k + j, class 0
            is the background. The boxes are the same for all classes.
        num_classes: C.
        anchor_scales, aspect_ratios, class_names: as of `FasterRCNN`.
        bins: k, along each side of a region.
        num_hard_examples: None: a sample of `num_samples` regions trains, a quarter of them
            positive; or the number of a picture's regions, out of all, that train: those with
            the highest losses ("online hard example mining", section 2, "Training").
        inside_anchors_only, num_anchor_samples, num_samples, proposal_candidates, num_proposals,
            iou_threshold, score_threshold, max_detections: as of `FasterRCNN`.

    Raises:
        ValueError: as `FasterRCNN`.
    """

    def __init__(
        self,
        network,
        num_classes,
        anchor_scales,
        aspect_ratios=(0.5, 1.0, 2.0),
        class_names=None,
        bins=3,
        num_hard_examples=None,
        inside_anchors_only=True,
        num_anchor_samples=256,
        num_samples=128,
        proposal_candidates=(6000, 6000),
        num_proposals=(300, 300),
        iou_threshold=0.5,
        score_threshold=0.05,
        max_detections=100,
        **kwargs,
    ):
        super().__init__(
            network,
            None,
            num_classes,
            anchor_scales,
            aspect_ratios=aspect_ratios,
            class_names=class_names,
            inside_anchors_only=inside_anchors_only,
            num_anchor_samples=num_anchor_samples,
            num_samples=num_samples,
            proposal_candidates=proposal_candidates,
            num_proposals=num_proposals,
            iou_threshold=iou_threshold,
            score_threshold=score_threshold,
            max_detections=max_detections,
            **kwargs,
        )
        self.bins = bins
        self.num_hard_examples = num_hard_examples

    def region_outputs(self, raw, regions, training):
        # Equations 1 and 2: the average of a bin's cells, and the average of the bins.
        logits, offsets = (
            ops.mean(position_sensitive_roi_pooling(raw[name], regions, self.bins), axis=(2, 3))
            for name in ("class_maps", "box_maps")
        )
        offsets = ops.repeat(ops.expand_dims(offsets, 2), self.num_classes + 1, axis=2)
        return {"logits": logits, "offsets": offsets}

    def sample_regions(self, proposals, valid, boxes, labels, seed):
        if self.num_hard_examples is None:
            return super().sample_regions(proposals, valid, boxes, labels, seed)
        # What is hard shows in the losses only; until then all regions take next to no time.
        return self.match_regions(proposals, valid, boxes, labels)

    def losses_of_regions(self, outputs, boxes, labels):
        losses = super().losses_of_regions(outputs, boxes, labels)
        if self.num_hard_examples is None:
            return losses
        classification, regression, counted = losses
        total = ops.where(counted, ops.stop_gradient(classification + regression), -1.0)
        _, hardest = ops.top_k(total, min(self.num_hard_examples, total.shape[1]))
        return tuple(ops.take_along_axis(x, hardest, axis=1) for x in losses)

    def get_config(self):
        config = super().get_config()
        for name in ("head", "roi_pooling", "canonical_size"):
            del config[name]
        return {**config, "bins": self.bins, "num_hard_examples": self.num_hard_examples}
