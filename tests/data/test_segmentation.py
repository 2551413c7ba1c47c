"""Tests of segmentation data: label files, class lists, weights, TensorFlow Datasets, batches."""

import io
import itertools
import shutil

import cv2
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from kerasvision import data
from kerasvision.data.class_list import palette
from kerasvision.data.scenes import CLASS_NAMES, Scenes, ScenesConfig, draw_scene

TWO = "0 membrane / 255 cell"
LABELS = np.array([[0, 255, 255], [255, 0, 255]], np.uint8)


def _save(path, values, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = values if isinstance(values, PIL.Image.Image) else PIL.Image.fromarray(values)
    image.save(path, **options)


def _pair(folder, stem, labels=LABELS, size=(2, 3), value=100, suffix=".png"):
    """Writes a grey picture and its labels."""
    _save(folder / "images" / f"{stem}{suffix}", np.full((*size, 3), value, np.uint8))
    _save(folder / "labels" / f"{stem}.png", labels)


def _load(root, split="all", class_list=TWO, **options):
    return data.load_segmentation(f"folder:{root}", split, class_list=class_list, **options)


def _names(dataset):
    return [name.rpartition("/")[2] for name in dataset.file_names]


def test_pairs_are_read(tmp_path):
    _pair(tmp_path / "train", "b", value=20)
    _pair(tmp_path / "train", "a", value=10, labels=LABELS[::-1].copy())
    _pair(tmp_path / "valid", "c")
    train = _load(tmp_path, "train")
    assert train.name == f"folder:{tmp_path}" and train.problems == []
    assert train.class_names == ["membrane", "cell"] and train.colors.shape == (2, 3)
    assert _names(train) == ["a.png", "b.png"] and train.image_ids == [0, 1]
    image, labels = train.example(1)
    assert image.dtype == np.uint8 and labels.dtype == np.int32
    np.testing.assert_array_equal(image, np.full((2, 3, 3), 20))
    np.testing.assert_array_equal(labels, [[0, 1, 1], [1, 0, 1]])
    for (file_name, image, labels), index in zip(train.examples(), range(2), strict=True):
        assert file_name == train.file_names[index]
        np.testing.assert_array_equal(image, train.example(index)[0])
        np.testing.assert_array_equal(labels, train.example(index)[1])
    for split in ("val", "valid"):
        assert _names(_load(tmp_path, split)) == ["c.png"]
    with pytest.raises(ValueError, match="must have test/images, or images; .* splits train, val"):
        _load(tmp_path, "test")


def test_a_folder_without_splits_is_divided_by_names(tmp_path):
    for i in range(10):
        _pair(tmp_path / "here", f"{i:02}")
    whole, train, val = (_load(tmp_path / "here", split) for split in ("all", "train", "val"))
    assert len(train.file_names) == 8 and len(val.file_names) == 2
    assert sorted(train.file_names + val.file_names) == whole.file_names
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    assert _names(_load(tmp_path / "there", "val")) == _names(val)
    with pytest.raises(ValueError, match="has all, train and val; received: split test$"):
        _load(tmp_path / "here", "test")


def test_parts(tmp_path):
    for i in range(6):
        _pair(tmp_path, str(i))
    assert _names(_load(tmp_path, "all[:2]")) == ["0.png", "1.png"]
    part = _load(tmp_path, "all[4:]")
    assert _names(part) == ["4.png", "5.png"] and part.split == "all[4:]"
    assert part.image_ids == [4, 5]
    with pytest.raises(ValueError, match=r"split 'all\[6:\]' must hold .* picture; received: 0"):
        _load(tmp_path, "all[6:]")


def test_every_kind_of_label_file(tmp_path):
    index = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    palette = PIL.Image.fromarray(index, "P")
    palette.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0])
    table = np.array([[0, 0, 0], [200, 10, 0], [7, 7, 7]], np.uint8)
    files = {
        "grey": index,
        "palette": palette,
        "deep": index.astype(np.uint16) * 300,
        "grey_rgb": np.stack([index] * 3, -1),
        "color": table[index],
        "transparent": np.dstack([table[index], np.full((2, 3), 255, np.uint8)]),
        "all_grey_colors": table[np.full((2, 3), 2)],
    }
    for stem, labels in files.items():
        _pair(tmp_path, stem, labels)
    class_list = "0 a 0 0 0 / 1 b 200 10 0 / 2 void 7 7 7 / 300 b / 600 void"
    dataset = _load(tmp_path, class_list=class_list)
    assert dataset.problems == [] and dataset.class_names == ["a", "b"]
    np.testing.assert_array_equal(dataset.colors, table[:2])
    found = {name: labels for name, (_, _, labels) in zip(_names(dataset), dataset.examples())}
    expected = np.array([[0, 1, -1], [-1, 1, 0]])
    for stem in files:
        # Of a whole picture in one grey the class list has the colour, but not the value.
        golden = np.full((2, 3), -1) if stem == "all_grey_colors" else expected
        np.testing.assert_array_equal(found[f"{stem}.png"], golden, stem)


