"""Darknet's networks, and its files against a slow reading of them in NumPy."""

import keras
import numpy as np
import pytest

from kerasvision.backbones.darknet import convolution, darknet19, darknet53, darknet_tiny
from kerasvision.backbones.darknet_weights import load_darknet_weights, read_darknet_cfg
from kerasvision.detection.yolo_v2 import DarknetReorg, yolo_v2_darknet19
from kerasvision.detection.yolo_v3 import yolo_v3_darknet53, yolo_v3_tiny

# --- Darknet, slowly ---------------------------------------------------------------------


def conv(filters, size=3, stride=1, batch_normalize=1, activation="leaky"):
    return (
        f"[convolutional]\nbatch_normalize={batch_normalize}\nfilters={filters}\nsize={size}\n"
        f"stride={stride}\npad=1\nactivation={activation}\n"
    )


def last(filters, activation="linear"):
    return conv(filters, 1, 1, 0, activation)


def pool(stride=2):
    return f"[maxpool]\nsize=2\nstride={stride}\n"


def cfg(*sections, side=64):
    return "\n".join([f"[net]\n# Testing\nwidth={side}\nheight={side}\nchannels=3\n", *sections])


def tiny_trunk(last_pool):
    sections = []
    for filters in (16, 32, 64, 128, 256):
        sections += [conv(filters), pool()]
    return [*sections, conv(512), pool(last_pool), conv(1024)]


