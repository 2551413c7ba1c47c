"""Makes pictures that a classifier takes for something else: adversarial examples, fooling images.

  python apps/attack.py --model=runs/mobilenet_v2.keras --input=PICTURES --epsilon=4/255
  python apps/attack.py --model=runs/my_vgg --input=cat.jpg --targeted --target=guacamole
  python apps/attack.py --model=runs/quickstart_classifier --method=evolve --gray

--model is a run folder or a .keras file; evolve takes also a SavedModel folder or a .tflite file.
Pictures are cut to what the network sees of them. What it takes for another class than the true
one, as --labels_from_names tells it, is left alone; without it, what it says is the truth.

Pictures that are changed: the folder --workdir gets adversarial/NAME.png, the changed pictures;
metrics.json, with how many of these files, as they are, do what they should, how far they are from
the pictures, and every picture's numbers; and sheet.png, with pictures, changes made visible, and
changed pictures.

Pictures that evolve: the folder --workdir gets CLASS.png, as the network is surest of each class of
--target; metrics.json, with how sure; fooling.png, a sheet, drawn again and again; and history.csv,
with the median and the least score of every generation.
"""

import re
import sys
import time

from absl import flags

from kerasvision.training import app, run_folder

METHODS = ["fgsm", "iterative", "pgd", "deepfool", "lbfgs", "evolve"]
GRADIENT = METHODS[:5]
WITHIN_EPSILON = METHODS[:3]
CAN_TARGET = ["fgsm", "iterative", "pgd", "lbfgs"]
HEEDED_BY = {
    "epsilon": WITHIN_EPSILON,
    "norm": [*WITHIN_EPSILON, "deepfool"],
    "steps": ["iterative", "pgd", "deepfool", "lbfgs"],
    "step_size": ["iterative", "pgd"],
    "restarts": ["pgd"],
    "targeted": CAN_TARGET,
    "target": [*CAN_TARGET, "evolve"],
    "input": GRADIENT,
    "labels_from_names": GRADIENT,
    "count": GRADIENT,
    "crop_fraction": GRADIENT,
    "transfer_model": GRADIENT,
    "encoding": ["evolve"],
    "gray": ["evolve"],
    "generations": ["evolve"],
    "confidence": ["evolve"],
}
DEFAULT_STEPS = {"pgd": 20, "deepfool": 50, "lbfgs": 50}

flags.DEFINE_string("model", None, "Run folder or .keras file of a classifier.")
flags.DEFINE_enum("method", "pgd", METHODS, "How; see kerasvision/synthesis for the papers.")
flags.DEFINE_string("workdir", "runs/attack", "Folder for the results.")
flags.DEFINE_integer("seed", 0, "Seed of everything random: the same seed, the same pictures.")
flags.DEFINE_integer("batch_size", 20, "Pictures in a step; of evolve, in a generation.", 1)
flags.DEFINE_bool("jit_compile", None, "Compile the steps with XLA. Default: on GPUs, not on CPUs.")
flags.DEFINE_string("input", None, "A picture, or a folder of pictures.")
flags.DEFINE_bool(
    "labels_from_names", None, "File names start with the number of the true class, from 0."
)
flags.DEFINE_integer("count", None, "So many pictures, at most, are changed (100).", lower_bound=1)
flags.DEFINE_float(
    "crop_fraction", None, "Part of a picture's side that the centre crop keeps (1).", 0.01, 1.0
)
flags.DEFINE_string(
    "epsilon",
    None,
    "Largest change of a value, or with --norm=l2 length of the whole change; values are 0 to 255: "
    "4 or, the same, 4/255 (4/255).",
)
flags.DEFINE_enum("norm", None, ["linf", "l2"], "Which length (linf; of deepfool l2).")
flags.DEFINE_integer(
    "steps",
    None,
    "Of the gradient, or of L-BFGS (iterative: as in the paper; pgd: 20; deepfool, lbfgs: 50).",
    lower_bound=1,
)
flags.DEFINE_float(
    "step_size",
    None,
    "Length of a step, of 255 (iterative: 1; pgd: 2.5 epsilon / steps).",
    0.0,
)
flags.DEFINE_integer("restarts", None, "Random starts (1).", lower_bound=1)
flags.DEFINE_bool("targeted", None, "Make the network see --target, not just anything else.")
flags.DEFINE_list(
    "target",
    None,
    "Name or number of a class; or least_likely of each picture, the default, or random. Of "
    "evolve: any number of classes, all by default.",
)
flags.DEFINE_string(
    "transfer_model",
    None,
    "Another classifier of the same classes, in any form that apps/classify.py takes, that is "
    "shown the changed pictures too.",
)
flags.DEFINE_enum("encoding", None, ["cppn", "direct"], "Of evolve's genomes (cppn).")
flags.DEFINE_bool("gray", None, "Grey pictures.")
flags.DEFINE_integer("generations", None, "At most (1000).", lower_bound=1)
flags.DEFINE_float(
    "confidence", None, "Ends when the network is so sure of all pictures (0.95).", 0.0, 1.0
)

