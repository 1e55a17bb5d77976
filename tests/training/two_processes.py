"""What each of two processes does; ``test_processes.py`` starts them and reads what they write."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lcprune.errors import DataError, LcpruneError, RunError
from lcprune.training import (
    ElsewhereError,
    EpochReport,
    TrainingConfig,
    finetune,
    is_main,
    on_main,
    process_count,
)

CONFIG = TrainingConfig(epochs=3, learning_rate=0.2)
EVERYTHING = TrainingConfig(
    epochs=2, learning_rate=0.2, label_smoothing=0.1, mixup=0.4, ema=0.9, clip=0.5, temperature=2.0
)


def batches(*sizes: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(size, 3, 8, 8, generator=generator, dtype=torch.float64),
            torch.randint(4, (size,), generator=generator),
        )
        for size in sizes
    ]


LOADER = batches(8, 7, 8, 5, 1)
"""A last batch of one sample has fewer than there are processes."""


def network(dropout: float = 0.0, seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Conv2d(6, 6, 3, groups=2),
            nn.BatchNorm2d(6, affine=False, momentum=None),
            nn.ReLU(),
            nn.Conv2d(6, 6, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 4),
        ).double()


class Teacher(nn.Module):
    """Computes in float64, whatever type its weights are brought to.

    In float32 some processors round a part of a batch otherwise than the whole of it, by more than
    the two trainings may differ.
    """

    def __init__(self) -> None:
        super().__init__()
        self.inner = network(seed=9)

    def forward(self, inputs: Tensor) -> Tensor:
        state = {name: value.double() for name, value in self.inner.state_dict().items()}
        outputs: Tensor = torch.func.functional_call(self.inner, state, (inputs.double(),))
        return outputs


def train(name: str) -> dict[str, Any]:
    """One of the trainings that one process and two must agree on."""
    model = network()
    if name == "frozen":
        model[0].requires_grad_(False)
        model[1].eval()
    if name == "everything":
        result = finetune(model, LOADER, LOADER, teacher=Teacher(), config=EVERYTHING)
    else:
        result = finetune(model, LOADER, LOADER, config=CONFIG)
    return {
        "state": model.state_dict(),
        "reports": [[report.loss, report.val_accuracy or 0.0] for report in result.reports],
    }


NAMES = ("plain", "frozen", "everything")


def resumed(folder: Path) -> list[dict[str, Tensor]]:
    """A network with dropout, trained in one go and with a break."""
    whole, path = network(0.3), folder / "resumed.pt"
    finetune(whole, LOADER, config=CONFIG)

    def interrupt(report: EpochReport) -> None:
        assert is_main()
        if report.epoch == 2:
            raise RunError("broken off")

    broken = network(0.3)
    ended = outcome(
        lambda: finetune(broken, LOADER, config=CONFIG, checkpoint=path, on_epoch=interrupt)
    )
    assert ended == ["RunError" if is_main() else "ElsewhereError", "broken off"]
    second = network(0.3, seed=5)
    finetune(second, LOADER, config=CONFIG, checkpoint=path, resume=True)
    return [whole.state_dict(), second.state_dict()]


def outcome(work: Callable[[], object]) -> list[str]:
    try:
        work()
    except LcpruneError as error:
        return [type(error).__name__, str(error)]
    return ["", ""]


def diverge() -> None:
    config = TrainingConfig(epochs=30, learning_rate=1e6, schedule="cosine")
    finetune(network(), LOADER, config=config)


def refuse() -> int:
    raise DataError("no such data")


class Failing:
    """Fails in one process, in the middle of an epoch."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for i, batch in enumerate(LOADER):
            if i == 2 and not is_main():
                raise DataError("image 17 is damaged")
            yield batch


def main(folder: Path) -> None:
    rank = os.environ["RANK"]
    assert process_count() == 2
    trained = {name: train(name) for name in NAMES}
    torch.save({**trained, "resumed": resumed(folder)}, folder / f"states-{rank}.pt")
    outcomes = {
        "told": on_main(lambda: [os.getpid()]),
        "alone": on_main(
            lambda: [process_count(), on_main(process_count), train("plain")["reports"]]
        ),
        "refused": outcome(lambda: on_main(refuse)),
        "diverged": outcome(diverge),
        "unwritable": outcome(
            lambda: finetune(network(), LOADER, config=CONFIG, checkpoint=folder / "no" / "file")
        ),
    }
    (folder / f"outcomes-{rank}.json").write_text(json.dumps(outcomes))
    try:
        finetune(network(), Failing(), config=CONFIG)
    except ElsewhereError:
        sys.exit(2)
    except LcpruneError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
