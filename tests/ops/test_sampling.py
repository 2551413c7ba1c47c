import functools
import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from keras import ops

from kerasvision.ops import sampling

# --- Balanced sampling -------------------------------------------------------------------


def reference_random_numbers(shape, seed, calls):
    """The hash, place by place, in Python's integers."""

    def mixed(x):
        x = (x ^ (x >> 16)) * 0x7FEB352D % 2**32
        x = (x ^ (x >> 15)) * 0x846CA68B % 2**32
        return x ^ (x >> 16)

    numbers = np.zeros(shape)
    for b, a in np.ndindex(shape):
        place = (b + 1) * shape[1] + a
        numbers[b, a] = mixed(mixed(mixed(mixed(place) ^ seed)) ^ calls) >> 8
    return numbers


def reference_sampling(matches, num_samples, positive_fraction, numbers):
    """The boxes of the highest numbers: first the positives, then the background."""
    indices, counted = [], []
    for codes, order in zip(matches, np.argsort(-numbers, axis=1, kind="stable")):
        positives = [a for a in order if codes[a] >= 0][: int(num_samples * positive_fraction)]
        rest = num_samples - len(positives)
        drawn = positives + [a for a in order if codes[a] == -1][:rest]
        counted.append([True] * len(drawn) + [False] * (num_samples - len(drawn)))
        indices.append(drawn + [0] * (num_samples - len(drawn)))
    return np.array(indices), np.array(counted)


def adversarial(size):
    """(20, size) codes: none of a kind, only one kind, one of a kind, all ignored."""
    rng = np.random.default_rng(0)
    codes = [np.full(size, code) for code in (-2, -1, 0, 7, -3)]
    for rest in (-2, -1, 0):
        for single in (-1, 0, 3):
            for place in (0, size - 1):
                code = np.full(size, rest)
                code[place] = single
                codes.append(code)
    codes += [np.arange(size) % 3 - 2, np.arange(size)[::-1], rng.integers(-2, 1, size)]
    return np.stack(codes).astype("int32")[-20:]


@pytest.mark.parametrize("setting", [(6, 0.5), (8, 0.25), (12, 0.0), (12, 1.0), (1, 0.5), (5, 0.3)])
def test_equals_reference(compiled, setting):
    num_samples, positive_fraction = setting
    sample = compiled(
        functools.partial(
            sampling.balanced_sampling,
            num_samples=num_samples,
            positive_fraction=positive_fraction,
            seed=1234,
        )
    )

    def check(matches):
        numbers = reference_random_numbers(matches.shape, 1234, 0)
        expected = reference_sampling(matches, *setting, numbers)
        for found, values in zip(sample(matches), expected):
            np.testing.assert_array_equal(found, values)

    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(
        arrays("int32", (6, 12), elements=st.sampled_from([-2, -2, -1, -1, -1, 0, 1, 5])),
    )
    def check_drawn(matches):
        check(matches)

    check_drawn()
    check(adversarial(12))


def test_counts_golden(compiled):
    # A picture with enough of both kinds, one with a single positive, one with little at all.
    matches = np.full((3, 1000), -2, "int32")
    matches[0, :200], matches[0, 200:900] = 3, -1
    matches[1, 17], matches[1, 300:] = 0, -1
    matches[2, 500:550], matches[2, 700:710] = 0, -1
    sample = functools.partial(compiled(sampling.balanced_sampling), matches)
    indices, counted = (
        ops.convert_to_numpy(x) for x in sample(num_samples=256, positive_fraction=0.5, seed=0)
    )
    codes = np.where(counted, np.take_along_axis(matches, indices, axis=1), -9)
    for b, (positive, background) in enumerate([(128, 128), (1, 255), (50, 10)]):
        assert (codes[b, :positive] >= 0).all()
        assert (codes[b, positive : positive + background] == -1).all()
        assert not counted[b, positive + background :].any()
        assert (indices[b, positive + background :] == 0).all()
        assert len(set(indices[b][counted[b]])) == positive + background
    assert (indices.dtype, counted.dtype) == (np.int32, bool)


