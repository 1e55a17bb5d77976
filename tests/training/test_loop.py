"""The loop that trains: its steps, what it tells and reads, and how it goes on after a break."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset

from lcprune.data import AugmentedBatches, load_data
from lcprune.errors import DivergenceError, InputError
from lcprune.fitness import Precision
from lcprune.models import build, state_sha256
from lcprune.training import (
    EpochReport,
    StepProgress,
    TrainingConfig,
    TrainingHook,
    _loop,
    _report,
    evaluate_top1,
    finetune,
)
from lcprune.training._distributed import Ranks
from lcprune.training._loss import Mixup
from lcprune.training._step import READ_EVERY, Losses, Step, sgd


class Batches:
    """The same few batches every epoch, which notes the epochs that it was told."""

    def __init__(self, count: int = 3, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.batches = [
            (torch.randn(8, 4, generator=generator), torch.randint(3, (8,), generator=generator))
            for _ in range(count)
        ]
        self.epochs: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.batches)


def network(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 3)
        )


def test_a_step_is_nesterov_with_decay_on_matrices_alone() -> None:
    config = TrainingConfig(
        epochs=2, learning_rate=0.1, weight_decay=0.05, schedule="cosine", momentum=0.8
    )
    model = nn.Linear(4, 3)
    loader = Batches(count=2)
    values = [model.weight.detach().clone(), model.bias.detach().clone()]
    velocity = [torch.zeros_like(value) for value in values]
    finetune(model, loader, config=config)
    for step, (inputs, targets) in enumerate(loader.batches * 2):
        leaves = [value.clone().requires_grad_() for value in values]
        loss = functional.cross_entropy(inputs @ leaves[0].T + leaves[1], targets)
        gradients = list(torch.autograd.grad(loss, leaves))
        gradients[0] += 0.05 * values[0]
        rate = config.learning_rate_at(step / 4)
        for i, gradient in enumerate(gradients):
            velocity[i] = 0.8 * velocity[i] + gradient
            values[i] = values[i] - rate * (gradient + 0.8 * velocity[i])
    torch.testing.assert_close(model.weight.detach(), values[0])
    torch.testing.assert_close(model.bias.detach(), values[1])


def test_clipping_bounds_the_step() -> None:
    config = TrainingConfig(
        epochs=1, learning_rate=1.0, weight_decay=0, schedule="cosine", clip=1e-3
    )
    model = nn.Linear(4, 3)
    before = model.weight.detach().clone()
    finetune(model, Batches(count=1), config=config)
    moved = float((model.weight.detach() - before).norm())
    assert 0 < moved <= 1e-3 * 1.9 * 1.001


def test_training_depends_on_the_seed_alone() -> None:
    config = TrainingConfig(epochs=2, seed=3)
    hashes = []
    for draws in (0, 5):
        torch.rand(draws)
        model = network()
        before = torch.get_rng_state()
        finetune(model, Batches(), config=config)
        assert torch.equal(before, torch.get_rng_state())
        hashes.append(state_sha256(model))
    other = network()
    finetune(other, Batches(), config=dataclasses.replace(config, seed=4))
    assert hashes[0] == hashes[1] != state_sha256(other)


class BrokenOffError(Exception):
    """Stands for whatever ends a process."""


@pytest.mark.parametrize("options", [{}, {"mixup": 0.4, "ema": 0.9, "label_smoothing": 0.1}])
@pytest.mark.parametrize("distilled", [False, True])
@pytest.mark.parametrize("broken_after", [1, 2, 3])
def test_a_resumed_run_equals_the_unbroken_one(
    tmp_path: Path, distilled: bool, broken_after: int, options: dict[str, float]
) -> None:
    teacher = network(9) if distilled else None
    config = TrainingConfig(epochs=4, learning_rate=0.1, **options)  # type: ignore[arg-type]
    whole = network()
    unbroken = finetune(whole, Batches(), Batches(seed=1), teacher=teacher, config=config)

    def interrupt(report: EpochReport) -> None:
        if report.epoch == broken_after:
            raise BrokenOffError

    checkpoint = tmp_path / "training.pt"
    with pytest.raises(BrokenOffError):
        finetune(
            network(),
            Batches(),
            Batches(seed=1),
            teacher=teacher,
            config=config,
            checkpoint=checkpoint,
            on_epoch=interrupt,
        )
    resumed, loader = network(5), Batches()
    result = finetune(
        resumed,
        loader,
        Batches(seed=1),
        teacher=teacher,
        config=config,
        checkpoint=checkpoint,
        resume=True,
    )
    assert state_sha256(resumed) == state_sha256(whole)
    assert loader.epochs == list(range(broken_after, 4))
    assert [(r.epoch, r.loss, r.val_accuracy) for r in result.reports] == [
        (r.epoch, r.loss, r.val_accuracy) for r in unbroken.reports
    ]


def test_resume_of_a_finished_or_unbegun_run(tmp_path: Path) -> None:
    checkpoint = tmp_path / "training.pt"
    config = TrainingConfig(epochs=2)
    model = network()
    finetune(model, Batches(), config=config, checkpoint=checkpoint, resume=True)
    again, loader = network(7), Batches()
    result = finetune(again, loader, config=config, checkpoint=checkpoint, resume=True)
    assert state_sha256(again) == state_sha256(model)
    assert loader.epochs == []
    assert len(result.reports) == 2


def test_without_resume_a_checkpoint_is_not_read(tmp_path: Path) -> None:
    checkpoint = tmp_path / "training.pt"
    checkpoint.write_text("rubbish")
    loader = Batches()
    finetune(network(), loader, config=TrainingConfig(epochs=1), checkpoint=checkpoint)
    assert loader.epochs == [0]


def test_reports(tmp_path: Path) -> None:
    seen: list[EpochReport] = []
    config = TrainingConfig(epochs=3, schedule="cosine", learning_rate=0.2)
    result = finetune(
        network(), Batches(count=4), Batches(seed=1), config=config, on_epoch=seen.append
    )
    assert tuple(seen) == result.reports
    assert [report.epoch for report in seen] == [1, 2, 3]
    assert seen[-1].seconds_left == 0
    assert seen[0].seconds_left > 0
    assert seen[1].learning_rate == config.learning_rate_at((1 + 3 / 4) / 3)
    assert result.loss == seen[-1].loss
    assert result.val_accuracy == seen[-1].val_accuracy is not None
    assert 0 <= result.val_accuracy <= 100
    assert result.seconds == sum(report.seconds for report in seen)
    plain = finetune(network(), Batches(), config=TrainingConfig(epochs=1))
    assert plain.val_accuracy is None


def test_no_epochs_change_nothing() -> None:
    model = network().train()
    before = state_sha256(model)
    result = finetune(model, Batches(), config=TrainingConfig(epochs=0))
    assert state_sha256(model) == before
    assert result.reports == ()
    assert not model.training


def test_validation_changes_nothing() -> None:
    plain, watched = network(), network()
    config = TrainingConfig(epochs=2)
    finetune(plain, Batches(), config=config)
    finetune(watched, Batches(), Batches(seed=4), config=config)
    assert state_sha256(plain) == state_sha256(watched)


def test_the_teacher_is_left_alone_and_teaches() -> None:
    teacher = network(9).train()
    before = state_sha256(teacher)
    alone, student = network(), network()
    config = TrainingConfig(epochs=1, alpha=0.5)
    finetune(alone, Batches(), config=config)
    finetune(student, Batches(), teacher=teacher, config=config)
    assert state_sha256(teacher) == before
    assert all(module.training for module in teacher.modules())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert state_sha256(alone) != state_sha256(student)


def test_only_a_teacher_counts_at_alpha_one() -> None:
    config = TrainingConfig(epochs=1, alpha=1.0)
    models = []
    for labels in (0, 1):
        loader = Batches()
        loader.batches = [(x, torch.full_like(y, labels)) for x, y in loader.batches]
        models.append(network())
        finetune(models[-1], loader, teacher=network(9), config=config)
    assert state_sha256(models[0]) == state_sha256(models[1])


def test_a_student_follows_its_teacher() -> None:
    inputs = torch.randn(64, 4)
    teacher = nn.Linear(4, 3)
    loader = [(inputs, torch.zeros(64, dtype=torch.int64))] * 50
    student = nn.Linear(4, 3)
    config = TrainingConfig(epochs=4, alpha=1.0, learning_rate=0.2, weight_decay=0.0)
    finetune(student, loader, teacher=teacher, config=config)
    with torch.no_grad():
        distance = (student(inputs).softmax(1) - teacher(inputs).softmax(1)).abs().max()
    assert float(distance) < 0.02


def test_frozen_parameters_stay() -> None:
    model = network()
    frozen = model[0].weight
    frozen.requires_grad_(False)
    before = frozen.clone()
    finetune(model, Batches(), config=TrainingConfig(epochs=1))
    assert torch.equal(model[0].weight, before)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(InputError, match="no parameter that can be trained"):
        finetune(model, Batches(), config=TrainingConfig(epochs=1))


def test_a_loss_that_is_no_number_asks_for_a_lower_rate(tmp_path: Path) -> None:
    checkpoint = tmp_path / "training.pt"
    with pytest.raises(InputError, match=r"epoch 1, step \d+: lower the learning rate, 1e\+30"):
        finetune(
            network(),
            Batches(),
            config=TrainingConfig(epochs=1, learning_rate=1e30, schedule="cosine"),
            checkpoint=checkpoint,
        )
    assert not checkpoint.exists()


def test_a_loader_without_length_or_epochs() -> None:
    class Stream:
        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            yield from Batches().batches

    config = TrainingConfig(epochs=2, schedule="cosine")
    result = finetune(network(), Stream(), config=config)
    rates = [report.learning_rate for report in result.reports]
    assert rates == [config.learning_rate_at(0.25), config.learning_rate_at(0.75)]
    with pytest.raises(InputError, match="no batch"):
        finetune(network(), [], config=config)


def test_a_stream_has_no_length_though_its_loader_has_len() -> None:
    class Stream(IterableDataset[tuple[Tensor, Tensor]]):
        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            yield from Batches().batches

    seen: list[StepProgress] = []
    config = TrainingConfig(epochs=2, schedule="cosine")
    loader = DataLoader(Stream(), batch_size=None)
    result = finetune(network(), loader, config=config, on_step=seen.append)
    rates = [report.learning_rate for report in result.reports]
    assert rates == [config.learning_rate_at(0.25), config.learning_rate_at(0.75)]
    assert all(progress.steps is None for progress in seen)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_other_precisions_keep_weights_in_float32(dtype: str, channels_last: bool) -> None:
    model = build("digits_resnet", classes=10, input_shape=(1, 8, 8))
    loader = [(torch.randn(16, 1, 8, 8), torch.arange(16) % 10)] * 8
    config = TrainingConfig(
        epochs=2,
        dtype=dtype,  # type: ignore[arg-type]
        channels_last=channels_last,
        teacher_precision=Precision("bfloat16", True, 16),
    )
    teacher = build("digits_resnet", classes=10, input_shape=(1, 8, 8), seed=1)
    result = finetune(model, loader, teacher=teacher, config=config)
    assert result.reports[1].loss < result.reports[0].loss
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert all(parameter.is_contiguous() for parameter in model.parameters())
    assert all(parameter.dtype == torch.float32 for parameter in teacher.parameters())


@pytest.mark.parametrize("ema", [None, 0.9999])
def test_a_small_network_learns_digits(ema: float | None) -> None:
    """Also where the average's decay is one for trainings a thousand times as long."""
    data = load_data("digits")
    model = build("digits_resnet", classes=10, input_shape=data.input_shape)
    loader = AugmentedBatches(data.train, data, 64)
    finetune(model, loader, config=TrainingConfig(epochs=3, learning_rate=0.1, ema=ema))
    assert evaluate_top1(model, data.test, data) >= 85


