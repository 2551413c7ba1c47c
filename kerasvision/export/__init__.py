"""Models for serving and for phones: SavedModel and LiteRT (.tflite)."""

import pathlib

import keras
import numpy as np

from kerasvision import data
from kerasvision.export.litert import PRECISIONS, ExportError
from kerasvision.export.litert_classifier import (
    LiteRTClassifier,
    LiteRTEmbedder,
    export_litert_classifier,
    export_litert_embedder,
)
from kerasvision.export.litert_detector import LiteRTDetector, export_litert
from kerasvision.export.litert_generator import export_litert_generator
from kerasvision.export.litert_segmenter import LiteRTSegmenter, export_litert_segmenter
from kerasvision.export.saved_model import (
    SavedModelClassifier,
    SavedModelDetector,
    SavedModelSegmenter,
    export_saved_model,
)
from kerasvision.training.quiet import quiet

CALIBRATION_IMAGES = 128


def export_all(model, workdir, formats, dataset=None):
    """Exports a detector as `workdir`/saved_model and `workdir`/model_{precision}.tflite.

    Args:
        model: a `kerasvision.detection.Detector`.
        workdir: folder for the exports.
        formats: list out of "saved_model", "float32", "float16" and "int8".
        dataset: `kerasvision.data.DetectionDataset`, on whose first 128 pictures int8 is
            calibrated; None: no int8.

    Raises:
        ValueError: an unknown format, or int8 without pictures.
        ExportError: an export does not compute what the model does.
    """
    _check_formats(formats, ("saved_model", *PRECISIONS), dataset)
    images = None
    if "int8" in formats:
        images = _first_images(data.batches(dataset, model.image_shape, 16))
    for name in formats:
        if name == "saved_model":
            export_saved_model(model, pathlib.Path(workdir, name))
        else:
            export_litert(model, pathlib.Path(workdir, f"model_{name}.tflite"), name, images)


def export_classifier(model, workdir, formats, dataset=None):
    """Exports a classifier as `workdir`/saved_model and `workdir`/model_{precision}.tflite.

    Args:
        model: `kerasvision.classification.Classifier`.
        workdir: folder for the exports.
        formats: list out of "saved_model", "float32", "float16" and "int8".
        dataset: `kerasvision.data.ClassificationDataset`, on 128 pictures of which int8 is
            calibrated; None: no int8.

    Raises:
        ValueError: an unknown format, or int8 without pictures.
        ExportError: an export does not compute what the model does.
    """
    _check_formats(formats, ("saved_model", *PRECISIONS), dataset)
    images = _classification_images(model, dataset) if "int8" in formats else None
    for name in formats:
        if name == "saved_model":
            export_saved_model(model, pathlib.Path(workdir, name))
        else:
            path = pathlib.Path(workdir, f"model_{name}.tflite")
            export_litert_classifier(model, path, name, images)


def export_embedder(model, workdir, formats, dataset=None):
    """Exports a classifier's features as `workdir`/embedder_{precision}.tflite.

    Args:
        model, workdir, dataset: as of `export_classifier`.
        formats: list out of "float32", "float16" and "int8".

    Raises:
        ValueError, ExportError: as of `export_classifier`.
    """
    _check_formats(formats, PRECISIONS, dataset)
    images = _classification_images(model, dataset) if "int8" in formats else None
    for name in formats:
        path = pathlib.Path(workdir, f"embedder_{name}.tflite")
        export_litert_embedder(model, path, name, images)


def export_embedding(model, workdir, formats, dataset=None):
    """Exports an embedding as `workdir`/saved_model and `workdir`/model_{precision}.tflite.

    Both take RGB pictures (B, H, W, 3), the .tflite file (1, H, W, 3), uint8; and give embeddings
    (B, D) float32. MediaPipe's ImageEmbedder loads the file as it is.

    Args:
        model: a `FaceNet`, a `Siamese`, or another model with an `embedder`.
        workdir: folder for the exports.
        formats: list out of "saved_model", "float32", "float16" and "int8".
        dataset: `kerasvision.data.ClassificationDataset`, on 128 pictures of which int8 is
            calibrated; None: no int8.

    Raises:
        ValueError: an unknown format, or int8 without pictures.
        ExportError: an export does not compute what the model does.
    """
    _check_formats(formats, ("saved_model", *PRECISIONS), dataset)
    calibration = _classification_images(model, dataset) if "int8" in formats else None
    for name in formats:
        if name == "saved_model":
            images = keras.InputSpec(dtype="uint8", shape=(None, *model.image_shape))
            path = str(pathlib.Path(workdir, name))
            with quiet():
                model.embedder.export(path, input_signature=[images], verbose=False)
        else:
            path = pathlib.Path(workdir, f"model_{name}.tflite")
            export_litert_embedder(model, path, name, calibration)


def export_segmenter(model, workdir, formats, dataset=None):
    """Exports a segmenter as `workdir`/saved_model and `workdir`/model_{precision}.tflite.

    Args:
        model: `kerasvision.segmentation.Segmenter`.
        workdir: folder for the exports.
        formats: list out of "saved_model", "float32", "float16" and "int8".
        dataset: `kerasvision.data.SegmentationDataset`, on 128 pictures of which int8 is
            calibrated; None: no int8.

    Raises:
        ValueError: an unknown format, or int8 without pictures.
        ExportError: an export does not compute what the model does.
    """
    _check_formats(formats, ("saved_model", *PRECISIONS), dataset)
    images = None
    if "int8" in formats:
        images = _first_images(
            data.segmentation_batches(dataset, model.image_shape, 16, shuffle=True, seed=0)
        )
    for name in formats:
        if name == "saved_model":
            export_saved_model(model, pathlib.Path(workdir, name))
        else:
            path = pathlib.Path(workdir, f"model_{name}.tflite")
            export_litert_segmenter(model, path, name, images)


def export_generator(generator, workdir, formats, prefix=""):
    """Exports a generator as `workdir`/saved_model and `workdir`/model_{precision}.tflite.

    Args:
        generator: functional `keras.Model` from noise or pictures to pictures.
        workdir: folder for the exports.
        formats: list out of "saved_model", "float32" and "float16".
        prefix: of the names, where there are several generators.

    Raises:
        ValueError: an unknown format.
        ExportError: an export does not compute what the generator does.
    """
    _check_formats(formats, ("saved_model", "float32", "float16"), None)
    for name in formats:
        if name == "saved_model":
            signature = [keras.InputSpec(dtype="float32", shape=generator.input_shape)]
            path = str(pathlib.Path(workdir, f"{prefix}{name}"))
            with quiet():
                generator.export(path, input_signature=signature, verbose=False)
        else:
            path = pathlib.Path(workdir, f"{prefix}model_{name}.tflite")
            export_litert_generator(generator, path, name)


def _check_formats(formats, known, dataset):
    for name in formats:
        if name not in known:
            raise ValueError(f"formats must be out of {', '.join(known)}; received: {name}")
    if "int8" in formats and dataset is None:
        raise ValueError("int8 needs a dataset to calibrate on; received: None")


def _classification_images(model, dataset):
    # Shuffled, as the pictures of a folder come class by class.
    return _first_images(
        data.classification_batches(dataset, model.image_shape, 16, shuffle=True, seed=0)
    )


def _first_images(batches):
    batches = batches.take(CALIBRATION_IMAGES // 16)
    return np.concatenate([np.asarray(batch["images"]) for batch in batches])
