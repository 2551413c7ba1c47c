import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.backbones.googlenet import googlenet

# Column "params" of table 1, in K = 1024, beside the exact number of weights without biases.
# The table is exact for conv2, 3a, 3b and the classifier; conv1 of 7 * 7 * 3 * 64 weights can't
# have 2.7K, and the others are up to 7 % off.
TABLE_1 = {
    "conv1": (2.7, 9_408),
    "conv2": (112, 114_688),
    "inception_3a": (159, 163_328),
    "inception_3b": (380, 388_096),
    "inception_4a": (364, 375_552),
    "inception_4b": (437, 448_512),
    "inception_4c": (463, 509_440),
    "inception_4d": (580, 604_672),
    "inception_4e": (840, 867_328),
    "inception_5a": (1072, 1_042_432),
    "inception_5b": (1388, 1_442_816),
    "predictions": (1000, 1_024_000),
}


def by_module(one, three_reduce, three, five_reduce, five, projection, channels):
    """Weights of a module, from the columns of table 1."""
    return (
        channels * (one + three_reduce + five_reduce + projection)
        + 9 * three_reduce * three
        + 25 * five_reduce * five
    )


def test_parameters_are_those_of_table_1():
    model = googlenet()
    weights, biases = dict.fromkeys(TABLE_1, 0), 0
    for layer in model.layers:
        if layer.weights:
            kernel, bias = layer.weights
            module = next(name for name in TABLE_1 if layer.name.startswith(name))
            weights[module] += int(np.prod(kernel.shape))
            biases += int(np.prod(bias.shape))
    assert weights == {name: exact for name, (_, exact) in TABLE_1.items()}
    for name in ("conv2", "inception_3a", "inception_3b", "predictions"):
        assert abs(weights[name] / 1024 - TABLE_1[name][0]) <= 1
    for name in list(TABLE_1)[1:]:
        assert weights[name] / 1024 == pytest.approx(TABLE_1[name][0], rel=0.075)
    # The lecture's example, inception (4b) of 512 channels.
    assert by_module(160, 112, 224, 24, 64, 64, 512) == weights["inception_4b"] == 438 * 1024
    assert model.count_params() == sum(weights.values()) + biases == 6_998_552


def test_parameters_of_the_auxiliary_heads():
    model = googlenet(auxiliary_heads=True)
    # Behind 4a and 4d: 1x1 to 128, 4 x 4 x 128 to 1024, 1024 to 1000.
    heads = [
        channels * 128 + 128 + 4 * 4 * 128 * 1024 + 1024 + 1024 * 1000 + 1000
        for channels in (512, 528)
    ]
    assert model.count_params() == 6_998_552 + sum(heads) == 13_378_280
    # Section 5: "an 4x4x512 output for the (4a), and 4x4x528 for the (4d) stage".
    assert model.get_layer("auxiliary1_pool").output.shape[1:] == (4, 4, 512)
    assert model.get_layer("auxiliary2_pool").output.shape[1:] == (4, 4, 528)
    assert googlenet(include_top=False).count_params() == 6_998_552 - 1_025_000


def test_maps_are_those_of_table_1():
    model = googlenet((224, 224, 3), 10)
    assert {name: tuple(tap.shape[1:]) for name, tap in model.feature_taps.items()} == {
        "stride2": (112, 112, 64),
        "stride4": (56, 56, 192),
        "stride8": (28, 28, 480),
        "stride16": (14, 14, 832),
        "stride32": (7, 7, 1024),
    }
    channels = {"4a": 512, "4b": 512, "4c": 512, "4d": 528, "5a": 832}
    for name, count in channels.items():
        assert model.get_layer(f"inception_{name}").output.shape[-1] == count
    smaller = googlenet((224 - 64, 33, 3), 10).feature_taps
    for name, tap in model.feature_taps.items():
        stride = int(name.removeprefix("stride"))
        assert tap.shape[1] - smaller[name].shape[1] == 64 // stride


