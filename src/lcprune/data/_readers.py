"""Processes that read images: how they are begun, what they are asked, and how they end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from PIL import ImageFile
from torch import Tensor

from lcprune.errors import DataError

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext

T = TypeVar("T")
Read = Callable[[T], Tensor]
"""From what is known of an image to its pixels, uint8 (C, H, W)."""


def stacked(read: Read[T], block: list[T]) -> Tensor:
    return torch.stack([read(item) for item in block])


def ask(connection: Connection, block: list[T]) -> None:
    with _ends_told():
        connection.send(block)


def answer(connection: Connection) -> Tensor:
    with _ends_told():
        part = connection.recv()
    if isinstance(part, Exception):
        raise part
    return torch.from_numpy(part)


@contextmanager
def _ends_told() -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError) as error:
        # Within a message it is an OSError without a number; others are no end (open files).
        if getattr(error, "errno", None) and not isinstance(error, ConnectionError):
            raise
        raise DataError(
            "a process that reads images was ended from outside: is there enough memory?"
        ) from error


@contextmanager
def started_readers(read: Read[T], count: int) -> Iterator[list[Connection]]:
    """Connections to processes that take blocks and answer each, in order; ended afterwards."""
    started: list[tuple[BaseProcess, Connection]] = []
    try:
        with _without_main():
            context = _context()
            with _uninterrupted(), _ends_told():
                for _ in range(count):
                    started.append(_start(context, read))
        yield [connection for _, connection in started]
    finally:
        for process, connection in started:
            connection.close()
            if process.is_alive():
                process.kill()  # they hold nothing that would have to be put in order
        for process, _ in started:
            process.join(_PATIENCE)


_PATIENCE = 5.0
"""Seconds for a process that is killed; one that waits for a disk that hangs doesn't end."""


def _start(
    context: ForkServerContext | SpawnContext, read: Read[T]
) -> tuple[BaseProcess, Connection]:
    ours, theirs = context.Pipe()
    with theirs:  # with a copy here, a read would not end with the process
        arguments = (theirs, read, ImageFile.LOAD_TRUNCATED_IMAGES)
        process = context.Process(target=_work, args=arguments, daemon=True)
        process.start()
    return process, ours


def _context() -> ForkServerContext | SpawnContext:
    """How processes are started: forked from a small one, or else each anew.

    Forked from this one they would come to own a copy of every page that a network that trains
    beside them changes.
    """
    if "forkserver" in multiprocessing.get_all_start_methods():  # not on Windows
        # Its socket may have no place (a long TMPDIR), or it belongs to a parent of this process.
        with suppress(OSError, EOFError):
            return _server()
    return multiprocessing.get_context("spawn")


def _server() -> ForkServerContext:
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    with _uninterrupted():
        forkserver.ensure_running()
    # The first process comes when the server has imported all, which takes seconds. It does
    # nothing, so that it can be waited for with interrupts let through.
    first = context.Process(target=os.getpid, daemon=True)
    first.start()
    first.join()
    return context


_PRELOADED = [
    "lcprune.data._readers",
    "lcprune.data._read",
    "torchvision.transforms.v2.functional",
    "PIL.JpegImagePlugin",
    "PIL.PngImagePlugin",
]


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Processes that are started within never see an interrupt, this one sees it afterwards."""
    came: list[int] = []
    kept: dict[int, Any] = {}
    mask = getattr(signal, "pthread_sigmask", None)  # not on Windows
    before = mask(signal.SIG_BLOCK, []) if mask else None
    try:
        if threading.current_thread() is threading.main_thread():
            # A signal that this thread blocks is given to another one, and handled in this one.
            for number in _ENDING:
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


_ENDING = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]

_LOCK = threading.Lock()


@contextmanager
def _without_main() -> Iterator[None]:
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


def _work(connection: Connection, read: Read[T], truncated: bool) -> None:
    """What a process does: read blocks as they are asked for, until nobody is there to ask."""
    # An interrupt and a hang-up reach every process of a terminal; the first one ends the others.
    for number in _ENDING:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    ImageFile.LOAD_TRUNCATED_IMAGES = truncated
    # Pillow's remarks on odd metadata would come from each process anew.
    warnings.filterwarnings("ignore", module="PIL")
    done: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_hand_over, args=(connection, done), daemon=True).start()
    while True:
        try:
            block = connection.recv()
        except (EOFError, OSError):
            return
        done.put(_read(read, block))


def _read(read: Read[T], block: list[T]) -> Any:
    """The block as an array, or what went wrong.

    A tensor would go through shared memory, of which containers often have very little.
    """
    try:
        return stacked(read, block).numpy()
    except DataError as error:
        return error
    except Exception:  # some can't be pickled
        return RuntimeError(f"in a process that reads images: {traceback.format_exc()}")


def _hand_over(connection: Connection, done: SimpleQueue[Any]) -> None:
    with suppress(OSError):
        while True:
            connection.send(done.get())
