import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from graphs import Steps, chain
from lcprune.cost import Budget
from lcprune.criteria import Saliency, saliency
from lcprune.errors import BudgetError, InputError, RunError
from lcprune.ranking import Additive, Ranker, rank
from lcprune.searching import (
    Candidate,
    Evolution,
    SearchProgress,
    Trial,
    read_journal,
    search,
)
from lcprune.slimming import slim, verify
from lcprune.tracing import trace
from networks import random_network
from oracle import randomise
from searching.small_search import (
    BUDGET,
    GRAPH,
    MODEL,
    PROBE,
    SALIENCY,
    TRIALS,
    Fitness,
    evolution,
    press_ctrl_c,
    run,
    unbroken,
)


def test_the_best_plan_is_within_the_budget_and_no_worse_than_the_plain_ranking() -> None:
    result = unbroken()
    plain = rank(GRAPH, SALIENCY, BUDGET)
    assert result.plan.cost["macs"] <= plain.cost["macs"] * 1.2
    assert result.loss == min(trial.loss for trial in result.history) < result.history[0].loss
    assert result.history[0].digest == plain.digest
    assert result.plan.digest == result.best.digest
    latent = result.best.note["latent"]
    assert result.plan.latent == {f"f{i}": tuple(values) for i, values in enumerate(latent)}
    assert (result.trials, result.resumed, len(result.history)) == (TRIALS, 0, TRIALS)
    assert result.seconds == pytest.approx(sum(trial.seconds for trial in result.history))


def test_the_same_seed_gives_the_same_search_and_another_does_not() -> None:
    first, second, other = unbroken(), run(), run(seed=2)
    assert first.history == second.history
    assert first.plan == second.plan
    assert first.history != other.history


def test_a_plan_is_evaluated_once() -> None:
    fitness = Fitness()
    result = run(fitness=fitness, trials=80)
    digests = {trial.digest for trial in result.history}
    assert fitness.calls == len(digests) < 80
    for trial in result.history:
        if trial.same_as is not None:
            first = result.history[trial.same_as]
            assert (first.digest, first.loss, first.same_as) == (trial.digest, trial.loss, None)
            assert set(trial.timing) == {"ask", "plan"}


@pytest.mark.parametrize("stop", [0, 1, 20])
@pytest.mark.parametrize("compensation", ["additive", "affine:rank"])
def test_an_interrupted_search_ends_like_an_unbroken_one(
    tmp_path: Path, stop: int, compensation: str
) -> None:
    journal = tmp_path / "search.sqlite"
    fitness = Fitness(stop, press_ctrl_c)
    options = {"journal": journal, "compensation": compensation}
    with pytest.raises(KeyboardInterrupt):
        run(fitness=fitness, on_trial=fitness.on_trial, **options)
    resumed = run(**options)
    whole = unbroken(compensation)
    assert resumed.resumed >= stop
    assert resumed.history == whole.history
    assert resumed.plan == whole.plan
    assert read_journal(journal).trials == whole.history


@pytest.mark.parametrize("strategy", ["auto", "evolution", "random"])
def test_where_nothing_is_learned_there_is_one_candidate(strategy: str) -> None:
    result = run(strategy=strategy, compensation="none")
    assert (result.trials, result.best.note["origin"]) == (1, "identity")


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from searching import small_search as t
fitness = t.Fitness({stop}, t.kill)
t.run(journal=Path({journal!r}), fitness=fitness, on_trial=fitness.on_trial)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")
def test_a_search_that_was_killed_ends_like_an_unbroken_one(tmp_path: Path) -> None:
    journal = tmp_path / "search.sqlite"
    tests = str(Path(__file__).parents[1])
    script = SCRIPT.format(tests=tests, journal=str(journal), stop=20)
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ, capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    at_death = read_journal(journal).trials
    assert 20 <= len(at_death) < TRIALS
    fitness = Fitness()
    resumed = run(journal=journal, fitness=fitness)
    whole = unbroken()
    assert resumed.history == whole.history
    assert resumed.plan == whole.plan
    assert resumed.resumed == len(at_death)
    plans = [len({trial.digest for trial in trials}) for trials in (at_death, whole.history)]
    assert fitness.calls == plans[1] - plans[0] > 0


