"""Repair: networks that fool the tracer are partly pruned and right, the others left as found."""

from __future__ import annotations

from math import ceil, log2
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import fooling
import lcprune as lp
from lcprune.errors import InputError, ModelError, VerificationError
from lcprune.graph import ChannelGraph
from lcprune.ranking._plan import Plan
from lcprune.slimming import _original as original_module
from lcprune.slimming import difference, repair, slim, verify
from lcprune.slimming._checker import Checker, Fault
from lcprune.slimming._coupling import CHECKS
from lcprune.slimming._draws import Draws
from lcprune.slimming._original import LONGEST
from lcprune.tracing import Inputs, trace
from networks import random_network
from oracle import check, plan_of, random_keep, randomise

IMAGES = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
FOOLING = [
    fooling.WantsItsSize,
    fooling.LooksUpItsSize,
    fooling.ScalesByItsSize,
    fooling.BranchesByItsSize,
    fooling.WantsMultiples,
    fooling.WantsEqualSizes,
    fooling.WantsOneOfTwoSizes,
]
DIFFERS = "the slimmed model differs from the masked original when these channels go"
FAILS = "the slimmed model fails when these channels go"


def sizes(graph: ChannelGraph) -> dict[str, int]:
    return {family.name: len(family.groups) for family in graph.families}


def why(graph: ChannelGraph, tensor: str) -> list[str]:
    return [entry.reason for entry in graph.untouched if entry.tensor == tensor]


def is_right(model: nn.Module, plan: Plan, example: Tensor) -> bool:
    try:
        verify(model, slim(model, plan), plan, example)
    except VerificationError:
        return False
    return True


@pytest.fixture
def evaluations(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """The plans that a repair has asked for."""
    asked: list[Plan] = []
    whole = Checker.fault

    def counted(self: Checker, plan: Plan) -> Fault | None:
        asked.append(plan)
        return whole(self, plan)

    monkeypatch.setattr(Checker, "fault", counted)
    return asked


@pytest.mark.parametrize("network", FOOLING)
def test_a_network_that_fools_the_tracer_is_partly_pruned_and_right(
    network: type[nn.Module],
) -> None:
    model = randomise(network(), 1)
    fooled = trace(model, IMAGES)
    plans = [plan_of(fooled, random_keep(fooled, np.random.default_rng(i))) for i in range(6)]
    assert not all(is_right(model, plan, IMAGES) for plan in plans)
    repaired = repair(model, fooled, IMAGES)
    assert 0 < repaired.prunable < fooled.prunable
    assert {"stem.0", "after.0"} <= set(sizes(repaired))
    assert repaired.notes[: len(fooled.notes)] == fooled.notes
    assert len(repaired.notes) == len(fooled.notes) + 1
    for seed in range(6):
        seen = check(model, IMAGES, seed, repaired)
        assert seen.error <= 1e-9
        assert seen.effect > 1e-3


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (fooling.WantsItsSize, f"{FAILS}: RuntimeError: expected 16 channels"),
        (fooling.ScalesByItsSize, DIFFERS),
        (fooling.BranchesByItsSize, DIFFERS),
    ],
)
def test_only_the_family_that_is_wrong_stays_and_the_reason_says_what_happened(
    network: type[nn.Module], reason: str
) -> None:
    model = randomise(network(), 1)
    repaired = repair(model, trace(model, IMAGES), IMAGES)
    assert sizes(repaired) == {"stem.0": 12, "other.0": 16, "after.0": 10}
    assert why(repaired, "odd.0.weight") == [reason]
    assert repaired.notes[-1] == f"1 family left alone after a check: odd.0 ({reason})"


def test_a_long_error_is_cut() -> None:
    model = randomise(fooling.LooksUpItsSize(), 1)
    (reason,) = why(repair(model, trace(model, IMAGES), IMAGES), "odd.0.weight")
    error = reason.removeprefix(f"{FAILS}: ")
    assert error.startswith("KeyError: 'channels 000")
    assert error.endswith("…")
    assert len(error) == LONGEST


def test_what_wants_multiples_loses_whole_blocks() -> None:
    model = randomise(fooling.WantsMultiples(), 1)
    repaired = repair(model, trace(model, IMAGES), IMAGES)
    assert sizes(repaired) == {"stem.0": 12, "odd.0": 4, "other.0": 16, "after.0": 10}
    assert repaired.notes[-1] == "odd.0: channels go in blocks of 4, after a check"
    assert why(repaired, "odd.0.weight") == []


