"""Decoding of picture files, in TensorFlow graphs and one by one."""

import itertools

import cv2
import numpy as np
import PIL.ExifTags
import PIL.Image
import tensorflow as tf


def decode(encoded, at_least=None):
    """Decodes a JPEG, PNG, GIF (first frame), BMP or WebP file of any channel layout to RGB.

    Grey, palette and CMYK pictures become RGB, 16 bits become 8, transparency is dropped; an
    EXIF orientation is not applied.

    Args:
        encoded: () string tensor, the bytes of a file.
        at_least: optional (height, width) in pixels: a JPEG larger than this is shrunk by 2, 4
            or 8 while it is decoded, which is faster, and still comes out no smaller than this.

    Returns:
        (height, width, 3) uint8 tensor.

    Raises:
        tf.errors.InvalidArgumentError: the file is truncated, no picture or of another format.
    """

    def decode_jpeg():
        def decode_shrunk(ratio):
            return lambda: tf.io.decode_jpeg(
                encoded, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE"
            )

        if at_least is None:
            return decode_shrunk(1)()
        size = tf.io.extract_jpeg_shape(encoded)[:2]
        ratio = tf.reduce_min(size // tf.constant(at_least, tf.int32))
        return tf.case(
            [(ratio >= r, decode_shrunk(r)) for r in (8, 4, 2)], default=decode_shrunk(1)
        )

    image = tf.cond(
        tf.io.is_jpeg(encoded),
        decode_jpeg,
        lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
    )
    return tf.ensure_shape(image, (None, None, 3))


def size(encoded):
    """Returns the (2,) int32 tensor (height, width) in pixels of a picture file.

    A JPEG is not decoded for it, so that it may be truncated.

    Args:
        encoded: () string tensor; the formats of `decode`.

    Raises:
        tf.errors.InvalidArgumentError: no picture or of another format.
    """
    return tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.extract_jpeg_shape(encoded)[:2],
        lambda: tf.shape(decode(encoded))[:2],
    )


def check(encoded):
    """Decodes all of an eager () string tensor and returns (height, width) in pixels.

    Raises:
        tf.errors.InvalidArgumentError: as `decode`.
    """
    if tf.io.is_jpeg(encoded):
        # An eighth of the size reads every byte of the file at a fraction of the cost.
        tf.io.decode_jpeg(encoded, channels=3, ratio=8)
    height, width = size(encoded).numpy()
    return int(height), int(width)


def quarter_turns(path):
    """Returns how often a decoded file is to be turned by 90 degrees, anticlockwise, to be upright.

    Cameras write a picture as the sensor lay, and in EXIF's orientation how it is to be turned.
    A file without it, or with one that cannot be read, stays as it is.
    """
    try:
        with PIL.Image.open(path) as picture:
            orientation = picture.getexif().get(PIL.ExifTags.Base.Orientation)
    except Exception:  # Broken EXIF data raises anything.
        return 0
    return {3: 2, 6: 3, 8: 1}.get(orientation, 0)


def read_files(paths, unreadable):
    """Yields (file name, RGB picture (H, W, 3) uint8) of the readable files, upright.

    Args:
        paths: list of `pathlib.Path`.
        unreadable: list to which a line for each other file is added.
    """
    for path in paths:
        try:
            if path.suffix.lower() == ".pgm":  # which TensorFlow doesn't read
                picture = np.asarray(PIL.Image.open(path).convert("RGB"))
            else:
                picture = decode(path.read_bytes()).numpy()
            turns = quarter_turns(path)
        except (tf.errors.InvalidArgumentError, OSError):
            size = path.stat().st_size
            unreadable.append(f"{path}: not a readable picture, left out; received: {size} bytes")
            continue
        yield path.name, np.rot90(picture, turns)


def read_frames(video, stem):
    """Yields (frame name, RGB picture (H, W, 3) uint8) of an open `cv2.VideoCapture`."""
    for number in itertools.count():
        ok, frame = video.read()
        if not ok:
            return
        yield f"{stem}_{number:06d}", frame[:, :, ::-1]


def as_input(picture, max_side, channels=3):
    """A picture as networks of any size take it: not too large, in grey if they want one channel.

    Args:
        picture: (H, W, 3) RGB uint8.
        max_side: a larger side is shrunk to it, and the other one alike; 0: nothing is shrunk.
        channels: 3 or 1.

    Returns:
        (h, w, channels) float32, 0 to 255.
    """
    height, width = picture.shape[:2]
    if max_side and max(height, width) > max_side:
        scale = max_side / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    picture = np.asarray(picture, "float32")
    return picture.mean(axis=-1, keepdims=True) if channels == 1 else picture
