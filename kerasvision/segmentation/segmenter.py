"""A network that says of every pixel what it belongs to: its loss, its predictions.

Any network of this package becomes a segmenter here: trained by `fit`, saved, exported.
"""

import keras
from keras import layers, ops

from kerasvision.training.strategy import replica_sum


@keras.saving.register_keras_serializable("kerasvision")
class Segmenter(keras.Model):
    """A network of logits for every pixel with the cross-entropy, and predictions as probabilities.

    `fit` and `evaluate` take batch dictionaries:

        "images" (B, H, W, 3), RGB, 0 to 255;
        "segmentation_masks" (B, H, W) integers, the class from 0 to C - 1, or -1 for void: such
        pixels count neither in the loss nor in the accuracy. A class from C on makes the loss NaN.
        "pixel_weights" (B, H, W), optional: factors on the loss of each pixel, as of
        `kerasvision.data.border_weights`.

    The loss is the mean of the pixels' cross-entropies, weighted by their class and by
    themselves. Networks of unpadded convolutions see more than they predict: masks and weights
    are then cropped to their middle (h, w).

    Calling the model gives the network's logits (B, h, w, C). `predict` and `export` give
    probabilities (B, h, w, C).

    Args:
        network: functional `keras.Model` from images (B, H, W, 3) to logits (B, h, w, C), where
            H - h and W - w are even and not negative.
        class_names: C names; None: "0", "1", ….
        class_weights: C factors on the loss of a class's pixels; None: all 1. Those of
            `SegmentationDataset.median_frequency_weights` balance rare and frequent classes.

    Raises:
        ValueError: the network gives no such logits, or there is not one name and one weight a
            class.
    """

    def __init__(self, network, class_names=None, class_weights=None, **kwargs):
        super().__init__(**kwargs)
        seen, predicted = network.input_shape[1:3], tuple(network.output.shape)
        sizes = list(zip(seen, predicted[1:3])) if len(predicted) == 4 else []
        if (
            not sizes
            or None in (*seen, *predicted[1:])
            or any(a < b or (a - b) % 2 for a, b in sizes)
        ):
            raise ValueError(
                "network must give logits (B, h, w, C) of known size, an even number of pixels "
                f"less than its images; received: {predicted} for {network.input_shape}"
            )
        num_classes = predicted[-1]
        class_names = [str(i) for i in range(num_classes)] if class_names is None else class_names
        for name, values in (("class_names", class_names), ("class_weights", class_weights)):
            if values is not None and len(values) != num_classes:
                raise ValueError(
                    f"{name} must be {num_classes}, one a class of the network; "
                    f"received: {len(values)}"
                )
        self.network = network
        self.num_classes = num_classes
        self.class_names = list(class_names)
        self.class_weights = None if class_weights is None else [float(w) for w in class_weights]
        self.accuracy = keras.metrics.Mean(name="accuracy")
        self.built = True

    @property
    def image_shape(self):
        """(height, width, 3) of the images."""
        return tuple(self.network.input_shape[1:])

    @property
    def output_size(self):
        """(height, width) of the probabilities: the middle of the images."""
        return tuple(self.network.output.shape[1:3])

    def call(self, inputs, training=None):
        images = inputs["images"] if isinstance(inputs, dict) else inputs
        return self.network(images, training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Weighted mean of -log p over the pixels that are not void."""
        labels = self._middle(x["segmentation_masks"] if y is None else y)
        weights = ops.cast(labels >= 0, "float32")
        one_hot = ops.one_hot(labels, self.num_classes, dtype="float32")
        if self.class_weights is not None:
            weights = weights * ops.sum(one_hot * ops.array(self.class_weights), axis=-1)
        pixel_weights = x.get("pixel_weights") if isinstance(x, dict) else None
        if pixel_weights is None:
            pixel_weights = sample_weight
        if pixel_weights is not None:
            weights = weights * ops.cast(self._middle(pixel_weights), "float32")
        log_probabilities = ops.log_softmax(ops.cast(y_pred, "float32"), axis=-1)
        cross_entropies = -ops.sum(one_hot * log_probabilities, axis=-1)
        cross_entropies = ops.where(labels < self.num_classes, cross_entropies, float("nan"))
        # The optimizer adds up the gradients of the replicas of a strategy. A batch of void
        # pixels alone has the loss 0.
        total = ops.maximum(replica_sum(ops.sum(weights)), keras.config.epsilon())
        loss = ops.sum(ops.where(labels >= 0, weights * cross_entropies, 0.0)) / total
        for penalty in self.losses:
            loss = loss + penalty / replica_sum(1.0)
        return loss

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """The share of pixels, void ones left out, whose class is the most probable one."""
        labels = self._middle(x["segmentation_masks"] if y is None else y)
        right = ops.equal(ops.cast(ops.argmax(y_pred, axis=-1), "int32"), labels)
        self.accuracy.update_state(right, sample_weight=ops.cast(labels >= 0, "float32"))
        return self.get_metrics_result()

    def _middle(self, values):
        """What the network predicts of (B, H, W): its middle (B, h, w)."""
        values = ops.convert_to_tensor(values)
        if not keras.backend.is_float_dtype(values.dtype):
            values = ops.cast(values, "int32")
        height, width = self.output_size
        top = (self.image_shape[0] - height) // 2
        left = (self.image_shape[1] - width) // 2
        return values[:, top : top + height, left : left + width]

    @property
    def predictor(self):
        """Functional `keras.Model` from images to probabilities (B, h, w, C); shares weights."""
        if "_predictor" not in self.__dict__:
            softmax = layers.Softmax(dtype="float32", name="probabilities")
            model = keras.Model(self.network.input, softmax(self.network.output), name="predictor")
            # Past Keras's tracking: it would save the shared weights a second time.
            object.__setattr__(self, "_predictor", model)
        return self._predictor

    def predict(self, x, **kwargs):
        """Probabilities, as an array, of images or batch dictionaries; arguments as in Keras."""
        if isinstance(x, dict):
            x = x["images"]
        elif hasattr(x, "map"):  # a tf.data.Dataset of batches
            x = x.map(lambda batch: batch["images"] if isinstance(batch, dict) else batch)
        return self.predictor.predict(x, **kwargs)

    def predict_on_batch(self, x):
        """Probabilities of one batch of images (B, H, W, 3), as an array."""
        return self.predictor.predict_on_batch(x)

    def export(self, filepath, format="tf_saved_model", **kwargs):
        """Writes the model from uint8 images to probabilities; arguments as in Keras."""
        images = keras.InputSpec(dtype="uint8", shape=(None, *self.image_shape))
        kwargs.setdefault("input_signature", [images])
        return self.predictor.export(filepath, format=format, **kwargs)

    def get_config(self):
        return {
            "network": keras.saving.serialize_keras_object(self.network),
            "class_names": list(self.class_names),
            "class_weights": self.class_weights,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        config["network"] = keras.saving.deserialize_keras_object(config["network"])
        return cls(**config)


def in_float32(logits):
    """A network's logits in float32, also where it computes in lower precision."""
    return layers.Activation("linear", dtype="float32", name="logits")(logits)
