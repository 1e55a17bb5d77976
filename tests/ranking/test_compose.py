"""Two plans in turn are one plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import lcprune as lp
from lcprune.errors import InputError
from lcprune.graph import network_digest
from lcprune.models import build
from lcprune.ranking import AttributeEdit, Plan, PlanBuilder, compose
from lcprune.slimming import slim
from lcprune.testing import random_keep
from lcprune.tracing import trace
from networks import random_network


class Attention(nn.Module):
    """Attention between convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.last, self.head = nn.Linear(16, 12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu().flatten(2).transpose(1, 2)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(self.last(x.mean(1)).relu())


class Shared(nn.Module):
    """A convolution under two names, and a weight of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 12, 3, padding=1)
        self.again = self.conv
        self.a, self.b = nn.Linear(12, 16), nn.Linear(12, 16)
        self.b.weight = self.a.weight
        self.a.bias.requires_grad_(False)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.again(self.conv(self.stem(x)).relu()).mean((2, 3))
        return self.head(torch.tanh(self.a(x)) + self.b(x))


class Grouped(nn.Module):
    """Groups of convolution, depthwise, concatenation, a layer norm over channels and a list."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.grouped = nn.Conv2d(16, 24, 3, padding=1, groups=4)
        self.depthwise = nn.Conv2d(24, 24, 3, padding=1, groups=24)
        self.side, self.norm = nn.Conv2d(16, 8, 1), nn.LayerNorm(32)
        self.sizes = [24, 8]
        self.left, self.right = nn.Conv2d(24, 10, 1), nn.Conv2d(8, 10, 1)
        self.head = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = torch.cat([self.depthwise(self.grouped(x)), self.side(x)], 1)
        x = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        left, right = x.split(self.sizes, 1)
        return self.head(functional.silu(self.left(left) + self.right(right)).mean((2, 3)))


def image(side: int = 8) -> Tensor:
    return torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))


NETWORKS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "attention": lambda: (Attention(), image()),
    "shared": lambda: (Shared(), image()),
    "grouped": lambda: (Grouped(), image()),
    "resnet": lambda: (build("digits_resnet", classes=5, input_shape=(3, 8, 8)), image()),
    "mobilenet": lambda: (build("cifar_mobilenet_v2", classes=5, input_shape=(3, 32, 32)), image()),
}
MANY = [*range(12), *(pytest.param(seed, marks=pytest.mark.thorough) for seed in range(12, 80))]


def drawn(model: nn.Module, example: Tensor, seed: int) -> Plan:
    graph = trace(model, example)
    return PlanBuilder(graph).plan(random_keep(graph, np.random.default_rng(seed)))


def everything(model: nn.Module) -> list[Any]:
    """Values of tensors, whether they learn and are one, and all that modules hold beside them."""
    names: dict[int, str] = {}
    found: list[Any] = []
    for name, tensor in [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]:
        first = names.setdefault(id(tensor), name)
        found.append((name, first, tensor.requires_grad, tensor.stride(), tensor.tolist()))
    for name, module in model.named_modules(remove_duplicate=False):
        held = {k: v for k, v in vars(module).items() if isinstance(v, int | float | tuple | list)}
        found.append((name, type(module), {k: (type(v), v) for k, v in held.items()}))
    return found


def check_composition(model: nn.Module, example: Tensor, seed: int) -> None:
    model.eval()
    plans, small = [], model
    for step in range(3):
        plans.append(drawn(small, example, 10 * seed + step))
        small = slim(small, plans[-1])
    a, b, c = plans
    assert everything(slim(slim(model, a), b)) == everything(slim(model, compose(a, b)))
    left, right = compose(compose(a, b), c), compose(a, compose(b, c))
    assert left == right
    assert everything(slim(model, left)) == everything(small)
    assert (left.network, left.result) == (network_digest(model), network_digest(small))
    assert left.cost == c.cost
    assert Plan.from_json(left.to_json()) == left


@pytest.mark.parametrize("name", NETWORKS)
def test_two_plans_in_turn_are_one_plan(name: str) -> None:
    for seed in range(1 if name == "mobilenet" else 3):
        check_composition(*NETWORKS[name](), seed)


