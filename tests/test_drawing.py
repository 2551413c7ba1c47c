import itertools

import cv2
import numpy as np
import PIL.Image
import pytest

from kerasvision import drawing

NAMES = ["cat", "owl", "fox"]
GREY = (100, 100, 100)


def _grey(height, width):
    return np.full((height, width, 3), GREY, "uint8")


def _pixels_of(color, image):
    """Rows and columns of the pixels of exactly this colour."""
    return np.nonzero((image == color).all(axis=-1))


def _linear(colors):
    """Linear light of sRGB colours 0 to 255."""
    srgb = np.array(colors) / 255
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _read(path):
    return cv2.imread(str(path))[:, :, ::-1]


# draw_boxes


def test_line_pixels_of_a_small_picture():
    # 20 rows, 40 columns: lines one pixel wide, no room for text.
    image = _grey(20, 40)
    drawn = drawing.draw_boxes(image, [[0.25, 0.5, 0.75, 1.0]], [1], NAMES)
    expected = image.copy()
    expected[5:15, 20:40] = drawing.color_of(1)
    expected[6:14, 21:39] = GREY
    np.testing.assert_array_equal(drawn, expected)


def test_lines_of_a_large_picture_have_a_contour():
    # (540 * 540) ** 0.5 / 180 = 3 pixels.
    drawn = drawing.draw_boxes(_grey(540, 540), [[0.5, 0.25, 0.75, 0.75]], [0], NAMES)
    color = drawing.color_of(0)
    row = drawn[350]
    np.testing.assert_array_equal(
        row[133:140], [GREY, drawing.BLACK, color, color, color, GREY, GREY]
    )
    np.testing.assert_array_equal(
        row[400:408], [GREY, GREY, color, color, color, drawing.BLACK, GREY, GREY]
    )
    np.testing.assert_array_equal(drawn[402:407, 300], [color] * 3 + [drawing.BLACK, GREY])


def test_tag_stands_above_its_box():
    drawn = drawing.draw_boxes(_grey(200, 200), [[0.5, 0.25, 1.0, 0.75]], [2], NAMES)
    rows, columns = _pixels_of(drawing.color_of(2), drawn)
    tag = drawing.render_text("fox", 11, drawing.WHITE, drawing.color_of(2))
    top = 100 - tag.shape[0]
    assert rows.min() == top and columns.min() == 50
    np.testing.assert_array_equal(drawn[top:100, 50 : 50 + tag.shape[1]], tag)
    assert (drawn[:top] == GREY).all() and (drawn[100:, 52:148] == GREY).mean() > 0.9


@pytest.mark.parametrize("box", [[0.0, 0.0, 0.5, 0.5], [0.0, 0.8, 0.5, 1.0], [0.0, 0.0, 1.0, 1.0]])
def test_tag_stays_in_the_picture(box):
    drawn = drawing.draw_boxes(_grey(200, 200), [box], [0], ["a rather long name"], [0.875])
    color = drawing.color_of(0)
    tag = drawing.render_text("a rather long name 0.88", 11, drawing.contrast_of(color), color)
    left = min(round(box[1] * 200), 200 - tag.shape[1])
    np.testing.assert_array_equal(drawn[: tag.shape[0], left : left + tag.shape[1]], tag)


def test_name_wider_than_the_picture_is_set_smaller():
    name = "x" * 15
    color = drawing.color_of(0)
    widths = {
        size: drawing.render_text(name, size, drawing.BLACK, color).shape[1] for size in (9, 10)
    }
    assert widths[9] < widths[10]
    drawn = drawing.draw_boxes(_grey(200, widths[10] - 1), [[0.5, 0.0, 1.0, 1.0]], [0], [name])
    tag = drawing.render_text(name, 9, drawing.BLACK, color)
    np.testing.assert_array_equal(drawn[100 - tag.shape[0] : 100, : tag.shape[1]], tag)
    # And left out where even the smallest one doesn't fit.
    drawn = drawing.draw_boxes(_grey(200, widths[9] - 1), [[0.5, 0.0, 1.0, 1.0]], [0], [name])
    np.testing.assert_array_equal(drawn[:100], _grey(100, widths[9] - 1))


def test_tags_of_one_place_do_not_cover_each_other():
    boxes = [[0.5, 0.25, 0.9, 0.75]] * 2
    drawn = drawing.draw_boxes(_grey(200, 200), boxes, [0, 1], NAMES, [0.5, 0.9])
    height = drawing.render_text("owl 0.90", 11, drawing.BLACK, drawing.color_of(1)).shape[0]
    # The better one above the box, the other one in it, and the better box on top.
    assert tuple(drawn[99 - height // 2, 51]) == drawing.color_of(1)
    assert tuple(drawn[100 + height // 2, 51]) == drawing.color_of(0)
    assert tuple(drawn[150, 50]) == drawing.color_of(1)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_input_stays_and_result_is_a_copy(dtype):
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3)).astype(dtype)
    boxes, labels = np.array([[0.1, 0.1, 0.9, 0.9]], "float32"), np.array([0], "int32")
    before = image.copy(), boxes.copy(), labels.copy()
    drawn = drawing.draw_boxes(image, boxes, labels, NAMES, np.array([0.5], "float32"))
    for now, then in zip((image, boxes, labels), before):
        np.testing.assert_array_equal(now, then)
    assert drawn.dtype == np.uint8 and not np.shares_memory(drawn, image)
    assert (drawn != image).any()


@pytest.mark.parametrize("empty", [[], np.zeros((0, 4), "float32")])
def test_no_boxes_give_the_same_picture(empty):
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3), "uint8")
    drawn = drawing.draw_boxes(image, empty, [], NAMES, [])
    np.testing.assert_array_equal(drawn, image)
    assert not np.shares_memory(drawn, image)


