"""The fuzzer sees what it is to see, and a few of its tries fail nowhere."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

import fuzz
from fuzzing import hostile, sealed
from fuzzing.tries import Ground, Outcome, Try, judged, run, snapshot
from lcprune._files import read_sealed_json, sealed_json
from lcprune.errors import InputError

COMMAND = Try("a try", ("inspect", "x"))
CALL = Try("a try", call=lambda: None)
REFUSED = Outcome(2, "", "error: x\n", 0.1, {})
TRACEBACK = """Traceback (most recent call last):
  File "/a/lcprune/cli/_app.py", line 3, in main
ValueError: no
"""


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


def kinds(one: Try, outcome: Outcome, ground: Ground) -> list[str]:
    before = snapshot(ground.sandbox)
    return [failure.kind for failure in judged(one, outcome, ground, before)]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"code": 0, "err": ""}, []),
        ({"code": 130, "err": "interrupted; nothing was written\n"}, []),
        ({"err": "warning: y\nerror: x\n"}, []),
        ({"code": 1, "err": TRACEBACK}, ["traceback"]),
        ({"err": TRACEBACK + "error: x\n"}, ["traceback"]),
        ({"code": 0, "err": "Exception ignored in: <x>\n"}, ["traceback"]),
        ({"err": "error: x\nerror: y\n"}, ["exit code"]),
        ({"err": ""}, ["exit code"]),
        ({"code": 7, "err": ""}, ["exit code"]),
        ({"code": -11}, ["crash"]),
        ({"code": None}, ["hang"]),
        ({"err": "x.py:3: UserWarning: y\nerror: x\n"}, ["noise"]),
        ({"err": "error: \x1b[31mx\n"}, ["escapes"]),
        ({"out": "a\u202eb"}, ["escapes"]),
    ],
)
def test_how_a_command_ends(change: dict[str, object], expected: list[str], ground: Ground) -> None:
    assert kinds(COMMAND, replace(REFUSED, **change), ground) == expected  # type: ignore[arg-type]


def test_success_where_the_input_is_bad(ground: Ground) -> None:
    assert kinds(replace(COMMAND, bad=True), Outcome(0, "", "", 0.1, {}), ground) == ["accepted"]
    assert kinds(replace(COMMAND, bad=True), REFUSED, ground) == []


def test_what_is_lost_or_touched(ground: Ground) -> None:
    kept = ground.sandbox / "plan.json"
    kept.write_text("x")
    before = snapshot(ground.sandbox)
    assert judged(COMMAND, REFUSED, ground, before) == []
    kept.write_text("y")
    assert [f.kind for f in judged(COMMAND, REFUSED, ground, before)] == ["lost"]
    kept.unlink()
    assert [f.kind for f in judged(COMMAND, REFUSED, ground, before)] == ["lost"]
    ground.precious.write_text("x")
    assert kinds(COMMAND, REFUSED, ground) == ["outside touched"]
    assert kinds(COMMAND, REFUSED, ground) == []  # it was restored
    exec(ground.evil(), {})
    assert kinds(COMMAND, REFUSED, ground) == ["executed"]


def test_how_a_call_ends(ground: Ground) -> None:
    def refuses() -> None:
        raise InputError("x")

    def raises() -> None:
        raise KeyError("x")

    expected = {refuses: [], raises: ["foreign exception"]}
    for call, found in expected.items():
        one = replace(CALL, call=call)
        assert kinds(one, run(one, ground), ground) == found
    assert kinds(CALL, run(CALL, ground), ground) == []
    gone = replace(CALL, call=lambda: os._exit(3))
    assert kinds(gone, run(gone, ground), ground) == ["exit code"]
    two = Outcome(0, "", "", 0.1, {"outcome": "refused", "type": "InputError", "message": "x\ny"})
    assert kinds(CALL, two, ground) == ["several lines"]


def test_a_hang_is_ended(ground: Ground) -> None:
    one = replace(CALL, call=lambda: time.sleep(60))
    began = time.monotonic()
    outcome = run(one, ground, limit=0.3)
    assert outcome.code is None
    assert time.monotonic() - began < 30


def test_what_is_sealed_again_is_read(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(sealed_json({"a": {"b": [1, 2]}}))
    values = sealed.read_json(path)
    values["a"]["b"][0] = -1
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match="checksum"):
        read_sealed_json(path)
    sealed.seal_json(path, values)
    assert read_sealed_json(path)["a"] == {"b": [-1, 2]}


def test_damage_is_the_same_for_the_same_seed() -> None:
    content = bytes(range(256))
    one, other = (
        [hostile.bytes_of(chance, content) for _ in range(50)]
        for chance in (random.Random(1), random.Random(1))
    )
    assert one == other
    assert len({how for how, _ in one}) > 8


MARKS = {"TOML": ()}
"""The others are thorough."""


@pytest.mark.parametrize(
    "surface",
    [pytest.param(s, marks=MARKS.get(s, pytest.mark.thorough)) for s in fuzz.SURFACES],
)
def test_some_tries_fail_nowhere(surface: str, tmp_path: Path) -> None:
    script = Path(fuzz.__file__)
    ended = subprocess.run(
        [
            sys.executable,
            script,
            "--surfaces",
            surface,
            "--share",
            "0.02",
            "--seed",
            "1",
            "--no-row",
        ],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    rows = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    assert len(rows) == 1, ended.stderr
    assert rows[0]["tries"] >= 10
    failures = tmp_path / "runs" / "fuzz"
    assert ended.returncode == 0, [p.read_text() for p in failures.rglob("failures.md")]
