"""The base network of the studies, and the plans that their rows are of.

``results/plans.jsonl`` has a row for every plan: the network, its base (the beginning of the
SHA-256 of its weights), the budget as a share of the MACs, the criterion, the compensation, the
strategy and the seed of its search, and β by family. ``Planner.plan`` gives the same plan again,
which the row's digest proves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

import lcprune as lp
import runner
from lcprune.data import Data, ImageSet, hold_out, load_data
from lcprune.errors import VerificationError
from lcprune.models import build, load_weights
from lcprune.ranking import Ranker

BASES = {"53f40250": Path(__file__).parent / "bases" / "cifar_resnet20_10_epochs.safetensors"}
"""What ``clean_base.py --epochs 10`` wrote, the same bits on two machines."""


@dataclass(frozen=True)
class Base:
    """A network in evaluation mode, and the beginning of its weights' SHA-256."""

    network: str
    model: nn.Module
    digest: str


@dataclass(frozen=True)
class Split:
    """``data.train`` has the 45,000 images that a base was trained on, ``held`` the others."""

    data: Data
    held: ImageSet


def load_base(network: str, weights: Path) -> Base:
    """A network with ten classes from the weights that ``clean_base.py`` wrote."""
    model = build(network, classes=10, input_shape=(3, 32, 32))
    load_weights(model, str(weights), network)
    return Base(network, model.eval(), hashlib.sha256(weights.read_bytes()).hexdigest()[:8])


def load_split(cifar: Path) -> Split:
    """CIFAR-10 without every tenth image of its training split, and those."""
    return Split(*hold_out(load_data(f"cifar10:{cifar}"), 10))


def published(network: str) -> str:
    """The file name of a network's published weights."""
    return f"cifar10_{network.removeprefix('cifar_')}.safetensors"


class Planner:
    """Plans of one base: from rows, and by compensations that need no search."""

    def __init__(self, base: Base) -> None:
        self.base = base
        self.graph = lp.trace(base.model, torch.zeros(1, 3, 32, 32))
        self._saliency = lp.saliency(base.model, self.graph, "l2")
        self._rankers: dict[tuple[float, str], Ranker] = {}

    def ranker(self, budget: float, compensation: str = "additive") -> Ranker:
        """The ranker for a share of the MACs."""
        bound = lp.Budget(macs=budget)
        return self._rankers.setdefault(
            (budget, compensation),
            Ranker(self.graph, self._saliency, bound, compensation=compensation),
        )

    def control(self, budget: float, compensation: str) -> lp.Plan:
        """The plan of ``none`` or ``uniform``."""
        ranker = self.ranker(budget, compensation)
        return ranker.plan(ranker.compensation.identity())

    def plan(self, row: runner.Row) -> lp.Plan:
        """The plan of a row; ``VerificationError`` where it has another digest."""
        ranker = self.ranker(row["budget"], row["compensation"])
        beta = np.array([row["beta"][family.name] for family in self.graph.families])
        plan = ranker.plan(ranker.read_latent(beta))
        if plan.digest != row["digest"]:
            raise VerificationError(f"plan {plan.digest[:12]}, expected {row['digest'][:12]}")
        return plan


def row_of(base: Base, budget: float, plan: lp.Plan, **more: object) -> runner.Row:
    """The row of a plan; ``more`` says where it comes from."""
    beta = {name: v[0] if len(v) == 1 else list(v) for name, v in plan.latent.items()}
    return {
        "network": base.network,
        "base": base.digest,
        "budget": budget,
        "criterion": plan.criterion,
        "compensation": plan.compensation,
        **more,
        "beta": beta,
        "digest": plan.digest,
    }


def rows(study: str, base: str | None = None) -> Iterator[runner.Row]:
    """The rows of a study's plans, on one base or on all."""
    for row in runner.rows("plans"):
        if row["study"] == study and base in (None, row["base"]):
            yield row


def method(row: runner.Row) -> str:
    """What a searched plan is called in tables: its strategy, or the compensation it is of."""
    kind, _, units = row["compensation"].partition(":")
    if kind != "additive":
        return str(row["compensation"])
    return f"{row['strategy']}-rank" if units else str(row["strategy"])
