"""Lets a network dream on a picture, or on each picture of a folder (DeepDream).

  python apps/deepdream.py --model=vgg16 --backbone_weights=vgg16_notop.h5 --input=sky.jpg
  python apps/deepdream.py --model=runs/quickstart --input=sky.jpg --guide=flowers.jpg
  python apps/deepdream.py --flagfile=configs/deepdream/sky.flags --frames=30
  python apps/deepdream.py --flagfile=configs/deepdream/atlas.flags

--model is a network of kerasvision.backbones with --backbone_weights, or a run folder or .keras
file. What --layers see in the picture is enlarged; with --channels only what some of their
channels see; with --guide only what is also in another picture. The folder --workdir gets, for
each picture, NAME.png, the dream; steps/NAME_octave1.png, …, as far as it was after each octave;
with --frames NAME.gif or NAME.mp4, a flight into the dream; with --atlas instead NAME_atlas.png, a
row for each resolution of the network: the dream of all channels of its last layer, then those of
the channels that the picture excites most. sheet.png has the pictures beside their dreams,
metrics.json how strongly the layers responded before and after.
"""

import functools
import sys
import time

from absl import flags

from kerasvision.training import app, run_folder

app.define_network_flags()
app.define_picture_flags(max_side=1024)
flags.DEFINE_string("workdir", "runs/deepdream", "Folder for the results.")
flags.DEFINE_list(
    "layers", None, "Names of layers. Default: the last one of the last resolution but one."
)
flags.DEFINE_list("channels", None, "Numbers of channels of the one layer. Default: all.")
flags.DEFINE_string("guide", None, "Picture whose features are to be dreamt of.")
flags.DEFINE_integer("octaves", 4, "Scales, small to large.", lower_bound=1)
flags.DEFINE_float("octave_scale", 1.4, "From one scale to the next.", lower_bound=1.01)
flags.DEFINE_integer("steps", 10, "Steps at each octave.", lower_bound=1)
flags.DEFINE_float("step_size", 1.5, "Mean change of a pixel in a step, of 255.", 0.001, 255.0)
flags.DEFINE_integer("jitter", 32, "Pixels by which steps see the picture moved.", lower_bound=0)
flags.DEFINE_float("tv_weight", 0.0, "Of the TV prior: 0.01 to 0.04 calm the dream.", 0.0)
flags.DEFINE_integer("tile_size", 512, "Side of what is computed at once, in pixels.", 64)
flags.DEFINE_integer("frames", 0, "Frames of a flight into the dream.", lower_bound=0)
flags.DEFINE_float("zoom", 0.05, "Part of the sides that a frame of it cuts off.", 0.0, 0.5)
flags.DEFINE_enum("video", "gif", ["gif", "mp4"], "File of the flight.")
flags.DEFINE_bool("atlas", False, "Draw the dreams of all resolutions of the network.")
flags.DEFINE_integer("atlas_channels", 4, "Channels of each layer in it.", lower_bound=0)

SHEET_ROWS = 12
MIN_CELL = 160  # pixels of the atlas, for its captions
GUIDE_SIDE = 320  # pixels, as of the original's guide
FRAMES_A_SECOND = 12


