"""Keras callbacks that every training app uses."""

import csv
import io
import math
import pathlib
import time

import keras
import numpy as np

from kerasvision.training import run_folder


class NonFiniteLoss(run_folder.RunError):
    """The loss became infinite or not a number."""


class StopOnNonFiniteLoss(keras.callbacks.Callback):
    """Ends the run with the step and the terms of the loss when one of them is not finite.

    The weights are looked at after every epoch: an activation that clips, such as ReLU6, can
    make a number out of NaN, so that the loss does not tell. Put it before `Checkpoint`.
    """

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if logs and not all(math.isfinite(value) for value in logs.values()):
            terms = ", ".join(f"{name} {value:.4g}" for name, value in sorted(logs.items()))
            raise NonFiniteLoss(
                f"the loss is not finite at step {batch + 1} of epoch {self.epoch + 1}; "
                f"received: {terms}; the last checkpoint is kept; try a lower --learning_rate"
            )

    def on_epoch_end(self, epoch, logs=None):
        for weight in self.model.weights:
            if not np.isfinite(keras.ops.convert_to_numpy(weight)).all():
                raise NonFiniteLoss(
                    f"the weights {weight.path} are not finite after epoch {epoch + 1}; the last "
                    "checkpoint is kept; try a lower --learning_rate"
                )


class Checkpoint(keras.callbacks.Callback):
    """Keeps `last.keras`, `best.keras` and `history.csv`, and goes on from them.

    `last.keras` holds the weights and the optimizer, whose step count tells how many epochs
    are done: one file, replaced at once, so that a crash can't leave two that disagree. It is
    written after the others, which an epoch run again simply writes again. It does not hold the
    states of dropout's generators: each epoch sets them anew, to what depends on the seed and
    the epoch alone.

    Put it behind the callbacks that add to `logs`.

    Args:
        workdir: the run folder.
        steps_per_epoch: of `fit`.
        monitor: name in `logs` of which `best.keras` has the best value; an epoch without it is
            not considered.
        mode: "max" if the largest value is the best, "min" if the smallest is.
    """

    def __init__(self, workdir, steps_per_epoch, monitor, mode="max"):
        super().__init__()
        self.workdir = pathlib.Path(workdir)
        self.steps_per_epoch = steps_per_epoch
        self.monitor = monitor
        self.sign = {"max": 1, "min": -1}[mode]
        self.rows = []

    def restore(self, model):
        """Loads what is there into the compiled `model`; returns the number of epochs done."""
        last = self.workdir / "last.keras"
        if not last.exists():
            return 0
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        model.load_weights(last)
        epochs_done = int(model.optimizer.iterations.numpy()) // self.steps_per_epoch
        with open(self.workdir / "history.csv", newline="") as file:
            self.rows = [
                {name: float(value) for name, value in row.items() if value}
                for row in csv.DictReader(file)
            ][:epochs_done]
        return epochs_done

    @property
    def history(self):
        """dict: name to its values by epoch; None where an epoch has none."""
        names = dict.fromkeys(name for row in self.rows for name in row)
        return {name: [row.get(name) for row in self.rows] for name in names if name != "epoch"}

    @property
    def best(self):
        """(epoch counted from 1, value) of `best.keras`, or None."""
        scored = [row for row in self.rows if self.monitor in row]
        if not scored:
            return None
        best = max(scored, key=lambda row: self.sign * row[self.monitor])  # of equal ones the first
        return int(best["epoch"]), best[self.monitor]

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.perf_counter()
        for variable in self.model.variables:
            if variable.name == "seed_generator_state":
                # The seed, and the count of draws, of which an epoch has less than a million.
                seed, _ = keras.ops.convert_to_numpy(variable)
                variable.assign([seed, epoch << 20])

    def on_epoch_end(self, epoch, logs=None):
        row = {"epoch": epoch + 1, **{name: float(value) for name, value in logs.items()}}
        row["seconds"] = time.perf_counter() - self.started
        self.rows.append(row)
        text = io.StringIO()
        writer = csv.DictWriter(text, ["epoch", *self.history], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        run_folder.write_atomically(self.workdir / "history.csv", text.getvalue())
        if self.best is not None and self.best[0] == epoch + 1:
            run_folder.save_model(self.model, self.workdir / "best.keras")
        run_folder.save_model(self.model, self.workdir / "last.keras")
