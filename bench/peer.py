"""Torch-Pruning as its README and its examples call it (version 1.6.1).

The README's call: ``BasePruner`` with the example input, an importance, a ratio and the final
classifier in ``ignored_layers``. From its examples for timm and torchvision: ``num_heads`` of
attention modules, whose sizes are written back after the pruning; fused attention off; parts of
detectors that are left alone. ``round_to`` is not used.
"""

from __future__ import annotations

import os

os.environ["TIMM_FUSED_ATTN"] = "0"  # as in the example for timm, before timm is imported

import warnings
from collections.abc import Iterable

import torch
import torch_pruning
from torch import Tensor, nn

CLASSES = 1000
DETECTOR_PARTS = (
    "rpn.head.cls_logits",
    "rpn.head.bbox_pred",
    "backbone.fpn",
    "roi_heads",
)
"""What the example for torchvision leaves alone in two-stage detectors."""


def build_graph(model: nn.Module, images: Tensor) -> None:
    """Build the dependency graph and nothing else."""
    _trainable(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch_pruning.DependencyGraph().build_dependency(model, example_inputs=images)


def pruner(
    model: nn.Module, images: Tensor, ratio: float, outputs: Iterable[str]
) -> torch_pruning.pruner.BasePruner:
    """A pruner that removes ``ratio`` of every group, at random.

    ``outputs`` names further modules that make the model's outputs and so are left alone.
    """
    _trainable(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch_pruning.pruner.BasePruner(
            model,
            images,
            importance=torch_pruning.importance.RandomImportance(),
            pruning_ratio=ratio,
            global_pruning=False,
            ignored_layers=_ignored(model, outputs),
            num_heads=_heads(model),
            in_channel_groups={},  # the defaults are shared by all pruners of a process
            out_channel_groups={},
        )


def prune(made: torch_pruning.pruner.BasePruner, seed: int) -> None:
    """Prune in place, and write the sizes back that the examples write back."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)  # its random importance draws from the global generator
        made.step()
    for module in made.model.modules():
        if _is_attention(module):
            module.num_heads = made.num_heads[module.qkv]
            if isinstance(module.qkv, nn.Linear):
                module.head_dim = module.qkv.out_features // (3 * module.num_heads)
        # The README's own case of a static attribute that the user has to change.
        scale = getattr(module, "scale", None)
        if type(module).__module__ == "timm.models.metaformer" and isinstance(scale, nn.Parameter):
            module.shape = (scale.shape[0], *module.shape[1:])


def _trainable(model: nn.Module) -> None:
    """Dependencies are followed along gradients."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(True)


def _ignored(model: nn.Module, outputs: Iterable[str]) -> list[nn.Module]:
    modules = dict(model.named_modules())
    found = [modules[name] for name in outputs if name in modules]
    for name, module in modules.items():
        linear = isinstance(module, nn.Linear) and module.out_features == CLASSES
        conv = isinstance(module, nn.Conv2d) and module.out_channels == CLASSES
        if linear or conv or name in {f"detector.{part}" for part in DETECTOR_PARTS}:
            found.append(module)
    return found


def _heads(model: nn.Module) -> dict[nn.Module, int]:
    return {m.qkv: m.num_heads for m in model.modules() if _is_attention(m)}


def _is_attention(module: nn.Module) -> bool:
    qkv, heads = getattr(module, "qkv", None), getattr(module, "num_heads", None)
    return isinstance(qkv, nn.Linear | nn.Conv2d) and isinstance(heads, int)
