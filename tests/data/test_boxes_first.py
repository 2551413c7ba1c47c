import numpy as np
import tensorflow as tf

from kerasvision.data.boxes_first import boxes_first


def batches(count):
    return tf.data.Dataset.range(count).map(
        lambda i: {
            "images": tf.fill((3, 2, 2, 3), tf.cast(i, tf.uint8)),
            "bounding_boxes": {
                "boxes": tf.zeros((3, 2, 4)),
                "labels": tf.constant([[0, 4], [2, -1], [3, 1]]),
            },
            "has_boxes": tf.constant([True, False, True]),
        }
    )


def test_pictures_without_boxes_have_labels_from_a_step_on():
    early, late = [[0, 4], [-1, -1], [3, 1]], [[0, 4], [2, -1], [3, 1]]
    found = list(boxes_first(batches(4), 3).as_numpy_iterator())
    for i, batch in enumerate(found):
        expected = early if i < 3 else late
        np.testing.assert_array_equal(batch["bounding_boxes"]["labels"], expected)
        assert batch["has_boxes"].tolist() == [True, False, True] and batch["images"].max() == i
    resumed = boxes_first(batches(4).skip(2), 3, first_step=2).as_numpy_iterator()
    labels = [batch["bounding_boxes"]["labels"].tolist() for batch in resumed]
    assert labels == [early, late]
