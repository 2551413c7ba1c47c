"""What generators make, drawn and measured, after and during training."""

import pathlib

import keras
import numpy as np
import PIL.Image

from kerasvision import drawing
from kerasvision.metrics.frechet import frechet_distance

GIF_MILLISECONDS = 400  # of an epoch
LEAST_CELL = 64  # pixels of a picture on a sheet
GAP = 2  # pixels between pictures
GAP_GREY = 128


def to_pixels(images):
    """Pictures (B, H, W, 1 or 3), any numbers, as RGB uint8."""
    images = np.clip(np.rint(np.asarray(images, "float32")), 0, 255).astype("uint8")
    return np.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images


def to_inputs(network, images):
    """Pictures (B, H, W, 1 or 3), any numbers, as RGB of the size that a network takes."""
    images, size = to_pixels(images), network.input_shape[1:3]
    if None not in size and images.shape[1:3] != size:
        images = keras.ops.image.resize(images.astype("float32"), size, antialias=True)
    return np.asarray(images)


def tile(images, columns):
    """Lays pictures (B, H, W, C) side by side, in rows of `columns`: one picture.

    Small ones are enlarged by whole numbers to `LEAST_CELL` pixels or so.
    """
    scale = max(1, LEAST_CELL // images.shape[1])
    images = images.repeat(scale, axis=1).repeat(scale, axis=2)
    images = np.pad(images, [(0, 0), (0, GAP), (0, GAP), (0, 0)], constant_values=GAP_GREY)
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    sheet = np.full((rows * columns, height, width, channels), GAP_GREY, images.dtype)
    sheet[:count] = images
    sheet = sheet.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    return sheet.reshape(rows * height, columns * width, channels)[:-GAP, :-GAP]


class SampleSheets(keras.callbacks.Callback):
    """Draws after each epoch what the model makes of the same inputs, `samples/epoch_0001.png`.

    Args:
        workdir: the run folder.
        make: callable of the model that returns the sheet, (H, W, 3) uint8.
    """

    def __init__(self, workdir, make):
        super().__init__()
        self.folder = pathlib.Path(workdir) / "samples"
        self.make = make

    def on_epoch_end(self, epoch, logs=None):
        self.folder.mkdir(exist_ok=True)
        drawing.save(self.make(self.model), self.folder / f"epoch_{epoch + 1:04d}.png")


def animate(workdir, path):
    """Saves the sheets of `SampleSheets` one after another, as an animated GIF."""
    sheets = [PIL.Image.open(p) for p in sorted((pathlib.Path(workdir) / "samples").glob("*.png"))]
    durations = [GIF_MILLISECONDS] * (len(sheets) - 1) + [5 * GIF_MILLISECONDS]
    sheets[0].save(path, save_all=True, append_images=sheets[1:], duration=durations, loop=0)


def interpolations(gan, rows=6, steps=9, seed=1):
    """A sheet of strips that go from one picture to another in equal angles of their noise.

    Noise of many numbers from N(0, 1) has one length, nearly; straight lines would leave it.
    """
    start, end = (gan.latent(rows, seed + number) for number in (0, 1))

    def unit(z):
        return z / np.linalg.norm(z, axis=-1, keepdims=True)

    angle = np.arccos(np.clip(np.sum(unit(start) * unit(end), -1), -1.0, 1.0))[:, None]
    strips = [
        (np.sin((1 - t) * angle) * start + np.sin(t * angle) * end) / np.sin(angle)
        for t in np.linspace(0.0, 1.0, steps)
    ]
    images = gan.predict(np.stack(strips, 1).reshape(rows * steps, -1), verbose=0)
    return tile(to_pixels(images), steps)


def translation_metrics(model, batches):
    """How far G(x) is from y: dict of "l1", of pixels from -1 to 1, and "psnr" in decibels.

    Args:
        model: `Pix2Pix` or `CycleGAN`.
        batches: of pairs, as from `kerasvision.data.translation_batches`.
    """
    absolute, square, count = 0.0, 0.0, 0
    for batch in batches:
        made = to_pixels(model.predict_on_batch(np.asarray(batch["x"])))
        difference = made.astype("float64") - np.asarray(batch["y"])
        absolute += np.abs(difference).sum()
        square += (difference**2).sum()
        count += difference.size
    psnr = 10 * np.log10(255**2 / max(square / count, 1e-10))
    return {"l1": float(absolute / count / 127.5), "psnr": float(psnr)}


def cycle_metrics(cyclegan, batches, paired):
    """Mean |difference| of pictures and what comes back, and of pairs; pixels from -1 to 1.

    Args:
        cyclegan: `CycleGAN`.
        batches: as from `kerasvision.data.translation_batches`.
        paired: whether the pictures y are what those x should become.

    Returns:
        dict of "cycle_x" |F(G(x)) - x| and "cycle_y" |G(F(y)) - y|; and of pairs "to_y"
        |G(x) - y|, "to_x" |F(y) - x|, and "unchanged" |x - y|, that of the identity.
    """
    totals, count = {}, 0
    for batch in batches:
        x, y = (np.asarray(batch[name], "float32") for name in "xy")
        fake_y, fake_x = cyclegan.G.predict_on_batch(x), cyclegan.F.predict_on_batch(y)
        pairs = {
            "cycle_x": (cyclegan.F.predict_on_batch(fake_y), x),
            "cycle_y": (cyclegan.G.predict_on_batch(fake_x), y),
        }
        if paired:
            pairs |= {"to_y": (fake_y, y), "to_x": (fake_x, x), "unchanged": (x, y)}
        for name, (a, b) in pairs.items():
            difference = np.abs(np.asarray(a, "float64") - b).mean() / 127.5
            totals[name] = totals.get(name, 0.0) + len(x) * float(difference)
        count += len(x)
    return {name: total / count for name, total in totals.items()}


def format_cycle(metrics):
    """The numbers of `cycle_metrics` in words, a line each."""
    words = {
        "cycle_x": "x and F(G(x))",
        "cycle_y": "y and G(F(y))",
        "to_y": "G(x) and y",
        "to_x": "F(y) and x",
        "unchanged": "x and y",
    }
    return "\n".join(f"  {words[n]:14s} {metrics[n]:.3f}" for n in words if n in metrics)


def format_seen(seen):
    """What a segmenter sees in pictures made and in real ones, as a table."""
    lines = [f"{'':6s} {'pixel':>8s} {'class':>8s} {'IoU':>8s}"]
    for kind, scores in seen.items():
        lines.append(f"{kind:6s} " + " ".join(f"{value:8.3f}" for value in scores.values()))
    return "\n".join(lines)


class FrechetDistance:
    """Fréchet distance of a GAN's pictures to real ones, as a network of features sees them.

    Args:
        embedder: `keras.Model` from RGB pictures (B, h, w, 3), 0 to 255, to features (B, F).
        images: iterable of real pictures (B, H, W, 1 or 3), as many batches as are to be used.

    `count` is the number of real pictures, and of those made to compare them with.
    """

    def __init__(self, embedder, images):
        self.embedder = embedder
        self.real = np.concatenate([self.features(batch) for batch in images])
        self.count = len(self.real)

    def features(self, images):
        """Features (B, F) of pictures (B, H, W, 1 or 3)."""
        return np.asarray(self.embedder.predict_on_batch(to_inputs(self.embedder, images)))

    def __call__(self, gan, seed=0, batch_size=100):
        noise = gan.latent(self.count, seed)
        made = [
            self.features(gan.predict_on_batch(noise[start : start + batch_size]))
            for start in range(0, self.count, batch_size)
        ]
        return frechet_distance(self.real, np.concatenate(made))


class FrechetEvaluation(keras.callbacks.Callback):
    """Adds val_frechet_distance to the logs of every `every`-th and the last epoch.

    Args:
        distance: `FrechetDistance`.
        every: epochs from one evaluation to the next.
        epochs: of `fit`.
    """

    def __init__(self, distance, every, epochs):
        super().__init__()
        self.distance = distance
        self.every = every
        self.epochs = epochs

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self.every == 0 or epoch + 1 == self.epochs:
            logs["val_frechet_distance"] = self.distance(self.model)


class WarnOfCollapse(keras.callbacks.Callback):
    """Prints a line when the discriminator has had next to no loss for a while.

    A generator learns nothing then, and often makes the same picture of all noise.

    Args:
        name: of the discriminator's loss in the logs.
        advice: what to try then.
        threshold: what counts as none.
        epochs: how many of them in a row.
    """

    def __init__(self, name, advice, threshold=0.02, epochs=3):
        super().__init__()
        self.name, self.advice, self.threshold, self.epochs = name, advice, threshold, epochs
        self.in_a_row = 0

    def on_epoch_end(self, epoch, logs=None):
        self.in_a_row = self.in_a_row + 1 if logs[self.name] < self.threshold else 0
        if self.in_a_row == self.epochs:
            print(
                f"warning: {self.name} has been below {self.threshold} for {self.epochs} epochs: "
                f"the generator hardly learns; try {self.advice}"
            )
