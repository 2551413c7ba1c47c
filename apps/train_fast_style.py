"""Trains a network that paints pictures in the manner of one other at once (Johnson et al.).

  python apps/train_fast_style.py --backbone_weights=vgg16_notop.h5 --style=starry_night.jpg \\
    --dataset=folder:PHOTOS,scenes
  python apps/translate.py --model=runs/train_fast_style --input=holiday.jpg

--dataset is any number of folders of pictures (folder:PATH), and scenes (built in); --model and
--backbone_weights tell the network in which content and manner are compared. The run folder
(--workdir) holds, in the end:
  flags.txt       the flags as run; --flagfile=flags.txt repeats the run
  metrics.json    the loss of held-out pictures as painted, and as they are
  history.csv     losses of every epoch; curves.png draws them; tensorboard/ has them too
  samples/        what it made of the same pictures after every epoch
  samples.png     in the end: pictures beside what it made of them; training.gif, how it came to it
  last.keras      the model after the last epoch
  saved_model/, model_float32.tflite, model_float16.tflite: exports, of pictures of --export_size

Started again after a crash, the same command goes on from the last checkpoint.
"""

import sys
import time

from absl import flags

from kerasvision.training import app, run_folder

app.define_network_flags()
flags.DEFINE_list("dataset", ["scenes"], "folder:PATH, any number of times, and scenes.")
flags.DEFINE_string("train_split", "train", "Of the scenes, such as train[:300].")
flags.DEFINE_string("data_dir", None, "Folder of the prepared scenes.")
flags.DEFINE_string("workdir", "runs/train_fast_style", "Run folder.")
flags.DEFINE_bool("resume", True, "Go on from the last checkpoint of --workdir.")
flags.DEFINE_string("style", None, "Picture whose manner is wanted.")
flags.DEFINE_integer("style_side", 256, "Its larger side, in pixels.", lower_bound=32)
flags.DEFINE_list("content_layers", None, "Names of layers. Default: block3_conv3, of VGG.")
flags.DEFINE_list("style_layers", None, "Default: the last of VGG's first four blocks each.")
flags.DEFINE_float("content_weight", 1.0, "Of the content.", 0.0)
flags.DEFINE_float("style_weight", 10.0, "Of the style.", 0.0)
flags.DEFINE_float(
    "style_warmup_epochs", 0.0, "Epochs in which the style's weight rises to it.", 0.0
)
flags.DEFINE_float("tv_weight", 0.1, "Of the TV prior.", 0.0)
flags.DEFINE_integer("image_size", 256, "Side of the pictures to train on, in pixels.", 44)
flags.DEFINE_float("enlarge", 1.2, "Factor of the size that random crops are cut from.", 1.0)
flags.DEFINE_bool("flip", True, "Swap left and right in half of the pictures.")
flags.DEFINE_integer("filters", 32, "Channels of the first layer.", lower_bound=1)
flags.DEFINE_integer("epochs", 40, "Passes over the pictures.", lower_bound=1)
flags.DEFINE_integer("batch_size", 4, "Pictures in a step.", lower_bound=1)
flags.DEFINE_float("learning_rate", 1e-3, "Of Adam; it falls to 0 along a cosine.")
flags.DEFINE_string("test_input", None, "Held-out pictures. Default: scenes of another split.")
flags.DEFINE_integer("samples", 4, "Held-out pictures on the sheets.", lower_bound=1)
flags.DEFINE_list(
    "export", "saved_model,float32,float16", "What to export: saved_model and/or precisions."
)
flags.DEFINE_string("export_size", "256x256", "HEIGHTxWIDTH of their pictures, multiples of 4.")

SPACE_NEEDED = 200e6  # bytes: the model with its optimizer's state, exports, sheets
TEST_PICTURES = 20


