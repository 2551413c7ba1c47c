"""Batches of pictures and boxes for training and evaluation."""

import tensorflow as tf

from kerasvision.data import pictures


def steps_per_epoch(dataset, batch_size, *, shard_count=1):
    """Returns the number of batches that `batches(..., drop_remainder=True)` makes of an epoch.

    Args:
        dataset: `DetectionDataset`.
        batch_size: pictures in a batch of one shard.
        shard_count: number of shards.

    Raises:
        ValueError: the data set is too small for one batch.
    """
    steps = dataset.num_examples // shard_count // batch_size
    if steps < 1:
        raise ValueError(
            f"{dataset.name}: split {dataset.split!r} must fill a batch in each shard; received: "
            f"{dataset.num_examples} pictures for batch_size={batch_size}, "
            f"shard_count={shard_count}"
        )
    return steps


def batches(
    dataset,
    image_shape,
    batch_size,
    *,
    augmentation=None,
    shuffle=False,
    seed=0,
    first_epoch=0,
    epochs=1,
    shard_index=0,
    shard_count=1,
    drop_remainder=False,
    max_boxes=None,
):
    """Returns the batches of epochs `first_epoch` to `epochs - 1`, resumable at every epoch.

    Order and augmentation of epoch e depend on (seed, e) alone, so that a run resumed at
    `first_epoch` sees what an uninterrupted one would. Epochs do not share batches. Pictures are
    resized to `image_shape` without keeping their aspect ratio, as in SSD (arXiv:1512.02325).

    Args:
        dataset: `DetectionDataset`.
        image_shape: (height, width, 3) of the batches.
        batch_size: pictures in a batch of this shard.
        augmentation: optional callable of one picture: `augmentation({"images": (h, w, 3) uint8,
            "bounding_boxes": {"boxes" (N, 4), "labels" (N,)}}, seed=(2,) int64)` returns the same
            dictionary, the picture in `image_shape`.
        shuffle: whether every epoch has an order of its own.
        seed: int, of the order and the augmentation.
        first_epoch, epochs: range of epochs, as `initial_epoch` and `epochs` of `fit`.
        shard_index, shard_count: takes every `shard_count`-th picture of the (shuffled) epoch,
            from number `shard_index` on: the shards are disjoint. With `drop_remainder` they have
            as many batches each, without it they cover all pictures.
        drop_remainder: whether the pictures that do not fill a batch are left out of the epoch,
            or (one epoch only) make a last, smaller batch.
        max_boxes: N of the batches; None: `dataset.max_boxes`.

    Returns:
        A `tf.data.Dataset` of dictionaries: "images" (B, height, width, 3) in 0..255, uint8 or as
        the augmentation returns them; "bounding_boxes": "boxes" (B, N, 4) float32 rel_yxyx and
        "labels" (B, N) int32 from 0, padded with boxes 0 and labels -1; "image_ids" (B,) int64.

    Raises:
        ValueError: too few pictures for a batch, several epochs without `drop_remainder`, or
            `max_boxes` is too small.
    """
    height, width, _ = image_shape
    max_boxes = dataset.max_boxes if max_boxes is None else max_boxes
    if max_boxes < dataset.max_boxes:
        raise ValueError(
            f"{dataset.name}: max_boxes must be {dataset.max_boxes} or more, the most boxes of a "
            f"picture in split {dataset.split!r}; received: {max_boxes}"
        )
    if not 0 <= shard_index < shard_count:
        raise ValueError(f"shard_index must be in [0, {shard_count}); received: {shard_index}")
    if epochs - first_epoch > 1 and not drop_remainder:
        raise ValueError(
            "several epochs need drop_remainder=True, else they would share batches; received: "
            f"first_epoch={first_epoch}, epochs={epochs}"
        )
    if drop_remainder:
        steps = steps_per_epoch(dataset, batch_size, shard_count=shard_count)
        pictures_per_epoch = steps * batch_size
    else:
        pictures_per_epoch = len(range(shard_index, dataset.num_examples, shard_count))

    def examples_of(epoch):
        shuffle_seed = None
        if shuffle:
            shuffle_seed = tf.random.stateless_uniform(
                (), seed=[seed, epoch], maxval=tf.int64.max, dtype=tf.int64
            )
        examples = dataset.encoded_examples(
            shuffle_seed, shard_index=shard_index, shard_count=shard_count
        )
        return examples.take(pictures_per_epoch)

    def prepare(running_index, example):
        # Twice the size asked for leaves the augmentation room to crop.
        image = pictures.decode(example["encoded"], at_least=(2 * height, 2 * width))
        padding = max_boxes - tf.shape(example["labels"])[0]
        boxes = tf.pad(example["boxes"], [[0, padding], [0, 0]])
        labels = tf.pad(example["labels"], [[0, padding]], constant_values=-1)
        inputs = {
            "images": image,
            "bounding_boxes": {
                "boxes": tf.ensure_shape(boxes, (max_boxes, 4)),
                "labels": tf.ensure_shape(labels, (max_boxes,)),
            },
        }
        if augmentation is None:
            resized = tf.image.resize(image, (height, width), antialias=True)
            inputs["images"] = tf.cast(tf.round(resized), tf.uint8)
        else:
            # Pictures of all shards and epochs are numbered through, so no two share a seed.
            number = running_index * shard_count + shard_index
            inputs = augmentation(inputs, seed=tf.stack([tf.cast(seed, tf.int64), number]))
        inputs["images"] = tf.ensure_shape(inputs["images"], image_shape)
        inputs["image_ids"] = example["image_id"]
        return inputs

    examples = tf.data.Dataset.range(first_epoch, epochs).flat_map(examples_of)
    running_indices = tf.data.Dataset.counter(first_epoch * pictures_per_epoch)
    batched = (
        tf.data.Dataset.zip(running_indices, examples)
        .map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .batch(batch_size, drop_remainder=drop_remainder)
        .prefetch(tf.data.AUTOTUNE)
    )
    picture_count = pictures_per_epoch * max(0, epochs - first_epoch)
    return batched.apply(tf.data.experimental.assert_cardinality(-(-picture_count // batch_size)))
