"""Object detectors."""

from kerasvision.detection.detector import Detector
from kerasvision.detection.faster_rcnn import (
    FasterRCNN,
    faster_rcnn,
    faster_rcnn_mobilenet_v2,
    faster_rcnn_resnet50,
    faster_rcnn_vgg16,
)
from kerasvision.detection.loading import load_detector
from kerasvision.detection.retinanet import (
    RetinaNet,
    retinanet,
    retinanet_mobilenet_v2,
    retinanet_resnet50,
)
from kerasvision.detection.single_stage import SingleStageDetector
from kerasvision.detection.ssd import SSD, ssd300, ssd512, ssd_resnet18, ssdlite
