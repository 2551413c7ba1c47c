import numpy as np
import pytest

from kerasvision.embedding import Gallery, fingerprint
from kerasvision.embedding.gallery import UNKNOWN


def vectors(count, dimension=5, seed=0):
    return np.random.default_rng(seed).normal(size=(count, dimension)).astype("float32")


def filled(metric="euclidean", threshold=np.inf):
    gallery = Gallery("model a", 5, metric, threshold)
    embeddings = vectors(12)
    for number, name in enumerate(["ann", "bob", "cid"]):
        rows = slice(4 * number, 4 * number + 4)
        gallery.enrol(name, embeddings[rows], [f"{name}/{i}.jpg" for i in range(4)])
    return gallery, embeddings


def slow_distances(queries, embeddings, metric):
    found = np.zeros((len(queries), len(embeddings)))
    for i, q in enumerate(queries.astype("float64")):
        for j, e in enumerate(embeddings.astype("float64")):
            if metric == "euclidean":
                found[i, j] = np.sqrt(np.sum((q - e) ** 2))
            else:
                found[i, j] = 1 - q @ e / (np.linalg.norm(q) * np.linalg.norm(e))
    return found


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("k", [1, 3, 12, 50])
def test_search(metric, k):
    gallery, embeddings = filled(metric)
    queries = vectors(7, seed=1)
    expected = slow_distances(queries, embeddings, metric)
    places, distances = gallery.search(queries, k)
    k = min(k, 12)
    assert places.shape == distances.shape == (7, k)
    np.testing.assert_array_equal(places, expected.argsort(axis=1)[:, :k])
    np.testing.assert_allclose(distances, np.sort(expected)[:, :k], rtol=1e-4, atol=1e-6)


def test_near_ones_far_from_zero_are_told_apart():
    """|x|^2 - 2 x y + |y|^2 alone would lose such distances in float32."""
    gallery = Gallery("m", 2)
    gallery.enrol("a", [[3000.0, 0.0], [3000.0, 0.25]])
    _, distances = gallery.search([[3000.0, 0.0]], 2)
    np.testing.assert_allclose(distances, [[0.0, 0.25]], atol=1e-6)


def test_identify_and_unknown():
    gallery, embeddings = filled(threshold=0.5)
    near, far = embeddings[[1, 6, 9]] + 0.01, np.full((1, 5), 30.0)
    found = gallery.identify(np.concatenate([near, far]))
    assert found.names.tolist() == ["ann", "bob", "cid", UNKNOWN]
    assert found.nearest[3] in gallery.names and found.distances[3] > 50
    assert found.sources[:3].tolist() == ["ann/1.jpg", "bob/2.jpg", "cid/1.jpg"]
    np.testing.assert_allclose(found.distances[:3], np.sqrt(5) * 0.01, rtol=1e-3)
    assert gallery.identify(near, threshold=0.001).names.tolist() == [UNKNOWN] * 3
    # At the threshold itself it is accepted.
    exact = gallery.identify(near).distances[0]
    assert gallery.identify(near[:1], threshold=float(exact)).names[0] == "ann"


def test_empty():
    gallery = Gallery("m", 5)
    assert len(gallery) == 0 and gallery.names == []
    found = gallery.identify(vectors(2))
    assert found.names.tolist() == [UNKNOWN] * 2 and np.isinf(found.distances).all()
    filled_one, _ = filled()
    assert filled_one.identify(np.zeros((0, 5))).names.shape == (0,)


