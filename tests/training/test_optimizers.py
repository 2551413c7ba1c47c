import keras
import numpy as np
import pytest

from kerasvision.training.optimizers import StepDecay, build_optimizer


def rates(optimizer, schedule, steps, warmup_epochs=0.0, weight_decay=1e-3):
    """Learning rate of each of some steps, of a run of 10 epochs of 4 steps."""
    built = build_optimizer(optimizer, 0.8, schedule, 10, warmup_epochs, 4, weight_decay)
    return [float(keras.ops.convert_to_numpy(built._learning_rate(step))) for step in steps]


def test_step_falls_by_ten_after_a_half_and_three_quarters():
    found = rates("sgd", "step", [0, 19, 20, 29, 30, 39])
    assert found == pytest.approx([0.8, 0.8, 0.08, 0.08, 0.008, 0.008])


def test_constant_stays_and_warms_up():
    assert rates("adamw", "constant", [0, 39]) == pytest.approx([0.8, 0.8])
    found = rates("adamw", "constant", [0, 2, 8, 39], warmup_epochs=2)
    assert found == pytest.approx([0.0, 0.2, 0.8, 0.8])


def test_cosine_falls_to_nothing():
    found = rates("sgd", "cosine", [0, 10, 20, 40])
    expected = [0.4 * (1 + np.cos(np.pi * step / 40)) for step in (0, 10, 20, 40)]
    assert found == pytest.approx(expected, abs=1e-6)
    found = rates("sgd", "cosine", [0, 4, 8, 24, 40], warmup_epochs=2)
    assert found == pytest.approx([0.0, 0.4, 0.8, 0.4, 0.0], abs=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_only_kernels_decay(optimizer):
    images = keras.Input((3,))
    x = keras.layers.BatchNormalization(name="bn")(keras.layers.Dense(2, name="dense")(images))
    model = keras.Model(images, x)
    built = build_optimizer(optimizer, 0.5, "constant", 1, 0, 1, 0.1)
    built.build(model.trainable_variables)
    before = [np.ones(v.shape, "f4") for v in model.trainable_variables]
    for variable, value in zip(model.trainable_variables, before):
        variable.assign(value)
    built.apply_gradients([(0 * v.value, v) for v in model.trainable_variables])
    for variable in model.trainable_variables:
        expected = 1 - 0.5 * 0.1 if variable.name == "kernel" else 1.0
        np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), expected, rtol=1e-6)


def test_schedule_survives_saving():
    schedule = StepDecay(0.5, [10, 20], warmup_steps=4)
    config = keras.saving.serialize_keras_object(schedule)
    loaded = keras.saving.deserialize_keras_object(config)
    for step in (0, 1, 9, 10, 25):
        assert float(loaded(step)) == float(schedule(step))


def test_clear_errors():
    with pytest.raises(ValueError, match="schedule must be cosine, step or constant; received: x"):
        build_optimizer("sgd", 0.1, "x", 1, 0, 1, 0)
    with pytest.raises(ValueError, match="optimizer must be sgd or adamw; received: x"):
        build_optimizer("x", 0.1, "step", 1, 0, 1, 0)
