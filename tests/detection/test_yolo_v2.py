import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.backbones.darknet import convolution, darknet19
from kerasvision.detection.yolo_v2 import (
    YOLOv2,
    yolo_9000,
    yolo_v2,
    yolo_v2_darknet19,
    yolo_v2_mobilenet_v2,
)
from kerasvision.ops import anchors

PRIORS = ((20, 16), (40, 60), (64, 30))
NAMES = ["animal", "shape", "cat", "dog", "square"]
PARENTS = [-1, -1, 0, 0, 1]


def small_backbone():
    images = keras.Input((96, 128, 3), name="images")
    x, taps = keras.layers.Rescaling(1 / 255)(images), {}
    for i in range(5):
        x = taps[f"stride{2 ** (i + 1)}"] = convolution(x, 8, 3, f"conv{i}", stride=2)
    backbone = keras.Model(images, x)
    backbone.feature_taps = taps
    return backbone


@pytest.fixture(scope="module")
def models():
    """Of 3 x 4 cells with three priors and five classes, without and with a word tree."""
    keras.utils.set_random_seed(0)
    return {
        "softmax": yolo_v2(small_backbone(), 5, NAMES, PRIORS, filters=8),
        "tree": yolo_v2(small_backbone(), 5, NAMES, PRIORS, PARENTS, filters=8),
    }


def batch_of(boxes, labels, has_boxes=None):
    batch = {"bounding_boxes": {"boxes": np.array(boxes, "float32"), "labels": np.array(labels)}}
    return batch if has_boxes is None else {**batch, "has_boxes": np.array(has_boxes)}


BOXES = [
    [[0.1, 0.1, 0.6, 0.5], [0.3, 0.4, 0.45, 0.5], [0.8, 0.85, 0.95, 0.99], [0, 0, 0, 0]],
    [[0.2, 0.2, 0.8, 0.7], [0.2, 0.2, 0.8, 0.7], [0.5, 0.5, 0.5, 0.9], [0, 0, 1, 1]],
]
LABELS = [[0, 2, 4, -1], [3, 0, 2, -1]]
BATCHES = {
    "boxes": batch_of(BOXES, LABELS),
    "without boxes": batch_of(BOXES, [[0, 2, 4, 2], [3, 2, 2, -1]], [True, False]),
    "none at all": batch_of(BOXES, [[2, -1, -1, -1], [-1, -1, -1, -1]], [False, False]),
    "no objects": batch_of(np.zeros((2, 4, 4)), np.full((2, 4), -1), [True, True]),
}


def iou(a, b):
    height = min(a[2], b[2]) - max(a[0], b[0])
    width = min(a[3], b[3]) - max(a[1], b[1])
    inside = max(height, 0) * max(width, 0)
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return inside / (sum(areas) - inside)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.float64(x)))


def probabilities(logits, tree):
    result = []
    for c in range(5):
        probability, parents = 1.0, PARENTS if tree else [-1] * 5
        while c >= 0:
            siblings = [j for j in range(5) if parents[j] == parents[c]]
            probability *= np.exp(logits[c]) / sum(np.exp(logits[j]) for j in siblings)
            c = parents[c]
        result.append(probability)
    return np.array(result)


def every_prediction(maps):
    """(row, column, prior's number, outputs) of each."""
    for row, column in np.ndindex(maps.shape[:2]):
        for k in range(3):
            yield row, column, k, maps[row, column, 10 * k : 10 * k + 10].astype("float64")


def decoded(row, column, k, outputs, size):
    cy, cx = (row + sigmoid(outputs[1])) * 32, (column + sigmoid(outputs[0])) * 32
    h, w = PRIORS[k][0] * np.exp(outputs[3]), PRIORS[k][1] * np.exp(outputs[2])
    return np.array([cy - h / 2, cx - w / 2, cy + h / 2, cx + w / 2]) / [*size, *size]


