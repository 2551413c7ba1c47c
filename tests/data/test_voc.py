import pathlib

import numpy as np
import PIL.Image
import pytest

from kerasvision import data

SHARED = pathlib.Path(__file__).parents[2].parent / "shared" / "data" / "detection"


def _object(name, corners, difficult=None):
    x_min, y_min, x_max, y_max = corners
    flag = "" if difficult is None else f"<difficult>{difficult}</difficult>"
    return (
        f"<object><name>{name}</name>{flag}<bndbox><xmin>{x_min}</xmin><ymin>{y_min}</ymin>"
        f"<xmax>{x_max}</xmax><ymax>{y_max}</ymax></bndbox></object>"
    )


def _annotation(*objects, width=200, height=100):
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation>{size}{''.join(objects)}</annotation>"


@pytest.fixture
def folder(tmp_path):
    """Returns a function that writes a VOC folder of 200 x 100 pictures and returns its name."""

    def write(annotations, splits=None):
        for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (tmp_path / name).mkdir(parents=True)
        for stem, text in annotations.items():
            (tmp_path / "Annotations" / f"{stem}.xml").write_text(text)
            PIL.Image.new("RGB", (200, 100)).save(tmp_path / "JPEGImages" / f"{stem}.jpg")
        for split, stems in (splits or {"train": list(annotations)}).items():
            list_path = tmp_path / "ImageSets" / "Main" / f"{split}.txt"
            list_path.write_text("".join(f"{stem}\n" for stem in stems))
        return f"voc:{tmp_path}"

    return write


def test_boxes_labels_and_difficult(folder):
    name = folder(
        {
            "a": _annotation(
                _object("dog", (20, 10, 100, 60)), _object("cat", (0, 0, 200, 100), difficult=1)
            ),
            "b": _annotation(),
            "c": _annotation(_object("ant", (50, 25, 150, 75), difficult=0)),
        },
        splits={"train": ["b", "a"], "val": ["c"]},
    )
    train, val = data.load(name, "train"), data.load(name, "val")
    # The same names in both splits, though "ant" is in one only.
    assert train.class_names == val.class_names == ["ant", "cat", "dog"]
    assert (train.num_examples, train.max_boxes, train.problems) == (2, 1, [])

    first, second = train.encoded_examples()
    assert (int(first["image_id"]), int(second["image_id"])) == (0, 1)
    assert first["boxes"].shape == (0, 4)
    np.testing.assert_allclose(second["boxes"], [[0.1, 0.1, 0.6, 0.5]], atol=1e-7)
    np.testing.assert_array_equal(second["labels"], [2])

    truth = train.ground_truth()
    assert [(row["width"], row["height"]) for row in truth["images"]] == [(200, 100)] * 2
    assert [row["iscrowd"] for row in truth["annotations"]] == [0, 1]
    assert [row["category_id"] for row in truth["annotations"]] == [2, 1]
    np.testing.assert_allclose(truth["annotations"][0]["bbox"], [20, 10, 80, 50], atol=1e-4)
    assert truth["annotations"][0]["area"] == 4000
    assert truth["categories"][2] == {"id": 2, "name": "dog"}


@pytest.mark.parametrize(
    ("corners", "expected", "rule"),
    [
        ((120, 60, 40, 20), [0.2, 0.2, 0.6, 0.6], "corners swapped"),
        ((-20, -10, 100, 50), [0, 0, 0.5, 0.5], "box clipped"),
        ((150, 50, 320, 170), [0.5, 0.75, 1, 1], "box clipped"),
        ((0, 0, 201, 100), [0, 0, 1, 1], None),
        ((40, 20, 40, 60), None, "width and height must be above 0"),
        ((40, 20, 80, 20), None, "width and height must be above 0"),
        ((200, 20, 230, 60), None, "must overlap its picture"),
        (("nan", 20, 80, 60), None, "must be finite"),
        (("inf", 20, 80, 60), None, "must be finite"),
        (("left", 20, 80, 60), None, "must be finite"),
    ],
)
def test_bad_boxes_are_repaired_or_dropped_and_reported(folder, corners, expected, rule):
    name = folder({"a": _annotation(_object("x", corners), _object("x", (20, 10, 100, 60)))})
    dataset = data.load(name)
    (example,) = dataset.encoded_examples()
    good = [[0.1, 0.1, 0.6, 0.5]]
    np.testing.assert_allclose(
        example["boxes"], good if expected is None else [expected, *good], atol=1e-6
    )
    if rule is None:
        assert dataset.problems == []
    else:
        (line,) = dataset.problems
        assert "a.xml: " in line and rule in line and "received: " in line and "\n" not in line


