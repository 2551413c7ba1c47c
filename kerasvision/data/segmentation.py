"""Semantic segmentation data: pictures with a class for every pixel, and their readers."""

import concurrent.futures
import copy
import dataclasses
import io
import pathlib

import cv2
import numpy as np
import PIL.Image
import tensorflow as tf
import tensorflow_datasets as tfds

from kerasvision.data import dataset as dataset_lib
from kerasvision.data import pictures
from kerasvision.data.border_weights import border_weights, inverse_frequencies
from kerasvision.data.class_list import VOID, ClassList, color_codes, palette, read_class_list
from kerasvision.data.classification import drawn_by_name, listed
from kerasvision.data.scenes import CLASS_NAMES
from kerasvision.data.tfds_sets import encoded_dataset, find_split, open_builder
from kerasvision.data.yolo import PICTURE_SUFFIXES, SPLIT_NAMES

# Steps of a weight of 1 in encoded weights, which end at 65535 / 1024 = 64.
WEIGHT_STEPS = 1024
LABEL_KEYS = ("segmentation_mask", "segmentation_label")


@dataclasses.dataclass
class LabelledPicture:
    """One picture with its labels.

    Attributes:
        file_name: path of the picture, or a name that a person can find it by.
        image_id: int.
        encoded_labels: bytes of a grey PNG, upright: classes from 0, 255 = void.
        pixel_counts: (C,) int64, pixels of each class.
        quarter_turns: how often the decoded picture is to be turned by 90 degrees, anticlockwise,
            to be upright.
        encoded_weights: bytes of a grey PNG of 16 bits, upright: weights times 1024; None: none.
    """

    file_name: str
    image_id: int
    encoded_labels: bytes
    pixel_counts: np.ndarray
    quarter_turns: int = 0
    encoded_weights: bytes | None = None


