"""The command line: what was typed becomes a call, and an error becomes an exit code."""

from __future__ import annotations

import errno
import io
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.tree import Tree

from lcprune.cli._arguments import (
    DATA_HELP,
    BaseEpochs,
    BaseLearningRate,
    BaseWeights,
    BatchSize,
    Budgets,
    Clip,
    Compensation,
    ConfigFile,
    Criterion,
    Crop,
    DataName,
    Device,
    Distill,
    DistillWeight,
    Ema,
    Epochs,
    ExecutorName,
    Finalists,
    FinalistSteps,
    FinetuneEpochs,
    FitnessImages,
    Flip,
    Force,
    HoldOut,
    LabelSmoothing,
    Layer,
    LearningRate,
    MinKeep,
    Mixup,
    Model,
    NewHead,
    NumberOfWorkers,
    Only,
    Out,
    RayAddress,
    RecalibrateImages,
    Reduction,
    Resume,
    RoundTo,
    ScheduleName,
    SearchDtype,
    Seed,
    Skip,
    SkipTypes,
    Strategy,
    Temperature,
    TrainDtype,
    Trials,
    TrustFactory,
    WeightDecay,
    Weights,
)
from lcprune.cli._demo import DEMO, DEMO_DIRECTORY
from lcprune.cli._evaluate import evaluate_saved
from lcprune.cli._inspect import Choice, inspect_model, read_shape
from lcprune.cli._progress import OnConsole
from lcprune.cli._signals import ending_on_signals
from lcprune.cli._table import result_table, training_table
from lcprune.errors import InputError, LcpruneError
from lcprune.runs import (
    Options,
    PruneOptions,
    Reporter,
    RunState,
    TrainOptions,
    check_command,
    check_run,
    prune_job,
    read_run,
    resolve_as,
    resume_line,
    run_state,
    train_job,
)

app = typer.Typer(
    name="lcprune",
    help="Shrink a convolutional network to a resource budget with layer-compensated pruning.",
    add_completion=False,
    pretty_exceptions_enable=False,
)

# Usage errors of typer: this class is part of its public names only through its subclasses.
_UsageError: Any = typer.BadParameter.__mro__[1]
_FAILED, _BAD_INPUT, _INTERRUPTED = 1, 2, 130
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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
    model: Model = None,
    data: DataName = None,
    budget: Budgets = None,
    weights: Weights = None,
    criterion: Criterion = None,
    reduction: Reduction = None,
    compensation: Compensation = None,
    strategy: Strategy = None,
    trials: Trials = None,
    only: Only = None,
    skip: Skip = None,
    skip_types: SkipTypes = None,
    min_keep: MinKeep = None,
    round_to: RoundTo = None,
    recalibrate_images: RecalibrateImages = None,
    fitness_images: FitnessImages = None,
    search_dtype: SearchDtype = None,
    executor: ExecutorName = None,
    workers: NumberOfWorkers = None,
    ray_address: RayAddress = None,
    finalists: Finalists = None,
    finalist_steps: FinalistSteps = None,
    finetune_epochs: FinetuneEpochs = None,
    learning_rate: LearningRate = None,
    weight_decay: WeightDecay = None,
    schedule: ScheduleName = None,
    train_dtype: TrainDtype = None,
    batch_size: BatchSize = None,
    label_smoothing: LabelSmoothing = None,
    mixup: Mixup = None,
    ema: Ema = None,
    clip: Clip = None,
    distill: Distill = None,
    distill_weight: DistillWeight = None,
    temperature: Temperature = None,
    crop: Crop = None,
    flip: Flip = None,
    hold_out: HoldOut = None,
    base_epochs: BaseEpochs = None,
    seed: Seed = None,
    device: Device = None,
    resume: Resume = False,
    force: Force = False,
    config: ConfigFile = None,
) -> int:
    """Prune MODEL to a budget, fine-tune it and save it to a directory."""
    given = dict(locals())  # exactly the parameters above, since nothing else is assigned yet
    for key in ("out", "resume", "force", "config"):
        del given[key]
    return _run("prune", given, config, {}, out, resume, force)


