import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from graphs import chain, make_graph
from lcprune.criteria import CRITERIA, saliency
from lcprune.errors import InputError
from lcprune.graph import ChannelGraph, Dimension
from lcprune.tracing import trace

MODEL, GRAPH = chain([6, 5])
with torch.no_grad():
    for parameter in MODEL.parameters():
        parameter.copy_(
            torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
        )


def batches(count: int = 3) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(4, 3, 6, 6, generator=generator),
            torch.randint(4, (4,), generator=generator),
        )
        for _ in range(count)
    ]


def filters() -> list[np.ndarray]:
    return [f for layer in ("0", "3") for f in MODEL.get_submodule(layer).weight.detach().numpy()]


@pytest.mark.parametrize(
    ("criterion", "norm"),
    [
        ("l1", lambda w: np.linalg.norm(w.ravel(), 1)),
        ("l2", lambda w: np.linalg.norm(w.ravel())),
        ("l2_squared", lambda w: np.linalg.norm(w.ravel()) ** 2),
    ],
)
def test_norms_are_those_of_the_filters(criterion: str, norm: object) -> None:
    result = saliency(MODEL, GRAPH, criterion)
    assert result.values == pytest.approx([norm(w) for w in filters()], rel=1e-5)  # type: ignore
    assert result.values.dtype == np.float64
    assert (result.criterion, result.reduction) == (criterion, "sum")


def test_bn_scale_is_the_magnitude_of_gamma() -> None:
    expected = torch.cat([MODEL[1].weight, MODEL[4].weight]).abs().tolist()
    assert saliency(MODEL, GRAPH, "bn_scale").values.tolist() == expected


def test_taylor_is_the_slope_of_the_loss_along_each_filter() -> None:
    """Against a central difference in float64: shrink one filter and look at the loss."""
    model = copy.deepcopy(MODEL).double().eval()
    data = [(x.double(), y) for x, y in batches()]
    scores = saliency(model, GRAPH, "taylor", data=data, loss=functional.cross_entropy).values
    step = 1e-6
    expected = []
    for layer, count in (("0", 6), ("3", 5)):
        weight = model.get_submodule(layer).weight
        for i in range(count):
            slopes = []
            for inputs, targets in data:
                losses = []
                for factor in (1 + step, 1 - step):
                    original = weight.detach()[i].clone()
                    with torch.no_grad():
                        weight[i] = factor * original
                        losses.append(functional.cross_entropy(model(inputs), targets).item())
                        weight[i] = original
                slopes.append(abs(losses[0] - losses[1]) / (2 * step))
            expected.append(np.mean(slopes))
    assert scores == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_taylor_leaves_the_model_and_the_gradient_mode_alone() -> None:
    model = copy.deepcopy(MODEL).train()
    model[0].weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        scores = saliency(model, GRAPH, "taylor", data=batches(), loss=functional.cross_entropy)
    evaluated = saliency(
        copy.deepcopy(MODEL).eval(), GRAPH, "taylor", data=batches(), loss=functional.cross_entropy
    )
    assert scores.values.tolist() == evaluated.values.tolist()
    assert (scores.values[:6] > 0).any()
    assert model.training
    assert not model[0].weight.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_taylor_needs_data() -> None:
    with pytest.raises(InputError, match="data="):
        saliency(MODEL, GRAPH, "taylor")


def test_taylor_takes_the_cross_entropy_where_no_loss_is_given() -> None:
    given = saliency(MODEL, GRAPH, "taylor", data=batches(), loss=functional.cross_entropy)
    default = saliency(MODEL, GRAPH, "taylor", data=batches())
    np.testing.assert_array_equal(given.values, default.values)


@pytest.mark.parametrize(
    ("loss", "data", "part"),
    [
        (lambda outputs, _: outputs, batches(), "scalar"),
        (lambda outputs, _: outputs.detach().sum(), batches(), "no gradient"),
        (functional.cross_entropy, [], "no batch"),
    ],
)
def test_taylor_says_what_is_wrong(loss: object, data: list, part: str) -> None:
    with pytest.raises(InputError, match=part):
        saliency(MODEL, GRAPH, "taylor", data=data, loss=loss)  # type: ignore[arg-type]


