import json
import pathlib

import numpy as np
import PIL.Image
import pytest

from kerasvision import data

SHARED = pathlib.Path(__file__).parents[2].parent / "shared" / "data" / "detection"


def _content():
    """Two 200 x 100 pictures, with gaps in the ids and the categories out of order."""
    return {
        "images": [
            {"id": 42, "file_name": "a.jpg", "width": 200, "height": 100},
            {"id": 7, "file_name": "b.jpg", "width": 200, "height": 100},
        ],
        "categories": [{"id": 90, "name": "owl"}, {"id": 3, "name": "cat"}],
        "annotations": [
            _annotation(1, 42, 90, [20, 10, 80, 50], area=1234.5),
            _annotation(2, 42, 3, [0, 0, 200, 100], iscrowd=1),
        ],
    }


def _annotation(annotation_id, image_id, category_id, box, **others):
    row = {"id": annotation_id, "image_id": image_id, "category_id": category_id, "bbox": box}
    return {**row, **others}


def _write(root, content, annotations="annotations/instances_train.json", pictures="train"):
    path = root / annotations
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    (root / pictures).mkdir(parents=True, exist_ok=True)
    for file_name in ("a.jpg", "b.jpg"):
        PIL.Image.new("RGB", (200, 100)).save(root / pictures / file_name)
    return f"coco:{path}"


def test_gappy_ids_crowds_and_areas(tmp_path):
    dataset = data.load(_write(tmp_path, _content()), "all")
    assert dataset.class_names == ["cat", "owl"]
    assert (dataset.num_examples, dataset.max_boxes, dataset.problems) == (2, 1, [])
    first, second = dataset.encoded_examples()
    assert (int(first["image_id"]), int(second["image_id"])) == (42, 7)
    np.testing.assert_allclose(first["boxes"], [[0.1, 0.1, 0.6, 0.5]], atol=1e-7)
    np.testing.assert_array_equal(first["labels"], [1])
    assert second["boxes"].shape == (0, 4)
    truth = dataset.ground_truth()
    assert [row["area"] for row in truth["annotations"]] == [1234.5, 20000]
    assert [row["iscrowd"] for row in truth["annotations"]] == [0, 1]
    assert [row["category_id"] for row in truth["annotations"]] == [1, 0]
    np.testing.assert_allclose(truth["annotations"][0]["bbox"], [20, 10, 80, 50], atol=1e-4)


def test_part_of_a_split(tmp_path):
    name = _write(tmp_path, _content())
    for split, expected in (("all[:1]", [42]), ("all[1:]", [7]), ("all[:]", [42, 7])):
        dataset = data.load(name, split)
        assert dataset.image_ids == expected and dataset.split == split
        assert [row["id"] for row in dataset.ground_truth()["images"]] == expected
    with pytest.raises(ValueError, match=r"split 'all\[2:\]' must hold at least one"):
        data.load(name, "all[2:]")


@pytest.mark.parametrize(
    ("annotations", "pictures"),
    [
        ("annotations/instances_train2017.json", "train2017"),
        ("annotations/instances_train2017.json", "images/train2017"),
        ("annotations/train.json", "images/train"),
        ("annotations/train.json", "annotations/images"),
        ("train.json", "images"),
        ("train/_annotations.coco.json", "train"),
        ("labels.json", ""),
    ],
)
def test_pictures_are_found_near_the_file(tmp_path, annotations, pictures):
    name = _write(tmp_path, _content(), annotations, pictures)
    assert data.load(name, "all").num_examples == 2


def test_split_in_the_path(tmp_path):
    _write(tmp_path, _content())
    content = {**_content(), "annotations": []}
    _write(tmp_path, content, "annotations/instances_val.json", "val")
    name = f"coco:{tmp_path}/annotations/instances_{{split}}.json"
    train, val = data.load(name, "train"), data.load(name, "val")
    assert [len(d.records[0].boxes) for d in (train, val)] == [2, 0]
    assert train.problems == []
    assert "train/a.jpg" in train.records[0].file_name and "val/a.jpg" in val.records[0].file_name


def test_one_file_is_split_by_its_ids(tmp_path):
    images = [{"id": i, "file_name": "a.jpg"} for i in range(200)]
    content = {**_content(), "images": images, "annotations": []}
    name = _write(tmp_path, content)
    train, val = ({r.image_id for r in data.load(name, s).records} for s in ("train", "val"))
    assert train | val == set(range(200)) and not train & val
    assert 25 <= len(val) <= 55
    # The order of the file and other pictures in it change nothing.
    name = _write(tmp_path, {**content, "images": images[:50:-1]})
    assert {r.image_id for r in data.load(name, "val").records} == {i for i in val if i > 50}
    assert "one file for all splits" in data.load(name, "val").problems[0]


