"""Exports of embeddings: numbers against Keras, unit length, and what is in the files."""

import keras
import numpy as np
import processes
import pytest
import tensorflow as tf

from kerasvision import data
from kerasvision.embedding import (
    FaceNet,
    PoseDescriptor,
    Siamese,
    descriptor_network,
    embedding_network,
    facenet_nn2,
)
from kerasvision.export import LiteRTEmbedder, export_embedding, export_litert_embedder

TOLERANCES = {"float32": 1e-5, "float16": 5e-3, "int8": 0.05}


@pytest.fixture(scope="module")
def two_people(pictures, tmp_path_factory):
    """A folder with the red and the blue pictures."""
    import cv2

    folder = tmp_path_factory.mktemp("two_people")
    for number, picture in enumerate(pictures):
        person = folder / ("blue" if number % 2 else "red")
        person.mkdir(exist_ok=True)
        cv2.imwrite(str(person / f"{number}.png"), picture[..., ::-1])
    return folder


@pytest.mark.parametrize("precision", TOLERANCES)
def test_embeddings_are_those_of_keras(facenet, facenet_files, pictures, precision):
    expected = facenet.predict_on_batch(pictures)
    # It has learnt: red ones lie together, apart from blue ones.
    assert np.linalg.norm(expected[0] - expected[2]) < 0.3
    assert np.linalg.norm(expected[0] - expected[1]) > 0.5
    exported = LiteRTEmbedder(facenet_files[precision])
    assert exported.image_shape == (96, 96, 3)
    found = exported.predict_on_batch(pictures.astype("float32"))
    assert found.shape == (4, 8) and found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=TOLERANCES[precision])
    lengths = np.linalg.norm(found, axis=1)
    np.testing.assert_allclose(lengths, 1.0, atol=0.02 if precision == "int8" else 1e-5)


@pytest.mark.parametrize("kind", ["siamese", "pose", "nn2"])
def test_other_embeddings(kind, pictures, tmp_path):
    """Numbers from 0 to 1, descriptors of any length, and NN2's own layers."""
    keras.utils.set_random_seed(0)
    if kind == "siamese":
        images = keras.Input((32, 32, 3))
        maps = keras.layers.Conv2D(4, 3, 2)(keras.layers.Rescaling(1 / 255)(images))
        model = Siamese(embedding_network(keras.Model(images, maps), 6, ending="sigmoid"))
    elif kind == "pose":
        model = PoseDescriptor(descriptor_network((32, 32, 3), 5))
    else:
        model = FaceNet(facenet_nn2((32, 32, 3), 7))
    images = pictures[:, 30:62, 30:62]
    expected = model.predict_on_batch(images)
    export_litert_embedder(model, tmp_path / "model.tflite")
    found = LiteRTEmbedder(tmp_path / "model.tflite").predict_on_batch(images)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    length = np.linalg.norm(found, axis=1)
    assert np.allclose(length, 1.0, atol=1e-4) == (kind == "nn2")


def test_mixed_precision_is_exported_in_float32(facenet, pictures, tmp_path):
    network = keras.models.clone_model(
        facenet.network,
        clone_function=lambda layer: layer.from_config(
            {**layer.get_config(), "dtype": "mixed_bfloat16"}
        ),
    )
    network.set_weights(facenet.network.get_weights())
    export_litert_embedder(FaceNet(network), tmp_path / "model.tflite")
    found = LiteRTEmbedder(tmp_path / "model.tflite").predict_on_batch(pictures)
    np.testing.assert_allclose(found, facenet.predict_on_batch(pictures), atol=1e-5)


def test_all_formats(facenet, pictures, two_people, tmp_path):
    people = data.load_identities(f"folder:{two_people}")
    export_embedding(facenet, tmp_path, ["saved_model", "float32", "float16", "int8"], people)
    assert {path.name for path in tmp_path.iterdir()} == {
        "saved_model", "model_float32.tflite", "model_float16.tflite", "model_int8.tflite",
    }  # fmt: skip
    saved = tf.saved_model.load(str(tmp_path / "saved_model"))
    expected = facenet.predict_on_batch(pictures)
    np.testing.assert_allclose(saved.serve(tf.constant(pictures)), expected, atol=1e-5)
    for precision, tolerance in TOLERANCES.items():
        exported = LiteRTEmbedder(tmp_path / f"model_{precision}.tflite")
        found = exported.predict_on_batch(pictures)
        np.testing.assert_allclose(found, expected, atol=tolerance)


def test_wrong_formats(facenet, tmp_path):
    with pytest.raises(ValueError, match="formats must be out of .* received: onnx"):
        export_embedding(facenet, tmp_path, ["onnx"])
    with pytest.raises(ValueError, match="int8 needs a dataset"):
        export_embedding(facenet, tmp_path, ["int8"])
    assert not list(tmp_path.iterdir())


def test_the_app_exports_a_facenet(facenet, two_people, pictures, tmp_path):
    facenet.save(tmp_path / "model.keras")
    result = processes.run(
        "apps/export_model.py",
        f"--model={tmp_path / 'model.keras'}",
        f"--dataset=folder:{two_people}",
        "--export=float16,int8",
        f"--workdir={tmp_path / 'exports'}",
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.splitlines()[-2:] == [
        str(tmp_path / f"exports/model_{precision}.tflite") for precision in ("float16", "int8")
    ]
    found = LiteRTEmbedder(tmp_path / "exports/model_int8.tflite").predict_on_batch(pictures)
    np.testing.assert_allclose(found, facenet.predict_on_batch(pictures), atol=0.05)
    refused = processes.run(
        "apps/export_model.py", f"--model={tmp_path / 'model.keras'}", "--embedder",
        "--export=float32", f"--workdir={tmp_path}",
    )  # fmt: skip
    assert "--embedder: needs a classifier" in refused.stderr and refused.returncode
