"""Readers of TensorFlow Datasets: any detection or classification set."""

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from kerasvision.data import dataset as dataset_lib
from kerasvision.data import masks as mask_lib
from kerasvision.data import pictures
from kerasvision.data.classification import ClassificationDataset

_OPTIONAL_KEYS = ("image/id", "image/filename")
# Encoded classification pictures of no more bytes are kept, so that they are shuffled as a whole.
IN_MEMORY_BYTES = 2**29


def load_tfds(name, builder_name, split, data_dir=None, download=False):
    """Reads a detection set of TensorFlow Datasets, known by its features.

    Args:
        name: name of the data set in reports.
        builder_name: name in TensorFlow Datasets, such as `voc/2007`.
        split: name or slice of a split; `val` also stands for `validation`.
        data_dir: folder of the prepared sets; None: TensorFlow Datasets' own.
        download: whether a set that is not there may be downloaded and prepared.

    Returns:
        A `DetectionDataset`; see `from_builder`.

    Raises:
        ValueError: there is no such set, it is not there, or it is no detection set.
    """
    return from_builder(name, open_builder(name, builder_name, data_dir, download), split)


def load_tfds_classification(name, builder_name, split, data_dir=None, download=False):
    """Reads a classification set of TensorFlow Datasets, known by its features.

    The set needs an `Image` and one `ClassLabel`, or one that is called `label`. Pictures whose
    label is -1, "unknown", are left out.

    Args:
        name: name of the data set in reports.
        builder_name: name in TensorFlow Datasets, such as `cifar10`.
        split: name or slice of a split; `val` also stands for `validation`.
        data_dir: folder of the prepared sets; None: TensorFlow Datasets' own.
        download: whether a set that is not there may be downloaded and prepared.

    Returns:
        A `ClassificationDataset`; image ids number the pictures of the split from 0.

    Raises:
        ValueError: there is no such set or split, it is not there, or it is no classification
            set.
    """
    builder = open_builder(name, builder_name, data_dir, download)
    split = find_split(name, builder, split)
    features = builder.info.features
    image_key, label_key = _classification_keys(name, features)
    dataset = encoded_dataset(builder, split, image_key, (label_key,))
    rows = dataset.map(
        lambda example: (example[label_key], tf.strings.length(example[image_key])),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    labels, sizes = np.array(list(rows.as_numpy_iterator())).T
    known = labels >= 0
    problems = dataset_lib.Problems()
    if not np.all(known):
        rule = "a picture must have a class, left out"
        problems.add(f"{name}/{split}", rule, -1, int(np.sum(~known)))
    stream = dataset.filter(lambda example: example[label_key] >= 0)
    stream = stream.map(lambda example: example[image_key])
    if np.any(known) and np.sum(sizes) <= IN_MEMORY_BYTES:
        stream = stream.batch(len(labels)).get_single_element()
    image_ids = np.flatnonzero(known).tolist()
    return ClassificationDataset(
        name,
        split,
        features[label_key].names,
        labels[known],
        [f"{name}/{split}/{image_id}" for image_id in image_ids],
        problems.lines(),
        image_ids=image_ids,
        stream=stream,
    )


def open_builder(name, builder_name, data_dir=None, download=False):
    """Returns the prepared builder of a set of TensorFlow Datasets.

    Args:
        name: name of the data set in reports.
        builder_name: name in TensorFlow Datasets.
        data_dir: folder of the prepared sets; None: TensorFlow Datasets' own.
        download: whether a set that is not there may be downloaded and prepared.

    Raises:
        ValueError: there is no such set, or it is not there.
    """
    try:
        builder = tfds.builder(builder_name, data_dir=data_dir)
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{name}: must be a set of TensorFlow Datasets; received: {builder_name} ({reason})"
        ) from error
    if download:
        builder.download_and_prepare()
    elif not builder.is_prepared():
        raise ValueError(
            f"{name}: the set must be prepared in {builder.data_path.parent}; received: no files. "
            "Pass --download to fetch it"
        )
    return builder


