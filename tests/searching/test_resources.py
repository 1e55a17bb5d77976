"""Searches whose budget bounds a maximum over operators, and not only a sum over them."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from cost.replay import replayed
from lcprune.cost import Budget, cost_of
from lcprune.criteria import saliency
from lcprune.ranking import Ranker
from lcprune.searching import search
from lcprune.searching._auto import Curves, Moves, allocate
from lcprune.slimming import slim
from lcprune.tracing import trace

WIDTHS = (16, 16, 3, 16, 16)
"""The first two layers have the peak together, and so have the last two."""

with torch.random.fork_rng(devices=[]):
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, own in itertools.pairwise([3, *WIDTHS]):
        layers += [nn.Conv2d(before, own, 3, padding=1), nn.ReLU(inplace=True)]
    MODEL = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTHS[-1], 4))
EXAMPLE = torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))
GRAPH = trace(MODEL.eval(), EXAMPLE)
SALIENCY = saliency(MODEL, GRAPH, "l2")

BUDGETS = [Budget(activations=0.6), Budget(activations=0.6, weights=0.7)]


def fitness(small: nn.Module) -> float:
    """How far the outputs are from the original's."""
    with torch.no_grad():
        return float((small.eval()(EXAMPLE) - MODEL(EXAMPLE)).square().mean())


@pytest.mark.parametrize("budget", BUDGETS, ids=lambda budget: "+".join(budget.asked))
@pytest.mark.parametrize("strategy", ["auto", "evolution", "random"])
def test_every_plan_is_within_the_peak_and_as_large_as_fits(strategy: str, budget: Budget) -> None:
    result = search(MODEL, GRAPH, SALIENCY, budget, fitness=fitness, strategy=strategy, trials=30)
    cost = cost_of(GRAPH, budget.asked)
    limits = budget.limits(cost.evaluate())
    plans = [trial for trial in result.history if trial.final]
    assert len({trial.digest for trial in plans}) > 5
    for trial in plans:
        assert all(trial.cost[name] <= limit for name, limit in limits.items())
        for group in np.flatnonzero(~trial.keep):
            more = trial.keep.copy()
            more[group] = True
            now = cost.evaluate(more)
            assert any(now[name] > limit for name, limit in limits.items())
    assert result.loss == min(trial.loss for trial in plans)
    peak, _ = replayed(slim(MODEL, result.plan), EXAMPLE)
    assert result.plan.cost["activations"] == peak


@pytest.mark.parametrize("budget", BUDGETS, ids=lambda budget: "+".join(budget.asked))
def test_an_allocation_fits_where_several_families_have_the_peak(budget: Budget) -> None:
    space = Ranker(GRAPH, SALIENCY, budget).widths
    moves = Moves(space)
    near = moves.widths(moves.uniform())
    whole = space.costs(space.full)
    for family in range(len(WIDTHS)):
        narrower = space.full.copy()
        narrower[family] -= 2
        assert space.costs(narrower)[-1] == whole[-1]
    allocated = allocate(moves, near, Curves.around(near, (), space.full))
    assert space.fit(moves.widths(allocated))
    if len(whole) == 1:  # what was narrowed and has no part in the peak comes back
        assert moves.widths(moves.filled(allocated))[2] == WIDTHS[2]
