"""DeepDream (Mordvintsev, Olah and Tyka 2015, "Inceptionism", and their notebook dream.ipynb).

What a layer sees in a picture is enlarged: the picture climbs the gradient of the layer's
activity, first small, then an octave larger at a time, and takes along what it has dreamt.
"""

import numpy as np
import tensorflow as tf
from keras import ops

from kerasvision.synthesis.features import (
    check_image_size,
    features,
    network_of,
    tile_grid,
    tiled_gradients,
    total_variation,
)

STEEPEST = 10.0  # times the mean; of a picture's slopes one in a thousand is as steep
GUIDE_CELLS = 1024  # of a guide picture's layer; with more, tables of products grow huge


class DeepDream:
    """Dreams of one network, at some layers.

    The objective is the mean over the cells of ½ Φ², summed over the layers; with a guide, the
    mean over the cells of Φ · φ, where φ is the guide's cell with which that product is largest
    (the notebook's `objective_guide`). A step goes along its gradient g divided by the mean of
    |g|, and back along the slope of the TV prior:

        x ← clip(x + step_size (g / mean |g| - tv_weight ∇R_V^β(x)), 0, 255)

    Where g / mean |g| is beyond ±`STEEPEST` it is cut off, which the notebook doesn't do: in some
    networks the cells at the corners, which see the padding, would fill their surroundings with
    noise in a single step.

    Args:
        model: as of `kerasvision.synthesis.features`.
        layer_names: names of layers.
        channels: numbers of channels of the one layer that alone count; None: all.
        guide: optional picture (H, W, C), 0 to 255, to whose features the dream is drawn. Of large
            maps every k-th cell is used, `GUIDE_CELLS` at most.
        octaves: number of scales; those too small for the network, or below `min_side`, fall out.
        octave_scale: from one to the next.
        steps: at each octave.
        step_size: mean change of a pixel in a step, of 255.
        jitter: pixels by which the picture is moved at random before each step, at most.
        tv_weight: of the TV prior; from 0.08 / `step_size` on it sets the picture trembling.
        tv_beta: β of the TV prior.
        tile_size: largest side of what is computed at once, in pixels.
        min_side: of the smallest octave, in pixels.
        jit_compile: whether XLA compiles a step.

    Raises:
        ValueError: an unknown layer, channels of several layers, or a number out of range.
    """

    def __init__(
        self,
        model,
        layer_names,
        channels=None,
        guide=None,
        octaves=4,
        octave_scale=1.4,
        steps=10,
        step_size=1.5,
        jitter=32,
        tv_weight=0.0,
        tv_beta=2.0,
        tile_size=512,
        min_side=32,
        jit_compile=False,
    ):
        if octaves < 1 or steps < 1:
            raise ValueError(f"octaves and steps: must be 1 or more; received: {octaves}, {steps}")
        if octave_scale <= 1:
            raise ValueError(f"octave_scale: must be above 1; received: {octave_scale}")
        if tile_size < min_side:
            raise ValueError(f"tile_size: must be {min_side} or more; received: {tile_size}")
        self.features = features(model, layer_names)
        self.channels = None if channels is None else [int(channel) for channel in channels]
        if self.channels is not None:
            if len(self.features.output) != 1:
                raise ValueError(
                    "channels: are of one layer; received layers: "
                    f"{', '.join(self.features.output)}"
                )
            ((name, tensor),) = self.features.output.items()
            wrong = [c for c in self.channels if not 0 <= c < tensor.shape[-1]]
            if wrong or not self.channels:
                raise ValueError(
                    f"channels: must be numbers from 0 to {tensor.shape[-1] - 1}, the channels of "
                    f"{name}; received: {self.channels}"
                )
        self.octaves, self.octave_scale = octaves, float(octave_scale)
        self.steps, self.step_size, self.jitter = steps, float(step_size), int(jitter)
        self.tv_weight, self.tv_beta = float(tv_weight), float(tv_beta)
        self.tile_size, self.min_side = int(tile_size), int(min_side)
        self.guide = None if guide is None else self._cells_of(guide)
        self.step = tf.function(self._step, jit_compile=jit_compile)

    def _maps(self, images):
        """The layers' outputs, of the chosen channels, a list."""
        maps = [ops.cast(m, "float32") for m in self.features(images, training=False).values()]
        return maps if self.channels is None else [ops.take(maps[0], self.channels, axis=-1)]

    def _cells_of(self, guide):
        """The features of a guide picture, at each layer (cells, channels)."""
        guide = np.asarray(guide, "float32")
        check_image_size(self.features, guide.shape[:2])
        cells = [ops.reshape(m, (-1, m.shape[-1])) for m in self._maps(guide[None])]
        return [c[:: -(-c.shape[0] // GUIDE_CELLS)] for c in cells]

    def objective(self, images):
        """What is climbed: () float32, of images (B, h, w, C), 0 to 255."""
        if self.guide is None:
            return sum(ops.mean(phi**2) / 2 for phi in self._maps(images))
        total = 0.0
        for phi, cells in zip(self._maps(images), self.guide):
            products = ops.matmul(ops.reshape(phi, (-1, phi.shape[-1])), ops.transpose(cells))
            total = total + ops.mean(ops.max(products, axis=-1))
        return total

    def _step(self, x, shift):
        value, g = tiled_gradients(self.objective, x, self.tile_size, shift)
        change = ops.divide_no_nan(g, ops.mean(ops.abs(g), axis=(1, 2, 3), keepdims=True))
        change = ops.clip(change, -STEEPEST, STEEPEST)
        if self.tv_weight:
            with tf.GradientTape() as tape:
                tape.watch(x)
                prior = total_variation(x, self.tv_beta)
            change = change - self.tv_weight * tape.gradient(prior, x)
        return ops.clip(x + self.step_size * change, 0.0, 255.0), value

    def sizes(self, size):
        """(height, width) of the octaves of a picture, the smallest first.

        Raises:
            ValueError: the picture itself is too small.
        """
        sizes = [tuple(size)]
        while len(sizes) < self.octaves:
            smaller = tuple(round(side / self.octave_scale ** len(sizes)) for side in size)
            if min(smaller) < self.min_side:
                break
            sizes.append(smaller)
        while len(sizes) > 1:
            try:
                check_image_size(self.features, sizes[-1])
            except ValueError:
                sizes.pop()
            else:
                break
        if len(sizes) == 1:
            check_image_size(self.features, sizes[0])
        return sizes[::-1]

    def __call__(self, image, seed=0, on_step=None):
        """Dreams on a picture.

        Args:
            image: (H, W, C), 0 to 255, of any size that the layers take.
            seed: of the random shifts.
            on_step: optional function of (octave, from 0; step, from 0; picture (h, w, C);
                objective before the step), called after each step.

        Returns:
            (H, W, C) float32, 0 to 255.

        Raises:
            ValueError: a picture that the network can't take.
        """
        random = np.random.default_rng(seed)
        image = tf.convert_to_tensor(np.asarray(image, "float32")[None])
        sizes = self.sizes(image.shape[1:3])
        bases = [image]
        for size in sizes[-2::-1]:
            bases.append(ops.image.resize(bases[-1], size, antialias=True))
        detail = ops.zeros_like(bases[-1])
        for octave, (size, base) in enumerate(zip(sizes, bases[::-1])):
            detail = ops.image.resize(detail, size)
            x = base + detail
            rows, columns, height, width = tile_grid(size, self.tile_size)
            # Seams of tiles may lie anywhere.
            reach = (self.jitter, self.jitter) if rows * columns == 1 else (height, width)
            for step in range(self.steps):
                shift = [random.integers(-r, r + 1) for r in reach]
                x, value = self.step(x, tf.constant(shift, tf.int32))
                if on_step is not None:
                    on_step(octave, step, x[0].numpy(), float(value))
            detail = x - base
        return x[0].numpy()

    def zoom(self, image, frames, scale=0.05, seed=0, on_step=None):
        """Yields the frames of a flight into the dream: each dreams on the last one, enlarged.

        Args:
            image, on_step: as of a call.
            frames: how many.
            scale: part of the sides that falls off from a frame to the next.
            seed: of the first frame; the next have the next ones.

        Yields:
            (H, W, C) float32, 0 to 255.
        """
        box = [[scale / 2, scale / 2, 1 - scale / 2, 1 - scale / 2]]
        for number in range(frames):
            image = self(image, seed + number, on_step)
            yield image
            image = tf.image.crop_and_resize(image[None], box, [0], image.shape[:2])[0].numpy()


def stages(model):
    """The last layer of each resolution of a network, in its order.

    Args:
        model: as of `kerasvision.synthesis.network_of`.

    Returns:
        list of names of layers with maps (B, h, w, C); resolutions at which no layer has weights
        are left out.
    """
    network = network_of(model)
    layers = {}
    for layer in network.layers:
        shape = getattr(layer.output, "shape", ())
        if len(shape) == 4:
            layers[layer.name] = layer
    phi = features(network, layers)
    size = [side or 256 for side in phi.inputs[0].shape[1:3]]
    spec = tf.TensorSpec((1, *size, phi.inputs[0].shape[-1]))
    shapes = tf.function(phi).get_concrete_function(spec).output_shapes
    last, learnt = {}, set()
    for name, layer in layers.items():
        resolution = tuple(shapes[name][1:3])
        last[resolution] = name
        if layer.weights:
            learnt.add(resolution)
    return [name for resolution, name in last.items() if resolution in learnt]
