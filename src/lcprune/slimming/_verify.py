"""The oracle: a slimmed model equals the original with masked contractions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lcprune.errors import LcpruneError, ModelError, VerificationError
from lcprune.graph import FIXED
from lcprune.ranking import Plan
from lcprune.slimming._fit import check_fit
from lcprune.tracing import (
    ExampleInput,
    Inputs,
    LabelFlow,
    apply_rule,
    as_examples,
    first_sample,
    forward,
    outputs,
    private_copy,
    run_labelled,
)

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
"""The largest relative difference that passes, by the precision of the comparison."""

VISIBLE = 1e-3
"""The least effect of a removal that a comparison of outputs can be trusted with."""

_LESS = frozenset({torch.float32, torch.float16, torch.bfloat16})


def verify(model: nn.Module, small: nn.Module, plan: Plan, example_input: ExampleInput) -> float:
    """The largest relative difference between ``small`` and the masked ``model``.

    The reference is ``model`` in eval mode in which the elements of every removed channel are
    multiplied by 0 at the input of every contraction, producers untouched; statistics across
    channels are taken over the kept ones. Both run in float64 (casts to less within a model are
    left out), or in float32 where the model can't, and on the CPU with the same random draws
    where ``model`` makes any. Differences are relative to the largest reference value of each
    output tensor.

    Raises ``VerificationError`` above 1e-9 (float64) or 1e-4 (float32), or where ``small`` can't
    run, and ``ModelError`` where ``model`` can't.
    """
    error, precision = difference(model, small, plan, example_input)
    if not error <= TOLERANCE[precision]:
        raise VerificationError(
            f"the slimmed model differs from the masked original by {error:.2g} "
            f"(at most {TOLERANCE[precision]:g} in {str(precision).removeprefix('torch.')})"
        )
    return error


def effect(model: nn.Module, plan: Plan, example_input: ExampleInput) -> float:
    """How far the removal of a plan's channels moves the outputs, relative to the largest.

    ``verify`` says little about channels whose removal moves next to nothing: a network that
    answers the same to everything passes with any cut. Errors as for ``verify``.
    """
    try:
        copied, inputs = prepared(model, example_input, torch.float64)
        expected = plain_outputs(copied, inputs)
    except ModelError:
        copied, inputs = prepared(model, example_input, torch.float32)
        expected = plain_outputs(copied, inputs)
    expected = [tensor.clone() for tensor in expected]
    return relative_difference(expected, masked_outputs(copied, plan, inputs))


def difference(
    model: nn.Module, small: nn.Module, plan: Plan, example_input: ExampleInput
) -> tuple[float, torch.dtype]:
    """The difference that ``verify`` judges, and the precision that it was measured in."""
    check_fit(model, plan)
    try:
        return _difference(model, small, plan, example_input, torch.float64), torch.float64
    except ModelError:
        return _difference(model, small, plan, example_input, torch.float32), torch.float32


def _difference(
    model: nn.Module,
    small: nn.Module,
    plan: Plan,
    example_input: ExampleInput,
    precision: torch.dtype,
) -> float:
    copied, inputs = prepared(model, example_input, precision)
    expected = masked_outputs(copied, plan, inputs)
    candidate = private_copy(small).eval().to(precision)
    try:
        actual = plain_outputs(candidate, inputs)
    except LcpruneError as error:
        raise VerificationError(f"the slimmed model does not run: {error}") from error
    return relative_difference(expected, actual)


def prepared(
    model: nn.Module, example_input: ExampleInput, precision: torch.dtype
) -> tuple[nn.Module, Inputs]:
    """A copy of a model, in eval mode, and one sample of its input, both in ``precision``."""
    copied = private_copy(model).eval().to(precision)
    with _same_draws():
        return copied, first_sample(copied, _cast(as_examples(example_input)[0], precision))


def plain_outputs(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    """The output tensors of a model that runs by itself; ``ModelError`` where it raises."""
    with torch.no_grad(), _same_draws(), _keep_double():
        return outputs(forward(model, inputs))


def masked_outputs(model: nn.Module, plan: Plan, inputs: Inputs) -> list[Tensor]:
    """The outputs of the reference: ``model`` in eval mode, masked by ``plan``."""
    flow = LabelFlow(model, apply_rule)
    flow.mask.keep_only(_keep(flow, plan))
    with _same_draws(), _keep_double():
        return [output.tensor.clone() for output in run_labelled(flow, model, inputs)]


@contextmanager
def _same_draws() -> Iterator[None]:
    """A state of the global generator of the CPU that is the same in both runs, and put back."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


def _keep(flow: LabelFlow, plan: Plan) -> Tensor:
    """Whether the plan keeps each label; those that stand for no tensor are kept."""
    keep = torch.ones(flow.labels.count, dtype=torch.bool)
    for source in flow.labels.sources:
        kept = plan.kept.get((source.tensor, source.dim))
        if kept is not None:
            labels = keep[source.start : source.start + source.size]
            labels.fill_(False)
            labels[list(kept)] = True
    assert FIXED == -1, "keep_only appends the entry that FIXED labels read"
    return keep


def _cast(inputs: Inputs, precision: torch.dtype) -> Inputs:
    return inputs.mapped(lambda x: x.to(precision) if x.is_floating_point() else x)


def relative_difference(expected: list[Tensor], actual: list[Tensor]) -> float:
    """The largest difference, relative to the largest value of its reference tensor."""
    if [t.shape for t in expected] != [t.shape for t in actual]:
        raise VerificationError(
            f"the slimmed model returns shapes {[tuple(t.shape) for t in actual]}, "
            f"expected {[tuple(t.shape) for t in expected]}"
        )
    worst = 0.0
    for reference, other in zip(expected, actual, strict=True):
        if not reference.numel():
            continue
        scale = max(float(reference.abs().max()), torch.finfo(torch.float64).tiny)
        error = float((reference.double() - other.double()).abs().max()) / scale
        worst = max(worst, error if error == error else float("inf"))
    return worst


class _KeepDouble(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Leaves float64 tensors as they are where code says ``.float()`` or ``.half()``.

    Such a cast is there for speed or for stability; in a comparison its rounding would hide
    faults below it and look like one.
    """

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if (
            func.overloadpacket is torch.ops.aten._to_copy
            and args[0].dtype == torch.float64
            and given.get("dtype") in _LESS
        ):
            given["dtype"] = torch.float64
        return func(*args, **given)


def _keep_double() -> AbstractContextManager[object]:
    """A context in which a cast of a float64 tensor to less does nothing."""
    mode: AbstractContextManager[object] = _KeepDouble()  # type: ignore[no-untyped-call]
    return mode
