"""The apps as a user runs them: processes, files, and what they print."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import processes
import pytest

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = sorted(ROOT.glob("configs/*/*.flags"))
TRAIN = [
    "--model=ssd_resnet18", "--image_size=64", "--width_multiplier=0.125", "--epochs=4",
    "--batch_size=4", "--learning_rate=0.01", "--warmup_epochs=0", "--deterministic",
]  # fmt: skip


def command(app, *flags):
    return [sys.executable, str(ROOT / "apps" / f"{app}.py"), *map(str, flags)]


def run(app, *flags):
    return processes.run(f"apps/{app}.py", *flags)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A VOC folder of red and blue squares, and a picture without any."""
    folder = tmp_path_factory.mktemp("squares")
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(12):
        image = rng.integers(60, 120, (80, 100, 3), "uint8")
        objects = ""
        for name, color in [("red", (0, 0, 255)), ("blue", (255, 0, 0))][: i % 3]:
            x, y = rng.integers(5, 50, 2)
            image[y : y + 30, x : x + 30] = color
            objects += (
                f"<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{x}</xmin>"
                f"<ymin>{y}</ymin><xmax>{x + 30}</xmax><ymax>{y + 30}</ymax></bndbox></object>"
            )
        cv2.imwrite(str(folder / f"JPEGImages/{i}.jpg"), image)
        (folder / f"Annotations/{i}.xml").write_text(
            f"<annotation><filename>{i}.jpg</filename><size><width>100</width><height>80</height>"
            f"<depth>3</depth></size>{objects}</annotation>"
        )
    (folder / "ImageSets/Main/train.txt").write_text("\n".join(map(str, range(8))) + "\n")
    (folder / "ImageSets/Main/val.txt").write_text("\n".join(map(str, range(8, 12))) + "\n")
    return folder


