"""The uniform control gives every family the same width."""

from __future__ import annotations

import numpy as np
import torch

from lcprune.cost import Budget, CostModel
from lcprune.criteria import saliency
from lcprune.models import build
from lcprune.ranking import rank
from lcprune.tracing import trace


def test_every_family_keeps_the_same_share() -> None:
    model = build("cifar_resnet20", classes=10, input_shape=(3, 32, 32))
    graph = trace(model, torch.randn(1, 3, 32, 32))
    scores = saliency(model, graph, "l2")
    plan = rank(graph, scores, Budget(macs=0.5), compensation="uniform")
    shares = [
        len(plan.kept[f.dimensions[0]]) / len(graph.dimension(*f.dimensions[0]).channels)
        for f in graph.families
    ]
    assert max(shares) - min(shares) <= 2 / 16
    assert plan.compensation == "uniform"
    before = CostModel(graph).evaluate()["macs"]
    assert plan.cost["macs"] <= 0.5 * before
    kept = plan.kept["layer1.0.conv1.weight", 0]
    norms = model.get_parameter("layer1.0.conv1.weight").detach().flatten(1).norm(dim=1).numpy()
    assert set(kept) == set(np.argsort(norms)[-len(kept) :].tolist())
