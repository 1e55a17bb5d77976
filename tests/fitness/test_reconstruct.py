"""Refitting a cut network to the original."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

import lcprune as lp
from lcprune.errors import InputError, ModelError
from lcprune.fitness import Reconstruction, _reconstruct
from lcprune.models import build
from lcprune.ranking import PlanBuilder
from lcprune.testing import randomise

WHOLE = lp.Plan(kept={})


def images(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def scrambled(model: nn.Module, *names: str) -> nn.Module:
    """A copy with noise in place of these parameters."""
    small = copy.deepcopy(model)
    with torch.no_grad():
        for number, name in enumerate(names):
            parameter = small.get_parameter(name)
            parameter.copy_(images(*parameter.shape, seed=100 + number))
    return small


def far(model: nn.Module, small: nn.Module, *inputs: Tensor) -> float:
    """The largest difference of the outputs, relative to the largest."""
    with torch.no_grad():
        expected, actual = model(*inputs), small(*inputs)
    return float((expected - actual).abs().max() / expected.abs().max())


def cut(
    model: nn.Module, example: Tensor, removed: dict[str, list[int]]
) -> tuple[nn.Module, lp.Plan]:
    """The model without these outputs of layers, and the plan."""
    graph = lp.trace(model, example)
    keep = np.ones(graph.prunable, dtype=np.bool_)
    for name, channels in removed.items():
        keep[graph.dimension(f"{name}.weight", 0).channels[channels]] = False
    plan = PlanBuilder(graph).plan(keep)
    return lp.slim(model, plan), plan


class Called(nn.Module):
    """Modules by name, and how they are called."""

    def __init__(self, forward: Callable[..., Tensor], **modules: nn.Module) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)
        self._called = forward

    def forward(self, *inputs: Tensor) -> Tensor:
        return self._called(self, *inputs)


LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "plain": (nn.Conv2d(4, 6, 3), (9, 9)),
    "no bias": (nn.Conv2d(4, 6, 3, bias=False), (9, 9)),
    "strided": (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0)), (9, 8)),
    "dilated": (nn.Conv2d(4, 6, 3, dilation=(2, 1), padding=2), (9, 9)),
    "same": (nn.Conv2d(4, 6, (4, 3), padding="same"), (9, 9)),
    "reflected": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (9, 9)),
    "circular": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), (9, 9)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2), (9, 9)),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4, padding=1), (9, 9)),
    "one dimension": (nn.Conv1d(4, 6, 3, stride=2, padding=2), (21,)),
    "three dimensions": (nn.Conv3d(4, 3, (1, 2, 3), stride=(1, 2, 1), padding=1), (4, 5, 6)),
    "linear": (nn.Linear(4, 6), ()),
    "linear over positions": (nn.Linear(5, 6), (3, 5)),
    "linear without bias": (nn.Linear(5, 6, bias=False), (3, 5)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_scrambled_layer_gets_the_weights_back(name: str) -> None:
    layer, size = LAYERS[name]
    model = nn.Sequential(copy.deepcopy(layer)).double()
    x = images(120, 4, *size) + 1
    small = scrambled(model, *(name for name, _ in model.named_parameters()))
    report = lp.reconstruct(model, small, WHOLE, [x])
    assert report.layers[0].ridge is not None
    for parameter, expected in zip(small.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, rtol=1e-8, atol=1e-8)


def test_a_linear_layer_of_a_transposed_tensor_gets_its_late_bias_back() -> None:
    model = Called(lambda self, x: self.a(x.transpose(1, 2)), a=nn.Linear(4, 6)).double()
    small = scrambled(model, "a.weight", "a.bias")
    lp.reconstruct(model, small, WHOLE, [images(120, 4, 3) + 1])
    torch.testing.assert_close(small.state_dict(), model.state_dict(), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize(
    "second",
    [
        nn.Conv2d(8, 5, 3),
        nn.Conv2d(8, 5, 3, stride=2, padding=1),
        nn.Conv2d(8, 6, 3, groups=2, dilation=2),
        nn.Conv2d(8, 5, 1, bias=False),
    ],
)
def test_what_is_lost_comes_back_where_kept_channels_span_it(second: nn.Conv2d, norm: bool) -> None:
    # Eight channels of three numbers each: any three of a group say what the others do.
    layers: list[nn.Module] = [nn.Conv2d(3, 8, 1, bias=False), copy.deepcopy(second)]
    if norm:
        layers.append(nn.BatchNorm2d(second.out_channels))
    model = randomise(nn.Sequential(*layers), 1).double().eval()
    x = images(100, 3, 9, 9)
    small, plan = cut(model, x[:1], {"0": [1] if second.groups == 2 else [0, 3, 5]})
    assert small[1].weight.shape[1] < second.weight.shape[1]  # type: ignore[index, operator, union-attr]
    assert far(model, small, x) > 1e-2
    report = lp.reconstruct(model, small, plan, x.split(30))
    assert far(model, small, images(9, 3, 9, 9, seed=1)) < 1e-8
    assert report.layers[-1].after < 1e-12 < report.layers[-1].before
    assert not report.left_alone


def test_the_last_of_a_sum_makes_up_for_the_others() -> None:
    def forward(self: nn.Module, x: Tensor) -> Tensor:
        shortcut = self.a(x)
        return functional.relu(self.norm(self.b(x)) + shortcut)

    # A transposed convolution is not refitted itself.
    a, b = nn.ConvTranspose2d(4, 6, 1), nn.Conv2d(4, 6, 1, bias=False)
    model = Called(forward, a=a, b=b, norm=nn.BatchNorm2d(6))
    model = randomise(model, 2).double().eval()
    small = scrambled(model, "a.weight", "a.bias")
    x = images(100, 4, 7, 7) + 1
    assert far(model, small, x) > 1e-2
    lp.reconstruct(model, small, WHOLE, [x])
    assert far(model, small, images(5, 4, 7, 7, seed=3) + 1) < 1e-8


def test_a_layer_that_is_used_twice_is_fitted_to_all_that_it_reads() -> None:
    def forward(self: nn.Module, x: Tensor) -> Tensor:
        # Each call alone says nothing of half the channels.
        mask = torch.zeros(4, 1, 1, dtype=x.dtype)
        mask[:2] = 1
        first = self.head(x * mask)
        return self.last(first.relu()) + self.last(self.head(x * (1 - mask)).relu())

    head, last = nn.Conv2d(4, 6, 3), nn.Conv2d(6, 3, 1)
    model = randomise(Called(forward, head=head, last=last), 1).double().eval()
    small = scrambled(model, "head.weight", "head.bias", "last.weight")
    lp.reconstruct(model, small, WHOLE, [images(100, 4, 7, 7)])
    torch.testing.assert_close(small.state_dict(), model.state_dict(), rtol=1e-8, atol=1e-8)


def test_what_a_layer_reads_is_taken_before_the_sum_is_written_over_it() -> None:
    def forward(self: nn.Module, x: Tensor) -> Tensor:
        hidden: Tensor = self.a(x)
        hidden += self.b(hidden)
        return hidden.relu()

    model = Called(forward, a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 4, 1, bias=False)).double()
    small = scrambled(model, "b.weight")
    x = images(100, 3, 7, 7)
    assert lp.reconstruct(model, small, WHOLE, [x]).layers[1].after < 1e-12
    assert far(model, small, x) < 1e-6


def test_an_output_that_is_read_beside_the_sum_is_a_target_itself() -> None:
    def forward(self: nn.Module, x: Tensor) -> Tensor:
        y = self.b(x)
        return torch.cat([y + self.a(x), y], 1)

    a, b = nn.ConvTranspose2d(4, 6, 1), nn.Conv2d(4, 6, 1)
    model = randomise(Called(forward, a=a, b=b), 2).double().eval()
    small = scrambled(model, "a.weight")
    report = lp.reconstruct(model, small, WHOLE, [images(100, 4, 7, 7)])
    assert [refit.ridge for refit in report.layers] == [None]
    assert report.layers[0].before < 1e-20


@pytest.mark.parametrize("seed", range(4))
def test_a_layer_that_reads_what_it_gave_itself_gets_no_worse(seed: int) -> None:
    def forward(self: nn.Module, x: Tensor) -> Tensor:
        for _ in range(3):
            x = self.a(x).relu()
        return x.sum((2, 3))

    model = randomise(Called(forward, a=nn.Conv2d(4, 4, 3, padding=1)), seed).double().eval()
    small = scrambled(model, "a.weight")
    x = images(60, 4, 6, 6, seed=seed)
    with torch.no_grad():
        before = float((model(x[::2]) - small(x[::2])).square().mean())
    (refit,) = lp.reconstruct(model, small, WHOLE, [x]).layers
    assert refit.after <= refit.before
    with torch.no_grad():
        assert float((model(x[::2]) - small(x[::2])).square().mean()) <= before


def test_statistics_are_those_of_the_images_afterwards() -> None:
    convolution, norm = nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5)
    model = randomise(nn.Sequential(convolution, norm, nn.ReLU()), 4).double().eval()
    small = scrambled(model, "0.weight")
    x = images(100, 3, 8, 8)
    lp.reconstruct(model, small, WHOLE, [x])
    assert far(model, small, x) < 1e-8
    again = copy.deepcopy(small)
    lp.recalibrate(again, [x])
    torch.testing.assert_close(again(x), small(x), rtol=1e-2, atol=1e-2)
    own = small[0](x).mean((0, 2, 3))  # type: ignore[index, operator]
    torch.testing.assert_close(small[1].running_mean, own, rtol=1e-6, atol=1e-6)  # type: ignore[index, union-attr]


def residual(seed: int) -> tuple[nn.Module, nn.Module, lp.Plan]:
    """A digits network with random weights, and a cut of it."""
    model = randomise(build("digits_resnet", classes=10, input_shape=(1, 8, 8)), seed).eval()
    graph = lp.trace(model, torch.zeros(1, 1, 8, 8))
    keep = np.random.default_rng(seed).random(graph.prunable) > 0.3
    plan = PlanBuilder(graph).plan(keep)
    small = lp.slim(model, plan)
    lp.recalibrate(small, [images(64, 1, 8, 8, seed=9).float()])
    return model, small, plan


@pytest.mark.parametrize("seed", range(3))
def test_no_layer_gets_worse_on_what_is_held_out(seed: int) -> None:
    model, small, plan = residual(seed)
    before = copy.deepcopy(small)
    report = lp.reconstruct(model, small, plan, [images(200, 1, 8, 8).float()], seed=seed)
    assert len(report.layers) > 5
    assert all(refit.after <= refit.before for refit in report.layers)
    assert all((refit.after < refit.before) == (refit.ridge is not None) for refit in report.layers)
    fresh = images(200, 1, 8, 8, seed=5).float()
    with torch.no_grad():
        whole, cut_, refitted = model(fresh), before(fresh), small(fresh)
    assert (refitted - whole).square().mean() < 0.7 * (cut_ - whole).square().mean()
    assert [p.shape for p in small.parameters()] == [p.shape for p in before.parameters()]


def test_the_error_of_the_outputs_is_that_of_every_fifth_piece() -> None:
    model, small, plan = residual(0)
    x = images(200, 1, 8, 8).float()
    before = copy.deepcopy(small)
    report = lp.reconstruct(model, small, plan, x.split(10))
    held = torch.cat(x.split(10)[1::5])
    with torch.no_grad():
        target = model(held).double()
        spread = (target - target.mean()).square().sum()
        for network, error in ((before, report.before), (small, report.after)):
            own = float((network(held) - target).square().sum() / spread)
            assert own == pytest.approx(error, rel=1e-3)
    assert report.after is not None
    assert report.before is not None
    assert report.after < report.before


def test_nothing_is_taken_where_the_outputs_end_up_no_nearer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, small, plan = residual(0)
    before = copy.deepcopy(small.state_dict())
    errors = iter([0.5, 0.5])
    monkeypatch.setattr(_reconstruct, "_output_error", lambda *_: next(errors))
    report = lp.reconstruct(model, small, plan, [images(50, 1, 8, 8).float()])
    assert {refit.ridge for refit in report.layers} == {None}
    assert (report.before, report.after) == (0.5, 0.5)
    for name, value in small.state_dict().items():
        assert torch.equal(value, before[name])


def test_the_same_call_gives_the_same_bits_and_touches_nothing_else() -> None:
    model, small, plan = residual(0)
    other, state = copy.deepcopy(small), copy.deepcopy(model.state_dict())
    x = images(100, 1, 8, 8).float()
    given, before = x.clone(), torch.get_rng_state()
    modes = [module.training for module in small.train().modules()]
    first = lp.reconstruct(model, small, plan, x.split(40))
    assert [module.training for module in small.modules()] == modes
    second = lp.reconstruct(model, other, plan, x.split(40))
    assert first == second
    for (name, a), b in zip(small.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert torch.equal(x, given)
    assert torch.equal(before, torch.get_rng_state())


def test_little_memory_changes_what_is_held_at_a_time_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, small, plan = residual(1)
    alive = []
    whole = _reconstruct._Refitting._have

    def have(self: _reconstruct._Refitting, count: int) -> None:
        whole(self, count)
        alive.append(len(self._pairs))

    monkeypatch.setattr(_reconstruct._Refitting, "_have", have)
    monkeypatch.setattr(_reconstruct, "MEMORY", 10**6)
    report = lp.reconstruct(model, small, plan, images(300, 1, 8, 8).float().split(20))
    assert 2 <= min(alive[:-1]) < 15
    assert max(alive) > min(alive[:-1])
    assert all(refit.after <= refit.before for refit in report.layers)
    assert alive[-1] == 0


def test_a_network_with_nothing_to_refit_stays_bit_for_bit() -> None:
    model, _, _ = residual(0)
    small = copy.deepcopy(model)
    report = lp.reconstruct(model, small, WHOLE, [images(20, 1, 8, 8).float()])
    assert {refit.ridge for refit in report.layers} == {None}
    assert all(refit.before < 1e-9 for refit in report.layers)
    for a, b in zip(small.state_dict().values(), model.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    bare = nn.Sequential(nn.ReLU(), nn.Flatten())
    found = lp.reconstruct(bare, bare, WHOLE, [images(4, 3)])
    assert found == Reconstruction((), {}, 0.0, 0.0)


class Odd(nn.Module):
    """Layers that can't be refitted, each behind one that loses channels."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.computed = parametrizations.weight_norm(nn.Conv2d(8, 8, 1))
        self.tied, self.also = nn.Conv2d(8, 8, 1, bias=False), nn.Conv2d(8, 8, 1, bias=False)
        self.also.weight = self.tied.weight
        self.part, self.read, self.seldom = (nn.Conv2d(8, 8, 1) for _ in range(3))
        self.last = nn.Conv2d(8, 2, 1)
        self.before = nn.ModuleList(nn.Conv2d(3, 8, 1) for _ in range(7))

    def forward(self, x: Tensor) -> Tensor:
        a, b, c, d, e, f, g = (layer(x).relu() for layer in self.before)
        found = self.up(a)[:, :, ::2, ::2] + self.computed(b) + self.tied(c) + self.also(c)
        found = found + functional.conv2d(d, self.part.weight[:4].repeat(2, 1, 1, 1))
        found = found + self.read(e) * self.read.weight.square().mean()
        if float(x[0, 0, 0, 0]) > 50:
            found = found + self.seldom(f)
        output: Tensor = self.last(g) + found[:, :2]
        return output