def test_one_bit_labels_are_0_and_255(tmp_path):
    _pair(tmp_path, "a", PIL.Image.fromarray(LABELS).convert("1"))
    np.testing.assert_array_equal(_load(tmp_path).example(0)[1], [[0, 1, 1], [1, 0, 1]])


def test_camvid(tmp_path):
    labels = np.arange(12, dtype=np.uint8).reshape(2, 6)
    _pair(tmp_path / "val", "x", labels, size=(2, 6), suffix=".jpg")
    _pair(tmp_path / "val", "y", np.full((2, 6, 3), [192, 128, 128], np.uint8), size=(2, 6))
    dataset = data.load_segmentation(f"camvid:{tmp_path}", "val")
    assert dataset.class_names == [
        "sky", "building", "pole", "road", "pavement", "tree", "sign symbol", "fence", "car",
        "pedestrian", "bicyclist",
    ]  # fmt: skip
    np.testing.assert_array_equal(
        dataset.colors[[0, 4, 10]], [[128] * 3, [60, 40, 222], [0, 128, 192]]
    )
    np.testing.assert_array_equal(dataset.example(0)[1], np.append(np.arange(11), -1).reshape(2, 6))
    np.testing.assert_array_equal(dataset.example(1)[1], np.full((2, 6), 6))
    assert data.load_segmentation(f"camvid:{tmp_path}", "val[1:]").num_examples == 1


def test_classes_txt(tmp_path):
    _pair(tmp_path, "a", np.array([[0, 4, 9]], np.uint8), size=(1, 3))
    text = "\ufeff# of the lake\n\n9 open water 0 0 250\r\n0 void\n4 shore 1 2 3\n"
    (tmp_path / "classes.txt").write_text(text, encoding="utf-8")
    for class_list in (None, tmp_path / "classes.txt", str(tmp_path / "classes.txt"), text[1:]):
        dataset = _load(tmp_path, class_list=class_list)
        assert dataset.class_names == ["open water", "shore"]
        np.testing.assert_array_equal(dataset.colors, [[0, 0, 250], [1, 2, 3]])
        np.testing.assert_array_equal(dataset.example(0)[1], [[-1, 1, 0]])


@pytest.mark.parametrize(
    ("class_list", "message"),
    [
        ("0 a / b 1", "the class list, line 2: must be 'value name' or .*; received: b 1$"),
        ("0 a / 1", "line 2: must be 'value name' or .*; received: 1$"),
        ("0 a / 65536 b", "the value 0 to 65535, .*; received: 65536 b$"),
        ("0 a / 1 b 0 0 256", "colours 0 to 255; received: 1 b 0 0 256$"),
        ("0 a / 0 b", "line 2: a value must have one line; received: 0 again$"),
        ("0 a 1 2 3 / 1 b 1 2 3", r"a colour must have one line; received: \(1, 2, 3\) again$"),
        ("0 a 1 2 3 / 1 b", "the class list: all classes must have a colour.*: none of b$"),
        ("0 a / 1 void", "the class list: must name 2 to 254 classes .*; received: 1$"),
        ("nowhere.txt", "nowhere.txt: must be a text file of classes, .*; received: No such file"),
    ],
)
def test_bad_class_lists(class_list, message, tmp_path):
    _pair(tmp_path, "a")
    with pytest.raises(ValueError, match=message):
        _load(tmp_path, class_list=class_list)


