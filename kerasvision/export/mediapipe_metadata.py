"""The metadata with which MediaPipe's ObjectDetector takes a .tflite file as it is.

The metadata are a flatbuffer of their own in one of the file's buffers. The schema,
`metadata_schema.fbs`, comes with MediaPipe; the numbers in the tables below are its field
numbers. The class names are a text file in a zip archive at the end of the .tflite file.
"""

import io
import zipfile

import flatbuffers
from tensorflow.lite.python import schema_py_generated as schema

LABELS_FILE = "labels.txt"

# Enumerations of the schema.
_TENSOR_VALUE_LABELS = 3
_IMAGE_PROPERTIES, _BOUNDING_BOX_PROPERTIES = 2, 3
_RGB = 1
_BOUNDARIES = 1


def detector_metadata(name, description, license=None):
    """Metadata of a detector with one uint8 RGB input and four float outputs.

    The outputs are, in this order, location (1, K, 4), category (1, K), score (1, K) and number
    of detections (1,), as `kerasvision.export.postprocessing` computes them.

    Args:
        name, description: text for people.
        license: text, such as "Apache-2.0".

    Returns:
        bytes, for `add_metadata`.
    """
    builder = flatbuffers.Builder(1024)

    def tensor(name, description, properties_type=0, properties=None, files=()):
        fields = {0: _text(builder, name), 1: _text(builder, description)}
        if properties is not None:
            fields[3] = _table(builder, {1: properties}, {0: properties_type})
        if files:
            fields[6] = _offsets(builder, files)
        return _table(builder, fields)

    labels = _table(
        builder,
        {0: _text(builder, LABELS_FILE), 1: _text(builder, "Names of the classes, one a line.")},
        {2: _TENSOR_VALUE_LABELS},
    )
    # Where left, top, right and bottom stand in (ymin, xmin, ymax, xmax).
    builder.StartVector(4, 4, 4)
    for i in reversed([1, 0, 3, 2]):
        builder.PrependUint32(i)
    # The coordinates are ratios of the picture's sides, which is the default.
    boxes = _table(builder, {0: builder.EndVector()}, {1: _BOUNDARIES})
    image = _table(builder, {}, {0: _RGB})
    inputs = [tensor("image", "RGB picture, 0 to 255.", _IMAGE_PROPERTIES, image)]
    outputs = [
        tensor(
            "location",
            "Boxes (ymin, xmin, ymax, xmax), from 0 to 1.",
            _BOUNDING_BOX_PROPERTIES,
            boxes,
        ),
        tensor("category", "Numbers of the classes, from 0.", files=[labels]),
        tensor("score", "Scores, best first."),
        tensor("number of detections", "How many of the others are detections."),
    ]
    subgraph = _table(builder, {2: _offsets(builder, inputs), 3: _offsets(builder, outputs)})
    fields = {
        0: _text(builder, name),
        1: _text(builder, description),
        3: _offsets(builder, [subgraph]),
        7: _text(builder, "1.0.0"),  # the oldest parser that understands these fields
    }
    if license is not None:
        fields[5] = _text(builder, license)
    builder.Finish(_table(builder, fields), file_identifier=b"M001")
    return bytes(builder.Output())


def _text(builder, text):
    return builder.CreateString(text)


def _offsets(builder, tables):
    builder.StartVector(4, len(tables), 4)
    for offset in reversed(tables):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _table(builder, offsets, bytes_=None):
    """A table of offsets and of one-byte numbers, both dicts by field number."""
    bytes_ = bytes_ or {}
    builder.StartObject(max([*offsets, *bytes_]) + 1)
    for field, offset in offsets.items():
        builder.PrependUOffsetTRelativeSlot(field, offset, 0)
    for field, number in bytes_.items():
        builder.PrependUint8Slot(field, number, 0)
    return builder.EndObject()


def add_metadata(model, metadata):
    """Puts the bytes `metadata` into a `ModelT`, in the place of its converter's."""
    model.buffers.append(schema.BufferT(data=list(metadata)))
    model.metadata = [schema.MetadataT(name="TFLITE_METADATA", buffer=len(model.buffers) - 1)]


def append_labels(content, class_names):
    """The bytes of a .tflite file with the class names in a zip archive at their end."""
    stream = io.BytesIO(content)
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr(LABELS_FILE, "".join(f"{name}\n" for name in class_names))
    return stream.getvalue()


def read_labels(path):
    """The class names in a .tflite file; ValueError if there are none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(LABELS_FILE).decode().splitlines()
    except (zipfile.BadZipFile, KeyError):
        raise ValueError(
            f"{path}: must carry the class names as {LABELS_FILE} in a zip archive at its end; "
            "received: a file without"
        ) from None
