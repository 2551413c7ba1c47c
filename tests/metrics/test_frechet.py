"""Fréchet distance against scipy's matrix root, and where it is known."""

import numpy as np
import pytest
import scipy.linalg

from kerasvision.metrics.frechet import frechet_distance


def test_equals_the_formula_with_scipys_root():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(200, 6)) @ rng.normal(size=(6, 6)) + rng.normal(size=6)
    b = rng.normal(size=(300, 6)) @ rng.normal(size=(6, 6))
    covariances = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2)
    expected += np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-8)


def test_known_distances():
    a = np.random.default_rng(1).normal(size=(500, 3))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + [3, 0, 4]) == pytest.approx(25)
    # Of one number each: the difference of the deviations, squared.
    x = a[:, :1]
    assert frechet_distance(x, 3 * (x - x.mean()) + x.mean()) == pytest.approx(4 * x.var(ddof=1))


def test_fewer_pictures_than_features():
    a, b = np.random.default_rng(2).normal(size=(2, 5, 40))
    assert np.isfinite(frechet_distance(a, b)) and frechet_distance(a, b) > 0
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_bad_input():
    with pytest.raises(ValueError, match=r"received: \(1, 3\) and \(4, 3\)"):
        frechet_distance(np.zeros((1, 3)), np.zeros((4, 3)))
    with pytest.raises(ValueError, match=r"received: \(5, 2\) and \(4, 3\)"):
        frechet_distance(np.zeros((5, 2)), np.zeros((4, 3)))
