"""Slimming yields an ordinary module and leaves the original alone."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from lcprune.errors import InputError
from lcprune.graph import ChannelGraph, network_digest
from lcprune.models import build
from lcprune.ranking import AttributeEdit, Plan, PlanBuilder
from lcprune.slimming import slim, verify
from lcprune.tracing import trace
from networks import random_network
from oracle import plan_of, random_keep, randomise


def _pruned(seed: int = 0) -> tuple[nn.Module, Plan, torch.Tensor]:
    model, example = random_network(seed)
    randomise(model, seed)
    graph = trace(model, example)
    return model, plan_of(graph, random_keep(graph, np.random.default_rng(seed))), example


def test_the_original_is_untouched_and_shares_no_storage() -> None:
    model, plan, _ = _pruned()
    before = copy.deepcopy(model.state_dict())
    small = slim(model, plan)
    with torch.no_grad():
        for tensor in [*small.parameters(), *small.buffers()]:
            tensor.zero_()
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


def test_a_plan_applied_to_a_fresh_model_admits_the_slimmed_weights() -> None:
    model = build("cifar_resnet20", classes=10, input_shape=(3, 32, 32)).eval()
    example = torch.randn(1, 3, 32, 32)
    graph = trace(model, example)
    plan = plan_of(graph, random_keep(graph, np.random.default_rng(0)))
    small = slim(model, plan)
    fresh = slim(
        build("cifar_resnet20", classes=10, input_shape=(3, 32, 32)).eval(),
        Plan.from_json(plan.to_json()),
    )
    fresh.load_state_dict(small.state_dict(), strict=True)
    assert torch.equal(fresh(example), small(example))


def test_attributes_tell_the_new_sizes() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(),
        nn.Linear(8 * 4, 6), nn.Linear(6, 2),
    ).eval()  # fmt: skip
    graph = trace(model, torch.randn(1, 3, 4, 4))
    keep = random_keep(graph, np.random.default_rng(1))
    small = slim(model, plan_of(graph, keep))
    for module in small.modules():
        if isinstance(module, nn.Conv2d):
            assert module.out_channels == module.weight.shape[0]
            assert module.in_channels == module.weight.shape[1] * module.groups
        if isinstance(module, nn.BatchNorm2d):
            assert module.num_features == module.weight.numel()
        if isinstance(module, nn.Linear):
            assert (module.out_features, module.in_features) == tuple(module.weight.shape)


def test_tied_parameters_stay_tied_and_frozen_ones_frozen() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 6)
            self.b = nn.Linear(3, 6)
            self.b.weight = self.a.weight
            self.a.bias.requires_grad_(False)
            self.out = nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(torch.tanh(self.a(x)) + self.b(x))

    model = Tied()
    graph = trace(model, torch.randn(1, 3))
    small = slim(model, plan_of(graph, np.array([True, False, True, False, False, True])))
    assert small.a.weight is small.b.weight
    assert small.a.weight.shape == (3, 3)
    assert not small.a.bias.requires_grad
    assert small.b.bias.requires_grad


def one() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (Plan(kept={("9.weight", 0): (0,)}), "prunes 9.weight, which the model does not have"),
        (Plan(kept={("0", 0): (0,)}), "does not have"),
        (Plan(kept={("", 0): (0,)}), "does not have"),
        (Plan(kept={("0.weight", 0): (0, 99)}), "index 99 of dimension 0"),
        (Plan(kept={("0.weight", 0): (0, 4)}), "index 4 of dimension 0"),
        (Plan(kept={("0.weight", 7): (0,)}), "dimension 7"),
        (Plan(kept={("1.num_batches_tracked", 0): (0,)}), "dimension 0"),
        (Plan(kept={("0.bias", 1): (0,)}), "dimension 1"),
    ],
)
def test_a_plan_for_another_model_is_refused(plan: Plan, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        slim(one(), plan)
    assert "\n" not in str(caught.value)


class Foreign(nn.Module):
    """Attributes of every kind beside a size and a tuple and a list of sizes."""

    made = 8

    def __init__(self) -> None:
        super().__init__()
        self.width, self.sizes, self.parts = 8, (4, 8), [4, 8]
        self.flag, self.share, self.word, self.whole = True, 1.0, "8", None
        self.conv, self.scale = nn.Conv2d(3, 8, 1), nn.Parameter(torch.ones(8))
        self.register_buffer("mean", torch.ones(8))
        self.nested, self.table = ((4, 8), 8), {"a": 8}
        self.hidden = 8

    @property
    def doubled(self) -> int:
        return 2 * self.width

    @property
    def hidden(self) -> int:
        return self._hidden

    @hidden.setter
    def hidden(self, value: int) -> None:
        self._hidden = value
        vars(self)["hidden"] = value


NO_SIZES = [
    # what every module has, and what Python looks up in it
    *(("", name, None, 1) for name in ("training", "_modules", "_parameters", "_buffers")),
    *(("", name, None, 1) for name in ("forward", "eval", "state_dict", "dump_patches", "call")),
    *(("", name, None, 1) for name in ("_forward_hooks", "_is_full_backward_hook", "_version")),
    *(("", name, 0, 1) for name in ("training", "_modules", "forward")),
    # what is no integer, or not the module's own
    *(("", name, None, 1) for name in ("flag", "share", "word", "whole", "table", "nested")),
    *(("", name, None, 1) for name in ("conv", "scale", "mean", "sizes", "parts", "absent")),
    *(("", name, None, 1) for name in ("made", "doubled", "hidden")),
    *(("", name, 0, 1) for name in ("nested", "width", "word", "table", "conv", "scale")),
    ("", "sizes", 2, 1), ("", "parts", 9, 1), ("", "nested", 2, 1), ("absent", "width", None, 1),
    ("scale", "width", None, 1), ("conv.weight", "ndim", None, 1),
    ("conv", "T_destination", None, 1),
    # what a module of PyTorch counts with other numbers
    *(("conv", name, 0, 1) for name in ("stride", "padding", "dilation", "kernel_size")),
    *(("norm", name, None, 1) for name in ("eps", "momentum", "affine", "track_running_stats")),
    ("lstm", "num_layers", None, 1), ("lstm", "dropout", None, 1), ("pool", "kernel_size", None, 1),
    ("softmax", "dim", None, 0), ("flatten", "start_dim", None, 0), ("shuffle", "groups", None, 0),
    # more than there is, or nothing where there must be something
    ("", "width", None, 9), ("", "sizes", 0, 5), ("conv", "out_channels", None, 9),
    ("conv", "groups", None, 0), ("conv", "out_channels", None, 0), ("conv", "groups", None, 2),
]  # fmt: skip


def foreign() -> nn.Module:
    model = Foreign()
    model.norm = nn.BatchNorm2d(8, eps=1, momentum=1)
    model.lstm, model.pool = nn.LSTM(8, 8, num_layers=2), nn.MaxPool2d(2)
    model.softmax, model.flatten = nn.Softmax(dim=1), nn.Flatten()
    model.shuffle = nn.ChannelShuffle(2)
    return model


@pytest.mark.parametrize("edit", NO_SIZES, ids=lambda edit: f"{edit[0]}.{edit[1]}[{edit[2]}]")
def test_security_a_plan_sets_nothing_but_sizes(edit: tuple[str, str, int | None, int]) -> None:
    """The allow-list: an integer of the module's own that counts channels, never made larger."""
    model = foreign()
    before = {name: dict(vars(module)) for name, module in model.named_modules()}
    with pytest.raises(InputError, match=r"it sets .*, expected"):
        slim(model, Plan({}, (AttributeEdit(*edit),)))
    assert before == {name: dict(vars(module)) for name, module in model.named_modules()}


