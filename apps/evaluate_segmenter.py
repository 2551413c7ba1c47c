"""Measures a segmenter: mean IoU, accuracy, boundary F1, and what it takes for what.

  python apps/evaluate_segmenter.py --model=runs/streets --dataset=camvid:CAMVID --split=val
  python apps/evaluate_segmenter.py --model=runs/streets/model_int8.tflite --dataset=camvid:CAMVID

--model is a run folder, a .keras file, a SavedModel folder or a .tflite file. The folder
--workdir gets metrics.json, with the numbers and the seconds spent; classes.png, the IoU of every
class; confusion.png and confusion.csv, how many pixels of each class were taken for each; and
samples.png, pictures with ground truth beside prediction. Measured is at the pictures' own size.
"""

import sys
import time

from absl import flags

from kerasvision.training import app, run_folder

flags.DEFINE_string("model", None, "Run folder, .keras file, SavedModel folder or .tflite file.")
flags.DEFINE_string("dataset", "scenes", app.SEGMENTATION_DATASETS)
flags.DEFINE_string("split", "val", "Split to evaluate on.")
flags.DEFINE_string("class_list", None, "Meaning of the label files' values, as in training.")
flags.DEFINE_string("data_dir", None, "Folder of TensorFlow Datasets' files.")
flags.DEFINE_bool("download", False, "Download a data set that is not there yet.")
app.define_tile_flags("Look at pictures in their own resolution, tile by tile, instead of resized.")
flags.DEFINE_string(
    "cells",
    None,
    "Class of the cells, for the errors of their membranes as in the ISBI challenge of 2012.",
)
flags.DEFINE_string("workdir", "runs/evaluate_segmenter", "Folder for the results.")


def run(config):
    """Evaluates and draws; `config` has the flags as attributes."""
    started = time.perf_counter()
    if config.model is None:
        raise run_folder.RunError("--model: name a run folder or a model file; received: nothing")
    app.check_tile_flags(config)
    workdir = run_folder.make_folder(config.workdir, space_needed=10e6)
    app.import_tensorflow()
    from kerasvision import data
    from kerasvision.metrics.segmentation import format_table
    from kerasvision.segmentation import evaluation, load_segmenter

    segmenter = load_segmenter(config.model)
    dataset = data.load_segmentation(
        config.dataset,
        config.split,
        class_list=config.class_list,
        data_dir=config.data_dir,
        download=config.download,
    )
    for problem in dataset.problems:
        print(problem)
    if dataset.class_names != list(segmenter.class_names):
        raise run_folder.RunError(
            f"--dataset={config.dataset}: its classes must be those of --model={config.model}, "
            f"{list(segmenter.class_names)}; received: {dataset.class_names}"
        )
    before = time.perf_counter()
    metrics = evaluation.evaluate(
        segmenter,
        dataset,
        workdir,
        config.tiles,
        config.margin,
        config.average_turns,
        config.cells,
        progress=sys.stdout.isatty(),
    )
    seconds = {"evaluation": time.perf_counter() - before}
    seconds["total"] = time.perf_counter() - started
    metrics.update(
        model=str(config.model),
        dataset=config.dataset,
        split=dataset.split,
        pictures=dataset.num_examples,
        seconds={name: round(value, 1) for name, value in seconds.items()},
    )
    run_folder.write_json(workdir / "metrics.json", metrics)
    print(format_table(metrics))
    print(f"\n{seconds['total']:.0f} s; metrics.json and pictures are in {workdir}")
    return metrics


def main(argv):
    del argv
    run(flags.FLAGS)


if __name__ == "__main__":
    app.run_main(main, __doc__)
