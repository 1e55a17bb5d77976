"""Threads change how long it takes, and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from lcprune.fitness import CrossEntropy, Precision, recalibrate
from lcprune.fitness._running import replicas, seeded, spread, worker_count
from lcprune.models import build, state_sha256


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Remembering(nn.Module):
    """Keeps what it computes in itself for a moment, and can't be followed by torch.fx."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8))
        self.register_buffer("kept", torch.zeros(1))

    def forward(self, input: Tensor) -> Tensor:
        self.kept = self.inner(input)
        if float(self.kept.sum()) == 0.5:
            self.kept = self.kept * 2
        output: Tensor = self.kept.mean((2, 3))
        return output


def small_network() -> nn.Module:
    return build("digits_resnet", classes=10, input_shape=(1, 8, 8))


@pytest.mark.parametrize("make", [small_network, Remembering])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_number_of_threads_does_not_change_a_bit(make: object, dtype: str) -> None:
    assert callable(make)
    precision = Precision(dtype, True, 7)
    images, labels = torch.randn(60, 1, 8, 8), torch.arange(60) % 8
    batches = [precision.cast(part) for part in torch.split(images, 13)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        original = make()
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = precision.apply(make())
        recalibrate(model, batches)
        loss = CrossEntropy(images, labels, 7, precision)(model)
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        results.append((loss, state_sha256(nn.ModuleList(norms))))
        assert torch.get_num_threads() == threads
    assert results[0] == results[1] == results[2]
    assert results[0][1] != state_sha256(
        nn.ModuleList([m for m in original.modules() if isinstance(m, nn.BatchNorm2d)])
    )


def test_every_worker_has_a_thread_and_a_model_and_order_is_kept() -> None:
    torch.set_num_threads(3)
    models: list[nn.Module] = [nn.Identity() for _ in range(3)]
    meeting = threading.Barrier(3, timeout=30)

    def work(model: nn.Module, item: int) -> tuple[int, int, int]:
        if item < 3:
            meeting.wait()  # passes only when three threads are here at once
        return item, models.index(model), torch.get_num_threads()

    results = spread(work, models, list(range(7)), 3)
    assert results == [(item, item % 3, 1) for item in range(7)]
    assert torch.get_num_threads() == 3


def test_what_a_worker_raises_arrives_and_threads_are_restored() -> None:
    torch.set_num_threads(2)

    def fail(_: nn.Module, item: int) -> None:
        raise ValueError(item)

    with pytest.raises(ValueError, match="0"):
        spread(fail, [nn.Identity(), nn.Identity()], [0, 1], 2)
    assert torch.get_num_threads() == 2


def test_replicas_share_parameters_but_not_buffers() -> None:
    model = small_network()
    first, second = replicas(model, 2)
    assert first is model
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert one is other
    for mine, copied in zip(first.buffers(), second.buffers(), strict=True):
        assert mine.data_ptr() != copied.data_ptr()


def test_workers_are_threads_but_no_more_than_batches() -> None:
    torch.set_num_threads(3)
    assert [worker_count(small_network(), n) for n in (1, 2, 9)] == [1, 2, 3]
    assert worker_count(nn.Linear(2, 2, device="meta"), 9) == 0


def test_all_generators_are_seeded_within_and_as_before_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those of two GPUs that are not there, too."""
    states = {0: "zero", 1: "one"}

    def seed_all(seed: int) -> None:
        states.update({device: f"{device} of {seed}" for device in states})

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: states[device])
    monkeypatch.setattr(
        torch.cuda, "set_rng_state", lambda state, device: states.update({device: state})
    )
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seed_all)
    before = torch.get_rng_state()
    with seeded(7):
        assert torch.rand(()) == torch.rand((), generator=torch.Generator().manual_seed(7))
        assert states == {0: "0 of 7", 1: "1 of 7"}
    assert torch.equal(torch.get_rng_state(), before)
    assert states == {0: "zero", 1: "one"}
