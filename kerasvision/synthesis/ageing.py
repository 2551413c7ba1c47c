"""Deep ageing: a face is changed until a network sees what it is told to see.

From the lectures: min over p of |NN(PCA(p)) - Sᵗ|², where NN is a network trained to predict
age, gender or the like, Sᵗ what it is to say, and PCA(p) the face of coordinates p in the space of
the principal components of faces (Turk and Pentland 1991). Any pictures at all would fool the
network; in this space they stay faces.
"""

import numpy as np
import tensorflow as tf
from keras import ops
from sklearn.decomposition import PCA

from kerasvision.synthesis.features import adam


class FaceSpace:
    """The principal components of faces that lie alike (eyes at the same places).

    Coordinates p are in standard deviations of the faces along each component: a typical face's
    have a mean square of 1.

    Args:
        faces: (N, H, W, C), 0 to 255.
        components: how many; None: all that N faces have, N - 1, or H W C if that is less.

    Raises:
        ValueError: fewer than two faces, or more components than they have.
    """

    def __init__(self, faces, components=None):
        faces = np.asarray(faces, "float32")
        if len(faces) < 2:
            raise ValueError(f"faces: must be two or more; received: {len(faces)}")
        most = min(len(faces) - 1, int(np.prod(faces.shape[1:])))
        if components is not None and not 1 <= components <= most:
            raise ValueError(
                f"components: must be from 1 to {most} for {len(faces)} faces; "
                f"received: {components}"
            )
        pca = PCA(components or most, svd_solver="full").fit(faces.reshape(len(faces), -1))
        self.image_shape = faces.shape[1:]
        self.mean = pca.mean_.astype("float32")
        # Faces that are all the same vary along nothing.
        self.deviations = np.maximum(np.sqrt(pca.explained_variance_), 1e-3).astype("float32")
        self.axes = pca.components_.astype("float32")
        self.explained = float(pca.explained_variance_ratio_.sum())

    def encode(self, faces):
        """Coordinates p (B, components) of faces (B, H, W, C)."""
        flat = ops.reshape(ops.cast(faces, "float32"), (-1, self.axes.shape[1])) - self.mean
        return ops.matmul(flat, self.axes.T) / self.deviations

    def decode(self, p):
        """PCA(p): faces (B, H, W, C) of coordinates p (B, components).

        Values may lie outside of 0 to 255: cut off, they would have no slope to come back by.
        """
        flat = ops.matmul(p * self.deviations, self.axes) + self.mean
        return ops.reshape(flat, (-1, *self.image_shape))


class DeepAgeing:
    """Moves faces in a `FaceSpace` until a network says what it is told to.

    Minimised by Adam, from the faces' own coordinates p₀ on, is for each face

        |NN(PCA(p)) - Sᵗ|² + prior_weight mean (p - p₀)²

    The lectures' formula has no prior; without it whatever the network doesn't look at may change.
    What a face has beyond the space, PCA(p₀) - x, is added again, so that p₀ gives the face itself.

    Args:
        model: `keras.Model` from faces (B, H, W, C), 0 to 255, of the space's size, to S (B, K):
            an age, or the probabilities of classes.
        space: `FaceSpace`.
        prior_weight: as above.
        steps: of Adam.
        learning_rate: of Adam, in standard deviations.
    """

    def __init__(self, model, space, prior_weight=0.1, steps=200, learning_rate=0.05):
        if steps < 1:
            raise ValueError(f"steps: must be 1 or more; received: {steps}")
        self.model, self.space = model, space
        self.prior_weight, self.steps = float(prior_weight), steps
        self.learning_rate = float(learning_rate)
        self.step = tf.function(self._step)

    def faces(self, p, rest):
        """PCA(p) and what lies beyond it: (B, H, W, C)."""
        return self.space.decode(p) + rest

    def _step(self, p, p_0, rest, target, moments, step):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(p)
            said = ops.cast(self.model(self.faces(p, rest), training=False), "float32")
            error = ops.sum((said - target) ** 2, axis=-1)
            loss = ops.sum(error + self.prior_weight * ops.mean((p - p_0) ** 2, axis=-1))
        p, moments = adam(p, tape.gradient(loss, p), moments, step, self.learning_rate)
        return p, moments, error

    def __call__(self, faces, target, on_step=None):
        """Changes faces.

        Args:
            faces: (B, H, W, C), 0 to 255.
            target: Sᵗ, (K,) or (B, K).
            on_step: optional function of (step, from 0; function that gives the faces; errors
                |NN - Sᵗ|² (B,) before the step), called after each step.

        Returns:
            (B, H, W, C) float32, 0 to 255.
        """
        faces = tf.convert_to_tensor(np.asarray(faces, "float32"))
        p_0 = p = self.space.encode(faces)
        rest = faces - self.space.decode(p_0)
        target = tf.convert_to_tensor(np.asarray(target, "float32"))
        moments = (tf.zeros_like(p), tf.zeros_like(p))

        def made():
            return np.clip(self.faces(p, rest).numpy(), 0.0, 255.0)

        for step in range(self.steps):
            p, moments, error = self.step(p, p_0, rest, target, moments, tf.constant(step + 1))
            if on_step is not None:
                on_step(step, made, error.numpy())
        return made()
