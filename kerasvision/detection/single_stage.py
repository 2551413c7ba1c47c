"""What detectors without proposals share: one network, decoding, suppression.

SSD, RetinaNet and the YOLOs differ in what their networks give, how they are trained and how
boxes are read from them. From boxes and scores on, all do the same.
"""

import keras

from kerasvision.detection.detector import Detector
from kerasvision.layers import NonMaxSuppression


class SingleStageDetector(Detector):
    """A network with decoding and per-class non-maximum suppression behind it.

    Batches and detections are those of `Detector`. Calling the model gives the network's raw
    outputs.

    A child has `compute_loss`, and `decode` from the raw outputs to boxes (B, A, 4) rel_yxyx,
    within [0, 1], and scores (B, A, C).

    Args:
        network: functional `keras.Model` from images to a dict of float32 tensors.
        num_classes, class_names, iou_threshold, score_threshold, max_detections: as of `Detector`.
        pre_nms_candidates: of the suppression; see `kerasvision.layers.NonMaxSuppression`.

    Raises:
        ValueError: not as many names as classes.
    """

    def __init__(
        self,
        network,
        num_classes,
        class_names,
        iou_threshold,
        score_threshold,
        max_detections,
        pre_nms_candidates,
        **kwargs,
    ):
        super().__init__(
            network,
            num_classes,
            class_names,
            iou_threshold,
            score_threshold,
            max_detections,
            **kwargs,
        )
        self.pre_nms_candidates = pre_nms_candidates

    def call(self, inputs, training=None):
        images = inputs["images"] if isinstance(inputs, dict) else inputs
        return self.network(images, training=training)

    @property
    def detector(self):
        """Functional `keras.Model` from images to detections; shares this model's weights."""
        if "_detector" not in self.__dict__:
            images = keras.Input(self.image_shape, name="images")
            boxes, scores = self.decode(self.network(images, training=False))
            detections = NonMaxSuppression(
                self.iou_threshold,
                self.score_threshold,
                self.max_detections,
                self.pre_nms_candidates,
                name="non_max_suppression",
            )(boxes, scores)
            # Past Keras's tracking: it would save the shared weights a second time.
            object.__setattr__(self, "_detector", keras.Model(images, detections, name="detector"))
        return self._detector

    def get_config(self):
        return {**super().get_config(), "pre_nms_candidates": self.pre_nms_candidates}
