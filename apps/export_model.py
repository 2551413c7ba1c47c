"""Exports a trained model: SavedModel, and LiteRT files for phones.

  python apps/export_model.py --model=runs/quickstart --dataset=scenes --workdir=exports
  python apps/export_model.py --model=runs/cats --dataset=folder:CATS --embedder
  python apps/export_model.py --model=runs/train_facenet --dataset=folder:FACES

--model is a run folder or a .keras file, of a detector, classifier, segmenter or embedding. Each
.tflite takes one uint8 RGB picture, and carries the metadata and labels with which MediaPipe loads
it as it is: a detector's returns boxes, classes, scores and their number, for its ObjectDetector
(with masks or keypoints it is for LiteRT alone); a classifier's returns probabilities, for its
ImageClassifier; a segmenter's those of every pixel, for its ImageSegmenter; and an embedding's
returns the embedding, for its ImageEmbedder. int8 needs pictures like those of the training
(--dataset, --split), from which it learns the range of every tensor.
"""

import functools

from absl import flags

from kerasvision.training import app, run_folder

flags.DEFINE_string("model", None, "Run folder or .keras file.")
flags.DEFINE_string(
    "dataset",
    None,
    f"Pictures to calibrate int8 on; for a detector {app.DETECTION_DATASETS[:-1]}; for a "
    f"classifier {app.CLASSIFICATION_DATASETS[:-1]}; for a segmenter "
    f"{app.SEGMENTATION_DATASETS[:-1]}; for an embedding {app.IDENTITY_DATASETS}",
)
flags.DEFINE_string("class_list", None, "Of a segmenter's data set, as in training.")
flags.DEFINE_string("split", "train", "Split to calibrate on.")
flags.DEFINE_string("data_dir", None, "Folder of TensorFlow Datasets' files.")
flags.DEFINE_bool("download", False, "Download a data set that is not there yet.")
flags.DEFINE_string("workdir", "runs/export_model", "Folder for the exports.")
flags.DEFINE_list("export", "saved_model,float32,float16,int8", "Which exports.")
flags.DEFINE_bool(
    "embedder",
    False,
    "Instead of a classifier its features, what its last layer reads, for MediaPipe's "
    "ImageEmbedder; not as saved_model.",
)


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
    app.import_tensorflow()
    from kerasvision import data, export
    from kerasvision.classification import Classifier
    from kerasvision.detection import Detector
    from kerasvision.embedding import FaceNet, PoseDescriptor, Siamese
    from kerasvision.segmentation import Segmenter

    model = run_folder.load_model(config.model)
    if isinstance(model, Detector):
        load, export_to = data.load, export.export_all
    elif isinstance(model, Classifier):
        load, export_to = data.load_classification, export.export_classifier
    elif isinstance(model, Segmenter):
        load = functools.partial(data.load_segmentation, class_list=config.class_list)
        export_to = export.export_segmenter
    elif isinstance(model, (FaceNet, Siamese, PoseDescriptor)):
        load, export_to = data.load_identities, export.export_embedding
    else:
        raise run_folder.RunError(
            f"--model={config.model}: must be a detector, a classifier, a segmenter or an "
            f"embedding; received: {type(model).__name__}"
        )
    formats = config.export
    if config.embedder:
        if not isinstance(model, Classifier):
            raise run_folder.RunError(
                f"--embedder: needs a classifier; received: --model={config.model}, "
                f"{type(model).__name__}"
            )
        export_to = export.export_embedder
        formats = [name for name in formats if name != "saved_model"]
    dataset = None
    if config.dataset is not None:
        dataset = load(
            config.dataset, config.split, data_dir=config.data_dir, download=config.download
        )
    export_to(model, workdir, formats, dataset)
    for path in sorted(workdir.iterdir()):
        print(path)


def main(argv):
    del argv
    run(flags.FLAGS)


if __name__ == "__main__":
    app.run_main(main, __doc__)
