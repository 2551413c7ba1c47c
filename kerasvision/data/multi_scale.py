"""Batches whose pictures change their size, for detectors that take any."""

import tensorflow as tf


def multi_scale(batches, sides, *, every=10, seed=0, first_step=0):
    """Resizes the pictures of batches to a side that changes now and then.

    YOLOv2's multi-scale training (Redmon & Farhadi 2017, section 2): every 10 batches another of
    the sides 320, 352, …, 608. Which one depends on the seed and the number of the batch alone, so
    that a run that goes on at `first_step` sees what an uninterrupted one would.

    Args:
        batches: a `tf.data.Dataset` of batch dictionaries; "images" (B, H, W, 3).
        sides: list of sides in pixels. Boxes, relative to the picture, stay as they are.
        every: number of batches of one side.
        seed: int.
        first_step: number of the first batch.

    Returns:
        A `tf.data.Dataset` of the same dictionaries, "images" (B, side, side, 3) float32.

    Raises:
        ValueError: no sides, or one below 1.
    """
    if not sides or min(sides) < 1:
        raise ValueError(f"sides must be numbers of pixels, at least one; received: {sides}")
    sides = tf.constant(sides, tf.int32)

    def resized(step, batch):
        place = tf.random.stateless_uniform(
            (), (seed, step // every), 0, tf.size(sides), dtype=tf.int32
        )
        images = tf.image.resize(batch["images"], tf.repeat(sides[place], 2), antialias=True)
        return {**batch, "images": images}

    return batches.enumerate(start=first_step).map(resized, num_parallel_calls=tf.data.AUTOTUNE)
