"""Augmentation of pictures with a class for every pixel: windows, rotation, elastic deformation.

All geometric changes are one map from the pixels of the output to places in the picture, at which
the picture, its labels and its weights are sampled once; everything is a pure function of its
arguments and a seed.
"""

import math

import numpy as np
import tensorflow as tf

from kerasvision.data.classification_augmentation import adjust_color, adjust_contrast
from kerasvision.data.pipeline import resize_labelled
from kerasvision.data.warping import (
    elastic_displacements,
    gather_pixels,
    mirror,
    sample_bilinear,
)


class SegmentationAugmentation:
    """Augments a picture, the labels of its pixels and their weights alike, by a seed alone.

    A random window of the picture, scaled, turned about its middle and deformed, becomes the
    output; beyond the picture its mirror image goes on. Then it is flipped, and its brightness,
    contrast and saturation are changed. The picture is interpolated, antialiased where it
    shrinks; labels and weights are taken from the nearest pixel.

    Args:
        image_shape: (height, width, 3) of the output, in pixels.
        flip: whether to swap left and right in half of the pictures.
        vertical_flip: whether to turn half of them upside down, for pictures that have no
            upright, such as cells and aerial views.
        min_scale, max_scale: range of the uniform factor that the picture is enlarged by. At 1
            the window shows all of it, or, with `crops`, it has its own resolution.
        rotation: the angle is uniform in plus or minus this, in degrees.
        elastic: standard deviation of the deformation in pixels of the output; see
            `elastic_displacements`.
        elastic_grid: rows and columns of its grid.
        color: brightness, contrast and saturation are multiplied by factors uniform in 1 plus or
            minus this.
        crops: whether windows are cut out of the picture at its own resolution, as U-Net's tiles,
            instead of after it was resized to `image_shape`.

    Raises:
        ValueError: if an argument is out of its range.

    Reference: Ronneberger et al., "U-Net" (arXiv:1505.04597), sections 2 and 3.1, for windows
    with mirrored surroundings and for the deformation.
    """

    def __init__(
        self,
        image_shape,
        *,
        flip=True,
        vertical_flip=False,
        min_scale=1.0,
        max_scale=1.0,
        rotation=0.0,
        elastic=0.0,
        elastic_grid=3,
        color=0.0,
        crops=False,
    ):
        if len(image_shape) != 3 or image_shape[2] != 3 or min(image_shape) < 1:
            raise ValueError(f"image_shape must be (height, width, 3); received: {image_shape}")
        if not 0.0 < min_scale <= max_scale:
            raise ValueError(
                "min_scale must be above 0 and not above max_scale; received: "
                f"min_scale={min_scale}, max_scale={max_scale}"
            )
        if not 0.0 <= rotation <= 180.0:
            raise ValueError(f"rotation must be within [0, 180] degrees; received: {rotation}")
        if elastic < 0.0:
            raise ValueError(f"elastic must not be negative; received: {elastic}")
        if elastic_grid < 2:
            raise ValueError(f"elastic_grid must be at least 2; received: {elastic_grid}")
        if not 0.0 <= color <= 1.0:
            raise ValueError(f"color must be within [0, 1]; received: {color}")
        self.image_shape = tuple(image_shape)
        self.flip = flip
        self.vertical_flip = vertical_flip
        self.min_scale = min_scale
        self.max_scale = max_scale
        self.rotation = rotation
        self.elastic = elastic
        self.elastic_grid = elastic_grid
        self.color = color
        self.crops = crops

    def __call__(self, example, seed):
        """Augments one picture.

        Args:
            example: dictionary of "images" (h, w, 3) uint8, "segmentation_masks" (h, w) int32,
                -1 = void, and optional "pixel_weights" (h, w) float32.
            seed: (2,) integer tensor.

        Returns:
            The same dictionary, all of it of the height and width of `image_shape`.
        """
        seed_window, seed_elastic, seed_flip, seed_color = tf.unstack(tf.random.split(seed, 4))
        scaled = (self.min_scale, self.max_scale) != (1.0, 1.0)
        if self.crops or scaled or self.rotation or self.elastic:
            shown = self._warp(example, seed_window, seed_elastic)
        else:
            shown = resize_labelled(example, self.image_shape[:2])

        chances = tf.unstack(tf.random.stateless_uniform((2,), seed_flip))
        for axis, wanted in enumerate((self.vertical_flip, self.flip)):
            if wanted:
                shown = tf.cond(
                    chances[axis] < 0.5,
                    lambda: {name: tf.reverse(values, [axis]) for name, values in shown.items()},
                    lambda: shown,
                )
        if self.color:
            draws = tf.random.stateless_uniform((3,), seed_color)
            brightness, contrast, saturation = tf.unstack(1 + self.color * (2 * draws - 1))
            image = tf.cast(shown["images"], tf.float32) * brightness
            image = adjust_contrast(tf.clip_by_value(image, 0.0, 255.0), contrast)
            image = adjust_color(tf.clip_by_value(image, 0.0, 255.0), saturation)
            image = tf.clip_by_value(tf.round(image), 0.0, 255.0)
            shown = {**shown, "images": tf.cast(image, tf.uint8)}
        return shown

    def _warp(self, example, seed_window, seed_elastic):
        """Samples the example at the places that the pixels of the output come from."""
        size = self.image_shape[:2]
        image = example["images"]
        stored = tf.shape(image)[:2]
        draws = tf.random.stateless_uniform((4,), seed_window)
        scale = self.min_scale + (self.max_scale - self.min_scale) * draws[0]
        whole = stored if self.crops else tf.constant(size)
        scaled = tf.cast(tf.round(scale * tf.cast(whole, tf.float32)), tf.int32)
        scaled = tf.maximum(scaled, 1)

        # Places in the scaled picture. A window larger than it has it at a random place.
        slack = scaled - size
        draw = tf.floor(draws[1:3] * tf.cast(tf.abs(slack) + 1, tf.float32))
        origin = tf.cast(tf.minimum(slack, 0), tf.float32) + draw
        middle = (np.array(size, np.float32) - 1) / 2
        rows, columns = np.indices(size, np.float32) - middle[:, None, None]
        angle = self.rotation * math.pi / 180 * (2 * draws[3] - 1)
        cos, sin = tf.cos(angle), tf.sin(angle)
        places = tf.stack([cos * rows - sin * columns, sin * rows + cos * columns])
        places += (middle + origin)[:, None, None]
        if self.elastic:
            places += elastic_displacements(size, seed_elastic, self.elastic, self.elastic_grid)
        places = mirror(places, scaled)

        # Shrinking needs the picture antialiased; enlarging is left to the interpolation.
        source = tf.minimum(scaled, stored)
        image = tf.cond(
            tf.reduce_all(source == stored),
            lambda: tf.cast(image, tf.float32),
            lambda: tf.image.resize(image, source, antialias=True),
        )
        image = sample_bilinear(image, _rescaled(places, scaled, source))
        shown = {"images": tf.cast(tf.round(image), tf.uint8)}
        nearest = tf.cast(tf.floor(_rescaled(places, scaled, stored) + 0.5), tf.int32)
        for name in example.keys() - {"images"}:
            shown[name] = gather_pixels(example[name], *tf.unstack(nearest))
        return shown


def _rescaled(places, size, new_size):
    """Places (2, H, W) in a picture of one size as places in the same picture of another size."""
    new_size = tf.cast(new_size, tf.float32)[:, None, None]
    places = (places + 0.5) * (new_size / tf.cast(size, tf.float32)[:, None, None]) - 0.5
    return tf.clip_by_value(places, 0.0, new_size - 1.0)
