"""Tests of the drawn scenes: the truth that comes with a picture, and the data set on disk."""

import colorsys

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from kerasvision.data import scenes, solids
from kerasvision.data.scenes import CLASS_NAMES, KEYPOINT_NAMES, Scenes, ScenesConfig, draw_scene

TINY = {"size": 128, "train": 30, "validation": 4, "test": 3}


@pytest.fixture(scope="module")
def drawn():
    return [draw_scene((11, index)) for index in range(100)]


def objects_of(drawn):
    """(scene, index of the object) of every object."""
    return [(scene, index) for scene in drawn for index in range(len(scene["labels"]))]


def test_the_same_seed_draws_the_same_scene():
    for seed in (3, (0, 1, 2)):
        first, second = draw_scene(seed), draw_scene(seed)
        assert first.keys() == second.keys()
        for name in first:
            np.testing.assert_array_equal(first[name], second[name], name)
    assert not np.array_equal(draw_scene((0, 1))["image"], draw_scene((0, 2))["image"])


def test_shapes_and_dtypes():
    scene = draw_scene(5, (96, 160))
    count = len(scene["labels"])
    described = {name: (value.shape, value.dtype) for name, value in scene.items()}
    assert described == {
        "image": ((96, 160, 3), np.uint8),
        "boxes": ((count, 4), np.float32),
        "labels": ((count,), np.int32),
        "areas": ((count,), np.int64),
        "keypoints": ((count, 8, 3), np.float32),
        "instances": ((96, 160), np.uint8),
        "depth": ((96, 160), np.float32),
        "box_areas": ((count,), np.float32),
    }


def test_boxes_and_areas_are_those_of_the_visible_pixels(drawn):
    for scene, index in objects_of(drawn):
        rows, columns = np.nonzero(scene["instances"] == index + 1)
        expected = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
        np.testing.assert_allclose(scene["boxes"][index] * 256, expected, atol=1e-4)
        assert scene["areas"][index] == len(rows)
    for scene in drawn:
        assert scene["instances"].max() == len(scene["labels"])


def test_sizes_and_counts(drawn):
    areas = np.concatenate([scene["box_areas"] for scene in drawn])
    assert areas.min() >= 0.04 and areas.max() <= 0.6
    assert areas.min() < 0.06 and areas.max() > 0.4
    counts = np.bincount([len(scene["labels"]) for scene in drawn], minlength=6)
    assert len(counts) == 6 and np.all(counts > 0)
    assert counts[0] <= 0.12 * len(drawn)


def test_empty_pictures_are_pictures():
    empty = [draw_scene((12, index), (64, 64)) for index in range(60)]
    empty = [scene for scene in empty if len(scene["labels"]) == 0]
    assert empty
    for scene in empty:
        assert scene["boxes"].shape == (0, 4) and scene["keypoints"].shape == (0, 8, 3)
        assert scene["instances"].max() == 0 and scene["image"].std() > 1


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_a_silhouette_fills_its_box(name):
    for seed in range(20):
        solid = solids.rasterise(name, np.random.default_rng(seed), 5000)
        rows, columns = np.nonzero(solid.faces >= 0)
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert 0.94 < height * width / 5000 < 1.1


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_keypoints_lie_on_the_silhouette(name):
    for seed in range(20):
        solid = solids.rasterise(name, np.random.default_rng(seed), 5000)
        rows, columns = np.nonzero(solid.faces >= 0)
        assert len(solid.keypoints) == len(KEYPOINT_NAMES[name])
        for column, row, _ in solid.keypoints:
            assert np.hypot(rows - row, columns - column).min() < 1.5


