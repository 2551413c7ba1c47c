"""Trains a segmenter, measures it by mean IoU, draws what it sees, and exports it.

  python apps/train_segmenter.py --model=segnet_basic --image_size=96x96 --epochs=10
  python apps/train_segmenter.py --dataset=folder:MY_PICTURES --model=segnet --image_size=180x240

The run folder (--workdir) holds, in the end:
  flags.txt       the flags as run; --flagfile=flags.txt repeats the run
  metrics.json    accuracy, mean IoU and boundary F1 on the test split, every class's, seconds spent
  history.csv     loss and mean IoU of every epoch; curves.png draws them; tensorboard/ has them too
  samples.png     held-out pictures, ground truth beside prediction
  classes.png     IoU of every class
  confusion.png   how many pixels of each class were taken for each; confusion.csv has the numbers
  best.keras, last.keras   the model at its best and its last epoch
  saved_model/, model_float32.tflite, model_float16.tflite, model_int8.tflite   the exports

Started again after a crash, the same command goes on from the last checkpoint.
"""

import functools
import resource
import sys
import time

from absl import flags

from kerasvision.training import app, run_folder

app.define_flags("runs/train_segmenter", dataset="scenes", dataset_help=app.SEGMENTATION_DATASETS)
# Name: disk that a run may take, for two models with optimizer state, exports, pictures, logs.
SPACE_NEEDED = {
    "fcn32s": 4500e6,
    "fcn16s": 4500e6,
    "fcn8s": 4500e6,
    "deconvnet": 8500e6,
    "unet": 1200e6,
    "segnet": 1200e6,
    "segnet_basic": 150e6,
    "refinenet_mobilenet_v2": 200e6,
    "refinenet_resnet50": 2500e6,
    "refinenet_resnet101": 3500e6,
}
VGG_WITH_BATCH_NORM = ["deconvnet", "segnet"]
MEASURED = 16  # pictures to measure the means and deviations of VGG's maps on
VGG = ["fcn32s", "fcn16s", "fcn8s", *VGG_WITH_BATCH_NORM]
REFINENETS = ["refinenet_mobilenet_v2", "refinenet_resnet50", "refinenet_resnet101"]
# Flag: the models that heed it.
HEEDED_BY = {
    "backbone_weights": [*VGG, *REFINENETS],
    "upsampling": ["segnet", "segnet_basic", "unet"],
    "units": ["fcn32s", "fcn16s", "fcn8s", "deconvnet"],
    "padding": ["fcn32s", "fcn16s", "fcn8s", "unet"],
    "learn_upsampling": ["fcn32s", "fcn16s", "fcn8s"],
    "dropout_rate": ["fcn32s", "fcn16s", "fcn8s", "unet"],
    "filters": ["unet", "refinenet_mobilenet_v2"],
    "batch_norm_momentum": [
        "segnet",
        "segnet_basic",
        "deconvnet",
        "unet",
        "refinenet_mobilenet_v2",
    ],
}
flags.DEFINE_enum("model", "segnet", list(SPACE_NEEDED), "Which segmenter.")
flags.DEFINE_string(
    "image_size",
    None,
    "HEIGHTxWIDTH of the input in pixels, such as 180x240. Default: the model's.",
)
flags.DEFINE_string(
    "class_list",
    None,
    "Meaning of the label files' values: a file with a line 'value name [red green blue]' each, or "
    "the lines with ' / ' between them; the class void is ignored. Default: that of the data set, "
    "or classes.txt in its folder.",
)
flags.DEFINE_string(
    "backbone_weights",
    None,
    "imagenet (fetched by Keras), or a path: .h5 as of keras.applications, .npz as of torchvision "
    "(not for unet and segnet_basic). Default: random.",
)
flags.DEFINE_enum(
    "upsampling",
    None,
    ["indices", "transposed", "bilinear"],
    "How the decoder enlarges its maps: segnet and segnet_basic by the pooling's indices or "
    "bilinearly, unet by transposed convolutions or bilinearly. Default: the paper's, the former.",
)
flags.DEFINE_integer("units", None, "Channels of fc6 and fc7 (fcn, deconvnet), 4096.")
flags.DEFINE_string(
    "padding",
    None,
    "unet: valid, which predicts the middle of what it sees, or same. fcn: pixels around the "
    "picture, 100 as in the paper, or 0.",
)
flags.DEFINE_bool("learn_upsampling", None, "Whether the transposed convolutions learn (fcn).")
flags.DEFINE_float("dropout_rate", None, "Of fcn and unet, 0.5.", 0.0, 0.99)
flags.DEFINE_integer(
    "filters", None, "Channels of unet's first maps, or of the refinenet's blocks."
)
flags.DEFINE_float(
    "batch_norm_momentum", None, "Of moving averages; unet has batch normalisation only with it."
)
flags.DEFINE_enum(
    "class_balance",
    "none",
    ["none", "median_frequency"],
    "Weight of a class in the loss: 1, or the median of the classes' frequencies over its own.",
)
flags.DEFINE_float(
    "balance_exponent",
    None,
    "Power of these weights, for median_frequency: 1, the default, balances fully, 0.5 halfway.",
    0.0,
    1.0,
)
flags.DEFINE_string(
    "cells",
    None,
    "Class of the cells: pixels between two that nearly touch count more in the loss (U-Net's "
    "border weights), and the errors of membranes are measured as in the ISBI challenge of 2012.",
)
flags.DEFINE_float(
    "border_weight",
    None,
    "How much more pixels between two --cells count at most, beside the balance of the classes, 10 "
    "by default; 0: all pixels count alike.",
    0.0,
)
app.define_tile_flags(
    "Look at pictures of any size in their own resolution: train on random windows, predict tile "
    "by tile; beyond a picture its mirror image goes on. Otherwise pictures are resized to the "
    "input.",
)
flags.DEFINE_integer("epochs", 60, "Passes over the training pictures.", lower_bound=1)
flags.DEFINE_integer("batch_size", 4, "Pictures in a step.", lower_bound=1)
flags.DEFINE_enum("optimizer", "adamw", ["sgd", "adamw"], "SGD with momentum 0.9, or AdamW.")
flags.DEFINE_float("learning_rate", 0.001, "Highest learning rate; it falls as a cosine.")
flags.DEFINE_float("warmup_epochs", 1.0, "Epochs in which the learning rate rises to it.")
flags.DEFINE_float("weight_decay", 1e-4, "Of kernels, decoupled from the gradient.")
flags.DEFINE_bool("flip", True, "Swap left and right in half of the pictures.")
flags.DEFINE_bool("vertical_flip", False, "Also flip upside down (cells, aerial pictures).")
flags.DEFINE_float("min_scale", 1.0, "Least factor that pictures are enlarged by.", 0.01)
flags.DEFINE_float("max_scale", 1.0, "Greatest factor that pictures are enlarged by.", 0.01)
flags.DEFINE_float("rotation", 0.0, "Degrees that pictures are turned by at most.", 0.0, 180.0)
flags.DEFINE_float(
    "elastic", 0.0, "Standard deviation in pixels of elastic deformations; U-Net's is 10.", 0.0
)
flags.DEFINE_float(
    "color", 0.0, "Greatest change of brightness, contrast and saturation.", 0.0, 1.0
)
flags.DEFINE_integer("eval_every", 1, "Epochs between evaluations.", lower_bound=1)
flags.DEFINE_bool(
    "deterministic", False, "Same seed, same numbers to the last bit; up to twice as slow."
)
flags.DEFINE_list(
    "export", "saved_model,float32,float16,int8", "What to export: saved_model and/or precisions."
)


