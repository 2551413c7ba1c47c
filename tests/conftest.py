"""Fixtures of all tests."""

import functools
import gc
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# What XLA compiles here runs once or twice: compiling well takes longer than running badly.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
# Processes that test beside one another would share the cores among as many threads each.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import keras
import pytest

SHARED = pathlib.Path(__file__).parents[1].parent / "shared"


@pytest.fixture(autouse=True, scope="module")
def free_memory():
    """Models are parts of reference cycles: without this, those of all files would add up."""
    yield
    gc.collect()


# What runs eagerly and under XLA hardly ever fails in a graph.
@pytest.fixture(params=["eager", pytest.param("graph", marks=pytest.mark.slow), "xla"])
def compiled(request):
    """Makes a function of tensors run eagerly, in a graph, or compiled by XLA."""
    if keras.backend.backend() == "jax":
        # Eager JAX compiles the same operations one by one, which takes minutes.
        if request.param != "xla":
            pytest.skip("on JAX everything is compiled by XLA")
        import jax

        def compile(function):
            # Only tensors are traced; named arguments are settings.
            @functools.cache
            def jitted(**settings):
                return jax.jit(functools.partial(function, **settings))

            return lambda *tensors, **settings: jitted(**settings)(*tensors)

        return compile
    if request.param == "eager":
        return lambda function: function
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
        specs = [tf.TensorSpec(x.shape, x.dtype, name=f"x{i}") for i, x in enumerate(examples)]
        function = tf.function(function, autograph=False)
        outputs = function.get_concrete_function(*specs).structured_outputs
        content = litert.convert(function, *specs)
        litert.check_operators("function.tflite", content)
        interpreter = litert.interpreter(content)

        def by_name(details):
            return [d["index"] for d in sorted(details, key=lambda d: d["name"])]

        def call(*tensors):
            for index, tensor in zip(by_name(interpreter.get_input_details()), tensors):
                interpreter.set_tensor(index, tensor)
            interpreter.invoke()
            found = [interpreter.get_tensor(i) for i in by_name(interpreter.get_output_details())]
            return tf.nest.pack_sequence_as(outputs, found)

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
