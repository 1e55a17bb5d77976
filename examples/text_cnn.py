"""A text CNN over embeddings, pruned by a fitness of one's own.

    python examples/text_cnn.py --trials 60 --budget 0.2

The network is that of Kim, "Convolutional neural networks for sentence classification", EMNLP
2014, with a batch norm behind every convolution. The data are made up: sequences of random tokens
in which one n-gram decides the class, beside tokens of other n-grams in a wrong order, so that
the order has to be read. Nothing here is an image: tokens are integers, the embedding's columns
are channels like any other, and what a pruned network is worth is a plain function.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

import lcprune as lp

VOCABULARY, LENGTH = 64, 32
WIDTHS = (3, 4, 5)
CLASSES = 2 * len(WIDTHS)

Batches = list[tuple[Tensor, Tensor]]


class TextCNN(nn.Module):
    """Token numbers [N, LENGTH] to logits [N, CLASSES]: parallel convolutions, max over time."""

    def __init__(self, embedded: int = 32, filters: int = 48) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, embedded)
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv1d(embedded, filters, width), nn.BatchNorm1d(filters), nn.ReLU())
            for width in WIDTHS
        )
        self.dropout = nn.Dropout(0.3)
        self.classify = nn.Linear(filters * len(WIDTHS), CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens).transpose(1, 2)
        pooled = [branch(x).amax(2) for branch in self.branches]
        logits: Tensor = self.classify(self.dropout(torch.cat(pooled, 1)))
        return logits


def sequences(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Tokens int64 [count, LENGTH] and classes int64 [count]; the n-grams are always the same."""
    fixed = torch.Generator().manual_seed(0)
    grams = [
        torch.randint(VOCABULARY, (width,), generator=fixed) for width in WIDTHS for _ in range(2)
    ]
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(VOCABULARY, (count, LENGTH), generator=generator)
    classes = torch.randint(CLASSES, (count,), generator=generator)
    decoys = (classes + torch.randint(1, CLASSES, (count,), generator=generator)) % CLASSES
    half = LENGTH // 2
    places = torch.randint(half - max(WIDTHS), (count, 2), generator=generator)
    for row, gram, decoy, (first, second) in zip(
        tokens, classes.tolist(), decoys.tolist(), places.tolist(), strict=True
    ):
        row[first : first + len(grams[gram])] = grams[gram]
        row[half + second : half + second + len(grams[decoy])] = grams[decoy].flip(0)
    return tokens, classes


def batches(tokens: Tensor, classes: Tensor, size: int = 64) -> Batches:
    return list(zip(tokens.split(size), classes.split(size), strict=True))


@torch.no_grad()
def cross_entropy(model: nn.Module, data: Batches) -> float:
    """Mean loss: what the search minimises. Any function of a model would do."""
    model.eval()
    losses = [functional.cross_entropy(model(x), y, reduction="sum") for x, y in data]
    return float(sum(losses)) / sum(len(y) for _, y in data)


@torch.no_grad()
def accuracy(model: nn.Module, data: Batches) -> float:
    """Correct answers in percent."""
    model.eval()
    right = sum(int((model(x).argmax(1) == y).sum()) for x, y in data)
    return 100 * right / sum(len(y) for _, y in data)


@dataclass(frozen=True)
class Outcome:
    """The networks before and after, the plan between them, and test accuracies in percent."""

    model: nn.Module
    small: nn.Module
    graph: lp.ChannelGraph
    plan: lp.Plan
    before: float
    pruned: float
    after: float
    error: float
    search_seconds: float


def run(*, budget: float, trials: int, samples: int, epochs: int, seed: int) -> Outcome:
    """Train, trace, search, slim, verify and fine-tune."""
    tokens, classes = sequences(samples, seed + 1)
    train, test = batches(tokens, classes), batches(*sequences(1000, seed + 2))
    # Two parts of the training data: one to estimate batch norms on, one to judge by.
    recalibration = [x for x, _ in train[: len(train) // 4]]
    validation = train[len(train) // 4 : len(train) // 2]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = TextCNN()
    lp.finetune(model, train, config=lp.TrainingConfig(epochs=epochs, learning_rate=0.1, seed=seed))
    before = accuracy(model, test)

    example = tokens[:1]
    graph = lp.trace(model, example)
    start = time.perf_counter()
    result = lp.search(
        model,
        graph,
        lp.saliency(model, graph, "l2"),
        lp.Budget(macs=budget),
        fitness=lambda candidate: cross_entropy(candidate, validation),
        recalibrate=recalibration,
        trials=trials,
        seed=seed,
    )
    seconds = time.perf_counter() - start

    small = lp.slim(model, result.plan)
    error = lp.verify(model, small, result.plan, example)
    lp.recalibrate(small, recalibration)
    pruned = accuracy(small, test)
    tuning = lp.TrainingConfig(epochs=max(1, epochs // 2), learning_rate=0.05, seed=seed)
    lp.finetune(small, train, teacher=model, config=tuning)
    return Outcome(
        model=model,
        small=small,
        graph=graph,
        plan=result.plan,
        before=before,
        pruned=pruned,
        after=accuracy(small, test),
        error=error,
        search_seconds=seconds,
    )


def table(outcome: Outcome) -> Table:
    """Both networks side by side."""
    whole = lp.CostModel(outcome.graph).evaluate()
    found = Table("", "whole", "pruned", title="a text CNN")
    found.add_row("MACs of a sequence", f"{whole['macs']:,}", f"{outcome.plan.cost['macs']:,}")
    found.add_row("parameters", f"{whole['params']:,}", f"{outcome.plan.cost['params']:,}")
    found.add_row("columns of the embedding", *_sizes(outcome, "embedding.weight", 1))
    for number, width in enumerate(WIDTHS):
        found.add_row(f"filters of width {width}", *_sizes(outcome, f"branches.{number}.0.weight"))
    found.add_row(
        "test accuracy", f"{outcome.before:.1f} %", f"{outcome.after:.1f} % ({outcome.pruned:.1f} %"
        " before fine-tuning)",
    )  # fmt: skip
    return found


def _sizes(outcome: Outcome, tensor: str, dim: int = 0) -> list[str]:
    return [str(m.get_parameter(tensor).shape[dim]) for m in (outcome.model, outcome.small)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--budget", type=float, default=0.2, help="share of the MACs that may stay")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--samples", type=int, default=3000, help="training sequences")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    outcome = run(**vars(parser.parse_args()))
    console = Console()
    console.print(table(outcome))
    console.print(
        f"search: {outcome.search_seconds:.1f} s; the slimmed network equals the masked one"
        f" within {outcome.error:.1g}"
    )


if __name__ == "__main__":
    main()
