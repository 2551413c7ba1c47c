"""Times the operators against their peers, interleaved in one process.

  python tools/benchmark_ops.py --workdir=runs/benchmark_ops
  KERAS_BACKEND=jax python tools/benchmark_ops.py --only=RoIAlign

In every round the contenders of a workload take turns of 10 ms, in a new random order. What is told
is the median over all calls, and how many times longer each peer takes than ours. The folder
--workdir gets benchmark.json and benchmark.png. Peers: TensorFlow's operators, as they are used in
its own examples; keras-cv and keras-hub compiled by XLA, where they are installed; torchvision in a
process of its own, which waits while others run. On the JAX backend ours runs alone.

On two cores, take care that nothing else runs beside it.
"""

import functools
import itertools
import json
import pathlib
import random
import re
import statistics
import subprocess
import tempfile
import time

from absl import flags

from kerasvision.training import app
from kerasvision.training.run_folder import make_folder

flags.DEFINE_string("workdir", "runs/benchmark_ops", "Folder for benchmark.json and .png.")
flags.DEFINE_string("only", "", "Workloads whose names match this regular expression.")
flags.DEFINE_integer("rounds", 30, "Turns of each contender.", lower_bound=3)
flags.DEFINE_string(
    "torchvision_python",
    "",
    "Python with torchvision, for example /usr/bin/python3 after apt install python3-torchvision; "
    "none: without torchvision.",
)


# --- Compiling and timing ----------------------------------------------------------------


def compiled(function, *tensors):
    """A call of `function` on tensors, compiled by XLA, that returns when the result is there."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        jitted = jax.jit(function)
        tensors = [jax.numpy.asarray(x) for x in tensors]
        return lambda: jax.block_until_ready(jitted(*tensors))
    return graph(function, *tensors, jit_compile=True)


def graph(function, *tensors, jit_compile=False):
    """The same in a graph of TensorFlow, by default without XLA."""
    import tensorflow as tf

    traced = tf.function(function, jit_compile=jit_compile, autograph=False)
    tensors = [tf.constant(x) for x in tensors]
    # A view of the result's memory is there when the result is, and copies nothing.
    return lambda: memoryview(tf.nest.flatten(traced(*tensors))[0])


def with_gradients(function, num_tensors):
    """A function of the same tensors, and of the slopes of a loss in the result: it returns the
    result and the slopes of the loss in the first tensors, as a training step needs both.
    """
    import keras

    if keras.backend.backend() == "jax":
        import jax

        def result_and_slopes(*tensors):
            *tensors, upstream = tensors
            result, backward = jax.vjp(function, *tensors)
            return result, backward(upstream)[:num_tensors]

    else:
        import tensorflow as tf

        def result_and_slopes(*tensors):
            *tensors, upstream = tensors
            with tf.GradientTape() as tape:
                tape.watch(tensors[:num_tensors])
                result = function(*tensors)
            return result, tape.gradient(result, tensors[:num_tensors], upstream)

    return result_and_slopes


def time_interleaved(contenders, rounds):
    """Median milliseconds of each contender, a dict of name to call without arguments.

    A turn takes 10 ms, or one call where that takes longer: short calls are timed with warm
    caches, as in a loop of their own, and all contenders meet the same moods of the machine. A
    call that returns a number measured itself: that many milliseconds.
    """
    for call in contenders.values():
        call()  # compiles
        call()
    times = {name: [] for name in contenders}
    order = list(contenders)
    for _ in range(rounds):
        random.shuffle(order)
        for name in order:
            turn = 0.0
            while turn < 10.0:
                before = time.perf_counter()
                result = contenders[name]()
                passed = 1e3 * (time.perf_counter() - before)
                times[name].append(result if isinstance(result, float) else passed)
                turn += passed
    return {name: statistics.median(values) for name, values in times.items()}


def on_tensorflow():
    import keras

    return keras.backend.backend() == "tensorflow"


TORCHVISION_WORKER = """
import sys, time
import numpy, torch, torchvision
torch.set_num_threads(int(sys.argv[3]))
inputs = numpy.load(sys.argv[1])
features, rois = (torch.from_numpy(inputs[name]) for name in ("features", "rois"))
size = tuple(int(n) for n in inputs["size"])
if sys.argv[2] == "roi_align":
    call = lambda: torchvision.ops.roi_align(features, rois, size, 1.0, 2, aligned=True)
