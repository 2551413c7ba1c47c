import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.backbones import lenet, lenet5


def pictures(*shape):
    return np.random.default_rng(0).uniform(0, 255, shape).astype("float32")


def trainable(model):
    return sum(int(np.prod(w.shape)) for w in model.trainable_weights)


def test_parameters_are_the_papers():
    model = lenet5()
    counts = {layer.name: layer.count_params() for layer in model.layers if layer.weights}
    expected = {"C1": 156, "S2": 12, "C3": 1_516, "S4": 32, "C5": 48_120, "F6": 10_164}
    assert counts == {**expected, "predictions": 840}
    assert trainable(model) == sum(expected.values()) == 60_000
    assert model.count_params() == 60_840
    dense = lenet5(connections="dense")
    assert dense.count_params() == trainable(dense) == 61_706
    # Trained units instead of drawings: 84 weights and a bias for each class.
    assert trainable(lenet5(output="dense")) == 60_850
    assert trainable(lenet5(num_classes=7)) == 60_000 + 7 * 85


def test_maps_are_the_papers():
    taps = lenet5(include_top=False).feature_taps
    assert {name: tuple(tap.shape[1:]) for name, tap in taps.items()} == {
        "stride1": (28, 28, 6),
        "stride2": (10, 10, 16),
        "stride4": (1, 1, 120),
    }
    assert lenet5((None, None, 1), include_top=False).output_shape == (None, None, None, 120)


def test_network_is_the_papers_equations():
    """Unit by unit in NumPy."""
    model = lenet5((32, 32, 1))
    rng = np.random.default_rng(1)
    model.set_weights(
        [w + rng.normal(0, 0.05, w.shape) for w in model.get_weights()[:-1]] + [lenet.digit_codes()]
    )

    def weights(name):
        return [w.astype("float64") for w in model.get_layer(name).get_weights()]

    def squash(a):
        return 1.7159 * np.tanh(2 / 3 * a)

    def correlate(x, kernel):
        rows, columns = x.shape[0] - 4, x.shape[1] - 4
        return sum(
            kernel[i, j] * x[i : i + rows, j : j + columns] for i in range(5) for j in range(5)
        )

    def subsample(maps, name):
        coefficient, bias = weights(name)
        sums = [m[::2, ::2] + m[1::2, ::2] + m[::2, 1::2] + m[1::2, 1::2] for m in maps]
        return [
            squash(total * coefficient[0, 0, i, 0] / 4 + bias[i]) for i, total in enumerate(sums)
        ]

    picture = pictures(1, 32, 32, 1)
    x = picture[0, :, :, 0].astype("float64") / 255 * (1.175 + 0.1) - 0.1
    kernel, bias = weights("C1")
    c1 = [squash(correlate(x, kernel[:, :, 0, i]) + bias[i]) for i in range(6)]
    s2 = subsample(c1, "S2")
    kernel, bias = weights("C3")
    c3, connection = [], 0
    for output, seen in enumerate(lenet.C3_TABLE):
        total = bias[output]
        for i in seen:
            total = total + correlate(s2[i], kernel[:, :, connection])
            connection += 1
        c3.append(squash(total))
    s4 = subsample(c3, "S4")
    kernel, bias = weights("C5")
    c5 = squash(np.einsum("ijmo,mij->o", kernel, np.array(s4)) + bias)
    kernel, bias = weights("F6")
    f6 = squash(c5 @ kernel + bias)
    distances = np.array([np.sum((f6 - code) ** 2) for code in lenet.digit_codes()])
    expected = np.exp(distances.min() - distances)
    expected /= expected.sum()
    np.testing.assert_allclose(model.predict(picture, verbose=0)[0], expected, atol=1e-4)
    logits = lenet5((32, 32, 1), classifier_activation=None)
    logits.set_weights(model.get_weights())
    np.testing.assert_allclose(logits.predict(picture, verbose=0)[0], -distances, rtol=1e-4)


def test_the_connection_table():
    # Table I: six maps of three neighbours, six of four, three of two pairs, one of all.
    assert [len(maps) for maps in lenet.C3_TABLE] == [3] * 6 + [4] * 9 + [6]
    assert [sum(i in maps for maps in lenet.C3_TABLE) for i in range(6)] == [10] * 6
    for i in range(6):
        assert lenet.C3_TABLE[i] == sorted((i + k) % 6 for k in range(3))
        assert lenet.C3_TABLE[6 + i] == sorted((i + k) % 6 for k in range(4))
    # What isn't connected has no influence.
    layer = lenet.ConnectionTableConv2D(lenet.C3_TABLE, 5)
    x = pictures(1, 5, 5, 6)
    before = ops.convert_to_numpy(layer(x))[0, 0, 0]
    for i in range(6):
        changed = x.copy()
        changed[..., i] += 1.0
        after = ops.convert_to_numpy(layer(changed))[0, 0, 0]
        assert [bool(a != b) for a, b in zip(after, before)] == [i in m for m in lenet.C3_TABLE]
    with pytest.raises(ValueError, match="table must name input maps 0 to 2; received"):
        lenet.ConnectionTableConv2D([[0, 3]], 5).build((None, 8, 8, 3))


