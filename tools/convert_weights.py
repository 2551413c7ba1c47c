"""Turns a file of weights into a classifier: a .keras file that the apps and exporters take.

  python tools/convert_weights.py --model=mobilenet_v2 --weights=mobilenet_v2.npz \\
      --output=mobilenet_v2.keras --class_names=tools/imagenet_labels.txt

--weights is a state dict of torchvision or timm, as .safetensors or as .npz, as this makes it:

  numpy.savez("x.npz", **{name: p.numpy() for name, p in model.state_dict().items()})

Files of keras.applications (.h5), or "imagenet" for those that it publishes, and Darknet's .weights
are taken too. A file brings its own normalisation, padding and epsilons: the .keras file has them
inside and takes RGB pictures, 0 to 255. The docstrings in kerasvision/backbones say which files a
network takes.
imagenet_labels.txt has torchvision's names of ImageNet's 1000 classes.
"""

import inspect
import pathlib

import numpy as np
from absl import flags

from kerasvision.training import app, run_folder

MODELS = (
    "alexnet_one_tower",
    "cifar_resnet",
    "darknet19",
    "darknet53",
    "darknet_tiny",
    "densenet121",
    "densenet169",
    "densenet201",
    "inception_resnet_v2",
    "inception_v3",
    "mobilenet_v2",
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

flags.DEFINE_enum("model", None, MODELS, "Function of kerasvision.backbones.")
flags.DEFINE_string("weights", None, 'File of weights, or "imagenet".')
flags.DEFINE_string("output", None, ".keras file to write.")
flags.DEFINE_integer("num_classes", None, "Of the file. Default: the network's.", lower_bound=1)
flags.DEFINE_integer("image_size", None, "Side of the pictures. Default: the network's.")
flags.DEFINE_string("class_names", None, "Text file, a line a class. Default: 0, 1, ….")
flags.DEFINE_integer("depth", None, "Layers of cifar_resnet, such as 20 or 56.")
flags.DEFINE_float("width_multiplier", None, "Of mobilenet_v2.")


def read_class_names(path):
    """The lines of a text file; blank ones at its end don't count."""
    try:
        names = pathlib.Path(path).read_text(encoding="utf-8").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise run_folder.RunError(
            f"--class_names={path}: must be a text file; received: {error}"
        ) from None
    blank = [number for number, name in enumerate(names, start=1) if not name.strip()]
    if blank or not names:
        raise run_folder.RunError(
            f"--class_names={path}: must have a name in each line; "
            f"received: {f'line {blank[0]} is blank' if blank else 'no names'}"
        )
    return [name.strip() for name in names]


def run(config):
    """Converts; `config` has the flags as attributes."""
    for name in ("model", "weights", "output"):
        if getattr(config, name) is None:
            raise run_folder.RunError(f"--{name}: must be given; received: nothing")
    output = pathlib.Path(config.output)
    if output.suffix != ".keras":
        raise run_folder.RunError(f"--output: must end with .keras; received: {config.output}")
    class_names = None if config.class_names is None else read_class_names(config.class_names)

    app.import_tensorflow()
    from kerasvision import backbones
    from kerasvision.classification import Classifier

    build = getattr(backbones, config.model)
    side = config.image_size
    arguments = {
        "image_shape": None if side is None else (side, side, 3),
        "num_classes": config.num_classes,
        "depth": config.depth,
        "width_multiplier": config.width_multiplier,
    }
    arguments = {name: value for name, value in arguments.items() if value is not None}
    unknown = arguments.keys() - inspect.signature(build).parameters
    if unknown:
        raise run_folder.RunError(
            f"--{unknown.pop()}: {config.model} has none; received: --model={config.model}"
        )
    network = build(weights=config.weights, classifier_activation=None, **arguments)
    num_classes = network.output_shape[-1]
    if class_names is not None and len(class_names) != num_classes:
        raise run_folder.RunError(
            f"--class_names={config.class_names}: must have {num_classes} lines, one a class of "
            f"{config.model}; received: {len(class_names)}"
        )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        Classifier(network, class_names).save(output)
    except OSError as error:
        raise run_folder.RunError(
            f"--output={output}: can't be written; received: {error}"
        ) from None

    normalize = network.get_layer("normalize")
    scale, offset = (
        "(" + ", ".join(f"{value:.4g}" for value in np.ravel(values)) + ")"
        for values in (normalize.scale, normalize.offset)
    )
    height, width, _ = network.input_shape[1:]
    print(
        f"{output}: {config.model}, {num_classes} classes, {height} x {width} pixels, "
        f"{network.count_params():,} parameters, {output.stat().st_size / 1e6:.1f} MB; "
        f"inside, pictures (0 to 255) are multiplied by {scale} and {offset} is added"
    )


def main(argv):
    del argv
    run(flags.FLAGS)


if __name__ == "__main__":
    app.run_main(main, __doc__)
