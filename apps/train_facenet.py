"""Trains a FaceNet on some persons, measures it on others, draws who it takes for whom, exports it.

  python apps/train_facenet.py --dataset=folder:FACES --train_classes=0:22 --val_classes=22:30
  python apps/train_facenet.py --dataset=digits --train_classes=0:7 --val_classes=7:10 --noflip

The run folder (--workdir) holds, in the end:
  flags.txt       the flags as run; --flagfile=flags.txt repeats the run
  metrics.json    equal error rate, rank-1 and more on persons that it has not been trained on
  history.csv     the loss, the share of active triplets, and the error rates while it learnt;
                  curves.png draws them; tensorboard/ has them too
  samples/        after each evaluation: pictures, and the nearest ones to each
  samples.png     the same in the end; hardest_pairs.png: whom it is most mistaken about
  distances.png   of pairs of one person, and of two; roc.png, open_set.png: error rates by
                  threshold; map.png: all pictures in a plane
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
    "nn2": ((224, 224), 7_456_304),
    "resnet18": ((112, 96), 11_300_000),
    "cifar_resnet": ((56, 48), 300_000),
    "mobilenet_v2": ((224, 224), 2_400_000),
    "squeezenet": ((224, 224), 800_000),
}
# Flag: the networks that heed it.
HEEDED_BY = {
    "width": ["resnet18", "cifar_resnet"],
    "depth": ["cifar_resnet"],
    "weights": ["resnet18", "mobilenet_v2", "squeezenet"],
    "pooling": ["resnet18", "cifar_resnet", "mobilenet_v2", "squeezenet"],
}
BYTES_PER_PARAMETER = 48  # of two models with optimizer state, one being written, and exports

app.define_flags("runs/train_facenet", dataset="digits", dataset_help=app.IDENTITY_DATASETS)
app.define_identity_flags()
flags.DEFINE_enum(
    "loss",
    "semi_hard",
    ["semi_hard", "batch_hard", "batch_all", "random"],
    "Which triplets of a batch it learns from.",
)
flags.DEFINE_float("alpha", 0.2, "Margin between the squared distances of a triplet.", 0.0)
flags.DEFINE_enum("model", "resnet18", list(NETWORKS), "Which network.")
flags.DEFINE_string("image_size", None, "HEIGHTxWIDTH in pixels. Default: the network's.")
flags.DEFINE_integer("width", None, "Channels of the first stage: resnet18 (64), cifar_resnet (16)")
flags.DEFINE_integer("depth", None, "Layers of cifar_resnet (20).")
flags.DEFINE_string("weights", None, "Of the backbone, see train_classifier. Default: random.")
flags.DEFINE_enum(
    "pooling", None, ["average", "flatten"], "Of the last maps; flatten: keep where things are."
)
flags.DEFINE_integer("embedding_size", 128, "Numbers of an embedding.", lower_bound=1)


def build_backbone(config, size):
    """The network that the flags ask for, from images to maps."""
    from kerasvision import backbones

    settings = {
        name: getattr(config, name)
        for name in ("width", "depth", "weights")
        if getattr(config, name) is not None
    }
    return getattr(backbones, config.model)((*size, 3), include_top=False, **settings)


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

    from kerasvision import data, drawing, export
    from kerasvision.embedding import FaceNet, embedding_network, evaluation, facenet_nn2
    from kerasvision.metrics import verification
    from kerasvision.training import callbacks, strategy

    app.start(config.seed, config.mixed_precision, config.deterministic)
    devices = strategy.make_strategy(config.strategy)

    # Data.
    train, val, test = app.load_identities(config)
    steps = config.steps_per_epoch or data.identity_steps(
        train, config.identities, config.pictures_each
    )
    seconds = {"data": time.perf_counter() - started}

    # Model.
    with devices.scope():
        if config.model == "nn2":
            network = facenet_nn2((*size, 3), config.embedding_size)
        else:
            network = embedding_network(
                build_backbone(config, size), config.embedding_size, config.pooling or "average"
            )
        model = FaceNet(network, config.loss, config.alpha, config.seed)
        app.compile_model(model, config, steps)
    checkpoint = callbacks.Checkpoint(workdir, steps, monitor=None)
    with devices.scope():
        epochs_done = checkpoint.restore(model)
    if epochs_done:
        print(f"going on after epoch {epochs_done} of {config.epochs}")

    # Training.
    def held_out(dataset):
        return data.classification_batches(dataset, model.image_shape, config.eval_batch_size)

    def draw(epoch, embeddings, labels):
        (workdir / "samples").mkdir(exist_ok=True)
        path = workdir / f"samples/epoch_{epoch:04d}.png"
        picture_at = data.picture_reader(val)
        evaluation.nearest_sheet(picture_at, embeddings, labels, val.class_names, path)

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
                evaluation.VerificationEvaluation(
                    held_out(val), config.eval_every, config.epochs, draw
                ),
                checkpoint,
                keras.callbacks.TensorBoard(workdir / "tensorboard", write_graph=False),
            ],
        )
    drawing.plot_history(checkpoint.history, workdir / "curves.png")
    seconds["training"] = sum(row["seconds"] for row in checkpoint.rows)

    # Evaluation of the last epoch: the persons that judge have chosen nothing.
    before = time.perf_counter()
    embeddings, labels = evaluation.embed(model, held_out(test))
    metrics = verification.evaluate(embeddings, labels)
    distances, same = verification.pair_distances(embeddings, labels)
    kinds = {"one person": distances[same], "two persons": distances[~same]}
    drawing.plot_histograms(kinds, workdir / "distances.png", "distance", metrics["threshold"])
    picture_at = data.picture_reader(test)
    evaluation.nearest_sheet(
        picture_at, embeddings, labels, test.class_names, workdir / "samples.png"
    )
    evaluation.hardest_pairs_sheet(
        picture_at, embeddings, labels, test.class_names, workdir / "hardest_pairs.png"
    )
    evaluation.draw_verification(embeddings, labels, test.class_names, workdir)
    seconds["evaluation"] = time.perf_counter() - before
    metrics.update(
        dataset=test.name,
        split=test.split,
        persons=len(test.class_names),
        pictures=test.num_examples,
        epoch=config.epochs,
        parameters=model.network.count_params(),
        seconds=seconds,
    )
    run_folder.write_json(workdir / "metrics.json", metrics)

    # Exports.
    before = time.perf_counter()
    if config.export:
        export.export_embedding(model, workdir, config.export, train)
    seconds["export"] = time.perf_counter() - before
    seconds["total"] = time.perf_counter() - started
    metrics["seconds"] = {name: round(value, 1) for name, value in seconds.items()}
    run_folder.write_json(workdir / "metrics.json", metrics)
    print(f"\n{len(test.class_names)} persons of {test.name}, not trained on:")
    print(evaluation.format_verification(metrics))
    app.print_files(workdir, seconds["total"])
    return metrics


def main(argv):
    del argv
    run(flags.FLAGS)


if __name__ == "__main__":
    app.run_main(main, __doc__)
