"""Adversarial examples: pictures that look like others, and that a classifier takes for others.

Szegedy et al. 2014 (Intriguing properties of neural networks): box-constrained L-BFGS.
Goodfellow et al. 2015 (Explaining and harnessing adversarial examples): the fast gradient sign.
Kurakin et al. 2017 (Adversarial examples in the physical world): it, step by step.
Madry et al. 2018 (Towards deep learning models resistant to adversarial attacks): from random
starts. Moosavi-Dezfooli et al. 2016 (DeepFool): to the nearest border between two classes.

Pictures x have values 0 to 255, and so have epsilon and all lengths: the papers' 4/255 is 4.
"""

import dataclasses
import functools
import math

import keras
import numpy as np
import scipy.optimize
import tensorflow as tf
from keras import ops

from kerasvision.synthesis.features import logits_of

NORMS = ("linf", "l2")
PIXEL_AXES = (1, 2, 3)
LEAST_C, MOST_C = 1e-4, 1e6  # in L-BFGS's search
VANISHING = 1e-12


def log_odds(logits, labels):
    """How sure a network is of the labels: log p_y / (1 - p_y) = z_y - log sum_{j != y} exp z_j.

    The cross-entropy is softplus(-log_odds). The gradients of the two have the same direction,
    but this one does not vanish where the network is sure: of 1 - p_y, which rounds to 0, nothing
    is left in the other one.

    Args:
        logits: z, (B, C).
        labels: y, (B,) integers from 0.

    Returns:
        (B,) float32.
    """
    logits = ops.cast(logits, "float32")
    is_label = ops.expand_dims(labels, -1) == ops.arange(logits.shape[-1], dtype=labels.dtype)
    own = ops.sum(ops.where(is_label, logits, 0.0), axis=-1)
    return own - ops.logsumexp(ops.where(is_label, -1e30, logits), axis=-1)


def project(x, images, epsilon, norm):
    """The pictures nearest to `x` that are no farther than epsilon from `images`, in 0 to 255."""
    change = x - images
    if norm == "linf":
        change = ops.clip(change, -epsilon, epsilon)
    else:
        change = change * ops.minimum(1.0, epsilon / ops.maximum(_length(change), VANISHING))
    # As the images are within the box, this leads no farther away from them.
    return ops.clip(images + change, 0.0, 255.0)


def steepest(gradient, norm):
    """The change of length 1 in this norm that raises a function most, of its gradient (B, …)."""
    if norm == "linf":
        return ops.sign(gradient)
    # First by the largest, whose square might be 0.
    largest = ops.max(ops.abs(gradient), axis=PIXEL_AXES, keepdims=True)
    gradient = gradient / ops.where(largest > 0, largest, 1.0)
    return gradient / ops.maximum(_length(gradient), VANISHING)


def _length(change):
    return ops.sqrt(ops.sum(ops.square(change), axis=PIXEL_AXES, keepdims=True))


def random_start(images, epsilon, norm, seed):
    """Pictures drawn evenly from those within epsilon of `images`, cut to 0 to 255.

    Args:
        images: (B, H, W, channels).
        epsilon: radius.
        norm: of `NORMS`.
        seed: integer, or a `keras.random.SeedGenerator`.
    """
    shape = ops.shape(images)
    if norm == "linf":
        change = keras.random.uniform(shape, -1.0, 1.0, seed=seed)
    else:
        seeds = (seed, seed) if isinstance(seed, keras.random.SeedGenerator) else (seed, seed + 1)
        # The part of a ball within a radius grows by its power of the number of axes.
        radius = keras.random.uniform((shape[0], 1, 1, 1), seed=seeds[0])
        radius = radius ** (1.0 / math.prod(images.shape[1:]))
        change = radius * steepest(keras.random.normal(shape, seed=seeds[1]), norm)
    return ops.clip(images + epsilon * change, 0.0, 255.0)


