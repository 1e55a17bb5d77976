"""What plans are worth after a short training."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lcprune._checks import finite_or_inf, function, instance, integer, is_iterable, refused
from lcprune.errors import DivergenceError, InputError
from lcprune.fitness import recalibrate
from lcprune.ranking import Plan
from lcprune.training._config import TrainingConfig
from lcprune.training._loop import finetune
from lcprune.training._step import Batches, check_job, epoch_of, on_device_of


@dataclass(frozen=True, eq=False)
class ShortTraining:
    """Trains a network that was just cut for some steps, in place: the ``train`` of a search.

    Its statistics are taken from the batches of ``recalibration``, then it is trained on the first
    batches of ``loader`` with the whole of ``config``'s schedule within them, on ``device``. Every
    network sees the same batches. Raises ``DivergenceError`` where a loss is not finite.

    Example:
        train = ShortTraining(train_loader, recalibration, teacher=model)
        result = search(..., train=train, fitness_steps=50)
    """

    loader: Batches
    recalibration: Sequence[Tensor]
    teacher: nn.Module | None = None
    config: TrainingConfig | None = None
    device: str = "cpu"

    def __call__(self, model: nn.Module, steps: int) -> None:
        recalibrate(model, self.recalibration)
        first, config = _first_batches(self.loader, steps, self.config)
        finetune(model, first, teacher=self.teacher, config=config, device=self.device)


def try_plans(
    plans: Iterable[Plan],
    cut: Callable[[Plan], nn.Module],
    loader: Batches,
    *,
    steps: int,
    judge: Callable[[nn.Module], float],
    teacher: nn.Module | None = None,
    config: TrainingConfig | None = None,
    device: str = "cpu",
) -> list[float]:
    """Train each plan's network for ``steps`` steps; what ``judge`` says of it then.

    A search measures what is left of a network before it is trained, which is not quite what
    counts. ``cut`` makes a plan's network, with its statistics re-estimated; a copy of that is
    trained. All are trained on the first ``steps`` batches of ``loader`` (of as many epochs as
    that takes), with the whole of ``config``'s schedule within them, whatever its ``epochs``.
    ``judge`` is given the trained network, in eval mode, and may do with it what it likes; lower
    is better; what is not finite counts as ``inf``, as does a training that diverges.

    The loss of a plan depends on the plan and the other arguments alone, not on the other plans
    or their order. ``InputError`` for fewer than one step and where there is no batch.

    Example:
        losses = try_plans(
            result.finalists, cut, train_loader, steps=150, judge=fitness, teacher=model
        )
        plan = result.finalists[losses.index(min(losses))]
    """
    if not is_iterable(plans):
        raise refused("plans", plans, "several Plan")
    for name, needed in (("cut", cut), ("judge", judge)):
        function(name, needed)
    integer("steps", steps, 1)
    if config is not None:
        instance("config", config, TrainingConfig, "a TrainingConfig")
    first, config = _first_batches(loader, steps, config)
    losses = []
    for plan in plans:
        instance("a plan", plan, Plan, "a Plan")
        small = copy.deepcopy(cut(plan))
        check_job(small, loader, teacher=teacher, config=config)
        try:
            finetune(small, first, teacher=teacher, config=config, device=device)
            loss = finite_or_inf("judge", judge(small))
        except DivergenceError:  # a plan that can't be trained is not the best
            loss = math.inf
        losses.append(loss)
    return losses


def _first_batches(
    loader: Batches, steps: int, config: TrainingConfig | None
) -> tuple[_FirstBatches, TrainingConfig]:
    """As an epoch, and the training of one."""
    return _FirstBatches(loader, steps), replace(config or TrainingConfig(), epochs=1)


class _FirstBatches:
    """The first ``count`` batches of a loader as an epoch; they may be those of several.

    ``InputError`` where an epoch of the loader holds none.
    """

    def __init__(self, loader: Batches, count: int) -> None:
        self._loader = loader
        self._count = count

    def on_device(self, device: torch.device) -> _FirstBatches:
        """The same batches there."""
        return _FirstBatches(on_device_of(self._loader, device), self._count)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        left = self._count
        for epoch in itertools.count():
            before = left
            for batch in itertools.islice(epoch_of(self._loader, epoch), left):
                left -= 1
                yield batch
            if left == 0:
                return
            if left == before:
                raise InputError("the training data hold no batch")
