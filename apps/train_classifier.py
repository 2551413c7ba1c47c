"""Trains a classifier, measures it, draws what it mistakes, and exports it.

  python apps/train_classifier.py --flagfile=configs/train_classifier/quickstart.flags
  python apps/train_classifier.py --dataset=folder:MY_PICTURES --model=resnet50 --weights=imagenet

The run folder (--workdir) holds, in the end:
  flags.txt       the flags as run; --flagfile=flags.txt repeats the run
  metrics.json    top-1, top-5 and every class's accuracy on the test split, seconds spent; with
                  --adversarial_epsilon also how much of it is left under attack
  history.csv     loss and accuracy of every epoch; curves.png draws them; tensorboard/ has them too
  confusion.png   how often each class was taken for each; confusion.csv has the numbers
  most_confused.png   the mistakes with the highest scores
  samples.png     held-out pictures with the best predictions
  best.keras, last.keras   the model at its best and its last epoch
  saved_model/, model_float32.tflite, model_float16.tflite, model_int8.tflite   the exports

Started again after a crash, the same command goes on from the last checkpoint.
"""

import sys
import time

from absl import flags

from kerasvision.training import app, run_folder

# Name: (side of the paper's pictures, parameters with 1000 classes or the paper's).
NETWORKS = {
    "lenet5": (32, 61_706),
    "alexnet": (227, 60_965_224),
    "alexnet_one_tower": (224, 61_100_840),
    "vgg11": (224, 132_863_336),
    "vgg13": (224, 133_047_848),
    "vgg16": (224, 138_357_544),
    "vgg19": (224, 143_667_240),
    "network_in_network": (32, 966_986),
    "googlenet": (224, 13_378_280),
    "inception_v3": (299, 27_179_376),
    "inception_resnet_v2": (299, 55_873_736),
    "resnet18": (224, 11_689_512),
    "resnet34": (224, 21_797_672),
    "resnet50": (224, 25_636_712),
    "resnet101": (224, 44_707_176),
    "resnet152": (224, 60_419_944),
    "cifar_resnet": (32, 1_727_962),
    "densenet121": (224, 8_062_504),
    "densenet169": (224, 14_307_880),
    "densenet201": (224, 20_242_984),
    "cifar_densenet": (32, 1_019_722),
    "mobilenet_v2": (224, 3_538_984),
    "squeezenet": (224, 1_235_496),
}
FILLS = {"mean": (124, 116, 104), "black": (0, 0, 0)}  # RGB
BYTES_PER_PARAMETER = 48  # of two models with optimizer state, one being written, and exports

app.define_flags(
    "runs/train_classifier", dataset="scenes", dataset_help=app.CLASSIFICATION_DATASETS
)
flags.DEFINE_enum("model", "resnet18", list(NETWORKS), "Which network.")
flags.DEFINE_integer("image_size", None, "Side of the input in pixels. Default: as in the paper.")
flags.DEFINE_enum(
    "connections", "table", ["table", "dense"], "Of lenet5: the paper's, or as most build it."
)
flags.DEFINE_integer("depth", None, "Layers of cifar_resnet (20) or cifar_densenet (40).")
flags.DEFINE_enum("shortcuts", "A", ["A", "B", "none"], "Of cifar_resnet; none: the plain network.")
flags.DEFINE_integer("growth_rate", None, "Maps that a layer of cifar_densenet adds (12).")
flags.DEFINE_bool(
    "bottleneck", False, "DenseNet-BC: bottlenecks and halving transitions (cifar_densenet only)."
)
flags.DEFINE_float("width_multiplier", 1.0, "Factor on the channels of mobilenet_v2.")
flags.DEFINE_bool("auxiliary_heads", False, "Train with them (googlenet and inception_v3 only).")
flags.DEFINE_string(
    "weights",
    None,
    "imagenet (fetched by Keras), or a path: .h5 as of keras.applications, .npz or .safetensors as "
    "of torchvision. Behind them comes a new classifier. Default: random.",
)
flags.DEFINE_bool("freeze_backbone", False, "Train the classifier behind --weights alone.")
flags.DEFINE_float("dropout", 0.2, "Before the classifier behind --weights.", 0.0, 0.99)
flags.DEFINE_integer("epochs", 30, "Passes over the training pictures.", lower_bound=1)
flags.DEFINE_integer("batch_size", 64, "Pictures in a step.", lower_bound=1)
flags.DEFINE_enum("optimizer", "sgd", ["sgd", "adamw"], "SGD with momentum 0.9, or AdamW.")
flags.DEFINE_float("learning_rate", 0.05, "Highest learning rate.")
flags.DEFINE_enum(
    "schedule",
    "cosine",
    ["cosine", "step", "constant"],
    "How it falls: to 0, or by 10 after a half and three quarters of the epochs, or not at all.",
)
flags.DEFINE_float("warmup_epochs", 1.0, "Epochs in which the learning rate rises to it.")
flags.DEFINE_float("weight_decay", 5e-4, "Of kernels, decoupled from the gradient.")
flags.DEFINE_float("label_smoothing", 0.0, "Part of a label spread over all classes.", 0.0, 0.99)
flags.DEFINE_bool("flip", True, "Swap left and right in half of the pictures.")
flags.DEFINE_integer(
    "pad", 0, "Pixels around a picture of which it is cropped again, as for CIFAR.", lower_bound=0
)
flags.DEFINE_enum("fill", "mean", ["mean", "black"], "Colour of --pad: ImageNet's mean, or black.")
flags.DEFINE_float(
    "min_area", 1.0, "Smallest part of a picture that a crop has, as for ImageNet; 1: all.", 0.01, 1
)
flags.DEFINE_float("randaugment", 0.0, "Strength of RandAugment, 0 (none) to 1.", 0.0, 1.0)
flags.DEFINE_float("mixup", 0.0, "Alpha of mixup; 0: none.", lower_bound=0.0)
flags.DEFINE_float("cutmix", 0.0, "Alpha of CutMix; 0: none.", 0.0, 1.0)
flags.DEFINE_string(
    "adversarial_epsilon",
    None,
    "Train on adversarial examples too, whose pixels change by so much at most: 8 or, the same, "
    "8/255. Robust accuracy at this epsilon is measured in the end. Default: none of it.",
)
flags.DEFINE_integer(
    "adversarial_steps",
    None,
    "Steps of their gradient sign; 1: FGSM, more: PGD (7).",
    lower_bound=1,
)
flags.DEFINE_float("adversarial_share", None, "Their weight in the loss (0.5).", 0.0, 1.0)
flags.DEFINE_float(
    "crop_fraction", 1.0, "Part of a held-out picture's side that the centre crop keeps.", 0.01, 1.0
)
flags.DEFINE_integer("eval_every", 1, "Epochs between evaluations.", lower_bound=1)
flags.DEFINE_bool(
    "deterministic", False, "Same seed, same numbers to the last bit; up to twice as slow."
)
flags.DEFINE_list(
    "export", "saved_model,float32,float16,int8", "What to export: saved_model and/or precisions."
)


