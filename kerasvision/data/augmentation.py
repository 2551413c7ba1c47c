"""Augmentation of SSD: zoom-out, min-IoU crop, flip and photometric distortion of one picture.

Masks and keypoints, which SSD did without, follow the boxes.

Everything here is a pure function of its arguments and a seed, unlike Keras's ``Random*`` layers,
whose generator state makes a parallel ``map`` nondeterministic and a resumed run differ
(and ``keras.layers.RandomCrop`` of Keras 3.15 corrupts boxes).

The geometric steps only move a *window* over the picture; the pixels are resampled once, at the
end. Windows are float32 ``(ymin, xmin, ymax, xmax)`` relative to the picture, like boxes, but may
reach beyond [0, 1]: there the output shows the fill colour.

Reference: Liu et al., "SSD: Single Shot MultiBox Detector" (2016), sections 2.2 and 3.6. Where the
paper is silent the functions follow the authors' Caffe code.
"""

import tensorflow as tf

from kerasvision.data.masks import mirrored

# None is the whole picture, 0.0 a crop that only has to contain the centre of an object.
MIN_IOU_OPTIONS = (None, 0.1, 0.3, 0.5, 0.7, 0.9, 0.0)
IMAGENET_MEAN = (123.7, 116.8, 103.9)


def sample_zoom_out(seed, probability=0.5, max_zoom_out=4.0):
    """Draws the window that shows the whole picture at a random place of a larger canvas.

    Args:
        seed: (2,) integer tensor.
        probability: of zooming out at all; otherwise the window is the picture.
        max_zoom_out: the canvas is 1 to this many times as high and wide as the picture.

    Returns:
        (4,) float32 window that contains the picture.

    Reference: section 3.6 of the paper.
    """
    chance, zoom, top, left = tf.unstack(tf.random.stateless_uniform((4,), seed))
    zoom = tf.where(chance < probability, 1.0 + (max_zoom_out - 1.0) * zoom, 1.0)
    top, left = -top * (zoom - 1.0), -left * (zoom - 1.0)
    return tf.stack([top, left, top + zoom, left + zoom])


def sample_crop(
    boxes,
    labels,
    window,
    seed,
    min_iou_options=MIN_IOU_OPTIONS,
    min_scale=0.3,
    max_aspect_ratio=2.0,
    trials=50,
):
    """Draws a part of a window that overlaps an object as much as a random option asks.

    Every option gets `trials` random crops. A crop is good if it contains the centre of an object
    and overlaps such an object with at least the option's IoU. One of the options that found a
    good crop is chosen at random, and its first good crop returned.

    Args:
        boxes: (N, 4) float32 boxes relative to the picture.
        labels: (N,) int32, -1 = padding.
        window: (4,) float32 window to crop from, relative to the picture.
        seed: (2,) integer tensor.
        min_iou_options: tuple of minimum IoUs; None stands for the whole window.
        min_scale: smallest scale of a crop, the square root of its share of the window's area.
        max_aspect_ratio: largest ratio, relative to the window's, of width to height and of
            height to width.
        trials: number of crops tried for each option.

    Returns:
        (4,) float32 window relative to the picture: the whole `window` if no option found a good
        crop, as is always so for a picture without objects.

    Reference: section 2.2 of the paper, "Data augmentation".
    """
    seed_crops, seed_option = tf.unstack(tf.random.split(seed, 2))
    options = len(min_iou_options)
    draws = tf.random.stateless_uniform((4, options, trials), seed_crops)
    scale = min_scale + (1.0 - min_scale) * draws[0]
    # The bounds keep both sides within the window.
    low = tf.maximum(1.0 / max_aspect_ratio, scale**2)
    high = tf.minimum(max_aspect_ratio, 1.0 / scale**2)
    aspect_ratio = low + (high - low) * draws[1]
    height = tf.minimum(scale / tf.sqrt(aspect_ratio), 1.0)
    width = tf.minimum(scale * tf.sqrt(aspect_ratio), 1.0)
    ymin, xmin = draws[2] * (1.0 - height), draws[3] * (1.0 - width)
    crops = tf.stack([ymin, xmin, ymin + height, xmin + width], axis=-1)
    size = window[2:] - window[:2]
    crops = tf.concat([window[:2], window[:2]], 0) + crops * tf.concat([size, size], 0)

    # (options, trials, N): is the object kept, and how much does the crop overlap it?
    crop_min, crop_max = crops[:, :, None, :2], crops[:, :, None, 2:]
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2.0
    inside = tf.reduce_all((crop_min <= centre) & (centre <= crop_max), -1) & (labels >= 0)
    overlap = tf.minimum(crop_max, boxes[:, 2:]) - tf.maximum(crop_min, boxes[:, :2])
    intersection = tf.reduce_prod(tf.maximum(overlap, 0.0), -1)
    area = tf.reduce_prod(boxes[:, 2:] - boxes[:, :2], -1)
    union = tf.reduce_prod(crop_max - crop_min, -1) + area - intersection
    min_iou = tf.constant([option or 0.0 for option in min_iou_options])[:, None, None]
    good = tf.reduce_any(inside & (intersection >= min_iou * union), -1)

    whole = tf.constant([option is None for option in min_iou_options])
    found = tf.reduce_any(good, -1) | whole
    preference = tf.random.stateless_uniform((options,), seed_option)
    chosen = tf.argmax(tf.where(found, preference, -1.0))
    crop = crops[chosen, tf.argmax(tf.cast(good[chosen], tf.int32))]
    return tf.where(found[chosen] & ~whole[chosen], crop, window)


