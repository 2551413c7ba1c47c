"""What generators make, drawn and measured."""

import keras
import numpy as np
import PIL.Image
import pytest

from kerasvision.generative import Pix2Pix, cyclegan, dcgan, evaluation, pix2pix


class Constant(keras.layers.Layer):
    """Pictures plus a number."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def call(self, x):
        return keras.ops.clip(x + self.number, 0.0, 255.0)


def adds(number):
    images = keras.Input((32, 32, 3))
    return keras.Model(images, Constant(number)(images))


def grey(*values):
    return np.ones((len(values), 32, 32, 3), "uint8") * np.reshape(values, (-1, 1, 1, 1))


def test_pixels_are_rounded_and_clipped_and_get_three_channels():
    found = evaluation.to_pixels(np.reshape([-3.0, 0.6, 254.4, 300.0], (1, 2, 2, 1)))
    assert found.dtype == np.uint8 and found.shape == (1, 2, 2, 3)
    np.testing.assert_array_equal(found[0, ..., 1], [[0, 1], [254, 255]])


def test_inputs_have_the_size_of_the_network():
    network = dcgan((16, 16, 3), 5, 4).D
    images = np.zeros((1, 32, 32, 1), "uint8")
    images[:, :16] = 200
    found = evaluation.to_inputs(network, images)
    assert found.shape == (1, 16, 16, 3)
    np.testing.assert_allclose(found[0, [2, 13], 5], [[200] * 3, [0] * 3], atol=1e-3)
    np.testing.assert_array_equal(evaluation.to_inputs(network, found.round()), found.round())


def test_tiles_go_from_left_to_right_and_down():
    images = np.arange(5, dtype="uint8").reshape(5, 1, 1, 1) * np.ones((5, 32, 32, 3), "uint8")
    sheet = evaluation.tile(images, 3)
    # Enlarged to 64 pixels, with 2 in grey between them.
    assert sheet.shape == (64 + 2 + 64, 64 + 2 + 64 + 2 + 64, 3)
    rows, columns = np.meshgrid([0, 63, 64, 66, 129], [0, 63, 65, 66, 132, 195], indexing="ij")
    expected = [
        [0, 0, 128, 1, 2, 2],
        [0, 0, 128, 1, 2, 2],
        [128] * 6,
        [3, 3, 128, 4, 128, 128],
        [3, 3, 128, 4, 128, 128],
    ]
    np.testing.assert_array_equal(sheet[rows, columns, 0], expected)
    large = evaluation.tile(np.ones((2, 100, 80, 3), "uint8"), 2)
    assert large.shape == (100, 162, 3)


def test_interpolations_begin_and_end_with_the_pictures_of_two_noises():
    gan = dcgan((16, 16, 1), 5, 4)
    sheet = evaluation.interpolations(gan, rows=3, steps=4, seed=7)
    assert sheet.shape == (3 * 66 - 2, 4 * 66 - 2, 3)
    for seed, column in ((7, 0), (8, 3)):
        expected = evaluation.to_pixels(gan.predict(gan.latent(3, seed), verbose=0))
        for row in range(3):
            found = sheet[66 * row :, 66 * column :][:64:4, :64:4]
            assert np.abs(found.astype(int) - expected[row]).max() <= 1


def test_animation_has_the_sheets_in_order(tmp_path):
    (tmp_path / "samples").mkdir()
    for epoch in (1, 2, 10):
        picture = PIL.Image.fromarray(np.full((4, 4, 3), 20 * epoch, "uint8"))
        picture.save(tmp_path / f"samples/epoch_{epoch:04d}.png")
    evaluation.animate(tmp_path, tmp_path / "training.gif")
    with PIL.Image.open(tmp_path / "training.gif") as gif:
        shades = []
        for frame in range(gif.n_frames):
            gif.seek(frame)
            shades.append(gif.convert("RGB").getpixel((0, 0))[0])
    assert shades == [20, 40, 200]


def test_distance_of_translations():
    model = pix2pix((32, 32, 3), filters=4)
    model = Pix2Pix(adds(10.0), model.D)
    batches = [{"x": grey(10, 20), "y": grey(20, 30)}, {"x": grey(5), "y": grey(25)}]
    found = evaluation.translation_metrics(model, batches)
    assert found["l1"] == pytest.approx(10 / 3 / 127.5)
    assert found["psnr"] == pytest.approx(10 * np.log10(255**2 / (100 / 3)))


def test_errors_of_cycles_and_of_pairs():
    model = cyclegan((32, 32, 3), 1, 4)
    model.G, model.F = adds(10.0), adds(-4.0)
    batches = [{"x": grey(50, 60), "y": grey(70, 80)}, {"x": grey(100), "y": grey(150)}]
    found = evaluation.cycle_metrics(model, batches, paired=True)
    expected = {"cycle_x": 6, "cycle_y": 6, "to_y": 20, "to_x": (16 + 16 + 46) / 3, "unchanged": 30}
    assert found == pytest.approx({name: value / 127.5 for name, value in expected.items()})
    assert set(evaluation.cycle_metrics(model, batches, paired=False)) == {"cycle_x", "cycle_y"}
    assert evaluation.format_cycle(found).splitlines()[0].split() == [
        "x",
        "and",
        "F(G(x))",
        "0.047",
    ]


def test_frechet_distance_of_a_generator_that_makes_what_is_real():
    """Features are the mean colours; noise is turned to the very pictures they come from."""
    images = keras.Input((16, 16, 3))
    embedder = keras.Model(images, keras.layers.GlobalAveragePooling2D()(images))
    gan = dcgan((16, 16, 1), 5, 4)
    real = gan.predict(gan.latent(60, seed=0), verbose=0)
    distance = evaluation.FrechetDistance(embedder, [real[:40], real[40:]])
    assert distance.count == 60
    assert distance(gan, seed=0, batch_size=25) == pytest.approx(0.0, abs=1e-3)
    brighter = evaluation.FrechetDistance(embedder, [np.minimum(real + 10, 255)])
    assert brighter(gan) == pytest.approx(3 * 10**2, rel=0.05)


def test_warns_once_of_a_discriminator_without_loss(capsys):
    warn = evaluation.WarnOfCollapse("discriminator_x", "more pictures", threshold=0.1, epochs=2)
    for loss in (0.05, 0.5, 0.05, 0.01):
        assert not capsys.readouterr().out
        warn.on_epoch_end(0, {"discriminator_x": loss})
    line = capsys.readouterr().out
    assert line == (
        "warning: discriminator_x has been below 0.1 for 2 epochs: the generator hardly learns; "
        "try more pictures\n"
    )
    warn.on_epoch_end(0, {"discriminator_x": 0.0})
    assert not capsys.readouterr().out
