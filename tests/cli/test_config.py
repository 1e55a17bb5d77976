from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcprune.errors import InputError
from lcprune.runs import PruneOptions, resolve

NEEDED: dict[str, Any] = {"model": "m", "data": "d", "budget": ("macs=50%",)}


def file_with(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(text)
    return path


def test_the_command_line_is_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    file = file_with(tmp_path, 'seed = 1\ntrials = 7\nmodel = "a"\nfinetune-epochs = 3\n')
    config = resolve({**NEEDED, "trials": 9, "criterion": None}, file=file)
    assert (config.seed, config.trials, config.model) == (1, 9, "m")
    assert config.finetune_epochs == 3
    assert config.criterion == PruneOptions().criterion
    assert config.learning_rate == PruneOptions().learning_rate


def test_stored_values_are_the_defaults_of_a_resumed_run() -> None:
    stored = resolve({**NEEDED, "seed": 4, "crop": 2, "flip": False})
    assert resolve({}, defaults=json.loads(json.dumps(stored.as_json()))) == stored
    assert resolve({"seed": 5}, defaults=stored.as_json()).seed == 5


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
    assert resolve({}, file=file).budget == ("macs=50%",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trails = 3", "'trails'.*trials"),
        ("zzz = 3", "unknown key 'zzz'"),
        ("trials = 'many'", "expected int"),
        ("trials = 3.5", "expected int"),
        ("trials = true", "expected int"),
        ("distill = 1", "expected bool"),
        ("seed = ['0']", "expected int"),
        ("model = 3", "expected str"),
        ("budget = 0.5", "macs=50%"),
        ("budget = [0.5]", "macs=50%"),
        ("only = 3", "only = 3: expected text such as 'layer1"),
        ("skip = [1]", "skip = .*layer1"),
        ("skip_types = true", "skip_types = True: expected text such as 'Linear'"),
        ("[skip]\nlayer1 = true", "skip = .*layer1"),
        ("min_keep = 'most'", "min_keep = 'most': expected float"),
        ("round_to = 8.0", "round_to = 8.0: expected int"),
        ("round-too = 8", "'round_too'.*round_to"),
        ("learning_rate = 'fast'", "expected more than 0, or auto"),
        ("trials = ", "not TOML"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    rest = {key: value for key, value in NEEDED.items() if not text.startswith(key)}
    with pytest.raises(InputError, match=message) as caught:
        resolve(rest, file=file_with(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_absent_or_binary(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.toml"):
        resolve(NEEDED, file=tmp_path / "nowhere.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not TOML"):
        resolve(NEEDED, file=tmp_path / "binary.toml")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("trials", 0),
        ("finalists", 0),
        ("finalists", -1),
        ("finalist_steps", 0),
        ("batch_size", 0),
        ("fitness_images", 0),
        ("recalibrate_images", -1),
        ("finetune_epochs", -1),
        ("base_epochs", -1),
        ("seed", -1),
        ("crop", -1),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("weight_decay", -0.1),
        ("temperature", 0.0),
        ("min_keep", 1.5),
        ("round_to", 0),
        ("round_to", -8),
        ("distill_weight", -0.5),
        ("schedule", "wavy"),
        ("search_dtype", "int8"),
        ("model", ""),
        ("data", ""),
        ("budget", ()),
    ],
)
def test_values_out_of_range_are_refused(key: str, value: object) -> None:
    with pytest.raises(InputError, match=key.split("_")[0]) as caught:
        resolve({**NEEDED, key: value})
    assert "\n" not in str(caught.value)


@given(
    st.sampled_from([f.name for f in fields(PruneOptions)]),
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.text())),
)
def test_any_value_gives_a_configuration_or_an_input_error(key: str, value: object) -> None:
    try:
        config = resolve({**NEEDED, key: value})
    except InputError:
        return
    assert resolve({}, defaults=json.loads(json.dumps(config.as_json()))) == config
