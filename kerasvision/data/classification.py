"""Classification data: pictures with a class each, and the reader of class folders."""

import hashlib
import os
import pathlib

import numpy as np
import tensorflow as tf

from kerasvision.data import dataset as dataset_lib
from kerasvision.data import pictures
from kerasvision.data.yolo import PICTURE_SUFFIXES, SPLIT_NAMES

# Of the pictures in a folder without splits.
VAL_SHARE = 0.2


class ClassificationDataset(dataset_lib.PictureDataset):
    """Pictures of one split with a class each.

    An encoded example has "label" () int32, the class from 0, and "quarter_turns" () int32.

    Args:
        name: the word that names the data set, such as `folder:PATH`.
        split: name of the split.
        class_names: list of str; label i is called `class_names[i]`.
        labels: N integers, the classes from 0 of the pictures in a fixed order.
        file_names: N str: paths of the pictures, or names that a person can find them by.
        problems: list of str, a line for what was dropped or repaired.
        image_ids: N int; None numbers the pictures from 0.
        stream: the encoded pictures in the order of `labels`: a `tf.data.Dataset` of scalar
            strings or a (N,) string tensor; None: they are read from the files `file_names`.
        quarter_turns: N int, how often the decoded pictures are to be turned by 90 degrees,
            anticlockwise, to be upright; None: they are.

    Raises:
        ValueError: if there is no picture.
    """

    def __init__(
        self,
        name,
        split,
        class_names,
        labels,
        file_names,
        problems,
        image_ids=None,
        stream=None,
        quarter_turns=None,
    ):
        image_ids = list(range(len(file_names))) if image_ids is None else image_ids
        super().__init__(name, split, class_names, file_names, image_ids, problems, stream)
        self.labels = np.asarray(labels, np.int32)
        self.quarter_turns = np.zeros_like(self.labels)
        if quarter_turns is not None:
            self.quarter_turns[:] = quarter_turns
        counts = np.bincount(self.labels, minlength=len(self.class_names))
        missing = [name for name, count in zip(self.class_names, counts) if not count]
        if missing:
            self.problems.append(
                f"{self.name}: split {split!r} should have pictures of all "
                f"{len(self.class_names)} classes; received: none of {listed(missing)}"
            )

    def _truth(self):
        """Returns a function from a position to the class and the turns of its picture."""
        labels, turns = tf.constant(self.labels), tf.constant(self.quarter_turns)
        return lambda position: {"label": labels[position], "quarter_turns": turns[position]}


def load_folder(name, path, split):
    """Reads pictures that lie in a folder for each class.

    The folder has `SPLIT/CLASS/...` or, without splits, `CLASS/...`: then a fifth of each class
    is split `val` and the rest `train`, drawn by a hash of the pictures' names, so that they are
    the same in every run and place. `valid` and `validation` are other names of `val`. Class
    folders may have folders of their own. Hidden files are passed over, others reported. EXIF's
    orientation is applied.

    Args:
        name: name of the data set in reports.
        path: path of the folder.
        split: name of the split.

    Returns:
        A `ClassificationDataset`. Classes are the folders of split `train` in the order of their
        names; image ids number the sorted pictures of the split from 0.

    Raises:
        ValueError: the folder or the split is missing or cannot be read, there are fewer than
            two classes, a class is not in split `train`, or a class folder has no picture.
    """
    root = pathlib.Path(path)
    if not root.is_dir():
        received = "a file" if root.exists() else "no such folder"
        raise ValueError(
            f"{path}: must be a folder with a folder for each class; received: {received}"
        )
    problems = dataset_lib.Problems()
    folder, train_folder = _split_folder(root, split)
    class_folders = _folders(folder)
    class_names = [entry.name for entry in _folders(train_folder)]
    if len(class_names) < 2:
        raise ValueError(
            f"{train_folder}: must have a folder for each of two or more classes; received: "
            + (f"{class_names[0]} only" if class_names else "no folders")
        )
    unknown = [entry.name for entry in class_folders if entry.name not in class_names]
    if unknown:
        raise ValueError(
            f"{folder}: class folders must be those of {train_folder}; received: {listed(unknown)}"
        )
    beside = [entry for entry in _entries(folder) if _is_picture(entry)]
    if beside:
        rule = "a picture must lie in the folder of its class, left out"
        problems.add(folder, rule, beside[0].name, len(beside))

    found = {entry: _pictures_below(entry, problems) for entry in class_folders}
    empty = [entry.name for entry, candidates in found.items() if not candidates]
    if empty:
        suffixes = ", ".join(sorted(PICTURE_SUFFIXES))
        raise ValueError(
            f"{folder}: each class folder must hold a picture ({suffixes}); received: none in "
            f"{listed(empty)}"
        )
    paths, labels = [], []
    for entry, candidates in found.items():
        if folder == root:
            candidates = drawn_by_name(entry, candidates, split)
        paths += candidates
        labels += [class_names.index(entry.name)] * len(candidates)
    sizes = dataset_lib.readable_sizes(paths, problems)
    kept = [number for number, candidate in enumerate(paths) if candidate in sizes]
    return ClassificationDataset(
        name,
        split,
        class_names,
        [labels[number] for number in kept],
        [str(paths[number]) for number in kept],
        problems.lines(),
        image_ids=kept,
        quarter_turns=[pictures.quarter_turns(paths[number]) for number in kept],
    )


def _split_folder(root, split):
    """Returns the folders of a split and of split `train`; both are `root` if it has no splits."""
    folders = {entry.name: entry for entry in _folders(root)}
    known = [name for names in SPLIT_NAMES.values() for name in names if name in folders]
    # A class may be called "train" too; its folder holds no folders.
    if not (any(_folders(folders[name]) for name in known) or 0 < len(known) == len(folders)):
        if split not in ("train", "val"):
            raise ValueError(
                f"{root}: a folder without splits has train and val; received: split {split}"
            )
        return root, root
    for name in SPLIT_NAMES.get(split, (split,)):
        if name in folders:
            return folders[name], folders.get("train", folders[name])
    raise ValueError(f"{root}: must have the split {split!r}; received: {', '.join(folders)}")


def _entries(folder):
    """Returns the sorted paths in a folder that are not hidden."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise ValueError(f"{folder}: must be readable; received: {error.strerror}") from error
    return [entry for entry in entries if not entry.name.startswith(".")]


def _folders(folder):
    return [entry for entry in _entries(folder) if entry.is_dir()]


def _is_picture(path):
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.is_dir()


def _pictures_below(folder, problems):
    """Returns the sorted picture files in a folder and its folders, reports other files."""
    found = []
    for entry in _entries(folder):
        # A link to a folder could lead back to where it is.
        if entry.is_dir() and not entry.is_symlink():
            found += _pictures_below(entry, problems)
        elif _is_picture(entry):
            found.append(entry)
        else:
            problems.add(folder, "a class folder should hold pictures, file left out", entry.name)
    return found


def drawn_by_name(folder, candidates, split):
    """Returns the pictures of a class that belong to split `train` or `val`."""

    def digest(path):
        name = path.relative_to(folder).as_posix()
        return hashlib.sha256(os.fsencode(name)).digest()

    by_hash = sorted(candidates, key=digest)
    # At least one of two is held out, and at least one trained on.
    val_count = max(round(VAL_SHARE * len(candidates)), min(1, len(candidates) - 1))
    drawn = by_hash[:val_count] if split == "val" else by_hash[val_count:]
    return sorted(drawn)


def listed(names):
    """Returns the first five names, and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
