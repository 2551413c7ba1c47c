"""One way to load what was trained to embed."""

# Registers the classes that .keras files name.
from kerasvision import layers  # noqa: F401
from kerasvision.embedding.facenet import FaceNet
from kerasvision.embedding.posed import PoseDescriptor
from kerasvision.embedding.siamese import Siamese
from kerasvision.training import run_folder


def load_embedding(path):
    """Loads a `FaceNet`, `Siamese` or `PoseDescriptor` from a run folder or a .keras file.

    Raises:
        ValueError: there is none at the path.
    """
    model = run_folder.load_model(path)
    if not isinstance(model, (FaceNet, Siamese, PoseDescriptor)):
        raise ValueError(f"{path}: must hold an embedding; received: {type(model).__name__}")
    return model