def run(config):
    """Dreams, draws and writes; `config` has the flags as attributes."""
    app.check_needed(config, ("model", "input"))
    files = app.find_pictures(config.input)
    if config.atlas and (config.layers or config.channels or config.guide or config.frames):
        raise run_folder.RunError(
            "--atlas: chooses layers and channels itself, and goes without --layers, --channels, "
            "--guide and --frames"
        )
    channels = app.read_integers("channels", config.channels)
    workdir = run_folder.make_folder(config.workdir, space_needed=50e6)
    run_folder.write_atomically(
        workdir / run_folder.FLAGFILE, run_folder.flagfile_text(run_folder.app_flags())
    )
    app.import_tensorflow()
    import keras
    import numpy as np

    from kerasvision import drawing
    from kerasvision.data import pictures
    from kerasvision.generative.evaluation import to_pixels
    from kerasvision.synthesis import (
        DeepDream,
        check_image_size,
        features,
        load_network,
        stages,
    )

    network, _ = load_network(config.model, config.backbone_weights)
    channels_in = network.inputs[0].shape[-1]
    unreadable = []
    guide = None
    if config.guide is not None:
        for _, picture in pictures.read_files(app.find_pictures(config.guide), unreadable):
            guide = pictures.as_input(picture, GUIDE_SIDE, channels_in)
        if guide is None:
            raise run_folder.RunError(f"--guide: {unreadable[0]}")

    @functools.cache
    def dreamer(layers, channels=None):
        return DeepDream(
            network,
            layers,
            channels,
            guide,
            config.octaves,
            config.octave_scale,
            config.steps,
            config.step_size,
            config.jitter,
            config.tv_weight,
            tile_size=config.tile_size,
            jit_compile=config.jit_compile,
        )

    if config.atlas:
        atlas_layers = stages(network)
        phi = features(network, atlas_layers)
        dreams = len(atlas_layers) * (1 + config.atlas_channels)
    else:
        layers = tuple(config.layers or stages(network)[-2:][:1])
        dream = dreamer(layers, None if channels is None else tuple(channels))
        dreams = max(1, config.frames)
        (workdir / "steps").mkdir(exist_ok=True)

    def draw_atlas(name, image):
        """Returns the dream of all channels of the last layer."""
        check_image_size(phi, image.shape[:2])
        made, captions = [], []
        for layer, maps in phi(image[None], training=False).items():
            strongest = np.argsort(-np.asarray(maps).mean(axis=(0, 1, 2)), kind="stable")
            strongest = strongest[: config.atlas_channels].tolist()
            row = []
            for chosen in (None, *((channel,) for channel in strongest)):
                found = dreamer((layer,), chosen)(image, config.seed, lambda *_: bar.add(1))
                row.append(to_pixels(found[None])[0])
                what = "all channels" if chosen is None else f"channel {chosen[0]}"
                captions.append([(layer, drawing.BLACK), (what, drawing.BLACK)])
            row += [np.full_like(row[0], 255)] * (config.atlas_channels - len(strongest))
            captions += [[]] * (config.atlas_channels - len(strongest))
            made += row
        drawing.captioned_sheet(
            made,
            captions,
            workdir / f"{name}_atlas.png",
            title=f"{network.name} dreams of {name}",
            columns=1 + config.atlas_channels,
            cell=max(MIN_CELL, *image.shape[:2]),
        )
        return made[-1 - config.atlas_channels], {}

    def draw_dream(name, image):
        """Returns the dream, and how it went."""
        objectives = []

        def on_step(octave, step, x, objective):
            objectives.append(objective)
            if step == config.steps - 1 and len(objectives) <= len(sizes) * config.steps:
                path = workdir / "steps" / f"{name}_octave{octave + 1}.png"
                drawing.save(to_pixels(x[None])[0], path)
            bar.add(1)

        sizes = dream.sizes(image.shape[:2])
        frames = []
        count = max(1, config.frames)
        for frame in dream.zoom(image, count, config.zoom, config.seed, on_step):
            frames.append(to_pixels(frame[None])[0])
            if len(frames) == 1:
                drawing.save(frames[0], workdir / f"{name}.png")
        if config.frames:
            path = workdir / f"{name}.{config.video}"
            drawing.animate(frames, path, FRAMES_A_SECOND)
        # Of the largest octave: objectives of other sizes are not to be compared.
        last = objectives[(len(sizes) - 1) * config.steps : len(sizes) * config.steps]
        result = {"layers": list(layers), "octaves": len(sizes)}
        return frames[0], result | {"objective_before": last[0], "objective_after": last[-1]}

    rows, metrics = [], []
    bar_mode = int(sys.stdout.isatty())
    bar = keras.utils.Progbar(len(files) * dreams * config.octaves * config.steps, verbose=bar_mode)
    for name, picture in pictures.read_files(files, unreadable):
        image = pictures.as_input(picture, config.max_side, channels_in)
        started = time.time()
        try:
            made, result = (draw_atlas if config.atlas else draw_dream)(name, image)
        except ValueError as error:
            unreadable.append(f"{name}: left out; {error}")
            continue
        seconds = round(time.time() - started, 1)
        metrics.append(
            {"file_name": name, "size": list(image.shape[:2]), **result, "seconds": seconds}
        )
        run_folder.write_json(workdir / "metrics.json", {"pictures": metrics})
        if len(rows) < SHEET_ROWS:
            rows.append((to_pixels(image[None])[0], made))
    if bar_mode:
        print()
    for line in unreadable:
        print(line)
    if not rows:
        raise run_folder.RunError(f"--input={config.input}: nothing in it could be dreamt on")
    drawing.contact_sheet(rows, workdir / "sheet.png", ("picture", "dream"))
    print(f"{len(metrics)} pictures and sheet.png are in {workdir}")
    return metrics


def main(argv):
    del argv
    run(flags.FLAGS)


if __name__ == "__main__":
    app.run_main(main, __doc__)
