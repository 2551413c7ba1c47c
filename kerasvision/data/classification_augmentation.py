"""Augmentation of pictures that have a class: crops, flips, RandAugment, MixUp, distortion.

Everything here is a pure function of its arguments and a seed, which Keras's layers of these
names are not: their generators count in a variable, so that a resumed run differs.
`keras.layers.RandAugment` of Keras 3.15 also makes the same changes in all pictures of a batch,
brightens, moves and turns (by up to half a turn) in one direction only, and solarises and
posterises most where it should least; the labels of `keras.layers.CutMix` miss the share of the
pixels by up to a row and a column.
"""

import math

import tensorflow as tf

from kerasvision.data.augmentation import IMAGENET_MEAN, paste, resize_window
from kerasvision.data.pipeline import centre_crop
from kerasvision.data.warping import elastic_displacements, sample_bilinear


def sample_area_crop(size, seed, min_area, trials=10):
    """Draws a part of a picture by its area and aspect ratio.

    Args:
        size: (2,) integer tensor, height and width of the picture in pixels.
        seed: (2,) integer tensor.
        min_area: the area is uniform from this share of the picture's to all of it.
        trials: number of crops tried, of which the first that lies in the picture is taken.

    Returns:
        (4,) float32 window (ymin, xmin, ymax, xmax) relative to the picture. Its ratio of width
        to height in pixels is log-uniform in 3/4 to 4/3. If no trial fits it is the largest
        central window of such a ratio.

    Reference: Szegedy et al., "Going Deeper with Convolutions" (arXiv:1409.4842), section 6; the
    aspect ratio is drawn as in its common reimplementations.
    """
    size = tf.cast(size, tf.float32)
    picture_ratio = size[1] / size[0]
    draws = tf.random.stateless_uniform((4, trials), seed)
    area = min_area + (1.0 - min_area) * draws[0]
    # Relative to the picture's own ratio.
    ratio = (4 / 3) ** (2.0 * draws[1] - 1.0) / picture_ratio
    height, width = tf.sqrt(area / ratio), tf.sqrt(area * ratio)
    # A pixel is the least that can be shown.
    height, width = tf.maximum(height, 1.0 / size[0]), tf.maximum(width, 1.0 / size[1])
    fits = (height <= 1.0) & (width <= 1.0)
    closest = tf.clip_by_value(picture_ratio, 3 / 4, 4 / 3) / picture_ratio
    first = tf.argmax(tf.cast(fits, tf.int32))
    found = fits[first]
    height = tf.where(found, height[first], tf.clip_by_value(1.0 / closest, 1.0 / size[0], 1.0))
    width = tf.where(found, width[first], tf.clip_by_value(closest, 1.0 / size[1], 1.0))
    top = (1.0 - height) * tf.where(found, draws[2, first], 0.5)
    left = (1.0 - width) * tf.where(found, draws[3, first], 0.5)
    return tf.stack([top, left, top + height, left + width])


def rand_augment(image, seed, magnitude, num_ops=2, fill=IMAGENET_MEAN):
    """Makes changes that are chosen at random from fourteen, one after the other.

    They are: none, auto-contrast, equalisation of the histogram, solarisation, posterisation,
    more or less colour, contrast, brightness and sharpness, rotation, and shear and translation
    along each axis.

    Args:
        image: (H, W, 3) RGB tensor of 0..255.
        seed: (2,) integer tensor.
        magnitude: strength of all changes; 1 shears by 0.3, moves by 0.45 of the picture's side,
            turns by 30 degrees, changes colour, contrast, brightness and sharpness by 0.9,
            leaves 4 bits, and solarises everything. Directions are random.
        num_ops: number of changes.
        fill: RGB colour, 0..255, that comes in at the borders.

    Returns:
        (H, W, 3) float32 picture of whole numbers 0..255.

    Reference: Cubuk et al., "RandAugment" (arXiv:1909.13719), section 3 and figure 2, with a
    constant magnitude; the ranges are those of "AutoAugment" (arXiv:1805.09501), table 6.
    """
    image = tf.cast(image, tf.float32)
    size = tf.cast(tf.shape(image)[:2], tf.float32)
    for change_seed in tf.unstack(tf.random.split(seed, num_ops)):
        chosen, sign = tf.unstack(tf.random.stateless_uniform((2,), change_seed))
        strength = tf.where(sign < 0.5, -magnitude, magnitude)
        cos, sin = tf.cos(strength * math.pi / 6), tf.sin(strength * math.pi / 6)
        down, right = tf.unstack(0.45 * strength * size)
        changes = [
            lambda: image,
            lambda: auto_contrast(image),
            lambda: equalize(image),
            lambda: tf.where(image < 256 * (1 - magnitude), image, 255 - image),
            lambda: tf.floor(image / 2 ** round(4 * magnitude)) * 2 ** round(4 * magnitude),
            lambda: adjust_color(image, 1 + 0.9 * strength),
            lambda: adjust_contrast(image, 1 + 0.9 * strength),
            lambda: image * (1 + 0.9 * strength),
            lambda: adjust_sharpness(image, 1 + 0.9 * strength),
            lambda: affine(image, [[cos, -sin], [sin, cos]], (0, 0), fill),
            lambda: affine(image, [[1, 0.3 * strength], [0, 1]], (0, 0), fill),
            lambda: affine(image, [[1, 0], [0.3 * strength, 1]], (0, 0), fill),
            lambda: affine(image, [[1, 0], [0, 1]], (right, 0), fill),
            lambda: affine(image, [[1, 0], [0, 1]], (0, down), fill),
        ]
        image = tf.switch_case(tf.cast(chosen * len(changes), tf.int32), changes)
        image = tf.clip_by_value(tf.round(image), 0.0, 255.0)
    return image


