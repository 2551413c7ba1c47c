"""Operators, layers, networks and models on the JAX backend of Keras."""

import os
import pathlib
import subprocess
import sys

import pytest

TESTS = pathlib.Path(__file__).parent


def run(*arguments):
    pytest.importorskip("jax")
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
    )


def test_layers_and_a_model():
    chosen = "layer_is_the_same_compiled or (model_lowers and Classifier)"
    test = str(TESTS / "test_conformance.py")
    result = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, test)
    assert result.returncode == 0, result.stdout[-3000:]


@pytest.mark.slow
def test_operators_and_layers():
    tests = [str(TESTS / name) for name in ("ops", "layers")]
    result = run("-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)
    assert result.returncode == 0, result.stdout[-3000:]


@pytest.mark.slow
def test_networks():
    result = run(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not files"),
        *(str(TESTS / name) for name in ("test_backbones.py", "backbones")),
    )
    assert result.returncode == 0, result.stdout[-3000:]


@pytest.mark.slow
def test_all_layers_and_models():
    test = str(TESTS / "test_conformance.py")
    result = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "layer_ or model_", test)
    assert result.returncode == 0, result.stdout[-3000:]
