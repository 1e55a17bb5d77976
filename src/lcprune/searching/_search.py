"""The loop that finds a plan."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from lcprune._checks import (
    choice,
    function,
    instance,
    integer,
    is_iterable,
    module,
    number,
    path,
    refused,
)
from lcprune.cost import Budget, Resource
from lcprune.criteria import Saliency
from lcprune.errors import InputError, LcpruneWarning, RunError
from lcprune.graph import ChannelGraph, FloatArray, uncounted_sentence
from lcprune.ranking import Compensation, Plan, Ranker, RoundTo
from lcprune.searching import _schedule
from lcprune.searching._auto import Auto
from lcprune.searching._evolution import Evolution
from lcprune.searching._executor import Executor, InProcess, Recalibrate, Train, Work
from lcprune.searching._identity import resumed_saliency, run_identity
from lcprune.searching._journal import Journal
from lcprune.searching._random import RandomSearch
from lcprune.searching._result import SearchProgress, SearchResult, Trial, choose_finalists
from lcprune.searching._strategy import Strategy

MakeStrategy = Callable[..., Strategy]
"""A ranker, the number of trials and a seed to a strategy.

One that can be told where to begin also takes ``start=``, latents float64 [families, parameters]
to be tried before all others; one that can have candidates trained takes ``steps=``, and may take
``price=``, what such a trial costs in those of one without.
"""

STRATEGIES: Mapping[str, MakeStrategy] = {
    "auto": Auto,
    "evolution": Evolution,
    "random": RandomSearch,
}
"""Strategies by name."""


_STRATEGY = ("settings", "ask", "tell")
_COMPENSATION = ("name", "parameters", "identity", "apply")
_EXECUTOR = ("capacity", "environment", "start")


def choose_strategy(
    strategy: str | Strategy | MakeStrategy,
    ranker: Ranker,
    trials: int,
    seed: int,
    start: Sequence[FloatArray] = (),
    steps: int = 0,
    price: float = 1.0,
) -> Strategy:
    """The strategy of that name, or what the function or class given makes; an object is itself.

    Raises ``InputError`` for an unknown name, and where it can't ``start`` from what is given or
    have candidates trained for ``steps``.
    """
    if isinstance(strategy, str):
        strategy = STRATEGIES[choice("strategy", strategy, STRATEGIES)]
    given: dict[str, Any] = {"start": tuple(start)} if start else {}
    given |= {"steps": steps} if steps else {}
    for name in given:
        if not _takes(strategy, name):
            raise refused("strategy", strategy, f"a name, or what makes one and takes {name}=")
    if steps and _takes(strategy, "price"):
        given["price"] = price
    made = strategy(ranker, trials, seed, **given) if callable(strategy) else strategy
    if not all(hasattr(made, part) for part in _STRATEGY):
        raise refused("strategy", made, "a name, or what has settings, ask and tell")
    return made


def _takes(strategy: object, name: str) -> bool:
    if not callable(strategy):
        return False
    try:
        inspect.signature(strategy).bind(None, 1, 0, **{name: None})
    except (TypeError, ValueError):
        return False
    return True


def _latents(start: object, ranker: Ranker, graph: ChannelGraph) -> tuple[FloatArray, ...]:
    """The latents of what to start from; ``InputError`` where it is of another search space."""
    if isinstance(start, str | Mapping) or not is_iterable(start):
        raise refused("start", start, "a list of plans or latents")
    found = []
    for given in start:  # type: ignore[attr-defined]
        latent: npt.ArrayLike | None = given
        if isinstance(given, Plan):
            name, own = ranker.compensation.name, given.compensation
            if own != name or set(given.latent) != {family.name for family in graph.families}:
                raise InputError(
                    f"a plan to start from has the β of {own or 'no compensation'} for "
                    f"{len(given.latent)} families, expected {name} for the "
                    f"{len(graph.families)} of this network"
                )
            latent = [given.latent[family.name] for family in graph.families]
        if latent is None:
            raise refused("a start", given, "a plan or a latent")
        found.append(ranker.read_latent(latent))
    if found and not ranker.compensation.parameters:
        raise InputError(
            f"compensation {ranker.compensation.name} learns nothing, expected nothing to start "
            "from"
        )
    return tuple(found)


def search(
    model: nn.Module,
    graph: ChannelGraph,
    saliency: Saliency,
    budget: Budget,
    *,
    fitness: Callable[[nn.Module], float],
    recalibrate: Recalibrate | None = None,
    trials: int = 400,
    journal: str | os.PathLike[str] | None = None,
    seed: int = 0,
    compensation: str | Compensation = "additive",
    strategy: str | Strategy | MakeStrategy = "evolution",
    min_keep: float = 0.1,
    round_to: RoundTo = 1,
    resources: Sequence[str | Resource] = (),
    prepare: Callable[[nn.Module], nn.Module] | None = None,
    identity: Mapping[str, Any] | None = None,
    executor: Executor | None = None,
    finalists: int = 1,
    start: Iterable[Plan | npt.ArrayLike] = (),
    train: Train | None = None,
    fitness_steps: int = 0,
    training_price: float = 10.0,
    on_trial: Callable[[Trial, SearchProgress], None] | None = None,
) -> SearchResult:
    """Find the plan with the lowest ``fitness`` within ``budget``.

    Each candidate of the ``strategy`` (a name of ``STRATEGIES``, an object, or a class or function
    that makes one of a ranker, the number of trials and a seed) is cut out of ``model``, which
    stays as it is, passed through ``prepare``, recalibrated with the batches of ``recalibrate``
    (or by it, where it is a function), and given to ``fitness``: lower is better, and what is not
    finite counts as ``inf``. A plan that was seen before is not evaluated again. Without anything
    to compensate (``compensation="none"``) there is one candidate. ``min_keep``, ``round_to``
    and ``resources`` are those of ``rank``.

    ``journal`` is a file that holds every finished trial before the next begins; given again
    after an interruption at any moment, the search goes on where it was, and ends as it would
    have without. ``identity`` (JSON) is what else the run depends on: data, weights, how the
    fitness is made. It must be the same then, but for its key ``environment`` (the machine and
    what was measured on it), which only warns. Another number of ``trials`` may be asked for:
    the trials that are there stay, the step of the further ones is that of the new number.

    ``executor`` says where candidates are evaluated: in this process, one after the other, unless
    it is another (``RayExecutor``). With several at once the strategy is told losses as they
    come, so that the result depends on which came first; the journal keeps that order, and a
    search that goes on evaluates again what was in flight.

    ``finalists`` is how many plans to name in all, for a choice by more than the fitness: the best
    one, and the next best that differ from it and from one another by more than a few channels; the
    last is the strategy's reference (for ``auto`` the uniform width), where it tried one.

    ``start`` holds what is tried first, each cut at this ``budget``: plans, such as the best of
    other budgets, whose β counts, or latents, float [families, parameters]. A strategy goes on
    from there: ``evolution`` without draws, ``auto`` without probes. Where a journal goes on, it
    must be the same.

    With ``fitness_steps`` candidates are trained before they are measured: ``train`` is given the
    cut network, float32 and not recalibrated yet, and trains it in place for so many steps, on the
    same batches whatever the network (``ShortTraining``). So is every candidate of ``evolution``
    and ``random``; ``auto`` also measures without, which is ``training_price`` times less work,
    and decides for each trial which of the two is worth its work. The best plan is one of those
    that were trained.

    Source: Chin, Ding, Zhang, Marculescu, 2020, "LeGR", arXiv 1904.12368, section 3.2 (τ̂ steps).

    Raises ``BudgetError`` for a budget that can't be met, ``RunError`` for a journal of another
    run or a damaged one, ``InputError`` for what else can't be used and where no candidate has
    a finite loss.

    Source: Chin, Zhang, Marculescu, 2018, arXiv 1810.00518, algorithm 1.
    """
    started = _schedule.clock()
    module("model", model)
    instance("graph", graph, ChannelGraph, "a ChannelGraph, which trace gives")
    instance("saliency", saliency, Saliency, "a Saliency, which lcprune.saliency gives")
    instance("budget", budget, Budget, "a Budget, such as Budget(macs=0.5)")
    function("fitness", fitness)
    for name, value in (("prepare", prepare), ("on_trial", on_trial)):
        if value is not None:
            function(name, value)
    if recalibrate is not None and not callable(recalibrate) and not is_iterable(recalibrate):
        raise refused("recalibrate", recalibrate, "batches of the model's inputs, or a function")
    if not isinstance(compensation, str) and not all(
        hasattr(compensation, part) and not isinstance(compensation, type) for part in _COMPENSATION
    ):
        raise refused("compensation", compensation, "a name or a Compensation")
    integer("trials", trials, 1)
    integer("finalists", finalists, 1)
    integer("seed", seed, 0)
    number("min_keep", min_keep, 0, 1)
    integer("fitness_steps", fitness_steps, 0)
    number("training_price", training_price, more_than=0)
    if train is not None:
        function("train", train)
    elif fitness_steps:
        raise refused("train", train, f"a function, for fitness_steps={fitness_steps}")
    if identity is not None:
        instance("identity", identity, Mapping, "a dictionary of JSON values")
    if journal is not None:
        journal = path("journal", journal, RunError, of_file=True)
    executor = InProcess() if executor is None else executor
    if isinstance(executor, type) or not all(hasattr(executor, part) for part in _EXECUTOR):
        raise refused("executor", executor, "an Executor, such as RayExecutor(workers=2)")

    def ranker_of(scores: Saliency) -> Ranker:
        return Ranker(
            graph,
            scores,
            budget,
            compensation=compensation,
            min_keep=min_keep,
            round_to=round_to,
            resources=resources,
        )

    if graph.uncounted:
        warnings.warn(uncounted_sentence(graph), LcpruneWarning, stacklevel=2)
    ranker = ranker_of(saliency)
    ranker.keep(ranker.compensation.identity())  # before a journal is written for nothing
    total = trials if ranker.compensation.parameters else 1
    latents = _latents(start, ranker, graph)

    def strategy_of(ranker: Ranker) -> Strategy:
        own = (latents, fitness_steps, training_price)
        return choose_strategy(strategy, ranker, total, seed, *own)

    chosen = strategy_of(ranker)
    settings = {
        "seed": seed,
        "strategy": chosen.settings,
        "compensation": ranker.compensation.name,
        "min_keep": min_keep,
        "round_to": round_to,
        "budget": ranker.limits,
    }
    if round_to == "auto":  # these may have come from a table, and it may be another one now
        rungs = json.dumps([own.tolist() for own in ranker.widths.rungs])
        settings["widths_sha256"] = hashlib.sha256(rungs.encode()).hexdigest()
    if fitness_steps:
        settings["fitness_steps"] = fitness_steps
    if latents:
        content = np.stack(latents).astype("<f8").tobytes()
        settings["start"] = hashlib.sha256(content).hexdigest()
    if isinstance(recalibrate, Iterator):  # it would be empty at the second candidate
        recalibrate = list(recalibrate)
    work = Work(model, fitness, recalibrate, prepare, seed, train)
    who = run_identity(graph, saliency, settings, identity, executor.environment)
    with Journal(journal, who, saliency.values, total) as kept:
        scores = resumed_saliency(journal, kept.record, who, saliency)
        if scores is not saliency and isinstance(compensation, str):
            ranker = ranker_of(scores)
            chosen = strategy_of(ranker)
        if kept.record.total != total:
            kept.extend(total)
        kept.record.replay(chosen)
        schedule = _schedule.Schedule(
            chosen, ranker, kept, total, executor.capacity, started, on_trial
        )
        if not schedule.finished:
            with closing(executor.start(work)) as workers:
                schedule.run(workers)
    history = schedule.history
    best = choose_finalists(history, graph.family_of, finalists)
    if not best:
        raise InputError(
            f"no candidate of {len(history)} has a finite loss, expected a fitness that returns"
            " finite numbers: check the weights, the data and the fitness"
        )
    plans = tuple(_plan_of(trial, ranker) for trial in best)
    return SearchResult(
        plan=plans[0],
        loss=best[0].loss,
        trials=len(history),
        seconds=sum(trial.seconds for trial in history),
        best=best[0],
        resumed=len(kept.record.trials),
        history=tuple(history),
        finalists=plans,
    )


def _plan_of(trial: Trial, ranker: Ranker) -> Plan:
    """The plan of a trial; it names the latent of the trial's note where that gives it."""
    latent = trial.note.get("latent")
    if latent is not None:
        cut = ranker.keep(ranker.read_latent(latent))
        latent = latent if np.array_equal(cut, trial.keep) else None
    return ranker.plan_of(trial.keep, latent)
