"""The original network in one mode, and how far a slimmed one is from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from lcprune._text import first_line
from lcprune.errors import LcpruneError, ModelError, VerificationError
from lcprune.graph import FIXED
from lcprune.ranking import Plan
from lcprune.slimming._copy import copied
from lcprune.slimming._draws import Draws, same_generators
from lcprune.tracing import (
    ExampleInput,
    Inputs,
    LabelFlow,
    apply_rule,
    as_examples,
    first_sample,
    forward,
    free_among,
    inputs_for_training,
    outputs,
    private_copy,
    run_labelled,
)

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
"""The largest relative difference that passes, by the precision of the comparison."""

SEEDS = 3
"""Under how many seeds training is compared where a draw may decide what runs."""

FAILS = "the slimmed model fails"
DIFFERS = "the slimmed model differs from the masked original"

LONGEST = 160
"""The most characters of an error that a reason quotes."""

Make = Callable[[], nn.Module]
"""Makes a slimmed model anew: a model may change its own state whenever it runs."""

_LESS = frozenset({torch.float32, torch.float16, torch.bfloat16})


class SlimmedModelError(VerificationError):
    """A slimmed model is not the masked original: ``reason`` in short, and the error, if any."""

    def __init__(self, reason: str, error: Exception | None = None, *, what: str = "") -> None:
        self.reason = reason
        self.error = None if error is None else cause_of(error)
        super().__init__((what or reason) + ("" if self.error is None else f": {self.error}"))


class MaskedModelError(ModelError):
    """The masked original can't run, though the original may; ``error`` says why."""

    def __init__(self, mode: str, error: Exception) -> None:
        self.error = cause_of(error)
        super().__init__(f"the masked original fails{mode}: {self.error}")


@dataclass(frozen=True)
class _Whole:
    """How the original itself runs: the error where it can't, and which gradients are finite.

    ``finite`` is none where the original has no backward pass.
    """

    error: str = ""
    finite: frozenset[str] | None = None


