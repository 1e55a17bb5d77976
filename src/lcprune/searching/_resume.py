"""Whether a journal may be continued."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lcprune.criteria import Saliency
from lcprune.errors import RunError
from lcprune.searching._identity import ENVIRONMENT, first_difference
from lcprune.searching._journal_rows import JournalRecord

_SAME = 1e-3
"""Saliencies within this of each other (relative) are those of one run on two machines."""


def settled_saliency(
    path: Path | None, record: JournalRecord, identity: Mapping[str, Any], saliency: Saliency
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
    warnings.warn(f"{message}; losses may differ in the last digits", stacklevel=4)
