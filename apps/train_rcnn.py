"""Trains the detectors that led to Faster R-CNN, and measures how long each takes for a picture.

  python apps/train_rcnn.py --method=fast_rcnn --backbone_weights=imagenet \\
    --workdir=runs/fast_rcnn
  python apps/train_rcnn.py --flagfile=configs/train_rcnn/fast_rcnn.flags
  python tools/compare_rcnns.py --runs=runs/rcnn,runs/spp_net,runs/fast_rcnn

--method:
  rcnn            selective search; each region is a crop that goes through the network;
                  SVMs and box regressors on its features
  sliding_window  the network of an R-CNN (--initial_model) on windows all over the picture
  spp_net         selective search; the features of the picture are shared; SVMs and regressors
  fast_rcnn       selective search; shared features, and all is trained at once
  rcnn_minus_r    Fast R-CNN on clusters of the training boxes instead of a search
  faster_rcnn     Fast R-CNN on proposals of a network

The run folder (--workdir) holds, in the end:
  flags.txt       the flags as run; --flagfile=flags.txt repeats the run
  metrics.json    COCO metrics on the test split; seconds a picture of each stage, the median
  history.csv     losses of every epoch; curves.png draws them; tensorboard/ has them too
  samples.png     held-out pictures, ground truth beside prediction
  best.keras      the detector; last.keras: the network at its last epoch

Started again after a crash, the same command goes on from the last checkpoint. What selective
search found is kept in --proposals_dir, where other runs find it.
"""

import concurrent.futures
import os
import re
import sys
import time

from absl import flags

from kerasvision.training import app, run_folder

app.define_flags("runs/train_rcnn", dataset="scenes", dataset_help=app.DETECTION_DATASETS)
METHODS = ["rcnn", "sliding_window", "spp_net", "fast_rcnn", "rcnn_minus_r", "faster_rcnn"]
SEARCHING = ["rcnn", "spp_net", "fast_rcnn"]
# Flag: the methods that heed it.
HEEDED_BY = {
    "crop_size": ["rcnn"],
    "classifier": ["rcnn", "spp_net"],
    "post_hoc_pictures": ["rcnn", "spp_net"],
    "num_clusters": ["rcnn_minus_r"],
    "search_mode": SEARCHING,
    "initial_model": ["sliding_window"],
}
flags.DEFINE_enum("method", "fast_rcnn", METHODS, "Which detector.")
flags.DEFINE_integer("image_size", 256, "Side of the pictures in pixels.", lower_bound=64)
flags.DEFINE_enum(
    "backbone", "mobilenet_v2", ["mobilenet_v2", "squeezenet", "alexnet", "vgg16"],
    "Network whose convolutions, up to stride 16, compute the features.",
)  # fmt: skip
flags.DEFINE_string(
    "backbone_weights",
    None,
    "imagenet (fetched by Keras; mobilenet_v2, vgg16), or a path: .h5 as of keras.applications, "
    ".npz as of torchvision. Default: random.",
)
flags.DEFINE_integer("units", 512, "Of each of the two fully connected layers.", lower_bound=1)
flags.DEFINE_integer(
    "crop_size", None, "Side of the crops in pixels (rcnn). Default: 128.", lower_bound=32
)
flags.DEFINE_enum(
    "classifier", None, ["svm", "softmax"],
    "SVMs and box regressors, or the softmax that the network was trained with (rcnn, spp_net). "
    "Default: svm.",
)  # fmt: skip
flags.DEFINE_integer(
    "post_hoc_pictures",
    None,
    "Pictures whose features train SVMs and regressors (rcnn, spp_net). Default: all.",
    lower_bound=1,
)
flags.DEFINE_integer("num_clusters", None, "Proposals (rcnn_minus_r). Default: 300.", lower_bound=1)
flags.DEFINE_enum(
    "search_mode", None, ["single", "fast", "quality"],
    "Of selective search (rcnn, spp_net, fast_rcnn). Default: fast.",
)  # fmt: skip
flags.DEFINE_string(
    "proposals_dir",
    "runs/proposals",
    "Folder that keeps what selective search found; to be deleted if pictures change.",
)
flags.DEFINE_string(
    "initial_model", None, "Run folder of an R-CNN, whose network scores the windows."
)
flags.DEFINE_integer("num_samples", 64, "Regions of a picture in a step.", lower_bound=4)
flags.DEFINE_integer("epochs", 10, "Passes over the training pictures.", lower_bound=1)
flags.DEFINE_integer("batch_size", 2, "Pictures in a step.", lower_bound=1)
flags.DEFINE_enum("optimizer", "adamw", ["sgd", "adamw"], "SGD with momentum 0.9, or AdamW.")
flags.DEFINE_float("learning_rate", 5e-4, "Highest learning rate; it falls as a cosine.")
flags.DEFINE_float("warmup_epochs", 0.5, "Epochs in which the learning rate rises to it.")
flags.DEFINE_float("weight_decay", 1e-4, "Of kernels, decoupled from the gradient.")
flags.DEFINE_bool(
    "deterministic", False, "Same seed, same numbers to the last bit; up to twice as slow."
)


