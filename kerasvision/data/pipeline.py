"""Batches of pictures with boxes, classes or labels of pixels, for training and evaluation."""

import numpy as np
import tensorflow as tf

from kerasvision.data import pictures, segmentation


def steps_per_epoch(dataset, batch_size, *, shard_count=1):
    """Returns the number of batches in an epoch that leaves out the pictures of no full batch.

    Args:
        dataset: `PictureDataset` of any kind.
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
            dictionary, the picture in `image_shape`; masks and keypoints are in it if the data
            set has them.
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
        "labels" (B, N) int32 from 0, padded with boxes 0 and labels -1; "image_ids" (B,) int64;
        and, if the data set has them, "segmentation_masks" (B, N, 56, 56) uint8 and "keypoints"
        (B, N, P, 3) float32, padded with 0, and "has_boxes" (B,) bool.

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

    def prepare(example, picture_seed):
        # Twice the size asked for leaves the augmentation room to crop.
        image = pictures.decode(example["encoded"], at_least=(2 * height, 2 * width))

        def padded(name, value=0):
            values = example[name]
            padding = [[0, max_boxes - tf.shape(values)[0]]] + [[0, 0]] * (values.ndim - 1)
            values = tf.pad(values, padding, constant_values=value)
            return tf.ensure_shape(values, (max_boxes, *values.shape[1:]))

        inputs = {
            "images": image,
            "bounding_boxes": {"boxes": padded("boxes"), "labels": padded("labels", -1)},
        }
        for name in ("segmentation_masks", "keypoints"):
            if name in example:
                inputs[name] = padded(name)
        if "has_boxes" in example:
            inputs["has_boxes"] = example["has_boxes"]
        if augmentation is None:
            resized = tf.image.resize(image, (height, width), antialias=True)
            inputs["images"] = tf.cast(tf.round(resized), tf.uint8)
        else:
            inputs = augmentation(inputs, seed=picture_seed)
        inputs["images"] = tf.ensure_shape(inputs["images"], image_shape)
        inputs["image_ids"] = example["image_id"]
        return inputs

    return _batches(
        dataset,
        prepare,
        batch_size,
        shuffle=shuffle,
        seed=seed,
        first_epoch=first_epoch,
        epochs=epochs,
        shard_index=shard_index,
        shard_count=shard_count,
        drop_remainder=drop_remainder,
    )


def classification_batches(
    dataset,
    image_shape,
    batch_size,
    *,
    augmentation=None,
    crop_fraction=1.0,
    shuffle=False,
    seed=0,
    first_epoch=0,
    epochs=1,
    shard_index=0,
    shard_count=1,
    drop_remainder=False,
):
    """Returns the batches of epochs `first_epoch` to `epochs - 1`, resumable at every epoch.

    Order and augmentation of epoch e depend on (seed, e) alone, as in `batches`. Without
    augmentation a picture becomes its centre crop, see `centre_crop`.

    Args:
        dataset: `ClassificationDataset`.
        image_shape: (height, width, 3) of the batches.
        batch_size: pictures in a batch of this shard.
        augmentation: optional `ClassificationAugmentation`, or an object like it:
            `augmentation(image (h, w, 3) uint8, seed=(2,) int64)` returns one picture in
            `image_shape`, and `augmentation.mix(images, labels, seed=(2,) int64)` a whole batch
            and its labels, (B,) int32 in and, where classes are mixed, (B, C) float32 out.
        crop_fraction: share of the resized picture's shorter side that the centre crop keeps.
        shuffle: whether every epoch has an order of its own.
        seed: int, of the order and the augmentation.
        first_epoch, epochs: range of epochs, as `initial_epoch` and `epochs` of `fit`.
        shard_index, shard_count: takes every `shard_count`-th picture of the (shuffled) epoch,
            from number `shard_index` on, as in `batches`.
        drop_remainder: whether the pictures that do not fill a batch are left out of the epoch,
            or (one epoch only) make a last, smaller batch.

    Returns:
        A `tf.data.Dataset` of dictionaries: "images" (B, height, width, 3) in 0..255, uint8 or
        as the augmentation returns them; "labels" (B,) int32 from 0, or (B, C) float32 as the
        augmentation returns them; "image_ids" (B,) int64.

    Raises:
        ValueError: too few pictures for a batch, several epochs without `drop_remainder`, or
            `crop_fraction` is not within (0, 1].
    """
    if not 0.0 < crop_fraction <= 1.0:
        raise ValueError(f"crop_fraction must be within (0, 1]; received: {crop_fraction}")
    height, width, _ = image_shape

    def prepare(example, picture_seed):
        # Twice the size asked for leaves the augmentation room to crop.
        side = 2 * max(height, width)
        image = pictures.decode(example["encoded"], at_least=(side, side))
        if np.any(dataset.quarter_turns):
            image = tf.image.rot90(image, example["quarter_turns"])
        if augmentation is None:
            image = centre_crop(image, (height, width), crop_fraction)
        else:
            image = augmentation(image, seed=picture_seed)
        return {
            "images": tf.ensure_shape(image, image_shape),
            "labels": example["label"],
            "image_ids": example["image_id"],
        }

    def mix(batch, batch_seed):
        images, labels = augmentation.mix(batch["images"], batch["labels"], seed=batch_seed)
        return {**batch, "images": images, "labels": labels}

    return _batches(
        dataset,
        prepare,
        batch_size,
        None if augmentation is None else mix,
        shuffle=shuffle,
        seed=seed,
        first_epoch=first_epoch,
        epochs=epochs,
        shard_index=shard_index,
        shard_count=shard_count,
        drop_remainder=drop_remainder,
    )


def segmentation_batches(
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
):
    """Returns the batches of epochs `first_epoch` to `epochs - 1`, resumable at every epoch.

    Order and augmentation of epoch e depend on (seed, e) alone, as in `batches`. Without
    augmentation a picture and its labels are resized, see `resize_labelled`.

    Args:
        dataset: `SegmentationDataset`.
        image_shape: (height, width, 3) of the batches.
        batch_size: pictures in a batch of this shard.
        augmentation: optional `SegmentationAugmentation`, or a callable like it:
            `augmentation({"images": (h, w, 3) uint8, "segmentation_masks": (h, w) int32},
            seed=(2,) int64)` returns the same dictionary, all of it in `image_shape`;
            "pixel_weights" (h, w) float32 are in it if the data set has them.
        shuffle: whether every epoch has an order of its own.
        seed: int, of the order and the augmentation.
        first_epoch, epochs: range of epochs, as `initial_epoch` and `epochs` of `fit`.
        shard_index, shard_count: takes every `shard_count`-th picture of the (shuffled) epoch,
            from number `shard_index` on, as in `batches`.
        drop_remainder: whether the pictures that do not fill a batch are left out of the epoch,
            or (one epoch only) make a last, smaller batch.

    Returns:
        A `tf.data.Dataset` of dictionaries: "images" (B, height, width, 3) in 0..255, uint8 or
        as the augmentation returns them; "segmentation_masks" (B, height, width) int32, classes
        from 0, -1 = void; "image_ids" (B,) int64; and, if the data set has them, "pixel_weights"
        (B, height, width) float32.

    Raises:
        ValueError: too few pictures for a batch, or several epochs without `drop_remainder`.
    """
    size = tuple(image_shape[:2])

    def prepare(example, picture_seed):
        inputs = segmentation.decode(example)
        if augmentation is None:
            inputs = resize_labelled(inputs, size)
        else:
            inputs = augmentation(inputs, seed=picture_seed)
        inputs = {
            name: tf.ensure_shape(values, image_shape if name == "images" else size)
            for name, values in inputs.items()
        }
        return {**inputs, "image_ids": example["image_id"]}

    return _batches(
        dataset,
        prepare,
        batch_size,
        shuffle=shuffle,
        seed=seed,
        first_epoch=first_epoch,
        epochs=epochs,
        shard_index=shard_index,
        shard_count=shard_count,
        drop_remainder=drop_remainder,
    )


def translation_batches(
    dataset,
    image_shape,
    batch_size,
    *,
    enlarge=1.0,
    flip=False,
    shuffle=False,
    seed=0,
    first_epoch=0,
    epochs=1,
    shard_index=0,
    shard_count=1,
    drop_remainder=False,
):
    """Returns the batches of epochs `first_epoch` to `epochs - 1`, resumable at every epoch.

    Order and augmentation of epoch e depend on (seed, e) alone, as in `batches`. Pictures are
    resized without keeping their aspect ratio, then, where they are enlarged, cropped at random;
    those of a pair alike.

    Args:
        dataset: `TranslationDataset`.
        image_shape: (height, width, 3) of the batches.
        batch_size: examples in a batch of this shard.
        enlarge: factor of the size that crops are cut from; 286 / 256 in pix2pix and CycleGAN.
        flip: whether to swap left and right in half of the examples.
        shuffle: whether every epoch has an order of its own.
        seed: int, of the order and the augmentation.
        first_epoch, epochs: range of epochs, as `initial_epoch` and `epochs` of `fit`.
        shard_index, shard_count: takes every `shard_count`-th example of the (shuffled) epoch,
            from number `shard_index` on, as in `batches`.
        drop_remainder: whether the examples that do not fill a batch are left out of the epoch,
            or (one epoch only) make a last, smaller batch.

    Returns:
        A `tf.data.Dataset` of dictionaries: "x" and "y" (B, height, width, 3) uint8, "image_ids"
        (B,) int64.

    Raises:
        ValueError: too few pictures for a batch, several epochs without `drop_remainder`, or
            `enlarge` is below 1.
    """
    if enlarge < 1.0:
        raise ValueError(f"enlarge must be 1 or more; received: {enlarge}")
    height, width, _ = image_shape
    larger = (round(enlarge * height), round(enlarge * width))

    def prepare(example, picture_seed):
        decoded = dataset.decode(example)
        seeds = tf.unstack(tf.random.experimental.stateless_split(picture_seed, 2))
        prepared = {"image_ids": example["image_id"]}
        for name, own_seed in zip("xy", [seeds[0], seeds[0] if dataset.paired else seeds[1]]):
            image = tf.image.resize(decoded[name], larger, antialias=True)
            image = tf.image.stateless_random_crop(image, image_shape, own_seed)
            if flip:
                image = tf.image.stateless_random_flip_left_right(image, own_seed)
            prepared[name] = tf.cast(tf.round(image), tf.uint8)
        return prepared

    return _batches(
        dataset,
        prepare,
        batch_size,
        shuffle=shuffle,
        seed=seed,
        first_epoch=first_epoch,
        epochs=epochs,
        shard_index=shard_index,
        shard_count=shard_count,
        drop_remainder=drop_remainder,
    )


def picture_batches(
    dataset,
    image_shape,
    batch_size,
    *,
    enlarge=1.0,
    flip=False,
    shuffle=False,
    seed=0,
    first_epoch=0,
    epochs=1,
    shard_index=0,
    shard_count=1,
    drop_remainder=False,
):
    """Returns batches of pictures alone; arguments as of `translation_batches`.

    Pictures are resized until they just cover the (enlarged) size, in their own aspect ratio, and
    cropped at random.

    Args:
        dataset: `kerasvision.data.translation.Pictures`.

    Returns:
        A `tf.data.Dataset` of dictionaries: "images" (B, height, width, 3) uint8, "image_ids"
        (B,) int64.

    Raises:
        ValueError: as `translation_batches`.
    """
    if enlarge < 1.0:
        raise ValueError(f"enlarge must be 1 or more; received: {enlarge}")
    least = tf.constant([enlarge * side for side in image_shape[:2]], tf.float32)

    def prepare(example, picture_seed):
        image = dataset.decode(example["encoded"])
        size = tf.cast(tf.shape(image)[:2], tf.float32)
        size = tf.cast(tf.math.ceil(size * tf.reduce_max(least / size)), tf.int32)
        image = tf.image.resize(image, size, antialias=True)
        image = tf.image.stateless_random_crop(image, image_shape, picture_seed)
        if flip:
            image = tf.image.stateless_random_flip_left_right(image, picture_seed)
        image = tf.saturate_cast(tf.round(image), tf.uint8)
        return {"images": image, "image_ids": example["image_id"]}

    return _batches(
        dataset,
        prepare,
        batch_size,
        shuffle=shuffle,
        seed=seed,
        first_epoch=first_epoch,
        epochs=epochs,
        shard_index=shard_index,
        shard_count=shard_count,
        drop_remainder=drop_remainder,
    )


def resize_labelled(example, size):
    """Resizes a picture and all that its pixels have, without keeping the aspect ratio.

    Args:
        example: dictionary of "images" (h, w, 3) uint8, "segmentation_masks" (h, w) int32 and
            optional "pixel_weights" (h, w) float32.
        size: (height, width) of the result, two integers.

    Returns:
        The same dictionary: the picture uint8, bilinear and antialiased; of all else the value
        at the middle of each pixel.
    """
    resized = {
        name: tf.image.resize(values[..., None], size, "nearest")[..., 0]
        for name, values in example.items()
        if name != "images"
    }
    image = tf.image.resize(example["images"], size, antialias=True)
    return {"images": tf.cast(tf.round(image), tf.uint8), **resized}


def centre_crop(image, size, crop_fraction=1.0):
    """Resizes a picture so that a crop of `size` keeps a fraction of it, and cuts that out.

    The aspect ratio stays. With a square size of 224 and a fraction of 0.875 this is the
    evaluation of ImageNet: the shorter side becomes 256 pixels, the centre 224 x 224 are kept.

    Args:
        image: (h, w, 3) uint8.
        size: (height, width) of the crop, two integers.
        crop_fraction: largest share of the picture's height or width that is kept.

    Returns:
        (height, width, 3) uint8 tensor.
    """
    source = tf.shape(image)[:2]
    scale = tf.reduce_max(tf.constant(size, tf.float64) / tf.cast(source, tf.float64))
    resized = tf.round(tf.cast(source, tf.float64) * scale / crop_fraction)
    resized = tf.maximum(tf.cast(resized, tf.int32), size)
    top_left = (resized - size) // 2

    def scaled():
        # What tf.image.resize(antialias=True) does, for the pixels of the crop alone: a picture
        # of 4000 x 2 pixels would take gigabytes as a whole.
        crop = tf.raw_ops.ScaleAndTranslate(
            images=tf.cast(image[None], tf.float32),
            size=size,
            scale=tf.cast(resized, tf.float32) / tf.cast(source, tf.float32),
            translation=tf.cast(-top_left, tf.float32),
            kernel_type="triangle",
            antialias=True,
        )
        return tf.cast(tf.round(crop[0]), tf.uint8)

    # The same without resampling, of which small pictures gain a third of the pipeline's time.
    def unscaled():
        return tf.slice(image, [*tf.unstack(top_left), 0], [*size, 3])

    return tf.cond(tf.reduce_all(resized == source), unscaled, scaled)


def _batches(
    dataset,
    prepare,
    batch_size,
    mix=None,
    *,
    shuffle,
    seed,
    first_epoch,
    epochs,
    shard_index,
    shard_count,
    drop_remainder,
):
    """Returns the batches of a range of epochs, for the arguments of `batches`.

    Args:
        prepare: callable of an encoded example and a (2,) int64 seed of its own; returns a
            dictionary of tensors of static shape.
        mix: optional callable of a batch of these and a (2,) int64 seed of its own; returns the
            batch to use.
    """
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
        steps = -(-pictures_per_epoch // batch_size)

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

    def numbered_seed(running_index):
        # Pictures of all shards and epochs are numbered through, so no two share a seed.
        number = running_index * shard_count + shard_index
        return tf.stack([tf.cast(seed, tf.int64), number])

    examples = tf.data.Dataset.range(first_epoch, epochs).flat_map(examples_of)
    running_indices = tf.data.Dataset.counter(first_epoch * pictures_per_epoch)
    batched = (
        tf.data.Dataset.zip(running_indices, examples)
        .map(
            lambda index, example: prepare(example, numbered_seed(index)),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        .batch(batch_size, drop_remainder=drop_remainder)
    )
    if mix is not None:
        # Numbers below 0 seed no picture.
        running_indices = tf.data.Dataset.counter(first_epoch * steps)
        batched = tf.data.Dataset.zip(running_indices, batched).map(
            lambda index, batch: mix(batch, numbered_seed(-1 - index)),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
    return batched.prefetch(tf.data.AUTOTUNE).apply(
        tf.data.experimental.assert_cardinality(steps * max(0, epochs - first_epoch))
    )
