"""From a mask over groups to everything that slimming needs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lcprune._checks import instance
from lcprune.cost import CostModel, cost_of
from lcprune.errors import InputError
from lcprune.graph import BoolArray, ChannelGraph, IntArray, digest_of, shape_entry
from lcprune.ranking._plan import AttributeEdit, Plan


class PlanBuilder:
    """Turns masks over one graph's groups into plans, with what masks share computed once.

    Example:
        builder = PlanBuilder(graph)
        plan = builder.plan(np.ones(graph.prunable, dtype=bool))
    """

    def __init__(self, graph: ChannelGraph, cost: CostModel | None = None) -> None:
        instance("the graph", graph, ChannelGraph, "a ChannelGraph, such as lcprune.trace gives")
        self._cost = cost or cost_of(graph)
        self._prunable = graph.prunable
        self._pinned = len(graph.pinned_reasons)
        # A layer's weight, bias and statistics share one channel vector: select in it once.
        vectors: dict[bytes, IntArray] = {}
        keys: dict[bytes, list[tuple[str, int]]] = {}
        for dimension in graph.dimensions:
            content = dimension.channels.tobytes()
            vectors.setdefault(content, dimension.channels)
            keys.setdefault(content, []).append(dimension.key)
        self._selections = [(vectors[content], keys[content]) for content in vectors]
        self._order = [dimension.key for dimension in graph.dimensions]

        self._network = graph.network
        self._shapes = {name: (i, shape) for i, (name, shape) in enumerate(graph.parameters)}
        self._entries = [shape_entry(name, shape) for name, shape in graph.parameters]
        self._free_outputs = graph.free_outputs
        self._attributes = graph.attributes
        counted = [graph.vectors[attribute.vector] for attribute in graph.attributes]
        self._sizes = [len(vector) for vector in counted]
        self._ends = np.cumsum([0, *self._sizes])
        self._counted = np.concatenate(counted) if counted else np.empty(0, dtype=np.int64)

    def plan(
        self,
        keep: BoolArray,
        *,
        criterion: str | None = None,
        compensation: str | None = None,
        latent: Mapping[str, tuple[float, ...]] | None = None,
    ) -> Plan:
        """The plan that keeps the groups where ``keep``, bool [prunable], is true.

        Raises ``InputError`` where ``keep`` has another length or type, or leaves a tensor
        without channels.
        """
        cost = self._cost.evaluate(keep)
        # Pinned groups stay, and so does FIXED, which as index -1 finds the last entry.
        stays = np.concatenate([keep, np.ones(self._pinned + 1, dtype=np.bool_)])
        kept: dict[tuple[str, int], tuple[int, ...]] = {}
        for channels, keys in self._selections:
            selected = stays[channels]
            if not selected.all():
                indices = tuple(np.flatnonzero(selected).tolist())
                if not indices:
                    raise InputError(f"mask keeps no channel of {keys[0][0]}, expected one or more")
                kept.update(dict.fromkeys(keys, indices))
        return Plan(
            kept={key: kept[key] for key in self._order if key in kept},
            attributes=self._edits(stays),
            criterion=criterion,
            compensation=compensation,
            latent=dict(latent or {}),
            cost=cost,
            network=self._network,
            result=self._result(kept),
            free_outputs=self._free_outputs,
        )

    def _result(self, kept: Mapping[tuple[str, int], tuple[int, ...]]) -> str:
        """The digest of what is left of the network."""
        shapes: dict[str, list[int]] = {}
        for (name, dim), indices in kept.items():
            if name in self._shapes:
                shape = shapes.setdefault(name, list(self._shapes[name][1]))
                shape[dim] = len(indices)
        entries = self._entries.copy()
        for name, shape in shapes.items():
            entries[self._shapes[name][0]] = shape_entry(name, shape)
        return digest_of(entries)

    def _edits(self, stays: BoolArray) -> tuple[AttributeEdit, ...]:
        running = np.concatenate([[0], np.cumsum(stays[self._counted])])
        values = running[self._ends[1:]] - running[self._ends[:-1]]
        found: dict[tuple[str, str, int | None], AttributeEdit] = {}
        for attribute, size, value in zip(
            self._attributes, self._sizes, values.tolist(), strict=True
        ):
            if value != size:  # a module that runs twice counts by each of its inputs
                key = (attribute.module, attribute.name, attribute.index)
                found[key] = AttributeEdit(*key, value)
        return tuple(found.values())