def check_flags(config):
    """Refuses flags that the chosen method would not heed, and a window without a classifier."""
    app.refuse_unheeded(config, "method", HEEDED_BY)
    if config.method == "sliding_window" and config.initial_model is None:
        raise run_folder.RunError(
            "--initial_model: must be the run folder of an R-CNN for --method=sliding_window; "
            "received: none"
        )


def build_model(config, train):
    """The detector that the flags ask for."""
    from kerasvision.detection import RCNN, fast_rcnn, rcnn, rcnn_minus_r, spp_net
    from kerasvision.detection.proposals import sliding_windows

    shape = (config.image_size, config.image_size, 3)
    if config.method == "sliding_window":
        trained = run_folder.load_model(config.initial_model)
        if type(trained) is not RCNN or trained.image_shape != shape:
            raise run_folder.RunError(
                f"--initial_model={config.initial_model}: must be an R-CNN for pictures of "
                f"{config.image_size} pixels; received: {type(trained).__name__} for "
                f"{getattr(trained, 'image_shape', ())}"
            )
        # Nothing moves the windows.
        settings = {"fixed_proposals": sliding_windows().tolist(), "regress_boxes": False}
        model = RCNN.from_config({**trained.get_config(), **settings})
        model.set_weights(trained.get_weights())
        return model
    settings = {
        "num_classes": len(train.class_names),
        "image_shape": shape,
        "backbone": config.backbone,
        "backbone_weights": config.backbone_weights,
        "class_names": train.class_names,
        "units": (config.units, config.units),
        "num_samples": config.num_samples,
    }
    if config.method in SEARCHING:
        settings["search_mode"] = config.search_mode or "fast"
    if config.method == "rcnn":
        return rcnn(**settings, crop_size=config.crop_size or 128)
    if config.method == "spp_net":
        return spp_net(**settings)
    if config.method == "fast_rcnn":
        return fast_rcnn(**settings)
    if config.method == "rcnn_minus_r":
        import numpy as np

        boxes = np.concatenate([record.boxes[~record.ignored] for record in train.records])
        return rcnn_minus_r(
            training_boxes=boxes,
            num_clusters=config.num_clusters or 300,
            seed=config.seed,
            **settings,
        )
    return build_faster_rcnn(config, train.class_names)


def build_faster_rcnn(config, class_names):
    """Faster R-CNN as in its paper, on one map, with the layers of the others."""
    from kerasvision.detection.fast_rcnn import fast_rcnn_head
    from kerasvision.detection.faster_rcnn import FasterRCNN
    from kerasvision.detection.region_detector import convolutional_layers
    from kerasvision.detection.region_proposals import region_proposal_network

    shape = (config.image_size, config.image_size, 3)
    trunk = convolutional_layers(config.backbone, shape, config.backbone_weights)
    return FasterRCNN(
        region_proposal_network(trunk.input, {"stride16": trunk.output}, 9, filters=256),
        fast_rcnn_head((7, 7, trunk.output.shape[-1]), (config.units,) * 2, len(class_names)),
        len(class_names),
        # The paper's 128, 256 and 512 pixels are for pictures whose shorter side has 600.
        anchor_scales=[tuple(config.image_size * side / 600 for side in (128, 256, 512))],
        class_names=class_names,
        roi_pooling="max",
        num_samples=config.num_samples,
        proposal_candidates=(2000, 1000),
        num_proposals=(300, 100),
        iou_threshold=0.3,
        name="faster_rcnn",
    )


