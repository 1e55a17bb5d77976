"""The second stage of a search: its finalists, each trained for a few steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

from torch import Tensor, nn

from lcprune.data import TrainingBatches
from lcprune.fitness import CrossEntropy, Precision, recalibrate
from lcprune.ranking import Plan
from lcprune.runs._choices import Choices
from lcprune.runs._options import PruneOptions
from lcprune.runs._problem import Problem
from lcprune.runs._run import Run
from lcprune.runs._summary import FinalistOutcome
from lcprune.runs._train import batches_of, finetuning_config, training_precision, with_found_rate
from lcprune.searching import SearchResult
from lcprune.slimming import slim
from lcprune.training import ShortTraining, TrainingConfig, try_plans

RATE = 0.2
"""The peak of the learning rate as a share of fine-tuning's.

At its full height it first undoes what is left of the network, which a training of epochs makes up
for and one of a few steps does not.
"""


@dataclass(frozen=True)
class Chosen:
    """The plan to go on with, and those that it was chosen from; none where nothing was."""

    plan: Plan
    finalists: tuple[FinalistOutcome, ...] | None


class Finals:
    """Chooses among a search's finalists by what each is worth after a short training.

    A loss is kept as soon as it is known.
    """

    def __init__(
        self,
        run: Run,
        options: PruneOptions,
        problem: Problem,
        precision: Precision,
        choices: Choices,
    ) -> None:
        self._run = run
        self._options = options
        self._problem = problem
        self._precision = precision
        self._choices = choices
        self._teacher = problem.model if options.distill else None

    def choose(self, result: SearchResult) -> Chosen:
        """The finalist with the lowest loss; the search's best where only one was asked for."""
        if self._options.finalists == 1:
            return Chosen(result.plan, None)
        plans = result.finalists
        losses: Sequence[float | None] = [None]
        if len(plans) == 1:
            self._run.reporter.stage("finalists: no other plan of the search differs from its best")
        else:
            losses = self._losses(plans)
        order = [math.inf if loss is None else loss for loss in losses]
        best = order.index(min(order))
        if len(plans) > 1:
            self._run.reporter.stage(
                f"finalists: trained {self._options.finalist_steps} steps each, losses "
                f"{', '.join(map(_in_words, losses))}, plan {best + 1} of {len(plans)} is kept"
            )
        outcomes = (
            FinalistOutcome(result.loss_of(plan), loss)
            for plan, loss in zip(plans, losses, strict=True)
        )
        return Chosen(plans[best], tuple(outcomes))

    def _losses(self, plans: Sequence[Plan]) -> list[float | None]:
        """Cross-entropy of each on fresh images after its training; none for not finite."""
        problem = self._problem
        batches = batches_of(problem.finalist_training, problem.data, self._options)
        training = self._training("finalists", partial(self._cut, plans[0]), batches)
        losses: list[float | None] = []
        with self._run.reporter.progress("finalists", len(plans)) as advance:
            for plan in plans:
                tried = partial(self._tried, plan, batches, training)
                losses.append(self._run.once(f"finalist {plan.digest}", float | None, tried))
                advance(len(losses), f"loss {_in_words(losses[-1])}")
        return losses

    def _tried(
        self, plan: Plan, batches: TrainingBatches, training: TrainingConfig
    ) -> float | None:
        [loss] = try_plans(
            [plan],
            self._cut,
            batches,
            steps=self._options.finalist_steps,
            judge=self._judge,
            teacher=self._teacher,
            config=training,
            device=str(self._problem.device),
        )
        return loss if math.isfinite(loss) else None  # JSON has no other numbers

    def _training(
        self, name: str, cut: Callable[[], nn.Module], batches: TrainingBatches
    ) -> TrainingConfig:
        """As in fine-tuning, at a part of its rate; what is measured for it is so on a ``cut``."""
        run, options, problem = self._run, self._options, self._problem
        first = partial(problem.first_images, options.batch_size)
        precision = training_precision(run, options, cut(), first, self._choices)
        training = with_found_rate(
            run,
            options,
            name,
            finetuning_config(options, 1, precision, self._precision),
            cut,
            batches,
            problem.device,
            self._teacher,
        )
        return replace(training, learning_rate=RATE * training.learning_rate)

    def of_candidates(self) -> ShortTraining:
        """How a search trains candidates: as finalists are, on images that none is judged on."""
        options, problem = self._options, self._problem
        batches = batches_of(problem.search_training, problem.data, options)
        ranker = problem.ranker(options, problem.budget)
        first = ranker.plan(ranker.compensation.identity())
        training = self._training("search", partial(self._cut, first), batches)
        device = str(problem.device)
        return ShortTraining(batches, self._recalibration, self._teacher, training, device)

    def _cut(self, plan: Plan) -> nn.Module:
        small = slim(self._problem.model, plan)
        recalibrate(small, self._recalibration)
        return small

    def _judge(self, small: nn.Module) -> float:
        return self._fitness(self._precision.apply(small))

    @cached_property
    def _recalibration(self) -> list[Tensor]:
        return self._problem.recalibration_batches()

    @cached_property
    def _fitness(self) -> CrossEntropy:
        """As candidates are judged, on other images."""
        precision = self._precision
        images, labels = self._problem.in_precision(self._problem.fresh, precision)
        return CrossEntropy(images, labels, precision.batch, precision)


def _in_words(loss: float | None) -> str:
    return "not finite" if loss is None else f"{loss:.4f}"
