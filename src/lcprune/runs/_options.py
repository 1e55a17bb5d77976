"""The options of the commands: a field says all of one, and there is no other place to touch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lcprune.engines import ENGINES, FORMATS
from lcprune.runs._resolve import Concern, option, options_of, redefault, required

AUTO = "auto"

# What is above is a slip of the fingers, and would end in no time or no memory.
_MANY = 10**6
_FEW = 1000
_IMAGES = 10**9
_PIXELS = 4096
_CHANNELS = 2**16
_PROCESSES = 1024
_DTYPES = ("auto", "float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class DataOptions(Concern):
    """The network and the images. ``crop`` and ``flip`` none leave it to the data set."""

    title = "Model and data"

    model: str = required(
        "cifar_resnet56, torchvision/NAME, timm/NAME, file.py:factory or module:factory.",
        missing="cifar_resnet56",
        positional=True,
        metavar="MODEL",
    )
    data: str = required(
        "digits, cifar10:ROOT, cifar100:ROOT, imagenet:ROOT, cub200:ROOT, imagefolder:ROOT (train/ "
        "and val/ or test/), file.py:factory or module:factory; ROOT@SIZE sets the size of images "
        "in the last three folders.",
        missing="--data cifar10:ROOT",
        metavar="DATA",
    )
    weights: str = option(
        "default", "A file, 'default' (the publisher's) or 'random'.", metavar="FILE"
    )
    hold_out: int = option(
        0,
        "Set every Nth training image of each class aside; 0 for none.",
        at_least=2,
        at_most=_MANY,
        also=(0,),
    )
    crop: int | None = option(
        None,
        "Largest shift in training, pixels, also where the data would have random parts taken.",
        at_least=0,
        at_most=_PIXELS,
        unset="of the data set",
    )
    flip: bool | None = option(None, "Mirror images in training.", unset="of the data set")


@dataclass(frozen=True, kw_only=True)
class ChoiceOptions(Concern):
    """Which modules may lose filters, as ``trace`` takes it."""

    title = "What may be pruned"

    only: tuple[str, ...] = option(
        (),
        "Prune no other modules than those of that name (a glob); may be repeated.",
        metavar="NAME",
    )
    skip: tuple[str, ...] = option(
        (), "Prune no filter of modules of that name (a glob); may be repeated.", metavar="NAME"
    )
    skip_types: tuple[str, ...] = option(
        (),
        "Prune no filter of modules of that class, such as Linear; may be repeated.",
        name="skip-type",
        metavar="CLASS",
        example="Linear",
    )


@dataclass(frozen=True, kw_only=True)
class SearchOptions(Concern):
    """How a plan is found; ``min_keep`` and ``round_to`` are those of ``rank``.

    Image counts are disjoint parts of the training images; with ``hold_out`` the fitness sees
    images that were set aside, and nothing else does. Of ``finalists`` of the search, if they are
    several, each is trained for ``finalist_steps`` and the plan is the one that is best then, on
    as many other images as the fitness sees. With the ``executor`` ray, ``workers`` processes at
    ``ray_address`` (none: on this machine) evaluate candidates.
    """

    title = "Budget and search"

    budget: tuple[str, ...] = option(
        (),
        "An upper bound on macs, params, weights (bytes), activations (peak bytes), energy or "
        "latency, such as macs=50%, activations=256KiB, energy=3mJ or latency=5ms; may be "
        "repeated; required unless there is a sweep.",
        missing="--budget macs=50%",
        metavar="BOUND",
        example="macs=50%",
    )
    sweep: tuple[str, ...] = option(
        (),
        "Several bounds on one resource, such as macs=70%,50%,30%: a run for each, in a directory "
        "each, and a table of all; a budget beside it holds for all of them.",
        metavar="BOUNDS",
        example="macs=70%,50%,30%",
    )
    energy: str | None = option(
        None,
        "Coefficients of the energy: float32-dram, float16-dram or int8-dram, the same with -sram, "
        "or a file.toml with mac and byte in pJ.",
        metavar="PRESET",
        unset="float32-dram",
    )
    min_keep: float = option(
        0.1, "Share of its channels that each family keeps.", at_least=0, at_most=1
    )
    round_to: int | str = option(
        AUTO,
        "Families keep a multiple of this many channels, or all; auto is what engines like.",
        at_least=1,
        at_most=_CHANNELS,
        also=(AUTO,),
        metavar="N",
    )
    criterion: str = option("l2", "l1, l2, l2_squared, taylor, bn_scale or random.")
    reduction: str = option("sum", "Over coupled layers: sum, mean or max.")
    compensation: str = option(
        "additive",
        "What the search learns: additive, affine, or a control: none, uniform.",
    )
    strategy: str = option("evolution", "auto, evolution, or a control: random.")
    trials: int = option(400, "Candidates that the search tries.", at_least=1, at_most=_MANY)
    recalibrate_images: int = option(
        1000,
        "Training images that BatchNorm statistics come from.",
        at_least=1,
        at_most=_IMAGES,
    )
    fitness_images: int = option(
        2000, "Training images that candidates are judged on.", at_least=1, at_most=_IMAGES
    )
    fitness_steps: int = option(
        0,
        "Train candidates for so many steps before they are judged; auto does so with those that "
        "are worth it.",
        at_least=0,
        at_most=_MANY,
    )
    search_dtype: str = option(
        AUTO, "Precision of the search; auto is what is faster here.", choices=_DTYPES
    )
    executor: str = option("in-process", "Who evaluates candidates.", choices=("in-process", "ray"))
    workers: int = option(
        2, "Ray processes that evaluate candidates.", at_least=1, at_most=_PROCESSES
    )
    ray_address: str | None = option(
        None,
        "A Ray cluster, such as auto or HOST:6379.",
        metavar="ADDRESS",
        unset="this machine",
    )
    finalists: int = option(
        1,
        "Train that many of the best plans for a few steps and take the best then; 1 for none.",
        at_least=1,
        at_most=_FEW,
    )
    finalist_steps: int = option(
        150, "Steps that each finalist is trained for.", at_least=1, at_most=_MANY
    )


@dataclass(frozen=True, kw_only=True)
class LatencyOptions(Concern):
    """On what engine a result is timed, and where a bound on latency has its table from."""

    title = "Latency"

    engine: str | None = option(
        None,
        "Inference engine that the result is timed on, on the CPU; a bound on latency needs one.",
        choices=ENGINES,
        unset="of the table, if any",
    )
    latency_batch: int | None = option(
        None,
        "Images at once on the engine.",
        at_least=1,
        at_most=2**16,
        unset="1, or of the table",
    )
    latency_threads: int | None = option(
        None,
        "Threads of the engine.",
        at_least=1,
        at_most=_PROCESSES,
        unset="1, or of the table",
    )
    latency_table: str | None = option(
        None,
        "Times of operators, as lcprune measure writes them.",
        metavar="FILE",
        unset="measured, for a bound on latency",
    )
    measure_seconds: float = option(
        600.0, "Longest time that measuring operators takes.", more_than=0, at_most=10**6
    )
    strict_latency: bool = option(
        False, "Exit with 1 where no cut measured within the bound on latency."
    )


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(Concern):
    """How a network is trained, as in ``TrainingConfig``; ``mixup``, ``ema``, ``clip`` 0 are off.

    A ``learning_rate`` of ``auto`` is found by a range test.
    """

    title = "Training"

    learning_rate: float | str = option(
        0.05,
        "Highest learning rate, or auto: found by a short test.",
        more_than=0,
        at_most=1000,
        also=(AUTO,),
        metavar="RATE",
    )
    weight_decay: float = option(5e-4, "L2 penalty of training.", at_least=0, at_most=1000)
    schedule: str = option(
        "one-cycle", "How the learning rate runs.", choices=("cosine", "one-cycle")
    )
    train_dtype: str = option(
        AUTO, "Precision of training; auto is what is faster here.", choices=_DTYPES
    )
    batch_size: int = option(128, "Images per training step.", at_least=1, at_most=_IMAGES)
    label_smoothing: float = option(
        0.0, "Share of every label that is spread over all classes.", at_least=0, less_than=1
    )
    mixup: float = option(
        0.0, "Mix pairs of images, by Beta(this, this); 0 for none.", at_least=0, at_most=1000
    )
    ema: float = option(
        0.0,
        "End with the moving average of the weights, of this decay; 0 for none.",
        at_least=0,
        less_than=1,
    )
    clip: float = option(0.0, "Largest norm of the gradient; 0 for any.", at_least=0, at_most=1e9)


@dataclass(frozen=True, kw_only=True)
class FinetuningOptions(Concern):
    """What is trained around the cut. ``base_epochs`` is for a model that comes without weights.

    ``reconstruct`` refits the cut network to the original, on the images that BatchNorm
    statistics come from, before any training.
    """

    title = "Fine-tuning"

    finetune_epochs: int = option(5, "Epochs after the cut.", at_least=0, at_most=_MANY)
    reconstruct: bool | None = option(
        None,
        "Refit the cut layers to the original's outputs by least squares, without labels.",
        unset="where there are no epochs after",
    )
    distill: bool = option(True, "Learn from the original network too.")
    distill_weight: float = option(
        0.7, "Share of the distillation in the loss.", at_least=0, at_most=1
    )
    temperature: float = option(4.0, "Of the distillation.", at_least=1e-3, at_most=1000)
    base_epochs: int = option(
        0, "Train the base network that long first.", at_least=0, at_most=_MANY
    )


@dataclass(frozen=True, kw_only=True)
class MachineOptions(Concern):
    """Where a run is computed, and its seed."""

    title = "Machine"

    seed: int = option(0, "Of everything random.", at_least=0)
    device: str = option(AUTO, "auto, cpu or cuda.")
    processes: int = option(1, "Processes that train together.", at_least=1, at_most=_PROCESSES)


# The help has the groups of options in the order of the fields, which go from the last base to the
# first.


@dataclass(frozen=True, kw_only=True)
class PruneOptions(
    MachineOptions,
    TrainingOptions,
    FinetuningOptions,
    ChoiceOptions,
    LatencyOptions,
    SearchOptions,
    DataOptions,
):
    """Everything that decides the result of a pruning run, each value checked.

    ``model``, ``data`` and at least one bound of ``budget`` must be given, or a ``sweep``.
    ``InputError`` for a value of a wrong type or out of its range.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.budget or self.sweep):
            raise options_of(type(self))["budget"].absent()

    @property
    def rounding(self) -> int | Literal["auto"]:
        """``round_to`` as ``rank`` takes it."""
        return self.round_to if isinstance(self.round_to, int) else "auto"


