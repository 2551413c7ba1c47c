"""Evolves pictures of nothing that a classifier is sure of (Nguyen et al. 2015).

  python apps/fool.py --model=runs/quickstart_classifier --encoding=direct
  python apps/fool.py --model=mobilenet_v2.keras --classes='king penguin,starfish,baseball'

--model is a run folder or .keras file of a classifier. The folder --workdir gets class_NUMBER.png,
the picture of which the network is surest of each class, as the network judged it; sheet.png, all
of them; history.csv, how confidence grew; steps/, sheets on the way; and metrics.json, the
confidences. Stopped with Ctrl-C, it writes what it has.
"""

import csv
import sys
import time

from absl import flags

from kerasvision.training import app, run_folder

flags.DEFINE_string("model", None, "Run folder or .keras file of a classifier.")
flags.DEFINE_string("workdir", "runs/fool", "Folder for the results.")
flags.DEFINE_integer("seed", 0, "Seed of everything random: the same seed, the same pictures.")
flags.DEFINE_enum(
    "encoding", "cppn", ["cppn", "direct"], "What is mutated: a network that paints, or pixels."
)
flags.DEFINE_list("classes", None, "Names or numbers of classes. Default: all.")
flags.DEFINE_integer("generations", 1000, "At most this many.", lower_bound=1)
flags.DEFINE_integer("population", 32, "Children of a generation.", lower_bound=1)
flags.DEFINE_float("threshold", 0.99, "Stop when the network is as sure of every class.", 0.0, 1.0)

SHEET_PICTURES = 50
SHEET_CELL = 200  # pixels
SHEETS_ON_THE_WAY = 5
PROGRESS_EVERY = 10  # generations


def run(config):
    """Evolves, draws and writes; `config` has the flags as attributes."""
    app.check_needed(config, ("model",))
    workdir = run_folder.make_folder(config.workdir, space_needed=50e6)
    run_folder.write_atomically(
        workdir / run_folder.FLAGFILE, run_folder.flagfile_text(run_folder.app_flags())
    )
    app.import_tensorflow()
    import keras
    import numpy as np

    from kerasvision import drawing
    from kerasvision.classification import load_classifier
    from kerasvision.synthesis import CPPNEncoding, DirectEncoding, MapElites

    classifier = load_classifier(config.model)
    if not isinstance(classifier, keras.Model):
        raise run_folder.RunError(
            f"--model: must be a run folder or .keras file; received: {config.model}"
        )
    names = classifier.class_names
    chosen = None
    if config.classes is not None:
        chosen = app.read_classes("classes", config.classes, names, len(names))
    encodings = {"cppn": CPPNEncoding, "direct": DirectEncoding}
    encoding = encodings[config.encoding](classifier.image_shape)
    evolution = MapElites(classifier, encoding, chosen, config.population)
    shown = evolution.classes[:SHEET_PICTURES]

    def draw(path):
        captions = [
            [(names[c], drawing.BLACK), (f"{evolution.confidences[c]:.4f}", drawing.BLACK)]
            for c in shown
        ]
        drawing.captioned_sheet(
            [evolution.image(c).astype("uint8") for c in shown],
            captions,
            path,
            title=f"what {classifier.name} is sure to see",
            cell=SHEET_CELL,
        )

    # Evolution.
    (workdir / "steps").mkdir(exist_ok=True)
    started, history = time.perf_counter(), []
    verbose = 1 if sys.stdout.isatty() else 2
    bar = keras.utils.Progbar(config.generations, verbose=verbose, stateful_metrics=["lowest"])
    sheet_every = max(1, config.generations // SHEETS_ON_THE_WAY)

    def on_generation(generation):
        values = np.array(list(evolution.confidences.values()))
        history.append((generation + 1, values.min(), np.median(values)))
        if generation % PROGRESS_EVERY == 0:
            bar.update(generation + 1, [("lowest", values.min()), ("median", np.median(values))])
        if (generation + 1) % sheet_every == 0:
            draw(workdir / "steps" / f"{generation + 1:06d}.png")

    try:
        evolution(config.generations, config.seed, config.threshold, on_generation)
    except KeyboardInterrupt:
        if not history:
            raise
        print(f"\nstopped after {len(history)} generations")
    if sys.stdout.isatty():
        print()

    # What came of it.
    draw(workdir / "sheet.png")
    rows = []
    for c in evolution.classes:
        drawing.save(evolution.image(c).astype("uint8"), workdir / f"class_{c}.png")
        rows.append({"class": names[c], "number": c, "confidence": evolution.confidences[c]})
    with (workdir / "history.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("generation", "lowest_confidence", "median_confidence"))
        writer.writerows(history)
    values = np.array([row["confidence"] for row in rows])
    metrics = {
        "generations": len(history),
        "lowest_confidence": float(values.min()),
        "median_confidence": float(np.median(values)),
        "at_least_0.95": int((values >= 0.95).sum()),
        "classes": rows,
        "seconds": round(time.perf_counter() - started, 1),
    }
    run_folder.write_json(workdir / "metrics.json", metrics)
    print(
        f"after {len(history)} generations {metrics['at_least_0.95']} of {len(rows)} classes are "
        f"seen with a confidence of 0.95 or more; median {metrics['median_confidence']:.4f}, "
        f"lowest {metrics['lowest_confidence']:.4f}"
    )
    app.print_files(workdir, metrics["seconds"])
    return metrics


def main(argv):
    del argv
    run(flags.FLAGS)


if __name__ == "__main__":
    app.run_main(main, __doc__)
