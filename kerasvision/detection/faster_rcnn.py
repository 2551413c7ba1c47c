"""Faster R-CNN (Ren et al. 2015): region proposals and detection by one network.

One network computes the features of the picture, once. A region proposal network tells from them
where objects might be; from the features of each such region a head tells the class, and where in
the region the object exactly is. On a feature pyramid: Lin et al. 2017, section 4.2.
"""

import keras
import numpy as np
from keras import ops

from kerasvision.backbones.feature_pyramid import feature_pyramid
from kerasvision.backbones.mobilenet_v2 import mobilenet_v2
from kerasvision.backbones.resnet import headless_resnet50
from kerasvision.backbones.vgg import vgg16
from kerasvision.backbones.weights import freeze_batch_norms
from kerasvision.detection.fast_rcnn import fast_rcnn_head, start_from_vgg16
from kerasvision.detection.region_detector import RegionDetector
from kerasvision.detection.region_proposals import (
    assign_anchors,
    propose,
    region_proposal_losses,
    region_proposal_network,
)
from kerasvision.ops import anchors, roi
from kerasvision.ops.roi_pooling import roi_max_pooling
from kerasvision.training.strategy import replica_sum

LOSSES = (
    "objectness_loss",
    "proposal_regression_loss",
    "classification_loss",
    "regression_loss",
)

# --- The networks ------------------------------------------------------------------------


def faster_rcnn_vgg16(
    num_classes, image_shape=(608, 800, 3), backbone_weights=None, class_names=None
):
    """Faster R-CNN on VGG-16: 137,073,622 parameters with 20 classes.

    Ren et al. 2015, section 3: nine anchors on conv5_3, RoI max pooling to 7x7, fc6 and fc7 of
    the VGG classifier as head. With `backbone_weights` the first four convolutions stay as they
    are ("we tune all layers of conv3_1 and up").

    Args:
        num_classes: without the background.
        image_shape: (height, width, 3), multiples of 16 pixels.
        backbone_weights: as the `weights` of `kerasvision.backbones.vgg16`; a file with the
            classifier gives fc6 and fc7 as well.
        class_names: names of the classes, for drawings and exports.

    Returns:
        `FasterRCNN`.
    """
    backbone = vgg16(image_shape, include_top=False, weights=backbone_weights)
    maps = {"stride16": backbone.feature_taps["stride16"]}
    network = region_proposal_network(backbone.input, maps, anchors_per_cell=9, filters=512)
    head = fast_rcnn_head((7, 7, 512), (4096, 4096), num_classes, dropout_rate=0.5)
    if backbone_weights is not None:
        start_from_vgg16(backbone, head, backbone_weights)
    return FasterRCNN(
        network,
        head,
        num_classes,
        anchor_scales=[(128, 256, 512)],
        class_names=class_names,
        roi_pooling="max",
        inside_anchors_only=True,
        num_samples=128,
        proposal_candidates=(12000, 6000),
        num_proposals=(2000, 300),
        name="faster_rcnn",
    )


def faster_rcnn_resnet50(
    num_classes,
    image_shape=(512, 512, 3),
    backbone_weights=None,
    class_names=None,
    freeze_batch_norm=False,
):
    """Faster R-CNN on ResNet-50 with a feature pyramid: 41,755,286 parameters with 90 classes.

    Lin et al. 2017, section 4.2, with RoIAlign. The count, torchvision's for 91 classes with the
    background, is of the trainable parameters if the batch normalisation is frozen and the
    backbone has no biases, that is, with a state dict as `backbone_weights` or none. Trained,
    batch normalisation adds 53,120.

    Args:
        num_classes: without the background.
        image_shape: (height, width, 3), multiples of 32 pixels.
        backbone_weights: as the `weights` of `kerasvision.backbones.resnet.resnet50`.
        class_names: names of the classes, for drawings and exports.
        freeze_batch_norm: keeps the backbone's statistics, factors and offsets as loaded; best
            for batches of few pictures, and faster.

    Returns:
        `FasterRCNN`.
    """
    backbone = headless_resnet50(image_shape, backbone_weights)
    return faster_rcnn(backbone, num_classes, class_names, freeze_batch_norm=freeze_batch_norm)