def test_binary_class_list_and_none(tmp_path):
    _pair(tmp_path, "a")
    with pytest.raises(ValueError, match="must have a classes.txt .*, or a class list .*: neither"):
        _load(tmp_path, class_list=None)
    (tmp_path / "classes.txt").write_bytes(b"\xff\xfe\x00\x80\x81")
    with pytest.raises(ValueError, match="classes.txt: must be a text file .*; received: no text$"):
        _load(tmp_path, class_list=None)


def test_incomplete_pairs_and_other_files_are_reported(tmp_path):
    _pair(tmp_path, "a")
    _save(tmp_path / "images/b.png", LABELS)
    _save(tmp_path / "images/a.jpg", LABELS)
    _save(tmp_path / "labels/c.png", LABELS)
    (tmp_path / "images/.hidden.png").touch()
    (tmp_path / "images/Thumbs.db").touch()
    (tmp_path / "labels/notes.txt").touch()
    dataset = _load(tmp_path)
    images, labels = tmp_path / "images", tmp_path / "labels"
    # The JPEG comes first.
    assert _names(dataset) == ["a.jpg"]
    assert dataset.problems == [
        f"{images}: should hold pictures only, left out; received: Thumbs.db",
        f"{images}: names must differ in more than their suffix, left out; received: a.png beside "
        "a.jpg",
        f"{labels}: should hold PNG files only, left out; received: notes.txt",
        f"{images}/b.png: a picture must have a label file of the same name, left out; received: "
        f"no {labels}/b.png",
        f"{labels}/c.png: a label file must have a picture of the same name, left out; received: "
        f"none in {images}",
    ]


def test_broken_files_are_left_out_and_reported(tmp_path):
    noise = np.random.default_rng(0).integers(0, 2, (64, 80), np.uint8) * 255
    for stem in ("cut_labels", "cut_picture", "empty_labels", "good", "no_labels", "text_labels"):
        _pair(tmp_path, stem, noise, (64, 80))
    for path in (tmp_path / "labels/cut_labels.png", tmp_path / "images/cut_picture.png"):
        path.write_bytes(path.read_bytes()[:100])
    (tmp_path / "labels/empty_labels.png").write_bytes(b"")
    (tmp_path / "labels/text_labels.png").write_text("this is no picture")
    (tmp_path / "labels/no_labels.png").unlink()
    (tmp_path / "labels/no_labels.png").symlink_to(tmp_path / "nowhere")
    dataset = _load(tmp_path)
    assert _names(dataset) == ["good.png"] and dataset.image_ids == [3]
    assert [line.partition(": ")[0].rpartition("/")[2] for line in dataset.problems] == [
        "cut_picture.png", "cut_labels.png", "empty_labels.png", "no_labels.png", "text_labels.png",
    ]  # fmt: skip
    assert all("left out" in line for line in dataset.problems)
    assert "labels/cut_labels.png: must be a whole PNG file, left out" in dataset.problems[1]


def test_labels_cut_anywhere_are_found(tmp_path):
    noise = np.random.default_rng(0).integers(0, 2, (64, 80), np.uint8) * 255
    _pair(tmp_path, "whole", noise, (64, 80))
    content = (tmp_path / "labels/whole.png").read_bytes()
    cuts = np.linspace(0, 0.9 * len(content), 12, dtype=int)
    for cut in cuts:
        _pair(tmp_path, f"cut{cut}", noise, (64, 80))
        (tmp_path / f"labels/cut{cut}.png").write_bytes(content[:cut])
    assert _names(_load(tmp_path)) == ["whole.png"]


