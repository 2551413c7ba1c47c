"""Classification sets that need no download: Fashion-MNIST, digits and cut-out scenes."""

import gzip
import os
import pathlib

import cv2
import keras
import numpy as np
import sklearn.datasets
import tensorflow as tf

from kerasvision.data import pictures
from kerasvision.data.classification import ClassificationDataset

DEBIAN_FASHION_MNIST = pathlib.Path("/usr/share/datasets/fashion-mnist")
FASHION_MNIST_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
# Files of a split, and which of their pictures it has. The last 5,000 to train on are held out.
FASHION_MNIST_SPLITS = {
    "train": ("train", slice(0, 55_000)),
    "val": ("train", slice(55_000, 60_000)),
    "test": ("t10k", slice(0, 10_000)),
}
# In the set's order, in which the same hand writes pictures one after the other: those of
# another split are by other people.
DIGITS_SPLITS = {"train": slice(0, 1197), "val": slice(1197, 1497), "test": slice(1497, 1797)}

CONTEXT = 1.25  # side of a square in sides of its object's box, whichever is the longer
MAX_COVERED = 0.25  # of the box of an object, by the box of another one


def load_fashion_mnist(name, split, data_dir=None, download=False):
    """Reads Fashion-MNIST: 28 x 28 grey pictures of clothes, 55,000 + 5,000 + 10,000 in all.

    The four files are looked for in `data_dir` if given, else in the folder of Debian's package
    `dataset-fashion-mnist` and in that of `keras.datasets.fashion_mnist`.

    Args:
        name: name of the data set in reports.
        split: `train`, `val` (the last 5,000 of the published training pictures) or `test`.
        data_dir: folder of `train-images-idx3-ubyte.gz` and the other three files.
        download: whether Keras may download the files if there are none.

    Returns:
        A `ClassificationDataset`; image ids number the pictures of a file from 0.

    Raises:
        ValueError: there is no such split, or a file is missing or broken.

    Reference: Xiao et al., "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
    Learning Algorithms" (arXiv:1708.07747).
    """
    if split not in FASHION_MNIST_SPLITS:
        raise ValueError(
            f"{name}: split must be one of: {', '.join(FASHION_MNIST_SPLITS)}; received: {split}"
        )
    prefix, part = FASHION_MNIST_SPLITS[split]
    keras_folder = pathlib.Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    keras_folder = keras_folder / "datasets" / "fashion-mnist"
    folders = [DEBIAN_FASHION_MNIST, keras_folder] if data_dir is None else [pathlib.Path(data_dir)]
    names = [f"{prefix}-images-idx3-ubyte.gz", f"{prefix}-labels-idx1-ubyte.gz"]
    folder = next((f for f in folders if all((f / file).is_file() for file in names)), None)
    if folder is None and download:
        try:
            keras.datasets.fashion_mnist.load_data()
        except Exception as error:  # Keras raises the bare class.
            reason = " ".join(str(error).split())
            raise ValueError(f"{name}: must be downloadable; received: {reason}") from error
        folder = keras_folder
    if folder is None:
        raise ValueError(
            f"{name}: needs {names[0]} and its like: install Debian's package "
            "dataset-fashion-mnist, pass --download, or name their folder with --data_dir; "
            f"received: none in {', '.join(map(str, folders))}"
        )
    images, labels = (_read_idx(folder / file) for file in names)
    if images.shape[1:] != (28, 28) or labels.shape != images.shape[:1] or labels.max() > 9:
        raise ValueError(
            f"{folder / names[0]}: must hold pictures of 28 x 28 with a label of 0 to 9 each; "
            f"received: {images.shape} and {labels.shape}, up to {labels.max()}"
        )
    return _from_arrays(name, split, FASHION_MNIST_CLASSES, images, labels, part)


def load_digits(name, split):
    """Reads the 1,797 handwritten digits of scikit-learn, 8 x 8 grey, 1,197 + 300 + 300.

    Args:
        name: name of the data set in reports.
        split: `train`, `val` or `test`; their writers differ.

    Returns:
        A `ClassificationDataset`; image ids are the numbers in the set.

    Raises:
        ValueError: there is no such split.
    """
    if split not in DIGITS_SPLITS:
        raise ValueError(
            f"{name}: split must be one of: {', '.join(DIGITS_SPLITS)}; received: {split}"
        )
    digits = sklearn.datasets.load_digits()
    # 0 to 16 are the inked pixels in blocks of 4 x 4.
    images = np.round(digits.images * 255 / 16).astype(np.uint8)
    return _from_arrays(name, split, "0123456789", images, digits.target, DIGITS_SPLITS[split])


def crop_objects(name, detection):
    """Cuts a square with some context around every object that another one hardly covers.

    Objects of which another object's box covers more than a quarter are left out: it would not be
    clear which of the two is meant.

    Args:
        name: name of the data set in reports.
        detection: `DetectionDataset`.

    Returns:
        A `ClassificationDataset` of the same split and classes, in the picture's resolution; the
        image id of object j of picture i is 100 i + j.
    """
    encoded, labels, file_names, image_ids = [], [], [], []
    for record, example in zip(detection.records, detection.encoded_examples()):
        image = pictures.decode(example["encoded"]).numpy()
        for number, (box, label) in enumerate(zip(record.boxes, record.labels)):
            others = np.delete(record.boxes, number, 0)
            sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
            covered = np.prod(np.maximum(sides, 0), -1) / np.prod(box[2:] - box[:2])
            if np.any(covered > MAX_COVERED):
                continue
            size = np.array(image.shape[:2])
            corners = box.reshape(2, 2) * size
            side = min(round(CONTEXT * np.max(corners[1] - corners[0])), *size)
            start = np.round(np.mean(corners, 0) - side / 2).astype(int)
            top, left = np.clip(start, 0, size - side)
            crop = image[top : top + side, left : left + side, ::-1]
            encoded.append(cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes())
            labels.append(label)
            file_names.append(f"{record.file_name}/{number}")
            image_ids.append(100 * record.image_id + number)
    return ClassificationDataset(
        name,
        detection.split,
        detection.class_names,
        labels,
        file_names,
        detection.problems,
        image_ids=image_ids,
        stream=tf.constant(encoded),
    )


def _read_idx(path):
    """Returns the uint8 array of a gzipped file in MNIST's format."""
    try:
        with gzip.open(path) as file:
            content = file.read()
    except (OSError, EOFError) as error:
        raise ValueError(f"{path}: must be a whole gzip file; received: {error}") from error
    # Two zeros, 8 for unsigned bytes, the number of axes; then the axes, four bytes each.
    axes = content[3] if content[:3] == b"\x00\x00\x08" and len(content) > 3 else 0
    shape = np.frombuffer(content[4 : 4 + 4 * axes], ">u4").astype(int)
    if not axes or len(content) != 4 + 4 * axes + np.prod(shape):
        raise ValueError(
            f"{path}: must be an idx file of bytes; received: {len(content)} bytes that begin with "
            f"{content[:4].hex(' ') or 'nothing'}"
        )
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _from_arrays(name, split, class_names, images, labels, part):
    """Returns a `ClassificationDataset` of a part, a slice, of (N, H, W) uint8 grey pictures."""
    image_ids = list(range(len(images))[part])
    encoded = [cv2.imencode(".png", image)[1].tobytes() for image in images[part]]
    return ClassificationDataset(
        name,
        split,
        class_names,
        labels[part],
        [f"{name}/{split}/{number}" for number in image_ids],
        [],
        image_ids=image_ids,
        stream=tf.constant(encoded),
    )
