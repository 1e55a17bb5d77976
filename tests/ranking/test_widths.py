"""Widths, and the latents that give them."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from graphs import Steps, chain, graphs, steps
from lcprune.cost import Budget, CostModel
from lcprune.criteria import Saliency
from lcprune.errors import InputError
from lcprune.graph import ChannelGraph, IntArray
from lcprune.ranking import Ranker, RoundTo
from lcprune.ranking._widths import Widths

COMPENSATIONS = ["additive", "additive:family-rank", "affine", "affine:log"]


@st.composite
def rankers(draw: st.DrawFn, ties: bool = False) -> tuple[ChannelGraph, Saliency, Ranker]:
    graph = draw(graphs())
    scores = np.random.default_rng(draw(st.integers(0, 99))).random(graph.prunable)
    scores = np.round(scores, 1) if ties else scores
    before = CostModel(graph).evaluate()
    assume(min(before.values()) > 1)
    bounds = {
        name: draw(st.integers(max(1, before[name] // 2), before[name] - 1))
        for name in ("macs", "params")
    }
    given = Saliency(scores, "l2", "sum")
    table = draw(steps([len(family.groups) for family in graph.families]))
    ranker = Ranker(
        graph,
        given,
        Budget(**bounds),
        compensation=draw(st.sampled_from(COMPENSATIONS)),
        min_keep=draw(st.sampled_from([0.0, 0.1, 0.5])),
        round_to=draw(st.sampled_from([1, 1, 2, 3, "auto"])),
        resources=[table],
    )
    return graph, given, ranker


def drawn(widths: Widths, generator: np.random.Generator) -> IntArray:
    return np.array([generator.choice(rungs) for rungs in widths.rungs], dtype=np.int64)


def mask(graph: ChannelGraph, scores: np.ndarray, widths: IntArray) -> np.ndarray:
    """The best of every family, by definition."""
    keep = np.zeros(graph.prunable, dtype=bool)
    for family, width in zip(graph.families, widths, strict=True):
        keep[sorted(family.groups, key=lambda g: (scores[g], g))[-width:]] = True
    return keep


@given(case=rankers(ties=True), seed=st.integers(0, 99))
def test_costs_are_those_of_the_best_of_every_family(
    case: tuple[ChannelGraph, Saliency, Ranker], seed: int
) -> None:
    graph, given, ranker = case
    generator = np.random.default_rng(seed)
    chosen = np.stack([drawn(ranker.widths, generator) for _ in range(3)])
    expected = []
    for widths in chosen:
        costs = CostModel(graph).evaluate(mask(graph, given.values, widths))
        expected.append([costs[name] for name in ranker.limits])
    assert ranker.widths.costs(chosen).tolist() == expected
    assert [ranker.widths.costs(widths).tolist() for widths in chosen] == expected
    limits = list(ranker.limits.values())
    fit = [all(c <= limit for c, limit in zip(row, limits, strict=True)) for row in expected]
    assert ranker.widths.fit(chosen).tolist() == fit


@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    compensation=st.sampled_from(COMPENSATIONS),
    round_to=st.sampled_from([1, 2, 3, "auto"]),
    bounds=st.sampled_from([{"macs": 0.6}, {"params": 0.5}, {"macs": 0.7, "params": 0.6}]),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_maximal_widths_that_fit_are_those_of_their_latents_plan(
    sizes: list[int],
    compensation: str,
    round_to: RoundTo,
    bounds: dict[str, float],
    seed: int,
    data: st.DataObject,
) -> None:
    # Layers of a chain, in which all channels of a family cost the same: of others, the cut gives
    # a cheap one back where a better one won't fit.
    _, graph = chain(sizes)
    generator = np.random.default_rng(seed)
    given = Saliency(generator.random(graph.prunable), "l2", "sum")
    table: Steps = data.draw(steps(sizes))
    ranker = Ranker(
        graph,
        given,
        Budget(**bounds),
        compensation=compensation,
        round_to=round_to,
        resources=[table],
    )
    space = ranker.widths
    now = np.array([rungs[0] for rungs in space.rungs], dtype=np.int64)
    if not space.fit(now):
        return
    while True:
        wider = []
        for family, rungs in enumerate(space.rungs):
            above = rungs[rungs > now[family]]
            if len(above):
                tried = now.copy()
                tried[family] = above[0]
                wider += [tried] if space.fit(tried) else []
        if not wider:
            break
        now = wider[generator.integers(len(wider))]
    latent = space.latent(now)
    assert ranker.keep(latent).tolist() == mask(graph, given.values, now).tolist()
    assert space.of(ranker.keep(latent)).tolist() == now.tolist()


@given(case=rankers(), seed=st.integers(0, 99))
def test_what_a_latent_scores_at_least_0_has_its_widths_whatever_the_budget(
    case: tuple[ChannelGraph, Saliency, Ranker], seed: int
) -> None:
    graph, given, ranker = case
    widths = drawn(ranker.widths, np.random.default_rng(seed))
    best = mask(graph, given.values, widths)
    keep = ranker.at_least_0(ranker.widths.latent(widths))
    assert keep.tolist() == best.tolist()
    assert ranker.widths.of(keep).tolist() == widths.tolist()
    if best.any():
        assert ranker.plan_of(keep).cost == CostModel(graph).evaluate(best) | {"steps": 0}


@pytest.mark.parametrize("round_to", [1, 2, 4])
def test_rungs_are_multiples_or_all(round_to: int) -> None:
    _, graph = chain([8, 11, 3])
    scores = Saliency(np.arange(22.0), "l2", "sum")
    space = Ranker(graph, scores, Budget(macs=0.9), min_keep=0.3, round_to=round_to).widths
    for rungs, size in zip(space.rungs, (8, 11, 3), strict=True):
        whole = [w for w in range(1, size + 1) if w % round_to == 0 or w == size]
        legal = [w for w in whole if w >= min(size, 0.3 * size)]
        assert rungs.tolist() == legal
    assert space.full.tolist() == [8, 11, 3]


def test_what_learns_nothing_offers_no_widths() -> None:
    _, graph = chain([8, 6])
    scores = Saliency(np.arange(14.0), "l2", "sum")
    space = Ranker(graph, scores, Budget(macs=0.5), compensation="uniform").widths
    with pytest.raises(InputError, match="uniform adds nothing"):
        space.latent(space.full)
