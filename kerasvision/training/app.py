"""What all apps share on the command line and at their start and end."""

import difflib
import os
import pathlib
import re
import sys

from absl import app, flags, logging

from kerasvision.training.quiet import quiet
from kerasvision.training.run_folder import RunError

DETECTION_DATASETS = "scenes (built in), tfds:NAME, voc:PATH, coco:ANNOTATIONS.json or yolo:PATH."
CLASSIFICATION_DATASETS = (
    "scenes (built in), fashion_mnist, digits, glyphs, folder:PATH (a folder a class) or tfds:NAME."
)
SEGMENTATION_DATASETS = (
    "scenes (built in), camvid:PATH or folder:PATH (pictures in SPLIT/images, PNG files of the "
    "same names in SPLIT/labels), or tfds:NAME."
)
PAIRED_DATASETS = (
    "scenes:labels or scenes:night (built in), camvid:PATH (colours of the labels, and the "
    "picture), pairs:PATH (side by side in SPLIT/*.jpg) or folders:PATH (of the same names in "
    "SPLITA and SPLITB)."
)
UNPAIRED_DATASETS = (
    "folders:PATH (SPLITA and SPLITB), tfds:cycle_gan/NAME, or scenes:labels, scenes:night (built "
    "in), camvid:PATH and pairs:PATH, of whose pairs every other one gives x, the rest y."
)
IDENTITY_DATASETS = (
    "folder:PATH (a folder a person, or PATH/SPLIT/PERSON; PGM files too), fashion_mnist, digits, "
    "glyphs (letters of many typefaces), scenes (built in) or tfds:NAME, whose classes take the "
    "place of persons."
)
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".pgm")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")

# The flags defined below count as the app's own, so that its --help shows them.
flags.disclaim_key_flags()


def define_flags(workdir, dataset, dataset_help):
    """Defines the flags that every training app has.

    Args:
        workdir, dataset: their defaults.
        dataset_help: the data sets that --dataset can name, in words.
    """
    flags.DEFINE_string("workdir", workdir, "Run folder: all that the run writes is here.")
    flags.DEFINE_integer("seed", 0, "Seed of everything random: the same seed, the same run.")
    flags.DEFINE_string("dataset", dataset, dataset_help)
    flags.DEFINE_string(
        "data_dir", None, "Folder of the files of TensorFlow Datasets or Fashion-MNIST."
    )
    flags.DEFINE_bool("download", False, "Download a data set that is not there yet.")
    flags.DEFINE_bool(
        "mixed_precision", False, "Compute in bfloat16 (slower on most CPUs), keep float32 weights."
    )
    flags.DEFINE_bool(
        "jit_compile", None, "Compile the training step with XLA. Default: on GPUs, not on CPUs."
    )
    flags.DEFINE_enum(
        "strategy", "none", ["none", "mirrored"], "One device, or all of this machine."
    )
    flags.DEFINE_bool("resume", True, "Go on from the last checkpoint of --workdir.")
    flags.DEFINE_string("train_split", "train", "Split to train on.")
    flags.DEFINE_string("val_split", "val", "Split that is evaluated during training.")
    flags.DEFINE_string(
        "test_split", None, "Split of the final metrics and pictures. Default: --val_split."
    )


def define_tile_flags(tiles_help):
    """Defines --tiles, with this help, and how tiles are predicted: the segmenter's apps have them.

    `check_tile_flags` tells whether they fit together.
    """
    flags.DEFINE_bool("tiles", False, tiles_help)
    flags.DEFINE_integer("margin", None, "Pixels of a tile's prediction thrown away on each side.")
    flags.DEFINE_bool(
        "average_turns",
        False,
        "With --tiles, for cells and aerial views: average what is said, after training, of a "
        "picture turned and mirrored in eight ways; usually better, and eight times as slow.",
    )


