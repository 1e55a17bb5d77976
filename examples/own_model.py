"""A model of one's own, pruned to half its MACs in ten lines.

    python examples/own_model.py

The model is an ordinary ``nn.Module`` with a residual sum, a depthwise convolution and a gate. The
images are made up (stripes in six directions under noise), so that all of it takes seconds.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lcprune as lp
from lcprune.fitness import CrossEntropy

SIZE, CLASSES = 16, 6


class Block(nn.Module):
    """A depthwise and a pointwise convolution, gated by channel, added to what came in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Sequential(
            nn.Conv2d(width, 2 * width, 1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
        )
        self.gate = nn.Conv2d(2 * width, 2 * width, 1)
        self.back = nn.Conv2d(2 * width, width, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.mix(x)
        gated = mixed * torch.sigmoid(self.gate(mixed.mean((2, 3), keepdim=True)))
        summed: Tensor = x + self.norm(self.back(gated))
        return summed


class Net(nn.Module):
    """Images [N, 1, SIZE, SIZE] to logits [N, CLASSES]."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width)
        )
        self.blocks = nn.Sequential(Block(width), Block(width))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.blocks(self.stem(x)).mean((2, 3)))
        return logits


def stripes(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images float32 [count, 1, SIZE, SIZE] and the number of their direction, int64 [count]."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    angle = (labels * math.pi / CLASSES)[:, None, None]
    phase = 2 * math.pi * torch.rand(count, 1, 1, generator=generator)
    axis = torch.arange(SIZE, dtype=torch.float32)
    along = axis[:, None] * torch.sin(angle) + axis[None, :] * torch.cos(angle)
    noise = torch.randn(count, SIZE, SIZE, generator=generator)
    return (torch.sin(1.2 * along + phase) + 2.5 * noise)[:, None], labels


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Correct answers in percent."""
    return 100 * float((model.eval()(images).argmax(1) == labels).float().mean())


@dataclass(frozen=True)
class Outcome:
    """The network and what became of it; accuracies on the test images in percent."""

    model: nn.Module
    small: nn.Module
    plan: lp.Plan
    before: float
    after: float
    macs_before: int


def run(directory: Path, *, samples: int, trials: int, epochs: int, seed: int) -> Outcome:
    """Train, prune, fine-tune, save and load."""
    images, labels = stripes(samples, seed + 1)
    test_images, test_labels = stripes(1000, seed + 2)
    loader = DataLoader(
        TensorDataset(images, labels),
        batch_size=64,
        shuffle=True,
        generator=torch.Generator().manual_seed(seed),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Net()
    config = lp.TrainingConfig(epochs=epochs, learning_rate=0.1, seed=seed)
    lp.finetune(model, loader, config=config)

    # Two parts of the training data: one to estimate batch norms on, one to judge by.
    example, part = images[:2], samples // 4
    inputs = list(torch.split(images[:part], 128))
    fitness = CrossEntropy(images[part : 3 * part], labels[part : 3 * part], batch=128)
    budget = lp.Budget(macs=0.5)

    # Ten lines from here ...
    graph = lp.repair(model, lp.trace(model, example), example)
    saliency = lp.saliency(model, graph, "l2")
    best = lp.search(
        model, graph, saliency, budget, fitness=fitness, recalibrate=inputs, trials=trials
    )
    small = lp.slim(model, best.plan)
    lp.verify(model, small, best.plan, example)
    lp.finetune(small, loader, teacher=model, config=config)
    lp.save(small, directory, plan=best.plan, example_input=example)
    small = lp.load(directory, model)
    # ... to here.

    return Outcome(
        model=model,
        small=small,
        plan=best.plan,
        before=accuracy(model, test_images, test_labels),
        after=accuracy(small, test_images, test_labels),
        macs_before=lp.CostModel(graph).evaluate()["macs"],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--samples", type=int, default=2000, help="training images")
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=5, help="of training, and of fine-tuning")
    parser.add_argument("--seed", type=int, default=0)
    with tempfile.TemporaryDirectory() as directory:
        outcome = run(Path(directory), **vars(parser.parse_args()))
    print(f"MACs      {outcome.macs_before:>10,} → {outcome.plan.cost['macs']:,}")
    print(f"accuracy  {outcome.before:>8.1f} % → {outcome.after:.1f} %")


if __name__ == "__main__":
    main()
