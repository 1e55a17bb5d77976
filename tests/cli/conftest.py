"""Settings of the tests that run the command line."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from digit_runs import Prune, quickly

__all__ = ["Prune"]


@pytest.fixture(autouse=True, scope="package")
def _quickly() -> Iterator[None]:
    with quickly():
        yield
