"""Times a step of our style transfer against the plain one, interleaved.

  python tools/benchmark_style.py --width=400 --height=300

Both descend with Adam from the same picture, through VGG-16 up to block5_conv1, with the content of
block4_conv2, the manner of the five blocks' first layers and a little total variation, in float32,
compiled by `tf.function`. The plain step is the one that TensorFlow's and Keras's own examples
have: `keras.applications`' VGG-16 with its `preprocess_input`, Gram matrices by `einsum`,
`tf.image.total_variation`, a `tf.Variable` and `keras.optimizers.Adam`. Weights are random. In
every round each takes one step, in a random order. Told are the medians, and the median of the
rounds' ratios, plain / ours: above 1 ours is quicker.

On two cores, take care that nothing else runs beside it.
"""

import random
import statistics
import time

from absl import flags

from kerasvision.training import app

flags.DEFINE_integer("rounds", 20, "Steps of each.", lower_bound=3)
flags.DEFINE_integer("width", 400, "Of the picture, in pixels.", lower_bound=32)
flags.DEFINE_integer("height", 300, "Of the picture, in pixels.", lower_bound=32)
flags.DEFINE_bool("bfloat16", False, "Ours computes the network in bfloat16.")
flags.DEFINE_bool("jit_compile", False, "XLA compiles both steps.")


def make_plain_step(content, style, learning_rate, jit_compile):
    """A function that takes the plain step, and gives the loss before it."""
    import keras
    import tensorflow as tf

    from kerasvision.synthesis.style import CONTENT_LAYERS, STYLE_LAYERS

    vgg = keras.applications.VGG16(include_top=False, weights=None)
    vgg.trainable = False
    outputs = {name: vgg.get_layer(name).output for name in CONTENT_LAYERS + STYLE_LAYERS}
    extractor = keras.Model(vgg.inputs, outputs)

    def maps_of(image):
        return extractor(keras.applications.vgg16.preprocess_input(255.0 * image))

    def gram_matrix(maps):
        products = tf.einsum("bijc,bijd->bcd", maps, maps)
        shape = tf.shape(maps)
        return products / tf.cast(shape[1] * shape[2], tf.float32)

    wanted_maps, style_maps = maps_of(content), maps_of(style)
    wanted_grams = {name: gram_matrix(style_maps[name]) for name in STYLE_LAYERS}
    image = tf.Variable(content)
    optimizer = keras.optimizers.Adam(learning_rate)

    @tf.function(jit_compile=jit_compile)
    def step():
        with tf.GradientTape() as tape:
            maps = maps_of(image)
            content_loss = tf.add_n(
                [tf.reduce_mean((maps[name] - wanted_maps[name]) ** 2) for name in CONTENT_LAYERS]
            )
            style_loss = tf.add_n(
                [
                    tf.reduce_mean((gram_matrix(maps[name]) - wanted_grams[name]) ** 2)
                    for name in STYLE_LAYERS
                ]
            ) / len(STYLE_LAYERS)
            loss = 1e4 * content_loss + 1e-2 * style_loss
            loss += 30 * tf.reduce_sum(tf.image.total_variation(image))
        gradient = tape.gradient(loss, image)
        optimizer.apply_gradients([(gradient, image)])
        image.assign(tf.clip_by_value(image, 0.0, 1.0))
        return loss

    return step


def make_our_step(content, style, config):
    """A function that takes our step, and gives the loss before it."""
    import tensorflow as tf

    from kerasvision import backbones
    from kerasvision.synthesis import StyleLoss, StyleTransfer

    network = backbones.vgg16((None, None, 3), include_top=False)
    loss = StyleLoss(network, style_weight=100.0, tv_weight=0.1, bfloat16=config.bfloat16)
    transfer = StyleTransfer(loss, "adam", 10_000, jit_compile=config.jit_compile)
    targets = transfer.targets(content[0] * 255, [style[0] * 255])
    x = tf.constant(255 * content)
    moments, count = (tf.zeros_like(x), tf.zeros_like(x)), 0

    def step():
        nonlocal x, moments, count
        count += 1
        x, moments, terms = transfer.adam_step(x, targets, moments, tf.constant(count))
        return terms["loss"]

    return step


def main(argv):
    del argv
    config = flags.FLAGS
    app.import_tensorflow()
    import keras
    import numpy as np

    keras.utils.set_random_seed(0)
    shape = (1, config.height, config.width, 3)
    content, style = np.random.default_rng(0).uniform(size=(2, *shape)).astype("float32")
    steps = {
        "ours": make_our_step(content, style, config),
        "plain": make_plain_step(content, style, 0.02, config.jit_compile),
    }
    times = {name: [] for name in steps}
    for step in steps.values():
        for _ in range(2):  # traces
            float(step())
    for _ in range(config.rounds):
        for name in random.sample(list(steps), 2):
            before = time.perf_counter()
            float(steps[name]())
            times[name].append(1e3 * (time.perf_counter() - before))
    ratio = statistics.median(p / o for p, o in zip(times["plain"], times["ours"]))
    our_time, plain_time = (statistics.median(values) for values in times.values())
    print("| step | kerasvision, ms | plain, ms | plain / ours |\n|---|---|---|---|")
    size = f"{config.width} x {config.height}"
    print(f"| style transfer, {size} | {our_time:.0f} | {plain_time:.0f} | {ratio:.3f} |")


if __name__ == "__main__":
    app.run_main(main, __doc__)
