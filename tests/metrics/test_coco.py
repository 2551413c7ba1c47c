import contextlib
import copy
import io
import json
import pathlib

import numpy as np
import pycocotools.coco
import pycocotools.cocoeval
import pytest

from kerasvision.metrics.coco import NAMES, coco_metrics, coco_results, format_table

SHARED = pathlib.Path(__file__).parents[2].parent / "shared" / "data" / "detection"


def _ground_truth(boxes, size=(200, 100), num_images=1, classes=("cat", "owl")):
    """Ground truth from (image id, category id, [x, y, width, height], iscrowd) tuples."""
    width, height = size
    return {
        "images": [
            {"id": i, "width": width, "height": height, "file_name": f"{i}.jpg"}
            for i in range(num_images)
        ],
        "annotations": [
            {
                "id": i,  # from 0, which COCO's evaluation takes for "no match" if left alone
                "image_id": image_id,
                "category_id": category_id,
                "bbox": bbox,
                "area": bbox[2] * bbox[3],
                "iscrowd": iscrowd,
            }
            for i, (image_id, category_id, bbox, iscrowd) in enumerate(boxes)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(classes)],
    }


def _result(image_id, category_id, bbox, score):
    return {"image_id": image_id, "category_id": category_id, "bbox": bbox, "score": score}


def _random_case(seed):
    """Ground truth and results on gappy image ids: near misses, crowds, ties, empty pictures."""
    rng = np.random.default_rng(seed)
    num_classes = int(rng.integers(1, 5))
    image_ids = rng.permutation(1000)[: rng.integers(1, 12)].tolist()
    sizes = {i: (int(rng.integers(8, 800)), int(rng.integers(8, 800))) for i in image_ids}
    objects, results = [], []
    for image_id in image_ids:
        width, height = sizes[image_id]
        # Class 0 stays without objects in every other case; so do some pictures in all cases.
        for _ in range(rng.choice([0, 1, 3, 10])):
            x, y = rng.uniform(0, 0.8, 2) * (width, height)
            w, h = rng.uniform(0.02, 0.6, 2) * (width, height)
            label = int(rng.integers(min(seed % 2, num_classes - 1), num_classes))
            box = [float(v) for v in (x, y, w, h)]
            objects.append((image_id, label, box, int(rng.random() < 0.15)))
            for _ in range(rng.choice([0, 1, 2])):
                jitter = rng.normal(0, 0.1, 4) * (w, h, w, h)
                moved = np.maximum(np.array(box) + jitter, 0.0).tolist()
                other = int(rng.integers(num_classes)) if rng.random() < 0.2 else label
                # Two decimals: many equal scores, within and across pictures.
                results.append(_result(image_id, other, moved, round(rng.random(), 2)))
        # More than the 100 that count, in some pictures.
        for _ in range(rng.choice([0, 5, 130], p=[0.5, 0.4, 0.1])):
            box = (rng.uniform(0, 0.5, 4) * (width, height, width, height)).tolist()
            label = int(rng.integers(num_classes))
            results.append(_result(image_id, label, box, round(rng.random(), 2)))
    truth = _ground_truth(objects, classes=[f"class {i}" for i in range(num_classes)])
    truth["images"] = [{"id": i, "width": w, "height": h} for i, (w, h) in sizes.items()]
    return truth, [results[i] for i in rng.permutation(len(results))]


def _pycocotools(truth, results):
    """The twelve numbers, and AP and AP50 by category id; -1 where there is nothing to find."""
    ground_truth, found = pycocotools.coco.COCO(), pycocotools.coco.COCO()
    with contextlib.redirect_stdout(io.StringIO()):
        for api, rows in ((ground_truth, truth["annotations"]), (found, results)):
            api.dataset = copy.deepcopy({**truth, "annotations": rows})
            for i, row in enumerate(api.dataset["annotations"]):
                row.update(id=i + 1, iscrowd=row.get("iscrowd", 0))
                row["area"] = row.get("area", row["bbox"][2] * row["bbox"][3])
            api.createIndex()
        evaluation = pycocotools.cocoeval.COCOeval(ground_truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][:, :, :, 0, 2]
    by_class = {
        category_id: (precision[:, :, k].mean(), precision[0, :, k].mean())
        for k, category_id in enumerate(evaluation.params.catIds)
    }
    return evaluation.stats, by_class


def _assert_equals_pycocotools(truth, results):
    metrics = coco_metrics(truth, results)
    stats, by_class = _pycocotools(truth, results)
    ours = [-1 if metrics[name] is None else metrics[name] for name in NAMES]
    np.testing.assert_allclose(ours, stats, rtol=0, atol=1e-12)
    assert len(metrics["per_class"]) == len(truth["categories"])
    for category in truth["categories"]:
        values = metrics["per_class"][category["name"]]
        ours = [-1 if values[name] is None else values[name] for name in ("AP", "AP50")]
        np.testing.assert_allclose(ours, by_class[category["id"]], rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(40))
def test_equals_pycocotools(seed):
    _assert_equals_pycocotools(*_random_case(seed))


