import fcntl
import json
import os
import pathlib
import subprocess
import venv

import cv2
import keras
import numpy as np
import pytest
from keras import layers

from kerasvision.classification import Classifier
from kerasvision.detection import ssdlite
from kerasvision.embedding import FaceNet, embedding_network
from kerasvision.export import (
    export_litert,
    export_litert_classifier,
    export_litert_embedder,
    export_litert_segmenter,
)
from kerasvision.layers import MaxPoolingWithIndices2D, MaxUnpooling2D
from kerasvision.segmentation import Segmenter

TOOLS = pathlib.Path(__file__).parents[2] / "tools"


@pytest.fixture(scope="session")
def pictures():
    """(4, 96, 96, 3) uint8: one red or blue rectangle on grey each."""
    images = np.full((4, 96, 96, 3), 90, "uint8")
    for i, image in enumerate(images):
        top, left = 6 + 8 * i, 34 - 8 * i
        image[top : top + 50, left : left + 50] = [30, 30, 250] if i % 2 else [250, 30, 30]
    return images


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """once(name, write) calls write(path) in one of the processes that run tests; all get the path.

    What several test files read takes its time once only.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent

    def path_of(name, write):
        path = folder / name
        with open(folder / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                write(path)
        return path

    return path_of


@pytest.fixture(scope="session")
def detector(pictures, once):
    """A small SSDLite that has learnt the pictures by heart."""
    keras.utils.set_random_seed(1)
    model = ssdlite(
        2,
        (96, 96, 3),
        class_names=["red", "blue"],
        width_multiplier=0.35,
        batch_norm_momentum=0.5,
    )
    i = np.arange(4)
    corners = np.stack([6 + 8 * i, 34 - 8 * i, 56 + 8 * i, 84 - 8 * i], axis=-1)[:, None]
    truth = {"boxes": (corners / 96).astype("float32"), "labels": (i % 2)[:, None]}

    def train(path):
        model.compile(keras.optimizers.Adam(3e-3))
        for _ in range(60):
            model.train_on_batch({"images": pictures.astype("float32"), "bounding_boxes": truth})
        model.save_weights(path)

    model.load_weights(once("detector.weights.h5", train))
    return model


@pytest.fixture(scope="session")
def litert_files(detector, pictures, once):
    """Paths of the detector's .tflite files by precision."""

    def export(precision):
        return lambda path: export_litert(detector, path, precision, pictures)

    return {p: once(f"model_{p}.tflite", export(p)) for p in ("float32", "float16", "int8")}


def classifier_network(class_count=2):
    """A residual network of four convolutions with an auxiliary head."""

    def convolution(x, stride, name):
        x = layers.Conv2D(16, 3, stride, padding="same", use_bias=False, name=name)(x)
        return layers.ReLU()(layers.BatchNormalization(momentum=0.5)(x))

    images = keras.Input((96, 96, 3), name="images")
    x = layers.Rescaling(1 / 127.5, -1.0, name="normalize")(images)
    x = convolution(x, 4, "conv1")
    x = layers.Add()([x, convolution(convolution(x, 1, "conv2"), 1, "conv3")])
    auxiliary = layers.Dense(class_count, name="auxiliary1")(layers.GlobalMaxPooling2D()(x))
    x = layers.GlobalAveragePooling2D(name="avg_pool")(convolution(x, 2, "conv4"))
    logits = layers.Dense(class_count, dtype="float32", name="predictions")(x)
    return keras.Model(images, {"predictions": logits, "auxiliary1": auxiliary})


@pytest.fixture(scope="session")
def classifier(pictures):
    """A small classifier that has learnt the pictures by heart."""
    keras.utils.set_random_seed(0)
    model = Classifier(classifier_network(), ["red", "blue"])
    model.compile(keras.optimizers.Adam(5e-3))
    for _ in range(20):
        batch = {"images": pictures.astype("float32"), "labels": np.array([0, 1, 0, 1])}
        model.train_on_batch(batch)
    return model


@pytest.fixture(scope="session")
def classifier_files(classifier, pictures, tmp_path_factory):
    """Paths of the classifier's .tflite files by precision."""
    folder = tmp_path_factory.mktemp("classifier")
    files = {p: folder / f"model_{p}.tflite" for p in ("float32", "float16", "int8")}
    for precision, path in files.items():
        export_litert_classifier(classifier, path, precision, pictures)
    return files


@pytest.fixture(scope="session")
def embedder_files(classifier, pictures, tmp_path_factory):
    """Paths of the embedder's .tflite files by precision."""
    folder = tmp_path_factory.mktemp("embedder")
    files = {p: folder / f"embedder_{p}.tflite" for p in ("float32", "float16", "int8")}
    for precision, path in files.items():
        export_litert_embedder(classifier, path, precision, pictures)
    return files