def test_the_model_ends_with_the_average_of_its_steps() -> None:
    model = network()
    seen: list[dict[str, Tensor]] = []

    class Watching(Batches):
        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            for batch in self.batches:
                yield batch
                seen.append({name: value.clone() for name, value in model.state_dict().items()})

    config = TrainingConfig(epochs=3, learning_rate=0.2, ema=0.5)
    result = finetune(model, Watching(), Batches(seed=1), config=config)
    expected = dict(seen[0])
    for step, state in enumerate(seen[1:], 1):
        decay = min(0.5, (1 + step) / (10 + step))
        for name, value in state.items():
            if value.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * value
            else:
                expected[name] = value
    torch.testing.assert_close(dict(model.state_dict()), expected)
    assert not torch.allclose(expected["0.weight"], seen[-1]["0.weight"], atol=1e-4)
    right = sum(
        int((model(inputs).argmax(1) == targets).sum()) for inputs, targets in Batches(seed=1)
    )
    assert result.val_accuracy == pytest.approx(100 * right / 24)


def test_averaging_watches_alone() -> None:
    seen: list[float] = []
    plain: list[float] = []
    for losses, ema in ((plain, None), (seen, 0.99)):
        config = TrainingConfig(epochs=3, ema=ema)
        losses.extend(r.loss for r in finetune(network(), Batches(), config=config).reports)
    assert seen == plain


