"""Neural style transfer: one picture's things in another one's manner.

Gatys, Ecker and Bethge 2016, "Image Style Transfer Using Convolutional Neural Networks". A
picture x is sought whose maps in a deep layer are those of the content picture p, and whose
products of maps, averaged over all places, are in several layers those of the style picture a.
"""

import cv2
import keras
import numpy as np
import scipy.optimize
import tensorflow as tf
from keras import layers, ops

from kerasvision.synthesis.features import adam, check_image_size, features, total_variation

# Of the paper's VGG, section 2: relu4_2; and relu1_1, relu2_1, …, relu5_1.
CONTENT_LAYERS = ("block4_conv2",)
STYLE_LAYERS = tuple(f"block{block}_conv1" for block in range(1, 6))
MIN_SIDE = 32  # pixels of the smallest picture that is painted before the picture itself
# Rec. 601: luminance, and the two differences of colour beside it, of RGB by rows.
YIQ = np.array(
    [[0.299, 0.587, 0.114], [0.59590, -0.27455, -0.32135], [0.21153, -0.52273, 0.31120]], "float32"
)
LEAST = 1e-6  # of a squared norm that is divided by: maps may be zero throughout
LBFGS_PAIRS = 5  # steps from which L-BFGS knows the curvature


class StyleLoss:
    """What Gatys et al. minimise, of batches of pictures x with maps F (HW, N) in each layer.

    L = content_weight L_content + style_weight L_style + tv_weight R_V^β(x / 255) / HW, where

        L_content = mean over layers of |F - P|² / |P|²                         (equation 1)
        L_style = Σ_l w_l E_l,  E_l = |G - A|² / |A|²,  G = FᵀF / HW            (equations 3 to 5)

    The paper scales its network's filters to a mean response of 1, which makes all layers count
    alike; here the distances are divided by what they are to be compared with. Then the weights
    serve any network. G is a mean over places: A may be of a picture of another size than x.

    Args:
        model: as of `kerasvision.synthesis.features`; it stays as it is, and is cut behind the
            last layer that is needed.
        content_layers, style_layers: names of layers.
        layer_weights: w_l, one for each of `style_layers`; None: all equal, with a sum of 1.
        content_weight, style_weight, tv_weight: as above.
        tv_beta: β.
        temporal_weight: of the distance to what the last frame of a film shows, see
            `stylize_frames`: mean over all values of c (x - w)² / 255².
        pooling: "max" as the network has it, or "average", which the paper prefers.
        bfloat16: whether the convolutions compute in bfloat16. The losses are float32.

    Raises:
        ValueError: an unknown layer, or an argument out of range.
    """

    def __init__(
        self,
        model,
        content_layers=CONTENT_LAYERS,
        style_layers=STYLE_LAYERS,
        layer_weights=None,
        content_weight=1.0,
        style_weight=1.0,
        tv_weight=0.0,
        tv_beta=2.0,
        temporal_weight=100.0,
        pooling="max",
        bfloat16=False,
    ):
        if pooling not in ("max", "average"):
            raise ValueError(f"pooling: must be max or average; received: {pooling}")
        self.content_layers, self.style_layers = tuple(content_layers), tuple(style_layers)
        if layer_weights is None:
            layer_weights = [1 / len(self.style_layers)] * len(self.style_layers)
        self.layer_weights = [float(weight) for weight in layer_weights]
        if len(self.layer_weights) != len(self.style_layers):
            raise ValueError(
                f"layer_weights: must be {len(self.style_layers)}, one for each of "
                f"{', '.join(self.style_layers)}; received: {len(self.layer_weights)}"
            )
        weights = (content_weight, style_weight, tv_weight, temporal_weight)
        if min(*weights, *self.layer_weights) < 0 or not any(weights[:3]):
            raise ValueError(
                "content_weight, style_weight, tv_weight, temporal_weight, layer_weights: must be "
                "0 or more, and one of the first three above it; received: "
                f"{', '.join(map(str, weights))}, {self.layer_weights}"
            )
        self.content_weight, self.style_weight, self.tv_weight = map(float, weights[:3])
        self.temporal_weight = float(temporal_weight)
        self.tv_beta = float(tv_beta)
        names = dict.fromkeys(self.content_layers + self.style_layers)
        self.phi = loss_network(features(model, list(names)), pooling, bfloat16)

    def content_targets(self, images):
        """P: maps (B, h, w, N) of each content layer, of pictures (B, H, W, C), 0 to 255."""
        maps = self.phi(images, training=False)
        return {name: ops.cast(maps[name], "float32") for name in self.content_layers}

    def style_targets(self, image):
        """A: (1, N, N) of each style layer, of one picture (H, W, C), 0 to 255."""
        image = np.asarray(image, "float32")
        check_image_size(self.phi, image.shape[:2])
        maps = self.phi(image[None], training=False)
        return {name: gram(maps[name]) for name in self.style_layers}

    def __call__(self, images, contents, styles, previous=None):
        """The losses of pictures.

        Args:
            images: (B, H, W, C), 0 to 255.
            contents: P, as from `content_targets`.
            styles: list of pairs: A, as from `style_targets`; and None, or the share (h, w) that
                each place has in G, for each style layer: equation 1 of "Controlling Perceptual
                Factors in Neural Style Transfer" (Gatys et al. 2017), with its T² for the shares.
                The losses of several are added, each with its weight.
            previous: None, or w (B, H, W, C) and c (B, H, W, 1): what was painted in the last
                frame, moved along, and 1 where that is to be kept, 0 elsewhere.

        Returns:
            dict of "loss", and its terms "content", "style", "tv" and "temporal" as they are
            weighted, () each, means over the pictures.
        """
        maps = self.phi(images, training=False)
        content = style = tv = temporal = ops.zeros((), "float32")
        for name, wanted in contents.items():
            difference = ops.cast(maps[name], "float32") - wanted
            error = ops.sum(difference**2, (1, 2, 3)) / (ops.sum(wanted**2, (1, 2, 3)) + LEAST)
            content = content + ops.mean(error) / len(contents)
        for weight, targets, shares in styles:
            for name, layer_weight in zip(self.style_layers, self.layer_weights):
                found = gram(maps[name], None if shares is None else shares[name])
                A = targets[name]
                error = ops.sum((found - A) ** 2, axis=(1, 2)) / (ops.sum(A**2) + LEAST)
                style = style + weight * layer_weight * ops.mean(error)
        if self.tv_weight:
            pixels = images.shape[1] * images.shape[2]
            tv = ops.mean(total_variation(images / 255.0, self.tv_beta)) / pixels
        if previous is not None:
            w, c = previous
            temporal = ops.mean(c * ((images - w) / 255.0) ** 2)
        terms = {
            "content": self.content_weight * content,
            "style": self.style_weight * style,
            "tv": self.tv_weight * tv,
            "temporal": self.temporal_weight * temporal,
        }
        return {"loss": sum(terms.values()), **terms}