def resize_window(image, window, output_size, method=None):
    """Cuts out what a window shows of a picture and resizes it to whole pixels of the output.

    Rounding moves the window by less than a pixel of the picture and of the output; the window
    that is returned is the one really shown, so boxes that are moved into it stay exact.

    Args:
        image: (H, W, C) tensor; H and W may be unknown.
        window: (4,) float32 window relative to the picture, with which it must overlap; one
            thinner than a pixel is widened to a pixel.
        output_size: (height, width) of what the whole window becomes, two integers.
        method: method of `tf.image.resize`; "nearest" suits masks. By default each output pixel
            is the mean over its area where the picture shrinks, and bilinear otherwise.

    Returns:
        Tuple of the visible part (h, w, C), float32 or for "nearest" of the image's type, with h
        and w at least 1; its (2,) int32 offset (top, left) within the output; and the (4,) float32
        window really shown.
    """
    image = tf.convert_to_tensor(image)
    size = tf.shape(image)[:2]
    output_size = tf.constant(output_size, tf.int32)
    float_size = tf.cast(size, tf.float32)
    float_output_size = tf.cast(output_size, tf.float32)
    window_min = window[:2]
    window_max = tf.maximum(window[2:], window_min + 1.0 / float_size)

    # Rows and columns of the picture that are visible, rounded outwards ...
    visible_min = tf.clip_by_value(window_min, 0.0, 1.0)
    visible_max = tf.clip_by_value(window_max, 0.0, 1.0)
    source_min = tf.cast(tf.floor(visible_min * float_size), tf.int32)
    source_min = tf.minimum(source_min, size - 1)
    source_max = tf.cast(tf.math.ceil(visible_max * float_size), tf.int32)
    source_max = tf.clip_by_value(source_max, source_min + 1, size)
    # ... and where they go in the output.
    to_output = float_output_size / (window_max - window_min)
    target_min = tf.cast(tf.round((visible_min - window_min) * to_output), tf.int32)
    target_min = tf.clip_by_value(target_min, 0, output_size - 1)
    target_max = tf.cast(tf.round((visible_max - window_min) * to_output), tf.int32)
    target_max = tf.clip_by_value(target_max, target_min + 1, output_size)

    source_size, target_size = source_max - source_min, target_max - target_min
    part = image[source_min[0] : source_max[0], source_min[1] : source_max[1]]
    if method is None:
        part = tf.cond(
            tf.reduce_all(target_size <= source_size),
            lambda: tf.image.resize(part, target_size, "area"),
            lambda: tf.image.resize(part, target_size, "bilinear", antialias=True),
        )
    else:
        part = tf.image.resize(part, target_size, method)

    step = tf.cast(source_size, tf.float32) / tf.cast(target_size, tf.float32)
    above = tf.cast(source_min, tf.float32) - step * tf.cast(target_min, tf.float32)
    below = tf.cast(source_max, tf.float32) + step * tf.cast(output_size - target_max, tf.float32)
    return part, target_min, tf.concat([above / float_size, below / float_size], 0)


