"""One way to load the network that is looked into."""

import pathlib

# Registers the classes that .keras files name.
from kerasvision import (  # noqa: F401
    backbones,
    classification,
    detection,
    generative,
    layers,
    segmentation,
)
from kerasvision.synthesis.features import network_of
from kerasvision.training import run_folder

# Of kerasvision.backbones, those with weights to load.
BACKBONES = (
    "alexnet",
    "alexnet_one_tower",
    "cifar_densenet",
    "cifar_resnet",
    "darknet19",
    "darknet53",
    "darknet_tiny",
    "densenet121",
    "densenet169",
    "densenet201",
    "googlenet",
    "inception_resnet_v2",
    "inception_v3",
    "mobilenet_v2",
    "network_in_network",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "squeezenet",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
)


def load_network(model, backbone_weights=None, include_top=False):
    """Loads a network to look into.

    Args:
        model: name of a network of `kerasvision.backbones`; or path of a run folder or of a
            .keras file.
        backbone_weights: of a network given by its name: path of a file that it takes, or
            "imagenet".
        include_top: whether a network given by its name is wanted with its classifier.

    Returns:
        network: functional `keras.Model`; one given by its name takes pictures of any size, if
            it is without the classifier.
        class_names: of a model of ours that has them, else None.

    Raises:
        ValueError: there is no such model, no weights for it, or none can be looked into.
    """
    if model not in BACKBONES:
        if not pathlib.Path(model).exists():
            raise ValueError(
                f"--model={model}: must be a run folder, a .keras file or a network of "
                f"kerasvision.backbones ({', '.join(BACKBONES)})"
            )
        if backbone_weights is not None:
            raise ValueError(
                f"--backbone_weights: is for a --model given by its name, such as vgg16; received: "
                f"--model={model}"
            )
        loaded = run_folder.load_model(model)
        return network_of(loaded), getattr(loaded, "class_names", None)
    if backbone_weights is None:
        raise ValueError(
            f"--backbone_weights: is needed with --model={model}, a file of its weights or "
            "imagenet; received: nothing"
        )
    if backbone_weights != "imagenet" and not pathlib.Path(backbone_weights).is_file():
        raise ValueError(f"--backbone_weights={backbone_weights}: there is no such file")
    build = getattr(backbones, model)
    if include_top:
        return build(weights=backbone_weights), None
    return build((None, None, 3), include_top=False, weights=backbone_weights), None
