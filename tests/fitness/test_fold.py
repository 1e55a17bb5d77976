"""BatchNorm folded into convolutions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lcprune.fitness import CrossEntropy, _cross_entropy, folded
from lcprune.models import build, state_sha256


class Branches(nn.Module):
    """A convolution with one norm behind it (a), one read twice (b), one shared (c)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm_a = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.b, self.norm_b = nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.BatchNorm2d(4)
        self.c, self.norm_c = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.d, self.norm_d = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, affine=False)
        self.free = nn.BatchNorm2d(4, track_running_stats=False)

    def forward(self, input: Tensor) -> Tensor:
        a = self.norm_a(self.a(input))
        b = self.b(a)
        b = self.norm_b(b) + b
        c = self.norm_c(self.c(self.norm_c(self.c(b))))
        output: Tensor = self.free(self.norm_d(self.d(c)))
        return output


def randomised(model: nn.Module) -> nn.Module:
    """In float64 and eval mode, with statistics and scales that do something."""
    generator = torch.Generator().manual_seed(0)
    model = model.double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                if tensor is not None:
                    tensor.data.uniform_(0.5, 1.5, generator=generator)
    return model


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def same(model: nn.Module, other: nn.Module, image: Tensor) -> bool:
    with torch.no_grad():
        return torch.allclose(model(image), other(image), rtol=1e-9, atol=1e-12)


def test_only_a_norm_that_alone_follows_a_convolution_called_once_is_folded() -> None:
    model = randomised(Branches())
    before = state_sha256(model)
    result = folded(model)
    assert same(model, result, torch.randn(2, 3, 5, 5, dtype=torch.float64))
    called = {node.target for node in result.graph.nodes if node.op == "call_module"}  # type: ignore[union-attr]
    assert called == {"a", "b", "norm_b", "c", "norm_c", "d", "free"}
    assert state_sha256(model) == before
    assert norms(model) == 5
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "size", "left"),
    [
        ("cifar_resnet20", 16, 0),
        ("cifar_mobilenet_v2", 16, 0),
        ("torchvision/googlenet", 64, 0),
        ("torchvision/shufflenet_v2_x1_0", 64, 0),
    ],
)
def test_networks_compute_the_same(name: str, size: int, left: int) -> None:
    pytest.importorskip("torchvision")
    model = randomised(build(name, classes=5, input_shape=(3, size, size)))
    result = folded(model)
    assert norms(model) > 10
    assert norms(result) == left
    assert same(model, result, torch.randn(2, 3, size, size, dtype=torch.float64))


def test_what_cannot_be_followed_or_folded_comes_back_itself() -> None:
    class Choosing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))

        def forward(self, input: Tensor) -> Tensor:
            output: Tensor = self.inner(input) if input.sum() > 0 else input
            return output

    for model in (Choosing().eval(), nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()).eval()):
        assert folded(model) is model


def test_hooks_still_see_what_they_saw() -> None:
    model = randomised(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
    assert isinstance(model, nn.Sequential)
    seen: list[int] = []
    model[0].register_forward_hook(lambda *_: seen.append(1))
    result = folded(model)
    assert same(model, result, torch.randn(2, 3, 4, 4, dtype=torch.float64))
    assert seen == [1, 1]
    assert result is model


def test_a_model_that_keeps_what_it_sees_is_not_touched() -> None:
    class Keeping(nn.Sequential):
        def forward(self, input: Tensor) -> Tensor:
            self.seen = input
            self.all_seen: list[Tensor] = [*getattr(self, "all_seen", []), input]
            output: Tensor = super().forward(input)
            return output

    model = randomised(Keeping(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
    result = folded(model)
    assert result is not model
    assert not hasattr(model, "seen")
    assert same(model, result, torch.randn(2, 3, 4, 4, dtype=torch.float64))


def test_layout_and_type_stay() -> None:
    model = randomised(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    model.to(memory_format=torch.channels_last)
    model[0].bfloat16()  # type: ignore[operator]
    kernel = folded(model).get_parameter("0.weight")
    assert kernel.dtype == torch.bfloat16
    assert kernel.is_contiguous(memory_format=torch.channels_last)


class Asks(nn.Module):
    """Code that takes another branch for a stand-in than for an image."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.convolution, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor, mask: Tensor | None = None, scale: float | None = None) -> Tensor:
        other = {
            "optional": lambda: mask is not None,
            "number": lambda: scale is not None,
            "isinstance": lambda: not isinstance(x, Tensor),
            "is_tensor": lambda: not torch.is_tensor(x),
            "type": lambda: type(x) is not Tensor,
            "swallowed error": lambda: self._fails(x),
            "attribute": lambda: hasattr(x, "node"),
        }[self.how]()
        y = self.norm(self.convolution(x * 2 if other else x)).relu().mean((2, 3))
        output: Tensor = self.head(y)
        return output

    def _fails(self, x: Tensor) -> bool:
        try:
            return bool(x.sum() > 1e9)
        except Exception:
            return True


@pytest.mark.parametrize(
    "how",
    ["optional", "number", "isinstance", "is_tensor", "type", "swallowed error", "attribute"],
)
def test_a_fitness_folds_no_branch_that_only_a_stand_in_takes(how: str) -> None:
    torch.manual_seed(0)
    model = randomised(Asks(how)).float()
    images, labels = torch.randn(16, 3, 8, 8) + 1, torch.arange(16) % 4
    with torch.no_grad():
        expected = float(nn.functional.cross_entropy(model(images), labels))
        assert not torch.allclose(folded(model)(images), model(images), rtol=1e-2)  # the trap
    assert CrossEntropy(images, labels, 16)(model) == pytest.approx(expected, rel=1e-5)


def test_a_fitness_folds_what_it_may_and_draws_no_number_for_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[nn.Module] = []

    def noted(model: nn.Module) -> nn.Module:
        made.append(folded(model))
        return made[-1]

    monkeypatch.setattr(_cross_entropy, "folded", noted)
    model = build("digits_resnet", classes=10, input_shape=(1, 8, 8)).eval()
    before = torch.get_rng_state()
    CrossEntropy(torch.randn(16, 1, 8, 8, generator=torch.Generator()), torch.arange(16) % 10, 8)(
        model
    )
    assert norms(made[0]) < norms(model)
    assert torch.equal(before, torch.get_rng_state())
