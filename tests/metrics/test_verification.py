"""Verification and identification against loops, by hand and against scikit-learn."""

import itertools

import numpy as np
import pytest
import scipy.optimize
import sklearn.metrics

from kerasvision.metrics import verification

# A hand-made set: genuine 1 2 3 5, impostors 2.5 4 6 7.
DISTANCES = np.array([1, 2, 3, 5, 2.5, 4, 6, 7])
SAME = np.array([1, 1, 1, 1, 0, 0, 0, 0], bool)


def random_pairs(seed, count=400, ties=False):
    rng = np.random.default_rng(seed)
    same = rng.random(count) < 0.3
    distances = rng.gamma(4, 0.2, count) + 0.4 * ~same
    return (np.round(distances, 1) if ties else distances), same


def random_embeddings(seed, counts, spread):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    embeddings = rng.normal(size=(len(counts), 6))[labels]
    embeddings += spread * rng.normal(size=(len(labels), 6))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    order = rng.permutation(len(labels))
    return embeddings[order].astype("float32"), labels[order]


def test_golden_roc():
    far, tar, thresholds = verification.roc(DISTANCES, SAME)
    np.testing.assert_array_equal(thresholds[1:], [1, 2, 2.5, 3, 4, 5, 6, 7])
    np.testing.assert_array_equal(tar, np.array([0, 1, 2, 2, 3, 3, 4, 4, 4]) / 4)
    np.testing.assert_array_equal(far, np.array([0, 0, 0, 1, 1, 2, 2, 3, 4]) / 4)
    assert np.isfinite(thresholds[0]) and np.float32(thresholds[0]) < np.float32(1)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_roc_equals_loops_and_sklearn(seed, ties):
    distances, same = random_pairs(seed, ties=ties)
    far, tar, thresholds = verification.roc(distances, same)
    assert len(thresholds) == len(set(distances)) + 1
    for f, t, threshold in zip(far, tar, thresholds):
        accepted = [d <= threshold for d in distances]
        assert f == sum(a and not s for a, s in zip(accepted, same)) / sum(~same)
        assert t == sum(a and s for a, s in zip(accepted, same)) / sum(same)
    fpr, tpr, levels = sklearn.metrics.roc_curve(same, -distances, drop_intermediate=False)
    np.testing.assert_allclose(far, fpr)
    np.testing.assert_allclose(tar, tpr)
    np.testing.assert_array_equal(thresholds[1:], -levels[1:])

    # Where the interpolated curve meets the diagonal.
    crossing = scipy.optimize.brentq(lambda x: 1 - x - np.interp(x, fpr, tpr), 0, 1)
    if not ties:  # np.interp of a vertical piece takes one of its ends
        assert abs(verification.equal_error_rate(distances, same) - crossing) <= 2 / sum(same)
    for target in (0, 0.003, 0.01, 0.1, 1):
        expected = max(t for f, t in zip(far, tar) if f <= target)
        assert verification.tar_at_far(distances, same, target) == expected


def test_equal_error_rate_by_hand():
    # Past 3, FAR and 1 - TAR are both 1/4.
    assert verification.equal_error_rate(DISTANCES, SAME) == 0.25
    assert verification.equal_error_rate([0, 1], [True, False]) == 0
    assert verification.equal_error_rate([1, 0], [True, False]) == 1
    # All alike: the line from (0, 0) to (1, 1) meets FAR = 1 - TAR in the middle.
    assert verification.equal_error_rate([1, 1, 1], [True, False, False]) == 0.5
    # Between (0, 1/2), below 1/2 missed, and (1/3, 1): 0 + t/3 = 1/2 - t/2, t = 3/5.
    value = verification.equal_error_rate([1, 2, 2, 3, 3], [True, True, False, False, False])
    assert value == pytest.approx(0.2)


