"""Trains a detector, measures it by COCO's metrics, draws what it sees, and exports it.

  python apps/train_detector.py --flagfile=configs/train_detector/quickstart.flags
  python apps/train_detector.py --dataset=voc:MY_PICTURES --backbone_weights=imagenet

The run folder (--workdir) holds, in the end:
  flags.txt       the flags as run; --flagfile=flags.txt repeats the run
  metrics.json    COCO metrics on the test split, seconds spent
  history.csv     losses and AP of every epoch; curves.png draws them; tensorboard/ has them too
  samples.png     held-out pictures, ground truth beside prediction
  best.keras, last.keras   the model at its best and its last epoch
  saved_model/, model_float32.tflite, model_float16.tflite, model_int8.tflite   the exports

Started again after a crash, the same command goes on from the last checkpoint.
"""

import sys
import time

from absl import flags

from kerasvision.training import app, run_folder

app.define_flags("runs/train_detector", dataset="scenes", dataset_help=app.DETECTION_DATASETS)
# Name: disk that a run may take, for two models with optimizer state, exports, pictures, logs.
SPACE_NEEDED = {
    "ssdlite": 150e6,
    "ssd_resnet18": 300e6,
    "ssd300": 800e6,
    "ssd512": 800e6,
    "retinanet_mobilenet_v2": 200e6,
    "retinanet_resnet50": 1200e6,
    "yolo_v1_full": 9000e6,
    "yolo_v1_fast": 2000e6,
    "yolo_v1_mobilenet_v2": 1000e6,
    "yolo_v2_darknet19": 2000e6,
    "yolo_v2_mobilenet_v2": 300e6,
    "yolo_v3_darknet53": 2500e6,
    "yolo_v3_tiny": 400e6,
    "yolo_v3_mobilenet_v2": 300e6,
    "faster_rcnn_mobilenet_v2": 300e6,
    "faster_rcnn_resnet50": 1500e6,
    "faster_rcnn_vgg16": 5000e6,
}
# Flag: the models that heed it.
PYRAMIDS = [
    "retinanet_mobilenet_v2",
    "retinanet_resnet50",
    "faster_rcnn_mobilenet_v2",
    "faster_rcnn_resnet50",
]
HEEDED_BY = {
    "image_size": [name for name in SPACE_NEEDED if name not in ("ssd300", "ssd512")],
    "width_multiplier": ["ssdlite", "ssd_resnet18"],
    "first_stride": ["ssdlite"],
    "min_scale": ["ssdlite", "ssd_resnet18"],
    "max_scale": ["ssdlite", "ssd_resnet18"],
    "grid": ["yolo_v1_full", "yolo_v1_fast", "yolo_v1_mobilenet_v2"],
    "priors": [name for name in SPACE_NEEDED if name.startswith(("yolo_v2", "yolo_v3"))],
    "freeze_batch_norm": PYRAMIDS,
    "backbone_weights": [
        name
        for name in SPACE_NEEDED
        if name not in ("ssd_resnet18", "yolo_v1_full", "yolo_v1_fast")
    ],
}
flags.DEFINE_enum("model", "ssdlite", list(SPACE_NEEDED), "Which detector.")
flags.DEFINE_integer("image_size", None, "Side of the input in pixels. Default: the model's.")
flags.DEFINE_float("width_multiplier", None, "Factor on the channels (ssdlite, ssd_resnet18).")
flags.DEFINE_integer("first_stride", None, "8 adds a map for small objects (ssdlite).")
flags.DEFINE_float("min_scale", None, "Side of the smallest default boxes (ssdlite, ssd_resnet18).")
flags.DEFINE_float("max_scale", None, "Side of the largest default boxes (ssdlite, ssd_resnet18).")
flags.DEFINE_integer("grid", None, "Cells along a side (yolo_v1).")
flags.DEFINE_list(
    "priors",
    None,
    "Height and width of the priors in pixels, smallest first, such as 26x20,55x50 (yolo_v2, "
    "yolo_v3: as many for each of its maps); tools/cluster_anchors.py finds them.",
)
flags.DEFINE_string(
    "backbone_weights",
    None,
    "imagenet (fetched by Keras), or a path: .h5 as of keras.applications, .npz as of torchvision, "
    ".weights of Darknet. Default: random.",
)
flags.DEFINE_bool(
    "freeze_batch_norm",
    None,
    "Keep the backbone's batch normalisation as loaded (retinanet, faster_rcnn).",
)
flags.DEFINE_integer("epochs", 60, "Passes over the training pictures.", lower_bound=1)
flags.DEFINE_integer("batch_size", 16, "Pictures in a step.", lower_bound=1)
flags.DEFINE_enum("optimizer", "sgd", ["sgd", "adamw"], "SGD with momentum 0.9, or AdamW.")
flags.DEFINE_float("learning_rate", 0.01, "Highest learning rate; it falls as a cosine.")
flags.DEFINE_float("warmup_epochs", 1.0, "Epochs in which the learning rate rises to it.")
flags.DEFINE_float("weight_decay", 5e-4, "Of kernels, decoupled from the gradient.")
flags.DEFINE_float("max_zoom_out", 4.0, "Pictures shrink up to this factor; 1: never.")
flags.DEFINE_float("min_crop_scale", 0.3, "Side of the smallest crop; 1: no crops.")
flags.DEFINE_bool("vertical_flip", False, "Also flip upside down (cells, aerial pictures).")
flags.DEFINE_integer("eval_every", 1, "Epochs between evaluations.", lower_bound=1)
flags.DEFINE_bool(
    "deterministic", False, "Same seed, same numbers to the last bit; up to twice as slow."
)
flags.DEFINE_list(
    "export", "saved_model,float32,float16,int8", "What to export: saved_model and/or precisions."
)


