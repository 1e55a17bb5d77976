"""Candidates that are trained before they are judged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lcprune.errors import DivergenceError, InputError
from lcprune.graph import BoolArray
from lcprune.searching import (
    STRATEGIES,
    Candidate,
    SearchResult,
    read_journal,
    search,
)
from lcprune.searching._result import choose_finalists
from lcprune.slimming import slim
from searching.small_search import BUDGET, GRAPH, MODEL, SALIENCY, Fitness


class Train:
    """A step moves every weight a bit towards 0; notes which networks it was given."""

    def __init__(self) -> None:
        self.given: list[tuple[int, list[int]]] = []

    def __call__(self, small: nn.Module, steps: int) -> None:
        self.given.append((steps, [len(p) for p in small.parameters()]))
        with torch.no_grad():
            for parameter in small.parameters():
                parameter *= 0.99**steps


def found(**options: Any) -> SearchResult:
    given: dict[str, Any] = {
        "fitness": Fitness(),
        "trials": 12,
        "train": Train(),
        "fitness_steps": 3,
    }
    return search(MODEL, GRAPH, SALIENCY, BUDGET, **given | options)


@pytest.mark.parametrize("name", ["evolution", "random"])
def test_every_candidate_is_trained(name: str) -> None:
    train = Train()
    result = found(strategy=name, train=train)
    assert {trial.steps for trial in result.history} == {3}
    distinct = [trial for trial in result.history if trial.same_as is None]
    assert [steps for steps, _ in train.given] == [3] * len(distinct)
    assert all("train" in trial.timing for trial in distinct)


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_loss_is_that_of_the_trained_network(name: str) -> None:
    result = found(strategy=name)
    small = slim(MODEL, result.plan)
    Train()(small, 3)
    assert result.best.steps == 3
    assert result.loss == Fitness()(small) == result.loss_of(result.plan)


def test_a_network_that_is_trained_is_not_recalibrated_too() -> None:
    seen: list[nn.Module] = []
    result = found(strategy="auto", recalibrate=seen.append, trials=20)
    untrained = [t for t in result.history if not t.steps and t.same_as is None]
    assert 0 < len(seen) == len(untrained) < len(result.history)


def test_the_best_is_one_that_was_trained_though_others_have_lower_losses() -> None:
    lengths: list[int] = []

    def worse_after(small: nn.Module) -> float:
        return 10.0 + len(lengths) if getattr(small, "trained", False) else 0.1

    def train(small: nn.Module, _: int) -> None:
        lengths.append(0)
        small.trained = True  # type: ignore[assignment]

    result = found(strategy="auto", fitness=worse_after, train=train)
    assert result.best.steps == 3
    assert result.loss >= 10
    finalists = choose_finalists(result.history, GRAPH.family_of, 12)
    steps = [trial.steps for trial in finalists]
    assert steps == sorted(steps, reverse=True)


@pytest.mark.parametrize("trials", range(1, 16))
def test_of_however_few_trials_the_last_is_trained(trials: int) -> None:
    result = found(strategy="auto", trials=trials)
    assert result.history[-1].steps == result.best.steps == 3


def test_one_that_diverges_is_not_the_best() -> None:
    def train(small: nn.Module, _: int) -> None:
        if len(next(small.parameters())) % 2:
            raise DivergenceError("the loss is nan")

    result = found(strategy="random", trials=20, train=train)
    lost = [trial for trial in result.history if math.isinf(trial.loss)]
    assert 0 < len(lost) < 20
    assert math.isfinite(result.loss)


@pytest.mark.parametrize("name", STRATEGIES)
def test_an_interrupted_one_ends_like_an_unbroken_one(tmp_path: Path, name: str) -> None:
    def end() -> None:
        raise KeyboardInterrupt

    whole = found(strategy=name, trials=20)
    journal = tmp_path / "search.sqlite"
    fitness = Fitness(13, end)
    with pytest.raises(KeyboardInterrupt):
        found(strategy=name, trials=20, fitness=fitness, on_trial=fitness.on_trial, journal=journal)
    assert {trial.steps for trial in read_journal(journal).trials} >= {3}
    resumed = found(strategy=name, trials=20, journal=journal)
    assert 13 <= resumed.resumed < 20
    assert resumed.history == whole.history


def test_other_steps_are_another_search(tmp_path: Path) -> None:
    journal = tmp_path / "search.sqlite"
    found(journal=journal)
    with pytest.raises(InputError, match="fitness_steps"):
        found(journal=journal, fitness_steps=4)


@cache
def keep() -> BoolArray:
    """A mask within the budget."""
    return found(strategy="random", trials=1).best.keep


class OfItsOwn:
    """Asks for training whatever it was told of that."""

    settings: Mapping[str, Any] = {"name": "of its own"}

    def __init__(self, steps: Any) -> None:
        self.steps, self.next = steps, 0

    def ask(self) -> Candidate:
        self.next += 1
        return Candidate(self.next - 1, keep(), steps=self.steps)

    def tell(self, candidate: Candidate, loss: float) -> None:
        self.next = candidate.number + 1


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"train": None}, r"train is None, expected a function, for fitness_steps=3$"),
        ({"train": 3}, "train is 3, expected"),
        ({"fitness_steps": -1}, "fitness_steps is -1, expected"),
        ({"fitness_steps": 1.5}, "fitness_steps is 1.5, expected"),
        ({"training_price": 0}, "training_price is 0, expected"),
        ({"strategy": lambda ranker, trials, seed: OfItsOwn(0)}, r"takes steps=$"),
        (
            {"strategy": OfItsOwn(2), "train": None, "fitness_steps": 0},
            "a candidate asks for 2 steps of training without train=$",
        ),
        ({"strategy": OfItsOwn(-2), "fitness_steps": 0}, "steps is -2, expected"),
    ],
)
def test_what_can_not_be_is_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        found(**options)


def test_a_strategy_of_ones_own_may_ask_for_steps() -> None:
    class Twice(OfItsOwn):
        def ask(self) -> Candidate:
            number = self.next
            self.next += 1
            return Candidate(number, keep(), steps=(0, 5)[number % 2])

    result = found(strategy=Twice(0), fitness_steps=0, trials=4)
    assert [(trial.steps, trial.same_as) for trial in result.history] == [
        (0, None),
        (5, None),
        (0, 0),
        (5, 1),
    ]