def read_settings(config):
    """Arguments of the model's builder that the flags give."""
    settings = {
        name: getattr(config, name)
        for name, models in HEEDED_BY.items()
        if config.model in models and getattr(config, name) is not None
    }
    if config.image_size is not None:
        settings["image_shape"] = (*app.read_size("image_size", config.image_size), 3)
    if "padding" in settings and config.model != "unet":
        if not settings["padding"].isdigit():
            raise run_folder.RunError(
                f"--padding: must be a number of pixels for --model={config.model}; "
                f"received: {config.padding}"
            )
        settings["padding"] = int(settings["padding"])
    return settings


def build_model(config, settings, train):
    """The segmenter that the flags ask for, for the classes of the data set `train`."""
    from kerasvision import data, segmentation

    if config.class_balance == "median_frequency":
        weights = train.median_frequency_weights()
        if config.balance_exponent is not None:
            weights **= config.balance_exponent
        settings = {**settings, "class_weights": weights}
    build = getattr(segmentation, config.model)
    model = build(len(train.class_names), class_names=train.class_names, **settings)
    if config.backbone_weights is not None and config.model in VGG_WITH_BATCH_NORM:
        batches = data.segmentation_batches(
            train, model.image_shape, MEASURED, shuffle=True, seed=config.seed
        )
        segmentation.fit_batch_norm(model.network, next(iter(batches))["images"])
    return model


