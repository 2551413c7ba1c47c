import functools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from keras import ops

from kerasvision.ops import anchors, matching
from kerasvision.ops import boxes as box_ops

# Thresholds of region proposal networks, RetinaNet and Fast R-CNN, and the extreme ones.
SETTINGS = [
    (0.7, (0.0, 0.3), True),
    (0.5, (0.0, 0.4), False),
    (0.5, (0.1, 0.5), False),
    (0.0, (0.0, 0.0), False),
    (1.0, (0.0, 1.0), True),
]


# --- References --------------------------------------------------------------------------


def reference_arg_max(similarity, positive_threshold, background_range, force_match):
    """Column by column."""
    num_rows, num_columns = similarity.shape
    forced = set()
    for row in range(num_rows if force_match else 0):
        best = max(x if x > 0 else 0.0 for x in similarity[row])
        forced |= {
            a for a in range(num_columns) if similarity[row, a] > 0 and similarity[row, a] >= best
        }
    matched = []
    for a in range(num_columns):
        best, best_row = 0.0, None
        for row in range(num_rows):
            if similarity[row, a] > best:
                best, best_row = similarity[row, a], row
        if best_row is not None and (best >= positive_threshold or a in forced):
            matched.append(best_row)
        elif background_range[0] <= best < background_range[1]:
            matched.append(-1)
        else:
            matched.append(-2)
    return matched


def reference_bipartite(similarity):
    """Pair by pair."""
    matched = np.full(similarity.shape[1], -1)
    free = np.where(similarity > 0, similarity, 0)
    while free.size and free.max() > 0:
        row, column = np.unravel_index(free.argmax(), free.shape)
        matched[column] = row
        free[row, :] = 0
        free[:, column] = 0
    return matched


def reference_default_boxes(iou, threshold):
    matched = reference_bipartite(iou)
    for a in np.flatnonzero(matched < 0):
        best, best_row = 0.0, -1
        for row in range(len(iou)):
            if iou[row, a] > best:
                best, best_row = iou[row, a], row
        if best > np.float32(threshold):
            matched[a] = best_row
    return matched


def adversarial():
    """(24, 4, 7): ties, padding, NaN, chains of second choices."""
    rng = np.random.default_rng(0)
    row, column = np.mgrid[:4, :7]
    coarse = rng.integers(0, 3, (4, 4, 7)) / 2
    padded = rng.uniform(0, 1, (4, 4, 7))
    padded[0, 0] = padded[1, 3] = padded[2, 1:] = padded[3, :2] = 0
    with_nan = rng.uniform(0, 1, (4, 4, 7))
    with_nan[0, 0, 0] = with_nan[1, 2] = with_nan[2, :, 3] = with_nan[3, :, 1:] = math.nan
    some = [
        *(np.full((4, 7), x) for x in (0.0, 1.0, 0.5, 0.3, 0.7, -1.0, math.nan)),
        *((row + column) / 9, 1 - (row + column) / 9, column / 6, row / 3),
        (row == column) * 1.0,
    ]
    return np.concatenate([coarse, padded, with_nan, some]).astype("float32")


# --- Arg-max matching --------------------------------------------------------------------

# Multiples of 0.1 lie on the thresholds, and tie; others lie anywhere.
SIMILARITIES = st.one_of(
    st.sampled_from(np.linspace(0, 1, 11, dtype="float32").tolist()),
    st.floats(0, 1, width=16),
    st.sampled_from([0.0, math.nan, -0.5]),
)


def test_arg_max_golden(compiled):
    #             box     0    1    2    3    4    5
    similarity = [[[0.75, 0.40, 0.20, 0.10, 0.70, 0.00], [0.10, 0.60, 0.29, 0.60, 0.80, 0.00]]]
    match = functools.partial(compiled(matching.arg_max_matching), np.array(similarity, "f4"))
    np.testing.assert_array_equal(
        match(positive_threshold=0.7, background_range=(0.0, 0.3), force_match=False),
        [[0, -2, -1, -2, 1, -1]],
    )
    # Fast R-CNN ignores what hardly overlaps.
    np.testing.assert_array_equal(
        match(positive_threshold=0.5, background_range=(0.1, 0.5), force_match=False),
        [[0, 1, -1, 1, 1, -2]],
    )


