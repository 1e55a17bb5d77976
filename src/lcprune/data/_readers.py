"""Images are read ahead by other processes, in order, within bounded memory.

PyTorch's ``DataLoader`` was tried in place of this: its readers share one queue, which one that is
killed while it writes leaves locked. The process that waits for it can hang, and the others stay
behind when that one is killed. Here each reader has a connection of its own, which ends with
either side, whatever that was doing.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import chain, cycle, islice
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from PIL import ImageFile
from torch import Tensor

from lcprune._processes import ignore_hang_ups, uninterrupted, without_main
from lcprune.data._image_file import quietly
from lcprune.errors import DataError

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext

T = TypeVar("T")
Read = Callable[[T], Tensor]
"""From what is known of an image to its pixels, uint8 (C, H, W)."""

BLOCK = 16
"""Images that a process reads before it hands them over; blocks of one batch are then joined."""

AHEAD = 256
"""Images read ahead in all, where that leaves each process two blocks."""

MOST_WORKERS = 16


def default_workers() -> int:
    """One process for each CPU that this one may use."""
    try:
        cpus = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        cpus = os.cpu_count() or 1
    return max(1, min(cpus, MOST_WORKERS))


def read_batches(
    read: Read[T], items: Iterable[T], sizes: Iterable[int], workers: int
) -> Iterator[Tensor]:
    """Yield the images of ``items``, uint8 (B, C, H, W), as many at a time as ``sizes`` say.

    ``read`` is called once per item, in one of ``workers`` processes or, with 0, in this one; a
    set of a single block is always read in this one. Both are pickled, the items in the blocks in
    which they are read. A ``DataError`` of ``read`` is raised here. The processes end with the
    iterator.
    """
    counts: deque[int] = deque()
    blocks = _blocks(items, sizes, counts)
    first = list(islice(blocks, max(2, workers)))
    blocks = chain(first, blocks)
    found: Generator[Tensor, None, None]
    if workers and len(first) > 1:
        found = _read_ahead(read, blocks, min(workers, len(first)))
    else:
        here = quietly(_stacked)
        found = (here(read, block) for block in blocks)
    parts: list[Tensor] = []
    # An exception that is being handled holds the frames that hold the iterator; its processes
    # must not wait for that.
    with closing(found):
        for part in found:
            parts.append(part)
            if sum(map(len, parts)) == counts[0]:
                counts.popleft()
                yield torch.cat(parts)
                parts.clear()


def _blocks(items: Iterable[T], sizes: Iterable[int], counts: deque[int]) -> Iterator[list[T]]:
    """What one process reads at a time: parts of batches, in order; notes how large those are."""
    iterator = iter(items)
    for batch in sizes:
        whole = list(islice(iterator, batch))
        if not whole:
            return
        counts.append(len(whole))
        size = -(-batch // -(-batch // BLOCK))
        yield from (whole[start : start + size] for start in range(0, len(whole), size))


def _read_ahead(
    read: Read[T], blocks: Iterator[list[T]], workers: int
) -> Generator[Tensor, None, None]:
    """The blocks as other processes read them, in turns."""
    with started_readers(read, workers) as connections:
        asked: deque[Connection] = deque()
        ahead = workers * max(2, AHEAD // (BLOCK * workers))
        for connection, block in zip(cycle(connections), islice(blocks, ahead), strict=False):
            ask(connection, block)
            asked.append(connection)
        while asked:
            connection = asked.popleft()
            part = answer(connection)
            for block in islice(blocks, 1):
                ask(connection, block)
                asked.append(connection)
            yield part


def _stacked(read: Read[T], block: list[T]) -> Tensor:
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
        with without_main():
            context = _context()
            with uninterrupted(), _ends_told():
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
    with uninterrupted():
        forkserver.ensure_running()
    # The first process comes when the server has imported all, which takes seconds. It does
    # nothing, so that it can be waited for with interrupts let through.
    first = context.Process(target=os.getpid, daemon=True)
    first.start()
    first.join()
    return context


_PRELOADED = [
    "lcprune.data._readers",
    "lcprune.data._pixels",
    "torchvision.transforms.v2.functional",
    "PIL.JpegImagePlugin",
    "PIL.PngImagePlugin",
]


def _work(connection: Connection, read: Read[T], truncated: bool) -> None:
    """What a process does: read blocks as they are asked for, until nobody is there to ask."""
    ignore_hang_ups()
    torch.set_num_threads(1)
    ImageFile.LOAD_TRUNCATED_IMAGES = truncated
    # Pillow's remarks on odd metadata would come from each process anew.
    warnings.filterwarnings("ignore", module=r"PIL\.")
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
        return _stacked(read, block).numpy()
    except DataError as error:
        return error
    except Exception:  # some can't be pickled
        return RuntimeError(f"in a process that reads images: {traceback.format_exc()}")


def _hand_over(connection: Connection, done: SimpleQueue[Any]) -> None:
    with suppress(OSError):
        while True:
            connection.send(done.get())
