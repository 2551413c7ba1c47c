"""COCO's average precision of boxes, computed by faster-coco-eval.

Lin et al., Microsoft COCO: Common Objects in Context, https://arxiv.org/abs/1405.0312, and
https://cocodataset.org/#detection-eval, which defines the twelve numbers.
"""

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

# The twelve numbers of COCO's summary, in its order.
NAMES = (
    "AP", "AP50", "AP75", "APsmall", "APmedium", "APlarge",
    "AR1", "AR10", "AR100", "ARsmall", "ARmedium", "ARlarge",
)  # fmt: skip


def coco_results(detections, image_ids, ground_truth):
    """Turns detections into the rows that COCO's evaluation reads.

    Args:
        detections: dict of arrays "boxes" (P, K, 4), (ymin, xmin, ymax, xmax) relative to the
            picture; "scores" (P, K); and "labels" (P, K), classes from 0, -1 = padding.
        image_ids: (P,) ids of the pictures.
        ground_truth: COCO-format dict that has the "width" and "height" in pixels of these
            pictures, and "categories" whose ids are the labels.

    Returns:
        list of {"image_id", "category_id", "bbox" [x, y, width, height] in pixels, "score"}, in
        the order of the pictures. An inverted box gets width or height 0: it finds nothing.

    Raises:
        ValueError: a picture comes twice or is not in the ground truth, a label is not one of the
            categories, or a detection is not finite.
    """
    sizes = {image["id"]: (image["height"], image["width"]) for image in ground_truth["images"]}
    category_ids = [category["id"] for category in ground_truth["categories"]]
    rows = []
    seen = set()
    columns = (np.asarray(detections[name]) for name in ("boxes", "scores", "labels"))
    for image_id, boxes, scores, labels in zip(
        np.asarray(image_ids).tolist(), *columns, strict=True
    ):
        if image_id not in sizes:
            raise ValueError(
                f"image id {image_id}: must be one of the {len(sizes)} pictures of the ground "
                f"truth; received: detections of another picture"
            )
        if image_id in seen:
            raise ValueError(
                f"image id {image_id}: must come once; received: detections of it a second time"
            )
        seen.add(image_id)
        found = labels >= 0
        labels = labels[found]
        # float64, as the size in pixels decides between small, medium and large.
        boxes, scores = boxes[found].astype("float64"), scores[found].astype("float64")
        for name, values in (("boxes", boxes), ("scores", scores)):
            if not np.isfinite(values).all():
                value = values[~np.isfinite(values)][0]
                raise ValueError(
                    f"image id {image_id}: {name} of detections must be finite; received: {value}"
                )
        unknown = labels[~np.isin(labels, category_ids)]
        if unknown.size:
            raise ValueError(
                f"image id {image_id}: labels of detections must be category ids of the ground "
                f"truth, which has {len(category_ids)}; received: {unknown[0]}"
            )
        height, width = sizes[image_id]
        ymin, xmin, ymax, xmax = (boxes * [height, width, height, width]).T
        bboxes = np.stack(
            [xmin, ymin, np.maximum(xmax - xmin, 0.0), np.maximum(ymax - ymin, 0.0)], axis=1
        )
        rows += [
            {"image_id": image_id, "category_id": label, "bbox": bbox, "score": score}
            for label, bbox, score in zip(labels.tolist(), bboxes.tolist(), scores.tolist())
        ]
    return rows


def coco_metrics(ground_truth, results):
    """Computes COCO's twelve numbers, and AP and AP50 of each class.

    Per picture and class at most the 100 best detections count, as COCO has it.

    Args:
        ground_truth: COCO-format dict of "images", "annotations" and "categories"; stays as it
            is. Annotations with iscrowd = 1 count neither as found nor as missed. All its
            pictures are evaluated: one without results has missed all its objects.
        results: list of rows as `coco_results` gives, of any order; stays as it is.

    Returns:
        dict: `NAMES` to floats in [0, 1], and "per_class": class name to {"AP", "AP50"}. None
        stands where there was nothing to find: a class or a range of sizes without objects.

    Raises:
        ValueError: a result is of a picture that is not in the ground truth.
    """
    foreign = {row["image_id"] for row in results} - {row["id"] for row in ground_truth["images"]}
    if foreign:
        raise ValueError(
            f"image id {min(foreign)}: must be one of the {len(ground_truth['images'])} pictures "
            f"of the ground truth; received: results of another picture"
        )

    # Copies of the rows, as the evaluation writes into them; numbered from 1, as it takes a
    # match with number 0 for no match.
    objects = [{**row, "id": i} for i, row in enumerate(ground_truth["annotations"], start=1)]
    found = [
        {**row, "id": i, "area": row["bbox"][2] * row["bbox"][3], "iscrowd": 0}
        for i, row in enumerate(results, start=1)
    ]
    evaluation = COCOeval_faster(
        COCO({**ground_truth, "annotations": objects}),
        COCO({**ground_truth, "annotations": found}),
        iouType="bbox",
        print_function=lambda *args: None,
    )
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()

    def number(value):
        return float(value) if value >= 0 else None  # COCO's -1: nothing to find

    metrics = {name: number(value) for name, value in zip(NAMES, evaluation.stats)}
    # (IoU thresholds, recalls, classes, ranges of sizes, limits of detections)
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
    """Lays out the metrics of `coco_metrics` as lines of text; "-" stands for None."""

    def line(first, cells):
        return first + "".join(f"{cell:>9}" for cell in cells)

    def numbers(values):
        return ["-" if value is None else f"{value:.3f}" for value in values]

    width = max(map(len, ["class", *metrics["per_class"]]))
    lines = []
    for names in (NAMES[:6], NAMES[6:]):
        lines += [line("", names), line("", numbers(metrics[name] for name in names)), ""]
    lines.append(line(f"{'class':{width}}", ["AP", "AP50"]))
    for name, values in metrics["per_class"].items():
        lines.append(line(f"{name:{width}}", numbers([values["AP"], values["AP50"]])))
    return "\n".join(lines)
