"""Verification, "are these two of one person?", and identification, "who is it?", by distances.

A pair of pictures is accepted, taken for two of one person, where the distance of their embeddings
is at most a threshold. FAR, the false accept rate, is the part of the impostor pairs (two persons)
that is accepted; TAR, the true accept rate, that of the genuine pairs (one person).
"""

import numpy as np

MOST_PAIRS = 5_000_000  # of a kind; of more, as many are drawn
ROWS = 256  # of the matrix of distances at a time
FOLDS = 10


def roc(distances, same):
    """The receiver operating characteristic: FAR and TAR at each threshold that matters.

    Args:
        distances: (P,), finite, of P pairs.
        same: (P,) bool, whether the two are of one person.

    Returns:
        (far, tar, thresholds), each (T + 1,) float64 and ascending, of the T different distances;
        the first threshold is below them all: nothing is accepted.

    Raises:
        ValueError: no genuine or no impostor pair, unequal lengths, or a distance not finite.
    """
    distances, same = np.asarray(distances, "float64"), np.asarray(same, bool)
    if distances.ndim != 1 or distances.shape != same.shape:
        raise ValueError(
            "distances and same must be of one length (P,); received: "
            f"{distances.shape} and {same.shape}"
        )
    genuine, impostors = int(same.sum()), int((~same).sum())
    if not (genuine and impostors):
        raise ValueError(
            "same must have pairs of one person and pairs of two; received: "
            f"{genuine} of one and {impostors} of two"
        )
    _check_finite("distances", distances)
    order = np.argsort(distances, kind="stable")
    distances, same = distances[order], same[order]
    last = np.append(np.flatnonzero(np.diff(distances)), len(distances) - 1)  # of equal ones
    accepted = np.cumsum(same)[last]
    tar = np.append(0.0, accepted / genuine)
    far = np.append(0.0, (last + 1 - accepted) / impostors)
    return far, tar, np.append(_below(distances[0]), distances[last])


def rate_at_far(far, rate, target):
    """The rate at the greatest FAR that is `target` or less; nothing is interpolated.

    Args:
        far, rate: as from `roc` or `open_set_curve`.
        target: from 0 to 1. Of I impostors a FAR below 1 / I is 0.

    Returns:
        float.
    """
    return float(rate[_last_at(far, target)])


def tar_at_far(distances, same, target):
    """TAR at the greatest threshold whose FAR is at most `target`; see `roc`, `rate_at_far`."""
    far, tar, _ = roc(distances, same)
    return rate_at_far(far, tar, target)


def equal_error_rate(distances, same):
    """The rate at which FAR equals 1 - TAR, on straight lines between the points of `roc`."""
    return _equal_error_rate(*roc(distances, same)[:2])


def choose_threshold(distances, same, far=None):
    """A threshold for other pairs, chosen on these: they should not be those of the test.

    It lies halfway between two distances, where that changes no pair's decision.

    Args:
        distances, same: as of `roc`.
        far: the greatest FAR allowed; None: FAR and 1 - TAR are to be as equal as can be.

    Returns:
        float.

    Raises:
        ValueError: as of `roc`, or `far` isn't from 0 to 1.
    """
    return _threshold(*roc(distances, same), far)


def ten_fold_accuracy(distances, same, folds=None, seed=0):
    """Accuracy on each tenth of the pairs, with the best threshold of the nine others.

    The protocol of Huang et al. 2007, "Labeled Faces in the Wild", view 2.

    Args:
        distances, same: as of `roc`; half of the pairs should be genuine.
        folds: (P,) integers from 0 to 9, the fold of each pair; None: genuine pairs are dealt
            out at random, and impostors are.
        seed: of chance.

    Returns:
        (mean, its standard error), floats.

    Raises:
        ValueError: as of `roc`; fewer than 10 pairs of a kind where the folds are not given; a
            fold without a pair, or nine without one of both kinds.
    """
    distances, same = np.asarray(distances, "float64"), np.asarray(same, bool)
    if folds is None:
        folds = np.empty(same.shape, int)
        generator = np.random.default_rng(seed)
        for kind in (True, False):
            members = np.flatnonzero(same == kind)
            if len(members) < FOLDS:
                raise ValueError(
                    f"same must have {FOLDS} pairs or more of one person, and of two; received: "
                    f"{len(members)} of {'one' if kind else 'two'}"
                )
            folds[generator.permutation(members)] = np.arange(len(members)) % FOLDS
    folds = np.asarray(folds)
    if folds.shape != same.shape or set(np.unique(folds)) != set(range(FOLDS)):
        raise ValueError(
            f"folds must be one a pair, and all of 0 to {FOLDS - 1}; received: "
            f"{folds.shape}, {', '.join(map(str, np.unique(folds)))}"
        )
    accuracies = []
    for fold in range(FOLDS):
        test = folds == fold
        far, tar, thresholds = roc(distances[~test], same[~test])
        share = same[~test].mean()
        best = np.argmax(share * tar + (1 - share) * (1 - far))
        accepted = distances[test] <= _between(thresholds, best)
        accuracies.append(np.mean(accepted == same[test]))
    return float(np.mean(accuracies)), float(np.std(accuracies, ddof=1) / FOLDS**0.5)


