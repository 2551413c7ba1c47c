"""attack, and adversarial training, as a user runs them."""

import json
import os

import cv2
import numpy as np
import processes
import pytest

SMALL = ["--epsilon=8", "--count=4", "--batch_size=3"]


def run(*flags):
    return processes.run("apps/attack.py", *flags)


def attack(workdir, *flags):
    result = run(f"--workdir={workdir}", *flags)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout, json.loads((workdir / "metrics.json").read_text())


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Tells red, green and blue pictures apart by their mean colours."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    from keras import layers

    from kerasvision.classification import Classifier

    images = keras.Input((12, 12, 3), name="images")
    x = layers.Rescaling(1 / 255)(images)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(3, name="predictions")(x)
    network = keras.Model(images, x)
    network.get_layer("predictions").set_weights([20 * np.eye(3), np.zeros(3)])
    path = tmp_path_factory.mktemp("model") / "colours.keras"
    Classifier(network, ["red", "green", "blue"]).save(path)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Six pictures, two of each colour, one of the six under a wrong number; and a broken file."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(6):
        picture = rng.integers(100, 120, (12, 16, 3)).astype("uint8")
        picture[..., number % 3] += 6
        label = number % 3 if number < 5 else 0
        cv2.imwrite(str(folder / f"{label}_{number}.png"), picture[..., ::-1])
    (folder / "0_broken.png").write_bytes(b"no picture")
    return folder


def read(path):
    return cv2.imread(str(path))[..., ::-1].astype("float64")


@pytest.mark.parametrize("method", ["fgsm", "pgd"])
def test_pictures_are_taken_for_others(method, model, pictures, tmp_path):
    flags = [f"--model={model}", f"--input={pictures}", "--labels_from_names", *SMALL]
    printed, metrics = attack(tmp_path / "run", f"--method={method}", *flags)
    assert "0_broken.png: not a readable picture, left out" in printed
    assert metrics["pictures"] == 4 and metrics["success_rate"] == 1.0
    assert metrics["pictures_read"] == 6 and metrics["accuracy"] == pytest.approx(5 / 6)
    assert metrics["largest_linf"] == 8 and metrics["norm"] == "linf"
    for changed in metrics["changed"]:
        assert changed["label"] != changed["prediction"] and changed["success"]
        x = read(tmp_path / "run" / "adversarial" / f"{changed['file_name']}.png")
        before = read(pictures / changed["file_name"])[:, 2:14]
        assert np.abs(x - before).max() <= changed["linf"] == 8
        own = "red green blue".split().index(changed["label"])
        assert x.mean((0, 1)).argmax() != own == before.mean((0, 1)).argmax()
    assert read(tmp_path / "run" / "sheet.png").std() > 0


def test_targets_and_another_network(model, pictures, tmp_path):
    flags = [f"--model={model}", f"--input={pictures}", f"--transfer_model={model}", *SMALL]
    _, metrics = attack(tmp_path / "run", "--targeted", "--target=blue", *flags)
    assert [c["target"] for c in metrics["changed"]] == ["blue"] * metrics["pictures"]
    assert all(c["label"] != "blue" for c in metrics["changed"])
    assert metrics["success_rate"] == 1.0
    # The other network is the same one.
    assert metrics["transfer"]["taken_for_another"] == metrics["transfer"]["taken_for_target"] == 1


@pytest.mark.parametrize("method", ["deepfool", "lbfgs"])
def test_the_least_change(method, model, pictures, tmp_path):
    flags = [f"--model={model}", f"--input={pictures}", f"--method={method}"]
    _, metrics = attack(tmp_path / "run", *flags, "--count=1", "--steps=10")
    assert metrics["success_rate_unrounded"] == 1.0
    before = read(pictures / metrics["changed"][0]["file_name"])[:, 2:14].mean((0, 1))
    least = np.sqrt(144 / 2) * np.diff(np.sort(before))[-1]  # to where two colours are alike
    assert least <= metrics["mean_l2_unrounded"] < 1.3 * least


def test_fooling_pictures_evolve(model, tmp_path):
    flags = ["--method=evolve", "--encoding=direct", "--generations=300", "--confidence=0.9"]
    printed, metrics = attack(tmp_path / "run", f"--model={model}", *flags, "--target=red,2")
    assert "2 of 2 classes at 0.9 or more" in printed
    assert metrics["classes_reached"] == 2 and metrics["least_score"] >= 0.9
    assert list(metrics["scores"]) == ["0 red", "2 blue"]
    for name, channel in (("0000_red", 0), ("0002_blue", 2)):
        means = read(tmp_path / "run" / f"{name}.png").mean((0, 1))
        assert means.argmax() == channel
    history = np.loadtxt(tmp_path / "run" / "history.csv", delimiter=",", skiprows=1)
    assert (np.diff(history[:, 1:], axis=0) >= 0).all()
    assert len(history) == metrics["generations"] + 1


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--input=PICTURES"], "--model: is needed; received: nothing"),
        (["--model=MODEL"], "--input: is needed; received: nothing"),
        (["--model=MODEL", "--input=nowhere"], "nowhere"),
        (
            ["--model=MODEL", "--input=PICTURES", "--targeted", "--target=gren"],
            "gren",
        ),
        (["--model=MODEL", "--input=PICTURES", "--targeted", "--target=7"], "received: 7"),
        (
            ["--model=MODEL", "--input=PICTURES", "--target=red"],
            "--target: needs --targeted; received: --target=red",
        ),
        (["--model=MODEL", "--method=evolve", "--epsilon=4"], "--epsilon"),
        (["--model=MODEL", "--input=PICTURES", "--epsilon=much"], "much"),
    ],
)
def test_mistakes_are_told_in_one_line(flags, message, model, pictures, tmp_path):
    flags = [f.replace("MODEL", str(model)).replace("PICTURES", str(pictures)) for f in flags]
    result = run(f"--workdir={tmp_path / 'run'}", *flags)
    lines = [line for line in result.stderr.splitlines() if line.startswith("error")]
    assert result.returncode != 0 and len(lines) == 1 and message in lines[0], result.stderr[-2000:]