else:
    call = lambda: torchvision.ops.roi_pool(features, rois, size, 1.0)
with torch.no_grad():
    for _ in sys.stdin:
        before = time.perf_counter()
        call()
        print(1e3 * (time.perf_counter() - before), flush=True)
"""


def torchvision(operator, features, rois, size):
    """A call that lets a process of torchvision run once and returns its milliseconds.

    Args:
        operator: "roi_align" or "roi_pool".
        features: (1, H, W, C).
        rois: (1, R, 4) relative corner form.
        size: of the output.
    """
    import numpy as np

    python = flags.FLAGS.torchvision_python
    height, width = features.shape[1:3]
    corners = rois[0][:, [1, 0, 3, 2]] * np.array([width, height, width, height], "float32")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "inputs.npz")
        np.savez(
            path,
            features=np.ascontiguousarray(features.transpose(0, 3, 1, 2)),
            rois=np.concatenate([np.zeros_like(corners[:, :1]), corners], axis=1),
            size=(size, size),
        )
        worker = subprocess.Popen(
            [python, "-c", TORCHVISION_WORKER, str(path), operator, "2"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

        def call():
            print("go", file=worker.stdin, flush=True)
            return float(worker.stdout.readline())

        call()  # has read its inputs when it answers
    return call


# --- Inputs ------------------------------------------------------------------------------


def random_boxes(rng, count, clustered):
    """(count, 4) float32 boxes, all over the picture or crowded around 40 objects."""
    import numpy as np

    center = rng.uniform(0.05, 0.95, (count, 2))
    size = np.exp(rng.uniform(np.log(0.02), np.log(0.3), (count, 2)))
    if clustered:
        objects = rng.integers(0, 40, count)
        size = size[:40][objects] * np.exp(rng.normal(0, 0.15, (count, 2)))
        center = center[:40][objects] + size * rng.normal(0, 0.12, (count, 2))
    return np.concatenate([center - size / 2, center + size / 2], axis=1).astype("float32")


def detector_outputs(rng, batch, num_boxes, num_classes, doubtful, objects=20):
    """Boxes (batch, num_boxes, 4) and scores (batch, num_boxes, num_classes) as a trained
    detector gives: some 25 boxes around each object score well in one class and a little in
    another, all others almost nothing, but the share `doubtful` of them above 0.01. That is
    0.02 in the quickstart's detector, 0.2 in that of blood cells.
    """
    import numpy as np

    boxes = np.stack([random_boxes(rng, num_boxes, clustered=False) for _ in range(batch)])
    logarithms = rng.normal(0.0, 1.3, (batch, num_boxes, num_classes))
    logarithms += np.log(0.01) - np.quantile(logarithms, 1.0 - doubtful)
    scores = np.exp(logarithms).astype("float32")
    for b, _ in itertools.product(range(batch), range(objects)):
        chosen = rng.choice(num_boxes, 25, replace=False)
        size = boxes[b, chosen[0], 2:] - boxes[b, chosen[0], :2]
        shift = rng.normal(0, 0.1, (25, 4)) * np.tile(size, 2)
        boxes[b, chosen] = boxes[b, chosen[0]] + shift.astype("float32")
        first, second = rng.choice(num_classes, 2, replace=False)
        scores[b, chosen, first] = rng.beta(2, 2, 25)
        scores[b, chosen, second] = rng.beta(1, 10, 25)
    return boxes, scores


def pyramid(rng, count):
    """Maps P2 to P5 (1, h, w, 256) of a picture of 800 x 1216, and RoIs (1, count, 4)."""
    import numpy as np

    maps = [rng.normal(size=(1, 800 >> k, 1216 >> k, 256)).astype("float32") for k in (2, 3, 4, 5)]
    size = np.exp(rng.uniform(np.log(16), np.log(640), (count, 2)))
    center = rng.uniform(0, 1, (count, 2)) * (800, 1216)
    corners = np.concatenate([center - size / 2, center + size / 2], axis=1)
    corners = np.clip(corners, 0, [800, 1216, 800, 1216]) / [800, 1216, 800, 1216]
    return maps, corners[None].astype("float32")


# --- Workloads: contenders by name, ours first -------------------------------------------


def hard_nms(num_boxes, kept, clustered):
    import numpy as np

    from kerasvision.ops import nms

    rng = np.random.default_rng(0)
    boxes = random_boxes(rng, num_boxes, clustered)
    scores = rng.uniform(0, 1, num_boxes).astype("float32")
    contenders = {
        "kerasvision": compiled(
            lambda b, s: nms.non_max_suppression(b, s, iou_threshold=0.5, max_detections=kept),
            boxes,
            scores,
        )
    }
    if not on_tensorflow():
        return contenders
    import tensorflow as tf

    contenders["tf.image.non_max_suppression"] = graph(
        lambda b, s: tf.image.non_max_suppression(b, s, kept, 0.5), boxes, scores
    )
    contenders["tf.image.non_max_suppression_padded, XLA"] = compiled(
        lambda b, s: tf.image.non_max_suppression_padded(
            b, s, kept, 0.5, pad_to_max_output_size=True
        ),
        boxes[None],
        scores[None],
    )
    try:
        from keras_cv.src.layers.object_detection.non_max_suppression import non_max_suppression

        contenders["keras_cv, XLA"] = compiled(
            lambda b, s: non_max_suppression(b, s, kept, 0.5), boxes[None], scores[None]
        )
    except ImportError:
        pass
    try:
        from keras_hub.src.models.retinanet import non_max_supression as hub

        contenders["keras_hub, XLA"] = compiled(
            lambda b, s: hub.non_max_suppression(b, s, kept, 0.5), boxes[None], scores[None]
        )
    except ImportError:
        pass
    return contenders


def ssd_nms(batch, doubtful):
    import numpy as np

    from kerasvision.ops import nms

    boxes, scores = detector_outputs(np.random.default_rng(0), batch, 8732, 20, doubtful)
    contenders = {
        "kerasvision": compiled(
            lambda b, s: nms.batched_non_max_suppression(
                b, s, iou_threshold=0.45, score_threshold=0.01, max_detections=200
            ),
            boxes,
            scores,
        )
    }
    if on_tensorflow():
        import tensorflow as tf

        contenders["tf.image.combined_non_max_suppression"] = graph(
            lambda b, s: tf.image.combined_non_max_suppression(
                b[:, :, None], s, 200, 200, 0.45, 0.01, clip_boxes=False
            ),
            boxes,
            scores,
        )
    return contenders


def labelled_nms(batch):
    import numpy as np

    from kerasvision.ops import nms

    rng = np.random.default_rng(0)
    boxes = np.stack([random_boxes(rng, 5000, clustered=True) for _ in range(batch)])
    scores = rng.beta(1, 8, (batch, 5000)).astype("float32")
    labels = rng.integers(0, 80, (batch, 5000)).astype("int32")
    contenders = {
        "kerasvision": compiled(
            lambda b, s, c: nms.labelled_non_max_suppression(
                b, s, c, iou_threshold=0.5, score_threshold=0.05, max_detections=100
            ),
            boxes,
            scores,
            labels,
        )
    }
    if on_tensorflow():
        import tensorflow as tf

        # The usual way to keep classes apart, though the sums round coordinates.
        def picture_by_picture(b, s, c):
            apart = b + tf.cast(c, "float32")[:, :, None] * 2.0
            return [
                tf.image.non_max_suppression(apart[i], s[i], 100, 0.5, 0.05) for i in range(batch)
            ]

        contenders["tf.image.non_max_suppression, a loop"] = graph(
            picture_by_picture, boxes, scores, labels
        )
    return contenders


def crop_and_pool(size, levels):
    """The usual surrogate of RoIAlign: crops at twice the size, averaged two by two.

    It is handed each map's RoIs ready, which spares it the work of sorting them.
    """
    import numpy as np
    import tensorflow as tf

    chosen = [np.flatnonzero(levels == level) for level in range(levels.max() + 1)]

    def call(*tensors):
        *maps, rois = tensors
        crops = [
            tf.image.crop_and_resize(
                features,
                tf.gather(rois[0], index),
                tf.zeros(len(index), "int32"),
                (2 * size, 2 * size),
            )
            for features, index in zip(maps, chosen)
        ]
        return tf.nn.avg_pool2d(tf.concat(crops, axis=0), 2, 2, "VALID")

    return call


def fpn_roi_align(size, backward):
    import numpy as np
    from keras import ops

    from kerasvision.ops import roi

    rng = np.random.default_rng(0)
    maps, rois = pyramid(rng, 1000)

    def ours(*tensors):
        *levels, boxes = tensors
        return roi.multilevel_roi_align(levels, boxes, size, image_size=(800, 1216))

    tensors = [*maps, rois]
    crop = None
    if on_tensorflow():
        levels = ops.convert_to_numpy(roi.fpn_levels(rois, (800, 1216), 2, 5))[0] - 2
        crop = crop_and_pool(size, levels)
    if backward:
        ours = with_gradients(ours, len(maps))
        crop = crop and with_gradients(crop, len(maps))
        tensors.append(rng.normal(size=(1, 1000, size, size, 256)).astype("float32"))
    contenders = {"kerasvision": compiled(ours, *tensors)}
    if crop:
        # The crops come without the axis of pictures.
        tensors = [*tensors[:5], *(x[0] for x in tensors[5:])]
        contenders["tf.image.crop_and_resize at 2P, average pooling"] = graph(crop, *tensors)
    return contenders


def one_map(operator, size):
    """RoIAlign or RoI max pooling on conv5_3 of VGG16, 1000 RoIs, 512 channels."""
    import numpy as np

    from kerasvision.ops import roi, roi_pooling

    rng = np.random.default_rng(0)
    _, rois = pyramid(rng, 1000)
    features = rng.normal(size=(1, 38, 50, 512)).astype("float32")
    function = {"roi_align": roi.roi_align, "roi_pool": roi_pooling.roi_max_pooling}[operator]
    contenders = {"kerasvision": compiled(lambda f, r: function(f, r, size), features, rois)}
    if flags.FLAGS.torchvision_python:
        contenders["torchvision"] = torchvision(operator, features, rois, size)
    return contenders


def pool_and_unpool(training):
    """SegNet's pair on a batch of two maps 112 x 112 x 64."""
    import numpy as np

    from kerasvision.ops import unpooling

    rng = np.random.default_rng(0)
    x, upstream = rng.normal(size=(2, 2, 112, 112, 64)).astype("float32")

    def ours(x):
        return unpooling.max_unpooling(*unpooling.max_pooling_with_indices(x))

    def builtin(x):
        maxima, argmax = tf.nn.max_pool_with_argmax(x, 2, 2, "VALID", include_batch_in_index=True)
        argmax, maxima = tf.reshape(argmax, (-1, 1)), tf.reshape(maxima, (-1,))
        return tf.reshape(tf.scatter_nd(argmax, maxima, (np.prod(x.shape),)), x.shape)

    name = "tf.nn.max_pool_with_argmax, tf.scatter_nd"
    if not training:
        contenders = {"kerasvision": compiled(ours, x)}
        if on_tensorflow():
            import tensorflow as tf

            contenders[name] = graph(builtin, x)
        return contenders
    if not on_tensorflow():
        return {"kerasvision": compiled(with_gradients(ours, 1), x, upstream)}
    import tensorflow as tf

    # Networks train on CPUs in plain graphs; XLA is for inference there.
    return {
        "kerasvision": graph(with_gradients(ours, 1), x, upstream),
        name: graph(with_gradients(builtin, 1), x, upstream),
    }


