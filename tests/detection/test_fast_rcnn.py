import keras
import numpy as np
import pytest
from keras import layers, ops

from kerasvision.detection.fast_rcnn import (
    FastRCNN,
    fast_rcnn,
    fast_rcnn_head,
    fast_rcnn_vgg16,
    rcnn_minus_r,
)

COLORS = np.float32([[220, 30, 30], [30, 40, 220]])


def tiny_model(**settings):
    keras.utils.set_random_seed(0)
    images = keras.Input((48, 64, 3), name="images")
    x = layers.Rescaling(1 / 127.5, -1.0)(images)
    x = layers.Conv2D(8, 3, 4, padding="same", activation="relu")(x)
    head = fast_rcnn_head((4, 4, 8), (24,), 2)
    settings = {"num_proposals": 40, "num_samples": 24, **settings}
    return FastRCNN(keras.Model(images, x), head, 2, ["red", "blue"], **settings)


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


def iou(a, b):
    height = min(a[2], b[2]) - max(a[0], b[0])
    width = min(a[3], b[3]) - max(a[1], b[1])
    if height <= 0 or width <= 0:
        return 0.0
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return height * width / (area - height * width)


# --- The networks ------------------------------------------------------------------------


@pytest.mark.slow
def test_vgg16_is_the_papers():
    model = fast_rcnn_vgg16(20)
    assert model.count_params() == 134_690_729
    assert model.network.output_shape == (None, 38, 50, 512)
    assert model.num_samples == 64 and model.background_range == (0.1, 0.5)


def test_mobilenet_is_pooled_at_stride_16():
    model = fast_rcnn(3, (64, 96, 3), units=(8, 8))
    assert model.network.output_shape == (None, 4, 6, 96)
    assert model.head.input_shape == (None, 7, 7, 96)


# --- Samples and losses ------------------------------------------------------------------


def test_samples_are_hierarchical():
    model = tiny_model()
    batch = batch_of_squares(2)
    outputs = model(batch, training=True)
    regions, matches = (ops.convert_to_numpy(outputs[name]) for name in ("regions", "matches"))
    assert regions.shape == (2, 24, 4)
    for i in range(2):
        truth = batch["bounding_boxes"]["boxes"][i, 0]
        best = np.array([iou(region, truth) for region in regions[i]])
        assert (best[matches[i] >= 0] >= 0.5).all() and (matches[i] >= 0).sum() == 6
        background = best[matches[i] == -1]
        assert len(background) and (background >= 0.1).all() and (background < 0.5).all()


def test_losses_equal_reference(tiny):
    batch = batch_of_squares(2)
    outputs = {name: ops.convert_to_numpy(x) for name, x in tiny(batch).items()}
    total = float(ops.convert_to_numpy(tiny.compute_loss(batch, None, outputs)))
    classification, regression, number = 0.0, 0.0, 0
    for i, j in np.ndindex(outputs["matches"].shape):
        match = outputs["matches"][i, j]
        if match == -2:
            continue
        number += 1
        own = 0 if match < 0 else batch["bounding_boxes"]["labels"][i, match] + 1
        logits = outputs["logits"][i, j].astype("float64")
        classification += np.log(np.exp(logits).sum()) - logits[own]
        if match < 0:
            continue
        top, left, bottom, right = batch["bounding_boxes"]["boxes"][i, match].astype("float64")
        y0, x0, y1, x1 = outputs["regions"][i, j].astype("float64")
        targets = [
            ((top + bottom) / 2 - (y0 + y1) / 2) / (y1 - y0) / 0.1,
            ((left + right) / 2 - (x0 + x1) / 2) / (x1 - x0) / 0.1,
            np.log((bottom - top) / (y1 - y0)) / 0.2,
            np.log((right - left) / (x1 - x0)) / 0.2,
        ]
        for found, target in zip(outputs["offsets"][i, j, own], targets):
            distance = abs(found - target)
            regression += 0.5 * distance**2 if distance < 1 else distance - 0.5
    assert number > 10 and regression > 0
    assert total == pytest.approx((classification + regression) / number, rel=1e-4)
    tracked = {name: float(x.result()) for name, x in tiny.loss_trackers.items()}
    assert tracked["classification_loss"] == pytest.approx(classification / number, rel=1e-4)
    assert tracked["regression_loss"] == pytest.approx(regression / number, rel=1e-4)


def test_pictures_without_objects_or_proposals(tiny):
    batch = batch_of_squares(2)
    batch["bounding_boxes"]["labels"][:] = -1
    outputs = tiny(batch)
    # Nothing overlaps an object by 0.1, so that no region is background by the paper's rule.
    assert (ops.convert_to_numpy(outputs["matches"]) == -2).all()
    assert float(ops.convert_to_numpy(tiny.compute_loss(batch, None, outputs))) == 0
    batch["proposals"][:] = 0
    found = tiny.predict_on_batch({name: batch[name] for name in ("images", "proposals")})
    assert (found["count"] == 0).all() and (found["labels"] == -1).all()


