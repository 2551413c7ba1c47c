"""Times R-CNN, SPP-net, Fast and Faster R-CNN with the papers' VGG-16 on one photograph.

  python tools/benchmark_rcnns.py

The photograph, scikit-learn's "china.jpg", is scaled as in the papers, its shorter side to some 600
pixels. Selective search, in its fast mode, finds at most 2,000 regions, which all but Faster R-CNN
classify; R-CNN sends a crop of 224 x 224 pixels of each through the network. Weights are random,
which leaves convolutions their time, while suppression may have less to do. Told are the seconds of
each stage, the median of --rounds (R-CNN has one), and how many times faster than R-CNN each is,
with the search and without.

R-CNN takes minutes. On two cores, take care that nothing else runs beside it.
"""

import statistics
import time

from absl import flags

from kerasvision.training import app

flags.DEFINE_integer("rounds", 3, "Of each but R-CNN.", lower_bound=1)

IMAGE_SHAPE = (608, 912, 3)
NUM_CLASSES = 20  # of Pascal VOC
UNITS = (4096, 4096)
HEADER = (
    "method", "s: search", "s: features", "s: classification", "s: total", "speed-up",
    "without the search",
)  # fmt: skip


def build_models():
    """Dict of a name to a detector."""
    from kerasvision import backbones
    from kerasvision.detection import RCNN, fast_rcnn_vgg16, faster_rcnn_vgg16, spp_net
    from kerasvision.detection.rcnn import fully_connected_layers

    # `rcnn` would leave out pool5, in whose place others have the pooling of regions.
    crops = backbones.vgg16((224, 224, 3), include_top=False)
    head = fully_connected_layers(crops.output.shape[1:], UNITS, NUM_CLASSES)
    return {
        "R-CNN": RCNN(crops, head, NUM_CLASSES, IMAGE_SHAPE),
        "SPP-net": spp_net(NUM_CLASSES, IMAGE_SHAPE, "vgg16", units=UNITS),
        "Fast R-CNN": fast_rcnn_vgg16(NUM_CLASSES, IMAGE_SHAPE),
        "Faster R-CNN": faster_rcnn_vgg16(NUM_CLASSES, IMAGE_SHAPE),
    }


def timed(function, rounds):
    """What a function returns, and the median of its seconds."""
    seconds = []
    for _ in range(rounds):
        before = time.perf_counter()
        value = function()
        seconds.append(time.perf_counter() - before)
    return value, statistics.median(seconds)


def main(argv):
    del argv
    app.import_tensorflow()
    import keras
    from sklearn.datasets import load_sample_image

    rounds = flags.FLAGS.rounds
    image = keras.ops.image.resize(load_sample_image("china.jpg")[None], IMAGE_SHAPE[:2])
    image = keras.ops.convert_to_numpy(image)
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}")
    models = build_models()
    proposals, search = timed(lambda: models["R-CNN"].propose(image), rounds)
    baseline = None
    for name, model in models.items():
        if name == "Faster R-CNN":
            model.predict_on_batch(image)  # compiles
            stages = [0.0, timed(lambda: model.predict_on_batch(image), rounds)[1], 0.0]
        else:
            # R-CNN's crops are batches of 64 in any case.
            first = proposals[:, :64] if name == "R-CNN" else proposals
            model.extract_on_batch(image, first)  # compiles
            features, extraction = timed(
                lambda: model.extract_on_batch(image, proposals), 1 if name == "R-CNN" else rounds
            )
            model.classify_on_batch(features, proposals)
            _, classification = timed(lambda: model.classify_on_batch(features, proposals), rounds)
            stages = [search, extraction, classification]
        baseline = baseline or stages
        numbers = [f"{x:.2f}" for x in (*stages, sum(stages))]
        speedup = f"{sum(baseline) / sum(stages):.1f}x"
        without = f"{sum(baseline[1:]) / sum(stages[1:]):.1f}x"
        print(f"| {' | '.join([name, *numbers, speedup, without])} |", flush=True)
    count = int((proposals[0, :, 2] > proposals[0, :, 0]).sum())
    print(f"\n{count} regions")


if __name__ == "__main__":
    app.run_main(main, __doc__)