def gradient_steps(network, x, images, labels, epsilon, step_size, steps, norm, targeted):
    """`steps` projected steps away from the labels, or towards them if they are targets.

    What the methods below, and adversarial training, have in common. It is one graph, a loop.

    Args:
        network: function from pictures to logits (B, C), differentiable by TensorFlow.
        x: (B, H, W, channels) float32, where to start.
        images: pictures that x stays near.
        labels: (B,) integers.
        epsilon, step_size: of the projection and of a step; numbers or scalar tensors.
        steps: int.
        norm: of `NORMS`.
        targeted: whether to go towards the labels.

    Returns:
        As x.
    """

    def step(_, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            certainty = ops.sum(log_odds(network(x), labels))
        change = steepest(tape.gradient(certainty, x), norm)
        return project(x + (step_size if targeted else -step_size) * change, images, epsilon, norm)

    return ops.fori_loop(0, steps, step, x)


class Adversary:
    """All of these attacks on one classifier, whole batches at once, as compiled steps.

    Images are (B, H, W, channels), 0 to 255, labels (B,) integers: the true classes, which the
    pictures are led away from; or with `targeted` the wrong ones which they are led to. Returned
    are pictures (B, H, W, channels) float32, in 0 to 255, and no farther than epsilon from the
    images, exactly. Whether they do what they should is left to `judge`. A batch of another
    size is compiled anew.

    Args:
        model: `kerasvision.classification.Classifier`, or as of `logits_of`.
        jit_compile: whether XLA compiles the steps: for GPUs.

    Raises:
        ValueError: as `logits_of`.
    """

    def __init__(self, model, jit_compile=False):
        self.network = logits_of(model)
        self.num_classes = self.network.output_shape[-1]
        compiled = {"jit_compile": jit_compile, "autograph": False}
        steps = functools.partial(gradient_steps, self._logits)
        self._gradient_steps = tf.function(steps, **compiled)
        self._lead = tf.function(self._lead_of, **compiled)
        self._certainty_gradient = tf.function(self._certainty_gradient_of, **compiled)
        self._nearest_border = tf.function(self._nearest_border_of, **compiled)

    def fgsm(self, images, labels, epsilon, norm="linf", targeted=False):
        """The fast gradient sign: x + epsilon sign(dJ/dx), J the cross-entropy.

        Goodfellow et al. 2015, section 4. In L2 the step goes along the gradient itself.
        """
        return self.iterative(images, labels, epsilon, 1, epsilon, norm, targeted)

    def iterative(
        self, images, labels, epsilon, steps=None, step_size=1.0, norm="linf", targeted=False
    ):
        """Steps of the fast gradient sign, each cut to what is within epsilon.

        Kurakin et al. 2017, section 2.2; their section 2.3 has as targets the `least_likely`
        classes.

        Args:
            steps: None: the paper's min(epsilon + 4, 1.25 epsilon), rounded up.
            step_size: length of a step; 1 in the paper.
        """
        if steps is None:
            steps = max(1, math.ceil(min(epsilon + 4, 1.25 * epsilon)))
        images, labels = self._check(images, labels, epsilon, norm)
        x = self._gradient_steps(
            images, images, labels, _scalar(epsilon), _scalar(step_size), steps, norm, targeted
        )
        return within(x, images, epsilon, norm)

    def pgd(
        self,
        images,
        labels,
        epsilon,
        steps=20,
        step_size=None,
        restarts=1,
        norm="linf",
        targeted=False,
        seed=0,
    ):
        """Projected gradient descent from random starts: Madry et al. 2018, section 2.1.

        Args:
            steps: of each start.
            step_size: None: 2.5 epsilon / steps, which reaches every border of the ball.
            restarts: starts; of each picture the best end is kept.
            seed: integer, of the starts.
        """
        images, labels = self._check(images, labels, epsilon, norm)
        step_size = 2.5 * epsilon / steps if step_size is None else step_size
        best, best_lead = None, None
        for restart in range(restarts):
            start = random_start(images, epsilon, norm, 2 * (seed * restarts + restart))
            x = self._gradient_steps(
                start, images, labels, _scalar(epsilon), _scalar(step_size), steps, norm, targeted
            )
            x = within(x, images, epsilon, norm)
            lead = np.array(self._lead(ops.convert_to_tensor(x), labels))
            if best is None:
                best, best_lead = x, lead
            better = lead > best_lead if targeted else lead < best_lead
            best[better], best_lead[better] = x[better], lead[better]
        return best

    def deepfool(self, images, labels, steps=50, overshoot=0.02, candidates=10, norm="l2"):
        """The nearest picture of any other class, nearly: steps to the nearest border.

        Moosavi-Dezfooli et al. 2016, algorithm 2, whose step r is the way to the nearest of the
        borders as they would be if the network were affine; with "linf" their equation 11. It
        ends at `1 + overshoot` times the way, or after `steps`. There is no epsilon.

        Args:
            candidates: so many of the classes that it is surest of first are considered.
        """
        images, labels = self._check(images, labels, 0.0, norm)
        logits = np.array(self.network(images, training=False))
        np.put_along_axis(logits, np.asarray(labels)[:, None], -np.inf, axis=1)
        candidates = min(candidates, self.num_classes - 1)
        classes = np.argsort(-logits, axis=1)[:, :candidates].astype("int32")
        way = np.zeros(images.shape, "float32")
        x = ops.convert_to_numpy(images)
        for _ in range(steps):
            lead, change = self._nearest_border(ops.convert_to_tensor(x), labels, classes, norm)
            goes_on = np.asarray(lead) >= 0
            if not goes_on.any():
                break
            way += goes_on[:, None, None, None] * np.asarray(change)
            x = np.clip(ops.convert_to_numpy(images) + (1 + overshoot) * way, 0.0, 255.0)
        return x

    def lbfgs(self, images, labels, targeted=False, steps=50, searches=6):
        """The least change that does it, nearly: minimises c |r|^2 + loss(x + r) in the box.

        Szegedy et al. 2014, section 4.1: r is found by L-BFGS with bounds, and c by a search for
        the largest with which x + r is of the other class: by powers of ten from 1 on, and by
        halves of the exponent between. Here pictures have values 0 to 1, as in the paper; the
        loss is the cross-entropy of the target, or without one of "not the label". There is no
        epsilon; each picture is a problem of its own, so that neighbours don't matter.

        Args:
            steps: of L-BFGS with one c.
            searches: values of c between two powers of ten.

        Returns:
            Pictures; the image itself, where no c did it.
        """
        images, labels = self._check(images, labels, 0.0, "l2")
        found = [
            self._least_change(images[i : i + 1], labels[i : i + 1], targeted, steps, searches)
            for i in range(len(images))
        ]
        return np.concatenate(found).astype("float32")

    def _least_change(self, image, label, targeted, steps, searches):
        start = ops.convert_to_numpy(image).astype("float64")
        sign = 1.0 if targeted else -1.0
        best, best_length = start, np.inf
        latest = start.ravel() / 255.0

        def succeeds(c):
            nonlocal best, best_length, latest

            def objective(x):
                picture = x.reshape(image.shape)
                tensor = ops.convert_to_tensor(255.0 * picture, "float32")
                certainty, gradient = self._certainty_gradient(tensor, label)
                # softplus(-s), s = sign * certainty, and its derivative
                s = sign * float(certainty[0])
                slope = -sign / (1.0 + math.exp(min(s, 500.0)))
                change = picture - start / 255.0
                value = c * np.sum(change**2) + np.logaddexp(0.0, -s)
                slopes = 2.0 * c * change + slope * 255.0 * np.asarray(gradient, "float64")
                return value, slopes.ravel()

            # From where the last c led to, which is nearer than the image.
            latest, _, _ = scipy.optimize.fmin_l_bfgs_b(
                objective, latest, bounds=[(0.0, 1.0)] * start.size, maxiter=steps
            )
            x = np.clip(255.0 * latest.reshape(image.shape), 0.0, 255.0).astype("float32")
            lead = float(self._lead(ops.convert_to_tensor(x), label)[0])
            done = lead > 0 if targeted else lead < 0
            if done and np.linalg.norm(x - start) < best_length:
                best, best_length = x, np.linalg.norm(x - start)
            return done

        c = 1.0
        factor = 10.0 if succeeds(c) else 0.1
        while LEAST_C < c < MOST_C:
            c *= factor
            if succeeds(c) != (factor > 1):
                break
        else:
            return best
        low, high = (c / factor, c) if factor > 1 else (c, c / factor)
        for _ in range(searches):
            middle = math.sqrt(low * high)
            low, high = (middle, high) if succeeds(middle) else (low, middle)
        return best

    def _check(self, images, labels, epsilon, norm):
        images = ops.convert_to_tensor(images, "float32")
        labels = ops.convert_to_numpy(labels)
        if norm not in NORMS:
            raise ValueError(f"norm must be one of {', '.join(NORMS)}; received: {norm}")
        if not epsilon >= 0:
            raise ValueError(f"epsilon must not be negative; received: {epsilon}")
        if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
            raise ValueError(
                f"labels must be {len(images)} integers, one a picture; received: "
                f"{labels.shape} {labels.dtype}"
            )
        if len(labels) and not 0 <= labels.min() <= labels.max() < self.num_classes:
            raise ValueError(
                f"labels must be from 0 to {self.num_classes - 1}; received: "
                f"{labels.min()} to {labels.max()}"
            )
        return images, ops.convert_to_tensor(labels, "int32")

    def _logits(self, x):
        return self.network(x, training=False)

    def _lead_of(self, x, labels):
        """By how much the labels lead the other classes: negative where x is taken for another."""
        logits = ops.cast(self._logits(x), "float32")
        is_label = ops.expand_dims(labels, -1) == ops.arange(self.num_classes, dtype="int32")
        own = ops.sum(ops.where(is_label, logits, 0.0), axis=-1)
        return own - ops.max(ops.where(is_label, -1e30, logits), axis=-1)

    def _certainty_gradient_of(self, x, labels):
        with tf.GradientTape() as tape:
            tape.watch(x)
            certainty = log_odds(self._logits(x), labels)
        return certainty, tape.gradient(certainty, x)

    def _nearest_border_of(self, x, labels, classes, norm):
        """Of each picture by how much its label leads, and the way r to the nearest border."""

        def logit_of(logits, columns):
            return tf.gather(tf.cast(logits, "float32"), columns, batch_dims=1)

        def linearised(k):
            with tf.GradientTape() as tape:
                tape.watch(x)
                logits = self._logits(x)
                difference = logit_of(logits, classes[:, k]) - logit_of(logits, labels)
            return difference, tape.gradient(difference, x)

        signature = (tf.TensorSpec(x.shape[:1], "float32"), tf.TensorSpec(x.shape, "float32"))
        # f' (K, B) and w' (K, B, H, W, channels): one class at a time, or it would take memory.
        f, w = tf.map_fn(linearised, tf.range(classes.shape[1]), fn_output_signature=signature)
        axes = (2, 3, 4)
        if norm == "l2":
            length = ops.sqrt(ops.sum(ops.square(w), axis=axes))
        else:
            length = ops.sum(ops.abs(w), axis=axes)  # L1 is to L-infinity what L2 is to itself
        distance = ops.abs(f) / ops.maximum(length, VANISHING)
        nearest = ops.argmin(distance, axis=0)
        w = tf.gather(ops.moveaxis(w, 0, 1), nearest, batch_dims=1)
        distance = tf.gather(ops.transpose(distance), nearest, batch_dims=1)
        return -ops.max(f, axis=0), distance[:, None, None, None] * steepest(w, norm)


def _scalar(value):
    return ops.convert_to_tensor(float(value), "float32")


def least_likely(probabilities):
    """The class that each picture is least likely of: (B,) integers of (B, C) scores."""
    return np.asarray(probabilities).argmin(axis=-1)


def within(x, images, epsilon, norm):
    """Takes back what rounding in float32 put out of 0 to 255 or, by an ulp, beyond epsilon.

    Args:
        x: pictures that are near enough but for that.
        images, epsilon, norm: as of `project`.

    Returns:
        float32 array; measured in float64 it is no farther than epsilon from the images.
    """
    images = np.asarray(images, "float32")
    x = np.clip(np.asarray(x, "float32"), 0.0, 255.0)
    if norm == "linf":
        change = np.clip(x.astype("float64") - images, -epsilon, epsilon)
        x = (images + change).astype("float32")
        is_beyond = np.abs(x.astype("float64") - images) > epsilon
        return np.where(is_beyond, np.nextafter(x, images), x)
    for _ in range(10):
        change = x.astype("float64") - images
        length = np.sqrt(np.sum(change**2, axis=PIXEL_AXES, keepdims=True))
        if np.all(length <= epsilon):
            return x
        change *= np.minimum(1.0, (1 - 1e-6) * epsilon / np.maximum(length, VANISHING))
        x = np.where(length > epsilon, images + change, x).astype("float32")
    return np.where(length > epsilon, images, x)


def to_pixels(x, images, epsilon=None, norm="linf"):
    """Pictures as files hold them, uint8, still no farther than epsilon from the images.

    Args:
        x: (B, H, W, channels), 0 to 255, within epsilon of the images.
        images: the same of whole numbers.
        epsilon: None: any distance.
        norm: of `NORMS`.

    Raises:
        ValueError: images of other than whole numbers.
    """
    images = np.asarray(images, "float64")
    if np.any(images != np.rint(images)):
        raise ValueError(
            "images must be whole numbers, or no rounded picture may be near them; received: "
            f"{images[images != np.rint(images)][0]}"
        )
    exact = np.asarray(x, "float64") - images
    change = np.rint(exact)
    if epsilon is not None and norm == "linf":
        change = np.clip(change, -np.floor(epsilon), np.floor(epsilon))
    elif epsilon is not None:
        for row, wanted in zip(change, exact):
            _shorten(row.reshape(-1), wanted.reshape(-1), epsilon)
    return np.clip(images + change, 0, 255).astype("uint8")


def _shorten(change, exact, epsilon):
    """Rounds parts of a change (N,) to the other side, those first that were rounded up most."""
    order = np.argsort(np.abs(exact) - np.abs(change), kind="stable")
    towards_zero = np.sign(exact) * np.floor(np.abs(exact))
    gains = change[order] ** 2 - towards_zero[order] ** 2
    surplus = np.sum(change**2) - epsilon**2
    if surplus > 0:
        count = np.searchsorted(np.cumsum(gains), surplus) + 1
        change[order[:count]] = towards_zero[order[:count]]


@dataclasses.dataclass
class Judgement:
    """What became of B pictures: arrays (B,).

    `predictions`, the classes that the network takes them for; `scores`, how probable it says
    they are; `success`, whether that is the target or, without one, another than the label; and
    how far they are from the pictures they were made of: `l2`, `linf`, and `l0`, the number of
    pixels that differ in any colour. Lengths are in units of 0 to 255.
    """

    predictions: np.ndarray
    scores: np.ndarray
    success: np.ndarray
    l2: np.ndarray
    linf: np.ndarray
    l0: np.ndarray


def judge(probabilities, x, images, labels, targeted=False):
    """Tells success and distance of pictures, as they are.

    Args:
        probabilities: (B, C), what the network says of x.
        x: (B, H, W, channels) changed pictures, 0 to 255.
        images: what they were made of.
        labels: (B,) integers, of which they should not be or, with `targeted`, should be.

    Returns:
        `Judgement`.

    Raises:
        ValueError: values outside of 0 to 255.
    """
    x, images = np.asarray(x, "float64"), np.asarray(images, "float64")
    if x.size and not (x.min() >= 0 and x.max() <= 255):
        raise ValueError(f"x must be within 0 to 255; received: {x.min()} to {x.max()}")
    probabilities = np.asarray(probabilities)
    predictions = probabilities.argmax(axis=-1)
    change = np.abs(x - images)
    return Judgement(
        predictions,
        probabilities.max(axis=-1),
        (predictions == labels) if targeted else (predictions != labels),
        np.sqrt(np.sum(change**2, axis=PIXEL_AXES)),
        change.max(axis=PIXEL_AXES, initial=0.0),
        np.any(change > 0, axis=-1).sum(axis=(1, 2)),
    )
