"""How long networks take on an engine, and the table that a bound on that needs."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from lcprune._files import make_directory
from lcprune._text import one_line
from lcprune.artifact import versions
from lcprune.cost import Budget, CostModel
from lcprune.engines import (
    LatencyTable,
    Opened,
    engine_named,
    machine,
    measure,
    time_in_turns,
)
from lcprune.errors import InputError, LcpruneError, LcpruneWarning, ModelError
from lcprune.fitness import eval_mode
from lcprune.graph import ChannelGraph
from lcprune.ranking import Plan
from lcprune.runs._choices import Choices
from lcprune.runs._options import PruneOptions
from lcprune.runs._reporter import Reporter
from lcprune.tracing import Inputs, bake

MOST_SECONDS = 60.0
"""What timing two networks on an engine takes at most, unless ten runs of each take longer."""
PLAIN_SECONDS = 10.0
"""The same, of networks as PyTorch runs them."""


@dataclass(frozen=True)
class Times:
    """The least time of a call in ms of the base network and of a cut one, in turns."""

    before_ms: float
    after_ms: float


class Stopwatch:
    """Times networks on one engine; what it once measured on this machine it measures no more.

    ``given`` is a table of a file, or that of a run that goes on, which is ``scaled`` already.

    ``InputError`` where the engine is missing.
    """

    def __init__(
        self,
        engine: str,
        batch: int,
        threads: int,
        choices: Choices,
        *,
        given: LatencyTable | None = None,
        scaled: bool = False,
        seconds: float = 600.0,
    ) -> None:
        self.engine = engine
        self.batch = batch
        self.threads = threads
        self._engine = engine_named(engine)
        self._choices = choices
        self._given = given
        self._scaled = scaled
        self._seconds = seconds
        self._opened: dict[int, tuple[nn.Module, Opened]] = {}

    @staticmethod
    def of(options: PruneOptions, choices: Choices, own: Path | None = None) -> Stopwatch | None:
        """What ``options`` ask for; none where they name no engine and no table.

        ``own`` is where a run that goes on may have its table. ``InputError`` for a bound on
        latency without an engine and a table, for a table of another machine, and where options
        and table don't agree.
        """
        scaled = own is not None and own.exists()
        given = None
        if own is not None and scaled:
            given = LatencyTable.read(own)
            _with_warning(given.check_machine)
        elif options.latency_table is not None:
            given = LatencyTable.read(options.latency_table)
            given.check_machine()
        if given is None:
            if options.engine is not None:
                batch, threads = options.latency_batch or 1, options.latency_threads or 1
                seconds = options.measure_seconds
                return Stopwatch(options.engine, batch, threads, choices, seconds=seconds)
            if "latency" in Budget.parse(options.budget).asked:
                raise InputError(
                    "a bound on latency needs an engine or a table, expected --engine onnxruntime "
                    "or --latency-table FILE beside it"
                )
            return None
        for what, of, asked in (
            ("engine", given.engine, options.engine),
            ("latency_batch", given.batch, options.latency_batch),
            ("latency_threads", given.threads, options.latency_threads),
        ):
            if asked is not None and asked != of:
                raise InputError(
                    f"{what} is {asked}, and the latency table is of {of}: expected the same, or "
                    "only the table"
                )
        return Stopwatch(
            given.engine, given.batch, given.threads, choices, given=given, scaled=scaled
        )

    def table(
        self,
        model: nn.Module,
        graph: ChannelGraph,
        example: Tensor,
        reporter: Reporter,
        *,
        bounded: bool,
    ) -> LatencyTable | None:
        """The table, scaled to what the whole network takes; none where nothing asks for one."""
        if self._given is not None and self._scaled:
            return self._given
        if self._given is None and not bounded:
            return None
        table = self._given or self._measured(model, graph, example, reporter)
        predicted = CostModel(graph, [table]).evaluate()["latency"]
        if not predicted:
            raise InputError("the latency table says that the network takes no time")
        whole = table.whole.get(graph.computation)
        if whole is None:
            key = self._key("whole", graph)
            one = self._choices.once(key, Times, lambda: self._in_turns(model, model, example))
            whole = round(1e6 * one.before_ms)
        return table.scaled(whole / predicted)

    def times(
        self, model: nn.Module, small: nn.Module, graph: ChannelGraph, plan: Plan, example: Tensor
    ) -> Times:
        """What a network and the one that ``plan`` made of it take."""
        key = {**self._key("pair", graph), "plan": plan.digest}
        return self._choices.once(key, Times, lambda: self._in_turns(model, small, example))

    def _in_turns(self, model: nn.Module, small: nn.Module, example: Tensor) -> Times:
        images = example.cpu().expand(self.batch, *example.shape[1:]).contiguous()
        calls = {"before": self._call(model, images), "after": self._call(small, images)}
        found = time_in_turns(
            calls, batch=self.batch, threads=self.threads, most_seconds=MOST_SECONDS
        )
        return Times(found["before"].least_ms, found["after"].least_ms)

    def _call(self, model: nn.Module, images: Tensor) -> Callable[[], object]:
        opened = self._on_engine(model, images)
        return lambda: opened(images)

    def _on_engine(self, model: nn.Module, images: Tensor) -> Opened:
        """The network as the engine runs it; it is written once."""
        known = self._opened.get(id(model))
        if known is not None and known[0] is model:
            return known[1]
        plain = bake(model).cpu().eval().requires_grad_(False)
        path = Path(self._folder.name) / f"{len(self._opened)}{self._engine.suffix}"
        try:
            self._engine.write(plain, Inputs(images), path)
            opened = self._engine.open(path, self.threads)
        except (LcpruneError, OSError, MemoryError):
            raise
        except Exception as error:  # engines have errors of their own kinds
            raise ModelError(f"{self.engine} can't run the network: {one_line(error)}") from error
        self._opened[id(model)] = (model, opened)
        return opened

    @cached_property
    def _folder(self) -> TemporaryDirectory[str]:
        return TemporaryDirectory()

    def _measured(
        self, model: nn.Module, graph: ChannelGraph, example: Tensor, reporter: Reporter
    ) -> LatencyTable:
        """The table that was measured here before, or now; one that was begun goes on."""
        begun = self._choices.file(self._key("begun table", graph))
        file = self._choices.file({**self._key("table", graph), "seconds": self._seconds})
        if self._choices.remeasure:
            for path in (begun, file):
                with suppress(OSError):
                    path.unlink(missing_ok=True)
        with suppress(InputError):
            table = LatencyTable.read(file)
            if (table.engine, table.batch, table.threads) == (
                self.engine,
                self.batch,
                self.threads,
            ):
                return table
        to: Path | None = begun
        with suppress(InputError):
            make_directory(begun.parent)
        try:
            LatencyTable.read(begun)
        except InputError:  # it isn't there, is damaged, or the cache can't be used
            try:
                begun.unlink(missing_ok=True)
            except OSError:
                to = None
            to = to if begun.parent.is_dir() and os.access(begun.parent, os.W_OK) else None
        reporter.stage(
            f"latency: operators are timed on {self.engine}, at most {self._seconds:.0f} s"
        )
        with reporter.progress("measuring", 100) as advance:

            def progress(done: int, total: int, text: str) -> None:
                advance(round(100 * done / max(total, 1)), text)

            table = measure(
                model,
                graph,
                self.engine,
                example_input=example,
                batch=self.batch,
                threads=self.threads,
                seconds=self._seconds,
                path=to,
                progress=progress,
            )
        with suppress(InputError):
            table.save(file)
        return table

    def _key(self, kind: str, graph: ChannelGraph) -> dict[str, Any]:
        """All that a time may depend on: JSON."""
        here = machine(self._engine)
        return {
            "kind": f"latency {kind}",
            "engine": self.engine,
            "versions": dict(here.versions),
            "processor": here.processor,
            "batch": self.batch,
            "threads": self.threads,
            "lcprune": versions().get("lcprune"),
            "network": graph.computation,
        }


def _with_warning(check: Callable[[], None]) -> None:
    """What is wrong with the table of a run that goes on elsewhere is said, and no more."""
    try:
        check()
    except InputError as error:
        warnings.warn(
            f"the run goes on with its own times, though {error}",
            LcpruneWarning,
            stacklevel=2,
        )


def time_models(models: Sequence[nn.Module], example: Tensor) -> list[float]:
    """The least milliseconds of a forward pass of each, in turns, as PyTorch runs them here."""

    def call(model: nn.Module) -> None:
        model(example)
        if example.is_cuda:
            torch.cuda.synchronize(example.device)

    with ExitStack() as stack, torch.inference_mode():
        for model in models:
            stack.enter_context(eval_mode(model))
        timings = time_in_turns(
            {str(i): partial(call, model) for i, model in enumerate(models)},
            batch=len(example),
            threads=torch.get_num_threads(),
            most_seconds=PLAIN_SECONDS,
        )
    return [timing.least_ms for timing in timings.values()]
