"""Trains pix2pix on pairs of pictures, draws what it makes of held-out ones, and exports it.

  python apps/train_pix2pix.py --dataset=scenes:labels --image_size=64x64 --epochs=20
  python apps/train_pix2pix.py --dataset=pairs:FACADES --direction=BtoA

The run folder (--workdir) holds, in the end:
  flags.txt       the flags as run; --flagfile=flags.txt repeats the run
  metrics.json    L1 distance on the test split; what a --segmenter sees in the pictures made
  history.csv     losses of every epoch; curves.png draws them; tensorboard/ has them too
  samples/        what it made of the same held-out pictures after every epoch
  samples.png     in the end: x, G(x) and y; training.gif, how it came to it
  last.keras      the model after the last epoch
  saved_model/, model_float32.tflite, model_float16.tflite   the generator's exports

Started again after a crash, the same command goes on from the last checkpoint.
"""

import sys
import time

from absl import flags

from kerasvision.training import app, run_folder

app.define_flags("runs/train_pix2pix", dataset="scenes:labels", dataset_help=app.PAIRED_DATASETS)
flags.DEFINE_enum("direction", "AtoB", ["AtoB", "BtoA"], "From x to y, or the other way round.")
flags.DEFINE_string("image_size", "256x256", "HEIGHTxWIDTH in pixels, multiples of 16.")
flags.DEFINE_integer("filters", 64, "Channels of the first layers.", lower_bound=1)
flags.DEFINE_bool("conditional", True, "Let the discriminator see x beside y.")
flags.DEFINE_integer(
    "strided_layers", 3, "Of the discriminator: 3 for patches of 70 pixels, 1 for 16.", 1, 5
)
flags.DEFINE_float("l1_weight", 100.0, "Of the L1 distance to y.", lower_bound=0.0)
flags.DEFINE_float("adversarial_weight", 1.0, "Of the discriminator's verdict; 0: L1 alone.", 0.0)
flags.DEFINE_integer("epochs", 200, "Passes over the training pairs.", lower_bound=1)
flags.DEFINE_integer("batch_size", 1, "Pairs in a step.", lower_bound=1)
flags.DEFINE_float("learning_rate", 2e-4, "Of Adam; it falls to 0 over the second half.")
flags.DEFINE_float("enlarge", 286 / 256, "Factor of the size that random crops are cut from.", 1.0)
flags.DEFINE_bool("flip", True, "Swap left and right in half of the pairs.")
flags.DEFINE_string(
    "segmenter",
    None,
    "Run folder or .keras file of a segmenter of real pictures: what it sees in those made of "
    "labels is compared to the labels (the paper's FCN-score). For scenes:labels and camvid:PATH.",
)
flags.DEFINE_integer("samples", 6, "Held-out pairs on the sheets.", lower_bound=1)
flags.DEFINE_bool(
    "deterministic", False, "Same seed, same numbers to the last bit; up to twice as slow."
)
flags.DEFINE_list(
    "export", "saved_model,float32,float16", "What to export: saved_model and/or precisions."
)
SPACE_PER_FILTER = 35e6  # bytes: two models with optimizer states, exports; they grow as its square