def paste(part, offset, image_shape, fill):
    """Places a part on a canvas of one colour.

    Args:
        part: (h, w, C) tensor that fits into the canvas at `offset`.
        offset: (2,) int32 (top, left).
        image_shape: (height, width, C) of the canvas, three integers.
        fill: C numbers, one a channel, or one number for all channels.

    Returns:
        (height, width, C) tensor of the type of `part`.
    """
    after = tf.constant(image_shape[:2]) - offset - tf.shape(part)[:2]
    padding = tf.pad(tf.stack([offset, after], axis=1), [[0, 1], [0, 0]])
    fill = tf.constant(fill, part.dtype)
    # tf.pad knows one value for all channels only. Integers wrap, so the sum restores them exactly.
    return tf.ensure_shape(tf.pad(part - fill, padding) + fill, image_shape)


def boxes_in_window(boxes, labels, window):
    """Moves boxes from the picture into a window and drops those whose centre is outside.

    Args:
        boxes: (N, 4) float32 boxes relative to the picture.
        labels: (N,) int32, -1 = padding.
        window: (4,) float32 window relative to the picture, of positive height and width.

    Returns:
        Tuple of (N, 4) boxes relative to the window, clipped to [0, 1], and their (N,) labels;
        dropped boxes become padding: zeros and label -1.
    """
    window_min, window_max = window[:2], window[2:]
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2.0
    inside = tf.reduce_all((window_min <= centre) & (centre <= window_max), -1) & (labels >= 0)
    corners = (tf.reshape(boxes, (-1, 2, 2)) - window_min) / (window_max - window_min)
    boxes = tf.reshape(tf.clip_by_value(corners, 0.0, 1.0), (-1, 4))
    return tf.where(inside[:, None], boxes, 0.0), tf.where(inside, labels, -1)


def flip(image, boxes, labels, axis):
    """Mirrors a picture and its boxes.

    Args:
        image: (H, W, C) tensor.
        boxes: (N, 4) float32 boxes relative to the picture.
        labels: (N,) int32, -1 = padding.
        axis: 0 to turn the picture upside down, 1 to swap left and right.

    Returns:
        Tuple of the picture and its boxes; padding stays zero.
    """
    ymin, xmin, ymax, xmax = tf.unstack(boxes, axis=-1)
    if axis == 0:
        flipped = tf.stack([1.0 - ymax, xmin, 1.0 - ymin, xmax], axis=-1)
    else:
        flipped = tf.stack([ymin, 1.0 - xmax, ymax, 1.0 - xmin], axis=-1)
    return tf.reverse(image, [axis]), tf.where((labels >= 0)[:, None], flipped, 0.0)


