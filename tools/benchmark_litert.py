"""Times .tflite files in LiteRT: exported classifiers against keras.applications' models, or any.

  python tools/benchmark_litert.py
  python tools/benchmark_litert.py --network=resnet50 --threads=1
  python tools/benchmark_litert.py --file=model_float32.tflite --file=model_int8.tflite

Without files, ours and theirs have the same random weights and are converted in float32: ours by
`export_litert_classifier`, from a uint8 picture to probabilities; theirs by
`tf.lite.TFLiteConverter.from_keras_model`, once bare, from pixels that an app has normalised
already, which is not timed, and once with their `preprocess_input` before it, from the same uint8
picture as ours. Printed are the medians, and how many times longer theirs take than ours.

In every round each file infers once, in a new random order; every 20 rounds all are loaded anew.

On two cores, take care that nothing else runs beside it.
"""

import logging
import pathlib
import random
import statistics
import tempfile
import time

import numpy as np
from absl import flags

from kerasvision.training import app
from kerasvision.training.quiet import quiet

NETWORKS = ("mobilenet_v2", "resnet50")
flags.DEFINE_multi_string("file", [], "A .tflite file to time, instead of networks.")
flags.DEFINE_multi_enum("network", list(NETWORKS), NETWORKS, "Networks to time.")
flags.DEFINE_multi_integer("threads", [1, 2], "Threads of the interpreter.", lower_bound=1)
flags.DEFINE_integer("rounds", 400, "Inferences of each file.", lower_bound=3)
flags.DEFINE_integer("side", 224, "Height and width of the picture.", lower_bound=32)


def convert_peer(model):
    """The .tflite bytes of a Keras model, converted the ordinary way."""
    import tensorflow as tf

    with quiet():
        return tf.lite.TFLiteConverter.from_keras_model(model).convert()


def contenders(network, side):
    """Name to .tflite bytes, of networks with the same random weights."""
    import keras

    from kerasvision.backbones.mobilenet_v2 import mobilenet_v2
    from kerasvision.backbones.resnet import resnet50
    from kerasvision.classification import Classifier
    from kerasvision.export import export_litert_classifier

    ours, peer, module = {
        "mobilenet_v2": (
            mobilenet_v2,
            keras.applications.MobileNetV2,
            keras.applications.mobilenet_v2,
        ),
        "resnet50": (resnet50, keras.applications.ResNet50, keras.applications.resnet),
    }[network]
    peer = peer(weights=None, input_shape=(side, side, 3))
    pixels = keras.Input((side, side, 3), dtype="uint8")
    images = keras.layers.Rescaling(1.0)(pixels)  # as float32
    from_pixels = keras.Model(pixels, peer(module.preprocess_input(images)))
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        peer.save(folder / "peer.h5")
        model = Classifier(
            ours((side, side, 3), weights=folder / "peer.h5", classifier_activation=None)
        )
        export_litert_classifier(model, folder / "model.tflite")
        return {
            "kerasvision": (folder / "model.tflite").read_bytes(),
            "bare": convert_peer(peer),
            "with preprocess_input": convert_peer(from_pixels),
        }


def time_interleaved(files, threads, rounds):
    """Median milliseconds of an inference of each file, in the order of `files`."""
    from kerasvision.export import litert

    times = {name: [] for name in files}
    order = list(files)
    for number in range(rounds):
        if number % 20 == 0:
            # Anew, as where the buffers happen to lie in memory is worth a percent or two.
            random.shuffle(order)
            interpreters = {name: litert.interpreter(files[name], threads) for name in order}
            for interpreter in interpreters.values():
                image = interpreter.get_input_details()[0]
                pixels = np.random.default_rng(0).integers(0, 256, image["shape"])
                interpreter.set_tensor(image["index"], pixels.astype(image["dtype"]))
                for _ in range(5):  # until the caches are warm
                    interpreter.invoke()
        random.shuffle(order)
        for name in order:
            before = time.perf_counter()
            interpreters[name].invoke()
            times[name].append(1e3 * (time.perf_counter() - before))
    return {name: statistics.median(values) for name, values in times.items()}


def print_files(paths, threads, rounds):
    """Prints a table of the files' sizes and median times."""
    files = {path: pathlib.Path(path).read_bytes() for path in paths}
    times = [time_interleaved(files, number, rounds) for number in threads]
    columns = ["file", "MB", *(f"ms, {number} threads" for number in threads)]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for path in paths:
        cells = [path, f"{len(files[path]) / 1e6:.1f}", *(f"{row[path]:.2f}" for row in times)]
        print(f"| {' | '.join(cells)} |")


def main(argv):
    del argv
    config = flags.FLAGS
    logging.disable(logging.WARNING)
    app.import_tensorflow()
    if config.file:
        print_files(config.file, config.threads, config.rounds)
        return
    print(
        "| network | threads | kerasvision, ms | bare, ms | with preprocess_input, ms "
        "| bare / ours | with preprocess_input / ours |\n" + 7 * "|---" + "|"
    )
    for network in config.network:
        files = contenders(network, config.side)
        for threads in config.threads:
            ours, *theirs = time_interleaved(files, threads, config.rounds).values()
            cells = [network, threads, f"{ours:.2f}"]
            cells += [f"{t:.2f}" for t in theirs] + [f"{t / ours:.3f}" for t in theirs]
            print("| " + " | ".join(map(str, cells)) + " |", flush=True)


if __name__ == "__main__":
    app.run_main(main, __doc__)
