"""Labels flow with the data: the mode under which a model runs, and the call that rules get."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lcprune.errors import ModelError
from lcprune.tracing._decisions import Decisions, Source
from lcprune.tracing._labels import LabelSpace
from lcprune.tracing._notes import Asked, Counted, Notes
from lcprune.tracing._passes import Passes
from lcprune.tracing._planes import Planes, PlaneStore, align, along, varying
from lcprune.tracing._record import Record
from lcprune.tracing._run import free_among
from lcprune.tracing._running import Running
from lcprune.tracing._sizes import Expression
from lcprune.tracing._storages import BRANCHES, DataWatch, Extremes, operands, state_of
from lcprune.tracing._tree import named_tensors

SELF_SIZED = (nn.MultiheadAttention,)
"""Modules of PyTorch that check every size against attributes of theirs."""


@dataclass(frozen=True, eq=False)
class Returned:
    """A tensor that a model returns: the name of its place in the output, and its planes."""

    name: str
    tensor: Tensor
    planes: Planes


@dataclass(frozen=True)
class Mark:
    """How much a flow had noted at one time."""

    labels: tuple[int, int, int, int]
    sized: int
    required: int
    entered: frozenset[str]
    read: frozenset[int]
    differs: bool


class Mask:
    """Which labels the reference of the oracle keeps; all of them until ``keep_only``."""

    def __init__(self) -> None:
        self.keep: Tensor | None = None

    def keep_only(self, keep: Tensor) -> None:
        """Mask from now on; ``keep`` holds a boolean per label."""
        self.keep = torch.cat([keep, torch.ones(1, dtype=torch.bool, device="cpu")])

    def kept(self, labels: Tensor) -> Tensor | None:
        """Which of ``labels`` are kept, or none where all are."""
        if self.keep is None:
            return None
        # Labels of what the run creates come after those of the state, and are kept.
        kept = self.keep[labels.clamp(max=self.keep.numel() - 1)]
        return None if bool(kept.all()) else kept


class LabelFlow(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs a model with a plane of labels beside every tensor; ``apply`` knows the rules.

    With a ``mask`` the run is the reference of the oracle: every element whose label is not kept
    is multiplied by 0 at the input of every contraction, and statistics across channels are those
    of the kept ones; producers stay untouched.

    ``decisions`` are what modules decide by values. ``differs`` is whether other data may lead to
    other shapes, or to decisions outside of PyTorch, ``drawn`` are the modules where a draw leads
    to other shapes, ``loose`` is whether values of a draw left PyTorch. What a module of ``held``
    has in its hands stays, for the reason that stands there: its inputs and outputs, the results of
    the operators that it runs itself, and the inputs and outputs of the modules that it calls.

    In the modules of ``whole_heads`` a view that cuts channels into blocks leaves the blocks to
    choose from, and not the places in them.
    """

    def __init__(
        self,
        model: nn.Module,
        apply: Callable[[Call], Any],
        whole_heads: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.whole_heads = whole_heads
        self._apply = apply
        self._aside = False
        self._reading = False
        self.labels = LabelSpace()
        self.running = Running()
        self.planes = PlaneStore(self.labels, self.running)
        self.notes = Notes(self.labels, self.running)
        self.record = Record()
        self.mask = Mask()
        self.data = DataWatch(state_of(model))
        self.extremes = Extremes()
        self.read: set[int] = set()
        self.pads: dict[str, Tensor] = {}
        self.passes = Passes()
        self.training = False
        self.decisions = Decisions[tuple[Mark, int]]()
        self.differs = False
        self.loose = False
        self.drawn: dict[str, None] = {}
        self.held: dict[str, str] = {}
        self._register_state(model)

    def _register_state(self, model: nn.Module) -> None:
        for name, tensor in [
            *model.named_parameters(remove_duplicate=False),
            *model.named_buffers(remove_duplicate=False),
        ]:
            if tensor.is_meta:
                raise ModelError(f"{name} is on the meta device; expected real tensors")
            if self.planes.knows(tensor):
                continue
            planes = []
            for dim, size in enumerate(tensor.shape):
                if size > 1:
                    shape = [1] * tensor.dim()
                    shape[dim] = size
                    planes.append(self.labels.of_dimension(name, dim, size).reshape(shape))
            self.planes.set(tensor, tuple(planes))

    @property
    def recording(self) -> bool:
        """Whether operators are noted: in the run that counts, which masks nothing."""
        return self.notes.counting and self.mask.keep is None

    def begin(self, model: nn.Module, inputs: Iterable[Tensor]) -> None:
        """Note what is there before the first operator runs."""
        self.training = model.training
        self.decisions.begin()
        self.passes.begin()
        if self.recording:
            for tensor in inputs:
                self.record.add("input", tensor)
            for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
                self.record.add("state", tensor, self.planes.of(tensor), name)

    def end(self, outputs: Sequence[Returned], free: Collection[str], mode: str = "") -> None:
        """Note what the model returns: its channels stay, but for the outputs that are ``free``.

        ``mode`` says in which mode the model ran, where it is not that of evaluation.
        """
        if self.recording:
            self.record.outputs = self.record.numbers(output.tensor for output in outputs)
        chosen = free_among([output.name for output in outputs], free)
        for output in outputs:
            called = f"output {output.name}" if output.name else "an output"
            reason = f"{called} of the model{mode}"
            if output.name in chosen:
                for plane in output.planes:
                    if len(varying(plane)) > 1:
                        self.labels.pin(plane, f"channels over several dimensions in {reason}")
                continue
            for plane in (*output.planes, *self.extremes.under(output.tensor)):
                self.labels.pin(plane, reason)

    def let_go(self, mark: int) -> None:
        """Forget what a run has made after ``mark`` of the planes, and nobody holds.

        Its addresses may be those of other tensors from then on.
        """
        self.planes.let_go(mark)
        self.extremes.let_go(self.data.let_go())

    def left(self, tensor: Tensor) -> Tensor:
        """A tensor of a masked run without the channels that are not kept.

        It is what a slimmed model returns for an output that may shrink.
        """
        for plane in self.planes.of(tensor):
            kept = self.mask.kept(plane)
            if kept is not None and len(varying(plane)) == 1:
                (dim,) = varying(plane)
                index = kept.reshape(-1).nonzero().reshape(-1).to(tensor.device)
                tensor = tensor.index_select(dim, index)
        return tensor

    @contextmanager
    def aside(self) -> Iterator[None]:
        """A context for computing with labels: its operations are not the model's."""
        before, self._aside = self._aside, True
        try:
            yield
        finally:
            self._aside = before

    @contextmanager
    def reading(self) -> Iterator[None]:
        """A context in which a number that is read decides nothing yet."""
        before, self._reading = self._reading, True
        try:
            yield
        finally:
            self._reading = before

    def watching(self, model: nn.Module) -> AbstractContextManager[None]:
        """A context in which the running module is known."""
        return self.running.watching(model, self._around)

    def _around(self, module: nn.Module, name: str, values: Any) -> None:
        """What is known of a module's inputs as it is entered, of its outputs as it is left."""
        with self.aside():
            self.passes.follow(module, name, values, self.planes)
        if isinstance(module, SELF_SIZED):
            reason = f"{name} compares sizes with numbers of its own"
            self._pin_all([values, list(module.parameters())], reason)
        caller = self.running.caller
        for holder in {name, caller} if self.held else ():
            if holder in self.held:
                self._pin_all(values, self.held[holder])
        if caller is not None and _has_number(values):
            self.decisions.hand_on(name, caller)

    def _pin_all(self, values: Any, reason: str) -> None:
        with self.aside():
            for _, tensor in named_tensors(values):
                for plane in self.planes.of(tensor):
                    self.labels.pin(plane, reason)

    def decide(self, found: Any, source: Source) -> Any:
        """The outcome of a decision of the running module, by what was ``found``."""

        def mark() -> tuple[Mark, int]:
            return self.mark(), self.running.entries

        return self.decisions.outcome(found, self.running.name, source, mark)

    def mark(self) -> Mark:
        """How much has been noted, for ``reset``."""
        notes = self.notes
        entered, read = frozenset(self.running.entered), frozenset(self.read)
        labels, sized, required = self.labels.mark(), len(notes.sized), len(notes.required)
        return Mark(labels, sized, required, entered, read, self.differs)

    def reset(self, mark: Mark) -> None:
        """Forget what was noted after ``mark``."""
        self.labels.reset(mark.labels)
        del self.notes.sized[mark.sized :], self.notes.required[mark.required :]
        self.running.entered.intersection_update(mark.entered)
        self.read.intersection_update(mark.read)
        self.differs = mark.differs

    def leave(self, tensor: Tensor) -> None:
        """Note that values of a tensor leave PyTorch, where nothing can follow its channels."""
        for plane in self.planes.of(tensor):
            self.labels.pin(plane, f"values leave PyTorch in {self.running.title}")
        if not self.data.is_constant(tensor):
            self.notes.decision()
            self.differs |= not self.training  # where numbers leave for a log
        self.loose |= self.data.is_drawn(tensor)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if self._aside:
            return func(*args, **(kwargs or {}))
        self.decisions.step()
        call = Call(self, func, args, dict(kwargs or {}))
        self.read.update(t.untyped_storage().data_ptr() for t in call.tensors()
                         if t.layout == torch.strided)  # fmt: skip
        recording = self.recording
        reads = self.record.numbers(call.tensors()) if recording else ()
        before, outer, counted = len(self.record.ops), self.notes.counted, list[Counted]()
        self.notes.counted = counted
        mark = (self.labels.mark(), len(self.notes.sized), len(self.notes.required))
        try:
            out = self._apply(call)
        except Exception:  # what an operator does that can't run says nothing of the channels
            self.labels.reset(mark[0])
            del self.notes.sized[mark[1] :], self.notes.required[mark[2] :]
            with self.aside():
                func(*args, **(kwargs or {}))  # which says it in PyTorch's own words
            raise
        finally:
            self.notes.counted = outer
        # What a rule took apart is there already, as the operators that ran.
        if recording and (counted or len(self.record.ops) == before):
            written = [(tensor, self.planes.of(tensor)) for tensor in operands((out,))]
            given = (args, call.kwargs)
            self.record.ran(func, self.running.name, reads, written, given, counted)
        self.extremes.follow(func, call.tensors(), operands((out,)))
        if self.running.name in self.held:
            self._pin_all([*operands((out,))], self.held[self.running.name])
        source = self.data.follow(func, call.tensors(), out)
        return self._decided(func, source, out) if source else out

    def _decided(self, func: Any, source: Source, out: Any) -> Any:
        """What comes out of an operator that makes numbers or shapes of values."""
        if source != "draw":
            self.notes.decision()
        if self._reading:
            return out
        if func.overloadpacket in BRANCHES:
            return self.decide(out, source)
        if source == "draw":
            self.drawn[self.running.name] = None
        else:
            self.differs = True
        return out


def _has_number(values: Any) -> bool:
    """Whether there is a number among a module's outputs."""
    return any(isinstance(leaf, int | float) for leaf in tree_leaves(values))


class Call:
    """One operator on its way: what it is, what it gets, and what a rule can say of it.

    A rule runs the operator with ``run()``, gives the result its planes with ``set``, and returns
    the result. A *plane* holds the label (the channel) of every element of a tensor: it has the
    tensor's dimensions, size 1 along each over which the label does not change, and ``FIXED``
    where there is no channel.
    """

    def __init__(
        self, flow: LabelFlow, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.flow = flow
        self.func = func
        self.args = args
        self.kwargs = kwargs
        self._tensors: list[Tensor] | None = None

    # -- the operator ----------------------------------------------------------------------

    @property
    def name(self) -> str:
        return str(self.func.overloadpacket)

    @property
    def module(self) -> nn.Module | None:
        """The module that runs."""
        return self.flow.running.module

    @property
    def where(self) -> str:
        """The operator and the module that runs it, for a reason."""
        return f"{self.name} in {self.flow.running.title}"

    def tensors(self) -> list[Tensor]:
        """The operands: an operator takes tensors and lists of them, nothing deeper."""
        if self._tensors is None:
            self._tensors = list(operands((*self.args, *self.kwargs.values())))
        return self._tensors

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """An argument of the operator's schema, given by position or by name."""
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(name, default)

    def run(self, *args: Any) -> Any:
        """Run the operator, on ``args`` in place of its own positional arguments if given."""
        return self.func(*(args or self.args), **self.kwargs)

    # -- channels --------------------------------------------------------------------------

    def planes(self, tensor: Tensor) -> Planes:
        """The planes of a tensor; none for one that no label has reached."""
        return self.flow.planes.of(tensor)

    def set(self, tensor: Tensor, planes: Planes) -> None:
        """Give a tensor its planes."""
        self.flow.planes.set(tensor, planes)

    def pin(self, labels: Tensor, reason: str) -> None:
        """Keep the channels of ``labels``, for ``reason``."""
        self.flow.labels.pin(labels, reason)

    def produce(self, labels: Tensor) -> None:
        """Note that this operator makes the channels of ``labels``: they are filters."""
        self.flow.labels.produce(labels)

    def join(self, a: Tensor, b: Tensor, reason: str = "") -> None:
        """Make the channels of two planes (broadcast) one each; what meets ``FIXED`` stays."""
        self.flow.labels.join(a, b, reason or f"a fixed size at {self.where}")

    def merge(
        self,
        operands: Sequence[tuple[tuple[int, ...], Planes]],
        shape: tuple[int, ...],
        reason: str = "",
    ) -> Planes:
        """Join planes that vary over common dimensions; the planes of the result.

        ``operands`` are shapes with planes, which broadcast to ``shape``. An operand of size 1
        along a dimension gates there and is not coupled. One of full size without labels has a
        size that nothing can change, so what meets it stays.
        """
        reason = reason or f"a fixed size at {self.where}"
        dims = len(shape)
        aligned: list[tuple[tuple[int, ...], Planes]] = [
            ((1,) * (dims - len(size)) + tuple(size), tuple(align(p, dims) for p in planes))
            for size, planes in operands
        ]
        merged: list[Tensor] = []
        for _, planes in aligned:
            for new in planes:
                plane = new
                apart = []
                for other in merged:
                    if varying(other) & varying(plane):
                        self.join(other, plane, reason)
                        # Real labels come before those of padding, so the real one stays.
                        plane = torch.minimum(other, plane)
                    else:
                        apart.append(other)
                merged = [*apart, plane]
        for plane in merged:
            for size, planes in aligned:
                unlabelled = varying(plane) - frozenset().union(*(varying(p) for p in planes))
                if any(size[d] > 1 for d in unlabelled):
                    self.pin(plane, reason)
        return tuple(merged)

    def over_channels(self, weight: Tensor, dim: int, dims: int) -> tuple[tuple[int, ...], Planes]:
        """A 1-D ``weight`` as the operand that it is for a tensor of ``dims`` dimensions."""
        shape = [1] * dims
        shape[dim] = weight.numel()
        return tuple(shape), tuple(plane.reshape(shape) for plane in self.planes(weight))

    def tie(self, plane: Tensor, keep: int, reason: str) -> Tensor:
        """Make labels at the same place of ``keep`` one channel over all other dimensions."""
        for dim in varying(plane) - {keep}:
            first = plane.narrow(dim, 0, 1)
            self.join(plane, first, reason)
            plane = first
        return plane

    def fresh(self, size: int) -> Tensor:
        """Labels that no tensor dimension stands behind."""
        return self.flow.labels.fresh(size)

    def compacted(self, fulls: Iterable[Tensor]) -> Planes:
        """The planes of full tensors of labels; the only label of a tensor must stay."""
        return self.flow.planes.compacted(fulls)

    def is_constant(self, tensor: Tensor) -> bool:
        """Whether the values of ``tensor`` do not depend on the model's input."""
        return self.flow.data.is_constant(tensor)

    # -- the reference of the oracle -------------------------------------------------------

    def kept(self, labels: Tensor) -> Tensor | None:
        """Which of ``labels`` are kept, or none where all are."""
        return self.flow.mask.kept(labels)

    def masked(self, tensor: Tensor, dim: int) -> Tensor:
        """``tensor`` as a contraction over ``dim`` reads it: 0 where a channel is removed."""
        plane = along(self.planes(tensor), dim)
        kept = None if plane is None else self.kept(plane)
        return tensor if kept is None else tensor * kept.to(tensor)

    def selected(self, tensor: Tensor, plane: Tensor, dim: int) -> tuple[Tensor, Tensor | None]:
        """``tensor`` without what is not kept of ``plane``, which varies along ``dim`` only.

        Second the indices that are left, or none where all are.
        """
        kept = self.kept(plane)
        if kept is None:
            return tensor, None
        index = kept.reshape(-1).nonzero().reshape(-1).to(tensor.device)
        return tensor.index_select(dim, index), index

    # -- notes -----------------------------------------------------------------------------

    @property
    def asked(self) -> Asked:
        """What the model's code asks for in the call that runs."""
        return self.flow.notes.asked

    def count(self, coefficient: int, *vectors: Tensor) -> None:
        """Note multiply-adds of this operator: ``coefficient`` times the kept of each vector."""
        self.flow.notes.counted.append(Counted(coefficient, vectors))

    def size_attribute(self, name: str, vector: Tensor, index: int | None = None) -> bool:
        """Note that an attribute of the running module counts ``vector``, if it has one."""
        return self.flow.notes.size_attribute(name, vector, index)

    def require(self, labels: Tensor, provided: Expression) -> None:
        """Note that code gives the size ``provided`` to what ``labels`` must fill."""
        self.flow.notes.require(labels, provided, self.where)