class SegmentationDataset(dataset_lib.PictureDataset):
    """Pictures of one split with a class for every pixel.

    An encoded example has "encoded_labels" () string; "encoded_weights" () string if there are
    weights, and "quarter_turns" () int32 if a picture is to be turned; see `LabelledPicture` and
    `decode`.

    Args:
        name: the word that names the data set, such as `camvid:PATH`.
        split: name of the split.
        class_names: C str; label i is called `class_names[i]`.
        colors: (C, 3) RGB of 0..255, what the classes are drawn in.
        records: list of `LabelledPicture`, in a fixed order.
        problems: list of str, a line for what was dropped or repaired.
        stream: optional `tf.data.Dataset` of scalar strings, the encoded pictures in the order
            of `records`; without it they are read from the files `file_name`.

    Raises:
        ValueError: if there is no picture.
    """

    def __init__(self, name, split, class_names, colors, records, problems, stream=None):
        file_names = [record.file_name for record in records]
        image_ids = [record.image_id for record in records]
        super().__init__(name, split, class_names, file_names, image_ids, problems, stream)
        self.colors = np.asarray(colors, np.uint8)
        self.records = records
        present = np.sum([record.pixel_counts for record in records], axis=0) > 0
        missing = [name for name, there in zip(self.class_names, present) if not there]
        if missing:
            self.problems.append(
                f"{name}: split {split!r} should have pixels of all {len(self.class_names)} "
                f"classes; received: none of {listed(missing)}"
            )

    def part(self, places, split):
        """Returns some of the pictures as a split of their own; they must be files.

        Args:
            places: slice of the pictures.
            split: name of the part.

        Raises:
            ValueError: there is no picture in it.
        """
        return SegmentationDataset(
            self.name, split, self.class_names, self.colors, self.records[places], self.problems
        )

    def with_border_weights(self, cell, w0=10.0, sigma=5.0):
        """Returns the data set with the weights of `border_weights` for each picture.

        w_c is the inverse of a class's share of the split's pixels, of mean 1 over them. Weights
        end at 64.

        Args:
            cell: name of the class of the cells.
            w0, sigma: as of `border_weights`.

        Raises:
            ValueError: there is no such class.
        """
        if cell not in self.class_names:
            raise ValueError(
                f"{self.name}: cells must be one of the classes {listed(self.class_names)}; "
                f"received: {cell}"
            )
        label = self.class_names.index(cell)
        class_weights = inverse_frequencies(sum(record.pixel_counts for record in self.records))

        def weighted(record):
            labels = decode_labels(record.encoded_labels).numpy()
            weights = border_weights(labels, label, w0, sigma, class_weights)
            steps = np.clip(np.round(WEIGHT_STEPS * weights), 0, 65535).astype(np.uint16)
            return dataclasses.replace(record, encoded_weights=_encode_png(steps))

        changed = copy.copy(self)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            changed.records = list(pool.map(weighted, self.records))
        return changed

    def example(self, index):
        """Returns a picture and its labels at their own size, upright.

        Args:
            index: int, place of the picture in `file_names`.

        Returns:
            Tuple of the picture (h, w, 3) uint8 and the labels (h, w) int32, -1 = void.
        """
        record = self.records[index]
        if self._stream is None:
            encoded = tf.io.read_file(record.file_name)
        else:
            encoded = self._stream.skip(index).take(1).get_single_element()
        decoded = decode(
            {
                "encoded": encoded,
                "encoded_labels": record.encoded_labels,
                "quarter_turns": record.quarter_turns,
            }
        )
        return decoded["images"].numpy(), decoded["segmentation_masks"].numpy()

    def examples(self):
        """Yields (file name, picture, labels) of all pictures, as `example`, in their order."""
        examples = self.encoded_examples().map(decode, num_parallel_calls=tf.data.AUTOTUNE)
        for file_name, decoded in zip(self.file_names, examples.as_numpy_iterator()):
            yield file_name, decoded["images"], decoded["segmentation_masks"]

    def class_frequencies(self):
        """Returns the share (C,) float64 that each class has of the pictures that show it.

        That is, of all their pixels that are not void; 0 for a class that no picture shows.
        Reference: Eigen & Fergus, "Predicting Depth, Surface Normals and Semantic Labels"
        (arXiv:1411.4734), section 6.3.2; Badrinarayanan et al., "SegNet" (arXiv:1511.00561),
        section 4.
        """
        counts = np.stack([record.pixel_counts for record in self.records])
        pixels_where_shown = np.sum(np.where(counts > 0, counts.sum(1, keepdims=True), 0), axis=0)
        return counts.sum(0) / np.maximum(pixels_where_shown, 1)

    def median_frequency_weights(self):
        """Returns the weights (C,) float32 of median frequency balancing.

        A class has the median of all classes' frequencies over its own; 0 if no picture shows it,
        which `problems` names, and the median passes it over. See `class_frequencies`.
        """
        frequencies = self.class_frequencies()
        shown = frequencies > 0
        median = np.median(frequencies[shown])
        return np.where(shown, median / np.where(shown, frequencies, 1), 0).astype(np.float32)

    def _truth(self):
        """Returns a function from a position to the encoded labels of its picture."""
        truth = {"encoded_labels": tf.constant([r.encoded_labels for r in self.records])}
        if self.records[0].encoded_weights is not None:
            truth["encoded_weights"] = tf.constant([r.encoded_weights for r in self.records])
        if any(record.quarter_turns for record in self.records):
            truth["quarter_turns"] = tf.constant([r.quarter_turns for r in self.records])
        return lambda position: {name: values[position] for name, values in truth.items()}


def decode(example):
    """Decodes an encoded example of a `SegmentationDataset`, eagerly or in a graph.

    Returns:
        A dictionary of "images" (h, w, 3) uint8, upright; "segmentation_masks" (h, w) int32,
        classes from 0, -1 = void; and, if there are weights, "pixel_weights" (h, w) float32.
    """
    image = pictures.decode(example["encoded"])
    if "quarter_turns" in example:
        image = tf.image.rot90(image, example["quarter_turns"])
    decoded = {"images": image, "segmentation_masks": decode_labels(example["encoded_labels"])}
    if "encoded_weights" in example:
        steps = tf.io.decode_png(example["encoded_weights"], channels=1, dtype=tf.uint16)
        decoded["pixel_weights"] = tf.cast(steps[..., 0], tf.float32) / WEIGHT_STEPS
    return decoded