def run(config):
    """Trains, evaluates, draws and exports; `config` has the flags as attributes."""
    started = time.perf_counter()
    app.refuse_unheeded(config, "model", HEEDED_BY)
    app.refuse_unheeded(config, "class_balance", {"balance_exponent": ["median_frequency"]})
    if config.border_weight is not None and config.cells is None:
        raise run_folder.RunError("--border_weight: needs --cells; received: no --cells")
    app.check_tile_flags(config)
    settings = read_settings(config)
    workdir = run_folder.prepare(
        config.workdir,
        run_folder.app_flags(),
        config.resume,
        SPACE_NEEDED[config.model],
    )
    app.import_tensorflow()
    import keras

    from kerasvision import data, drawing, export
    from kerasvision.metrics.segmentation import format_table
    from kerasvision.segmentation import evaluation
    from kerasvision.training import callbacks, strategy

    app.start(config.seed, config.mixed_precision, config.deterministic)
    devices = strategy.make_strategy(config.strategy)

    # Data.
    load = functools.partial(data.load_segmentation, class_list=config.class_list)
    train, val, test = app.load_splits(load, config)
    if config.cells is not None and config.border_weight != 0:
        w0 = 10.0 if config.border_weight is None else config.border_weight
        train = train.with_border_weights(config.cells, w0)
    steps = data.steps_per_epoch(train, config.batch_size)
    seconds = {"data": time.perf_counter() - started}

    # Model.
    with devices.scope():
        model = build_model(config, settings, train)
        app.compile_model(model, config, steps)
    if not config.tiles and model.output_size != model.image_shape[:2]:
        raise run_folder.RunError(
            f"--tiles: is needed by a network that predicts the middle {model.output_size} of "
            f"{model.image_shape[:2]} pixels; received: --notiles"
        )
    checkpoint = callbacks.Checkpoint(workdir, steps, monitor="val_mean_iou")
    with devices.scope():
        epochs_done = checkpoint.restore(model)
    if epochs_done:
        print(f"going on after epoch {epochs_done} of {config.epochs}")

    # Training.
    if epochs_done < config.epochs:
        train_batches = data.segmentation_batches(
            train,
            model.image_shape,
            config.batch_size,
            augmentation=data.SegmentationAugmentation(
                model.image_shape,
                flip=config.flip,
                vertical_flip=config.vertical_flip,
                min_scale=config.min_scale,
                max_scale=config.max_scale,
                rotation=config.rotation,
                elastic=config.elastic,
                color=config.color,
                crops=config.tiles,
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
                evaluation.SegmentationEvaluation(
                    val, config.eval_every, config.epochs, config.tiles, config.margin
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
    metrics = evaluation.evaluate(
        model, test, workdir, config.tiles, config.margin, config.average_turns, config.cells
    )
    seconds["evaluation"] = time.perf_counter() - before
    metrics.update(
        dataset=config.dataset,
        split=test.split,
        pictures=test.num_examples,
        epoch=best_epoch,
        parameters=model.network.count_params(),
        # Linux counts in kilobytes, macOS in bytes.
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        * (1 if sys.platform == "darwin" else 1024),
        seconds=seconds,
    )
    run_folder.write_json(workdir / "metrics.json", metrics)

    # Exports.
    before = time.perf_counter()
    if config.export:
        export.export_segmenter(model, workdir, config.export, train)
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