def searched_proposals(dataset, config):
    """What selective search finds in all pictures: dict of image id to proposals (N, 4).

    It is read from --proposals_dir as far as it is there, and written to it.
    """
    import numpy as np

    from kerasvision import data
    from kerasvision.detection.proposals import selective_search

    mode = config.search_mode or "fast"
    split = dataset.split.partition("[")[0]  # of which it may be a part
    name = re.sub(r"\W+", "_", f"{config.dataset}_{split}_{config.image_size}_{mode}")
    path = run_folder.make_folder(config.proposals_dir, space_needed=50e6) / f"{name}.npz"
    found = {}
    if path.exists():
        with np.load(path) as file:
            ends = np.cumsum(file["counts"])[:-1]
            found = dict(zip(file["image_ids"].tolist(), np.split(file["boxes"], ends)))
    missing = len(set(dataset.image_ids) - set(found))
    if missing:
        print(f"selective search in {missing} pictures of split {dataset.split}")
        shape = (config.image_size, config.image_size, 3)
        pictures = {
            int(batch["image_ids"][0]): batch["images"][0]
            for batch in data.batches(dataset, shape, 1).as_numpy_iterator()
            if batch["image_ids"][0] not in found
        }
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            boxes = pool.map(lambda image: selective_search(image, mode), pictures.values())
            found.update(zip(pictures, boxes))
        temporary = path.with_name(f".new-{path.name}")
        np.savez(
            temporary,
            image_ids=list(found),
            counts=[len(x) for x in found.values()],
            boxes=np.concatenate(list(found.values())),
        )
        os.replace(temporary, path)
    return {i: found[i] for i in dataset.image_ids}


def with_proposals(batches, found, number):
    """Adds "proposals" (B, number, 4) to batches, from a dict of image id to proposals."""
    import numpy as np
    import tensorflow as tf

    from kerasvision.detection.proposals import padded

    image_ids = tf.constant(list(found), tf.int64)
    boxes = tf.constant(np.stack([padded(x, number) for x in found.values()]))

    def add(batch):
        rows = tf.argmax(tf.equal(batch["image_ids"][:, None], image_ids), axis=1)
        return {**batch, "proposals": tf.gather(boxes, rows)}

    return batches.map(add)


def flipped_at_random(batches, seed, first_batch):
    """Mirrors batches, left and right, at random: the papers' only augmentation."""
    import tensorflow as tf

    def mirror(boxes):
        top, left, bottom, right = tf.unstack(boxes, axis=-1)
        real = tf.cast(bottom > top, boxes.dtype)[..., None]  # padding stays 0
        return tf.stack([top, 1.0 - right, bottom, 1.0 - left], axis=-1) * real

    def flip(number, batch):
        truth = batch["bounding_boxes"]
        flipped = {
            **batch,
            "images": tf.reverse(batch["images"], axis=[2]),
            "bounding_boxes": {**truth, "boxes": mirror(truth["boxes"])},
        }
        if "proposals" in batch:
            flipped["proposals"] = mirror(batch["proposals"])
        draw_seed = tf.stack([tf.cast(seed, tf.int64), number])
        is_flipped = tf.random.stateless_uniform((), seed=draw_seed) < 0.5
        return tf.nest.map_structure(lambda a, b: tf.where(is_flipped, a, b), flipped, batch)

    return tf.data.Dataset.zip(tf.data.Dataset.counter(first_batch), batches).map(flip)


