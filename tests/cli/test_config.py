from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcprune.cli._parser import COMMANDS, Command, parse
from lcprune.errors import InputError
from lcprune.runs import (
    Options,
    PruneOptions,
    RunOptions,
    TrainOptions,
    option,
    options_of,
    resolve,
)
from lcprune.training import TrainingConfig

NEEDED: dict[str, Any] = {"model": "m", "data": "d", "budget": ("macs=50%",)}


def file_with(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(text)
    return path


def test_the_command_line_is_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    file = file_with(tmp_path, 'seed = 1\ntrials = 7\nmodel = "a"\nfinetune-epochs = 3\n')
    config = resolve(PruneOptions, {**NEEDED, "trials": 9, "criterion": None}, file=file)
    assert (config.seed, config.trials, config.model) == (1, 9, "m")
    assert config.finetune_epochs == 3
    assert config.criterion == PruneOptions.criterion
    assert config.learning_rate == PruneOptions.learning_rate


def test_stored_values_are_the_defaults_of_a_resumed_run() -> None:
    stored = resolve(PruneOptions, {**NEEDED, "seed": 4, "crop": 2, "flip": False})
    assert resolve(PruneOptions, {}, defaults=json.loads(json.dumps(stored.as_json()))) == stored
    assert resolve(PruneOptions, {"seed": 5}, defaults=stored.as_json()).seed == 5


@pytest.mark.parametrize(
    "text",
    [
        'budget = "macs=50%"',
        'budget = ["macs=50%"]',
        '[budget]\nmacs = "50%"',
    ],
)
def test_ways_to_write_a_budget_in_a_file(tmp_path: Path, text: str) -> None:
    file = file_with(tmp_path, f'model = "m"\ndata = "d"\n{text}\n')
    assert resolve(PruneOptions, {}, file=file).budget == ("macs=50%",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trails = 3", "'trails'.*trials"),
        ("zzz = 3", "unknown key 'zzz'"),
        ("trials = 'many'", "expected an integer"),
        ("trials = 3.5", "expected an integer"),
        ("trials = true", "expected an integer"),
        ("distill = 1", "expected true or false"),
        ("seed = ['0']", "expected an integer"),
        ("model = 3", "expected text"),
        ("budget = 0.5", "macs=50%"),
        ("budget = [0.5]", "macs=50%"),
        ("only = 3", "only = 3: expected text such as 'layer1"),
        ("skip = [1]", "skip = .*layer1"),
        ("skip_types = true", "skip_types = True: expected text such as 'Linear'"),
        ("[skip]\nlayer1 = true", "skip = .*layer1"),
        ("min_keep = 'most'", "min_keep = 'most': expected a number"),
        ("round_to = 8.0", "round_to = 8.0: expected an integer"),
        ("round-too = 8", "'round_too'.*round_to"),
        ("learning_rate = 'fast'", "expected more than 0 and at most 1000, or auto"),
        ("trials = ", "not TOML"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    rest = {key: value for key, value in NEEDED.items() if not text.startswith(key)}
    with pytest.raises(InputError, match=message) as caught:
        resolve(PruneOptions, rest, file=file_with(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_absent_or_binary(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.toml"):
        resolve(PruneOptions, NEEDED, file=tmp_path / "nowhere.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not TOML"):
        resolve(PruneOptions, NEEDED, file=tmp_path / "binary.toml")


# Every option, whatever way its value comes. The types and bounds that its field names are looked
# at here by other means than those of the code under test.

KINDS: tuple[type[Options], ...] = (PruneOptions, TrainOptions)
NEEDS = {PruneOptions: NEEDED, TrainOptions: {"model": "m", "data": "d"}}
OPTIONS = [(kind, key) for kind in KINDS for key in options_of(kind)]
SAMPLES: list[Any] = [
    *(True, -1, 0, 1, 2, 3, 128, 2**63 - 1, 2**63, -(2**70)),
    *(-0.5, 0.0, 5e-4, 0.5, 1.0, 1.5, 1e12, float("nan"), float("inf")),
    *("", "auto", "ray", "cosine", "bfloat16", "text", ["a"], ["a", "b"], [], [1]),
]


def fits(kind: type[Options], key: str, value: Any) -> bool:
    """Whether an option should take a value, by the annotation and the bounds of its field."""
    hint = str(get_type_hints(kind)[key]).removeprefix("<class '").removesuffix("'>")
    details = options_of(kind)[key].details
    if hint == "tuple[str, ...]":
        texts = [value] if isinstance(value, str) else value
        fine = isinstance(texts, list) and all(isinstance(text, str) for text in texts)
        return fine and (bool(texts) or key != "budget")
    if isinstance(value, bool):
        return hint.startswith("bool")
    if isinstance(value, str):
        words = [*details.choices, *(word for word in details.also if isinstance(word, str))]
        return "str" in hint and (value in words if words else bool(value) or key not in NEEDED)
    if not isinstance(value, int | float) or not hint.startswith(("int", "float")):
        return False
    if hint.startswith("int") and not isinstance(value, int):
        return False
    low = details.at_least if details.more_than is None else math.nextafter(details.more_than, 9)
    high = details.at_most if details.less_than is None else math.nextafter(details.less_than, 0)
    low, high = -1e300 if low is None else low, 1e300 if high is None else high
    if hint.startswith("int"):
        high = min(high, 2**63 - 1)
    return value in details.also or low <= value <= high


def outcome(make: Callable[[], Any]) -> object:
    """The value that an option ends with, or the class of the error."""
    try:
        return make()
    except InputError as error:
        return type(error) if "\n" not in str(error) else error


def typed(kind: type[Options], key: str, value: Any) -> Any:
    """What an option becomes that is given on a command line."""
    names = options_of(kind)[key].names
    values = value if isinstance(value, list) else [value]
    line = [str(value)] if not names else [f"{names[0]}={item}" for item in values]
    if isinstance(value, bool):
        line = [names[0] if value else names[-1]]
    asked = parse(["prune" if kind is PruneOptions else "train", "--out", "o", *line])
    assert asked is not None
    return getattr(resolve(kind, asked.of(kind), defaults={**NEEDS[kind]}), key)


def toml(value: Any) -> str:
    """TOML and JSON write these values alike."""
    return str(value) if isinstance(value, float) else json.dumps(value)


@pytest.mark.parametrize(("kind", "key"), OPTIONS, ids=lambda v: getattr(v, "__name__", v))
def test_a_value_is_taken_or_refused_alike_whatever_way_it_comes(
    tmp_path: Path, kind: type[Options], key: str
) -> None:
    known, rest = options_of(kind)[key], {k: v for k, v in NEEDS[kind].items() if k != key}
    refused: list[str] = []
    for value in SAMPLES:
        found = outcome(lambda: getattr(kind(**{**rest, key: value}), key))  # noqa: B023
        assert (found is not InputError) == fits(kind, key, value), (value, found)
        file = file_with(tmp_path, f"{key.replace('_', '-')} = {toml(value)}\n")
        assert outcome(lambda: getattr(resolve(kind, rest, file=file), key)) == found, value  # noqa: B023
        if bool in known.types or isinstance(value, bool | list):
            continue  # such a value is not a text on a command line
        if {int, float} & known.types and not isinstance(value, str):
            assert outcome(lambda: known.parse(str(value))) == found, value  # noqa: B023
        if isinstance(value, str):
            assert outcome(lambda: known.parse(value)) == found, value  # noqa: B023
            refused += [value] if value and found is InputError else []
    # And from a line that is typed, with a good value and a bad one.
    good = next(
        v for v in (known.default, "text", True, 3, *known.details.choices) if fits(kind, key, v)
    )
    assert typed(kind, key, good) == ((good,) if tuple in known.types else good)
    if refused:
        assert outcome(lambda: typed(kind, key, refused[0])) is InputError


@pytest.mark.parametrize(("kind", "key"), OPTIONS, ids=lambda v: getattr(v, "__name__", v))
def test_every_option_is_explained(kind: type[Options], key: str) -> None:
    known = options_of(kind)[key]
    assert known.details.help.endswith(".")
    assert known.title
    if not known.required:
        assert known.check(known.default) == known.default
        assert known.shown_default or known.default == ()
    for value in known.details.also:
        assert str(value) in known.details.range


@pytest.mark.parametrize(("kind", "key"), OPTIONS, ids=lambda v: getattr(v, "__name__", v))
def test_every_number_has_bounds_on_both_sides(kind: type[Options], key: str) -> None:
    known = options_of(kind)[key]
    if {int, float} & known.types and key != "seed":
        names = {name for name, _ in known.details.bounds}
        assert names & {"at_least", "more_than"}
        assert names & {"at_most", "less_than"}
        for value in (1e300, 10**400, 2**62):
            assert outcome(lambda: known.check(value)) is InputError  # noqa: B023


HUGE = "9" * 400


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"trials = {HUGE}", "trials = an integer of 1329 bits: expected an integer of at most"),
        (f"trials = 0x{'f' * 8000}", "trials = an integer of 32000 bits"),
        ("trials = " + "9" * 5000, "not TOML"),
        ("trials = 1979-05-27", "trials = a date: expected an integer"),
        ("learning_rate = 1e400", "expected a finite number"),
        ("learning_rate = nan", "expected a finite number"),
        (f"learning_rate = {HUGE}", "learning_rate"),
        ("weight_decay = 1e300", r"weight_decay = 1e\+300: expected at least 0 and at most 1000"),
        ("temperature = 1e-300", "temperature"),
        ("skip = " + "[" * 5000 + "]" * 5000, "nested too deep"),
        ("skip = " + "{a=" * 200 + "1" + "}" * 200, "skip = a dict of 1: expected text"),
        (f"model = '{'x' * 40000}'", "expected at most 32768 bytes"),
        ("'\\u001b[31m' = 3", "unknown key"),
        ('"\\u001b[31m\\n" = 3', "unknown key"),
        (f"{'x' * 3000} = 3", "unknown key 'xxx"),
        ("model = 'a'\nmodel = 'b'", "not TOML"),
        ("\x00", "not TOML"),
        ("debug = true", "unknown key"),
        ("out = 'elsewhere'", "unknown key"),
        ("resume = true", "unknown key"),
        ("trust_factory = true", "unknown key"),
    ],
    ids=lambda text: text[:20],
)
def test_a_hostile_file_is_one_line(tmp_path: Path, content: str, message: str) -> None:
    rest = {key: value for key, value in NEEDED.items() if not content.startswith(key)}
    with pytest.raises(InputError, match=message) as caught:
        resolve(PruneOptions, rest, file=file_with(tmp_path, content))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 2500


def test_a_file_may_begin_with_a_mark_of_its_encoding(tmp_path: Path) -> None:
    file = file_with(tmp_path, "\ufefftrials = 7\n")
    assert resolve(PruneOptions, NEEDED, file=file).trials == 7


@pytest.mark.parametrize("name", ["pipe", "directory", "device", "x" * 300])
def test_a_file_that_is_none_is_not_waited_for(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "pipe":
        if not hasattr(os, "mkfifo"):
            pytest.skip("no pipes here")
        os.mkfifo(path)
    elif name == "directory":
        path.mkdir()
    elif name == "device":
        path.symlink_to("/dev/zero")
    with pytest.raises(InputError, match="can't read"):
        resolve(PruneOptions, NEEDED, file=path)


@pytest.mark.parametrize("path", ["", "a\0b", "~nosuchuser/x", 3, True, ["a"]])
def test_what_is_no_path_is_told(path: Any) -> None:
    with pytest.raises(InputError, match=r"^out .*expected a path"):
        RunOptions.of({"out": path})


def test_the_defaults_are_those_of_training() -> None:
    theirs = TrainingConfig()
    for key in ("learning_rate", "weight_decay", "schedule", "temperature", "mixup", "seed"):
        assert getattr(PruneOptions, key) == getattr(theirs, key)
    assert PruneOptions.finetune_epochs == theirs.epochs
    assert PruneOptions.distill_weight == theirs.alpha
    assert PruneOptions.label_smoothing == theirs.label_smoothing
    assert PruneOptions.ema == (theirs.ema or 0)
    assert PruneOptions.clip == (theirs.clip or 0)


def test_what_must_be_given_is_asked_for() -> None:
    for key, needed in NEEDED.items():
        rest = {name: value for name, value in NEEDED.items() if name != key}
        for values in (rest, {**rest, key: type(needed)()}):
            with pytest.raises(InputError, match=f"no {key} given, expected for example "):
                resolve(PruneOptions, values)


@dataclass(frozen=True, kw_only=True)
class Sharper(PruneOptions):
    """With one option more: this field is all that is written for it."""

    sharpness: float = option(0.25, "How sharp.", at_least=0, less_than=1)


def test_an_option_is_added_in_one_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Sharper, "title", "Training")
    monkeypatch.setitem(COMMANDS, "prune", Command("prune", "Prune.", (RunOptions, Sharper)))
    monkeypatch.setenv("COLUMNS", "200")
    assert parse(["prune", "--help"]) is None
    shown = capsys.readouterr().out
    assert re.search(r"--sharpness X +How sharp\. \[default: 0\.25; at least 0 and less ", shown)
    asked = parse(["prune", "--sharpness", "0.5", "--out", "o"])
    assert asked is not None
    assert resolve(Sharper, asked.of(Sharper), defaults=NEEDED).as_json()["sharpness"] == 0.5
    with pytest.raises(InputError, match=r"sharpness = 1\.0: expected at least 0 and less than"):
        parse(["prune", "--sharpness", "1", "--out", "o"])
    file = file_with(tmp_path, "sharpnes = 0.5\n")
    with pytest.raises(InputError, match="did you mean sharpness"):
        resolve(Sharper, NEEDED, file=file)


@given(
    st.sampled_from([f.name for f in fields(PruneOptions)]),
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.text())),
)
def test_any_value_gives_a_configuration_or_an_input_error(key: str, value: object) -> None:
    try:
        config = resolve(PruneOptions, {**NEEDED, key: value})
    except InputError:
        return
    assert resolve(PruneOptions, {}, defaults=json.loads(json.dumps(config.as_json()))) == config