def test_float_pictures_are_rounded_and_clipped():
    image = np.array([[[-3.0, 0.6, 99.4], [254.6, 256.0, 1000.0]]], "float32")
    drawn = drawing.draw_boxes(image, [], [], NAMES)
    np.testing.assert_array_equal(drawn, [[[0, 1, 99], [255, 255, 255]]])


@pytest.mark.parametrize(
    ("box", "label"),
    [
        ([0.2, 0.2, 0.8, 0.8], -1),  # padding
        ([0.5, 0.5, 0.5, 0.9], 0),  # no height
        ([0.8, 0.2, 0.2, 0.8], 0),  # inverted
        ([1.1, 0.2, 1.5, 0.8], 0),  # below the picture
        ([0.2, -0.8, 0.6, -0.1], 0),  # left of it
        ([0.2, np.nan, 0.6, 0.8], 0),
    ],
)
def test_what_is_not_drawn(box, label):
    image = _grey(100, 100)
    np.testing.assert_array_equal(drawing.draw_boxes(image, [box], [label], NAMES), image)


def test_box_out_of_range_is_clipped():
    image = _grey(30, 30)
    drawn = drawing.draw_boxes(image, [[-0.5, -2.0, 0.5, 7.0]], [0], NAMES)
    np.testing.assert_array_equal(
        drawn, drawing.draw_boxes(image, [[0.0, 0.0, 0.5, 1.0]], [0], NAMES)
    )
    rows, columns = _pixels_of(drawing.color_of(0), drawn)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (0, 14, 0, 29)


def test_one_pixel_picture_and_tiny_boxes():
    drawn = drawing.draw_boxes(_grey(1, 1), [[0, 0, 1, 1]], [1], NAMES, [0.5])
    np.testing.assert_array_equal(drawn, [[drawing.color_of(1)]])
    # A box smaller than a pixel is one pixel, also in the last corner.
    drawn = drawing.draw_boxes(_grey(9, 9), [[0.999, 0.999, 1.0, 1.0]], [1], NAMES)
    np.testing.assert_array_equal(_pixels_of(drawing.color_of(1), drawn), [[8], [8]])


@pytest.mark.parametrize("shape", [(1, 500), (500, 1), (3, 3), (44, 44), (300, 20), (2000, 3000)])
def test_any_size_of_picture(shape):
    rng = np.random.default_rng(0)
    boxes = rng.uniform(-0.2, 1.2, (30, 4))
    drawn = drawing.draw_boxes(
        _grey(*shape),
        boxes,
        rng.integers(0, 3, 30),
        ["a", "Łódź", "a very long name"],
        rng.random(30),
    )
    assert drawn.shape == (*shape, 3)


@pytest.mark.parametrize("shape", [(5, 5), (5, 5, 1), (5, 5, 4), (1, 5, 5, 3)])
def test_picture_must_be_rgb(shape):
    with pytest.raises(ValueError, match="image: must have shape .* received: "):
        drawing.draw_boxes(np.zeros(shape, "uint8"), [], [], NAMES)


def test_label_without_name():
    with pytest.raises(ValueError, match="labels: must be below 3, .* received: 3"):
        drawing.draw_boxes(_grey(9, 9), [[0, 0, 1, 1]], [3], NAMES)


# Masks and keypoints


def _mixed(color):
    """The colour of a mask over grey."""
    opacity = drawing.MASK_OPACITY
    return np.rint((1 - opacity) * np.array(GREY) + opacity * np.array(color)).astype("uint8")


def test_mask_pixels():
    # 40 rows, 60 columns: lines one pixel wide, no room for text. The right half of a box of
    # rows 10 to 29 and columns 15 to 44 is covered.
    image = _grey(40, 60)
    mask = np.zeros((1, 28, 28))
    mask[:, :, 14:] = 1
    before = mask.copy()
    box = [0.25, 0.25, 0.75, 0.75]
    drawn = drawing.draw_boxes(image, [box], [1], NAMES, masks=mask)
    color = drawing.color_of(1)
    expected = image.copy()
    expected[10:30, 30:45] = color  # the contour
    expected[11:29, 31:44] = _mixed(color)
    expected[10:30, [15, 44]] = expected[[10, 29], 15:45] = color  # the box
    np.testing.assert_array_equal(drawn, expected)
    np.testing.assert_array_equal(mask, before)
    assert (image == GREY).all()


