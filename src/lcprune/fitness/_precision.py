"""The number format and memory layout that a model runs in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lcprune.errors import InputError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Precision:
    """How candidates are run: ``dtype`` (float32 or bfloat16), layout, images a batch.

    BatchNorm parameters and statistics stay in float32.
    """

    dtype: str = "float32"
    channels_last: bool = False
    batch: int = 250

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES or self.batch < 1:
            raise InputError(
                f"precision {self.dtype!r}, batch {self.batch}: "
                f"expected {' or '.join(DTYPES)} and a batch of at least 1"
            )

    @property
    def torch_dtype(self) -> torch.dtype:
        """``dtype`` as PyTorch has it."""
        return DTYPES[self.dtype]

    def apply(self, model: nn.Module) -> nn.Module:
        """Convert ``model``, in place as ``nn.Module.to`` does, and return it."""
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, _BatchNorm):
                    continue
                for parameter in module.parameters(recurse=False):
                    parameter.data = self._convert(parameter.data)
                for name, buffer in module.named_buffers(recurse=False):
                    module._buffers[name] = self._convert(buffer)
        return model

    def cast(self, batch: Tensor) -> Tensor:
        """Convert an input (N, …); only four-dimensional ones have a layout to choose."""
        return self._convert(batch)

    def _convert(self, tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():
            tensor = tensor.to(self.torch_dtype)
        if tensor.dim() == 4:
            layout = torch.channels_last if self.channels_last else torch.contiguous_format
            tensor = tensor.contiguous(memory_format=layout)
        return tensor