def define_identity_flags():
    """Defines the flags of apps that learn from batches of P persons with K pictures each."""
    flags.DEFINE_string(
        "train_classes", None, "Persons or classes to learn from, as 0:22 or 0,3,7. Default: all."
    )
    flags.DEFINE_string(
        "val_classes", None, "Others, that judge: none of --train_classes. Default: all."
    )
    flags.DEFINE_string("val_dataset", None, "Set that judges. Default: --dataset.")
    flags.DEFINE_integer("identities", 8, "P, persons in a batch.", lower_bound=1)
    flags.DEFINE_integer("pictures_each", 4, "K, pictures of each of them.", lower_bound=2)
    flags.DEFINE_integer("epochs", 30, "Of --steps_per_epoch batches each.", lower_bound=1)
    flags.DEFINE_integer(
        "steps_per_epoch", None, "Default: as many as have the pictures of the data set once.", 1
    )
    flags.DEFINE_enum("optimizer", "adamw", ["sgd", "adamw"], "SGD with momentum 0.9, or AdamW.")
    flags.DEFINE_float("learning_rate", 0.001, "Highest learning rate; it falls to 0 as a cosine.")
    flags.DEFINE_float("warmup_epochs", 1.0, "Epochs in which the learning rate rises to it.")
    flags.DEFINE_float("weight_decay", 0.05, "Of kernels, decoupled from the gradient.")
    flags.DEFINE_bool("flip", True, "Swap left and right in half of the pictures.")
    flags.DEFINE_integer("pad", 0, "Pixels around a picture of which it is cropped again.", 0)
    flags.DEFINE_float(
        "min_area", 1.0, "Smallest part of a picture that a crop has; 1: all.", 0.01, 1.0
    )
    flags.DEFINE_float("randaugment", 0.0, "Strength of RandAugment, 0 (none) to 1.", 0.0, 1.0)
    flags.DEFINE_float(
        "distortion",
        0.0,
        "Strength of turning, shearing and bending, for characters; 0: none.",
        0.0,
    )
    flags.DEFINE_float(
        "min_resolution", 1.0, "Least share of its resolution that a picture keeps.", 0.01, 1.0
    )
    flags.DEFINE_integer("eval_every", 5, "Epochs between evaluations.", lower_bound=1)
    flags.DEFINE_integer("eval_batch_size", 64, "Pictures at a time, in evaluations.", 1)
    flags.DEFINE_bool(
        "deterministic", False, "Same seed, same numbers to the last bit; up to twice as slow."
    )
    flags.DEFINE_list(
        "export", "saved_model,float32,float16", "What to export: saved_model and/or precisions."
    )


def define_network_flags():
    """Defines the flags of the apps that look into a network by way of a picture."""
    flags.DEFINE_string(
        "model", None, "Run folder, .keras file, or name of a network in kerasvision.backbones."
    )
    flags.DEFINE_string(
        "backbone_weights", None, 'Of a --model given by its name: file of weights, or "imagenet".'
    )
    flags.DEFINE_integer("seed", 0, "Seed of everything random: the same seed, the same pictures.")
    flags.DEFINE_bool("jit_compile", False, "Compile the steps with XLA: for GPUs.")


def define_picture_flags(max_side):
    """Defines --input, and --max_side with this default."""
    flags.DEFINE_string("input", None, "A picture, or a folder of pictures.")
    flags.DEFINE_integer(
        "max_side", max_side, "Larger pictures are shrunk to it, in pixels; 0: none.", lower_bound=0
    )


def check_needed(config, names):
    """Refuses a run without one of these flags.

    Raises:
        RunError: it is not set.
    """
    for name in names:
        if getattr(config, name) is None:
            raise RunError(f"--{name}: is needed; received: nothing")


def read_integers(name, values):
    """The numbers of the flag --`name`, a list of text, or None.

    Raises:
        RunError: something else is among them.
    """
    if values is not None and not all(value.strip().isdigit() for value in values):
        raise RunError(f"--{name}: must be numbers from 0 on; received: {','.join(values)}")
    return None if values is None else [int(value) for value in values]


def class_number(flag, text, class_names):
    """The number of the class that the flag --`flag` names, or gives.

    Raises:
        RunError: there is none, or several have the name.
    """
    matches = [number for number, name in enumerate(class_names) if name == text]
    if len(matches) > 1:
        raise RunError(
            f"--{flag}={text}: several classes have this name, give one's number: "
            f"{', '.join(map(str, matches))}"
        )
    if matches:
        return matches[0]
    if re.fullmatch(r"-?\d+", text):
        if not 0 <= int(text) < len(class_names):
            raise RunError(
                f"--{flag}: must be a class from 0 to {len(class_names) - 1}; received: {text}"
            )
        return int(text)
    lower = {name.lower(): name for name in class_names}
    near = difflib.get_close_matches(text.lower(), lower, 5, 0.5)
    hint = f"did you mean {', '.join(lower[name] for name in near)}?" if near else "none is near"
    raise RunError(f"--{flag}: must be a class of the network; received: {text} ({hint})")


