"""Tracing: one run of the model under the flow of labels yields its channel graph."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from lcprune._checks import refused
from lcprune.errors import InputError, LcpruneWarning, ModelError
from lcprune.graph import (
    FIXED,
    Attribute,
    Axis,
    ChannelGraph,
    Dimension,
    Family,
    IntArray,
    Op,
    Untouched,
    Value,
    parameter_shapes,
)
from lcprune.tracing._attributes import follow_unread
from lcprune.tracing._choice import leave_out
from lcprune.tracing._flow import LabelFlow
from lcprune.tracing._inputs import TAKES_LIST, ExampleInput, as_examples
from lcprune.tracing._labels import Source
from lcprune.tracing._notes import Counted
from lcprune.tracing._paths import follow, unreached
from lcprune.tracing._planes import varying
from lcprune.tracing._record import Ran
from lcprune.tracing._run import first_sample, is_free, private_copy
from lcprune.tracing._settle import settle


def trace(
    model: nn.Module,
    example_input: ExampleInput | None = None,
    *,
    example_kwargs: Mapping[str, Any] | None = None,
    training_inputs: ExampleInput | None = None,
    outputs: Mapping[int | str, Literal["free"]] | None = None,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    skip_types: Sequence[str] = (),
) -> ChannelGraph:
    """Find the channels of a model that can be removed together, and what they cost.

    The model runs in eval mode and without gradients, on the first sample of ``example_input``
    (a tensor or a dictionary, a tuple of positional arguments, ``lcprune.Inputs``) and
    ``example_kwargs``; it runs on a copy and is never modified. Costs are those of this run. A
    list holds several examples, which are followed too, for modules that only some data reach.

    Then it runs in training mode, on four samples of each example, all but one with noise (two
    where it is large, or twelve where a batch has parts), or on ``training_inputs`` (the same
    forms) where training wants others, such as targets: what training couples is coupled, and
    what it returns (auxiliary heads) is an output. Where this forward fails, a warning says so, and
    ``ChannelGraph.training_error``. Whatever can't be pruned is in ``ChannelGraph.untouched``.

    Outputs are never pruned, unless ``outputs`` says so: ``{1: "free"}`` lets the second output
    of a tuple shrink, ``{"state": "free"}`` the one of that key, ``{"1.state": "free"}`` one
    within another, ``{"": "free"}`` the only one.

    ``only`` and ``skip`` are globs over module names (case-sensitive); one covers the modules
    that match and all inside them. No filter of a module that ``skip`` covers, or that ``only``
    leaves uncovered, is removed; its input channels still follow the modules before it. Coupled
    filters go only if all of them may. A covered module without filters (a BatchNorm) keeps the
    channels of its own vectors. ``skip_types`` names classes (``Linear`` or
    ``torch.nn.modules.linear.Linear``, subclasses included) whose modules are treated likewise.

    Raises ``ModelError`` for a model that can't be copied or run, or returns no tensor, and
    ``InputError`` for inputs of another form, and for a pattern, type or output that matches
    nothing.
    """
    copied = private_copy(model).eval()
    free = _free_outputs(outputs)
    examples = as_examples(example_input, example_kwargs)
    training = (
        () if training_inputs is None else as_examples(training_inputs, name="training_inputs")
    )
    try:
        samples = [first_sample(copied, example) for example in examples]
        paths = follow(copied, samples, training, free)
    except ModelError as error:
        if not isinstance(example_input, list):
            raise
        raise ModelError(f"{error} ({TAKES_LIST})") from error
    _check_names(free, paths.names)
    if paths.training_error:
        warnings.warn(
            f"the forward in training mode can't be followed ({paths.training_error}), so the "
            "pruned network may not train; training_inputs= takes what it wants",
            LcpruneWarning,
            stacklevel=2,
        )
    missed = [f"{n} is not reached by the forward pass" for n in unreached(paths.flow, copied)]
    leave_out(paths.flow, copied, only=only, skip=skip, skip_types=skip_types)
    settle(paths.flow)
    missed += follow_unread(paths.flow, copied)
    graph = _Assembly(copied, paths.flow).graph(tuple(missed))
    return replace(graph, training_error=paths.training_error, free_outputs=free)


def _free_outputs(outputs: Mapping[int | str, str] | None) -> tuple[str, ...]:
    if outputs is None:
        return ()
    expected = "a dictionary such as {1: 'free'} or {'state': 'free'}"
    if not isinstance(outputs, Mapping):
        raise refused("outputs", outputs, expected)
    for name, what in outputs.items():
        if isinstance(name, bool) or not isinstance(name, int | str) or what != "free":
            raise InputError(f"outputs has {name!r}: {what!r}; expected {expected}")
    return tuple(str(name) for name in outputs)


def _check_names(free: Sequence[str], names: Collection[str]) -> None:
    for name in free:
        if not any(is_free(known, [name]) for known in names):
            there = ", ".join(repr(known) for known in names)
            raise InputError(
                f"outputs names {name!r}, which the model does not return; expected one of {there}"
            )


class _Assembly:
    """Turns what a flow has noted into a channel graph."""

    def __init__(self, model: nn.Module, flow: LabelFlow) -> None:
        self.model = model
        self.flow = flow
        self.channel_of = flow.labels.components()
        self.reasons = flow.labels.pinned(self.channel_of)
        produced = flow.labels.produced()
        self.filters = np.unique(self.channel_of[produced])
        prunable = np.array([c for c in self.filters if int(c) not in self.reasons], dtype=np.int64)
        pinned = np.array([c for c in self.filters if int(c) in self.reasons], dtype=np.int64)
        self.prunable = len(prunable)
        self.pinned_reasons = tuple(self.reasons[int(c)] for c in pinned)
        count = int(self.channel_of.max()) + 1 if len(self.channel_of) else 0
        group_of_channel = np.full(count + 1, FIXED, dtype=np.int64)
        group_of_channel[prunable] = np.arange(len(prunable))
        group_of_channel[pinned] = len(prunable) + np.arange(len(pinned))
        self.group_of_label = (
            group_of_channel[self.channel_of] if count else np.zeros(0, dtype=np.int64)
        )
        self.produced_sources = self._produced_sources(produced)
        self.vectors: list[IntArray] = []
        self._vector_numbers: dict[bytes, int] = {}
        self._of_planes: dict[int, dict[int, int | None]] = {}

    def _produced_sources(self, produced: IntArray) -> list[Source]:
        sources = self.flow.labels.sources
        starts = np.array([source.start for source in sources], dtype=np.int64)
        numbers = np.unique(np.searchsorted(starts, produced, side="right") - 1)
        return [sources[int(n)] for n in numbers]

    def graph(self, notes: tuple[str, ...]) -> ChannelGraph:
        sources = self.flow.labels.sources
        dimensions = []
        for source in sources:
            channels = self.group_of_label[source.start : source.start + source.size]
            if bool((channels != FIXED).any()):
                dimensions.append(Dimension(source.tensor, source.dim, channels))
        family_of, families = self._families(dimensions)
        ops = tuple(op for ran in self.flow.record.ops for op in self._ops(ran))
        attributes = self._attributes()
        values = self._values(dimensions)
        return ChannelGraph(
            prunable=self.prunable,
            dimensions=tuple(dimensions),
            families=families,
            family_of=family_of,
            producers=tuple((s.tensor, s.dim) for s in self.produced_sources),
            pinned_reasons=self.pinned_reasons,
            attributes=attributes,
            values=values,
            ops=ops,
            outputs=self.flow.record.outputs,
            vectors=tuple(self.vectors),
            untouched=self._untouched(),
            uncounted=tuple(self.flow.notes.uncounted),
            notes=(*self.flow.notes.decisions, *notes),
            parameters=parameter_shapes(self.model),
        )

    def _groups(self, labels: Tensor) -> IntArray:
        numbers = labels.numpy()
        groups = np.full(len(numbers), FIXED, dtype=np.int64)
        known = numbers != FIXED
        groups[known] = self.group_of_label[numbers[known]]
        return groups

    def _vector(self, groups: IntArray) -> int:
        key = groups.tobytes()
        if key not in self._vector_numbers:
            self._vector_numbers[key] = len(self.vectors)
            self.vectors.append(groups)
        return self._vector_numbers[key]

    def _ops(self, ran: Ran) -> Iterator[Op]:
        """The operator, once for each product of sizes that its multiply-adds are a sum of."""
        for counted in ran.counted or (Counted(0, ()),):
            coefficient, factors = counted.coefficient, []
            for labels in counted.vectors:
                groups = self._groups(labels)
                if bool((groups == FIXED).all()):
                    coefficient *= len(groups)
                else:
                    factors.append(self._vector(groups))
            yield Op(
                ran.kind,
                ran.module,
                coefficient,
                tuple(factors),
                ran.reads,
                ran.writes,
                ran.settings,
            )

    def _values(self, dimensions: list[Dimension]) -> tuple[Value, ...]:
        channels = {dimension.key: dimension.channels for dimension in dimensions}
        parameters = {name for name, _ in self.model.named_parameters()}
        saved = self.model.state_dict().keys()
        values = []
        for made in self.flow.record.values:
            if made.name:
                dims = {d: channels.get((made.name, d)) for d in range(made.tensor.dim())}
                held = {d: self._free(groups) for d, groups in dims.items() if groups is not None}
            else:
                held = {d: v for plane in made.planes for d, v in self._of_plane(plane).items()}
            values.append(
                Value(
                    kind=made.kind,
                    axes=tuple(Axis(n, held.get(d)) for d, n in enumerate(made.tensor.shape)),
                    itemsize=made.tensor.element_size(),
                    storage=made.storage,
                    name=made.name,
                    parameter=made.name in parameters,
                    saved=made.name in saved,
                )
            )
        return tuple(values)

    def _of_plane(self, plane: Tensor) -> dict[int, int | None]:
        """The channel vector of every dimension along which a plane varies.

        Where it varies along several, the channels of the first row count; those of all others
        are of the same number, or the tensor could not be what it is.
        """
        if id(plane) not in self._of_planes:
            over = varying(plane)
            self._of_planes[id(plane)] = {
                d: self._free(self._groups(_row(plane, d, over).reshape(-1))) for d in over
            }
        return self._of_planes[id(plane)]

    def _free(self, groups: IntArray) -> int | None:
        """The position of a channel vector, or none where none of its channels can go."""
        free = (groups >= 0) & (groups < self.prunable)
        return self._vector(groups) if bool(free.any()) else None

    def _attributes(self) -> tuple[Attribute, ...]:
        """Each once: what the run that counts says of it comes first."""
        found: dict[tuple[str, str, int | None], Attribute] = {}
        for sized in self.flow.notes.sized:
            groups = self._groups(sized.vector)
            key = (sized.module, sized.name, sized.index)
            if key not in found and bool((groups != FIXED).any()):
                found[key] = Attribute(*key, self._vector(groups))
        return tuple(found.values())

    def _families(self, dimensions: list[Dimension]) -> tuple[IntArray, tuple[Family, ...]]:
        touched: list[list[int]] = [[] for _ in range(self.prunable)]
        for number, dimension in enumerate(dimensions):
            for group in np.unique(dimension.channels).tolist():
                if 0 <= group < self.prunable:
                    touched[group].append(number)
        members: dict[tuple[int, ...], list[int]] = {}
        for group, numbers in enumerate(touched):
            members.setdefault(tuple(numbers), []).append(group)
        produced = {(s.tensor, s.dim) for s in self.produced_sources}
        family_of = np.full(self.prunable, FIXED, dtype=np.int64)
        families: list[Family] = []
        names: dict[str, int] = {}
        for number, (signature, groups) in enumerate(members.items()):
            keys = tuple(dimensions[n].key for n in signature)
            first = next((tensor for tensor, dim in keys if (tensor, dim) in produced), "channels")
            name = first.rpartition(".")[0] or first
            names[name] = names.get(name, 0) + 1
            unique = name if names[name] == 1 else f"{name}#{names[name]}"
            families.append(Family(number, unique, tuple(groups), keys))
            family_of[groups] = number
        return family_of, tuple(families)

    def _untouched(self) -> tuple[Untouched, ...]:
        found = []
        for source in self.produced_sources:
            groups = self.group_of_label[source.start : source.start + source.size]
            reasons: dict[str, int] = {}
            for group in groups[groups >= self.prunable].tolist():
                reason = self.pinned_reasons[group - self.prunable]
                reasons[reason] = reasons.get(reason, 0) + 1
            found += [
                Untouched(source.tensor, source.dim, count, source.size, reason)
                for reason, count in reasons.items()
            ]
        for name in unreached(self.flow, self.model):
            for tensor, parameter in self.model.get_submodule(name).named_parameters(recurse=False):
                if parameter.dim() > 1:
                    size = parameter.shape[0]
                    found.append(
                        Untouched(f"{name}.{tensor}", 0, size, size, "not reached by the forward")
                    )
        return tuple(found)


def _row(plane: Tensor, dim: int, over: Iterable[int]) -> Tensor:
    for other in over:
        if other != dim:
            plane = plane.narrow(other, 0, 1)
    return plane
