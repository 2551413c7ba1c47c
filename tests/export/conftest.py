import os
import subprocess
import venv

import keras
import numpy as np
import pytest

from kerasvision.detection import ssdlite
from kerasvision.export import export_litert


@pytest.fixture(scope="session")
def pictures():
    """(4, 96, 96, 3) uint8: one red or blue rectangle on grey each."""
    images = np.full((4, 96, 96, 3), 90, "uint8")
    for i, image in enumerate(images):
        top, left = 6 + 8 * i, 34 - 8 * i
        image[top : top + 50, left : left + 50] = [30, 30, 250] if i % 2 else [250, 30, 30]
    return images


@pytest.fixture(scope="session")
def detector(pictures):
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
    model.compile(keras.optimizers.Adam(3e-3))
    for _ in range(60):
        model.train_on_batch({"images": pictures.astype("float32"), "bounding_boxes": truth})
    return model


@pytest.fixture(scope="session")
def litert_files(detector, pictures, tmp_path_factory):
    """Paths of the detector's .tflite files by precision."""
    folder = tmp_path_factory.mktemp("litert")
    files = {p: folder / f"model_{p}.tflite" for p in ("float32", "float16", "int8")}
    for precision, path in files.items():
        export_litert(detector, path, precision, pictures)
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
