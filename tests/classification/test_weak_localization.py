import keras
import numpy as np
import pytest
from keras import layers

from kerasvision.classification import weak_localization
from kerasvision.classification.class_activation_maps import class_activation_maps
from kerasvision.classification.weak_localization import (
    WeakLocalizer,
    peaks,
    point_average_precision,
    point_hits,
    pointing_game,
    presence,
    weak_localizer,
)

RNG = np.random.default_rng(0)
NAMES = ["cat", "owl", "fox"]


def backbone(side=16):
    images = keras.Input((side, side, 3), name="images")
    x = layers.Rescaling(1 / 64, -2.0)(images)
    x = layers.Conv2D(8, 3, 2, padding="same", activation="relu")(x)
    return keras.Model(images, layers.Conv2D(8, 3, 2, padding="same", activation="relu")(x))


def batch(count=16, side=16):
    """Grey pictures with a red or a blue square, both or none, and their boxes."""
    images = RNG.uniform(90, 110, (count, side, side, 3)).astype("float32")
    boxes = np.zeros((count, 2, 4), "float32")
    labels = np.full((count, 2), -1)
    for i in range(count):
        for label, channel in [(0, 0), (2, 2)]:
            if i >> (label // 2) & 1:
                y, x = RNG.integers(0, side - 7, 2)
                images[i, y : y + 8, x : x + 8] = 0
                images[i, y : y + 8, x : x + 8, channel] = 255
                boxes[i, label // 2] = np.array([y, x, y + 8, x + 8]) / side
                labels[i, label // 2] = label
    return {"images": images, "bounding_boxes": {"boxes": boxes, "labels": labels}}


@pytest.mark.parametrize("pooling", ["max", "average"])
def test_scores_are_the_pooled_maps(pooling):
    model = weak_localizer(backbone(), 3, pooling, (5,), NAMES)
    images = batch(4)["images"]
    raw = model.network.predict_on_batch(images)
    assert raw["maps"].shape == (4, 4, 4, 3)
    pooled = {"max": np.max, "average": np.mean}[pooling](raw["maps"], axis=(1, 2))
    np.testing.assert_allclose(raw["logits"], pooled, rtol=1e-4, atol=1e-6)
    found = model.predict_on_batch(images)
    np.testing.assert_allclose(found["scores"], 1 / (1 + np.exp(-pooled)), rtol=1e-4)
    np.testing.assert_array_equal(found["points"], peaks(raw["maps"]))
    # 9 D F + 4 F + F C + C on top of the backbone.
    assert model.count_params() == backbone().count_params() + 9 * 8 * 5 + 4 * 5 + 5 * 3 + 3


def test_average_pooling_gives_class_activation_maps():
    """Scores at every place and their mean are the mean and the scores, as in the paper."""
    model = weak_localizer(backbone(), 3, "average", (), NAMES)
    kernel = RNG.normal(size=(1, 1, 8, 3))
    bias = np.array([0.5, -1.0, 2.0])
    model.network.get_layer("predictions").set_weights([kernel, bias])
    features = model.network.get_layer("predictions").input
    dense = layers.Dense(3, name="predictions")
    pooled = layers.GlobalAveragePooling2D(name="avg_pool")(features)
    classifier = keras.Model(model.network.input, dense(pooled))
    dense.set_weights([kernel[0, 0], bias])
    images = batch(4)["images"]
    raw = model.network.predict_on_batch(images)
    np.testing.assert_allclose(raw["logits"], classifier.predict_on_batch(images), rtol=1e-3)
    maps = class_activation_maps(classifier).predict_on_batch(images)
    np.testing.assert_allclose(raw["maps"], maps + bias, rtol=1e-3, atol=1e-4)


def test_loss_is_the_sum_of_binary_logistic_losses():
    model = weak_localizer(backbone(), 3, class_names=NAMES)
    data = batch(8)
    logits = model.network.predict_on_batch(data["images"])["logits"]
    expected = 0.0
    for picture, label in np.ndindex(8, 3):
        sign = 1 if label in data["bounding_boxes"]["labels"][picture] else -1
        expected += np.log1p(np.exp(-sign * logits[picture, label])) / 8
    loss = model.compute_loss(x=data, y_pred=model(data, training=False))
    assert float(loss) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("pooling", ["max", "average"])
def test_training_without_boxes_finds_the_objects(pooling):
    keras.utils.set_random_seed(0)
    model = weak_localizer(backbone(), 3, pooling, (), NAMES)
    model.compile(keras.optimizers.Adam(0.01), jit_compile=False)
    data = batch(64)
    weak = {
        "images": data["images"],
        "bounding_boxes": {"labels": data["bounding_boxes"]["labels"]},
    }
    history = model.fit(weak, epochs=20, batch_size=16, verbose=0).history["loss"]
    assert history[-1] < 0.5 * history[0]
    metrics = weak_localization.evaluate(model, [data])
    assert metrics["pointing_accuracy"] > 0.8 > 2 * metrics["chance"]
    assert set(metrics["per_class"]) == set(NAMES) and metrics["per_class"]["owl"] is None


def test_pictures_of_any_size_without_fixed_sides():
    model = weak_localizer(backbone(None), 3, class_names=NAMES)
    assert model.image_shape == (None, None, 3)
    found = model.predict_on_batch(RNG.uniform(0, 255, (1, 24, 40, 3)).astype("float32"))
    assert found["maps"].shape == (1, 6, 10, 3)


def test_model_survives_a_file(tmp_path):
    model = weak_localizer(backbone(), 3, class_names=NAMES)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    images = batch(4)["images"]
    assert isinstance(loaded, WeakLocalizer) and loaded.class_names == NAMES
    expected, received = model.predict(images, verbose=0), loaded.predict(images, verbose=0)
    for name in ("scores", "points", "maps"):
        np.testing.assert_allclose(received[name], expected[name], rtol=1e-5, atol=1e-6)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="pooling must be max or average; received: sum"):
        weak_localizer(backbone(), 3, "sum")
    images = keras.Input((4, 4, 3))
    flat = keras.Model(images, layers.Flatten()(images))
    with pytest.raises(ValueError, match="must end in a map .* include_top=False"):
        weak_localizer(flat, 3)
    with pytest.raises(ValueError, match="class_names must be 2 names; received 3"):
        weak_localizer(backbone(), 2, class_names=NAMES)


def test_presence():
    labels = np.array([[0, 2, 2], [-1, -1, -1], [1, -1, 5]])
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(presence(labels, 3)),
        [[True, False, True], [False, False, False], [False, True, False]],
    )


def test_peaks():
    maps = np.zeros((1, 2, 4, 3))
    maps[0, 1, 2, 0] = 5  # middle of row 1 of 2, column 2 of 4
    maps[0, 0, 3, 1] = maps[0, 1, 0, 1] = 1  # the first of equals
    maps[0, :, :, 2] = -np.arange(1, 9).reshape(2, 4)
    np.testing.assert_allclose(
        peaks(maps)[0], [[0.75, 0.625], [0.25, 0.875], [0.25, 0.125]], rtol=1e-6
    )


def random_truth(pictures=30, classes=4, most=3):
    corners = RNG.uniform(0, 0.6, (pictures, most, 2))
    boxes = np.concatenate([corners, corners + RNG.uniform(0.1, 0.4, corners.shape)], axis=-1)
    labels = RNG.integers(-1, classes, (pictures, most))
    points = RNG.uniform(0, 1, (pictures, classes, 2))
    return points, boxes, labels


def is_hit(point, boxes, labels, label, tolerance):
    """One point at a time."""
    return any(
        box[0] - tolerance <= point[0] <= box[2] + tolerance
        and box[1] - tolerance <= point[1] <= box[3] + tolerance
        for box, other in zip(boxes, labels)
        if other == label
    )


@pytest.mark.parametrize("tolerance", [0.0, 0.1])
def test_hits_one_by_one(tolerance):
    points, boxes, labels = random_truth()
    hits = point_hits(points, boxes, labels, tolerance)
    assert 0 < hits.mean() < 1
    for picture, label in np.ndindex(hits.shape):
        expected = is_hit(points[picture, label], boxes[picture], labels[picture], label, tolerance)
        assert hits[picture, label] == expected


def test_pointing_game_by_hand():
    # Two pictures of two classes. Class 0 is in both and hit in the first; class 1 in the second.
    boxes = np.array([[[0, 0, 0.5, 1], [0, 0, 0, 0]], [[0, 0, 0.25, 0.5], [0.5, 0.5, 1, 1]]])
    labels = np.array([[0, -1], [0, 1]])
    points = np.array([[[0.3, 0.9], [0.1, 0.1]], [[0.3, 0.3], [0.75, 0.75]]])
    metrics = pointing_game(points, boxes, labels)
    assert metrics["pointing_accuracy"] == pytest.approx(2 / 3)
    assert metrics["pairs"] == 3 and metrics["per_class"] == [0.5, 1.0]
    assert metrics["centre"] == pytest.approx(2 / 3)  # (0.5, 0.5) lies on two of the boxes
    assert metrics["chance"] == pytest.approx((0.5 + 0.125 + 0.25) / 3)
    assert pointing_game(points, boxes, labels, 0.06)["pointing_accuracy"] == 1.0
    with pytest.raises(ValueError, match="an object in at least one picture; received: none"):
        pointing_game(points, boxes, np.full((2, 2), -1))


def test_average_precision_by_hand():
    # Right, wrong, right, then nothing more: of four pictures that show the class.
    boxes = np.tile([[[0.0, 0.0, 0.5, 0.5]]], (5, 1, 1))
    labels = np.array([[0], [0], [0], [-1], [0]])
    inside, outside = [0.2, 0.2], [0.9, 0.9]
    points = np.array([inside, outside, inside, inside, outside])[:, None]
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5])[:, None]
    average = point_average_precision(scores, points, boxes, labels)
    np.testing.assert_allclose(average, [(1 + 2 / 3) / 4])
    # 18 pixels of 500 beside the box still count.
    points[1] = [0.53, 0.2]
    average = point_average_precision(scores, points, boxes, labels)
    np.testing.assert_allclose(average, [3 / 4])


def test_average_precision_step_by_step():
    points, boxes, labels = random_truth(60)
    scores = RNG.uniform(size=(60, 4))
    received = point_average_precision(scores, points, boxes, labels, 0.1)
    for label in range(4):
        curve, found = [], 0
        total = sum(label in row for row in labels)
        for rank, picture in enumerate(np.argsort(-scores[:, label]), start=1):
            found += is_hit(points[picture, label], boxes[picture], labels[picture], label, 0.1)
            curve.append((found / total, found / rank))
        area = sum(
            max(precision for recall, precision in curve if recall >= step / total)
            for step in range(1, found + 1)
        )
        assert received[label] == pytest.approx(area / total)


def test_class_in_no_picture_has_no_average_precision():
    points, boxes, labels = random_truth()
    labels[labels == 1] = 0
    received = point_average_precision(RNG.uniform(size=(30, 4)), points, boxes, labels)
    assert np.isnan(received).tolist() == [False, True, False, False]
