"""A budget in joules on the command line, and where the energy is printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from digit_runs import Copies, outcome
from lcprune.artifact import load
from lcprune.cli import main
from lcprune.cost import PRESETS, CostModel, Energy
from lcprune.data import load_data
from lcprune.graph import quantity
from lcprune.models import build
from lcprune.runs import SUMMARY, PruneOptions, prune_job, read_summary
from lcprune.tracing import trace

from .conftest import Prune

QUICK: dict[str, Any] = {"trials": 2, "finetune_epochs": 0}


def energy_of(model: torch.nn.Module, energy: Energy) -> int:
    data = load_data("digits")
    example = data.normalise(data.train.pixels[:1])
    return CostModel(trace(model.eval(), example), [energy]).evaluate()["energy"]


@pytest.mark.parametrize("name", [None, "int8-sram"])
def test_a_budget_in_joules_is_met_and_told(
    tmp_path: Path, prune: Prune, capsys: pytest.CaptureFixture[str], name: str | None
) -> None:
    out = tmp_path / "out"
    prices = PRESETS[name or "float32-dram"]
    before = energy_of(build("digits_resnet", classes=10, input_shape=(1, 8, 8)), prices)
    asked = f"{int(0.6 * before) / 1e6:.6f}uJ"
    given = {"budget": [f"energy={asked}", "macs=90%"]} | ({"energy": name} if name else {})
    assert prune(out, **given, **QUICK) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    summary = json.loads((out / SUMMARY).read_text())["costs"]
    cost = summary["energy"]
    assert set(summary) == {"macs", "params", "energy"}
    assert (cost["unit"], cost["asked"], cost["before"]) == ("pJ", asked, before)
    assert cost["after"] == energy_of(load(out), prices)
    assert 0.5 * before < cost["after"] <= cost["limit"] <= 0.6 * before
    assert (cost["ratio"], cost["met"]) == (cost["after"] / before, True)
    assert quantity(cost["after"], "pJ") in printed.out
    graph = json.loads((out / "graph.json").read_text())
    assert graph["costs"]["energy"] == {k: cost[k] for k in ("unit", "before", "after")}


def test_energy_is_counted_where_its_prices_are_given(tmp_path: Path, prune: Prune) -> None:
    (tmp_path / "own.toml").write_text("mac = 0.9\nbyte = 20\n")
    out = tmp_path / "out"
    assert prune(out, energy=str(tmp_path / "own.toml"), **QUICK) == 0
    cost = read_summary(out).costs["energy"]
    assert (cost.asked, cost.limit, cost.met) == (None, None, True)
    assert cost.after == energy_of(load(out), Energy(0.9, 20))


def test_energy_is_not_counted_where_nobody_asks(finished: Path) -> None:
    assert set(read_summary(finished).costs) == {"macs", "params"}


def test_a_run_goes_on_with_its_own_prices_alone(
    tmp_path: Path, options: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    prices, out = tmp_path / "own.toml", tmp_path / "out"
    prices.write_text("mac = 0.9\nbyte = 20\n")
    changes = {"budget": ["energy=60%"], "energy": str(prices), "finetune_epochs": 1}
    prune_job(PruneOptions.of(options | changes), out, reporter=Copies(out, tmp_path))
    unfinished = tmp_path / "search"
    prices.write_text("mac = 0.9\nbyte = 21\n")
    assert main(["prune", "--out", str(unfinished), "--resume"]) == 2
    assert "the coefficients of the energy are not those" in capsys.readouterr().err
    prices.write_text("byte = 20.0\nmac = 0.9\n")
    assert main(["prune", "--out", str(unfinished), "--resume"]) == 0
    assert outcome(unfinished) == outcome(out)


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (["--budget", "energy=3"], "has no unit"),
        (["--budget", "energy=3ms"], "unknown unit 'ms'"),
        (["--budget", "energy=1pJ"], "energy <= 1 pJ (least possible "),
        (["--budget", "energy=1J"], "leaves nothing to prune"),
        (["--budget", "macs=50%", "--energy", "watts"], "expected a file.toml or one of float32-"),
        (["--budget", "macs=50%", "--energy", "no.toml"], "no.toml: it is missing"),
    ],
)
def test_what_makes_no_sense_is_one_line_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], part: str
) -> None:
    out = tmp_path / "out"
    base = ["prune", "digits_resnet", "--data", "digits", "--weights", "random", "--out", str(out)]
    assert main([*base, *flags]) == 2
    error = capsys.readouterr().err
    assert part in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_inspect_and_evaluate_print_the_energy_where_asked(
    tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inspect, evaluate = (
        ["inspect", "cifar_resnet20"],
        ["evaluate", str(finished), "--data", "digits"],
    )
    for arguments in (inspect, evaluate):
        assert main(arguments) == 0
        printed = capsys.readouterr().out
        assert "pJ" not in printed
        assert "energy" not in printed
    assert main([*inspect, "--energy", "float32-dram"]) == 0
    model = build("cifar_resnet20", classes=None, input_shape=(3, 32, 32)).eval()
    cost = CostModel(trace(model, torch.zeros(1, 3, 32, 32)), ["macs", "energy"]).evaluate()
    printed = capsys.readouterr().out
    assert f"{quantity(cost['energy'], 'pJ')} a sample at 4.6 pJ a MAC and 160 pJ a byte" in printed
    assert f"{4.6 * cost['macs'] / cost['energy']:.0%} for MACs" in printed
    (tmp_path / "own.toml").write_text("mac = 0\nbyte = 1e6\n")
    assert main([*evaluate, "--energy", str(tmp_path / "own.toml")]) == 0
    amount = energy_of(load(finished), Energy(0, 1e6))
    assert quantity(amount, "pJ") in capsys.readouterr().out
    for arguments in (inspect, evaluate):
        assert main([*arguments, "--energy", "a\nb"]) == 2
        assert capsys.readouterr().err.count("\n") == 1
