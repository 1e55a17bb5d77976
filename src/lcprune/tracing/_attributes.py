"""Attributes that no forward reads: sizes that a module keeps for later, as for a fusion."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from lcprune.graph import FIXED, BoolArray, IntArray
from lcprune.tracing._choice import is_within
from lcprune.tracing._flow import LabelFlow
from lcprune.tracing._notes import Sized
from lcprune.tracing._passes import sizes_of
from lcprune.tracing._sizes import AttributeValue, leaves

READS = re.compile(
    r"^(in|inp|input|inputs|cin|ic|nin|c1)($|_|[A-Z]|(chs|channels|planes|dim)$)|_in$"
)
MAKES = re.compile(
    r"^(out|oup|output|outputs|cout|oc|nout|c2)($|_|[A-Z]|(chs|channels|planes|dim)$)|_out$"
)
BETWEEN = re.compile(r"hidden|mid|inner|expand|inter|bottleneck")
FEATURES = re.compile(r"^(num_features|head_hidden_size|feature_dim|feat_dim|features|n_features)$")
OTHER = frozenset(
    [
        "stride",
        "strides",
        "kernel",
        "padding",
        "pad",
        "dilation",
        "depth",
        "depths",
        "layers",
        "blocks",
        "classes",
        "cls",
        "scale",
        "scales",
        "patch",
        "patches",
        "window",
        "image",
        "img",
        "length",
        "len",
        "ratio",
        "reduction",
        "expansion",
        "steps",
        "step",
        "level",
        "levels",
        "stage",
        "stages",
        "seed",
        "heads",
        "head_dim",
        "iterations",
        "iters",
        "upscale",
        "downscale",
        "factor",
        "resolution",
        "height",
        "max",
        "min",
        "index",
        "epoch",
        "epochs",
        "anchors",
        "boxes",
        "repeats",
        "repeat",
        "num_layers",
        "version",
    ]
)
"""Words of names that count no channels."""


def follow_unread(flow: LabelFlow, model: nn.Module) -> tuple[str, ...]:
    """Let attributes that no forward reads count the channels that they equal; notes on the rest.

    An attribute follows where all vectors of channels of its size in its module (parameters,
    what goes in, what comes out) are the same, those of inputs for a name such as
    ``in_channels``, those of outputs for ``out_channels``.
    """
    return _Followed(flow, model).notes()


class _Followed:
    def __init__(self, flow: LabelFlow, model: nn.Module) -> None:
        self._flow = flow
        self._model = model
        self._channel_of = flow.labels.components()
        channels = int(self._channel_of.max()) + 1 if len(self._channel_of) else 0
        self._made = self._mask(channels, self._channel_of[flow.labels.produced()])
        pinned = self._mask(channels, flow.labels.pinned_channels(self._channel_of))
        self._free = self._made & ~pinned
        self._settled = {(s.module, s.name, s.index) for s in flow.notes.sized}
        self._settled |= flow.notes.constants
        self._settled |= {
            (leaf.module, leaf.name, leaf.index)
            for required in flow.notes.required
            for leaf in leaves(required.provided)
            if isinstance(leaf, AttributeValue)
        }
        self._rules = tuple(flow.notes.sized)

    @staticmethod
    def _mask(channels: int, true: IntArray) -> BoolArray:
        mask = np.zeros(channels + 1, dtype=np.bool_)
        mask[true] = True
        mask[-1] = False
        return mask

    def notes(self) -> tuple[str, ...]:
        open_: list[str] = []
        for name, module in self._model.named_modules():
            if type(module).__module__.startswith("torch.nn."):
                continue  # rules know what its attributes count
            for (attribute, index), size in sizes_of(module).items():
                if (name, attribute, index) in self._settled or self._is_other(attribute):
                    continue
                vectors = self._candidates(name, attribute, size)
                keys = {self._key(vector): vector for vector in vectors}
                free = [key for key in keys if key]
                if not free:
                    continue
                if len(keys) > 1 or (name, attribute) in self._flow.notes.read:
                    open_.append(f"{attribute} of {name or 'the model'}")
                    continue
                self._flow.notes.sized.append(Sized(name, attribute, index, keys[free[0]]))
        if not open_:
            return ()
        named = ", ".join([*dict.fromkeys(open_)][:6]) + (", …" if len(open_) > 6 else "")
        return (f"attributes left as they are, since several layers have that size: {named}",)

    @staticmethod
    def _is_other(name: str) -> bool:
        words = re.split(r"_|(?<=[a-z])(?=[A-Z])|\d+", name)
        return name in OTHER or any(word.lower() in OTHER for word in words if word)

    def _candidates(self, name: str, attribute: str, size: int) -> list[Tensor]:
        passes = self._flow.passes
        into = [v for v in passes.into.get(name, ()) if v.numel() == size]
        out_of = [v for v in passes.out_of.get(name, ()) if v.numel() == size]
        if into and READS.search(attribute):
            return into
        if out_of and MAKES.search(attribute):
            return out_of
        if FEATURES.search(attribute):
            read = [s.vector for s in self._within(name, size) if s.name == "in_features"]
            if read:
                return read[-1:]
        vectors = [*self._own(name, size), *into, *out_of]
        if BETWEEN.search(attribute):
            ends = {self._key(v) for v in (*into, *out_of)}
            vectors = [v for v in vectors if self._key(v) not in ends] or vectors
        return vectors

    def _own(self, name: str, size: int) -> Iterator[Tensor]:
        for source in self._flow.labels.sources:
            if source.size == size and _is_in(source.tensor.rpartition(".")[0], name):
                labels = torch.arange(source.start, source.start + size)
                if self._made[self._channel_of[labels.numpy()]].any():
                    yield labels
        yield from (sized.vector for sized in self._within(name, size))

    def _within(self, name: str, size: int) -> Iterator[Sized]:
        for sized in self._rules:
            if sized.vector.numel() == size and _is_in(sized.module, name):
                yield sized

    def _key(self, vector: Tensor) -> bytes:
        """What vectors share that count the same channels; empty where none can go."""
        labels = vector.numpy()
        channels = np.where(labels == FIXED, -1, self._channel_of[labels])
        channels = channels[self._free[channels]]
        return np.sort(channels).tobytes()


def _is_in(name: str, root: str) -> bool:
    return not root or is_within(name, (root,))
