import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kerasvision import backbones
from kerasvision.synthesis import DeepDream, stages
from kerasvision.synthesis.features import total_variation


def picture(height=40, width=56, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(60, 190, (1, 5, 7, 3)).astype("float32")
    return tf.image.resize(coarse, (height, width))[0].numpy()


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    images = keras.Input((None, None, 3))
    x = layers.Rescaling(1 / 127.5, -1.0, name="normalize")(images)
    x = layers.Conv2D(6, 5, padding="same", activation="relu", name="conv1")(x)
    x = layers.MaxPooling2D(2, name="pool1")(x)
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="conv2")(x)
    return keras.Model(images, x, name="small")


def test_a_step_is_the_papers(network):
    dream = DeepDream(network, "conv2", step_size=2.0, tv_weight=0.01)
    x = tf.constant(picture()[None])
    stepped, value = dream.step(x, tf.constant([0, 0]))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        objective = tf.reduce_mean(network(x) ** 2) / 2
        variation = total_variation(x, 2.0)
    g = tape.gradient(objective, x).numpy()
    change = np.clip(g / np.abs(g).mean(), -10, 10) - 0.01 * tape.gradient(variation, x).numpy()
    np.testing.assert_allclose(value, objective, rtol=1e-5)
    np.testing.assert_allclose(stepped, np.clip(x + 2.0 * change, 0, 255), atol=0.01)


def test_mean_change_of_a_step_is_its_size(network):
    dream = DeepDream(network, "conv2", step_size=0.7)
    x = tf.constant(picture()[None])
    stepped, _ = dream.step(x, tf.constant([5, -3]))
    np.testing.assert_allclose(np.abs(stepped - x).mean(), 0.7, rtol=1e-3)


def test_steepest_slopes_are_cut_off():
    """A bright pixel has 400 times the slope of the others."""
    images = keras.Input((None, None, 3))
    model = keras.Model(images, layers.Conv2D(3, 1, use_bias=False, name="conv")(images))
    model.get_layer("conv").set_weights([np.eye(3)[None, None]])
    x = np.full((1, 16, 16, 3), 0.5, "float32")
    x[0, 3, 4] = 200.0
    stepped, _ = DeepDream(model, "conv", step_size=2.0).step(tf.constant(x), tf.constant([0, 0]))
    np.testing.assert_allclose(stepped[0, 3, 4], 200.0 + 2.0 * 10.0, rtol=1e-5)
    np.testing.assert_allclose(stepped[0, 0, 0], 0.5 + 2.0 * 0.5 / x.mean(), rtol=1e-4)


def test_dreaming_drives_the_layer(network):
    values, octaves = [], []
    dream = DeepDream(network, "conv2", octaves=2, steps=6, jitter=4, min_side=16)
    image = picture()
    made = dream(image, on_step=lambda o, s, x, v: (octaves.append((o, s)), values.append(v)))
    assert octaves == [(o, s) for o in range(2) for s in range(6)]
    assert made.shape == image.shape and made.min() >= 0 and made.max() <= 255
    before, after = (float(dream.objective(x[None])) for x in (image, made))
    assert after > 2 * before
    assert values[5] > values[0] and values[11] > values[6]


def test_detail_of_an_octave_comes_back_enlarged(network):
    """With steps that change nothing at the largest octave, what is added is the smaller's."""
    image, seen = picture(), []
    dream = DeepDream(network, "conv2", octaves=2, octave_scale=2.0, steps=1, min_side=16)
    dream(image, on_step=lambda o, s, x, v: seen.append(x))
    small = tf.image.resize(image[None], (20, 28), antialias=True).numpy()
    detail = tf.image.resize(seen[0][None] - small, (40, 56)).numpy()
    second = seen[1] - image - detail[0]
    # What remains is one step, of mean 1.5.
    np.testing.assert_allclose(np.abs(second).mean(), 1.5, rtol=1e-2)
    assert np.abs(detail).mean() > 0.5


def test_same_seed_same_dream(network):
    image = picture()
    dream = DeepDream(network, "conv2", octaves=1, steps=2)
    np.testing.assert_array_equal(dream(image, seed=3), dream(image, seed=3))
    assert np.abs(dream(image, seed=3) - dream(image, seed=4)).max() > 1e-3


def test_channels_alone_count(network):
    dream = DeepDream(network, "conv2", channels=[2, 5])
    images = picture()[None]
    expected = (network(images).numpy()[..., [2, 5]] ** 2).mean() / 2
    np.testing.assert_allclose(dream.objective(images), expected, rtol=1e-5)


def test_layers_add_up(network):
    images = picture()[None]
    alone = [float(DeepDream(network, name).objective(images)) for name in ("conv1", "conv2")]
    both = DeepDream(network, ["conv1", "conv2"]).objective(images)
    np.testing.assert_allclose(both, sum(alone), rtol=1e-5)


