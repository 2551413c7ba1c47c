"""Exports a trained detector: SavedModel, and LiteRT files for phones.

  python apps/export_model.py --model=runs/quickstart --dataset=scenes --workdir=exports

--model is a run folder or a .keras file. Each .tflite takes one uint8 RGB picture, returns boxes,
classes, scores and their number, and carries the metadata and labels with which MediaPipe's
ObjectDetector loads it as it is. int8 needs pictures like those of the training (--dataset,
--split), from which it learns the range of every tensor.
"""

from absl import flags

from kerasvision.training import app, run_folder

flags.DEFINE_string("model", None, "Run folder or .keras file.")
flags.DEFINE_string("dataset", None, f"Pictures to calibrate int8 on: {app.DATASET_HELP}")
flags.DEFINE_string("split", "train", "Split to calibrate on.")
flags.DEFINE_string("data_dir", None, "Folder of TensorFlow Datasets' files.")
flags.DEFINE_bool("download", False, "Download a tfds: set that is not there yet.")
flags.DEFINE_string("workdir", "runs/export_model", "Folder for the exports.")
flags.DEFINE_list("export", "saved_model,float32,float16,int8", "Which exports.")


def run(config):
    """Exports; `config` has the flags as attributes."""
    if config.model is None:
        raise run_folder.RunError("--model: name a run folder or .keras file; received: nothing")
    if "int8" in config.export and config.dataset is None:
        raise run_folder.RunError(
            "--dataset: int8 needs pictures to calibrate on; name them, or leave int8 out of "
            "--export; received: nothing"
        )
    workdir = run_folder.make_folder(config.workdir, space_needed=500e6)
    from kerasvision import data, export
    from kerasvision.detection import SSD, load_detector

    model = load_detector(config.model)
    if not isinstance(model, SSD):
        raise run_folder.RunError(
            f"--model={config.model}: is an export already; name a run folder or .keras file"
        )
    dataset = None
    if config.dataset is not None:
        dataset = data.load(
            config.dataset, config.split, data_dir=config.data_dir, download=config.download
        )
    export.export_all(model, workdir, config.export, dataset)
    for path in sorted(workdir.iterdir()):
        print(path)


def main(argv):
    del argv
    run(flags.FLAGS)


if __name__ == "__main__":
    app.run_main(main, __doc__)
