"""Choice by name: which modules' filters are left out of the pruning, and why they stay."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterator, Sequence, Set
from fnmatch import fnmatchcase

import numpy as np
import torch
from torch import nn

from lcprune._checks import refused
from lcprune.errors import InputError
from lcprune.tracing._flow import LabelFlow
from lcprune.tracing._labels import Source


def leave_out(
    flow: LabelFlow,
    model: nn.Module,
    *,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    skip_types: Sequence[str] = (),
) -> None:
    """Pin the channels that a choice by name leaves out; ``flow`` has run ``model``.

    See ``trace`` for what ``only``, ``skip`` and ``skip_types`` mean. ``InputError`` for what
    isn't a sequence of patterns and for a pattern or type that matches nothing.
    """
    for key, value in (("only", only), ("skip", skip), ("skip_types", skip_types)):
        listed = isinstance(value, Sequence | Set) and not isinstance(value, str)
        if not listed or not all(isinstance(item, str) for item in value):
            raise refused(key, value, "a sequence of str, such as ('layer1*',)")
    if not (only or skip or skip_types):
        return
    modules = _Modules(flow, model)
    for pattern in skip:
        modules.skip(outermost_named(model, pattern, "skip"), f"left out by skip {pattern!r}")
    for kind in skip_types:
        modules.skip(modules.of_type(kind), f"left out by skip_types {kind!r}")
    if only:
        modules.keep_all_but(only)


def outermost_named(model: nn.Module, pattern: str, key: str) -> dict[str, None]:
    """The names that match ``pattern`` of modules that are within no other such module, in order.

    ``InputError``, with close names, where there is none; ``key`` says what the pattern is.
    """
    found = _outermost(model, lambda name, _: bool(pattern) and fnmatchcase(name, pattern))
    if not found:
        close = _close(pattern, [name for name, _ in model.named_modules() if name])
        raise InputError(f"{key} {pattern!r} matches no module of the model: {close}")
    return found


def is_within(name: str, roots: Collection[str]) -> bool:
    """Whether a module is one of ``roots`` or inside one; the empty name is the whole model."""
    return name in roots or any(outer in roots for outer in _ancestors(name))


class _Modules:
    """The modules of a model by name, and the labels of the tensors that they hold."""

    def __init__(self, flow: LabelFlow, model: nn.Module) -> None:
        self._labels = flow.labels
        self._model = model
        # A module or tensor that has several names is chosen by any of them.
        tensors: dict[str, torch.Tensor] = dict(model.named_parameters(remove_duplicate=False))
        tensors |= dict(model.named_buffers(remove_duplicate=False))
        names: dict[tuple[int, tuple[int, ...]], list[str]] = {}
        for name, tensor in tensors.items():
            names.setdefault(_place(tensor), []).append(name.rpartition(".")[0])
        produced = flow.labels.produced()
        self._held: list[tuple[Source, list[str], torch.Tensor, bool]] = []
        for source in flow.labels.sources:
            held = tensors.get(source.tensor)  # none where the forward took it off the model
            owners = [source.tensor.rpartition(".")[0]] if held is None else names[_place(held)]
            is_vector = held is not None and held.dim() == 1
            low, high = np.searchsorted(produced, [source.start, source.start + source.size])
            filters = torch.from_numpy(produced[low:high])
            self._held.append((source, owners, filters, is_vector))

    def of_type(self, kind: str) -> dict[str, None]:
        """The outermost modules that have ``kind`` among the names of their classes."""
        found = _outermost(self._model, lambda _, module: kind in set(_class_names(module)))
        if not found:
            known = dict.fromkeys(n for m in self._model.modules() for n in _class_names(m))
            close = _close(kind, [n for n in known if ("." in n) == ("." in kind)])
            raise InputError(f"skip_types {kind!r} matches no module of the model: {close}")
        return found

    def skip(self, roots: Collection[str], why: str) -> None:
        """Pin the filters within each root, or its vectors' channels where it has no filters."""
        pinned = False
        for root in roots:
            held = list(self._within({root}))
            making = any(len(filters) for _, _, filters, _ in held)
            for source, owner, filters, is_vector in held:
                if making:
                    self._labels.pin(filters, f"{why} ({owner or 'the model'})")
                elif is_vector:
                    own = torch.arange(source.start, source.start + source.size)
                    self._labels.pin(own, f"{why} ({owner or 'the model'})")
            pinned |= bool(held)
        if not pinned:
            named = ", ".join(list(roots)[:3])
            raise InputError(
                f"{why.removeprefix('left out by ')} matches only modules without channels of"
                f" their own ({named}): expected one with weights"
            )

    def keep_all_but(self, patterns: Sequence[str]) -> None:
        """Pin every filter outside the modules that match one of ``patterns``."""
        chosen: set[int] = set()
        for pattern in patterns:
            held = self._within(outermost_named(self._model, pattern, "only"))
            made = {source.start for source, _, filters, _ in held if len(filters)}
            if not made:
                raise InputError(
                    f"only {pattern!r} matches no module with filters that the forward makes:"
                    " expected one with a convolution or a linear layer"
                )
            chosen |= made
        why = f"left out by only {', '.join(map(repr, patterns))}"
        for source, owners, filters, _ in self._held:
            if source.start not in chosen:
                self._labels.pin(filters, f"{why} ({owners[0] or 'the model'})")

    def _within(self, roots: Collection[str]) -> Iterator[tuple[Source, str, torch.Tensor, bool]]:
        for source, owners, filters, is_vector in self._held:
            for owner in owners:
                if is_within(owner, roots):
                    yield source, owner, filters, is_vector
                    break


def _outermost(model: nn.Module, matches: Callable[[str, nn.Module], bool]) -> dict[str, None]:
    found: dict[str, None] = {}
    # A module comes before those inside it.
    for name, module in model.named_modules(remove_duplicate=False):
        if not is_within(name, found) and matches(name, module):
            found[name] = None
    return found


def _place(tensor: torch.Tensor) -> tuple[int, tuple[int, ...]]:
    return tensor.data_ptr(), tuple(tensor.shape)


def _ancestors(name: str) -> Iterator[str]:
    while name:
        name = name.rpartition(".")[0]
        yield name


def _class_names(module: nn.Module) -> Iterator[str]:
    for kind in type(module).__mro__:
        if kind is nn.Module:
            return
        yield kind.__name__
        yield f"{kind.__module__}.{kind.__qualname__}"


def _close(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3) or difflib.get_close_matches(
        name.strip("*."), known, n=3, cutoff=0.3
    )
    if near:
        return f"did you mean {', '.join(near)}?"
    return f"expected such as {', '.join(known[:3]) or '*'}"
