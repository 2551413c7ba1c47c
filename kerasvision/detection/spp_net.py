"""SPP-net (He et al. 2014): R-CNN that computes the features of a picture once.

Of two regions that overlap R-CNN computes twice what they share. Convolutions don't care for the
size of the picture, only the fully connected layers do. So the picture goes through the
convolutions once, and spatial pyramid pooling makes features of one length of the part of the map
that a region covers, whatever its size. All else is R-CNN's: SVMs and box regressors.
"""

import keras

from kerasvision.detection.rcnn import RCNN, fully_connected_layers
from kerasvision.detection.region_detector import ProposalDetector, convolutional_layers
from kerasvision.ops.roi_pooling import spatial_pyramid_pooling

# Section 4.1: "a 4-level spatial pyramid (1x1, 2x2, 3x3, 6x6, totally 50 bins)".
LEVELS = (1, 2, 3, 6)


def spp_net(
    num_classes,
    image_shape=(256, 256, 3),
    backbone="mobilenet_v2",
    backbone_weights=None,
    class_names=None,
    units=(512, 512),
    **settings,
):
    """SPP-net on a classification network's convolutions.

    Args:
        num_classes: without the background.
        image_shape: (height, width, 3) of the pictures.
        backbone: name of a network in `kerasvision.detection.region_detector.CONV5`.
        backbone_weights: as its `weights`.
        class_names: names of the classes, for drawings.
        units: of fc6 and fc7.
        settings: of `SPPNet`.

    Returns:
        `SPPNet`.
    """
    network = convolutional_layers(backbone, image_shape, backbone_weights)
    bins = sum(level**2 for level in LEVELS)
    shape = (bins * network.output.shape[-1],)
    head = fully_connected_layers(shape, units, num_classes, dropout_rate=0.5)
    return SPPNet(network, head, num_classes, class_names=class_names, name="spp_net", **settings)


@keras.saving.register_keras_serializable("kerasvision")
class SPPNet(RCNN):
    """R-CNN with another way to the features of regions: spatial pyramid pooling (section 4.1).

    Fine-tuning leaves the convolutions as they are (section 4.1): the gradient of a region would
    have to go back through the whole picture. Fast R-CNN found a way round that.

    Args:
        network: functional `keras.Model` from images to their map; it won't be trained.
        head: as from `fully_connected_layers`.
        num_classes: C.
        background_range: (0.1, 0.5) is the paper's (section 4.1).

    Other arguments are those of `RCNN`.
    """

    def __init__(self, network, head, num_classes, background_range=(0.1, 0.5), **kwargs):
        network.trainable = False
        kwargs["image_shape"] = tuple(network.input_shape[1:])
        super().__init__(network, head, num_classes, background_range=background_range, **kwargs)

    def extract(self, images, regions, training=False):
        """Features (B, R, M * D) of regions (B, R, 4), of M bins each."""
        maps = self.network(images, training=False)
        return spatial_pyramid_pooling(maps, LEVELS, regions)

    def extract_on_batch(self, images, proposals):
        return ProposalDetector.extract_on_batch(self, images, proposals)
