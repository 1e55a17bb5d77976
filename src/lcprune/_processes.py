"""Processes that are started beside the main one, and make no noise when that one ends."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lcprune._factory import FACTORY_MODULES

_LOCK = threading.Lock()

ENDING = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
"""The signals that ask a process to end."""


@contextmanager
def without_main() -> Iterator[None]:
    """Processes that are started within don't import the main module.

    Nothing that they do needs it, and a script that isn't guarded by ``__name__ == "__main__"``
    would run again in each of them.
    """
    with _LOCK:
        main = vars(sys.modules["__main__"])
        kept: dict[str, Any] = {
            name: main[name] for name in ("__spec__", "__file__") if name in main
        }
        try:
            main["__spec__"] = None
            main.pop("__file__", None)
            yield
        finally:
            main.update(kept)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Processes that are started within never see an interrupt, this one sees it afterwards."""
    came: list[int] = []
    kept: dict[int, Any] = {}
    mask = getattr(signal, "pthread_sigmask", None)  # not on Windows
    before = mask(signal.SIG_BLOCK, []) if mask else None
    try:
        if threading.current_thread() is threading.main_thread():
            # A signal that this thread blocks is given to another one, and handled in this one.
            for number in ENDING:
                if callable(signal.getsignal(number)):
                    kept[number] = signal.signal(number, lambda number, _: came.append(number))
        if mask:
            from multiprocessing import resource_tracker

            resource_tracker.ensure_running()  # when it starts, it lets interrupts through again
            mask(signal.SIG_BLOCK, [signal.SIGINT])
        yield
    finally:
        # Once its handler is back, an interrupt that another thread was slow to take is raised
        # here, so what must not be left undone comes before.
        if mask:
            mask(signal.SIG_SETMASK, before)
        try:
            for number in reversed(kept):
                signal.signal(number, kept[number])
        finally:
            for number in came:
                signal.raise_signal(number)


def ignore_hang_ups() -> None:
    """In a started process: an interrupt or a terminal's end is the main process's to answer."""
    for number in ENDING:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)


def packed(value: Any, pickler: Any = None) -> bytes:
    """All that another process needs to have ``value``, as bytes that ``pickle`` reads.

    What lives in a script or in a file named on the command line travels by value. ``pickler`` is
    a cloudpickle, if it is to be another than the usual one.
    """
    if pickler is None:
        import cloudpickle

        pickler = cloudpickle
    made = [sys.modules[name] for name in sys.modules if name.startswith(FACTORY_MODULES)]
    for module in made:
        pickler.register_pickle_by_value(module)
    try:
        content: bytes = pickler.dumps(value)
    finally:
        for module in made:
            pickler.unregister_pickle_by_value(module)
    return content
