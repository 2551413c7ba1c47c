"""One way to load what was trained to generate."""

# Registers the classes that .keras files name.
from kerasvision import layers  # noqa: F401
from kerasvision.generative.adversarial import AdversarialModel
from kerasvision.training import run_folder


def load_generative(path):
    """Loads a `GAN`, `WGANGP`, `Pix2Pix` or `CycleGAN` from a run folder or a .keras file.

    Raises:
        ValueError: there is none at the path.
    """
    model = run_folder.load_model(path)
    if not isinstance(model, AdversarialModel):
        raise ValueError(
            f"{path}: must hold a GAN, Pix2Pix or CycleGAN; received: {type(model).__name__}"
        )
    return model
