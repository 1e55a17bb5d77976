"""Training mode is followed as evaluation is: what it couples, returns, draws and asks for."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lcprune.graph import ChannelGraph
from lcprune.slimming import difference, slim
from lcprune.testing import random_keep
from lcprune.tracing import Inputs, trace
from oracle import plan_of, randomise

IMAGE = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def block(i: int, o: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU())


def trains(model: nn.Module, graph: ChannelGraph, *args: Any) -> None:
    """Random plans leave networks that run in training mode, with outputs of the same shapes."""
    args = args or (torch.rand(4, *IMAGE.shape[1:]),)

    def run(network: nn.Module) -> list[Tensor]:
        torch.manual_seed(0)
        out = network.train()(*args)
        found = list(out.values()) if isinstance(out, dict) else out
        return list(found) if isinstance(found, list | tuple) else [found]

    for seed in range(3):
        small = slim(model, plan_of(graph, random_keep(graph, np.random.default_rng(seed))))
        found = run(small)
        assert [t.shape for t in found] == [t.shape for t in run(model)]
        sum(t.sum() for t in found).backward()
        assert all(torch.isfinite(p.grad).all() for p in small.parameters() if p.grad is not None)


class Auxiliary(nn.Module):
    """A head that always runs, and is returned in training only; two more within a list."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = block(3, 8), block(8, 10)
        self.auxiliary, self.head = nn.Conv2d(8, 5, 1), nn.Conv2d(10, 5, 1)
        self.deep = nn.ModuleList([nn.Conv2d(8, 4, 1), nn.Conv2d(10, 4, 1)])

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        y = self.body(x)
        auxiliary, out = self.auxiliary(x), self.head(y)
        if self.training:
            return {"out": out, "auxiliary": auxiliary, "deep": self.deep[0](x) + self.deep[1](y)}
        return out


