"""The optimizers of the training apps, and how their learning rate goes over a run."""

import keras
from keras import ops

STEP_FACTOR = 0.1
STEPS_AT = (0.5, 0.75)  # of the epochs; He et al. 2015, section 4.2


@keras.saving.register_keras_serializable("kerasvision")
class StepDecay(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises linearly from 0, stays, and is divided by 10 now and then.

    Args:
        learning_rate: after the warmup.
        boundaries: numbers of the steps from which on it is a tenth of before; none: constant.
        warmup_steps: steps in which it rises.
    """

    def __init__(self, learning_rate, boundaries=(), warmup_steps=0):
        super().__init__()
        self.learning_rate = learning_rate
        self.boundaries = tuple(boundaries)
        self.warmup_steps = warmup_steps

    def __call__(self, step):
        step = ops.cast(step, "float32")
        rate = ops.full_like(step, self.learning_rate)
        if self.warmup_steps:
            rate = rate * ops.minimum(1.0, step / self.warmup_steps)
        for boundary in self.boundaries:
            rate = ops.where(step >= boundary, STEP_FACTOR * rate, rate)
        return rate

    def get_config(self):
        return {
            "learning_rate": self.learning_rate,
            "boundaries": list(self.boundaries),
            "warmup_steps": self.warmup_steps,
        }


@keras.saving.register_keras_serializable("kerasvision")
class LinearDecay(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that stays for the first half of the steps, and then falls to 0 linearly.

    Of pix2pix's and CycleGAN's trainings (Zhu et al. 2017, section 4).

    Args:
        learning_rate: of the first half.
        steps: of the whole run.
    """

    def __init__(self, learning_rate, steps):
        super().__init__()
        self.learning_rate = learning_rate
        self.steps = steps

    def __call__(self, step):
        share = ops.cast(step, "float32") / self.steps
        return self.learning_rate * ops.clip(2.0 * (1.0 - share), 0.0, 1.0)

    def get_config(self):
        return {"learning_rate": self.learning_rate, "steps": self.steps}


def build_optimizer(
    optimizer, learning_rate, schedule, epochs, warmup_epochs, steps_per_epoch, weight_decay
):
    """An optimizer with its learning rate schedule.

    Args:
        optimizer: "sgd" (Nesterov momentum 0.9) or "adamw".
        learning_rate: the highest.
        schedule: how it falls behind the warmup: "cosine" (to 0), "step" (by 10 after a half
            and after three quarters of the epochs) or "constant".
        epochs: of the whole run.
        warmup_epochs: epochs in which the learning rate rises from 0.
        steps_per_epoch: optimizer steps in an epoch.
        weight_decay: of kernels, decoupled from the gradient; not of biases and normalisations.

    Raises:
        ValueError: an unknown optimizer or schedule.
    """
    warmup_steps = round(warmup_epochs * steps_per_epoch)
    if schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(
            learning_rate if warmup_steps == 0 else 0.0,
            decay_steps=max(1, epochs * steps_per_epoch - warmup_steps),
            warmup_target=learning_rate if warmup_steps else None,
            warmup_steps=warmup_steps,
        )
    elif schedule == "step":
        boundaries = [round(share * epochs * steps_per_epoch) for share in STEPS_AT]
        rate = StepDecay(learning_rate, boundaries, warmup_steps)
    elif schedule == "constant":
        rate = StepDecay(learning_rate, warmup_steps=warmup_steps)
    else:
        raise ValueError(f"schedule must be cosine, step or constant; received: {schedule}")
    if optimizer == "sgd":
        built = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=weight_decay)
    elif optimizer == "adamw":
        built = keras.optimizers.AdamW(rate, weight_decay=weight_decay)
    else:
        raise ValueError(f"optimizer must be sgd or adamw; received: {optimizer}")
    built.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return built