def test_a_teacher_sees_what_the_student_sees() -> None:
    shown: dict[str, list[Tensor]] = {"teacher": [], "student": []}

    class Watching(nn.Linear):
        name = "teacher"

        def forward(self, input: Tensor) -> Tensor:
            shown[self.name].append(input.clone())
            return super().forward(input)

    student = Watching(4, 3)
    student.name = "student"
    loader = Batches()
    finetune(student, loader, teacher=Watching(4, 3), config=TrainingConfig(epochs=1, mixup=1.0))
    assert len(shown["student"]) == 3
    for mixed, seen, (inputs, _) in zip(
        shown["student"], shown["teacher"], loader.batches, strict=True
    ):
        assert torch.equal(mixed, seen)
        assert not torch.allclose(mixed, inputs)


@pytest.mark.parametrize("option", [{"label_smoothing": 0.2}, {"mixup": 0.4}])
def test_options_of_the_loss_reach_it(option: dict[str, float]) -> None:
    plain, other = network(), network()
    finetune(plain, Batches(), config=TrainingConfig(epochs=1))
    config = TrainingConfig(epochs=1, **option)  # type: ignore[arg-type]
    finetune(other, Batches(), config=config)
    assert state_sha256(plain) != state_sha256(other)


GENERATOR = torch.Generator().manual_seed(0)
INPUTS = torch.randn(6, 4, generator=GENERATOR)
TARGETS = torch.tensor([0, 1, 2, 0, 1, 2])