def test_hole_in_a_mask_has_a_contour():
    mask = np.ones((1, 8, 8))
    mask[:, 2:6, 2:6] = 0
    drawn = drawing.draw_boxes(_grey(80, 80), [[0, 0, 1, 1]], [1], ["", ""], masks=mask)
    assert tuple(drawn[40, 40]) == GREY
    np.testing.assert_array_equal(drawn[40, 12], _mixed(drawing.color_of(1)))
    line = (drawn[40, :30] == drawing.color_of(1)).all(axis=-1)
    assert 17 <= np.flatnonzero(line)[-1] <= 20


def test_neighbours_of_a_class_differ_in_shade():
    boxes = [[0.1, 0.4, 0.4, 0.6], [0.1, 0.1, 0.4, 0.3], [0.1, 0.7, 0.4, 0.9], [0.6, 0.5, 0.9, 0.9]]
    labels = [1, 1, 1, 2]
    color = np.array(drawing.color_of(1))
    expected = [color, color * 0.6, (color + 255) / 2, drawing.color_of(2)]
    shades = []
    for scores in (None, [0.9, 0.8, 0.7, 0.6], [0.6, 0.7, 0.8, 0.9]):
        drawn = drawing.draw_boxes(
            _grey(100, 100), boxes, labels, ["", "", ""], scores, masks=np.ones((4, 4, 4))
        )
        shades.append([drawn[33, 50], drawn[33, 20], drawn[33, 80], drawn[80, 70]])
    # From left to right, whatever the scores.
    expected = [_mixed(shade) for shade in (expected[2], expected[0], expected[1], expected[3])]
    for found in shades:
        np.testing.assert_allclose(np.array(found, int), expected, atol=1)


def test_better_mask_is_on_top():
    boxes = [[0.0, 0.0, 1.0, 0.6], [0.0, 0.4, 1.0, 1.0]]
    for scores, top in [([0.9, 0.5], 0), ([0.5, 0.9], 1)]:
        drawn = drawing.draw_boxes(
            _grey(40, 60), boxes, [0, 1], ["", ""], scores, masks=np.ones((2, 4, 4))
        )
        below = _mixed(drawing.color_of(1 - top)).astype(float)
        expected = np.rint((below + drawing.color_of(top)) / 2)
        np.testing.assert_allclose(drawn[20, 30], expected, atol=1)


def test_mask_of_a_box_beyond_the_picture():
    # The grid is that of the whole box, of which the picture has the lower right quarter.
    mask = np.zeros((1, 4, 4))
    mask[:, 2:, 2:] = 1
    drawn = drawing.draw_boxes(_grey(40, 40), [[-1, -1, 1, 1]], [0], [""], masks=mask)
    np.testing.assert_array_equal(drawn[20, 20], _mixed(drawing.color_of(0)))
    drawn = drawing.draw_boxes(_grey(40, 40), [[-1, -1, 1, 1]], [0], [""], masks=1 - mask)
    assert tuple(drawn[20, 20]) == GREY


def test_masks_and_keypoints_of_nothing():
    image = _grey(20, 20)
    drawn = drawing.draw_boxes(
        image, [], [], NAMES, [], masks=np.zeros((0, 28, 28)), keypoints=np.zeros((0, 5, 3))
    )
    np.testing.assert_array_equal(drawn, image)
    # Padding, a box between the centres of pixels, and an empty mask.
    boxes = [[0, 0, 0, 0], [0.51, 0.51, 0.52, 0.52], [0.2, 0.2, 0.8, 0.8]]
    plain = drawing.draw_boxes(image, boxes, [-1, 0, 1], NAMES)
    masks = np.stack([np.ones((4, 4)), np.ones((4, 4)), np.zeros((4, 4))])
    keypoints = np.full((3, 2, 3), 0.5)
    keypoints[1:] = 0
    drawn = drawing.draw_boxes(image, boxes, [-1, 0, 1], NAMES, masks=masks, keypoints=keypoints)
    np.testing.assert_array_equal(drawn, plain)


def test_keypoints_are_dots_and_rings():
    # Three pixels around the middle, and a contour of one.
    keypoints = np.array(
        [[[0.25, 0.5, 2], [0.5, 0.25, 1], [0.75, 0.5, 0], [0.5, 1.5, 2], [np.nan, 0.5, 2]]]
    )
    before = keypoints.copy()
    plain = drawing.draw_boxes(_grey(220, 220), [[0, 0, 1, 1]], [0], [""])
    drawn = drawing.draw_boxes(_grey(220, 220), [[0, 0, 1, 1]], [0], [""], keypoints=keypoints)
    np.testing.assert_array_equal(keypoints, before)
    assert tuple(drawn[55, 110]) == drawing.PALETTE[0]
    assert tuple(drawn[110, 55]) == drawing.contrast_of(drawing.PALETTE[1])  # hidden
    assert drawing.PALETTE[1] in {tuple(pixel) for pixel in drawn[110, 50:60].tolist()}
    rows, columns = np.nonzero((drawn != plain).any(axis=-1))
    distances = [np.hypot(rows - row, columns - column) for row, column in [(55, 110), (110, 55)]]
    assert np.minimum(*distances).max() < 6  # and nothing else
    assert all(np.sum(distance < 5) > 20 for distance in distances)


