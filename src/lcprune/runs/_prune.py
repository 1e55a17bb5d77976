"""The pruning job: its stages, each of which can be left at any moment and gone on with."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import safetensors.torch
import torch
from torch import nn

from lcprune._checks import of_type
from lcprune._checks import path as checked_path
from lcprune._files import replacing, write_text
from lcprune.artifact import save, versions
from lcprune.cost import RESOURCES
from lcprune.engines import LatencyTable
from lcprune.errors import InputError, RunError
from lcprune.fitness import CrossEntropy, Precision, choose_precision, recalibrate, reconstruct
from lcprune.graph import BoolArray, ChannelGraph
from lcprune.models import load_weights, state_sha256
from lcprune.ranking import Plan
from lcprune.runs._choices import Choices
from lcprune.runs._finalists import Finals
from lcprune.runs._latency import Timed, cut_in_time
from lcprune.runs._options import AUTO, PruneOptions
from lcprune.runs._problem import Problem
from lcprune.runs._reporter import Reporter, Silent, warnings_to
from lcprune.runs._run import (
    BASE,
    BASE_CHECKPOINT,
    CHECKPOINT,
    GRAPH,
    JOURNAL,
    LATENCY,
    RUN,
    START,
    Run,
    RunState,
    earlier_run,
    open_run,
)
from lcprune.runs._stopwatch import Stopwatch, time_models
from lcprune.runs._summary import (
    Cost,
    Latency,
    Scores,
    Summary,
    peak_rss_mb,
    read_summary,
)
from lcprune.runs._train import (
    FLOAT32,
    chosen_precision,
    finetuning_config,
    made_choices,
    train,
    training_config,
    training_precision,
)
from lcprune.searching import Executor, RayExecutor, SearchProgress, SearchResult, Trial, search
from lcprune.slimming import VISIBLE, Difference, difference, effect, slim
from lcprune.training import ShortTraining, TrainingResult, evaluate_top1

Latents = tuple[tuple[tuple[float, ...], ...], ...]
"""Of several plans, for each family the numbers of its β."""


def prune_job(
    config: PruneOptions,
    out: str | os.PathLike[str],
    *,
    command: str = "prune",
    resume: bool = False,
    force: bool = False,
    remeasure: bool = False,
    reporter: Reporter | None = None,
) -> Summary:
    """Prune a model to a budget, fine-tune it, and write everything to the directory ``out``.

    A run that was interrupted, at whatever moment, goes on with ``resume`` and ends with the
    same plan and weights; ``resume`` on a finished run gives its summary again. ``force``
    replaces an earlier run. ``remeasure`` measures anew what is kept of this machine (``Choices``)
    and keeps that. ``command`` is the subcommand that a later ``--resume`` takes.

    ``InputError`` where the configuration or ``out`` can't be used; then nothing was written.
    ``VerificationError`` where the slimmed network is not the masked original; then no network
    is published.
    """
    out = checked_path("out", out)
    if config.sweep:
        raise InputError("a run has one budget, expected no sweep (sweep_job takes one)")
    reporter = reporter or Silent()
    state, record = earlier_run(config, out, command, resume=resume, force=force)
    if record is not None and state is RunState.FINISHED:
        return read_summary(out)
    choices = Choices(remeasure=remeasure)
    with warnings_to(reporter.warn):
        watch = Stopwatch.of(config, choices, None if record is None else out / LATENCY)
        problem = Problem.of(config, watch, reporter)
    for note in problem.graph.notes:
        reporter.stage(note)
    with open_run(out, config, command, record, reporter, force=force) as run:
        summary = Stages(run, config, choices).go_through(problem)
        run.finish(summary.to_json())
    return summary


@dataclass(frozen=True, eq=False)
class Measured:
    """A problem with its base network: the hash of its ``weights``, its accuracy in percent on the
    test split, and the precision that a search runs in."""

    problem: Problem
    weights: str
    top1: float
    precision: Precision


class Stages:
    """Every stage takes what an earlier process left of it and does the rest.

    What a stage finds out and a later process needs again (a choice by measurement, an accuracy)
    is in the state of the run; the search has its journal and training its checkpoint.
    """

    def __init__(self, run: Run, options: PruneOptions, choices: Choices) -> None:
        self._run = run
        self._options = options
        self._choices = choices

    def go_through(self, problem: Problem) -> Summary:
        """All stages, and the network saved; the summary is not written yet."""
        return self.cut(self.measured(problem))

    def measured(self, problem: Problem) -> Measured:
        """The base network, trained where that is asked for, and what is measured of it."""
        run, options = self._run, self._options
        problem = self._with_base(problem)
        run.same("data_sha256", problem.data.fingerprint, "data")
        self._keep_table(problem)
        for resource in problem.resources:
            if not isinstance(resource, LatencyTable):
                run.same("energy", repr(resource), "coefficients of the energy")
        what = "weights"
        if options.base_epochs:
            what += f" in {run.directory / BASE} (remove it to train them again)"
        weights = run.same("base_weights_sha256", state_sha256(problem.model), what)
        before = self._top1("top1_before", problem, problem.model)
        run.reporter.stage(f"base network: top-1 {before:.2f} % on the test split")
        # What was once chosen holds for the whole run.
        precision = chosen_precision(
            run,
            "search",
            options.search_dtype,
            problem.model,
            partial(problem.first_images, problem.at_once),
            choose_precision,
            self._choices,
        )
        return Measured(problem, weights, before, precision)

    def cut(self, base: Measured) -> Summary:
        """All stages from the search on."""
        run, options = self._run, self._options
        problem, weights, before = base.problem, base.weights, base.top1
        precision = base.precision
        self._keep_table(problem)
        finals = Finals(run, options, problem, precision, self._choices)
        train = finals.of_candidates() if options.fitness_steps else None
        result = self._search(problem, precision, weights, train)
        chosen = finals.choose(result)
        timed = cut_in_time(run, options, problem, chosen.plan)
        plan = chosen.plan if timed is None else timed.plan
        small = slim(problem.model, plan)
        seen = self._verify(problem, small, plan)
        recalibrate(small, problem.recalibration_batches())
        pruned = self._top1("top1_pruned", problem, small)
        run.reporter.stage(f"pruned and recalibrated: top-1 {pruned:.2f} %")
        scores = {"before": Scores(before), "pruned": Scores(pruned)}
        if self._reconstructs(problem):
            scores["reconstructed"] = self._reconstruct(problem, small, plan)
        trained = self._finetune(problem, small, precision)
        # Figures are those of the saved network, in the layout that loading gives it.
        small.to(memory_format=torch.contiguous_format)
        after = self._top1("top1_after", problem, small)
        latencies = self._latencies(problem, small, timed)
        costs = costs_of(problem, plan, timed)
        write_text(run.directory / GRAPH, graph_json(problem, plan, costs))
        save(
            small.cpu(),
            run.directory,
            plan=plan,
            factory=options.model,
            example_input=problem.example,
            classes=len(problem.data.classes),
        )
        return Summary(
            model=options.model,
            data=options.data,
            seed=options.seed,
            costs=costs,
            scores=scores | {"after": Scores(after)},
            criterion=options.criterion,
            compensation=options.compensation,
            strategy=options.strategy,
            round_to=options.round_to,
            verify_error=seen.error,
            training_checked=problem.graph.training_checked and seen.training_checked,
            loss_search_best=result.loss,
            trials=result.trials,
            search_seconds=result.seconds,
            finetune_epochs=options.finetune_epochs,
            finetune_seconds=trained.seconds,
            latency=latencies,
            dtype_search=precision.dtype,
            threads=torch.get_num_threads(),
            device=str(problem.device),
            peak_rss_mb=peak_rss_mb(),
            base_weights_sha256=weights,
            versions=versions(),
            finalists=chosen.finalists,
            choices=made_choices(run),
        )

    def _keep_table(self, problem: Problem) -> None:
        """So that the run can go on with it whatever becomes of the machine's."""
        file = self._run.directory / LATENCY
        if problem.table is not None and not file.exists():
            problem.table.save(file)

    def _with_base(self, problem: Problem) -> Problem:
        """The problem with its base network trained first, once a run, where that is asked for."""
        run, options = self._run, self._options
        if not options.base_epochs:
            return problem
        saved = run.directory / BASE
        model = copy.deepcopy(problem.model)
        if not saved.exists():
            train(
                run,
                options,
                problem,
                model,
                "training",
                training_config(options, options.base_epochs, FLOAT32),
                run.directory / BASE_CHECKPOINT,
            )
            with replacing(saved) as temporary:
                state = {name: value.cpu() for name, value in model.state_dict().items()}
                temporary.write_bytes(safetensors.torch.save(state))
        # Read back even when just trained, so that a resumed run has the same.
        load_weights(model, str(saved), options.model)
        return problem.of_model(options, model.eval())

    def _search(
        self, problem: Problem, precision: Precision, weights: str, train: ShortTraining | None
    ) -> SearchResult:
        options, reporter = self._options, self._run.reporter
        identity = {
            "model": options.model,
            "data": problem.data.fingerprint,
            "weights": weights,
            "recalibrate": problem.split.recalibrate.tolist(),
            "validate": problem.split.validate.tolist(),
            "environment": {"device": str(problem.device), "precision": asdict(precision)},
        }
        with (
            reporter.progress("search", options.trials) as advance,
            warnings_to(reporter.warn),
        ):

            def on_trial(trial: Trial, progress: SearchProgress) -> None:
                advance(progress.done, f"best {_loss(progress.best)}")

            result = search(
                problem.model,
                problem.graph,
                problem.saliency,
                problem.budget,
                fitness=CrossEntropy(
                    *problem.in_precision(problem.validation, precision),
                    precision.batch,
                    precision,
                ),
                recalibrate=[precision.cast(b) for b in problem.recalibration_batches()],
                trials=options.trials,
                journal=self._run.directory / JOURNAL,
                seed=options.seed,
                compensation=options.compensation,
                strategy=options.strategy,
                min_keep=options.min_keep,
                round_to=options.rounding,
                resources=problem.resources,
                prepare=precision.apply,
                identity=identity,
                executor=self._executor(problem.device),
                finalists=options.finalists,
                start=self._start,
                train=train,
                fitness_steps=options.fitness_steps,
                training_price=self._price(problem),
                on_trial=on_trial,
            )
        reporter.stage(f"search: {_loss(result.best)} after {result.trials} trials")
        return result

    def _price(self, problem: Problem) -> float:
        """The work of a trial with training in those of one without: MACs times images.

        A backward pass counts twice; the teacher is as large as the bound on MACs says.
        """
        options = self._options
        share = problem.limits.get("macs", problem.before["macs"]) / problem.before["macs"]
        passes = 3 + (1 / share if options.distill else 0)
        seen = len(problem.split.recalibrate) + len(problem.split.validate)
        return 1 + options.fitness_steps * options.batch_size * passes / seen

    @property
    def _start(self) -> Latents:
        """What a sweep has told the run to start from; for others nothing."""
        found = self._run.record.state.get(START, [])
        start: Latents = of_type(f"{self._run.directory / RUN}: {START}", found, Latents, RunError)
        return start

    def _executor(self, device: torch.device) -> Executor | None:
        options = self._options
        if options.executor != "ray":
            return None
        gpus = 0.0
        if device.type == "cuda":
            gpus = min(1.0, torch.cuda.device_count() / options.workers)
        return RayExecutor(workers=options.workers, address=options.ray_address, gpus=gpus)

    def _verify(self, problem: Problem, small: nn.Module, plan: Plan) -> Difference:
        model = problem.model
        if problem.device.type != "cpu":  # labels flow on the CPU
            model, small = copy.deepcopy(model).cpu(), copy.deepcopy(small).cpu()
        seen = difference(model, small, plan, problem.example)
        error = seen.judged()
        self._run.reporter.stage(f"verified: within {error:.1e} of the masked original")
        if not seen.training_checked and problem.graph.training_checked:  # else it was told before
            self._run.reporter.warn(
                "the pruned network can't be compared with the masked original in training mode "
                f"({seen.training_error}), so it may not train"
            )
        moved = effect(model, plan, problem.example)
        if moved < VISIBLE:
            self._run.reporter.warn(
                f"what was removed moves the base network's output by {moved:.1e} only, so that "
                "the comparison says little: a base network that was hardly trained?"
            )
        return seen

    def _reconstructs(self, problem: Problem) -> bool:
        asked = self._options.reconstruct
        if asked is None:  # a layer is fitted on some images and judged on others
            return not self._options.finetune_epochs and len(problem.split.recalibrate) > 1
        return asked

    def _reconstruct(self, problem: Problem, small: nn.Module, plan: Plan) -> Scores:
        report = reconstruct(
            problem.model, small, plan, problem.recalibration_batches(), seed=self._options.seed
        )
        top1 = self._top1("top1_reconstructed", problem, small)
        taken = sum(refit.ridge is not None for refit in report.layers)
        self._run.reporter.stage(f"reconstructed: {taken} layers refitted, top-1 {top1:.2f} %")
        for layer, why in report.left_alone.items():
            self._run.reporter.stage(f"not refitted: {layer} ({why})")
        return Scores(top1)

    def _finetune(self, problem: Problem, small: nn.Module, precision: Precision) -> TrainingResult:
        run, options = self._run, self._options
        trained_in = FLOAT32
        if options.finetune_epochs:
            first = partial(problem.first_images, options.batch_size)
            trained_in = training_precision(run, options, small, first, self._choices)
        return train(
            run,
            options,
            problem,
            small,
            "fine-tuning",
            finetuning_config(options, options.finetune_epochs, trained_in, precision),
            run.directory / CHECKPOINT,
            teacher=problem.model if options.distill else None,
            validate=True,
        )

    def _latencies(
        self, problem: Problem, small: nn.Module, timed: Timed | None
    ) -> tuple[Latency, ...]:
        """Of the base network and the small one: as PyTorch runs them, and on the engine."""
        found = []
        watch = problem.watch
        if watch is None or watch.engine != "pytorch":  # else there would be two of one name
            example = problem.example.to(problem.device)
            times = time_models([problem.model, small], example)
            found.append(Latency("pytorch", len(example), torch.get_num_threads(), *times))
        if watch is not None and timed is not None:
            before, after = timed.times.before_ms, timed.times.after_ms
            found.append(
                Latency(watch.engine, watch.batch, watch.threads, before, after, timed.predicted_ms)
            )
            if after >= before:
                self._run.reporter.warn(
                    f"the pruned network is not faster on {watch.engine}: {after:.3g} ms, the base"
                    f" network {before:.3g} ms; {self._what_helps(problem)} would help"
                )
        return tuple(found)

    def _what_helps(self, problem: Problem) -> str:
        if self._options.round_to != AUTO:
            return "widths that engines like (--round-to auto)"
        if "latency" not in problem.limits:
            return "a bound on the time itself (--budget latency=60%)"
        return "a lower bound on latency"

    def _top1(self, key: str, problem: Problem, model: nn.Module) -> float:
        top1: float = self._run.once(
            key, float, lambda: evaluate_top1(model, problem.data.test, problem.data)
        )
        return top1


