"""Labelled images, in memory or in files, and what a model has to know about them."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import repeat
from pathlib import Path
from typing import Any, Protocol, Self, overload

import numpy as np
import torch
from torch import Tensor

from lcprune._checks import instance, integer, number, refused
from lcprune._text import shown
from lcprune.data._pixels import Size, evaluated, is_small, resized_for, transforms
from lcprune.data._readers import default_workers, read_batches
from lcprune.errors import DataError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


_LARGEST_SIDE = 2**20


class Digest(Protocol):
    """A hash that is being made, as of ``hashlib``."""

    def update(self, part: bytes | memoryview, /) -> None: ...


class ImageSet(Protocol):
    """Labelled images, in memory or read from files when they are asked for."""

    @property
    def labels(self) -> Tensor:
        """int64 (N,)."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image as it is evaluated."""

    def __len__(self) -> int: ...

    def subset(self, indices: Tensor) -> Self:
        """The images at ``indices``, int64 (M,)."""

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Pixels, uint8 (B, C, H, W), as they are evaluated, and labels (B,), in order."""

    def in_memory(self) -> Images:
        """The same images, as they are evaluated, in memory."""

    def digest(self, into: Digest) -> None:
        """Add what tells this set from another to a hash."""


def _is_dense(tensor: object, dtype: torch.dtype) -> bool:
    """Whether this is an ordinary tensor of the type."""
    if not isinstance(tensor, Tensor) or tensor.dtype != dtype:
        return False
    return tensor.layout == torch.strided


def _check_labels(labels: object, count: int) -> None:
    if not (_is_dense(labels, torch.int64) and getattr(labels, "shape", None) == (count,)):
        raise DataError(f"labels: expected int64 ({count},), got {_seen(labels)}")


def _seen(tensor: object) -> str:
    if not isinstance(tensor, Tensor):
        return shown(tensor)
    kind = "" if tensor.layout == torch.strided else f"{tensor.layout} "
    return f"{kind}{tensor.dtype} {tuple(tensor.shape)}"


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device; on its way to a GPU the CPU does not wait for it.

    It travels from pinned memory, which PyTorch keeps for it until it is there.
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@dataclass(frozen=True, eq=False)
class Images:
    """Pixels, uint8 (N, C, H, W), and labels, int64 (N,): an ``ImageSet`` in memory."""

    pixels: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if not _is_dense(self.pixels, torch.uint8) or self.pixels.dim() != 4:
            raise DataError(f"pixels: expected uint8 (N, C, H, W), got {_seen(self.pixels)}")
        _check_labels(self.labels, len(self.pixels))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    def subset(self, indices: Tensor) -> Images:
        """The images at ``indices``, int64 (M,), as a copy."""
        return Images(self.pixels[indices], self.labels[indices])

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Pixels and labels of ``size`` images at a time, in order, as views."""
        yield from zip(torch.split(self.pixels, size), torch.split(self.labels, size), strict=True)

    def in_memory(self) -> Images:
        """These images."""
        return self

    def digest(self, into: Digest) -> None:
        """Add number, labels and pixels to a hash."""
        into.update(len(self).to_bytes(8, "little"))
        into.update(self.labels.contiguous().numpy().data)
        into.update(self.pixels.contiguous().numpy().data)


@dataclass(frozen=True)
class Augmentation:
    """What training may do to an image: shift by up to ``crop`` pixels, mirror with ``flip``.

    With ``area``, the least and the largest share, a random part of the image is scaled to its
    full size instead of a shift.
    """

    crop: int = 4
    flip: bool = True
    area: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        integer("crop", self.crop, 0, _LARGEST_SIDE, DataError)
        instance("flip", self.flip, bool, "True or False", DataError)
        if self.area is not None:
            shares = _numbers("area", self.area)
            if len(shares) != 2 or not 0 < shares[0] <= shares[1] <= 1:
                raise DataError(f"area: expected two shares in 0..1, the least first, got {shares}")
            object.__setattr__(self, "area", shares)


AREA = (0.08, 1.0)
"""Share of a large image that a random part has (Szegedy et al., 2015)."""