def masks_in_window(masks, boxes, labels, window):
    """Cuts masks off where a window cuts off their boxes.

    Args:
        masks: (N, M, M) on grids over the boxes.
        boxes: (N, 4) float32 boxes relative to the picture.
        labels: (N,) int32 of the boxes in the window, as from `boxes_in_window`.
        window: (4,) float32 window relative to the picture.

    Returns:
        (N, M, M) on grids over what the window shows of the boxes; zeros for padding.
    """
    side = masks.shape[1]
    middles = (tf.range(side, dtype=tf.float32) + 0.5) / side
    shown_min, shown_max = (
        tf.maximum(boxes[:, :2], window[:2]),
        tf.minimum(boxes[:, 2:], window[2:]),
    )
    # (N, 2, M): rows and columns of the old grids, in which the cells of the new ones lie.
    places = shown_min[..., None] + (shown_max - shown_min)[..., None] * middles
    sides = tf.maximum(boxes[:, 2:] - boxes[:, :2], 1e-9)
    cells = tf.cast(tf.floor((places - boxes[:, :2, None]) / sides[..., None] * side), tf.int32)
    cells = tf.clip_by_value(cells, 0, side - 1)
    masks = tf.gather(masks, cells[:, 0], axis=1, batch_dims=1)
    masks = tf.gather(masks, cells[:, 1], axis=2, batch_dims=1)
    return tf.where((labels >= 0)[:, None, None], masks, 0)


def keypoints_in_window(keypoints, labels, window):
    """Moves keypoints from the picture into a window.

    Args:
        keypoints: (N, P, 3) float32, (y, x) relative to the picture and visibility.
        labels: (N,) int32 of the boxes in the window, as from `boxes_in_window`.
        window: (4,) float32 window relative to the picture.

    Returns:
        (N, P, 3) relative to the window; zeros for those outside, not labelled or of padding.
    """
    places = (keypoints[..., :2] - window[:2]) / (window[2:] - window[:2])
    labelled = (keypoints[..., 2] > 0.0) & (labels >= 0)[:, None]
    inside = tf.reduce_all((places >= 0.0) & (places <= 1.0), -1) & labelled
    return tf.where(inside[..., None], tf.concat([places, keypoints[..., 2:]], -1), 0.0)


def flip_keypoints(keypoints, counterparts, axis):
    """Mirrors keypoints: left ones become right ones.

    Args:
        keypoints: (N, P, 3) float32, (y, x) relative to the picture and visibility.
        counterparts: (N, P) int32, which keypoint each one is the mirror image of.
        axis: as of `flip`.

    Returns:
        (N, P, 3); those not labelled stay zero.
    """
    keypoints = tf.gather(keypoints, counterparts, axis=1, batch_dims=1)
    y, x, visibility = tf.unstack(keypoints, axis=-1)
    mirrored = (1.0 - y, x, visibility) if axis == 0 else (y, 1.0 - x, visibility)
    return tf.where(keypoints[..., 2:] > 0.0, tf.stack(mirrored, -1), 0.0)


def photometric_distortion(
    image,
    seed,
    probability=0.5,
    max_brightness=32.0,
    contrast=(0.5, 1.5),
    saturation=(0.5, 1.5),
    max_hue=18.0,
    channel_swap_probability=0.0,
):
    """Changes brightness, contrast, saturation and hue at random.

    Contrast is changed before or after saturation and hue, with equal chance.

    Args:
        image: (H, W, 3) RGB tensor of 0..255.
        seed: (2,) integer tensor.
        probability: of each of the four changes.
        max_brightness: the number added is uniform in plus or minus this.
        contrast: range of the factor that multiplies the picture.
        saturation: range of the factor that multiplies the saturation of HSV.
        max_hue: the hue is turned by an angle uniform in plus or minus this, in degrees.
        channel_swap_probability: of putting the three channels into a random order.

    Returns:
        (H, W, 3) float32 picture of 0..255.

    Reference: Howard, "Some improvements on deep convolutional neural network based image
    classification" (2013), as section 2.2 of the SSD paper cites it; the numbers are those of the
    authors' Caffe code and, for the hue in degrees, of its common reimplementations.
    """
    seed_draws, seed_swap = tf.unstack(tf.random.split(seed, 2))
    draws = tf.random.stateless_uniform((10,), seed_draws)
    change = tf.unstack(draws[:4] < probability)
    contrast_first, swap = draws[4] < 0.5, draws[5] < channel_swap_probability
    brightness = tf.where(change[0], max_brightness * (2.0 * draws[6] - 1.0), 0.0)
    factor = contrast[0] + (contrast[1] - contrast[0]) * draws[7]
    contrast_before = tf.where(change[1] & contrast_first, factor, 1.0)
    contrast_after = tf.where(change[1] & ~contrast_first, factor, 1.0)
    saturation_factor = saturation[0] + (saturation[1] - saturation[0]) * draws[8]
    turn = max_hue / 360.0 * (2.0 * draws[9] - 1.0)

    image = tf.clip_by_value(tf.cast(image, tf.float32) + brightness, 0.0, 255.0)
    image = tf.clip_by_value(image * contrast_before, 0.0, 255.0)
    image = tf.cond(change[2], lambda: adjust_saturation(image, saturation_factor), lambda: image)
    image = tf.cond(change[3], lambda: tf.image.adjust_hue(image, turn), lambda: image)
    image = tf.clip_by_value(image * contrast_after, 0.0, 255.0)
    order = tf.argsort(tf.random.stateless_uniform((3,), seed_swap))
    return tf.cond(swap, lambda: tf.gather(image, order, axis=-1), lambda: image)


