"""Trains descriptors that tell objects and their poses, and asks them for views never seen.

  python apps/train_descriptor.py
  python apps/train_descriptor.py --flagfile=configs/train_descriptor/solids.flags

Objects are the solids of the built-in scenes, each in many poses, drawn under several lights, in
several colours and on several grounds. Known views and queries are of poses of their own. The run
folder (--workdir) holds, in the end:
  flags.txt       the flags as run; --flagfile=flags.txt repeats the run
  metrics.json    of queries: how often the nearest known view is of the right object, and by how
                  many degrees its pose differs, where it is
  history.csv     the loss; curves.png draws it; tensorboard/ has it too
  samples.png     queries, and the nearest known views of each with their angles
  angles.png      how often which angle is between a query and the nearest known view
  last.keras      the model after the last epoch
  saved_model/, model_float32.tflite, model_float16.tflite   the descriptor's exports

Started again after a crash, the same command goes on from the last checkpoint.
"""

import sys
import time

from absl import flags

from kerasvision.training import app, run_folder

flags.DEFINE_string("workdir", "runs/train_descriptor", "Run folder.")
flags.DEFINE_bool("resume", True, "Go on from the last checkpoint of --workdir.")
flags.DEFINE_integer("seed", 0, "Seed of everything random.")
flags.DEFINE_integer("poses", 300, "Poses of each object, to train on.", lower_bound=4)
flags.DEFINE_integer("appearances", 8, "Pictures of each of these poses.", lower_bound=2)
flags.DEFINE_integer("views", 600, "Known views of each object, in the end.", lower_bound=1)
flags.DEFINE_integer("queries", 60, "Views of each object that are asked for.", lower_bound=1)
flags.DEFINE_integer("image_size", 64, "Side of the pictures, in pixels.", lower_bound=28)
flags.DEFINE_enum(
    "model",
    "descriptor_network",
    ["descriptor_network", "cifar_resnet"],
    "The paper's network, or a ResNet-20, which learns more and takes longer.",
)
flags.DEFINE_integer("descriptor_size", 32, "Numbers of a descriptor.", lower_bound=1)
flags.DEFINE_float("margin", 0.01, "m of the triplets' loss.", lower_bound=0.0)
flags.DEFINE_integer("objects_each", 6, "Objects in a batch.", lower_bound=1)
flags.DEFINE_integer("poses_each", 16, "Poses of each of them, drawn twice; even.", lower_bound=2)
flags.DEFINE_integer("epochs", 30, "Of --steps_per_epoch batches each.", lower_bound=1)
flags.DEFINE_integer("steps_per_epoch", 100, "Batches in an epoch.", lower_bound=1)
flags.DEFINE_float("learning_rate", 0.001, "Of Adam; it falls to 0 along a cosine.")
flags.DEFINE_bool("jit_compile", None, "Compile the step with XLA. Default: as Keras chooses.")
flags.DEFINE_list(
    "export", "saved_model,float32,float16", "What to export: saved_model and/or precisions."
)

SPACE_NEEDED = 100e6  # bytes
SHEET_QUERIES, NEIGHBOURS = 8, 4