def check_flags(config):
    """Refuses flags that the chosen network would not heed."""
    for name, is_set, models in [
        ("connections", config.connections != "table", ["lenet5"]),
        ("depth", config.depth is not None, ["cifar_resnet", "cifar_densenet"]),
        ("shortcuts", config.shortcuts != "A", ["cifar_resnet"]),
        ("growth_rate", config.growth_rate is not None, ["cifar_densenet"]),
        ("bottleneck", config.bottleneck, ["cifar_densenet"]),
        ("width_multiplier", config.width_multiplier != 1.0, ["mobilenet_v2"]),
        ("auxiliary_heads", config.auxiliary_heads, ["googlenet", "inception_v3"]),
    ]:
        if is_set and config.model not in models:
            raise run_folder.RunError(
                f"--{name}: is for --model={' or '.join(models)}; received: --model={config.model}"
            )
    if config.weights is None and config.freeze_backbone:
        raise run_folder.RunError("--freeze_backbone: needs --weights; received: none")
    if config.weights is not None and config.auxiliary_heads:
        raise run_folder.RunError(
            f"--auxiliary_heads: start at random; received: --weights={config.weights}"
        )
    for name in ("adversarial_steps", "adversarial_share"):
        if getattr(config, name) is not None and config.adversarial_epsilon is None:
            raise run_folder.RunError(f"--{name}: needs --adversarial_epsilon; received: none")
    if config.adversarial_share == 0.0:
        raise run_folder.RunError("--adversarial_share: must be above 0; received: 0.0")
    if config.adversarial_epsilon is not None:
        epsilon = app.read_epsilon("adversarial_epsilon", config.adversarial_epsilon)
        if epsilon == 0:
            raise run_folder.RunError("--adversarial_epsilon: must be above 0; received: 0")


def build_network(config, num_classes):
    """The network that the flags ask for, from images to logits."""
    from keras import Model, layers

    from kerasvision import backbones

    side = config.image_size or NETWORKS[config.model][0]
    particular = {
        "lenet5": {"connections": config.connections},
        "googlenet": {"auxiliary_heads": config.auxiliary_heads},
        "inception_v3": {"auxiliary_heads": config.auxiliary_heads},
        "cifar_resnet": {
            "depth": config.depth or 20,
            "shortcuts": None if config.shortcuts == "none" else config.shortcuts,
        },
        "cifar_densenet": {
            "depth": config.depth or 40,
            "growth_rate": config.growth_rate or 12,
            "bottleneck": config.bottleneck,
            "compression": 0.5 if config.bottleneck else 1.0,
        },
        "mobilenet_v2": {"width_multiplier": config.width_multiplier},
    }
    network = getattr(backbones, config.model)(
        image_shape=(side, side, 3),
        num_classes=num_classes,
        include_top=config.weights is None,
        weights=config.weights,
        classifier_activation=None,
        **particular.get(config.model, {}),
    )
    if config.weights is None:
        return network
    if config.freeze_backbone:
        network.trainable = False
    x = layers.GlobalAveragePooling2D(name="avg_pool")(network.output)
    x = layers.Dropout(config.dropout, name="dropout")(x)
    logits = layers.Dense(num_classes, dtype="float32", name="predictions")(x)
    return Model(network.input, logits, name=network.name)


