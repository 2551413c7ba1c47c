import numpy as np
import pytest
from keras import ops

from kerasvision.ops import matching


def reference_bipartite(similarity):
    matched = np.full(similarity.shape[1], -1)
    free = similarity.copy()
    while free.size and free.max() > 0:
        row, column = np.unravel_index(free.argmax(), free.shape)
        matched[column] = row
        free[row, :] = 0
        free[:, column] = 0
    return matched


def test_bipartite_golden(compiled):
    # Both rows like column 1 best; row 1 likes it more, so row 0 takes its second choice.
    similarity = np.array([[[0.5, 0.8, 0.1], [0.2, 0.9, 0.3]]], "f4")
    np.testing.assert_array_equal(compiled(matching.bipartite_matching)(similarity), [[0, 1, -1]])


@pytest.mark.parametrize("seed", range(5))
def test_bipartite_equals_reference(compiled, seed):
    rng = np.random.default_rng(seed)
    # Few distinct values: ties and chains of second choices; and columns scarcer than rows.
    similarity = rng.integers(0, 5, (4, 6, (4, 40)[seed % 2])).astype("f4") / 5
    expected = [reference_bipartite(s) for s in similarity]
    np.testing.assert_array_equal(compiled(matching.bipartite_matching)(similarity), expected)


def test_bipartite_without_any_overlap(compiled):
    np.testing.assert_array_equal(
        compiled(matching.bipartite_matching)(np.zeros((2, 3, 4), "f4")), -np.ones((2, 4))
    )


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


def test_hard_negative_mining_golden(compiled):
    losses = np.array([[9.0, 0.1, 0.5, 0.3, 0.4], [1.0, 2.0, 3.0, 4.0, 5.0]], "f4")
    positive = np.array([[True, False, False, False, False], [False] * 5])
    negative = compiled(matching.hard_negative_mining)(losses, positive, 3.0)
    # The three hardest of the first picture; none where nothing is positive.
    np.testing.assert_array_equal(negative, [[False, False, True, True, True], [False] * 5])


def test_hard_negative_mining_keeps_to_its_quota_when_losses_tie(compiled):
    positive = np.zeros((1, 10), bool)
    positive[0, 4] = True
    negative = ops.convert_to_numpy(
        compiled(matching.hard_negative_mining)(np.ones((1, 10), "f4"), positive, 3.0)
    )
    assert negative.sum() == 3 and not negative[0, 4]


def test_hard_negative_mining_never_takes_positives():
    positive = np.array([[True, True, False]])
    np.testing.assert_array_equal(
        matching.hard_negative_mining(np.zeros((1, 3), "f4"), positive), [[False, False, True]]
    )