class Original:
    """A model in evaluation or training mode, beside which slimmed ones are put.

    It is copied once, into float64, or into float32 from the moment that it can't run in float64.
    ``given`` are the examples, each in the forms that may be tried, best first.
    In training mode BatchNorm takes the statistics of the batch, and gradients flow: the loss is
    the sum of the floating outputs' squares, and of numbers (losses) as they are. Where a draw may
    decide what runs, several seeds are compared.
    """

    def __init__(
        self, model: nn.Module, given: Sequence[tuple[Inputs, ...]], *, training: bool
    ) -> None:
        self.training = training
        self.mode = " in training mode" if training else ""
        self._source = model
        self._given = given
        forms = range(max(map(len, given)))
        self._ways = [(p, form) for p in (torch.float64, torch.float32) for form in forms]
        self._errors: dict[tuple[torch.dtype, int], str] = {}
        self._take()

    def _take(self) -> None:
        """Make the copy and its inputs of the first way that is left."""
        self.precision, form = self._ways[0]
        self._model = _copy(self._source).train(self.training).to(self.precision)
        chosen = [forms[min(form, len(forms) - 1)] for forms in self._given]
        self.inputs = tuple(_cast(inputs, self.precision) for inputs in chosen)
        self._wholes: dict[tuple[int, int], _Whole] = {}
        self._doubt: str | None = None

    def _give_up(self, error: ModelError) -> None:
        """Go on in another way; raise where there is none, as the model would say it."""
        self._errors[self._ways.pop(0)] = str(error)
        if not self._ways:
            self._ways = [(self.precision, 0)]
            raise ModelError(self._errors[torch.float32, 0]) from error
        self._take()

    # -- comparisons -----------------------------------------------------------------------

    def difference(self, make: Make, plan: Plan) -> float:
        """The largest relative difference of a slimmed model from the masked original.

        Raises ``SlimmedModelError`` where the slimmed one can't run, returns other shapes, or has
        gradients that are not finite though the original's are; ``MaskedModelError`` where only
        the masked original can't run, and ``ModelError`` where the original can't.
        """
        try:
            return max(self._difference(make, plan, inputs) for inputs in self.inputs)
        except MaskedModelError:
            raise
        except ModelError as error:
            self._give_up(error)
            return self.difference(make, plan)

    def is_right(self, error: float) -> bool:
        """Whether a difference is within the tolerance of the precision."""
        return error <= TOLERANCE[self.precision]

    def effect(self, plan: Plan) -> float:
        """How far masking moves the outputs; ``ModelError`` where the original can't run."""
        try:
            return max(self._effect(plan, inputs) for inputs in self.inputs)
        except ModelError as error:
            self._give_up(error)
            return self.effect(plan)

    def doubt(self) -> str:
        """Why nothing can be said about slimmed models, or nothing: a comparison with itself."""
        if self._doubt is None:
            self._doubt = self._compare_with_itself()
        return self._doubt

    def _compare_with_itself(self) -> str:
        try:
            if self.is_right(self.difference(self._copy, Plan(kept={}))):
                return ""
        except ModelError as error:
            return str(error)
        except SlimmedModelError as error:
            if error.error is not None:
                return f"a copy of the model fails with all its channels{self.mode}: {error.error}"
        return (
            f"the model's output differs from that of its copy{self.mode}, or is not a number; "
            "expected finite outputs that are the same whenever it runs"
        )

    def _difference(self, make: Make, plan: Plan, inputs: Inputs) -> float:
        draws = Draws()
        error = self._compared(make, plan, inputs, draws)
        for seed in range(1, SEEDS) if self.training and draws.chooses else ():
            error = max(error, self._compared(make, plan, inputs, Draws(seed=seed)))
        return error

    def _compared(self, make: Make, plan: Plan, inputs: Inputs, draws: Draws) -> float:
        actual, odd = self._slimmed(make, inputs, draws)
        beside = Draws(draws.drawn, seed=draws.seed)
        try:
            expected = masked_outputs(self._copy(), plan, inputs, beside)
        except ModelError as failed:
            self._require(inputs, draws.seed)
            raise MaskedModelError(self.mode, failed) from failed
        if beside.neutral:
            again = Draws(neutral=beside.neutral, seed=draws.seed)
            actual, odd = self._slimmed(make, inputs, again)
        error = relative_difference(expected, actual, self.mode)
        if odd is not None:
            raise odd
        return error

    def _effect(self, plan: Plan, inputs: Inputs) -> float:
        expected = [t.clone() for t in plain_outputs(self._copy(), inputs)]
        whole = replace(plan, free_outputs=())  # outputs that may shrink are compared whole
        return relative_difference(expected, masked_outputs(self._copy(), whole, inputs))

    def _slimmed(
        self, make: Make, inputs: Inputs, draws: Draws
    ) -> tuple[list[Tensor], SlimmedModelError | None]:
        """The outputs of a slimmed model, and what is wrong with its gradients in training mode.

        What a backward pass needs is let go before the reference runs: each may fill the memory.
        """
        gradients = self.training
        while True:
            try:
                small = make().train(self.training).to(self.precision)
                actual = _run(small, inputs, draws, gradients=gradients)
                break
            except Exception as error:  # a foreign model may raise anything while it is copied
                self._require(inputs, draws.seed)
                if not gradients or self._whole(inputs, draws.seed).finite is not None:
                    raise SlimmedModelError(f"{FAILS}{self.mode}", error) from error
            gradients = False  # the original can't run with gradients either
            draws.drawn.clear()
        odd = self._odd_gradients(small, actual, inputs, draws.seed) if self.training else None
        return [tensor.detach() for tensor in actual], odd

    def _odd_gradients(
        self, small: nn.Module, actual: list[Tensor], inputs: Inputs, seed: int
    ) -> SlimmedModelError | None:
        """What to raise unless gradients are finite wherever the original's are."""
        try:
            if not _backward(actual):
                return None
        except Exception as error:
            if self._whole(inputs, seed).finite is None:
                return None
            return SlimmedModelError(f"{FAILS} backward{self.mode}", error)
        odd = {name for name, p in small.named_parameters() if p.requires_grad and not _finite(p)}
        odd &= self._whole(inputs, seed).finite or frozenset() if odd else odd
        if not odd:
            return None
        reason = f"gradients of the slimmed model are not finite{self.mode}"
        return SlimmedModelError(reason, what=f"{reason}, but the original's are ({min(odd)})")

    # -- the original itself ---------------------------------------------------------------

    def _copy(self) -> nn.Module:
        """On a copy: a model may change its own state whenever it runs."""
        return _copy(self._model)

    def _require(self, inputs: Inputs, seed: int) -> None:
        """``ModelError`` where the original itself can't run."""
        error = self._whole(inputs, seed).error
        if error:
            raise ModelError(error)

    def _whole(self, inputs: Inputs, seed: int = 0) -> _Whole:
        key = id(inputs), seed
        if key not in self._wholes:
            self._wholes[key] = self._run_whole(inputs, seed)
        return self._wholes[key]

    def _run_whole(self, inputs: Inputs, seed: int) -> _Whole:
        if self.training:
            model = self._copy()
            try:
                found = _backward(_run(model, inputs, Draws(seed=seed), gradients=True))
                names = [name for name, p in model.named_parameters() if found and _finite(p)]
                return _Whole(finite=frozenset(names))
            except Exception:  # without gradients it may run
                pass
        try:
            plain_outputs(self._copy(), inputs, Draws(seed=seed))
        except ModelError as error:
            return _Whole(error=str(error))
        return _Whole()


def _copy(model: nn.Module) -> nn.Module:
    with torch.inference_mode(False):
        return copied(model, {})


def originals(
    model: nn.Module,
    example_input: ExampleInput | None,
    example_kwargs: Mapping[str, Any] | None,
    training_inputs: ExampleInput | None,
) -> tuple[Original, Original]:
    """A model in evaluation and in training mode, with what it is called with in each."""
    ready = private_copy(model).eval()
    with same_generators():
        given = [first_sample(ready, e) for e in as_examples(example_input, example_kwargs)]
    if training_inputs is None:
        training = [inputs_for_training(ready, inputs) for inputs in given]
    else:
        training = [(inputs,) for inputs in as_examples(training_inputs)]
    return (
        Original(ready, [(inputs,) for inputs in given], training=False),
        Original(ready, training, training=True),
    )


