import io
import pathlib

import cv2
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from kerasvision import data
from kerasvision.data import dataset as dataset_lib
from kerasvision.data import pictures

LEFT, RIGHT = (200, 30, 40), (20, 180, 90)


def _two_colors(height=32, width=48):
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : width // 2], image[:, width // 2 :] = LEFT, RIGHT
    return image


def _encode(image, file_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def _dataset(folder, count=10, size=(24, 32)):
    """Writes `count` grey pictures: picture i has the value 20 i, and i % 4 boxes."""
    records = []
    height, width = size
    for i in range(count):
        path = folder / f"{i}.png"
        PIL.Image.new("L", (width, height), 20 * i).save(path)
        boxes = [[2, 3, 10, 12 + k] for k in range(i % 4)]
        records.append(
            dataset_lib.clean_picture(
                path, 100 + i, size, boxes, [k for k in range(len(boxes))],
                [k == 2 for k in range(len(boxes))], dataset_lib.Problems(),
            )
        )  # fmt: skip
    return dataset_lib.DetectionDataset("test", "train", ["a", "b", "c"], records, [])


def _ids(batches):
    return [batch["image_ids"].numpy().tolist() for batch in batches]


def _noise(inputs, seed):
    """An augmentation that shows its seed."""
    image = tf.image.resize(inputs["images"], (16, 16))
    noise = tf.random.stateless_uniform((16, 16, 1), seed)
    return {**inputs, "images": image / 2 + noise}


@pytest.mark.parametrize(
    ("encoded", "grey"),
    [
        (_encode(PIL.Image.fromarray(_two_colors()), "JPEG", quality=95), False),
        (_encode(PIL.Image.fromarray(_two_colors()), "JPEG", progressive=True), False),
        (_encode(PIL.Image.fromarray(_two_colors()).convert("CMYK"), "JPEG"), False),
        (_encode(PIL.Image.fromarray(_two_colors()).convert("L"), "JPEG"), True),
        (_encode(PIL.Image.fromarray(_two_colors()), "PNG"), False),
        (_encode(PIL.Image.fromarray(_two_colors()).convert("RGBA"), "PNG"), False),
        (_encode(PIL.Image.fromarray(_two_colors()).quantize(2), "PNG"), False),
        (_encode(PIL.Image.fromarray(_two_colors()).convert("LA"), "PNG"), True),
        (cv2.imencode(".png", _two_colors()[..., ::-1] * np.uint16(257))[1].tobytes(), False),
        (_encode(PIL.Image.fromarray(_two_colors()), "BMP"), False),
        (_encode(PIL.Image.fromarray(_two_colors()), "GIF"), False),
    ],
    ids="jpeg progressive cmyk grey png rgba palette grey+alpha 16-bit bmp gif".split(),
)
def test_every_channel_layout_becomes_rgb(encoded, grey):
    expected = [np.array(color, np.float64) for color in (LEFT, RIGHT)]
    if grey:
        expected = [np.full(3, color @ (0.299, 0.587, 0.114)) for color in expected]
    image = tf.function(pictures.decode)(tf.constant(encoded)).numpy()
    assert image.shape == (32, 48, 3) and image.dtype == np.uint8
    np.testing.assert_allclose(image[16, 5], expected[0], atol=2)
    np.testing.assert_allclose(image[16, 42], expected[1], atol=2)
    assert pictures.check(tf.constant(encoded)) == (32, 48)


def test_16_bit_grey():
    values = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    image = pictures.decode(tf.constant(_encode(PIL.Image.fromarray(values), "PNG"))).numpy()
    np.testing.assert_array_equal(image[..., 1], np.arange(256).reshape(16, 16))


@pytest.mark.parametrize(
    ("size", "at_least", "expected"),
    [
        ((3000, 4000), (600, 600), (750, 1000)),
        ((3000, 4000), (300, 300), (375, 500)),
        ((3000, 400), (300, 300), (3000, 400)),
        ((4000, 8000), (500, 500), (500, 1000)),
        ((480, 640), (640, 640), (480, 640)),
        ((1, 1), (300, 300), (1, 1)),
    ],
)
def test_large_jpegs_are_decoded_small(size, at_least, expected):
    encoded = tf.constant(_encode(PIL.Image.fromarray(_two_colors(*size)), "JPEG"))
    image = pictures.decode(encoded, at_least).numpy()
    assert image.shape == (*expected, 3)
    if size != (1, 1):
        np.testing.assert_allclose(image[0, 0], LEFT, atol=2)
        np.testing.assert_allclose(image[-1, -1], RIGHT, atol=2)


def test_file_cut_anywhere_is_found():
    noise = np.random.default_rng(0).integers(0, 255, (64, 80, 3), np.uint8)
    for file_format in ("JPEG", "PNG"):
        encoded = _encode(PIL.Image.fromarray(noise), file_format)
        assert pictures.check(tf.constant(encoded)) == (64, 80)
        for share in (0.0, 0.01, 0.3, 0.6, 0.9):
            with pytest.raises(tf.errors.InvalidArgumentError):
                pictures.check(tf.constant(encoded[: int(share * len(encoded))]))


def test_batches_are_static_and_padded(tmp_path):
    dataset = _dataset(tmp_path)
    assert dataset.max_boxes == 2
    batches = data.batches(dataset, (16, 20, 3), 5, drop_remainder=True, max_boxes=4)
    assert int(batches.cardinality()) == 2
    spec = batches.element_spec
    assert spec["images"].shape == (5, 16, 20, 3)
    assert spec["bounding_boxes"]["boxes"].shape == (5, 4, 4)
    assert spec["bounding_boxes"]["labels"].shape == (5, 4)
    first, second = batches
    assert first["images"].dtype == tf.uint8
    np.testing.assert_array_equal(first["image_ids"], np.arange(100, 105))
    for i in range(5):
        np.testing.assert_array_equal(first["images"][i], np.full((16, 20, 3), 20 * i))
    # Of the three boxes of picture 3, the last one is ignored.
    np.testing.assert_array_equal(
        first["bounding_boxes"]["labels"],
        [[-1, -1, -1, -1], [0, -1, -1, -1], [0, 1, -1, -1], [0, 1, -1, -1], [-1, -1, -1, -1]],
    )
    expected = np.zeros((4, 4), np.float32)
    expected[:2] = np.array([[2, 3, 10, 12], [2, 3, 10, 13]]) / [24, 32, 24, 32]
    np.testing.assert_allclose(first["bounding_boxes"]["boxes"][2], expected, atol=1e-7)


def test_shrinking_averages_and_keeps_boxes_in_place(tmp_path):
    image = np.zeros((400, 200, 3), np.uint8)
    image[100:300, 50:150] = 240
    # A chequered border would alias to black or white without averaging.
    image[:50] = 255 * (np.indices((50, 200)).sum(0) % 2)[..., None]
    PIL.Image.fromarray(image).save(tmp_path / "a.png")
    record = dataset_lib.clean_picture(
        tmp_path / "a.png", 1, (400, 200), [[100, 50, 300, 150]], [0], [False],
        dataset_lib.Problems(),
    )  # fmt: skip
    dataset = dataset_lib.DetectionDataset("test", "train", ["a"], [record], [])
    (batch,) = data.batches(dataset, (40, 40, 3), 1)
    small = batch["images"][0].numpy()
    y_min, x_min, y_max, x_max = np.round(batch["bounding_boxes"]["boxes"][0, 0].numpy() * 40)
    assert (y_min, x_min, y_max, x_max) == (10, 10, 30, 30)
    assert np.all(small[11:29, 11:29] == 240) and np.all(small[32:] == 0)
    np.testing.assert_allclose(small[1:3], 127, atol=6)


def test_evaluation_sees_every_picture_once(tmp_path):
    batches = data.batches(_dataset(tmp_path), (16, 16, 3), 4)
    assert _ids(batches) == [[100, 101, 102, 103], [104, 105, 106, 107], [108, 109]]
    assert int(batches.cardinality()) == 3


def test_epochs_are_permutations_of_their_own(tmp_path):
    dataset = _dataset(tmp_path)
    options = {"shuffle": True, "epochs": 3, "drop_remainder": True}
    ids = np.reshape(_ids(data.batches(dataset, (16, 16, 3), 2, **options)), (3, 10))
    for epoch in ids:
        assert sorted(epoch) == list(range(100, 110))
    assert len({tuple(epoch) for epoch in ids}) == 3
    others = np.reshape(_ids(data.batches(dataset, (16, 16, 3), 2, seed=1, **options)), (3, 10))
    assert np.any(others != ids)


def test_runs_are_equal_and_resume_bit_for_bit(tmp_path):
    dataset = _dataset(tmp_path)

    def stream(**options):
        batches = data.batches(
            dataset, (16, 16, 3), 3, augmentation=_noise, shuffle=True, seed=5, epochs=4,
            drop_remainder=True, **options,
        )  # fmt: skip
        return [tf.nest.map_structure(lambda tensor: tensor.numpy(), batch) for batch in batches]

    whole = stream()
    steps = data.steps_per_epoch(dataset, 3)
    assert (steps, len(whole)) == (3, 12)
    for first_epoch in range(4):
        tf.random.set_seed(first_epoch)  # The global seed must not matter.
        resumed = stream(first_epoch=first_epoch)
        assert len(resumed) == 12 - first_epoch * steps
        for one, other in zip(whole[first_epoch * steps :], resumed):
            tf.nest.map_structure(np.testing.assert_array_equal, one, other)


def test_no_two_pictures_share_a_seed(tmp_path):
    dataset = _dataset(tmp_path)
    seen = set()

    def record_seed(inputs, seed):
        inputs = _noise(inputs, seed)
        return {**inputs, "images": tf.fill((16, 16, 3), tf.cast(seed[1], tf.float32))}

    for shard_index in range(2):
        batches = data.batches(
            dataset, (16, 16, 3), 2, augmentation=record_seed, epochs=3, drop_remainder=True,
            shard_index=shard_index, shard_count=2,
        )  # fmt: skip
        for batch in batches:
            seen.update(batch["images"][:, 0, 0, 0].numpy().tolist())
    assert len(seen) == 3 * 2 * 4


def test_shards_are_disjoint_equal_and_cover(tmp_path):
    dataset = _dataset(tmp_path)

    def shards(count, **options):
        return [
            _ids(
                data.batches(
                    dataset, (16, 16, 3), 2, shuffle=True, shard_index=index, shard_count=count,
                    **options,
                )
            )
            for index in range(count)
        ]  # fmt: skip

    covering = [np.concatenate(ids).tolist() for ids in shards(3)]
    assert sorted(sum(covering, [])) == list(range(100, 110))
    equal = [np.concatenate(ids).tolist() for ids in shards(3, drop_remainder=True)]
    assert [len(ids) for ids in equal] == [2, 2, 2]
    assert len(set(sum(equal, []))) == 6


def test_pictures_of_one_pixel_and_of_four_thousand(tmp_path):
    records = []
    for number, size in enumerate([(1, 1), (3000, 4000), (4000, 3)]):
        path = tmp_path / f"{number}.jpg"
        PIL.Image.new("RGB", size[::-1], (10, 200, 30)).save(path, quality=95)
        sizes = dataset_lib.readable_sizes([path], dataset_lib.Problems())
        assert sizes == {path: size}
        records.append(
            dataset_lib.clean_picture(
                path, number, size, [[0, 0, *size]], [0], [False], dataset_lib.Problems()
            )
        )
    dataset = dataset_lib.DetectionDataset("test", "train", ["a"], records, [])
    (batch,) = data.batches(dataset, (32, 32, 3), 3)
    expected = np.broadcast_to(np.array([10, 200, 30]), (3, 32, 32, 3))
    np.testing.assert_allclose(batch["images"], expected, atol=2)
    np.testing.assert_array_equal(batch["bounding_boxes"]["boxes"][:, 0], [[0, 0, 1, 1]] * 3)


def test_empty_batches_hold_padding_only(tmp_path):
    path = tmp_path / "a.png"
    PIL.Image.new("RGB", (20, 20)).save(path)
    record = dataset_lib.clean_picture(path, 1, (20, 20), [], [], [], dataset_lib.Problems())
    dataset = dataset_lib.DetectionDataset("test", "train", ["a"], [record], [])
    (batch,) = data.batches(dataset, (16, 16, 3), 1)
    np.testing.assert_array_equal(batch["bounding_boxes"]["boxes"], np.zeros((1, 1, 4)))
    np.testing.assert_array_equal(batch["bounding_boxes"]["labels"], [[-1]])


def test_classes_without_boxes(tmp_path):
    dataset = _dataset(tmp_path, count=4)  # picture i has the labels 0, …, i - 1, but 2 is ignored
    changed = dataset.without_boxes(["b"])
    (batch,) = data.batches(changed, (16, 16, 3), 4)
    assert batch["has_boxes"].numpy().tolist() == [True, True, False, False]
    np.testing.assert_array_equal(
        batch["bounding_boxes"]["labels"], [[-1, -1], [0, -1], [0, 1], [0, 1]]
    )
    boxes = batch["bounding_boxes"]["boxes"].numpy()
    np.testing.assert_allclose(boxes[1], [[2 / 24, 3 / 32, 10 / 24, 12 / 32], [0] * 4])
    np.testing.assert_array_equal(boxes[2:], np.broadcast_to([0, 0, 1, 1], (2, 2, 4)))
    (batch,) = data.batches(dataset, (16, 16, 3), 4)
    assert "has_boxes" not in batch and batch["bounding_boxes"]["boxes"][3, 0, 0] > 0
    with pytest.raises(ValueError, match=r"must be among \['a', 'b', 'c'\]; received: owl"):
        dataset.without_boxes(["a", "owl"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 11, "drop_remainder": True}, "must fill a batch .* 10 pictures"),
        ({"batch_size": 6, "drop_remainder": True, "shard_count": 2}, "shard_count=2"),
        ({"batch_size": 2, "epochs": 2}, "need drop_remainder=True"),
        ({"batch_size": 2, "max_boxes": 1}, "max_boxes must be 2 or more, .* received: 1"),
        ({"batch_size": 2, "shard_index": 1}, r"shard_index must be in \[0, 1\); received: 1"),
    ],
)
def test_errors(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        data.batches(_dataset(tmp_path), (16, 16, 3), **options)


@pytest.mark.parametrize("name", ["", "bccd", "voc:", "tfds:", "folder:here", "coco"])
def test_unknown_names(name):
    with pytest.raises(ValueError, match=f"dataset must be scenes, .*; received: {name}$"):
        data.load(name)


def test_pictures_reported_once_each_in_order(tmp_path):
    problems = dataset_lib.Problems()
    assert dataset_lib.readable_sizes([tmp_path / "a.jpg", tmp_path], problems) == {}
    first, second = problems.lines()
    assert first.startswith(f"{pathlib.Path(tmp_path, 'a.jpg')}: the picture must exist")
    assert second.startswith(f"{tmp_path}: the picture must exist")
