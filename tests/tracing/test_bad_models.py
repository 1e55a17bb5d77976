"""Models and inputs that can't be traced: refused in one line; odd ones that can are left as is."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lcprune.errors import InputError, ModelError
from lcprune.slimming import slim, verify
from lcprune.tracing import trace
from lcprune.tracing._refusals import refuse_untraceable
from oracle import check, plan_of, random_keep, randomise

IMAGE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Conv2d(6, 4, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    )


def refused(
    model: Any, example: Any = IMAGE, kind: type[InputError] = ModelError, *, match: str
) -> None:
    with pytest.raises(kind, match=match) as caught:
        trace(model, example)
    assert "\n" not in str(caught.value)


class Returns(nn.Module):
    """A convolution, and then whatever ``answer`` makes of its output."""

    def __init__(self, answer: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.answer = answer

    def forward(self, x: Tensor) -> Any:
        return self.answer(self.conv(x))


def fail(_: Tensor) -> None:
    raise KeyError("first line\nsecond line")


def fail_silently(_: Tensor) -> None:
    raise NotImplementedError


# -- what the model does ---------------------------------------------------------------------


def test_a_forward_that_raises_is_named_with_its_error_and_the_shapes() -> None:
    refused(Returns(fail), match=r"forward fails on the example input \(1x3x8x8\): KeyError")
    refused(Returns(fail_silently), match=r"\(1x3x8x8\): NotImplementedError$")


@pytest.mark.parametrize(
    "answer",
    [
        lambda x: None,
        lambda x: float(x.mean()),
        lambda x: {"mean": x.mean().item(), "sizes": list(x.shape), "name": "x"},
        lambda x: x.numpy(),
        lambda x: [],
    ],
    ids=["none", "number", "numbers", "numpy", "empty"],
)
def test_a_model_without_a_tensor_among_its_outputs_is_refused(
    answer: Callable[[Tensor], Any],
) -> None:
    refused(Returns(answer), match="returns no tensor; expected at least one")


# -- what the model is -----------------------------------------------------------------------


@pytest.mark.parametrize("model", [None, nn.Conv2d, torch.relu, {"a": 1}, "resnet50"])
def test_what_is_no_module_is_refused(model: object) -> None:
    refused(model, match="expected an nn.Module")


@pytest.mark.parametrize(
    "lazy", [nn.LazyConv2d(3, 3), nn.LazyBatchNorm2d(), nn.LazyLinear(3)], ids=str
)
def test_lazy_modules_are_refused_by_the_name_of_their_tensor(lazy: nn.Module) -> None:
    refused(nn.Sequential(nn.Identity(), lazy), match=r"^1\.\w+ is not initialised yet; run the")


def test_a_lazy_module_works_once_it_has_run() -> None:
    model = nn.Sequential(nn.LazyConv2d(6, 3), nn.Conv2d(6, 2, 1))
    model(IMAGE)
    assert trace(model, IMAGE).prunable == 6


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_quantised_modules_are_refused_by_name() -> None:
    static = nn.Sequential(nn.Identity(), torch.ao.nn.quantized.Conv2d(3, 4, 3))
    refused(static, match=r"^1 in the model is a quantised module \(torch\.ao\..*\.Conv2d\)")
    fused = torch.ao.nn.intrinsic.quantized.ConvReLU2d(3, 4, 3)
    refused(fused, match=r"^the model is a quantised module \(.*ConvReLU2d\)")
    dynamic = torch.ao.quantization.quantize_dynamic(network(), {nn.Linear})
    refused(dynamic, match=r"^7 in the model is a quantised module \(.*dynamic.*Linear\).* prune")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_quantised_and_other_extraordinary_tensors_are_refused_by_name() -> None:
    model = nn.Sequential(nn.Identity(), nn.Module())
    model[1].register_buffer("table", torch.quantize_per_tensor(IMAGE, 0.1, 0, torch.qint8))
    refused(model, match=r"^1\.table is quantised; expected an ordinary tensor")

    class Logging(Tensor):
        @classmethod
        def __torch_dispatch__(
            cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            return func(*args, **(kwargs or {}))

    odd = nn.Sequential(nn.Identity(), nn.Module())
    odd[1].register_buffer("table", torch.zeros(3).as_subclass(Logging))
    refused(odd, match=r"^1\.table is a .*Logging; expected an ordinary tensor")


def test_parameters_of_a_harmless_subclass_are_traced() -> None:
    class Named(nn.Parameter):
        pass

    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1))
    model[0].weight = Named(model[0].weight.detach())
    assert trace(model, IMAGE).prunable == 6


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_scripted_and_traced_modules_are_refused_at_any_depth() -> None:
    for made in (torch.jit.script(network()), torch.jit.trace(network().eval(), IMAGE)):
        refused(made, match="^the model is a scripted module")
        inside = nn.Sequential(nn.Identity(), nn.Sequential(made))
        refused(inside, match=r"^1\.0 in the model is a scripted module")


def test_a_compiled_model_is_refused_with_what_to_pass_instead() -> None:
    model = network()
    compiled = torch.compile(model)
    refused(compiled, match="compiled by torch.compile; expected its ordinary module.*_orig_mod")
    refused(nn.Sequential(compiled), match="^0 in the model is compiled")
    assert trace(compiled._orig_mod, IMAGE).prunable == trace(model, IMAGE).prunable


def test_a_model_compiled_in_place_is_traced_as_it_was_before() -> None:
    model = network()
    plain = trace(model, IMAGE).prunable
    model.compile()
    assert trace(model, IMAGE).prunable == plain > 0


def test_a_data_parallel_model_is_refused_with_what_to_pass_instead() -> None:
    model = nn.DataParallel(network())
    refused(model, match="^the model is wrapped in DataParallel; .*pass .module")
    assert trace(model.module, IMAGE).prunable == 10


# -- where its tensors are -------------------------------------------------------------------


def test_a_model_on_meta_is_refused() -> None:
    refused(network().to("meta"), match=r"^0\.weight is on the meta device; expected real tensors")


def test_a_model_on_two_devices_is_refused_with_two_tensors() -> None:
    model = network()
    model[4].to("meta")
    refused(model, match=r"^0\.weight is on cpu and 4\.weight on meta; expected .* one device")
    model = network()
    model[1].running_mean = torch.zeros(6, device="meta")
    refused(model, match=r"^0\.weight is on cpu and 1\.running_mean on meta")


def test_counters_on_the_cpu_do_not_make_a_second_device() -> None:
    model = network().to("meta")
    model[1].num_batches_tracked = torch.tensor(0)
    with pytest.raises(ModelError, match=r"^0\.weight is on the meta device"):
        refuse_untraceable(model)


# -- the example input -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("example", "kind"),
    [
        ([IMAGE], "list"),
        ("1x3x8x8", "str"),
        (IMAGE.numpy(), r"numpy\.ndarray"),
        ({"x": IMAGE}, "dict"),
        (None, "NoneType"),
        (3, "int"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_example_input_of_another_type_is_refused(example: object, kind: str) -> None:
    refused(
        network(),
        example,
        InputError,
        match=rf"^the example input is a {kind}; expected a tensor, or a tuple of positional",
    )


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (torch.zeros(1, 4, 8, 8), r"\(1x4x8x8\): RuntimeError: .*channels"),
        (torch.zeros(1, 3, 2, 2), r"\(1x3x2x2\): RuntimeError"),
        (torch.zeros(8), r"\(8\): RuntimeError"),
        (torch.tensor(1.0), r"\(a number\): "),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), r"\(1x3x8x8 int64\): RuntimeError"),
        ((IMAGE, IMAGE), r"\(1x3x8x8, 1x3x8x8\): TypeError"),
        ((), r"\(\): TypeError"),
        ((IMAGE.numpy(),), r"\(ndarray\): TypeError"),
        (([IMAGE],), r"\(1x3x8x8\): TypeError"),
        (torch.zeros(2, 4, 8, 8), r"\(2x4x8x8\): RuntimeError"),
    ],
)
def test_an_example_input_that_does_not_fit_is_described(example: Any, message: str) -> None:
    refused(network(), example, match=f"forward fails on the example input {message}")


def test_an_example_input_on_meta_is_refused() -> None:
    refused(network(), IMAGE.to("meta"), InputError, match="^the example input is on the meta dev")


# -- odd, but right --------------------------------------------------------------------------


def test_a_model_in_training_with_frozen_parameters_works_and_is_left_as_it_was() -> None:
    model = randomise(network(), 0)
    plain = trace(model, IMAGE)
    model.train()
    model[1].eval()
    model[0].requires_grad_(False)
    model(IMAGE.repeat(2, 1, 1, 1)).sum().backward()
    modes = [module.training for module in model.modules()]
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    graph = trace(model, IMAGE)
    assert graph.prunable == plain.prunable == 10
    plan = plan_of(graph, random_keep(graph, np.random.default_rng(0)))
    small = slim(model, plan)
    assert verify(model, small, plan, IMAGE) <= 1e-9
    assert [module.training for module in model.modules()] == modes
    assert [module.training for module in small.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == wanted
    assert [parameter.requires_grad for parameter in small.parameters()] == wanted
    assert all(torch.equal(state[name], t) for name, t in model.state_dict().items())
    for parameter, grad in zip(model.parameters(), grads, strict=True):
        assert (grad is None) == (parameter.grad is None)
        assert grad is None or torch.equal(grad, parameter.grad)


class KeepsFeatures(nn.Module):
    """Puts tensors by that belong to a graph of gradients, in containers too."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 6, 1)
        self.b = nn.Conv2d(6, 2, 1)
        self.seen: dict[str, list[Tensor]] = {}

    def forward(self, x: Tensor) -> Tensor:
        self.last = self.a(x)
        self.seen["features"] = [self.last * 2]
        return self.b(self.last)