def test_random_cases_cover_what_they_should():
    cases = [_random_case(seed) for seed in range(40)]
    assert any(row["iscrowd"] for truth, _ in cases for row in truth["annotations"])
    assert any(not results for _, results in cases)
    assert any(not truth["annotations"] for truth, _ in cases)
    metrics = [coco_metrics(*case) for case in cases]
    assert any(m["AP"] is not None and 0.1 < m["AP"] < 0.9 for m in metrics)
    assert any(m["APsmall"] is None and m["AP"] is not None for m in metrics)
    assert any(m["per_class"]["class 0"]["AP"] is None and m["AP"] is not None for m in metrics)


def test_equals_pycocotools_on_coco_mini():
    path = SHARED / "coco_mini" / "annotations" / "instances_train2017.json"
    if not path.exists():
        pytest.skip("the development pictures are not here")
    content = json.loads(path.read_text())
    truth = {name: content[name] for name in ("images", "annotations", "categories")}
    rng = np.random.default_rng(0)
    results = []
    for row in truth["annotations"]:
        x, y, w, h = row["bbox"]
        box = (np.array(row["bbox"]) + rng.normal(0, 0.06, 4) * (w, h, w, h)).tolist()
        results.append(_result(row["image_id"], row["category_id"], box, float(rng.random())))
    results = [row for row in results if rng.random() < 0.8]
    _assert_equals_pycocotools(truth, results)
    assert 0.1 < coco_metrics(truth, results)["AP"] < 0.9


def test_perfect_detections():
    truth = _ground_truth([(0, 0, [20, 10, 80, 50], 0), (0, 1, [100, 50, 20, 20], 0)])
    results = [_result(row["image_id"], row["category_id"], row["bbox"], 0.9)
               for row in truth["annotations"]]  # fmt: skip
    metrics = coco_metrics(truth, results)
    assert {name: metrics[name] for name in NAMES} == pytest.approx(
        # 80 x 50 is of medium size (32² to 96² pixels), 20 x 20 is small.
        {name: None if name.endswith("large") else 1.0 for name in NAMES}
    )
    assert metrics["per_class"] == {
        "cat": {"AP": pytest.approx(1.0), "AP50": pytest.approx(1.0)},
        "owl": {"AP": pytest.approx(1.0), "AP50": pytest.approx(1.0)},
    }


def test_golden_case():
    # Two cats. The better-scored detection has IoU 40 / 50 = 0.8 with the first: right at the
    # seven thresholds 0.50 to 0.80. The other one finds nothing.
    truth = _ground_truth([(0, 0, [0, 0, 50, 50], 0), (0, 0, [120, 20, 40, 40], 0)])
    results = [_result(0, 0, [0, 0, 40, 50], 0.9), _result(0, 0, [60, 60, 9, 9], 0.8)]
    metrics = coco_metrics(truth, results)
    # Precision is 1 up to recall 1/2, which is 51 of the 101 recalls, and 0 beyond.
    assert metrics["AP50"] == pytest.approx(51 / 101)
    assert metrics["AP75"] == pytest.approx(51 / 101)
    assert metrics["AP"] == pytest.approx(0.7 * 51 / 101)
    assert metrics["AR100"] == pytest.approx(0.7 * 0.5)
    assert metrics["per_class"]["cat"] == pytest.approx({"AP": 0.7 * 51 / 101, "AP50": 51 / 101})
    assert metrics["per_class"]["owl"] == {"AP": None, "AP50": None}


@pytest.mark.parametrize("seed", range(5))
def test_mean_over_the_classes_is_the_total(seed):
    metrics = coco_metrics(*_random_case(seed))
    for name in ("AP", "AP50"):
        values = [row[name] for row in metrics["per_class"].values() if row[name] is not None]
        # Classes without objects take no part.
        expected = np.mean(values) if values else None
        assert metrics[name] == (expected and pytest.approx(expected, abs=1e-9))


def test_crowd_counts_neither_way():
    truth = _ground_truth([(0, 0, [0, 0, 50, 50], 0), (0, 0, [100, 0, 100, 100], 1)])
    right = _result(0, 0, [0, 0, 50, 50], 0.5)
    # Two detections in the crowd, both better-scored, change nothing.
    in_crowd = [_result(0, 0, [110, 10, 20, 20], 0.9), _result(0, 0, [140, 10, 30, 30], 0.8)]
    assert coco_metrics(truth, [right, *in_crowd])["AP"] == pytest.approx(1.0)
    assert coco_metrics(truth, [right])["AR100"] == pytest.approx(1.0)
    # Beside it they are false.
    beside = _result(0, 0, [60, 60, 20, 20], 0.9)
    assert coco_metrics(truth, [right, beside])["AP"] == pytest.approx(0.5)


def test_no_detections():
    truth = _ground_truth([(0, 0, [0, 0, 50, 50], 0)], num_images=2)
    metrics = coco_metrics(truth, [])
    assert {name: metrics[name] for name in NAMES} == {
        name: None if name.endswith(("small", "large")) else 0.0 for name in NAMES
    }
    assert metrics["per_class"] == {
        "cat": {"AP": 0.0, "AP50": 0.0},
        "owl": {"AP": None, "AP50": None},
    }


