import keras
import numpy as np
import pytest
from keras import layers, ops

from kerasvision.detection.rcnn import fully_connected_layers
from kerasvision.detection.spp_net import LEVELS, SPPNet, spp_net

COLORS = np.float32([[220, 30, 30], [30, 40, 220]])


def tiny_model(**settings):
    keras.utils.set_random_seed(0)
    images = keras.Input((48, 64, 3), name="images")
    x = layers.Rescaling(1 / 127.5, -1.0)(images)
    x = layers.Conv2D(5, 3, 4, padding="same", activation="relu")(x)
    head = fully_connected_layers((50 * 5,), (16, 12), 2)
    return SPPNet(keras.Model(images, x), head, 2, num_proposals=40, **settings)


@pytest.fixture(scope="module")
def tiny():
    return tiny_model()


def batch_of_squares(number, seed=0, proposals=40):
    rng = np.random.default_rng(seed)
    images = rng.integers(90, 130, (number, 48, 64, 3)).astype("float32")
    boxes, labels = np.zeros((number, 2, 4), "float32"), np.full((number, 2), -1, "int32")
    regions = np.zeros((number, proposals, 4), "float32")
    for i in range(number):
        label = i % 2
        top, left = rng.integers(0, 24, 2)
        images[i, top : top + 20, left : left + 20] = COLORS[label]
        boxes[i, 0] = np.array([top, left, top + 20, left + 20]) / [48, 64, 48, 64]
        labels[i, 0] = label
        corner = rng.uniform(0, 0.6, (proposals, 2))
        regions[i] = np.concatenate([corner, corner + rng.uniform(0.2, 0.4, (proposals, 2))], 1)
        regions[i, :15] = boxes[i, 0] + rng.uniform(-0.08, 0.08, (15, 4))
    return {
        "images": images,
        "proposals": np.clip(regions, 0, 1),
        "bounding_boxes": {"boxes": boxes, "labels": labels},
    }


def reference_pyramid(maps, region):
    """Maxima of 1 + 4 + 9 + 36 bins, cell by cell.

    The corners' cells, rounded half up, belong to the region; bins begin at rounded down and end
    at rounded up fractions of it.
    """
    height, width, channels = maps.shape
    ends = [int(np.floor(x * n + 0.5)) for x, n in zip(region, (height, width, height, width))]
    top, left, bottom, right = ends
    rows, columns = max(bottom - top + 1, 1), max(right - left + 1, 1)
    numbers = []
    for level in (1, 2, 3, 6):
        for i in range(level):
            for j in range(level):
                y0, y1 = top + i * rows // level, top - (-(i + 1) * rows // level)
                x0, x1 = left + j * columns // level, left - (-(j + 1) * columns // level)
                cells = maps[max(y0, 0) : min(y1, height), max(x0, 0) : min(x1, width)]
                empty = np.zeros(channels)
                numbers.append(cells.max(axis=(0, 1)) if cells.size else empty)
    return np.concatenate(numbers)


def test_the_pyramid_has_50_bins():
    assert sum(level**2 for level in LEVELS) == 50
    model = spp_net(3, (64, 64, 3), units=(8, 4))
    assert model.network.output_shape == (None, 4, 4, 96)
    assert model.head.input_shape == (None, 50 * 96)
    assert model.image_shape == (64, 64, 3)


def test_features_equal_reference(tiny):
    batch = batch_of_squares(2)
    found = ops.convert_to_numpy(tiny.extract(batch["images"], batch["proposals"]))
    maps = ops.convert_to_numpy(tiny.network(batch["images"]))
    assert found.shape == (2, 40, 250)
    for i, j in np.ndindex(2, 40):
        expected = reference_pyramid(maps[i], batch["proposals"][i, j])
        np.testing.assert_allclose(found[i, j], expected, atol=1e-5)
    compiled = tiny.extract_on_batch(batch["images"], batch["proposals"])
    np.testing.assert_allclose(compiled, found, atol=1e-4)


@pytest.mark.slow
def test_only_fully_connected_layers_are_trained():
    model = tiny_model(num_samples=32)
    batch = batch_of_squares(16)
    before = [w.copy() for w in model.network.get_weights()]
    model.compile(keras.optimizers.Adam(0.01))
    losses = model.fit(batch, batch_size=8, epochs=12, verbose=0).history["loss"]
    assert losses[-1] < 0.4 * losses[0]
    for old, new in zip(before, model.network.get_weights()):
        np.testing.assert_array_equal(old, new)
    assert {v.path.split("/")[-2] for v in model.trainable_variables} == {"fc6", "fc7", "logits"}

    single = [keras.tree.map_structure(lambda x: x[i : i + 1], batch) for i in range(16)]
    counts = model.fit_classifiers(single)
    assert counts["svm_positives"] == 16 and counts["regression_pairs"] > 50
    test = batch_of_squares(6, seed=5)
    found = model.predict_on_batch({name: test[name] for name in ("images", "proposals")})
    np.testing.assert_array_equal(found["labels"][:, 0], test["bounding_boxes"]["labels"][:, 0])


def test_regions_between_background_and_object_are_ignored(tiny):
    """[0.1, 0.5) is the background of fine-tuning (section 4.1)."""
    truth = np.float32([[[0.2, 0.2, 0.6, 0.6]]])
    proposals = np.float32(
        [[[0.2, 0.2, 0.6, 0.6], [0.2, 0.2, 0.6, 0.35], [0.0, 0.0, 0.25, 0.25], [0.7, 0.7, 1, 1]]]
    )  # IoU 1, 0.375, 0.01 and 0
    _, matches = tiny.match_regions(proposals, np.full((1, 4), True), truth, np.array([[1]]))
    np.testing.assert_array_equal(ops.convert_to_numpy(matches), [[0, -1, -2, -2, 0]])


@pytest.mark.slow
def test_file_round_trip(tiny, tmp_path):
    tiny.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(again, SPPNet) and not again.network.trainable
    batch = batch_of_squares(2)
    inputs = {name: batch[name] for name in ("images", "proposals")}
    expected, found = tiny.predict_on_batch(inputs), again.predict_on_batch(inputs)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5)
