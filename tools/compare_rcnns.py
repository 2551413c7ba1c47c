"""Lays runs of apps/train_rcnn.py side by side: accuracy, and seconds a picture of each stage.

  python tools/compare_rcnns.py --runs=runs/rcnn,runs/spp_net,runs/fast_rcnn,runs/faster_rcnn

Prints a table in Markdown, the slowest first, and draws accuracy over time, with the proposals and
without them, as the papers tell it both ways. Speed-ups are over the slowest R-CNN, or over the
slowest run if there is none. Rows without numbers of their own are other ways to score the same
features: the softmax, SVMs, and SVMs with box regressors.
"""

import json
import pathlib
import sys

import numpy as np
from absl import app, flags
from matplotlib.figure import Figure

from kerasvision.drawing import PALETTE

FLAGS = flags.FLAGS
flags.DEFINE_list("runs", None, "Run folders.", required=True)
flags.DEFINE_string("output", "rcnns.png", "Picture to write.")

NAMES = {
    "rcnn": "R-CNN",
    "sliding_window": "sliding window",
    "spp_net": "SPP-net",
    "fast_rcnn": "Fast R-CNN",
    "rcnn_minus_r": "R-CNN minus R",
    "faster_rcnn": "Faster R-CNN",
}
HEADER = (
    "method", "AP50", "AP", "proposals", "recall at IoU 0.5", "s: proposals", "s: features",
    "s: classification", "s: total", "speed-up", "without proposals", "minutes of training",
)  # fmt: skip


def read_run(folder):
    """The metrics of a run folder."""
    path = pathlib.Path(folder) / "metrics.json"
    try:
        metrics = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        sys.exit(f"error: {path}: expected a run's metrics; received: {error}")
    if metrics.get("method") not in NAMES or "seconds_a_picture" not in metrics:
        sys.exit(f"error: {path}: expected a run of train_rcnn; received: no seconds a picture")
    return metrics


def search_seconds(metrics):
    """Seconds a picture of an outside search; what networks propose is a part of them."""
    return metrics["seconds_a_picture"].get("proposals", 0.0)


def table(runs):
    """The rows of the table, texts, of runs that are sorted by time."""
    slowest = next((run for run in runs if run["method"] == "rcnn"), runs[0])
    whole = slowest["seconds_a_picture"]["total"]
    rows = []
    for run in runs:
        seconds, proposals = run["seconds_a_picture"], run.get("proposals", {})
        total = seconds["total"]
        spent = run["seconds"].get("training", 0.0) + run["seconds"].get("post_hoc", 0.0)
        searched = total - search_seconds(run)
        rows.append(
            [
                NAMES[run["method"]],
                f"{run['AP50'] or 0:.3f}",
                f"{run['AP'] or 0:.3f}",
                f"{proposals['a_picture']:.0f}" if proposals else "",
                f"{proposals['recall50'] or 0:.3f}" if proposals else "",
                *(
                    f"{seconds[stage]:.3f}" if stage in seconds else ""
                    for stage in ("proposals", "features", "classification")
                ),
                f"{total:.3f}",
                f"{whole / total:.1f}x",
                f"{(whole - search_seconds(slowest)) / searched:.1f}x",
                f"{spent / 60:.1f}",
            ]
        )
        for name, values in list(run.get("variants", {}).items())[:-1]:
            scores = [f"{values[metric] or 0:.3f}" for metric in ("AP50", "AP")]
            rows.append([f"… {name}", *scores] + [""] * (len(HEADER) - 3))
    return rows


def draw(runs, path):
    """Accuracy over seconds a picture: filled with, hollow without the search."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for number, run in enumerate(runs):
        color = np.array(PALETTE[number]) / 255
        total = run["seconds_a_picture"]["total"]
        accuracy = run["AP"] or 0.0
        if search_seconds(run) > 0.01 * total:
            searched = total - search_seconds(run)
            axes.plot([searched, total], [accuracy] * 2, color=color, linewidth=1, zorder=1)
            axes.plot(searched, accuracy, "o", color=color, markersize=9, markerfacecolor="white")
        axes.plot(total, accuracy, "o", color=color, markersize=9, label=NAMES[run["method"]])
    axes.set_xscale("log")
    axes.set_xlabel("seconds a picture (hollow: without the search for proposals)")
    axes.set_ylabel("AP")
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


def main(argv):
    del argv
    runs = [read_run(folder) for folder in FLAGS.runs]
    tests = {(run["dataset"], run["split"], run["pictures"]) for run in runs}
    if len(tests) > 1:
        sys.exit(f"error: --runs: must be tested on the same pictures; received: {sorted(tests)}")
    runs.sort(key=lambda run: -run["seconds_a_picture"]["total"])
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}")
    for row in table(runs):
        print(f"| {' | '.join(row)} |")
    draw(runs, FLAGS.output)
    print(f"\n{FLAGS.output}")


if __name__ == "__main__":
    app.run(main)
