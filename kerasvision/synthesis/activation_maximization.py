"""The picture that a class or a channel responds to most.

Simonyan et al. 2014 (Deep Inside Convolutional Networks, section 2) climb the logit of a class
with an L2 prior; Yosinski et al. 2015 (Understanding Neural Networks Through Deep Visualization)
add blurring; Olah et al. 2017 (Feature Visualization) jitter the picture, and climb in the space
of its decorrelated colours and frequencies.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from kerasvision.synthesis.features import (
    adam,
    before_activation,
    check_image_size,
    features,
    jitter,
    logits_of,
    total_variation,
)

BLUR_EVERY = 4  # steps
# Square root of the covariance of ImageNet's colours, RGB by rows, of about grey, yellow to blue
# and green to purple; as Olah et al.'s Lucid has it.
COLOUR_ROOT = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]], "float32")


class ActivationMaximization:
    """Pictures for which classes, or channels of a layer, are largest.

    From grey noise Adam climbs, of jittered pictures x divided by 255, H x W pixels,

        mean Φ_c(x) - tv_weight R_V^β(x) / HW - l2_weight |x - ½|² / HW

    where the mean is that of the channel c over the cells of its layer, before the layer's
    activation: behind a ReLU, a channel that is silent on noise has no slope to climb.

    Args:
        model: as of `kerasvision.synthesis.features`.
        layer_name: of the layer whose channels are meant; None: the classes' logits.
        image_size: (height, width) of the pictures; None: the network's own, or 224 x 224.
        parametrization: "pixels"; or "fourier", frequencies of decorrelated colours, each with
            the strength that it has in natural pictures, so that fine ones don't run ahead.
        steps: of Adam.
        learning_rate: of Adam; None: 0.02 of a pixel's range, or 0.05 for "fourier".
        jitter: pixels by which pictures are moved at random before each step, at most.
        blur: σ, in pixels, of the Gaussian blur after each `BLUR_EVERY` steps at first; it
            shrinks to 0 in the course of the steps. Only for "pixels".
        tv_weight, tv_beta: of the TV prior.
        l2_weight: of the L2 prior.
        jit_compile: whether XLA compiles a step.

    Raises:
        ValueError: an unknown layer, or an argument out of range.
    """

    def __init__(
        self,
        model,
        layer_name=None,
        image_size=None,
        parametrization="fourier",
        steps=200,
        learning_rate=None,
        jitter=16,
        blur=0.0,
        tv_weight=0.0,
        tv_beta=2.0,
        l2_weight=0.0,
        jit_compile=False,
    ):
        if parametrization not in ("pixels", "fourier"):
            raise ValueError(
                f"parametrization: must be pixels or fourier; received: {parametrization}"
            )
        if parametrization == "fourier" and blur:
            raise ValueError(f"blur: is for parametrization pixels; received: {blur} with fourier")
        if steps < 1:
            raise ValueError(f"steps: must be 1 or more; received: {steps}")
        if layer_name is None:
            logits = logits_of(model)
            inputs, maps = logits.inputs[0], {"logits": logits.output}
        else:
            phi = features(model, layer_name)
            inputs, maps = phi.inputs[0], {layer_name: before_activation(phi.output[layer_name])}
        self.phi = keras.Model(inputs, maps)
        self.phi.input_spec = keras.InputSpec(shape=(None, None, None, inputs.shape[-1]))
        *own_size, self.image_channels = self.phi.inputs[0].shape[1:]
        self.image_size = tuple(image_size or (side or 224 for side in own_size))
        check_image_size(self.phi, self.image_size)
        ((self.layer_name, tensor),) = self.phi.output.items()
        self.num_channels = tensor.shape[-1]
        self.fourier = parametrization == "fourier"
        if self.fourier and self.image_channels != 3:
            raise ValueError(
                "parametrization: must be pixels for a network that doesn't take RGB; received: "
                f"fourier with {self.image_channels} channels"
            )
        self.steps, self.jitter = steps, int(jitter)
        self.learning_rate = learning_rate or (0.05 if self.fourier else 0.02)
        self.blur, self.tv_weight, self.tv_beta = float(blur), float(tv_weight), float(tv_beta)
        self.l2_weight = float(l2_weight)
        self.step = tf.function(self._step, jit_compile=jit_compile)

    def start(self, count, seed):
        """What is climbed from: noise z for `count` pictures."""
        height, width = self.image_size
        if self.fourier:
            shape, mean, deviation = (2, count, 3, height, width // 2 + 1), 0.0, 0.01
        else:
            shape, mean, deviation = (count, height, width, self.image_channels), 0.5, 0.04
        noise = np.random.default_rng(seed).normal(mean, deviation, shape)
        return tf.constant(noise, tf.float32)

    def images(self, z):
        """Pictures (B, H, W, C), 0 to 1, of what is climbed in."""
        if not self.fourier:
            return z
        height, width = self.image_size
        y, x = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
        # Amplitudes of natural pictures fall with 1 / frequency.
        scale = (height * width) ** 0.5 / np.maximum(np.hypot(y, x), 1 / max(height, width))
        spectrum = tf.complex(*tf.unstack(z)) * tf.constant(scale, tf.complex64)
        planes = tf.signal.irfft2d(spectrum, [height, width]) / 4
        root = COLOUR_ROOT / np.linalg.norm(COLOUR_ROOT, axis=0).max()
        return ops.sigmoid(ops.matmul(ops.transpose(planes, (0, 2, 3, 1)), root.T))

    def responses(self, images, channels):
        """Mean of a channel over its cells: (B,) of images (B, H, W, C), 0 to 255, and (B,)."""
        phi = ops.cast(self.phi(images, training=False)[self.layer_name], "float32")
        phi = ops.mean(ops.reshape(phi, (phi.shape[0], -1, self.num_channels)), axis=1)
        return ops.sum(phi * ops.one_hot(channels, self.num_channels), axis=-1)

    def _step(self, z, moments, step, shift, channels):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(z)
            x = self.images(z)
            responses = self.responses(255.0 * jitter(x, shift), channels)
            pixels = self.image_size[0] * self.image_size[1]
            priors = self.l2_weight * ops.sum((x - 0.5) ** 2, axis=(1, 2, 3))
            if self.tv_weight:
                priors = priors + self.tv_weight * total_variation(x, self.tv_beta)
            loss = ops.sum(priors / pixels - responses)
        z, moments = adam(z, tape.gradient(loss, z), moments, step, self.learning_rate)
        if not self.fourier:
            z = ops.clip(z, 0.0, 1.0)
        return z, moments, responses

    def _blurred(self, z, step):
        sigma = self.blur * (1 - step / self.steps)
        size = 2 * round(3 * sigma) + 1
        if size == 1:
            return z
        # Beyond the border lies grey, not black.
        return ops.image.gaussian_blur(z - 0.5, (size, size), (sigma, sigma)) + 0.5

    def __call__(self, channels, seed=0, on_step=None):
        """Makes a picture for each channel, or class, all at once.

        Args:
            channels: list of B numbers of channels; one that is there twice gets two pictures.
            seed: of the noise and the shifts.
            on_step: optional function of (step, from 0; function that gives the pictures;
                responses (B,) before the step), called after each step.

        Returns:
            images: (B, H, W, C) float32, 0 to 255.
            responses: (B,), of these pictures.

        Raises:
            ValueError: there is no such channel.
        """
        wrong = [c for c in channels if not 0 <= c < self.num_channels]
        if wrong or not len(channels):
            raise ValueError(
                f"channels: must be numbers from 0 to {self.num_channels - 1}, those of "
                f"{self.layer_name}; received: {list(channels)}"
            )
        random = np.random.default_rng(seed + 1)
        chosen = tf.constant(channels, tf.int32)
        z = self.start(len(channels), seed)
        moments = (tf.zeros_like(z), tf.zeros_like(z))
        for step in range(self.steps):
            shift = tf.constant(random.integers(-self.jitter, self.jitter + 1, 2), tf.int32)
            z, moments, responses = self.step(z, moments, tf.constant(step + 1), shift, chosen)
            if self.blur and step % BLUR_EVERY == BLUR_EVERY - 1:
                z = self._blurred(z, step)
            if on_step is not None:
                on_step(step, lambda: 255 * self.images(z).numpy(), responses.numpy())
        images = 255.0 * self.images(z)
        return images.numpy(), self.responses(images, chosen).numpy()
