"""COCO's average precision of boxes, masks and keypoints, computed by faster-coco-eval.

Lin et al., Microsoft COCO: Common Objects in Context, https://arxiv.org/abs/1405.0312, and
https://cocodataset.org/#detection-eval and #keypoints-eval, which define the numbers.
"""

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from faster_coco_eval.core import mask as run_lengths

from kerasvision.ops.masks import paste_mask

# The twelve numbers of COCO's summary of boxes and of masks, in its order.
NAMES = (
    "AP", "AP50", "AP75", "APsmall", "APmedium", "APlarge",
    "AR1", "AR10", "AR100", "ARsmall", "ARmedium", "ARlarge",
)  # fmt: skip
# The ten of keypoints: persons below 32² pixels have none in COCO.
KEYPOINT_NAMES = (
    "AP", "AP50", "AP75", "APmedium", "APlarge", "AR", "AR50", "AR75", "ARmedium", "ARlarge",
)  # fmt: skip
# The entry of an annotation that has what is compared; that of the metrics in a larger dict, if
# they aren't those of boxes.
ENTRIES = {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}
PARTS = {"segm": "masks", "keypoints": "keypoints"}

# How far off a keypoint may be, by COCO's measure: nose, eyes, ears, shoulders, elbows, wrists,
# hips, knees, ankles of a person.
PERSON_SIGMAS = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107,
    0.087, 0.087, 0.089, 0.089,
)  # fmt: skip
# Of other keypoints: between eyes and hips.
OTHER_SIGMA = 0.05


def coco_results(detections, image_ids, ground_truth):
    """Turns detections into the rows that COCO's evaluation reads.

    Args:
        detections: dict of arrays "boxes" (B, K, 4), (ymin, xmin, ymax, xmax) relative to the
            picture; "scores" (B, K); "labels" (B, K), classes from 0, -1 = padding; and
            optionally "masks" (B, K, h, w), probabilities on a grid over the box; "keypoints"
            (B, K, P, 3), (y, x, probability), relative to the picture.
        image_ids: (B,) ids of the pictures.
        ground_truth: COCO-format dict that has the "width" and "height" in pixels of these
            pictures, and "categories" whose ids are the labels.

    Returns:
        list of {"image_id", "category_id", "bbox" [x, y, width, height] in pixels, "score"}, in
        the order of the pictures. An inverted box gets width or height 0: it finds nothing.
        Rows of detections with masks have "segmentation", COCO's compressed run lengths of the
        mask in the picture; with keypoints "keypoints", [x, y, probability] * P in pixels.

    Raises:
        ValueError: a picture comes twice or is not in the ground truth, a label is not one of the
            categories, or a detection is not finite.
    """
    sizes = {image["id"]: (image["height"], image["width"]) for image in ground_truth["images"]}
    category_ids = [category["id"] for category in ground_truth["categories"]]
    columns = {
        name: np.asarray(detections[name])
        for name in ("labels", "boxes", "scores", "masks", "keypoints")
        if name in detections
    }
    rows = []
    seen = set()
    for image_id, *values in zip(np.asarray(image_ids).tolist(), *columns.values(), strict=True):
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
        found = {name: column[values[0] >= 0] for name, column in zip(columns, values)}
        for name, column in found.items():
            if not np.isfinite(column).all():
                value = column[~np.isfinite(column)][0]
                raise ValueError(
                    f"image id {image_id}: {name} of detections must be finite; received: {value}"
                )
        unknown = found["labels"][~np.isin(found["labels"], category_ids)]
        if unknown.size:
            raise ValueError(
                f"image id {image_id}: labels of detections must be category ids of the ground "
                f"truth, which has {len(category_ids)}; received: {unknown[0]}"
            )
        rows += _rows_of_picture(found, image_id, sizes[image_id])
    return rows