def test_a_finished_search_is_answered_from_its_journal(tmp_path: Path) -> None:
    journal = tmp_path / "search.sqlite"
    first = run(journal=journal)
    again = run(journal=journal, fitness=Fitness(0, press_ctrl_c))
    assert (again.plan, again.history, again.seconds) == (first.plan, first.history, first.seconds)
    assert again.resumed == TRIALS


@pytest.mark.parametrize("strategy", [evolution, "auto"], ids=["evolution", "auto"])
def test_more_trials_may_be_asked_for_later(tmp_path: Path, strategy: Any) -> None:
    journal = tmp_path / "search.sqlite"
    short = run(journal=journal, trials=20, strategy=strategy)
    longer = run(journal=journal, trials=26, strategy=strategy)
    assert longer.history[:20] == short.history
    assert longer.trials == 26
    assert longer.loss <= short.loss
    assert read_journal(journal).total == 26


IDENTITY = {"data": "digits", "split": {"recalibrate": 10, "validate": 20}}


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"seed": 1}, "seed was 0 and is 1 now"),
        ({"strategy": "random"}, "strategy.name was 'evolution' and is 'random'"),
        ({"compensation": "affine"}, "compensation was 'additive' and is 'affine'"),
        ({"min_keep": 0.2}, "min_keep was 0.1"),
        ({"round_to": 2}, "round_to was 1 and is 2 now"),
        ({"round_to": "auto"}, "round_to was 1 and is 'auto' now"),
        ({"identity": {**IDENTITY, "data": "cifar10"}}, "run.data was 'digits' and is 'cifar10'"),
        (
            {"identity": {"data": "digits", "split": {"recalibrate": 10, "validate": 30}}},
            "run.split.validate was 20 and is 30",
        ),
        ({"identity": {**IDENTITY, "more": 1}}, "run.more was None and is 1"),
    ],
)
def test_a_journal_of_another_run_is_refused(
    tmp_path: Path, change: dict[str, Any], key: str
) -> None:
    journal = tmp_path / "search.sqlite"
    run(journal=journal, trials=3, identity=IDENTITY)
    before = journal.read_bytes()
    with pytest.raises(RunError, match=key):
        run(**{"journal": journal, "trials": 3, "identity": IDENTITY, **change})
    assert journal.read_bytes() == before


def test_a_journal_of_other_widths_is_refused(tmp_path: Path) -> None:
    table = Steps(((3, 8, 24), (2, 20), (3, 14, 28), (8, 16, 32)))
    another = Steps(((3, 8, 24), (2, 20), (3, 14, 28), (8, 24, 32)))
    how = {"journal": tmp_path / "search.sqlite", "trials": 3, "round_to": "auto"}
    plan = run(resources=[table], **how).plan
    assert run(resources=[table], **how).plan == plan
    with pytest.raises(RunError, match="widths_sha256 was"):
        run(resources=[another], **how)


@pytest.mark.parametrize(
    ("budget", "other", "key"),
    [
        (Budget(macs=0.6), SALIENCY, "budget.macs"),
        (Budget(params=0.5), SALIENCY, "budget.macs"),
        (BUDGET, saliency(MODEL, GRAPH, "l1"), "criterion was 'l2' and is 'l1'"),
        (BUDGET, Saliency(SALIENCY.values[::-1].copy(), "l2", "sum"), "the saliencies differ"),
        (BUDGET, Saliency(SALIENCY.values, "l2", "max"), "reduction"),
    ],
)
def test_another_budget_or_saliency_is_refused(
    tmp_path: Path, budget: Budget, other: Saliency, key: str
) -> None:
    journal = tmp_path / "search.sqlite"
    run(journal=journal, trials=3)
    with pytest.raises(RunError, match=key):
        run(other, budget, trials=3, journal=journal)


def test_another_graph_is_refused(tmp_path: Path) -> None:
    journal = tmp_path / "search.sqlite"
    run(journal=journal, trials=3)
    model, graph = chain([24, 20, 32, 28])
    with pytest.raises(RunError, match="graph was"):
        search(
            model,
            graph,
            saliency(model, graph),
            Budget(macs=read_journal(journal).identity["budget"]["macs"]),
            fitness=Fitness(),
            trials=3,
            journal=journal,
            strategy=evolution,
        )


