"""Images a second of ``finetune`` with distillation, of one source tree or of several in turns.

    python bench/finetune_speed.py --cifar DIR --weights FILE --trees /tmp/before /tmp/after

Trains the network for one epoch of a part of CIFAR-10, itself as the teacher, in a process of its
own for each tree and round, the trees in turns: what else the machine does falls on all of them.
The least time of all rounds counts. Prints a row a tree, with its ratio to the first one; the
ratio of the processor's time says more where the machine is busy. Without ``--cifar`` images are
random ones of the same size.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cifar", help="the folder of CIFAR-10")
    parser.add_argument("--weights", type=Path, help="of the network; default: random ones")
    parser.add_argument("--model", default="cifar_resnet20")
    parser.add_argument("--trees", type=Path, nargs="+", default=[ROOT], help="each holds src/")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=1280)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        print(*seconds(options))
        return
    times: dict[Path, list[tuple[float, float]]] = {tree: [] for tree in options.trees}
    for _ in range(options.rounds):
        for tree, own in times.items():
            own.append(of_tree(tree))
    first: tuple[float, float] | None = None
    for tree, own in times.items():
        walls = [wall for wall, _ in own]
        least = min(walls), min(processor for _, processor in own)
        first = first or least
        row = {
            "tree": str(tree),
            "model": options.model,
            "device": options.device,
            "dtype": options.dtype,
            "threads": options.threads,
            "batch": options.batch,
            "rounds": options.rounds,
            "images_per_second": round(options.images / least[0], 1),
            "ratio": round(first[0] / least[0], 3),
            "ratio_by_processor": round(first[1] / least[1], 3),
            "slowest_over_least": round(max(walls) / least[0], 2),
        }
        print(json.dumps(row), flush=True)


def of_tree(tree: Path) -> tuple[float, float]:
    """Seconds of one training by the package in ``tree``: of the clock and of the processor."""
    command = [sys.executable, __file__, *sys.argv[1:], "--once"]
    environment = {**os.environ, "PYTHONPATH": str(tree.resolve() / "src")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    wall, processor = map(float, done.stdout.split()[-2:])
    return wall, processor


def seconds(options: argparse.Namespace) -> tuple[float, float]:
    """Of a training of one epoch, the second one in this process."""
    import torch

    from lcprune.data import Augmentation, Data, Images, load_data, training_batches
    from lcprune.models import build, load_weights
    from lcprune.training import TrainingConfig, finetune

    torch.set_num_threads(options.threads)
    if options.cifar is not None:
        data = load_data(f"cifar10:{options.cifar}")
    else:
        pixels = torch.randint(256, (options.images, 3, 32, 32), dtype=torch.uint8)
        drawn = Images(pixels, torch.arange(options.images) % 10)
        classes, mean = tuple("0123456789"), (0.5,) * 3
        data = Data(drawn, drawn, classes, mean, mean, (3, 32, 32), augmentation=Augmentation())
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


if __name__ == "__main__":
    main()