def faster_rcnn_mobilenet_v2(
    num_classes,
    image_shape=(320, 320, 3),
    backbone_weights=None,
    class_names=None,
    freeze_batch_norm=False,
    anchor_scale=8.0,
):
    """Faster R-CNN on MobileNetV2 with a thin feature pyramid, for small machines.

    Arguments and return value as in `faster_rcnn_resnet50`, and

    Args:
        backbone_weights: as the `weights` of `kerasvision.backbones.mobilenet_v2`.
        anchor_scale: as in `faster_rcnn`.
    """
    backbone = mobilenet_v2(image_shape, include_top=False, weights=backbone_weights)
    return faster_rcnn(
        backbone,
        num_classes,
        class_names,
        filters=128,
        head_units=512,
        anchor_scale=anchor_scale,
        num_samples=128,
        num_proposals=(500, 200),
        freeze_batch_norm=freeze_batch_norm,
    )


def faster_rcnn(
    backbone,
    num_classes,
    class_names=None,
    strides=(4, 8, 16, 32),
    filters=256,
    head_units=1024,
    anchor_scale=8.0,
    canonical_size=224,
    roi_pooling="align",
    num_samples=512,
    num_proposals=(1000, 1000),
    freeze_batch_norm=False,
):
    """Faster R-CNN with a feature pyramid on any backbone.

    Args:
        backbone: functional `keras.Model` from images of known size, with `feature_taps`.
        num_classes: C, without the background.
        class_names: names of the classes, for drawings and exports.
        strides: of the maps that the regions are pooled from, each twice the one before; one
            coarser map, for the largest anchors, is added.
        filters: of the pyramid and the region proposal network.
        head_units: of the head's two fully connected layers.
        anchor_scale: side of a level's square anchor, divided by the level's stride.
        canonical_size, roi_pooling, num_samples, num_proposals: as in `FasterRCNN`.
        freeze_batch_norm: keeps the backbone's batch normalisation as it is.

    Returns:
        `FasterRCNN`.
    """
    if freeze_batch_norm:
        freeze_batch_norms(backbone)
    network = pyramid_network(backbone, strides, filters)
    return FasterRCNN(
        network,
        fast_rcnn_head((7, 7, filters), (head_units, head_units), num_classes),
        num_classes,
        anchor_scales=pyramid_scales(strides, anchor_scale),
        class_names=class_names,
        roi_pooling=roi_pooling,
        canonical_size=canonical_size,
        num_samples=num_samples,
        num_proposals=num_proposals,
        name="faster_rcnn",
    )


def pyramid_network(backbone, strides, filters):
    """Feature pyramid and region proposal network, three anchors a cell, behind a backbone."""
    taps = {f"stride{stride}": backbone.feature_taps[f"stride{stride}"] for stride in strides}
    maps = feature_pyramid(taps, filters, coarser="pool")
    return region_proposal_network(backbone.input, maps, anchors_per_cell=3, filters=filters)


def pyramid_scales(strides, anchor_scale):
    """One scale for each map of `pyramid_network`, in pixels."""
    return [(anchor_scale * stride,) for stride in (*strides, 2 * strides[-1])]


# --- Proposals, regions, losses, decoding ------------------------------------------------


