"""A pytest plugin: default tests first, thorough ones in a rotated order and only while time lasts.

``--rotate HASH`` lets each commit begin elsewhere among the thorough tests, so that those which
one run has no time for are reached by another. ``--begin-within SECONDS`` begins no thorough test
later than that; those not begun are counted as deselected. Both work with and without workers.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest

THOROUGH = "thorough"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("order")
    group.addoption("--rotate", metavar="HASH", help="where the thorough tests begin, hexadecimal")
    group.addoption(
        "--begin-within", type=float, metavar="SECONDS", help="begin no thorough test after that"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Order(config), "order-of-tests")


class Order:
    """What one process, the controller or a worker, knows of the time and of tests not begun."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.not_begun: list[str] = []
        self.deadline = getattr(config, "workerinput", {}).get("deadline")
        within = config.getoption("begin_within")
        if self.deadline is None and within is not None:
            self.deadline = time.monotonic() + within

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput["deadline"] = self.deadline

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        thorough = [item for item in items if is_thorough(item)]
        for item in thorough:
            if item.get_closest_marker("xdist_group"):
                # A group is scheduled where its first test stands: not among the default ones.
                item.add_marker(pytest.mark.xdist_group(THOROUGH))
        first = int(self.config.getoption("rotate") or "0", 16) % max(1, len(thorough))
        default = [item for item in items if not is_thorough(item)]
        items[:] = default + thorough[first:] + thorough[:first]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        if self.deadline is None or time.monotonic() < self.deadline or not is_thorough(item):
            return None
        self.not_begun.append(item.nodeid)
        return True

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        if hasattr(self.config, "workeroutput"):
            self.config.workeroutput["not_begun"] = self.not_begun
        elif self.not_begun:
            items = [SimpleNamespace(nodeid=name) for name in self.not_begun]
            self.config.hook.pytest_deselected(items=items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self.not_begun += getattr(node, "workeroutput", {}).get("not_begun", [])

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.not_begun:
            terminalreporter.write_line(
                f"{len(self.not_begun)} thorough tests were not begun: the time was up"
            )


def few(values: Iterable[Any], default: int) -> list[Any]:
    """Parameters of a test, of which the first ``default`` are in every run."""
    return [
        value if number < default else pytest.param(*_each(value), marks=pytest.mark.thorough)
        for number, value in enumerate(values)
    ]


def _each(value: Any) -> Any:
    return value if isinstance(value, tuple) else (value,)


def is_thorough(item: pytest.Item) -> bool:
    return item.get_closest_marker(THOROUGH) is not None
