"""From what the stages found out to the summary."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lcprune.artifact import BudgetOutcome, Latency, Summary, versions
from lcprune.cost import CostModel
from lcprune.fitness import Precision
from lcprune.runs._finalists import Chosen
from lcprune.runs._measure import peak_rss_mb
from lcprune.runs._options import PruneOptions
from lcprune.runs._prepare import Inputs
from lcprune.searching import SearchResult
from lcprune.training import TrainingResult


@dataclass(frozen=True)
class Figures:
    """What the stages of a run found out; accuracies in percent."""

    top1_before: float
    top1_pruned: float
    top1_after: float
    verify_error: float
    result: SearchResult
    chosen: Chosen
    precision: Precision
    trained: TrainingResult
    base_weights_sha256: str


def summarise(
    config: PruneOptions,
    inputs: Inputs,
    figures: Figures,
    latency_before: Latency,
    latency_after: Latency,
) -> Summary:
    """The summary of a run that has just ended in this process."""
    bounded = ("macs", "params", *inputs.budget.asked)
    before = CostModel(inputs.graph, [*dict.fromkeys(bounded)]).evaluate()
    after = figures.chosen.plan.cost
    limits = inputs.budget.limits(before)
    return Summary(
        model=config.model,
        data=config.data,
        seed=config.seed,
        budget={
            name: BudgetOutcome(
                asked=asked,
                limit=limits[name],
                before=before[name],
                after=after[name],
                ratio=after[name] / before[name],
            )
            for name, asked in inputs.budget.asked.items()
        },
        criterion=config.criterion,
        compensation=config.compensation,
        strategy=config.strategy,
        macs_before=before["macs"],
        macs_after=after["macs"],
        params_before=before["params"],
        params_after=after["params"],
        top1_before=figures.top1_before,
        top1_pruned=figures.top1_pruned,
        top1_after=figures.top1_after,
        verify_error=figures.verify_error,
        loss_search_best=figures.result.loss,
        trials=figures.result.trials,
        search_seconds=figures.result.seconds,
        finetune_epochs=config.finetune_epochs,
        finetune_seconds=figures.trained.seconds,
        latency_ms_before=latency_before,
        latency_ms_after=latency_after,
        dtype_search=figures.precision.dtype,
        threads=torch.get_num_threads(),
        device=str(inputs.device),
        peak_rss_mb=peak_rss_mb(),
        base_weights_sha256=figures.base_weights_sha256,
        versions=versions(),
        finalists=figures.chosen.finalists,
    )