def test_security_no_code_of_a_class_runs_where_an_attribute_is_set() -> None:
    class Watching(nn.Module):
        ran = False

        def __init__(self) -> None:
            super().__init__()
            self.width = 8
            type(self).ran = False

        def __setattr__(self, name: str, value: object) -> None:
            type(self).ran = True
            super().__setattr__(name, value)

    small = slim(Watching(), Plan({}, (AttributeEdit("", "width", None, 4),)))
    assert small.width == 4
    assert not Watching.ran


def test_sizes_keep_the_kind_of_their_container() -> None:
    class Pair(NamedTuple):
        a: int
        b: int

    model = Foreign()
    model.pair = Pair(4, 8)
    edits = [("sizes", 0, 2), ("sizes", 1, 3), ("parts", 1, 0), ("pair", 0, 1), ("width", None, 8)]
    small = slim(model, Plan({}, tuple(AttributeEdit("", *edit) for edit in edits)))
    assert (small.sizes, small.parts, small.pair, small.width) == ((2, 3), [4, 0], Pair(1, 8), 8)
    assert isinstance(small.pair, Pair)
    assert (model.sizes, model.parts, model.pair) == ((4, 8), [4, 8], Pair(4, 8))


@pytest.mark.parametrize("wrong", [None, 0.5, {}, [Plan({})], "plan", ChannelGraph])
def test_what_is_no_plan_is_refused(wrong: Any) -> None:
    with pytest.raises(InputError, match=r"the plan is .*, expected a Plan, such as"):
        slim(one(), wrong)


