"""Region proposal networks (Ren et al. 2015, "Faster R-CNN", section 3.1).

Where might an object be, of whatever class? A small network slides over the features of the
picture. At each place it tells for some reference boxes, the anchors, whether there is an object,
and how it is placed. The best boxes are the proposals of the detectors with two stages.
"""

import keras
from keras import layers, ops

from kerasvision.ops import boxes as box_ops
from kerasvision.ops import matching
from kerasvision.ops.nms import labelled_non_max_suppression
from kerasvision.ops.sampling import balanced_sampling
from kerasvision.training.strategy import replica_sum


def region_proposal_network(images, maps, anchors_per_cell, filters):
    """The network behind a backbone: 3x3 convolution, then two 1x1, the same on all maps.

    Ren et al. 2015, figure 3, on a pyramid Lin et al. 2017, section 4.1. Objectness is one logit
    for each anchor, where the paper has two for a softmax ("alternatively, one may use logistic
    regression"). With 256 channels and 3 anchors it has 593,935 parameters.

    Args:
        images: the backbone's input.
        maps: dict of "stride16", … to the maps of the backbone that proposals are made from.
        anchors_per_cell: k.
        filters: of the 3x3 convolution.

    Returns:
        functional `keras.Model` from images to `maps` and to "objectness" (B, A) and
        "anchor_offsets" (B, A, 4), float32: of A anchors in the order of `ops.anchors`.
    """
    normal = keras.initializers.RandomNormal(stddev=0.01)
    hidden = layers.Conv2D(
        filters, 3, padding="same", activation="relu", kernel_initializer=normal, name="rpn_conv"
    )
    objectness = layers.Conv2D(anchors_per_cell, 1, kernel_initializer=normal, name="rpn_logits")
    offsets = layers.Conv2D(4 * anchors_per_cell, 1, kernel_initializer=normal, name="rpn_offsets")
    features = [hidden(x) for x in maps.values()]
    # Box arithmetic wants full precision whatever the convolutions run in.
    rows = [layers.Reshape((-1,), dtype="float32")(objectness(x)) for x in features]
    box_rows = [layers.Reshape((-1, 4), dtype="float32")(offsets(x)) for x in features]
    if len(maps) > 1:
        rows = [layers.Concatenate(axis=1, dtype="float32")(rows)]
        box_rows = [layers.Concatenate(axis=1, dtype="float32")(box_rows)]
    outputs = {**maps, "objectness": rows[0], "anchor_offsets": box_rows[0]}
    return keras.Model(images, outputs, name="network")


def assign_anchors(anchors, boxes, labels, inside_only=False):
    """Which object does each anchor answer for (section 3.1.2).

    Positive is an anchor with an IoU of at least 0.7 with an object, or the highest that this
    object has with any; background one with less than 0.3 with all.

    Args:
        anchors: (A, 4) center form.
        boxes: (B, N, 4) of the objects.
        labels: (B, N), -1 = padding. Degenerate boxes match nothing.
        inside_only: whether anchors across the picture's border are ignored (section 3.3);
            pyramids train them as well (Lin et al. 2017, section 5.1).

    Returns:
        (B, A) int32: the object's row, `matching.BACKGROUND` or `matching.IGNORED`.
    """
    corners = box_ops.to_corner_form(anchors)
    iou = box_ops.iou(boxes, ops.expand_dims(corners, 0))
    iou = ops.where(ops.expand_dims(labels, -1) >= 0, iou, 0.0)
    if not inside_only:
        return matching.arg_max_matching(iou, 0.7, (0.0, 0.3), force_match=True)
    inside = ops.all(ops.logical_and(corners >= 0.0, corners <= 1.0), axis=-1)
    iou = ops.where(inside, iou, 0.0)
    matches = matching.arg_max_matching(iou, 0.7, (0.0, 0.3), force_match=True)
    return ops.where(inside, matches, matching.IGNORED)