def blind_loss(config: TrainingConfig, teacher: nn.Module | None = None) -> float:
    model = nn.Linear(4, 3)
    step = Step(model, sgd(model, config), config, teacher, Ranks())
    step(INPUTS, TARGETS, 6, Mixup(config.mixup, 0, 0), 0.1, 0)
    first = step.blind_loss
    step(INPUTS + 1, TARGETS.flip(0), 6, Mixup(config.mixup, 0, 1), 0.1, 1)
    assert step.blind_loss == first
    return first


class Saying(nn.Module):
    """Answers what it was told to."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, _: Tensor) -> Tensor:
        return self.logits


@given(smoothing=st.floats(0, 0.9), mixup=st.floats(0, 2))
def test_the_blind_loss_is_the_logarithm_of_the_classes(smoothing: float, mixup: float) -> None:
    config = TrainingConfig(label_smoothing=smoothing, mixup=mixup)
    assert blind_loss(config) == pytest.approx(math.log(3), rel=1e-5)


@given(alpha=st.floats(0.1, 1), temperature=st.floats(0.5, 8), scale=st.floats(0, 20))
def test_with_a_teacher_the_blind_loss_is_what_the_teacher_knows(
    alpha: float, temperature: float, scale: float
) -> None:
    logits = scale * torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    p = (logits / temperature).softmax(1)
    known = float((torch.xlogy(p, p).sum(1) + math.log(3)).mean())
    expected = (1 - alpha) * math.log(3) + alpha * temperature**2 * known
    found = blind_loss(TrainingConfig(alpha=alpha, temperature=temperature), Saying(logits))
    assert found == pytest.approx(max(math.log(3), expected), rel=1e-4)


def test_within_an_epoch_it_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(itertools.count(100.0, 0.25))
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    seen: list[StepProgress] = []
    result = finetune(
        network(), Batches(count=20), config=TrainingConfig(epochs=2), on_step=seen.append
    )
    for epoch in (1, 2):
        own = [progress for progress in seen if progress.epoch == epoch]
        steps = [progress.step for progress in own]
        assert steps == sorted(set(steps))
        assert steps[-1] == 20  # the last one always
        assert 1 < len(steps) < 20  # and some before, about a second apart
    assert {(p.epochs, p.steps) for p in seen} == {(2, 20)}
    assert all(p.images_per_second > 0 and p.loss is not None for p in seen)
    left = [p.seconds_left or 0.0 for p in seen]
    assert left[0] > 0
    assert left[-1] == 0
    assert all(report.images_per_second > 0 for report in result.reports)


def test_an_epoch_of_less_than_a_second_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_report, "SECONDS_APART", 1e9)
    seen: list[StepProgress] = []
    finetune(network(), Batches(), config=TrainingConfig(epochs=2), on_step=seen.append)
    assert [(progress.epoch, progress.step) for progress in seen] == [(1, 3), (2, 3)]


def test_without_a_length_what_is_left_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_report, "SECONDS_APART", 0.0)
    seen: list[StepProgress] = []
    stream = itertools.cycle(Batches().batches)

    class Stream:
        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            return itertools.islice(stream, 3)

    finetune(network(), Stream(), config=TrainingConfig(epochs=1), on_step=seen.append)
    assert [(p.step, p.steps, p.seconds_left) for p in seen] == [(i, None, None) for i in (1, 2, 3)]


class ReadTogether(Losses):
    """As where reading would wait for other ranks."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__(ranks)
        self._every = READ_EVERY


