import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.detection.yolo_v1 import (
    YOLOv1,
    yolo_v1,
    yolo_v1_fast,
    yolo_v1_full,
    yolo_v1_mobilenet_v2,
)


@pytest.fixture(scope="module")
def tiny():
    """4 x 4 cells with two boxes each and three classes, of images of 32 x 48 pixels."""
    keras.utils.set_random_seed(0)
    images = keras.Input((32, 48, 3), name="images")
    x = keras.layers.Rescaling(1 / 255)(images)
    x = keras.layers.Conv2D(8, 5, 4, activation="relu")(x)
    return yolo_v1(keras.Model(images, x), 3, ["cat", "dog", "owl"], 4, hidden_units=(32,))


def truth(boxes, labels):
    return {"boxes": np.array(boxes, "float32"), "labels": np.array(labels)}


TWO_PICTURES = truth(
    [
        # The first and the third have their centre in the same cell.
        [[0.1, 0.1, 0.6, 0.5], [0.6, 0.7, 0.95, 1.0], [0.3, 0.25, 0.42, 0.4], [0, 0, 0, 0]],
        [[0.2, 0.2, 0.8, 0.7], [0.5, 0.5, 0.5, 0.9], [0.9, 0.9, 1.1, 1.1], [0, 0, 1, 1]],
    ],
    [[0, 2, 1, -1], [1, 0, 2, -1]],  # one without an area, one centred on the corner
)
NO_OBJECTS = truth(np.zeros((2, 4, 4)), np.full((2, 4), -1))


def iou(a, b):
    height = min(a[2], b[2]) - max(a[0], b[0])
    width = min(a[3], b[3]) - max(a[1], b[1])
    inside = max(height, 0) * max(width, 0)
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return inside / (sum(areas) - inside)


def decoded(row, column, outputs):
    x, y, root_w, root_h = outputs[:4]
    cy, cx, h, w = (row + y) / 4, (column + x) / 4, root_h**2, root_w**2
    return [cy - h / 2, cx - w / 2, cy + h / 2, cx + w / 2]


def reference_terms(cells, boxes, labels):
    """Equation 3 in its own order, cell by cell."""
    terms = np.zeros(5)
    for b in range(len(labels)):
        owners = {}
        for box, label in zip(boxes[b].astype("float64"), labels[b]):
            if label >= 0 and box[2] > box[0] and box[3] > box[1]:
                cell = tuple(min(int((box[i] + box[i + 2]) / 2 * 4), 3) for i in (0, 1))
                owners.setdefault(cell, (box, label))
        for row, column in np.ndindex(4, 4):
            outputs = cells[b, row, column].astype("float64")
            predictors = [outputs[:5], outputs[5:10]]
            if (row, column) not in owners:
                terms[3] += 0.5 * sum(predictor[4] ** 2 for predictor in predictors)
                continue
            box, label = owners[row, column]
            overlaps = [iou(decoded(row, column, p), box) for p in predictors]
            best = int(overlaps[1] > overlaps[0])
            x, y, root_w, root_h, confidence = predictors[best]
            y1, x1, y2, x2 = box
            terms[0] += 5 * (x - ((x1 + x2) / 2 * 4 - column)) ** 2
            terms[0] += 5 * (y - ((y1 + y2) / 2 * 4 - row)) ** 2
            terms[1] += 5 * (root_w - (x2 - x1) ** 0.5) ** 2
            terms[1] += 5 * (root_h - (y2 - y1) ** 0.5) ** 2
            terms[2] += (confidence - overlaps[best]) ** 2
            terms[3] += 0.5 * predictors[1 - best][4] ** 2
            for c, p in enumerate(outputs[10:]):
                terms[4] += (p - (c == label)) ** 2
    return terms / len(labels)


def found_terms(model, cells, ground_truth):
    for metric in model.loss_terms:
        metric.reset_state()
    loss = model.compute_loss({"bounding_boxes": ground_truth}, y_pred={"cells": cells})
    return float(loss), np.array([float(metric.result()) for metric in model.loss_terms])


