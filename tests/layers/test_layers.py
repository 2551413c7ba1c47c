import numpy as np
from keras import ops

from kerasvision.layers import L2Normalization, NonMaxSuppression


def test_l2_normalization_golden(compiled):
    layer = L2Normalization(scale=10.0)
    layer.build((None, 1, 2, 2))
    x = np.array([[[[3.0, 4.0], [0.0, 0.0]]]], "float32")
    y = compiled(lambda x: layer(x))(x)
    np.testing.assert_allclose(y, [[[[6.0, 8.0], [0.0, 0.0]]]], rtol=1e-6)


def test_l2_normalization_of_half_precision_does_not_overflow():
    layer = L2Normalization(dtype="mixed_float16")
    y = ops.convert_to_numpy(layer(np.full((1, 1, 1, 512), 200.0, "float16")))
    assert y.dtype == np.float16
    np.testing.assert_allclose(y, 20 / 512**0.5, rtol=1e-2)


def test_non_max_suppression_gives_the_shapes_that_it_promises():
    layer = NonMaxSuppression(iou_threshold=0.5, score_threshold=0.3, max_detections=3)
    boxes = np.array([[[0, 0, 1, 1], [0, 0, 1, 0.9], [0, 0, 0.1, 0.1]]], "float32")
    scores = np.array([[[0.9], [0.8], [0.2]]], "float32")
    found = layer(boxes, scores)
    np.testing.assert_array_equal(found["count"], [1])
    np.testing.assert_allclose(found["scores"], [[0.9, 0, 0]])
    np.testing.assert_array_equal(found["labels"], [[0, -1, -1]])
    shapes = layer.compute_output_shape(boxes.shape, scores.shape)
    assert {name: tuple(value.shape) for name, value in found.items()} == shapes
