"""Ranks: processes that train one network together, each on its part of every batch."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import connection as connections
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from lcprune._checks import refused
from lcprune._processes import ignore_hang_ups, packed, uninterrupted, without_main
from lcprune._text import one_line, shown
from lcprune.data import part_of
from lcprune.errors import InputError, LcpruneError, RunError

T = TypeVar("T")
Tell = Callable[[Any], None]
"""Sends something to the process that called, from a rank."""

Work = Callable[["Ranks", Tell], T]
"""What a rank does; what rank zero returns is the result."""

SECONDS_TO_DIE = 2.0
"""How long after a rank fails another may be found to have died, which is the reason then."""


def pair_of(batch: object) -> tuple[Tensor, Tensor]:
    """The inputs and targets of a batch; ``InputError`` where it is something else."""
    if isinstance(batch, tuple | list) and len(batch) == 2:
        inputs, targets = batch
        if isinstance(inputs, Tensor) and isinstance(targets, Tensor):
            if inputs.dim() and targets.dim() and len(inputs) == len(targets):
                return inputs, targets
            shapes = f"{tuple(inputs.shape)} and {tuple(targets.shape)}"
            raise InputError(f"a batch of training data is {shapes}, expected N inputs, N targets")
    raise refused("a batch of training data", batch, "(inputs, targets), two tensors")


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together: ``rank`` of ``count``, on its ``device``."""

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=partial(torch.device, "cpu"))

    def parts(self, loader: Any) -> Iterable[tuple[Tensor, Tensor, int]]:
        """This rank's part of each batch of a loader, and how many samples the whole has."""
        if self.count > 1:
            return loader.shard(self.rank, self.count)  # type: ignore[no-any-return]
        pairs = map(pair_of, loader)
        return ((inputs, targets, len(targets)) for inputs, targets in pairs)

    def whole(self, part: Tensor, size: int) -> Tensor:
        """The batch of ``size`` samples, (N, …), that ``part`` is this rank's part of."""
        if len(part) == size:
            return part
        lengths = [len(range(size)[part_of(size, rank, self.count)]) for rank in range(self.count)]
        padded = part.new_zeros(max(lengths), *part.shape[1:])
        padded[: len(part)] = part
        rows = [torch.empty_like(padded) for _ in lengths]
        distributed.all_gather(rows, padded)
        return torch.cat([row[:length] for row, length in zip(rows, lengths, strict=True)])

    def weight(self, size: int) -> float:
        """What the mean over this rank's part counts for in that over a batch of ``size``."""
        if size < self.count:  # everybody has all of it
            return 1 / self.count
        return len(range(size)[part_of(size, self.rank, self.count)]) / size

    def sum(self, *values: float) -> list[float]:
        """Sums over the ranks; on a GPU this waits for it."""
        if self.count == 1:
            return list(values)
        held = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(held)
        return held.tolist()

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, in order; something that can be pickled."""
        values: list[Any] = [value] * self.count
        if self.count > 1:
            distributed.all_gather_object(values, value)
        return values

    def parallel(self, model: nn.Module) -> nn.Module:
        """What to call in place of ``model``, so that its gradients are means over the ranks."""
        if self.count == 1:
            return model
        # A static graph is one in which the same parameters are used in each step, be it not all.
        devices = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, devices, static_graph=True)

    def norms(self, size: int) -> AbstractContextManager[object]:
        """Within, BatchNorm's statistics are those of the whole batch of ``size``."""
        return nullcontext() if self.count == 1 else _SharedNorms(self, size)