def from_builder(name, builder, split, masks=False, keypoint_names=None):
    """Reads the detection set of a prepared builder.

    The set needs an `Image` feature and a sequence with a `BBoxFeature` and a `ClassLabel`.
    Objects marked `is_crowd` or `is_difficult` are ignored; `area` is taken where it is there.

    Args:
        name: name of the data set in reports.
        builder: prepared `tfds.core.DatasetBuilder`.
        split: name or slice of a split; `val` also stands for `validation`.
        masks: whether to read "instances", a picture of 0: background, i + 1: object i.
        keypoint_names: for each class the names of its keypoints, to be read from "keypoints"
            (n, P, 3) of the objects, (y, x) relative to the picture and visibility.

    Returns:
        A `DetectionDataset`; image ids are those of `image/id` where there are, else numbers.

    Raises:
        ValueError: there is no such split, or the features are not those of detection.
    """
    split = find_split(name, builder, split)
    image_key, objects_key, box_key, label_key = _detection_keys(name, builder.info.features)
    features = builder.info.features
    static_size = features[image_key].shape[:2]
    has_ids = "image/id" in features and np.issubdtype(features["image/id"].np_dtype, np.integer)
    keys = (objects_key, *_OPTIONAL_KEYS, *(["instances"] if masks else []))
    dataset = encoded_dataset(builder, split, image_key, keys)

    def annotations(example):
        found = example[objects_key]
        no_flag = tf.zeros_like(found[label_key], tf.bool)
        others = {"instances": example["instances"]} if masks else {}
        if keypoint_names is not None:
            others["keypoints"] = found["keypoints"]
        size = static_size if None not in static_size else pictures.size(example[image_key])
        return {
            "size": size,
            "image_id": example["image/id"] if has_ids else -1,
            "file_name": example.get("image/filename", ""),
            "boxes": found[box_key],
            "labels": found[label_key],
            "is_crowd": found.get("is_crowd", no_flag),
            "is_difficult": found.get("is_difficult", no_flag),
            "areas": found.get("area", tf.zeros_like(found[label_key])),
            **others,
        }

    problems = dataset_lib.Problems()
    parsed = dataset.map(annotations, num_parallel_calls=tf.data.AUTOTUNE)
    rows = list(parsed.prefetch(tf.data.AUTOTUNE).as_numpy_iterator())
    image_ids = [int(row["image_id"]) for row in rows] if has_ids else list(range(len(rows)))
    if len(set(image_ids)) < len(rows):
        received = f"{len(set(image_ids))} ids of {len(rows)} pictures"
        problems.add(f"{name}/{split}", "image ids must be unique, numbered anew", received)
        image_ids = list(range(len(rows)))
    records = []
    for image_id, row in zip(image_ids, rows):
        height, width = (int(side) for side in row["size"])
        label = f"{name}/{split}/{row['file_name'].decode() or image_id}"
        # TensorFlow Datasets' label -1 stands for "unknown".
        known = row["labels"] >= 0
        if not np.all(known):
            problems.add(label, "a box must have a class, box dropped", -1, int(np.sum(~known)))
        found_masks = keypoints = None
        if masks:
            encoded = mask_lib.encode_instances(row["instances"][..., 0], len(known))
            found_masks = [mask for mask, keep in zip(encoded, known) if keep]
        if keypoint_names is not None:
            keypoints = row["keypoints"][known] * [height, width, 1]
        records.append(
            dataset_lib.clean_picture(
                label,
                image_id,
                (height, width),
                (row["boxes"] * np.array([height, width] * 2, np.float64))[known],
                row["labels"][known],
                (row["is_crowd"].astype(bool) | row["is_difficult"].astype(bool))[known],
                problems,
                areas=row["areas"][known],
                masks=found_masks,
                keypoints=keypoints,
            )
        )
    stream = dataset.map(lambda example: example[image_key])
    class_names = features[objects_key].feature[label_key].names
    return dataset_lib.DetectionDataset(
        name, split, class_names, records, problems.lines(), stream, keypoint_names
    )


def find_split(name, builder, split):
    """Returns the builder's name of a split that holds pictures."""
    splits = builder.info.splits
    whole, bracket, part = split.partition("[")
    if whole == "val" and "val" not in splits and "validation" in splits:
        split = f"validation{bracket}{part}"
    try:
        num_examples = splits[split].num_examples
    except (KeyError, ValueError) as error:
        found = ", ".join(splits)
        raise ValueError(f"{name}: split must be one of: {found}; received: {split}") from error
    if not num_examples:
        raise ValueError(f"{name}: split {split!r} must hold pictures; received: 0")
    return split


def encoded_dataset(builder, split, image_key, other_keys):
    """Returns the examples in a fixed order, pictures undecoded, with those keys that exist."""
    features = builder.info.features
    return builder.as_dataset(
        split=split,
        # Masks, depth and the like are not even read.
        decoders=tfds.decode.PartialDecoding(
            {key: True for key in (image_key, *other_keys) if key in features},
            decoders={image_key: tfds.decode.SkipDecoding()},
        ),
        read_config=tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1),
    )


def _classification_keys(name, features):
    """Returns the keys of the picture and of its class."""
    image_keys = [k for k, feature in features.items() if isinstance(feature, tfds.features.Image)]
    label_keys = [k for k, f in features.items() if isinstance(f, tfds.features.ClassLabel)]
    if not image_keys or not label_keys or (len(label_keys) > 1 and "label" not in label_keys):
        raise ValueError(
            f"{name}: a classification set must have an Image and one ClassLabel, or one called "
            f"label; received: {', '.join(features)}"
        )
    image_key = "image" if "image" in image_keys else image_keys[0]
    return image_key, "label" if "label" in label_keys else label_keys[0]


def _detection_keys(name, features):
    """Returns the keys of the picture, of the objects, and of their boxes and labels."""
    image_keys = [k for k, feature in features.items() if isinstance(feature, tfds.features.Image)]
    for objects_key, feature in features.items():
        inner = getattr(feature, "feature", None)
        if not image_keys or not isinstance(inner, tfds.features.FeaturesDict):
            continue
        box_keys = [k for k, f in inner.items() if isinstance(f, tfds.features.BBoxFeature)]
        label_keys = [k for k, f in inner.items() if isinstance(f, tfds.features.ClassLabel)]
        if box_keys and label_keys:
            # Attributes such as KITTI's occlusion are class labels too; "label" comes first.
            label_key = "label" if "label" in label_keys else label_keys[0]
            image_key = "image" if "image" in image_keys else image_keys[0]
            box_format = getattr(inner[box_keys[0]], "bbox_format", None)
            if box_format is not None and box_format.name != "REL_YXYX":
                raise ValueError(f"{name}: boxes must be REL_YXYX; received: {box_format.name}")
            return image_key, objects_key, box_keys[0], label_key
    raise ValueError(
        f"{name}: a detection set must have an Image and a sequence with a BBoxFeature and a "
        f"ClassLabel; received: {', '.join(features)}"
    )