@dataclass(frozen=True, kw_only=True)
class TrainOptions(MachineOptions, TrainingOptions, DataOptions):
    """Everything that decides the result of a training run, each value checked.

    ``new_head`` takes weights for another number of classes.
    """

    title = TrainingOptions.title

    weights: str = redefault(DataOptions, "weights", "random")
    learning_rate: float | str = redefault(TrainingOptions, "learning_rate", 0.1)
    epochs: int = option(60, "Epochs of training.", at_least=1, at_most=_MANY)
    new_head: bool = option(
        False, "The weights are for another number of classes: begin with a new last layer."
    )


Options = PruneOptions | TrainOptions


@dataclass(frozen=True, kw_only=True)
class DirectoryOptions(Concern):
    """What is no part of a run: where it goes, and whether it goes on or begins again."""

    title = "Run"

    out: Path = required("Directory of the run.", missing="--out DIR", metavar="DIR")
    resume: bool = option(False, "Go on with an unfinished run.", flag=True)
    force: bool = option(False, "Replace the run in the directory.", flag=True)
    trust_factory: bool = option(
        False, "Let a run that goes on run the Python code that it names.", flag=True
    )
    remeasure: bool = option(
        False, "Measure anew what is faster here, and how fast: precision, latency.", flag=True
    )