def test_remove():
    gallery, embeddings = filled()
    assert gallery.remove("bob") == 4
    assert gallery.names == ["ann", "cid"] and len(gallery) == 8
    assert gallery.identify(embeddings[4:8]).nearest.tolist() != ["bob"] * 4
    assert "bob" not in gallery.identify(embeddings[4:8]).nearest
    with pytest.raises(ValueError, match="one of the 2 persons; received: bob"):
        gallery.remove("bob")
    gallery.enrol("bob", embeddings[4:5])
    assert gallery.identify(embeddings[4:5]).names[0] == "bob"


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_save_and_load(metric, tmp_path):
    gallery, _ = filled(metric, 0.7)
    gallery.save(tmp_path / "known.npz")
    loaded = Gallery.load(tmp_path / "known.npz")
    queries = vectors(5, seed=2)
    for a, b in zip(gallery.search(queries, 3), loaded.search(queries, 3)):
        np.testing.assert_array_equal(a, b)
    assert (loaded.model_id, loaded.metric, loaded.threshold) == ("model a", metric, 0.7)
    assert loaded.names == gallery.names and loaded.sources.tolist() == gallery.sources.tolist()
    loaded.enrol("dan", vectors(1, seed=9))
    assert [path.name for path in tmp_path.iterdir()] == ["known.npz"]


def test_what_is_no_gallery(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"nothing")
    np.savez(tmp_path / "b.npz", x=np.zeros(3))
    for name in ("a.npz", "b.npz", "c.npz"):
        with pytest.raises(ValueError, match=f"{name}: must be a gallery; received"):
            Gallery.load(tmp_path / name)


def test_another_model():
    import keras

    keras.utils.set_random_seed(0)
    models = [keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]) for _ in range(2)]
    ids = [fingerprint(model) for model in models]
    assert ids[0] != ids[1] and ids[0] == fingerprint(models[0]) and len(ids[0]) == 16
    gallery = Gallery(ids[0], 2)
    gallery.check_model(ids[0])
    with pytest.raises(ValueError, match=f"made by model {ids[0]}.*received: model {ids[1]}"):
        gallery.check_model(ids[1])


def test_duplicates_are_refused_and_nothing_is_added():
    gallery, embeddings = filled()
    new = np.concatenate([vectors(1, seed=5), embeddings[6:7]])
    with pytest.raises(ValueError, match="b.jpg: is the picture bob/2.jpg of bob again.*for dan"):
        gallery.enrol("dan", new, ["a.jpg", "b.jpg"])
    with pytest.raises(ValueError, match="b.jpg: is the picture a.jpg of dan again"):
        gallery.enrol("dan", np.repeat(new[:1], 2, axis=0), ["a.jpg", "b.jpg"])
    assert len(gallery) == 12 and "dan" not in gallery.names


def test_bad_input():
    with pytest.raises(ValueError, match="metric must be one of euclidean, cosine; received: l1"):
        Gallery("m", 5, "l1")
    with pytest.raises(ValueError, match="threshold 0 or more; received: 5, nan"):
        Gallery("m", 5, threshold=float("nan"))
    gallery = Gallery("m", 5)
    with pytest.raises(ValueError, match=r"embeddings must be \(N, 5\); received: \(2, 4\)"):
        gallery.enrol("a", np.zeros((2, 4)))
    with pytest.raises(ValueError, match="must be finite"):
        gallery.enrol("a", np.full((1, 5), np.nan))
    with pytest.raises(ValueError, match="name must not be empty"):
        gallery.enrol("", np.zeros((1, 5)))
    with pytest.raises(ValueError, match="sources as many as embeddings, 1 or more; .* 1 and 2"):
        gallery.enrol("a", vectors(2), ["x"])
    with pytest.raises(ValueError, match="0 and 0"):
        gallery.enrol("a", np.zeros((0, 5)))


def test_approximate_search():
    faiss = pytest.importorskip("faiss")
    assert faiss
    for metric in ("euclidean", "cosine"):
        gallery, _ = filled(metric)
        queries = vectors(6, seed=3)
        for a, b in zip(gallery.search(queries, 2), gallery.search(queries, 2, approximate=True)):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_approximate_search_without_faiss(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    gallery, _ = filled()
    with pytest.raises(ImportError, match=r"needs faiss: pip install 'kerasvision\[ann\]'"):
        gallery.search(vectors(1), approximate=True)
