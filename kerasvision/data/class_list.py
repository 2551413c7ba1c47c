"""What the values and colours in label files of semantic segmentation mean."""

import colorsys
import dataclasses
import pathlib
import re

import numpy as np

from kerasvision.data.classification import listed

# Of encoded labels, whose other values are the classes from 0.
VOID = 255
# The eleven classes of the SegNet paper and their values in its labels.
CAMVID_CLASSES = """
0 sky 128 128 128
1 building 128 0 0
2 pole 192 192 128
3 road 128 64 128
4 pavement 60 40 222
5 tree 128 128 0
6 sign symbol 192 128 128
7 fence 64 64 128
8 car 64 0 128
9 pedestrian 64 64 0
10 bicyclist 0 128 192
11 void 0 0 0
"""


@dataclasses.dataclass
class ClassList:
    """What the values in label files mean.

    Attributes:
        source: where the list comes from, for reports.
        names: C str.
        colors: (C, 3) uint8 RGB.
        by_value: dictionary from the value of a pixel to its class, or `VOID`.
        by_color: dictionary from the colour of a pixel, as the integer 0xRRGGBB, to its class, or
            `VOID`; empty if labels have no colours.
    """

    source: str
    names: list
    colors: np.ndarray
    by_value: dict
    by_color: dict


def palette(count):
    """Returns `count` RGB colours (count, 3) uint8 that differ in hue and lightness."""
    colors = []
    for i in range(count):
        # Steps of the golden ratio never come back to a hue, and spread them evenly.
        hue = (0.58 + i * 0.618034) % 1
        lightness, saturation = ((0.55, 0.7), (0.72, 0.75), (0.36, 0.8))[i % 3]
        colors.append(colorsys.hls_to_rgb(hue, lightness, saturation))
    return np.round(255 * np.array(colors)).astype(np.uint8).reshape(-1, 3)


def read_class_list(class_list):
    """Reads what the values in label files mean.

    A line is `value name` or `value name red green blue`: the value of the pixels, 0 to 65535,
    the name of their class, which may have spaces, and its colour, for labels that are
    colour-coded. Classes are numbered in the order of the lines. Lines of the same name are one
    class; `void` is none, its pixels are ignored. Empty lines and those that begin with # are
    passed over.

    Args:
        class_list: path of a text file; or the text itself, with line feeds or " / " between the
            lines.

    Returns:
        A `ClassList`; its colours are those of `palette` if the lines have none.

    Raises:
        ValueError: the file cannot be read, or a line breaks a rule.
    """
    text, source = str(class_list), "the class list"
    if "\n" not in text and " / " not in text:
        source = text
        try:
            text = pathlib.Path(class_list).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(
                f"{source}: must be a text file of classes, or 'value name / value name'; "
                f"received: {getattr(error, 'strerror', None) or 'no text'}"
            ) from error
    names, colors, by_value, by_color = [], {}, {}, {}
    for number, line in enumerate(re.split(r"\n| / ", text), start=1):
        if not line.strip() or line.strip().startswith("#"):
            continue
        where = f"{source}, line {number}"
        found = re.fullmatch(r"(\d+)\s+(\S.*?)(?:\s+(\d+)\s+(\d+)\s+(\d+))?", line.strip())
        if not found or int(found[1]) > 65535 or any(int(c or 0) > 255 for c in found.groups()[2:]):
            raise ValueError(
                f"{where}: must be 'value name' or 'value name red green blue', the value 0 to "
                f"65535, colours 0 to 255; received: {line.strip()}"
            )
        value, name = int(found[1]), found[2]
        if value in by_value:
            raise ValueError(f"{where}: a value must have one line; received: {value} again")
        if name != "void" and name not in names:
            names.append(name)
        by_value[value] = VOID if name == "void" else names.index(name)
        if found[3]:
            color = tuple(int(channel) for channel in found.groups()[2:])
            code = color_codes(np.array(color))
            if code in by_color:
                raise ValueError(f"{where}: a colour must have one line; received: {color} again")
            by_color[int(code)] = by_value[value]
            colors.setdefault(name, color)
    if not 2 <= len(names) < VOID:
        raise ValueError(
            f"{source}: must name 2 to {VOID - 1} classes besides void; received: {len(names)}"
        )
    bare = [name for name in names if name not in colors]
    if bare and len(bare) < len(names):
        raise ValueError(
            f"{source}: all classes must have a colour, or none; received: none of {listed(bare)}"
        )
    if bare:
        return ClassList(source, names, palette(len(names)), by_value, {})
    table = np.array([colors[name] for name in names], np.uint8)
    return ClassList(source, names, table, by_value, by_color)


def color_codes(colors):
    """Colours (..., 3) as integers (...) 0xRRGGBB."""
    return colors.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