def test_predicted_keypoints_are_drawn_if_probable():
    keypoints = [[[0.25, 0.5, 0.9], [0.5, 0.25, drawing.MIN_KEYPOINT_PROBABILITY - 0.01]]]
    drawn = drawing.draw_boxes(
        _grey(220, 220), [[0, 0, 1, 1]], [0], [""], [0.9], keypoints=keypoints
    )
    assert tuple(drawn[55, 110]) == drawing.PALETTE[0]
    assert tuple(drawn[110, 55]) == GREY


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (44, 44), (2000, 3000)])
def test_masks_and_keypoints_on_any_size_of_picture(shape):
    rng = np.random.default_rng(0)
    drawn = drawing.draw_boxes(
        _grey(*shape).astype("float32").transpose(1, 0, 2),
        rng.uniform(-0.2, 1.2, (30, 4)),
        rng.integers(0, 3, 30),
        NAMES,
        rng.random(30),
        masks=rng.random((30, 28, 28)),
        keypoints=rng.uniform(-0.2, 1.2, (30, 5, 3)),
    )
    assert drawn.shape == (*shape[::-1], 3) and (drawn != GREY).any()


# Colours


def test_colors_are_stable_and_distinct():
    assert drawing.color_of(0) == (86, 180, 233)
    assert drawing.color_of(np.int32(11)) == ((230 + 255) // 2, (159 + 255) // 2, 255 // 2)
    assert drawing.color_of(21) == (230 * 2 // 3, 159 * 2 // 3, 0)
    assert len({drawing.color_of(label) for label in range(30)}) == 30
    assert drawing.color_of(30) == drawing.color_of(0)


# Machado, Oliveira and Fernandes 2009, A Physiologically-based Model for Simulation of Color Vision
# Deficiency, table 1, severity 1: linear RGB to linear RGB.
@pytest.mark.parametrize(
    "matrix",
    [
        np.eye(3),
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
         [-0.003882, -0.048116, 1.051998]],  # protanopia
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
         [-0.011820, 0.042940, 0.968881]],  # deuteranopia
    ],
)  # fmt: skip
def test_the_colour_blind_tell_the_palette_apart(matrix):
    seen = np.clip(_linear(drawing.PALETTE) @ np.transpose(matrix), 0, 1)
    seen = np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055)
    lab = cv2.cvtColor(seen.astype("float32")[None], cv2.COLOR_RGB2LAB)[0]
    # A difference of 2.3 in Lab can just be noticed.
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(lab, 2)) > 10


@pytest.mark.parametrize("label", range(30))
def test_text_on_tags_can_be_read(label):
    color = drawing.color_of(label)
    luminance = _linear([color, drawing.contrast_of(color)]) @ [0.2126, 0.7152, 0.0722] + 0.05
    assert max(luminance) / min(luminance) > 3  # WCAG's contrast ratio


# contact_sheet


def test_contact_sheet_layout(tmp_path):
    red, green, blue = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
    big = np.full((50, 100, 3), red, "uint8")  # scaled by 0.4 to 20 x 40
    small = np.full((6, 13, 3), green, "uint8")  # enlarged three times, to 18 x 39
    tall = np.full((40, 10, 3), blue, "uint8")  # stays
    path = tmp_path / "sheet.png"
    sheet = drawing.contact_sheet(
        [(big, small), (big, big), (tall, big)], path, ("a", "b"), groups=2, cell=40, margin=8
    )
    # Columns are 40 wide, at 8, 56, 112 and 160; rows are 20 and 40 high, at 32 and 60.
    assert sheet.shape == (32 + 20 + 8 + 40 + 8, 160 + 40 + 8, 3)
    expected = np.full_like(sheet, 255)
    expected[32:52, 8:48] = red
    expected[33:51, 56:95] = green
    expected[32:52, 112:152] = red
    expected[32:52, 160:200] = red
    expected[60:100, 23:33] = blue
    expected[70:90, 56:96] = red
    np.testing.assert_array_equal(sheet[32:], expected[32:])
    # Titles stand above their columns.
    for left, title in zip((8, 56, 112, 160), "abab"):
        text = drawing.render_text(title, 18, drawing.BLACK, drawing.WHITE)
        np.testing.assert_array_equal(
            sheet[4 : 4 + text.shape[0], left : left + text.shape[1]], text
        )
        assert (text < 128).any()
    np.testing.assert_array_equal(_read(path), sheet)


def test_contact_sheet_of_one_or_no_group():
    sheet = drawing.contact_sheet([(_grey(10, 30), _grey(1, 1))], None, ("a", "b"), cell=30)
    assert sheet.shape == (32 + 30 + 8, 8 + 30 + 8 + 30 + 8, 3)
    assert (sheet[32:62, 46:76] == 100).all()  # one pixel enlarged
    assert (sheet[42:52, 8:38] == 100).all()
    assert drawing.contact_sheet([], None, ("a",), cell=30).shape == (40, 46, 3)


