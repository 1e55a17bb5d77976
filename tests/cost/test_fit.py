"""The energy that is fitted to measurements, on made ones whose truth is known."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import lcprune as lp
from lcprune.cost import CostModel, Energy, FittedEnergy, fit_energy
from lcprune.errors import InputError
from lcprune.graph import BoolArray
from oracle import plan_of

with torch.random.fork_rng(devices=[]):
    torch.manual_seed(0)
    MODEL = nn.Sequential(
        nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Conv2d(12, 10, 3), nn.ReLU(),
        nn.Conv2d(10, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    ).eval()  # fmt: skip
GRAPH = lp.trace(MODEL, torch.randn(1, 3, 12, 12))
FAMILIES = {family.name: len(family.groups) for family in GRAPH.families}
PRICES = (0.004, 3e-6, 0.0, 2e-5, 4e-5)
"""Joules: a constant, and of the products of widths of the four layers."""


def truth(a: int, b: int, c: int) -> float:
    terms = (1, 3 * a, a * b, b * c, c * 5)
    return sum(price * term for price, term in zip(PRICES, terms, strict=True))


def widths(seed: int) -> tuple[int, int, int]:
    rng = np.random.default_rng(seed)
    a, b, c = (int(rng.integers(1, size + 1)) for size in FAMILIES.values())
    return a, b, c


def measured(count: int, noise: float = 0.0) -> list[tuple[dict[str, int], float]]:
    rng = np.random.default_rng(9)
    return [
        (
            dict(zip(FAMILIES, widths(seed), strict=True)),
            truth(*widths(seed)) * (1 + noise * float(rng.standard_normal())),
        )
        for seed in range(count)
    ]


def mask(sizes: tuple[int, ...]) -> BoolArray:
    keep = np.zeros(GRAPH.prunable, dtype=bool)
    for family, size in zip(GRAPH.families, sizes, strict=True):
        keep[list(family.groups[-size:])] = True
    return keep


def test_a_truth_of_that_form_is_found() -> None:
    energy = fit_energy(GRAPH, measured(30))
    assert energy.measurements == 30
    assert energy.error < 1e-6
    cost = CostModel(GRAPH, ["macs", energy])
    for seed in range(100, 120):  # of masks that were not measured, whichever groups they keep
        keep = mask(widths(seed))
        assert cost.evaluate(keep)["energy"] == pytest.approx(1e12 * truth(*widths(seed)), rel=1e-6)
    assert energy.constant == pytest.approx(1e12 * PRICES[0], rel=1e-6)


def test_plans_masks_and_widths_are_the_same_measurement() -> None:
    pairs = [(widths(seed), truth(*widths(seed))) for seed in range(12)]
    by_width = [(dict(zip(FAMILIES, w, strict=True)), e) for w, e in pairs]
    by_mask = [(mask(w), e) for w, e in pairs]
    by_plan = [(plan_of(GRAPH, mask(w)), e) for w, e in pairs]
    whole: list[Any] = [({}, 0.1), (lp.Plan({}), 0.1), (np.ones(GRAPH.prunable, bool), 0.1)]
    given = zip((by_width, by_plan, by_mask), whole, strict=True)
    fits = [fit_energy(GRAPH, [*pairs, one]) for pairs, one in given]
    assert fits[0] == fits[1] == fits[2]


def test_the_error_is_that_of_what_the_fit_has_not_seen() -> None:
    errors = [fit_energy(GRAPH, measured(60, noise)).error for noise in (0.0, 0.02, 0.1)]
    assert errors[0] < 0.01 < errors[1] < 0.05 < errors[2] < 0.2
    # As many coefficients as measurements explain anything, but not what they have not seen.
    rng = np.random.default_rng(0)
    nothing = [(w, float(rng.uniform(0.5, 1.5))) for w, _ in measured(8)]
    assert fit_energy(GRAPH, nothing).error > 0.2


def test_the_energy_never_falls_where_a_width_grows() -> None:
    rng = np.random.default_rng(0)
    falling = [(w, 1.0 / sum(w.values()) * float(rng.uniform(0.9, 1.1))) for w, _ in measured(20)]
    energy = fit_energy(GRAPH, falling)
    cost = CostModel(GRAPH, [energy])
    for seed in range(20):
        large = rng.random(GRAPH.prunable) < 0.8
        small = large & (np.random.default_rng(seed).random(GRAPH.prunable) < 0.8)
        assert cost.evaluate(small)["energy"] <= cost.evaluate(large)["energy"]
    assert energy.constant > 0


def test_a_budget_in_measured_joules_holds() -> None:
    energy = fit_energy(GRAPH, measured(30))
    plan = lp.rank(
        GRAPH, lp.saliency(MODEL, GRAPH, "l2"), lp.Budget(energy="60%"), resources=[energy]
    )
    widths_of = dict(zip((0, 2, 4), FAMILIES.values(), strict=True))
    kept = [len(plan.kept.get((f"{i}.weight", 0), range(n))) for i, n in widths_of.items()]
    share = truth(*kept) / truth(12, 10, 16)
    assert 0.4 < share <= 0.6000001
    assert plan.cost["energy"] == pytest.approx(1e12 * truth(*kept), rel=1e-6)
    assert pickle.loads(pickle.dumps(energy)) == energy


def test_a_fit_is_for_its_network_alone() -> None:
    energy = fit_energy(GRAPH, measured(8))
    other = lp.trace(MODEL[:4], torch.randn(1, 3, 12, 12))
    larger = lp.trace(MODEL, torch.randn(1, 3, 14, 14))
    for graph in (other, larger):
        with pytest.raises(InputError, match="fitted to another network"):
            CostModel(graph, [energy])
    assert isinstance(energy, FittedEnergy)
    CostModel(lp.repair(MODEL, GRAPH, torch.randn(1, 3, 12, 12)), [energy])


GOOD = measured(6)
FOREIGN = lp.Plan({("nowhere.weight", 0): (0,)})
WRONG: dict[str, tuple[Any, str]] = {
    "three": (GOOD[:3], "3 measurements, expected at least 4"),
    "none": (None, "measurements is None, expected"),
    "no pairs": ([1, 2, 3, 4], "a measurement is 1, expected a pair"),
    "no number": ([*GOOD, ({}, "1 J")], "expected a finite number"),
    "nothing": ([*GOOD, ({}, 0.0)], "energy of a measurement is 0.*more than 0"),
    "NaN": ([*GOOD, ({}, float("nan"))], "energy of a measurement is nan"),
    "kilojoules": ([*GOOD, ({}, 1e9)], "at most 1e\\+06"),
    "a family": ([*GOOD, ({"no\nsuch": 3}, 1.0)], "width of 'no.*expected the name of a family"),
    "too wide": (
        [*GOOD, ({"0": 13}, 1.0)],
        "the width of 0 is 13, expected an integer from 0 to 12",
    ),
    "a half": ([*GOOD, ({"0": 0.5}, 1.0)], "the width of 0 is 0.5"),
    "a mask": ([*GOOD, (np.ones(3, bool), 1.0)], r"expected bool \(38,\)"),
    "a network": ([*GOOD, (MODEL, 1.0)], "what was measured is .* expected a plan, widths"),
    "a plan": ([*GOOD, (FOREIGN, 1.0)], "cuts dimension 0 of 'nowhere.weight'"),
    "an index": ([*GOOD, (lp.Plan({("0.weight", 0): (99,)}), 1.0)], "expected one of a plan"),
}


@pytest.mark.parametrize("name", WRONG)
def test_measurements_that_make_no_sense_are_refused(name: str) -> None:
    given, part = WRONG[name]
    with pytest.raises(InputError, match=part) as caught:
        fit_energy(GRAPH, given)
    assert str(caught.value).isprintable()


def test_a_plan_of_another_network_is_refused() -> None:
    other = nn.Sequential(*list(MODEL)[:4])
    graph = lp.trace(other, torch.randn(1, 3, 12, 12))
    plan = lp.rank(graph, lp.saliency(other, graph, "l2"), lp.Budget(macs=0.5))
    with pytest.raises(InputError, match="for another network"):
        fit_energy(GRAPH, [*measured(5), (plan, 1.0)])


def test_an_energy_of_prices_can_be_found_by_a_fit() -> None:
    """What a model with other terms (bytes moved) is worth to one without them."""
    cost = CostModel(GRAPH, [Energy()])
    pairs = [
        (mask(widths(seed)), cost.evaluate(mask(widths(seed)))["energy"] / 1e12)
        for seed in range(40)
    ]
    assert fit_energy(GRAPH, pairs).error < 0.1