@app.command()
def train(
    out: Out,
    model: Model = None,
    data: DataName = None,
    weights: BaseWeights = None,
    new_head: NewHead = None,
    hold_out: HoldOut = None,
    epochs: Epochs = None,
    learning_rate: BaseLearningRate = None,
    weight_decay: WeightDecay = None,
    schedule: ScheduleName = None,
    train_dtype: TrainDtype = None,
    batch_size: BatchSize = None,
    label_smoothing: LabelSmoothing = None,
    mixup: Mixup = None,
    ema: Ema = None,
    clip: Clip = None,
    crop: Crop = None,
    flip: Flip = None,
    seed: Seed = None,
    device: Device = None,
    resume: Resume = False,
    force: Force = False,
    config: ConfigFile = None,
) -> int:
    """Train MODEL, from random or given weights, and save it to a directory."""
    given = dict(locals())  # as in prune
    for key in ("out", "resume", "force", "config"):
        del given[key]
    return _run("train", given, config, {}, out, resume, force)


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
    data: Annotated[str, typer.Option(help=DATA_HELP)],
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    trust_factory: TrustFactory = False,
) -> int:
    """Accuracy on the test split and cost of a saved result."""
    warn = OnConsole(Console(stderr=True)).warn
    for part in evaluate_saved(
        directory, data, device=device, trust_factory=trust_factory, warn=warn
    ):
        _stdout().print(part, markup=False, highlight=False)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (without the program's name) and return its exit code.

    0: done. 1: a check of our own failed. 2: the input can't be used, told in one line on
    stderr. 130: interrupted; 143, 129: ended by SIGTERM, SIGHUP.
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
    except OSError as error:  # those of a run's files have a class of their own: this is stdout
        if error.errno not in _FULL:
            raise
        sys.stdout = io.StringIO()  # else Python tries once more at its end
        return _fail(f"can't print to stdout: {error.strerror}", _BAD_INPUT)
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
    """Resolve the configuration, run the job, print its table; signals end it."""
    kind: type[Options] = TrainOptions if command == "train" else PruneOptions
    defaults = _stored(command, out, resume, force, defaults)
    config = resolve_as(kind, given, file=file, defaults=defaults)
    # Progress is on stdout too: stderr is for what is not as expected, a line each.
    reporter: Reporter = OnConsole(_stdout(), Console(stderr=True))
    with ending_on_signals() as stop:
        reporter = stop.reporter(reporter)
        try:
            if isinstance(config, TrainOptions):
                trained = train_job(config, out, resume=resume, force=force, reporter=reporter)
                table = training_table(trained)
            else:
                assert isinstance(config, PruneOptions)
                pruned = prune_job(
                    config, out, command=command, resume=resume, force=force, reporter=reporter
                )
                table = result_table(pruned)
        except KeyboardInterrupt:
            return _interrupted(out, stop.exit_code)
        except (LcpruneError, OSError):
            # What a signal did to others, such as processes that read images or the terminal,
            # may arrive before the signal's own exception.
            if stop.number is None:
                raise
            return _interrupted(out, stop.exit_code)
    console = _stdout()
    console.print(table)
    console.print(f"saved to {out}", markup=False, highlight=False, soft_wrap=True)
    return 0


def _stored(
    command: str, out: Path, resume: bool, force: bool, defaults: dict[str, Any]
) -> dict[str, Any]:
    """The configuration of the run that goes on, or the defaults of one that begins."""
    state = check_run(out, resume=resume, force=force)
    if not resume or state is RunState.EMPTY:
        return defaults
    # A run that goes on needs no option again; one that is given must agree.
    record = read_run(out)
    check_command(out, record, command)
    return dict(record.configuration)


def _interrupted(out: Path, code: int) -> int:
    state = run_state(out)
    if state is RunState.UNFINISHED:
        _tell(f"interrupted; to go on: {resume_line(out, read_run(out).command)}")
    elif state is RunState.FINISHED:
        _tell(f"interrupted; {out} holds a finished run")
    else:
        _tell("interrupted; nothing was written")
    return code


def _fail(message: str, code: int) -> int:
    _tell(f"error: {' '.join(message.split())}")
    return code


def _tell(line: str) -> None:
    with suppress(OSError):  # a terminal that is gone, a disk that is full
        print(line, file=sys.stderr, flush=True)


def _stdout() -> Console:
    return Console()