def _loss(trial: Trial) -> str:
    trained = f" (trained {trial.steps} steps)" if trial.steps else ""
    return f"loss {trial.loss:.4f}{trained}"


def costs_of(problem: Problem, plan: Plan, timed: Timed | None = None) -> dict[str, Cost]:
    """What the network cost and costs, and whether that is within its bounds.

    Latency is what was measured, if it was.
    """
    costs = {
        name: Cost(
            unit=RESOURCES[name].unit,
            asked=problem.budget.asked.get(name),
            limit=problem.limits.get(name),
            before=before,
            after=plan.cost[name],
            ratio=plan.cost[name] / before,
            met=plan.cost[name] <= problem.limits.get(name, before),
        )
        for name, before in problem.before.items()
    }
    if timed is not None:
        costs["latency"] = timed.cost(problem.budget.asked.get("latency"))
    return costs


def graph_json(problem: Problem, plan: Plan, costs: Mapping[str, Cost]) -> str:
    """``graph.json``: the families, their widths before and after, and the costs; no weights."""
    graph = problem.graph
    widths = {family.id: len(family.groups) for family in graph.families}
    kept = _kept(problem, plan)
    families = [
        {
            "name": family.name,
            "before": widths[family.id],
            "after": kept[family.id],
            "tensors": [[tensor, dim] for tensor, dim in family.dimensions],
        }
        for family in graph.families
    ]
    figures = {
        name: {"unit": cost.unit, "before": cost.before, "after": cost.after}
        for name, cost in costs.items()
    }
    untouched = [asdict(entry) for entry in graph.untouched]
    return json.dumps({"schema": 1, "costs": figures, "families": families, "untouched": untouched})


def _kept(problem: Problem, plan: Plan) -> Mapping[int, int]:
    """How many groups of each family a plan keeps."""
    graph = problem.graph
    keep = mask_of(graph, plan)
    counts = np.bincount(graph.family_of[keep], minlength=len(graph.families))
    return {family.id: int(counts[family.id]) for family in graph.families}


def mask_of(graph: ChannelGraph, plan: Plan) -> BoolArray:
    """The groups that a plan keeps, bool [prunable]."""
    keep = np.ones(len(graph.family_of), dtype=np.bool_)
    for (tensor, dim), indices in plan.kept.items():
        channels = graph.dimension(tensor, dim).channels
        removed = np.delete(channels, list(indices))
        keep[removed[(removed >= 0) & (removed < len(keep))]] = False
    return keep
