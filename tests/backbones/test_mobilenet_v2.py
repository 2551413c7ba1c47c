import keras
import numpy as np
import pytest
import safetensors.numpy

from kerasvision import data
from kerasvision.backbones.mobilenet_v2 import BOTTLENECKS, mobilenet_v2, round_channels
from kerasvision.classification import Classifier
from kerasvision.classification.evaluation import classification_metrics, classify_batches
from kerasvision.data.classification import ClassificationDataset


def randomize(model, rng):
    """Weights that keep the maps' scale over 52 layers, and statistics of all channels."""
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(
                [
                    rng.uniform(0.5, 1.5, w.shape)
                    if w.name in ("gamma", "moving_variance")
                    else rng.normal(0, 0.1, w.shape)
                    for w in layer.weights
                ]
            )


# --- Files of keras.applications ---------------------------------------------------------------


# Odd sides pad otherwise.
@pytest.mark.parametrize(
    "width, size",
    [
        (0.35, 75),
        pytest.param(1.0, 96, marks=pytest.mark.slow),
        pytest.param(1.4, 75, marks=pytest.mark.slow),
    ],
)
def test_loads_the_files_of_keras_applications(tmp_path, width, size):
    rng = np.random.default_rng(0)
    peer = keras.applications.MobileNetV2(
        (size, size, 3), alpha=width, include_top=False, weights=None
    )
    randomize(peer, rng)
    peer.save(tmp_path / "peer.h5")
    ours = mobilenet_v2(
        (size, size, 3),
        include_top=False,
        weights=tmp_path / "peer.h5",
        width_multiplier=width,
    )
    assert ours.count_params() == peer.count_params()
    images = rng.uniform(0, 255, (2, size, size, 3)).astype("float32")
    expected = peer.predict(images / 127.5 - 1, verbose=0)
    assert expected.max() > 0.1
    np.testing.assert_allclose(ours.predict(images, verbose=0), expected, atol=1e-4)


@pytest.mark.slow
def test_loads_the_classifier_of_keras_applications(tmp_path):
    rng = np.random.default_rng(1)
    peer = keras.applications.MobileNetV2((64, 96, 3), alpha=0.35, weights=None, classes=11)
    randomize(peer, rng)
    peer.save(tmp_path / "peer.h5")
    ours = mobilenet_v2((64, 96, 3), 11, weights=tmp_path / "peer.h5", width_multiplier=0.35)
    images = rng.uniform(0, 255, (2, 64, 96, 3)).astype("float32")
    expected = peer.predict(images / 127.5 - 1, verbose=0)
    assert np.ptp(expected, axis=-1).min() > 0.01
    np.testing.assert_allclose(ours.predict(images, verbose=0), expected, atol=1e-4)
    # The same file in a network without the classifier, of pictures of any size.
    headless = mobilenet_v2(
        (None, None, 3), include_top=False, weights=tmp_path / "peer.h5", width_multiplier=0.35
    )
    maps = keras.Model(peer.input, peer.get_layer("out_relu").output)
    np.testing.assert_allclose(
        headless.predict(images, verbose=0), maps.predict(images / 127.5 - 1, verbose=0), atol=1e-4
    )


def test_names_of_the_published_files(monkeypatch):
    names = []

    def get_file(name, url, cache_subdir):
        names.append(name)
        return "missing.h5"

    monkeypatch.setattr(keras.utils, "get_file", get_file)
    for width, include_top in [(1, True), (1.0, False), (0.35, True), (1.4, False)]:
        with pytest.raises(ValueError, match="missing.h5: not a readable HDF5"):
            mobilenet_v2(
                (32, 32, 3), include_top=include_top, weights="imagenet", width_multiplier=width
            )
    start = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels"
    assert names == [
        f"{start}_1.0_224.h5",
        f"{start}_1.0_224_no_top.h5",
        f"{start}_0.35_224.h5",
        f"{start}_1.4_224_no_top.h5",
    ]


# --- State dicts -------------------------------------------------------------------------------


def random_state_dict(width, num_classes, rng):
    """Random parameters under the names of torchvision's module tree, walked as it is built."""
    state_dict = {}

    def convolution(name, bn_name, channels_out, channels_in, side):
        # Scaled by the fan-in, so that the maps keep their scale.
        state_dict[f"{name}.weight"] = rng.normal(
            0, (2 / channels_in / side**2) ** 0.5, (channels_out, channels_in, side, side)
        )
        state_dict[f"{bn_name}.weight"] = rng.uniform(0.5, 1.5, channels_out)
        state_dict[f"{bn_name}.bias"] = rng.normal(0, 0.3, channels_out)
        state_dict[f"{bn_name}.running_mean"] = rng.normal(0, 0.1, channels_out)
        state_dict[f"{bn_name}.running_var"] = rng.uniform(0.5, 1.5, channels_out)
        state_dict[f"{bn_name}.num_batches_tracked"] = np.array(7)

    channels = round_channels(32 * width)
    convolution("features.0.0", "features.0.1", channels, 3, 3)
    number = 1
    for t, c, n, _ in BOTTLENECKS:
        for _ in range(n):
            name, hidden, i = f"features.{number}.conv", channels * t, 0
            if t != 1:
                convolution(f"{name}.0.0", f"{name}.0.1", hidden, channels, 1)
                i = 1
            convolution(f"{name}.{i}.0", f"{name}.{i}.1", hidden, 1, 3)
            channels = round_channels(c * width)
            convolution(f"{name}.{i + 1}", f"{name}.{i + 2}", channels, hidden, 1)
            number += 1
    convolution("features.18.0", "features.18.1", 1280, channels, 1)
    state_dict["classifier.1.weight"] = rng.normal(0, 0.1, (num_classes, 1280))
    state_dict["classifier.1.bias"] = rng.normal(0, 0.1, num_classes)
    return {name: array.astype("float32") for name, array in state_dict.items()}


