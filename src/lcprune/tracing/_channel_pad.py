"""Padding of the channel dimension that slimming can rewrite."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class ChannelPad(nn.Module):
    """Adds ``before`` and ``after`` channels of zeros around those of the input.

    A plain ``functional.pad`` keeps its sizes in code, where slimming can't reach them; the
    channels that meet such a constant are left alone. Here they are attributes, so every
    channel around a zero-padded shortcut (option A of He et al., 2015) can be pruned.

    Input (N, C, …), output (N, before + C + after, …).
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.before = before
        self.after = after

    def forward(self, input: Tensor) -> Tensor:
        spatial = [0, 0] * (input.dim() - 2)
        return functional.pad(input, [*spatial, self.before, self.after])

    def extra_repr(self) -> str:
        return f"before={self.before}, after={self.after}"
