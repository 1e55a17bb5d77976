"""What the commands do, once the command line is understood."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn

from lcprune.artifact import load, read_example
from lcprune.cli._inspect import inspect_model
from lcprune.cli._parser import Asked
from lcprune.cli._progress import OnConsole, Output
from lcprune.cli._signals import PIPE_CLOSED, PipeClosedError, ending_on_signals
from lcprune.cli._stderr import tell
from lcprune.cli._table import (
    cost_name,
    latency_name,
    result_table,
    sweep_table,
    timing_rows,
    training_table,
)
from lcprune.cost import RESOURCES, CostModel, read_energy
from lcprune.data import Data, first_pixels, load_data
from lcprune.engines import (
    FORMATS,
    SUFFIXES,
    Opened,
    Timing,
    engine_named,
    export,
    time_in_turns,
    with_threads,
)
from lcprune.errors import InputError
from lcprune.graph import quantity
from lcprune.runs import (
    AUTO,
    EXPORTED,
    DemoOptions,
    DirectoryOptions,
    EvaluateOptions,
    ExportOptions,
    InspectOptions,
    Options,
    PruneOptions,
    RunOptions,
    RunState,
    TrainOptions,
    check_command,
    check_is_run,
    check_logits,
    check_run,
    check_trust,
    choose_device,
    measure_latencies,
    prune_job,
    read_config,
    read_run,
    resolve,
    resume_line,
    run_state,
    sweep_job,
    train_job,
)
from lcprune.tracing import trace
from lcprune.training import evaluate_top1

DEMO: Mapping[str, Any] = {
    "model": "digits_resnet",
    "data": "digits",
    "weights": "random",
    "base_epochs": 20,
    "budget": ("macs=30%",),
    "trials": 200,
    "recalibrate_images": 400,
    "fitness_images": 800,
    "finetune_epochs": 20,
    "train_dtype": "float32",  # a measurement would take longer than it saves
    "batch_size": 64,
}
"""Scikit-learn's digits: about a minute on two cores."""


def demo(asked: Asked) -> int:
    where = DemoOptions.of(asked.values)
    if "out" not in asked.values and not where.resume:
        where = replace(where, force=True)
    return _run("demo", where, PruneOptions, {}, DEMO)


def prune(asked: Asked) -> int:
    return _run("prune", RunOptions.of(asked.of(RunOptions)), PruneOptions, asked.of(PruneOptions))


def train(asked: Asked) -> int:
    return _run("train", RunOptions.of(asked.of(RunOptions)), TrainOptions, asked.of(TrainOptions))


def inspect(asked: Asked) -> int:
    console = Output()
    for part in inspect_model(InspectOptions.of(asked.values)):
        console.print(part, soft_wrap=True)
    return 0


def evaluate(asked: Asked) -> int:
    return _printed(lambda: evaluate_saved(EvaluateOptions.of(asked.values)))


def export_command(asked: Asked) -> int:
    return _printed(lambda: export_saved(ExportOptions.of(asked.values)))


def _printed(work: Callable[[], Table | str]) -> int:
    """Print what comes out, unless a signal ends it."""
    with ending_on_signals() as stop:
        try:
            result = work()
        except (Exception, KeyboardInterrupt):
            if stop.number is None:
                raise
        if stop.number is None:
            Output().print(result, soft_wrap=True)
            return 0
    return stop.exit_code


def export_saved(options: ExportOptions) -> str:
    """Write the file, and give the line that says so."""
    check_is_run(options.directory)
    path = options.out or options.directory / f"{EXPORTED}{SUFFIXES[options.format]}"
    engine_named(FORMATS[options.format])  # before a network is built
    written = export(
        load(options.directory, trust_factory=options.trust_factory),
        path,
        format=options.format,
        example_input=read_example(options.directory),
        dynamic_batch=options.dynamic_batch,
    )
    files = " and ".join(map(str, written.files))
    size = quantity(written.bytes, "B")
    return (
        f"wrote {files} ({size}): {written.engine} differs from PyTorch by at most "
        f"{written.error:.1g}"
    )