def test_threshold_by_hand():
    assert verification.choose_threshold(DISTANCES, SAME) == 3.5
    assert verification.choose_threshold(DISTANCES, SAME, far=0) == 2.25
    assert verification.choose_threshold(DISTANCES, SAME, far=0.49) == 3.5
    assert verification.choose_threshold(DISTANCES, SAME, far=0.5) == 5.5
    assert verification.choose_threshold(DISTANCES, SAME, far=1) == 7
    # The nearest pair is an impostor: nothing can be accepted, in float32 neither.
    nothing = verification.choose_threshold([0.1, 0.2], [False, True], far=0.5)
    assert not (np.array([0.1, 0.2], "float32") <= nothing).any()
    for far in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match="FAR must be from 0 to 1"):
            verification.choose_threshold(DISTANCES, SAME, far=far)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("far", [0.0, 0.02, 0.3])
def test_threshold_keeps_its_false_accept_rate(far, ties):
    distances, same = random_pairs(5, ties=ties)
    threshold = verification.choose_threshold(distances, same, far)
    assert np.mean(distances[~same] <= threshold) <= far
    # Any greater one that accepts another pair accepts too many, or a genuine one too few.
    expected = verification.tar_at_far(distances, same, far)
    assert np.mean(distances[same] <= threshold) == expected


def slow_ten_fold(distances, same, folds):
    accuracies = []
    for fold in range(10):
        others = [(d, s) for d, s, f in zip(distances, same, folds) if f != fold]
        levels = sorted({d for d, _ in others})
        candidates = [-1.0, *((a + b) / 2 for a, b in itertools.pairwise(levels)), levels[-1]]
        scores = [sum((d <= c) == s for d, s in others) for c in candidates]
        threshold = candidates[int(np.argmax(scores))]
        own = [(d, s) for d, s, f in zip(distances, same, folds) if f == fold]
        accuracies.append(sum((d <= threshold) == s for d, s in own) / len(own))
    return np.mean(accuracies), np.std(accuracies, ddof=1) / np.sqrt(10)


@pytest.mark.parametrize("ties", [False, True])
def test_ten_fold_accuracy_equals_loops(ties):
    distances, same = random_pairs(7, 300, ties)
    folds = np.random.default_rng(0).permutation(300) % 10
    found = verification.ten_fold_accuracy(distances, same, folds)
    np.testing.assert_allclose(found, slow_ten_fold(distances, same, folds), rtol=1e-12)
    assert 0.6 < found[0] < 0.95


def test_ten_fold_accuracy_of_folds_that_are_dealt_out():
    same = np.arange(40) < 20
    assert verification.ten_fold_accuracy(np.where(same, 0.1, 0.9), same) == (1.0, 0.0)
    distances, same = random_pairs(8)
    first = verification.ten_fold_accuracy(distances, same)
    assert first == verification.ten_fold_accuracy(distances, same)
    assert first != verification.ten_fold_accuracy(distances, same, seed=1)
    with pytest.raises(ValueError, match="received: 9 of one"):
        verification.ten_fold_accuracy(np.arange(30), np.arange(30) < 9)
    with pytest.raises(ValueError, match="received: 8 of two"):
        verification.ten_fold_accuracy(np.arange(30), np.arange(30) >= 8)
    with pytest.raises(ValueError, match=r"all of 0 to 9; received: \(30,\), 0, 1, 2"):
        verification.ten_fold_accuracy(np.arange(30), np.arange(30) < 15, np.arange(30) % 3)


def slow_rank_1(embeddings, labels):
    """Tries all choices of enrolled pictures."""
    embeddings = embeddings.astype("float64")
    persons = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    right = probes = 0
    for enrolled in itertools.product(*persons):
        for i in range(len(labels)):
            if i in enrolled:
                continue
            distances = [np.linalg.norm(embeddings[i] - embeddings[j]) for j in enrolled]
            own = next(d for d, j in zip(distances, enrolled) if labels[j] == labels[i])
            right += all(d > own or labels[j] == labels[i] for d, j in zip(distances, enrolled))
            probes += 1
    return right / probes


