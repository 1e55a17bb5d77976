"""Two processes that train one network: as one would, and none is left behind."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor, nn

from data.trees import write_files
from docs.pages import ROOT, code_blocks
from lcprune.data import Data, ImageFiles, ValidationBatches, part_of, training_batches
from lcprune.errors import DataError, DivergenceError, InputError, RunError
from lcprune.training import (
    EpochReport,
    StepProgress,
    TrainingConfig,
    TrainingHook,
    TrainingResult,
    finetune,
)
from lcprune.training import _report as report_module

pytestmark = pytest.mark.xdist_group("ranks")

CONFIG = TrainingConfig(epochs=3, learning_rate=0.2)
EVERYTHING = TrainingConfig(
    epochs=2, learning_rate=0.2, label_smoothing=0.1, mixup=0.4, ema=0.9, clip=0.5, temperature=2.0
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As the two processes have: another number of threads rounds differently."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Loader:
    """Batches of given sizes; a last one of one sample has fewer than there are processes."""

    def __init__(self, *sizes: int) -> None:
        generator = torch.Generator().manual_seed(1)
        self.batches = [
            (
                torch.randn(size, 3, 8, 8, generator=generator, dtype=torch.float64),
                torch.randint(4, (size,), generator=generator),
            )
            for size in sizes or (8, 7, 8, 5, 1)
        ]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.batches)

    def shard(self, rank: int, count: int) -> Iterator[tuple[Tensor, Tensor, int]]:
        for inputs, targets in self:
            part = part_of(len(targets), rank, count)
            yield inputs[part], targets[part], len(targets)


class Failing(Loader):
    """Fails in one of two processes, in the middle of an epoch, or ends that."""

    def __init__(self, error: Exception | None) -> None:
        super().__init__()
        self.error = error

    def shard(self, rank: int, count: int) -> Iterator[tuple[Tensor, Tensor, int]]:
        for number, part in enumerate(super().shard(rank, count)):
            if number == 2 and rank == 1:
                if self.error is None:
                    os.kill(os.getpid(), signal.SIGKILL)
                else:
                    raise self.error
            yield part


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


class Shrinking(TrainingHook):
    """A penalty, and a count of what it was asked."""

    def __init__(self) -> None:
        self.steps = 0

    def penalty(self, model: nn.Module, step: int) -> Tensor:
        self.steps += 1
        return 0.01 * model[0].weight.abs().sum()  # type: ignore[index]

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: Any) -> None:
        self.steps = state["steps"]


def assert_as_one(kind: str, tmp_path: Path) -> None:
    """One process and two end with the same weights, losses, accuracies and hooks' states."""
    results: list[tuple[dict[str, Tensor], TrainingResult, int]] = []
    for processes in (1, 2):
        model, hook = network(), Shrinking()
        if kind == "frozen":
            model[0].requires_grad_(False)
            model[1].eval()
        told: list[EpochReport] = []
        result = finetune(
            model,
            Loader(),
            Loader(),
            teacher=Teacher() if kind == "everything" else None,
            config=EVERYTHING if kind == "everything" else CONFIG,
            hooks=[hook] if kind == "everything" else [],
            checkpoint=tmp_path / f"{processes}.pt",
            on_epoch=told.append,
            processes=processes,
        )
        assert tuple(told) == result.reports
        assert not any(module.training for module in model.modules())
        results.append((model.state_dict(), result, hook.steps))
    (one, alone, steps), (two, together, hook_steps) = results
    torch.testing.assert_close(two, one, rtol=1e-9, atol=1e-12)
    assert steps == hook_steps
    for own, reference in zip(together.reports, alone.reports, strict=True):
        assert own.loss == pytest.approx(reference.loss, rel=1e-6)
        assert own.val_accuracy == pytest.approx(reference.val_accuracy)
    with pytest.raises(RunError, match=r"with processes = 2, expected 1$"):
        finetune(
            network(),
            Loader(),
            config=alone_config(kind),
            hooks=[Shrinking()] if kind == "everything" else [],
            checkpoint=tmp_path / "2.pt",
            resume=True,
        )


def alone_config(kind: str) -> TrainingConfig:
    return EVERYTHING if kind == "everything" else CONFIG


def test_the_result_is_that_of_one_process(tmp_path: Path) -> None:
    """With a teacher, mixing, averaging, clipping, a hook, uneven batches and validation."""
    assert_as_one("everything", tmp_path)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["plain", "frozen"])
def test_so_is_that_of_other_trainings(tmp_path: Path, kind: str) -> None:
    assert_as_one(kind, tmp_path)


