"""deepdream, invert_features and visualize_network as a user runs them."""

import json
import os
import pathlib

import cv2
import h5py
import numpy as np
import PIL.Image
import processes
import pytest

from kerasvision.backbones import squeezenet
from kerasvision.synthesis import load_network

ROOT = pathlib.Path(__file__).parents[2]
DREAM = ["--octaves=2", "--steps=2", "--layers=conv2"]


def run(app, *flags):
    return processes.run(f"apps/{app}.py", *flags)


def runs(app, workdir, *flags):
    result = run(app, f"--workdir={workdir}", *flags)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


def read(path):
    image = cv2.imread(str(path))
    assert image is not None, path
    return image[..., ::-1]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small classifier as a .keras file, untrained, with names of classes."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    from keras import layers

    from kerasvision.classification import Classifier

    keras.utils.set_random_seed(0)
    images = keras.Input((24, 24, 3), name="images")
    x = layers.Rescaling(1 / 255, name="normalize")(images)
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="conv1")(x)
    x = layers.MaxPooling2D(2, name="pool1")(x)
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="conv2")(x)
    x = layers.GlobalAveragePooling2D(name="average")(x)
    x = layers.Dense(3, name="predictions")(x)
    network = keras.Model(images, x, name="small")
    # Fresh weights make logits that hardly differ.
    kernel = network.get_layer("predictions").kernel
    kernel.assign(20 * kernel)
    path = tmp_path_factory.mktemp("model") / "small.keras"
    Classifier(network, ["red", "green", "blue"]).save(path)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A coloured picture, a grey one, one too small, and a broken file."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (6, 9, 3), "uint8")
    cv2.imwrite(str(folder / "a.png"), cv2.resize(coarse, (90, 60)))
    cv2.imwrite(str(folder / "b.png"), cv2.resize(coarse, (45, 50))[..., 0])
    cv2.imwrite(str(folder / "c.png"), coarse[:1, :1])
    (folder / "d.jpg").write_bytes(b"no picture")
    return folder


def test_deepdream(model, pictures, tmp_path):
    workdir = tmp_path / "dream"
    printed = runs("deepdream", workdir, f"--model={model}", f"--input={pictures}", *DREAM)
    assert "c.png: left out; pictures of 1 x 1 pixels don't go through" in printed
    assert "d.jpg: not a readable picture, left out" in printed
    assert "2 pictures and sheet.png are in" in printed
    names = {path.name for path in workdir.iterdir()}
    assert names == {"a.png.png", "b.png.png", "flags.txt", "metrics.json", "sheet.png", "steps"}
    assert sorted(path.name for path in (workdir / "steps").iterdir()) == [
        "a.png_octave1.png",
        "a.png_octave2.png",
        "b.png_octave1.png",
        "b.png_octave2.png",
    ]
    before, after = read(pictures / "a.png"), read(workdir / "a.png.png")
    assert after.shape == before.shape
    change = np.abs(after.astype(float) - before).mean()
    assert 1 < change < 20
    np.testing.assert_array_equal(after, read(workdir / "steps" / "a.png_octave2.png"))
    rows = json.loads((workdir / "metrics.json").read_text())["pictures"]
    assert [row["file_name"] for row in rows] == ["a.png", "b.png"]
    for row in rows:
        assert row["layers"] == ["conv2"] and row["octaves"] == 2
        assert row["objective_after"] > row["objective_before"] > 0

    # The flags as run repeat the run.
    again = tmp_path / "again"
    runs("deepdream", again, f"--flagfile={workdir / 'flags.txt'}", f"--workdir={again}")
    np.testing.assert_array_equal(read(again / "a.png.png"), after)


def test_large_pictures_are_shrunk_and_dreamt_in_tiles(model, pictures, tmp_path):
    large = tmp_path / "large.png"
    cv2.imwrite(str(large), cv2.resize(read(pictures / "a.png"), (1500, 1000)))
    runs(
        "deepdream", tmp_path / "run", f"--model={model}", f"--input={large}", "--octaves=1",
        "--steps=1", "--max_side=300", "--tile_size=64",
    )  # fmt: skip
    assert read(tmp_path / "run" / "large.png.png").shape == (200, 300, 3)


@pytest.mark.parametrize("video", ["gif", "mp4"])
def test_flight_with_a_guide(model, pictures, tmp_path, video):
    runs(
        "deepdream", tmp_path, f"--model={model}", f"--input={pictures / 'a.png'}", *DREAM,
        "--frames=3", f"--video={video}", f"--guide={pictures / 'b.png'}", "--channels=0,3,4",
    )  # fmt: skip
    path = tmp_path / f"a.png.{video}"
    if video == "gif":
        with PIL.Image.open(path) as picture:
            assert picture.n_frames == 3 and picture.size == (90, 60)
    else:
        film = cv2.VideoCapture(str(path))
        frames = []
        while (frame := film.read())[0]:
            frames.append(frame[1])
        assert len(frames) == 3 and frames[0].shape == (60, 90, 3)
        dream = read(tmp_path / "a.png.png").astype(float)
        assert np.abs(frames[0][..., ::-1] - dream).mean() < 20


