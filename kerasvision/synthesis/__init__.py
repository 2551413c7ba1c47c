"""Pictures made by the gradient with respect to them: looking into networks."""

from kerasvision.synthesis.activation_maximization import ActivationMaximization, logits_of
from kerasvision.synthesis.deepdream import DeepDream, stages
from kerasvision.synthesis.features import features, network_of, total_variation
from kerasvision.synthesis.inversion import Inversion, reconstruction_errors
from kerasvision.synthesis.loading import load_network
