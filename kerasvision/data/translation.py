"""Pictures to translate into another kind: pairs of the same thing, or two kinds without pairs."""

import pathlib

import numpy as np
import tensorflow as tf

from kerasvision.data import dataset as dataset_lib
from kerasvision.data import pictures
from kerasvision.data.scenes import Scenes
from kerasvision.data.segmentation import decode as decode_labelled
from kerasvision.data.tfds_sets import encoded_dataset, find_split, open_builder
from kerasvision.data.yolo import PICTURE_SUFFIXES, SPLIT_NAMES


class Pictures(dataset_lib.PictureDataset):
    """Pictures of one kind, of which nothing more is known.

    Args:
        name: the word that names the data set.
        split: name of the split.
        file_names: N str: paths of the pictures, or names that a person can find them by.
        problems: list of str, a line for what was dropped.
        encoded: (N,) string tensor, the pictures' bytes; None: they are read from the files.
        half: "left" or "right": only this half of each picture counts; None: all of it.

    Raises:
        ValueError: if there is no picture.
    """

    def __init__(self, name, split, file_names, problems=(), encoded=None, half=None):
        image_ids = list(range(len(file_names)))
        super().__init__(name, split, [], file_names, image_ids, problems, encoded)
        self.half = half

    def decode(self, encoded):
        """Decodes the bytes of a picture, eagerly or in a graph: (h, w, 3) uint8."""
        image = pictures.decode(encoded)
        middle = tf.shape(image)[1] // 2
        if self.half == "left":
            return image[:, :middle]
        return image[:, middle:] if self.half == "right" else image

    def _truth(self):
        return lambda position: {}


class TranslationDataset:
    """Pictures x and y of one split: pairs, or two kinds that have nothing to do with each other.

    An encoded example has "encoded_x" and "encoded_y" () string, and "image_id" () int64, of x.
    An epoch has as many as there are of the rarer kind; of the other it draws others each time.

    Args:
        x, y: `Pictures`.
        paired: whether the i-th picture y is what the i-th x is to become.

    Raises:
        ValueError: unequal numbers of what should be pairs.
    """

    def __init__(self, x, y, paired):
        if paired and x.num_examples != y.num_examples:
            raise ValueError(
                f"{x.name}: split {x.split!r} must have a picture y for each x; received: "
                f"{x.num_examples} and {y.num_examples}"
            )
        self.x, self.y, self.paired = x, y, paired
        self.name, self.split = x.name, x.split
        self.problems = [*x.problems, *(line for line in y.problems if line not in x.problems)]
        self.num_examples = min(x.num_examples, y.num_examples)

    def swapped(self):
        """Returns the data set whose x are the y of this one."""
        return TranslationDataset(self.y, self.x, self.paired)

    def encoded_examples(self, shuffle_seed=None, *, shard_index=0, shard_count=1):
        """Returns the examples, as `PictureDataset.encoded_examples`."""

        def kind(pictures, seed):
            return pictures.encoded_examples(seed, shard_index=shard_index, shard_count=shard_count)

        # Any other seed gives the other kind an order of its own.
        other = shuffle_seed if shuffle_seed is None or self.paired else shuffle_seed + 1
        return tf.data.Dataset.zip(kind(self.x, shuffle_seed), kind(self.y, other)).map(
            lambda x, y: {
                "encoded_x": x["encoded"],
                "encoded_y": y["encoded"],
                "image_id": x["image_id"],
            }
        )

    def decode(self, example):
        """Decodes an encoded example: "x" and "y" (h, w, 3) uint8."""
        return {
            "x": self.x.decode(example["encoded_x"]),
            "y": self.y.decode(example["encoded_y"]),
        }

    def examples(self):
        """Yields (file name of x, picture x, picture y) of all examples, in their order."""
        examples = self.encoded_examples().map(self.decode, num_parallel_calls=tf.data.AUTOTUNE)
        for file_name, decoded in zip(self.x.file_names, examples.as_numpy_iterator()):
            yield file_name, decoded["x"], decoded["y"]


