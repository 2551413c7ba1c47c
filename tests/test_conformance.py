"""What every public operator, layer and model must do, over one list of all of them."""

import functools
import inspect
import itertools

import keras
import numpy as np
import pytest
from keras import ops

import kerasvision.detection
import kerasvision.generative
import kerasvision.layers
import kerasvision.segmentation
from kerasvision import layers
from kerasvision.backbones import cifar_resnet, resnet18
from kerasvision.classification import Classifier, box_regressor, weak_localizer
from kerasvision.detection import (
    SSD,
    faster_rcnn,
    load_detector,
    mask_rcnn,
    r_fcn,
    rcnn_minus_r,
    retinanet,
    ssd300,
    ssd512,
    ssd_resnet18,
    ssdlite,
    yolo_v1,
    yolo_v2,
    yolo_v3,
)
from kerasvision.generative import cyclegan, dcgan, gan, pix2pix, wgan_gp
from kerasvision.ops import boxes, matching, nms, roi, roi_pooling, sampling, unpooling
from kerasvision.segmentation import (
    deconvnet,
    fcn8s,
    fcn16s,
    fcn32s,
    load_segmenter,
    refinenet,
    segnet,
    segnet_basic,
    unet,
)


def images(side):
    return np.random.default_rng(0).uniform(0, 255, (2, side, side, 3)).astype("float32")