@pytest.mark.parametrize("counts", [(3, 3, 3), (4, 1, 2, 3), (2, 1), (5, 5)])
@pytest.mark.parametrize("spread", [0.2, 0.8, 2.0])
def test_rank_1_is_the_mean_over_all_galleries(counts, spread):
    embeddings, labels = random_embeddings(len(counts), counts, spread)
    expected = slow_rank_1(embeddings, labels)
    assert verification.rank_1(embeddings, labels) == pytest.approx(expected, abs=1e-12)


def test_rank_1_in_more_rows_than_a_block(monkeypatch):
    embeddings, labels = random_embeddings(3, (4, 3, 5, 2), 0.8)
    expected = verification.rank_1(embeddings, labels)
    distances, same = verification.pair_distances(embeddings, labels)
    monkeypatch.setattr(verification, "ROWS", 4)
    assert verification.rank_1(embeddings, labels) == pytest.approx(expected)
    found, found_same = verification.pair_distances(embeddings, labels)
    np.testing.assert_allclose(found, distances, atol=1e-7)
    np.testing.assert_array_equal(found_same, same)


def test_rank_1_of_equal_pictures_is_none():
    assert verification.rank_1(np.ones((6, 2)), [0, 0, 0, 1, 1, 1]) == 0
    assert verification.rank_1(np.eye(2)[[0, 0, 1, 1]], ["a", "a", "b", "b"]) == 1


@pytest.mark.parametrize("ties", [False, True])
def test_open_set_equals_loops(ties):
    rng = np.random.default_rng(4)
    gallery_labels = np.array(["ann", "bob", "cid", "ann"])
    probe_labels = rng.choice(["ann", "bob", "cid", "dot", "eve"], 60)
    distances = rng.random((60, 4)) + (probe_labels[:, None] != gallery_labels) * 0.3
    distances = np.round(distances, 1) if ties else distances
    far, rate, thresholds = verification.open_set_curve(distances, probe_labels, gallery_labels)
    assert thresholds[0] < distances.min() and far[0] == rate[0] == 0
    assert len(thresholds) == len(set(distances.min(axis=1))) + 1
    for f, r, threshold in zip(far, rate, thresholds):
        known = unknown = found = accepted = 0
        for row, label in zip(distances, probe_labels):
            nearest = int(np.argmin(row))
            if label in gallery_labels:
                known += 1
                found += row[nearest] <= threshold and gallery_labels[nearest] == label
            else:
                unknown += 1
                accepted += row[nearest] <= threshold
        assert f == accepted / unknown and r == found / known
    assert verification.rate_at_far(far, rate, 0.2) == max(rate[far <= 0.2])


def test_open_set_by_hand():
    # Probes of a, at .1 from a and .2 from b: found; of b, nearer to a: not; unknown, at .3.
    distances = [[0.1, 0.2], [0.15, 0.4], [0.3, 0.5]]
    far, rate, thresholds = verification.open_set_curve(distances, [0, 1, 2], [0, 1])
    np.testing.assert_array_equal(thresholds[1:], [0.1, 0.15, 0.3])
    np.testing.assert_array_equal(far, [0, 0, 0, 1])
    np.testing.assert_array_equal(rate, [0, 0.5, 0.5, 0.5])
    with pytest.raises(ValueError, match="2 probes of enrolled persons and 0 of others"):
        verification.open_set_curve([[1], [2]], [0, 0], [0])
    with pytest.raises(ValueError, match="0 probes of enrolled persons and 2 of others"):
        verification.open_set_curve([[1], [2]], [1, 2], [0])
    with pytest.raises(ValueError, match=r"must be \(2, 1\).*received: \(1, 2\)"):
        verification.open_set_curve([[1, 2]], [0, 0], [0])


