"""One way to load a classifier, whatever form it was saved in."""

import pathlib

# Registers the classes that .keras files name.
from kerasvision import layers  # noqa: F401
from kerasvision.backbones import lenet  # noqa: F401
from kerasvision.classification.adversarial_training import AdversarialClassifier  # noqa: F401
from kerasvision.classification.classifier import Classifier
from kerasvision.training import run_folder


def load_classifier(path):
    """Loads a classifier from a run folder, a .keras file, a SavedModel or a .tflite file.

    Returns:
        An object with `predict_on_batch` (images (B, H, W, 3), RGB, 0 to 255, to probabilities
        (B, C), an array), `class_names` and `image_shape` (H, W, 3). From a run folder or a
        .keras file it is the `Classifier` itself.

    Raises:
        ValueError: there is no classifier at the path.
    """
    path = pathlib.Path(path)
    if path.suffix == ".tflite" and path.is_file():
        from kerasvision.export import LiteRTClassifier

        return LiteRTClassifier(path)
    if (path / "saved_model.pb").is_file():
        from kerasvision.export import SavedModelClassifier

        return SavedModelClassifier(path)
    model = run_folder.load_model(path)
    if not isinstance(model, Classifier):
        raise ValueError(f"{path}: must hold a Classifier; received: {type(model).__name__}")
    return model