def test_atlas(model, pictures, tmp_path):
    runs(
        "deepdream", tmp_path, f"--model={model}", f"--input={pictures / 'a.png'}", "--octaves=1",
        "--steps=1", "--atlas", "--atlas_channels=2",
    )  # fmt: skip
    # Two rows, of conv1 and conv2, of three pictures.
    atlas = read(tmp_path / "a.png_atlas.png")
    assert atlas.shape[1] == 10 + 3 * 170 and 400 < atlas.shape[0] < 480


def test_invert_features(model, pictures, tmp_path):
    printed = runs(
        "invert_features", tmp_path, f"--model={model}", f"--input={pictures}",
        "--layers=conv1,conv2", "--steps=60", "--max_side=32", "--tv_weights=0.5",
    )  # fmt: skip
    assert "c.png: left out; pictures of 1 x 1 pixels" in printed
    assert "conv1" in printed and "in all layers" in printed
    rows = json.loads((tmp_path / "metrics.json").read_text())["pictures"]
    assert [row["size"] for row in rows] == [[21, 32], [32, 29]]
    for row in rows:
        errors = row["errors"]
        assert list(errors) == ["conv1", "conv2"]
        assert set(errors["conv1"]) == {"conv1", "conv2", "mean", "pixels"}
        assert errors["conv1"]["conv1"] < 0.5
        assert errors["conv1"]["mean"] < errors["conv2"]["mean"]
    assert read(tmp_path / "a.png_conv1.png").shape == (21, 32, 3)
    steps = [path.name for path in (tmp_path / "steps").glob("a.png_conv2_*")]
    assert sorted(steps) == [f"a.png_conv2_00{step}.png" for step in (15, 30, 45)]
    assert read(tmp_path / "sheet.png").shape[1] > 3 * 200


def test_visualize_network(model, tmp_path):
    printed = runs(
        "visualize_network", tmp_path, f"--model={model}", "--classes=blue,0", "--layers=conv2",
        "--channels=1,2,5", "--steps=40", "--batch_size=2",
    )  # fmt: skip
    assert "blue: logit" in printed and "conv2, channel 5:" in printed
    result = json.loads((tmp_path / "metrics.json").read_text())
    rows = result["pictures"]
    assert [(row["layer"], row["number"]) for row in rows] == [
        (None, 2), (None, 0), ("conv2", 1), ("conv2", 2), ("conv2", 5)
    ]  # fmt: skip
    assert [row["class"] for row in rows[:2]] == ["blue", "red"]
    network, names = load_network(str(model))
    assert names == ["red", "green", "blue"]
    grey = network(np.full((1, 24, 24, 3), 127.5)).numpy()[0]
    for row in rows[:2]:
        logits = network(read(tmp_path / f"class_{row['number']}.png")[None]).numpy()[0]
        assert logits[row["number"]] > grey[row["number"]] + 0.05
        np.testing.assert_allclose(row["response"], logits[row["number"]], atol=0.01)
        probabilities = np.exp(logits) / np.exp(logits).sum()
        np.testing.assert_allclose(row["probability"], probabilities[row["number"]], rtol=1e-4)
    for name in ("class_2", "class_0", "conv2_1", "conv2_2", "conv2_5"):
        assert read(tmp_path / f"{name}.png").shape == (24, 24, 3)
        assert len(list((tmp_path / "steps").glob(f"{name}_*.png"))) == 3
    assert (tmp_path / "sheet.png").is_file()


def test_age_faces(model, tmp_path):
    faces = tmp_path / "faces" / "people"
    faces.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(12):
        coarse = rng.integers(0, 256, (4, 3, 3), "uint8")
        cv2.imwrite(str(faces / f"{i}.png"), cv2.resize(coarse, (24, 32)))
    workdir = tmp_path / "run"
    printed = runs(
        "age_faces", workdir, f"--model={model}", f"--faces={tmp_path / 'faces'}",
        f"--input={faces / '3.png'}", "--target=green", "--steps=60", "--learning_rate=0.2",
        "--prior_weight=0",
    )  # fmt: skip
    assert "12 faces have 11 components, 100.0% of their variance" in printed
    metrics = json.loads((workdir / "metrics.json").read_text())
    (face,) = metrics["faces"]
    assert face["after"] > face["before"]
    logits = load_network(str(model))[0](read(workdir / "3.png")[None]).numpy()[0]
    assert (np.exp(logits) / np.exp(logits).sum())[1] == pytest.approx(face["after"], rel=1e-4)
    assert read(workdir / "sheet.png").shape[1] > 4 * 100

    for flags, message in (
        ([f"--faces={workdir / 'none'}"], "must be a folder of pictures; has none"),
        ([f"--faces={faces / '3.png'}"], "must be a folder of pictures; has none"),
        ([f"--faces={faces}", "--target=old"], "must be a class of the network; received: old"),
        ([f"--faces={faces}", "--components=12"], "must be from 1 to 11 for 12 faces"),
    ):
        common = [f"--model={model}", f"--input={faces / '3.png'}", "--target=green"]
        result = run("age_faces", f"--workdir={workdir}", *common, *flags)
        assert result.returncode != 0
        assert message in result.stderr.strip().splitlines()[-1]


