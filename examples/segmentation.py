"""A segmentation network pruned by its own fitness, and fine-tuned by its own loop.

    python examples/segmentation.py          # about two minutes on one core
    python examples/segmentation.py --quick  # seconds, to see that it runs

The network is torchvision's LR-ASPP on MobileNetV3 (Howard et al., "Searching for MobileNetV3",
ICCV 2019, section 6.4), from random weights. The scenes are made up: discs, squares and triangles
on noise, each kind in colours of its own, beside grey ones that belong to the background. What a
pruned network is worth is the intersection over union of the kinds; nothing here is a label per
image, so the search gets a function of its own and the training is an ordinary PyTorch loop.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

import lcprune as lp

SIZE, BATCH = 64, 16
KINDS = ("background", "disc", "square", "triangle")
COLOURS = torch.tensor([[0.5, 0.5, 0.5], [0.9, 0.3, 0.2], [0.2, 0.8, 0.3], [0.2, 0.3, 0.9]])

Batches = Sequence[tuple[Tensor, Tensor]]


def scenes(count: int, seed: int) -> Batches:
    """Batches of images float32 [B, 3, SIZE, SIZE] and masks int64 [B, SIZE, SIZE], kind by pixel.

    Every scene has one shape of each kind and a grey one, later ones in front.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    images = 0.5 + 0.15 * torch.randn(count, 3, SIZE, SIZE, generator=generator)
    masks = torch.zeros(count, SIZE, SIZE, dtype=torch.int64)
    axis = torch.arange(SIZE, dtype=torch.float32)
    for kind in range(len(KINDS)):
        radius = uniform(0.14, 0.24, 1, 1) * SIZE
        y = axis[:, None] - uniform(0.15, 0.85, 1, 1) * SIZE
        x = axis[None, :] - uniform(0.15, 0.85, 1, 1) * SIZE
        disc, square = x**2 + y**2 < radius**2, (x.abs() < radius) & (y.abs() < radius)
        triangle = (y.abs() < radius) & (x.abs() < (y + radius) / 2)
        inside = (square, disc, square, triangle)[kind]
        colour = COLOURS[kind] + uniform(-0.15, 0.15, 3)
        textured = colour[:, :, None, None] + uniform(-0.15, 0.15, 3, SIZE, SIZE)
        images = torch.where(inside[:, None], textured, images)
        masks = torch.where(inside, kind, masks)
    return list(zip(images.split(BATCH), masks.split(BATCH), strict=True))


@torch.no_grad()
def mean_iou(model: nn.Module, data: Batches) -> float:
    """Intersection over union in percent, the mean of all kinds, over all pixels of ``data``."""
    model.eval()
    pairs = torch.zeros(len(KINDS) ** 2, dtype=torch.int64)
    for images, masks in data:
        found = model(images)["out"].argmax(1)
        pairs += torch.bincount((masks * len(KINDS) + found).flatten(), minlength=len(pairs))
    table = pairs.view(len(KINDS), len(KINDS))
    both, either = table.diag(), table.sum(0) + table.sum(1) - table.diag()
    return 100 * float((both / either.clamp(min=1)).mean())


def fit(model: nn.Module, data: Batches, *, epochs: int, rate: float) -> None:
    """An ordinary training loop; ``lcprune.finetune`` is for classifiers."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, epochs * len(data))
    for _ in range(epochs):
        for images, masks in data:
            model.train()
            loss = functional.cross_entropy(model(images)["out"], masks)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    # MobileNetV3 follows its batch statistics slowly, more slowly than a training this short.
    lp.recalibrate(model, [images for images, _ in data])


@dataclass(frozen=True)
class Outcome:
    """Both networks, the plan between them, and mean IoUs on the test scenes in percent."""

    model: nn.Module
    small: nn.Module
    graph: lp.ChannelGraph
    plan: lp.Plan
    before: float
    pruned: float
    after: float
    error: float
    train_seconds: float
    search_seconds: float
    finetune_seconds: float


def run(*, budget: float, trials: int, samples: int, epochs: int, seed: int) -> Outcome:
    """Train, trace, search, slim, verify and fine-tune."""
    train, test = scenes(samples, seed + 1), scenes(samples // 2, seed + 2)
    # Two parts of the training scenes: one to estimate batch norms on, one to judge by.
    recalibration = [images for images, _ in train[:6]]
    validation = train[6:14] or train
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = lraspp_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=len(KINDS)
        )
        start = time.perf_counter()
        fit(model, train, epochs=epochs, rate=4e-3)
        trained = time.perf_counter()

        # Search, cut, check
        example = train[0][0][:2]
        graph = lp.repair(model, lp.trace(model, example), example)
        result = lp.search(
            model,
            graph,
            lp.saliency(model, graph, "l2"),
            lp.Budget(macs=budget),
            fitness=lambda candidate: 100 - mean_iou(candidate, validation),
            recalibrate=recalibration,
            trials=trials,
            compensation="additive:family-rank",
            seed=seed,
        )
        small = lp.slim(model, result.plan)
        error = lp.verify(model, small, result.plan, example)
        # Fine-tune
        lp.recalibrate(small, recalibration)
        pruned = mean_iou(small, test)
        searched = time.perf_counter()
        fit(small, train, epochs=max(1, epochs // 2), rate=2e-3)
        end = time.perf_counter()
    return Outcome(
        model=model,
        small=small,
        graph=graph,
        plan=result.plan,
        before=mean_iou(model, test),
        pruned=pruned,
        after=mean_iou(small, test),
        error=error,
        train_seconds=trained - start,
        search_seconds=searched - trained,
        finetune_seconds=end - searched,
    )


def table(outcome: Outcome) -> Table:
    """Both networks side by side."""
    whole, cost = lp.CostModel(outcome.graph).evaluate(), outcome.plan.cost
    found = Table("", "whole", "pruned", title="LR-ASPP on MobileNetV3")
    for name, shown in (("macs", f"MACs of {SIZE}×{SIZE} pixels"), ("params", "parameters")):
        share = 100 * cost[name] / whole[name]
        found.add_row(shown, f"{whole[name]:,}", f"{cost[name]:,} ({share:.1f} %)")
    found.add_row(
        "mean IoU, %", f"{outcome.before:.1f}", f"{outcome.after:.1f} ({outcome.pruned:.1f}"
        " before fine-tuning)",
    )  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--budget", type=float, default=0.5, help="share of the MACs that may stay")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--samples", type=int, default=512, help="training scenes")
    parser.add_argument(
        "--epochs", type=int, default=8, help="of training; half as many of fine-tuning"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="very little of everything")
    options = vars(parser.parse_args())
    if options.pop("quick"):
        options |= {"trials": 2, "samples": 32, "epochs": 1}
    outcome = run(**options)
    console = Console()
    console.print(table(outcome))
    console.print(
        f"training {outcome.train_seconds:.0f} s, tracing and search"
        f" {outcome.search_seconds:.0f} s, fine-tuning {outcome.finetune_seconds:.0f} s; the"
        f" slimmed network equals the masked one within {outcome.error:.1g}"
    )


if __name__ == "__main__":
    main()
