"""Configurations and their schedules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcprune.errors import InputError
from lcprune.training import TrainingConfig


@pytest.mark.parametrize("schedule", ["cosine", "one-cycle"])
def test_the_rate_peaks_and_ends_at_zero(schedule: str) -> None:
    config = TrainingConfig(learning_rate=0.4, schedule=schedule)  # type: ignore[arg-type]
    rates = [config.learning_rate_at(step / 1000) for step in range(1001)]
    assert max(rates) == pytest.approx(0.4)
    assert rates[-1] == pytest.approx(0, abs=1e-12)
    assert rates[0] == (0.4 if schedule == "cosine" else 0)
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


@given(progress=st.floats(0, 1), rate=st.floats(1e-6, 10))
def test_the_rate_is_proportional_to_its_peak(progress: float, rate: float) -> None:
    one = TrainingConfig(learning_rate=1.0).learning_rate_at(progress)
    assert TrainingConfig(learning_rate=rate).learning_rate_at(progress) == pytest.approx(
        rate * one
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", -1),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("momentum", 1.0),
        ("momentum", 0.0),
        ("weight_decay", -1e-4),
        ("schedule", "linear"),
        ("temperature", 0.0),
        ("alpha", 1.5),
        ("clip", 0.0),
        ("label_smoothing", 1.0),
        ("label_smoothing", -0.1),
        ("mixup", -0.2),
        ("mixup", float("inf")),
        ("ema", 1.0),
        ("ema", -0.5),
        ("dtype", "float16"),
    ],
)
def test_values_out_of_range_are_named(name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"^{name} is "):
        TrainingConfig(**{name: value})  # type: ignore[arg-type]
