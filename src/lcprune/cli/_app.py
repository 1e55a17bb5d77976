"""The command line: what was typed becomes a call, and an error becomes an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.tree import Tree

from lcprune.artifact import RunState, Summary, read_run, resume_line, run_state
from lcprune.cli._config import resolve
from lcprune.cli._demo import DEMO, DEMO_DIRECTORY
from lcprune.cli._evaluate import evaluate_saved
from lcprune.cli._inspect import Choice, inspect_model, read_shape
from lcprune.cli._job import prune_job
from lcprune.cli._options import (
    Force,
    Layer,
    MinKeep,
    Only,
    Out,
    Resume,
    RoundTo,
    Skip,
    SkipTypes,
    TrustFactory,
    default,
)
from lcprune.cli._progress import OnConsole
from lcprune.cli._table import result_table
from lcprune.errors import InputError, LcpruneError

app = typer.Typer(
    name="lcprune",
    help="Shrink a convolutional network to a resource budget with layer-compensated pruning.",
    add_completion=False,
    pretty_exceptions_enable=False,
)

# Usage errors of typer: this class is part of its public names only through its subclasses.
_UsageError: Any = typer.BadParameter.__mro__[1]
_FAILED, _BAD_INPUT, _INTERRUPTED = 1, 2, 130


@app.command()
def demo(
    out: Annotated[
        Path, typer.Option("--out", help="Directory of the run; the default may be overwritten.")
    ] = DEMO_DIRECTORY,
    resume: Resume = False,
    force: Force = False,
) -> int:
    """The whole job on scikit-learn's digits: train, prune to 30 % of the MACs, fine-tune."""
    force = force or (out == DEMO_DIRECTORY and not resume)
    return _run("demo", {}, None, dict(DEMO), out, resume, force)


@app.command()
def prune(
    out: Out,
    model: Annotated[
        str | None,
        typer.Argument(
            help="cifar_resnet56, torchvision/NAME, timm/NAME, file.py:factory or module:factory."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="digits, cifar10:ROOT, imagefolder:ROOT or file.py:factory."),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(help="An upper bound, such as macs=50% or params=1M; may be repeated."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="A file, 'default' or 'random'.", show_default=default("weights")),
    ] = None,
    criterion: Annotated[
        str | None,
        typer.Option(
            help="l1, l2, l2_squared, taylor, bn_scale or random.",
            show_default=default("criterion"),
        ),
    ] = None,
    reduction: Annotated[
        str | None,
        typer.Option(
            help="Over coupled layers: sum, mean or max.", show_default=default("reduction")
        ),
    ] = None,
    compensation: Annotated[
        str | None,
        typer.Option(
            help="What the search learns: additive, affine, or a control: none, uniform.",
            show_default=default("compensation"),
        ),
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(help="evolution or random.", show_default=default("strategy"))
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(help="Candidates that the search tries.", show_default=default("trials")),
    ] = None,
    only: Only = None,
    skip: Skip = None,
    skip_types: SkipTypes = None,
    min_keep: MinKeep = None,
    round_to: RoundTo = None,
    recalibrate_images: Annotated[
        int | None,
        typer.Option(
            help="Training images that BatchNorm statistics come from.",
            show_default=default("recalibrate_images"),
        ),
    ] = None,
    fitness_images: Annotated[
        int | None,
        typer.Option(
            help="Training images that candidates are judged on.",
            show_default=default("fitness_images"),
        ),
    ] = None,
    search_dtype: Annotated[
        str | None,
        typer.Option(
            help="float32, bfloat16, or auto: what is faster here.",
            show_default=default("search_dtype"),
        ),
    ] = None,
    finetune_epochs: Annotated[
        int | None,
        typer.Option(help="Epochs after the cut.", show_default=default("finetune_epochs")),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Highest learning rate.", show_default=default("learning_rate")),
    ] = None,
    weight_decay: Annotated[
        float | None,
        typer.Option(help="L2 penalty of training.", show_default=default("weight_decay")),
    ] = None,
    schedule: Annotated[
        str | None, typer.Option(help="cosine or one-cycle.", show_default=default("schedule"))
    ] = None,
    train_dtype: Annotated[
        str | None,
        typer.Option(
            help="float32, bfloat16, or auto: what is faster here.",
            show_default=default("train_dtype"),
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Images per training step.", show_default=default("batch_size")),
    ] = None,
    distill: Annotated[
        bool | None,
        typer.Option(
            "--distill/--no-distill",
            help="Learn from the original network too.",
            show_default=default("distill"),
        ),
    ] = None,
    distill_weight: Annotated[
        float | None,
        typer.Option(
            help="Share of the distillation in the loss.", show_default=default("distill_weight")
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(help="Of the distillation.", show_default=default("temperature")),
    ] = None,
    crop: Annotated[
        int | None,
        typer.Option(help="Largest shift in training, pixels.", show_default=default("crop")),
    ] = None,
    flip: Annotated[
        bool | None,
        typer.Option(
            "--flip/--no-flip",
            help="Mirror images in training.",
            show_default=default("flip"),
        ),
    ] = None,
    base_epochs: Annotated[
        int | None,
        typer.Option(
            help="Train the base network that long first.", show_default=default("base_epochs")
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of everything random.", show_default=default("seed"))
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu or cuda.", show_default=default("device"))
    ] = None,
    resume: Resume = False,
    force: Force = False,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with any of these options as keys.")
    ] = None,
) -> int:
    """Prune MODEL to a budget, fine-tune it and save it to a directory."""
    given = dict(locals())  # exactly the parameters above, since nothing else is assigned yet
    for key in ("out", "resume", "force", "config"):
        del given[key]
    return _run("prune", given, config, {}, out, resume, force)


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(help="A model as for prune.")],
    input: Annotated[
        str | None, typer.Option("--input", help="Shape of the input, such as 1x3x224x224.")
    ] = None,
    layer: Layer = None,
    only: Only = None,
    skip: Skip = None,
    skip_types: SkipTypes = None,
) -> int:
    """Show a model's channel groups, their costs, and what can't be pruned and why."""
    choice = Choice(tuple(only or ()), tuple(skip or ()), tuple(skip_types or ()))
    for part in inspect_model(model, read_shape(input, model), choice=choice, layer=layer):
        _stdout().print(part, markup=False, highlight=False, soft_wrap=isinstance(part, Tree))
    return 0


