"""Suppression against loops in NumPy, and against TensorFlow's kernels where they exist."""

import hypothesis
import keras
import numpy as np
import pytest
from hypothesis import strategies as st
from keras import ops

from kerasvision.ops import nms

NUM_BOXES = 48
IOU_THRESHOLDS = (0.5, 0.45, 0.0, 1.0)


def many(max_examples):
    """Settings for batches of inputs; JAX compiles anew for each."""
    return hypothesis.settings(
        max_examples=max_examples if keras.backend.backend() == "tensorflow" else 1,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )


seeds = st.integers(0, 2**31)


# --- References --------------------------------------------------------------------------


def iou_of(p, q):
    """In float32, operation by operation as in TensorFlow's kernel."""
    p = np.concatenate([np.minimum(p[:2], p[2:]), np.maximum(p[:2], p[2:])])
    q = np.concatenate([np.minimum(q[:2], q[2:]), np.maximum(q[:2], q[2:])])
    area_p, area_q = (p[2] - p[0]) * (p[3] - p[1]), (q[2] - q[0]) * (q[3] - q[1])
    if area_p <= 0 or area_q <= 0:
        return np.float32(0)
    height = max(min(p[2], q[2]) - max(p[0], q[0]), np.float32(0))
    width = max(min(p[3], q[3]) - max(p[1], q[1]), np.float32(0))
    return height * width / (area_p + area_q - height * width)


def candidates_of(boxes, scores, score_threshold):
    """Indices by falling scores, equal ones by index."""
    finite = np.isfinite(boxes).all(-1) & np.isfinite(scores)
    return [
        i for i in np.argsort(-scores, kind="stable") if finite[i] and scores[i] > score_threshold
    ]


def greedy(boxes, scores, iou_threshold, score_threshold, max_detections):
    kept = []
    for i in candidates_of(boxes, scores, score_threshold):
        if len(kept) < max_detections:
            if all(iou_of(boxes[i], boxes[k]) <= np.float32(iou_threshold) for k in kept):
                kept.append(i)
    return kept


def class_by_class(boxes, scores, iou_threshold, score_threshold, max_detections):
    """(box, class) of the best after suppression in each column of the scores."""
    found = []
    for label in range(scores.shape[1]):
        column = scores[:, label]
        for i in greedy(boxes, column, iou_threshold, score_threshold, len(boxes)):
            found.append((-column[i], i, label))
    return [(i, label) for _, i, label in sorted(found)[:max_detections]]


def soft(boxes, scores, labels, method, sigma, iou_threshold, score_threshold, max_detections):
    scores = {i: float(scores[i]) for i in candidates_of(boxes, scores, score_threshold)}
    kept = []
    while scores and len(kept) < max_detections:
        best = max(scores, key=lambda i: (scores[i], -i))
        if scores[best] <= score_threshold:
            break
        kept.append((best, scores.pop(best)))
        for i in scores:
            iou = float(iou_of(boxes[i], boxes[best]))
            if labels[i] != labels[best]:
                continue
            if method == "gaussian":
                scores[i] *= np.exp(-(iou**2) / sigma)
            elif iou > np.float32(iou_threshold):
                scores[i] *= 1 - iou
    return kept


def matrix(iou, scores, labels, method, sigma):
    """Lowered scores: Wang et al. 2020, equations 3 to 5."""

    def f(x):
        return np.exp(-sigma * x**2) if method == "gaussian" else 1 - x

    def better(j):
        return [
            i
            for i in range(len(scores))
            if labels[i] == labels[j] and (-scores[i], i) < (-scores[j], j)
        ]

    lowered = []
    for j in range(len(scores)):
        decay = 1.0
        for i in better(j):
            compensation = f(max([iou[k, i] for k in better(i)], default=0.0))
            if compensation > 0:
                decay = min(decay, f(iou[i, j]) / compensation)
        lowered.append(scores[j] * decay)
    return np.array(lowered)


# --- Inputs ------------------------------------------------------------------------------


def random_boxes(rng, batch):
    """A third all over the picture, the others crowded around six objects."""
    corner = rng.uniform(-0.1, 0.8, (batch, NUM_BOXES, 2))
    size = rng.uniform(0.01, 0.4, (batch, NUM_BOXES, 2))
    objects = rng.integers(0, 6, (batch, NUM_BOXES, 1))
    crowded = rng.uniform(size=(batch, NUM_BOXES, 1)) < 0.67
    around = np.take_along_axis(corner, objects, 1) + rng.normal(0, 0.02, corner.shape)
    corner = np.where(crowded, around, corner)
    size = np.where(crowded, np.take_along_axis(size, objects, 1), size)
    return np.concatenate([corner, corner + size], axis=-1).astype("float32")


