import keras
import numpy as np
import pytest
from keras import layers, ops

from kerasvision.backbones.vgg import vgg16
from kerasvision.detection.faster_rcnn import (
    FasterRCNN,
    faster_rcnn,
    faster_rcnn_resnet50,
    faster_rcnn_vgg16,
)
from kerasvision.ops import roi, roi_pooling


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


def tiny_model(**settings):
    keras.utils.set_random_seed(0)
    return faster_rcnn(
        tiny_backbone(),
        3,
        ["cat", "dog", "owl"],
        strides=(8, 16),
        filters=8,
        head_units=16,
        anchor_scale=2.0,
        canonical_size=32,
        num_samples=32,
        num_proposals=(60, 40),
        **settings,
    )


@pytest.fixture(scope="module")
def tiny():
    return tiny_model()


def batch_of(boxes, labels, image_shape=(64, 96, 3)):
    boxes, labels = np.asarray(boxes, "float32"), np.asarray(labels, "int32")
    images = np.random.default_rng(0).uniform(0, 255, (len(boxes), *image_shape)).astype("float32")
    return {"images": images, "bounding_boxes": {"boxes": boxes, "labels": labels}}


BATCH = batch_of(
    [[[0.1, 0.1, 0.6, 0.5], [0.3, 0.4, 0.9, 0.95]], [[0.2, 0.2, 0.8, 0.7], [0.5, 0.5, 0.5, 0.5]]],
    [[0, 2], [1, 1]],
)
EMPTY = batch_of(np.zeros((2, 2, 4)), np.full((2, 2), -1))


def trainable(model):
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


def iou(a, b):
    height = min(a[2], b[2]) - max(a[0], b[0])
    width = min(a[3], b[3]) - max(a[1], b[1])
    if height <= 0 or width <= 0:
        return 0.0
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return height * width / (area - height * width)


# --- The networks ------------------------------------------------------------------------


def test_parameters_are_torchvisions():
    model = faster_rcnn_resnet50(90, (64, 64, 3), freeze_batch_norm=True)
    assert trainable(model) == 41_755_286
    trained = faster_rcnn_resnet50(90, (64, 64, 3))
    assert trainable(trained) == 41_755_286 + 53_120  # factors and offsets of batch norm
    # Five maps, three anchors a cell; of areas 32^2 to 512^2.
    assert model.anchors.shape == (3 * (16**2 + 8**2 + 4**2 + 2**2 + 1), 4)
    sides = 64 * np.array([level[1, 2:] for level in model.anchors_of_maps])
    np.testing.assert_allclose(sides, np.repeat([[32], [64], [128], [256], [512]], 2, 1), rtol=1e-6)
    assert model.roi_strides == [4, 8, 16, 32]


def test_vgg16_is_the_papers():
    model = faster_rcnn_vgg16(20, (608, 800, 3))
    assert model.count_params() == 137_073_622
    assert model.anchors.shape == (38 * 50 * 9, 4)
    areas = (model.anchors[:9, 2:] * [608, 800]).prod(axis=1)
    np.testing.assert_allclose(areas, np.tile([128**2, 256**2, 512**2], 3), rtol=1e-5)
    assert model.head.input_shape == (None, 7, 7, 512)
    assert model.roi_pooling == "max" and model.inside_anchors_only
    kernel = ops.convert_to_numpy(model.head.get_layer("offsets").kernel)
    assert abs(kernel.std() - 0.001) < 1e-4


@pytest.mark.slow
def test_vgg16_takes_the_classifiers_weights(tmp_path):
    peer = vgg16(num_classes=2)
    peer.get_layer("fc1").set_weights(
        [np.random.default_rng(0).normal(size=(25088, 4096)).astype("f4"), np.arange(4096.0)]
    )
    reference = keras.applications.VGG16(weights=None, classes=2)
    reference.set_weights(peer.get_weights())
    reference.save(tmp_path / "vgg.h5")
    model = faster_rcnn_vgg16(20, (64, 64, 3), tmp_path / "vgg.h5")
    for name, source in [("fc6", "fc1"), ("fc7", "fc2")]:
        for found, expected in zip(
            model.head.get_layer(name).get_weights(), peer.get_layer(source).get_weights()
        ):
            np.testing.assert_array_equal(found, expected)
    # conv1 and conv2 stay as they are.
    frozen = sum(
        layer.count_params()
        for layer in model.network.layers
        if layer.name[:6] in ("block1", "block2")
    )
    assert trainable(model) == 137_073_622 - frozen == 137_073_622 - 260_160


