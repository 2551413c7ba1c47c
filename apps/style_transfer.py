"""Paints a picture, each picture of a folder or a video in the manner of others (Gatys et al.).

  python apps/style_transfer.py --model=vgg16 --backbone_weights=vgg16_notop.h5 \\
    --input=town.jpg --styles=starry_night.jpg
  python apps/style_transfer.py --flagfile=configs/style_transfer/starry_night.flags \\
    --styles=night.jpg,scream.jpg --style_mix=0.7,0.3 --colors=matched
  python apps/style_transfer.py --flagfile=configs/style_transfer/starry_night.flags \\
    --styles=night.jpg,scream.jpg --masks=sky.png,ground.png

--model is a network of kerasvision.backbones with --backbone_weights, or a run folder or .keras
file. The content is told by --content_layers, the manner by --style_layers. With --masks, grey
pictures in which white is where a style is meant for, each style has its place. Frames of a video
follow one another along the optical flow, so that strokes don't flicker. The folder --workdir gets,
for each picture, NAME.png; steps/NAME_0050.png, …, some of the pictures on the way; NAME_loss.png,
the loss and its parts; and for all, sheet.png, pictures and styles beside what was painted, and
metrics.json, with the losses before and after. Of a video there is NAME.mp4 instead.
"""

import sys
import time

from absl import flags

from kerasvision.training import app, run_folder

app.define_network_flags()
app.define_picture_flags(max_side=512)
flags.DEFINE_string("workdir", "runs/style_transfer", "Folder for the results.")
flags.DEFINE_list("styles", None, "Pictures whose manner is wanted.")
flags.DEFINE_list("style_mix", None, "The share of each. Default: equal ones.")
flags.DEFINE_list("masks", None, "Of each style a grey picture: white where it is meant for.")
flags.DEFINE_integer(
    "style_side",
    None,
    "Larger side of the styles, in pixels: more make strokes larger. Default: as --max_side.",
    lower_bound=16,
)
flags.DEFINE_enum(
    "colors",
    "style",
    ["style", "matched", "luminance"],
    "Of what is painted: the style's; or the content's, by matching the style's colours to them or "
    "by painting in grey.",
)
flags.DEFINE_list("content_layers", None, "Names of layers. Default: block4_conv2, of VGG.")
flags.DEFINE_list("style_layers", None, "Names. Default: the first of VGG's five blocks each.")
flags.DEFINE_list("layer_weights", None, "Of the style layers. Default: equal ones.")
flags.DEFINE_float("content_weight", 1.0, "Of the content.", 0.0)
flags.DEFINE_float("style_weight", 1.0, "Of the style.", 0.0)
flags.DEFINE_float("tv_weight", 0.0, "Of the TV prior: 0.1 makes smoother.", 0.0)
flags.DEFINE_float("temporal_weight", 100.0, "Of what the last frame of a video shows.", 0.0)
flags.DEFINE_enum("pooling", "max", ["max", "average"], "The network's own, or the paper's.")
flags.DEFINE_enum("optimizer", "lbfgs", ["lbfgs", "adam"], "Of the descent.")
flags.DEFINE_integer("iterations", 200, "Of the optimizer, at each scale.", lower_bound=1)
flags.DEFINE_float("learning_rate", 8.0, "Of adam at first, in grey levels.", 0.0)
flags.DEFINE_integer("scales", 1, "Sizes to paint at, from small to large.", 1, 8)
flags.DEFINE_enum("start", "content", ["content", "noise"], "Where the descent begins.")
flags.DEFINE_bool("bfloat16", False, "Compute the network in bfloat16: for CPUs and GPUs with it.")

SHEET_ROWS = 12
SHEET_CELL = 400  # pixels
PICTURES_ON_THE_WAY = 4


def read_floats(name, values, count):
    """The numbers of the flag --`name`, a list of text, of which there must be `count`; or None."""
    if values is None:
        return None
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise run_folder.RunError(
            f"--{name}: must be {count} numbers; received: {','.join(values)}"
        )
    return numbers


