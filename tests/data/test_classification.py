import gzip
import pathlib
import shutil
import unicodedata

import keras
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import sklearn.datasets
import tensorflow as tf
import tensorflow_datasets as tfds

from kerasvision import data
from kerasvision.data import dataset as dataset_lib
from kerasvision.data import glyphs, packaged, pictures, tfds_sets


def _picture(path, value=100, size=(8, 10)):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", size[::-1], (value,) * 3).save(path)


def _folder(root, counts, **options):
    """Writes `counts` pictures of each class, a value of its own to each."""
    for name, count in counts.items():
        for i in range(count):
            _picture(root / name / f"{i:02}.png", value=5 * i, **options)
    return root


def _load(root, split="train"):
    return data.load_classification(f"folder:{root}", split)


def _examples(dataset):
    return [
        (int(e["image_id"]), int(e["label"]), int(pictures.decode(e["encoded"])[0, 0, 0]))
        for e in dataset.encoded_examples()
    ]


def test_split_folders(tmp_path):
    _folder(tmp_path / "train", {"dog": 2, "cat": 3})
    _folder(tmp_path / "valid", {"dog": 1, "cat": 1})
    train = _load(tmp_path)
    assert train.class_names == ["cat", "dog"]
    assert train.num_examples == 5 and train.problems == []
    assert train.labels.dtype == np.int32
    np.testing.assert_array_equal(train.labels, [0, 0, 0, 1, 1])
    assert _examples(train) == [(0, 0, 0), (1, 0, 5), (2, 0, 10), (3, 1, 0), (4, 1, 5)]
    for split in ("val", "valid"):
        assert _examples(_load(tmp_path, split)) == [(0, 0, 0), (1, 1, 0)]
    with pytest.raises(ValueError, match="must have the split 'test'; received: train, valid$"):
        _load(tmp_path, "test")


def test_a_folder_without_splits_is_divided_by_names(tmp_path):
    _folder(tmp_path / "here", {"b": 20, "a": 3, "c": 1})
    train, val = _load(tmp_path / "here"), _load(tmp_path / "here", "val")
    np.testing.assert_array_equal(np.bincount(train.labels), [2, 16, 1])
    np.testing.assert_array_equal(np.bincount(val.labels), [1, 4])
    names = [{pathlib.Path(path).name for path in d.file_names[-4:]} for d in (train, val)]
    assert not set(train.file_names) & set(val.file_names)
    assert val.problems == [
        f"folder:{tmp_path / 'here'}: split 'val' should have pictures of all 3 classes; received: "
        "none of c"
    ]
    # Neither the place nor the time of the files matters, only their names.
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    moved = _load(tmp_path / "there", "val")
    assert [pathlib.Path(p).name for p in moved.file_names] == [
        pathlib.Path(p).name for p in val.file_names
    ]
    assert names[0] != names[1]
    with pytest.raises(ValueError, match="has train and val; received: split test$"):
        _load(tmp_path / "here", "test")


def test_nested_folders_capitals_hidden_files_and_other_files(tmp_path):
    _folder(tmp_path / "train", {"a": 1, "b": 1, ".cache": 1})
    _picture(tmp_path / "train/a/deep/er/x.JPEG")
    _picture(tmp_path / "train/a/.hidden.png")
    _picture(tmp_path / "train/loose.png")
    (tmp_path / "train/b/notes.txt").write_text("hello")
    (tmp_path / "train/b/Thumbs.db").write_bytes(b"1")
    dataset = _load(tmp_path)
    assert dataset.class_names == ["a", "b"]
    np.testing.assert_array_equal(dataset.labels, [0, 0, 1])
    assert dataset.problems == [
        f"{tmp_path}/train: a picture must lie in the folder of its class, left out; received: "
        "loose.png",
        f"{tmp_path}/train/b: a class folder should hold pictures, file left out; received: "
        "Thumbs.db",
        f"{tmp_path}/train/b: a class folder should hold pictures, file left out; received: "
        "notes.txt",
    ]