def test_visibility_of_keypoints(drawn):
    flags = []
    for scene, index in objects_of(drawn):
        used = len(KEYPOINT_NAMES[CLASS_NAMES[scene["labels"][index]]])
        assert np.all(scene["keypoints"][index, used:] == 0)
        for row, column, visibility in scene["keypoints"][index, :used]:
            flags.append(visibility)
            if visibility == 0:
                assert row == column == 0
                continue
            assert 0 <= row < 1 and 0 <= column < 1
            row, column = int(row * 256), int(column * 256)
            around = np.s_[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            if visibility == 2:
                assert np.any(scene["instances"][around] == index + 1)
    shares = np.bincount(np.array(flags, int), minlength=3) / len(flags)
    assert shares[0] > 0.01 and shares[1] > 0.03 and shares[2] > 0.6


def test_keypoints_behind_a_surface_are_hidden():
    solid = solids.rasterise("mug", np.random.default_rng(0), 5000)
    pixels = np.nonzero(solid.faces >= 0)
    item = scenes.Placed(CLASS_NAMES.index("mug"), solid, 0.1, np.array([5, 5]), pixels)
    for z, visibility in ((1000.0, 1), (-1000.0, 2)):
        surface = np.full(len(pixels[0]), z, np.float32)
        assert np.all(scenes._keypoints(item, surface, (256, 256))[:5, 2] == visibility)
    outside = item._replace(origin=np.array([-400, 5]))
    assert np.all(scenes._keypoints(outside, surface, (256, 256)) == 0)


def test_depth_follows_the_order_of_occlusion(drawn):
    for scene in drawn:
        depths = [scene["depth"][scene["instances"] == i + 1] for i in range(len(scene["labels"]))]
        for near, far in zip(depths, depths[1:]):
            assert near.max() < far.min()
        if depths:
            # Behind the farthest object is only the background, or a distractor.
            background = scene["depth"][scene["instances"] == 0]
            assert np.median(background) > depths[-1].max()
        assert scene["depth"].min() >= 0.499 and scene["depth"].max() < 65.5


def test_depth_and_normals_of_a_box_agree():
    for seed in range(20):
        solid = solids.rasterise("cube", np.random.default_rng(seed), 20000)
        seen = np.unique(solid.faces[solid.faces >= 0])
        normals = []
        for plane in solid.planes[seen]:
            by_column, by_row = plane[:2, 0]
            normal = np.array([-by_column, by_row, 1]) / np.hypot(np.hypot(by_column, by_row), 1)
            np.testing.assert_allclose(plane[2, 1:] + 50 * plane[:2, 1:].sum(0), normal, atol=0.02)
            normals.append(np.round(normal, 2))
        assert len(np.unique(normals, axis=0)) == 3  # three sides of a box


def test_depth_of_a_ring():
    solid = solids.rasterise("ring", np.random.default_rng(1), 20000)
    rows, columns = np.nonzero(solid.faces >= 0)
    points = np.stack([columns, rows, np.ones_like(rows)], 1)
    surface = np.einsum("pi,pij->pj", points, solid.planes[solid.faces[rows, columns]])
    z = np.zeros(solid.faces.shape)
    z[rows, columns] = surface[:, 0]
    for column, row, expected in solid.keypoints:
        near = np.hypot(rows - row, columns - column).argmin()
        assert z[rows[near], columns[near]] == pytest.approx(expected, abs=0.35 * solid.scale)
    assert 0.5 * solid.scale < np.ptp(z[rows, columns]) < 2.6 * solid.scale
    assert np.mean(surface[:, 3] > -0.05) > 0.98  # normals look at the viewer


def test_size_and_place_do_not_tell_the_class(drawn):
    more = drawn + [draw_scene((14, index), (64, 64)) for index in range(200)]
    labels = np.concatenate([scene["labels"] for scene in more])
    areas = np.log(np.concatenate([scene["box_areas"] for scene in more]))
    assert np.bincount(labels).min() > 0.06 * len(labels)
    for label in range(len(CLASS_NAMES)):
        chosen = areas[labels == label]
        error = areas.std() / np.sqrt(len(chosen))
        assert abs(chosen.mean() - areas.mean()) < 4 * error


def test_colour_does_not_tell_the_class():
    # The nearest mean colour of a class guesses the class little better than chance.
    features, labels = [], []
    for index in range(400):
        scene = draw_scene((15, index), (64, 64))
        for number, label in enumerate(scene["labels"]):
            pixels = scene["image"][scene["instances"] == number + 1].astype(float)
            hue, saturation, value = colorsys.rgb_to_hsv(*(pixels.mean(0) / 255))
            around = [np.cos(2 * np.pi * hue), np.sin(2 * np.pi * hue)]
            features.append([*around, saturation, value])
            labels.append(label)
    features, labels = np.array(features), np.array(labels)
    features = (features - features.mean(0)) / features.std(0)
    half = len(labels) // 2
    means = [features[:half][labels[:half] == i].mean(0) for i in range(len(CLASS_NAMES))]
    distances = np.linalg.norm(features[half:, None] - np.array(means), axis=-1)
    assert np.mean(distances.argmin(1) == labels[half:]) < 0.2


def test_textures_are_drawn_alike_for_every_class(monkeypatch):
    calls = []
    material = scenes._material

    def recorded(rng, first, u, v, grain, light=1):
        calls.append(first)
        return material(rng, first, u, v, grain, light)

    monkeypatch.setattr(scenes, "_material", recorded)
    solid = solids.rasterise("star", np.random.default_rng(2), 4000)
    for label in range(len(CLASS_NAMES)):
        item = scenes.Placed(label, solid, 0.1, np.array([9, 9]), np.nonzero(solid.faces >= 0))
        picture = np.zeros((128, 128, 3), np.float32)
        light = np.float32([0, 0, 1])
        scenes._paint(np.random.default_rng(3), picture, item, light, np.ones((8, 8), np.float32))
    assert all(np.array_equal(first, calls[0]) for first in calls)


def test_unknown_model():
    with pytest.raises(ValueError, match="name must be one of arrow, .*; received: teapot"):
        solids.build_model("teapot", np.random.default_rng(0))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    builders = {}
    for full in (False, True):
        config = ScenesConfig(name="tiny_full" if full else "tiny", full=full, **TINY)
        builders[full] = Scenes(config=config, data_dir=folder)
        builders[full].download_and_prepare()
    return builders


def examples_of(builder, split):
    examples = tfds.as_numpy(builder.as_dataset(split=split))
    return {int(example["image/id"]): example for example in examples}


def test_round_trip(prepared):
    assert prepared[True].info.features["objects"]["label"].names == list(CLASS_NAMES)
    for number, (split, count) in enumerate(zip(("train", "validation", "test"), (30, 4, 3))):
        light, full = examples_of(prepared[False], split), examples_of(prepared[True], split)
        assert sorted(light) == sorted(full) == [number * 10**8 + i for i in range(count)]
        for image_id in list(light)[:6]:
            scene = draw_scene((0, number, image_id % 10**8), (128, 128))
            example = full[image_id]
            np.testing.assert_array_equal(light[image_id]["image"], example["image"])
            error = np.abs(example["image"].astype(int) - scene["image"])
            assert error.mean() < 12  # JPEG
            objects = example["objects"]
            np.testing.assert_allclose(objects["bbox"], scene["boxes"], atol=1e-6)
            np.testing.assert_allclose(light[image_id]["objects"]["bbox"], objects["bbox"])
            np.testing.assert_array_equal(objects["label"], scene["labels"])
            np.testing.assert_array_equal(objects["area"], scene["areas"])
            np.testing.assert_array_equal(objects["keypoints"], scene["keypoints"])
            np.testing.assert_array_equal(example["instances"][..., 0], scene["instances"])
            np.testing.assert_allclose(example["depth"][..., 0] / 1000, scene["depth"], atol=6e-4)
            classes = np.append(0, scene["labels"] + 1)[scene["instances"]]
            np.testing.assert_array_equal(example["classes"][..., 0], classes)


def test_splits_share_no_picture(prepared):
    pictures = [
        example["image"].tobytes()
        for split in ("train", "validation", "test")
        for example in examples_of(prepared[False], split).values()
    ]
    assert len(set(pictures)) == len(pictures) == 37


def test_pictures_are_stored_as_encoded(prepared):
    decoders = {"image": tfds.decode.SkipDecoding()}
    dataset = prepared[False].as_dataset(split="test", decoders=decoders)
    for example in tfds.as_numpy(dataset):
        scene = draw_scene((0, 2, int(example["image/id"]) % 10**8), (128, 128))
        quality = [cv2.IMWRITE_JPEG_QUALITY, scenes.JPEG_QUALITY]
        expected = cv2.imencode(".jpg", scene["image"][..., ::-1], quality)[1].tobytes()
        assert example["image"] == expected


def test_prepared_files_are_used_again_and_broken_off_ones_are_not(tmp_path, monkeypatch):
    config = ScenesConfig(name="tiny", **{**TINY, "train": 5})
    drawn = []
    draw = scenes.draw_scene

    def counted(seed, size):
        drawn.append(seed)
        if len(drawn) == 4:
            raise KeyboardInterrupt
        return draw(seed, size)

    monkeypatch.setattr(scenes, "draw_scene", counted)
    with pytest.raises(KeyboardInterrupt):
        Scenes(config=config, data_dir=tmp_path).download_and_prepare()
    # What a killed process leaves behind: a folder with another name.
    leftover = tmp_path / "scenes" / "tiny" / "incomplete.ABCDEF_1.0.0"
    leftover.mkdir(parents=True, exist_ok=True)
    (leftover / "scenes-train.tfrecord-00000-of-00001").write_bytes(b"half a record")
    builder = Scenes(config=config, data_dir=tmp_path)
    builder.download_and_prepare()
    assert len(examples_of(builder, "train")) == 5
    count = len(drawn)
    again = Scenes(config=config, data_dir=tmp_path)
    again.download_and_prepare()
    assert len(drawn) == count
    assert len(examples_of(again, "train")) == 5
