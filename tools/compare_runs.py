"""Draws one curve of several runs into one picture, and prints a table of their ends.

  python tools/compare_runs.py --runs=runs/plain20,runs/plain56 --curve=val_accuracy --output=a.png

Each run is a run folder with history.csv; it is called by the folder's name. If there is a curve
with and one without "val_", such as accuracy and val_accuracy, --curve=val_accuracy draws the other
one thin. With --error, 1 minus the curve is drawn, as papers do.
"""

import csv
import pathlib
import sys

from absl import app, flags
from matplotlib.figure import Figure

FLAGS = flags.FLAGS
flags.DEFINE_list("runs", None, "Run folders.", required=True)
flags.DEFINE_string("curve", "val_accuracy", "Column of history.csv.")
flags.DEFINE_bool("error", False, "Draw 1 minus the curve.")
flags.DEFINE_string("title", "", "Title of the picture.")
flags.DEFINE_string("output", "comparison.png", "Picture to write.")


def read_curve(run, name):
    """(epochs, values) of a column of a run's history; empty epochs are left out."""
    path = pathlib.Path(run) / "history.csv"
    try:
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        sys.exit(f"error: {path}: expected a run's history; received: {error}")
    if rows and name not in rows[0]:
        sys.exit(f"error: {path}: expected a column {name}; received: {', '.join(rows[0])}")
    points = [(int(row["epoch"]), float(row[name])) for row in rows if row[name]]
    if not points:
        sys.exit(f"error: {path}: expected values of {name}; received: none")
    epochs, values = zip(*points)
    return epochs, [1 - value for value in values] if FLAGS.error else values


def main(argv):
    del argv
    base = FLAGS.curve.removeprefix("val_")
    what = f"1 - {FLAGS.curve}" if FLAGS.error else FLAGS.curve
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    print(f"| run | {what}, last epoch | {base} in training |\n|---|---|---|")
    for number, run in enumerate(FLAGS.runs):
        epochs, values = read_curve(run, FLAGS.curve)
        name = pathlib.Path(run).name
        axes.plot(epochs, values, color=f"C{number}", linewidth=2, label=name)
        training = ""
        if base != FLAGS.curve:
            train_epochs, train_values = read_curve(run, base)
            axes.plot(train_epochs, train_values, color=f"C{number}", linewidth=0.8)
            training = f"{train_values[-1]:.3f}"
        print(f"| {name} | {values[-1]:.3f} | {training} |")
    axes.set_xlabel("epoch")
    axes.set_ylabel(what if base == FLAGS.curve else f"{what} (thin: in training)")
    axes.set_title(FLAGS.title)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(FLAGS.output, dpi=110)
    print(f"\n{FLAGS.output}")


if __name__ == "__main__":
    app.run(main)
