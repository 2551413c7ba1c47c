"""pix2pix: its networks, its patches, its step."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasvision.generative import Pix2Pix, pix2pix
from kerasvision.generative.pix2pix import patch_discriminator, unet_generator


def count(network):
    return sum(int(np.prod(v.shape)) for v in network.trainable_variables)


def small(**settings):
    return pix2pix((32, 48, 3), filters=4, **settings)


def compiled(**settings):
    keras.utils.set_random_seed(0)
    model = small(**settings)
    model.compile(keras.optimizers.Adam(2e-3, 0.5), keras.optimizers.Adam(2e-3, 0.5))
    return model


def batch(number, seed=0):
    """Pictures x, and y, their negatives."""
    x = np.random.default_rng(seed).integers(0, 256, (number, 4, 6, 3)).astype("uint8")
    x = x.repeat(8, axis=1).repeat(8, axis=2)
    return {"x": x, "y": 255 - x}


def test_parameters_of_the_paper():
    model = pix2pix()
    assert (count(model.G), count(model.D)) == (54_413_955, 2_768_705)
    assert model.D.output_shape == (None, 30, 30, 1)


def receptive_field(discriminator):
    """Rows and columns that a score depends on; norms, which see all of a map, are left out."""
    shape = (256, 256, 6)
    x = images = keras.Input(shape)
    for layer in discriminator.layers[1:]:
        if not isinstance(layer, keras.layers.GroupNormalization):
            x = layer(x)
    scores = keras.Model(images, x)
    seen = tf.Variable(tf.random.stateless_uniform((1, *shape), (0, 1), 0, 255))
    with tf.GradientTape() as tape:
        found = scores(seen)
        middle = found[0, found.shape[1] // 2, found.shape[2] // 2, 0]
    slopes = np.abs(tape.gradient(middle, seen).numpy()).sum((0, 3)) > 0
    rows, columns = np.flatnonzero(slopes.any(1)), np.flatnonzero(slopes.any(0))
    assert slopes[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    return len(rows), len(columns)


@pytest.mark.parametrize("strided_layers, side", [(1, 16), (2, 34), (3, 70)])
def test_patches_have_the_papers_size(strided_layers, side):
    discriminator = patch_discriminator((256, 256, 6), 4, strided_layers)
    assert receptive_field(discriminator) == (side, side)


def test_generator_sees_each_of_its_maps():
    generator = unet_generator((64, 96, 3), 1, 4)
    assert generator.output_shape == (None, 64, 96, 1)
    # 96 is 32 times 3: five halvings, to 2 x 3.
    assert generator.get_layer("down4").output.shape == (None, 2, 3, 32)
    for step in range(4):
        skip = generator.get_layer(f"up{step + 1}_concat").input[1]
        assert skip.shape[1:3] == (64 >> (step + 1), 96 >> (step + 1))
    with pytest.raises(ValueError, match="sides that 16 divides; received: \\(40, 64, 3\\)"):
        unet_generator((40, 64, 3))


def test_discriminator_may_see_y_alone():
    assert small().conditional and not small(conditional=False).conditional
    with pytest.raises(ValueError, match="of 3 channels, or x and y, 6; received: 5"):
        Pix2Pix(unet_generator((32, 32, 3), 3, 4), patch_discriminator((32, 32, 5), 4))


def test_loss_is_that_of_the_paper():
    """Without dropout, whose draws differ: cross-entropies, and lambda times the distance."""
    model = compiled(l1_weight=7.0)
    for layer in model.G.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    data = batch(2)
    x, y = (data[name].astype("float32") for name in "xy")
    model.compile(keras.optimizers.SGD(0.0), keras.optimizers.SGD(0.0))
    logs = {name: float(value) for name, value in model.train_step(data).items()}
    fake = model.G(x, training=True).numpy()

    def scores(y):
        logits = model.D(np.concatenate([x, y], -1), training=True).numpy()
        return 1 / (1 + np.exp(-logits.astype("float64")))

    l1 = np.abs(y - fake).mean() / 127.5
    adversarial = -np.log(scores(fake)).mean()
    assert logs["l1"] == pytest.approx(l1, rel=1e-4)
    assert logs["generator_loss"] == pytest.approx(adversarial + 7 * l1, rel=1e-4)
    expected = -0.5 * (np.log(scores(y)).mean() + np.log(1 - scores(fake)).mean())
    assert logs["discriminator_loss"] == pytest.approx(expected, rel=1e-4)
    assert logs["real_score"] == pytest.approx(scores(y).mean(), rel=1e-4)


def test_without_an_adversary_the_discriminator_stays():
    model = compiled(adversarial_weight=0.0)
    before = [w.copy() for w in model.D.get_weights()]
    model.fit(tf.data.Dataset.from_tensors(batch(2)).repeat(3), verbose=0)
    for a, b in zip(before, model.D.get_weights()):
        np.testing.assert_array_equal(a, b)


def test_negatives_can_be_learnt(tmp_path):
    model = compiled()
    batches = tf.data.Dataset.from_tensor_slices(batch(32)).batch(4).repeat()
    history = model.fit(batches, epochs=12, steps_per_epoch=8, verbose=0).history
    assert history["l1"][-1] < 0.6 * history["l1"][0]
    held_out = batch(4, seed=1)
    made = model.predict(held_out["x"], verbose=0)
    assert np.abs(made - held_out["y"]).mean() < 0.5 * np.abs(127.5 - held_out["y"]).mean()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(held_out["x"], verbose=0), made)