def adjust_saturation(image, factor):
    """Multiplies the saturation of HSV, leaving hue and value; it saturates at 1.

    It equals `tf.image.adjust_saturation` in half the time: every channel moves away from
    the largest one by the same factor.

    Args:
        image: (..., 3) float32 RGB tensor, not negative.
        factor: scalar, not negative.

    Returns:
        Tensor of the shape of `image`.
    """
    red, green, blue = tf.unstack(image, axis=-1)
    value = tf.maximum(tf.maximum(red, green), blue)
    chroma = value - tf.minimum(tf.minimum(red, green), blue)
    # A factor of value / chroma makes the saturation 1, the smallest channel 0.
    factor = tf.minimum(factor, tf.math.divide_no_nan(value, chroma))
    return value[..., None] - (value[..., None] - image) * factor[..., None]


class SSDAugmentation:
    """Augments one picture and its boxes as SSD's training does.

    The picture is zoomed out, cropped, resized and flipped; its visible part is distorted
    photometrically. The result depends on the example and the seed only.

    Args:
        image_shape: (height, width, 3) of the output, in pixels.
        zoom_out_probability: of showing the picture on a larger canvas.
        max_zoom_out: largest ratio of the canvas's sides to the picture's.
        crop: True for the paper's crops, False for none, or a tuple of minimum IoUs as
            `sample_crop` takes them.
        min_crop_scale: smallest scale of a crop, the square root of its share of the canvas.
        flip_probability: of swapping left and right.
        vertical_flip_probability: of turning the picture upside down, for pictures that have no
            upright, such as cells and aerial views.
        photometric: whether to distort brightness, contrast, saturation and hue.
        fill: RGB colour, 0..255, of the canvas around the picture; rounded to integers.
        keypoint_names: for each class the names of its keypoints, of examples that have any:
            mirrored, "left_eye" becomes "right_eye".

    Raises:
        ValueError: if an argument is out of its range.

    Reference: Liu et al., "SSD: Single Shot MultiBox Detector" (2016), sections 2.2 and 3.6.
    """

    def __init__(
        self,
        image_shape,
        zoom_out_probability=0.5,
        max_zoom_out=4.0,
        crop=True,
        min_crop_scale=0.3,
        flip_probability=0.5,
        vertical_flip_probability=0.0,
        photometric=True,
        fill=IMAGENET_MEAN,
        keypoint_names=None,
    ):
        if len(image_shape) != 3 or image_shape[2] != 3 or min(image_shape) < 1:
            raise ValueError(f"image_shape must be (height, width, 3); received: {image_shape}")
        probabilities = {
            "zoom_out_probability": zoom_out_probability,
            "flip_probability": flip_probability,
            "vertical_flip_probability": vertical_flip_probability,
        }
        for name, probability in probabilities.items():
            if not 0.0 <= probability <= 1.0:
                raise ValueError(f"{name} must be within [0, 1]; received: {probability}")
        if max_zoom_out < 1.0:
            raise ValueError(f"max_zoom_out must be at least 1; received: {max_zoom_out}")
        if not 0.0 < min_crop_scale <= 1.0:
            raise ValueError(f"min_crop_scale must be within (0, 1]; received: {min_crop_scale}")
        if len(fill) != 3 or not all(0.0 <= channel <= 255.0 for channel in fill):
            raise ValueError(f"fill must be three numbers of 0..255; received: {fill}")
        self.image_shape = tuple(image_shape)
        self.zoom_out_probability = zoom_out_probability
        self.max_zoom_out = max_zoom_out
        self.min_iou_options = MIN_IOU_OPTIONS if crop is True else tuple(crop or ())
        self.min_crop_scale = min_crop_scale
        self.flip_probability = flip_probability
        self.vertical_flip_probability = vertical_flip_probability
        self.photometric = photometric
        self.fill = tuple(round(channel) for channel in fill)
        self.counterparts = None
        if keypoint_names is not None:
            count = max(map(len, keypoint_names))
            self.counterparts = [
                mirrored(names) + list(range(len(names), count)) for names in keypoint_names
            ]

    def __call__(self, example, seed):
        """Augments one picture.

        Args:
            example: dictionary with "images" (H, W, 3) uint8 and "bounding_boxes": {"boxes"
                (N, 4) float32 rel_yxyx, "labels" (N,) int32, -1 = padding}; optional are
                "segmentation_masks" (N, M, M) on grids over the boxes and "keypoints" (N, P, 3),
                (y, x) relative to the picture and visibility. Other entries are passed on.
            seed: (2,) integer tensor.

        Returns:
            The same dictionary with "images" uint8 of `image_shape` and N boxes; boxes whose
            centre is no longer visible become padding: zeros and label -1.
        """
        image = example["images"]
        boxes, labels = example["bounding_boxes"]["boxes"], example["bounding_boxes"]["labels"]
        seed_zoom, seed_crop, seed_colour, seed_flip = tf.unstack(tf.random.split(seed, 4))

        window = sample_zoom_out(seed_zoom, self.zoom_out_probability, self.max_zoom_out)
        if self.min_iou_options:
            window = sample_crop(
                boxes, labels, window, seed_crop, self.min_iou_options, self.min_crop_scale
            )
        image, offset, window = resize_window(image, window, self.image_shape[:2])
        # Before the padding: the fill colour is what the network subtracts and stays as it is.
        if self.photometric:
            image = photometric_distortion(image, seed_colour)
        image = paste(tf.cast(tf.round(image), tf.uint8), offset, self.image_shape, self.fill)
        shown_boxes, labels = boxes_in_window(boxes, labels, window)
        shown = {"images": image, "boxes": shown_boxes}
        if "segmentation_masks" in example:
            masks = masks_in_window(example["segmentation_masks"], boxes, labels, window)
            shown["segmentation_masks"] = masks
        if "keypoints" in example:
            shown["keypoints"] = keypoints_in_window(example["keypoints"], labels, window)

        draws = tf.random.stateless_uniform((2,), seed_flip)
        probabilities = (self.vertical_flip_probability, self.flip_probability)
        for axis, probability in enumerate(probabilities):
            shown = tf.cond(
                draws[axis] < probability,
                lambda: self._flip(shown, labels, axis),
                lambda: shown,
            )
        boxes = {"boxes": shown.pop("boxes"), "labels": labels}
        return {**example, **shown, "bounding_boxes": boxes}

    def _flip(self, shown, labels, axis):
        image, boxes = flip(shown["images"], shown["boxes"], labels, axis)
        flipped = {"images": image, "boxes": boxes}
        if "segmentation_masks" in shown:
            flipped["segmentation_masks"] = tf.reverse(shown["segmentation_masks"], [1 + axis])
        if "keypoints" in shown:
            counterparts = tf.gather(self.counterparts, tf.maximum(labels, 0))
            flipped["keypoints"] = flip_keypoints(shown["keypoints"], counterparts, axis)
        return flipped
