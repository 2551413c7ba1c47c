import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers, ops

from kerasvision.classification import Classifier, load_classifier

NAMES = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu"]


def network(num_classes=7, auxiliary=False, activation=None, side=12):
    """A small network with batch normalisation, whose embedding is an averaged map."""
    images = keras.Input((side, side, 3), name="images")
    x = layers.Rescaling(1 / 127.5, -1.0)(images)
    x = layers.Conv2D(4, 3, strides=2, activation="relu")(x)
    maps = layers.BatchNormalization(momentum=0.5)(x)
    x = layers.GlobalAveragePooling2D(name="avg_pool")(maps)
    logits = layers.Dense(num_classes, activation, dtype="float32", name="predictions")(x)
    if not auxiliary:
        return keras.Model(images, logits, name="tiny")
    heads = {"predictions": logits}
    for i in (1, 2):
        heads[f"auxiliary{i}"] = layers.Dense(num_classes, dtype="float32", name=f"aux{i}")(
            layers.Flatten()(x if i == 1 else maps)
        )
    return keras.Model(images, heads, name="tiny")


def batch(count=6, num_classes=7, side=12, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "images": rng.uniform(0, 255, (count, side, side, 3)).astype("float32"),
        "labels": rng.integers(0, num_classes, count).astype("int32"),
        "image_ids": np.arange(count),
    }


def reference_loss(heads, labels, smoothing=0.0, auxiliary_weight=0.0):
    """Szegedy et al. 2015, section 7, picture by picture and class by class."""
    total = 0.0
    for name, logits in heads.items():
        weight = 1.0 if name == "predictions" else auxiliary_weight
        for row, label in zip(np.asarray(logits, "float64"), labels):
            for k, z in enumerate(row):
                q = label[k] if np.ndim(label) else float(k == label)
                q = (1 - smoothing) * q + smoothing / len(row)
                total -= weight * q * (z - np.log(np.exp(row).sum()))
    return total / len(labels)


def random_heads(count=6, num_classes=7, names=("predictions", "auxiliary1", "auxiliary2")):
    rng = np.random.default_rng(1)
    return {name: 3 * rng.normal(size=(count, num_classes)).astype("float32") for name in names}


@pytest.mark.parametrize("mixed", [False, True], ids=["integers", "probabilities"])
def test_loss_equals_reference(mixed):
    model = Classifier(network(auxiliary=True), NAMES, label_smoothing=0.1, auxiliary_weight=0.4)
    data, heads = batch(), random_heads()
    if mixed:
        data["labels"] = np.random.default_rng(2).dirichlet(np.ones(7), 6).astype("float32")
    raw = {name: ops.convert_to_tensor(value) for name, value in heads.items()}
    loss = float(model.compute_loss(data, None, raw))
    assert loss == pytest.approx(reference_loss(heads, data["labels"], 0.1, 0.4), rel=1e-5)
    # Without smoothing and auxiliary heads where it is measured.
    loss = float(model.compute_loss(data, None, raw, training=False))
    main = {"predictions": heads["predictions"]}
    assert loss == pytest.approx(reference_loss(main, data["labels"]), rel=1e-5)


def test_loss_by_hand():
    model = Classifier(network(2))
    logits = ops.convert_to_tensor(np.log([[0.25, 0.75], [0.5, 0.5]]).astype("float32"))
    labels = np.array([1, 0])
    expected = -(np.log(0.75) + np.log(0.5)) / 2
    assert float(model.compute_loss({}, labels, logits)) == pytest.approx(expected, rel=1e-6)
    weights = np.array([2.0, 0.0])
    loss = float(model.compute_loss({}, labels, logits, weights))
    assert loss == pytest.approx(-np.log(0.75), rel=1e-6)


def test_loss_of_large_half_precision_logits_is_finite():
    model = Classifier(network(2))
    logits = ops.cast(np.array([[-3e4, 3e4], [200.0, -200.0]]), "bfloat16")
    assert float(model.compute_loss({}, np.array([1, 0]), logits)) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("label", [-1, 7])
def test_a_label_that_is_no_class_makes_the_loss_nan(label):
    model = Classifier(network())
    loss = model.compute_loss({}, np.array([0, label]), ops.zeros((2, 7)))
    assert np.isnan(float(loss))


