"""What adversarial networks share as Keras models: two optimizers, and steps down a gradient."""

import keras
import tensorflow as tf

from kerasvision.training.strategy import replica_sum


class AdversarialModel(keras.Model):
    """Networks that generate and networks that discriminate, each kind with its optimizer.

    Subclasses have a `train_step` of `tf.GradientTape`s, whose random numbers come from
    `new_seed`: `kerasvision.training.callbacks.Checkpoint` repeats these after a resumption.

    Args:
        generators, discriminators: lists of `keras.Model`.
        means: names of what `fit` reports, means over the epoch.
        seed: int, of what is random in training.
    """

    def __init__(self, generators, discriminators, means, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.generators = generators
        self.discriminators = discriminators
        self.means = [keras.metrics.Mean(name=name) for name in means]
        self.seed = seed
        self.random = keras.random.SeedGenerator(seed)
        self.built = True

    @property
    def generator_variables(self):
        """Trainable variables of all generators."""
        return [v for network in self.generators for v in network.trainable_variables]

    @property
    def discriminator_variables(self):
        """Trainable variables of all discriminators."""
        return [v for network in self.discriminators for v in network.trainable_variables]

    def compile(self, optimizer, discriminator_optimizer, **kwargs):
        """As in Keras, with the generators' optimizer and the discriminators'."""
        super().compile(optimizer, **kwargs)
        if isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):  # mixed_float16
            discriminator_optimizer = keras.optimizers.LossScaleOptimizer(discriminator_optimizer)
        self.discriminator_optimizer = discriminator_optimizer
        self.optimizer.build(self.generator_variables)
        self.discriminator_optimizer.build(self.discriminator_variables)

    def new_seed(self):
        """A (2,) integer seed for stateless random numbers, another in each call and replica."""
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return tf.random.experimental.stateless_fold_in(self.random.next(), replica)

    def descend(self, optimizer, tape, loss, variables):
        """Takes a step of `optimizer` down the gradient of `loss`, recorded on `tape`."""
        # Scaled against underflow in float16, and divided among the replicas, whose gradients
        # the optimizer adds up.
        scale = optimizer.scale_loss(tf.ones_like(loss)) / replica_sum(1.0)
        optimizer.apply(tape.gradient(loss, variables, scale), variables)

    def report(self, *values):
        """The means so far, with the values of a step added, in the order of their names."""
        for mean, value in zip(self.means, values, strict=True):
            mean.update_state(value)
        return {mean.name: mean.result() for mean in self.means}

    def get_compile_config(self):
        if not self.compiled:
            return None
        return {
            "optimizer": keras.saving.serialize_keras_object(self.optimizer),
            "discriminator_optimizer": keras.saving.serialize_keras_object(
                self.discriminator_optimizer
            ),
        }

    def compile_from_config(self, config):
        self.compile(**{k: keras.saving.deserialize_keras_object(v) for k, v in config.items()})
