"""Models and inputs that can't be traced are refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lcprune.errors import InputError, ModelError
from lcprune.tracing import trace
from lcprune.tracing._run import refuse_untraceable

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
    refused(model, match="expected a torch.nn.Module")


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
        ("1x3x8x8", "str"),
        (IMAGE.numpy(), r"numpy\.ndarray"),
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
        match=rf"^the example input is of type {kind}; expected a tensor, a dictionary, a tuple of",
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
        ((), r"\(no arguments\): TypeError"),
        ((IMAGE.numpy(),), r"\(ndarray\): TypeError"),
        (([IMAGE],), r"\(1x3x8x8\): TypeError"),
        (torch.zeros(2, 4, 8, 8), r"\(2x4x8x8\): RuntimeError"),
    ],
)
def test_an_example_input_that_does_not_fit_is_described(example: Any, message: str) -> None:
    refused(network(), example, match=f"forward fails on the example input {message}")


def test_an_example_input_on_meta_is_refused() -> None:
    refused(network(), IMAGE.to("meta"), InputError, match="^the example input is on the meta dev")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_example_input_without_dense_elements_is_refused() -> None:
    refused(network(), torch.zeros(0, 3, 8, 8), InputError, match=r"empty tensor \(0x3x8x8\)")
    refused(network(), IMAGE.to_sparse(), InputError, match="a sparse tensor; expected dense")
    nested = torch.nested.nested_tensor([IMAGE[0], IMAGE[0, :2]], layout=torch.jagged)
    refused(network(), (IMAGE, {"masks": nested}), InputError, match="a nested tensor; expected")