def test_unreadable_pictures_are_left_out_and_reported(tmp_path):
    _folder(tmp_path / "train", {"a": 2, "b": 2})
    noise = np.random.default_rng(0).integers(0, 255, (64, 80, 3), np.uint8)
    PIL.Image.fromarray(noise).save(tmp_path / "train/a/cut.jpg")
    content = (tmp_path / "train/a/cut.jpg").read_bytes()
    (tmp_path / "train/a/cut.jpg").write_bytes(content[: len(content) // 2])
    (tmp_path / "train/a/zero.png").touch()
    (tmp_path / "train/a/text.png").write_text("this is no picture")
    PIL.Image.new("RGB", (4, 4)).save(tmp_path / "train/a/scan.tif")
    (tmp_path / "train/b/gone.png").symlink_to(tmp_path / "nowhere.png")
    dataset = _load(tmp_path)
    assert [image_id for image_id, _, _ in _examples(dataset)] == [0, 1, 6, 7]
    reported = {line.partition(": ")[0]: line for line in dataset.problems}
    assert sorted(pathlib.Path(path).name for path in reported) == [
        "cut.jpg", "gone.png", "scan.tif", "text.png", "zero.png",
    ]  # fmt: skip
    assert "0 bytes" in reported[f"{tmp_path}/train/a/zero.png"]
    assert "must be a whole JPEG" in reported[f"{tmp_path}/train/a/cut.jpg"]
    assert all("left out" in line for line in dataset.problems)


def test_every_kind_of_picture_is_read(tmp_path):
    grey = PIL.Image.new("L", (12, 8), 60)
    for folder in ("a", "b"):
        (tmp_path / "train" / folder).mkdir(parents=True)
    grey.save(tmp_path / "train/a/grey.jpg")
    grey.convert("RGB").convert("CMYK").save(tmp_path / "train/a/cmyk.jpg")
    grey.convert("RGBA").save(tmp_path / "train/a/rgba.png")
    PIL.Image.fromarray(np.full((8, 12), 60 * 257, np.uint16)).save(tmp_path / "train/a/deep.png")
    grey.save(tmp_path / "train/b/still.gif")
    grey.save(tmp_path / "train/b/plain.bmp")
    dataset = _load(tmp_path)
    assert dataset.num_examples == 6 and dataset.problems == []
    (batch,) = data.classification_batches(dataset, (8, 12, 3), 6)
    np.testing.assert_allclose(batch["images"], np.full((6, 8, 12, 3), 60), atol=2)


def test_pictures_of_cameras_are_put_upright(tmp_path):
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:, :16] = 200
    upright = {1: stored, 3: stored[:, ::-1], 6: stored.swapaxes(0, 1), 8: np.rot90(stored)}
    for orientation in upright:
        exif = PIL.Image.Exif()
        exif[274] = orientation
        for name in ("a", "b"):
            path = tmp_path / "train" / name / f"{orientation}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(stored).save(path, exif=exif, quality=95)
            # What Pillow makes of them is upright.
            turned = np.asarray(PIL.ImageOps.exif_transpose(PIL.Image.open(path)))
            np.testing.assert_allclose(turned, upright[orientation], atol=3)
    dataset = _load(tmp_path)
    for shape in ((16, 32, 3), (32, 16, 3)):
        (batch,) = data.classification_batches(dataset, shape, 8)
        for image, expected in zip(batch["images"][:4].numpy(), upright.values()):
            if expected.shape == shape:
                np.testing.assert_allclose(image, expected, atol=3)


def test_a_class_may_be_called_train(tmp_path):
    _folder(tmp_path, {"bus": 2, "train": 2})
    assert _load(tmp_path).class_names == ["bus", "train"]


def test_classes_are_those_of_the_training_split(tmp_path):
    _folder(tmp_path / "train", {"a": 1, "b": 1, "c": 1})
    _folder(tmp_path / "val", {"c": 2})
    val = _load(tmp_path, "val")
    assert val.class_names == ["a", "b", "c"]
    np.testing.assert_array_equal(val.labels, [2, 2])
    (line,) = val.problems
    assert line.endswith("all 3 classes; received: none of a, b")
    _folder(tmp_path / "val", {"d": 1})
    with pytest.raises(ValueError, match=f"^{tmp_path}/val: .* those of .*/train; received: d$"):
        _load(tmp_path, "val")


def test_folders_that_cannot_be_classes(tmp_path, monkeypatch):
    missing = tmp_path / "missing"
    with pytest.raises(ValueError, match=f"^{missing}: must be a folder .*received: no such"):
        _load(missing)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="/file: must be a folder .* received: a file$"):
        _load(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="/empty: .* two or more classes; received: no folders$"):
        _load(tmp_path / "empty")
    _folder(tmp_path / "one", {"a": 2})
    with pytest.raises(ValueError, match="/one: .* two or more classes; received: a only$"):
        _load(tmp_path / "one")
    _picture(tmp_path / "flat/train/1.png")
    _picture(tmp_path / "flat/val/1.png")
    with pytest.raises(ValueError, match="/flat/train: .* two or more classes; .* no folders$"):
        _load(tmp_path / "flat")
    _folder(tmp_path / "hollow", {"a": 2, "b": 1})
    for name in ("c", "d"):
        (tmp_path / "hollow" / name).mkdir()
    with pytest.raises(ValueError, match=r"/hollow: each class .* picture .* none in c, d$"):
        _load(tmp_path / "hollow")
    for name in ("a", "b"):
        (tmp_path / "broken" / name).mkdir(parents=True)
        (tmp_path / "broken" / name / "1.png").touch()
    with pytest.raises(ValueError, match="(?s)at least one readable .* received: 0\n.*1.png: "):
        _load(tmp_path / "broken")

    def forbidden(self):
        raise PermissionError(13, "Permission denied")

    _folder(tmp_path / "closed", {"a": 1, "b": 1})
    monkeypatch.setattr(pathlib.Path, "iterdir", forbidden)
    with pytest.raises(ValueError, match="/closed: must be readable; received: Permission denied"):
        _load(tmp_path / "closed")


