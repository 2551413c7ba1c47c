import cv2
import keras
import numpy as np
import pytest
from keras import layers, ops

from kerasvision.detection.mask_rcnn import (
    MaskRCNN,
    decode_keypoints,
    keypoint_loss,
    keypoint_rcnn_resnet50,
    keypoint_targets,
    mask_loss,
    mask_rcnn,
    mask_rcnn_resnet50,
    mask_targets,
    of_class,
)
from kerasvision.ops.masks import paste_masks


def tiny_backbone(image_shape=(64, 96, 3), channels=8):
    images = keras.Input(image_shape, name="images")
    x = layers.Rescaling(1 / 127.5, -1.0)(images)
    taps = {}
    for stride, step in [(4, 4), (8, 2), (16, 2)]:
        x = layers.Conv2D(channels, 3, step, padding="same", activation="relu")(x)
        taps[f"stride{stride}"] = x
    model = keras.Model(images, x)
    model.feature_taps = taps
    return model


def tiny_model(strides=(8, 16), **settings):
    keras.utils.set_random_seed(0)
    return mask_rcnn(
        tiny_backbone(),
        3,
        ["cat", "dog", "owl"],
        strides=strides,
        filters=8,
        head_units=16,
        head_filters=8,
        anchor_scale=2.0,
        canonical_size=32,
        num_samples=32,
        num_proposals=(60, 40),
        **settings,
    )


@pytest.fixture(scope="module")
def tiny():
    return tiny_model(num_keypoints=5)


def batch_of(boxes, labels, seed=0):
    rng = np.random.default_rng(seed)
    boxes, labels = np.asarray(boxes, "float32"), np.asarray(labels, "int32")
    keypoints = rng.uniform(0.2, 0.8, (*labels.shape, 5, 3)).astype("float32")
    keypoints[..., 2] = rng.integers(0, 3, keypoints.shape[:3])
    return {
        "images": rng.uniform(0, 255, (len(boxes), 64, 96, 3)).astype("float32"),
        "bounding_boxes": {"boxes": boxes, "labels": labels},
        "segmentation_masks": rng.integers(0, 2, (*labels.shape, 20, 20)).astype("uint8"),
        "keypoints": keypoints,
    }


BATCH = batch_of(
    [[[0.1, 0.1, 0.6, 0.5], [0.3, 0.4, 0.9, 0.95]], [[0.2, 0.2, 0.8, 0.7], [0.5, 0.5, 0.5, 0.5]]],
    [[0, 2], [1, 1]],
)
EMPTY = batch_of(np.zeros((2, 2, 4)), np.full((2, 2), -1))


def trainable(model):
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


# --- The networks ------------------------------------------------------------------------


def test_parameters_are_torchvisions():
    model = mask_rcnn_resnet50(90, (64, 64, 3), freeze_batch_norm=True)
    assert trainable(model) == 44_401_393
    assert model.mask_network.count_params() == 2_646_107
    assert model.mask_network.output_shape == (None, 28, 28, 91)
    model = keypoint_rcnn_resnet50(image_shape=(64, 64, 3), freeze_batch_norm=True)
    assert trainable(model) == 59_137_258
    assert model.keypoint_network.count_params() == 17_838_097
    assert model.keypoint_network.output_shape == (None, 56, 56, 17)


def test_a_head_must_be_given(tiny):
    with pytest.raises(ValueError, match="mask_network or keypoint_network must be given"):
        MaskRCNN(tiny.network, tiny.head, 3, tiny.anchor_scales)


def test_heads_may_be_alone():
    assert set(tiny_model().loss_trackers) > {"mask_loss"}
    model = tiny_model(masks=False, num_keypoints=2)
    assert "mask_loss" not in model.loss_trackers and "keypoint_loss" in model.loss_trackers


# --- Targets and losses ------------------------------------------------------------------


