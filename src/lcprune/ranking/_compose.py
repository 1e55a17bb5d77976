"""One plan for a network that was pruned again."""

from __future__ import annotations

from dataclasses import replace

from lcprune._checks import instance
from lcprune.errors import InputError
from lcprune.ranking._plan import A_PLAN, AttributeEdit, Plan


def compose(first: Plan, second: Plan) -> Plan:
    """The plan that does at once what ``first`` and then ``second`` do.

    ``second`` is a plan of what ``first`` leaves, so that
    ``slim(model, compose(first, second))`` equals ``slim(slim(model, first), second)`` bit for
    bit, attributes included. Criterion, compensation, latent and costs are those of ``second``;
    the outputs that may shrink are those of both. Composing is associative.

    ``InputError`` where ``second`` is for another network than ``first`` leaves. Where one of
    them does not say its network (a plan made by hand), indices beyond what is left are the only
    sign of that.
    """
    for name, plan in (("first", first), ("second", second)):
        instance(name, plan, Plan, A_PLAN)
    if first.result and second.network and first.result != second.network:
        hint = "expected one made of a trace of the network that the first plan leaves"
        if second.network == first.network:
            hint = f"it is for the network that the first one is for, {hint}"
        raise InputError(f"the second plan does not go on from the first: {hint}")
    return replace(
        second,
        kept={**first.kept, **_kept(first, second)},
        attributes=_attributes(first, second),
        network=first.network,
        free_outputs=tuple(dict.fromkeys((*first.free_outputs, *second.free_outputs))),
    )


def _kept(first: Plan, second: Plan) -> dict[tuple[str, int], tuple[int, ...]]:
    """The indices of the whole network that stay where ``second`` removes something."""
    made: dict[tuple[int, int], tuple[int, ...]] = {}  # the tensors of a layer share one tuple
    kept = {}
    for key, indices in second.kept.items():
        before = first.kept.get(key)
        if before is None:
            kept[key] = indices
            continue
        if indices[-1] >= len(before):
            raise InputError(
                f"the second plan keeps index {indices[-1]} of dimension {key[1]} of {key[0]}, of "
                f"which the first one leaves {len(before)}"
            )
        pair = (id(before), id(indices))
        if pair not in made:
            made[pair] = tuple([before[index] for index in indices])
        kept[key] = made[pair]
    return kept


def _attributes(first: Plan, second: Plan) -> tuple[AttributeEdit, ...]:
    """What is set last of every attribute, and of every entry of a tuple."""
    merged = {(edit.module, edit.name, edit.index): edit for edit in first.attributes}
    for edit in second.attributes:
        earlier = merged.get((edit.module, edit.name, edit.index))
        if earlier is not None and edit.value > earlier.value:
            raise InputError(
                f"the second plan sets {edit.name} of {edit.module} to {edit.value}, and the first "
                f"one leaves {earlier.value}"
            )
        merged[edit.module, edit.name, edit.index] = edit
    return tuple(merged.values())
