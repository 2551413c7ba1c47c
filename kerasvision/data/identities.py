"""Identities: pictures of persons, or of classes, of which some are learnt and others judge.

What an embedding has learnt is told by persons that it has never seen. So the classes are
divided, not the pictures; and a batch for triplets has several pictures each of several persons.
"""

import collections
import hashlib
import pathlib
import re

import cv2
import numpy as np
import PIL.Image
import tensorflow as tf

from kerasvision.data import dataset as dataset_lib
from kerasvision.data import pictures
from kerasvision.data.classification import ClassificationDataset, listed
from kerasvision.data.pipeline import centre_crop
from kerasvision.data.yolo import PICTURE_SUFFIXES

NETPBM_SUFFIXES = {".pbm", ".pgm", ".pnm", ".ppm"}  # which TensorFlow does not decode


def load_identity_folder(name, path, split=None, classes=None):
    """Reads pictures that lie in a folder for each person.

    Persons and pictures are in natural order, in which s2 comes before s10. PGM and PPM files
    are read too; then all pictures are kept in memory. Persons without a readable picture are
    told and left out before `classes` counts; persons with one picture are told. Hidden files
    are passed over, others reported. EXIF's orientation is applied.

    Args:
        name: name of the data set in reports.
        path: path of the folder; if it has a folder `split` with the persons, that one is read.
        split: name of the split in reports.
        classes: which persons, see `chosen_classes`; None: all.

    Returns:
        A `ClassificationDataset`, a class a person.

    Raises:
        ValueError: there is no such folder, or nobody in it; or as `chosen_classes`.
    """
    root = pathlib.Path(path)
    if split and root.is_dir() and (root / split).is_dir() and any(_folders(root / split)):
        root = root / split
    if not root.is_dir():
        received = "a file" if root.exists() else "no such folder"
        raise ValueError(
            f"{path}: must be a folder with a folder for each person; received: {received}"
        )
    problems = dataset_lib.Problems()
    people, empty = [], []
    for folder in _folders(root):
        files = []
        for entry in sorted(folder.iterdir(), key=natural_order):
            if entry.suffix.lower() in PICTURE_SUFFIXES | NETPBM_SUFFIXES and entry.is_file():
                files.append(entry)
            elif not entry.name.startswith("."):
                rule = "a person's folder should hold pictures, left out"
                problems.add(folder, rule, entry.name)
        people.append((folder.name, files))
    found = _read([file for _, files in people for file in files], problems)
    people = [(person, [file for file in files if file in found]) for person, files in people]
    empty = [person for person, files in people if not files]
    if empty:
        rule = "a person should have a readable picture, left out"
        problems.add(root, rule, f"none of {listed(empty)}", len(empty))
    people = _without_copies(people, problems)
    people = [(person, files) for person, files in people if files]
    if not people:
        raise ValueError(
            f"{root}: must have a folder with pictures for each person; received: none"
            + "".join(f"\n  {line}" for line in problems.lines())
        )
    chosen = chosen_classes(classes, len(people), name)
    people = [people[number] for number in chosen]
    files = [file for _, files in people for file in files]
    in_memory = any(file.suffix.lower() in NETPBM_SUFFIXES for file in files)
    dataset = ClassificationDataset(
        name,
        split or "all",
        [person for person, _ in people],
        [label for label, (_, files) in enumerate(people) for _ in files],
        [str(file) for file in files],
        problems.lines(),
        stream=tf.constant([_bytes(file) for file in files]) if in_memory else None,
        quarter_turns=[pictures.quarter_turns(file) for file in files],
    )
    return _tell_singles(dataset)


def _without_copies(people, problems):
    """People, (name, files) each, without files that have the bytes of an earlier one.

    A copy under the same person is a pair that teaches nothing, under another one a lie.
    """
    sizes = collections.Counter(file.stat().st_size for _, files in people for file in files)
    firsts, kept = {}, []
    for person, files in people:
        own = []
        for file in files:
            if sizes[file.stat().st_size] > 1:
                first = firsts.setdefault(hashlib.sha256(file.read_bytes()).digest(), file)
                if first != file:
                    problems.add(file, "should be there once, left out", f"a copy of {first}")
                    continue
            own.append(file)
        kept.append((person, own))
    return kept


