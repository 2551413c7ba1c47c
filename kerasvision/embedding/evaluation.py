"""How well an embedding tells persons apart whom it has never seen, in numbers and pictures."""

import keras
import numpy as np

from kerasvision import drawing
from kerasvision.metrics import verification


def embed(model, batches):
    """Embeddings and labels of batch dictionaries.

    Args:
        model: `keras.Model` from "images" to embeddings.
        batches: iterable of dictionaries with "images" (B, H, W, 3) and "labels" (B,).

    Returns:
        embeddings (N, D) float32 and labels (N,).
    """
    embeddings, labels = [], []
    for batch in batches:
        embeddings.append(np.asarray(model.predict_on_batch(batch["images"])))
        labels.append(np.asarray(batch["labels"]))
    return np.concatenate(embeddings), np.concatenate(labels)


class VerificationEvaluation(keras.callbacks.Callback):
    """Adds val_eer and val_rank_1 to the logs of every `every`-th and the last epoch.

    Args:
        batches: of persons that are not trained on.
        every: epochs from one evaluation to the next.
        epochs: of `fit`.
        draw: optional callable of the epoch from 1, the embeddings and the labels.
    """

    def __init__(self, batches, every, epochs, draw=None):
        super().__init__()
        self.batches, self.every, self.epochs, self.draw = batches, every, epochs, draw

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self.every == 0 or epoch + 1 == self.epochs:
            embeddings, labels = embed(self.model, self.batches)
            found = verification.evaluate(embeddings, labels)
            logs["val_eer"], logs["val_rank_1"] = found["eer"], found["rank_1"]
            if self.draw is not None:
                self.draw(epoch + 1, embeddings, labels)


class OneShotEvaluation(keras.callbacks.Callback):
    """Adds val_one_shot to the logs of every `every`-th and the last epoch.

    Args:
        batches: of classes that are not trained on.
        ways: of `one_shot_accuracy`.
        every: epochs from one evaluation to the next.
        epochs: of `fit`.
    """

    def __init__(self, batches, ways, every, epochs):
        super().__init__()
        self.batches, self.ways, self.every, self.epochs = batches, ways, every, epochs

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self.every == 0 or epoch + 1 == self.epochs:
            embeddings, labels = embed(self.model, self.batches)
            trials = one_shot_trials(labels, self.ways)
            logs["val_one_shot"], _ = one_shot_accuracy(self.model.distances, embeddings, trials)


def one_shot_trials(labels, ways=5, count=2000, seed=0):
    """Draws trials of which picture out of some, each of another class, a query is of.

    Koch, Zemel and Salakhutdinov 2015, section 4.3, at random.

    Args:
        labels: (N,) classes of the pictures.
        ways: W, pictures to choose from.
        count: T, number of trials.
        seed: int.

    Returns:
        (T, 1 + W) places: of the query, of the picture of its class, and of W - 1 others'.

    Raises:
        ValueError: fewer than W classes, or none of two pictures.
    """
    labels = np.asarray(labels)
    names, counts = np.unique(labels, return_counts=True)
    if len(names) < ways or ways < 2 or counts.max() < 2:
        raise ValueError(
            f"labels must be of {ways} classes or more, one of two pictures; received: "
            f"{len(names)} classes of up to {counts.max(initial=0)} pictures"
        )
    generator = np.random.default_rng(seed)
    places = {name: np.flatnonzero(labels == name) for name in names}
    trials = []
    for _ in range(count):
        first = generator.choice(names[counts > 1])
        others = generator.choice(names[names != first], ways - 1, replace=False)
        own = generator.choice(places[first], 2, replace=False)
        trials.append([*own, *(generator.choice(places[other]) for other in others)])
    return np.array(trials)