def test_metrics_equal_reference():
    model = Classifier(network(auxiliary=True), NAMES)
    heads = random_heads(200)
    labels = np.random.default_rng(3).integers(0, 7, 200)
    order = np.argsort(-heads["predictions"], axis=-1)
    rank = np.argmax(order == labels[:, None], axis=-1)
    logits = {name: ops.convert_to_tensor(value) for name, value in heads.items()}
    for given in (labels, np.eye(7, dtype="f4")[labels]):
        model.reset_metrics()
        found = model.compute_metrics({"labels": given}, None, logits)
        assert float(found["accuracy"]) == pytest.approx(np.mean(rank < 1), abs=1e-6)
        assert float(found["top5"]) == pytest.approx(np.mean(rank < 5), abs=1e-6)


def test_top5_is_reported_where_there_are_more_classes():
    for num_classes, names in [(5, {"accuracy", "loss"}), (6, {"accuracy", "loss", "top5"})]:
        model = Classifier(network(num_classes))
        model.compile("sgd")
        assert set(model.test_on_batch(batch(num_classes=5), return_dict=True)) == names


def test_batches_as_dictionaries_and_as_pairs_train_alike():
    losses = []
    for i in range(2):
        keras.utils.set_random_seed(0)
        model = Classifier(network(), NAMES)
        model.compile(keras.optimizers.SGD(0.1))
        data = batch()
        inputs = (data,) if i == 0 else (data["images"], data["labels"])
        losses.append([model.train_on_batch(*inputs) for _ in range(5)])
        assert losses[-1][-1][0] < losses[-1][0][0]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_predictions_embeddings_and_their_weights():
    model = Classifier(network(auxiliary=True), NAMES)
    images = batch()["images"]
    logits = ops.convert_to_numpy(model(images)["predictions"])
    expected = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    for x in (images, batch(), images.astype("float64")):
        np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-6)
    np.testing.assert_allclose(model.predict_on_batch(images), expected, atol=1e-6)
    # The auxiliary heads are gone.
    heads = (4 + 1) * 7 + (5 * 5 * 4 + 1) * 7
    assert model.predictor.count_params() == model.count_params() - heads
    kernel, bias = model.network.get_layer("predictions").get_weights()
    embeddings = model.embedder.predict(images, verbose=0)
    np.testing.assert_allclose(embeddings @ kernel + bias, logits, atol=1e-5)


def test_embedding_of_a_map_is_its_average():
    images = keras.Input((12, 12, 3))
    maps = layers.Conv2D(4, 3, name="last")(images)
    x = layers.Conv2D(3, 1, name="predictions")(maps)
    model = Classifier(keras.Model(images, layers.GlobalAveragePooling2D()(x)))
    inputs = batch()["images"]
    expected = keras.Model(images, maps).predict(inputs, verbose=0).mean(axis=(1, 2))
    np.testing.assert_allclose(model.embedder.predict(inputs, verbose=0), expected, rtol=1e-5)


def test_predict_takes_datasets():
    import tensorflow as tf

    model = Classifier(network(), NAMES)
    data = batch()
    expected = model.predict(data["images"], verbose=0)
    pairs = (data["images"], data["labels"])
    for tensors in (data, pairs, data["images"]):
        dataset = tf.data.Dataset.from_tensor_slices(tensors).batch(4)
        np.testing.assert_allclose(model.predict(dataset, verbose=0), expected, atol=1e-6)


def test_keras_and_savedmodel_round_trips(tmp_path):
    import tensorflow as tf

    model = Classifier(network(auxiliary=True), NAMES, label_smoothing=0.1, auxiliary_weight=0.4)
    images = np.random.default_rng(1).integers(0, 256, (3, 12, 12, 3), "uint8")
    expected = model.predict(images, verbose=0)  # makes the predictor, which must not be saved
    model.save(tmp_path / "model.keras")
    loaded = load_classifier(tmp_path / "model.keras")
    assert loaded.class_names == NAMES and loaded.image_shape == (12, 12, 3)
    assert (loaded.label_smoothing, loaded.auxiliary_weight) == (0.1, 0.4)
    assert loaded.count_params() == model.count_params()
    np.testing.assert_array_equal(loaded.predict(images, verbose=0), expected)
    model.export(tmp_path / "saved", verbose=False)
    exported = tf.saved_model.load(str(tmp_path / "saved"))
    np.testing.assert_allclose(exported.serve(images).numpy(), expected, atol=1e-6)


