import sys

import keras
import numpy as np
import pytest
from keras import layers, ops

from kerasvision.backbones.inputs import CAFFE_MEAN
from kerasvision.detection.rcnn import (
    RCNN,
    fully_connected_layers,
    rcnn,
    rcnn_alexnet,
    train_regressor,
    train_svm,
    warp,
)

module = sys.modules[RCNN.__module__]  # its own name is taken by the function
COLORS = np.float32([[220, 30, 30], [30, 40, 220]])
CLASS_NAMES = ["red", "blue"]
PROPOSALS = np.float32(
    [
        [[0.1, 0.1, 0.6, 0.5], [0.3, 0.4, 0.9, 0.95], [0.0, 0.0, 1.0, 1.0], [0.0, 0.6, 0.2, 0.9]],
        [[0.2, 0.2, 0.8, 0.7], [0.5, 0.5, 0.9, 0.9], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]],
    ]
)


def tiny_network(side, channels=6):
    images = keras.Input((side, side, 3), name="images")
    x = layers.Rescaling(1 / 127.5, -1.0)(images)
    x = layers.Conv2D(channels, 3, 4, padding="same", activation="relu")(x)
    return keras.Model(images, x)


def tiny_model(**settings):
    keras.utils.set_random_seed(0)
    network = tiny_network(16)
    head = fully_connected_layers(network.output.shape[1:], (16, 12), 2)
    return RCNN(network, head, 2, (48, 48, 3), CLASS_NAMES, num_proposals=70, **settings)


@pytest.fixture(scope="module")
def tiny():
    return tiny_model()


def batch_of_squares(number, seed=0, proposals=60):
    """Pictures with a red or a blue square, and random proposals, some of them near it."""
    rng = np.random.default_rng(seed)
    images = rng.integers(90, 130, (number, 48, 48, 3)).astype("float32")
    boxes, labels = np.zeros((number, 2, 4), "float32"), np.full((number, 2), -1, "int32")
    regions = np.zeros((number, proposals, 4), "float32")
    for i in range(number):
        label = i % 2
        top, left = rng.integers(0, 24, 2)
        images[i, top : top + 20, left : left + 20] = COLORS[label]
        boxes[i, 0] = np.array([top, left, top + 20, left + 20]) / 48
        labels[i, 0] = label
        corner = rng.uniform(0, 0.6, (proposals, 2))
        regions[i] = np.concatenate([corner, corner + rng.uniform(0.2, 0.4, (proposals, 2))], 1)
        regions[i, :20] = boxes[i, 0] + rng.uniform(-0.08, 0.08, (20, 4))
    return {
        "images": images,
        "proposals": np.clip(regions, 0, 1),
        "bounding_boxes": {"boxes": boxes, "labels": labels},
    }


def one_by_one(batch):
    """Batches of one picture each."""
    number = len(batch["images"])
    return [keras.tree.map_structure(lambda x: x[i : i + 1], batch) for i in range(number)]


def iou(a, b):
    height = min(a[2], b[2]) - max(a[0], b[0])
    width = min(a[3], b[3]) - max(a[1], b[1])
    if height <= 0 or width <= 0:
        return 0.0
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return height * width / (area - height * width)


# --- The networks ------------------------------------------------------------------------


def test_alexnet_is_the_papers():
    model = rcnn_alexnet(20)
    post_hoc = sum(layer.count_params() for layer in (model.svms, model.regressors))
    assert model.count_params() - post_hoc == 56_954_261
    assert model.svms.kernel.shape == (4096, 20)
    assert model.regressors.kernel.shape == (9216, 80)  # pool5 to four numbers a class
    assert model.network.input_shape == (None, 227, 227, 3)
    assert model.image_shape == (512, 512, 3)


def test_mobilenet_ends_at_stride_16():
    model = rcnn(3, (64, 64, 3), crop_size=64, units=(8, 4))
    assert model.network.output_shape == (None, 4, 4, 96)
    assert model.head.output["hidden"].shape == (None, 4)
    with pytest.raises(ValueError, match="backbone must be one of .*; received: 'lenet5'"):
        rcnn(3, backbone="lenet5")