@pytest.mark.parametrize("ground_truth", [TWO_PICTURES, NO_OBJECTS], ids=["objects", "none"])
def test_loss_equals_reference(tiny, ground_truth):
    cells = np.random.default_rng(3).normal(0.3, 0.4, (2, 4, 4, 13)).astype("float32")
    expected = reference_terms(cells, **ground_truth)
    loss, terms = found_terms(tiny, cells, ground_truth)
    np.testing.assert_allclose(terms, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(loss, expected.sum(), rtol=1e-4)
    assert (expected > 0).tolist() == [ground_truth is TWO_PICTURES] * 3 + [
        True,
        ground_truth is TWO_PICTURES,
    ]


def test_terms_by_hand(tiny):
    # One object, a quarter of the picture wide and high, in the middle of row 1 and column 2.
    ground_truth = truth([[[0.25, 0.5, 0.5, 0.75]]], [[1]])
    cells = np.zeros((1, 4, 4, 13), "float32")
    # Its first box is right but for a confidence of 0.4, the second is half as wide.
    cells[0, 1, 2] = [0.5, 0.5, 0.5, 0.5, 0.4, 0.5, 0.5, 0.5**1.5, 0.5, 0.9, 0, 1, 0]
    _, terms = found_terms(tiny, cells, ground_truth)
    np.testing.assert_allclose(terms, [0, 0, 0.6**2, 0.5 * 0.9**2, 0], atol=1e-6)
    # Too wide by half a root and off by a quarter of a cell, it leaves the object to the second.
    cells[0, 1, 2, 2] = 1.0
    cells[0, 1, 2, 0] = 0.75
    _, terms = found_terms(tiny, cells, ground_truth)
    root = 0.5 - 0.5**1.5
    np.testing.assert_allclose(
        terms, [0, 5 * root**2, (0.9 - 0.5) ** 2, 0.5 * 0.4**2, 0], atol=1e-6
    )


def test_decoding_equals_reference(tiny):
    cells = np.random.default_rng(5).normal(0.3, 0.5, (2, 4, 4, 13)).astype("float32")
    boxes, scores = (ops.convert_to_numpy(x) for x in tiny.decode({"cells": cells}))
    assert boxes.shape == (2, 32, 4) and scores.shape == (2, 32, 3)
    for b, row, column, k in np.ndindex(2, 4, 4, 2):
        outputs, a = cells[b, row, column], 2 * (4 * row + column) + k
        box = np.clip(decoded(row, column, outputs[5 * k :]), 0, 1)
        np.testing.assert_allclose(boxes[b, a], box, atol=1e-5)
        for c in range(3):
            expected = np.clip(outputs[5 * k + 4], 0, 1) * np.clip(outputs[10 + c], 0, 1)
            np.testing.assert_allclose(scores[b, a, c], expected, atol=1e-6)


def batch():
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 48, 3)).astype("float32")
    return {"images": images, "bounding_boxes": TWO_PICTURES}


def copied(model):
    copy = YOLOv1.from_config(model.get_config())
    copy.set_weights(model.get_weights())
    return copy


def test_trains_and_keeps_to_the_papers_head(tiny):
    model = copied(tiny)
    model.compile(keras.optimizers.Adam(1e-3))
    losses = [model.train_on_batch(batch(), return_dict=True) for _ in range(20)]
    assert losses[-1]["loss"] < 0.7 * losses[0]["loss"]
    np.testing.assert_allclose(
        sum(losses[-1][name] for name in model.TERMS), losses[-1]["loss"], rtol=1e-5
    )
    layers = {layer.name: layer for layer in model.network.layers}
    assert layers["dropout"].rate == 0.5
    assert layers["hidden_leaky"].negative_slope == 0.1
    assert layers["predictions"].activation is keras.activations.linear


def test_compiled_loss_is_the_same(tiny):
    losses = []
    for jit_compile in (False, True):
        model = copied(tiny)
        model.compile(keras.optimizers.SGD(1e-4), jit_compile=jit_compile)
        losses.append(model.evaluate(batch(), return_dict=True, verbose=0))
    for name, value in losses[0].items():
        np.testing.assert_allclose(losses[1][name], value, rtol=1e-4)


def test_survives_a_file(tiny, tmp_path):
    tiny.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    expected = tiny.predict(batch(), verbose=0)
    received = loaded.predict(batch(), verbose=0)
    for name, value in expected.items():
        np.testing.assert_allclose(received[name], value, atol=1e-6)
    assert expected["boxes"].shape == (2, 96, 4)


@pytest.mark.parametrize(
    "build, convolutions, parameters",
    [(yolo_v1_full, 24, 271_703_550), (yolo_v1_fast, 9, 45_089_374)],
)
def test_networks_are_the_papers(build, convolutions, parameters):
    model = build(20, (64, 64, 3))
    kinds = [type(layer).__name__ for layer in model.network.layers]
    assert kinds.count("Conv2D") == convolutions
    assert model.network.output["cells"].shape == (None, 7, 7, 30)
    # 448 pixels make 7 x 7 cells of 1024 maps, 64 one.
    first = model.network.get_layer("hidden0")
    assert first.kernel.shape[0] == 1024
    assert model.count_params() + 48 * first.kernel.shape[0] * first.units == parameters


def test_boxes_are_the_papers_98():
    model = yolo_v1_mobilenet_v2(20, (64, 64, 3), grid=7, filters=16, hidden_units=(8,))
    boxes, scores = model.decode({"cells": np.zeros((1, 7, 7, 30), "float32")})
    assert boxes.shape == (1, 98, 4) and scores.shape == (1, 98, 20)


def test_cells_can_be_predicted_one_by_one():
    model = yolo_v1_mobilenet_v2(3, (64, 64, 3), grid=2, filters=16, hidden_units=())
    assert model.network.get_layer("predictions").kernel.shape == (16, 13)
    assert model.network.output["cells"].shape == (None, 2, 2, 13)
    with pytest.raises(ValueError, match=r"backbone's maps, \(2, 2\), .*; received: 7"):
        yolo_v1_mobilenet_v2(3, (64, 64, 3), grid=7, hidden_units=())


def test_errors(tiny):
    with pytest.raises(ValueError, match=r"must be \(S, S, 2 \* 5 \+ 2\); .*\(4, 4, 13\)"):
        YOLOv1(tiny.network, 2)
    with pytest.raises(ValueError, match="must have a height and a width"):
        yolo_v1_fast(20, (None, None, 3))