WORKLOADS = {
    "NMS 2000 to 300, scattered": functools.partial(hard_nms, 2000, 300, False),
    "NMS 2000 to 300, clustered": functools.partial(hard_nms, 2000, 300, True),
    "NMS 6000 to 1000, scattered": functools.partial(hard_nms, 6000, 1000, False),
    "NMS 6000 to 1000, clustered": functools.partial(hard_nms, 6000, 1000, True),
    "SSD300 8732 x 20 to 200, 2 % doubtful, batch 1": functools.partial(ssd_nms, 1, 0.02),
    "SSD300 8732 x 20 to 200, 2 % doubtful, batch 8": functools.partial(ssd_nms, 8, 0.02),
    "SSD300 8732 x 20 to 200, 20 % doubtful, batch 1": functools.partial(ssd_nms, 1, 0.2),
    "SSD300 8732 x 20 to 200, 20 % doubtful, batch 8": functools.partial(ssd_nms, 8, 0.2),
    "RetinaNet 5000 labelled to 100, batch 1": functools.partial(labelled_nms, 1),
    "RetinaNet 5000 labelled to 100, batch 8": functools.partial(labelled_nms, 8),
    "RoIAlign FPN 7x7, forward": functools.partial(fpn_roi_align, 7, False),
    "RoIAlign FPN 14x14, forward": functools.partial(fpn_roi_align, 14, False),
    "RoIAlign FPN 7x7, forward and backward": functools.partial(fpn_roi_align, 7, True),
    "RoIAlign FPN 14x14, forward and backward": functools.partial(fpn_roi_align, 14, True),
    "RoIAlign 38x50x512, 7x7": functools.partial(one_map, "roi_align", 7),
    "RoI max pooling 38x50x512, 7x7": functools.partial(one_map, "roi_pool", 7),
    "Pooling and unpooling 2x112x112x64": functools.partial(pool_and_unpool, False),
    "Pooling and unpooling, forward and backward": functools.partial(pool_and_unpool, True),
}