# --- Warping -----------------------------------------------------------------------------


def reference_warp(image, box, size, context):
    """Bilinear samples at the middle of each pixel of the crop, one by one."""
    height, width = image.shape[:2]
    top, left, bottom, right = np.asarray(box, "float64") * [height, width, height, width]
    inner = 1 - 2 * context
    crop = np.zeros((size, size, 3))
    for i in range(size):
        for j in range(size):
            y = top + ((i + 0.5) / size - context) / inner * (bottom - top) - 0.5
            x = left + ((j + 0.5) / size - context) / inner * (right - left) - 0.5
            if y < -1 or x < -1 or y > height or x > width:
                crop[i, j] = CAFFE_MEAN
                continue
            y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
            y0, x0 = min(int(y), height - 2), min(int(x), width - 2)
            for dy in (0, 1):
                for dx in (0, 1):
                    weight = abs(1 - dy - (y - y0)) * abs(1 - dx - (x - x0))
                    crop[i, j] += weight * image[y0 + dy, x0 + dx]
    return crop


def test_warping_equals_reference():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 20, 30, 3)).astype("uint8")
    boxes = np.float32(
        [
            [[0.2, 0.3, 0.7, 0.6], [0.0, 0.0, 1.0, 1.0], [0.5, 0.1, 0.55, 0.9]],
            [[0.0, 0.5, 0.3, 1.0], [0.9, 0.9, 1.0, 1.0], [0.1, 0.1, 0.8, 0.2]],
        ]
    )
    found = ops.convert_to_numpy(warp(images, boxes, 8, context=1 / 8))
    for i, j in np.ndindex(2, 3):
        expected = reference_warp(images[i].astype("float64"), boxes[i, j], 8, 1 / 8)
        np.testing.assert_allclose(found[i, j], expected, atol=0.02)


def test_warping_at_the_border():
    """The upper left corner of a white picture: around it stands the mean colour.

    A box of 3 x 6 pixels in the middle 8 x 8 of 16 x 16 pixels: a row is 3/8 of a pixel, a column
    6/8. Samples more than one pixel outside are none, those closer are the border's.
    """
    image = np.full((1, 12, 12, 3), 255, "float32")
    box = np.float32([[[0.0, 0.0, 0.25, 0.5]]])
    crop = ops.convert_to_numpy(warp(image, box, 16, context=1 / 4))[0, 0]
    expected = np.full((16, 16, 3), 255.0)
    expected[:3] = CAFFE_MEAN  # at -1.8, -1.4 and -1.1 pixels; the next at -0.7
    expected[:, :3] = CAFFE_MEAN  # at -3.1, -2.4 and -1.6; the next at -0.9
    np.testing.assert_allclose(crop, expected, atol=1e-3)
    # The 16 pixels of the paper in a crop of 227: the box is mapped onto the 195 in the middle.
    assert module.CONTEXT * 227 == pytest.approx(16)


# --- Fine-tuning -------------------------------------------------------------------------


def test_regions_are_sampled_by_the_papers_rule():
    model = tiny_model(num_samples=16)
    batch = batch_of_squares(2)
    outputs = model(batch, training=True)
    regions, matches = (ops.convert_to_numpy(outputs[name]) for name in ("regions", "matches"))
    assert regions.shape == (2, 16, 4)
    for i in range(2):
        best = [iou(region, batch["bounding_boxes"]["boxes"][i, 0]) for region in regions[i]]
        np.testing.assert_array_equal(np.array(best) >= 0.5, matches[i] >= 0)
        assert (matches[i] >= 0).sum() == 4  # a quarter, first
        assert (matches[i, :4] >= 0).all()


def test_loss_equals_reference(tiny):
    batch = batch_of_squares(2)
    outputs = {name: ops.convert_to_numpy(x) for name, x in tiny(batch).items()}
    found = float(ops.convert_to_numpy(tiny.compute_loss(batch, None, outputs)))
    losses = []
    for logits, matches, labels in zip(
        outputs["logits"], outputs["matches"], batch["bounding_boxes"]["labels"]
    ):
        for row, match in zip(logits.astype("float64"), matches):
            own = 0 if match < 0 else labels[match] + 1
            losses.append(np.log(np.exp(row).sum()) - row[own])
    assert found == pytest.approx(np.mean(losses), rel=1e-5)


