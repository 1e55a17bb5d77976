"""Everything that the user gave, loaded and checked before anything is written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from lcprune.cost import Budget
from lcprune.criteria import Saliency, saliency
from lcprune.data import (
    Data,
    ImageSet,
    SearchSplit,
    first_pixels,
    hold_out,
    load_data,
    search_split,
)
from lcprune.errors import InputError, ModelError
from lcprune.graph import ChannelGraph
from lcprune.models import build, load_weights
from lcprune.ranking import rank
from lcprune.runs._options import Options, PruneOptions
from lcprune.searching import STRATEGIES
from lcprune.slimming import repair
from lcprune.tracing import trace
from lcprune.training import check_logits as one_logit_per_class
from lcprune.training import process_count


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a run works with: ``model`` is the base network, on the CPU, in eval mode.

    ``data.train`` lacks the images that are ``held`` out.
    """

    data: Data
    held: ImageSet | None
    model: nn.Module
    graph: ChannelGraph
    budget: Budget
    split: SearchSplit
    example_input: Tensor
    device: torch.device

    @property
    def recalibration(self) -> ImageSet:
        """What BatchNorm statistics and criteria are taken from."""
        return self.data.train.subset(self.split.recalibrate)

    @property
    def validation(self) -> ImageSet:
        """What the fitness of a candidate is measured on."""
        return self._pool.subset(self.split.validate)

    @property
    def fresh(self) -> ImageSet:
        """What finalists are judged on."""
        return self._pool.subset(self.split.fresh)

    @property
    def not_fresh(self) -> ImageSet:
        """The training images but for those."""
        if self.held is not None:
            return self.data.train
        rest = torch.ones(len(self.data.train), dtype=torch.bool)
        rest[self.split.fresh] = False
        return self.data.train.subset(torch.nonzero(rest).flatten())

    @property
    def _pool(self) -> ImageSet:
        return self.data.train if self.held is None else self.held


def load(options: Options) -> tuple[Data, ImageSet | None]:
    """The data set without the training images that are held out, and those."""
    data = load_data(options.data)
    return hold_out(data, options.hold_out) if options.hold_out else (data, None)


def prepare(config: PruneOptions) -> Inputs:
    """Load and check what ``config`` names, down to a first cut; writes nothing.

    ``InputError`` with what was expected where any of it can't be used.
    """
    budget = Budget.parse(config.budget)
    if config.strategy not in STRATEGIES:
        known = ", ".join(STRATEGIES)
        raise InputError(f"unknown strategy {config.strategy!r}, expected one of {known}")
    device = choose_device(config.device)
    data, held = load(config)
    model = build(
        config.model, classes=len(data.classes), input_shape=data.input_shape, seed=config.seed
    )
    load_weights(model, config.weights, config.model, classes=len(data.classes))
    model.eval()
    example_input = data.normalise(first_pixels(data.train, 1))
    check_logits(model, example_input, data)
    split = search_split(
        len(data.train),
        config.recalibrate_images,
        config.fitness_images,
        config.seed,
        held=0 if held is None else len(held),
        fresh=config.fitness_images if config.finalists > 1 else 0,
    )
    graph = trace(
        model,
        example_input,
        only=config.only,
        skip=config.skip,
        skip_types=config.skip_types,
    )
    graph = repair(model, graph, example_input, seed=config.seed)
    if not graph.prunable:
        why = "; ".join(dict.fromkeys(entry.reason for entry in graph.untouched[:3]))
        raise ModelError(f"no channel of the model can be pruned ({why or 'it has no filters'})")
    inputs = Inputs(data, held, model, graph, budget, split, example_input, device)
    # Criterion, compensation and budget are right if they give a plan.
    rank(
        graph,
        score(config, inputs),
        budget,
        compensation=config.compensation,
        min_keep=config.min_keep,
        round_to=config.round_to,
    )
    return inputs


def score(config: PruneOptions, inputs: Inputs) -> Saliency:
    """The saliency that ``config`` asks for, on images that the fitness doesn't see."""

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for pixels, labels in inputs.recalibration.batches(config.batch_size):
            yield inputs.data.normalise(pixels), labels

    return saliency(
        inputs.model,
        inputs.graph,
        config.criterion,
        reduction=config.reduction,
        data=batches(),
        loss=functional.cross_entropy,
        seed=config.seed,
    )


def check_logits(model: nn.Module, example_input: Tensor, data: Data) -> None:
    """``ModelError`` unless the model gives one number for each class of the data."""
    try:
        with torch.no_grad():
            output = model(example_input)
    except Exception as error:
        shape = "x".join(map(str, example_input.shape))
        text = " ".join(str(error).split())[:200]
        raise ModelError(f"the model fails on an image of {data.name} ({shape}): {text}") from error
    one_logit_per_class(output, 1, len(data.classes))


def choose_device(name: str) -> torch.device:
    """The device of that name; ``auto`` is a GPU if there is one. ``InputError`` if absent.

    Of several processes that a launcher started on a machine, each gets a GPU of its own.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and process_count() > 1:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"device {name!r} can't be used: expected auto, cpu or cuda") from error
    if device.type == "meta":
        raise InputError("device 'meta' can't be used: expected auto, cpu or cuda")
    return device