def auto_contrast(image):
    """Stretches each channel to 0..255; one of a single value stays.

    Args:
        image: (H, W, 3) float32 of 0..255.

    Returns:
        (H, W, 3) float32.
    """
    low = tf.reduce_min(image, [0, 1])
    high = tf.reduce_max(image, [0, 1])
    return tf.where(high > low, tf.math.divide_no_nan(255 * (image - low), high - low), image)


def equalize(image):
    """Spreads the values of each channel evenly, as Pillow's `ImageOps.equalize`.

    Args:
        image: (H, W, 3) float32 of whole numbers 0..255.

    Returns:
        (H, W, 3) float32 of whole numbers.
    """
    values = tf.cast(image, tf.int32)
    channels = []
    for channel in tf.unstack(values, axis=-1):
        counts = tf.math.bincount(tf.reshape(channel, [-1]), minlength=256, maxlength=256)
        # Pixels that are not of the largest value there is, over the 255 steps below it.
        step = (tf.size(channel) - counts[tf.reduce_max(channel)]) // 255
        table = (tf.cumsum(counts, exclusive=True) + step // 2) // tf.maximum(step, 1)
        channels.append(tf.where(step > 0, tf.gather(tf.minimum(table, 255), channel), channel))
    return tf.cast(tf.stack(channels, axis=-1), tf.float32)


def adjust_color(image, factor):
    """Moves a picture (H, W, 3) away from its grey one: 0 is grey, 1 changes nothing."""
    grey = tf.image.rgb_to_grayscale(image)
    return grey + factor * (image - grey)


def adjust_contrast(image, factor):
    """Moves a picture (H, W, 3) away from its mean grey: 0 is grey, 1 changes nothing."""
    grey = tf.reduce_mean(tf.image.rgb_to_grayscale(image))
    return grey + factor * (image - grey)


def adjust_sharpness(image, factor):
    """Moves a picture (H, W, 3) away from its blurred one; its border stays as it is."""
    kernel = tf.constant([[1.0, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
    kernel = tf.tile(kernel[:, :, None, None], (1, 1, 3, 1))
    blurred = tf.nn.depthwise_conv2d(image[None], kernel, (1, 1, 1, 1), "SAME")[0]
    detail = (image - blurred)[1:-1, 1:-1]
    return image + (factor - 1) * tf.pad(detail, [[1, 1], [1, 1], [0, 0]])


def affine(image, matrix, offset, fill):
    """Shows at each place of a picture what lies at `matrix` times this place plus `offset`.

    Args:
        image: (H, W, 3) float32.
        matrix: two rows of two numbers, for (x, y) from the centre of the picture in pixels.
        offset: (x, y) in pixels.
        fill: RGB colour of what lies outside.

    Returns:
        (H, W, 3) float32, bilinear.
    """
    height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32))
    x, y = (width - 1) / 2, (height - 1) / 2
    (a, b), (c, d) = matrix
    transform = [a, b, x + offset[0] - a * x - b * y, c, d, y + offset[1] - c * x - d * y, 0, 0]
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=image[None] - fill,
        transforms=[[tf.cast(value, tf.float32) for value in transform]],
        output_shape=tf.shape(image)[:2],
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
        fill_value=0.0,
    )
    return moved[0] + fill


def distort(image, seed, strength):
    """Turns, shears, stretches, moves and bends a picture, as hands do with what they write.

    Of a strength of 1 it is turned by up to 0.2 radians either way, sheared by up to 0.3, its
    height and its width are changed by factors of e^-0.2 to e^0.2 and its place by up to 1 / 16 of
    its sides; and on a grid of 4 x 4 it is displaced by 1 / 20 of its shorter side (the standard
    deviation).

    Args:
        image: (H, W, 3) uint8.
        seed: (2,) integer tensor.
        strength: of all of these, from 0 on.

    Returns:
        (H, W, 3) uint8, bilinear. Around the picture its outermost pixels go on.

    References: Koch et al. 2015 ("Siamese Neural Networks for One-shot Image Recognition"),
    section 3.2, for the affine part; Simard et al. 2003 ("Best Practices for Convolutional Neural
    Networks Applied to Visual Document Analysis"), for the elastic one.
    """
    seed_affine, seed_elastic = tf.unstack(tf.random.split(seed, 2))
    draws = strength * tf.random.stateless_uniform((6,), seed_affine, -1.0, 1.0)
    cos, sin, shear = tf.cos(0.2 * draws[0]), tf.sin(0.2 * draws[0]), 0.3 * draws[1]
    taller, wider = tf.exp(0.2 * draws[2]), tf.exp(0.2 * draws[3])
    size = tf.shape(image)[:2]
    limits = tf.cast(size, tf.float32)[:, None, None]
    places = tf.cast(
        tf.stack(tf.meshgrid(*map(tf.range, tf.unstack(size)), indexing="ij")), "float"
    )
    rows, columns = tf.unstack(places - (limits - 1.0) / 2)
    rows, columns = rows / taller, columns / wider + shear * rows
    places = tf.stack([cos * rows - sin * columns, sin * rows + cos * columns])
    places += (limits - 1.0) / 2 + draws[4:, None, None] * limits / 16
    deviation = strength * tf.cast(tf.reduce_min(size), tf.float32) / 20
    places += elastic_displacements(size, seed_elastic, deviation, grid=4)
    places = tf.clip_by_value(places, 0.0, limits - 1.0)
    return tf.cast(tf.round(sample_bilinear(image, places)), tf.uint8)


def coarsen(image, seed, min_resolution):
    """Shrinks a picture (H, W, 3), and enlarges it again: uint8 of the same size.

    Args:
        image: (H, W, 3) uint8.
        seed: (2,) integer tensor.
        min_resolution: its sides shrink to a share that is uniform from this to 1.
    """
    share = tf.random.stateless_uniform((), seed, min_resolution, 1.0)
    size = tf.shape(image)[:2]
    small = tf.maximum(tf.cast(tf.round(share * tf.cast(size, tf.float32)), tf.int32), 1)
    image = tf.image.resize(tf.image.resize(image, small, antialias=True), size)
    return tf.cast(tf.round(image), tf.uint8)


def mixup(images, labels, seed, alpha):
    """Averages each picture, and its label, with another one of the batch.

    Args:
        images: (B, H, W, 3) tensor of 0..255.
        labels: (B, C) float32, shares of the classes.
        seed: (2,) integer tensor.
        alpha: the weight of a picture is of the distribution Beta(alpha, alpha).

    Returns:
        Tuple of the mixed images (B, H, W, 3) float32 and labels (B, C) float32.

    Reference: Zhang et al., "mixup" (arXiv:1710.09412), section 2; a weight a picture.
    """
    seed_order, seed_weight = tf.unstack(tf.random.split(seed, 2))
    count = tf.shape(labels)[0]
    order = tf.random.experimental.stateless_shuffle(tf.range(count), seed_order)
    weight = _beta(count, seed_weight, alpha)[:, None]
    images = tf.cast(images, tf.float32)
    others = tf.gather(images, order)
    mixed = others + weight[:, :, None, None] * (images - others)
    return mixed, weight * labels + (1 - weight) * tf.gather(labels, order)


def cutmix(images, labels, seed, alpha):
    """Pastes a rectangle of another picture of the batch into each, and mixes labels alike.

    Args:
        images: (B, H, W, 3) tensor of 0..255.
        labels: (B, C) float32, shares of the classes.
        seed: (2,) integer tensor.
        alpha: one minus the rectangle's share of the area is of the distribution
            Beta(alpha, alpha), before the rectangle is cut off at the picture's border.

    Returns:
        Tuple of the images (B, H, W, 3) and labels (B, C) float32, whose shares are those of the
        pixels.

    Reference: Yun et al., "CutMix" (arXiv:1905.04899), section 3.1; a rectangle a picture.
    """
    seed_order, seed_weight, seed_centre = tf.unstack(tf.random.split(seed, 3))
    count = tf.shape(labels)[0]
    order = tf.random.experimental.stateless_shuffle(tf.range(count), seed_order)
    side = tf.sqrt(1 - _beta(count, seed_weight, alpha))
    centres = tf.random.stateless_uniform((2, count), seed_centre)

    def inside(length, centre):
        pixels = (tf.range(length, dtype=tf.float32) + 0.5) / length
        return tf.abs(pixels - centre[:, None]) < side[:, None] / 2

    rows = inside(images.shape[1], centres[0])
    columns = inside(images.shape[2], centres[1])
    mask = rows[:, :, None] & columns[:, None, :]
    share = tf.reduce_mean(tf.cast(mask, tf.float32), [1, 2])[:, None]
    images = tf.where(mask[..., None], tf.gather(images, order), images)
    return images, (1 - share) * labels + share * tf.gather(labels, order)


def _beta(count, seed, alpha):
    """Draws (count,) float32 from Beta(alpha, alpha)."""
    first, second = tf.unstack(tf.random.stateless_gamma((2, count), seed, alpha))
    # Both underflow now and then where alpha is tiny.
    return tf.math.divide_no_nan(first, first + second)


class ClassificationAugmentation:
    """Augments pictures for the training of classifiers, by a seed alone.

    A picture is distorted, cropped, either as CIFAR's (centre crop, padded by `pad` and cropped
    again) or as Inception's (`min_area` below 1), flipped, changed by RandAugment and coarsened.
    Then pictures of a batch are mixed.

    Args:
        image_shape: (height, width, 3) of the output, in pixels.
        num_classes: C of the labels that mixing makes.
        flip: whether to swap left and right in half of the pictures.
        pad: pixels of `fill` around the centre crop, from which a random crop is taken.
        min_area: smallest share of the picture's area that a crop has; 1.0: no such crops.
        randaugment_magnitude: strength of RandAugment, 0 (none at all) to 1.
        randaugment_num_ops: number of changes that RandAugment makes one after the other.
        distortion: strength of `distort`, for characters; 0: none.
        min_resolution: of `coarsen`, share of the output's resolution; 1: none is lost.
        mixup_alpha: of the Beta distribution of MixUp's weights; 0: no MixUp.
        cutmix_alpha: of the Beta distribution of CutMix's areas; 0: no CutMix. With both every
            batch takes one of them, with equal chance.
        fill: RGB colour, 0..255, around the picture; rounded to integers.

    Raises:
        ValueError: if an argument is out of its range.

    References: He et al. (arXiv:1512.03385), section 4.2, for `pad`; Szegedy et al.
    (arXiv:1409.4842), section 6, for `min_area`; Cubuk et al., "RandAugment" (arXiv:1909.13719);
    Zhang et al., "mixup" (arXiv:1710.09412); Yun et al., "CutMix" (arXiv:1905.04899).
    """

    def __init__(
        self,
        image_shape,
        num_classes,
        *,
        flip=True,
        pad=0,
        min_area=1.0,
        randaugment_magnitude=0.0,
        randaugment_num_ops=2,
        distortion=0.0,
        min_resolution=1.0,
        mixup_alpha=0.0,
        cutmix_alpha=0.0,
        fill=IMAGENET_MEAN,
    ):
        if len(image_shape) != 3 or image_shape[2] != 3 or min(image_shape) < 1:
            raise ValueError(f"image_shape must be (height, width, 3); received: {image_shape}")
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1; received: {num_classes}")
        if pad < 0:
            raise ValueError(f"pad must not be negative; received: {pad}")
        if not 0.0 < min_area <= 1.0:
            raise ValueError(f"min_area must be within (0, 1]; received: {min_area}")
        if pad and min_area < 1.0:
            raise ValueError(
                "pad and min_area are two ways to crop, one must be left at 0 or 1.0; "
                f"received: pad={pad}, min_area={min_area}"
            )
        if not 0.0 <= randaugment_magnitude <= 1.0:
            raise ValueError(
                f"randaugment_magnitude must be within [0, 1]; received: {randaugment_magnitude}"
            )
        if randaugment_num_ops < 1:
            raise ValueError(
                f"randaugment_num_ops must be at least 1; received: {randaugment_num_ops}"
            )
        if not 0.0 < min_resolution <= 1.0:
            raise ValueError(f"min_resolution must be within (0, 1]; received: {min_resolution}")
        for name, value in {
            "distortion": distortion,
            "mixup_alpha": mixup_alpha,
            "cutmix_alpha": cutmix_alpha,
        }.items():
            if value < 0.0:
                raise ValueError(f"{name} must not be negative; received: {value}")
        if len(fill) != 3 or not all(0.0 <= channel <= 255.0 for channel in fill):
            raise ValueError(f"fill must be three numbers of 0..255; received: {fill}")
        self.image_shape = tuple(image_shape)
        self.num_classes = num_classes
        self.flip = flip
        self.pad = pad
        self.min_area = min_area
        self.randaugment_magnitude = randaugment_magnitude
        self.randaugment_num_ops = randaugment_num_ops
        self.distortion = distortion
        self.min_resolution = min_resolution
        self.mixup_alpha = mixup_alpha
        self.cutmix_alpha = cutmix_alpha
        self.fill = tuple(round(channel) for channel in fill)

    def __call__(self, image, seed):
        """Augments one picture.

        Args:
            image: (H, W, 3) uint8.
            seed: (2,) integer tensor.

        Returns:
            uint8 picture of `image_shape`.
        """
        height, width, _ = self.image_shape
        seed_crop, seed_flip, seed_changes = tf.unstack(tf.random.split(seed, 3))
        # Apart from the three, so that those draw the same with it and without.
        seed_distortion, seed_resolution = tf.unstack(tf.random.split(tf.bitwise.invert(seed), 2))
        if self.distortion:
            image = distort(image, seed_distortion, self.distortion)
        if self.min_area < 1.0:
            window = sample_area_crop(tf.shape(image)[:2], seed_crop, self.min_area)
            image, _, _ = resize_window(image, window, (height, width))
            image = tf.cast(tf.round(image), tf.uint8)
        else:
            image = centre_crop(image, (height, width))
        if self.pad:
            limits = (2 * self.pad + 1,) * 2
            top_left = tf.cast(
                tf.floor(tf.random.stateless_uniform((2,), seed_crop) * limits), tf.int32
            )
            padded = (height + 2 * self.pad, width + 2 * self.pad, 3)
            image = paste(image, tf.constant([self.pad, self.pad]), padded, self.fill)
            image = tf.slice(image, [*tf.unstack(top_left), 0], self.image_shape)
        if self.flip:
            image = tf.cond(
                tf.random.stateless_uniform((), seed_flip) < 0.5,
                lambda: tf.reverse(image, [1]),
                lambda: image,
            )
        if self.randaugment_magnitude > 0:
            image = rand_augment(
                image,
                seed_changes,
                self.randaugment_magnitude,
                self.randaugment_num_ops,
                self.fill,
            )
        image = tf.cast(image, tf.uint8)
        if self.min_resolution < 1.0:
            image = coarsen(image, seed_resolution, self.min_resolution)
        return image

    def mix(self, images, labels, seed):
        """Mixes the pictures of a batch with each other.

        Args:
            images: (B, height, width, 3) tensor of 0..255.
            labels: (B,) int32, classes from 0.
            seed: (2,) integer tensor.

        Returns:
            Tuple of images (B, height, width, 3), float32 from MixUp, and labels (B, C) float32,
            the shares of the classes; both as they were if no mixing is asked for.
        """
        if not self.mixup_alpha and not self.cutmix_alpha:
            return images, labels
        labels = tf.one_hot(labels, self.num_classes)
        seed_choice, seed = tf.unstack(tf.random.split(seed, 2))
        mixup_share = 0.5 if self.mixup_alpha and self.cutmix_alpha else float(self.mixup_alpha > 0)
        images = tf.cast(images, tf.float32)
        return tf.cond(
            tf.random.stateless_uniform((), seed_choice) < mixup_share,
            lambda: mixup(images, labels, seed, self.mixup_alpha),
            lambda: cutmix(images, labels, seed, self.cutmix_alpha),
        )
