"""Shows what the layers of a network keep of a picture: others with the same codes.

  python apps/invert_features.py --model=vgg16 --backbone_weights=vgg16_notop.h5 --input=town.jpg
  python apps/invert_features.py --model=runs/quickstart --input=PICTURES --layers=Conv1,Conv_1

--model is a network of kerasvision.backbones with --backbone_weights, or a run folder or .keras
file. From noise, for each of --layers, a picture is sought of which the layer says the same as of
the given one (Mahendran and Vedaldi 2015). The folder --workdir gets, for each picture,
NAME_LAYER.png, the reconstructions; steps/NAME_LAYER_0001.png, …, some of the pictures on the way;
and for all, sheet.png, the pictures beside their reconstructions, and metrics.json, with the errors
of each reconstruction in all the layers and in the pixels.
"""

import sys
import time

from absl import flags

from kerasvision.training import app, run_folder

app.define_network_flags()
app.define_picture_flags(max_side=224)
flags.DEFINE_string("workdir", "runs/invert_features", "Folder for the results.")
flags.DEFINE_list("layers", None, "Names of layers. Default: the last one of each resolution.")
flags.DEFINE_list(
    "tv_weights",
    None,
    "Weight of the TV prior, one for each layer, or one for all. Default: 0.5, 5 or 50, in the "
    "first, second or last third of the network.",
)
flags.DEFINE_float("tv_beta", 2.0, "Its exponent.", 0.1)
flags.DEFINE_integer("steps", 200, "Steps of the descent.", lower_bound=1)
flags.DEFINE_enum("optimizer", "adam", ["adam", "momentum"], "Of the descent.")
flags.DEFINE_float(
    "learning_rate", None, "Default: 8 grey levels for adam, 0.004 for momentum.", lower_bound=0.0
)

SHEET_ROWS = 12
SHEET_CELL = 224  # pixels
PICTURES_ON_THE_WAY = 4


def run(config):
    """Inverts, draws and writes; `config` has the flags as attributes."""
    app.check_needed(config, ("model", "input"))
    files = app.find_pictures(config.input)
    weights = config.tv_weights
    try:
        weights = None if weights is None else [float(weight) for weight in weights]
    except ValueError:
        raise run_folder.RunError(
            f"--tv_weights: must be numbers; received: {','.join(weights)}"
        ) from None
    if weights is not None and config.layers and len(weights) not in (1, len(config.layers)):
        raise run_folder.RunError(
            f"--tv_weights: must be one, or one for each of the {len(config.layers)} --layers; "
            f"received: {len(weights)}"
        )
    workdir = run_folder.make_folder(config.workdir, space_needed=50e6)
    run_folder.write_atomically(
        workdir / run_folder.FLAGFILE, run_folder.flagfile_text(run_folder.app_flags())
    )
    app.import_tensorflow()
    import keras

    from kerasvision import drawing
    from kerasvision.data import pictures
    from kerasvision.generative.evaluation import to_pixels
    from kerasvision.synthesis import (
        Inversion,
        check_image_size,
        features,
        load_network,
        reconstruction_errors,
        stages,
    )

    network, _ = load_network(config.model, config.backbone_weights)
    layers = config.layers or stages(network)
    phi = features(network, layers)
    weights = [None] if weights is None else weights
    if len(weights) not in (1, len(layers)):
        raise run_folder.RunError(
            f"--tv_weights: must be one, or one for each of {', '.join(layers)}; "
            f"received: {len(weights)}"
        )
    weights = weights * len(layers) if len(weights) == 1 else weights
    inversions = {
        layer: Inversion(
            network,
            layer,
            weight,
            config.tv_beta,
            steps=config.steps,
            optimizer=config.optimizer,
            learning_rate=config.learning_rate,
            jit_compile=config.jit_compile,
        )
        for layer, weight in zip(layers, weights)
    }

    (workdir / "steps").mkdir(exist_ok=True)
    rows, metrics, unreadable = [], [], []
    bar_mode = int(sys.stdout.isatty())
    bar = keras.utils.Progbar(len(files) * len(layers) * config.steps, verbose=bar_mode)
    shown = {config.steps * i // PICTURES_ON_THE_WAY for i in range(1, PICTURES_ON_THE_WAY)}
    for name, picture in pictures.read_files(files, unreadable):
        image = pictures.as_input(picture, config.max_side, network.inputs[0].shape[-1])[None]
        started, row, errors, energies = time.time(), [to_pixels(image)[0]], {}, {}
        try:
            check_image_size(phi, image.shape[1:3])
            for layer, inversion in inversions.items():

                def on_step(step, make, energy, error):
                    energies[layer] = float(energy[0])
                    if step in shown:
                        path = workdir / "steps" / f"{name}_{layer}_{step:04d}.png"
                        drawing.save(to_pixels(make())[0], path)
                    bar.add(1)

                made = inversion(image, config.seed, on_step)
                found = reconstruction_errors(phi, image, made)
                errors[layer] = {key: float(value[0]) for key, value in found.items()}
                row.append(to_pixels(made)[0])
                drawing.save(row[-1], workdir / f"{name}_{layer}.png")
        except ValueError as error:
            unreadable.append(f"{name}: left out; {error}")
            continue
        metrics.append(
            {
                "file_name": name,
                "size": list(image.shape[1:3]),
                "errors": errors,
                "energies": energies,
                "seconds": round(time.time() - started, 1),
            }
        )
        run_folder.write_json(workdir / "metrics.json", {"pictures": metrics})
        if len(rows) < SHEET_ROWS:
            rows.append(tuple(row))
    if bar_mode:
        print()
    for line in unreadable:
        print(line)
    if not rows:
        raise run_folder.RunError(f"--input={config.input}: nothing in it could be inverted")
    drawing.contact_sheet(
        rows, workdir / "sheet.png", ("picture", *layers), groups=1, cell=SHEET_CELL
    )
    print(f"{'inverted':28s} {'error there':>12s} {'in all layers':>14s} {'in pixels':>10s}")
    for layer in layers:
        there, mean, pixels = (
            sum(row["errors"][layer][key] for row in metrics) / len(metrics)
            for key in (layer, "mean", "pixels")
        )
        print(f"{layer:28s} {there:12.3f} {mean:14.3f} {pixels:10.3f}")
    print(f"{len(metrics)} pictures, their reconstructions and sheet.png are in {workdir}")
    return metrics


def main(argv):
    del argv
    run(flags.FLAGS)


if __name__ == "__main__":
    app.run_main(main, __doc__)
