"""The app of the R-CNN line as a user runs it."""

import json

import cv2
import numpy as np
import processes
import pytest

FILES = {
    "flags.txt", "metrics.json", "history.csv", "tensorboard", "curves.png", "samples.png",
    "best.keras", "last.keras",
}  # fmt: skip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A VOC folder: red squares, blue squares, both, and neither."""
    folder = tmp_path_factory.mktemp("squares")
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(12):
        image = rng.integers(60, 120, (60, 80, 3), "uint8")
        objects = ""
        for bit, name, color in [(1, "red", (0, 0, 255)), (2, "blue", (255, 0, 0))]:
            if i & bit:
                x, y = rng.integers(0, 30, 2)
                image[y : y + 30, x : x + 30] = color
                objects += (
                    f"<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{x}</xmin>"
                    f"<ymin>{y}</ymin><xmax>{x + 30}</xmax><ymax>{y + 30}</ymax></bndbox></object>"
                )
        cv2.imwrite(str(folder / f"JPEGImages/{i}.jpg"), image)
        (folder / f"Annotations/{i}.xml").write_text(
            f"<annotation><filename>{i}.jpg</filename><size><width>80</width><height>60</height>"
            f"<depth>3</depth></size>{objects}</annotation>"
        )
    (folder / "ImageSets/Main/train.txt").write_text("\n".join(map(str, range(8))) + "\n")
    (folder / "ImageSets/Main/val.txt").write_text("\n".join(map(str, range(8, 12))) + "\n")
    return folder


def run(pictures, workdir, *flags):
    return processes.run(
        "apps/train_rcnn.py", f"--dataset=voc:{pictures}", f"--workdir={workdir}",
        "--image_size=64", "--backbone=squeezenet", "--units=16", "--epochs=1",
        f"--proposals_dir={pictures / 'proposals'}", "--val_split=val[:3]", "--warmup_epochs=0",
        *flags,
    )  # fmt: skip


def metrics_of(workdir):
    metrics = json.loads((workdir / "metrics.json").read_text())
    assert metrics["pictures"] == 3 and set(metrics["per_class"]) == {"blue", "red"}
    seconds = metrics["seconds_a_picture"]
    stages = [value for name, value in seconds.items() if name != "total"]
    assert sum(stages) == pytest.approx(seconds["total"], abs=1e-3)
    return metrics


def test_rcnn_leaves_what_it_promises(pictures, tmp_path):
    """An R-CNN with its SVMs; then its network on windows."""
    flags = ["--method=rcnn", "--crop_size=32", "--num_samples=4", "--post_hoc_pictures=6"]
    result = run(pictures, tmp_path / "rcnn", *flags)
    assert result.returncode == 0, result.stderr[-2000:]
    assert {path.name for path in (tmp_path / "rcnn").iterdir()} == FILES
    metrics = metrics_of(tmp_path / "rcnn")
    assert list(metrics["variants"]) == ["softmax", "svm", "svm, boxes regressed"]
    assert metrics["variants"]["svm, boxes regressed"]["AP50"] == metrics["AP50"]
    assert metrics["proposals"]["a_picture"] > 1
    assert list(metrics["seconds_a_picture"])[0] == "proposals"
    assert "selective search in 8 pictures" in result.stdout
    assert len(list((pictures / "proposals").iterdir())) == 1
    assert cv2.imread(str(tmp_path / "rcnn/samples.png")).std() > 5

    model = f"--initial_model={tmp_path / 'rcnn'}"
    result = run(pictures, tmp_path / "window", "--method=sliding_window", model)
    assert result.returncode == 0, result.stderr[-2000:]
    metrics = metrics_of(tmp_path / "window")
    assert metrics["proposals"]["a_picture"] == 1418
    assert {path.name for path in (tmp_path / "window").iterdir()} == {
        "flags.txt", "metrics.json", "samples.png", "best.keras",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spp_net", "fast_rcnn", "rcnn_minus_r", "faster_rcnn"])
def test_runs_leave_what_they_promise(pictures, tmp_path, method):
    flags = ["--num_clusters=4"] if method == "rcnn_minus_r" else []
    result = run(pictures, tmp_path / "run", f"--method={method}", *flags)
    assert result.returncode == 0, result.stderr[-2000:]
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES
    metrics = metrics_of(tmp_path / "run")
    assert ("variants" in metrics) == (method == "spp_net")
    if method == "rcnn_minus_r":
        assert metrics["proposals"]["a_picture"] == 4


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--method=fast_rcnn", "--crop_size=64"], "--crop_size: is for --method=rcnn; received"),
        (["--method=sliding_window"], "--initial_model: must be the run folder of an R-CNN"),
        (["--method=rcnn_minus_r", "--num_clusters=99"], "number must be 1 to 8"),
    ],
)
def test_mistakes_are_told_in_one_line(pictures, tmp_path, flags, message):
    result = run(pictures, tmp_path / "run", *flags)
    assert result.returncode != 0
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and message in last
    assert "Traceback" not in result.stderr
