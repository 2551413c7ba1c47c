"""Pictures of any size, by overlapping tiles (Ronneberger et al. 2015, section 2)."""

import numpy as np

# Tiles begin at multiples of it, so that poolings cut all of them alike.
STRIDE = 16
BATCH = 4


def predict_turned(segmenter, image, margin=None):
    """The mean of what `predict_tiles` gives for a picture, turned and mirrored in eight ways.

    Of pictures without an upright, such as cells and aerial views; the paper takes seven turns for
    its result on membranes (section 4). Arguments, result and errors as of `predict_tiles`.
    """
    total = 0.0
    for step in (1, -1):
        for turns in range(4):
            found = predict_tiles(segmenter, np.rot90(image[:, ::step], turns), margin)
            total = total + np.rot90(found, -turns)[:, ::step]
    return total / 8


def predict_tiles(segmenter, image, margin=None):
    """Probabilities of a whole picture, from tiles that each see more than they predict.

    What lies beyond the picture is its mirror image. Where a tile's own border is missed by
    nothing, as behind unpadded convolutions, the result is what the network would say of the
    whole (mirrored) picture at once.

    Args:
        segmenter: anything with `predict_on_batch`, `image_shape` (H, W, 3) and `output_size`
            (h, w), as from `kerasvision.segmentation.load_segmenter`.
        image: (height, width, 3) uint8 or float 0 to 255, of any size.
        margin: pixels on each side of a prediction that are thrown away, as padded convolutions
            know less there; None: none if the network predicts less than it sees, else an eighth
            of its sides.

    Returns:
        (height, width, C) float32.

    Raises:
        ValueError: a margin that leaves nothing of a tile.
    """
    sides, predicted = segmenter.image_shape[:2], segmenter.output_size
    if margin is None:
        margin = min(sides) // 8 if tuple(sides) == tuple(predicted) else 0
    kept = [side - 2 * margin for side in predicted]
    if margin < 0 or min(kept) < 1:
        raise ValueError(
            f"margin must leave some of {predicted[0]} x {predicted[1]} predicted pixels; "
            f"received: {margin}"
        )
    steps = [side // STRIDE * STRIDE if side >= STRIDE else side for side in kept]
    size = image.shape[:2]
    counts = [max(1, -(-(side - k) // step) + 1) for side, k, step in zip(size, kept, steps)]
    before = [(side - k) // 2 for side, k in zip(sides, kept)]
    padding = [
        (b, step * (count - 1) + side - b - length)
        for b, step, count, side, length in zip(before, steps, counts, sides, size)
    ]
    mirrored = np.pad(image, [*padding, (0, 0)], mode="reflect")
    corners = [(y * steps[0], x * steps[1]) for y in range(counts[0]) for x in range(counts[1])]
    cut = [(p - k) // 2 for p, k in zip(predicted, kept)]
    whole = None
    for first in range(0, len(corners), BATCH):
        some = corners[first : first + BATCH]
        tiles = np.stack([mirrored[y : y + sides[0], x : x + sides[1]] for y, x in some])
        found = np.asarray(segmenter.predict_on_batch(tiles))
        found = found[:, cut[0] : cut[0] + kept[0], cut[1] : cut[1] + kept[1]]
        if whole is None:
            covered = [step * (count - 1) + k for step, count, k in zip(steps, counts, kept)]
            whole = np.zeros((*covered, found.shape[-1]), "float32")
        for (y, x), tile in zip(some, found):
            whole[y : y + kept[0], x : x + kept[1]] = tile
    return whole[: size[0], : size[1]]
