"""Latency in a run: a bound that is measured, and kept."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from digit_runs import Prune, outcome
from lcprune.artifact import PLAN
from lcprune.cost import CostModel
from lcprune.data import first_pixels, load_data
from lcprune.engines import LatencyTable, measure
from lcprune.errors import InputError
from lcprune.graph import ChannelGraph
from lcprune.models import build
from lcprune.ranking import Plan
from lcprune.runs import (
    SUMMARY,
    Choices,
    PruneOptions,
    Silent,
    Summary,
    _stopwatch,
    prune_job,
    read_run,
    read_summary,
    sweep_job,
)
from lcprune.runs._run import LATENCY
from lcprune.runs._stopwatch import Stopwatch, Times
from lcprune.tracing import trace

pytestmark = pytest.mark.xdist_group("table of latencies")  # which takes a while to make

WHOLE = 10.0
"""Milliseconds of the base network, by the stopwatch of these tests."""


def a_network() -> tuple[nn.Module, ChannelGraph]:
    data = load_data("digits")
    model = build("digits_resnet", classes=10, input_shape=data.input_shape).eval()
    return model, trace(model, data.normalise(first_pixels(data.train, 1)))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> LatencyTable:
    """A convolution takes the time of its widths, in steps of 4, and the network 10 ms."""
    model, graph = a_network()
    path = tmp_path_factory.mktemp("table") / "begun.json"

    class WholeWidthsAreTimedError(Exception):
        pass

    def stop(done: int, total: int, _: str) -> None:
        totals.add(total)
        if len(totals) > 1:
            raise WholeWidthsAreTimedError

    totals: set[int] = set()
    with suppress(WholeWidthsAreTimedError):
        measure(model, graph, "pytorch", seconds=60, path=path, progress=stop)
    found = LatencyTable.read(path)
    times = {}
    for unit, cells in found.times.items():
        full = max(cells, default=())
        grids = [sorted({*range(4, n, 4), n}) for n in full]
        places = np.stack(np.meshgrid(*grids, indexing="ij"), -1).reshape(-1, len(full))
        times[unit] = {tuple(map(int, at)): 10 * int(np.prod(at)) for at in places} if full else {}
    whole = {graph.computation: round(1e6 * WHOLE)}
    return replace(found, times=times, overhead=0, whole=whole)


@pytest.fixture
def file(table: LatencyTable, tmp_path: Path) -> Path:
    path = tmp_path / "table.json"
    table.save(path)
    return path


class Fake:
    """Times a network at ``truth`` times what the table says of it, whatever the clock says.

    Of several truths each network that is timed has the next, and all after them the last. A
    share of the whole network's time, ``own``, is the engine's, whatever the network.
    """

    def __init__(
        self, table: LatencyTable, *truth: float, own: float = 0.0, ends: int | None = None
    ) -> None:
        _, self._graph = a_network()
        self._cost = CostModel(self._graph, [table])
        self._whole = self._cost.evaluate()["latency"]
        self.truth = truth or (1.0,)
        self.own = own
        self.ends = ends
        self.plans: list[str] = []

    def times(
        self, watch: Stopwatch, model: nn.Module, small: nn.Module, graph: Any, plan: Plan, x: Any
    ) -> Times:
        key = {**watch._key("pair", graph), "plan": plan.digest}

        def measured() -> Times:
            if self.ends is not None and len(self.plans) == self.ends:
                raise KeyboardInterrupt
            self.plans.append(plan.digest)
            truth = self.truth[min(len(self.plans), len(self.truth)) - 1]
            share = self.own + (1 - self.own) * truth * plan.cost["latency"] / (1e6 * WHOLE)
            return Times(WHOLE, WHOLE * min(1.0, share))

        return watch._choices.once(key, Times, measured)

    def use(self, patch: pytest.MonkeyPatch) -> Fake:
        patch.setattr(Stopwatch, "times", lambda watch, *arguments: self.times(watch, *arguments))
        return self


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LCPRUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Told(Silent):
    def __init__(self) -> None:
        self.warned: list[str] = []
        self.staged: list[str] = []

    def warn(self, text: str) -> None:
        self.warned.append(text)

    def stage(self, text: str) -> None:
        self.staged.append(text)


def bounded(file: Path) -> dict[str, Any]:
    return {
        "budget": ["latency=60%"],
        "latency_table": str(file),
        "round_to": "auto",
        "finetune_epochs": 0,
        "trials": 3,
    }


def asked(options: dict[str, Any], file: Path, **changes: Any) -> PruneOptions:
    return PruneOptions.of({**options, **bounded(file), **changes})


def check_latency(summary: Summary) -> None:
    cost, entry = summary.costs["latency"], summary.latency[-1]
    assert (cost.unit, cost.before) == ("ns", round(1e6 * WHOLE))
    assert cost.met == (cost.after <= cost.limit if cost.limit else True)
    assert cost.ratio == pytest.approx(cost.after / cost.before)
    assert (entry.engine, entry.batch, entry.threads) == ("pytorch", 1, 1)
    assert entry.before_ms == pytest.approx(cost.before / 1e6)
    assert entry.after_ms == pytest.approx(cost.after / 1e6)


def test_the_last_cut_within_the_bound_is_published_though_later_ones_are_beyond(
    options: dict[str, Any], table: LatencyTable, file: Path, cache: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    fake = Fake(table, 0.8, 1.05, 1.1, 1.2).use(monkeypatch)
    told = Told()
    summary = prune_job(asked(options, file), tmp_path / "out", reporter=told)
    check_latency(summary)
    assert len(fake.plans) == 4
    assert summary.costs["latency"].met
    assert Plan.from_json((tmp_path / "out" / PLAN).read_text()).digest == fake.plans[0]
    assert not told.warned


@pytest.mark.parametrize("truth", [1.0, 1.25, 0.8])
def test_what_measures_within_the_bound_is_published(
    options: dict[str, Any], table: LatencyTable, file: Path, cache: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, truth: float,
) -> None:  # fmt: skip
    fake = Fake(table, truth).use(monkeypatch)
    told = Told()
    summary = prune_job(asked(options, file), tmp_path / "out", reporter=told)
    check_latency(summary)
    cost, entry = summary.costs["latency"], summary.latency[-1]
    assert cost.met
    assert 0.45 < cost.ratio <= 0.6
    assert cost.limit == round(0.6e6 * WHOLE)
    assert 1 <= len(fake.plans) <= 4
    assert (len(fake.plans) == 1) == (truth == 1.0)
    if truth != 0.8:
        assert entry.predicted_ms == pytest.approx(entry.after_ms, rel=0.03)
    assert Plan.from_json((tmp_path / "out" / PLAN).read_text()).digest in fake.plans
    assert summary.round_to == "auto"
    assert sum(line.startswith("latency on pytorch") for line in told.staged) == len(fake.plans)
    assert not told.warned


@pytest.mark.parametrize(
    ("truth", "own"), [(1.0, 0.3), (1.0, 0.45), (0.7, 0.3), (1.3, 0.1), (0.75, 0.0)]
)
def test_an_engine_with_time_of_its_own(
    options: dict[str, Any], table: LatencyTable, file: Path, cache: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, truth: float, own: float,
) -> None:  # fmt: skip
    Fake(table, truth, own=own).use(monkeypatch)
    cost = prune_job(asked(options, file), tmp_path / "out").costs["latency"]
    assert cost.met
    assert 0.55 < cost.ratio <= 0.6


def test_the_same_command_measures_nothing_anew_and_a_run_that_goes_on_neither(
    options: dict[str, Any], table: LatencyTable, file: Path, cache: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    fake = Fake(table, 1.25).use(monkeypatch)
    config = asked(options, file)
    prune_job(config, tmp_path / "one")
    times = len(fake.plans)
    assert times > 1
    fake.truth = (3.0,)  # it isn't asked
    prune_job(config, tmp_path / "two")
    assert len(fake.plans) == times
    assert outcome(tmp_path / "one") == outcome(tmp_path / "two")

    monkeypatch.setenv("LCPRUNE_CACHE", str(tmp_path / "another cache"))
    broken = Fake(table, 1.25, ends=1).use(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        prune_job(config, tmp_path / "three")
    monkeypatch.setenv("LCPRUNE_CACHE", str(tmp_path / "a third cache"))
    file.unlink()  # the run has its own
    broken.ends = None
    prune_job(config, tmp_path / "three", resume=True)
    assert broken.plans == fake.plans
    assert outcome(tmp_path / "three") == outcome(tmp_path / "one")


def test_where_none_is_within_the_bound_the_fastest_stays_and_it_is_said(
    table: LatencyTable, file: Path, cache: Path, tmp_path: Path, prune: Prune,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(Stopwatch, "times", lambda *_: Times(WHOLE, 0.7 * WHOLE))
    changes = bounded(file)
    assert prune(tmp_path / "out", **changes) == 0
    errors = capsys.readouterr().err
    assert "no cut measured within latency=60%: the fastest takes 7 ms of 10" in errors
    assert "16.7% beyond the bound" in errors
    cost = read_summary(tmp_path / "out").costs["latency"]
    assert (cost.met, cost.asked, cost.after) == (False, "60%", 7_000_000)
    assert prune(tmp_path / "strict", "--strict-latency", **changes) == 1
    out = capsys.readouterr()
    assert "not met" in out.out
    assert len(out.err.strip().splitlines()) == 1
    assert read_summary(tmp_path / "strict").costs["latency"] == cost
    assert prune(tmp_path / "strict", "--strict-latency", "--resume", **changes) == 1


def test_an_engine_without_a_bound_times_the_result_and_says_what_would_help(
    options: dict[str, Any], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stopwatch, "times", lambda *_: Times(WHOLE, 1.1 * WHOLE))
    told = Told()
    config = PruneOptions.of(options | {"engine": "pytorch", "round_to": 1, "finetune_epochs": 0})
    summary = prune_job(config, tmp_path / "out", reporter=told)
    check_latency(summary)
    cost = summary.costs["latency"]
    assert (cost.asked, cost.limit, cost.met) == (None, None, True)
    assert [one.predicted_ms for one in summary.latency] == [None]
    [line] = told.warned
    assert "not faster on pytorch: 11 ms, the base network 10 ms" in line
    assert "--round-to auto" in line


def test_a_missing_table_is_measured_once(
    options: dict[str, Any], table: LatencyTable, cache: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    calls: list[dict[str, Any]] = []

    def measured(model: nn.Module, graph: ChannelGraph, engine: str, **how: Any) -> LatencyTable:
        how["progress"](1, 2, "conv1")
        calls.append(how)
        return table

    monkeypatch.setattr(_stopwatch, "measure", measured)
    Fake(table).use(monkeypatch)
    config = PruneOptions.of(
        options
        | {"budget": ["latency=60%"], "engine": "pytorch", "finetune_epochs": 0}
        | {"measure_seconds": 7, "trials": 2}
    )
    prune_job(config, tmp_path / "one")
    prune_job(config, tmp_path / "two")
    [how] = calls
    assert (how["batch"], how["threads"], how["seconds"]) == (1, 1, 7.0)
    assert outcome(tmp_path / "one") == outcome(tmp_path / "two")
    prune_job(config, tmp_path / "three", remeasure=True)
    assert len(calls) == 2


def test_a_sweep_over_latency_is_of_one_table_and_its_runs_go_on_by_themselves(
    tmp_path: Path,
    options: dict[str, Any],
    table: LatencyTable,
    file: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = Fake(table, 1.2).use(monkeypatch)
    out = tmp_path / "out"
    bounds = {"budget": [], "sweep": ["latency=80%,60%,70%"], "trials": 4}
    sweep = sweep_job(asked(options, file, **bounds), out)
    assert [point.directory for point in sweep.points] == ["latency-60", "latency-70", "latency-80"]
    assert [len(point.start) for point in sweep.points] == [0, 0, 2]
    assert len(fake.plans) > 3
    for point in sweep.points:
        check_latency(read_summary(out / point.directory))
        cost = point.costs["latency"]
        assert cost.limit is not None
        assert 0.85 * cost.limit < cost.after <= cost.limit
        assert (out / point.directory / LATENCY).read_bytes() == (out / LATENCY).read_bytes()
    file.unlink()
    (out / "latency-80" / SUMMARY).unlink()
    before = (out / "latency-80" / PLAN).read_bytes()
    alone = read_run(out / "latency-80").configuration
    prune_job(PruneOptions.of(alone), out / "latency-80", resume=True)
    assert (out / "latency-80" / PLAN).read_bytes() == before


def refusal(options: dict[str, Any], out: Path, **changes: Any) -> str:
    with pytest.raises(InputError) as error:
        prune_job(PruneOptions.of(options | changes), out)
    assert not out.exists()
    return str(error.value)


def test_what_can_not_be_timed_is_refused_in_a_line_before_anything_is_written(
    options: dict[str, Any], table: LatencyTable, file: Path, cache: Path, tmp_path: Path
) -> None:
    out, bound = tmp_path / "out", {"budget": ["latency=60%"]}
    assert "--engine onnxruntime or --latency-table FILE" in refusal(options, out, **bound)
    given = {**bound, "latency_table": str(file)}
    for changes, expected in (
        ({"engine": "onnxruntime"}, "engine is onnxruntime, and the latency table is of pytorch"),
        ({"latency_batch": 2}, "latency_batch is 2, and the latency table is of 1"),
        ({"latency_threads": 3}, "latency_threads is 3, and the latency table is of 1"),
        ({"budget": ["latency=1%"]}, "least possible"),
        ({"budget": ["latency=1us"]}, "least possible"),
        ({"budget": ["latency=20ms"]}, "leaves nothing to prune"),
        ({"budget": ["latency=5"]}, "no unit"),
        ({"budget": ["latency=5MB"]}, "unknown unit 'MB'"),
        ({"latency_table": str(tmp_path / "none.json")}, "none.json"),
    ):
        assert expected in refusal(options, out, **{**given, **changes})
    for other in (
        replace(table, processor="another one"),
        replace(table, versions={"torch": "1.0"}),
    ):
        other.save(file)
        assert "the latency table was measured" in refusal(options, out, **given)
    file.write_text("{}")
    assert "table.json" in refusal(options, out, **given)


def test_an_engine_that_is_not_installed_is_refused_in_a_line(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lcprune.engines._engine._is_there", lambda _: False)
    told = refusal(options, tmp_path / "out", engine="openvino")
    assert "pip install 'lcprune[openvino]'" in told


def test_networks_are_really_timed_on_the_engine(tmp_path: Path) -> None:
    data = load_data("digits")
    model, graph = a_network()
    example = data.normalise(first_pixels(data.train, 1))
    watch = Stopwatch("pytorch", 2, 1, Choices(tmp_path))
    plan = Plan(kept={})
    times = watch.times(model, model, graph, plan, example)
    assert min(times.before_ms, times.after_ms) > 0
    assert watch.times(model, model, graph, plan, example) == times
    [kept] = tmp_path.iterdir()
    key = json.loads(kept.read_text())["key"]
    assert (key["engine"], key["batch"], key["threads"]) == ("pytorch", 2, 1)
    assert isinstance(example, Tensor)
    assert torch.get_num_threads() == 1
