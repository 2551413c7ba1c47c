"""Compares fast style transfer with the descent that it learned to replace.

  python tools/compare_styles.py --model=runs/fast_scream --style=scream.jpg \\
    --backbone_weights=vgg16_notop.h5 --input=PICTURES --count=5 --image_size=256

Both have the loss that the network was trained with, as the flags in its run folder tell. Told are,
of centre crops of pictures, the mean losses: of the pictures as they are, as the network paints
them, and after some iterations of L-BFGS; the first iteration that is no worse than the network;
the medians of the seconds that the network and all iterations take, and their ratio. The descent
starts from white noise, as what Johnson et al. compare with does, or from the picture (--start).
The network's first call, which compiles it, is not counted.
"""

import pathlib
import statistics
import time

from absl import flags

from kerasvision.training import app, run_folder

app.define_network_flags()
app.define_picture_flags(max_side=0)
flags.DEFINE_string("style", None, "Picture that the network was trained with.")
flags.DEFINE_integer("count", 5, "Pictures.", lower_bound=1)
flags.DEFINE_integer("image_size", 256, "Their side, in pixels, a multiple of 4.", lower_bound=44)
flags.DEFINE_integer("iterations", 100, "Of L-BFGS.", lower_bound=1)
flags.DEFINE_enum("start", "noise", ["noise", "content"], "Where the descent starts.")

TOLD = (10, 25, 50, 75, 100)


def main(argv):
    del argv
    config = flags.FLAGS
    app.check_needed(config, ("model", "style", "input"))
    app.import_tensorflow()
    import numpy as np
    from absl import flags as absl_flags

    from kerasvision.data import pictures
    from kerasvision.data.pipeline import centre_crop
    from kerasvision.synthesis import FastStyle, StyleLoss, StyleTransfer, fast_style, load_network

    model = run_folder.load_model(config.model)
    if not isinstance(model, FastStyle):
        raise run_folder.RunError(
            f"--model={config.model}: must be of train_fast_style; received: {type(model).__name__}"
        )
    # As it was trained.
    trained = absl_flags.FlagValues()
    absl_flags.DEFINE_string("model", "vgg16", "", flag_values=trained)
    absl_flags.DEFINE_string("backbone_weights", None, "", flag_values=trained)
    absl_flags.DEFINE_list("content_layers", [*fast_style.CONTENT_LAYERS], "", flag_values=trained)
    absl_flags.DEFINE_list("style_layers", [*fast_style.STYLE_LAYERS], "", flag_values=trained)
    for name, default in (("content_weight", 1.0), ("style_weight", 10.0), ("tv_weight", 0.1)):
        absl_flags.DEFINE_float(name, default, "", flag_values=trained)
    absl_flags.DEFINE_integer("style_side", 256, "", flag_values=trained)
    text = pathlib.Path(config.model, run_folder.FLAGFILE).read_text().splitlines()
    known = tuple(f"--{name}=" for name in trained)
    trained(["", *(line for line in text if line.startswith(known))])
    network, _ = load_network(trained.model, config.backbone_weights or trained.backbone_weights)
    loss = StyleLoss(
        network,
        trained.content_layers,
        trained.style_layers,
        content_weight=trained.content_weight,
        style_weight=trained.style_weight,
        tv_weight=trained.tv_weight,
    )
    style = app.read_picture("style", config.style, trained.style_side)
    transfer = StyleTransfer(loss, iterations=config.iterations, start=config.start)

    size, before, painted, after, seconds = (config.image_size,) * 2, [], [], [], ([], [])
    files = app.find_pictures(config.input)[: config.count]
    for number, (name, picture) in enumerate(pictures.read_files(files, [])):
        x = centre_crop(picture, size).numpy().astype("float32")
        targets = transfer.targets(x, [style])

        def loss_of(image):
            return float(transfer.value_and_gradient(image[None], targets)[0]["loss"])

        before.append(loss_of(x))
        if number == 0:
            model.paint(x)
        started = time.perf_counter()
        made = model.paint(x)
        seconds[0].append(time.perf_counter() - started)
        painted.append(loss_of(made))
        losses = []
        started = time.perf_counter()
        transfer(x, [style], on_step=lambda step, image, terms: losses.append(terms["loss"]))
        seconds[1].append(time.perf_counter() - started)
        after.append(losses)
        reached = next((i + 1 for i, value in enumerate(losses) if value <= painted[-1]), None)
        print(
            f"{name}: {before[-1]:.3f} as it is, {painted[-1]:.3f} painted, iteration {reached} of "
            f"L-BFGS is no worse",
            flush=True,
        )
    print(f"\nmean losses of {len(before)} pictures of {size[0]} x {size[1]} pixels:")
    print(f"  as they are           {np.mean(before):8.3f}")
    print(f"  painted by the network{np.mean(painted):8.3f}")
    for count in TOLD:
        if count <= config.iterations:
            mean = np.mean([losses[min(count, len(losses)) - 1] for losses in after])
            print(f"  {count:3d} iterations        {mean:8.3f}")
    quick, slow = (statistics.median(values) for values in seconds)
    print(f"seconds: {quick:.3f} and {slow:.1f}, {slow / quick:.0f} times as long")


if __name__ == "__main__":
    app.run_main(main, __doc__)