def run_ranks(work: Work[T], count: int, device: str, heard: Callable[[Any], None]) -> T:
    """Do ``work`` in ``count`` new processes; what rank zero returns, and what it tells is heard.

    ``work`` travels by value where it is a script's own. Where one rank fails all are ended, and
    its exception is raised here; ``RunError`` where one was ended from outside, ``InputError``
    where ``work`` can't travel. The ranks end with this process, however that does.
    """
    try:
        content = packed(work)
    except (TypeError, AttributeError, pickle.PicklingError) as error:
        raise InputError(
            f"training in {count} processes: model, loaders, teacher and hooks must be something "
            f"that can be pickled: {one_line(error)}"
        ) from error
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
    threads = max(1, torch.get_num_threads() // count)
    started: list[tuple[BaseProcess, Connection]] = []
    try:
        with without_main(), uninterrupted():
            for rank in range(count):
                started.append(_start(rank, count, device, store.port, threads))
        result: T = _results(content, started, heard)
        return result
    finally:
        for process, ours in started:
            process.kill()  # the checkpoint is written whole or not at all
            ours.close()
        for process, _ in started:
            process.join()


def device_named(device: object, *, there: bool = True) -> torch.device:
    """A device of PyTorch's, one that is ``there``; ``InputError`` where it is none."""
    try:
        found = torch.device(device)  # type: ignore[call-overload]
        if found.type != "meta":
            if there:
                torch.empty(0, device=found)
            return found  # type: ignore[no-any-return]
        why = "it holds no numbers"
    except Exception as error:  # of a kind that depends on what is missing
        why = one_line(error)
    raise InputError(f"device is {shown(device)}, expected one that is there such as cpu: {why}")


def device_of(device: str, rank: int, count: int) -> torch.device:
    """Where a rank trains; ``InputError`` where there are not so many of the kind."""
    kind = device_named(device, there=False).type
    if kind not in ("cpu", "cuda"):
        raise InputError(f"training in {count} processes: expected cpu or cuda, got {device}")
    if kind == "cuda" and torch.cuda.device_count() < count:
        raise InputError(
            f"training in {count} processes: expected a GPU for each, "
            f"there are {torch.cuda.device_count()}"
        )
    return torch.device("cuda", rank) if kind == "cuda" else torch.device("cpu")


def _start(
    rank: int, count: int, device: str, port: int, threads: int
) -> tuple[BaseProcess, Connection]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with theirs:  # with a copy here, a read would not end with the process
        arguments = (theirs, rank, count, device, port, threads)
        # No daemon: a rank may have processes that read images.
        process = context.Process(target=_rank, args=arguments)
        process.start()
    return process, ours


def _results(
    content: bytes,
    started: Sequence[tuple[BaseProcess, Connection]],
    heard: Callable[[Any], None],
) -> Any:
    """Hand out the work and listen until all are done."""
    for rank, (_, ours) in enumerate(started):
        try:
            ours.send_bytes(content)
        except OSError:
            _ended(rank)
    waiting = {ours: rank for rank, (_, ours) in enumerate(started)}
    result: Any = None
    while waiting:
        for ready in connections.wait(list(waiting)):
            assert isinstance(ready, Connection)
            try:
                kind, value = ready.recv()
            except (EOFError, OSError):
                _ended(waiting[ready])
            if kind == "failed":
                _raise(value, started)
            elif kind == "told":
                heard(value)
            elif waiting.pop(ready) == 0:
                result = value
    return result


def _raise(failure: Exception, started: Sequence[tuple[BaseProcess, Connection]]) -> NoReturn:
    if not isinstance(failure, LcpruneError):
        # A rank whose partner died sees a connection that is gone.
        ended = connections.wait([process.sentinel for process, _ in started], SECONDS_TO_DIE)
        for rank, (process, _) in enumerate(started):
            if process.sentinel in ended and process.exitcode:
                _ended(rank)
    raise failure


def _ended(rank: int) -> NoReturn:
    raise RunError(
        f"process {rank} of this training was ended from outside: is there enough memory?"
    ) from None


def _rank(ours: Connection, rank: int, count: int, device: str, port: int, threads: int) -> None:
    """What a rank does: its work, and wait for its end where that fails."""
    ignore_hang_ups()
    # Strides of a dimension of size 1 mean nothing: of a kernel 1x1 in channels_last, for one.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    try:
        content = ours.recv_bytes()
    except (EOFError, OSError):
        return
    threading.Thread(target=_end_with_caller, args=(ours,), daemon=True).start()

    def send(kind: str, value: Any) -> None:
        ours.send_bytes(packed((kind, value)))

    try:
        torch.set_num_threads(threads)
        ranks = Ranks(rank, count, device_of(device, rank, count))
        if ranks.device.type == "cuda":
            torch.cuda.set_device(ranks.device)
        store = distributed.TCPStore("127.0.0.1", port, is_master=False)  # type: ignore[attr-defined]
        backend = "cpu:gloo,cuda:nccl" if ranks.device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, store=store, rank=rank, world_size=count)
        work: Work[Any] = pickle.loads(content)
        result = work(ranks, lambda value: send("told", value))
        send("done", result)
    except Exception as error:
        send("failed", _sendable(error))
        # Others would see the end of this process as the reason of their own.
        threading.Event().wait()
    distributed.barrier()
    distributed.destroy_process_group()


