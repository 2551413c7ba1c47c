"""Says of every pixel of a picture, or of a folder of pictures, what it belongs to.

  python apps/segment.py --model=runs/streets --input=street.jpg
  python apps/segment.py --model=runs/cells --input=SLICES --tiles

--model is a run folder, a .keras file, a SavedModel folder or a .tflite file. The folder
--workdir gets, for each picture, NAME_overlay.png, the picture with the colours of the classes
laid over; NAME_labels.png, a grey picture of the classes' numbers, from 0; and, for all,
legend.png and segments.json, with the classes and each one's share of every picture.
"""

import sys

from absl import flags

from kerasvision.training import app, run_folder

flags.DEFINE_string("model", None, "Run folder, .keras file, SavedModel folder or .tflite file.")
flags.DEFINE_string("input", None, "A picture, or a folder of pictures.")
flags.DEFINE_string("workdir", "runs/segment", "Folder for the results.")
app.define_tile_flags("Look at pictures in their own resolution, tile by tile, instead of resized.")
flags.DEFINE_string(
    "class_list", None, "Class list as in training, for its colours. Default: colours of our own."
)
flags.DEFINE_float("opacity", 0.5, "Of the colours over the picture.", 0.0, 1.0)


def run(config):
    """Segments, draws and writes; `config` has the flags as attributes."""
    for name in ("model", "input"):
        if getattr(config, name) is None:
            raise run_folder.RunError(f"--{name}: is needed; received: nothing")
    app.check_tile_flags(config)
    files = app.find_pictures(config.input)
    workdir = run_folder.make_folder(config.workdir, space_needed=10e6)
    app.import_tensorflow()
    import keras
    import numpy as np

    from kerasvision import drawing
    from kerasvision.data import class_list, pictures
    from kerasvision.segmentation import load_segmenter
    from kerasvision.segmentation.evaluation import probabilities_of

    segmenter = load_segmenter(config.model)
    names = list(segmenter.class_names)
    colors = class_list.palette(len(names))
    if config.class_list is not None:
        classes = class_list.read_class_list(config.class_list)
        if classes.names != names:
            raise run_folder.RunError(
                f"--class_list: must name the classes of --model={config.model}, {names}; "
                f"received: {classes.names}"
            )
        colors = classes.colors
    drawing.save(drawing.legend(names, colors, 16 + 24 * len(names)), workdir / "legend.png")

    result, unreadable = {"classes": names, "pictures": []}, []
    bar_mode = int(sys.stdout.isatty())
    bar = keras.utils.Progbar(len(files), verbose=bar_mode)
    for name, picture in pictures.read_files(files, unreadable):
        found = probabilities_of(
            segmenter, picture, config.tiles, config.margin, config.average_turns
        ).argmax(axis=-1)
        overlay = drawing.overlay_labels(picture, found, colors, config.opacity)
        # Two pictures may differ in their suffix alone.
        drawing.save(overlay, workdir / f"{name}_overlay.png")
        drawing.save(found.astype("uint8"), workdir / f"{name}_labels.png")
        shares = np.bincount(found.ravel(), minlength=len(names)) / found.size
        shares = dict(zip(names, shares.round(6).tolist()))
        result["pictures"].append({"file_name": name, "shares": shares})
        bar.add(1)
    if bar_mode:
        print()
    for line in unreadable:
        print(line)
    if not result["pictures"]:
        raise run_folder.RunError(f"--input={config.input}: nothing in it could be read")
    run_folder.write_json(workdir / "segments.json", result)
    print(f"{len(result['pictures'])} pictures; overlays and segments.json are in {workdir}")
    return result


def main(argv):
    del argv
    run(flags.FLAGS)


if __name__ == "__main__":
    app.run_main(main, __doc__)
