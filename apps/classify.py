"""Says what a picture, or each picture of a folder, shows.

  python apps/classify.py --model=runs/quickstart --input=holiday.jpg
  python apps/classify.py --model=runs/quickstart/model_float16.tflite --input=MY_PICTURES --top=3

--model is a run folder, a .keras file, a SavedModel folder or a .tflite file. The best classes
are printed, a line a picture. The folder --workdir gets predictions.json, a list of pictures with
their best classes and scores, and predictions.png, a sheet of the first 50 pictures.
"""

import itertools

from absl import flags

from kerasvision.training import app, run_folder

flags.DEFINE_string("model", None, "Run folder, .keras file, SavedModel folder or .tflite file.")
flags.DEFINE_string("input", None, "A picture, or a folder of pictures.")
flags.DEFINE_string("workdir", "runs/classify", "Folder for the results.")
flags.DEFINE_integer("top", 5, "Classes that are told of each picture.", lower_bound=1)
flags.DEFINE_float(
    "crop_fraction", 1.0, "Part of a picture's side that the centre crop keeps.", 0.01, 1.0
)
flags.DEFINE_integer("batch_size", 16, "Pictures in a step.", lower_bound=1)

SHEET_PICTURES = 50
SHEET_SIDE = 200  # in pixels


def run(config):
    """Classifies, draws and writes; `config` has the flags as attributes."""
    for name in ("model", "input"):
        if getattr(config, name) is None:
            raise run_folder.RunError(f"--{name}: is needed; received: nothing")
    files = app.find_pictures(config.input)
    workdir = run_folder.make_folder(config.workdir, space_needed=10e6)
    app.import_tensorflow()
    import numpy as np

    from kerasvision import drawing
    from kerasvision.classification import load_classifier
    from kerasvision.data import pictures
    from kerasvision.data.pipeline import centre_crop

    classifier = load_classifier(config.model)
    input_size = classifier.image_shape[:2]
    sheet_size = [max(1, round(SHEET_SIDE * side / max(input_size))) for side in input_size]
    result, sheet, captions, unreadable = [], [], [], []
    frames = pictures.read_files(files, unreadable)
    while batch := list(itertools.islice(frames, config.batch_size)):
        inputs = [
            centre_crop(picture, input_size, config.crop_fraction).numpy() for _, picture in batch
        ]
        probabilities = classifier.predict_on_batch(np.stack(inputs))
        for (name, picture), row in zip(batch, probabilities):
            best = [
                (classifier.class_names[i], float(row[i]))
                for i in np.argsort(-row, kind="stable")[: config.top]
            ]
            told = ", ".join(f"{class_name} {score:.3f}" for class_name, score in best)
            print(f"{name}: {told}", flush=True)
            rows = [{"class": class_name, "score": score} for class_name, score in best]
            result.append({"file_name": name, "predictions": rows})
            if len(sheet) < SHEET_PICTURES:
                # What the network sees of the picture, at the size of the sheet.
                sheet.append(centre_crop(picture, sheet_size, config.crop_fraction).numpy())
                lines = [(f"{score:.2f} {class_name}", drawing.BLACK) for class_name, score in best]
                captions.append([(name, drawing.BLACK), *lines[:3]])

    for line in unreadable:
        print(line)
    if not result:
        raise run_folder.RunError(f"--input={config.input}: nothing in it could be read")
    run_folder.write_json(workdir / "predictions.json", result)
    drawing.captioned_sheet(
        sheet, captions, workdir / "predictions.png", title="the best predictions", cell=SHEET_SIDE
    )
    print(f"{len(result)} pictures; predictions.json and predictions.png are in {workdir}")
    return result


def main(argv):
    del argv
    run(flags.FLAGS)


if __name__ == "__main__":
    app.run_main(main, __doc__)