def maps(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def random_boxes(*shape):
    corner = np.random.default_rng(0).uniform(0, 0.7, (*shape, 2))
    return np.concatenate([corner, corner + 0.3], axis=-1).astype("float32")


def scores(*shape):
    return np.random.default_rng(0).uniform(0.01, 0.99, shape).astype("float32")


def labels(count, *shape):
    return np.random.default_rng(0).integers(0, count, shape).astype("int32")


# Name: (how to make it small, its inputs).
LAYERS = {
    "BedOfNailsUnpooling2D": (
        lambda: layers.BedOfNailsUnpooling2D((2, 3)),
        lambda: (maps(2, 4, 3, 2),),
    ),
    "DepthToSpace": (lambda: layers.DepthToSpace(2), lambda: (maps(2, 3, 2, 8),)),
    "EqualizedConv2D": (lambda: layers.EqualizedConv2D(3, 3), lambda: (maps(2, 5, 4, 2),)),
    "EqualizedDense": (lambda: layers.EqualizedDense(3), lambda: (maps(2, 5),)),
    "GroupedConv2D": (
        lambda: layers.GroupedConv2D(6, 3, groups=2),
        lambda: (maps(2, 5, 4, 4),),
    ),
    "L2Normalization": (lambda: layers.L2Normalization(scale=5.0), lambda: (maps(2, 4, 4, 3),)),
    "L2Pooling2D": (
        lambda: layers.L2Pooling2D(3, 2, "same"),
        lambda: (np.maximum(maps(2, 5, 6, 3), 0.0),),
    ),
    "LocalResponseNormalization": (
        lambda: layers.LocalResponseNormalization(alpha=0.1),
        lambda: (maps(2, 4, 3, 8),),
    ),
    "MaxPoolingWithIndices2D": (
        lambda: layers.MaxPoolingWithIndices2D(3, 2, "same"),
        lambda: (maps(2, 5, 6, 2),),
    ),
    "MaxUnpooling2D": (
        lambda: layers.MaxUnpooling2D(2, output_size=(7, 6)),
        lambda: (maps(2, 3, 3, 2), labels(4, 2, 3, 3, 2)),
    ),
    "MinibatchStandardDeviation": (
        lambda: layers.MinibatchStandardDeviation(2),
        lambda: (maps(2, 3, 3, 2),),
    ),
    "NonMaxSuppression": (
        lambda: layers.NonMaxSuppression(0.4, 0.1, max_detections=7, candidates=50),
        lambda: (random_boxes(2, 30), scores(2, 30, 3)),
    ),
    "PixelNormalization": (lambda: layers.PixelNormalization(), lambda: (maps(2, 3, 3, 4),)),
    "PositionSensitiveRoIAlign": (
        lambda: layers.PositionSensitiveRoIAlign(2),
        lambda: (maps(2, 5, 6, 12), random_boxes(2, 4)),
    ),
    "PositionSensitiveRoIPooling": (
        lambda: layers.PositionSensitiveRoIPooling(2),
        lambda: (maps(2, 5, 6, 12), random_boxes(2, 4)),
    ),
    "ReflectionPadding2D": (
        lambda: layers.ReflectionPadding2D((1, 2)),
        lambda: (maps(2, 4, 5, 2),),
    ),
    "RoIAlign": (lambda: layers.RoIAlign(3), lambda: (maps(2, 5, 6, 4), random_boxes(2, 4))),
    "RoIMaxPooling": (
        lambda: layers.RoIMaxPooling((3, 2)),
        lambda: (maps(2, 5, 6, 4), random_boxes(2, 4)),
    ),
    "SoftNonMaxSuppression": (
        lambda: layers.SoftNonMaxSuppression(max_detections=7, candidates=50),
        lambda: (random_boxes(2, 30), scores(2, 30, 3)),
    ),
    "SpaceToDepth": (lambda: layers.SpaceToDepth(2), lambda: (maps(2, 4, 6, 2),)),
    "SpatialPyramidPooling": (
        lambda: layers.SpatialPyramidPooling((1, 2, 3)),
        lambda: (maps(2, 7, 5, 3),),
    ),
}
# Layers that detectors, segmenters and generators take to phones. Non-maximum suppression goes
# there by `kerasvision.export.nms`, which tests/export holds against that of the training.
IN_LITERT = set(LAYERS) - {
    "NonMaxSuppression",
    "SoftNonMaxSuppression",
    "EqualizedConv2D",
    "EqualizedDense",
    "MinibatchStandardDeviation",
}

OFFSETS = maps(2, 5, 4) / 4
REFERENCES = np.concatenate([scores(5, 2), scores(5, 2)[::-1] / 2 + 0.1], axis=-1)
MATCHES = labels(4, 2, 12) - 2
# Name: (function of tensors, its inputs). Functions on NumPy constants aren't here.
OPERATORS = {
    "boxes.area": (boxes.area, lambda: (random_boxes(2, 5),)),
    "boxes.ciou": (boxes.ciou, lambda: (random_boxes(2, 5), random_boxes(3)[::-1].copy())),
    "boxes.clip": (boxes.clip, lambda: (3 * random_boxes(2, 5) - 1,)),
    "boxes.decode": (boxes.decode, lambda: (OFFSETS, REFERENCES)),
    "boxes.decode_yolo": (
        functools.partial(boxes.decode_yolo, cell_size=(0.1, 0.2)),
        lambda: (OFFSETS, REFERENCES),
    ),
    "boxes.diou": (boxes.diou, lambda: (random_boxes(2, 5), random_boxes(3))),
    "boxes.encode": (boxes.encode, lambda: (random_boxes(2, 5), REFERENCES)),
    "boxes.encode_yolo": (
        functools.partial(boxes.encode_yolo, cell_size=(1.0, 1.0)),
        lambda: (random_boxes(2, 5), REFERENCES),
    ),
    "boxes.giou": (boxes.giou, lambda: (random_boxes(2, 5), random_boxes(3))),
    "boxes.iou": (boxes.iou, lambda: (random_boxes(2, 5), random_boxes(3))),
    "boxes.smooth_l1": (functools.partial(boxes.smooth_l1, beta=0.5), lambda: (OFFSETS,)),
    "boxes.to_center_form": (boxes.to_center_form, lambda: (random_boxes(2, 5),)),
    "boxes.to_corner_form": (boxes.to_corner_form, lambda: (REFERENCES,)),
    "matching.arg_max_matching": (
        functools.partial(matching.arg_max_matching, force_match=True),
        lambda: (scores(2, 3, 9),),
    ),
    "matching.bipartite_matching": (matching.bipartite_matching, lambda: (scores(2, 3, 9),)),
    "matching.match_default_boxes": (matching.match_default_boxes, lambda: (scores(2, 3, 9),)),
    "sampling.balanced_sampling": (
        functools.partial(sampling.balanced_sampling, num_samples=6, positive_fraction=0.5, seed=1),
        lambda: (MATCHES,),
    ),
    "sampling.hard_negative_mining": (
        sampling.hard_negative_mining,
        lambda: (scores(2, 12), MATCHES == 1),
    ),
    "nms.batched_non_max_suppression": (
        functools.partial(nms.batched_non_max_suppression, max_detections=9),
        lambda: (random_boxes(2, 30), scores(2, 30, 3)),
    ),
    "nms.labelled_non_max_suppression": (
        functools.partial(nms.labelled_non_max_suppression, max_detections=9),
        lambda: (random_boxes(2, 30), scores(2, 30), labels(3, 2, 30)),
    ),
    "nms.non_max_suppression": (
        functools.partial(nms.non_max_suppression, max_detections=9),
        lambda: (random_boxes(2, 30), scores(2, 30)),
    ),
    "nms.batched_soft_non_max_suppression": (
        functools.partial(nms.batched_soft_non_max_suppression, max_detections=9),
        lambda: (random_boxes(2, 30), scores(2, 30, 3)),
    ),
    "nms.soft_non_max_suppression": (
        functools.partial(nms.soft_non_max_suppression, max_detections=9),
        lambda: (random_boxes(2, 30), scores(2, 30)),
    ),
    "nms.mask_iou": (nms.mask_iou, lambda: (maps(2, 5, 6, 4) > 0,)),
    "nms.matrix_non_max_suppression": (
        functools.partial(nms.matrix_non_max_suppression, max_detections=4),
        lambda: (scores(2, 5, 5), scores(2, 5)),
    ),
    "roi.fpn_levels": (
        functools.partial(roi.fpn_levels, image_size=(800, 1200), min_level=2, max_level=5),
        lambda: (random_boxes(2, 5),),
    ),
    "roi.multilevel_roi_align": (
        lambda p2, p3, rois: roi.multilevel_roi_align([p2, p3], rois, 3, (64, 64), max_level=3),
        lambda: (maps(2, 8, 8, 3), maps(2, 4, 4, 3), random_boxes(2, 5)),
    ),
    "roi.position_sensitive_roi_align": (
        functools.partial(roi.position_sensitive_roi_align, output_size=2),
        lambda: (maps(2, 5, 6, 12), random_boxes(2, 4)),
    ),
    "roi.roi_align": (
        functools.partial(roi.roi_align, output_size=3),
        lambda: (maps(2, 5, 6, 4), random_boxes(2, 4)),
    ),
    "roi_pooling.position_sensitive_roi_pooling": (
        functools.partial(roi_pooling.position_sensitive_roi_pooling, output_size=2),
        lambda: (maps(2, 5, 6, 12), random_boxes(2, 4)),
    ),
    "roi_pooling.roi_max_pooling": (
        functools.partial(roi_pooling.roi_max_pooling, output_size=(3, 2)),
        lambda: (maps(2, 5, 6, 4), random_boxes(2, 4)),
    ),
    "roi_pooling.spatial_pyramid_pooling": (
        roi_pooling.spatial_pyramid_pooling,
        lambda: (maps(2, 7, 5, 3),),
    ),
    "unpooling.bed_of_nails_unpooling": (
        unpooling.bed_of_nails_unpooling,
        lambda: (maps(2, 3, 2, 2),),
    ),
    "unpooling.max_pooling_with_indices": (
        unpooling.max_pooling_with_indices,
        lambda: (maps(2, 4, 6, 2),),
    ),
    "unpooling.max_unpooling": (
        unpooling.max_unpooling,
        lambda: (maps(2, 3, 3, 2), labels(4, 2, 3, 3, 2)),
    ),
    "unpooling.nearest_unpooling": (unpooling.nearest_unpooling, lambda: (maps(2, 3, 2, 2),)),
}
# What these share among themselves, and what computes with sizes instead of tensors.
HELPERS = {
    "boxes.check_boxes",
    "nms.check_method",
    "nms.check_settings",
    "roi.check_batches",
    "roi.check_features",
    "roi.check_level_range",
    "roi.check_rois",
    "roi.check_sampling",
    "roi.check_size",
    "roi.finite_rois",
    "roi.num_classes",
    "roi.position_sensitive_sums",
    "roi.pyramid_maps",
    "roi.quotient",
    "roi.roi_sides",
    "roi.rounded",
    "roi_pooling.check_levels",
    "unpooling.pooled_size",
    "unpooling.unpooled_size",
}


def headless(side):
    """A small backbone from images to maps of stride 8."""
    network = resnet18((side, side, 3), include_top=False, width=8)
    return keras.Model(network.input, network.feature_taps["stride8"])


def resnet(side=64):
    return resnet18((side, side, 3), include_top=False, width=8)


TWO_STAGES = {
    "strides": (8, 16),
    "filters": 8,
    "head_units": 16,
    "anchor_scale": 2.0,
    "num_samples": 16,
    "num_proposals": (30, 20),
}
# Name: (how to make it small, side of its images, or length of its noise). What stands behind a
# comma tells variants of one function apart.
DETECTORS = {
    "ssdlite": (lambda: ssdlite(2, (64, 64, 3), width_multiplier=0.35, first_stride=8), 64),
    "ssd_resnet18": (lambda: ssd_resnet18(2, (64, 64, 3), width=8), 64),
    "faster_rcnn": (lambda: faster_rcnn(resnet(), 2, **TWO_STAGES), 64),
    "mask_rcnn": (
        lambda: mask_rcnn(
            resnet(), 2, num_keypoints=3, head_filters=8, **{**TWO_STAGES, "strides": (16,)}
        ),
        64,
    ),
    # Few regions of a large map: two that pool the same cells would have the same scores.
    "rcnn_minus_r": (
        lambda: rcnn_minus_r(
            2, random_boxes(40), 8, backbone="squeezenet", image_shape=(128, 128, 3), units=(16,)
        ),
        128,
    ),
    "r_fcn": (
        lambda: r_fcn(resnet(), 2, filters=16, proposal_filters=8, anchor_scales=(16, 32)),
        64,
    ),
    "retinanet": (lambda: retinanet(resnet(), 2, filters=8, head_depth=1), 64),
    "yolo_v1": (lambda: yolo_v1(resnet(), 2, grid=2, hidden_units=(16,)), 64),
    "yolo_v2": (lambda: yolo_v2(resnet(), 2, filters=8), 64),
    "yolo_v2, word tree": (lambda: yolo_v2(resnet(), 3, filters=8, parents=[-1, 0, 0]), 64),
    "yolo_v3": (lambda: yolo_v3(resnet(), 2, filters=8, head_depth=1), 64),
}
SEGMENTERS = {
    "fcn32s": (lambda: fcn32s(2, (32, 32, 3), units=4, padding=0), 32),
    "fcn16s": (lambda: fcn16s(2, (32, 32, 3), units=4, padding=0), 32),
    "fcn8s": (lambda: fcn8s(2, (32, 32, 3), units=4), 32),
    "deconvnet": (lambda: deconvnet(2, (32, 32, 3), units=4), 32),
    "unet": (lambda: unet(2, (188, 188, 3), filters=2), 188),
    "unet, same": (lambda: unet(2, (32, 32, 3), filters=4, padding="same"), 32),
    "segnet": (lambda: segnet(2, (32, 32, 3)), 32),
    "segnet_basic": (lambda: segnet_basic(2, (32, 32, 3)), 32),
    "refinenet": (lambda: refinenet(resnet(), 2, filters=8), 64),
}
OF_NOISE = {
    "gan": (lambda: gan((8, 8, 1), 16, units=10), 16),
    "dcgan": (lambda: dcgan((16, 16, 1), 16, filters=4), 16),
    "wgan_gp": (lambda: wgan_gp((16, 16, 3), 16, filters=4), 16),
}
GENERATIVE = {
    **OF_NOISE,
    "pix2pix": (lambda: pix2pix((32, 32, 3), filters=4), 32),
    "cyclegan": (lambda: cyclegan((32, 32, 3), 1, filters=4), 32),
}
MODELS = {
    **DETECTORS,
    **SEGMENTERS,
    **GENERATIVE,
    "Classifier": (
        lambda: Classifier(
            cifar_resnet((32, 32, 3), num_classes=2, depth=8, classifier_activation=None)
        ),
        32,
    ),
    "weak_localizer": (lambda: weak_localizer(headless(64), 2, adaptation_filters=(8,)), 64),
    "weak_localizer, average": (lambda: weak_localizer(headless(64), 2, pooling="average"), 64),
    "box_regressor": (lambda: box_regressor(headless(64), 2, hidden_units=16), 64),
}
# Name: (how to make it, the paper's parameters).
COUNTS = {
    "ssd300": (lambda: ssd300(20), 26_285_486),
    "ssd512": (lambda: ssd512(20), 27_188_676),
}


def slow_but(names, *quick):
    """Names of models, of which few take part in every run of the tests."""
    return [pytest.param(n, marks=[] if n in quick else pytest.mark.slow) for n in names]


# Those on VGG-16 have 15 million weights at least; the others are variants, or parts, of one that
# is quick.
SLOW = (
    *("fcn32s", "fcn16s", "fcn8s", "deconvnet", "segnet"),
    *("ssdlite", "faster_rcnn", "r_fcn", "rcnn_minus_r", "yolo_v2, word tree", "unet, same"),
    *("weak_localizer, average", "wgan_gp"),
)
QUICK = [n for n in MODELS if n not in SLOW]


def inputs_of(name):
    """What the model of this name takes."""
    _, side = MODELS[name]
    return maps(2, side) if name in OF_NOISE else images(side)


def as_numpy(value):
    return keras.tree.map_structure(ops.convert_to_numpy, value)


def assert_equal(received, expected, tolerance=1e-6):
    # Flat, because files turn tuples into lists.
    received, expected = keras.tree.flatten(received), keras.tree.flatten(expected)
    assert len(received) == len(expected)
    for a, b in zip(received, expected):
        np.testing.assert_allclose(a, b, atol=tolerance)


def public_functions(module):
    prefix = module.__name__.split(".")[-1]
    return {
        f"{prefix}.{name}"
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and name[0] != "_"
    }


def test_the_lists_are_complete():
    public = {
        name
        for name, value in vars(kerasvision.layers).items()
        if inspect.isclass(value) and issubclass(value, keras.Layer)
    }
    assert public == set(LAYERS)
    modules = (boxes, matching, nms, roi, roi_pooling, sampling, unpooling)
    operators = set().union(*(public_functions(module) for module in modules))
    assert operators == set(OPERATORS) | HELPERS
    functions = {
        name for name, value in vars(kerasvision.detection).items() if inspect.isfunction(value)
    }
    # Their own tests build them.
    elsewhere = {
        "fast_rcnn",
        "fast_rcnn_vgg16",
        "faster_rcnn_mobilenet_v2",
        "faster_rcnn_resnet50",
        "faster_rcnn_vgg16",
        "keypoint_rcnn_mobilenet_v2",
        "keypoint_rcnn_resnet50",
        "mask_rcnn_mobilenet_v2",
        "mask_rcnn_resnet50",
        "r_fcn_mobilenet_v2",
        "r_fcn_resnet101",
        "r_fcn_resnet50",
        "rcnn",
        "rcnn_alexnet",
        "retinanet_mobilenet_v2",
        "retinanet_resnet50",
        "spp_net",
        "yolo_9000",
        "yolo_v1_fast",
        "yolo_v1_full",
        "yolo_v1_mobilenet_v2",
        "yolo_v2_darknet19",
        "yolo_v2_mobilenet_v2",
        "yolo_v3_darknet53",
        "yolo_v3_mobilenet_v2",
        "yolo_v3_tiny",
    }
    listed = {name.partition(",")[0] for name in DETECTORS}
    assert functions - {"load_detector"} == listed | set(COUNTS) | elsewhere
    assert kerasvision.detection.SSD is SSD
    functions = {
        name for name, value in vars(kerasvision.segmentation).items() if inspect.isfunction(value)
    }
    elsewhere = {"refinenet_mobilenet_v2", "refinenet_resnet101", "refinenet_resnet50"}
    listed = {name.partition(",")[0] for name in SEGMENTERS}
    assert functions - {"fit_batch_norm", "load_segmenter"} == listed | elsewhere
    functions = {
        name for name, value in vars(kerasvision.generative).items() if inspect.isfunction(value)
    }
    assert functions - {"load_generative"} == set(GENERATIVE)


@pytest.mark.parametrize("name", OPERATORS)
def test_operator_is_the_same_compiled(name, compiled):
    function, inputs = OPERATORS[name]
    expected = as_numpy(function(*inputs()))
    assert_equal(as_numpy(compiled(lambda *x: function(*x))(*inputs())), expected, 1e-5)


@pytest.mark.parametrize("name", OPERATORS)
def test_operator_computes_in_float32(name):
    """Half-precision inputs give what the same numbers give in float32, rounded once at most."""
    function, inputs = OPERATORS[name]
    halves = [ops.cast(x, "bfloat16") if x.dtype == np.float32 else x for x in inputs()]
    floats = [ops.cast(x, "float32") if "bfloat16" in str(x.dtype) else x for x in halves]
    received, expected = (
        [as_numpy(ops.cast(x, "float32")) for x in keras.tree.flatten(function(*inputs))]
        for inputs in (halves, floats)
    )
    for a, b in zip(received, expected):
        np.testing.assert_allclose(a, b, rtol=4e-3)


def model_of(name):
    """A layer as a model, and its inputs."""
    make, inputs = LAYERS[name]
    keras.utils.set_random_seed(0)
    inputs = inputs()
    symbols = [keras.Input(x.shape[1:], dtype=x.dtype) for x in inputs]
    return keras.Model(symbols, make()(*symbols)), list(inputs)


@pytest.mark.parametrize("name", LAYERS)
def test_layer_survives_config_and_file(name, tmp_path):
    model, inputs = model_of(name)
    expected = as_numpy(model(inputs))
    layer = model.layers[-1]
    copy = type(layer).from_config(layer.get_config())
    copy(*inputs)  # makes the weights
    copy.set_weights(layer.get_weights())
    assert_equal(as_numpy(copy(*inputs)), expected)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_equal(as_numpy(loaded(inputs)), expected)


@pytest.mark.parametrize("name", LAYERS)
def test_layer_knows_its_output(name):
    model, inputs = model_of(name)
    keras.tree.map_structure(
        lambda symbol, value: np.testing.assert_equal(
            (symbol.shape[1:], symbol.dtype), (tuple(value.shape)[1:], str(value.dtype))
        ),
        model.output,
        as_numpy(model(inputs)),
    )


@pytest.mark.parametrize("name", LAYERS)
def test_layer_is_the_same_compiled(name, compiled):
    model, inputs = model_of(name)
    expected = as_numpy(model(inputs))
    assert_equal(as_numpy(compiled(lambda *x: model(list(x)))(*inputs)), expected, 1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_layer_in_mixed_precision(name):
    model, inputs = model_of(name)
    # The same numbers for both.
    inputs = [as_numpy(ops.cast(ops.cast(x, "bfloat16"), x.dtype)) for x in inputs]
    expected = as_numpy(model(inputs))
    layer = model.layers[-1]
    mixed = type(layer).from_config({**layer.get_config(), "dtype": "mixed_bfloat16"})
    mixed(*inputs)  # makes the weights
    mixed.set_weights(layer.get_weights())
    received = keras.tree.map_structure(lambda x: as_numpy(ops.cast(x, "float32")), mixed(*inputs))
    assert_equal(received, expected, 4e-2 if layer.weights else 2e-2)


@pytest.mark.parametrize("name", LAYERS)
def test_layer_survives_a_saved_model(name, tmp_path):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("SavedModel is TensorFlow's")
    import tensorflow as tf

    model, inputs = model_of(name)
    model.export(tmp_path / "model", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "model"))
    tensors = [tf.constant(x) for x in inputs]
    received = served.serve(tensors)
    assert_equal(as_numpy(received), as_numpy(model(inputs)), 1e-5)


@pytest.mark.parametrize("name", sorted(IN_LITERT))
def test_layer_is_the_same_in_litert(name, in_litert):
    model, inputs = model_of(name)
    received = in_litert(lambda *x: model(list(x)), *inputs)(*inputs)
    assert_equal(received, as_numpy(model(inputs)), 1e-5)


def batch_of(side, name):
    """Two pictures with one object each, and all that the model of this name may learn from."""
    rng = np.random.default_rng(0)
    if name in SEGMENTERS:
        masks = rng.integers(-1, 2, (2, side // 2, side // 2)).repeat(2, axis=1).repeat(2, axis=2)
        return {"images": images(side), "segmentation_masks": masks.astype("int32")}
    return {
        "images": images(side),
        "labels": np.array([0, 1]),  # of the pictures
        "bounding_boxes": {
            "boxes": np.array([[[0.1, 0.2, 0.7, 0.9]], [[0.3, 0.3, 0.6, 0.6]]], "float32"),
            "labels": np.array([[0], [1]]),
        },
        "segmentation_masks": rng.integers(0, 2, (2, 1, 56, 56)).astype("float32"),
        "keypoints": rng.uniform([0.3, 0.3, 1], [0.6, 0.6, 3], (2, 1, 3, 3)).astype("float32"),
    }


@pytest.mark.parametrize(
    "name",
    # The other detectors, or parts of them, the segmenters and what generates learn in tests of
    # their own; those left out, random and with dropout but no normalization, only there: five
    # steps are too few.
    slow_but(
        [n for n in MODELS if n not in {*GENERATIVE, "fcn32s", "fcn16s", "fcn8s", "unet"}],
        "retinanet",
        *(n for n in QUICK if n not in {**DETECTORS, **SEGMENTERS, **GENERATIVE}),
    ),
)
def test_model_lowers_its_loss(name):
    make, side = MODELS[name]
    keras.utils.set_random_seed(0)
    model = make()
    model.compile(keras.optimizers.Adam(0.001))
    batch = batch_of(side, name)
    losses = [model.train_on_batch(batch, return_dict=True)["loss"] for _ in range(5)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    "name", slow_but(MODELS, "Classifier", "ssd_resnet18", "segnet_basic", "dcgan", "cyclegan")
)
def test_model_in_mixed_precision_answers_in_float32(name):
    make, _ = MODELS[name]
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = make()
    finally:
        keras.mixed_precision.set_global_policy("float32")
    raw = keras.tree.flatten(model(inputs_of(name)))
    types = {keras.backend.standardize_dtype(x.dtype) for x in raw}
    assert types - {"int32"} == {"float32"}  # labels and counts are whole numbers
    for found in keras.tree.flatten(model.predict(inputs_of(name), verbose=0)):
        assert np.isfinite(found).all() and found.dtype in (np.float32, np.int32)


# The other detectors have a round trip, trained, in tests of their own.
@pytest.mark.parametrize(
    "name", slow_but(MODELS, "retinanet", *(n for n in QUICK if n not in DETECTORS))
)
def test_model_survives_a_file(name, tmp_path):
    make, _ = MODELS[name]
    model = make()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    expected = model.predict(inputs_of(name), verbose=0)
    assert_equal(loaded.predict(inputs_of(name), verbose=0), expected)


@pytest.mark.parametrize("name", slow_but([*DETECTORS, *SEGMENTERS], "retinanet", "segnet_basic"))
def test_model_has_the_same_loss_compiled(name, compiled):
    make, side = MODELS[name]
    keras.utils.set_random_seed(0)
    model, batch = make(), batch_of(side, name)

    def loss(*leaves):
        x = keras.tree.pack_sequence_as(batch, leaves)
        outputs = model(x, training=False)
        return model.compute_loss(x, None, outputs, training=False)

    leaves = keras.tree.flatten(batch)
    expected = float(loss(*leaves))
    assert np.isfinite(expected) and expected > 0.0
    assert float(compiled(loss)(*leaves)) == pytest.approx(expected, rel=1e-4)


def with_detections(make, pictures):
    """A detector that hasn't learnt anything, and what it finds: scores that tell boxes apart."""
    keras.utils.set_random_seed(0)
    model = make()
    model.max_detections = 8
    # Where a network saturates, or sees nothing, weights of another size may do.
    for seed, deviation in itertools.product(range(3), (1.4, 1.2, 1.0, 0.8, 2.0)):
        rng = np.random.default_rng(seed)
        for weight in model.trainable_weights:
            if len(weight.shape) > 1:
                size = np.sqrt(np.prod(weight.shape[:-1]))
                weight.assign(rng.normal(0, deviation / size, weight.shape))
        found = model.predict_on_batch(pictures)
        gaps = [-np.diff(s[:n]) for s, n in zip(found["scores"], found["count"])]
        if found["count"].min() > 0 and np.concatenate(gaps).min(initial=1.0) > 1e-4:
            return model, found
    raise AssertionError("no weights lead to detections")


@pytest.mark.parametrize("name", slow_but(DETECTORS, "faster_rcnn"))
def test_detector_survives_its_exports(name, tmp_path):
    """SavedModel and LiteRT, of built-in operators, find what Keras finds."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the exports are TensorFlow's")
    from kerasvision import export

    make, side = DETECTORS[name]
    # Squares of 16 pixels.
    pictures = np.random.default_rng(0).integers(0, 256, (4, side // 16, side // 16, 3), "uint8")
    pictures = pictures.repeat(16, axis=1).repeat(16, axis=2)
    model, expected = with_detections(make, pictures)
    export.export_all(model, tmp_path, ["saved_model", "float32"])
    for path in (tmp_path / "saved_model", tmp_path / "model_float32.tflite"):
        exported = load_detector(path)
        assert exported.image_shape == model.image_shape
        assert exported.class_names == model.class_names
        found = exported.predict_on_batch(pictures)
        assert found.keys() == expected.keys()
        for key, values in expected.items():
            assert found[key].dtype == values.dtype
            np.testing.assert_allclose(found[key], values, atol=2e-3, err_msg=f"{path} {key}")


@pytest.mark.parametrize("name", slow_but(SEGMENTERS, "segnet_basic"))
def test_segmenter_survives_its_exports(name, tmp_path):
    """SavedModel and LiteRT, of built-in operators, say what Keras says."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the exports are TensorFlow's")
    from kerasvision import export

    make, side = SEGMENTERS[name]
    keras.utils.set_random_seed(0)
    model = make()
    for weight in model.trainable_weights:  # the scores of some start at zero
        if len(weight.shape) > 1 and not np.any(weight):
            weight.assign(np.random.default_rng(0).normal(0, 0.1, weight.shape))
    expected = model.predict_on_batch(images(side).astype("uint8"))
    assert expected.std() > 1e-3
    export.export_segmenter(model, tmp_path, ["saved_model", "float32"])
    for path in (tmp_path / "saved_model", tmp_path / "model_float32.tflite"):
        exported = load_segmenter(path)
        assert exported.image_shape == model.image_shape
        assert exported.output_size == model.output_size
        assert exported.class_names == model.class_names
        found = exported.predict_on_batch(images(side).astype("uint8"))
        np.testing.assert_allclose(found, expected, atol=2e-3, err_msg=str(path))


@pytest.mark.parametrize("name", slow_but(GENERATIVE, "pix2pix", "dcgan"))
def test_generator_survives_its_exports(name, tmp_path):
    """SavedModel and LiteRT, of built-in operators, make what Keras makes."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the exports are TensorFlow's")
    import tensorflow as tf

    from kerasvision import export
    from kerasvision.export import litert

    make, _ = MODELS[name]
    keras.utils.set_random_seed(0)
    model, inputs = make(), inputs_of(name)
    for weight in model.G.trainable_variables:
        weight.assign(10 * weight)  # new networks make grey of all noise
    expected = model.predict_on_batch(inputs)
    assert expected.std() > 10
    export.export_generator(model.G, tmp_path, ["saved_model", "float32"])
    served = tf.saved_model.load(str(tmp_path / "saved_model"))
    np.testing.assert_allclose(served.serve(inputs), expected, atol=0.1)
    interpreter = litert.interpreter((tmp_path / "model_float32.tflite").read_bytes())
    for x, picture in zip(inputs, expected):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x[None])
        interpreter.invoke()
        found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        np.testing.assert_allclose(found[0], picture, atol=0.1)


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_are_the_papers(name):
    make, count = COUNTS[name]
    assert make().count_params() == count