def test_what_a_model_keeps_of_an_earlier_run_does_not_matter() -> None:
    model = KeepsFeatures()
    model(IMAGE).sum().backward()
    last = model.last
    assert trace(model, IMAGE).prunable == 6
    assert model.last is last
    assert last.requires_grad


@pytest.mark.xfail(strict=True, reason="slim copies the tensors of an earlier run")
def test_a_model_that_keeps_tensors_of_an_earlier_run_can_be_slimmed() -> None:
    model = randomise(KeepsFeatures(), 0)
    model(IMAGE).sum().backward()
    assert check(model, IMAGE, 0).error <= 1e-9


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weights_that_a_hook_computes_are_followed() -> None:
    normed = torch.nn.utils.weight_norm(nn.Conv2d(3, 6, 1))
    model = nn.Sequential(normed, nn.ReLU(), nn.Conv2d(6, 2, 1))
    graph = trace(model, IMAGE)
    assert graph.prunable == 6
    (family,) = graph.families
    assert {("0.weight_v", 0), ("0.weight_g", 0), ("2.weight", 1)} <= set(family.dimensions)


def test_tracing_works_in_inference_mode_too() -> None:
    model = randomise(network(), 0)
    with torch.inference_mode():
        inside = randomise(network(), 0)
        assert trace(model, IMAGE + 0).prunable == 10
        graph = trace(inside, IMAGE + 0)
        plan = plan_of(graph, random_keep(graph, np.random.default_rng(0)))
        assert verify(inside, slim(inside, plan), plan, IMAGE + 0) <= 1e-9
    assert graph.prunable == 10
    assert trace(inside, IMAGE).prunable == 10


