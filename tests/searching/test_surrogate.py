"""What losses of some widths say of others."""

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lcprune.graph import FloatArray, IntArray
from lcprune.searching._surrogate import Surrogate, Told, _informative, _scaled
from searching.spaces import Convex, chain_ranker

SIZES = [16, 24, 32, 64, 20, 40]
RANKER = chain_ranker(SIZES)
FULL = RANKER.widths.full


def told(tried: IntArray, losses: FloatArray, probes: Any = False, trained: Any = False) -> Told:
    kinds = [np.broadcast_to(np.asarray(kind, np.bool_), len(tried)) for kind in (probes, trained)]
    return Told(tried, losses, *kinds)


def improvements(tried: IntArray, losses: FloatArray, asked: IntArray) -> FloatArray:
    """What a new surrogate expects after plans alone."""
    return Surrogate(FULL).improvements(told(tried, losses), asked)


def drawn(count: int, seed: int) -> tuple[IntArray, FloatArray]:
    """Widths between a quarter and all, and their losses."""
    generator = np.random.default_rng(seed)
    widths = np.rint(FULL * generator.uniform(0.25, 1, (count, len(FULL)))).astype(np.int64)
    return widths, np.array([Convex(RANKER, 3).of_widths(each) for each in widths])


def test_it_orders_widths_that_were_not_tried() -> None:
    tried, losses = drawn(60, seed=0)
    asked, true = drawn(200, seed=1)
    gains = improvements(tried, losses, asked)
    assert stats.kendalltau(gains, -true).statistic > 0.5
    assert true[gains.argmax()] < np.quantile(true, 0.05)


def test_near_the_best_promises_more_than_near_the_worst() -> None:
    tried, losses = drawn(40, seed=0)
    near = np.maximum(tried - 1, 1)
    gains = improvements(tried, losses, near)
    order = np.argsort(losses)
    assert gains[order[:4]].min() > gains[order[-20:]].max()


@settings(max_examples=20)
@given(scale=st.sampled_from([1e-3, 1.0, 1e4]), shift=st.sampled_from([-1e3, 0.0, 7.0]))
def test_neither_the_unit_nor_the_sign_of_a_loss_matters(scale: float, shift: float) -> None:
    tried, losses = drawn(30, seed=0)
    asked, _ = drawn(50, seed=1)
    expected = improvements(tried, losses, asked)
    found = improvements(tried, scale * losses + shift, asked)
    assert found.argmax() == expected.argmax()
    assert found == pytest.approx(expected, rel=1e-2, abs=1e-4)


