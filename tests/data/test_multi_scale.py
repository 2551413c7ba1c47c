import numpy as np
import pytest
import tensorflow as tf

from kerasvision.data.multi_scale import multi_scale


def numbered_batches(count):
    # Pictures of one colour, the batch's number.
    return tf.data.Dataset.range(count).map(
        lambda i: {
            "images": tf.fill((2, 64, 64, 3), tf.cast(i, tf.uint8)),
            "bounding_boxes": {"labels": tf.fill((2, 1), i)},
        }
    )


def test_sides_change_every_few_batches_and_go_on_after_a_crash():
    sides = (32, 64, 96)
    found = list(multi_scale(numbered_batches(40), sides, every=4, seed=1).as_numpy_iterator())
    shapes = [batch["images"].shape for batch in found]
    assert {shape[1] for shape in shapes} == set(sides)
    for i in range(40):
        assert shapes[i] == shapes[i - i % 4] and shapes[i][1] == shapes[i][2]
        np.testing.assert_allclose(found[i]["images"], i, rtol=1e-6)
        assert found[i]["bounding_boxes"]["labels"][0, 0] == i
    again = multi_scale(numbered_batches(40), sides, every=4, seed=1)
    assert [batch["images"].shape for batch in again.as_numpy_iterator()] == shapes
    later = multi_scale(numbered_batches(40).skip(13), sides, every=4, seed=1, first_step=13)
    assert [batch["images"].shape for batch in later.as_numpy_iterator()] == shapes[13:]
    other = multi_scale(numbered_batches(40), sides, every=4, seed=2)
    assert [batch["images"].shape for batch in other.as_numpy_iterator()] != shapes


def test_errors():
    with pytest.raises(ValueError, match=r"at least one; received: \[\]"):
        multi_scale(numbered_batches(1), [])