def region_proposal_losses(
    objectness, offsets, anchors, boxes, matches, seed, num_samples=256, beta=1 / 9
):
    """The two terms of equation 1, over a sample of anchors.

    Of each picture `num_samples` anchors are drawn, half of them positive if there are as many
    (section 3.1.3). Both terms are divided by the number of those drawn, so that they weigh about
    the same, as in the paper with its lambda of 10.

    Args:
        objectness: (B, A) logits.
        offsets: (B, A, 4).
        anchors: (A, 4) center form.
        boxes: (B, N, 4) of the objects.
        matches: (B, A), as from `assign_anchors`.
        seed: as of `balanced_sampling`.
        num_samples: anchors drawn of a picture.
        beta: distance up to which the regression loss is quadratic.

    Returns:
        two float32 scalars: the cross-entropy of the objectness, and smooth L1 of the positive
        anchors' offsets.
    """
    num_samples = min(num_samples, anchors.shape[0])
    indices, counted = balanced_sampling(matches, num_samples, 0.5, seed)
    number = ops.maximum(replica_sum(ops.sum(ops.cast(counted, "float32"))), 1.0)

    matches = ops.take_along_axis(matches, indices, axis=1)
    positive = ops.logical_and(counted, matches >= 0)
    logits = ops.take_along_axis(objectness, indices, axis=1)
    cross_entropy = ops.softplus(logits) - logits * ops.cast(positive, "float32")
    classification = ops.sum(ops.where(counted, cross_entropy, 0.0)) / number

    row = ops.expand_dims(ops.maximum(matches, 0), -1)
    targets = box_ops.encode(
        ops.take_along_axis(boxes, row, axis=1), ops.take(anchors, indices, axis=0), (1.0, 1.0)
    )
    offsets = ops.take_along_axis(offsets, ops.expand_dims(indices, -1), axis=1)
    distances = ops.sum(box_ops.smooth_l1(offsets - targets, beta), axis=-1)
    return classification, ops.sum(ops.where(positive, distances, 0.0)) / number


def propose(
    objectness,
    offsets,
    anchors,
    image_size,
    candidates=1000,
    number=1000,
    iou_threshold=0.7,
    min_size=1.0,
    suppress=labelled_non_max_suppression,
):
    """The best boxes that overlap little (section 3.3).

    Of each map the best candidates are moved by their offsets and cut off at the picture's border;
    tiny ones are dropped. On each map by itself, boxes that overlap better ones are suppressed. The
    best of all maps together are the proposals. They have no gradient.

    Args:
        objectness: (B, A) logits.
        offsets: (B, A, 4).
        anchors: list of the anchors of each map, (A_i, 4) center form.
        image_size: (height, width) of the picture in pixels.
        candidates: of each map.
        number: K of proposals, at most as many as there are candidates.
        iou_threshold: of the suppression.
        min_size: smallest height and width of a proposal, in pixels.
        suppress: `labelled_non_max_suppression`, or what is like it.

    Returns:
        boxes (B, K, 4), best first; and (B, K) bool: False for padding, whose boxes are 0.
    """
    objectness, offsets = ops.stop_gradient(objectness), ops.stop_gradient(offsets)
    scores, boxes, levels = [], [], []
    start = 0
    for level, references in enumerate(anchors):
        stop = start + len(references)
        best, index = ops.top_k(objectness[:, start:stop], min(candidates, len(references)))
        moved = ops.take_along_axis(offsets[:, start:stop], index[:, :, None], axis=1)
        moved = box_ops.decode(moved, ops.take(references, index, axis=0), (1.0, 1.0))
        scores.append(best)
        boxes.append(box_ops.clip(moved))
        levels.append(ops.full_like(index, level, dtype="int32"))
        start = stop
    scores, boxes, levels = (ops.concatenate(x, axis=1) for x in (scores, boxes, levels))

    ymin, xmin, ymax, xmax = ops.unstack(boxes, 4, axis=-1)
    large = ops.logical_and(
        (ymax - ymin) * image_size[0] >= min_size, (xmax - xmin) * image_size[1] >= min_size
    )
    kept = suppress(
        boxes,
        scores,
        ops.where(large, levels, -1),
        iou_threshold,
        score_threshold=-float("inf"),
        max_detections=min(number, scores.shape[1]),
    )
    return kept["boxes"], kept["labels"] >= 0
