import cv2
import numpy as np
import pytest
from keras import ops

from kerasvision.export import LiteRTDetector, LiteRTSegmenter
from kerasvision.ops import boxes as box_ops


def assert_agree(rows, expected, class_names, min_iou):
    """Every detection above 0.5 has its like: same class, IoU, score within 0.05."""
    checked = 0
    for i, row in enumerate(rows):
        overlaps = ops.convert_to_numpy(box_ops.iou(expected["boxes"][i], np.array(row["boxes"])))
        for k in np.flatnonzero(expected["scores"][i] > 0.5):
            # Boxes of two classes may lie at one place.
            name = class_names[expected["labels"][i, k]]
            same_class = np.array([label == name for label in row["labels"]])
            best = np.where(same_class, overlaps[k], -1.0).argmax()
            assert overlaps[k, best] >= min_iou
            assert row["labels"][best] == name
            assert row["scores"][best] == pytest.approx(expected["scores"][i, k], abs=0.05)
            checked += 1
    assert checked >= 3


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_mediapipe_agrees(detector, litert_files, pictures, mediapipe, precision):
    """MediaPipe loads the file as it is, and sees what Keras (int8: our reader) sees."""
    expected = detector.predict_on_batch(pictures)
    if precision == "int8":
        expected = LiteRTDetector(litert_files[precision]).predict_on_batch(pictures)
    rows = mediapipe("mediapipe_detect.py", litert_files[precision], pictures)
    assert_agree(rows, expected, detector.class_names, 0.9)


def test_mediapipe_agrees_on_pictures_of_another_size(detector, litert_files, pictures, mediapipe):
    """MediaPipe fits the picture to the model; boxes are relative to the picture's own size."""
    larger = [cv2.resize(p, (288, 192), interpolation=cv2.INTER_NEAREST) for p in pictures]
    expected = detector.predict_on_batch(pictures)
    rows = mediapipe("mediapipe_detect.py", litert_files["float32"], larger)
    assert_agree(rows, expected, detector.class_names, 0.9)


@pytest.mark.parametrize("precision, tolerance", [("float32", 1e-3), ("int8", 0.03)])
def test_image_classifier_agrees(
    classifier, classifier_files, pictures, mediapipe, precision, tolerance
):
    """MediaPipe's ImageClassifier loads the file as it is, and sees what Keras sees."""
    expected = classifier.predict_on_batch(pictures)
    rows = mediapipe("mediapipe_classify.py", classifier_files[precision], pictures)
    assert [row["labels"] for row in rows] == [["red", "blue"], ["blue", "red"]] * 2
    scores = [row["scores"] for row in rows]
    np.testing.assert_allclose(scores, -np.sort(-expected, axis=1), atol=tolerance)


def test_image_classifier_takes_pictures_of_another_size(
    classifier, classifier_files, pictures, mediapipe
):
    larger = [cv2.resize(p, (288, 192), interpolation=cv2.INTER_NEAREST) for p in pictures]
    rows = mediapipe("mediapipe_classify.py", classifier_files["float32"], larger)
    assert [row["labels"][0] for row in rows] == ["red", "blue"] * 2
    expected = classifier.predict_on_batch(pictures).max(axis=1)
    np.testing.assert_allclose([row["scores"][0] for row in rows], expected, atol=0.1)


@pytest.mark.parametrize("precision, tolerance", [("float32", 1e-4), ("int8", 0.05)])
def test_image_embedder_agrees(
    classifier, embedder_files, pictures, mediapipe, precision, tolerance
):
    """MediaPipe's ImageEmbedder loads the file as it is, and sees what Keras sees."""
    expected = classifier.embedder.predict_on_batch(pictures)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    rows = mediapipe("mediapipe_embed.py", embedder_files[precision], pictures, "--l2_normalize")
    found = np.array([row["embedding"] for row in rows])
    np.testing.assert_allclose(found, expected, atol=tolerance)
    np.testing.assert_allclose(np.sum(found * expected, axis=1), 1.0, atol=1e-3)


@pytest.mark.parametrize("precision, tolerance", [("float32", 1e-4), ("int8", 0.05)])
def test_image_embedder_agrees_on_a_facenet(
    facenet, facenet_files, pictures, mediapipe, precision, tolerance
):
    """As it is, without being asked to make lengths 1; and cosines are those of Keras."""
    expected = facenet.predict_on_batch(pictures)
    rows = mediapipe("mediapipe_embed.py", facenet_files[precision], pictures)
    found = np.array([row["embedding"] for row in rows])
    assert found.shape == (4, 8)
    np.testing.assert_allclose(found, expected, atol=tolerance)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=tolerance)
    similarities = np.array([row["similarities"] for row in rows])
    np.testing.assert_allclose(similarities, expected @ expected.T, atol=2 * tolerance)
    # Pictures 0 and 2 are red, 1 and 3 blue.
    assert (similarities - 2 * np.eye(4)).argmax(axis=1).tolist() == [2, 3, 0, 1]


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_image_segmenter_agrees(segmenter, segmenter_files, pictures, mediapipe, precision):
    """MediaPipe's ImageSegmenter loads the file as it is, and sees what Keras sees."""
    expected = segmenter.predict_on_batch(pictures)
    if precision == "int8":
        expected = LiteRTSegmenter(segmenter_files[precision]).predict_on_batch(pictures)
    path = segmenter_files[precision]
    rows = mediapipe("mediapipe_segment.py", path, pictures, "--probabilities")
    for row, probabilities in zip(rows, expected):
        assert row["labels"] == ["ground", "red", "blue"]
        # Already softmaxed, which MediaPipe doesn't do once more.
        np.testing.assert_allclose(row["probabilities"], probabilities, atol=1e-4)
        assert np.mean(row["mask"] == probabilities.argmax(axis=-1)) > 0.999


def test_image_segmenter_enlarges_to_the_picture(segmenter, segmenter_files, pictures, mediapipe):
    """Probabilities bilinearly; the mask pixel by pixel, without classes between two."""
    larger = [cv2.resize(p, (288, 192), interpolation=cv2.INTER_NEAREST) for p in pictures]
    path = segmenter_files["float32"]
    rows = mediapipe("mediapipe_segment.py", path, larger, "--probabilities")
    for i, probabilities in enumerate(segmenter.predict_on_batch(pictures)):
        expected = cv2.resize(probabilities, (288, 192))
        np.testing.assert_allclose(rows[i]["probabilities"], expected, atol=1e-3)
        assert np.mean(rows[i]["mask"] == expected.argmax(axis=-1)) > 0.99
        assert set(np.unique(rows[i]["mask"])) == {0, 2 if i % 2 else 1}
