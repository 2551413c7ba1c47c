import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.layers.roi import (
    PositionSensitiveRoIAlign,
    PositionSensitiveRoIPooling,
    RoIAlign,
    RoIMaxPooling,
    SpatialPyramidPooling,
)
from kerasvision.ops import roi, roi_pooling

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(2, 8, 12, 18)).astype("float32")
PYRAMID = [RNG.normal(size=(2, 32 >> k, 48 >> k, 3)).astype("float32") for k in (2, 3)]
ROIS = np.sort(RNG.uniform(0, 1, (2, 5, 2, 2)), axis=2).reshape(2, 5, 4).astype("float32")
LEVELS = {"image_size": (32, 48), "max_level": 3, "canonical_size": 20, "canonical_level": 3}

CASES = {
    "align": (
        RoIAlign((3, 2), sampling_ratio=None, aligned=False, max_sampling_ratio=8),
        FEATURES,
        lambda f, r: roi.roi_align(f, r, (3, 2), None, False, 8),
    ),
    "align of a pyramid": (
        RoIAlign(3, **LEVELS),
        PYRAMID,
        lambda f, r: roi.multilevel_roi_align(f, r, 3, **LEVELS),
    ),
    "align of a dict": (
        RoIAlign(3, **LEVELS),
        {"P3": PYRAMID[1], "P2": PYRAMID[0]},
        lambda f, r: roi.multilevel_roi_align(PYRAMID, r, 3, **LEVELS),
    ),
    "max": (
        RoIMaxPooling((3, 2)),
        FEATURES,
        lambda f, r: roi_pooling.roi_max_pooling(f, r, (3, 2)),
    ),
    "position-sensitive average": (
        PositionSensitiveRoIPooling((3, 2)),
        FEATURES,
        lambda f, r: roi_pooling.position_sensitive_roi_pooling(f, r, (3, 2)),
    ),
    "position-sensitive align": (
        PositionSensitiveRoIAlign(3, sampling_ratio=None, max_sampling_ratio=4),
        FEATURES,
        lambda f, r: roi.position_sensitive_roi_align(f, r, 3, None, 4),
    ),
    "pyramid of windows": (
        SpatialPyramidPooling((2, 1)),
        FEATURES,
        lambda f, r: roi_pooling.spatial_pyramid_pooling(f, (2, 1), r),
    ),
}


def inputs_like(features):
    return keras.tree.map_structure(lambda x: keras.Input(x.shape[1:]), features)


@pytest.mark.parametrize("name", CASES)
def test_layer_is_its_operator_also_when_saved(name, tmp_path):
    layer, features, operator = CASES[name]
    expected = ops.convert_to_numpy(operator(features, ROIS))
    np.testing.assert_array_equal(ops.convert_to_numpy(layer(features, ROIS)), expected)

    inputs = (inputs_like(features), keras.Input(ROIS.shape[1:]))
    model = keras.Model(inputs, layer(*inputs))
    assert model.output.shape == (None, *expected.shape[1:])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for found in (model, loaded):
        np.testing.assert_allclose(
            ops.convert_to_numpy(found((features, ROIS))), expected, atol=1e-5
        )


def test_spatial_pyramid_pooling_of_the_whole_map():
    layer = SpatialPyramidPooling()
    inputs = keras.Input(FEATURES.shape[1:])
    model = keras.Model(inputs, layer(inputs))
    assert model.output.shape == (None, 21 * 18)
    found = model.predict(FEATURES, verbose=0)
    np.testing.assert_array_equal(found, roi_pooling.spatial_pyramid_pooling(FEATURES))
    np.testing.assert_array_equal(found[:, -18:], FEATURES.max(axis=(1, 2)))


@pytest.mark.parametrize("name", ["align", "max", "position-sensitive average"])
def test_mixed_precision_keeps_coordinates(name):
    # Half precision would move this RoI by a cell of a map as long.
    original, *_ = CASES[name]
    config = {**original.get_config(), "dtype": "mixed_float16", "output_size": 1}
    layer = type(original).from_config(config)
    features = np.arange(3000, dtype="float32").reshape(1, 1, 3000, 1)[:, [0, 0]] % 1000
    features = ops.cast(features, "float16")
    rois = np.array([[[0, 2500.0 / 3000, 0.1, 2501.0 / 3000]]], "float32")
    found = layer(features, rois)
    assert keras.backend.standardize_dtype(found.dtype) == "float16"
    reference = type(original).from_config({**config, "dtype": "float32"})
    expected = reference(ops.cast(features, "float32"), rois)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(ops.cast(found, "float32")), ops.convert_to_numpy(expected)
    )
    spec = layer.compute_output_spec(
        keras.KerasTensor(features.shape, "float16"), keras.KerasTensor(rois.shape)
    )
    assert (tuple(spec.shape), spec.dtype) == (tuple(found.shape), "float16")


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: RoIAlign(0), "output_size must .*received: 0"),
        (lambda: RoIAlign(7, sampling_ratio=-1), "sampling_ratio must .*received: -1"),
        (lambda: RoIMaxPooling((7, 7, 7)), r"output_size must .*\(7, 7, 7\)"),
        (lambda: PositionSensitiveRoIPooling(1.5), "output_size must .*received: 1.5"),
        (lambda: PositionSensitiveRoIAlign(7, max_sampling_ratio=0), "max_sampling_ratio must"),
        (lambda: SpatialPyramidPooling((0,)), r"levels must .*\(0,\)"),
        (lambda: RoIAlign(7)(PYRAMID, ROIS), "levels 2 to 5, 4 of them; received: 2"),
        (lambda: RoIAlign(7, max_level=3)(PYRAMID, ROIS), "image_size must .*None"),
        (
            lambda: PositionSensitiveRoIPooling(4)(
                keras.Input(FEATURES.shape[1:]), keras.Input(ROIS.shape[1:])
            ),
            r"multiple of 4 \* 4 channels; received: 18",
        ),
    ],
)
def test_bad_settings(call, message):
    with pytest.raises(ValueError, match=message):
        call()
