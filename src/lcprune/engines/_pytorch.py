"""PyTorch itself: a pt2 archive of torch.export, without pickle."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_unflatten

from lcprune.engines._capture import captured, quiet, taken_by
from lcprune.engines._engine import Case, Engine, Opened, output_tensors
from lcprune.engines._parity import with_folded_norms
from lcprune.engines._timing import with_threads
from lcprune.errors import InputError
from lcprune.tracing import Inputs


class PyTorch:
    """PyTorch's own operators, one after the other; batch norms are folded."""

    name = "pytorch"
    format = "pt2"
    suffix = ".pt2"
    packages: tuple[str, ...] = ()
    int8_packages: tuple[str, ...] = ()

    def write(
        self,
        model: nn.Module,
        example: Inputs,
        path: Path,
        *,
        dynamic_batch: bool = False,
        int8: Sequence[Case] | None = None,
    ) -> None:
        if int8 is not None:
            raise InputError("pt2 files are not written in int8")
        program = captured(with_folded_norms(model, example), example, dynamic_batch=dynamic_batch)
        content = BytesIO()
        with taken_by(self.format):
            torch.export.save(program, content)
        path.write_bytes(content.getbuffer())

    def open(self, path: Path, threads: int = 1) -> Opened:
        with quiet():
            program = torch.export.load(path)
            module: Any = program.module()
        structure = program.call_spec.in_spec

        def run(*tensors: Tensor) -> list[Tensor]:
            args, kwargs = tree_unflatten(tensors, structure)
            with with_threads(threads), torch.no_grad():
                return output_tensors(module(*args, **kwargs))

        return run


ENGINE: Engine = PyTorch()
