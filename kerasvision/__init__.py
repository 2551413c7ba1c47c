"""Classic convolutional vision systems as small Keras 3 models."""

__version__ = "0.1.0"
