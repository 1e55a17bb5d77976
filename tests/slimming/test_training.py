"""The oracle in training mode: what only training joins, draws or returns is seen there."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.ao import quantization

import training_networks as networks
from lcprune.errors import VerificationError
from lcprune.ranking import Plan
from lcprune.slimming import difference, effect, repair, slim, verify
from lcprune.tracing import Inputs, trace
from oracle import plan_of, random_keep, randomise

IMAGE = torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))
FIRST = (0, 2, 3, 5, 6)
SECOND = (1, 2, 4, 8)

SAME = {
    **{kind: lambda kind=kind: networks.Drops(kind)
       for kind in ("Dropout", "Dropout2d", "AlphaDropout", "FeatureAlphaDropout")},
    **{kind: lambda kind=kind: networks.AddsNoise(kind)
       for kind in ("normal", "uniform", "gumbel", "own generator")},
    "drop path": networks.DropsPaths,
    "stochastic depth": networks.SkipsBlocks,
    "areas": networks.DropsAreas,
    "randomised slopes": networks.RandomSlopes,
    "mixup": networks.MixesUp,
    "auxiliary head": networks.AuxiliaryHead,
    "deep supervision": networks.DeepSupervision,
    "counts": networks.Counts,
}  # fmt: skip


def hand_made(model: nn.Module) -> Plan:
    """A plan for the blocks of a ``Plain`` network, put together without a graph."""
    kept: dict[tuple[str, int], tuple[int, ...]] = {("second.0.weight", 1): FIRST}
    for name, indices in (("first", FIRST), ("second", SECOND)):
        kept |= {(f"{name}.0.weight", 0): indices}
        kept |= {(f"{name}.1.{t}", 0): indices for t in BATCH_NORM}
    for name, _ in model.named_parameters():
        if name in ("head.weight", "heads.1.weight"):
            kept[name, 1] = SECOND
        elif name in ("auxiliary.weight", "heads.0.weight"):
            kept[name, 1] = FIRST
        elif name.startswith("branch.0"):
            kept |= {(name, 0): FIRST, (name, 1): FIRST}
            kept |= {(f"branch.1.{t}", 0): FIRST for t in BATCH_NORM}
    return Plan(kept=kept)


BATCH_NORM = ("weight", "bias", "running_mean", "running_var")


@pytest.mark.parametrize("kind", SAME)
def test_a_right_cut_is_right_in_training_too(kind: str) -> None:
    model = randomise(SAME[kind](), 1)
    plan = hand_made(model)
    seen = difference(model, slim(model, plan), plan, IMAGE)
    assert seen.training_checked
    assert seen.training_error == ""
    assert seen.error <= 1e-9
    assert effect(model, plan, IMAGE) > 1e-3


@pytest.mark.parametrize("kind", SAME)
def test_a_channel_exchanged_for_another_is_seen_in_training(kind: str) -> None:
    model = randomise(SAME[kind](), 1)
    plan = hand_made(model)
    wrong = replace(plan, kept={**plan.kept, ("second.0.weight", 1): (1, *FIRST[1:])})
    seen = difference(model, slim(model, wrong), plan, IMAGE)
    assert seen.training is not None
    assert seen.training > 1e-3


def branches(a: tuple[int, ...], b: tuple[int, ...], model: nn.Module) -> Plan:
    kept = {}
    for name, indices in (("a", a), ("b", b)):
        kept |= {(f"{name}.0.weight", 0): indices}
        kept |= {(f"{name}.1.{t}", 0): indices for t in BATCH_NORM}
    if isinstance(model, networks.SwapsInTraining):
        return Plan(kept=kept | {("head.weight", 1): a, ("other.weight", 1): b})
    return Plan(kept=kept | {("head.weight", 1): (*a, *(8 + i for i in b))})


JOINED = {
    "sum": networks.MixedInTraining,
    "distance": networks.DistilsItself,
    "other weights": networks.SwapsInTraining,
    **{how: lambda how=how: networks.MeetsInLoss(how) for how in networks.LOSSES},
}


@pytest.mark.parametrize("how", JOINED)
def test_other_indices_equal_in_number_in_branches_that_training_joins_fail(how: str) -> None:
    model = randomise(JOINED[how](), 1)
    same, other = branches(FIRST, FIRST, model), branches(FIRST, (1, 2, 4, 5, 7), model)
    assert verify(model, slim(model, same), same, IMAGE) <= 1e-9
    small = slim(model, other)
    assert difference(model, small, other, IMAGE).evaluation <= 1e-9
    with pytest.raises(VerificationError, match=r"by .* in training mode"):
        verify(model, small, other, IMAGE)


@pytest.mark.parametrize("how", JOINED)
def test_other_numbers_fail_too(how: str) -> None:
    model = randomise(JOINED[how](), 1)
    plan = branches(FIRST, FIRST[1:], model)
    with pytest.raises(VerificationError, match="in training mode"):
        verify(model, slim(model, plan), plan, IMAGE)


@pytest.mark.parametrize(
    "draw",
    [random.random, np.random.rand, lambda: torch.rand(()).item()],
    ids=["python", "numpy", "torch"],
)
def test_what_runs_under_another_seed_only_is_compared(draw: Callable[[], float]) -> None:
    class Rare(networks.DropsPaths):
        def between(self, x: Tensor) -> Tensor:
            return self.branch(x) if draw() < 0.5 else x

    model = randomise(Rare(), 1)
    plan = hand_made(model)
    assert difference(model, slim(model, plan), plan, IMAGE).error <= 1e-9
    wrong = slim(model, plan)
    with torch.no_grad():
        wrong.branch[0].weight += 1
    seen = difference(model, wrong, plan, IMAGE)
    assert seen.evaluation <= 1e-9
    assert seen.training is not None
    assert seen.training > 1e-3


@pytest.mark.parametrize("network", [networks.AuxiliaryHead, networks.DeepSupervision])
def test_an_output_of_training_that_shrinks_fails(network: Callable[[], nn.Module]) -> None:
    model = randomise(network(), 1)
    head = "auxiliary" if isinstance(model, networks.AuxiliaryHead) else "heads.0"
    plan = hand_made(model)
    cut = {(f"{head}.weight", 0): (0, 2, 3), (f"{head}.bias", 0): (0, 2, 3)}
    plan = replace(plan, kept={**plan.kept, **cut})
    with pytest.raises(VerificationError, match=r"returns shapes .* in training mode"):
        verify(model, slim(model, plan), plan, IMAGE)
    # Where the caller says that it may, the kept channels are compared.
    name = "auxiliary" if head == "auxiliary" else "0"
    free = replace(plan, free_outputs=(name,))
    assert verify(model, slim(model, free), free, IMAGE) <= 1e-9
    assert effect(model, free, IMAGE) > 1e-3


def test_what_training_wants_can_be_given() -> None:
    model = randomise(networks.LossesInside(), 1)
    plan = hand_made(model)
    small = slim(model, plan)
    unchecked = difference(model, small, plan, IMAGE)
    assert not unchecked.training_checked
    assert "ValueError: targets are needed in training" in unchecked.training_error
    given = Inputs(torch.cat([IMAGE, -IMAGE, IMAGE.flip(2)]), targets=torch.tensor([0, 3, 1]))
    assert difference(model, small, plan, IMAGE, training_inputs=given).training_checked
    assert verify(model, small, plan, IMAGE, training_inputs=given) <= 1e-9
    with torch.no_grad():
        small.head.bias[0] += 1e-3
    assert difference(model, small, plan, IMAGE, training_inputs=given).training > 1e-6


def test_a_training_forward_that_fails_leaves_evaluation_checked() -> None:
    model = randomise(networks.FailsInTraining(), 1)
    plan = hand_made(model)
    small = slim(model, plan)
    seen = difference(model, small, plan, IMAGE)
    assert (seen.training, seen.training_checked) == (None, False)
    assert "NotImplementedError: training needs the other package" in seen.training_error
    assert verify(model, small, plan, IMAGE) <= 1e-9
    graph = trace(model, IMAGE)
    assert repair(model, graph, IMAGE) is graph


FAILING = [
    (networks.WantsItsSizeInTraining, "fails in training mode", "RuntimeError: expected 8"),
    (networks.WantsItsSizeBackward, "fails backward in training mode", "RuntimeError: The size"),
    (networks.LosesGradients, "gradients of the slimmed model are not finite in training", ""),
]


@pytest.mark.parametrize(("network", "what", "error"), FAILING)
def test_a_slimmed_model_that_can_not_train_fails(
    network: Callable[[], nn.Module], what: str, error: str
) -> None:
    model = randomise(network(), 1)
    plan = hand_made(model)
    with pytest.raises(VerificationError, match=what) as raised:
        verify(model, slim(model, plan), plan, IMAGE)
    assert error in str(raised.value)


@pytest.mark.parametrize(("network", "what", "error"), FAILING)
def test_repair_leaves_alone_what_can_not_train_and_the_reason_names_the_mode(
    network: Callable[[], nn.Module], what: str, error: str
) -> None:
    model = randomise(network(), 1)
    repaired = repair(model, trace(model, IMAGE), IMAGE)
    assert [family.name for family in repaired.families] == ["second.0"]
    (reason,) = [u.reason for u in repaired.untouched if u.tensor == "first.0.weight"]
    assert what in reason
    assert "when these channels go" in reason
    assert error in reason


def test_a_model_that_gives_something_else_in_training_whenever_it_runs_is_not_judged() -> None:
    calls: list[int] = []

    class Changes(networks.Plain):
        def between(self, x: Tensor) -> Tensor:
            calls.append(1)
            return x + len(calls)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * (1 + len(calls) * self.training)

    model = randomise(Changes(), 1)
    plan = hand_made(model)
    seen = difference(model, slim(model, plan), plan, IMAGE)
    assert not seen.training_checked
    assert "in training mode" in seen.training_error
    assert "the same whenever it runs" in seen.training_error
    graph = trace(model, IMAGE)
    assert repair(model, graph, IMAGE) is graph


def test_gradients_that_are_not_finite_in_the_original_are_nothing_to_hold_against_the_small() -> (
    None
):
    class Infinite(networks.Plain):
        def between(self, x: Tensor) -> Tensor:
            return x + (x * 0).sqrt()

    model = randomise(Infinite(), 1)
    plan = hand_made(model)
    seen = difference(model, slim(model, plan), plan, IMAGE)
    assert seen.training_checked
    assert seen.error <= 1e-9


@pytest.mark.parametrize("training", [False, True])
def test_nothing_of_the_users_is_touched(training: bool) -> None:
    model = randomise(networks.Counts(), 1).train(training)
    model.requires_grad_(True)
    plan = hand_made(model)
    small = slim(model, plan)
    before = [{n: t.clone() for n, t in m.state_dict().items()} for m in (model, small)]
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    verify(model, small, plan, IMAGE)
    effect(model, plan, IMAGE)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert states[2] == np.random.get_state()[1].tolist()  # noqa: NPY002
    for state, module in zip(before, (model, small), strict=True):
        assert all(torch.equal(state[n], t) for n, t in module.state_dict().items())
        assert all(p.grad is None for p in module.parameters())
    assert all(m.training == training for m in model.modules())


def test_a_frozen_network_is_compared_without_a_backward_pass() -> None:
    model = randomise(networks.WantsItsSizeBackward(), 1).requires_grad_(False)
    plan = hand_made(model)
    seen = difference(model, slim(model, plan), plan, IMAGE)
    assert seen.training_checked
    assert seen.error <= 1e-9


class Experts(nn.Module):
    """Which head runs is decided by the sign of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = networks.block(3, 8)
        self.heads = nn.ModuleList([nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1)])

    def forward(self, x: Tensor) -> Tensor:
        return self.heads[int(x.mean() > 0)](self.stem(x))


