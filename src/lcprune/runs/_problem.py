"""What a pruning run is about: everything that the user gave, loaded, checked and measured once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from lcprune._text import one_line
from lcprune.cost import Budget, Energy, read_energy
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
from lcprune.engines import LatencyTable
from lcprune.errors import InputError, ModelError
from lcprune.fitness import Precision
from lcprune.graph import ChannelGraph
from lcprune.models import build, load_weights
from lcprune.ranking import Ranker
from lcprune.runs._options import Options, PruneOptions
from lcprune.runs._reporter import Reporter, Silent
from lcprune.runs._stopwatch import Stopwatch
from lcprune.searching import STRATEGIES
from lcprune.slimming import repair
from lcprune.tracing import trace
from lcprune.training import check_logits as one_logit_per_class
from lcprune.training import evaluation_batch


@dataclass(frozen=True, eq=False)
class Problem:
    """A base network, what may go, what that costs, and the images to judge by.

    ``model`` is the base network on ``device``, in eval mode. It is never touched: who changes
    it copies it. ``before`` is the whole network's cost and ``limits`` the budget's bounds, by
    resource name; ``energy`` is among the ``resources`` where it is bounded or its coefficients
    are given, a table of latencies where there is one. ``watch`` times networks on an engine, where
    one is named. ``data.train`` lacks the images that are ``held`` out. ``example`` is one image
    as the network takes it, on the CPU.
    """

    model: nn.Module
    graph: ChannelGraph
    saliency: Saliency
    budget: Budget
    before: Mapping[str, int]
    limits: Mapping[str, int]
    resources: tuple[Energy | LatencyTable, ...]
    watch: Stopwatch | None
    example: Tensor
    data: Data
    held: ImageSet | None
    split: SearchSplit
    device: torch.device
    seed: int

    @staticmethod
    def of(
        options: PruneOptions,
        watch: Stopwatch | None = None,
        reporter: Reporter | None = None,
    ) -> Problem:
        """Load and check what ``options`` name, down to a first cut; writes nothing of a run.

        Where a bound on latency needs a table that the ``watch`` doesn't have, it is measured.
        ``InputError`` with what was expected where any of it can't be used.
        """
        budget = Budget.parse(options.budget)
        resources = _resources(options, budget)
        if options.strategy not in STRATEGIES:
            known = ", ".join(STRATEGIES)
            raise InputError(f"unknown strategy {options.strategy!r}, expected one of {known}")
        base = load_base(options)
        data, held, model = base.data, base.held, base.model
        split = search_split(
            len(data.train),
            options.recalibrate_images,
            options.fitness_images,
            options.seed,
            held=0 if held is None else len(held),
            fresh=options.fitness_images if options.finalists > 1 else 0,
        )
        graph = trace(
            model,
            base.example,
            only=options.only,
            skip=options.skip,
            skip_types=options.skip_types,
        )
        graph = repair(model, graph, base.example, seed=options.seed)
        if not graph.prunable:
            why = "; ".join(dict.fromkeys(entry.reason for entry in graph.untouched[:3]))
            raise ModelError(
                f"no channel of the model can be pruned ({why or 'it has no filters'})"
            )
        if watch is not None:
            bounded = "latency" in budget.asked
            reporter = reporter or Silent()
            table = watch.table(model, graph, base.example, reporter, bounded=bounded)
            resources = (*resources, table) if table is not None else resources
        model.to(base.device)
        scores = _score(options, model, graph, data, split, base.device)
        ranker = _ranker(options, budget, graph, scores, resources)
        return Problem(
            model=model,
            graph=graph,
            saliency=scores,
            budget=budget,
            before=ranker.before,
            limits=ranker.limits,
            resources=resources,
            watch=watch,
            example=base.example,
            data=data,
            held=held,
            split=split,
            device=base.device,
            seed=options.seed,
        )

    @property
    def table(self) -> LatencyTable | None:
        """The times of operators, scaled to those of the base network."""
        return next((one for one in self.resources if isinstance(one, LatencyTable)), None)

    def ranker(self, options: PruneOptions, budget: Budget) -> Ranker:
        """What cuts at a budget, which it can meet; ``BudgetError`` otherwise."""
        return _ranker(options, budget, self.graph, self.saliency, self.resources)

    def of_budget(self, options: PruneOptions) -> Problem:
        """The same for another budget on the same resources; ``BudgetError`` if it can't be met."""
        budget = Budget.parse(options.budget)
        ranker = self.ranker(options, budget)
        return replace(self, budget=budget, before=ranker.before, limits=ranker.limits)

    def of_model(self, options: PruneOptions, model: nn.Module) -> Problem:
        """The same for the same network with other weights, on ``device``."""
        scores = _score(options, model, self.graph, self.data, self.split, self.device)
        return replace(self, model=model, saliency=scores)

    @property
    def validation(self) -> ImageSet:
        """What the fitness of a candidate is measured on."""
        return self._pool.subset(self.split.validate)

    @property
    def fresh(self) -> ImageSet:
        """What finalists are judged on."""
        return self._pool.subset(self.split.fresh)

    @property
    def finalist_training(self) -> ImageSet:
        """What finalists are trained on: the training images but for those."""
        return self._without(self.split.fresh)

    @property
    def search_training(self) -> ImageSet:
        """What candidates are trained on: the training images that none is judged on."""
        return self._without(torch.cat([self.split.fresh, self.split.validate]))

    def _without(self, judged: Tensor) -> ImageSet:
        if self.held is not None:
            return self.data.train
        rest = torch.ones(len(self.data.train), dtype=torch.bool)
        rest[judged] = False
        return self.data.train.subset(torch.nonzero(rest).flatten())

    @property
    def _pool(self) -> ImageSet:
        return self.data.train if self.held is None else self.held

    @property
    def at_once(self) -> int:
        """How many images a network sees at once where none is trained."""
        return evaluation_batch(self.data.input_shape)

    def recalibration_batches(self) -> list[Tensor]:
        """What BatchNorm statistics are taken from, normalised, on ``device``."""
        images = self.data.train.subset(self.split.recalibrate)
        return [
            self.data.normalise(pixels).to(self.device)
            for pixels, _ in images.batches(self.at_once)
        ]

    def in_precision(self, images: ImageSet, precision: Precision) -> tuple[Tensor, Tensor]:
        """Images and labels on ``device``; no more than a batch is ever in float32."""
        parts = [
            precision.cast(self.data.normalise(pixels)).to(self.device)
            for pixels, _ in images.batches(self.at_once)
        ]
        return torch.cat(parts), images.labels.to(self.device)

    def first_images(self, count: int) -> Tensor:
        """The first training images, ``count`` or all of them, normalised, on ``device``."""
        return first_images(self.data, count, self.device)