def test_gradient_with_a_guide_is_its_best_match(network):
    """As in the notebook: each cell's gradient is the guide's cell with the largest product."""
    guide, image = picture(16, 20, seed=1), picture(12, 14)
    dream = DeepDream(network, "conv2", guide=guide)
    y = network(guide[None]).numpy().reshape(-1, 8)
    x = network(image[None]).numpy().reshape(-1, 8)
    products = np.array([[np.dot(a, b) for b in y] for a in x])
    np.testing.assert_allclose(dream.objective(image[None]), products.max(axis=1).mean(), rtol=1e-4)
    images = tf.constant(image[None])
    best = tf.constant(y[products.argmax(axis=1)].reshape(1, 6, 7, 8))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(images)
        value = dream.objective(images)
        expected = tf.reduce_sum(network(images) * best) / len(x)
    np.testing.assert_allclose(
        tape.gradient(value, images), tape.gradient(expected, images), rtol=1e-3, atol=1e-7
    )


def test_large_guides_are_thinned(network):
    dream = DeepDream(network, "conv1", guide=picture(60, 70))
    assert dream.guide[0].shape == (-(-60 * 70 // 5), 6)


def test_tiles_dream_nearly_as_the_whole(network):
    image = picture(48, 64)
    whole = DeepDream(network, "conv2", octaves=1, steps=8)(image)
    tiled = DeepDream(network, "conv2", octaves=1, steps=8, tile_size=32)(image)
    difference = np.corrcoef((whole - image).ravel(), (tiled - image).ravel())[0, 1]
    assert difference > 0.7


def test_octaves_too_small_fall_out(network):
    dream = DeepDream(network, "conv2", octaves=4, octave_scale=2.0, min_side=16)
    assert dream.sizes((40, 80)) == [(20, 40), (40, 80)]
    assert dream.sizes((8, 9)) == [(8, 9)]
    with pytest.raises(ValueError, match="1 x 5 pixels don't go through the layers to conv2"):
        dream(picture(1, 5))


def test_octaves_that_a_layer_cannot_take_fall_out(network):
    dream = DeepDream(network, "conv2", octaves=9, octave_scale=2.0, min_side=1)
    assert dream.sizes((8, 16)) == [(2, 4), (4, 8), (8, 16)]


def test_zoom(network):
    image = picture()
    dream = DeepDream(network, "conv2", octaves=1, steps=2)
    frames = list(dream.zoom(image, 2, scale=0.5, seed=1))
    np.testing.assert_array_equal(frames[0], dream(image, seed=1))
    box = [[0.25, 0.25, 0.75, 0.75]]
    enlarged = tf.image.crop_and_resize(frames[0][None], box, [0], (40, 56))[0]
    np.testing.assert_array_equal(frames[1], dream(enlarged, seed=2))
    # The corner of the crop lies a quarter of the way: at row 39 / 4 and column 55 / 4.
    rows = 0.25 * frames[0][9] + 0.75 * frames[0][10]
    corner = 0.25 * rows[13] + 0.75 * rows[14]
    np.testing.assert_allclose(enlarged[0, 0], corner, atol=0.01)


def test_grey_pictures():
    images = keras.Input((None, None, 1))
    model = keras.Model(images, layers.Conv2D(2, 3, name="conv")(images))
    made = DeepDream(model, "conv", octaves=1, steps=2)(picture()[..., :1])
    assert made.shape == (40, 56, 1)


@pytest.mark.slow
def test_xla(network):
    image = picture()
    plain, compiled = (
        DeepDream(network, "conv2", octaves=1, steps=2, tile_size=32, jit_compile=jit)(image)
        for jit in (False, True)
    )
    np.testing.assert_allclose(compiled, plain, atol=0.1)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"layer_names": ["conv1", "conv2"], "channels": [0]}, "channels: are of one layer"),
        ({"channels": [8]}, "channels: must be numbers from 0 to 7, .* conv2; received: \\[8\\]"),
        ({"channels": []}, "channels: must be numbers from 0 to 7"),
        ({"octaves": 0}, "octaves and steps: must be 1 or more; received: 0, 10"),
        ({"octave_scale": 1.0}, "octave_scale: must be above 1; received: 1.0"),
        ({"tile_size": 8}, "tile_size: must be 32 or more; received: 8"),
    ],
)
def test_mistakes(network, arguments, message):
    with pytest.raises(ValueError, match=message):
        DeepDream(network, **({"layer_names": "conv2"} | arguments))


def test_stages(network):
    assert stages(network) == ["conv1", "conv2"]
    vgg = backbones.vgg16((64, 64, 3), num_classes=2)
    convolutions = ["block1_conv2", "block2_conv2", "block3_conv3", "block4_conv3", "block5_conv3"]
    assert stages(vgg) == convolutions
