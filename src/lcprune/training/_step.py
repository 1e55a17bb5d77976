"""One step of a training, and its losses, read without waiting for a GPU."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lcprune._checks import instance, is_iterable, module, refused, told_in_one_line
from lcprune._text import shown
from lcprune.data import part_of, to_device
from lcprune.errors import InputError, ModelError
from lcprune.training._config import TrainingConfig
from lcprune.training._distributed import Ranks
from lcprune.training._hooks import TrainingHook
from lcprune.training._loss import Mixup, teacher_function, training_loss

Batches = Iterable[tuple[Tensor, Tensor]]
"""(inputs, targets), again and again; one with ``set_epoch`` is told the epoch, from 0."""

READ_EVERY = 16
"""Steps whose losses are read together where reading one would wait for a GPU or other ranks."""


_HOOK = ("penalty", "after_step", "after_epoch")


def check_job(
    model: object,
    loader: object,
    validation: object = None,
    teacher: object = None,
    config: object = None,
    hooks: object = (),
) -> None:
    """``InputError`` that says what was expected where an argument is of another kind."""
    model = module("model", model)
    _check_tensors("model", model)
    if teacher is not None:
        _check_tensors("teacher", module("teacher", teacher))
    if config is not None:
        instance("config", config, TrainingConfig, "a TrainingConfig")
    given = {"train_loader": loader} | ({} if validation is None else {"val_loader": validation})
    for name, batches in given.items():
        if not is_iterable(batches) or isinstance(batches, Tensor | nn.Module):
            raise refused(name, batches, "batches of (inputs, targets)")
    each = hooks if isinstance(hooks, Sequence) else [hooks]
    if not all(hasattr(hook, part) for hook in each for part in _HOOK):
        raise refused("hooks", hooks, "a list of TrainingHook")


def _check_tensors(what: str, model: nn.Module) -> None:
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise ModelError(
                f"{name} of the {what} is not initialised yet; run it once on an input"
            )
        if tensor.is_meta:
            raise ModelError(f"{name} of the {what} is on the meta device; expected real tensors")


class Step:
    """Moves a model's weights by one batch, hooks included.

    Nothing of ours in it waits for a GPU, but for the first step.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        config: TrainingConfig,
        teacher: nn.Module | None,
        ranks: Ranks,
        hooks: Sequence[TrainingHook] = (),
    ) -> None:
        self._model = model
        self._parallel = ranks.parallel(model)
        self._optimizer = optimizer
        self._config = config
        self._teacher = teacher_function(teacher, config, ranks.device)
        self._ranks = ranks
        self._hooks = hooks
        self.blind_loss = math.nan
        """The loss of outputs that are all equal, on the first batch; at least log(classes),
        which it is without a teacher, since a teacher may know nothing itself."""

    def __call__(
        self, inputs: Tensor, targets: Tensor, size: int, mix: Mixup, rate: float, step: int
    ) -> Tensor:
        """Train on this rank's part of a batch of ``size``; the part's mean loss before, a scalar.

        ``step`` counts the steps of the training, from 0.
        """
        config, ranks = self._config, self._ranks
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        inputs, targets = to_device(inputs, ranks.device), to_device(targets, ranks.device)
        inputs, labels = self._mixed(inputs, targets, size, mix)
        with self._told("the teacher can't be run on a batch of training inputs"):
            teacher_logits = None if self._teacher is None else self._teacher(inputs)
        if config.channels_last and inputs.dim() == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        half = config.dtype == "bfloat16"
        with (
            torch.autocast(inputs.device.type, torch.bfloat16, enabled=half),
            ranks.norms(size),
            self._told("the model can't be run on a batch of training inputs"),
        ):
            outputs: Tensor = self._parallel(inputs)
        check_batch_logits(outputs, len(inputs))
        outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        with self._told("the loss of outputs, targets and teacher can't be taken"):
            if math.isnan(self.blind_loss):
                blind = training_loss(torch.zeros_like(outputs), labels, teacher_logits, config)
                [mean] = ranks.sum(ranks.weight(size) * float(blind.detach()))  # waits for the GPU
                self.blind_loss = max(mean, math.log(outputs.shape[1]))
            loss = training_loss(outputs, labels, teacher_logits, config)
        # Gradients are averaged over ranks as if their parts were of one size.
        scale = ranks.weight(size) * ranks.count
        whole = loss if scale == 1 else scale * loss
        for hook in self._hooks:
            penalty = hook.penalty(self._model, step)
            whole = whole if penalty is None else whole + penalty
        self._optimizer.zero_grad(set_to_none=True)
        whole.backward()  # type: ignore[no-untyped-call]
        if config.clip is not None:
            nn.utils.clip_grad_norm_(self._model.parameters(), config.clip)
        self._optimizer.step()
        for hook in self._hooks:
            hook.after_step(self._model, self._optimizer, step)
        return loss.detach()

    def _told(self, what: str) -> AbstractContextManager[None]:
        """Of several ranks each raises what it met: that another one died is found out there."""
        return told_in_one_line(what) if self._ranks.count == 1 else nullcontext()

    def _mixed(self, inputs: Tensor, targets: Tensor, size: int, mix: Mixup) -> tuple[Tensor, Any]:
        ranks, part = self._ranks, slice(None)
        if mix.concentration and ranks.count > 1:  # pairs are of the whole batch
            part = part_of(size, ranks.rank, ranks.count)
            inputs, targets = ranks.whole(inputs, size), ranks.whole(targets, size)
        return mix(inputs, targets, part)


