"""The metadata by which MediaPipe's vision tasks understand a .tflite file.

TFLite Model Metadata is a FlatBuffer with the file identifier M001 that says what each tensor
means; it is one of the buffers of the model. The class names are a text file in an uncompressed
ZIP archive that is appended to the model, so that both can be mapped into memory.
"""

import io
import zipfile

import flatbuffers

BUFFER_NAME = "TFLITE_METADATA"
LABELS = "labels.txt"

# Numbers of metadata_schema.fbs.
TENSOR_AXIS_LABELS, TENSOR_VALUE_LABELS = 2, 3  # AssociatedFileType
RGB = 1  # ColorSpaceType
BOUNDARIES = 1  # BoundingBoxType; CoordinateType RATIO is 0, the default
FEATURE, IMAGE, BOUNDING_BOX = 1, 2, 3  # union ContentProperties


def detector_metadata(name, further_outputs=()):
    """The metadata, as bytes, of a detector from one RGB image to the four outputs location
    (boxes as ymin, xmin, ymax, xmax), category, score and number of detections, and to further
    ones, which MediaPipe has no use for.
    """
    builder = _Builder()
    # Where xmin, ymin, xmax and ymax stand in a box.
    order = builder.vector([1, 0, 3, 2], builder.PrependUint32)
    box = builder.table(3, offsets=[(0, order)], numbers=[(1, BOUNDARIES)])
    outputs = [
        builder.tensor("location", BOUNDING_BOX, box),
        builder.feature("category", TENSOR_VALUE_LABELS),
        builder.feature("score"),
        builder.feature("number of detections"),
        *map(builder.feature, further_outputs),
    ]
    return builder.model(name, outputs)


def classifier_metadata(name):
    """The metadata, as bytes, of a classifier from one RGB image to scores by class."""
    builder = _Builder()
    return builder.model(name, [builder.feature("probabilities", TENSOR_AXIS_LABELS)])


def embedder_metadata(name):
    """The metadata, as bytes, of an embedder from one RGB image to a vector."""
    builder = _Builder()
    return builder.model(name, [builder.feature("embedding")])


def segmenter_metadata(name):
    """The metadata, as bytes, of a segmenter from one RGB image to probabilities by class."""
    options = _Builder()
    # ImageSegmenterOptions of image_segmenter_metadata_schema.fbs; left out is the activation,
    # NONE: MediaPipe takes the numbers as they are.
    options.Finish(options.table(2), b"V001")
    builder = _Builder()
    outputs = [builder.feature("probabilities", TENSOR_AXIS_LABELS)]
    custom = builder.custom("SEGMENTER_METADATA", bytes(options.Output()))
    return builder.model(name, outputs, [custom])


class _Builder(flatbuffers.Builder):
    """Writes tables of the schema, whose fields are numbered slots."""

    def __init__(self):
        super().__init__(1024)

    def table(self, num_slots, offsets=(), numbers=()):
        self.StartObject(num_slots)
        for slot, value in offsets:
            self.PrependUOffsetTRelativeSlot(slot, value, 0)
        for slot, value in numbers:
            self.PrependInt8Slot(slot, value, 0)
        return self.EndObject()

    def vector(self, values, prepend):
        self.StartVector(4, len(values), 4)
        for value in reversed(values):
            prepend(value)
        return self.EndVector()

    def tables(self, values):
        return self.vector(values, self.PrependUOffsetTRelative)

    def tensor(self, name, content_type, properties, files=()):
        """TensorMetadata."""
        content = self.table(3, offsets=[(1, properties)], numbers=[(0, content_type)])
        offsets = [(0, self.CreateString(name)), (3, content)]
        if files:
            offsets.append((6, self.tables(files)))
        return self.table(7, offsets)

    def feature(self, name, labels=None):
        """TensorMetadata of numbers; `labels` is the AssociatedFileType of the class names."""
        files = []
        if labels is not None:
            files = [self.table(5, [(0, self.CreateString(LABELS))], [(2, labels)])]
        return self.tensor(name, FEATURE, self.table(0), files)

    def custom(self, name, content):
        """CustomMetadata: bytes for one task, a FlatBuffer themselves."""
        self.StartVector(1, len(content), 16)
        for byte in reversed(content):
            self.PrependByte(byte)
        data = self.EndVector()
        return self.table(2, [(0, self.CreateString(name)), (1, data)])

    def model(self, name, outputs, custom=()):
        """ModelMetadata, as bytes, of a model from one RGB image."""
        image = self.tensor("image", IMAGE, self.table(2, numbers=[(0, RGB)]))
        subgraph = [(2, self.tables([image])), (3, self.tables(outputs))]
        if custom:
            subgraph.append((9, self.tables(custom)))
        offsets = [
            (0, self.CreateString(name)),
            (3, self.tables([self.table(10, subgraph)])),
            (7, self.CreateString("1.0.0")),
        ]
        self.Finish(self.table(8, offsets), b"M001")
        return bytes(self.Output())


def labels_archive(class_names):
    """The ZIP archive, as bytes, of the class names; its place is the end of the file."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        # ZipInfo without a time: equal models give equal files.
        file.writestr(zipfile.ZipInfo(LABELS), "\n".join(class_names) + "\n")
    return archive.getvalue()


def read_labels(path):
    """The class names in a .tflite file.

    Raises:
        ValueError: there are none.
    """
    try:
        with zipfile.ZipFile(path) as file:
            return file.read(LABELS).decode("utf-8").rstrip("\n").split("\n")
    except (zipfile.BadZipFile, KeyError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: expected a .tflite file with class names in it; received: {error}"
        ) from None
