"""Semantic segmentation: what every pixel of a picture belongs to."""

from kerasvision.segmentation.deconvnet import deconvnet
from kerasvision.segmentation.fcn import fcn8s, fcn16s, fcn32s
from kerasvision.segmentation.loading import load_segmenter
from kerasvision.segmentation.refinenet import (
    refinenet,
    refinenet_mobilenet_v2,
    refinenet_resnet50,
    refinenet_resnet101,
)
from kerasvision.segmentation.segmenter import Segmenter
from kerasvision.segmentation.segnet import segnet, segnet_basic
from kerasvision.segmentation.unet import unet
from kerasvision.segmentation.vgg_encoder import fit_batch_norm
