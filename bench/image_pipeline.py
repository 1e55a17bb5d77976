"""How fast images are read for training, beside a network that trains on them.

    python bench/image_pipeline.py [--images 1000] [--batch 32] [--workers N] [--tree DIR]

Makes a tree of JPEGs like ImageNet's (500 pixels wide, about 100 kB, ten classes), and measures,
in images a second: the training pipeline alone (decode, random part, mirror, normalise) over one
epoch; torchvision's ResNet-50 forward and backward alone on batches that are there; both together,
as a training has them. Memory is the peak of this process and of the largest worker as the
system counts it, and the most that all processes, the server that workers are forked from among
them, held together while training (shared pages counted once).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

import runner
from lcprune.data import Data, ImageFiles, load_data, training_batches

CLASSES = 10
SIZE = (500, 375)
Batches = Iterable[tuple[Tensor, Tensor]]


KEYS = ("images", "size", "batch", "workers", "dtype", "batches", "commit", "machine")


def main() -> None:
    bench = runner.Bench("image_pipeline", __doc__, KEYS)
    bench.argument("--images", type=int, default=1000)
    bench.argument("--batch", type=int, default=32)
    bench.argument("--batches", type=int, help="train on so many only; default all")
    bench.argument("--size", type=int, default=224)
    bench.argument("--workers", type=int, default=os.cpu_count(), help="default: one for each CPU")
    bench.argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    bench.argument("--tree", type=Path, help="where the images are, or are made and stay")
    options = bench.parse()
    key = {name: getattr(options, name) for name in KEYS[:6]}
    with tempfile.TemporaryDirectory() as temporary:
        tree = options.tree or Path(temporary)
        write_tree(tree, options.images)
        data = load_data(f"imagefolder:{tree}@{options.size}")
        bench.row(key, lambda: measure(data, options))


def measure(data: Data, options: argparse.Namespace) -> runner.Row:
    assert isinstance(data.train, ImageFiles)
    files = ImageFiles(
        data.train.files, data.train.labels, data.train.size, workers=options.workers
    )
    batches = training_batches(files, data, options.batch)
    step = Step(options.dtype)
    row: runner.Row = {"kilobytes_per_image": round(mean_bytes(files) / 1000, 1)}

    def note(key: str, value: float) -> None:
        row[key] = round(value, 1)

    next(iter(batches))  # the first of a process waits for the server, which imports PyTorch
    note("pipeline_images_per_s", rate(batches, lambda *_: None))
    note("pipeline_peak_rss_mb", peak_rss_mb())
    prepared = [batch for _, batch in zip(range(2), batches, strict=False)]
    count = min(options.batches or len(batches), len(batches))
    note("network_images_per_s", rate((prepared[i % 2] for i in range(count)), step, warm=1))
    held: list[float] = []
    workers: list[float] = []

    def watched(inputs: Tensor, targets: Tensor) -> None:
        step(inputs, targets)
        held.append(together_mb())
        workers.extend(worker_peaks_mb())

    first = (batch for _, batch in zip(range(count), batches, strict=False))
    note("together_images_per_s", rate(first, watched))
    note("peak_rss_mb", peak_rss_mb())
    note("worker_peak_rss_mb", max(workers, default=0.0))
    note("all_processes_mb", max(held))
    return row


class Step:
    """A training step of a ResNet-50 with random weights."""

    def __init__(self, dtype: str) -> None:
        from torchvision.models import resnet50

        torch.manual_seed(0)
        self._model: nn.Module = resnet50().to(memory_format=torch.channels_last)
        self._optimizer = torch.optim.SGD(self._model.parameters(), lr=0.01, momentum=0.9)
        self._half = dtype == "bfloat16"

    def __call__(self, inputs: Tensor, targets: Tensor) -> None:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=self._half):
            outputs = self._model(inputs)
        self._optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(outputs.float(), targets).backward()
        self._optimizer.step()


def rate(batches: Batches, use: Callable[[Tensor, Tensor], None], warm: int = 0) -> float:
    """Images a second, without the first ``warm`` batches."""
    start, count = time.perf_counter(), 0
    for i, (inputs, targets) in enumerate(batches):
        use(inputs, targets)
        if i < warm:
            start = time.perf_counter()
        else:
            count += len(targets)
    return count / (time.perf_counter() - start)


def peak_rss_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def together_mb() -> float:
    """What this process and all below it hold now, pages that they share counted once."""
    return sum(kilobytes(pid, "smaps_rollup", "Pss") for pid in (os.getpid(), *below())) / 1024


def worker_peaks_mb() -> list[float]:
    """The peak of each worker that is there now."""
    workers = multiprocessing.active_children()
    return [kilobytes(child.pid or 0, "status", "VmHWM") / 1024 for child in workers]


def kilobytes(pid: int, file: str, key: str) -> int:
    """A figure of a process in /proc; 0 of one that is just ending."""
    try:
        lines = Path("/proc", str(pid), file).read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def below() -> set[int]:
    """The processes that descend from this one: workers, and the server that they come from."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # The name in parentheses may hold anything; state and parent come after it.
            rest = (folder / "stat").read_text().rpartition(")")[2]
        except OSError:
            continue
        parents[int(folder.name)] = int(rest.split()[1])
    found, new = set[int](), {os.getpid()}
    while new:
        new = {pid for pid, parent in parents.items() if parent in new}
        found |= new
    return found


def mean_bytes(files: ImageFiles) -> float:
    return float(np.mean([file.stat().st_size for file in files.files]))


def write_tree(root: Path, count: int) -> None:
    """Write ``count`` training images and a test image for each class, unless they are there."""
    for split, images in (("train", count), ("val", CLASSES)):
        for index in range(images):
            folder = root / split / f"class_{index % CLASSES}"
            folder.mkdir(parents=True, exist_ok=True)
            file = folder / f"{index:06}.jpg"
            if not file.exists():
                photograph([index, split == "val"]).save(file, quality=90)


def photograph(seed: Sequence[int]) -> Image.Image:
    """Soft colours, coarse and fine structure and grain, which compress like a photograph."""
    generator = np.random.default_rng(seed)
    total = np.zeros((SIZE[1], SIZE[0], 3))
    for cells, strength in ((6, 1.0), (24, 0.35), (96, 0.15)):
        noise = generator.integers(0, 256, (cells * 3 // 4, cells, 3), dtype=np.uint8)
        smooth = Image.fromarray(noise).resize(SIZE, Image.Resampling.BICUBIC)
        total += strength * (np.asarray(smooth) - 127.5)
    total += generator.normal(0, 12, (SIZE[1], SIZE[0], 1))
    return Image.fromarray((total + 127.5).clip(0, 255).astype(np.uint8))


if __name__ == "__main__":
    main()
