import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.detection import ssd
from kerasvision.ops import boxes as box_ops


@pytest.fixture(scope="module")
def tiny():
    keras.utils.set_random_seed(0)
    return ssd.ssdlite(3, (96, 128, 3), class_names=["cat", "dog", "owl"], width_multiplier=0.35)


def batch_of(boxes, labels, shape=(96, 128, 3), seed=0):
    boxes, labels = np.asarray(boxes, "float32"), np.asarray(labels, "int32")
    images = np.random.default_rng(seed).uniform(0, 255, (len(boxes), *shape)).astype("float32")
    return {"images": images, "bounding_boxes": {"boxes": boxes, "labels": labels}}


def test_extra_maps_of_one_cell_have_no_stride():
    network = ssd.ssdlite(2, (160, 64, 3), width_multiplier=0.35).network
    layers = [network.get_layer(f"extra{i}_depthwise") for i in range(4)]
    assert [layer.output.shape[1:3] for layer in layers] == [(3, 1), (2, 1), (1, 1), (1, 1)]
    assert [layer.strides for layer in layers] == [(2, 2), (2, 2), (2, 2), (1, 1)]


def test_ssd300_is_the_papers():
    model = ssd.ssd300(20)
    assert model.count_params() == 26_285_486
    assert model.default_boxes.shape == (8732, 4)
    # First cell of conv4_3: centre at half of the step of 8 pixels; sides 30 and sqrt(30 * 60).
    np.testing.assert_allclose(
        model.default_boxes[:4] * 300,
        [
            [4, 4, 30, 30],
            [4, 4, 1800**0.5, 1800**0.5],
            [4, 4, 30 / 2**0.5, 30 * 2**0.5],
            [4, 4, 30 * 2**0.5, 30 / 2**0.5],
        ],
        rtol=1e-5,
    )
    maps = [38 * 38 * 4, 19 * 19 * 6, 10 * 10 * 6, 5 * 5 * 6, 3 * 3 * 4, 4]
    assert sum(maps) == 8732
    # Last map: one cell in the middle, sides 264 and sqrt(264 * 315).
    np.testing.assert_allclose(
        model.default_boxes[-4:-2] * 300,
        [[150, 150, 264, 264], [150, 150, (264 * 315) ** 0.5, (264 * 315) ** 0.5]],
        rtol=1e-5,
    )


def test_ssd512_is_the_papers():
    model = ssd.ssd512(20)
    assert model.count_params() == 27_188_676
    assert model.default_boxes.shape == (24_564, 4)


@pytest.mark.slow
def test_ssd300_subsamples_the_fully_connected_layers(tmp_path):
    rng = np.random.default_rng(0)
    peer = keras.applications.VGG16(weights=None, classes=2)
    fc1, fc2 = rng.normal(size=(25088, 4096)).astype("f4"), rng.normal(size=(4096, 4096))
    peer.get_layer("fc1").set_weights([fc1, np.arange(4096.0)])
    peer.get_layer("fc2").set_weights([fc2, np.arange(4096.0)])
    peer.save(tmp_path / "vgg.h5")
    network = ssd.ssd300(3, tmp_path / "vgg.h5").network
    kernel, bias = network.get_layer("fc6").get_weights()
    # Filter 5 is the 20th; its tap (1, 2) the one at row 3, column 6 of 7x7.
    np.testing.assert_array_equal(kernel[1, 2, :, 5], fc1.reshape(7, 7, 512, 4096)[3, 6, :, 20])
    assert bias[5] == 20
    kernel, _ = network.get_layer("fc7").get_weights()
    np.testing.assert_allclose(kernel[0, 0, 3, 5], fc2[12, 20], rtol=1e-6)


