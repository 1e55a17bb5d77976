"""The stages of a pruning run, each of which can be left at any moment and gone on with."""

from __future__ import annotations

import copy
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lcprune import artifact
from lcprune.artifact import Summary
from lcprune.cli._base import trained_base
from lcprune.cli._config import PruneConfig
from lcprune.cli._findings import Findings
from lcprune.cli._measure import measure_latencies
from lcprune.cli._prepare import Inputs, score
from lcprune.cli._progress import Reporter, warnings_to
from lcprune.cli._summarise import Figures, summarise
from lcprune.cli._train import FLOAT32, train, training_config, training_precision
from lcprune.data import first_pixels
from lcprune.fitness import CrossEntropy, Precision, choose_precision, recalibrate
from lcprune.models import state_sha256
from lcprune.ranking import Plan
from lcprune.searching import (
    Executor,
    RayExecutor,
    SearchProgress,
    SearchResult,
    Trial,
    search,
)
from lcprune.slimming import VISIBLE, effect, slim, verify
from lcprune.training import TrainingResult, evaluate_top1, evaluation_batch, on_main


class Stages:
    """One run: every stage takes what an earlier process left of it and does the rest.

    What a stage finds out and a later process needs again (a choice by measurement, an accuracy)
    is in the state of ``run.json``; the search has its journal and training its checkpoint.
    """

    def __init__(
        self,
        config: PruneConfig,
        out: Path,
        inputs: Inputs,
        findings: Findings,
        reporter: Reporter,
    ) -> None:
        self._config = config
        self._out = out
        self._inputs = inputs
        self._findings = findings
        self._reporter = reporter
        self._device = inputs.device

    def run(self) -> Summary:
        """Go through all stages and save the network; the summary is not written yet.

        Of several processes the main one does what is not training; all of them call this.
        """
        base = trained_base(self._config, self._out, self._inputs, self._findings, self._reporter)
        self._findings.same("data_sha256", self._inputs.data.fingerprint, "data")
        what = "weights"
        if self._config.base_epochs:
            what += f" in {self._out / artifact.BASE} (remove it to train them again)"
        weights = self._findings.same("base_weights_sha256", state_sha256(base), what)
        on_device = copy.deepcopy(base).to(self._device)
        top1_before = self._findings.once("top1_before", lambda: self._top1(on_device))
        self._reporter.stage(f"base network: top-1 {top1_before:.2f} % on the test split")
        precision = self._precision(on_device)
        result = on_main(lambda: self._search(on_device, precision, weights))
        small = slim(base, result.plan)
        error = on_main(lambda: self._verify(base, small, result.plan))
        small.to(self._device)
        recalibrate(small, self._recalibration_batches())
        top1_pruned = self._findings.once("top1_pruned", lambda: self._top1(small))
        self._reporter.stage(f"pruned and recalibrated: top-1 {top1_pruned:.2f} %")
        trained = self._finetune(small, on_device, precision)
        # Figures are those of the saved network, in the layout that loading gives it.
        small.to(memory_format=torch.contiguous_format)
        top1_after = self._findings.once("top1_after", lambda: self._top1(small))
        figures = Figures(
            top1_before=top1_before,
            top1_pruned=top1_pruned,
            top1_after=top1_after,
            verify_error=error,
            result=result,
            precision=precision,
            trained=trained,
            base_weights_sha256=weights,
        )
        return on_main(lambda: self._saved(on_device, small, figures))

    def _saved(self, base: nn.Module, small: nn.Module, figures: Figures) -> Summary:
        """Save the network, and sum up."""
        before, after = measure_latencies(
            [base, small], self._inputs.example_input.to(self._device)
        )
        artifact.save(
            small.cpu(),
            self._out,
            plan=figures.result.plan,
            factory=self._config.model,
            example_input=self._inputs.example_input,
            classes=len(self._inputs.data.classes),
        )
        return summarise(self._config, self._inputs, figures, before, after)

    def _verify(self, base: nn.Module, small: nn.Module, plan: Plan) -> float:
        error = verify(base, small, plan, self._inputs.example_input)
        self._reporter.stage(f"verified: within {error:.1e} of the masked original")
        moved = effect(base, plan, self._inputs.example_input)
        if moved < VISIBLE:
            self._reporter.warn(
                f"what was removed moves the base network's output by {moved:.1e} only, so that "
                "the comparison says little: a base network that was hardly trained?"
            )
        return error

    def _precision(self, model: nn.Module) -> Precision:
        """How candidates are run; what was once measured holds for the whole run."""
        asked = self._config.search_dtype
        if asked != "auto":
            return Precision(asked, channels_last=asked != "float32")

        def measured() -> dict[str, Any]:
            return asdict(choose_precision(model, self._first(self._batch)))

        return Precision(**self._findings.once("precision", measured))

    def _search(self, model: nn.Module, precision: Precision, weights: str) -> SearchResult:
        config, inputs = self._config, self._inputs
        fitness = CrossEntropy(*self._validation(precision), precision.batch, precision)
        identity = {
            "model": config.model,
            "data": inputs.data.fingerprint,
            "weights": weights,
            "recalibrate": inputs.split.recalibrate.tolist(),
            "validate": inputs.split.validate.tolist(),
            "environment": {"device": str(self._device), "precision": asdict(precision)},
        }
        with (
            self._reporter.progress("search", config.trials) as advance,
            warnings_to(self._reporter.warn),
        ):

            def on_trial(trial: Trial, progress: SearchProgress) -> None:
                advance(progress.done, f"best loss {progress.best.loss:.4f}")

            result = search(
                model,
                inputs.graph,
                score(config, inputs),
                inputs.budget,
                fitness=fitness,
                recalibrate=[precision.cast(b) for b in self._recalibration_batches()],
                trials=config.trials,
                journal=self._out / artifact.JOURNAL,
                seed=config.seed,
                compensation=config.compensation,
                strategy=config.strategy,
                min_keep=config.min_keep,
                round_to=config.round_to,
                prepare=precision.apply,
                identity=identity,
                executor=self._executor(),
                on_trial=on_trial,
            )
        self._reporter.stage(f"search: loss {result.loss:.4f} after {result.trials} trials")
        return result

    def _executor(self) -> Executor | None:
        config = self._config
        if config.executor != "ray":
            return None
        gpus = 0.0
        if self._device.type == "cuda":
            gpus = min(1.0, torch.cuda.device_count() / config.workers)
        return RayExecutor(workers=config.workers, address=config.ray_address, gpus=gpus)

    def _finetune(
        self, small: nn.Module, teacher: nn.Module, precision: Precision
    ) -> TrainingResult:
        config, data = self._config, self._inputs.data
        trained_in = FLOAT32
        if config.finetune_epochs:
            first = partial(self._first, config.batch_size)
            trained_in = training_precision(config, small, first, self._findings)
        return train(
            small,
            config,
            data,
            "fine-tuning",
            training=replace(
                training_config(config, config.finetune_epochs, trained_in),
                temperature=config.temperature,
                alpha=config.distill_weight,
                teacher_precision=precision,
            ),
            teacher=teacher if config.distill else None,
            held=self._inputs.held,
            findings=self._findings,
            checkpoint=self._out / artifact.CHECKPOINT,
            device=self._device,
            reporter=self._reporter,
        )

    def _validation(self, precision: Precision) -> tuple[Tensor, Tensor]:
        """The images of the fitness, and their labels; no more than a batch is ever in float32."""
        data, images = self._inputs.data, self._inputs.validation
        batches = images.batches(self._batch)
        parts = [precision.cast(data.normalise(pixels)).to(self._device) for pixels, _ in batches]
        return torch.cat(parts), images.labels.to(self._device)

    def _recalibration_batches(self) -> list[Tensor]:
        data = self._inputs.data
        batches = self._inputs.recalibration.batches(self._batch)
        return [data.normalise(pixels).to(self._device) for pixels, _ in batches]

    def _first(self, count: int) -> Tensor:
        """The first training images, as the model takes them."""
        data = self._inputs.data
        return data.normalise(first_pixels(data.train, count)).to(self._device)

    @property
    def _batch(self) -> int:
        """How many images a network sees at once where none is trained."""
        return evaluation_batch(self._inputs.data.input_shape)

    def _top1(self, model: nn.Module) -> float:
        return evaluate_top1(model, self._inputs.data.test, self._inputs.data)