def loss_network(phi, pooling="max", bfloat16=False):
    """A copy of a network of maps, with another pooling, or with bfloat16 from the first layer on.

    Weights are kept, not trained, and in bfloat16 halved in size. Normalisations of the picture,
    which have no weights, compute as they did.

    Args:
        phi: as from `kerasvision.synthesis.features`.
        pooling, bfloat16: as of `StyleLoss`.
    """
    if pooling == "max" and not bfloat16:
        return phi

    def copy(layer):
        config = layer.get_config()
        if bfloat16 and not isinstance(layer, (layers.InputLayer, layers.Rescaling)):
            config["dtype"] = "bfloat16"
        if pooling == "average" and isinstance(layer, layers.MaxPooling2D):
            return layers.AveragePooling2D.from_config(config)
        return type(layer).from_config(config)

    network = keras.models.clone_model(phi, clone_function=copy)
    network.set_weights(phi.get_weights())
    network.trainable = False
    network.input_spec = phi.input_spec
    return network


def gram(maps, shares=None):
    """G: means over all places of products of maps.

    Args:
        maps: (B, h, w, N), any float.
        shares: optional (h, w) float32 with a sum of 1, for a weighted mean.

    Returns:
        (B, N, N) float32, the mean over h x w places of F_i F_j.
    """
    places = maps.shape[1] * maps.shape[2]
    F = ops.reshape(ops.cast(maps, "float32"), (-1, places, maps.shape[-1]))
    w = 1.0 / places if shares is None else ops.reshape(shares, (1, places, 1))

    # Written out the gradient is one product: automatically both sides of FᵀF would get one.
    @ops.custom_gradient
    def product(F):
        G = ops.matmul(ops.transpose(F, (0, 2, 1)), F * w)

        def gradient(upstream):
            return ops.matmul(F * w, upstream + ops.transpose(upstream, (0, 2, 1)))

        return G, gradient

    return product(F)


