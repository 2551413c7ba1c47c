"""Times queries of a large gallery: exact search, a plain one, and faiss, taking turns.

  python tools/benchmark_gallery.py --persons=100000

Each person has one picture, of 128 numbers at unit length. The plain search takes all differences
and sorts all distances. faiss (its flat and its HNSW index) is compared where it is installed.
Told are medians in milliseconds of a query, one at a time.
"""

import random
import statistics
import time

from absl import app, flags

flags.DEFINE_integer("persons", 100_000, "Number of persons.", lower_bound=10)
flags.DEFINE_integer("dimension", 128, "Numbers of an embedding.", lower_bound=1)
flags.DEFINE_integer("rounds", 50, "Queries of each search.", lower_bound=3)


def main(argv):
    del argv
    import numpy as np

    from kerasvision.embedding import Gallery

    config = flags.FLAGS
    rng = np.random.default_rng(0)
    shape = (config.persons + config.rounds + 1, config.dimension)
    points = rng.normal(size=shape).astype("float32")
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    known, queries = points[: config.persons], points[config.persons :]
    gallery = Gallery("none", config.dimension)
    gallery.enrol("all", known)  # names don't matter to the search

    def plain(query):
        return np.argsort(np.sqrt(np.sum((known - query) ** 2, axis=1)))[0]

    searches = {
        "exact": lambda query: gallery.search(query[None])[0][0, 0],
        "plain": plain,
    }
    try:
        import faiss
    except ImportError:
        print("faiss is not installed")
    else:
        faiss.omp_set_num_threads(2)
        flat = faiss.IndexFlatL2(config.dimension)
        flat.add(known)
        searches["faiss, flat"] = lambda query: flat.search(query[None], 1)[1][0, 0]
        searches["approximate"] = lambda query: gallery.search(query[None], 1, True)[0][0, 0]
    times, wrong = {name: [] for name in searches}, dict.fromkeys(searches, 0)
    for number, query in enumerate(queries):
        truth = plain(query)
        for name in random.sample(list(searches), len(searches)):
            before = time.perf_counter()
            found = searches[name](query)
            if number:  # the first one builds what it needs
                times[name].append(1e3 * (time.perf_counter() - before))
                wrong[name] += found != truth
    print("| search | ms a query | wrong |\n|---|---|---|")
    for name, values in times.items():
        print(f"| {name} | {statistics.median(values):.2f} | {wrong[name]} of {config.rounds} |")


if __name__ == "__main__":
    app.run(main)
