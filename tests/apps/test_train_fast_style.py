"""train_fast_style, and translate with what it trained, as a user runs them."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import processes
import pytest

TINY = [
    "--content_layers=deep", "--style_layers=first,deep", "--image_size=44", "--batch_size=2",
    "--filters=4", "--epochs=3", "--export_size=44x48", "--style_weight=100", "--samples=2",
]  # fmt: skip


def runs(app, workdir, *flags):
    result = processes.run(f"apps/{app}.py", f"--workdir={workdir}", *flags)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A small network, six photos, and a red style."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    from keras import layers

    folder = tmp_path_factory.mktemp("inputs")
    keras.utils.set_random_seed(0)
    images = keras.Input((None, None, 3))
    x = layers.Rescaling(1 / 255)(images)
    conv = {"padding": "same", "activation": "relu"}
    x = layers.Conv2D(6, 3, **conv, name="first")(x)
    x = layers.Conv2D(8, 3, strides=2, **conv, name="deep")(x)
    keras.Model(images, x).save(folder / "small.keras")
    rng = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for number in range(6):
        coarse = rng.integers(0, 256, (6, 8, 3), "uint8")
        cv2.imwrite(str(folder / "photos" / f"{number}.png"), cv2.resize(coarse, (64, 50)))
    red = np.zeros((50, 60, 3), "uint8")
    red[:, ::4] = (40, 40, 250)
    cv2.imwrite(str(folder / "red.png"), red)
    return folder


def flags_of(inputs):
    photos = inputs / "photos"
    return [
        f"--model={inputs / 'small.keras'}", f"--style={inputs / 'red.png'}",
        f"--dataset=folder:{photos}", f"--test_input={photos}", *TINY,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def trained(inputs, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trained")
    printed = runs("train_fast_style", workdir, *flags_of(inputs))
    assert "6 pictures to train on, 3 steps an epoch; 6 of 6 to test on" in printed
    return workdir


def losses(workdir):
    names, *rows = (workdir / "history.csv").read_text().splitlines()
    place = names.split(",").index("loss")
    return [float(row.split(",")[place]) for row in rows]


def test_it_leaves_what_it_promises(trained):
    names = {path.name for path in trained.iterdir()}
    assert names == {
        "flags.txt", "metrics.json", "history.csv", "tensorboard", "curves.png", "samples",
        "samples.png", "training.gif", "last.keras", "saved_model", "model_float32.tflite",
        "model_float16.tflite",
    }  # fmt: skip
    metrics = json.loads((trained / "metrics.json").read_text())
    found = losses(trained)
    assert len(found) == 3 and found[-1] < found[0]
    for terms in (metrics["painted"], metrics["as_they_are"]):
        assert terms["loss"] == pytest.approx(terms["content"] + terms["style"] + terms["tv"])
    assert metrics["as_they_are"]["content"] == pytest.approx(0, abs=1e-6)
    assert metrics["pictures"] == 6 and metrics["epoch"] == 3


def test_exports_paint_as_the_model(trained):
    import keras
    from ai_edge_litert.interpreter import Interpreter

    import kerasvision.synthesis  # noqa: F401, registers the model's class

    model = keras.saving.load_model(trained / "last.keras")
    x = np.random.default_rng(0).uniform(0, 255, (1, 44, 48, 3)).astype("float32")
    expected = model.predict_on_batch(x)
    litert = Interpreter(str(trained / "model_float32.tflite"))
    litert.allocate_tensors()
    litert.set_tensor(litert.get_input_details()[0]["index"], x)
    litert.invoke()
    received = litert.get_tensor(litert.get_output_details()[0]["index"])
    np.testing.assert_allclose(received, expected, atol=0.1)


def test_translate_paints_pictures_of_any_size(trained, inputs, tmp_path):
    small = np.zeros((20, 60, 3), "uint8")
    (tmp_path / "input").mkdir()
    cv2.imwrite(str(tmp_path / "input" / "small.png"), small)
    photo = cv2.imread(str(inputs / "photos" / "0.png"))
    cv2.imwrite(str(tmp_path / "input" / "photo.png"), photo[:49, :63])
    out = tmp_path / "out"
    printed = runs("translate", out, f"--model={trained}", f"--input={tmp_path / 'input'}")
    assert "small.png: left out; image: must have 41 x 41 pixels or more" in printed
    assert cv2.imread(str(out / "photo.png.png")).shape == (49, 63, 3)


@pytest.mark.slow
def test_the_descent_is_compared_with_by_the_loss_it_was_trained_with(trained, inputs):
    result = processes.run(
        "tools/compare_styles.py", f"--model={trained}", f"--style={inputs / 'red.png'}",
        f"--input={inputs / 'photos'}", "--count=6", "--image_size=44", "--iterations=25",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    told = dict(re.findall(r"^ {2,3}(\S.*?) +(\d+\.\d+)$", result.stdout, re.MULTILINE))
    assert list(told) == ["as they are", "painted by the network", "10 iterations", "25 iterations"]
    assert float(told["25 iterations"]) < float(told["10 iterations"])
    # The same layers, weights and style as when it was trained; crops differ by a little.
    metrics = json.loads((trained / "metrics.json").read_text())
    for kind, name in (("as_they_are", "as they are"), ("painted", "painted by the network")):
        assert float(told[name]) == pytest.approx(metrics[kind]["loss"], rel=0.1)


@pytest.mark.slow
def test_a_killed_training_ends_the_same(trained, inputs, tmp_path):
    command = [sys.executable, "apps/train_fast_style.py", f"--workdir={tmp_path}"]
    process = subprocess.Popen([*command, *flags_of(inputs)], stdout=subprocess.DEVNULL)
    while process.poll() is None:
        history = tmp_path / "history.csv"
        if history.is_file() and len(history.read_text().splitlines()) >= 3:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.05)
    process.wait()
    assert "going on after epoch" in runs("train_fast_style", tmp_path, *flags_of(inputs))
    assert losses(tmp_path) == pytest.approx(losses(trained), rel=1e-4)


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--style="], "there is no such file"),
        (["--style=INPUTS/small.keras"], "small.keras: not a readable picture"),
        (["--dataset=folder:nowhere"], "must be of scenes and folder:PATH; received: folder:now"),
        (["--image_size=46"], "--image_size: must be a multiple of 4; received: 46"),
        (["--style_layers=fist"], "no layer fist; near it are first"),
    ],
)
def test_mistakes_are_told_in_one_line(flags, message, inputs, tmp_path):
    flags = [flag.replace("INPUTS", str(inputs)) for flag in flags]
    flags = [f"--workdir={tmp_path / 'run'}", *flags_of(inputs), *flags]
    result = processes.run("apps/train_fast_style.py", *flags)
    last = result.stderr.strip().splitlines()[-1]
    assert result.returncode != 0 and last.startswith("error: ") and message in last, last
    assert "Traceback" not in result.stderr