@pytest.mark.parametrize("seed", range(8))
def test_a_size_that_is_right_every_other_time_does_not_come_through(seed: int) -> None:
    model = randomise(fooling.WantsEvenSizes(), 1)
    repaired = repair(model, trace(model, IMAGES), IMAGES, seed=seed)
    assert sizes(repaired) == {"stem.0": 12, "odd.0": 8, "other.0": 16, "after.0": 10}


def test_what_wants_equal_sizes_loses_the_same_places() -> None:
    model = randomise(fooling.WantsEqualSizes(), 1)
    repaired = repair(model, trace(model, IMAGES), IMAGES)
    assert sizes(repaired) == {"stem.0": 12, "odd.0": 16, "after.0": 10}
    assert repaired.notes[-1] == "odd.0, other.0: lose the same places, after a check"
    first = repaired.dimension("odd.0.weight", 0).channels
    assert first.tolist() == repaired.dimension("other.0.weight", 0).channels.tolist()


def test_what_fails_only_together_is_found_and_left_alone() -> None:
    model = randomise(fooling.WantsOneOfTwoSizes(), 1)
    repaired = repair(model, trace(model, IMAGES), IMAGES)
    assert sizes(repaired) == {"stem.0": 12, "after.0": 10}
    reason = f"{FAILS}: ValueError: both have changed"
    assert why(repaired, "odd.0.weight") == why(repaired, "other.0.weight") == [reason]
    assert repaired.notes[-1].startswith("2 families left alone after a check: odd.0, other.0 (")


def test_where_nothing_can_go_nothing_is_prunable_and_each_filter_has_its_reason() -> None:
    model = randomise(fooling.WantsAllItsSizes(), 1)
    repaired = repair(model, trace(model, IMAGES), IMAGES)
    assert repaired.prunable == 0
    for name in ("stem.0", "odd.0", "other.0", "after.0"):
        assert why(repaired, f"{name}.weight") == [f"{FAILS}: RuntimeError: sizes have changed"]


@pytest.mark.parametrize("plans", [1, 2, 5])
def test_a_right_network_comes_back_as_the_same_graph_after_as_many_evaluations_as_plans(
    plans: int, evaluations: list[Plan]
) -> None:
    model = randomise(fooling.Honest32(), 1)
    graph = trace(model, IMAGES)
    assert repair(model, graph, IMAGES, plans=plans) is graph
    assert len(evaluations) == plans
    everything = {(f"{family.name}.weight", 0) for family in graph.families}
    assert all(everything <= set(plan.kept) for plan in evaluations)


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_random_networks_need_no_repair(seed: int) -> None:
    model, example = random_network(seed)
    randomise(model, seed)
    graph = trace(model, example)
    assume(graph.prunable > 0)
    assert repair(model, graph, example, seed=seed) is graph


@pytest.mark.parametrize("culprit", [0, 17, 38])
def test_one_culprit_among_forty_is_found_within_the_bound(
    culprit: int, evaluations: list[Plan]
) -> None:
    model = randomise(fooling.Forty(culprit), 1)
    image = IMAGES[:1, :, :2, :2]
    graph = trace(model, image)
    assert len(graph.families) == 40
    repaired = repair(model, graph, image)
    assert set(sizes(graph)) - set(sizes(repaired)) == {f"layers.{culprit}"}
    searched = 2 * ceil(log2(40)) + 3
    blocks_of_four_groups = 2
    first_plans = last_plans = 2
    assert len(evaluations) <= first_plans + searched + blocks_of_four_groups * CHECKS + last_plans


def test_the_same_seed_gives_the_same_graph_and_no_global_generator_is_used() -> None:
    model = randomise(fooling.WantsMultiples(), 1)
    graph = trace(model, IMAGES)
    state, position = torch.get_rng_state(), np.random.get_state()[2]  # noqa: NPY002
    first, second = (repair(model, graph, IMAGES, seed=3) for _ in range(2))
    assert [d.channels.tolist() for d in first.dimensions] == [
        d.channels.tolist() for d in second.dimensions
    ]
    assert first.notes == second.notes
    assert torch.equal(state, torch.get_rng_state())
    assert position == np.random.get_state()[2]  # noqa: NPY002


def test_the_model_is_untouched() -> None:
    model = randomise(fooling.WantsMultiples(), 1).train()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    repair(model, trace(model, IMAGES), IMAGES)
    assert all(torch.equal(state[name], t) for name, t in model.state_dict().items())
    assert all(module.training for module in model.modules())


class OnlyFloat32(fooling.WantsItsSize):
    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float64:
            raise TypeError("float32 only")
        return super().forward(x)


