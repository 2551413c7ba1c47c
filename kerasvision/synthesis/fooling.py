"""Fooling images (Nguyen et al. 2015, "Deep Neural Networks are Easily Fooled").

Pictures that evolve until a classifier is sure of what they show, and show nothing to people.
Genomes are the pixels themselves ("direct encoding"), or small networks that paint a picture point
by point ("CPPN encoding"). One population breeds pictures of all classes, each of which keeps the
best: the MAP-Elites algorithm of Mouret and Clune (2015).
"""

import copy
import dataclasses

import numpy as np

POLYNOMIAL_INDEX = 15.0  # "mutation strength"
PIXEL_RATE, HALVED_EVERY = 0.1, 1000  # share of pixels that mutate; generations

FUNCTIONS = {
    "linear": lambda v: v,
    "sine": np.sin,
    "sigmoid": lambda v: 2.0 / (1.0 + np.exp(-np.clip(v, -50, 50))) - 1.0,
    "gaussian": lambda v: 2.0 * np.exp(-np.square(np.clip(v, -8, 8))) - 1.0,
}
INPUTS = ("x", "y", "distance", "bias")
LARGEST_WEIGHT = 5.0
MOST_HIDDEN = 40
# How likely a child has each mutation, and, at most, each of its weights another value.
ADD_NODE, ADD_EDGE, REMOVE_EDGE, CHANGE_FUNCTION, CHANGE_WEIGHT = 0.1, 0.15, 0.05, 0.1, 0.4


def polynomial_mutation(values, low, high, rate, rng):
    """Changes each number with probability `rate`, mostly by little, within `low` to `high`.

    Deb 2001 (Multi-objective optimization using evolutionary algorithms): the change is a part
    delta of the range, (2u)^(1/(n+1)) - 1 for u below 1/2 and 1 - (2(1-u))^(1/(n+1)) above it, u
    drawn evenly and n = `POLYNOMIAL_INDEX`.

    Args:
        values: array of any shape.
        low, high: of the range.
        rate: 0 to 1.
        rng: `numpy.random.Generator`.

    Returns:
        float array of the same shape.
    """
    u = rng.random(values.shape)
    power = 1.0 / (POLYNOMIAL_INDEX + 1.0)
    delta = np.where(u < 0.5, (2 * u) ** power - 1, 1 - (2 * (1 - u)) ** power)
    delta *= rng.random(values.shape) < rate
    return np.clip(values + delta * (high - low), low, high)