def test_another_machine_warns_and_goes_on(tmp_path: Path) -> None:
    journal = tmp_path / "search.sqlite"
    settings = {"data": "digits", "environment": {"precision": "bfloat16", "threads": 2}}
    run(journal=journal, trials=8, identity=settings)
    settings = {"data": "digits", "environment": {"precision": "float32", "threads": 2}}
    with pytest.warns(UserWarning, match="environment.precision was 'bfloat16' and is 'float32'"):
        result = run(journal=journal, identity=settings)
    assert result.resumed == 8
    assert result.history == unbroken().history
    assert read_journal(journal).identity["environment"]["precision"] == "bfloat16"


def test_saliencies_that_differ_in_the_last_digits_give_way_to_those_of_the_journal(
    tmp_path: Path,
) -> None:
    journal = tmp_path / "search.sqlite"
    run(journal=journal, trials=8)
    shaken = Saliency(SALIENCY.values * (1 + 1e-9), "l2", "sum")
    with pytest.warns(UserWarning, match="last digits"):
        result = run(shaken, journal=journal)
    assert result.history == unbroken().history
    assert result.plan == unbroken().plan


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_counts_as_infinite(tmp_path: Path, bad: float) -> None:
    journal = tmp_path / "search.sqlite"
    inner = Fitness()

    def fitness(small: nn.Module) -> float:
        loss = inner(small)
        return bad if inner.calls % 2 else loss

    result = run(fitness=fitness, journal=journal)
    losses = [trial.loss for trial in read_journal(journal).trials]
    assert losses[0] == math.inf
    assert math.isfinite(result.loss)
    assert result.loss == min(losses)


def test_no_finite_loss_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no candidate of 5 has a finite loss"):
        run(fitness=lambda small: math.nan, trials=5)


def test_a_candidate_is_slimmed_prepared_recalibrated_and_measured_in_this_order() -> None:
    calls: list[str] = []

    def prepare(small: nn.Module) -> nn.Module:
        calls.append("prepare")
        assert sum(p.numel() for p in small.parameters()) < sum(
            p.numel() for p in MODEL.parameters()
        )
        return nn.Sequential(small)

    def recalibrate(small: nn.Module) -> None:
        calls.append("recalibrate")
        assert isinstance(small[0], nn.Sequential)  # type: ignore[index]

    def fitness(small: nn.Module) -> float:
        calls.append("fitness")
        return 0.0

    result = run(fitness=fitness, prepare=prepare, recalibrate=recalibrate, trials=1)
    assert calls == ["prepare", "recalibrate", "fitness"]
    assert list(result.best.timing) == ["ask", "plan", "slim", *calls]


def test_the_model_and_the_global_generator_are_left_alone() -> None:
    before = {name: value.clone() for name, value in MODEL.state_dict().items()}
    state = torch.get_rng_state()
    run(fitness=lambda small: float(torch.rand(())), trials=5)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in MODEL.state_dict().items())


def test_a_fitness_that_draws_says_the_same_of_the_same_plan() -> None:
    seen: list[list[float]] = []
    for junk in range(2):
        torch.manual_seed(junk)
        result = run(fitness=lambda small: float(torch.rand(())), trials=30)
        seen.append([trial.loss for trial in result.history])
    assert seen[0] == seen[1]
    assert len(set(seen[0])) > 15


def test_progress_is_told_after_every_new_trial(tmp_path: Path) -> None:
    journal = tmp_path / "search.sqlite"
    told: list[tuple[Trial, SearchProgress]] = []

    def on_trial(trial: Trial, progress: SearchProgress) -> None:
        # Whoever is told of a trial finds it in the journal.
        assert read_journal(journal).trials[-1] == trial
        told.append((trial, progress))

    run(journal=journal, trials=4)
    result = run(journal=journal, trials=10, on_trial=on_trial)
    assert [trial.number for trial, _ in told] == [4, 5, 6, 7, 8, 9]
    assert [progress.done for _, progress in told] == [5, 6, 7, 8, 9, 10]
    assert {progress.total for _, progress in told} == {10}
    for trial, progress in told:
        assert progress.best.loss == min(t.loss for t in result.history[: trial.number + 1])
    assert [progress.seconds_left > 0 for _, progress in told] == [True] * 5 + [False]


