"""Sizes that a model's code gives must be those that the channels leave."""

from __future__ import annotations

import operator
from functools import partial

import numpy as np
from torch import Tensor

from lcprune.graph import FIXED, IntArray
from lcprune.tracing._flow import LabelFlow
from lcprune.tracing._notes import Required, Sized
from lcprune.tracing._sizes import AttributeValue, Combined, Expression, Kept, evaluate, leaves

MASKS = 3
"""Random choices of channels under which every size must fit."""


def settle(flow: LabelFlow) -> None:
    """Make every required size follow the channels, or keep the channels that it stands for.

    Under random choices of channels each size in code is compared with what is left to fill it.
    Where they differ, in this order: a module's attribute follows; the channels whose number the
    code reads and those that it is used for become the same; all that take part stay.
    """
    open_ = sorted(flow.notes.required, key=lambda required: required.compared)
    coupled: set[int] = set()
    while failing := _Sizes(flow).failing(open_):
        if sum(_let_attribute_follow(flow, required) for required in failing):
            continue
        if sum(_couple(flow, required, coupled) for required in failing):
            continue
        for required in failing:
            reason = required.reason
            for labels in (required.labels, *_counted(flow, required)):
                flow.labels.pin(labels, reason)
        fixed = {id(required) for required in failing}
        open_ = [required for required in open_ if id(required) not in fixed]


class _Sizes:
    """Required sizes under random choices of channels."""

    def __init__(self, flow: LabelFlow) -> None:
        self._channel_of = flow.labels.components()
        channels = int(self._channel_of.max()) + 1 if len(self._channel_of) else 0
        free = np.zeros(channels + 1, dtype=np.bool_)
        free[self._channel_of[flow.labels.produced()]] = True
        free[flow.labels.pinned_channels(self._channel_of)] = False
        generator = np.random.default_rng(0)
        # One more entry, kept, for what FIXED as index -1 finds.
        self._keep = ~free | (generator.random((MASKS, channels + 1)) < 0.6)
        self._keep[:, -1] = True
        self._attributes = {
            (s.module, s.name, s.index): s.vector for s in reversed(flow.notes.sized)
        }

    def failing(self, open_: list[Required]) -> list[Required]:
        return [required for required in open_ if not self._fits(required)]

    def _fits(self, required: Required) -> bool:
        needed = self._counts(required.labels)
        for mask in range(MASKS):
            provided = evaluate(required.provided, partial(self._leaf, mask))
            if provided != needed[mask]:
                return False
        return True

    def _leaf(self, mask: int, leaf: Kept | AttributeValue) -> int:
        if isinstance(leaf, Kept):
            return int(self._counts(leaf.labels)[mask])
        followed = self._attributes.get((leaf.module, leaf.name, leaf.index))
        return leaf.value if followed is None else int(self._counts(followed)[mask])

    def _counts(self, labels: Tensor) -> IntArray:
        numbers = labels.numpy()
        channels = np.where(
            numbers == FIXED, FIXED, self._channel_of[numbers] if len(self._channel_of) else FIXED
        )
        return np.asarray(self._keep[:, channels].sum(axis=1))


def _let_attribute_follow(flow: LabelFlow, required: Required) -> bool:
    """Let an attribute that the size is computed from count the channels that must fill it."""
    followed = {(s.module, s.name, s.index) for s in flow.notes.sized}
    attributes = {
        (leaf.module, leaf.name, leaf.index): leaf
        for leaf in leaves(required.provided)
        if isinstance(leaf, AttributeValue)
    }
    if followed & set(attributes):
        return False
    free = [leaf for key, leaf in attributes.items() if key not in flow.notes.constants]
    length = required.labels.numel()
    for leaf in sorted(free, key=lambda leaf: -leaf.value):
        if leaf.value % length == 0:
            counted = required.labels.repeat(leaf.value // length)
        elif length % leaf.value == 0 and _multiplies(required.provided):
            counted = required.labels[: leaf.value]
        else:
            continue
        flow.notes.sized.append(Sized(leaf.module, leaf.name, leaf.index, counted))
        return True
    return False


def _multiplies(expression: Expression) -> bool:
    return isinstance(expression, Combined) and expression.operation is operator.mul


def _couple(flow: LabelFlow, required: Required, coupled: set[int]) -> bool:
    """Make the channels that a size counts the same as those that must fill it, once."""
    if id(required) in coupled:
        return False
    coupled.add(id(required))
    counted = _counted(flow, required)
    if len(counted) != 1:
        return False
    needed, read = required.labels, counted[0]
    reason = required.reason
    if needed.numel() % read.numel() == 0:
        flow.labels.join(needed.reshape(-1, read.numel()), read.reshape(1, -1), reason)
    elif read.numel() % needed.numel() == 0:
        flow.labels.join(read.reshape(-1, needed.numel()), needed.reshape(1, -1), reason)
    else:
        return False
    return True


def _counted(flow: LabelFlow, required: Required) -> list[Tensor]:
    """The labels whose number a size is computed from, by shapes or attributes that follow."""
    followed = {(s.module, s.name, s.index): s.vector for s in reversed(flow.notes.sized)}
    counted = []
    for leaf in leaves(required.provided):
        if isinstance(leaf, Kept):
            counted.append(leaf.labels)
        elif (leaf.module, leaf.name, leaf.index) in followed:
            counted.append(followed[leaf.module, leaf.name, leaf.index])
    return counted
