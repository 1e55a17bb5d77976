"""Latency tables made by hand: the envelope, the steps, and files; no engine is needed."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from engines.tables import blocked, hand_made
from lcprune.cost import Budget, CostModel, Resource
from lcprune.criteria import saliency
from lcprune.engines import LatencyTable, machine, stairs
from lcprune.engines import _table as tables
from lcprune.engines._engine import engine_named
from lcprune.engines._table import Envelope, TabledTime, envelope
from lcprune.errors import InputError, RunError
from lcprune.graph import ChannelGraph
from lcprune.ranking import rank
from lcprune.tracing import trace
from networks import random_network

CELLS = st.dictionaries(
    st.tuples(st.integers(1, 9), st.integers(1, 9)), st.integers(0, 1000), max_size=25
)


@given(cells=CELLS, full=st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_the_envelope_is_the_least_of_all_wider_cells(
    cells: dict[tuple[int, ...], int], full: tuple[int, int]
) -> None:
    """Against a search through all cells, at every pair of widths; so it rises in both."""
    found = envelope(cells, full)
    whole = [ns for (a, b), ns in cells.items() if a >= full[0] and b >= full[1]]
    if not whole:
        assert found is None
        return
    assert found is not None
    own = {full: min(whole)} | {
        w: ns for w, ns in cells.items() if w[0] <= full[0] and w[1] <= full[1]
    }
    every = found.on((np.arange(1, full[0] + 1), np.arange(1, full[1] + 1)))
    assert not every[0].any()
    assert not every[:, 0].any()
    for a, b in itertools.product(range(1, full[0] + 1), range(1, full[1] + 1)):
        assert every[a, b] == min(ns for (c, d), ns in own.items() if c >= a and d >= b)
    assert (np.diff(every, axis=0) >= 0).all()
    assert (np.diff(every, axis=1) >= 0).all()


def test_a_missing_cell_counts_as_the_next_wider_one_and_never_as_a_line() -> None:
    found = envelope({(16,): 100, (64,): 1000}, (64,))
    assert found is not None
    assert found.on((np.array([8, 16, 17, 40, 64]),)).tolist() == [0, 100, 100, 1000, 1000, 1000]


@settings(max_examples=5)
@given(seed=st.integers(0, 10**6))
def test_a_bound_cost_is_the_sum_of_the_units_and_never_falls_with_a_size(seed: int) -> None:
    model, example = random_network(seed)
    graph = trace(model, example)
    rng = np.random.default_rng(seed)
    noisy = hand_made(graph, lambda key, widths: int(rng.integers(1, 10**6)), overhead=100)
    bound = noisy.bind(graph)
    full = np.array([len(graph.vectors[v]) for v in bound.vectors], dtype=np.int64)
    sizes = np.sort(rng.integers(0, full[:, None] + 1, (len(full), 40)), axis=1)
    costs = bound(sizes)
    assert costs.dtype == np.int64
    assert (np.diff(costs) >= 0).all()
    assert costs.tolist() == [int(bound(sizes[:, [n]])[0]) for n in range(40)]
    # One after the other, by the definition.
    found = 100
    for unit in tables.units(graph, 1):
        cells = noisy.times[unit.key]
        at = [
            whole if vector is None else int(sizes[bound.vectors.index(vector), 20])
            for vector, whole in zip(unit.vectors, unit.full, strict=True)
        ]
        wider = [
            max(0, ns - 100)
            for widths, ns in cells.items()
            if all(a <= w <= f for a, w, f in zip(at, widths, unit.full, strict=True))
        ]
        found += 0 if 0 in at else min(wider)
    assert int(costs[20]) == found


def resnet() -> tuple[nn.Module, ChannelGraph]:
    model = nn.Sequential(
        nn.Conv2d(3, 48, 3, padding=1), nn.BatchNorm2d(48), nn.ReLU(),
        nn.Conv2d(48, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    ).eval()  # fmt: skip
    return model, trace(model, torch.randn(1, 3, 8, 8))


def test_rungs_are_where_time_steps_and_what_a_wider_one_dominates_is_none() -> None:
    _, graph = resnet()
    table = hand_made(graph, blocked)
    assert isinstance(table, Resource)
    assert [rungs.tolist() for rungs in table.rungs(graph)] == [[16, 32, 48], [16, 32, 48, 64]]


def test_a_step_below_the_noise_is_none() -> None:
    _, graph = resnet()

    def time(key: str, widths: tuple[int, ...]) -> int:
        if not key.startswith("convolution"):
            return 0
        return 10_000 + (100 if widths[-1] > 24 else 0) + (5_000 if widths[-1] > 32 else 0)

    table = hand_made(graph, time)
    assert [rungs.tolist() for rungs in table.rungs(graph)] == [[32, 48], [32, 64]]
    flat = hand_made(graph, lambda key, widths: 1000)
    assert [rungs.tolist() for rungs in flat.rungs(graph)] == [[48], [64]]


def test_small_steps_add_up_to_one() -> None:
    _, graph = resnet()
    table = hand_made(graph, lambda key, widths: 1000 + 10 * sum(widths))
    for rungs, family in zip(table.rungs(graph), graph.families, strict=True):
        assert rungs[-1] == len(family.groups)
        assert 2 < len(rungs) < len(family.groups)


@settings(max_examples=5)
@given(seed=st.integers(0, 10**6))
def test_between_two_rungs_a_family_gains_no_more_than_the_noise(seed: int) -> None:
    """All other families whole; of what the family itself takes."""
    model, example = random_network(seed)
    graph = trace(model, example)
    table = hand_made(graph, blocked)
    cost = CostModel(graph, [table])
    whole = cost.evaluate()["latency"]
    for family, rungs in zip(graph.families, table.rungs(graph), strict=True):
        assert rungs[-1] == len(family.groups)
        assert (np.diff(rungs) > 0).all()
        times = {}
        for count in range(1, len(family.groups) + 1):
            keep = np.ones(graph.prunable, dtype=np.bool_)
            keep[list(family.groups[count:])] = False
            times[count] = cost.evaluate(keep)["latency"]
        for count, time in times.items():
            wider = times[int(rungs[np.searchsorted(rungs, count)])]
            assert wider - time <= table.noise * whole + 1


def test_a_plan_within_a_bound_in_milliseconds() -> None:
    model, graph = resnet()
    table = hand_made(graph, blocked)
    whole = CostModel(graph, [table]).evaluate()["latency"]
    plan = rank(graph, saliency(model, graph, "l2"), Budget(latency="60%"), resources=[table])
    assert plan.cost["latency"] <= 0.6 * whole
    slower = table.scaled(2.0).scaled(1.5)
    assert slower.factor == 3
    assert CostModel(graph, [slower]).evaluate()["latency"] == 3 * whole
    with pytest.raises(InputError, match="factor"):
        table.scaled(0)


def test_a_table_of_another_network_is_refused() -> None:
    _, graph = resnet()
    other = trace(nn.Sequential(nn.Conv2d(3, 8, 5), nn.Conv2d(8, 4, 3)), torch.randn(1, 3, 9, 9))
    with pytest.raises(InputError, match=r"no times of 2 operators \(in 0, …\)"):
        hand_made(graph, blocked).bind(other)
    with pytest.raises(InputError, match="a ChannelGraph"):
        hand_made(graph, blocked).bind(3)  # type: ignore[arg-type]


def test_what_can_not_be_timed_counts_nothing() -> None:
    _, graph = resnet()
    table = hand_made(graph, blocked)
    (key,) = [key for key in table.times if key.startswith("mean")]
    less = LatencyTable("onnxruntime", 1, 1, "p", {}, {**table.times, key: {}})
    assert less.untimed == (key,)
    difference = CostModel(graph, [table]).evaluate()["latency"] - table.times[key][64,]
    assert CostModel(graph, [less]).evaluate()["latency"] == difference


def test_ends_are_taken_off_where_blocks_are_filled_and_added_where_not() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 32, 1), nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.ReLU(),
        nn.Conv2d(32, 32, 1),
    ).eval()  # fmt: skip
    graph = trace(model, torch.randn(1, 3, 4, 4))
    table = replace(
        hand_made(graph, lambda key, widths: 10_000), overhead=1000, ends={"64": 100, "256": 400}
    )
    image, depthwise, last = tables.units(graph, 1)
    assert table.net(image)[3, 16] == 9000 - 400  # the image is read as it is
    assert table.net(depthwise)[16,] == 9000 - 2 * 400
    assert table.net(depthwise)[4,] == 9000 + 2 * 100
    assert table.net(last)[4, 32] == 9000 - 100 - 800
    assert table.net(last)[8, 32] == 9000 - 200 - 800
    large = replace(table, ends={"64": 10**6})
    assert large.net(last)[4, 32] == 9000 // 4


def test_stairs_are_what_takes_most_first() -> None:
    _, graph = resnet()
    found = stairs(hand_made(graph, blocked), graph)
    assert [one.module for one in found][:2] == ["3", "0"]
    assert sum(one.share for one in found) == pytest.approx(1)
    assert all(one.measured == 1 for one in found)
    assert found[0].steps(0.02) == [(16, 3000), (32, 6000), (48, 9000), (64, 12000)]
    assert found[0].times[found[0].widths == 40].tolist() == [18000]
    assert found[0].least[found[0].widths == 40].tolist() == [9000]


class TestFiles:
    def table(self) -> LatencyTable:
        here = machine(engine_named("pytorch"))
        _, graph = resnet()
        made = hand_made(graph, blocked, overhead=7)
        return LatencyTable(
            "pytorch",
            1,
            2,
            here.processor,
            here.versions,
            made.times,
            7,
            0.04,
            1.5,
            {"64": 5},
            {"n": 9},
        )

    def test_what_is_read_is_what_was_written(self, tmp_path: Path) -> None:
        table = self.table()
        table.save(tmp_path / "t.json")
        assert LatencyTable.read(tmp_path / "t.json") == table
        table.check_machine()

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"processor": "Another 9000"}, "on the processor Another 9000, expected"),
            ({"versions": {"torch": "1.4"}}, "with torch 1.4, expected torch"),
            ({"versions": {}}, "with nothing, expected"),
        ],
    )
    def test_another_machine_is_told(self, change: dict[str, Any], told: str) -> None:
        table = self.table()
        other = LatencyTable(
            **{**{f: getattr(table, f) for f in table.__dataclass_fields__}, **change}
        )
        with pytest.raises(InputError, match=told) as caught:
            other.check_machine()
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        "damage",
        [
            lambda text: text[: len(text) // 2],
            lambda text: text.replace("12000", "13000", 1),
            lambda text: "",
            lambda text: "[]",
            lambda text: "{}",
        ],
    )
    def test_a_damaged_file_is_told(self, tmp_path: Path, damage: Any) -> None:
        file = tmp_path / "t.json"
        self.table().save(file)
        file.write_text(damage(file.read_text()))
        with pytest.raises(InputError, match="damaged"):
            LatencyTable.read(file)
        with pytest.raises(InputError, match="missing"):
            LatencyTable.read(tmp_path / "none.json")

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("times", None),
            ("times", []),
            ("times", {"u": 3}),
            ("times", {"u": {"a": 3}}),
            ("times", {"u": {"3x": 3}}),
            ("times", {"u": {"1x2x3": 3}}),
            ("times", {"u": {"-3": 3}}),
            ("times", {"u": {"3": -1}}),
            ("times", {"u": {"3": 1.5}}),
            ("times", {"u": {"3": 10**17}}),
            ("times", {"u": {"3": 1, "3x4": 1}}),
            ("batch", "1"),
            ("factor", 0),
            ("ends", {"64": "5"}),
            ("ends", {"64": 5, "8": 4}),
            ("ends", {"a": 5}),
            ("ends", {"0": 5}),
            ("versions", 3),
            ("surprise", 3),
        ],
    )
    def test_what_is_no_table_is_told(self, tmp_path: Path, key: str, value: object) -> None:
        """With a checksum that is right."""
        from lcprune._files import sealed_json

        file = tmp_path / "t.json"
        self.table().save(file)
        raw = json.loads(file.read_text())
        raw = {k: v for k, v in raw.items() if k not in ("schema", "checksum")} | {key: value}
        file.write_text(sealed_json(raw))
        with pytest.raises(InputError) as caught:
            LatencyTable.read(file)
        assert "\n" not in str(caught.value)

    def test_where_it_can_not_be_written_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(RunError, match="can't write"):
            self.table().save(tmp_path / "none" / "t.json")


def test_a_call_of_a_bound_cost_is_a_handful_of_array_operations() -> None:
    """However many units there are: no loop over them."""
    _, graph = resnet()
    bound = hand_made(graph, blocked).bind(graph)
    assert isinstance(bound, TabledTime)
    assert isinstance(envelope({(3,): 1}, (3,)), Envelope)
    sizes = np.array([[len(graph.vectors[v])] * 1000 for v in bound.vectors])
    assert bound(sizes).shape == (1000,)
