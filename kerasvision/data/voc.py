"""Reader of Pascal VOC folders."""

import pathlib
import xml.etree.ElementTree

from kerasvision.data import dataset as dataset_lib


def load_voc(name, root, split):
    """Reads a folder with `JPEGImages`, `Annotations` and `ImageSets/Main/SPLIT.txt`.

    Class names are the sorted names in all of `Annotations`, so that every split has the same.
    Coordinates are taken as pixel edges, x = xmin / width, as TensorFlow Datasets does and
    labelling tools write them; the 1-based inclusive ones of the original VOC are read half a
    pixel off at either side. Objects marked `difficult` are ignored. Pictures may have any
    extension.

    Args:
        name: name of the data set in reports.
        root: path of the folder.
        split: name of the list in `ImageSets/Main`.

    Returns:
        A `DetectionDataset`; image ids are line numbers of the list, from 0.

    Raises:
        ValueError: a folder or the list is missing, no class is found, no picture is left.
    """
    root = pathlib.Path(root)
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        if not (root / folder).is_dir():
            raise ValueError(f"{root}: a VOC folder must have {folder}/; received: none")
    list_path = root / "ImageSets" / "Main" / f"{split}.txt"
    if not list_path.is_file():
        found = ", ".join(sorted(path.stem for path in list_path.parent.glob("*.txt")))
        raise ValueError(f"{list_path}: the split must be one of: {found}; received: {split}")

    problems = dataset_lib.Problems()
    annotations, unreadable, class_names = {}, {}, set()
    for path in sorted((root / "Annotations").glob("*.xml")):
        try:
            annotations[path.stem] = xml.etree.ElementTree.parse(path).getroot()
        except (xml.etree.ElementTree.ParseError, UnicodeError, ValueError) as error:
            unreadable[path.stem] = error
            continue
        objects = annotations[path.stem].findall("object")
        class_names.update(_text(found, "name") for found in objects)
    class_names = sorted(class_names - {""})
    if not class_names:
        raise ValueError(f"{root / 'Annotations'}: objects must have names; received: none")
    labels_of = {class_name: label for label, class_name in enumerate(class_names)}

    files = {path.stem: path for path in sorted((root / "JPEGImages").iterdir())}
    listed = {}
    for line_number, stem in enumerate(list_path.read_text(encoding="utf-8").splitlines()):
        stem = stem.strip()
        xml_path = root / "Annotations" / f"{stem}.xml"
        if not stem:
            continue
        if stem in listed:
            problems.add(list_path, "a picture must be listed once, repetition left out", stem)
        elif stem in unreadable:
            problems.add(xml_path, "must be readable XML, picture left out", unreadable[stem])
        elif stem not in annotations:
            problems.add(xml_path, "the annotation must exist, picture left out", "no such file")
        else:
            listed[stem] = line_number

    path_of = {stem: files.get(stem, root / "JPEGImages" / f"{stem}.jpg") for stem in listed}
    sizes = dataset_lib.readable_sizes(list(path_of.values()), problems)
    records = []
    for stem, line_number in listed.items():
        path = path_of[stem]
        if path not in sizes:
            continue
        xml_path = root / "Annotations" / f"{stem}.xml"
        height, width = sizes[path]
        declared = tuple(_number(annotations[stem], f"size/{side}") for side in ("height", "width"))
        if all(value > 0 for value in declared) and declared != (height, width):
            rule = "size must be the picture's, boxes taken as pixels of the picture"
            received = f"{declared[1]:g} x {declared[0]:g} for {width} x {height}"
            problems.add(xml_path, rule, received)
        boxes, labels, ignored = [], [], []
        for found in annotations[stem].findall("object"):
            if _text(found, "name") not in labels_of:
                problems.add(xml_path, "an object must have a name, object dropped", "none")
                continue
            boxes.append(
                [_number(found, f"bndbox/{side}") for side in ("ymin", "xmin", "ymax", "xmax")]
            )
            labels.append(labels_of[_text(found, "name")])
            ignored.append(_number(found, "difficult") > 0)
        records.append(
            dataset_lib.clean_picture(
                path, line_number, sizes[path], boxes, labels, ignored, problems, source=xml_path
            )
        )
    return dataset_lib.DetectionDataset(name, split, class_names, records, problems.lines())


def _text(element, path):
    return (element.findtext(path) or "").strip()


def _number(element, path):
    try:
        return float(_text(element, path))
    except ValueError:
        return float("nan")
