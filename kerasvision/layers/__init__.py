"""Keras layers over `kerasvision.ops`."""

from kerasvision.layers.non_max_suppression import NonMaxSuppression
from kerasvision.layers.normalization import L2Normalization