class ReadLate(ReadTogether):
    """As where it would wait for a GPU."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__(ranks)
        self._late = True


@pytest.mark.parametrize(("how", "behind"), [(Losses, 0), (ReadTogether, 0), (ReadLate, 1)])
@example(sizes=[1, 2] * 24)
@example(sizes=[1, 2] * 24 + [1])
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=50))
def test_losses_are_read_in_order_and_all_of_them(
    how: type[Losses], behind: int, sizes: list[int]
) -> None:
    losses, read = how(Ranks()), []
    for step, size in enumerate(sizes):
        read += losses.add(torch.tensor(step + 0.5), size)
        bunches, every = (step + 1) // losses._every, losses._every
        assert len(read) == every * max(0, bunches - behind)
        assert losses.latest == (read[-1][1] if read else None)
    read += losses.read_all()
    assert read == [(step, step + 0.5) for step in range(len(sizes))]
    assert losses.samples == sum(sizes)
    weighed = sum((step + 0.5) * size for step, size in enumerate(sizes))
    assert losses.mean == pytest.approx(weighed / sum(sizes))


@pytest.mark.parametrize("late", [ReadTogether, ReadLate])
@pytest.mark.parametrize("bad", [3, 16, 20])
def test_a_loss_that_is_read_late_names_its_step_and_nothing_is_written(
    late: type[Losses], bad: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The epoch before it stays, and the losses are those that are read at once."""
    plain = finetune(network(), Batches(count=21), config=TrainingConfig(epochs=1))
    monkeypatch.setattr(_loop, "Losses", late)
    other = finetune(network(), Batches(count=21), config=TrainingConfig(epochs=1))
    assert other.loss == plain.loss

    class Broken(Batches):
        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            for step, (inputs, targets) in enumerate(self.batches, 1):
                wrong = self.epochs[-1] == 1 and step == bad
                yield (inputs * math.nan if wrong else inputs), targets

    checkpoint = tmp_path / "training.pt"
    with pytest.raises(DivergenceError, match=f"the loss is nan in epoch 2, step {bad}:"):
        finetune(
            network(),
            Broken(count=21),
            config=TrainingConfig(epochs=3),
            checkpoint=checkpoint,
        )
    assert len(torch.load(checkpoint, weights_only=True)["reports"]) == 1


