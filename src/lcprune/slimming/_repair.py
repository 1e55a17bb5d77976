"""Repair: a graph that is wrong about its model is corrected until random plans are right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import nn

from lcprune._checks import instance, integer
from lcprune.graph import BoolArray, ChannelGraph, IntArray, couple, pin
from lcprune.ranking import PlanBuilder
from lcprune.slimming._checker import Checker, Fault
from lcprune.slimming._coupling import couplings, random_masks
from lcprune.slimming._culprits import Items, culprits
from lcprune.slimming._fit import check_fit
from lcprune.tracing import ExampleInput


def repair(
    model: nn.Module,
    graph: ChannelGraph,
    example_input: ExampleInput | None = None,
    *,
    example_kwargs: Mapping[str, Any] | None = None,
    training_inputs: ExampleInput | None = None,
    plans: int = 2,
    seed: int = 0,
) -> ChannelGraph:
    """Check random plans on the model itself, and correct the graph where they are wrong.

    Each of ``plans`` random masks over all families is cut out of the model and compared with
    the masked reference in evaluation and training mode, as ``verify`` does. If all are right,
    ``graph`` itself is returned. Where one is not (the slimmed model raises, or differs), the
    families that cause it are found by bisection. They are coupled where they are right in step
    with one another or in blocks, and pinned otherwise, with what happened as the reason. This
    goes on until ``plans`` fresh masks are right or nothing is prunable. ``notes`` of the result
    say what was done.

    Cost: for a right network ``plans`` times two cuts, four forwards and a backward in float64.
    For each family that is wrong out of n at most 2 log2(n) + 3 evaluations to find it (k times as
    many for a set of k that fail only together) and about 20 to couple or pin it; then ``plans``
    for the fresh masks.

    Raises ``ModelError`` where the model can't run or gives other outputs whenever it runs (with
    equal random draws on the CPU), and ``InputError`` where ``graph`` is that of
    another network, or ``plans`` is not an integer of 1 or more.
    """
    instance("graph", graph, ChannelGraph, "the ChannelGraph that lcprune.trace gives")
    plans, seed = integer("plans", plans, least=1), integer("seed", seed, least=0)
    check_fit(model, PlanBuilder(graph).plan(np.ones(graph.prunable, dtype=np.bool_)), "the graph")
    checker = Checker(
        model, example_input, example_kwargs=example_kwargs, training_inputs=training_inputs
    )
    rng = np.random.default_rng(seed)
    repaired, done = graph, _Done()
    while repaired.prunable:
        round_ = _Round(repaired, checker, rng)
        faults = round_.search(plans)
        if not faults:
            break
        repaired = round_.corrected(faults, done)
    if repaired is graph:
        return graph
    return replace(repaired, notes=(*graph.notes, *done.notes()))


@dataclass(frozen=True)
class _Done:
    """What was corrected so far, by the names of families."""

    left_alone: dict[str, str] = field(default_factory=dict)
    coupled: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """What was done, in sentences."""
        notes = list(self.coupled)
        if self.left_alone:
            count = len(self.left_alone)
            names = ", ".join([*self.left_alone][:8]) + (", …" if count > 8 else "")
            why = "; ".join([*dict.fromkeys(self.left_alone.values())][:3])
            families = "family" if count == 1 else "families"
            notes.append(f"{count} {families} left alone after a check: {names} ({why})")
        return notes


class _Round:
    """One search for what is wrong with a graph, and its correction."""

    def __init__(self, graph: ChannelGraph, checker: Checker, rng: np.random.Generator) -> None:
        self._graph = graph
        self._checker = checker
        self._rng = rng
        self._builder = PlanBuilder(graph)
        self._groups = [np.array(family.groups, dtype=np.int64) for family in graph.families]

    def search(self, plans: int) -> dict[Items, Fault]:
        """Minimal sets of families that fail in ``plans`` random masks, with what they do."""
        found: dict[Items, Fault] = {}
        for draw in range(plans):
            taken = {family for families in found for family in families}
            masks = random_masks([len(g) for g in self._groups], self._rng, odd=draw % 2 == 1)
            removed = {
                family: self._groups[family][~mask]
                for family, mask in enumerate(masks)
                if family not in taken and not mask.all()
            }
            found |= self._failing(removed)
        return found

    def _failing(self, removed: dict[int, IntArray]) -> dict[Items, Fault]:
        """Minimal sets of families that fail when the groups of each in ``removed`` go."""
        seen: dict[frozenset[int], Fault | None] = {}

        def fault(families: Items) -> Fault | None:
            key = frozenset(families)
            if key not in seen:
                seen[key] = self._fault(np.concatenate([removed[f] for f in families]))
            return seen[key]

        found = {}
        for families in culprits(list(removed), lambda families: fault(families) is not None):
            # If a set is right by itself, it takes others too in a way that no halving tells.
            known = fault(families) or next(f for f in reversed(seen.values()) if f is not None)
            found[families] = known
        return found

    def corrected(self, faults: dict[Items, Fault], done: _Done) -> ChannelGraph:
        """The graph with the families of ``faults`` coupled, where that helps, or pinned."""
        cells = couplings(
            [[self._groups[family] for family in families] for families in faults],
            lambda removed: self._fault(removed) is None,
            self._rng,
        )
        helped = {int(group) for found in cells for group in found.reshape(-1)}
        reasons: dict[int, str] = {}
        for families, fault in faults.items():
            for family in families:
                groups = self._graph.families[family].groups
                if groups[0] not in helped:
                    reasons |= dict.fromkeys(groups, fault.reason)
                    done.left_alone[self._graph.families[family].name] = fault.reason
        done.coupled.extend(self._described(found) for found in cells)
        stays = np.ones(self._graph.prunable, dtype=np.bool_)
        stays[list(reasons)] = False
        renumbered = np.cumsum(stays) - 1
        pairs = [
            (int(cell[0]), int(other))
            for found in cells
            for cell in renumbered[found]
            for other in cell[1:]
        ]
        return couple(pin(self._graph, reasons), pairs)

    def _described(self, cells: IntArray) -> str:
        families = dict.fromkeys(self._graph.family_of[cells[0]].tolist())
        names = [self._graph.families[family].name for family in families]
        if len(names) > 1:
            return f"{', '.join(names)}: lose the same places, after a check"
        return f"{names[0]}: channels go in blocks of {cells.shape[1]}, after a check"

    def _fault(self, removed: IntArray) -> Fault | None:
        """What is wrong when these groups go and all others stay."""
        keep: BoolArray = np.ones(self._graph.prunable, dtype=np.bool_)
        keep[removed] = False
        return self._checker.fault(self._builder.plan(keep))
