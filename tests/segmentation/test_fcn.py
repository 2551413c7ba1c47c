import keras
import numpy as np
import pytest

from kerasvision.segmentation import fcn8s, fcn16s, fcn32s

SMALL = {"units": 4, "dropout_rate": 0.0}


def trainable(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


@pytest.mark.slow  # 134 million weights are drawn, three times
def test_parameters_are_those_of_the_papers():
    assert trainable(fcn32s(21, (32, 32, 3))) == 134_346_581
    assert trainable(fcn16s(21, (32, 32, 3))) == 134_815_994
    assert trainable(fcn8s(21, (32, 32, 3))) == 134_489_759


def test_parameters_behind_vgg16():
    vgg, c, u = 14_714_688, 21, 4
    fully_connected = 49 * 512 * u + u + u * u + u
    expected = vgg + fully_connected + (u + 1) * c
    assert trainable(fcn32s(21, (32, 32, 3), units=4)) == expected
    expected += (512 + 1) * c + 4**2 * c**2
    assert trainable(fcn16s(21, (32, 32, 3), units=4)) == expected + 32**2 * c**2
    expected += (256 + 1) * c + 4**2 * c**2
    assert trainable(fcn8s(21, (32, 32, 3), units=4)) == expected + 16**2 * c**2


# Sizes at which nothing is rounded: the network's mirror image is the network of the mirror image.
@pytest.mark.parametrize("build", [fcn32s, fcn16s, fcn8s])
@pytest.mark.parametrize("padding, size", [(0, (64, 96)), (100, (56, 88))])
def test_all_scales_lie_over_each_other(build, padding, size):
    keras.utils.set_random_seed(0)
    model = build(2, (*size, 3), padding=padding, **SMALL)
    rng = np.random.default_rng(0)
    for layer in model.network.layers:
        if layer.weights and not layer.name.startswith("upsample"):
            kernel, bias = layer.get_weights()
            if not kernel.any():  # the scores
                kernel = rng.normal(size=kernel.shape)
            kernel = kernel + kernel[::-1]
            layer.set_weights([kernel + kernel[:, ::-1], bias])
    images = rng.uniform(0, 255, (1, *size, 3)).astype("float32")
    logits = np.asarray(model(images))
    assert logits.std() > 0
    turned = np.asarray(model(images[:, ::-1, ::-1]))[:, ::-1, ::-1]
    np.testing.assert_allclose(turned, logits, atol=1e-3 * np.abs(logits).max())


@pytest.mark.parametrize("padding", [0, 100])
def test_any_size_is_predicted_whole(padding):
    for size in ((45, 61), (90, 33)):
        assert fcn8s(3, (*size, 3), padding=padding, **SMALL).output_size == size


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "side"),  # two cells of the coarsest scores, or more
    [
        pytest.param(fcn32s, 64, marks=pytest.mark.slow),
        pytest.param(fcn16s, 32, marks=pytest.mark.slow),
        (fcn8s, 32),
    ],
)
def test_scores_start_at_zero_and_learn(make, side):
    keras.utils.set_random_seed(0)
    model = make(2, (side, side, 3), padding=0, **SMALL)
    images = np.random.default_rng(0).uniform(0, 255, (2, side, side, 3)).astype("float32")
    np.testing.assert_array_equal(np.asarray(model(images)), 0)
    batch = {"images": images, "segmentation_masks": np.zeros((2, side, side), "int32")}
    batch["segmentation_masks"][:, side // 2 :] = 1
    model.compile(keras.optimizers.Adam(3e-4))
    losses = model.fit(batch, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < 0.8 * losses[0]


def test_errors():
    with pytest.raises(ValueError, match="padding must be 0, or 96 or more; received: 50"):
        fcn8s(2, (64, 64, 3), padding=50)