def test_forced_matches_golden(compiled):
    # Object 0 is below the threshold everywhere, and equally similar to boxes 1 and 3. Both
    # are positive for it, but box 3 itself resembles object 1 more. Object 2 is padding.
    similarity = [[[0.2, 0.4, 0.1, 0.4, 0.0], [0.1, 0.3, 0.9, 0.5, 0.0], [0.0] * 5]]
    match = functools.partial(compiled(matching.arg_max_matching), np.array(similarity, "f4"))
    expected = {True: [[-1, 0, 1, 1, -1]], False: [[-1, -2, 1, -2, -1]]}
    for force_match in (True, False):
        found = match(positive_threshold=0.7, background_range=(0.0, 0.3), force_match=force_match)
        np.testing.assert_array_equal(found, expected[force_match])
        assert ops.convert_to_numpy(found).dtype == np.int32


@pytest.mark.parametrize("setting", SETTINGS)
def test_arg_max_equals_reference(compiled, setting):
    names = ("positive_threshold", "background_range", "force_match")
    match = compiled(functools.partial(matching.arg_max_matching, **dict(zip(names, setting))))
    # Thresholds as the operator sees them.
    positive_threshold, (low, high) = np.float32(setting[0]), np.float32(setting[1])

    def check(similarity):
        expected = [
            reference_arg_max(s, positive_threshold, (low, high), setting[2]) for s in similarity
        ]
        np.testing.assert_array_equal(match(similarity), expected)

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(arrays("float32", (4, 3, 6), elements=SIMILARITIES))
    def check_drawn(similarity):
        check(similarity)

    check_drawn()
    check(adversarial())


def test_every_object_of_a_picture_finds_an_anchor(compiled):
    references = anchors.rpn_anchors([(19, 25)], [32], (600, 800), [(128, 256, 512)])

    def match(boxes):
        iou = box_ops.iou(boxes, box_ops.to_corner_form(references))
        return iou, matching.arg_max_matching(iou, 0.7, (0.0, 0.3), True)

    match = compiled(match)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        corner = rng.uniform(0, 0.8, (4, 10, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(0.02, 0.4, (4, 10, 2))], -1)
        iou, matched = (ops.convert_to_numpy(x) for x in match(boxes.astype("f4")))
        for b in range(4):
            assert (iou[b].max(0)[matched[b] == -1] < 0.3).all()
            for row in range(10):
                assert matched[b, iou[b, row].argmax()] >= 0


# --- Bipartite matching ------------------------------------------------------------------


def test_bipartite_golden(compiled):
    # Both rows like column 1 best; row 1 likes it more, so row 0 takes its second choice.
    similarity = np.array([[[0.5, 0.8, 0.1], [0.2, 0.9, 0.3]]], "f4")
    np.testing.assert_array_equal(compiled(matching.bipartite_matching)(similarity), [[0, 1, -1]])


@pytest.mark.parametrize("shape", [(16, 6, 4), (16, 5, 12)])
def test_bipartite_equals_reference(compiled, shape):
    match = compiled(matching.bipartite_matching)

    def check(similarity):
        expected = [reference_bipartite(s) for s in similarity]
        np.testing.assert_array_equal(match(similarity), expected)

    # Few distinct values make ties and chains of second choices.
    @settings(max_examples=10, deadline=None, derandomize=True)
    @given(seed=st.integers(0, 10**6), levels=st.sampled_from([1, 2, 5, 10**6]))
    def check_random(seed, levels):
        rng = np.random.default_rng(seed)
        check((rng.integers(-1, levels + 1, shape) / levels).astype("float32"))

    @settings(max_examples=10, deadline=None, derandomize=True)
    @given(arrays("float32", shape, elements=SIMILARITIES))
    def check_drawn(similarity):
        check(similarity)

    check_random()
    check_drawn()
    check(adversarial())


# --- SSD's matching ----------------------------------------------------------------------


