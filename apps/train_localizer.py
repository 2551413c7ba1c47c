"""Trains a network that says where things are, without being a detector, and draws what it sees.

  python apps/train_localizer.py --flagfile=configs/train_localizer/cam.flags
  python apps/train_localizer.py --flagfile=configs/train_localizer/gmp.flags
  python apps/train_localizer.py --flagfile=configs/train_localizer/box_regression.flags

--model=cam and --model=gmp learn from the classes of a picture alone, not from its boxes: global
average pooling (class activation maps) or global max pooling of a map of scores for each class.
They point at objects. --model=box_regression learns the class and the box of a picture's one
object; pictures with more or fewer objects are left out.

The run folder (--workdir) holds, in the end:
  flags.txt       the flags as run; --flagfile=flags.txt repeats the run
  metrics.json    the pointing game, or the accuracy of localisation, on the test split; seconds
  history.csv     losses and accuracy of every epoch; curves.png draws them; tensorboard/ has them
  samples.png     held-out pictures: heat maps and points, or boxes, beside the ground truth
  best.keras, last.keras   the model at its best and its last epoch

Started again after a crash, the same command goes on from the last checkpoint.
"""

import sys
import time

from absl import flags

from kerasvision.training import app, run_folder

app.define_flags("runs/train_localizer", dataset="scenes", dataset_help=app.DETECTION_DATASETS)
flags.DEFINE_enum("model", "cam", ["cam", "gmp", "box_regression"], "What to train.")
flags.DEFINE_integer("image_size", 112, "Side of the input in pixels.", lower_bound=32)
flags.DEFINE_integer(
    "eval_size",
    None,
    "Side of held-out pictures (cam, gmp): a larger one gives finer maps. Default: --image_size.",
    lower_bound=32,
)
flags.DEFINE_integer("width", 24, "Channels of the first stage of ResNet-18; the paper's: 64.")
flags.DEFINE_string(
    "initial_model",
    None,
    "Run folder or .keras file of this app: layers that it has too start from its weights.",
)
flags.DEFINE_list(
    "adaptation_filters", ["256"], "Channels of the 3x3 convolutions on the backbone (cam, gmp)."
)
flags.DEFINE_list(
    "scales",
    [],
    "Lowest and highest factor on the size of training batches, as 0.7,1.4 (cam, gmp).",
)
flags.DEFINE_bool("per_class", True, "A box for each class, or one for all (box_regression).")
flags.DEFINE_list(
    "window_sides",
    [],
    "Test also with windows all over pictures of these shorter sides in pixels, their boxes merged "
    "(box_regression).",
)
flags.DEFINE_float("max_zoom_out", 1.5, "Pictures shrink up to this factor (box_regression).")
flags.DEFINE_float("min_crop_scale", 0.6, "Side of the smallest crop (box_regression).")
flags.DEFINE_integer("epochs", 20, "Passes over the training pictures.", lower_bound=1)
flags.DEFINE_integer("batch_size", 16, "Pictures in a step.", lower_bound=1)
flags.DEFINE_enum("optimizer", "adamw", ["sgd", "adamw"], "SGD with momentum 0.9, or AdamW.")
flags.DEFINE_float("learning_rate", 0.002, "Highest learning rate; it falls as a cosine.")
flags.DEFINE_float("warmup_epochs", 0.5, "Epochs in which the learning rate rises to it.")
flags.DEFINE_float("weight_decay", 1e-4, "Of kernels, decoupled from the gradient.")
flags.DEFINE_integer("eval_every", 1, "Epochs between evaluations.", lower_bound=1)
flags.DEFINE_bool(
    "deterministic", False, "Same seed, same numbers to the last bit; up to twice as slow."
)

# The metric that chooses the best epoch.
MONITORED = {
    "cam": "pointing_accuracy",
    "gmp": "pointing_accuracy",
    "box_regression": "localization_accuracy",
}


def check_flags(config):
    """The numbers in the flags that are lists; refuses what is none or would not be heeded."""
    try:
        scales = [float(scale) for scale in config.scales]
    except ValueError:
        scales = [0.0]
    if scales and not (
        len(scales) == 2 and 0 < scales[0] <= scales[1] and config.model != "box_regression"
    ):
        raise run_folder.RunError(
            "--scales: must be two factors, lowest first, for --model=cam or gmp; "
            f"received: {','.join(config.scales)} for --model={config.model}"
        )
    if config.eval_size is not None and config.model == "box_regression":
        raise run_folder.RunError(
            "--eval_size: is for --model=cam or gmp, which take pictures of any size; "
            f"received: {config.eval_size} for --model={config.model}"
        )
    if not all(filters.isdecimal() and int(filters) for filters in config.adaptation_filters):
        raise run_folder.RunError(
            "--adaptation_filters: must be whole numbers above 0; "
            f"received: {','.join(config.adaptation_filters)}"
        )
    if config.window_sides and (
        config.model != "box_regression"
        or not all(
            side.isdecimal() and int(side) >= config.image_size for side in config.window_sides
        )
    ):
        raise run_folder.RunError(
            "--window_sides: must be whole numbers from --image_size up, for "
            f"--model=box_regression; received: {','.join(config.window_sides)} "
            f"for --model={config.model} at {config.image_size} pixels"
        )
    return (
        scales,
        [int(filters) for filters in config.adaptation_filters],
        [int(side) for side in config.window_sides],
    )