def rank_1(embeddings, labels):
    """How often the nearest of one enrolled picture a person is of the probe's person.

    Probes are all pictures that are not enrolled. The value is the mean over all choices of the
    enrolled pictures, each person's by itself; it is computed without trying them. A person of
    one picture is enrolled, but no probe. A picture of another person that is as near counts as
    nearer.

    Args:
        embeddings: (N, D), compared by Euclidean distance.
        labels: (N,) of any kind, equal for one person.

    Returns:
        float, 0 to 1.

    Raises:
        ValueError: fewer than two persons, or no person of two pictures.
    """
    embeddings, labels, counts = _check(embeddings, labels)
    if counts.max() < 2:
        raise ValueError(
            "labels must have a person of two pictures or more; received: one picture of each"
        )
    # For a probe and an enrolled picture of its person at distance d, another person's enrolled
    # picture is farther with the probability "part of that person's pictures farther than d";
    # the probability that all are is the product over persons. Walking outwards from the probe,
    # the k-th picture of a person of n changes that person's factor by (n - k) / (n - k + 1).
    total = 0.0
    for start, block in _distance_rows(embeddings):
        for i, distances in enumerate(block, start):
            own = labels == labels[i]
            order = np.lexsort((own, distances))  # the person's own behind those as near
            order = order[order != i]
            walked = labels[order]
            grouped = np.argsort(walked, kind="stable")
            starts = np.searchsorted(walked[grouped], np.arange(len(counts)))
            k = np.empty(len(order), int)
            k[grouped] = np.arange(len(order)) - starts[walked[grouped]] + 1
            left = counts[walked] - k
            mine = own[order]
            # Its own person enters no product, and is short of the probe itself.
            factors = np.where(mine, 1.0, left / (left + 1))
            total += np.cumprod(factors)[mine].sum() / counts[labels[i]]
    return float(total / (len(labels) - len(counts)))


def open_set_curve(distances, probe_labels, gallery_labels):
    """Open-set identification: how many known probes are found, how many unknown ones accepted.

    DIR, the detection and identification rate, is the part of the probes of enrolled persons
    whose nearest enrolled picture is of the right person and within the threshold. FAR is the
    part of the probes of other persons with any enrolled picture within it. From Phillips et al.
    2011, "Evaluation Methods in Face Recognition" (Handbook of Face Recognition, chapter 21).

    Args:
        distances: (P, G) from each probe to each enrolled picture.
        probe_labels, gallery_labels: (P,) and (G,), equal for one person.

    Returns:
        (far, dir, thresholds), each (T + 1,) float64 and ascending, as of `roc`.

    Raises:
        ValueError: no probe of an enrolled person, or none of another; shapes that don't fit; a
            distance not finite.
    """
    distances = np.asarray(distances, "float64")
    probe_labels, gallery_labels = np.asarray(probe_labels), np.asarray(gallery_labels)
    if distances.shape != (len(probe_labels), len(gallery_labels)) or not distances.size:
        raise ValueError(
            f"distances must be ({len(probe_labels)}, {len(gallery_labels)}), a row a probe, a "
            f"column an enrolled picture, and not empty; received: {distances.shape}"
        )
    _check_finite("distances", distances)
    known = np.isin(probe_labels, gallery_labels)
    if known.all() or not known.any():
        raise ValueError(
            "probe_labels must have enrolled persons and others; received: "
            f"{known.sum()} probes of enrolled persons and {(~known).sum()} of others"
        )
    nearest = distances.argmin(axis=1)
    lowest = distances[np.arange(len(distances)), nearest]
    right = known & (gallery_labels[nearest] == probe_labels)
    levels = np.unique(lowest)
    found = np.searchsorted(np.sort(lowest[right]), levels, side="right")
    accepted = np.searchsorted(np.sort(lowest[~known]), levels, side="right")
    return (
        np.append(0.0, accepted / (~known).sum()),
        np.append(0.0, found / known.sum()),
        np.append(_below(levels[0]), levels),
    )


