"""Images a second of ``finetune`` with distillation, of one source tree or of several in turns.

    python bench/finetune_speed.py --cifar DIR --weights FILE --trees /tmp/before /tmp/after

Trains the network for one epoch of a part of CIFAR-10, itself as the teacher, in a process of its
own for each tree and round, the trees in turns: what else the machine does falls on all of them.
The least time of all rounds counts. A row a tree, with its ratio to the first one; the ratio of the
processor's time says more where the machine is busy. Without ``--cifar`` images are random ones of
the same size.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import torch

import runner
from lcprune.data import Augmentation, Data, Images, load_data, training_batches
from lcprune.models import build, load_weights
from lcprune.training import TrainingConfig, finetune

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    bench = runner.Bench("finetune_speed", __doc__)
    bench.argument("--cifar", help="the folder of CIFAR-10")
    bench.argument("--weights", type=Path, help="of the network; default: random ones")
    bench.argument("--model", default="cifar_resnet20")
    bench.argument("--trees", type=Path, nargs="+", default=[ROOT], help="each holds src/")
    bench.argument("--rounds", type=int, default=5)
    bench.argument("--images", type=int, default=1280)
    bench.argument("--batch", type=int, default=128)
    bench.argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    bench.argument("--device", default="cpu")
    bench.argument("--once", action="store_true", help=argparse.SUPPRESS)
    options = bench.parse()
    if options.once:
        print(*seconds(options))
        return
    times: dict[Path, list[tuple[float, float]]] = {tree: [] for tree in options.trees}
    for _ in range(options.rounds):
        for tree, own in times.items():
            own.append(of_tree(tree))
    first = least(times[options.trees[0]])
    names = ("model", "device", "dtype", "batch", "images", "rounds")
    for tree, own in times.items():
        wall, processor = least(own)
        found = {
            "images_per_second": round(options.images / wall, 1),
            "ratio": round(first[0] / wall, 3),
            "ratio_by_processor": round(first[1] / processor, 3),
            "slowest_over_least": round(max(taken for taken, _ in own) / wall, 2),
        }
        key = {"tree": tree.name, **{name: getattr(options, name) for name in names}}
        bench.row(key, lambda found=found: found)  # type: ignore[misc]


def least(times: list[tuple[float, float]]) -> tuple[float, float]:
    """The least of the clock's and of the processor's seconds."""
    return min(wall for wall, _ in times), min(processor for _, processor in times)


def of_tree(tree: Path) -> tuple[float, float]:
    """Seconds of one training by the package in ``tree``: of the clock and of the processor."""
    command = [sys.executable, __file__, *sys.argv[1:], "--once"]
    environment = {**os.environ, "PYTHONPATH": str(tree.resolve() / "src")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    wall, processor = map(float, done.stdout.split()[-2:])
    return wall, processor


def seconds(options: argparse.Namespace) -> tuple[float, float]:
    """Of a training of one epoch, the second one in this process."""
    data = load_data(f"cifar10:{options.cifar}") if options.cifar else random_data(options.images)
    step = len(data.train) // options.images
    images = data.train.subset(torch.arange(options.images) * step)
    teacher = build(options.model, classes=10, input_shape=data.input_shape)
    if options.weights is not None:
        load_weights(teacher, str(options.weights), options.model)
    config = TrainingConfig(epochs=1, learning_rate=0.01, dtype=options.dtype)
    for part in (images.subset(torch.arange(2 * options.batch)), images):
        student = build(options.model, classes=10, input_shape=data.input_shape)
        student.load_state_dict(teacher.state_dict())
        batches = training_batches(part, data, options.batch)
        start = time.perf_counter(), time.process_time()
        finetune(student, batches, teacher=teacher, config=config, device=options.device)
        taken = time.perf_counter() - start[0], time.process_time() - start[1]
    return taken


def random_data(count: int) -> Data:
    """As many images of CIFAR's size, of no sense."""
    images = Images(
        torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8), torch.arange(count) % 10
    )
    classes, mean, how = tuple("0123456789"), (0.5,) * 3, Augmentation()
    return Data(images, images, classes, mean, mean, images.shape, augmentation=how)


if __name__ == "__main__":
    main()
