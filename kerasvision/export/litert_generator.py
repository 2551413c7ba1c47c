"""Generators as LiteRT files: pictures of noise, or of other pictures."""

import pathlib

import numpy as np
import tensorflow as tf

from kerasvision.export import litert

TOLERANCES = {"float32": 0.5, "float16": 5.0}  # of 255


def export_litert_generator(generator, path, precision="float32"):
    """Writes a generator as a .tflite file of batch 1.

    It takes what the generator does, float32: noise (1, Z), or a picture (1, H, W, 3) from 0 to
    255; and gives a picture, float32 from 0 to 255.

    Args:
        generator: functional `keras.Model`.
        path: of the file.
        precision: "float32"; "float16": weights of half the size.

    Raises:
        ValueError: another precision.
        ExportError: the file does not compute what the generator does.
    """
    if precision not in TOLERANCES:
        raise ValueError(f"precision must be float32 or float16; received: {precision}")
    path = pathlib.Path(path)
    generator = litert.network_in_float32(generator)
    shape = (1, *generator.input_shape[1:])

    @tf.function(autograph=False)
    def generate(x):
        return generator(x, training=False)

    content = litert.convert(generate, tf.TensorSpec(shape, name="input"), precision=precision)
    litert.check_operators(path, content)
    example = np.random.default_rng(0).normal(size=shape).astype("float32")
    if len(shape) == 4:
        example = np.clip(127.5 + 60 * example, 0, 255)
    with litert.checked_file(path, content) as unchecked:
        interpreter = litert.interpreter(unchecked.read_bytes())
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], example)
        interpreter.invoke()
        found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        difference = float(np.abs(found - generate(example).numpy()).max())
        if difference > TOLERANCES[precision]:
            raise litert.ExportError(
                f"{path}: must make the model's pictures; received: {difference:.1f} of 255 off"
            )