def test_targets_by_hand(tiny):
    # The object is default box 7 itself: zero offsets there; padding and a degenerate box
    # match nothing; the second picture is empty.
    box = ops.convert_to_numpy(box_ops.to_corner_form(tiny.default_boxes[7]))
    boxes = np.array([[box, [0.1, 0.1, 0.9, 0.9], [0.5, 0.5, 0.5, 0.9]], np.zeros((3, 4))])
    offsets, classes = tiny.encode_targets(boxes, np.array([[2, -1, 1], [-1, -1, -1]]))
    offsets, classes = ops.convert_to_numpy(offsets), ops.convert_to_numpy(classes)
    np.testing.assert_allclose(offsets[0, 7], 0, atol=1e-4)
    assert classes[0, 7] == 3
    assert set(classes[0]) == {0, 3} and set(classes[1]) == {0}
    # All other positives overlap the object by more than half.
    corners = ops.convert_to_numpy(box_ops.to_corner_form(tiny.default_boxes))
    iou = ops.convert_to_numpy(box_ops.iou(corners, box[None]))[:, 0]
    np.testing.assert_array_equal(classes[0] > 0, iou > 0.5)


def reference_loss(offsets, logits, target_offsets, classes):
    """Equations 1 to 3, box by box."""
    localization = confidence = 0.0
    matched = int((classes > 0).sum())
    for b in range(len(classes)):
        exponentials = np.exp(logits[b] - logits[b].max(-1, keepdims=True))
        losses = -np.log((exponentials / exponentials.sum(-1, keepdims=True)))
        losses = losses[np.arange(len(losses)), classes[b]]
        negatives = sorted(losses[classes[b] == 0], reverse=True)
        positives = int((classes[b] > 0).sum())
        confidence += losses[classes[b] > 0].sum() + sum(negatives[: 3 * positives])
        for distance in np.abs(offsets[b] - target_offsets[b])[classes[b] > 0].ravel():
            localization += 0.5 * distance**2 if distance < 1 else distance - 0.5
    return (localization + confidence) / max(matched, 1)


def test_loss_equals_reference(tiny):
    rng = np.random.default_rng(3)
    batch = batch_of(
        [[[0.1, 0.1, 0.6, 0.5], [0.3, 0.4, 0.9, 0.95]], [[0.2, 0.2, 0.8, 0.7], [0, 0, 0, 0]]],
        [[0, 2], [1, -1]],
    )
    count = len(tiny.default_boxes)
    raw = {
        "offsets": rng.normal(size=(2, count, 4)).astype("f4"),
        "logits": rng.normal(size=(2, count, 4)).astype("f4"),
    }
    targets, classes = tiny.encode_targets(**batch["bounding_boxes"])
    expected = reference_loss(
        raw["offsets"], raw["logits"], ops.convert_to_numpy(targets), ops.convert_to_numpy(classes)
    )
    raw = {name: ops.convert_to_tensor(value) for name, value in raw.items()}
    assert float(tiny.compute_loss(batch, None, raw)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "boxes, labels",
    [
        ([[[0.0, 0.0, 0.0, 0.0]]], [[-1]]),
        ([[[0.5, 0.5, 0.5, 0.5]]], [[0]]),
        ([[[0.9, 0.9, 0.1, 0.1]]], [[1]]),
        ([[[-3.0, -3.0, -2.0, -2.0]]], [[1]]),
        ([[[-1.0, -1.0, 2.0, 2.0]]], [[2]]),
    ],
    ids=["empty", "point", "inverted", "outside", "larger than the picture"],
)
def test_loss_is_finite_for_odd_boxes(tiny, boxes, labels):
    batch = batch_of(boxes, labels)
    loss = float(tiny.compute_loss(batch, None, tiny(batch["images"])))
    assert np.isfinite(loss)
    if labels == [[-1]]:
        assert loss == 0.0