def test_a_model_that_refuses_float64_is_checked_in_float32() -> None:
    model = randomise(OnlyFloat32(), 1)
    repaired = repair(model, trace(model, IMAGES), IMAGES)
    assert sizes(repaired) == {"stem.0": 12, "other.0": 16, "after.0": 10}
    assert why(repaired, "odd.0.weight") == [f"{FAILS}: RuntimeError: expected 16 channels"]
    plan = plan_of(repaired, random_keep(repaired, np.random.default_rng(0)))
    assert difference(model, slim(model, plan), plan, IMAGES).precision == torch.float32


class HonestOnlyFloat32(fooling.Honest32):
    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float64:
            raise TypeError("float32 only")
        return super().forward(x)


class Counts(fooling.Honest32):
    """Keeps in a buffer how often it ran, and scales by that."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("runs", torch.ones(()))

    def twist(self, odd: Tensor, other: Tensor) -> Tensor:
        self.runs += 1
        return super().twist(odd * self.runs, other)


@pytest.mark.parametrize("network", [HonestOnlyFloat32, Counts])
def test_an_odd_network_that_is_right_needs_no_repair(network: type[nn.Module]) -> None:
    model = randomise(network(), 1)
    graph = trace(model, IMAGES)
    assert graph.prunable > 0
    assert repair(model, graph, IMAGES, plans=3) is graph


def test_a_failure_of_the_masked_reference_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = randomise(fooling.Honest32(), 1)
    masked = original_module.masked_outputs

    def failing(model: nn.Module, plan: Plan, inputs: Inputs, draws: Draws) -> list[Tensor]:
        if ("odd.0.weight", 0) in plan.kept:
            raise ModelError("the forward fails") from IndexError("no such place")
        return masked(model, plan, inputs, draws)

    monkeypatch.setattr(original_module, "masked_outputs", failing)
    repaired = repair(model, trace(model, IMAGES), IMAGES)
    assert set(sizes(repaired)) == {"stem.0", "other.0", "after.0"}
    reason = "the masked original fails when these channels go: IndexError: no such place"
    assert why(repaired, "odd.0.weight") == [reason]


class Broken(fooling.Honest32):
    def twist(self, odd: Tensor, other: Tensor) -> Tensor:
        raise RuntimeError("always")


class Changing(fooling.Honest32):
    """Its output depends on how often any copy of it ran."""

    runs: ClassVar[list[int]] = []

    def twist(self, odd: Tensor, other: Tensor) -> Tensor:
        self.runs.append(1)
        return super().twist(odd * len(self.runs), other)


class Noisy(fooling.Honest32):
    """Draws a number, and one for every channel of one convolution."""

    def twist(self, odd: Tensor, other: Tensor) -> Tensor:
        return super().twist(odd + torch.randn_like(odd), other * torch.rand(()))


def test_a_model_that_can_not_run_is_a_model_error() -> None:
    graph = trace(randomise(fooling.Honest32(), 1), IMAGES)
    with pytest.raises(ModelError, match=r"forward fails on the example input .*always"):
        repair(randomise(Broken(), 1), graph, IMAGES)


def test_a_model_with_outputs_that_change_is_a_model_error() -> None:
    model = randomise(Changing(), 1)
    with pytest.raises(ModelError, match="expected finite outputs that are the same whenever"):
        repair(model, trace(model, IMAGES), IMAGES)


def test_noise_of_the_shape_of_pruned_channels_is_left_out_and_other_draws_are_the_same() -> None:
    model = randomise(Noisy(), 1)
    graph = trace(model, IMAGES)
    assert repair(model, graph, IMAGES) is graph
    plan = plan_of(graph, random_keep(graph, np.random.default_rng(0)))
    assert ("odd.0.weight", 0) in plan.kept
    state = torch.get_rng_state()
    assert verify(model, slim(model, plan), plan, IMAGES) <= 1e-9
    assert torch.equal(state, torch.get_rng_state())


class KeepsFeatures(fooling.WantsItsSize):
    def twist(self, odd: Tensor, other: Tensor) -> Tensor:
        self.features = odd
        return super().twist(odd, other)


def test_a_model_that_keeps_tensors_of_an_earlier_run_is_checked_too() -> None:
    model = randomise(KeepsFeatures(), 1)
    model(IMAGES)
    repaired = lp.repair(model, trace(model, IMAGES), IMAGES)
    assert set(sizes(repaired)) == {"stem.0", "other.0", "after.0"}


@pytest.mark.parametrize("plans", [0, -1, True, 1.5])
def test_a_number_of_plans_that_is_none_is_refused(plans: int) -> None:
    model = randomise(fooling.Honest32(), 1)
    with pytest.raises(InputError, match=r"plans is .*, expected an integer of at least 1"):
        repair(model, trace(model, IMAGES), IMAGES, plans=plans)
