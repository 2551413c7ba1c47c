import h5py
import keras
import numpy as np
import pytest
import safetensors.numpy
from keras import layers

from kerasvision.backbones import weights

RNG = np.random.default_rng(0)


def network(num_classes=5, include_top=True, filters=4, blocks=1, pixels=2):
    """A network with every kind of layer that files have weights for."""
    images = x = keras.Input((pixels, pixels, 3))
    for block in range(blocks):
        x = layers.Conv2D(filters, 1, use_bias=False, name=f"conv{block}")(x)
        x = layers.BatchNormalization(name=f"bn{block}")(x)
        x = layers.DepthwiseConv2D(3, padding="same", name=f"depthwise{block}")(x)
    x = layers.Conv2D(6, (1, 2), padding="same", name="convolutional_fc")(x)
    if include_top:
        x = layers.Dense(7, name="fc1")(layers.Flatten()(x))
        x = layers.Dense(num_classes, name="predictions")(x)
    return keras.Model(images, x, name="network")


def random_state_dict(num_classes=5, blocks=1):
    """The parameters of the same in PyTorch, as `torch.nn.Conv2d`, `BatchNorm2d`, `Linear`."""
    shapes = {}
    for i in range(blocks):
        shapes[f"features.conv{i}.weight"] = (4, 4 if i else 3, 1, 1)
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"features.bn{i}.{part}"] = (4,)
        shapes[f"features.bn{i}.num_batches_tracked"] = ()
        shapes |= {f"features.depthwise{i}.weight": (4, 1, 3, 3)}
        shapes |= {f"features.depthwise{i}.bias": (4,)}
    shapes |= {"features.convolutional_fc.weight": (6, 4, 1, 2)}
    shapes |= {"features.convolutional_fc.bias": (6,)}
    shapes |= {"classifier.fc1.weight": (7, 6 * 2 * 2), "classifier.fc1.bias": (7,)}
    shapes |= {"classifier.predictions.weight": (num_classes, 7)}
    shapes |= {"classifier.predictions.bias": (num_classes,)}
    return {name: RNG.uniform(0.5, 1.5, shape).astype("float32") for name, shape in shapes.items()}


def module_of(name):
    return f"classifier.{name}" if name in ("fc1", "predictions") else f"features.{name}"


def load(model, path):
    arrays = weights.from_state_dict(model, path, module_of, flattened={"fc1": (2, 2, 6)})
    weights.assign(model, arrays, path)


def slow_forward(state_dict, images):
    """What PyTorch computes, axis by axis."""
    p = {name.split(".", 1)[1]: array.astype("float64") for name, array in state_dict.items()}
    x = np.einsum("bhwc,oc->bohw", images, p["conv0.weight"][:, :, 0, 0])
    mean, variance = (p[f"bn0.running_{part}"][:, None, None] for part in ("mean", "var"))
    x = (x - mean) / np.sqrt(variance + 1e-3)
    x = x * p["bn0.weight"][:, None, None] + p["bn0.bias"][:, None, None]
    padded = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)])
    x = sum(
        padded[:, :, i : i + 2, j : j + 2] * p["depthwise0.weight"][:, 0, i, j, None, None]
        for i in range(3)
        for j in range(3)
    )
    x = x + p["depthwise0.bias"][:, None, None]
    padded = np.pad(x, [(0, 0), (0, 0), (0, 0), (0, 1)])
    kernel = p["convolutional_fc.weight"][:, :, 0]
    x = sum(np.einsum("bchw,oc->bohw", padded[..., j : j + 2], kernel[:, :, j]) for j in range(2))
    x = (x + p["convolutional_fc.bias"][:, None, None]).reshape(len(images), -1)
    x = x @ p["fc1.weight"].T + p["fc1.bias"]
    return x @ p["predictions.weight"].T + p["predictions.bias"]


