"""Choice by name and multiples of channels: the options, the file, and what inspect shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lcprune.artifact import read_plan
from lcprune.cli import main
from lcprune.cli._inspect import layer_trees
from lcprune.graph import ChannelGraph
from lcprune.models import build
from lcprune.runs import RUN, SUMMARY
from lcprune.tracing import trace

from .conftest import Prune

SHAPE = (1, 1, 8, 8)
NETWORK = build("digits_resnet", classes=10, input_shape=SHAPE[1:])


def traced(**choice: Any) -> ChannelGraph:
    return trace(NETWORK, torch.zeros(SHAPE), **choice)


def widths(out: Path) -> dict[str, tuple[int, int]]:
    """Kept and all filters of every convolution."""
    kept = read_plan(out).kept
    return {
        name: (
            len(kept.get((f"{name}.weight", 0), range(module.out_channels))),
            module.out_channels,
        )
        for name, module in NETWORK.named_modules()
        if isinstance(module, torch.nn.Conv2d)
    }


def shrunk(out: Path) -> set[str]:
    return {name for name, (kept, whole) in widths(out).items() if kept < whole}


QUICK = {"trials": 2, "finetune_epochs": 0, "budget": ["macs=85%"]}


def test_skipped_modules_keep_their_filters(tmp_path: Path, prune: Prune) -> None:
    assert prune(tmp_path / "a", **QUICK) == 0
    assert any(name.startswith("layer1.") for name in shrunk(tmp_path / "a"))
    assert prune(tmp_path / "b", **QUICK, skip=["layer1*", "conv1"]) == 0
    assert shrunk(tmp_path / "b")
    assert not any(name.startswith("layer1") for name in shrunk(tmp_path / "b"))


def test_only_the_named_modules_lose_filters(tmp_path: Path, prune: Prune) -> None:
    assert prune(tmp_path / "out", **QUICK, only=["layer2*.conv1", "layer3*.conv1"]) == 0
    assert shrunk(tmp_path / "out")
    assert all(
        name.startswith(("layer2", "layer3")) and name.endswith("conv1")
        for name in shrunk(tmp_path / "out")
    )


def test_every_width_is_a_multiple(tmp_path: Path, prune: Prune) -> None:
    changes = {**QUICK, "budget": ["macs=50%"], "round_to": 4, "min_keep": 0.3}
    assert prune(tmp_path / "out", **changes) == 0
    assert shrunk(tmp_path / "out")
    # Every family of this network has a multiple of four groups, and so has every layer.
    assert all(kept % 4 == 0 and kept >= 0.3 * n for kept, n in widths(tmp_path / "out").values())
    stored = json.loads((tmp_path / "out" / RUN).read_text())["configuration"]
    assert (stored["round_to"], stored["min_keep"], stored["skip"]) == (4, 0.3, [])


def test_without_a_word_every_width_is_what_engines_like(tmp_path: Path, prune: Prune) -> None:
    assert prune(tmp_path / "out", **QUICK, round_to=None) == 0
    assert shrunk(tmp_path / "out")
    # No family of this network has more than 32 channels, and none less than 16.
    for kept, n in widths(tmp_path / "out").values():
        assert kept == n or kept % (8 if n >= 32 else 4) == 0
    stored = json.loads((tmp_path / "out" / RUN).read_text())["configuration"]
    assert stored["round_to"] == "auto"
    assert json.loads((tmp_path / "out" / SUMMARY).read_text())["round_to"] == "auto"


def test_the_same_from_a_file(tmp_path: Path, prune: Prune) -> None:
    (tmp_path / "run.toml").write_text(
        'only = ["layer*"]\nskip = "layer1"\nskip-types = ["Linear"]\n'
        "min-keep = 0.2\nround_to = 2\n"
    )
    config = ("--config", str(tmp_path / "run.toml"))
    assert prune(tmp_path / "file", *config, **QUICK, round_to=None) == 0
    stored = json.loads((tmp_path / "file" / RUN).read_text())["configuration"]
    assert stored["only"] == ["layer*"]
    assert stored["skip"] == ["layer1"]
    assert stored["skip_types"] == ["Linear"]
    assert (stored["min_keep"], stored["round_to"]) == (0.2, 2)
    flags = ("--skip-type", "Linear")
    changes = {"only": ["layer*"], "skip": ["layer1"], "min_keep": 0.2, "round_to": 2}
    assert prune(tmp_path / "line", *flags, **QUICK, **changes) == 0
    assert read_plan(tmp_path / "line").digest == read_plan(tmp_path / "file").digest
    # The command line goes over the file.
    assert prune(tmp_path / "over", *config, **QUICK, skip=["layer2"], round_to=None) == 0
    stored = json.loads((tmp_path / "over" / RUN).read_text())["configuration"]
    assert stored["skip"] == ["layer2"]


def test_a_choice_belongs_to_the_run(
    tmp_path: Path, prune: Prune, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert prune(out, **QUICK, skip=["layer1"], round_to=2) == 0
    plan = read_plan(out).digest
    (out / SUMMARY).unlink()
    assert prune(out, "--resume", **QUICK, skip=["layer2"], round_to=2) == 2
    assert "another skip" in capsys.readouterr().err
    assert prune(out, "--resume", **QUICK, skip=["layer1"], round_to=4) == 2
    assert "another round_to" in capsys.readouterr().err
    assert main(["prune", "--out", str(out), "--resume"]) == 0
    assert read_plan(out).digest == plan


def inspected(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["inspect", "digits_resnet", *arguments]) == 0
    return capsys.readouterr().out


def test_inspect_knows_the_choice(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--only", "layer*", "--only", "conv1", "--skip", "layer1", "--skip-type", "Linear")
    graph = traced(only=["layer*", "conv1"], skip=["layer1"], skip_types=["Linear"])
    assert 0 < graph.prunable < traced().prunable
    printed = inspected(capsys, *options)
    assert f"{graph.prunable} prunable channel groups in {len(graph.families)} families" in printed
    assert "left out by skip 'layer1'" in printed


def branches(printed: str) -> dict[str, list[str]]:
    """The trees printed, a branch (root / branch) with its leaves each."""
    found: dict[str, list[str]] = {}
    root = branch = ""
    for line in printed.splitlines():
        depth, text = (len(line) - len(line.lstrip("│├└─ \xa0"))) // 4, line.lstrip("│├└─ \xa0")
        if depth == 0:
            root = text
        elif depth == 1:
            branch = f"{root} / {text}"
            found[branch] = []
        else:
            found[branch].append(text)
    return found


def expected_leaves(graph: ChannelGraph, keys: list[tuple[str, int]]) -> list[str]:
    """A line per module: its tensors by dimension."""
    modules: dict[str, dict[int, list[str]]] = {}
    for tensor, dim in keys:
        module, _, name = tensor.rpartition(".")
        modules.setdefault(module, {}).setdefault(dim, []).append(name)
    return [
        f"{module}: " + "; ".join(f"{', '.join(names)} dim {dim}" for dim, names in dims.items())
        for module, dims in modules.items()
    ]


def test_a_layer_is_shown_with_all_that_goes_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    graph = traced()
    name = next(n for n, c in NETWORK.named_modules() if n.startswith("layer3") and "conv2" in n)
    printed = branches(inspected(capsys, "--layer", name))
    root = f"{name}: {NETWORK.get_submodule(name).out_channels} filters (weight dim 0)"
    own = set(graph.dimension(f"{name}.weight", 0).channels.tolist())
    families = [family for family in graph.families if own & set(family.groups)]
    assert len(families) > 1
    assert printed == {
        f"{root} / family {family.name}: {len(family.groups)} groups, all prunable": (
            expected_leaves(graph, [k for k in family.dimensions if k != (f"{name}.weight", 0)])
        )
        for family in families
    }


def test_a_pinned_layer_is_shown_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    printed = branches(inspected(capsys, "--layer", "linear"))
    assert printed == {
        "linear: 10 filters (weight dim 0) / 10 groups that stay: an output of the model": [
            "linear: bias dim 0"
        ]
    }
    printed = branches(inspected(capsys, "--layer", "layer1", "--skip", "layer1*"))
    graph = traced(skip=["layer1*"])
    made = [t for t, _ in graph.producers if t.startswith("layer1.")]
    assert [root.split(":")[0] for root in printed] == [t.rpartition(".")[0] for t in made]
    for branch, tensor in zip(printed, made, strict=True):
        reason = next(entry.reason for entry in graph.untouched if entry.tensor == tensor)
        assert branch.endswith(f"groups that stay: {reason}")


def test_a_norm_is_shown_by_its_own_channels(capsys: pytest.CaptureFixture[str]) -> None:
    name = next(n for n, c in NETWORK.named_modules() if n.startswith("layer1") and "bn1" in n)
    (branch,) = branches(inspected(capsys, "--layer", name))
    assert branch.startswith(f"{name}: ")
    assert "channels (weight, bias, running_mean, running_var dim 0)" in branch


def test_a_layer_of_two_names_and_one_of_the_model_itself() -> None:
    class Odd(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left = torch.nn.Conv2d(1, 4, 1)
            self.right = self.left
            self.weight = torch.nn.Parameter(torch.randn(2, 4, 1, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.conv2d(self.right(x), self.weight)

    model = Odd()
    graph = trace(model, torch.zeros(SHAPE))
    (tree,) = layer_trees(model, graph, "right")
    assert str(tree.label) == "left: 4 filters (weight dim 0)"
    (branch,) = tree.children
    assert str(branch.label) == "family left: 4 groups, all prunable"
    assert [str(leaf.label) for leaf in branch.children] == [
        "the model: weight dim 1",
        "left: bias dim 0",
    ]
    assert len(list(layer_trees(model, graph, "*"))) == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--skip", "layr1*"), "skip 'layr1*' matches no module of the model: did you mean"),
        (("--only", "Layer1"), "only 'Layer1' matches no module"),
        (("--only", "bn1"), "only 'bn1' matches no module with filters"),
        (("--skip-type", "linear"), "did you mean Linear?"),
        (("--skip", "*"), "no channel of the model can be pruned (left out by skip '*'"),
        (("--round-to", "0"), "round_to = 0: expected at least 1"),
        (("--round-to", "many"), "round_to = 'many': expected an integer"),
        (("--round-to", "1000"), "in multiples of 1000"),
        (("--min-keep", "-0.5"), "min_keep = -0.5"),
        (("--min-keep", "1"), "min_keep is 1.0, expected a share of at least 0 and below 1"),
        (("--min-keep", "0.99"), "least possible"),
    ],
)
def test_a_choice_that_cannot_be_used(
    tmp_path: Path,
    prune: Prune,
    capsys: pytest.CaptureFixture[str],
    flags: tuple[str, ...],
    message: str,
) -> None:
    assert prune(tmp_path / "out", *flags) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--layer", "layr1"), "layer 'layr1' matches no module of the model: did you mean"),
        (("--layer", ""), "layer '' matches no module"),
        (("--layer", "layer1.0.shortcut"), "matches only modules without channels of their own"),
        (("--skip", "nothing"), "skip 'nothing' matches no module"),
        (("--only", "nothing"), "only 'nothing' matches no module"),
        (("--skip-type", "Nothing"), "skip_types 'Nothing' matches no module"),
    ],
)
def test_an_inspection_that_cannot_be_made(
    capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], message: str
) -> None:
    assert main(["inspect", "digits_resnet", *flags]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("prune", ("--only", "--skip", "--skip-type", "--min-keep", "--round-to")),
        ("inspect", ("--only", "--skip", "--skip-type", "--layer")),
    ],
)
def test_help_and_the_page_name_the_options(
    capsys: pytest.CaptureFixture[str], command: str, options: tuple[str, ...]
) -> None:
    assert main([command, "--help"]) == 0
    printed = capsys.readouterr().out
    pages = Path(__file__).parents[2] / "docs"
    for option in options:
        assert option in printed
        assert option in (pages / "command-line.md").read_text()
        assert option in (pages / "choosing-layers.md").read_text()
