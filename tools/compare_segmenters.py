"""Lays runs of apps/train_segmenter.py side by side: what they cost, and how good they are.

  python tools/compare_segmenters.py --runs=runs/segnet,runs/fcn8s,runs/unet

Prints a table in Markdown, the best mean IoU first. A run is called by its folder's name. Time is
that of all epochs with the evaluations between them, memory the most that the process ever had.
"""

import json
import pathlib
import sys

from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_list("runs", None, "Run folders.", required=True)

HEADER = (
    "run", "parameters", "minutes of training", "memory, GB", "mean IoU", "pixel accuracy",
    "mean class accuracy", "boundary F1",
)  # fmt: skip


def read_run(folder):
    """The metrics of a run folder."""
    path = pathlib.Path(folder) / "metrics.json"
    try:
        metrics = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        sys.exit(f"error: {path}: expected a run's metrics; received: {error}")
    if "mean_iou" not in metrics or "peak_memory_bytes" not in metrics:
        sys.exit(f"error: {path}: expected a run of train_segmenter; received: no mean IoU")
    return {"name": path.parent.name, **metrics}


def row(metrics):
    """Texts for the columns of `HEADER`."""
    scores = ("mean_iou", "pixel_accuracy", "mean_class_accuracy", "boundary_f1")
    return [
        metrics["name"],
        f"{metrics['parameters']:,}",
        f"{metrics['seconds']['training'] / 60:.0f}",
        f"{metrics['peak_memory_bytes'] / 1e9:.1f}",
        *("-" if metrics[name] is None else f"{metrics[name]:.3f}" for name in scores),
    ]


def main(argv):
    del argv
    runs = [read_run(folder) for folder in FLAGS.runs]
    tests = {(run["dataset"], run["split"], run["pictures"]) for run in runs}
    if len(tests) > 1:
        sys.exit(f"error: --runs: must be tested on the same pictures; received: {sorted(tests)}")
    runs.sort(key=lambda run: -(run["mean_iou"] or 0))
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}")
    for run in runs:
        print(f"| {' | '.join(row(run))} |")


if __name__ == "__main__":
    app.run(main)