def test_errors_name_the_files(tmp_path):
    with pytest.raises(ValueError, match=f"{tmp_path}/no: must be a folder .*: no such folder$"):
        _load(tmp_path / "no")
    with pytest.raises(ValueError, match=f"{tmp_path}: must have all/images, .*received: neither$"):
        _load(tmp_path)
    _save(tmp_path / "images/a.png", LABELS)
    with pytest.raises(ValueError, match="labels: must be a folder of PNG files; .*: no such fol"):
        _load(tmp_path)
    _save(tmp_path / "labels/b.png", LABELS)
    message = f"{tmp_path}: must have pictures in .*; received: 1 pictures, 1 PNG files, no pair$"
    with pytest.raises(ValueError, match=message):
        _load(tmp_path)
    shutil.rmtree(tmp_path / "labels")

    path = tmp_path / "labels/a.png"
    _save(path, np.zeros((3, 4), np.uint8))
    message = f"{path}: labels must be as large as their picture {tmp_path}/images/a.png, "
    with pytest.raises(ValueError, match=message + "3 x 2 pixels; received: 4 x 3$"):
        _load(tmp_path)
    _save(path, np.array([[0, 7, 7], [255, 9, 7]], np.uint8))
    message = f"{path}: labels must be those of the class list, 0, 255; received: "
    with pytest.raises(ValueError, match=message + "7 in 3 pixels, 9 in 1 pixels$"):
        _load(tmp_path)
    _save(path, np.full((2, 3, 3), 7, np.uint8))
    with pytest.raises(ValueError, match=message + "7 in 6 pixels$"):
        _load(tmp_path)
    _save(path, np.full((2, 3, 3), [1, 2, 3], np.uint8))
    with pytest.raises(ValueError, match=f"{path}: labels in colour must have colours in the cla"):
        _load(tmp_path)
    message = r"the class list, \(0 0 0\), \(255 0 1\); received: \(1 2 3\) in 6 pixels$"
    with pytest.raises(ValueError, match=message):
        _load(tmp_path, class_list="0 a 0 0 0 / 1 b 255 0 1")


@pytest.mark.parametrize("name", ["lake", "folder:", "camvid", "voc:here"])
def test_unknown_names(name):
    with pytest.raises(ValueError, match=f"dataset must be scenes, .*; received: {name}$"):
        data.load_segmentation(name)


def test_scenes_have_their_own_classes():
    with pytest.raises(ValueError, match="^scenes: have classes of their own; received: class li"):
        data.load_segmentation("scenes", class_list=TWO)


def test_pictures_of_cameras_are_put_upright(tmp_path):
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:, :16] = 200
    exif = PIL.Image.Exif()
    exif[274] = 6
    _save(tmp_path / "images/upright.jpg", stored, exif=exif, quality=95)
    _save(tmp_path / "images/stored.jpg", stored, exif=exif, quality=95)
    labels = (stored[..., 0] // 200).astype(np.uint8)
    _save(tmp_path / "labels/stored.png", labels)
    _save(tmp_path / "labels/upright.png", np.rot90(labels, 3).copy())
    _pair(tmp_path, "zero", np.zeros((32, 16), np.uint8), (32, 16))
    dataset = _load(tmp_path, class_list="0 a / 1 b")
    for index in range(2):
        image, labels = dataset.example(index)
        assert image.shape == (32, 16, 3)
        # Turned by 90 degrees clockwise, the left half is the upper one.
        np.testing.assert_array_equal(labels, np.repeat([1, 0], 16)[:, None].repeat(16, 1))
        np.testing.assert_allclose(image[..., 0], 200 * labels, atol=3)
    (batch,) = data.segmentation_batches(dataset, (32, 16, 3), 3)
    np.testing.assert_array_equal(batch["images"][0], dataset.example(0)[0])
    np.testing.assert_array_equal(batch["images"][2], np.full((32, 16, 3), 100))


def test_median_frequency_golden(tmp_path):
    # 0 has 3 of 4 and 1 of 4 pixels, 1 has 1 of 4, 2 has 2 of 4; void counts nowhere.
    _pair(tmp_path, "a", np.array([[0, 0, 0, 1, 9, 9]], np.uint8), size=(1, 6))
    _pair(tmp_path, "b", np.array([[0, 2, 2, 3, 9, 9]], np.uint8), size=(1, 6))
    _pair(tmp_path, "c", np.array([[9, 9, 9, 9, 9, 9]], np.uint8), size=(1, 6))
    dataset = _load(tmp_path, class_list="0 a / 1 b / 2 c / 3 d / 4 e / 9 void")
    np.testing.assert_allclose(dataset.class_frequencies(), [4 / 8, 1 / 4, 2 / 4, 1 / 4, 0])
    weights = dataset.median_frequency_weights()
    assert weights.dtype == np.float32
    # The median of 1/4, 1/4, 1/2 and 1/2 is 3/8.
    np.testing.assert_allclose(weights, [0.75, 1.5, 0.75, 1.5, 0])
    assert dataset.problems == [
        f"folder:{tmp_path}: split 'all' should have pixels of all 5 classes; received: none of e"
    ]


def _slow_border_weights(labels, cell, w0, sigma):
    """Equation 2, pixel by pixel, with a flood fill for the cells."""
    height, width = labels.shape
    component = np.zeros(labels.shape, int)
    for start in zip(*np.nonzero(labels == cell)):
        if component[start] == 0:
            stack, number = [start], component.max() + 1
            while stack:
                y, x = stack.pop()
                inside = 0 <= y < height and 0 <= x < width
                if inside and labels[y, x] == cell and component[y, x] == 0:
                    component[y, x] = number
                    stack += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
    known = labels[labels >= 0]
    classes = set(known.tolist())
    weights = np.zeros(labels.shape)
    for y, x in itertools.product(range(height), range(width)):
        if labels[y, x] < 0:
            continue
        weights[y, x] = len(known) / (len(classes) * np.sum(known == labels[y, x]))
        if labels[y, x] != cell and component.max() > 1:
            distances = sorted(
                min(np.hypot(y - cy, x - cx) for cy, cx in zip(*np.nonzero(component == number)))
                for number in range(1, component.max() + 1)
            )
            weights[y, x] += w0 * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma**2))
    return weights


