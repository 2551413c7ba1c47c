"""Trains a CycleGAN on pictures of two kinds, draws what it makes, and exports both ways.

  python apps/train_cyclegan.py --dataset=scenes:night --image_size=64x64 --blocks=6 --epochs=10
  python apps/train_cyclegan.py --dataset=folders:HORSES_AND_ZEBRAS

The run folder (--workdir) holds, in the end:
  flags.txt       the flags as run; --flagfile=flags.txt repeats the run
  metrics.json    cycle error; where the data set has pairs, the distance of G(x) to y and F(y) to x
  history.csv     losses of every epoch; curves.png draws them; tensorboard/ has them too
  samples/        what it made of the same held-out pictures after every epoch
  samples.png     in the end: x, G(x), F(G(x)) and y, F(y), G(F(y)); training.gif, how it came to it
  last.keras      the model after the last epoch
  G_saved_model/, G_model_float32.tflite, G_model_float16.tflite, and the same of F: the exports

Started again after a crash, the same command goes on from the last checkpoint.
"""

import sys
import time

from absl import flags

from kerasvision.training import app, run_folder

app.define_flags("runs/train_cyclegan", dataset="scenes:night", dataset_help=app.UNPAIRED_DATASETS)
flags.DEFINE_string("image_size", "256x256", "HEIGHTxWIDTH in pixels, multiples of 4.")
flags.DEFINE_integer("blocks", None, "Residual blocks. Default: 9, below 256 pixels 6.")
flags.DEFINE_integer("filters", 64, "Channels of the first layers.", lower_bound=1)
flags.DEFINE_float("cycle_weight", 10.0, "Of the way there and back.", lower_bound=0.0)
flags.DEFINE_float(
    "identity_weight", 0.5, "Of leaving pictures alone that are of the right kind already, as a "
    "share of --cycle_weight.", 0.0,
)  # fmt: skip
flags.DEFINE_integer("pool_size", 50, "Pictures made that the discriminators see again.", 0)
flags.DEFINE_integer("epochs", 200, "Passes over the pictures of the rarer kind.", lower_bound=1)
flags.DEFINE_integer("batch_size", 1, "Pictures of each kind in a step.", lower_bound=1)
flags.DEFINE_float("learning_rate", 2e-4, "Of Adam; it falls to 0 over the second half.")
flags.DEFINE_float("enlarge", 286 / 256, "Factor of the size that random crops are cut from.", 1.0)
flags.DEFINE_bool("flip", True, "Swap left and right in half of the pictures.")
flags.DEFINE_integer("samples", 4, "Held-out pictures of each kind on the sheets.", lower_bound=1)
flags.DEFINE_bool(
    "deterministic", False, "Same seed, same numbers to the last bit; up to twice as slow."
)
flags.DEFINE_list(
    "export", "saved_model,float32,float16", "What to export: saved_model and/or precisions."
)
SPACE_PER_FILTER = 13e6  # bytes: two models with optimizer states, exports; they grow as its square


def run(config):
    """Trains, draws, measures and exports; `config` has the flags as attributes."""
    started = time.perf_counter()
    size = app.read_size("image_size", config.image_size)
    blocks = config.blocks or (9 if min(size) >= 256 else 6)
    workdir = run_folder.prepare(
        config.workdir,
        run_folder.app_flags(),
        config.resume,
        300e6 + SPACE_PER_FILTER * config.filters**2 / 64,
    )
    app.import_tensorflow()
    import keras
    import numpy as np

    from kerasvision import data, drawing, export
    from kerasvision.generative import cyclegan, evaluation
    from kerasvision.training import callbacks, optimizers, strategy

    app.start(config.seed, config.mixed_precision, config.deterministic)
    devices = strategy.make_strategy(config.strategy)

    # Data. Held-out pairs stay together, where there are any: they tell how right it is.
    def load(name, split, **settings):
        unpaired = split == config.train_split or name.startswith(("folders:", "tfds:"))
        return (data.load_unpaired if unpaired else data.load_pairs)(name, split, **settings)

    train, val, test = app.load_pictures(load, config)
    steps = data.steps_per_epoch(train, config.batch_size)
    seconds = {"data": time.perf_counter() - started}

    # Model.
    with devices.scope():
        model = cyclegan(
            (*size, 3),
            blocks,
            config.filters,
            config.cycle_weight,
            config.identity_weight,
            config.pool_size,
            config.seed,
        )
        schedule = optimizers.LinearDecay(config.learning_rate, config.epochs * steps)
        model.compile(
            keras.optimizers.Adam(schedule, 0.5),
            keras.optimizers.Adam(schedule, 0.5),
            jit_compile="auto" if config.jit_compile is None else config.jit_compile,
        )
    checkpoint = callbacks.Checkpoint(workdir, steps, monitor=None)
    with devices.scope():
        epochs_done = checkpoint.restore(model)
    if epochs_done:
        print(f"going on after epoch {epochs_done} of {config.epochs}")

    # Training.
    # In an order of their own: in films neighbours look alike.
    held_out = data.translation_batches(val, (*size, 3), config.samples, shuffle=True)
    samples = {name: np.asarray(values) for name, values in next(iter(held_out)).items()}

    def sheet(model):
        rows = []
        for there, back, images in ((model.G, model.F, "x"), (model.F, model.G, "y")):
            made = there.predict(samples[images], verbose=0)
            again = evaluation.to_pixels(back.predict(made, verbose=0))
            rows.append(zip(samples[images], evaluation.to_pixels(made), again))
        titles = ("x", "G(x)", "F(G(x))", "y", "F(y)", "G(F(y))")
        rows = [(*of_x, *of_y) for of_x, of_y in zip(*rows)]
        return drawing.contact_sheet(rows, None, titles, groups=1, cell=256)

    advice = "a lower --learning_rate, a higher --cycle_weight, or more pictures"
    if epochs_done < config.epochs:
        model.fit(
            data.translation_batches(
                train,
                (*size, 3),
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
                evaluation.WarnOfCollapse("discriminator_x", advice),
                evaluation.WarnOfCollapse("discriminator_y", advice),
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
    batches = data.translation_batches(test, (*size, 3), config.batch_size)
    metrics = evaluation.cycle_metrics(model, batches, test.paired)
    seconds["evaluation"] = time.perf_counter() - before
    metrics.update(
        dataset=config.dataset,
        split=test.split,
        pictures=test.num_examples,
        epoch=config.epochs,
        generator_parameters=model.G.count_params(),
        discriminator_parameters=model.D_X.count_params(),
        seconds=seconds,
    )
    run_folder.write_json(workdir / "metrics.json", metrics)

    # Exports.
    before = time.perf_counter()
    if config.export:
        for name, generator in (("G", model.G), ("F", model.F)):
            export.export_generator(generator, workdir, config.export, f"{name}_")
    seconds["export"] = time.perf_counter() - before
    seconds["total"] = time.perf_counter() - started
    metrics["seconds"] = {name: round(value, 1) for name, value in seconds.items()}
    run_folder.write_json(workdir / "metrics.json", metrics)
    print(f"\n{test.split} split of {config.dataset}, mean |difference|, pixels from -1 to 1:")
    print(evaluation.format_cycle(metrics))
    app.print_files(workdir, seconds["total"])
    return metrics


def main(argv):
    del argv
    run(flags.FLAGS)


if __name__ == "__main__":
    app.run_main(main, __doc__)
