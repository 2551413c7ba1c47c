import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.backbones.darknet import convolution
from kerasvision.detection.yolo_v3 import YOLOv3, yolo_v3, yolo_v3_mobilenet_v2, yolo_v3_tiny
from kerasvision.ops import anchors

PRIORS = (((10, 8), (16, 30), (33, 23)), ((30, 60), (60, 40), (40, 95)), ((90, 60), (80, 120)))


@pytest.fixture(scope="module")
def tiny():
    """For images of 96 x 128 pixels: 12 x 16, 6 x 8 and 3 x 4 cells."""
    keras.utils.set_random_seed(0)
    images = keras.Input((96, 128, 3), name="images")
    x, taps = keras.layers.Rescaling(1 / 255)(images), {}
    for i in range(5):
        x = taps[f"stride{2 ** (i + 1)}"] = convolution(x, 8, 3, f"conv{i}", stride=2)
    backbone = keras.Model(images, x)
    backbone.feature_taps = taps
    return yolo_v3(backbone, 3, ["cat", "dog", "owl"], PRIORS, filters=16, head_depth=1)


def truth(boxes, labels):
    return {"boxes": np.array(boxes, "float32"), "labels": np.array(labels)}


TWO_PICTURES = truth(
    [
        [[0.1, 0.1, 0.6, 0.5], [0.3, 0.4, 0.45, 0.5], [0.8, 0.85, 0.95, 0.99], [0, 0, 0, 0]],
        [[0.2, 0.2, 0.8, 0.7], [0.2, 0.2, 0.8, 0.7], [0.5, 0.5, 0.5, 0.9], [0, 0, 1, 1]],
    ],
    [[0, 2, 1, -1], [1, 0, 2, -1]],  # twice the same box; one without an area
)
NO_OBJECTS = truth(np.zeros((2, 4, 4)), np.full((2, 4), -1))


def raw_maps(rng, rows=3, columns=4, scale=1.0):
    return {
        f"stride{32 // size}": scale
        * rng.normal(size=(2, rows * size, columns * size, 8 * len(sizes))).astype("f4")
        for size, sizes in zip((4, 2, 1), PRIORS)
    }


def iou(a, b):
    height = min(a[2], b[2]) - max(a[0], b[0])
    width = min(a[3], b[3]) - max(a[1], b[1])
    inside = max(height, 0) * max(width, 0)
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return inside / (sum(areas) - inside)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.float64(x)))


def every_prediction(raw, picture):
    """(stride, row, column, prior's number, its size, outputs) of each, in order."""
    for level, stride in enumerate((8, 16, 32)):
        x = raw[f"stride{stride}"][picture]
        for row, column in np.ndindex(x.shape[:2]):
            for k, size in enumerate(PRIORS[level]):
                outputs = x[row, column, 8 * k : 8 * k + 8].astype("float64")
                yield stride, row, column, (level, k), size, outputs


def decoded(stride, row, column, size, outputs, height, width):
    cy, cx = (row + sigmoid(outputs[1])) * stride, (column + sigmoid(outputs[0])) * stride
    h, w = size[0] * np.exp(outputs[3]), size[1] * np.exp(outputs[2])
    box = np.array([cy - h / 2, cx - w / 2, cy + h / 2, cx + w / 2])
    return box / [height, width, height, width]