def plain_outputs(model: nn.Module, inputs: Inputs, draws: Draws | None = None) -> list[Tensor]:
    """The output tensors of a model that runs by itself; ``ModelError`` where it raises."""
    draws = draws or Draws()
    with torch.no_grad(), same_generators(draws.seed), _keep_double(), draws:
        return outputs(forward(model, inputs))


def masked_outputs(
    model: nn.Module, plan: Plan, inputs: Inputs, draws: Draws | None = None
) -> list[Tensor]:
    """The outputs of the reference: ``model``, in the mode that it is in, masked by ``plan``.

    Of outputs that may shrink the kept channels are left.
    """
    flow = LabelFlow(model, apply_rule)
    flow.mask.keep_only(_keep(flow, plan))
    draws = draws or Draws()
    with same_generators(draws.seed), _keep_double(), draws:
        returned = run_labelled(flow, model, inputs, plan.free_outputs)
        free = free_among([output.name for output in returned], plan.free_outputs)
        return [
            flow.left(output.tensor) if output.name in free else output.tensor.clone()
            for output in returned
        ]


def _run(model: nn.Module, inputs: Inputs, draws: Draws, *, gradients: bool) -> list[Tensor]:
    if not gradients:
        return plain_outputs(model, inputs, draws)
    own, same = inputs.mapped(torch.clone), same_generators(draws.seed)
    with torch.inference_mode(False), torch.enable_grad(), same, _keep_double(), draws:
        return outputs(model(*own.args, **own.kwargs))


def _backward(found: list[Tensor]) -> bool:
    """Run backward from the loss that ``Original`` names; whether there is anything to run."""
    parts = [t if not t.dim() else t.abs().square().sum() for t in found if t.requires_grad]
    if parts:
        with torch.inference_mode(False), same_generators(), _keep_double():
            torch.stack([part.double() for part in parts]).sum().backward()  # type: ignore[no-untyped-call]
    return bool(parts)


def _finite(parameter: Tensor) -> bool:
    return parameter.grad is not None and bool(parameter.grad.isfinite().all())


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


def relative_difference(expected: list[Tensor], actual: list[Tensor], mode: str = "") -> float:
    """The largest difference, relative to the largest value of its reference tensor.

    ``SlimmedModelError``, which names the ``mode``, where there are other tensors.
    """
    if [t.shape for t in expected] != [t.shape for t in actual]:
        raise SlimmedModelError(
            f"{DIFFERS}{mode}",
            what=f"the slimmed model returns shapes {[tuple(t.shape) for t in actual]}{mode}, "
            f"expected {[tuple(t.shape) for t in expected]}",
        )
    worst = 0.0
    for reference, other in zip(expected, actual, strict=True):
        if not reference.numel():
            continue
        reference, other = (_wide(t.detach()) for t in (reference, other))
        scale = max(float(reference.abs().max()), torch.finfo(torch.float64).tiny)
        error = float((reference - other).abs().max()) / scale
        worst = max(worst, error if error == error else float("inf"))
    return worst


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def cause_of(error: Exception) -> str:
    """The type and first line of an error, or of what it was raised from."""
    if isinstance(error, LcpruneError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return first_line(error, LONGEST)


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
        if func.overloadpacket.__name__.startswith(_SINGLE):
            return _in_single(func, args, given)
        if (
            func.overloadpacket is torch.ops.aten._to_copy
            and args[0].dtype == torch.float64
            and given.get("dtype") in _LESS
        ):
            given["dtype"] = torch.float64
        return func(*args, **given)


_SINGLE = ("fake_quantize", "_fake_quantize", "_fused_moving_avg_obs_fq")
"""Operators that PyTorch has for float32 alone, by how their names begin."""


def _in_single(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What an operator makes of float64 tensors in float32; those that it writes into follow."""
    names = [argument.name for argument in func._schema.arguments]
    given = dict(zip(names, args, strict=False)) | kwargs
    doubles = {
        name: value
        for name, value in given.items()
        if isinstance(value, Tensor) and value.dtype == torch.float64
    }
    singles = {name: double.float() for name, double in doubles.items()}
    out = func(**(given | singles))
    for argument in func._schema.arguments:
        if argument.name in doubles and argument.is_write:
            written = singles[argument.name]  # an observer takes its size from what it sees
            doubles[argument.name].resize_(written.shape).copy_(written)
    return tree_map(
        lambda x: x.double() if doubles and isinstance(x, Tensor) and x.dtype in _LESS else x, out
    )


def _keep_double() -> AbstractContextManager[object]:
    """A context in which a cast of a float64 tensor to less does nothing."""
    mode: AbstractContextManager[object] = _KeepDouble()  # type: ignore[no-untyped-call]
    return mode