def save(state_dict, path):
    if path.suffix == ".npz":
        np.savez(path, **state_dict)
    else:
        safetensors.numpy.save_file(state_dict, path)
    return path


# --- State dicts -------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_state_dict_computes_what_pytorch_does(tmp_path, suffix):
    state_dict = random_state_dict()
    path = save(state_dict, tmp_path / f"net{suffix}")
    assert weights.is_state_dict(path) and weights.is_state_dict(str(path))
    model = network()
    load(model, path)
    images = RNG.uniform(0, 1, (3, 2, 2, 3))
    np.testing.assert_allclose(
        model.predict(images, verbose=0), slow_forward(state_dict, images), rtol=1e-5
    )
    # A network without the classifier takes the same file.
    headless = network(include_top=False)
    load(headless, path)
    np.testing.assert_array_equal(
        headless.get_layer("convolutional_fc").get_weights()[0],
        model.get_layer("convolutional_fc").get_weights()[0],
    )


def test_fully_connected_layer_becomes_a_convolution(tmp_path):
    state_dict = random_state_dict()
    kernel = RNG.normal(size=(6, 4)).astype("float32")
    state_dict["features.convolutional_fc.weight"] = kernel
    path = save(state_dict, tmp_path / "net.npz")
    arrays = weights.from_state_dict(network(include_top=False), path, module_of)
    np.testing.assert_array_equal(arrays["convolutional_fc"][0], kernel.T[None, None])


@pytest.mark.parametrize(
    "weights_, expected", [(None, False), ("a.h5", False), ("imagenet", False)]
)
def test_is_no_state_dict(weights_, expected):
    assert weights.is_state_dict(weights_) is expected


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda state: {**state, "features.conv0.weight": np.zeros((4, 5, 1, 1), "float32")},
            r"layer conv0 of network expects arrays of shapes \[\(1, 1, 3, 4\)\]; "
            r"received: \[\(1, 1, 5, 4\)\]$",
        ),
        (
            lambda state: {**state, "features.depthwise0.weight": np.zeros((4, 9), "float32")},
            r"layer depthwise0 of network expects arrays of shapes \[\(3, 3, 4, 1\), \(4,\)\]; "
            r"received: \[\(4, 9\), \(4,\)\]$",
        ),
        (
            # Pictures of another size make another number of columns.
            lambda state: {**state, "classifier.fc1.weight": np.zeros((7, 54), "float32")},
            r"layer fc1 of network expects arrays of shapes \[\(24, 7\), \(7,\)\]; "
            r"received: \[\(54, 7\), \(7,\)\]$",
        ),
        (
            lambda state: {n: x for n, x in state.items() if n != "features.bn0.running_var"},
            r"expected features.bn0.running_var for layer bn0 of network; received parameters: "
            r"\['.*'\]$",
        ),
        (
            lambda state: {n: x for n, x in state.items() if not n.startswith("classifier")},
            r"expected classifier.fc1.weight for layer fc1 of network; .*\(a file without the "
            r"classifier: pass include_top=False\)$",
        ),
        (
            lambda state: {**state, "features.conv0.bias": np.zeros(4, "float32")},
            r"the file must have no more layers than network and a classifier; received also "
            r"\['features.conv0.bias'\]$",
        ),
        (
            lambda state: {"encoder.0.weight": np.zeros(4, "float32")},
            r"expected features.conv0.weight for layer conv0 of network; "
            r"received parameters: \['encoder.0.weight'\]$",
        ),
    ],
)
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_foreign_state_dict(tmp_path, suffix, change, message):
    path = save(change(random_state_dict()), tmp_path / f"foreign{suffix}")
    model = network()
    before = model.get_weights()
    with pytest.raises(ValueError, match=rf"foreign\{suffix}: {message}") as error:
        load(model, path)
    assert "\n" not in str(error.value)
    for a, b in zip(model.get_weights(), before):
        np.testing.assert_array_equal(a, b)


