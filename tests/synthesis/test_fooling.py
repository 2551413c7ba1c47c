import keras
import numpy as np
import pytest
from keras import layers

from kerasvision.synthesis import CPPN, CPPNEncoding, DirectEncoding, MapElites


def brightness_classifier():
    """Sees class 1 the surer the brighter a picture is; it has the softmax in its last layer."""
    inputs = keras.Input((4, 4, 1))
    means = layers.GlobalAveragePooling2D()(inputs)
    dense = layers.Dense(2, activation="softmax")
    model = keras.Model(inputs, dense(means))
    dense.set_weights([np.array([[-0.05, 0.05]]), np.array([6.0, -6.0])])
    return model


def test_polynomial_mutation_is_that_of_deb():
    random = np.random.default_rng(0)
    encoding = DirectEncoding((100, 100, 1))
    genome = np.full((100, 100, 1), 127.0, "float32")
    delta = (encoding.mutated(genome, 0, random) - genome) / 255
    changed = delta != 0
    assert abs(changed.mean() - 0.1) < 0.01
    # |δ| of Deb's distribution of η has the mean 1 / (η + 2).
    assert abs(np.abs(delta[changed]).mean() - 1 / 17) < 0.005
    assert abs(delta[changed].mean()) < 0.01
    later = encoding.mutated(genome, 2000, random) != genome
    assert abs(later.mean() - 0.025) < 0.006


def test_direct_pictures_are_whole_grey_levels_in_range():
    random = np.random.default_rng(0)
    encoding = DirectEncoding((5, 6, 3))
    genome = encoding.first(random)
    for generation in range(30):
        genome = encoding.mutated(genome, generation, random)
    image = encoding.image(genome)
    assert image.shape == (5, 6, 3)
    np.testing.assert_array_equal(image, image.astype("uint8"))


def test_a_cppn_paints_its_formula():
    encoding = CPPNEncoding((5, 3, 1))
    # Node 4 is the gaussian of 2 x, node 5, the output, half of it and a quarter.
    genome = CPPN(["gaussian", "linear"], {(0, 4): 2.0, (4, 5): 0.5, (3, 5): 0.25})
    x = np.broadcast_to([-1.0, 0.0, 1.0], (5, 3))
    expected = np.round(255 * (0.5 * np.exp(-((2 * x) ** 2)) + 0.25))[..., None]
    np.testing.assert_array_equal(encoding.image(genome), expected)


def test_colours_are_hue_saturation_and_value():
    encoding = CPPNEncoding((1, 1, 3))
    # Of one pixel x = y = -1, so that the constant 1 alone is used.
    genome = CPPN(["linear"] * 3, {(3, 4): 1 / 3, (3, 5): 1.0, (3, 6): 0.6})
    np.testing.assert_array_equal(encoding.image(genome), [[[0, 153, 0]]])


def test_a_grown_cppn_has_no_loops_and_keeps_its_outputs_last():
    random = np.random.default_rng(1)
    encoding = CPPNEncoding((4, 4, 3), node_rate=0.5, connection_rate=0.5)
    genome = encoding.first(random)
    for generation in range(100):
        before = CPPN(list(genome.activations), dict(genome.weights))
        grown = encoding.mutated(genome, generation, random)
        assert genome == before  # the parent stays as it was
        genome = grown
    count = 4 + len(genome.activations)
    assert count > 30
    assert all(i < j < count and j >= 4 and i < count - 3 for i, j in genome.weights)
    image = encoding.image(genome)
    np.testing.assert_array_equal(image, image.astype("uint8"))


def test_a_node_in_a_connection_changes_little_else():
    encoding = CPPNEncoding(
        (3, 3, 1), node_rate=1.0, connection_rate=0.0, activation_rate=0.0, weight_rate=0.0
    )
    genome = CPPN(["linear"], {(0, 4): 0.3, (3, 4): 0.5})
    grown = encoding.mutated(genome, 0, np.random.default_rng(0))
    assert len(grown.activations) == 2 and grown.activations[-1] == "linear"
    assert sorted(grown.weights.values()) == [0.3, 0.5, 1.0]
    (new,) = [j for (i, j), weight in grown.weights.items() if weight == 1.0]
    assert new == 4 and (4, 5) in grown.weights


@pytest.mark.parametrize("encoding", [DirectEncoding((4, 4, 1)), CPPNEncoding((4, 4, 1))])
def test_evolution_finds_what_the_classes_want(encoding):
    model = brightness_classifier()
    evolution = MapElites(model, encoding, population=8)
    lows = []
    done = evolution(
        300, 0, 0.95, lambda _: lows.append(min(evolution.confidences.values()))
    )
    assert lows == sorted(lows) and lows[0] < 0.9
    assert done == len(lows) and lows[-1] >= 0.95
    for c in (0, 1):
        judged = model.predict(evolution.image(c)[None], verbose=0)[0, c]
        np.testing.assert_allclose(judged, evolution.confidences[c], rtol=1e-5)
    assert evolution.image(1).mean() > evolution.image(0).mean()


def test_the_same_seed_gives_the_same_pictures():
    model = brightness_classifier()
    images = []
    for _ in range(2):
        evolution = MapElites(model, CPPNEncoding((4, 4, 1)), population=4)
        evolution(5, seed=3)
        images.append(evolution.image(0))
    np.testing.assert_array_equal(*images)


def test_unknown_classes_are_refused():
    with pytest.raises(ValueError, match="from 0 to 1; received: \\[2\\]"):
        MapElites(brightness_classifier(), DirectEncoding((4, 4, 1)), [2])
