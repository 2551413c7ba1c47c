"""Class activation maps: what a classifier looked at (Zhou et al. 2016).

Behind global average pooling the score of a class is a weighted sum of feature maps' means. The
same sum of the maps themselves shows where in the picture the score came from: its mean is the
score. No training is needed beyond that of the classifier.
"""

import cv2
import keras
import numpy as np
from keras import layers

from kerasvision.classification.dense import features_and_head


def class_activation_maps(network):
    """The network from images to their class activation maps.

    M_c(y, x) = sum over k of w_kc f_k(y, x) (Zhou et al. 2016, equation 2), where f are the feature
    maps in front of the global average pooling and w the weights of the one `Dense` layer behind
    it. The mean of M_c plus the bias of c is the logit of c; the paper leaves the bias out, and so
    do the maps. A network whose last convolution has a channel for each class, such as Network in
    Network and SqueezeNet, is its own map: M are the features that it averages. The weights of the
    dense layer are copied, the layers below are shared with `network`.

    Args:
        network: functional `keras.Model` from images to (B, C), or to a dict with such
            "predictions". Behind its last `GlobalAveragePooling2D` there is at most one `Dense`
            layer, and `Dropout` and activations.

    Returns:
        A functional `keras.Model` from images (B, H, W, 3) to maps (B, h, w, C) float32, with the
        resolution of the features.

    Raises:
        ValueError: a network of another form.
    """
    features, head = features_and_head(network)
    dense = [layer for layer in head if isinstance(layer, layers.Dense)]
    if not isinstance(head[0], layers.GlobalAveragePooling2D) or len(dense) > 1:
        raise ValueError(
            "network must have global average pooling and at most one Dense layer behind it; "
            f"received: {network.name} with {', '.join(layer.name for layer in head)}"
        )
    if not dense:
        maps = layers.Activation("linear", dtype="float32", name="class_activation_maps")(features)
        return keras.Model(network.input, maps, name="class_activation_maps")
    weighting = layers.Conv2D(
        dense[0].units, 1, use_bias=False, dtype="float32", name="class_activation_maps"
    )
    model = keras.Model(network.input, weighting(features), name="class_activation_maps")
    weighting.set_weights([dense[0].get_weights()[0][None, None]])
    return model


def heat_maps(maps, height, width):
    """Maps (B, h, w, C), NumPy, enlarged bilinearly to (B, height, width, C)."""
    return np.stack(
        [
            cv2.resize(cells, (width, height), interpolation=cv2.INTER_LINEAR).reshape(
                height, width, -1
            )
            for cells in maps
        ]
    )


def box_of_heat_map(heat_map, threshold=0.2):
    """A box around the hottest region (Zhou et al. 2016, section 3.2).

    The box covers the largest connected component of what is above 20 % of the map's maximum.

    Args:
        heat_map: (H, W), of one class, as large as the picture.
        threshold: share of the maximum.

    Returns:
        (4,) float32 (ymin, xmin, ymax, xmax) divided by H and W; the whole picture where the
        maximum is not above 0.
    """
    heat_map = np.asarray(heat_map)
    if heat_map.max() <= 0:
        return np.array([0, 0, 1, 1], "float32")
    hot = (heat_map > threshold * heat_map.max()).astype("uint8")
    _, _, statistics, _ = cv2.connectedComponentsWithStats(hot, connectivity=8)
    sizes = statistics[1:, cv2.CC_STAT_AREA]  # component 0 is the background
    left, top, width, height = statistics[1 + np.argmax(sizes), :4]
    sides = (*heat_map.shape, *heat_map.shape)
    return (np.array([top, left, top + height, left + width]) / sides).astype("float32")
