"""Dimension clusters, by hand and as a user runs the tool."""

import importlib.util
import pathlib
import re

import numpy as np
import processes
import pytest
from PIL import Image

TOOL = pathlib.Path(__file__).parents[2] / "tools" / "cluster_anchors.py"


@pytest.fixture(scope="module")
def tool():
    from absl import flags

    spec = importlib.util.spec_from_file_location("cluster_anchors", TOOL)
    module = importlib.util.module_from_spec(spec)
    before = set(flags.FLAGS)
    spec.loader.exec_module(module)
    yield module
    for name in set(flags.FLAGS) - before:  # other tools have flags of the same names
        delattr(flags.FLAGS, name)


def slow_iou(a, b):
    inside = min(a[0], b[0]) * min(a[1], b[1])
    return inside / (a[0] * a[1] + b[0] * b[1] - inside)


def test_overlap_equals_reference(tool):
    rng = np.random.default_rng(0)
    sizes, priors = rng.uniform(1, 50, (20, 2)), rng.uniform(1, 50, (4, 2))
    found = tool.iou_of_sizes(sizes, priors)
    for i, j in np.ndindex(20, 4):
        np.testing.assert_allclose(found[i, j], slow_iou(sizes[i], priors[j]))
    np.testing.assert_allclose(
        tool.iou_of_sizes(np.array([[10.0, 20]]), np.array([[20.0, 10], [10, 20], [5, 20]])),
        [[1 / 3, 1, 1 / 2]],
    )


def test_finds_three_kinds_of_boxes(tool):
    rng = np.random.default_rng(0)
    kinds = np.array([[10.0, 10], [20, 60], [80, 30]])
    sizes = np.concatenate(
        [kind * rng.uniform(0.95, 1.05, (n, 2)) for kind, n in zip(kinds, (50, 9, 20))]
    )
    priors, average = tool.cluster(sizes, 3, np.random.default_rng(1), restarts=10)
    means = [part.mean(axis=0) for part in np.split(sizes, [50, 59])]
    np.testing.assert_allclose(priors, means)
    expected = np.mean([max(slow_iou(size, prior) for prior in priors) for size in sizes])
    np.testing.assert_allclose(average, expected)


def test_each_prior_is_the_mean_of_its_boxes_and_more_fit_better(tool):
    sizes = np.random.default_rng(0).uniform(5, 100, (200, 2))
    averages = []
    for count in (1, 2, 4, 8):
        priors, average = tool.cluster(sizes, count, np.random.default_rng(0), restarts=5)
        nearest = [int(np.argmax([slow_iou(size, p) for p in priors])) for size in sizes]
        for i in range(count):
            members = [size for size, n in zip(sizes, nearest) if n == i]
            np.testing.assert_allclose(priors[i], np.mean(members, axis=0))
        averages.append(average)
    assert averages == sorted(averages)
    np.testing.assert_allclose(tool.cluster(sizes[:3], 3, np.random.default_rng(0), 1)[1], 1.0)


def run(*flags):
    return processes.run("tools/cluster_anchors.py", *flags)


@pytest.fixture
def pictures(tmp_path):
    """Four pictures of 100 x 50 pixels with boxes of two sizes, in Darknet's format."""
    for folder in ("images/train", "labels/train"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "classes.txt").write_text("thing\n")
    for i in range(4):
        Image.new("RGB", (100, 50)).save(tmp_path / f"images/train/{i}.png")
        lines = ["0 0.5 0.5 0.25 0.5", "0 0.3 0.4 0.5 0.125"]
        (tmp_path / f"labels/train/{i}.txt").write_text("\n".join(lines) + "\n")
    return f"yolo:{tmp_path}"


def test_tool_prints_priors_and_draws_them(pictures, tmp_path):
    result = run(
        f"--dataset={pictures}", "--num_priors=2", "--max_priors=9", "--image_size=80",
        f"--output={tmp_path / 'anchors.png'}",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    # Relative to the picture, then stretched to 80 x 80 pixels.
    assert result.stdout.splitlines()[-1] == "--priors=10x40,40x20"
    assert re.search(r"\| 1 \| 0\.\d{3} \|\n\| 2 \| 1\.000 \|\n\n", result.stdout)
    with Image.open(tmp_path / "anchors.png") as picture:
        assert np.asarray(picture.convert("RGB")).std() > 10


def test_too_many_priors_are_told_in_one_line(pictures):
    result = run(f"--dataset={pictures}", "--num_priors=3")
    assert result.returncode == 1
    assert re.fullmatch(
        r"error: --num_priors: split 'train' of yolo:.* has 2 different sizes of boxes; "
        r"received: 3\n",
        result.stderr,
    )
