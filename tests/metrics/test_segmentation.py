import itertools

import cv2
import numpy as np
import pytest

from kerasvision.metrics import segmentation
from kerasvision.metrics.segmentation import (
    SegmentationScores,
    boundary_f1,
    format_table,
    membrane_scores,
    pixel_error,
    rand_error,
    warping_error,
)

NAMES = ["sky", "tree", "road", "car"]


def drawn(text):
    """A map from rows of characters: digits are classes, "?" is void, "#" membrane, "." cell."""
    codes = {"?": -1, "#": 0, ".": 1}
    rows = text.split()
    return np.array([[codes[c] if c in codes else int(c) for c in row] for row in rows])


def random_maps(rng, height, width, num_classes, void=0.2):
    """A pair of maps of classes in patches, the true one with void patches."""

    def patches():
        coarse = rng.integers(0, num_classes, (-(-height // 3), -(-width // 4)))
        return np.kron(coarse, np.ones((3, 4), int))[:height, :width]

    labels, predictions = patches(), patches()
    same = rng.uniform(size=labels.shape) < 0.5
    predictions = np.where(same, labels, predictions)
    return np.where(rng.uniform(size=labels.shape) < void, -1, labels), predictions


# SegmentationScores


def reference_scores(pairs, num_classes):
    """Pixel by pixel, class by class."""
    matrix = [[0] * num_classes for _ in range(num_classes)]
    for labels, predictions in pairs:
        for label, prediction in zip(labels.ravel(), predictions.ravel()):
            if label >= 0:
                matrix[label][prediction] += 1
    accuracies, ious = [], []
    for k in range(num_classes):
        pixels = sum(matrix[k])
        predicted = sum(row[k] for row in matrix)
        accuracies.append(matrix[k][k] / pixels if pixels else None)
        union = pixels + predicted - matrix[k][k]
        ious.append(matrix[k][k] / union if union else None)
    total = sum(map(sum, matrix))
    right = sum(matrix[k][k] for k in range(num_classes))
    return matrix, right / total, accuracies, ious


@pytest.mark.parametrize("num_classes", [1, 2, 4])
def test_scores_equal_reference(num_classes):
    rng = np.random.default_rng(num_classes)
    pairs = [random_maps(rng, *size, num_classes) for size in ((7, 9), (1, 1), (12, 5), (20, 20))]
    pairs = [(labels.astype("int32"), p.astype("uint8")) for labels, p in pairs]
    scores = SegmentationScores(NAMES[:num_classes])
    for labels, predictions in pairs:
        scores.update(labels, predictions)
    found = scores.result()
    matrix, accuracy, accuracies, ious = reference_scores(pairs, num_classes)
    np.testing.assert_array_equal(scores.confusion, matrix)
    assert found["pixel_accuracy"] == pytest.approx(accuracy)
    assert found["mean_class_accuracy"] == pytest.approx(np.mean(accuracies))
    assert found["mean_iou"] == pytest.approx(np.mean(ious))
    rows = found["per_class"]
    assert [row["name"] for row in rows] == NAMES[:num_classes]
    assert [row["pixels"] for row in rows] == [sum(row) for row in matrix]
    assert [row["accuracy"] for row in rows] == pytest.approx(accuracies)
    assert [row["iou"] for row in rows] == pytest.approx(ious)
    each = [boundary_f1(*pair, num_classes) for pair in pairs]
    assert scores.boundary_f1 == each
    measured = [score for score in each if score is not None]
    if num_classes == 1:
        assert found["boundary_f1"] is None
    else:
        assert len(measured) == 3  # a picture of one pixel has no boundary
        assert found["boundary_f1"] == pytest.approx(np.mean(measured))


def test_golden_scores_with_absent_classes():
    scores = SegmentationScores(NAMES)  # tree is only predicted, car neither
    scores.update(
        drawn("""00?
                 022"""),
        drawn("""003
                 120"""),
    )
    found = scores.result()
    np.testing.assert_array_equal(
        scores.confusion, [[2, 1, 0, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    )
    assert found["pixel_accuracy"] == pytest.approx(3 / 5)
    assert found["mean_class_accuracy"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert found["mean_iou"] == pytest.approx((2 / 4 + 0 + 1 / 2) / 3)
    assert [row["accuracy"] for row in found["per_class"]] == [2 / 3, None, 0.5, None]
    assert [row["iou"] for row in found["per_class"]] == [0.5, 0.0, 0.5, None]
    assert [row["pixels"] for row in found["per_class"]] == [3, 0, 2, 0]


@pytest.mark.parametrize("pictures", ["none", "void", "no pixel"])
def test_nothing_to_score(pictures):
    scores = SegmentationScores(NAMES)
    if pictures == "void":
        scores.update(np.full((4, 5), -1), np.arange(20).reshape(4, 5) % 4)
    if pictures == "no pixel":
        scores.update(np.zeros((0, 3), int), np.zeros((0, 3), int))
    found = scores.result()
    names = ("pixel_accuracy", "mean_class_accuracy", "mean_iou", "boundary_f1")
    assert [found[name] for name in names] == [None] * 4
    assert [row["pixels"] for row in found["per_class"]] == [0] * 4
    for row in found["per_class"]:
        assert row["accuracy"] is None and row["iou"] is None
    assert "nan" not in format_table(found)


@pytest.mark.parametrize(
    "labels, predictions, message",
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), r"received: \(2, 3\) and \(3, 2\)"),
        (np.zeros(4, int), np.zeros(4, int), r"one shape \(H, W\); received: \(4,\) and \(4,\)"),
        ([[0, 4]], [[0, 0]], "labels: must be from -1 to 3; received: 0 to 4"),
        ([[-2, 1]], [[0, 0]], "labels: must be from -1 to 3; received: -2 to 1"),
        ([[0, -1]], [[0, 4]], "predictions: must be from 0 to 3; received: 0 to 4"),
        ([[0, 1]], [[0, -1]], "predictions: must be from 0 to 3; received: -1 to 0"),
        ([[0, 1]], [[0.0, 1.0]], "predictions: must be integers; received: float64"),
    ],
)
def test_maps_that_do_not_fit(labels, predictions, message):
    scores = SegmentationScores(NAMES)
    with pytest.raises(ValueError, match=message):
        scores.update(labels, predictions)
    with pytest.raises(ValueError, match=message):
        boundary_f1(labels, predictions, 4)
    assert not scores.confusion.any() and scores.boundary_f1 == []


def test_table():
    scores = SegmentationScores(NAMES)
    scores.update(drawn("0002"), drawn("0022"))
    assert format_table(scores.result()).splitlines() == [
        "pixel accuracy       0.750",
        "mean class accuracy  0.833",
        "mean IoU             0.583",
        "boundary F1          1.000",
        "",
        "class    IoU  accuracy  share of pixels",
        "sky    0.667     0.667            0.750",
        "tree       -         -            0.000",
        "road   0.500     1.000            0.250",
        "car        -         -            0.000",
    ]


def test_table_with_membranes():
    scores = SegmentationScores(NAMES)
    scores.update(drawn("0002"), drawn("0022"))
    errors = {"pixel_error": 0.0611, "rand_error": 0.0382, "warping_error": 0.000353}
    table = format_table({**scores.result(), "membranes": errors}).splitlines()
    assert table[3:9] == [
        "boundary F1          1.000",
        "pixel error          0.0611",
        "Rand error           0.0382",
        "warping error        0.000353",
        "",
        "class    IoU  accuracy  share of pixels",
    ]


# boundary_f1


def reference_boundary_f1(labels, predictions, tolerance):
    """By the distances of all pairs of pixels."""
    height, width = labels.shape
    radius = max(1, int(np.floor(tolerance * np.sqrt(height**2 + width**2) + 0.5)))
    places = list(itertools.product(range(height), range(width)))

    def distance(a, b):
        return np.hypot(a[0] - b[0], a[1] - b[1])

    truth = labels.copy()
    for a in places:
        if labels[a] < 0:
            near = [(distance(a, b), labels[b]) for b in places if labels[b] >= 0]
            if near and min(near)[0] <= radius:
                truth[a] = min(near)[1]

    def boundary(classes, k):
        found = set()
        for y, x in places:
            for b in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                inside = b in places
                if classes[y, x] == k and inside and classes[b] >= 0 and classes[b] != k:
                    found.add((y, x))
        return found

    scores = []
    for k in sorted(set(labels[labels >= 0])):
        true = boundary(truth, k)
        predicted = boundary(predictions, k)
        counted = boundary(np.where(labels < 0, -1, predictions), k)
        if not true and not counted:
            continue
        right = sum(any(distance(a, b) <= radius for b in true) for a in counted)
        found = sum(any(distance(a, b) <= radius for b in predicted) for a in true)
        precision = right / len(counted) if counted else 1.0
        recall = found / len(true) if true else 0.0
        found_both = precision and recall
        scores.append(2 * precision * recall / (precision + recall) if found_both else 0.0)
    return np.mean(scores) if scores else None


@pytest.mark.parametrize("seed", range(12))
def test_boundary_f1_equals_reference(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(2, 16, 2)
    void = (0.0, 0.2, 0.9)[seed % 3]
    labels, predictions = random_maps(rng, height, width, int(rng.integers(2, 5)), void)
    for tolerance in (0.0075, 0.15, 0.3):
        found = boundary_f1(labels, predictions, 5, tolerance)
        expected = reference_boundary_f1(labels, predictions, tolerance)
        assert found == (None if expected is None else pytest.approx(expected))


def test_golden_boundary_f1():
    truth = drawn("""00001111
                     00001111
                     00001111""")
    assert boundary_f1(truth, truth, 2) == 1.0
    one_off = np.roll(truth, 1, axis=1)
    one_off[:, 0] = 0
    two_off = np.roll(one_off, 1, axis=1)
    two_off[:, 0] = 0
    assert boundary_f1(truth, one_off, 2) == 1.0  # at least a pixel is tolerated
    assert boundary_f1(truth, two_off, 2) == 0.0
    assert boundary_f1(truth, two_off, 2, tolerance=0.2) == 1.0  # 1.7 pixels, rounded to 2
    assert boundary_f1(truth, two_off, 2, tolerance=0.17) == 0.0  # 1.45 pixels, rounded to 1
    half_found = truth.copy()
    half_found[2] = 0
    # Predicted of class 0: two pixels of column 3, and row 2 from column 4, the first of which is
    # near; of class 1: two of column 4, and row 1 from column 5. All of the truth is found.
    precision = np.array([3 / 6, 3 / 5])
    expected = np.mean(2 * precision / (precision + 1))
    assert boundary_f1(truth, half_found, 2) == pytest.approx(expected)


def test_boundary_within_void():
    truth = drawn("""000???111
                     000???111
                     000???111""")
    right = drawn("""000011111
                     000001111
                     000001111""")
    late = drawn("""000000001
                    000000001
                    000000001""")
    # With 2 pixels of tolerance the contour lies in the middle of void, columns 4 and 5.
    assert boundary_f1(truth, right, 2, tolerance=0.2) == 1.0
    assert boundary_f1(truth, np.zeros((3, 9), int), 2, tolerance=0.2) == 0.0
    assert boundary_f1(truth, late, 2, tolerance=0.2) == 0.0
    # Void too wide for the tolerance: what is predicted there doesn't matter.
    wide = drawn("""000?????111
                    000?????111
                    000?????111""")
    assert boundary_f1(wide, np.tile(np.arange(11) % 2, (3, 1)) * (wide < 0), 2) is None
    spotted = np.where(wide == 1, 1, 0)
    assert boundary_f1(wide, spotted, 2) is None
    spotted[1, 1] = 1
    assert boundary_f1(wide, spotted, 2) == 0.0


def test_no_boundary():
    one = np.full((5, 6), 2)
    spot = one.copy()
    spot[2, 2] = 0
    assert boundary_f1(one, one, 3) is None
    assert boundary_f1(one, np.zeros_like(one), 3) is None  # no class, no boundary of it
    assert boundary_f1(one, spot, 3) == 0.0
    assert boundary_f1(spot, one, 3) == 0.0
    assert boundary_f1(np.full((5, 6), -1), spot, 3) is None
    assert boundary_f1(np.zeros((0, 6), int), np.zeros((0, 6), int), 3) is None


# Membranes


def random_cells(rng, height, width, membrane=0.35):
    return rng.uniform(size=(height, width)) >= membrane


def pieces(cells, connectivity):
    """The number of the piece of each pixel, from 1, by flooding; 0 outside of the cells."""
    steps = [(0, 1), (1, 0), (0, -1), (-1, 0)]
    if connectivity == 8:
        steps += [(1, 1), (1, -1), (-1, 1), (-1, -1)]
    numbers = np.zeros(cells.shape, int)
    for start in zip(*np.nonzero(cells)):
        if numbers[start]:
            continue
        numbers[start] = number = numbers.max() + 1
        front = [start]
        while front:
            y, x = front.pop()
            for step_y, step_x in steps:
                b = (y + step_y, x + step_x)
                inside = 0 <= b[0] < cells.shape[0] and 0 <= b[1] < cells.shape[1]
                if inside and cells[b] and not numbers[b]:
                    numbers[b] = number
                    front.append(b)
    return numbers


def test_pixel_error():
    rng = np.random.default_rng(0)
    a, b = random_cells(rng, 6, 7), random_cells(rng, 6, 7)
    assert pixel_error(a, b) == sum(x != y for x, y in zip(a.ravel(), b.ravel())) / 42
    assert pixel_error(a, a.astype(int)) == 0.0 and pixel_error(a, ~a) == 1.0


@pytest.mark.parametrize("seed", range(8))
def test_rand_error_equals_reference(seed):
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 10, 2)
    labels = random_cells(rng, *size)
    predictions = np.where(rng.uniform(size=size) < 0.8, labels, random_cells(rng, *size))
    truth, found = pieces(labels, 4)[labels], pieces(predictions, 4)[labels]
    both = in_truth = in_prediction = 0
    for i, j in itertools.combinations(range(len(truth)), 2):
        together = found[i] == found[j] and found[i] > 0
        in_truth += truth[i] == truth[j]
        in_prediction += together
        both += together and truth[i] == truth[j]
    expected = 0.0
    if in_truth + in_prediction:
        precision = both / in_prediction if in_prediction else 0.0
        recall = both / in_truth if in_truth else 0.0
        expected = 1 - 2 * precision * recall / (precision + recall) if both else 1.0
    assert rand_error(labels, predictions) == pytest.approx(expected)


def test_golden_rand_error():
    truth = drawn("""..#..
                     ..#..""")
    merged = drawn("""..#..
                      .....""")
    diagonal = drawn("""..#.#
                        ..##.""")
    assert rand_error(truth, truth) == 0.0
    # Truth: 2 cells with 6 pairs each; merged: 28 pairs, of which 12 are right.
    assert rand_error(truth, merged) == pytest.approx(1 - 2 * 12 / (12 + 28))
    # Pixels that touch at a corner are in two cells, and membrane is in none.
    assert rand_error(truth, diagonal) == pytest.approx(1 - 2 * 6 / (12 + 6))
    assert rand_error(truth, np.zeros((2, 5), bool)) == 1.0
    assert rand_error(np.zeros((2, 5), bool), truth) == 0.0  # no pixel to compare
    # What is predicted in true membrane joins, but isn't counted itself.
    assert rand_error(truth, np.ones((2, 5), bool)) == rand_error(truth, merged)


def test_simple_points_equal_counts_of_pieces():
    assert segmentation.IS_SIMPLE.shape == (256,)
    for code in range(256):
        patch = np.zeros((3, 3), bool)
        for k, (y, x) in enumerate(segmentation.NEIGHBOURS):
            patch[1 + y, 1 + x] = code >> k & 1
        numbers = pieces(patch, 4)
        cells = {numbers[0, 1], numbers[1, 0], numbers[1, 2], numbers[2, 1]} - {0}
        background = ~patch
        background[1, 1] = False
        expected = len(cells) == 1 and pieces(background, 8).max() == 1
        assert segmentation.IS_SIMPLE[code] == expected, f"{code:08b}"
    assert segmentation.IS_SIMPLE.sum() == 116


def topology(padded):
    """The number of cells and of pieces of membrane; the outside of the picture is membrane."""
    cells = cv2.connectedComponents(padded.astype("uint8"), connectivity=4)[0]
    membrane = cv2.connectedComponents((~padded).astype("uint8"), connectivity=8)[0]
    return cells, membrane


def reference_warping(labels, predictions):
    """Flips what leaves the number of pieces of the whole picture as it is, in the same order."""
    warped, target = np.pad(labels, 1), np.pad(predictions, 1)
    queue = list(zip(*np.nonzero(warped != target)))
    while queue:
        y, x = queue.pop(0)
        if warped[y, x] == target[y, x]:
            continue
        before = topology(warped)
        warped[y, x] ^= True
        if topology(warped) != before:
            warped[y, x] ^= True
            continue
        for step_y, step_x in segmentation.NEIGHBOURS:
            b = (y + step_y, x + step_x)
            if warped[b] != target[b]:
                queue.append(b)
    return (warped != target).sum() / labels.size


@pytest.mark.parametrize("seed", range(10))
def test_warping_error_equals_reference(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 20, 2)
    labels = random_cells(rng, height, width)
    predictions = random_cells(rng, height, width, (0.05, 0.35, 0.7)[seed % 3])
    assert warping_error(labels, predictions) == reference_warping(labels, predictions)


CELLS = drawn("""
    .....#.....
    .....#.....
    .....#.....
    ######.....
    .....#.....
    .....#.....""").astype(bool)


@pytest.mark.parametrize(
    "prediction, pixels",
    [
        # A membrane elsewhere, wider, bent, and with a dead end.
        ("""......#....
            ......#....
            .....#.....
            .....#.....
            #####......
            .....#.....""", 0),
        ("""....###....
            ....###....
            #######....
            #######....
            #######....
            ....###....""", 0),
        (""".....#.....
            ..#..#.....
            ..#..####..
            ######..#..
            .....#..#..
            .....#.....""", 0),
        # Gaps, of one pixel, of two, and at the border.
        (""".....#.....
            ...........
            .....#.....
            ######.....
            .....#.....
            .....#.....""", 1),
        (""".....#.....
            .....#.....
            .....#.....
            ##..##.....
            .....#.....
            .....#.....""", 2),
        (""".....#.....
            .....#.....
            .....#.....
            ######.....
            .....#.....
            ...........""", 1),
        # No membrane: the pixel where three meet can go, as those around it touch at corners.
        ("""...........
            ...........
            ...........
            ...........
            ...........
            ...........""", 10),
        # Membrane within a cell, not connected to the others; a cell within membrane.
        (""".....#.....
            .....#.....
            .....#..##.
            ######..##.
            .....#.....
            .....#.....""", 4),
        (""".....###...
            .....#.#...
            .....###...
            ######.....
            .....#.....
            .....#.....""", 1),
        # A cell split: but for the last pixel the new membrane is a dead end.
        (""".....#..#..
            .....#..#..
            .....#..#..
            ######..#..
            .....#..#..
            .....#..#..""", 1),
        # A cell lost: one pixel of it must stay.
        (""".....#.....
            .....#.....
            .....#.....
            ######.....
            ######.....
            ######.....""", 1),
    ],
)  # fmt: skip
def test_golden_warping_error(prediction, pixels):
    prediction = drawn(prediction).astype(bool)
    assert pixel_error(CELLS, prediction) > 0
    assert warping_error(CELLS, prediction) == pixels / CELLS.size
    assert warping_error(CELLS, CELLS) == 0.0


def test_warping_of_uniform_pictures():
    none, everything = np.zeros((5, 6), bool), np.ones((5, 6), bool)
    assert warping_error(none, none) == warping_error(everything, everything) == 0.0
    assert warping_error(everything, none) == 1 / 30  # the cell shrinks to a pixel
    assert warping_error(none, everything) == 1.0  # no cell to grow
    assert warping_error(np.ones((1, 1), bool), np.ones((1, 1), bool)) == 0.0


def test_membrane_scores_take_the_best_threshold():
    probabilities = np.where(CELLS, 0.9, 0.2)
    probabilities[1, 5] = 0.75  # a gap unless the threshold is above
    probabilities[4, 8] = 0.65  # a hole unless it is below
    found = membrane_scores(CELLS, probabilities)
    assert found["pixel_error"] == 1 / 66
    rand = {k: rand_error(CELLS, probabilities >= k / 10) for k in range(1, 10)}
    assert found["rand_error"] == min(rand.values()) == rand[8] < rand[7]
    assert found["rand_threshold"] == 0.8
    assert found["warping_error"] == 1 / 66 and found["warping_threshold"] == 0.3
    assert warping_error(CELLS, probabilities >= 0.7) == 2 / 66
    exact = membrane_scores(CELLS.astype("int32"), CELLS.astype("float32"))
    assert exact == {
        "pixel_error": 0.0,
        "rand_error": 0.0,
        "rand_threshold": 0.1,
        "warping_error": 0.0,
        "warping_threshold": 0.3,
    }


def test_membrane_scores_of_pictures_share_a_threshold():
    first, second = np.where(CELLS, 0.9, 0.2), np.where(CELLS, 0.3, 0.0)
    first[1, 5] = 0.45  # best from 0.5 on; the second picture up to 0.3
    each = [membrane_scores(CELLS, picture) for picture in (first, second)]
    assert [scores["rand_error"] for scores in each] == [0.0, 0.0]
    found = membrane_scores(np.stack([CELLS, CELLS]), np.stack([first, second]))
    assert found["pixel_error"] == np.mean([scores["pixel_error"] for scores in each])
    assert found["rand_threshold"] == 0.3
    assert found["rand_error"] == rand_error(CELLS, first >= 0.3) / 2 > 0
    assert found["warping_error"] == 1 / 132 and found["warping_threshold"] == 0.3


@pytest.mark.parametrize(
    "labels, predictions, message",
    [
        (np.ones((2, 3), bool), np.ones((2, 2), bool), r"received: \(2, 3\) and \(2, 2\)"),
        (np.ones((0, 3), bool), np.ones((0, 3), bool), r"with pixels; received: \(0, 3\)"),
        (np.ones(3, bool), np.ones(3, bool), r"received: \(3,\) and \(3,\)"),
        ([[0, -1]], [[0, 1]], "labels: must be True or False, 1 or 0; received: -1"),
        ([[0, 1]], [[0, 0.5]], "predictions: must be True or False, 1 or 0; received: 0.5"),
    ],
)
@pytest.mark.parametrize("measure", [pixel_error, rand_error, warping_error])
def test_cells_that_do_not_fit(measure, labels, predictions, message):
    with pytest.raises(ValueError, match=message):
        measure(labels, predictions)


@pytest.mark.parametrize(
    "labels, probabilities, message",
    [
        (np.ones((2, 3), bool), np.ones((2, 2)), r"received: \(2, 3\) and \(2, 2\)"),
        (np.ones((0, 2, 3), bool), np.ones((0, 2, 3)), r"received: \(0, 2, 3\)"),
        ([[1, 0]], [[0.5, 1.5]], "probabilities: must be from 0 to 1; received: 0.5 to 1.5"),
        ([[1, 0]], [[0.5, np.nan]], "probabilities: must be from 0 to 1; received: nan"),
        ([[1, -1]], [[0.5, 0.5]], "labels: must be True or False, 1 or 0; received: -1"),
    ],
)
def test_probabilities_that_do_not_fit(labels, probabilities, message):
    with pytest.raises(ValueError, match=message):
        membrane_scores(labels, probabilities)
