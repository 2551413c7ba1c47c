import json
import pathlib

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from pycocotools import mask as coco_mask

from kerasvision import data
from kerasvision.data import augmentation, masks
from kerasvision.data.augmentation import SSDAugmentation
from kerasvision.data.scenes import Scenes, ScenesConfig
from kerasvision.data.solids import KEYPOINT_NAMES
from kerasvision.data.tfds_sets import from_builder
from kerasvision.ops.masks import paste_masks

SHARED = pathlib.Path(__file__).parents[2].parent / "shared" / "data" / "detection"
L_SHAPE = np.zeros((10, 12), "uint8")
L_SHAPE[2:8, 3:5] = L_SHAPE[6:8, 3:9] = 1
NO_COLOUR = {"photometric": False, "fill": (0, 0, 0)}


def uncompressed(mask):
    """COCO's uncompressed counts of a mask: lengths of runs of 0, 1, 0, … down the columns."""
    values, counts = mask.ravel(order="F").tolist(), []
    expected = 0
    while values:
        run = next((i for i, value in enumerate(values) if value != expected), len(values))
        counts.append(run)
        values, expected = values[run:], 1 - expected
    return {"size": list(mask.shape), "counts": counts}


def read(segmentation, size=(10, 12)):
    problems = []
    return masks.read_mask(segmentation, size, lambda *line: problems.append(line)), problems


@pytest.mark.parametrize("form", ["polygon", "counts", "bytes", "str"])
def test_every_format_of_coco_is_read(form):
    compressed = coco_mask.encode(np.asfortranarray(L_SHAPE))
    segmentation = {
        "polygon": [[3, 2, 5, 2, 5, 8, 3, 8], [3, 6, 9, 6, 9, 8, 3, 8]],
        "counts": uncompressed(L_SHAPE),
        "bytes": compressed,
        "str": {**compressed, "counts": compressed["counts"].decode()},
    }[form]
    mask, problems = read(segmentation)
    assert problems == []
    np.testing.assert_array_equal(coco_mask.decode(mask), L_SHAPE)


def test_polygons_are_drawn_as_by_pycocotools():
    rng = np.random.default_rng(0)
    for _ in range(50):
        polygons = [rng.uniform(-5, 60, 2 * n).tolist() for n in rng.integers(3, 8, 2)]
        expected = coco_mask.merge(coco_mask.frPyObjects(polygons, 40, 50))
        assert read(polygons, (40, 50)) == (expected, [])


@pytest.mark.parametrize(
    "segmentation, rule, received",
    [
        (None, "an object must have a mask", "None"),
        ([], "an object must have a mask", "[]"),
        ([[1, 1, 5, 5]], "three points or more, object ignored", "[1, 1, 5, 5]"),
        ([[1, 1, 5, 5, 3]], "three points or more, object ignored", "[1, 1, 5, 5, 3]"),
        ([[1, 1, 5, 5, 3, float("nan")]], "three points or more, object ignored", "nan"),
        ([[1, 1, 5, 5, 3, 1e9]], "three points or more, object ignored", "1000000000.0"),
        ([[1, 1, 5, 5, 3, "4"]], "three points or more, object ignored", "'4'"),
        ({"size": [10, 12]}, "run lengths must cover the picture", "counts"),
        ({"size": [10, 12], "counts": [5, 3]}, "run lengths must cover the picture", "8"),
        ({"size": [10, 12], "counts": ["a"]}, "run lengths must cover the picture", ""),
        ({"size": [10, 12], "counts": "PPPP"}, "run lengths must cover the picture", ""),
        ({"size": [12, 10], "counts": [120]}, "run lengths must cover", "[12, 10] for 10 x 12"),
    ],
)
def test_broken_masks_are_named(segmentation, rule, received):
    mask, [(reported, value)] = read(segmentation)
    assert mask is None
    assert rule in reported and received in value


def test_broken_part_of_a_mask_is_left_out():
    mask, [(rule, received)] = read([[3, 2, 5, 2, 5, 8, 3, 8], [1, 1, 2, 2]])
    assert coco_mask.area(mask) == 12
    assert rule.endswith("left out") and received == "[1, 1, 2, 2]"


def test_grids_equal_a_loop():
    rng = np.random.default_rng(1)
    for _ in range(10):
        pixels = (rng.random((30, 40)) < 0.5).astype("uint8")
        y, x = np.sort(rng.uniform(0, 30, 2)), np.sort(rng.uniform(0, 40, 2))
        box = np.array([y[0], x[0], y[1], x[1]])
        expected = np.zeros((56, 56), bool)
        for row in range(56):
            for column in range(56):
                place_y = y[0] + (y[1] - y[0]) * (row + 0.5) / 56
                place_x = x[0] + (x[1] - x[0]) * (column + 0.5) / 56
                expected[row, column] = pixels[int(place_y), int(place_x)]
        grid = masks.grid_over_box(coco_mask.encode(np.asfortranarray(pixels)), box)
        np.testing.assert_array_equal(grid, expected)


