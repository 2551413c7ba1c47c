"""Non-maximum suppression as a layer."""

import keras

from kerasvision.ops import nms


@keras.saving.register_keras_serializable("kerasvision")
class NonMaxSuppression(keras.layers.Layer):
    """Greedy non-maximum suppression, each class by itself.

    Args:
        iou_threshold: a box is suppressed by a better one of its class at an IoU above it.
        score_threshold: boxes must score above it.
        max_detections: K, the most that a picture returns.
        candidates: how many (box, class) pairs of a picture are looked at, best first.

    Call with boxes (B, A, 4) and scores (B, A, C); returns the detections as a dict of
    "boxes" (B, K, 4), "scores" (B, K), "labels" (B, K) int32 and "count" (B,) int32, sorted
    by score and padded with boxes 0, scores 0, labels -1.
    """

    def __init__(
        self,
        iou_threshold=0.5,
        score_threshold=0.01,
        max_detections=100,
        candidates=1000,
        **kwargs,
    ):
        # Thresholds in half precision would decide other than the ones asked for.
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.iou_threshold = iou_threshold
        self.score_threshold = score_threshold
        self.max_detections = max_detections
        self.candidates = candidates

    def call(self, boxes, scores):
        return nms.batched_non_max_suppression(
            boxes,
            scores,
            iou_threshold=self.iou_threshold,
            score_threshold=self.score_threshold,
            max_detections=self.max_detections,
            candidates=self.candidates,
        )

    def compute_output_shape(self, boxes_shape, scores_shape):
        batch, num_boxes, num_classes = scores_shape
        k = min(self.max_detections, self.candidates, num_boxes * num_classes)
        return {
            "boxes": (batch, k, 4),
            "scores": (batch, k),
            "labels": (batch, k),
            "count": (batch,),
        }

    def compute_output_spec(self, boxes, scores):
        shapes = self.compute_output_shape(boxes.shape, scores.shape)
        dtypes = {"boxes": "float32", "scores": "float32", "labels": "int32", "count": "int32"}
        return {name: keras.KerasTensor(shapes[name], dtypes[name]) for name in shapes}

    def get_config(self):
        return {
            **super().get_config(),
            "iou_threshold": self.iou_threshold,
            "score_threshold": self.score_threshold,
            "max_detections": self.max_detections,
            "candidates": self.candidates,
        }
