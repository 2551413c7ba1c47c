import json

import processes


def write_run(folder, iou, split="val", **others):
    folder.mkdir()
    metrics = {
        "dataset": "scenes", "split": split, "pictures": 4, "parameters": 1234567,
        "peak_memory_bytes": 2.55e9, "seconds": {"training": 90.0}, "mean_iou": iou,
        "pixel_accuracy": 0.9, "mean_class_accuracy": 0.8125, "boundary_f1": None, **others,
    }  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def compare(*runs):
    return processes.run("tools/compare_segmenters.py", f"--runs={','.join(map(str, runs))}")


def test_the_best_comes_first(tmp_path):
    runs = [write_run(tmp_path / name, iou) for name, iou in (("a", 0.25), ("b", 0.5))]
    rows = compare(*runs).stdout.splitlines()[2:]
    assert rows == [
        "| b | 1,234,567 | 2 | 2.5 | 0.500 | 0.900 | 0.812 | - |",
        "| a | 1,234,567 | 2 | 2.5 | 0.250 | 0.900 | 0.812 | - |",
    ]


def test_errors(tmp_path):
    run = write_run(tmp_path / "a", 0.5)
    other = write_run(tmp_path / "b", 0.5, split="test")
    assert "must be tested on the same pictures" in compare(run, other).stderr
    assert "expected a run's metrics" in compare(tmp_path).stderr
    (tmp_path / "metrics.json").write_text("{}")
    assert "expected a run of train_segmenter" in compare(tmp_path).stderr
