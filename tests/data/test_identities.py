"""Persons as data: folders, splits by person, and batches of P persons with K pictures."""

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from kerasvision import data
from kerasvision.data import identities, pictures


def picture(path, value, mode="L", size=(9, 7)):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new(mode, size, value).save(path)


@pytest.fixture
def people(tmp_path):
    """s1 to s10 with 3 pictures, but s3 with 1 and s4 with none; values 20 * person + number."""
    for person in range(1, 11):
        for number in range({3: 1, 4: 0}.get(person, 3)):
            # Not in the order of their names.
            picture(tmp_path / f"s{person}" / f"{9 + number}.pgm", 20 * person + number)
    (tmp_path / "s4").mkdir()
    return tmp_path


def load(root, classes=None, split="train"):
    return data.load_identities(f"folder:{root}", split, classes=classes)


def values(dataset):
    return [int(pictures.decode(e["encoded"])[0, 0, 0]) for e in dataset.encoded_examples()]


def test_folders_in_natural_order(people):
    dataset = load(people)
    assert dataset.class_names == ["s1", "s2", "s3", "s5", "s6", "s7", "s8", "s9", "s10"]
    expected = [20 * p + n for p in (1, 2, 3, 5, 6, 7, 8, 9, 10) for n in range(1 if p == 3 else 3)]
    assert values(dataset) == expected
    labels = np.repeat(np.arange(9), [3, 3, 1, 3, 3, 3, 3, 3, 3])
    np.testing.assert_array_equal(dataset.labels, labels)
    empty, single = dataset.problems
    assert empty.endswith("should have a readable picture, left out; received: none of s4")
    assert "received: one of s3 (1 of 9 persons)" in single


def test_persons_are_divided(people):
    train, val = load(people, "0:7"), load(people, "7:")
    assert val.class_names == ["s9", "s10"] and len(train.class_names) == 7
    np.testing.assert_array_equal(val.labels, [0, 0, 0, 1, 1, 1])
    assert values(val) == [180, 181, 182, 200, 201, 202]
    assert load(people, "1,8").class_names == ["s2", "s10"]


@pytest.mark.parametrize(
    "text, numbers",
    [("0:3", [0, 1, 2]), (":2", [0, 1]), ("7:", [7, 8, 9]), ("4", [4]), ("8,1:3, 2", [1, 2, 8]),
     (None, list(range(10)))],
)  # fmt: skip
def test_classes_are_named_by_numbers(text, numbers):
    assert identities.chosen_classes(text, 10) == numbers


@pytest.mark.parametrize("text", ["", "3:3", "5:2", "10", "0:11", "a", "-1", "1;2"])
def test_other_classes_are_refused(text):
    with pytest.raises(ValueError, match=f"from 0 to 9; received: {text}$"):
        identities.chosen_classes(text, 10)


def test_netpbm_files_of_all_kinds(tmp_path):
    deep = np.full((5, 4), 0x8080, ">u2")
    (tmp_path / "a").mkdir()
    (tmp_path / "a/deep.pgm").write_bytes(b"P5\n# a comment\n4 5\n65535\n" + deep.tobytes())
    (tmp_path / "a/text.pgm").write_bytes(b"P2 2 1 255 7 9")
    picture(tmp_path / "a/color.ppm", (10, 20, 30), "RGB")
    picture(tmp_path / "b/usual1.png", 44)
    picture(tmp_path / "b/usual2.jpg", 90)
    (tmp_path / "b/broken.pgm").write_bytes(b"P5 9 7 255 " + bytes(20))
    (tmp_path / "b/notes.txt").write_text("no picture")
    dataset = load(tmp_path)
    found = [pictures.decode(e["encoded"]).numpy() for e in dataset.encoded_examples()]
    assert [f[0, 0].tolist() for f in found] == [
        [10, 20, 30], [128] * 3, [7] * 3, [44] * 3, [90] * 3,
    ]  # fmt: skip
    assert found[1].shape == (5, 4, 3) and found[2].shape == (1, 2, 3)
    problems = "\n".join(dataset.problems)
    assert "broken.pgm: must be a whole PGM or PPM picture, left out" in problems
    assert "notes.txt" in problems


def test_a_folder_with_splits(tmp_path):
    for split, persons in (("train", "ab"), ("val", "cde")):
        for person in persons:
            for number in range(2):
                value = 10 * number + ord(person) % 10
                picture(tmp_path / split / person / f"{number}.png", value)
    assert load(tmp_path).class_names == ["a", "b"]
    assert load(tmp_path, "1:", "val").class_names == ["d", "e"]


def test_missing_folders_are_told(tmp_path):
    with pytest.raises(ValueError, match="nowhere: must be a folder with a folder for each"):
        load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="must have a folder with pictures for each person"):
        load(tmp_path)