def test_images_must_fit_the_strides():
    backbone = tiny_backbone((64, 90, 3))
    with pytest.raises(ValueError, match=r"multiples of 16 pixels; received: \(64, 90, 3\)"):
        faster_rcnn(backbone, 2, strides=(8, 16), filters=8, head_units=8)


def test_wrong_settings_are_refused(tiny):
    with pytest.raises(ValueError, match="'align' or 'max'; received: 'mean'"):
        FasterRCNN(tiny.network, tiny.head, 3, tiny.anchor_scales, roi_pooling="mean")
    with pytest.raises(ValueError, match="one entry for each of 3 maps"):
        FasterRCNN(tiny.network, tiny.head, 3, [(8,)])
    with pytest.raises(ValueError, match="objectness of .* anchors; received"):
        FasterRCNN(tiny.network, tiny.head, 3, tiny.anchor_scales, (1.0,))
    with pytest.raises(ValueError, match="class_names must be 3 names"):
        FasterRCNN(tiny.network, tiny.head, 3, tiny.anchor_scales, class_names=["a"])


def test_pooling_reads_the_level_that_fits(tiny):
    rng = np.random.default_rng(0)
    maps = [rng.normal(size=(1, 8, 12, 5)).astype("f4"), rng.normal(size=(1, 4, 6, 5)).astype("f4")]
    # At a canonical size of 32 pixels a region of 20 pixels reads stride 8, one of 40 stride 16.
    regions = np.array([[[0.1, 0.1, 0.1 + 20 / 64, 0.1 + 20 / 96], [0.2, 0.3, 0.825, 0.72]]], "f4")
    for mode, operator in [("align", roi.roi_align), ("max", roi_pooling.roi_max_pooling)]:
        tiny.roi_pooling = mode
        found = ops.convert_to_numpy(tiny.pool(maps, regions, (3, 2)))
        for i in (0, 1):
            expected = ops.convert_to_numpy(operator(maps[i], regions[:, i : i + 1], (3, 2)))
            np.testing.assert_allclose(found[:, i], expected[:, 0], atol=1e-6)
        single = ops.convert_to_numpy(tiny.pool(maps[:1], regions, (3, 2)))
        np.testing.assert_array_equal(
            single, ops.convert_to_numpy(operator(maps[0], regions, (3, 2)))
        )
    tiny.roi_pooling = "align"


# --- Regions -----------------------------------------------------------------------------


def test_sampled_regions_match_reference(tiny):
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 0.6, (2, 60, 2))
    proposals = np.concatenate([corner, corner + rng.uniform(0.1, 0.4, (2, 60, 2))], -1)
    proposals = proposals.astype("float32")
    proposals[0, :12] = BATCH["bounding_boxes"]["boxes"][0, 0] + rng.uniform(-0.03, 0.03, (12, 4))
    valid = np.ones((2, 60), bool)
    valid[:, 50:] = False
    proposals[:, 50:] = 0.0
    regions, matches = (
        ops.convert_to_numpy(x)
        for x in tiny.sample_regions(proposals, valid, **BATCH["bounding_boxes"], seed=1)
    )
    assert regions.shape == (2, 32, 4) and matches.shape == (2, 32)
    # A quarter at most is positive; the second picture has one proposal at best beside its object.
    assert (matches[0] >= 0).sum() == 8 and 1 <= (matches[1] >= 0).sum() < 8
    for picture in range(2):
        objects = BATCH["bounding_boxes"]["boxes"][picture].astype("float64")
        candidates = [*proposals[picture, :50], *objects.astype("float32")]
        for region, match in zip(regions[picture], matches[picture]):
            assert any((region == c).all() for c in candidates)
            overlaps = [iou(region.astype("float64"), box) for box in objects]
            best = int(np.argmax(overlaps))
            assert match == (best if overlaps[best] >= 0.5 else -1)
        first_background = (matches[picture] >= 0).sum()
        assert (matches[picture, first_background:] < 0).all()
        assert len(np.unique(regions[picture], axis=0)) == 32
    # The degenerate second object of the second picture is neither matched nor a region.
    assert not (regions[1] == BATCH["bounding_boxes"]["boxes"][1, 1]).all(axis=1).any()


