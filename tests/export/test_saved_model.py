import cv2
import numpy as np
import pytest
import tensorflow as tf

from kerasvision import data
from kerasvision.detection import load_detector
from kerasvision.export import (
    LiteRTClassifier,
    LiteRTEmbedder,
    LiteRTSegmenter,
    SavedModelClassifier,
    SavedModelDetector,
    SavedModelSegmenter,
    export_all,
    export_classifier,
    export_embedder,
    export_saved_model,
    export_segmenter,
)
from kerasvision.segmentation import load_segmenter


@pytest.fixture(scope="module")
def saved(detector, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "saved_model"
    export_saved_model(detector, path)
    return path


def test_saved_model_equals_keras(saved, detector, pictures):
    exported = load_detector(saved)
    assert isinstance(exported, SavedModelDetector)
    assert exported.class_names == ["red", "blue"] and exported.image_shape == (96, 96, 3)
    for images in (pictures, pictures[:1].astype("float32")):
        found = exported.predict_on_batch(images)
        for name, values in detector.predict_on_batch(images).items():
            assert found[name].dtype == values.dtype
            np.testing.assert_allclose(found[name], values, atol=1e-5)


def test_classifier_equals_keras(classifier, saved, pictures, tmp_path):
    export_saved_model(classifier, tmp_path / "saved_model")
    exported = SavedModelClassifier(tmp_path / "saved_model")
    assert exported.class_names == ["red", "blue"] and exported.image_shape == (96, 96, 3)
    for images in (pictures, pictures[:1].astype("float32")):
        found = exported.predict_on_batch(images)
        np.testing.assert_allclose(found, classifier.predict_on_batch(images), atol=1e-6)
    with pytest.raises(ValueError, match="expected uint8 images to boxes, .* uint8 to output_0"):
        SavedModelDetector(tmp_path / "saved_model")
    with pytest.raises(ValueError, match="expected uint8 images to output_0; received: uint8 to b"):
        SavedModelClassifier(saved)


def test_segmenter_equals_keras(segmenter, classifier, pictures, tmp_path):
    export_saved_model(segmenter, tmp_path / "saved_model")
    exported = load_segmenter(tmp_path / "saved_model")
    assert isinstance(exported, SavedModelSegmenter)
    assert exported.class_names == ["ground", "red", "blue"]
    assert exported.image_shape == (96, 96, 3) and exported.output_size == (96, 96)
    for images in (pictures, pictures[:1].astype("float32")):
        found = exported.predict_on_batch(images)
        np.testing.assert_allclose(found, segmenter.predict_on_batch(images), atol=1e-5)
    with pytest.raises(ValueError, match=r"expected probabilities \(B, C\); .* \(None, 96, 96, 3"):
        SavedModelClassifier(tmp_path / "saved_model")
    export_saved_model(classifier, tmp_path / "classifier")
    with pytest.raises(ValueError, match=r"expected probabilities \(B, h, w, C\); .* \(None, 2\)"):
        SavedModelSegmenter(tmp_path / "classifier")


def test_other_folders_are_refused(saved, tmp_path):
    with pytest.raises(ValueError, match="nothing: expected the class names in assets.extra"):
        SavedModelDetector(tmp_path / "nothing")

    damaged = tmp_path / "damaged"
    (damaged / "assets.extra").mkdir(parents=True)
    (damaged / "assets.extra" / "labels.txt").write_text("red\n")
    content = (saved / "saved_model.pb").read_bytes()
    for end in (0, len(content) // 2, len(content)):  # the last has no variables
        (damaged / "saved_model.pb").write_bytes(content[:end])
        with pytest.raises(ValueError, match="damaged: expected a SavedModel; received: "):
            SavedModelDetector(damaged)

    other = tf.Module()
    other.double = tf.function(lambda x: {"y": 2 * x}, input_signature=[tf.TensorSpec((None, 2))])
    tf.saved_model.save(other, str(tmp_path / "other"), signatures={"serve": other.double})
    (tmp_path / "other" / "assets.extra").mkdir()
    (tmp_path / "other" / "assets.extra" / "labels.txt").write_text("red\n")
    with pytest.raises(ValueError, match="other: expected uint8 .* received: float32 to y"):
        SavedModelDetector(tmp_path / "other")


def test_export_all(detector, pictures, tmp_path, capfd):
    for name in ("images", "labels"):
        (tmp_path / "set" / name / "train").mkdir(parents=True)
    for i, picture in enumerate(pictures):
        cv2.imwrite(str(tmp_path / "set" / "images" / "train" / f"{i}.png"), picture[:, :, ::-1])
        label = tmp_path / "set" / "labels" / "train" / f"{i}.txt"
        label.write_text(f"{i % 2} 0.5 0.5 0.2 0.2\n")
    (tmp_path / "set" / "data.yaml").write_text("train: images/train\nnames: [red, blue]\n")
    dataset = data.load(f"yolo:{tmp_path / 'set'}", "train")
    (tmp_path / "out").mkdir()
    capfd.readouterr()
    export_all(detector, tmp_path / "out", ["int8", "float16"], dataset)
    assert capfd.readouterr() == ("", "")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["model_float16.tflite", "model_int8.tflite"]
    found = load_detector(tmp_path / "out" / "model_int8.tflite").predict_on_batch(pictures)
    assert (found["scores"][:, 0] > 0.5).sum() >= 3

    with pytest.raises(ValueError, match="formats must be out of .*; received: onnx"):
        export_all(detector, tmp_path / "out", ["onnx"], dataset)
    with pytest.raises(ValueError, match="int8 needs a dataset"):
        export_all(detector, tmp_path / "out", ["int8"])


def test_export_classifier_and_embedder(classifier, pictures, tmp_path, capfd):
    for name in ("red", "blue"):
        (tmp_path / "set" / "train" / name).mkdir(parents=True)
    for i, picture in enumerate(pictures):
        folder = tmp_path / "set" / "train" / ("blue" if i % 2 else "red")
        cv2.imwrite(str(folder / f"{i}.png"), picture[:, :, ::-1])
    dataset = data.load_classification(f"folder:{tmp_path / 'set'}", "train")
    workdir = tmp_path / "out"
    workdir.mkdir()
    capfd.readouterr()
    export_classifier(classifier, workdir, ["saved_model", "float16", "int8"], dataset)
    export_embedder(classifier, workdir, ["int8"], dataset)
    assert capfd.readouterr() == ("", "")
    names = sorted(path.name for path in workdir.iterdir())
    files = ["embedder_int8.tflite", "model_float16.tflite", "model_int8.tflite", "saved_model"]
    assert names == files
    expected = classifier.predict_on_batch(pictures)
    exported = LiteRTClassifier(workdir / "model_int8.tflite")
    np.testing.assert_allclose(exported.predict_on_batch(pictures), expected, atol=0.03)
    expected = classifier.embedder.predict_on_batch(pictures)
    found = LiteRTEmbedder(workdir / "embedder_int8.tflite").predict_on_batch(pictures)
    np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())

    for export, wrong in ((export_classifier, "onnx"), (export_embedder, "saved_model")):
        with pytest.raises(ValueError, match=f"formats must be out of .*; received: {wrong}"):
            export(classifier, workdir, [wrong], dataset)
        with pytest.raises(ValueError, match="int8 needs a dataset"):
            export(classifier, workdir, ["int8"])


def test_export_segmenter(segmenter, pictures, tmp_path, capfd):
    for name in ("images", "labels"):
        (tmp_path / "set" / "train" / name).mkdir(parents=True)
    (tmp_path / "set" / "classes.txt").write_text("0 ground\n1 red\n2 blue\n")
    for i, picture in enumerate(pictures):
        labels = np.where(picture[..., 0] > 200, 1, np.where(picture[..., 2] > 200, 2, 0))
        folder = tmp_path / "set" / "train"
        cv2.imwrite(str(folder / "images" / f"{i}.png"), picture[:, :, ::-1])
        cv2.imwrite(str(folder / "labels" / f"{i}.png"), labels)
    dataset = data.load_segmentation(f"folder:{tmp_path / 'set'}", "train")
    workdir = tmp_path / "out"
    workdir.mkdir()
    capfd.readouterr()
    export_segmenter(segmenter, workdir, ["saved_model", "float16", "int8"], dataset)
    assert capfd.readouterr() == ("", "")
    names = sorted(path.name for path in workdir.iterdir())
    assert names == ["model_float16.tflite", "model_int8.tflite", "saved_model"]
    found = LiteRTSegmenter(workdir / "model_int8.tflite").predict_on_batch(pictures)
    np.testing.assert_allclose(found, segmenter.predict_on_batch(pictures), atol=0.1)

    with pytest.raises(ValueError, match="formats must be out of .*; received: onnx"):
        export_segmenter(segmenter, workdir, ["onnx"], dataset)
    with pytest.raises(ValueError, match="int8 needs a dataset"):
        export_segmenter(segmenter, workdir, ["int8"])