@pytest.mark.parametrize("seed", MANY)
def test_two_plans_of_a_random_network_are_one_plan(seed: int) -> None:
    check_composition(*random_network(seed), seed)


def test_the_small_network_is_verified_with_the_composed_plan() -> None:
    model, example = NETWORKS["grouped"]()
    model.eval()
    first = drawn(model, example, 1)
    once = slim(model, first)
    second = drawn(once, example, 2)
    assert lp.verify(model, slim(once, second), compose(first, second), example) <= 1e-9


def test_a_network_pruned_twice_loads_with_the_original_factory(tmp_path: Path) -> None:
    model = build("digits_resnet", classes=5, input_shape=(3, 8, 8)).eval()
    first = drawn(model, image(), 1)
    once = slim(model, first)
    second = drawn(once, image(), 2)
    twice = slim(once, second)
    plan = lp.compose(first, second)
    lp.save(twice, tmp_path, plan=plan, factory="digits_resnet", example_input=image())
    assert everything(lp.load(tmp_path)) == everything(twice)
    with pytest.raises(InputError, match="not that of the model"):
        lp.save(twice, tmp_path, plan=first, factory="digits_resnet", example_input=image())
    lp.save(twice, tmp_path, plan=second, factory="digits_resnet", example_input=image())
    with pytest.raises(InputError, match=r"for another network.*compose"):
        lp.load(tmp_path)
    assert everything(lp.load(tmp_path, once)) == everything(twice)


def test_a_plan_that_does_not_go_on_is_refused() -> None:
    model, example = NETWORKS["resnet"]()
    model.eval()
    a, b = drawn(model, example, 1), drawn(model, example, 2)
    later = drawn(slim(model, b), example, 3)
    for first, second in ((a, b), (a, a), (a, later), (later, b)):
        with pytest.raises(InputError, match="does not go on from the first") as caught:
            compose(first, second)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="for the network that the first one is for"):
        compose(a, b)


def test_plans_made_by_hand_compose_as_far_as_they_fit() -> None:
    first = Plan(
        {("0.weight", 0): (0, 2, 5)}, (AttributeEdit("0", "out_channels", None, 3),), cost={"a": 9}
    )
    second = Plan(
        {("0.weight", 0): (0, 2), ("0.weight", 1): (1,)},
        (AttributeEdit("1", "sizes", 1, 4), AttributeEdit("0", "out_channels", None, 2)),
        criterion="l2",
        latent={"0": (0.5,)},
        cost={"a": 4},
    )
    both = compose(replace(first, free_outputs=("1",)), replace(second, free_outputs=("0", "1")))
    assert both.kept == {("0.weight", 0): (0, 5), ("0.weight", 1): (1,)}
    assert {(e.module, e.name, e.index): e.value for e in both.attributes} == {
        ("0", "out_channels", None): 2,
        ("1", "sizes", 1): 4,
    }
    assert (both.criterion, both.latent, both.cost) == ("l2", {"0": (0.5,)}, {"a": 4})
    assert both.free_outputs == ("1", "0")
    with pytest.raises(InputError, match=r"index 3 of dimension 0 of 0\.weight.*leaves 3"):
        compose(first, Plan({("0.weight", 0): (0, 3)}))
    with pytest.raises(InputError, match="out_channels of 0 to 4"):
        compose(first, Plan({}, (AttributeEdit("0", "out_channels", None, 4),)))


@pytest.mark.parametrize("wrong", [None, 0.5, {}, "plan", [Plan({})]])
def test_what_is_no_plan_is_refused(wrong: Any) -> None:
    with pytest.raises(InputError, match=r"first is .*, expected a Plan"):
        compose(wrong, Plan({}))
    with pytest.raises(InputError, match=r"second is .*, expected a Plan"):
        compose(Plan({}), wrong)


def test_the_example_of_the_documentation_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Path(__file__).parents[2] / "docs" / "iterative-pruning.md"
    _, code, *_ = page.read_text(encoding="utf-8").split("```")
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {}
    exec(code.removeprefix("python"), space)
    after = lp.CostModel(trace(space["small"], space["x"])).evaluate()["macs"]
    assert after <= 0.4 * space["before"]
