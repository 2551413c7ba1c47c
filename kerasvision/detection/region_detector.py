"""What detectors by regions share, from R-CNN to Mask R-CNN: samples, losses, decoding.

They all tell the class of regions that something else proposes, and move the regions to the
objects. Who proposes them, and how a region's features are computed, is what the papers are about.
"""

import keras
import numpy as np
from keras import ops

from kerasvision import backbones
from kerasvision.backbones.weights import freeze_batch_norms
from kerasvision.detection.detector import Detector
from kerasvision.detection.proposals import padded, selective_search
from kerasvision.ops import boxes as box_ops
from kerasvision.ops import matching
from kerasvision.ops.nms import labelled_non_max_suppression
from kerasvision.ops.sampling import balanced_sampling

# Deviations of the offsets of centres and of sizes, as in the authors' code of Fast R-CNN.
VARIANCES = (0.1, 0.2)
# Of the regions that train the head (Girshick 2015, section 2.3).
POSITIVE_FRACTION = 0.25
# The layer of each network that the papers call conv5: its last map of stride 16.
CONV5 = {
    "mobilenet_v2": "block_12_add",
    "squeezenet": "fire9_concat",
    "alexnet": "conv5",
    "vgg16": "block5_conv3",
}
# Numbers of regions are rounded up to multiples of this, so that few shapes are compiled.
REGIONS_AT_ONCE = 64


def convolutional_layers(backbone, image_shape, weights=None):
    """The layers of a classification network up to its last map of stride 16.

    Args:
        backbone: name in `CONV5`.
        image_shape: (height, width, 3) of pictures, or of crops.
        weights: as of the function of that name in `kerasvision.backbones`; with any, batch
            normalisation stays as loaded: crops of one picture are no sample of all.

    Returns:
        functional `keras.Model` from images to (B, h, w, D).

    Raises:
        ValueError: another name.
    """
    if backbone not in CONV5:
        raise ValueError(f"backbone must be one of {', '.join(CONV5)}; received: {backbone!r}")
    whole = getattr(backbones, backbone)(image_shape, include_top=False, weights=weights)
    if weights is not None:
        freeze_batch_norms(whole)
    return keras.Model(whole.input, whole.get_layer(CONV5[backbone]).output, name=backbone)


