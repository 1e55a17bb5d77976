"""Labelled images that are read from their files whenever they are asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from lcprune.data._file_names import FileNames
from lcprune.data._geometry import Size
from lcprune.data._read import evaluated
from lcprune.data._recipes import resized_for
from lcprune.data._values import Digest, Images
from lcprune.data._vision import transforms
from lcprune.data._workers import default_workers, read_batches
from lcprune.errors import DataError

MAX_BYTES = 8 * 2**30
"""Most that ``in_memory`` takes."""


class ImageFiles:
    """An ``ImageSet`` of image files of any size, decoded as RGB in worker processes.

        images = ImageFiles(files, labels, size=224)

    ``labels`` is int64 (N,), ``size`` a side or (H, W). As it is evaluated, an image is scaled
    until it just covers ``resized`` (none takes what is usual for the size: 256 for 224) and cut
    to its centre. ``workers`` processes read ahead; none takes one per CPU, 0 reads in this
    process. A file is opened when it is its turn, and ``DataError`` names one that can't be read.
    ``DataError`` too where labels don't fit the files or torchvision is missing.
    """

    def __init__(
        self,
        files: Sequence[Path],
        labels: Tensor,
        size: int | Size,
        *,
        resized: int | Size | None = None,
        workers: int | None = None,
    ) -> None:
        if labels.dtype != torch.int64 or labels.shape != (len(files),):
            raise DataError(
                f"labels: expected int64 ({len(files)},), got {labels.dtype} {tuple(labels.shape)}"
            )
        transforms()
        self.files = FileNames.of(files)
        self._labels = labels
        self.size = (size, size) if isinstance(size, int) else size
        around = resized_for(self.size) if resized is None else resized
        self.resized = (around, around) if isinstance(around, int) else around
        if min(self.size) < 1 or any(r < s for r, s in zip(self.resized, self.size, strict=True)):
            raise DataError(f"expected a size of at least 1, and {self.resized} >= {self.size}")
        self.workers = default_workers() if workers is None else workers

    @property
    def labels(self) -> Tensor:
        """int64 (N,)."""
        return self._labels

    @property
    def shape(self) -> tuple[int, int, int]:
        """(3, H, W)."""
        return (3, *self.size)

    def __len__(self) -> int:
        return len(self._labels)

    def subset(self, indices: Tensor) -> ImageFiles:
        """The images at ``indices``, int64 (M,)."""
        return ImageFiles(
            self.files.take(indices),
            self._labels[indices],
            self.size,
            resized=self.resized,
            workers=self.workers,
        )

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Pixels and labels of ``size`` images at a time, in order, read ahead."""
        read = partial(evaluated, resized=self.resized, size=self.size)
        pixels = read_batches(read, self.files, size, self.workers)
        for start, part in zip(range(0, len(self), size), pixels, strict=True):
            yield part, self._labels[start : start + size]

    def in_memory(self) -> Images:
        """The same images, as they are evaluated, in memory; ``DataError`` above 8 GiB."""
        pixels = len(self) * 3 * self.size[0] * self.size[1]
        if pixels > MAX_BYTES:
            raise DataError(
                f"{self.files.root}: {len(self)} images of {self.size[1]}x{self.size[0]} take "
                f"{pixels / 2**30:.1f} GiB in memory, expected at most {MAX_BYTES / 2**30:.0f}"
            )
        result = torch.empty((len(self), *self.shape), dtype=torch.uint8)
        start = 0
        for part, _ in self.batches(_MEMORY_BATCH):
            result[start : start + len(part)] = part
            start += len(part)
        return Images(result, self._labels)

    def digest(self, into: Digest) -> None:
        """Add labels, image sizes, and names and sizes in bytes of all files to a hash.

        What a file holds is not read: one that changes and keeps its length goes unseen.
        ``DataError`` names a file that is missing or empty.
        """
        into.update(repr((len(self), self.size, self.resized)).encode())
        into.update(self._labels.contiguous().numpy().data)
        for name in self.files.relative():
            into.update(name + b"\0%d\0" % self._bytes(os.fsdecode(name)))

    def _bytes(self, name: str) -> int:
        file = self.files.root / name
        try:
            length = file.stat().st_size
        except OSError as error:
            raise DataError(f"{file}: can't be read: {error.strerror}") from error
        if not length:
            raise DataError(f"{file}: can't be read as an image: it is empty")
        return length


_MEMORY_BATCH = 64