SHEET_ROWS = 12
DRAWN_OFTEN = 10  # times that evolve's sheet is drawn


def check_flags(config):
    """Refuses flags that the chosen method would not heed; returns epsilon."""
    for name in ("model", *(["input"] if config.method != "evolve" else [])):
        if getattr(config, name) is None:
            raise run_folder.RunError(f"--{name}: is needed; received: nothing")
    app.refuse_unheeded(config, "method", HEEDED_BY)
    if config.method != "evolve" and config.target is not None:
        received = ",".join(config.target)
        if not config.targeted:
            raise run_folder.RunError(f"--target: needs --targeted; received: --target={received}")
        if len(config.target) != 1:
            raise run_folder.RunError(f"--target: must be one class; received: {received}")
    return app.read_epsilon("epsilon", config.epsilon or "4/255")


def label_of(name, num_classes):
    """The class that a file's name starts with.

    Raises:
        RunError: it starts with none.
    """
    digits = re.match(r"\d+", name)
    if not digits or int(digits[0]) >= num_classes:
        raise run_folder.RunError(
            f"--labels_from_names: {name} must start with the number of a class, 0 to "
            f"{num_classes - 1}; received: {digits[0] if digits else 'no number'}"
        )
    return int(digits[0])


def run(config):
    """Makes, judges, draws and writes; `config` has the flags as attributes."""
    started = time.perf_counter()
    epsilon = check_flags(config)
    files = None if config.method == "evolve" else app.find_pictures(config.input)
    workdir = run_folder.make_folder(config.workdir, space_needed=50e6)
    run_folder.write_atomically(
        workdir / run_folder.FLAGFILE, run_folder.flagfile_text(run_folder.app_flags())
    )
    app.import_tensorflow()
    from kerasvision.classification import Classifier, load_classifier

    app.start(config.seed, mixed_precision=False, deterministic=False)
    classifier = load_classifier(config.model)
    if config.method == "evolve":
        metrics = evolve(config, classifier, workdir)
    elif not isinstance(classifier, Classifier):
        raise run_folder.RunError(
            f"--model: --method={config.method} needs gradients, of a run folder or a .keras "
            f"file; received: {config.model}"
        )
    else:
        metrics = change_pictures(config, classifier, files, epsilon, workdir)
    metrics["seconds"] = round(time.perf_counter() - started, 1)
    run_folder.write_json(workdir / "metrics.json", metrics)
    app.print_files(workdir, metrics["seconds"])
    return metrics


