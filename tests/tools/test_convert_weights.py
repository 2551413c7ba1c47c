"""Weight conversion as a user runs it."""

import inspect
import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import processes
import pytest

from kerasvision import backbones
from kerasvision.classification import load_classifier

TOOLS = pathlib.Path(__file__).parents[2] / "tools"


def run(*flags):
    return processes.run("tools/convert_weights.py", *flags)


def save_random_resnet8(path, num_classes):
    """A residual network of three blocks, under PyTorch's names."""
    rng = np.random.default_rng(0)
    state_dict = {}

    def convolution(conv, norm, channels_out, channels_in):
        shape = (channels_out, channels_in, 3, 3)
        state_dict[f"{conv}.weight"] = rng.normal(0, (2 / 9 / channels_in) ** 0.5, shape)
        state_dict[f"{norm}.weight"] = rng.uniform(0.5, 1.5, channels_out)
        state_dict[f"{norm}.bias"] = rng.normal(0, 0.3, channels_out)
        state_dict[f"{norm}.running_mean"] = rng.normal(0, 0.3, channels_out)
        state_dict[f"{norm}.running_var"] = rng.uniform(0.5, 1.5, channels_out)
        state_dict[f"{norm}.num_batches_tracked"] = np.array(100)

    convolution("conv1", "bn1", 16, 3)
    for stage, channels in enumerate([16, 32, 64], start=1):
        before = channels if stage == 1 else channels // 2
        block = f"layer{stage}.0"
        convolution(f"{block}.conv1", f"{block}.bn1", channels, before)
        convolution(f"{block}.conv2", f"{block}.bn2", channels, channels)
    state_dict["linear.weight"] = rng.normal(0, 0.1, (num_classes, 64))
    state_dict["linear.bias"] = rng.normal(0, 0.1, num_classes)
    np.savez(path, **state_dict)