def test_of_several_examples_the_largest_difference_counts() -> None:
    model = randomise(Experts(), 1)
    kept = {("stem.0.weight", 0): FIRST, ("heads.0.weight", 1): FIRST, ("heads.1.weight", 1): FIRST}
    plan = Plan(kept=kept | {(f"stem.1.{t}", 0): FIRST for t in BATCH_NORM})
    small = slim(model, plan)
    with torch.no_grad():
        small.heads[1].weight[0, 0] += 1
    low, high = IMAGE - 5, IMAGE + 5
    assert verify(model, small, plan, low) <= 1e-9
    for examples in ([low, high], [high, low], [high]):
        seen = difference(model, small, plan, examples)
        assert min(seen.evaluation, seen.training) > 1e-3


# -- an oracle of its own: gradients of the masked original ---------------------------------------


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", ["auxiliary head", "deep supervision", "drop path", "mixup"])
def test_gradients_are_those_of_the_masked_original(kind: str, training: bool) -> None:
    """A copy with zeros where weights read removed channels has the same outputs and gradients."""
    model = randomise(SAME[kind](), 1).double()
    plan = hand_made(model)
    masked, small = slim(model, Plan(kept={})), slim(model, plan)
    for (name, dim), kept in plan.kept.items():
        if dim == 1:
            weight = masked.get_parameter(name).data
            weight[:, [i for i in range(weight.shape[1]) if i not in kept]] = 0
    batch = torch.cat([IMAGE, IMAGE.flip(3)]).double()
    found = []
    for side in (masked, small):
        torch.manual_seed(3)
        out = side.train(training)(batch)
        found.append(list(out.values()) if isinstance(out, dict) else list(out))
        sum(t.square().sum() for t in found[-1]).backward()
    for expected, actual in zip(*found, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)
    gradients = dict(masked.named_parameters())
    for name, parameter in small.named_parameters():
        expected = gradients[name].grad
        for dim in range(parameter.dim()):
            if expected is not None and (name, dim) in plan.kept:
                expected = expected.index_select(dim, torch.tensor(plan.kept[name, dim]))
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-7, atol=1e-9)


