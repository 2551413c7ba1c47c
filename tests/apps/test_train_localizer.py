"""The localisation app as a user runs it."""

import json
import pathlib
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import processes
import pytest

APP = pathlib.Path(__file__).parents[2] / "apps" / "train_localizer.py"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A VOC folder: red squares, blue squares, both, and neither."""
    folder = tmp_path_factory.mktemp("squares")
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(16):
        image = rng.integers(60, 120, (60, 80, 3), "uint8")
        objects = ""
        for bit, name, color in [(1, "red", (0, 0, 255)), (2, "blue", (255, 0, 0))]:
            if i & bit:
                x, y = rng.integers(0, 30, 2)
                image[y : y + 30, x : x + 30] = color
                objects += (
                    f"<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{x}</xmin>"
                    f"<ymin>{y}</ymin><xmax>{x + 30}</xmax><ymax>{y + 30}</ymax></bndbox></object>"
                )
        cv2.imwrite(str(folder / f"JPEGImages/{i}.jpg"), image)
        (folder / f"Annotations/{i}.xml").write_text(
            f"<annotation><filename>{i}.jpg</filename><size><width>80</width><height>60</height>"
            f"<depth>3</depth></size>{objects}</annotation>"
        )
    (folder / "ImageSets/Main/train.txt").write_text("\n".join(map(str, range(12))) + "\n")
    (folder / "ImageSets/Main/val.txt").write_text("\n".join(map(str, range(12, 16))) + "\n")
    return folder


def command(pictures, workdir, *flags):
    return [
        sys.executable, str(APP), f"--dataset=voc:{pictures}", f"--workdir={workdir}",
        "--image_size=64", "--width=4", "--batch_size=4", "--warmup_epochs=0", *flags,
    ]  # fmt: skip


def run(*arguments):
    return processes.run(*command(*arguments)[1:])


def test_runs_leave_what_they_promise(pictures, tmp_path):
    """A run on classes alone, and one on boxes that starts from its weights."""
    for model, flags in [
        ("gmp", ["--scales=0.7,1.3"]),
        ("box_regression", [f"--initial_model={tmp_path / 'gmp'}"]),
    ]:
        workdir = tmp_path / model
        result = run(pictures, workdir, f"--model={model}", "--epochs=2", *flags)
        assert result.returncode == 0, result.stderr[-2000:]
        assert str(workdir) in result.stdout
        assert {path.name for path in workdir.iterdir()} == {
            "flags.txt", "metrics.json", "history.csv", "tensorboard", "curves.png",
            "samples.png", "best.keras", "last.keras",
        }  # fmt: skip
        metrics = json.loads((workdir / "metrics.json").read_text())
        if model == "gmp":
            assert metrics["pictures"] == 4 and metrics["pairs"] == 4
            assert 0 <= metrics["pointing_accuracy"] <= 1
            assert set(metrics["per_class"]) == {"blue", "red"}
            # Squares of 30 x 30 pixels in 80 x 60.
            assert metrics["chance"] == pytest.approx(900 / 4800, abs=0.02)
        else:
            assert metrics["pictures"] == 2  # one with both squares, and one with none, left out
            assert metrics["localization_accuracy"] <= metrics["box_accuracy"] <= 1
            assert "with one object: 6 pictures to train on, 2 to validate" in result.stdout
            assert "layers start from --initial_model" in result.stdout
        assert len((workdir / "history.csv").read_text().splitlines()) == 3
        for name in ("curves.png", "samples.png"):
            assert cv2.imread(str(workdir / name)).std() > 5


@pytest.mark.slow
def test_killed_and_resumed_run_at_random_scales_ends_the_same(pictures, tmp_path):
    flags = ["--model=gmp", "--scales=0.7,1.3", "--epochs=3", "--deterministic"]
    expected, workdir = tmp_path / "whole", tmp_path / "killed"
    result = run(pictures, expected, *flags)
    assert result.returncode == 0, result.stderr[-2000:]

    process = subprocess.Popen(
        command(pictures, workdir, *flags), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    deadline = time.time() + 500
    while not (workdir / "last.keras").exists():
        assert process.poll() is None, process.stdout.read().decode()[-2000:]
        assert time.time() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    result = run(pictures, workdir, *flags)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "going on after epoch" in result.stdout

    def losses(folder):
        lines = [line.split(",") for line in (folder / "history.csv").read_text().splitlines()]
        return [float(line[lines[0].index("loss")]) for line in lines[1:]]

    assert losses(workdir) == pytest.approx(losses(expected), rel=1e-4)
    metrics = [json.loads((f / "metrics.json").read_text()) for f in (expected, workdir)]
    assert metrics[0]["point_AP"] == pytest.approx(metrics[1]["point_AP"], abs=1e-6)


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--scales=1.2,0.7"], "--scales: must be two factors, lowest first"),
        (["--initial_model=/nowhere"], "/nowhere: expected a run folder"),
        (["--adaptation_filters=0"], "--adaptation_filters: must be whole numbers above 0"),
    ],
)
def test_mistakes_are_told_in_one_line(pictures, tmp_path, flags, message):
    result = run(pictures, tmp_path / "run", *flags)
    assert result.returncode != 0
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and message in last
    assert "Traceback" not in result.stderr
