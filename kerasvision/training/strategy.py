"""One device or several: what a model and an app need to know of `tf.distribute`."""

import keras


def replica_sum(x):
    """The sum of `x` over all replicas of a TensorFlow strategy; `x` itself without one.

    A loss divided by a count of the whole batch (matched boxes, valid pixels) must divide by
    the sum over the replicas, or training on two devices differs from training on one.
    """
    if keras.backend.backend() != "tensorflow":
        return x
    import tensorflow as tf  # here, because models also run where there is no TensorFlow

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return x
    return context.all_reduce(tf.distribute.ReduceOp.SUM, x)


def synchronize_batch_norm(model):
    """Lets every batch normalisation of `model` use the statistics of the whole batch."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True
        elif isinstance(layer, keras.Model):
            synchronize_batch_norm(layer)


def make_strategy(name):
    """`tf.distribute` strategy "none" (one device) or "mirrored" (all devices of the machine)."""
    import tensorflow as tf

    if name == "mirrored":
        # Without GPUs: the logical CPUs, of which there may be several.
        kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
        return tf.distribute.MirroredStrategy(
            [device.name for device in tf.config.list_logical_devices(kind)]
        )
    if name == "none":
        return tf.distribute.get_strategy()
    raise ValueError(f"--strategy must be none or mirrored; received: {name}")