def test_pictures_without_objects_train_the_background(tiny):
    batch = batch_of_squares(2)
    batch["bounding_boxes"]["labels"][:] = -1
    outputs = tiny(batch)
    assert (ops.convert_to_numpy(outputs["matches"]) == -1).all()
    loss = float(ops.convert_to_numpy(tiny.compute_loss(batch, None, outputs)))
    background = ops.log_softmax(outputs["logits"])[..., 0]
    assert loss == pytest.approx(-float(ops.convert_to_numpy(ops.mean(background))), rel=1e-5)
    # No proposals either.
    batch["proposals"][:] = 0
    assert float(ops.convert_to_numpy(tiny.compute_loss(batch, None, tiny(batch)))) == 0


# --- SVMs and regressors -----------------------------------------------------------------


def reference_svm(positives, negatives):
    """The SVM's objective, minimised by subgradients: hinge loss, a bias scaled by 10."""
    x = np.concatenate([positives, negatives]).astype("float64")
    x = np.concatenate([x, np.full((len(x), 1), module.SVM_BIAS)], axis=1)
    y = np.repeat([1.0, -1.0], [len(positives), len(negatives)])
    cost = module.SVM_C * np.where(y > 0, module.SVM_POSITIVE_WEIGHT, 1.0)

    def objective(w):
        return 0.5 * w @ w + (cost * np.maximum(0, 1 - y * (x @ w))).sum()

    w, best = np.zeros(x.shape[1]), np.inf
    for step in range(1, 20001):
        best = min(best, objective(w))
        inside = y * (x @ w) < 1
        w = w - (w - (cost * y * inside) @ x) / step
    return best, objective


def test_svm_minimises_its_objective():
    rng = np.random.default_rng(0)
    positives = rng.normal(0.8, 1, (20, 5)) * 8
    negatives = rng.normal(-0.8, 1, (40, 5)) * 8
    weights, bias = train_svm(positives, [negatives])
    best, objective = reference_svm(positives, negatives)
    found = objective(np.append(weights, bias / module.SVM_BIAS))
    assert found <= best * 1.02 + 1e-6


def test_hard_negatives_equal_reference(monkeypatch):
    """One pass, picture by picture: what is fitted to what."""
    monkeypatch.setattr(module, "NEGATIVES_BETWEEN_FITS", 25)
    rng = np.random.default_rng(1)
    positives = rng.normal(1.5, 1, (15, 4)).astype("float32") * 5
    pictures = [rng.normal(-1, 1.5, (12, 4)).astype("float32") * 5 for _ in range(8)]
    fits = []

    class Recorder(module.LinearSVC):
        def fit(self, features, labels):
            fits.append((features, labels))
            return super().fit(features, labels)

    monkeypatch.setattr(module, "LinearSVC", Recorder)
    weights, bias = train_svm(positives, pictures)

    expected_fits, cache, new, svm = [], [], 0, None
    for number, picture in enumerate(pictures):
        for row in picture:
            if svm is None or svm.decision_function(row[None])[0] > -1:
                cache.append(row)
                new += 1
        if new >= 25 or (number == len(pictures) - 1 and new):
            expected_fits.append(np.concatenate([positives, cache]))
            labels = [1] * len(positives) + [0] * len(cache)
            svm = Recorder.__mro__[1](
                C=0.001, loss="hinge", intercept_scaling=10, class_weight={1: 2.0},
                max_iter=20000, random_state=0,
            ).fit(expected_fits[-1], labels)  # fmt: skip
            cache = [row for row in cache if svm.decision_function(row[None])[0] >= -1.2]
            new = 0
    assert len(fits) == len(expected_fits) > 1
    for (features, labels), expected in zip(fits, expected_fits):
        np.testing.assert_allclose(features, expected)
        assert sum(labels) == 15
    np.testing.assert_allclose(weights, svm.coef_[0], rtol=1e-6)
    assert bias == pytest.approx(svm.intercept_[0])
    # Far fewer than all take part in the end.
    assert len(fits[-1][1]) - 15 < 8 * 12


