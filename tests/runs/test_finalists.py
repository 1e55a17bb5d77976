"""The second stage of a search: its finalists are trained for a few steps and judged again."""

from __future__ import annotations

import itertools
import json
import shlex
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from digit_runs import Prune, outcome
from lcprune.artifact import PLAN, read_plan
from lcprune.cli import main
from lcprune.data import training_batches
from lcprune.fitness import recalibrate
from lcprune.ranking import rank
from lcprune.runs import (
    JOURNAL,
    RUN,
    SUMMARY,
    Problem,
    PruneOptions,
    RunRecord,
    Silent,
    _finalists,
    prune_job,
    read_run,
    read_summary,
)
from lcprune.searching import Trial, read_journal
from lcprune.slimming import slim
from lcprune.training import TrainingConfig, finetune

from .interrupting import StopAt

FINALISTS = {"finalists": 3, "finalist_steps": 5, "strategy": "evolution"}


class Lines(Silent):
    """Keeps what is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def stage(self, text: str) -> None:
        self.told.append(text)


@pytest.fixture(scope="module")
def asked(options: dict[str, Any]) -> dict[str, Any]:
    return options | FINALISTS


@pytest.fixture(scope="module")
def tried(asked: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished run with finalists; only to be read."""
    out = tmp_path_factory.mktemp("tried") / "out"
    prune_job(PruneOptions.of(asked), out)
    return out


def finalists_of(out: Path) -> list[tuple[Trial, float]]:
    """The trials that were the finalists of a run, and their losses after the training."""
    summary = read_summary(out)
    assert summary.finalists is not None
    trials = read_journal(out / JOURNAL).trials
    found = []
    for finalist in summary.finalists:
        assert finalist.loss_trained is not None
        [trial] = [t for t in trials if t.loss == finalist.loss_search and t.same_as is None]
        found.append((trial, finalist.loss_trained))
    return found


def network(problem: Problem, trial: Trial) -> nn.Module:
    """The network of a trial, cut and recalibrated."""
    plan = rank(problem.graph, problem.saliency, problem.budget, np.array(trial.note["latent"]))
    assert plan.digest == trial.digest
    small = slim(problem.model, plan)
    images = problem.data.train.subset(problem.split.recalibrate).in_memory()
    recalibrate(small, [problem.data.normalise(images.pixels)])
    return small


def test_each_loss_is_that_of_a_short_fine_tuning_on_fresh_images(
    tried: Path, asked: dict[str, Any]
) -> None:
    """Made again from the parts: same batches, a fifth of the rate, the original as teacher."""
    problem = Problem.of(PruneOptions.of(asked))
    train, split = problem.data.train, problem.split
    fresh = set(split.fresh.tolist())
    assert len(fresh) == len(split.validate) == asked["fitness_images"]
    rest = train.subset(torch.tensor([i for i in range(len(train)) if i not in fresh]))
    batches = list(itertools.islice(training_batches(rest, problem.data, 128, seed=1), 5))
    judged = train.subset(split.fresh).in_memory()
    config = TrainingConfig(epochs=1, learning_rate=TrainingConfig().learning_rate / 5, seed=1)
    config = replace(config, channels_last=False)
    for trial, loss in finalists_of(tried):
        small = network(problem, trial)
        finetune(small, batches, teacher=problem.model, config=config)
        with torch.no_grad():
            outputs = small(problem.data.normalise(judged.pixels))
        assert loss == pytest.approx(float(functional.cross_entropy(outputs, judged.labels)), 1e-4)


def test_the_plan_is_the_best_one_after_the_training(
    tmp_path: Path, tried: Path, asked: dict[str, Any]
) -> None:
    """In this run it is not the search's best, and the search is that without finalists."""
    found = finalists_of(tried)
    losses = [loss for _, loss in found]
    assert len(found) == 3
    assert losses.index(min(losses)) == 1
    plan = read_plan(tried)
    without = tmp_path / "without"
    prune_job(PruneOptions.of(asked | {"finalists": 1, "finetune_epochs": 0}), without)
    assert plan.digest == found[1][0].digest
    assert read_plan(without).digest == found[0][0].digest
    summary = read_summary(tried)
    assert summary.loss_search_best == found[0][0].loss
    macs = summary.costs["macs"]
    assert macs.limit is not None
    assert macs.after == plan.cost["macs"] <= macs.limit
    one, other = (read_journal(out / JOURNAL) for out in (tried, without))
    assert (one.identity, one.trials) == (other.identity, other.trials)


