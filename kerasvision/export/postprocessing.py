"""SSD's decoding and non-maximum suppression, from LiteRT's built-in operators."""

import numpy as np
import tensorflow as tf


def detection_postprocessing(model):
    """Decoding and non-maximum suppression of a detector, for LiteRT.

    Computes what `model.detector` does after `model.network`, for one picture, through the
    operators that LiteRT is fast at.

    Args:
        model: detector with `default_boxes` (A, 4), `variances`, `num_classes` C,
            `score_threshold`, `iou_threshold`, `max_detections` and `pre_nms_candidates`.

    Returns:
        `tf.function` from "offsets" (1, A, 4) and "logits" (1, A, C + 1), float32, to a dict of
        float32 tensors under MediaPipe's names: "location" (1, K, 4), rel_yxyx in [0, 1];
        "category" (1, K), labels; "score" (1, K), sorted; "number of detections" (1,). After
        that many detections all is 0.
    """
    default_boxes = np.asarray(model.default_boxes, "float32")
    num_boxes, num_classes = len(default_boxes), model.num_classes
    candidates = min(model.pre_nms_candidates, num_boxes * num_classes)
    max_detections = min(model.max_detections, candidates)

    @tf.function(
        input_signature=[
            tf.TensorSpec((1, num_boxes, 4), tf.float32, name="offsets"),
            tf.TensorSpec((1, num_boxes, num_classes + 1), tf.float32, name="logits"),
        ],
        autograph=False,
    )
    def postprocess(offsets, logits):
        scores = tf.reshape(tf.nn.softmax(logits)[0, :, 1:], [-1])
        scores, index = tf.math.top_k(scores, candidates)
        labels = index % num_classes
        boxes = index // num_classes
        boxes = _decode(tf.gather(offsets[0], boxes), tf.gather(default_boxes, boxes), model)

        # Classes side by side on a square grid: boxes of different classes do not overlap,
        # and the coordinates stay as small, and so as exact, as can be.
        side = int(np.ceil(np.sqrt(num_classes)))
        row, column = tf.cast(labels // side, tf.float32), tf.cast(labels % side, tf.float32)
        # LiteRT takes equal scores in any order, and suppresses from the threshold on. Ranks
        # instead of scores and the next larger threshold make it do as `model.detector` does.
        ranks = tf.range(candidates, 0, -1, dtype=tf.float32)
        kept, count = tf.raw_ops.NonMaxSuppressionV4(
            boxes=boxes + tf.stack([row, column, row, column], axis=1),
            scores=tf.where(scores > model.score_threshold, ranks, 0.0),
            max_output_size=max_detections,
            iou_threshold=np.nextafter(np.float32(model.iou_threshold), np.float32(2.0)),
            score_threshold=0.0,
            pad_to_max_output_size=True,
        )
        found = tf.cast(tf.range(max_detections) < count, tf.float32)
        return {
            "location": (tf.gather(boxes, kept) * found[:, None])[None],
            "category": (tf.cast(tf.gather(labels, kept), tf.float32) * found)[None],
            "score": (tf.gather(scores, kept) * found)[None],
            "number of detections": tf.cast(count, tf.float32)[None],
        }

    return postprocess


def _decode(offsets, default_boxes, model):
    """`model.decode` of the offsets of candidates and their default boxes, both (K, 4)."""
    center_variance, size_variance = model.variances
    center = default_boxes[:, :2] + center_variance * offsets[:, :2] * default_boxes[:, 2:]
    # As `kerasvision.ops.boxes.decode`: no box grows beyond 1000 times its default box.
    size = tf.exp(tf.minimum(size_variance * offsets[:, 2:], 6.907755)) * default_boxes[:, 2:]
    return tf.clip_by_value(tf.concat([center - size / 2, center + size / 2], axis=1), 0.0, 1.0)
