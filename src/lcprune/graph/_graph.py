"""What tracing a model yields: its channels, who shares them, and the operators that ran."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lcprune._checks import instance, integer
from lcprune.errors import InputError
from lcprune.graph._network import Shapes, network_digest
from lcprune.graph._summary import summary

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

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
class Axis:
    """A dimension of a value: its size in the whole network, and the channels that it holds.

    ``vector`` is a position in ``ChannelGraph.vectors``, or none where the size never changes.
    """

    size: int
    vector: int | None = None


@dataclass(frozen=True)
class Value:
    """A tensor of the traced run: an input, a state (parameter, buffer, constant) or an activation.

    ``storage`` numbers storages: views and in-place results share that of their base, which is
    the first value on it. ``name`` is that of a parameter or buffer; ``parameter`` tells which,
    and ``saved`` whether it is an entry of the ``state_dict``.
    """

    kind: Literal["input", "state", "activation"]
    axes: tuple[Axis, ...]
    itemsize: int
    storage: int
    name: str = ""
    parameter: bool = False
    saved: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of all dimensions in the whole network."""
        return tuple(axis.size for axis in self.axes)

    @property
    def described(self) -> str:
        """Shape and bytes an element, such as ``1x16x32x32:4``."""
        return f"{'x'.join(map(str, self.shape)) or 'number'}:{self.itemsize}"

    @property
    def term(self) -> tuple[int, tuple[int, ...]]:
        """How many elements there are: a coefficient, and the channel vectors that multiply it."""
        fixed = prod(axis.size for axis in self.axes if axis.vector is None)
        return fixed, tuple(axis.vector for axis in self.axes if axis.vector is not None)


@dataclass(frozen=True)
class Op:
    """An operator that ran, and its MACs: ``coefficient`` times the kept channels of each factor.

    ``factors`` are positions in ``ChannelGraph.vectors``; MACs are those of one sample of the
    example input's batch, and ``coefficient`` is 0 where an operator has none. ``reads`` and
    ``writes`` are positions in ``ChannelGraph.values``; ``settings`` the numbers that it was given
    beside tensors (``stride``, ``padding``, ``groups``, …) by the names of its schema.
    """

    kind: str
    module: str
    coefficient: int = 0
    factors: tuple[int, ...] = ()
    reads: tuple[int, ...] = ()
    writes: tuple[int, ...] = ()
    settings: tuple[tuple[str, Any], ...] = ()

    def key(self, values: Sequence[Value]) -> str:
        """What equally fast operators share: kind, shapes, sizes of elements and settings."""
        reads, writes = (
            " ".join(values[position].described for position in positions)
            for positions in (self.reads, self.writes)
        )
        settings = " ".join(f"{name}={value}" for name, value in self.settings)
        return f"{self.kind}({reads})->({writes}) {settings}".rstrip()


@dataclass(frozen=True)
class Attribute:
    """A number that a module keeps beside its weights and that counts kept channels.

    ``index`` is the position in a tuple-valued attribute, or none; ``vector`` is a position in
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


@dataclass(frozen=True, eq=False, repr=False)
class ChannelGraph:
    """A model's channels as data: groups, families, and cost formulas over them.

    Groups 0 … ``prunable`` - 1 can be removed; those above are pinned. A *channel vector* is an
    integer array with the group of each channel, or ``FIXED``; the kept size of whatever it
    describes is the number of its channels whose group is kept.

    ``values`` are the tensors of the run in order of creation (inputs, states, activations),
    ``ops`` all operators in order of execution, ``outputs`` the values that the model returns.
    ``parameters`` are the names and shapes of all parameters, ``free_outputs`` the names of the
    outputs that may shrink, and ``training_error`` says why the forward in training mode could
    not be followed, or nothing.
    """

    prunable: int
    dimensions: tuple[Dimension, ...]
    families: tuple[Family, ...]
    family_of: IntArray
    producers: tuple[tuple[str, int], ...]
    pinned_reasons: tuple[str, ...]
    vectors: tuple[IntArray, ...]
    values: tuple[Value, ...]
    ops: tuple[Op, ...]
    outputs: tuple[int, ...]
    attributes: tuple[Attribute, ...]
    untouched: tuple[Untouched, ...]
    uncounted: tuple[str, ...]
    notes: tuple[str, ...] = ()
    parameters: Shapes = ()
    free_outputs: tuple[str, ...] = ()
    training_error: str = ""

    @cached_property
    def network(self) -> str:
        """The digest of the network, as ``network_digest`` gives it."""
        return network_digest(self.parameters)

    @cached_property
    def computation(self) -> str:
        """The digest of what ran: the network, and its operators with their shapes."""
        keys = [self.network, *(op.key(self.values) for op in self.ops)]
        return hashlib.sha256("\n".join(keys).encode()).hexdigest()

    @property
    def training_checked(self) -> bool:
        """Whether what the forward does in training mode was followed."""
        return not self.training_error

    def summary(self) -> str:
        """The table that ``lcprune inspect`` prints: families, costs, and what stays and why."""
        return summary(self)

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        return f"<ChannelGraph: {self.prunable} prunable groups in {len(self.families)} families>"

    def dimension(self, tensor: str, dim: int) -> Dimension:
        """The dimension ``dim`` of ``tensor``; ``InputError`` where it holds no channels."""
        instance("tensor", tensor, str, "the name of a parameter or buffer")
        key = (tensor, integer("dim", dim))
        if key not in self._by_key:
            raise InputError(f"the graph has no channels in dimension {dim} of {tensor!r}")
        return self._by_key[key]

    @cached_property
    def _by_key(self) -> dict[tuple[str, int], Dimension]:
        return {dimension.key: dimension for dimension in self.dimensions}