def standard_augmentation(shape: tuple[int, int, int]) -> Augmentation:
    """The usual variation in training of images of ``shape``, (C, H, W).

    Small ones are mirrored and shifted by up to an eighth of their side: 4 pixels at 32, 8 at 64
    (He et al., 2015, section 4.2). Of larger ones, as at 224, a random part is mirrored and
    scaled.
    """
    if not isinstance(shape, tuple | list) or len(shape) != 3:
        raise refused("shape", shape, "(C, H, W)", DataError)
    _, *size = (integer("shape", side, 1, _LARGEST_SIDE, DataError) for side in shape)
    if is_small((size[0], size[1])):
        return Augmentation(crop=min(size) // 8)
    return Augmentation(crop=0, area=AREA)


@dataclass(frozen=True, eq=False)
class Data:
    """A data set for classification: a training and a test split, and how to normalise them.

    ``mean`` and ``std`` hold one number per channel, for pixels in 0..1; ``input_shape`` is
    (C, H, W). The test split is for final figures only. ``DataError`` where the parts don't fit
    one another.
    """

    train: ImageSet
    test: ImageSet
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_shape: tuple[int, int, int]
    name: str = ""
    augmentation: Augmentation = Augmentation()

    def __post_init__(self) -> None:
        instance("name", self.name, str, "a text", DataError)
        self._set("classes", self._checked_classes())
        shape = self._sequence("input_shape", self.input_shape, "(C, H, W)")
        if len(shape) != 3:
            raise DataError(f"{self._label}input_shape of {len(shape)}, expected (C, H, W)")
        sizes = tuple(integer("input_shape", n, 1, _LARGEST_SIDE, DataError) for n in shape)
        self._set("input_shape", sizes)
        for name in ("mean", "std"):
            self._set(name, _numbers(f"{self._label}{name}", getattr(self, name)))
        channels = sizes[0]
        if not len(self.mean) == len(self.std) == channels or min(self.std) <= 0:
            raise DataError(f"{self._label}expected a mean and a std > 0 for {channels} channels")
        instance("augmentation", self.augmentation, Augmentation, "an Augmentation", DataError)
        for split, images in (("train", self.train), ("test", self.test)):
            self._check_images(split, images)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _sequence(self, name: str, value: object, expected: str) -> tuple[Any, ...]:
        if isinstance(value, str | bytes) or not isinstance(value, Sequence):
            raise refused(f"{self._label}{name}", value, expected, DataError)
        return tuple(value)

    def _checked_classes(self) -> tuple[str, ...]:
        classes = self._sequence("classes", self.classes, "a tuple of names")
        for name in classes:
            instance(f"{self._label}a class", name, str, "a name", DataError)
        if len(classes) < 2:
            raise DataError(f"{self._label}expected at least two classes, got {len(classes)}")
        return classes

    def _check_images(self, split: str, images: ImageSet) -> None:
        if isinstance(images, type) or not all(hasattr(images, part) for part in _PARTS):
            raise refused(
                f"{self._label}{split}", images, "an ImageSet: Images or ImageFiles", DataError
            )
        if len(images) == 0:
            raise DataError(f"{self._label}the {split} split holds no images")
        if tuple(images.shape) != tuple(self.input_shape):
            raise DataError(
                f"{self._label}{split} images are {tuple(images.shape)}, "
                f"expected {tuple(self.input_shape)}"
            )
        _check_labels(images.labels, len(images))
        if images.labels.device.type != "cpu":
            raise DataError(f"{self._label}{split} labels lie on another device, expected the CPU")
        low, high = int(images.labels.min()), int(images.labels.max())
        if low < 0 or high >= len(self.classes):
            raise DataError(
                f"{self._label}{split} labels run from {low} to {high}, "
                f"expected 0 to {len(self.classes) - 1}"
            )

    def normalise(self, pixels: Tensor) -> Tensor:
        """Turn uint8 pixels (N, C, H, W) into float32: to 0..1, minus mean, over deviation."""
        shape = (1, -1, 1, 1)
        output = pixels.to(torch.float32).div_(255)
        output.sub_(to_device(torch.tensor(self.mean), output.device).view(shape))
        return output.div_(to_device(torch.tensor(self.std), output.device).view(shape))

    @cached_property
    def fingerprint(self) -> str:
        """A hash of class names and of what tells both splits from others."""
        digest = hashlib.sha256(repr((self.classes, self.input_shape)).encode())
        for images in (self.train, self.test):
            images.digest(digest)
        return digest.hexdigest()

    @property
    def _label(self) -> str:
        return f"{self.name}: " if self.name else ""


_PARTS = ("__len__", "labels", "shape", "subset", "batches", "in_memory", "digest")
"""What an ``ImageSet`` has."""


def _numbers(name: str, values: object) -> tuple[float, ...]:
    """Finite numbers out of a sequence, an array or a tensor."""
    held = isinstance(values, Tensor) and values.layout == torch.strided and not values.is_meta
    listed = np.asarray(values).tolist() if held or isinstance(values, np.ndarray) else values
    if isinstance(listed, str | bytes) or not isinstance(listed, Sequence):
        raise refused(name, values, "a tuple of numbers", DataError)
    return tuple(number(name, value, error=DataError) for value in listed)


def first_pixels(images: ImageSet, count: int) -> Tensor:
    """Pixels, uint8 (B, C, H, W), of the first ``count`` images or of all, if they are fewer."""
    return images.subset(torch.arange(min(count, len(images)))).in_memory().pixels


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
        for file in files:
            if not isinstance(file, str | os.PathLike):
                raise refused("a file", file, "a path", DataError)
        absolute = [os.path.abspath(os.fspath(file)) for file in files]  # noqa: PTH100  links stay
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


MAX_BYTES = 8 * 2**30
"""Most that ``in_memory`` takes."""


_MOST_PROCESSES = 1024


def _size(name: str, given: int | Size) -> Size:
    """A side or (H, W) as (H, W)."""
    both = given if isinstance(given, tuple | list) else (given, given)
    if len(both) != 2:
        raise DataError(f"{name}: expected a side or (H, W), got {shown(given)}")
    height, width = (integer(name, side, 1, _LARGEST_SIDE, DataError) for side in both)
    return height, width


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
        if isinstance(files, str | bytes | os.PathLike) or not isinstance(files, Sequence):
            raise refused("files", files, "a list of paths", DataError)
        _check_labels(labels, len(files))
        transforms()
        self.files = FileNames.of(files)
        self._labels = labels
        self.size = _size("size", size)
        self.resized = resized_for(self.size) if resized is None else _size("resized", resized)
        if any(r < s for r, s in zip(self.resized, self.size, strict=True)):
            raise DataError(f"expected a size of at least 1, and {self.resized} >= {self.size}")
        given = default_workers() if workers is None else workers
        self.workers = integer("workers", given, 0, _MOST_PROCESSES, DataError)

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
        pixels = read_batches(read, self.files, repeat(size), self.workers)
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
            found = file.stat()
        except OSError as error:
            raise DataError(f"{file}: can't be read: {error.strerror}") from error
        if not stat.S_ISREG(found.st_mode):
            raise DataError(f"{file}: can't be read as an image: it is not an ordinary file")
        length = found.st_size
        if not length:
            raise DataError(f"{file}: can't be read as an image: it is empty")
        return length


_MEMORY_BATCH = 64