def build_model(config, class_names, adaptation_filters):
    """The model that the flags ask for."""
    import keras

    from kerasvision.backbones.resnet import resnet18
    from kerasvision.classification.box_regression import box_regressor
    from kerasvision.classification.weak_localization import weak_localizer

    # A map of stride 16 says more exactly than one of 32 where a thing is: Zhou et al. 2016,
    # section 3, cut their networks for it too.
    side = config.image_size if config.model == "box_regression" else None
    whole = resnet18((side, side, 3), include_top=False, width=config.width)
    backbone = keras.Model(whole.input, whole.feature_taps["stride16"], name="backbone")
    if config.model == "box_regression":
        model = box_regressor(
            backbone, len(class_names), per_class=config.per_class, class_names=class_names
        )
    else:
        model = weak_localizer(
            backbone,
            len(class_names),
            pooling={"cam": "average", "gmp": "max"}[config.model],
            adaptation_filters=adaptation_filters,
            class_names=class_names,
        )
    if config.initial_model is not None:
        start_from(model.network, run_folder.load_model(config.initial_model).network)
    return model


def start_from(network, other):
    """Copies the weights of all layers that have the same name and shapes in both networks."""
    named = {layer.name: layer for layer in other.layers}
    copied = 0
    for layer in network.layers:
        weights = named[layer.name].get_weights() if layer.name in named else []
        shapes = [tuple(weight.shape) for weight in layer.weights]
        if weights and [weight.shape for weight in weights] == shapes:
            layer.set_weights(weights)
            copied += 1
    if not copied:
        raise run_folder.RunError(
            "--initial_model: must share layers with this network, so have the same --width; "
            "received: none in common"
        )
    print(f"{copied} layers start from --initial_model")


def with_one_object(dataset):
    """The pictures of a detection set that show one object."""
    import tensorflow as tf

    from kerasvision import data

    counts = [int((~record.ignored).sum()) for record in dataset.records]
    kept = tf.constant([count == 1 for count in counts])
    stream = (
        dataset.encoded_examples()
        .enumerate()
        .filter(lambda position, example: kept[position])
        .map(lambda position, example: example["encoded"])
    )
    records = [record for record, count in zip(dataset.records, counts) if count == 1]
    return data.DetectionDataset(
        dataset.name, dataset.split, dataset.class_names, records, dataset.problems, stream
    )


def at_random_scales(batches, image_size, scales, seed, first_batch):
    """Resizes each batch by a random factor (Oquab et al. 2015, section 3.3)."""
    import tensorflow as tf

    def resize(number, batch):
        factor = tf.random.stateless_uniform(
            (), seed=tf.stack([tf.cast(seed, tf.int64), number]), minval=scales[0], maxval=scales[1]
        )
        side = tf.cast(tf.round(factor * image_size), tf.int32)
        return {**batch, "images": tf.image.resize(batch["images"], (side, side), antialias=True)}

    numbers = tf.data.Dataset.counter(first_batch)
    return tf.data.Dataset.zip(numbers, batches).map(resize, num_parallel_calls=tf.data.AUTOTUNE)


def draw_samples(model, batches, path, has_extent=False, count=12):
    """Saves a sheet of the first objects: ground truth beside heat map and point, or box.

    With `has_extent` also a box around the hot region: maps under average pooling cover the whole
    object, those under max pooling its most telling part.
    """
    import numpy as np

    from kerasvision import drawing
    from kerasvision.classification.class_activation_maps import box_of_heat_map, heat_maps

    rows = []
    for batch in batches.unbatch().batch(1):
        image = batch["images"].numpy()
        boxes, labels = (batch["bounding_boxes"][name].numpy()[0] for name in ("boxes", "labels"))
        found = {name: values[0] for name, values in model.predict_on_batch(image).items()}
        for label in np.unique(labels[labels >= 0]):
            shown = labels == label
            truth = drawing.draw_boxes(image[0], boxes[shown], labels[shown], model.class_names)
            if "boxes" in found:
                label = np.argmax(found["scores"])
                drawn = drawing.draw_boxes(
                    image[0],
                    found["boxes"][label][None],
                    [label],
                    model.class_names,
                    scores=found["scores"][label][None],
                )
            else:
                # Class activation maps are without the bias.
                bias = float(model.network.get_layer("predictions").bias[label])
                heat = heat_maps(found["maps"][None, :, :, label, None] - bias, *image.shape[1:3])
                drawn = drawing.overlay_heat_map(image[0], heat[0, :, :, 0])
                if has_extent:
                    box = box_of_heat_map(heat[0, :, :, 0])
                    drawn = drawing.draw_boxes(drawn, box[None], [label], model.class_names)
                drawn = drawing.draw_points(drawn, found["points"][label])
            rows.append((truth, drawn))
        if len(rows) >= count:
            break
    drawing.contact_sheet(rows[:count], path, titles=("ground truth", "prediction"), groups=3)


