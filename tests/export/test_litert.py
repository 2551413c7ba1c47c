import types
import zipfile

import flatbuffers
import keras
import numpy as np
import pytest
from tensorflow.lite.python import schema_py_generated as schema

from kerasvision.backbones import resnet18
from kerasvision.detection import SSD, retinanet, ssdlite
from kerasvision.export import LiteRTDetector, export_litert, litert, litert_detector

OPERATORS = """
    ABS ADD CAST CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEQUANTIZE EXP FLOOR_DIV FLOOR_MOD GATHER
    GREATER LESS LESS_EQUAL LOGICAL_AND MAXIMUM MINIMUM MUL NON_MAX_SUPPRESSION_V4 PACK PAD QUANTIZE
    REDUCE_ALL RELU RELU_0_TO_1 RESHAPE SELECT_V2 SOFTMAX SPLIT STRIDED_SLICE SUB TOPK_V2 UNPACK
""".split()


def read(path):
    return schema.ModelT.InitFromPackedBuf(path.read_bytes())


def pack(model):
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def iou(box_1, box_2):
    top_left, bottom_right = np.maximum(box_1[:2], box_2[:2]), np.minimum(box_1[2:], box_2[2:])
    intersection = np.prod(np.maximum(bottom_right - top_left, 0))
    areas = np.prod(box_1[2:] - box_1[:2]) + np.prod(box_2[2:] - box_2[:2])
    return intersection / (areas - intersection)


def test_float32_equals_keras(detector, litert_files, pictures):
    expected = detector.predict_on_batch(pictures)
    exported = LiteRTDetector(litert_files["float32"], num_threads=2)
    found = exported.predict_on_batch(pictures.astype("float32"))
    assert exported.class_names == ["red", "blue"] and exported.image_shape == (96, 96, 3)
    for name, values in expected.items():
        assert found[name].shape == values.shape and found[name].dtype == values.dtype
        np.testing.assert_allclose(found[name], values, atol=1e-4)


@pytest.mark.parametrize("precision, min_iou, score", [("float16", 0.9, 0.05), ("int8", 0.6, 0.3)])
def test_lower_precisions_find_the_same(
    detector, litert_files, pictures, precision, min_iou, score
):
    expected = detector.predict_on_batch(pictures)
    found = LiteRTDetector(litert_files[precision]).predict_on_batch(pictures)
    sure = expected["scores"][:, 0] > 0.5
    assert sure.sum() >= 3
    np.testing.assert_array_equal(found["labels"][sure, 0], expected["labels"][sure, 0])
    np.testing.assert_allclose(found["scores"][sure, 0], expected["scores"][sure, 0], atol=score)
    for i in np.flatnonzero(sure):
        assert iou(found["boxes"][i, 0], expected["boxes"][i, 0]) > min_iou


def test_int8_is_smaller_and_takes_pixels(litert_files):
    sizes = {precision: path.stat().st_size for precision, path in litert_files.items()}
    assert sizes["float16"] < 0.56 * sizes["float32"] and sizes["int8"] < 0.36 * sizes["float32"]
    graph = read(litert_files["int8"]).subgraphs[0]
    image = graph.tensors[graph.inputs[0]]
    assert image.type == schema.TensorType.UINT8
    assert image.quantization.scale == [1.0] and image.quantization.zeroPoint == [0]


@pytest.mark.parametrize("precision", litert.PRECISIONS)
def test_operators_are_built_in(litert_files, precision):
    names = {number: name for name, number in vars(schema.BuiltinOperator).items()}
    codes = read(litert_files[precision]).operatorCodes
    assert {names[max(c.builtinCode, c.deprecatedBuiltinCode)] for c in codes} <= set(OPERATORS)
    assert all(code.customCode is None for code in codes)


def test_layout_of_the_file(litert_files):
    path = litert_files["float32"]
    model = read(path)
    graph = model.subgraphs[0]
    names = ["location", "category", "score", "number of detections"]
    assert [graph.tensors[index].name.decode() for index in graph.outputs] == names
    assert [list(graph.tensors[index].shape) for index in graph.outputs] == [
        [1, 100, 4],
        [1, 100],
        [1, 100],
        [1],
    ]
    (metadata,) = model.metadata
    assert metadata.name == b"TFLITE_METADATA"
    assert bytes(model.buffers[metadata.buffer].data[4:8]) == b"M001"
    with zipfile.ZipFile(path) as archive:
        assert archive.read("labels.txt") == b"red\nblue\n"
        assert archive.getinfo("labels.txt").compress_type == zipfile.ZIP_STORED
    content = path.read_bytes()
    packed = schema.Model.GetRootAs(content)
    for i in range(packed.BuffersLength()):
        vector = packed.Buffers(i)._tab
        if packed.Buffers(i).DataLength():
            assert vector.Vector(vector.Offset(4)) % 16 == 0


