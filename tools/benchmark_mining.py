"""Times the mining of triplets against the step of the network that makes the embeddings.

  python tools/benchmark_mining.py
  python tools/benchmark_mining.py --batch_size=256 --network=nn2

FaceNet's batches have about 1,800 pictures (section 3.2). Each miner is timed with its gradient,
compiled as in training, on embeddings of that many; and the whole step of the network, without
mining: pictures in, a sum of the embeddings as the loss, gradients, weights moved. A step of so
many pictures would need more memory than most machines have; it is timed with --step_pictures of
them, and taken to grow in proportion. Told are medians, and the mining's share of a step with it.

On two cores, take care that nothing else runs beside it.
"""

import statistics
import time

from absl import flags

from kerasvision.training import app

flags.DEFINE_integer("batch_size", 1800, "Embeddings that are mined.", lower_bound=4)
flags.DEFINE_integer("pictures_each", 40, "Of a person.", lower_bound=2)
flags.DEFINE_integer("embedding_size", 128, "Numbers of an embedding.", lower_bound=2)
flags.DEFINE_enum(
    "network", "resnet18", ["nn2", "resnet18", "mobilenet_v2"], "What makes the embeddings."
)
flags.DEFINE_string("image_size", "112x96", "HEIGHTxWIDTH in pixels.")
flags.DEFINE_integer("width", 64, "Channels of the first stage of resnet18.", lower_bound=1)
flags.DEFINE_integer("step_pictures", 36, "Pictures of a timed step.", lower_bound=2)
flags.DEFINE_integer("rounds", 5, "Of each.", lower_bound=1)


def median_seconds(function, rounds):
    """The median of `rounds` calls, after one that compiles."""
    function()
    seconds = []
    for _ in range(rounds):
        before = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - before)
    return statistics.median(seconds)


def run(config):
    """Prints a line for each miner."""
    size = app.read_size("image_size", config.image_size)
    app.import_tensorflow()
    import keras
    import numpy as np
    import tensorflow as tf

    from kerasvision import backbones
    from kerasvision.embedding import embedding_network, facenet_nn2, mining

    app.start(0, False, False)
    shape = (*size, 3)
    if config.network == "nn2":
        network = facenet_nn2(shape, config.embedding_size)
    elif config.network == "resnet18":
        backbone = backbones.resnet18(shape, include_top=False, width=config.width)
        network = embedding_network(backbone, config.embedding_size)
    else:
        backbone = backbones.mobilenet_v2(shape, include_top=False)
        network = embedding_network(backbone, config.embedding_size)
    optimizer = keras.optimizers.Adam(1e-4)
    optimizer.build(network.trainable_variables)
    rng = np.random.default_rng(0)
    images = tf.constant(rng.uniform(0, 255, (config.step_pictures, *shape)), "float32")

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(network(images, training=True) ** 3)
        variables = network.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    seconds = median_seconds(lambda: step().numpy(), config.rounds)
    whole = seconds * config.batch_size / config.step_pictures
    print(
        f"{config.network}, {config.image_size} pixels: {seconds:.2f} s for "
        f"{config.step_pictures} pictures, {whole:.1f} s for {config.batch_size}"
    )
    f = rng.normal(size=(config.batch_size, config.embedding_size))
    f = tf.constant(f / np.linalg.norm(f, axis=1, keepdims=True), "float32")
    labels = tf.constant(np.arange(config.batch_size) // config.pictures_each)
    shares = {}
    for name, miner in mining.MINERS.items():

        @tf.function
        def mine():
            with tf.GradientTape() as tape:
                tape.watch(f)
                loss, _ = miner(f, labels, 0.2, 0)
            return tape.gradient(loss, f)

        seconds = median_seconds(lambda: mine().numpy(), config.rounds)
        shares[name] = seconds / (seconds + whole)
        print(f"  {name:12s} {seconds:7.3f} s, {shares[name]:6.2%} of a step")
    return shares


def main(argv):
    del argv
    run(flags.FLAGS)


if __name__ == "__main__":
    app.run_main(main, __doc__)
