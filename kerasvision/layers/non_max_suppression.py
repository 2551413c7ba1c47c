"""Non-maximum suppression as layers."""

import keras

from kerasvision.ops import nms


@keras.saving.register_keras_serializable("kerasvision")
class NonMaxSuppression(keras.layers.Layer):
    """Greedy non-maximum suppression, each class by itself.

    Args:
        iou_threshold: a box is suppressed by a better one of its class at an IoU above it.
        score_threshold: boxes must score above it.
        max_detections: K, the most that a picture returns.
        candidates: how many (box, class) pairs of a picture are looked at, best first; None:
            as many as there are.
        class_agnostic: boxes count with their best class only, and suppress each other
            whatever their classes; candidates are boxes then.

    Call with boxes (B, A, 4) and scores (B, A, C); returns the detections as a dict of
    "boxes" (B, K, 4), "scores" (B, K), "labels" (B, K) int32 and "count" (B,) int32, sorted
    by score and padded with boxes 0, scores 0, labels -1. K is the number of candidates
    where that is less.

    Raises:
        ValueError: settings or shapes that `kerasvision.ops.nms` doesn't take.
    """

    def __init__(
        self,
        iou_threshold=0.5,
        score_threshold=0.01,
        max_detections=100,
        candidates=1000,
        class_agnostic=False,
        **kwargs,
    ):
        # Thresholds in half precision would decide other than the ones asked for.
        super().__init__(**{**kwargs, "dtype": "float32"})
        nms.check_settings(iou_threshold, score_threshold, max_detections, candidates)
        self.iou_threshold = iou_threshold
        self.score_threshold = score_threshold
        self.max_detections = max_detections
        self.candidates = candidates
        self.class_agnostic = class_agnostic

    def call(self, boxes, scores):
        return nms.batched_non_max_suppression(
            boxes,
            scores,
            iou_threshold=self.iou_threshold,
            score_threshold=self.score_threshold,
            max_detections=self.max_detections,
            candidates=self.candidates,
            class_agnostic=self.class_agnostic,
        )

    def compute_output_shape(self, boxes_shape, scores_shape):
        candidates = self.max_detections if self.candidates is None else self.candidates
        return _detections_shape(scores_shape, min(self.max_detections, candidates))

    def compute_output_spec(self, boxes, scores):
        return _detections_spec(self.compute_output_shape(boxes.shape, scores.shape))

    def get_config(self):
        return {
            **super().get_config(),
            "iou_threshold": self.iou_threshold,
            "score_threshold": self.score_threshold,
            "max_detections": self.max_detections,
            "candidates": self.candidates,
            "class_agnostic": self.class_agnostic,
        }


@keras.saving.register_keras_serializable("kerasvision")
class SoftNonMaxSuppression(keras.layers.Layer):
    """Soft-NMS (Bodla et al. 2017), each class by itself.

    Args:
        method: "gaussian" or "linear".
        sigma: of the Gaussian.
        iou_threshold: of the linear method.
        score_threshold: lowered scores must be above it.
        max_detections: K, the most that a picture returns.
        candidates: how many (box, class) pairs of a picture are looked at, best first; None:
            as many as there are.

    Call with boxes (B, A, 4) and scores (B, A, C); returns a dict as `NonMaxSuppression`
    does, with lowered scores.

    Raises:
        ValueError: settings or shapes that `kerasvision.ops.nms` doesn't take.
    """

    def __init__(
        self,
        method="gaussian",
        sigma=0.5,
        iou_threshold=0.3,
        score_threshold=0.001,
        max_detections=100,
        candidates=1000,
        **kwargs,
    ):
        super().__init__(**{**kwargs, "dtype": "float32"})
        nms.check_settings(iou_threshold, score_threshold, max_detections, candidates)
        nms.check_method(method, sigma)
        self.method = method
        self.sigma = sigma
        self.iou_threshold = iou_threshold
        self.score_threshold = score_threshold
        self.max_detections = max_detections
        self.candidates = candidates

    def call(self, boxes, scores):
        return nms.batched_soft_non_max_suppression(
            boxes,
            scores,
            method=self.method,
            sigma=self.sigma,
            iou_threshold=self.iou_threshold,
            score_threshold=self.score_threshold,
            max_detections=self.max_detections,
            candidates=self.candidates,
        )

    def compute_output_shape(self, boxes_shape, scores_shape):
        candidates = self.max_detections if self.candidates is None else self.candidates
        return _detections_shape(scores_shape, min(self.max_detections, candidates))

    def compute_output_spec(self, boxes, scores):
        return _detections_spec(self.compute_output_shape(boxes.shape, scores.shape))

    def get_config(self):
        return {
            **super().get_config(),
            "method": self.method,
            "sigma": self.sigma,
            "iou_threshold": self.iou_threshold,
            "score_threshold": self.score_threshold,
            "max_detections": self.max_detections,
            "candidates": self.candidates,
        }


def _detections_shape(scores_shape, max_detections):
    batch = scores_shape[0]
    return {
        "boxes": (batch, max_detections, 4),
        "scores": (batch, max_detections),
        "labels": (batch, max_detections),
        "count": (batch,),
    }


def _detections_spec(shapes):
    dtypes = {"boxes": "float32", "scores": "float32", "labels": "int32", "count": "int32"}
    return {name: keras.KerasTensor(shape, dtypes[name]) for name, shape in shapes.items()}
