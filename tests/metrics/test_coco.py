import contextlib
import copy
import io
import json
import pathlib

import cv2
import numpy as np
import pycocotools.coco
import pycocotools.cocoeval
import pycocotools.mask
import pytest

from kerasvision.metrics.coco import (
    KEYPOINT_NAMES,
    NAMES,
    OTHER_SIGMA,
    PERSON_SIGMAS,
    area_of,
    coco_metrics,
    coco_results,
    format_table,
)
from kerasvision.ops.masks import paste_masks

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


def _ellipse(box, size, rng):
    """A mask of one or two ellipses in a box [x, y, width, height]."""
    mask = np.zeros(size[::-1], "uint8")
    x, y, width, height = box
    for _ in range(rng.integers(1, 3)):
        middle = (int(x + width * rng.uniform(0.4, 0.6)), int(y + height * rng.uniform(0.4, 0.6)))
        cv2.ellipse(mask, middle, (int(width / 2), int(height / 2)), 0, 0, 360, 1, -1)
    return mask


def _polygons(mask):
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [outline.ravel().tolist() for outline in outlines if len(outline) > 2]


def _run_lengths(mask, form):
    """COCO's run lengths, by hand ("list"), or compressed."""
    if form == "list":
        flat = np.concatenate([[0], mask.T.ravel(), [0]])  # begins with a run of zeros
        changes = np.flatnonzero(np.diff(flat))
        counts = np.diff(np.concatenate([[0], changes, [mask.size]])).tolist()
        return {"size": list(mask.shape), "counts": counts}
    encoded = pycocotools.mask.encode(np.asfortranarray(mask))
    return {**encoded, "counts": encoded["counts"].decode()} if form == "str" else encoded


def _random_masks_case(seed):
    """`_random_case` with masks in all forms, of which some objects have none."""
    rng = np.random.default_rng(seed)
    truth, results = _random_case(seed)
    sizes = {row["id"]: (row["width"], row["height"]) for row in truth["images"]}
    for row in truth["annotations"]:
        mask = _ellipse(row["bbox"], sizes[row["image_id"]], rng)
        form = rng.choice(["polygons", "list", "str", "bytes", "none"])
        row["segmentation"] = _polygons(mask) if form == "polygons" else _run_lengths(mask, form)
        row["area"] = float(mask.sum())
        if form == "none" or not row["segmentation"]:
            del row["segmentation"]
    for row in results:
        mask = _ellipse(row["bbox"], sizes[row["image_id"]], rng)
        row["segmentation"] = _run_lengths(mask, rng.choice(["str", "bytes"]))
    return truth, results


def _random_keypoints_case(seed):
    """`_random_case` with keypoints, of which some objects have none; and sigmas."""
    rng = np.random.default_rng(seed)
    truth, results = _random_case(seed)
    number = [17, 1, 5][seed % 3]
    for row in truth["annotations"]:
        x, y, width, height = row["bbox"]
        points = rng.uniform(0, 1, (number, 2)) * (width, height) + (x, y)
        visibility = rng.integers(0, 3, number) * (rng.random() < 0.9)
        points[visibility == 0] = 0
        row["keypoints"] = np.concatenate([points, visibility[:, None]], 1).ravel().tolist()
        row["num_keypoints"] = int((visibility > 0).sum())
        if rng.random() < 0.1:
            del row["keypoints"], row["num_keypoints"]
    with_keypoints = [row for row in truth["annotations"] if "keypoints" in row]
    for row in results:
        near = [other for other in with_keypoints if other["image_id"] == row["image_id"]]
        if near and rng.random() < 0.8:
            # Those of an object of the picture, some way off.
            other = near[rng.integers(len(near))]
            points = np.reshape(other["keypoints"], (number, 3))
            off = rng.choice([0.02, 0.1]) * np.sqrt(other["area"])
            points = points + rng.normal(0, off, points.shape)
        else:
            points = rng.uniform(0, 400, (number, 3))
        row["keypoints"] = points.ravel().tolist()
    sigmas = rng.uniform(0.02, 0.12, number).tolist() if seed % 2 else None
    return truth, results, sigmas