def test_evaluate():
    embeddings, labels = random_embeddings(1, (6, 5, 4, 7), 0.5)
    pairs = list(itertools.combinations(range(len(labels)), 2))
    wide = embeddings.astype("float64")
    distances = np.array([np.linalg.norm(wide[i] - wide[j]) for i, j in pairs])
    same = np.array([labels[i] == labels[j] for i, j in pairs])
    values = verification.evaluate(embeddings, labels)
    assert values["genuine_pairs"] == same.sum() and values["impostor_pairs"] == sum(~same)
    assert values["eer"] == verification.equal_error_rate(distances, same)
    expected = verification.choose_threshold(distances, same)
    assert values["threshold"] == pytest.approx(expected, abs=1e-7)
    for name, far in (("tar_at_far_1e-2", 1e-2), ("tar_at_far_1e-3", 1e-3)):
        assert values[name] == verification.tar_at_far(distances, same, far)
    assert values["rank_1"] == verification.rank_1(embeddings, labels)
    # Balanced: of the best threshold it is about one less the equal error rate.
    assert abs(values["ten_fold_accuracy"] - (1 - values["eer"])) < 0.06
    assert all(type(value) in (int, float) for value in values.values())
    names = np.array(["ann", "bob", "cid", "dot"])[labels]
    assert verification.evaluate(embeddings, names) == values


def test_evaluate_of_few_pictures_and_of_perfect_ones():
    values = verification.evaluate(np.eye(3)[[0, 0, 1, 1]], [7, 7, 9, 9])
    assert "ten_fold_accuracy" not in values  # of two genuine pairs
    assert (values["eer"], values["rank_1"], values["tar_at_far_1e-3"]) == (0, 1, 1)
    assert values["threshold"] == pytest.approx(2**0.5 / 2)


def test_many_pairs_are_drawn(monkeypatch):
    embeddings, labels = random_embeddings(2, (30, 40, 30), 1.0)
    all_distances, all_same = verification.pair_distances(embeddings, labels)
    assert len(all_same) == 100 * 99 // 2
    monkeypatch.setattr(verification, "MOST_PAIRS", 1000)
    distances, same = verification.pair_distances(embeddings, labels)
    assert 900 < same.sum() < 1100 and 900 < (~same).sum() < 1100
    for kind in (True, False):
        assert set(distances[same == kind]) <= set(all_distances[all_same == kind])
    error = verification.equal_error_rate(distances, same)
    assert abs(error - verification.equal_error_rate(all_distances, all_same)) < 0.03


@pytest.mark.parametrize("function", [verification.roc, verification.equal_error_rate])
def test_one_kind_of_pairs_or_none(function):
    with pytest.raises(ValueError, match="received: 0 of one and 2 of two"):
        function([1, 2], [False, False])
    with pytest.raises(ValueError, match="received: 2 of one and 0 of two"):
        function([1, 2], [True, True])
    with pytest.raises(ValueError, match="received: 0 of one and 0 of two"):
        function([], [])
    with pytest.raises(ValueError, match=r"received: \(2,\) and \(3,\)"):
        function([1, 2], [True, False, True])
    with pytest.raises(ValueError, match="distances must be finite; received: nan"):
        function([1, np.nan], [True, False])


@pytest.mark.parametrize("function", [verification.evaluate, verification.rank_1])
def test_one_person_or_none(function):
    with pytest.raises(ValueError, match="two persons or more; received: 1 person, 3 pictures"):
        function(np.zeros((3, 2)), [4, 4, 4])
    with pytest.raises(ValueError, match="received: 0 persons, 0 pictures"):
        function(np.zeros((0, 2)), [])
    with pytest.raises(ValueError, match=r"received: \(3, 2\) and \(2,\)"):
        function(np.zeros((3, 2)), [1, 2])
    with pytest.raises(ValueError, match="embeddings must be finite; received: inf"):
        function(np.full((2, 2), np.inf), [1, 2])


def test_one_picture_of_each():
    with pytest.raises(ValueError, match="two pictures or more; received: one picture of each"):
        verification.rank_1(np.eye(3), [1, 2, 3])
    with pytest.raises(ValueError, match="received: 0 of one and 3 of two"):
        verification.evaluate(np.eye(3), [1, 2, 3])