@pytest.mark.slow
def test_compiled_loss_is_the_same():
    batch = batch_of_squares(2)
    losses = []
    for jit_compile in (False, True):
        model = tiny_model()
        model.compile(jit_compile=jit_compile)
        losses.append(model.evaluate(batch, batch_size=2, verbose=0, return_dict=True)["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


# --- Detections --------------------------------------------------------------------------


def test_decoding_equals_reference(tiny):
    rng = np.random.default_rng(0)
    regions = np.float32([[[0.2, 0.3, 0.6, 0.5], [0.1, 0.1, 0.9, 0.8]]])
    outputs = {
        "logits": rng.normal(size=(1, 2, 3)).astype("float32"),
        "offsets": rng.normal(size=(1, 2, 3, 4)).astype("float32"),
    }
    boxes, scores = (ops.convert_to_numpy(x) for x in tiny.decode(outputs, regions))
    for j, c in np.ndindex(2, 2):
        y0, x0, y1, x1 = regions[0, j]
        ty, tx, th, tw = outputs["offsets"][0, j, c + 1] * [0.1, 0.1, 0.2, 0.2]
        cy, cx = (y0 + y1) / 2 + ty * (y1 - y0), (x0 + x1) / 2 + tx * (x1 - x0)
        h, w = (y1 - y0) * np.exp(th), (x1 - x0) * np.exp(tw)
        expected = np.clip([cy - h / 2, cx - w / 2, cy + h / 2, cx + w / 2], 0, 1)
        np.testing.assert_allclose(boxes[0, j, c], expected, atol=1e-6)
        exponents = np.exp(outputs["logits"][0, j])
        assert scores[0, j, c] == pytest.approx(exponents[c + 1] / exponents.sum(), rel=1e-5)


@pytest.mark.slow
def test_trained_model_finds_squares_and_survives_a_file(tmp_path):
    model = tiny_model()
    batch = batch_of_squares(16)
    model.compile(keras.optimizers.Adam(0.01))
    history = model.fit(batch, batch_size=4, epochs=20, verbose=0).history
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    for now, first, second in zip(
        history["loss"], history["classification_loss"], history["regression_loss"]
    ):
        assert now == pytest.approx(first + second, rel=1e-4)
    test = batch_of_squares(6, seed=5)
    inputs = {name: test[name] for name in ("images", "proposals")}
    found = model.predict_on_batch(inputs)
    np.testing.assert_array_equal(found["labels"][:, 0], test["bounding_boxes"]["labels"][:, 0])
    overlaps = [
        iou(a, b) for a, b in zip(found["boxes"][:, 0], test["bounding_boxes"]["boxes"][:, 0])
    ]
    assert np.mean(overlaps) > 0.6

    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    for name, value in again.predict_on_batch(inputs).items():
        np.testing.assert_allclose(value, found[name], atol=1e-5)
    by_detector = model.detector.predict_on_batch(inputs)
    np.testing.assert_allclose(by_detector["boxes"], found["boxes"], atol=1e-5)


# --- R-CNN minus R -----------------------------------------------------------------------


@pytest.mark.slow
def test_fixed_proposals_need_no_batch():
    clusters = batch_of_squares(1)["proposals"][0]
    outside, inside = tiny_model(), tiny_model(fixed_proposals=clusters)
    inside.set_weights(outside.get_weights())
    images = batch_of_squares(2)["images"]
    inputs = {"images": images, "proposals": np.tile(clusters, (2, 1, 1))}
    expected = outside.predict_on_batch(inputs)
    for found in (inside.predict_on_batch(images), inside.detector.predict_on_batch(images)):
        for name in ("boxes", "scores", "labels", "count"):
            np.testing.assert_allclose(found[name], expected[name], atol=1e-5)
    batch = batch_of_squares(2)
    del batch["proposals"]
    inside.compile("sgd")
    assert np.isfinite(inside.train_on_batch(batch)).all()
    again = FastRCNN.from_config(inside.get_config())
    np.testing.assert_array_equal(again.fixed_proposals, inside.fixed_proposals)
    assert again.num_proposals == 40


def test_clusters_are_those_of_the_training_boxes():
    corner = np.random.default_rng(0).uniform(0, 0.5, (50, 2))
    boxes = np.concatenate([corner, corner + 0.4], axis=1)
    model = rcnn_minus_r(2, boxes, num_clusters=6, image_shape=(64, 64, 3), units=(8,))
    assert model.fixed_proposals.shape == (6, 4)
    # Each training box has a cluster close by.
    best = [max(iou(box, c) for c in model.fixed_proposals) for box in boxes]
    assert np.mean(best) > 0.5