def max_pool(x, size, stride):
    """ "Same" pooling in loops; padding never wins."""
    sides = [-(-side // stride) for side in x.shape[:2]]
    before = [((out - 1) * stride + size - side) // 2 for out, side in zip(sides, x.shape)]
    before = [max(0, b) for b in before]
    out = np.empty((*sides, x.shape[2]), x.dtype)
    for i in range(sides[0]):
        for j in range(sides[1]):
            top, left = i * stride - before[0], j * stride - before[1]
            cell = x[max(0, top) : top + size, max(0, left) : left + size]
            out[i, j] = cell.max((0, 1))
    return out


def convolve(x, layer, stride=1):
    """ "Same" convolution and ReLU in loops."""
    kernel, bias = (np.asarray(w, "float64") for w in layer.get_weights())
    size = kernel.shape[0]
    sides = [-(-side // stride) for side in x.shape[:2]]
    pads = [max(0, (out - 1) * stride + size - side) for out, side in zip(sides, x.shape[:2])]
    x = np.pad(x, [(p // 2, p - p // 2) for p in pads] + [(0, 0)])
    out = np.empty((*sides, kernel.shape[3]))
    for i in range(sides[0]):
        for j in range(sides[1]):
            cell = x[i * stride : i * stride + size, j * stride : j * stride + size]
            out[i, j] = np.tensordot(cell, kernel, 3) + bias
    return np.maximum(out, 0)


def local_response(x):
    """AlexNet, section 3.3."""
    out = np.empty_like(x)
    for i in range(x.shape[-1]):
        neighbours = x[..., max(0, i - 2) : i + 3]
        out[..., i] = x[..., i] / (2 + 1e-4 * (neighbours**2).sum(-1)) ** 0.75
    return out


def test_equals_a_slow_reference():
    keras.utils.set_random_seed(0)
    model = googlenet((70, 66, 3), 7, auxiliary_heads=True, classifier_activation=None)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if layer.weights:
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel, rng.normal(0, 0.1, bias.shape)])
    image = rng.uniform(0, 255, (70, 66, 3))
    get = model.get_layer

    def inception(x, module):
        name = f"inception_{module}"
        branch3x3 = convolve(x, get(f"{name}_3x3_reduce"))
        branch5x5 = convolve(x, get(f"{name}_5x5_reduce"))
        return np.concatenate(
            [
                convolve(x, get(f"{name}_1x1")),
                convolve(branch3x3, get(f"{name}_3x3")),
                convolve(branch5x5, get(f"{name}_5x5")),
                convolve(max_pool(x, 3, 1), get(f"{name}_pool_projection")),
            ],
            axis=-1,
        )

    def dense(x, name):
        kernel, bias = get(name).get_weights()
        return x @ kernel + bias

    def head(x, name):
        # One cell of 5 x 5: the map of 70 x 66 pixels has five cells a side.
        x = convolve(x.mean((0, 1), keepdims=True), get(f"{name}_reduce"))
        return dense(np.maximum(dense(x.reshape(-1), f"{name}_dense"), 0), name)

    x = image - [123.68, 116.779, 103.939]
    x = local_response(max_pool(convolve(x, get("conv1"), 2), 3, 2))
    x = local_response(convolve(convolve(x, get("conv2_reduce")), get("conv2")))
    x = max_pool(x, 3, 2)
    expected = {}
    for stage in ("3a 3b", "4a 4b 4c 4d 4e", "5a 5b"):
        for module in stage.split():
            x = inception(x, module)
            if module in ("4a", "4d"):
                name = "auxiliary1" if module == "4a" else "auxiliary2"
                expected[name] = head(x, name)
        if stage != "5a 5b":
            x = max_pool(x, 3, 2)
    expected["predictions"] = dense(x.mean((0, 1)), "predictions")

    received = model(image[None].astype("float32"), training=False)
    assert set(received) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(
            ops.convert_to_numpy(received[name])[0], values, atol=1e-4 * abs(values).max()
        )


def test_auxiliary_heads_train_and_leave_the_predictions(tmp_path):
    keras.utils.set_random_seed(0)
    model = googlenet((65, 65, 3), 4, auxiliary_heads=True)
    images = np.random.default_rng(0).uniform(0, 255, (4, 65, 65, 3)).astype("float32")
    labels = np.arange(4)
    targets = dict.fromkeys(("predictions", "auxiliary1", "auxiliary2"), labels)
    model.compile(
        keras.optimizers.SGD(1e-3),
        loss=dict.fromkeys(targets, "sparse_categorical_crossentropy"),
        loss_weights={"predictions": 1.0, "auxiliary1": 0.3, "auxiliary2": 0.3},
        run_eagerly=True,
    )

    # Without dropout, so that the two are comparable.
    before = model.test_on_batch(images, targets, return_dict=True)["loss"]
    model.train_on_batch(images, targets)
    model.reset_metrics()
    assert model.test_on_batch(images, targets, return_dict=True)["loss"] < before

    model.save(tmp_path / "trained.h5")
    plain = googlenet((65, 65, 3), 4, weights=tmp_path / "trained.h5")
    np.testing.assert_allclose(
        plain.predict(images, verbose=0),
        model.predict(images, verbose=0)["predictions"],
        atol=1e-6,
    )


def test_clear_errors(tmp_path):
    with pytest.raises(ValueError, match="at least 65 x 65.*64"):
        googlenet((64, 64, 3), auxiliary_heads=True)
    with pytest.raises(ValueError, match="must have a height and a width"):
        googlenet((None, None, 3), auxiliary_heads=True)
    with pytest.raises(ValueError, match="auxiliary_heads=True needs include_top=True"):
        googlenet(include_top=False, auxiliary_heads=True)
    googlenet((32, 32, 3), 3).save(tmp_path / "three.h5")
    with pytest.raises(ValueError, match=r"three.h5: layer predictions.*\(1024, 5\).*\(1024, 3\)"):
        googlenet((32, 32, 3), 5, weights=tmp_path / "three.h5")
    # The headless network takes it, at any size.
    googlenet((None, None, 3), include_top=False, weights=tmp_path / "three.h5")


@pytest.mark.slow
def test_survives_keras_saved_model_and_litert(tmp_path, in_litert):
    import tensorflow as tf

    model = googlenet((65, 65, 3), 5, auxiliary_heads=True, classifier_activation=None)
    images = np.random.default_rng(0).uniform(0, 255, (2, 65, 65, 3)).astype("float32")
    expected = keras.tree.map_structure(ops.convert_to_numpy, model(images, training=False))

    def assert_equal(received):
        for a, b in zip(keras.tree.flatten(received), keras.tree.flatten(expected), strict=True):
            np.testing.assert_allclose(ops.convert_to_numpy(a), b, atol=1e-4 * np.abs(b).max())

    model.save(tmp_path / "model.keras")
    assert_equal(keras.models.load_model(tmp_path / "model.keras")(images, training=False))
    model.export(tmp_path / "saved_model", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "saved_model"))
    assert_equal(served.serve(tf.constant(images)))
    assert_equal(in_litert(lambda x: model(x, training=False), images)(images))