def check_flags(config):
    """Refuses flags that the chosen model would not heed."""
    for name, models in HEEDED_BY.items():
        if getattr(config, name) is not None and config.model not in models:
            raise run_folder.RunError(
                f"--{name}: is for --model={', '.join(models)}; received: --model={config.model}"
            )


def build_model(config, class_names):
    """The detector that the flags ask for."""
    from kerasvision import detection

    settings = {
        name: getattr(config, name)
        for name, models in HEEDED_BY.items()
        if config.model in models and getattr(config, name) is not None
    }
    if "image_size" in settings:
        side = settings.pop("image_size")
        settings["image_shape"] = (side, side, 3)
    if config.model == "ssd_resnet18" and "width_multiplier" in settings:
        settings["width"] = round(64 * settings.pop("width_multiplier"))
    if "priors" in settings:
        settings["priors"] = read_priors(settings["priors"], config.model)
    return getattr(detection, config.model)(len(class_names), class_names=class_names, **settings)


def read_priors(texts, model):
    """(height, width) of the priors; for YOLOv3 by maps, finest first."""
    try:
        sizes = [tuple(float(side) for side in text.split("x")) for text in texts]
    except ValueError:
        sizes = [()]
    maps = {"yolo_v3_darknet53": 3, "yolo_v3_mobilenet_v2": 3, "yolo_v3_tiny": 2}.get(model, 1)
    if any(len(size) != 2 or min(size) <= 0 for size in sizes) or len(sizes) % maps:
        raise run_folder.RunError(
            f"--priors: must be pairs HEIGHTxWIDTH, a multiple of {maps} of them for "
            f"--model={model}; received: {','.join(texts)}"
        )
    if model.startswith("yolo_v2"):
        return sizes
    each = len(sizes) // maps
    return [sizes[i * each : (i + 1) * each] for i in range(maps)]


