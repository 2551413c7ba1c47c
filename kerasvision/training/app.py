"""What all apps share on the command line and at their start and end."""

import os
import sys

from absl import app, flags, logging

from kerasvision.training.quiet import quiet
from kerasvision.training.run_folder import RunError

DATASET_HELP = "scenes (built in), tfds:NAME, voc:PATH, coco:ANNOTATIONS.json or yolo:PATH."


def define_flags(workdir, dataset):
    """Defines the flags that every app has; the arguments are their defaults."""
    flags.DEFINE_string("workdir", workdir, "Run folder: all that the run writes is here.")
    flags.DEFINE_integer("seed", 0, "Seed of everything random: the same seed, the same run.")
    flags.DEFINE_string("dataset", dataset, DATASET_HELP)
    flags.DEFINE_string("data_dir", None, "Folder of TensorFlow Datasets' files.")
    flags.DEFINE_bool("download", False, "Download a tfds: set that is not there yet.")
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


def start(seed, mixed_precision, deterministic):
    """Sets seed, precision and determinism of the process."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.mixed_precision.set_global_policy("mixed_bfloat16" if mixed_precision else "float32")


def run_main(main, description):
    """`app.run`, with help that starts with `description` and mistakes told in one line."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.modules["__main__"].__doc__ = description

    def one_line_errors(argv):
        if len(argv) > 1:
            sys.exit(f"error: flags start with --; received: {' '.join(argv[1:])}")
        logging.set_verbosity(logging.ERROR)
        # TensorFlow's notes at its start, which no log level stops, would bury the app's own lines.
        with quiet():
            import tensorflow  # noqa: F401
        try:
            main(argv)
        except (RunError, ValueError, FileNotFoundError) as error:
            if os.environ.get("KERASVISION_DEBUG"):
                raise
            sys.exit(f"error: {error}")

    app.run(one_line_errors)
