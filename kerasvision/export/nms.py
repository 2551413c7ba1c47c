"""Non-maximum suppression by the kernel that LiteRT has built in.

The functions of `kerasvision.ops.nms` are loops for XLA. On phones nothing comes near LiteRT's own
NON_MAX_SUPPRESSION_V4: graphs that are converted to LiteRT call these functions instead, which
take the same, decide the same and return the same.
"""

import math

import numpy as np
import tensorflow as tf


def batched_non_max_suppression(
    boxes, scores, iou_threshold=0.5, score_threshold=0.0, max_detections=100, candidates=None
):
    """`kerasvision.ops.nms.batched_non_max_suppression` of one picture, for LiteRT.

    Args:
        boxes: (1, A, 4) corner form, within [0, 1].
        scores: (1, A, C) float.
        iou_threshold, score_threshold, max_detections, candidates: as there.

    Returns:
        The same dict with a batch of 1.
    """
    num_classes = scores.shape[2]
    pairs = tf.reshape(scores, (1, -1))
    candidates = min(candidates or pairs.shape[1], pairs.shape[1])
    top_scores, index = tf.math.top_k(pairs, candidates)
    return _suppress_sorted(
        tf.gather(boxes[0], index // num_classes),
        top_scores,
        index % num_classes,
        math.isqrt(num_classes - 1) + 1,
        iou_threshold,
        score_threshold,
        max_detections,
    )


def labelled_non_max_suppression(
    boxes, scores, labels, iou_threshold=0.5, score_threshold=0.0, max_detections=100
):
    """`kerasvision.ops.nms.labelled_non_max_suppression` of one picture, for LiteRT.

    Args:
        boxes: (1, N, 4) corner form, within [0, 1].
        scores: (1, N) float.
        labels: (1, N) int32; a negative one is padding.
        iou_threshold, score_threshold, max_detections: as there.

    Returns:
        The same dict with a batch of 1.
    """
    scores = tf.where(labels >= 0, scores, -math.inf)
    top_scores, index = tf.math.top_k(scores, scores.shape[1])
    highest = tf.cast(tf.maximum(tf.reduce_max(labels), 0), tf.float32)
    return _suppress_sorted(
        tf.gather(boxes[0], index),
        top_scores,
        tf.gather(labels[0], index),
        tf.cast(tf.sqrt(highest), tf.int32) + 1,
        iou_threshold,
        score_threshold,
        max_detections,
    )


def _suppress_sorted(boxes, scores, labels, side, iou_threshold, score_threshold, max_detections):
    """Detections of boxes (1, N, 4) that come in the order of their scores (1, N).

    Labels are below the square of `side`.
    """
    boxes, scores, labels = boxes[0], scores[0], labels[0]
    num_boxes = scores.shape[0]
    max_detections = min(max_detections, num_boxes)
    finite = tf.reduce_all(tf.abs(boxes) <= tf.float32.max, axis=-1)
    candidate = tf.logical_and(scores > score_threshold, scores < math.inf)
    valid = tf.logical_and(finite, candidate)

    # Every class has its own unit square of a chessboard: no overlap between classes.
    square = tf.cast(tf.stack([labels // side, labels % side], axis=-1), tf.float32)
    apart = boxes + tf.concat([square, square], axis=-1)
    # LiteRT picks a box again and again until the box suppresses itself, which one without area
    # never does. Such boxes overlap nothing: each gets a square of its own below the chessboard.
    rank = tf.range(num_boxes, dtype=tf.float32)
    below = tf.cast(side, tf.float32) + rank
    own_square = tf.stack([below, rank * 0.0, below + 1.0, rank * 0.0 + 1.0], axis=-1)
    y1, x1, y2, x2 = tf.unstack(apart, axis=-1)
    alone = tf.abs(y1 - y2) * tf.abs(x1 - x2) <= 0.0
    if iou_threshold >= 1.0:
        alone = tf.ones_like(alone)

    kept, count = tf.raw_ops.NonMaxSuppressionV4(
        boxes=tf.where(alone[:, None], own_square, apart),
        # Ranks in place of scores, so that equal scores keep their order.
        scores=tf.where(valid, num_boxes - rank, 0.0),
        max_output_size=max_detections,
        # LiteRT suppresses from the threshold on, kerasvision and the papers above it.
        iou_threshold=min(float(np.nextafter(np.float32(iou_threshold), np.float32(2))), 1.0),
        score_threshold=0.0,
        pad_to_max_output_size=True,
    )
    filled = tf.range(max_detections) < count
    return {
        "boxes": tf.where(filled[:, None], tf.gather(boxes, kept), 0.0)[None],
        "scores": tf.where(filled, tf.gather(scores, kept), 0.0)[None],
        "labels": tf.where(filled, tf.gather(labels, kept), -1)[None],
        "count": count[None],
    }