class StyleTransfer:
    """Style transfer by descent.

    Args:
        loss: `StyleLoss`.
        optimizer: "lbfgs", as in the paper, with pixels kept from 0 to 255; or "adam", with a
            rate that falls to 0 along a cosine.
        iterations: of the optimizer, at each scale.
        scales: at how many sizes, each twice the last one, the picture is painted, from coarse to
            fine: strokes become larger, at small cost (Gatys et al. 2017, "Controlling Perceptual
            Factors in Neural Style Transfer", section 6). 1: as in the paper. Pictures with a
            side below `MIN_SIDE` are left out.
        learning_rate: of Adam at first, in grey levels.
        start: "content" or "noise".
        jit_compile: whether XLA compiles the loss.

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(
        self,
        loss,
        optimizer="lbfgs",
        iterations=200,
        scales=1,
        learning_rate=8.0,
        start="content",
        jit_compile=False,
    ):
        if optimizer not in ("lbfgs", "adam"):
            raise ValueError(f"optimizer: must be lbfgs or adam; received: {optimizer}")
        if start not in ("content", "noise"):
            raise ValueError(f"start: must be content or noise; received: {start}")
        if iterations < 1 or scales < 1:
            raise ValueError(
                f"iterations, scales: must be 1 or more; received: {iterations}, {scales}"
            )
        self.loss, self.optimizer = loss, optimizer
        self.iterations, self.scales = iterations, scales
        self.learning_rate, self.start = float(learning_rate), start
        self.value_and_gradient = tf.function(self._value_and_gradient, jit_compile=jit_compile)
        self.adam_step = tf.function(self._adam_step, jit_compile=jit_compile)

    def _value_and_gradient(self, x, targets):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            terms = self.loss(x, *targets)
        return terms, tape.gradient(terms["loss"], x)

    def _adam_step(self, x, targets, moments, step):
        terms, g = self._value_and_gradient(x, targets)
        done = (ops.cast(step, "float32") - 1) / self.iterations
        rate = self.learning_rate * (1 + ops.cos(np.pi * done)) / 2
        x, moments = adam(x, g, moments, step, rate)
        return ops.clip(x, 0.0, 255.0), moments, terms

    def __call__(
        self, content, styles, style_mix=None, masks=None, seed=0, on_step=None, previous=None
    ):
        """Paints one picture.

        Args:
            content: (H, W, C), 0 to 255.
            styles: list of pictures (h, w, C), 0 to 255, of any sizes.
            style_mix: the share of each style; None: equal ones. They are divided by their sum.
                Without masks the styles are mixed everywhere.
            masks: None, or for each style (H, W), how much it counts at each place, 0 or more.
            seed: of the noise.
            on_step: optional function of (iteration, from 0; picture, at first smaller ones; dict
                of the terms of the loss there, floats), called after each iteration; with "adam"
                picture and terms are those before it.
            previous: None, or of a film (w (H, W, C), c (H, W)) as from `follow`: where c is 1, w
                is started from and stayed near; and there is but one scale.

        Returns:
            image: (H, W, C) float32, 0 to 255.
            terms: dict of the terms of its loss, floats.

        Raises:
            ValueError: numbers of things that don't fit, or pictures that the network can't take.
        """
        if previous is not None:
            w, c = (np.asarray(values, "float32") for values in previous)
            targets = self.targets(content, styles, style_mix, masks)
            x = np.where(c[..., None] > 0, w, np.asarray(content, "float32"))
            kept = (tf.constant(w[None]), tf.constant(c[None, ..., None]))
            return self.descend(x, (*targets, kept), on_step)
        x = None
        for number, (size, share) in enumerate(self.sizes(np.shape(content))):
            small = _resized(content, size)
            smaller = [
                _resized(s, [max(1, round(side * share)) for side in np.shape(s)[:2]])
                for s in styles
            ]
            targets = self.targets(small, smaller, style_mix, masks)
            if x is not None:
                x = np.clip(_resized(x, size), 0, 255)
            elif self.start == "noise":
                x = np.random.default_rng(seed).uniform(0, 255, small.shape)
            else:
                x = small
            x, terms = self.descend(x, targets, on_step, number * self.iterations)
        return x, terms

    def sizes(self, shape):
        """List of ((height, width), share of the sides) to be painted for a picture, coarse first.

        Args:
            shape: of the picture, (height, width, …).
        """
        sizes = []
        for share in (0.5**scale for scale in range(self.scales)):
            size = tuple(round(side * share) for side in shape[:2])
            if share == 1 or min(size) >= MIN_SIDE:
                sizes.insert(0, (size, share))
        return sizes

    def targets(self, content, styles, style_mix=None, masks=None):
        """P and the styles that the loss is to be given beside x; arguments as of a call.

        The masks may be of another size than the content.
        """
        content = np.asarray(content, "float32")
        styles = list(styles)
        mix = np.ones(len(styles)) if style_mix is None else np.asarray(style_mix, "float64")
        if not styles or mix.shape != (len(styles),) or mix.min() < 0 or mix.sum() == 0:
            raise ValueError(
                f"style_mix: must be {len(styles)} numbers from 0, one a style and not all 0; "
                f"received: {style_mix}"
            )
        mix = mix / mix.sum()
        check_image_size(self.loss.phi, content.shape[:2])
        grams = [self.loss.style_targets(style) for style in styles]
        contents = self.loss.content_targets(content[None])
        if masks is None:
            # The sum of the squared distances to several A is that to their mean, and a constant.
            mixed = {n: sum(float(w) * A[n] for w, A in zip(mix, grams)) for n in grams[0]}
            return contents, [(1.0, mixed, None)]
        shares = [self._shares(mask, content) for mask in masks]
        if len(shares) != len(styles):
            raise ValueError(f"masks: must be {len(styles)}, one a style; received: {len(shares)}")
        return contents, [(float(w), A, s) for w, A, s in zip(mix, grams, shares)]

    def _shares(self, mask, content):
        """The shares of the places in each style layer's mean, of a mask (H, W)."""
        mask = np.asarray(mask, "float32")
        if mask.ndim != 2 or mask.min() < 0 or not mask.any():
            raise ValueError(
                "masks: must be (H, W), of numbers from 0, not all 0; "
                f"received: {mask.shape}, {mask.min():g} to {mask.max():g}"
            )
        maps = self.loss.phi(content[None], training=False)
        shares = {}
        for name in self.loss.style_layers:
            small = ops.image.resize(mask[..., None], maps[name].shape[1:3], antialias=True)[..., 0]
            shares[name] = small / ops.sum(small)
        return shares

    def descend(self, x, targets, on_step=None, first=0):
        """Minimises the loss from x (H, W, C) on, at its size; returns what a call does.

        Args:
            x: picture.
            targets: as from `targets`.
            on_step: as of a call.
            first: number of the first iteration.
        """
        x = tf.constant(x[None], tf.float32)
        descent = self._descend_lbfgs if self.optimizer == "lbfgs" else self._descend_adam
        tell = (lambda *_: None) if on_step is None else on_step
        x = descent(x, targets, lambda step, image, terms: tell(first + step, image, terms))
        terms, _ = self.value_and_gradient(x, targets)
        return x[0].numpy(), _floats(terms)

    def _descend_adam(self, x, targets, on_step):
        moments = (tf.zeros_like(x), tf.zeros_like(x))
        for step in range(self.iterations):
            before = x
            x, moments, terms = self.adam_step(x, targets, moments, tf.constant(step + 1))
            on_step(step, before[0].numpy(), _floats(terms))
        return x

    def _descend_lbfgs(self, x, targets, on_step):
        shape, done, terms = x.shape, 0, {}

        def evaluate(pixels):
            nonlocal terms
            terms, g = self.value_and_gradient(
                tf.constant(pixels.reshape(shape), tf.float32), targets
            )
            return float(terms["loss"]), g.numpy().astype("float64").ravel()

        def after_iteration(pixels):  # whose loss was the last to be evaluated
            nonlocal done
            on_step(done, pixels.reshape(shape[1:]).astype("float32"), _floats(terms))
            done += 1

        pixels = x.numpy().astype("float64").ravel()
        while done < self.iterations:
            before = done
            pixels = scipy.optimize.minimize(
                evaluate,
                pixels,
                jac=True,
                method="L-BFGS-B",
                bounds=scipy.optimize.Bounds(0.0, 255.0),
                callback=after_iteration,
                options={
                    "maxiter": self.iterations - done,
                    "maxcor": LBFGS_PAIRS,
                    "maxfun": 20 * self.iterations,
                    "ftol": 0.0,
                    "gtol": 0.0,
                },
            ).x
            # Rounding can spoil its idea of the curvature: it begins anew, unless that's of no use.
            if done - before < 2:
                break
        return tf.constant(pixels.reshape(shape), tf.float32)