def test_decoding_by_hand(tiny):
    count = len(tiny.default_boxes)
    box = np.array([0.25, 0.25, 0.75, 0.75], "f4")
    offsets = ops.convert_to_numpy(box_ops.encode(box, tiny.default_boxes))
    logits = np.full((1, count, 4), -20.0, "f4")
    logits[:, :, 0] = 20.0
    # Two default boxes see the same owl, one of them sees a cat as well.
    logits[0, 5], logits[0, 9] = [0, -20, -20, 3], [0, 1, -20, 2]
    boxes, scores = tiny.decode({"offsets": offsets[None], "logits": logits})
    np.testing.assert_allclose(ops.convert_to_numpy(boxes), np.tile(box, (1, count, 1)), atol=1e-5)
    owl = np.exp(3) / (1 + np.exp(3))
    np.testing.assert_allclose(ops.convert_to_numpy(scores)[0, 5], [0, 0, owl], atol=1e-6)


@pytest.mark.slow
def test_detections_after_keras_and_savedmodel_round_trips(tiny, tmp_path):
    import tensorflow as tf

    images = np.random.default_rng(1).integers(0, 256, (3, 96, 128, 3), "uint8")
    expected = tiny.predict(images, verbose=0)
    assert expected["count"].min() > 0
    tiny.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert (
        loaded.class_names == ["cat", "dog", "owl"] and loaded.count_params() == tiny.count_params()
    )
    tiny.export(tmp_path / "saved", verbose=False)
    exported = tf.saved_model.load(str(tmp_path / "saved"))
    for name, value in expected.items():
        np.testing.assert_array_equal(loaded.predict(images, verbose=0)[name], value)
        np.testing.assert_allclose(exported.serve(images)[name].numpy(), value, atol=1e-5)


@pytest.mark.slow
def test_one_batch_can_be_learnt(tiny):
    """Some steps on two pictures, and their boxes come out of `predict`."""
    keras.utils.set_random_seed(1)
    model = ssd.ssdlite(2, (96, 96, 3), width_multiplier=0.35, batch_norm_momentum=0.5)
    images = np.full((2, 96, 96, 3), 90.0, "f4")
    images[0, 20:70, 10:60] = [250, 30, 30]
    images[1, 30:90, 30:80] = [30, 30, 250]
    boxes = np.array([[[20, 10, 70, 60]], [[30, 30, 90, 80]]], "f4") / 96
    batch = {"images": images, "bounding_boxes": {"boxes": boxes, "labels": np.array([[0], [1]])}}
    model.compile(keras.optimizers.Adam(3e-3))
    losses = [model.train_on_batch(batch, return_dict=True)["loss"] for _ in range(60)]
    assert losses[-1] < losses[0] / 2
    found = model.predict(images, verbose=0)
    np.testing.assert_array_equal(found["labels"][:, 0], [0, 1])
    iou = ops.convert_to_numpy(box_ops.iou(found["boxes"][:, :1], boxes))
    assert iou.min() > 0.6


@pytest.mark.slow
def test_xla_and_graph_losses_are_equal():
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    model = ssd.ssdlite(2, (64, 64, 3), width_multiplier=0.35)
    batch = batch_of([[[0.1, 0.1, 0.9, 0.8]]], [[1]], (64, 64, 3))

    def loss():
        return model.compute_loss(batch, None, model(batch["images"], training=False))

    plain, jitted = loss(), tf.function(loss, jit_compile=True)()
    np.testing.assert_allclose(plain, jitted, rtol=1e-4)


def test_clear_errors():
    with pytest.raises(ValueError, match="first_stride must be 8 or 16; received: 4"):
        ssd.ssdlite(2, first_stride=4)
    with pytest.raises(ValueError, match="class_names must be 2 names; received 1"):
        ssd.ssdlite(2, (64, 64, 3), class_names=["a"], width_multiplier=0.35)
    with pytest.raises(ValueError, match=r"received: 10000 of \d+ x 2"):
        network = ssd.ssdlite(2, (64, 64, 3), width_multiplier=0.35).network
        ssd.SSD(network, 2, np.zeros(network.output["offsets"].shape[1:]), max_detections=10000)