def evaluate_in_stages(model, dataset, variants):
    """COCO metrics, and the seconds of each stage, picture by picture.

    Args:
        model: `ProposalDetector`, or another detector, whose stages aren't told apart.
        dataset: `DetectionDataset`.
        variants: dict of a name to arguments of `RCNN.use`; the last one stays in use, and its
            seconds count. Empty: as the model is.

    Returns:
        dict of the metrics of the last variant; "variants": name to AP and AP50; "proposals":
        number of a picture, mean; "recall": of the proposals, share of objects with an IoU of at
        least 0.5 and 0.7; "seconds_a_picture": medians.
    """
    import numpy as np

    from kerasvision import data
    from kerasvision.detection.region_detector import ProposalDetector
    from kerasvision.metrics.coco import coco_metrics, coco_results
    from kerasvision.ops import boxes as box_ops

    in_stages = isinstance(model, ProposalDetector)
    batches = data.batches(dataset, model.image_shape, 1)
    found = {name: [] for name in variants or {"": ()}}
    image_ids, seconds, counts, overlaps = [], [], [], []
    for batch in batches.as_numpy_iterator():
        images = batch["images"]
        image_ids.append(batch["image_ids"])
        times = [time.perf_counter()]
        if in_stages:
            proposals = model.propose(images)
            times.append(time.perf_counter())
            features = model.extract_on_batch(images, proposals)
            times.append(time.perf_counter())
            for name in found:
                if name:
                    model.use(*variants[name])
                before = time.perf_counter()
                found[name].append(model.classify_on_batch(features, proposals))
            times.append(times[-1] + time.perf_counter() - before)
            real = proposals[0][(proposals[0, :, 2:] > proposals[0, :, :2]).all(axis=1)]
            boxes = batch["bounding_boxes"]["boxes"][0][batch["bounding_boxes"]["labels"][0] >= 0]
            counts.append(len(real))
            if len(real) and len(boxes):
                overlaps += np.asarray(box_ops.iou(boxes, real)).max(axis=1).tolist()
            else:
                overlaps += [0.0] * len(boxes)
        else:
            found[""].append(model.predict_on_batch(images))
            times.append(time.perf_counter())
        seconds.append(np.diff(times))

    truth = dataset.ground_truth()
    image_ids = np.concatenate(image_ids)
    of_variants = {}
    for name, detections in found.items():
        detections = stacked(detections)
        metrics = coco_metrics(truth, coco_results(detections, image_ids, truth))
        of_variants[name] = {"AP": metrics["AP"], "AP50": metrics["AP50"]}
    stages = ["proposals", "features", "classification"] if in_stages else ["network"]
    medians = np.median(seconds, axis=0)
    metrics["seconds_a_picture"] = {
        **{name: round(float(value), 4) for name, value in zip(stages, medians)},
        "total": round(float(medians.sum()), 4),
    }
    if variants:
        metrics["variants"] = of_variants
    if in_stages:
        overlaps = np.array(overlaps)
        metrics["proposals"] = {
            "a_picture": float(np.mean(counts)),
            **{
                f"recall{round(100 * t)}": float(np.mean(overlaps >= t)) if len(overlaps) else None
                for t in (0.5, 0.7)
            },
        }
    return metrics


def stacked(detections):
    """Detections of single pictures as one dict, padded to the same K."""
    import numpy as np

    most = max(d["labels"].shape[1] for d in detections)

    def filled(name, value):
        missing = most - value.shape[1]
        widths = [(0, 0), (0, missing)] + [(0, 0)] * (value.ndim - 2)
        return np.pad(value, widths, constant_values=-1 if name == "labels" else 0)

    return {
        name: np.concatenate([filled(name, d[name]) for d in detections])
        for name in ("boxes", "scores", "labels")
    }