def run(config):
    """Trains, draws, measures and exports; `config` has the flags as attributes."""
    started = time.perf_counter()
    config.model = config.model or "vgg16"
    app.check_needed(config, ("style",))
    export_size = app.read_size("export_size", config.export_size)
    if config.image_size % 4:
        raise run_folder.RunError(
            f"--image_size: must be a multiple of 4; received: {config.image_size}"
        )
    workdir = run_folder.prepare(
        config.workdir, run_folder.app_flags(), config.resume, SPACE_NEEDED
    )
    app.import_tensorflow()
    import keras
    import numpy as np

    from kerasvision import data, drawing, export
    from kerasvision.generative import evaluation
    from kerasvision.synthesis import FastStyle, StyleLoss, fast_style, load_network, transformer
    from kerasvision.training import callbacks

    app.start(config.seed, mixed_precision=False, deterministic=False)

    # Data.
    train = data.load_plain(config.dataset, config.train_split, data_dir=config.data_dir)
    test_names = [f"folder:{config.test_input}"] if config.test_input else ["scenes"]
    test = data.load_plain(test_names, "val", data_dir=config.data_dir)
    for problem in [*train.problems, *test.problems]:
        print(problem)
    style = app.read_picture("style", config.style, config.style_side)
    steps = data.steps_per_epoch(train, config.batch_size)
    shape = (config.image_size, config.image_size, 3)
    count = min(TEST_PICTURES, test.num_examples)
    held_out = np.asarray(next(iter(data.picture_batches(test, shape, count)))["images"])
    print(
        f"{train.num_examples} pictures to train on, {steps} steps an epoch; {count} of "
        f"{test.num_examples} to test on"
    )
    seconds = {"data": time.perf_counter() - started}

    # Model.
    network, _ = load_network(config.model, config.backbone_weights)
    style_loss = StyleLoss(
        network,
        config.content_layers or fast_style.CONTENT_LAYERS,
        config.style_layers or fast_style.STYLE_LAYERS,
        content_weight=config.content_weight,
        style_weight=config.style_weight,
        tv_weight=config.tv_weight,
    )
    model = FastStyle(transformer(filters=config.filters))
    schedule = keras.optimizers.schedules.CosineDecay(config.learning_rate, config.epochs * steps)
    model.compile(
        keras.optimizers.Adam(schedule),
        style_loss,
        style,
        style_warmup=round(config.style_warmup_epochs * steps),
        jit_compile=config.jit_compile,
    )
    checkpoint = callbacks.Checkpoint(workdir, steps, monitor=None)
    epochs_done = checkpoint.restore(model)
    if epochs_done:
        print(f"going on after epoch {epochs_done} of {config.epochs}")

    # Training.
    def sheet(model):
        made = evaluation.to_pixels(model.predict_on_batch(held_out[: config.samples]))
        rows = list(zip(held_out[: config.samples], made))
        return drawing.contact_sheet(rows, None, ("picture", "painted"), groups=2, cell=256)

    if epochs_done < config.epochs:
        model.fit(
            data.picture_batches(
                train,
                shape,
                config.batch_size,
                enlarge=config.enlarge,
                flip=config.flip,
                shuffle=True,
                seed=config.seed,
                first_epoch=epochs_done,
                epochs=config.epochs,
                drop_remainder=True,
            ),
            initial_epoch=epochs_done,
            epochs=config.epochs,
            steps_per_epoch=steps,
            shuffle=False,  # the batches are shuffled
            verbose=1 if sys.stdout.isatty() else 2,
            callbacks=[
                callbacks.StopOnNonFiniteLoss(),
                evaluation.SampleSheets(workdir, sheet),
                checkpoint,
                keras.callbacks.TensorBoard(workdir / "tensorboard", write_graph=False),
            ],
        )
    drawing.plot_history(checkpoint.history, workdir / "curves.png")
    evaluation.animate(workdir, workdir / "training.gif")
    drawing.save(sheet(model), workdir / "samples.png")
    seconds["training"] = sum(row["seconds"] for row in checkpoint.rows)

    # Evaluation.
    before = time.perf_counter()
    losses = {"as_they_are": [], "painted": []}
    for image in held_out:
        x = image[None].astype("float32")
        targets = style_loss.content_targets(x), [(1.0, model.style_targets, None)]
        for kind, shown in (("as_they_are", x), ("painted", model.predict_on_batch(x))):
            terms = style_loss(shown, *targets)
            losses[kind].append({name: float(value) for name, value in terms.items()})
    metrics = {
        kind: {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        for kind, rows in losses.items()
    }
    seconds["evaluation"] = time.perf_counter() - before
    metrics.update(
        pictures=count, epoch=config.epochs, parameters=model.count_params(), seconds=seconds
    )
    run_folder.write_json(workdir / "metrics.json", metrics)

    # Exports.
    before = time.perf_counter()
    if config.export:
        fixed = transformer((*export_size, 3), config.filters)
        fixed.set_weights(model.network.get_weights())
        export.export_generator(fixed, workdir, config.export)
    seconds["export"] = time.perf_counter() - before
    seconds["total"] = time.perf_counter() - started
    metrics["seconds"] = {name: round(value, 1) for name, value in seconds.items()}
    run_folder.write_json(workdir / "metrics.json", metrics)
    print(
        f"\nloss of {count} held-out pictures: {metrics['painted']['loss']:.4f} as painted, "
        f"{metrics['as_they_are']['loss']:.4f} as they are"
    )
    app.print_files(workdir, seconds["total"])
    return metrics


def main(argv):
    del argv
    run(flags.FLAGS)


if __name__ == "__main__":
    app.run_main(main, __doc__)
