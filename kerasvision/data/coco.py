"""Reader of COCO annotation files."""

import hashlib
import json
import math
import pathlib

import numpy as np

from kerasvision.data import dataset as dataset_lib


def load_coco(name, path, split, masks=False, keypoints=False):
    """Reads an annotation file in COCO's format, and the pictures that lie near it.

    `{split}` in the path stands for the split. A path without it is one file for all: `train` is
    four fifths of its pictures and `val` the rest, decided by a hash of the image id, and `all`
    is the whole file. Category ids may have gaps: labels follow the order of the ids. Objects
    with `iscrowd` are ignored. Pictures are looked for beside the file and beside its folder,
    there also in folders named `images`, as the split, or as the file (`train2017` for
    `instances_train2017.json`).

    Args:
        name: name of the data set in reports.
        path: path of the JSON file.
        split: name of the split.
        masks: whether to read "segmentation": polygons, or run lengths as crowds have them.
        keypoints: whether to read "keypoints".

    Returns:
        A `DetectionDataset` with the image ids of the file.

    Raises:
        ValueError: the file is missing or not COCO's, no picture is found, or no category names
            its keypoints though they are asked for.
    """
    problems = dataset_lib.Problems()
    whole = "{split}" in path or split == "all"
    if not whole and split not in ("train", "val"):
        raise ValueError(
            f"{path}: the split of one file must be train, val or all (or write {{split}} in the "
            f"path); received: {split}"
        )
    path = pathlib.Path(path.replace("{split}", split))
    content = _read_json(path)

    categories = {}
    for category in sorted(content["categories"], key=lambda category: category["id"]):
        if category["id"] in categories:
            rule = "category ids must be unique, repetition left out"
            problems.add(path, rule, f"id {category['id']}")
        else:
            categories[category["id"]] = str(category["name"])
    labels_of = {category_id: label for label, category_id in enumerate(categories)}
    if not categories:
        raise ValueError(f"{path}: categories must not be empty; received: []")

    keypoint_names = None
    if keypoints:
        named = {row["id"]: row.get("keypoints") or () for row in content["categories"]}
        keypoint_names = [tuple(named[category_id]) for category_id in categories]
        if not any(keypoint_names):
            raise ValueError(f"{path}: categories must name their keypoints; received: none")

    rows = {}
    for row in content["images"]:
        if row["id"] in rows:
            rule = "image ids must be unique, repetition left out"
            problems.add(path, rule, f"id {row['id']} of {row['file_name']}")
        else:
            rows[row["id"]] = row
    annotations = _annotations_by_image(path, content["annotations"], rows, labels_of, problems)

    if not whole:
        rows = {image_id: row for image_id, row in rows.items() if _split_of(image_id) == split}
        problems.add(
            path,
            "one file for all splits, of which train is about 80 % by a hash of the image id, val "
            "the rest and all the whole",
            f"split {split} with {len(rows)} of {len(content['images'])} pictures",
        )
    folder = _picture_folder(path, split, [row["file_name"] for row in rows.values()])
    paths = [folder / row["file_name"] for row in rows.values()]
    sizes = dataset_lib.readable_sizes(paths, problems)
    records = []
    for (image_id, row), picture_path in zip(rows.items(), paths):
        if picture_path not in sizes:
            continue
        height, width = sizes[picture_path]
        if (row.get("height", height), row.get("width", width)) != (height, width):
            rule = "size must be the picture's, boxes taken as pixels of the picture"
            received = f"{row.get('width')} x {row.get('height')} for {width} x {height}"
            problems.add(picture_path, rule, received)
        found = annotations.get(image_id, [])
        boxes = [annotation["bbox"] for annotation in found]
        source = f"{path}: image id {image_id}"
        records.append(
            dataset_lib.clean_picture(
                picture_path,
                image_id,
                sizes[picture_path],
                [(y, x, y + box_height, x + box_width) for x, y, box_width, box_height in boxes],
                [labels_of[annotation["category_id"]] for annotation in found],
                [bool(annotation.get("iscrowd", 0)) for annotation in found],
                problems,
                areas=[_number(annotation.get("area")) for annotation in found],
                source=source,
                masks=[row.get("segmentation") for row in found] if masks else None,
                keypoints=(
                    _keypoints(found, max(map(len, keypoint_names)), source, problems)
                    if keypoints
                    else None
                ),
            )
        )
    return dataset_lib.DetectionDataset(
        name,
        split,
        list(categories.values()),
        records,
        problems.lines(),
        keypoint_names=keypoint_names,
    )


