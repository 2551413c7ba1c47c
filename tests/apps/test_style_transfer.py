"""style_transfer as a user runs it."""

import json
import os

import cv2
import numpy as np
import processes
import pytest

LAYERS = ["--content_layers=deep", "--style_layers=first,deep"]


def run(*flags):
    return processes.run("apps/style_transfer.py", *flags)


def paint(workdir, *flags):
    result = run(f"--workdir={workdir}", *LAYERS, *flags)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout, json.loads((workdir / "metrics.json").read_text())


def read(path):
    image = cv2.imread(str(path))
    assert image is not None, path
    return image[..., ::-1].astype("float64")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    images = keras.Input((None, None, 3))
    x = layers.Rescaling(1 / 255)(images)
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="first")(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="deep")(x)
    path = tmp_path_factory.mktemp("model") / "small.keras"
    keras.Model(images, x).save(path)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two pictures of the content, one of them grey, a broken one; two styles; and two masks."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    (folder / "contents").mkdir()
    for name, size in (("a.png", (40, 32)), ("b.png", (30, 36))):
        coarse = rng.integers(0, 256, (5, 6, 3), "uint8")
        picture = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
        picture = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY) if name == "b.png" else picture
        cv2.imwrite(str(folder / "contents" / name), picture)
    (folder / "contents" / "c.jpg").write_bytes(b"no picture")
    stripes = np.zeros((48, 60, 3), "uint8")
    stripes[:, ::4], stripes[:, 1::4] = (255, 40, 40), (250, 60, 30)
    cv2.imwrite(str(folder / "stripes.png"), stripes[..., ::-1])
    cv2.imwrite(str(folder / "green.png"), np.full((20, 20, 3), (20, 220, 60), "uint8"))
    half = np.zeros((10, 10), "uint8")
    half[:, :5] = 255
    cv2.imwrite(str(folder / "left.png"), half)
    cv2.imwrite(str(folder / "right.png"), 255 - half)
    return folder


def flags_of(model, pictures, *styles):
    paths = ",".join(str(pictures / style) for style in styles)
    return [f"--model={model}", f"--styles={paths}"]


def test_a_folder_is_painted(model, pictures, tmp_path):
    flags = flags_of(model, pictures, "stripes.png")
    contents = pictures / "contents"
    flags += [f"--input={contents}", "--iterations=12", "--style_weight=100", "--max_side=36"]
    printed, metrics = paint(tmp_path / "run", *flags)
    assert "c.jpg: not a readable picture, left out" in printed
    assert [m["file_name"] for m in metrics["pictures"]] == ["a.png", "b.png"]
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"a.png.png", "b.png.png", "a.png_loss.png", "sheet.png", "flags.txt"} <= names
    assert len(list((tmp_path / "run" / "steps").glob("a.png_*.png"))) == 3
    first, second = metrics["pictures"]
    assert first["size"] == [29, 36] and second["size"] == [36, 30]
    for picture in (first, second):
        assert picture["share_of_the_loss"] < 0.5
        share = picture["loss"]["loss"] / picture["loss_of_the_picture"]["loss"]
        assert picture["share_of_the_loss"] == pytest.approx(share)
        assert picture["loss_of_the_picture"]["content"] == pytest.approx(0, abs=1e-6)
    made = read(tmp_path / "run" / "a.png.png")
    before = cv2.resize(read(contents / "a.png"), (36, 29), interpolation=cv2.INTER_AREA)
    assert made.shape == before.shape and np.abs(made - before).mean() > 5
    # The style is red.
    assert (made - before)[..., 0].mean() > (made - before)[..., 2].mean() + 5


