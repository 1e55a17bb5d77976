"""Candidates that only tell something: measured on a part, not cut to the budget."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from torch import nn

from lcprune.cost import CostModel
from lcprune.searching import Auto, Candidate, SearchProgress, SearchResult
from lcprune.searching._auto import PART
from searching.small_search import BUDGET, GRAPH, Fitness, press_ctrl_c, run

TRIALS = 28


@cache
def whole() -> SearchResult:
    """Four families: two plans, five probes, an allocation, and moves."""
    return run(strategy="auto", trials=TRIALS)


class Parted:
    """A fitness that says which share of its images it was measured on, and how often."""

    def __init__(self) -> None:
        self.calls = {1.0: 0, PART: 0}
        self.shares: list[float] = []
        self.whole = Fitness()

    def part(self, share: float) -> Callable[[nn.Module], float]:
        self.shares.append(share)
        return lambda small: self.measured(small, share) + 1000

    def __call__(self, small: nn.Module) -> float:
        return self.measured(small, 1.0)

    def measured(self, small: nn.Module, share: float) -> float:
        self.calls[share] += 1
        return self.whole(small)


@pytest.mark.parametrize("stop", [1, 6, 20])
def test_an_interrupted_search_with_probes_ends_like_an_unbroken_one(
    tmp_path: Path, stop: int
) -> None:
    journal = tmp_path / "search.sqlite"
    fitness = Fitness(stop, press_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        run(
            strategy="auto",
            trials=TRIALS,
            fitness=fitness,
            on_trial=fitness.on_trial,
            journal=journal,
        )
    resumed = run(strategy="auto", trials=TRIALS, journal=journal)
    assert resumed.resumed >= stop
    assert resumed.history == whole().history
    assert resumed.plan == whole().plan


class WholeFirst(Auto):
    """Begins with a probe of the whole network, which no plan is as good as."""

    def ask(self) -> Candidate:
        candidate = super().ask()
        if candidate.number:
            return candidate
        return replace(candidate, keep=candidate.keep | True, final=False, share=PART)


def test_a_probe_may_be_above_the_budget_and_is_never_the_result() -> None:
    result = run(strategy=WholeFirst, trials=TRIALS, finalists=TRIALS)
    (limit,) = BUDGET.limits(CostModel(GRAPH).evaluate()).values()
    first, *others = result.history
    assert (first.cost, first.loss, first.share) == (CostModel(GRAPH).evaluate(), 0.0, PART)
    assert {trial.share for trial in others if not trial.final} == {PART}
    assert all(trial.cost["macs"] <= limit for trial in others if trial.final)
    final = [trial for trial in others if trial.final]
    assert 10 < len(final) < len(others)
    assert result.loss == min(trial.loss for trial in final) > first.loss
    assert len(result.finalists) > 1
    assert all(plan.cost["macs"] <= limit for plan in result.finalists)


class ProbeFirst(Auto):
    """The identity again and again, the first time as a probe."""

    def ask(self) -> Candidate:
        number = super().ask().number
        identity = self._ranker.keep(self._ranker.compensation.identity())
        return Candidate(number, identity, 1.0 if number else PART, number > 0)


def test_the_loss_of_a_plan_is_that_on_all_images() -> None:
    result = run(strategy=ProbeFirst, trials=3, fitness=Parted())
    assert [trial.digest for trial in result.history] == 3 * [result.plan.digest]
    assert result.loss_of(result.plan) == result.loss == result.history[1].loss
    assert result.history[0].loss == result.loss + 1000


@pytest.mark.parametrize("kind", [Auto, ProbeFirst])
def test_a_plan_is_measured_again_where_it_was_measured_on_a_part_only(kind: type[Auto]) -> None:
    fitness = Parted()
    result = run(strategy=kind, trials=TRIALS, fitness=fitness)
    shares: dict[str, set[float]] = {}
    for trial in result.history:
        shares.setdefault(trial.digest, set()).add(trial.share)
        known = trial.same_as
        if known is not None:
            same = next(other for other in result.history if other.number == known)
            assert (same.digest, same.share) == (trial.digest, trial.share)
    assert kind is Auto or any(len(found) == 2 for found in shares.values())
    assert fitness.shares == [PART]  # divided once
    assert fitness.calls[PART] + fitness.calls[1.0] == sum(map(len, shares.values()))
    assert all(trial.loss > 1000 for trial in result.history if trial.share < 1)


def test_progress_never_tells_of_a_probe_where_there_is_a_plan() -> None:
    told: list[SearchProgress] = []
    run(strategy="auto", trials=10, on_trial=lambda _, progress: told.append(progress))
    assert all(progress.best.final for progress in told)
    assert [p.best.loss for p in told] == sorted((p.best.loss for p in told), reverse=True)


def test_a_longer_search_goes_on_with_its_own_probes(tmp_path: Path) -> None:
    journal = tmp_path / "search.sqlite"
    run(journal=journal, trials=4, strategy="auto")  # too few for probes
    results = [run(journal=journal, trials=trials, strategy="auto") for trials in (24, 27)]
    first, second = ([trial.note["origin"] for trial in result.history] for result in results)
    assert first[:4] == ["identity", "uniform", "child", "child"]
    assert {"probe", "allocation"} < set(first[4:])
    assert second == first + ["child"] * 3
    assert results[1].loss <= results[0].loss
