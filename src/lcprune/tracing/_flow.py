"""Labels flow with the data: the mode under which a model runs once to be traced."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lcprune.errors import ModelError
from lcprune.graph import FIXED
from lcprune.tracing._call import Asked, Call, Required, Rule, Sized
from lcprune.tracing._channel_pad import ChannelPad
from lcprune.tracing._deciding import DataWatch, note_of, operands
from lcprune.tracing._extremes import Extremes
from lcprune.tracing._labels import LabelSpace
from lcprune.tracing._planes import Planes, along, compact, varying
from lcprune.tracing._record import Counted, Geometry, Record, geometry
from lcprune.tracing._sizes import (
    Expression,
    Kept,
    leaves,
)

SELF_SIZED = (nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase)
"""Modules of PyTorch that check every size against attributes of theirs."""


class LabelFlow(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs a model with a plane of labels beside every tensor.

    With ``keep`` (a boolean per label) the run is the reference of the oracle: every element
    whose label is not kept is multiplied by 0 at the input of every contraction, and statistics
    across channels are those of the kept ones; producers stay untouched.

    In the modules of ``whole_heads`` a view that cuts channels into blocks leaves the blocks to
    choose from, and not the places in them; ``scaled_by_width`` are modules that need it.
    """

    def __init__(
        self, model: nn.Module, apply: Rule, whole_heads: frozenset[str] = frozenset()
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.whole_heads = whole_heads
        self.scaled_by_width: set[str] = set()
        self._apply = apply
        self.labels = LabelSpace()
        self.record = Record()
        self._counted: list[Counted] = []
        self.sized: list[Sized] = []
        self.uncounted: dict[str, None] = {}
        self.notes: dict[str, None] = {}
        self.data = DataWatch([*model.parameters(), *model.buffers()])
        self.entered: set[str] = set()
        self.extremes = Extremes()
        self.read: set[int] = set()
        self.counting = True
        self.asked = Asked()
        self.required: list[Required] = []
        self.constants: set[tuple[str, str, int | None]] = set()
        self._keep: Tensor | None = None
        self._planes: dict[Geometry, Planes] = {}
        self._by_storage: dict[int, dict[Geometry, Tensor]] = {}
        self._alive: list[Tensor] = []
        self._stack: list[tuple[str, nn.Module]] = []
        self.pads: dict[str, tuple[Tensor, Tensor]] = {}
        self._register_state(model)

    def _register_state(self, model: nn.Module) -> None:
        for name, tensor in [
            *model.named_parameters(remove_duplicate=False),
            *model.named_buffers(remove_duplicate=False),
        ]:
            if tensor.is_meta:
                raise ModelError(f"{name} is on the meta device; expected real tensors")
            if geometry(tensor) in self._planes:
                continue
            planes = []
            for dim, size in enumerate(tensor.shape):
                if size > 1:
                    shape = [1] * tensor.dim()
                    shape[dim] = size
                    planes.append(self.labels.of_dimension(name, dim, size).reshape(shape))
            self.set(tensor, tuple(planes))
        for name, module in model.named_modules():
            if isinstance(module, ChannelPad):
                self.pads[name] = (
                    self.labels.fresh(module.before),
                    self.labels.fresh(module.after),
                )

    # -- the planes of tensors -------------------------------------------------------------

    def planes(self, tensor: Tensor) -> Planes:
        """The planes of a tensor; none for one that no label has reached."""
        if tensor.dim() == 0 or tensor.layout != torch.strided:
            return ()
        return self._planes.get(geometry(tensor), ())

    def set(self, tensor: Tensor, planes: Planes) -> None:
        """Give a tensor its planes; it is held from then on, so that its address stays its own."""
        if tensor.dim() == 0 or tensor.layout != torch.strided:
            return
        key = geometry(tensor)
        self._planes[key] = planes
        self._by_storage.setdefault(key[0], {})[key] = tensor
        self._alive.append(tensor)

    def write(self, tensor: Tensor, planes: Planes) -> None:
        """Give a tensor that was written in place its planes, and every view of it theirs."""
        key = geometry(tensor)
        views = self._by_storage.get(key[0], {})
        before = self._planes.get(key, ())
        if len(views) <= 1 or (
            len(before) == len(planes)
            and all(torch.equal(a, b) for a, b in zip(before, planes, strict=True))
        ):
            self.set(tensor, planes)
            return
        involved = [*planes, *(p for g in views for p in self._planes.get(g, ()))]
        if len(planes) > 1 or any(len(self._planes.get(g, ())) > 1 for g in views):
            for plane in involved:
                self.labels.pin(plane, f"written through a view in {self.module_name}")
            return
        self.set(tensor, planes)
        flat = self._flat_labels(tensor)
        self._strided(flat, tensor).copy_(self._full(planes, tensor))
        for view in list(views.values()):
            self.set(view, self.compacted([self._strided(flat, view)]))

    def restride(self, source: Tensor, result: Tensor) -> Planes:
        """The planes of a tensor with other strides over the same storage as ``source``."""
        if len(self.planes(source)) > 1:
            return ()
        return self.compacted([self._strided(self._flat_labels(source), result)])

    def compacted(self, fulls: Iterable[Tensor]) -> Planes:
        """The planes of full tensors of labels.

        A label that is the only one of its tensor must stay, or nothing would be left of it.
        """
        planes = []
        for full in fulls:
            plane = compact(full)
            if plane is not None:
                planes.append(plane)
            elif full.numel():
                self.labels.pin(full.reshape(-1)[:1], f"the only channel in {self.place}")
        return tuple(planes)

    def _flat_labels(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        flat = torch.full(
            (storage.nbytes() // tensor.element_size(),), FIXED, dtype=torch.int64, device="cpu"
        )
        for key, view in self._by_storage.get(storage.data_ptr(), {}).items():
            if self._planes[key] and view.element_size() == tensor.element_size():
                self._strided(flat, view).copy_(self._full(self._planes[key], view))
        return flat

    @staticmethod
    def _strided(flat: Tensor, like: Tensor) -> Tensor:
        return flat.as_strided(like.shape, like.stride(), like.storage_offset())

    @staticmethod
    def _full(planes: Planes, like: Tensor) -> Tensor:
        return (
            planes[0].expand(like.shape) if planes else torch.full(like.shape, FIXED, device="cpu")
        )

    # -- the modules that run --------------------------------------------------------------

    @property
    def module_name(self) -> str:
        return self._stack[-1][0] if self._stack else ""

    @property
    def place(self) -> str:
        """The running module as a reason names it."""
        return self.module_name or "the model"

    @property
    def module(self) -> nn.Module | None:
        return self._stack[-1][1] if self._stack else None

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Keep track of the module that runs, by hooks that are gone afterwards."""
        handles = []
        for name, module in model.named_modules():

            def enter(module: nn.Module, inputs: Any, name: str = name) -> None:
                self.entered.add(name)
                self._stack.append((name, module))
                if isinstance(module, SELF_SIZED):
                    self._keep_whole(inputs, name)

            def leave(module: nn.Module, _: Any, outputs: Any, name: str = name) -> None:
                if isinstance(module, SELF_SIZED):
                    self._keep_whole([outputs, list(module.parameters())], name)
                self._stack.pop()

            handles.append(module.register_forward_pre_hook(enter))
            handles.append(module.register_forward_hook(leave, always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _keep_whole(self, tensors: Any, name: str) -> None:
        for tensor in tree_leaves(tensors):
            for plane in self.planes(tensor) if isinstance(tensor, Tensor) else ():
                self.labels.pin(plane, f"{name} compares sizes with numbers of its own")

    # -- what the rules note ---------------------------------------------------------------

    def count(self, coefficient: int, *vectors: Tensor) -> None:
        """Note multiply-adds of the operator that runs: ``coefficient`` times the kept labels."""
        self._counted.append(Counted(coefficient, vectors))

    def note_decision(self) -> None:
        """Note that the running module decides by data."""
        if self.counting:
            self.notes[note_of(self.module_name)] = None

    def leave(self, tensor: Tensor) -> None:
        """Note that values of a tensor leave PyTorch, where nothing can follow its channels."""
        for plane in self.planes(tensor):
            self.labels.pin(plane, f"values leave PyTorch in {self.place}")
        if not self.data.is_constant(tensor):
            self.note_decision()

    def size_attribute(self, name: str, vector: Tensor, index: int | None = None) -> bool:
        """Note that an attribute of the running module counts ``vector``, if it has one."""
        if not hasattr(self.module, name):
            return False
        self.sized.append(Sized(self.module_name, name, index, vector))
        return True

    def require(self, labels: Tensor, provided: Expression, where: str) -> None:
        """Note that code gives the size ``provided`` to something that ``labels`` must fill.

        An integer attribute of a module that is such a size follows the labels.
        """
        if isinstance(provided, Kept) and torch.equal(provided.labels, labels):
            return
        if isinstance(provided, int) and bool((labels == FIXED).all()):
            return
        self.required.append(Required(provided, labels, where))

    def use_value(self, number: float) -> None:
        """Note that a number takes part in the values: what it counts must not change."""
        for leaf in leaves(self.asked.expression(number)) if number in self.asked.sized else ():
            if isinstance(leaf, Kept):
                reason = f"a value that is computed from their number in {self.place}"
                self.labels.pin(leaf.labels, reason)
            else:
                self.constants.add((leaf.module, leaf.name, leaf.index))

    def tie(self, plane: Tensor, keep: int, reason: str) -> Tensor:
        """Make labels at the same place of ``keep`` one channel over all other dimensions."""
        for dim in varying(plane) - {keep}:
            first = plane.narrow(dim, 0, 1)
            self.labels.join(plane, first, reason)
            plane = first
        return plane

    # -- the reference of the oracle -------------------------------------------------------

    def keep_only(self, keep: Tensor) -> None:
        """Run as the reference from now on; ``keep`` holds a boolean per label."""
        self._keep = torch.cat([keep, torch.ones(1, dtype=torch.bool, device="cpu")])

    def kept(self, labels: Tensor) -> Tensor | None:
        """Which of ``labels`` are kept, or none where all are."""
        if self._keep is None:
            return None
        # Labels of what the run creates come after those of the state, and are kept.
        kept = self._keep[labels.clamp(max=self._keep.numel() - 1)]
        return None if bool(kept.all()) else kept

    def masked(self, tensor: Tensor, dim: int) -> Tensor:
        """``tensor`` as a contraction over ``dim`` reads it."""
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

    # -- the record ------------------------------------------------------------------------

    @property
    def recording(self) -> bool:
        """Whether operators are noted: in the run that counts, which masks nothing."""
        return self.counting and self._keep is None

    def begin(self, model: nn.Module, inputs: Iterable[Tensor]) -> None:
        """Note what is there before the first operator runs."""
        for tensor in inputs:
            self.record.add("input", tensor)
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            self.record.add("state", tensor, self.planes(tensor), name)

    # -- dispatch --------------------------------------------------------------------------

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        call = Call(self, func, args, dict(kwargs or {}))
        self.read.update(t.untyped_storage().data_ptr() for t in call.tensors()
                         if t.layout == torch.strided)  # fmt: skip
        recording = self.recording
        reads = self.record.numbers(call.tensors()) if recording else ()
        before, outer, self._counted = len(self.record.ops), self._counted, []
        try:
            out = self._apply(call)
            counted = self._counted
        finally:
            self._counted = outer
        # What a rule took apart is there already, as the operators that ran.
        if recording and (counted or len(self.record.ops) == before):
            written = [(tensor, self.planes(tensor)) for tensor in operands((out,))]
            self.record.ran(func, self.module_name, reads, written, (args, call.kwargs), counted)
        self.extremes.follow(func, call.tensors(), operands((out,)))
        if self.data.follow(func, call.tensors(), out):
            self.note_decision()
        return out
