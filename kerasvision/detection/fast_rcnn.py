"""Fast R-CNN (Girshick 2015): R-CNN that is trained at once.

The picture goes through the convolutions once, as in SPP-net. RoI max pooling makes of the part of
the map that a region covers a grid of 7x7; fully connected layers tell from it the class and, for
each class, how to move the region. Both are learnt together with the convolutions, as the
regions of a mini-batch come from few pictures. No SVMs, no features on disk.

R-CNN minus R (Lenc & Vedaldi 2015) leaves out the search as well: its proposals are the same for
all pictures, clusters of the boxes of the training pictures.
"""

import keras
from keras import layers, ops

from kerasvision.backbones.vgg import read_fully_connected
from kerasvision.detection.proposals import cluster_boxes
from kerasvision.detection.region_detector import ProposalDetector, convolutional_layers
from kerasvision.ops import boxes as box_ops
from kerasvision.ops.roi_pooling import roi_max_pooling
from kerasvision.training.strategy import replica_sum

POOLED_SIDE = 7

# --- The networks ------------------------------------------------------------------------


def fast_rcnn_vgg16(
    num_classes, image_shape=(608, 800, 3), backbone_weights=None, class_names=None
):
    """Fast R-CNN on VGG-16: 134,690,729 parameters with 20 classes.

    Girshick 2015, section 2.2: fc6 and fc7 of the classifier follow the RoI pooling, which takes
    the place of the last max pooling. With `backbone_weights` the first four convolutions stay
    as they are (section 4.5).

    Args:
        num_classes: without the background.
        image_shape: (height, width, 3), multiples of 16 pixels.
        backbone_weights: as the `weights` of `kerasvision.backbones.vgg16`; a file with the
            classifier gives fc6 and fc7 as well.
        class_names: names of the classes, for drawings and exports.

    Returns:
        `FastRCNN`.
    """
    network = convolutional_layers("vgg16", image_shape, backbone_weights)
    head = fast_rcnn_head((7, 7, 512), (4096, 4096), num_classes, dropout_rate=0.5)
    if backbone_weights is not None:
        start_from_vgg16(network, head, backbone_weights)
    return FastRCNN(network, head, num_classes, class_names, name="fast_rcnn")


def fast_rcnn(
    num_classes,
    image_shape=(256, 256, 3),
    backbone="mobilenet_v2",
    backbone_weights=None,
    class_names=None,
    units=(512, 512),
    **settings,
):
    """Fast R-CNN on another network, for small machines.

    Args:
        num_classes: without the background.
        image_shape: (height, width, 3) of the pictures.
        backbone: name of a network in `kerasvision.detection.region_detector.CONV5`.
        backbone_weights: as its `weights`.
        class_names: names of the classes, for drawings and exports.
        units: of fc6 and fc7.
        settings: of `FastRCNN`.

    Returns:
        `FastRCNN`.
    """
    network = convolutional_layers(backbone, image_shape, backbone_weights)
    shape = (POOLED_SIDE, POOLED_SIDE, network.output.shape[-1])
    head = fast_rcnn_head(shape, units, num_classes)
    return FastRCNN(network, head, num_classes, class_names, name="fast_rcnn", **settings)


def rcnn_minus_r(num_classes, training_boxes, num_clusters=300, seed=0, **settings):
    """Fast R-CNN whose proposals are clusters of boxes, the same for all pictures.

    Lenc & Vedaldi 2015. A model from images alone to detections.

    Args:
        num_classes: without the background.
        training_boxes: (N, 4), relative, of the objects of the training pictures.
        num_clusters: of the k-means, at most the number of different boxes.
        seed: of the k-means.
        settings: of `fast_rcnn`.

    Returns:
        `FastRCNN`.
    """
    clusters = cluster_boxes(training_boxes, num_clusters, seed)
    return fast_rcnn(num_classes, fixed_proposals=clusters, **settings)


