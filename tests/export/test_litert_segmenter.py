import collections
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tensorflow.lite.python import schema_py_generated as schema

from kerasvision.export import (
    LiteRTClassifier,
    LiteRTSegmenter,
    export_litert_segmenter,
    litert,
)
from kerasvision.segmentation import Segmenter, load_segmenter


def read(path):
    return schema.ModelT.InitFromPackedBuf(path.read_bytes())


@pytest.mark.parametrize(
    "precision, tolerance", [("float32", 1e-4), ("float16", 5e-3), ("int8", 0.1)]
)
def test_probabilities_are_those_of_keras(
    segmenter, segmenter_files, pictures, precision, tolerance
):
    expected = segmenter.predict_on_batch(pictures)
    truth = np.where(pictures[..., 0] > 200, 1, np.where(pictures[..., 2] > 200, 2, 0))
    assert np.mean(expected.argmax(axis=-1) == truth) > 0.99
    exported = LiteRTSegmenter(segmenter_files[precision], num_threads=2)
    assert exported.class_names == ["ground", "red", "blue"]
    assert exported.image_shape == (96, 96, 3) and exported.output_size == (96, 96)
    found = exported.predict_on_batch(pictures.astype("float32"))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=tolerance)
    np.testing.assert_allclose(found.sum(axis=-1), 1.0, atol=1e-5)
    assert np.mean(found.argmax(axis=-1) == expected.argmax(axis=-1)) > 0.999


def test_operators_are_built_in(segmenter_files):
    """Unpooling by indices is comparisons of whole maps; the normalisation leaves its offset."""
    names = {number: name for name, number in vars(schema.BuiltinOperator).items()}
    model = read(segmenter_files["float32"])
    codes = [names[max(c.builtinCode, c.deprecatedBuiltinCode)] for c in model.operatorCodes]
    operators = [codes[operator.opcodeIndex] for operator in model.subgraphs[0].operators]
    layers_of_the_model = {"CONV_2D": 3, "TRANSPOSE_CONV": 1, "CAST": 1, "ADD": 1, "SOFTMAX": 1}
    pooling = {"STRIDED_SLICE", "RESHAPE", "PACK", "MAXIMUM", "EQUAL", "GREATER", "SELECT_V2"}
    counted = collections.Counter(operators)
    assert {name: counted[name] for name in layers_of_the_model} == layers_of_the_model
    assert set(counted) == {*layers_of_the_model, *pooling}


def test_names_and_metadata(segmenter_files):
    path = segmenter_files["int8"]
    model = read(path)
    graph = model.subgraphs[0]
    (image,), (output,) = graph.inputs, graph.outputs
    assert graph.tensors[image].type == schema.TensorType.UINT8
    assert graph.tensors[output].name == b"probabilities"
    assert graph.tensors[output].type == schema.TensorType.FLOAT32
    assert list(graph.tensors[output].shape) == [1, 96, 96, 3]
    (metadata,) = model.metadata
    assert metadata.name == b"TFLITE_METADATA"
    content = bytes(model.buffers[metadata.buffer].data)
    assert content[4:8] == b"M001"
    assert b"SEGMENTER_METADATA" in content and b"labels.txt" in content
    # MediaPipe's own options are a FlatBuffer in the other one, at a multiple of 16 bytes.
    assert content.count(b"V001") == 1 and (content.index(b"V001") - 4) % 16 == 0
    with zipfile.ZipFile(path) as archive:
        assert archive.read("labels.txt") == b"ground\nred\nblue\n"


def unpadded_network():
    """Logits of the middle (36, 52) of images (40, 56)."""
    images = keras.Input((40, 56, 3))
    x = layers.Conv2D(8, 5, activation="relu")(layers.Rescaling(1 / 255)(images))
    return keras.Model(images, layers.Conv2D(2, 1)(x))