def under_timm_names(state_dict):
    """The same parameters as timm's `mobilenetv2_100` names them."""
    renamed = {}
    starts = np.cumsum([1] + [n for _, _, n, _ in BOTTLENECKS])
    for name, array in state_dict.items():
        module, part = name.rsplit(".", 1)
        if module == "classifier.1":
            module = "classifier"
        elif module.startswith("features.0"):
            module = {"0": "conv_stem", "1": "bn1"}[module[-1]]
        elif module.startswith("features.18"):
            module = {"0": "conv_head", "1": "bn2"}[module[-1]]
        else:
            _, number, _, rest = module.split(".", 3)
            stage = int(np.searchsorted(starts, int(number), side="right")) - 1
            first = {"0.0": "conv_dw", "0.1": "bn1", "1": "conv_pw", "2": "bn2"}
            others = {"0.0": "conv_pw", "0.1": "bn1", "1.0": "conv_dw", "1.1": "bn2"}
            others |= {"2": "conv_pwl", "3": "bn3"}
            kind = (first if number == "1" else others)[rest]
            module = f"blocks.{stage}.{int(number) - starts[stage]}.{kind}"
        renamed[f"{module}.{part}"] = array
    return renamed


def slow_forward(state_dict, images):
    """torchvision's network, convolution by convolution, on (B, H, W, 3) pictures."""
    p = {name: array.astype("float64") for name, array in state_dict.items()}
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    x = ((images / 255 - mean) / deviation).transpose(0, 3, 1, 2)

    def convolution(x, name, bn_name, stride=1, activate=True):
        kernel = p[f"{name}.weight"]
        side = kernel.shape[-1]
        x = np.pad(x, [(0, 0), (0, 0), (side // 2, side // 2), (side // 2, side // 2)])
        height, width = x.shape[2] - side + 1, x.shape[3] - side + 1
        depthwise = kernel.shape[1] == 1 and x.shape[1] > 1
        x = sum(
            np.einsum(
                "bchw,c->bchw" if depthwise else "bchw,oc->bohw",
                x[:, :, i : i + height : stride, j : j + width : stride],
                kernel[:, 0, i, j] if depthwise else kernel[:, :, i, j],
            )
            for i in range(side)
            for j in range(side)
        )
        part = {k: p[f"{bn_name}.{k}"][:, None, None] for k in ("weight", "bias")}
        mean, variance = (p[f"{bn_name}.running_{k}"][:, None, None] for k in ("mean", "var"))
        x = (x - mean) / np.sqrt(variance + 1e-5) * part["weight"] + part["bias"]
        return np.clip(x, 0, 6) if activate else x

    x = convolution(x, "features.0.0", "features.0.1", 2)
    number = 1
    for t, _, n, s in BOTTLENECKS:
        for repeat in range(n):
            name, shortcut, i = f"features.{number}.conv", x, 0
            if t != 1:
                x = convolution(x, f"{name}.0.0", f"{name}.0.1")
                i = 1
            x = convolution(x, f"{name}.{i}.0", f"{name}.{i}.1", s if repeat == 0 else 1)
            x = convolution(x, f"{name}.{i + 1}", f"{name}.{i + 2}", activate=False)
            if repeat > 0:
                x = x + shortcut
            number += 1
    x = convolution(x, "features.18.0", "features.18.1").mean((2, 3))
    return x @ p["classifier.1.weight"].T + p["classifier.1.bias"]


@pytest.mark.parametrize("names", ["torchvision", "timm"])
def test_loads_state_dicts(tmp_path, names):
    rng = np.random.default_rng(2)
    state_dict = random_state_dict(0.35, 6, rng)
    images = rng.uniform(0, 255, (2, 37, 64, 3)).astype("float32")
    expected = slow_forward(state_dict, images)
    assert np.ptp(expected, axis=-1).min() > 0.1
    if names == "timm":
        path = tmp_path / "net.safetensors"
        safetensors.numpy.save_file(under_timm_names(state_dict), path)
    else:
        path = tmp_path / "net.npz"
        np.savez(path, **state_dict)
    model = mobilenet_v2(
        (37, 64, 3), 6, weights=path, width_multiplier=0.35, classifier_activation=None
    )
    scale = np.abs(expected).max()
    np.testing.assert_allclose(
        model.predict(images, verbose=0), expected, rtol=0, atol=1e-4 * scale
    )


def test_torchvision_weights_classify(development_weights, detection_data):
    """torchvision's evaluation: the shorter side at 256 pixels, the middle 224, antialiased."""
    files = sorted((detection_data.parent / "classification/imagenet_sample").iterdir())
    dataset = ClassificationDataset(
        "imagenet_sample",
        "val",
        class_names=[str(i) for i in range(1000)],
        labels=[int(file.name.split("_")[0]) for file in files],
        file_names=[str(file) for file in files],
        problems=[],
    )
    network = mobilenet_v2(
        weights=development_weights / "mobilenet_v2_imagenet_torchvision.npz",
        classifier_activation=None,
    )
    probabilities, labels, _ = classify_batches(
        Classifier(network),
        data.classification_batches(dataset, (224, 224, 3), 50, crop_fraction=224 / 256),
    )
    metrics = classification_metrics(probabilities, labels, dataset.class_names)
    assert len(labels) == 250
    assert metrics["accuracy"] >= 0.81  # 0.828
    assert metrics["top5"] >= 0.96  # 0.976


def test_parameters_and_taps():
    model = mobilenet_v2()
    assert model.count_params() == 3_538_984
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == 3_504_872
    headless = mobilenet_v2(include_top=False)
    assert headless.count_params() == 2_257_984
    for network in (model, headless):
        assert {name: tuple(tap.shape[1:]) for name, tap in network.feature_taps.items()} == {
            "stride2": (112, 112, 96),
            "stride4": (56, 56, 144),
            "stride8": (28, 28, 192),
            "stride16": (14, 14, 576),
            "stride32": (7, 7, 1280),
        }


@pytest.mark.parametrize("channels, rounded", [(32 * 0.35, 16), (24 * 1.4, 32), (16 * 0.35, 8)])
def test_round_channels(channels, rounded):
    assert round_channels(channels) == rounded


def test_training_settings_are_explicit():
    model = mobilenet_v2((32, 32, 3), 3, dropout_rate=0.4, batch_norm_momentum=0.7)
    norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert len(norms) == 52 and {x.momentum for x in norms} == {0.7}
    assert [x.rate for x in model.layers if isinstance(x, keras.layers.Dropout)] == [0.4]


def test_clear_errors(tmp_path):
    with pytest.raises(ValueError, match="width_multiplier.*0.6"):
        mobilenet_v2((96, 96, 3), weights="imagenet", width_multiplier=0.6)
    with pytest.raises(ValueError, match="include_top=False .*received: num_classes=3"):
        mobilenet_v2((96, 96, 3), 3, weights="imagenet")
    with pytest.raises(ValueError, match=r"at least 32 x 32 .*received: \(96, 31, 3\)"):
        mobilenet_v2((96, 31, 3))

    random = random_state_dict(0.35, 1000, np.random.default_rng(0))
    np.savez(tmp_path / "thousand.npz", **random)
    with pytest.raises(
        ValueError,
        match=r"thousand.npz: layer predictions of mobilenet_v2 expects arrays of shapes "
        r"\[\(1280, 3\), \(3,\)\]; received: \[\(1280, 1000\), \(1000,\)\] \(a classifier of 1000 "
        r"classes: pass num_classes=1000, or include_top=False for one of your own\)$",
    ):
        mobilenet_v2((32, 32, 3), 3, weights=tmp_path / "thousand.npz", width_multiplier=0.35)
    with pytest.raises(
        ValueError,
        match=r"thousand.npz: layer Conv1 of mobilenet_v2 expects arrays of shapes "
        r"\[\(3, 3, 3, 32\)\]; received: \[\(3, 3, 3, 16\)\]$",
    ):
        mobilenet_v2((32, 32, 3), weights=tmp_path / "thousand.npz")
    np.savez(tmp_path / "resnet.npz", **{"conv1.weight": np.zeros((64, 3, 7, 7))})
    with pytest.raises(
        ValueError,
        match=r"resnet.npz: expected features.0.0.weight for layer Conv1 of mobilenet_v2; "
        r"received parameters: \['conv1.weight'\]$",
    ):
        mobilenet_v2((32, 32, 3), weights=tmp_path / "resnet.npz")
    mobilenet_v2((32, 32, 3), include_top=False, width_multiplier=0.5).save(tmp_path / "half.h5")
    with pytest.raises(ValueError, match="half.h5: layer Conv1 of mobilenet_v2 expects"):
        mobilenet_v2((32, 32, 3), weights=tmp_path / "half.h5")
    with pytest.raises(ValueError, match=r"received no \['predictions'\] \(a file without the"):
        mobilenet_v2((32, 32, 3), weights=tmp_path / "half.h5", width_multiplier=0.5)