def test_a_graph_is_no_plan() -> None:
    with pytest.raises(InputError, match="the plan is a ChannelGraph, expected a Plan"):
        slim(one(), trace(one(), torch.ones(1, 3, 2, 2)))  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [None, 3, nn.Sequential, {"0.weight": torch.ones(1)}, Plan({})])
def test_what_is_no_model_is_refused(wrong: Any) -> None:
    with pytest.raises(InputError, match=r"the model is .*, expected a torch\.nn\.Module"):
        slim(wrong, Plan({}))


def test_models_that_can_not_be_cut_are_refused() -> None:
    with pytest.raises(InputError, match=r"weight is not initialised"):
        slim(nn.LazyLinear(3), Plan({}))
    sparse = nn.Module()
    sparse.register_buffer("weight", torch.eye(4).to_sparse())
    with pytest.raises(InputError, match="weight, which is no dense tensor"):
        slim(sparse, Plan({("weight", 0): (0,)}))

    class Open(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.file = Path(__file__).open("rb")  # noqa: SIM115

    model = Open()
    with pytest.raises(InputError, match="can't be copied"):
        slim(model, Plan({}))
    model.file.close()


def test_a_tensor_of_two_names_is_cut_once() -> None:
    def tied() -> nn.Module:
        model = nn.Module()
        model.a, model.b = nn.Linear(3, 4), nn.Linear(3, 4)
        model.b.weight = model.a.weight
        return model

    small = slim(tied(), Plan({("a.weight", 0): (0, 2), ("b.weight", 1): (1,)}))
    assert small.a.weight is small.b.weight
    assert small.a.weight.shape == (2, 1)
    assert slim(tied(), Plan({("a.weight", 0): (0,), ("b.weight", 0): (0,)})).b.weight.shape == (
        1,
        3,
    )
    with pytest.raises(InputError, match=r"other channels of b\.weight than of a\.weight"):
        slim(tied(), Plan({("a.weight", 0): (0,), ("b.weight", 0): (1,)}))


def test_a_plan_of_another_network_with_the_same_names_is_refused() -> None:
    def network(width: int, kernel: int = 1) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 8, kernel),
            nn.ReLU(),
            nn.Conv2d(8, width, 1),
            nn.Flatten(),
            nn.LazyLinear(2),
        )

    example = torch.ones(1, 3, 4, 4)
    models = [network(8), network(9), network(8, 3)]
    for model in models:
        model(example)
    plans = []
    for model in models:
        graph = trace(model, example)
        plans.append(PlanBuilder(graph).plan(random_keep(graph, np.random.default_rng(0))))
    for i, model in enumerate(models):
        for j, plan in enumerate(plans):
            if i == j:
                small = slim(model, plan)
                with pytest.raises(InputError, match="another network: the model is cut by it"):
                    slim(small, plan)
                continue
            for act in (slim, lambda m, p: verify(m, m, p, example)):
                with pytest.raises(InputError, match="for another network"):
                    act(model, plan)
    # Another head is another network; who knows better says so.
    freed = replace(plans[0], network="", result="")
    assert len(slim(models[1], freed)[0].weight) == len(slim(models[0], plans[0])[0].weight)
    assert network_digest(models[0].half()) == plans[0].network
    assert network_digest(nn.ReLU()) == ""