def change_pictures(config, classifier, files, epsilon, workdir):
    """Makes adversarial examples of the pictures that the network gets right; returns metrics."""
    import keras
    import numpy as np
    import tensorflow as tf

    from kerasvision import drawing
    from kerasvision.classification import load_classifier
    from kerasvision.synthesis import adversarial

    names = classifier.class_names
    target = None
    if config.targeted:
        (target,) = config.target or ["least_likely"]
        if target not in ("least_likely", "random"):
            target = app.class_number("target", target, names)
    other = None
    if config.transfer_model is not None:
        other = load_classifier(config.transfer_model)
        if list(other.class_names) != list(names):
            raise run_folder.RunError(
                f"--transfer_model={config.transfer_model}: must have the classes of --model; "
                f"received: {len(other.class_names)} classes, {', '.join(other.class_names[:3])}, …"
            )

    # Pictures that it gets right.
    found = right_pictures(config, classifier, files, target)
    images, labels, clean_scores = found["images"], found["labels"], found["scores"]
    goals = labels
    if target == "least_likely":
        goals = adversarial.least_likely(found["probabilities"])
    elif target == "random":
        shifts = np.random.default_rng(config.seed).integers(1, len(names), len(labels))
        goals = (labels + shifts) % len(names)
    elif target is not None:
        goals = np.full_like(labels, target)

    # Their changes, batch by batch.
    jit_compile = config.jit_compile
    if jit_compile is None:
        jit_compile = bool(tf.config.list_physical_devices("GPU"))
    adversary = adversarial.Adversary(classifier, jit_compile)
    attack = attack_of(config, adversary, epsilon)
    bar_mode = int(sys.stdout.isatty())
    bar = keras.utils.Progbar(len(images), verbose=bar_mode)
    changed = []
    for number, start in enumerate(range(0, len(images), config.batch_size)):
        # The last batch is filled up, so that nothing is compiled for another size.
        count = min(config.batch_size, len(images) - start)
        rows = start + np.arange(min(config.batch_size, len(images))) % count
        batch = images[rows].astype("float32")
        changed.append(attack(batch, goals[rows], config.seed + number)[:count])
        bar.add(count)
    if bar_mode:
        print()
    changed = np.concatenate(changed)

    # What they are taken for: exact, and as files hold them.
    within = epsilon if config.method in WITHIN_EPSILON else None
    pixels = adversarial.to_pixels(changed, images, within, config.norm or "linf")
    exact, judged = (
        adversarial.judge(
            predict(classifier, x, config.batch_size), x, images, goals, bool(config.targeted)
        )
        for x in (changed, pixels)
    )
    metrics = {
        "method": config.method,
        "model": str(config.model),
        "epsilon": within,
        "norm": None if config.method == "lbfgs" else config.norm or default_norm(config.method),
        "targeted": bool(config.targeted),
        "target": target if target is None or isinstance(target, str) else names[target],
        "pictures_read": found["read"],
        "accuracy": found["accuracy"],
        "pictures": len(images),
        "success_rate": float(judged.success.mean()),
        "success_rate_unrounded": float(exact.success.mean()),
        "mean_score": float(judged.scores.mean()),
    }
    for kind, numbers in (("", judged), ("_unrounded", exact)):
        for name in ("l2", "linf", "l0"):
            metrics[f"mean_{name}{kind}"] = float(getattr(numbers, name).mean())
        metrics[f"largest_linf{kind}"] = float(numbers.linf.max())
    if other is not None:
        metrics["transfer"] = transfer(config, other, images, pixels, labels, goals)
    metrics["changed"] = [
        {
            "file_name": file,
            "label": names[label],
            "target": names[goal] if config.targeted else None,
            "prediction": names[prediction],
            "score": float(score),
            "success": bool(success),
            "l2": float(l2),
            "linf": float(linf),
            "l0": int(l0),
        }
        for file, label, goal, prediction, score, success, l2, linf, l0 in zip(
            found["files"], labels, goals, *vars(judged).values()
        )
    ]

    folder = workdir / "adversarial"
    folder.mkdir(exist_ok=True)
    for file, picture in zip(found["files"], pixels):
        drawing.save(picture, folder / f"{file}.png")
    draw_sheet(images, pixels, labels, clean_scores, judged, names, workdir / "sheet.png")
    aim = f"taken for the target, {metrics['target']}" if config.targeted else "taken for another"
    print(
        f"{config.method}: {metrics['success_rate']:.3f} of {len(images)} pictures are {aim} "
        f"({metrics['success_rate_unrounded']:.3f} before rounding to whole numbers), score "
        f"{metrics['mean_score']:.3f}; mean change L2 {metrics['mean_l2']:.1f}, Linf "
        f"{metrics['mean_linf']:.2f}, at most {metrics['largest_linf']:g} of 255"
    )
    if other is not None:
        print(
            f"{config.transfer_model} takes {metrics['transfer']['taken_for_another']:.3f} of the "
            f"{metrics['transfer']['pictures']} that it got right for another class"
        )
    return metrics