def test_a_penalty_is_in_the_gradient_and_not_in_the_report() -> None:
    class Pulled(TrainingHook):
        def penalty(self, model: nn.Module, step: int) -> Tensor:
            return 100 * model[0].weight.square().sum()  # type: ignore[index, union-attr]

    config = TrainingConfig(epochs=1, learning_rate=1e-3, schedule="cosine")
    losses, sizes = [], []
    for hooks in ([], [Pulled()]):
        model = network()
        result = finetune(model, Batches(count=1), config=config, hooks=hooks)
        losses.append(result.loss)
        sizes.append(float(model[0].weight.detach().norm()))
    assert losses[0] == losses[1]
    assert sizes[1] < 0.9 * sizes[0]


def test_a_hook_sees_steps_and_epochs_in_order() -> None:
    seen: list[tuple[Any, ...]] = []

    class Noting(TrainingHook):
        def after_step(self, model: nn.Module, optimizer: Any, step: int) -> None:
            seen.append(("step", step, optimizer.param_groups[0]["lr"] > 0 or step == 0))

        def after_epoch(self, model: nn.Module, epoch: int) -> None:
            with torch.no_grad():
                model[4].bias.fill_(epoch)  # type: ignore[index, union-attr, operator]
            seen.append(("epoch", epoch))

    model = network()
    finetune(model, Batches(count=2), config=TrainingConfig(epochs=2), hooks=[Noting()])
    assert seen == [
        *(("step", 0, True), ("step", 1, True), ("epoch", 0)),
        *(("step", 2, True), ("step", 3, True), ("epoch", 1)),
    ]
    assert model[4].bias.tolist() == [1.0] * 3


def test_a_loader_is_asked_for_batches_on_the_device() -> None:
    asked: list[str] = []

    class There(Batches):
        def on_device(self, device: torch.device) -> Batches:
            asked.append(str(device))
            return Batches()

    finetune(network(), There(count=0), There(count=0), config=TrainingConfig(epochs=1))
    assert asked == ["cpu", "cpu"]


def test_validation_without_a_sample_is_no_accuracy_of_zero() -> None:
    loader = Batches()
    inputs, targets = next(iter(loader))
    empty = (inputs[:0], targets[:0])
    for data in ([], [empty], [empty, empty]):
        with pytest.raises(InputError, match="validation data hold no sample"):
            finetune(network(), loader, data, config=TrainingConfig(epochs=1))
    whole = [(inputs, targets)]
    with_it, without = (
        finetune(network(), loader, data, config=TrainingConfig(epochs=1)).val_accuracy
        for data in ([*whole, empty], whole)
    )
    assert with_it == without