@pytest.fixture(scope="module")
def trained(pictures, tmp_path_factory):
    """The run folder of one uninterrupted run with all exports."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    result = run("train_detector", f"--dataset=voc:{pictures}", f"--workdir={workdir}", *TRAIN)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "AP50" in result.stdout and str(workdir) in result.stdout
    return workdir


def test_a_run_leaves_what_it_promises(trained):
    names = {path.name for path in trained.iterdir()}
    assert {
        "flags.txt", "metrics.json", "history.csv", "tensorboard", "curves.png", "samples.png",
        "best.keras", "last.keras", "saved_model", "model_float32.tflite", "model_float16.tflite",
        "model_int8.tflite",
    } <= names  # fmt: skip
    assert not [name for name in names if name.startswith(".")]
    metrics = json.loads((trained / "metrics.json").read_text())
    assert 0 <= metrics["AP"] <= metrics["AP50"] <= 1
    assert set(metrics["per_class"]) == {"blue", "red"}
    assert metrics["pictures"] == 4 and metrics["seconds"]["training"] > 0
    assert len((trained / "history.csv").read_text().splitlines()) == 5
    assert list((trained / "tensorboard").rglob("events.out.tfevents.*"))
    for name in ("curves.png", "samples.png"):
        assert cv2.imread(str(trained / name)).std() > 5


@pytest.mark.slow
def test_killed_and_resumed_run_ends_the_same(pictures, trained, tmp_path):
    """Killed in the first epoch, while a checkpoint is written, and behind an epoch.

    In the end it goes on with the flags as it wrote them down.
    """
    workdir = tmp_path / "run"
    flags = [f"--dataset=voc:{pictures}", f"--workdir={workdir}", *TRAIN]

    def rows():
        history = workdir / "history.csv"
        return len(history.read_text().splitlines()) - 1 if history.exists() else 0

    moments = [
        lambda: (workdir / "flags.txt").exists(),
        lambda: rows() >= 1 and list(workdir.glob(".new-last.keras")),
        lambda: rows() >= 3,
    ]
    for moment in moments:
        process = subprocess.Popen(
            command("train_detector", *flags), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        deadline = time.time() + 200
        while not moment():
            assert process.poll() is None, process.stdout.read().decode()[-2000:]
            assert time.time() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    result = run("train_detector", f"--flagfile={workdir / 'flags.txt'}")
    assert result.returncode == 0, result.stderr[-2000:]
    assert "going on after epoch" in result.stdout

    expected = json.loads((trained / "metrics.json").read_text())
    received = json.loads((workdir / "metrics.json").read_text())
    for name in ("AP", "AP50", "AP75", "AR100", "epoch"):
        assert received[name] == pytest.approx(expected[name], abs=1e-6), name

    def losses(folder):
        lines = [line.split(",") for line in (folder / "history.csv").read_text().splitlines()]
        column = lines[0].index("loss")
        return [float(line[column]) for line in lines[1:]]

    assert losses(workdir) == pytest.approx(losses(trained), rel=1e-4)


@pytest.mark.slow
def test_evaluate_detector_agrees_with_the_run(pictures, trained, tmp_path):
    expected = json.loads((trained / "metrics.json").read_text())
    for model, tolerance in [("", 1e-6), ("saved_model", 1e-6), ("model_float32.tflite", 0.02)]:
        result = run(
            "evaluate_detector",
            f"--model={trained / model}",
            f"--dataset=voc:{pictures}",
            f"--workdir={tmp_path}",
        )
        assert result.returncode == 0, result.stderr[-2000:]
        received = json.loads((tmp_path / "metrics.json").read_text())
        assert received["AP"] == pytest.approx(expected["AP"], abs=tolerance)
        assert (tmp_path / "samples.png").exists()


def test_detect_draws_and_writes_coco_rows(pictures, trained, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for i in (1, 2):
        (folder / f"{i}.jpg").write_bytes((pictures / f"JPEGImages/{i}.jpg").read_bytes())
    (folder / "broken.jpg").write_bytes(b"")
    result = run(
        "detect",
        f"--model={trained}",
        f"--input={folder}",
        f"--workdir={tmp_path / 'out'}",
        "--min_score=0.02",
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert "broken.jpg: not a readable picture" in result.stdout
    found = json.loads((tmp_path / "out/detections.json").read_text())
    assert [image["file_name"] for image in found["images"]] == ["1.jpg", "2.jpg"]
    assert [category["name"] for category in found["categories"]] == ["blue", "red"]
    assert found["annotations"]
    for row in found["annotations"]:
        x, y, width, height = row["bbox"]
        assert -0.01 <= x and x + width <= 100.01 and -0.01 <= y and y + height <= 80.01
        assert row["score"] >= 0.02
    assert cv2.imread(str(tmp_path / "out/1.jpg")).shape == (80, 100, 3)


def test_detect_draws_a_video(trained, tmp_path):
    source = cv2.VideoWriter(
        str(tmp_path / "film.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10.0, (96, 64)
    )
    for i in range(5):
        source.write(np.full((64, 96, 3), 40 * i, np.uint8))
    source.release()
    result = run(
        "detect",
        f"--model={trained / 'model_float16.tflite'}",
        f"--input={tmp_path / 'film.mp4'}",
        f"--workdir={tmp_path / 'out'}",
    )
    assert result.returncode == 0, result.stderr[-2000:]
    drawn = cv2.VideoCapture(str(tmp_path / "out/film.mp4"))
    assert drawn.get(cv2.CAP_PROP_FRAME_COUNT) == 5
    assert len(json.loads((tmp_path / "out/detections.json").read_text())["images"]) == 5


def test_export_model_exports(trained, tmp_path):
    result = run("export_model", f"--model={trained}", "--export=float16", f"--workdir={tmp_path}")
    assert result.returncode == 0, result.stderr[-2000:]
    assert os.listdir(tmp_path) == ["model_float16.tflite"]


@pytest.mark.parametrize(
    "app, flags, message",
    [
        ("train_detector", ["--dataset=voc:/nowhere"], "error: "),
        ("train_detector", ["--dataset=nonsense"], "received: nonsense"),
        ("train_detector", ["--workdir=/proc/none"], "--workdir=/proc/none: can't be written"),
        ("train_detector", ["--priors=3x4"], "--priors: is for --model=yolo_v2_darknet19"),
        ("train_detector", ["--model=mask_rcnn_mobilenet_v2", "--dataset=voc:a"], "masks and key"),
        ("train_detector", ["stray"], "flags start with --; received: stray"),
        ("evaluate_detector", [], "--model: name a run folder"),
        ("evaluate_detector", ["--model=/nowhere"], "/nowhere: expected a run folder"),
        ("detect", ["--model=a", "--input=/nowhere"], "--input=/nowhere: there is no such file"),
        ("export_model", ["--model=a", "--export=int8"], "--dataset: int8 needs pictures"),
    ],
)
def test_mistakes_are_told_in_one_line(app, flags, message, tmp_path):
    if not any(flag.startswith("--workdir") for flag in flags):
        flags = [*flags, f"--workdir={tmp_path}"]
    result = run(app, *flags)
    assert result.returncode != 0
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and message in last
    assert "Traceback" not in result.stderr


def test_other_flags_in_a_used_folder_are_refused(pictures, trained):
    result = run(
        "train_detector", f"--dataset=voc:{pictures}", f"--workdir={trained}", *TRAIN, "--seed=7"
    )
    assert result.returncode != 0
    assert "--seed=0 (now 7)" in result.stderr.strip().splitlines()[-1]


def test_a_fresh_process_says_no_more_than_the_mistake(tmp_path):
    """Nothing of what TensorFlow prints at its start."""
    flags = ["--model=/nowhere", f"--workdir={tmp_path}"]
    result = subprocess.run(
        command("evaluate_detector", *flags), capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr.startswith("error: /nowhere: expected a run folder")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_flagfile_parses(path):
    result = run(path.parent.name, f"--flagfile={path}", "--only_check_args")
    assert result.returncode == 0, result.stderr
    text = path.read_text()
    for word in ("python apps/", "Time:", "Result:"):
        assert word in text, f"{path}: the header must state it"


@pytest.mark.parametrize("app", [path.stem for path in sorted(ROOT.glob("apps/*.py"))])
def test_help_is_worth_reading(app):
    result = run(app, "--help")
    assert f"python apps/{app}.py" in result.stdout and "\n  --workdir: " in result.stdout
