"""Files of keras.applications' networks, whole and headless, give their outputs here."""

import keras
import numpy as np
import pytest
from keras import applications

from kerasvision import backbones

# Name here: (the network there, its module, side of the pictures).
PEERS = {
    "densenet121": (applications.DenseNet121, applications.densenet, 64),
    "densenet169": (applications.DenseNet169, applications.densenet, 64),
    "densenet201": (applications.DenseNet201, applications.densenet, 64),
    "inception_resnet_v2": (applications.InceptionResNetV2, applications.inception_resnet_v2, 96),
    "inception_v3": (applications.InceptionV3, applications.inception_v3, 96),
    "mobilenet_v2": (applications.MobileNetV2, applications.mobilenet_v2, 64),
    "resnet50": (applications.ResNet50, applications.resnet, 64),
    "resnet101": (applications.ResNet101, applications.resnet, 64),
    "resnet152": (applications.ResNet152, applications.resnet, 64),
    "vgg16": (applications.VGG16, applications.vgg16, 64),
    "vgg19": (applications.VGG19, applications.vgg19, 64),
}


@pytest.mark.slow
@pytest.mark.parametrize("include_top", [True, False])
@pytest.mark.parametrize("name", PEERS)
def test_outputs_are_those_of_keras_applications(name, include_top, tmp_path):
    rng = np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    build, module, side = PEERS[name]
    shape = (side, side, 3)
    top = {"classifier_activation": None} if include_top else {}
    peer = build(
        include_top=include_top,
        weights=None,
        input_shape=shape,
        **({"classes": 5} | top if top else {}),
    )
    for layer in peer.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            # Statistics unlike those at the start, where much would go unnoticed.
            layer.set_weights(
                [
                    rng.uniform(0.5, 1.2, weight.shape)
                    if weight.path.endswith(("gamma", "variance"))
                    else rng.normal(0, 0.1, weight.shape)
                    for weight in layer.weights
                ]
            )
    peer.save(tmp_path / "peer.h5")
    pictures = rng.uniform(0, 255, (2, *shape)).astype("float32")
    expected = peer.predict_on_batch(module.preprocess_input(pictures.copy()))

    ours = getattr(backbones, name)(
        shape, 5, include_top=include_top, weights=tmp_path / "peer.h5", **top
    )
    received = ours.predict_on_batch(pictures)
    # Relative to the largest value, which grows with the depth of a residual network.
    largest = np.abs(expected).max()
    assert largest > 1e-3
    np.testing.assert_allclose(received, expected, rtol=0, atol=2e-5 * largest)
