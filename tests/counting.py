"""PyTorch's own count of what a network costs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def counted(model: nn.Module, example: Tensor) -> dict[str, int]:
    """MACs (half the counter's FLOPs) and parameters of a network as it is.

    Attention runs as matrix products, since the counter does not know its fused forms.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as flops:
            model(example)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return {
        "macs": flops.get_total_flops() // 2,
        "params": sum(p.numel() for p in model.parameters()),
    }
