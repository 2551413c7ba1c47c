import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.backbones.resnet import resnet18, resnet34, resnet50, resnet101, resnet152


def trainable(model, biases=True):
    return sum(
        int(np.prod(variable.shape))
        for layer in model.layers
        for variable in layer.trainable_weights
        if biases or variable.name != "bias" or layer.name == "predictions"
    )


def randomize(model, rng):
    """Weights, statistics too, with which maps stay of the size of 1 through 50 layers."""
    for layer in model.layers:
        values = []
        for variable in layer.weights:
            if variable.name in ("gamma", "moving_variance"):
                values.append(rng.uniform(0.4, 0.8, variable.shape))
            elif variable.name == "kernel":
                fan_in = np.prod(variable.shape[:-1])
                values.append(rng.normal(0, fan_in**-0.5, variable.shape))
            else:
                values.append(rng.normal(0, 0.1, variable.shape))
        layer.set_weights(values)


def test_loads_the_files_of_keras_applications(tmp_path):
    rng = np.random.default_rng(0)
    peer = keras.applications.ResNet50(
        weights=None, input_shape=(75, 96, 3), include_top=False, pooling="avg"
    )
    logits = keras.layers.Dense(1000, name="predictions")(peer.output)
    peer = keras.Model(peer.input, [logits, peer.get_layer("conv5_block3_out").output])
    randomize(peer, rng)
    peer.save(tmp_path / "peer.h5")
    images = rng.uniform(0, 255, (2, 75, 96, 3)).astype("float32")
    logits, maps = peer(keras.applications.resnet.preprocess_input(images.copy()))
    assert np.std(logits) > 0.1 and np.std(maps) > 0.1

    ours = resnet50((75, 96, 3), weights=tmp_path / "peer.h5", classifier_activation=None)
    both = keras.Model(ours.input, [ours.output, ours.feature_taps["stride32"]])
    received_logits, received_maps = both(images)
    np.testing.assert_allclose(received_logits, logits, atol=1e-4)
    np.testing.assert_allclose(received_maps, maps, atol=1e-4)
    assert ours.count_params() == 25_636_712
    assert trainable(ours) == 25_583_592
    assert trainable(ours, biases=False) == 25_557_032  # torchvision's


def test_loads_a_file_without_the_classifier(tmp_path):
    # What keras.applications calls include_top=False; of few blocks, to be quick.
    small = {"image_shape": (32, 32, 3), "width": 8, "depths": (1, 1, 1, 1)}
    model = resnet50(**small, include_top=False)
    randomize(model, np.random.default_rng(0))
    model.save(tmp_path / "notop.h5")
    loaded = resnet50(**small, include_top=False, weights=tmp_path / "notop.h5")
    for a, b in zip(model.weights, loaded.weights):
        # The first filters of such files see BGR.
        expected = a.numpy()[:, :, ::-1] if a.path.startswith("conv1_conv/kernel") else a.numpy()
        np.testing.assert_array_equal(b.numpy(), expected)
    with pytest.raises(ValueError, match="notop.h5: .*include_top=False"):
        resnet50(**small, weights=tmp_path / "notop.h5")


@pytest.mark.parametrize(
    "build, torchvision, lecture",
    [(resnet18, 11_689_512, 11.174), (resnet34, 21_797_672, 21.282)],
)
def test_parameters_of_basic_blocks(build, torchvision, lecture):
    model = build((32, 32, 3))
    assert trainable(model) == torchvision
    assert lecture_count(model) == lecture


@pytest.mark.parametrize(
    "build, count, trainable_count, torchvision, lecture",
    [
        (resnet101, 44_707_176, 44_601_832, 44_549_160, 42.513),
        (resnet152, 60_419_944, 60_268_520, 60_192_808, 58.157),
    ],
)
def test_parameters_of_bottlenecks(build, count, trainable_count, torchvision, lecture):
    model = build((32, 32, 3))
    assert model.count_params() == count
    assert trainable(model) == trainable_count
    assert trainable(model, biases=False) == torchvision
    assert lecture_count(model) == lecture


