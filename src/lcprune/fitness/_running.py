"""How a network is run to be measured: in eval mode, seeded, its batches spread over threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from lcprune._checks import told_in_one_line
from lcprune.slimming import copied
from lcprune.tracing import Inputs

Item = TypeVar("Item")
Result = TypeVar("Result")


Batch = Tensor | tuple[Any, ...] | Mapping[str, Any] | Inputs
"""A tensor or a mapping is the one input of a model, a tuple all of them."""


def run_on(model: nn.Module, batch: Batch) -> Any:
    """What the model says of a batch; ``ModelError`` where it raises."""
    with told_in_one_line("the model can't be run on a batch"):
        if isinstance(batch, Inputs):
            return model(*batch.args, **batch.kwargs)
        return model(*batch) if isinstance(batch, tuple) else model(batch)


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Every module in eval mode within, and as it was after."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """PyTorch's global generators, of the CPU and of all GPUs, seeded within and restored after."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


def worker_count(model: nn.Module, batches: int) -> int:
    """As many as PyTorch has threads, at most one a batch; none for a model that is not on a CPU.

    A small network spends much of its time where the threads of one operation wait for each
    other, and most of it when another process holds a core. Threads with a batch each don't wait.
    """
    on_cpu = all(tensor.device.type == "cpu" for tensor in model.state_dict().values())
    return min(torch.get_num_threads(), batches) if on_cpu else 0


def replicas(model: nn.Module, count: int) -> list[nn.Module]:
    """``model`` and copies of it that share its parameters, each with buffers of its own."""
    shared: dict[int, Tensor] = {id(parameter): parameter for parameter in model.parameters()}
    buffers = [buffer for buffer in model.buffers() if id(buffer) not in shared]
    # A general copy of a tensor takes many times as long: it minds who else has the storage.
    own = [b for b in buffers if type(b) is Tensor and b.is_leaf and not b.requires_grad]
    alone = len({b.untyped_storage().data_ptr() for b in own}) == len(own) == len(buffers)
    cloned = own if alone else []
    return [
        model,
        *(
            copied(model, shared | {id(buffer): buffer.clone() for buffer in cloned})
            for _ in range(count - 1)
        ),
    ]


def spread(
    work: Callable[[nn.Module, Item], Result],
    models: Sequence[nn.Module],
    items: Sequence[Item],
    workers: int,
) -> list[Result]:
    """``work`` on every item, in order; with ``workers`` threads, each with a model of its own.

    A thread runs every operation by itself, so the results don't depend on how many there are.
    Without workers all is done here, with whatever threads operations use. Gradient and
    inference modes are a thread's own: ``work`` has to enter them.
    """
    before = torch.get_num_threads()
    if workers == 0 or before == 1:
        return [work(models[0], item) for item in items]

    def share(index: int) -> list[Result]:
        return [work(models[index], item) for item in items[index::workers]]

    try:
        # What a thread sets counts for itself, and for threads that begin later.
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            shares = list(pool.map(share, range(workers)))
    finally:
        torch.set_num_threads(before)
    return [shares[index % workers][index // workers] for index in range(len(items))]