def test_without_compensation_there_is_one_candidate() -> None:
    result = run(compensation="none")
    assert result.trials == 1
    assert result.plan.digest == rank(GRAPH, SALIENCY, BUDGET).digest
    assert result.plan.compensation == "none"


def test_a_strategy_of_ones_own() -> None:
    compensation = Additive(GRAPH, SALIENCY, "std")
    ranker = Ranker(GRAPH, SALIENCY, BUDGET, compensation=compensation)
    strategy = Evolution(ranker, 30, population=8, tournament=2)
    result = run(compensation=compensation, strategy=strategy, trials=30)
    assert [trial.note["origin"] for trial in result.history].count("child") == 22
    assert result.plan.compensation == "additive:std"


class Masks:
    """Proposes what it is given, without any latent."""

    settings: Mapping[str, Any] = {"name": "masks"}

    def __init__(self, *candidates: Candidate) -> None:
        self.left = list(candidates)
        self.told: list[Candidate] = []

    def ask(self) -> Candidate:
        return self.left.pop(0)

    def tell(self, candidate: Candidate, loss: float) -> None:
        self.told.append(candidate)


def legal(*note: dict[str, Any]) -> list[Candidate]:
    """Masks within the budget, with these notes."""
    ranker = Ranker(GRAPH, SALIENCY, BUDGET)
    draw = ranker.compensation.draw
    return [
        Candidate(i, ranker.keep(draw(np.random.default_rng(i))), note=own)
        for i, own in enumerate(note)
    ]


def test_masks_need_no_latent(tmp_path: Path) -> None:
    journal = tmp_path / "search.sqlite"
    strategy = Masks(*legal({}, {"why": ["a", {"b": 1 / 3}]}, {}))
    result = run(strategy=strategy, trials=3, journal=journal)
    assert (result.plan.compensation, result.plan.latent) == (None, {})
    assert result.plan.criterion == "l2"
    masks = [trial.keep.tolist() for trial in read_journal(journal).trials]
    assert masks == [candidate.keep.tolist() for candidate in strategy.told]
    assert read_journal(journal).trials[1].note == {"why": ["a", {"b": 1 / 3}]}
    assert strategy.told[1].note == {"why": ["a", {"b": 1 / 3}]}


def test_a_mask_may_be_a_list_and_is_changed_by_nobody() -> None:
    (first,) = legal({})

    class Same(Masks):
        def tell(self, candidate: Candidate, loss: float) -> None:
            if candidate.number == 0:
                first.keep[:] = False

    second = replace(first, number=1, keep=first.keep.tolist())  # type: ignore[arg-type]
    history = run(strategy=Same(first, second), trials=2).history
    assert history[0].keep.tolist() == history[1].keep.tolist()
    assert history[1].same_as == 0


def test_a_plan_names_no_latent_that_did_not_give_it() -> None:
    true = np.random.default_rng(0)
    latent = Ranker(GRAPH, SALIENCY, BUDGET).compensation.draw(true).tolist()
    for given, named in ((latent, True), ([[0.0]] * 4, False)):
        plan = run(strategy=Masks(*legal({"latent": given})), trials=1).plan
        assert bool(plan.latent) is named
        assert plan.compensation == ("additive" if named else None)
    with pytest.raises(InputError, match=r"beta of \(2, 1\), expected \(4, 1\)"):
        run(strategy=Masks(*legal({"latent": [[0.0]] * 2})), trials=1)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"keep": np.ones(GRAPH.prunable, dtype=np.bool_)}, "macs, expected at most"),
        ({"keep": np.ones(3, dtype=np.bool_)}, r"mask of bool \(3,\), expected bool"),
        ({"keep": np.ones(GRAPH.prunable)}, "mask of float64"),
        ({"keep": np.arange(GRAPH.prunable) % 24 == 0}, "keeps 1 channels of f0, .* at least 3"),
        ({"number": 4}, "number 4, expected 1"),
        ({"number": 0}, "number 0, expected 1"),
        ({"share": 0.0}, "share of 0.0, expected more than 0"),
        ({"share": 1.5}, "share of 1.5"),
        ({"note": {"set": {1}}}, "its note is not JSON"),
        ({"note": {"loss": math.nan}}, "its note is not JSON"),
    ],
)
def test_a_candidate_that_can_not_be_tried_is_refused(
    tmp_path: Path, change: dict[str, Any], part: str
) -> None:
    journal = tmp_path / "search.sqlite"
    good, bad = legal({}, {})
    with pytest.raises(InputError, match=f"candidate 1 of strategy masks: .*{part}"):
        run(strategy=Masks(good, replace(bad, **change)), trials=2, journal=journal)
    assert len(read_journal(journal).trials) == 1


