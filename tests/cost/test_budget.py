import pickle
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs import make_graph
from lcprune.cost import Budget, CostModel
from lcprune.errors import BudgetError

BEFORE = {"macs": 2_000_000_000, "params": 1_000_003}


@pytest.mark.parametrize(
    ("asked", "limit"),
    [
        (0.5, 1_000_000_000),
        ("50%", 1_000_000_000),
        ("0.5", 1_000_000_000),
        (".25", 500_000_000),
        ("12.5 %", 250_000_000),
        (1e-5, 20_000),
        (60_000_000, 60_000_000),
        ("60000000", 60_000_000),
        ("60M", 60_000_000),
        ("1.2G", 1_200_000_000),
        ("0.5M", 500_000),
        ("300k", 300_000),
        ("6e7", 60_000_000),
    ],
)
def test_every_form_of_a_bound(asked: float | int | str, limit: int) -> None:
    assert Budget(macs=asked).limits(BEFORE) == {"macs": limit}


@pytest.mark.parametrize(
    ("asked", "limit"),
    [
        ("50%", 524_288),
        (0.25, 262_144),
        (262_144, 262_144),
        ("262144", 262_144),
        ("4096B", 4096),
        ("256KiB", 262_144),
        ("256 kB", 256_000),
        ("0.5MiB", 524_288),
        ("0.5MB", 500_000),
        ("1e-3GB", 1_000_000),
    ],
)
@pytest.mark.parametrize("name", ["weights", "activations"])
def test_every_form_of_a_bound_in_bytes(name: str, asked: float | int | str, limit: int) -> None:
    assert Budget(**{name: asked}).limits({name: 2**20}) == {name: limit}


@pytest.mark.parametrize(
    ("bound", "part"),
    [
        ("macs=60MB", "'MB', expected % or one of k, M, G, T"),
        ("macs=60KiB", "'KiB', expected % or one of k, M, G, T"),
        ("weights=60M", "'M', expected % or one of B, kB, MB, GB, KiB, MiB, GiB"),
        ("activations=256k", "'k', expected % or one of B"),
        ("activations=256kb", "'kb', expected % or one of B"),
        ("activations=much", "can't be read.*256KiB"),
    ],
)
def test_a_unit_of_another_resource_is_refused(bound: str, part: str) -> None:
    with pytest.raises(BudgetError, match=part) as caught:
        Budget.parse([bound])
    assert "\n" not in str(caught.value)


def test_a_budget_travels() -> None:
    budget = Budget(macs=0.5, activations="256KiB")
    assert pickle.loads(pickle.dumps(budget)) == budget
    assert budget.bounds == (("macs", 0.5), ("activations", "256KiB"))


@given(st.integers(1, 9999), st.integers(10_001, 10**12))
def test_fractions_are_exact_and_rounded_down(per_myriad: int, before: int) -> None:
    limit = int(Fraction(per_myriad, 10_000) * before)
    for asked in (per_myriad / 10_000, f"{per_myriad / 100:.2f}%"):
        assert Budget(macs=asked).limits({"macs": before}) == {"macs": limit}


def test_several_bounds_at_once() -> None:
    budget = Budget.parse(["macs=50%", " params = 300k "])
    assert budget == Budget(macs="50%", params="300k")
    assert budget.asked == {"macs": "50%", "params": "300k"}
    assert budget.limits(BEFORE) == {"macs": 1_000_000_000, "params": 300_000}


def test_asked_is_what_was_written() -> None:
    assert Budget(macs=0.5, params=300_000).asked == {"macs": "0.5", "params": "300000"}


@pytest.mark.parametrize(
    "value",
    [
        *(
            "0%",
            "100%",
            "250%",
            "-1",
            "-50%",
            "abc",
            "",
            "1.5",
            "5X",
            "%",
            "1,5M",
            "nan",
            "0",
            "1.0",
        ),
        *(0, 0.0, 1.0, 2.5, -1, -0.5, float("nan"), float("inf"), True),
    ],
)
def test_an_unreadable_or_senseless_bound_is_refused_in_one_line(value: float | int | str) -> None:
    with pytest.raises(BudgetError, match="expected") as caught:
        Budget(macs=value)
    assert "macs=" in str(caught.value)
    assert "\n" not in str(caught.value)
    if isinstance(value, str):
        with pytest.raises(BudgetError):
            Budget.parse([f"macs={value}"])


