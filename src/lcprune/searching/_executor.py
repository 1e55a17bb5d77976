"""Where candidates are evaluated."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from lcprune.ranking import Plan
from lcprune.searching._evaluate import Evaluator, Recalibrate, Stopwatch


@dataclass(frozen=True, eq=False)
class Work:
    """What evaluating a plan takes: the network, how a candidate is prepared, and its fitness.

    Executors that leave this process send it with ``pickle``.
    """

    model: nn.Module
    fitness: Callable[[nn.Module], float]
    recalibrate: Recalibrate | None
    prepare: Callable[[nn.Module], nn.Module] | None
    seed: int

    def evaluator(self) -> Evaluator:
        return Evaluator(self.model, self.fitness, self.recalibrate, self.prepare, self.seed)


@dataclass(frozen=True)
class Job:
    """A plan to evaluate for trial ``number``, on a share of the images.

    ``digest`` is the plan's.
    """

    number: int
    plan: Plan
    digest: str
    share: float = 1.0


@dataclass(frozen=True)
class Evaluation:
    """The loss of trial ``number``, and seconds by step."""

    number: int
    loss: float
    timing: Mapping[str, float]


class Workers(Protocol):
    """What evaluates jobs until it is closed."""

    def submit(self, job: Job) -> None:
        """Take a job; there are never more than ``capacity`` unfinished ones."""

    def next(self) -> Evaluation:
        """Wait for the next job that finishes, in whatever order they do.

        Raises what the fitness raised, or ``RunError`` where a job can't be finished.
        """

    def close(self) -> None:
        """End all processes and drop what is unfinished."""


class Executor(Protocol):
    """The description of workers, from which a search starts them."""

    @property
    def capacity(self) -> int:
        """How many candidates are evaluated at once."""

    @property
    def environment(self) -> Mapping[str, Any]:
        """What losses may depend on in their last digits, as JSON; a resume warns of a change."""

    def start(self, work: Work) -> Workers: ...


@dataclass(frozen=True)
class InProcess:
    """One candidate after the other, in this process."""

    @property
    def capacity(self) -> int:
        return 1

    @property
    def environment(self) -> Mapping[str, Any]:
        return {}

    def start(self, work: Work) -> Workers:
        return _Here(work.evaluator())


class _Here:
    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._jobs: deque[Job] = deque()

    def submit(self, job: Job) -> None:
        self._jobs.append(job)

    def next(self) -> Evaluation:
        return evaluate(self._evaluator, self._jobs.popleft())

    def close(self) -> None:
        self._jobs.clear()


def evaluate(evaluator: Evaluator, job: Job) -> Evaluation:
    """Do a job."""
    watch = Stopwatch()
    loss = evaluator.loss(job.plan, job.digest, watch, job.share)
    return Evaluation(job.number, loss, watch.seconds)
