"""The base network of a run: given, or trained first."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
from torch import nn

from lcprune import artifact
from lcprune.models import load_weights
from lcprune.runs._findings import Findings
from lcprune.runs._options import PruneOptions
from lcprune.runs._prepare import Inputs
from lcprune.runs._reporter import Reporter
from lcprune.runs._train import FLOAT32, train, training_config
from lcprune.training import on_main


def trained_base(
    config: PruneOptions, out: Path, inputs: Inputs, findings: Findings, reporter: Reporter
) -> nn.Module:
    """The base network on the CPU, in eval mode; with ``base_epochs`` trained, once a run."""
    model = inputs.model
    if config.base_epochs:
        saved = out / artifact.BASE
        if not on_main(saved.exists):
            train(
                model,
                config,
                inputs.data,
                "training",
                training=training_config(config, config.base_epochs, FLOAT32),
                findings=findings,
                checkpoint=out / artifact.BASE_CHECKPOINT,
                device=inputs.device,
                reporter=reporter,
            )
            on_main(lambda: _write(model, saved))
        # Read back even when just trained, so that a resumed run has the same.
        model.cpu()
        load_weights(model, str(saved), config.model)
    return model.eval()


def _write(model: nn.Module, path: Path) -> None:
    with artifact.replacing(path) as temporary:
        state = {name: value.cpu() for name, value in model.state_dict().items()}
        temporary.write_bytes(safetensors.torch.save(state))
