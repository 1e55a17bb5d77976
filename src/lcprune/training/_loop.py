"""The loop that trains and fine-tunes."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lcprune.data import part_of
from lcprune.errors import InputError
from lcprune.training._checkpoint import Progress, load_checkpoint, save_checkpoint
from lcprune.training._config import TrainingConfig
from lcprune.training._distributed import Ranks, Tell, device_of, run_ranks
from lcprune.training._evaluate import count_right
from lcprune.training._hooks import DivergenceWatch, TrainingHook, WeightAverage
from lcprune.training._loss import Mixup, teacher_function, training_loss
from lcprune.training._report import EpochClock, EpochReport, StepProgress, TrainingResult

Batches = Iterable[tuple[Tensor, Tensor]]
"""(inputs, targets), again and again; one with ``set_epoch`` is told the epoch, from 0."""

READ_EVERY = 16
"""Steps whose losses are read together where reading one would wait for a GPU or other ranks."""


def finetune(
    model: nn.Module,
    train_loader: Batches,
    val_loader: Batches | None = None,
    *,
    teacher: nn.Module | None = None,
    config: TrainingConfig | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    hooks: Sequence[TrainingHook] = (),
    on_epoch: Callable[[EpochReport], None] | None = None,
    on_step: Callable[[StepProgress], None] | None = None,
    device: str = "cpu",
    processes: int = 1,
) -> TrainingResult:
    """Train ``model`` in place; it ends on ``device``, in eval mode, with the last epoch's weights.

    With ``config.ema`` those are the averaged ones, and they are what is validated.

    The loaders can be iterated again and again and yield (inputs, targets): inputs as the model
    takes them, targets int64 (N,). One that has ``set_epoch(int)`` is told the epoch, from 0; one
    that has ``on_device(device)`` is asked for its like that yields batches there. A copy of
    ``teacher`` is distilled from. ``hooks`` are what else is done in each step. After every epoch
    the state is written to ``checkpoint`` and the report given to ``on_epoch``; ``resume``
    continues from that file, where there is one, bit for bit as if there had been no break.
    Within an epoch ``on_step`` is told about once a second how far it is. Dropout and the like
    draw from PyTorch's global generators, which are seeded for the training and left as they were.

    With ``processes`` that many are started, on a GPU each or all on the CPU, and train on parts
    of each batch: the result is that of one process up to rounding and dropout's draws. Loaders
    must have ``shard(rank, count)``, which yields (inputs, targets, N) of a rank's part of each
    batch (``lcprune.data.part_of``) and the whole batch's size. Callbacks are called here.

    ``InputError`` where the training diverges (the checkpoint of the last good epoch stays) or
    there is nothing to train; ``RunError`` where the checkpoint is not one of this training.
    """
    job = _Job(
        model=model,
        train=train_loader,
        validation=val_loader,
        teacher=teacher,
        config=config or TrainingConfig(),
        checkpoint=checkpoint,
        resume=resume,
        hooks=tuple(hooks),
    )
    if processes == 1:
        return _fit(job, Ranks(device=torch.device(device)), on_epoch, on_step)
    if processes < 1:
        raise InputError(f"training in {processes} processes, expected 1 or more")
    device_of(device, 0, processes)
    for loader in (train_loader, val_loader):
        if loader is not None and not hasattr(loader, "shard"):
            raise InputError(
                f"training in {processes} processes needs loaders with shard(rank, count), "
                f"as those of lcprune.data; got {type(loader).__name__}"
            )

    def heard(report: EpochReport | StepProgress) -> None:
        if isinstance(report, StepProgress):
            if on_step is not None:
                on_step(report)
        elif on_epoch is not None:
            on_epoch(report)

    model.cpu()  # what a GPU holds would be there again in every rank
    job = replace(job, teacher=None if teacher is None else copy.deepcopy(teacher).cpu())
    fitted = run_ranks(partial(_fit_in_rank, job), processes, device, heard)
    assert fitted is not None  # as rank zero's is not
    result, state, states = fitted
    model.load_state_dict(state)
    model.to(device).eval()
    for hook, own in zip(hooks, states, strict=True):
        hook.load_state_dict(own)
    return result


@dataclass(frozen=True)
class _Job:
    """What is to be trained, on what and how."""

    model: nn.Module
    train: Any
    validation: Any
    teacher: nn.Module | None
    config: TrainingConfig
    checkpoint: Path | None
    resume: bool
    hooks: tuple[TrainingHook, ...]


def _fit_in_rank(
    job: _Job, ranks: Ranks, tell: Tell
) -> tuple[TrainingResult, dict[str, Any], list[dict[str, Any]]] | None:
    result = _fit(job, ranks, tell, tell)
    if ranks.rank > 0:
        return None
    state = {name: value.cpu() for name, value in job.model.state_dict().items()}
    return result, state, [hook.state_dict() for hook in job.hooks]


def _fit(
    job: _Job,
    ranks: Ranks,
    on_epoch: Callable[[EpochReport], None] | None,
    on_step: Callable[[StepProgress], None] | None,
) -> TrainingResult:
    """The training of one process, alone or as one of several ranks."""
    config, model, device = job.config, job.model.to(ranks.device), ranks.device
    train, validation = on_device_of(job.train, device), on_device_of(job.validation, device)
    steps = len(train) if isinstance(train, Sized) else None
    channels_last = lay_out(model, config)
    optimizer = sgd(model, config)
    watch = DivergenceWatch(config)
    average = None if config.ema is None else WeightAverage(model, config.ema)
    hooks = (watch, *job.hooks, *([] if average is None else [average]))
    ending = model if average is None else average.module

    with seeded_generators(config.seed, device, ranks.rank):
        done = Progress()
        if job.resume and job.checkpoint is not None and job.checkpoint.exists():
            done = load_checkpoint(job.checkpoint, model, optimizer, hooks, config, ranks.count)
            restore_generators(done.generators[ranks.rank], device)
        reports, count = done.reports, done.steps
        step = Step(model, optimizer, config, job.teacher, ranks, hooks)

        for epoch in range(len(reports), config.epochs):
            clock = EpochClock(epoch, config.epochs, steps, on_step if ranks.rank == 0 else None)
            losses = Losses(ranks, partial(_tell_losses, hooks, epoch))
            mix = Mixup(config.mixup, config.seed, epoch)
            model.train()
            for number, (inputs, targets, size) in enumerate(ranks.parts(epoch_of(train, epoch))):
                # A loader of unknown length holds the rate for an epoch: that of its middle.
                within = 0.5 if steps is None else number / steps
                rate = config.learning_rate_at((epoch + within) / config.epochs)
                loss = step(inputs, targets, size, mix, rate, count)
                watch.blind_loss = step.blind_loss
                for hook in hooks:
                    hook.after_step(model, optimizer, count)
                losses.add(loss, size)
                clock.step(size, losses.latest)
                count += 1
            losses.read_all()  # waits for the GPU, once an epoch
            if losses.samples == 0:
                raise InputError("the training data hold no batch")
            speed = clock.images_per_second
            for hook in hooks:
                hook.after_epoch(model, epoch)
            top1 = None if validation is None else _accuracy(ending, validation, ranks)

            seconds = clock.seconds
            spent = sum(report.seconds for report in reports) + seconds
            report = EpochReport(
                epoch=epoch + 1,
                epochs=config.epochs,
                loss=losses.mean,
                learning_rate=float(optimizer.param_groups[0]["lr"]),
                seconds=seconds,
                seconds_left=spent / (epoch + 1) * (config.epochs - epoch - 1),
                images_per_second=speed,
                val_accuracy=top1,
            )
            reports = (*reports, report)
            generators = tuple(ranks.gather(generator_states(device)))
            # What ends an epoch while the loss climbs may turn out to be lost.
            whole = not watch.climbing or epoch + 1 == config.epochs
            if ranks.rank == 0 and job.checkpoint is not None and whole:
                progress = Progress(reports, count, generators)
                save_checkpoint(job.checkpoint, model, optimizer, hooks, config, progress)
            if ranks.rank == 0 and on_epoch is not None:
                on_epoch(report)

    if average is not None and reports:
        model.load_state_dict(average.module.state_dict())
    if channels_last:
        model.to(memory_format=torch.contiguous_format)
    model.eval()
    return TrainingResult(reports)


class Step:
    """Moves a model's weights by one batch; nothing in it waits for a GPU but the first step."""

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
        inputs = inputs.to(ranks.device, non_blocking=True)
        targets = targets.to(ranks.device, non_blocking=True)
        inputs, labels = self._mixed(inputs, targets, size, mix)
        teacher_logits = None if self._teacher is None else self._teacher(inputs)
        if config.channels_last and inputs.dim() == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        half = config.dtype == "bfloat16"
        with (
            torch.autocast(inputs.device.type, torch.bfloat16, enabled=half),
            ranks.norms(size),
        ):
            outputs: Tensor = self._parallel(inputs)
        outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        if math.isnan(self.blind_loss):
            blind = training_loss(torch.zeros_like(outputs), labels, teacher_logits, config)
            [mean] = ranks.sum(
                ranks.weight(size) * float(blind.detach())
            )  # waits for the GPU, once
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
        return loss.detach()

    def _mixed(self, inputs: Tensor, targets: Tensor, size: int, mix: Mixup) -> tuple[Tensor, Any]:
        ranks, part = self._ranks, slice(None)
        if mix.concentration and ranks.count > 1:  # pairs are of the whole batch
            part = part_of(size, ranks.rank, ranks.count)
            inputs, targets = ranks.whole(inputs, size), ranks.whole(targets, size)
        return mix(inputs, targets, part)


