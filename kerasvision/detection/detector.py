"""What all detectors share: detections of pictures, for `predict`, `export` and the disk."""

import keras


class Detector(keras.Model):
    """A network that finds objects of some classes in pictures of one size.

    `fit` and `evaluate` take batch dictionaries:

        "images" (B, H, W, 3), RGB, 0 to 255;
        "bounding_boxes": {"boxes" (B, N, 4), "labels" (B, N)}, where boxes are (ymin, xmin,
        ymax, xmax) divided by the image's height and width, and label -1 is padding.

    `predict` and `export` give detections: {"boxes" (B, K, 4), "scores" (B, K), "labels" (B, K),
    "count" (B,)}, sorted by score, padded with label -1.

    A child has `call`, `compute_loss`, and `detector`: a functional `keras.Model` from images to
    detections that shares its weights.

    Args:
        network: functional `keras.Model` from images to a dict of tensors.
        num_classes: C, without the background.
        class_names: C names; None: "0", "1", ….
        iou_threshold, score_threshold, max_detections: of the suppression; see
            `kerasvision.layers.NonMaxSuppression`.

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
        **kwargs,
    ):
        super().__init__(**kwargs)
        class_names = [str(i) for i in range(num_classes)] if class_names is None else class_names
        if len(class_names) != num_classes:
            raise ValueError(
                f"class_names must be {num_classes} names; received {len(class_names)}"
            )
        self.network = network
        self.num_classes = num_classes
        self.class_names = list(class_names)
        self.iou_threshold = iou_threshold
        self.score_threshold = score_threshold
        self.max_detections = max_detections
        self.built = True

    @property
    def image_shape(self):
        """(height, width, 3) of the images."""
        return tuple(self.network.input_shape[1:])

    def predict(self, x, **kwargs):
        """Detections, as NumPy arrays, of images or batch dictionaries; arguments as in Keras."""
        if isinstance(x, dict):
            x = x["images"]
        elif hasattr(x, "map"):  # a tf.data.Dataset of batches
            x = x.map(lambda batch: batch["images"] if isinstance(batch, dict) else batch)
        return self.detector.predict(x, **kwargs)

    def predict_on_batch(self, x):
        """Detections of one batch of images (B, H, W, 3), as NumPy arrays."""
        return self.detector.predict_on_batch(x)

    def export(self, filepath, format="tf_saved_model", **kwargs):
        """Writes the model from uint8 images to detections; arguments as in Keras."""
        images = keras.InputSpec(dtype="uint8", shape=(None, *self.image_shape))
        kwargs.setdefault("input_signature", [images])
        return self.detector.export(filepath, format=format, **kwargs)

    def get_config(self):
        return {
            "network": keras.saving.serialize_keras_object(self.network),
            "num_classes": self.num_classes,
            "class_names": list(self.class_names),
            "iou_threshold": self.iou_threshold,
            "score_threshold": self.score_threshold,
            "max_detections": self.max_detections,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config):
        # Its networks are the only dicts in a configuration.
        return cls(
            **{
                name: keras.saving.deserialize_keras_object(value)
                if isinstance(value, dict)
                else value
                for name, value in config.items()
            }
        )
