"""Data sets in memory: one record a picture, whatever format it came from."""

import collections
import concurrent.futures
import copy
import dataclasses
import functools

import numpy as np
import tensorflow as tf

from kerasvision.data import masks as mask_lib
from kerasvision.data import pictures

# Coordinates this far outside of a picture (pixels) are rounding, not a fault worth reporting.
OUTSIDE_TOLERANCE = 1.0
# A stream of no more pictures is shuffled in memory, a longer one through a buffer of as many.
SHUFFLE_BUFFER = 10_000


@dataclasses.dataclass
class Picture:
    """One annotated picture.

    Attributes:
        image_id: the data set's own integer id, or a running number where it has none.
        file_name: path of the picture, or a name that a person can find it by.
        height, width: pixels, as stored (an EXIF orientation is not applied).
        boxes: (n, 4) float32 rel_yxyx, inside the picture, of positive area.
        labels: (n,) int32, classes from 0.
        ignored: (n,) bool, crowd and difficult objects: not trained on, not scored.
        areas: (n,) float32 in square pixels: of the object where known, else of its box.
        masks: n masks as COCO's run lengths, None for one that can't be used; None: not read.
        grids: (n, 392) uint8, 56 x 56 bits each, row by row: the masks over their boxes.
        keypoints: (n, P, 3) float32, (y, x) relative to the picture and COCO's visibility, 0: not
            labelled, 1: hidden, 2: visible; None: not read.
    """

    image_id: int
    file_name: str
    height: int
    width: int
    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray
    areas: np.ndarray
    masks: list | None = None
    grids: np.ndarray | None = None
    keypoints: np.ndarray | None = None


class Problems:
    """Counts everything that a reader drops or repairs, and words it in a few lines."""

    LINES_PER_RULE = 5

    def __init__(self):
        self._lines = collections.defaultdict(list)
        self._counts = collections.Counter()

    def add(self, path, rule, received, count=1):
        """Notes `count` breaches of `rule` in the file at `path`, and what was received."""
        self._counts[rule] += count
        if len(self._lines[rule]) < self.LINES_PER_RULE:
            times = f" (and {count - 1} more in it)" if count > 1 else ""
            self._lines[rule].append((f"{path}: {rule}; received: {received}{times}", count))

    def lines(self):
        """Returns a line each for the first few files of a rule, the last with the whole count."""
        result = []
        for rule, lines in self._lines.items():
            listed = sum(count for _, count in lines)
            result += [line for line, _ in lines]
            if self._counts[rule] > listed:
                result[-1] += f" (and in further files: {self._counts[rule]} in all)"
        return result


class PictureDataset:
    """Pictures of one split, streamed undecoded in an order that a seed decides.

    A child names the truth about each picture in `_truth`.

    Args:
        name: the word that names the data set, such as `voc:PATH`.
        split: name of the split.
        class_names: list of str; label i is called `class_names[i]`.
        file_names: list of str, one a picture, in a fixed order.
        image_ids: list of int, one a picture.
        problems: list of str, a line for what was dropped or repaired.
        stream: the encoded pictures in the order of `file_names`: a `tf.data.Dataset` of scalar
            strings or a (N,) string tensor; None: they are read from the files `file_names`.

    Raises:
        ValueError: if there is no picture.
    """

    def __init__(self, name, split, class_names, file_names, image_ids, problems, stream=None):
        if not len(file_names):
            raise ValueError(
                f"{name}: split {split!r} must hold at least one readable picture; received: 0"
                + "".join(f"\n  {line}" for line in problems)
            )
        self.name = name
        self.split = split
        self.class_names = list(class_names)
        self.problems = list(problems)
        self.num_examples = len(file_names)
        self.file_names = file_names
        self.image_ids = image_ids
        self._stream = stream

    def encoded_examples(self, shuffle_seed=None, *, shard_index=0, shard_count=1):
        """Returns the pictures one by one, undecoded, in an order that the seed alone decides.

        The order is a random permutation. Only that of a stream of more than 10,000 pictures
        comes out of a shuffle buffer of this size, and depends on `tf.random.set_seed` too.

        Args:
            shuffle_seed: scalar integer or integer tensor; None keeps the stored order.
            shard_index, shard_count: takes every `shard_count`-th picture of that order, from
                number `shard_index` on.

        Returns:
            A `tf.data.Dataset` of dictionaries: "encoded" () string, the bytes of a picture
            file; "image_id" () int64; and the truth of the data set's kind, see the class.
        """
        truth = self._truth()
        image_ids = tf.constant(self.image_ids, tf.int64)

        def example(position, encoded):
            return {"encoded": encoded, "image_id": image_ids[position], **truth(position)}

        shuffled = shuffle_seed is not None
        streamed = isinstance(self._stream, tf.data.Dataset)
        if streamed and (not shuffled or self.num_examples > SHUFFLE_BUFFER):
            positions = self._stream.enumerate()
            if shuffled:
                seed = tf.cast(shuffle_seed, tf.int64)
                positions = positions.shuffle(SHUFFLE_BUFFER, seed, reshuffle_each_iteration=False)
            return positions.shard(shard_count, shard_index).map(example)

        if streamed:
            # Read once, also when called in the graph of a `flat_map` over epochs.
            with tf.init_scope():
                encoded = self._stream.batch(self.num_examples).get_single_element()
            read = functools.partial(tf.gather, encoded)
        elif self._stream is not None:
            read = functools.partial(tf.gather, self._stream)
        else:
            paths = tf.constant(self.file_names)

            def read(position):
                return tf.io.read_file(paths[position])

        order = tf.range(self.num_examples, dtype=tf.int64)
        if shuffled:
            seed = tf.stack([tf.cast(shuffle_seed, tf.int64), 0])
            order = tf.random.experimental.stateless_shuffle(order, seed=seed)

        return tf.data.Dataset.from_tensor_slices(order[shard_index::shard_count]).map(
            lambda position: example(position, read(position)),
            num_parallel_calls=tf.data.AUTOTUNE,
        )