def test_bounds_iou_golden():
    mask = coco_mask.encode(np.asfortranarray(L_SHAPE))  # rows 2 to 8, columns 3 to 9
    assert masks.bounds_iou(mask, np.array([2.0, 3, 8, 9])) == 1.0
    assert masks.bounds_iou(mask, np.array([2.0, 3, 8, 6])) == 0.5
    assert masks.bounds_iou(mask, np.array([8.0, 3, 9, 9])) == 0.0
    empty = coco_mask.encode(np.zeros((10, 12), "uint8", order="F"))
    assert masks.bounds_iou(empty, np.array([2.0, 3, 8, 9])) == 0.0


def test_mirrored_golden():
    names = ("nose", "left_eye", "right_eye", "back_left", "back_right", "left_alone")
    assert masks.mirrored(names) == [0, 2, 1, 4, 3, 5]


# --- COCO files ---


def coco_file(root, annotations, **owl):
    """Two 200 x 100 pictures, 42 and 7, of cats (3) and owls (90), with annotations."""
    content = {
        "images": [{"id": 42, "file_name": "a.jpg"}, {"id": 7, "file_name": "b.jpg"}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 90, "name": "owl", **owl}],
        "annotations": [
            {"id": i, "category_id": 90, "bbox": [20, 10, 80, 50], **annotation}
            for i, annotation in enumerate(annotations)
        ],
    }
    for image in content["images"]:
        PIL.Image.new("RGB", (200, 100)).save(root / image["file_name"])
    (root / "all.json").write_text(json.dumps(content))
    return f"coco:{root / 'all.json'}"


def test_masks_of_a_coco_file(tmp_path):
    right_half = np.zeros((100, 200), "uint8")
    right_half[:, 100:] = 1
    polygon = {"image_id": 42, "segmentation": [[20, 10, 100, 10, 100, 60, 20, 35]]}
    crowd = {"image_id": 7, "iscrowd": 1, "segmentation": uncompressed(right_half)}
    dataset = data.load(coco_file(tmp_path, [polygon, crowd]), "all", masks=True)
    assert dataset.problems == []
    first, second = dataset.encoded_examples()
    grid = first["segmentation_masks"].numpy()[0]
    # The polygon fills the upper half, and the part of the lower half above its diagonal.
    assert grid[:28].mean() > 0.98
    np.testing.assert_allclose(grid[28:].mean(), 0.5, atol=0.03)
    assert grid[50, 53] == 1 and grid[50, 5] == 0
    assert second["segmentation_masks"].shape == (0, 56, 56)
    polygon, crowd = (row["segmentation"] for row in dataset.ground_truth()["annotations"])
    np.testing.assert_allclose(coco_mask.area(polygon), 80 * 25 + 80 * 25 / 2, rtol=0.03)
    assert coco_mask.area(crowd) == 10_000
    batch = next(iter(data.batches(dataset, (32, 32, 3), 2, max_boxes=3)))
    np.testing.assert_array_equal(batch["segmentation_masks"][0, 0], grid)
    assert batch["segmentation_masks"].shape == (2, 3, 56, 56)
    assert np.sum(batch["segmentation_masks"]) == grid.sum()


def test_objects_without_a_usable_mask_are_ignored_and_reported(tmp_path):
    square = [[20, 10, 100, 10, 100, 60, 20, 60]]
    elsewhere = [[120, 10, 190, 10, 190, 60, 120, 60]]
    annotations = [
        {"image_id": 42, "segmentation": square},
        {"image_id": 42, "segmentation": elsewhere},
        {"image_id": 42},
        {"image_id": 7, "segmentation": [[20, 10, 100, 60]]},
    ]
    name = coco_file(tmp_path, annotations)
    dataset = data.load(name, "all", masks=True)
    assert [row["iscrowd"] for row in dataset.ground_truth()["annotations"]] == [0, 1, 1, 1]
    moved, missing, points = dataset.problems
    assert "image id 42: the bounds of a mask must have an IoU of 0.5 or more" in moved
    assert moved.endswith("received: 0.00")
    assert "image id 42: an object must have a mask" in missing
    assert "image id 7: a polygon must have three points or more, object ignored" in points
    # Without masks nobody minds.
    assert data.load(name, "all").problems == []