# -- control flow that depends on data ---------------------------------------------------------


class Branches(nn.Module):
    """One of two layers, by what ``decide`` says of the input."""

    def __init__(self, decide: Callable[[Tensor], bool]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3)
        self.yes = nn.Conv2d(6, 5, 1)
        self.no = nn.Conv2d(6, 4, 1)
        self.head = nn.Linear(6, 2)
        self.register_buffer("limit", torch.tensor(2.0))
        self.decide = decide

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.stem(x))
        taken = self.yes if self.decide(x) else self.no
        return self.head(y.mean((2, 3))) * torch.tanh(taken(y)).mean()


def copied_element(x: Tensor) -> bool:
    whole = torch.zeros(4)
    whole[1:3] = x[0, 0, 0, :2]
    return float(whole.sum()) > -100


DECIDING = {
    "item": lambda x: x.sum().item() > -1e9,
    "bool": lambda x: bool(x.abs().max() < 100),
    "index": lambda x: [True, True][int(x.argmax()) % 2],
    "equal": lambda x: torch.equal(x, x.clone()),
    "nonzero": lambda x: len(x.abs().nonzero()) > 0,
    "list": lambda x: max(x.flatten().tolist()) < 100,
    "numpy": lambda x: x.numpy().max() < 100,
    "written": copied_element,
}


@pytest.mark.parametrize("decide", DECIDING.values(), ids=DECIDING)
def test_control_flow_by_data_follows_the_path_taken_and_says_so(
    decide: Callable[[Tensor], bool],
) -> None:
    model = randomise(nn.Sequential(nn.Identity(), Branches(decide)), 0)
    graph = trace(model, IMAGE)
    assert [note for note in graph.notes if "depends on data" in note] == [
        "the control flow of 1 depends on data; followed along the path of the example input"
    ]
    assert "1.no is not reached by the forward pass" in graph.notes
    assert ("1.yes.weight", 1) in {d.key for d in graph.dimensions}
    assert check(model, IMAGE, 0, graph).error <= 1e-9


CONSTANT = {
    "shape": lambda x: x.shape[-1] > 2,
    "literal": lambda x: float(torch.tensor(3.0)) > 2,
    "computed": lambda x: int(torch.linspace(0, 8, 3)[1].round()) == 4,
    "size of a view": lambda x: x.flatten(1).shape[1] > 3,
}


@pytest.mark.parametrize("decide", CONSTANT.values(), ids=CONSTANT)
def test_control_flow_by_shapes_and_constants_needs_no_note(
    decide: Callable[[Tensor], bool],
) -> None:
    model = Branches(decide)
    assert not [note for note in trace(model, IMAGE).notes if "depends on data" in note]


def test_control_flow_by_the_state_of_the_model_needs_no_note() -> None:
    class Limits(Branches):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if self.limit.sqrt().item() > 1 else x

    model = Limits(lambda x: True)
    assert not [note for note in trace(model, IMAGE).notes if "depends on data" in note]


def test_warnings_of_the_model_are_the_only_ones() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trace(network(), IMAGE)