class Losses:
    """The losses of an epoch's steps.

    In one process on a CPU each is read at once. Of several ranks, and on a GPU, ``READ_EVERY``
    are read together; on a GPU these are copied to the host while the next steps run, and read
    when those are copied in turn, so that no step waits.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._late = ranks.device.type == "cuda"
        self._every = READ_EVERY if self._late or ranks.count > 1 else 1
        self._held: list[tuple[Tensor, int]] = []
        self._copied: tuple[Tensor, list[int], torch.cuda.Event | None] | None = None
        self._steps = 0
        self._total = 0.0
        self.samples = 0
        self.latest: float | None = None

    @property
    def mean(self) -> float:
        """Over the samples of all steps that were read."""
        return self._total / self.samples

    def add(self, loss: Tensor, size: int) -> list[tuple[int, float]]:
        """Take a step's: the mean loss of this rank's part of a batch of ``size``.

        Returns what was read now: steps, counted from 0, and their losses over all ranks.
        """
        self._held.append((loss, size))
        return self._exchange() if len(self._held) == self._every else []

    def read_all(self) -> list[tuple[int, float]]:
        """What has not been read yet."""
        return [*(self._exchange() if self._held else []), *self._read()]

    def _exchange(self) -> list[tuple[int, float]]:
        """Read those before, and begin to copy these."""
        read = self._read()
        sizes = [size for _, size in self._held]
        values = torch.stack([loss for loss, _ in self._held])
        self._held.clear()
        if self._ranks.count > 1:
            weights = [self._ranks.weight(size) for size in sizes]
            values = values.double() * to_device(
                torch.tensor(weights, dtype=torch.float64), values.device
            )
            torch.distributed.all_reduce(values)
        event = None
        device = values.device
        if device.type == "cuda":
            host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            values = host.copy_(values, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            # Of the losses' device, which need not be the current one.
            event.record(torch.cuda.current_stream(device))
        self._copied = values, sizes, event
        return read if self._late else [*read, *self._read()]

    def _read(self) -> list[tuple[int, float]]:
        if self._copied is None:
            return []
        values, sizes, event = self._copied
        self._copied = None
        if event is not None:
            event.synchronize()  # of a copy that was begun READ_EVERY steps ago
        losses = values.tolist()
        for loss, size in zip(losses, sizes, strict=True):
            self._total += loss * size
            self.samples += size
        self.latest = losses[-1]
        first, self._steps = self._steps, self._steps + len(losses)
        return list(enumerate(losses, first))


def check_batch_logits(outputs: object, count: int) -> None:
    """``ModelError`` unless these are logits (N, classes, …) that a loss can be taken of."""
    if not isinstance(outputs, Tensor):
        raise ModelError(f"expected logits (N, classes), got {shown(outputs)} of the model")
    if outputs.dim() < 2 or len(outputs) != count or not outputs.is_floating_point():
        raise ModelError(
            f"expected logits ({count}, classes), got {outputs.dtype} {tuple(outputs.shape)}"
        )


def epoch_of(loader: Batches, epoch: int) -> Batches:
    """The loader, told of the epoch if it wants to know."""
    set_epoch = getattr(loader, "set_epoch", None)
    if set_epoch is not None:
        set_epoch(epoch)
    return loader


def length_of(loader: Any) -> int | None:
    """How many batches an epoch has; none where that is not known."""
    try:
        return len(loader)
    except TypeError:  # a ``DataLoader`` of a stream has ``__len__``, which raises
        return None


def on_device_of(loader: Any, device: torch.device) -> Any:
    """The loader, or its like that yields batches on a device."""
    on_device = getattr(loader, "on_device", None)
    return loader if on_device is None else on_device(device)


def lay_out(model: nn.Module, config: TrainingConfig) -> bool:
    """Put the channels last where ``config`` asks for it; whether that was done.

    The layout is one of images: a model with weights over volumes has another.
    """
    if not config.channels_last or any(parameter.dim() > 4 for parameter in model.parameters()):
        return False
    model.to(memory_format=torch.channels_last)
    return True


def sgd(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """Nesterov momentum; weight decay on what has two and more dimensions.

    ``InputError`` where all parameters are frozen.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise InputError("the model has no parameter that can be trained")
    decayed = [parameter for parameter in trained if parameter.dim() > 1]
    rest = [parameter for parameter in trained if parameter.dim() <= 1]
    groups = [(decayed, config.weight_decay), (rest, 0.0)]
    return torch.optim.SGD(
        [{"params": members, "weight_decay": decay} for members, decay in groups if members],
        lr=config.learning_rate,
        momentum=config.momentum,
        nesterov=True,
    )


def seed_of(seed: int, rank: int) -> int:
    """The seed of a rank's global generators, which draw dropout: rank zero's is that of one."""
    if rank == 0:
        return seed
    state = np.random.SeedSequence([seed, rank]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))