def run(config):
    """Trains, evaluates, draws and exports; `config` has the flags as attributes."""
    started = time.perf_counter()
    check_flags(config)
    workdir = run_folder.prepare(
        config.workdir,
        run_folder.app_flags([run.__module__, app.__name__, sys.argv[0]]),
        config.resume,
        SPACE_NEEDED[config.model],
    )
    app.import_tensorflow()
    import keras

    from kerasvision import data, drawing, export
    from kerasvision.detection import evaluation
    from kerasvision.metrics.coco import format_table
    from kerasvision.training import callbacks, strategy

    app.start(config.seed, config.mixed_precision, config.deterministic)
    devices = strategy.make_strategy(config.strategy)

    # Data.
    train, val, test = app.load_splits(data.load, config)
    steps = data.steps_per_epoch(train, config.batch_size)
    seconds = {"data": time.perf_counter() - started}

    # Model.
    with devices.scope():
        model = build_model(config, train.class_names)
        app.compile_model(model, config, steps)
    checkpoint = callbacks.Checkpoint(workdir, steps, monitor="val_AP")
    with devices.scope():
        epochs_done = checkpoint.restore(model)
    if epochs_done:
        print(f"going on after epoch {epochs_done} of {config.epochs}")

    # Training.
    val_batches = data.batches(val, model.image_shape, config.batch_size)
    if epochs_done < config.epochs:
        train_batches = data.batches(
            train,
            model.image_shape,
            config.batch_size,
            augmentation=data.SSDAugmentation(
                model.image_shape,
                max_zoom_out=config.max_zoom_out,
                crop=config.min_crop_scale < 1.0,
                min_crop_scale=config.min_crop_scale,
                vertical_flip_probability=0.5 if config.vertical_flip else 0.0,
            ),
            shuffle=True,
            seed=config.seed,
            first_epoch=epochs_done,
            epochs=config.epochs,
            drop_remainder=True,
        )
        model.fit(
            train_batches,
            initial_epoch=epochs_done,
            epochs=config.epochs,
            steps_per_epoch=steps,
            shuffle=False,  # the batches are shuffled
            verbose=1 if sys.stdout.isatty() else 2,
            callbacks=[
                callbacks.StopOnNonFiniteLoss(),
                evaluation.COCOEvaluation(
                    val_batches, val.ground_truth(), config.eval_every, config.epochs
                ),
                checkpoint,
                keras.callbacks.TensorBoard(workdir / "tensorboard", write_graph=False),
            ],
        )
    drawing.plot_history(checkpoint.history, workdir / "curves.png")
    seconds["training"] = sum(row["seconds"] for row in checkpoint.rows)

    # Evaluation of the best epoch.
    best_epoch, _ = checkpoint.best
    model.load_weights(workdir / "best.keras")
    before = time.perf_counter()
    test_batches = data.batches(test, model.image_shape, config.batch_size)
    metrics = evaluation.evaluate(model, test_batches, test.ground_truth())
    seconds["evaluation"] = time.perf_counter() - before
    metrics.update(
        dataset=config.dataset,
        split=test.split,
        pictures=test.num_examples,
        epoch=best_epoch,
        parameters=model.count_params(),
        seconds=seconds,
    )
    run_folder.write_json(workdir / "metrics.json", metrics)
    evaluation.draw_samples(model, test_batches, workdir / "samples.png")

    # Exports.
    before = time.perf_counter()
    if config.export:
        export.export_all(model, workdir, config.export, train)
    seconds["export"] = time.perf_counter() - before
    seconds["total"] = time.perf_counter() - started
    metrics["seconds"] = {name: round(value, 1) for name, value in seconds.items()}
    run_folder.write_json(workdir / "metrics.json", metrics)

    print(f"\n{test.split} split of {config.dataset}, weights of epoch {best_epoch}:")
    print(format_table(metrics))
    app.print_files(workdir, seconds["total"])
    return metrics


def main(argv):
    del argv
    run(flags.FLAGS)


if __name__ == "__main__":
    app.run_main(main, __doc__)
