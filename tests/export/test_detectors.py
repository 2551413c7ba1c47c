"""Detectors of all kinds that have learnt four pictures by heart, in LiteRT and in MediaPipe."""

import keras
import numpy as np
import pytest

from kerasvision.backbones import resnet18
from kerasvision.detection import (
    faster_rcnn,
    load_detector,
    mask_rcnn,
    r_fcn,
    retinanet,
    yolo_v1,
    yolo_v2,
    yolo_v3,
)
from kerasvision.export import export_litert

NAMES = ["red", "blue"]
TWO_STAGES = {
    "strides": (8, 16),
    "filters": 16,
    "head_units": 32,
    "anchor_scale": 3.0,
    "canonical_size": 48,
    "num_samples": 32,
    "num_proposals": (50, 20),
}


def backbone():
    return resnet18((96, 96, 3), include_top=False, width=8, batch_norm_momentum=0.5)


DETECTORS = {
    "faster_rcnn": lambda: faster_rcnn(backbone(), 2, NAMES, **TWO_STAGES),
    "mask_rcnn": lambda: mask_rcnn(
        backbone(), 2, NAMES, num_keypoints=2, head_filters=16, **TWO_STAGES
    ),
    "r_fcn": lambda: r_fcn(
        backbone(), 2, NAMES, filters=32, proposal_filters=16, anchor_scales=(24, 48)
    ),
    "retinanet": lambda: retinanet(backbone(), 2, NAMES, filters=16, head_depth=1),
    "yolo_v1": lambda: yolo_v1(backbone(), 2, NAMES, grid=3, hidden_units=(32,), dropout_rate=0.0),
    "yolo_v2": lambda: yolo_v2(
        backbone(), 2, NAMES, priors=[(50, 50)], filters=16, batch_norm_momentum=0.5
    ),
    "yolo_v3": lambda: yolo_v3(
        backbone(),
        2,
        NAMES,
        priors=[[(12, 12)], [(25, 25)], [(50, 50)]],
        filters=16,
        head_depth=1,
        batch_norm_momentum=0.5,
    ),
}


@pytest.fixture(scope="module", params=DETECTORS)
def learnt(request, pictures):
    """A detector that has learnt the pictures, and what it finds in them."""
    keras.utils.set_random_seed(0)
    model = DETECTORS[request.param]()
    i = np.arange(4)
    corners = np.stack([6 + 8 * i, 34 - 8 * i, 56 + 8 * i, 84 - 8 * i], axis=-1)[:, None]
    boxes = (corners / 96).astype("float32")
    visible = np.full((4, 1, 2, 1), 2.0, "float32")
    batch = {
        "images": pictures.astype("float32"),
        "bounding_boxes": {"boxes": boxes, "labels": (i % 2)[:, None]},
        "segmentation_masks": np.ones((4, 1, 56, 56), "float32"),
        "keypoints": np.concatenate([boxes.reshape(4, 1, 2, 2), visible], axis=-1),
    }
    model.compile(keras.optimizers.Adam(3e-3))
    for _ in range(100):
        model.train_on_batch(batch)
    found = model.predict_on_batch(pictures)
    np.testing.assert_array_equal(found["labels"][:, 0], i % 2)
    assert found["scores"][:, 0].min() > 0.5
    return model, found


@pytest.mark.slow
@pytest.mark.parametrize(
    "precision, box, score", [("float32", 1e-3, 1e-3), ("float16", 0.02, 0.05), ("int8", 0.1, 0.3)]
)
def test_precisions_find_the_same(learnt, pictures, tmp_path, precision, box, score):
    """The best box of each picture, its class, its score, its mask and its keypoints."""
    model, expected = learnt
    export_litert(model, tmp_path / "model.tflite", precision, pictures)
    found = load_detector(tmp_path / "model.tflite").predict_on_batch(pictures)
    assert found.keys() == expected.keys()
    best = {name: values[:, 0] for name, values in found.items() if name != "count"}
    wanted = {name: values[:, 0] for name, values in expected.items() if name != "count"}
    np.testing.assert_array_equal(best["labels"], wanted["labels"])
    np.testing.assert_allclose(best["boxes"], wanted["boxes"], atol=box)
    np.testing.assert_allclose(best["scores"], wanted["scores"], atol=score)
    if "masks" in wanted:
        np.testing.assert_allclose(best["masks"].mean(), wanted["masks"].mean(), atol=score)
        places = best["keypoints"][..., :2]
        np.testing.assert_allclose(places, wanted["keypoints"][..., :2], atol=0.1)


@pytest.mark.slow
def test_mediapipe_agrees(learnt, pictures, mediapipe, tmp_path):
    """MediaPipe's ObjectDetector loads the file as it is, unless it has masks or keypoints."""
    model, expected = learnt
    if "masks" in expected:
        pytest.skip("MediaPipe's ObjectDetector takes four outputs")
    export_litert(model, tmp_path / "model.tflite")
    rows = mediapipe("mediapipe_detect.py", tmp_path / "model.tflite", pictures)
    for row, box, score, label in zip(
        rows, expected["boxes"][:, 0], expected["scores"][:, 0], expected["labels"][:, 0]
    ):
        assert row["labels"][0] == NAMES[label]
        assert row["scores"][0] == pytest.approx(score, abs=1e-3)
        # MediaPipe tells whole pixels.
        np.testing.assert_allclose(row["boxes"][0], box, atol=1 / 96)
