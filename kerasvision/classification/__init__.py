"""Image classifiers."""

from kerasvision.classification.classifier import Classifier
from kerasvision.classification.loading import load_classifier
