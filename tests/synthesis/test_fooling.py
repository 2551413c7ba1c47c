import numpy as np
import pytest

from kerasvision.synthesis import CPPNEncoding, DirectEncoding, MapElites
from kerasvision.synthesis.fooling import Network, from_hsv, polynomial_mutation


def brightness(images):
    """Probabilities of dark and bright."""
    bright = images.reshape(len(images), -1).mean(-1) / 255
    return np.stack([1 - bright, bright], axis=-1)


def test_polynomial_mutation_is_that_of_deb():
    random = np.random.default_rng(0)
    delta = (polynomial_mutation(np.full(100_000, 127.0), 0, 255, 0.1, random) - 127) / 255
    changed = delta != 0
    assert abs(changed.mean() - 0.1) < 0.005
    # |δ| of Deb's distribution of index 15 has the mean 1 / 17.
    assert abs(np.abs(delta[changed]).mean() - 1 / 17) < 0.002
    assert abs(delta[changed].mean()) < 0.005


def test_fewer_pixels_mutate_later():
    encoding = DirectEncoding((60, 60, 3), gray=True)
    genome = np.full((60, 60, 1), 127, "uint8")
    shares = [
        (encoding.mutate(genome, generation, np.random.default_rng(0)) != genome).mean()
        for generation in (0, 2000)
    ]
    assert 0.08 < shares[0] < 0.11 and 3 < shares[0] / shares[1] < 5


def test_a_cppn_paints_its_formula():
    encoding = CPPNEncoding((5, 3, 3), gray=True)
    # Node 4 is the output, node 5 between: the gaussian of 2x, halved.
    genome = Network(
        [0.0] * 4 + [1.0, 0.5],
        ["linear"] * 4 + ["linear", "gaussian"],
        {(0, 5): 2.0, (5, 4): 0.5, (3, 4): 0.25},
    )
    x = np.broadcast_to([-1.0, 0.0, 1.0], (5, 3))
    answer = 0.5 * (2 * np.exp(-((2 * x) ** 2)) - 1) + 0.25
    expected = np.rint(255 * (answer + 1) / 2)
    (image,) = encoding.render([genome])
    np.testing.assert_allclose(image, np.broadcast_to(expected[..., None], (5, 3, 3)), atol=1)


def test_colours_are_those_of_colorsys():
    import colorsys

    h, s, v = np.random.default_rng(0).random((3, 50)).astype("float32")
    expected = [colorsys.hsv_to_rgb(*values) for values in zip(h, s, v)]
    np.testing.assert_allclose(from_hsv(h, s, v), expected, atol=1e-5)


def test_grown_networks_have_no_loops():
    random = np.random.default_rng(1)
    encoding = CPPNEncoding((4, 4, 3))
    genome = encoding.random(random)
    for generation in range(150):
        before = Network(list(genome.places), list(genome.functions), dict(genome.edges))
        child = encoding.mutate(genome, generation, random)
        assert genome == before  # the parent stays as it was
        genome = child
    assert len(genome.places) > 12
    assert all(genome.places[a] < genome.places[b] for a, b in genome.edges)
    assert encoding.render([genome]).shape == (1, 4, 4, 3)


@pytest.mark.parametrize("kind", [DirectEncoding, CPPNEncoding])
def test_evolution_finds_what_the_classes_want(kind):
    evolution = MapElites(kind((4, 4, 3)), brightness, [0, 1], population=10)
    scores = [evolution.scores.copy()]
    for _ in range(150):
        evolution.step()
        scores.append(evolution.scores.copy())
    assert (np.diff(scores, axis=0) >= 0).all()
    assert scores[0].min() < 0.9 < scores[-1].min()
    judged = brightness(evolution.pictures().astype("float32"))
    np.testing.assert_allclose([judged[0, 0], judged[1, 1]], evolution.scores, rtol=1e-6)


def test_the_same_seed_gives_the_same_pictures():
    runs = []
    for _ in range(2):
        evolution = MapElites(CPPNEncoding((4, 4, 3)), brightness, [1], population=4, seed=3)
        for _ in range(5):
            evolution.step()
        runs.append(evolution.pictures())
    np.testing.assert_array_equal(*runs)