def _rows_of_picture(found, image_id, size):
    """The rows of the detections of one picture of this (height, width), without padding."""
    height, width = size
    # float64, as the size in pixels decides between small, medium and large.
    boxes = found["boxes"].astype("float64")
    ymin, xmin, ymax, xmax = (boxes * [height, width, height, width]).T
    bboxes = np.stack(
        [xmin, ymin, np.maximum(xmax - xmin, 0.0), np.maximum(ymax - ymin, 0.0)], axis=1
    )
    scores = found["scores"].astype("float64")
    rows = [
        {"image_id": image_id, "category_id": label, "bbox": bbox, "score": score}
        for label, bbox, score in zip(found["labels"].tolist(), bboxes.tolist(), scores.tolist())
    ]
    if "masks" in found:
        for row, mask, box in zip(rows, found["masks"], boxes):
            row["segmentation"] = _encode_mask(mask, box, size)
    if "keypoints" in found:
        keypoints = found["keypoints"].astype("float64")[:, :, [1, 0, 2]] * [width, height, 1.0]
        for row, points in zip(rows, keypoints):
            row["keypoints"] = points.ravel().tolist()
    return rows


def _encode_mask(mask, box, size):
    """COCO's compressed run lengths of a mask over a box: {"size", "counts"}."""
    # Column by column in memory, as the runs are.
    picture = np.zeros(size, "uint8", order="F")
    window, covered = paste_mask(mask, box, size)
    picture[window] = covered
    encoded = run_lengths.encode(picture)
    return {"size": list(size), "counts": encoded["counts"].decode()}


def area_of(row, iou_type):
    """Area in pixels of a row of `coco_results`: of its box, its mask, or around its keypoints."""
    if iou_type == "segm":
        return float(run_lengths.area(row["segmentation"]))
    if iou_type == "keypoints":
        return float(np.ptp(row["keypoints"][0::3]) * np.ptp(row["keypoints"][1::3]))
    return row["bbox"][2] * row["bbox"][3]


def coco_metrics(ground_truth, results, iou_type="bbox", sigmas=None):
    """Computes COCO's numbers, and AP and AP50 of each class.

    Per picture and class at most the 100 best detections count, and 20 if keypoints are compared,
    as COCO has it.

    Args:
        ground_truth: COCO-format dict of "images", "annotations" and "categories"; stays as it
            is. Annotations with iscrowd = 1 count neither as found nor as missed; so do those
            without the mask or the keypoints that are to be compared: a mask is then that of the
            box. Segmentations are polygons, or run lengths, compressed or not. All pictures
            are evaluated: one without results has missed all its objects.
        results: list of rows as `coco_results` gives, of any order; stays as it is.
        iou_type: what is compared: "bbox", "segm" (masks) or "keypoints".
        sigmas: P standard deviations of the keypoints, in COCO's measure: how far people's clicks
            lie apart, divided by the root of the object's area. None: COCO's own for the 17 of
            persons, and `OTHER_SIGMA` for others.

    Returns:
        dict: `NAMES`, or `KEYPOINT_NAMES`, to floats in [0, 1], and "per_class": class name to
        {"AP", "AP50"}. None stands where there was nothing to find: a class or a range of sizes
        without objects.

    Raises:
        ValueError: a result is of a picture that is not in the ground truth, or lacks what is to
            be compared; objects, results and sigmas differ in their number of keypoints.
    """
    _check_results(ground_truth, results, iou_type)
    # Copies of the rows, as the evaluation writes into them; numbered from 1, as it takes a
    # match with number 0 for no match.
    objects = [{**row, "id": i} for i, row in enumerate(ground_truth["annotations"], start=1)]
    found = [
        {**row, "id": i, "area": area_of(row, iou_type), "iscrowd": 0}
        for i, row in enumerate(results, start=1)
    ]
    if iou_type == "segm":
        _ignore_without_mask(objects)
    if iou_type == "keypoints":
        sigmas = _sigmas_of([*objects, *found], sigmas)
        _ignore_without_keypoints(objects, len(sigmas))

    evaluation = COCOeval_faster(
        COCO({**ground_truth, "annotations": objects}),
        COCO({**ground_truth, "annotations": found}),
        iouType=iou_type,
        print_function=lambda *args: None,
    )
    categories = ground_truth["categories"]
    evaluation.params.catIds = sorted(category["id"] for category in categories)
    if iou_type == "keypoints":
        evaluation.params.kpt_oks_sigmas = sigmas
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()

    def number(value):
        return float(value) if value >= 0 else None  # COCO's -1: nothing to find

    names = KEYPOINT_NAMES if iou_type == "keypoints" else NAMES
    metrics = {name: number(value) for name, value in zip(names, evaluation.stats)}
    # (IoU thresholds, recalls, classes, ranges of sizes, limits of detections)
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    class_names = {category["id"]: category["name"] for category in categories}
    metrics["per_class"] = {
        class_names[category_id]: {
            "AP": number(precision[:, :, k].mean()),
            "AP50": number(precision[0, :, k].mean()),
        }
        for k, category_id in enumerate(evaluation.params.catIds)
    }
    return metrics