def decode_labels(encoded):
    """Decodes the labels of a `LabelledPicture`: (h, w) int32, classes from 0, -1 = void."""
    labels = tf.cast(tf.io.decode_png(encoded, channels=1)[..., 0], tf.int32)
    return tf.where(labels == VOID, -1, labels)


def load_segmentation_folder(name, path, split, class_list=None):
    """Reads pictures and the PNG files of the same names that hold their labels.

    The folder has `SPLIT/images` and `SPLIT/labels`; or, without splits, `images` and `labels`:
    then `all` is the split of all pictures, a fifth of them is `val` and the rest `train`, drawn
    by a hash of the pictures' names. `valid` and `validation` are other names of `val`.

    Labels are grey (8 or 16 bits; fewer are scaled to 0..255, as they are shown), or palette
    indices, or colours of the class list. Grey RGB counts as grey if the class list has its
    values. Hidden files are passed over, other ones, pairs that are incomplete and files that are
    truncated are reported. EXIF's orientation is applied, to labels too if they have the size of
    the stored picture.

    Args:
        name: name of the data set in reports.
        path: path of the folder.
        split: name of the split.
        class_list: as of `read_class_list`; None: the file `classes.txt` in the folder.

    Returns:
        A `SegmentationDataset`; image ids number the sorted pictures of the split from 0.

    Raises:
        ValueError: the folder, the split or the class list is missing, no picture has labels, or
            labels are of another size than their picture or not those of the class list.
    """
    root = pathlib.Path(path)
    if not root.is_dir():
        received = "a file" if root.exists() else "no such folder"
        raise ValueError(f"{path}: must be a folder of pictures and labels; received: {received}")
    if class_list is None and not (root / "classes.txt").is_file():
        raise ValueError(
            f"{root}: must have a classes.txt with a line 'value name [red green blue]' for each "
            "label value, or a class list must be given; received: neither"
        )
    classes = read_class_list(root / "classes.txt" if class_list is None else class_list)
    folder = _split_folder(root, split)
    problems = dataset_lib.Problems()
    label_folder = folder / "labels"
    if not label_folder.is_dir():
        raise ValueError(f"{label_folder}: must be a folder of PNG files; received: no such folder")
    image_paths = _by_stem(folder / "images", PICTURE_SUFFIXES, "pictures", problems)
    label_paths = _by_stem(label_folder, {".png"}, "PNG files", problems)
    for stem in sorted(image_paths.keys() - label_paths.keys()):
        rule = "a picture must have a label file of the same name, left out"
        problems.add(image_paths[stem], rule, f"no {label_folder / stem}.png")
    for stem in sorted(label_paths.keys() - image_paths.keys()):
        rule = "a label file must have a picture of the same name, left out"
        problems.add(label_paths[stem], rule, f"none in {folder / 'images'}")
    paths = [path for stem, path in image_paths.items() if stem in label_paths]
    if not paths:
        raise ValueError(
            f"{folder}: must have pictures in images and PNG files of the same names in labels; "
            f"received: {len(image_paths)} pictures, {len(label_paths)} PNG files, no pair"
        )
    if folder == root and split != "all":
        paths = drawn_by_name(root / "images", paths, split)

    sizes = dataset_lib.readable_sizes(paths, problems)

    def read(image_id):
        path = paths[image_id]
        label_path = label_paths[path.stem]
        try:
            values = _label_values(label_path.read_bytes())
        except Exception as error:  # Pillow raises anything at broken files.
            return label_path, str(error).splitlines()[0][:80]
        (height, width), label_size = sizes[path], values.shape[:2]
        turns = pictures.quarter_turns(path)
        upright = (width, height) if turns % 2 else (height, width)
        if label_size != upright and label_size == (height, width):
            values = np.rot90(values, turns)
        elif label_size != upright:
            raise ValueError(
                f"{label_path}: labels must be as large as their picture {path}, "
                f"{upright[1]} x {upright[0]} pixels; received: {label_size[1]} x {label_size[0]}"
            )
        return _labelled(str(path), image_id, values, classes, label_path, turns)

    records = []
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for found in pool.map(read, [i for i, path in enumerate(paths) if path in sizes]):
            if isinstance(found, LabelledPicture):
                records.append(found)
            else:
                problems.add(found[0], "must be a whole PNG file, left out", found[1])
    return SegmentationDataset(
        name, split, classes.names, classes.colors, records, problems.lines()
    )


