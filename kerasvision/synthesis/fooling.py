"""Fooling images (Nguyen et al. 2015, "Deep Neural Networks are Easily Fooled").

An evolution that sees nothing but a network's probabilities finds pictures that the network is
sure of and people can't recognise: noise, when pixels themselves are mutated (direct encoding), or
regular patterns, when a small network that paints the picture is (CPPN encoding).
"""

import dataclasses

import keras
import numpy as np
from matplotlib.colors import hsv_to_rgb

from kerasvision.synthesis.activation_maximization import logits_of

ACTIVATIONS = {  # of a CPPN's nodes; section 2.2
    "sine": np.sin,
    "sigmoid": lambda x: 1.0 / (1.0 + np.exp(-x)),
    "gaussian": lambda x: np.exp(-(x**2)),
    "linear": lambda x: x,
}
CPPN_INPUTS = 4  # x and y, from -1 to 1, the distance from the middle, and 1


class DirectEncoding:
    """A genome is the picture itself, section 2.2: each value of each pixel is a gene.

    Genes begin as uniform noise. Each is mutated with a probability of 0.1, which falls to half
    every 1,000 generations, by the polynomial mutation of NSGA-II (Deb 2001) of strength η = 15:
    mostly by little, at most by the whole range.

    Args:
        image_shape: (height, width, channels); one channel makes grey pictures.
        mutation_rate, eta: as above.
    """

    def __init__(self, image_shape, mutation_rate=0.1, eta=15.0):
        self.image_shape = tuple(image_shape)
        self.mutation_rate = mutation_rate
        self.eta = eta

    def first(self, random):
        """A genome (H, W, C) float32, 0 to 255."""
        return random.uniform(0.0, 255.0, self.image_shape).astype("float32")

    def mutated(self, genome, generation, random):
        """A changed copy of a genome."""
        rate = self.mutation_rate * 0.5 ** (generation // 1000)
        u = random.random(genome.shape)
        power = 1.0 / (self.eta + 1.0)
        delta = np.where(u < 0.5, (2 * u) ** power - 1, 1 - (2 * (1 - u)) ** power)
        chosen = random.random(genome.shape) < rate
        changed = np.clip(genome + 255.0 * delta * chosen, 0.0, 255.0)
        return changed.astype("float32")

    def image(self, genome):
        """The picture (H, W, C) float32, 0 to 255, of whole grey levels."""
        return np.round(genome)


@dataclasses.dataclass
class CPPN:
    """A compositional pattern-producing network (Stanley 2007): no loops, nodes in order.

    Nodes are numbered: `CPPN_INPUTS` inputs, then one for each of `activations`, the outputs last.
    A connection goes from a lower number to a higher.
    """

    activations: list  # names, keys of ACTIVATIONS
    weights: dict  # of connections (from, to)


class CPPNEncoding:
    """A genome is a network from a pixel's place to its colour, section 2.2.

    It begins with each input joined to each output and grows: a mutation adds a node in the middle
    of a connection, or a connection, changes an activation, or moves some weights. The outputs are
    hue, saturation and value (or grey), as in Picbreeder, whose evolved pictures the paper
    follows (Secretan et al. 2011).

    Args:
        image_shape: (height, width, channels); one channel makes grey pictures.
        node_rate, connection_rate, activation_rate: probability that a mutation is of this kind.
        weight_rate: probability that a weight is moved, by a normal number of deviation
            `weight_step`.
    """

    def __init__(
        self,
        image_shape,
        node_rate=0.1,
        connection_rate=0.1,
        activation_rate=0.1,
        weight_rate=0.3,
        weight_step=0.5,
    ):
        height, width, self.channels = image_shape
        y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
        inputs = (x, y, np.hypot(x, y), np.ones_like(x))
        self.inputs = [values.astype("float32") for values in inputs]
        self.rates = (node_rate, connection_rate, activation_rate)
        self.weight_rate, self.weight_step = weight_rate, weight_step

    def first(self, random):
        """A small random `CPPN`."""
        names = list(ACTIVATIONS)
        outputs = range(CPPN_INPUTS, CPPN_INPUTS + self.channels)
        pairs = [(i, o) for i in range(CPPN_INPUTS) for o in outputs]
        return CPPN(
            [names[random.integers(len(names))] for _ in outputs],
            {pair: float(random.normal(0.0, 1.0)) for pair in pairs},
        )

    def mutated(self, genome, generation, random):
        """A changed copy of a genome; all generations alike."""
        activations, weights = list(genome.activations), dict(genome.weights)
        names = list(ACTIVATIONS)
        node, connection, activation = random.random(3) < self.rates
        if node and weights:
            # i → j becomes i → new → j; the new node takes the place in front of j, or of the
            # outputs, which stay the last.
            i, j = list(weights)[random.integers(len(weights))]
            new = min(j, CPPN_INPUTS + len(activations) - self.channels)
            old = weights.pop((i, j))
            weights = {
                (a + (a >= new), b + (b >= new)): weight for (a, b), weight in weights.items()
            }
            activations.insert(new - CPPN_INPUTS, names[random.integers(len(names))])
            weights[i, new], weights[new, j + 1] = 1.0, old
        if connection:
            outputs = CPPN_INPUTS + len(activations) - self.channels
            to = int(random.integers(CPPN_INPUTS, CPPN_INPUTS + len(activations)))
            weights[int(random.integers(min(to, outputs))), to] = float(random.normal())
        if activation:
            activations[random.integers(len(activations))] = names[random.integers(len(names))]
        for pair in weights:
            if random.random() < self.weight_rate:
                weights[pair] += float(random.normal(0.0, self.weight_step))
        return CPPN(activations, weights)

    def image(self, genome):
        """The picture (H, W, C) float32, 0 to 255, of whole grey levels."""
        sums = [0.0] * len(genome.activations)
        values = list(self.inputs)
        into = [[] for _ in sums]
        for (i, j), weight in genome.weights.items():
            into[j - CPPN_INPUTS].append((i, np.float32(weight)))
        for activation, connections in zip(genome.activations, into):
            total = np.zeros_like(self.inputs[0])
            for i, weight in connections:
                total += weight * values[i]
            # Beyond this exp would overflow, and nothing changes any more.
            values.append(ACTIVATIONS[activation](np.clip(total, -50.0, 50.0)))
        colours = np.stack(values[-self.channels :], axis=-1)
        if self.channels == 3:
            hue = colours[..., :1] % 1.0
            colours = hsv_to_rgb(np.concatenate([hue, np.clip(colours[..., 1:], 0, 1)], axis=-1))
        return np.round(255.0 * np.clip(colours, 0.0, 1.0)).astype("float32")


class MapElites:
    """The evolution of section 2.2: MAP-Elites (Mouret and Clune 2015), a champion for each class.

    In every generation `population` champions drawn at random, or at first new genomes, are
    mutated, and each child takes the place of the champion of every class of which the network is
    surer in the child's picture.

    Args:
        model: classifier, as of `kerasvision.synthesis.activation_maximization.logits_of`, that
            takes pictures (B, H, W, C), 0 to 255; its softmax is computed from the logits.
        encoding: `DirectEncoding` or `CPPNEncoding` of pictures that the model takes.
        classes: numbers of the classes that have champions; None: all.
        population: children of a generation, computed as one batch.

    Attributes:
        champions: dict of class to its genome.
        confidences: dict of class to the probability of the class in the champion's picture.

    Raises:
        ValueError: there is no such class.
    """

    def __init__(self, model, encoding, classes=None, population=32):
        self.logits = logits_of(model)
        count = self.logits.output_shape[-1]
        self.classes = list(range(count)) if classes is None else list(classes)
        wrong = [c for c in self.classes if not 0 <= c < count]
        if wrong or not self.classes:
            raise ValueError(
                f"classes: must be numbers from 0 to {count - 1}; received: {self.classes}"
            )
        self.encoding = encoding
        self.population = population
        self.champions, self.confidences = {}, {}

    def probabilities(self, images):
        """(B, classes) of pictures (B, H, W, C)."""
        logits = self.logits.predict_on_batch(images)
        return keras.ops.convert_to_numpy(keras.ops.softmax(logits.astype("float32")))

    def __call__(self, generations, seed=0, threshold=1.0, on_generation=None):
        """Evolves; a further call goes on with the champions that there are.

        Args:
            generations: at most this many.
            seed: of all chance.
            threshold: stop when the network is as sure as this of every champion.
            on_generation: optional function of the number of the generation, from 0, called after
                each.

        Returns:
            The number of generations that were needed.
        """
        random = np.random.default_rng(seed)
        for generation in range(generations):
            if self.champions:
                parents = random.integers(len(self.classes), size=self.population)
                children = [
                    self.encoding.mutated(self.champions[self.classes[p]], generation, random)
                    for p in parents
                ]
            else:
                children = [self.encoding.first(random) for _ in range(self.population)]
            images = np.stack([self.encoding.image(child) for child in children])
            probabilities = self.probabilities(images)
            for c in self.classes:
                best = int(probabilities[:, c].argmax())
                if probabilities[best, c] > self.confidences.get(c, -1.0):
                    self.champions[c] = children[best]
                    self.confidences[c] = float(probabilities[best, c])
            if on_generation is not None:
                on_generation(generation)
            if min(self.confidences.values()) >= threshold:
                return generation + 1
        return generations

    def image(self, label):
        """The picture (H, W, C) float32 of a class's champion, as the network judged it."""
        return self.encoding.image(self.champions[label])