def test_objects_are_regions_themselves(tiny):
    """However bad the proposals are, there is something to learn from."""
    nothing = np.zeros((2, 60, 4), "float32"), np.zeros((2, 60), bool)
    regions, matches = tiny.sample_regions(*nothing, **BATCH["bounding_boxes"], seed=0)
    regions, matches = ops.convert_to_numpy(regions), ops.convert_to_numpy(matches)
    assert sorted(matches[0, :2]) == [0, 1] and matches[1, 0] == 0
    np.testing.assert_array_equal(regions[1, 0], BATCH["bounding_boxes"]["boxes"][1, 0])
    assert (matches[0, 2:] == -2).all() and (matches[1, 1:] == -2).all()
    np.testing.assert_array_equal(regions[0, 2:], np.tile([0, 0, 1, 1], (30, 1)))


# --- Losses ------------------------------------------------------------------------------


def reference_losses_of_regions(outputs, boxes, labels):
    """Girshick 2015, equations 1 to 3, region by region."""
    classification = regression = 0.0
    number = 0
    for picture, matches in enumerate(outputs["matches"]):
        for r, match in enumerate(matches):
            if match == -2:
                continue
            number += 1
            label = labels[picture, match] + 1 if match >= 0 else 0
            logits = outputs["logits"][picture, r].astype("float64")
            classification -= np.log(np.exp(logits[label]) / np.exp(logits).sum())
            if match < 0:
                continue
            ymin, xmin, ymax, xmax = boxes[picture, match].astype("float64")
            top, left, bottom, right = outputs["regions"][picture, r].astype("float64")
            height, width = bottom - top, right - left
            target = [
                ((ymin + ymax) / 2 - (top + bottom) / 2) / height / 0.1,
                ((xmin + xmax) / 2 - (left + right) / 2) / width / 0.1,
                np.log((ymax - ymin) / height) / 0.2,
                np.log((xmax - xmin) / width) / 0.2,
            ]
            for distance in np.abs(outputs["offsets"][picture, r, label] - target):
                regression += 0.5 * distance**2 if distance < 1 else distance - 0.5
    return classification / max(number, 1), regression / max(number, 1)


@pytest.mark.parametrize("batch", [BATCH, EMPTY], ids=["objects", "empty"])
def test_losses_equal_reference(tiny, batch):
    rng = np.random.default_rng(1)
    outputs = {k: ops.convert_to_numpy(v) for k, v in tiny(batch, training=True).items()}
    outputs["logits"] = rng.normal(0, 2, outputs["logits"].shape).astype("float32")
    outputs["offsets"] = rng.normal(0, 2, outputs["offsets"].shape).astype("float32")
    losses = {k: float(v) for k, v in tiny.separate_losses(batch, outputs, training=False).items()}
    expected = reference_losses_of_regions(outputs, *batch["bounding_boxes"].values())
    np.testing.assert_allclose(
        [losses["classification_loss"], losses["regression_loss"]], expected, rtol=1e-4
    )
    assert (losses["regression_loss"] > 0) == (batch is BATCH)
    assert (losses["proposal_regression_loss"] > 0) == (batch is BATCH)
    total = float(tiny.compute_loss(batch, None, outputs, training=False))
    np.testing.assert_allclose(total, sum(losses.values()), rtol=1e-5)
    for name, metric in tiny.loss_trackers.items():
        np.testing.assert_allclose(float(metric.result()), losses[name], rtol=1e-5)
        metric.reset_state()


