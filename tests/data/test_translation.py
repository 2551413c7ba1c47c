"""Pairs of pictures, and pictures of two kinds: readers and batches."""

import cv2
import numpy as np
import pytest

from kerasvision import data
from kerasvision.data import scenes
from kerasvision.data.translation import Pictures, TranslationDataset, without_pairs


def grey(value, size=(8, 10)):
    return np.full((*size, 3), value, "uint8")


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def values(dataset):
    """First pixels of x and y of all examples, in their order."""
    return [(int(x[0, 0, 0]), int(y[0, 0, 0])) for _, x, y in dataset.examples()]


def test_side_by_side(tmp_path):
    for i in range(3):
        both = np.concatenate([grey(10 * i), grey(100 + 10 * i)], axis=1)
        write(tmp_path / f"train/{i}.png", both)
    pairs = data.load_pairs(f"pairs:{tmp_path}", "train")
    assert values(pairs) == [(0, 100), (10, 110), (20, 120)]
    assert values(pairs.swapped()) == [(100, 0), (110, 10), (120, 20)]
    _, x, y = next(pairs.examples())
    assert x.shape == y.shape == (8, 10, 3)


def test_side_by_side_needs_an_even_width(tmp_path):
    write(tmp_path / "train/a.png", grey(0, (8, 11)))
    with pytest.raises(ValueError, match=r"a.png: must be two pictures .*; received: 11 pixels"):
        data.load_pairs(f"pairs:{tmp_path}", "train")


@pytest.mark.parametrize("layout", ["{split}{kind}", "{kind}/{split}"])
def test_two_folders(layout, tmp_path):
    for kind, first, count in (("A", 0, 4), ("B", 100, 3)):
        for i in range(count):
            folder = layout.format(split="train", kind=kind)
            write(tmp_path / folder / f"{i}.png", grey(first + 10 * i))
    unpaired = data.load_unpaired(f"folders:{tmp_path}", "train")
    assert (unpaired.x.num_examples, unpaired.y.num_examples) == (4, 3)
    assert unpaired.num_examples == 3 and not unpaired.paired

    pairs = data.load_pairs(f"folders:{tmp_path}", "train")
    assert values(pairs) == [(0, 100), (10, 110), (20, 120)]
    assert len(pairs.problems) == 1
    assert "3.png: must have a picture of the same name in the other folder" in pairs.problems[0]


def test_pairs_must_be_of_one_size(tmp_path):
    write(tmp_path / "trainA/a.png", grey(0))
    write(tmp_path / "trainB/a.png", grey(0, (8, 12)))
    with pytest.raises(ValueError, match=r"trainB/a.png: must be as large as .*received: 12 x 8"):
        data.load_pairs(f"folders:{tmp_path}", "train")