def reference_target(mask, box, region, size, samples=2):
    """Cell by cell and sample by sample: bilinear values of a mask that is 0 around its box."""
    mask = np.pad(mask.astype("float64"), 1)
    count = len(mask) - 2
    target = np.zeros((size, size))
    for i in range(size):
        for j in range(size):
            total = 0.0
            for a in range(samples):
                for b in range(samples):
                    y = region[0] + (region[2] - region[0]) * (i + (a + 0.5) / samples) / size
                    x = region[1] + (region[3] - region[1]) * (j + (b + 0.5) / samples) / size
                    # In cells of the padded mask, whose centres are whole numbers.
                    v = (y - box[0]) / (box[2] - box[0]) * count + 0.5
                    u = (x - box[1]) / (box[3] - box[1]) * count + 0.5
                    v, u = np.clip(v, 0, count + 1), np.clip(u, 0, count + 1)
                    r, c = min(int(v), count), min(int(u), count)
                    for row, column in [(r, c), (r, c + 1), (r + 1, c), (r + 1, c + 1)]:
                        share = (1 - abs(v - row)) * (1 - abs(u - column))
                        total += share * mask[row, column]
            target[i, j] = total / samples**2
    return target


def test_mask_targets_equal_reference():
    rng = np.random.default_rng(0)
    masks = rng.uniform(size=(2, 3, 20, 20))
    masks = np.stack([[cv2.GaussianBlur(m, (0, 0), 2) for m in p] for p in masks])
    masks = (masks > 0.5).astype("float32")
    boxes = np.array([[0.2, 0.3, 0.7, 0.6]], "f4") + rng.uniform(-0.1, 0.1, (2, 3, 4)).astype("f4")
    regions = boxes + rng.uniform(-0.1, 0.1, (2, 3, 4)).astype("float32")
    found = ops.convert_to_numpy(mask_targets(masks, boxes, regions, (14, 14)))
    for picture in range(2):
        for r in range(3):
            covered = reference_target(
                masks[picture, r], boxes[picture, r], regions[picture, r], 14
            )
            # Where rounding decides, nothing is asked for.
            clear = np.abs(covered - 0.5) > 1e-3
            assert clear.mean() > 0.9
            np.testing.assert_array_equal(found[picture, r][clear], covered[clear] > 0.5)


def test_mask_targets_by_hand():
    full = np.ones((1, 1, 10, 10), "float32")
    box = np.array([[[0.25, 0.25, 0.75, 0.75]]], "float32")
    # Its own box: all of it. The whole picture: its middle. Its upper half: all of it.
    for region, expected in [
        (box[0, 0], np.ones((8, 8))),
        ([0, 0, 1, 1], np.pad(np.ones((4, 4)), 2)),
        ([0.25, 0.25, 0.5, 0.75], np.ones((8, 8))),
        ([0.8, 0.8, 0.9, 0.9], np.zeros((8, 8))),
    ]:
        found = mask_targets(full, box, np.float32([[region]]), (8, 8))
        np.testing.assert_array_equal(ops.convert_to_numpy(found)[0, 0], expected)


def test_mask_loss_is_of_the_own_class_of_positives():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(1, 3, 4, 4, 3)).astype("float32")
    targets = rng.integers(0, 2, (1, 3, 4, 4)).astype("float32")
    classes, positive = np.array([[1, 2, 1]]), np.array([[True, True, False]])
    own = ops.convert_to_numpy(of_class(logits, classes))
    losses = []
    for r in range(2):
        p = 1 / (1 + np.exp(-logits[0, r, :, :, classes[0, r]].astype("float64")))
        np.testing.assert_array_equal(own[0, r], logits[0, r, :, :, classes[0, r]])
        losses.append(-np.log(np.where(targets[0, r] == 1, p, 1 - p)).mean())
    found = float(mask_loss(own, targets, positive))
    np.testing.assert_allclose(found, np.mean(losses), rtol=1e-5)
    assert float(mask_loss(own, targets, positive & False)) == 0.0


def test_keypoint_targets_by_hand():
    regions = np.array([[[0.2, 0.4, 0.6, 0.8]]], "float32")
    keypoints = np.array(
        [
            [0.2, 0.4, 2],  # first cell
            [0.6, 0.8, 1],  # the corner across: last cell, though hidden
            [0.41, 0.51, 2],  # row floor(0.21 / 0.4 * 56) = 29, column floor(0.11 / 0.4 * 56) = 15
            [0.41, 0.5, 0],  # not labelled
            [0.1, 0.5, 2],  # outside
        ],
        "float32",
    )
    cells, visible = keypoint_targets(keypoints[None, None], regions, (56, 56))
    cells, visible = ops.convert_to_numpy(cells)[0, 0], ops.convert_to_numpy(visible)[0, 0]
    np.testing.assert_array_equal(visible, [True, True, True, False, False])
    np.testing.assert_array_equal(cells[:3], [0, 56 * 56 - 1, 29 * 56 + 15])


