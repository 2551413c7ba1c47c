"""What a segmenter gets right and wrong, after and during training."""

import pathlib

import keras
import numpy as np
import tensorflow as tf

from kerasvision import drawing
from kerasvision.metrics.confusion import write_confusion
from kerasvision.metrics.segmentation import SegmentationScores, membrane_scores
from kerasvision.segmentation.tiling import predict_tiles, predict_turned

SAMPLES = 6


def probabilities_of(segmenter, image, tiles=False, margin=None, average_turns=False):
    """Probabilities (height, width, C) float32 for every pixel of a picture of any size.

    Args:
        segmenter: as from `kerasvision.segmentation.load_segmenter`.
        image: (height, width, 3) uint8.
        tiles: whether the picture is looked at in its own resolution, tile by tile (see
            `predict_tiles`), or resized to what the segmenter takes, and the result back.
        margin: of the tiles.
        average_turns: whether tiles are looked at in eight ways, see `predict_turned`.

    Raises:
        ValueError: a resized picture for a segmenter that doesn't predict all of it, or turned
            ones without tiles, or a margin that leaves nothing of a tile.
    """
    if tiles:
        predict = predict_turned if average_turns else predict_tiles
        return predict(segmenter, image, margin)
    if average_turns:
        raise ValueError("average_turns needs tiles; received: tiles=False")
    size = segmenter.image_shape[:2]
    if tuple(segmenter.output_size) != tuple(size):
        raise ValueError(
            f"pictures must be looked at in tiles by a segmenter that predicts the middle "
            f"{segmenter.output_size} of {tuple(size)} pixels; received: tiles={tiles}"
        )
    # As in training.
    resized = np.round(tf.image.resize(image, size, antialias=True))
    found = segmenter.predict_on_batch(resized[None].astype("uint8"))
    return tf.image.resize(found[0], image.shape[:2]).numpy()


class SegmentationEvaluation(keras.callbacks.Callback):
    """Adds val_mean_iou and val_pixel_accuracy to the logs of every `every`-th and the last epoch.

    Args:
        dataset: `kerasvision.data.SegmentationDataset`.
        every: epochs from one evaluation to the next.
        epochs: of `fit`.
        tiles, margin: as of `probabilities_of`.
    """

    def __init__(self, dataset, every, epochs, tiles=False, margin=None):
        super().__init__()
        self.dataset = dataset
        self.every = every
        self.epochs = epochs
        self.tiles = tiles
        self.margin = margin

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self.every == 0 or epoch + 1 == self.epochs:
            # Boundaries would take as long as the network.
            scores = SegmentationScores(self.model.class_names, boundaries=False)
            for _, image, labels in self.dataset.examples():
                found = probabilities_of(self.model, image, self.tiles, self.margin)
                scores.update(labels, found.argmax(axis=-1))
            result = scores.result()
            logs["val_mean_iou"] = result["mean_iou"]
            logs["val_pixel_accuracy"] = result["pixel_accuracy"]


def evaluate(
    segmenter,
    dataset,
    workdir,
    tiles=False,
    margin=None,
    average_turns=False,
    cells=None,
    progress=False,
):
    """Scores of a segmenter at the pictures' own size, and what it mistakes, drawn.

    Args:
        segmenter: as from `kerasvision.segmentation.load_segmenter`.
        dataset: `kerasvision.data.SegmentationDataset`.
        workdir: folder for confusion.png, confusion.csv, classes.png and samples.png.
        tiles, margin, average_turns: as of `probabilities_of`.
        cells: name of the class of the cells, for the errors of their membranes; None: no cells.
        progress: whether to show a progress bar.

    Returns:
        dict of `kerasvision.metrics.segmentation.SegmentationScores.result`; with `cells` also
        "membranes", the dict of `kerasvision.metrics.segmentation.membrane_scores`.

    Raises:
        ValueError: as `probabilities_of`; there is no such class of cells, or pictures of cells
            that are not of one size.
    """
    workdir, names = pathlib.Path(workdir), list(segmenter.class_names)
    if cells is not None and cells not in names:
        raise ValueError(f"cells must be one of {', '.join(names)}; received: {cells}")
    bar = keras.utils.Progbar(dataset.num_examples) if progress else None
    scores, samples, maps = SegmentationScores(names), [], []
    # Spread over the data set: neighbours are often frames of one video.
    sampled = np.linspace(0, dataset.num_examples - 1, SAMPLES).astype(int)
    for index, (_, image, labels) in enumerate(dataset.examples()):
        probabilities = probabilities_of(segmenter, image, tiles, margin, average_turns)
        found = probabilities.argmax(axis=-1)
        scores.update(labels, found)
        if cells is not None:
            maps.append((labels == names.index(cells), probabilities[..., names.index(cells)]))
        if index in sampled:
            samples.append((image, labels, found))
        if bar is not None:
            bar.add(1)
    result = scores.result()
    if cells is not None:
        result["membranes"] = membrane_scores(*map(np.stack, zip(*maps)))
    write_confusion(scores.confusion, names, workdir / "confusion.csv")
    drawing.plot_confusion(scores.confusion, names, workdir / "confusion.png", "pixels")
    drawing.plot_scores_per_class(
        names, [row["iou"] for row in result["per_class"]], workdir / "classes.png", "IoU"
    )
    draw_samples(samples, names, dataset.colors, workdir / "samples.png")
    return result


def draw_samples(samples, class_names, colors, path):
    """Saves a sheet of pictures, each with its truth and its prediction laid over, and a legend.

    Args:
        samples: list of (picture (H, W, 3) uint8, labels (H, W), predictions (H, W)).
        class_names: C names.
        colors: (C, 3) RGB.
        path: of the PNG.
    """
    rows = [
        (
            image,
            drawing.overlay_labels(image, labels, colors),
            drawing.overlay_labels(image, found, colors),
        )
        for image, labels, found in samples
    ]
    void = any((labels < 0).any() for _, labels, _ in samples)
    sheet = drawing.contact_sheet(rows, None, ("picture", "ground truth", "prediction"), groups=1)
    legend = drawing.legend(class_names, colors, len(sheet), void)
    drawing.save(np.concatenate([sheet, legend], axis=1), path)