def adversarial_boxes(rng, kind):
    """(NUM_BOXES, 4)"""
    boxes = random_boxes(rng, 1)[0]
    grid = rng.integers(0, 5, (NUM_BOXES, 4)).astype("float32")
    return {
        "grid": grid / 4,  # duplicates, inverted and degenerate ones, IoUs of exactly 1/2
        "negative": -grid,
        "tiny": grid * np.float32(1e-20),  # areas that vanish
        "huge": grid * np.float32(1e18),
        "all sizes": boxes * np.float32(10) ** rng.integers(-18, 18, (NUM_BOXES, 1)),
        "one": np.tile(boxes[:1], (NUM_BOXES, 1)),
        "points": np.concatenate([boxes[:, :2]] * 2, axis=1),
        "inverted": boxes[:, [2, 1, 0, 3]],
        "chain": np.stack([grid[:, 0] * 0, np.arange(NUM_BOXES) * 0.3] * 2, 1) + [0, 0, 1, 1],
    }[kind].astype("float32")


BOX_KINDS = (
    "grid",
    "negative",
    "tiny",
    "huge",
    "all sizes",
    "one",
    "points",
    "inverted",
    "chain",
)


def adversarial_scores(rng, kind):
    scores = rng.uniform(0, 1, NUM_BOXES).astype("float32")
    return {
        "distinct": scores,
        "ties": np.round(scores * 4) / 4,  # some at the threshold exactly
        "equal": scores * 0 + 1,
        "negative": -scores,
        "zeros": np.where(scores > 0.5, np.float32(0), np.float32(-0.0)),
        "denormal": np.round(scores * 3).astype("float32") * np.float32(1e-41),
    }[kind].astype("float32")


def adversarial_pictures(rng):
    """Each kind of boxes with two kinds of scores: the kinds, the boxes and the scores."""
    kinds = [(b, s) for b in BOX_KINDS for s in rng.choice(SCORE_KINDS, 2, replace=False)]
    boxes = np.stack([adversarial_boxes(rng, b) for b, _ in kinds])
    scores = np.stack([adversarial_scores(rng, s) for _, s in kinds])
    return kinds, boxes, scores


SCORE_KINDS = ("distinct", "ties", "equal", "negative", "zeros", "denormal")


def as_numpy(value):
    return keras.tree.map_structure(ops.convert_to_numpy, value)


def assert_kept(kept, count, expected):
    np.testing.assert_array_equal(kept[:count], expected)
    np.testing.assert_array_equal(kept[count:], -1)


def assert_detections(found, boxes, pairs, scores):
    """found: of one picture; pairs: expected (box, class); scores: theirs."""
    count = len(pairs)
    assert found["count"] == count
    np.testing.assert_array_equal(found["labels"][:count], [label for _, label in pairs])
    np.testing.assert_array_equal(found["scores"][:count], scores)
    for n, (i, _) in enumerate(pairs):
        np.testing.assert_array_equal(found["boxes"][n], boxes[i])
    assert (found["labels"][count:] == -1).all()
    assert (found["scores"][count:] == 0).all() and (found["boxes"][count:] == 0).all()


# --- Class-agnostic ----------------------------------------------------------------------


def test_equals_the_loop_on_random_inputs(compiled):
    function = compiled(nms.non_max_suppression)

    @many(max_examples=4)
    @hypothesis.given(seeds, st.sampled_from(IOU_THRESHOLDS))
    def check(seed, iou_threshold):
        rng = np.random.default_rng(seed)
        boxes, scores = random_boxes(rng, 60), rng.uniform(0, 1, (60, NUM_BOXES)).astype("f4")
        settings = {"iou_threshold": iou_threshold, "max_detections": 12}
        kept, counts = as_numpy(function(boxes, scores, score_threshold=0.1, **settings))
        assert kept.dtype == counts.dtype == np.int32
        for b in range(60):
            expected = greedy(boxes[b], scores[b], iou_threshold, 0.1, 12)
            assert_kept(kept[b], counts[b], expected)

    check()


