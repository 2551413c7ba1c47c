"""Trains a generative adversarial network, draws what it makes, measures and exports it.

  python apps/train_gan.py --model=dcgan --dataset=digits --image_size=32 --epochs=40
  python apps/train_gan.py --model=wgan_gp --dataset=folder:MY_PICTURES --image_size=64

The run folder (--workdir) holds, in the end:
  flags.txt       the flags as run; --flagfile=flags.txt repeats the run
  metrics.json    losses of the last epoch, Fréchet distance and share of each class (--classifier)
  history.csv     losses and scores of every epoch; curves.png draws them; tensorboard/ too
  samples/        what the generator made of the same noise after every epoch
  samples.png     what it makes in the end; training.gif, how it came to it
  interpolations.png   from one picture to another
  best.keras, last.keras   the model with the least Fréchet distance, and after the last epoch
  saved_model/, model_float32.tflite, model_float16.tflite   the generator's exports

Started again after a crash, the same command goes on from the last checkpoint.
"""

import sys
import time

from absl import flags

from kerasvision.training import app, run_folder

# Name: disk that a run may take, for models with optimizer states, exports and pictures.
SPACE_NEEDED = {"gan": 400e6, "dcgan": 500e6, "wgan_gp": 500e6}
DEFAULT_SIZE = {"gan": 28, "dcgan": 64, "wgan_gp": 64}
# Flag: the models that heed it.
HEEDED_BY = {
    "units": ["gan"],
    "filters": ["dcgan", "wgan_gp"],
    "loss": ["gan", "dcgan"],
    "critic_steps": ["wgan_gp"],
    "penalty_weight": ["wgan_gp"],
}
# The papers' Adam: learning rate, beta 1, beta 2.
ADAM = {"gan": (2e-4, 0.5, 0.999), "dcgan": (2e-4, 0.5, 0.999), "wgan_gp": (1e-4, 0.0, 0.9)}

app.define_flags("runs/train_gan", dataset="digits", dataset_help=app.CLASSIFICATION_DATASETS)
flags.DEFINE_enum("model", "dcgan", list(SPACE_NEEDED), "Which network.")
flags.DEFINE_integer("image_size", None, "Side of the pictures in pixels. Default: the model's.")
flags.DEFINE_bool("gray", False, "Make grey pictures.")
flags.DEFINE_integer("latent_size", 100, "Numbers of noise that a picture is made of.", 1)
flags.DEFINE_integer("units", None, "Of the hidden layers (gan), 1200.")
flags.DEFINE_integer("filters", None, "Channels of the largest maps (dcgan, wgan_gp), 64.")
flags.DEFINE_enum(
    "loss",
    None,
    ["minimax", "non_saturating", "least_squares"],
    "What the two minimise (gan, dcgan). Default: non_saturating.",
)
flags.DEFINE_integer("critic_steps", None, "Of the critic for one of the generator (wgan_gp), 5.")
flags.DEFINE_float("penalty_weight", None, "Of the critic's slope (wgan_gp), 10.")
flags.DEFINE_integer("epochs", 30, "Passes over the training pictures.", lower_bound=1)
flags.DEFINE_integer("batch_size", 128, "Pictures in a step of the discriminator.", lower_bound=1)
flags.DEFINE_float("learning_rate", None, "Of Adam. Default: the paper's, 2e-4 or 1e-4.")
flags.DEFINE_float(
    "discriminator_learning_rate", None, "Of the discriminator's Adam. Default: the generator's."
)
flags.DEFINE_bool("flip", False, "Swap left and right in half of the pictures.")
flags.DEFINE_string(
    "classifier",
    None,
    "Run folder or .keras file of a classifier of these pictures: its features measure the Fréchet "
    "distance to the --val_split, its predictions the share of each class.",
)
flags.DEFINE_integer("eval_every", 5, "Epochs between evaluations.", lower_bound=1)
flags.DEFINE_integer("eval_pictures", 2000, "Pictures of an evaluation, at most.", lower_bound=2)
flags.DEFINE_bool(
    "deterministic", False, "Same seed, same numbers to the last bit; up to twice as slow."
)
flags.DEFINE_list(
    "export", "saved_model,float32,float16", "What to export: saved_model and/or precisions."
)


def build_model(config):
    """The networks that the flags ask for."""
    from kerasvision import generative

    settings = {
        name: getattr(config, name)
        for name, models in HEEDED_BY.items()
        if config.model in models and getattr(config, name) is not None
    }
    side = config.image_size or DEFAULT_SIZE[config.model]
    shape = (side, side, 1 if config.gray else 3)
    return getattr(generative, config.model)(
        shape, config.latent_size, seed=config.seed, **settings
    )


def picture_batches(dataset, model, config, batch_size, **settings):
    """Batches of pictures alone, as the model makes them; see `data.classification_batches`."""
    import tensorflow as tf

    from kerasvision import data

    height, width, channels = model.image_shape
    batches = data.classification_batches(dataset, (height, width, 3), batch_size, **settings)

    def pictures(batch):
        images = batch["images"]
        return tf.image.rgb_to_grayscale(images) if channels == 1 else images

    return batches.map(pictures, num_parallel_calls=tf.data.AUTOTUNE)


