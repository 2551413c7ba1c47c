import keras
import numpy as np
import pytest
from keras import layers
from sklearn.decomposition import PCA

from kerasvision.synthesis import DeepAgeing, FaceSpace


@pytest.fixture
def faces():
    random = np.random.default_rng(0)
    patterns = random.normal(size=(3, 6, 5, 3)) * np.array([40.0, 20.0, 10.0])[:, None, None, None]
    return (128 + np.tensordot(random.normal(size=(40, 3)), patterns, 1)).astype("float32")


def network():
    """Says how bright the left half of a face is, and how bright the right."""
    inputs = keras.Input((6, 4, 1))
    halves = layers.AveragePooling2D((6, 2))(inputs)
    return keras.Model(inputs, layers.Flatten()(layers.Rescaling(1 / 255)(halves)))


def test_space_is_that_of_sklearn(faces):
    space = FaceSpace(faces, 3)
    pca = PCA(3, whiten=True).fit(faces.reshape(40, -1))
    np.testing.assert_allclose(
        np.abs(space.encode(faces)), np.abs(pca.transform(faces.reshape(40, -1))), atol=1e-3
    )
    np.testing.assert_allclose(space.decode(space.encode(faces)), faces, atol=0.01)
    assert space.explained > 0.9999


def test_typical_coordinates_have_a_mean_square_of_1(faces):
    p = np.asarray(FaceSpace(faces, 2).encode(faces))
    np.testing.assert_allclose(p.var(axis=0, ddof=1), 1.0, rtol=1e-4)


def test_faces_may_leave_the_range_inside(faces):
    space = FaceSpace(faces)
    far = 20 * np.ones((1, len(space.axes)), "float32")
    assert np.asarray(space.decode(far)).max() > 255


def test_all_faces_alike_are_their_mean():
    same = np.full((3, 4, 4, 1), 90.0)
    space = FaceSpace(same)
    np.testing.assert_allclose(space.decode(space.encode(same)), same, atol=1e-3)


@pytest.mark.parametrize(
    "count, components, message",
    [(1, None, "two or more; received: 1"), (5, 5, "from 1 to 4 for 5 faces; received: 5")],
)
def test_too_few_faces(faces, count, components, message):
    with pytest.raises(ValueError, match=message):
        FaceSpace(faces[:count], components)


def test_what_is_told_is_reached():
    random = np.random.default_rng(1)
    known = 128 + 30 * random.normal(size=(50, 6, 4, 1)).astype("float32")
    model = network()
    before = [w.copy() for w in model.get_weights()]
    errors = []
    ageing = DeepAgeing(model, FaceSpace(known), prior_weight=0.0, steps=150)
    made = ageing(known[:2], [0.3, 0.7], lambda step, faces, error: errors.append(error))
    np.testing.assert_allclose(model.predict(made, verbose=0), [[0.3, 0.7]] * 2, atol=0.01)
    assert (errors[-1] < 0.01 * errors[0]).all()
    for old, new in zip(before, model.get_weights()):
        np.testing.assert_array_equal(old, new)


def test_a_strong_prior_keeps_the_face():
    random = np.random.default_rng(1)
    known = 128 + 30 * random.normal(size=(50, 6, 4, 1)).astype("float32")
    ageing = DeepAgeing(network(), FaceSpace(known), prior_weight=1e4, steps=100)
    assert np.abs(ageing(known[:1], [0.3, 0.7]) - known[:1]).mean() < 1.0


def test_what_lies_beyond_the_space_stays():
    random = np.random.default_rng(1)
    known = 128 + 30 * random.normal(size=(50, 6, 4, 1)).astype("float32")
    space = FaceSpace(known[1:], 2)
    made = DeepAgeing(network(), space, steps=30)(known[:1], [0.3, 0.7])
    moved = (made - known[:1]).reshape(1, -1)
    assert np.abs(moved).max() > 0.1
    inside = moved @ space.axes.T @ space.axes
    np.testing.assert_allclose(inside, moved, atol=0.02)
