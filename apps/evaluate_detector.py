"""Measures a detector by COCO's metrics.

  python apps/evaluate_detector.py --model=runs/quickstart --dataset=scenes --split=test
  python apps/evaluate_detector.py --model=runs/quickstart/model_int8.tflite --dataset=scenes

--model is a run folder, a .keras file, a SavedModel folder or a .tflite file. The folder
--workdir gets metrics.json, with the COCO metrics and the seconds spent, and samples.png,
pictures of the split with ground truth beside prediction. Masks and keypoints of a detector that
finds them are measured too, on scenes and coco:ANNOTATIONS.json.
"""

import sys
import time

from absl import flags

from kerasvision.training import app, run_folder

flags.DEFINE_string("model", None, "Run folder, .keras file, SavedModel folder or .tflite file.")
flags.DEFINE_string("dataset", "scenes", app.DETECTION_DATASETS)
flags.DEFINE_string("split", "val", "Split to evaluate on.")
flags.DEFINE_string("data_dir", None, "Folder of TensorFlow Datasets' files.")
flags.DEFINE_bool("download", False, "Download a data set that is not there yet.")
flags.DEFINE_string("workdir", "runs/evaluate_detector", "Folder for the results.")
flags.DEFINE_integer("batch_size", 16, "Pictures in a step.", lower_bound=1)


def run(config):
    """Evaluates and draws; `config` has the flags as attributes."""
    started = time.perf_counter()
    if config.model is None:
        raise run_folder.RunError("--model: name a run folder or a model file; received: nothing")
    workdir = run_folder.make_folder(config.workdir, space_needed=10e6)
    app.import_tensorflow()
    import numpy as np

    from kerasvision import data
    from kerasvision.detection import evaluation, load_detector
    from kerasvision.metrics.coco import format_table

    detector = load_detector(config.model)
    parts = {}
    if config.dataset == "scenes" or config.dataset.startswith("coco:"):
        # What a detector finds, whatever form it has, is seen on any picture.
        found = detector.predict_on_batch(np.zeros((1, *detector.image_shape), "uint8"))
        parts = {name: name in found for name in ("masks", "keypoints")}
    dataset = data.load(
        config.dataset, config.split, data_dir=config.data_dir, download=config.download, **parts
    )
    for problem in dataset.problems:
        print(problem)
    if dataset.class_names != list(detector.class_names):
        raise run_folder.RunError(
            f"--dataset={config.dataset}: its classes must be those of --model={config.model}, "
            f"{list(detector.class_names)}; received: {dataset.class_names}"
        )
    batches = data.batches(dataset, detector.image_shape, config.batch_size)
    before = time.perf_counter()
    metrics = evaluation.evaluate(detector, batches, dataset.ground_truth(), sys.stdout.isatty())
    seconds = {"evaluation": time.perf_counter() - before}
    evaluation.draw_samples(detector, batches, workdir / "samples.png")
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
    print(f"\n{seconds['total']:.0f} s; metrics.json and samples.png are in {workdir}")
    return metrics


def main(argv):
    del argv
    run(flags.FLAGS)


if __name__ == "__main__":
    app.run_main(main, __doc__)