def test_xla_and_graph_losses_are_equal():
    import tensorflow as tf

    model = Classifier(network(auxiliary=True), NAMES, label_smoothing=0.1)
    data = batch()

    def loss():
        return model.compute_loss(data, None, model(data["images"], training=False))

    np.testing.assert_allclose(loss(), tf.function(loss, jit_compile=True)(), rtol=1e-5)


SCRIPT = """
import json
import numpy as np, tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
from kerasvision.classification import Classifier
from kerasvision.training import strategy

batch = {
    "images": np.random.default_rng(0).uniform(0, 9, (4, 8, 8, 3)).astype("float32"),
    "labels": np.array([0, 3, 6, 3], "int32"),
}
for name in ("none", "mirrored"):
    keras.utils.set_random_seed(0)
    devices = strategy.make_strategy(name)
    with devices.scope():
        images = keras.Input((8, 8, 3))
        x = keras.layers.Conv2D(4, 3, kernel_regularizer=keras.regularizers.L2(0.1))(images)
        x = keras.layers.GlobalAveragePooling2D()(x)
        model = Classifier(keras.Model(images, keras.layers.Dense(7, name="predictions")(x)))
        model.compile(keras.optimizers.SGD(1e-3, momentum=0.9))
    dataset = tf.data.Dataset.from_tensors(batch).repeat(3)
    history = model.fit(dataset, epochs=2, shuffle=False, verbose=0).history
    norms = [float(np.abs(w).sum()) for w in model.get_weights()]
    print(json.dumps([devices.num_replicas_in_sync, history, norms]))
"""


@pytest.mark.slow
def test_two_replicas_compute_what_one_device_computes():
    result = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    one, two = (json.loads(line) for line in result.stdout.splitlines()[-2:])
    assert (one[0], two[0]) == (1, 2)
    for name, values in one[1].items():
        assert two[1][name] == pytest.approx(values, rel=1e-4), name
    assert two[2] == pytest.approx(one[2], rel=1e-4)


def test_clear_errors(tmp_path):
    with pytest.raises(ValueError, match="class_names must be 7 names.*received: 2"):
        Classifier(network(), ["a", "b"])
    with pytest.raises(ValueError, match="classifier_activation=None.*predictions behind a softm"):
        Classifier(network(activation="softmax"))
    with pytest.raises(ValueError, match=r"must give logits \(B, C\).*avg_pool"):
        tiny = network()
        maps = {"avg_pool": tiny.get_layer("avg_pool").output}
        Classifier(keras.Model(tiny.input, maps))
    with pytest.raises(ValueError, match=r"must give logits.*\(None, 5, 5, 4\)"):
        Classifier(keras.Model(tiny.input, tiny.layers[-3].output))
    with pytest.raises(ValueError, match=r"label_smoothing must be in \[0, 1\); received: 1.0"):
        Classifier(network(), label_smoothing=1.0)
    model = Classifier(network())
    for labels in (np.zeros((6, 6), "f4"), np.zeros(6, "f4"), np.zeros((6, 1), "int32")):
        with pytest.raises(ValueError, match=r"labels must be \(B,\) integers or \(B, 7\)"):
            model.compute_loss({}, labels, ops.zeros((6, 7)))
    network().save(tmp_path / "network.keras")
    with pytest.raises(ValueError, match="network.keras: must hold a Classifier; received: Func"):
        load_classifier(tmp_path / "network.keras")
    (tmp_path / "broken.keras").write_bytes(b"PK")
    with pytest.raises(ValueError, match="broken.keras: can't be loaded; received: "):
        load_classifier(tmp_path / "broken.keras")
    with pytest.raises(ValueError, match="/nowhere: expected a run folder.*nothing there"):
        load_classifier("/nowhere")
