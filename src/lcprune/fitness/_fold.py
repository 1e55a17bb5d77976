"""BatchNorm as part of the convolution before it, for faster evaluation."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lcprune.fitness._running import replicas, seeded
from lcprune.slimming import copied

NEAR = 1e-3
"""The largest relative difference that rounding makes of a folded BatchNorm in float32."""

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d


class _Tracer(fx.Tracer):
    """Takes every module without children as it is, whoever wrote it."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return next(m.children(), None) is None


def folded(model: nn.Module) -> nn.Module:
    """The same function in eval mode with fewer passes over the data.

    A BatchNorm that alone consumes the output of a convolution becomes part of the convolution's
    weights and bias, in their type: equal up to rounding (Jacob et al., CVPR 2018, section 3.2).
    Returns a module of its own that shares parameters with ``model``, or ``model`` itself where
    there is nothing to fold or torch.fx can't follow it. ``model`` must be in eval mode, and is
    left as it is. What torch.fx followed may be another branch: ask ``folds``.
    """
    copied = replicas(model, 2)[1]  # a forward may keep what it sees in the model itself
    try:
        graph = _Tracer().trace(copied)
    except Exception:  # control flow on values, unusual arguments: whatever user code does
        return model
    modules = dict(copied.named_modules())
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    fused: dict[str, nn.Module] = {}
    for node in list(graph.nodes):
        source = _foldable(node, modules, calls)
        if source is not None:
            convolution: Any = modules[str(source.target)]
            norm: Any = modules[str(node.target)]
            fused[str(source.target)] = fuse_conv_bn_eval(convolution, norm)
            node.replace_all_uses_with(source)
            graph.erase_node(node)
    if not fused:
        return model
    result = fx.GraphModule(copied, graph)
    for name, module in fused.items():
        result.set_submodule(name, module)
    return result.eval()


def folds(model: nn.Module, images: Tensor) -> bool:
    """Whether ``folded`` gives the same function, seen on a few images (N, …), in float32.

    torch.fx runs a forward with stand-ins for all arguments, optional ones among them. Code that
    asks what an argument is (``mask is not None``, ``isinstance(x, Tensor)``), or that goes on
    after an error, takes another branch then, and that branch is what the result would compute.
    """
    try:
        with torch.no_grad():
            whole = copied(model, {}).float().eval()
            runs = []
            for network in (whole, folded(whole)):
                with seeded(0):  # a forward may draw
                    runs.append(network(images.float().clone()))
        expected, found = runs
    except Exception:  # whatever user code does with stand-ins, or what is made of it
        return False
    if not (isinstance(expected, Tensor) and isinstance(found, Tensor)):
        return False
    if expected.shape != found.shape:
        return False
    size = float(expected.nan_to_num(0, 0, 0).abs().max()) if expected.numel() else 0.0
    return torch.allclose(expected, found, rtol=NEAR, atol=NEAR * size, equal_nan=True)


def _foldable(
    node: fx.Node, modules: dict[str, nn.Module], calls: Counter[fx.node.Target]
) -> fx.Node | None:
    """The node of the convolution before ``node``, where that is a norm that can be folded."""
    norm = _module_of(node, modules)
    source = node.args[0] if node.args else None
    if not isinstance(norm, _BatchNorm) or not isinstance(source, fx.Node):
        return None
    convolution = _module_of(source, modules)
    if not isinstance(convolution, Convolution):
        return None
    once = calls[node.target] == calls[source.target] == 1
    alone = len(source.users) == 1
    fixed = norm.running_mean is not None and not norm.training
    hooked = any(m._forward_hooks or m._forward_pre_hooks for m in (norm, convolution))
    return source if once and alone and fixed and not hooked else None


def _module_of(node: fx.Node, modules: dict[str, nn.Module]) -> nn.Module | None:
    return modules.get(str(node.target)) if node.op == "call_module" else None