def test_draws_are_even():
    """Each of 40 positives and 160 others is drawn about equally often, and independently."""
    matches = np.full((2000, 200), -1, "int32")
    matches[:, ::5] = 0
    indices, counted = sampling.balanced_sampling(matches, 20, 0.5, seed=3)
    assert ops.convert_to_numpy(counted).all()
    indices = ops.convert_to_numpy(indices)
    times = np.bincount(indices.ravel(), minlength=200)
    # Binomial: 2000 draws at 10 of 40, and at 10 of 160; five standard deviations.
    assert np.abs(times[::5] - 500).max() < 5 * math.sqrt(2000 * 0.25 * 0.75)
    others = np.delete(times, np.s_[::5])
    assert np.abs(others - 125).max() < 5 * math.sqrt(2000 * 0.0625 * 0.9375)
    # Neighbours in a picture and across pictures: pairs are as frequent as chance has it.
    drawn = np.zeros((2000, 200))
    np.put_along_axis(drawn, indices, 1, axis=1)
    positive = drawn[:, ::5] - 0.25
    for product in (positive[:, 1:] * positive[:, :-1], positive[1:] * positive[:-1]):
        assert abs(product.mean()) < 0.01


def test_seeds():
    matches = np.random.default_rng(0).integers(-1, 2, (2, 100)).astype("int32")

    def draw(seed):
        return ops.convert_to_numpy(sampling.balanced_sampling(matches, 30, 0.5, seed)[0])

    np.testing.assert_array_equal(draw(5), draw(5))
    different = [draw(seed) for seed in (0, 1, 2, 5, 2**32 - 1)]
    assert len({x.tobytes() for x in different}) == 5
    # A generator draws anew each time, and the same again when it starts again.
    generator, again = keras.random.SeedGenerator(5), keras.random.SeedGenerator(5)
    first, second = draw(generator), draw(generator)
    assert (first != second).any()
    np.testing.assert_array_equal(first, draw(5))
    np.testing.assert_array_equal([first, second], [draw(again), draw(again)])
    numbers = reference_random_numbers((2, 100), 5, 1)
    np.testing.assert_array_equal(second, reference_sampling(matches, 30, 0.5, numbers)[0])


def test_a_generator_in_a_graph():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("JAX keeps the state of generators outside of compiled functions")
    import tensorflow as tf

    matches = np.random.default_rng(0).integers(-1, 2, (2, 100)).astype("int32")
    generators = [keras.random.SeedGenerator(5) for _ in range(3)]
    sample = [
        tf.function(lambda g=g: sampling.balanced_sampling(matches, 30, 0.5, g)[0], jit_compile=jit)
        for g, jit in zip(generators, (False, True))
    ]
    for _ in range(3):
        expected = sampling.balanced_sampling(matches, 30, 0.5, generators[2])[0]
        for function in sample:
            np.testing.assert_array_equal(function(), expected)


def test_batches_of_any_size():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("JAX has static shapes only")
    import tensorflow as tf

    matches = np.random.default_rng(0).integers(-1, 2, (5, 50)).astype("int32")
    for jit_compile in (False, True):
        sample = tf.function(
            lambda matches: sampling.balanced_sampling(matches, 10, 0.5, 0),
            input_signature=[tf.TensorSpec((None, 50), tf.int32)],
            jit_compile=jit_compile,
        )
        for size in (0, 1, 5):
            expected = sampling.balanced_sampling(matches[:size], 10, 0.5, 0)
            for found, value in zip(sample(matches[:size]), expected):
                np.testing.assert_array_equal(found, value)


# --- Hard negative mining ----------------------------------------------------------------


def reference_mining(losses, positive, ratio):
    chosen = np.zeros(losses.shape, bool)
    for b in range(len(losses)):
        negatives = [a for a in range(losses.shape[1]) if not positive[b, a]]
        negatives.sort(key=lambda a: -losses[b, a] if not math.isnan(losses[b, a]) else math.inf)
        chosen[b, negatives[: math.ceil(ratio * positive[b].sum())]] = True
    return chosen


