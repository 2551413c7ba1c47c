"""The metadata by which MediaPipe's ObjectDetector understands a .tflite file.

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
TENSOR_VALUE_LABELS = 3  # AssociatedFileType
RGB = 1  # ColorSpaceType
BOUNDARIES = 1  # BoundingBoxType; CoordinateType RATIO is 0, the default
FEATURE, IMAGE, BOUNDING_BOX = 1, 2, 3  # union ContentProperties


def detector_metadata(name):
    """The metadata, as bytes, of a detector from one RGB image to the four outputs location
    (boxes as ymin, xmin, ymax, xmax), category, score and number of detections.
    """
    builder = flatbuffers.Builder(1024)

    def table(num_slots, offsets=(), numbers=()):
        builder.StartObject(num_slots)
        for slot, value in offsets:
            builder.PrependUOffsetTRelativeSlot(slot, value, 0)
        for slot, value in numbers:
            builder.PrependInt8Slot(slot, value, 0)
        return builder.EndObject()

    def vector(values, prepend=builder.PrependUOffsetTRelative):
        builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            prepend(value)
        return builder.EndVector()

    def tensor_metadata(name, content_type, properties, files=()):
        content = table(3, offsets=[(1, properties)], numbers=[(0, content_type)])
        offsets = [(0, builder.CreateString(name)), (3, content)]
        if files:
            offsets.append((6, vector(files)))
        return table(7, offsets)

    image = tensor_metadata("image", IMAGE, table(2, numbers=[(0, RGB)]))
    # Where xmin, ymin, xmax and ymax stand in a box.
    order = vector([1, 0, 3, 2], builder.PrependUint32)
    box = table(3, offsets=[(0, order)], numbers=[(1, BOUNDARIES)])
    location = tensor_metadata("location", BOUNDING_BOX, box)
    labels = table(
        5, offsets=[(0, builder.CreateString(LABELS))], numbers=[(2, TENSOR_VALUE_LABELS)]
    )
    category = tensor_metadata("category", FEATURE, table(0), [labels])
    score = tensor_metadata("score", FEATURE, table(0))
    count = tensor_metadata("number of detections", FEATURE, table(0))
    inputs, outputs = vector([image]), vector([location, category, score, count])
    subgraph = table(10, offsets=[(2, inputs), (3, outputs)])
    model = table(
        8,
        offsets=[
            (0, builder.CreateString(name)),
            (3, vector([subgraph])),
            (7, builder.CreateString("1.0.0")),
        ],
    )
    builder.Finish(model, b"M001")
    return bytes(builder.Output())


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
