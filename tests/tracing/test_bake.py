"""Parametrised weights become plain ones, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.nn.utils import weight_norm as old_weight_norm

import lcprune as lp
from lcprune.errors import ModelError
from oracle import check, randomise
from tracing.rule_case import chain, conv, images

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight * 2


class Fails(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        if self.training:
            return weight
        raise ValueError("no weight today")


def plain(wrap: Callable[[nn.Module], nn.Module] = lambda layer: layer) -> nn.Module:
    return chain(conv(3, 6), wrap(conv(6, 5)), nn.ReLU(), wrap(conv(5, 4)), head=conv(4, 2))


def doubled(layer: nn.Module) -> nn.Module:
    parametrize.register_parametrization(layer, "weight", Doubled())
    parametrize.register_parametrization(layer, "weight", Doubled())
    parametrize.register_parametrization(layer, "bias", Doubled())
    return layer


def with_both(layer: nn.Module) -> nn.Module:
    return old_spectral_norm(parametrizations.weight_norm(layer, "bias", dim=0), "weight")


def masked(layer: nn.Module) -> nn.Module:
    return prune.random_unstructured(layer, "weight", 0.3)


WRAPS = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "of one's own": doubled,
    "weight_norm by a hook": old_weight_norm,
    "spectral_norm by a hook": old_spectral_norm,
    "both ways at once": with_both,
    "masks of torch.nn.utils.prune": masked,
}


@pytest.mark.parametrize("wrap", [pytest.param(wrap, id=name) for name, wrap in WRAPS.items()])
def test_the_baked_model_is_plain_and_computes_the_same(
    wrap: Callable[[nn.Module], nn.Module],
) -> None:
    model = plain(wrap).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    baked = lp.bake(model)
    assert set(baked.state_dict()) == set(plain().state_dict())
    assert {name for name, _ in baked.named_parameters()} == set(plain().state_dict())
    assert {type(m) for m in baked.modules()} == {type(m) for m in plain().modules()}
    assert all(p.requires_grad and p.is_leaf for p in baked.parameters())
    assert not any(m._forward_pre_hooks for m in baked.modules())
    assert all(m.training for m in baked.modules())
    # The model itself keeps its parametrisation, its values and its mode.
    assert set(before) != set(baked.state_dict())
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert set(before) == set(model.state_dict())
    assert model.training
    with torch.no_grad():
        expected, actual = model.eval()(images()), baked.eval()(images())
    assert torch.allclose(expected, actual, rtol=1e-5, atol=1e-7)


def test_a_model_without_parametrised_weights_comes_back_as_an_equal_copy() -> None:
    model = plain()
    baked = lp.bake(model)
    assert list(baked.state_dict()) == list(model.state_dict())
    for (name, ours), theirs in zip(model.named_parameters(), baked.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
        assert ours is not theirs


def test_a_plain_module_takes_the_baked_weights_and_is_slimmed() -> None:
    model = randomise(plain(parametrizations.weight_norm), 1)
    fresh = plain()
    fresh.load_state_dict(lp.bake(model).state_dict())
    seen = check(fresh.eval(), images(), 0)
    assert seen.error <= 1e-9
    assert seen.effect > 1e-3
    with torch.no_grad():
        assert torch.allclose(model(images()), fresh(images()), rtol=1e-5)


def test_what_was_frozen_stays_frozen() -> None:
    for wrap in (parametrizations.weight_norm, old_weight_norm, old_spectral_norm):
        model = plain(wrap).requires_grad_(False)
        assert not any(p.requires_grad for p in lp.bake(model).parameters())


def test_a_parametrised_buffer_stays_a_buffer() -> None:
    model = nn.BatchNorm2d(3)
    parametrize.register_parametrization(model, "running_mean", Doubled())
    baked = lp.bake(model)
    assert "running_mean" in dict(baked.named_buffers())
    assert torch.equal(baked.running_mean, model.running_mean)


def test_a_weight_that_others_share_is_not_changed_for_them() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    parametrize.register_parametrization(model[0], "weight", Doubled())
    baked = lp.bake(model)
    assert torch.equal(baked[0].weight, 2 * baked[1].weight)
    assert torch.equal(baked[1].weight, model[1].weight)


def test_a_weight_that_can_not_be_computed_is_refused_with_its_module() -> None:
    model = plain()
    parametrize.register_parametrization(model.b, "weight", Fails())
    with pytest.raises(ModelError, match=r"weights of b can't be computed: ValueError: no weight"):
        lp.bake(model)