def _check_results(ground_truth, results, iou_type):
    if iou_type not in ENTRIES:
        raise ValueError(f"iou_type: must be one of {', '.join(ENTRIES)}; received: {iou_type}")
    foreign = {row["image_id"] for row in results} - {row["id"] for row in ground_truth["images"]}
    if foreign:
        raise ValueError(
            f"image id {min(foreign)}: must be one of the {len(ground_truth['images'])} pictures "
            f"of the ground truth; received: results of another picture"
        )
    for row in results:
        if ENTRIES[iou_type] not in row:
            raise ValueError(
                f"image id {row['image_id']}: results must have {ENTRIES[iou_type]!r} for "
                f"iou_type={iou_type!r}; received: {', '.join(row)}"
            )


def _ignore_without_mask(objects):
    """Gives objects without a mask that of their box, to be ignored."""
    for row in objects:
        if not row.get("segmentation"):
            x, y, width, height = row["bbox"]
            box = [x, y, x + width, y, x + width, y + height, x, y + height]
            row.update(segmentation=[box], iscrowd=1)


def _sigmas_of(rows, sigmas):
    """The sigmas, or those that fit the keypoints of the rows."""
    counts = {len(row["keypoints"]) // 3 for row in rows if row.get("keypoints")}
    if sigmas is not None:
        counts.add(len(sigmas))
    if len(counts) > 1:
        raise ValueError(
            f"keypoints: objects, results and sigmas must have the same number of them; "
            f"received: {', '.join(map(str, sorted(counts)))}"
        )
    if sigmas is None:
        number = max(counts, default=0)
        sigmas = PERSON_SIGMAS if number == len(PERSON_SIGMAS) else [OTHER_SIGMA] * number
    return np.asarray(sigmas, "float64")


def _ignore_without_keypoints(objects, num_keypoints):
    """Gives objects without keypoints unlabelled ones: COCO ignores what has no labelled ones."""
    for row in objects:
        keypoints = row.get("keypoints") or [0] * (3 * num_keypoints)
        labelled = sum(visibility > 0 for visibility in keypoints[2::3])
        row.update(keypoints=keypoints, num_keypoints=labelled)


def format_table(metrics):
    """Lays out metrics as lines of text; "-" stands for None.

    Args:
        metrics: dict of `coco_metrics` for boxes, in which "masks" and "keypoints" may be further
            such dicts.
    """

    def line(first, cells, width=9):
        return first + "".join(f"{cell:>{width}}" for cell in cells)

    def numbers(values):
        return ["-" if value is None else f"{value:.3f}" for value in values]

    parts = {"boxes": metrics}
    parts.update({name: metrics[name] for name in PARTS.values() if name in metrics})
    lines = []
    for part, values in parts.items():
        names = KEYPOINT_NAMES if part == "keypoints" else NAMES
        half = len(names) // 2
        lines += [part] if len(parts) > 1 else []
        for row in (names[:half], names[half:]):
            lines += [line("", row), line("", numbers(values[name] for name in row)), ""]

    width = max(map(len, ["class", *metrics["per_class"]]))
    if len(parts) > 1:
        lines.append(line(" " * width, parts, width=18))
    lines.append(line(f"{'class':{width}}", ["AP", "AP50"] * len(parts)))
    for name in metrics["per_class"]:
        rows = [values["per_class"][name] for values in parts.values()]
        cells = [row[measure] for row in rows for measure in ("AP", "AP50")]
        lines.append(line(f"{name:{width}}", numbers(cells)))
    return "\n".join(lines)
