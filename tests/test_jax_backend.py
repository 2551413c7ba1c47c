"""Operators, layers, and a detector's loss and decoding on the JAX backend of Keras."""

import os
import pathlib
import subprocess
import sys

import pytest

TESTS = pathlib.Path(__file__).parent
MODEL = """
import keras, numpy as np
from kerasvision.detection.ssd import ssdlite

assert keras.backend.backend() == "jax"
keras.utils.set_random_seed(0)
model = ssdlite(2, (64, 64, 3), width_multiplier=0.35)
batch = {
    "images": np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32"),
    "bounding_boxes": {
        "boxes": np.array([[[0.1, 0.1, 0.8, 0.7]], [[0.2, 0.2, 0.5, 0.9]]], "float32"),
        "labels": np.array([[0], [1]]),
    },
}
model.compile(keras.optimizers.SGD(0.01), jit_compile=True)
losses = [float(model.train_on_batch(batch, return_dict=True)["loss"]) for _ in range(5)]
assert losses[-1] < losses[0], losses
found = model.predict(batch["images"], verbose=0)
assert found["boxes"].shape == (2, 100, 4) and (np.diff(found["scores"]) <= 0).all()
"""


def run(*arguments):
    pytest.importorskip("jax")
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
    )


def test_operators_and_layers():
    tests = [str(TESTS / name) for name in ("ops", "layers", "test_conformance.py")]
    chosen = "golden or operator or layer_ or lists"
    result = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, *tests)
    assert result.returncode == 0, result.stdout[-3000:]


@pytest.mark.slow
def test_operators_and_layers_on_random_inputs():
    tests = [str(TESTS / name) for name in ("ops", "layers")]
    result = run("-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)
    assert result.returncode == 0, result.stdout[-3000:]


def test_detector_trains_and_detects():
    result = run("-c", MODEL)
    assert result.returncode == 0, result.stderr[-3000:]
