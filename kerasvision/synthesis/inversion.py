"""Pictures that a layer can't tell from a given one (Mahendran and Vedaldi 2015).

"Understanding Deep Image Representations by Inverting Them": what the code of a layer keeps of a
picture, and what it has forgotten.
"""

import numpy as np
import tensorflow as tf
from keras import ops

from kerasvision.synthesis.features import (
    adam,
    check_image_size,
    features,
    network_of,
    total_variation,
)

GREY = 127.5  # x is 0 there
# σ of section 3.1, the mean norm of natural pictures, is that a pixel's channel: the paper's
# λ_α = 2.16e8 is 4e-10 σ⁴ (as the authors' program has it) for σ of its 227 x 227 pixels.
CONTRAST = 69.0
ALPHA_WEIGHT = 4e-10
# Section 5.2: λ_V of the first, middle and last layers.
TV_WEIGHTS = (0.5, 5.0, 50.0)
MOMENTUM = 0.9  # section 3.3
# The authors' rates: a quarter of the steps at this, half at a tenth, a quarter at a hundredth.
MOMENTUM_RATE = 0.004


def tv_weight_of(model, layer_name):
    """λ_V as the paper takes it: 0.5, 5 or 50 in the first, second or last third of the layers.

    Args:
        model, layer_name: as of `kerasvision.synthesis.features`.
    """
    names = [layer.name for layer in network_of(model).layers]
    features(model, layer_name)  # raises where there is no such layer
    return TV_WEIGHTS[names.index(layer_name) * len(TV_WEIGHTS) // len(names)]


class Inversion:
    """Reconstructions of pictures from what one layer says of them.

    Minimised is the energy of section 3, of x in grey levels from mid grey on, H x W x C of them,

        |Φ(x) - Φ₀|² / |Φ₀|² + (λ_V R_V^β(x) + λ_α R_α(x)) / σ²,   R_α(x) = Σ |x|^α

    from noise of norm σ = 69 √(HWC) on. With α = 6 and β = 2 that is the paper's for its size of
    pictures, with its λ_α; for other sizes the priors weigh the same against the first term.

    Args:
        model: as of `kerasvision.synthesis.features`.
        layer_name: of the layer.
        tv_weight: λ_V; None: as `tv_weight_of` says.
        tv_beta: β.
        alpha: α.
        alpha_weight: λ_α, as the prior stands above.
        steps: of the descent.
        optimizer: "momentum", as in the paper (0.9; its rate falls to a tenth after a quarter of
            the steps and again after three quarters); or "adam", with a rate that falls to 0
            along a cosine.
        learning_rate: at first; None: 0.004, times σ², for "momentum"; 8 grey levels for "adam".
        jit_compile: whether XLA compiles a step.

    Raises:
        ValueError: an unknown layer, or an argument out of range.
    """

    def __init__(
        self,
        model,
        layer_name,
        tv_weight=None,
        tv_beta=2.0,
        alpha=6.0,
        alpha_weight=ALPHA_WEIGHT,
        steps=400,
        optimizer="adam",
        learning_rate=None,
        jit_compile=False,
    ):
        if optimizer not in ("adam", "momentum"):
            raise ValueError(f"optimizer: must be adam or momentum; received: {optimizer}")
        if steps < 1:
            raise ValueError(f"steps: must be 1 or more; received: {steps}")
        self.phi = features(model, layer_name)
        ((self.layer_name, _),) = self.phi.output.items()
        self.tv_weight = tv_weight_of(model, layer_name) if tv_weight is None else float(tv_weight)
        self.tv_beta, self.alpha = float(tv_beta), float(alpha)
        self.alpha_weight = float(alpha_weight)
        self.steps, self.optimizer = steps, optimizer
        self.learning_rate = learning_rate or (8.0 if optimizer == "adam" else MOMENTUM_RATE)
        self.step = tf.function(self._step, jit_compile=jit_compile)

    def code(self, images):
        """Φ: (B, numbers) float32 of images (B, H, W, C), 0 to 255."""
        phi = ops.cast(self.phi(images, training=False)[self.layer_name], "float32")
        return ops.reshape(phi, (phi.shape[0], -1))

    def energy(self, x, phi_0):
        """The energy (B,) of x (B, H, W, C), from mid grey on, for Φ₀; and its first term."""
        difference = self.code(x + GREY) - phi_0
        error = ops.divide_no_nan(ops.sum(difference**2, -1), ops.sum(phi_0**2, -1))
        priors = self.tv_weight * total_variation(x, self.tv_beta)
        priors = priors + self.alpha_weight * ops.sum(ops.abs(x) ** self.alpha, axis=(1, 2, 3))
        return error + priors / self._sigma(x) ** 2, error

    @staticmethod
    def _sigma(x):
        return CONTRAST * float(np.prod(x.shape[1:])) ** 0.5

    def _step(self, x, phi_0, moments, step):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            energy, error = self.energy(x, phi_0)
            total = ops.sum(energy)
        g = tape.gradient(total, x)
        done = (ops.cast(step, "float32") - 1) / self.steps
        if self.optimizer == "adam":
            rate = self.learning_rate * (1 + ops.cos(np.pi * done)) / 2
            x, moments = adam(x, g, moments, step, rate)
        else:
            fall = ops.where(done < 0.25, 1.0, ops.where(done < 0.75, 0.1, 0.01))
            # The paper's variable is x / σ.
            rate = self.learning_rate * fall * self._sigma(x) ** 2
            moments = (MOMENTUM * moments[0] - rate * g, moments[1])
            x = x + moments[0]
        return x, moments, energy, error

    def __call__(self, images, seed=0, on_step=None):
        """Reconstructs pictures from their codes.

        Args:
            images: (B, H, W, C), 0 to 255.
            seed: of the noise that it begins with.
            on_step: optional function of (step, from 0; function that gives the pictures; energies
                (B,), first terms (B,) before the step), called after each step.

        Returns:
            (B, H, W, C) float32, 0 to 255.

        Raises:
            ValueError: pictures that the network can't take.
        """
        images = tf.convert_to_tensor(np.asarray(images, "float32"))
        check_image_size(self.phi, images.shape[1:3])
        phi_0 = self.code(images)
        noise = np.random.default_rng(seed).normal(size=images.shape)
        noise *= self._sigma(noise) / np.sqrt((noise**2).sum(axis=(1, 2, 3), keepdims=True))
        x = tf.constant(noise, tf.float32)
        moments = (tf.zeros_like(x), tf.zeros_like(x))

        def pictures():
            return np.clip(x.numpy() + GREY, 0.0, 255.0)

        for step in range(self.steps):
            x, moments, energy, error = self.step(x, phi_0, moments, tf.constant(step + 1))
            if on_step is not None:
                on_step(step, pictures, energy.numpy(), error.numpy())
        return pictures()


def reconstruction_errors(phi, images, reconstructions):
    """How far reconstructions are from pictures: in layers, and pixel by pixel.

    Each error is |Φ(x) - Φ₀| / |Φ₀|, the root of what `Inversion` minimises. (The paper divides by
    the mean distance of the codes of its test pictures instead, section 5.1, which one picture
    hasn't.) Which one to look at:

    - At the layer that was inverted: how well the descent went. It says nothing of what the layer
      keeps: deep codes are often met best.
    - "mean", over all the layers given: what is lost of the picture anywhere in the network. Over
      the blocks of VGG-16 it grew from each to the next in all that was tried: two pictures. That
      is no law, as a descent may end anywhere.
    - "pixels": likewise, but beyond the first layers it stays near 1, as colours of wide areas are
      soon forgotten and come out as chance will have them.

    Args:
        phi: as from `kerasvision.synthesis.features`.
        images, reconstructions: (B, H, W, C), 0 to 255.

    Returns:
        dict of each layer's name to (B,) float32; "mean"; and "pixels", of which Φ₀ is the
        difference from the picture's mean colour, which alone as a picture has an error of 1.
    """
    images, reconstructions = (np.asarray(x, "float32") for x in (images, reconstructions))
    given, made = (phi(x, training=False) for x in (images, reconstructions))
    errors = {name: _relative(given[name], made[name]) for name in given}
    errors["mean"] = np.mean(list(errors.values()), axis=0)
    mean_colour = images.mean(axis=(1, 2), keepdims=True)
    errors["pixels"] = _relative(images - mean_colour, reconstructions - mean_colour)
    return errors


def _relative(given, made):
    """|made - given| / |given| of each picture of a batch; 0 where nothing was given."""
    given, made = (np.reshape(np.asarray(x, "float32"), (len(x), -1)) for x in (given, made))
    distance, norm = np.linalg.norm(made - given, axis=1), np.linalg.norm(given, axis=1)
    return np.divide(distance, norm, out=np.zeros_like(distance), where=norm > 0)
