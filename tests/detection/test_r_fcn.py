import keras
import numpy as np
import pytest
from keras import layers, ops

from kerasvision.detection.r_fcn import r_fcn, r_fcn_resnet50, r_fcn_resnet101
from kerasvision.ops import boxes as box_ops


def tiny_backbone(image_shape=(64, 96, 3), channels=8):
    images = keras.Input(image_shape, name="images")
    x = layers.Rescaling(1 / 127.5, -1.0)(images)
    x = layers.Conv2D(channels, 3, 4, padding="same", activation="relu")(x)
    x = layers.Conv2D(channels, 3, 4, padding="same", activation="relu")(x)
    model = keras.Model(images, x)
    model.feature_taps = {"stride16": x}
    return model


def tiny_model(**settings):
    keras.utils.set_random_seed(0)
    return r_fcn(
        tiny_backbone(),
        3,
        ["cat", "dog", "owl"],
        filters=8,
        proposal_filters=8,
        anchor_scales=(24, 48),
        **settings,
    )


@pytest.fixture(scope="module")
def tiny():
    return tiny_model()


def batch_of(boxes, labels):
    boxes, labels = np.asarray(boxes, "float32"), np.asarray(labels, "int32")
    images = np.random.default_rng(0).uniform(0, 255, (len(boxes), 64, 96, 3)).astype("float32")
    return {"images": images, "bounding_boxes": {"boxes": boxes, "labels": labels}}


BATCH = batch_of(
    [[[0.1, 0.1, 0.6, 0.5], [0.3, 0.4, 0.9, 0.95]], [[0.2, 0.2, 0.8, 0.7], [0.5, 0.5, 0.5, 0.5]]],
    [[0, 2], [1, 1]],
)
EMPTY = batch_of(np.zeros((2, 2, 4)), np.full((2, 2), -1))


def trainable(model):
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


def test_parameters():
    model = r_fcn_resnet50(20, (64, 96, 3), freeze_batch_norm=True)
    assert model.network.output["stride16"].shape == (None, 4, 6, 1024)
    assert model.network.output["class_maps"].shape == (None, 4, 6, 9 * 21)
    assert model.network.output["box_maps"].shape == (None, 4, 6, 9 * 4)
    reduction = 2048 * 1024 + 1024
    proposals = (9 * 1024 + 1) * 512 + 513 * 9 * (1 + 4)
    maps = 1025 * 9 * (21 + 4)
    # ResNet-50's 25,557,032 without its classifier and its batch normalisation.
    backbone = 25_557_032 - 2049 * 1000 - 53_120
    assert trainable(model) == backbone + reduction + proposals + maps == 30_525_902
    # ResNet-101: 17 more blocks of 1024, 256 and 1024 channels.
    blocks = 17 * (1024 * 256 + 9 * 256 * 256 + 256 * 1024)
    model = r_fcn_resnet101(20, (64, 64, 3), freeze_batch_norm=True)
    assert trainable(model) == 30_525_902 + blocks == 49_465_806


def test_votes_equal_reference(tiny):
    """Equations 1 and 2, cell by cell."""
    rng = np.random.default_rng(0)
    raw = {
        "class_maps": rng.normal(size=(1, 8, 12, 9 * 4)).astype("float32"),
        "box_maps": rng.normal(size=(1, 8, 12, 9 * 4)).astype("float32"),
    }
    # In cells: rows 1 to 6, columns 2 to 10.
    region = np.array([1, 2, 7, 11])
    regions = (region / [8, 12, 8, 12]).astype("float32")[None, None]
    found = tiny.region_outputs(raw, regions, training=False)
    found = {name: ops.convert_to_numpy(value) for name, value in found.items()}
    assert found["logits"].shape == (1, 1, 4) and found["offsets"].shape == (1, 1, 4, 4)
    votes = {name: np.zeros(4) for name in raw}
    for i in range(3):
        for j in range(3):
            # Six rows and nine columns make bins of two and three.
            rows, columns = slice(1 + 2 * i, 3 + 2 * i), slice(2 + 3 * j, 5 + 3 * j)
            for c in range(4):
                for name, maps in raw.items():
                    votes[name][c] += maps[0, rows, columns, (c * 3 + i) * 3 + j].mean() / 9
    np.testing.assert_allclose(found["logits"][0, 0], votes["class_maps"], atol=1e-5)
    for c in range(4):  # the same box for all classes
        np.testing.assert_allclose(found["offsets"][0, 0, c], votes["box_maps"], atol=1e-5)