def test_what_cannot_be_refitted_is_left_alone_with_its_reason() -> None:
    model = randomise(Odd(), 0).eval()
    hot = torch.full((1, 3, 4, 4), 60.0)
    graph = lp.trace(model, hot)
    keep = np.ones(graph.prunable, dtype=np.bool_)
    for number in range(7):
        keep[graph.dimension(f"before.{number}.weight", 0).channels[[1, 2]]] = False
    plan = PlanBuilder(graph).plan(keep)
    small = lp.slim(model, plan)
    before = copy.deepcopy(small.state_dict())
    report = lp.reconstruct(model, small, plan, [images(60, 3, 4, 4).float()])
    assert dict(report.left_alone) == {
        "up.weight": "a transposed convolution",
        "computed.parametrizations.weight.original1": "its weight is computed from others",
        "tied.weight": "its weight is tied to another layer's",
        "part.weight": "its weight is computed from others",
        "read.weight": "pow reads its weight too",
        "seldom.weight": "the images don't reach it",
    }
    for name in report.left_alone:
        assert torch.equal(before[name], small.state_dict()[name])
    assert [refit.layer for refit in report.layers if refit.ridge is not None] == ["last.weight"]


def test_images_that_take_another_way_are_left_out() -> None:
    def forward(self: nn.Module, x: Tensor) -> Tensor:
        y = self.a(x)
        if float(x[0, 0, 0, 0]) > 0:
            y = y.relu() + 1
        return self.b(y)

    model = Called(forward, a=nn.Conv2d(3, 4, 1, bias=False), b=nn.Conv2d(4, 2, 1)).double()
    x = images(60, 3, 4, 4)
    x[:, 0, 0, 0] = -1
    x[-20:, 0, 0, 0] = 1
    small = scrambled(model, "b.weight")
    report = lp.reconstruct(model, small, WHOLE, x.split(10))
    assert report.layers[1].after < 1e-12
    assert far(model, small, x[:10]) < 1e-6


