"""Detection data: readers, augmentation and batches."""

from kerasvision.data.augmentation import SSDAugmentation
from kerasvision.data.coco import load_coco
from kerasvision.data.dataset import DetectionDataset
from kerasvision.data.pipeline import batches, steps_per_epoch
from kerasvision.data.scenes import Scenes
from kerasvision.data.tfds_sets import from_builder, load_tfds
from kerasvision.data.voc import load_voc
from kerasvision.data.yolo import load_yolo


def load(name, split="train", *, data_dir=None, download=False):
    """Loads a detection set that is named in one word.

    Args:
        name: `scenes` (drawn on first use), `tfds:NAME`, `voc:PATH`, `coco:ANNOTATIONS.json` or
            `yolo:PATH`.
        split: name of the split, such as `train`, `val` or `test`.
        data_dir: folder of TensorFlow Datasets' files; None: its own default.
        download: whether `tfds:` sets that are not there may be downloaded.

    Returns:
        A `DetectionDataset`.

    Raises:
        ValueError: the name is of another form, or the set cannot be read.
    """
    kind, _, rest = name.partition(":")
    if name == "scenes":
        builder = Scenes(config="detection", data_dir=data_dir)
        builder.download_and_prepare()
        return from_builder(name, builder, split)
    if kind == "tfds" and rest:
        return load_tfds(name, rest, split, data_dir, download)
    if kind == "voc" and rest:
        return load_voc(name, rest, split)
    if kind == "coco" and rest:
        return load_coco(name, rest, split)
    if kind == "yolo" and rest:
        return load_yolo(name, rest, split)
    raise ValueError(
        "dataset must be scenes, tfds:NAME, voc:PATH, coco:ANNOTATIONS.json or yolo:PATH; "
        f"received: {name}"
    )