def stylize_frames(transfer, frames, styles, style_mix=None, masks=None, seed=0, on_step=None):
    """Paints the frames of a film so that what was painted moves along with what is seen.

    Ruder, Dosovitskiy and Brox 2016, "Artistic Style Transfer for Videos", sections 4.1 to 4.3:
    each frame starts from the last one as painted, moved along the optical flow, and is held near
    to that wherever the flow is to be trusted.

    Args:
        transfer: `StyleTransfer`; its loss's `temporal_weight` tells how firmly.
        frames: iterable of pictures (H, W, 3), 0 to 255, of one size.
        styles, style_mix, masks, seed: as of the transfer.
        on_step: as of the transfer.

    Yields:
        (image (H, W, 3) float32, 0 to 255; dict of the terms of its loss) of each frame.
    """
    last = painted = None
    for frame in frames:
        previous = None if last is None else follow(last, frame, painted)
        painted, terms = transfer(frame, styles, style_mix, masks, seed, on_step, previous)
        last = frame
        yield painted, terms


def follow(last, frame, painted):
    """Moves a picture along with what moves from one frame to the next.

    Args:
        last, frame: two frames (H, W, 3), 0 to 255.
        painted: picture (H, W, C) of the last frame.

    Returns:
        w: (H, W, C) float32, `painted` as seen in `frame`.
        c: (H, W) float32, 1; and 0 where something comes into view, or at the border of what
            moves: equations 5 and 6 of Ruder et al.
    """
    grey = [
        cv2.cvtColor(np.clip(x, 0, 255).astype("uint8"), cv2.COLOR_RGB2GRAY) for x in (last, frame)
    ]
    # Dense inverse search: quick, and good at small displacements.
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    backward, forward = search.calc(grey[1], grey[0], None), search.calc(grey[0], grey[1], None)
    height, width = grey[0].shape
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype("float32")
    there = grid + backward

    def fetched(values):
        return cv2.remap(values, there, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    def squared(flow):
        return np.sum(flow**2, axis=-1)

    back_again = fetched(forward)
    is_lost = (
        squared(back_again + backward) > 0.01 * (squared(back_again) + squared(backward)) + 0.5
    )
    slopes = sum(squared(np.gradient(backward, axis=axis)) for axis in (0, 1))
    is_edge = slopes > 0.01 * squared(backward) + 0.002
    is_outside = np.any((there < 0) | (there > [width - 1, height - 1]), axis=-1)
    c = ~(is_lost | is_edge | is_outside)
    return fetched(np.asarray(painted, "float32")), c.astype("float32")


def match_colors(style, content):
    """A style picture in the colours of the content, for a transfer that keeps these.

    Its colours go through the linear map that gives them the content's mean and covariance:
    Gatys et al. 2016, "Preserving Color in Neural Artistic Style Transfer", section 3, with the
    symmetric root of "Image Analogies".

    Args:
        style: (h, w, 3), 0 to 255.
        content: (H, W, 3), 0 to 255.

    Returns:
        (h, w, 3) float32, 0 to 255.
    """
    (mean_s, root_s), (mean_c, root_c) = _colour_statistics(style), _colour_statistics(content)
    matched = (np.asarray(style, "float64") - mean_s) @ np.linalg.pinv(root_s) @ root_c + mean_c
    return np.clip(matched, 0, 255).astype("float32")


def _colour_statistics(image):
    colours = np.asarray(image, "float64").reshape(-1, 3)
    # A little in all directions, for grey pictures.
    values, vectors = np.linalg.eigh(np.cov(colours.T, bias=True) + 1e-3 * np.eye(3))
    return colours.mean(0), (vectors * values**0.5) @ vectors.T


def luminance(image, like=None):
    """A picture in grey, for a transfer of the luminance alone (as above, section 4).

    Args:
        image: (H, W, 3), 0 to 255.
        like: optional picture (h, w, 3) whose luminance's mean and deviation it takes.

    Returns:
        (H, W, 3) float32, 0 to 255, three equal channels.
    """
    Y = np.asarray(image, "float32") @ YIQ[0]
    if like is not None:
        wanted = np.asarray(like, "float32") @ YIQ[0]
        Y = (Y - Y.mean()) * (wanted.std() / max(Y.std(), 1e-3)) + wanted.mean()
    return np.repeat(np.clip(Y, 0, 255)[..., None], 3, axis=-1)


def with_colors_of(content, image):
    """The luminance of one picture with the colours of another, both (H, W, 3), 0 to 255."""
    found, wanted = (np.asarray(x, "float32") @ YIQ.T for x in (image, content))
    mixed = np.concatenate([found[..., :1], wanted[..., 1:]], axis=-1)
    return np.clip(mixed @ np.linalg.inv(YIQ).T, 0, 255).astype("float32")


def _resized(image, size):
    """A picture (H, W, C) as (*size, C) float32."""
    image = np.asarray(image, "float32")
    if image.shape[:2] == tuple(size):
        return image
    way = cv2.INTER_AREA if size[0] < image.shape[0] else cv2.INTER_CUBIC
    return cv2.resize(image, tuple(size)[::-1], interpolation=way).reshape(*size, -1)


def _floats(terms):
    return {name: float(value) for name, value in terms.items()}
