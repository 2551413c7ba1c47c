import numpy as np
import PIL.Image
import pytest

from kerasvision import data


@pytest.fixture
def folder(tmp_path):
    """Five pictures, each of one grey level with a brighter left third, and a broken one."""
    for number in range(5):
        picture = np.full((30, 60, 3), 20 * number, "uint8")
        picture[:, :20] += 100
        PIL.Image.fromarray(picture).save(tmp_path / f"{number}.png")
    (tmp_path / "9.jpg").write_bytes(b"no picture")
    return tmp_path


def levels(batches):
    return [int(image.min()) // 20 for batch in batches for image in np.asarray(batch["images"])]


def test_pictures_of_folders(folder, tmp_path_factory):
    pictures = data.load_plain([f"folder:{folder}"])
    assert pictures.num_examples == 5 and "9.jpg" in " ".join(pictures.problems)
    (batch,) = data.picture_batches(pictures, (30, 60, 3), 5)
    images = np.asarray(batch["images"])
    assert images.dtype == "uint8" and images.shape == (5, 30, 60, 3)
    for number, image in enumerate(images):
        assert (image[:, :20] == 20 * number + 100).all() and (image[:, 20:] == 20 * number).all()
    twice = data.load_plain([f"folder:{folder}", f"folder:{folder}"])
    assert twice.num_examples == 10


def test_crops_keep_the_aspect_ratio(folder):
    """A square of a picture twice as wide as high shows half of it, all of its height."""
    pictures = data.load_plain([f"folder:{folder}"])
    seen = set()
    for seed in range(8):
        (batch,) = data.picture_batches(pictures, (30, 30, 3), 5, flip=True, seed=seed)
        for number, image in enumerate(np.asarray(batch["images"])):
            row = image[0, :, 0]
            np.testing.assert_array_equal(image, np.broadcast_to(row[None, :, None], image.shape))
            assert set(row) <= {20 * number, 20 * number + 100}
            bright = row == 20 * number + 100
            seen.add((int(bright.sum()), bool(bright[0]), bool(bright[-1])))
    counts = {count for count, *_ in seen}
    assert max(counts) <= 20 and len(counts) > 5
    assert any(left for _, left, _ in seen) and any(right for *_, right in seen)
    with pytest.raises(ValueError, match="enlarge must be 1 or more; received: 0.5"):
        data.picture_batches(pictures, (30, 30, 3), 5, enlarge=0.5)


def test_epochs_can_be_resumed(folder):
    pictures = data.load_plain([f"folder:{folder}"])
    settings = {"shuffle": True, "seed": 3, "drop_remainder": True, "enlarge": 1.2, "flip": True}
    whole = list(data.picture_batches(pictures, (24, 24, 3), 2, epochs=3, **settings))
    rest = list(data.picture_batches(pictures, (24, 24, 3), 2, first_epoch=1, epochs=3, **settings))
    assert len(whole) == 6 and len(rest) == 4
    for a, b in zip(whole[2:], rest):
        np.testing.assert_array_equal(a["images"], b["images"])
    assert levels(whole[:2]) != levels(whole[2:4])


def test_wrong_names(tmp_path):
    with pytest.raises(ValueError, match="must be of scenes and folder:PATH; received: coco"):
        data.load_plain(["coco"])
    with pytest.raises(ValueError, match="must have pictures that can be read; received: none"):
        data.load_plain([f"folder:{tmp_path}"])
