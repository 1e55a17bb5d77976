"""BatchNorm statistics after pruning."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lcprune.errors import InputError, ModelError
from lcprune.fitness import Precision, recalibrate
from lcprune.models import build


class Doubled(nn.Module):
    """The same BatchNorm twice in one pass."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2)

    def forward(self, input: Tensor) -> Tensor:
        self.norm(input)
        output: Tensor = self.norm(10 + input)
        return output


def norm_and_dropout() -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


@given(
    sizes=st.lists(st.integers(2, 7), min_size=1, max_size=5),
    seed=st.integers(0, 99),
)
def test_statistics_are_the_sample_weighted_means_of_the_batches(
    sizes: list[int], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    batches = [
        torch.randn(size, 3, 4, 5, generator=generator, dtype=torch.float64) * 3 + 1
        for size in sizes
    ]
    model = norm_and_dropout().double()
    recalibrate(model, batches)
    norm, weights = model[0], torch.tensor(sizes, dtype=torch.float64)
    assert isinstance(norm, nn.BatchNorm2d)
    means = torch.stack([batch.mean((0, 2, 3)) for batch in batches])
    variances = torch.stack([batch.var((0, 2, 3)) for batch in batches])
    assert norm.running_mean is not None
    assert norm.running_var is not None
    whole = torch.cat(batches).mean((0, 2, 3))
    torch.testing.assert_close(norm.running_mean, whole)
    torch.testing.assert_close(norm.running_mean, weights @ means / weights.sum())
    torch.testing.assert_close(norm.running_var, weights @ variances / weights.sum())


def test_a_single_batch_gives_what_training_mode_normalises_with() -> None:
    model = build("digits_resnet", classes=10, input_shape=(1, 8, 8)).double().eval()
    images = torch.randn(40, 1, 8, 8, dtype=torch.float64)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.running_mean, 5.0)
    recalibrate(model, [images])
    with torch.no_grad():
        by_statistics = model(images)
        by_batch = model.train()(images)
    # Equal but for Bessel's correction: 40 x 2 x 2 values a channel where it is largest.
    torch.testing.assert_close(by_statistics, by_batch, rtol=0.05, atol=0.05)


def test_everything_else_is_left_as_it_was() -> None:
    model = norm_and_dropout()
    model.eval()
    model[1].train()
    model[3].momentum = 0.3
    model[0].momentum = None
    model[2].weight.requires_grad_(False)
    modes = [module.training for module in model.modules()]
    parameters = {name: value.clone() for name, value in model.named_parameters()}
    batch = torch.randn(8, 3, 4, 4)
    state = torch.get_rng_state()
    recalibrate(model, [batch])
    assert torch.equal(state, torch.get_rng_state())
    assert modes == [module.training for module in model.modules()]
    assert model[3].momentum == 0.3
    assert model[0].momentum is None
    assert not model[2].weight.requires_grad
    assert model[3].weight.requires_grad
    for name, value in model.named_parameters():
        assert torch.equal(value, parameters[name])
        assert value.grad is None
    assert not [module for module in model.modules() if module._forward_pre_hooks]
    assert all(buffer.requires_grad is False for buffer in model.buffers())


def test_dropout_does_not_disturb_the_statistics() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(2)).train()
    batch = torch.full((4, 2), 3.0)
    recalibrate(model, [batch])
    assert torch.equal(model[1].running_mean, torch.full((2,), 3.0))
    assert model[0].training
    assert model[1].training


def test_modes_come_back_when_the_model_fails() -> None:
    model = norm_and_dropout().train()
    model[0].eval()
    model[0].momentum = 0.2
    with pytest.raises(ModelError, match="can't be run on a batch: RuntimeError: "):
        recalibrate(model, [torch.randn(4, 9, 2, 2)])
    assert not model[0].training
    assert model[1].training
    assert model[0].momentum == 0.2
    assert not model[0]._forward_pre_hooks


class Untouchable(nn.Module):
    def forward(self, input: Tensor) -> Tensor:
        raise AssertionError("run although there is nothing to estimate")


def test_a_model_without_batch_norm_is_not_run() -> None:
    recalibrate(Untouchable(), [torch.zeros(1)])
    recalibrate(
        nn.Sequential(Untouchable(), nn.BatchNorm1d(3, track_running_stats=False)),
        [torch.zeros(1)],
    )


def test_a_layer_used_twice_averages_both_uses() -> None:
    model = Doubled()
    batches = [torch.randn(6, 2), torch.randn(6, 2)]
    recalibrate(model, batches)
    assert model.norm.running_mean is not None
    expected = torch.cat(batches).mean(0) + 5
    torch.testing.assert_close(model.norm.running_mean, expected)


def test_a_layer_that_no_batch_reaches_keeps_its_statistics() -> None:
    model = norm_and_dropout()
    spare = nn.BatchNorm2d(5)
    nn.init.constant_(spare.running_mean, 7.0)
    nn.init.constant_(spare.running_var, 3.0)
    model[1].register_module("spare", spare)
    recalibrate(model, [torch.randn(4, 3, 2, 2)])
    assert bool((spare.running_mean == 7).all())
    assert bool((spare.running_var == 3).all())


def test_statistics_that_were_not_numbers_recover() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2))
    nn.init.constant_(model[0].running_mean, float("nan"))
    nn.init.constant_(model[0].running_var, float("inf"))
    recalibrate(model, [torch.tensor([[1.0, 2.0], [3.0, 6.0]])])
    torch.testing.assert_close(model[0].running_mean, torch.tensor([2.0, 4.0]))
    torch.testing.assert_close(model[0].running_var, torch.tensor([2.0, 8.0]))


def test_no_batch_is_an_error_and_changes_nothing() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2))
    nn.init.constant_(model[0].running_mean, 4.0)
    with pytest.raises(InputError, match="at least one batch"):
        recalibrate(model, [])
    with pytest.raises(InputError, match="batch 1 is empty, expected one sample or more"):
        recalibrate(model, [torch.rand(4, 2), torch.rand(0, 2)])
    assert bool((model[0].running_mean == 4).all())


def test_several_inputs_come_as_a_tuple() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(2)

        def forward(self, first: Tensor, second: Tensor) -> Tensor:
            output: Tensor = self.norm(first + second)
            return output

    model = Sum()
    recalibrate(model, [(torch.ones(3, 2), torch.ones(3, 2))])
    assert torch.equal(model.norm.running_mean, torch.full((2,), 2.0))


@pytest.mark.parametrize("whole", [True, False])
def test_statistics_are_float32_where_the_model_is_bfloat16(whole: bool) -> None:
    images = torch.randn(64, 1, 8, 8)
    reference = build("digits_resnet", classes=10, input_shape=(1, 8, 8))
    recalibrate(reference, [images])
    half = build("digits_resnet", classes=10, input_shape=(1, 8, 8))
    half = half.bfloat16() if whole else Precision("bfloat16", True, 8).apply(half)
    recalibrate(half, [images.bfloat16()])
    for name, buffer in half.named_buffers():
        if not name.endswith("tracked"):
            assert buffer.dtype == torch.float32
            expected = reference.get_buffer(name)
            torch.testing.assert_close(buffer, expected, rtol=0.05, atol=0.05)