def test_match_default_boxes_golden(compiled):
    iou = np.array(
        [
            # Object 0 forces box 0 below the threshold; object 1 takes box 1 and, by the
            # threshold, box 2, which object 0 overlaps less; box 3 is background.
            [[0.30, 0.25, 0.10, 0.50], [0.10, 0.90, 0.60, 0.20]],
            # No object at all.
            [[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]],
        ],
        "f4",
    )
    iou[0, 0, 3] = 0.3  # equal to its overlap with box 0: the first one is forced
    np.testing.assert_array_equal(
        compiled(matching.match_default_boxes)(iou), [[0, 1, 1, -1], [-1, -1, -1, -1]]
    )


def test_forced_match_wins_over_a_better_object():
    # Box 0 overlaps object 1 more, but it is the only one that object 0 can have.
    iou = np.array([[[0.6, 0.0], [0.7, 0.9]]], "f4")
    np.testing.assert_array_equal(matching.match_default_boxes(iou), [[0, 1]])


def test_threshold_is_exclusive():
    iou = np.array([[[0.9, 0.5, 0.51]]], "f4")
    np.testing.assert_array_equal(matching.match_default_boxes(iou, 0.5), [[0, -1, 0]])


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_match_default_boxes_equals_reference(compiled, threshold):
    match = compiled(functools.partial(matching.match_default_boxes, threshold=threshold))

    def check(iou):
        expected = [reference_default_boxes(s, threshold) for s in iou]
        np.testing.assert_array_equal(match(iou), expected)

    @settings(max_examples=15, deadline=None, derandomize=True)
    @given(arrays("float32", (16, 3, 6), elements=SIMILARITIES))
    def check_drawn(iou):
        check(iou)

    check_drawn()
    check(adversarial())


# --- All of them -------------------------------------------------------------------------

MATCHINGS = [matching.arg_max_matching, matching.bipartite_matching, matching.match_default_boxes]


@pytest.mark.parametrize("match", MATCHINGS)
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_nothing_matches_nothing(compiled, match, value):
    found = compiled(match)(np.full((2, 3, 4), value, "f4"))
    np.testing.assert_array_equal(found, -np.ones((2, 4)))


@pytest.mark.parametrize("match", MATCHINGS)
def test_no_objects_and_no_pictures(compiled, match):
    match = compiled(match)
    np.testing.assert_array_equal(match(np.zeros((2, 0, 4), "f4")), -np.ones((2, 4)))
    assert tuple(match(np.zeros((0, 3, 4), "f4")).shape) == (0, 4)


@pytest.mark.parametrize("match", MATCHINGS)
def test_one_pair(compiled, match):
    np.testing.assert_array_equal(compiled(match)(np.array([[[0.6]], [[0.0]]], "f4")), [[0], [-1]])


@pytest.mark.parametrize("match", MATCHINGS)
def test_lists_are_tensors(match):
    np.testing.assert_array_equal(match([[[0.9, 0.1], [0.2, 0.8]]]), [[0, 1]])


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: matching.arg_max_matching(np.zeros((3, 4))),
            r"similarity must have shape \(B, N, A\), A above 0; received: \(3, 4\)",
        ),
        (
            lambda: matching.bipartite_matching(np.zeros((1, 3, 0))),
            r"similarity must have shape \(B, N, A\), A above 0; received: \(1, 3, 0\)",
        ),
        (
            lambda: matching.match_default_boxes(np.zeros((2, 1, 3, 4))),
            r"iou must have shape \(B, N, A\), A above 0; received: \(2, 1, 3, 4\)",
        ),
        (
            lambda: matching.match_default_boxes(np.zeros((1, 3, 4)), 1.5),
            r"threshold must be in \[0, 1\]; received: 1.5",
        ),
        (
            lambda: matching.match_default_boxes(np.zeros((1, 3, 4)), math.nan),
            r"threshold must be in \[0, 1\]; received: nan",
        ),
        *(
            (
                lambda setting=setting: matching.arg_max_matching(np.zeros((1, 3, 4)), *setting),
                "background_range and positive_threshold must be .*; received: ",
            )
            for setting in ((1.1,), (0.3, (0.0, 0.5)), (0.5, (0.4, 0.2)), (0.5, (-0.1, 0.2)))
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