def test_shards_shuffling_and_resuming_as_for_detection(tmp_path):
    dataset = _load(_folder(tmp_path, {"a": 10, "b": 11}))
    assert data.steps_per_epoch(dataset, 4) == 4

    def ids(**options):
        batches = data.classification_batches(dataset, (8, 8, 3), 2, shuffle=True, **options)
        return [batch["image_ids"].numpy().tolist() for batch in batches]

    whole = ids(epochs=3, drop_remainder=True)
    assert len(whole) == 24 and whole[:8] != whole[8:16]
    assert ids(first_epoch=1, epochs=3, drop_remainder=True) == whole[8:]
    assert ids(epochs=3, drop_remainder=True, seed=1) != whole
    shards = [sum(ids(shard_index=i, shard_count=3), []) for i in range(3)]
    assert sorted(sum(shards, [])) == sorted(dataset.image_ids)


def test_batches_of_one_epoch_hold_every_picture(tmp_path):
    dataset = _load(_folder(tmp_path, {"a": 2, "b": 3}))
    assert dataset.num_examples == 3
    batches = data.classification_batches(dataset, (4, 6, 3), 2)
    assert int(batches.cardinality()) == 2
    assert batches.element_spec["images"].shape == (None, 4, 6, 3)
    batches = list(batches)
    assert [len(batch["labels"]) for batch in batches] == [2, 1]
    assert batches[0]["images"].dtype == tf.uint8 and batches[0]["labels"].dtype == tf.int32
    assert batches[0]["image_ids"].dtype == tf.int64


@pytest.mark.parametrize("crop_fraction", [0.0, 1.1])
def test_crop_fraction_is_checked(tmp_path, crop_fraction):
    dataset = _load(_folder(tmp_path, {"a": 2, "b": 2}))
    with pytest.raises(ValueError, match=rf"within \(0, 1\]; received: {crop_fraction}$"):
        data.classification_batches(dataset, (4, 4, 3), 2, crop_fraction=crop_fraction)