def pair_distances(embeddings, labels, seed=0):
    """Euclidean distances of all pairs of pictures, and whether they are of one person.

    Of more than `MOST_PAIRS` genuine pairs, or as many impostor pairs, so many are drawn.

    Args:
        embeddings, labels: as of `rank_1`.
        seed: of the pairs drawn.

    Returns:
        distances (P,) float64 and same (P,) bool.

    Raises:
        ValueError: fewer than two persons, a number that isn't finite, or unequal lengths.
    """
    embeddings, labels, counts = _check(embeddings, labels)
    count = len(labels)
    genuine = int((counts * (counts - 1) // 2).sum())
    impostors = count * (count - 1) // 2 - genuine
    kept = [min(1.0, MOST_PAIRS / max(1, pairs)) for pairs in (impostors, genuine)]
    generator = np.random.default_rng(seed)
    all_distances, all_same = [], []
    for start, block in _distance_rows(embeddings):
        rows = np.arange(start, start + len(block))[:, None]
        upper = np.arange(count) > rows
        distances, same = block[upper], (labels[rows] == labels)[upper]
        if min(kept) < 1.0:
            drawn = generator.random(len(same)) < np.where(same, kept[1], kept[0])
            distances, same = distances[drawn], same[drawn]
        all_distances.append(distances)
        all_same.append(same)
    return np.concatenate(all_distances), np.concatenate(all_same)


def evaluate(embeddings, labels):
    """What is told of an embedding: verification on all pairs, and identification.

    Args:
        embeddings: (N, D), compared by Euclidean distance.
        labels: (N,) of any kind, equal for one person.

    Returns:
        dict of floats: "eer"; "threshold", at which it is nearly reached; "tar_at_far_1e-2" and
        "tar_at_far_1e-3"; "rank_1"; "ten_fold_accuracy" on the genuine pairs and as many of the
        impostor ones, drawn at random, where there are 10 of a kind; and the numbers of
        "genuine_pairs" and "impostor_pairs".

    Raises:
        ValueError: fewer than two persons, no person of two pictures, a number that isn't
            finite, or unequal lengths.
    """
    distances, same = pair_distances(embeddings, labels)
    far, tar, thresholds = roc(distances, same)
    values = {
        "eer": _equal_error_rate(far, tar),
        "threshold": _threshold(far, tar, thresholds, None),
        "tar_at_far_1e-2": rate_at_far(far, tar, 1e-2),
        "tar_at_far_1e-3": rate_at_far(far, tar, 1e-3),
        "rank_1": rank_1(embeddings, labels),
        "genuine_pairs": int(same.sum()),
        "impostor_pairs": int((~same).sum()),
    }
    kinds = [np.flatnonzero(same == kind) for kind in (True, False)]
    count = min(map(len, kinds))
    if count >= FOLDS:
        generator = np.random.default_rng(0)
        drawn = np.concatenate([generator.choice(kind, count, replace=False) for kind in kinds])
        values["ten_fold_accuracy"] = ten_fold_accuracy(distances[drawn], same[drawn])[0]
    return values


def _check_finite(name, values):
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite; received: {values[~np.isfinite(values)][0]}")


def _below(distance):
    """The next number below a distance that is below it in float32, too."""
    return float(np.nextafter(np.float32(distance), np.float32(-np.inf)))


def _last_at(far, target):
    if not 0.0 <= target <= 1.0:
        raise ValueError(f"the FAR must be from 0 to 1; received: {target}")
    return np.searchsorted(far, target, side="right") - 1


def _equal_error_rate(far, tar):
    gap = far - (1.0 - tar)  # from -1 to 1
    k = int(np.argmax(gap >= 0.0))
    part = -gap[k - 1] / (gap[k] - gap[k - 1])
    return float(far[k - 1] + part * (far[k] - far[k - 1]))


def _threshold(far, tar, thresholds, target):
    k = np.argmin(np.abs(far - (1.0 - tar))) if target is None else _last_at(far, target)
    return _between(thresholds, k)


def _between(thresholds, k):
    """Threshold k, moved halfway to the next distance; the first, which is below all, stays."""
    if 0 < k < len(thresholds) - 1:
        return float((thresholds[k] + thresholds[k + 1]) / 2)
    return float(thresholds[k])


def _check(embeddings, labels):
    """Embeddings in float64, labels as numbers from 0, and how many pictures each has."""
    embeddings = np.asarray(embeddings, "float64")
    labels = np.asarray(labels)
    if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1]:
        raise ValueError(
            "embeddings and labels must be (N, D) and (N,); received: "
            f"{embeddings.shape} and {labels.shape}"
        )
    _check_finite("embeddings", embeddings)
    names, labels, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise ValueError(
            "labels must be of two persons or more; received: "
            f"{len(names)} {'person' if len(names) == 1 else 'persons'}, {len(labels)} pictures"
        )
    return embeddings, labels, counts


def _distance_rows(embeddings):
    """Yields (first row, (rows, N) distances) of the matrix of distances, float64."""
    squares = np.sum(embeddings**2, axis=1)
    for start in range(0, len(embeddings), ROWS):
        rows = slice(start, start + ROWS)
        products = embeddings[rows] @ embeddings.T
        block = np.sqrt(np.maximum(squares[rows, None] + squares - 2.0 * products, 0.0))
        yield start, block