def run(config):
    """Trains, evaluates and draws; `config` has the flags as attributes."""
    started = time.perf_counter()
    check_flags(config)
    workdir = run_folder.prepare(
        config.workdir,
        run_folder.app_flags(),
        config.resume,
        space_needed=500e6,
    )
    app.import_tensorflow()
    import keras

    from kerasvision import data, drawing
    from kerasvision.detection import evaluation
    from kerasvision.metrics.coco import format_table
    from kerasvision.training import callbacks, strategy

    app.start(config.seed, config.mixed_precision, config.deterministic)
    devices = strategy.make_strategy(config.strategy)

    # Data.
    train, _, test = app.load_splits(data.load, config)
    steps = data.steps_per_epoch(train, config.batch_size)
    seconds = {"data": time.perf_counter() - started}

    # Model.
    with devices.scope():
        model = build_model(config, train)
    variants = {}
    is_trained = config.method == "sliding_window"
    if config.method in ("rcnn", "spp_net"):
        variants["softmax"] = ("softmax", False)

    # Training of the network.
    if not is_trained:
        before = time.perf_counter()
        searched = searched_proposals(train, config) if config.method in SEARCHING else None
        seconds["proposals"] = time.perf_counter() - before

        def batches_of_training(batch_size, **settings):
            batches = data.batches(train, model.image_shape, batch_size, **settings)
            if searched is None:
                return batches
            return with_proposals(batches, searched, max(map(len, searched.values())))

        with devices.scope():
            app.compile_model(model, config, steps)
        checkpoint = callbacks.Checkpoint(workdir, steps, monitor="val_AP")
        with devices.scope():
            epochs_done = checkpoint.restore(model)
        if epochs_done:
            print(f"going on after epoch {epochs_done} of {config.epochs}")
        if epochs_done < config.epochs:
            batches = batches_of_training(
                config.batch_size,
                shuffle=True,
                seed=config.seed,
                first_epoch=epochs_done,
                epochs=config.epochs,
                drop_remainder=True,
            )
            model.fit(
                flipped_at_random(batches, config.seed, epochs_done * steps),
                initial_epoch=epochs_done,
                epochs=config.epochs,
                steps_per_epoch=steps,
                shuffle=False,  # the batches are shuffled
                verbose=1 if sys.stdout.isatty() else 2,
                callbacks=[
                    callbacks.StopOnNonFiniteLoss(),
                    checkpoint,
                    keras.callbacks.TensorBoard(workdir / "tensorboard", write_graph=False),
                ],
            )
        drawing.plot_history(checkpoint.history, workdir / "curves.png")
        seconds["training"] = sum(row["seconds"] for row in checkpoint.rows)

        # What is trained on the network's features.
        if variants and config.classifier != "softmax":
            before = time.perf_counter()
            count = min(config.post_hoc_pictures or train.num_examples, train.num_examples)
            counts = model.fit_classifiers(batches_of_training(1).take(count))
            print(", ".join(f"{value} {name}" for name, value in counts.items()))
            variants["svm"] = ("svm", False)
            variants["svm, boxes regressed"] = ("svm", True)
            seconds["post_hoc"] = time.perf_counter() - before
    run_folder.save_model(model, workdir / "best.keras")

    # Evaluation.
    before = time.perf_counter()
    metrics = evaluate_in_stages(model, test, variants)
    seconds["evaluation"] = time.perf_counter() - before
    evaluation.draw_samples(
        model, data.batches(test, model.image_shape, 1), workdir / "samples.png"
    )
    seconds["total"] = time.perf_counter() - started
    metrics.update(
        method=config.method,
        dataset=config.dataset,
        split=test.split,
        pictures=test.num_examples,
        training_pictures=train.num_examples,
        parameters=model.count_params(),
        seconds={name: round(value, 1) for name, value in seconds.items()},
    )
    run_folder.write_json(workdir / "metrics.json", metrics)

    print(f"\n{test.num_examples} pictures of the {test.split} split of {config.dataset}:")
    print(format_table(metrics))
    for name, values in metrics.get("variants", {}).items():
        print(f"{name}: AP50 {values['AP50'] or 0:.3f}, AP {values['AP'] or 0:.3f}")
    stages = ", ".join(f"{name} {x:.3f}" for name, x in metrics["seconds_a_picture"].items())
    print(f"seconds a picture: {stages}")
    app.print_files(workdir, seconds["total"])
    return metrics


def main(argv):
    del argv
    run(flags.FLAGS)


if __name__ == "__main__":
    app.run_main(main, __doc__)