def run(config):
    """Paints, draws and writes; `config` has the flags as attributes."""
    app.check_needed(config, ("model", "input", "styles"))
    files = app.find_pictures(config.input)
    is_video = files[0].suffix.lower() in app.VIDEOS
    count = len(config.styles)
    mix = read_floats("style_mix", config.style_mix, count)
    if config.masks is not None and len(config.masks) != count:
        raise run_folder.RunError(
            f"--masks: must be {count}, one a style; received: {len(config.masks)}"
        )
    if config.layer_weights is not None:
        number = len(config.style_layers or [None] * 5)
        config.layer_weights = read_floats("layer_weights", config.layer_weights, number)
    workdir = run_folder.make_folder(config.workdir, space_needed=50e6)
    run_folder.write_atomically(
        workdir / run_folder.FLAGFILE, run_folder.flagfile_text(run_folder.app_flags())
    )
    app.import_tensorflow()

    from kerasvision.data import pictures
    from kerasvision.synthesis import StyleLoss, StyleTransfer, load_network
    from kerasvision.synthesis.style import CONTENT_LAYERS, STYLE_LAYERS

    network, _ = load_network(config.model, config.backbone_weights)
    side = config.style_side or config.max_side
    styles = [app.read_picture("styles", path, side) for path in config.styles]
    masks = None
    if config.masks is not None:
        masks = [app.read_picture("masks", path, 0, 1)[..., 0] / 255 for path in config.masks]
    loss = StyleLoss(
        network,
        config.content_layers or CONTENT_LAYERS,
        config.style_layers or STYLE_LAYERS,
        config.layer_weights,
        config.content_weight,
        config.style_weight,
        config.tv_weight,
        temporal_weight=config.temporal_weight,
        pooling=config.pooling,
        bfloat16=config.bfloat16,
    )
    transfer = StyleTransfer(
        loss,
        config.optimizer,
        config.iterations,
        config.scales,
        config.learning_rate,
        config.start,
        config.jit_compile,
    )
    arguments = {"style_mix": mix, "masks": masks, "seed": config.seed}
    if is_video:
        return paint_video(config, transfer, files[0], styles, arguments, workdir)
    unreadable = []
    frames = (
        (name, pictures.as_input(picture, config.max_side))
        for name, picture in pictures.read_files(files, unreadable)
    )
    metrics = paint_pictures(config, transfer, frames, len(files), styles, arguments, workdir)
    for line in unreadable:
        print(line)
    if not metrics:
        raise run_folder.RunError(f"--input={config.input}: nothing in it could be painted")
    print(f"{len(metrics)} pictures and sheet.png are in {workdir}")
    return metrics


def prepared(config, content, styles):
    """Content and styles as they are shown to the network, for the colours that are wanted."""
    from kerasvision.synthesis.style import luminance, match_colors

    if config.colors == "matched":
        styles = [match_colors(style, content) for style in styles]
    elif config.colors == "luminance":
        styles = [luminance(style, content) for style in styles]
        content = luminance(content)
    return content, styles


def finished(config, content, painted):
    """What was painted, as pixels in the colours that are wanted."""
    from kerasvision.generative.evaluation import to_pixels
    from kerasvision.synthesis.style import with_colors_of

    if config.colors == "luminance":
        painted = with_colors_of(content, painted)
    return to_pixels(painted[None])[0]