def test_keypoints_of_a_coco_file(tmp_path):
    annotations = [
        {"image_id": 42, "keypoints": [30, 20, 2, 50, 40, 1]},
        {"image_id": 42, "keypoints": [30, 20, 0, 250, 40, 1]},
        {"image_id": 42, "category_id": 3},
        {"image_id": 7, "keypoints": [30, 20]},
    ]
    name = coco_file(tmp_path, annotations, keypoints=["left_wing", "right_wing"])
    dataset = data.load(name, "all", keypoints=True)
    assert dataset.keypoint_names == [(), ("left_wing", "right_wing")]
    first, second = dataset.encoded_examples()
    expected = np.zeros((3, 2, 3))
    expected[0] = [[0.2, 0.15, 2], [0.4, 0.25, 1]]
    np.testing.assert_allclose(first["keypoints"], expected, atol=1e-7)
    assert not np.any(second["keypoints"])
    truth = dataset.ground_truth()
    np.testing.assert_allclose(truth["annotations"][0]["keypoints"], [30, 20, 2, 50, 40, 1])
    assert [row["num_keypoints"] for row in truth["annotations"]] == [2, 0, 0, 0]
    assert truth["categories"][1]["keypoints"] == ["left_wing", "right_wing"]
    assert ["image id 7: keypoints must be up to 2" in line for line in dataset.problems] == [True]


def test_sets_without_them_are_named(tmp_path):
    with pytest.raises(ValueError, match="categories must name their keypoints; received: none"):
        data.load(coco_file(tmp_path, [{"image_id": 7}]), "all", keypoints=True)
    for name in ("voc:here", "yolo:here", "tfds:voc"):
        with pytest.raises(ValueError, match=f"masks and keypoints are read from .*: {name}"):
            data.load(name, masks=True)


def test_real_polygons():
    path = SHARED / "coco_mini" / "annotations" / "instances_train2017.json"
    if not path.is_file():
        pytest.skip("needs coco_mini")
    dataset = data.load(f"coco:{path}", "all", masks=True)
    rows = iter(dataset.ground_truth()["annotations"])
    ious = []
    for record in dataset.records:
        grids = np.unpackbits(record.grids, axis=-1).reshape(-1, 56, 56)
        pasted = paste_masks(grids, record.boxes, (record.height, record.width))
        for mask, ignored in zip(pasted, record.ignored):
            expected = coco_mask.decode(next(rows)["segmentation"]).astype(bool)
            if not ignored and expected.sum() > 1000:
                ious.append((mask & expected).sum() / (mask | expected).sum())
    assert len(ious) > 300
    assert np.median(ious) > 0.96 and np.quantile(ious, 0.05) > 0.85


# --- Scenes ---


def test_masks_and_keypoints_of_scenes(tmp_path):
    config = ScenesConfig(name="few", full=True, size=96, train=6, validation=1, test=1)
    builder = Scenes(config=config, data_dir=tmp_path)
    builder.download_and_prepare()
    names = list(KEYPOINT_NAMES.values())
    dataset = from_builder("few", builder, "train", masks=True, keypoint_names=names)
    assert dataset.problems == []
    raw = {int(row["image/id"]): row for row in builder.as_dataset("train").as_numpy_iterator()}
    count = 0
    for record, example in zip(dataset.records, dataset.encoded_examples()):
        source = raw[record.image_id]
        np.testing.assert_array_equal(example["keypoints"], source["objects"]["keypoints"])
        for i, mask in enumerate(record.masks):
            expected = source["instances"][..., 0] == i + 1
            np.testing.assert_array_equal(coco_mask.decode(mask), expected)
            pasted = paste_masks(
                example["segmentation_masks"][i : i + 1], [record.boxes[i]], (96, 96)
            )
            assert (pasted[0] & expected).sum() / (pasted[0] | expected).sum() > 0.9
            count += 1
    assert count > 6


# --- Augmentation ---


def ellipse_picture(rng):
    """A picture whose object, a turned ellipse, is white; its mask; and its highest pixel."""
    height, width = rng.integers(80, 200, 2)
    y, x = np.mgrid[:height, :width] + 0.5
    centre = rng.uniform(0.35, 0.65, 2) * (height, width)
    radii = rng.uniform(0.1, 0.3, 2) * min(height, width)
    angle = rng.uniform(0, np.pi)
    dy, dx = y - centre[0], x - centre[1]
    along, across = np.cos(angle) * dy + np.sin(angle) * dx, np.cos(angle) * dx - np.sin(angle) * dy
    inside = (along / radii[0]) ** 2 + (across / radii[1]) ** 2 <= 1
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    box = np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1], "float64")
    grid = masks.grid_over_box(coco_mask.encode(np.asfortranarray(inside, "uint8")), box)
    return inside, box / [height, width, height, width], grid


