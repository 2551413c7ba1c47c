import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.backbones.mobilenet_v2 import mobilenet_v2
from kerasvision.detection.retinanet import (
    RetinaNet,
    focal_loss,
    retinanet,
    retinanet_resnet50,
)
from kerasvision.ops import boxes as box_ops


@pytest.fixture(scope="module")
def tiny():
    keras.utils.set_random_seed(0)
    backbone = mobilenet_v2((96, 128, 3), include_top=False, width_multiplier=0.35)
    return retinanet(backbone, 3, ["cat", "dog", "owl"], filters=8, head_depth=1)


def trainable(model):
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


@pytest.mark.slow
def test_parameters_are_torchvisions():
    model = retinanet_resnet50(91, (64, 64, 3), freeze_batch_norm=True)
    assert trainable(model) == 34_014_999
    trained = retinanet_resnet50(91, (64, 64, 3))
    assert trainable(trained) == 34_014_999 + 53_120  # factors and offsets of batch norm
    # Where the pyramid starts from C5, as in the paper, P6 has 2048 channels to read, not 256.
    backbone = mobilenet_v2((64, 64, 3), include_top=False, width_multiplier=0.35)
    from_p, from_c = (
        retinanet(backbone, 2, filters=16, pyramid_from=origin).count_params() for origin in "PC"
    )
    assert from_c - from_p == 9 * (1280 - 16) * 16


@pytest.mark.slow
def test_batch_norm_stays_frozen():
    keras.utils.set_random_seed(0)
    backbone = mobilenet_v2((64, 64, 3), include_top=False, width_multiplier=0.35)
    model = retinanet(backbone, 2, filters=8, head_depth=1, freeze_batch_norm=True)
    norms = [x for x in model.network.layers if isinstance(x, keras.layers.BatchNormalization)]
    before = [[w.numpy() for w in layer.weights] for layer in norms]
    model.compile(keras.optimizers.SGD(0.1))
    rng = np.random.default_rng(0)
    model.train_on_batch(
        {
            "images": rng.uniform(0, 255, (2, 64, 64, 3)).astype("float32"),
            "bounding_boxes": {
                "boxes": np.array([[[0.1, 0.1, 0.9, 0.9]], [[0.2, 0.2, 0.6, 0.7]]], "float32"),
                "labels": np.array([[0], [1]]),
            },
        }
    )
    for layer, values in zip(norms, before):
        for weight, value in zip(layer.weights, values):
            np.testing.assert_array_equal(weight.numpy(), value)


def test_anchors_are_the_papers():
    model = retinanet_resnet50(1, (512, 512, 3))
    assert model.anchors.shape == (9 * (64**2 + 32**2 + 16**2 + 8**2 + 4**2), 4)
    # First cell of P3: areas 32^2, (32 * 2^(1/3))^2, (32 * 2^(2/3))^2, height / width 1/2, 1, 2.
    sides = 512 * model.anchors[:9, 2:]
    np.testing.assert_allclose(
        np.sqrt(sides.prod(axis=1)), np.tile(32 * 2 ** (np.arange(3) / 3), 3), rtol=1e-5
    )
    np.testing.assert_allclose(sides[:, 0] / sides[:, 1], np.repeat([0.5, 1, 2], 3), rtol=1e-5)
    np.testing.assert_allclose(512 * model.anchors[:9, :2], 4.0)
    np.testing.assert_allclose(512 * model.anchors[-9:, :2], 512 - 64)


def test_starts_by_seeing_background(tiny):
    images = np.random.default_rng(0).uniform(0, 255, (1, 96, 128, 3)).astype("float32")
    logits = ops.convert_to_numpy(tiny(images)["logits"])
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), 0.01, rtol=0.2)


def test_subnets_are_shared_by_the_levels(tiny):
    names = [layer.name for layer in tiny.network.layers if layer.name.startswith("logits_conv")]
    assert names == ["logits_conv0", "logits_conv1"]
    assert tiny.network.get_layer("logits_conv1").count_params() == (9 * 8 + 1) * 9 * 3


def test_focal_loss_by_hand():
    # p = 0.9 for an object: 0.25 * 0.1^2 * -ln 0.9; for background: 0.75 * 0.9^2 * -ln 0.1.
    logit = np.log(9.0)
    found = ops.convert_to_numpy(focal_loss(np.array([1.0, 0.0]), np.array([logit, logit])))
    np.testing.assert_allclose(
        found, [0.25 * 0.01 * -np.log(0.9), 0.75 * 0.81 * -np.log(0.1)], rtol=1e-5
    )
    # Without focus and balance it is half the cross-entropy.
    found = ops.convert_to_numpy(focal_loss(np.ones(3), np.array([-2.0, 0, 3]), 0.5, 0.0))
    np.testing.assert_allclose(found, 0.5 * np.log1p(np.exp([2.0, 0, -3])), rtol=1e-5)
    # Far from 0 it is neither infinite nor lost.
    found = ops.convert_to_numpy(focal_loss(np.array([1.0, 0, 1]), np.array([-200.0, 200, 200])))
    np.testing.assert_allclose(found, [0.25 * 200, 0.75 * 200, 0.0], rtol=1e-5)


