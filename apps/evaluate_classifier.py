"""Measures a classifier: accuracy in several forms, and what it mistakes for what.

  python apps/evaluate_classifier.py --model=runs/quickstart --dataset=digits --split=test
  python apps/evaluate_classifier.py --model=runs/quickstart/model_int8.tflite --dataset=digits
  python apps/evaluate_classifier.py --model=runs/my_vgg --dataset=folder:MY_PICTURES --crops=dense

--model is a run folder, a .keras file, a SavedModel folder or a .tflite file. The folder
--workdir gets metrics.json, with top-1, top-5, every class's accuracy, what of the accuracy is left
under attack with --adversarial_epsilon, and the seconds spent;
confusion.png and confusion.csv, how often each class was taken for each; most_confused.png, the
mistakes with the highest scores; and samples.png, pictures with the best predictions.
"""

import sys
import time
import types

from absl import flags

from kerasvision.training import app, run_folder

flags.DEFINE_string("model", None, "Run folder, .keras file, SavedModel folder or .tflite file.")
flags.DEFINE_string("dataset", "scenes", app.CLASSIFICATION_DATASETS)
flags.DEFINE_string("split", "val", "Split to evaluate on.")
flags.DEFINE_string(
    "data_dir", None, "Folder of the files of TensorFlow Datasets or Fashion-MNIST."
)
flags.DEFINE_bool("download", False, "Download a data set that is not there yet.")
flags.DEFINE_enum(
    "crops",
    "single",
    ["single", "ten_crop", "dense"],
    "What is looked at of a picture: its centre crop; corners, centre and their mirror images; or "
    "all of it, and its mirror image, at --sides.",
)
flags.DEFINE_float(
    "crop_fraction", 1.0, "Part of a picture's side that the single crop keeps.", 0.01, 1.0
)
flags.DEFINE_list(
    "sides",
    [],
    "Shorter sides in pixels that pictures are resized to for ten_crop and dense; scores are "
    "averaged. Default: 256/224 of the input.",
)
flags.DEFINE_string(
    "adversarial_epsilon",
    None,
    "Measure the accuracy under attack too, by FGSM and PGD, which change no pixel by more: 8 or, "
    "the same, 8/255.",
)
flags.DEFINE_string("workdir", "runs/evaluate_classifier", "Folder for the results.")
flags.DEFINE_integer("batch_size", 64, "Pictures in a step.", lower_bound=1)


def run(config):
    """Evaluates and draws; `config` has the flags as attributes."""
    started = time.perf_counter()
    if config.model is None:
        raise run_folder.RunError("--model: name a run folder or a model file; received: nothing")
    epsilon = None
    if config.adversarial_epsilon is not None:
        epsilon = app.read_epsilon("adversarial_epsilon", config.adversarial_epsilon)
        if config.crops != "single":
            raise run_folder.RunError(
                f"--adversarial_epsilon: is for --crops=single; received: --crops={config.crops}"
            )
    workdir = run_folder.make_folder(config.workdir, space_needed=10e6)
    app.import_tensorflow()
    from kerasvision import data
    from kerasvision.classification import (
        Classifier,
        evaluation,
        load_classifier,
        robust_accuracy,
    )

    classifier = load_classifier(config.model)
    if epsilon is not None and not isinstance(classifier, Classifier):
        raise run_folder.RunError(
            "--adversarial_epsilon: needs gradients, of a run folder or a .keras file; "
            f"received: --model={config.model}"
        )
    dataset = data.load_classification(
        config.dataset, config.split, data_dir=config.data_dir, download=config.download
    )
    for problem in dataset.problems:
        print(problem)
    if dataset.class_names != list(classifier.class_names):
        raise run_folder.RunError(
            f"--dataset={config.dataset}: its classes must be those of --model={config.model}, "
            f"{describe(classifier.class_names)}; received: {describe(dataset.class_names)}"
        )
    if config.crops == "single":
        batches = data.classification_batches(
            dataset, classifier.image_shape, config.batch_size, crop_fraction=config.crop_fraction
        )
    else:
        classifier, batches = several_crops(config, classifier, dataset)
    before = time.perf_counter()
    metrics = evaluation.evaluate(classifier, batches, workdir, sys.stdout.isatty())
    if epsilon is not None:
        metrics["robust_accuracy"] = robust_accuracy(classifier, batches, epsilon)
    seconds = {"evaluation": time.perf_counter() - before}
    seconds["total"] = time.perf_counter() - started
    metrics.update(
        model=str(config.model),
        dataset=config.dataset,
        split=dataset.split,
        pictures=dataset.num_examples,
        crops=config.crops,
        seconds={name: round(value, 1) for name, value in seconds.items()},
    )
    run_folder.write_json(workdir / "metrics.json", metrics)
    print(evaluation.format_table(metrics))
    print(f"\n{seconds['total']:.0f} s; metrics.json and pictures are in {workdir}")
    return metrics


def several_crops(config, classifier, dataset):
    """A classifier that looks at several parts of each picture, and the whole pictures."""
    import numpy as np
    import tensorflow as tf

    from kerasvision.classification import Classifier
    from kerasvision.classification.multi_crop import picture_predictor
    from kerasvision.data import pictures

    if not isinstance(classifier, Classifier):
        raise run_folder.RunError(
            f"--crops={config.crops}: needs a run folder or a .keras file; "
            f"received: --model={config.model}"
        )
    if not all(side.isdigit() for side in config.sides):
        raise run_folder.RunError(
            f"--sides: must be numbers of pixels; received: {','.join(config.sides)}"
        )
    sides = [int(side) for side in config.sides] or None
    predict = picture_predictor(classifier.network, config.crops, sides)
    looking = types.SimpleNamespace(
        class_names=classifier.class_names,
        predict_on_batch=lambda images: np.stack([predict(image) for image in images]),
    )

    def batch_of_one(example):
        return {
            "images": pictures.decode(example["encoded"])[None],
            "labels": example["label"][None],
        }

    batches = dataset.encoded_examples().map(batch_of_one, num_parallel_calls=tf.data.AUTOTUNE)
    return looking, batches.apply(tf.data.experimental.assert_cardinality(dataset.num_examples))


def describe(class_names):
    """The number of classes and the first of their names."""
    return f"{len(class_names)} ({', '.join(class_names[:5])}{', …' * (len(class_names) > 5)})"


def main(argv):
    del argv
    run(flags.FLAGS)


if __name__ == "__main__":
    app.run_main(main, __doc__)
