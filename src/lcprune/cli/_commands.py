"""What the commands do, once the command line is understood."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from rich.table import Table

from lcprune.artifact import load
from lcprune.cli._inspect import inspect_model
from lcprune.cli._parser import Asked
from lcprune.cli._progress import OnConsole, Output
from lcprune.cli._signals import PIPE_CLOSED, PipeClosedError, ending_on_signals
from lcprune.cli._stderr import tell
from lcprune.cli._table import cost_name, latency_name, result_table, training_table
from lcprune.cost import RESOURCES, CostModel, read_energy
from lcprune.data import first_pixels, load_data
from lcprune.graph import quantity
from lcprune.runs import (
    DemoOptions,
    DirectoryOptions,
    EvaluateOptions,
    InspectOptions,
    Options,
    PruneOptions,
    RunOptions,
    RunState,
    TrainOptions,
    check_command,
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
    with ending_on_signals() as stop:
        try:
            table = evaluate_saved(EvaluateOptions.of(asked.values))
        except (Exception, KeyboardInterrupt):
            if stop.number is None:
                raise
        if stop.number is None:
            Output().print(table)
            return 0
    return stop.exit_code


def evaluate_saved(options: EvaluateOptions) -> Table:
    """What to print about a saved model: top-1 on the test split, costs, latency.

    Everything is measured on the loaded model. ``InputError`` where the directory or the data
    can't be used or don't fit one another.
    """
    device = choose_device(options.device)
    energy = () if options.energy is None else (read_energy(options.energy),)
    model = load(options.directory, trust_factory=options.trust_factory)
    data = load_data(options.data)
    example_input = data.normalise(first_pixels(data.test, 1))
    check_logits(model, example_input, data)
    resources = [*(name for name in RESOURCES if name != "energy"), *energy]
    cost = CostModel(trace(model, example_input), resources).evaluate()
    (latency,) = measure_latencies([model], example_input)
    top1 = evaluate_top1(model.to(device), data.test, data)
    table = Table("", title=f"{options.directory} on {data.name}", title_justify="left")
    table.add_column("value", justify="right")
    table.add_row(f"top-1 of {len(data.test)} test images, %", f"{top1:.2f}")
    for name, value in cost.items():
        table.add_row(cost_name(name), quantity(value, RESOURCES[name].unit))
    threads = torch.get_num_threads()
    table.add_row(latency_name(len(example_input), threads), f"{latency:.2f}")
    return table


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
            if isinstance(config, PruneOptions):
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


_COMMANDS = {"demo": demo, "prune": prune, "train": train, "inspect": inspect, "evaluate": evaluate}


def run(asked: Asked) -> int:
    """Do what was asked for, and give the exit code."""
    return _COMMANDS[asked.command.name](asked)
