"""What the commands write and print when all is well, and when a check of our own fails."""

from __future__ import annotations

import json
import shutil
import warnings
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lcprune.artifact import (
    ARTIFACT,
    PLAN,
    WEIGHTS,
    load,
    read_plan,
)
from lcprune.cli import _commands, main
from lcprune.cost import CostModel
from lcprune.data import load_data
from lcprune.errors import VerificationError
from lcprune.graph import quantity
from lcprune.models import build, load_weights, state_sha256
from lcprune.runs import GRAPH, JOURNAL, RUN, SUMMARY, PruneOptions, Summary, read_summary
from lcprune.searching import read_journal
from lcprune.tracing import trace
from lcprune.training import evaluate_top1

from .conftest import Prune


def test_the_files_of_a_run(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert {RUN, JOURNAL, GRAPH, PLAN, WEIGHTS, ARTIFACT, SUMMARY} <= names
    assert not [name for name in names if name.startswith(".")]
    assert set(json.loads((finished / SUMMARY).read_text())) == Summary.keys()


def test_the_summary_is_true(finished: Path, config: PruneOptions, weights: Path) -> None:
    """Every figure that can be found in another way is the same."""
    summary = read_summary(finished)
    data = load_data("digits")
    base = build("digits_resnet", classes=10, input_shape=data.input_shape)
    load_weights(base, str(weights), "digits_resnet")
    small = load(finished)
    example = data.normalise(data.train.pixels[:1])
    costs = {
        when: CostModel(trace(model, example)).evaluate()
        for when, model in (("before", base), ("after", small))
    }
    macs, params = summary.costs["macs"], summary.costs["params"]
    assert macs.before == costs["before"]["macs"]
    assert params.before == sum(p.numel() for p in base.parameters())
    assert macs.after == costs["after"]["macs"]
    assert params.after == sum(p.numel() for p in small.parameters())
    assert (macs.asked, macs.limit, macs.met) == ("50%", macs.before // 2, True)
    assert macs.after <= macs.before // 2
    assert (params.asked, params.limit) == (None, None)
    assert [cost.ratio for cost in (macs, params)] == [
        cost.after / cost.before for cost in (macs, params)
    ]
    assert summary.scores["before"].top1 == evaluate_top1(base, data.test, data)
    assert summary.scores["after"].top1 == evaluate_top1(small, data.test, data)
    assert summary.base_weights_sha256 == state_sha256(base)
    trials = read_journal(finished / JOURNAL).trials
    assert summary.trials == len(trials) == config.trials
    assert summary.loss_search_best == min(trial.loss for trial in trials)
    assert dict(read_plan(finished).cost) == costs["after"]
    assert summary.verify_error is not None
    assert summary.verify_error <= 1e-9
    [latency] = summary.latency
    assert (latency.engine, latency.batch, latency.threads) == ("pytorch", 1, 1)
    assert latency.before_ms is not None
    assert latency.after_ms is not None
    assert min(latency.before_ms, latency.after_ms) > 0


def test_training_helps(finished: Path) -> None:
    summary = read_summary(finished)
    pruned, after = (summary.scores[name].top1 for name in ("pruned", "after"))
    assert pruned is not None
    assert after is not None
    assert after > pruned > 10


def test_the_command_prints_the_table(
    tmp_path: Path, prune: Prune, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prune(tmp_path / "out", trials=2, finetune_epochs=0) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    for text in ("MACs", "parameters", "top-1", "latency", "before", "after", "ratio"):
        assert text in captured.out
    summary = read_summary(tmp_path / "out")
    assert f"{summary.scores['before'].top1:.2f}" in captured.out
    assert f"{summary.costs['macs'].ratio:.1%}" in captured.out


def test_force_replaces_a_finished_run(tmp_path: Path, finished: Path, prune: Prune) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    (out / "notes.txt").write_text("the user's")
    assert prune(out, "--force", trials=1, finetune_epochs=0) == 0
    assert read_summary(out).trials == 1
    assert len(read_journal(out / JOURNAL).trials) == 1
    assert (out / "notes.txt").read_text() == "the user's"


def test_options_come_from_a_file_too(tmp_path: Path, weights: Path) -> None:
    (tmp_path / "run.toml").write_text(
        'model = "digits_resnet"\ndata = "digits"\ntrials = 9\nfinetune-epochs = 0\n'
        f'weights = "{weights}"\nrecalibrate_images = 50\nfitness_images = 50\n'
        '[budget]\nparams = "60%"\n'
    )
    out = tmp_path / "out"
    arguments = ["prune", "--config", str(tmp_path / "run.toml"), "--trials", "2"]
    assert main([*arguments, "--out", str(out)]) == 0
    summary = read_summary(out)
    assert summary.trials == 2
    assert summary.costs["params"].asked == "60%"


def test_all_bounds_hold_at_once(tmp_path: Path, prune: Prune) -> None:
    out = tmp_path / "out"
    assert prune(out, budget=["macs=70%", "params=40%"], trials=2, finetune_epochs=0) == 0
    summary = read_summary(out)
    assert summary.costs["macs"].ratio <= 0.7
    assert summary.costs["params"].ratio <= 0.4
    assert all(cost.met for cost in summary.costs.values())


@pytest.mark.parametrize(
    ("compensation", "criterion"), [("none", "l2"), ("affine", "taylor"), ("additive", "l1")]
)
def test_other_ways_to_prune(
    tmp_path: Path, prune: Prune, compensation: str, criterion: str
) -> None:
    out = tmp_path / "out"
    changes = {"compensation": compensation, "criterion": criterion, "strategy": "random"}
    assert prune(out, trials=3, finetune_epochs=0, **changes) == 0
    summary = read_summary(out)
    assert summary.trials == (1 if compensation == "none" else 3)
    assert summary.costs["macs"].met


def test_a_failed_check_publishes_nothing_and_ends_in_1(
    tmp_path: Path,
    prune: Prune,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fails(*_: object) -> float:
        raise VerificationError("the slimmed model differs")

    monkeypatch.setattr("lcprune.runs._prune.difference", fails)
    out = tmp_path / "out"
    assert prune(out, trials=1) == 1
    assert capsys.readouterr().err == "error: the slimmed model differs\n"
    assert {path.name for path in out.iterdir()} == {RUN, JOURNAL}


def test_evaluate_says_what_the_summary_says(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(finished), "--data", "digits"]) == 0
    summary = read_summary(finished)
    printed = capsys.readouterr().out
    assert f"{summary.scores['after'].top1:.2f}" in printed
    assert f"{summary.costs['macs'].after / 1e3:.2f} k" in printed
    assert f"{summary.costs['params'].after / 1e3:.2f} k" in printed


def test_evaluate_on_data_of_another_shape(
    tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other.py").write_text(
        "import torch\n"
        "from lcprune.data import Data, Images\n"
        "def make():\n"
        "    some = Images(torch.zeros(6, 3, 8, 8, dtype=torch.uint8), torch.arange(6) % 3)\n"
        "    return Data(some, some, ('a', 'b', 'c'), (0.5,) * 3, (0.2,) * 3, (3, 8, 8))\n"
    )
    assert main(["evaluate", str(finished), "--data", f"{tmp_path / 'other.py'}:make"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_evaluate_wants_trust_for_a_foreign_factory(
    tmp_path: Path, prune: Prune, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.py").write_text(
        "from lcprune.models import build\n"
        "def make(classes, input_shape):\n"
        "    return build('digits_resnet', classes=classes, input_shape=input_shape)\n"
    )
    out = tmp_path / "out"
    model = f"{tmp_path / 'net.py'}:make"
    assert prune(out, model=model, trials=1, finetune_epochs=0) == 0
    capsys.readouterr()
    arguments = ["evaluate", str(out), "--data", "digits"]
    assert main(arguments) == 2
    assert "--trust-factory" in capsys.readouterr().err
    assert main([*arguments, "--trust-factory"]) == 0


def test_inspect_lists_families_and_what_stays(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "digits_resnet"]) == 0
    printed = capsys.readouterr().out
    graph = trace(
        build("digits_resnet", classes=None, input_shape=(1, 8, 8)), torch.zeros(1, 1, 8, 8)
    )
    assert f"{graph.prunable} prunable channel groups in {len(graph.families)} families" in printed
    for family in graph.families:
        assert family.name in printed
    for entry in graph.untouched:
        assert entry.tensor in printed
        assert entry.reason in printed
    lines = printed.splitlines()
    assert all(line in lines for line in graph.summary().splitlines())
    cost = CostModel(graph, ["weights", "activations"]).evaluate()
    weights, peak = (quantity(n, "B") for n in cost.values())
    assert f"weights {weights}, peak of activations {peak} at batch 1" in lines


def test_inspect_takes_a_shape(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "digits_resnet", "--input", "3x16x16"]) == 0
    assert "1x3x16x16" in capsys.readouterr().out


def test_help_and_an_empty_line_explain_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"]):
        assert main(arguments) == 0
        printed = capsys.readouterr().out
        for command in ("demo", "prune", "train", "inspect", "evaluate"):
            assert command in printed


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{version('lcprune')}\n"


def test_the_demo_trains_prunes_and_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    short = {"base_epochs": 2, "trials": 2, "finetune_epochs": 1}
    monkeypatch.setattr(_commands, "DEMO", {**_commands.DEMO, **short})
    out = tmp_path / "out"
    assert main(["demo", "--out", str(out)]) == 0
    summary = read_summary(out)
    assert summary.costs["macs"].asked == "30%"
    assert summary.scores["before"].top1 is not None
    assert summary.scores["before"].top1 > 50
    assert main(["demo", "--out", str(out)]) == 2
    assert "--force" in capsys.readouterr().err
    (out / SUMMARY).unlink()
    assert main(["demo", "--out", str(out)]) == 2
    assert capsys.readouterr().err.strip().endswith(f"lcprune demo --out {out} --resume")
    assert main(["demo", "--out", str(out), "--resume"]) == 0
    assert read_summary(out).costs == summary.costs


def test_a_check_that_sees_nothing_is_said(
    weights: Path, tmp_path: Path, prune: Prune, capsys: pytest.CaptureFixture[str]
) -> None:
    state = load_file(weights)
    state["linear.weight"].zero_()
    dead = tmp_path / "dead.safetensors"
    save_file(state, dead)
    assert prune(tmp_path / "out", weights=str(dead), finetune_epochs=0, trials=1) == 0
    assert "the comparison says little" in capsys.readouterr().err
    assert prune(tmp_path / "other", finetune_epochs=0, trials=1) == 0
    assert "the comparison says little" not in capsys.readouterr().err


def test_evaluate_tells_a_warning_of_loading_in_a_line(
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def warned(*_: object, **__: object) -> torch.nn.Module:
        warnings.warn("another version", UserWarning, stacklevel=1)
        return load(finished)

    monkeypatch.setattr(_commands, "load", warned)
    assert main(["evaluate", str(finished), "--data", "digits"]) == 0
    assert capsys.readouterr().err == "warning: another version\n"


def test_resuming_a_directory_that_is_no_run_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["prune", "--out", str(tmp_path), "--resume"]) == 2
    assert "holds no run of lcprune" in capsys.readouterr().err
