"""Energy against a replay of the operators on networks that are slimmed, and where it is asked."""

from __future__ import annotations

import math
import pickle
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import known
from cost.replay import moved
from cost.test_resources import NETWORKS, kept_groups, stored
from graphs import make_graph
from lcprune.cost import PRESETS, Budget, CostModel, Energy, read_energy
from lcprune.criteria import saliency
from lcprune.errors import BudgetError, InputError
from lcprune.graph import ChannelGraph, Op
from lcprune.models import build
from lcprune.ranking import rank
from lcprune.searching import search
from lcprune.slimming import slim
from lcprune.testing import counted
from lcprune.tracing import trace
from networks import random_network
from oracle import at_least_two, plan_of, random_keep

PRICES = [Energy(), Energy(0.3, 160, 1), Energy(4.6, 1.25), Energy(0.0, 1.0), Energy(1.0, 0.0)]


def replayed(model: nn.Module, example: Tensor, energy: Energy) -> int:
    """By the replay, PyTorch's counter of MACs and the state_dict, in whole pJ."""
    most = energy.element_bytes
    weights = stored(model)
    if most is not None:
        distinct = {id(t): t for t in model.state_dict(keep_vars=True).values()}
        weights = sum(t.numel() * min(t.element_size(), most) for t in distinct.values())
    mac, byte = Fraction(str(energy.mac)), Fraction(str(energy.byte))
    bytes_ = weights + moved(model, example, most)
    return math.ceil(mac * counted(model, example)["macs"] + byte * bytes_)


def agree(model: nn.Module, example: Tensor, graph: ChannelGraph, seed: int) -> None:
    keep = at_least_two(graph, random_keep(graph, np.random.default_rng(seed)))
    small = slim(model, plan_of(graph, keep))
    for energy in PRICES:
        cost = CostModel(graph, ["params", energy, "activations"])
        assert cost.evaluate()["energy"] == replayed(model, example, energy)
        assert cost.evaluate(keep)["energy"] == replayed(small, example, energy)


@pytest.mark.parametrize("name", [n for n in NETWORKS if "of a module" not in n])
def test_energy_of_slimmed_networks_is_exact(name: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, example = NETWORKS[name]().eval(), torch.randn(1, 3, 16, 16)
        agree(model, example, trace(model, example), 1)


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6))
def test_energy_of_random_networks_is_exact(seed: int) -> None:
    model, example = random_network(seed)
    agree(model.eval(), example, trace(model, example), seed)


@pytest.mark.thorough
@pytest.mark.parametrize("name", [*known.DEFAULT, *known.OTHERS])
def test_energy_of_known_networks_is_exact(name: str) -> None:
    agree(*known.traced(name), 2)


def conv(n: int, m: int) -> nn.Conv2d:
    return nn.Conv2d(n, m, 3, padding=1, bias=False)


