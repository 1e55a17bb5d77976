"""The space of labels: which labels are one channel, and which must stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from lcprune.graph import FIXED, IntArray


@dataclass(frozen=True)
class Source:
    """The labels ``start`` … ``start + size - 1``: the indices of one tensor dimension."""

    tensor: str
    dim: int
    start: int
    size: int


class LabelSpace:
    """Collects labels, the pairs that are one channel, and the labels that must stay."""

    def __init__(self) -> None:
        self.count = 0
        self.sources: list[Source] = []
        self._edges: list[tuple[Tensor, Tensor]] = []
        self._pins: list[tuple[Tensor, str]] = []
        self._produced: list[Tensor] = []
        self._merged: list[tuple[Tensor, Tensor]] = []

    def fresh(self, size: int) -> Tensor:
        """Labels that no tensor dimension stands behind."""
        start = self.count
        self.count += size
        return torch.arange(start, start + size, device="cpu")

    def of_dimension(self, tensor: str, dim: int, size: int) -> Tensor:
        """Labels for the indices of a tensor dimension."""
        self.sources.append(Source(tensor, dim, self.count, size))
        return self.fresh(size)

    def join(self, a: Tensor, b: Tensor, reason: str) -> None:
        """Make ``a`` and ``b`` (broadcast) one channel each; what meets ``FIXED`` must stay."""
        if a.shape != b.shape:
            shape = [max(m, n) for m, n in zip(a.shape, b.shape, strict=True)]
            a, b = a.expand(shape), b.expand(shape)
        a, b = a.reshape(-1), b.reshape(-1)
        fixed = (a == FIXED) | (b == FIXED)
        if bool(fixed.any()):
            self.pin(torch.maximum(a, b)[fixed], reason)
            a, b = a[~fixed], b[~fixed]
        different = a != b
        if bool(different.any()):
            self._edges.append((a[different], b[different]))

    def same_filters(self, a: Tensor, b: Tensor) -> None:
        """Note that the filters of ``a`` and ``b`` are computed into one weight, each into each."""
        self._merged.append((a.reshape(-1), b.reshape(-1)))

    def pin(self, labels: Tensor, reason: str) -> None:
        """Keep the channels of ``labels``, for ``reason``."""
        labels = labels.reshape(-1)
        labels = labels[labels != FIXED]
        if labels.numel():
            self._pins.append((labels, reason))

    def produce(self, labels: Tensor) -> None:
        """Note that a contraction makes the channels of ``labels``: they are filters."""
        self._produced.append(labels.reshape(-1))

    def mark(self) -> tuple[int, int, int, int]:
        """How much has been noted, for ``reset``."""
        return len(self._edges), len(self._pins), len(self._produced), len(self._merged)

    def reset(self, mark: tuple[int, int, int, int]) -> None:
        """Forget what was noted after ``mark``; labels that were made since stay unused."""
        notes: tuple[list[Any], ...] = (self._edges, self._pins, self._produced, self._merged)
        for noted, count in zip(notes, mark, strict=True):
            del noted[count:]

    def pin_new(self, mark: tuple[int, int, int, int], reason: str) -> None:
        """Keep the channels all of whose filters were first made after ``mark``."""
        component = self.components()
        before, after = (
            np.unique(component[labels[labels != FIXED]])
            for labels in (
                torch.cat([torch.zeros(0, dtype=torch.int64), *parts]).numpy()
                for parts in (self._produced[: mark[2]], self._produced[mark[2] :])
            )
        )
        new = np.setdiff1d(after, before)
        self.pin(torch.from_numpy(np.flatnonzero(np.isin(component, new))), reason)

    def components(self) -> IntArray:
        """For every label the number of its channel, in the order of first appearance."""
        if not self.count:
            return np.zeros(0, dtype=np.int64)
        component = self._connected(self._edges)
        _, first = np.unique(component, return_index=True)
        order = np.empty(len(first), dtype=np.int64)
        order[component[np.sort(first)]] = np.arange(len(first))
        return np.asarray(order[component], dtype=np.int64)

    def _connected(self, pairs: list[tuple[Tensor, Tensor]]) -> IntArray:
        a, b = np.zeros((2, 0), dtype=np.int64)
        if pairs:
            a = torch.cat([a for a, _ in pairs]).numpy()
            b = torch.cat([b for _, b in pairs]).numpy()
        edges = coo_array((np.ones(len(a), dtype=np.int8), (a, b)), shape=(self.count,) * 2)
        _, component = connected_components(edges, directed=False)
        return np.asarray(component, dtype=np.int64)

    def pinned(self, component: IntArray) -> dict[int, str]:
        """The first reason for which each pinned channel must stay."""
        reasons: dict[int, str] = {}
        for labels, reason in self._pins:
            for channel in np.unique(component[labels.numpy()]).tolist():
                reasons.setdefault(channel, reason)
        return reasons

    def pinned_channels(self, component: IntArray) -> IntArray:
        """The channels that must stay, whatever the reason."""
        if not self._pins:
            return np.zeros(0, dtype=np.int64)
        return np.unique(component[torch.cat([labels for labels, _ in self._pins]).numpy()])

    def produced(self) -> IntArray:
        """The labels that a contraction makes, without repeats."""
        if not self._produced:
            return np.zeros(0, dtype=np.int64)
        labels = torch.cat(self._produced).numpy()
        labels = np.unique(labels[labels != FIXED])
        if not self._merged:
            return np.asarray(labels, dtype=np.int64)
        parts = self._connected(self._merged)
        return np.flatnonzero(np.isin(parts, parts[labels]))
