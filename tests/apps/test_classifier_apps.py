"""The classifier's apps as a user runs them: processes, files, and what they print."""

import csv
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import cv2
import keras
import numpy as np
import PIL.Image
import processes
import pytest

ROOT = pathlib.Path(__file__).parents[2]
TRAIN = [
    "--model=cifar_resnet", "--depth=8", "--image_size=16", "--epochs=4", "--batch_size=4",
    "--learning_rate=0.02", "--warmup_epochs=0", "--pad=1", "--mixup=0.2", "--deterministic",
]  # fmt: skip
COLORS = {"blue": (200, 40, 40), "green": (40, 200, 40), "red": (40, 40, 200)}


def command(app, *flags):
    return [sys.executable, str(ROOT / "apps" / f"{app}.py"), *map(str, flags)]


def run(app, *flags):
    return processes.run(f"apps/{app}.py", *flags)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of noisy pictures of three colours, a folder a class, and one broken picture."""
    root = tmp_path_factory.mktemp("colors")
    rng = np.random.default_rng(0)
    for split, count in [("train", 4), ("val", 2)]:
        for name, color in COLORS.items():
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                image = np.clip(rng.normal(color, 30, (20, 24, 3)), 0, 255).astype("uint8")
                cv2.imwrite(str(root / split / name / f"{i}.png"), image)
    (root / "train/red/broken.jpg").write_bytes(b"\xff\xd8\xff")
    return root


@pytest.fixture(scope="module")
def trained(pictures, tmp_path_factory):
    """The run folder of one uninterrupted run with all exports."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    result = run("train_classifier", f"--dataset=folder:{pictures}", f"--workdir={workdir}", *TRAIN)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "top-1 accuracy" in result.stdout and str(workdir) in result.stdout
    assert "broken.jpg" in result.stdout
    assert "12 pictures to train on, 6 to validate, 6 to test; 3 classes: blue" in result.stdout
    return workdir


