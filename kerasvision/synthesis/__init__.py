"""Pictures made by the gradient with respect to them: looking into networks."""

from kerasvision.synthesis.activation_maximization import ActivationMaximization
from kerasvision.synthesis.ageing import DeepAgeing, FaceSpace
from kerasvision.synthesis.deepdream import DeepDream, stages
from kerasvision.synthesis.fast_style import FastStyle, transformer
from kerasvision.synthesis.features import (
    check_image_size,
    features,
    logits_of,
    network_of,
    total_variation,
)
from kerasvision.synthesis.fooling import CPPNEncoding, DirectEncoding, MapElites
from kerasvision.synthesis.inversion import Inversion, reconstruction_errors
from kerasvision.synthesis.loading import load_network
from kerasvision.synthesis.style import StyleLoss, StyleTransfer, stylize_frames
