"""Batches whose pictures without boxes wait until a detector has learnt what a box is."""

import tensorflow as tf


def boxes_first(batches, steps, *, first_step=0):
    """Takes the labels out of pictures without boxes, for the first batches of a training.

    YOLO9000 (Redmon & Farhadi 2017, section 4) learns a class without boxes from the box that
    finds it most probable. Until boxes lie on objects that is any box, on anything.

    Args:
        batches: a `tf.data.Dataset` of batch dictionaries with "has_boxes" (B,) bool.
        steps: number of batches that teach by boxes alone.
        first_step: number of the first batch, of a run that goes on.

    Returns:
        A `tf.data.Dataset` of the same dictionaries; in the batches before number `steps`, labels
        of pictures without boxes are -1, padding.
    """

    def hold_back(step, batch):
        objects = batch["bounding_boxes"]
        counts = batch["has_boxes"][:, None] | (step >= steps)
        labels = tf.where(counts, objects["labels"], -1)
        return {**batch, "bounding_boxes": {**objects, "labels": labels}}

    return batches.enumerate(start=first_step).map(hold_back, num_parallel_calls=tf.data.AUTOTUNE)
