"""Detection, classification and segmentation data: readers, augmentation and batches."""

import re

from kerasvision.data.augmentation import SSDAugmentation
from kerasvision.data.border_weights import border_weights
from kerasvision.data.boxes_first import boxes_first
from kerasvision.data.class_list import CAMVID_CLASSES
from kerasvision.data.classification import ClassificationDataset, load_folder
from kerasvision.data.classification_augmentation import ClassificationAugmentation
from kerasvision.data.coco import load_coco
from kerasvision.data.dataset import DetectionDataset
from kerasvision.data.glyphs import load_glyphs
from kerasvision.data.identities import (
    identity_batches,
    identity_steps,
    load_identity_folder,
    only_classes,
    picture_reader,
)
from kerasvision.data.multi_scale import multi_scale
from kerasvision.data.packaged import crop_objects, load_digits, load_fashion_mnist
from kerasvision.data.pipeline import (
    batches,
    classification_batches,
    picture_batches,
    resize_labelled,
    segmentation_batches,
    steps_per_epoch,
    translation_batches,
)
from kerasvision.data.posed_objects import (
    POSED_CLASSES,
    PosedObjects,
    angles_between,
    load_posed_objects,
    pose_batches,
    pose_similarity,
)
from kerasvision.data.scenes import Scenes
from kerasvision.data.segmentation import (
    SegmentationDataset,
    from_scenes,
    load_segmentation_folder,
    load_segmentation_tfds,
)
from kerasvision.data.segmentation_augmentation import SegmentationAugmentation
from kerasvision.data.solids import KEYPOINT_NAMES
from kerasvision.data.tfds_sets import from_builder, load_tfds, load_tfds_classification
from kerasvision.data.translation import (
    TranslationDataset,
    from_features,
    load_plain,
    load_side_by_side,
    load_two_folders,
    load_unpaired_tfds,
    pairs_of_labels,
    without_pairs,
)
from kerasvision.data.voc import load_voc
from kerasvision.data.yolo import load_yolo


def load(name, split="train", *, data_dir=None, download=False, masks=False, keypoints=False):
    """Loads a detection set that is named in one word.

    Args:
        name: `scenes` (drawn on first use), `tfds:NAME`, `voc:PATH`, `coco:ANNOTATIONS.json` or
            `yolo:PATH`.
        split: name of the split, such as `train`, `val` or `test`, or a part: `train[:8]`.
        data_dir: folder of TensorFlow Datasets' files; None: its own default.
        download: whether `tfds:` sets that are not there may be downloaded.
        masks, keypoints: whether those of the objects are wanted; `scenes` and `coco:` have them.

    Returns:
        A `DetectionDataset`.

    Raises:
        ValueError: the name is of another form, or the set cannot be read.
    """
    kind, _, rest = name.partition(":")
    whole, places = _split_part(split)
    if places is not None and kind in ("coco", "voc", "yolo"):
        # TensorFlow Datasets has parts of its own.
        return load(name, whole, masks=masks, keypoints=keypoints).part(places, split)
    if name == "scenes":
        return _load_scenes(name, split, data_dir, masks, keypoints)
    if kind == "coco" and rest:
        return load_coco(name, rest, split, masks, keypoints)
    if kind in ("tfds", "voc", "yolo") and rest and (masks or keypoints):
        raise ValueError(
            f"masks and keypoints are read from scenes or coco:ANNOTATIONS.json; received: {name}"
        )
    if kind == "tfds" and rest:
        return load_tfds(name, rest, split, data_dir, download)
    if kind == "voc" and rest:
        return load_voc(name, rest, split)
    if kind == "yolo" and rest:
        return load_yolo(name, rest, split)
    raise ValueError(
        "dataset must be scenes, tfds:NAME, voc:PATH, coco:ANNOTATIONS.json or yolo:PATH; "
        f"received: {name}"
    )


def load_classification(name, split="train", *, data_dir=None, download=False):
    """Loads a classification set that is named in one word.

    Args:
        name: `scenes` (drawn on first use, each object cut out), `fashion_mnist`, `digits`,
            `glyphs`, `folder:PATH` (a folder a class) or `tfds:NAME`.
        split: name of the split, such as `train`, `val` or `test`.
        data_dir: folder of TensorFlow Datasets' files, or of those of Fashion-MNIST; None: their
            own defaults.
        download: whether `tfds:` sets and `fashion_mnist` may be downloaded if they are not there.

    Returns:
        A `ClassificationDataset`.

    Raises:
        ValueError: the name is of another form, or the set cannot be read.
    """
    kind, _, rest = name.partition(":")
    if name == "scenes":
        return crop_objects(name, _load_scenes(name, split, data_dir))
    if name == "fashion_mnist":
        return load_fashion_mnist(name, split, data_dir, download)
    if name == "digits":
        return load_digits(name, split)
    if name == "glyphs":
        return load_glyphs(name, split)
    if kind == "folder" and rest:
        return load_folder(name, rest, split)
    if kind == "tfds" and rest:
        return load_tfds_classification(name, rest, split, data_dir, download)
    raise ValueError(
        "dataset must be scenes, fashion_mnist, digits, glyphs, folder:PATH or tfds:NAME; "
        f"received: {name}"
    )


