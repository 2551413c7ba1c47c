"""What the papers call testing: one crop, ten crops, or the whole picture at several sizes.

    predict = picture_predictor(classifier.network, "dense", sides=[224, 256, 288])
    probabilities = predict(picture)

A network was trained on crops of one size; a picture has any. How the two are brought together
is worth one to two points of the top-1 error on ImageNet, so a number belongs to a protocol.
"""

import numpy as np
from keras import ops

from kerasvision.classification.dense import to_dense

MODES = ("single", "ten_crop", "dense")


def resize_shorter_side(picture, side):
    """Resizes a picture so that its shorter side is `side` pixels, its aspect ratio kept.

    Args:
        picture: (H, W, channels), of any type.
        side: int.

    Returns:
        (h, w, channels) float32; smoothed in front of a reduction.
    """
    picture = np.asarray(picture, "float32")
    scale = side / min(picture.shape[:2])
    size = tuple(max(side, round(length * scale)) for length in picture.shape[:2])
    if size == picture.shape[:2]:
        return picture
    return ops.convert_to_numpy(ops.image.resize(picture[None], size, antialias=True)[0])


def center_crop(picture, height, width):
    """The middle (height, width, channels) of a picture that is not smaller."""
    top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    return picture[top : top + height, left : left + width]


def ten_crops(picture, height, width):
    """Four corners and the centre, and the same mirrored (Krizhevsky et al. 2012, section 4.1).

    Args:
        picture: (H, W, channels), not smaller than a crop. The paper takes the crops of the
            central square of a picture whose shorter side it resized to 256 pixels.
        height, width: of the crops.

    Returns:
        (10, height, width, channels): top left, top right, bottom left, bottom right, centre;
        then these five mirrored.
    """
    crops = [
        picture[:height, :width],
        picture[:height, -width:],
        picture[-height:, :width],
        picture[-height:, -width:],
        center_crop(picture, height, width),
    ]
    return np.stack(crops + [crop[:, ::-1] for crop in crops])


def picture_predictor(network, mode="single", sides=None):
    """Makes the function from a picture of any size to its class probabilities.

    In every mode the picture is resized, its aspect ratio kept, so that its shorter side has each
    of the `sides` in turn; probabilities, the softmax of the scores, are averaged over all views of
    all sides.

    - "single": the middle of the picture, of the size that the network takes.
    - "ten_crop": of the picture's central square four corners and the centre, mirrored too
      (Krizhevsky et al. 2012, section 4.1). ResNet and DenseNet on ImageNet (He et al. 2015,
      tables 2 and 3; Huang et al. 2017, table 3) are reported so as well.
    - "dense": the whole picture and its mirror image go through `to_dense(network)`; all places
      count alike (Simonyan and Zisserman 2014, section 3.2). For a network trained on pictures
      whose shorter side was S the paper tests at S, or at S - 32, S and S + 32.

    Args:
        network: functional `keras.Model` from images (B, h, w, channels) to logits (B, C), or to a
            dict with such "predictions".
        mode: "single", "ten_crop" or "dense".
        sides: list of ints, in pixels. None: one, 256/224 of the crop's shorter side, rounded.

    Returns:
        A function from a picture (H, W, channels), 0 to 255, to (C,) float32, which sums to 1.

    Raises:
        ValueError: another mode, a network without a known image size, or a side that is
            smaller than the crop.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}; received: {mode}")
    height, width = network.input_shape[1:3]
    if height is None or width is None:
        raise ValueError(
            "network must have images of known size, that of the crops; "
            f"received: image_shape={tuple(network.input_shape[1:])}"
        )
    sides = [round(min(height, width) * 256 / 224)] if sides is None else list(sides)
    if not sides or min(sides) < max(height, width):
        raise ValueError(
            f"sides must be at least {max(height, width)} pixels, the size of the crops; "
            f"received: {sides}"
        )
    model = to_dense(network) if mode == "dense" else network

    def predict(picture):
        probabilities = []
        for side in sides:
            resized = resize_shorter_side(picture, side)
            if mode == "dense":
                views = np.stack([resized, resized[:, ::-1]])
            elif mode == "ten_crop":
                views = ten_crops(center_crop(resized, side, side), height, width)
            else:
                views = center_crop(resized, height, width)[None]
            logits = model.predict_on_batch(views)
            if isinstance(logits, dict):
                logits = logits["predictions"]
            softmax = ops.convert_to_numpy(ops.softmax(logits, axis=-1))
            probabilities.append(softmax.reshape(-1, softmax.shape[-1]).mean(axis=0))
        return np.mean(probabilities, axis=0)

    return predict