def test_what_is_fine_tuned_has_not_had_the_steps(
    tmp_path: Path, asked: dict[str, Any], tried: Path
) -> None:
    out = tmp_path / "out"
    untrained = {"finetune_epochs": 0, "reconstruct": False}
    prune_job(PruneOptions.of(asked | untrained), out)
    assert (out / PLAN).read_bytes() == (tried / PLAN).read_bytes()
    problem = Problem.of(PruneOptions.of(asked))
    expected = network(problem, finalists_of(out)[1][0]).state_dict()
    for name, saved in load_file(out / "model.safetensors").items():
        torch.testing.assert_close(saved, expected[name])


@pytest.mark.thorough
def test_ctrl_c_between_two(
    tmp_path: Path,
    tried: Path,
    prune: Prune,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        stop = StopAt("finalists", 1, signal.SIGINT)
        patch.setattr("lcprune.cli._commands.OnConsole", lambda *_: stop)
        assert prune(out, **FINALISTS) == 130
    line = capsys.readouterr().err.strip().partition("to go on: ")[2]
    assert main(shlex.split(line)[1:]) == 0
    assert outcome(out) == outcome(tried)


def test_a_loss_that_is_known_is_not_found_again(
    tmp_path: Path, tried: Path, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor doubted: the third, said to be the best, is the plan."""
    third = finalists_of(tried)[2][0]
    out = tmp_path / "out"
    prune_job(PruneOptions.of(asked | {"finetune_epochs": 0}), out)
    (out / SUMMARY).unlink()
    record = read_run(out)
    state = {**record.state, f"finalist {third.digest}": 0.01}
    (out / RUN).write_text(RunRecord("prune", record.configuration, state).to_json())
    monkeypatch.setattr(_finalists, "try_plans", None)
    assert main(["prune", "--out", str(out), "--resume"]) == 0
    assert read_plan(out).digest == third.digest


def test_what_is_told(tmp_path: Path, asked: dict[str, Any], tried: Path) -> None:
    reporter = Lines()
    prune_job(PruneOptions.of(asked | {"finetune_epochs": 0}), tmp_path / "out", reporter=reporter)
    losses = ", ".join(f"{loss:.4f}" for _, loss in finalists_of(tried))
    line = f"finalists: trained 5 steps each, losses {losses}, plan 2 of 3 is kept"
    assert [text for text in reporter.told if text.startswith("finalists")] == [line]


def test_without_them_there_is_nothing_of_it(finished: Path) -> None:
    assert json.loads((finished / SUMMARY).read_text())["finalists"] is None
    assert not [key for key in read_run(finished).state if key.startswith("finalist")]


def test_where_there_is_only_one_plan_nothing_is_trained(
    tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_finalists, "try_plans", None)
    reporter = Lines()
    changes = FINALISTS | {"compensation": "none", "finetune_epochs": 0}
    summary = prune_job(PruneOptions.of(options | changes), tmp_path / "out", reporter=reporter)
    assert summary.finalists is not None
    [only] = summary.finalists
    assert (only.loss_search, only.loss_trained) == (summary.loss_search_best, None)
    assert any(text.startswith("finalists: no other plan") for text in reporter.told)


def test_losses_that_are_not_finite(
    tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search's best stays where nothing speaks for another; JSON has no infinity."""
    monkeypatch.setattr(_finalists, "try_plans", lambda *_, **__: [float("inf")])
    reporter = Lines()
    config = PruneOptions.of(options | FINALISTS | {"finetune_epochs": 0})
    summary = prune_job(config, tmp_path / "out", reporter=reporter)
    assert summary.finalists is not None
    assert [finalist.loss_trained for finalist in summary.finalists] == [None] * 3
    line = "losses not finite, not finite, not finite, plan 1 of 3 is kept"
    assert any(text.endswith(line) for text in reporter.told)
    assert read_summary(tmp_path / "out") == summary


def test_the_images_are_out_of_those_held_out(options: dict[str, Any]) -> None:
    config = PruneOptions.of(options | FINALISTS | {"hold_out": 4, "fitness_images": 60})
    problem = Problem.of(config)
    assert problem.held is not None
    split = problem.split
    assert len(split.fresh) == 60
    assert not set(split.fresh.tolist()) & set(split.validate.tolist())
    held = problem.held.subset(split.fresh).in_memory()
    assert torch.equal(problem.fresh.in_memory().pixels, held.pixels)
    assert problem.finalist_training is problem.data.train


@pytest.mark.thorough
def test_a_rate_by_a_range_test_is_found_once(
    tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = []

    def noted(*arguments: Any, config: TrainingConfig, **others: Any) -> list[float]:
        rates.append(config.learning_rate)
        return [0.5]

    monkeypatch.setattr(_finalists, "try_plans", noted)
    changes = FINALISTS | {"learning_rate": "auto", "finetune_epochs": 0}
    prune_job(PruneOptions.of(options | changes), tmp_path / "out")
    found = read_run(tmp_path / "out").state["finalists learning rate"]
    assert rates == [_finalists.RATE * found] * 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"finalists": 0}, "finalists = 0: expected at least 1"),
        ({"finalists": -2}, "finalists"),
        ({"finalists": "few"}, "finalists = 'few': expected an integer"),
        ({"finalist_steps": 0}, "finalist_steps = 0: expected at least 1"),
        ({"finalists": 2, "fitness_images": 1000}, "images to judge finalists on, got 338"),
        ({"finalists": 2, "fitness_images": 5000}, "images to judge finalists on, got 0"),
        ({"finalists": 2, "hold_out": 10, "fitness_images": 80}, "images held out"),
    ],
)
def test_what_cannot_be(
    tmp_path: Path,
    prune: Prune,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    message: str,
) -> None:
    assert prune(tmp_path / "out", **changes) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "out").exists()
    if "fitness_images" in changes:  # enough for a search alone
        Problem.of(PruneOptions.of({**NEEDED, **changes, "finalists": 1}))