def load_identities(name, split="train", *, classes=None, data_dir=None, download=False):
    """Loads pictures of persons, or of classes, of which some are wanted, named in one word.

    Args:
        name: `folder:PATH` (a folder a person, PGM files too), or any set of
            `load_classification`.
        split: name of the split, where there are splits: of a folder, a folder in it that has
            the persons; else all of it is read.
        classes: which persons or classes, as "0:22" or "0,3,7"; None: all.
        data_dir, download: as of `load_classification`.

    Returns:
        A `ClassificationDataset` of these classes alone.

    Raises:
        ValueError: the name is of another form, the set cannot be read, or has no such classes.
    """
    kind, _, rest = name.partition(":")
    if kind == "folder" and rest:
        return load_identity_folder(name, rest, split, classes)
    dataset = load_classification(name, split, data_dir=data_dir, download=download)
    return only_classes(dataset, classes)


def load_segmentation(name, split="train", *, class_list=None, data_dir=None, download=False):
    """Loads a segmentation set that is named in one word.

    Args:
        name: `scenes` (drawn on first use), `camvid:PATH`, `folder:PATH` or `tfds:NAME`.
            `camvid:` is a folder whose labels have the values, or the colours, of the SegNet
            paper's eleven classes.
        split: name of the split, such as `train`, `val` or `test`, or a part: `train[:8]`.
        class_list: path of a text file with a line `value name [red green blue]` for each label
            value, or the lines themselves with " / " between them; None: that of the set,
            `classes.txt` in a folder.
        data_dir: folder of TensorFlow Datasets' files; None: its own default.
        download: whether `tfds:` sets that are not there may be downloaded.

    Returns:
        A `SegmentationDataset`.

    Raises:
        ValueError: the name is of another form, or the set cannot be read.
    """
    kind, _, rest = name.partition(":")
    if name == "scenes" and class_list is not None:
        raise ValueError(f"scenes: have classes of their own; received: class list {class_list}")
    if name == "scenes":
        builder = Scenes(config="full", data_dir=data_dir)
        builder.download_and_prepare()
        return from_scenes(name, builder, split)
    if kind == "tfds" and rest:
        return load_segmentation_tfds(name, rest, split, class_list, data_dir, download)
    if kind in ("camvid", "folder") and rest:
        if kind == "camvid" and class_list is None:
            class_list = CAMVID_CLASSES
        whole, places = _split_part(split)
        dataset = load_segmentation_folder(name, rest, whole, class_list)
        return dataset if places is None else dataset.part(places, split)
    raise ValueError(
        f"dataset must be scenes, camvid:PATH, folder:PATH or tfds:NAME; received: {name}"
    )


def load_pairs(name, split="train", *, data_dir=None, download=False):
    """Loads pairs of pictures, x and what it is to become, y, named in one word.

    Args:
        name: `scenes:labels` (colours of the classes, and the picture), `scenes:night` (by day, by
            night), `camvid:PATH` (colours of the classes, and the picture), `pairs:PATH` (side by
            side in `SPLIT/*.jpg`) or `folders:PATH` (of the same names in `SPLITA` and `SPLITB`).
        split: name of the split, such as `train`, `val` or `test`.
        data_dir: folder of TensorFlow Datasets' files; None: its own default.
        download: passed over; nothing of this is fetched.

    Returns:
        A `TranslationDataset`.

    Raises:
        ValueError: the name is of another form, or the set cannot be read.
    """
    kind, _, rest = name.partition(":")
    if name == "scenes:night":
        builder = Scenes(config="day_and_night", data_dir=data_dir)
        builder.download_and_prepare()
        return from_features(name, builder, split, "image", "night")
    if name == "scenes:labels":
        return pairs_of_labels(load_segmentation("scenes", split, data_dir=data_dir))
    if kind == "camvid" and rest:
        return pairs_of_labels(load_segmentation(name, split))
    if kind == "pairs" and rest:
        return load_side_by_side(name, rest, split)
    if kind == "folders" and rest:
        return load_two_folders(name, rest, split, paired=True)
    raise ValueError(
        "dataset must be scenes:labels, scenes:night, camvid:PATH, pairs:PATH or folders:PATH; "
        f"received: {name}"
    )


def load_unpaired(name, split="train", *, data_dir=None, download=False):
    """Loads pictures of two kinds X and Y, no pairs, named in one word.

    Args:
        name: `folders:PATH` (`SPLITA` and `SPLITB`), `tfds:cycle_gan/NAME`, or any set of
            `load_pairs`: then X are the pictures x of every other pair, Y the y of the rest.
        split: name of the split, such as `train` or `test`.
        data_dir: folder of TensorFlow Datasets' files; None: its own default.
        download: whether `tfds:` sets that are not there may be downloaded.

    Returns:
        A `TranslationDataset`.

    Raises:
        ValueError: the name is of another form, or the set cannot be read.
    """
    kind, _, rest = name.partition(":")
    if kind == "folders" and rest:
        return load_two_folders(name, rest, split, paired=False)
    if kind == "tfds" and rest:
        return load_unpaired_tfds(name, rest, split, data_dir, download)
    return without_pairs(load_pairs(name, split, data_dir=data_dir))


def _split_part(split):
    """Returns the name of a split and the slice of its pictures that is meant, or None."""
    part = re.fullmatch(r"(.*)\[(\d*):(\d*)\]", split)
    if not part:
        return split, None
    return part[1], slice(*(int(place) if place else None for place in part.groups()[1:]))


def _load_scenes(name, split, data_dir, masks=False, keypoints=False):
    """Returns the `DetectionDataset` of the scenes, which are drawn on first use."""
    builder = Scenes(config="full" if masks or keypoints else "detection", data_dir=data_dir)
    builder.download_and_prepare()
    keypoint_names = list(KEYPOINT_NAMES.values()) if keypoints else None
    return from_builder(name, builder, split, masks, keypoint_names)