def decoder(detector, **settings):
    return SSD(**{**detector.get_config(), "network": detector.network, **settings})


def test_retinanet_equals_keras(pictures, tmp_path):
    """Another network, with other outputs, and classes without a background."""
    keras.utils.set_random_seed(0)
    backbone = resnet18((96, 96, 3), include_top=False, width=8)
    model = retinanet(backbone, 3, ["a", "b", "c"], filters=8, head_depth=1)
    rng = np.random.default_rng(0)
    for name in ("logits_conv1", "offsets_conv1"):
        layer = model.network.get_layer(name)
        layer.kernel.assign(rng.normal(0, 0.3, layer.kernel.shape))
    expected = model.predict_on_batch(pictures)
    assert (expected["count"] > 20).all()
    export_litert(model, tmp_path / "model.tflite")
    found = LiteRTDetector(tmp_path / "model.tflite").predict_on_batch(pictures)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-4)


def test_no_objects(detector, pictures, tmp_path):
    model = decoder(detector, score_threshold=1.0)
    export_litert(model, tmp_path / "none.tflite")
    found = LiteRTDetector(tmp_path / "none.tflite").predict_on_batch(pictures[:2])
    np.testing.assert_array_equal(found["count"], 0)
    np.testing.assert_array_equal(found["labels"], -1)
    assert not found["scores"].any() and not found["boxes"].any()


def test_decoding_settings_are_the_models(detector, pictures, tmp_path):
    model = decoder(
        detector,
        iou_threshold=0.2,
        score_threshold=0.002,
        max_detections=7,
        pre_nms_candidates=90,
    )
    export_litert(model, tmp_path / "model.tflite")
    found = LiteRTDetector(tmp_path / "model.tflite").predict_on_batch(pictures[:4])
    for name, values in model.predict_on_batch(pictures[:4]).items():
        np.testing.assert_allclose(found[name], values, atol=1e-4)
    assert found["boxes"].shape == (4, 7, 4)


def decode(model, raw):
    """Boxes, labels, scores and count that the converted decoding makes of raw outputs."""
    interpreter = litert.interpreter(litert_detector._convert_decoding(model))
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], raw[detail["name"]])
    interpreter.invoke()
    outputs = sorted(interpreter.get_output_details(), key=lambda detail: detail["name"])
    return [interpreter.get_tensor(detail["index"]) for detail in outputs]


def test_equal_scores_keep_their_order(detector):
    """All boxes score the same, as after saturation; each is kept once, the first ones first."""
    model = decoder(detector, iou_threshold=0.5)
    raw = {
        "offsets": np.zeros((1, len(model.default_boxes), 4), "float32"),
        "logits": np.zeros((1, len(model.default_boxes), 3), "float32"),
    }
    boxes, scores = model.decode(raw)
    expected = model.detector.get_layer("non_max_suppression")(boxes, scores)
    found = decode(model, raw)
    np.testing.assert_allclose(found[0], keras.ops.convert_to_numpy(expected["boxes"]), atol=1e-5)
    count = int(expected["count"][0])
    labels = keras.ops.convert_to_numpy(expected["labels"])
    np.testing.assert_array_equal(found[1][:, :count], labels[:, :count])
    assert count == found[3][0] > 10


@pytest.mark.parametrize("iou_threshold, kept", [(0.5, 2), (0.49, 1)])
def test_overlap_equal_to_the_threshold_is_kept(iou_threshold, kept):
    images = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D()(images)
    network = keras.Model(
        images,
        {
            "offsets": keras.layers.Reshape((2, 4))(keras.layers.Dense(8)(x)),
            "logits": keras.layers.Reshape((2, 2))(keras.layers.Dense(4)(x)),
        },
    )
    # The whole picture and its upper half: their IoU is 0.5 to the last bit.
    default_boxes = [[0.5, 0.5, 1.0, 1.0], [0.25, 0.5, 0.5, 1.0]]
    model = SSD(network, 1, default_boxes, iou_threshold=iou_threshold, max_detections=2)
    raw = {
        "offsets": np.zeros((1, 2, 4), "float32"),
        "logits": np.array([[[0.0, 2.0], [0.0, 1.0]]], "float32"),
    }
    expected = model.detector.get_layer("non_max_suppression")(*model.decode(raw))
    assert int(expected["count"][0]) == decode(model, raw)[3][0] == kept


