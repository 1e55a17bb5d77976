"""Models that can't be traced at all, each refused in one line with what to pass instead."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from lcprune.errors import ModelError

UNINITIALISED = (nn.parameter.UninitializedParameter, nn.parameter.UninitializedBuffer)
QUANTISED = (
    "torch.ao.nn.quantized",
    "torch.ao.nn.intrinsic.quantized",
    "torch.ao.nn.sparse.quantized",
    "torch.nn.quantized",
    "torch.nn.intrinsic.quantized",
    "torchao.quantization",
)
"""Where the classes of quantised modules live; modules prepared for training are ordinary."""

PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def refuse_untraceable(model: nn.Module) -> None:
    """``ModelError`` for a model whose kind, or that of its tensors, rules tracing out.

    Refused are what is not an ``nn.Module``, wrappers (compiled, parallel), and scripted, lazy
    and quantised modules, at any depth; tensors on the meta device, on different devices, or of
    classes that compute in ways of their own.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(f"the model is a {type(model).__name__}; expected an nn.Module")
    for name, module in model.named_modules():
        _refuse_module(name, module)
    tensors = list(_state(model))
    for name, tensor in tensors:
        _refuse_tensor(name, tensor)
    _refuse_mixed_devices(tensors)


def _refuse_module(name: str, module: nn.Module) -> None:
    what = f"{name} in the model" if name else "the model"
    kind = type(module).__name__
    if isinstance(module, torch.jit.ScriptModule):
        raise ModelError(
            f"{what} is a scripted module ({kind}); expected the ordinary nn.Module that it was "
            "made from"
        )
    # A compiled module can't be there before its module is, which takes long to import.
    compiler = sys.modules.get("torch._dynamo.eval_frame")
    if compiler is not None and isinstance(module, compiler.OptimizedModule):
        raise ModelError(
            f"{what} is compiled by torch.compile; expected its ordinary module, which is its "
            "attribute _orig_mod"
        )
    if isinstance(module, PARALLEL):
        raise ModelError(f"{what} is wrapped in {kind}; expected what it wraps: pass .module of it")
    if type(module).__module__.startswith(QUANTISED):
        raise ModelError(
            f"{what} is a quantised module ({type(module).__module__}.{kind}); expected the model "
            "before quantisation: prune first, then quantise"
        )


def _state(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _refuse_tensor(name: str, tensor: Tensor) -> None:
    kind = type(tensor)
    if isinstance(tensor, UNINITIALISED):
        raise ModelError(f"{name} is not initialised yet; run the model once on an input")
    if tensor.is_quantized or getattr(kind, "__torch_dispatch__", None) not in (
        Tensor.__torch_dispatch__,
        torch.nn.Parameter.__torch_dispatch__,
    ):
        described = "quantised" if tensor.is_quantized else f"a {kind.__module__}.{kind.__name__}"
        raise ModelError(f"{name} is {described}; expected an ordinary tensor")


def _refuse_mixed_devices(tensors: list[tuple[str, Tensor]]) -> None:
    # A number on the CPU works with tensors anywhere, and is left aside: counters of batches.
    placed = [(name, tensor) for name, tensor in tensors if tensor.dim() or tensor.is_meta]
    for name, tensor in placed[1:]:
        first, device = placed[0][0], placed[0][1].device
        if tensor.device != device:
            raise ModelError(
                f"{first} is on {device} and {name} on {tensor.device}; expected the whole model "
                "on one device"
            )
    if placed and placed[0][1].is_meta:
        raise ModelError(f"{placed[0][0]} is on the meta device; expected real tensors")
