"""Every rule by the smallest network that needs it: exact, counted, and with much to choose."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lcprune.cost import CostModel
from lcprune.graph import ChannelGraph
from lcprune.slimming import slim
from lcprune.testing import counted
from lcprune.tracing import trace
from oracle import at_least_two, check, plan_of, random_keep, randomise
from tracing import (
    rules_attention,
    rules_convolution,
    rules_interface,
    rules_norm,
    rules_odd,
    rules_positions,
    rules_product,
    rules_quantising,
    rules_recurrent,
    rules_shape,
)
from tracing.rule_case import Case, chain, conv, images

SEEDS = range(3)
pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
MODULES = (
    rules_convolution,
    rules_norm,
    rules_product,
    rules_shape,
    rules_interface,
    rules_odd,
    rules_attention,
    rules_recurrent,
    rules_positions,
    rules_quantising,
)
ALL: tuple[Case, ...] = tuple(case for module in MODULES for case in module.CASES)


def cases(chosen: Iterable[Case]) -> list[Any]:
    return [pytest.param(case, id=case.name) for case in chosen]


_TRACED: dict[str, tuple[nn.Module, ChannelGraph]] = {}


def traced(case: Case) -> tuple[nn.Module, ChannelGraph]:
    """The case's network and graph, made once for all tests."""
    if case.name not in _TRACED:
        model = randomise(case.build(), 1)
        _TRACED[case.name] = model, trace(model, case.example)
    return _TRACED[case.name]


def test_every_case_has_a_name_of_its_own() -> None:
    assert len({case.name for case in ALL}) == len(ALL)


def tensor_of(model: nn.Module, name: str) -> str:
    return name if name in model.state_dict() else f"{name}.weight"


def filters(graph: ChannelGraph) -> dict[str, tuple[int, set[str]]]:
    """For every tensor with filters how many can go, and why others stay."""
    found: dict[str, tuple[int, set[str]]] = {}
    for tensor, dim in graph.producers:
        channels = graph.dimension(tensor, dim).channels
        free = int(((channels >= 0) & (channels < graph.prunable)).sum())
        reasons = {u.reason for u in graph.untouched if (u.tensor, u.dim) == (tensor, dim)}
        before, reasons_before = found.get(tensor, (0, set()))
        found[tensor] = (max(before, free), reasons | reasons_before)
    return found


@pytest.mark.parametrize("case", cases(ALL))
def test_what_can_go_and_why_the_rest_stays(case: Case) -> None:
    model, graph = traced(case)
    found = filters(graph)
    free = {tensor_of(model, name) for name in case.free.split()}
    assert {tensor for tensor, (count, _) in found.items() if count} == free, graph.untouched
    assert graph.prunable == case.groups
    for name, reason in case.stay.items():
        _, reasons = found[tensor_of(model, name)]
        assert any(reason in one for one in reasons), reasons
    staying = {tensor_of(model, name) for name in case.stay}
    for tensor, (_, reasons) in found.items():
        if tensor not in staying and reasons:
            assert tensor.startswith("head"), (tensor, reasons)
            assert all(re.fullmatch("(an output|output .+) of the model", one) for one in reasons)


@pytest.mark.parametrize("case", cases(case for case in ALL if case.groups))
def test_the_slimmed_network_is_the_masked_one_and_costs_what_the_graph_says(case: Case) -> None:
    model, graph = traced(case)
    effects = []
    for seed in SEEDS:
        seen = check(model, case.example, seed, graph)
        assert seen.error <= 1e-9
        effects.append(seen.effect)
    keep = at_least_two(graph, random_keep(graph, np.random.default_rng(0)))
    small = slim(model, plan_of(graph, keep))
    assert CostModel(graph).evaluate(keep) == counted(small, case.example)
    assert max(effects) > 1e-3 or not graph.prunable


def test_a_network_in_training_is_left_as_it_was() -> None:
    model = chain(conv(3, 6), nn.Dropout2d(), nn.BatchNorm2d(6), head=conv(6, 2)).train()
    model.c.eval()
    modes = [module.training for module in model.modules()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    graph = trace(model, images())
    keep = random_keep(graph, np.random.default_rng(0))
    small = slim(model, plan_of(graph, keep))
    assert check(model, images(), 0, graph).error <= 1e-9
    assert 0 < keep.sum() < graph.prunable == 6
    assert modes == [module.training for module in model.modules()]
    assert modes == [module.training for module in small.modules()]
    assert all(torch.equal(state[name], t) for name, t in model.state_dict().items())
