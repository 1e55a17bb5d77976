"""Images are read ahead by other processes, in order, within bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from itertools import chain, cycle, islice
from multiprocessing.connection import Connection

import torch
from torch import Tensor

from lcprune.data._readers import Read, T, answer, ask, stacked, started_readers

BLOCK = 16
"""Images that a process reads before it hands them over; blocks of one batch are then joined."""

AHEAD = 256
"""Images read ahead in all, where that leaves each process two blocks."""

MOST_WORKERS = 16


def default_workers() -> int:
    """One process for each CPU that this one may use, shared with others on the same machine."""
    try:
        cpus = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        cpus = os.cpu_count() or 1
    # Launchers of several training processes on one machine tell how many they are.
    siblings = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(1, min(cpus // max(1, int(siblings)), MOST_WORKERS))


def read_batches(read: Read[T], items: Iterable[T], batch: int, workers: int) -> Iterator[Tensor]:
    """Yield the images of ``items``, uint8 (B, C, H, W), ``batch`` at a time and what is left.

    ``read`` is called once per item, in one of ``workers`` processes or, with 0, in this one; a
    set of a single block is always read in this one. Both are pickled, the items in the blocks in
    which they are read. A ``DataError`` of ``read`` is raised here. The processes end with the
    iterator.
    """
    blocks = _blocks(items, batch)
    first = list(islice(blocks, max(2, workers)))
    blocks = chain(first, blocks)
    found: Generator[Tensor, None, None]
    if workers and len(first) > 1:
        found = _read_ahead(read, blocks, min(workers, len(first)))
    else:
        found = (stacked(read, block) for block in blocks)
    parts: list[Tensor] = []
    # An exception that is being handled holds the frames that hold the iterator; its processes
    # must not wait for that.
    with closing(found):
        for part in found:
            parts.append(part)
            if sum(map(len, parts)) == batch:
                yield torch.cat(parts)
                parts.clear()
        if parts:
            yield torch.cat(parts)


def _blocks(items: Iterable[T], batch: int) -> Iterator[list[T]]:
    """What one process reads at a time: parts of batches, in order."""
    size = -(-batch // -(-batch // BLOCK))
    iterator = iter(items)
    while whole := list(islice(iterator, batch)):
        yield from (whole[start : start + size] for start in range(0, len(whole), size))


def _read_ahead(
    read: Read[T], blocks: Iterator[list[T]], workers: int
) -> Generator[Tensor, None, None]:
    """The blocks as other processes read them, in turns.

    Each has a connection of its own, which ends with either side, whatever that was doing.
    PyTorch's ``DataLoader`` has one queue for all, which a process that is killed while it writes
    leaves locked; it is told by a signal, if that was a child, and these are the server's. And its
    workers end with their parent, which would be the server, which ends after them.
    """
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
