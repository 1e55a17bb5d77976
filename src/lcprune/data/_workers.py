"""Images are read ahead by other processes, in order, within bounded memory."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lcprune.errors import DataError

BLOCK = 16
"""Images that a process reads before it hands them over; blocks of one batch are then joined."""

AHEAD = 256
"""Images read ahead in all, where that leaves each process two blocks."""

MOST_WORKERS = 16

Read = Callable[[int], Tensor]
"""From an index to an image, uint8 (C, H, W)."""


def default_workers() -> int:
    """One process for each CPU that this one may use, shared with others on the same machine."""
    try:
        cpus = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        cpus = os.cpu_count() or 1
    # Launchers of several training processes on one machine tell how many they are.
    siblings = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(1, min(cpus // max(1, int(siblings)), MOST_WORKERS))


def read_batches(
    read: Read, order: Tensor, batch: int, count: int, workers: int
) -> Iterator[Tensor]:
    """Yield the first ``count`` batches, uint8 (B, C, H, W), of the images in ``order``.

    ``read`` is called once per image, in one of ``workers`` processes or, with 0, in this one; a
    set of a single block is always read in this one. A ``DataError`` of ``read`` is raised here.
    The processes end with the iterator.
    """
    blocks = _Blocks(read, order, batch, count)
    if len(blocks) < 2:
        workers = 0
    iterator = _started(blocks, workers)
    try:
        for start in range(0, len(blocks), blocks.per_batch):
            ends = min(start + blocks.per_batch, len(blocks))
            yield torch.cat([_next(iterator) for _ in range(start, ends)])
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            "a process that reads images was ended from outside: is there enough memory?"
        ) from error
    finally:
        # An exception that is being handled holds the frames that hold the iterator; its
        # processes must not wait for that.
        if workers:
            iterator._shutdown_workers()


Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


class _Blocks(Dataset["Pixels | DataError"]):
    """Parts of batches, in order: what one process reads at a time.

    They go through a pipe as arrays. Tensors would go through shared memory, of which containers
    often have very little, and through descriptors, which can run out and are fetched by a thread
    that doesn't end quietly.
    """

    def __init__(self, read: Read, order: Tensor, batch: int, count: int) -> None:
        self._read = read
        self._order = order
        self._batch = batch
        self._total = min(len(order), batch * count)
        self.per_batch = -(-batch // BLOCK)
        self._size = -(-batch // self.per_batch)
        # With the sizes rounded up, a batch may need fewer blocks.
        self.per_batch = -(-batch // self._size)

    def __len__(self) -> int:
        whole, rest = divmod(self._total, self._batch)
        return whole * self.per_batch + -(-rest // self._size)

    def __getitem__(self, index: int) -> Pixels | DataError:
        which, part = divmod(index, self.per_batch)
        start = which * self._batch + part * self._size
        stop = min(start + self._size, (which + 1) * self._batch, self._total)
        try:
            return torch.stack([self._read(int(i)) for i in self._order[start:stop]]).numpy()
        except DataError as error:  # raised here, it would arrive with the process's traceback
            return error


def _started(blocks: _Blocks, workers: int) -> Any:
    """An iterator over the blocks; its processes never see an interrupt, from the first moment."""
    mask = getattr(signal, "pthread_sigmask", None)  # not on Windows
    with warnings.catch_warnings():
        # More processes than CPUs are somebody's wish.
        warnings.filterwarnings("ignore", "This DataLoader will create")
        loader = DataLoader(
            blocks,
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=workers,
            prefetch_factor=max(2, AHEAD // (BLOCK * workers)) if workers else None,
            worker_init_fn=_begin_worker,
            generator=torch.Generator(),  # else the processes' seed is drawn from the global one
        )
        before = mask(signal.SIG_BLOCK, [signal.SIGINT]) if mask else None
        try:
            return iter(loader)
        finally:
            if mask:
                mask(signal.SIG_SETMASK, before)


def _next(iterator: Any) -> Tensor:
    block: Pixels | DataError = next(iterator)
    if isinstance(block, DataError):
        raise block
    return torch.from_numpy(block)


def _as_it_is(block: Any) -> Any:
    return block


def _begin_worker(_: int) -> None:
    # An interrupt reaches every process of the terminal; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Pillow's remarks on odd metadata would come from each process anew.
    warnings.filterwarnings("ignore", module="PIL")
