import pathlib

import numpy as np
import PIL.Image
import pytest

from kerasvision import data

BOX = "1 0.3 0.35 0.4 0.5"
BOX_YXYX = [0.1, 0.1, 0.6, 0.5]


def _picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (200, 100)).save(path)


def _text(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def root(tmp_path):
    """A folder with three train pictures (one without labels) and one val picture."""
    for name in ("train/a", "train/b", "train/c", "val/d"):
        _picture(tmp_path / "images" / f"{name}.jpg")
    _text(tmp_path / "labels/train/a.txt", f"{BOX}\n\n0 0.5 0.5 1 1\n")
    _text(tmp_path / "labels/train/b.txt", "")
    _text(tmp_path / "labels/val/d.txt", BOX)
    return tmp_path


def _check_train(dataset):
    assert dataset.class_names == ["cat", "owl"]
    assert (dataset.num_examples, dataset.max_boxes) == (3, 2)
    first, second, third = dataset.encoded_examples()
    np.testing.assert_allclose(first["boxes"], [BOX_YXYX, [0, 0, 1, 1]], atol=1e-6)
    np.testing.assert_array_equal(first["labels"], [1, 0])
    assert len(second["labels"]) == len(third["labels"]) == 0
    assert [int(e["image_id"]) for e in (first, second, third)] == [0, 1, 2]


@pytest.mark.parametrize(
    "text",
    [
        "train: images/train\nval: images/val\nnames: [cat, owl]\n",
        "train: images/train\nval: images/val\nnc: 2\nnames: {0: cat, 1: owl}\n",
        "path: .\ntrain: [images/train]\nval: images/val\nnames:\n  0: cat\n  1: owl\n",
        "train: ../images/train\nval: ../images/val\nnames: [cat, owl]\n",
        "train: list.txt\nval: images/val\nnames: [cat, owl]\n",
    ],
)
@pytest.mark.parametrize("direct", [False, True])
def test_yaml_forms(root, text, direct):
    _text(root / "data.yaml", text)
    _text(root / "list.txt", "images/train/a.jpg\n./images/train/b.jpg\nimages/train/c.jpg\n")
    name = f"yolo:{root / 'data.yaml'}" if direct else f"yolo:{root}"
    train = data.load(name, "train")
    _check_train(train)
    (line,) = train.problems
    assert "without a label file are taken as empty; received: 1 of 3" in line
    assert data.load(name, "val").problems == []


def test_path_key_points_to_another_folder(root, tmp_path_factory):
    path = tmp_path_factory.mktemp("elsewhere") / "my.yaml"
    _text(path, f"path: {root}\ntrain: images/train\nnames: [cat, owl]\n")
    _check_train(data.load(f"yolo:{path}"))


def test_folder_with_class_list(root):
    _text(root / "classes.txt", "cat\nowl\n")
    _check_train(data.load(f"yolo:{root}"))


def test_roboflow_and_darknet_layouts(tmp_path):
    _picture(tmp_path / "train" / "images" / "a.jpg")
    _text(tmp_path / "train" / "labels" / "a.txt", BOX)
    _picture(tmp_path / "valid" / "images" / "a.png")
    _text(tmp_path / "valid" / "labels" / "a.txt", BOX)
    _picture(tmp_path / "test" / "b.jpg")
    _text(tmp_path / "test" / "b.txt", BOX)
    _text(
        tmp_path / "data.yaml",
        "train: ../train/images\nvalid: ../valid/images\ntest: test\nnames: [cat, owl]\n",
    )
    for split in ("train", "val", "test"):
        dataset = data.load(f"yolo:{tmp_path}", split)
        np.testing.assert_allclose(dataset.records[0].boxes, [BOX_YXYX], atol=1e-6)
        assert dataset.problems == []
    (tmp_path / "data.yaml").unlink()
    _text(tmp_path / "classes.txt", "cat\nowl\n")
    for split in ("train", "val", "test"):
        assert data.load(f"yolo:{tmp_path}", split).num_examples == 1


@pytest.mark.parametrize(
    ("line", "expected", "rule"),
    [
        ("1 0.1 0.1 0.5 0.1 0.5 0.6 0.3 0.4", BOX_YXYX, None),
        ("1.0 0.3 0.35 0.4 0.5", BOX_YXYX, None),
        ("0 0.3 0.35 -0.4 -0.5", BOX_YXYX, "corners swapped"),
        ("0 0 0 0.4 0.4", [0, 0, 0.2, 0.2], "box clipped"),
        ("0 0.3 0.35 0 0.5", None, "width and height must be above 0"),
        ("0 1.5 0.5 0.1 0.1", None, "must overlap its picture"),
        ("0 nan 0.5 0.1 0.1", None, "must be finite"),
        ("2 0.5 0.5 0.1 0.1", None, "the class must be in 0..1"),
        ("-1 0.5 0.5 0.1 0.1", None, "the class must be in 0..1"),
        ("0.5 0.5 0.5 0.1 0.1", None, "the class must be in 0..1"),
        ("cat 0.5 0.5 0.1 0.1", None, "a line must hold numbers"),
        ("0 0.5 0.5 0.1", None, "a line must be class cx cy width height"),
        ("0 0.5 0.5 0.1 0.1 0.9", None, "a line must be class cx cy width height"),
    ],
)
def test_lines(root, line, expected, rule):
    _text(root / "classes.txt", "cat\nowl\n")
    _text(root / "labels/val/d.txt", f"{line}\n{BOX}\n")
    dataset = data.load(f"yolo:{root}", "val")
    np.testing.assert_allclose(
        dataset.records[0].boxes, [BOX_YXYX] if expected is None else [expected, BOX_YXYX],
        atol=1e-6,
    )  # fmt: skip
    if rule is None:
        assert dataset.problems == []
    else:
        (problem,) = dataset.problems
        assert f"{pathlib.Path('val', 'd.txt')}: " in problem and rule in problem


def test_broken_and_repeated_pictures_are_reported(root):
    _text(root / "data.yaml", "train: list.txt\nnames: [cat, owl]\n")
    _text(root / "list.txt", "images/train/a.jpg\nimages/train/a.jpg\nimages/train/gone.jpg\n")
    dataset = data.load(f"yolo:{root}")
    assert dataset.num_examples == 1
    assert "a picture must be listed once" in dataset.problems[0]
    assert "gone.jpg: the picture must exist" in dataset.problems[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [", "must be YAML"),
        ("- a", "must be a dictionary"),
        ("train: images/train", "names must be a list"),
        ("train: images/train\nnames: {1: a, 2: b}", "names must be a list"),
        ("train: images/train\nnames: [a]\nnc: 2", "nc must be 1, as names; received: 2"),
        ("val: images/val\nnames: [a]", "must have the split 'train'; received: val, names"),
        ("train: images/no\nnames: [a]", "folders and lists must exist; received: images/no"),
        ("train: data.yaml\nnames: [a]", "must name folders or .txt lists"),
        ("train: labels\nnames: [a]", "must hold at least one readable picture"),
    ],
)
def test_unusable_yaml_is_an_error(root, text, message):
    _text(root / "data.yaml", text)
    with pytest.raises(ValueError, match=message):
        data.load(f"yolo:{root}")


def test_missing_folder_classes_and_split(root):
    with pytest.raises(ValueError, match="must be a folder or a data.yaml"):
        data.load(f"yolo:{root / 'gone'}")
    with pytest.raises(ValueError, match="must have a data.yaml or classes.txt"):
        data.load(f"yolo:{root}")
    _text(root / "classes.txt", "cat\nowl\n")
    with pytest.raises(ValueError, match="must have images/test or test/images"):
        data.load(f"yolo:{root}", "test")