def run(config):
    """Trains, draws, measures and exports; `config` has the flags as attributes."""
    started = time.perf_counter()
    size = app.read_size("image_size", config.image_size)
    workdir = run_folder.prepare(
        config.workdir,
        run_folder.app_flags(),
        config.resume,
        100e6 + SPACE_PER_FILTER * config.filters**2 / 64,
    )
    app.import_tensorflow()
    import keras
    import numpy as np

    from kerasvision import data, drawing, export
    from kerasvision.generative import evaluation, pix2pix
    from kerasvision.training import callbacks, optimizers, strategy

    app.start(config.seed, config.mixed_precision, config.deterministic)
    devices = strategy.make_strategy(config.strategy)

    # Data.
    train, val, test = app.load_pictures(data.load_pairs, config)
    if config.direction == "BtoA":
        train, val, test = (dataset.swapped() for dataset in (train, val, test))
    steps = data.steps_per_epoch(train, config.batch_size)
    seconds = {"data": time.perf_counter() - started}

    # Model.
    with devices.scope():
        model = pix2pix(
            (*size, 3),
            filters=config.filters,
            conditional=config.conditional,
            strided_layers=config.strided_layers,
            l1_weight=config.l1_weight,
            adversarial_weight=config.adversarial_weight,
            seed=config.seed,
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
        made = evaluation.to_pixels(model.predict(samples["x"], verbose=0))
        return drawing.contact_sheet(
            list(zip(samples["x"], made, samples["y"])), None, ("x", "G(x)", "y")
        )

    if epochs_done < config.epochs:
        warnings = []
        if config.adversarial_weight:  # else nothing discriminates
            advice = "a lower --learning_rate, a higher --l1_weight, or more pairs"
            warnings = [evaluation.WarnOfCollapse("discriminator_loss", advice)]
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
                *warnings,
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
    metrics = evaluation.translation_metrics(
        model, data.translation_batches(test, (*size, 3), config.batch_size)
    )
    if config.segmenter is not None:
        metrics["segmenter"] = str(config.segmenter)
        metrics["seen"] = seen_by_segmenter(config, model)
    seconds["evaluation"] = time.perf_counter() - before
    metrics.update(
        dataset=config.dataset,
        split=test.split,
        pictures=test.num_examples,
        epoch=config.epochs,
        generator_parameters=model.G.count_params(),
        discriminator_parameters=model.D.count_params(),
        seconds=seconds,
    )
    run_folder.write_json(workdir / "metrics.json", metrics)

    # Exports.
    before = time.perf_counter()
    if config.export:
        export.export_generator(model.G, workdir, config.export)
    seconds["export"] = time.perf_counter() - before
    seconds["total"] = time.perf_counter() - started
    metrics["seconds"] = {name: round(value, 1) for name, value in seconds.items()}
    run_folder.write_json(workdir / "metrics.json", metrics)
    print(f"\n{test.split} split of {config.dataset}: L1 {metrics['l1']:.3f}")
    if "seen" in metrics:
        print(f"what the segmenter sees:\n{evaluation.format_seen(metrics['seen'])}")
    app.print_files(workdir, seconds["total"])
    return metrics


def seen_by_segmenter(config, model):
    """Scores of what a segmenter sees in pictures made of labels, and in the real ones.

    Isola et al. 2017, section 3.4, "FCN-score".
    """
    import numpy as np
    import tensorflow as tf

    from kerasvision import data
    from kerasvision.generative import evaluation
    from kerasvision.metrics.segmentation import SegmentationScores
    from kerasvision.segmentation import load_segmenter
    from kerasvision.segmentation.evaluation import probabilities_of

    segmenter = load_segmenter(config.segmenter)
    labelled = data.load_segmentation(
        "scenes" if config.dataset == "scenes:labels" else config.dataset,
        config.test_split or config.val_split,
        data_dir=config.data_dir,
    )
    if list(segmenter.class_names) != labelled.class_names:
        raise run_folder.RunError(
            f"--segmenter: must have the classes of --dataset={config.dataset}, "
            f"{labelled.class_names}; received: {list(segmenter.class_names)}"
        )
    scores = {kind: SegmentationScores(labelled.class_names) for kind in ("made", "real")}
    pairs = data.pairs_of_labels(labelled)
    for (_, labels_picture, photo), (_, _, labels) in zip(pairs.examples(), labelled.examples()):
        size = model.G.input_shape[1:3]
        x = tf.image.resize(labels_picture, size, "nearest")[None]
        made = evaluation.to_pixels(model.predict_on_batch(np.asarray(x)))[0]
        made = np.asarray(tf.image.resize(made, labels.shape, antialias=True)).round()
        for kind, picture in (("made", made.astype("uint8")), ("real", photo)):
            scores[kind].update(labels, probabilities_of(segmenter, picture).argmax(-1))
    names = ("pixel_accuracy", "mean_class_accuracy", "mean_iou")
    results = {kind: found.result() for kind, found in scores.items()}
    return {kind: {name: found[name] for name in names} for kind, found in results.items()}


def main(argv):
    del argv
    run(flags.FLAGS)


if __name__ == "__main__":
    app.run_main(main, __doc__)