def test_contact_sheet_title_wider_than_its_column():
    sheet = drawing.contact_sheet([(_grey(9, 9),)], None, ("a long title",), cell=9)
    assert sheet.shape == (32 + 9 + 8, 8 + 9 + 8, 3)


def test_contact_sheet_errors(tmp_path):
    with pytest.raises(ValueError, match="must have 2 pictures, one a title; received: 1"):
        drawing.contact_sheet([(_grey(9, 9),)], None, ("a", "b"))
    with pytest.raises(OSError, match="no_folder"):
        drawing.contact_sheet([(_grey(9, 9),)], tmp_path / "no_folder" / "a.png", ("a",))


# plot_history


def _halves(path):
    plot = _read(path)
    return plot[:, : plot.shape[1] // 2], plot[:, plot.shape[1] // 2 :]


def test_plot_has_each_curve_in_its_color(tmp_path):
    path = tmp_path / "curves.png"
    drawing.plot_history(
        {
            "confidence_loss": [3.0, 2.0, 1.5, 1.2],
            "localization_loss": [2.0, 1.0, 0.9, 0.7],
            "loss": [5.0, 3.0, 2.4, 1.9],
            "seconds": [4.0, 4.0, 4.0, 4.0],
            "val_AP": [None, 0.2, None, 0.4],
            "val_AP50": [None, 0.5, None, 0.8],
        },
        path,
    )
    losses, precisions = _halves(path)
    counts = [
        [len(_pixels_of(color, half)[0]) for color in drawing.PALETTE[:4]]
        for half in (losses, precisions)
    ]
    assert min(counts[0][:3]) > 200 and counts[0][3] == 0
    assert min(counts[1][:2]) > 200 and counts[1][2:] == [0, 0]
    # Total above its parts; and they fall. AP rises, AP50 above it.
    heights = [np.mean(_pixels_of(color, losses)[0]) for color in drawing.PALETTE[:3]]
    assert heights[0] < heights[1] < heights[2]  # rows count from the top
    rows, columns = _pixels_of(drawing.PALETTE[0], losses)
    middle = losses.shape[1] // 2
    curve = rows > 90  # under the legend
    assert rows[curve & (columns < middle)].mean() < rows[curve & (columns > middle)].mean()
    rows, columns = _pixels_of(drawing.PALETTE[0], precisions)
    assert rows[columns.argmax()] < losses.shape[0] * 0.75


def test_training_and_validation_share_a_color_and_differ_in_dashes(tmp_path):
    path = tmp_path / "curves.png"
    counts = []
    for name in ("loss", "val_loss"):
        drawing.plot_history({"loss": [None] * 50, name: [2.0] * 50}, path)
        counts.append(len(_pixels_of(drawing.PALETTE[0], _halves(path)[0])[0]))
    assert 0.4 * counts[0] < counts[1] < 0.9 * counts[0]


@pytest.mark.parametrize(
    "history",
    [
        {},
        {"loss": [], "val_AP": []},
        {"loss": [1.0], "val_AP": [None]},
        {"loss": [1.0, float("nan"), float("inf"), 2.0], "val_AP": [None, None, 0.0, 0.0]},
        {"critic_loss": [-3.0, -1.0]},
    ],
)
def test_plot_of_little(tmp_path, history):
    path = tmp_path / "curves.png"
    drawing.plot_history(history, path)
    assert (_read(path) != 255).any()


def test_plot_leaves_no_figure_open(tmp_path):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    drawing.plot_history({"loss": [1.0, 2.0]}, tmp_path / "curves.png")
    assert pyplot.get_fignums() == []


def test_plot_of_accuracies_is_named_so(tmp_path):
    path = tmp_path / "curves.png"
    drawing.plot_history(
        {
            "loss": [2.0, 1.0],
            "accuracy": [0.2, 0.6],
            "top5": [0.7, 0.9],
            "val_accuracy": [0.1, 0.5],
        },
        path,
    )
    _, right = _halves(path)
    counts = [len(_pixels_of(color, right)[0]) for color in drawing.PALETTE[:3]]
    assert min(counts[:2]) > 200 and counts[2] == 0  # accuracy and val_accuracy share a colour


# captioned_sheet


def test_captioned_sheet_layout(tmp_path):
    big = np.full((50, 100, 3), (255, 0, 0), "uint8")  # scaled by 0.4 to 20 x 40
    small = np.full((13, 6, 3), (0.0, 255.4, -3.0))  # enlarged three times, to 39 x 18
    captions = [[("one", drawing.BLACK)], [("two", drawing.BLACK), ("x", drawing.WRONG)], []]
    path = tmp_path / "sheet.png"
    sheet = drawing.captioned_sheet(
        [big, small, big], captions, path, "title", columns=2, cell=40, margin=10
    )
    # Cells at 10 and 60; rows of 40 + 2 lines of 19 + 10 pixels, from 34 on.
    assert sheet.shape == (34 + 2 * (40 + 2 * 19 + 10), 10 + 2 * 50, 3)
    np.testing.assert_array_equal(_pixels_of((255, 0, 0), sheet)[0].min(), 34 + 10)
    assert (sheet[44:64, 10:50] == (255, 0, 0)).all()
    assert (sheet[34:73, 71:89] == (0, 255, 0)).all()
    assert (sheet[34 + 88 + 10 : 34 + 88 + 30, 10:50] == (255, 0, 0)).all()
    assert (sheet[34:73, 60:71] == 255).all()
    for text, color, top, left in [
        ("one", drawing.BLACK, 75, 10),
        ("two", drawing.BLACK, 75, 60),
        ("x", drawing.WRONG, 94, 60),
    ]:
        line = drawing.render_text(text, 14, color, drawing.WHITE)
        found = sheet[top : top + line.shape[0], left : left + line.shape[1]]
        np.testing.assert_array_equal(found, line)
    np.testing.assert_array_equal(_read(path), sheet)


def test_long_captions_stay_in_their_cells():
    name = "a name of many words " * 5
    caption = [(name, drawing.BLACK)]
    sheet = drawing.captioned_sheet([_grey(60, 60)] * 2, [caption] * 2, None, cell=60, columns=2)
    assert (sheet[:, 70:80] == 255).all() and (sheet[:, 140:] == 255).all()
    assert (sheet[96:, 10:70] < 128).any()
    assert (
        drawing.shortened(name, 8) == "a name …" and drawing.shortened("eightlet", 8) == "eightlet"
    )


def test_captioned_sheet_of_nothing_and_errors(tmp_path):
    assert drawing.captioned_sheet([], [], None, "nothing").shape[2] == 3
    with pytest.raises(ValueError, match="captions must be 1, one a picture; received: 2"):
        drawing.captioned_sheet([_grey(9, 9)], [[], []], None)
    with pytest.raises(OSError, match="no_folder"):
        drawing.captioned_sheet([], [], tmp_path / "no_folder" / "a.png")


# plot_confusion


def _confusion(count, wrong=1):
    matrix = np.diag(np.full(count, 9))
    matrix[0, -1] = wrong
    return matrix


@pytest.mark.parametrize("count", [1, 2, 3, 10, 100, 300])
def test_confusion_of_few_and_of_many_classes(tmp_path, count):
    path = tmp_path / "confusion.png"
    drawing.plot_confusion(_confusion(count), [f"class {i}" for i in range(count)], path)
    picture = _read(path)
    assert 300 < picture.shape[0] < 2000 and 300 < picture.shape[1] < 2200
    # The diagonal is dark blue from the upper left to the lower right.
    rows, columns = np.nonzero((picture[..., 2] > 80) & (picture[..., :2].sum(axis=-1) < 110))
    in_matrix = columns < picture.shape[1] * 0.85  # the scale stands on the right
    if count > 1:
        assert np.corrcoef(rows[in_matrix], columns[in_matrix])[0, 1] > 0.7


def test_numbers_stand_in_cells_that_have_room(tmp_path):
    """The number in a cell is dark on white ink: only where it fits."""
    found = []
    for wrong in (1, 0):
        path = tmp_path / "confusion.png"
        drawing.plot_confusion(_confusion(3, wrong), ["a", "b", "c"], path)
        found.append(_read(path))
    assert found[0].shape == found[1].shape
    changed = np.abs(found[0].astype(int) - found[1]).sum(axis=-1) > 300
    rows, columns = np.nonzero(changed)
    # The number of the upper right cell alone, and the title, which tells the accuracy.
    assert len(rows) and columns[rows > 60].min() > found[0].shape[1] // 2


def test_confusion_without_pictures_and_errors(tmp_path):
    drawing.plot_confusion(np.zeros((2, 2), int), ["a", "b"], tmp_path / "confusion.png")
    assert (_read(tmp_path / "confusion.png") != 255).any()
    with pytest.raises(ValueError, match=r"matrix must be \(3, 3\).*received: \(2, 2\)"):
        drawing.plot_confusion(np.zeros((2, 2), int), ["a", "b", "c"], tmp_path / "c.png")


# overlay_heat_map and draw_points


def test_heat_goes_from_blue_to_red():
    drawn = drawing.overlay_heat_map(_grey(4, 9), [[-3.0, 0.0, 3.0]], opacity=1.0)
    np.testing.assert_array_equal(drawn[:, 0], [[0, 0, 128]] * 4)  # the lowest: dark blue
    np.testing.assert_array_equal(drawn[:, 8], [[128, 0, 0]] * 4)  # the highest: dark red
    assert drawn[0, 4, 1] > 200  # the middle: green


def test_heat_is_mixed_with_the_picture():
    image = np.random.default_rng(0).integers(0, 256, (6, 6, 3), "uint8")
    before = image.copy()
    heat = np.arange(36).reshape(6, 6)
    full = drawing.overlay_heat_map(image, heat, opacity=1.0)
    half = drawing.overlay_heat_map(image, heat)
    np.testing.assert_allclose(half, (image.astype("float32") + full) / 2, atol=0.51)
    np.testing.assert_array_equal(drawing.overlay_heat_map(image, heat, opacity=0.0), image)
    np.testing.assert_array_equal(image, before)
    # A map without any difference is all lowest.
    flat = drawing.overlay_heat_map(image, np.full((2, 2), 7.0), opacity=1.0)
    np.testing.assert_array_equal(flat, np.broadcast_to([0, 0, 128], (6, 6, 3)))


def test_points_are_crosses_in_their_places():
    image = _grey(64, 96)
    drawn = drawing.draw_points(image, [[0.25, 0.5], [0.75, 0.25]], color=(255, 0, 0))
    rows, columns = _pixels_of((255, 0, 0), drawn)
    for row, column in [(16, 48), (48, 24)]:
        near = (abs(rows - row) <= 4) & (abs(columns - column) <= 4)
        assert (rows[near].mean(), columns[near].mean()) == (row, column)
        assert (drawn[row, column - 5 : column + 6] != GREY).any(axis=-1).sum() >= 9
    assert (image == GREY).all()


def test_points_at_the_border_and_none():
    drawn = drawing.draw_points(_grey(20, 20), [[0.0, 0.0], [1.0, 1.0]])
    assert tuple(drawn[0, 0]) == tuple(drawn[19, 19]) == drawing.WHITE
    np.testing.assert_array_equal(drawing.draw_points(_grey(5, 5), []), _grey(5, 5))


# overlay_labels and legend

CLASS_COLORS = np.array([(200, 0, 0), (0, 0, 100)], "uint8")


def test_labels_of_a_small_picture():
    # Lines of one pixel over void: # white, . black, and two pixels of the picture.
    image = _grey(4, 8)
    labels = np.full((4, 8), -1)
    labels[:, 0], labels[:, 1] = 0, 1
    drawn = drawing.overlay_labels(image, labels, CLASS_COLORS)
    np.testing.assert_array_equal(drawn[:, 0], [(150, 50, 50)] * 4)
    np.testing.assert_array_equal(drawn[:, 1], [(50, 50, 100)] * 4)
    hatching = ["  #.  ", " #.  #", "#.  #.", ".  #. "]
    values = {"#": 178, ".": 50, " ": 100}
    expected = [[values[letter] for letter in line] for line in hatching]
    np.testing.assert_array_equal(drawn[:, 2:, 0], expected)
    np.testing.assert_array_equal(drawn[:, 2:, 1], drawn[:, 2:, 0])


def test_opacity_of_labels():
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), "uint8")
    labels = np.random.default_rng(1).integers(-1, 2, (30, 40))
    before = image.copy(), labels.copy()
    full = drawing.overlay_labels(image, labels, CLASS_COLORS, 1.0)
    assert (full[labels == 0] == (200, 0, 0)).all()
    as_floats = drawing.overlay_labels(image.astype("float32"), labels, CLASS_COLORS.tolist(), 0.25)
    mixed = 0.75 * image + 0.25 * full
    kept = (full == image).all(axis=-1)
    assert 0.4 < kept[labels < 0].mean() < 0.6  # half of void is the picture
    np.testing.assert_allclose(as_floats, mixed, atol=0.51)
    np.testing.assert_array_equal(drawing.overlay_labels(image, labels, CLASS_COLORS, 0.0), image)
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(labels, before[1])


