"""Posed objects: solids of the scenes, one a picture, with the rotation in which each is seen."""

import concurrent.futures

import numpy as np
import tensorflow as tf

from kerasvision.data.scenes import draw_object
from kerasvision.data.solids import KEYPOINT_NAMES, random_turn

# What looks the same, or nearly so, turned by these angles in the picture plane has no one pose.
SYMMETRIC = {"cube": "120 degrees", "ring": "any angle", "star": "72 degrees"}
POSED_CLASSES = tuple(name for name in KEYPOINT_NAMES if name not in SYMMETRIC)
SPLITS = {"train": 0, "val": 1, "test": 2}


class PosedObjects:
    """Pictures of objects in known poses, in memory.

    Args:
        name, split: as of `load_posed_objects`.
        class_names: list of str.
        images: (N, V, H, W, 3) uint8: N poses, drawn V times each, under another light, on
            another background, in other colours.
        labels: (N,) int32, the object, index into `class_names`.
        turns: (N, 3, 3) float32, rotation matrices from the model to the picture (x right, y up,
            z to the viewer).
    """

    def __init__(self, name, split, class_names, images, labels, turns):
        self.name, self.split, self.class_names = name, split, list(class_names)
        self.images, self.labels, self.turns = images, labels, turns
        self.num_examples = len(labels)


def load_posed_objects(name, split, poses, appearances=1, size=64, class_names=POSED_CLASSES):
    """Draws objects in random poses: any roll in the picture plane, yaw and pitch as in scenes.

    Yaw and pitch are within `solids.TURNS`; bodies of revolution have no yaw. Each class is one
    object, of fixed proportions; colours and textures tell nothing.

    Args:
        name: "scenes".
        split: "train", "val" or "test": each has poses of its own.
        poses: number of poses of each object.
        appearances: V, pictures of each pose.
        size: side of the pictures in pixels, at least 16.
        class_names: which objects.

    Returns:
        `PosedObjects`, the poses of an object one after the other.

    Raises:
        ValueError: another name, split or object, one without a pose of its own, or a size or
            number that is too small.
    """
    if name != "scenes":
        raise ValueError(f"dataset must be scenes, which tells the poses; received: {name}")
    if split not in SPLITS:
        raise ValueError(f"{name}: split must be one of: {', '.join(SPLITS)}; received: {split}")
    for class_name in class_names:
        if class_name in SYMMETRIC:
            raise ValueError(
                f"{name}: an object must look another way in each pose; received: {class_name}, "
                f"which looks the same turned by {SYMMETRIC[class_name]}"
            )
        if class_name not in POSED_CLASSES:
            raise ValueError(
                f"{name}: objects must be out of {', '.join(POSED_CLASSES)}; received: {class_name}"
            )
    if poses < 1 or appearances < 1 or size < 16:
        raise ValueError(
            f"{name}: poses and appearances must be 1 or more, size 16 or more; received: {poses}, "
            f"{appearances}, {size}"
        )
    labels = np.repeat(np.arange(len(class_names), dtype=np.int32), poses)
    turns = np.empty((len(labels), 3, 3))
    for place, label in enumerate(labels):
        # The objects are seeded by their own numbers: without one of them the others stay.
        number = POSED_CLASSES.index(class_names[label])
        rng = np.random.default_rng([SPLITS[split], number, place - label * poses])
        turns[place] = random_turn(class_names[label], rng, 180.0)
    images = np.empty((len(labels), appearances, size, size, 3), np.uint8)

    def draw(place):
        label = labels[place]
        number = POSED_CLASSES.index(class_names[label])
        for appearance in range(appearances):
            seed = [SPLITS[split], number, place - label * poses, appearance]
            images[place, appearance] = draw_object(
                class_names[label], 0, turns[place], seed, (size, size)
            )

    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(draw, range(len(labels))))
    return PosedObjects(name, split, class_names, images, labels, turns.astype(np.float32))


def pose_similarity(a, b):
    """The trace of R_a^T R_b, 1 + 2 cos of the angle between, of (N, 3, 3) and (M, 3, 3): (N, M)"""
    return a.reshape(-1, 9) @ b.reshape(-1, 9).T


