"""A network that says what a picture shows: its loss, its predictions, its embeddings.

Any network of `kerasvision.backbones`, built with `classifier_activation=None`, becomes a
classifier here: trained by `fit`, saved, exported, and without its auxiliary heads once it
predicts.
"""

import keras
from keras import layers, ops

from kerasvision.training.strategy import replica_sum


@keras.saving.register_keras_serializable("kerasvision")
class Classifier(keras.Model):
    """A network of logits with the cross-entropy, and with predictions as probabilities.

    `fit` and `evaluate` take batch dictionaries {"images" (B, H, W, 3), RGB, 0 to 255;
    "labels"}, or pairs (images, labels). Labels are (B,) integers from 0 to C - 1, or (B, C)
    probabilities, as mixup and cutmix make them. An integer outside of that range makes the
    loss NaN, instead of counting as no class at all.

    Calling the model gives what the network gives. `predict` and `export` give probabilities
    (B, C). Trained is the cross-entropy with smoothed labels, and that of the auxiliary heads;
    `evaluate` measures the cross-entropy of the predictions alone, with the labels as they are.

    Args:
        network: functional `keras.Model` from images to logits (B, C); or to a dict of
            "predictions", such logits, and others by any name, the logits of auxiliary heads.
            Its last layer with weights is named "predictions".
        class_names: C names; None: "0", "1", ….
        label_smoothing: ε of Szegedy et al. 2015 (Rethinking the Inception Architecture),
            section 7: labels q become (1 - ε) q + ε / C.
        auxiliary_weight: factor on the loss of each auxiliary head; 0.3 in Szegedy et al. 2014
            (Going Deeper with Convolutions), section 5.

    Raises:
        ValueError: the network gives no logits, there is not one name a class, or
            `label_smoothing` is not in [0, 1).
    """

    def __init__(
        self, network, class_names=None, label_smoothing=0.0, auxiliary_weight=0.3, **kwargs
    ):
        super().__init__(**kwargs)
        outputs = network.output
        heads = outputs if isinstance(outputs, dict) else {"predictions": outputs}
        shapes = {name: tuple(head.shape) for name, head in heads.items()}
        num_classes = heads["predictions"].shape[-1] if "predictions" in heads else None
        if any(shape != (None, num_classes) for shape in shapes.values()):
            raise ValueError(
                "network must give logits (B, C), or a dict of them with predictions among them; "
                f"received: {shapes}"
            )
        for name, head in heads.items():
            operation = head._keras_history.operation
            activation = getattr(operation, "activation", None)
            if activation is keras.activations.softmax or isinstance(operation, layers.Softmax):
                raise ValueError(
                    "network must give logits (build it with classifier_activation=None); "
                    f"received: {name} behind a softmax"
                )
        class_names = [str(i) for i in range(num_classes)] if class_names is None else class_names
        if len(class_names) != num_classes:
            raise ValueError(
                f"class_names must be {num_classes} names, one a class of the network; "
                f"received: {len(class_names)}"
            )
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1); received: {label_smoothing}")
        self.network = network
        self.num_classes = num_classes
        self.class_names = list(class_names)
        self.label_smoothing = label_smoothing
        self.auxiliary_weight = auxiliary_weight
        self.accuracy = keras.metrics.Mean(name="accuracy")
        if num_classes > 5:
            self.top5 = keras.metrics.Mean(name="top5")
        self.built = True

    @property
    def image_shape(self):
        """(height, width, channels) of the images."""
        return tuple(self.network.input_shape[1:])

    def call(self, inputs, training=None):
        images = inputs["images"] if isinstance(inputs, dict) else inputs
        return self.network(images, training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Mean cross-entropy over the batch; in training smoothed, and with auxiliary heads."""
        labels = self._probabilities(x["labels"] if y is None else y)
        heads = y_pred if isinstance(y_pred, dict) else {"predictions": y_pred}
        if training:
            labels = (1 - self.label_smoothing) * labels + self.label_smoothing / self.num_classes
        else:
            heads = {"predictions": heads["predictions"]}
        losses = 0.0
        for name, logits in heads.items():
            log_probabilities = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
            weight = 1.0 if name == "predictions" else self.auxiliary_weight
            losses = losses - weight * ops.sum(labels * log_probabilities, axis=-1)
        if sample_weight is not None:
            losses = losses * ops.cast(sample_weight, "float32")
        # The optimizer adds up the gradients of the replicas of a strategy.
        pictures = replica_sum(ops.cast(ops.shape(labels)[0], "float32"))
        loss = ops.sum(losses) / pictures
        for penalty in self.losses:
            loss = loss + penalty / replica_sum(1.0)
        return loss

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Accuracy, and how often the truth is among the best five, where there are more."""
        labels = ops.argmax(self._probabilities(x["labels"] if y is None else y), axis=-1)
        logits = y_pred["predictions"] if isinstance(y_pred, dict) else y_pred
        logits = ops.cast(logits, "float32")
        self.accuracy.update_state(ops.equal(ops.argmax(logits, axis=-1), labels))
        if self.num_classes > 5:
            self.top5.update_state(ops.in_top_k(labels, logits, k=5))
        return self.get_metrics_result()

    def _probabilities(self, labels):
        """Labels of either form as (B, C) float32."""
        labels = ops.convert_to_tensor(labels)
        if len(labels.shape) == 1 and not keras.backend.is_float_dtype(labels.dtype):
            one_hot = ops.one_hot(labels, self.num_classes, dtype="float32")
            in_range = ops.logical_and(labels >= 0, labels < self.num_classes)
            return ops.where(ops.expand_dims(in_range, -1), one_hot, float("nan"))
        if len(labels.shape) == 2 and labels.shape[-1] == self.num_classes:
            return ops.cast(labels, "float32")
        raise ValueError(
            f"labels must be (B,) integers or (B, {self.num_classes}) probabilities; "
            f"received: {tuple(labels.shape)} {keras.backend.standardize_dtype(labels.dtype)}"
        )

    @property
    def predictor(self):
        """Functional `keras.Model` from images to probabilities (B, C); shares the weights.

        It has no auxiliary heads.
        """
        if "_predictor" not in self.__dict__:
            outputs = self.network.output
            logits = outputs["predictions"] if isinstance(outputs, dict) else outputs
            probabilities = layers.Softmax(dtype="float32", name="probabilities")(logits)
            model = keras.Model(self.network.input, probabilities, name="predictor")
            # Past Keras's tracking: it would save the shared weights a second time.
            object.__setattr__(self, "_predictor", model)
        return self._predictor

    @property
    def embedder(self):
        """Functional `keras.Model` from images to what "predictions" reads (B, D), float32.

        Maps are averaged over their cells. It shares the weights.
        """
        if "_embedder" not in self.__dict__:
            features = self.network.get_layer("predictions").input
            if len(features.shape) == 4:
                features = layers.GlobalAveragePooling2D(dtype="float32")(features)
            features = layers.Activation("linear", dtype="float32", name="embedding")(features)
            model = keras.Model(self.network.input, features, name="embedder")
            object.__setattr__(self, "_embedder", model)
        return self._embedder

    def predict(self, x, **kwargs):
        """Probabilities, as an array, of images or batch dictionaries; arguments as in Keras."""
        if isinstance(x, dict):
            x = x["images"]
        elif hasattr(x, "map"):  # a tf.data.Dataset of batches
            x = x.map(_images_of)
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
            "label_smoothing": self.label_smoothing,
            "auxiliary_weight": self.auxiliary_weight,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        config["network"] = keras.saving.deserialize_keras_object(config["network"])
        return cls(**config)


def _images_of(batch, *labels):
    """The images of a batch dictionary, of a pair (images, labels), or of images alone."""
    del labels
    return batch["images"] if isinstance(batch, dict) else batch