def test_colours_of_the_content_are_kept(model, pictures, tmp_path):
    flags = flags_of(model, pictures, "stripes.png")
    flags += [f"--input={pictures / 'contents' / 'b.png'}", "--iterations=5"]
    for colors in ("luminance", "matched"):
        paint(tmp_path / colors, *flags, f"--colors={colors}", "--style_weight=100")
    grey = read(tmp_path / "luminance" / "b.png.png")
    assert np.ptp(grey, axis=-1).max() <= 2 and grey.std() > 5
    matched = read(tmp_path / "matched" / "b.png.png").mean((0, 1))
    assert np.ptp(matched) < 15


@pytest.mark.slow
def test_each_style_has_its_place(model, pictures, tmp_path):
    flags = flags_of(model, pictures, "stripes.png", "green.png")
    flags += [f"--input={pictures / 'contents' / 'a.png'}", "--iterations=25"]
    flags += ["--content_weight=0", "--optimizer=adam", "--learning_rate=30"]
    masks = f"--masks={pictures / 'left.png'},{pictures / 'right.png'}"
    paint(tmp_path / "masks", *flags, masks)
    made = read(tmp_path / "masks" / "a.png.png")
    redness = made[..., 0] - made[..., 1]
    assert redness[:, :16].mean() > redness[:, -16:].mean() + 50
    _, metrics = paint(tmp_path / "mix", *flags, "--style_mix=0,1")
    green = read(tmp_path / "mix" / "a.png.png").mean((0, 1))
    assert green[1] > green[0] + 50 and metrics["pictures"][0]["iterations"] == 25


def test_a_video(model, pictures, tmp_path):
    from kerasvision import drawing

    rng = np.random.default_rng(0)
    wide = cv2.resize(rng.integers(0, 256, (5, 9, 3), "uint8"), (64, 32))
    frames = [np.ascontiguousarray(wide[:, 2 * i : 2 * i + 48]) for i in range(3)]
    drawing.animate(frames, tmp_path / "film.mp4", 5)
    flags = flags_of(model, pictures, "stripes.png")
    flags += [f"--input={tmp_path / 'film.mp4'}", "--iterations=4"]
    _, metrics = paint(tmp_path / "run", *flags)
    assert metrics["frames"] == 3
    assert [losses["temporal"] > 0 for losses in metrics["losses"]] == [False, True, True]
    video = cv2.VideoCapture(str(tmp_path / "run" / "film.mp4"))
    count = 0
    while video.read()[0]:
        count += 1
    assert count == 3


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--model=MODEL", "--input=DIR/contents"], "--styles: is needed; received: nothing"),
        (["--model=MODEL", "--input=DIR/contents", "--styles=DIR/none.png"], "none.png: there is"),
        (["--model=MODEL", "--input=DIR/contents", "--styles=DIR/contents/c.jpg"], "c.jpg: not a"),
        (
            ["--model=MODEL", "--input=DIR/contents", "--styles=DIR/green.png", "--style_mix=a"],
            "--style_mix: must be 1 numbers; received: a",
        ),
        (
            ["--model=MODEL", "--input=DIR/contents", "--styles=DIR/green.png", "--masks=a,b"],
            "--masks: must be 1, one a style; received: 2",
        ),
        (
            [
                "--model=MODEL",
                "--input=DIR/contents",
                "--styles=DIR/green.png",
                "--style_layers=fist",
            ],
            "no layer fist; near it are first",
        ),
        (
            [
                "--model=MODEL",
                "--input=DIR/film.mp4",
                "--styles=DIR/green.png",
                "--style_layers=first",
            ],
            "film.mp4",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(flags, message, model, pictures, tmp_path):
    (pictures / "film.mp4").write_bytes(b"no film")
    flags = [f.replace("MODEL", str(model)).replace("DIR", str(pictures)) for f in flags]
    result = run(f"--workdir={tmp_path}", "--content_layers=deep", *flags)
    last = result.stderr.strip().splitlines()[-1]
    assert result.returncode != 0 and last.startswith("error: ") and message in last, last
    assert "Traceback" not in result.stderr


def test_help():
    result = run("--help")
    assert "python apps/style_transfer.py" in result.stdout
    assert "--style_mix" in result.stdout
