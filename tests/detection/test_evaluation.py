import itertools
import types

import cv2
import numpy as np
import pytest
import tensorflow as tf

from kerasvision import drawing
from kerasvision.detection import evaluation
from kerasvision.metrics.coco import coco_metrics, coco_results

SIZE = 100  # pixels of a side of the pictures
NAMES = ["cat", "owl"]


def _disc(inner=0.0, side=56):
    """A disc, or a ring, on a grid."""
    y, x = np.mgrid[:side, :side] / (side - 1) * 2 - 1
    distance = np.hypot(y, x)
    return ((distance <= 1) & (distance >= inner)).astype("float32")


# Two objects in the first picture, one in the second, none in the third.
BOXES = np.float32(
    [[[0.1, 0.1, 0.6, 0.5], [0.5, 0.5, 0.9, 0.9]], [[0.2, 0.3, 0.8, 0.9], [0] * 4], [[0] * 4] * 2]
)
LABELS = np.int32([[0, 1], [1, -1], [-1, -1]])
MASKS = np.where(LABELS[..., None, None] >= 0, _disc(), 0)
# In the middle, and at the upper edge of the box; the second is hidden.
MIDDLE = (BOXES[..., :2] + BOXES[..., 2:]) / 2
TOP = np.stack([BOXES[..., 0], MIDDLE[..., 1]], axis=-1)
KEYPOINTS = np.concatenate(
    [
        np.stack([MIDDLE, TOP], axis=2),
        np.broadcast_to(np.float32([[2], [1]]), (3, 2, 2, 1)) * (LABELS >= 0)[..., None, None],
    ],
    axis=-1,
)


def _batches(batch_size=2):
    return tf.data.Dataset.from_tensor_slices(
        {
            "images": np.full((3, SIZE, SIZE, 3), 100, "uint8"),
            "image_ids": np.int64([7, 3, 5]),
            "bounding_boxes": {"boxes": BOXES, "labels": LABELS},
            "segmentation_masks": MASKS.astype("uint8"),
            "keypoints": KEYPOINTS.astype("float32"),
        }
    ).batch(batch_size)


def _ground_truth(parts=("segmentation", "keypoints")):
    """COCO's dict of the objects above."""
    detections = {
        "boxes": BOXES, "labels": LABELS, "scores": np.ones(LABELS.shape), "masks": MASKS,
        "keypoints": KEYPOINTS,
    }  # fmt: skip
    truth = {
        "images": [{"id": i, "width": SIZE, "height": SIZE} for i in (7, 3, 5)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(NAMES)],
    }
    rows = coco_results(detections, [7, 3, 5], truth)
    for number, row in enumerate(rows):
        row.update(id=number, iscrowd=0, area=row["bbox"][2] * row["bbox"][3])
        del row["score"]
        for name in {"segmentation", "keypoints"} - set(parts):
            del row[name]
    return {**truth, "annotations": rows}


class Fixed:
    """A detector that finds the objects above in their order, boxes as they are."""

    class_names = NAMES
    image_shape = (SIZE, SIZE, 3)

    def __init__(self, parts=("masks", "keypoints"), masks=MASKS, keypoints=KEYPOINTS):
        self.parts = parts
        self.all = {"masks": masks, "keypoints": keypoints.copy()}
        self.all["keypoints"][..., 2] = 0.5
        self.rows = itertools.count()

    def predict_on_batch(self, images):
        rows = [next(self.rows) % 3 for _ in images]
        scores = np.where(LABELS >= 0, np.float32([0.9, 0.8]), 0)
        found = {"boxes": BOXES, "labels": LABELS, "scores": scores, "count": (scores > 0).sum(1)}
        found.update({name: self.all[name] for name in self.parts})
        return {name: values[rows] for name, values in found.items()}


def test_perfect_detector():
    metrics = evaluation.evaluate(Fixed(), _batches(), _ground_truth())
    assert metrics["AP"] == metrics["AR100"] == pytest.approx(1.0)
    assert metrics["masks"]["AP"] == metrics["masks"]["per_class"]["owl"]["AP"] == pytest.approx(1)
    assert metrics["keypoints"]["AP"] == metrics["keypoints"]["AR"] == pytest.approx(1.0)


def test_boxes_masks_and_keypoints_are_measured_apart():
    # Rings that cover 1 - 0.55² = 0.6975 of the discs are right at 0.50 to 0.65, four of ten.
    rings = np.where(LABELS[..., None, None] >= 0, _disc(0.55), 0)
    # Keypoints a box away.
    far = KEYPOINTS + np.float32([0.5, 0.5, 0])
    metrics = evaluation.evaluate(Fixed(masks=rings, keypoints=far), _batches(), _ground_truth())
    assert metrics["AP"] == pytest.approx(1.0)
    assert metrics["masks"]["AP"] == pytest.approx(0.4)
    assert metrics["masks"]["AP50"] == pytest.approx(1.0) and metrics["masks"]["AP75"] == 0.0
    assert metrics["keypoints"]["AP50"] == 0.0


def test_same_as_all_at_once():
    rng = np.random.default_rng(0)
    detector = Fixed(
        masks=np.clip(MASKS * rng.uniform(0.3, 1.0, MASKS.shape), 0, 1),
        keypoints=KEYPOINTS + rng.normal(0, 0.03, KEYPOINTS.shape),
    )
    truth = _ground_truth()
    metrics = evaluation.evaluate(detector, _batches(1), truth)
    detections = Fixed(masks=detector.all["masks"], keypoints=detector.all["keypoints"])
    rows = coco_results(detections.predict_on_batch(np.zeros(3)), [7, 3, 5], truth)
    assert metrics == {
        **coco_metrics(truth, rows),
        "masks": coco_metrics(truth, rows, "segm"),
        "keypoints": coco_metrics(truth, rows, "keypoints"),
    }
    assert 0 < metrics["keypoints"]["AP"] < 1 and 0 < metrics["masks"]["AP"] < 1