def fast_rcnn_head(roi_shape, units, num_classes, dropout_rate=0.0):
    """Fully connected layers behind RoI pooling, class and boxes (Girshick 2015, section 2).

    Two sibling layers give the logits of the classes and of the background, which comes first,
    and offsets for each of them. Those of the background aren't used; the authors' code has them,
    and parameter counts include them.

    Args:
        roi_shape: (h, w, D) of a region's features.
        units: of the fully connected layers.
        num_classes: C.
        dropout_rate: behind each of them.

    Returns:
        functional `keras.Model` from (B, h, w, D) to "logits" (B, C + 1) and "offsets"
        (B, C + 1, 4), float32.
    """
    features = keras.Input(roi_shape, name="features")
    x = layers.Flatten(name="flatten")(features)
    for i, number in enumerate(units, start=6):
        x = layers.Dense(number, activation="relu", name=f"fc{i}")(x)
        if dropout_rate > 0.0:
            x = layers.Dropout(dropout_rate, name=f"dropout{i}")(x)
    normal = keras.initializers.RandomNormal
    logits = layers.Dense(
        num_classes + 1, kernel_initializer=normal(stddev=0.01), dtype="float32", name="logits"
    )(x)
    offsets = layers.Dense(
        4 * (num_classes + 1),
        kernel_initializer=normal(stddev=0.001),
        dtype="float32",
        name="offsets",
    )(x)
    offsets = layers.Reshape((num_classes + 1, 4), dtype="float32")(offsets)
    return keras.Model(features, {"logits": logits, "offsets": offsets}, name="head")


def start_from_vgg16(network, head, weights):
    """Gives the head fc6 and fc7 of a VGG classifier, and freezes conv1 and conv2."""
    for name in ("block1_conv1", "block1_conv2", "block2_conv1", "block2_conv2"):
        network.get_layer(name).trainable = False
    if weights != "imagenet":
        for name, (kernel, bias) in read_fully_connected(weights).items():
            layer = head.get_layer({"fc1": "fc6", "fc2": "fc7"}[name])
            layer.set_weights([kernel.reshape(layer.kernel.shape), bias])


# --- Regions, losses, detections ---------------------------------------------------------


@keras.saving.register_keras_serializable("kerasvision")
class FastRCNN(ProposalDetector):
    """RoI pooling, and a head that classifies regions and moves them.

    `fast_rcnn` and its sisters build it.

    Args:
        network: functional `keras.Model` from images to their map.
        head: as from `fast_rcnn_head`.
        num_classes: C.
        class_names: C names; None: "0", "1", ….
        fixed_proposals, num_proposals, search_mode: as in `ProposalDetector`.
        num_samples: regions of a picture in a mini-batch: 128 from two pictures, of which a
            quarter have an IoU of at least 0.5 with an object (section 2.3).
        background_range: (low, high) of the IoU of the others. From 0.1 on is a "heuristic for
            hard example mining".
        iou_threshold, score_threshold, max_detections: of the suppression class by class.
    """

    def __init__(
        self,
        network,
        head,
        num_classes,
        class_names=None,
        fixed_proposals=None,
        num_proposals=2000,
        search_mode="fast",
        num_samples=64,
        background_range=(0.1, 0.5),
        iou_threshold=0.3,
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
            fixed_proposals=fixed_proposals,
            num_proposals=num_proposals,
            search_mode=search_mode,
            **kwargs,
        )
        self.loss_trackers = {
            name: keras.metrics.Mean(name=name)
            for name in ("classification_loss", "regression_loss")
        }

    def extract(self, images, regions, training=False):
        """Features (B, R, 7, 7, D) of regions (B, R, 4): RoI max pooling (section 2.1)."""
        return self.pool(self.network(images, training=training), regions)

    def pool(self, maps, regions):
        """Features (B, R, 7, 7, D) of regions (B, R, 4) of maps (B, h, w, D)."""
        return roi_max_pooling(maps, regions, self.head.input_shape[1:3])

    def classify(self, features, proposals):
        """Detections of features (B, R, 7, 7, D) of proposals (B, R, 4)."""
        boxes, scores = self.decode(self.outputs_of(features), proposals)
        return self.suppress(boxes, scores, box_ops.area(proposals) > 0.0)

    def detections(self, raw):
        """Detections of what the network gave, with the fixed proposals."""
        proposals = self.fixed_proposals[None]
        return self.classify(self.pool(raw["maps"], proposals), proposals)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The multi-task loss (section 2.3, equation 1), on average, and the layers' penalties."""
        boxes = ops.cast(x["bounding_boxes"]["boxes"], "float32")
        labels = ops.cast(x["bounding_boxes"]["labels"], "int32")
        classification, regression, counted = self.losses_of_regions(y_pred, boxes, labels)
        number = ops.maximum(replica_sum(ops.sum(ops.cast(counted, "float32"))), 1.0)
        losses = {
            "classification_loss": ops.sum(classification) / number,
            "regression_loss": ops.sum(regression) / number,
        }
        for name, loss in losses.items():
            self.loss_trackers[name].update_state(replica_sum(loss))
        return sum(losses.values()) + sum(penalty / replica_sum(1.0) for penalty in self.losses)
