import keras
import numpy as np
import pytest
from keras import layers, ops

from kerasvision.detection import region_proposals
from kerasvision.ops import anchors as anchor_ops
from kerasvision.ops import boxes as box_ops

IMAGE_SIZE = (64, 96)
# Two maps, of strides 8 and 16, with three anchors a cell.
LEVELS = [
    anchor_ops.rpn_anchors([(8, 12)], [8], IMAGE_SIZE, [(16,)]),
    anchor_ops.rpn_anchors([(4, 6)], [16], IMAGE_SIZE, [(32,)]),
]
ANCHORS = np.concatenate(LEVELS)
BOXES = np.array(
    [
        [[0.1, 0.1, 0.6, 0.5], [0.3, 0.4, 0.9, 0.95], [0.5, 0.5, 0.5, 0.9]],
        [[0.02, 0.8, 0.12, 0.95], [0.1, 0.1, 0.9, 0.9], [0, 0, 0, 0]],
        np.zeros((3, 4)),
    ],
    "float32",
)
LABELS = np.array([[0, 2, 1], [1, -1, -1], [-1, -1, -1]])


def corners(center_form):
    cy, cx, height, width = center_form.astype("float64").T
    return np.stack([cy - height / 2, cx - width / 2, cy + height / 2, cx + width / 2], axis=1)


def iou(a, b):
    height = min(a[2], b[2]) - max(a[0], b[0])
    width = min(a[3], b[3]) - max(a[1], b[1])
    if height <= 0 or width <= 0:
        return 0.0
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return height * width / (area - height * width)


def reference_assignment(anchors, boxes, labels, inside_only):
    """Section 3.1.2, anchor by anchor."""
    anchors = corners(anchors)
    matches = np.full((len(boxes), len(anchors)), -2)
    for picture in range(len(boxes)):
        counted = [not inside_only or (a.min() >= 0 and a.max() <= 1) for a in anchors]
        objects = [i for i, label in enumerate(labels[picture]) if label >= 0]
        overlaps = {
            i: [iou(a, boxes[picture, i]) if c else 0.0 for a, c in zip(anchors, counted)]
            for i in objects
        }
        for k in range(len(anchors)):
            if not counted[k]:
                continue
            best = max(objects, key=lambda i: overlaps[i][k], default=None)
            value = 0.0 if best is None else overlaps[best][k]
            highest = any(
                overlaps[i][k] > 0 and overlaps[i][k] >= max(overlaps[i]) - 1e-6 for i in objects
            )
            if value >= 0.7 or highest:
                matches[picture, k] = best
            elif value < 0.3:
                matches[picture, k] = -1
    return matches


def test_network_is_shared_by_the_maps():
    images = keras.Input((64, 96, 3))
    maps = {
        "stride4": layers.Conv2D(256, 3, 4, padding="same")(images),
        "stride8": layers.Conv2D(256, 3, 8, padding="same")(images),
    }
    network = region_proposals.region_proposal_network(images, maps, 3, 256)
    heads = [layer for layer in network.layers if layer.name.startswith("rpn_")]
    assert sum(layer.count_params() for layer in heads) == 593_935
    assert len(heads) == 3
    for layer in heads:
        kernel, bias = layer.get_weights()
        assert abs(kernel.std() - 0.01) < 0.001 and not bias.any()
    outputs = network.output
    assert outputs["objectness"].shape == (None, 3 * (16 * 24 + 8 * 12))
    assert outputs["anchor_offsets"].shape == (None, 3 * (16 * 24 + 8 * 12), 4)
    # Cell by cell, anchor by anchor, level by level.
    picture = np.random.default_rng(0).uniform(size=(1, 64, 96, 3)).astype("float32")
    found = {name: ops.convert_to_numpy(x) for name, x in network(picture).items()}
    hidden = network.get_layer("rpn_conv")(found["stride8"])
    logits = ops.convert_to_numpy(network.get_layer("rpn_logits")(hidden))
    offsets = ops.convert_to_numpy(network.get_layer("rpn_offsets")(hidden))
    place = 3 * (16 * 24) + 3 * (2 * 12 + 5) + 1
    np.testing.assert_allclose(found["objectness"][0, place], logits[0, 2, 5, 1], atol=1e-5)
    np.testing.assert_allclose(found["anchor_offsets"][0, place], offsets[0, 2, 5, 4:8], atol=1e-5)


@pytest.mark.parametrize("inside_only", [False, True])
def test_assignment_equals_reference(inside_only):
    found = region_proposals.assign_anchors(ANCHORS, BOXES, LABELS, inside_only)
    found = ops.convert_to_numpy(found)
    expected = reference_assignment(ANCHORS, BOXES, LABELS, inside_only)
    np.testing.assert_array_equal(found, expected)
    assert set(expected[0]) == {-2, -1, 0, 1}
    assert 0 in expected[1] and (expected[2] < 0).all()
    crossing = (corners(ANCHORS).min(axis=1) < 0) | (corners(ANCHORS).max(axis=1) > 1)
    assert (found[:, crossing] == -2).all() == inside_only


