"""Image classifiers: how they are trained, measured, and asked where they look."""

from kerasvision.classification.adversarial_training import (
    AdversarialClassifier,
    robust_accuracy,
)
from kerasvision.classification.box_regression import BoxRegressor, box_regressor
from kerasvision.classification.class_activation_maps import class_activation_maps
from kerasvision.classification.classifier import Classifier
from kerasvision.classification.dense import to_dense
from kerasvision.classification.loading import load_classifier
from kerasvision.classification.multi_crop import picture_predictor
from kerasvision.classification.weak_localization import WeakLocalizer, weak_localizer
