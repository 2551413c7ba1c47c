"""The table of the R-CNN line, from metrics written by hand."""

import json

import cv2
import processes


def write(folder, method, seconds, **more):
    folder.mkdir()
    metrics = {
        "method": method, "dataset": "scenes", "split": "val", "pictures": 5, "AP": 0.25,
        "AP50": 0.5, "seconds_a_picture": {**seconds, "total": sum(seconds.values())},
        "seconds": {"training": 90.0}, **more,
    }  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return str(folder)


def run(*arguments):
    return processes.run("tools/compare_rcnns.py", *arguments)


def stages(*seconds):
    return dict(zip(("proposals", "features", "classification"), seconds))


def test_table_and_picture(tmp_path):
    found = {"a_picture": 300.4, "recall50": 0.95, "recall70": 0.8}
    slow = write(
        tmp_path / "a", "rcnn", stages(0.5, 9.0, 0.5), proposals=found,
        variants={"softmax": {"AP": 0.1, "AP50": 0.4}, "svm": {"AP": 0.25, "AP50": 0.5}},
    )  # fmt: skip
    fast = write(tmp_path / "b", "fast_rcnn", stages(0.5, 0.2, 0.1), proposals=found)
    faster = write(tmp_path / "c", "faster_rcnn", {"network": 0.04})
    result = run(f"--runs={fast},{faster},{slow}", f"--output={tmp_path / 'x.png'}")
    assert result.returncode == 0, result.stderr
    lines = [line.strip("| ").split(" | ") for line in result.stdout.splitlines()]
    assert lines[2] == [
        "R-CNN", "0.500", "0.250", "300", "0.950", "0.500", "9.000", "0.500", "10.000", "1.0x",
        "1.0x", "1.5",
    ]  # fmt: skip
    assert lines[3][:3] == ["… softmax", "0.400", "0.100"]
    # 10 s to 0.8 s; without the search 9.5 s to 0.3 s.
    assert lines[4][0] == "Fast R-CNN" and lines[4][-3:-1] == ["12.5x", "31.7x"]
    assert lines[5][0] == "Faster R-CNN" and lines[5][-3:-1] == ["250.0x", "237.5x"]
    assert cv2.imread(str(tmp_path / "x.png")).std() > 5


def test_mistakes_are_told_in_one_line(tmp_path):
    result = run(f"--runs={tmp_path}")
    assert result.returncode != 0 and "metrics.json: expected a run's metrics" in result.stderr
    run_a = write(tmp_path / "a", "rcnn", {"network": 1.0})
    run_b = write(tmp_path / "b", "rcnn", {"network": 1.0}, pictures=6)
    result = run(f"--runs={run_a},{run_b}")
    assert "must be tested on the same pictures" in result.stderr
    (tmp_path / "b" / "metrics.json").write_text("{}")
    assert "expected a run of train_rcnn" in run(f"--runs={run_b}").stderr
