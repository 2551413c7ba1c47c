import collections

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from kerasvision.backbones.mobilenet_v2 import mobilenet_v2
from kerasvision.classification import Classifier
from kerasvision.export import (
    LiteRTClassifier,
    LiteRTDetector,
    LiteRTEmbedder,
    export_litert_classifier,
    export_litert_embedder,
    litert,
)


def count_operators(path):
    """How often each operator stands in a .tflite file."""
    names = {number: name for name, number in vars(schema.BuiltinOperator).items()}
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    codes = [names[max(c.builtinCode, c.deprecatedBuiltinCode)] for c in model.operatorCodes]
    return collections.Counter(codes[o.opcodeIndex] for o in model.subgraphs[0].operators)


def cosine(a, b):
    return np.sum(a * b, axis=-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


@pytest.mark.parametrize(
    "precision, tolerance", [("float32", 1e-5), ("float16", 1e-3), ("int8", 0.03)]
)
def test_probabilities_are_those_of_keras(
    classifier, classifier_files, pictures, precision, tolerance
):
    expected = classifier.predict_on_batch(pictures)
    assert (expected[[0, 1, 2, 3], [0, 1, 0, 1]] > 0.7).all()
    exported = LiteRTClassifier(classifier_files[precision], num_threads=2)
    assert exported.class_names == ["red", "blue"] and exported.image_shape == (96, 96, 3)
    found = exported.predict_on_batch(pictures.astype("float32"))
    np.testing.assert_allclose(found, expected, atol=tolerance)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize(
    "precision, tolerance", [("float32", 1e-5), ("float16", 1e-3), ("int8", 0.05)]
)
def test_embeddings_are_those_of_keras(classifier, embedder_files, pictures, precision, tolerance):
    expected = classifier.embedder.predict_on_batch(pictures)
    exported = LiteRTEmbedder(embedder_files[precision])
    assert exported.image_shape == (96, 96, 3)
    found = exported.predict_on_batch(pictures)
    np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected).max())
    assert (cosine(found, expected) > 0.999).all()


def test_batch_norm_is_folded_and_auxiliary_heads_are_left_out(classifier_files, embedder_files):
    """All that remains beside the layers is the offset of the pixels' normalisation."""
    network = {"CAST": 1, "ADD": 1 + 1, "CONV_2D": 4, "MEAN": 1}
    head = {"FULLY_CONNECTED": 1, "SOFTMAX": 1}
    assert count_operators(classifier_files["float32"]) == {**network, **head}
    assert count_operators(embedder_files["float32"]) == network


def test_batch_norm_and_padding_of_mobilenet_v2_are_folded(tmp_path):
    keras.utils.set_random_seed(0)
    backbone = mobilenet_v2((64, 64, 3), 0.35, include_top=False)
    features = keras.layers.GlobalAveragePooling2D()(backbone.output)
    logits = keras.layers.Dense(3, name="predictions")(features)
    model = Classifier(keras.Model(backbone.input, logits))
    export_litert_classifier(model, tmp_path / "model.tflite")
    assert count_operators(tmp_path / "model.tflite") == {
        "CAST": 1,
        "ADD": 1 + 10,  # ten bottlenecks have a shortcut
        "CONV_2D": 35,
        "DEPTHWISE_CONV_2D": 17,
        "MEAN": 1,
        "FULLY_CONNECTED": 1,
        "SOFTMAX": 1,
    }


@pytest.mark.parametrize("pad", [False, True])
def test_factor_of_the_normalisation_goes_into_the_kernel(pad):
    images = keras.Input((6, 5, 3), name="images")
    x = keras.layers.Rescaling([0.5, 0.25, 2.0], [-1.0, 3.0, 0.5])(images)
    x = keras.layers.ZeroPadding2D(2)(x) if pad else x
    x = keras.layers.Conv2D(4, 3, padding="same")(x)
    network = keras.Model(images, {"maps": x})
    folded = litert.fold_normalization(network)
    np.testing.assert_equal(folded.layers[1].scale, 1.0)
    np.testing.assert_allclose(folded.layers[1].offset, [-2.0, 12.0, 0.25])
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 6, 5, 3)).astype("float32")
    expected = network.predict_on_batch(pixels)["maps"]
    np.testing.assert_allclose(folded.predict_on_batch(pixels)["maps"], expected, rtol=1e-4)


