"""The second stage of a search: its finalists, each trained for a few steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

from torch import Tensor, nn

from lcprune.artifact import FinalistOutcome
from lcprune.data import TrainingBatches
from lcprune.fitness import CrossEntropy, Precision, recalibrate
from lcprune.ranking import Plan
from lcprune.runs._findings import Findings
from lcprune.runs._images import first_images, judged_on, recalibration_batches
from lcprune.runs._options import PruneOptions
from lcprune.runs._prepare import Inputs
from lcprune.runs._reporter import Reporter
from lcprune.runs._train import batches_of, finetuning_config, training_precision, with_found_rate
from lcprune.searching import SearchResult
from lcprune.slimming import slim
from lcprune.training import TrainingConfig, try_plans

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

    ``base`` is the base network on the CPU, ``teacher`` a copy of it on the run's device. A loss
    is kept as soon as it is known. Of several processes all choose alike, and the main one trains
    alone, as it searches.
    """

    def __init__(
        self,
        config: PruneOptions,
        inputs: Inputs,
        base: nn.Module,
        teacher: nn.Module,
        precision: Precision,
        findings: Findings,
        reporter: Reporter,
    ) -> None:
        self._config = config
        self._inputs = inputs
        self._base = base
        self._teacher = teacher if config.distill else None
        self._precision = precision
        self._findings = findings
        self._reporter = reporter

    def choose(self, result: SearchResult) -> Chosen:
        """The finalist with the lowest loss; the search's best where only one was asked for."""
        if self._config.finalists == 1:
            return Chosen(result.plan, None)
        plans = result.finalists
        losses: Sequence[float | None] = [None]
        if len(plans) == 1:
            self._reporter.stage("finalists: no other plan of the search differs from its best")
        else:
            losses = self._losses(plans)
        order = [math.inf if loss is None else loss for loss in losses]
        best = order.index(min(order))
        if len(plans) > 1:
            self._reporter.stage(
                f"finalists: trained {self._config.finalist_steps} steps each, losses "
                f"{', '.join(map(_told, losses))}, plan {best + 1} of {len(plans)} is kept"
            )
        outcomes = (
            FinalistOutcome(result.loss_of(plan), loss)
            for plan, loss in zip(plans, losses, strict=True)
        )
        return Chosen(plans[best], tuple(outcomes))

    def _losses(self, plans: Sequence[Plan]) -> list[float | None]:
        """Cross-entropy of each on fresh images after its training; none for not finite."""
        batches = batches_of(self._inputs.not_fresh, self._inputs.data, self._config)
        training = self._training(plans[0], batches)
        losses: list[float | None] = []
        with self._reporter.progress("finalists", len(plans)) as advance:
            for plan in plans:
                tried = partial(self._tried, plan, batches, training)
                losses.append(self._findings.once(f"finalist {plan.digest}", tried))
                advance(len(losses), f"loss {_told(losses[-1])}")
        return losses

    def _tried(
        self, plan: Plan, batches: TrainingBatches, training: TrainingConfig
    ) -> float | None:
        [loss] = try_plans(
            [plan],
            self._cut,
            batches,
            steps=self._config.finalist_steps,
            judge=self._judge,
            teacher=self._teacher,
            config=training,
            device=str(self._inputs.device),
        )
        return loss if math.isfinite(loss) else None  # JSON has no other numbers

    def _training(self, best: Plan, batches: TrainingBatches) -> TrainingConfig:
        """As in fine-tuning; what has to be measured is measured on the best plan's network."""
        config, inputs, findings = self._config, self._inputs, self._findings
        precision = training_precision(
            config,
            slim(self._base, best).to(inputs.device),
            partial(first_images, inputs, config.batch_size),
            findings,
        )
        training = with_found_rate(
            finetuning_config(config, 1, precision, self._precision),
            config,
            "finalists",
            partial(self._cut, best),
            batches,
            teacher=self._teacher,
            findings=findings,
            device=inputs.device,
            reporter=self._reporter,
        )
        return replace(training, learning_rate=RATE * training.learning_rate)

    def _cut(self, plan: Plan) -> nn.Module:
        small = slim(self._base, plan).to(self._inputs.device)
        recalibrate(small, self._recalibration)
        return small

    def _judge(self, small: nn.Module) -> float:
        return self._fitness(self._precision.apply(small))

    @cached_property
    def _recalibration(self) -> list[Tensor]:
        return recalibration_batches(self._inputs)

    @cached_property
    def _fitness(self) -> CrossEntropy:
        """As candidates are judged, on other images."""
        precision = self._precision
        images, labels = judged_on(self._inputs, self._inputs.fresh, precision)
        return CrossEntropy(images, labels, precision.batch, precision)


def _told(loss: float | None) -> str:
    return "not finite" if loss is None else f"{loss:.4f}"