def test_losses_equal_reference():
    rng = np.random.default_rng(1)
    objectness = rng.normal(size=(3, len(ANCHORS))).astype("float32")
    offsets = rng.normal(0, 0.3, size=(3, len(ANCHORS), 4)).astype("float32")
    matches = reference_assignment(ANCHORS, BOXES, LABELS, False)
    classification = regression = number = 0.0
    for picture in range(3):
        for k, match in enumerate(matches[picture]):
            if match == -2:
                continue
            number += 1
            p = 1 / (1 + np.exp(-float(objectness[picture, k])))
            classification -= np.log(p if match >= 0 else 1 - p)
            if match < 0:
                continue
            ymin, xmin, ymax, xmax = BOXES[picture, match].astype("float64")
            cy, cx, height, width = ANCHORS[k].astype("float64")
            target = [
                ((ymin + ymax) / 2 - cy) / height,
                ((xmin + xmax) / 2 - cx) / width,
                np.log((ymax - ymin) / height),
                np.log((xmax - xmin) / width),
            ]
            for distance in np.abs(offsets[picture, k] - target):
                regression += 4.5 * distance**2 if distance < 1 / 9 else distance - 1 / 18
    # As many samples as anchors: all that aren't ignored are drawn.
    found = region_proposals.region_proposal_losses(
        objectness, offsets, ANCHORS, BOXES, matches.astype("int32"), 0, num_samples=10_000
    )
    np.testing.assert_allclose(
        [float(x) for x in found], [classification / number, regression / number], rtol=1e-4
    )


def test_sample_is_balanced():
    """Logits that are right give next to no loss, those of the unsampled anchors don't matter."""
    matches = np.full((1, 300), -1, "int32")
    matches[0, :200] = 0
    right = np.where(matches >= 0, 20.0, -20.0).astype("float32")
    anchors = np.full((300, 4), 0.5, "float32")
    arguments = (np.zeros((1, 300, 4), "f4"), anchors, np.array([[[0.25, 0.25, 0.75, 0.75]]], "f4"))
    for logits, expected in [(right, 0.0), (np.zeros((1, 300), "f4"), np.log(2)), (-right, 20.0)]:
        loss, regression = region_proposals.region_proposal_losses(
            logits, *arguments, matches, seed=0
        )
        np.testing.assert_allclose(float(loss), expected, atol=1e-4)
        assert float(regression) == 0.0
    # 256 at 1:1 would be 128 positives, but 100 are background: 228 are drawn.
    no_objects = np.full((1, 300), -20.0, "float32")
    loss, _ = region_proposals.region_proposal_losses(no_objects, *arguments, matches, seed=0)
    np.testing.assert_allclose(float(loss), 20 * 128 / 228, rtol=1e-4)


def test_nothing_to_learn_is_no_loss():
    matches = np.full((2, len(ANCHORS)), -2, "int32")
    losses = region_proposals.region_proposal_losses(
        np.ones((2, len(ANCHORS)), "f4"),
        np.ones((2, len(ANCHORS), 4), "f4"),
        ANCHORS,
        np.zeros((2, 3, 4), "f4"),
        matches,
        seed=0,
    )
    assert [float(x) for x in losses] == [0.0, 0.0]


def reference_proposals(objectness, offsets, candidates, number, min_size):
    """Section 3.3, box by box, of one picture."""
    kept, start = [], 0
    for anchors in LEVELS:
        rows = []
        for k, (cy, cx, height, width) in enumerate(anchors):
            dy, dx, dh, dw = offsets[start + k]
            cy, cx = cy + dy * height, cx + dx * width
            height, width = height * np.exp(dh), width * np.exp(dw)
            box = np.clip([cy - height / 2, cx - width / 2, cy + height / 2, cx + width / 2], 0, 1)
            rows.append((objectness[start + k], box))
        start += len(anchors)
        rows = sorted(rows, key=lambda row: -row[0])[:candidates]
        survivors = []
        for score, box in rows:
            sides = (box[2:] - box[:2]) * IMAGE_SIZE
            if sides.min() >= min_size and all(iou(box, other) <= 0.7 for _, other in survivors):
                survivors.append((score, box))
        kept += survivors
    return [box for _, box in sorted(kept, key=lambda row: -row[0])[:number]]


@pytest.mark.parametrize("candidates, number", [(40, 20), (1000, 1000)])
def test_proposals_equal_reference(candidates, number):
    rng = np.random.default_rng(2)
    objectness = rng.normal(size=(2, len(ANCHORS))).astype("float32")
    offsets = rng.normal(0, 0.4, size=(2, len(ANCHORS), 4)).astype("float32")
    boxes, valid = region_proposals.propose(
        objectness, offsets, LEVELS, IMAGE_SIZE, candidates, number, min_size=12.0
    )
    boxes, valid = ops.convert_to_numpy(boxes), ops.convert_to_numpy(valid)
    assert boxes.shape == (2, min(number, len(ANCHORS)), 4)
    for picture in range(2):
        expected = reference_proposals(
            objectness[picture], offsets[picture], candidates, number, 12.0
        )
        assert valid[picture].sum() == len(expected) < len(ANCHORS)
        np.testing.assert_allclose(boxes[picture, : len(expected)], expected, atol=1e-5)
        assert not boxes[picture, len(expected) :].any()


def test_maps_do_not_suppress_each_other():
    offsets = np.zeros((1, len(ANCHORS), 4), "float32")
    objectness = np.full((1, len(ANCHORS)), -9.0, "float32")
    box = np.array([0.25, 0.25, 0.75, 0.75], "float32")
    for k, logit in [(40, 1.0), (43, 3.0), (300, 2.0)]:  # twice on the first map, once on the other
        offsets[0, k] = ops.convert_to_numpy(box_ops.encode(box, ANCHORS[k], (1.0, 1.0)))
        objectness[0, k] = logit
    boxes, _ = region_proposals.propose(objectness, offsets, LEVELS, IMAGE_SIZE, number=4)
    boxes = ops.convert_to_numpy(boxes)[0]
    np.testing.assert_allclose(boxes[:2], [box, box], atol=1e-5)
    assert np.abs(boxes[2:] - box).max(axis=1).min() > 0.05
