"""FaceNet: its network, its head on any backbone, and that it learns."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.backbones import cifar_resnet, lenet5
from kerasvision.embedding import FaceNet, embedding_network, facenet_nn2, load_embedding, mining

RNG = np.random.default_rng(0)


def network(side=16, **settings):
    keras.utils.set_random_seed(0)
    backbone = cifar_resnet((side, side, 3), include_top=False, depth=8, width=4)
    return embedding_network(backbone, 8, **settings)


def batch(people=4, pictures=3, side=16):
    """Everyone has a colour, every picture its noise."""
    labels = np.repeat(np.arange(people), pictures)
    colors = RNG.uniform(60, 195, (people, 1, 1, 3))[labels]
    images = colors + RNG.normal(0, 20, (len(labels), side, side, 3))
    return {"images": images.clip(0, 255).astype("float32"), "labels": labels}


def test_nn2_is_that_of_table_2():
    model = facenet_nn2()
    assert model.count_params() == 7_456_304
    sizes = {
        name: model.get_layer(name).output.shape[1:]
        for name in ("conv1", "pool1", "pool2", "inception_3a", "inception_3b", "inception_3c",
                     "inception_4a", "inception_4d", "inception_4e", "inception_5b")
    }  # fmt: skip
    assert sizes == {
        "conv1": (112, 112, 64), "pool1": (56, 56, 64), "pool2": (28, 28, 192),
        "inception_3a": (28, 28, 256), "inception_3b": (28, 28, 320),
        "inception_3c": (14, 14, 640), "inception_4a": (14, 14, 640),
        "inception_4d": (14, 14, 640), "inception_4e": (7, 7, 1024),
        "inception_5b": (7, 7, 1024),
    }  # fmt: skip
    # The column "params" of the table, in thousands.
    for module, count in {"3a": 164, "3b": 228, "3c": 398, "4a": 545, "4d": 722, "4e": 717}.items():
        parts = [x for x in model.layers if x.name.startswith(f"inception_{module}_")]
        assert sum(x.count_params() for x in parts) / 1000 == pytest.approx(count, abs=1.0), module


def test_nn2_tells_pictures_apart_before_it_has_learnt():
    keras.utils.set_random_seed(0)
    model = facenet_nn2((None, None, 3), 16)
    f = ops.convert_to_numpy(model(batch(2, 2, 64)["images"]))
    np.testing.assert_allclose(np.linalg.norm(f, axis=-1), 1.0, atol=1e-5)
    distances = ((f[:, None] - f[None]) ** 2).sum(-1)
    assert distances[0, 2] > 1e-4 and distances[0, 1] < distances[0, 2]


@pytest.mark.parametrize(
    "settings, parameters",
    [({}, 16 * 8 + 8), ({"pooling": "flatten"}, 4 * 4 * 16 * 8 + 8)],
)
def test_the_head_adds_one_layer(settings, parameters):
    backbone = cifar_resnet((16, 16, 3), include_top=False, depth=8, width=4)
    model = embedding_network(backbone, 8, **settings)
    assert model.count_params() - backbone.count_params() == parameters
    f = ops.convert_to_numpy(model(batch()["images"]))
    np.testing.assert_allclose(np.linalg.norm(f, axis=-1), 1.0, atol=1e-5)


def test_other_endings():
    images = batch()["images"]
    f = ops.convert_to_numpy(network(ending="linear")(images))
    unit = ops.convert_to_numpy(network()(images))
    bounded = ops.convert_to_numpy(network(ending="sigmoid")(images))
    np.testing.assert_allclose(unit, f / np.linalg.norm(f, axis=1, keepdims=True), atol=1e-5)
    np.testing.assert_allclose(bounded, 1 / (1 + np.exp(-f)), atol=1e-5)
    vectors = lenet5((32, 32, 1), num_classes=5, classifier_activation=None)
    assert embedding_network(vectors, 3).output_shape == (None, 3)


def test_mistakes_are_told():
    anysize = cifar_resnet((None, None, 3), include_top=False, depth=8)
    with pytest.raises(ValueError, match="pooling must be average for maps of any size"):
        embedding_network(anysize, pooling="flatten")
    with pytest.raises(ValueError, match="pooling must be average or flatten; received: max"):
        embedding_network(anysize, pooling="max")
    with pytest.raises(ValueError, match="ending must be unit_length"):
        embedding_network(anysize, ending="relu")
    with pytest.raises(ValueError, match="loss must be one of semi_hard"):
        FaceNet(network(), "hardest")
    with pytest.raises(ValueError, match="must give embeddings"):
        FaceNet(anysize)


@pytest.mark.parametrize(
    "loss",
    [m if m == "semi_hard" else pytest.param(m, marks=pytest.mark.slow) for m in mining.MINERS],
)
def test_facenet_learns_a_batch(loss):
    data = batch()
    model = FaceNet(network(), loss)
    model.compile(keras.optimizers.Adam(0.01))
    history = [model.train_on_batch(data, return_dict=True) for _ in range(12)]
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    found = model.test_on_batch(data, return_dict=True)
    assert set(found) == {"loss", "active"} and 0.0 <= found["active"] <= 1.0


def test_reported_is_the_mined_loss():
    data = batch()
    model = FaceNet(network(), "batch_hard", alpha=0.4)
    model.compile("sgd")
    loss, active = mining.batch_hard(model(data), data["labels"], 0.4)
    found = model.test_on_batch(data, return_dict=True)
    assert found["loss"] == pytest.approx(float(loss)) and loss > 0
    assert found["active"] == pytest.approx(float(active))
    data["labels"] = np.zeros_like(data["labels"])
    before = model.network.get_weights()[0].copy()
    assert model.train_on_batch(data, return_dict=True) == {"loss": 0.0, "active": 0.0}
    np.testing.assert_array_equal(model.network.get_weights()[0], before)


def test_facenet_survives_a_file(tmp_path):
    data = batch()
    model = FaceNet(network(), "batch_all", 0.3, seed=4)
    model.save(tmp_path / "model.keras")
    loaded = load_embedding(tmp_path / "model.keras")
    assert (loaded.mined_loss, loaded.alpha, loaded.seed) == ("batch_all", 0.3, 4)
    np.testing.assert_allclose(loaded.predict(data, verbose=0), model.predict(data, verbose=0))
    assert loaded.image_shape == (16, 16, 3)
    other = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    other.save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match="must hold an embedding; received: Sequential"):
        load_embedding(tmp_path / "other.keras")