def angles_between(a, b):
    """The angle of the rotation from a to b, in degrees (N,), of (N, 3, 3) each."""
    trace = np.einsum("nij,nij->n", np.float64(a), np.float64(b))
    return np.degrees(np.arccos(np.clip((trace - 1.0) / 2.0, -1.0, 1.0)))


def pose_batches(
    objects,
    objects_each,
    poses_each,
    *,
    steps_per_epoch,
    neighbours=8,
    seed=0,
    first_epoch=0,
    epochs=1,
):
    """Returns batches of P objects in K poses that come in twos, each drawn in two ways.

    Of each object K / 2 poses are drawn at random, and with each of them one of the `neighbours`
    nearest poses of the object. Batch s of epoch e depends on (seed, e, s) alone, so that a run
    resumed at `first_epoch` sees what an uninterrupted one would.

    Args:
        objects: `PosedObjects` of at least two appearances.
        objects_each: P, objects in a batch.
        poses_each: K, even.
        steps_per_epoch: batches in an epoch.
        neighbours: nearest poses, of which one is drawn.
        seed: int.
        first_epoch, epochs: range of epochs, as `initial_epoch` and `epochs` of `fit`.

    Returns:
        A `tf.data.Dataset` of dictionaries: "images" (2 P K, H, W, 3) uint8, "labels" (2 P K,)
        int32 and "turns" (2 P K, 3, 3) float32. Picture i + P K shows what picture i does.

    Raises:
        ValueError: numbers that the data set can't fill.
    """
    classes = len(objects.class_names)
    poses = objects.num_examples // classes
    appearances = objects.images.shape[1]
    if appearances < 2:
        raise ValueError(f"objects must have two appearances or more; received: {appearances}")
    if not 1 <= objects_each <= classes:
        raise ValueError(f"objects_each must be from 1 to {classes}; received: {objects_each}")
    if poses_each % 2 or not 2 <= poses_each <= poses:
        raise ValueError(f"poses_each must be even, from 2 to {poses}; received: {poses_each}")
    if not 1 <= neighbours < poses:
        raise ValueError(f"neighbours must be from 1 to {poses - 1}; received: {neighbours}")
    near = []
    for label in range(classes):
        own = objects.turns[label * poses : (label + 1) * poses]
        similarity = pose_similarity(own, own)
        np.fill_diagonal(similarity, -np.inf)
        near.append(label * poses + np.argsort(-similarity, axis=1)[:, :neighbours])
    near = tf.constant(np.concatenate(near), tf.int32)
    images, labels = tf.constant(objects.images), tf.constant(objects.labels)
    turns, half = tf.constant(objects.turns), poses_each // 2

    def draw(step):
        own_seed = tf.stack([tf.cast(seed, tf.int64), step])
        seeds = tf.unstack(tf.random.experimental.stateless_split(own_seed, 4))
        chosen = tf.random.experimental.stateless_shuffle(tf.range(classes), seed=seeds[0])
        order = tf.argsort(tf.random.stateless_uniform((objects_each, poses), seeds[1]), axis=1)
        anchors = tf.reshape(chosen[:objects_each, None] * poses + order[:, :half], [-1])
        keys = tf.random.stateless_uniform((objects_each * half, neighbours), seeds[2])
        partners = tf.gather(tf.gather(near, anchors), tf.argmax(keys, axis=1), batch_dims=1)
        places = tf.concat([anchors, partners], axis=0)
        keys = tf.random.stateless_uniform((objects_each * poses_each, appearances), seeds[3])
        ways = tf.argsort(keys, axis=1)
        places = tf.concat([places, places], axis=0)
        ways = tf.concat([ways[:, 0], ways[:, 1]], axis=0)
        return {
            "images": tf.gather_nd(images, tf.stack([places, ways], axis=1)),
            "labels": tf.gather(labels, places),
            "turns": tf.gather(turns, places),
        }

    return (
        tf.data.Dataset.range(first_epoch * steps_per_epoch, epochs * steps_per_epoch)
        .map(draw, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .prefetch(tf.data.AUTOTUNE)
    )