def lecture_count(model):
    """Millions of parameters as the lecture's table has them: 10 classes, a 3x3 stem, no biases."""
    channels = model.get_layer("predictions").kernel.shape[0]
    less = 990 * (channels + 1) + (7 * 7 - 3 * 3) * 3 * 64
    return round((trainable(model, biases=False) - less) / 1e6, 3)


def random_state_dict(rng, bottleneck, depths, width, classes):
    """torchvision's names and shapes, written down without the library."""
    state = {}

    def conv(name, outputs, inputs, size):
        state[f"{name}.weight"] = rng.normal(
            0, (inputs * size**2) ** -0.5, (outputs, inputs, size, size)
        )

    def bn(name, channels):
        for part in ("weight", "running_var"):
            state[f"{name}.{part}"] = rng.uniform(0.5, 1.5, channels)
        for part in ("bias", "running_mean"):
            state[f"{name}.{part}"] = rng.normal(0, 0.1, channels)
        state[f"{name}.num_batches_tracked"] = np.array(7)

    conv("conv1", width, 3, 7)
    bn("bn1", width)
    channels = width
    for stage, depth in enumerate(depths):
        filters = width * 2**stage
        outputs = 4 * filters if bottleneck else filters
        for block in range(depth):
            name = f"layer{stage + 1}.{block}"
            sizes = [(1, filters), (3, filters), (1, outputs)] if bottleneck else [(3, filters)] * 2
            inputs = channels
            for i, (size, out) in enumerate(sizes, start=1):
                conv(f"{name}.conv{i}", out, inputs, size)
                bn(f"{name}.bn{i}", out)
                inputs = out
            if channels != outputs:
                conv(f"{name}.downsample.0", outputs, channels, 1)
                bn(f"{name}.downsample.1", outputs)
            channels = outputs
    state["fc.weight"] = rng.normal(0, 0.1, (classes, channels))
    state["fc.bias"] = rng.normal(0, 0.1, classes)
    return {name: value.astype("float32") for name, value in state.items()}