@dataclass(frozen=True, eq=False)
class Base:
    """A network and its data; ``model`` is on the CPU, in eval mode.

    ``head`` names the tensors that were left as they were built.
    """

    model: nn.Module
    data: Data
    held: ImageSet | None
    example: Tensor
    device: torch.device
    head: tuple[str, ...] = ()


def load_base(options: Options, *, new_head: bool = False) -> Base:
    """Load and check the data and the network that ``options`` name; ``InputError`` if it can't."""
    device = choose_device(options.device)
    data, held = load_data(options.data), None
    if options.hold_out:
        data, held = hold_out(data, options.hold_out)
    classes = len(data.classes)
    model = build(
        options.model, classes=classes, input_shape=data.input_shape, seed=options.seed
    ).eval()
    head = load_weights(model, options.weights, options.model, classes=classes, new_head=new_head)
    example = data.normalise(first_pixels(data.train, 1))
    check_logits(model, example, data)
    return Base(model, data, held, example, device, head)


def first_images(data: Data, count: int, device: torch.device) -> Tensor:
    """The first training images, ``count`` or all of them, normalised, on ``device``."""
    return data.normalise(first_pixels(data.train, count)).to(device)


def check_logits(model: nn.Module, example_input: Tensor, data: Data) -> None:
    """``ModelError`` unless the model gives one number for each class of the data."""
    try:
        with torch.no_grad():
            output = model(example_input)
    except Exception as error:
        shape = "x".join(map(str, example_input.shape))
        raise ModelError(
            f"the model fails on an image of {data.name} ({shape}): {one_line(error, 200)}"
        ) from error
    one_logit_per_class(output, 1, len(data.classes))


def choose_device(name: str) -> torch.device:
    """The device of that name; ``auto`` is a GPU if there is one. ``InputError`` if absent."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
        if torch.zeros(2, device=device).sum().item() != 0:
            raise RuntimeError("it computes nothing")
    except Exception as error:  # what a device that isn't there raises is of any kind
        raise InputError(f"device {name!r} can't be used: expected auto, cpu or cuda") from error
    if device.type == "meta":
        raise InputError("device 'meta' can't be used: expected auto, cpu or cuda")
    return device


def _ranker(
    options: PruneOptions,
    budget: Budget,
    graph: ChannelGraph,
    scores: Saliency,
    resources: tuple[Energy | LatencyTable, ...],
) -> Ranker:
    """What cuts at a budget; ``BudgetError`` where it can't be met."""
    ranker = Ranker(
        graph,
        scores,
        budget,
        compensation=options.compensation,
        min_keep=options.min_keep,
        round_to=options.rounding,
        resources=resources,
    )
    # Criterion, compensation and budget are right if they give a plan.
    ranker.plan(ranker.compensation.identity())
    return ranker


def _resources(options: PruneOptions, budget: Budget) -> tuple[Energy | LatencyTable, ...]:
    """The energy, where it is bounded or asked for."""
    if options.energy is not None:
        return (read_energy(options.energy),)
    return (Energy(),) if "energy" in budget.asked else ()


def _score(
    options: PruneOptions,
    model: nn.Module,
    graph: ChannelGraph,
    data: Data,
    split: SearchSplit,
    device: torch.device,
) -> Saliency:
    """The saliency that ``options`` ask for, on images that the fitness doesn't see."""

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        images = data.train.subset(split.recalibrate)
        for pixels, labels in images.batches(options.batch_size):
            yield data.normalise(pixels).to(device), labels.to(device)

    return saliency(
        model,
        graph,
        options.criterion,
        reduction=options.reduction,
        data=batches(),
        loss=functional.cross_entropy,
        seed=options.seed,
    )
