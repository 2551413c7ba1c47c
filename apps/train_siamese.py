"""Trains a siamese network on some classes, and asks it which of five pictures of others matches.

  python apps/train_siamese.py --dataset=fashion_mnist --train_classes=0:5 --val_classes=5:10
  python apps/train_siamese.py --flagfile=configs/train_siamese/glyphs.flags

The run folder (--workdir) holds, in the end:
  flags.txt       the flags as run; --flagfile=flags.txt repeats the run
  metrics.json    one-shot accuracy and equal error rate on classes that it has not been trained on
  history.csv     loss and accuracy of pairs, and the one-shot accuracy while it learnt;
                  curves.png draws them; tensorboard/ has them too
  samples.png     trials: a query, and the pictures to choose from
  distances.png   of pairs of one class, and of two
  last.keras      the model after the last epoch
  saved_model/, model_float32.tflite, model_float16.tflite   the embedding's exports

Started again after a crash, the same command goes on from the last checkpoint.
"""

import sys
import time

from absl import flags

from kerasvision.training import app, run_folder

# Name: (height and width of its pictures, parameters).
NETWORKS = {
    "resnet18": ((112, 112), 11_300_000),
    "cifar_resnet": ((32, 32), 300_000),
    "mobilenet_v2": ((224, 224), 2_400_000),
    "squeezenet": ((224, 224), 800_000),
}
# Flag: the networks that heed it.
HEEDED_BY = {"width": ["resnet18", "cifar_resnet"], "depth": ["cifar_resnet"]}
BYTES_PER_PARAMETER = 48  # of two models with optimizer state, one being written, and exports
TRIALS = 5000  # of the final metrics

app.define_flags("runs/train_siamese", dataset="digits", dataset_help=app.IDENTITY_DATASETS)
app.define_identity_flags()
flags.DEFINE_enum(
    "loss",
    "l1",
    ["l1", "chi2", "contrastive", "squared_contrastive"],
    "Of pairs: the cross-entropy of a head on weighted |f1 - f2|, or weighted chi^2; or "
    "contrastive, of distances or of their squares.",
)
flags.DEFINE_float("margin", 1.0, "Of the contrastive losses.", lower_bound=0.0)
flags.DEFINE_float(
    "hardest", 1.0, "Share of a batch's pairs, of either kind, that are learnt from.", 0.001, 1.0
)
flags.DEFINE_enum("model", "cifar_resnet", list(NETWORKS), "Which network.")
flags.DEFINE_string("image_size", None, "HEIGHTxWIDTH in pixels. Default: the network's.")
flags.DEFINE_integer("width", None, "Channels of the first stage: resnet18 (64), cifar_resnet (16)")
flags.DEFINE_integer("depth", None, "Layers of cifar_resnet (20).")
flags.DEFINE_enum(
    "pooling", "average", ["average", "flatten"], "Of the last maps; flatten: keep where things are"
)
flags.DEFINE_integer("embedding_size", 128, "Numbers of an embedding.", lower_bound=1)
flags.DEFINE_integer("ways", 5, "Pictures that a query is compared with.", lower_bound=2)


