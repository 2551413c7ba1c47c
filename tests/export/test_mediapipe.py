import json
import pathlib
import subprocess

import cv2
import numpy as np
import pytest
from keras import ops

from kerasvision.export import LiteRTDetector
from kerasvision.ops import boxes as box_ops

TOOL = pathlib.Path(__file__).parents[2] / "tools" / "mediapipe_detect.py"


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_mediapipe_agrees(detector, litert_files, pictures, mediapipe_python, tmp_path, precision):
    """MediaPipe loads the file as it is, and sees what Keras (int8: our reader) sees."""
    for i, picture in enumerate(pictures):
        cv2.imwrite(str(tmp_path / f"{i}.png"), picture[:, :, ::-1])
    command = [mediapipe_python, TOOL, "--model", litert_files[precision], "--input", tmp_path]
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

    expected = detector.predict_on_batch(pictures)
    if precision == "int8":
        expected = LiteRTDetector(litert_files[precision]).predict_on_batch(pictures)
    checked = 0
    for i, row in enumerate(rows):
        overlaps = ops.convert_to_numpy(box_ops.iou(expected["boxes"][i], np.array(row["boxes"])))
        for k in np.flatnonzero(expected["scores"][i] > 0.5):
            best = overlaps[k].argmax()
            assert overlaps[k, best] >= 0.9
            assert row["labels"][best] == detector.class_names[expected["labels"][i, k]]
            assert row["scores"][best] == pytest.approx(expected["scores"][i, k], abs=0.05)
            checked += 1
    assert checked >= 3
