"""The metadata by which MediaPipe Tasks understands a .tflite file.

A flatbuffer (schema `metadata_schema.fbs` of the LiteRT project, identifier M001) in the model's
own list of metadata says what each tensor means; the label file that it names is appended to the
model as a zip archive, uncompressed, so that both can be mapped into memory.
"""

import zipfile

import flatbuffers

NAME = "TFLITE_METADATA"
LABELS = "labels.txt"

# Numbers of the schema.
TENSOR_VALUE_LABELS = 3  # AssociatedFileType
RGB = 1  # ColorSpaceType
BOUNDARIES = 1  # BoundingBoxType; CoordinateType RATIO is 0
FEATURE, IMAGE, BOUNDING_BOX = 1, 2, 3  # union ContentProperties


def detector_metadata(name, description):
    """Metadata of a detector with one image input and four outputs, as bytes.

    The outputs are location (boxes as ymin, xmin, ymax, xmax), category, score and number of
    detections, in this order.
    """
    builder = flatbuffers.Builder(1024)

    def table(slots, offsets=(), numbers=()):
        builder.StartObject(slots)
        for slot, value in offsets:
            builder.PrependUOffsetTRelativeSlot(slot, value, 0)
        for slot, value in numbers:
            builder.PrependInt8Slot(slot, value, 0)
        return builder.EndObject()

    def vector(values, prepend):
        builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            prepend(value)
        return builder.EndVector()

    def tables(*values):
        return vector(values, builder.PrependUOffsetTRelative)

    def tensor(name, kind, properties, files=None):
        content = table(3, offsets=[(1, properties)], numbers=[(0, kind)])
        offsets = [(0, builder.CreateString(name)), (3, content)]
        if files is not None:
            offsets.append((6, files))
        return table(7, offsets)

    image = tensor("image", IMAGE, table(2, numbers=[(0, RGB)]))
    # Where xmin, ymin, xmax and ymax stand in a box.
    order = vector([1, 0, 3, 2], builder.PrependUint32)
    location = tensor(
        "location", BOUNDING_BOX, table(3, offsets=[(0, order)], numbers=[(1, BOUNDARIES)])
    )
    labels = table(
        5, offsets=[(0, builder.CreateString(LABELS))], numbers=[(2, TENSOR_VALUE_LABELS)]
    )
    category = tensor("category", FEATURE, table(0), tables(labels))
    score = tensor("score", FEATURE, table(0))
    count = tensor("number of detections", FEATURE, table(0))
    subgraph = table(
        10, offsets=[(2, tables(image)), (3, tables(location, category, score, count))]
    )
    model = table(
        8,
        offsets=[
            (0, builder.CreateString(name)),
            (1, builder.CreateString(description)),
            (3, tables(subgraph)),
            (7, builder.CreateString("1.2.0")),
        ],
    )
    builder.Finish(model, b"M001")
    return bytes(builder.Output())


def append_labels(path, class_names):
    """Appends the label file to the model at `path`."""
    with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr(LABELS, "\n".join(class_names) + "\n")


def read_labels(path):
    """Class names of the model at `path`.

    Raises:
        ValueError: it carries none.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(LABELS).decode().splitlines()
    except (zipfile.BadZipFile, KeyError):
        raise ValueError(f"{path}: carries no {LABELS}; export it with --export again") from None