@dataclass(frozen=True, kw_only=True)
class RunOptions(DirectoryOptions):
    """The same, of a run that a file may describe."""

    title = DirectoryOptions.title

    config: Path | None = option(
        None, "TOML file with any of these options as keys.", metavar="FILE"
    )


@dataclass(frozen=True, kw_only=True)
class DemoOptions(DirectoryOptions):
    """The same, of the demo, whose own directory may be overwritten."""

    out: Path = redefault(DirectoryOptions, "out", Path("runs/demo"))


@dataclass(frozen=True, kw_only=True)
class GlobalOptions(Concern):
    """What every command takes."""

    title = "Any command"

    debug: bool = option(
        False, "Show where in the code an error came from, and warnings of others.", flag=True
    )


@dataclass(frozen=True, kw_only=True)
class ModelOptions(Concern):
    """The network that ``inspect`` shows."""

    title = "Model"

    model: str = redefault(DataOptions, "model")
    input: str | None = option(
        None, "Shape of the input.", metavar="1x3x224x224", unset="of the model"
    )
    layer: str | None = option(
        None, "Show what the filters of modules of that name (a glob) go with.", metavar="NAME"
    )
    energy: str | None = redefault(SearchOptions, "energy", None)


@dataclass(frozen=True, kw_only=True)
class InspectOptions(ChoiceOptions, ModelOptions):
    """What ``inspect`` shows."""


