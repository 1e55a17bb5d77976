"""Ranking of networks as they are traced."""

import numpy as np
import pytest
import torch

from lcprune.cost import Budget, CostModel
from lcprune.criteria import saliency
from lcprune.models import build
from lcprune.ranking import PlanBuilder, Ranker, rank
from lcprune.slimming import slim, verify
from lcprune.tracing import trace
from networks import random_network
from oracle import plan_of, random_keep, randomise


@pytest.mark.parametrize("seed", range(8))
def test_a_plan_is_put_together_as_the_graph_says(seed: int) -> None:
    graph = trace(*random_network(seed))
    keep = random_keep(graph, np.random.default_rng(seed))
    plan, expected = PlanBuilder(graph).plan(keep), plan_of(graph, keep)
    assert plan.kept == expected.kept
    assert set(plan.attributes) == set(expected.attributes)


@pytest.mark.parametrize("name", ["cifar_resnet20", "cifar_mobilenet_v2"])
@pytest.mark.parametrize("asked", [0.3, 0.5, 0.8])
def test_a_real_network_lands_just_below_its_budget(name: str, asked: float) -> None:
    model = randomise(build(name, classes=10, input_shape=(3, 32, 32)), seed=0)
    example = torch.randn(1, 3, 32, 32)
    graph = trace(model, example)
    ranker = Ranker(graph, saliency(model, graph), Budget(macs=asked), compensation="additive:rank")
    cost = CostModel(graph)
    limit = ranker.limits["macs"]
    generator = np.random.default_rng(0)
    for latent in (ranker.compensation.identity(), ranker.compensation.draw(generator)):
        keep = ranker.keep(latent)
        now = cost.evaluate(keep)["macs"]
        # Maximal: the cheapest group that is gone would not fit any more.
        missing = []
        for group in np.flatnonzero(~keep):
            keep[group] = True
            missing.append(cost.evaluate(keep)["macs"])
            keep[group] = False
        assert now <= limit < min(missing)
        # No group of these networks is more than 0.5 % of the whole.
        assert now >= limit - 0.005 * ranker.before["macs"]


def test_a_ranked_network_is_verified() -> None:
    model = randomise(build("cifar_resnet20", classes=10, input_shape=(3, 32, 32)), seed=1)
    example = torch.randn(1, 3, 32, 32)
    graph = trace(model, example)
    plan = rank(graph, saliency(model, graph, "bn_scale", reduction="max"), Budget(params=0.4))
    assert verify(model, slim(model, plan), plan, example) <= 1e-9
