"""Corrections to a channel graph: groups that have to stay after all, or to go together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lcprune.errors import InputError
from lcprune.graph._graph import ChannelGraph, Dimension, Family, IntArray, Untouched


def pin(graph: ChannelGraph, reasons: Mapping[int, str]) -> ChannelGraph:
    """The same graph in which some prunable groups are pinned, each for its reason.

    Groups are renumbered: those that can still be removed come first, in their old order, then
    the newly pinned, then those that were pinned before. ``InputError`` for a group that is not
    prunable.
    """
    _check_prunable(graph, reasons)
    if not reasons:
        return graph
    pinned = np.zeros(graph.prunable, dtype=np.bool_)
    pinned[list(reasons)] = True
    new = np.empty(graph.prunable, dtype=np.int64)
    new[~pinned] = np.arange(graph.prunable - len(reasons))
    new[pinned] = np.arange(graph.prunable - len(reasons), graph.prunable)
    families = [
        (family.name, [int(new[g]) for g in family.groups if not pinned[g]], family.dimensions)
        for family in graph.families
    ]
    renumbered = _renumbered(graph, new, graph.prunable - len(reasons), families)
    return replace(
        renumbered,
        pinned_reasons=(*(reasons[g] for g in sorted(reasons)), *graph.pinned_reasons),
        untouched=_untouched(graph, reasons),
    )


def couple(graph: ChannelGraph, pairs: Iterable[tuple[int, int]]) -> ChannelGraph:
    """The same graph in which both groups of every pair are one; pairs that share one chain.

    A new group has the position of its first old one. Families are those of the new groups: what
    touches the same tensor dimensions. They keep their names where their dimensions stay, and
    get that of their first group's old family otherwise, made unique. ``InputError`` for a group
    that is not prunable.
    """
    edges = np.array(list(pairs), dtype=np.int64).reshape(-1, 2)
    _check_prunable(graph, edges.reshape(-1).tolist())
    if not len(edges):
        return graph
    ones = np.ones(len(edges), dtype=np.int8)
    adjacency = coo_array((ones, (edges[:, 0], edges[:, 1])), shape=(graph.prunable,) * 2)
    count, component = connected_components(adjacency, directed=False)
    first = np.full(count, graph.prunable)
    np.minimum.at(first, component, np.arange(graph.prunable))
    rank = np.empty(count, dtype=np.int64)
    rank[np.argsort(first)] = np.arange(count)
    new: IntArray = rank[component]
    return _renumbered(graph, new, count, _joined_families(graph, new, count))


NamedGroups = tuple[str, list[int], tuple[tuple[str, int], ...]]
"""A family to be: its name, its groups, the tensor dimensions that they touch."""


def _joined_families(graph: ChannelGraph, new: IntArray, count: int) -> list[NamedGroups]:
    """The families of groups that were joined, each by name, groups and dimensions."""
    members: list[list[int]] = [[] for _ in range(count)]
    for old, group in enumerate(new.tolist()):
        family = int(graph.family_of[old])
        if family not in members[group]:
            members[group].append(family)
    order = {dimension.key: i for i, dimension in enumerate(graph.dimensions)}
    groups: dict[tuple[tuple[str, int], ...], list[int]] = {}
    origin: dict[tuple[tuple[str, int], ...], str] = {}
    for group, old_families in enumerate(members):
        keys = {key for family in old_families for key in graph.families[family].dimensions}
        signature = tuple(sorted(keys, key=order.__getitem__))
        groups.setdefault(signature, []).append(group)
        origin.setdefault(signature, graph.families[old_families[0]].name)
    known = {tuple(sorted(f.dimensions, key=order.__getitem__)): f.name for f in graph.families}
    taken = {known[signature] for signature in groups if signature in known}
    named: list[NamedGroups] = []
    for signature, own in groups.items():
        name = known.get(signature) or _unique(origin[signature], taken)
        taken.add(name)
        named.append((name, own, signature))
    return named


def _unique(name: str, taken: set[str]) -> str:
    number, unique = 1, name
    while unique in taken:
        number += 1
        unique = f"{name}#{number}"
    return unique


def _renumbered(
    graph: ChannelGraph, new: IntArray, prunable: int, families: Sequence[NamedGroups]
) -> ChannelGraph:
    """The graph with group i of the prunable ones as ``new[i]``, the pinned ones after them."""
    pinned = len(graph.pinned_reasons)
    after = int(new.max(initial=-1)) + 1
    # FIXED, which is -1, finds the last entry.
    table = np.concatenate([new, np.arange(after, after + pinned), [-1]])
    kept = [entry for entry in families if entry[1]]
    family_of = np.empty(prunable, dtype=np.int64)
    for number, (_, groups, _) in enumerate(kept):
        family_of[groups] = number
    return replace(
        graph,
        prunable=prunable,
        dimensions=tuple(Dimension(d.tensor, d.dim, table[d.channels]) for d in graph.dimensions),
        families=tuple(
            Family(number, name, tuple(groups), dimensions)
            for number, (name, groups, dimensions) in enumerate(kept)
        ),
        family_of=family_of,
        vectors=tuple(table[vector] for vector in graph.vectors),
    )


def _untouched(graph: ChannelGraph, reasons: Mapping[int, str]) -> tuple[Untouched, ...]:
    """What was untouched and the filters of newly pinned groups, in the order of producers."""
    counts: dict[tuple[str, int, str], int] = {}
    sizes: dict[tuple[str, int], int] = {}
    for entry in graph.untouched:
        counts[entry.tensor, entry.dim, entry.reason] = entry.count
        sizes[entry.tensor, entry.dim] = entry.size
    for tensor, dim in graph.producers:
        channels = graph.dimension(tensor, dim).channels
        sizes[tensor, dim] = len(channels)
        for group in channels.tolist():
            if group in reasons:
                key = (tensor, dim, reasons[group])
                counts[key] = counts.get(key, 0) + 1
    order = {key: i for i, key in enumerate(graph.producers)}
    return tuple(
        Untouched(tensor, dim, count, sizes[tensor, dim], reason)
        for (tensor, dim, reason), count in sorted(
            counts.items(), key=lambda item: order.get(item[0][:2], len(order))
        )
    )


def _check_prunable(graph: ChannelGraph, groups: Iterable[int]) -> None:
    """``InputError`` unless every group can be removed."""
    for group in groups:
        if not 0 <= group < graph.prunable:
            raise InputError(
                f"group {group} is not prunable, expected one of the first {graph.prunable}"
            )