def test_weights_start_as_in_appendix_a():
    model = lenet5()
    for name, fan_in in {"C1": 25, "S2": 1, "C5": 400, "F6": 120}.items():
        kernel = np.abs(model.get_layer(name).get_weights()[0])
        assert kernel.max() <= 2.4 / fan_in and (kernel.size < 100 or kernel.max() > 2.3 / fan_in)
    kernel = np.abs(model.get_layer("C3").get_weights()[0])
    fan_in = np.repeat(*[[25 * len(m) for m in lenet.C3_TABLE], [len(m) for m in lenet.C3_TABLE]])
    assert (kernel <= 2.4 / fan_in).all() and (kernel.max((0, 1)) > 1.8 / fan_in).all()


def test_the_drawings():
    codes = lenet.digit_codes()
    assert codes.shape == (10, 84) and set(np.unique(codes)) == {-1.0, 1.0}
    drawn = ["".join("#" if pixel > 0 else "." for pixel in row) for row in codes[7].reshape(12, 7)]
    assert drawn == [
        "#######",
        ".....##",
        ".....##",
        "....##.",
        "...##..",
        "...##..",
        "..##...",
        "..##...",
        "..##...",
        "..##...",
        ".......",
        ".......",
    ]
    distances = ((codes[:, None] - codes[None]) ** 2).sum(-1)
    assert distances[~np.eye(10, dtype=bool)].min() >= 4 * 8  # eight pixels apart at least
    model = lenet5()
    np.testing.assert_array_equal(model.get_layer("predictions").get_weights()[0], codes)


def test_squashing():
    x = np.array([-1.0, 0.0, 1.0, 100.0], "float32")
    squashed = ops.convert_to_numpy(lenet.scaled_tanh(x))
    np.testing.assert_allclose(squashed, [-1.0, 0.0, 1.0, 1.7159], atol=1e-4)


def test_colours_become_grey(tmp_path):
    colour, grey = lenet5(), lenet5((32, 32, 1))
    grey.set_weights(colour.get_weights())
    images = pictures(2, 32, 32, 3)
    expected = colour.predict(images, verbose=0)
    brightness = images @ np.array([0.2989, 0.587, 0.114], "float32")
    received = grey.predict(brightness[..., None], verbose=0)
    np.testing.assert_allclose(received, expected, atol=1e-6)
    colour.save(tmp_path / "lenet.h5")
    loaded = lenet5(weights=tmp_path / "lenet.h5")
    np.testing.assert_allclose(loaded.predict(images, verbose=0), expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("connections", ["table", "dense"])
def test_learns_to_tell_drawings_apart(connections):
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    codes = (lenet.digit_codes().reshape(10, 12, 7) + 1) / 2 * 255
    images, labels = np.zeros((200, 32, 32, 1), "float32"), rng.integers(0, 10, 200)
    for image, label in zip(images, labels):
        y, x = rng.integers(8, 13, 2)
        image[y : y + 12, x : x + 7, 0] = codes[label]
    model = lenet5((32, 32, 1), connections=connections)
    model.compile(
        keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    model.fit(images, labels, 20, epochs=12, verbose=0)
    assert model.evaluate(images, labels, verbose=0)[1] >= 0.7


def test_clear_errors(tmp_path):
    with pytest.raises(ValueError, match="image_shape must be at least 32 x 32"):
        lenet5((28, 28, 1))
    with pytest.raises(ValueError, match="connections must be 'table' or 'dense'; received: all"):
        lenet5(connections="all")
    with pytest.raises(ValueError, match="output must be 'rbf', 'dense' or None; received: linear"):
        lenet5(output="linear")
    with pytest.raises(ValueError, match="'rbf' is for the ten digits.*num_classes=7"):
        lenet5(num_classes=7, output="rbf")
    lenet5(connections="dense").save(tmp_path / "dense.h5")
    with pytest.raises(ValueError, match=r"dense.h5: layer C3 of lenet5 expects .*60.*6, 16"):
        lenet5(output="dense", weights=tmp_path / "dense.h5")