def default_norm(method):
    return "l2" if method == "deepfool" else "linf"


def right_pictures(config, classifier, files, target):
    """The first pictures that the network gets right, and what it says of them, as arrays."""
    import itertools

    import numpy as np

    from kerasvision.data import pictures
    from kerasvision.data.pipeline import centre_crop

    size, num_classes = classifier.image_shape[:2], len(classifier.class_names)
    wanted, unreadable = config.count or 100, []
    kept = {name: [] for name in ("files", "images", "labels", "probabilities")}
    read = right = 0
    frames = pictures.read_files(files, unreadable)
    while len(kept["files"]) < wanted:
        batch = list(itertools.islice(frames, config.batch_size))
        if not batch:
            break
        images = [centre_crop(x, size, config.crop_fraction or 1.0).numpy() for _, x in batch]
        probabilities = classifier.predict_on_batch(np.stack(images))
        for (name, _), image, row in zip(batch, images, probabilities):
            label = label_of(name, num_classes) if config.labels_from_names else row.argmax()
            read, right = read + 1, right + (row.argmax() == label)
            if row.argmax() == label != target and len(kept["files"]) < wanted:
                for values, value in zip(kept.values(), (name, image, int(label), row)):
                    values.append(value)
    for line in unreadable:
        print(line)
    if not kept["files"]:
        raise run_folder.RunError(
            f"--input={config.input}: the network must get a picture of another class than "
            f"--target right; received: {read} readable pictures"
        )
    found = {name: values if name == "files" else np.stack(values) for name, values in kept.items()}
    accuracy = float(right / read) if config.labels_from_names else None
    return {**found, "scores": found["probabilities"].max(-1), "read": read, "accuracy": accuracy}


def attack_of(config, adversary, epsilon):
    """The function of images, labels and seed that the flags ask for."""
    norm, targeted = config.norm or default_norm(config.method), bool(config.targeted)
    steps = config.steps or DEFAULT_STEPS.get(config.method)

    def attack(images, labels, seed):
        if config.method == "fgsm":
            return adversary.fgsm(images, labels, epsilon, norm, targeted)
        if config.method == "iterative":
            size = config.step_size or 1.0
            return adversary.iterative(images, labels, epsilon, steps, size, norm, targeted)
        if config.method == "pgd":
            restarts = config.restarts or 1
            return adversary.pgd(
                images, labels, epsilon, steps, config.step_size, restarts, norm, targeted, seed
            )
        if config.method == "deepfool":
            return adversary.deepfool(images, labels, steps, norm=norm)
        return adversary.lbfgs(images, labels, targeted, steps)

    return attack


def predict(classifier, images, batch_size):
    """Probabilities (N, C) of pictures of the network's size."""
    import numpy as np

    starts = range(0, len(images), batch_size)
    return np.concatenate([classifier.predict_on_batch(images[i : i + batch_size]) for i in starts])


def transfer(config, other, images, pixels, labels, goals):
    """What another network takes the changed pictures for, of those that it got right."""
    import numpy as np

    from kerasvision.data.pipeline import centre_crop

    size = other.image_shape[:2]
    before, after = (
        predict(
            other, np.stack([centre_crop(x, size).numpy() for x in kind]), config.batch_size
        ).argmax(-1)
        for kind in (images, pixels)
    )
    is_right = before == labels
    if not is_right.any():
        raise run_folder.RunError(
            f"--transfer_model={config.transfer_model}: must get one of the pictures right; "
            f"received: none of {len(images)}"
        )
    found = {
        "model": str(config.transfer_model),
        "pictures": int(is_right.sum()),
        "taken_for_another": float((after != labels)[is_right].mean()),
    }
    if config.targeted:
        found["taken_for_target"] = float((after == goals)[is_right].mean())
    return found