class TinyClasses(tfds.core.GeneratorBasedBuilder):
    """Picture i is grey of i, with label i modulo 4 - 1."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name=name)
        for name in ("plain", "no_label", "two_labels", "other_labels", "unknown_only")
    ]

    def _info(self):
        config = self.builder_config.name
        features = {"picture": tfds.features.Image(shape=(6, 6, 1), encoding_format="png")}
        classes = tfds.features.ClassLabel(names=["cat", "dog", "owl"])
        if config != "no_label":
            features["label" if config != "other_labels" else "colour"] = classes
        if config in ("two_labels", "other_labels"):
            features["shape"] = tfds.features.ClassLabel(names=["round", "square"])
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, download_manager):
        del download_manager
        return {"train": self._generate_examples(), "validation": self._generate_examples()}

    def _generate_examples(self):
        for i in range(9):
            values = {"label": i % 4 - 1, "colour": 0, "shape": 1}
            if self.builder_config.name == "unknown_only":
                values["label"] = -1
            features = {k: v for k, v in values.items() if k in self.info.features}
            yield i, {"picture": np.full((6, 6, 1), i, np.uint8), **features}


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    for config in TinyClasses.BUILDER_CONFIGS:
        TinyClasses(config=config.name, data_dir=folder).download_and_prepare()
    return folder


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize(("config", "split"), [("plain", "train"), ("two_labels", "val")])
def test_tensorflow_datasets(tfds_dir, monkeypatch, config, split, in_memory):
    if not in_memory:
        monkeypatch.setattr(tfds_sets, "IN_MEMORY_BYTES", 0)
    dataset = data.load_classification(f"tfds:tiny_classes/{config}", split, data_dir=tfds_dir)
    assert dataset.class_names == ["cat", "dog", "owl"]
    examples = _examples(dataset)
    assert sorted(value for _, _, value in examples) == [1, 2, 3, 5, 6, 7]
    assert all(label == value % 4 - 1 for _, label, value in examples)
    (line,) = dataset.problems
    assert line.endswith("a picture must have a class, left out; received: -1 (and 2 more in it)")
    (batch,) = data.classification_batches(dataset, (6, 6, 3), 6, shuffle=True, seed=2)
    np.testing.assert_array_equal(batch["labels"], batch["images"][:, 0, 0, 0] % 4 - 1)


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("tfds:tiny_classes/no_label", "train", "must have an Image .* received: picture$"),
        ("tfds:tiny_classes/other_labels", "train", "one called label; received: .*shape"),
        ("tfds:tiny_classes/plain", "test", "one of: train, validation; received: test$"),
        ("tfds:tiny_classes/unknown_only", "train", "at least one readable picture"),
        ("tfds:mnist", "train", "Pass --download"),
        ("tfds:no_such_set", "train", "must be a set of TensorFlow Datasets"),
    ],
)
def test_errors_of_tensorflow_datasets(tfds_dir, name, split, message):
    with pytest.raises(ValueError, match=f"(?s)^{name}: .*{message}"):
        data.load_classification(name, split, data_dir=tfds_dir)


def _write_idx(folder, counts=(30, 12)):
    """Writes Fashion-MNIST's four files, so short that a split needs other borders."""
    rng = np.random.default_rng(0)
    arrays = {}
    for prefix, count in zip(("train", "t10k"), counts):
        arrays[prefix] = rng.integers(0, 256, (count, 28, 28), np.uint8), np.arange(count) % 10
        for kind, array in zip(("images-idx3", "labels-idx1"), arrays[prefix]):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            content = gzip.compress(header + array.astype(np.uint8).tobytes())
            (folder / f"{prefix}-{kind}-ubyte.gz").write_bytes(content)
    return arrays


def test_fashion_mnist_of_a_folder(tmp_path, monkeypatch):
    arrays = _write_idx(tmp_path)
    splits = {
        "train": ("train", slice(0, 24)), "val": ("train", slice(24, 30)),
        "test": ("t10k", slice(0, 12)),
    }  # fmt: skip
    monkeypatch.setattr(packaged, "FASHION_MNIST_SPLITS", splits)
    for split, (prefix, part) in splits.items():
        dataset = data.load_classification("fashion_mnist", split, data_dir=tmp_path)
        images, labels = (array[part] for array in arrays[prefix])
        assert dataset.class_names[0] == "T-shirt/top" and dataset.class_names[9] == "Ankle boot"
        np.testing.assert_array_equal(dataset.labels, labels)
        (batch,) = data.classification_batches(dataset, (28, 28, 3), len(labels))
        np.testing.assert_array_equal(batch["images"], np.repeat(images[..., None], 3, -1))
        np.testing.assert_array_equal(batch["image_ids"], np.arange(part.start, part.stop))


