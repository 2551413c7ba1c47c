"""Object detectors."""

from kerasvision.detection.detector import Detector
from kerasvision.detection.fast_rcnn import FastRCNN, fast_rcnn, fast_rcnn_vgg16, rcnn_minus_r
from kerasvision.detection.faster_rcnn import (
    FasterRCNN,
    faster_rcnn,
    faster_rcnn_mobilenet_v2,
    faster_rcnn_resnet50,
    faster_rcnn_vgg16,
)
from kerasvision.detection.loading import load_detector
from kerasvision.detection.mask_rcnn import (
    MaskRCNN,
    keypoint_rcnn_mobilenet_v2,
    keypoint_rcnn_resnet50,
    mask_rcnn,
    mask_rcnn_mobilenet_v2,
    mask_rcnn_resnet50,
)
from kerasvision.detection.r_fcn import (
    RFCN,
    r_fcn,
    r_fcn_mobilenet_v2,
    r_fcn_resnet50,
    r_fcn_resnet101,
)
from kerasvision.detection.rcnn import RCNN, rcnn, rcnn_alexnet
from kerasvision.detection.retinanet import (
    RetinaNet,
    retinanet,
    retinanet_mobilenet_v2,
    retinanet_resnet50,
)
from kerasvision.detection.single_stage import SingleStageDetector
from kerasvision.detection.spp_net import SPPNet, spp_net
from kerasvision.detection.ssd import SSD, ssd300, ssd512, ssd_resnet18, ssdlite
from kerasvision.detection.word_tree import WordTree
from kerasvision.detection.yolo_v1 import (
    YOLOv1,
    yolo_v1,
    yolo_v1_fast,
    yolo_v1_full,
    yolo_v1_mobilenet_v2,
)
from kerasvision.detection.yolo_v2 import (
    YOLOv2,
    yolo_9000,
    yolo_v2,
    yolo_v2_darknet19,
    yolo_v2_mobilenet_v2,
)
from kerasvision.detection.yolo_v3 import (
    YOLOv3,
    yolo_v3,
    yolo_v3_darknet53,
    yolo_v3_mobilenet_v2,
    yolo_v3_tiny,
)
