"""The stored plans of the studies: a row and the base network give the same plan again."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

import plans
import runner
from lcprune.errors import VerificationError
from plans import BASES, Planner, load_base, method, row_of

ROWS = list(runner.rows("plans"))
CONTROLS = ("none", "uniform")


@pytest.fixture(scope="module")
def planner() -> Planner:
    return Planner(load_base("cifar_resnet20", BASES["53f40250"]))


def test_every_row_gives_its_plan_again(planner: Planner) -> None:
    assert len(ROWS) >= 52
    for row in ROWS:
        plan = planner.plan(row)
        assert row["base"] == planner.base.digest
        assert plan.digest == row["digest"]
        assert plan.cost["macs"] <= row["budget"] * planner.ranker(row["budget"]).before["macs"]


def test_a_row_is_what_it_was_made_of(planner: Planner) -> None:
    for row in ROWS:
        more = {key: row[key] for key in ("study", "strategy", "seed", "trials")}
        if "origin" in row:
            more["origin"] = row["origin"]
        assert row_of(planner.base, row["budget"], planner.plan(row), **more) == row


def test_another_digest_is_refused(planner: Planner) -> None:
    with pytest.raises(VerificationError, match=r"plan .*, expected 0000"):
        planner.plan(ROWS[0] | {"digest": "0" * 64})


def test_the_plans_of_the_studies_have_rows() -> None:
    studied = {row["plan"] for row in runner.rows("fitness_study")}
    assert studied <= {row["digest"] for row in plans.rows("fitness")}
    found = {(method(row), row["seed"], row["digest"]) for row in plans.rows("search")}
    for row in runner.rows("trained"):
        if row["base"] in BASES and row["method"] not in CONTROLS:
            assert (row["method"], row["seed"], row["plan"]) in found