def test_bad_input(tmp_path):
    with pytest.raises(ValueError, match="must have a folder train; received: no such folder"):
        data.load_pairs(f"pairs:{tmp_path / 'none'}", "train")
    (tmp_path / "val").mkdir()
    with pytest.raises(ValueError, match="must have a folder train; received: val"):
        data.load_pairs(f"pairs:{tmp_path}", "train")
    with pytest.raises(ValueError, match="must have trainA and trainB, .* received: no trainA"):
        data.load_unpaired(f"folders:{tmp_path}", "train")
    with pytest.raises(ValueError, match="dataset must be scenes:labels, .*received: voc:x"):
        data.load_unpaired("voc:x")
    (tmp_path / "train").mkdir()
    (tmp_path / "train/broken.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ValueError, match="(?s)at least one readable picture.*broken.jpg"):
        data.load_pairs(f"pairs:{tmp_path}", "train")
    x, y = (Pictures("a", "train", [f"{i}.png" for i in range(n)]) for n in (2, 3))
    with pytest.raises(ValueError, match="a picture y for each x; received: 2 and 3"):
        TranslationDataset(x, y, paired=True)


def labelled_folder(tmp_path):
    labels = np.zeros((8, 10), "uint8")
    labels[:, 5:] = 1
    labels[0] = 255
    for i in range(4):
        write(tmp_path / f"train/images/{i}.png", grey(10 * i))
        write(tmp_path / f"train/labels/{i}.png", labels)
    classes = "0 ground 90 90 90 / 1 red 255 0 0 / 255 void"
    return data.load_segmentation(f"folder:{tmp_path}", "train", class_list=classes)


def test_labels_become_colours(tmp_path):
    pairs = data.pairs_of_labels(labelled_folder(tmp_path))
    for i, (_, x, y) in enumerate(pairs.examples()):
        np.testing.assert_array_equal(y, grey(10 * i))
        assert (x[0] == 0).all()
        assert (x[1:, :5] == 90).all() and (x[1:, 5:] == [255, 0, 0]).all()


def test_without_pairs_no_picture_has_its_counterpart(tmp_path):
    unpaired = without_pairs(data.pairs_of_labels(labelled_folder(tmp_path)))
    names = [kind.file_names for kind in (unpaired.x, unpaired.y)]
    assert [len(n) for n in names] == [2, 2] and not set(names[0]) & set(names[1])
    assert [y[0, 0, 0] for _, _, y in unpaired.examples()] == [10, 30]


def seen(dataset, **settings):
    """x and y of the batches, as arrays over all epochs."""
    settings = {"shuffle": True, "drop_remainder": True, **settings}
    batches = data.translation_batches(dataset, (4, 6, 3), 2, **settings)
    rows = [(np.asarray(batch["x"]), np.asarray(batch["y"])) for batch in batches]
    return tuple(np.concatenate(kind) for kind in zip(*rows))


def gradient_pairs(tmp_path, count=6):
    """x is a picture whose every pixel tells its place; y is the same, 100 brighter."""
    place = np.arange(80, dtype="uint8").reshape(8, 10, 1).repeat(3, axis=2)
    for i in range(count):
        write(tmp_path / f"trainA/{i}.png", place)
        write(tmp_path / f"trainB/{i}.png", place + 100)
    return f"folders:{tmp_path}"


def test_pairs_are_cropped_and_flipped_alike(tmp_path):
    pairs = data.load_pairs(gradient_pairs(tmp_path), "train")
    x, y = seen(pairs, enlarge=1.6, flip=True, epochs=4)
    assert x.shape == (24, 4, 6, 3)
    np.testing.assert_array_equal(y, x + 100)
    flipped = x[:, 0, 0, 0] > x[:, 0, -1, 0]
    assert 3 < flipped.sum() < 21
    assert len({tuple(image.ravel()) for image in x}) > 10


def test_kinds_without_pairs_are_cropped_and_ordered_apart(tmp_path):
    kinds = data.load_unpaired(gradient_pairs(tmp_path), "train")
    x, y = seen(kinds, enlarge=1.6, flip=True, epochs=4)
    assert any((b != a + 100).any() for a, b in zip(x, y))


def test_a_resumed_run_sees_what_an_uninterrupted_one_would(tmp_path):
    kinds = data.load_unpaired(gradient_pairs(tmp_path), "train")
    whole = seen(kinds, enlarge=1.6, flip=True, epochs=3)
    rest = seen(kinds, enlarge=1.6, flip=True, epochs=3, first_epoch=1)
    for a, b in zip(whole, rest):
        np.testing.assert_array_equal(a[6:], b)


def test_enlarge_must_not_shrink(tmp_path):
    pairs = data.load_pairs(gradient_pairs(tmp_path), "train")
    with pytest.raises(ValueError, match="enlarge must be 1 or more; received: 0.5"):
        data.translation_batches(pairs, (4, 6, 3), 2, enlarge=0.5)
    with pytest.raises(ValueError, match="must fill a batch .*received: 6 pictures"):
        data.translation_batches(pairs, (4, 6, 3), 7, drop_remainder=True)


def test_by_night_the_same_scene_is_dark_but_for_what_the_lamp_shows():
    day, night = (scenes.draw_scene(3, (128, 128), night=n) for n in (False, True))
    for name in ("boxes", "labels", "instances", "depth"):
        np.testing.assert_array_equal(day[name], night[name])
    day_image, night_image = (scene["image"].astype("float64") for scene in (day, night))
    assert night_image.mean() < 0.75 * day_image.mean()
    # Blue keeps more of the corners, which the lamp hardly reaches, than red.
    corner = np.s_[:16, :16]
    kept = night_image[corner].mean((0, 1)) / np.maximum(day_image[corner].mean((0, 1)), 1)
    assert kept[2] > kept[0]
    # What is near the middle keeps more than the corners.
    middle = np.s_[48:80, 48:80]
    assert night_image[middle].mean() / day_image[middle].mean() > kept.mean()
