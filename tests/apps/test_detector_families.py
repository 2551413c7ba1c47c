"""Training of detectors that need more than boxes, as a user runs it."""

import json

import cv2
import numpy as np
import processes
import pytest

TRAIN = [
    "--image_size=64", "--epochs=2", "--batch_size=4", "--optimizer=adamw",
    "--learning_rate=0.001", "--warmup_epochs=0", "--max_zoom_out=1.5", "--export=",
]  # fmt: skip


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """Ten pictures of red and blue triangles, with polygons and corners as keypoints."""
    folder = tmp_path_factory.mktemp("triangles")
    rng = np.random.default_rng(0)
    names = ["left", "right", "top"]
    content = {
        "images": [],
        "annotations": [],
        "categories": [
            {"id": i, "name": name, "keypoints": names} for i, name in ((3, "red"), (9, "blue"))
        ],
    }
    for image_id in range(10):
        picture = rng.integers(60, 120, (80, 100, 3), "uint8")
        for category_id, color in [(3, (0, 0, 255)), (9, (255, 0, 0))][: image_id % 3]:
            x, y = (int(value) for value in rng.integers(2, 40, 2))
            corners = [(x, y + 38), (x + 40, y + 38), (x + 20, y)]
            cv2.fillPoly(picture, [np.array(corners)], color)
            content["annotations"].append(
                {
                    "id": len(content["annotations"]),
                    "image_id": image_id,
                    "category_id": category_id,
                    "bbox": [x, y, 40, 38],
                    "area": 760,
                    "iscrowd": 0,
                    "segmentation": [[value for corner in corners for value in corner]],
                    "keypoints": [value for corner in corners for value in (*corner, 2)],
                    "num_keypoints": 3,
                }
            )
        cv2.imwrite(str(folder / f"{image_id}.png"), picture)
        content["images"].append({"id": image_id, "file_name": f"{image_id}.png"})
    (folder / "all.json").write_text(json.dumps(content))
    return folder / "all.json"


def train(coco, workdir, *flags):
    return processes.run(
        *("apps/train_detector.py", *TRAIN),
        *(f"--dataset=coco:{coco}", f"--workdir={workdir}"),
        *("--train_split=all", "--val_split=all", *flags),
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "model, flags, key",
    [
        ("mask_rcnn_mobilenet_v2", ["--roi_pooling=max", "--roi_strides=8,16"], "masks"),
        ("keypoint_rcnn_mobilenet_v2", [], "keypoints"),
    ],
)
def test_masks_and_keypoints(coco, tmp_path, model, flags, key):
    result = train(coco, tmp_path / "run", f"--model={model}", *flags)
    assert result.returncode == 0, result.stderr[-2000:]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert 0 <= metrics[key]["AP"] <= metrics[key]["AP50"] <= 1
    history = (tmp_path / "run" / "history.csv").read_text().splitlines()
    assert f"val_{key.removesuffix('s')}_AP" in history[0] and len(history) == 3
    assert cv2.imread(str(tmp_path / "run" / "samples.png")) is not None


@pytest.mark.slow
def test_word_tree_image_labels_and_changing_sizes(coco, tmp_path):
    tree = tmp_path / "colours.tree"
    tree.write_text("red 2\nblue 2\ncolour -1\n")
    flags = [f"--tree={tree}", "--image_labels=blue", "--multi_scale=64,96"]
    result = train(coco, tmp_path / "run", "--model=yolo_v2_mobilenet_v2", *flags)
    assert result.returncode == 0, result.stderr[-2000:]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert list(metrics["per_class"]) == ["red", "blue", "colour"]
    assert metrics["per_class"]["colour"]["AP50"] is None


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--model=yolo_v2_mobilenet_v2", "--image_labels=green"], "received: green"),
        (["--model=yolo_v2_mobilenet_v2", "--tree={other}"], "['red', 'blue']; received: ['a'"),
        (["--model=yolo_v2_mobilenet_v2", "--priors=3x"], "--priors: must be pairs"),
        (["--model=mask_rcnn_mobilenet_v2", "--roi_strides=a"], "--roi_strides: must be whole"),
    ],
)
def test_mistakes_are_told_in_one_line(coco, tmp_path, flags, message):
    (tmp_path / "other.tree").write_text("a -1\nb -1\n")
    flags = [flag.format(other=tmp_path / "other.tree") for flag in flags]
    result = train(coco, tmp_path / "run", *flags)
    assert result.returncode != 0
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and message in last
    assert "Traceback" not in result.stderr