def check_tile_flags(config):
    """Refuses --average_turns without --tiles.

    Raises:
        RunError: it is set.
    """
    if config.average_turns and not config.tiles:
        raise RunError("--average_turns: needs --tiles; received: --notiles")


def refuse_unheeded(config, choice, heeded_by):
    """Refuses flags that what was chosen would not heed; unset ones are None.

    Args:
        config: has the flags as attributes.
        choice: name of the flag that chooses, such as "model".
        heeded_by: dict of a flag's name to the values of `choice` that heed it.

    Raises:
        RunError: such a flag is set.
    """
    chosen = getattr(config, choice)
    for name, values in heeded_by.items():
        if getattr(config, name) is not None and chosen not in values:
            raise RunError(
                f"--{name}: is for --{choice}={', '.join(values)}; received: --{choice}={chosen}"
            )


def import_tensorflow():
    """Imports TensorFlow, whose notes at its start, which no log level stops, would bury an app's.

    Apps do so when their flags have been checked: a mistake is told at once.
    """
    with quiet():
        import tensorflow  # noqa: F401


def start(seed, mixed_precision, deterministic):
    """Sets seed, precision and determinism of the process."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.mixed_precision.set_global_policy("mixed_bfloat16" if mixed_precision else "float32")


def load_splits(load, config):
    """Loads what a training app trains on, evaluates after epochs, and tests in the end.

    Args:
        load: `data.load`, `data.load_classification` or `data.load_segmentation`.
        config: has the flags of `define_flags` as attributes.

    Returns:
        (train, val, test), data sets with the same classes.

    Raises:
        RunError: a split has other classes.
    """
    splits = [config.train_split, config.val_split, config.test_split or config.val_split]
    loaded = {}
    for split in dict.fromkeys(splits):
        loaded[split] = load(
            config.dataset, split, data_dir=config.data_dir, download=config.download
        )
        for problem in loaded[split].problems:
            print(f"{split}: {problem}")
        class_names = loaded[config.train_split].class_names
        if loaded[split].class_names != class_names:
            raise RunError(
                f"--dataset={config.dataset}: split {split} must have the classes of split "
                f"{config.train_split}, {class_names}; received: {loaded[split].class_names}"
            )
    train, val, test = (loaded[split] for split in splits)
    names = ", ".join(train.class_names[:20])
    print(
        f"{config.dataset}: {train.num_examples} pictures to train on, {val.num_examples} to "
        f"validate, {test.num_examples} to test; {len(train.class_names)} classes: {names}"
        f"{', …' if len(train.class_names) > 20 else ''}"
    )
    return train, val, test


def load_identities(config):
    """Loads the persons that an embedding learns from, and those that judge it.

    Args:
        config: has the flags of `define_flags` and `define_identity_flags` as attributes.

    Returns:
        (train, val, test), `ClassificationDataset`s.

    Raises:
        RunError: a person that is learnt from would judge.
    """
    from kerasvision import data

    judges = config.val_dataset or config.dataset
    parts = {
        "train": (config.dataset, config.train_split, config.train_classes),
        "val": (judges, config.val_split, config.val_classes),
        "test": (judges, config.test_split or config.val_split, config.val_classes),
    }
    loaded = {}
    for part in dict.fromkeys(parts.values()):
        name, split, classes = part
        loaded[part] = data.load_identities(
            name,
            split,
            classes=classes,
            data_dir=config.data_dir,
            download=config.download,
        )
        for problem in loaded[part].problems:
            print(f"{split}, classes {classes or 'all'}: {problem}")
    train, val, test = (loaded[part] for part in parts.values())
    both = [name for name in train.class_names if name in {*val.class_names, *test.class_names}]
    if both:
        raise RunError(
            f"--val_classes={config.val_classes}: must be persons that are not in "
            f"--train_classes={config.train_classes}; received: {', '.join(both[:5])}"
            f"{' …' if len(both) > 5 else ''}"
        )
    print(
        f"{train.num_examples} pictures of {len(train.class_names)} persons of {train.name} to "
        f"train on; {test.num_examples} of {len(test.class_names)} others of {test.name} to judge"
    )
    return train, val, test


def load_pictures(load, config):
    """Loads what a translator trains on, is looked at in training, and is tested on in the end.

    Args:
        load: `data.load_pairs` or `data.load_unpaired`.
        config: has the flags of `define_flags` as attributes.

    Returns:
        (train, val, test), `TranslationDataset`s.
    """
    splits = [config.train_split, config.val_split, config.test_split or config.val_split]
    loaded = {}
    for split in dict.fromkeys(splits):
        loaded[split] = load(
            config.dataset, split, data_dir=config.data_dir, download=config.download
        )
        for problem in loaded[split].problems:
            print(f"{split}: {problem}")
    train, val, test = (loaded[split] for split in splits)
    count = f"{train.num_examples} pairs"
    if not train.paired:
        count = f"{train.x.num_examples} pictures x and {train.y.num_examples} y"
    print(f"{config.dataset}: {count} to train on, {test.num_examples} to test")
    return train, val, test


def read_size(name, text):
    """(height, width) that the flag --`name` gives as HEIGHTxWIDTH.

    Raises:
        RunError: it is something else.
    """
    sides = text.split("x")
    if len(sides) != 2 or not all(side.isdigit() and int(side) > 0 for side in sides):
        raise RunError(f"--{name}: must be HEIGHTxWIDTH; received: {text}")
    return tuple(map(int, sides))


def read_epsilon(name, text):
    """The length in units of 0 to 255 that the flag --`name` gives: 4 or, the same, 4/255.

    Raises:
        RunError: it is something else, or negative.
    """
    part, slash, whole = text.partition("/")
    try:
        value = 255 * float(part) / float(whole) if slash else float(part)
    except (ValueError, ZeroDivisionError):
        value = float("nan")
    if not 0 <= value < float("inf"):
        raise RunError(f"--{name}: must be like 4 or, the same, 4/255; received: {text}")
    return value


def compile_model(model, config, steps_per_epoch, schedule="cosine"):
    """Compiles a model with the optimizer, the strategy and the compiler that the flags ask for."""
    from kerasvision.training import optimizers, strategy

    if config.strategy != "none":
        strategy.synchronize_batch_norm(model)
    model.compile(
        optimizers.build_optimizer(
            config.optimizer,
            config.learning_rate,
            schedule,
            config.epochs,
            config.warmup_epochs,
            steps_per_epoch,
            config.weight_decay,
        ),
        jit_compile="auto" if config.jit_compile is None else config.jit_compile,
    )


def print_files(workdir, seconds):
    """Prints how long a run took and what it wrote."""
    print(f"\n{seconds:.0f} s; all of it is in {workdir}:")
    for path in sorted(workdir.iterdir()):
        if not path.name.startswith("."):
            print(f"  {path.name}{'/' if path.is_dir() else ''}")


def find_pictures(path):
    """The files that --input names: a file, or the pictures in a folder, sorted.

    Raises:
        RunError: there is nothing at the path, or no picture in the folder.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES)
        if not files:
            raise RunError(f"--input={path}: no picture there ({', '.join(PICTURES)})")
        return files
    if not path.is_file():
        raise RunError(f"--input={path}: there is no such file or folder")
    return [path]


def read_picture(flag, path, max_side, channels=3):
    """The picture (H, W, channels) float32, 0 to 255, of the file that a flag names.

    Args:
        flag: its name, for the message.
        path: of the file.
        max_side, channels: as of `kerasvision.data.pictures.as_input`.

    Raises:
        RunError: there is none, or it can't be read.
    """
    from kerasvision.data import pictures

    path, unreadable = pathlib.Path(path), []
    if not path.is_file():
        raise RunError(f"--{flag}={path}: there is no such file")
    for _, picture in pictures.read_files([path], unreadable):
        return pictures.as_input(picture, max_side, channels)
    raise RunError(f"--{flag}: {unreadable[0]}")


def run_main(main, description):
    """`app.run`, with help that starts with `description` and mistakes told in one line."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.modules["__main__"].__doc__ = description

    def one_line_errors(argv):
        if len(argv) > 1:
            sys.exit(f"error: flags start with --; received: {' '.join(argv[1:])}")
        logging.set_verbosity(logging.ERROR)
        try:
            main(argv)
        except (RunError, ValueError, FileNotFoundError) as error:
            if os.environ.get("KERASVISION_DEBUG"):
                raise
            sys.exit(f"error: {error}")

    app.run(one_line_errors)