def _pycocotools(truth, results, iou_type="bbox", sigmas=None):
    """The numbers, and AP and AP50 by category id; -1 where there is nothing to find."""
    ground_truth, found = pycocotools.coco.COCO(), pycocotools.coco.COCO()
    with contextlib.redirect_stdout(io.StringIO()):
        for api, rows in ((ground_truth, truth["annotations"]), (found, results)):
            api.dataset = copy.deepcopy({**truth, "annotations": rows})
            for i, row in enumerate(api.dataset["annotations"]):
                row.update(id=i + 1, iscrowd=row.get("iscrowd", 0))
                x, y, w, h = row["bbox"]
                if iou_type == "segm" and "segmentation" not in row:
                    row["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
                    row["iscrowd"] = 1
                if iou_type == "keypoints" and "keypoints" not in row:
                    row.update(keypoints=[0] * 3 * len(sigmas), num_keypoints=0)
            api.createIndex()
        for row in found.dataset["annotations"]:
            if iou_type == "segm":
                row["area"] = pycocotools.mask.area(row["segmentation"])
            elif iou_type == "keypoints":
                xs, ys = row["keypoints"][0::3], row["keypoints"][1::3]
                row["area"] = (max(xs) - min(xs)) * (max(ys) - min(ys))
            else:
                row["area"] = row["bbox"][2] * row["bbox"][3]
        evaluation = pycocotools.cocoeval.COCOeval(ground_truth, found, iou_type)
        if iou_type == "keypoints":
            evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    by_class = {
        category_id: (precision[:, :, k].mean(), precision[0, :, k].mean())
        for k, category_id in enumerate(evaluation.params.catIds)
    }
    return evaluation.stats, by_class


def _assert_equals_pycocotools(truth, results, iou_type="bbox", sigmas=None, default_sigmas=None):
    metrics = coco_metrics(truth, results, iou_type, sigmas)
    stats, by_class = _pycocotools(truth, results, iou_type, sigmas or default_sigmas)
    names = KEYPOINT_NAMES if iou_type == "keypoints" else NAMES
    assert list(metrics) == [*names, "per_class"]
    ours = [-1 if metrics[name] is None else metrics[name] for name in names]
    np.testing.assert_allclose(ours, stats, rtol=0, atol=1e-12)
    assert len(metrics["per_class"]) == len(truth["categories"])
    for category in truth["categories"]:
        values = metrics["per_class"][category["name"]]
        ours = [-1 if values[name] is None else values[name] for name in ("AP", "AP50")]
        np.testing.assert_allclose(ours, by_class[category["id"]], rtol=0, atol=1e-12)
    return metrics


@pytest.mark.parametrize("seed", range(40))
def test_equals_pycocotools(seed):
    _assert_equals_pycocotools(*_random_case(seed))


@pytest.mark.parametrize("seed", range(20))
def test_masks_equal_pycocotools(seed):
    truth, results = _random_masks_case(seed)
    before = copy.deepcopy((truth, results))
    metrics = _assert_equals_pycocotools(truth, results, "segm")
    assert (truth, results) == before
    assert metrics != coco_metrics(truth, results) or not results


@pytest.mark.parametrize("seed", range(21))
def test_keypoints_equal_pycocotools(seed):
    truth, results, sigmas = _random_keypoints_case(seed)
    default_sigmas = PERSON_SIGMAS if seed % 3 == 0 else [OTHER_SIGMA] * [17, 1, 5][seed % 3]
    before = copy.deepcopy((truth, results))
    _assert_equals_pycocotools(truth, results, "keypoints", sigmas, default_sigmas)
    assert (truth, results) == before


def test_sigmas_of_persons_are_pycocotools_own():
    own = pycocotools.cocoeval.Params("keypoints").kpt_oks_sigmas
    np.testing.assert_allclose(PERSON_SIGMAS, own, rtol=1e-15)


def test_random_cases_cover_what_they_should():
    cases = [_random_case(seed) for seed in range(40)]
    assert any(row["iscrowd"] for truth, _ in cases for row in truth["annotations"])
    assert any(not results for _, results in cases)
    assert any(not truth["annotations"] for truth, _ in cases)
    metrics = [coco_metrics(*case) for case in cases]
    assert any(m["AP"] is not None and 0.1 < m["AP"] < 0.9 for m in metrics)
    assert any(m["APsmall"] is None and m["AP"] is not None for m in metrics)
    assert any(m["per_class"]["class 0"]["AP"] is None and m["AP"] is not None for m in metrics)
    for cases, iou_type in [
        ([_random_masks_case(seed) for seed in range(20)], "segm"),
        ([_random_keypoints_case(seed)[:2] for seed in range(21)], "keypoints"),
    ]:
        values = [coco_metrics(*case, iou_type)["AP"] for case in cases]
        assert sum(value is not None and 0.05 < value < 0.9 for value in values) > 3


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


def _square(x, y, width, height, size=(200, 100)):
    mask = np.zeros(size[::-1], "uint8")
    mask[y : y + height, x : x + width] = 1
    return _run_lengths(mask, "str")


def test_golden_case_of_masks():
    # An L of three of the box's quarters, and all of the box: the boxes agree, the masks have
    # IoU 0.75 and are right at the thresholds 0.50 to 0.75, six of ten.
    truth = _ground_truth([(0, 0, [20, 10, 40, 40], 0)])
    shape = [20, 10, 40, 10, 40, 30, 60, 30, 60, 50, 20, 50]
    truth["annotations"][0].update(segmentation=[shape], area=1200.0)
    results = [{**_result(0, 0, [20, 10, 40, 40], 0.9), "segmentation": _square(20, 10, 40, 40)}]
    assert area_of(results[0], "segm") == 1600
    assert coco_metrics(truth, results)["AP"] == pytest.approx(1.0)
    metrics = coco_metrics(truth, results, "segm")
    assert metrics["AP"] == pytest.approx(0.6) and metrics["AP75"] == pytest.approx(1.0)
    assert metrics["APmedium"] == pytest.approx(0.6) and metrics["APsmall"] is None
    assert metrics["per_class"]["cat"] == pytest.approx({"AP": 0.6, "AP50": 1.0})


def test_small_or_large_is_decided_by_the_mask():
    # A thin mask in a large box, found nowhere near: false as a small object only.
    truth = _ground_truth([(0, 0, [0, 0, 20, 20], 0)])
    truth["annotations"][0].update(segmentation=[[0, 0, 20, 0, 20, 20, 0, 20]])
    found = {**_result(0, 0, [0, 0, 20, 20], 0.5), "segmentation": _square(0, 0, 20, 20)}
    false = {**_result(0, 0, [50, 0, 100, 100], 0.9), "segmentation": _square(50, 0, 100, 2)}
    assert coco_metrics(truth, [found, false])["APsmall"] == pytest.approx(1.0)
    assert coco_metrics(truth, [found, false], "segm")["APsmall"] == pytest.approx(0.5)


def test_objects_without_mask_ignore_what_is_found_in_their_box():
    truth = _ground_truth([(0, 0, [0, 0, 50, 50], 0), (0, 0, [100, 0, 100, 100], 0)])
    truth["annotations"][0]["segmentation"] = [[0, 0, 50, 0, 50, 50, 0, 50]]
    right = {**_result(0, 0, [0, 0, 50, 50], 0.5), "segmentation": _square(0, 0, 50, 50)}
    inside = {**_result(0, 0, [110, 10, 20, 20], 0.9), "segmentation": _square(110, 10, 20, 20)}
    beside = {**_result(0, 0, [60, 60, 20, 20], 0.9), "segmentation": _square(60, 60, 20, 20)}
    assert coco_metrics(truth, [right, inside], "segm")["AP"] == pytest.approx(1.0)
    assert coco_metrics(truth, [right, inside, beside], "segm")["AP"] == pytest.approx(0.5)
    # As boxes both objects count.
    assert coco_metrics(truth, [right])["AR100"] == pytest.approx(0.5)


def test_golden_case_of_keypoints():
    # Of an object of 100 x 100 pixels one keypoint is right, one 10 pixels off, which is a tenth
    # of the root of its area, and one is not labelled. By COCO's measure the second is as good as
    # exp(-0.1² / (2 (2 σ)²)) = 0.607 for σ = 0.05: similarity 0.803, right at 0.50 to 0.80.
    truth = _ground_truth([(0, 0, [20, 0, 100, 100], 0)])
    truth["annotations"][0].update(keypoints=[30, 20, 2, 60, 50, 1, 0, 0, 0], num_keypoints=2)
    found = {**_result(0, 0, [0, 0, 1, 1], 0.5), "keypoints": [30, 20, 0.9, 60, 60, 0, 1e3, 7, 1]}
    metrics = coco_metrics(truth, [found], "keypoints")
    assert metrics["AP"] == pytest.approx(0.7)
    assert metrics["AP50"] == metrics["AR75"] == pytest.approx(1.0)
    assert metrics["APlarge"] == pytest.approx(0.7) and metrics["APmedium"] is None
    assert metrics["per_class"]["cat"] == pytest.approx({"AP": 0.7, "AP50": 1.0})
    assert metrics["per_class"]["owl"] == {"AP": None, "AP50": None}
    # Sigmas twice as wide: exp(-1/8) = 0.882, similarity 0.941, right at all but 0.95.
    metrics = coco_metrics(truth, [found], "keypoints", sigmas=[0.1] * 3)
    assert metrics["AP"] == pytest.approx(0.9)


@pytest.mark.parametrize("iou_type", ["segm", "keypoints"])
def test_masks_and_keypoints_without_detections_or_objects(iou_type):
    names = KEYPOINT_NAMES if iou_type == "keypoints" else NAMES
    nothing = {name: None for name in names}
    per_class = {name: {"AP": None, "AP50": None} for name in ("cat", "owl")}
    found = {
        **_result(0, 0, [0, 0, 9, 9], 0.9),
        "segmentation": _square(0, 0, 9, 9),
        "keypoints": [1, 2, 0.5],
    }
    for truth, results in [
        (_ground_truth([]), []),
        (_ground_truth([]), [found]),
        (_ground_truth([], num_images=0), []),
        # No mask and no keypoints.
        (_ground_truth([(0, 0, [0, 0, 50, 50], 0)]), []),
        (_ground_truth([(0, 0, [0, 0, 50, 50], 0)]), [found]),
    ]:
        metrics = coco_metrics(truth, results, iou_type)
        assert metrics == {**nothing, "per_class": per_class}
    truth = _ground_truth([(0, 0, [0, 0, 50, 50], 0)])
    truth["annotations"][0].update(
        segmentation=[[0, 0, 50, 0, 50, 50]], keypoints=[3, 4, 2], num_keypoints=1
    )
    metrics = coco_metrics(truth, [], iou_type)
    assert metrics["AP"] == metrics["per_class"]["cat"]["AP"] == 0.0
    assert metrics["per_class"]["owl"]["AP"] is None


@pytest.mark.parametrize(
    ("iou_type", "sigmas", "message"),
    [
        ("boxes", None, "iou_type: must be one of bbox, segm, keypoints; received: boxes"),
        ("segm", None, "image id 0: results must have 'segmentation' for iou_type='segm'"),
        ("keypoints", None, "keypoints: .* the same number of them; received: 1, 2"),
        ("keypoints", [0.1, 0.1], "keypoints: .* the same number of them; received: 1, 2"),
    ],
)
def test_results_that_can_not_be_compared(iou_type, sigmas, message):
    truth = _ground_truth([(0, 0, [0, 0, 50, 50], 0)])
    truth["annotations"][0]["keypoints"] = [1, 2, 2]
    found = {**_result(0, 0, [0, 0, 50, 50], 0.5), "keypoints": [1, 2, 0.5, 3, 4, 0.5]}
    with pytest.raises(ValueError, match=message):
        coco_metrics(truth, [found], iou_type, sigmas)


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


def test_results_have_masks_and_keypoints_in_pixels():
    truth = _ground_truth([], num_images=2)
    truth["images"][1].update(width=40, height=80)
    rng = np.random.default_rng(0)
    boxes = [[[0.25, 0.5, 0.75, 1.0], [0, 0, 0, 0]], [[0.5, 0.25, 1.0, 0.75], [-0.1, 0, 0.3, 0.4]]]
    detections = {
        **_detections(boxes, [[0.5, 0.0], [0.75, 0.25]], [[1, -1], [0, 1]]),
        "masks": rng.random((2, 2, 5, 7)).astype("float32"),
        "keypoints": rng.random((2, 2, 3, 3)).astype("float32"),
    }
    rows = coco_results(detections, [1, 0], truth)
    assert json.loads(json.dumps(rows)) == rows
    for row, (p, k), (width, height) in zip(
        rows, [(0, 0), (1, 0), (1, 1)], [(40, 80), (200, 100), (200, 100)], strict=True
    ):
        assert row["segmentation"]["size"] == [height, width]
        (expected,) = paste_masks(
            detections["masks"][p, [k]], detections["boxes"][p, [k]], (height, width)
        )
        mask = pycocotools.mask.decode(row["segmentation"])
        np.testing.assert_array_equal(mask, expected)
        assert 0 < area_of(row, "segm") == expected.sum() < area_of(row, "bbox")
        y, x, probability = detections["keypoints"][p, k].astype("float64").T
        expected = np.stack([x * width, y * height, probability], axis=1)
        np.testing.assert_array_equal(np.reshape(row["keypoints"], (3, 3)), expected)
        assert area_of(row, "keypoints") == pytest.approx(
            (x.max() - x.min()) * (y.max() - y.min()) * width * height
        )


def test_masks_survive_the_way_through_detections():
    """Masks on a fine grid over their boxes, taken as detections, are all found."""
    rng = np.random.default_rng(0)
    truth = _ground_truth([(0, 0, [20, 10, 80, 50], 0), (0, 1, [100, 50, 40, 30], 0)])
    masks = []
    for row in truth["annotations"]:
        mask = np.zeros((100, 200), "uint8")
        x, y, width, height = row["bbox"]
        mask[y : y + height, x : x + width] = _ellipse((0, 0, width, height), (width, height), rng)
        masks.append(cv2.resize(mask[y : y + height, x : x + width].astype("float32"), (56, 56)))
        row.update(segmentation=_run_lengths(mask, "list"), area=float(mask.sum()))
    boxes = [[[0.1, 0.1, 0.6, 0.5], [0.5, 0.5, 0.8, 0.7]]]
    detections = {**_detections(boxes, [[0.9, 0.8]], [[0, 1]]), "masks": np.array([masks])}
    metrics = coco_metrics(truth, coco_results(detections, [0], truth), "segm")
    assert metrics["AP75"] == pytest.approx(1.0) and metrics["AP"] > 0.9


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
        ({"masks": [[[[np.nan]]]]}, [0], "image id 0: masks .* finite; received: nan"),
        ({"keypoints": [[[[0, np.inf, 0]]]]}, [0], "image id 0: keypoints .* received: inf"),
        ({}, [5], "image id 5: must be one of the 1 pictures"),
    ],
)
def test_bad_detections(change, image_ids, message):
    content = {"boxes": [[[0, 0, 1, 1]]], "scores": [[0.5]], "labels": [[1]], **change}
    detections = {name: np.array(values) for name, values in content.items()}
    with pytest.raises(ValueError, match=message):
        coco_results(detections, image_ids, _ground_truth([]))


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


