import numpy as np
import pytest
from keras import ops

from kerasvision.detection.word_tree import WordTree

# Shape, animal, vehicle; dog and cat; terrier and hound of the dogs; car.
NAMES = ["shape", "animal", "vehicle", "dog", "cat", "car", "terrier", "hound", "puppy"]
PARENTS = [-1, -1, -1, 1, 1, 2, 3, 3, 6]
# The same classes in an order in which children may come before their parents.
ORDER = [8, 3, 5, 0, 7, 1, 6, 4, 2]


@pytest.fixture(params=["in order", "in another order"])
def tree(request):
    if request.param == "in order":
        return WordTree(NAMES, PARENTS)
    parents = [-1 if PARENTS[i] < 0 else ORDER.index(PARENTS[i]) for i in ORDER]
    return WordTree([NAMES[i] for i in ORDER], parents)


def slow_conditionals(tree, logits):
    result = np.zeros(len(logits))
    for i, parent in enumerate(tree.parents):
        siblings = [j for j, other in enumerate(tree.parents) if other == parent]
        result[i] = np.exp(logits[i]) / sum(np.exp(logits[j]) for j in siblings)
    return result


def slow_probability(tree, conditionals, number):
    probability = 1.0
    while number >= 0:
        probability *= conditionals[number]
        number = tree.parents[number]
    return probability


def slow_descent(tree, conditionals, threshold):
    here, probability = -1, 1.0
    while True:
        children = [i for i, parent in enumerate(tree.parents) if parent == here]
        if not children:
            return here
        best = max(children, key=lambda i: conditionals[i])
        probability *= conditionals[best]
        if probability <= threshold and here >= 0:
            return here
        here = best
        if probability <= threshold:
            return here


def test_equals_reference(tree, compiled):
    logits = np.random.default_rng(0).normal(0, 2, (4, 25, 9)).astype("float32")

    def run(logits):
        conditionals = tree.log_conditionals(logits)
        probabilities = tree.log_probabilities(conditionals)
        return (
            conditionals,
            probabilities,
            *(tree.descend(conditionals, t) for t in (0.1, 0.5, 0.9)),
        )

    found = [ops.convert_to_numpy(x) for x in compiled(run)(logits)]
    reached = set()
    for place in np.ndindex(4, 25):
        expected = slow_conditionals(tree, logits[place].astype("float64"))
        np.testing.assert_allclose(np.exp(found[0][place]), expected, rtol=1e-4)
        for number in range(9):
            probability = slow_probability(tree, expected, number)
            np.testing.assert_allclose(np.exp(found[1][place][number]), probability, rtol=1e-4)
        for reached_here, threshold in zip(found[2:], (0.1, 0.5, 0.9)):
            assert reached_here[place] == slow_descent(tree, expected, threshold)
            reached.add(int(reached_here[place]))
    assert len(reached) == 8  # a terrier can only be a puppy
    assert found[2].dtype == np.int32


def test_by_hand():
    tree = WordTree(NAMES, PARENTS)
    logits = np.log([0.1, 0.8, 0.1, 0.75, 0.25, 1.0, 0.5, 0.5, 1.0]).astype("float32")
    conditionals = tree.log_conditionals(logits)
    probabilities = np.exp(ops.convert_to_numpy(tree.log_probabilities(conditionals)))
    np.testing.assert_allclose(
        probabilities, [0.1, 0.8, 0.1, 0.6, 0.2, 0.1, 0.3, 0.3, 0.3], rtol=1e-5
    )
    for threshold, name in [(0.9, "animal"), (0.7, "animal"), (0.5, "dog"), (0.25, "puppy")]:
        assert NAMES[int(tree.descend(conditionals, threshold))] == name
    assert tree.depths == [0, 0, 0, 1, 1, 1, 2, 2, 3]


def test_large_logits_stay_finite():
    tree = WordTree(NAMES, PARENTS)
    logits = np.array([500, -500, 0, 300, -300, 9, 500, 499, -500], "float32")
    found = ops.convert_to_numpy(tree.log_conditionals(logits))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[[0, 5, 7, 8]], [0, 0, -1 - np.log1p(np.exp(-1)), 0], atol=1e-4)


def test_a_flat_tree_is_a_softmax():
    logits = np.random.default_rng(0).normal(size=(3, 5)).astype("float32")
    tree = WordTree("abcde", [-1] * 5)
    found = tree.log_probabilities(tree.log_conditionals(logits))
    np.testing.assert_allclose(found, ops.log_softmax(logits), rtol=1e-5)
    np.testing.assert_array_equal(tree.descend(found, 0.99), logits.argmax(axis=1))


def test_reads_darknets_file(tmp_path):
    lines = [f"{name} {parent}" for name, parent in zip(NAMES, PARENTS)]
    (tmp_path / "words.tree").write_text("\n".join(lines) + "\n")
    tree = WordTree.read(tmp_path / "words.tree")
    assert (tree.names, tree.parents) == (NAMES, PARENTS)


@pytest.mark.parametrize(
    "text, message",
    [
        ("a -1\nb\n", "line 2: must be the name of a class and the number of its parent.*: b"),
        ("a x\n", "line 1: must be the name"),
        ("a -1\na 0\n", "names must differ; received 'a' twice"),
        ("a 1\nb 0\n", "none twice; received: 'a' with parent 1"),
        ("a 7\n", "received: 'a' with parent 7"),
        ("a -2\n", "received: 'a' with parent -2"),
        ("", "at least one; received: 0 for 0"),
    ],
)
def test_errors(text, message, tmp_path):
    (tmp_path / "words.tree").write_text(text)
    with pytest.raises(ValueError, match=f"words.tree: .*{message}") as error:
        WordTree.read(tmp_path / "words.tree")
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="none.tree: not a readable tree"):
        WordTree.read(tmp_path / "none.tree")