class ObservesRanges(networks.Plain):
    """Prepared for quantisation: an observer whose buffers take their size from what it sees."""

    def __init__(self) -> None:
        super().__init__()
        per_channel = quantization.MovingAveragePerChannelMinMaxObserver
        self.fake = quantization.FakeQuantize(
            observer=per_channel, quant_min=0, quant_max=255, ch_axis=1,
            dtype=torch.quint8, qscheme=torch.per_channel_affine,
        )  # fmt: skip

    def between(self, x: Tensor) -> Tensor:
        return self.fake(x)


class TrainsInFloat32(networks.Plain):
    def between(self, x: Tensor) -> Tensor:
        if self.training and x.dtype == torch.float64:
            raise TypeError("float32 only")
        return x


@pytest.mark.parametrize(
    ("network", "precision"), [(TrainsInFloat32, torch.float32), (ObservesRanges, torch.float64)]
)
def test_what_runs_in_float32_only_in_training_is_compared_in_float32_there(
    network: Callable[[], nn.Module], precision: torch.dtype
) -> None:
    """PyTorch rounds in float32 alone; what is around that is compared in float64."""
    model = randomise(network(), 1)
    graph = trace(model, IMAGE)
    assert graph.training_checked
    assert repair(model, graph, IMAGE) is graph
    plan = plan_of(graph, random_keep(graph, np.random.default_rng(0)))
    seen = difference(model, slim(model, plan), plan, IMAGE)
    assert seen.training_checked
    assert (seen.precision, seen.training_precision) == (torch.float64, precision)
    assert seen.evaluation <= 1e-9
    assert seen.judged() <= (1e-4 if precision == torch.float32 else 1e-9)