def test_hatching_widens_with_the_picture():
    drawn = drawing.overlay_labels(_grey(300, 300), np.full((300, 300), -1), CLASS_COLORS, 1.0)
    expected = [drawing.WHITE] * 2 + [drawing.BLACK] * 2 + [GREY] * 4
    np.testing.assert_array_equal(drawn[0], np.resize(expected, (300, 3)))
    np.testing.assert_array_equal(drawn[0], drawn[:, 0])


def test_labels_of_nothing_and_errors():
    empty = drawing.overlay_labels(np.zeros((0, 5, 3)), np.zeros((0, 5), int), CLASS_COLORS)
    assert empty.shape == (0, 5, 3) and empty.dtype == np.uint8
    with pytest.raises(ValueError, match=r"one a pixel of the image \(4, 4, 3\); .*\(4, 5\)"):
        drawing.overlay_labels(_grey(4, 4), np.zeros((4, 5), int), CLASS_COLORS)
    with pytest.raises(ValueError, match="labels: must be below 2, .*; received: 2"):
        drawing.overlay_labels(_grey(4, 4), np.full((4, 4), 2), CLASS_COLORS)


def test_legend_is_a_column_of_colors_and_names():
    picture = drawing.legend(["red", "blue"], CLASS_COLORS, 100)
    assert picture.shape[0] == 100 and picture.dtype == np.uint8
    for row, (name, color) in enumerate(zip(["red", "blue"], CLASS_COLORS)):
        top = 8 + 24 * row
        np.testing.assert_array_equal(
            picture[top + 4 : top + 20, 8:24], np.full((16, 16, 3), color)
        )
        rows, columns = _pixels_of(color, picture)
        assert (rows.min(), rows.max(), columns.min(), columns.max()) == (top + 4, top + 19, 8, 23)
        text = drawing.render_text(name, 14, drawing.BLACK, drawing.WHITE)
        y = top + (24 - text.shape[0]) // 2
        found = picture[y : y + text.shape[0], 24 : 24 + text.shape[1]]
        np.testing.assert_array_equal(found, text)
    assert (picture[56:] == 255).all()


