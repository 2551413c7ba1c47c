import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.backbones.densenet import (
    cifar_densenet,
    densenet121,
    densenet169,
    densenet201,
)


def trainable(model):
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_weights)


def randomize(model, rng):
    """Weights, statistics too, with which maps stay of the size of 1 through all layers."""
    for layer in model.layers:
        values = []
        for variable in layer.weights:
            if variable.name in ("gamma", "moving_variance"):
                values.append(rng.uniform(0.5, 1.0, variable.shape))
            elif variable.name == "kernel":
                fan_in = np.prod(variable.shape[:-1])
                values.append(rng.normal(0, fan_in**-0.5, variable.shape))
            else:
                values.append(rng.normal(0, 0.1, variable.shape))
        layer.set_weights(values)


@pytest.mark.slow
def test_loads_the_files_of_keras_applications(tmp_path):
    rng = np.random.default_rng(0)
    peer = keras.applications.DenseNet121(
        weights=None, input_shape=(75, 96, 3), include_top=False, pooling="avg"
    )
    logits = keras.layers.Dense(1000, name="predictions")(peer.output)
    peer = keras.Model(peer.input, [logits, peer.get_layer("relu").output])
    randomize(peer, rng)
    peer.save(tmp_path / "peer.h5")
    images = rng.uniform(0, 255, (2, 75, 96, 3)).astype("float32")
    logits, maps = peer(keras.applications.densenet.preprocess_input(images.copy()))
    assert np.std(logits) > 0.1 and np.std(maps) > 0.1

    ours = densenet121((75, 96, 3), weights=tmp_path / "peer.h5", classifier_activation=None)
    both = keras.Model(ours.input, [ours.output, ours.feature_taps["stride32"]])
    received_logits, received_maps = both(images)
    np.testing.assert_allclose(received_logits, logits, atol=1e-4)
    np.testing.assert_allclose(received_maps, maps, atol=1e-4)
    assert ours.count_params() == peer.count_params() == 8_062_504
    assert trainable(ours) == 7_978_856
    assert {name: tuple(tap.shape[1:]) for name, tap in ours.feature_taps.items()} == {
        "stride2": (38, 48, 64),
        "stride4": (19, 24, 256),
        "stride8": (9, 12, 512),
        "stride16": (4, 6, 1024),
        "stride32": (2, 3, 1024),
    }


def test_loads_a_file_without_the_classifier(tmp_path):
    small = {"image_shape": (32, 32, 3), "growth_rate": 4, "depths": (1, 1, 1, 1)}
    model = densenet121(**small, include_top=False)
    randomize(model, np.random.default_rng(0))
    model.save(tmp_path / "notop.h5")
    loaded = densenet121(**small, include_top=False, weights=tmp_path / "notop.h5")
    for a, b in zip(model.get_weights(), loaded.get_weights()):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="notop.h5: .*include_top=False"):
        densenet121(**small, weights=tmp_path / "notop.h5")


@pytest.mark.parametrize(
    "build, count, trainable_count",
    [(densenet169, 14_307_880, 14_149_480), (densenet201, 20_242_984, 20_013_928)],
)
def test_parameters_are_those_of_keras_applications(build, count, trainable_count):
    model = build((32, 32, 3))
    assert model.count_params() == count
    assert trainable(model) == trainable_count


