"""train_descriptor as a user runs it."""

import json

import cv2
import numpy as np
import processes
import pytest

TINY = [
    "--poses=12", "--appearances=2", "--views=15", "--queries=3", "--epochs=2",
    "--steps_per_epoch=3", "--objects_each=3", "--poses_each=4", "--image_size=32",
    "--descriptor_size=8",
]  # fmt: skip


def run(*flags):
    return processes.run("apps/train_descriptor.py", *flags)


def test_it_leaves_what_it_promises(tmp_path):
    result = run(f"--workdir={tmp_path}", *TINY, "--export=float32")
    assert result.returncode == 0, result.stderr[-2000:]
    assert "12 poses of each to train on, 15 known views, 3 queries" in result.stdout
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "flags.txt", "metrics.json", "history.csv", "curves.png", "tensorboard", "samples.png",
        "angles.png", "last.keras", "model_float32.tflite",
    }  # fmt: skip
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    classes = metrics["classes"].values()
    assert metrics["queries"] == 3 * len(classes) and metrics["known_views"] == 15 * len(classes)
    assert metrics["class_accuracy"] == pytest.approx(np.mean([c["accuracy"] for c in classes]))
    assert 0 < metrics["median_angle_possible"] <= metrics["median_angle_of_all"] <= 180
    assert 0 <= metrics["within_15_degrees"] <= metrics["class_accuracy"]
    assert cv2.imread(str(tmp_path / "samples.png")).std() > 5
    # All is done: nothing is trained again, and the same is told.
    again = run(f"--workdir={tmp_path}", *TINY, "--export=")
    assert "going on after epoch 2 of 2" in again.stdout and "Epoch" not in again.stdout
    assert json.loads((tmp_path / "metrics.json").read_text())["classes"] == metrics["classes"]


@pytest.mark.slow
def test_of_a_residual_network(tmp_path):
    flags = [*TINY, "--model=cifar_resnet", "--epochs=1", "--export="]
    result = run(f"--workdir={tmp_path}", *flags)
    assert result.returncode == 0, result.stderr[-2000:]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    # ResNet-20 without its 650 of ten classes; 8 numbers of 8 x 8 x 64.
    assert metrics["parameters"] == 271_098 - 650 + 8 * 8 * 64 * 8 + 8
    assert 0 < metrics["median_angle_possible"] <= metrics["median_angle_of_all"] <= 180


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--poses_each=5"], "poses_each must be even"),
        (["--poses_each=20"], "poses_each must be even, from 2 to 12"),
        (["--export=onnx"], "onnx"),
    ],
)
def test_mistakes_are_told_in_one_line(flags, message, tmp_path):
    result = run(f"--workdir={tmp_path}", *TINY, *flags)
    last = result.stderr.strip().splitlines()[-1]
    assert result.returncode != 0 and last.startswith("error: ") and message in last, last
    assert "Traceback" not in result.stderr