@pytest.mark.parametrize("kind", [str, Path])
def test_a_journal_is_named_by_text_or_a_path(tmp_path: Path, kind: type) -> None:
    journal = kind(tmp_path / "search.sqlite")
    first = run(journal=journal, trials=3)
    assert read_journal(journal).trials == first.history
    assert run(journal=journal, trials=5).resumed == 3
    with pytest.raises(RunError, match=r"search\.sqlite is of another run"):
        run(journal=journal, trials=3, seed=9)


def test_nothing_is_written_for_what_can_not_begin(tmp_path: Path) -> None:
    journal = tmp_path / "search.sqlite"
    with pytest.raises(BudgetError, match="least possible"):
        search(MODEL, GRAPH, SALIENCY, Budget(macs="1%"), fitness=Fitness(), journal=journal)
    for bad in ({"trials": 0}, {"strategy": "x"}, {"compensation": "x"}, {"identity": {"a": {1}}}):
        with pytest.raises(InputError):
            run(**{"journal": journal, **bad})
    with pytest.raises(InputError, match="finite"):
        search(
            MODEL,
            GRAPH,
            Saliency(np.full(GRAPH.prunable, np.nan), "l2", "sum"),
            BUDGET,
            fitness=Fitness(),
            journal=journal,
        )
    assert list(tmp_path.iterdir()) == []


def test_the_identity_in_the_journal_is_plain_json(tmp_path: Path) -> None:
    journal = tmp_path / "search.sqlite"
    run(journal=journal, trials=2, identity=IDENTITY)
    identity = json.loads(json.dumps(read_journal(journal).identity))
    assert identity["run"] == IDENTITY
    assert identity["budget"] == BUDGET.limits({"macs": 2 * identity["budget"]["macs"] + 1})
    assert identity["environment"]["threads"] == torch.get_num_threads()


def test_batches_recalibrate_every_candidate_even_from_an_iterator() -> None:
    batches = [PROBE + shift for shift in range(3)]
    assert MODEL[1].running_mean.abs().max() == 0

    def fitness(small: nn.Module) -> float:
        mean = torch.stack([small[0](batch).mean((0, 2, 3)) for batch in batches]).mean(0)
        return float((small[1].running_mean - mean).detach().abs().max())

    losses = [
        [trial.loss for trial in run(fitness=fitness, recalibrate=given, trials=20).history]
        for given in (batches, iter(batches))
    ]
    assert max(losses[0]) < 1e-5
    assert losses[0] == losses[1]
    assert min(trial.loss for trial in run(fitness=fitness, trials=20).history) > 1e-2


def test_a_traced_network_is_searched() -> None:
    model, example = random_network(11)
    model = randomise(model, 11)
    graph = trace(model, example)
    with torch.no_grad():
        target = model(example)

    def fitness(small: nn.Module) -> float:
        with torch.no_grad():
            return float((small.eval()(example) - target).square().mean())

    result = search(
        model,
        graph,
        saliency(model, graph),
        Budget(macs=0.6, params=0.8),
        fitness=fitness,
        trials=20,
        compensation="additive:rank",
    )
    small = slim(model, result.plan)
    assert fitness(small) == result.loss < result.history[0].loss
    assert verify(model, small, result.plan, example) <= 1e-9