@pytest.mark.slow
def test_mixed_precision(tmp_path):
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = ssdlite(2, (64, 64, 3), width_multiplier=0.35)
    finally:
        keras.config.set_dtype_policy("float32")
    export_litert(model, tmp_path / "model.tflite")
    image = np.random.default_rng(1).integers(0, 256, (1, 64, 64, 3), "uint8")
    found = LiteRTDetector(tmp_path / "model.tflite").predict_on_batch(image)
    expected = model.predict_on_batch(image)
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=0.05)
    assert model.network.get_layer("Conv1").compute_dtype == "bfloat16"


@pytest.mark.parametrize(
    "custom, operator, named",
    [
        (None, "READ_VARIABLE", "READ_VARIABLE"),
        (None, "VAR_HANDLE", "VAR_HANDLE"),
        (b"FlexErf", "CUSTOM", "CUSTOM FlexErf"),
    ],
)
def test_operators_of_other_runtimes_are_refused(litert_files, custom, operator, named):
    model = read(litert_files["float32"])
    code = model.operatorCodes[-1]
    code.builtinCode, code.customCode = getattr(schema.BuiltinOperator, operator), custom
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    with pytest.raises(RuntimeError, match=f"some.tflite: .* received: {named}"):
        litert.check_operators("some.tflite", pack(model))


def test_wrong_numbers_are_refused(detector, pictures, tmp_path, monkeypatch):
    """As when the converter loses the weights."""
    keras.utils.set_random_seed(5)
    other = ssdlite(2, (96, 96, 3), width_multiplier=0.35)
    convert = litert.convert_network
    monkeypatch.setattr(
        litert, "convert_network", lambda network, *rest: convert(other.network, *rest)
    )
    with pytest.raises(RuntimeError, match="logits must be the model's within"):
        export_litert(detector, tmp_path / "model.tflite", "float16", pictures)
    assert not (tmp_path / "model.tflite").exists()


def test_wrong_detections_are_refused(detector, pictures, tmp_path, monkeypatch):
    """As when the joined graph feeds the decoding something else; the old file stays."""
    path = tmp_path / "model.tflite"
    path.write_bytes(b"old")
    convert = litert_detector._convert_decoding
    monkeypatch.setattr(
        litert_detector,
        "_convert_decoding",
        lambda model, *rest: convert(decoder(model, score_threshold=0.99), *rest),
    )
    with pytest.raises(RuntimeError, match="scores must be the model's within"):
        export_litert(detector, path, "float32", pictures)
    assert [file.name for file in tmp_path.iterdir()] == ["model.tflite"]
    assert path.read_bytes() == b"old"


def test_detectors_that_are_given_proposals_are_refused(tmp_path):
    model = types.SimpleNamespace(image_shape=(32, 32, 3))
    with pytest.raises(ValueError, match="must find its proposals by itself; received: Simple"):
        export_litert(model, tmp_path / "model.tflite")


def test_wrong_arguments(detector, tmp_path):
    with pytest.raises(ValueError, match="precision must be one of .*; received: int4"):
        export_litert(detector, tmp_path / "model.tflite", "int4")
    with pytest.raises(ValueError, match="int8 needs calibration_images"):
        export_litert(detector, tmp_path / "model.tflite", "int8")


def test_damaged_files(litert_files, tmp_path):
    content = litert_files["float32"].read_bytes()
    path = tmp_path / "damaged.tflite"
    for damaged in (b"", content[: len(content) // 2], content.replace(b"TFL3", b"TFLX", 1)):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged.tflite: expected a .tflite file"):
            LiteRTDetector(path)
    # Another kind of model, with labels.
    model = read(litert_files["float32"])
    model.subgraphs[0].outputs = model.subgraphs[0].outputs[:2]
    model.signatureDefs = []
    path.write_bytes(pack(model))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("labels.txt", "red\nblue\n")
    with pytest.raises(ValueError, match="received: uint8 to category, location"):
        LiteRTDetector(path)
