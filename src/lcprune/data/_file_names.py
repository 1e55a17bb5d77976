"""Paths of a million files in little memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
from torch import Tensor


class FileNames(Sequence[Path]):
    """Paths of files below one folder, as an array of bytes.

    A million ``Path`` objects take most of a gigabyte, and every process that reads some of them
    would come to own a copy of the pages they lie in.
    """

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        self.root = root
        self._names = np.array([os.fsencode(name) for name in names], dtype=np.bytes_)

    @classmethod
    def of(cls, files: Sequence[Path]) -> FileNames:
        """The files as they are below the deepest folder that holds them all."""
        if isinstance(files, FileNames):
            return files
        absolute = [os.path.abspath(file) for file in files]  # noqa: PTH100  links stay
        root = os.path.commonpath([os.path.dirname(file) for file in absolute] or ["/"])  # noqa: PTH120
        return cls(Path(root), [os.path.relpath(file, root) for file in absolute])

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> FileNames: ...
    def __getitem__(self, index: int | slice) -> Path | FileNames:
        if isinstance(index, slice):
            return self._with(self._names[index])
        return self.root / os.fsdecode(self._names[index].item())

    def __iter__(self) -> Iterator[Path]:
        return (self[index] for index in range(len(self)))

    def take(self, indices: Tensor) -> FileNames:
        """The files at ``indices``, int64 (M,)."""
        return self._with(self._names[indices.numpy()])

    def relative(self) -> Iterator[bytes]:
        """The names below the root, with / between folders."""
        separator = os.sep.encode()
        return (name.item().replace(separator, b"/") for name in self._names)

    def _with(self, names: np.ndarray[tuple[int], np.dtype[np.bytes_]]) -> FileNames:
        other = FileNames(self.root, [])
        other._names = names
        return other