@app.command()
def evaluate(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="What prune wrote.")],
    data: Annotated[str, typer.Option(help="A data set as for prune.")],
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    trust_factory: TrustFactory = False,
) -> int:
    """Accuracy on the test split and cost of a saved result."""
    for part in evaluate_saved(directory, data, device=device, trust_factory=trust_factory):
        _stdout().print(part, markup=False, highlight=False)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (without the program's name) and return its exit code.

    0: done. 1: a check of our own failed. 2: the input can't be used, told in one line on
    stderr. 130: interrupted.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        code: int = app(args=arguments, prog_name="lcprune", standalone_mode=False) or 0
    except _UsageError as error:
        return _fail(error.format_message(), _BAD_INPUT)
    except InputError as error:
        return _fail(str(error), _BAD_INPUT)
    except LcpruneError as error:
        return _fail(str(error), _FAILED)
    except (KeyboardInterrupt, typer.Abort):
        return _INTERRUPTED
    return code


def _run(
    command: str,
    given: dict[str, Any],
    file: Path | None,
    defaults: dict[str, Any],
    out: Path,
    resume: bool,
    force: bool,
) -> int:
    """Resolve the configuration, run the job, print its table; an interrupt ends in 130."""
    if resume and run_state(out) in (RunState.UNFINISHED, RunState.FINISHED):
        # A run that goes on needs no option again; one that is given must agree.
        defaults = dict(read_run(out).configuration)
    try:
        config = resolve(given, file=file, defaults=defaults)
        # Progress is on stdout too: stderr is for what is not as expected, a line each.
        reporter = OnConsole(_stdout(), Console(stderr=True))
        summary = prune_job(
            config, out, command=command, resume=resume, force=force, reporter=reporter
        )
    except KeyboardInterrupt:
        return _interrupted(out)
    _print_result(summary, out)
    return 0


def _interrupted(out: Path) -> int:
    if run_state(out) is RunState.UNFINISHED:
        line = resume_line(out, read_run(out).command)
        print(f"interrupted; to go on: {line}", file=sys.stderr)
    else:
        print("interrupted; nothing was written", file=sys.stderr)
    return _INTERRUPTED


def _print_result(summary: Summary, out: Path) -> None:
    console = _stdout()
    console.print(result_table(summary))
    console.print(f"saved to {out}", markup=False, highlight=False, soft_wrap=True)


def _fail(message: str, code: int) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _stdout() -> Console:
    return Console()
