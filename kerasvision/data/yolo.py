"""Reader of YOLO folders, as Darknet and its descendants have them."""

import pathlib

import yaml

from kerasvision.data import dataset as dataset_lib

PICTURE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
SPLIT_NAMES = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


def load_yolo(name, path, split):
    """Reads pictures with a text file each of `class cx cy width height`, relative to the picture.

    The path is a `data.yaml` (`names` as list or dictionary; `train`, `val`, `test` as folders,
    `.txt` lists of pictures, or lists of these; optional `path`), a folder that has one, or a
    folder with `images/SPLIT` or `SPLIT/images` and a `classes.txt`. The labels of
    `images/.../x.jpg` are in `labels/.../x.txt`, or else beside the picture. No label file means
    no objects. Polygons (`class x1 y1 x2 y2 ...`) become the boxes around them.

    Args:
        name: name of the data set in reports.
        path: path of the folder or YAML file.
        split: name of the split.

    Returns:
        A `DetectionDataset`; image ids number the sorted pictures from 0.

    Raises:
        ValueError: the path, the YAML file, the split or the class names are missing or broken.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        found = [path / "data.yaml", *sorted(path.glob("*.yaml")), path]
        path = next(candidate for candidate in found if candidate.exists())
    if path.is_dir():
        class_names, entries, root = _read_class_list(path), _split_folders(path, split), path
    elif path.is_file():
        class_names, entries, root = _read_yaml(path, split)
    else:
        raise ValueError(f"{path}: must be a folder or a data.yaml; received: no such file")

    problems = dataset_lib.Problems()
    paths = []
    for entry in entries:
        paths += _pictures_of(path, root, entry)
    unique = sorted(set(paths))
    if len(unique) < len(paths):
        rule = "a picture must be listed once, repetitions left out"
        problems.add(path, rule, f"{len(paths)} names of {len(unique)} pictures")

    sizes = dataset_lib.readable_sizes(unique, problems)
    records, without_labels = [], 0
    for image_id, picture_path in enumerate(unique):
        if picture_path not in sizes:
            continue
        label_path = _label_path(picture_path)
        without_labels += not label_path.is_file()
        boxes, labels = _read_labels(label_path, class_names, sizes[picture_path], problems)
        records.append(
            dataset_lib.clean_picture(
                picture_path,
                image_id,
                sizes[picture_path],
                boxes,
                labels,
                [False] * len(labels),
                problems,
                source=label_path,
            )
        )
    if without_labels:
        rule = "pictures without a label file are taken as empty"
        problems.add(path, rule, f"{without_labels} of {len(records)} pictures in split {split}")
    return dataset_lib.DetectionDataset(name, split, class_names, records, problems.lines())


def _read_yaml(path, split):
    """Returns class names, entries of the split and the folder that they are relative to."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: must be YAML; received: {reason}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must be a dictionary; received: {str(content)[:80]}")
    names = content.get("names")
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        names = [names[label] for label in range(len(names))]
    if not isinstance(names, list) or not names:
        raise ValueError(
            f"{path}: names must be a list, or a dictionary with keys from 0 on; received: {names}"
        )
    if content.get("nc", len(names)) != len(names):
        raise ValueError(f"{path}: nc must be {len(names)}, as names; received: {content['nc']}")
    keys = [key for key in SPLIT_NAMES.get(split, (split,)) if content.get(key)]
    if not keys:
        received = ", ".join(str(key) for key in content)
        raise ValueError(f"{path}: must have the split {split!r}; received: {received}")
    entries = content[keys[0]]
    entries = entries if isinstance(entries, list) else [entries]
    root = path.parent / str(content.get("path") or "")
    return [str(class_name) for class_name in names], entries, root


def _read_class_list(root):
    for candidate in ("classes.txt", "labels/classes.txt", "obj.names"):
        if (root / candidate).is_file():
            lines = (root / candidate).read_text(encoding="utf-8").splitlines()
            names = [line.strip() for line in lines if line.strip()]
            if names:
                return names
    raise ValueError(f"{root}: a YOLO folder must have a data.yaml or classes.txt; received: none")


def _split_folders(root, split):
    for folder in SPLIT_NAMES.get(split, (split,)):
        for candidate in (root / "images" / folder, root / folder / "images", root / folder):
            if candidate.is_dir():
                return [candidate]
    raise ValueError(f"{root}: must have images/{split} or {split}/images; received: neither")


def _pictures_of(source, root, entry):
    """Returns the paths of the pictures that an entry of the YAML file stands for."""
    # Roboflow writes ../train/images beside a folder train/.
    inside = str(entry).removeprefix("../")
    places = [root / str(entry), root / inside, source.parent / inside]
    place = next((place for place in places if place.exists()), None)
    if place is None:
        raise ValueError(f"{source}: folders and lists must exist; received: {entry}")
    if place.is_dir():
        return [p for p in place.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES]
    if place.suffix != ".txt":
        raise ValueError(f"{source}: must name folders or .txt lists; received: {entry}")
    listed = []
    for line in place.read_text(encoding="utf-8").splitlines():
        if line.strip():
            bases = (root, place.parent)
            candidates = [base / line.strip() for base in bases]
            listed.append(next((p for p in candidates if p.is_file()), candidates[0]))
    return listed


def _label_path(picture_path):
    parts = list(picture_path.parts)
    folders = [number for number, part in enumerate(parts[:-1]) if part == "images"]
    if folders:
        parts[folders[-1]] = "labels"
        candidate = pathlib.Path(*parts).with_suffix(".txt")
        if candidate.is_file() or not picture_path.with_suffix(".txt").is_file():
            return candidate
    return picture_path.with_suffix(".txt")


def _read_labels(path, class_names, size, problems):
    """Returns boxes (ymin, xmin, ymax, xmax) in pixels and labels of a label file."""
    boxes, labels = [], []
    if not path.is_file():
        return boxes, labels
    height, width = size
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines()):
        fields = line.split()
        if not fields:
            continue
        received = f"line {number + 1}: {line[:60]}"
        try:
            label, *values = (float(field) for field in fields)
        except ValueError:
            problems.add(path, "a line must hold numbers, line dropped", received)
            continue
        polygon = len(values) >= 6 and len(values) % 2 == 0
        if len(values) != 4 and not polygon:
            rule = "a line must be class cx cy width height, or a polygon, line dropped"
            problems.add(path, rule, received)
        elif label not in range(len(class_names)):
            rule = f"the class must be in 0..{len(class_names) - 1}, box dropped"
            problems.add(path, rule, received)
        else:
            if polygon:
                xs, ys = values[0::2], values[1::2]
                box = (min(ys), min(xs), max(ys), max(xs))
            else:
                center_x, center_y, box_width, box_height = values
                box = (
                    center_y - box_height / 2,
                    center_x - box_width / 2,
                    center_y + box_height / 2,
                    center_x + box_width / 2,
                )
            boxes.append((box[0] * height, box[1] * width, box[2] * height, box[3] * width))
            labels.append(int(label))
    return boxes, labels
