"""From a picture to what a network's first layer expects.

Every network takes RGB pictures, 0 to 255, and brings its own normalisation.
"""

import keras
from keras import layers

# Of ImageNet's training pictures: the mean of Caffe's models, mean and deviation of torchvision's.
CAFFE_MEAN = (123.68, 116.779, 103.939)
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


def image_input(image_shape, min_side=1, any_size=True):
    """The input "images" of a network.

    Args:
        image_shape: (height, width, channels); a side may be None if `any_size`.
        min_side: the smallest height and width that leave each layer at least one cell.
        any_size: False: the network has fully connected layers behind its maps, so that the
            sides must be known.

    Raises:
        ValueError: a shape that the network can't take.
    """
    shape = tuple(image_shape) if isinstance(image_shape, (tuple, list)) else (image_shape,)
    sides = shape[:2]
    if len(shape) != 3 or shape[2] not in (1, 3):
        raise ValueError(
            "image_shape must be (height, width, 3), or 1 for grey pictures; "
            f"received: {image_shape}"
        )
    if not any_size and None in sides:
        raise ValueError(
            "image_shape must have a height and a width, as fully connected layers follow; "
            f"received: {shape}"
        )
    if any(side is not None and side < min_side for side in sides):
        raise ValueError(
            f"image_shape must be at least {min_side} x {min_side} for this network; "
            f"received: {shape}"
        )
    return keras.Input(shape, name="images")


def subtract_mean(images):
    """Caffe's normalisation: the mean colour is subtracted."""
    _check_colour(images)
    return layers.Rescaling(1.0, [-mean for mean in CAFFE_MEAN], dtype="float32", name="normalize")(
        images
    )


def standardize(images):
    """torchvision's normalisation: each channel has mean 0 and deviation 1 over ImageNet."""
    _check_colour(images)
    return layers.Rescaling(
        [1 / (255 * deviation) for deviation in DEVIATION],
        [-mean / deviation for mean, deviation in zip(MEAN, DEVIATION)],
        dtype="float32",
        name="normalize",
    )(images)


def minus_one_to_one(images):
    """TensorFlow's normalisation: 0 to 255 becomes -1 to 1."""
    return layers.Rescaling(1 / 127.5, -1.0, dtype="float32", name="normalize")(images)


def _check_colour(images):
    # Grey pictures would be broadcast to three channels behind the back of the next layer.
    if images.shape[-1] != 3:
        raise ValueError(
            "image_shape must be (height, width, 3) for this network's normalisation by colour; "
            f"received: {tuple(images.shape[1:])}"
        )