def test_equals_the_loop_on_adversarial_inputs(compiled):
    function = compiled(nms.non_max_suppression)

    @many(max_examples=4)
    @hypothesis.given(seeds, st.sampled_from(IOU_THRESHOLDS), st.sampled_from([-np.inf, 0.25]))
    def check(seed, iou_threshold, score_threshold):
        rng = np.random.default_rng(seed)
        kinds, boxes, scores = adversarial_pictures(rng)
        settings = {"iou_threshold": iou_threshold, "score_threshold": score_threshold}
        kept, counts = as_numpy(function(boxes, scores, max_detections=20, **settings))
        for b, kind in enumerate(kinds):
            with np.errstate(under="ignore"):
                expected = greedy(
                    # Processors flush such numbers to zero while TensorFlow computes.
                    np.where(abs(boxes[b]) < 1.2e-38, 0, boxes[b]),
                    np.where(abs(scores[b]) < 1.2e-38, 0, scores[b]),
                    *(iou_threshold, score_threshold, 20),
                )
            if kind[0] != "tiny":  # their areas are flushed as well; see the test below
                assert_kept(kept[b], counts[b], expected)

    check()


def test_equals_tensorflow(compiled):
    tf = pytest.importorskip("tensorflow")
    function = compiled(nms.non_max_suppression)

    @many(max_examples=8)
    @hypothesis.given(seeds, st.sampled_from(IOU_THRESHOLDS), st.sampled_from([-np.inf, 0.25]))
    def check(seed, iou_threshold, score_threshold):
        rng = np.random.default_rng(seed)
        _, boxes, scores = adversarial_pictures(rng)
        boxes = np.concatenate([boxes, random_boxes(rng, 10)])
        scores = np.concatenate([scores, rng.uniform(0, 1, (10, NUM_BOXES)).astype("float32")])
        settings = {"iou_threshold": iou_threshold, "score_threshold": score_threshold}
        kept, counts = as_numpy(function(boxes, scores, max_detections=30, **settings))
        for b in range(len(boxes)):
            expected = tf.image.non_max_suppression(boxes[b], scores[b], 30, **settings)
            assert_kept(kept[b], counts[b], expected.numpy())

    check()


@pytest.mark.parametrize("clustered", [False, True])
def test_equals_tensorflow_over_many_chunks(compiled, clustered):
    tf = pytest.importorskip("tensorflow")
    rng = np.random.default_rng(clustered)
    center, size = rng.uniform(0, 1, (2, 1500, 2)) * [[[1.0]], [[0.3]]]
    if clustered:
        objects = rng.integers(0, 30, 1500)
        center = center[objects] + rng.normal(0, 0.02, (1500, 2))
        size = size[objects]
    boxes = np.concatenate([center - size / 2, center + size / 2], axis=1).astype("float32")
    scores = rng.integers(0, 300, 1500).astype("float32") / 300
    for max_detections in (150, 700):
        expected = tf.image.non_max_suppression(boxes, scores, max_detections, 0.5)
        kept, count = as_numpy(
            compiled(nms.non_max_suppression)(boxes, scores, max_detections=max_detections)
        )
        assert_kept(kept, count, expected.numpy())


@pytest.mark.parametrize("block_size", [1, 3, 16, 64])
def test_blocks_do_not_change_the_result(block_size):
    rng = np.random.default_rng(0)
    boxes = random_boxes(rng, 6)
    scores = np.round(rng.uniform(0, 1, (6, NUM_BOXES, 3)), 2).astype("float32")
    tensors = ops.convert_to_tensor(boxes), ops.convert_to_tensor(scores)
    kept, counts = as_numpy(nms._greedy(*tensors, None, 0.4, -1.0, 20, block_size=block_size))
    for b in range(6):
        expected = class_by_class(boxes[b], scores[b], 0.4, -1.0, 20)
        assert_kept(kept[b], counts[b], [i * 3 + label for i, label in expected])


def test_chain_golden(compiled):
    # Each box overlaps the next by 0.7 / 1.3: the first suppresses the second, which then
    # can't suppress the third, which suppresses the fourth.
    #   |-----0-----|
    #      |-----1-----|
    #         |-----2-----|
    #            |-----3-----|
    boxes = np.array([[0, 0.3 * i, 1, 0.3 * i + 1] for i in range(4)], "float32")
    scores = np.array([0.9, 0.8, 0.7, 0.6], "float32")
    kept, count = as_numpy(
        compiled(nms.non_max_suppression)(boxes, scores, iou_threshold=0.5, max_detections=3)
    )
    np.testing.assert_array_equal(kept, [0, 2, -1])
    assert count == 2


