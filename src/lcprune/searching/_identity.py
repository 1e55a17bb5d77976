"""What makes two searches the same, and where they differ."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from lcprune.criteria import Saliency
from lcprune.errors import InputError
from lcprune.graph import ChannelGraph

ENVIRONMENT = "environment"
"""The part of an identity that may change between the sittings of a run, with a warning."""


def run_identity(
    graph: ChannelGraph,
    saliency: Saliency,
    settings: Mapping[str, Any],
    caller: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Everything that a search depends on, as JSON, but for the saliencies themselves.

    The caller's own keys go under ``run``, but for its ``environment``, which joins what is
    known here of the machine.
    """
    own = dict(caller or {})
    environment = {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "machine": platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        **own.pop(ENVIRONMENT, {}),
    }
    identity = {
        **settings,
        "criterion": saliency.criterion,
        "reduction": saliency.reduction,
        "graph": graph_digest(graph),
        "run": own,
        ENVIRONMENT: environment,
    }
    try:
        plain: dict[str, Any] = json.loads(json.dumps(identity, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InputError(f"identity= is not JSON: {error}") from error
    return plain


def first_difference(old: Any, new: Any, path: str = "") -> tuple[str, Any, Any] | None:
    """The first key (dotted) at which two JSON values differ, and both values; none if equal."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return None if old == new else (path, old, new)
    for key in [*old, *(key for key in new if key not in old)]:
        inner = f"{path}.{key}" if path else key
        found = first_difference(old.get(key), new.get(key), inner)
        if found is not None:
            return found
    return None


def graph_digest(graph: ChannelGraph) -> str:
    """A hash of what is coupled with what and what it costs."""
    digest = hashlib.sha256()
    for dimension in graph.dimensions:
        digest.update(repr(dimension.key).encode() + _bytes(dimension.channels))
    digest.update(_bytes(graph.family_of))
    for vector in graph.vectors:
        digest.update(b"v" + _bytes(vector))
    for value in graph.values:
        digest.update(repr((value.term, value.itemsize, value.storage)).encode())
    for op in graph.ops:
        digest.update(repr(op).encode())
    return digest.hexdigest()


def _bytes(values: Any) -> bytes:
    return np.asarray(values, dtype="<i8").tobytes()