def test_a_backbone_by_its_name(pictures, tmp_path):
    network = squeezenet((None, None, 3), include_top=False)
    arrays = {layer.name: layer.get_weights() for layer in network.layers if layer.weights}
    weights = tmp_path / "squeezenet.h5"
    with h5py.File(weights, "w") as file:
        file.attrs["layer_names"] = list(arrays)
        for name, values in arrays.items():
            group = file.create_group(name)
            group.attrs["weight_names"] = ["kernel", "bias"]
            group["kernel"], group["bias"] = values
    runs(
        "deepdream", tmp_path / "run", "--model=squeezenet", f"--backbone_weights={weights}",
        f"--input={pictures / 'a.png'}", "--octaves=1", "--steps=1",
    )  # fmt: skip
    assert read(tmp_path / "run" / "a.png.png").shape == (60, 90, 3)


@pytest.mark.parametrize(
    "app, flags, message",
    [
        ("deepdream", [], "--model: is needed; received: nothing"),
        ("deepdream", ["--model=x", "--input=/nowhere"], "--input=/nowhere: there is no such file"),
        ("deepdream", ["--model=MODEL", "--input=INPUT", "--layers=conv3"],
         "small has no layer conv3; near it are conv2, conv1"),
        ("deepdream", ["--model=MODEL", "--input=INPUT", "--layers=conv2", "--channels=8"],
         "channels: must be numbers from 0 to 7, the channels of conv2; received: [8]"),
        ("deepdream", ["--model=MODEL", "--input=INPUT", "--channels=x"],
         "--channels: must be numbers from 0 on; received: x"),
        ("deepdream", ["--model=MODEL", "--input=INPUT", "--atlas", "--frames=2"],
         "--atlas: chooses layers and channels itself"),
        ("deepdream", ["--model=MODEL", "--input=INPUT/d.jpg"], "nothing in it could be dreamt on"),
        ("deepdream", ["--model=vgg17", "--input=INPUT"],
         "--model=vgg17: must be a run folder, a .keras file or a network of"),
        ("deepdream", ["--model=vgg16", "--input=INPUT"],
         "--backbone_weights: is needed with --model=vgg16"),
        ("deepdream", ["--model=vgg16", "--backbone_weights=/nowhere.h5", "--input=INPUT"],
         "--backbone_weights=/nowhere.h5: there is no such file"),
        ("deepdream", ["--model=MODEL", "--backbone_weights=/nowhere.h5", "--input=INPUT"],
         "--backbone_weights: is for a --model given by its name"),
        ("invert_features", ["--model=MODEL", "--input=INPUT", "--tv_weights=1,2,3"],
         "--tv_weights: must be one, or one for each of conv1, conv2; received: 3"),
        ("invert_features", ["--model=MODEL", "--input=INPUT", "--tv_weights=a"],
         "--tv_weights: must be numbers; received: a"),
        ("visualize_network", ["--model=MODEL"], "--classes, --layers: one of them is needed"),
        ("visualize_network", ["--model=MODEL", "--classes=gren"],
         "must be a class of the network; received: gren (did you mean green"),
        ("visualize_network", ["--model=MODEL", "--layers=conv1", "--channels=6"],
         "--channels: must be numbers from 0 to 5, the channels of conv1; received: 6"),
        ("visualize_network", ["--model=MODEL", "--layers=conv1", "--image_size=3"],
         "--image_size: must be HEIGHTxWIDTH; received: 3"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_one_line(app, flags, message, model, pictures, tmp_path):
    flags = [f.replace("MODEL", str(model)).replace("INPUT", str(pictures)) for f in flags]
    result = run(app, f"--workdir={tmp_path}", *flags)
    assert result.returncode != 0
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and message in last, last
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("app", ["deepdream", "invert_features", "visualize_network"])
def test_help(app):
    result = run(app, "--help")
    assert f"python apps/{app}.py" in result.stdout
    for flag in ("--model", "--backbone_weights", "--seed", "--workdir"):
        assert flag in result.stdout
