"""Faces are found and brought upright before they are embedded, by OpenCV's detectors.

"haar": Viola and Jones 2001, by the cascades that OpenCV's source and Debian's package opencv-data
have; eyes are found by another cascade, if at all. "yunet": Wu et al. 2023, by an ONNX file of
OpenCV's model zoo; it tells the eyes of each face. "none": each picture is a face already.
"""

import dataclasses
import pathlib

import cv2
import numpy as np

DETECTORS = ("none", "haar", "yunet")
FACE_CASCADE, EYE_CASCADE = "haarcascade_frontalface_default.xml", "haarcascade_eye.xml"
# Where cascades are: those of wheels that have them, and Debian's.
CASCADE_FOLDERS = (cv2.data.haarcascades, "/usr/share/opencv4/haarcascades")
# Where the eyes go, as parts of width and height.
LEFT_EYE, RIGHT_EYE = (0.32, 0.42), (0.68, 0.42)
MARGIN = 0.1  # of a box on each side, where the eyes aren't known


@dataclasses.dataclass
class Face:
    """A face: `box` (x, y, width, height) in pixels, `score`, and `eyes` (2, 2) or None.

    Eyes are (x, y), first the one that is more to the left in the picture.
    """

    box: tuple
    score: float
    eyes: np.ndarray | None = None


class FaceDetector:
    """Finds faces.

    Args:
        kind: of `DETECTORS`.
        file: of "yunet" the ONNX file; of "haar" the cascade of faces, None: OpenCV's, where it is
            installed.
        least_side: faces below it are passed over, in pixels.
        least_score: of YuNet.

    Raises:
        ValueError: another kind, or a file that is not there or none of its kind.
    """

    def __init__(self, kind, file=None, least_side=24, least_score=0.7):
        if kind not in DETECTORS:
            raise ValueError(f"detector must be one of {', '.join(DETECTORS)}; received: {kind}")
        self.kind, self.least_side, self.least_score = kind, least_side, least_score
        if kind == "haar":
            self.faces = _cascade(file or _find_cascade(FACE_CASCADE))
            self.eyes = _cascade(_find_cascade(EYE_CASCADE))
        elif kind == "yunet":
            if file is None or not pathlib.Path(file).is_file():
                raise ValueError(
                    "detector yunet needs its file, face_detection_yunet_2023mar.onnx of OpenCV's "
                    f"model zoo; received: {file or 'none'}"
                )
            try:
                self.network = cv2.FaceDetectorYN.create(str(file), "", (320, 320), least_score)
            except cv2.error:
                raise ValueError(f"{file}: must be YuNet's ONNX file; received: another") from None

    def __call__(self, image):
        """Finds the faces of a picture.

        Args:
            image: (H, W, 3) RGB uint8.

        Returns:
            List of `Face`, the largest first.
        """
        height, width = image.shape[:2]
        if self.kind == "none":
            return [Face((0, 0, width, height), 1.0)]
        if self.kind == "yunet":
            self.network.setInputSize((width, height))
            _, rows = self.network.detect(np.ascontiguousarray(image[..., ::-1]))
            found = [
                # x, y, width, height; five points, of which eyes are the first two; score
                Face(tuple(map(float, row[:4])), float(row[-1]), _from_left(row[4:8].reshape(2, 2)))
                for row in (() if rows is None else rows)
                if min(row[2:4]) >= self.least_side
            ]
        else:
            grey = cv2.equalizeHist(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY))
            boxes, _, scores = self.faces.detectMultiScale3(
                grey,
                scaleFactor=1.1,
                minNeighbors=5,
                minSize=(self.least_side, self.least_side),
                outputRejectLevels=True,
            )
            found = [
                Face(tuple(map(float, box)), float(score), self._find_eyes(grey, box))
                for box, score in zip(boxes, np.ravel(scores))
            ]
        return sorted(found, key=lambda face: -face.box[2] * face.box[3])

    def _find_eyes(self, grey, box):
        """The centres of two eyes in the upper part of a box, or None."""
        x, y, width, height = map(int, box)
        upper = grey[y : y + round(0.6 * height), x : x + width]
        least = max(8, width // 8)
        eyes = self.eyes.detectMultiScale(upper, 1.05, 5, minSize=(least, least))
        centres = np.array([(x + ex + ew / 2, y + ey + eh / 2) for ex, ey, ew, eh in eyes])
        if len(centres) != 2:
            return None
        left, right = _from_left(centres)
        # Two places in one eye, or a brow and an eye, would turn the face over.
        if not 0.25 * width < right[0] - left[0] < 0.7 * width:
            return None
        if abs(right[1] - left[1]) > 0.4 * (right[0] - left[0]):
            return None
        return np.array([left, right], "float32")


def align(image, face, size):
    """Cuts a face out.

    Where the eyes are known they come to `LEFT_EYE` and `RIGHT_EYE`, by a turn, one scale and a
    shift; else the box is cut, with a margin, as much of it as has the aspect ratio of `size`.

    Args:
        image: (H, W, 3) RGB uint8.
        face: `Face`.
        size: (height, width) of the result.

    Returns:
        (height, width, 3) RGB uint8.
    """
    height, width = size
    if face.eyes is not None:
        wanted = np.float32([LEFT_EYE, RIGHT_EYE]) * [width, height]
        (a, b), (c, d) = face.eyes.astype("float64"), wanted
        # As complex numbers z, a turn, a scale and a shift are z -> s z + t.
        a, b, c, d = (complex(*point) for point in (a, b, c, d))
        s = (d - c) / (b - a)
        t = c - s * a
    else:
        x, y, box_width, box_height = face.box
        # The whole box has its face in the middle.
        is_whole = (x, y, box_width, box_height) == (0, 0, image.shape[1], image.shape[0])
        part = 1.0 if is_whole else 1 + 2 * MARGIN
        s = complex(max(width / (part * box_width), height / (part * box_height)))
        t = complex(width / 2, height / 2) - s * complex(x + box_width / 2, y + box_height / 2)
    matrix = np.array([[s.real, -s.imag, t.real], [s.imag, s.real, t.imag]])
    # Shrinking a lot in one step would leave pixels out.
    shrink = 1 / abs(s)
    if shrink > 2:
        image = cv2.GaussianBlur(image, (0, 0), shrink / 3)
    return cv2.warpAffine(
        np.ascontiguousarray(image),
        matrix,
        (width, height),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )


def the_face(faces, name):
    """The one face of a picture that should have one.

    Args:
        faces: list of `Face`.
        name: of the picture, for the message.

    Raises:
        ValueError: there is none, or several.
    """
    if len(faces) != 1:
        raise ValueError(f"{name}: must have one face; received: {len(faces) or 'none'}")
    return faces[0]


def _from_left(points):
    points = np.asarray(points, "float32")
    return points[np.argsort(points[:, 0], kind="stable")]


def _find_cascade(name):
    for folder in CASCADE_FOLDERS:
        path = pathlib.Path(folder, name)
        if path.is_file():
            return path
    raise ValueError(
        f"detector haar needs {name}, of Debian's package opencv-data or OpenCV's source; "
        f"received: none in {', '.join(CASCADE_FOLDERS)}"
    )


def _cascade(path):
    if not pathlib.Path(path).is_file():
        raise ValueError(f"{path}: must be a cascade; received: no such file")
    try:
        cascade = cv2.CascadeClassifier(str(path))
    except (cv2.error, SystemError):  # OpenCV 5 raises the latter
        cascade = None
    if cascade is None or cascade.empty():
        raise ValueError(f"{path}: must be a cascade of OpenCV; received: another file")
    return cascade