@pytest.mark.parametrize("found", [(), ("masks",), ("keypoints",), ("masks", "keypoints")])
@pytest.mark.parametrize("real", [(), ("segmentation",), ("segmentation", "keypoints")])
def test_only_what_detections_and_ground_truth_have(found, real):
    metrics = evaluation.evaluate(Fixed(found), _batches(), _ground_truth(real))
    assert ("masks" in metrics) == ("masks" in found and "segmentation" in real)
    assert ("keypoints" in metrics) == ("keypoints" in found and "keypoints" in real)
    assert metrics["AP"] == pytest.approx(1.0)


def test_detector_that_finds_nothing_has_metrics_of_masks():
    detector = Fixed()
    nothing = types.SimpleNamespace(
        predict_on_batch=lambda images: {
            name: np.full_like(values, -1) if name == "labels" else np.zeros_like(values)
            for name, values in detector.predict_on_batch(images).items()
        }
    )
    metrics = evaluation.evaluate(nothing, _batches(), _ground_truth())
    assert metrics["AP"] == metrics["masks"]["AP"] == metrics["keypoints"]["AP"] == 0.0


def test_picture_twice_and_progress(capsys):
    with pytest.raises(ValueError, match="image id 3: must come once; received: a second batch"):
        evaluation.evaluate(Fixed(), _batches(1).repeat(2).skip(1), _ground_truth())
    evaluation.evaluate(Fixed(), _batches(1), _ground_truth(), progress=True)
    assert "3/3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("found", "names"),
    [
        ((), []),
        (("masks",), ["val_mask_AP", "val_mask_AP50"]),
        (("masks", "keypoints"), ["val_mask_AP", "val_mask_AP50", "val_keypoint_AP"]),
    ],
)
def test_logs_of_a_training(found, names):
    callback = evaluation.COCOEvaluation(_batches(), _ground_truth(), every=2, epochs=3)
    callback.set_model(Fixed(found))
    logs = [{"loss": 1.0} for _ in range(3)]
    for epoch, values in enumerate(logs):
        callback.on_epoch_end(epoch, values)
    assert logs[0] == {"loss": 1.0}
    for values in logs[1:]:
        assert list(values) == ["loss", "val_AP", "val_AP50", *names]
        assert list(values.values()) == pytest.approx([1.0] * len(values))
    # Nothing but pictures and their ids is kept.
    assert set(callback.batches.element_spec) == {"images", "image_ids"}


def test_logs_without_objects():
    truth = {**_ground_truth(), "annotations": []}
    callback = evaluation.COCOEvaluation(_batches(), truth, every=1, epochs=1)
    callback.set_model(Fixed())
    logs = {}
    callback.on_epoch_end(0, logs)
    assert logs == {"val_AP": 0.0, "val_AP50": 0.0}


def test_samples_show_masks_and_keypoints(tmp_path):
    path = tmp_path / "samples.png"
    evaluation.draw_samples(Fixed(), _batches(), path, count=2, min_score=0.85)
    sheet = cv2.imread(str(path))[:, :, ::-1]
    # Pictures are enlarged to 400 pixels; ground truth at 8, prediction at 416.
    shade = np.rint(50 + np.array(drawing.color_of(0)) / 2)
    for left in (8, 416):
        picture = sheet[32:432, left : left + 400]
        np.testing.assert_allclose(picture[190, 80], shade, atol=1)  # in the first mask
        np.testing.assert_array_equal(picture[235, 45], [100] * 3)  # in its box, outside of it
        assert tuple(picture[140, 120]) == drawing.PALETTE[0]  # the keypoint in its middle
    # The second object has too low a score.
    truth, found = sheet[32:432, 8:408], sheet[32:432, 416:816]
    assert (truth[300, 280] != found[300, 280]).any()
    np.testing.assert_array_equal(found[300, 280], [100] * 3)
    # Its hidden keypoint, at the top of the first object, is a ring; the prediction a dot.
    assert tuple(truth[40, 120]) == drawing.contrast_of(drawing.PALETTE[1])
    assert tuple(found[40, 120]) == drawing.PALETTE[1]


def test_samples_of_boxes_alone(tmp_path):
    batches = _batches().map(
        lambda batch: {name: batch[name] for name in ("images", "image_ids", "bounding_boxes")}
    )
    path = tmp_path / "samples.png"
    evaluation.draw_samples(Fixed(()), batches, path, count=3)
    sheet = cv2.imread(str(path))[:, :, ::-1]
    for left in (8, 416):
        np.testing.assert_array_equal(sheet[32 + 190, left + 80], [100] * 3)
        np.testing.assert_array_equal(sheet[32 + 150, left + 40], drawing.color_of(0))


def test_samples_of_a_detector_that_is_never_sure(tmp_path):
    """As many objects are drawn as there are, if fewer score 0.4."""

    class Unsure(Fixed):
        def predict_on_batch(self, images):
            found = super().predict_on_batch(images)
            return {**found, "scores": found["scores"] / 10}

    path = tmp_path / "samples.png"
    evaluation.draw_samples(Unsure(()), _batches(), path, count=3)
    sheet = cv2.imread(str(path))[:, :, ::-1]
    for left in (8, 416):
        assert (sheet[32 + 150 : 32 + 152, left + 40] == drawing.color_of(0)).all()