def test_keypoint_loss_and_decoding_equal_reference():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (1, 2, 6, 5, 3)).astype("float32")
    cells = rng.integers(0, 30, (1, 2, 3)).astype("int32")
    visible = np.array([[[True, False, True], [False, True, True]]])
    boxes = np.array([[[0.1, 0.2, 0.4, 0.7], [0.5, 0.5, 0.9, 0.6]]], "float32")
    decoded = ops.convert_to_numpy(decode_keypoints(logits, boxes))
    losses = []
    for r in range(2):
        ymin, xmin, ymax, xmax = boxes[0, r]
        for p in range(3):
            values = np.exp(logits[0, r, :, :, p].astype("float64"))
            values /= values.sum()
            if visible[0, r, p]:
                losses.append(-np.log(values[divmod(cells[0, r, p], 5)]))
            row, column = np.unravel_index(values.argmax(), (6, 5))
            place = [
                ymin + (row + 0.5) / 6 * (ymax - ymin),
                xmin + (column + 0.5) / 5 * (xmax - xmin),
            ]
            np.testing.assert_allclose(decoded[0, r, p], [*place, values.max()], rtol=1e-5)
    found = float(keypoint_loss(logits, cells, visible))
    np.testing.assert_allclose(found, np.mean(losses), rtol=1e-5)
    assert float(keypoint_loss(logits, cells, visible & False)) == 0.0


@pytest.mark.parametrize("batch", [BATCH, EMPTY], ids=["objects", "empty"])
def test_losses_are_of_the_regions_objects(tiny, batch):
    outputs = {k: ops.convert_to_numpy(v) for k, v in tiny(batch, training=True).items()}
    assert outputs["mask_logits"].shape == (2, 8, 28, 28, 4)
    assert outputs["keypoint_logits"].shape == (2, 8, 56, 56, 5)
    losses = {k: float(v) for k, v in tiny.separate_losses(batch, outputs, training=False).items()}
    assert all(np.isfinite(value) for value in losses.values())
    mask_losses, keypoint_losses = [], []
    for picture in range(2):
        for r, match in enumerate(outputs["matches"][picture, :8]):
            if match < 0:
                continue
            region = outputs["regions"][picture, r].astype("float64")
            box = batch["bounding_boxes"]["boxes"][picture, match]
            mask = batch["segmentation_masks"][picture, match]
            # With one sample more or less at the threshold, targets are compared elsewhere.
            target = reference_target(mask, box, region, 28) >= 0.5 - 1e-6
            label = batch["bounding_boxes"]["labels"][picture, match]
            logits = outputs["mask_logits"][picture, r, :, :, label + 1].astype("float64")
            mask_losses.append(np.log1p(np.exp(np.where(target, -logits, logits))).mean())
            for p, (y, x, visibility) in enumerate(batch["keypoints"][picture, match]):
                v = (y - region[0]) / (region[2] - region[0])
                u = (x - region[1]) / (region[3] - region[1])
                if visibility > 0 and 0 <= min(u, v) and max(u, v) <= 1:
                    values = outputs["keypoint_logits"][picture, r, :, :, p].astype("float64")
                    own = values[min(int(v * 56), 55), min(int(u * 56), 55)]
                    keypoint_losses.append(np.log(np.exp(values).sum()) - own)
    if batch is EMPTY:
        assert losses["mask_loss"] == losses["keypoint_loss"] == losses["regression_loss"] == 0
    else:
        np.testing.assert_allclose(losses["mask_loss"], np.mean(mask_losses), rtol=2e-3)
        np.testing.assert_allclose(losses["keypoint_loss"], np.mean(keypoint_losses), rtol=1e-4)


def test_batches_must_have_masks(tiny):
    batch = {name: BATCH[name] for name in ("images", "bounding_boxes")}
    with pytest.raises(ValueError, match="must have 'segmentation_masks'; received: images, bound"):
        tiny.separate_losses(batch, tiny(batch, training=True), training=True)