class RegionDetector(Detector):
    """A detector that classifies regions and moves them.

    A child has `call` and the losses' sum; what it gives for a batch with boxes are "regions"
    (B, S, 4), their "matches" (B, S), "logits" (B, S, C + 1), background first, and "offsets"
    (B, S, C + 1, 4).

    Args:
        network, num_classes, class_names, iou_threshold, score_threshold, max_detections: as in
            `Detector`.
        head: functional `keras.Model` from the features of a region to its outputs.
        num_samples: regions of a picture that train the head, a quarter of them positive.
        background_range: (low, high) of the IoU of regions that train as background.
    """

    def __init__(
        self,
        network,
        head,
        num_classes,
        class_names,
        num_samples,
        background_range,
        iou_threshold,
        score_threshold,
        max_detections,
        **kwargs,
    ):
        # Boxes in half precision would be off by pixels: the networks cast for themselves.
        super().__init__(
            network,
            num_classes,
            class_names,
            iou_threshold,
            score_threshold,
            max_detections,
            **{**kwargs, "autocast": False},
        )
        self.head = head
        self.num_samples = num_samples
        self.background_range = tuple(background_range)
        self.seed_generator = keras.random.SeedGenerator()

    # Exports put what a phone has for it in its place.
    suppression = staticmethod(labelled_non_max_suppression)

    # --- Samples ---

    def sampling_seed(self, training):
        """New samples in each step of training, the same ones whenever it is evaluated."""
        return self.seed_generator if training else 0

    def sample_regions(self, proposals, valid, boxes, labels, seed):
        """Regions that train the head: proposals and, so that there are good ones, the objects.

        Positive is a region with an IoU of at least 0.5 with an object.

        Args:
            proposals: (B, K, 4).
            valid: (B, K) bool: False for padding.
            boxes: (B, N, 4) of the objects.
            labels: (B, N), -1 = padding. Degenerate boxes match nothing.
            seed: as of `balanced_sampling`.

        Returns:
            regions (B, S, 4), positive ones first; and matches (B, S) int32: the object's row,
            `matching.BACKGROUND`, or `matching.IGNORED` where there were too few regions.
        """
        regions, matches = self.match_regions(proposals, valid, boxes, labels)
        number = min(self.num_samples, regions.shape[1])
        indices, counted = balanced_sampling(matches, number, POSITIVE_FRACTION, seed)
        regions = ops.take_along_axis(regions, ops.expand_dims(indices, -1), axis=1)
        matches = ops.take_along_axis(matches, indices, axis=1)
        return regions, ops.where(counted, matches, matching.IGNORED)

    def match_regions(self, proposals, valid, boxes, labels):
        """All regions there are, (B, K + N, 4), and their matches (B, K + N)."""
        boxes, labels = ops.cast(boxes, "float32"), ops.cast(labels, "int32")
        real = ops.logical_and(labels >= 0, box_ops.area(boxes) > 0.0)
        regions = ops.concatenate([proposals, boxes], axis=1)
        usable = ops.concatenate([valid, real], axis=1)
        iou = ops.where(ops.expand_dims(real, -1), box_ops.iou(boxes, regions), 0.0)
        matches = matching.arg_max_matching(iou, 0.5, self.background_range)
        # Padding becomes the whole picture, from which offsets can be measured.
        regions = ops.where(ops.expand_dims(usable, -1), regions, np.float32([0, 0, 1, 1]))
        return regions, ops.where(usable, matches, matching.IGNORED)

    # --- Losses ---

    def losses_of_regions(self, outputs, boxes, labels):
        """Losses of each region (Girshick 2015, equation 1).

        Returns:
            cross-entropy and smooth L1, (B, S) each; and (B, S) bool: which regions count.
        """
        matches, regions = outputs["matches"], outputs["regions"]
        cross_entropy, counted = self.cross_entropy_of_regions(outputs, labels)
        row = ops.maximum(matches, 0)
        positive = matches >= 0
        own = ops.where(positive, ops.take_along_axis(labels, row, axis=1) + 1, 0)
        targets = box_ops.encode(
            ops.take_along_axis(boxes, ops.expand_dims(row, -1), axis=1),
            box_ops.to_center_form(regions),
            VARIANCES,
        )
        offsets = ops.take_along_axis(outputs["offsets"], own[:, :, None, None], axis=2)
        distances = ops.sum(box_ops.smooth_l1(offsets[:, :, 0] - targets), axis=-1)
        return cross_entropy, ops.where(positive, distances, 0.0), counted

    def cross_entropy_of_regions(self, outputs, labels):
        """The classification's part of `losses_of_regions`: (B, S), and which regions count."""
        matches = outputs["matches"]
        own = ops.take_along_axis(labels, ops.maximum(matches, 0), axis=1) + 1
        classes = ops.expand_dims(ops.where(matches >= 0, own, 0), -1)
        log_probabilities = ops.log_softmax(outputs["logits"], axis=-1)
        cross_entropy = -ops.take_along_axis(log_probabilities, classes, axis=-1)[..., 0]
        counted = matches != matching.IGNORED
        return ops.where(counted, cross_entropy, 0.0), counted

    # --- Decoding ---

    def decode(self, outputs, regions):
        """Boxes (B, R, C, 4), cut off at the picture's border, and scores (B, R, C)."""
        scores = ops.softmax(outputs["logits"], axis=-1)[:, :, 1:]
        references = ops.expand_dims(box_ops.to_center_form(regions), 2)
        boxes = box_ops.decode(outputs["offsets"][:, :, 1:], references, VARIANCES)
        return box_ops.clip(boxes), scores

    def suppress(self, boxes, scores, valid):
        """Detections: the best boxes (B, R, C, 4) of each class that overlap little.

        Args:
            boxes: (B, R, C, 4), of each class its own.
            scores: (B, R, C).
            valid: (B, R) bool: False for padding.
        """
        scores = ops.where(ops.expand_dims(valid, -1), scores, 0.0)
        number = scores.shape[1] * self.num_classes
        scores = ops.reshape(scores, (-1, number))
        labels = ops.zeros_like(scores, "int32") + np.arange(number) % self.num_classes
        return self.suppression(
            ops.reshape(boxes, (-1, number, 4)),
            scores,
            labels,
            self.iou_threshold,
            self.score_threshold,
            min(self.max_detections, number),
        )

    def __dir__(self):
        # Where Keras looks for what to save; it would go round between the model and those that
        # are made of it.
        hidden = ("detector", "_detector", "_stages")
        return [name for name in super().__dir__() if name not in hidden]

    def get_config(self):
        return {
            **super().get_config(),
            "head": keras.saving.serialize_keras_object(self.head),
            "num_samples": self.num_samples,
            "background_range": self.background_range,
        }