def test_random_depends_on_the_seed_alone() -> None:
    scores = [saliency(MODEL, GRAPH, "random", seed=seed).values.tolist() for seed in (0, 0, 1)]
    assert scores[0] == scores[1] != scores[2]


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_scores_every_group(criterion: str) -> None:
    result = saliency(MODEL, GRAPH, criterion, data=batches(), loss=functional.cross_entropy)
    assert result.values.shape == (GRAPH.prunable,)
    assert np.isfinite(result.values).all()
    assert (result.values >= 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_of_any_type_are_scored_in_float64(dtype: torch.dtype) -> None:
    model = copy.deepcopy(MODEL).to(dtype)
    scores = saliency(model, GRAPH, "l2").values
    assert scores == pytest.approx(saliency(MODEL, GRAPH, "l2").values, rel=1e-2)


def coupled_pair() -> tuple[nn.ModuleDict, ChannelGraph]:
    """Two filter banks that share three channels; the second has one pinned channel more."""
    model = nn.ModuleDict({"a": nn.Conv2d(1, 3, 1), "b": nn.ConvTranspose2d(1, 4, 1)})
    with torch.no_grad():
        model["a"].weight.copy_(torch.tensor([1.0, -2.0, 3.0]).reshape(3, 1, 1, 1))
        model["b"].weight.copy_(torch.tensor([9.0, 40.0, -20.0, 10.0]).reshape(1, 4, 1, 1))
    dimensions = [
        Dimension("a.weight", 0, np.array([0, 1, 2])),
        Dimension("b.weight", 1, np.array([3, 2, 1, 0])),
    ]
    graph = make_graph(
        [3], [], pinned=1, dimensions=dimensions, producers=[("a.weight", 0), ("b.weight", 1)]
    )
    return model, graph


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [("sum", [11.0, 22.0, 43.0]), ("mean", [5.5, 11.0, 21.5]), ("max", [10.0, 20.0, 40.0])],
)
@pytest.mark.parametrize("criterion", ["l1", "l2"])
def test_coupled_filters_are_reduced(criterion: str, reduction: str, expected: list[float]) -> None:
    model, graph = coupled_pair()
    result = saliency(model, graph, criterion, reduction=reduction)
    assert result.values.tolist() == expected
    assert result.reduction == reduction


def test_bn_scale_names_the_family_without_one() -> None:
    model, graph = coupled_pair()
    with pytest.raises(InputError, match="f0 has no normalisation scale"):
        saliency(model, graph, "bn_scale")


@pytest.mark.parametrize("criterion", ["l1", "l2", "l2_squared", "bn_scale", "taylor"])
@pytest.mark.parametrize("reduction", ["sum", "mean", "max"])
def test_nan_weights_are_refused_by_family(criterion: str, reduction: str) -> None:
    model = copy.deepcopy(MODEL)
    with torch.no_grad():
        model[3].weight[2, 1, 0, 0] = float("nan")
        model[4].weight[2] = float("nan")
    with pytest.raises(InputError, match=r"f[01] has a score of nan"):
        saliency(
            model,
            GRAPH,
            criterion,
            reduction=reduction,
            data=batches(),
            loss=functional.cross_entropy,
        )


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InputError, match=r"criterion is 'l3', expected .*l2_squared"):
        saliency(MODEL, GRAPH, "l3")
    with pytest.raises(InputError, match=r"reduction is 'min', expected .*sum, mean, max"):
        saliency(MODEL, GRAPH, "l2", reduction="min")


def test_another_model_than_the_traced_one_is_refused() -> None:
    with pytest.raises(InputError, match=r"no tensor 0\.weight"):
        saliency(nn.Linear(2, 2), GRAPH, "l2")
    wider, _ = chain([9, 5])
    graph = trace(MODEL, batches(1)[0][0])
    with pytest.raises(InputError, match="graph is of another network"):
        saliency(wider, graph, "l2")