def _keypoints(annotations, count, source, problems):
    """Keypoints (n, count, 3), (y, x, visibility) in pixels; zeros where there are none."""
    keypoints = np.zeros((len(annotations), count, 3))
    for row, annotation in zip(keypoints, annotations):
        values = annotation.get("keypoints") or []
        if len(values) % 3 or len(values) > 3 * count or not np.all(np.isfinite(_floats(values))):
            rule = f"keypoints must be up to {count} of x, y, visibility, taken as not labelled"
            problems.add(source, rule, str(values)[:60])
            continue
        places = np.reshape(_floats(values), (-1, 3))
        row[: len(places)] = places[:, [1, 0, 2]]
    return keypoints


def _floats(values):
    return [_number(value) for value in values]


def _read_json(path):
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: must be a readable file; received: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path}: must be JSON; received: {error}") from error
    needed = {
        "images": {"id", "file_name"},
        "annotations": {"image_id", "category_id", "bbox"},
        "categories": {"id", "name"},
    }
    for key, fields in needed.items():
        rows = content.get(key) if isinstance(content, dict) else None
        if not isinstance(rows, list):
            raise ValueError(f"{path}: must have a list {key!r}, as COCO; received: none")
        for number, row in enumerate(rows):
            missing = fields - row.keys() if isinstance(row, dict) else fields
            if missing:
                wanted = ", ".join(sorted(missing))
                raise ValueError(
                    f"{path}: {key}[{number}] must have {wanted}; received: {str(row)[:80]}"
                )
            if key != "annotations" and not isinstance(row["id"], int):
                raise ValueError(
                    f"{path}: {key}[{number}] must have an integer id; received: {row['id']!r}"
                )
    return content


def _annotations_by_image(path, annotations, rows, labels_of, problems):
    """Returns the usable annotations of every image id, the others reported."""
    found, seen = {}, {}
    for annotation in annotations:
        received = f"annotation id {annotation.get('id')}, image id {annotation['image_id']}"
        box = annotation["bbox"]
        same = seen.setdefault(annotation.get("id"), annotation)
        if same is not annotation and "id" in annotation:
            problems.add(path, "annotation ids must be unique, identical ones dropped", received)
            if same == annotation:
                continue
        if annotation["image_id"] not in rows:
            rule = "annotations must be of an image in the file, annotation dropped"
            problems.add(path, rule, received)
        elif annotation["category_id"] not in labels_of:
            rule = "categories must be in the file, annotation dropped"
            problems.add(path, rule, f"category id {annotation['category_id']}, {received}")
        elif not isinstance(box, list) or len(box) != 4:
            rule = "bbox must be [x, y, width, height], annotation dropped"
            problems.add(path, rule, f"{str(box)[:40]}, {received}")
        else:
            usable = {**annotation, "bbox": [_number(value) for value in box]}
            found.setdefault(annotation["image_id"], []).append(usable)
    return found


def _split_of(image_id):
    """Returns the split of a picture, the same in every version of its file."""
    digest = hashlib.sha256(str(image_id).encode()).digest()
    return "val" if digest[0] % 5 == 0 else "train"


def _picture_folder(path, split, file_names):
    """Returns the folder below which the first pictures are found."""
    own_name = path.stem.split("_")[-1]
    folders = [
        base / below
        for base in (path.parent, path.parent.parent)
        for below in (
            "", own_name, path.stem, split, "images", f"images/{own_name}", f"images/{split}",
        )
    ]  # fmt: skip
    for folder in folders:
        if any((folder / file_name).is_file() for file_name in file_names[:20]):
            return folder
    tried = ", ".join(dict.fromkeys(str(folder) for folder in folders))
    raise ValueError(
        f"{path}: the pictures must lie in one of {tried}; received: no file "
        f"{file_names[0] if file_names else 'names'}"
    )


def _number(value):
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