@keras.saving.register_keras_serializable("kerasvision")
class FasterRCNN(RegionDetector):
    """Two stages: a network of maps and proposals, and a head that looks at each proposal.

    `faster_rcnn` and its sisters build it. Batches and detections are those of `Detector`. Both
    stages train at once ("approximate joint training", section 3.2), in one step of static
    shapes. Calling the model with images gives detections; with a batch that has boxes it gives
    what `compute_loss` wants of a sample of the regions.

    Args:
        network: functional `keras.Model` from images to maps "stride4", … of these strides, and
            to "objectness" (B, A) and "anchor_offsets" (B, A, 4), as `region_proposal_network`
            makes it. Of several maps the coarsest serves the proposals alone.
        head: functional `keras.Model` from the features of a region to logits and offsets, as
            from `fast_rcnn_head`.
        num_classes: C.
        anchor_scales: for each map the square roots of its anchors' areas, in pixels.
        aspect_ratios: height / width of the anchors.
        class_names: C names; None: "0", "1", ….
        roi_pooling: "align", RoIAlign; or "max", RoI max pooling, as in the paper.
        canonical_size: side in pixels of the square that a pyramid's map of stride 16 is for.
        inside_anchors_only: whether anchors across the picture's border don't train.
        num_anchor_samples: anchors of a picture that train the proposals.
        num_samples: regions of a picture that train the head: proposals and the objects' own
            boxes, a quarter of them positive (Girshick 2015, section 2.3).
        background_range: (low, high) of the IoU of regions that train the head as background.
        proposal_candidates: boxes of each map that compete to become proposals: in training, and
            in inference.
        num_proposals: of a picture: in training, and in inference.
        iou_threshold, score_threshold, max_detections: of the suppression class by class.

    Raises:
        ValueError: a side of the image that isn't a multiple of the stride; other anchors than
            the network's; another `roi_pooling`.
    """

    def __init__(
        self,
        network,
        head,
        num_classes,
        anchor_scales,
        aspect_ratios=(0.5, 1.0, 2.0),
        class_names=None,
        roi_pooling="align",
        canonical_size=224,
        inside_anchors_only=False,
        num_anchor_samples=256,
        num_samples=512,
        background_range=(0.0, 0.5),
        proposal_candidates=(2000, 1000),
        num_proposals=(1000, 1000),
        iou_threshold=0.5,
        score_threshold=0.05,
        max_detections=100,
        **kwargs,
    ):
        super().__init__(
            network,
            head,
            num_classes,
            class_names,
            num_samples,
            background_range,
            iou_threshold,
            score_threshold,
            max_detections,
            **kwargs,
        )
        if roi_pooling not in ("align", "max"):
            raise ValueError(f"roi_pooling must be 'align' or 'max'; received: {roi_pooling!r}")
        self.anchor_scales = [tuple(scales) for scales in anchor_scales]
        self.aspect_ratios = tuple(aspect_ratios)
        self.roi_pooling = roi_pooling
        self.canonical_size = canonical_size
        self.inside_anchors_only = inside_anchors_only
        self.num_anchor_samples = num_anchor_samples
        self.proposal_candidates = tuple(proposal_candidates)
        self.num_proposals = tuple(num_proposals)
        self.loss_trackers = {name: keras.metrics.Mean(name=name) for name in LOSSES}

        image_size = self.image_shape[:2]
        self.strides = sorted(
            int(name.removeprefix("stride")) for name in network.output if name[:6] == "stride"
        )
        shapes = [tuple(network.output[f"stride{s}"].shape[1:3]) for s in self.strides]
        self.roi_strides = self.strides[:-1] if len(self.strides) > 1 else self.strides
        if any(side % self.roi_strides[-1] for side in image_size):
            # Maps with rounded sides would lie a little off the boxes.
            raise ValueError(
                f"image_shape must be multiples of {self.roi_strides[-1]} pixels; "
                f"received: {self.image_shape}"
            )
        if len(self.anchor_scales) != len(shapes):
            raise ValueError(
                f"anchor_scales must have one entry for each of {len(shapes)} maps; "
                f"received: {anchor_scales}"
            )
        self.anchors_of_maps = [
            anchors.rpn_anchors([shape], [stride], image_size, [scales], self.aspect_ratios)
            for shape, stride, scales in zip(shapes, self.strides, self.anchor_scales)
        ]
        self.anchors = np.concatenate(self.anchors_of_maps)
        if network.output["objectness"].shape[1] != len(self.anchors):
            raise ValueError(
                f"the network must tell the objectness of {len(self.anchors)} anchors; "
                f"received: {network.output['objectness'].shape[1]}"
            )

    # --- From images to detections, or to what the losses want ---

    def call(self, inputs, training=None):
        """Detections of images; of a batch with boxes the outputs for sampled regions.

        Args:
            inputs: (B, H, W, 3), or a batch dictionary.
            training: whether layers, numbers and samples are those of training.
        """
        images = inputs["images"] if isinstance(inputs, dict) else inputs
        raw = self.network(images, training=training)
        if not isinstance(inputs, dict) or "bounding_boxes" not in inputs:
            return self.detections(raw, training)
        proposals, valid = self.propose(raw, training)
        truth = inputs["bounding_boxes"]
        regions, matches = self.sample_regions(
            proposals, valid, truth["boxes"], truth["labels"], self.sampling_seed(training)
        )
        return {
            "objectness": raw["objectness"],
            "anchor_offsets": raw["anchor_offsets"],
            "regions": regions,
            "matches": matches,
            **self.training_outputs(raw, regions, training),
        }

    def detections(self, raw, training=False):
        """Detections of what the network gave."""
        return self.detect(raw, *self.propose(raw, training))

    def propose(self, raw, training):
        """Proposals (B, K, 4) of what the network gave, and (B, K) bool: False for padding."""
        stage = 0 if training else 1
        return propose(
            raw["objectness"],
            raw["anchor_offsets"],
            self.anchors_of_maps,
            self.image_shape,
            self.proposal_candidates[stage],
            self.num_proposals[stage],
            suppress=self.suppression,
        )

    def training_outputs(self, raw, regions, training):
        """What the losses want to know of sampled regions (B, S, 4), positive ones first."""
        return self.region_outputs(raw, regions, training)

    def region_outputs(self, raw, regions, training):
        """Dict of "logits" (B, R, C + 1) and "offsets" (B, R, C + 1, 4) of regions (B, R, 4)."""
        return self.apply_head(self.head, raw, regions, training)

    def apply_head(self, head, raw, regions, training):
        """The outputs (B, R, …) of a head for regions (B, R, 4)."""
        size = head.input_shape[1:]
        features = self.pool([raw[f"stride{s}"] for s in self.roi_strides], regions, size[:2])
        outputs = head(ops.reshape(features, (-1, *size)), training=training)
        count = regions.shape[1]
        return keras.tree.map_structure(
            lambda x: ops.reshape(x, (-1, count, *x.shape[1:])), outputs
        )

    def pool(self, maps, regions, size):
        """Features (B, R, h, w, D) of regions (B, R, 4), from the map that fits their size."""
        if len(maps) == 1:
            pool = roi_max_pooling if self.roi_pooling == "max" else roi.roi_align
            return pool(maps[0], regions, size)
        first, last = (self.roi_strides[i].bit_length() - 1 for i in (0, -1))
        levels = {
            "image_size": self.image_shape[:2],
            "min_level": first,
            "max_level": last,
            "canonical_size": self.canonical_size,
        }
        if self.roi_pooling == "align":
            return roi.multilevel_roi_align(maps, regions, size, **levels)
        level = ops.expand_dims(roi.fpn_levels(regions, **levels), -1)
        # Regions that aren't finite are pooled to zeros: of each, one map adds something.
        return sum(
            roi_max_pooling(x, ops.where(level == first + i, regions, float("nan")), size)
            for i, x in enumerate(maps)
        )

    # --- Losses ---

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The sum of `separate_losses` and of the layers' penalties."""
        losses = self.separate_losses(x, y_pred, training)
        for name, loss in losses.items():
            self.loss_trackers[name].update_state(replica_sum(loss))
        return sum(losses.values()) + sum(penalty / replica_sum(1.0) for penalty in self.losses)

    def separate_losses(self, batch, outputs, training):
        """Dict of the losses of both stages: each cross-entropy and smooth L1.

        The sums are divided by the number of sampled anchors, or of sampled regions, positive or
        not.

        Args:
            batch: dictionary with "bounding_boxes".
            outputs: what the model gave for it.
            training: whether the samples differ from step to step.
        """
        boxes = ops.cast(batch["bounding_boxes"]["boxes"], "float32")
        labels = ops.cast(batch["bounding_boxes"]["labels"], "int32")
        objectness, proposal_regression = region_proposal_losses(
            outputs["objectness"],
            outputs["anchor_offsets"],
            self.anchors,
            boxes,
            assign_anchors(self.anchors, boxes, labels, self.inside_anchors_only),
            self.sampling_seed(training),
            self.num_anchor_samples,
        )
        classification, regression, counted = self.losses_of_regions(outputs, boxes, labels)
        number = ops.maximum(replica_sum(ops.sum(ops.cast(counted, "float32"))), 1.0)
        return {
            "objectness_loss": objectness,
            "proposal_regression_loss": proposal_regression,
            "classification_loss": ops.sum(classification) / number,
            "regression_loss": ops.sum(regression) / number,
        }

    # --- Decoding ---

    def detect(self, raw, proposals, valid):
        """Detections of the heads' outputs for the proposals (B, K, 4)."""
        outputs = self.region_outputs(raw, proposals, training=False)
        boxes, scores = self.decode(outputs, proposals)
        return self.suppress(boxes, scores, valid)

    @property
    def detector(self):
        """Functional `keras.Model` from images to detections; shares this model's weights."""
        if "_detector" not in self.__dict__:
            images = keras.Input(self.image_shape, name="images")
            detector = keras.Model(images, self(images, training=False), name="detector")
            # Past Keras's tracking: this model is a layer of that one.
            object.__setattr__(self, "_detector", detector)
        return self._detector

    def get_config(self):
        return {
            **super().get_config(),
            "anchor_scales": self.anchor_scales,
            "aspect_ratios": self.aspect_ratios,
            "roi_pooling": self.roi_pooling,
            "canonical_size": self.canonical_size,
            "inside_anchors_only": self.inside_anchors_only,
            "num_anchor_samples": self.num_anchor_samples,
            "proposal_candidates": self.proposal_candidates,
            "num_proposals": self.num_proposals,
        }
