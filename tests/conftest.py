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

        def compile(function):
            # Only tensors are traced; named arguments are settings.
            @functools.cache
            def jitted(**settings):
                return jax.jit(functools.partial(function, **settings))

            return lambda *tensors, **settings: jitted(**settings)(*tensors)

        return compile
    import tensorflow as tf

    return tf.function(jit_compile=request.param == "xla", autograph=False)


@pytest.fixture
def in_litert():
    """Makes a function of tensors run in LiteRT's interpreter, with built-in operators only.

    in_litert(function, *examples) takes tensors shaped as the examples. Returned are what the
    function returns, a tensor, tuple or dict.
    """
    if keras.backend.backend() != "tensorflow":
        pytest.skip("LiteRT's converter takes graphs of TensorFlow")
    import tensorflow as tf

    from kerasvision.export import litert

    def convert(function, *examples):
        names = [f"input_{i}" for i in range(len(examples))]
        specs = [
            tf.TensorSpec(x.shape, x.dtype, name=name) for x, name in zip(examples, names)
        ]
        traced = tf.function(function, autograph=False).get_concrete_function(*specs)
        # A module beside the function is what makes the converter write names of the outputs.
        module = tf.Module()
        module.layer = getattr(function, "__self__", None)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([traced], module)
        content = converter.convert()
        litert.check_operators("function.tflite", content)
        runner = litert._interpreter(content).get_signature_runner()

        def call(*tensors):
            outputs = runner(**dict(zip(names, tensors)))
            if isinstance(traced.structured_outputs, dict):
                return outputs
            outputs = [outputs[f"output_{i}"] for i in range(len(outputs))]
            return outputs[0] if len(outputs) == 1 else tuple(outputs)

        return call

    return convert


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