def test_normalisation_that_others_read_stays():
    images = keras.Input((6, 5, 3), name="images")
    x = keras.layers.Rescaling(0.5)(images)
    read_twice = keras.layers.Add()([x, keras.layers.Conv2D(3, 1)(x)])
    pooled_first = keras.layers.Conv2D(3, 1)(keras.layers.MaxPooling2D(2)(x))
    without = keras.layers.Conv2D(3, 1)(images)
    for output in (read_twice, pooled_first, without):
        network = keras.Model(images, {"maps": output})
        assert litert.fold_normalization(network) is network


def test_mixed_precision(classifier, pictures, tmp_path):
    network = keras.models.clone_model(
        classifier.network,
        clone_function=lambda layer: layer.from_config(
            {**layer.get_config(), "dtype": "mixed_bfloat16"}
        ),
    )
    network.set_weights(classifier.network.get_weights())
    model = Classifier(network, ["red", "blue"])
    expected = classifier.predict_on_batch(pictures)
    export_litert_classifier(model, tmp_path / "model.tflite")
    found = LiteRTClassifier(tmp_path / "model.tflite").predict_on_batch(pictures)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    export_litert_embedder(model, tmp_path / "embedder.tflite")
    found = LiteRTEmbedder(tmp_path / "embedder.tflite").predict_on_batch(pictures)
    expected = classifier.embedder.predict_on_batch(pictures)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_wrong_numbers_are_refused(classifier, pictures, tmp_path, monkeypatch):
    """As when the converter loses the weights; the old files stay."""
    for name in ("model.tflite", "embedder.tflite"):
        (tmp_path / name).write_bytes(b"old")
    convert = litert.convert_network
    monkeypatch.setattr(
        litert,
        "convert_network",
        lambda network, *rest: convert(keras.models.clone_model(network), *rest),
    )
    with pytest.raises(RuntimeError, match="model.tflite: logits must be the model's within 0.1%"):
        export_litert_classifier(classifier, tmp_path / "model.tflite")
    with pytest.raises(RuntimeError, match="embedding must be the model's within 10.0%"):
        export_litert_embedder(classifier, tmp_path / "embedder.tflite", "float16")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old", b"old"]


def test_wrong_probabilities_are_refused(classifier, tmp_path, monkeypatch):
    convert = litert.convert
    sigmoid = tf.function(tf.nn.sigmoid)
    monkeypatch.setattr(litert, "convert", lambda softmax, *specs: convert(sigmoid, *specs))
    with pytest.raises(RuntimeError, match="scores must be the model's within 0.001"):
        export_litert_classifier(classifier, tmp_path / "model.tflite")
    assert list(tmp_path.iterdir()) == []


def test_wrong_arguments(classifier, tmp_path):
    for export in (export_litert_classifier, export_litert_embedder):
        with pytest.raises(ValueError, match="precision must be one of .*; received: int4"):
            export(classifier, tmp_path / "model.tflite", "int4")
        with pytest.raises(ValueError, match="int8 needs calibration_images"):
            export(classifier, tmp_path / "model.tflite", "int8")
    images = keras.Input((None, None, 3))
    logits = keras.layers.Dense(2, name="predictions")(keras.layers.GlobalMaxPooling2D()(images))
    model = Classifier(keras.Model(images, logits))
    with pytest.raises(ValueError, match=r"must have a height and a width .*\(None, None, 3\)"):
        export_litert_classifier(model, tmp_path / "model.tflite")


def test_other_files_are_refused(classifier_files, embedder_files, tmp_path):
    classifier, embedder = classifier_files["float32"], embedder_files["float32"]
    with pytest.raises(ValueError, match="expected a uint8 image to embedding; .* probabilities"):
        LiteRTEmbedder(classifier)
    with pytest.raises(ValueError, match="expected a .tflite file with class names in it"):
        LiteRTClassifier(embedder)
    with pytest.raises(ValueError, match="expected a uint8 image to location, .* probabilities"):
        LiteRTDetector(classifier)
    (tmp_path / "damaged.tflite").write_bytes(embedder.read_bytes()[:999])
    with pytest.raises(ValueError, match="damaged.tflite: expected a .tflite file; received"):
        LiteRTEmbedder(tmp_path / "damaged.tflite")