def reference_terms(maps, batch, tree, size, share=0.5):
    """The five terms, prediction by prediction."""
    truth, terms = batch["bounding_boxes"], np.zeros(5)
    has_boxes = batch.get("has_boxes", [True] * len(maps))
    for b, x in enumerate(maps):
        boxes, labels = truth["boxes"][b].astype("float64"), truth["labels"][b]
        if not has_boxes[b]:
            for label in set(labels) - {-1}:
                best, best_score = None, -1.0
                surest = max(sigmoid(outputs[4]) for _, _, _, outputs in every_prediction(x))
                for _, _, _, outputs in every_prediction(x):
                    if sigmoid(outputs[4]) < share * surest:
                        continue
                    score = sigmoid(outputs[4]) * probabilities(outputs[5:], tree)[label]
                    if score > best_score:
                        best, best_score = outputs, score
                terms[4] -= np.log(probabilities(best[5:], tree)[label])
                if sigmoid(best[4]) < 0.3:
                    terms[2] += 5 * (0.3 - sigmoid(best[4])) ** 2 / 2
            continue
        objects = [
            (box, label)
            for box, label in zip(boxes, labels)
            if label >= 0 and box[2] > box[0] and box[3] > box[1]
        ]
        owners = {}
        for box, label in objects:
            h, w = (box[2] - box[0]) * size[0], (box[3] - box[1]) * size[1]
            best = max(range(3), key=lambda k: iou([0, 0, h, w], [0, 0, *PRIORS[k]]))
            row, column = ((box[i] + box[i + 2]) / 2 * size[i] // 32 for i in (0, 1))
            owners.setdefault((int(row), int(column), best), (box, label))
        for row, column, k, outputs in every_prediction(x):
            objectness, box = sigmoid(outputs[4]), decoded(row, column, k, outputs, size)
            if (row, column, k) not in owners:
                if max([iou(box, other) for other, _ in objects], default=0.0) <= 0.6:
                    terms[3] += objectness**2 / 2
                continue
            other, label = owners[row, column, k]
            y1, x1, y2, x2 = other * [*size, *size]
            terms[0] += (sigmoid(outputs[0]) - ((x1 + x2) / 64 - column)) ** 2 / 2
            terms[0] += (sigmoid(outputs[1]) - ((y1 + y2) / 64 - row)) ** 2 / 2
            terms[1] += (outputs[2] - np.log((x2 - x1) / PRIORS[k][1])) ** 2 / 2
            terms[1] += (outputs[3] - np.log((y2 - y1) / PRIORS[k][0])) ** 2 / 2
            terms[2] += 5 * (objectness - iou(box, other)) ** 2 / 2
            terms[4] -= np.log(probabilities(outputs[5:], tree)[label])
    return terms / len(maps)


def found_terms(model, maps, batch):
    for metric in model.loss_terms:
        metric.reset_state()
    loss = model.compute_loss(batch, y_pred={"stride32": maps})
    return float(loss), np.array([float(metric.result()) for metric in model.loss_terms])


@pytest.mark.parametrize("name", ["softmax", "tree"])
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("rows, columns", [(3, 4), (2, 5)], ids=["its size", "another size"])
def test_loss_equals_reference(models, name, batch, rows, columns):
    maps = np.random.default_rng(3).normal(size=(2, rows, columns, 30)).astype("f4")
    maps[..., 4::10] -= 2.0
    batch = BATCHES[batch]
    expected = reference_terms(maps, batch, name == "tree", (32 * rows, 32 * columns))
    loss, terms = found_terms(models[name], maps, batch)
    np.testing.assert_allclose(terms, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(loss, expected.sum(), rtol=1e-4)


def test_a_label_without_a_box_is_learnt_where_there_is_an_object(models):
    """Background that finds a class probable is left alone, unless all may learn (the paper)."""
    model, batch = models["softmax"], batch_of(np.zeros((1, 1, 4)), [[2]], [False])
    maps = np.zeros((1, 2, 2, 30), "f4")
    maps[..., 4::10] = -4.0
    maps[0, 1, 1, 4] = 2.0  # an object, of another class by now
    maps[0, 1, 1, 5] = 6.0
    maps[0, 0, 0, 7] = 9.0  # background
    for share, place in ((0.5, (1, 1)), (0.0, (0, 0))):
        model.label_objectness = share
        try:
            found = gradients(model, maps, batch)[0]
        finally:
            model.label_objectness = 0.5
        changed = {tuple(p) for p in np.argwhere(np.abs(found[..., 5:10]).max(axis=-1) > 1e-6)}
        assert changed == {place}


def gradients(model, maps, batch):
    """Of the loss by the maps."""
    if keras.backend.backend() == "jax":
        import jax

        def loss_of(maps):
            with keras.StatelessScope():  # for the metrics
                return model.compute_loss(batch, y_pred={"stride32": maps})

        return np.asarray(jax.grad(loss_of)(maps))
    import tensorflow as tf

    maps = tf.constant(maps)
    with tf.GradientTape() as tape:
        tape.watch(maps)
        loss = model.compute_loss(batch, y_pred={"stride32": maps})
    return tape.gradient(loss, maps).numpy()


@pytest.mark.parametrize("name", ["softmax", "tree"])
def test_an_image_without_boxes_teaches_one_box_of_each_class(models, name):
    maps = np.random.default_rng(0).normal(size=(1, 3, 4, 30)).astype("f4")
    maps[0, 2, 1, 14:16] = 5.0  # the second prior of this cell is sure of an animal
    found = gradients(models[name], maps, batch_of([[[0, 0, 0, 0]]], [[0]], [False]))
    places = {(int(row), int(column), c // 10) for _, row, column, c in np.argwhere(found)}
    assert places == {(2, 1, 1)}
    taught = set(np.flatnonzero(found[0, 2, 1, 10:20]))
    # Its objectness, above 0.3, learns nothing; of the tree "animal" and "shape" alone do.
    assert taught == ({5, 6} if name == "tree" else {5, 6, 7, 8, 9})
    # One that isn't sure of any object learns that there is one.
    maps[0, ..., 4::10] = -3.0
    found = gradients(models[name], maps, batch_of([[[0, 0, 0, 0]]], [[0]], [False]))
    assert {c % 10 for *_, c in np.argwhere(found)} == taught | {4}
    assert found[..., 4::10].min() < 0 and found[..., 4::10].max() == 0


def test_what_is_below_a_label_learns_nothing(models):
    maps = np.random.default_rng(0).normal(size=(1, 3, 4, 30)).astype("f4")
    for label, logits in [(0, {5, 6}), (1, {5, 6}), (3, {5, 6, 7, 8})]:
        found = gradients(models["tree"], maps, batch_of([[[0.2, 0.2, 0.5, 0.5]]], [[label]]))
        assert {int(c) % 10 for *_, c in np.argwhere(found)} - {0, 1, 2, 3, 4} == logits


@pytest.mark.parametrize("name", ["softmax", "tree"])
def test_decoding_equals_reference(models, name):
    maps = np.random.default_rng(5).normal(0, 1.5, size=(2, 3, 4, 30)).astype("f4")
    boxes, scores = (ops.convert_to_numpy(x) for x in models[name].decode({"stride32": maps}))
    reached = set()
    for b in range(2):
        for a, (row, column, k, outputs) in enumerate(every_prediction(maps[b])):
            box = np.clip(decoded(row, column, k, outputs, (96, 128)), 0, 1)
            np.testing.assert_allclose(boxes[b, a], box, atol=1e-5)
            expected = probabilities(outputs[5:], name == "tree")
            if name == "tree":
                top = 0 if expected[0] > expected[1] else 1
                below = [c for c in range(5) if PARENTS[c] == top]
                low = max(below, key=lambda c: expected[c])
                here = low if min(expected[top], expected[low]) > 0.5 else top
                expected = np.where(np.arange(5) == here, expected, 0)
                reached.add(here)
            np.testing.assert_allclose(
                scores[b, a], sigmoid(outputs[4]) * expected, rtol=1e-4, atol=1e-6
            )
    assert name == "softmax" or reached == {0, 2, 3, 4}  # a square is all that a shape can be


def test_references_are_the_priors(models):
    predicted = models["softmax"].predictions({"stride32": np.zeros((1, 3, 4, 30), "f4")})
    expected = anchors.yolo_priors([(3, 4)], [32], (96, 128), [PRIORS])
    np.testing.assert_allclose(predicted.references, expected, rtol=1e-5)


def pictures(name, height=96, width=128):
    images = np.random.default_rng(0).uniform(0, 255, (2, height, width, 3)).astype("float32")
    return {"images": images, **BATCHES[name]}


def copied(model):
    copy = YOLOv2.from_config(model.get_config())
    copy.set_weights(model.get_weights())
    return copy


@pytest.mark.parametrize("name", ["softmax", "tree"])
@pytest.mark.parametrize(
    "height, width",
    # All models train at their own size in tests/test_conformance.py.
    [
        pytest.param(96, 128, marks=pytest.mark.slow, id="its size"),
        pytest.param(64, 160, id="another size"),
    ],
)
def test_training_lowers_the_loss(models, name, height, width):
    model = copied(models[name])
    model.compile(keras.optimizers.SGD(1e-3))
    batch = pictures("without boxes", height, width)
    losses = [model.train_on_batch(batch, return_dict=True) for _ in range(3)]
    assert losses[-1]["loss"] < losses[0]["loss"]
    terms = sum(losses[0][name] for name in model.TERMS)
    np.testing.assert_allclose(terms, losses[0]["loss"], rtol=1e-5)


@pytest.mark.slow
def test_compiled_loss_is_the_same(models):
    losses = []
    for jit_compile in (False, True):
        model = copied(models["tree"])
        model.compile(keras.optimizers.SGD(1e-4), jit_compile=jit_compile)
        losses.append(model.train_on_batch(pictures("without boxes"), return_dict=True))
    for name, value in losses[0].items():
        np.testing.assert_allclose(losses[1][name], value, rtol=1e-4)


@pytest.mark.parametrize("name", ["softmax", "tree"])
def test_survives_a_file(models, name, tmp_path):
    model = models[name]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    expected = model.predict(pictures("boxes"), verbose=0)
    received = loaded.predict(pictures("boxes"), verbose=0)
    for key, value in expected.items():
        np.testing.assert_allclose(received[key], value, atol=1e-6)
    assert loaded.parents == model.parents and loaded.class_names == NAMES


def test_networks_are_the_papers():
    model = yolo_v2_darknet19(20, (64, 64, 3))
    trainable = sum(int(np.prod(x.shape)) for x in model.trainable_variables)
    assert trainable == 50_655_389
    # yolov2-voc.weights has 202,704,260 bytes.
    assert 16 + 4 * model.count_params() == 202_704_260
    np.testing.assert_allclose(model.priors[0][0], (32 * 1.73145, 32 * 1.3221))
    assert model.predictions({"stride32": np.zeros((1, 13, 13, 125))}).references.shape[0] == 845
    # YOLO9000 has three priors and 9,418 classes.
    model = yolo_9000(darknet19((32, 32, 3), include_top=False), 9418)
    trainable = sum(int(np.prod(x.shape)) for x in model.trainable_variables)
    assert trainable == 48_793_101
    assert model.network.output["stride32"].shape == (None, 1, 1, 28269)


def test_errors(models):
    with pytest.raises(ValueError, match="passthrough must be .*; received: 'reorg'"):
        yolo_v2(small_backbone(), 2, passthrough="reorg")
    with pytest.raises(ValueError, match=r"multiples of 32; received: \(80, 96\)"):
        yolo_v2_mobilenet_v2(2, (80, 96, 3), filters=8)
    with pytest.raises(ValueError, match="parents must be as many as the names.*: 2 for 5"):
        YOLOv2(models["softmax"].network, 5, [PRIORS], NAMES, parents=[-1, 0])