def one_shot_accuracy(distances, embeddings, trials):
    """How often the nearest of a trial's pictures is of the query's class.

    Args:
        distances: callable of embeddings (T, 1, D) and (T, W, D) that gives (T, W).
        embeddings: (N, D).
        trials: (T, 1 + W) of `one_shot_trials`.

    Returns:
        (accuracy, right (T,) bool); where several are the nearest it is wrong.
    """
    queries, choices = embeddings[trials[:, :1]], embeddings[trials[:, 1:]]
    d = keras.ops.convert_to_numpy(distances(queries, choices))
    right = d[:, 0] < d[:, 1:].min(axis=1)
    return float(np.mean(right)), right


def nearest_sheet(picture_at, embeddings, labels, class_names, path=None, rows=6, neighbours=5):
    """A sheet of pictures, one of each of some persons, and the nearest ones of all others.

    Args:
        picture_at: callable of a place that gives the picture there, (H, W, 3) RGB uint8.
        embeddings: (N, D).
        labels: (N,), indices into `class_names`.
        class_names: list of str.
        path: of the PNG, or None.
        rows: persons at most.
        neighbours: pictures beside each.

    Returns:
        The sheet, (H, W, 3) uint8.
    """
    _, firsts = np.unique(labels, return_index=True)
    firsts = firsts[np.linspace(0, len(firsts) - 1, min(rows, len(firsts))).astype(int)]
    pictures, captions = [], []
    for first in firsts:
        d = np.sqrt(np.sum((embeddings - embeddings[first]) ** 2, axis=-1))
        d[first] = -1.0  # itself comes first, before copies
        for place in np.argsort(d, kind="stable")[: 1 + neighbours]:
            name, color = class_names[labels[place]], drawing.BLACK
            if place != first:
                color = drawing.RIGHT if labels[place] == labels[first] else drawing.WRONG
                name = f"{name}: {d[place]:.2f}"
            pictures.append(np.asarray(picture_at(place)))
            captions.append([(name, color)])
    title = "A picture, and the nearest ones to it with their distances"
    columns = 1 + min(neighbours, len(labels) - 1)
    return drawing.captioned_sheet(pictures, captions, path, title, columns, cell=120)


def plane(embeddings):
    """The two principal components of embeddings (N, D): (N, 2), and their share of the variance.

    Each component's largest part is positive, so that the same map is drawn again.
    """
    centred = np.asarray(embeddings, "float64") - np.mean(embeddings, axis=0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2] * np.sign(axes[[0, 1], np.abs(axes[:2]).argmax(axis=1)])[:, None]
    share = np.sum(sizes[:2] ** 2) / max(np.sum(sizes**2), 1e-12)
    return centred @ axes.T, float(share)


def hardest_pairs(embeddings, labels, count=6):
    """The pairs that an embedding is most mistaken about, at most one of a picture on each side.

    Args:
        embeddings: (N, D).
        labels: (N,).
        count: of each kind, at most.

    Returns:
        genuine (G, 2), places of pictures of one person, from the most distant pair on; and
        impostor (I, 2), of two persons, from the nearest pair on.
    """
    distances = np.linalg.norm(embeddings[:, None] - embeddings[None], axis=-1)
    rows, columns = np.triu_indices(len(labels), 1)
    same, d = labels[rows] == labels[columns], distances[rows, columns]
    kinds = []
    for kind, order in (
        (same, np.argsort(-d, kind="stable")),
        (~same, np.argsort(d, kind="stable")),
    ):
        chosen, used = [], set()
        for pair in order[kind[order]]:
            places = (int(rows[pair]), int(columns[pair]))
            if len(chosen) < count and not used & set(places):
                chosen.append(places)
                used |= set(places)
        kinds.append(np.array(chosen, int).reshape(-1, 2))
    return tuple(kinds)