def run(config):
    """Trains, measures, draws and exports; `config` has the flags as attributes."""
    started = time.perf_counter()
    workdir = run_folder.prepare(
        config.workdir, run_folder.app_flags(), config.resume, SPACE_NEEDED
    )
    app.import_tensorflow()
    import keras
    import numpy as np

    from kerasvision import backbones, data, drawing, export
    from kerasvision.embedding import (
        Gallery,
        PoseDescriptor,
        descriptor_network,
        embedding_network,
    )
    from kerasvision.training import callbacks

    app.start(config.seed, mixed_precision=False, deterministic=False)

    # Data.
    def draw(split, poses, appearances=1):
        return data.load_posed_objects("scenes", split, poses, appearances, config.image_size)

    train = draw("train", config.poses, config.appearances)
    known, queries = draw("val", config.views), draw("test", config.queries)
    names = train.class_names
    print(
        f"{len(names)} objects: {', '.join(names)}; {config.poses} poses of each to train on, "
        f"{config.views} known views, {config.queries} queries"
    )
    seconds = {"data": time.perf_counter() - started}

    # Model.
    shape = (config.image_size, config.image_size, 3)
    if config.model == "cifar_resnet":
        backbone = backbones.cifar_resnet(shape, include_top=False)
        network = embedding_network(backbone, config.descriptor_size, "flatten")
    else:
        network = descriptor_network(shape, config.descriptor_size)
    model = PoseDescriptor(network, config.margin)
    steps = config.steps_per_epoch
    schedule = keras.optimizers.schedules.CosineDecay(config.learning_rate, config.epochs * steps)
    model.compile(
        keras.optimizers.Adam(schedule),
        jit_compile="auto" if config.jit_compile is None else config.jit_compile,
    )
    checkpoint = callbacks.Checkpoint(workdir, steps, monitor=None)
    epochs_done = checkpoint.restore(model)
    if epochs_done:
        print(f"going on after epoch {epochs_done} of {config.epochs}")

    # Training.
    if epochs_done < config.epochs:
        model.fit(
            data.pose_batches(
                train,
                min(config.objects_each, len(names)),
                config.poses_each,
                steps_per_epoch=steps,
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
                checkpoint,
                keras.callbacks.TensorBoard(workdir / "tensorboard", write_graph=False),
            ],
        )
    drawing.plot_history(checkpoint.history, workdir / "curves.png")
    seconds["training"] = sum(row["seconds"] for row in checkpoint.rows)

    # Evaluation.
    before = time.perf_counter()
    descriptors = [model.predict(x.images[:, 0], verbose=0) for x in (known, queries)]
    gallery = Gallery("", config.descriptor_size)
    gallery.enrol("views", descriptors[0])
    places, distances = gallery.search(descriptors[1], NEIGHBOURS)
    nearest = places[:, 0]
    right = known.labels[nearest] == queries.labels
    angles = data.angles_between(known.turns[nearest], queries.turns)
    # What a perfect descriptor would find: of the object's known views the nearest in pose.
    likeness = data.pose_similarity(queries.turns, known.turns)
    likeness[queries.labels[:, None] != known.labels] = -np.inf
    least = data.angles_between(known.turns[likeness.argmax(axis=1)], queries.turns)
    metrics = {
        "class_accuracy": float(right.mean()),
        "median_angle": float(np.median(angles[right])) if right.any() else None,
        "median_angle_of_all": float(np.median(np.where(right, angles, 180.0))),
        "within_15_degrees": float(np.mean(right & (angles <= 15))),
        "median_angle_possible": float(np.median(least)),
        "classes": {
            name: {
                "accuracy": float(right[queries.labels == i].mean()),
                "median_angle": float(np.median(angles[queries.labels == i])),
            }
            for i, name in enumerate(names)
        },
        "queries": len(right),
        "known_views": len(known.labels),
        "epoch": config.epochs,
        "parameters": model.network.count_params(),
    }
    drawing.plot_histograms(
        {"queries": angles[right]}, workdir / "angles.png", "degrees", metrics["median_angle"]
    )
    shown = np.linspace(0, len(right) - 1, min(SHEET_QUERIES, len(right))).astype(int)
    cells, captions = [], []
    for query in shown:
        cells.append(queries.images[query, 0])
        captions.append([(names[queries.labels[query]], drawing.BLACK)])
        for place in places[query]:
            is_right = known.labels[place] == queries.labels[query]
            (angle,) = data.angles_between(known.turns[[place]], queries.turns[[query]])
            color = drawing.RIGHT if is_right else drawing.WRONG
            cells.append(known.images[place, 0])
            captions.append([(f"{names[known.labels[place]]} {angle:.0f}°", color)])
    title = "queries, and the nearest known views"
    columns = 1 + places.shape[1]
    drawing.captioned_sheet(cells, captions, workdir / "samples.png", title, columns, cell=110)
    seconds["evaluation"] = time.perf_counter() - before
    metrics["seconds"] = seconds
    run_folder.write_json(workdir / "metrics.json", metrics)

    # Exports.
    before = time.perf_counter()
    if config.export:
        export.export_embedding(model, workdir, config.export)
    seconds["export"] = time.perf_counter() - before
    seconds["total"] = time.perf_counter() - started
    metrics["seconds"] = {name: round(value, 1) for name, value in seconds.items()}
    run_folder.write_json(workdir / "metrics.json", metrics)
    print(f"\n{len(right)} views of {len(names)} objects, in poses not trained on:")
    print(f"  nearest known view is of the object   {metrics['class_accuracy']:.4f}")
    print(f"  median angle to it, degrees           {metrics['median_angle'] or 0:.1f}")
    print(f"  … to the nearest pose there is        {metrics['median_angle_possible']:.1f}")
    app.print_files(workdir, seconds["total"])
    return metrics


def main(argv):
    del argv
    run(flags.FLAGS)


if __name__ == "__main__":
    app.run_main(main, __doc__)