def load_side_by_side(name, path, split):
    """Reads pairs whose pictures lie side by side in one file, as those of the pix2pix paper.

    The folder has `SPLIT/*.jpg` or PNG; x is the left half, y the right one.

    Raises:
        ValueError: the folder or the split is missing or empty, or a picture has an odd width.
    """
    folder = _split_folder(pathlib.Path(path), split)
    files, sizes, problems = _readable(folder)
    for file in files:
        if sizes[file][1] % 2:
            raise ValueError(
                f"{file}: must be two pictures of one width, side by side; received: "
                f"{sizes[file][1]} pixels"
            )
    names = [str(file) for file in files]
    halves = [Pictures(name, split, names, problems, half=half) for half in ("left", "right")]
    return TranslationDataset(*halves, paired=True)


def load_two_folders(name, path, split, paired):
    """Reads the pictures of two folders, `SPLITA` and `SPLITB`, as those of the CycleGAN paper.

    Args:
        name: name of the data set in reports.
        path: path of the folder that has them, such as `trainA` and `trainB`; or `A/train` and
            `B/train`.
        split: name of the split.
        paired: whether a picture of one has that of the same name in the other as its pair;
            pictures without one are reported and left out.

    Returns:
        A `TranslationDataset` from A to B.

    Raises:
        ValueError: a folder is missing or empty, or there is no pair, or one of unequal sizes.
    """
    root = pathlib.Path(path)
    kinds = []
    for kind in "AB":
        names = [s for s in SPLIT_NAMES.get(split, (split,))]
        candidates = [root / f"{s}{kind}" for s in names] + [root / kind / s for s in names]
        found = [folder for folder in candidates if folder.is_dir()]
        if not found:
            raise ValueError(
                f"{root}: must have {split}A and {split}B, or A/{split} and B/{split}; received: "
                f"no {split}{kind}"
            )
        kinds.append(_readable(found[0]))
    (files_a, sizes_a, problems_a), (files_b, sizes_b, problems_b) = kinds
    if paired:
        by_stem = {file.stem: file for file in files_b}
        alone = [f for f in files_a if f.stem not in by_stem]
        alone += [f for f in files_b if f.stem not in {a.stem for a in files_a}]
        report = dataset_lib.Problems()
        for file in alone:
            rule = "must have a picture of the same name in the other folder, left out"
            report.add(file, rule, "none")
        problems_a += report.lines()
        files_a = [file for file in files_a if file.stem in by_stem]
        files_b = [by_stem[file.stem] for file in files_a]
        for a, b in zip(files_a, files_b):
            if sizes_a[a] != sizes_b[b]:
                (height, width), (other_height, other_width) = sizes_a[a], sizes_b[b]
                raise ValueError(
                    f"{b}: must be as large as {a}, {width} x {height} pixels; received: "
                    f"{other_width} x {other_height}"
                )
    return TranslationDataset(
        Pictures(name, split, [str(file) for file in files_a], problems_a),
        Pictures(name, split, [str(file) for file in files_b], problems_b),
        paired,
    )


def load_plain(names, split="train", *, data_dir=None):
    """Loads pictures of which nothing is to be known, from several places.

    Args:
        names: list out of `folder:PATH`, with all of its pictures in any split, and `scenes`.
        split: of the scenes.
        data_dir: folder of the prepared scenes; None: TensorFlow Datasets' own.

    Returns:
        `Pictures`. With scenes among them they are all held in memory, as files are, compressed.

    Raises:
        ValueError: a name of another form, or a folder without a readable picture.
    """
    files, problems, scenes = [], [], None
    for name in names:
        kind, _, rest = name.partition(":")
        if name == "scenes":
            builder = Scenes(data_dir=data_dir)
            builder.download_and_prepare()
            stream = encoded_dataset(builder, find_split(name, builder, split), "image", ())
            scenes = list(stream.map(lambda example: example["image"]).as_numpy_iterator())
        elif kind == "folder" and pathlib.Path(rest).is_dir():
            found, _, lines = _readable(pathlib.Path(rest))
            if not found:
                raise ValueError(f"{rest}: must have pictures that can be read; received: none")
            files += found
            problems += lines
        else:
            raise ValueError(f"dataset must be of scenes and folder:PATH; received: {name}")
    name, paths = ",".join(names), [str(file) for file in files]
    if scenes is None:
        return Pictures(name, split, paths, problems)
    paths += [f"scenes/{split}/{number}" for number in range(len(scenes))]
    encoded = tf.constant([file.read_bytes() for file in files] + scenes)
    return Pictures(name, split, paths, problems, encoded)