def run(config):
    """Trains, draws, measures and exports; `config` has the flags as attributes."""
    started = time.perf_counter()
    app.refuse_unheeded(config, "model", HEEDED_BY)
    workdir = run_folder.prepare(
        config.workdir,
        run_folder.app_flags(),
        config.resume,
        SPACE_NEEDED[config.model],
    )
    app.import_tensorflow()
    import keras
    import numpy as np

    from kerasvision import data, drawing, export
    from kerasvision.classification import Classifier, load_classifier
    from kerasvision.generative import evaluation
    from kerasvision.training import callbacks, strategy

    app.start(config.seed, config.mixed_precision, config.deterministic)
    devices = strategy.make_strategy(config.strategy)

    # Data.
    train, val, _ = app.load_splits(data.load_classification, config)
    batch_size = config.batch_size
    if config.model == "wgan_gp":
        batch_size *= config.critic_steps or 5
    steps = data.steps_per_epoch(train, batch_size)
    seconds = {"data": time.perf_counter() - started}

    # Model.
    rate, beta_1, beta_2 = ADAM[config.model]
    rate = config.learning_rate or rate
    with devices.scope():
        model = build_model(config)
        model.compile(
            keras.optimizers.Adam(rate, beta_1, beta_2),
            keras.optimizers.Adam(config.discriminator_learning_rate or rate, beta_1, beta_2),
            jit_compile="auto" if config.jit_compile is None else config.jit_compile,
        )
    checkpoint = callbacks.Checkpoint(workdir, steps, "val_frechet_distance", mode="min")
    with devices.scope():
        epochs_done = checkpoint.restore(model)
    if epochs_done:
        print(f"going on after epoch {epochs_done} of {config.epochs}")

    # What measures it.
    classifier = distance = None
    if config.classifier is not None:
        classifier = load_classifier(config.classifier)
        if not isinstance(classifier, Classifier):
            raise run_folder.RunError(
                f"--classifier: must be a run folder or a .keras file; received: "
                f"{config.classifier}"
            )
        held_out = picture_batches(val, model, config, 100).unbatch()
        held_out = held_out.take(config.eval_pictures).batch(100).as_numpy_iterator()
        distance = evaluation.FrechetDistance(classifier.embedder, held_out)

    # Training.
    def sheet(gan):
        return evaluation.tile(evaluation.to_pixels(gan.predict(noise, verbose=0)), 8)

    noise = model.latent(64)
    if epochs_done < config.epochs:
        measured, warnings = [], []
        if config.model != "wgan_gp":  # whose critic's loss falls below 0
            advice = "a lower --discriminator_learning_rate, or --model=wgan_gp"
            warnings = [evaluation.WarnOfCollapse("discriminator_loss", advice)]
        if distance is not None:
            measured = [evaluation.FrechetEvaluation(distance, config.eval_every, config.epochs)]
        model.fit(
            picture_batches(
                train,
                model,
                config,
                batch_size,
                augmentation=data.ClassificationAugmentation(
                    (*model.image_shape[:2], 3), len(train.class_names), flip=config.flip
                ),
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
                *measured,
                checkpoint,
                keras.callbacks.TensorBoard(workdir / "tensorboard", write_graph=False),
            ],
        )
    drawing.plot_history(checkpoint.history, workdir / "curves.png")
    evaluation.animate(workdir, workdir / "training.gif")
    seconds["training"] = sum(row["seconds"] for row in checkpoint.rows)

    # Evaluation of the best epoch, or of the last where nothing tells.
    before = time.perf_counter()
    epoch = config.epochs
    metrics = {name: values[-1] for name, values in checkpoint.history.items()}
    if distance is not None:
        epoch, metrics["frechet_distance"] = checkpoint.best
        metrics["frechet_distance_untrained"] = distance(build_model(config))
        model.load_weights(workdir / "best.keras")
        made = model.predict(model.latent(distance.count), verbose=0)
        made = evaluation.to_inputs(classifier.predictor, made)
        labels = classifier.predict(made, verbose=0).argmax(-1)
        shares = np.bincount(labels, minlength=classifier.num_classes) / len(labels)
        metrics["class_shares"] = dict(zip(classifier.class_names, shares.round(4).tolist()))
        metrics["classifier"] = str(config.classifier)
        metrics["pictures"] = distance.count
    drawing.save(sheet(model), workdir / "samples.png")
    drawing.save(evaluation.interpolations(model), workdir / "interpolations.png")
    seconds["evaluation"] = time.perf_counter() - before
    metrics.update(
        dataset=config.dataset,
        split=val.split,
        epoch=epoch,
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
    if distance is not None:
        print(
            f"\nFréchet distance {metrics['frechet_distance']:.2f}, weights of epoch {epoch}; "
            f"untrained {metrics['frechet_distance_untrained']:.2f}"
        )
        for name, share in metrics["class_shares"].items():
            print(f"  {name:16s} {share:6.1%}")
    app.print_files(workdir, seconds["total"])
    return metrics


def main(argv):
    del argv
    run(flags.FLAGS)


if __name__ == "__main__":
    app.run_main(main, __doc__)
