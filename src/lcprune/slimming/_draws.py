"""Random draws that two networks of different widths share."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten

Drawn = tuple[str, tuple[tuple[int, ...], ...]]
"""A draw that was made: the operator, and the shapes of its operands and results."""


SPREAD = 1_000_003
"""How far the draws of two seeds are apart."""


class Draws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Numbers the random draws of a run, each of which has a generator state of its own.

    Two runs whose draws have the same shapes draw the same values, whatever lies between. A draw
    of another shape than the one with its number in ``beside`` has the shape of pruned channels:
    no values for one are values for the other. Its number goes to ``neutral``, and it gives the
    expectation of its distribution instead: dropout passes its input on, added noise is zero. Both
    runs have to do so, so the other one is repeated with these numbers as its ``neutral``.

    Draws by Python's and NumPy's global generators are those of ``same_generators``. ``chooses`` is
    whether there were any, or numbers were read after a draw: code may go another way with another
    ``seed``.
    """

    def __init__(
        self,
        beside: Sequence[Drawn] | None = None,
        neutral: Collection[int] = (),
        seed: int = 0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.drawn: list[Drawn] = []
        self.chooses = False
        self.seed = seed
        self._before = _states()
        self.neutral = set(neutral)
        self._beside = beside

    def __enter__(self) -> Draws:
        self._before = _states()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self.chooses |= self._before != _states()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        self.chooses |= bool(self.drawn) and func.overloadpacket is aten._local_scalar_dense
        expectation = EXPECTATIONS.get(func.overloadpacket)
        if expectation is None:
            return func(*args, **given)
        named = _defaults(func) | dict(zip(_defaults(func), args, strict=False)) | given
        if named.get("training", named.get("train")) is False:
            return func(*args, **given)
        if "generator" in given:  # its state is nobody else's business
            given["generator"] = None
        number = len(self.drawn)
        torch.default_generator.manual_seed(number + SPREAD * self.seed)
        out = func(*args, **given)
        self.drawn.append((func.overloadpacket.__name__, _shapes(args, given, out)))
        if self._beside is not None and self._beside[number : number + 1] != self.drawn[-1:]:
            self.neutral.add(number)
        return expectation(out, named) if number in self.neutral else out


@lru_cache(maxsize=256)
def _defaults(func: Any) -> dict[str, Any]:
    """The names of an operator's arguments, in order, with what they are by default."""
    return {a.name: a.default_value for a in func._schema.arguments}


def _shapes(*values: Any) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(leaf.shape) for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


def _states() -> tuple[Any, ...]:
    numpy: Any = np.random.get_state()  # noqa: NPY002
    return random.getstate(), numpy[1].tobytes(), *numpy[2:]


@contextmanager
def same_generators(seed: int = 0) -> Iterator[None]:
    """Global generators (PyTorch's on the CPU, Python's, NumPy's) in one state, and put back."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


# -- what each distribution gives in the mean ------------------------------------------------------

Expectation = Callable[[Any, dict[str, Any]], Any]


def _filled(value: Callable[[dict[str, Any]], Any]) -> Expectation:
    """An expectation that is the same everywhere, or a tensor that broadcasts."""

    def expectation(out: Tensor, given: dict[str, Any]) -> Tensor:
        found = value(given)
        return out.copy_(found) if isinstance(found, Tensor) else out.fill_(found)

    return expectation


def _number(given: dict[str, Any], name: str, default: float) -> Any:
    value = given.get(name)
    return default if value is None else value


def _middle(given: dict[str, Any]) -> Any:
    return (_number(given, "from", 0) + _number(given, "to", 1)) / 2


def _integer(given: dict[str, Any]) -> Any:
    return (_number(given, "low", 0) + _number(given, "high", 2)) // 2


def _dropped(out: Any, given: dict[str, Any]) -> Any:
    return out[0].copy_(given["input"]), out[1].fill_(1)


def _leaky(out: Tensor, given: dict[str, Any]) -> Tensor:
    """A rectifier whose negative slopes, in ``noise``, are all the mean of their range."""
    slope = (given["lower"] + given["upper"]) / 2
    noise, negative = given["noise"], out < 0
    out.copy_(torch.where(negative, out / noise * slope, out))
    noise.copy_(torch.where(out <= 0, slope, 1.0))
    return out


def _in_order(out: Tensor, given: dict[str, Any]) -> Tensor:
    count = out.shape[-1]
    return out.copy_(torch.arange(count, device=out.device))


EXPECTATIONS: dict[Any, Expectation] = {
    aten.native_dropout: _dropped,
    aten.bernoulli: _filled(lambda given: given["p"] if "p" in given else given["self"]),
    aten.bernoulli_: _filled(lambda given: given["p"]),
    aten.uniform: _filled(_middle),
    aten.uniform_: _filled(_middle),
    aten.normal: _filled(lambda given: given["mean"]),
    aten.normal_: _filled(lambda given: given["mean"]),
    aten.normal_functional: _filled(lambda given: given["mean"]),
    aten.rand: _filled(lambda _: 0.5),
    aten.rand_like: _filled(lambda _: 0.5),
    aten.randn: _filled(lambda _: 0.0),
    aten.randn_like: _filled(lambda _: 0.0),
    aten.randint: _filled(_integer),
    aten.randint_like: _filled(_integer),
    aten.random: _filled(lambda given: int(_middle(given))),
    aten.random_: _filled(lambda given: int(_middle(given))),
    aten.randperm: _in_order,
    aten.multinomial: _in_order,
    aten.exponential: _filled(lambda given: 1 / given["lambd"]),
    aten.exponential_: _filled(lambda given: 1 / given["lambd"]),
    aten.geometric: _filled(lambda given: 1 / given["p"]),
    aten.geometric_: _filled(lambda given: 1 / given["p"]),
    aten.log_normal: _filled(lambda given: math.exp(given["mean"])),
    aten.log_normal_: _filled(lambda given: math.exp(given["mean"])),
    aten.cauchy: _filled(lambda given: given["median"]),
    aten.cauchy_: _filled(lambda given: given["median"]),
    aten.poisson: _filled(lambda given: given["self"]),
    aten.binomial: _filled(lambda given: given["count"] * given["prob"]),
    aten._standard_gamma: _filled(lambda given: given["self"]),
    aten._sample_dirichlet: _filled(lambda given: given["self"] / given["self"].sum(-1, True)),
    aten.rrelu_with_noise: _leaky,
    aten.rrelu_with_noise_: _leaky,
}
"""Every operator that draws, and what it gives where it may not."""
