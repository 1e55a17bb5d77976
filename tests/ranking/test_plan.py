"""A plan is read back unchanged, and nothing that can't be one is taken for one."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcprune.errors import InputError
from lcprune.ranking import AttributeEdit, Plan

PLAN = Plan(
    kept={("a.weight", 0): (0, 2, 5), ("a.bias", 0): (0, 2, 5), ("b.weight", 1): (1,)},
    attributes=(AttributeEdit("a", "out_channels", None, 3), AttributeEdit("", "sizes", 1, 0)),
    criterion="l2",
    compensation="additive",
    latent={"a": (0.5, -1e30), "b": ()},
    cost={"macs": 7, "params": 0},
    network="0" * 64,
    result="af" * 32,
    free_outputs=("", "1.state"),
)
NAMES = st.text(max_size=8)
INDICES = st.sets(st.integers(0, 2**63 - 1), min_size=1).map(lambda s: tuple(sorted(s)))
EDITS = st.builds(
    AttributeEdit,
    NAMES,
    st.from_regex("[a-z][a-z_]{0,8}", fullmatch=True),
    st.none() | st.integers(0, 9),
    st.integers(0, 99),
)
PLANS = st.builds(
    Plan,
    kept=st.dictionaries(st.tuples(NAMES, st.integers(0, 63)), INDICES),
    attributes=st.lists(EDITS, unique_by=lambda e: (e.module, e.name, e.index)).map(tuple),
    criterion=st.none() | NAMES,
    compensation=st.none() | NAMES,
    latent=st.dictionaries(
        NAMES, st.lists(st.floats(allow_nan=False, allow_infinity=False)).map(tuple)
    ),
    cost=st.dictionaries(NAMES, st.integers(0, 2**63 - 1)),
    network=st.just("") | st.from_regex("[0-9a-f]{64}", fullmatch=True),
    result=st.just("") | st.from_regex("[0-9a-f]{64}", fullmatch=True),
    free_outputs=st.lists(NAMES).map(tuple),
)


@settings(max_examples=100)
@given(plan=PLANS)
def test_a_plan_comes_back_unchanged(plan: Plan) -> None:
    back = Plan.from_json(plan.to_json())
    assert back == plan
    assert back.digest == plan.digest


def test_the_digest_is_of_what_is_kept() -> None:
    assert PLAN.digest == Plan(PLAN.kept).digest
    assert PLAN.digest == Plan(dict(reversed(PLAN.kept.items())), network="1" * 64).digest
    text = b'[["a.bias", 0, [0, 2, 5]], ["a.weight", 0, [0, 2, 5]], ["b.weight", 1, [1]]]'
    assert PLAN.digest == hashlib.sha256(text).hexdigest()  # compared with older searches


def test_a_plan_of_before_there_was_a_network_is_read() -> None:
    raw = json.loads(PLAN.to_json())
    for key in ("network", "result", "free_outputs"):
        del raw[key]
    assert Plan.from_json(json.dumps(raw)).network == ""


def test_indices_may_come_as_any_sequence_of_integers() -> None:
    for given_ in ([0, 2], (np.int64(0), np.int32(2)), range(0, 3, 2)):
        plan = Plan({("a", 0): given_})  # type: ignore[dict-item]
        assert plan.kept == {("a", 0): (0, 2)}
        assert [type(index) for index in plan.kept["a", 0]] == [int, int]


HUGE = 10**400
WRONG_INDICES: list[Any] = [
    (), [], None, 0, "01", b"01", {0: 1}, {0, 1}, (-1, 0), (0, 0), (0, 1, 1), (0.0,),
    (True,), (False, True), ("0",), (None,), ((0,),), (HUGE,), (2**63,), (-HUGE,), (float("nan"),),
    (0, float("inf")), (np.bool_(True),), np.array([0.5]), iter([0]),
]  # fmt: skip
WRONG_KEYS: list[Any] = [
    "a", ("a",), ("a", 0, 0), ("a", -1), ("a", 64), ("a", HUGE), ("a", True), ("a", 0.0),
    ("a", None), (0, 0), (None, 0), (b"a", 0), None, 3,
]  # fmt: skip
WRONG_EDITS: list[Any] = [
    ("a", "groups", None, -1), ("a", "groups", None, True), ("a", "groups", None, 1.0),
    ("a", "groups", None, "1"), ("a", "groups", None, HUGE), ("a", "groups", None, None),
    ("a", "groups", -1, 1), ("a", "groups", True, 1), ("a", "groups", 0.0, 1),
    ("a", "groups", HUGE, 1), ("a", "__class__", None, 1), ("a", "__dict__", None, 1),
    ("a", "weight.data", None, 1), ("a", "", None, 1), ("a", "a b", None, 1),
    ("a", "\x1b[2J", None, 1), ("a", 3, None, 1), (3, "groups", None, 1), (None, "x", None, 1),
    (["a"], "x", None, 1),
]  # fmt: skip
WRONG_FIELDS: list[tuple[str, Any]] = [
    ("kept", None), ("kept", [1]), ("kept", "x"), ("attributes", None), ("attributes", []),
    ("attributes", (("a", "b", None, 1),)), ("criterion", 3), ("criterion", b"l2"),
    ("compensation", ["additive"]), ("latent", None), ("latent", [0.5]), ("latent", {"a": [0.5]}),
    ("latent", {"a": 0.5}), ("latent", {"a": (float("nan"),)}), ("latent", {"a": (float("inf"),)}),
    ("latent", {"a": (True,)}), ("latent", {"a": ("0",)}), ("latent", {3: (0.5,)}),
    ("latent", {"a": (HUGE,)}), ("cost", None), ("cost", {"macs": 1.5}), ("cost", {"macs": -1}),
    ("cost", {"macs": HUGE}), ("cost", {"macs": True}), ("cost", {3: 1}), ("cost", [1]),
    ("network", None), ("network", "x"), ("network", "0" * 63), ("network", "G" * 64),
    ("result", 3), ("result", "0" * 65), ("free_outputs", None), ("free_outputs", ["0"]),
    ("free_outputs", (0,)), ("free_outputs", "01"),
]  # fmt: skip


def refused(*args: Any, **fields: Any) -> None:
    with pytest.raises(InputError) as caught:
        Plan(*args, **fields)
    assert "expected" in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("indices", WRONG_INDICES, ids=lambda value: repr(value)[:20])
def test_indices_that_no_dimension_has_are_refused(indices: Any) -> None:
    refused({("a.weight", 0): indices})


def test_another_order_is_a_plan_and_in_a_file_damage() -> None:
    plan = Plan({("a.weight", 0): (1, 0)})
    with pytest.raises(InputError, match=r"not a plan: .*ascending"):
        Plan.from_json(plan.to_json())


@pytest.mark.parametrize("key", WRONG_KEYS, ids=lambda value: repr(value)[:20])
def test_keys_that_name_no_dimension_are_refused(key: Any) -> None:
    refused({key: (0,)})


@pytest.mark.parametrize("edit", WRONG_EDITS, ids=lambda value: repr(value)[:30])
def test_edits_that_set_no_size_are_refused(edit: tuple[Any, ...]) -> None:
    refused({}, (AttributeEdit(*edit),))


def test_an_attribute_is_set_once() -> None:
    refused({}, (AttributeEdit("a", "groups", None, 1), AttributeEdit("a", "groups", None, 2)))


@pytest.mark.parametrize(("name", "value"), WRONG_FIELDS, ids=repr)
def test_fields_of_a_wrong_type_are_refused(name: str, value: Any) -> None:
    refused(**({"kept": {}} | {name: value}))


def changed(**changes: Any) -> str:
    return json.dumps(json.loads(PLAN.to_json()) | changes)


ENTRY = {"tensor": "a", "dim": 0, "indices": [0]}
TEXTS = {
    "nothing": "",
    "null": "null",
    "a number": "3",
    "a list": "[]",
    "an object": "{}",
    "another schema": changed(schema=2),
    "a schema of true": changed(schema=True),
    "a schema of a list": changed(schema=[1]),
    "deep": "[" * 100_000,
    "deep within": changed(latent=0).replace('"latent": 0', '"latent": ' + "[" * 50_000),
    "NaN": changed(cost={"macs": float("nan")}),
    "infinity": changed(latent={"a": [float("inf")]}),
    "an overflow": changed().replace("0.5", "1e999"),
    "4,301 digits": changed().replace("0.5", "1" * 4301),
    "400 digits": changed(kept=[ENTRY | {"indices": [HUGE]}]),
    "a latent of a list": changed(latent=[0.5]),
    "a latent of a number": changed(latent={"a": 0.5}),
    "a latent of a text": changed(latent={"a": "0.5"}),
    "kept as an object": changed(kept={"a": [0]}),
    "kept without indices": changed(kept=[{"tensor": "a", "dim": 0}]),
    "indices as a text": changed(kept=[ENTRY | {"indices": "012"}]),
    "indices as an object": changed(kept=[ENTRY | {"indices": {"0": 1}}]),
    "an index of a float": changed(kept=[ENTRY | {"indices": [0.0]}]),
    "a dimension of true": changed(kept=[ENTRY | {"dim": True}]),
    "a dimension of a text": changed(kept=[ENTRY | {"dim": "0"}]),
    "a tensor of a list": changed(kept=[ENTRY | {"tensor": ["a"]}]),
    "a tensor of null": changed(kept=[ENTRY | {"tensor": None}]),
    "a dimension twice": changed(kept=[ENTRY, ENTRY | {"indices": [1]}]),
    "a key twice": PLAN.to_json().replace('"criterion"', '"kept": [], "criterion"'),
    "an attribute twice": changed(attributes=[["a", "x", None, 1], ["a", "x", None, 2]]),
    "an attribute of three": changed(attributes=[["a", "x", 1]]),
    "an attribute as a text": changed(attributes=["abcd"]),
    "attributes of a number": changed(attributes=3),
    "a network of a number": changed(network=3),
    "free outputs as a text": changed(free_outputs="01"),
    "free outputs of null": changed(free_outputs=None),
    "cost as a list": changed(cost=[["macs", 1]]),
    "escapes": changed(criterion=["\x1b[31m\n"], kept=[ENTRY | {"tensor": "\x1b[2J\n", "dim": -1}]),
    "a surrogate": changed(kept=[ENTRY | {"tensor": "\ud800", "dim": -1}]),
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=list(TEXTS))
def test_json_that_is_no_plan_is_an_error_of_one_line(text: str) -> None:
    with pytest.raises(InputError, match="not a plan: ") as caught:
        Plan.from_json(text)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("value", [None, 3, b"{}", {"schema": 1}, [PLAN.to_json()]])
def test_what_is_no_text_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="expected text"):
        Plan.from_json(value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@settings(max_examples=200)
@given(data=st.data())
def test_any_json_in_place_of_a_part_is_a_plan_or_an_error(data: st.DataObject) -> None:
    raw = json.loads(PLAN.to_json())
    place: Any = raw
    while True:  # down to a random part
        key = data.draw(
            st.sampled_from(sorted(place) if isinstance(place, dict) else [*range(len(place))])
        )
        below = place[key]
        if not isinstance(below, dict | list) or not below or data.draw(st.booleans()):
            break
        place = below
    place[key] = data.draw(JSON)
    with suppress(InputError):
        plan = Plan.from_json(json.dumps(raw))
        assert Plan.from_json(plan.to_json()) == plan