def test_iou_and_score_at_their_thresholds_golden(compiled):
    # The second box is the first one's left half: IoU 1/2. The third scores 1/4.
    boxes = np.array([[0, 0, 1, 1], [0, 0, 1, 0.5], [2, 2, 3, 3]], "float32")
    scores = np.array([1.0, 0.5, 0.25], "float32")
    for iou_threshold, score_threshold, expected in (
        (0.5, 0.25, [0, 1, -1]),
        (0.49, 0.24, [0, 2, -1]),
        (0.0, -1.0, [0, 2, -1]),
    ):
        settings = {"iou_threshold": iou_threshold, "score_threshold": score_threshold}
        kept, _ = compiled(nms.non_max_suppression)(boxes, scores, max_detections=3, **settings)
        np.testing.assert_array_equal(kept, expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_never_kept(compiled, bad):
    boxes = random_boxes(np.random.default_rng(0), 1)[0]
    scores = np.linspace(1, 0.1, NUM_BOXES, dtype="float32")
    boxes[:4][np.arange(4), np.arange(4)] = bad
    scores[4:7] = bad
    kept, count = as_numpy(
        compiled(nms.non_max_suppression)(boxes, scores, iou_threshold=1.0, max_detections=48)
    )
    assert_kept(kept, count, np.arange(7, 48))


def test_zero_boxes_and_one(compiled):
    function = compiled(nms.non_max_suppression)
    kept, count = as_numpy(function(np.zeros((0, 4), "f4"), np.zeros(0, "f4"), max_detections=3))
    assert kept.tolist() == [-1, -1, -1] and count == 0
    kept, count = as_numpy(function(np.zeros((2, 0, 4), "f4"), np.zeros((2, 0), "f4")))
    assert (kept == -1).all() and kept.shape == (2, 100) and count.tolist() == [0, 0]
    kept, count = as_numpy(function(np.zeros((1, 4), "f4"), np.ones(1, "f4"), max_detections=1))
    assert kept.tolist() == [0] and count == 1


def test_lists_and_half_precision_are_taken():
    kept, count = nms.non_max_suppression([[0, 0, 1, 1], [0, 0, 1, 1]], [1, 2], max_detections=2)
    np.testing.assert_array_equal(ops.convert_to_numpy(kept), [1, -1])
    boxes = ops.cast([[0, 0, 1, 1], [0, 0, 0.5, 1]], "bfloat16")
    kept, _ = nms.non_max_suppression(boxes, ops.cast([1, 2], "float16"), max_detections=2)
    np.testing.assert_array_equal(ops.convert_to_numpy(kept), [1, 0])


# --- Per class ---------------------------------------------------------------------------


@pytest.mark.parametrize("candidates", [None, 60])
def test_batched_equals_the_loop(compiled, candidates):
    function = compiled(nms.batched_non_max_suppression)
    settings = {"iou_threshold": 0.45, "score_threshold": 0.1, "max_detections": 30}

    @many(max_examples=4)
    @hypothesis.given(seeds)
    def check(seed):
        rng = np.random.default_rng(seed)
        boxes = random_boxes(rng, 50)
        boxes[:4] = [adversarial_boxes(rng, rng.choice(["grid", "huge", "one"])) for _ in "1234"]
        scores = rng.uniform(0, 1, (50, NUM_BOXES, 4)).astype("float32") ** 2
        scores[4:8] = np.round(scores[4:8], 1)
        scores[8], scores[9, 5:] = 0, 0  # nothing, little
        scores[10, 0, 0], scores[10, 1, 1], boxes[10, 2, 2] = np.nan, np.inf, np.nan
        found = as_numpy(function(boxes, scores, candidates=candidates, **settings))
        for b in range(50):
            looked_at = scores[b].copy()
            if candidates:
                bad = ~np.isfinite(boxes[b]).all(1)[:, None] | ~np.isfinite(looked_at)
                looked_at[bad] = -1
                looked_at.flat[np.argsort(-looked_at.ravel(), kind="stable")[candidates:]] = 0
            pairs = class_by_class(boxes[b], looked_at, *settings.values())
            picture = {name: value[b] for name, value in found.items()}
            assert_detections(picture, boxes[b], pairs, [scores[b][p] for p in pairs])

    check()


def test_batched_equals_the_loop_over_many_chunks(compiled):
    # Twelve places and three classes have no 40 boxes to keep: all 1200 pairs are gone through.
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 1, (12, 2))
    places = np.concatenate([corner, corner + rng.uniform(0.1, 0.3, (12, 2))], axis=1)
    boxes = places[rng.integers(0, 12, (3, 400))].astype("float32")
    boxes[1] += rng.normal(0, 0.02, (400, 4))
    scores = rng.integers(0, 12, (3, 400, 3)).astype("float32") / 10
    scores[1, :, 2] = scores[1, 5:20] = 0.5  # far more equal scores than a chunk has pairs
    scores[0, ::2] *= -0.0
    scores[2, 7], scores[2, 8, 1], scores[2, 11, 2], boxes[2, 9, 0] = np.nan, np.inf, np.nan, np.inf
    settings = {"iou_threshold": 0.5, "score_threshold": -0.5, "max_detections": 40}
    function = compiled(nms.batched_non_max_suppression)
    found = as_numpy(function(boxes, scores, **settings))
    for b in range(3):
        pairs = class_by_class(boxes[b], scores[b], *settings.values())
        picture = {name: value[b] for name, value in found.items()}
        assert_detections(picture, boxes[b], pairs, [scores[b][p] for p in pairs])
    assert (found["count"][[0, 2]] == 36).all()
    # What isn't finite takes another way.
    finite = as_numpy(function(boxes[:2], scores[:2], **settings))
    for name, value in finite.items():
        np.testing.assert_array_equal(value, found[name][:2])


