import cv2
import numpy as np
import pytest

from kerasvision.embedding import evaluation


def test_plane_is_that_of_the_largest_variance():
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(50, 2)) * [5.0, 3.0]
    turn, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    points = np.concatenate([wide, 0.1 * rng.normal(size=(50, 4))], axis=1) @ turn + 7
    found, share = evaluation.plane(points)
    assert found.shape == (50, 2) and 0.99 < share < 1
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-9)
    # Distances in it are those of the wide plane.
    apart = np.linalg.norm(wide[:, None] - wide[None], axis=-1)
    seen = np.linalg.norm(found[:, None] - found[None], axis=-1)
    assert np.abs(apart - seen).max() < 0.6
    np.testing.assert_array_equal(evaluation.plane(points)[0], found)


def test_hardest_pairs_by_hand():
    # a: 0, 1, 9;  b: 10, 20;  c: 21.5
    embeddings = np.array([[0.0], [1], [9], [10], [20], [21.5]])
    labels = np.array([0, 0, 0, 1, 1, 2])
    genuine, impostor = evaluation.hardest_pairs(embeddings, labels)
    # 10 and 20 lie farthest apart, then 0 and 9; 1 has no other left.
    assert genuine.tolist() == [[3, 4], [0, 2]]
    assert impostor.tolist() == [[2, 3], [4, 5]]
    assert evaluation.hardest_pairs(embeddings, labels, 1)[1].tolist() == [[2, 3]]
    genuine, _ = evaluation.hardest_pairs(embeddings, np.arange(6))
    assert genuine.shape == (0, 2)


def test_drawings(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 5)
    embeddings = rng.normal(size=(20, 8)) + 3 * rng.normal(size=(4, 8))[labels]
    names = ["ann", "bob", "cid", "dan"]
    evaluation.draw_verification(embeddings, labels, names, tmp_path)
    for name in ("roc.png", "open_set.png", "map.png"):
        assert cv2.imread(str(tmp_path / name)).std() > 5, name
    sheet = evaluation.hardest_pairs_sheet(
        lambda place: np.full((10, 8, 3), 12 * place, "uint8"), embeddings, labels, names
    )
    genuine, impostor = evaluation.hardest_pairs(embeddings, labels)
    for place in np.concatenate([genuine, impostor]).ravel():
        grey = (sheet == 12 * place).all(axis=-1)
        assert grey.sum() >= 10 * 8, place


@pytest.mark.parametrize("persons, each", [(2, 1), (2, 2)])
def test_few_pictures(persons, each, tmp_path):
    labels = np.repeat(np.arange(persons), each)
    embeddings = np.random.default_rng(0).normal(size=(len(labels), 3))
    if each == 1:
        with pytest.raises(ValueError):
            evaluation.draw_verification(embeddings, labels, ["a", "b"], tmp_path)
    else:
        evaluation.draw_verification(embeddings, labels, ["a", "b"], tmp_path)
        assert (tmp_path / "map.png").is_file()