def paint_pictures(config, transfer, frames, count, styles, arguments, workdir):
    """Paints one picture after another; returns their metrics."""
    import keras

    from kerasvision import drawing
    from kerasvision.generative.evaluation import to_pixels

    (workdir / "steps").mkdir(exist_ok=True)
    rows, metrics, left_out = [], [], []
    bar_mode = int(sys.stdout.isatty())
    total = config.iterations * config.scales
    bar = keras.utils.Progbar(count * total, verbose=bar_mode, stateful_metrics=["loss"])
    shown = {total * i // PICTURES_ON_THE_WAY for i in range(1, PICTURES_ON_THE_WAY)}
    for number, (name, content) in enumerate(frames):
        started, history = time.perf_counter(), []

        def on_step(step, image, terms):
            history.append(terms)
            if step in shown:
                path = workdir / "steps" / f"{name}_{step:04d}.png"
                drawing.save(to_pixels(image[None])[0], path)
            bar.update(min(number * total + len(history), bar.target), [("loss", terms["loss"])])

        shown_content, shown_styles = prepared(config, content, styles)
        try:
            targets = transfer.targets(
                shown_content, shown_styles, arguments["style_mix"], arguments["masks"]
            )
            before, _ = transfer.value_and_gradient(shown_content[None], targets)
            painted, terms = transfer(shown_content, shown_styles, **arguments, on_step=on_step)
        except ValueError as error:
            left_out.append(f"{name}: left out; {error}")
            continue
        seconds = round(time.perf_counter() - started, 1)
        made = finished(config, content, painted)
        drawing.save(made, workdir / f"{name}.png")
        plot_loss(history, workdir / f"{name}_loss.png")
        first = {key: float(value) for key, value in before.items()}
        metrics.append(
            {
                "file_name": name,
                "size": list(content.shape[:2]),
                "loss_of_the_picture": first,
                "loss": terms,
                "share_of_the_loss": terms["loss"] / first["loss"],
                "iterations": len(history),
                "seconds": seconds,
            }
        )
        run_folder.write_json(workdir / "metrics.json", {"pictures": metrics})
        print(
            f"{name}: loss {first['loss']:.4g} -> {terms['loss']:.4g}, "
            f"{100 * terms['loss'] / first['loss']:.1f} %, in {seconds:.0f} s",
            flush=True,
        )
        if len(rows) < SHEET_ROWS:
            rows.append((to_pixels(content[None])[0], *(s.astype("uint8") for s in styles), made))
    for line in left_out:
        print(line)
    if rows:
        titles = ("picture", *("style" for _ in styles), "painted")
        drawing.contact_sheet(rows, workdir / "sheet.png", titles, groups=1, cell=SHEET_CELL)
    return metrics


def paint_video(config, transfer, file, styles, arguments, workdir):
    """Paints the frames of a video; returns metrics."""
    import cv2
    import keras
    import numpy as np

    from kerasvision.data import pictures
    from kerasvision.synthesis.style import stylize_frames

    video = cv2.VideoCapture(str(file))
    rate = video.get(cv2.CAP_PROP_FPS) or 25.0
    count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    bar = keras.utils.Progbar(count or None, verbose=int(sys.stdout.isatty()))
    contents, writer, losses, started = [], None, [], time.perf_counter()

    def frames():
        for _, picture in pictures.read_frames(video, file.stem):
            contents.append(pictures.as_input(picture, config.max_side))
            yield prepared(config, contents[-1], [])[0]

    ok, first = cv2.VideoCapture(str(file)).read()
    if not ok:
        raise run_folder.RunError(f"--input={file}: not a readable video")
    # The colours of the first frame serve all.
    _, styles = prepared(config, pictures.as_input(first[:, :, ::-1], config.max_side), styles)
    path = workdir / f"{file.stem}.mp4"
    for painted, terms in stylize_frames(transfer, frames(), styles, **arguments):
        made = finished(config, contents.pop(), painted)
        height, width = (side // 2 * 2 for side in made.shape[:2])
        if writer is None:
            code = cv2.VideoWriter_fourcc(*"mp4v")
            writer = cv2.VideoWriter(str(path), code, rate, (width, height))
        writer.write(np.ascontiguousarray(made[:height, :width, ::-1]))
        losses.append(terms)
        bar.add(1)
    writer.release()
    seconds = round(time.perf_counter() - started, 1)
    metrics = {"frames": len(losses), "losses": losses, "seconds": seconds}
    run_folder.write_json(workdir / "metrics.json", metrics)
    print(f"{len(losses)} frames are in {path}, painted in {seconds:.0f} s")
    return metrics


def plot_loss(history, path):
    """Saves the curves of the loss and of its parts over the iterations."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name in history[0]:
        values = [terms[name] for terms in history]
        if any(values):
            axes.plot(values, label=name, linewidth=2)
    axes.set_yscale("log")
    axes.set_xlabel("iteration")
    axes.set_title("loss and its parts")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


def main(argv):
    del argv
    run(flags.FLAGS)


if __name__ == "__main__":
    app.run_main(main, __doc__)