# --- Report ------------------------------------------------------------------------------


def plot(results, path):
    """Bars: how many times longer than ours each peer takes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [
        (workload, peer, milliseconds / times["kerasvision"])
        for workload, times in results.items()
        for peer, milliseconds in times.items()
        if peer != "kerasvision"
    ]
    figure, axes = pyplot.subplots(figsize=(11, 1 + 0.32 * len(rows)), layout="constrained")
    ratios = [ratio for _, _, ratio in rows]
    bars = axes.barh(range(len(rows)), ratios, color="tab:blue")
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set_yticks(range(len(rows)), [f"{workload}: {peer}" for workload, peer, _ in rows])
    axes.tick_params(axis="y", labelsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlabel("time of the peer, in times of kerasvision")
    axes.margins(x=0.1, y=0.01)
    figure.savefig(path, dpi=110)


def main(argv):
    del argv
    config = flags.FLAGS
    folder = make_folder(config.workdir, space_needed=10_000_000)
    app.import_tensorflow()
    results = {}
    for name, contenders in WORKLOADS.items():
        if not re.search(config.only, name):
            continue
        results[name] = time_interleaved(contenders(), config.rounds)
        ours = results[name]["kerasvision"]
        print(f"\n{name}\n  {ours:9.3f} ms         kerasvision")
        for peer, milliseconds in results[name].items():
            if peer != "kerasvision":
                print(f"  {milliseconds:9.3f} ms {milliseconds / ours:6.2f} x {peer}", flush=True)
        (folder / "benchmark.json").write_text(json.dumps(results, indent=2) + "\n")
    if any(len(times) > 1 for times in results.values()):
        plot(results, folder / "benchmark.png")
    print(f"\n{folder / 'benchmark.json'}")


if __name__ == "__main__":
    app.run_main(main, __doc__)