def responsible(box, height, width):
    """(stride, row, column, prior's number) that answers for an object."""
    h, w = (box[2] - box[0]) * height, (box[3] - box[1]) * width
    best, best_iou = None, -1.0
    for level, sizes in enumerate(PRIORS):
        for k, size in enumerate(sizes):
            overlap = iou([0, 0, h, w], [0, 0, *size])
            if overlap > best_iou:
                best, best_iou = (level, k), overlap
    stride = 8 * 2 ** best[0]
    cy, cx = (box[0] + box[2]) / 2 * height, (box[1] + box[3]) / 2 * width
    return stride, int(cy // stride), int(cx // stride), best


def reference_terms(raw, boxes, labels, height, width):
    """The five terms, prediction by prediction, without a matrix."""
    terms = np.zeros(5)
    for b in range(len(labels)):
        objects = [
            (box, label)
            for box, label in zip(boxes[b].astype("float64"), labels[b])
            if label >= 0 and box[2] > box[0] and box[3] > box[1]
        ]
        owners = {}
        for box, label in objects:
            owners.setdefault(responsible(box, height, width), (box, label))
        for stride, row, column, prior, size, outputs in every_prediction(raw, b):
            objectness = sigmoid(outputs[4])
            owner = owners.get((stride, row, column, prior))
            if owner is None:
                box = decoded(stride, row, column, size, outputs, height, width)
                if max([iou(box, other) for other, _ in objects], default=0.0) <= 0.5:
                    terms[3] -= np.log(1 - objectness)
                continue
            (y1, x1, y2, x2), label = owner
            weight = 2 - (y2 - y1) * (x2 - x1)
            in_cell = [(x1 + x2) / 2 * width / stride - column]
            in_cell += [(y1 + y2) / 2 * height / stride - row]
            for t, output in zip(in_cell, outputs[:2]):
                p = sigmoid(output)
                terms[0] -= weight * (t * np.log(p) + (1 - t) * np.log(1 - p))
            sides = [np.log((x2 - x1) * width / size[1]), np.log((y2 - y1) * height / size[0])]
            for t, output in zip(sides, outputs[2:4]):
                terms[1] += weight * (t - output) ** 2 / 2
            terms[2] -= np.log(objectness)
            for c, output in enumerate(outputs[5:]):
                terms[4] -= np.log(sigmoid(output) if c == label else 1 - sigmoid(output))
    return terms / len(labels)


def found_terms(model, raw, ground_truth):
    for metric in model.loss_terms:
        metric.reset_state()
    loss = model.compute_loss({"bounding_boxes": ground_truth}, y_pred=raw)
    return float(loss), np.array([float(metric.result()) for metric in model.loss_terms])


@pytest.mark.parametrize("ground_truth", [TWO_PICTURES, NO_OBJECTS], ids=["objects", "none"])
@pytest.mark.parametrize("rows, columns", [(3, 4), (2, 5)], ids=["its size", "another size"])
def test_loss_equals_reference(tiny, ground_truth, rows, columns):
    raw = raw_maps(np.random.default_rng(3), rows, columns)
    expected = reference_terms(raw, **ground_truth, height=32 * rows, width=32 * columns)
    loss, terms = found_terms(tiny, raw, ground_truth)
    np.testing.assert_allclose(terms, expected, rtol=1e-4)
    np.testing.assert_allclose(loss, expected.sum(), rtol=1e-4)
    assert (expected > 0).tolist() == [ground_truth is TWO_PICTURES] * 3 + [
        True,
        ground_truth is TWO_PICTURES,
    ]


def test_predictions_that_overlap_an_object_are_not_punished(tiny):
    # All offsets 0: each prediction is its prior, in the middle of its cell.
    raw = {name: 0 * x for name, x in raw_maps(np.random.default_rng(0)).items()}
    # Prior (30, 60) in row 2, column 3 of stride 16; those of the next columns overlap it.
    box = [(40 - 15) / 96, (56 - 30) / 128, (40 + 15) / 96, (56 + 30) / 128]
    ground_truth = truth([[box], [[0, 0, 0, 0]]], [[1], [-1]])
    ignored = []
    for stride, row, column, prior, size, outputs in every_prediction(raw, 0):
        if iou(decoded(stride, row, column, size, outputs, 96, 128), box) > 0.5:
            ignored.append((stride, row, column, prior))
    assert ignored == [(16, 2, column, (1, 0)) for column in (2, 3, 4)]
    _, terms = found_terms(tiny, raw, ground_truth)
    count = 12 * 16 * 3 + 6 * 8 * 3 + 3 * 4 * 2
    np.testing.assert_allclose(terms[3], (2 * count - 3) * np.log(2) / 2, rtol=1e-5)
    # Where it should be, as large as it should be.
    np.testing.assert_allclose(terms[1], 0, atol=1e-6)
    np.testing.assert_allclose(terms[2], np.log(2) / 2, rtol=1e-5)


def test_matches_by_hand(tiny):
    raw = raw_maps(np.random.default_rng(0))
    boxes = np.array([[[0.0, 0.0, 10 / 96, 8 / 128], [1 - 10 / 96, 1 - 8 / 128, 1.0, 1.0]]])
    matched = ops.convert_to_numpy(
        tiny.match(np.repeat(boxes, 2, 0), np.array([[0, 1], [-1, 1]]), raw)
    )
    assert np.flatnonzero(matched[0] >= 0).tolist() == [0, 3 * (12 * 16 - 1)]
    assert matched[0, 0] == 0 and matched[0, 3 * (12 * 16 - 1)] == 1
    assert np.flatnonzero(matched[1] >= 0).tolist() == [3 * (12 * 16 - 1)]
    # A centre on the lower right corner of the picture is in the last cell.
    matched = tiny.match(np.ones((2, 1, 4)) * [0.9, 0.9, 1.1, 1.1], np.zeros((2, 1), int), raw)
    at = int(np.flatnonzero(ops.convert_to_numpy(matched)[0] >= 0)[0])
    assert at in (12 * 16 * 3 - 3, 12 * 16 * 3 - 2, 12 * 16 * 3 - 1)


def test_references_are_the_priors(tiny):
    predicted = tiny.predictions(raw_maps(np.random.default_rng(0)))
    expected = anchors.yolo_priors([(12, 16), (6, 8), (3, 4)], (8, 16, 32), (96, 128), PRIORS)
    np.testing.assert_allclose(predicted.references, expected, rtol=1e-5)


def test_decoding_equals_reference(tiny):
    raw = raw_maps(np.random.default_rng(5))
    boxes, scores = (ops.convert_to_numpy(x) for x in tiny.decode(raw))
    for b in range(2):
        for a, (stride, row, column, _, size, outputs) in enumerate(every_prediction(raw, b)):
            box = decoded(stride, row, column, size, outputs, 96, 128)
            np.testing.assert_allclose(boxes[b, a], np.clip(box, 0, 1), atol=1e-5)
            expected = sigmoid(outputs[4]) * sigmoid(outputs[5:])
            np.testing.assert_allclose(scores[b, a], expected, rtol=1e-4)


def test_golden_box_of_the_paper(tiny):
    # Figure 2: b_x = sigmoid(t_x) + c_x, b_w = p_w e^t_w, of the cell of row 1 and column 2.
    raw = {name: 0 * x - 20.0 for name, x in raw_maps(np.random.default_rng(0)).items()}
    raw["stride32"][0, 1, 2, :8] = [np.log(3), -np.log(3), 0.0, np.log(2) / 2, 9, 9, -9, -9]
    detections = tiny.decode(raw)
    boxes, scores = (ops.convert_to_numpy(x)[0] for x in detections)
    best = int(scores.max(axis=1).argmax())
    cy, cx, h, w = 32 * 1.25, 32 * 2.75, 90 * 2**0.5, 60
    expected = [(cy - h / 2) / 96, (cx - w / 2) / 128, (cy + h / 2) / 96, (cx + w / 2) / 128]
    np.testing.assert_allclose(boxes[best], np.clip(expected, 0, 1), atol=1e-5)
    np.testing.assert_allclose(scores[best, 0], sigmoid(9) ** 2, rtol=1e-5)
    assert scores[best, 1:].max() < 1e-3


def batch(height=96, width=128):
    images = np.random.default_rng(0).uniform(0, 255, (2, height, width, 3)).astype("float32")
    return {"images": images, "bounding_boxes": TWO_PICTURES}


def test_starts_by_seeing_few_objects(tiny):
    objectness = tiny.predictions(tiny(batch())).objectness
    assert float(ops.mean(ops.sigmoid(objectness))) < 0.05


def copied(model):
    copy = YOLOv3.from_config(model.get_config())
    copy.set_weights(model.get_weights())
    return copy


@pytest.mark.parametrize(
    "height, width",
    # All models train at their own size in tests/test_conformance.py.
    [
        pytest.param(96, 128, marks=pytest.mark.slow, id="its size"),
        pytest.param(64, 160, id="another size"),
    ],
)
def test_training_lowers_the_loss(tiny, height, width):
    model = copied(tiny)
    model.compile(keras.optimizers.SGD(1e-4))
    losses = [model.train_on_batch(batch(height, width), return_dict=True) for _ in range(3)]
    assert losses[-1]["loss"] < losses[0]["loss"]
    terms = sum(losses[0][name] for name in model.TERMS)
    np.testing.assert_allclose(terms, losses[0]["loss"], rtol=1e-5)


@pytest.mark.slow
def test_compiled_loss_is_the_same(tiny):
    losses = []
    for jit_compile in (False, True):
        model = copied(tiny)
        model.compile(keras.optimizers.SGD(1e-4), jit_compile=jit_compile)
        losses.append(model.train_on_batch(batch(), return_dict=True))
    for name, value in losses[0].items():
        np.testing.assert_allclose(losses[1][name], value, rtol=1e-4)


@pytest.mark.slow
def test_fit_takes_sizes_that_change(tiny):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("tf.data")
    import tensorflow as tf

    model = YOLOv3.from_config(tiny.get_config())
    model.compile(keras.optimizers.SGD(1e-4))

    def generate():
        for side in (64, 96, 64):
            yield batch(side, side)

    specs = {
        "images": tf.TensorSpec((None, None, None, 3), tf.float32),
        "bounding_boxes": {
            "boxes": tf.TensorSpec((None, 4, 4), tf.float32),
            "labels": tf.TensorSpec((None, 4), tf.int64),
        },
    }
    history = model.fit(tf.data.Dataset.from_generator(generate, output_signature=specs), verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert model.predict(batch(), verbose=0)["boxes"].shape == (2, 100, 4)


@pytest.mark.slow
def test_survives_a_file(tiny, tmp_path):
    tiny.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    expected = tiny.predict(batch(), verbose=0)
    received = loaded.predict(batch(), verbose=0)
    for name, value in expected.items():
        np.testing.assert_allclose(received[name], value, atol=1e-6)
    assert loaded.priors == tiny.priors and loaded.class_names == ["cat", "dog", "owl"]


def test_mobilenet_is_built_with_three_maps():
    model = yolo_v3_mobilenet_v2(2, (64, 64, 3), filters=16)
    assert {name: x.shape for name, x in model.network.output.items()} == {
        "stride8": (None, 8, 8, 21),
        "stride16": (None, 4, 4, 21),
        "stride32": (None, 2, 2, 21),
    }


def test_errors(tiny):
    with pytest.raises(ValueError, match=r"multiples of 32; received: \(80, 96\)"):
        yolo_v3_tiny(2, (80, 96, 3))
    with pytest.raises(ValueError, match=r"must have \[21, 21, 14\] channels.*\[24, 24, 16\]"):
        YOLOv3(tiny.network, 2, PRIORS)
