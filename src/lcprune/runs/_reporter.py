"""Whom a run tells how far it is."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from lcprune.errors import LcpruneWarning

Advance = Callable[[float, str], None]
"""Takes how many steps are done, 2.35 if the third is under way, and how they went."""


class Reporter(Protocol):
    """Whom a job tells how far it is."""

    def stage(self, text: str) -> None:
        """Say what begins, or what was found out."""

    def warn(self, text: str) -> None:
        """Say what may not be as expected."""

    def progress(self, name: str, total: int) -> AbstractContextManager[Advance]:
        """Show the way of ``total`` steps for as long as the block lasts."""


class Silent:
    """Tells nothing."""

    def stage(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        pass

    @contextmanager
    def progress(self, name: str, total: int) -> Iterator[Advance]:
        yield lambda done, text: None


@contextmanager
def warnings_to(warn: Callable[[str], None]) -> Iterator[None]:
    """Tell warnings of ours as a line each, without the place in the code that Python adds."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", LcpruneWarning)
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *of: Any, **how: Any) -> None:
            if issubclass(category, LcpruneWarning):
                warn(str(message))
            else:
                others(message, category, *of, **how)

        warnings.showwarning = show
        yield
