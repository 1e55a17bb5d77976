"""What a run is about is computed once, and its network is never touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lcprune.artifact import load, read_plan
from lcprune.cost import CostModel
from lcprune.errors import BudgetError, InputError
from lcprune.models import state_sha256
from lcprune.runs import (
    GRAPH,
    Problem,
    PruneOptions,
    _problem,
    _prune,
    choose_device,
    prune_job,
    read_summary,
)


def test_what_is_computed_is_computed_once(
    tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def counted(name: str) -> Any:
        real = getattr(_problem, name)

        def called(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return real(*args, **kwargs)

        return called

    names = ("load_data", "build", "trace", "repair", "saliency")
    for name in names:
        monkeypatch.setattr(_problem, name, counted(name))
    prune_job(PruneOptions.of(options | {"criterion": "taylor", "trials": 2}), tmp_path / "out")
    assert sorted(calls) == sorted(names)


def test_the_network_of_a_problem_is_never_touched(
    tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by the search, nor finalists, nor the training that it teaches, nor the check."""
    problem = Problem.of(PruneOptions.of(options | {"finalists": 2}))
    before = state_sha256(problem.model)
    gradients = [parameter.requires_grad for parameter in problem.model.parameters()]
    monkeypatch.setattr(_prune.Problem, "of", lambda *_: problem)
    changes = {"trials": 3, "finalists": 2, "finalist_steps": 2, "finetune_epochs": 1}
    changes |= {"search_dtype": "bfloat16", "train_dtype": "bfloat16"}
    prune_job(PruneOptions.of(options | changes), tmp_path / "out")
    assert state_sha256(problem.model) == before
    assert not any(module.training for module in problem.model.modules())
    assert [parameter.requires_grad for parameter in problem.model.parameters()] == gradients
    assert all(parameter.grad is None for parameter in problem.model.parameters())


def test_images_are_apart(options: dict[str, Any]) -> None:
    problem = Problem.of(PruneOptions.of(options | {"finalists": 2}))
    split = problem.split
    parts = [set(part.tolist()) for part in (split.recalibrate, split.validate, split.fresh)]
    assert sum(map(len, parts)) == len(set.union(*parts))
    assert len(problem.finalist_training) == len(problem.data.train) - len(parts[2])
    assert sum(map(len, problem.recalibration_batches())) == len(parts[0])
    images, labels = problem.in_precision(problem.validation, _prune.Precision("bfloat16"))
    assert images.dtype is torch.bfloat16
    assert len(images) == len(labels) == len(parts[1])


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"budget": ["macs=1"]}, BudgetError),
        ({"budget": ["macs=99G"]}, BudgetError),
        ({"criterion": "taste"}, InputError),
        ({"compensation": "taste"}, InputError),
        ({"strategy": "taste"}, InputError),
        ({"device": "taste"}, InputError),
        ({"device": "meta"}, InputError),
    ],
)
def test_what_can_not_be_is_refused_before_anything_is_written(
    tmp_path: Path, options: dict[str, Any], changes: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error) as caught:
        prune_job(PruneOptions.of(options | changes), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_graph_of_a_finished_run(finished: Path, options: dict[str, Any]) -> None:
    """Widths and costs are those of the networks."""
    raw = json.loads((finished / GRAPH).read_text())
    problem = Problem.of(PruneOptions.of(options))
    small = load(finished).state_dict()
    before = problem.model.state_dict()
    assert [family["name"] for family in raw["families"]] == [
        family.name for family in problem.graph.families
    ]
    kept = read_plan(finished).kept
    assert any(family["after"] < family["before"] for family in raw["families"])
    sizes = {
        (tensor, dim): len(kept.get((tensor, dim), range(before[tensor].shape[dim])))
        for family in raw["families"]
        for tensor, dim in family["tensors"]
    }
    assert all(small[tensor].shape[dim] == size for (tensor, dim), size in sizes.items())
    for family in raw["families"]:
        tensor, dim = family["tensors"][0]
        assert before[tensor].shape[dim] % family["before"] == 0
    total = sum(len(family.groups) for family in problem.graph.families)
    assert sum(family["before"] for family in raw["families"]) == total
    summary = read_summary(finished)
    assert raw["costs"] == {
        name: {"unit": cost.unit, "before": cost.before, "after": cost.after}
        for name, cost in summary.costs.items()
    }
    keep = problem.saliency.values >= 0
    assert CostModel(problem.graph).evaluate(keep)["macs"] == raw["costs"]["macs"]["before"]


@pytest.mark.parametrize(
    "name",
    ["hpu", "mps", "xpu", "meta", "vulkan", "privateuseone", "fpga", "cuda:99", "cuda:-1", "abacus",
     "", "cpu:x", "\x1b[2J", "9" * 400],
)  # fmt: skip
def test_a_device_that_is_not_there_is_told(name: str) -> None:
    with pytest.raises(InputError, match="expected auto, cpu or cuda"):
        choose_device(name)