@pytest.fixture(scope="session")
def facenet(pictures):
    """A small FaceNet that has learnt the pictures by heart."""
    keras.utils.set_random_seed(0)
    network = classifier_network()
    maps = keras.Model(network.input, network.get_layer("avg_pool").input)
    model = FaceNet(embedding_network(maps, 8), loss="batch_hard")
    model.compile(keras.optimizers.Adam(5e-3))
    for _ in range(30):
        batch = {"images": pictures.astype("float32"), "labels": np.array([0, 1, 0, 1])}
        model.train_on_batch(batch)
    return model


@pytest.fixture(scope="session")
def facenet_files(facenet, pictures, tmp_path_factory):
    """Paths of the FaceNet's .tflite files by precision."""
    folder = tmp_path_factory.mktemp("facenet")
    files = {p: folder / f"model_{p}.tflite" for p in ("float32", "float16", "int8")}
    for precision, path in files.items():
        export_litert_embedder(facenet, path, precision, pictures)
    return files


def segmenter_network(class_count=3):
    """Logits for every pixel: pooling and unpooling by its indices, then a learnt upsampling."""
    images = keras.Input((96, 96, 3), name="images")
    x = layers.Rescaling(1 / 127.5, -1.0, name="normalize")(images)
    x = layers.Conv2D(16, 3, 2, padding="same", use_bias=False, name="conv1")(x)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.5)(x))
    x, indices = MaxPoolingWithIndices2D(name="pool")(x)
    x = layers.Conv2D(16, 3, padding="same", activation="relu", name="conv2")(x)
    x = MaxUnpooling2D(name="unpool")(x, indices)
    x = layers.Conv2D(16, 3, padding="same", activation="relu", name="conv3")(x)
    logits = layers.Conv2DTranspose(class_count, 4, 2, padding="same", name="logits")(x)
    return keras.Model(images, logits)


@pytest.fixture(scope="session")
def segmenter(pictures):
    """A small segmenter that has learnt the pictures by heart."""
    keras.utils.set_random_seed(0)
    model = Segmenter(segmenter_network(), ["ground", "red", "blue"])
    model.compile(keras.optimizers.Adam(1e-2))
    masks = np.where(pictures[..., 0] > 200, 1, np.where(pictures[..., 2] > 200, 2, 0))
    for _ in range(40):
        batch = {"images": pictures.astype("float32"), "segmentation_masks": masks}
        model.train_on_batch(batch)
    return model


@pytest.fixture(scope="session")
def segmenter_files(segmenter, pictures, tmp_path_factory):
    """Paths of the segmenter's .tflite files by precision."""
    folder = tmp_path_factory.mktemp("segmenter")
    files = {p: folder / f"model_{p}.tflite" for p in ("float32", "float16", "int8")}
    for precision, path in files.items():
        export_litert_segmenter(segmenter, path, precision, pictures)
    return files


@pytest.fixture(scope="session")
def mediapipe_python(request):
    """A Python with mediapipe, in an environment of its own that is kept between runs.

    mediapipe needs opencv-contrib-python, which would overwrite kerasvision's OpenCV. The
    environment variable KERASVISION_MEDIAPIPE_PYTHON may name such a Python.
    """
    ready = os.environ.get("KERASVISION_MEDIAPIPE_PYTHON")
    if ready:
        return ready
    folder = request.config.cache.mkdir("mediapipe")
    python, finished = folder / "bin" / "python", folder / "finished"
    if not finished.exists():
        venv.create(folder, with_pip=True, clear=True)
        pip = [python, "-m", "pip", "install", "--quiet", "mediapipe"]
        result = subprocess.run(pip, capture_output=True, text=True)
        if result.returncode:
            pytest.skip(f"pip can't install mediapipe: {result.stderr.strip().splitlines()[-1]}")
        finished.touch()
    return str(python)


@pytest.fixture
def mediapipe(mediapipe_python, tmp_path):
    """Function from a tool, a .tflite file and pictures to what MediaPipe sees, a row a picture."""

    def run(tool, path, pictures, *options):
        for i, picture in enumerate(pictures):
            cv2.imwrite(str(tmp_path / f"{i}.png"), picture[:, :, ::-1])
        command = [mediapipe_python, TOOLS / tool, "--model", path, "--input", tmp_path, *options]
        result = subprocess.run(
            [*map(str, command), "--output", str(tmp_path / "found.json")],
            capture_output=True,
            text=True,
        )
        if "cannot open shared object file" in result.stderr:
            pytest.skip(result.stderr.strip().splitlines()[-1])
        assert result.returncode == 0, result.stderr
        rows = json.loads((tmp_path / "found.json").read_text())
        assert [row["file"] for row in rows] == [f"{i}.png" for i in range(len(pictures))]
        return rows

    return run
