"""Times the training steps of our DCGAN and CycleGAN against the plain ones, interleaved.

  python tools/benchmark_gans.py --model=dcgan
  python tools/benchmark_gans.py --model=cyclegan --image_size=128 --batch_size=1 --blocks=6

Both train the same networks with the same losses on the same pictures, in one process, with
Keras's `fit` on one batch. The plain step is the one that Keras's own examples have: DCGAN makes
new pictures for each of the two players; CycleGAN takes the gradients of each network by itself
from one persistent tape, and has no pool of pictures. In every round each takes one step, in a
random order. Told are the medians, and the median of the rounds' ratios, plain / ours: above 1
ours is quicker.

On two cores, take care that nothing else runs beside it.
"""

import random
import statistics
import time

from absl import flags

from kerasvision.training import app

flags.DEFINE_enum("model", "dcgan", ["dcgan", "cyclegan"], "Which of them.")
flags.DEFINE_integer("rounds", 20, "Steps of each.", lower_bound=3)
flags.DEFINE_integer("batch_size", 32, "Pictures (of each kind) in a step.", lower_bound=1)
flags.DEFINE_integer("image_size", 64, "Height and width of the pictures.", lower_bound=32)
flags.DEFINE_integer("filters", 64, "Channels of the first layers.", lower_bound=1)
flags.DEFINE_integer("blocks", 6, "Residual blocks (cyclegan).", lower_bound=1)


def make_plain_dcgan(gan):
    """A model with the networks of `gan` and the step of Keras's DCGAN example."""
    import keras
    import tensorflow as tf

    class PlainDCGAN(keras.Model):
        def __init__(self, generator, discriminator):
            super().__init__()
            self.generator, self.discriminator = generator, discriminator

        def compile(self, optimizer, d_optimizer, **kwargs):
            super().compile(**kwargs)
            self.g_optimizer, self.d_optimizer = optimizer, d_optimizer
            self.loss_fn = keras.losses.BinaryCrossentropy(from_logits=True)

        def train_step(self, real):
            count = tf.shape(real)[0]
            latent = self.generator.input_shape[-1]
            generated = self.generator(tf.random.normal([count, latent]), training=True)
            with tf.GradientTape() as tape:
                # Apart, as batch normalisation wants it.
                real_logits = self.discriminator(real, training=True)
                fake_logits = self.discriminator(generated, training=True)
                d_loss = self.loss_fn(tf.ones_like(real_logits), real_logits)
                d_loss += self.loss_fn(tf.zeros_like(fake_logits), fake_logits)
            variables = self.discriminator.trainable_weights
            self.d_optimizer.apply_gradients(zip(tape.gradient(d_loss, variables), variables))
            noise = tf.random.normal([count, latent])
            with tf.GradientTape() as tape:
                logits = self.discriminator(self.generator(noise, training=True), training=True)
                g_loss = self.loss_fn(tf.ones_like(logits), logits)
            variables = self.generator.trainable_weights
            self.g_optimizer.apply_gradients(zip(tape.gradient(g_loss, variables), variables))
            return {"g_loss": g_loss, "d_loss": d_loss}

    return PlainDCGAN(gan.G, gan.D)