class DetectionDataset(PictureDataset):
    """Annotated pictures of one split, with class names, ground truth and encoded examples.

    An encoded example has "boxes" (n, 4) float32 rel_yxyx and "labels" (n,) int32 of the objects
    to train on (crowd and difficult ones are left out); and, if the records have them,
    "segmentation_masks" (n, 56, 56) uint8, 0 or 1, on a grid over each box, and "keypoints"
    (n, P, 3) float32, as in `Picture`.

    Args:
        name: the word that names the data set, such as `voc:PATH`.
        split: name of the split.
        class_names: list of str; label i is called `class_names[i]`.
        records: list of `Picture`, at least one, in a fixed order.
        problems: list of str, a line for what was dropped or repaired.
        stream: optional `tf.data.Dataset` of scalar strings, the encoded pictures in the order
            of `records`; without it they are read from the files `Picture.file_name`.
        keypoint_names: for each class the names of its keypoints, up to P; None: no keypoints.

    Raises:
        ValueError: if there is no picture.
    """

    def __init__(
        self, name, split, class_names, records, problems, stream=None, keypoint_names=None
    ):
        file_names = [record.file_name for record in records]
        image_ids = [record.image_id for record in records]
        super().__init__(name, split, class_names, file_names, image_ids, problems, stream)
        self.records = records
        self.keypoint_names = keypoint_names
        self.has_boxes = None
        counts = [int(np.sum(~record.ignored)) for record in records]
        self.max_boxes = max(1, *counts)
        if not any(counts):
            self.problems.append(f"{name}: split {split!r} should have boxes; received: none")

    def part(self, places, split):
        """Returns some of the pictures as a split of their own; they must be files.

        Args:
            places: slice of the pictures.
            split: name of the part.

        Raises:
            ValueError: there is no picture in it.
        """
        return DetectionDataset(
            self.name,
            split,
            self.class_names,
            self.records[places],
            self.problems,
            keypoint_names=self.keypoint_names,
        )

    def without_boxes(self, class_names):
        """Returns the data set as if of some classes one only knew which pictures show them.

        Pictures with an object of these classes keep their labels, but have the whole picture for
        every box, as no box may tell where to crop; examples get a further entry, "has_boxes"
        () bool. (Redmon & Farhadi 2017, YOLO9000, section 4, learns from both kinds at once.)

        Args:
            class_names: names of classes of the data set.

        Raises:
            ValueError: a name is not that of a class.
        """
        unknown = [name for name in class_names if name not in self.class_names]
        if unknown:
            raise ValueError(
                f"{self.name}: classes without boxes must be among {self.class_names}; received: "
                f"{unknown[0]}"
            )
        hidden = [self.class_names.index(name) for name in class_names]
        changed = copy.copy(self)
        changed.has_boxes = [
            not np.any(np.isin(record.labels[~record.ignored], hidden)) for record in self.records
        ]
        changed.records = [
            record
            if known
            else dataclasses.replace(
                record, boxes=np.tile(np.float32([0, 0, 1, 1]), (len(record.labels), 1))
            )
            for record, known in zip(self.records, changed.has_boxes)
        ]
        return changed

    def _truth(self):
        """Returns a function from a position to the objects of its picture."""
        counts = [int(np.sum(~record.ignored)) for record in self.records]
        names = {"boxes": "boxes", "labels": "labels"}
        if self.records[0].grids is not None:
            names["segmentation_masks"] = "grids"
        if self.records[0].keypoints is not None:
            names["keypoints"] = "keypoints"
        rows_of = {}
        for name, attribute in names.items():
            rows = [getattr(record, attribute)[~record.ignored] for record in self.records]
            rows_of[name] = tf.RaggedTensor.from_row_lengths(np.concatenate(rows), counts)

        def truth(position):
            objects = {name: rows[position] for name, rows in rows_of.items()}
            objects["boxes"] = tf.ensure_shape(objects["boxes"], (None, 4))
            if self.has_boxes is not None:
                objects["has_boxes"] = tf.constant(self.has_boxes)[position]
            if "segmentation_masks" in objects:
                # Grids are kept as bits: of all objects of COCO they take 340 megabytes.
                packed = objects["segmentation_masks"][..., None]
                bits = tf.bitwise.right_shift(packed, np.arange(7, -1, -1, np.uint8)) & 1
                shape = (-1, mask_lib.SIDE, mask_lib.SIDE)
                objects["segmentation_masks"] = tf.reshape(bits, shape)
            return objects

        return truth

    def ground_truth(self):
        """Returns all boxes as a dictionary in COCO's format.

        "images": id, width and height in pixels, file_name; "annotations": id from 1, image_id,
        category_id (index into `class_names`, from 0), bbox [x, y, width, height] and area in
        pixels, iscrowd = 1 for crowd and difficult objects, "segmentation", run lengths, and
        "keypoints" [x, y, visibility, …] in pixels with "num_keypoints", where they were read;
        "categories": id, name, and the names of the "keypoints".
        """
        images, annotations = [], []
        for record in self.records:
            images.append(
                {
                    "id": record.image_id,
                    "width": record.width,
                    "height": record.height,
                    "file_name": record.file_name,
                }
            )
            size = np.array([record.height, record.width] * 2, np.float64)
            for i, (box, label, ignored, area) in enumerate(
                zip(record.boxes * size, record.labels, record.ignored, record.areas)
            ):
                y_min, x_min, y_max, x_max = (float(value) for value in box)
                annotation = {
                    "id": len(annotations) + 1,
                    "image_id": record.image_id,
                    "category_id": int(label),
                    "bbox": [x_min, y_min, x_max - x_min, y_max - y_min],
                    "area": float(area),
                    "iscrowd": int(ignored),
                }
                if record.masks is not None and record.masks[i] is not None:
                    annotation["segmentation"] = record.masks[i]
                if record.keypoints is not None:
                    places = record.keypoints[i] * [record.height, record.width, 1]
                    annotation["keypoints"] = places[:, [1, 0, 2]].ravel().tolist()
                    annotation["num_keypoints"] = int(np.sum(places[:, 2] > 0))
                annotations.append(annotation)
        categories = [{"id": i, "name": name} for i, name in enumerate(self.class_names)]
        for category, names in zip(categories, self.keypoint_names or ()):
            category["keypoints"] = list(names)
        return {"images": images, "annotations": annotations, "categories": categories}