def test_converted_file_is_the_network(tmp_path):
    save_random_resnet8(tmp_path / "net.npz", 3)
    (tmp_path / "names.txt").write_text("cat\ngrey owl\nbaù\n\n", encoding="utf-8")
    output = tmp_path / "new/net.keras"
    result = run(
        "--model=cifar_resnet", f"--weights={tmp_path}/net.npz", "--depth=8", "--num_classes=3",
        "--image_size=24", f"--class_names={tmp_path}/names.txt", f"--output={output}",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    network = backbones.cifar_resnet((24, 24, 3), 3, weights=tmp_path / "net.npz", depth=8)
    assert result.stdout == (
        f"{output}: cifar_resnet, 3 classes, 24 x 24 pixels, {network.count_params():,} "
        f"parameters, {output.stat().st_size / 1e6:.1f} MB; inside, pictures (0 to 255) are "
        "multiplied by (0.01712, 0.01751, 0.01743) and (-2.118, -2.036, -1.804) is added\n"
    )
    classifier = load_classifier(output)
    assert classifier.class_names == ["cat", "grey owl", "baù"]
    images = np.random.default_rng(1).uniform(0, 255, (4, 24, 24, 3)).astype("float32")
    expected = network.predict(images, verbose=0)
    assert np.ptp(expected, axis=-1).min() > 0.05
    np.testing.assert_allclose(classifier.predict_on_batch(images), expected, atol=1e-6)


@pytest.mark.slow
def test_development_weights(development_weights, tmp_path):
    weights = development_weights / "mobilenet_v2_imagenet_torchvision.npz"
    result = run(
        "--model=mobilenet_v2", f"--weights={weights}", f"--output={tmp_path}/net.keras",
        f"--class_names={TOOLS}/imagenet_labels.txt",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    assert "1000 classes, 224 x 224 pixels, 3,538,984 parameters, 14." in result.stdout
    images = np.random.default_rng(1).uniform(0, 255, (2, 224, 224, 3)).astype("float32")
    np.testing.assert_allclose(
        load_classifier(tmp_path / "net.keras").predict_on_batch(images),
        backbones.mobilenet_v2(weights=weights).predict(images, verbose=0),
        atol=1e-6,
    )


RUN_ALL = """
import json, sys, types
import convert_weights
from kerasvision.training.run_folder import RunError
names = ("model", "weights", "output", "num_classes", "image_size", "class_names", "depth",
         "width_multiplier")
for config in json.load(sys.stdin):
    try:
        convert_weights.run(types.SimpleNamespace(**(dict.fromkeys(names) | config)))
        print("no error")
    except (RunError, ValueError) as error:
        print(error)
"""


def test_bad_input(tmp_path):
    save_random_resnet8(tmp_path / "net.npz", 5)
    (tmp_path / "two.txt").write_text("cat\ndog\n")
    (tmp_path / "blank.txt").write_text("cat\n\ndog\n")
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "a_file").write_text("")
    net = {
        "model": "cifar_resnet",
        "weights": f"{tmp_path}/net.npz",
        "output": f"{tmp_path}/out.keras",
        "depth": 8,
        "num_classes": 5,
    }
    cases = [
        ({}, "--model: must be given"),
        ({"model": "resnet50", "output": "a.keras"}, "--weights: must be given"),
        ({**net, "output": "out.h5"}, "--output: must end with .keras; received: out.h5"),
        ({**net, "output": f"{tmp_path}/a_file/out.keras"}, "a_file/out.keras: can't be written"),
        ({**net, "model": "resnet18"}, "--depth: resnet18 has none"),
        ({**net, "width_multiplier": 0.5}, "--width_multiplier: cifar_resnet has none"),
        ({**net, "class_names": f"{tmp_path}/none.txt"}, "none.txt: must be a text file; "),
        ({**net, "class_names": f"{tmp_path}/binary.txt"}, "binary.txt: must be a text file; "),
        ({**net, "class_names": f"{tmp_path}/blank.txt"}, "blank.txt: must have a name in each "),
        ({**net, "class_names": f"{tmp_path}/empty.txt"}, "received: no names"),
        ({**net, "class_names": f"{tmp_path}/two.txt"}, "must have 5 lines, one a class of cifar"),
        ({**net, "num_classes": 7}, "net.npz: layer predictions of cifar_resnet expects"),
        ({**net, "weights": "none.npz"}, "none.npz: not a readable .npz file"),
        ({**net, "depth": 14}, "net.npz: expected layer1.1.conv1.weight for layer "),
    ]
    result = subprocess.run(
        [sys.executable, "-c", RUN_ALL],
        input=json.dumps([config for config, _ in cases]),
        capture_output=True,
        text=True,
        cwd=TOOLS,
        timeout=300,
    )
    lines = result.stdout.splitlines()
    assert len(lines) == len(cases), result.stderr[-2000:] + result.stdout
    for line, (_, message) in zip(lines, cases):
        assert message in line
    assert not (tmp_path / "out.keras").exists()


def test_the_list_of_networks_is_complete():
    source = (TOOLS / "convert_weights.py").read_text()
    listed = source[source.index("MODELS = (") : source.index(")\n\nflags")]
    networks = {name for name, value in vars(backbones).items() if inspect.isfunction(value)}
    # The only files of these are our own.
    ours = {"alexnet", "cifar_densenet", "googlenet", "lenet5", "network_in_network"}
    assert set(re.findall(r'"(\w+)"', listed)) == networks - ours


def test_labels_are_those_of_the_pictures(detection_data):
    """The pictures' files are named by class number, WordNet's number and a name of the class."""
    labels = (TOOLS / "imagenet_labels.txt").read_text().splitlines()
    assert len(labels) == len(set(labels)) == 1000
    folder = detection_data.parent / "classification/imagenet_sample"
    files = [file.stem.split("_", 2) for file in sorted(folder.iterdir())]
    differing = {
        (name, labels[int(number)])
        for number, _, name in files
        if name.replace("_", " ").lower() != labels[int(number)].lower()
    }
    assert len(files) == 250
    assert differing == set()