def test_deeper_network_is_no_longer_one(tmp_path):
    """All layers of the shallow network are in the file of the deep one, in the right shapes."""
    path = save(random_state_dict(blocks=2), tmp_path / "deep.npz")
    with pytest.raises(ValueError, match=r"received also \['features.conv1.weight', "):
        load(network(), path)
    network(blocks=2).save(tmp_path / "deep.h5")
    with pytest.raises(ValueError, match=r"received also \['conv1', 'bn1', 'depthwise1'\]"):
        weights.assign(network(), weights.read_h5(tmp_path / "deep.h5"), "deep.h5")


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def corrupt(path):
    content = bytearray(path.read_bytes())
    for i in range(len(content) // 4, len(content) // 2):
        content[i] ^= 0x55
    path.write_bytes(content)


def save_single_array(path):
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))


def save_pickled(path):
    np.savez(path, a=np.array([{}, "object"], dtype=object))


@pytest.mark.parametrize(
    "suffix, damage",
    [
        (".npz", truncate),
        (".npz", corrupt),
        (".npz", save_single_array),
        (".npz", save_pickled),
        (".npz", lambda path: path.write_bytes(b"")),
        (".npz", lambda path: path.write_text("a model")),
        (".npz", lambda path: path.unlink()),
        (".safetensors", truncate),
        (".safetensors", corrupt),
        (".safetensors", lambda path: path.write_bytes(b"")),
        (".safetensors", lambda path: path.write_bytes(b"a model" * 100)),
        (".safetensors", lambda path: path.unlink()),
    ],
)
def test_unreadable_state_dict(tmp_path, suffix, damage):
    path = save(random_state_dict(), tmp_path / f"broken{suffix}")
    damage(path)
    with pytest.raises(ValueError, match=rf"broken\{suffix}: not a readable \{suffix} file; ") as e:
        weights.read_state_dict(path)
    assert "\n" not in str(e.value) and not str(e.value).endswith("received: ")


# --- Legacy Keras files ------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [True, False])
def test_h5_gives_the_same_network(tmp_path, whole):
    """Files of whole models keep the weights in a group of their own, the others at the root."""
    model = network()
    model.set_weights([RNG.uniform(0.5, 1.5, w.shape) for w in model.get_weights()])
    model.save(tmp_path / "whole.h5")
    path = tmp_path / "whole.h5"
    if not whole:
        path = tmp_path / "weights.h5"
        with h5py.File(tmp_path / "whole.h5") as source, h5py.File(path, "w") as target:
            for name in source["model_weights"]:
                source.copy(f"model_weights/{name}", target)
            # Older files have their names as bytes.
            target.attrs["layer_names"] = [
                n.encode() if isinstance(n, str) else n
                for n in source["model_weights"].attrs["layer_names"]
            ]
    copy = network()
    weights.assign(copy, weights.read_h5(path), path)
    for a, b in zip(copy.get_weights(), model.get_weights()):
        np.testing.assert_array_equal(a, b)
    headless = network(include_top=False)
    weights.assign(headless, weights.read_h5(path), path)
    for a, b in zip(headless.get_weights(), model.get_weights()):
        np.testing.assert_array_equal(a, b)


