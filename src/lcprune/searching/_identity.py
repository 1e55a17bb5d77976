"""What makes two searches the same, where they differ, and whether a journal may go on."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from lcprune.criteria import Saliency
from lcprune.errors import InputError, LcpruneWarning, RunError
from lcprune.graph import ChannelGraph
from lcprune.searching._journal import JournalRecord

ENVIRONMENT = "environment"
"""The part of an identity that may change between the sittings of a run, with a warning."""

_SAME = 1e-3
"""Saliencies within this of each other (relative) are those of one run on two machines."""


def run_identity(
    graph: ChannelGraph,
    saliency: Saliency,
    settings: Mapping[str, Any],
    caller: Mapping[str, Any] | None,
    executor: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that a search depends on, as JSON, but for the saliencies themselves.

    The caller's own keys go under ``run``, but for its ``environment``, which joins what is
    known here of the machine and what the ``executor`` says of its own.
    """
    own = dict(caller or {})
    environment = {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "machine": platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        **own.pop(ENVIRONMENT, {}),
        **executor,
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


def resumed_saliency(
    path: str | os.PathLike[str] | None,
    record: JournalRecord,
    identity: Mapping[str, Any],
    saliency: Saliency,
) -> Saliency:
    """The saliencies that a run goes on with, which are those that its journal began with.

    Raises ``RunError`` that names the first difference between the run that wrote the journal
    and this one; a difference in ``environment`` alone, or in the last digits of the
    saliencies, warns.
    """
    old, new = dict(record.identity), dict(identity)
    machines = old.pop(ENVIRONMENT, {}), new.pop(ENVIRONMENT, {})
    difference = first_difference(old, new)
    if difference is not None:
        key, was, now = difference
        raise RunError(
            f"journal {path} is of another run: {key} was {was!r} and is {now!r} now,"
            " expected the same, or another journal"
        )
    drift = first_difference(*machines, path=ENVIRONMENT)
    if drift is not None:
        key, was, now = drift
        _warn(f"journal {path} goes on elsewhere: {key} was {was!r} and is {now!r} now")
    began, given = record.saliency, saliency.values
    if np.array_equal(began, given):
        return saliency
    # Other weights or images differ in the first digits, another machine in the last.
    slack = _SAME * float(began.std())
    if began.shape != given.shape or not np.allclose(given, began, rtol=_SAME, atol=slack):
        raise RunError(
            f"journal {path} is of another run: the saliencies differ, expected the weights and"
            " the data that it began with, or another journal"
        )
    _warn(f"journal {path} goes on with its own saliencies, which differ in the last digits")
    return replace(saliency, values=began)


def _warn(message: str) -> None:
    text = f"{message}; losses may differ in the last digits"
    warnings.warn(text, LcpruneWarning, stacklevel=4)


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