@pytest.mark.parametrize(
    ("box", "expected", "rule"),
    [
        ([120, 60, -80, -40], [0.2, 0.2, 0.6, 0.6], "corners swapped"),
        ([-20, -10, 120, 60], [0, 0, 0.5, 0.5], "box clipped"),
        ([20, 10, 0, 50], None, "width and height must be above 0"),
        ([300, 10, 20, 50], None, "must overlap its picture"),
        ([float("nan"), 10, 20, 50], None, "must be finite"),
        ([None, 10, 20, 50], None, "must be finite"),
        (["x", 10, 20, 50], None, "must be finite"),
        ([10, 20, 50], None, "bbox must be"),
        (None, None, "bbox must be"),
    ],
)
def test_bad_boxes_are_repaired_or_dropped_and_reported(tmp_path, box, expected, rule):
    content = _content()
    content["annotations"] = [_annotation(5, 42, 3, box), _annotation(6, 42, 3, [20, 10, 80, 50])]
    dataset = data.load(_write(tmp_path, content), "all")
    good = [[0.1, 0.1, 0.6, 0.5]]
    np.testing.assert_allclose(
        dataset.records[0].boxes, good if expected is None else [expected, *good], atol=1e-6
    )
    (line,) = dataset.problems
    assert "instances_train.json: " in line and rule in line and "image id 42" in line


def test_bad_rows_are_left_out_and_reported(tmp_path):
    content = _content()
    content["images"] += [
        {"id": 42, "file_name": "b.jpg"},
        {"id": 8, "file_name": "gone.jpg"},
    ]
    content["annotations"] += [
        content["annotations"][0],
        _annotation(2, 7, 3, [20, 10, 80, 50]),
        _annotation(3, 1000, 3, [20, 10, 80, 50]),
        _annotation(4, 7, 4, [20, 10, 80, 50]),
    ]
    content["categories"].append({"id": 3, "name": "cow"})
    dataset = data.load(_write(tmp_path, content), "all")
    assert dataset.class_names == ["cat", "owl"]
    assert [len(record.boxes) for record in dataset.records] == [2, 1]
    for rule in (
        "image ids must be unique, repetition left out; received: id 42 of b.jpg",
        "category ids must be unique",
        "annotation ids must be unique, identical ones dropped; received: annotation id 1,",
        "annotation ids must be unique, identical ones dropped; received: annotation id 2,",
        "annotations must be of an image in the file, annotation dropped; received: annotation "
        "id 3, image id 1000",
        "categories must be in the file, annotation dropped; received: category id 4",
        "gone.jpg: the picture must exist",
    ):
        assert len([line for line in dataset.problems if rule in line]) == 1, rule
    assert len(dataset.problems) == 7
    ids = [row["id"] for row in dataset.ground_truth()["annotations"]]
    assert ids == [1, 2, 3]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{broken", "must be JSON"),
        ("[]", "must have a list 'images'"),
        ({**_content(), "annotations": {}}, "must have a list 'annotations'"),
        ({**_content(), "images": [{"id": 1}]}, r"images\[0\] must have file_name"),
        ({**_content(), "images": [{"id": "1", "file_name": "a.jpg"}]}, "an integer id"),
        ({**_content(), "annotations": [{"id": 1}]}, "must have bbox, category_id, image_id"),
        ({**_content(), "categories": []}, "categories must not be empty"),
        ({**_content(), "images": []}, "the pictures must lie in"),
        ({**_content(), "images": [{"id": 1, "file_name": "c.jpg"}]}, "no file c.jpg"),
    ],
)
def test_unusable_files_are_errors(tmp_path, content, message):
    name = _write(tmp_path, content)
    with pytest.raises(ValueError, match=f"instances_train.json: .*{message}"):
        data.load(name, "all")


def test_missing_file_and_unknown_split(tmp_path):
    with pytest.raises(ValueError, match="gone.json: must be a readable file"):
        data.load(f"coco:{tmp_path}/gone.json")
    with pytest.raises(ValueError, match="must be train, val or all .* received: test"):
        data.load(f"coco:{tmp_path}/gone.json", "test")


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared test data")
def test_coco_mini():
    path = SHARED / "coco_mini" / "annotations" / "instances_train2017.json"
    dataset = data.load(f"coco:{path}", "all")
    assert (dataset.num_examples, len(dataset.class_names)) == (100, 80)
    assert dataset.class_names[0] == "person" and dataset.class_names[79] == "toothbrush"
    content = json.loads(path.read_text())
    names = {row["id"]: row["name"] for row in content["categories"]}
    truth = dataset.ground_truth()
    assert len(truth["annotations"]) == len(content["annotations"])
    expected = sorted(
        (row["image_id"], names[row["category_id"]], *np.round(row["bbox"], 1))
        for row in content["annotations"]
    )
    received = sorted(
        (row["image_id"], dataset.class_names[row["category_id"]], *np.round(row["bbox"], 1))
        for row in truth["annotations"]
    )
    assert [row[:2] for row in received] == [row[:2] for row in expected]
    np.testing.assert_allclose(
        [row[2:] for row in received], [row[2:] for row in expected], atol=0.11
    )