def only_classes(dataset, classes):
    """The pictures of some classes of a `ClassificationDataset`, kept in memory unless files.

    Args:
        dataset: `ClassificationDataset`.
        classes: which, see `chosen_classes`; None: all. Label i is the i-th of them.

    Raises:
        ValueError: as `chosen_classes`, or there is no picture of them.
    """
    chosen = chosen_classes(classes, len(dataset.class_names), dataset.name)
    kept = np.flatnonzero(np.isin(dataset.labels, chosen))
    stream = dataset._stream
    if isinstance(stream, tf.data.Dataset):
        stream = stream.batch(dataset.num_examples).get_single_element()
    # Complaints about classes that are missing are made anew.
    problems = [line for line in dataset.problems if "should have pictures of all" not in line]
    found = ClassificationDataset(
        dataset.name,
        dataset.split,
        [dataset.class_names[number] for number in chosen],
        [chosen.index(label) for label in dataset.labels[kept]],
        [dataset.file_names[number] for number in kept],
        problems,
        image_ids=[dataset.image_ids[number] for number in kept],
        stream=None if stream is None else tf.gather(stream, kept),
        quarter_turns=dataset.quarter_turns[kept],
    )
    return _tell_singles(found)


def chosen_classes(classes, count, name="dataset"):
    """The numbers that a text such as "0:22", "22:" or "0,3,7" names.

    Args:
        classes: the text: numbers from 0, and ranges without their ends; None: all.
        count: number of classes.
        name: of the data set in reports.

    Returns:
        Ascending list of different integers.

    Raises:
        ValueError: another form, a number that isn't below `count`, or none at all.
    """
    numbers = set()
    for part in [":"] if classes is None else classes.split(","):
        form = re.fullmatch(r"\s*(?:(\d+)|(\d*):(\d*))\s*", part)
        first, last = 0, -1
        if form and form[1]:
            first, last = int(form[1]), int(form[1]) + 1
        elif form:
            first, last = int(form[2] or 0), int(form[3] or count)
        if not 0 <= first < last <= count:
            raise ValueError(
                f"{name}: classes must be numbers or ranges, such as 0:22 or 0,3,7, of the "
                f"{count} from 0 to {count - 1}; received: {classes}"
            )
        numbers.update(range(first, last))
    return sorted(numbers)