def test_targets_by_hand(tiny):
    box = ops.convert_to_numpy(box_ops.to_corner_form(tiny.anchors[1000]))
    boxes = np.array([[box, [0.1, 0.1, 0.9, 0.9], [0.5, 0.5, 0.5, 0.9]], np.zeros((3, 4))])
    offsets, classes = tiny.encode_targets(boxes, np.array([[2, -1, 1], [-1, -1, -1]]))
    offsets, classes = ops.convert_to_numpy(offsets), ops.convert_to_numpy(classes)
    corners = ops.convert_to_numpy(box_ops.to_corner_form(tiny.anchors))
    iou = ops.convert_to_numpy(box_ops.iou(corners, box[None]))[:, 0]
    expected = np.where(iou >= 0.5, 2, np.where(iou < 0.4, -1, -2))
    np.testing.assert_array_equal(classes[0], expected)
    assert set(classes[0]) == {2, -1, -2} and set(classes[1]) == {-1}
    np.testing.assert_allclose(offsets[0, 1000], 0, atol=1e-4)
    # Offsets are in units of the anchor: no variances.
    other = int(np.flatnonzero((iou >= 0.5) & (iou < 0.99))[0])
    center, anchor = tiny.anchors[1000], tiny.anchors[other]
    np.testing.assert_allclose(
        offsets[0, other],
        [*(center[:2] - anchor[:2]) / anchor[2:], *np.log(center[2:] / anchor[2:])],
        atol=1e-4,
    )


def reference_loss(offsets, logits, target_offsets, classes):
    """Anchor by anchor."""
    total = 0.0
    for b in range(len(classes)):
        for a, label in enumerate(classes[b]):
            if label == -2:
                continue
            for c, p in enumerate(1 / (1 + np.exp(-logits[b, a].astype("float64")))):
                if c == label:
                    total += 0.25 * (1 - p) ** 2 * -np.log(p)
                else:
                    total += 0.75 * p**2 * -np.log(1 - p)
            if label >= 0:
                for d in np.abs(offsets[b, a] - target_offsets[b, a]):
                    total += 4.5 * d**2 if d < 1 / 9 else d - 1 / 18
    return total / max((classes >= 0).sum(), 1)


@pytest.mark.parametrize("labels", [[[0, 2], [1, -1]], [[-1, -1], [-1, -1]]])
def test_loss_equals_reference(tiny, labels):
    rng = np.random.default_rng(3)
    truth = {
        "boxes": np.array(
            [[[0.1, 0.1, 0.6, 0.5], [0.3, 0.4, 0.9, 0.95]], [[0.2, 0.2, 0.8, 0.7], [0, 0, 0, 0]]],
            "float32",
        ),
        "labels": np.array(labels),
    }
    count = len(tiny.anchors)
    raw = {
        "offsets": rng.normal(size=(2, count, 4)).astype("f4"),
        "logits": rng.normal(-2, 1, size=(2, count, 3)).astype("f4"),
    }
    targets = [ops.convert_to_numpy(x) for x in tiny.encode_targets(**truth)]
    expected = reference_loss(raw["offsets"], raw["logits"], *targets)
    loss = tiny.compute_loss({"bounding_boxes": truth}, y_pred=raw)
    np.testing.assert_allclose(float(loss), expected, rtol=1e-4)
    parts = tiny.classification_loss.result() + tiny.regression_loss.result()
    assert float(parts) > 0
    for metric in (tiny.classification_loss, tiny.regression_loss):
        metric.reset_state()


def test_decoding_undoes_the_encoding(tiny):
    truth = np.array([[[0.1, 0.2, 0.6, 0.5], [0.3, 0.4, 0.9, 0.95]]], "float32")
    offsets, classes = tiny.encode_targets(truth, np.array([[0, 2]]))
    one_hot = ops.one_hot(classes, 3)
    raw = {"offsets": offsets, "logits": 20.0 * one_hot - 10.0}
    boxes, scores = (ops.convert_to_numpy(x) for x in tiny.decode(raw))
    for label, box in [(0, truth[0, 0]), (2, truth[0, 1])]:
        (rows,) = np.nonzero(scores[0, :, label] > 0.5)
        assert len(rows)
        np.testing.assert_allclose(boxes[0, rows], np.broadcast_to(box, (len(rows), 4)), atol=1e-4)


def test_anchors_of_another_network_are_refused(tiny):
    with pytest.raises(ValueError, match=r"same shape \(A, 4\); received: .* and \(7, 4\)"):
        RetinaNet(tiny.network, 3, np.ones((7, 4)))