def test_h5_of_other_networks(tmp_path):
    def assign(model, name):
        weights.assign(model, weights.read_h5(tmp_path / name), tmp_path / name)

    network(1000).save(tmp_path / "thousand.h5")
    with pytest.raises(
        ValueError,
        match=r"thousand.h5: layer predictions of network expects arrays of shapes \[\(7, 3\), "
        r"\(3,\)\]; received: \[\(7, 1000\), \(1000,\)\] \(a classifier of 1000 classes: pass "
        r"num_classes=1000, or include_top=False for one of your own\)$",
    ):
        assign(network(3), "thousand.h5")
    network(include_top=False).save(tmp_path / "headless.h5")
    with pytest.raises(
        ValueError,
        match=r"headless.h5: the file must have all layers of network; received no \['fc1', "
        r"'predictions'\] \(a file without the classifier: pass include_top=False\)$",
    ):
        assign(network(), "headless.h5")
    network(filters=6).save(tmp_path / "wide.h5")
    with pytest.raises(
        ValueError,
        match=r"wide.h5: layer conv0 of network expects arrays of shapes \[\(1, 1, 3, 4\)\]; "
        r"received: \[\(1, 1, 3, 6\)\]$",
    ):
        assign(network(), "wide.h5")
    with pytest.raises(
        ValueError, match=r"headless.h5: .* received no \['conv1', 'bn1', 'depthwise1'\]$"
    ):
        assign(network(include_top=False, blocks=2), "headless.h5")
    keras.Sequential([keras.Input((2,)), layers.Dense(1, name="d")]).save(tmp_path / "dense.h5")
    with pytest.raises(
        ValueError,
        match=r"dense.h5: no layer of network is in the file; expected names like \['conv0', "
        r"'bn0', 'depthwise0'\], received: \['d'\]$",
    ):
        assign(network(), "dense.h5")


def test_unreadable_h5(tmp_path):
    path = tmp_path / "net.h5"
    with pytest.raises(ValueError, match="net.h5: not a readable HDF5 weight file; .*No such"):
        weights.read_h5(path)
    path.write_text("a model")
    with pytest.raises(ValueError, match="net.h5: not a readable HDF5 weight file; .*signature"):
        weights.read_h5(path)
    network().save(path)
    truncate(path)
    with pytest.raises(ValueError, match="net.h5: not a readable HDF5 weight file; .*truncated"):
        weights.read_h5(path)
    with h5py.File(path, "w") as file:
        file["data"] = np.zeros(3)
    with pytest.raises(ValueError, match=r"`layer_names` is missing.*received groups: \['data'\]"):
        weights.read_h5(path)


def drop_group(group):
    del group["conv0"]


def drop_array(group):
    del group["bn0/bn0/gamma"]


def drop_names(group):
    del group["depthwise0"].attrs["weight_names"]


def replace_by_group(group):
    del group["bn0/bn0/gamma"]
    group.create_group("bn0/bn0/gamma")


def replace_by_text(group):
    del group["bn0/bn0/gamma"]
    group["bn0/bn0/gamma"] = "gamma"


def replace_by_array(group):
    del group["conv0"]
    group["conv0"] = np.zeros(3)


@pytest.mark.parametrize(
    "damage, layer",
    [
        (drop_group, "conv0"),
        (drop_array, "bn0"),
        (drop_names, "depthwise0"),
        (replace_by_group, "bn0"),
        (replace_by_text, "bn0"),
        (replace_by_array, "conv0"),
    ],
)
def test_damaged_h5(tmp_path, damage, layer):
    path = tmp_path / "net.h5"
    network().save(path)
    with h5py.File(path, "a") as file:
        damage(file["model_weights"])
    with pytest.raises(
        ValueError, match=f"net.h5: damaged, the weights of layer {layer} can't be read; received: "
    ) as error:
        weights.read_h5(path)
    assert "\n" not in str(error.value)


# --- Published files ---------------------------------------------------------------------------


def test_imagenet_files(monkeypatch):
    fetched = []
    monkeypatch.setattr(
        keras.utils,
        "get_file",
        lambda name, url, cache_subdir: fetched.append((name, url, cache_subdir)) or "a path",
    )
    url = "https://host/folder/net_top.h5"
    assert weights.fetch_imagenet(url, True, 1000) == "a path"
    assert weights.fetch_imagenet(url, False, 3) == "a path"
    assert fetched == [("net_top.h5", url, "models")] * 2
    with pytest.raises(ValueError, match="include_top=False .*received: num_classes=3"):
        weights.fetch_imagenet(url, True, 3)