def test_inputs_by_name_and_models_that_write_into_them() -> None:
    def forward(self: nn.Module, x: Tensor) -> Tensor:
        return self.a(x.add_(1))

    model = Called(forward, a=nn.Linear(3, 4)).double()
    x = images(60, 3)
    given = x.clone()
    small = scrambled(model, "a.weight")
    lp.reconstruct(model, small, WHOLE, [lp.Inputs(x)])
    assert torch.equal(x, given)
    torch.testing.assert_close(small.state_dict(), model.state_dict(), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    ("batches", "expected"),
    [
        ([], "at least one batch"),
        (3, "batches is 3"),
        ([torch.full((4, 3), torch.nan)], "holds NaN or infinity"),
        ([torch.ones(4, 3), torch.full((4, 3), torch.inf)], "batch 1 holds NaN"),
        ([torch.ones(1, 3)], "two samples or more"),
        ([torch.ones(0, 3)], "empty"),
        (["x"], "batch 0"),
    ],
)
def test_images_that_say_nothing_are_refused(batches: object, expected: str) -> None:
    model = nn.Sequential(nn.Linear(3, 4))
    small = copy.deepcopy(model)
    with pytest.raises(InputError, match=expected):
        lp.reconstruct(model, small, WHOLE, batches)  # type: ignore[arg-type]
    assert torch.equal(small[0].weight, model[0].weight)  # type: ignore[arg-type]


def test_another_network_is_refused_and_one_that_fails_is_left_as_it_was() -> None:
    model, small, plan = residual(0)
    with pytest.raises(InputError, match="small is not the model cut by the plan"):
        lp.reconstruct(model, model, plan, [images(20, 1, 8, 8).float()])
    before = copy.deepcopy(small.state_dict())
    good = images(20, 1, 8, 8).float()
    with pytest.raises(ModelError, match="can't be run on a batch"):
        lp.reconstruct(model, small, plan, [good, images(20, 3, 8, 8).float()])
    for name, value in small.state_dict().items():
        assert torch.equal(value, before[name])