@pytest.mark.slow
def test_xla_and_graph_losses_are_equal():
    losses = []
    for jit_compile in (False, True):
        model = tiny_model((16,), num_keypoints=5)
        model.compile(jit_compile=jit_compile)
        losses.append(model.test_on_batch(BATCH, return_dict=True))
    assert {"mask_loss", "keypoint_loss"} < set(losses[0])
    for name, value in losses[0].items():
        np.testing.assert_allclose(losses[1][name], value, rtol=1e-3)


# --- Detections --------------------------------------------------------------------------


@pytest.mark.slow
def test_detections_after_round_trip(tmp_path):
    model = tiny_model(num_keypoints=5)
    model.score_threshold = 0.25
    expected = {k: ops.convert_to_numpy(v) for k, v in model(BATCH["images"]).items()}
    assert expected["masks"].shape == (2, 100, 28, 28)
    assert expected["keypoints"].shape == (2, 100, 5, 3)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for name, value in loaded(BATCH["images"]).items():
        np.testing.assert_array_equal(ops.convert_to_numpy(value), expected[name])
    assert {k: v.shape[1:] for k, v in model.detector.output.items()} == {
        name: value.shape[1:] for name, value in expected.items()
    }
    for picture, count in enumerate(expected["count"]):
        assert 0 < count < 100
        assert (expected["masks"][picture, :count] > 0).all()
        assert not expected["masks"][picture, count:].any()
        assert not expected["keypoints"][picture, count:].any()
        ymin, xmin, ymax, xmax = expected["boxes"][picture, :count, :, None].swapaxes(0, 1)
        y, x = np.moveaxis(expected["keypoints"][picture, :count, :, :2], -1, 0)
        assert ((ymin <= y) & (y <= ymax) & (xmin <= x) & (x <= xmax)).all()


@pytest.mark.slow
def test_masks_and_keypoints_can_be_learnt():
    """A triangle and a disc with two keypoints each come out of `predict`."""
    keras.utils.set_random_seed(1)
    model = mask_rcnn(
        tiny_backbone((64, 64, 3), 16),
        2,
        num_keypoints=2,
        strides=(4, 8, 16),
        filters=16,
        head_units=32,
        head_filters=16,
        anchor_scale=3.0,
        canonical_size=112,
        num_samples=32,
        num_proposals=(50, 20),
    )
    silhouettes = np.zeros((2, 64, 64), "uint8")
    cv2.fillPoly(silhouettes[0], [np.array([[10, 10], [50, 10], [10, 50]])], 1)
    cv2.circle(silhouettes[1], (36, 34), 20, 1, -1)
    colors = np.array([[250, 30, 30], [30, 30, 250]])
    images = np.where(silhouettes[..., None] > 0, colors[:, None, None], 90).astype("float32")
    pixels = np.array([[[10, 10, 51, 51]], [[14, 16, 55, 57]]])
    masks = [
        cv2.resize(s[y0:y1, x0:x1], (56, 56), interpolation=cv2.INTER_NEAREST)
        for s, (y0, x0, y1, x1) in zip(silhouettes, pixels[:, 0])
    ]
    keypoints = np.array([[[[12, 12, 2], [12, 46, 2]]], [[[20, 36, 2], [50, 36, 2]]]], "f4")
    keypoints[..., :2] /= 64
    batch = {
        "images": images,
        "bounding_boxes": {"boxes": (pixels / 64).astype("f4"), "labels": np.array([[0], [1]])},
        "segmentation_masks": np.array(masks)[:, None],
        "keypoints": keypoints,
    }
    model.compile(keras.optimizers.Adam(3e-3))
    losses = [model.train_on_batch(batch, return_dict=True)["loss"] for _ in range(250)]
    assert losses[-1] < losses[0] / 2
    found = model.predict(images, verbose=0)
    np.testing.assert_array_equal(found["labels"][:, 0], [0, 1])
    for i in range(2):
        (pasted,) = paste_masks(found["masks"][i, :1], found["boxes"][i, :1], (64, 64))
        real = silhouettes[i] > 0
        assert (pasted & real).sum() / (pasted | real).sum() > 0.8
        distance = 64 * (found["keypoints"][i, 0, :, :2] - keypoints[i, 0, :, :2])
        assert np.abs(distance).max() < 5
