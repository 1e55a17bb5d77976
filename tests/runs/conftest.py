"""Settings of the tests that run prune and train."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from digit_runs import quickly


@pytest.fixture(autouse=True, scope="package")
def _quickly() -> Iterator[None]:
    with quickly():
        yield
