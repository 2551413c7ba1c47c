import keras
import numpy as np
import pytest
from keras import ops

from kerasvision.backbones.cifar_resnet import cifar_resnet

# CIFAR-10's classes, and the ImageNet classes that are the same things.
CLASSES = {
    "airplane": [404],
    "automobile": [436, 468, 656],
    "bird": [8, 12, 16, 20, 24, 80, 84, 88, 92, 96, 100, 128, 132, 136, 140, 144],
    "cat": [284],
    "deer": [352],
    "dog": range(151, 269),
    "frog": [32],
    "horse": [],
    "ship": [484, 628, 724, 780],
    "truck": [864],
}


def trainable(model):
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_weights)


@pytest.mark.parametrize(
    "depth, count", [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962)]
)
def test_parameters_are_the_papers(depth, count):
    assert trainable(cifar_resnet(depth=depth)) == count


def test_parameters_of_the_other_shortcuts():
    assert trainable(cifar_resnet(shortcuts=None)) == 269_722
    # Two projections, 16 to 32 and 32 to 64 maps, each with a scale and a shift.
    projections = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    assert trainable(cifar_resnet(shortcuts="B")) == 269_722 + projections


def test_shortcut_a_takes_every_second_pixel_between_zeros():
    """With residuals of zero only the shortcuts are left."""
    model = cifar_resnet((9, 7, 3), depth=8, width=3, include_top=False)
    for layer in model.layers:
        if layer.name.endswith("_2_bn"):
            layer.gamma.assign(np.zeros(layer.gamma.shape))
    images = np.random.default_rng(0).uniform(0, 255, (2, 9, 7, 3)).astype("float32")
    first, last = keras.Model(model.input, [*model.feature_taps.values()][::2])(images)
    # Channels: 3 become 6 (1 in front, 2 behind), 6 become 12 (3 in front, 3 behind).
    expected = np.zeros((2, 3, 2, 12), "float32")
    expected[..., 4:7] = ops.convert_to_numpy(first)[:, ::4, ::4]
    assert expected.max() > 0.1
    np.testing.assert_array_equal(last, expected)


@pytest.mark.parametrize("size", [8, 9])
def test_strides_pad_like_pytorch(size):
    model = cifar_resnet((size, size, 3), depth=8)
    before = model.get_layer("conv2_block1_out").output
    after = model.get_layer("conv3_block1_1_conv").output
    images = np.random.default_rng(0).uniform(0, 255, (2, size, size, 3)).astype("float32")
    before, after = keras.Model(model.input, [before, after])(images)
    padded = np.pad(ops.convert_to_numpy(before), [(0, 0), (1, 1), (1, 1), (0, 0)])
    kernel = model.get_layer("conv3_block1_1_conv").kernel
    expected = ops.convert_to_numpy(ops.conv(padded, kernel, 2, "valid"))
    np.testing.assert_allclose(after, expected, atol=1e-5)


def test_the_plain_network_has_no_shortcuts():
    kinds = {type(layer).__name__ for layer in cifar_resnet(depth=8, shortcuts=None).layers}
    assert "Add" not in kinds
    weights = [v.shape for v in cifar_resnet(depth=8, shortcuts=None).weights]
    assert weights == [v.shape for v in cifar_resnet(depth=8, shortcuts="A").weights]


def test_taps():
    taps = cifar_resnet((33, 48, 3), depth=8, width=4).feature_taps
    assert {name: tuple(tap.shape[1:]) for name, tap in taps.items()} == {
        "stride1": (33, 48, 4),
        "stride2": (17, 24, 8),
        "stride4": (9, 12, 16),
    }


@pytest.mark.parametrize("depth", [20, 56])
def test_trained_weights_classify(depth, development_weights, detection_data):
    """Nets of 92 and 93 % on CIFAR-10's test set, on photos taken elsewhere, shrunk to 32x32."""
    import cv2

    labels = {index: label for label, indices in enumerate(CLASSES.values()) for index in indices}
    pictures, expected = [], []
    for path in sorted((detection_data.parent / "classification/imagenet_sample").iterdir()):
        label = labels.get(int(path.name.split("_")[0]))
        if label is not None:
            image = cv2.imread(str(path))[:, :, ::-1]
            side = min(image.shape[:2])
            top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
            square = image[top : top + side, left : left + side]
            pictures.append(cv2.resize(square, (32, 32), interpolation=cv2.INTER_AREA))
            expected.append(label)
    model = cifar_resnet(weights=development_weights / f"resnet{depth}_cifar10.npz", depth=depth)
    received = model.predict(np.array(pictures), verbose=0).argmax(axis=-1)
    assert len(expected) == 58
    # 41 and 37 are right; 6 would be by chance.
    assert (received == expected).sum() >= 35


def test_clear_errors(tmp_path):
    with pytest.raises(ValueError, match=r"depth must be 6n \+ 2.*received: 21"):
        cifar_resnet(depth=21)
    with pytest.raises(ValueError, match="depth must be .*received: 2"):
        cifar_resnet(depth=2)
    with pytest.raises(ValueError, match="shortcuts must be 'A', 'B' or None; received: 'C'"):
        cifar_resnet(shortcuts="C")
    with pytest.raises(ValueError, match="at least 4 x 4.*3"):
        cifar_resnet((3, 4, 3))
    cifar_resnet(depth=8, width=4).save(tmp_path / "narrow.h5")
    shapes = r"\[\(3, 3, 3, 8\)\]; received: \[\(3, 3, 3, 4\)\]"
    with pytest.raises(ValueError, match=f"narrow.h5: layer conv1_conv of cifar_resnet .*{shapes}"):
        cifar_resnet(depth=8, width=8, weights=tmp_path / "narrow.h5")
    np.savez(tmp_path / "other.npz", **{"features.0.weight": np.zeros(1)})
    with pytest.raises(ValueError, match="other.npz: expected conv1.weight.*features.0.weight"):
        cifar_resnet(depth=8, weights=tmp_path / "other.npz")


def test_its_own_file_loads(tmp_path):
    model = cifar_resnet(depth=8, shortcuts="B", width=4)
    model.save(tmp_path / "own.h5")
    loaded = cifar_resnet(depth=8, shortcuts="B", width=4, weights=tmp_path / "own.h5")
    for a, b in zip(model.get_weights(), loaded.get_weights()):
        np.testing.assert_array_equal(a, b)
