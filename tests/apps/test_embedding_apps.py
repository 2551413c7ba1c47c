"""train_facenet and train_siamese as a user runs them."""

import json
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import processes
import pytest

TINY = [
    "--train_classes=0:6", "--val_classes=6:11", "--model=cifar_resnet", "--depth=8", "--width=4",
    "--image_size=16x16", "--embedding_size=8", "--identities=3", "--pictures_each=3",
    "--epochs=3", "--steps_per_epoch=4", "--eval_every=2", "--learning_rate=0.01", "--noflip",
]  # fmt: skip


def run(app, *flags):
    return processes.run(f"apps/{app}.py", *flags)


def trains(app, workdir, *flags):
    result = run(app, f"--workdir={workdir}", *flags)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


def history(workdir, name):
    names, *rows = (workdir / "history.csv").read_text().splitlines()
    place = names.split(",").index(name)
    return [float(row.split(",")[place] or "nan") for row in rows]


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Eleven persons, four pictures each: a pattern of their own under noise; one of them grey."""
    folder = tmp_path_factory.mktemp("people")
    rng = np.random.default_rng(0)
    for person in range(11):
        pattern = cv2.resize(rng.integers(0, 256, (3, 3, 3), "uint8"), (20, 24))
        (folder / f"p{person:02d}").mkdir()
        for number in range(4):
            picture = np.clip(pattern + rng.normal(0, 12, pattern.shape), 0, 255).astype("uint8")
            picture = picture[..., 0] if (person, number) == (3, 0) else picture
            cv2.imwrite(str(folder / f"p{person:02d}" / f"{number}.png"), picture)
    return folder


@pytest.fixture(scope="module")
def facenet(people, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("facenet")
    printed = trains(
        "train_facenet", workdir, f"--dataset=folder:{people}", *TINY, "--export=float32"
    )
    people = f"folder:{people}"
    learnt, others = f"24 pictures of 6 persons of {people}", f"20 of 5 others of {people}"
    assert f"{learnt} to train on; {others} to judge" in printed
    assert "equal error rate" in printed
    return workdir


def test_facenet_leaves_what_it_promises(facenet):
    names = {path.name for path in facenet.iterdir()}
    assert names == {
        "flags.txt", "metrics.json", "history.csv", "curves.png", "tensorboard", "samples",
        "samples.png", "hardest_pairs.png", "distances.png", "roc.png", "open_set.png", "map.png",
        "last.keras", "model_float32.tflite",
    }  # fmt: skip
    metrics = json.loads((facenet / "metrics.json").read_text())
    # Of 20 pictures, 5 persons of 4.
    assert metrics["genuine_pairs"] == 5 * 6 and metrics["impostor_pairs"] == 190 - 30
    assert metrics["eer"] < 0.3 and metrics["rank_1"] > 0.6 and metrics["threshold"] > 0
    eer = history(facenet, "val_eer")
    assert np.isnan(eer[0]) and eer[2] == pytest.approx(metrics["eer"], abs=1e-6)
    assert {path.name for path in (facenet / "samples").iterdir()} == {
        "epoch_0002.png",
        "epoch_0003.png",
    }


def test_export_embeds_as_the_model(facenet, people):
    from ai_edge_litert.interpreter import Interpreter

    from kerasvision.embedding import load_embedding

    model = load_embedding(facenet)
    x = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3)).astype("float32")
    expected = model.embedder.predict_on_batch(x)
    assert np.linalg.norm(expected) == pytest.approx(1, abs=1e-5)
    litert = Interpreter(str(facenet / "model_float32.tflite"))
    litert.allocate_tensors()
    given = litert.get_input_details()[0]
    litert.set_tensor(given["index"], x.astype(given["dtype"]))
    litert.invoke()
    received = litert.get_tensor(litert.get_output_details()[0]["index"])
    assert received.shape == (1, 8)
    np.testing.assert_allclose(received, expected, atol=1e-4)


@pytest.mark.slow
def test_a_killed_training_ends_the_same(facenet, people, tmp_path):
    flags = [f"--workdir={tmp_path}", f"--dataset=folder:{people}", *TINY, "--export="]
    process = subprocess.Popen(
        [sys.executable, "apps/train_facenet.py", *flags], stdout=subprocess.DEVNULL
    )
    while process.poll() is None:
        path = tmp_path / "history.csv"
        if path.is_file() and len(path.read_text().splitlines()) >= 3:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.05)
    process.wait()
    assert "going on after epoch" in run("train_facenet", *flags).stdout
    assert history(tmp_path, "loss") == pytest.approx(history(facenet, "loss"), rel=1e-3)
    expected, received = (json.loads((w / "metrics.json").read_text()) for w in (facenet, tmp_path))
    assert received["eer"] == pytest.approx(expected["eer"], abs=1e-6)


@pytest.mark.parametrize("loss", ["l1", pytest.param("contrastive", marks=pytest.mark.slow)])
def test_siamese(loss, people, tmp_path):
    flags = [f"--dataset=folder:{people}", *TINY, "--export=", f"--loss={loss}", "--epochs=2"]
    printed = trains("train_siamese", tmp_path, *flags)
    assert "one picture each of 5, which is it?" in printed
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["one_shot"] > 0.35 and metrics["ways"] == 5  # at random 0.2
    assert metrics["classes"] == ["p06", "p07", "p08", "p09", "p10"]
    names = {path.name for path in tmp_path.iterdir()}
    assert {"samples.png", "distances.png", "curves.png", "last.keras"} <= names


def test_siamese_of_letters_judged_by_digits(tmp_path):
    flags = ["--dataset=glyphs", "--val_dataset=digits", "--image_size=16x16", "--depth=8"]
    flags += ["--train_classes=0:9", "--identities=8", "--steps_per_epoch=2", "--epochs=1"]
    flags += ["--hardest=0.5", "--distortion=1", "--min_resolution=0.5", "--noflip", "--export="]
    result = run("train_siamese", f"--workdir={tmp_path}", *flags)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "others of digits to judge" in result.stdout
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["dataset"] == "digits" and metrics["classes"] == list("0123456789")
    assert metrics["pictures"] == 300 and 0.1 < metrics["one_shot"] < 1.0


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--dataset=folder:nowhere"], "nowhere: must be a folder with a folder for each person"),
        (["--val_classes=5:11"], "must be persons that are not in --train_classes"),
        (["--val_classes=6:15"], "from 0 to 10; received: 6:15"),
        (["--identities=7"], "identities must be from 1 to 6"),
        (["--model=nn2"], "--width"),
    ],
)
def test_mistakes_are_told_in_one_line(flags, message, people, tmp_path):
    result = run(
        "train_facenet", f"--workdir={tmp_path}", f"--dataset=folder:{people}", *TINY, *flags
    )
    last = result.stderr.strip().splitlines()[-1]
    assert result.returncode != 0 and last.startswith("error: ") and message in last, last
    assert "Traceback" not in result.stderr


def test_odd_folders_are_told(people, tmp_path):
    """A person of one picture, an empty folder, a broken file and a copy; the rest is used."""
    import shutil

    shutil.copytree(people, tmp_path / "people")
    root = tmp_path / "people"
    for number in range(1, 4):
        (root / "p00" / f"{number}.png").unlink()
    (root / "p00b").mkdir()
    (root / "p01" / "bad.png").write_bytes(b"nothing")
    shutil.copy(root / "p02" / "0.png", root / "p02" / "copy.png")
    flags = [f"--dataset=folder:{root}", *TINY, "--epochs=1", "--steps_per_epoch=1", "--export="]
    printed = trains("train_facenet", tmp_path / "run", *flags)
    for words in ("p00b", "bad.png", "p00"):
        assert words in printed
    assert "copy.png" in printed
