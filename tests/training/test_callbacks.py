import keras
import numpy as np
import pytest

from kerasvision.training import callbacks

STEPS = 3


class Score(keras.callbacks.Callback):
    """Adds a score that is best in the third epoch."""

    def on_epoch_end(self, epoch, logs=None):
        logs["val_AP"] = [0.1, 0.2, 0.9, 0.3, 0.4][epoch]


def make_model():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(3), keras.layers.Dropout(0.5), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((4,)), *layers])
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 5 * STEPS)
    model.compile(keras.optimizers.SGD(schedule, momentum=0.9), "mse")
    return model


def train(workdir, epochs):
    model = make_model()
    checkpoint = callbacks.Checkpoint(workdir, STEPS, "val_AP")
    done = checkpoint.restore(model)
    x, y = np.random.default_rng(1).normal(size=(2, STEPS * 8, 4)).astype("float32")
    model.fit(
        x,
        y[:, :1],
        batch_size=8,
        initial_epoch=done,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[Score(), checkpoint],
    )
    return model, checkpoint, done


def test_resumed_run_equals_uninterrupted_one(tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole, expected, _ = train(tmp_path / "whole", 5)
    train(tmp_path / "parts", 2)
    resumed, received, done = train(tmp_path / "parts", 5)
    assert done == 2
    for a, b in zip(whole.get_weights(), resumed.get_weights()):
        np.testing.assert_array_equal(a, b)
    assert received.history["loss"] == pytest.approx(expected.history["loss"], rel=1e-6)
    assert received.best == expected.best == (3, 0.9)


def test_best_and_last_are_kept(tmp_path):
    model, checkpoint, _ = train(tmp_path, 5)
    last = keras.models.load_model(tmp_path / "last.keras")
    np.testing.assert_array_equal(last.get_weights()[0], model.get_weights()[0])
    best = keras.models.load_model(tmp_path / "best.keras")
    assert int(best.optimizer.iterations.numpy()) == 3 * STEPS
    lines = (tmp_path / "history.csv").read_text().splitlines()
    assert lines[0].startswith("epoch,loss") and len(lines) == 6
    assert checkpoint.history["val_AP"] == [0.1, 0.2, 0.9, 0.3, 0.4]


def test_row_of_an_unfinished_epoch_is_dropped(tmp_path):
    """Killed between history.csv and last.keras, the epoch is run again and written once."""
    train(tmp_path, 2)
    before = (tmp_path / "last.keras").read_bytes()
    train(tmp_path, 3)
    (tmp_path / "last.keras").write_bytes(before)
    _, checkpoint, done = train(tmp_path, 3)
    assert done == 2
    assert [row["epoch"] for row in checkpoint.rows] == [1, 2, 3]


def test_history_names_may_come_late(tmp_path):
    checkpoint = callbacks.Checkpoint(tmp_path, 1, "val_AP")
    checkpoint.rows = [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0, "val_AP": 0.5}]
    assert checkpoint.history == {"loss": [2.0, 1.0], "val_AP": [None, 0.5]}
    assert checkpoint.best == (2, 0.5)


def test_non_finite_loss_stops_and_names_step_and_terms(tmp_path):
    model = make_model()
    x = np.zeros((24, 4), "float32")
    x[17] = np.nan
    with pytest.raises(callbacks.NonFiniteLoss, match="step 3 of epoch 1; received: loss nan"):
        model.fit(
            x,
            np.zeros((24, 1)),
            batch_size=8,
            shuffle=False,
            verbose=0,
            callbacks=[callbacks.StopOnNonFiniteLoss()],
        )


def test_non_finite_weights_stop_before_the_checkpoint(tmp_path):
    model = make_model()
    kernel = model.layers[0].kernel

    class Break(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["val_AP"] = 0.5
            if epoch == 1:
                kernel.assign(keras.ops.full(kernel.shape, np.nan))

    with pytest.raises(callbacks.NonFiniteLoss, match="dense.*kernel are not finite after epoch 2"):
        model.fit(
            np.ones((STEPS * 8, 4)),
            np.zeros((STEPS * 8, 1)),
            batch_size=8,
            epochs=3,
            verbose=0,
            callbacks=[
                Break(),
                callbacks.StopOnNonFiniteLoss(),
                callbacks.Checkpoint(tmp_path, STEPS, "val_AP"),
            ],
        )
    last = keras.models.load_model(tmp_path / "last.keras")
    assert int(last.optimizer.iterations.numpy()) == STEPS
    assert np.isfinite(last.get_weights()[0]).all()
