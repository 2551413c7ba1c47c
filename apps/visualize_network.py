"""Draws what the classes of a network look like to it, or what channels of its layers look for.

  python apps/visualize_network.py --model=mobilenet_v2.keras --classes=flamingo,daisy
  python apps/visualize_network.py --model=vgg16 --backbone_weights=vgg16_notop.h5 \\
      --layers=block3_conv3,block4_conv3 --channels=0,1,2

--model is a run folder or .keras file; or a network of kerasvision.backbones with
--backbone_weights, which for --classes must have a classifier. From grey noise a picture is made
for which the logit of a class, or the mean of a channel before its activation, is largest.
--classes are names or numbers, --channels numbers, of each of --layers. The folder --workdir gets
class_NUMBER.png and LAYER_NUMBER.png; steps/, some of the pictures on the way; sheet.png, all of
them; and metrics.json, the responses, and of classes the softmax of the logits.
"""

import sys
import time

from absl import flags

from kerasvision.training import app, run_folder

app.define_network_flags()
flags.DEFINE_string("workdir", "runs/visualize_network", "Folder for the results.")
flags.DEFINE_list("classes", None, "Names or numbers of classes.")
flags.DEFINE_list("layers", None, "Names of layers.")
flags.DEFINE_list("channels", ["0", "1", "2", "3"], "Numbers of channels of each of --layers.")
flags.DEFINE_string("image_size", None, "HEIGHTxWIDTH. Default: the network's own, or 224x224.")
flags.DEFINE_enum(
    "parametrization",
    "fourier",
    ["fourier", "pixels"],
    "Climb in frequencies of decorrelated colours, or in pixels.",
)
flags.DEFINE_integer("steps", 200, "Steps of the ascent.", lower_bound=1)
flags.DEFINE_float("learning_rate", None, "Default: 0.05 for fourier, 0.02 for pixels.", 0.0)
flags.DEFINE_integer("jitter", 16, "Pixels by which steps see the picture moved.", lower_bound=0)
flags.DEFINE_float("blur", 0.0, "Sigma of the blur, in pixels, for --parametrization=pixels.", 0.0)
flags.DEFINE_float("tv_weight", 0.0, "Of the TV prior, such as 20.", 0.0)
flags.DEFINE_float("l2_weight", 0.0, "Of the L2 prior, such as 5.", 0.0)
flags.DEFINE_integer("batch_size", 4, "Pictures that are made at once.", lower_bound=1)

MIN_CELL = 160  # pixels of the sheet, for its captions
PICTURES_ON_THE_WAY = 4


def run(config):
    """Draws and writes; `config` has the flags as attributes."""
    app.check_needed(config, ("model",))
    if not config.classes and not config.layers:
        raise run_folder.RunError("--classes, --layers: one of them is needed; received: neither")
    channels = app.read_integers("channels", config.channels)
    size = None if config.image_size is None else app.read_size("image_size", config.image_size)
    workdir = run_folder.make_folder(config.workdir, space_needed=50e6)
    run_folder.write_atomically(
        workdir / run_folder.FLAGFILE, run_folder.flagfile_text(run_folder.app_flags())
    )
    app.import_tensorflow()
    import keras
    import numpy as np

    from kerasvision import drawing
    from kerasvision.generative.evaluation import to_pixels
    from kerasvision.synthesis import ActivationMaximization, load_network

    network, class_names = load_network(
        config.model, config.backbone_weights, include_top=bool(config.classes)
    )
    # Every name and number is looked at before the first picture is made.
    tasks = []
    for layer in ([None] if config.classes else []) + (config.layers or []):
        maximization = ActivationMaximization(
            network,
            layer,
            size,
            config.parametrization,
            config.steps,
            config.learning_rate,
            config.jitter,
            config.blur,
            config.tv_weight,
            l2_weight=config.l2_weight,
            jit_compile=config.jit_compile,
        )
        count = maximization.num_channels
        if layer is None:
            names = class_names or [str(number) for number in range(count)]
            chosen = [app.class_number("classes", name.strip(), names) for name in config.classes]
        elif max(channels) >= count:
            raise run_folder.RunError(
                f"--channels: must be numbers from 0 to {count - 1}, the channels of {layer}; "
                f"received: {','.join(config.channels)}"
            )
        else:
            chosen = channels
        tasks.append((layer, maximization, chosen))

    (workdir / "steps").mkdir(exist_ok=True)
    started, made, captions, metrics = time.time(), [], [], []
    bar_mode = int(sys.stdout.isatty())
    bar = keras.utils.Progbar(
        sum(-(-len(chosen) // config.batch_size) for _, _, chosen in tasks) * config.steps,
        verbose=bar_mode,
    )
    shown = {config.steps * i // PICTURES_ON_THE_WAY for i in range(1, PICTURES_ON_THE_WAY)}
    columns = max(len(chosen) for _, _, chosen in tasks)
    for layer, maximization, chosen in tasks:
        for first in range(0, len(chosen), config.batch_size):
            numbers = chosen[first : first + config.batch_size]
            names = [f"{layer or 'class'}_{number}" for number in numbers]

            def on_step(step, make, responses):
                if step in shown:
                    for name, image in zip(names, to_pixels(make())):
                        drawing.save(image, workdir / "steps" / f"{name}_{step:04d}.png")
                bar.add(1)

            images, responses = maximization(numbers, config.seed, on_step)
            images = to_pixels(images)
            for name, number, image, response in zip(names, numbers, images, responses):
                drawing.save(image, workdir / f"{name}.png")
                row = {"layer": layer, "number": number, "response": float(response)}
                lines = [f"{layer}, channel {number}", f"response {response:.1f}"]
                if layer is None:
                    # Of the picture as it was saved.
                    logits = maximization.phi(image[None].astype("float32"), training=False)
                    logits = np.asarray(logits["logits"][0], "float64")
                    probability = np.exp(logits[number] - logits.max())
                    probability /= np.exp(logits - logits.max()).sum()
                    row["class"] = class_names[number] if class_names else str(number)
                    row["probability"] = float(probability)
                    lines = [row["class"], f"probability {probability:.3f}"]
                made.append(image)
                captions.append([(line, drawing.BLACK) for line in lines])
                metrics.append(row)
            seconds = round(time.time() - started, 1)
            run_folder.write_json(
                workdir / "metrics.json", {"pictures": metrics, "seconds": seconds}
            )
        # The next layer begins a row.
        while len(tasks) > 1 and len(made) % columns:
            made.append(np.full_like(made[-1], 255))
            captions.append([])
    if bar_mode:
        print()
    drawing.captioned_sheet(
        made,
        captions,
        workdir / "sheet.png",
        title=f"what {network.name} responds to",
        columns=min(columns, 8) if len(tasks) == 1 else columns,
        cell=max(MIN_CELL, *made[0].shape[:2]),
    )
    for row in metrics:
        if row["layer"] is None:
            print(f"{row['class']}: logit {row['response']:.1f}, {row['probability']:.3f}")
        else:
            print(f"{row['layer']}, channel {row['number']}: {row['response']:.1f}")
    print(f"{len(metrics)} pictures and sheet.png are in {workdir}")
    return metrics


def main(argv):
    del argv
    run(flags.FLAGS)


if __name__ == "__main__":
    app.run_main(main, __doc__)