def draw_sheet(images, pixels, labels, clean_scores, judged, names, path):
    """Saves the first pictures, their changes made visible, and the changed pictures."""
    import numpy as np

    from kerasvision import drawing

    sheet, captions = [], []
    for i in range(min(SHEET_ROWS, len(images))):
        change = pixels[i].astype("float64") - images[i]
        factor = max(1, int(127 / max(1.0, np.abs(change).max())))
        sheet += [images[i], 128 + factor * change, pixels[i]]
        color = drawing.WRONG if judged.success[i] else drawing.RIGHT
        captions += [
            [(names[labels[i]], drawing.BLACK), (f"{clean_scores[i]:.3f}", drawing.BLACK)],
            [(f"change × {factor}", drawing.BLACK), (f"L2 {judged.l2[i]:.0f}", drawing.BLACK)],
            [(names[judged.predictions[i]], color), (f"{judged.scores[i]:.3f}", color)],
        ]
    title = "picture, change made visible, changed picture; what the network says, and how sure"
    drawing.captioned_sheet(sheet, captions, path, title, columns=6)


def evolve(config, classifier, workdir):
    """Breeds pictures that the network is sure of; returns metrics."""
    import keras
    import numpy as np

    from kerasvision import drawing
    from kerasvision.synthesis import fooling

    names = classifier.class_names
    classes = range(len(names))
    if config.target is not None:
        classes = [app.class_number("target", name, names) for name in config.target]
    make = fooling.DirectEncoding if config.encoding == "direct" else fooling.CPPNEncoding
    wanted = 0.95 if config.confidence is None else config.confidence
    generations = config.generations or 1000
    population = fooling.MapElites(
        make(classifier.image_shape, bool(config.gray)),
        classifier.predict_on_batch,
        classes,
        config.batch_size,
        config.seed,
    )

    def draw():
        captions = [
            [(names[i], drawing.BLACK), (f"{score:.3f}", drawing.BLACK)]
            for i, score in zip(classes, population.scores)
        ]
        title = f"what the network is sure to see, after {population.generation} generations"
        pictures = list(population.pictures())
        drawing.captioned_sheet(pictures, captions, workdir / "fooling.png", title)
        return pictures

    bar_mode = int(sys.stdout.isatty())
    bar = keras.utils.Progbar(
        generations, verbose=bar_mode, stateful_metrics=["median", "least", "sure"]
    )
    history = [(np.median(population.scores), population.scores.min())]
    while population.generation < generations and population.scores.min() < wanted:
        population.step()
        median, least = np.median(population.scores), population.scores.min()
        history.append((median, least))
        sure = int((population.scores >= wanted).sum())
        values = [("median", median), ("least", least), ("sure", sure)]
        bar.update(population.generation, values)
        if population.generation % max(1, generations // DRAWN_OFTEN) == 0:
            draw()
            if not bar_mode:
                print(
                    f"generation {population.generation}: median {median:.3f}, least {least:.3f}, "
                    f"{sure} of {len(classes)} classes at {wanted:g}",
                    flush=True,
                )
    if bar_mode:
        print()
    for i, picture in zip(classes, draw()):
        name = re.sub("[^A-Za-z0-9]+", "_", names[i])
        drawing.save(picture, workdir / f"{i:04d}_{name}.png")
    rows = [f"{number},{median:.6f},{least:.6f}" for number, (median, least) in enumerate(history)]
    text = "\n".join(["generation,median_score,least_score", *rows]) + "\n"
    run_folder.write_atomically(workdir / "history.csv", text)
    sure = int((population.scores >= wanted).sum())
    print(
        f"{sure} of {len(classes)} classes at {wanted:g} or more, after "
        f"{population.generation} generations"
    )
    return {
        "method": "evolve",
        "model": str(config.model),
        "encoding": config.encoding or "cppn",
        "generations": population.generation,
        "pictures_tried": (population.generation + 1) * config.batch_size,
        "confidence": wanted,
        "classes": len(classes),
        "classes_reached": sure,
        "median_score": float(np.median(population.scores)),
        "least_score": float(population.scores.min()),
        "scores": {f"{i} {names[i]}": float(s) for i, s in zip(classes, population.scores)},
    }


def main(argv):
    del argv
    run(flags.FLAGS)


if __name__ == "__main__":
    app.run_main(main, __doc__)