def test_classes_of_other_sets():
    dataset = data.load_identities("digits", "val", classes="3,5:7")
    whole = data.load_classification("digits", "val")
    assert dataset.class_names == ["3", "5", "6"]
    kept = np.isin(whole.labels, [3, 5, 6])
    assert dataset.num_examples == kept.sum()
    names = np.array(["3", "5", "6"])[dataset.labels]
    np.testing.assert_array_equal(names.astype(int), whole.labels[kept])
    assert dataset.image_ids == [i for i, k in zip(whole.image_ids, kept) if k]
    first = next(iter(dataset.encoded_examples()))["encoded"].numpy()
    assert first == whole._stream.numpy()[kept][0]


def batches(dataset, p=4, k=2, **settings):
    found = data.identity_batches(dataset, (7, 9, 3), p, k, **settings)
    return [{n: v.numpy() for n, v in batch.items()} for batch in found]


def test_a_batch_has_p_persons_with_k_pictures(people):
    dataset = load(people)
    found = batches(dataset, steps_per_epoch=30)
    assert len(found) == 30
    seen = set()
    for batch in found:
        assert batch["images"].shape == (8, 7, 9, 3) and batch["images"].dtype == np.uint8
        labels = batch["labels"].reshape(4, 2)
        assert (labels[:, 0] == labels[:, 1]).all() and len(set(labels[:, 0])) == 4
        assert (
            batch["image_ids"].reshape(4, 2).T[0] != batch["image_ids"].reshape(4, 2).T[1]
        ).all()
        np.testing.assert_array_equal(dataset.labels[batch["image_ids"]], batch["labels"])
        expected = np.array(values(dataset))[batch["image_ids"]]
        np.testing.assert_array_equal(batch["images"][:, 3, 3, 0], expected)
        seen |= set(batch["image_ids"].tolist())
    # All but the one picture of s3.
    assert seen == set(range(25)) - {6}


def test_all_persons_and_pictures_are_as_likely(people):
    found = batches(load(people, "0:2"), 1, 2, steps_per_epoch=300)
    counts = np.bincount(np.concatenate([batch["image_ids"] for batch in found]), minlength=6)
    np.testing.assert_allclose(counts, 100, atol=30)


def test_few_pictures_come_round_again(people):
    (batch,) = batches(load(people), 8, 5, steps_per_epoch=1)
    for own in batch["image_ids"].reshape(8, 5):
        assert len(set(own)) == 3 and own[0] == own[3] and own[1] == own[4]


def test_epochs_resume(people):
    dataset = load(people)
    assert data.identity_steps(dataset, 4, 2) == 3  # of 24 pictures
    augmentation = data.ClassificationAugmentation((7, 9, 3), 9, pad=2)
    whole = batches(dataset, epochs=3, seed=5, augmentation=augmentation)
    later = batches(dataset, first_epoch=1, epochs=3, seed=5, augmentation=augmentation)
    other = batches(dataset, epochs=3, seed=6, augmentation=augmentation)
    assert len(whole) == 9 and len(later) == 6
    for a, b in zip(whole[3:], later):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
    assert any((a["image_ids"] != b["image_ids"]).any() for a, b in zip(whole, other))
    # The same picture is cropped otherwise another time.
    crops = {}
    for batch in whole:
        for number, image in zip(batch["image_ids"], batch["images"]):
            crops.setdefault(number, set()).add(np.asarray(image).tobytes())
    assert max(map(len, crops.values())) > 2


def test_mistakes_are_told(people):
    dataset = load(people)
    with pytest.raises(ValueError, match="identities must be from 1 to 8, as many as have two"):
        batches(dataset, 9)
    with pytest.raises(ValueError, match="pictures_each must be 2 or more; received: 1"):
        batches(dataset, 2, 1)


def test_streams_of_tfds_are_sampled(people):
    """Sets of more than half a gigabyte come as a stream."""
    dataset = data.only_classes(data.load_classification("digits", "val"), "0:3")
    stream = tf.data.Dataset.from_tensor_slices(dataset._stream)
    expected = batches(dataset, 2, 2, steps_per_epoch=2)
    dataset._stream = stream
    for a, b in zip(expected, batches(dataset, 2, 2, steps_per_epoch=2)):
        np.testing.assert_array_equal(a["images"], b["images"])
    again = data.only_classes(dataset, "1")
    assert again.num_examples == np.sum(dataset.labels == 1)


def test_faces():
    """30 people with 10 pictures each, where the development data are."""
    import pathlib

    folder = pathlib.Path(__file__).parents[3] / "shared/data/faces/orl"
    if not folder.is_dir():
        pytest.skip("the development pictures are not here")
    val = load(folder, "22:30")
    assert val.class_names == [f"s{n}" for n in range(23, 31)] and val.num_examples == 80
    assert val.problems == []
    assert pictures.decode(next(iter(val.encoded_examples()))["encoded"]).shape == (112, 92, 3)
