import pathlib

import cv2
import numpy as np
import pytest

from kerasvision.embedding import faces
from kerasvision.embedding.faces import LEFT_EYE, RIGHT_EYE, Face, FaceDetector, align, the_face

ORL = pathlib.Path(__file__).parents[3] / "shared/data/faces/orl"


def has_cascades():
    return any(pathlib.Path(f, faces.FACE_CASCADE).is_file() for f in faces.CASCADE_FOLDERS)


def dots(eyes, size=(200, 240)):
    """Grey, with a red dot at the left eye and a green one at the right."""
    image = np.full((*size, 3), 128, "uint8")
    for (x, y), color in zip(eyes, ((255, 0, 0), (0, 255, 0))):
        cv2.circle(image, (round(x), round(y)), 4, color, -1)
    return image


def centre(mask):
    rows, columns = np.nonzero(mask)
    return columns.mean(), rows.mean()


@pytest.mark.parametrize(
    "eyes", [[(90, 80), (140, 80)], [(90, 110), (150, 70)], [(60, 40), (90, 60)]]
)
def test_eyes_come_to_their_places(eyes):
    """However the head is turned, and however large it is."""
    face = Face((0, 0, 1, 1), 1.0, np.array(eyes, "float32"))
    made = align(dots(eyes), face, (112, 96)).astype(int)
    assert made.shape == (112, 96, 3)
    for channel, (x, y) in ((0, LEFT_EYE), (1, RIGHT_EYE)):
        others = np.delete(made, channel, axis=-1).max(-1)
        found = centre(made[..., channel] - others > 60)
        np.testing.assert_allclose(found, (96 * x, 112 * y), atol=1.5)


def test_a_box_without_eyes():
    image = np.zeros((100, 200, 3), "uint8")
    image[30:70, 100:140] = 255  # the box
    made = align(image, Face((100, 30, 40, 40), 1.0), (48, 48))
    # Of the 48 pixels the box has 40, with a margin of 0.1 on each side.
    assert made[24, 24, 0] == 255 and made[0, 0, 0] == 0
    assert (made[24, :, 0] > 127).sum() == pytest.approx(40, abs=1)
    assert (made[:, 24, 0] > 127).sum() == pytest.approx(40, abs=1)


def test_whole_pictures():
    image = np.random.default_rng(0).integers(0, 256, (56, 48, 3), "uint8")
    (face,) = FaceDetector("none")(image)
    np.testing.assert_array_equal(align(image, face, (56, 48)), image)
    assert align(image, face, (28, 24)).shape == (28, 24, 3)


def test_one_face_is_wanted():
    face = Face((0, 0, 5, 5), 1.0)
    assert the_face([face], "a.jpg") is face
    with pytest.raises(ValueError, match="a.jpg: must have one face; received: none"):
        the_face([], "a.jpg")
    with pytest.raises(ValueError, match="a.jpg: must have one face; received: 2"):
        the_face([face, face], "a.jpg")


def test_bad_detectors(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="one of none, haar, yunet; received: mtcnn"):
        FaceDetector("mtcnn")
    with pytest.raises(ValueError, match="yunet needs its file.*received: none"):
        FaceDetector("yunet")
    (tmp_path / "wrong.onnx").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="wrong.onnx: must be YuNet's ONNX file"):
        FaceDetector("yunet", tmp_path / "wrong.onnx")
    with pytest.raises(ValueError, match="wrong.onnx: must be a cascade of OpenCV"):
        FaceDetector("haar", tmp_path / "wrong.onnx")
    monkeypatch.setattr(faces, "CASCADE_FOLDERS", (str(tmp_path),))
    with pytest.raises(ValueError, match="haar needs .*opencv-data.*none in"):
        FaceDetector("haar")


@pytest.mark.skipif(not (ORL.is_dir() and has_cascades()), reason="needs ORL and OpenCV's cascades")
def test_haar_finds_faces():
    """Two of ORL's faces on one grey canvas, and none where there is nothing."""
    canvas = np.full((300, 420, 3), 90, "uint8")
    detector = FaceDetector("haar")
    assert detector(canvas) == []
    places = []
    for number, x in ((1, 40), (10, 240)):
        face = cv2.imread(str(ORL / f"s{number:02d}" / "01.pgm"))
        canvas[60 : 60 + 168, x : x + 138] = cv2.resize(face, (138, 168))
        places.append((x + 69, 60 + 84))
    found = detector(canvas)
    assert len(found) == 2
    middles = sorted((f.box[0] + f.box[2] / 2, f.box[1] + f.box[3] / 2) for f in found)
    np.testing.assert_allclose(middles, places, atol=35)
