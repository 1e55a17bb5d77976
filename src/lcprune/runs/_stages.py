"""The stages of a pruning run, each of which can be left at any moment and gone on with."""

from __future__ import annotations

import copy
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lcprune import artifact
from lcprune.artifact import Summary
from lcprune.fitness import CrossEntropy, Precision, choose_precision, recalibrate
from lcprune.models import state_sha256
from lcprune.ranking import Plan
from lcprune.runs._base import trained_base
from lcprune.runs._finalists import Finals
from lcprune.runs._findings import Findings
from lcprune.runs._images import at_once, first_images, judged_on, recalibration_batches
from lcprune.runs._measure import measure_latencies
from lcprune.runs._options import PruneOptions
from lcprune.runs._prepare import Inputs, score
from lcprune.runs._reporter import Reporter, warnings_to
from lcprune.runs._summarise import Figures, summarise
from lcprune.runs._train import FLOAT32, finetuning_config, train, training_precision
from lcprune.searching import (
    Executor,
    RayExecutor,
    SearchProgress,
    SearchResult,
    Trial,
    search,
)
from lcprune.slimming import VISIBLE, effect, slim, verify
from lcprune.training import TrainingResult, evaluate_top1, on_main


class Stages:
    """One run: every stage takes what an earlier process left of it and does the rest.

    What a stage finds out and a later process needs again (a choice by measurement, an accuracy)
    is in the state of ``run.json``; the search has its journal and training its checkpoint.
    """

    def __init__(
        self,
        config: PruneOptions,
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
        finals = Finals(
            self._config, self._inputs, base, on_device, precision, self._findings, self._reporter
        )
        chosen = finals.choose(result)
        small = slim(base, chosen.plan)
        error = on_main(lambda: self._verify(base, small, chosen.plan))
        small.to(self._device)
        recalibrate(small, recalibration_batches(self._inputs))
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
            chosen=chosen,
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
            plan=figures.chosen.plan,
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
            return asdict(
                choose_precision(model, first_images(self._inputs, at_once(self._inputs)))
            )

        return Precision(**self._findings.once("precision", measured))

    def _search(self, model: nn.Module, precision: Precision, weights: str) -> SearchResult:
        config, inputs = self._config, self._inputs
        fitness = CrossEntropy(
            *judged_on(inputs, inputs.validation, precision), precision.batch, precision
        )
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
                recalibrate=[precision.cast(b) for b in recalibration_batches(inputs)],
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
                finalists=config.finalists,
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
            first = partial(first_images, self._inputs, config.batch_size)
            trained_in = training_precision(config, small, first, self._findings)
        return train(
            small,
            config,
            data,
            "fine-tuning",
            training=finetuning_config(config, config.finetune_epochs, trained_in, precision),
            teacher=teacher if config.distill else None,
            held=self._inputs.held,
            findings=self._findings,
            checkpoint=self._out / artifact.CHECKPOINT,
            device=self._device,
            reporter=self._reporter,
        )

    def _top1(self, model: nn.Module) -> float:
        return evaluate_top1(model, self._inputs.data.test, self._inputs.data)