def test_legend_goes_on_in_further_columns():
    whole = drawing.legend(NAMES, [(0, 0, 1), (0, 0, 2), (0, 0, 3)], 100, void=True)
    assert (whole[56:80, 8:24] == (0, 0, 3)).all(axis=-1).sum() == 256
    two = drawing.legend(NAMES, [(0, 0, 1), (0, 0, 2), (0, 0, 3)], 64, void=True)
    third, _ = _pixels_of((0, 0, 3), two)
    assert third.min() == 12 and two.shape == (64, two.shape[1], 3)
    # Void is hatched.
    left = _pixels_of((0, 0, 3), two)[1].min()
    void = two[36:52, left : left + 16]
    grey = np.full((16, 16, 3), 128)
    expected = drawing.overlay_labels(grey, np.full((16, 16), -1), CLASS_COLORS, 1.0)
    np.testing.assert_array_equal(void, expected)


def test_wrong_legends():
    with pytest.raises(ValueError, match="colors: must be 3, one a class name; received: 2"):
        drawing.legend(NAMES, CLASS_COLORS, 100)
    with pytest.raises(ValueError, match="height: must be at least 40 pixels; received: 39"):
        drawing.legend(["red", "blue"], CLASS_COLORS, 39)


# plot_scores_per_class


def test_bars_of_scores_and_their_mean(tmp_path):
    path = tmp_path / "scores.png"
    values = [1.0, 0.5, None, 0.25, 0.0]
    drawing.plot_scores_per_class(["a", "b", "c", "d", "e" * 40], values, path, "IoU")
    picture = _read(path)
    rows, columns = _pixels_of(drawing.PALETTE[0], picture)
    left = columns.min()
    starts = np.flatnonzero(np.diff(np.unique(rows), prepend=-9) > 1)
    tops = np.unique(rows)[starts]
    middles = tops + 10
    lengths = np.array([columns[rows == row].max() - left + 1 for row in middles])
    np.testing.assert_allclose(lengths / lengths[0], [1.0, 0.5, 0.25], atol=0.01)
    # The first on top, and no bar between those of b and d.
    assert tops[2] - tops[1] == pytest.approx(2 * (tops[1] - tops[0]), abs=2)
    # The dashed line stands at the mean of the four scores.
    dark = picture[rows.min() : rows.max()].max(axis=-1) < 60
    marks = left + np.rint(np.array([1.75 / 4, 1.75 / 5]) * lengths[0]).astype(int)
    shares = [dark[:, x - 2 : x + 3].any(axis=1).mean() for x in marks]
    assert shares[0] > 0.5 and shares[1] < 0.2


