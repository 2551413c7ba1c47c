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

import functools
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
    "mask_rcnn_mobilenet_v2": 400e6,
    "mask_rcnn_resnet50": 1600e6,
    "keypoint_rcnn_mobilenet_v2": 500e6,
    "keypoint_rcnn_resnet50": 2000e6,
    "r_fcn_mobilenet_v2": 300e6,
    "r_fcn_resnet50": 1200e6,
    "r_fcn_resnet101": 1800e6,
}
MASKS = ["mask_rcnn_mobilenet_v2", "mask_rcnn_resnet50"]
KEYPOINTS = ["keypoint_rcnn_mobilenet_v2", "keypoint_rcnn_resnet50"]
YOLOS_WITH_PRIORS = [name for name in SPACE_NEEDED if name.startswith(("yolo_v2", "yolo_v3"))]
# Flag: the models that heed it.
HEEDED_BY = {
    "image_size": [name for name in SPACE_NEEDED if name not in ("ssd300", "ssd512")],
    "width_multiplier": ["ssdlite", "ssd_resnet18"],
    "first_stride": ["ssdlite"],
    "min_scale": ["ssdlite", "ssd_resnet18"],
    "max_scale": ["ssdlite", "ssd_resnet18"],
    "grid": ["yolo_v1_full", "yolo_v1_fast", "yolo_v1_mobilenet_v2"],
    "hidden_units": ["yolo_v1_mobilenet_v2"],
    "dropout_rate": ["yolo_v1_mobilenet_v2"],
    "priors": YOLOS_WITH_PRIORS,
    "multi_scale": YOLOS_WITH_PRIORS,
    "tree": ["yolo_v2_darknet19", "yolo_v2_mobilenet_v2"],
    "image_labels": ["yolo_v2_darknet19", "yolo_v2_mobilenet_v2"],
    "boxes_first": ["yolo_v2_darknet19", "yolo_v2_mobilenet_v2"],
    "roi_pooling": ["mask_rcnn_mobilenet_v2"],
    "roi_strides": ["mask_rcnn_mobilenet_v2"],
    "anchor_scale": [
        "retinanet_mobilenet_v2",
        "faster_rcnn_mobilenet_v2",
        "mask_rcnn_mobilenet_v2",
    ],
    "freeze_batch_norm": [
        name
        for name in SPACE_NEEDED
        if name.startswith(("retinanet", "faster_rcnn", "mask_rcnn", "keypoint_rcnn", "r_fcn"))
        and name != "faster_rcnn_vgg16"
    ],
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
    "hidden_units",
    None,
    "Units of the fully connected layers (yolo_v1_mobilenet_v2). Empty: each cell is predicted "
    "from its own features, which few pictures suffice for.",
)
flags.DEFINE_float(
    "dropout_rate",
    None,
    "In front of the predictions (yolo_v1_mobilenet_v2), 0.5 by default; of single cells without "
    "fully connected layers less is better.",
    lower_bound=0.0,
    upper_bound=0.9,
)
flags.DEFINE_list(
    "priors",
    None,
    "Height and width of the priors in pixels, smallest first, such as 26x20,55x50 (yolo_v2, "
    "yolo_v3: as many for each of its maps); tools/cluster_anchors.py finds them.",
)
flags.DEFINE_list(
    "multi_scale",
    None,
    "Sides in pixels between which training changes every 10 steps, multiples of 32, such as "
    "320,352,384 (yolo_v2, yolo_v3).",
)
flags.DEFINE_string(
    "tree",
    None,
    "Word tree of the classes (yolo_v2): a file with a line 'name parent' each, those of the data "
    "set first, then the kinds they are of; a parent is a line's number from 0, or -1.",
)
flags.DEFINE_list(
    "image_labels",
    None,
    "Classes whose pictures train without boxes, by what they show alone (yolo_v2).",
)
flags.DEFINE_integer(
    "boxes_first",
    None,
    "Epochs that teach by boxes alone, before the pictures of --image_labels count (yolo_v2).",
    lower_bound=1,
)
flags.DEFINE_enum(
    "roi_pooling", None, ["align", "max"], "RoIAlign or RoI max pooling (mask_rcnn_mobilenet_v2)."
)
flags.DEFINE_list(
    "roi_strides",
    None,
    "Strides of the maps that regions are pooled from (mask_rcnn_mobilenet_v2); default 4,8,16,32.",
)
flags.DEFINE_float(
    "anchor_scale",
    None,
    "Side of a map's (smallest) square anchor, in its strides (mask_rcnn_mobilenet_v2 and "
    "faster_rcnn_mobilenet_v2: 8 by default; retinanet_mobilenet_v2: 4).",
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
    "Keep the backbone's batch normalisation as loaded (retinanet and all of the R-CNN family).",
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


def build_model(config, train):
    """The detector that the flags ask for, for the classes of the data set `train`."""
    from kerasvision import detection

    settings = {
        name: getattr(config, name)
        for name, models in HEEDED_BY.items()
        if config.model in models and getattr(config, name) is not None
    }
    # These are of the data.
    for name in ("multi_scale", "image_labels", "boxes_first"):
        settings.pop(name, None)
    if "image_size" in settings:
        side = settings.pop("image_size")
        settings["image_shape"] = (side, side, 3)
    if config.model == "ssd_resnet18" and "width_multiplier" in settings:
        settings["width"] = round(64 * settings.pop("width_multiplier"))
    if settings.get("hidden_units"):
        settings["hidden_units"] = read_integers("hidden_units", settings["hidden_units"])
    if "priors" in settings:
        settings["priors"] = read_priors(settings["priors"], config.model)
    if "roi_strides" in settings:
        settings["strides"] = read_integers("roi_strides", settings.pop("roi_strides"))
    if "tree" in settings:
        settings["parents"] = detection.WordTree.read(settings.pop("tree")).parents
    if config.model in KEYPOINTS:
        settings["num_keypoints"] = max(map(len, train.keypoint_names))
    build = getattr(detection, config.model)
    return build(len(train.class_names), class_names=train.class_names, **settings)


def name_classes_of_tree(config, *datasets):
    """Gives data sets the classes of --tree, which are theirs and the kinds they are of."""
    from kerasvision import detection

    names = detection.WordTree.read(config.tree).names
    for dataset in datasets:
        if names[: len(dataset.class_names)] != dataset.class_names:
            raise run_folder.RunError(
                f"--tree={config.tree}: its first names must be those of the data set, "
                f"{dataset.class_names}; received: {names[: len(dataset.class_names)]}"
            )
        dataset.class_names = names


def read_integers(name, texts):
    """Numbers of a flag, above 0."""
    if not all(text.isdigit() and int(text) > 0 for text in texts) or not texts:
        raise run_folder.RunError(
            f"--{name}: must be whole numbers above 0; received: {','.join(texts)}"
        )
    return [int(text) for text in texts]


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
    app.refuse_unheeded(config, "model", HEEDED_BY)
    if config.boxes_first and not config.image_labels:
        raise run_folder.RunError(
            f"--boxes_first: is for classes of --image_labels; received: {config.boxes_first} "
            "without such classes"
        )
    workdir = run_folder.prepare(
        config.workdir,
        run_folder.app_flags(),
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
    load = functools.partial(
        data.load, masks=config.model in MASKS, keypoints=config.model in KEYPOINTS
    )
    train, val, test = app.load_splits(load, config)
    if config.image_labels:
        train = train.without_boxes(config.image_labels)
    if config.tree:
        name_classes_of_tree(config, train, val, test)
    steps = data.steps_per_epoch(train, config.batch_size)
    seconds = {"data": time.perf_counter() - started}

    # Model.
    with devices.scope():
        model = build_model(config, train)
        app.compile_model(model, config, steps)
    monitor = "val_AP"
    if config.model in MASKS:
        monitor = "val_mask_AP"
    elif config.model in KEYPOINTS:
        monitor = "val_keypoint_AP"
    checkpoint = callbacks.Checkpoint(workdir, steps, monitor=monitor)
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
                keypoint_names=train.keypoint_names,
            ),
            shuffle=True,
            seed=config.seed,
            first_epoch=epochs_done,
            epochs=config.epochs,
            drop_remainder=True,
        )
        if config.boxes_first:
            train_batches = data.boxes_first(
                train_batches, config.boxes_first * steps, first_step=epochs_done * steps
            )
        if config.multi_scale:
            train_batches = data.multi_scale(
                train_batches,
                read_integers("multi_scale", config.multi_scale),
                seed=config.seed,
                first_step=epochs_done * steps,
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
