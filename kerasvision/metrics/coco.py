"""COCO's average precision of boxes, computed by faster-coco-eval."""

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

# Names of the twelve numbers of COCO's summary, in its order.
NAMES = (
    "AP", "AP50", "AP75", "APsmall", "APmedium", "APlarge",
    "AR1", "AR10", "AR100", "ARsmall", "ARmedium", "ARlarge",
)  # fmt: skip


def coco_results(detections, image_ids, ground_truth):
    """Detections as the rows that COCO's evaluation reads.

    Args:
        detections: dict of arrays "boxes" (P, K, 4) relative (ymin, xmin, ymax, xmax),
            "scores" (P, K) and "labels" (P, K); label -1 is padding.
        image_ids: (P,) ids of the pictures.
        ground_truth: COCO-format dict with the sizes of these pictures.

    Returns:
        list of {"image_id", "category_id", "bbox" [x, y, width, height] in pixels, "score"}.

    Raises:
        ValueError: a picture is not in the ground truth, or a detection is not finite.
    """
    sizes = {image["id"]: (image["height"], image["width"]) for image in ground_truth["images"]}
    rows = []
    for i, image_id in enumerate(np.asarray(image_ids).tolist()):
        if image_id not in sizes:
            raise ValueError(f"image id {image_id}: is not in the ground truth")
        found = np.asarray(detections["labels"][i]) >= 0
        height, width = sizes[image_id]
        boxes = np.asarray(detections["boxes"][i], "float64")[found]
        scores = np.asarray(detections["scores"][i], "float64")[found]
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise ValueError(f"image id {image_id}: detections must be finite numbers")
        ymin, xmin, ymax, xmax = (boxes * [height, width, height, width]).T
        bboxes = np.stack([xmin, ymin, xmax - xmin, ymax - ymin], axis=1)
        labels = np.asarray(detections["labels"][i])[found]
        rows += [
            {"image_id": image_id, "category_id": label, "bbox": bbox, "score": score}
            for label, bbox, score in zip(labels.tolist(), bboxes.tolist(), scores.tolist())
        ]
    return rows


def coco_metrics(ground_truth, results):
    """COCO's twelve numbers, and AP and AP50 of each class.

    Args:
        ground_truth: COCO-format dict of images, annotations and categories. Annotations with
            iscrowd = 1 count neither as found nor as missed.
        results: list of rows as `coco_results` gives.

    Returns:
        dict: `NAMES` to floats in [0, 1], and "per_class": class name to {"AP", "AP50"}. None
        stands where there is nothing to find: a class or a range of sizes without objects.
    """
    quiet = {"print_function": lambda *args: None}
    truth = COCO(ground_truth, **quiet)
    evaluation = COCOeval_faster(truth, truth.loadRes(results), "bbox", **quiet)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()

    def number(value):
        return float(value) if value >= 0 else None  # COCO's -1: nothing to find

    metrics = {name: number(value) for name, value in zip(NAMES, evaluation.stats)}
    # (IoU thresholds, recalls, classes, size ranges, limits of detections)
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    names = {category["id"]: category["name"] for category in ground_truth["categories"]}
    metrics["per_class"] = {
        names[category_id]: {
            "AP": number(precision[:, :, k].mean()),
            "AP50": number(precision[0, :, k].mean()),
        }
        for k, category_id in enumerate(evaluation.params.catIds)
    }
    return metrics


def format_table(metrics):
    """The metrics of `coco_metrics` as lines of text."""

    def cell(value):
        return f"{value:7.3f}" if value is not None else "      -"

    lines = [
        "  ".join(f"{name:>8} {cell(metrics[name])}" for name in NAMES[start : start + 3])
        for start in range(0, 12, 3)
    ]
    width = max([5, *map(len, metrics["per_class"])])
    lines += ["", f"{'class':{width}}       AP    AP50"]
    for name, values in metrics["per_class"].items():
        lines.append(f"{name:{width}}  {cell(values['AP'])} {cell(values['AP50'])}")
    return "\n".join(lines)