def _sendable(error: Exception) -> Exception:
    text = "".join(traceback.format_exception(error))
    try:
        pickle.loads(packed(error))
    except Exception:
        return RuntimeError(f"in a process of this training: {text}")
    if not isinstance(error, LcpruneError):
        error.add_note(f"in a process of this training: {text}")
    return error


def _end_with_caller(ours: Connection) -> None:
    try:
        ours.recv_bytes()  # nothing is sent any more
    except (EOFError, OSError):
        os._exit(1)


class _SumOverRanks(torch.autograd.Function):
    """The sum of a tensor over the ranks, and of its gradient on the way back."""

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


class _SharedNorms(TorchFunctionMode):
    """Replaces calls of ``batch_norm``, so that statistics are of all ranks' samples.

    The call is replaced and not the layer: ``SyncBatchNorm`` does not run on a CPU, and putting
    it in a layer's place loses what a subclass adds (timm's activations).
    """

    def __init__(self, ranks: Ranks, size: int) -> None:
        super().__init__()
        self._ranks = ranks
        self._copies = ranks.count if size < ranks.count else 1

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is functional.batch_norm:
            return self._batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _batch_norm(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if not training:
            return functional.batch_norm(
                input, running_mean, running_var, weight, bias, training, momentum, eps
            )
        wide = input.to(torch.promote_types(input.dtype, torch.float32))
        mean, var, count = self._moments(wide)
        with torch.no_grad():
            if running_mean is not None:
                running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            if running_var is not None:
                unbiased = var * (count / (count - 1).clamp_min(1))
                running_var.lerp_(unbiased.to(running_var.dtype), momentum)
        shape = [1, -1] + [1] * (input.dim() - 2)
        scale = torch.rsqrt(var + eps)
        if weight is not None:
            scale = scale * weight
        output = (wide - mean.view(shape)) * scale.view(shape)
        if bias is not None:
            output = output + bias.view(shape)
        return output.to(input.dtype)

    def _moments(self, wide: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and variance (C,) over all ranks, and the count of values, from one sum.

        Each rank adds a row of its own, and variances are of what is centred: sums of squares
        would cancel.
        """
        dims = [0, *range(2, wide.dim())]
        mean = wide.mean(dims)
        centred = wide - mean.view([1, -1] + [1] * (wide.dim() - 2))
        values = mean.new_full((1,), wide.numel() / wide.shape[1] / self._copies)
        own = torch.cat([mean, centred.square().mean(dims), values])
        rank, others = self._ranks.rank, self._ranks.count - self._ranks.rank - 1
        rows: Tensor = _SumOverRanks.apply(
            torch.cat([own.new_zeros(rank, len(own)), own[None], own.new_zeros(others, len(own))])
        )
        channels = len(mean)
        means, variances = rows[:, :channels], rows[:, channels : 2 * channels]
        counts = rows[:, -1:].detach()
        count = counts.sum()
        shares = counts / count
        overall = (shares * means).sum(0)
        var = (shares * (variances + (means - overall).square())).sum(0)
        return overall, var, count
