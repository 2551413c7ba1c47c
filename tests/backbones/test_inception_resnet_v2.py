import keras
import numpy as np
import pytest
from keras import layers, ops

from kerasvision.backbones.inception_resnet_v2 import inception_resnet_v2

# timm's modules in the order in which it defines and computes them; the projection of each
# residual block, and the last convolution, have names in Keras too.
BLOCK35 = "branch0 branch1.0 branch1.1 branch2.0 branch2.1 branch2.2"
BLOCK17 = "branch0 branch1.0 branch1.1 branch1.2"
BLOCK8 = BLOCK17
TIMM = ["conv2d_1a", "conv2d_2a", "conv2d_2b", "conv2d_3b", "conv2d_4a"]
for module, branches in [
    ("mixed_5b", "branch0 branch1.0 branch1.1 branch2.0 branch2.1 branch2.2 branch3.1"),
    *[(f"repeat.{i}", BLOCK35) for i in range(10)],
    ("mixed_6a", "branch0 branch1.0 branch1.1 branch1.2"),
    *[(f"repeat_1.{i}", BLOCK17) for i in range(20)],
    ("mixed_7a", "branch0.0 branch0.1 branch1.0 branch1.1 branch2.0 branch2.1 branch2.2"),
    *[(f"repeat_2.{i}", BLOCK8) for i in range(9)],
    ("block8", BLOCK8),
]:
    TIMM += [f"{module}.{branch}" for branch in branches.split()]


def randomize(model, rng):
    """Weights that keep the values of one size through the network, and random statistics."""
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(
                [
                    rng.normal(size=w.shape, scale=np.sqrt(2 / np.prod(w.shape[:-1])))
                    if w.name == "kernel"
                    else rng.uniform(0.7, 1.3, w.shape)
                    if w.name == "moving_variance"
                    else rng.normal(0, 0.1, w.shape)
                    for w in layer.weights
                ]
            )


def pictures(height, width):
    """Two that differ in brightness too, as means of noise alone are much the same."""
    noise = np.random.default_rng(1).uniform(0, 255, (2, height, width, 3))
    return (noise * [[[[1.0]]], [[[0.2]]]]).astype("float32")


def assert_close(received, expected):
    received, expected = ops.convert_to_numpy(received), ops.convert_to_numpy(expected)
    scale = np.abs(expected).max()
    assert np.abs(expected[0] - expected[-1]).max() > 0.01 * scale  # the picture matters
    np.testing.assert_allclose(received, expected, atol=1e-4 * scale)


@pytest.fixture(scope="module")
def peer():
    """keras.applications' network with random weights, for logits of 1000 classes."""
    model = keras.applications.InceptionResNetV2(
        weights=None, input_shape=(107, 139, 3), classifier_activation=None
    )
    randomize(model, np.random.default_rng(0))
    return model


def test_parameters_and_taps():
    model = inception_resnet_v2()
    assert model.count_params() == 55_873_736
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == 55_813_192
    assert {name: tuple(tap.shape[1:]) for name, tap in model.feature_taps.items()} == {
        "stride2": (147, 147, 64),
        "stride4": (71, 71, 192),
        "stride8": (35, 35, 320),
        "stride16": (17, 17, 1088),
        "stride32": (8, 8, 1536),
    }
    shallow = inception_resnet_v2((75, 75, 3), include_top=False, depths=(1, 1, 1))
    for name, tap in shallow.feature_taps.items():
        cells = (299 - 75) // int(name.removeprefix("stride"))
        assert model.feature_taps[name].shape[1] - tap.shape[1] == cells
    assert shallow.output.shape == (None, 1, 1, 1536)


def test_a_residual_block_by_hand():
    model = inception_resnet_v2((75, 75, 3), include_top=False, depths=(1, 1, 2))
    randomize(model, np.random.default_rng(0))
    # Input, projection and output of a block of each scale; the last has no ReLU.
    for name, before, after, scale in [
        ("block35_1", "mixed_5b", "block35_1_relu", 0.17),
        ("block17_1", "mixed_6a", "block17_1_relu", 0.10),
        ("block8_1", "mixed_7a", "block8_1_relu", 0.20),
        ("block8_2", "block8_1_relu", None, 1.0),
    ]:
        block = model.get_layer(after).output if after else model.get_layer("conv2d_7b_conv").input
        parts = [model.get_layer(before).output, model.get_layer(f"{name}_conv").output, block]
        x, residual, received = map(
            ops.convert_to_numpy, keras.Model(model.input, parts)(pictures(75, 75))
        )
        expected = x + scale * residual
        assert (expected < 0).any()
        np.testing.assert_allclose(
            received, np.maximum(expected, 0) if after else expected, atol=1e-5
        )


@pytest.mark.slow
def test_loads_the_files_of_keras_applications(tmp_path, peer):
    peer.save(tmp_path / "peer.h5")
    arguments = {"weights": tmp_path / "peer.h5", "classifier_activation": None}
    ours = inception_resnet_v2((107, 139, 3), **arguments)
    images = pictures(107, 139)
    assert_close(ours(images, training=False), peer(images / 127.5 - 1, training=False))
    with pytest.raises(ValueError, match=r"layer predictions.*\(1536, 5\).*\(1536, 1000\)"):
        inception_resnet_v2((75, 75, 3), num_classes=5, **arguments)
    with pytest.raises(ValueError, match="layer mixed_6a_branch.*shapes.*received"):
        inception_resnet_v2((75, 75, 3), depths=(9, 20, 10), **arguments)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(75, 75), (None, None)])
