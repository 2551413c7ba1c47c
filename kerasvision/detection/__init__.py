"""Object detectors."""

from kerasvision.detection.loading import load_detector
from kerasvision.detection.ssd import SSD, ssd300, ssd512, ssd_resnet18, ssdlite