class OnePass(nn.Module):
    """A shortcut, a norm with another reader, a view, and an output in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 4), conv(4, 4), conv(4, 6)
        self.norm, self.second = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.head = nn.Linear(6, 2, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.a(x)
        z = self.norm(y).relu()
        z = self.second(self.b(z)).add_(y).relu_()
        w = self.c(z).sigmoid()
        return self.head(w.mean((2, 3)).view(1, 6)), w


def test_what_is_moved_is_what_is_counted_by_hand() -> None:
    model, example = OnePass().eval(), torch.randn(1, 3, 5, 5)
    cost = CostModel(trace(model, example), ["weights", Energy(0, 1)]).evaluate()
    four = 4 * 25
    elements = [
        3 * 25 + four,  # a reads and writes, for two readers
        four + four,  # norm and relu
        four + four + four,  # b, and in the same pass second, the sum with y, and relu
        four + 6 * 25,  # c and sigmoid, whose result is an output
        6 * 25 + 6,  # mean; its view moves nothing
        6 + 2,
    ]
    assert cost["energy"] - cost["weights"] == 4 * sum(elements)


def test_statistics_that_are_taken_first_are_a_pass_of_their_own() -> None:
    class Net(nn.Module):
        def __init__(self, track: bool) -> None:
            super().__init__()
            self.conv, self.norm = conv(3, 4), nn.BatchNorm2d(4, track_running_stats=track)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.conv(x))

    example = torch.randn(1, 3, 5, 5)
    costs = [
        CostModel(trace(Net(track).eval(), example), ["weights", Energy(0, 1)]).evaluate()
        for track in (True, False)
    ]
    stored, taken = (cost["energy"] - cost["weights"] for cost in costs)
    # Beside the two maps that are written and read, what it took of them.
    assert taken - stored >= 4 * 2 * 4 * 25


def test_energy_is_that_of_one_sample() -> None:
    model = build("cifar_resnet20", classes=10, input_shape=(3, 32, 32)).eval()
    one, four = (trace(model, torch.randn(n, 3, 32, 32)) for n in (1, 4))
    assert CostModel(one, ["energy"]).evaluate() == CostModel(four, ["energy"]).evaluate()


def test_presets_are_those_of_the_source() -> None:
    prices = {name: (e.mac, e.byte, e.element_bytes) for name, e in PRESETS.items()}
    multiply_and_add = {"float32": 3.7 + 0.9, "float16": 1.1 + 0.4, "int8": 0.2 + 0.1}
    word = {"dram": 640, "sram": 5}
    size = {"float32": None, "float16": 2, "int8": 1}
    assert prices == {
        f"{kind}-{memory}": (pytest.approx(mac), pj / 4, size[kind])
        for memory, pj in word.items()
        for kind, mac in multiply_and_add.items()
    }
    assert read_energy("float32-dram") == Energy()


def test_an_int8_network_moves_a_quarter() -> None:
    model, example = NETWORKS["dense"]().eval(), torch.randn(1, 3, 16, 16)
    graph = trace(model, example)
    whole, small = (CostModel(graph, [Energy(0, 1, size)]).evaluate()["energy"] for size in (4, 1))
    assert whole == 4 * small


def test_numbers_that_fill_64_bits_are_a_line_and_large_ones_are_near() -> None:
    graph = make_graph([1], [[0] * 3], [Op("conv", "a", 10**15, (0,))])
    exact = CostModel(graph, [Energy(4.6, 0)]).evaluate()["energy"]
    assert exact == 3 * 46 * 10**14
    rounded = CostModel(graph, [Energy(math.pi, 0)]).evaluate()["energy"]
    assert rounded == pytest.approx(math.pi * 3e15, rel=1e-15)
    with pytest.raises(InputError, match="expected smaller prices"):
        CostModel(graph, [Energy(1e6, 0)])


@pytest.mark.parametrize(
    "wrong",
    [
        *({key: v} for key in ("mac", "byte") for v in (-1.0, math.nan, math.inf, "4", None, True)),
        *({"element_bytes": v} for v in (0, -1, 1.5, 99, "1", True)),
        {"mac": 0, "byte": 0},
        {"mac": 10**400},
    ],
)
def test_prices_that_make_no_sense_are_refused_in_one_line(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected") as caught:
        Energy(**wrong)
    assert str(caught.value).isprintable()


def test_a_file_gives_prices(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text("mac = 1\nbyte = 20.5\nelement-bytes = 2\n")
    assert read_energy(str(file)) == Energy(1, 20.5, 2)
    file.write_text("mac = 0.9\nbyte = 20\n")
    assert read_energy(str(file)) == Energy(0.9, 20)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("mac = 1\nbyte = 2\nname = 'x'", "unknown key 'name'.*mac, byte, element_bytes"),
        ("mac = 1\nbyte = 2\nunit = 'J'", "unknown key 'unit'"),
        ("mac = 1", "has no byte, expected it in pJ"),
        ("mac = -1\nbyte = 2", "mac is -1.* expected a finite number"),
        ("mac = nan\nbyte = 2", "mac is nan"),
        ("mac = 1\nbyte = inf", "byte is inf"),
        ("mac = '1'\nbyte = 2", "mac is '1'"),
        ("mac = [1]\nbyte = 2", "mac is a list"),
        ("mac = true\nbyte = 2", "mac is True"),
        ("mac = 1\nbyte = 2\nelement_bytes = 0", "element_bytes is 0"),
        ('mac = 1\nbyte = 2\n"a\\nb" = 1', "unknown key"),
        ("mac = 1\nmac = 2", "not TOML"),
        ("\x00", "not TOML"),
        ("a = " + "[" * 5000, "not TOML"),
        ("#" * 2**16, "expected at most"),
    ],
)
def test_a_file_that_is_wrong_is_refused_in_one_line(
    tmp_path: Path, content: str, part: str
) -> None:
    file = tmp_path / "own.toml"
    file.write_text(content)
    with pytest.raises(InputError, match=part) as caught:
        read_energy(str(file))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("text", ["", "float64-dram", "no/such.toml", "~nobody/x.toml", "a\0.toml"])
def test_what_is_neither_preset_nor_file_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"expected|missing"):
        read_energy(text)


@pytest.mark.parametrize("value", [None, 3, Path("a.toml"), b"int8-dram", Energy(), ["int8-dram"]])
def test_what_is_no_text_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match=r"expected a file\.toml or one of float32-dram, "):
        read_energy(value)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "own.toml")
    with pytest.raises(InputError, match="not an ordinary file"):
        read_energy(str(tmp_path / "own.toml"))


@pytest.mark.parametrize(
    ("asked", "limit"),
    [
        ("50%", 10**12),
        (0.25, 5 * 10**11),
        ("3mJ", 3 * 10**9),
        ("250 uJ", 250 * 10**6),
        ("1.5J", 15 * 10**11),
        ("7nJ", 7000),
        ("12pJ", 12),
    ],
)
def test_every_form_of_a_bound_on_energy(asked: float | str, limit: int) -> None:
    assert Budget(energy=asked).limits({"energy": 2 * 10**12}) == {"energy": limit}


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("3", "has no unit, expected .*3mJ, 250uJ"),
        (3_000_000, "has no unit"),
        ("3MJ", "unknown unit 'MJ', expected % or one of pJ, nJ, uJ, mJ, J"),
        ("3mW", "unknown unit 'mW'"),
        ("3MB", "unknown unit 'MB'"),
        ("3ms", "unknown unit 'ms'"),
        ("0mJ", "leaves nothing"),
        ("-3mJ", "can't be read"),
        ("nanmJ", "can't be read"),
    ],
)
def test_a_bound_on_energy_that_makes_no_sense_is_refused(asked: Any, part: str) -> None:
    with pytest.raises(BudgetError, match=part):
        Budget(energy=asked)


def test_joules_are_no_unit_of_macs_or_bytes() -> None:
    for name in ("macs", "weights"):
        with pytest.raises(BudgetError, match="unknown unit 'mJ'"):
            Budget(**{name: "3mJ"})


class Space:
    model: nn.Module
    graph: ChannelGraph


@pytest.fixture(scope="module")
def resnet20() -> Space:
    space = Space()
    space.model = build("cifar_resnet20", classes=10, input_shape=(3, 32, 32)).eval()
    space.graph = trace(space.model, torch.randn(1, 3, 32, 32))
    return space


def test_a_bound_that_is_met_or_impossible_says_what_there_is(resnet20: Space) -> None:
    graph, scores = resnet20.graph, saliency(resnet20.model, resnet20.graph, "l2")
    with pytest.raises(BudgetError, match=r"leaves nothing to prune.* [\d,]+ pJ of energy"):
        rank(graph, scores, Budget(energy="1J"))
    with pytest.raises(BudgetError, match=r"energy <= 1,000,000 pJ \(least possible [\d,]+ pJ,"):
        rank(graph, scores, Budget(energy="1uJ"))


def test_bounds_of_four_kinds_hold_together_and_nothing_more_fits(resnet20: Space) -> None:
    model, graph = resnet20.model, resnet20.graph
    energy = Energy(0.9, 20)
    budget = Budget(macs="70%", activations="80%", weights="60%", energy="60%")
    plan = rank(graph, saliency(model, graph, "l2"), budget, resources=[energy])
    cost = CostModel(graph, ["macs", "params", "weights", "activations", energy])
    limits = budget.limits(cost.evaluate())
    assert set(limits) == {"macs", "weights", "activations", "energy"}
    assert all(plan.cost[name] <= limit for name, limit in limits.items())
    assert plan.cost["energy"] == replayed(slim(model, plan), torch.randn(1, 3, 32, 32), energy)
    keep = kept_groups(graph, plan.kept)
    for group in np.flatnonzero(~keep):
        more = keep.copy()
        more[group] = True
        now = cost.evaluate(more)
        assert any(now[name] > limit for name, limit in limits.items())


def test_a_resource_of_ones_own_stands_for_the_one_of_its_name(resnet20: Space) -> None:
    graph, scores = resnet20.graph, saliency(resnet20.model, resnet20.graph, "l2")
    plain = rank(graph, scores, Budget(energy=0.5))
    own = rank(graph, scores, Budget(energy=0.5), resources=[Energy(4.6, 0)])
    macs = rank(graph, scores, Budget(macs=0.5))
    assert own.kept == macs.kept  # with nothing to pay for bytes it is a budget of MACs
    assert plain.kept != macs.kept
    counted_too = rank(graph, scores, Budget(macs=0.5), resources=["weights", Energy()])
    assert counted_too.kept == macs.kept
    assert set(counted_too.cost) == {"macs", "params", "weights", "energy"}


@pytest.mark.parametrize("wrong", [3, "energy", Energy, [3], [Energy], [None], [["energy"]]])
def test_what_is_no_resource_is_refused(resnet20: Space, wrong: Any) -> None:
    scores = saliency(resnet20.model, resnet20.graph, "l2")
    with pytest.raises(InputError, match=r"resource.* expected"):
        rank(resnet20.graph, scores, Budget(macs=0.5), resources=wrong)


@pytest.mark.parametrize("strategy", ["auto", "evolution"])
def test_a_search_is_within_the_energy(resnet20: Space, strategy: str) -> None:
    model, graph, energy = resnet20.model, resnet20.graph, PRESETS["int8-dram"]
    budget = Budget(energy="55%", macs="60%")
    scores = saliency(model, graph, "l2")
    result = search(
        model, graph, scores, budget, fitness=lambda m: float(next(m.parameters()).detach().std()),
        strategy=strategy, trials=6, resources=[energy],
    )  # fmt: skip
    limits = budget.limits(CostModel(graph, ["macs", energy]).evaluate())
    plans = [trial for trial in result.history if trial.final]
    assert len({trial.digest for trial in plans}) > 2
    assert all(trial.cost[n] <= limit for trial in plans for n, limit in limits.items())
    small = slim(model, result.plan)
    assert result.plan.cost["energy"] == replayed(small, torch.randn(1, 3, 32, 32), energy)


def test_energy_and_macs_choose_different_widths_on_a_resnet56() -> None:
    model = build("cifar_resnet56", classes=10, input_shape=(3, 32, 32)).eval()
    graph = trace(model, torch.randn(1, 3, 32, 32))
    cost = CostModel(graph, ["macs", "energy"])
    scores = saliency(model, graph, "l2")
    whole = cost.evaluate()
    plans = {
        bound: rank(graph, scores, Budget(**{bound: 0.5}), resources=["energy"])
        for bound in ("macs", "energy")
    }
    for bound, other in (("macs", "energy"), ("energy", "macs")):
        shares = {name: plans[bound].cost[name] / whole[name] for name in whole}
        assert 0.495 < shares[bound] <= 0.5
        assert abs(shares[other] - 0.5) > 0.03  # a share of the MACs is not that of the energy
    kept = {bound: {k: len(v) for k, v in plan.kept.items()} for bound, plan in plans.items()}
    assert kept["macs"] != kept["energy"]


def test_energy_travels() -> None:
    energy = Energy(1, 2, 1)
    assert pickle.loads(pickle.dumps(energy)) == energy
    assert {energy: 1}[Energy(1, 2, 1)] == 1