def test_svm_without_positives_or_negatives():
    weights, bias = train_svm(np.zeros((0, 3)), [np.ones((4, 3))])
    assert (weights == 0).all() and bias == -10
    weights, bias = train_svm(np.ones((2, 3)), [np.zeros((0, 3))])
    assert (weights == 0).all() and bias == 0


def test_regressor_equals_closed_form():
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 0.5, (30, 2))
    regions = np.concatenate([corner, corner + rng.uniform(0.2, 0.5, (30, 2))], 1).astype("f4")
    boxes = (regions + rng.uniform(-0.05, 0.05, (30, 4))).astype("f4")
    features = rng.normal(size=(30, 6)).astype("f4") * 10
    weights, bias = train_regressor(features, regions, boxes)

    targets = []
    for (p_top, p_left, p_bottom, p_right), (top, left, bottom, right) in zip(
        regions.astype("float64"), boxes.astype("float64")
    ):
        p_height, p_width = p_bottom - p_top, p_right - p_left
        targets.append(
            [  # equations 6 to 9
                ((top + bottom) / 2 - (p_top + p_bottom) / 2) / p_height,
                ((left + right) / 2 - (p_left + p_right) / 2) / p_width,
                np.log((bottom - top) / p_height),
                np.log((right - left) / p_width),
            ]
        )
    targets = np.array(targets)
    # Equation 5, on centred features and targets: the bias is free.
    x, t = features - features.mean(0), targets - targets.mean(0)
    expected = np.linalg.solve(x.T @ x + 1000 * np.eye(6), x.T @ t)
    np.testing.assert_allclose(weights, expected, atol=1e-6)
    np.testing.assert_allclose(bias, targets.mean(0) - features.mean(0) @ expected, atol=1e-5)


def test_regions_take_part_by_the_papers_rules(tiny):
    batch = batch_of_squares(1)
    found = tiny.regions_with_features(batch)
    box, label = batch["bounding_boxes"]["boxes"][0, 0], batch["bounding_boxes"]["labels"][0, 0]
    regions = [*batch["proposals"][0], box]
    best = np.array([iou(region, box) for region in regions])
    np.testing.assert_allclose(found["overlaps"][:, label], best, atol=1e-5)
    assert (found["overlaps"][:, 1 - label] == 0).all()
    np.testing.assert_array_equal(found["object_labels"], [-1] * 60 + [label])
    near = best[:-1] > 0.6
    assert 0 < near.sum() < 60
    np.testing.assert_array_equal(found["pair_regions"], batch["proposals"][0][near])
    np.testing.assert_array_equal(found["pair_boxes"], np.tile(box, (near.sum(), 1)))
    assert set(found["pair_labels"]) == {label}
    # Each region's features are those of its crop alone.
    crop = reference_warp(batch["images"][0].astype("f8"), regions[30], 16, module.CONTEXT)
    maps = tiny.network(crop[None].astype("f4"))
    hidden = ops.convert_to_numpy(tiny.head(maps)["hidden"])[0]
    np.testing.assert_allclose(found["hidden"][30], hidden, atol=2e-3)


def trained(model):
    batch = batch_of_squares(16)
    model.compile(keras.optimizers.Adam(0.01))
    history = model.fit(batch, batch_size=8, epochs=15, verbose=0).history
    return batch, history


