"""From a plan to a loss, and where that is done."""

from __future__ import annotations

import hashlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from lcprune._checks import finite_or_inf, instance
from lcprune.errors import DivergenceError, InputError
from lcprune.fitness import Divisible, Precision, first_part, seeded
from lcprune.fitness import recalibrate as recalibrate_statistics
from lcprune.ranking import Plan
from lcprune.slimming import copied, slim

Recalibrate = Iterable[Any] | Callable[[nn.Module], None]
Measure = tuple[Recalibrate | None, Callable[[nn.Module], float]]
Train = Callable[[nn.Module, int], None]


class Stopwatch:
    """Seconds by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


class Evaluator:
    """Slims a model by a plan, prepares and recalibrates the result, and measures its fitness.

    PyTorch's global generators are seeded by (seed, plan) meanwhile and restored afterwards, so
    that a fitness that draws from it says the same of the same plan, whenever it is asked.
    """

    def __init__(
        self,
        model: nn.Module,
        fitness: Callable[[nn.Module], float],
        recalibrate: Recalibrate | None,
        prepare: Callable[[nn.Module], nn.Module] | None,
        seed: int,
        train: Train | None = None,
    ) -> None:
        self._model = model
        self._cast: nn.Module | None = None
        self._fitness = fitness
        self._prepare = prepare
        self._seed = seed
        self._train = train
        self._recalibrate = recalibrate
        self._by_share: dict[float, Measure] = {1.0: (recalibrate, fitness)}

    def loss(
        self, plan: Plan, digest: str, watch: Stopwatch, share: float = 1.0, steps: int = 0
    ) -> float:
        """The fitness of the slimmed model, lower is better; ``digest`` is the plan's.

        A ``share`` of less than 1 is of the images, of the recalibration's and of the fitness's,
        as far as they can be divided. One that is trained for ``steps`` is not recalibrated too;
        where the training diverges, the loss is ``inf``.
        """
        recalibration, fitness = self._parts(share)
        with watch.step("slim"):
            small = slim(self._model if steps else self._source(), plan)
        draw = hashlib.sha256(f"{self._seed} {digest}".encode()).digest()
        with seeded(int.from_bytes(draw[:7], "little")):
            if steps:
                if self._train is None:
                    raise InputError(
                        f"a candidate asks for {steps} steps of training without train="
                    )
                with watch.step("train"):
                    try:
                        self._train(small, steps)
                    except DivergenceError:  # a plan that can't be trained is not the best
                        return math.inf
            if self._prepare is not None:
                with watch.step("prepare"):
                    small = instance("what prepare returned", self._prepare(small), nn.Module)
            if recalibration is not None and not steps:
                with watch.step("recalibrate"):
                    if callable(recalibration):
                        recalibration(small)
                    else:
                        recalibrate_statistics(small, recalibration)
            with watch.step("fitness"):
                return finite_or_inf("fitness", fitness(small))

    def _parts(self, share: float) -> Measure:
        if share not in self._by_share:
            fitness, recalibration = self._fitness, self._recalibrate
            if isinstance(fitness, Divisible):
                fitness = fitness.part(share)
            if isinstance(recalibration, Sequence):
                recalibration = first_part(recalibration, share)
            self._by_share[share] = recalibration, fitness
        return self._by_share[share]

    def _source(self) -> nn.Module:
        """What candidates are cut from: rounding first and then cutting gives the same numbers."""
        if self._cast is None:
            owner: Any = getattr(self._prepare, "__self__", None)
            rounds = type(owner) is Precision and self._prepare == owner.apply
            if not rounds or owner.torch_dtype == torch.float32 or _shares_buffers(self._model):
                return self._model
            # The layout is left to each candidate: a part of a tensor may be laid out otherwise.
            self._cast = Precision(owner.dtype).apply(copied(self._model, {}))
        return self._cast


def _shares_buffers(model: nn.Module) -> bool:
    """Whether modules have a buffer in common, which rounding would make two."""
    names = sum(1 for _ in model.named_buffers(remove_duplicate=False))
    return names != sum(1 for _ in model.buffers())


@dataclass(frozen=True, eq=False)
class Work:
    """What evaluating a plan takes: the network, how a candidate is prepared, and its fitness.

    ``train`` is how it is trained before, where that is asked for.

    Executors that leave this process send it with ``pickle``.
    """

    model: nn.Module
    fitness: Callable[[nn.Module], float]
    recalibrate: Recalibrate | None
    prepare: Callable[[nn.Module], nn.Module] | None
    seed: int
    train: Train | None = None

    def evaluator(self) -> Evaluator:
        return Evaluator(
            self.model, self.fitness, self.recalibrate, self.prepare, self.seed, self.train
        )


@dataclass(frozen=True)
class Job:
    """A plan to evaluate for trial ``number``, after some steps, on a share of the images.

    ``digest`` is the plan's.
    """

    number: int
    plan: Plan
    digest: str
    share: float = 1.0
    steps: int = 0


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
        return _OneAfterTheOther(work.evaluator())


class _OneAfterTheOther:
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
    loss = evaluator.loss(job.plan, job.digest, watch, job.share, job.steps)
    return Evaluation(job.number, loss, watch.seconds)