def evaluate_saved(options: EvaluateOptions) -> Table:
    """What to print about a saved model: top-1 on the test split, costs, latency.

    Everything is measured on the loaded model, accuracy and latency on the engine where one is
    named. ``InputError`` where the directory, the data or the engine can't be used or don't fit
    one another, ``VerificationError`` where the engine computes something else.
    """
    if options.engine:
        engine_named(options.engine)
        if options.device not in (AUTO, "cpu"):
            raise InputError(f"engines run on the CPU, expected no --device {options.device}")
    check_is_run(options.directory)
    device = choose_device("cpu" if options.engine else options.device)
    energy = () if options.energy is None else (read_energy(options.energy),)
    model = load(options.directory, trust_factory=options.trust_factory)
    data = load_data(options.data)
    example_input = data.normalise(first_pixels(data.test, 1))
    check_logits(model, example_input, data)
    resources = [*(name for name in RESOURCES if name != "energy"), *energy]
    cost = CostModel(trace(model, example_input), resources).evaluate()
    table = Table("", title=f"{options.directory} on {data.name}", title_justify="left")
    table.add_column("value", justify="right")
    heading = f"top-1 of {len(data.test)} test images, %"
    rows = {cost_name(name): quantity(n, RESOURCES[name].unit) for name, n in cost.items()}
    with with_threads(options.threads or (1 if options.engine else torch.get_num_threads())):
        if options.engine:
            top1, timings = _on_engine(options.engine, model, data, example_input)
            heading += f" ({options.engine})"
            for name, timing in timings.items():
                rows |= timing_rows(name, timing)
        else:
            (latency,) = measure_latencies([model], example_input)
            top1 = evaluate_top1(model.to(device), data.test, data)
            rows[latency_name(len(example_input), torch.get_num_threads())] = f"{latency:.2f}"
    table.add_row(heading, f"{top1:.2f}")
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _on_engine(
    name: str, model: nn.Module, data: Data, example_input: Tensor
) -> tuple[float, dict[str, Timing]]:
    """Top-1 on an engine, and its time for an image in turns with PyTorch's.

    It runs what ``export`` would write, and nothing that is in the directory.
    """
    engine, threads = engine_named(name), torch.get_num_threads()
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"{EXPORTED}{engine.suffix}"
        export(model, path, format=engine.format, example_input=example_input)
        opened = engine.open(path, threads)

        def plain() -> None:
            with torch.inference_mode():
                model(example_input)

        file = f"{name}, {engine.format}" if name == "pytorch" else name
        timings = time_in_turns(
            {"pytorch": plain, file: lambda: opened(example_input)},
            batch=len(example_input),
            threads=threads,
        )
        return evaluate_top1(OnEngine(opened), data.test, data, batch=1), timings


class OnEngine(nn.Module):
    """A network on an engine as a module; its first output is what counts."""

    def __init__(self, opened: Opened) -> None:
        super().__init__()
        self._opened = opened

    def forward(self, x: Tensor) -> Tensor:
        return self._opened(x)[0]


def _run(
    command: str,
    where: DirectoryOptions,
    kind: type[Options],
    given: Mapping[str, Any],
    defaults: Mapping[str, Any] = MappingProxyType({}),
) -> int:
    """A run, from its options to its table; signals end it, and a closed pipe."""
    out = where.out
    file = where.config if isinstance(where, RunOptions) else None
    state = check_run(out, resume=where.resume, force=where.force)
    if where.resume and state is not RunState.EMPTY:
        # A run that goes on needs no option again; one that is given must agree.
        record = read_run(out)
        check_command(out, record, command)
        if state is RunState.UNFINISHED and not where.trust_factory:
            check_trust(out, record, {**(read_config(file) if file else {}), **given})
        defaults = record.configuration
    config = resolve(kind, given, file=file, defaults=defaults)
    console = Output()
    with ending_on_signals() as stop:
        # Progress is on stdout too: stderr is for what is not as expected, a line each.
        reporter = stop.reporter(OnConsole(console, Output(stderr=True)))
        how: dict[str, Any] = {
            "resume": where.resume,
            "force": where.force,
            "remeasure": where.remeasure,
            "reporter": reporter,
        }
        try:
            if isinstance(config, PruneOptions) and config.sweep:
                table = sweep_table(sweep_job(config, out, command=command, **how))
            elif isinstance(config, PruneOptions):
                table = result_table(prune_job(config, out, command=command, **how))
            else:
                table = training_table(train_job(config, out, **how))
        except KeyboardInterrupt:
            return _interrupted(out, stop.exit_code)
        except PipeClosedError:
            return _interrupted(out, PIPE_CLOSED)
        except Exception:
            # What a signal did to others, such as processes that read images or the terminal,
            # may arrive before the signal's own exception, or in its place.
            if stop.number is None:
                raise
            return _interrupted(out, stop.exit_code)
    console.print(table)
    console.print(f"saved to {out}", soft_wrap=True)
    return 0


def _interrupted(out: Path, code: int) -> int:
    state = run_state(out)
    if state is RunState.UNFINISHED:
        record = read_run(out)
        line = resume_line(out, record.command, trust=bool(record.foreign))
        tell(f"interrupted; to go on: {line}")
    elif state is RunState.FINISHED:
        tell(f"interrupted; {out} holds a finished run")
    else:
        tell("interrupted; nothing was written")
    return code


_COMMANDS = {
    "demo": demo,
    "prune": prune,
    "train": train,
    "inspect": inspect,
    "evaluate": evaluate,
    "export": export_command,
}


def run(asked: Asked) -> int:
    """Do what was asked for, and give the exit code."""
    return _COMMANDS[asked.command.name](asked)
