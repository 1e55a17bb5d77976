"""Tables that are measured: on an engine made up for that, and a quick real one each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lcprune.cost import CostModel
from lcprune.engines import LatencyTable, engine_named, measure, processor
from lcprune.engines import _measure as measuring
from lcprune.engines._measure import _levels
from lcprune.engines._units import Operator
from lcprune.errors import InputError, LcpruneWarning, ModelError
from lcprune.graph import ChannelGraph
from lcprune.tracing import trace


class Clock:
    """A clock that only stands still when nothing is computed, and an engine that moves it."""

    name = "onnxruntime"
    format = "onnx"
    suffix = ".onnx"
    packages = ()
    runtime = "numpy"

    def __init__(self) -> None:
        self.ns = 0
        self.made: list[Operator] = []
        self.cant = ""
        self.ends = 0
        self.after: Callable[[int], None] = lambda made: None

    def late_from(self, number: int) -> None:
        """The time is over when so many operators were made."""

        def after(made: int) -> None:
            if made == number:
                self.ns += 10**12

        self.after, self.made = after, []

    def perf_counter_ns(self) -> int:
        return self.ns

    def monotonic(self) -> float:
        return self.ns / 1e9

    def operator(self, operator: Operator, threads: int = 1) -> Callable[[], object]:
        self.after(len(self.made))
        self.made.append(operator)
        if self.cant and operator.nodes[0].kind == self.cant:
            raise ModelError("no")
        widths = [operator.shapes[node.write][1] for node in operator.nodes[:1]]
        rows = max(1, sum(node.kind == "convolution" for node in operator.nodes))
        work = 500 + rows * sum(1000 * -(-width // 16) for width in widths)
        if operator.shapes == ((1, 1), (1, 1)):
            work = 500
        if operator.nodes[0].kind == "convolution":  # what is converted
            for position in (*operator.inputs, operator.output):
                shape = operator.shapes[position]
                work += self.ends * int(np.prod(shape)) * (shape[1] > 3)

        def run() -> None:
            self.ns += work

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(measuring, "engine_named", lambda name: found)
    monkeypatch.setattr(measuring, "time", found)
    monkeypatch.setattr("lcprune.engines._table.engine_named", lambda name: found)
    return found


def network() -> tuple[nn.Module, ChannelGraph]:
    model = nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(),
        nn.Conv2d(24, 40, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, 4),
    ).eval()  # fmt: skip
    return model, trace(model, torch.randn(1, 3, 8, 8))


FIRST = 1 + 2 * 6
"""What tells the overhead of a call and its ends."""
CELLS = 6 + 6 * 9 + 9 + 9
"""Of the grids 4…24 and 4…40: two convolutions, the mean and the linear layer."""


def test_every_cell_is_timed_twice_without_the_overhead_of_a_call(clock: Clock) -> None:
    model, graph = network()
    told: list[tuple[int, int, str]] = []
    table = measure(model, graph, progress=lambda *step: told.append(step))
    assert table.overhead == 500
    assert sum(map(len, table.times.values())) == CELLS
    assert len(clock.made) == FIRST + 2 * CELLS
    cost = CostModel(graph, [table]).evaluate()["latency"]
    assert cost == 500 + 1000 * (2 + 3 + 3 + 1)
    assert [step[0] for step in told] == sorted(step[0] for step in told)
    assert told[-1][:2] == (2 * CELLS, 2 * CELLS)
    assert [r.tolist() for r in table.rungs(graph)] == [[16, 24], [16, 32, 40]]
    assert (table.noise, table.batch, table.threads) == (0.02, 1, 1)
    assert table.processor == processor()


def test_the_whole_widths_come_first_and_then_coarse_steps_of_what_takes_most(
    clock: Clock,
) -> None:
    model, graph = network()
    measure(model, graph)
    outputs = [operator.shapes[operator.output] for operator in clock.made[FIRST:]]
    assert [shape[1] for shape in outputs[:4]] == [24, 40, 40, 4]
    second = [
        (operator.shapes[operator.inputs[0]][1], operator.shapes[operator.output][1])
        for operator in clock.made[FIRST + 4 : FIRST + CELLS]
        if operator.nodes[0].kind == "convolution" and operator.shapes[operator.states[0]][2] == 1
    ]
    assert set(second[:3]) == {(8, 40), (24, 4), (8, 4)}
    assert len(set(second)) == len(second) == 6 * 9 - 1


def test_what_is_converted_at_the_ends_of_a_call_is_taken_off(clock: Clock) -> None:
    model, graph = network()
    plain = measure(model, graph)
    assert set(plain.ends.values()) == {0}
    clock.ends = 2
    table = measure(model, graph)
    assert {int(count): ns for count, ns in table.ends.items()} == {
        16 * side**2: 2 * 16 * side**2 for side in (2, 8, 16, 32, 56, 112)
    }
    assert table.overhead == 500
    whole = [CostModel(graph, [each]).evaluate()["latency"] for each in (plain, table)]
    assert whole[1] == pytest.approx(whole[0], rel=0.15)
    assert max(max(cells.values()) for cells in table.times.values()) > whole[0]


def test_what_was_not_reached_counts_as_the_next_wider(clock: Clock) -> None:
    model, graph = network()
    clock.late_from(FIRST + 30)
    table = measure(model, graph)
    clock.late_from(2**40)
    assert sum(map(len, table.times.values())) == 31
    whole = measure(model, graph)
    for keep in (np.ones(graph.prunable, dtype=np.bool_), np.arange(graph.prunable) % 3 == 0):
        less, more = (CostModel(graph, [t]).evaluate(keep)["latency"] for t in (whole, table))
        assert more >= less


def test_too_little_time_is_told_and_what_was_measured_is_kept(
    clock: Clock, tmp_path: Path
) -> None:
    model, graph = network()
    file = tmp_path / "deep" / "t.json"
    clock.late_from(FIRST + 2)
    with pytest.raises(InputError, match=r"1 of 4 operators were not reached .* more seconds"):
        measure(model, graph, path=file)
    clock.late_from(2**40)
    kept = LatencyTable.read(file)
    assert kept.overhead == 500
    table = measure(model, graph, path=file)
    assert all(table.times[key].keys() >= cells.keys() for key, cells in kept.times.items())


def test_a_file_goes_on_and_is_not_measured_again(clock: Clock, tmp_path: Path) -> None:
    model, graph = network()
    file = tmp_path / "t.json"

    def interrupt(made: int) -> None:
        if made == FIRST + 29:
            raise KeyboardInterrupt

    clock.after = interrupt
    with pytest.raises(KeyboardInterrupt):
        measure(model, graph, path=file)
    kept = sum(map(len, LatencyTable.read(file).times.values()))
    assert kept == 29
    clock.after, clock.made = lambda made: None, []
    table = measure(model, graph, path=file)
    assert sum(map(len, table.times.values())) == CELLS
    assert LatencyTable.read(file) == table
    assert len(clock.made) == (CELLS - kept) + CELLS  # and all once more
    clock.made = []
    assert measure(model, graph, path=file) == table
    assert not clock.made
    # Another network shares what is the same.
    other = nn.Sequential(nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 2, 3)).eval()
    second = measure(other, trace(other, torch.randn(1, 3, 8, 8)), path=file)
    assert second.times.keys() > table.times.keys()
    assert second.bind(graph) is not None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"batch": 2}, "batch 1, expected 2"),
        ({"threads": 2}, "threads 1, expected 2"),
        ({"processor": "Another 9000"}, "on the processor Another 9000"),
        ({"versions": {"numpy": "0.1"}}, "with numpy 0.1"),
        ({"engine": "openvino"}, "engine openvino, expected onnxruntime"),
    ],
)
def test_a_file_of_something_else_is_told(
    clock: Clock, tmp_path: Path, change: dict[str, object], told: str
) -> None:
    model, graph = network()
    file = tmp_path / "t.json"
    table = measure(model, graph, path=file)
    asked = {key: value for key, value in change.items() if key in ("batch", "threads")}
    if not asked:
        replace(table, **change).save(file)  # type: ignore[arg-type]
    before = file.read_bytes()
    with pytest.raises(InputError, match=told) as caught:
        measure(model, graph, path=file, **asked)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert file.read_bytes() == before


def test_an_operator_that_can_not_be_timed_is_named(clock: Clock) -> None:
    model, graph = network()
    clock.cant = "mean"
    with pytest.warns(LcpruneWarning, match="not timed at mean: not counted"):
        table = measure(model, graph)
    assert len(table.untimed) == 1
    assert CostModel(graph, [table]).evaluate()["latency"] == 500 + 1000 * (2 + 3 + 1)


def test_wrong_arguments_are_told(tmp_path: Path) -> None:
    model, graph = network()
    for wrong in (
        {"engine": "tensorrt"},
        {"batch": 0},
        {"threads": 1.5},
        {"seconds": 0},
        {"seconds": float("nan")},
        {"path": 3},
        {"path": tmp_path},
        {"progress": 3},
    ):
        with pytest.raises(InputError):
            measure(model, graph, **wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError):
        measure(3, graph)  # type: ignore[arg-type]
    with pytest.raises(InputError):
        measure(model, model)  # type: ignore[arg-type]


def test_levels_halve_the_grid() -> None:
    assert _levels(1) == [0]
    assert _levels(5) == [1, 3, 2, 3, 0]
    assert sorted(_levels(9)) == [0, 1, 2, 3, 3, 4, 4, 4, 4]


@pytest.mark.parametrize("name", ["pytorch", "onnxruntime", "openvino"])
def test_a_real_table(name: str, tmp_path: Path) -> None:
    """Of two small layers; what it says of time is not looked at beyond its being some."""
    if name != "pytorch":
        pytest.importorskip("onnx")
        pytest.importorskip(name)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1))
    graph = trace(model.eval(), torch.randn(1, 3, 6, 6))
    table = measure(model, graph, name, batch=2, seconds=20, path=tmp_path / "t.json")
    assert table.engine == name
    assert not table.untimed
    assert all(ns > 0 for cells in table.times.values() for ns in cells.values())
    assert CostModel(graph, [table]).evaluate()["latency"] > 0
    assert engine_named(name).runtime in table.versions
    assert LatencyTable.read(tmp_path / "t.json") == table


def test_executorch_refuses_in_a_line() -> None:
    from lcprune.engines._executorch import ENGINE

    with pytest.raises(InputError, match=r"no table of its times, expected one of the other"):
        ENGINE.operator(Operator(((1,),), (0,), (), ()))