class DirectEncoding:
    """A genome is the picture: (H, W, channels) uint8 (section 3.1).

    It starts as noise. A tenth of the numbers mutates, half as many every 1000 generations.

    Args:
        image_shape: (height, width, 3) of the pictures.
        gray: one number a pixel, for networks of grey pictures.
    """

    def __init__(self, image_shape, gray=False):
        self.image_shape = tuple(image_shape)
        self.shape = (*self.image_shape[:2], 1 if gray else self.image_shape[2])

    def random(self, rng):
        """A new genome."""
        return rng.integers(0, 256, self.shape, dtype="uint8")

    def mutate(self, genome, generation, rng):
        """A child of a genome in this generation, counted from 0."""
        rate = PIXEL_RATE * 0.5 ** (generation // HALVED_EVERY)
        return np.rint(polynomial_mutation(genome, 0, 255, rate, rng)).astype("uint8")

    def render(self, genomes):
        """The pictures (N, H, W, 3) uint8 of N genomes."""
        return np.stack([np.broadcast_to(genome, self.image_shape) for genome in genomes])


@dataclasses.dataclass
class Network:
    """A genome of `CPPNEncoding`.

    `places` has a number for each node: 0 of an input, 1 of an output, between them of others;
    edges lead from lower to higher places only. `functions` has a name of `FUNCTIONS` for each,
    `edges` a weight for each (from, to). Nodes are numbered: inputs, outputs, others.
    """

    places: list
    functions: list
    edges: dict


class CPPNEncoding:
    """A genome is a compositional pattern-producing network that paints (section 3.1).

    It is asked for each point of the picture, and told x and y from -1 to 1, the distance from
    the middle, and 1. It answers with hue, saturation and brightness, or only the last. It starts
    without hidden nodes and grows, as in NEAT (Stanley and Miikkulainen 2002), here without
    crossover: a node comes into the middle of an edge; edges come and go; functions change;
    weights mutate.

    Args:
        image_shape: (height, width, 3) of the pictures.
        gray: brightness only.
    """

    def __init__(self, image_shape, gray=False):
        self.image_shape = tuple(image_shape)
        self.outputs = 1 if gray else 3
        height, width = self.image_shape[:2]
        y, x = np.meshgrid(
            np.linspace(-1, 1, height, dtype="float32"),
            np.linspace(-1, 1, width, dtype="float32"),
            indexing="ij",
        )
        self.inputs = [x, y, np.hypot(x, y), np.ones_like(x)]

    def random(self, rng):
        """A new genome: every input leads to every output."""
        count = len(INPUTS) + self.outputs
        sources, targets = range(len(INPUTS)), range(len(INPUTS), count)
        return Network(
            [0.0] * len(INPUTS) + [1.0] * self.outputs,
            ["linear"] * len(INPUTS) + [_any_function(rng) for _ in targets],
            {(a, b): rng.uniform(-3.0, 3.0) for a in sources for b in targets},
        )

    def mutate(self, genome, generation, rng):
        """A child of a genome; the generation makes no difference."""
        del generation
        child = copy.deepcopy(genome)
        if rng.random() < ADD_NODE and child.edges and len(child.places) < self._most_nodes():
            self._add_node(child, rng)
        if rng.random() < ADD_EDGE:
            self._add_edge(child, rng)
        if rng.random() < REMOVE_EDGE and len(child.edges) > 1:
            del child.edges[_any_of(list(child.edges), rng)]
        if rng.random() < CHANGE_FUNCTION:
            node = rng.integers(len(INPUTS), len(child.places))
            child.functions[node] = _any_function(rng)
        weights = np.array(list(child.edges.values()))
        bounds = (-LARGEST_WEIGHT, LARGEST_WEIGHT)
        # Of large networks, most of many changes are for the worse: some children have few.
        rate = rng.uniform(0.0, CHANGE_WEIGHT)
        weights = polynomial_mutation(weights, *bounds, rate, rng)
        child.edges = dict(zip(child.edges, weights.tolist()))
        return child

    def _most_nodes(self):
        return len(INPUTS) + self.outputs + MOST_HIDDEN

    def _add_node(self, child, rng):
        """Splits an edge; the way through the new node has the old weight."""
        source, target = _any_of(list(child.edges), rng)
        weight = child.edges.pop((source, target))
        new = len(child.places)
        child.places.append((child.places[source] + child.places[target]) / 2)
        child.functions.append(_any_function(rng))
        child.edges[source, new] = 1.0
        child.edges[new, target] = weight

    def _add_edge(self, child, rng):
        source, target = rng.integers(len(child.places), size=2).tolist()
        if child.places[source] < child.places[target]:
            child.edges.setdefault((source, target), rng.uniform(-3.0, 3.0))

    def render(self, genomes):
        """The pictures (N, H, W, 3) uint8 of N genomes; all of a picture's points at once."""
        return np.stack([self._paint(genome) for genome in genomes])

    def _paint(self, genome):
        values = dict(enumerate(self.inputs))
        incoming = {}
        for (source, target), weight in genome.edges.items():
            incoming.setdefault(target, []).append((source, np.float32(weight)))
        later = range(len(INPUTS), len(genome.places))
        for node in sorted(later, key=lambda node: genome.places[node]):
            total = np.zeros_like(self.inputs[0])
            for source, weight in incoming.get(node, []):
                total += weight * values[source]
            values[node] = FUNCTIONS[genome.functions[node]](total)
        # From -1 … 1 to 0 … 1; hue goes round.
        drawn = [(values[len(INPUTS) + i] + 1) / 2 for i in range(self.outputs)]
        brightness = np.clip(drawn[-1], 0, 1)
        if self.outputs == 1:
            colors = np.broadcast_to(brightness[..., None], self.image_shape)
        else:
            colors = from_hsv(drawn[0] % 1.0, np.clip(drawn[1], 0, 1), brightness)
        return np.rint(255 * colors).astype("uint8")


def from_hsv(hue, saturation, brightness):
    """RGB (..., 3) of three arrays (...), all 0 to 1: `colorsys.hsv_to_rgb` of arrays."""
    sector = (hue[..., None] * 6 + np.array([5.0, 3.0, 1.0], "float32")) % 6
    dimmed = np.clip(np.minimum(sector, 4 - sector), 0, 1)
    return brightness[..., None] * (1 - saturation[..., None] * dimmed)


def _any_of(items, rng):
    return items[rng.integers(len(items))]


def _any_function(rng):
    return _any_of(list(FUNCTIONS), rng)


class MapElites:
    """MAP-Elites: of each class the picture that the network is surest of, so far.

    Each child takes the place of every elite whose class it is a better picture of (section
    3.1). A picture bred for one class may so become the ancestor of another's. One parent in two
    is drawn from the elites of the classes that are wanted, the others from those of all classes
    of the network; in the paper all classes are wanted.

    Args:
        encoding: `DirectEncoding`, `CPPNEncoding`, or an object like them.
        predict: function from pictures (N, H, W, 3) uint8 to probabilities (N, C).
        classes: K integers, the classes that are wanted.
        population: children in a generation, a batch of the network.
        seed: integer.

    Attributes:
        generation: number of generations so far.
    """

    def __init__(self, encoding, predict, classes, population=50, seed=0):
        self.encoding = encoding
        self.predict = predict
        self.classes = np.asarray(classes)
        self.population = population
        self.rng = np.random.default_rng(seed)
        self.generation = 0
        genomes = [encoding.random(self.rng) for _ in range(population)]
        probabilities = np.asarray(predict(encoding.render(genomes)))
        best = probabilities.argmax(axis=0)
        self._best_scores = probabilities.max(axis=0)
        self._elites = [genomes[i] for i in best]

    @property
    def scores(self):
        """(K,), the probability of each class that is wanted, of its elite."""
        return self._best_scores[self.classes]

    def step(self):
        """Breeds a generation."""
        wanted = self.rng.choice(self.classes, self.population)
        of_all = self.rng.integers(len(self._elites), size=self.population)
        parents = np.where(self.rng.random(self.population) < 0.5, wanted, of_all)
        children = [
            self.encoding.mutate(self._elites[i], self.generation, self.rng) for i in parents
        ]
        probabilities = np.asarray(self.predict(self.encoding.render(children)))
        best, scores = probabilities.argmax(axis=0), probabilities.max(axis=0)
        for i in np.flatnonzero(scores > self._best_scores):
            self._elites[i] = children[best[i]]
        self._best_scores = np.maximum(scores, self._best_scores)
        self.generation += 1

    def pictures(self):
        """The elites' pictures (K, H, W, 3) uint8, in the order of the classes."""
        return self.encoding.render([self._elites[i] for i in self.classes])