DRAWN = """
#...##....o
#...##..o##
#..#......#
..##...#..#
.....o....#
####...####
"""


def _drawn(text):
    rows = text.split()
    return np.array([[{"#": 1, ".": 0, "o": -1}[c] for c in row] for row in rows], np.int32)


@pytest.mark.parametrize("cell", [0, 1])
def test_border_weights_equal_the_slow_ones(cell):
    random = np.random.default_rng(3).choice([-1, 0, 1, 2], (14, 17), p=[0.1, 0.4, 0.3, 0.2])
    for labels in (_drawn(DRAWN), random):
        for w0, sigma in ((10.0, 5.0), (3.0, 1.5)):
            weights = data.border_weights(labels, cell, w0, sigma)
            assert weights.dtype == np.float32
            expected = _slow_border_weights(labels, cell, w0, sigma)
            np.testing.assert_allclose(weights, expected, atol=1e-4)


def test_border_weights_of_far_cells_and_of_few():
    labels = np.zeros((60, 120), np.int32)
    labels[5:40, 10:50] = labels[5:40, 52:90] = 1
    weights = data.border_weights(labels, 1)
    np.testing.assert_allclose(weights, _slow_far(labels), atol=1e-4)
    # One cell, none, only void: the term of two cells is nowhere.
    labels[:, 50:] = 0
    np.testing.assert_allclose(
        np.unique(data.border_weights(labels, 1)), [7200 / 11600, 7200 / 2800]
    )
    np.testing.assert_array_equal(data.border_weights(np.zeros((3, 4), int), 1), np.ones((3, 4)))
    np.testing.assert_array_equal(data.border_weights(np.full((3, 4), -1), 1), np.zeros((3, 4)))


def _slow_far(labels):
    """Of two rectangles: distances by formula."""
    rows, columns = np.indices(labels.shape)
    total = 0
    for left, right in ((10, 49), (52, 89)):
        down = np.maximum(np.maximum(5 - rows, rows - 39), 0)
        across = np.maximum(np.maximum(left - columns, columns - right), 0)
        total = total + np.hypot(down, across)
    cells = np.sum(labels)
    balance = np.where(
        labels == 1, labels.size / 2 / cells, labels.size / 2 / (labels.size - cells)
    )
    return balance + np.where(labels == 1, 0, 10 * np.exp(-(total**2) / 50))


def test_weights_in_batches(tmp_path):
    """w_c balances the split, not the picture."""
    first = np.array([[255, 0, 255, 9]], np.uint8)
    _pair(tmp_path, "a", first, size=(1, 4))
    _pair(tmp_path, "b", np.array([[255, 255, 255, 255]], np.uint8), size=(1, 4))
    dataset = _load(tmp_path, class_list="0 membrane / 255 cell / 9 void")
    (batch,) = data.segmentation_batches(dataset.with_border_weights("cell"), (1, 4, 3), 2)
    cell, membrane = 7 / 2 / 6, 7 / 2 / 1 + 10 * np.exp(-4 / 50)
    expected = [[[cell, membrane, cell, 0]], [[cell] * 4]]
    assert batch["pixel_weights"].dtype == tf.float32
    np.testing.assert_allclose(batch["pixel_weights"], expected, atol=0.5 / 1024 + 1e-6)
    np.testing.assert_array_equal(batch["segmentation_masks"][0], [[1, 0, 1, -1]])
    with pytest.raises(ValueError, match="one of the classes membrane, cell; received: nucleus$"):
        dataset.with_border_weights("nucleus")