NEEDED = {"model": "digits_resnet", "data": "digits", "weights": "random", "budget": ["macs=50%"]}


@pytest.mark.parametrize("strategy", ["evolution", "auto"])
def test_candidates_are_trained_before_they_are_judged(
    options: dict[str, Any], tmp_path: Path, strategy: str
) -> None:
    """As finalists are, on images that none is judged on."""
    out = tmp_path / "out"
    asked = options | {"strategy": strategy, "fitness_steps": 4, "trials": 12}
    reporter = Lines()
    asked |= {"finetune_epochs": 0}
    summary = prune_job(PruneOptions.of(asked), out, reporter=reporter)
    told = f"search: loss {summary.loss_search_best:.4f} (trained 4 steps) after 12 trials"
    assert told in reporter.told
    trials = read_journal(out / JOURNAL).trials
    assert {t.steps for t in trials} == ({4} if strategy == "evolution" else {0, 4})
    best = min((t for t in trials if t.steps), key=lambda t: (t.loss, t.number))
    assert summary.loss_search_best == best.loss
    problem = Problem.of(PruneOptions.of(asked))
    train, split = problem.data.train, problem.split
    judged = {*split.fresh.tolist(), *split.validate.tolist()}
    rest = train.subset(torch.tensor([i for i in range(len(train)) if i not in judged]))
    batches = list(itertools.islice(training_batches(rest, problem.data, 128, seed=1), 4))
    config = TrainingConfig(epochs=1, learning_rate=TrainingConfig().learning_rate / 5, seed=1)
    small = network(problem, best)
    finetune(small, batches, teacher=problem.model, config=replace(config, channels_last=False))
    images = train.subset(split.validate).in_memory()
    with torch.no_grad():
        outputs = small(problem.data.normalise(images.pixels))
    expected = float(functional.cross_entropy(outputs, images.labels))
    assert best.loss == pytest.approx(expected, 1e-4)
