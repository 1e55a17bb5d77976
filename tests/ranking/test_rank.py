from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn

from graphs import chain
from lcprune.cost import Budget, CostModel
from lcprune.criteria import Saliency, saliency
from lcprune.errors import BudgetError, InputError
from lcprune.ranking import Additive, Plan, PlanBuilder, Ranker, rank
from lcprune.tracing import trace

MODEL, GRAPH = chain([8, 12, 6])
SALIENCY = saliency(MODEL, GRAPH, "l2")


def test_a_plain_ranking_is_global() -> None:
    plan = rank(GRAPH, SALIENCY, Budget(macs=0.5))
    before = CostModel(GRAPH).evaluate()["macs"]
    assert plan.cost["macs"] <= before // 2
    assert plan.criterion == "l2"
    assert plan.compensation == "additive"
    assert plan.latent == {"f0": (0.0,), "f1": (0.0,), "f2": (0.0,)}
    assert rank(GRAPH, SALIENCY, Budget(macs=0.5), compensation="none").digest == plan.digest


def test_an_offset_moves_channels_between_families() -> None:
    sizes = {}
    for offset in (-100.0, 100.0):
        plan = rank(GRAPH, SALIENCY, Budget(macs=0.5), [0.0, offset, 0.0])
        sizes[offset] = len(plan.kept.get(("3.weight", 0), range(12)))
        assert plan.latent["f1"] == (offset,)
    plain = rank(GRAPH, SALIENCY, Budget(macs=0.5))
    assert sizes[-100.0] < len(plain.kept["3.weight", 0]) < sizes[100.0] == 12


def test_affine_takes_two_numbers_per_family() -> None:
    same = rank(GRAPH, SALIENCY, Budget(macs=0.5), [[2.0, 1.0]] * 3, compensation="affine")
    assert same.digest == rank(GRAPH, SALIENCY, Budget(macs=0.5)).digest
    assert same.latent["f0"] == (2.0, 1.0)


def test_all_bounds_hold_at_once() -> None:
    budget = Budget(macs="60%", params="30%")
    plan = rank(GRAPH, SALIENCY, budget)
    for name, limit in budget.limits(CostModel(GRAPH).evaluate()).items():
        assert plan.cost[name] <= limit


def test_the_ranker_is_rank_many_times() -> None:
    ranker = Ranker(GRAPH, SALIENCY, Budget(macs=0.4))
    latent = ranker.compensation.draw(np.random.default_rng(0))
    assert ranker.plan(latent) == rank(GRAPH, SALIENCY, Budget(macs=0.4), latent)
    own = Additive(GRAPH, SALIENCY)
    assert rank(GRAPH, SALIENCY, Budget(macs=0.4), latent, compensation=own) == ranker.plan(latent)


def test_rankers_and_builders_of_one_graph_share_a_cost_model() -> None:
    with mock.patch("lcprune.cost._model.CostModel", wraps=CostModel) as made:
        _, graph = chain([8, 12, 6])
        scores = saliency(MODEL, graph, "l2")
        for budget in (Budget(macs=0.5), Budget(macs=0.4), Budget(params=0.5)):
            rank(graph, scores, budget)
        plan = PlanBuilder(graph).plan(np.ones(graph.prunable, dtype=bool))
    assert made.call_count == 1
    assert plan.cost == CostModel(GRAPH).evaluate()


@pytest.mark.parametrize(
    "beta", [[0.0, 0.0], [[0.0, 0.0]] * 3, 1.0, [0.0, float("nan"), 0.0], [float("inf")] * 3]
)
def test_a_beta_that_does_not_fit_is_refused(beta: object) -> None:
    with pytest.raises(InputError, match="beta"):
        rank(GRAPH, SALIENCY, Budget(macs=0.5), beta)  # type: ignore[arg-type]


def test_a_budget_below_the_floors_says_the_least() -> None:
    with pytest.raises(BudgetError, match="least possible") as caught:
        rank(GRAPH, SALIENCY, Budget(macs="1%"))
    least = str(caught.value).split("least possible ")[1].split(" %")[0].split(", ")
    bound = int(least[0].replace(",", ""))
    assert rank(GRAPH, SALIENCY, Budget(macs=bound)).cost["macs"] == bound
    with pytest.raises(BudgetError):
        rank(GRAPH, SALIENCY, Budget(macs=bound - 1))


def test_a_higher_floor_keeps_more() -> None:
    plan = rank(GRAPH, SALIENCY, Budget(macs=0.7), [0.0, -100.0, 0.0], min_keep=0.75)
    assert len(plan.kept["3.weight", 0]) == 9


def test_nan_saliencies_are_refused() -> None:
    with pytest.raises(InputError, match="nan"):
        rank(GRAPH, Saliency(np.full(26, np.nan), "l2", "sum"), Budget(macs=0.5))


@pytest.mark.parametrize("compensation", ["additive", "affine", "none", "uniform"])
def test_every_family_keeps_a_multiple_or_all_of_its_groups(compensation: str) -> None:
    ranker = Ranker(GRAPH, SALIENCY, Budget(macs=0.6), compensation=compensation, round_to=4)
    for seed in range(5):
        latent = ranker.compensation.draw(np.random.default_rng(seed))
        keep = ranker.keep(latent)
        for family in GRAPH.families:
            kept = int(keep[list(family.groups)].sum())
            assert kept % 4 == 0 or kept == len(family.groups)
        assert ranker.plan(latent) == rank(
            GRAPH, SALIENCY, Budget(macs=0.6), latent, compensation=compensation, round_to=4
        )


HUGE = 10**400
WRONG: list[tuple[str, Any, str]] = [
    *(("graph", value, "expected a ChannelGraph") for value in (None, 3, [], nn.ReLU(), Plan({}))),
    *(("saliency", value, "expected a Saliency") for value in (None, 0.5, [1.0], np.ones(3))),
    *(
        ("budget", value, r"expected a Budget, such as Budget\(macs=0\.5\)")
        for value in (0.5, None, "macs=50%", {"macs": 0.5}, Budget)
    ),
    *(
        ("beta", value, "beta")
        for value in ("x", [None], [[1], [1, 2]], [HUGE], {"a": 1}, Ellipsis, np.array(["a"]), 3)
    ),
    *(("compensation", value, "compensation") for value in (None, 3, ["additive"], "none!", "")),
    *(
        ("min_keep", value, "min_keep is")
        for value in (None, "0.1", -0.1, 1, HUGE, float("nan"), float("inf"), True, [0.1], 1j)
    ),
    *(
        ("round_to", value, "round_to is")
        for value in (None, "8", 0, -1, 1.5, True, float("nan"), [8])
    ),
]


@pytest.mark.parametrize(("name", "value", "message"), WRONG, ids=lambda value: repr(value)[:25])
def test_arguments_of_a_wrong_kind_say_what_was_expected(
    name: str, value: Any, message: str
) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    graph = trace(model, torch.ones(1, 3, 4, 4))
    given: dict[str, Any] = {
        "graph": graph, "saliency": saliency(model, graph), "budget": Budget(macs=0.5)
    }  # fmt: skip
    rank(**given)
    with pytest.raises(InputError, match=message) as caught:
        rank(**given | {name: value})
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300
