"""Reductions and windows over positions; over channels only where nothing depends on them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from lcprune.tracing._flow import Call
from lcprune.tracing._planes import Planes, drop_dims, varying

aten = torch.ops.aten

REDUCTIONS = frozenset(
    {
        aten.mean,
        aten.sum,
        aten.amax,
        aten.amin,
        aten.max,
        aten.min,
        aten.var,
        aten.std,
        aten.var_mean,
        aten.prod,
        aten.linalg_vector_norm,
        aten.norm,
        aten.any,
        aten.all,
        aten.argmax,
        aten.argmin,
        aten.logsumexp,
    }
)
OVER_ONE_DIM = frozenset(
    {aten._softmax, aten.softmax, aten._log_softmax, aten.cumsum, aten.sort, aten.glu}
)


def reduction(call: Call) -> Any:
    """Labels stay where the reduction does not run over them."""
    out = call.run()
    source = call.args[0]
    dims = _dims(call, source)
    kept: list[Tensor] = []
    for plane in call.flow.planes(source):
        if varying(plane) & set(dims):
            call.flow.labels.pin(plane, f"a statistic across channels, {call.where}")
        else:
            kept.append(plane)
    results = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
    for result in results:
        if result.dim():
            keepdim = result.dim() == source.dim()
            call.flow.set(result, drop_dims(tuple(kept), dims, keepdim))
    return out


def _dims(call: Call, source: Tensor) -> list[int]:
    names = [argument.name for argument in call.func._schema.arguments]
    position = names.index("dim") if "dim" in names else None
    dims = None if position is None else call.argument(position, "dim")
    if isinstance(dims, int):
        dims = [dims]
    if not dims:
        return list(range(source.dim()))
    return [d % source.dim() for d in dims]


def over_one_dim(call: Call) -> Any:
    """An operation along one dimension, such as a softmax."""
    out = call.run()
    source = call.args[0]
    dim = int(call.argument(1, "dim", -1)) % source.dim()
    kept: list[Tensor] = []
    for plane in call.flow.planes(source):
        if dim in varying(plane):
            call.flow.labels.pin(plane, f"an operation across channels, {call.where}")
        else:
            kept.append(plane)
    for result in tree_leaves(out):
        if isinstance(result, Tensor):
            call.flow.set(result, tuple(kept))
    return out


def windows(call: Call) -> Any:
    """Pooling and resampling: positions change, channels do not."""
    out = call.run()
    source = call.args[0]
    results = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
    dims = results[0].dim()
    planes: Planes = ()
    for plane in call.flow.planes(source):
        inner = [d for d in varying(plane) if d >= _first_position(call, dims)]
        if inner:
            call.flow.labels.pin(plane, f"channels among positions at {call.where}")
        else:
            planes += (plane,)
    for result in results:
        call.flow.set(result, planes)
    return out


def _first_position(call: Call, dims: int) -> int:
    name = call.name
    for spatial in (1, 2, 3):
        if f"{spatial}d" in name:
            return dims - spatial
    return 2
