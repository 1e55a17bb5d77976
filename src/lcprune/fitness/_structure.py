"""What of a model decides the graph that torch.fx finds in it, widths aside."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from lcprune.errors import ModelError
from lcprune.fitness._workers import replicas
from lcprune.slimming import ATOMS

_INTERNAL = frozenset(vars(nn.Module()))
_HOOKS = tuple(name for name in vars(nn.Module()) if name.endswith(("hooks", "_with_kwargs")))


def structure(model: nn.Module) -> list[Any]:
    """A value that is equal for models whose ``veiled`` copies torch.fx sees alike.

    Of a module without children it holds no attributes but flags, and of tensors no sizes.
    """
    order: dict[int, int] = {}
    return [
        (
            name,
            order.setdefault(id(module), len(order)),
            type(module),
            type(module).forward,
            module.training,
            tuple(bool(vars(module)[hooks]) for hooks in _HOOKS if hooks in vars(module)),
            tuple((child, part is None) for child, part in module._modules.items()),
            _tensors(module._parameters, order),
            _tensors(module._buffers, order),
            _flags(module) if _is_leaf(module) else _values(module),
        )
        for name, module in model.named_modules(remove_duplicate=False)
    ]


def veiled(model: nn.Module) -> nn.Module:
    """A copy that raises where a forward asks for what ``structure`` does not hold.

    So a graph that was found in it is that of every model of the same structure.
    """
    copy = replicas(model, 2)[1]
    veils: dict[int, Tensor] = {}
    for module in copy.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    tensors[name] = veils.setdefault(id(tensor), _veil(tensor))  # type: ignore[assignment]
        if _is_leaf(module):
            own = vars(module)
            for name, value in own.items():
                if name not in _INTERNAL and value is not None and type(value) is not bool:
                    own[name] = _Unread(type(value))
    return copy


def _is_leaf(module: nn.Module) -> bool:
    return not any(part is not None for part in module._modules.values())


def _tensors(tensors: dict[str, Any], order: dict[int, int]) -> tuple[Any, ...]:
    return tuple(
        (name,)
        if tensor is None
        else (name, order.setdefault(id(tensor), len(order)), tensor.dtype, tensor.device)
        for name, tensor in tensors.items()
    )


def _flags(module: nn.Module) -> list[Any]:
    return [
        (name, value) if value is None or type(value) is bool else (name, type(value))
        for name, value in vars(module).items()
        if name not in _INTERNAL
    ]


def _values(module: nn.Module) -> list[Any]:
    """All that is not of every module; what hangs on a module counts as itself alone."""
    return [
        (name, _comparable(value))
        for name, value in vars(module).items()
        if name not in _INTERNAL or (name in _HOOKS and value)
    ]


def _comparable(value: Any) -> Any:
    kind = type(value)
    if kind in ATOMS:
        return kind, value
    if kind is functools.partial:
        return kind, *map(_comparable, (value.func, value.args, value.keywords))
    if kind in (dict, OrderedDict):
        return kind, [(_comparable(key), _comparable(item)) for key, item in value.items()]
    if kind in (list, tuple):
        return kind, [_comparable(item) for item in value]
    return _Itself(value)


class _Itself:
    """Equal to what holds the very same object."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and other.value is self.value

    __hash__ = None  # type: ignore[assignment]


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise ModelError("the forward depends on sizes")


class _Unread:
    """Says of what type it is; raises whatever else is done with it but handing it on."""

    def __init__(self, kind: type) -> None:
        vars(self)["_kind"] = kind

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return vars(self)["_kind"]

    __hash__ = None  # type: ignore[assignment]
    __getattr__ = __bool__ = __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __call__ = __iter__ = __len__ = __getitem__ = __contains__ = __index__ = _refuse
    __int__ = __float__ = __str__ = __repr__ = __format__ = _refuse


class _Veiled(Tensor):
    """A tensor that tells its type and device, and nothing else."""

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func not in _TOLD:
            _refuse()
        return super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]


_TENSOR: Any = Tensor
_TOLD = (_TENSOR.dtype.__get__, _TENSOR.device.__get__)


def _veil(tensor: Tensor) -> Tensor:
    veil = torch.Tensor._make_subclass(_Veiled, tensor.detach())
    if isinstance(tensor, nn.Parameter):
        veil._is_param = True
    return veil