def run(config):
    """Trains, measures, draws and exports; `config` has the flags as attributes."""
    started = time.perf_counter()
    app.refuse_unheeded(config, "model", HEEDED_BY)
    size, parameters = NETWORKS[config.model]
    if config.image_size is not None:
        size = app.read_size("image_size", config.image_size)
    workdir = run_folder.prepare(
        config.workdir,
        run_folder.app_flags(),
        config.resume,
        50e6 + BYTES_PER_PARAMETER * parameters,
    )
    app.import_tensorflow()
    import keras
    import numpy as np

    from kerasvision import backbones, data, drawing, export
    from kerasvision.embedding import Siamese, embedding_network, evaluation
    from kerasvision.metrics import verification
    from kerasvision.training import callbacks, strategy

    app.start(config.seed, config.mixed_precision, config.deterministic)
    devices = strategy.make_strategy(config.strategy)

    # Data.
    train, val, test = app.load_identities(config)
    if min(len(val.class_names), len(test.class_names)) < config.ways:
        raise run_folder.RunError(
            f"--ways={config.ways}: must be at most as many as there are classes that judge; "
            f"received: {len(val.class_names)}"
        )
    steps = config.steps_per_epoch or data.identity_steps(
        train, config.identities, config.pictures_each
    )
    seconds = {"data": time.perf_counter() - started}

    # Model.
    with devices.scope():
        settings = {n: getattr(config, n) for n in HEEDED_BY if getattr(config, n) is not None}
        backbone = getattr(backbones, config.model)((*size, 3), include_top=False, **settings)
        # Numbers from 0 to 1 for the heads, as of Koch et al.; the sphere for distances.
        ending = "sigmoid" if config.loss in ("l1", "chi2") else "unit_length"
        network = embedding_network(backbone, config.embedding_size, config.pooling, ending)
        model = Siamese(network, config.loss, config.margin, config.hardest)
        app.compile_model(model, config, steps)
    checkpoint = callbacks.Checkpoint(workdir, steps, monitor=None)
    with devices.scope():
        epochs_done = checkpoint.restore(model)
    if epochs_done:
        print(f"going on after epoch {epochs_done} of {config.epochs}")

    # Training.
    def held_out(dataset):
        return data.classification_batches(dataset, model.image_shape, config.eval_batch_size)

    if epochs_done < config.epochs:
        model.fit(
            data.identity_batches(
                train,
                model.image_shape,
                config.identities,
                config.pictures_each,
                steps_per_epoch=steps,
                augmentation=data.ClassificationAugmentation(
                    model.image_shape,
                    len(train.class_names),
                    flip=config.flip,
                    pad=config.pad,
                    min_area=config.min_area,
                    randaugment_magnitude=config.randaugment,
                    distortion=config.distortion,
                    min_resolution=config.min_resolution,
                ),
                seed=config.seed,
                first_epoch=epochs_done,
                epochs=config.epochs,
            ),
            initial_epoch=epochs_done,
            epochs=config.epochs,
            steps_per_epoch=steps,
            shuffle=False,  # the batches are drawn at random
            verbose=1 if sys.stdout.isatty() else 2,
            callbacks=[
                callbacks.StopOnNonFiniteLoss(),
                evaluation.OneShotEvaluation(
                    held_out(val), config.ways, config.eval_every, config.epochs
                ),
                checkpoint,
                keras.callbacks.TensorBoard(workdir / "tensorboard", write_graph=False),
            ],
        )
    drawing.plot_history(checkpoint.history, workdir / "curves.png")
    seconds["training"] = sum(row["seconds"] for row in checkpoint.rows)

    # Evaluation of the last epoch: the classes that judge have chosen nothing.
    before = time.perf_counter()
    embeddings, labels = evaluation.embed(model, held_out(test))
    trials = evaluation.one_shot_trials(labels, config.ways, TRIALS, seed=1)
    accuracy, right = evaluation.one_shot_accuracy(model.distances, embeddings, trials)
    picture_at = data.picture_reader(test)
    evaluation.one_shot_sheet(picture_at, trials, right, workdir / "samples.png")
    # Of each trial, the picture of the query's class and one other.
    pairs = np.concatenate([trials[:, [0, 1]], trials[:, [0, 2]]])
    same = np.repeat([True, False], len(trials))
    distances = np.asarray(model.distances(embeddings[pairs[:, 0]], embeddings[pairs[:, 1]]))
    threshold = verification.choose_threshold(distances, same)
    kinds = {"one class": distances[same], "two classes": distances[~same]}
    label = "distance" if model.head is None else "-logit"
    drawing.plot_histograms(kinds, workdir / "distances.png", label, threshold)
    seconds["evaluation"] = time.perf_counter() - before
    metrics = {
        "one_shot": accuracy,
        "ways": config.ways,
        "trials": TRIALS,
        "eer": verification.equal_error_rate(distances, same),
        "threshold": threshold,
        "dataset": test.name,
        "split": test.split,
        "classes": test.class_names,
        "pictures": test.num_examples,
        "epoch": config.epochs,
        "parameters": model.count_params(),
        "seconds": seconds,
    }
    run_folder.write_json(workdir / "metrics.json", metrics)

    # Exports.
    before = time.perf_counter()
    if config.export:
        export.export_embedding(model, workdir, config.export, train)
    seconds["export"] = time.perf_counter() - before
    seconds["total"] = time.perf_counter() - started
    metrics["seconds"] = {name: round(value, 1) for name, value in seconds.items()}
    run_folder.write_json(workdir / "metrics.json", metrics)
    print(f"\n{len(test.class_names)} classes of {test.name}, not trained on:")
    print(f"  one picture each of {config.ways}, which is it?   {accuracy:.4f}")
    print(f"  is it this class? equal error rate    {metrics['eer']:.4f}")
    app.print_files(workdir, seconds["total"])
    return metrics


def main(argv):
    del argv
    run(flags.FLAGS)


if __name__ == "__main__":
    app.run_main(main, __doc__)
