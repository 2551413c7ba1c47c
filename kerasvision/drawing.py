"""Boxes on pictures, sheets of pictures, and curves."""

import cv2
import numpy as np
from matplotlib.figure import Figure

# Okabe and Ito's colours, made for the colour-blind, and lighter and darker ones for more classes.
PALETTE = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0),
    (204, 121, 167), (255, 255, 255), (140, 86, 75), (170, 255, 195), (128, 0, 128), (120, 120, 120),
)  # fmt: skip
FONT = cv2.FONT_HERSHEY_SIMPLEX


def color_of(label):
    """RGB colour of a class, always the same."""
    return PALETTE[label % len(PALETTE)]


def draw_boxes(image, boxes, labels, class_names, scores=None):
    """Draws boxes with class names, and scores if given.

    Args:
        image: (H, W, 3) RGB, 0 to 255; it stays as it is.
        boxes: (N, 4) (ymin, xmin, ymax, xmax) divided by the image's height and width.
        labels: (N,) indices into `class_names`; negative ones are not drawn.
        class_names: list of names.
        scores: optional (N,).

    Returns:
        (H, W, 3) uint8.
    """
    drawn = np.ascontiguousarray(np.clip(image, 0, 255), dtype=np.uint8).copy()
    height, width = drawn.shape[:2]
    thickness = max(1, round(min(height, width) / 250))
    font_scale = max(0.35, min(height, width) / 900)
    boxes = np.clip(np.asarray(boxes, "float64").reshape(-1, 4), 0.0, 1.0)
    labels = np.asarray(labels).reshape(-1)
    # The best last, so that it is on top.
    order = range(len(labels)) if scores is None else np.argsort(scores)
    for i in order:
        if labels[i] < 0:
            continue
        color = color_of(int(labels[i]))
        ymin, xmin, ymax, xmax = (boxes[i] * [height, width, height, width]).round().astype(int)
        ymax, xmax = min(ymax, height - 1), min(xmax, width - 1)
        cv2.rectangle(drawn, (xmin, ymin), (xmax, ymax), color, thickness)
        text = class_names[int(labels[i])]
        if scores is not None:
            text += f" {scores[i]:.2f}"
        (text_width, text_height), base = cv2.getTextSize(text, FONT, font_scale, 1)
        # The tag sits on the box, or inside it where the picture ends.
        tag_height = text_height + base + 2
        top = ymin - tag_height if ymin >= tag_height else min(ymin, max(0, height - tag_height))
        left = max(0, min(xmin, width - text_width - 4))
        cv2.rectangle(drawn, (left, top), (left + text_width + 3, top + tag_height), color, -1)
        dark_text = sum(color) > 330
        cv2.putText(
            drawn,
            text,
            (left + 2, top + text_height + 1),
            FONT,
            font_scale,
            (0, 0, 0) if dark_text else (255, 255, 255),
            1,
            cv2.LINE_AA,
        )
    return drawn


def contact_sheet(rows, path, titles, groups=2, cell=320, margin=6):
    """Saves pictures that belong together side by side, several such groups in a row.

    Args:
        rows: list of tuples of pictures (H, W, 3), RGB uint8, of any size.
        path: of the PNG.
        titles: a title for each picture of a tuple.
        groups: tuples in a row of the sheet.
        cell: largest side of a picture on the sheet, in pixels.
        margin: between the pictures, in pixels.

    Returns:
        The sheet, (H, W, 3) uint8.
    """
    title_height = 28
    columns = groups * len(titles)
    lines = -(-len(rows) // groups)
    sheet = np.full(
        (
            title_height + lines * (cell + margin) + margin,
            columns * (cell + margin) + margin,
            3,
        ),
        255,
        np.uint8,
    )
    for column in range(columns):
        left = margin + column * (cell + margin)
        title = titles[column % len(titles)]
        cv2.putText(sheet, title, (left, 20), FONT, 0.55, (0, 0, 0), 1, cv2.LINE_AA)
    for i, pictures in enumerate(rows):
        for j, picture in enumerate(pictures):
            scale = cell / max(picture.shape[:2])
            size = [max(1, round(side * scale)) for side in picture.shape[1::-1]]
            shrink = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
            picture = cv2.resize(picture, size, interpolation=shrink)
            top = title_height + margin + (i // groups) * (cell + margin)
            left = margin + ((i % groups) * len(titles) + j) * (cell + margin)
            sheet[top : top + size[1], left : left + size[0]] = picture
    if not cv2.imwrite(str(path), sheet[:, :, ::-1]):
        raise OSError(f"{path}: the picture can't be written")
    return sheet


def plot_history(history, path):
    """Saves the curves of a training: the losses, and beside them AP over the epochs.

    Args:
        history: dict of name to one value an epoch; None where an epoch has none. Names with
            "loss" go to the left, those with "AP" to the right.
        path: of the PNG.
    """
    figure = Figure(figsize=(11, 4), layout="constrained")
    for axes, part, label in zip(figure.subplots(1, 2), ("loss", "AP"), ("loss", "AP (COCO)")):
        for name, values in history.items():
            points = [(i + 1, value) for i, value in enumerate(values) if value is not None]
            if part in name and points:
                axes.plot(*zip(*points), label=name, marker="." if len(points) < 30 else None)
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    figure.axes[1].set_ylim(0, 1)
    figure.savefig(path, dpi=110)