def test_a_run_leaves_what_it_promises(trained):
    names = {path.name for path in trained.iterdir()}
    assert {
        "flags.txt", "metrics.json", "history.csv", "tensorboard", "curves.png", "samples.png",
        "confusion.png", "confusion.csv", "most_confused.png", "best.keras", "last.keras",
        "saved_model", "model_float32.tflite", "model_float16.tflite", "model_int8.tflite",
    } <= names  # fmt: skip
    assert not [name for name in names if name.startswith(".")]
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["accuracy"] >= 0.5 and metrics["top5"] == 1.0
    assert [row["name"] for row in metrics["per_class"]] == list(COLORS)
    assert metrics["pictures"] == 6 and metrics["seconds"]["training"] > 0
    with open(trained / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    assert {"loss", "accuracy", "val_loss", "val_accuracy", "seconds"} <= set(rows[0])
    for name in ("curves.png", "samples.png", "confusion.png"):
        assert cv2.imread(str(trained / name)).std() > 5


@pytest.mark.slow
def test_killed_and_resumed_run_ends_the_same(pictures, trained, tmp_path):
    """Killed while the second checkpoint is written; it goes on with its flags.txt."""
    workdir = tmp_path / "run"
    flags = [f"--dataset=folder:{pictures}", f"--workdir={workdir}", *TRAIN]
    process = subprocess.Popen(
        command("train_classifier", *flags), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    history = workdir / "history.csv"
    deadline = time.time() + 280
    while not (history.exists() and len(history.read_text().splitlines()) > 2):
        assert process.poll() is None, process.stdout.read().decode()[-2000:]
        assert time.time() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    result = run("train_classifier", f"--flagfile={workdir / 'flags.txt'}", "--export=")
    assert result.returncode == 0, result.stderr[-2000:]
    assert "going on after epoch" in result.stdout

    expected = json.loads((trained / "metrics.json").read_text())
    received = json.loads((workdir / "metrics.json").read_text())
    for name in ("accuracy", "loss", "epoch"):
        assert received[name] == pytest.approx(expected[name], rel=1e-4), name

    def losses(folder):
        with open(folder / "history.csv", newline="") as file:
            return [float(row["loss"]) for row in csv.DictReader(file)]

    assert losses(workdir) == pytest.approx(losses(trained), rel=1e-4)


def test_evaluate_classifier_agrees_with_the_run(pictures, trained, tmp_path):
    expected = json.loads((trained / "metrics.json").read_text())
    for model, tolerance in [("", 1e-6), ("saved_model", 1e-5), ("model_float32.tflite", 1e-4)]:
        result = run(
            "evaluate_classifier",
            f"--model={trained / model}",
            f"--dataset=folder:{pictures}",
            f"--workdir={tmp_path}",
        )
        assert result.returncode == 0, result.stderr[-2000:]
        received = json.loads((tmp_path / "metrics.json").read_text())
        assert received["loss"] == pytest.approx(expected["loss"], abs=tolerance)
        assert received["accuracy"] == expected["accuracy"]
        names = {"metrics.json", "confusion.png", "confusion.csv", "most_confused.png"}
        assert names | {"samples.png"} == {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("crops", ["ten_crop", "dense"])
def test_evaluate_classifier_with_several_crops(pictures, trained, tmp_path, crops):
    result = run(
        "evaluate_classifier",
        f"--model={trained}",
        f"--dataset=folder:{pictures}",
        f"--workdir={tmp_path}",
        f"--crops={crops}",
        "--sides=18,20",
    )
    assert result.returncode == 0, result.stderr[-2000:]
    received = json.loads((tmp_path / "metrics.json").read_text())
    # Pictures of one colour look alike everywhere, so this is better than guessing.
    assert received["accuracy"] >= 0.5 and received["loss"] < np.log(3)
    assert received["crops"] == crops and (tmp_path / "samples.png").exists()


def test_classify_tells_and_draws(pictures, trained, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    image = PIL.Image.open(pictures / "val/red/0.png")
    image.save(folder / "a.png")
    # Upside down, and told so by the camera: it is turned back.
    exif = PIL.Image.Exif()
    exif[PIL.ExifTags.Base.Orientation] = 3
    image.rotate(180).save(folder / "b.png", exif=exif)
    (folder / "broken.jpg").write_bytes(b"")
    result = run(
        "classify",
        f"--model={trained}",
        f"--input={folder}",
        f"--workdir={tmp_path / 'out'}",
        "--top=2",
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert "broken.jpg: not a readable picture" in result.stdout
    found = json.loads((tmp_path / "out/predictions.json").read_text())
    assert [row["file_name"] for row in found] == ["a.png", "b.png"]
    assert found[0]["predictions"] == found[1]["predictions"]
    best, second = found[0]["predictions"]
    assert 1 >= best["score"] >= second["score"] >= 0 and best["class"] in COLORS
    assert f"a.png: {best['class']} {best['score']:.3f}, {second['class']}" in result.stdout
    assert cv2.imread(str(tmp_path / "out/predictions.png")).std() > 5


def test_export_model_exports_a_classifier(pictures, trained, tmp_path):
    result = run(
        "export_model",
        f"--model={trained}",
        f"--dataset=folder:{pictures}",
        "--export=int8",
        f"--workdir={tmp_path}",
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert os.listdir(tmp_path) == ["model_int8.tflite"]


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--dataset=nonsense"], "received: nonsense"),
        (["--dataset=folder:/nowhere"], "/nowhere"),
        (["--model=resnet50", "--depth=20"], "--depth: is for --model=cifar_resnet or cifar_den"),
        (["--freeze_backbone"], "--freeze_backbone: needs --weights"),
        (["--dataset=digits", "--model=lenet5", "--image_size=20"], "at least 32 x 32"),
        (["--dataset=digits", "--model=cifar_resnet", "--depth=21"], "depth must be 6n + 2"),
    ],
)
def test_mistakes_in_training_are_told_in_one_line(flags, message, tmp_path):
    _fails("train_classifier", [f"--workdir={tmp_path}", *flags], message)


def test_weights_of_another_network_are_refused(tmp_path):
    images = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(5, 3, use_bias=False, name="conv1_conv")(images)
    keras.Model(images, x).save(tmp_path / "other.h5")
    flags = ["--dataset=digits", "--model=cifar_resnet", f"--weights={tmp_path / 'other.h5'}"]
    _fails("train_classifier", [f"--workdir={tmp_path / 'run'}", *flags], "other.h5")


def test_a_classifier_of_other_classes_is_refused(trained, tmp_path):
    flags = [f"--model={trained}", "--dataset=digits", f"--workdir={tmp_path}"]
    message = "3 (blue, green, red); received: 10 (0, 1, 2, 3, 4, …)"
    _fails("evaluate_classifier", flags, message)


@pytest.mark.parametrize(
    "app, flags, message",
    [
        ("evaluate_classifier", [], "--model: name a run folder"),
        ("classify", ["--model=a"], "--input: is needed"),
        ("classify", ["--model=/nowhere", f"--input={ROOT / 'docs'}"], "expected a run folder"),
        ("classify", ["--model=a", "--input=/nowhere"], "--input=/nowhere: there is no such file"),
    ],
)
def test_mistakes_are_told_in_one_line(app, flags, message, tmp_path):
    _fails(app, [*flags, f"--workdir={tmp_path}"], message)


def _fails(app, flags, message):
    result = run(app, *flags)
    assert result.returncode != 0
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and message in last
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_a_backbone_with_weights_gets_a_new_classifier(pictures, tmp_path):
    """Trained with a frozen backbone, only the classifier changes."""
    from kerasvision.backbones.cifar_resnet import cifar_resnet

    keras.utils.set_random_seed(0)
    backbone = cifar_resnet((16, 16, 3), num_classes=7, depth=8)
    backbone.save(tmp_path / "weights.h5")
    result = run(
        "train_classifier", f"--dataset=folder:{pictures}", f"--workdir={tmp_path / 'run'}",
        "--model=cifar_resnet", "--depth=8", "--image_size=16", f"--weights={tmp_path}/weights.h5",
        "--freeze_backbone", "--epochs=1", "--batch_size=4", "--export=",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    from kerasvision.classification import load_classifier

    network = load_classifier(tmp_path / "run").network
    assert network.get_layer("predictions").output.shape == (None, 3)
    for name in ("conv1_conv", "conv4_block1_2_bn"):
        for before, after in zip(
            backbone.get_layer(name).get_weights(), network.get_layer(name).get_weights()
        ):
            np.testing.assert_array_equal(before, after)