def make_plain_cyclegan(cyclegan):
    """A model with the networks of `cyclegan` and the step of Keras's CycleGAN example."""
    import keras
    import tensorflow as tf

    def distance(a, b):
        return tf.reduce_mean(tf.abs(a - b)) / 127.5

    class PlainCycleGAN(keras.Model):
        def __init__(self, G, F, D_X, D_Y, cycle_weight, identity_weight):
            super().__init__()
            self.G, self.F, self.D_X, self.D_Y = G, F, D_X, D_Y
            self.cycle_weight, self.identity_weight = cycle_weight, identity_weight

        def compile(self, make_optimizer, **kwargs):
            super().compile(**kwargs)
            networks = (self.G, self.F, self.D_X, self.D_Y)
            self.players = [(network, make_optimizer()) for network in networks]

        def train_step(self, batch):
            x, y = (tf.cast(batch[name], "float32") for name in "xy")
            with tf.GradientTape(persistent=True) as tape:
                fake_y, fake_x = self.G(x, training=True), self.F(y, training=True)
                cycled_x, cycled_y = self.F(fake_y, training=True), self.G(fake_x, training=True)
                same_x, same_y = self.F(x, training=True), self.G(y, training=True)
                real_x_score, fake_x_score = (
                    self.D_X(x, training=True),
                    self.D_X(fake_x, training=True),
                )
                real_y_score, fake_y_score = (
                    self.D_Y(y, training=True),
                    self.D_Y(fake_y, training=True),
                )
                cycle = self.cycle_weight * (distance(cycled_x, x) + distance(cycled_y, y))
                identity = self.cycle_weight * self.identity_weight
                total_G = tf.reduce_mean((fake_y_score - 1) ** 2) + cycle
                total_G += identity * distance(same_y, y)
                total_F = tf.reduce_mean((fake_x_score - 1) ** 2) + cycle
                total_F += identity * distance(same_x, x)
                loss_X = tf.reduce_mean((real_x_score - 1) ** 2) + tf.reduce_mean(fake_x_score**2)
                loss_Y = tf.reduce_mean((real_y_score - 1) ** 2) + tf.reduce_mean(fake_y_score**2)
                losses = (total_G, total_F, 0.5 * loss_X, 0.5 * loss_Y)
            gradients = [
                tape.gradient(loss, network.trainable_weights)
                for loss, (network, _) in zip(losses, self.players)
            ]
            for gradient, (network, optimizer) in zip(gradients, self.players):
                optimizer.apply_gradients(zip(gradient, network.trainable_weights))
            return dict(zip(("G", "F", "D_X", "D_Y"), losses))

    networks = (cyclegan.G, cyclegan.F, cyclegan.D_X, cyclegan.D_Y)
    return PlainCycleGAN(*networks, cyclegan.cycle_weight, cyclegan.identity_weight)


def main(argv):
    del argv
    config = flags.FLAGS
    app.import_tensorflow()
    import keras
    import numpy as np
    import tensorflow as tf

    from kerasvision import generative

    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    shape = (config.image_size, config.image_size, 3)

    def adam():
        return keras.optimizers.Adam(2e-4, 0.5)

    def pictures():
        return rng.uniform(0, 255, (config.batch_size, *shape)).astype("float32")

    if config.model == "dcgan":
        ours = generative.dcgan(shape, filters=config.filters)
        plain = make_plain_dcgan(generative.dcgan(shape, filters=config.filters))
        plain.compile(adam(), adam(), jit_compile=False)
        batch = tf.data.Dataset.from_tensors(pictures())
    else:
        ours, other = (generative.cyclegan(shape, config.blocks, config.filters) for _ in range(2))
        plain = make_plain_cyclegan(other)
        plain.compile(adam, jit_compile=False)
        batch = tf.data.Dataset.from_tensors({"x": pictures(), "y": pictures()})
    ours.compile(adam(), adam(), jit_compile=False)

    times = {"ours": [], "plain": []}
    models = {"ours": ours, "plain": plain}
    for model in models.values():
        model.fit(batch, epochs=2, verbose=0)  # traces
    for _ in range(config.rounds):
        for name in random.sample(list(models), 2):
            before = time.perf_counter()
            models[name].fit(batch, verbose=0)
            times[name].append(1e3 * (time.perf_counter() - before))
    ratio = statistics.median(p / o for p, o in zip(times["plain"], times["ours"]))
    our_time, plain_time = (statistics.median(values) for values in times.values())
    print("| step | kerasvision, ms | plain, ms | plain / ours |\n|---|---|---|---|")
    print(f"| {config.model} | {our_time:.0f} | {plain_time:.0f} | {ratio:.3f} |")


if __name__ == "__main__":
    app.run_main(main, __doc__)