def load_segmentation_tfds(
    name, builder_name, split, class_list=None, data_dir=None, download=False
):
    """Reads a segmentation set of TensorFlow Datasets, known by its features.

    The set needs an `Image`, and a `LabeledImage` or an image that is called `segmentation_mask`
    or `segmentation_label`.

    Args:
        name: name of the data set in reports.
        builder_name: name in TensorFlow Datasets, such as `oxford_iiit_pet`.
        split: name or slice of a split; `val` also stands for `validation`.
        class_list: as of `read_class_list`; None: the names of the feature or, where it has none,
            "class 0" and so on up to the largest value, and 255 is void.
        data_dir: folder of the prepared sets; None: TensorFlow Datasets' own.
        download: whether a set that is not there may be downloaded and prepared.

    Returns:
        A `SegmentationDataset`; image ids number the pictures of the split from 0.

    Raises:
        ValueError: there is no such set or split, it is not there, it is no segmentation set, or
            its labels are not those of the class list.
    """
    builder = open_builder(name, builder_name, data_dir, download)
    features = builder.info.features
    image_keys = [k for k, feature in features.items() if isinstance(feature, tfds.features.Image)]
    label_keys = [k for k in image_keys if isinstance(features[k], tfds.features.LabeledImage)]
    label_keys += [key for key in LABEL_KEYS if key in image_keys]
    image_keys = [key for key in image_keys if key not in label_keys]
    if not image_keys or not label_keys:
        raise ValueError(
            f"{name}: a segmentation set must have an Image, and a LabeledImage or an Image called "
            f"{' or '.join(LABEL_KEYS)}; received: {', '.join(features)}"
        )
    image_key = "image" if "image" in image_keys else image_keys[0]
    classes = None
    if class_list is not None:
        classes = read_class_list(class_list)
    elif getattr(features[label_keys[0]], "num_classes", None):
        classes = _numbered(name, features[label_keys[0]].names)
    return _from_builder(name, builder, split, image_key, label_keys[0], classes)


def from_scenes(name, builder, split):
    """Reads the scenes of a prepared builder whose config is `full`.

    Args:
        name: name of the data set in reports.
        builder: prepared `Scenes`.
        split: name or slice of a split; `val` also stands for `validation`.

    Returns:
        A `SegmentationDataset`: label 0 is the background, 1 and above are the scenes' classes.

    Raises:
        ValueError: there is no such split.
    """
    classes = _numbered(name, ["background", *CLASS_NAMES])
    return _from_builder(name, builder, split, "image", "classes", classes)


