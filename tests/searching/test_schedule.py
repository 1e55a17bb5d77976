import random
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from graphs import chain
from lcprune.cost import Budget
from lcprune.criteria import saliency
from lcprune.ranking import Ranker
from lcprune.searching import (
    Evaluation,
    Evolution,
    InProcess,
    Job,
    SearchProgress,
    SearchResult,
    Trial,
    Work,
    read_journal,
    search,
)

# So small that many candidates have the same plan.
MODEL, GRAPH = chain([6, 5, 7, 6])
SALIENCY = saliency(MODEL, GRAPH, "l2")
BUDGET = Budget(macs=0.5)
TRIALS = 32

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where a journal need not wait for a disk, if there is such a place."""

SEEDS = st.integers(0, 2**20)
CAPACITIES = st.integers(2, 6)
few = settings(max_examples=10)


class StopError(Exception):
    """The process would be gone here."""


class Disorder:
    """Workers that finish in an order that follows from ``seed`` and from what is in flight.

    The loss is a number made from the plan. The ``stop``-th event (a job taken, waited for,
    finished, told) ends the search.
    """

    environment: Mapping[str, Any] = {}

    def __init__(self, capacity: int, seed: int = 0, stop: int | None = None) -> None:
        self.capacity = capacity
        self.seed = seed
        self.stop = stop
        self.events = 0
        self.running: dict[int, Job] = {}
        self.evaluated: list[str] = []
        self.most = 0
        self.closed = False

    def start(self, work: Work) -> "Disorder":
        return self

    def submit(self, job: Job) -> None:
        self.event()
        self.running[job.number] = job
        self.most = max(self.most, len(self.running))

    def next(self) -> Evaluation:
        self.event()
        numbers = sorted(self.running)
        number = random.Random(f"{self.seed} {numbers}").choice(numbers)
        job = self.running.pop(number)
        self.event()
        self.evaluated.append(job.digest)
        return Evaluation(number, loss_of(job.digest), {"fitness": 0.25})

    def close(self) -> None:
        self.closed = True

    def on_trial(self, trial: Trial, progress: SearchProgress) -> None:
        self.event()

    def event(self) -> None:
        self.events += 1
        if self.events == self.stop:
            raise StopError


def loss_of(digest: str) -> float:
    return int(digest[:8], 16) / 2**32


def fitness(small: nn.Module) -> float:
    raise AssertionError("the executor evaluates")


def evolution() -> Evolution:
    ranker = Ranker(GRAPH, SALIENCY, BUDGET)
    return Evolution(ranker, TRIALS, population=8, tournament=3, share=0.5)


def run(executor: Disorder, journal: Path | None = None, **options: Any) -> SearchResult:
    options = {"strategy": evolution(), **options}
    return search(
        MODEL,
        GRAPH,
        SALIENCY,
        BUDGET,
        fitness=fitness,
        trials=TRIALS,
        journal=journal,
        executor=executor,
        on_trial=executor.on_trial,
        **options,
    )


def check_resumed(capacity: int, seed: int, stop: int, later: int) -> None:
    whole = run(Disorder(capacity, seed))
    with TemporaryDirectory(dir=MEMORY) as folder:
        journal = Path(folder) / "search.sqlite"
        for moment in (stop, later):
            executor = Disorder(capacity, seed, moment)
            try:
                run(executor, journal)
            except StopError:
                assert executor.closed
        resumed = run(Disorder(capacity, seed), journal)
        assert resumed.history == whole.history
        assert resumed.plan == whole.plan
        record = read_journal(journal)
        assert record.trials == whole.history
        assert record.in_flight == ()


ANYWHERE = {"stop": st.integers(1, 130), "later": st.integers(1, 130)}


@few
@given(capacity=CAPACITIES, seed=SEEDS, **ANYWHERE)
def test_a_search_that_ends_anywhere_goes_on_like_an_unbroken_one(
    capacity: int, seed: int, stop: int, later: int
) -> None:
    check_resumed(capacity, seed, stop, later)


@pytest.mark.thorough
@settings(max_examples=100)
@given(capacity=CAPACITIES, seed=SEEDS, **ANYWHERE)
def test_so_it_does_from_many_moments(capacity: int, seed: int, stop: int, later: int) -> None:
    check_resumed(capacity, seed, stop, later)


@few
@given(capacity=CAPACITIES, seed=SEEDS, stop=st.integers(1, 160))
def test_a_journal_gives_back_the_state_of_the_strategy(
    capacity: int, seed: int, stop: int
) -> None:
    live, again = evolution(), evolution()
    with TemporaryDirectory(dir=MEMORY) as folder:
        journal = Path(folder) / "search.sqlite"
        with suppress(StopError):
            run(Disorder(capacity, seed, stop), journal, strategy=live)
        record = read_journal(journal)
    record.replay(again)
    assert again.population == live.population
    expected, found = live.ask(), again.ask()
    assert (found.number, found.note) == (expected.number, expected.note)
    assert found.keep.tolist() == expected.keep.tolist()


@few
@given(capacity=CAPACITIES, seed=SEEDS)
def test_candidates_are_those_that_the_replayed_strategy_proposes(capacity: int, seed: int) -> None:
    history = run(Disorder(capacity, seed)).history
    strategy, asked = evolution(), 0
    notes = {trial.number: trial.note for trial in history}
    after = {
        trial.number: position if trial.asked_after is None else trial.asked_after
        for position, trial in enumerate(history)
    }
    for position, trial in enumerate(history):
        while asked < len(history) and after[asked] == position:
            candidate = strategy.ask()
            assert candidate.number == asked
            assert candidate.note == notes[asked]
            asked += 1
        strategy.tell(trial.candidate, trial.loss)
    assert asked == len(history) == TRIALS
    assert [trial.asked_after for trial in history] != [None] * TRIALS


@few
@given(capacity=CAPACITIES, seed=SEEDS)
def test_a_plan_that_is_known_or_in_flight_is_not_evaluated_again(capacity: int, seed: int) -> None:
    executor = Disorder(capacity, seed)
    history = run(executor).history
    assert len(executor.evaluated) == len(set(executor.evaluated)) < TRIALS
    assert set(executor.evaluated) == {trial.digest for trial in history}
    assert 2 <= executor.most <= capacity
    first: dict[str, Trial] = {}
    for trial in history:
        known = first.setdefault(trial.digest, trial)
        assert trial.same_as == (None if known is trial else known.number)
        assert trial.loss == known.loss == loss_of(trial.digest)
    in_flight = [t for t in history if t.same_as is not None and t.asked_after is not None]
    assert all("fitness" not in trial.timing for trial in in_flight)


def test_some_plans_are_asked_for_while_they_are_in_flight() -> None:
    twins = 0
    for seed in range(10):
        history = run(Disorder(4, seed)).history
        at = {trial.number: position for position, trial in enumerate(history)}
        for trial in history:
            if trial.same_as is not None and trial.asked_after is not None:
                twins += trial.asked_after <= at[trial.same_as]
    assert twins > 3


@few
@given(capacity=CAPACITIES, seed=SEEDS)
def test_a_random_search_finds_the_same_in_any_order(capacity: int, seed: int) -> None:
    def found(executor: Disorder) -> set[tuple[int, str, float]]:
        history = run(executor, strategy="random").history
        assert sorted(trial.number for trial in history) == list(range(TRIALS))
        return {(trial.number, trial.digest, trial.loss) for trial in history}

    assert found(Disorder(capacity, seed)) == found(Disorder(1))


@few
@given(capacities=st.lists(st.integers(1, 5), min_size=2, max_size=4), seed=SEEDS)
def test_a_search_goes_on_with_more_or_fewer_workers(capacities: list[int], seed: int) -> None:
    evaluated: list[str] = []
    with TemporaryDirectory(dir=MEMORY) as folder:
        journal = Path(folder) / "search.sqlite"
        for capacity in capacities:
            executor = Disorder(capacity, seed, stop=25)
            with suppress(StopError):
                run(executor, journal)
            assert executor.most <= capacity
            evaluated += executor.evaluated
        last = Disorder(3, seed)
        history = run(last, journal).history
    assert sorted(trial.number for trial in history) == list(range(TRIALS))
    # What was evaluated and not yet written down is lost, once an interruption.
    evaluated += last.evaluated
    assert len(evaluated) - len(set(evaluated)) <= len(capacities)


def test_more_trials_may_be_asked_for_while_some_are_in_flight(tmp_path: Path) -> None:
    journal = tmp_path / "search.sqlite"
    with pytest.raises(StopError):
        run(Disorder(4, 0, stop=40), journal)
    before = read_journal(journal)
    assert before.in_flight
    few = len(before.trials) + 1
    search(
        MODEL,
        GRAPH,
        SALIENCY,
        BUDGET,
        fitness=fitness,
        trials=few,
        journal=journal,
        strategy=evolution(),
        executor=Disorder(4, 0),
    )
    assert len(read_journal(journal).trials) == few
    assert len(run(Disorder(2, 1), journal).history) == TRIALS


def test_a_finished_search_starts_no_workers(tmp_path: Path) -> None:
    class Never(Disorder):
        def start(self, work: Work) -> Disorder:
            raise AssertionError("there is nothing to do")

    journal = tmp_path / "search.sqlite"
    first = run(Disorder(3), journal)
    assert run(Never(3), journal).history == first.history


def test_workers_are_closed_when_the_fitness_fails() -> None:
    class Failing(Disorder):
        def next(self) -> Evaluation:
            raise ZeroDivisionError

    executor = Failing(3)
    with pytest.raises(ZeroDivisionError):
        run(executor)
    assert executor.closed


def test_in_process_nothing_is_written_but_trials(tmp_path: Path) -> None:
    journal = tmp_path / "search.sqlite"
    in_flight: list[int] = []

    def loss(small: nn.Module) -> float:
        in_flight.append(len(read_journal(journal).in_flight))
        return float(sum(parameter.numel() for parameter in small.parameters()))

    options: dict[str, Any] = {"fitness": loss, "trials": 12, "journal": journal}
    result = search(MODEL, GRAPH, SALIENCY, BUDGET, executor=InProcess(), **options)
    assert set(in_flight) == {0}
    assert [trial.asked_after for trial in result.history] == [None] * 12
    assert [trial.number for trial in result.history] == list(range(12))


def test_the_environment_of_an_executor_belongs_to_the_run(tmp_path: Path) -> None:
    class Elsewhere(Disorder):
        environment: Mapping[str, Any] = {"executor": "elsewhere", "threads": 7}

    journal = tmp_path / "search.sqlite"
    with pytest.raises(StopError):
        run(Elsewhere(2, stop=30), journal, identity={"environment": {"device": "cpu"}})
    environment = read_journal(journal).identity["environment"]
    assert environment["device"] == "cpu"
    assert (environment["executor"], environment["threads"]) == ("elsewhere", 7)
    with pytest.warns(UserWarning, match="environment"):
        run(Disorder(2), journal, identity={"environment": {"device": "cpu"}})


class Clock:
    """A clock that stands still but where a job is waited for: a second each."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Slow(Disorder):
    def __init__(self, clock: Clock, capacity: int, stop: int | None = None) -> None:
        super().__init__(capacity, 0, stop)
        self.clock = clock

    def start(self, work: Work) -> Disorder:
        self.clock.now += 5  # a cluster that begins
        return self

    def next(self) -> Evaluation:
        self.clock.now += 1
        return super().next()


@pytest.mark.parametrize("capacity", [1, 4])
def test_seconds_are_those_of_the_clock_over_all_sittings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capacity: int
) -> None:
    clock = Clock()
    monkeypatch.setattr("lcprune.searching._schedule.clock", clock)
    journal = tmp_path / "search.sqlite"
    with pytest.raises(StopError):
        run(Slow(clock, capacity, stop=30), journal)
    trials = read_journal(journal).trials
    # Less what was waited for and not told any more.
    assert 0 <= clock.now - 100 - sum(trial.seconds for trial in trials) <= 1
    before, clock.now = sum(trial.seconds for trial in trials), 1000.0
    result = run(Slow(clock, capacity), journal)
    assert result.resumed == len(trials) < TRIALS
    assert result.seconds == before + clock.now - 1000
    assert result.history[result.resumed].seconds >= 5
    # Jobs that run side by side take their own time, and the clock's only once.
    own = sum(trial.timing.get("fitness", 0) for trial in result.history)
    assert own == 0.25 * len({trial.digest for trial in result.history})
    clock.now = 5000.0
    assert run(Slow(clock, capacity), journal).seconds == result.seconds