def test_scores_of_no_class(tmp_path):
    """A dash instead of a number, and no line for a mean."""
    pictures = []
    for value in (0.0, None):
        drawing.plot_scores_per_class(["a"], [value], tmp_path / "scores.png", "IoU")
        pictures.append(_read(tmp_path / "scores.png").min(axis=-1) < 200)
    number, dash = (np.sum(picture[40:90, 30:]) for picture in pictures)
    assert 0 < dash < number / 4
    with pytest.raises(ValueError, match="values: must be 2, one a name; received: 1"):
        drawing.plot_scores_per_class(["a", "b"], [0.5], tmp_path / "scores.png", "IoU")


def test_animate(tmp_path):
    frames = [np.full((17, 33, 3), value, "uint8") for value in (30, 120, 210)]
    drawing.animate(frames, tmp_path / "film.gif", 10)
    with PIL.Image.open(tmp_path / "film.gif") as picture:
        assert (picture.n_frames, picture.size, picture.info["duration"]) == (3, (33, 17), 100)
        picture.seek(2)
        assert np.asarray(picture.convert("RGB")).mean() == 210
    drawing.animate(frames, tmp_path / "film.mp4", 10)
    film = cv2.VideoCapture(str(tmp_path / "film.mp4"))
    for frame in frames:
        read, found = film.read()
        assert read and found.shape == (16, 32, 3)
        np.testing.assert_allclose(found, frame[:16, :32], atol=6)
    assert not film.read()[0]
    with pytest.raises(ValueError, match="path: must end with .gif or .mp4; received: film.avi"):
        drawing.animate(frames, "film.avi", 10)
    with pytest.raises(ValueError, match=r"16 x 16 pixels or more for an MP4; received: \(8, 8\)"):
        drawing.animate([frames[0][:8, :8]], tmp_path / "small.mp4", 10)
    with pytest.raises(OSError, match="must be a file that can be written"):
        drawing.animate(frames, tmp_path / "nowhere" / "film.mp4", 10)
