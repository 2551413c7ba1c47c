import io

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from kerasvision import data
from kerasvision.data import dataset as dataset_lib

PICTURE_COUNT = 7


def _solid_png(color, height, width):
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (width, height), color).save(buffer, "PNG")
    return buffer.getvalue()


class TinyDetection(tfds.core.GeneratorBasedBuilder):
    """Picture i is i x 20 grey, 40 + i wide, with i objects."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        objects = {
            "is_crowd": tfds.features.Scalar(np.bool_),
            "area": tfds.features.Scalar(np.int64),
            "occlusion": tfds.features.ClassLabel(names=["none", "some"]),
            "label": tfds.features.ClassLabel(names=["cat", "dog", "owl"]),
            "bbox": tfds.features.BBoxFeature(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(encoding_format="png"),
                    "image/id": tfds.features.Scalar(np.int64),
                    "mask": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
                    "objects": tfds.features.Sequence(objects),
                }
            ),
        )

    def _split_generators(self, download_manager):
        del download_manager
        return {"train": self._generate_examples(0), "validation": self._generate_examples(100)}

    def _generate_examples(self, first_id):
        for i in range(PICTURE_COUNT):
            boxes = [tfds.features.BBox(0.1, 0.2, 0.5, 0.25 + 0.1 * k) for k in range(i)]
            if i == 3:
                boxes[0] = tfds.features.BBox(0.4, 0.2, 0.4, 0.5)
            yield (
                i,
                {
                    "image": io.BytesIO(_solid_png((20 * i,) * 3, 30, 40 + i)),
                    "image/id": first_id + i,
                    "mask": np.zeros((30, 40 + i, 1), np.uint8),
                    "objects": [
                        {
                            "bbox": box,
                            "label": k % 3,
                            "occlusion": 1,
                            "area": 17 * k,
                            "is_crowd": k == 5,
                        }
                        for k, box in enumerate(boxes)
                    ],
                },
            )


class NoDetection(tfds.core.GeneratorBasedBuilder):
    """A set without boxes."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = tfds.features.FeaturesDict({"number": tfds.features.Scalar(np.int64)})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, download_manager):
        del download_manager
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        yield 0, {"number": 1}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    for builder_class in (TinyDetection, NoDetection):
        builder_class(data_dir=folder).download_and_prepare()
    return folder


def test_features_are_found(data_dir):
    dataset = data.load("tfds:tiny_detection", "train", data_dir=data_dir)
    assert dataset.class_names == ["cat", "dog", "owl"]
    assert dataset.num_examples == PICTURE_COUNT
    # Picture 6 has six objects, of which one is a crowd.
    assert dataset.max_boxes == 5
    examples = {int(e["image_id"]): e for e in dataset.encoded_examples()}
    assert sorted(examples) == list(range(PICTURE_COUNT))
    assert examples[0]["boxes"].shape == (0, 4)
    for image_id in (1, 2, 4, 5):
        expected = [[0.1, 0.2, 0.5, 0.25 + 0.1 * k] for k in range(image_id)]
        np.testing.assert_allclose(examples[image_id]["boxes"], expected, atol=1e-6)
        np.testing.assert_array_equal(examples[image_id]["labels"], np.arange(image_id) % 3)
    for image_id, example in examples.items():
        image = tf.io.decode_png(example["encoded"])
        assert image.shape == (30, 40 + image_id, 3)
        assert int(image[0, 0, 0]) == 20 * image_id


def test_box_without_height_is_dropped_and_reported(data_dir):
    dataset = data.load("tfds:tiny_detection", "train", data_dir=data_dir)
    examples = {int(e["image_id"]): e for e in dataset.encoded_examples()}
    assert len(examples[3]["labels"]) == 2
    (line,) = dataset.problems
    assert "width and height must be above 0" in line and "/3:" in line


def test_ground_truth_has_crowds_areas_and_pixels(data_dir):
    truth = data.load("tfds:tiny_detection", "train", data_dir=data_dir).ground_truth()
    sizes = {row["id"]: (row["width"], row["height"]) for row in truth["images"]}
    assert sizes == {i: (40 + i, 30) for i in range(PICTURE_COUNT)}
    of_six = [row for row in truth["annotations"] if row["image_id"] == 6]
    assert [row["iscrowd"] for row in of_six] == [0, 0, 0, 0, 0, 1]
    # An area of 0 says nothing; the box's stands in: 0.4 * 30 by 0.05 * 46 pixels.
    np.testing.assert_allclose(of_six[0]["area"], 12 * 2.3, rtol=1e-5)
    assert of_six[5]["area"] == 85
    np.testing.assert_allclose(of_six[2]["bbox"], [9.2, 3, 0.25 * 46, 12], rtol=1e-5)


def test_val_stands_for_validation_and_slices_work(data_dir):
    dataset = data.load("tfds:tiny_detection", "val", data_dir=data_dir)
    ids = {int(e["image_id"]) for e in dataset.encoded_examples()}
    assert ids == set(range(100, 100 + PICTURE_COUNT))
    assert data.load("tfds:tiny_detection", "train[:3]", data_dir=data_dir).num_examples == 3


def test_order_is_a_permutation_decided_by_the_seed(data_dir):
    dataset = data.load("tfds:tiny_detection", "train", data_dir=data_dir)

    def order(seed):
        return [int(e["image_id"]) for e in dataset.encoded_examples(seed)]

    assert order(5) == order(tf.constant(5, tf.int64))
    assert sorted(order(5)) == list(range(PICTURE_COUNT))
    assert len({tuple(order(seed)) for seed in range(4)}) > 1


def test_resumed_stream_equals_the_tail(data_dir):
    dataset = data.load("tfds:tiny_detection", "train", data_dir=data_dir)

    def ids(first_epoch):
        tf.random.set_seed(first_epoch)  # The global seed must not matter.
        batches = data.batches(
            dataset, (16, 16, 3), 3, shuffle=True, seed=3, first_epoch=first_epoch, epochs=4,
            drop_remainder=True,
        )  # fmt: skip
        return [batch["image_ids"].numpy().tolist() for batch in batches]

    whole = ids(0)
    assert len(whole) == 8
    assert ids(2) == whole[4:]
    assert whole[:2] != whole[2:4]


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("tfds:tiny_detection", "test", "split must be one of: train, validation; received: test"),
        ("tfds:no_detection", "train", "must have an Image and a sequence .* received: number"),
        ("tfds:voc/2007", "train", "Pass --download"),
        ("tfds:no_such_set", "train", "must be a set of TensorFlow Datasets"),
    ],
)
def test_errors_name_set_and_rule(data_dir, name, split, message):
    with pytest.raises(ValueError, match=f"^{name}: .*{message}"):
        data.load(name, split, data_dir=data_dir)


def test_stream_longer_than_the_buffer(data_dir, monkeypatch):
    monkeypatch.setattr(dataset_lib, "SHUFFLE_BUFFER", 3)
    dataset = data.load("tfds:tiny_detection", "train", data_dir=data_dir)

    def order(seed):
        return [int(e["image_id"]) for e in dataset.encoded_examples(seed)]

    assert sorted(order(1)) == list(range(PICTURE_COUNT))
    assert order(1) == order(tf.constant(1, tf.int64))
    assert len({tuple(order(seed)) for seed in range(4)}) > 1