@pytest.mark.parametrize("flips", [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.5, 0.5)])
def test_masks_follow_the_picture(flips):
    augment = SSDAugmentation((120, 90, 3), 0.5, 2.0, True, 0.4, *flips, **NO_COLOUR)
    rng = np.random.default_rng(0)
    ious = []
    for seed in range(40):
        inside, box, grid = ellipse_picture(rng)
        example = {
            "images": tf.constant(np.repeat(inside[..., None] * np.uint8(255), 3, axis=-1)),
            "bounding_boxes": {
                "boxes": tf.constant([box, np.zeros(4)], tf.float32),
                "labels": tf.constant([0, -1]),
            },
            "segmentation_masks": tf.constant(np.stack([grid, grid]), tf.uint8),
        }
        shown = augment(example, seed=tf.constant([3, seed], tf.int64))
        assert shown["bounding_boxes"]["labels"].numpy().tolist() == [0, -1]
        assert not np.any(shown["segmentation_masks"][1])
        boxes = shown["bounding_boxes"]["boxes"][:1].numpy()
        pasted = paste_masks(shown["segmentation_masks"][:1].numpy(), boxes, (120, 90))[0]
        expected = shown["images"].numpy()[..., 0] >= 128
        ious.append((pasted & expected).sum() / (pasted | expected).sum())
    assert np.mean(ious) > 0.96 and min(ious) > 0.85


@pytest.mark.parametrize("flips", [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.5, 0.5)])
def test_keypoints_follow_the_picture(flips):
    names = [("one",), ("left", "right", "top")]
    augment = SSDAugmentation(
        (120, 90, 3), 0.5, 2.0, True, 0.4, *flips, keypoint_names=names, **NO_COLOUR
    )
    seen = 0
    for seed in range(40):
        image = np.zeros((100, 120, 3), "uint8")
        image[28:33, 28:33, 0] = 255  # left
        image[68:73, 88:93, 1] = 255  # right
        keypoints = np.zeros((2, 3, 3), "float32")
        keypoints[0, :2] = [30.5 / 100, 30.5 / 120, 2], [70.5 / 100, 90.5 / 120, 1]
        example = {
            "images": tf.constant(image),
            "bounding_boxes": {
                "boxes": tf.constant([[0.2, 0.2, 0.8, 0.8], [0.0] * 4]),
                "labels": tf.constant([1, -1]),
            },
            "keypoints": tf.constant(keypoints),
        }
        shown = augment(example, seed=tf.constant([3, seed], tf.int64))
        found = shown["keypoints"].numpy()
        assert not np.any(found[1]) and not np.any(found[0, 2])
        # The visibility, 2 on the left, tells whether left and right were swapped.
        mirrored = found[0, 0, 2] == 1 or found[0, 1, 2] == 2
        for channel, visibility in enumerate((2, 1)):
            place = found[0, 1 - channel if mirrored else channel]
            rows, columns = np.nonzero(shown["images"].numpy()[..., channel] >= 128)
            if place[2]:
                assert place[2] == visibility
                expected = (rows.mean() + 0.5) / 120, (columns.mean() + 0.5) / 90
                np.testing.assert_allclose(place[:2], expected, atol=0.03)
                seen += 1
    assert seen > 30


def test_keypoint_functions_golden():
    keypoints = tf.constant([[[0.25, 0.5, 2], [0.75, 0.9, 1], [0, 0, 0]]])
    window = tf.constant([0.0, 0.25, 0.5, 0.75])
    inside = augmentation.keypoints_in_window(keypoints, tf.constant([0]), window)
    np.testing.assert_allclose(inside, [[[0.5, 0.5, 2], [0, 0, 0], [0, 0, 0]]])
    assert not np.any(augmentation.keypoints_in_window(keypoints, tf.constant([-1]), window))
    flipped = augmentation.flip_keypoints(keypoints, tf.constant([[1, 0, 2]]), axis=1)
    np.testing.assert_allclose(flipped, [[[0.75, 0.1, 1], [0.25, 0.5, 2], [0, 0, 0]]], atol=1e-7)
    flipped = augmentation.flip_keypoints(keypoints, tf.constant([[0, 1, 2]]), axis=0)
    np.testing.assert_allclose(flipped, [[[0.75, 0.5, 2], [0.25, 0.9, 1], [0, 0, 0]]], atol=1e-7)


def test_masks_in_window_golden():
    grid = np.zeros((2, 4, 4), "uint8")
    grid[:, :2] = 1  # the upper half
    boxes = tf.constant([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    window = tf.constant([0.25, 0.0, 0.75, 2.0])
    shown = augmentation.masks_in_window(tf.constant(grid), boxes, tf.constant([0, -1]), window)
    expected = np.zeros((2, 4, 4))
    expected[0, :2] = 1  # of rows 0.25 to 0.75 the upper half too
    np.testing.assert_array_equal(shown, expected)
