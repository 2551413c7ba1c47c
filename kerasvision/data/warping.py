"""Pictures sampled at places that a smooth map gives, for augmentation."""

import tensorflow as tf


def elastic_displacements(size, seed, deviation, grid=3):
    """Draws a smooth random displacement of every pixel.

    Args:
        size: (H, W), two integers.
        seed: (2,) integer tensor.
        deviation: standard deviation in pixels of the vectors on the grid.
        grid: rows and columns of the grid, in the middles of whose cells the vectors are;
            between them the displacement is bicubic.

    Returns:
        (2, H, W) float32, down and right, in pixels.

    Reference: Ronneberger et al., "U-Net" (arXiv:1505.04597), section 3.1: a grid of 3 x 3 and a
    deviation of 10.
    """
    vectors = tf.random.stateless_normal((grid, grid, 2), seed, stddev=deviation)
    return tf.transpose(tf.image.resize(vectors, size, "bicubic"), (2, 0, 1))


def mirror(places, size):
    """Moves places beyond a picture to where a mirror at its outermost pixels shows them.

    Args:
        places: (2, H, W) float32, rows and columns; whole numbers are the middles of pixels.
        size: (2,) integer tensor, height and width.

    Returns:
        (2, H, W) float32 from 0 to `size` - 1.
    """
    last = tf.cast(size, tf.float32)[:, None, None] - 1.0
    # A picture of one row or column is its own mirror image.
    period = tf.maximum(2.0 * last, 1.0)
    places = tf.math.floormod(places, period)
    return tf.minimum(tf.minimum(places, period - places), last)


def sample_bilinear(image, places):
    """Interpolates a picture (h, w, C) at places (2, H, W) in it: (H, W, C) float32."""
    low = tf.floor(places)
    down, right = tf.unstack((places - low)[..., None])
    low = tf.cast(low, tf.int32)
    high = tf.minimum(low + 1, tf.shape(image)[:2, None, None] - 1)

    def pixels(rows, columns):
        return tf.cast(gather_pixels(image, rows, columns), tf.float32)

    def between(first, second, weight):
        return first + weight * (second - first)

    top = between(pixels(low[0], low[1]), pixels(low[0], high[1]), right)
    bottom = between(pixels(high[0], low[1]), pixels(high[0], high[1]), right)
    return between(top, bottom, down)


def gather_pixels(values, rows, columns):
    """Values (h, w, ...) at rows and columns (H, W): (H, W, ...)."""
    # One index a pixel is faster than the two of tf.gather_nd.
    flat = tf.reshape(values, tf.concat([[-1], tf.shape(values)[2:]], 0))
    return tf.gather(flat, rows * tf.shape(values)[1] + columns)