def random_state_dict(rng, growth_rate, depths, classes):
    """torchvision's names and shapes, written down without the library."""
    state = {}

    def conv(name, outputs, inputs, size):
        shape = (outputs, inputs, size, size)
        state[f"{name}.weight"] = rng.normal(0, (inputs * size**2) ** -0.5, shape)

    def norm(name, channels):
        for part in ("weight", "running_var"):
            state[f"{name}.{part}"] = rng.uniform(0.5, 1.5, channels)
        for part in ("bias", "running_mean"):
            state[f"{name}.{part}"] = rng.normal(0, 0.1, channels)

    channels = 2 * growth_rate
    conv("features.conv0", channels, 3, 7)
    norm("features.norm0", channels)
    for block, depth in enumerate(depths, start=1):
        for layer in range(1, depth + 1):
            name = f"features.denseblock{block}.denselayer{layer}"
            norm(f"{name}.norm1", channels)
            conv(f"{name}.conv1", 4 * growth_rate, channels, 1)
            norm(f"{name}.norm2", 4 * growth_rate)
            conv(f"{name}.conv2", growth_rate, 4 * growth_rate, 3)
            channels += growth_rate
        if block < len(depths):
            norm(f"features.transition{block}.norm", channels)
            conv(f"features.transition{block}.conv", channels // 2, channels, 1)
            channels //= 2
    norm("features.norm5", channels)
    state["classifier.weight"] = rng.normal(0, 0.1, (classes, channels))
    state["classifier.bias"] = rng.normal(0, 0.1, classes)
    return {name: value.astype("float32") for name, value in state.items()}


def torchvision_logits(state, images, depths):
    """torchvision's network, computed from its state dict."""

    def conv(name, x, stride=1):
        kernel = state[f"{name}.weight"].transpose(2, 3, 1, 0)
        pad = kernel.shape[0] // 2
        x = np.pad(x, [(0, 0), (pad, pad), (pad, pad), (0, 0)])
        return ops.convert_to_numpy(ops.conv(x, kernel, stride, "valid"))

    def norm_relu(name, x):
        scale = state[f"{name}.weight"] / np.sqrt(state[f"{name}.running_var"] + 1e-5)
        return np.maximum((x - state[f"{name}.running_mean"]) * scale + state[f"{name}.bias"], 0)

    x = (images / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    x = norm_relu("features.norm0", conv("features.conv0", x.astype("float32"), 2))
    x = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    height, width = ((side - 1) // 2 for side in x.shape[1:3])
    x = np.max(
        [x[:, i : i + 2 * height : 2, j : j + 2 * width : 2] for i in range(3) for j in range(3)], 0
    )
    for block, depth in enumerate(depths, start=1):
        for layer in range(1, depth + 1):
            name = f"features.denseblock{block}.denselayer{layer}"
            new = conv(f"{name}.conv1", norm_relu(f"{name}.norm1", x))
            new = conv(f"{name}.conv2", norm_relu(f"{name}.norm2", new))
            x = np.concatenate([x, new], axis=-1)
        if block < len(depths):
            x = conv(
                f"features.transition{block}.conv",
                norm_relu(f"features.transition{block}.norm", x),
            )
            height, width = (side // 2 for side in x.shape[1:3])
            x = x[:, : 2 * height, : 2 * width]
            x = x.reshape(len(x), height, 2, width, 2, -1).mean((2, 4))
    x = norm_relu("features.norm5", x)
    return x.mean((1, 2)) @ state["classifier.weight"].T + state["classifier.bias"]


def test_loads_state_dicts_of_torchvision(tmp_path):
    rng = np.random.default_rng(0)
    depths = (1, 2, 1, 1)
    state = random_state_dict(rng, growth_rate=4, depths=depths, classes=5)
    np.savez(tmp_path / "weights.npz", **state)
    model = densenet121(
        (43, 64, 3),
        5,
        weights=tmp_path / "weights.npz",
        growth_rate=4,
        depths=depths,
        classifier_activation=None,
    )
    images = rng.uniform(0, 255, (2, 43, 64, 3)).astype("float32")
    expected = torchvision_logits(state, images, depths)
    assert expected.std() > 0.1
    np.testing.assert_allclose(model(images), expected, atol=1e-4)


def counted(depth, growth_rate, bottleneck, compression, classes=10):
    """Trainable parameters of a DenseNet for CIFAR, added up as in the paper's section 3."""
    channels = 2 * growth_rate if bottleneck else 16
    total = 3 * 3 * 3 * channels
    for block in range(3):
        for _ in range((depth - 4) // (6 if bottleneck else 3)):
            inner = channels
            if bottleneck:
                inner = 4 * growth_rate
                total += 2 * channels + channels * inner
            total += 2 * inner + 9 * inner * growth_rate
            channels += growth_rate
        total += 2 * channels
        if block < 2:
            total += channels * int(channels * compression)
            channels = int(channels * compression)
    return total + (channels + 1) * classes


def test_parameters_of_cifar_densenets():
    assert trainable(cifar_densenet()) == counted(40, 12, False, 1.0) == 1_019_722
    bc = cifar_densenet(depth=100, bottleneck=True, compression=0.5)
    assert trainable(bc) == counted(100, 12, True, 0.5) == 769_162
    assert counted(250, 24, True, 0.5) == 15_324_406
    assert counted(190, 40, True, 0.5) == 25_624_430


def test_taps_of_cifar_densenet():
    model = cifar_densenet((19, 32, 3), depth=10, growth_rate=4, include_top=False)
    assert {name: tuple(tap.shape[1:]) for name, tap in model.feature_taps.items()} == {
        "stride1": (19, 32, 24),
        "stride2": (9, 16, 32),
        "stride4": (4, 8, 40),
    }


def test_dropout_follows_all_convolutions_but_the_first():
    def dropouts(**arguments):
        model = cifar_densenet(depth=16, growth_rate=4, **arguments)
        chosen = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
        return [layer.rate for layer in chosen]

    assert dropouts() == []
    # 12 in the blocks and 2 in the transitions; with bottlenecks as many.
    assert dropouts(dropout_rate=0.2) == [0.2] * 14
    assert dropouts(dropout_rate=0.2, bottleneck=True) == [0.2] * 14


def test_clear_errors(tmp_path):
    with pytest.raises(ValueError, match=r"depth must be 3n \+ 4 .*received: 41"):
        cifar_densenet(depth=41)
    with pytest.raises(ValueError, match=r"depth must be 6n \+ 4 .*received: 43"):
        cifar_densenet(depth=43, bottleneck=True)
    with pytest.raises(ValueError, match="compression must be .*received: 1.5"):
        cifar_densenet(compression=1.5)
    with pytest.raises(ValueError, match="at least 29 x 29.*28"):
        densenet121((28, 32, 3))
    tiny = {"growth_rate": 4, "depths": (1, 1, 1, 1)}
    densenet121((29, 29, 3), **tiny)  # one cell is left
    with pytest.raises(ValueError, match="1000 classes.*num_classes=3"):
        densenet121((32, 32, 3), 3, weights="imagenet", **tiny)
    cifar_densenet(depth=10, growth_rate=6).save(tmp_path / "wide.h5")
    with pytest.raises(ValueError, match="wide.h5: layer conv1_conv of densenet121 .*received"):
        densenet121((32, 32, 3), weights=tmp_path / "wide.h5", **tiny)
    shapes = r"\[\(3, 3, 16, 4\)\]; received: \[\(3, 3, 16, 6\)\]"
    with pytest.raises(ValueError, match=f"layer conv2_block1_1_conv of cifar_dense.*{shapes}"):
        cifar_densenet(depth=10, growth_rate=4, weights=tmp_path / "wide.h5")