def test_generated_colors_differ():
    colors = palette(254)
    assert len(np.unique(colors, axis=0)) == 254
    first = colors[:12].astype(int)
    distances = np.abs(first[:, None] - first[None]).sum(-1) + 1000 * np.eye(12, dtype=int)
    assert distances.min() > 60


def test_batches_are_resumable_and_sharded(tmp_path):
    for i in range(7):
        _pair(tmp_path, str(i), np.full((8, 10), 255 * (i % 2), np.uint8), (8, 10), value=10 * i)
    dataset = _load(tmp_path)
    augmentation = data.SegmentationAugmentation((6, 6, 3), rotation=20.0, color=0.2, crops=True)
    options = {"augmentation": augmentation, "shuffle": True, "seed": 3, "drop_remainder": True}
    whole = list(data.segmentation_batches(dataset, (6, 6, 3), 3, epochs=3, **options))
    resumed = data.segmentation_batches(dataset, (6, 6, 3), 3, first_epoch=1, epochs=3, **options)
    assert len(whole) == 6
    for first, second in zip(whole[2:], resumed, strict=True):
        for name in ("images", "segmentation_masks", "image_ids"):
            np.testing.assert_array_equal(first[name], second[name], name)
    ids = [tuple(batch["image_ids"].numpy()) for batch in whole]
    assert len(set(ids)) == 6
    for batch in whole:
        labels = batch["segmentation_masks"].numpy()
        assert batch["images"].dtype == tf.uint8 and labels.shape == (3, 6, 6)
        # The labels are those of the picture.
        expected = np.broadcast_to(batch["image_ids"].numpy()[:, None, None] % 2, labels.shape)
        np.testing.assert_array_equal(labels, expected)
    shards = [
        data.segmentation_batches(dataset, (6, 6, 3), 2, shard_index=i, shard_count=2)
        for i in range(2)
    ]
    found = [np.concatenate([b["image_ids"] for b in shard]).tolist() for shard in shards]
    assert found == [[0, 2, 4, 6], [1, 3, 5]]


def test_resize():
    labels = np.array([[0, 1, 2, 3], [4, 5, 6, 7]], np.int32)
    weights = labels / np.float32(7)
    image = np.zeros((2, 4, 3), np.uint8)
    image[:, 2:] = 200
    example = {"images": image, "segmentation_masks": labels, "pixel_weights": weights}
    resized = data.resize_labelled(example, (1, 2))
    # The middles of the new pixels are between the old ones: the lower right one is taken.
    np.testing.assert_array_equal(resized["segmentation_masks"], [[5, 7]])
    np.testing.assert_array_equal(resized["pixel_weights"], weights[1:, 1::2])
    assert resized["images"].dtype == tf.uint8 and resized["segmentation_masks"].dtype == tf.int32
    larger = data.resize_labelled(example, (4, 4))
    np.testing.assert_array_equal(larger["segmentation_masks"], labels.repeat(2, axis=0))
    np.testing.assert_array_equal(larger["images"], image.repeat(2, axis=0))


def _png(values):
    return io.BytesIO(cv2.imencode(".png", values)[1].tobytes())


class TinySegmentation(tfds.core.GeneratorBasedBuilder):
    """Picture i is i + 3 wide; `named` has names, `plain` has none, `sparse` values like pets."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in ("named", "plain", "sparse")]

    def _info(self):
        if self.builder_config.name == "named":
            label = {"labels": tfds.features.LabeledImage(labels=["sky", "sea"])}
        else:
            label = {"segmentation_mask": tfds.features.Image(shape=(None, None, 1))}
        image = tfds.features.Image(encoding_format="png")
        features = tfds.features.FeaturesDict({**label, "image": image})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, download_manager):
        del download_manager
        return {"train": self._generate_examples(), "validation": self._generate_examples()}

    def _generate_examples(self):
        largest = {"named": 1, "plain": 255, "sparse": 3}[self.builder_config.name]
        key = "labels" if self.builder_config.name == "named" else "segmentation_mask"
        for i in range(4):
            labels = np.zeros((2, 3 + i, 1), np.uint8)
            labels[0, 0], labels[1, 0], labels[1, 1] = largest, i % 2, 1
            image = np.full((2, 3 + i, 3), 40 * i, np.uint8)
            yield i, {"image": _png(image), key: labels}


class NoSegmentation(tfds.core.GeneratorBasedBuilder):
    """A set without labels of pixels."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = tfds.features.FeaturesDict({"image": tfds.features.Image()})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, download_manager):
        del download_manager
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        yield 0, {"image": np.zeros((2, 2, 3), np.uint8)}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    for config in TinySegmentation.BUILDER_CONFIGS:
        TinySegmentation(config=config.name, data_dir=folder).download_and_prepare()
    NoSegmentation(data_dir=folder).download_and_prepare()
    return folder


