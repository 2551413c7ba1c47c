"""FCN (Long, Shelhamer and Darrell 2015, "Fully Convolutional Networks for Semantic
Segmentation").

VGG-16's classifier as convolutions gives a score map of stride 32. FCN-32s upsamples that;
FCN-16s and FCN-8s add the scores of the fourth and the third pooling on the way up.
"""

import keras
from keras import layers

from kerasvision.backbones.inputs import image_input
from kerasvision.backbones.vgg import read_fully_connected
from kerasvision.layers import BilinearInitializer
from kerasvision.segmentation.segmenter import Segmenter, in_float32
from kerasvision.segmentation.vgg_encoder import encode, load_vgg16, normalize

PADDING = 100  # "fc6" must see a picture of any size whole
EATEN = 96  # of it: "fc6" without padding leaves out three cells of stride 32 on each side


def fcn32s(
    num_classes,
    image_shape=(500, 500, 3),
    backbone_weights=None,
    class_names=None,
    class_weights=None,
    units=4096,
    padding=PADDING,
    learn_upsampling=False,
    dropout_rate=0.5,
):
    """FCN-32s: 134,346,581 trainable parameters with 21 classes.

    Section 4.1; and the authors' code, for the padding and the crops.

    Args:
        num_classes: C.
        image_shape: (height, width, 3), any size from 32 pixels.
        backbone_weights: as the `weights` of `kerasvision.backbones.vgg16`. A file with VGG's
            fully connected layers also gives "fc6" and "fc7" theirs, where `units` is 4096.
        class_names, class_weights: as in `Segmenter`.
        units: channels of "fc6" and "fc7".
        padding: pixels of mean colour around the images, which the authors let "fc6", a 7x7
            convolution without padding, eat up again. 0: "fc6" is padded itself, and a
            picture of 240x180 pixels has a quarter of the pixels.
        learn_upsampling: whether the transposed convolutions learn; they start as bilinear
            interpolation. The authors fix the last one of FCN-32s, "learning the interpolation
            makes no significant difference".
        dropout_rate: behind "fc6" and "fc7".

    Returns:
        `Segmenter`.

    Raises:
        ValueError: images too small, or a weight file of another network.
    """
    images, maps, scores, eaten = _scores(
        num_classes, image_shape, backbone_weights, units, padding, dropout_rate
    )
    scores = _upsample(scores, 32, "upsample32", learn_upsampling)
    logits = _as_logits(scores, image_shape, padding - eaten)
    return _segmenter("fcn32s", images, logits, backbone_weights, class_names, class_weights)


def fcn16s(
    num_classes,
    image_shape=(500, 500, 3),
    backbone_weights=None,
    class_names=None,
    class_weights=None,
    units=4096,
    padding=PADDING,
    learn_upsampling=True,
    dropout_rate=0.5,
):
    """FCN-16s: 134,815,994 trainable parameters with 21 classes, upsampling learnt.

    Section 4.2: "fuse" the fourth pooling. Arguments, return value and errors as of `fcn32s`.
    """
    images, maps, scores, eaten = _scores(
        num_classes, image_shape, backbone_weights, units, padding, dropout_rate
    )
    scores = _upsample(scores, 2, "upsample2", learn_upsampling)
    scores = _fuse(scores, maps[3], num_classes, eaten // 16, "score_pool4")
    scores = _upsample(scores, 16, "upsample16", learn_upsampling)
    logits = _as_logits(scores, image_shape, padding - eaten)
    return _segmenter("fcn16s", images, logits, backbone_weights, class_names, class_weights)


def fcn8s(
    num_classes,
    image_shape=(500, 500, 3),
    backbone_weights=None,
    class_names=None,
    class_weights=None,
    units=4096,
    padding=PADDING,
    learn_upsampling=True,
    dropout_rate=0.5,
):
    """FCN-8s: 134,489,759 trainable parameters with 21 classes, upsampling learnt.

    Section 4.2: the third pooling's scores as well. Trained "at once", as in the authors' later
    paper (Shelhamer et al. 2017), not from an FCN-16s. Arguments, return value and errors as of
    `fcn32s`.
    """
    images, maps, scores, eaten = _scores(
        num_classes, image_shape, backbone_weights, units, padding, dropout_rate
    )
    scores = _upsample(scores, 2, "upsample2", learn_upsampling)
    scores = _fuse(scores, maps[3], num_classes, eaten // 16, "score_pool4")
    scores = _upsample(scores, 2, "upsample4", learn_upsampling)
    scores = _fuse(scores, maps[2], num_classes, eaten // 8, "score_pool3")
    scores = _upsample(scores, 8, "upsample8", learn_upsampling)
    logits = _as_logits(scores, image_shape, padding - eaten)
    return _segmenter("fcn8s", images, logits, backbone_weights, class_names, class_weights)


def _scores(num_classes, image_shape, backbone_weights, units, padding, dropout_rate):
    """The images, the encoder's five poolings, the scores of stride 32, and `EATEN`, if any was."""
    if padding != 0 and padding < EATEN:
        raise ValueError(f"padding must be 0, or {EATEN} or more; received: {padding}")
    images = image_input(image_shape, min_side=32, any_size=False)
    x = normalize(images, backbone_weights)
    if padding:
        x = layers.ZeroPadding2D(padding, name="padding")(x)
    maps, _, _ = encode(x)
    x = maps[-1]
    for name, kernel_size in (("fc6", 7), ("fc7", 1)):
        x = layers.Conv2D(
            units,
            kernel_size,
            padding="valid" if padding else "same",
            activation="relu",
            kernel_initializer="he_normal",
            name=name,
        )(x)
        x = layers.Dropout(dropout_rate, name=f"{name}_dropout")(x)
    return images, maps, _score(x, num_classes, "score"), EATEN if padding else 0


def _score(x, num_classes, name):
    # The authors start all scores at zero.
    return layers.Conv2D(num_classes, 1, kernel_initializer="zeros", name=name)(x)


def _upsample(scores, factor, name, learn):
    """Transposed convolution that starts as bilinear upsampling (section 3.3)."""
    return layers.Conv2DTranspose(
        scores.shape[-1],
        2 * factor,
        strides=factor,
        padding="same",
        use_bias=False,
        kernel_initializer=BilinearInitializer(),
        trainable=learn,
        name=name,
    )(scores)


def _fuse(scores, finer, num_classes, start, name):
    """Adds the scores of a finer map, whose cell number `start` is the first of `scores`."""
    finer = _score(finer, num_classes, name)
    size = [min(a, b - start) for a, b in zip(scores.shape[1:3], finer.shape[1:3])]
    return layers.Add(name=f"{name}_fused")(
        [_crop(scores, 0, size, f"{name}_coarse"), _crop(finer, start, size, f"{name}_crop")]
    )


def _as_logits(scores, image_shape, start):
    return in_float32(_crop(scores, start, image_shape[:2], "crop"))


def _crop(x, start, size, name):
    """`size` (height, width) of a map from row and column `start` on."""
    cropping = [(start, have - start - want) for have, want in zip(x.shape[1:3], size)]
    return layers.Cropping2D(cropping, name=name)(x)


def _segmenter(name, images, logits, backbone_weights, class_names, class_weights):
    network = keras.Model(images, logits, name="network")
    load_vgg16(network, backbone_weights)
    if backbone_weights not in (None, "imagenet"):
        for layer, arrays in read_fully_connected(backbone_weights).items():
            if network.get_layer(layer).kernel.shape == arrays[0].shape:
                network.get_layer(layer).set_weights(arrays)
    return Segmenter(network, class_names, class_weights, name=name)
