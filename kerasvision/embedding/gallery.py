"""A gallery of known persons, or things, that others are compared with: open-set identification.

It holds embeddings of pictures under names, and tells of a new one which person's is nearest; or
that it is nobody's, where that one is beyond a threshold.
"""

import dataclasses
import hashlib
import pathlib

import numpy as np

METRICS = ("euclidean", "cosine")
UNKNOWN = ""
ROWS = 4096  # queries that are compared at a time
NEIGHBOURS = 32  # links of a picture in the approximate index, and in a search of it


def fingerprint(model):
    """What tells one embedding model from another: 16 hexadecimal digits of its weights' SHA-256.

    Args:
        model: `keras.Model`.
    """
    digest = hashlib.sha256()
    for value in model.get_weights():
        value = np.ascontiguousarray(value)
        digest.update(f"{value.dtype}{value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()[:16]


@dataclasses.dataclass
class Match:
    """Who is on Q pictures: arrays (Q,).

    `names`, str, `UNKNOWN` beyond the threshold; `nearest`, whose picture is nearest anyway;
    `distances` to it; and `sources`, where that picture came from.
    """

    names: np.ndarray
    nearest: np.ndarray
    distances: np.ndarray
    sources: np.ndarray


class Gallery:
    """Embeddings of known persons' pictures.

    Args:
        model_id: what made the embeddings, as from `fingerprint`; any str.
        dimension: D, numbers of an embedding.
        metric: "euclidean", or "cosine": 1 minus the cosine of the angle.
        threshold: largest distance at which two pictures may be of one person; chosen on other
            persons, as by `kerasvision.metrics.verification.choose_threshold`.

    Raises:
        ValueError: another metric, or numbers out of range.
    """

    def __init__(self, model_id, dimension, metric="euclidean", threshold=float("inf")):
        if metric not in METRICS:
            raise ValueError(f"metric must be one of {', '.join(METRICS)}; received: {metric}")
        if dimension < 1 or not threshold >= 0:
            raise ValueError(
                "dimension must be 1 or more, threshold 0 or more; received: "
                f"{dimension}, {threshold}"
            )
        self.model_id, self.dimension = model_id, dimension
        self.metric, self.threshold = metric, float(threshold)
        self.embeddings = np.zeros((0, dimension), "float32")
        self.labels = np.zeros(0, "str")
        self.sources = np.zeros(0, "str")
        self._forget()

    def __len__(self):
        """Number of pictures."""
        return len(self.labels)

    @property
    def names(self):
        """Sorted list of the persons."""
        return sorted(set(self.labels.tolist()))

    def enrol(self, name, embeddings, sources=None):
        """Adds pictures of a person, who may be known already.

        Args:
            name: str, not empty.
            embeddings: (N, D).
            sources: N str that tell where they came from, such as files; None: numbers.

        Raises:
            ValueError: an empty name, other shapes, numbers that aren't finite, or an embedding
                that is there already, in which case nothing is added: the message names both.
        """
        embeddings = self._check(embeddings)
        if sources is None:
            sources = [f"{name}/{len(self) + i}" for i in range(len(embeddings))]
        if not name or len(sources) != len(embeddings) or not len(embeddings):
            raise ValueError(
                "name must not be empty, and sources as many as embeddings, 1 or more; received: "
                f"{name!r}, {len(sources)} and {len(embeddings)}"
            )
        known = {row.tobytes(): i for i, row in enumerate(self.embeddings)}
        labels, all_sources = self.labels.tolist(), self.sources.tolist()
        for row, source in zip(embeddings, sources):
            place = known.setdefault(row.tobytes(), len(labels))
            if place < len(labels):
                raise ValueError(
                    f"{source}: is the picture {all_sources[place]} of {labels[place]} again; "
                    f"received for {name}"
                )
            labels.append(str(name))
            all_sources.append(str(source))
        self.embeddings = np.concatenate([self.embeddings, embeddings])
        self.labels, self.sources = np.array(labels), np.array(all_sources)
        self._forget()

    def remove(self, name):
        """Removes all pictures of a person, and returns how many there were.

        Raises:
            ValueError: there is no such person.
        """
        kept = self.labels != name
        if kept.all():
            raise ValueError(f"name must be one of the {len(self.names)} persons; received: {name}")
        self.embeddings, self.labels = self.embeddings[kept], self.labels[kept]
        self.sources = self.sources[kept]
        self._forget()
        return int((~kept).sum())

    def search(self, queries, k=1, approximate=False):
        """The nearest pictures of all.

        Args:
            queries: (Q, D).
            k: pictures wanted, of as many as there are.
            approximate: whether a graph of neighbours is searched (HNSW, by the package faiss)
                rather than all pictures; for millions of them.

        Returns:
            places (Q, k) in the gallery, from near to far, and distances (Q, k) float32; k is
            smaller where there are fewer pictures.

        Raises:
            ValueError: other shapes, or numbers that aren't finite.
            ImportError: faiss is wanted, and not there.
        """
        queries, k = self._check(queries), min(k, len(self))
        if k < 1:
            return np.zeros((len(queries), 0), int), np.zeros((len(queries), 0), "float32")
        if approximate:
            squared, places = self._graph().search(self._points(queries), k)
            return places, self._distances(squared)
        places, squared = np.empty((len(queries), k), int), np.empty((len(queries), k), "float32")
        for start in range(0, len(queries), ROWS):
            rows = slice(start, start + ROWS)
            x = self._points(queries[rows])
            # |x - y|^2 without |x|^2, which ranks alike. Larger matrices would not fit the cache.
            scores = self._squares - 2.0 * (x @ self._prepared.T)
            nearest = np.argpartition(scores, k - 1, axis=1)[:, :k] if k < len(self) else None
            if nearest is None:
                nearest = np.broadcast_to(np.arange(len(self)), scores.shape)
            # Of those the distances without cancellation, and the order by them.
            exact = np.sum((x[:, None] - self._prepared[nearest]) ** 2, axis=-1)
            order = np.lexsort((nearest, exact), axis=1)
            places[rows] = np.take_along_axis(nearest, order, axis=1)
            squared[rows] = np.take_along_axis(exact, order, axis=1)
        return places, self._distances(squared)

    def identify(self, queries, threshold=None, approximate=False):
        """Who is on pictures.

        Args:
            queries: (Q, D).
            threshold: None: the gallery's.
            approximate: as of `search`.

        Returns:
            `Match`; in an empty gallery everybody is unknown, at an infinite distance.

        Raises:
            ValueError: as `search`.
        """
        threshold = self.threshold if threshold is None else threshold
        places, distances = self.search(queries, 1, approximate)
        if not len(self):
            nobody = np.full(len(places), UNKNOWN)
            return Match(nobody, nobody, np.full(len(places), np.inf, "float32"), nobody)
        places, distances = places[:, 0], distances[:, 0]
        nearest = self.labels[places]
        names = np.where(distances <= threshold, nearest, UNKNOWN)
        return Match(names, nearest, distances, self.sources[places])

    def check_model(self, model_id):
        """Refuses embeddings of another model than the gallery's.

        Raises:
            ValueError: it is another one; the message names both.
        """
        if model_id != self.model_id:
            raise ValueError(
                f"the gallery was made by model {self.model_id}, and must be made anew for another "
                f"one; received: model {model_id}"
            )

    def save(self, path):
        """Writes the gallery as one .npz file."""
        path = pathlib.Path(path)
        part = path.with_name(path.name + ".part")
        with part.open("wb") as file:
            np.savez(
                file,
                model_id=self.model_id,
                metric=self.metric,
                threshold=self.threshold,
                embeddings=self.embeddings,
                labels=self.labels,
                sources=self.sources,
            )
        part.replace(path)

    @classmethod
    def load(cls, path):
        """Reads a gallery.

        Raises:
            ValueError: the file is none.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                found = {name: file[name] for name in file.files}
            embeddings = found["embeddings"]
            gallery = cls(
                str(found["model_id"]),
                embeddings.shape[1],
                str(found["metric"]),
                float(found["threshold"]),
            )
            gallery.embeddings = embeddings
            gallery.labels, gallery.sources = found["labels"], found["sources"]
        except (OSError, ValueError, KeyError, IndexError, EOFError) as error:
            raise ValueError(f"{path}: must be a gallery; received: {error}") from None
        gallery._forget()
        return gallery

    def _check(self, embeddings):
        embeddings = np.asarray(embeddings, "float32")
        if embeddings.ndim != 2 or embeddings.shape[1] != self.dimension:
            raise ValueError(
                f"embeddings must be (N, {self.dimension}); received: {embeddings.shape}"
            )
        if not np.isfinite(embeddings).all():
            raise ValueError("embeddings must be finite; received: others")
        return embeddings

    def _points(self, embeddings):
        """Points whose Euclidean distances rank as the metric's."""
        if self.metric == "euclidean":
            return embeddings
        lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
        return embeddings / np.maximum(lengths, 1e-12)

    def _distances(self, squared):
        # Of points of length 1, |x - y|^2 = 2 (1 - cos).
        return squared / 2 if self.metric == "cosine" else np.sqrt(squared)

    def _forget(self):
        """What is derived from the embeddings is made anew."""
        self._prepared = self._points(self.embeddings)
        self._squares = np.sum(self._prepared**2, axis=1)
        self._index = None

    def _graph(self):
        if self._index is None:
            try:
                import faiss
            except ImportError:
                raise ImportError(
                    "an approximate search needs faiss: pip install 'kerasvision[ann]'"
                ) from None
            self._index = faiss.IndexHNSWFlat(self.dimension, NEIGHBOURS)
            self._index.hnsw.efSearch = 4 * NEIGHBOURS
            self._index.add(np.ascontiguousarray(self._prepared))
        return self._index
