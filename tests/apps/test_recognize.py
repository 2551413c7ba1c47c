"""recognize as a user runs it."""

import json
import os
import shutil

import cv2
import numpy as np
import processes
import pytest

COLOURS = {"ann": (220, 40, 40), "bob": (40, 220, 40), "cid": (40, 40, 220), "dan": (200, 200, 30)}


def run(*flags):
    return processes.run("apps/recognize.py", *flags)


def recognize(*flags):
    result = run(*flags)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Mean colours, at unit length: persons are told by them. A run folder with a threshold."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    from keras import layers

    from kerasvision.embedding import FaceNet

    folders = []
    for scale in (1.0, 2.0):
        images = keras.Input((16, 12, 3))
        x = layers.GlobalAveragePooling2D()(layers.Rescaling(1 / 255)(images))
        dense = layers.Dense(3, use_bias=False)
        x = layers.UnitNormalization()(dense(x))
        dense.set_weights([scale * np.eye(3)])
        folders.append(tmp_path_factory.mktemp("run"))
        FaceNet(keras.Model(images, x)).save(folders[-1] / "last.keras")
        (folders[-1] / "metrics.json").write_text(json.dumps({"threshold": 0.3}))
    return folders


def picture(name, seed):
    noise = np.random.default_rng(seed).normal(0, 10, (32, 24, 3))
    return np.clip(np.array(COLOURS[name]) + noise, 0, 255).astype("uint8")[..., ::-1]


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Three persons to enrol, three pictures each; and pictures of these and of another."""
    folder = tmp_path_factory.mktemp("people")
    for number, name in enumerate(["ann", "bob", "cid"]):
        (folder / "known" / name).mkdir(parents=True)
        for i in range(3):
            cv2.imwrite(str(folder / "known" / name / f"{i}.png"), picture(name, 10 * number + i))
    (folder / "new").mkdir()
    for number, name in enumerate(COLOURS):
        cv2.imwrite(str(folder / "new" / f"{name}.png"), picture(name, 100 + number))
    return folder


def test_enrol_name_remove(model, people, tmp_path):
    gallery, out = tmp_path / "known.npz", tmp_path / "out"
    flags = [f"--model={model[0]}", f"--gallery={gallery}"]
    printed = recognize(*flags, f"--enrol={people / 'known'}")
    assert "9 pictures enrolled" in printed and "3 persons, 9 pictures" in printed
    printed = recognize(*flags, f"--input={people / 'new'}", f"--workdir={out}")
    assert "4 faces in 4 pictures, 3 of them known" in printed
    rows = json.loads((out / "faces.json").read_text())["faces"]
    assert [row["name"] for row in rows] == ["ann", "bob", "cid", None]
    assert all(row["distance"] <= 0.3 for row in rows[:3]) and rows[3]["distance"] > 0.3
    assert rows[0]["source"].startswith(str(people / "known" / "ann"))
    assert rows[0]["box"] == [0, 0, 24, 32]
    drawn = cv2.imread(str(out / "ann.png.png"))
    assert drawn.shape == (320, 240, 3) and drawn.std() > 1
    assert cv2.imread(str(out / "sheet.png")) is not None

    printed = recognize(f"--gallery={gallery}", "--remove=bob")
    assert "bob: 3 pictures removed" in printed and "2 persons, 6 pictures" in printed
    recognize(*flags, f"--input={people / 'new'}", f"--workdir={out}", "--threshold=0.001")
    rows = json.loads((out / "faces.json").read_text())["faces"]
    assert [row["name"] for row in rows] == [None] * 4
    assert rows[1]["nearest"] != "bob"


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_at_once_without_a_file(metric, model, people, tmp_path):
    flags = [f"--model={model[0]}", f"--enrol={people / 'known'}", f"--metric={metric}"]
    recognize(*flags, f"--input={people / 'new' / 'cid.png'}", f"--workdir={tmp_path}")
    (row,) = json.loads((tmp_path / "faces.json").read_text())["faces"]
    assert row["name"] == row["nearest"] == "cid"


def test_what_cannot_be_enrolled_is_told(model, people, tmp_path):
    shutil.copytree(people / "known", tmp_path / "known")
    shutil.copy(tmp_path / "known/ann/0.png", tmp_path / "known/bob/copy.png")
    (tmp_path / "known/cid/bad.jpg").write_bytes(b"nothing")
    (tmp_path / "known/empty").mkdir()
    gallery = tmp_path / "known.npz"
    flags = [f"--model={model[0]}", f"--gallery={gallery}", f"--enrol={tmp_path / 'known'}"]
    printed = recognize(*flags)
    assert "bob/copy.png: is the picture" in printed and "ann/0.png of ann again" in printed
    assert "bad.jpg: not a readable picture" in printed
    assert "empty: must have a picture that can be enrolled; received: none" in printed
    assert "9 pictures enrolled" in printed
    # All of it again.
    result = run(*flags)
    assert result.returncode != 0 and "nothing in it was new" in result.stderr


@pytest.mark.parametrize(
    "flags, message",
    [
        ([], "--enrol, --remove or --input: one is needed; received: none"),
        (["--input=DIR/new"], "--model: is needed; received: nothing"),
        (["--remove=ann"], "--remove: needs --gallery"),
        (["--model=MODEL", "--input=DIR/new"], "--gallery: must be there"),
        (["--model=MODEL", "--enrol=DIR/new"], "must have a folder of pictures for each person"),
        (["--gallery=DIR/known.npz", "--remove=zoe"], "one of the 3 persons; received: zoe"),
        (["--model=OTHER", "--gallery=DIR/known.npz", "--input=DIR/new"], "was made by model"),
        (["--model=MODEL", "--enrol=DIR/known", "--detector=yunet"], "yunet needs its file"),
        (["--model=MODEL/last.keras", "--enrol=DIR/known"], "--threshold: is needed with a"),
        (["--model=MODEL", "--gallery=DIR/new/ann.png", "--input=DIR/new"], "must be a gallery"),
    ],
)
def test_mistakes_are_told_in_one_line(flags, message, model, people, tmp_path):
    if not (people / "known.npz").exists() and "known.npz" in "".join(flags):
        known = [f"--model={model[0]}", f"--gallery={people / 'known.npz'}"]
        recognize(*known, f"--enrol={people / 'known'}")
    places = {"MODEL": model[0], "OTHER": model[1], "DIR": people}
    for word, path in places.items():
        flags = [flag.replace(word, str(path)) for flag in flags]
    result = run(f"--workdir={tmp_path}", *flags)
    last = result.stderr.strip().splitlines()[-1]
    assert result.returncode != 0 and last.startswith("error: ") and message in last, last
    assert "Traceback" not in result.stderr
