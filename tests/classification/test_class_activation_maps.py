import keras
import numpy as np
import pytest
from keras import layers

from kerasvision.classification.class_activation_maps import (
    box_of_heat_map,
    class_activation_maps,
    heat_maps,
)

RNG = np.random.default_rng(0)


def pictures(count=3):
    return RNG.uniform(0, 255, (count, 20, 16, 3)).astype("float32")


def network(activation=None, dropout=False):
    images = keras.Input((20, 16, 3), name="images")
    x = layers.Rescaling(1 / 128, -1.0)(images)
    x = layers.Conv2D(7, 3, 2, padding="same", activation="relu", name="features")(x)
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    if dropout:
        x = layers.Dropout(0.5)(x)
    x = layers.Dense(4, activation=activation, name="predictions")(x)
    model = keras.Model(images, x)
    for weight in model.weights:
        weight.assign(RNG.normal(size=tuple(weight.shape)))
    return model


def test_maps_are_the_weighted_features():
    """Equation 2 of the paper, cell by cell and channel by channel."""
    model = network()
    images = pictures()
    maps = class_activation_maps(model).predict_on_batch(images)
    features = keras.Model(model.input, model.get_layer("features").output).predict_on_batch(images)
    kernel = model.get_layer("predictions").kernel.numpy()
    assert maps.shape == (3, 10, 8, 4)
    for picture, y, x, label in np.ndindex(maps.shape):
        expected = sum(
            kernel[k, label] * features[picture, y, x, k] for k in range(features.shape[-1])
        )
        assert maps[picture, y, x, label] == pytest.approx(expected, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("dropout", [False, True])
def test_mean_and_bias_are_the_logit(dropout):
    model = network(dropout=dropout)
    images = pictures()
    maps = class_activation_maps(model).predict_on_batch(images)
    bias = model.get_layer("predictions").bias.numpy()
    np.testing.assert_allclose(
        maps.mean(axis=(1, 2)) + bias, model.predict_on_batch(images), rtol=1e-4, atol=1e-4
    )


def test_an_activation_behind_the_scores_changes_nothing():
    model, images = network(), pictures()
    softmax = keras.Model(model.input, layers.Softmax()(model.output))
    expected = class_activation_maps(model).predict_on_batch(images)
    received = class_activation_maps(softmax).predict_on_batch(images)
    np.testing.assert_array_equal(received, expected)


def test_network_of_score_maps_is_its_own_map():
    """As in Network in Network: a channel for each class, averaged."""
    images = keras.Input((20, 16, 3))
    scores = layers.Conv2D(4, 3, name="predictions")(images)
    pooled = layers.GlobalAveragePooling2D(name="avg_pool")(scores)
    model = keras.Model(images, layers.Softmax()(pooled))
    batch = pictures()
    maps = class_activation_maps(model).predict_on_batch(batch)
    np.testing.assert_allclose(maps, keras.Model(images, scores).predict_on_batch(batch), rtol=1e-6)
    logits = keras.Model(images, pooled).predict_on_batch(batch)
    np.testing.assert_allclose(maps.mean(axis=(1, 2)), logits, rtol=1e-3, atol=1e-3)


def test_maps_survive_a_file(tmp_path):
    model = class_activation_maps(network())
    model.save(tmp_path / "maps.keras")
    images = pictures()
    np.testing.assert_allclose(
        keras.models.load_model(tmp_path / "maps.keras").predict_on_batch(images),
        model.predict_on_batch(images),
        rtol=1e-6,
    )


def test_networks_without_class_activation_maps():
    images = keras.Input((4, 4, 3))
    flat = layers.Dense(2, name="fc")(layers.Flatten(name="flatten")(images))
    with pytest.raises(ValueError, match="must have global average pooling .* flatten, fc"):
        class_activation_maps(keras.Model(images, flat))
    x = layers.GlobalAveragePooling2D(name="avg_pool")(images)
    x = layers.Dense(2, name="fc2")(layers.Dense(2, name="fc1")(x))
    with pytest.raises(ValueError, match="at most one Dense .* avg_pool, fc1, fc2"):
        class_activation_maps(keras.Model(images, x))


def test_heat_maps_are_bilinear_with_the_middles_of_cells_in_place():
    maps = np.array([[[0.0, 8.0], [4.0, 0.0]]], "float32")[:, None, :, :]  # 1 x 1 x 2 cells x ...
    maps = maps.reshape(1, 2, 2, 1)
    large = heat_maps(maps, 4, 8)
    assert large.shape == (1, 4, 8, 1)
    # Rows at cells -0.25, 0.25, 0.75, 1.25, columns at -0.375, -0.125, 0.125, …; cut off to [0, 1].
    rows = np.clip((np.arange(4) + 0.5) / 2 - 0.5, 0, 1)
    columns = np.clip((np.arange(8) + 0.5) / 4 - 0.5, 0, 1)
    for i, y in enumerate(rows):
        for j, x in enumerate(columns):
            expected = (1 - y) * x * 8.0 + y * (1 - x) * 4.0
            assert large[0, i, j, 0] == pytest.approx(expected, abs=1e-5)


def test_heat_maps_of_several_classes():
    maps = RNG.normal(size=(2, 3, 4, 6)).astype("float32")
    large = heat_maps(maps, 30, 20)
    assert large.shape == (2, 30, 20, 6)
    for label in range(6):
        np.testing.assert_allclose(
            large[..., label], heat_maps(maps[..., label : label + 1], 30, 20)[..., 0], atol=1e-5
        )


def heat(*rows):
    return np.array([[float(cell) for cell in row] for row in rows])


@pytest.mark.parametrize(
    ("heat_map", "expected"),
    [
        # Above 20 % of 9: at least 2. The larger component wins, not the hotter one.
        (heat("00000000", "09100220", "00000220", "00000022"), [1, 5, 4, 8]),
        # Connected by a corner.
        (heat("90000000", "02000000", "00100000", "00000000"), [0, 0, 2, 2]),
        (heat("99999999", "99999999", "99999999", "99999999"), [0, 0, 4, 8]),
        (heat("00000000", "00000000", "00000000", "00000001"), [3, 7, 4, 8]),
        # Nothing speaks for the class: the whole picture.
        (heat("00000000", "00000000", "00000000", "00000000"), [0, 0, 4, 8]),
        (-heat("12345678", "12345678", "12345678", "12345678"), [0, 0, 4, 8]),
    ],
)
def test_box_of_the_largest_hot_component(heat_map, expected):
    np.testing.assert_allclose(box_of_heat_map(heat_map), np.array(expected) / [4, 8, 4, 8])


def test_box_at_another_threshold():
    np.testing.assert_allclose(box_of_heat_map(heat("0980", "0550"), 0.6), [0, 0.25, 0.5, 0.75])
