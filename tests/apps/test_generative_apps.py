"""The generative apps as a user runs them: processes, files, and what they print."""

import csv
import json
import pathlib
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import PIL.Image
import processes
import pytest

ROOT = pathlib.Path(__file__).parents[2]
GAN = [
    "--dataset=digits", "--train_split=val", "--model=dcgan", "--image_size=16", "--gray",
    "--filters=4", "--latent_size=8", "--epochs=4", "--batch_size=16", "--deterministic",
]  # fmt: skip
PIX2PIX = [
    "--image_size=32x32", "--filters=4", "--epochs=4", "--batch_size=2", "--samples=2",
    "--learning_rate=0.002", "--deterministic",
]  # fmt: skip
CYCLEGAN = [
    "--image_size=32x32", "--filters=4", "--blocks=1", "--epochs=3", "--samples=2",
    "--pool_size=3", "--deterministic",
]  # fmt: skip


def run(app, *flags):
    return processes.run(f"apps/{app}.py", *flags)


def fails(app, flags, message):
    result = run(app, *flags)
    assert result.returncode != 0
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and message in last, last
    assert "Traceback" not in result.stderr


def trains(app, workdir, *flags):
    result = run(app, f"--workdir={workdir}", *flags)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


def kill_after_two_epochs(app, workdir, *flags):
    """Starts an app and kills it while it writes its second checkpoint."""
    command = [sys.executable, str(ROOT / f"apps/{app}.py"), f"--workdir={workdir}", *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    history = workdir / "history.csv"
    deadline = time.time() + 280
    while not (history.exists() and len(history.read_text().splitlines()) > 2):
        assert process.poll() is None, process.stdout.read().decode()[-2000:]
        assert time.time() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()


def losses(workdir):
    """{name: values} of the losses in a run folder's history."""
    with open(workdir / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return {n: [float(row[n]) for row in rows] for n in rows[0] if n not in ("epoch", "seconds")}


def assert_equal_losses(received, expected):
    received, expected = losses(received), losses(expected)
    assert received.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(received[name], values, rtol=1e-4, atol=1e-6, err_msg=name)


def frames(path):
    with PIL.Image.open(path) as picture:
        return picture.n_frames


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Side by side, a grey square and the same square in red, on a noisy ground."""
    root = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 3)):
        (root / split).mkdir()
        for number in range(count):
            left = rng.integers(40, 80, (40, 40, 3), "uint8")
            right = left.copy()
            y, x = rng.integers(2, 20, 2)
            left[y : y + 16, x : x + 16] = 200
            right[y : y + 16, x : x + 16] = (20, 20, 220)
            cv2.imwrite(str(root / split / f"{number}.png"), np.concatenate([left, right], 1))
    return root


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """The run folder of a classifier of digits."""
    workdir = tmp_path_factory.mktemp("classifier") / "run"
    trains(
        "train_classifier", workdir, "--dataset=digits", "--model=lenet5", "--image_size=32",
        "--epochs=1", "--learning_rate=0.003", "--export=",
    )  # fmt: skip
    return workdir


@pytest.fixture(scope="module")
def gan(classifier, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("gan") / "run"
    trains(
        "train_gan", workdir, *GAN, f"--classifier={classifier}", "--eval_every=2",
        "--eval_pictures=40", "--export=saved_model,float32",
    )  # fmt: skip
    return workdir


@pytest.fixture(scope="module")
def pix2pix(pairs, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("pix2pix") / "run"
    trains("train_pix2pix", workdir, f"--dataset=pairs:{pairs}", *PIX2PIX, "--export=float32")
    return workdir


@pytest.fixture(scope="module")
def cyclegan(pairs, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("cyclegan") / "run"
    trains("train_cyclegan", workdir, f"--dataset=pairs:{pairs}", *CYCLEGAN, "--export=float32")
    return workdir


def test_a_gan_leaves_what_it_promises(gan):
    names = {path.name for path in gan.iterdir()}
    assert names == {
        "flags.txt", "metrics.json", "history.csv", "tensorboard", "curves.png", "samples",
        "samples.png", "training.gif", "interpolations.png", "best.keras", "last.keras",
        "saved_model", "model_float32.tflite",
    }  # fmt: skip
    metrics = json.loads((gan / "metrics.json").read_text())
    assert sum(metrics["class_shares"].values()) == pytest.approx(1.0, abs=1e-3)
    assert list(metrics["class_shares"]) == list("0123456789")
    distances = losses_of_best(gan)
    assert metrics["frechet_distance"] == pytest.approx(min(distances)) and len(distances) == 2
    assert metrics["pictures"] == 40 and metrics["split"] == "val"
    # Six strips of nine, and 64 samples in rows of eight, of 64 pixels with 2 between them.
    assert cv2.imread(str(gan / "interpolations.png")).shape == (6 * 66 - 2, 9 * 66 - 2, 3)
    assert cv2.imread(str(gan / "samples.png")).shape == (8 * 66 - 2, 8 * 66 - 2, 3)
    assert len(list((gan / "samples").iterdir())) == frames(gan / "training.gif") == 4
    for name in ("samples.png", "interpolations.png", "curves.png"):
        assert cv2.imread(str(gan / name)).std() > 3


def losses_of_best(workdir):
    """The Fréchet distances of the epochs that were measured."""
    with open(workdir / "history.csv", newline="") as file:
        found = [row["val_frechet_distance"] for row in csv.DictReader(file)]
    return [float(value) for value in found if value]


@pytest.mark.slow
def test_a_killed_gan_ends_the_same(gan, classifier, tmp_path):
    workdir = tmp_path / "run"
    flags = [*GAN, f"--classifier={classifier}", "--eval_every=2", "--eval_pictures=40"]
    kill_after_two_epochs("train_gan", workdir, *flags)
    assert "going on after epoch" in trains("train_gan", workdir, *flags, "--export=")
    expected, received = (json.loads((w / "metrics.json").read_text()) for w in (gan, workdir))
    for name in ("generator_loss", "discriminator_loss", "frechet_distance", "epoch"):
        assert received[name] == pytest.approx(expected[name], rel=1e-3), name
    sheets = [cv2.imread(str(w / "samples.png")).astype(int) for w in (gan, workdir)]
    assert np.abs(sheets[0] - sheets[1]).max() <= 2


@pytest.mark.parametrize("model", ["gan", pytest.param("wgan_gp", marks=pytest.mark.slow)])
def test_other_gans_train(model, tmp_path):
    flags = [flag for flag in GAN if not flag.startswith(("--model", "--filters", "--epochs"))]
    size = "--units=20" if model == "gan" else "--filters=4"
    trains("train_gan", tmp_path, *flags, f"--model={model}", size, "--epochs=1", "--export=")
    assert np.isfinite(losses(tmp_path)["generator_loss"]).all()
    assert (tmp_path / "last.keras").is_file() and not (tmp_path / "best.keras").exists()


def test_pix2pix_leaves_what_it_promises(pix2pix):
    names = {path.name for path in pix2pix.iterdir()}
    assert names == {
        "flags.txt", "metrics.json", "history.csv", "tensorboard", "curves.png", "samples",
        "samples.png", "training.gif", "last.keras", "model_float32.tflite",
    }  # fmt: skip
    metrics = json.loads((pix2pix / "metrics.json").read_text())
    found = losses(pix2pix)
    assert found["l1"][-1] < found["l1"][0]
    assert 0 < metrics["l1"] < 1 and metrics["psnr"] > 0 and metrics["pictures"] == 3
    assert frames(pix2pix / "training.gif") == 4


@pytest.mark.slow
def test_a_killed_pix2pix_ends_the_same(pairs, pix2pix, tmp_path):
    flags = [f"--dataset=pairs:{pairs}", *PIX2PIX]
    kill_after_two_epochs("train_pix2pix", tmp_path, *flags)
    assert "going on after epoch" in trains("train_pix2pix", tmp_path, *flags, "--export=")
    assert_equal_losses(tmp_path, pix2pix)


def test_cyclegan_leaves_what_it_promises(cyclegan):
    names = {path.name for path in cyclegan.iterdir()}
    assert names == {
        "flags.txt", "metrics.json", "history.csv", "tensorboard", "curves.png", "samples",
        "samples.png", "training.gif", "last.keras", "G_model_float32.tflite",
        "F_model_float32.tflite",
    }  # fmt: skip
    metrics = json.loads((cyclegan / "metrics.json").read_text())
    # 256 pixels of each 1600 differ by (20, 180, 180) of 255 in blue, green and red.
    differences = [np.abs(np.subtract(200, color)) for color in (20, 20, 220)]
    assert metrics["unchanged"] == pytest.approx(0.16 * np.mean(differences) / 127.5, rel=0.1)
    assert 0 < metrics["cycle_x"] < 1 and 0 < metrics["to_y"] < 1


@pytest.mark.slow
def test_a_killed_cyclegan_ends_the_same(pairs, cyclegan, tmp_path):
    """Its pools of pictures and its random numbers go on as well."""
    flags = [f"--dataset=pairs:{pairs}", *CYCLEGAN]
    kill_after_two_epochs("train_cyclegan", tmp_path, *flags)
    trains("train_cyclegan", tmp_path, *flags, "--export=")
    assert_equal_losses(tmp_path, cyclegan)


def test_translate_applies_both(pairs, pix2pix, cyclegan, tmp_path):
    picture = cv2.imread(str(pairs / "val/0.png"))[:, :40]
    (tmp_path / "input").mkdir()
    cv2.imwrite(str(tmp_path / "input/a.png"), picture)
    cv2.imwrite(str(tmp_path / "input/grey.png"), picture[:30, :20, 0])
    (tmp_path / "input/broken.jpg").write_bytes(b"\xff\xd8\xff")
    found = []
    for number, flags in enumerate(
        [[f"--model={pix2pix}"], [f"--model={cyclegan}"], [f"--model={cyclegan}", "--back"]]
    ):
        workdir = tmp_path / str(number)
        printed = trains("translate", workdir, f"--input={tmp_path / 'input'}", *flags)
        assert "broken.jpg: not a readable picture" in printed and "2 pictures" in printed
        found.append(cv2.imread(str(workdir / "a.png.png")))
        assert found[-1].shape == (40, 40, 3)
        assert cv2.imread(str(workdir / "grey.png.png")).shape == (30, 20, 3)
        assert (workdir / "sheet.png").is_file()
    # Three networks make three pictures.
    assert all(np.abs(found[i].astype(int) - found[i - 1]).mean() > 1 for i in range(3))


@pytest.mark.parametrize(
    "app, flags, message",
    [
        ("train_gan", ["--units=10"], "--units: is for --model=gan"),
        ("train_gan", ["--model=gan", "--critic_steps=3"], "--critic_steps: is for --model=wgan"),
        ("train_gan", ["--image_size=20"], "a side of 16, 32, 64"),
        ("train_gan", ["--classifier=/nowhere"], "/nowhere: expected a run folder"),
        ("train_gan", ["--batch_size=1200"], "1197"),
        ("train_pix2pix", ["--image_size=64"], "--image_size: must be HEIGHTxWIDTH; received: 64"),
        ("train_pix2pix", ["--dataset=voc:a"], "received: voc:a"),
        ("train_cyclegan", ["--dataset=folders:/nowhere"], "trainA and trainB"),
        ("translate", ["--model=a"], "--input: is needed"),
        ("translate", ["--input=a"], "--model: is needed"),
    ],
)
def test_mistakes_are_told_in_one_line(app, flags, message, tmp_path):
    fails(app, [*flags, f"--workdir={tmp_path}"], message)


def test_unequal_pairs_are_told(pairs, tmp_path):
    for kind, count in (("A", 3), ("B", 2)):
        for split in ("train", "val"):
            (tmp_path / f"{split}{kind}").mkdir()
            for number in range(count):
                picture = np.full((20, 20 + 4 * (kind == "B"), 3), 90, "uint8")
                cv2.imwrite(str(tmp_path / f"{split}{kind}/{number}.png"), picture)
    flags = [f"--dataset=folders:{tmp_path}", *PIX2PIX, f"--workdir={tmp_path / 'run'}"]
    fails("train_pix2pix", flags, "20 x 20 pixels; received: 24 x 20")
