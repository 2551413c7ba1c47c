import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kerasvision.synthesis import style
from kerasvision.synthesis.style import StyleLoss, StyleTransfer, gram

NAMES = {"content_layers": ["deep"], "style_layers": ["first", "deep"]}


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    images = keras.Input((None, None, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(images)
    loud = keras.initializers.VarianceScaling(20.0)
    conv = {"padding": "same", "activation": "relu", "kernel_initializer": loud}
    x = layers.Conv2D(5, 3, **conv, name="first")(x)
    x = layers.MaxPooling2D(2, name="pool")(x)
    x = layers.Conv2D(6, 3, **conv, name="deep")(x)
    return keras.Model(images, layers.Conv2D(2, 3, name="unneeded")(x))


def palette():
    """A network whose maps are the colours themselves: G is what colours have in common."""
    images = keras.Input((None, None, 3))
    x = layers.Rescaling(1 / 255, name="colours")(images)
    return keras.Model(images, layers.Conv2D(2, 1)(x))


def pictures(*shape, seed=0):
    """Smooth enough for a picture, in float32."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (*shape[:-3], shape[-3] // 4 + 1, shape[-2] // 4 + 1, 3))
    return np.asarray(tf.image.resize(coarse, shape[-3:-1]), "float32")


def maps_of(network, image, name):
    return keras.Model(network.input, network.get_layer(name).output)(image[None])[0].numpy()


def slow_gram(maps, shares=None):
    height, width, channels = maps.shape
    G = np.zeros((channels, channels))
    for row in range(height):
        for column in range(width):
            F = maps[row, column].astype("float64")
            share = 1 / (height * width) if shares is None else shares[row, column]
            G += share * np.outer(F, F)
    return G


def test_gram():
    maps = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype("float32")
    shares = np.random.default_rng(1).uniform(size=(3, 4)).astype("float32")
    for given in (None, shares / shares.sum()):
        expected = [slow_gram(F, given) for F in maps]
        np.testing.assert_allclose(gram(maps, given), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
def test_gradient_of_gram(weighted):
    rng = np.random.default_rng(0)
    maps, way, upstream = (rng.normal(size=s) for s in ((1, 3, 2, 4), (1, 3, 2, 4), (1, 4, 4)))
    shares = rng.uniform(size=(3, 2)) if weighted else None
    with tf.GradientTape() as tape:
        F = tf.constant(maps, tf.float32)
        tape.watch(F)
        value = tf.reduce_sum(
            gram(F, None if shares is None else tf.constant(shares, "float32")) * upstream
        )
    slope = np.sum(tape.gradient(value, F) * way)
    ends = [np.sum(slow_gram((maps + h * way)[0], shares) * upstream) for h in (1e-4, -1e-4)]
    assert slope == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=1e-4)


def test_loss_is_the_papers(network):
    loss = StyleLoss(
        network,
        **NAMES,
        layer_weights=[0.25, 2.0],
        content_weight=3.0,
        style_weight=5.0,
        tv_weight=0.1,
    )
    x, p, a = pictures(12, 10, 3), pictures(12, 10, 3, seed=1), pictures(9, 14, 3, seed=2)
    found = loss(x[None], loss.content_targets(p[None]), [(1.0, loss.style_targets(a), None)])
    F, P = (maps_of(network, image, "deep") for image in (x, p))
    content = 3.0 * np.sum((F - P) ** 2) / np.sum(P**2)
    manner = 0.0
    for name, weight in (("first", 0.25), ("deep", 2.0)):
        G, A = (slow_gram(maps_of(network, image, name)) for image in (x, a))
        manner += 5.0 * weight * np.sum((G - A) ** 2) / np.sum(A**2)
    y = x / 255
    right, down = np.zeros_like(y), np.zeros_like(y)
    right[:, :-1], down[:-1] = y[:, 1:] - y[:, :-1], y[1:] - y[:-1]
    tv = 0.1 * np.sum(right**2 + down**2) / (12 * 10)
    for name, value in {"content": content, "style": manner, "tv": tv}.items():
        assert float(found[name]) == pytest.approx(value, rel=1e-4), name
    assert float(found["loss"]) == pytest.approx(content + manner + tv, rel=1e-4)


def test_loss_is_nothing_where_nothing_is_to_do(network):
    loss = StyleLoss(network, **NAMES)
    x = pictures(12, 10, 3)
    found = loss(x[None], loss.content_targets(x[None]), [(1.0, loss.style_targets(x), None)])
    assert float(found["loss"]) < 1e-9


def test_loss_of_a_batch_is_the_mean(network):
    loss = StyleLoss(network, **NAMES, tv_weight=0.1)
    x, p = pictures(3, 12, 10, 3), pictures(3, 12, 10, 3, seed=1)
    styles = [(1.0, loss.style_targets(pictures(9, 9, 3, seed=2)), None)]
    each = [loss(x[i : i + 1], loss.content_targets(p[i : i + 1]), styles) for i in range(3)]
    together = loss(x, loss.content_targets(p), styles)
    for name, value in together.items():
        assert float(value) == pytest.approx(np.mean([t[name] for t in each]), rel=1e-4), name


def test_gradient(network):
    """Of the whole loss, by central differences along a random way; no ReLU changes on it."""
    loss = StyleLoss(network, **NAMES, tv_weight=1.0)
    x, p = pictures(8, 8, 3), pictures(8, 8, 3, seed=1)
    transfer = StyleTransfer(loss)
    targets = transfer.targets(p, [pictures(8, 8, 3, seed=2)])
    terms, g = transfer.value_and_gradient(tf.constant(x[None]), targets)
    way = np.sign(g.numpy())
    ends = [float(loss(x[None] + h * way, *targets)["loss"]) for h in (0.02, -0.02)]
    assert (ends[0] - ends[1]) / 0.04 == pytest.approx(np.abs(g).sum(), rel=2e-2)
    assert float(terms["loss"]) == pytest.approx(float(loss(x[None], *targets)["loss"]), rel=1e-5)


@pytest.mark.parametrize("optimizer, iterations", [("lbfgs", 60), ("adam", 150)])
def test_descent(network, optimizer, iterations):
    """Painted from noise, without content, a picture has the manner and nothing else."""
    loss = StyleLoss(network, **NAMES, content_weight=0.0)
    told = []
    transfer = StyleTransfer(loss, optimizer, iterations, start="noise")
    p, a = pictures(16, 20, 3), pictures(16, 12, 3, seed=1)
    x, terms = transfer(p, [a], on_step=lambda *step: told.append(step), seed=3)
    assert x.shape == p.shape and x.min() >= 0 and x.max() <= 255
    assert terms["style"] < 0.02 * told[0][2]["style"]
    assert [step for step, *_ in told] == list(range(len(told))) and len(told) <= iterations
    again, _ = transfer(p, [a], seed=3)
    np.testing.assert_allclose(again, x, atol=0.5)


def test_lbfgs_never_climbs(network):
    losses = []
    transfer = StyleTransfer(StyleLoss(network, **NAMES), iterations=20)
    targets = pictures(16, 16, 3), [pictures(16, 16, 3, seed=1)]
    transfer(*targets, on_step=lambda step, x, terms: losses.append(terms["loss"]))
    assert (np.diff(losses) <= 1e-6).all() and losses[-1] < 0.8 * losses[0]


def test_scales(network):
    sizes = []
    transfer = StyleTransfer(StyleLoss(network, **NAMES), iterations=2, scales=3)
    x, _ = transfer(
        pictures(96, 65, 3),
        [pictures(40, 40, 3, seed=1)],
        on_step=lambda step, image, _: sizes.append((step, image.shape)),
    )
    # The smallest would have a side of 16.
    small, large = (48, 32, 3), (96, 65, 3)
    assert sizes == [(0, small), (1, small), (2, large), (3, large)]
    assert x.shape == large


def test_masks():
    """With colours for maps, each half of the picture takes the brightness of its own style."""
    loss = StyleLoss(palette(), [], ["colours"], content_weight=0.0)
    halves = np.zeros((2, 12, 12), "float32")
    halves[0, :, :6], halves[1, :, 6:] = 1, 1
    dark, bright = np.full((5, 5, 3), 40.0), np.full((5, 5, 3), 200.0)
    transfer = StyleTransfer(loss, iterations=60)
    x, terms = transfer(np.full((12, 12, 3), 120.0), [dark, bright], masks=halves)
    np.testing.assert_allclose(x[:, :6], 40, atol=1)
    np.testing.assert_allclose(x[:, 6:], 200, atol=1)
    assert terms["loss"] < 1e-4


def test_mixtures():
    """Second moments of colours are mixed by the shares, whatever these add up to."""
    loss = StyleLoss(palette(), [], ["colours"], content_weight=0.0)
    dark, bright = np.full((5, 5, 3), 40.0), np.full((5, 5, 3), 200.0)
    transfer = StyleTransfer(loss, iterations=60)
    for mix, expected in (
        ([1.0, 0.0], 40.0),
        ([3.0, 1.0], np.sqrt(0.75 * 40**2 + 0.25 * 200**2)),
        (None, np.sqrt(0.5 * 40**2 + 0.5 * 200**2)),
    ):
        x, _ = transfer(np.full((6, 6, 3), 120.0), [dark, bright], mix)
        np.testing.assert_allclose(x, expected, atol=1)


def test_average_pooling_and_bfloat16(network):
    x = pictures(1, 12, 12, 3)
    phi = StyleLoss(network, **NAMES, pooling="average").phi
    first = phi(x)["first"].numpy()
    pooled = first.reshape(1, 6, 2, 6, 2, 5).mean((2, 4))
    expected = network.get_layer("deep")(pooled)
    np.testing.assert_allclose(phi(x)["deep"], expected, rtol=1e-4, atol=1e-5)
    exact, rough = (
        StyleLoss(network, **NAMES, bfloat16=half).content_targets(x)["deep"].numpy()
        for half in (False, True)
    )
    assert 0 < np.abs(exact - rough).max() < 0.02 * exact.max()
    assert network.get_layer("first").kernel.dtype == "float32"  # the model stays as it is


def film(count=3, shift=3):
    """A pattern that moves right, on a part of which something lies still."""
    wide = pictures(40, 60 + shift * count, 3, seed=5)
    return [wide[:, shift * (count - i) :][:, :60].copy() for i in range(count)]


def test_what_was_painted_moves_along():
    last, frame = film(2)
    painted = pictures(40, 60, 3, seed=6)
    w, c = style.follow(last, frame, painted)
    inside = (slice(6, -6), slice(10, -6))
    assert np.abs(w[:, 3:] - painted[:, :-3])[inside].mean() < 3
    assert c[inside].mean() > 0.95 and set(np.unique(c)) <= {0, 1}
    assert c[:, 0].max() == 0  # has come into view
    unmoved, c = style.follow(last, last, painted)
    np.testing.assert_allclose(unmoved[c > 0], painted[c > 0], atol=0.5)
    assert c[inside].mean() > 0.99


def test_films_do_not_flicker(network):
    """Frames painted from noise of their own differ; those that follow one another hardly do."""
    loss = StyleLoss(network, **NAMES, style_weight=10.0, temporal_weight=100.0)
    transfer = StyleTransfer(loss, iterations=15)
    frames = film()
    frames = [
        np.clip(f + np.random.default_rng(i).normal(0, 8, f.shape), 0, 255)
        for i, f in enumerate(frames)
    ]
    manner = [pictures(24, 24, 3, seed=1)]

    def flicker(made):
        # Between frames, along the flow of those that were filmed.
        moved = [style.follow(a, b, x) for a, b, x in zip(frames, frames[1:], made)]
        return np.mean([np.abs(x - w)[c > 0].mean() for x, (w, c) in zip(made[1:], moved)])

    made, terms = zip(*style.stylize_frames(transfer, frames, manner))
    alone = [transfer(frame, manner)[0] for frame in frames]
    assert flicker(made) < 0.5 * flicker(alone)
    np.testing.assert_array_equal(made[0], alone[0])
    assert [t["temporal"] > 0 for t in terms] == [False, True, True]
    assert all(t["style"] < 3 * terms[0]["style"] + 0.05 for t in terms)


def test_temporal_loss(network):
    loss = StyleLoss(network, **NAMES, content_weight=0.0, style_weight=1.0, temporal_weight=7.0)
    x, w = pictures(1, 8, 6, 3), pictures(1, 8, 6, 3, seed=1)
    c = np.zeros((1, 8, 6, 1), "float32")
    c[0, 2:5, 1:4] = 1
    found = loss(x, {}, [], (w, c))
    expected = 7 * np.sum((x - w)[0, 2:5, 1:4] ** 2) / 255**2 / (8 * 6 * 3)
    assert float(found["temporal"]) == pytest.approx(expected, rel=1e-5)
    assert float(found["loss"]) == pytest.approx(expected, rel=1e-5)


def test_matched_colours_have_the_contents_statistics():
    rng = np.random.default_rng(0)
    content = np.clip(rng.normal([120, 100, 140], [8, 12, 6], (40, 40, 3)), 0, 255)
    manner = np.clip(rng.normal([100, 160, 90], [25, 10, 15], (30, 50, 3)), 0, 255)
    manner[..., 1] += 0.3 * (manner[..., 0] - 100)
    matched = style.match_colors(manner, content)
    found, wanted = matched.reshape(-1, 3), content.reshape(-1, 3)
    np.testing.assert_allclose(found.mean(0), wanted.mean(0), atol=0.1)
    np.testing.assert_allclose(np.cov(found.T), np.cov(wanted.T), rtol=0.02, atol=0.3)
    grey = style.match_colors(np.full((4, 4, 3), 77.0), content)
    np.testing.assert_allclose(grey, np.broadcast_to(content.mean((0, 1)), grey.shape), atol=0.5)


def test_luminance_and_its_way_back():
    x, other = pictures(8, 9, 3) / 4 + 90, pictures(8, 9, 3, seed=1) / 4 + 90
    grey = style.luminance(x)
    expected = x @ [0.299, 0.587, 0.114]
    for channel in range(3):
        np.testing.assert_allclose(grey[..., channel], expected, rtol=1e-4)
    alike = style.luminance(x, other)[..., 0]
    wanted = other @ [0.299, 0.587, 0.114]
    assert alike.mean() == pytest.approx(wanted.mean(), rel=1e-4)
    assert alike.std() == pytest.approx(wanted.std(), rel=1e-3)
    np.testing.assert_allclose(style.with_colors_of(x, grey), x, atol=0.1)
    painted = style.with_colors_of(x, other)
    np.testing.assert_allclose(painted @ [0.299, 0.587, 0.114], wanted, rtol=1e-3)
    # Red and blue less the luminance are the content's.
    for channel in (0, 2):
        found, kept = painted[..., channel] - wanted, x[..., channel] - expected
        np.testing.assert_allclose(found, kept, atol=0.1)


def test_bad_input(network):
    with pytest.raises(ValueError, match="no layer block4_conv2"):
        StyleLoss(network)
    with pytest.raises(ValueError, match="no layer fist; near it are first"):
        StyleLoss(network, ["deep"], ["fist"])
    with pytest.raises(ValueError, match="pooling: must be max or average; received: sum"):
        StyleLoss(network, **NAMES, pooling="sum")
    with pytest.raises(ValueError, match="layer_weights: must be 2, .* received: 1"):
        StyleLoss(network, **NAMES, layer_weights=[1.0])
    with pytest.raises(ValueError, match="must be 0 or more, and one of the first"):
        StyleLoss(network, **NAMES, content_weight=-1.0)
    loss = StyleLoss(network, **NAMES)
    with pytest.raises(ValueError, match="optimizer: must be lbfgs or adam; received: sgd"):
        StyleTransfer(loss, "sgd")
    with pytest.raises(ValueError, match="start: must be content or noise; received: grey"):
        StyleTransfer(loss, start="grey")
    with pytest.raises(ValueError, match="iterations, scales: must be 1 or more; received: 0, 1"):
        StyleTransfer(loss, iterations=0)
    transfer, p, a = StyleTransfer(loss, iterations=1), pictures(8, 8, 3), pictures(8, 8, 3)
    with pytest.raises(ValueError, match="style_mix: must be 0 numbers"):
        transfer(p, [])
    with pytest.raises(ValueError, match="style_mix: must be 1 numbers .* received"):
        transfer(p, [a], [0.5, 0.5])
    with pytest.raises(ValueError, match="masks: must be 2, one a style; received: 1"):
        transfer(p, [a, a], masks=[np.ones((8, 8))])
    with pytest.raises(ValueError, match="not all 0; received: .*, 0 to 0"):
        transfer(p, [a], masks=[np.zeros((8, 8))])
    with pytest.raises(ValueError, match="pictures of 1 x 1 pixels don't go through"):
        transfer(np.zeros((1, 1, 3)), [a])
