"""Running a model on its example input, never on the model itself; what can't be run at all."""

from __future__ import annotations

import copy
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lcprune._checks import module
from lcprune._text import first_line
from lcprune.errors import ModelError
from lcprune.tracing._inputs import Inputs, own
from lcprune.tracing._tree import named_tensors

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


def first_sample(model: nn.Module, inputs: Inputs) -> Inputs:
    """The inputs cut to a batch of one, where they have a batch and the model takes one."""
    size = inputs.batch
    if size <= 1:
        return inputs
    cut = inputs.mapped(lambda x: x[:1] if x.dim() and x.shape[0] == size else x)
    probed = private_copy(model)  # a model may change its own state whenever it runs
    try:
        with torch.no_grad():
            forward(probed, cut)
    except ModelError:  # a sample without a batch dimension, or a batch that must be larger
        return inputs
    return cut


def private_copy(model: nn.Module) -> nn.Module:
    """A copy to run; the model itself is never touched."""
    refuse_untraceable(model)
    try:
        with torch.inference_mode(False):
            return copy.deepcopy(model, computed_state(model))
    except Exception as error:
        raise ModelError(
            f"the model can't be copied ({first_line(error)}); expected a module "
            "that copy.deepcopy accepts"
        ) from error


def computed_state(model: nn.Module) -> dict[int, Any]:
    """A memo for ``copy.deepcopy`` with what a model keeps of an earlier run, without gradients.

    PyTorch does not copy such tensors: features that a forward puts by, weights that a hook makes
    of others (``torch.nn.utils.weight_norm``).
    """
    return {
        id(leaf): leaf.detach().clone()
        for module in model.modules()
        for leaf in tree_leaves(vars(module))
        if isinstance(leaf, Tensor) and not leaf.is_leaf
    }


def forward(model: nn.Module, inputs: Inputs) -> Any:
    """The model's output, without gradients; ``ModelError`` in one line where it raises."""
    return forward_on(model, own(inputs))


def forward_on(model: nn.Module, inputs: Inputs) -> Any:
    """The same on these very inputs, into which a model may write."""
    try:
        # In inference mode composite operations are not taken apart, and no rule knows them.
        with torch.inference_mode(False), torch.no_grad():
            return model(*inputs.args, **inputs.kwargs)
    except Exception as error:
        raise ModelError(
            f"the model's forward fails on the example input ({_described(inputs)}): "
            f"{first_line(error)}"
        ) from error


def _described(inputs: Inputs) -> str:
    """Shapes of tensors, with the type where it is not float32, and types of all else."""
    tensors = [_shape(tensor) for tensor in inputs.tensors()]
    parts = [*inputs.args, *inputs.kwargs.values()]
    others = [type(part).__name__ for part in parts if not named_tensors(part)]
    return ", ".join([*tensors, *others]) or "no arguments"


def _shape(tensor: Tensor) -> str:
    shape = "x".join(map(str, tensor.shape)) or "a number"
    kind = str(tensor.dtype).removeprefix("torch.")
    return shape if tensor.dtype == torch.float32 else f"{shape} {kind}"


def outputs(result: Any) -> list[Tensor]:
    """Every tensor in a model's output: in containers, mappings, dataclasses and other objects."""
    return [tensor for _, tensor in named_tensors(result)]


def is_free(name: str, free: Iterable[str]) -> bool:
    """Whether an output is one of those named in ``free``, or lies within one."""
    return any(name == root or (root and name.startswith(f"{root}.")) for root in free)


def free_among(names: Collection[str], free: Iterable[str]) -> frozenset[str]:
    """Which of a run's outputs are free.

    Another mode may return an output elsewhere: where no output has the name, it is the one whose
    path ends in the most of the same parts, such as ``feats`` for ``1.feats``, if there is but one.
    """
    paths = {tuple(parts[:n]) for name in names if (parts := name.split("."))
             for n in range(1, len(parts) + 1)}  # fmt: skip
    roots = set[str]()
    for root in free:
        if not any(is_free(name, [root]) for name in names):
            shared = {path: _shared(path, root.split(".")) for path in paths}
            most = max(shared.values(), default=0)
            best = [path for path, count in shared.items() if count == most]
            if most and len(best) == 1 and not best[0][-1].isdigit():
                roots.add(".".join(best[0]))
        roots.add(root)
    return frozenset(name for name in names if is_free(name, roots))


def _shared(path: Sequence[str], other: Sequence[str]) -> int:
    """How many parts at the end of two paths are the same."""
    pairs = zip(reversed(path), reversed(other), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1] != "", pairs))


def refuse_untraceable(model: nn.Module) -> None:
    """``ModelError`` for a model whose kind, or that of its tensors, rules tracing out.

    Refused are what is not an ``nn.Module``, wrappers (compiled, parallel), and scripted, lazy
    and quantised modules, at any depth; tensors on the meta device, on different devices, or of
    classes that compute in ways of their own.
    """
    module("the model", model, ModelError)
    for name, part in model.named_modules():
        _refuse_module(name, part)
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
