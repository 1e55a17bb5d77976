"""Several processes that train one network together, started by a launcher."""

from __future__ import annotations

import datetime
import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from lcprune.errors import InputError, LcpruneError, RunError

T = TypeVar("T")

_PATIENCE = datetime.timedelta(days=7)
"""How long processes wait where one works alone; the launcher ends them where it fails."""


_alone = ContextVar("alone", default=False)
"""Whether this is the main process in what the others don't take part in."""


class ElsewhereError(RunError):
    """Another process failed, which tells the reason itself: this one ends without a word."""


def process_count() -> int:
    """How many processes work together: those that a launcher started, else 1.

    Launchers are ``accelerate launch`` and ``torchrun``. Within ``on_main`` there is one.
    """
    if _alone.get():
        return 1
    return int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1


def is_main() -> bool:
    """Whether this is the process that writes and speaks; it is where there is only one."""
    return process_count() == 1 or os.environ.get("RANK", "0") == "0"


def on_main(work: Callable[[], T]) -> T:
    """Do ``work`` in the main process alone; all processes get what it returns.

    Every process must call this, in the same order; the others wait, for days if need be. What
    it returns must be something that can be pickled. A training within it is one in a single
    process. Where it raises a ``LcpruneError``, the main
    process gets that and the others an ``ElsewhereError``.
    """
    if process_count() == 1:
        return work()
    group = _waiting_room()
    answer: list[Any] = [None, None]
    failure: LcpruneError | None = None
    if is_main():
        token = _alone.set(True)
        try:
            answer[0] = work()
        except LcpruneError as error:
            failure = error
            answer[1] = str(error)
        finally:
            _alone.reset(token)
    with _hanging_up():
        distributed.broadcast_object_list(answer, src=0, group=group)
    if failure is not None:
        raise failure
    if answer[1] is not None:
        raise ElsewhereError(answer[1])
    result: T = answer[0]
    return result


@contextmanager
def alike() -> Iterator[None]:
    """Errors within are those of all processes: the main one's stays, others' are elsewhere."""
    try:
        yield
    except LcpruneError as error:
        if is_main():
            raise
        raise ElsewhereError(str(error)) from error


@dataclass(frozen=True)
class Processes:
    """This process among those that train together: ``rank`` of ``count``, on its ``device``."""

    rank: int
    count: int
    device: torch.device

    def copies(self, size: int) -> int:
        """How many processes hold a sample of a global batch of ``size``.

        A batch with fewer samples than processes is everybody's, since an empty part can't be run.
        """
        return self.count if size < self.count else 1

    def part(self, size: int) -> slice:
        """This process's samples of a global batch of ``size``.

        The parts of all processes are the batch, in order, and differ in size by at most one,
        unless the batch is everybody's.
        """
        if self.copies(size) > 1:
            return slice(0, size)
        return slice(self.rank * size // self.count, (self.rank + 1) * size // self.count)

    def weight(self, size: int) -> float:
        """What the mean over this process's part counts for in that over the global batch."""
        if self.copies(size) > 1 or self.count == 1:
            return 1 / self.count
        return len(range(size)[self.part(size)]) / size

    def sum(self, *values: float) -> list[float]:
        """Sums over the processes."""
        if self.count == 1:
            return list(values)
        held = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(held)
        return [float(value) for value in held]

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank; something that can be pickled."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        distributed.all_gather_object(values, value, group=_waiting_room())
        return values

    @contextmanager
    def training(self, model: nn.Module) -> Iterator[nn.Module]:
        """What to call in place of ``model``, so that its gradients are means over processes."""
        if self.count == 1:
            yield model
            return
        accelerator = _accelerator(self.device.type == "cpu")
        with _hanging_up():
            try:
                yield accelerator.prepare_model(model)
            finally:
                accelerator.free_memory()


def join(device: str) -> Processes:
    """Meet the other processes, where a launcher started several.

    ``InputError`` where accelerate is not installed or the processes can't meet.
    """
    place = torch.device(device)
    if process_count() == 1:
        return Processes(0, 1, place)
    if importlib.util.find_spec("accelerate") is None:
        raise InputError(
            "training in several processes needs accelerate: pip install 'lcprune[distributed]'"
        )
    _waiting_room()
    accelerator = _accelerator(place.type == "cpu")
    return Processes(accelerator.process_index, accelerator.num_processes, accelerator.device)


@cache
def _accelerator(cpu: bool) -> Any:
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs

    # A static graph is one in which the same parameters are used in each step, be it not all.
    parallel = DistributedDataParallelKwargs(static_graph=True)
    return Accelerator(cpu=cpu, mixed_precision="no", kwargs_handlers=[parallel])


@cache
def _waiting_room() -> Any:
    """A group for what is no tensor, in which waiting long is no failure."""
    if not distributed.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        try:
            distributed.init_process_group(backend)
        except (RuntimeError, ValueError) as error:
            raise InputError(f"the {process_count()} processes can't meet: {error}") from error
    return distributed.new_group(backend="gloo", timeout=_PATIENCE)


@contextmanager
def _hanging_up() -> Iterator[None]:
    """``ElsewhereError`` where another process is not there any more."""
    try:
        yield
    except RuntimeError as error:
        text = str(error).lower()
        if isinstance(error, distributed.DistError) or "gloo" in text or "nccl" in text:
            raise ElsewhereError("another process of this training has ended") from error
        raise


class SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over the processes, and of its gradient on the way back."""

    @staticmethod
    def forward(_: Any, value: Tensor) -> Tensor:
        total = value.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total
