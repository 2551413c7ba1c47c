"""The segmenter's apps as a user runs them: processes, files, and what they print."""

import csv
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

ROOT = pathlib.Path(__file__).parents[2]
TRAIN = [
    "--model=unet", "--padding=same", "--filters=4", "--image_size=32x48", "--epochs=4",
    "--batch_size=2", "--learning_rate=0.01", "--warmup_epochs=0", "--batch_norm_momentum=0.8",
    "--class_balance=median_frequency", "--elastic=2", "--deterministic",
]  # fmt: skip
CLASSES = "0 ground 90 90 90\n7 red 255 0 0\n9 blue 0 0 255\n255 void\n"


def command(app, *flags):
    return [sys.executable, str(ROOT / "apps" / f"{app}.py"), *map(str, flags)]


def run(app, *flags):
    return processes.run(f"apps/{app}.py", *flags)


def fails(app, flags, message):
    result = run(app, *flags)
    assert result.returncode != 0
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and message in last, last
    assert "Traceback" not in result.stderr


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A red and a blue square on a noisy ground, each picture with its labels."""
    root = tmp_path_factory.mktemp("squares")
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 3)):
        for name in ("images", "labels"):
            (root / split / name).mkdir(parents=True)
        for i in range(count):
            image = rng.integers(60, 120, (40, 60, 3), "uint8")
            labels = np.zeros((40, 60), "uint8")
            for value, color, left in ((7, (30, 30, 220), 0), (9, (220, 30, 30), 30)):
                y, x = rng.integers(2, 14, 2)
                image[y : y + 20, left + x : left + x + 14] = color
                labels[y : y + 20, left + x : left + x + 14] = value
            labels[:, -1] = 255
            cv2.imwrite(str(root / split / f"images/{i}.png"), image)
            cv2.imwrite(str(root / split / f"labels/{i}.png"), labels)
    (root / "classes.txt").write_text(CLASSES)
    return root


@pytest.fixture(scope="module")
def trained(pictures, tmp_path_factory):
    """The run folder of one uninterrupted run with two exports."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    result = run(
        "train_segmenter",
        f"--dataset=folder:{pictures}",
        f"--workdir={workdir}",
        "--export=saved_model,float32",
        *TRAIN,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert "mean IoU" in result.stdout and str(workdir) in result.stdout
    assert "8 pictures to train on, 3 to validate, 3 to test; 3 classes: ground" in result.stdout
    return workdir