def pairs_of_labels(labelled):
    """Pairs of what a `SegmentationDataset` has: x, labels in their classes' colours; y, photos.

    Void pixels are black.
    """
    colors = tf.constant(np.concatenate([labelled.colors, np.zeros((1, 3), np.uint8)]))

    def encode(example):
        decoded = decode_labelled(example)
        # Label -1, void, is the last colour.
        labels = decoded["segmentation_masks"]
        labels = tf.where(labels < 0, len(colors) - 1, labels)
        photo = tf.io.encode_png(decoded["images"])
        return tf.io.encode_png(tf.gather(colors, labels)), photo

    encoded = labelled.encoded_examples().map(encode, num_parallel_calls=tf.data.AUTOTUNE)
    x, y = encoded.batch(labelled.num_examples).get_single_element()
    names = (labelled.name, labelled.split, labelled.file_names)
    return TranslationDataset(
        Pictures(*names, labelled.problems, x), Pictures(*names, encoded=y), paired=True
    )


def without_pairs(pairs):
    """The data set of pairs as if one did not know them: x of every other one, y of the rest."""
    return TranslationDataset(
        _part(pairs.x, slice(0, None, 2)), _part(pairs.y, slice(1, None, 2)), paired=False
    )


def from_features(name, builder, split, x_key, y_key):
    """Reads pairs from two pictures of each example of a prepared builder.

    Raises:
        ValueError: there is no such split.
    """
    split = find_split(name, builder, split)
    kinds = []
    for key in (x_key, y_key):
        stream = encoded_dataset(builder, split, key, ()).map(lambda example: example[key])
        kinds.append(_in_memory(name, split, stream, builder.info.splits[split].num_examples))
    return TranslationDataset(*kinds, paired=True)


def load_unpaired_tfds(name, builder_name, split, data_dir=None, download=False):
    """Reads the splits `SPLITA` and `SPLITB` of a set of TensorFlow Datasets, of `cycle_gan/...`.

    Args:
        name: name of the data set in reports.
        builder_name: name in TensorFlow Datasets, such as `cycle_gan/horse2zebra`.
        split: `train` or `test`; `val` also stands for `test`.
        data_dir: folder of the prepared sets; None: TensorFlow Datasets' own.
        download: whether a set that is not there may be downloaded and prepared.

    Raises:
        ValueError: there is no such set or split, or it is not there.
    """
    builder = open_builder(name, builder_name, data_dir, download)
    whole, bracket, part = split.partition("[")
    if whole == "val" and "valA" not in builder.info.splits:
        whole = "test"
    kinds = []
    for kind in "AB":
        chosen = find_split(name, builder, f"{whole}{kind}{bracket}{part}")
        stream = encoded_dataset(builder, chosen, "image", ()).map(lambda example: example["image"])
        count = builder.info.splits[chosen].num_examples
        kinds.append(_in_memory(name, chosen, stream, count))
    return TranslationDataset(*kinds, paired=False)


def _in_memory(name, split, stream, count):
    """The `Pictures` of a stream of encoded ones."""
    names = [f"{name}/{split}/{number}" for number in range(count)]
    return Pictures(name, split, names, encoded=stream.batch(count).get_single_element())


def _part(kind, places):
    """Some of the `Pictures`."""
    encoded = None if kind._stream is None else kind._stream[places]
    return Pictures(
        kind.name, kind.split, kind.file_names[places], kind.problems, encoded, kind.half
    )


def _split_folder(root, split):
    for name in SPLIT_NAMES.get(split, (split,)):
        if (root / name).is_dir():
            return root / name
    received = (
        ", ".join(sorted(f.name for f in root.iterdir() if f.is_dir()))
        if (root.is_dir())
        else "no such folder"
    )
    raise ValueError(f"{root}: must have a folder {split}; received: {received or 'no folders'}")


def _readable(folder):
    """The sorted picture files of a folder, their sizes, and lines about what was left out."""
    problems = dataset_lib.Problems()
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    files = [entry for entry in entries if entry.suffix.lower() in PICTURE_SUFFIXES]
    for entry in entries:
        if entry not in files:
            problems.add(folder, "should hold pictures only, left out", entry.name)
    sizes = dataset_lib.readable_sizes(files, problems)
    return [file for file in files if file in sizes], sizes, problems.lines()
