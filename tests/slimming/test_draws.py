"""Draws with numbers: the same on both sides whatever their sizes, or the expectation on both."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lcprune.slimming._draws import EXPECTATIONS, Draws, same_generators

ONES = torch.ones(4, 6, dtype=torch.float64)
SIGNED = torch.linspace(-2, 2, 24, dtype=torch.float64).reshape(4, 6)


def leaky(x: Tensor) -> Tensor:
    return torch.where(x < 0, x * 0.3, x)


IN_THE_MEAN: dict[str, tuple[Callable[[], Tensor], Tensor]] = {
    "dropout": (lambda: F.dropout(SIGNED, 0.3), SIGNED),
    "dropout in place": (lambda: F.dropout(SIGNED.clone(), 0.3, inplace=True), SIGNED),
    "native dropout": (lambda: torch.native_dropout(SIGNED, 0.3, True)[0], SIGNED),
    "dropout of channels": (lambda: F.dropout2d(SIGNED[None, :, None], 0.3), SIGNED[None, :, None]),
    "probabilities": (lambda: torch.bernoulli(ONES * 0.3), ONES * 0.3),
    "a probability": (lambda: torch.bernoulli(SIGNED, 0.3), ONES * 0.3),
    "probabilities in place": (lambda: SIGNED.clone().bernoulli_(ONES * 0.3), ONES * 0.3),
    "normal": (lambda: torch.normal(SIGNED, 2.0), SIGNED),
    "normal in place": (lambda: SIGNED.clone().normal_(3.0, 2.0), ONES * 3),
    "normal of a size": (lambda: torch.normal(1.0, 2.0, (4, 6)).double(), ONES),
    "uniform": (lambda: SIGNED.clone().uniform_(1, 4), ONES * 2.5),
    "from 0 to 1": (lambda: torch.rand(4, 6).double(), ONES / 2),
    "like": (lambda: torch.rand_like(SIGNED) + torch.randn_like(SIGNED), ONES / 2),
    "integers": (lambda: torch.randint(2, 8, (4, 6)).double(), ONES * 5),
    "integers like": (lambda: torch.randint_like(SIGNED, 8), ONES * 4),
    "integers in place": (lambda: SIGNED.clone().random_(2, 8), ONES * 5),
    "an order": (lambda: torch.randperm(4).double(), torch.arange(4.0).double()),
    "places": (lambda: torch.multinomial(ONES, 3) * 1.0, torch.arange(3.0).expand(4, 3)),
    "exponential": (lambda: SIGNED.clone().exponential_(2), ONES / 2),
    "geometric": (lambda: SIGNED.clone().geometric_(0.25), ONES * 4),
    "cauchy": (lambda: SIGNED.clone().cauchy_(2), ONES * 2),
    "poisson": (lambda: torch.poisson(ONES * 3), ONES * 3),
    "binomial": (lambda: torch.binomial(ONES * 4, ONES / 2), ONES * 2),
    "gamma": (lambda: torch._standard_gamma(ONES * 3), ONES * 3),
    "slopes": (lambda: F.rrelu(SIGNED, 0.2, 0.4, training=True), leaky(SIGNED)),
    "slopes in place": (lambda: F.rrelu_(SIGNED.clone(), 0.2, 0.4, training=True), leaky(SIGNED)),
}  # fmt: skip


@pytest.mark.parametrize("kind", IN_THE_MEAN)
def test_a_draw_of_another_shape_gives_what_it_is_in_the_mean(kind: str) -> None:
    draw, expected = IN_THE_MEAN[kind]
    with same_generators(), Draws(beside=[]) as draws:
        found = draw()
    assert draws.drawn
    assert draws.neutral == set(range(len(draws.drawn)))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", IN_THE_MEAN)
def test_a_draw_of_the_same_shape_is_random_and_the_same_after_others_of_other_sizes(
    kind: str,
) -> None:
    draw, expected = IN_THE_MEAN[kind]
    found = []
    for size in (5, 700):
        with same_generators(), Draws():
            torch.rand(size)
            found.append(draw())
    assert torch.equal(*found)
    assert not torch.allclose(found[0], expected)


def test_two_draws_are_not_the_same() -> None:
    with same_generators(), Draws():
        assert not torch.equal(torch.rand(4), torch.rand(4))


def test_only_the_draws_that_differ_are_neutral_and_the_other_side_follows() -> None:
    def side(width: int, draws: Draws) -> list[Tensor]:
        with same_generators(), draws:
            return [torch.rand(3), torch.randn(width), torch.rand(3)]

    first, second = Draws(), Draws()
    before = side(5, first)
    second = Draws(first.drawn)
    whole = side(7, second)
    assert second.neutral == {1}
    small = side(5, Draws(neutral=second.neutral))
    assert torch.equal(whole[0], small[0])
    assert torch.equal(before[0], small[0])
    assert torch.equal(whole[2], small[2])
    assert not whole[1].any()
    assert not small[1].any()


def test_what_draws_nothing_has_no_number() -> None:
    with Draws() as draws:
        F.dropout(SIGNED, training=False)
        F.rrelu(SIGNED)
        torch.native_dropout(SIGNED, 0.3, False)
        SIGNED.softmax(1)
    assert draws.drawn == []


def test_every_operator_of_pytorch_that_draws_is_known() -> None:
    """But for those that are taken apart, or that run on other devices only."""
    drawing = set()
    for name in dir(torch.ops.aten):
        packet = getattr(torch.ops.aten, name)
        if isinstance(packet, torch._ops.OpOverloadPacket):
            overloads = [getattr(packet, o) for o in packet.overloads()]
            tagged = [o for o in overloads if torch.Tag.nondeterministic_seeded in o.tags]
            if any(not overload._can_decompose() for overload in tagged):
                drawing.add(name)
    known = {packet.__name__ for packet in EXPECTATIONS}
    elsewhere = ("dropout", "attention", "rnn", "lstm", "gru", "functional")
    assert len(drawing & known) > 20
    assert {
        name for name in drawing - known if not any(word in name for word in elsewhere)
    } == set()