def test_tfds(data_dir):
    dataset = data.load_segmentation("tfds:tiny_segmentation/named", "train", data_dir=data_dir)
    assert dataset.class_names == ["sky", "sea"] and dataset.num_examples == 4
    images = {image.shape[1]: (image, labels) for _, image, labels in dataset.examples()}
    for i in range(4):
        image, labels = images[3 + i]
        assert image[0, 0, 0] == 40 * i
        expected = np.zeros((2, 3 + i), int)
        expected[0, 0], expected[1, 0], expected[1, 1] = 1, i % 2, 1
        np.testing.assert_array_equal(labels, expected)
    # The stored order is not that of the generator, but pairs stay pairs.
    for index, (_, image, labels) in enumerate(dataset.examples()):
        np.testing.assert_array_equal(dataset.example(index)[0], image)
        np.testing.assert_array_equal(dataset.example(index)[1], labels)
    part = data.load_segmentation("tfds:tiny_segmentation/named", "val[:2]", data_dir=data_dir)
    assert part.num_examples == 2 and part.split == "validation[:2]"


def test_tfds_without_names(data_dir):
    dataset = data.load_segmentation("tfds:tiny_segmentation/plain", "train", data_dir=data_dir)
    assert dataset.class_names == ["class 0", "class 1"]
    assert all(labels[0, 0] == -1 for _, _, labels in dataset.examples())
    name = "tfds:tiny_segmentation/sparse"
    dataset = data.load_segmentation(name, "train", data_dir=data_dir)
    assert dataset.class_names == ["class 0", "class 1", "class 2", "class 3"]
    assert dataset.problems[0].endswith("classes; received: none of class 2")
    dataset = data.load_segmentation(
        name, "train", data_dir=data_dir, class_list="3 void / 1 pet / 0 background"
    )
    assert dataset.class_names == ["pet", "background"]
    assert all(labels[0, 0] == -1 and labels[1, 1] == 0 for _, _, labels in dataset.examples())
    with pytest.raises(ValueError, match=f"{name}/train/0: labels must be .*: 3 in 1 pixels$"):
        data.load_segmentation(name, "train", data_dir=data_dir, class_list="1 pet / 0 background")


def test_tfds_of_another_kind(data_dir):
    with pytest.raises(ValueError, match="must have an Image, and a LabeledImage .*: image$"):
        data.load_segmentation("tfds:no_segmentation", data_dir=data_dir)


def test_scenes(tmp_path):
    config = ScenesConfig(name="tiny", full=True, size=64, train=3, validation=2, test=1)
    builder = Scenes(config=config, data_dir=tmp_path)
    builder.download_and_prepare()
    dataset = data.from_scenes("scenes", builder, "val")
    assert dataset.class_names == ["background", *CLASS_NAMES]
    drawn = [draw_scene((0, 1, index), (64, 64)) for index in range(2)]
    expected = [np.append(0, scene["labels"] + 1)[scene["instances"]] for scene in drawn]
    found = [labels for _, _, labels in dataset.examples()]
    # TensorFlow Datasets stores them in an order of its own.
    if not np.array_equal(found[0], expected[0]):
        expected, drawn = expected[::-1], drawn[::-1]
    np.testing.assert_array_equal(found, expected)
    for (_, image, _), scene in zip(dataset.examples(), drawn):
        assert np.abs(image.astype(int) - scene["image"]).mean() < 12
    shuffled = data.segmentation_batches(dataset, (64, 64, 3), 2, shuffle=True)
    (batch,) = shuffled
    for image_id, labels in zip(batch["image_ids"].numpy(), batch["segmentation_masks"]):
        np.testing.assert_array_equal(labels, expected[image_id])
