import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs import make_graph
from lcprune.criteria import Saliency
from lcprune.errors import InputError
from lcprune.ranking import (
    SCALES,
    Additive,
    Affine,
    Compensation,
    Uncompensated,
    choose_compensation,
)

FAMILIES = [5, 1, 12, 3, 4, 4, 4, 4, 4, 4]
GRAPH = make_graph(FAMILIES, [])
VALUES = np.random.default_rng(3).gamma(2.0, size=GRAPH.prunable) * np.repeat(
    10.0 ** np.arange(-3, 7), FAMILIES
)
SALIENCY = Saliency(VALUES, "l2", "sum")
NAMES = [f"{name}:{scale}" for name in ("additive", "affine") for scale in SCALES]


def choose(name: str) -> Compensation:
    return choose_compensation(name, GRAPH, SALIENCY)


@pytest.mark.parametrize("name", [*NAMES, "none"])
def test_the_identity_leaves_the_order_within_each_family(name: str) -> None:
    compensation = choose(name)
    scores = compensation.apply(compensation.identity())
    for family in GRAPH.families:
        groups = list(family.groups)
        assert np.argsort(scores[groups]).tolist() == np.argsort(VALUES[groups]).tolist()


@pytest.mark.parametrize("name", [n for n in NAMES if "family" not in n] + ["none"])
def test_the_identity_leaves_the_global_order(name: str) -> None:
    compensation = choose(name)
    scores = compensation.apply(compensation.identity())
    assert np.argsort(scores, kind="stable").tolist() == np.argsort(VALUES, kind="stable").tolist()


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 2**32))
def test_draws_move_every_family_and_keep_its_order(name: str, seed: int) -> None:
    compensation = choose(name)
    latent = compensation.draw(np.random.default_rng(seed))
    assert latent.shape == (len(FAMILIES), compensation.parameters)
    assert (latent != compensation.identity()).any(axis=1).all()
    scores = compensation.apply(latent)
    for family in GRAPH.families:
        groups = np.array(family.groups)
        ordered = scores[groups[np.argsort(VALUES[groups])]]
        # A huge offset may round neighbours to a tie, but never swaps them.
        assert (np.diff(ordered) >= 0).all()


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 2**32), share=st.sampled_from([0.0, 0.1, 0.34, 1.0]))
def test_perturbing_moves_the_share_asked_for(name: str, seed: int, share: float) -> None:
    compensation = choose(name)
    generator = np.random.default_rng(seed)
    parent = compensation.draw(generator)
    before = parent.copy()
    child = compensation.perturb(parent, generator, share, 0.3)
    assert (parent == before).all()
    moved = (child != parent).any(axis=1)
    assert moved.sum() == max(1, round(share * len(FAMILIES)))


@pytest.mark.parametrize("name", NAMES)
def test_the_step_scales_the_move(name: str) -> None:
    compensation = choose(name)
    start = compensation.identity()
    moves = [
        compensation.perturb(start, np.random.default_rng(1), 1.0, step) - start
        for step in (1e-3, 1e-4)
    ]
    assert moves[0] == pytest.approx(10 * moves[1], rel=1e-2)


def test_raw_offsets_are_as_wide_as_the_family() -> None:
    generator = np.random.default_rng(0)
    compensation = Additive(GRAPH, SALIENCY)
    draws = np.stack([compensation.draw(generator)[:, 0] for _ in range(4000)])
    for family, width in zip(GRAPH.families, draws.std(axis=0), strict=True):
        own = VALUES[list(family.groups)].std()
        # A family of one has no deviation of its own and takes that of all.
        assert width == pytest.approx(own if own > 0 else VALUES.std(), rel=0.1)


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        ("std", VALUES.std()),
        ("log", np.log(VALUES).std()),
        ("rank", np.arange(1, GRAPH.prunable + 1).std() / GRAPH.prunable),
    ],
)
def test_other_scales_are_as_wide_as_all_scores(scale: str, expected: float) -> None:
    generator = np.random.default_rng(0)
    compensation = Additive(GRAPH, SALIENCY, scale)
    draws = np.stack([compensation.draw(generator)[:, 0] for _ in range(4000)])
    assert draws.std(axis=0) == pytest.approx(np.full(len(FAMILIES), expected), rel=0.1)


def test_affine_draws_and_moves_both_numbers() -> None:
    generator = np.random.default_rng(0)
    compensation = Affine(GRAPH, SALIENCY, "std")
    draws = np.stack([compensation.draw(generator) for _ in range(4000)])
    assert np.log(draws[..., 0]).std(axis=0) == pytest.approx(np.ones(len(FAMILIES)), rel=0.1)
    expected = np.full(len(FAMILIES), VALUES.std())
    assert draws[..., 1].std(axis=0) == pytest.approx(expected, rel=0.1)
    child = compensation.perturb(draws[0], generator, 1.0, 0.5)
    assert (child != draws[0]).all()


def test_additive_and_affine_formulas() -> None:
    latent = np.arange(len(FAMILIES))[:, None] + 1.0
    offsets = np.repeat(latent[:, 0], FAMILIES)
    assert (Additive(GRAPH, SALIENCY).apply(latent) == VALUES + offsets).all()
    both = np.hstack([latent, -latent])
    assert (Affine(GRAPH, SALIENCY).apply(both) == VALUES * offsets - offsets).all()


def test_family_ranks_remove_the_same_share_everywhere() -> None:
    scores = Additive(GRAPH, SALIENCY, "family-rank")
    half = scores.apply(scores.identity()) > 0.5
    assert [int(half[list(f.groups)].sum()) for f in GRAPH.families] == [
        (n + 1) // 2 for n in FAMILIES
    ]


def test_log_takes_zeros_below_all_others_and_refuses_less() -> None:
    graph = make_graph([3], [])
    zeros = Additive(graph, Saliency(np.array([1e-9, 0.0, 5.0]), "l2", "sum"), "log")
    assert np.argsort(zeros.apply(zeros.identity())).tolist() == [1, 0, 2]
    with pytest.raises(InputError, match="at least 0"):
        Additive(graph, Saliency(np.array([1.0, -1.0, 5.0]), "own", "sum"), "log")


@pytest.mark.parametrize("scale", SCALES)
def test_equal_scores_still_have_a_width(scale: str) -> None:
    graph = make_graph([3, 3], [])
    compensation = Additive(graph, Saliency(np.zeros(6), "l2", "sum"), scale)
    assert (compensation.draw(np.random.default_rng(0)) != 0).all()


def test_names() -> None:
    assert choose("additive").name == "additive"
    assert choose("additive:raw").name == "additive"
    assert choose("affine:rank").name == "affine:rank"
    assert isinstance(choose("none"), Uncompensated)
    own = Additive(GRAPH, SALIENCY)
    assert choose_compensation(own, GRAPH, SALIENCY) is own


@pytest.mark.parametrize("name", ["", "multiplicative", "additive:cubed", "none:raw"])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="unknown compensation"):
        choose(name)


@pytest.mark.parametrize("name", ["additive", "affine:rank", "none"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_saliencies_must_be_finite(name: str, bad: float) -> None:
    values = VALUES.copy()
    values[7] = bad
    with pytest.raises(InputError, match=r"f2.*expected finite"):
        choose_compensation(name, GRAPH, Saliency(values, "l2", "sum"))


def test_saliencies_must_fit_the_graph() -> None:
    with pytest.raises(InputError, match="one per group"):
        choose_compensation("none", GRAPH, Saliency(np.ones(3), "l2", "sum"))
