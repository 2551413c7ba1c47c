"""Pooling layers against loops over windows."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.layers import L2Pooling2D


def reference(x, size, stride, padding):
    """Loops over windows; "same" pads as TensorFlow does, most of it behind."""
    height, width = x.shape[1:3]
    if padding == "same":
        out = [-(-side // stride) for side in (height, width)]
        total = [max(0, (o - 1) * stride + size - s) for o, s in zip(out, (height, width))]
        before = [t // 2 for t in total]
    else:
        out, before = [(side - size) // stride + 1 for side in (height, width)], (0, 0)
    result = np.zeros((len(x), *out, x.shape[-1]))
    for b, i, j, c in np.ndindex(result.shape):
        top, left = i * stride - before[0], j * stride - before[1]
        window = x[b, max(0, top) : top + size, max(0, left) : left + size, c]
        result[b, i, j, c] = np.sqrt(np.mean(np.float64(window) ** 2))
    return result


@pytest.mark.parametrize(
    "size, stride, padding", [(3, 1, "same"), (3, 2, "same"), (2, 2, "valid"), (3, 1, "valid")]
)
def test_roots_of_mean_squares(size, stride, padding):
    x = np.random.default_rng(0).normal(size=(2, 5, 7, 3)).astype("float32")
    found = ops.convert_to_numpy(L2Pooling2D(size, stride, padding)(x))
    np.testing.assert_allclose(found, reference(x, size, stride, padding), rtol=1e-5)


def test_golden_windows():
    x = np.float32([[3, 4, 0], [0, 0, 0], [0, 0, 6]])[None, :, :, None]
    found = ops.convert_to_numpy(L2Pooling2D(2, 1)(x))[0, :, :, 0]
    np.testing.assert_allclose(found, [[2.5, 2.0], [0.0, 3.0]])
    assert L2Pooling2D(2).compute_output_shape((None, 5, 8, 3)) == (None, 2, 4, 3)


def test_the_gradient_of_zeros_is_finite():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the tape is TensorFlow's")
    import tensorflow as tf

    x = np.zeros((1, 4, 4, 1), "float32")
    x[0, 0, 0] = 2.0
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(L2Pooling2D(2)(x))
    gradient = tape.gradient(total, x).numpy()
    assert gradient[0, 0, 0, 0] == pytest.approx(0.5)  # of sqrt(x^2 / 4)
    assert np.count_nonzero(gradient) == 1