def test_batched_equals_tensorflow_where_few_boxes_are_selected_first(compiled):
    tf = pytest.importorskip("tensorflow")
    rng = np.random.default_rng(3)
    boxes = np.tile(random_boxes(rng, 2), (1, 20, 1))
    boxes = boxes + rng.normal(0, 0.02, boxes.shape).astype("float32")
    scores = rng.exponential(0.02, (2, 20 * NUM_BOXES, 5)).astype("float32")
    expected = tf.image.combined_non_max_suppression(
        boxes[:, :, None], scores, 80, 80, 0.45, 0.01, clip_boxes=False
    )
    found = as_numpy(
        compiled(nms.batched_non_max_suppression)(
            boxes, scores, iou_threshold=0.45, score_threshold=0.01, max_detections=80
        )
    )
    np.testing.assert_array_equal(found["boxes"], expected[0])
    np.testing.assert_array_equal(found["scores"], expected[1])
    np.testing.assert_array_equal(found["labels"], expected[2])
    np.testing.assert_array_equal(found["count"], expected[3])


def test_class_agnostic_takes_the_best_class_of_each_box(compiled):
    function = compiled(nms.batched_non_max_suppression)
    settings = {"iou_threshold": 0.4, "score_threshold": 0.2, "max_detections": 10}
    rng = np.random.default_rng(0)
    boxes = random_boxes(rng, 8)
    scores = rng.uniform(0, 1, (8, NUM_BOXES, 3)).astype("float32")
    for candidates in (None, NUM_BOXES - 1):
        found = as_numpy(
            function(boxes, scores, class_agnostic=True, candidates=candidates, **settings)
        )
        for b in range(8):
            best, label = scores[b].max(1), scores[b].argmax(1)
            kept = greedy(boxes[b], best, *settings.values())
            picture = {name: value[b] for name, value in found.items()}
            assert_detections(picture, boxes[b], [(i, label[i]) for i in kept], best[kept])


def test_labelled_equals_the_loop(compiled):
    function = compiled(nms.labelled_non_max_suppression)
    settings = {"iou_threshold": 0.5, "score_threshold": 0.1, "max_detections": 25}

    @many(max_examples=4)
    @hypothesis.given(seeds)
    def check(seed):
        rng = np.random.default_rng(seed)
        boxes = random_boxes(rng, 55)
        boxes[:4] = [adversarial_boxes(rng, rng.choice(["grid", "huge", "one"])) for _ in "1234"]
        scores = rng.uniform(0, 1, (55, NUM_BOXES)).astype("float32")
        scores[4:8] = np.round(scores[4:8], 1)
        scores[8, :3] = np.nan, np.inf, -np.inf
        labels = rng.integers(-1, 4, (55, NUM_BOXES)).astype("int32")
        found = as_numpy(function(boxes, scores, labels, **settings))
        for b in range(55):
            columns = np.where(labels[b][:, None] == np.arange(4), scores[b][:, None], 0)
            pairs = class_by_class(boxes[b], columns, *settings.values())
            picture = {name: value[b] for name, value in found.items()}
            assert_detections(picture, boxes[b], pairs, [scores[b, i] for i, _ in pairs])

    check()


