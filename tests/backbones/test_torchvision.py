"""Networks with random weights of torchvision give torchvision's outputs.

By hand, where python3-torchvision is: pytest -n0 -m slow tests/backbones/test_torchvision.py
"""

import pathlib
import subprocess

import numpy as np
import pytest

from kerasvision import backbones

TORCHVISION_PYTHON = pathlib.Path("/usr/bin/python3")  # Debian's python3-torchvision

TORCHVISION = """
import sys
import numpy, torch, torchvision
name, folder = sys.argv[1:]
torch.manual_seed(0)
# As it is built for its published weights, which want pictures from -1 to 1.
inception = {"transform_input": True, "init_weights": False}
arguments = inception if name == "inception_v3" else {}
model = getattr(torchvision.models, name)(num_classes=10, **arguments).eval()
for module in model.modules():
    if isinstance(module, torch.nn.BatchNorm2d):
        torch.nn.init.uniform_(module.weight, 0.8, 1.2)
        torch.nn.init.normal_(module.bias, 0, 0.2)
        torch.nn.init.normal_(module.running_mean, 0, 0.2)
        torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    elif isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
        # Its own initial weights let a picture's signal die away on the way.
        torch.nn.init.kaiming_normal_(module.weight)
        if module.bias is not None:
            torch.nn.init.normal_(module.bias, 0, 0.1)
state_dict = {key: tensor.numpy() for key, tensor in model.state_dict().items()}
numpy.savez(f"{folder}/weights.npz", **state_dict)
images = torch.from_numpy(numpy.load(f"{folder}/images.npy").transpose(0, 3, 1, 2))
normalize = torchvision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
with torch.no_grad():
    numpy.save(f"{folder}/logits.npy", model(normalize(images / 255)).numpy())
"""


@pytest.fixture(scope="module")
def torchvision():
    probe = [TORCHVISION_PYTHON, "-c", "import torchvision"]
    if not TORCHVISION_PYTHON.exists() or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("python3-torchvision is not here")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, theirs, size",
    [
        ("mobilenet_v2", "mobilenet_v2", (75, 96)),
        ("resnet18", "resnet18", (75, 96)),
        ("resnet50", "resnet50", (75, 96)),
        ("densenet121", "densenet121", (75, 96)),
        ("squeezenet", "squeezenet1_1", (75, 96)),
        ("inception_v3", "inception_v3", (111, 128)),
        # Their fully connected layers want the size of the paper.
        ("alexnet_one_tower", "alexnet", (224, 224)),
        ("vgg11", "vgg11", (224, 224)),
    ],
)
def test_equals_torchvision(torchvision, tmp_path, name, theirs, size):
    images = np.random.default_rng(0).uniform(0, 255, (2, *size, 3)).astype("float32")
    # A ramp in one half, so that not all pictures look alike to a deep network.
    images[1, :, : size[1] // 2] = np.linspace(0, 255, size[1] // 2)[None, :, None]
    np.save(tmp_path / "images.npy", images)
    subprocess.run([TORCHVISION_PYTHON, "-c", TORCHVISION, theirs, tmp_path], check=True)
    expected = np.load(tmp_path / "logits.npy")
    network = getattr(backbones, name)(
        (*size, 3), 10, weights=tmp_path / "weights.npz", classifier_activation=None
    )
    received = network.predict(images, verbose=0)
    scale = np.abs(expected).max()
    difference = np.abs(received - expected).max()
    print(f"{name}: logits up to {scale:.4g}, difference {difference:.2g}")
    assert np.abs(expected[0] - expected[1]).max() > 1e-3 * scale
    assert difference < 1e-4 * scale
    # A network without the classifier takes the same file.
    headless = getattr(backbones, name)(
        (*size, 3), include_top=False, weights=tmp_path / "weights.npz"
    )
    for layer in headless.layers:
        for a, b in zip(layer.get_weights(), network.get_layer(layer.name).get_weights()):
            np.testing.assert_array_equal(a, b)