def test_a_run_leaves_what_it_promises(trained):
    names = {path.name for path in trained.iterdir()}
    assert {
        "flags.txt", "metrics.json", "history.csv", "tensorboard", "curves.png", "samples.png",
        "classes.png", "confusion.png", "confusion.csv", "best.keras", "last.keras",
        "saved_model", "model_float32.tflite",
    } <= names  # fmt: skip
    assert not [name for name in names if name.startswith(".")]
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["mean_iou"] > 0.5 and metrics["pixel_accuracy"] > 0.7
    assert [row["name"] for row in metrics["per_class"]] == ["ground", "red", "blue"]
    assert metrics["pictures"] == 3 and metrics["seconds"]["training"] > 0
    assert metrics["peak_memory_bytes"] > 1e8
    # Void isn't counted.
    assert sum(row["pixels"] for row in metrics["per_class"]) == 3 * 40 * 59
    with open(trained / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    assert {"loss", "accuracy", "val_mean_iou", "val_pixel_accuracy", "seconds"} <= set(rows[0])
    for name in ("curves.png", "samples.png", "classes.png", "confusion.png"):
        assert cv2.imread(str(trained / name)).std() > 5


@pytest.mark.parametrize("weight", [pytest.param(0, marks=pytest.mark.slow), 10])
def test_cells_are_measured_and_their_borders_weigh_if_asked(pictures, trained, tmp_path, weight):
    result = run(
        "train_segmenter", f"--dataset=folder:{pictures}", f"--workdir={tmp_path}", *TRAIN,
        "--export=", "--cells=red", f"--border_weight={weight}",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert 0 <= metrics["membranes"]["pixel_error"] < 0.3
    histories = [(folder / "history.csv").read_text() for folder in (trained, tmp_path)]
    losses = [[row["loss"] for row in csv.DictReader(text.splitlines())] for text in histories]
    assert (losses[0] == losses[1]) == (weight == 0)


@pytest.mark.slow  # as that of the classifier's app, on other batches
def test_killed_and_resumed_run_ends_the_same(pictures, trained, tmp_path):
    """Killed while the second checkpoint is written; it goes on with its flags.txt."""
    workdir = tmp_path / "run"
    flags = [f"--dataset=folder:{pictures}", f"--workdir={workdir}", *TRAIN]
    process = subprocess.Popen(
        command("train_segmenter", *flags), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    history = workdir / "history.csv"
    deadline = time.time() + 280
    while not (history.exists() and len(history.read_text().splitlines()) > 2):
        assert process.poll() is None, process.stdout.read().decode()[-2000:]
        assert time.time() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    result = run("train_segmenter", f"--flagfile={workdir / 'flags.txt'}", "--export=")
    assert result.returncode == 0, result.stderr[-2000:]
    assert "going on after epoch" in result.stdout

    expected = json.loads((trained / "metrics.json").read_text())
    received = json.loads((workdir / "metrics.json").read_text())
    for name in ("mean_iou", "pixel_accuracy", "boundary_f1", "epoch"):
        assert received[name] == pytest.approx(expected[name], rel=1e-4), name


@pytest.mark.parametrize("model", ["", "model_float32.tflite"])
def test_evaluate_segmenter_agrees_with_the_run(pictures, trained, tmp_path, model):
    expected = json.loads((trained / "metrics.json").read_text())
    result = run(
        "evaluate_segmenter",
        f"--model={trained / model}",
        f"--dataset=folder:{pictures}",
        f"--workdir={tmp_path}",
        "--cells=red",
    )
    assert result.returncode == 0, result.stderr[-2000:]
    received = json.loads((tmp_path / "metrics.json").read_text())
    assert received["mean_iou"] == pytest.approx(expected["mean_iou"], abs=1e-3)
    assert received["boundary_f1"] == pytest.approx(expected["boundary_f1"], abs=1e-3)
    assert 0 <= received["membranes"]["pixel_error"] < 0.3
    names = {"metrics.json", "confusion.png", "confusion.csv", "classes.png", "samples.png"}
    assert names == {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("tiles", [["--tiles"], ["--notiles"], ["--tiles", "--average_turns"]])
def test_segment_draws_and_writes_labels(pictures, trained, tmp_path, tiles):
    (tmp_path / "input").mkdir()
    picture = cv2.imread(str(pictures / "val/images/0.png"))
    cv2.imwrite(str(tmp_path / "input/a.png"), picture)
    cv2.imwrite(str(tmp_path / "input/small.png"), picture[:1, :1])
    (tmp_path / "input/broken.jpg").write_bytes(b"\xff\xd8\xff")
    workdir = tmp_path / "output"
    result = run(
        "segment", f"--model={trained}", f"--input={tmp_path / 'input'}", f"--workdir={workdir}",
        f"--class_list={pictures / 'classes.txt'}", "--opacity=1", *tiles,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    assert "broken.jpg: not a readable picture" in result.stdout
    assert "2 pictures" in result.stdout
    found = cv2.imread(str(workdir / "a.png_labels.png"), cv2.IMREAD_UNCHANGED)
    truth = cv2.imread(str(pictures / "val/labels/0.png"), cv2.IMREAD_UNCHANGED)
    truth = np.select([truth == 7, truth == 9], [1, 2], 0)
    assert found.shape == (40, 60) and (found == truth).mean() > 0.7
    overlay = cv2.imread(str(workdir / "a.png_overlay.png"))[:, :, ::-1]
    colors = np.array([[90, 90, 90], [255, 0, 0], [0, 0, 255]])
    np.testing.assert_array_equal(overlay, colors[found])
    result = json.loads((workdir / "segments.json").read_text())
    assert result["classes"] == ["ground", "red", "blue"]
    shares = {row["file_name"]: row["shares"] for row in result["pictures"]}
    assert set(shares) == {"a.png", "small.png"}
    assert shares["a.png"]["red"] == pytest.approx((found == 1).mean(), abs=1e-5)


def test_export_model_exports(trained, tmp_path):
    result = run("export_model", f"--model={trained}", f"--workdir={tmp_path}", "--export=float16")
    assert result.returncode == 0, result.stderr[-2000:]
    assert (tmp_path / "model_float16.tflite").is_file()


def test_bad_labels_are_told_in_one_line(pictures, tmp_path):
    for name in ("images", "labels"):
        (tmp_path / "train" / name).mkdir(parents=True)
    image = cv2.imread(str(pictures / "val/images/0.png"))
    cv2.imwrite(str(tmp_path / "train/images/0.png"), image)
    cv2.imwrite(str(tmp_path / "train/labels/0.png"), np.zeros((39, 60), "uint8"))
    flags = [f"--dataset=folder:{tmp_path}", f"--workdir={tmp_path / 'run'}"]
    fails("train_segmenter", flags, "a line 'value name [red green blue]'")
    flags.append(f"--class_list={CLASSES}")
    fails("train_segmenter", flags, "60 x 40 pixels; received: 60 x 39")


@pytest.mark.parametrize(
    "app, flags, message",
    [
        ("train_segmenter", ["--image_size=240"], "HEIGHTxWIDTH; received: 240"),
        ("train_segmenter", ["--filters=8"], "--filters: is for --model=unet"),
        ("train_segmenter", ["--model=fcn8s", "--padding=same"], "number of pixels for --model=f"),
        ("train_segmenter", ["--balance_exponent=0.5"], "is for --class_balance=median_frequency"),
        ("train_segmenter", ["--border_weight=3"], "--border_weight: needs --cells"),
        ("train_segmenter", ["--average_turns"], "--average_turns: needs --tiles"),
        ("train_segmenter", ["--dataset=voc:a"], "folder:PATH or tfds:NAME; received: voc:a"),
        ("evaluate_segmenter", [], "--model: name a run folder"),
        ("evaluate_segmenter", ["--model=/nowhere"], "/nowhere: expected a run folder"),
        ("segment", ["--model=a"], "--input: is needed"),
        ("segment", ["--model=a", "--input=/nowhere"], "--input=/nowhere: there is no such file"),
    ],
)
def test_mistakes_are_told_in_one_line(app, flags, message, tmp_path):
    fails(app, [*flags, f"--workdir={tmp_path}"], message)


def test_a_network_of_the_middle_needs_tiles(pictures, tmp_path):
    flags = [f"--dataset=folder:{pictures}", "--model=unet", "--filters=2", "--image_size=188x188"]
    fails("train_segmenter", [*flags, f"--workdir={tmp_path}"], "--tiles: is needed by a network")


def test_a_segmenter_of_other_classes_is_refused(pictures, trained, tmp_path):
    flags = [f"--model={trained}", f"--dataset=folder:{pictures}", f"--workdir={tmp_path}"]
    classes = "--class_list=0 a / 7 b / 9 c / 255 void"
    fails("evaluate_segmenter", [*flags, classes], "['ground', 'red', 'blue']; received: ['a'")
