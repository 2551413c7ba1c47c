import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.layers.non_max_suppression import NonMaxSuppression, SoftNonMaxSuppression
from kerasvision.ops import nms


def as_numpy(value):
    return keras.tree.map_structure(ops.convert_to_numpy, value)


def assert_equal(received, expected):
    assert set(received) == set(expected)
    for name in expected:
        np.testing.assert_array_equal(received[name], expected[name], err_msg=name)


@pytest.fixture
def boxes_and_scores():
    rng = np.random.default_rng(0)
    corner, size = rng.uniform(0, 0.7, (2, 40, 2)), rng.uniform(0.1, 0.3, (2, 40, 2))
    boxes = np.concatenate([corner, corner + size], axis=-1).astype("float32")
    return boxes, rng.uniform(0, 1, (2, 40, 3)).astype("float32")


LAYERS = [
    lambda: NonMaxSuppression(0.3, 0.2, max_detections=9, candidates=50),
    lambda: NonMaxSuppression(0.3, 0.2, max_detections=9, candidates=None),
    lambda: NonMaxSuppression(0.3, 0.2, max_detections=9, candidates=5),
    lambda: NonMaxSuppression(0.3, 0.2, max_detections=9, class_agnostic=True),
    lambda: SoftNonMaxSuppression(max_detections=9),
    lambda: SoftNonMaxSuppression("linear", iou_threshold=0.1, max_detections=9, candidates=5),
]


@pytest.mark.parametrize("make", LAYERS)
def test_config_file_and_promised_shapes(make, boxes_and_scores, tmp_path):
    layer = make()
    expected = as_numpy(layer(*boxes_and_scores))
    assert (expected["count"] > 0).all()
    copy = type(layer).from_config(layer.get_config())
    assert_equal(as_numpy(copy(*boxes_and_scores)), expected)
    inputs = [keras.Input((40, 4)), keras.Input((40, 3))]
    model = keras.Model(inputs, layer(*inputs))
    assert_equal(model.predict(list(boxes_and_scores), verbose=0), expected)
    for name, symbol in model.output.items():
        assert symbol.shape == (None, *expected[name].shape[1:])
        assert keras.backend.standardize_dtype(symbol.dtype) == expected[name].dtype.name
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_equal(loaded.predict(list(boxes_and_scores), verbose=0), expected)


def test_settings_reach_the_operators(boxes_and_scores):
    assert_equal(
        as_numpy(NonMaxSuppression(0.3, 0.2, 9, 50, class_agnostic=True)(*boxes_and_scores)),
        as_numpy(nms.batched_non_max_suppression(*boxes_and_scores, 0.3, 0.2, 9, 50, True)),
    )
    assert_equal(
        as_numpy(SoftNonMaxSuppression("linear", 0.7, 0.1, 0.2, 9, 50)(*boxes_and_scores)),
        as_numpy(
            nms.batched_soft_non_max_suppression(*boxes_and_scores, "linear", 0.7, 0.1, 0.2, 9, 50)
        ),
    )


@pytest.mark.parametrize("layer", [NonMaxSuppression, SoftNonMaxSuppression])
def test_half_precision_changes_nothing(layer, boxes_and_scores):
    expected = as_numpy(layer(max_detections=9)(*boxes_and_scores))
    found = layer(max_detections=9, dtype="mixed_bfloat16")(*boxes_and_scores)
    assert_equal(as_numpy(found), expected)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: NonMaxSuppression(iou_threshold=1.5), "iou_threshold must .* received: 1.5"),
        (lambda: NonMaxSuppression(max_detections=0), "max_detections must .* received: 0"),
        (lambda: NonMaxSuppression(candidates=0), "candidates must .* received: 0"),
        (lambda: SoftNonMaxSuppression("hard"), "method must .* received: hard"),
        (lambda: SoftNonMaxSuppression(sigma=-1.0), "sigma must .* received: -1.0"),
    ],
)
def test_errors_at_construction(make, message):
    with pytest.raises(ValueError, match=message):
        make()