class ProposalDetector(RegionDetector):
    """A detector whose proposals come from outside: R-CNN, SPP-net, Fast R-CNN.

    Batches of `Detector` have besides "proposals" (B, R, 4), boxes like all others, padded with
    zeros. `predict_on_batch` of images without them searches for them. With `fixed_proposals`
    no batch needs any.

    A child has `extract`, from images and regions to features, and `classify`, from these to
    detections.

    Args:
        fixed_proposals: (R, 4), the same for all pictures; None: each picture has its own.
        num_proposals: R of the exported detector, and of a picture at most.
        search_mode: of `selective_search`.

    Other arguments are those of `RegionDetector`.
    """

    def __init__(
        self,
        *args,
        fixed_proposals=None,
        num_proposals=2000,
        search_mode="fast",
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        if fixed_proposals is not None:
            fixed_proposals = np.asarray(fixed_proposals, "float32")
            if fixed_proposals.ndim != 2 or fixed_proposals.shape[-1] != 4:
                raise ValueError(
                    f"fixed_proposals must be (number, 4); received: {fixed_proposals.shape}"
                )
            num_proposals = len(fixed_proposals)
        self.fixed_proposals = fixed_proposals
        self.num_proposals = num_proposals
        self.search_mode = search_mode

    # --- From images to detections, or to what the losses want ---

    def call(self, inputs, training=None):
        """Detections of images with proposals; with boxes the outputs for sampled regions.

        Args:
            inputs: a batch dictionary; or images (B, H, W, 3), if the proposals are fixed.
            training: whether layers and samples are those of training.
        """
        inputs = inputs if isinstance(inputs, dict) else {"images": inputs}
        images = inputs["images"]
        proposals = self.proposals_of(inputs)
        if "bounding_boxes" not in inputs:
            return self.classify(self.extract(images, proposals), proposals)
        truth = inputs["bounding_boxes"]
        regions, matches = self.sample_regions(
            proposals,
            box_ops.area(proposals) > 0.0,
            truth["boxes"],
            truth["labels"],
            self.sampling_seed(training),
        )
        features = self.extract(images, regions, training)
        return {
            "regions": regions,
            "matches": matches,
            **self.outputs_of(features, training),
        }

    def proposals_of(self, inputs):
        """The proposals (B, R, 4) of a batch: those in it, or the fixed ones."""
        if self.fixed_proposals is None:
            return ops.cast(inputs["proposals"], "float32")
        zeros = ops.zeros_like(inputs["images"][:, :1, 0, :1], dtype="float32")
        return zeros + self.fixed_proposals

    def outputs_of(self, features, training=False):
        """What the head makes of features (B, R, …): dict of (B, R, …)."""
        number = features.shape[1]
        flat = ops.reshape(features, (-1, *features.shape[2:]))
        return keras.tree.map_structure(
            lambda x: ops.reshape(x, (-1, number, *x.shape[1:])), self.head(flat, training=training)
        )

    # --- Prediction in three stages ---

    def propose(self, images):
        """Proposals (B, R, 4) of images (B, H, W, 3) as an array, padded with zeros.

        R is the largest number of a picture, rounded up to a multiple of 64.
        """
        if self.fixed_proposals is not None:
            return np.tile(self.fixed_proposals, (len(images), 1, 1))
        images = np.clip(np.rint(np.asarray(images)), 0, 255).astype("uint8")
        found = [selective_search(x, self.search_mode, self.num_proposals) for x in images]
        most = max(1, *map(len, found))
        number = -(-most // REGIONS_AT_ONCE) * REGIONS_AT_ONCE
        return np.stack([padded(proposals, number) for proposals in found])

    def extract_on_batch(self, images, proposals):
        """`extract`, compiled, for images (B, H, W, 3) and proposals (B, R, 4): an array."""
        stage = self._stage("extract", proposals.shape[1])
        return stage.predict_on_batch({"images": images, "regions": proposals})

    def classify_on_batch(self, features, proposals):
        """`classify`, compiled, for features (B, R, …) and proposals (B, R, 4): arrays."""
        stage = self._stage("classify", proposals.shape[1])
        return stage.predict_on_batch({"features": features, "proposals": proposals})

    def predict_on_batch(self, x):
        """Detections of images (B, H, W, 3), or of a batch with proposals, as NumPy arrays."""
        x = x if isinstance(x, dict) else {"images": x}
        images = np.asarray(x["images"])
        proposals = np.asarray(x["proposals"]) if "proposals" in x else self.propose(images)
        return self.classify_on_batch(self.extract_on_batch(images, proposals), proposals)

    def predict(self, x, batch_size=1, verbose=1):
        """Detections, as NumPy arrays, of images or batch dictionaries, or of a dataset of them."""
        if isinstance(x, dict):
            x = [x]
        elif not hasattr(x, "map"):  # a tf.data.Dataset of batches
            x = [x[start : start + batch_size] for start in range(0, len(x), batch_size)]
        number = len(x) if isinstance(x, list) else None
        progress = keras.utils.Progbar(number, verbose=int(bool(verbose)))
        found = []
        for batch in x:
            found.append(self.predict_on_batch(batch))
            progress.add(1)
        return {name: np.concatenate([f[name] for f in found]) for name in found[0]}

    def _stage(self, method, settings):
        """A method as a model of its own; one for each number of proposals, or other settings."""
        # Past Keras's tracking: it has this model, not the other way round.
        stages = self.__dict__.setdefault("_stages", {})
        if (method, settings) not in stages:
            stages[method, settings] = Stage(self, method)
        return stages[method, settings]

    @property
    def detector(self):
        """Functional `keras.Model` to detections; shares this model's weights.

        From images and proposals (B, `num_proposals`, 4), or from images if these are fixed.
        """
        if "_detector" not in self.__dict__:
            inputs = keras.Input(self.image_shape, name="images")
            if self.fixed_proposals is None:
                proposals = keras.Input((self.num_proposals, 4), name="proposals")
                inputs = {"images": inputs, "proposals": proposals}
            detector = keras.Model(inputs, self(inputs, training=False), name="detector")
            object.__setattr__(self, "_detector", detector)
        return self._detector

    def export(self, filepath, format="tf_saved_model", **kwargs):
        """Writes the model from uint8 images, and proposals, to detections."""
        if self.fixed_proposals is None:
            signature = {
                "images": keras.InputSpec(dtype="uint8", shape=(None, *self.image_shape)),
                "proposals": keras.InputSpec(dtype="float32", shape=(None, self.num_proposals, 4)),
            }
            kwargs.setdefault("input_signature", [signature])
        return super().export(filepath, format=format, **kwargs)

    def get_config(self):
        fixed = self.fixed_proposals
        return {
            **super().get_config(),
            "fixed_proposals": None if fixed is None else fixed.tolist(),
            "num_proposals": self.num_proposals,
            "search_mode": self.search_mode,
        }


class Stage(keras.Model):
    """One method of a detector, compiled."""

    def __init__(self, detector, method):
        super().__init__(autocast=False)
        self.detector = detector
        self.method = method
        self.built = True

    def call(self, inputs):
        return getattr(self.detector, self.method)(**inputs)