def test_classes_do_not_suppress_each_other_golden(compiled):
    boxes = np.array([[[0, 0, 1, 1], [0, 0, 1, 1]]], "float32")
    scores = np.array([[[0.9, 0.3], [0.4, 0.8]]], "float32")
    found = as_numpy(compiled(nms.batched_non_max_suppression)(boxes, scores, max_detections=3))
    np.testing.assert_array_equal(found["labels"], [[0, 1, -1]])
    np.testing.assert_array_equal(found["scores"], np.array([[0.9, 0.8, 0]], "float32"))


def test_zero_boxes_give_padding(compiled):
    boxes, scores = np.zeros((2, 0, 4), "float32"), np.zeros((2, 0, 3), "float32")
    labels = np.zeros((2, 0), "int32")
    for found in (
        compiled(nms.batched_non_max_suppression)(boxes, scores, max_detections=4),
        compiled(nms.batched_soft_non_max_suppression)(boxes, scores, max_detections=4),
        compiled(nms.labelled_non_max_suppression)(boxes, scores[..., 0], labels, max_detections=4),
    ):
        found = as_numpy(found)
        np.testing.assert_array_equal(found["boxes"], np.zeros((2, 4, 4)))
        np.testing.assert_array_equal(found["scores"], np.zeros((2, 4)))
        np.testing.assert_array_equal(found["labels"], np.full((2, 4), -1))
        np.testing.assert_array_equal(found["count"], [0, 0])


def test_gradients_reach_the_boxes_and_scores_that_are_kept():
    rng = np.random.default_rng(0)
    boxes = random_boxes(rng, 1)
    scores = rng.uniform(0.2, 1, (1, NUM_BOXES, 2)).astype("float32")
    weight = rng.normal(size=(1, 10, 4)).astype("float32")

    def loss(boxes, scores):
        found = nms.batched_non_max_suppression(boxes, scores, max_detections=10)
        return ops.sum(found["boxes"] * weight) + ops.sum(ops.square(found["scores"]))

    if keras.backend.backend() == "jax":
        import jax

        received = jax.grad(loss, argnums=(0, 1))(boxes, scores)
    else:
        import tensorflow as tf

        tensors = tf.constant(boxes), tf.constant(scores)
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            value = loss(*tensors)
        received = tape.gradient(value, tensors)
    # The choice stays the same for small steps, and the loss is quadratic then: central
    # differences are exact but for rounding.
    for x, gradient in zip((boxes, scores), received):
        gradient = ops.convert_to_numpy(ops.convert_to_tensor(gradient))
        for place in list(zip(*np.nonzero(gradient)))[::8]:
            ends = []
            for step in (1e-3, -1e-3):
                moved = x.copy()
                moved[place] += step
                ends.append(loss(*((moved, scores) if x is boxes else (boxes, moved))))
            np.testing.assert_allclose((ends[0] - ends[1]) / 2e-3, gradient[place], atol=5e-3)
        assert np.count_nonzero(gradient) == (40 if x is boxes else 10)


# --- Soft --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["gaussian", "linear"])
def test_soft_equals_the_loop(compiled, method):
    function = compiled(nms.soft_non_max_suppression)
    settings = {"method": method, "sigma": 0.4, "iou_threshold": 0.3}
    settings.update(score_threshold=0.15, max_detections=20)

    @many(max_examples=3)
    @hypothesis.given(seeds)
    def check(seed):
        rng = np.random.default_rng(seed)
        boxes = random_boxes(rng, 75)
        boxes[:6] = [adversarial_boxes(rng, kind) for kind in BOX_KINDS[:6]]
        boxes[6, 3, 2] = np.nan
        scores = rng.uniform(0, 1, (75, NUM_BOXES)).astype("float32")
        scores[7, :3] = np.nan, np.inf, -np.inf
        labels = rng.integers(0, 2, (75, NUM_BOXES)).astype("int32")
        kept, kept_scores, counts = as_numpy(function(boxes, scores, labels, **settings))
        for b in range(75):
            if b == 2:  # tiny boxes, whose areas are flushed to zero
                continue
            expected = soft(boxes[b], scores[b], labels[b], *settings.values())
            lowered = [s for _, s in expected]
            # Rounding may swap scores that are equal but for it, or drop the last.
            assert abs(counts[b] - len(expected)) <= 1
            number = min(counts[b], len(expected))
            np.testing.assert_allclose(kept_scores[b, :number], lowered[:number], rtol=1e-5)
            if np.min(-np.diff(lowered), initial=1) > 1e-6:
                assert kept[b, :number].tolist() == [i for i, _ in expected][:number]
            assert (kept[b, counts[b] :] == -1).all() and (kept_scores[b, counts[b] :] == 0).all()

    check()


