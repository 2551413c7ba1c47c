"""Times training steps and inference of networks against those of keras.applications.

  python tools/benchmark_backbones.py --models=resnet50,mobilenet_v2 --rounds=10

Both networks run in one process, in the same loop, with the same optimizer and loss, in plain
graphs of TensorFlow. In every round each takes one step, in a random order, so that both meet the
same moods of the machine. Told are the medians, and that of the rounds' ratios: below 1 ours is
quicker. Each gets the pictures that it expects: ours 0 to 255, the peer's normalised beforehand.

On two cores, take care that nothing else runs beside it.
"""

import random
import statistics
import time

from absl import flags

from kerasvision.training import app

MODELS = ("resnet50", "mobilenet_v2", "densenet121", "vgg16", "inception_v3")
WORKLOADS = ("training", "inference")

flags.DEFINE_list("models", ["resnet50", "mobilenet_v2"], f"Of {', '.join(MODELS)}.")
flags.DEFINE_list("workloads", list(WORKLOADS), f"Of {', '.join(WORKLOADS)}.")
flags.DEFINE_integer("rounds", 10, "Steps of each network.", lower_bound=3)
flags.DEFINE_integer("batch_size", 16, "Pictures in a training step.", lower_bound=1)
flags.DEFINE_integer("image_size", 224, "Height and width of the pictures.", lower_bound=75)


def networks(name, image_size):
    """Ours, the peer, and what the peer wants done to the pictures."""
    import keras

    from kerasvision import backbones

    peers = keras.applications
    peer, preprocess = {
        "resnet50": (peers.ResNet50, peers.resnet.preprocess_input),
        "mobilenet_v2": (peers.MobileNetV2, peers.mobilenet_v2.preprocess_input),
        "densenet121": (peers.DenseNet121, peers.densenet.preprocess_input),
        "vgg16": (peers.VGG16, peers.vgg16.preprocess_input),
        "inception_v3": (peers.InceptionV3, peers.inception_v3.preprocess_input),
    }[name]
    shape = (image_size, image_size, 3)
    return getattr(backbones, name)(shape), peer(weights=None, input_shape=shape), preprocess


def training_step(model, images, labels):
    """A call that takes one step and returns when it is done."""
    import keras
    import tensorflow as tf

    optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
    optimizer.build(model.trainable_variables)
    loss_function = keras.losses.SparseCategoricalCrossentropy()

    @tf.function(autograph=False)
    def step(images, labels):
        with tf.GradientTape() as tape:
            loss = loss_function(labels, model(images, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    images, labels = tf.constant(images), tf.constant(labels)
    return lambda: step(images, labels).numpy()


def inference(model, images):
    """A call that returns when the scores are there."""
    import tensorflow as tf

    forward = tf.function(lambda x: model(x, training=False), autograph=False)
    images = tf.constant(images)
    return lambda: forward(images).numpy()


def time_interleaved(ours, theirs, rounds):
    """Median milliseconds of both, and the median of the ratios."""
    contenders = {"ours": ours, "theirs": theirs}
    for call in contenders.values():
        call()  # traces
        call()
    times = {name: [] for name in contenders}
    order = list(contenders)
    for _ in range(rounds):
        random.shuffle(order)
        for name in order:
            before = time.perf_counter()
            contenders[name]()
            times[name].append(1e3 * (time.perf_counter() - before))
    ratios = [a / b for a, b in zip(times["ours"], times["theirs"])]
    return (*(statistics.median(values) for values in times.values()), statistics.median(ratios))


def main(argv):
    del argv
    app.import_tensorflow()
    import keras
    import numpy as np

    config = flags.FLAGS
    for flag, allowed in [("models", MODELS), ("workloads", WORKLOADS)]:
        unknown = set(config[flag].value) - set(allowed)
        if unknown:
            raise ValueError(
                f"--{flag} must be of {', '.join(allowed)}; received: {', '.join(sorted(unknown))}"
            )
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    print("| network | workload | kerasvision, ms | keras.applications, ms | ratio |")
    print("|---|---|---|---|---|", flush=True)
    for name in config.models:
        ours, theirs, preprocess = networks(name, config.image_size)
        shape = (config.batch_size, config.image_size, config.image_size, 3)
        images = rng.uniform(0, 255, shape).astype("float32")
        preprocessed = preprocess(images.copy())
        labels = rng.integers(0, 1000, config.batch_size)
        calls = {}
        if "training" in config.workloads:
            calls[f"training step, batch {config.batch_size}"] = (
                training_step(ours, images, labels),
                training_step(theirs, preprocessed, labels),
            )
        if "inference" in config.workloads:
            for count in sorted({1, config.batch_size}):
                calls[f"inference, batch {count}"] = (
                    inference(ours, images[:count]),
                    inference(theirs, preprocessed[:count]),
                )
        for workload, pair in calls.items():
            our_time, their_time, ratio = time_interleaved(*pair, config.rounds)
            print(
                f"| {name} | {workload} | {our_time:.1f} | {their_time:.1f} | {ratio:.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    app.run_main(main, __doc__)
