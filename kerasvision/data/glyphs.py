"""Letters of many alphabets, as typefaces draw them: many classes with few pictures each.

What Omniglot is for Koch et al. 2015 ("Siamese Neural Networks for One-shot Image Recognition"),
without a download: the typefaces are those that come with matplotlib.
"""

import functools
import pathlib
import unicodedata

import cv2
import matplotlib
import numpy as np
import tensorflow as tf
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

from kerasvision.data.classification import ClassificationDataset

FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique",
    "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique",
    "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic",
    "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta",
)  # fmt: skip
# Whole alphabets are held out, as of Omniglot. The first words of the letters' names in Unicode.
ALPHABETS = {
    "train": ("LATIN", "GREEK", "CYRILLIC"),
    "val": ("ARMENIAN",),
    "test": ("GEORGIAN", "ARABIC", "LAO"),
}
SIDE = 32  # of a picture, in pixels
INK = 26  # the longer side of the letter in it
DRAWN = 64  # size of the typeface from which it is shrunk
LEAST_FONTS = 4  # that have a letter, lest it be left out
ALIKE = 0.95  # correlation above which two letters are the same one, as Latin and Greek capital A


def load_glyphs(name, split):
    """Draws letters, 32 x 32 grey, white on black, one class a letter, one picture a typeface.

    Letters fill the picture, so that a small o is like a capital: of letters that look alike in
    the first typeface that has them the first of the split is kept. No digit is among them, which
    leaves `digits` to be judged by.

    Args:
        name: name of the data set in reports.
        split: `train` (Latin, Greek and Cyrillic), `val` (Armenian) or `test` (Georgian, Arabic
            and Lao): no letter is in two of them.

    Returns:
        A `ClassificationDataset`; classes have their letters' names in Unicode. The file name is
        glyphs/SPLIT/LETTER/TYPEFACE.

    Raises:
        ValueError: there is no such split.
    """
    if split not in ALPHABETS:
        raise ValueError(f"{name}: split must be one of: {', '.join(ALPHABETS)}; received: {split}")
    letters = _letters(ALPHABETS[split])
    encoded, labels, file_names = [], [], []
    for label, (letter, drawn) in enumerate(letters.items()):
        for font, picture in drawn.items():
            encoded.append(cv2.imencode(".png", picture)[1].tobytes())
            labels.append(label)
            file_names.append(f"{name}/{split}/{letter}/{font}")
    class_names = [unicodedata.name(letter).lower() for letter in letters]
    return ClassificationDataset(
        name, split, class_names, labels, file_names, [], stream=tf.constant(encoded)
    )


@functools.cache
def _letters(alphabets):
    """{letter: {typeface: its picture, (SIDE, SIDE) uint8}}, without those that look alike."""
    folder = pathlib.Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    typefaces = {
        font: (
            FT2Font(str(folder / f"{font}.ttf")).get_charmap(),
            ImageFont.truetype(str(folder / f"{font}.ttf"), DRAWN),
        )
        for font in FONTS
    }
    candidates = sorted(set.union(*(set(charmap) for charmap, _ in typefaces.values())))
    kept, seen = {}, np.zeros((0, SIDE * SIDE))
    for letter in map(chr, candidates):
        # Upper, lower and other letters; an accented one is its letter and something above it.
        if unicodedata.category(letter) not in ("Lu", "Ll", "Lo"):
            continue
        if unicodedata.decomposition(letter):
            continue
        if unicodedata.name(letter, "none").split()[0] not in alphabets:
            continue
        drawn = {
            font: _draw(letter, typeface)
            for font, (charmap, typeface) in typefaces.items()
            if ord(letter) in charmap
        }
        if len(drawn) < LEAST_FONTS:
            continue
        shape = next(iter(drawn.values())).astype(float).reshape(1, -1)
        shape -= shape.mean()
        shape /= np.linalg.norm(shape)
        if np.any(seen @ shape[0] > ALIKE):
            continue
        seen = np.concatenate([seen, shape])
        kept[letter] = drawn
    return kept


def _draw(letter, typeface):
    """A letter of a `PIL.ImageFont`, in the middle of a picture (SIDE, SIDE) uint8."""
    image = Image.new("L", (4 * DRAWN, 4 * DRAWN))
    ImageDraw.Draw(image).text((DRAWN, DRAWN), letter, 255, typeface)
    image = image.crop(image.getbbox())
    scale = INK / max(image.size)
    width, height = (max(1, round(scale * side)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BOX)
    picture = Image.new("L", (SIDE, SIDE))
    picture.paste(image, ((SIDE - width) // 2, (SIDE - height) // 2))
    return np.asarray(picture)