def test_position_matters(tiny):
    """Maps that show a head above and feet below vote for an object, and not for it upside down."""
    maps = np.zeros((1, 12, 12, 9 * 4), "float32")
    for i, rows in enumerate((slice(0, 4), slice(4, 8), slice(8, 12))):
        for j in range(3):
            maps[0, rows, :, (1 * 3 + i) * 3 + j] = 9.0
    region = np.float32([[[0, 0, 11 / 12, 11 / 12]]])
    for picture, low, high in [(maps, 7.0, 9.0), (maps[:, ::-1], 0.0, 4.5)]:
        raw = {"class_maps": picture.copy(), "box_maps": np.zeros_like(maps)}
        logits = ops.convert_to_numpy(tiny.region_outputs(raw, region, False)["logits"])[0, 0]
        assert low <= logits[1] <= high and not logits[[0, 2, 3]].any()


@pytest.mark.parametrize("batch", [BATCH, EMPTY], ids=["objects", "empty"])
def test_hard_examples_equal_reference(batch):
    model = tiny_model(num_hard_examples=16)
    outputs = {k: ops.convert_to_numpy(v) for k, v in model(batch, training=True).items()}
    # All proposals and both objects take part.
    count = outputs["matches"].shape[1]
    assert count == min(300, len(model.anchors)) + 2
    rng = np.random.default_rng(1)
    outputs["logits"] = rng.normal(0, 2, outputs["logits"].shape).astype("float32")
    losses = {k: float(v) for k, v in model.separate_losses(batch, outputs, False).items()}
    classification = regression = number = 0.0
    for picture in range(2):
        rows = []
        for r, match in enumerate(outputs["matches"][picture]):
            if match == -2:
                continue
            label = batch["bounding_boxes"]["labels"][picture, match] + 1 if match >= 0 else 0
            logits = outputs["logits"][picture, r].astype("float64")
            entropy = np.log(np.exp(logits).sum()) - logits[label]
            smooth_l1 = 0.0
            if match >= 0:
                region = box_ops.to_center_form(outputs["regions"][picture, r])
                target = box_ops.encode(batch["bounding_boxes"]["boxes"][picture, match], region)
                distance = np.abs(
                    outputs["offsets"][picture, r, label] - ops.convert_to_numpy(target)
                )
                smooth_l1 = np.where(distance < 1, distance**2 / 2, distance - 0.5).sum()
            rows.append((entropy + smooth_l1, entropy, smooth_l1))
        assert len(rows) > 16
        for _, entropy, smooth_l1 in sorted(rows, reverse=True)[:16]:
            classification, regression = classification + entropy, regression + smooth_l1
            number += 1
    np.testing.assert_allclose(
        [losses["classification_loss"], losses["regression_loss"]],
        [classification / number, regression / number],
        rtol=1e-4,
    )


@pytest.mark.slow
def test_one_batch_can_be_learnt_and_kept(tmp_path):
    """Some steps with hard examples; the losses fall, and the file gives the same detections."""
    model = tiny_model(num_hard_examples=16)
    model.compile(keras.optimizers.Adam(1e-2))
    losses = [model.train_on_batch(BATCH, return_dict=True)["loss"] for _ in range(30)]
    assert losses[-1] < 0.7 * losses[0]
    expected = {k: ops.convert_to_numpy(v) for k, v in model(BATCH["images"]).items()}
    assert expected["count"].min() > 0
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.bins == 3 and loaded.num_hard_examples == 16
    for name, value in loaded(BATCH["images"]).items():
        np.testing.assert_array_equal(ops.convert_to_numpy(value), expected[name])
    detector = {name: value.shape for name, value in model.detector.output.items()}
    assert detector["boxes"] == (None, 100, 4) and detector["count"] == (None,)


@pytest.mark.slow
@pytest.mark.parametrize("num_hard_examples", [None, 16])
def test_xla_and_graph_losses_are_equal(num_hard_examples):
    losses = []
    for jit_compile in (False, True):
        model = tiny_model(num_hard_examples=num_hard_examples)
        model.compile(jit_compile=jit_compile)
        losses.append(model.test_on_batch(BATCH, return_dict=True))
    for name, value in losses[0].items():
        np.testing.assert_allclose(losses[1][name], value, rtol=1e-4)
