"""The learning rate, by a short test over a range."""

from __future__ import annotations

import copy
import itertools
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from lcprune._checks import integer, number, told_in_one_line
from lcprune.errors import InputError
from lcprune.fitness import seeded
from lcprune.training._config import MOST, TrainingConfig
from lcprune.training._distributed import Ranks, device_named, pair_of
from lcprune.training._hooks import FACTOR
from lcprune.training._loss import Mixup
from lcprune.training._step import (
    Batches,
    Step,
    check_job,
    epoch_of,
    lay_out,
    on_device_of,
    sgd,
)

SHARE = 1 / 3
"""The suggestion as a share of the highest rate that did no harm in the test.

A schedule stays near its peak for many steps, the test at each rate for one.
"""

TOLERANCE = 0.05
"""A climb of the loss that does no harm, as a share of the blind loss."""

_REACH = 3
_ENOUGH = 5


@dataclass(frozen=True)
class LearningRateRange:
    """The curve of a range test and the peak rate that it suggests.

    ``losses[i]`` is the loss of the i-th batch before the step at ``rates[i]``. Both end early
    where the loss went far above its start.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggested: float


def find_learning_rate(
    model: nn.Module,
    loader: Batches,
    *,
    teacher: nn.Module | None = None,
    config: TrainingConfig | None = None,
    low: float = 1e-4,
    high: float = 10.0,
    steps: int = 100,
    device: str = "cpu",
) -> LearningRateRange:
    """Find a ``learning_rate`` for ``finetune`` with the same loader, teacher and configuration.

    A copy of ``model`` is trained for ``steps`` steps while the rate rises from ``low`` to
    ``high`` by the same factor each step (Smith, "Cyclical learning rates for training neural
    networks", WACV 2017, section 3.3). The suggestion is a third of the highest rate at which the
    loss, a running median, is still within the batches' noise of its minimum: unlike the
    steepest descent that is defined for a network too that has little left to learn, and it does
    not move with the scale of the loss. The answer depends on the arguments and the
    configuration's seed alone; the model and PyTorch's global generators are left as they were.

    ``InputError`` where the loss climbs from ``low`` on, or there is no batch.
    """
    check_job(model, loader, teacher=teacher, config=config)
    number("low", low, more_than=0)
    number("high", high, most=MOST, more_than=0)
    integer("steps", steps, 1)
    if not low < high or steps < 2 * _REACH:
        raise InputError(
            f"range test: expected 0 < low < high and at least {2 * _REACH} steps, "
            f"got {low:g}, {high:g} and {steps}"
        )
    config = config or TrainingConfig()
    ranks = Ranks(device=device_named(device))
    with told_in_one_line("the model can't be copied"):
        copied = copy.deepcopy(model)
    copied.to(ranks.device).train()
    lay_out(copied, config)
    rates: list[float] = []
    losses: list[float] = []
    with seeded(config.seed):
        step = Step(copied, sgd(copied, config), config, teacher, ranks)
        for i, (inputs, targets, mix) in enumerate(
            itertools.islice(_endless(on_device_of(loader, ranks.device), config), steps)
        ):
            rate = low * (high / low) ** (i / (steps - 1))
            loss = float(step(inputs, targets, len(targets), mix, rate, i))
            if not math.isfinite(loss):
                break
            rates.append(rate)
            losses.append(loss)
            limit = FACTOR * max(losses[0], step.blind_loss)
            if all(value > limit for value in losses[-_ENOUGH:]):
                break
    return LearningRateRange(tuple(rates), tuple(losses), suggest(rates, losses, step.blind_loss))


def suggest(rates: Sequence[float], losses: Sequence[float], blind_loss: float) -> float:
    """The peak rate after a curve of rising rates; ``InputError`` where the lowest did harm.

    ``blind_loss``, that of a network which answers the same to everything, is the unit in which a
    climb is too much.
    """
    smooth = [
        statistics.median(losses[max(0, i - _REACH) : i + _REACH + 1]) for i in range(len(losses))
    ]
    if smooth:
        noise = statistics.median(abs(a - b) for a, b in zip(losses, smooth, strict=True))
        least = min(smooth) + max(noise, TOLERANCE * blind_loss)
        harmless = [i for i, loss in enumerate(smooth) if loss <= least]
        if harmless[-1] > 0:
            return SHARE * rates[harmless[-1]]
    raise InputError("range test: the loss climbs from the lowest rate on, begin with a lower one")


def _endless(loader: Batches, config: TrainingConfig) -> Iterator[tuple[Tensor, Tensor, Mixup]]:
    for epoch in itertools.count():
        mix = Mixup(config.mixup, config.seed, epoch)
        batch = None
        for batch in map(pair_of, epoch_of(loader, epoch)):
            yield *batch, mix
        if batch is None:
            raise InputError("the training data hold no batch")
