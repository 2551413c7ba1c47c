import keras
import numpy as np
import pytest

from kerasvision.backbones.feature_pyramid import feature_pyramid


def pyramid_of(sides, depths=(3, 5, 4), filters=2, **settings):
    inputs = [
        keras.Input((height, width, depth), name=f"stride{8 * 2**i}")
        for i, ((height, width), depth) in enumerate(zip(sides, depths))
    ]
    taps = {x.name: x for x in inputs}
    return keras.Model(inputs, feature_pyramid(taps, filters, **settings))


def convolution(x, layer, stride=1):
    """Loop by loop, zeros around the map."""
    kernel, bias = (weight.numpy() for weight in layer.weights)
    margin = kernel.shape[0] // 2
    padded = np.pad(x, ((margin, margin), (margin, margin), (0, 0)))
    rows, columns = -(-x.shape[0] // stride), -(-x.shape[1] // stride)
    result = np.zeros((rows, columns, kernel.shape[-1]))
    for row in range(rows):
        for column in range(columns):
            window = padded[
                row * stride : row * stride + kernel.shape[0],
                column * stride : column * stride + kernel.shape[1],
            ]
            result[row, column] = np.einsum("hwi,hwio->o", window, kernel) + bias
    return result


@pytest.mark.parametrize("coarser", ["P", "C"])
def test_equals_reference(coarser):
    rng = np.random.default_rng(0)
    sides = [(7, 9), (4, 5), (2, 3)]  # odd, as of pictures whose sides are no multiples of 32
    model = pyramid_of(sides, coarser=coarser)
    model.set_weights([rng.normal(size=w.shape) for w in model.weights])
    maps = [rng.normal(size=(*side, d)).astype("f4") for side, d in zip(sides, (3, 5, 4))]
    received = {k: v[0] for k, v in model.predict_on_batch([m[None] for m in maps]).items()}

    layer = model.get_layer
    merged = convolution(maps[2], layer("fpn_lateral_stride32"))
    expected = {"stride32": convolution(merged, layer("fpn_stride32"))}
    for stride, x in [(16, maps[1]), (8, maps[0])]:
        lateral = convolution(x, layer(f"fpn_lateral_stride{stride}"))
        for row in range(lateral.shape[0]):
            for column in range(lateral.shape[1]):
                lateral[row, column] += merged[row // 2, column // 2]
        merged = lateral
        expected[f"stride{stride}"] = convolution(merged, layer(f"fpn_stride{stride}"))
    source = expected["stride32"] if coarser == "P" else maps[2]
    expected["stride64"] = convolution(source, layer("fpn_stride64"), stride=2)
    positive = np.maximum(expected["stride64"], 0)
    expected["stride128"] = convolution(positive, layer("fpn_stride128"), stride=2)
    assert set(received) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(received[name], value, atol=1e-4 * np.abs(value).max())


def test_pooled_map_is_every_second_pixel():
    model = pyramid_of([(8, 8), (4, 4), (2, 2)], coarser="pool")
    rng = np.random.default_rng(1)
    maps = [rng.normal(size=x.shape[1:])[None] for x in model.inputs]
    found = model.predict_on_batch(maps)
    np.testing.assert_array_equal(found["stride64"], found["stride32"][:, ::2, ::2])


def test_parameters():
    # With 256 filters on ResNet-50, as torchvision's: C3 to C5 and P6, P7 from P5.
    model = pyramid_of([(8, 8), (4, 4), (2, 2)], (512, 1024, 2048), 256, coarser="P")
    assert model.count_params() == 3_868_672
    model = pyramid_of([(8, 8), (4, 4), (2, 2)], (512, 1024, 2048), 256)
    assert model.count_params() == 3_868_672 - 2 * 590_080


def test_wrong_arguments():
    with pytest.raises(ValueError, match="strides that double; received: stride8, stride32"):
        feature_pyramid({"stride8": keras.Input((8, 8, 1)), "stride32": keras.Input((2, 2, 1))})
    with pytest.raises(ValueError, match="must have a height and a width"):
        feature_pyramid({"stride8": keras.Input((None, 8, 1))})
    with pytest.raises(ValueError, match="coarser must be .*; received: 'Q'"):
        feature_pyramid({"stride8": keras.Input((8, 8, 1))}, coarser="Q")
