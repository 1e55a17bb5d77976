"""Comparisons in float64 also where a model casts to less on its way."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

LESS = frozenset({torch.float32, torch.float16, torch.bfloat16})


class _KeepDouble(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Leaves float64 tensors as they are where code says ``.float()`` or ``.half()``.

    Such a cast is there for speed or for stability; in a comparison its rounding would hide
    faults below it and look like one.
    """

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if (
            func.overloadpacket is torch.ops.aten._to_copy
            and args[0].dtype == torch.float64
            and given.get("dtype") in LESS
        ):
            given["dtype"] = torch.float64
        return func(*args, **given)


def keep_double() -> AbstractContextManager[object]:
    """A context in which a cast of a float64 tensor to less does nothing."""
    mode: AbstractContextManager[object] = _KeepDouble()  # type: ignore[no-untyped-call]
    return mode