def test_fashion_mnist_errors(tmp_path, monkeypatch):
    def load(**options):
        return data.load_classification("fashion_mnist", "test", **options)

    with pytest.raises(
        ValueError, match="dataset-fashion-mnist, pass --download, or .* --data_dir"
    ):
        load(data_dir=tmp_path)
    monkeypatch.setattr(packaged, "DEBIAN_FASHION_MNIST", tmp_path / "debian")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    with pytest.raises(ValueError, match="received: none in .*debian, .*keras/datasets/fashion"):
        load()
    with pytest.raises(ValueError, match="one of: train, val, test; received: validation$"):
        data.load_classification("fashion_mnist", "validation")

    def offline():
        raise Exception("URL fetch failure on https://x:\n offline")

    monkeypatch.setattr(keras.datasets.fashion_mnist, "load_data", offline)
    with pytest.raises(ValueError, match="downloadable; received: URL fetch failure .*: offline$"):
        load(download=True)

    def fetch():
        folder = tmp_path / "keras" / "datasets" / "fashion-mnist"
        folder.mkdir(parents=True)
        _write_idx(folder)

    monkeypatch.setattr(keras.datasets.fashion_mnist, "load_data", fetch)
    assert load(download=True).num_examples == 12
    assert load().num_examples == 12

    path = tmp_path / "keras/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    with pytest.raises(ValueError, match=f"^{path}: must be a whole gzip file; received: .*end"):
        load()
    path.write_bytes(gzip.compress(gzip.decompress(whole)[:-1]))
    with pytest.raises(ValueError, match=f"^{path}: must be an idx file of bytes; .* 00 00 08 03"):
        load()
    path.write_bytes(gzip.compress(b""))
    with pytest.raises(ValueError, match="received: 0 bytes that begin with nothing"):
        load()


def test_fashion_mnist_of_debian():
    if not packaged.DEBIAN_FASHION_MNIST.is_dir():
        pytest.skip("Debian's package dataset-fashion-mnist is not here")
    test = data.load_classification("fashion_mnist", "test")
    np.testing.assert_array_equal(np.bincount(test.labels), [1000] * 10)


def test_digits():
    sizes = {"train": 1197, "val": 300, "test": 300}
    digits = sklearn.datasets.load_digits()
    seen = []
    for split, size in sizes.items():
        dataset = data.load_classification("digits", split)
        assert dataset.num_examples == size and dataset.class_names == list("0123456789")
        (batch,) = data.classification_batches(dataset, (8, 8, 3), size)
        ids = batch["image_ids"].numpy()
        np.testing.assert_array_equal(batch["labels"], digits.target[ids])
        np.testing.assert_allclose(batch["images"][..., 1], digits.images[ids] * 255 / 16, atol=0.5)
        seen += ids.tolist()
    assert sorted(seen) == list(range(1797))
    with pytest.raises(ValueError, match="one of: train, val, test; received: validation$"):
        data.load_classification("digits", "validation")


def test_glyphs():
    """Each letter is in one split, in several typefaces, and is none of the digits."""
    seen = {}
    for split in ("train", "val", "test"):
        dataset = data.load_classification("glyphs", split)
        assert np.bincount(dataset.labels).min() >= 4
        for file_name, label in zip(dataset.file_names, dataset.labels):
            name, part, letter, font = file_name.split("/")
            assert (name, part) == ("glyphs", split) and font in glyphs.FONTS
            assert unicodedata.name(letter).lower() == dataset.class_names[label]
            assert unicodedata.category(letter).startswith("L")
            assert seen.setdefault(letter, split) == split
        (batch,) = data.classification_batches(dataset, (32, 32, 3), dataset.num_examples)
        ink = batch["images"].numpy()[..., 0]
        extents = []
        for axis in (1, 2):  # letters stand in the middle
            there = np.any(ink > 0, axis=axis)
            before, after = there.argmax(1), there[:, ::-1].argmax(1)
            assert np.abs(before - after).max() <= 2
            extents.append(32 - before - after)
        assert set(np.maximum(*extents)) <= {25, 26}
        first = ink[np.unique(dataset.labels, return_index=True)[1]].reshape(-1, 1024)
        alike = np.corrcoef(first) - np.eye(len(first))
        assert alike.max() <= 0.95
    assert seen["A"] == "train" and "\N{GREEK CAPITAL LETTER ALPHA}" not in seen
    assert seen["\N{ARMENIAN CAPITAL LETTER AYB}"] == "val"
    assert seen["\N{LAO LETTER KO}"] == seen["\N{ARABIC LETTER SEEN}"] == "test"
    with pytest.raises(ValueError, match="one of: train, val, test; received: validation$"):
        data.load_classification("glyphs", "validation")