def test_format_table_of_boxes_masks_and_keypoints():
    metrics = dict(zip(NAMES, np.linspace(0, 1, 12).tolist()))
    metrics["per_class"] = {"cat": {"AP": 0.5, "AP50": 0.75}}
    masks = {**metrics, "AP": None, "per_class": {"cat": {"AP": 0.25, "AP50": None}}}
    keypoints = dict(zip(KEYPOINT_NAMES, np.linspace(0, 0.9, 10).tolist()))
    keypoints["per_class"] = {"cat": {"AP": 0.125, "AP50": 1.0}}
    lines = format_table({**metrics, "masks": masks, "keypoints": keypoints}).splitlines()
    assert lines == [
        "boxes",
        "       AP     AP50     AP75  APsmall APmedium  APlarge",
        "    0.000    0.091    0.182    0.273    0.364    0.455",
        "",
        "      AR1     AR10    AR100  ARsmall ARmedium  ARlarge",
        "    0.545    0.636    0.727    0.818    0.909    1.000",
        "",
        "masks",
        "       AP     AP50     AP75  APsmall APmedium  APlarge",
        "        -    0.091    0.182    0.273    0.364    0.455",
        "",
        "      AR1     AR10    AR100  ARsmall ARmedium  ARlarge",
        "    0.545    0.636    0.727    0.818    0.909    1.000",
        "",
        "keypoints",
        "       AP     AP50     AP75 APmedium  APlarge",
        "    0.000    0.100    0.200    0.300    0.400",
        "",
        "       AR     AR50     AR75 ARmedium  ARlarge",
        "    0.500    0.600    0.700    0.800    0.900",
        "",
        "                  boxes             masks         keypoints",
        "class       AP     AP50       AP     AP50       AP     AP50",
        "cat      0.500    0.750    0.250        -    0.125    1.000",
    ]
