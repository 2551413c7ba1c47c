"""Finds priors for a YOLO: clusters of the boxes of a data set, by their overlap.

  python tools/cluster_anchors.py --dataset=voc:MY_PICTURES --image_size=416 --num_priors=5

Dimension clusters (Redmon & Farhadi 2017, section 2): k-means of box sizes with the distance
1 - IoU of two boxes that have the same centre. --output has two drawings, as figure 2: the average
IoU of a box with the best prior, over the number of priors; and the chosen priors. The last line
that is printed is for the command line or the flagfile of a training: height x width in pixels of
each prior, the smallest first.
"""

import numpy as np
from absl import flags

from kerasvision.training import app

flags.DEFINE_string("dataset", "scenes", app.DETECTION_DATASETS)
flags.DEFINE_string("split", "train", "Split whose boxes are clustered.")
flags.DEFINE_string("data_dir", None, "Folder of the files of TensorFlow Datasets.")
flags.DEFINE_bool("download", False, "Download a data set that is not there yet.")
flags.DEFINE_integer("image_size", 416, "Side of the training's input in pixels.", lower_bound=1)
flags.DEFINE_integer(
    "num_priors", 5, "Priors: 5 of YOLOv2, 9 of YOLOv3, 6 of YOLOv3-tiny.", lower_bound=1
)
flags.DEFINE_integer("max_priors", 12, "The curve's last number of priors.", lower_bound=1)
flags.DEFINE_integer("restarts", 10, "Starts of the k-means; the best end counts.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Seed of the starts.")
flags.DEFINE_string("output", "anchors.png", "Picture to write.")


def iou_of_sizes(sizes, priors):
    """IoU (n, k) of boxes (n, 2) and (k, 2), heights and widths, that have the same centre."""
    intersection = np.minimum(sizes[:, None], priors[None]).prod(axis=-1)
    return intersection / (sizes.prod(axis=1)[:, None] + priors.prod(axis=1) - intersection)


def cluster(sizes, count, rng, restarts):
    """k-means of box sizes with the distance 1 - IoU.

    Args:
        sizes: (n, 2) heights and widths, at least `count` of them different.
        count: k.
        rng: `numpy.random.Generator` that chooses the boxes to start from.
        restarts: how many starts there are.

    Returns:
        (k, 2) priors, sorted by area, and the average IoU of a box with the best of them.
    """
    different = np.unique(sizes, axis=0)
    best, best_iou = None, -1.0
    for _ in range(restarts):
        priors, nearest = rng.permutation(different)[:count], None
        while True:
            iou = iou_of_sizes(sizes, priors)
            before, nearest = nearest, iou.argmax(axis=1)
            if before is not None and (before == nearest).all():
                break
            # A prior that no box is nearest to stays where it is.
            for i in np.unique(nearest):
                priors[i] = sizes[nearest == i].mean(axis=0)
        average = iou.max(axis=1).mean()
        if average > best_iou:
            best, best_iou = priors, average
    return best[np.argsort(best.prod(axis=1))], float(best_iou)


def draw(averages, priors, title, path):
    """The average IoU over the number of priors, and the priors around one centre."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    figure = Figure(figsize=(10, 5), layout="constrained")
    curve, boxes = figure.subplots(1, 2)
    numbers = range(1, len(averages) + 1)
    curve.plot(numbers, averages, marker="o")
    curve.plot(len(priors), averages[len(priors) - 1], marker="o", markersize=12, color="C1")
    curve.set_xlabel("number of priors")
    curve.set_ylabel("average IoU")
    curve.grid(alpha=0.3)
    curve.spines[["top", "right"]].set_visible(False)
    for i, (height, width) in enumerate(priors):
        boxes.add_patch(
            Rectangle(
                (-width / 2, -height / 2),
                width,
                height,
                fill=False,
                edgecolor=f"C{i}",
                linewidth=2,
                label=f"{height:.0f} x {width:.0f}",
            )
        )
    boxes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), title="height x width")
    half = 0.55 * priors.max()
    boxes.set(xlim=(-half, half), ylim=(-half, half), aspect="equal", xlabel="pixels")
    boxes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


def run(config):
    """Clusters, draws, prints; returns the priors (k, 2). `config` has the flags as attributes."""
    app.import_tensorflow()
    from kerasvision import data

    dataset = data.load(
        config.dataset, config.split, data_dir=config.data_dir, download=config.download
    )
    for problem in dataset.problems:
        print(problem)
    boxes = np.concatenate([record.boxes[~record.ignored] for record in dataset.records])
    # The pipeline resizes pictures to the square of the input.
    sizes = config.image_size * (boxes[:, 2:] - boxes[:, :2]).astype("float64")
    different, wanted = len(np.unique(sizes, axis=0)), config.num_priors
    if different < wanted:
        raise ValueError(
            f"--num_priors: split {config.split!r} of {config.dataset} has {different} different "
            f"sizes of boxes; received: {wanted}"
        )

    rng = np.random.default_rng(config.seed)
    averages = []
    print("| priors | average IoU |\n|---|---|")
    for count in range(1, min(max(config.max_priors, wanted), different) + 1):
        found, average = cluster(sizes, count, rng, config.restarts)
        averages.append(average)
        print(f"| {count} | {average:.3f} |")
        if count == wanted:
            priors = found
    title = f"{len(sizes)} boxes of {config.dataset}, {config.split}, at {config.image_size} pixels"
    draw(averages, priors, title, config.output)
    print(f"\n{config.output}\n--priors={','.join(f'{h:.0f}x{w:.0f}' for h, w in priors)}")
    return priors


def main(argv):
    del argv
    run(flags.FLAGS)


if __name__ == "__main__":
    app.run_main(main, __doc__)
