"""Mixed samples and their labels."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lcprune.errors import InputError
from lcprune.training._mixup import Mixup

INPUTS = torch.arange(24.0, dtype=torch.float64).view(6, 2, 2)
TARGETS = torch.arange(6)  # a sample's target says where it stood


@given(concentration=st.floats(0.05, 5), seed=st.integers(0, 2**31), epoch=st.integers(0, 500))
def test_a_sample_lies_between_those_that_its_labels_name(
    concentration: float, seed: int, epoch: int
) -> None:
    mix = Mixup(concentration, seed, epoch)
    for _ in range(3):
        mixed, labels = mix(INPUTS, TARGETS)
        assert labels.others is not None
        assert torch.equal(labels.targets, TARGETS)
        assert 0 <= labels.share <= 1
        assert sorted(labels.others.tolist()) == TARGETS.tolist()
        expected = labels.share * INPUTS + (1 - labels.share) * INPUTS[labels.others]
        torch.testing.assert_close(mixed, expected)


def test_draws_depend_on_seed_and_epoch_alone() -> None:
    def draws(seed: int, epoch: int) -> list[float]:
        mix = Mixup(1.0, seed, epoch)
        return [mix(INPUTS, TARGETS)[1].share for _ in range(4)]

    before = torch.get_rng_state()
    assert draws(1, 2) == draws(1, 2)
    assert torch.equal(before, torch.get_rng_state())
    different = [draws(1, 2), draws(2, 1), draws(1, 3), draws(0, 2)]
    assert len({tuple(row) for row in different}) == 4
    assert len(set(draws(1, 2))) == 4


@pytest.mark.parametrize("concentration", [0.2, 1.0, 3.0])
def test_shares_have_the_moments_of_their_distribution(concentration: float) -> None:
    mix = Mixup(concentration, 0, 0)
    shares = torch.tensor([mix(INPUTS, TARGETS)[1].share for _ in range(2000)])
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(shares.var()) == pytest.approx(0.25 / (2 * concentration + 1), rel=0.1)


@given(concentration=st.sampled_from([0.0, 0.5]), cut=st.integers(0, 6))
def test_parts_of_a_batch_are_mixed_as_the_whole(concentration: float, cut: int) -> None:
    whole, labels = Mixup(concentration, 1, 2)(INPUTS, TARGETS)
    parts = [
        Mixup(concentration, 1, 2)(INPUTS, TARGETS, part) for part in (slice(0, cut), slice(cut, 6))
    ]
    assert torch.equal(torch.cat([inputs for inputs, _ in parts]), whole)
    for name in ("targets", "others"):
        expected = getattr(labels, name)
        if expected is not None:
            assert torch.equal(torch.cat([getattr(own, name) for _, own in parts]), expected)


def test_without_a_concentration_nothing_is_mixed() -> None:
    inputs, labels = Mixup(0.0, 0, 0)(INPUTS, TARGETS)
    assert torch.equal(inputs, INPUTS)
    assert torch.equal(labels.targets, TARGETS)
    assert labels.others is None


def test_inputs_that_have_no_mean_are_refused() -> None:
    with pytest.raises(InputError, match=r"mixup .* got torch\.int64"):
        Mixup(0.2, 0, 0)(TARGETS, TARGETS)