@pytest.mark.slow
def test_trained_model_finds_squares(tmp_path):
    model = tiny_model(num_samples=32)
    batch, history = trained(model)
    assert history["loss"][-1] < 0.3 * history["loss"][0]
    assert history["classification_loss"][-1] == pytest.approx(history["loss"][-1], rel=1e-5)
    test = batch_of_squares(6, seed=5)

    def quality(model):
        """How many pictures' best detection is right, and the mean IoU of these boxes."""
        found = model.predict_on_batch(test)
        right = found["labels"][:, 0] == test["bounding_boxes"]["labels"][:, 0]
        overlaps = [
            iou(a, b) for a, b in zip(found["boxes"][:, 0], test["bounding_boxes"]["boxes"][:, 0])
        ]
        assert (found["scores"] >= 0).all() and (found["scores"] <= 1).all()
        return right.mean(), np.mean(overlaps)

    assert quality(model)[0] == 1
    counts = model.fit_classifiers(one_by_one(batch))
    assert counts["svm_positives"] == 16
    assert counts["svm_negatives"] > 300 and counts["regression_pairs"] > 100
    assert model.classifier == "svm" and model.regress_boxes
    right, overlap = quality(model)
    assert right == 1 and overlap > 0.6
    # With SVMs the score is the sigmoid of their plane's distance.
    features = model.extract_on_batch(test["images"], test["proposals"])
    hidden = model.outputs_of(features)["hidden"]
    boxes, scores = model.decode(
        {"features": features, **model.outputs_of(features)}, test["proposals"]
    )
    kernel, bias = model.svms.get_weights()
    expected = 1 / (1 + np.exp(-(ops.convert_to_numpy(hidden) @ kernel + bias)))
    np.testing.assert_allclose(ops.convert_to_numpy(scores), expected, atol=1e-5)
    assert (ops.convert_to_numpy(boxes) >= 0).all() and (ops.convert_to_numpy(boxes) <= 1).all()

    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.classifier == "svm" and again.regress_boxes and again.class_names == CLASS_NAMES
    expected, found = model.predict_on_batch(test), again.predict_on_batch(test)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5)


def test_svms_need_objects(tiny):
    batch = batch_of_squares(2)
    batch["bounding_boxes"]["labels"][:] = -1
    with pytest.raises(ValueError, match="must have objects .* received: none in 2 pictures"):
        tiny.fit_classifiers(one_by_one(batch))
    assert tiny.classifier == "softmax"


# --- Detections --------------------------------------------------------------------------


def test_padding_is_never_found(tiny):
    batch = batch_of_squares(2)
    some = {**batch, "proposals": batch["proposals"][:, :5]}
    padded = np.pad(some["proposals"], [(0, 0), (0, 9), (0, 0)])
    expected, found = (
        tiny.predict_on_batch(some),
        tiny.predict_on_batch({**batch, "proposals": padded}),
    )
    np.testing.assert_array_equal(found["count"], expected["count"])
    count = expected["boxes"].shape[1]
    for name in ("boxes", "scores", "labels"):
        np.testing.assert_allclose(found[name][:, :count], expected[name], atol=1e-5)
    nothing = tiny.predict_on_batch({**batch, "proposals": 0 * padded})
    assert (nothing["count"] == 0).all() and (nothing["labels"] == -1).all()


def test_proposals_are_searched_where_there_are_none(tiny):
    images = batch_of_squares(2)["images"]
    proposals = tiny.propose(images)
    assert proposals.shape[0] == 2 and proposals.shape[1] % 64 == 0
    expected = tiny.predict_on_batch({"images": images, "proposals": proposals})
    found = tiny.predict_on_batch(images)
    np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=1e-6)
    by_predict = tiny.predict({"images": images})
    np.testing.assert_allclose(by_predict["scores"], found["scores"], atol=1e-6)


def test_the_functional_detector_finds_the_same(tiny):
    batch = batch_of_squares(2, proposals=70)
    inputs = {name: batch[name] for name in ("images", "proposals")}
    expected = tiny.predict_on_batch(inputs)
    found = tiny.detector.predict_on_batch(inputs)
    np.testing.assert_array_equal(found["count"], expected["count"])
    np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=1e-5)


def test_settings_are_checked():
    with pytest.raises(ValueError, match="classifier must be 'softmax' or 'svm'; received: 'tree'"):
        tiny_model(classifier="tree")
    with pytest.raises(ValueError, match=r"fixed_proposals must be \(number, 4\)"):
        tiny_model(fixed_proposals=[1.0, 2.0])