class Losses:
    """The losses of an epoch's steps, read in bunches so that no step waits for them.

    On a GPU a bunch is copied to the host while the next steps run, and looked at when the next
    bunch is begun; ``read`` is then called with the losses and the number of the first. On a CPU
    and in one process each is read at once.
    """

    def __init__(self, ranks: Ranks, read: Callable[[list[float], int], None]) -> None:
        self._ranks = ranks
        self._read = read
        immediate = ranks.count == 1 and ranks.device.type == "cpu"
        self._every = 1 if immediate else READ_EVERY
        self._held: list[tuple[Tensor, int]] = []
        self._coming: tuple[Tensor, list[int], torch.cuda.Event | None] | None = None
        self._count = 0
        self._total = 0.0
        self.samples = 0
        self.latest: float | None = None

    @property
    def mean(self) -> float:
        """Over the samples of all steps that were read."""
        return self._total / self.samples

    def add(self, loss: Tensor, size: int) -> None:
        """One more step: the mean loss of this rank's part of a batch of ``size``."""
        self._held.append((loss, size))
        if len(self._held) == self._every:
            self._bring()

    def read_all(self) -> None:
        """Read what has not been read yet."""
        if self._held:
            self._bring()
        self._look()

    def _bring(self) -> None:
        """Look at the bunch before, and let this one come."""
        self._look()
        sizes = [size for _, size in self._held]
        values = torch.stack([loss for loss, _ in self._held])
        self._held.clear()
        if self._ranks.count > 1:
            weights = [self._ranks.weight(size) for size in sizes]
            values = values.double() * torch.tensor(weights, dtype=torch.float64).to(
                values.device, non_blocking=True
            )
            torch.distributed.all_reduce(values)
        event = None
        if values.device.type == "cuda":
            host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            values = host.copy_(values, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
        self._coming = values, sizes, event
        if event is None:
            self._look()

    def _look(self) -> None:
        if self._coming is None:
            return
        values, sizes, event = self._coming
        self._coming = None
        if event is not None:
            event.synchronize()  # for steps that were begun READ_EVERY steps ago
        losses = values.tolist()
        for loss, size in zip(losses, sizes, strict=True):
            self._total += loss * size
            self.samples += size
        self.latest = losses[-1]
        first, self._count = self._count, self._count + len(losses)
        self._read(losses, first)


def _tell_losses(
    hooks: Sequence[TrainingHook], epoch: int, losses: list[float], first: int
) -> None:
    for hook in hooks:
        hook.after_losses(losses, epoch, first)


def _accuracy(model: nn.Module, loader: Batches, ranks: Ranks) -> float:
    """Percentage of samples whose largest logit is that of their target, over all ranks."""
    # A batch of fewer samples than there are ranks is everybody's, and counts once.
    parts = ((x, y, ranks.weight(size) * size / len(y)) for x, y, size in ranks.parts(loader))
    right, count = ranks.sum(*count_right(model, parts, ranks.device))
    return 100 * right / max(count, 1)


def epoch_of(loader: Batches, epoch: int) -> Batches:
    """The loader, told of the epoch if it wants to know."""
    set_epoch = getattr(loader, "set_epoch", None)
    if set_epoch is not None:
        set_epoch(epoch)
    return loader


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


@contextmanager
def seeded_generators(seed: int, device: torch.device, rank: int = 0) -> Iterator[None]:
    """Seed the global generators within, each rank with its own, and leave them as before."""
    if rank > 0:
        state = np.random.SeedSequence([seed, rank]).generate_state(1, np.uint64)
        seed = int(state[0] >> np.uint64(1))
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def generator_states(device: torch.device) -> tuple[Tensor, ...]:
    """States of the CPU's generator and, on a GPU, of the device's."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return tuple(states)


def restore_generators(states: Sequence[Tensor], device: torch.device) -> None:
    """Undo to ``generator_states``."""
    torch.set_rng_state(states[0])
    if device.type == "cuda" and len(states) > 1:
        torch.cuda.set_rng_state(states[1], device)