def hardest_pairs_sheet(picture_at, embeddings, labels, class_names, path=None, count=6):
    """A sheet of `hardest_pairs`, first those of one person; arguments as of `nearest_sheet`."""
    pictures, captions = [], []
    for kind, color in zip(
        hardest_pairs(embeddings, labels, count), (drawing.RIGHT, drawing.WRONG)
    ):
        for pair in kind:
            distance = np.linalg.norm(embeddings[pair[0]] - embeddings[pair[1]])
            for place in pair:
                pictures.append(np.asarray(picture_at(place)))
                captions.append([(f"{class_names[labels[place]]}: {distance:.2f}", color)])
    title = "One person far apart (green), two persons near each other (red)"
    return drawing.captioned_sheet(pictures, captions, path, title, 6, cell=120)


def draw_verification(embeddings, labels, class_names, workdir):
    """Saves roc.png, open_set.png and map.png of an embedding of persons that judge it.

    In the open set the first half of the persons is enrolled, with one picture each; all other
    pictures are probes.

    Args:
        embeddings: (N, D).
        labels: (N,), indices into `class_names`.
        class_names: list of str.
        workdir: `pathlib.Path` of the folder.
    """
    distances, same = verification.pair_distances(embeddings, labels)
    far, tar, _ = verification.roc(distances, same)
    eer = verification.equal_error_rate(distances, same)
    points = {"equal error rate": (eer, 1 - eer)}
    points |= {
        f"TAR at FAR {target:g}": (target, verification.rate_at_far(far, tar, target))
        for target in (1e-2, 1e-3)
    }
    names = ("false accept rate", "true accept rate")
    drawing.plot_curves({"pairs": (far, tar)}, workdir / "roc.png", names, points, log_x=True)

    persons, firsts = np.unique(labels, return_index=True)
    enrolled = firsts[: max(1, len(persons) // 2)]
    probes = np.setdiff1d(np.arange(len(labels)), enrolled)
    apart = np.linalg.norm(embeddings[probes][:, None] - embeddings[enrolled][None], axis=-1)
    if np.isin(labels[probes], labels[enrolled]).any():
        far, found, _ = verification.open_set_curve(apart, labels[probes], labels[enrolled])
        curves = {f"{len(enrolled)} of {len(persons)} persons enrolled": (far, found)}
        names = ("false accept rate of unknown persons", "known persons found")
        drawing.plot_curves(curves, workdir / "open_set.png", names)
    points, share = plane(embeddings)
    title = f"principal components, {100 * share:.0f} % of the variance"
    drawing.plot_map(points, labels, class_names, workdir / "map.png", title)


def one_shot_sheet(picture_at, trials, right, path=None, rows=6):
    """A sheet of trials: the query, the picture of its class, and the others.

    Args:
        picture_at: of `nearest_sheet`.
        trials, right: of `one_shot_trials` and `one_shot_accuracy`.
        path: of the PNG, or None.
        rows: trials at most; half of them wrong ones, where there are so many.

    Returns:
        The sheet, (H, W, 3) uint8.
    """
    wrong = np.flatnonzero(~right)[: rows // 2]
    shown = [*np.flatnonzero(right)[: rows - len(wrong)], *wrong]
    pictures, captions = [], []
    for trial in shown:
        for number, place in enumerate(trials[trial]):
            text, color = ("", drawing.BLACK) if number > 1 else ("its class", drawing.BLACK)
            if number == 0:
                text, color = ("right", drawing.RIGHT) if right[trial] else ("wrong", drawing.WRONG)
            pictures.append(np.asarray(picture_at(place)))
            captions.append([(text, color)])
    title = "Queries, and the pictures to choose from"
    return drawing.captioned_sheet(pictures, captions, path, title, trials.shape[1], cell=120)


def format_verification(found):
    """The numbers of `verification.evaluate` in words, a line each."""
    words = {
        "eer": "equal error rate",
        "threshold": "  at distance",
        "tar_at_far_1e-2": "TAR at FAR 1e-2",
        "tar_at_far_1e-3": "TAR at FAR 1e-3",
        "rank_1": "rank-1, one picture enrolled",
        "ten_fold_accuracy": "accuracy, ten folds",
    }
    return "\n".join(f"  {words[n]:30s} {found[n]:.4f}" for n in words if n in found)