def test_objects_are_cut_out_with_context(tmp_path):
    """A red object at the border, a green one, and one before it, which it covers wholly."""
    image = np.full((64, 64, 3), 128, np.uint8)
    image[0:16, 8:20] = (250, 20, 20)
    image[40:60, 30:50] = (20, 250, 20)
    PIL.Image.fromarray(image).save(tmp_path / "a.png")
    record = dataset_lib.clean_picture(
        tmp_path / "a.png", 7, (64, 64),
        [[44, 44, 50, 50], [0, 8, 16, 20], [40, 30, 60, 50]], [1, 1, 0], [False] * 3,
        dataset_lib.Problems(),
    )  # fmt: skip
    detection = dataset_lib.DetectionDataset("test", "train", ["g", "r"], [record], [])
    crops = data.crop_objects("scenes", detection)
    np.testing.assert_array_equal(crops.labels, [1, 0])
    assert crops.image_ids == [701, 702]
    first, second = (pictures.decode(e["encoded"]).numpy() for e in crops.encoded_examples())
    # Squares of 1.25 sides of the box.
    assert first.shape == (20, 20, 3) and second.shape == (25, 25, 3)
    # The square moves into the picture: rows 0..20, columns 4..24.
    assert np.abs(first - image[0:20, 4:24].astype(float)).mean() < 8
    assert abs(int(first[2, 6, 0]) - 250) < 20 and abs(int(first[18, 6, 0]) - 128) < 20
    assert abs(int(second[12, 12, 1]) - 250) < 20 and abs(int(second[0, 0, 1]) - 128) < 20


@pytest.mark.parametrize("name", ["", "cifar10", "folder:", "tfds:", "voc:here", "digits:1"])
def test_unknown_names(name):
    with pytest.raises(ValueError, match=f"dataset must be scenes, .*; received: {name}$"):
        data.load_classification(name)


def _of_picture(folder, image):
    """A data set of one picture, twice."""
    for name in ("a", "b"):
        (folder / "train" / name).mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(image).save(folder / "train" / name / "x.png")
    return _load(folder)


@pytest.mark.parametrize(
    ("size", "image_shape", "crop_fraction", "resized", "corner"),
    [
        ((48, 80), (32, 32, 3), 1.0, (32, 53), (0, 10)),
        ((80, 48), (28, 28, 3), 0.875, (53, 32), (12, 2)),
        ((40, 40), (24, 36, 3), 1.0, (36, 36), (6, 0)),
        ((40, 40), (24, 36, 3), 0.75, (48, 48), (12, 6)),
        ((9, 7), (20, 20, 3), 1.0, (26, 20), (3, 0)),
        ((1, 1), (8, 8, 3), 0.875, (9, 9), (0, 0)),
        ((30, 30), (30, 30, 3), 1.0, (30, 30), (0, 0)),
    ],
)
def test_centre_crop(tmp_path, size, image_shape, crop_fraction, resized, corner):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    dataset = _of_picture(tmp_path, image)
    (batch,) = data.classification_batches(dataset, image_shape, 2, crop_fraction=crop_fraction)
    expected = tf.image.resize(image, resized, antialias=True).numpy()
    expected = expected[corner[0] :, corner[1] :][: image_shape[0], : image_shape[1]]
    assert batch["images"].dtype == tf.uint8
    np.testing.assert_allclose(batch["images"][0], expected, atol=0.51)


def test_a_thin_picture_takes_little_memory(tmp_path):
    image = np.zeros((4000, 1, 3), np.uint8)
    image[2000:] = 200
    (batch,) = data.classification_batches(_of_picture(tmp_path, image), (224, 224, 3), 2)
    # One pixel of the picture becomes 224 rows, the border of two colours lies in the middle.
    assert int(batch["images"][0, 0, 0, 0]) < 60 and int(batch["images"][0, -1, -1, 2]) > 140
