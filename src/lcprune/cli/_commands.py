"""What the commands do, once the command line is understood."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from lcprune.cli._measure import measured
from lcprune.cli._parser import Asked
from lcprune.cli._progress import OnConsole, Output
from lcprune.cli._signals import PIPE_CLOSED, PipeClosedError, ending_on_signals
from lcprune.cli._stderr import tell
from lcprune.cli._table import (
    cost_name,
    result_table,
    sweep_table,
    timing_rows,
    training_table,
)
from lcprune.cost import CostModel, read_energy
from lcprune.data import Data, first_pixels, load_data
from lcprune.engines import (
    FORMATS,
    SUFFIXES,
    Engine,
    Exported,
    Opened,
    calibration_images,
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
    EXPORTED_INT8,
    DemoOptions,
    DirectoryOptions,
    EvaluateOptions,
    ExportOptions,
    InspectOptions,
    MeasureOptions,
    Options,
    PruneOptions,
    Reporter,
    RunOptions,
    RunState,
    TrainOptions,
    check_command,
    check_is_run,
    check_logits,
    check_run,
    check_trust,
    choose_device,
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

COUNTED = ("macs", "params", "weights", "activations")
"""The resources that every network has figures of, without prices or a table."""

LARGEST_DROP = 0.5
"""Points of top-1 that int8 may cost without a word."""


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


def measure_command(asked: Asked) -> int:
    options = MeasureOptions.of(asked.values)
    console = Output()
    with ending_on_signals() as stop:
        reporter = stop.reporter(OnConsole(console, Output(stderr=True)))
        try:
            parts = list(measured(options, reporter))
        except KeyboardInterrupt:
            return _left(options.out, stop.exit_code)
        except PipeClosedError:
            return _left(options.out, PIPE_CLOSED)
        except Exception:
            if stop.number is None:
                raise
            return _left(options.out, stop.exit_code)
    for part in parts:
        console.print(part, soft_wrap=True)
    return 0


def _left(table: Path, code: int) -> int:
    if table.exists():
        tell(f"interrupted; {table} has what was measured: the same command goes on with it")
    else:
        tell("interrupted; nothing was written")
    return code


def evaluate(asked: Asked) -> int:
    options = EvaluateOptions.of(asked.values)
    return _printed(lambda reporter: [evaluate_saved(options, reporter)])


def export_command(asked: Asked) -> int:
    options = ExportOptions.of(asked.values)
    return _printed(lambda reporter: export_saved(options, reporter))


def _printed(work: Callable[[Reporter], Sequence[Table | str]]) -> int:
    """Print what comes out, unless a signal ends it."""
    with ending_on_signals() as stop:
        try:
            result = work(stop.reporter(OnConsole(Output(), Output(stderr=True))))
        except (Exception, KeyboardInterrupt):
            if stop.number is None:
                raise
        if stop.number is None:
            for part in result:
                Output().print(part, soft_wrap=True)
            return 0
    return stop.exit_code


def export_saved(options: ExportOptions, reporter: Reporter) -> list[str]:
    """Write the file, and give the lines that say so."""
    check_is_run(options.directory)
    example = read_example(options.directory)  # what is missing first: it, then the engine
    engine = engine_named(FORMATS[options.format], int8=options.int8)
    if options.int8 and options.data is None:
        raise InputError("int8 needs training images to calibrate on, expected --data DATA")
    if options.data is not None and not options.int8:
        raise InputError("only int8 needs images, expected --data together with --int8")
    name = EXPORTED_INT8 if options.int8 else EXPORTED
    path = options.out or options.directory / f"{name}{SUFFIXES[options.format]}"
    how: dict[str, Any] = {
        "format": options.format,
        "example_input": example,
        "dynamic_batch": options.dynamic_batch,
    }
    model = load(options.directory, trust_factory=options.trust_factory)
    if options.data is None:
        written = export(model, path, **how)
        error = f"{written.engine} differs from PyTorch by at most {written.error:.1g}"
        return [f"{_wrote(written)}: {error}"]
    (image,) = example.args if len(example.args) == 1 else (None,)
    if not isinstance(image, Tensor) or example.kwargs:
        raise InputError(
            "the network takes more than images, expected lcprune.export(…, int8=batches) for it"
        )
    data = load_data(options.data)
    check_logits(model, image, data)
    written = export(model, path, **how, int8=[calibration_images(data)])
    with TemporaryDirectory() as folder:
        whole = export(model, Path(folder) / path.name, **how)
        before, after = (
            _engine_top1(engine, file.path, data, example.batch, reporter, kind)
            for file, kind in ((whole, "float32"), (written, "int8"))
        )
    _warn_of_drop(engine, before, after, reporter)
    return [
        _wrote(written),
        f"top-1 of {len(data.test)} test images on {engine.name}: {after:.2f} %, in float32 "
        f"{before:.2f} % ({quantity(whole.bytes, 'B')})",
    ]


def _wrote(written: Exported) -> str:
    files = " and ".join(map(str, written.files))
    return f"wrote {files} ({quantity(written.bytes, 'B')})"


def evaluate_saved(options: EvaluateOptions, reporter: Reporter) -> Table:
    """What to print about a saved model: top-1 on the test split, costs, latency.

    Everything is measured on the loaded model, accuracy and latency on the engine where one is
    named. ``InputError`` where the directory, the data or the engine can't be used or don't fit
    one another, ``VerificationError`` where the engine computes something else.
    """
    check_is_run(options.directory)
    read_example(options.directory)  # what is missing first: it, then the engine
    if options.engine:
        engine_named(options.engine, int8=options.int8)
        if options.device not in (AUTO, "cpu"):
            raise InputError(f"engines run on the CPU, expected no --device {options.device}")
    elif options.int8:
        raise InputError("int8 is an engine's, expected --engine with --int8")
    device = choose_device("cpu" if options.engine else options.device)
    energy = () if options.energy is None else (read_energy(options.energy),)
    model = load(options.directory, trust_factory=options.trust_factory)
    data = load_data(options.data)
    example_input = data.normalise(first_pixels(data.test, 1))
    check_logits(model, example_input, data)
    cost = CostModel(trace(model, example_input), [*COUNTED, *energy])
    counted = cost.evaluate()
    table = Table("", title=f"{options.directory} on {data.name}", title_justify="left")
    table.add_column("value", justify="right")
    heading = f"top-1 of {len(data.test)} test images, %"
    with with_threads(options.threads or (1 if options.engine else torch.get_num_threads())):
        calls = {"pytorch": lambda: _run_model(model, example_input)}
        if options.engine:
            scores, rest = _on_engine(options, model, data, example_input, calls, reporter)
        else:
            rest = _timed(calls, example_input)
            top1 = _top1(model.to(device), data, None, reporter, "top-1")
            scores = {"": top1}
    for name, top1 in scores.items():
        table.add_row(f"{heading} ({name})" if name else heading, f"{top1:.2f}")
    for name, amount in counted.items():
        table.add_row(cost_name(name), quantity(amount, cost.units[name]))
    for name, value in rest.items():
        table.add_row(name, value)
    return table


def _run_model(model: nn.Module, example_input: Tensor) -> None:
    with torch.inference_mode():
        model(example_input)


def _timed(calls: Mapping[str, Callable[[], object]], example_input: Tensor) -> dict[str, str]:
    timings = time_in_turns(calls, batch=len(example_input), threads=torch.get_num_threads())
    return {
        name: text
        for call, timing in timings.items()
        for name, text in timing_rows(call, timing).items()
    }


def _on_engine(
    options: EvaluateOptions,
    model: nn.Module,
    data: Data,
    example_input: Tensor,
    calls: Mapping[str, Callable[[], object]],
    reporter: Reporter,
) -> tuple[dict[str, float], dict[str, str]]:
    """Top-1 on an engine, in int8 too where asked for; sizes of files, and times with ``calls``.

    It runs what ``export`` would write, and nothing that is in the directory.
    """
    engine, threads = engine_named(str(options.engine), int8=options.int8), torch.get_num_threads()
    label = f"{engine.name}, {engine.format}" if engine.name == "pytorch" else engine.name
    kinds: dict[str, list[Tensor] | None] = {label: None}
    if options.int8:
        kinds[f"{label}, int8"] = [calibration_images(data)]
    scores: dict[str, float] = {}
    rows: dict[str, str] = {}
    calls = dict(calls)
    with TemporaryDirectory() as folder:
        for number, (kind, int8) in enumerate(kinds.items()):
            path = Path(folder) / f"{number}{engine.suffix}"
            written = export(
                model, path, format=engine.format, example_input=example_input, int8=int8
            )
            rows[f"file, {kind}"] = quantity(written.bytes, "B")
            opened = engine.open(path, threads)
            calls[kind] = lambda opened=opened: opened(example_input)  # type: ignore[misc]
        rows |= _timed(calls, example_input)
        for number, kind in enumerate(kinds):
            path = Path(folder) / f"{number}{engine.suffix}"
            scores[kind] = _engine_top1(engine, path, data, 1, reporter, kind, threads)
    if options.int8:
        before, after = scores.values()
        _warn_of_drop(engine, before, after, reporter)
    return scores, rows


def _engine_top1(
    engine: Engine,
    path: Path,
    data: Data,
    batch: int,
    reporter: Reporter,
    kind: str,
    threads: int | None = None,
) -> float:
    """Top-1 of a file on its engine, ``batch`` test images at once."""
    opened = engine.open(path, threads or torch.get_num_threads())
    return _top1(OnEngine(opened, batch), data, batch, reporter, f"top-1, {kind}")


def _top1(model: nn.Module, data: Data, batch: int | None, reporter: Reporter, name: str) -> float:
    with reporter.progress(name, len(data.test)) as advance:
        done = 0

        def count(_: nn.Module, args: tuple[Tensor, ...], __: Tensor) -> None:
            nonlocal done
            done += len(args[0])
            advance(done, "")

        hook = model.register_forward_hook(count)
        try:
            return evaluate_top1(model, data.test, data, batch)
        finally:
            hook.remove()


def _warn_of_drop(engine: Engine, before: float, after: float, reporter: Reporter) -> None:
    if before - after > LARGEST_DROP:
        reporter.warn(
            f"int8 loses {before - after:.2f} points of top-1 on {engine.name}: {before:.2f} % in "
            f"float32, {after:.2f} % in int8"
        )


class OnEngine(nn.Module):
    """A network on an engine as a module that takes up to ``batch`` images; its first output."""

    def __init__(self, opened: Opened, batch: int) -> None:
        super().__init__()
        self._opened, self._batch = opened, batch

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.arange(self._batch) % len(x)
        return self._opened(x[rows])[0][: len(x)]


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
        held = True
        try:
            if isinstance(config, PruneOptions) and config.sweep:
                sweep = sweep_job(config, out, command=command, **how)
                table = sweep_table(sweep)
                met = all(c.met for point in sweep.points for c in point.costs.values())
                held = met or not config.strict_latency
            elif isinstance(config, PruneOptions):
                summary = prune_job(config, out, command=command, **how)
                table = result_table(summary)
                held = not config.strict_latency or all(c.met for c in summary.costs.values())
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
    return 0 if held else 1


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
    "measure": measure_command,
    "evaluate": evaluate,
    "export": export_command,
}


def run(asked: Asked) -> int:
    """Do what was asked for, and give the exit code."""
    return _COMMANDS[asked.command.name](asked)
