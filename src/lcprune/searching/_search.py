"""The loop that finds a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from torch import nn

from lcprune.cost import Budget
from lcprune.criteria import Saliency
from lcprune.errors import InputError, RunError
from lcprune.graph import ChannelGraph
from lcprune.ranking import Compensation, Plan, Ranker
from lcprune.searching._evaluate import Recalibrate
from lcprune.searching._executor import Executor, InProcess, Work
from lcprune.searching._finalists import choose_finalists
from lcprune.searching._identity import ENVIRONMENT, run_identity
from lcprune.searching._journal import Journal
from lcprune.searching._registry import choose_strategy
from lcprune.searching._replay import replay
from lcprune.searching._resume import settled_saliency
from lcprune.searching._schedule import Schedule
from lcprune.searching._strategy import Strategy
from lcprune.searching._trial import SearchProgress, SearchResult, Trial


def search(
    model: nn.Module,
    graph: ChannelGraph,
    saliency: Saliency,
    budget: Budget,
    *,
    fitness: Callable[[nn.Module], float],
    recalibrate: Recalibrate | None = None,
    trials: int = 400,
    journal: Path | None = None,
    seed: int = 0,
    compensation: str | Compensation = "additive",
    strategy: str | Strategy = "evolution",
    min_keep: float = 0.1,
    round_to: int = 1,
    prepare: Callable[[nn.Module], nn.Module] | None = None,
    identity: Mapping[str, Any] | None = None,
    executor: Executor | None = None,
    finalists: int = 1,
    on_trial: Callable[[Trial, SearchProgress], None] | None = None,
) -> SearchResult:
    """Learn the compensation whose plan has the lowest ``fitness`` within ``budget``.

    Each candidate is ranked, cut out of ``model`` (which stays as it is), passed through
    ``prepare``, recalibrated with the batches of ``recalibrate`` (or by it, where it is a
    function), and given to ``fitness``: lower is better, and what is not finite counts as
    ``inf``. A plan that was seen before is not evaluated again. Without anything to compensate
    (``compensation="none"``) there is one candidate. ``min_keep`` and ``round_to`` are those of
    ``rank``.

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
    one, and the next best that differ from it and from one another by more than a few channels.

    Raises ``BudgetError`` for a budget that can't be met, ``RunError`` for a journal of another
    run or a damaged one, ``InputError`` for what else can't be used and where no candidate has
    a finite loss.

    Source: Chin, Zhang, Marculescu, 2018, arXiv 1810.00518, algorithm 1.
    """
    if trials < 1:
        raise InputError(f"search of {trials} trials, expected 1 or more")
    if finalists < 1:
        raise InputError(f"search for {finalists} finalists, expected 1 or more")
    executor = executor or InProcess()

    def ranker_of(scores: Saliency) -> Ranker:
        return Ranker(
            graph, scores, budget, compensation=compensation, min_keep=min_keep, round_to=round_to
        )

    ranker = ranker_of(saliency)
    ranker.plan(ranker.compensation.identity())  # before a journal is begun for nothing
    total = trials if ranker.compensation.parameters else 1
    chosen = choose_strategy(strategy, ranker, total, seed)
    settings = {
        "seed": seed,
        "strategy": chosen.settings,
        "compensation": ranker.compensation.name,
        "min_keep": min_keep,
        "budget": ranker.limits,
    }
    if round_to != 1:  # absent where it is 1, as in the journals from before there was a choice
        settings["round_to"] = round_to
    if isinstance(recalibrate, Iterator):  # may be read by many workers
        recalibrate = list(recalibrate)
    work = Work(model, fitness, recalibrate, prepare, seed)
    who = run_identity(graph, saliency, settings, _with_executor(identity, executor))
    with Journal(journal, who, saliency.values, total) as book:
        settled = settled_saliency(journal, book.record, who, saliency)
        if settled is not saliency and isinstance(compensation, str):
            ranker = ranker_of(settled)
            chosen = choose_strategy(strategy, ranker, total, seed)
        if book.record.total != total:
            book.extend(total)
        replay(book.record, chosen)
        schedule = Schedule(chosen, ranker, book, total, executor.capacity, on_trial)
        if not schedule.finished:
            with closing(executor.start(work)) as workers:
                schedule.run(workers)
    return _result(
        choose_finalists(
            schedule.history,
            lambda trial: ranker.keep(trial.candidate().latent),
            graph.family_of,
            finalists,
        ),
        schedule.history,
        len(book.record.trials),
        ranker,
        journal,
    )


def _with_executor(
    identity: Mapping[str, Any] | None, executor: Executor
) -> Mapping[str, Any] | None:
    """The caller's identity, its environment joined by the executor's."""
    if not executor.environment:
        return identity
    own = dict(identity or {})
    return {**own, ENVIRONMENT: {**own.get(ENVIRONMENT, {}), **executor.environment}}


def _result(
    finalists: list[Trial],
    history: list[Trial],
    resumed: int,
    ranker: Ranker,
    journal: Path | None,
) -> SearchResult:
    if not finalists:
        raise InputError(
            f"no candidate of {len(history)} has a finite loss, expected a fitness that returns"
            " finite numbers: check the weights, the data and the fitness"
        )
    plans = tuple(_plan_of(trial, ranker, journal) for trial in finalists)
    return SearchResult(
        plan=plans[0],
        loss=finalists[0].loss,
        trials=len(history),
        seconds=sum(trial.seconds for trial in history),
        best=finalists[0],
        resumed=resumed,
        history=tuple(history),
        finalists=plans,
    )


def _plan_of(trial: Trial, ranker: Ranker, journal: Path | None) -> Plan:
    """The plan that a trial had; ``RunError`` where its latent gives another one by now."""
    plan = ranker.plan(trial.candidate().latent)
    if plan.digest != trial.digest:
        raise RunError(
            f"trial {trial.number} of journal {journal} ranks differently here, expected the"
            " version of lcprune that wrote it"
        )
    return plan
