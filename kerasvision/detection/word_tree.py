"""YOLO9000's word tree (Redmon & Farhadi 2017, section 4): classes that are kinds of others."""

import pathlib

import numpy as np
from keras import ops


class WordTree:
    """A tree of classes and the probabilities on it ("Hierarchical classification").

    A network gives a logit for each class. Siblings, the children of one class, share a softmax:
    it tells which of them something is, given that it is their parent. The probability of a class
    is the product of those on the path to it from the root, which stands for "an object" and has
    none itself.

    Args:
        names: C names.
        parents: for each class the number of the one that it is a kind of; -1: of the root.

    Attributes:
        names, parents: lists.
        depths: for each class, how many there are above it.

    Raises:
        ValueError: names or parents that make no tree.
    """

    def __init__(self, names, parents):
        self.names, self.parents = list(names), [int(parent) for parent in parents]
        count = len(self.names)
        if len(self.parents) != count or count == 0:
            raise ValueError(
                f"parents must be as many as the names, at least one; received: "
                f"{len(self.parents)} for {count}"
            )
        if len(set(self.names)) < count:
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise ValueError(f"names must differ; received {twice!r} twice")
        self.depths = []
        for number, parent in enumerate(self.parents):
            depth = 0
            while 0 <= parent < count and depth < count:
                parent, depth = self.parents[parent], depth + 1
            if parent != -1:
                raise ValueError(
                    "each class must have -1 at the end of its line of parents, and none twice; "
                    f"received: {self.names[number]!r} with parent {self.parents[number]}"
                )
            self.depths.append(depth)

        # Each parent with children has a group of siblings.
        _, self._groups = np.unique(self.parents, return_inverse=True)
        self._num_groups = int(self._groups.max()) + 1
        # The ancestor 1, 2, 4, … steps up, of each class and, in the end, of the root.
        self._jumps = [np.array([*(parent % (count + 1) for parent in self.parents), count])]
        while (self._jumps[-1] != count).any():
            self._jumps.append(self._jumps[-1][self._jumps[-1]])

    @classmethod
    def read(cls, path):
        """The tree of a Darknet file (`.tree`): a line "name parent" for each class, from 0.

        Raises:
            ValueError: the file is unreadable or has no tree.
        """
        try:
            lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not a readable tree; received: {error}") from None
        names, parents = [], []
        for number, line in enumerate(lines, start=1):
            words = line.split()
            if len(words) != 2 or not words[1].lstrip("-").isdigit():
                raise ValueError(
                    f"{path}: line {number}: must be the name of a class and the number of its "
                    f"parent; received: {line[:60]}"
                )
            names.append(words[0])
            parents.append(int(words[1]))
        try:
            return cls(names, parents)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def log_conditionals(self, logits):
        """log Pr(class | its parent) of logits (…, C): a softmax over each group of siblings."""
        x = ops.moveaxis(ops.cast(logits, "float32"), -1, 0)
        x = x - ops.take(ops.stop_gradient(self._group_max(x)), self._groups, axis=0)
        total = ops.segment_sum(ops.exp(x), self._groups, self._num_groups)
        return ops.moveaxis(x - ops.take(ops.log(total), self._groups, axis=0), 0, -1)

    def log_probabilities(self, log_conditionals):
        """log Pr(class) of log Pr(class | its parent), both (…, C): sums along the paths."""
        return self._along_paths(log_conditionals, ops.add, 0.0)

    def descend(self, log_conditionals, threshold):
        """The class (…) int32 at which a walk down the tree ends.

        "We traverse the tree down, taking the highest confidence path at every split until we
        reach some threshold": it goes on while the class's probability is above it. From the root
        it takes one step in any case.

        Args:
            log_conditionals: (…, C).
            threshold: a probability.
        """
        x = ops.moveaxis(log_conditionals, -1, 0)
        best = ops.moveaxis(x >= ops.take(self._group_max(x), self._groups, axis=0), 0, -1)
        on_walk = self._along_paths(ops.cast(best, "float32"), ops.multiply, 1.0) > 0.0
        probable = ops.exp(self.log_probabilities(log_conditionals)) > threshold
        depths = np.array(self.depths, "int32")
        passed = ops.logical_and(on_walk, ops.logical_or(probable, depths == 0))
        # Whole numbers, since LiteRT has no operator for what Keras does with negative zeros.
        return ops.cast(ops.argmax(ops.where(passed, depths, -1), axis=-1), "int32")

    def _group_max(self, x):
        return ops.segment_max(x, self._groups, self._num_groups)

    def _along_paths(self, x, combine, of_root):
        """Combines x (…, C) of each class and all above it, in log2(depth) steps."""
        x = ops.pad(x, [(0, 0)] * (len(x.shape) - 1) + [(0, 1)], constant_values=of_root)
        for jump in self._jumps:
            x = combine(x, ops.take(x, jump, axis=-1))
        return x[..., :-1]