def torchvision_logits(state, images, bottleneck, depths):
    """torchvision's network, computed from its state dict: every padding is written out."""

    def conv(name, x, stride=1):
        kernel = state[f"{name}.weight"].transpose(2, 3, 1, 0)
        pad = kernel.shape[0] // 2
        x = np.pad(x, [(0, 0), (pad, pad), (pad, pad), (0, 0)])
        return ops.convert_to_numpy(ops.conv(x, kernel, stride, "valid"))

    def bn(name, x):
        scale = state[f"{name}.weight"] / np.sqrt(state[f"{name}.running_var"] + 1e-5)
        return (x - state[f"{name}.running_mean"]) * scale + state[f"{name}.bias"]

    def relu(x):
        return np.maximum(x, 0)

    x = (images / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    x = relu(bn("bn1", conv("conv1", x.astype("float32"), 2)))
    x = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=-np.inf)
    height, width = ((side - 1) // 2 for side in x.shape[1:3])
    x = np.max(
        [x[:, i : i + 2 * height : 2, j : j + 2 * width : 2] for i in range(3) for j in range(3)], 0
    )
    for stage, depth in enumerate(depths):
        for block in range(depth):
            name = f"layer{stage + 1}.{block}"
            stride = 2 if stage > 0 and block == 0 else 1
            if bottleneck:
                y = relu(bn(f"{name}.bn1", conv(f"{name}.conv1", x)))
                y = relu(bn(f"{name}.bn2", conv(f"{name}.conv2", y, stride)))
                y = bn(f"{name}.bn3", conv(f"{name}.conv3", y))
            else:
                y = relu(bn(f"{name}.bn1", conv(f"{name}.conv1", x, stride)))
                y = bn(f"{name}.bn2", conv(f"{name}.conv2", y))
            if f"{name}.downsample.0.weight" in state:
                x = bn(f"{name}.downsample.1", conv(f"{name}.downsample.0", x, stride))
            x = relu(x + y)
    return x.mean((1, 2)) @ state["fc.weight"].T + state["fc.bias"]


@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_loads_state_dicts_of_torchvision(tmp_path, bottleneck, suffix):
    rng = np.random.default_rng(0)
    depths = (1, 2, 1, 1)
    state = random_state_dict(rng, bottleneck, depths, width=4, classes=5)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".npz":
        np.savez(path, **state)
    else:
        import safetensors.numpy

        safetensors.numpy.save_file(state, path)
    build = resnet50 if bottleneck else resnet18
    model = build((43, 64, 3), 5, weights=path, width=4, depths=depths, classifier_activation=None)
    images = rng.uniform(0, 255, (2, 43, 64, 3)).astype("float32")
    expected = torchvision_logits(state, images, bottleneck, depths)
    assert expected.std() > 0.1
    np.testing.assert_allclose(model(images), expected, atol=1e-4)


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize(
    "build, arguments",
    [(resnet18, {}), (resnet50, {"stride_in_1x1": True}), (resnet50, {"stride_in_1x1": False})],
)
def test_dilation_keeps_what_strides_see(build, arguments, output_stride):
    """The à trous network is the one of stride 32 at every pixel that this one keeps."""
    small = {"include_top": False, "width": 4, "depths": (1, 1, 1, 2), **arguments}
    strided = build((35, 64, 3), **small)
    dilated = build((35, 64, 3), **small, output_stride=output_stride)
    randomize(strided, np.random.default_rng(0))
    dilated.set_weights(strided.get_weights())
    images = np.random.default_rng(1).uniform(0, 255, (2, 35, 64, 3)).astype("float32")
    expected = ops.convert_to_numpy(strided(images))
    received = ops.convert_to_numpy(dilated(images))
    assert received.shape[1:3] == (-(-35 // output_stride), 64 // output_stride)
    step = 32 // output_stride
    assert expected.std() > 0.1
    np.testing.assert_allclose(received[:, ::step, ::step], expected, atol=1e-5)
    assert list(dilated.feature_taps)[-1] == f"stride{output_stride}"


def test_strides_are_where_the_argument_says():
    def strides(**arguments):
        model = resnet50((32, 32, 3), width=4, depths=(1, 1, 1, 1), **arguments)
        return [model.get_layer(f"conv3_block1_{i}_conv").strides[0] for i in (0, 1, 2, 3)]

    assert strides() == strides(stride_in_1x1=True) == [2, 2, 1, 1]
    assert strides(stride_in_1x1=False) == [2, 1, 2, 1]


def test_taps_round_odd_sides_up():
    model = resnet50((75, 100, 3), width=4, depths=(1, 1, 1, 1))
    assert {name: tuple(tap.shape[1:]) for name, tap in model.feature_taps.items()} == {
        "stride2": (38, 50, 4),
        "stride4": (19, 25, 16),
        "stride8": (10, 13, 32),
        "stride16": (5, 7, 64),
        "stride32": (3, 4, 128),
    }


def test_clear_errors(tmp_path):
    tiny = {"image_shape": (32, 32, 3), "width": 4, "depths": (1, 1, 1, 1)}
    with pytest.raises(ValueError, match="output_stride must be 8, 16 or 32; received: 4"):
        resnet18(**tiny, output_stride=4)
    with pytest.raises(ValueError, match="stride_in_1x1 must be True or None.*imagenet.*False"):
        resnet50(**tiny, weights="imagenet", stride_in_1x1=False)
    with pytest.raises(ValueError, match="use_bias must be False or None.*a.npz.*True"):
        resnet50(**tiny, weights=tmp_path / "a.npz", use_bias=True)
    with pytest.raises(ValueError, match="resnet50, resnet101 and resnet152; .*resnet34"):
        resnet34(**tiny, weights="imagenet")
    with pytest.raises(ValueError, match="1000 classes.*num_classes=3"):
        resnet50(**tiny, num_classes=3, weights="imagenet")
    with pytest.raises(ValueError, match="at least 32 x 32.*31"):
        resnet18((31, 32, 3))
    resnet18(**{**tiny, "width": 6}, num_classes=3).save(tmp_path / "wide.h5")
    shapes = r"\[\(7, 7, 3, 4\)\]; received: \[\(7, 7, 3, 6\)\]"
    with pytest.raises(ValueError, match=f"wide.h5: layer conv1_conv of resnet18 .*{shapes}"):
        resnet18(**tiny, num_classes=3, weights=tmp_path / "wide.h5")
    with pytest.raises(ValueError, match="wide.h5: layer conv1_conv of resnet50"):
        resnet50(**tiny, weights=tmp_path / "wide.h5")