def identity_batches(
    dataset,
    image_shape,
    identities,
    pictures_each,
    *,
    steps_per_epoch=None,
    augmentation=None,
    crop_fraction=1.0,
    seed=0,
    first_epoch=0,
    epochs=1,
):
    """Returns batches of P persons with K pictures each, of epochs `first_epoch` to `epochs - 1`.

    The persons of a batch are drawn anew for every batch, all different; and of each its
    pictures, all different too, unless it has fewer than K: then they come round again. Persons
    with one picture are left out. Batch s of epoch e depends on (seed, e, s) alone, so that a
    run resumed at `first_epoch` sees what an uninterrupted one would.

    Args:
        dataset: `ClassificationDataset`.
        image_shape: (height, width, 3) of the batches.
        identities: P.
        pictures_each: K, at least 2.
        steps_per_epoch: batches in an epoch; None: `identity_steps`.
        augmentation: optional `ClassificationAugmentation`, or an object like it, that does not
            mix; without it a picture becomes its centre crop.
        crop_fraction: share of the resized picture's shorter side that the centre crop keeps.
        seed: int, of what is drawn and of the augmentation.
        first_epoch, epochs: range of epochs, as `initial_epoch` and `epochs` of `fit`.

    Returns:
        A `tf.data.Dataset` of dictionaries: "images" (P K, height, width, 3) in 0..255, uint8 or
        as the augmentation returns them; "labels" (P K,) int32; "image_ids" (P K,) int64. The
        pictures of a person stand side by side.

    Raises:
        ValueError: fewer than P persons with two pictures, or K below 2.
    """
    if pictures_each < 2:
        raise ValueError(f"pictures_each must be 2 or more; received: {pictures_each}")
    places = _places(dataset)
    if not 0 < identities <= len(places):
        raise ValueError(
            f"{dataset.name}: identities must be from 1 to {len(places)}, as many as have two "
            f"pictures in split {dataset.split!r}; received: {identities}"
        )
    steps = steps_per_epoch or identity_steps(dataset, identities, pictures_each)
    counts = tf.constant([len(own) for own in places], tf.int32)
    most = max(map(len, places))
    table = tf.constant([np.resize(own, most) for own in places], tf.int64)
    height, width, _ = image_shape
    side = 2 * max(height, width)  # leaves the augmentation room to crop

    def draw(step):
        own_seed = tf.stack([tf.cast(seed, tf.int64), step])
        seeds = tf.unstack(tf.random.experimental.stateless_split(own_seed, 2))
        people = tf.range(len(places))
        people = tf.random.experimental.stateless_shuffle(people, seed=seeds[0])[:identities]
        count = tf.gather(counts, people)[:, None]
        keys = tf.random.stateless_uniform((identities, most), seeds[1])
        order = tf.argsort(tf.where(tf.range(most) < count, keys, 2.0), axis=1)
        drawn = tf.gather(order, tf.range(pictures_each) % count, batch_dims=1)
        return tf.reshape(tf.gather(tf.gather(table, people), drawn, batch_dims=1), [-1])

    picture_at = picture_reader(dataset, at_least=(side, side))
    labels, image_ids = tf.constant(dataset.labels), tf.constant(dataset.image_ids, tf.int64)

    def prepare(running_index, place):
        image = picture_at(place)
        if augmentation is None:
            image = centre_crop(image, (height, width), crop_fraction)
        else:
            # Apart from the seeds of what is drawn, which have numbers from 0 on.
            image = augmentation(image, seed=tf.stack([tf.cast(seed, tf.int64), ~running_index]))
        return {
            "images": tf.ensure_shape(image, image_shape),
            "labels": labels[place],
            "image_ids": image_ids[place],
        }

    batch_size = identities * pictures_each
    batches = tf.data.Dataset.range(first_epoch * steps, epochs * steps)
    places_drawn = batches.map(draw).unbatch()
    running_indices = tf.data.Dataset.counter(first_epoch * steps * batch_size)
    return (
        tf.data.Dataset.zip(running_indices, places_drawn)
        .map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .batch(batch_size, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
        .apply(tf.data.experimental.assert_cardinality(steps * max(0, epochs - first_epoch)))
    )


def identity_steps(dataset, identities, pictures_each):
    """Number of batches that together have about as many pictures as the data set."""
    usable = sum(map(len, _places(dataset)))
    return max(1, round(usable / (identities * pictures_each)))


def picture_reader(dataset, at_least=None):
    """A function from a place in a `ClassificationDataset` to the picture there, upright.

    Args:
        dataset: `ClassificationDataset`.
        at_least: as of `kerasvision.data.pictures.decode`.

    Returns:
        Callable of an integer, or a tensor () of one; gives (h, w, 3) uint8.
    """
    turns = tf.constant(dataset.quarter_turns)
    paths, stream = tf.constant(dataset.file_names), dataset._stream
    if isinstance(stream, tf.data.Dataset):
        stream = stream.batch(dataset.num_examples).get_single_element()

    def picture_at(place):
        encoded = tf.io.read_file(paths[place]) if stream is None else tf.gather(stream, place)
        image = pictures.decode(encoded, at_least)
        return tf.image.rot90(image, turns[place]) if np.any(dataset.quarter_turns) else image

    return picture_at


def natural_order(path):
    """Sorts names as people do: numbers in them by their value."""
    parts = re.split(r"(\d+)", path.name)
    return [int(part) if number % 2 else part.lower() for number, part in enumerate(parts)]


def _places(dataset):
    """The places of the pictures of each person that has two or more."""
    places = [np.flatnonzero(dataset.labels == label) for label in range(len(dataset.class_names))]
    return [own for own in places if len(own) > 1]


def _tell_singles(dataset):
    """The data set, with a line about persons of one picture."""
    counts = np.bincount(dataset.labels, minlength=len(dataset.class_names))
    singles = [dataset.class_names[label] for label in np.flatnonzero(counts == 1)]
    if singles:
        dataset.problems.append(
            f"{dataset.name}: a person should have two pictures or more, or it is no anchor; "
            f"received: one of {listed(singles)} ({len(singles)} of {len(counts)} persons)"
        )
    return dataset


def _folders(folder):
    entries = sorted(folder.iterdir(), key=natural_order)
    return [entry for entry in entries if entry.is_dir() and not entry.name.startswith(".")]


def _read(files, problems):
    """The set of the files that are whole pictures; others are reported."""
    netpbm = [file for file in files if file.suffix.lower() in NETPBM_SUFFIXES]
    others = [file for file in files if file.suffix.lower() not in NETPBM_SUFFIXES]
    found = set(dataset_lib.readable_sizes(others, problems))
    for file in netpbm:
        try:
            with PIL.Image.open(file) as picture:
                picture.load()
            found.add(file)
        except (OSError, ValueError, SyntaxError) as error:
            problems.add(file, "must be a whole PGM or PPM picture, left out", str(error)[:80])
    return found


def _bytes(file):
    """The bytes of a picture file that TensorFlow decodes: of Netpbm ones, as PNG."""
    if file.suffix.lower() not in NETPBM_SUFFIXES:
        return file.read_bytes()
    with PIL.Image.open(file) as picture:
        if picture.mode.startswith("I"):  # 16 bits
            pixels = (np.asarray(picture) // 257).astype("uint8")
        else:
            pixels = np.asarray(picture.convert("RGB" if picture.mode == "RGB" else "L"))
    if pixels.ndim == 3:
        pixels = pixels[..., ::-1]
    return cv2.imencode(".png", pixels)[1].tobytes()
