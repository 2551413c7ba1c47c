import functools

import numpy as np
import PIL.Image
import PIL.ImageEnhance
import PIL.ImageOps
import pytest
import scipy.ndimage
import tensorflow as tf

from kerasvision import data
from kerasvision.data import classification_augmentation as augmentation
from kerasvision.data import dataset as dataset_lib
from kerasvision.data import warping
from kerasvision.data.classification_augmentation import ClassificationAugmentation


def photo(height=40, width=52):
    """A smooth picture of all values with some texture, uint8."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (5, 6, 3))
    image = tf.image.resize(coarse, (height, width), "bicubic").numpy()
    image += rng.normal(0, 6, image.shape)
    return np.clip(np.round(image), 0, 255).astype(np.uint8)


def float32(image):
    return tf.constant(image, tf.float32)


def one_hot(labels, num_classes=4):
    return np.eye(num_classes, dtype=np.float32)[labels]


@pytest.mark.parametrize("size", [(60, 80), (100, 20), (7, 300)])
def test_area_crops(size):
    draw = tf.function(
        lambda seed: augmentation.sample_area_crop(tf.constant(size), [seed, 3], 0.2)
    )
    areas = []
    for seed in range(300):
        top, left, bottom, right = draw(tf.constant(seed)).numpy()
        height, width = (bottom - top) * size[0], (right - left) * size[1]
        assert min(top, left) >= -1e-6 and max(bottom, right) <= 1 + 1e-6
        assert 3 / 4 - 1e-4 <= width / height <= 4 / 3 + 1e-4
        areas.append((bottom - top) * (right - left))
    if size == (60, 80):
        assert min(areas) >= 0.2 - 1e-5 and max(areas) <= 1 + 1e-5
        # Uniform but for large crops that do not fit at first.
        assert 0.2 < min(areas) < 0.22 and max(areas) > 0.9 and 0.45 < np.mean(areas) < 0.62


def test_area_crop_of_a_strip_is_its_middle():
    # No crop of 0.9 of the area has a ratio of 3/4 or more: a central 300 x 225 remains.
    window = augmentation.sample_area_crop(tf.constant((300, 1000)), [0, 0], 0.9).numpy()
    np.testing.assert_allclose(window, [0, 0.3, 1, 0.7], atol=1e-6)
    window = augmentation.sample_area_crop(tf.constant((1000, 300)), [0, 0], 0.9).numpy()
    np.testing.assert_allclose(window, [0.3, 0, 0.7, 1], atol=1e-6)


def test_pad_and_crop_moves_the_picture_by_up_to_the_padding():
    image = photo(16, 20)
    augment = tf.function(
        ClassificationAugmentation((16, 20, 3), 4, pad=2, flip=False, fill=(9, 8, 7))
    )
    padded = np.full((20, 24, 3), (9, 8, 7), np.uint8)
    padded[2:18, 2:22] = image
    seen = set()
    for seed in range(150):
        output = augment(image, tf.constant([seed, 0])).numpy()
        places = [
            (y, x)
            for y in range(5)
            for x in range(5)
            if np.array_equal(output, padded[y : y + 16, x : x + 20])
        ]
        assert len(places) == 1
        seen.update(places)
    assert len(seen) == 25


def test_distortion_equals_the_slow_one():
    image = photo(30, 24)
    for seed in ((3, 1), (8, 2)):
        distorted = augmentation.distort(tf.constant(image), tf.constant(seed), 0.5).numpy()
        seed_affine, seed_elastic = tf.unstack(tf.random.split(tf.constant(seed), 2))
        draws = tf.random.stateless_uniform((6,), seed_affine, -0.5, 0.5).numpy()
        turn, shear, height, width, down, right = draws
        assert np.abs(draws).max() > 0.2
        bent = warping.elastic_displacements((30, 24), seed_elastic, 0.5 * 24 / 20, 4).numpy()
        turned = [
            [np.cos(0.2 * turn), -np.sin(0.2 * turn)],
            [np.sin(0.2 * turn), np.cos(0.2 * turn)],
        ]
        sheared = [[1, 0], [0.3 * shear * np.exp(0.2 * height), 1]]
        stretched = np.diag([np.exp(-0.2 * height), np.exp(-0.2 * width)])
        matrix = np.array(turned) @ sheared @ stretched
        places = np.zeros((2, 30, 24))
        for place in np.ndindex(30, 24):
            moved = matrix @ (np.array(place) - [14.5, 11.5]) + [14.5, 11.5]
            places[:, *place] = moved + [down * 30 / 16, right * 24 / 16] + bent[:, *place]
        for channel in range(3):
            expected = scipy.ndimage.map_coordinates(
                image[..., channel].astype(float), places, order=1, mode="nearest"
            )
            np.testing.assert_allclose(distorted[..., channel], expected, atol=0.6)


def test_without_strength_nothing_is_distorted():
    image = photo(9, 14)
    for change, none in ((augmentation.distort, 0.0), (augmentation.coarsen, 1.0)):
        np.testing.assert_array_equal(change(tf.constant(image), tf.constant([1, 2]), none), image)


def test_coarse_pictures_lose_the_finest_detail():
    """Of stripes as wide as a pixel hardly anything is left, of those of eight pixels most."""
    for width, least, most in ((1, 0, 0.5), (8, 0.8, 1.0)):
        stripes = np.zeros((32, 32, 3), np.uint8)
        stripes[:, np.arange(32) // width % 2 == 1] = 200
        kept = [
            augmentation.coarsen(tf.constant(stripes), tf.constant([seed, 0]), 0.5).numpy().std()
            for seed in range(30)
        ]
        assert least <= np.mean(kept) / stripes.std() <= most
        assert np.std(kept) > 0


def test_half_of_the_pictures_is_flipped():
    image = photo(8, 10)
    augment = tf.function(ClassificationAugmentation((8, 10, 3), 4))
    outputs = [augment(image, tf.constant([seed, 0])).numpy() for seed in range(200)]
    flipped = [np.array_equal(output, image[:, ::-1]) for output in outputs]
    straight = [np.array_equal(output, image) for output in outputs]
    assert sum(flipped) + sum(straight) == 200 and 70 < sum(flipped) < 130


def test_without_randomness_the_picture_is_its_centre_crop():
    augment = ClassificationAugmentation((8, 8, 3), 4, flip=False)
    image = photo(8, 12)
    np.testing.assert_array_equal(augment(image, tf.constant([0, 0])), image[:, 2:10])
    images, labels = np.zeros((2, 8, 8, 3), np.uint8), tf.constant([1, 2])
    mixed, same = augment.mix(images, labels, tf.constant([0, 0]))
    assert mixed is images and same is labels


def test_changes_equal_pillow():
    image = photo()
    picture = PIL.Image.fromarray(image)
    np.testing.assert_array_equal(
        augmentation.equalize(float32(image)), PIL.ImageOps.equalize(picture)
    )
    np.testing.assert_allclose(
        augmentation.auto_contrast(float32(image // 2 + 30)),
        PIL.ImageOps.autocontrast(PIL.Image.fromarray(image // 2 + 30)),
        atol=1,
    )
    changes = {
        augmentation.adjust_color: PIL.ImageEnhance.Color,
        augmentation.adjust_contrast: PIL.ImageEnhance.Contrast,
        augmentation.adjust_sharpness: PIL.ImageEnhance.Sharpness,
    }
    for change, enhancer in changes.items():
        for factor in (0.1, 1.0, 1.9):
            output = np.clip(change(float32(image), factor), 0, 255)
            np.testing.assert_allclose(output, enhancer(picture).enhance(factor), atol=2)


def test_pictures_of_one_colour_stay():
    image = np.full((9, 7, 3), 77, np.uint8)
    image[..., 1] = 5
    for change in (augmentation.equalize, augmentation.auto_contrast):
        np.testing.assert_array_equal(change(float32(image)), image)
    tiny = float32(photo(2, 2))
    np.testing.assert_array_equal(augmentation.adjust_sharpness(tiny, 0.1), tiny)


def test_affine_moves_turns_and_shears():
    image = photo(21, 21)
    fill = (1.0, 2.0, 3.0)
    moved = augmentation.affine(float32(image), [[1, 0], [0, 1]], (4, -2), fill).numpy()
    np.testing.assert_allclose(moved[2:, :17], image[:19, 4:], atol=1e-3)
    assert np.allclose(moved[:2], fill) and np.allclose(moved[:, 17:], fill)
    turned = augmentation.affine(float32(image), [[0, -1], [1, 0]], (0, 0), fill).numpy()
    np.testing.assert_allclose(turned, np.rot90(image), atol=1e-2)
    # Every row moves by a pixel more than the one above it; the middle one stays.
    sheared = augmentation.affine(float32(image), [[1, 1], [0, 1]], (0, 0), fill).numpy()
    np.testing.assert_allclose(sheared[10], image[10], atol=1e-3)
    np.testing.assert_allclose(sheared[13, :18], image[13, 3:], atol=1e-3)


def rand_augmented(magnitude, num_ops, seeds, image):
    change = tf.function(
        functools.partial(augmentation.rand_augment, magnitude=magnitude, num_ops=num_ops)
    )
    return [change(float32(image), tf.constant([seed, 1])).numpy() for seed in range(seeds)]


def test_rand_augment_makes_each_change_of_its_strength():
    image = photo(30, 40) // 2 + 40
    picture = PIL.Image.fromarray(image)
    outputs = rand_augmented(0.5, 1, 200, image)
    for output in outputs:
        assert output.dtype == np.float32 and output.min() >= 0 and output.max() <= 255
        np.testing.assert_array_equal(output, np.round(output))
    expected = [
        image,
        PIL.ImageOps.equalize(picture),
        PIL.ImageOps.autocontrast(picture),
        PIL.ImageOps.solarize(picture, 128),
        PIL.ImageOps.posterize(picture, 6),
    ]
    for enhancer in ("Color", "Contrast", "Brightness", "Sharpness"):
        enhance = getattr(PIL.ImageEnhance, enhancer)(picture).enhance
        expected += [enhance(0.55), enhance(1.45)]
    for sign in (-1, 1):
        angle = sign * np.pi / 12
        cos, sin = np.cos(angle), np.sin(angle)
        rows = [[cos, -sin, 0, sin, cos, 0], [1, sign * 0.15, 0, 0, 1, 0]]
        rows += [[1, 0, 0, sign * 0.15, 1, 0]]
        rows += [[1, 0, sign * 0.225 * 40, 0, 1, 0], [1, 0, 0, 0, 1, sign * 0.225 * 30]]
        for a, b, right, c, d, down in rows:
            # Pillow's coordinates begin at the corner of a pixel.
            right += 20 - a * 20 - b * 15
            down += 15 - c * 20 - d * 15
            expected.append(
                picture.transform(
                    (40, 30), PIL.Image.Transform.AFFINE, (a, b, right, c, d, down),
                    PIL.Image.Resampling.BILINEAR, fillcolor=(124, 117, 104),
                )
            )  # fmt: skip
    # The middle, as borders are blended with the fill colour in different ways.
    found = []
    for output in outputs:
        inner = np.s_[8:-8, 10:-10]
        errors = [
            np.abs(output[inner] - np.asarray(other, np.float32)[inner]).mean()
            for other in expected
        ]
        assert min(errors) < 0.8
        found.append(int(np.argmin(errors)))
    assert len(set(found)) == len(expected)


def test_rand_augment_of_no_magnitude_only_equalises():
    image = photo(20, 20)
    for output in rand_augmented(0.0, 1, 60, image):
        likely = (image, augmentation.equalize(float32(image)))
        likely += (np.round(augmentation.auto_contrast(float32(image))),)
        assert min(np.abs(output - other).max() for other in likely) <= 1e-3


def test_mixup_is_an_average():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 4, 5, 3)).astype(np.uint8)
    labels = one_hot(np.arange(6), 6)
    for seed in range(5):
        mixed, shares = augmentation.mixup(images, labels, tf.constant([seed, 0]), 0.4)
        np.testing.assert_allclose(np.sum(shares, -1), 1, atol=1e-6)
        # As every picture has a class of its own, its label says what it is a mixture of.
        expected = np.einsum("bc,chwd->bhwd", shares.numpy(), images.astype(np.float32))
        np.testing.assert_allclose(mixed, expected, atol=1e-3)


def test_weights_are_of_the_beta_distribution():
    for alpha in (0.2, 1.0, 8.0):
        weights = augmentation._beta(20_000, tf.constant([1, 2]), alpha).numpy()
        assert abs(weights.mean() - 0.5) < 0.02
        assert abs(weights.var() - 0.25 / (2 * alpha + 1)) < 0.01
    weights = augmentation._beta(20_000, tf.constant([1, 2]), 1e-3).numpy()
    assert np.isfinite(weights).all() and weights.min() >= 0 and weights.max() <= 1


def test_cutmix_pastes_rectangles_and_labels_are_shares_of_pixels():
    count = 16
    images = np.broadcast_to(np.arange(count)[:, None, None, None], (count, 9, 12, 3))
    labels = one_hot(np.arange(count), count)
    sizes = set()
    for seed in range(10):
        mixed, shares = augmentation.cutmix(
            images.astype(np.uint8), labels, tf.constant([seed, 0]), 1.0
        )
        mixed, shares = mixed.numpy(), shares.numpy()
        for number in range(count):
            counts = np.bincount(mixed[number, :, :, 0].ravel(), minlength=count) / (9 * 12)
            np.testing.assert_allclose(shares[number], counts, atol=1e-6)
            rows, columns = np.nonzero(mixed[number, :, :, 0] != number)
            if rows.size:
                size = (np.ptp(rows) + 1, np.ptp(columns) + 1)
                assert rows.size == size[0] * size[1]  # a full rectangle
                sizes.add(size)
    assert len(sizes) > 30


def test_both_mixtures_take_turns():
    augment = ClassificationAugmentation((4, 4, 3), 8, mixup_alpha=1.0, cutmix_alpha=1.0)
    images = np.broadcast_to(31 * np.arange(8)[:, None, None, None], (8, 4, 4, 3))
    kinds = []
    for seed in range(40):
        mixed, shares = augment.mix(images.astype(np.uint8), np.arange(8), tf.constant([seed, 0]))
        assert mixed.dtype == tf.float32 and shares.dtype == tf.float32
        np.testing.assert_allclose(np.sum(shares, -1), 1, atol=1e-5)
        np.testing.assert_allclose(
            np.mean(mixed, (1, 2, 3)), 31 * shares.numpy() @ np.arange(8), atol=1e-2
        )
        kinds.append(bool(np.all(mixed.numpy() % 31 == 0)))
    assert 8 < sum(kinds) < 32


def stream(dataset, **options):
    augment = ClassificationAugmentation(
        (12, 12, 3), 2, pad=1, randaugment_magnitude=0.7, mixup_alpha=0.5, cutmix_alpha=0.5
    )
    batches = data.classification_batches(
        dataset, (12, 12, 3), 3, augmentation=augment, shuffle=True, drop_remainder=True, **options
    )
    return [tf.nest.map_structure(lambda tensor: tensor.numpy(), batch) for batch in batches]


@pytest.mark.slow
def test_runs_are_equal_and_resume_bit_for_bit(tmp_path):
    for number in range(10):
        path = tmp_path / "train" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(photo(14, 12 + number)).save(path)
    dataset = data.load_classification(f"folder:{tmp_path}", "train")
    assert isinstance(dataset, dataset_lib.PictureDataset)
    whole = stream(dataset, seed=5, epochs=3)
    assert len(whole) == 9
    assert whole[0]["images"].shape == (3, 12, 12, 3) and whole[0]["labels"].shape == (3, 2)
    tf.random.set_seed(1)  # The global seed must not matter.
    resumed = stream(dataset, seed=5, epochs=3, first_epoch=1)
    for one, other in zip(whole[3:], resumed, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, one, other)
    assert np.any(whole[0]["images"] != stream(dataset, seed=6)[0]["images"])


@pytest.mark.parametrize(
    "crop", [{"pad": 3}, {"min_area": 0.08}, {"distortion": 1.0, "min_resolution": 0.01}]
)
def test_any_size(crop):
    augment = tf.function(
        ClassificationAugmentation((24, 16, 3), 4, randaugment_magnitude=1.0, **crop),
        input_signature=[tf.TensorSpec((None, None, 3), tf.uint8), tf.TensorSpec(2, tf.int64)],
    )
    for size in [(1, 1), (1, 300), (300, 2), (50, 40)]:
        for seed in range(20):
            output = augment(photo(*size), tf.constant([seed, 0], tf.int64))
            assert output.shape == (24, 16, 3) and output.dtype == tf.uint8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_shape": (32, 32)}, r"image_shape .*received: \(32, 32\)"),
        ({"num_classes": 0}, "num_classes must be at least 1; received: 0"),
        ({"pad": -1}, "pad must not be negative; received: -1"),
        ({"min_area": 0.0}, r"min_area must be within \(0, 1\]; received: 0.0"),
        ({"pad": 4, "min_area": 0.5}, "two ways to crop.*received: pad=4, min_area=0.5"),
        ({"randaugment_magnitude": 9}, r"within \[0, 1\]; received: 9"),
        ({"randaugment_num_ops": 0}, "randaugment_num_ops must be at least 1"),
        ({"distortion": -0.5}, "distortion must not be negative; received: -0.5"),
        ({"min_resolution": 0.0}, r"min_resolution must be within \(0, 1\]; received: 0.0"),
        ({"mixup_alpha": -0.1}, "mixup_alpha must not be negative"),
        ({"cutmix_alpha": -1.5}, "cutmix_alpha must not be negative; received: -1.5"),
        ({"fill": (1, 2, 300)}, "fill must be three numbers"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        ClassificationAugmentation(**{"image_shape": (32, 32, 3), "num_classes": 4, **arguments})
