"""What a model is called with: one example or several, positional and by keyword, nested."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lcprune.errors import InputError
from lcprune.tracing._tree import map_tensors, named_tensors


@dataclass(frozen=True, init=False, eq=False)
class Inputs:
    """What a model is called with: ``model(*args, **kwargs)``.

    Example:
        Inputs(image, scale=2.0)
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        object.__setattr__(self, "args", args)
        object.__setattr__(self, "kwargs", kwargs)

    def tensors(self) -> list[Tensor]:
        """All tensors among the arguments, at any depth, in objects of any kind."""
        return [tensor for _, tensor in named_tensors([self.args, dict(self.kwargs)])]

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Inputs:
        """The same arguments with every tensor changed, in copies of what holds them."""
        args, kwargs = map_tensors((self.args, dict(self.kwargs)), change)
        return Inputs(*args, **kwargs)

    @property
    def batch(self) -> int:
        """The number of samples: the leading size of the first tensor with most dimensions.

        It is 0 where there is no tensor with dimensions.
        """
        largest = max(self.tensors(), key=lambda tensor: tensor.dim(), default=None)
        return 0 if largest is None or not largest.dim() else largest.shape[0]


ExampleInput = Tensor | Mapping[str, Any] | tuple[Any, ...] | list[Any] | Inputs
"""A tensor or a mapping is the one positional argument, a tuple all of them; a list holds several
examples."""


def as_examples(
    example_input: ExampleInput | None, example_kwargs: Mapping[str, Any] | None = None
) -> tuple[Inputs, ...]:
    """The examples that were given, one or more; ``InputError`` where there is none to run.

    ``example_kwargs`` are arguments by keyword, of every example.
    """
    if example_kwargs is not None and not (
        isinstance(example_kwargs, Mapping) and all(isinstance(k, str) for k in example_kwargs)
    ):
        kind = type(example_kwargs).__name__
        raise InputError(f"example_kwargs is a {kind}; expected a dictionary by argument names")
    if isinstance(example_input, list):
        if not example_input:
            raise InputError("the list of example inputs is empty; expected one or more")
        given = example_input
    else:
        given = [example_input]
    examples = tuple(_as_inputs(example, example_kwargs or {}) for example in given)
    for example in examples:
        for tensor in example.tensors():
            _check_tensor(tensor)
    return examples


def _as_inputs(example: Any, kwargs: Mapping[str, Any]) -> Inputs:
    if isinstance(example, Inputs):
        return Inputs(*example.args, **{**kwargs, **example.kwargs})
    if example is None and kwargs:
        return Inputs(**kwargs)
    if isinstance(example, tuple):
        return Inputs(*example, **kwargs)
    if isinstance(example, Tensor | Mapping):
        return Inputs(example, **kwargs)
    kind = type(example)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    raise InputError(
        f"the example input is a {name}; expected a tensor, a dictionary, a tuple of positional "
        "arguments, lcprune.Inputs, or a list of several such"
    )


def _check_tensor(tensor: Tensor) -> None:
    if tensor.is_meta:
        raise InputError("the example input is on the meta device; expected real tensors")
    if tensor.layout != torch.strided:
        kind = "nested" if tensor.is_nested else "sparse"
        raise InputError(f"the example input has a {kind} tensor; expected dense ones")
    if not tensor.numel():
        shape = "x".join(map(str, tensor.shape))
        raise InputError(f"the example input has an empty tensor ({shape}); expected a sample")


def own(inputs: Inputs) -> Inputs:
    """The inputs for a model to keep: it may write into them."""
    with torch.inference_mode(False), torch.no_grad():
        return inputs.mapped(torch.clone)


def training_forms(inputs: Inputs, seed: int = 0) -> tuple[Inputs, ...]:
    """What to run in training mode where only inputs for evaluation are known, best first.

    First every sample twice, the second time with noise (a batch norm takes no single value),
    then the samples as they are, for models without a batch dimension. The noise has a generator
    of its own; integers are repeated.
    """
    size = inputs.batch
    generator = torch.Generator().manual_seed(seed)

    def repeated(x: Tensor) -> Tensor:
        if not x.dim() or x.shape[0] != size:
            return x
        return torch.cat([x, _noisy(x, generator)])

    with torch.inference_mode(False), torch.no_grad():
        return inputs.mapped(repeated), inputs


def _noisy(x: Tensor, generator: torch.Generator) -> Tensor:
    """Other values of the same kind: within the range of ``x``, where it has one."""
    if not x.is_floating_point():
        return x
    low, high = x.amin(), x.amax()
    noise = torch.rand(x.shape, generator=generator).to(x) - 0.5
    if not bool(torch.isfinite(high - low)) or low == high:
        return x + noise
    moved = x + noise * (high - low) / 4
    # What would leave the range is reflected, so that no two values become the same limit.
    moved = torch.where(moved > high, 2 * high - moved, moved)
    return torch.where(moved < low, 2 * low - moved, moved)