@pytest.mark.parametrize("ratio", [3.0, 1, 0.0, 0.5, 100])
def test_hard_negative_mining_equals_reference(compiled, ratio):
    mine = compiled(functools.partial(sampling.hard_negative_mining, ratio=ratio))

    def check(losses, positive):
        expected = reference_mining(losses, positive, ratio)
        np.testing.assert_array_equal(mine(losses, positive), expected)

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(
        arrays(
            "float32",
            (4, 9),
            elements=st.one_of(
                st.floats(0, 100, width=16),
                # Ties; losses below those of positives if these counted as -1; no numbers.
                st.sampled_from([0.0, 1.0, 2.0, -5.0, math.inf, math.nan]),
            ),
        ),
        arrays("bool", (4, 9)),
    )
    def check_drawn(losses, positive):
        check(losses, positive)

    check_drawn()
    places = np.arange(9)
    rows = [np.full(9, x) for x in (0.0, 1.0, -1.0, -5.0, math.nan, math.inf, 1e-30, 3e38)]
    rows += [places, -places, places % 2, places // 4]
    losses = np.array(rows, "float32")
    for positive in (places < 0, places < 1, places % 3 == 1, places >= 0):
        check(losses, np.broadcast_to(positive, losses.shape))


def test_hard_negative_mining_golden(compiled):
    losses = np.array([[9.0, 0.1, 0.5, 0.3, 0.4], [1.0, 2.0, 3.0, 4.0, 5.0]], "f4")
    positive = np.array([[True, False, False, False, False], [False] * 5])
    negative = compiled(sampling.hard_negative_mining)(losses, positive, ratio=3.0)
    # The three hardest of the first picture; none where nothing is positive.
    np.testing.assert_array_equal(negative, [[False, False, True, True, True], [False] * 5])


def test_hard_negative_mining_keeps_to_its_quota_when_losses_tie(compiled):
    positive = np.zeros((1, 10), bool)
    positive[0, 4] = True
    negative = compiled(sampling.hard_negative_mining)(np.ones((1, 10), "f4"), positive)
    # The first ones are taken, but never a positive.
    np.testing.assert_array_equal(negative, [[True, True, True] + [False] * 7])


# --- Messages ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: sampling.balanced_sampling(np.zeros(4, "int32"), 2, 0.5, 0),
            r"matches must be integers of shape \(B, A\); received: \(4,\)",
        ),
        (
            lambda: sampling.balanced_sampling(np.zeros((2, 4), "float32"), 2, 0.5, 0),
            r"matches must be integers of shape \(B, A\); received: \(2, 4\), .*float32",
        ),
        (
            lambda: sampling.balanced_sampling(np.zeros((2, 4), "int32"), 5, 0.5, 0),
            r"num_samples must be 1 to the number of boxes, 4; received: 5",
        ),
        (
            lambda: sampling.balanced_sampling(np.zeros((2, 4), "int32"), 0, 0.5, 0),
            r"num_samples must be 1 to the number of boxes, 4; received: 0",
        ),
        (
            lambda: sampling.balanced_sampling(np.zeros((2, 4), "int32"), 2, 1.5, 0),
            r"positive_fraction must be in \[0, 1\]; received: 1.5",
        ),
        (
            lambda: sampling.balanced_sampling(np.zeros((2, 4), "int32"), 2, 0.5, None),
            r"seed must be an integer in \[0, 2\^32\) or a .*; received: None",
        ),
        (
            lambda: sampling.balanced_sampling(np.zeros((2, 4), "int32"), 2, 0.5, -1),
            r"seed must be an integer in \[0, 2\^32\) or a .*; received: -1",
        ),
        (
            lambda: sampling.hard_negative_mining(np.zeros((2, 4)), np.zeros((2, 3), bool)),
            r"losses and positive must have the same shape .* \(2, 4\) and \(2, 3\)",
        ),
        (
            lambda: sampling.hard_negative_mining(np.zeros((2, 4)), np.zeros((2, 4), bool), -1),
            r"ratio must be 0 or more; received: -1",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