def darknet53_trunk():
    sections = [conv(32)]
    for filters, blocks in [(64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)]:
        sections.append(conv(filters, 3, 2))
        for _ in range(blocks):
            sections += [conv(filters // 2, 1), conv(filters), "[shortcut]\nfrom=-3\n"]
    return sections


def darknet19_trunk():
    stages = [[32], [64], [128, 64, 128], [256, 128, 256]]
    stages += [[512, 256, 512, 256, 512], [1024, 512, 1024, 512, 1024]]
    sections = []
    for i, stage in enumerate(stages):
        sections += [pool()] if i else []
        sections += [conv(filters, 1 if j % 2 else 3) for j, filters in enumerate(stage)]
    return sections


def yolo(mask, anchors, classes):
    return f"[yolo]\nmask = {mask}\nanchors = {anchors}\nclasses={classes}\nnum=9\n"


TINY_ANCHORS = "10,14,  23,27,  37,58,  81,82,  135,169,  344,319"
ANCHORS = "10,13,  16,30,  33,23,  30,61,  62,45,  59,119,  116,90,  156,198,  373,326"
CFGS = {
    "darknet19": cfg(*darknet19_trunk(), last(7), "[avgpool]\n", "[softmax]\n"),
    "darknet53": cfg(*darknet53_trunk(), "[avgpool]\n", last(7), "[softmax]\ngroups=1\n"),
    "darknet_tiny": cfg(*tiny_trunk(2), last(7, "leaky"), "[avgpool]\n", "[softmax]\n"),
    "yolo_v2": cfg(
        *darknet19_trunk(), conv(1024), conv(1024), "[route]\nlayers=-9\n", conv(64, 1),
        "[reorg]\nstride=2\n", "[route]\nlayers=-1,-4\n", conv(1024), last(14),
        "[region]\nanchors = 1.3221, 1.73145, 3.19275, 4.00944\nclasses=2\nnum=2\n",
    ),
    "yolo_v3_tiny": cfg(
        *tiny_trunk(1), conv(256, 1), conv(512), last(21), yolo("3,4,5", TINY_ANCHORS, 2),
        "[route]\nlayers = -4\n", conv(128, 1), "[upsample]\nstride=2\n",
        "[route]\nlayers = -1, 8\n", conv(256), last(21), yolo("0,1,2", TINY_ANCHORS, 2),
    ),
    "yolo_v3": cfg(
        *darknet53_trunk(), *[conv(512, 1), conv(1024)] * 3, last(255), yolo("6,7,8", ANCHORS, 80),
        "[route]\nlayers = -4\n", conv(256, 1), "[upsample]\nstride=2\n",
        "[route]\nlayers = -1, 61\n", *[conv(256, 1), conv(512)] * 3, last(255),
        yolo("3,4,5", ANCHORS, 80), "[route]\nlayers = -4\n", conv(128, 1),
        "[upsample]\nstride=2\n", "[route]\nlayers = -1, 36\n", *[conv(128, 1), conv(256)] * 3,
        last(255), yolo("0,1,2", ANCHORS, 80), side=416,
    ),
}  # fmt: skip


def sections_of(text):
    sections = []
    for line in text.splitlines():
        if line.startswith("["):
            sections.append((line.strip("[]"), {}))
        elif "=" in line:
            name, value = line.split("=")
            sections[-1][1][name.strip()] = value.strip()
    return sections[1:]


def convolve(x, kernel, stride):
    """x (C, H, W), kernel (O, C, S, S); zeros around."""
    size = kernel.shape[-1]
    height, width = ((side - 1) // stride + 1 for side in x.shape[1:])
    x = np.pad(x, [(0, 0), (size // 2,) * 2, (size // 2,) * 2])
    total = np.zeros((len(kernel), height, width), "float32")
    for i in range(size):
        for j in range(size):
            patch = x[:, i : i + (height - 1) * stride + 1 : stride]
            patch = patch[:, :, j : j + (width - 1) * stride + 1 : stride]
            total += np.tensordot(kernel[:, :, i, j], patch, 1)
    return total


def max_pool(x, stride):
    """Of two by two pixels, nothing beyond the border."""
    _, height, width = x.shape
    rows, columns = -(-height // stride), -(-width // stride)
    out = np.empty((len(x), rows, columns), "float32")
    for i in range(rows):
        for j in range(columns):
            block = x[:, i * stride : i * stride + 2, j * stride : j * stride + 2]
            out[:, i, j] = block.max(axis=(1, 2))
    return out


def reorg(x):
    """The loops of the authors' reorg, whose maps have the wrong shape."""
    channels, height, width = x.shape
    flat, out = x.reshape(-1), np.empty(x.size, "float32")
    for k in range(channels):
        offset, c2 = divmod(k, channels // 4)
        for j in range(height):
            for i in range(width):
                w2, h2 = 2 * i + offset % 2, 2 * j + offset // 2
                out[i + width * (j + height * k)] = flat[w2 + 2 * width * (h2 + 2 * height * c2)]
    return out.reshape(4 * channels, height // 2, width // 2)


def draw_weights(text, rng, version=(0, 2, 0)):
    """Random weights of a network: the bytes of a file, and a list of dicts of arrays."""
    drawn, shapes, channels = [], [], 3
    content = [np.array(version, "<i4").tobytes()]
    content.append(np.array(32013, "<i8" if version[1] >= 2 else "<i4").tobytes())
    for kind, options in sections_of(text):
        if kind == "route":
            rows = [int(i) for i in options["layers"].split(",")]
            channels = sum(shapes[i if i >= 0 else len(shapes) + i] for i in rows)
        if kind == "reorg":
            channels *= 4
        if kind == "convolutional":
            filters, size = int(options["filters"]), int(options["size"])
            arrays = {"biases": rng.normal(0, 0.3, filters)}
            if options["batch_normalize"] == "1":
                arrays["scales"] = rng.uniform(0.5, 1.2, filters)
                arrays["mean"] = rng.normal(0, 0.3, filters)
                arrays["variance"] = rng.uniform(0.5, 1.5, filters)
            scale = np.float32((channels * size**2) ** -0.5)
            shape = (filters, channels, size, size)
            arrays["kernel"] = scale * rng.standard_normal(shape, "float32")
            drawn.append({name: array.astype("float32") for name, array in arrays.items()})
            content += [array.tobytes() for array in drawn[-1].values()]
            channels = filters
        shapes.append(channels)
    return b"".join(content), drawn


def run_darknet(text, weights, image):
    """All outputs of a network for one image (H, W, 3)."""
    outputs, weights = [], iter(weights)
    x = image.transpose(2, 0, 1).astype("float32") / 255
    for kind, options in sections_of(text):
        if kind == "convolutional":
            arrays = next(weights)
            x = convolve(x, arrays["kernel"], int(options["stride"]))
            if options["batch_normalize"] == "1":
                mean, variance, scale = (
                    arrays[name][:, None, None] for name in ("mean", "variance", "scales")
                )
                x = (x - mean) / np.sqrt(variance + 1e-5) * scale
            x = x + arrays["biases"][:, None, None]
            x = np.where(x > 0, x, 0.1 * x) if options["activation"] == "leaky" else x
        elif kind == "maxpool":
            x = max_pool(x, int(options["stride"]))
        elif kind == "avgpool":
            x = x.mean(axis=(1, 2), keepdims=True)
        elif kind == "softmax":
            x = np.exp(x) / np.exp(x).sum()
        elif kind == "shortcut":
            x = x + outputs[int(options["from"])]
        elif kind == "upsample":
            x = x.repeat(2, axis=1).repeat(2, axis=2)
        elif kind == "reorg":
            x = reorg(x)
        elif kind == "route":
            x = np.concatenate([outputs[int(i)] for i in options["layers"].split(",")])
        outputs.append(x)
    return outputs


@pytest.fixture
def files(tmp_path):
    """Makes the .weights and .cfg of a network, and says what Darknet gives for an image."""

    def make(name, seed=0, version=(0, 2, 0)):
        content, weights = draw_weights(CFGS[name], np.random.default_rng(seed), version)
        (tmp_path / f"{name}.weights").write_bytes(content)
        (tmp_path / f"{name}.cfg").write_text(CFGS[name])
        return (
            tmp_path / f"{name}.weights",
            tmp_path / f"{name}.cfg",
            lambda image: run_darknet(CFGS[name], weights, image),
        )

    return make


def noise(height=64, width=96):
    return np.random.default_rng(1).uniform(0, 255, (1, height, width, 3)).astype("float32")


def assert_close(received, expected):
    """To within float32's rounding, of maps as large as they come."""
    received, expected = np.asarray(received), np.asarray(expected)
    assert np.std(expected) > 0
    np.testing.assert_allclose(received, expected, atol=2e-4 * np.abs(expected).max())


# --- Networks ----------------------------------------------------------------------------


def trainable(model):
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


@pytest.mark.parametrize("name, build", [("darknet19", darknet19), ("darknet_tiny", darknet_tiny)])
def test_classifier_equals_darknet(name, build, files):
    weights, config, darknet = files(name)
    model = build((64, 96, 3), 7, weights=weights, classifier_activation=None)
    read_darknet_cfg(config).check(model)
    assert_close(model(noise())[0], darknet(noise()[0])[-2].reshape(7))


def test_darknet53_equals_darknet(files):
    weights, config, darknet = files("darknet53")
    model = darknet53((32, 64, 3), 7, weights=weights, classifier_activation=None)
    read_darknet_cfg(config).check(model)
    outputs = darknet(noise(32, 64)[0])
    taps = keras.Model(model.input, [model.output, *model.feature_taps.values()])
    received, *maps = taps(noise(32, 64))
    assert_close(received[0], outputs[-2].reshape(7))
    # The last shortcuts in front of the next stride.
    for x, index in zip(maps, [4, 11, 36, 61, 74]):
        assert_close(x[0], outputs[index].transpose(1, 2, 0))


def test_a_trunk_takes_the_first_layers_of_a_whole_network(files):
    weights, _, darknet = files("darknet_tiny")
    trunk = darknet_tiny((64, 96, 3), include_top=False, weights=weights)
    assert list(trunk.feature_taps) == ["stride2", "stride4", "stride8", "stride16", "stride32"]
    assert_close(
        keras.Model(trunk.input, trunk.feature_taps["stride16"])(noise())[0],
        darknet(noise()[0])[8].transpose(1, 2, 0),
    )
    assert trunk.output.shape == (None, 2, 3, 1024)


def test_parameters_are_the_authors():
    assert trainable(darknet19((32, 32, 3))) == 20_842_376
    whole, trunk = darknet_tiny((32, 32, 3)), darknet_tiny((32, 32, 3), include_top=False)
    assert (trainable(whole), trainable(trunk)) == (7_319_416, 6_294_416)
    whole = darknet53((None, None, 3))
    assert (trainable(whole), whole.count_params()) == (41_609_928, 41_645_640)
    assert whole.get_layer("predictions").count_params() == 1_025_000
    # darknet53.conv.74, the trunk's file, has 162,482,580 bytes.
    assert 20 + 4 * (whole.count_params() - 1_025_000) == 162_482_580


def test_network_survives_its_own_file(tmp_path):
    model = darknet_tiny((32, 32, 3), num_classes=3)
    model.save(tmp_path / "own.h5")
    copy = darknet_tiny((32, 32, 3), num_classes=3, weights=tmp_path / "own.h5")
    np.testing.assert_array_equal(copy(noise(32, 32)), model(noise(32, 32)))
    with pytest.raises(ValueError, match="at least 32 x 32"):
        darknet_tiny((16, 32, 3))


# --- Detectors ---------------------------------------------------------------------------


def test_yolo_v3_tiny_equals_darknet(files):
    weights, path, darknet = files("yolo_v3_tiny", version=(0, 1, 0))
    config = read_darknet_cfg(path)
    model = yolo_v3_tiny(config.num_classes, (64, 96, 3), priors=config.priors)
    load_darknet_weights(model.network, weights, config)
    outputs = darknet(noise()[0])
    raw = model(noise())
    assert_close(raw["stride32"][0], outputs[15].transpose(1, 2, 0))
    assert_close(raw["stride16"][0], outputs[22].transpose(1, 2, 0))


@pytest.mark.slow
def test_yolo_v2_equals_darknet(files):
    weights, path, darknet = files("yolo_v2", version=(0, 1, 0))
    config = read_darknet_cfg(path)
    (priors,) = config.priors
    model = yolo_v2_darknet19(2, (64, 96, 3), priors=priors, passthrough="darknet")
    load_darknet_weights(model.network, weights, config)
    outputs = darknet(noise(64, 96)[0])
    assert_close(model(noise(64, 96))["stride32"][0], outputs[-2].transpose(1, 2, 0))
    # With what the layer was meant to do it is another network.
    model = yolo_v2_darknet19(2, (64, 96, 3), priors=priors)
    load_darknet_weights(model.network, weights, config)
    difference = model(noise(64, 96))["stride32"][0] - outputs[-2].transpose(1, 2, 0)
    assert np.abs(difference).max() > 1e-2 * np.abs(outputs[-2]).max()


def test_reorg_equals_reference():
    x = np.random.default_rng(0).normal(size=(2, 6, 10, 8)).astype("float32")
    received = np.asarray(DarknetReorg()(x))
    for b in range(2):
        expected = reorg(x[b].transpose(2, 0, 1)).transpose(1, 2, 0)
        np.testing.assert_array_equal(received[b], expected)
    with pytest.raises(ValueError, match=r"even height and width .*\(2, 5, 10, 8\)"):
        DarknetReorg()(x[:, :5])


def test_yolo_v3_is_the_authors(tmp_path):
    model = yolo_v3_darknet53(80, (64, 64, 3))
    assert trainable(model) == 61_949_149
    # yolov3.weights has 248,007,048 bytes.
    assert 20 + 4 * model.count_params() == 248_007_048
    (tmp_path / "yolov3.cfg").write_text(CFGS["yolo_v3"])
    config = read_darknet_cfg(tmp_path / "yolov3.cfg")
    config.check(model.network)
    assert config.image_shape == (416, 416, 3) and config.num_classes == 80
    assert [[tuple(size) for size in sizes] for sizes in config.priors] == model.priors


# --- Files -------------------------------------------------------------------------------


def small(filters=4):
    images = keras.Input((32, 32, 3), name="images")
    x = convolution(images, filters, 3, "conv0")
    x = convolution(x, 6, 1, "head_conv0", stride=2)
    x = keras.layers.Conv2D(5, 1, name="head_conv1")(x)
    return keras.Model(images, x, name="small")


SMALL = cfg(conv(4), conv(6, 1, 2), last(5))
SIZE = (3 * 9 + 4) * 4 + (4 + 4) * 6 + (6 + 1) * 5


@pytest.fixture
def small_files(tmp_path):
    content, weights = draw_weights(SMALL, np.random.default_rng(0))
    (tmp_path / "small.weights").write_bytes(content)
    (tmp_path / "small.cfg").write_text(SMALL)
    return tmp_path / "small.weights", tmp_path / "small.cfg", weights


def test_weights_go_where_they_belong(small_files):
    path, config, weights = small_files
    model = small()
    load_darknet_weights(model, path, read_darknet_cfg(config))
    for name, arrays in zip(["conv0", "head_conv0", "head_conv1"], weights):
        kernel = model.get_layer(name).kernel.numpy()
        for o, i, y, x in np.ndindex(arrays["kernel"].shape):
            assert kernel[y, x, i, o] == arrays["kernel"][o, i, y, x]
    norm = model.get_layer("conv0_bn")
    for variable, part in zip(norm.weights, ["scales", "biases", "mean", "variance"]):
        np.testing.assert_array_equal(variable.numpy(), weights[0][part])
    np.testing.assert_array_equal(model.get_layer("head_conv1").bias, weights[2]["biases"])


@pytest.mark.parametrize(
    "spoil, message",
    [
        (
            lambda content: content[:-4],
            f"too short for small, which has {SIZE} values, 35 of them from {SIZE - 35} on in "
            f"layer head_conv1; received: {SIZE - 1}$",
        ),
        (
            lambda content: content[:100],
            f"too short for small, which has {SIZE} values, 124 of them from 0 on in layer conv0; "
            "received: 20$",
        ),
        (
            lambda content: content + bytes(8),
            f"too long for small, which has {SIZE} values, the last of them in layer head_conv1; "
            f"received: {SIZE + 2}$",
        ),
        (
            # Everything one place further.
            lambda content: content[:20] + content[24:] + bytes(4),
            "of another network than small: moving_variance of layer conv0 must be finite and not "
            "negative; received: -0",
        ),
        (
            lambda content: content[:24] + b"\xff\xff\xff\x7f" + content[28:],
            "of another network than small: beta of layer conv0 must be finite; received: nan",
        ),
        (lambda content: content + b"x", f"header of 20 bytes.*received: {4 * SIZE + 21} bytes"),
        (lambda content: content[:10], "header of 20 bytes.*received: 10 bytes"),
    ],
)
def test_wrong_weight_files_are_refused(spoil, message, small_files):
    path, _, _ = small_files
    path.write_bytes(spoil(path.read_bytes()))
    model = small()
    before = model.get_weights()
    with pytest.raises(ValueError, match=f"small.weights: .*{message}") as error:
        load_darknet_weights(model, path)
    assert "\n" not in str(error.value)
    for a, b in zip(model.get_weights(), before):
        np.testing.assert_array_equal(a, b)


def test_files_that_are_not_there_and_networks_of_others(tmp_path, small_files):
    with pytest.raises(ValueError, match="none.weights: not a readable weight file"):
        load_darknet_weights(small(), tmp_path / "none.weights")
    with pytest.raises(ValueError, match="none.cfg: not a readable .cfg file"):
        read_darknet_cfg(tmp_path / "none.cfg")
    other = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3, name="fc")], name="other")
    with pytest.raises(ValueError, match="conv0, conv1, …; received: other with layer fc"):
        load_darknet_weights(other, small_files[0])


@pytest.mark.parametrize(
    "text, message",
    [
        (
            cfg(conv(8), conv(6, 1, 2), last(5)),
            "line 7: filters of this .convolutional. must be 4, as of layer conv0 of small; "
            "received: 8",
        ),
        (cfg(conv(4, 1), conv(6, 1, 2), last(5)), "line 7: size .* must be 3.*received: 1"),
        (cfg(conv(4), conv(6, 1, 1), last(5)), "line 15: stride .* must be 2.*received: 1"),
        (
            cfg(conv(4), conv(6, 1, 2), conv(5, 1)),
            "line 23: batch_normalize .* must be 0.*head_conv1.*received: 1",
        ),
        (
            cfg(conv(4), conv(6, 1, 2, 1, "relu"), last(5)),
            "line 15: activation .* must be leaky.*received: relu",
        ),
        (cfg(conv(4), conv(6, 1, 2)), r"small has 3 sections \[convolutional\]; received: 2"),
        (
            cfg(conv(4), pool(), conv(6, 1, 2), last(5)),
            r"small has 0 sections \[maxpool\]; received: 1",
        ),
        (cfg("[connected]\noutput=7\n"), r"line 7: .*must be \[convolutional\].*\[connected\]"),
        (cfg("[maxpool]\nsize 2\n"), r"line 8: must be \[section\] or option=value.*size 2"),
        (cfg("[convolutional]\nfilters=x\n"), "line 7: filters .* must be a number; received: x"),
        (cfg(yolo("0,3", "1,2, 3,4", 2)), "line 7: mask must number the 2 anchors.*received: 0,3"),
        (cfg(yolo("0", "1,2, 3,y", 2)), "line 7: anchors .* must be a number; received: y"),
        (cfg("[yolo]\nanchors=1,2\n"), "line 7: classes .* number; received: nothing"),
        ("[maxpool]\n", r"must begin with the section \[net\]; received: \[maxpool\]"),
        ("", r"must begin with the section \[net\]; received: \[\]"),
    ],
)
def test_wrong_configurations_are_refused(text, message, small_files):
    weights, path, _ = small_files
    path.write_text(text)
    with pytest.raises(ValueError, match=f"small.cfg: {message}") as error:
        load_darknet_weights(small(), weights, read_darknet_cfg(path))
    assert "\n" not in str(error.value)


def test_priors_of_a_region_count_cells(tmp_path):
    (tmp_path / "v2.cfg").write_text(cfg("[region]\nanchors = 1.5,2, 3,4.25\nclasses=20\n"))
    config = read_darknet_cfg(tmp_path / "v2.cfg")
    assert config.priors == (((64, 48), (136, 96)),)
    assert config.num_classes == 20
