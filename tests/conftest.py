"""Fixtures of all tests."""

import functools
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import pytest

SHARED = pathlib.Path(__file__).parents[1].parent / "shared"


@pytest.fixture(params=["eager", "graph", "xla"])
def compiled(request):
    """Makes a function of tensors run eagerly, in a graph, or compiled by XLA."""
    if request.param == "eager":
        return lambda function: function
    if keras.backend.backend() == "jax":
        if request.param == "graph":
            pytest.skip("JAX has no graph mode but XLA")
        import jax

        # Only tensors are traced; named arguments are settings.
        return lambda function: (
            lambda *tensors, **settings: jax.jit(functools.partial(function, **settings))(*tensors)
        )
    import tensorflow as tf

    return tf.function(jit_compile=request.param == "xla", autograph=False)


@pytest.fixture
def detection_data():
    """Folder of the development pictures; the test is skipped where they are not."""
    folder = SHARED / "data" / "detection"
    if not folder.is_dir():
        pytest.skip("the development pictures are not here")
    return folder


@pytest.fixture
def development_weights():
    """Folder of the development weights; the test is skipped where they are not."""
    folder = SHARED / "weights"
    if not folder.is_dir():
        pytest.skip("the development weights are not here")
    return folder
