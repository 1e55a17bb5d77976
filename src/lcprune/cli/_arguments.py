"""The options of the commands: their types, their help and what they are when not given."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lcprune.runs import Options, PruneOptions, TrainOptions


def _default(key: str, kind: type[Options] = PruneOptions) -> str:
    """What an option is when neither the command line nor a file says anything."""
    value = getattr(kind(), key)
    if value is None:
        return "this machine" if key == "ray_address" else "of the data set"
    return str(value)


def _option(key: str, help: str, *names: str, kind: type[Options] = PruneOptions) -> Any:
    return typer.Option(*names, help=help, show_default=_default(key, kind))


Model = Annotated[
    str | None,
    typer.Argument(
        help="cifar_resnet56, torchvision/NAME, timm/NAME, file.py:factory or module:factory."
    ),
]
DATA_HELP = (
    "digits, cifar10:ROOT, cifar100:ROOT, imagenet:ROOT, cub200:ROOT, imagefolder:ROOT (train/ and "
    "val/ or test/), file.py:factory or module:factory; ROOT@SIZE sets the size of images in the "
    "last three folders."
)
DataName = Annotated[str | None, typer.Option("--data", help=DATA_HELP)]
Out = Annotated[Path, typer.Option("--out", help="Directory of the run.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an unfinished run.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the run in the directory.")]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="TOML file with any of these options as keys."),
]
TrustFactory = Annotated[
    bool, typer.Option("--trust-factory", help="Allow a saved model to run its own Python code.")
]
Seed = Annotated[int | None, _option("seed", "Of everything random.")]
Device = Annotated[str | None, _option("device", "auto, cpu or cuda.")]

_WEIGHTS = "A file, 'default' (the publisher's) or 'random'."
Weights = Annotated[str | None, _option("weights", _WEIGHTS)]
BaseWeights = Annotated[str | None, _option("weights", _WEIGHTS, "--weights", kind=TrainOptions)]
NewHead = Annotated[
    bool | None,
    _option(
        "new_head",
        "The weights are for another number of classes: begin with a new last layer.",
        "--new-head/--no-new-head",
        kind=TrainOptions,
    ),
]

Budgets = Annotated[
    list[str] | None,
    typer.Option(
        "--budget", help="An upper bound, such as macs=50% or params=1M; may be repeated."
    ),
]
Criterion = Annotated[
    str | None, _option("criterion", "l1, l2, l2_squared, taylor, bn_scale or random.")
]
Reduction = Annotated[str | None, _option("reduction", "Over coupled layers: sum, mean or max.")]
Compensation = Annotated[
    str | None,
    _option(
        "compensation",
        "What the search learns: additive, affine, or a control: none, uniform.",
    ),
]
Strategy = Annotated[str | None, _option("strategy", "auto, evolution, or a control: random.")]
Trials = Annotated[int | None, _option("trials", "Candidates that the search tries.")]
RecalibrateImages = Annotated[
    int | None,
    _option("recalibrate_images", "Training images that BatchNorm statistics come from."),
]
FitnessImages = Annotated[
    int | None, _option("fitness_images", "Training images that candidates are judged on.")
]
_DTYPES = "float32, bfloat16, or auto: what is faster here."
SearchDtype = Annotated[str | None, _option("search_dtype", _DTYPES)]

ExecutorName = Annotated[
    str | None,
    _option("executor", "Who evaluates candidates: in-process, or ray.", "--executor"),
]
NumberOfWorkers = Annotated[
    int | None, _option("workers", "Ray processes that evaluate candidates.", "--workers")
]
RayAddress = Annotated[
    str | None, _option("ray_address", "A Ray cluster, such as auto or HOST:6379.")
]

Only = Annotated[
    list[str] | None,
    typer.Option(help="Prune no other modules than those of that name (a glob); may be repeated."),
]
Skip = Annotated[
    list[str] | None,
    typer.Option(help="Prune no filter of modules of that name (a glob); may be repeated."),
]
SkipTypes = Annotated[
    list[str] | None,
    typer.Option(
        "--skip-type",
        help="Prune no filter of modules of that class, such as Linear; may be repeated.",
    ),
]
MinKeep = Annotated[
    float | None, _option("min_keep", "Share of its channels that each family keeps.")
]
RoundTo = Annotated[
    int | None,
    _option("round_to", "Families keep a multiple of this many channels, or all of them."),
]
Layer = Annotated[
    str | None,
    typer.Option(help="Show what the filters of modules of that name (a glob) go with."),
]

Finalists = Annotated[
    int | None,
    _option(
        "finalists",
        "Train that many of the best plans for a few steps and take the best then; 1 for none.",
    ),
]
FinalistSteps = Annotated[
    int | None, _option("finalist_steps", "Steps that each finalist is trained for.")
]
FinetuneEpochs = Annotated[int | None, _option("finetune_epochs", "Epochs after the cut.")]
BaseEpochs = Annotated[
    int | None, _option("base_epochs", "Train the base network that long first.")
]
Epochs = Annotated[int | None, _option("epochs", "Epochs of training.", kind=TrainOptions)]
_RATE = "Highest learning rate, or auto: found by a short test."
LearningRate = Annotated[str | None, _option("learning_rate", _RATE)]
BaseLearningRate = Annotated[
    str | None, _option("learning_rate", _RATE, "--learning-rate", kind=TrainOptions)
]
WeightDecay = Annotated[float | None, _option("weight_decay", "L2 penalty of training.")]
ScheduleName = Annotated[str | None, _option("schedule", "cosine or one-cycle.", "--schedule")]
TrainDtype = Annotated[str | None, _option("train_dtype", _DTYPES)]
BatchSize = Annotated[int | None, _option("batch_size", "Images per training step.")]
LabelSmoothing = Annotated[
    float | None,
    _option("label_smoothing", "Share of every label that is spread over all classes."),
]
Mixup = Annotated[
    float | None, _option("mixup", "Mix pairs of images, by Beta(this, this); 0 for none.")
]
Ema = Annotated[
    float | None,
    _option("ema", "End with the moving average of the weights, of this decay; 0 for none."),
]
Clip = Annotated[float | None, _option("clip", "Largest norm of the gradient; 0 for any.")]
Distill = Annotated[
    bool | None,
    _option("distill", "Learn from the original network too.", "--distill/--no-distill"),
]
DistillWeight = Annotated[
    float | None, _option("distill_weight", "Share of the distillation in the loss.")
]
Temperature = Annotated[float | None, _option("temperature", "Of the distillation.")]
Crop = Annotated[
    int | None,
    _option(
        "crop",
        "Largest shift in training, pixels, also where the data would have random parts taken.",
    ),
]
Flip = Annotated[bool | None, _option("flip", "Mirror images in training.", "--flip/--no-flip")]
HoldOut = Annotated[
    int | None,
    _option("hold_out", "Set every Nth training image of each class aside; 0 for none."),
]