def test_broken_files_are_left_out_and_reported(folder, tmp_path):
    stems = ["good", "empty", "cut", "text", "tiff", "gone", "bad_xml", "no_xml", "png"]
    name = folder(
        {stem: _annotation(_object("x", (20, 10, 100, 60))) for stem in stems},
        splits={"train": [*stems, "good"]},
    )
    pictures = tmp_path / "JPEGImages"
    noise = np.random.default_rng(0).integers(0, 255, (100, 200, 3), np.uint8)
    PIL.Image.fromarray(noise).save(pictures / "cut.jpg")
    whole = (pictures / "cut.jpg").read_bytes()
    (pictures / "cut.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    (pictures / "empty.jpg").write_bytes(b"")
    (pictures / "text.jpg").write_text("no picture")
    PIL.Image.new("RGB", (200, 100)).save(pictures / "tiff.jpg", "TIFF")
    (pictures / "gone.jpg").unlink()
    (pictures / "png.jpg").unlink()
    PIL.Image.new("RGB", (200, 100)).save(pictures / "png.png")
    (tmp_path / "Annotations" / "bad_xml.xml").write_text("<annotation><object>")
    (tmp_path / "Annotations" / "no_xml.xml").unlink()

    dataset = data.load(name)
    assert [pathlib.Path(r.file_name).name for r in dataset.records] == ["good.jpg", "png.png"]
    rules = {
        "cut.jpg": "must be a whole",
        "empty.jpg": "must not be empty",
        "text.jpg": "must be a whole",
        "tiff.jpg": "must be a whole",
        "gone.jpg": "must exist",
        "bad_xml.xml": "must be readable XML",
        "no_xml.xml": "the annotation must exist",
        "train.txt": "must be listed once",
    }
    assert len(dataset.problems) == len(rules)
    for file_name, rule in rules.items():
        (line,) = [line for line in dataset.problems if f"{file_name}: " in line]
        assert rule in line


def test_many_problems_are_few_lines_with_the_whole_count(folder):
    name = folder(
        {f"p{i:02d}": _annotation(_object("x", (5, 5, 5, 9)), _object("x", (7, 7, 9, 7)),
                                  _object("x", (1, 1, 9, 9))) for i in range(12)}
    )  # fmt: skip
    lines = data.load(name).problems
    assert len(lines) == 5
    assert "p00.xml" in lines[0] and "(and 1 more in it)" in lines[0]
    assert "24 in all" in lines[-1]


def test_size_in_the_annotation_is_not_believed(folder):
    name = folder({"a": _annotation(_object("x", (20, 10, 100, 60)), width=400, height=100)})
    dataset = data.load(name)
    np.testing.assert_allclose(dataset.records[0].boxes, [[0.1, 0.1, 0.6, 0.5]], atol=1e-7)
    assert dataset.ground_truth()["images"][0]["width"] == 200
    assert "400 x 100 for 200 x 100" in dataset.problems[0]


def test_split_without_boxes_is_reported(folder):
    name = folder(
        {"a": _annotation(), "b": _annotation(_object("x", (1, 1, 9, 9)))},
        splits={"train": ["a"], "val": ["b"]},
    )
    dataset = data.load(name, "train")
    assert dataset.max_boxes == 1
    assert "should have boxes" in dataset.problems[0]


def test_fatal_errors(folder, tmp_path):
    with pytest.raises(ValueError, match="must have JPEGImages/"):
        data.load(f"voc:{tmp_path / 'nowhere'}")
    annotations = {"a": _annotation(_object("x", (1, 1, 9, 9)))}
    name = folder(annotations, splits={"train": ["a"], "val": ["gone"], "empty": []})
    with pytest.raises(ValueError, match="test.txt: the split must be one of: empty, train, val"):
        data.load(name, "test")
    with pytest.raises(ValueError, match="must hold at least one readable picture; received: 0"):
        data.load(name, "empty")
    with pytest.raises(ValueError, match="gone.xml: the annotation must exist"):
        data.load(name, "val")


def test_set_without_objects_is_an_error(folder):
    with pytest.raises(ValueError, match="objects must have names"):
        data.load(folder({"a": _annotation()}))


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared test data")
def test_blood_cells():
    train, val = (data.load(f"voc:{SHARED / 'bccd'}", split) for split in ("train", "val"))
    assert (train.num_examples, val.num_examples) == (205, 87)
    assert train.class_names == val.class_names == ["Platelets", "RBC", "WBC"]
    assert [len(train.problems), len(val.problems)] == [1, 1]
    assert "BloodImage_00343.xml: width and height must be above 0" in train.problems[0]
