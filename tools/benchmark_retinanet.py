"""Times RetinaNet on ResNet-50 against that of keras-hub, interleaved in one process.

  python -m pip install keras-hub
  python tools/benchmark_retinanet.py

Both have ResNet-50 (v1.5), the pyramid P3 to P7 from P5, 256 filters and four hidden convolutions
in each subnet, random weights, the same pictures and boxes. Timed are a training step, Keras's
`fit` on one batch (targets, losses, gradients, SGD), and inference, `predict` on one batch, up to
the detections, with decoding and non-maximum suppression. In every round each takes one, in a
random order. Told are the medians, and the median of the rounds' ratios, theirs / ours: above 1
ours is quicker.

On two cores, take care that nothing else runs beside it.
"""

import random
import statistics
import time

from absl import flags

from kerasvision.training import app

flags.DEFINE_integer("rounds", 10, "Steps of each.", lower_bound=3)
flags.DEFINE_integer("batch_size", 2, "Pictures in a step.", lower_bound=1)
flags.DEFINE_integer("image_size", 512, "Height and width of the pictures.", lower_bound=128)
flags.DEFINE_integer("num_classes", 80, "Classes.", lower_bound=1)
flags.DEFINE_integer("objects", 8, "Objects in a picture.", lower_bound=1)
flags.DEFINE_float("score_threshold", 0.05, "Of the detections.")


def peer_retinanet(num_classes, image_size):
    """keras-hub's, built like ours."""
    import keras_hub

    encoder = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 128, 256, 512],
        stackwise_num_blocks=[3, 4, 6, 3],
        stackwise_num_strides=[1, 2, 2, 2],
        block_type="bottleneck_block",
        image_shape=(image_size, image_size, 3),
    )
    backbone = keras_hub.models.RetinaNetBackbone(
        image_encoder=encoder,
        min_level=3,
        max_level=7,
        use_p5=True,
        image_shape=(image_size, image_size, 3),
    )
    return keras_hub.models.RetinaNetObjectDetector(
        backbone=backbone,
        num_classes=num_classes,
        bounding_box_format="yxyx",
        preprocessor=None,
    )


def time_interleaved(contenders, rounds):
    """Median milliseconds of each, and the median of the ratios theirs / ours."""
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
    ratios = [theirs / ours for ours, theirs in zip(times["ours"], times["theirs"])]
    return (*(statistics.median(values) for values in times.values()), statistics.median(ratios))


def main(argv):
    del argv
    config = flags.FLAGS
    app.import_tensorflow()
    import keras
    import numpy as np
    import tensorflow as tf

    from kerasvision.detection import retinanet_resnet50

    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    shape = (config.batch_size, config.image_size, config.image_size, 3)
    pictures = rng.uniform(0, 255, shape).astype("float32")
    corners = rng.uniform(0, 0.6, (config.batch_size, config.objects, 2))
    sides = rng.uniform(0.1, 0.4, corners.shape)
    truth = {
        "boxes": np.concatenate([corners, corners + sides], axis=-1).astype("float32"),
        "labels": rng.integers(0, config.num_classes, corners.shape[:2]).astype("int32"),
    }
    ours = retinanet_resnet50(config.num_classes, shape[1:])
    ours.score_threshold = config.score_threshold
    theirs = peer_retinanet(config.num_classes, config.image_size)
    theirs.prediction_decoder.confidence_threshold = config.score_threshold
    ours.compile(keras.optimizers.SGD(1e-4, momentum=0.9), jit_compile=False)
    theirs.compile(keras.optimizers.SGD(1e-4, momentum=0.9), jit_compile=False)
    truth_in_pixels = {**truth, "boxes": config.image_size * truth["boxes"]}
    batch = tf.data.Dataset.from_tensors({"images": pictures, "bounding_boxes": truth})
    peer_batch = tf.data.Dataset.from_tensors((pictures, truth_in_pixels))
    workloads = {
        "training step": {
            "ours": lambda: ours.fit(batch, verbose=0),
            "theirs": lambda: theirs.fit(peer_batch, verbose=0),
        },
        "inference": {
            "ours": lambda: ours.predict(pictures, verbose=0),
            "theirs": lambda: theirs.predict(pictures, verbose=0),
        },
    }
    print("| workload | kerasvision, ms | keras-hub, ms | theirs / ours |\n|---|---|---|---|")
    for name, contenders in workloads.items():
        our_time, their_time, ratio = time_interleaved(contenders, config.rounds)
        print(f"| {name} | {our_time:.0f} | {their_time:.0f} | {ratio:.3f} |", flush=True)


if __name__ == "__main__":
    app.run_main(main, __doc__)