def run(config):
    """Trains, evaluates and draws; `config` has the flags as attributes."""
    started = time.perf_counter()
    scales, adaptation_filters, window_sides = check_flags(config)
    workdir = run_folder.prepare(
        config.workdir,
        run_folder.app_flags(),
        config.resume,
        space_needed=300e6,
    )
    app.import_tensorflow()
    import keras

    from kerasvision import data, drawing
    from kerasvision.classification import box_regression, weak_localization
    from kerasvision.training import callbacks, strategy

    app.start(config.seed, config.mixed_precision, config.deterministic)
    devices = strategy.make_strategy(config.strategy)
    is_regression = config.model == "box_regression"
    evaluate = (box_regression if is_regression else weak_localization).evaluate

    # Data.
    train, val, test = app.load_splits(data.load, config)
    if is_regression:
        train, val, test = (with_one_object(dataset) for dataset in (train, val, test))
        print(
            f"with one object: {train.num_examples} pictures to train on, {val.num_examples} to "
            f"validate, {test.num_examples} to test"
        )
    steps = data.steps_per_epoch(train, config.batch_size)
    seconds = {"data": time.perf_counter() - started}

    # Model.
    with devices.scope():
        model = build_model(config, train.class_names, adaptation_filters)
        app.compile_model(model, config, steps)
    monitored = MONITORED[config.model]
    checkpoint = callbacks.Checkpoint(workdir, steps, monitor=f"val_{monitored}")
    with devices.scope():
        epochs_done = checkpoint.restore(model)
    if epochs_done:
        print(f"going on after epoch {epochs_done} of {config.epochs}")

    # Training.
    image_shape = (config.image_size, config.image_size, 3)
    eval_size = config.eval_size or config.image_size
    eval_shape = (eval_size, eval_size, 3)
    val_batches = data.batches(val, eval_shape, config.batch_size).cache()
    if epochs_done < config.epochs:
        # What knows no boxes can't know either what is left of an object in a part of a picture.
        augmentation = data.SSDAugmentation(
            image_shape,
            max_zoom_out=config.max_zoom_out if is_regression else 1.0,
            crop=is_regression and config.min_crop_scale < 1.0,
            min_crop_scale=config.min_crop_scale,
        )
        train_batches = data.batches(
            train,
            image_shape,
            config.batch_size,
            augmentation=augmentation,
            shuffle=True,
            seed=config.seed,
            first_epoch=epochs_done,
            epochs=config.epochs,
            drop_remainder=True,
        )
        if scales:
            train_batches = at_random_scales(
                train_batches, config.image_size, scales, config.seed, epochs_done * steps
            )

        def add_metrics(epoch, logs):
            if (epoch + 1) % config.eval_every == 0 or epoch + 1 == config.epochs:
                found = evaluate(model, val_batches)
                for name in (monitored, "point_AP", "box_accuracy"):
                    if name in found:
                        logs[f"val_{name}"] = found[name]

        model.fit(
            train_batches,
            initial_epoch=epochs_done,
            epochs=config.epochs,
            steps_per_epoch=steps,
            shuffle=False,  # the batches are shuffled
            verbose=1 if sys.stdout.isatty() else 2,
            callbacks=[
                callbacks.StopOnNonFiniteLoss(),
                keras.callbacks.LambdaCallback(on_epoch_end=add_metrics),
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
    test_batches = data.batches(test, eval_shape, config.batch_size)
    metrics = evaluate(model, test_batches)
    seconds["evaluation"] = time.perf_counter() - before
    if window_sides:
        side = max(window_sides)
        large_batches = data.batches(test, (side, side, 3), config.batch_size)
        merged = box_regression.evaluate(model, large_batches, window_sides)
        metrics["merged_windows"] = merged
    draw_samples(model, test_batches, workdir / "samples.png", has_extent=config.model == "cam")
    seconds["total"] = time.perf_counter() - started
    metrics.update(
        dataset=config.dataset,
        split=test.split,
        pictures=test.num_examples,
        epoch=best_epoch,
        parameters=model.count_params(),
        seconds={name: round(value, 1) for name, value in seconds.items()},
    )
    run_folder.write_json(workdir / "metrics.json", metrics)

    print(f"\n{test.split} split of {config.dataset}, weights of epoch {best_epoch}:")
    for name, value in metrics.items():
        if isinstance(value, float):
            print(f"  {name:<24} {value:.3f}")
    if window_sides:
        print(f"  with merged windows      {merged['localization_accuracy']:.3f}")
    app.print_files(workdir, seconds["total"])
    return metrics


def main(argv):
    del argv
    run(flags.FLAGS)


if __name__ == "__main__":
    app.run_main(main, __doc__)
