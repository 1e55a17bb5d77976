"""What tracing a model yields: its channels, who shares them, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from lcprune.graph._arrays import IntArray

FIXED = -1
"""In a channel vector: a position that belongs to no group and never goes away."""


@dataclass(frozen=True)
class Family:
    """All groups whose slices touch the same tensor dimensions: what has one β.

    ``name`` is the module of the first filter that the family prunes, made unique.
    """

    id: int
    name: str
    groups: tuple[int, ...]
    dimensions: tuple[tuple[str, int], ...]


@dataclass(frozen=True, eq=False)
class Dimension:
    """A tensor dimension that holds channels; ``channels`` is the group of every index."""

    tensor: str
    dim: int
    channels: IntArray

    @property
    def key(self) -> tuple[str, int]:
        return (self.tensor, self.dim)


@dataclass(frozen=True)
class Op:
    """A counted operation: ``coefficient`` times the kept channels of each factor.

    ``factors`` are positions in ``ChannelGraph.vectors``. MACs are those of one sample of the
    example input's batch.
    """

    kind: str
    module: str
    coefficient: int
    factors: tuple[int, ...]


@dataclass(frozen=True)
class Attribute:
    """A number that a module keeps beside its weights and that counts kept channels.

    ``index`` is the place in a tuple-valued attribute, or none; ``vector`` is a position in
    ``ChannelGraph.vectors``.
    """

    module: str
    name: str
    index: int | None
    vector: int


@dataclass(frozen=True)
class Untouched:
    """Filters that are never pruned, and why."""

    tensor: str
    dim: int
    count: int
    size: int
    reason: str


@dataclass(frozen=True, eq=False)
class ChannelGraph:
    """A model's channels as data: groups, families, and cost formulas over them.

    Groups 0 … ``prunable`` - 1 can be removed; those above are pinned. A *channel vector* is an
    integer array with the group of each channel, or ``FIXED``; the kept size of whatever it
    describes is the number of its channels whose group is kept.
    """

    prunable: int
    dimensions: tuple[Dimension, ...]
    families: tuple[Family, ...]
    family_of: IntArray
    producers: tuple[tuple[str, int], ...]
    pinned_reasons: tuple[str, ...]
    vectors: tuple[IntArray, ...]
    ops: tuple[Op, ...]
    parameters: tuple[Op, ...]
    attributes: tuple[Attribute, ...]
    untouched: tuple[Untouched, ...]
    uncounted: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def dimension(self, tensor: str, dim: int) -> Dimension:
        """The dimension ``dim`` of ``tensor``; ``KeyError`` where it holds no channels."""
        return self._by_key[tensor, dim]

    @cached_property
    def _by_key(self) -> dict[tuple[str, int], Dimension]:
        return {dimension.key: dimension for dimension in self.dimensions}