def test_probabilities_of_the_middle(tmp_path):
    """As of networks of unpadded convolutions; height and width differ."""
    keras.utils.set_random_seed(0)
    model = Segmenter(unpadded_network(), ["a", "b"])
    images = np.random.default_rng(0).integers(0, 256, (3, 40, 56, 3), "uint8")
    export_litert_segmenter(model, tmp_path / "model.tflite")
    exported = load_segmenter(tmp_path / "model.tflite")
    assert isinstance(exported, LiteRTSegmenter)
    assert exported.image_shape == (40, 56, 3) and exported.output_size == (36, 52)
    found = exported.predict_on_batch(images)
    assert found.std() > 0.01
    np.testing.assert_allclose(found, model.predict_on_batch(images), atol=1e-4)


def test_mixed_precision(tmp_path):
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = Segmenter(unpadded_network())
    finally:
        keras.config.set_dtype_policy("float32")
    images = np.random.default_rng(0).integers(0, 256, (2, 40, 56, 3), "uint8")
    export_litert_segmenter(model, tmp_path / "model.tflite")
    found = LiteRTSegmenter(tmp_path / "model.tflite").predict_on_batch(images)
    np.testing.assert_allclose(found, model.predict_on_batch(images), atol=0.01)


def test_scores_that_start_at_zero(tmp_path):
    """As those of an FCN before its training: all classes are equally probable."""
    images = keras.Input((8, 8, 3))
    logits = layers.Conv2D(4, 1, kernel_initializer="zeros")(layers.Rescaling(1 / 255)(images))
    export_litert_segmenter(Segmenter(keras.Model(images, logits)), tmp_path / "model.tflite")
    found = LiteRTSegmenter(tmp_path / "model.tflite").predict_on_batch(np.ones((1, 8, 8, 3)))
    np.testing.assert_allclose(found, np.full((1, 8, 8, 4), 0.25), atol=1e-6)


def test_wrong_numbers_are_refused(segmenter, tmp_path, monkeypatch):
    """As when the converter loses the weights, or the tail is another one; the old file stays."""
    path = tmp_path / "model.tflite"
    path.write_bytes(b"old")
    convert_network, convert = litert.convert_network, litert.convert
    with monkeypatch.context() as patch:
        patch.setattr(
            litert,
            "convert_network",
            lambda network, *rest: convert_network(keras.models.clone_model(network), *rest),
        )
        with pytest.raises(RuntimeError, match="model.tflite: logits must be the model's within"):
            export_litert_segmenter(segmenter, path)
    reverse = tf.function(lambda logits: tf.nn.softmax(-logits))
    monkeypatch.setattr(litert, "convert", lambda softmax, *specs: convert(reverse, *specs))
    with pytest.raises(RuntimeError, match="probabilities must be the model's within 0.001"):
        export_litert_segmenter(segmenter, path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.tflite"]
    assert path.read_bytes() == b"old"


def test_wrong_arguments(segmenter, tmp_path):
    with pytest.raises(ValueError, match="precision must be one of .*; received: int4"):
        export_litert_segmenter(segmenter, tmp_path / "model.tflite", "int4")
    with pytest.raises(ValueError, match="int8 needs calibration_images"):
        export_litert_segmenter(segmenter, tmp_path / "model.tflite", "int8")


def test_other_files_are_refused(segmenter_files, classifier_files, embedder_files, tmp_path):
    with pytest.raises(ValueError, match=r"expected probabilities \(1, h, w, C\); .* \(1, 2\)"):
        LiteRTSegmenter(classifier_files["float32"])
    with pytest.raises(ValueError, match=r"expected probabilities \(1, C\); .* \(1, 96, 96, 3\)"):
        LiteRTClassifier(segmenter_files["float32"])
    with pytest.raises(ValueError, match="expected a .tflite file with class names in it"):
        LiteRTSegmenter(embedder_files["float32"])
    damaged = tmp_path / "damaged.tflite"
    damaged.write_bytes(segmenter_files["int8"].read_bytes().replace(b"TFL3", b"TFLX", 1))
    with pytest.raises(ValueError, match="damaged.tflite: expected a .tflite file; received"):
        LiteRTSegmenter(damaged)