def test_evaluation_repeats(tiny):
    """Samples differ from step to step in training, but not in evaluation."""
    model = tiny_model()
    model.compile()
    first, second = (model.test_on_batch(BATCH, return_dict=True) for _ in range(2))
    names = [
        "objectness_loss",
        "proposal_regression_loss",
        "classification_loss",
        "regression_loss",
    ]
    assert set(first) == {"loss", *names}
    np.testing.assert_allclose(first["loss"], sum(first[name] for name in names), rtol=1e-5)
    np.testing.assert_allclose([second[n] for n in first], list(first.values()), rtol=1e-6)
    samples = [ops.convert_to_numpy(model(BATCH, training=True)["regions"]) for _ in range(2)]
    assert (samples[0] != samples[1]).any()


@pytest.mark.slow
def test_xla_and_graph_losses_are_equal():
    losses = []
    for jit_compile in (False, True):
        model = tiny_model()
        model.compile(jit_compile=jit_compile)
        losses.append(model.test_on_batch(BATCH, return_dict=True))
    for name, value in losses[0].items():
        np.testing.assert_allclose(losses[1][name], value, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("roi_pooling", ["align", "max"])
def test_xla_and_graph_steps_are_equal(roi_pooling):
    losses, weights = [], []
    for jit_compile in (False, True):
        model = tiny_model(roi_pooling=roi_pooling)
        model.compile(keras.optimizers.SGD(0.1), jit_compile=jit_compile)
        losses.append(model.train_on_batch(BATCH, return_dict=True))
        weights.append(model.get_weights())
    for name, value in losses[0].items():
        np.testing.assert_allclose(losses[1][name], value, rtol=1e-4)
    for a, b in zip(*weights):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.slow
def test_objects_can_be_learnt():
    """Some steps on two pictures, and their objects come out of `predict`."""
    keras.utils.set_random_seed(2)
    model = faster_rcnn(
        tiny_backbone((64, 64, 3), 16),
        2,
        strides=(8, 16),
        filters=16,
        head_units=32,
        anchor_scale=3.0,
        canonical_size=32,
        num_samples=32,
        num_proposals=(50, 20),
    )
    images = np.full((2, 64, 64, 3), 90.0, "float32")
    images[0, 10:42, 6:44] = [250, 30, 30]
    images[1, 24:60, 20:50] = [30, 30, 250]
    boxes = np.array([[[10, 6, 42, 44]], [[24, 20, 60, 50]]], "float32") / 64
    batch = {"images": images, "bounding_boxes": {"boxes": boxes, "labels": np.array([[0], [1]])}}
    model.compile(keras.optimizers.Adam(3e-3))
    losses = [model.train_on_batch(batch, return_dict=True)["loss"] for _ in range(100)]
    assert losses[-1] < losses[0] / 2
    found = model.predict(images, verbose=0)
    np.testing.assert_array_equal(found["labels"][:, 0], [0, 1])
    overlaps = [iou(found["boxes"][i, 0], boxes[i, 0]) for i in (0, 1)]
    assert min(overlaps) > 0.5


# --- Decoding ----------------------------------------------------------------------------


def test_decoding_by_hand(tiny):
    regions = np.array([[[0.2, 0.2, 0.6, 0.4]]], "float32")
    offsets = np.zeros((1, 1, 4, 4), "float32")
    offsets[0, 0, 0] = 9.0  # of the background: not looked at
    offsets[0, 0, 2] = [1.0, -2.0, 5 * np.log(2), 0.0]
    logits = np.array([[[0.0, 1.0, 2.0, -1.0]]], "float32")
    boxes, scores = tiny.decode({"logits": logits, "offsets": offsets}, regions)
    np.testing.assert_allclose(
        ops.convert_to_numpy(boxes)[0, 0],
        # The second: centre 0.1 * 0.4 lower and 0.2 * 0.2 further left, twice as high.
        [[0.2, 0.2, 0.6, 0.4], [0.04, 0.16, 0.84, 0.36], [0.2, 0.2, 0.6, 0.4]],
        atol=1e-6,
    )
    expected = np.exp([1, 2, -1]) / np.exp([0, 1, 2, -1]).sum()
    np.testing.assert_allclose(ops.convert_to_numpy(scores)[0, 0], expected, rtol=1e-5)


def test_detections_equal_reference(tiny):
    """Suppression class by class, each class with boxes of its own."""
    rng = np.random.default_rng(4)
    corner = rng.uniform(0, 0.6, (2, 25, 2))
    regions = np.concatenate([corner, corner + 0.3], axis=-1).astype("float32")
    valid = np.arange(25) < np.array([[25], [20]])
    outputs = {
        "logits": rng.normal(0, 2, (2, 25, 4)).astype("float32"),
        "offsets": rng.normal(0, 1, (2, 25, 4, 4)).astype("float32"),
    }
    model = tiny_model()
    model.region_outputs = lambda raw, regions, training: outputs
    found = {k: ops.convert_to_numpy(v) for k, v in model.detect(None, regions, valid).items()}
    boxes, scores = (ops.convert_to_numpy(x) for x in model.decode(outputs, regions))
    for picture in range(2):
        kept = []
        for label in range(3):
            of_class = []
            for r in np.argsort(-scores[picture, :, label]):
                box, score = boxes[picture, r, label], scores[picture, r, label]
                if score > 0.05 and valid[picture, r]:
                    if all(iou(box, other) <= 0.5 for _, _, other in of_class):
                        of_class.append((score, label, box))
            kept += of_class
        kept.sort(key=lambda row: -row[0])
        assert found["count"][picture] == len(kept) > 10
        for k, (score, label, box) in enumerate(kept):
            np.testing.assert_allclose(found["scores"][picture, k], score, rtol=1e-5)
            assert found["labels"][picture, k] == label
            np.testing.assert_allclose(found["boxes"][picture, k], box, atol=1e-6)
        assert (found["labels"][picture, len(kept) :] == -1).all()


@pytest.mark.slow
def test_detections_after_keras_and_savedmodel_round_trips(tmp_path):
    import tensorflow as tf

    model = tiny_model()
    model.score_threshold = 0.2
    images = np.random.default_rng(1).integers(0, 256, (2, 64, 96, 3), "uint8")
    expected = model.predict({"images": images}, verbose=0)
    assert expected["count"].min() > 0 and expected["boxes"].shape == (2, 100, 4)
    np.testing.assert_array_equal(model.predict_on_batch(images)["boxes"], expected["boxes"])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.class_names == ["cat", "dog", "owl"] and loaded.image_shape == (64, 96, 3)
    settings, reloaded = model.get_config(), loaded.get_config()
    for name in settings.keys() - {"network", "head"}:
        assert reloaded[name] == settings[name]
    for name, value in model(images).items():
        np.testing.assert_array_equal(ops.convert_to_numpy(loaded(images)[name]), value)
    model.export(tmp_path / "saved", verbose=False)
    exported = tf.saved_model.load(str(tmp_path / "saved"))
    served = exported.serve(images)
    for name, value in expected.items():
        np.testing.assert_allclose(served[name].numpy(), value, atol=1e-5)


def test_mixed_precision_keeps_boxes_exact():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = tiny_model()
    finally:
        keras.config.set_dtype_policy("float32")
    outputs = model(BATCH, training=True)
    assert outputs.pop("matches").dtype == "int32"
    assert {keras.backend.standardize_dtype(x.dtype) for x in outputs.values()} == {"float32"}
    # The objects themselves are among the regions: unrounded.
    regions = ops.convert_to_numpy(outputs["regions"])[0]
    for box in BATCH["bounding_boxes"]["boxes"][0]:
        assert (regions == box).all(axis=1).any()
