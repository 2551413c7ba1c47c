"""Translates a picture, or a folder of pictures, by pix2pix, a CycleGAN or fast style transfer.

  python apps/translate.py --model=runs/night --input=holiday.jpg
  python apps/translate.py --model=runs/horses --input=ZEBRAS --back

--model is a run folder of train_pix2pix, train_cyclegan or train_fast_style, or a .keras file. The
folder --workdir gets, for each picture, NAME.png, as large as the picture; and sheet.png, with the
first of them beside what they were made of.
"""

import sys

from absl import flags

from kerasvision.training import app, run_folder

flags.DEFINE_string("model", None, "Run folder or .keras file.")
flags.DEFINE_string("input", None, "A picture, or a folder of pictures.")
flags.DEFINE_string("workdir", "runs/translate", "Folder for the results.")
flags.DEFINE_bool("back", False, "From Y to X (CycleGAN only).")
SHEET_ROWS = 12


def run(config):
    """Translates, draws and writes; `config` has the flags as attributes."""
    for name in ("model", "input"):
        if getattr(config, name) is None:
            raise run_folder.RunError(f"--{name}: is needed; received: nothing")
    files = app.find_pictures(config.input)
    workdir = run_folder.make_folder(config.workdir, space_needed=10e6)
    app.import_tensorflow()
    import keras
    import numpy as np
    import tensorflow as tf

    from kerasvision import drawing
    from kerasvision.data import pictures
    from kerasvision.generative import CycleGAN, Pix2Pix, evaluation
    from kerasvision.synthesis import FastStyle

    model = run_folder.load_model(config.model)
    if not isinstance(model, (CycleGAN, Pix2Pix, FastStyle)):
        raise run_folder.RunError(
            f"--model={config.model}: must be of train_pix2pix, train_cyclegan or "
            f"train_fast_style; received: {type(model).__name__}"
        )
    if config.back and not isinstance(model, CycleGAN):
        raise run_folder.RunError(
            f"--back: is for a CycleGAN; received: --model={config.model}, {type(model).__name__}"
        )

    def translate(picture):
        if isinstance(model, FastStyle):
            return evaluation.to_pixels(model.paint(picture)[None])[0]
        generator = model.F if config.back else model.G
        # As in training.
        x = np.round(tf.image.resize(picture, generator.input_shape[1:3], antialias=True))
        made = evaluation.to_pixels(generator.predict_on_batch(x[None]))[0]
        made = tf.image.resize(made, picture.shape[:2], antialias=True)
        return np.round(made).astype("uint8")

    rows, unreadable, count = [], [], 0
    bar_mode = int(sys.stdout.isatty())
    bar = keras.utils.Progbar(len(files), verbose=bar_mode)
    for name, picture in pictures.read_files(files, unreadable):
        try:
            made = translate(picture)
        except ValueError as error:  # too small
            unreadable.append(f"{name}: left out; {error}")
            continue
        # Two pictures may differ in their suffix alone.
        drawing.save(made, workdir / f"{name}.png")
        if len(rows) < SHEET_ROWS:
            rows.append((picture, made))
        count += 1
        bar.add(1)
    if bar_mode:
        print()
    for line in unreadable:
        print(line)
    if not count:
        raise run_folder.RunError(f"--input={config.input}: nothing in it could be read")
    drawing.contact_sheet(rows, workdir / "sheet.png", ("picture", "translation"))
    print(f"{count} pictures and sheet.png are in {workdir}")
    return count


def main(argv):
    del argv
    run(flags.FLAGS)


if __name__ == "__main__":
    app.run_main(main, __doc__)