@pytest.mark.thorough
def test_a_resumed_training_equals_the_unbroken_one(tmp_path: Path) -> None:
    """With dropout, which draws in each process from a generator of its own."""
    states = []
    for name, stop in (("whole", 0), ("broken", 2)):
        path = tmp_path / name

        def interrupt(report: EpochReport, stop: int = stop) -> None:
            if report.epoch == stop:
                raise RunError("broken off")

        def run(path: Path = path, **options: Any) -> nn.Module:
            model = network(0.3)
            finetune(
                model, Loader(), config=CONFIG, checkpoint=path, processes=2, resume=True, **options
            )
            return model

        if stop:
            with pytest.raises(RunError, match="broken off"):
                run(on_epoch=interrupt)
        states.append(run().state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.thorough
@pytest.mark.parametrize("streamed", [False, True])
def test_images_are_read_and_validated_in_parts(tmp_path: Path, streamed: bool) -> None:
    files = write_files(tmp_path, [(24, 20), (20, 30)] * 22)
    images: Any = ImageFiles(files, torch.arange(44) % 4, 16, workers=2)
    images = images if streamed else images.in_memory()
    data = Data(images, images, tuple("abcd"), (0.2, 0.4, 0.6), (0.5, 0.25, 0.2), (3, 16, 16))
    results = []
    for processes in (1, 2):
        model = network().float()
        result = finetune(
            model,
            training_batches(images, data, 40, crop=2),
            ValidationBatches(images, data, 6),
            config=TrainingConfig(epochs=2, learning_rate=0.05),
            processes=processes,
        )
        results.append(([r.loss for r in result.reports], result.val_accuracy, model.state_dict()))
    (losses, top1, one), (others, other_top1, two) = results
    assert losses == pytest.approx(others, rel=1e-4)
    assert top1 == pytest.approx(other_top1, abs=100 / 44)  # one may lie on the border
    torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-4)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (DataError("image 17 is damaged"), DataError, r"^image 17 is damaged$"),
        (ZeroDivisionError("odd"), ZeroDivisionError, "odd"),
        (None, RunError, r"^process 1 of this training was ended from outside: is there enough"),
    ],
)
def test_one_that_fails_ends_all_with_its_reason(
    error: Exception | None, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        finetune(network(), Failing(error), config=CONFIG, processes=2)
    assert multiprocessing.active_children() == []


@pytest.mark.thorough
def test_a_divergence_stays_one_and_steps_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_module, "SECONDS_APART", 0.0)
    config = dataclasses.replace(CONFIG, epochs=30, learning_rate=1e6, schedule="cosine")
    steps: list[StepProgress] = []
    with pytest.raises(DivergenceError, match=r"epoch \d+, step \d+: lower the learning rate, 1e"):
        finetune(network(), Loader(), config=config, processes=2, on_step=steps.append)
    assert {(step.step, step.steps) for step in steps} == {(5, 5)}  # ranks have a module anew


SCRIPT = """
import os, signal, sys
import torch
from torch import nn
from lcprune.data import part_of
from lcprune.training import TrainingConfig, finetune

class Endless:  # of this script, which is not guarded
    def __iter__(self):
        raise NotImplementedError
    def __len__(self):
        return 10**9
    def shard(self, rank, count):
        for step in range(10**9):
            if step == 20 and rank == 0:
                print(os.getpid(), flush=True)
            yield torch.randn(2, 4), torch.tensor([0, 1]), 4

class Net(nn.Linear):
    pass

print("begins", flush=True)
finetune(Net(4, 2), Endless(), config=TrainingConfig(epochs=1), processes=2)
"""


@pytest.mark.thorough
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="no process groups here")
@pytest.mark.parametrize("how", ["SIGKILL", "SIGINT"])
def test_none_outlives_the_process_that_called(tmp_path: Path, how: str) -> None:
    """The output ends when all have ended that inherited it."""
    (tmp_path / "script.py").write_text(SCRIPT)
    with subprocess.Popen(
        [sys.executable, tmp_path / "script.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a process group of its own, as a terminal's foreground job has
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "begins\n"
            rank = int(process.stdout.readline())
            assert rank != process.pid
            if how == "SIGKILL":
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGINT)
            rest, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert rest == ""
    assert not psutil.pid_exists(rank) or psutil.Process(rank).status() == psutil.STATUS_ZOMBIE
    assert errors.count("Traceback") == (how == "SIGINT")  # the script's own KeyboardInterrupt
    assert errors == "" or errors.rstrip().endswith("KeyboardInterrupt")


def test_what_cannot_be_shared_is_refused() -> None:
    with pytest.raises(InputError, match=r"needs loaders with shard\(rank, count\).* got list$"):
        finetune(network(), Loader().batches, config=CONFIG, processes=2)
    with pytest.raises(InputError, match=r"got list$"):
        finetune(network(), Loader(), Loader().batches, config=CONFIG, processes=2)
    locked = Loader()
    locked.lock = threading.Lock()  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"something that can be pickled: .*lock") as caught:
        finetune(network(), locked, config=CONFIG, processes=2)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="processes is 0, expected an integer from 1"):
        finetune(network(), Loader(), config=CONFIG, processes=0)
    with pytest.raises(InputError, match="expected cpu or cuda, got mps"):
        finetune(network(), Loader(), config=CONFIG, processes=2, device="mps")


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match="expected a GPU for each, there are 1"):
        finetune(model, Loader(), config=CONFIG, processes=2, device="cuda")


def test_the_loader_of_the_page_is_shared_as_those_of_the_package_are() -> None:
    [block] = [b for b in code_blocks(ROOT / "docs" / "scaling.md") if "MyLoader" in b]
    names: dict[str, Any] = {"MyLoader": Loader}
    exec(block, names)
    for count in (2, 3):
        for rank in range(count):
            found = names["Mine"]().shard(rank, count)
            for (inputs, targets, size), (x, y, n) in zip(
                found, Loader().shard(rank, count), strict=True
            ):
                assert torch.equal(inputs, x)
                assert torch.equal(targets, y)
                assert size == n