class Mixed(nn.Module):
    """Two branches that are mixed in training only, in one of several ways."""

    def __init__(self, mix: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.head = block(3, 8), block(3, 8), nn.Conv2d(16, 4, 1)
        self.mix = mix

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.a(x), self.b(x)
        if self.training:
            a = self.mix(a, b)
        return self.head(torch.cat([a, b], 1))


def by_rand(a: Tensor, b: Tensor) -> Tensor:
    share = torch.rand(a.shape[0], 1, 1, 1)
    return a * share + b * (1 - share)


def by_beta(a: Tensor, b: Tensor) -> Tensor:
    share = float(torch.distributions.Beta(1.0, 1.0).sample())
    return share * a + (1 - share) * b


def by_mask(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(torch.rand_like(a) < 0.5, a, b)


def by_swap(a: Tensor, b: Tensor) -> Tensor:
    out = a.clone()
    chosen = torch.rand(a.shape[0]) < 0.5
    out[chosen] = b[chosen]
    return out


def by_python(a: Tensor, b: Tensor) -> Tensor:
    return a.lerp(b, random.random())


MIXES = {f.__name__: f for f in (by_rand, by_beta, by_mask, by_swap, by_python)}


def test_heads_that_training_returns_keep_their_classes() -> None:
    graph = trace(Auxiliary(), IMAGE)
    assert graph.training_checked
    assert graph.prunable == 18
    reasons = {u.tensor: u.reason for u in graph.untouched}
    assert reasons["auxiliary.weight"] == "output auxiliary of the model in training mode"
    assert reasons["head.weight"] == "an output of the model"
    assert reasons["deep.0.weight"] == "output deep of the model in training mode"
    assert not [op for op in graph.ops if op.module.startswith("deep")]
    trains(randomise(Auxiliary(), 0), graph)


@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)
def test_branches_that_training_mixes_are_coupled(mix: Callable[[Tensor, Tensor], Tensor]) -> None:
    model = randomise(Mixed(mix), 0)
    graph = trace(model, IMAGE)
    a, b = (graph.dimension(f"{name}.0.weight", 0).channels.tolist() for name in "ab")
    assert a == b
    trains(model, graph)


class Droppings(nn.Module):
    """What is random in training only, between two convolutions."""

    def __init__(self, drop: Callable[[Tensor, bool], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.head = block(3, 8), block(8, 8), nn.Conv2d(8, 4, 1)
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.b(self.drop(self.a(x), self.training)), self.training))


def drop_path(x: Tensor, training: bool) -> Tensor:
    keep = x.new_empty((x.shape[0],) + (1,) * (x.dim() - 1)).bernoulli_(0.5)
    return x * keep.div_(0.5) if training else x


def drop_block(x: Tensor, training: bool) -> Tensor:
    n, c, h, w = x.shape
    noise = torch.empty((n, c, h - 2, w - 2)).bernoulli_(0.1)
    noise = functional.max_pool2d(functional.pad(noise, [2] * 4), 3, 1)
    return x * (1 - noise) * (noise.numel() / (1 + noise.sum())) if training else x


def mixup(x: Tensor, training: bool) -> Tensor:
    return 0.7 * x + 0.3 * x[torch.randperm(x.shape[0])] if training else x


def cutmix(x: Tensor, training: bool) -> Tensor:
    if training:
        x = x.clone()
        top = int(torch.randint(0, 4, ()))
        x[:, :, top : top + 4] = x.flip(0)[:, :, top : top + 4]
    return x


def gumbel(x: Tensor, training: bool) -> Tensor:
    return x * functional.gumbel_softmax(x.mean((2, 3)), dim=1)[..., None, None] if training else x


def noise(x: Tensor, training: bool) -> Tensor:
    return x + 0.1 * torch.randn(x.shape, device=x.device) * x.std() if training else x


def module(make: Callable[[], nn.Module]) -> Callable[[Tensor, bool], Tensor]:
    return lambda x, training: make().train(training)(x)


def drop_block_to_scale(x: Tensor, training: bool) -> Tensor:
    noise = (torch.rand(x.shape, device=x.device) < 0.1).to(x)
    kept = 1 - functional.max_pool2d(noise, 3, 1, 1)
    return x * kept * kept.numel() / (kept.sum() + 1e-7) if training else x


DROPS = {
    f.__name__: f
    for f in (drop_path, drop_block, drop_block_to_scale, mixup, cutmix, gumbel, noise)
} | {
    "dropout": lambda x, t: functional.dropout(x, 0.3, t),
    "dropout in place": lambda x, t: functional.dropout(x * 1, 0.3, t, inplace=True),
    "dropout2d": lambda x, t: functional.dropout2d(x, 0.3, t),
    "dropout2d in place": lambda x, t: functional.dropout2d(x * 1, 0.3, t, inplace=True),
    "dropout1d": lambda x, t: functional.dropout1d(x.flatten(2), 0.3, t).view_as(x),
    "dropout3d": lambda x, t: functional.dropout3d(x[:, :, None], 0.3, t)[:, :, 0],
    "alpha": lambda x, t: functional.alpha_dropout(x, 0.3, t),
    "feature alpha": lambda x, t: functional.feature_alpha_dropout(x, 0.3, t),
    "rrelu": lambda x, t: functional.rrelu(x - 0.5, training=t),
    "Dropout2d": module(nn.Dropout2d),
}


@pytest.mark.parametrize("drop", DROPS.values(), ids=DROPS)
def test_what_is_random_in_training_keeps_no_channels(
    drop: Callable[[Tensor, bool], Tensor],
) -> None:
    model = randomise(Droppings(drop), 0)
    graph = trace(model, IMAGE)
    assert graph.training_checked
    assert graph.prunable == 16
    trains(model, graph)


class Norm(nn.Module):
    """A functional batch norm, spectral norms, and a norm of single values."""

    def __init__(self) -> None:
        super().__init__()
        spectral = nn.utils.parametrizations.spectral_norm
        self.a, self.b = nn.Conv2d(3, 8, 3), spectral(nn.Conv2d(8, 6, 3))
        self.old = nn.utils.spectral_norm(nn.Conv2d(6, 7, 3))
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("var", torch.ones(8))
        self.pooled, self.head = nn.BatchNorm1d(7), nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.batch_norm(self.a(x), self.mean, self.var, training=self.training)
        return self.head(self.pooled(self.old(self.b(x)).mean((2, 3))))


def test_norms_train_on_one_example_of_one_value_each() -> None:
    model = Norm()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        graph = trace(model, IMAGE)
    assert graph.training_checked
    assert graph.prunable == 8 + 6 + 7
    trains(model, graph)


class Losses(nn.Module):
    """Wants targets in training, and returns losses there: of classes, of features, of boxes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = block(3, 8), block(8, 12)
        self.teacher, self.student = nn.Conv2d(8, 9, 1), nn.Conv2d(12, 9, 1)
        self.classes, self.boxes = nn.Linear(12, 5), nn.Linear(12, 4)

    def forward(self, x: Tensor, targets: list[dict[str, Tensor]] | None = None) -> Any:
        x = self.stem(x)
        y = self.body(x)
        pooled = y.mean((2, 3))
        classes, boxes = self.classes(pooled), self.boxes(pooled)
        if not self.training:
            return classes.softmax(1), boxes
        if targets is None:
            raise ValueError("targets should not be none\nin training mode")
        return {
            "class": functional.cross_entropy(classes, torch.stack([t["label"] for t in targets])),
            "box": functional.l1_loss(boxes, torch.stack([t["box"] for t in targets])),
            "feature": functional.mse_loss(self.student(y), self.teacher(x).detach()),
        }


def targets(count: int) -> list[dict[str, Tensor]]:
    return [{"label": torch.tensor(i % 5), "box": torch.rand(4)} for i in range(count)]


FORMS: dict[str, Callable[[], Any]] = {
    "tuple": lambda: (torch.rand(2, 3, 16, 16), targets(2)),
    "keywords": lambda: Inputs(torch.rand(2, 3, 16, 16), targets=targets(2)),
    "several": lambda: [(torch.rand(2, 3, 16, 16), targets(2)), (IMAGE, targets(1))],
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_training_inputs_bring_the_targets(form: Callable[[], Any]) -> None:
    model = randomise(Losses(), 0)
    graph = trace(model, IMAGE, training_inputs=form())
    assert graph.training_checked
    student, teacher = (graph.dimension(f"{n}.weight", 0).channels for n in ("student", "teacher"))
    assert student.tolist() == teacher.tolist()
    assert graph.prunable == 8 + 12 + 9
    trains(model, graph, torch.rand(4, 3, 16, 16), targets(4))


def test_a_training_forward_that_fails_is_warned_of_and_pins_nothing_else() -> None:
    with pytest.warns(UserWarning, match="targets should not be none") as caught:
        graph = trace(Losses(), IMAGE)
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)
    assert caught[0].filename == __file__
    assert not graph.training_checked
    assert graph.training_error == "ValueError: targets should not be none"
    assert graph.prunable == 8 + 12


class FailsAtTheEnd(nn.Module):
    """Its training forward fails behind a head that only training has, and within a module."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head, self.extra = block(3, 8), nn.Conv2d(8, 4, 1), nn.Conv2d(8, 6, 1)
        self.wrong = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        if self.training:
            self.wrong(self.extra(x).mean((2, 3)))
        return self.head(x)


def test_what_only_a_failed_training_forward_has_made_stays() -> None:
    with pytest.warns(UserWarning, match="mat1 and mat2 shapes cannot be multiplied"):
        graph = trace(FailsAtTheEnd(), IMAGE)
    assert graph.prunable == 8
    assert ("extra.weight", 1) in {d.key for d in graph.dimensions}
    reasons = {u.tensor: u.reason for u in graph.untouched}
    assert reasons["extra.weight"] == "the forward in training mode fails"


def test_a_failing_operator_joins_nothing() -> None:
    class Meets(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            a, b = self.a(x), self.b(x)
            if self.training:
                a + b  # of other sizes
            return self.head(a) + self.head(b).mean()

    alone = Meets()
    with pytest.warns(UserWarning, match="training mode can't be followed"):
        graph = trace(alone, IMAGE)
    expected = trace(alone.eval(), IMAGE) if graph.training_checked else graph
    assert graph.prunable == expected.prunable == 8
    assert {f.dimensions for f in graph.families}


def test_an_input_without_a_batch_dimension_is_followed_in_training_too() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Dropout(), nn.Conv2d(6, 4, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        graph = trace(model, IMAGE[0])
    assert graph.training_checked
    assert graph.prunable == trace(model, IMAGE).prunable == 6


def test_attention_that_only_training_has_loses_whole_heads() -> None:
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)
            self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 4)
            self.heads = 4

        def forward(self, x: Tensor) -> Any:
            x = self.stem(x)
            if not self.training:
                return self.head(x)
            y = x.flatten(2).transpose(1, 2)
            q, k, v = self.qkv(y).reshape(*y.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            y = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            return self.head(x), self.out(y)

    model = randomise(Attends(), 0)
    graph = trace(model, IMAGE)
    assert graph.prunable == 8 + 4
    trains(model, graph)


def test_random_generators_and_the_model_are_left_as_they_were() -> None:
    model = nn.Sequential(Mixed(by_python), nn.BatchNorm2d(4), nn.Dropout(0.5))
    state = {name: t.clone() for name, t in model.state_dict().items()}
    torch.manual_seed(3), random.seed(3), np.random.seed(3)  # noqa: NPY002
    expected = torch.rand(1), random.random(), np.random.rand()  # noqa: NPY002
    torch.manual_seed(3), random.seed(3), np.random.seed(3)  # noqa: NPY002
    trace(model, IMAGE)
    assert (torch.rand(1), random.random(), np.random.rand()) == expected  # noqa: NPY002
    assert all(torch.equal(state[name], t) for name, t in model.state_dict().items())


def test_costs_are_those_of_evaluation() -> None:
    model = Auxiliary()
    graph = trace(model, IMAGE)
    head = next(op for op in graph.ops if op.module == "head" and op.coefficient)
    assert graph.values[head.reads[0]].shape == (1, 10, 16, 16)
    assert len(graph.outputs) == 1
    assert not graph.notes


def test_operators_that_only_training_has_are_not_called_uncounted() -> None:
    class Sorts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            return self.b(torch.cummax(x, 1).values if self.training else x)

    graph = trace(Sorts(), IMAGE)
    assert graph.prunable == 0
    assert graph.uncounted == ()


@pytest.mark.thorough
@pytest.mark.parametrize(
    "name", ["ssdlite320_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_320_fpn"]
)
def test_a_whole_detector_with_its_losses(name: str) -> None:
    detection = pytest.importorskip("torchvision.models.detection")
    model = getattr(detection, name)(weights=None, weights_backbone=None)
    images = [torch.rand(3, 128, 128), torch.rand(3, 128, 128)]
    boxes = torch.tensor([[10.0, 10.0, 60.0, 80.0], [20.0, 30.0, 90.0, 100.0]])
    wanted = [{"boxes": boxes, "labels": torch.tensor([1, 2])} for _ in images]
    graph = trace(model, (images[:1],), training_inputs=(images, wanted))
    assert graph.training_checked
    assert graph.prunable > 7000
    small = slim(model, plan_of(graph, random_keep(graph, np.random.default_rng(0))))
    losses = small.train()(images, wanted)
    sum(losses.values()).backward()
    assert len(small.eval()(images)) == 2


@pytest.mark.parametrize("parts", [2, 3, 4, 6])
def test_a_batch_of_several_parts_is_followed_without_training_inputs(parts: int) -> None:
    """Pairs of views, triplets, batches of fixed size: the example is repeated often enough."""

    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = block(3, 8), block(3, 8), nn.Conv2d(8, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            a = self.a(x)
            if not self.training:
                return self.head(a)
            assert len(x) % parts == 0, "whole parts only"
            first = a.view(parts, len(x) // parts, *a.shape[1:])[0]
            return self.head(first + self.b(x[: len(first)]))

    model = randomise(Parts(), 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        graph = trace(model, IMAGE)
    assert graph.training_checked
    assert graph.prunable == 8
    plan = plan_of(graph, random_keep(graph, np.random.default_rng(0)))
    seen = difference(model, slim(model, plan), plan, IMAGE)
    assert seen.training_checked
    assert seen.judged() <= 1e-9