def clean_picture(
    path,
    image_id,
    size,
    boxes,
    labels,
    ignored,
    problems,
    areas=None,
    source=None,
    masks=None,
    keypoints=None,
):
    """Returns the `Picture` of raw annotations, bad boxes repaired or dropped and reported.

    Corners in the wrong order are swapped, boxes that reach outside of the picture are clipped,
    boxes with a coordinate that is not finite and boxes without an area (also after clipping)
    are dropped. An object whose mask can't be used, or is elsewhere than its box, is ignored.

    Args:
        path: path of the picture.
        image_id: int.
        size: (height, width) of the stored picture in pixels.
        boxes: n rows of (ymin, xmin, ymax, xmax) in pixels.
        labels: n labels, classes from 0.
        ignored: n booleans, crowd and difficult objects.
        problems: `Problems` to report to.
        areas: n areas of the objects in square pixels; None, or not above 0: the box's area.
        source: path of the annotation file named in reports; None: the picture's.
        masks: n masks in COCO's formats, see `kerasvision.data.masks.read_mask`; None: none.
        keypoints: (n, P, 3), (y, x) in pixels and visibility; None: none.
    """
    source = path if source is None else source
    height, width = size
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    labels = np.asarray(labels, np.int32).reshape(-1)
    ignored = np.asarray(ignored, bool).reshape(-1)
    areas = np.full(len(boxes), np.nan) if areas is None else np.asarray(areas, np.float64)

    def report_boxes(broken, rule):
        if np.any(broken):
            first = " ".join(f"{value:g}" for value in boxes[np.argmax(broken)])
            received = f"ymin xmin ymax xmax = {first} in {width} x {height} pixels"
            problems.add(source, rule, received, int(np.sum(broken)))

    finite = np.all(np.isfinite(boxes), axis=-1)
    report_boxes(~finite, "coordinates must be finite numbers, box dropped")
    boxes, labels, ignored, areas = (a[finite] for a in (boxes, labels, ignored, areas))

    inverted = np.any(boxes[:, :2] > boxes[:, 2:], axis=-1)
    report_boxes(inverted, "the minimum must come before the maximum, corners swapped")
    boxes = np.concatenate(
        [np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], axis=-1
    )

    clipped = np.clip(boxes, 0, np.array([height, width] * 2))
    relative = (clipped / np.array([height, width] * 2)).astype(np.float32)
    flat = np.any(boxes[:, 2:] <= boxes[:, :2], axis=-1)
    outside = ~flat & np.any(relative[:, 2:] <= relative[:, :2], axis=-1)
    kept = ~flat & ~outside
    report_boxes(flat, "width and height must be above 0, box dropped")
    report_boxes(outside, "a box must overlap its picture, box dropped")
    beyond = np.max(np.abs(clipped - boxes), axis=-1, initial=0) > OUTSIDE_TOLERANCE
    report_boxes(kept & beyond, "a box must lie in its picture, box clipped")

    sides = clipped[:, 2:] - clipped[:, :2]
    areas = np.where(areas > 0, areas, sides[:, 0] * sides[:, 1]).astype(np.float32)
    picture = Picture(
        int(image_id), str(path), height, width,
        relative[kept], labels[kept], ignored[kept], areas[kept],
    )  # fmt: skip
    rows = np.flatnonzero(finite)[kept]
    if masks is not None:
        _add_masks(picture, [masks[row] for row in rows], clipped[kept], source, problems)
    if keypoints is not None:
        picture.keypoints = _relative_keypoints(np.asarray(keypoints)[rows], size)
    return picture


