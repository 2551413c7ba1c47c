"""Training on adversarial examples, and how many pictures withstand them.

Goodfellow et al. 2015 (Explaining and harnessing adversarial examples), section 6; Madry et al.
2018 (Towards deep learning models resistant to adversarial attacks), section 2.
"""

import keras
import numpy as np
from keras import ops

from kerasvision.classification.classifier import Classifier

ROBUST_STEPS = 20  # of the attack that measures


@keras.saving.register_keras_serializable("kerasvision")
class AdversarialClassifier(Classifier):
    """A `Classifier` that trains on adversarial examples of its own, made anew in each step.

    Minimised is (1 - share) J(x, y) + share J(x', y), J the loss: Goodfellow et al. 2015, section
    6, where alpha = 1 - share is 0.5. With `steps=1`, x' = x + epsilon sign(dJ/dx); with more it
    is projected gradient descent from a random start, with steps of 2.5 epsilon / steps. With
    `share=1` this is Madry et al. 2018, equation 2.1. Examples are made by the network as it
    predicts, without dropout; with mixed labels they lead away from the class of which
    a picture has most. Means that `fit` reports are over both kinds of pictures.

    Args:
        network, class_names, label_smoothing, auxiliary_weight: as of `Classifier`.
        epsilon: largest change of a pixel, in units of 0 to 255.
        steps: of the gradient sign.
        share: weight of the adversarial examples, above 0 and up to 1.
        seed: of the random starts.

    Raises:
        ValueError: as `Classifier`, or epsilon, steps or share out of range.
    """

    def __init__(
        self,
        network,
        class_names=None,
        label_smoothing=0.0,
        auxiliary_weight=0.3,
        epsilon=8.0,
        steps=7,
        share=0.5,
        seed=0,
        **kwargs,
    ):
        super().__init__(network, class_names, label_smoothing, auxiliary_weight, **kwargs)
        if not (epsilon > 0 and steps >= 1 and 0 < share <= 1):
            raise ValueError(
                "epsilon must be above 0, steps at least 1, and share above 0 and up to 1; "
                f"received: {epsilon}, {steps} and {share}"
            )
        self.epsilon = epsilon
        self.steps = steps
        self.share = share
        self.seed = seed
        self.random = keras.random.SeedGenerator(seed)

    def train_step(self, data):
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        images, labels = (x["images"], x["labels"]) if y is None else (x, y)
        images = ops.cast(images, "float32")
        adversarial = self.make_adversarial(images, labels)
        if self.share == 1.0:
            return super().train_step((adversarial, labels))
        # The loss is a mean over twice as many pictures.
        weights = ops.ones(ops.shape(images)[:1])
        weights = ops.concatenate([2 * (1 - self.share) * weights, 2 * self.share * weights])
        both = ops.concatenate([images, adversarial])
        return super().train_step((both, ops.concatenate([labels, labels]), weights))

    def make_adversarial(self, images, labels):
        """x' (B, H, W, channels) of float32 images x and labels of either form."""
        # Here, because classifiers also run where there is no TensorFlow.
        from kerasvision.synthesis.adversarial import gradient_steps, random_start

        labels = ops.argmax(labels, axis=-1) if len(labels.shape) == 2 else labels
        start, step_size = images, self.epsilon
        if self.steps > 1:
            start = random_start(images, self.epsilon, "linf", self.random)
            step_size = 2.5 * self.epsilon / self.steps

        def logits_of(x):
            outputs = self.network(x, training=False)
            return outputs["predictions"] if isinstance(outputs, dict) else outputs

        return gradient_steps(
            logits_of,
            start,
            images,
            labels,
            self.epsilon,
            step_size,
            self.steps,
            norm="linf",
            targeted=False,
        )

    def get_config(self):
        settings = {name: getattr(self, name) for name in ("epsilon", "steps", "share", "seed")}
        return {**super().get_config(), **settings}


def robust_accuracy(classifier, batches, epsilon, seed=0):
    """The share of pictures that are told right, as they are and however they are changed.

    "however" is the fast gradient sign; and projected gradient descent, `ROBUST_STEPS` steps of
    2.5 epsilon / `ROBUST_STEPS` from a random start. No pixel changes by more than epsilon.

    Args:
        classifier: `Classifier`.
        batches: iterable of batch dictionaries with "images" and "labels" (B,) integers.
        epsilon: in units of 0 to 255.
        seed: of the random starts.

    Returns:
        dict of "epsilon", "steps", "fgsm" and "pgd", shares from 0 to 1, None without pictures.
    """
    from kerasvision.synthesis.adversarial import Adversary

    adversary = Adversary(classifier)
    right = {"fgsm": [], "pgd": []}
    for number, batch in enumerate(batches):
        images = np.asarray(batch["images"], "float32")
        labels = np.asarray(batch["labels"])
        is_right = classifier.predict_on_batch(images).argmax(axis=-1) == labels
        for name, changed in (
            ("fgsm", adversary.fgsm(images, labels, epsilon)),
            ("pgd", adversary.pgd(images, labels, epsilon, ROBUST_STEPS, seed=seed + number)),
        ):
            found = classifier.predict_on_batch(changed).argmax(axis=-1)
            right[name] += list(is_right & (found == labels))
    shares = {name: float(np.mean(found)) if found else None for name, found in right.items()}
    return {"epsilon": epsilon, "steps": ROBUST_STEPS, **shares}