def test_soft_equals_tensorflow(compiled):
    tf = pytest.importorskip("tensorflow")
    rng = np.random.default_rng(0)
    boxes = random_boxes(rng, 20)
    scores = rng.uniform(0, 1, (20, NUM_BOXES)).astype("float32")
    kept, kept_scores, counts = as_numpy(
        compiled(nms.soft_non_max_suppression)(
            boxes, scores, sigma=0.5, score_threshold=0.1, max_detections=30
        )
    )
    for b in range(20):
        expected, lowered = tf.image.non_max_suppression_with_scores(
            boxes[b], scores[b], 30, 1.0, 0.1, soft_nms_sigma=0.25
        )
        assert_kept(kept[b], counts[b], expected.numpy())
        np.testing.assert_allclose(kept_scores[b, : counts[b]], lowered, rtol=1e-5)


def test_soft_golden(compiled):
    # IoU 1/2 of the first two; the third is elsewhere.
    boxes = np.array([[0, 0, 1, 1], [0, 0, 1, 0.5], [2, 2, 3, 3]], "float32")
    scores = np.array([0.8, 0.6, 0.5], "float32")
    for method, lowered in (("linear", 0.3), ("gaussian", 0.6 * np.exp(-0.5))):
        kept, kept_scores, count = compiled(nms.soft_non_max_suppression)(
            boxes, scores, method=method, max_detections=3
        )
        np.testing.assert_array_equal(kept, [0, 2, 1])
        np.testing.assert_allclose(kept_scores, [0.8, 0.5, lowered], rtol=1e-6)
        assert count == 3


