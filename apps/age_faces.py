"""Changes faces until a classifier sees in them what it is told to: age, glasses, a beard.

  python apps/train_classifier.py --dataset=folder:AGES --workdir=runs/ages
  python apps/age_faces.py --model=runs/ages --faces=AGES --input=ME.jpg --target=old

The faces move in the space of the principal components of those in --faces (a folder, with folders
in it or without), so that they stay faces. All should lie alike, eyes at the same places. --target
is the name or number of a class of --model, a run folder or .keras file. The folder --workdir gets
a PNG of each face of --input; sheet.png, faces before, on the way and after; and metrics.json, the
probability of the target before and after.
"""

import pathlib
import sys
import time

from absl import flags

from kerasvision.training import app, run_folder

flags.DEFINE_string("model", None, "Run folder or .keras file of a classifier.")
flags.DEFINE_string("faces", None, "Folder of faces whose principal components are taken.")
flags.DEFINE_string("input", None, "A face, or a folder of faces, to be changed.")
flags.DEFINE_string("workdir", "runs/age_faces", "Folder for the results.")
flags.DEFINE_string("target", None, "Name or number of the class that is to be seen.")
flags.DEFINE_float("probability", 1.0, "Of the target, that is to be reached.", 0.0, 1.0)
flags.DEFINE_integer("components", None, "Principal components. Default: all.", lower_bound=1)
flags.DEFINE_float("prior_weight", 0.1, "Of staying near the face itself.", 0.0)
flags.DEFINE_integer("steps", 200, "Steps of Adam.", lower_bound=1)
flags.DEFINE_float("learning_rate", 0.05, "Of Adam, in standard deviations.", 0.0)

SHEET_FACES = 20
SHEET_CELL = 160  # pixels
ON_THE_WAY = (0.1, 0.3)  # parts of the steps after which the sheet shows the faces


def run(config):
    """Changes faces, draws and writes; `config` has the flags as attributes."""
    app.check_needed(config, ("model", "faces", "input", "target"))
    files = app.find_pictures(config.input)
    folder = pathlib.Path(config.faces)
    folders = [folder, *sorted(path for path in folder.rglob("*") if path.is_dir())]
    of_space = [
        file
        for path in folders
        if any(child.suffix.lower() in app.PICTURES for child in path.glob("*"))
        for file in app.find_pictures(path)
    ]
    if not of_space:
        raise run_folder.RunError(f"--faces={folder}: must be a folder of pictures; has none")
    workdir = run_folder.make_folder(config.workdir, space_needed=20e6)
    run_folder.write_atomically(
        workdir / run_folder.FLAGFILE, run_folder.flagfile_text(run_folder.app_flags())
    )
    app.import_tensorflow()
    import keras
    import numpy as np

    from kerasvision import drawing
    from kerasvision.classification import load_classifier
    from kerasvision.data import pictures
    from kerasvision.data.pipeline import centre_crop
    from kerasvision.synthesis import DeepAgeing, FaceSpace

    classifier = load_classifier(config.model)
    if not isinstance(classifier, keras.Model):
        raise run_folder.RunError(
            f"--model: must be a run folder or .keras file; received: {config.model}"
        )
    class_names = classifier.class_names
    label = app.class_number("target", config.target, class_names)

    def read(paths):
        unreadable = []
        faces = [
            (name, centre_crop(picture, classifier.image_shape[:2], 1.0).numpy())
            for name, picture in pictures.read_files(paths, unreadable)
        ]
        for line in unreadable:
            print(line)
        return [name for name, _ in faces], np.array([face for _, face in faces], "float32")

    _, known = read(of_space)
    names, faces = read(files)
    if not names:
        raise run_folder.RunError(f"--input={config.input}: nothing in it could be read")
    started = time.perf_counter()
    space = FaceSpace(known, config.components)
    print(
        f"{len(known)} faces have {len(space.axes)} components, "
        f"{space.explained:.1%} of their variance"
    )
    ageing = DeepAgeing(classifier, space, config.prior_weight, config.steps, config.learning_rate)

    # What the other classes had stays shared among them in proportion.
    before = classifier.predict_on_batch(faces)
    target = before.copy()
    target[:, label] = 0.0
    target *= (1 - config.probability) / np.maximum(target.sum(axis=-1, keepdims=True), 1e-7)
    target[:, label] = config.probability

    shown = {round(part * config.steps) for part in ON_THE_WAY}
    stages = [faces]
    verbose = 1 if sys.stdout.isatty() else 2
    bar = keras.utils.Progbar(config.steps, verbose=verbose, stateful_metrics=["error"])

    def on_step(step, make, errors):
        if step in shown:
            stages.append(make())
        if verbose == 1 or step + 1 == config.steps:
            bar.update(step + 1, [("error", errors.mean())])

    made = np.round(ageing(faces, target, on_step))
    if verbose == 1:
        print()
    stages.append(made)
    after = classifier.predict_on_batch(made)

    rows = []
    for i, name in enumerate(names):
        drawing.save(made[i].astype("uint8"), workdir / f"{pathlib.Path(name).stem}.png")
        row = {
            "file_name": name,
            "before": float(before[i, label]),
            "after": float(after[i, label]),
        }
        rows.append(row)
        print(f"{name}: {class_names[label]} {row['before']:.3f}, then {row['after']:.3f}")
    metrics = {
        "target": class_names[label],
        "faces": rows,
        "before": float(before[:, label].mean()),
        "after": float(after[:, label].mean()),
        "components": len(space.axes),
        "explained_variance": space.explained,
        "seconds": round(time.perf_counter() - started, 1),
    }
    run_folder.write_json(workdir / "metrics.json", metrics)
    sheet = [
        (*(stage[i].astype("uint8") for stage in stages),) for i in range(len(names[:SHEET_FACES]))
    ]
    steps = [f"after {step} steps" for step in sorted(shown)][: len(stages) - 2]
    titles = ("face", *steps, f"{class_names[label]}")
    drawing.contact_sheet(sheet, workdir / "sheet.png", titles, groups=1, cell=SHEET_CELL)
    app.print_files(workdir, metrics["seconds"])
    return metrics


def main(argv):
    del argv
    run(flags.FLAGS)


if __name__ == "__main__":
    app.run_main(main, __doc__)
