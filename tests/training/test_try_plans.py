"""Plans after a short training: all by the same steps, each as if it were alone."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from lcprune.errors import InputError
from lcprune.models import state_sha256
from lcprune.ranking import AttributeEdit, Plan
from lcprune.slimming import slim
from lcprune.training import TrainingConfig, finetune, try_plans

CONFIG = TrainingConfig(epochs=7, learning_rate=0.1, mixup=0.3, ema=0.9)


def network(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 3)
        )


BASE, TEACHER = network(), network(1)


def plan(*kept: int) -> Plan:
    """Keeps those of the six inner neurons."""
    of_norm = ["1.weight", "1.bias", "1.running_mean", "1.running_var"]
    keys = [("0.weight", 0), ("0.bias", 0), *((name, 0) for name in of_norm), ("4.weight", 1)]
    edits = [("0", "out_features"), ("1", "num_features"), ("4", "in_features")]
    return Plan(
        kept=dict.fromkeys(keys, kept),
        attributes=tuple(AttributeEdit(module, name, None, len(kept)) for module, name in edits),
    )


PLANS = [plan(0, 1, 2), plan(3, 4, 5), plan(0, 2, 3, 5), plan(1, 4)]


def cut(which: Plan) -> nn.Module:
    return slim(BASE, which)


class Loader:
    """Batches that are others in every epoch; notes what was taken."""

    def __init__(self, count: int = 3) -> None:
        self.count = count
        self.epoch = -1
        self.taken: list[tuple[int, int]] = []

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def batch(self, epoch: int, number: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(100 * epoch + number)
        return torch.randn(8, 4, generator=generator), torch.randint(3, (8,), generator=generator)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for number in range(self.count):
            self.taken.append((self.epoch, number))
            yield self.batch(self.epoch, number)


def judge(small: nn.Module) -> float:
    assert not small.training
    inputs, targets = Loader().batch(99, 0)
    with torch.no_grad():
        return float(functional.cross_entropy(small(inputs), targets))


@pytest.mark.parametrize("steps", [1, 3, 8])
def test_it_is_a_training_on_the_first_batches_with_the_whole_schedule(steps: int) -> None:
    """As many as steps, over as many epochs as that takes; and whatever the epochs asked for."""
    where = list(itertools.islice(itertools.product(range(9), range(3)), steps))
    expected = []
    for which in PLANS:
        small = cut(which)
        batches = [Loader().batch(epoch, number) for epoch, number in where]
        config = TrainingConfig(epochs=1, learning_rate=0.1, mixup=0.3, ema=0.9)
        finetune(small, batches, teacher=TEACHER, config=config)
        expected.append(judge(small))
    loader = Loader()
    found = try_plans(PLANS, cut, loader, steps=steps, judge=judge, teacher=TEACHER, config=CONFIG)
    assert found == expected
    assert len(set(found)) == len(PLANS)
    assert loader.taken == where * len(PLANS)


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(len(PLANS))), st.integers(0, 5))
def test_neither_order_nor_company_counts(order: list[int], draws: int) -> None:
    torch.rand(draws)
    alone = [
        try_plans([which], cut, Loader(), steps=4, judge=judge, config=CONFIG)[0] for which in PLANS
    ]
    before = torch.get_rng_state()
    together = try_plans(
        [PLANS[i] for i in order], cut, Loader(), steps=4, judge=judge, config=CONFIG
    )
    assert together == [alone[i] for i in order]
    assert torch.equal(before, torch.get_rng_state())


def test_base_teacher_and_what_was_cut_are_left_as_they_were() -> None:
    models = [BASE, TEACHER, cut(PLANS[0]), network(2)]
    before = [(state_sha256(model), model.training) for model in models]
    # Even where a cut gives an object that is somebody else's.
    for given_back in (models[2], models[3]):
        losses = try_plans(
            PLANS[:2],
            lambda _, model=given_back: model,  # type: ignore[misc]
            Loader(),
            steps=3,
            judge=judge,
            teacher=TEACHER,
            config=CONFIG,
        )
        assert losses[0] == losses[1] != judge(copy.deepcopy(given_back).eval())
    try_plans(PLANS, cut, Loader(), steps=3, judge=judge, teacher=TEACHER, config=CONFIG)
    assert [(state_sha256(model), model.training) for model in models] == before


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_infinite(bad: float) -> None:
    answers = iter([0.5, bad, 0.2])
    found = try_plans(PLANS[:3], cut, Loader(), steps=1, judge=lambda _: next(answers))
    assert found == [0.5, math.inf, 0.2]


def test_a_plan_whose_training_diverges_is_not_the_best() -> None:
    def broken(which: Plan) -> nn.Module:
        small = cut(which)
        if which is PLANS[1]:
            with torch.no_grad():
                small[4].weight.fill_(math.nan)
        return small

    found = try_plans(
        PLANS[:2], broken, Loader(), steps=3, judge=lambda _: 0.5, teacher=TEACHER, config=CONFIG
    )
    assert found == [0.5, math.inf]


def test_no_plan_has_no_loss() -> None:
    assert try_plans([], cut, Loader(), steps=1, judge=judge) == []


@pytest.mark.parametrize(
    ("loader", "steps", "message"),
    [
        (Loader, 0, "steps is 0, expected an integer of at least 1"),
        (lambda: Loader(0), 3, "no batch"),
        (lambda: iter([Loader().batch(0, 0)]), 3, "no batch"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    loader: Callable[[], Loader], steps: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        try_plans(PLANS, cut, loader(), steps=steps, judge=judge)
