"""Types and ranges of what public functions are given."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lcprune import _checks
from lcprune.errors import BudgetError, InputError


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_integers_of_all_kinds_are_taken(value: Any) -> None:
    assert type(_checks.integer("trials", value, least=1)) is int


@pytest.mark.parametrize(
    "value",
    [
        0,
        -1,
        2**63,
        pytest.param(10**5000, id="5001 digits"),
        True,
        1.0,
        "3",
        None,
        np.bool_(True),
        torch.tensor(3),
        [3],
    ],
)
def test_what_is_no_integer_or_out_of_range_is_told(value: Any) -> None:
    large = isinstance(value, int) and abs(value) >= 2**63
    bits = " within 64 bits" if large else ""
    with pytest.raises(
        InputError, match=rf"^trials is .+, expected an integer of at least 1{bits}$"
    ):
        _checks.integer("trials", value, least=1)


@pytest.mark.parametrize("value", [0.5, 0, 1, np.float32(0.5), Fraction(1, 3)])
def test_numbers_of_all_kinds_are_taken(value: Any) -> None:
    assert _checks.number("share", value, least=0, most=1) == float(value)


@pytest.mark.parametrize(
    "value",
    [-0.1, 1.1, math.nan, math.inf, 10**400, True, "0.5", None, 1j, np.float64("nan"), {}],
)
def test_what_is_no_number_or_out_of_range_is_told(value: Any) -> None:
    with pytest.raises(InputError, match=r"^share is .+, expected a finite number from 0 to 1$"):
        _checks.number("share", value, least=0, most=1)


def test_an_open_bound_is_not_reached() -> None:
    assert _checks.number("rate", 1e-9, more_than=0) == 1e-9
    with pytest.raises(InputError, match=r"^rate is 0\.0, expected a finite number more than 0$"):
        _checks.number("rate", 0.0, more_than=0)
    with pytest.raises(InputError, match="less than 1"):
        _checks.number("decay", 1, less_than=1)


@pytest.mark.parametrize(
    "check",
    [
        lambda: _checks.integer("n", "x", error=BudgetError),
        lambda: _checks.number("n", "x", error=BudgetError),
        lambda: _checks.choice("n", "x", ["y"], error=BudgetError),
        lambda: _checks.path("n", 3, error=BudgetError),
        lambda: _checks.function("n", 3, error=BudgetError),
        lambda: _checks.instance("n", 3, str, error=BudgetError),
    ],
)
def test_the_class_of_the_error_is_the_callers(check: Callable[[], Any]) -> None:
    with pytest.raises(BudgetError, match=r"^n is "):
        check()


def test_an_instance_is_of_a_kind() -> None:
    net = torch.nn.ReLU()
    assert _checks.instance("model", net, torch.nn.Module) is net
    with pytest.raises(InputError, match=r"^model is a Tensor, expected a torch\.nn\.Module$"):
        _checks.instance("model", torch.ones(10**6), torch.nn.Module, "a torch.nn.Module")
    with pytest.raises(InputError, match=r"^model is the class Linear, expected Module or Tensor$"):
        _checks.instance("model", torch.nn.Linear, (torch.nn.Module, torch.Tensor))


class _OwnPath(os.PathLike[Any]):
    def __init__(self, value: str | bytes) -> None:
        self._value = value

    def __fspath__(self) -> Any:
        return self._value


def test_a_path_is_text_or_like_a_path() -> None:
    for given in ("a/b", Path("a/b"), _OwnPath("a/b")):
        assert _checks.path("journal", given) == Path("a/b")
    assert _checks.path("journal", "~") == Path.home()


@pytest.mark.parametrize(
    "value", [3, None, b"a", _OwnPath(b"a"), "", "a\0b", "~nosuchuser/x", ["a"]]
)
def test_what_is_no_path_is_told(value: Any) -> None:
    with pytest.raises(InputError, match=r"^journal is .+, expected a path") as caught:
        _checks.path("journal", value)
    assert str(caught.value).isprintable()


def test_a_choice_is_one_of_the_names() -> None:
    assert _checks.choice("reduction", "sum", ["sum", "mean"]) == "sum"
    for value in ("max", 3, None, ["sum"]):
        with pytest.raises(InputError, match=r"^reduction is .+, expected one of sum, mean$"):
            _checks.choice("reduction", value, ["sum", "mean"])


def test_a_function_can_be_called() -> None:
    assert _checks.function("fitness", len) is len
    with pytest.raises(InputError, match=r"^fitness is 3, expected a function$"):
        _checks.function("fitness", 3)


@dataclass(frozen=True)
class Part:
    name: str
    share: float
    count: int | None = None


@dataclass(frozen=True)
class Whole:
    parts: tuple[Part, ...]
    by_name: Mapping[str, Part]
    flag: bool
    rest: Any = None
    either: int | str = 1


def whole(**changes: Any) -> dict[str, Any]:
    part = {"name": "a", "share": 1, "count": 3}
    return {"parts": [part], "by_name": {"a": part}, "flag": True, **changes}


def test_json_becomes_what_a_dataclass_says() -> None:
    part = Part("a", 1.0, 3)
    assert _checks.of_type("it", whole(rest=[1]), Whole) == Whole((part,), {"a": part}, True, [1])
    assert _checks.of_type("it", whole(parts=[]), Whole).parts == ()
    assert _checks.of_type("it", whole(either="auto"), Whole).either == "auto"
    assert _checks.of_type("it", whole(either=8), Whole).either == 8
    json_text = json.dumps(asdict(Whole((part,), {"a": part}, False)))
    assert _checks.of_type("it", json.loads(json_text), Whole).parts == (part,)


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (None, "it is None, expected an object"),
        ([], "it is a list of 0, expected an object"),
        ({}, "it.parts is missing"),
        (whole(extra=1), "it.extra is unknown, expected parts, by_name, flag, rest, either"),
        (whole(flag=1), "it.flag is 1, expected true or false"),
        (whole(either=0.5), "it.either is 0.5, expected an integer or text"),
        (whole(either=None), "it.either is None, expected an integer or text"),
        (whole(parts={}), "it.parts is a dict of 0, expected a list"),
        (whole(parts=["x"]), "it.parts[0] is 'x', expected an object"),
        (whole(parts=[{"name": 3, "share": 1}]), "it.parts[0].name is 3, expected text"),
        (whole(parts=[{"name": "a", "share": math.nan}]), "it.parts[0].share is nan, expected"),
        (whole(by_name=[]), "it.by_name is a list of 0, expected an object"),
        (whole(by_name={"\x1b": {"name": "a", "share": "x"}}), r"it.by_name.\x1b.share is 'x'"),
        (whole(by_name={"b": {"name": "a", "share": 0, "count": 2**63}}), "it.by_name.b.count is"),
        (whole(by_name={"b": {"name": "a", "share": 10**400}}), "it.by_name.b.share is an int"),
    ],
)  # fmt: skip
def test_json_of_another_shape_is_told(raw: Any, told: str) -> None:
    with pytest.raises(BudgetError) as caught:
        _checks.of_type("it", raw, Whole, BudgetError)
    assert str(caught.value).startswith(told)
