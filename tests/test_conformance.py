"""What every public layer and model must do, over one list of all of them."""

import inspect

import keras
import numpy as np
import pytest

import kerasvision.detection
import kerasvision.layers
from kerasvision import layers
from kerasvision.backbones.mobilenet_v2 import mobilenet_v2
from kerasvision.backbones.resnet import resnet18
from kerasvision.backbones.vgg import vgg16
from kerasvision.detection import SSD, ssd300, ssd512, ssd_resnet18, ssdlite


def images(side):
    return np.random.default_rng(0).uniform(0, 255, (2, side, side, 3)).astype("float32")


def boxes_and_scores():
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 0.7, (2, 30, 2))
    boxes = np.concatenate([corner, corner + 0.3], axis=-1).astype("float32")
    return boxes, rng.uniform(0, 1, (2, 30, 3)).astype("float32")


# Name: (how to make it small, its inputs).
LAYERS = {
    "L2Normalization": (lambda: layers.L2Normalization(scale=5.0), lambda: (images(4),)),
    "NonMaxSuppression": (
        lambda: layers.NonMaxSuppression(0.4, 0.1, max_detections=7, candidates=50),
        boxes_and_scores,
    ),
}
# Name: (how to make it small, side of its images).
DETECTORS = {
    "ssdlite": (lambda: ssdlite(2, (64, 64, 3), width_multiplier=0.35, first_stride=8), 64),
    "ssd_resnet18": (lambda: ssd_resnet18(2, (64, 64, 3), width=8), 64),
}
# Name: (how to make it, parameters in the papers' or keras.applications' counting).
COUNTS = {
    "vgg16": (lambda: vgg16(), 14_714_688),
    "mobilenet_v2": (lambda: mobilenet_v2(), 2_257_984),
    "ssd300": (lambda: ssd300(20), 26_285_486),
    "ssd512": (lambda: ssd512(20), 27_188_676),
}


def as_numpy(value):
    return keras.tree.map_structure(keras.ops.convert_to_numpy, value)


def assert_equal(received, expected, tolerance=1e-6):
    keras.tree.map_structure(
        lambda a, b: np.testing.assert_allclose(a, b, atol=tolerance), received, expected
    )


def test_the_lists_are_complete():
    public = {name for name, value in vars(kerasvision.layers).items() if inspect.isclass(value)}
    assert public == set(LAYERS)
    functions = {
        name for name, value in vars(kerasvision.detection).items() if inspect.isfunction(value)
    }
    assert functions - {"load_detector"} == set(DETECTORS) | {"ssd300", "ssd512"}
    assert kerasvision.detection.SSD is SSD


@pytest.mark.parametrize("name", LAYERS)
def test_layer_survives_config_and_file(name, tmp_path):
    make, inputs = LAYERS[name]
    layer, inputs = make(), inputs()
    expected = as_numpy(layer(*inputs))
    copy = type(layer).from_config(layer.get_config())
    assert_equal(as_numpy(copy(*inputs)), expected)
    symbols = [keras.Input(x.shape[1:]) for x in inputs]
    model = keras.Model(symbols, make()(*symbols))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_equal(as_numpy(loaded(list(inputs))), as_numpy(model(list(inputs))))


@pytest.mark.parametrize("name", LAYERS)
def test_layer_is_the_same_compiled(name, compiled):
    make, inputs = LAYERS[name]
    layer, inputs = make(), inputs()
    expected = as_numpy(layer(*inputs))
    assert_equal(as_numpy(compiled(lambda *x: layer(*x))(*inputs)), expected, 1e-5)


@pytest.mark.parametrize("name", DETECTORS)
def test_one_step_lowers_the_loss(name):
    make, side = DETECTORS[name]
    keras.utils.set_random_seed(0)
    model = make()
    model.compile(keras.optimizers.SGD(0.01))
    batch = {
        "images": images(side),
        "bounding_boxes": {
            "boxes": np.array([[[0.1, 0.2, 0.7, 0.9]], [[0.3, 0.3, 0.6, 0.6]]], "float32"),
            "labels": np.array([[0], [1]]),
        },
    }
    losses = [model.train_on_batch(batch, return_dict=True)["loss"] for _ in range(5)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", DETECTORS)
def test_mixed_precision_gives_float32_detections(name):
    make, side = DETECTORS[name]
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = make()
    finally:
        keras.mixed_precision.set_global_policy("float32")
    raw = model(images(side))
    assert {keras.backend.standardize_dtype(x.dtype) for x in raw.values()} == {"float32"}
    found = model.predict(images(side), verbose=0)
    assert found["boxes"].dtype == np.float32 and np.isfinite(found["boxes"]).all()


@pytest.mark.parametrize("name", DETECTORS)
def test_detector_survives_a_file(name, tmp_path):
    make, side = DETECTORS[name]
    model = make()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    expected = model.predict(images(side), verbose=0)
    assert_equal(loaded.predict(images(side), verbose=0), expected)


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_are_the_papers(name):
    make, count = COUNTS[name]
    assert make().count_params() == count


def test_resnet18_has_the_papers_parameters():
    # torchvision's 11,689,512 trainable parameters, less the classifier's 513,000, plus two
    # statistics for each of 4,800 channels, and a 3x3 for the 7x7 convolution at the start.
    model = resnet18()
    trainable = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    assert trainable == 11_689_512 - 513_000 - 64 * 3 * (49 - 9)
    assert model.count_params() == trainable + 2 * 4_800