def _add_masks(picture, masks, boxes, source, problems):
    """Reads the masks (n) of a picture's boxes (n, 4) in pixels, and lays them on grids."""
    report = functools.partial(problems.add, source)
    picture.masks = []
    grids = np.zeros((len(masks), mask_lib.SIDE**2), bool)
    for i, (mask, box) in enumerate(zip(masks, boxes)):
        mask = mask_lib.read_mask(mask, (picture.height, picture.width), report)
        picture.masks.append(mask)
        if mask is not None and not picture.ignored[i]:
            iou = mask_lib.bounds_iou(mask, box)
            if iou < mask_lib.MIN_BOUNDS_IOU:
                rule = (
                    f"the bounds of a mask must have an IoU of {mask_lib.MIN_BOUNDS_IOU} or more "
                    "with its box, object ignored"
                )
                report(rule, f"{iou:.2f}")
                mask = None
            else:
                grids[i] = mask_lib.grid_over_box(mask, box).ravel()
        picture.ignored[i] |= mask is None
    picture.grids = np.packbits(grids, axis=-1)


def _relative_keypoints(keypoints, size):
    """Keypoints (n, P, 3) in pixels as relative ones; those out of the picture as not labelled."""
    keypoints = keypoints / [*size, 1]
    places = keypoints[..., :2]
    inside = np.all((places >= 0) & (places <= 1), axis=-1, keepdims=True)
    labelled = inside & (keypoints[..., 2:] > 0)
    return np.where(labelled, keypoints, 0.0).astype(np.float32)


def readable_sizes(paths, problems):
    """Tries every file with the pipeline's own decoder, in parallel, and measures it.

    Args:
        paths: sequence of paths.
        problems: `Problems`; files that are missing, empty, truncated, no pictures or of a
            format that TensorFlow does not decode are reported to it.

    Returns:
        A dictionary from each readable path to its (height, width) in pixels.
    """

    def check(path):
        try:
            encoded = tf.io.read_file(str(path))
        except (tf.errors.OpError, UnicodeError):
            return "the picture must exist and be readable, left out", "no such file"
        if not len(encoded.numpy()):
            return "the picture must not be empty, left out", "0 bytes"
        try:
            return pictures.check(encoded)
        except tf.errors.OpError as error:
            rule = "must be a whole JPEG, PNG, GIF, BMP or WebP picture, left out"
            return rule, error.message.split("} ")[-1].splitlines()[0][:80]

    sizes = {}
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for path, (first, second) in zip(paths, pool.map(check, paths)):
            if isinstance(first, str):
                problems.add(path, first, second)
            else:
                sizes[path] = (first, second)
    return sizes
