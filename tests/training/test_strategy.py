"""Two replicas must compute what one device computes; in a process with two devices."""

import json
import subprocess
import sys

import pytest

SCRIPT = """
import json
import keras, numpy as np, tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from kerasvision.detection import ssd
from kerasvision.training import strategy

rng = np.random.default_rng(0)
boxes = np.array(
    [[[0.1, 0.1, 0.6, 0.7], [0, 0, 0, 0]]] * 2 + [[[0.2, 0.3, 0.9, 0.9], [0, 0, 1, 0.5]]] * 2
)
batch = {
    "images": rng.uniform(0, 255, (4, 64, 64, 3)).astype("float32"),
    "bounding_boxes": {
        "boxes": boxes.astype("float32"),
        "labels": np.array([[0, -1], [1, -1], [1, 0], [0, 1]], "int32"),
    },
}

def train(name):
    keras.utils.set_random_seed(0)
    devices = strategy.make_strategy(name)
    with devices.scope():
        model = ssd.ssd_resnet18(2, (64, 64, 3), width=8)
        strategy.synchronize_batch_norm(model)
        model.compile(keras.optimizers.SGD(1e-3, momentum=0.9))
    dataset = tf.data.Dataset.from_tensors(batch).repeat(3)
    history = model.fit(dataset, epochs=1, shuffle=False, verbose=0).history
    norms = [float(np.abs(w).sum()) for w in model.get_weights()]
    return {"replicas": devices.num_replicas_in_sync, "history": history, "norms": norms}

print(json.dumps([train("none"), train("mirrored")]))
"""


@pytest.mark.slow
def test_mirrored_equals_one_device():
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    one, two = json.loads(result.stdout.splitlines()[-1])
    assert (one["replicas"], two["replicas"]) == (1, 2)
    for name, values in one["history"].items():
        assert two["history"][name] == pytest.approx(values, rel=1e-4), name
    assert two["norms"] == pytest.approx(one["norms"], rel=1e-3, abs=1e-4)