@dataclass(frozen=True, kw_only=True)
class MeasureOptions(ChoiceOptions):
    """What ``measure`` times, and for how long; ``out`` is gone on with where it is there."""

    title = "Measurement"

    model: str = redefault(DataOptions, "model")
    input: str | None = redefault(ModelOptions, "input", None)
    engine: str = required(
        "Inference engine that operators are timed on, on the CPU.",
        missing="--engine onnxruntime",
        choices=ENGINES,
    )
    out: Path = required(
        "The table; one that is there is gone on with.", missing="--out table.json", metavar="FILE"
    )
    batch: int = option(1, "Samples in a call.", at_least=1, at_most=_CHANNELS)
    threads: int = option(1, "Threads of the engine.", at_least=1, at_most=_PROCESSES)
    seconds: float = option(600.0, "How long it may take in all.", more_than=0, at_most=1e6)


@dataclass(frozen=True, kw_only=True)
class ResultOptions(Concern):
    """A saved network."""

    title = "Result"

    directory: Path = required(
        "What prune or train wrote.", missing="runs/demo", positional=True, metavar="DIR"
    )
    trust_factory: bool = option(
        False, "Allow a saved model to run its own Python code.", flag=True
    )


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(ResultOptions):
    """What ``evaluate`` measures; with ``engine`` on that, on the CPU, beside PyTorch.

    With ``int8`` what the engine makes of the network in 8 bits, too.
    """

    title = "Measurement"

    data: str = redefault(DataOptions, "data")
    device: str = redefault(MachineOptions, "device", AUTO)
    energy: str | None = redefault(SearchOptions, "energy", None)
    engine: str | None = option(
        None,
        "Measure accuracy and latency on that inference engine, on the CPU.",
        choices=ENGINES,
        unset="PyTorch as it is",
    )
    threads: int | None = option(
        None,
        "Threads of the engine, or of PyTorch.",
        at_least=1,
        at_most=_PROCESSES,
        unset="1 of an engine",
    )
    int8: bool = option(
        False,
        "In int8 too, with ranges from 300 training images; accuracy beside float32.",
        flag=True,
    )


@dataclass(frozen=True, kw_only=True)
class ExportOptions(ResultOptions):
    """What ``export`` writes; without ``out`` a file in the directory: model.onnx and the like.

    With ``int8``, which needs ``data``, that is model-int8.onnx.
    """

    title = "File"

    format: str = option("onnx", "What the file is.", choices=tuple(FORMATS))
    out: Path | None = option(
        None,
        "Where it goes; ends with .pt2, .onnx, .xml or .pte.",
        metavar="FILE",
        unset="model.… in DIR",
    )
    dynamic_batch: bool = option(
        False, "Take any number of images at once, not only one.", flag=True
    )
    int8: bool = redefault(EvaluateOptions, "int8", False)
    data: str | None = redefault(DataOptions, "data", None)