@pytest.mark.parametrize(
    ("bounds", "part"),
    [
        (["latte=50%"], "'latte'.*macs, params"),
        (["50%"], "NAME=BOUND"),
        (["macs=50%", "macs=60M"], "two bounds on macs"),
        ([], "empty budget"),
    ],
)
def test_a_command_line_that_makes_no_budget(bounds: list[str], part: str) -> None:
    with pytest.raises(BudgetError, match=part):
        Budget.parse(bounds)


@pytest.mark.parametrize("value", ["2G", "3G", 2_000_000_000])
def test_a_bound_that_is_met_already_is_refused(value: int | str) -> None:
    with pytest.raises(BudgetError, match=r"nothing to prune.*2,000,000,000"):
        Budget(macs=value).limits(BEFORE)


def test_of_several_bounds_one_that_is_met_already_is_named_with_its_unit() -> None:
    before = {"macs": 2_000, "activations": 196_608}
    met = r"activations=256KiB .* has 196,608 B of activations, .* below that or none on it"
    with pytest.raises(BudgetError, match=met):
        Budget(macs=0.5, activations="256KiB").limits(before)
    with pytest.raises(BudgetError, match=r"below that$"):
        Budget(activations="256KiB").limits(before)


HUGE = 10**5000
WRONG: list[Any] = [
    HUGE, -HUGE, 2**64, True, False, [], [0.5], {}, object(), b"50%", 1j, float("nan"),
    float("inf"),
    "1e999999999", "1e-999999999", "1e99999999999%", "0." + "1" * 100_000, "9" * 5000, "٥٠%", "½",
    "", " ", "%", "50%%", "-50%", "+50%", "0x10", "1_000", "nan", "inf", "\x1b[2J", "50\n%\n5",
]  # fmt: skip


@pytest.mark.parametrize("value", WRONG, ids=range(len(WRONG)))
@pytest.mark.parametrize("name", ["macs", "weights"])
def test_what_is_no_bound_is_one_line_at_once(name: str, value: Any) -> None:
    with pytest.raises(BudgetError) as caught:
        Budget(**{name: value})
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("bounds", ["macs", [3], [None], [["macs=50%"]], [b"macs=50%"], ["=", ""]])
def test_what_is_no_list_of_bounds_is_refused(bounds: Any) -> None:
    with pytest.raises(BudgetError, match="expected"):
        Budget.parse(bounds)


def test_numbers_of_numpy_are_bounds() -> None:
    assert Budget(macs=np.float32(0.5)).limits({"macs": 100}) == {"macs": 50}  # type: ignore[arg-type]
    assert Budget(macs=np.int64(5)).limits({"macs": 100}) == {"macs": 5}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "limit"),
    [
        ("5ms", 5_000_000),
        ("800us", 800_000),
        ("0.5 ms", 500_000),
        ("2e-3s", 2_000_000),
        ("999ns", 999),
        ("60%", 6_000_000),
        (0.25, 2_500_000),
        ("1.0005us", 1000),
    ],
)
def test_every_form_of_a_bound_in_seconds(asked: float | str, limit: int) -> None:
    assert Budget(latency=asked).limits({"latency": 10_000_000}) == {"latency": limit}


@pytest.mark.parametrize("asked", ["5", 5, "5mJ", "5m", "5KiB", "5M", "5min", "5MS", "0ms", "100%"])
def test_a_latency_always_has_a_unit_of_time(asked: int | str) -> None:
    with pytest.raises(BudgetError, match=r"\bms\b|5ms") as caught:
        Budget(latency=asked)
    assert "\n" not in str(caught.value)
    with pytest.raises(BudgetError):
        Budget(macs="5ms")


def test_a_latency_that_is_met_already_is_told_in_its_unit() -> None:
    with pytest.raises(BudgetError, match="1,000,000 ns of latency"):
        Budget(latency="5ms").limits({"latency": 1_000_000})


def test_latency_without_a_table_is_told() -> None:
    with pytest.raises(BudgetError, match=r"needs a table .*lcprune\.measure .*--engine"):
        CostModel(make_graph([2], [[0, 1]]), ["latency"])
