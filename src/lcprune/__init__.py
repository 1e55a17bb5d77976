"""Shrink a convolutional network to a resource budget with layer-compensated pruning.

    import lcprune as lp

    graph = lp.repair(model, lp.trace(model, example_input), example_input)
    budget = lp.Budget(macs=0.5)
    saliency = lp.saliency(model, graph, "l2")
    result = lp.search(model, graph, saliency, budget, fitness=fitness, recalibrate=batches)
    small = lp.slim(model, result.plan)
    error = lp.verify(model, small, result.plan, example_input)

Source: Chin, Zhang, Marculescu, "Layer-compensated pruning for resource-constrained convolutional
neural networks", 2018, arXiv 1810.00518.
"""

from __future__ import annotations

from lcprune._lazy import lazily

TYPE_CHECKING = False  # to type checkers it is true; `typing` itself takes milliseconds to import
if TYPE_CHECKING:
    from lcprune.artifact import load, save
    from lcprune.cost import Budget, CostModel, Energy, fit_energy
    from lcprune.criteria import Saliency, saliency
    from lcprune.engines import export, measure
    from lcprune.errors import (
        BudgetError,
        DataError,
        DivergenceError,
        InputError,
        LcpruneError,
        LcpruneWarning,
        ModelError,
        RunError,
        VerificationError,
        WeightsError,
    )
    from lcprune.fitness import recalibrate, reconstruct
    from lcprune.graph import ChannelGraph
    from lcprune.ranking import Plan, compose, rank
    from lcprune.searching import SearchResult, Trial, search
    from lcprune.slimming import repair, slim, verify
    from lcprune.tracing import ChannelPad, Inputs, bake, trace
    from lcprune.training import TrainingConfig, finetune

__all__ = [
    "Budget",
    "BudgetError",
    "ChannelGraph",
    "ChannelPad",
    "CostModel",
    "DataError",
    "DivergenceError",
    "Energy",
    "InputError",
    "Inputs",
    "LcpruneError",
    "LcpruneWarning",
    "ModelError",
    "Plan",
    "RunError",
    "Saliency",
    "SearchResult",
    "TrainingConfig",
    "Trial",
    "VerificationError",
    "WeightsError",
    "bake",
    "compose",
    "export",
    "finetune",
    "fit_energy",
    "load",
    "measure",
    "rank",
    "recalibrate",
    "reconstruct",
    "repair",
    "saliency",
    "save",
    "search",
    "slim",
    "trace",
    "verify",
]

# PyTorch takes a second to import: it is, when something that needs it is asked for.
_HOMES = {
    ".artifact": "load save",
    ".cost": "Budget CostModel Energy fit_energy",
    ".criteria": "Saliency saliency",
    ".engines": "export measure",
    ".errors": "BudgetError DataError DivergenceError InputError LcpruneError LcpruneWarning"
    " ModelError RunError VerificationError WeightsError",
    ".fitness": "recalibrate reconstruct",
    ".graph": "ChannelGraph",
    ".ranking": "Plan compose rank",
    ".searching": "SearchResult Trial search",
    ".slimming": "repair slim verify",
    ".tracing": "ChannelPad Inputs bake trace",
    ".training": "TrainingConfig finetune",
}
__getattr__, __dir__ = lazily(__name__, __all__, _HOMES)