def test_batched_soft_lowers_within_classes():
    rng = np.random.default_rng(0)
    boxes = random_boxes(rng, 3)
    scores = rng.uniform(0.01, 1, (3, NUM_BOXES, 2)).astype("float32")
    found = as_numpy(nms.batched_soft_non_max_suppression(boxes, scores, max_detections=40))
    for b in range(3):
        labels = np.tile([0, 1], NUM_BOXES)
        pairs = np.repeat(boxes[b], 2, axis=0), scores[b].ravel(), labels
        expected = soft(*pairs, "gaussian", 0.5, 0.3, 0.001, 40)
        np.testing.assert_allclose(found["scores"][b], [s for _, s in expected], rtol=1e-5)
        np.testing.assert_array_equal(found["labels"][b], [i % 2 for i, _ in expected])
        np.testing.assert_array_equal(found["boxes"][b], [boxes[b, i // 2] for i, _ in expected])


# --- Matrix ------------------------------------------------------------------------------


def blobs(rng, batch, number, side=12):
    """Masks that overlap; the last is empty, and the one before it a duplicate."""
    y, x = np.mgrid[:side, :side]
    center = rng.uniform(2, side - 2, (batch, number, 1, 1, 2))
    radius = rng.uniform(1.5, 5, (batch, number, 1, 1))
    masks = np.hypot(y - center[..., 0], x - center[..., 1]) < radius
    masks[:, -1], masks[:, -2] = False, masks[:, 0]
    return masks


@pytest.mark.parametrize("method", ["gaussian", "linear"])
def test_matrix_equals_the_loop(compiled, method):
    function = compiled(nms.matrix_non_max_suppression)
    settings = {"method": method, "sigma": 2.0, "score_threshold": 0.2345, "max_detections": 8}

    @many(max_examples=4)
    @hypothesis.given(seeds)
    def check(seed):
        rng = np.random.default_rng(seed)
        masks = blobs(rng, 55, 10)
        scores = rng.uniform(0, 1, (55, 10)).astype("float32")
        scores[:4] = np.round(scores[:4], 1)
        labels = rng.integers(0, 2, (55, 10)).astype("int32")
        iou = as_numpy(nms.mask_iou(masks))
        kept, kept_scores, counts = as_numpy(function(iou, scores, labels, **settings))
        for b in range(55):
            for i in range(10):
                for j in range(10):
                    union = (masks[b, i] | masks[b, j]).sum()
                    expected = (masks[b, i] & masks[b, j]).sum() / max(union, 1)
                    assert abs(iou[b, i, j] - expected) < 1e-6
            lowered = matrix(iou[b].astype("float64"), scores[b], labels[b], method, 2.0)
            best = np.argsort(-lowered, kind="stable")[:8]
            best = best[lowered[best] > 0.2345]
            assert counts[b] == len(best)
            np.testing.assert_allclose(kept_scores[b, : len(best)], lowered[best], rtol=1e-4)
            np.testing.assert_allclose(lowered[kept[b, : len(best)]], lowered[best], rtol=1e-4)
            assert (kept[b, len(best) :] == -1).all() and (kept_scores[b, len(best) :] == 0).all()

    check()


def test_matrix_golden(compiled):
    # Three masks in a row of four pixels: 0 and 1 share half of their union, 2 is apart.
    masks = np.array([[[1, 1, 0, 0]], [[1, 0, 0, 0]], [[0, 0, 1, 1]]], "float32")
    iou = compiled(nms.mask_iou)(masks)
    np.testing.assert_allclose(iou, [[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]])
    scores = np.array([0.9, 0.8, 0.7], "float32")
    for method, lowered in (("linear", 0.4), ("gaussian", 0.8 * np.exp(-0.5))):
        kept, kept_scores, count = compiled(nms.matrix_non_max_suppression)(
            ops.convert_to_numpy(iou), scores, method=method, max_detections=3
        )
        np.testing.assert_array_equal(kept, [0, 2, 1])
        np.testing.assert_allclose(kept_scores, [0.9, 0.7, lowered], rtol=1e-6)
        assert count == 3


def test_matrix_of_bad_and_of_no_scores(compiled):
    function = compiled(nms.matrix_non_max_suppression)
    iou = np.full((4, 4), 0.5, "float32")
    scores = np.array([np.nan, 0.5, np.inf, 0.4], "float32")
    kept, kept_scores, count = as_numpy(function(iou, scores, method="linear", max_detections=4))
    assert count == 2 and kept.tolist() == [1, 3, -1, -1]
    np.testing.assert_allclose(kept_scores, [0.5, 0.2, 0, 0], rtol=1e-6)
    empty = np.zeros((2, 0, 0), "float32"), np.zeros((2, 0), "float32")
    kept, kept_scores, count = as_numpy(function(*empty, max_detections=2))
    assert (kept == -1).all() and (kept_scores == 0).all() and count.tolist() == [0, 0]


# --- Errors ------------------------------------------------------------------------------

BOXES, SCORES = np.zeros((5, 4), "float32"), np.zeros(5, "float32")


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: nms.non_max_suppression(BOXES[:, :3], SCORES), r"boxes .*4\); received: \(5, 3\)"),
        (lambda: nms.non_max_suppression(BOXES[0], SCORES[0]), "boxes must .* received: "),
        (lambda: nms.non_max_suppression(BOXES, SCORES[:4]), r"scores .* \(5, 4\) and \(4,\)"),
        (
            lambda: nms.non_max_suppression(BOXES, SCORES, max_detections=6),
            "max_detections must be at most .* received: 6 of 5",
        ),
        (
            lambda: nms.non_max_suppression(BOXES, SCORES, max_detections=0),
            "max_detections must be positive; received: 0",
        ),
        (
            lambda: nms.non_max_suppression(BOXES, SCORES, 1.1, max_detections=1),
            r"iou_threshold must be in \[0, 1\]; received: 1.1",
        ),
        (
            lambda: nms.non_max_suppression(BOXES, SCORES, 0.5, float("nan"), max_detections=1),
            "score_threshold must be a number; received: nan",
        ),
        (
            lambda: nms.batched_non_max_suppression(BOXES[None], SCORES[None]),
            r"boxes and scores must .* \(1, 5, 4\) and \(1, 5\)",
        ),
        (
            lambda: nms.batched_non_max_suppression(
                BOXES[None], SCORES[None, :, None], max_detections=2, candidates=0
            ),
            "candidates must be positive or None; received: 0",
        ),
        (
            lambda: nms.labelled_non_max_suppression(
                BOXES[None], SCORES[None], [[1, 2]], max_detections=2
            ),
            r"labels must .* \(1, 2\) and \(1, 5\)",
        ),
        (
            lambda: nms.soft_non_max_suppression(BOXES, SCORES, method="cubic", max_detections=2),
            'method must be "gaussian" or "linear"; received: cubic',
        ),
        (
            lambda: nms.soft_non_max_suppression(BOXES, SCORES, sigma=0.0, max_detections=2),
            "sigma must be a positive number; received: 0.0",
        ),
        (lambda: nms.mask_iou(BOXES), r"masks must have shape .* received: \(5, 4\)"),
        (
            lambda: nms.matrix_non_max_suppression(BOXES, SCORES),
            r"iou must have shape .* \(5, 4\) and \(5,\)",
        ),
    ],
)
def test_errors_name_the_argument_and_what_was_received(call, message):
    with pytest.raises(ValueError, match=message):
        call()