def test_loads_the_files_without_the_top(tmp_path, peer, shape):
    sides = [side or 90 for side in shape]
    theirs = keras.applications.InceptionResNetV2(
        include_top=False, weights=None, input_shape=(*sides, 3)
    )
    theirs.set_weights(peer.get_weights()[:-2])
    theirs.save(tmp_path / "notop.h5")
    ours = inception_resnet_v2((*shape, 3), include_top=False, weights=tmp_path / "notop.h5")
    assert ours.count_params() == theirs.count_params() == 54_336_736
    images = pictures(*sides)
    assert_close(ours(images, training=False), theirs(images / 127.5 - 1, training=False))


@pytest.mark.slow
def test_loads_state_dicts_of_timm(tmp_path, peer):
    rng = np.random.default_rng(2)

    def number(layer):
        suffix = layer.name.rsplit("_", 1)[-1]
        return int(suffix) if suffix.isdigit() else 0

    def in_order_of_creation(kind, prefix):
        found = [x for x in peer.layers if type(x) is kind and x.name.startswith(prefix)]
        return sorted(found, key=number)

    convolutions = in_order_of_creation(layers.Conv2D, "conv2d")
    normalizations = in_order_of_creation(layers.BatchNormalization, "batch_normalization")
    convolutions.append(peer.get_layer("conv_7b"))
    normalizations.append(peer.get_layer("conv_7b_bn"))
    names = [*TIMM, "conv2d_7b"]
    assert len(names) == len(convolutions) == len(normalizations) == 204
    original, state_dict = peer.get_weights(), {}
    for name, convolution, normalization in zip(names, convolutions, normalizations):
        kernel = convolution.get_weights()[0]
        beta, mean, variance = normalization.get_weights()
        gamma = rng.uniform(0.7, 1.3, beta.shape).astype("float32")
        state_dict[f"{name}.conv.weight"] = kernel.transpose(3, 2, 0, 1)
        state_dict[f"{name}.bn.weight"] = gamma
        state_dict[f"{name}.bn.bias"] = beta
        state_dict[f"{name}.bn.running_mean"] = mean
        state_dict[f"{name}.bn.running_var"] = variance
        # Without a scale the oracle has it in the kernel.
        convolution.set_weights([kernel * gamma])
        normalization.set_weights([beta, mean * gamma, variance])
    for blocks, module, depth in [
        ("block35", "repeat", 10),
        ("block17", "repeat_1", 20),
        ("block8", "repeat_2", 9),
    ]:
        for i in range(depth):
            kernel, bias = peer.get_layer(f"{blocks}_{i + 1}_conv").get_weights()
            state_dict[f"{module}.{i}.conv2d.weight"] = kernel.transpose(3, 2, 0, 1)
            state_dict[f"{module}.{i}.conv2d.bias"] = bias
    kernel, bias = peer.get_layer("block8_10_conv").get_weights()
    state_dict["block8.conv2d.weight"] = kernel.transpose(3, 2, 0, 1)
    state_dict["block8.conv2d.bias"] = bias
    kernel, bias = peer.get_layer("predictions").get_weights()
    state_dict.update({"classif.weight": kernel.T, "classif.bias": bias})
    np.savez(tmp_path / "timm.npz", **state_dict)

    images = pictures(107, 139)
    expected = peer(images / 127.5 - 1, training=False)
    peer.set_weights(original)
    ours = inception_resnet_v2(
        (107, 139, 3), weights=tmp_path / "timm.npz", classifier_activation=None
    )
    assert ours.count_params() == 55_873_736 + 30_272
    assert_close(ours(images, training=False), expected)


def test_clear_errors(tmp_path):
    with pytest.raises(ValueError, match="at least 75 x 75.*74"):
        inception_resnet_v2((80, 74, 3))
    keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 5)]).save(tmp_path / "other.h5")
    with pytest.raises(ValueError, match=r"layer conv2d_1a_conv.*\(3, 3, 3, 32\).*\(5, 5, 3, 4\)"):
        inception_resnet_v2((75, 75, 3), depths=(1, 1, 1), weights=tmp_path / "other.h5")
    np.savez(tmp_path / "other.npz", a=np.zeros(1))
    with pytest.raises(ValueError, match="expected conv2d_1a.conv.weight for layer conv2d_1a_conv"):
        inception_resnet_v2((75, 75, 3), depths=(1, 1, 1), weights=tmp_path / "other.npz")


@pytest.mark.slow
def test_survives_keras_saved_model_and_litert(tmp_path, in_litert):
    import tensorflow as tf

    model = inception_resnet_v2((75, 75, 3), 5, depths=(1, 1, 2), classifier_activation=None)
    randomize(model, np.random.default_rng(0))
    images = np.random.default_rng(0).uniform(0, 255, (2, 75, 75, 3)).astype("float32")
    expected = keras.tree.map_structure(ops.convert_to_numpy, model(images, training=False))

    def assert_equal(received):
        for a, b in zip(keras.tree.flatten(received), keras.tree.flatten(expected), strict=True):
            np.testing.assert_allclose(ops.convert_to_numpy(a), b, atol=1e-4 * np.abs(b).max())

    model.save(tmp_path / "model.keras")
    assert_equal(keras.models.load_model(tmp_path / "model.keras")(images, training=False))
    model.export(tmp_path / "saved_model", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "saved_model"))
    assert_equal(served.serve(tf.constant(images)))
    assert_equal(in_litert(lambda x: model(x, training=False), images)(images))
