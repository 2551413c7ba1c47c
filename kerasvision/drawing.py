"""Boxes, masks, keypoints and labels on pictures, sheets of pictures, curves, plots of scores."""

import pathlib

import cv2
import matplotlib
import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from kerasvision.ops.masks import paste_mask

# Colours that the colour-blind can tell apart: Okabe and Ito's seven, and three of Paul Tol's.
PALETTE = (
    (86, 180, 233),  # sky blue
    (230, 159, 0),  # orange
    (0, 158, 115),  # bluish green
    (204, 121, 167),  # reddish purple
    (213, 94, 0),  # vermillion
    (0, 114, 178),  # blue
    (240, 228, 66),  # yellow
    (136, 34, 85),  # wine
    (221, 221, 221),  # pale grey
    (51, 34, 136),  # indigo
)
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
RIGHT, WRONG = (0, 128, 94), (190, 70, 0)  # bluish green and vermillion, dark enough for text
MIN_FONT_SIZE = 9  # in pixels; smaller text can't be read
MASK_OPACITY = 0.5
# Of the best cell of thousands: one that is sure of a keypoint spreads it over some neighbours.
MIN_KEYPOINT_PROBABILITY = 0.05


def color_of(label):
    """RGB colour of a class: from the palette, then lighter ones, then darker ones, and again."""
    color = np.array(PALETTE[label % len(PALETTE)])
    shade = (color, (color + WHITE) // 2, color * 2 // 3)[label // len(PALETTE) % 3]
    return tuple(shade.tolist())


def contrast_of(color):
    """Black or white, whichever is seen better on `color`."""
    return BLACK if np.dot(color, (0.299, 0.587, 0.114)) > 120 else WHITE


def render_text(text, size, color, background):
    """One line of text, (H, W, 3) uint8, with a margin left and right; `size` is in pixels."""
    # OpenCV's own letters are ASCII only; this font comes with matplotlib.
    path = pathlib.Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    font = ImageFont.truetype(str(path), size)
    margin = round(size / 4)
    width = round(font.getlength(text)) + 2 * margin
    picture = Image.new("RGB", (width, sum(font.getmetrics())), background)
    ImageDraw.Draw(picture).text((margin, 0), text, fill=color, font=font)
    return np.asarray(picture)


def draw_boxes(image, boxes, labels, class_names, scores=None, masks=None, keypoints=None):
    """Draws boxes with class names, and scores, masks and keypoints if given.

    Width of lines and size of text go with the size of the picture. A tag stands above its box,
    or below or in it where the picture ends or another tag is; better-scored boxes come first.
    A picture too small for text that can be read gets no tags. Masks have a contour, and are
    filled half transparently in the class's colour, from left to right in turn as it is, lighter
    and darker. Keypoints are dots, hidden ones rings, number p of all objects in one colour.

    Args:
        image: (H, W, 3) RGB, uint8 or float, 0 to 255; it stays as it is.
        boxes: (N, 4) (ymin, xmin, ymax, xmax) divided by the image's height and width. They are
            clipped to the picture; what is then empty, and what is not finite, is not drawn.
        labels: (N,) indices into `class_names`; -1 is padding, not drawn.
        class_names: list of names.
        scores: optional (N,).
        masks: optional (N, h, w), 0 to 1 on a grid over the box; see
            `kerasvision.ops.masks.paste_mask`.
        keypoints: optional (N, P, 3): y and x divided by the image's height and width; and how
            visible: 0 is not drawn, 1 hidden, 2 visible; or, if there are scores, the
            probability, of which less than `MIN_KEYPOINT_PROBABILITY` is not drawn.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: the image is not RGB, or a label has no name.
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image: must have shape (height, width, 3); received: {image.shape}")
    labels = np.asarray(labels, "int64").reshape(-1)
    if labels.size and labels.max() >= len(class_names):
        raise ValueError(
            f"labels: must be below {len(class_names)}, the number of class names; "
            f"received: {labels.max()}"
        )
    if image.dtype == np.uint8:
        drawn = image.copy()
    else:
        drawn = np.clip(np.rint(image), 0, 255).astype("uint8", order="C")
    height, width = drawn.shape[:2]
    boxes = np.asarray(boxes, "float64").reshape(-1, 4)
    inside = np.clip(boxes, 0.0, 1.0)
    visible = (labels >= 0) & (inside[:, 2] > inside[:, 0]) & (inside[:, 3] > inside[:, 1])
    visible &= np.isfinite(boxes).all(axis=1)
    order = np.arange(len(labels)) if scores is None else np.argsort(-np.asarray(scores))
    order = order[visible[order]]  # the best first
    # The box in pixels: its first row and column, and those just behind it; at least one pixel.
    scaled = inside[order] * [height, width, height, width]
    starts = np.minimum(np.rint(scaled[:, :2]), [height - 1, width - 1]).astype(int)
    ends = np.maximum(np.rint(scaled[:, 2:]).astype(int), starts + 1)
    corners = np.concatenate([starts, ends], axis=1)

    # The best is drawn last, on top of the others.
    if masks is not None:
        _draw_masks(drawn, np.asarray(masks)[order[::-1]], boxes[order[::-1]], labels[order[::-1]])
    for i, box in zip(order[::-1], corners[::-1]):
        _draw_box(drawn, box, color_of(labels[i]))
    if keypoints is not None:
        points = np.array(keypoints, "float64")[order[::-1]]
        if scores is not None:
            points[..., 2] = np.where(points[..., 2] >= MIN_KEYPOINT_PROBABILITY, 2, 0)
        _draw_keypoints(drawn, points)
    texts = [
        class_names[labels[i]] + ("" if scores is None else f" {scores[i]:.2f}") for i in order
    ]
    _draw_tags(drawn, corners, texts, [color_of(labels[i]) for i in order])
    return drawn


def _part_of_side(picture, divisor):
    """A part of a picture's side in pixels, at least one."""
    return max(1, round((picture.shape[0] * picture.shape[1]) ** 0.5 / divisor))


def _draw_masks(drawn, masks, boxes, labels):
    """Fills masks half transparently, the last on top."""
    thickness = _part_of_side(drawn, 250)
    for mask, box, label in zip(masks, boxes, labels):
        color = color_of(label)
        # Neighbours of the same class differ in their shade, from left to right.
        number = np.sum((labels == label) & (boxes[:, 1] < box[1]))
        shade = (color, np.add(color, WHITE) / 2, np.multiply(color, 0.6))[number % 3]
        (rows, columns), covered = paste_mask(mask, box, drawn.shape[:2])
        if not covered.any():
            continue
        view = drawn[rows, columns]
        mixed = (1 - MASK_OPACITY) * view[covered] + MASK_OPACITY * np.asarray(shade)
        view[covered] = np.rint(mixed).astype("uint8")
        outlines, _ = cv2.findContours(
            covered.astype("uint8"),
            cv2.RETR_CCOMP,  # also around holes
            cv2.CHAIN_APPROX_NONE,
            offset=(columns.start, rows.start),
        )
        cv2.drawContours(drawn, outlines, -1, color, thickness)


def _draw_box(drawn, box, color):
    """Draws the lines of a box (top, left, bottom, right) in pixels, inside of it."""
    top, left, bottom, right = box
    thickness = _part_of_side(drawn, 180)
    # A thin contour around the line shows the box on a ground of its own colour.
    if thickness > 2:
        view = drawn[max(top - 1, 0) : bottom + 1, max(left - 1, 0) : right + 1]
        view[:1] = view[-1:] = view[:, :1] = view[:, -1:] = contrast_of(color)
    view = drawn[top:bottom, left:right]
    view[:thickness] = view[-thickness:] = color
    view[:, :thickness] = view[:, -thickness:] = color


def _draw_keypoints(drawn, keypoints):
    """Draws keypoints (N, P, 3), (y, x, visibility): dots, and rings if hidden."""
    height, width = drawn.shape[:2]
    radius = max(3, _part_of_side(drawn, 110))  # the smallest in which a hole is seen
    for points in keypoints:
        for number, (y, x, visibility) in enumerate(points):
            if visibility == 0 or not (0 <= y <= 1 and 0 <= x <= 1):
                continue
            color = PALETTE[number % len(PALETTE)]
            place = (min(int(x * width), width - 1), min(int(y * height), height - 1))
            cv2.circle(drawn, place, radius + 1, contrast_of(color), -1, cv2.LINE_AA)
            cv2.circle(drawn, place, radius, color, -1, cv2.LINE_AA)
            if visibility == 1:
                cv2.circle(drawn, place, radius // 2, contrast_of(color), -1, cv2.LINE_AA)


def _draw_tags(drawn, corners, texts, colors):
    """Draws the texts at their boxes (top, left, bottom, right), the first ones on top."""
    height, width = drawn.shape[:2]
    font_size = max(MIN_FONT_SIZE + 2, _part_of_side(drawn, 32))
    tags = []
    for (top, left, bottom, _), text, color in zip(corners, texts, colors):
        for size in range(font_size, MIN_FONT_SIZE - 1, -1):
            tag = render_text(text, size, contrast_of(color), color)
            tag_height, tag_width = tag.shape[:2]
            if tag_width <= width and 4 * tag_height <= height:
                break
        else:
            continue
        above, below, inside = top - tag_height, bottom, top
        # A tag in a small box would hide the object.
        is_small = bottom - top < 4 * tag_height
        places = [
            (y, min(left, width - tag_width))
            for y in ([above, below, inside] if is_small else [above, inside, below])
            if 0 <= y <= height - tag_height
        ]
        free = [
            (y, x)
            for y, x in places
            if not any(
                y < other_y + other.shape[0]
                and other_y < y + tag_height
                and x < other_x + other.shape[1]
                and other_x < x + tag_width
                for other_y, other_x, other in tags
            )
        ]
        y, x = (free or places)[0]
        tags.append((y, x, tag))
    for y, x, tag in reversed(tags):
        drawn[y : y + tag.shape[0], x : x + tag.shape[1]] = tag


def save(image, path):
    """Writes an RGB picture (H, W, 3) uint8, or a grey one (H, W), as its suffix says.

    Raises:
        OSError: the file can't be written.
    """
    if not cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image):
        raise OSError(f"{path}: must be a file that can be written")


def animate(frames, path, frames_a_second):
    """Writes pictures one after another: an animated GIF that begins again, or an MP4.

    Args:
        frames: list of (H, W, 3) RGB uint8, of one size.
        path: ends with .gif or .mp4. Of an MP4 odd sides lose a row or column of pixels.
        frames_a_second: how many.

    Raises:
        OSError: the file can't be written.
        ValueError: another suffix, or frames below 16 pixels for an MP4.
    """
    path = pathlib.Path(path)
    if path.suffix == ".gif":
        first, *others = (Image.fromarray(frame) for frame in frames)
        milliseconds = round(1000 / frames_a_second)
        first.save(path, save_all=True, append_images=others, duration=milliseconds, loop=0)
        return
    if path.suffix != ".mp4":
        raise ValueError(f"path: must end with .gif or .mp4; received: {path}")
    height, width = (side // 2 * 2 for side in frames[0].shape[:2])
    if min(height, width) < 16:
        raise ValueError(
            f"frames: must have 16 x 16 pixels or more for an MP4; received: {frames[0].shape[:2]}"
        )
    codec = cv2.VideoWriter_fourcc(*"mp4v")
    video = cv2.VideoWriter(str(path), codec, frames_a_second, (width, height))
    if not video.isOpened():
        raise OSError(f"{path}: must be a file that can be written")
    for frame in frames:
        video.write(np.ascontiguousarray(frame[:height, :width, ::-1]))
    video.release()


def contact_sheet(rows, path, titles, groups=2, cell=400, margin=8):
    """Lays pictures that belong together side by side, several such groups in a row.

    All columns are as wide as the widest scaled picture, a row is as high as its highest one, and
    a picture stands in the middle of its cell. Titles stand above the columns. Between groups the
    margin is twice as wide.

    Args:
        rows: list of groups: tuples of one picture a title, (H, W, 3) RGB uint8, of any size.
            Larger ones are scaled down to `cell`; smaller ones are enlarged by whole factors,
            which keeps lines and text crisp.
        path: of the PNG, or None to save nothing.
        titles: names of the pictures of a group.
        groups: number of groups in a row of the sheet, if there are as many.
        cell: largest side of a picture on the sheet, in pixels.
        margin: around each picture, in pixels.

    Returns:
        The sheet, (H, W, 3) uint8.

    Raises:
        ValueError: a group has not one picture a title.
        OSError: the file can't be written.
    """
    scaled = []
    for pictures in rows:
        if len(pictures) != len(titles):
            raise ValueError(
                f"rows: a group must have {len(titles)} pictures, one a title; "
                f"received: {len(pictures)}"
            )
        for picture in pictures:
            scaled.append(_fitted(picture, cell))
    columns = len(titles) * min(groups, max(1, len(rows)))
    lines = [scaled[start : start + columns] for start in range(0, len(scaled), columns)]

    cell_width = max((picture.shape[1] for picture in scaled), default=cell)
    lefts = [
        margin + column * (cell_width + margin) + column // len(titles) * margin
        for column in range(columns)
    ]
    title_height = 32
    heights = [max(picture.shape[0] for picture in line) for line in lines]
    sheet = np.full(
        (
            title_height + sum(heights) + margin * max(1, len(lines)),
            lefts[-1] + cell_width + margin,
            3,
        ),
        255,
        "uint8",
    )
    for column, left in enumerate(lefts):
        text = render_text(titles[column % len(titles)], 18, BLACK, WHITE)[:, :cell_width]
        sheet[4 : 4 + text.shape[0], left : left + text.shape[1]] = text
    top = title_height
    for line, line_height in zip(lines, heights):
        for left, picture in zip(lefts, line):
            height, width = picture.shape[:2]
            y, x = top + (line_height - height) // 2, left + (cell_width - width) // 2
            sheet[y : y + height, x : x + width] = picture
        top += line_height + margin
    if path is not None:
        save(sheet, path)
    return sheet


def _fitted(picture, cell):
    """The picture scaled down to `cell` pixels, or enlarged by a whole factor."""
    height, width = picture.shape[:2]
    scale = cell / max(height, width)
    scale = scale if scale < 1 else int(scale)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    return cv2.resize(picture, size, interpolation=way)


def shortened(name, length=24):
    """The name, or its beginning and "…" where it has more than `length` letters."""
    return name if len(name) <= length else name[: length - 1] + "…"


def captioned_sheet(pictures, captions, path, title="", columns=5, cell=200, margin=10):
    """Lays pictures out in rows, lines of text below each.

    A line too long for its cell is written smaller, and cut off where it can't be read.

    Args:
        pictures: list of (H, W, 3) RGB, uint8 or float 0 to 255, of any size: scaled down to
            `cell`, or enlarged by a whole factor.
        captions: for each picture a list of (text, RGB colour), a line each.
        path: of the PNG, or None to save nothing.
        title: stands above all.
        columns: pictures in a row.
        cell: largest side of a picture on the sheet, in pixels.
        margin: around each picture, in pixels.

    Returns:
        The sheet, (H, W, 3) uint8.

    Raises:
        ValueError: not as many captions as pictures.
        OSError: the file can't be written.
    """
    if len(captions) != len(pictures):
        raise ValueError(
            f"captions must be {len(pictures)}, one a picture; received: {len(captions)}"
        )
    line_height, title_height = 19, 34
    lines = max((len(caption) for caption in captions), default=0)
    row_height = cell + lines * line_height + margin
    rows = -(-len(pictures) // columns)
    sheet = np.full(
        (title_height + max(1, rows) * row_height, margin + columns * (cell + margin), 3),
        255,
        "uint8",
    )

    def write(text, color, top, left, width, size):
        line = render_text(text, size, color, WHITE)
        while line.shape[1] > width and len(text) > 1:
            if size > MIN_FONT_SIZE + 1:
                size -= 1
            else:
                text = text.removesuffix("…")[:-1] + "…"
            line = render_text(text, size, color, WHITE)
        sheet[top : top + line.shape[0], left : left + line.shape[1]] = line

    write(title, BLACK, 6, margin, sheet.shape[1] - 2 * margin, 18)
    for i, (picture, caption) in enumerate(zip(pictures, captions)):
        row, column = divmod(i, columns)
        top, left = title_height + row * row_height, margin + column * (cell + margin)
        picture = _fitted(np.clip(np.rint(picture), 0, 255).astype("uint8"), cell)
        height, width = picture.shape[:2]
        y, x = top + (cell - height) // 2, left + (cell - width) // 2
        sheet[y : y + height, x : x + width] = picture
        for number, (text, color) in enumerate(caption):
            write(text, color, top + cell + 1 + number * line_height, left, cell, 14)
    if path is not None:
        save(sheet, path)
    return sheet


def plot_confusion(matrix, class_names, path, unit="pictures"):
    """Saves a picture of a confusion matrix: a row a true class, a column a predicted one.

    The colour of a cell is its share of the row, on a scale of square roots, on which a few
    mistakes are seen; the number is that of the pictures, where it fits. Rows without pictures
    stay white. Of very many classes not each is named.

    Args:
        matrix: (C, C) integers, as of `kerasvision.metrics.confusion`.
        class_names: C names.
        path: of the PNG.
        unit: what was counted, in words.

    Raises:
        ValueError: the matrix is not (C, C).
    """
    matrix, count = np.asarray(matrix), len(class_names)
    if matrix.shape != (count, count):
        raise ValueError(
            f"matrix must be ({count}, {count}), as there are {count} class names; "
            f"received: {matrix.shape}"
        )
    pictures = matrix.sum(axis=1, keepdims=True)
    shares = np.ma.masked_invalid(
        np.divide(matrix, pictures, where=pictures > 0, out=np.full(matrix.shape, np.nan))
    )
    side = float(np.clip(0.55 * count, 4.0, 13.0))  # inches
    points = 72 * side / count  # of a cell
    names = [shortened(name) for name in class_names]
    figure = Figure(figsize=(side + 2.5, side + 2), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0.0, 1.0))
    figure.colorbar(image, ax=axes, label="share of the true class", fraction=0.04, pad=0.02)

    font_size = min(11.0, 0.75 * points)
    step = max(1, int(np.ceil(6.0 / font_size)))  # every class, or as many as can be read
    font_size = max(font_size, 6.0)
    shown = range(0, count, step)
    axes.set_xticks(shown, [names[i] for i in shown], fontsize=font_size)
    axes.set_yticks(shown, [names[i] for i in shown], fontsize=font_size)
    longest = max(map(len, names), default=0)
    if longest * 0.6 * font_size > points:
        axes.tick_params(axis="x", rotation=90)
    axes.set_xlabel("prediction")
    axes.set_ylabel("truth")

    digits = len(str(int(matrix.max(initial=0))))
    number_size = min(12.0, 0.8 * points / (0.6 * digits))
    if number_size >= 6:
        for y, x in zip(*np.nonzero(matrix)):
            axes.text(
                x,
                y,
                str(matrix[y, x]),
                ha="center",
                va="center",
                fontsize=number_size,
                color="white" if shares[y, x] > 0.35 else "black",
            )
    total = int(matrix.sum())
    accuracy = f"accuracy {matrix.trace() / max(total, 1):.3f}, {total} {unit}"
    axes.set_title(accuracy if total else f"no {unit}")
    figure.savefig(path, dpi=110, bbox_inches="tight")


def plot_history(history, path):
    """Saves the curves of a training: the losses, and beside them AP or accuracy over the epochs.

    Args:
        history: dict of name to one value an epoch, None where an epoch has none. Names that end
            in "loss" go to the left, those with "AP", "iou", "accuracy", "top", "eer", "rank" or
            "one_shot" to the right, others nowhere. A name with "val_" is drawn dashed in the
            colour of its counterpart without, if there is one.
        path: of the PNG.
    """
    parts = ("AP", "iou", "accuracy", "top", "eer", "rank", "one_shot")
    scores = [name for name in history if any(part in name for part in parts)]
    kinds = [
        words
        for part, words in (
            ("accuracy", "accuracy"),
            ("iou", "mean IoU"),
            ("AP", "average precision"),
            ("eer", "equal error rate"),
            ("rank", "rank-1"),
            ("one_shot", "one-shot accuracy"),
        )
        if any(part in name for name in scores)
    ]
    panels = {
        "loss": sorted((name for name in history if name.endswith("loss")), key=len),
        " and ".join(kinds): scores,
    }
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    for axes, (title, names) in zip(figure.subplots(1, 2, sharex=True), panels.items()):
        colors = {}
        for name in names:
            points = [
                (epoch, value)
                for epoch, value in enumerate(history[name], start=1)
                if value is not None
            ]
            if not points:
                continue
            base = name.removeprefix("val_")
            color = colors.setdefault(base, PALETTE[len(colors) % len(PALETTE)])
            is_dashed = base != name and base in history
            label = name.replace("_", " ")
            if title != "loss":
                better = min if "eer" in name else max
                epoch, best = better(points, key=lambda point: point[1])
                label = f"{label}: best {best:.3f} in epoch {epoch}"
            axes.plot(
                *zip(*points),
                color=np.array(color) / 255,
                linestyle="--" if is_dashed else "-",
                linewidth=2,
                marker="o" if len(points) <= 40 else None,
                markersize=4,
                markerfacecolor="white" if is_dashed else None,
                label=label,
            )
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.lines:
            axes.legend(frameon=False)
            if axes.dataLim.y0 >= 0:
                axes.set_ylim(bottom=0)
    axes.set_ylim(0, 1)
    figure.savefig(path, dpi=110)


def plot_histograms(values, path, label, line=None, bins=60):
    """Saves how often values lie where, a curve a kind, each of area 1.

    Args:
        values: dict of a kind's name to its values (N,), N from 1.
        path: of the PNG.
        label: of the values' axis.
        line: value at which a line is drawn, or None.
        bins: number of intervals, the same for all kinds.
    """
    edges = np.histogram_bin_edges(np.concatenate(list(values.values())), bins)
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, (name, own) in enumerate(values.items()):
        color = np.array(PALETTE[number % len(PALETTE)]) / 255
        heights, _ = np.histogram(own, edges, density=True)
        axes.stairs(heights, edges, fill=True, color=color, alpha=0.5, label=f"{name}: {len(own)}")
    if line is not None:
        axes.axvline(line, color="black", linestyle="--", label=f"{line:.3f}")
    axes.set_xlabel(label)
    axes.set_yticks([])
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


def plot_curves(curves, path, labels, points=None, log_x=False):
    """Saves curves in one panel, and points that are marked on it.

    Args:
        curves: dict of name to (x (N,), y (N,)).
        path: of the PNG.
        labels: of the two axes.
        points: optional dict of name to (x, y).
        log_x: whether x is drawn by its logarithm; x of 0 is then left out.
    """
    figure = Figure(figsize=(6.5, 5), layout="constrained")
    axes = figure.subplots()
    for number, (name, (x, y)) in enumerate(curves.items()):
        x, y = np.asarray(x), np.asarray(y)
        shown = x > 0 if log_x else np.ones(len(x), bool)
        color = np.array(PALETTE[number % len(PALETTE)]) / 255
        axes.plot(x[shown], y[shown], label=name, color=color, linewidth=2)
    for name, (x, y) in (points or {}).items():
        axes.plot([x], [y], "o", label=f"{name}: {x:.3g}, {y:.3f}", markersize=6)
    if log_x:
        axes.set_xscale("log")
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


def plot_map(points, labels, class_names, path, title=""):
    """Saves points in a plane, in a colour for each class, whose name stands at its middle.

    Args:
        points: (N, 2).
        labels: (N,) indices into `class_names`.
        class_names: list of str.
        path: of the PNG.
        title: above it.
    """
    figure = Figure(figsize=(8, 8), layout="constrained")
    axes = figure.subplots()
    points, labels = np.asarray(points), np.asarray(labels)
    for number, label in enumerate(np.unique(labels)):
        own = points[labels == label]
        color = np.array(PALETTE[number % len(PALETTE)]) / 255
        axes.scatter(*own.T, s=16, color=color, alpha=0.7)
        axes.annotate(class_names[label], own.mean(axis=0), ha="center", fontweight="bold")
    axes.set_title(title)
    axes.set_aspect("equal", "datalim")
    axes.set_xticks([])
    axes.set_yticks([])
    figure.savefig(path, dpi=110)


def overlay_heat_map(image, heat_map, opacity=0.5):
    """Lays a heat map over a picture, from blue, its lowest value, to red, its highest.

    Args:
        image: (H, W, 3) RGB, uint8 or float, 0 to 255; it stays as it is.
        heat_map: (h, w) of any range and resolution, enlarged bilinearly.
        opacity: of the heat map, 0 to 1.

    Returns:
        (H, W, 3) uint8.
    """
    height, width = image.shape[:2]
    heat = cv2.resize(np.asarray(heat_map, "float32"), (width, height))
    lowest, highest = heat.min(), heat.max()
    heat = (heat - lowest) / (highest - lowest) if highest > lowest else np.zeros_like(heat)
    colors = cv2.applyColorMap(np.rint(255 * heat).astype("uint8"), cv2.COLORMAP_JET)[:, :, ::-1]
    mixed = (1 - opacity) * np.asarray(image, "float32") + opacity * colors
    return np.clip(np.rint(mixed), 0, 255).astype("uint8")


def draw_points(image, points, color=WHITE):
    """Draws crosses with a contour that shows on any ground.

    Args:
        image: (H, W, 3) RGB, uint8 or float, 0 to 255; it stays as it is.
        points: (N, 2) (y, x) divided by the image's height and width.
        color: RGB.

    Returns:
        (H, W, 3) uint8.
    """
    drawn = np.clip(np.rint(image), 0, 255).astype("uint8")  # a copy
    height, width = drawn.shape[:2]
    side = (height * width) ** 0.5
    size, thickness = max(7, round(side / 16)), max(1, round(side / 120))
    for y, x in np.asarray(points, "float64").reshape(-1, 2):
        place = (min(int(x * width), width - 1), min(int(y * height), height - 1))
        for ink, extra in ((contrast_of(color), 2), (color, 0)):
            cv2.drawMarker(drawn, place, ink, cv2.MARKER_CROSS, size + extra, thickness + extra)
    return drawn


def overlay_labels(image, labels, colors, opacity=0.5):
    """Lays the colours of the pixels' classes over a picture; void is the picture, hatched.

    The diagonal lines over void, white with a black edge, are no class's colour and show on any
    ground; between them the picture stays as it is.

    Args:
        image: (H, W, 3) RGB, uint8 or float, 0 to 255; it stays as it is.
        labels: (H, W) integers, indices into `colors`; -1 is void.
        colors: (C, 3) RGB.
        opacity: of the colours and the lines, 0 to 1.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: labels of another size than the image's, or one without a colour.
    """
    image, labels = np.asarray(image, "float32"), np.asarray(labels)
    if image.shape != (*labels.shape, 3):
        raise ValueError(
            f"labels: must be one a pixel of the image {image.shape}; received: {labels.shape}"
        )
    if labels.max(initial=-1) >= len(colors):
        raise ValueError(
            f"labels: must be below {len(colors)}, the number of colors; received: {labels.max()}"
        )
    inks = np.asarray(colors, "float32")[labels]
    void, hatching = labels < 0, _hatching(labels.shape)
    inks[void & (hatching == 0)] = WHITE
    inks[void & (hatching == 1)] = BLACK
    painted = ~void | (hatching < 2)
    mixed = np.where(painted[..., None], (1 - opacity) * image + opacity * inks, image)
    return np.clip(np.rint(mixed), 0, 255).astype("uint8")


def _hatching(size):
    """Diagonal lines over (H, W) pixels: 0 in a line, 1 in its edge, 2 and 3 between them."""
    y, x = np.ogrid[: size[0], : size[1]]
    thickness = max(1, round((size[0] * size[1]) ** 0.5 / 150))
    return (y + x) // thickness % 4


def legend(class_names, colors, height, void=False):
    """Names of classes beside their colours, in columns, as high as the sheet it stands beside.

    `np.concatenate([sheet, legend(names, colors, len(sheet))], axis=1)` puts it on the right.

    Args:
        class_names: C names; long ones are shortened.
        colors: (C, 3) RGB.
        height: of the picture in pixels, at least 40.
        void: whether the hatching of `overlay_labels` stands below, as "void".

    Returns:
        (height, W, 3) uint8.

    Raises:
        ValueError: not one colour a name, or too low a picture.
    """
    if len(colors) != len(class_names):
        raise ValueError(
            f"colors: must be {len(class_names)}, one a class name; received: {len(colors)}"
        )
    line_height, swatch, margin = 24, 16, 8
    if height < line_height + 2 * margin:
        raise ValueError(
            f"height: must be at least {line_height + 2 * margin} pixels; received: {height}"
        )
    names, swatches = list(class_names), [np.full((swatch, swatch, 3), c) for c in colors]
    if void:
        ground = np.full((swatch, swatch, 3), 128)
        names.append("void")
        swatches.append(overlay_labels(ground, np.full((swatch, swatch), -1), [BLACK], 1.0))
    texts = [render_text(shortened(name), 14, BLACK, WHITE) for name in names]
    rows = (height - 2 * margin) // line_height
    columns = []
    for start in range(0, len(names), rows):
        shown = texts[start : start + rows]
        width = 2 * margin + swatch + max(text.shape[1] for text in shown)
        column = np.full((height, width, 3), 255, "uint8")
        for row, text in enumerate(shown):
            top = margin + row * line_height
            y = top + (line_height - swatch) // 2
            # A thin frame shows a white square.
            column[y - 1 : y + swatch + 1, margin - 1 : margin + swatch + 1] = (128, 128, 128)
            column[y : y + swatch, margin : margin + swatch] = swatches[start + row]
            y, x = top + (line_height - text.shape[0]) // 2, margin + swatch
            column[y : y + text.shape[0], x : x + text.shape[1]] = text
        columns.append(column)
    return np.concatenate(columns, axis=1)


def plot_scores_per_class(names, values, path, label):
    """Saves a picture of a score of each class: horizontal bars, the first class on top.

    A dashed line is the mean. A class without a score has a dash instead of a bar, and doesn't
    count in the mean.

    Args:
        names: C names of classes.
        values: C scores from 0 to 1, None where a class has none.
        path: of the PNG.
        label: what the score is, such as "IoU".

    Raises:
        ValueError: not one value a name.
    """
    if len(values) != len(names):
        raise ValueError(f"values: must be {len(names)}, one a name; received: {len(values)}")
    figure = Figure(figsize=(8, 1.2 + 0.28 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.set_axisbelow(True)
    axes.grid(axis="x", alpha=0.3)
    axes.barh(range(len(names)), [v or 0.0 for v in values], color=np.array(PALETTE[0]) / 255)
    for row, value in enumerate(values):
        text = "\N{EN DASH}" if value is None else f"{value:.3f}"
        # On white, which the dashed line doesn't run through.
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        axes.text((value or 0.0) + 0.01, row, text, va="center", fontsize=10, bbox=box)
    scores = [value for value in values if value is not None]
    if scores:
        mean = np.mean(scores)
        axes.axvline(mean, color="black", linestyle="--", linewidth=1)
        axes.set_title(f"mean {label} {mean:.3f} of {len(scores)} classes")
    else:
        axes.set_title(f"no {label}")
    axes.set_yticks(range(len(names)), [shortened(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 1.1)  # room for the number behind a bar of 1
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.set_xlabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