def build_classifier(config, class_names):
    """The network with its loss, and with examples of its own to train on if the flags say so."""
    from kerasvision.classification import AdversarialClassifier, Classifier

    network = build_network(config, len(class_names))
    if config.adversarial_epsilon is None:
        return Classifier(network, class_names, label_smoothing=config.label_smoothing)
    return AdversarialClassifier(
        network,
        class_names,
        label_smoothing=config.label_smoothing,
        epsilon=app.read_epsilon("adversarial_epsilon", config.adversarial_epsilon),
        steps=config.adversarial_steps or 7,
        share=config.adversarial_share or 0.5,
        seed=config.seed,
    )


def run(config):
    """Trains, evaluates, draws and exports; `config` has the flags as attributes."""
    started = time.perf_counter()
    check_flags(config)
    workdir = run_folder.prepare(
        config.workdir,
        run_folder.app_flags(),
        config.resume,
        50e6 + BYTES_PER_PARAMETER * NETWORKS[config.model][1],
    )
    app.import_tensorflow()
    import keras

    from kerasvision import data, drawing, export
    from kerasvision.classification import evaluation, robust_accuracy
    from kerasvision.training import callbacks, strategy

    app.start(config.seed, config.mixed_precision, config.deterministic)
    devices = strategy.make_strategy(config.strategy)

    # Data.
    train, val, test = app.load_splits(data.load_classification, config)
    steps = data.steps_per_epoch(train, config.batch_size)
    seconds = {"data": time.perf_counter() - started}

    # Model.
    with devices.scope():
        model = build_classifier(config, train.class_names)
        app.compile_model(model, config, steps, config.schedule)
    checkpoint = callbacks.Checkpoint(workdir, steps, monitor="val_accuracy")
    with devices.scope():
        epochs_done = checkpoint.restore(model)
    if epochs_done:
        print(f"going on after epoch {epochs_done} of {config.epochs}")

    # Training.
    def held_out(dataset):
        return data.classification_batches(
            dataset, model.image_shape, config.batch_size, crop_fraction=config.crop_fraction
        )

    if epochs_done < config.epochs:
        train_batches = data.classification_batches(
            train,
            model.image_shape,
            config.batch_size,
            augmentation=data.ClassificationAugmentation(
                model.image_shape,
                len(train.class_names),
                flip=config.flip,
                pad=config.pad,
                fill=FILLS[config.fill],
                min_area=config.min_area,
                randaugment_magnitude=config.randaugment,
                mixup_alpha=config.mixup,
                cutmix_alpha=config.cutmix,
            ),
            shuffle=True,
            seed=config.seed,
            first_epoch=epochs_done,
            epochs=config.epochs,
            drop_remainder=True,
        )
        model.fit(
            train_batches,
            initial_epoch=epochs_done,
            epochs=config.epochs,
            steps_per_epoch=steps,
            shuffle=False,  # the batches are shuffled
            verbose=1 if sys.stdout.isatty() else 2,
            callbacks=[
                callbacks.StopOnNonFiniteLoss(),
                evaluation.ClassificationEvaluation(
                    held_out(val), config.eval_every, config.epochs
                ),
                checkpoint,
                keras.callbacks.TensorBoard(workdir / "tensorboard", write_graph=False),
            ],
        )
    drawing.plot_history(checkpoint.history, workdir / "curves.png")
    seconds["training"] = sum(row["seconds"] for row in checkpoint.rows)

    # Evaluation of the best epoch.
    best_epoch, _ = checkpoint.best
    model.load_weights(workdir / "best.keras")
    before = time.perf_counter()
    metrics = evaluation.evaluate(model, held_out(test), workdir)
    if config.adversarial_epsilon is not None:
        metrics["robust_accuracy"] = robust_accuracy(
            model, held_out(test), model.epsilon, config.seed
        )
    seconds["evaluation"] = time.perf_counter() - before
    metrics.update(
        dataset=config.dataset,
        split=test.split,
        pictures=test.num_examples,
        epoch=best_epoch,
        parameters=model.predictor.count_params(),
        seconds=seconds,
    )
    run_folder.write_json(workdir / "metrics.json", metrics)

    # Exports.
    before = time.perf_counter()
    if config.export:
        export.export_classifier(model, workdir, config.export, train)
    seconds["export"] = time.perf_counter() - before
    seconds["total"] = time.perf_counter() - started
    metrics["seconds"] = {name: round(value, 1) for name, value in seconds.items()}
    run_folder.write_json(workdir / "metrics.json", metrics)

    print(f"\n{test.split} split of {config.dataset}, weights of epoch {best_epoch}:")
    print(evaluation.format_table(metrics))
    app.print_files(workdir, seconds["total"])
    return metrics


def main(argv):
    del argv
    run(flags.FLAGS)


if __name__ == "__main__":
    app.run_main(main, __doc__)