@pytest.mark.parametrize("results", [[], [_result(0, 1, [0, 0, 50, 50], 0.9)]])
def test_no_objects(results):
    metrics = coco_metrics(_ground_truth([]), results)
    assert [metrics[name] for name in NAMES] == [None] * 12
    assert metrics["per_class"] == {name: {"AP": None, "AP50": None} for name in ("cat", "owl")}


def test_no_pictures():
    metrics = coco_metrics(_ground_truth([], num_images=0), [])
    assert [metrics[name] for name in NAMES] == [None] * 12


def test_metrics_are_plain_json_and_input_stays(capfd):
    truth, results = _random_case(1)
    before = copy.deepcopy((truth, results))
    metrics = coco_metrics(truth, results)
    assert (truth, results) == before
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    assert capfd.readouterr() == ("", "")


def _detections(boxes, scores, labels):
    return {
        "boxes": np.array(boxes, "float32"),
        "scores": np.array(scores, "float32"),
        "labels": np.array(labels, "int32"),
        "count": np.array(labels, "int32").max(axis=1),
    }


def test_results_in_pixels_without_padding():
    truth = _ground_truth([], num_images=2)
    truth["images"][1].update(width=40, height=80)
    detections = _detections(
        [
            [[0.25, 0.5, 0.75, 1.0], [0, 0, 0, 0]],
            # An inverted box has no size.
            [[0.5, 0.25, 1.0, 0.75], [0.5, 0.75, 0.25, 1.0]],
        ],
        [[0.5, 0.0], [0.75, 0.25]],
        [[1, -1], [0, 1]],
    )
    assert coco_results(detections, np.array([1, 0]), truth) == [
        _result(1, 1, [20.0, 20.0, 20.0, 40.0], 0.5),
        _result(0, 0, [50.0, 50.0, 100.0, 50.0], 0.75),
        _result(0, 1, [150.0, 50.0, 50.0, 0.0], 0.25),
    ]


def test_results_without_pictures_or_detections():
    truth = _ground_truth([])
    assert coco_results(_detections([[[0] * 4]], [[0]], [[-1]]), [0], truth) == []
    empty = {"boxes": np.zeros((1, 0, 4)), "scores": np.zeros((1, 0)), "labels": np.zeros((1, 0))}
    assert coco_results(empty, [0], truth) == []
    assert coco_results({name: values[:0] for name, values in empty.items()}, [], truth) == []


@pytest.mark.parametrize(
    ("change", "image_ids", "message"),
    [
        ({"boxes": [[[0, np.nan, 1, 1]]]}, [0], "image id 0: boxes .* finite; received: nan"),
        ({"boxes": [[[0, 0, np.inf, 1]]]}, [0], "image id 0: boxes .* finite; received: inf"),
        ({"scores": [[np.nan]]}, [0], "image id 0: scores .* finite; received: nan"),
        ({"labels": [[2]]}, [0], "image id 0: labels .* which has 2; received: 2"),
        ({}, [5], "image id 5: must be one of the 1 pictures"),
    ],
)
def test_bad_detections(change, image_ids, message):
    content = {"boxes": [[[0, 0, 1, 1]]], "scores": [[0.5]], "labels": [[1]], **change}
    with pytest.raises(ValueError, match=message):
        coco_results(_detections(**content), image_ids, _ground_truth([]))


def test_non_finite_padding_is_ignored():
    detections = _detections([[[np.nan] * 4]], [[np.nan]], [[-1]])
    assert coco_results(detections, [0], _ground_truth([])) == []


def test_picture_twice():
    detections = _detections([[[0, 0, 1, 1]]] * 2, [[0.5]] * 2, [[0]] * 2)
    with pytest.raises(ValueError, match="image id 0: must come once"):
        coco_results(detections, [0, 0], _ground_truth([]))


def test_results_of_another_picture():
    with pytest.raises(ValueError, match="image id 5: must be one of the 1 pictures"):
        coco_metrics(_ground_truth([]), [_result(5, 0, [0, 0, 1, 1], 0.5)])


def test_format_table():
    metrics = dict(zip(NAMES, np.linspace(0, 1, 12).tolist()))
    metrics.update(
        APsmall=None,
        seconds={"total": 1.0},  # other entries of metrics.json don't matter
        per_class={"cat": {"AP": 0.5, "AP50": 0.75}, "traffic light": {"AP": None, "AP50": None}},
    )
    assert format_table(metrics).splitlines() == [
        "       AP     AP50     AP75  APsmall APmedium  APlarge",
        "    0.000    0.091    0.182        -    0.364    0.455",
        "",
        "      AR1     AR10    AR100  ARsmall ARmedium  ARlarge",
        "    0.545    0.636    0.727    0.818    0.909    1.000",
        "",
        "class               AP     AP50",
        "cat              0.500    0.750",
        "traffic light        -        -",
    ]