@pytest.mark.parametrize("losses", [[1.0, 1.0], [1.0, 1e300, 1.0], [0.0, 1.0, 2.0, 3.0]])
def test_few_equal_or_huge_losses(losses: list[float]) -> None:
    tried, _ = drawn(len(losses), seed=0)
    asked, _ = drawn(5, seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gains = improvements(tried, np.array(losses), asked)
    assert np.isfinite(gains).all()
    assert (gains >= 0).all()


def test_probes_say_which_family_matters_and_are_not_the_loss_to_beat() -> None:
    """Where plans alone say nothing of two families, and probes are far lower than plans."""
    wide = FULL - 1
    probes = np.stack([wide, *(wide - (wide // 4) * (np.arange(6) == i) for i in range(6))])
    probed = np.array([0.1, *[0.1] * 5, 0.4])  # the last family matters
    plans = np.stack([FULL // 2, FULL // 2 + 1])
    without = improvements(plans, np.array([1.0, 1.1]), asked := plans + np.diag([4] * 6)[[5, 0]])
    gains = Surrogate(FULL).improvements(
        told(
            np.concatenate([probes, plans]),
            np.array([*probed, 1.0, 1.1]),
            [True] * 7 + [False] * 2,
        ),
        asked,
    )
    assert (gains > 0).all()
    assert gains[0] / gains[1] > without[0] / without[1]


@settings(max_examples=4)
@given(first=st.integers(4, 30), seed=st.integers(0, 99))
def test_one_that_was_asked_before_says_the_same_as_a_new_one(first: int, seed: int) -> None:
    tried, losses = drawn(30, seed)
    asked, _ = drawn(20, seed + 1)
    old = Surrogate(FULL)
    for count in range(first, 31):
        order = np.arange(count)
        known = told(tried[:count], losses[:count], order % 5 == 1, order % 5 == 3)
        found = [old.improvements(known, asked), *old.by_kind(known, asked)]
    new = Surrogate(FULL)
    expected = [new.improvements(known, asked), *new.by_kind(known, asked)]
    assert np.array_equal(found, expected)


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0, 5.0]), min_size=1, max_size=1100))
def test_of_many_points_the_best_and_the_latest_others_are_taken(losses: list[float]) -> None:
    taken = _informative(np.array(losses)).tolist()
    assert len(set(taken)) == len(taken) == min(len(losses), 512)
    if len(losses) > 512:
        left = sorted(set(range(len(losses))) - set(taken))
        best, latest = taken[:256], taken[256:]
        assert max(losses[i] for i in best) <= min(losses[i] for i in [*latest, *left])
        assert max(left, default=-1) < min(latest)


def test_more_low_probes_than_are_taken_leave_plans_to_beat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lcprune.searching._surrogate._MOST", 40)
    tried, losses = drawn(60, seed=0)
    probes = np.arange(60) >= 2
    losses[:2] += 10
    gains = Surrogate(FULL).improvements(told(tried, losses, probes), drawn(5, seed=1)[0])
    assert (gains > 0).all()


@given(st.lists(st.integers(-1000, 1000), min_size=20, max_size=60, unique=True))
def test_where_nothing_is_known_a_loss_is_expected_that_few_exceed(losses: list[int]) -> None:
    """The process expects 0 there."""
    scaled = _scaled(np.array(losses, dtype=np.float64))
    assert 1 <= (scaled > 0).sum() <= 0.1 * len(losses) + 1


def two_kinds(alike: bool, seed: int = 0) -> Told:
    """Sixty losses without training, and twenty with it of the same widths."""
    tried, losses = drawn(60, seed)
    after = losses[:20] if alike else np.random.default_rng(seed).permutation(losses[:20])
    return told(
        np.concatenate([tried, tried[:20]]),
        np.concatenate([losses, 0.1 * after + 3]),
        trained=[False] * 60 + [True] * 20,
    )


def test_what_counts_in_the_end_is_the_loss_after_training() -> None:
    """Losses with training that fall where those without rise."""
    tried, losses = drawn(60, seed=0)
    known = told(
        np.concatenate([tried] * 2),
        np.concatenate([losses, -losses]),
        trained=[False] * 60 + [True] * 60,
    )
    asked, true = drawn(100, seed=1)
    gains = Surrogate(FULL).by_kind(known, asked)[1]
    assert stats.kendalltau(gains, true).statistic > 0.4


def test_what_is_to_beat_was_trained() -> None:
    """A plan that was tried without is no gain over itself, but one over all that were trained."""
    tried, losses = drawn(60, seed=0)
    order = np.argsort(losses)
    best, worst = order[:5], order[30:]
    known = told(
        np.concatenate([tried, tried[worst]]),
        np.concatenate([losses, losses[worst]]),
        trained=[False] * 60 + [True] * 30,
    )
    gains = Surrogate(FULL).by_kind(known, tried[np.concatenate([best, worst])])[1]
    assert gains[:5].min() > 0.2
    assert gains[5:].max() < 0.02


def test_a_loss_without_training_is_worth_what_it_tells_of_one_with_it() -> None:
    asked, _ = drawn(50, seed=1)
    worth = []
    for alike in (True, False):
        cheap, dear = Surrogate(FULL).by_kind(two_kinds(alike), asked)
        assert (cheap >= 0).all()
        assert (cheap <= dear + 1e-9).mean() > 0.9
        worth.append(float(cheap.sum() / dear.sum()))
    assert worth[0] > 2 * worth[1]


def test_losses_without_training_help_where_few_were_trained() -> None:
    asked, true = drawn(200, seed=1)
    known = two_kinds(alike=True)
    alone = told(known.widths[60:], known.losses[60:], trained=True)
    taus = [
        stats.kendalltau(Surrogate(FULL).by_kind(each, asked)[1], -true).statistic
        for each in (known, alone)
    ]
    assert taus[0] > taus[1] + 0.05