def _from_builder(name, builder, split, image_key, label_key, classes):
    """Returns the `SegmentationDataset` of two features; `classes` None: as many as there are."""
    split = find_split(name, builder, split)
    dataset = encoded_dataset(builder, split, image_key, (label_key,))
    if classes is None:
        labels = dataset.map(lambda example: example[label_key]).as_numpy_iterator()
        largest = max(np.max(values, where=values != VOID, initial=0) for values in labels)
        classes = _numbered(name, [f"class {i}" for i in range(largest + 1)])
    rows = dataset.map(
        lambda example: (pictures.size(example[image_key]), example[label_key]),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    records = []
    for image_id, (size, values) in enumerate(rows.as_numpy_iterator()):
        file_name = f"{name}/{split}/{image_id}"
        if tuple(size) != values.shape[:2]:
            raise ValueError(
                f"{file_name}: labels must be as large as their picture, {size[1]} x {size[0]} "
                f"pixels; received: {values.shape[1]} x {values.shape[0]}"
            )
        values = values[..., 0] if values.shape[-1] == 1 else values
        records.append(_labelled(file_name, image_id, values, classes, file_name))
    stream = dataset.map(lambda example: example[image_key])
    return SegmentationDataset(name, split, classes.names, classes.colors, records, [], stream)


def _numbered(name, names):
    """Returns the `ClassList` of labels that are the places of names in a list, or 255: void."""
    if not 2 <= len(names) < VOID:
        raise ValueError(f"{name}: must have 2 to {VOID - 1} classes; received: {len(names)}")
    by_value = {**{i: i for i in range(len(names))}, VOID: VOID}
    return ClassList(name, list(names), palette(len(names)), by_value, {})


def _split_folder(root, split):
    """Returns the folder of `images` and `labels` of a split: `root` itself if it has no splits."""
    if (root / "images").is_dir():
        if split not in ("all", "train", "val"):
            raise ValueError(
                f"{root}: a folder without splits has all, train and val; received: split {split}"
            )
        return root
    for candidate in SPLIT_NAMES.get(split, (split,)):
        if (root / candidate / "images").is_dir():
            return root / candidate
    found = sorted(folder.parent.name for folder in root.glob("*/images") if folder.is_dir())
    raise ValueError(
        f"{root}: must have {split}/images, or images; received: "
        + (f"the splits {', '.join(found)}" if found else "neither")
    )


def _by_stem(folder, suffixes, kind, problems):
    """Returns the sorted files of a folder by their names without suffix, reports other files."""
    found = {}
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.suffix.lower() not in suffixes:
            problems.add(folder, f"should hold {kind} only, left out", entry.name)
        elif entry.stem in found:
            rule = "names must differ in more than their suffix, left out"
            problems.add(folder, rule, f"{entry.name} beside {found[entry.stem].name}")
        else:
            found[entry.stem] = entry
    return found


def _label_values(encoded):
    """Decodes a label file to values (h, w), or to colours (h, w, 3)."""
    picture = PIL.Image.open(io.BytesIO(encoded))
    # Pillow scales grey of 2 and 4 bits to 0..255, but makes 1 bit a truth value.
    if picture.mode == "1":
        picture = picture.convert("L")
    # The same of transparent pictures, whose palette stays as it is.
    elif picture.mode in ("LA", "RGBA"):
        picture = picture.convert(picture.mode[:-1])
    return np.asarray(picture)


def _labelled(file_name, image_id, values, classes, label_path, quarter_turns=0):
    """Returns the `LabelledPicture` of values (h, w) or colours (h, w, 3) in a label file.

    Raises:
        ValueError: naming `label_path`: they are not those of the class list.
    """
    table, worded = classes.by_value, str
    if values.ndim == 3:
        grey = np.all(values == values[..., :1])
        if grey and np.isin(values[..., 0], list(table)).all():
            values = values[..., 0]
        elif classes.by_color:
            values, table = color_codes(values), classes.by_color
            worded = _worded_color
        elif grey:
            values = values[..., 0]
        else:
            raise ValueError(
                f"{label_path}: labels in colour must have colours in {classes.source}, or else be "
                "values, as grey or palette PNG; received: RGB, and no colours"
            )
    # A search among the sorted values of the class list.
    known = np.array(sorted(table))
    places = np.minimum(np.searchsorted(known, values), len(known) - 1)
    foreign = known[places] != values
    if np.any(foreign):
        found, counts = np.unique(values[foreign], return_counts=True)
        received = [f"{worded(v)} in {count} pixels" for v, count in zip(found, counts)]
        raise ValueError(
            f"{label_path}: labels must be those of {classes.source}, "
            f"{listed([worded(value) for value in known])}; received: {listed(received)}"
        )
    labels = np.array([table[value] for value in known.tolist()], np.uint8)[places]
    counts = np.bincount(labels.ravel(), minlength=VOID + 1)[: len(classes.names)]
    return LabelledPicture(file_name, image_id, _encode_png(labels), counts, quarter_turns)


def _worded_color(code):
    return f"({code >> 16} {code >> 8 & 255} {code & 255})"


def _encode_png(values):
    """Encodes (h, w) uint8 or uint16 as a grey PNG."""
    return cv2.imencode(".png", values, [cv2.IMWRITE_PNG_COMPRESSION, 6])[1].tobytes()
