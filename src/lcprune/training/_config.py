"""How a network is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from lcprune._checks import choice, instance, integer, number
from lcprune.fitness import Precision

Schedule = Literal["cosine", "one-cycle"]

MOST = 1e30
"""No rate, temperature or the like comes near this; soon above, float32 overflows."""

WARM_UP = 0.15
"""Share of a one-cycle run in which the learning rate rises."""


@dataclass(frozen=True)
class TrainingConfig:
    """Gradient descent with Nesterov momentum, and distillation where there is a teacher.

    ``learning_rate`` is the peak of the schedule, which falls to zero as half a cosine
    (``cosine``: from the first step; ``one-cycle``: after a linear rise). ``weight_decay`` is for
    weights of two and more dimensions, not for biases and norms. With a teacher the loss is
    (1 - ``alpha``) times the cross-entropy plus ``alpha`` T^2 times the divergence of the outputs
    at ``temperature`` T from the teacher's (Hinton et al., 2015, section 2). ``clip`` bounds the
    norm of the gradient.

    ``label_smoothing`` is the share of a target that is spread over all classes (Szegedy et al.,
    CVPR 2016, section 7). ``mixup`` a trains on mixed pairs of samples, shares from Beta(a, a)
    (Zhang et al., ICLR 2018); 0 turns it off. ``ema`` is the decay of a moving average over steps
    of weights and BatchNorm statistics, min(``ema``, (1 + t) / (10 + t)) after t steps; the
    average is what is validated and what the model ends with.

    ``dtype`` bfloat16 runs convolutions and matrix products in bfloat16 and keeps weights, norms
    and loss in float32; ``channels_last`` is the layout within the training, mostly
    the faster one on a CPU; ``teacher_precision`` is what the teacher's copy runs in.
    ``InputError`` for a value out of range.
    """

    epochs: int = 5
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Schedule = "one-cycle"
    temperature: float = 4.0
    alpha: float = 0.7
    clip: float | None = None
    label_smoothing: float = 0.0
    mixup: float = 0.0
    ema: float | None = None
    seed: int = 0
    dtype: str = "float32"
    channels_last: bool = True
    teacher_precision: Precision = field(default_factory=Precision)

    def __post_init__(self) -> None:
        integer("epochs", self.epochs, 0)
        integer("seed", self.seed, 0)
        for name, least, most in (
            ("weight_decay", 0, MOST),
            ("alpha", 0, 1),
            ("mixup", 0, MOST),
        ):
            number(name, getattr(self, name), least, most)
        for name in ("learning_rate", "temperature"):
            number(name, getattr(self, name), most=MOST, more_than=0)
        number("momentum", self.momentum, more_than=0, less_than=1)
        number("label_smoothing", self.label_smoothing, 0, less_than=1)
        if self.clip is not None:
            number("clip", self.clip, most=MOST, more_than=0)
        if self.ema is not None:
            number("ema", self.ema, 0, less_than=1)
        choice("schedule", self.schedule, ("cosine", "one-cycle"))
        choice("dtype", self.dtype, ("float32", "bfloat16"))
        instance("channels_last", self.channels_last, bool, "True or False")
        instance("teacher_precision", self.teacher_precision, Precision, "a Precision")

    def learning_rate_at(self, progress: float) -> float:
        """The learning rate when ``progress``, 0..1, of all steps are done."""
        warm_up = WARM_UP if self.schedule == "one-cycle" else 0.0
        if progress < warm_up:
            return self.learning_rate * progress / warm_up
        fall = (progress - warm_up) / (1 - warm_up)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * fall))
